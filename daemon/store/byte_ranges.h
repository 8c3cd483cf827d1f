/* A set of bytes of a file: sorted ranges that neither touch nor overlap. No I/O, no locks. Life
 * cycle: zero-initialise, use, byte_ranges_done. */
#pragma once

#include "proto/base/util.h"

struct byte_range {
    uint64_t offset, end; /* exclusive */
};

struct byte_ranges {
    struct byte_range *items;
    size_t count, capacity;
    uint64_t bytes; /* in all of them */
};

void byte_ranges_done(struct byte_ranges *ranges);

/* Adds offset..end, and returns the range that it is part of now. An empty one changes nothing. */
struct byte_range byte_ranges_add(struct byte_ranges *ranges, uint64_t offset, uint64_t end);

/* The first range below `limit`, at or after `from`, of bytes that are not in the set. */
bool byte_ranges_missing(const struct byte_ranges *ranges, uint64_t from, uint64_t limit,
                         struct byte_range *ret);

/* Whether every byte of offset..end is in it. */
bool byte_ranges_hold(const struct byte_ranges *ranges, uint64_t offset, uint64_t end);
