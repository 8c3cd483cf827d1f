#include "daemon/registry/health.h"

#include "proto/async/loop.h"

/* After the first failure, and at most; it doubles in between. Short: a place that is asked last
 * costs nobody anything, and one that is back should be used. */
#define PENALTY_FIRST_MS 10000ULL
#define PENALTY_MAX_MS (10ULL * 60 * 1000)

/* Servers learn to do ranges, too. */
#define WHOLE_ONLY_MS (60ULL * 60 * 1000)

/* Names of places come with references: strangers choose them. */
#define MAX_PLACES 256

void health_table_init(struct health_table *table)
{
    table->by_place = map_new();
}

struct health *health_unref(struct health *health)
{
    if (!health || --health->references > 0)
        return NULL;
    free(health->place);
    free(health->last_error);
    free(health);
    return NULL;
}

void health_table_done(struct health_table *table)
{
    size_t iterator = 0;
    const char *place;
    void *health;

    if (!table->by_place)
        return;
    while (map_next(table->by_place, &iterator, &place, &health))
        health_unref(health);
    table->by_place = map_free(table->by_place);
}

/* Forgets what nobody uses: rather what is healthy. */
static void make_room(struct health_table *table)
{
    for (unsigned int round = 0; round < 2 && map_count(table->by_place) >= MAX_PLACES; round++) {
        struct map *kept = map_new();
        size_t iterator = 0;
        const char *place;
        void *value;
        while (map_next(table->by_place, &iterator, &place, &value)) {
            struct health *health = value;
            if (health->references > 1 || (round == 0 && !health_is_good(health)))
                map_put(kept, place, health);
            else
                health_unref(health);
        }
        map_free(table->by_place);
        table->by_place = kept;
    }
}

struct health *health_of(struct health_table *table, const char *place)
{
    struct health *health = map_get(table->by_place, place);

    if (!health) {
        make_room(table);
        health = xcalloc(1, sizeof(*health));
        health->place = xstrdup(place);
        health->references = 1;
        map_put(table->by_place, place, health);
    }
    health->references++;
    return health;
}

const struct health *health_find(const struct health_table *table, const char *place)
{
    return map_get(table->by_place, place);
}

void health_failed(struct health *health, const char *error, uint64_t wait_ms)
{
    uint64_t penalty_ms = PENALTY_FIRST_MS << MIN(health->failures, 10U);

    penalty_ms = MIN(penalty_ms, PENALTY_MAX_MS);
    /* Connections that break together are one failure of the place. */
    if (health_is_good(health))
        health->failures++;
    penalty_ms = penalty_ms * 3 / 4 + (uint64_t)random() % (penalty_ms / 2);
    penalty_ms = MAX(penalty_ms, MIN(wait_ms, PENALTY_MAX_MS));
    health->behind_until_ms = MAX(health->behind_until_ms, loop_now_ms() + penalty_ms);
    free(health->last_error);
    health->last_error = xstrdup(error);
}

void health_succeeded(struct health *health, uint64_t bytes)
{
    health->failures = 0;
    health->behind_until_ms = 0;
    health->bytes_served += bytes;
    free(health->last_error);
    health->last_error = NULL;
}

bool health_is_good(const struct health *health)
{
    return health->behind_until_ms <= loop_now_ms();
}

void health_learn_whole_only(struct health *health)
{
    health->whole_only_until_ms = loop_now_ms() + WHOLE_ONLY_MS;
}

bool health_whole_only(const struct health *health)
{
    return health->whole_only_until_ms > loop_now_ms();
}
