#include "proto/base/map.h"

#include <sys/random.h>

/* Open addressing with linear probing; at most 2/3 full. A removed slot is closed by moving later
 * members of its run back, so there are no tombstones. */
struct slot {
    char *key; /* NULL while free */
    void *value;
    uint64_t hash;
};

struct map {
    struct slot *slots;
    size_t count, capacity; /* capacity is a power of two */
    uint64_t seed;          /* so that a peer cannot choose keys that collide */
};

/* The halves of a product: each bit of the word changes about half of them. */
static uint64_t mix(uint64_t hash, uint64_t word)
{
    const unsigned __int128 product = (unsigned __int128)(hash ^ word) * 0x9e3779b97f4a7c15ULL;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Eight bytes at a time: most keys are digests, and a start looks for 100,000 of them. */
static uint64_t hash_key(const struct map *map, const char *key)
{
    size_t length = strlen(key);
    uint64_t hash = map->seed ^ length, word;

    for (; length >= sizeof(word); key += sizeof(word), length -= sizeof(word)) {
        memcpy(&word, key, sizeof(word));
        hash = mix(hash, word);
    }
    word = 0;
    memcpy(&word, key, length);
    return mix(hash, word ^ map->seed);
}

struct map *map_new(void)
{
    struct map *map = xcalloc(1, sizeof(*map));

    if (getrandom(&map->seed, sizeof(map->seed), GRND_NONBLOCK) != sizeof(map->seed))
        map->seed = (uint64_t)wall_clock_ns(); /* at boot, before there is randomness */
    map->capacity = 8;
    map->slots = xcalloc(map->capacity, sizeof(*map->slots));
    return map;
}

struct map *map_free(struct map *map)
{
    if (!map)
        return NULL;
    for (size_t i = 0; i < map->capacity; i++)
        free(map->slots[i].key);
    free(map->slots);
    free(map);
    return NULL;
}

size_t map_count(const struct map *map)
{
    return map->count;
}

/* The slot that holds the key, or the free slot where it would go. */
static struct slot *find_slot(const struct map *map, const char *key, uint64_t hash)
{
    size_t mask = map->capacity - 1;

    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        struct slot *slot = &map->slots[i];
        if (!slot->key || (slot->hash == hash && strcmp(slot->key, key) == 0))
            return slot;
    }
}

void *map_get(const struct map *map, const char *key)
{
    struct slot *slot = find_slot(map, key, hash_key(map, key));

    return slot->key ? slot->value : NULL;
}

static void grow(struct map *map)
{
    struct map larger = {.capacity = map->capacity * 2, .count = map->count, .seed = map->seed};

    larger.slots = xcalloc(larger.capacity, sizeof(*larger.slots));
    for (size_t i = 0; i < map->capacity; i++) {
        if (map->slots[i].key)
            *find_slot(&larger, map->slots[i].key, map->slots[i].hash) = map->slots[i];
    }
    free(map->slots);
    *map = larger;
}

void *map_put(struct map *map, const char *key, void *value)
{
    uint64_t hash = hash_key(map, key);
    struct slot *slot;
    void *previous;

    CHECK(value);
    if ((map->count + 1) * 3 > map->capacity * 2)
        grow(map);
    slot = find_slot(map, key, hash);
    previous = slot->value;
    if (!slot->key) {
        slot->key = xstrdup(key);
        slot->hash = hash;
        map->count++;
    }
    slot->value = value;
    return previous;
}

void *map_remove(struct map *map, const char *key)
{
    struct slot *slot = find_slot(map, key, hash_key(map, key));
    size_t mask = map->capacity - 1;
    size_t hole = (size_t)(slot - map->slots);
    void *value = slot->value;

    if (!slot->key)
        return NULL;
    free(slot->key);
    map->count--;
    for (size_t i = (hole + 1) & mask; map->slots[i].key; i = (i + 1) & mask) {
        size_t home = map->slots[i].hash & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            map->slots[hole] = map->slots[i];
            hole = i;
        }
    }
    map->slots[hole] = (struct slot){0};
    return value;
}

bool map_next(const struct map *map, size_t *iterator, const char **ret_key, void **ret_value)
{
    for (; *iterator < map->capacity; (*iterator)++) {
        const struct slot *slot = &map->slots[*iterator];
        if (!slot->key)
            continue;
        if (ret_key)
            *ret_key = slot->key;
        if (ret_value)
            *ret_value = slot->value;
        (*iterator)++;
        return true;
    }
    return false;
}
