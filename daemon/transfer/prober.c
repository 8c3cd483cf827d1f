#include "daemon/transfer/prober.h"

/* What is compared is measured for so long. */
#define WINDOW_MS 400
/* New connections that do not deliver by then are part of the answer. */
#define SETTLE_MAX_MS 2000
/* New ones have to bring this much of what the old ones do, in percent. */
#define GAIN_MIN_PERCENT 40
/* Until the next attempt: this, doubled by every one that was in vain. */
#define HOLD_FIRST_MS 10000
#define HOLD_MAX_MS 120000
/* After a failure one more is allowed this much later, and so on. */
#define CEILING_STEP_MS 5000
/* Where even the fastest gets less than this for so long, fewer may get further; after a while one
 * more. */
#define SLOW_BYTES_PER_S (4 * KIB)
#define SLOW_AFTER_MS 5000
#define SLOW_STEP_MS 60000

void prober_init(struct prober *prober, unsigned int max_connections)
{
    *prober = (struct prober){.max = max_connections, .ceiling = max_connections};
}

unsigned int prober_allowed(const struct prober *prober, unsigned int layers)
{
    unsigned int wanted = MAX(prober->allowed, layers);

    return MAX(MIN(wanted, MIN(prober->ceiling, prober->max)), 1U);
}

static void begin(struct prober *prober, int state, const struct prober_sample *sample)
{
    prober->state = state;
    prober->since_ms = sample->now_ms;
    prober->since_bytes = sample->total_bytes;
    prober->settled_count = sample->delivering;
}

static uint64_t rate_since(const struct prober *prober, const struct prober_sample *sample)
{
    uint64_t elapsed = MAX(sample->now_ms - prober->since_ms, 1U);

    return (sample->total_bytes - prober->since_bytes) * 1000 / elapsed;
}

static void hold(struct prober *prober, uint64_t now_ms)
{
    uint64_t hold_ms = (uint64_t)HOLD_FIRST_MS << MIN(prober->failures, 8U);

    prober->state = PROBER_HOLDING;
    prober->hold_until_ms = now_ms + MIN(hold_ms, HOLD_MAX_MS);
}

/* Doubles them, and compares with what there is now. */
static void try_more(struct prober *prober, uint64_t rate, const struct prober_sample *sample)
{
    unsigned int now = sample->connections;

    prober->before_rate = rate;
    prober->before_count = now;
    prober->before_allowed = prober->allowed;
    prober->allowed = MIN(2 * now, prober->max);
    begin(prober, PROBER_TRYING, sample);
    prober->settled_count = 0; /* the new ones have yet to begin */
}

/* Did what was tried help? */
static void judge(struct prober *prober, const struct prober_sample *sample)
{
    uint64_t rate = rate_since(prober, sample);
    unsigned int added = sample->connections - MIN(sample->connections, prober->before_count);
    uint64_t expected = prober->before_rate * added / MAX(prober->before_count, 1U);

    if (added > 0 && rate >= prober->before_rate + expected * GAIN_MIN_PERCENT / 100) {
        prober->failures = 0;
        if (prober->allowed < prober->max && prober->allowed < prober->ceiling)
            try_more(prober, rate, sample);
        else
            hold(prober, sample->now_ms);
        return;
    }
    prober->allowed = prober->before_allowed;
    hold(prober, sample->now_ms);
    prober->failures++;
}

static void raise_ceiling(struct prober *prober, uint64_t now_ms)
{
    if (prober->ceiling >= prober->max || now_ms < prober->ceiling_until_ms)
        return;
    prober->ceiling++;
    prober->ceiling_until_ms = now_ms + CEILING_STEP_MS;
}

/* Not where a few stand still beside others: those are given up one by one. */
static void lower_ceiling_if_slow(struct prober *prober, const struct prober_sample *sample)
{
    bool slow = !sample->capped && sample->connections > 1 &&
                sample->delivering == sample->connections && sample->fastest > 0 &&
                sample->fastest < SLOW_BYTES_PER_S && sample->connections == prober->slow_count;

    if (slow && sample->now_ms - prober->slow_since_ms < SLOW_AFTER_MS)
        return;
    if (slow) {
        prober->ceiling = sample->connections - 1;
        prober->ceiling_until_ms = sample->now_ms + SLOW_STEP_MS;
    }
    prober->slow_since_ms = sample->now_ms;
    prober->slow_count = sample->connections;
}

void prober_look(struct prober *prober, const struct prober_sample *sample)
{
    raise_ceiling(prober, sample->now_ms);
    lower_ceiling_if_slow(prober, sample);
    if (sample->layers == 0) {
        prober_init(prober, prober->max); /* the next may come from elsewhere */
        return;
    }
    switch (prober->state) {
    case PROBER_HOLDING:
        if (sample->now_ms >= prober->hold_until_ms)
            begin(prober, PROBER_WARMING, sample);
        return;
    case PROBER_WARMING:
        /* Measured while all that there are deliver and none comes or goes. */
        if (!sample->useful || sample->delivering < sample->connections ||
            sample->delivering != prober->settled_count)
            begin(prober, PROBER_WARMING, sample);
        else if (sample->now_ms - prober->since_ms >= WINDOW_MS &&
                 sample->connections < MIN(prober->max, prober->ceiling))
            try_more(prober, rate_since(prober, sample), sample);
        return;
    case PROBER_TRYING:
        if (!sample->useful && sample->connections <= prober->before_count) {
            prober->allowed = prober->before_allowed; /* it came to no test */
            begin(prober, PROBER_WARMING, sample);
        } else if (prober->settled_count == 0) {
            if (sample->delivering >= prober->allowed ||
                sample->now_ms - prober->since_ms >= SETTLE_MAX_MS)
                begin(prober, PROBER_TRYING, sample);
        } else if (sample->now_ms - prober->since_ms >= WINDOW_MS) {
            judge(prober, sample);
        }
        return;
    }
}

void prober_failed(struct prober *prober, unsigned int others, uint64_t now_ms)
{
    prober->ceiling = MAX(MIN(others, prober->ceiling), 1U);
    prober->allowed = MIN(prober->allowed, prober->ceiling);
    prober->ceiling_until_ms = now_ms + CEILING_STEP_MS;
    if (prober->state == PROBER_TRYING) {
        prober->failures++;
        hold(prober, now_ms);
    }
}
