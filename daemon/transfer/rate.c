#include "daemon/transfer/rate.h"

#include "proto/async/loop.h"

/* What is saved up at most between grants, and how much one is: both in time at the cap. */
#define BURST_MS 250
#define GRANT_MS 40
#define GRANT_MIN_BYTES (2 * KIB)
/* What was taken at a higher cap than now is paid for in this time at most. */
#define DEBT_MAX_MS 1000

/* Credit is counted in thousandths of a byte: exact for every cap in whole bytes per second. */
struct rate_limit {
    unsigned int references;
    uint64_t bytes_per_second;
    int64_t credit; /* negative: those who come next pay for it first */
    uint64_t refilled_ms;
    struct list waiters;
    struct loop_timer timer;
};

struct waiter {
    struct list node;
    struct event event;
    size_t bytes;
};

struct rate_limit *rate_limit_new(uint64_t bytes_per_second)
{
    struct rate_limit *limit = xcalloc(1, sizeof(*limit));

    limit->references = 1;
    limit->bytes_per_second = bytes_per_second;
    limit->refilled_ms = loop_now_ms();
    list_init(&limit->waiters);
    return limit;
}

struct rate_limit *rate_limit_ref(struct rate_limit *limit)
{
    if (limit)
        limit->references++;
    return limit;
}

struct rate_limit *rate_limit_unref(struct rate_limit *limit)
{
    if (!limit || --limit->references > 0)
        return NULL;
    CHECK(list_empty(&limit->waiters));
    loop_timer_stop(&limit->timer);
    free(limit);
    return NULL;
}

static int64_t burst(const struct rate_limit *limit)
{
    return (int64_t)(limit->bytes_per_second * BURST_MS);
}

static void refill(struct rate_limit *limit)
{
    uint64_t now = loop_now_ms(), elapsed = now - limit->refilled_ms;

    limit->refilled_ms = now;
    /* Nobody waits for longer than this, and the product stays small. */
    elapsed = MIN(elapsed, 100 * DEBT_MAX_MS);
    limit->credit = MIN(burst(limit), limit->credit + (int64_t)(limit->bytes_per_second * elapsed));
}

static void on_credit(struct loop_timer *timer);

/* What the limit lacks before this one is due; more than a burst is paid for afterwards. */
static int64_t lack(const struct rate_limit *limit, const struct waiter *waiter)
{
    return MIN((int64_t)waiter->bytes * 1000, burst(limit)) - limit->credit;
}

/* Serves who is due, in their order. */
static void serve(struct rate_limit *limit)
{
    struct list *first;
    struct waiter *waiter = NULL;

    refill(limit);
    while ((first = list_first(&limit->waiters))) {
        waiter = LIST_ITEM(first, struct waiter, node);
        if (limit->bytes_per_second && lack(limit, waiter) > 0)
            break;
        list_remove(first);
        limit->credit -= (int64_t)waiter->bytes * 1000;
        event_fire(&waiter->event);
    }
    loop_timer_stop(&limit->timer);
    if (first) {
        uint64_t rate = limit->bytes_per_second;
        loop_timer_start(&limit->timer, ((uint64_t)lack(limit, waiter) + rate - 1) / rate,
                         on_credit);
    }
}

static void on_credit(struct loop_timer *timer)
{
    serve(CONTAINER_OF(timer, struct rate_limit, timer));
}

void rate_limit_set(struct rate_limit *limit, uint64_t bytes_per_second)
{
    refill(limit);
    limit->bytes_per_second = bytes_per_second;
    limit->credit = MAX(limit->credit, -(int64_t)(bytes_per_second * DEBT_MAX_MS));
    serve(limit);
}

uint64_t rate_limit_get(const struct rate_limit *limit)
{
    return limit ? limit->bytes_per_second : 0;
}

static size_t grant(const struct rate_limit *limit, size_t wanted)
{
    uint64_t rate = rate_limit_get(limit);

    return rate ? MIN(wanted, MAX(rate * GRANT_MS / 1000, GRANT_MIN_BYTES)) : wanted;
}

size_t rate_grant(const struct rate_limit *own, const struct rate_limit *common, size_t wanted)
{
    return grant(common, grant(own, wanted));
}

static int await_limit(struct rate_limit *limit, size_t bytes)
{
    struct waiter waiter = {.bytes = bytes};
    int r;

    if (!rate_limit_get(limit))
        return 0;
    rate_limit_ref(limit);
    refill(limit);
    if (list_empty(&limit->waiters) && limit->credit == burst(limit))
        limit->credit = 0; /* it was idle */
    list_append(&limit->waiters, &waiter.node);
    serve(limit);
    r = waiter.event.fired ? 0 : await_event(&waiter.event, "keeping to a rate limit");
    list_remove(&waiter.node);
    if (!list_empty(&limit->waiters))
        serve(limit);
    rate_limit_unref(limit);
    return r;
}

int await_rate(struct rate_limit *own, struct rate_limit *common, size_t bytes)
{
    int r = await_limit(own, bytes);

    return r < 0 ? r : await_limit(common, bytes);
}
