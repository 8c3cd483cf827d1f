/* A hash set of items that keep their own hash, for millions of them: 8 to 16 bytes each. Hashes
 * are seeded, so that a stranger cannot choose names that collide. */
#pragma once

#include "proto/base/util.h"

/* The first member of every item. */
struct table_item {
    uint32_t hash;
};

struct table {
    struct table_item **slots;
    size_t count, mask;
    uint64_t seed;
};

void table_init(struct table *table);
void table_done(struct table *table);

/* The hash of bytes and a number that goes with them. */
uint32_t table_hash(const struct table *table, uint64_t number, const void *data, size_t size);

/* Walks the items of a hash, not all of which are equal: start with *iterator = hash; NULL at the
 * end. */
struct table_item *table_next(const struct table *table, uint32_t hash, size_t *iterator);

/* Adds an item whose hash is set; it stays the caller's. */
void table_add(struct table *table, struct table_item *item);
