#include "daemon/store/erofs/table.h"

#include <sys/random.h>

#define CAPACITY_MIN 256

/* Open addressing with linear probing, at most 3/4 full; nothing is ever removed. */

void table_init(struct table *table)
{
    *table = (struct table){.mask = CAPACITY_MIN - 1};
    table->slots = xcalloc(CAPACITY_MIN, sizeof(*table->slots));
    if (getrandom(&table->seed, sizeof(table->seed), GRND_NONBLOCK) != sizeof(table->seed))
        table->seed = (uint64_t)wall_clock_ns(); /* at boot, before there is randomness */
}

void table_done(struct table *table)
{
    free(table->slots);
    *table = (struct table){0};
}

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
    return hash ^ hash >> 32;
}

uint32_t table_hash(const struct table *table, uint64_t number, const void *data, size_t size)
{
    uint64_t hash = mix(table->seed ^ size, number), word;
    const char *bytes = data;

    for (; size >= sizeof(word); size -= sizeof(word), bytes += sizeof(word)) {
        memcpy(&word, bytes, sizeof(word));
        hash = mix(hash, word);
    }
    word = 0;
    memcpy(&word, bytes, size);
    hash = mix(mix(hash, word), table->seed);
    return (uint32_t)hash;
}

struct table_item *table_next(const struct table *table, uint32_t hash, size_t *iterator)
{
    for (;;) {
        struct table_item *item = table->slots[*iterator & table->mask];
        (*iterator)++;
        if (!item || item->hash == hash)
            return item;
    }
}

static void insert(struct table *table, struct table_item *item)
{
    size_t i = item->hash & table->mask;

    while (table->slots[i])
        i = (i + 1) & table->mask;
    table->slots[i] = item;
}

static void grow(struct table *table)
{
    struct table larger = {.mask = table->mask * 2 + 1, .count = table->count, .seed = table->seed};

    larger.slots = xcalloc(larger.mask + 1, sizeof(*larger.slots));
    for (size_t i = 0; i <= table->mask; i++) {
        if (table->slots[i])
            insert(&larger, table->slots[i]);
    }
    free(table->slots);
    *table = larger;
}

void table_add(struct table *table, struct table_item *item)
{
    if ((table->count + 1) * 4 > (table->mask + 1) * 3)
        grow(table);
    insert(table, item);
    table->count++;
}
