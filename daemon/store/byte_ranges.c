#include "daemon/store/byte_ranges.h"

#define CAPACITY_FIRST 8

void byte_ranges_done(struct byte_ranges *ranges)
{
    free(ranges->items);
    *ranges = (struct byte_ranges){0};
}

/* The first range that ends at or after an offset. */
static size_t find(const struct byte_ranges *ranges, uint64_t offset)
{
    size_t low = 0, high = ranges->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ranges->items[middle].end < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Puts one range in the place of `removed` others. */
static void replace(struct byte_ranges *ranges, size_t at, size_t removed, struct byte_range range)
{
    if (removed == 0 && ranges->count == ranges->capacity) {
        ranges->capacity = MAX(CAPACITY_FIRST, 2 * ranges->capacity);
        ranges->items = xrealloc(ranges->items, ranges->capacity * sizeof(*ranges->items));
    }
    memmove(ranges->items + at + 1, ranges->items + at + removed,
            (ranges->count - at - removed) * sizeof(*ranges->items));
    ranges->items[at] = range;
    ranges->count = ranges->count + 1 - removed;
}

struct byte_range byte_ranges_add(struct byte_ranges *ranges, uint64_t offset, uint64_t end)
{
    struct byte_range range = {offset, end};
    size_t at = find(ranges, offset), after = at;

    if (offset >= end)
        return range;
    for (; after < ranges->count && ranges->items[after].offset <= end; after++) {
        const struct byte_range *other = &ranges->items[after];
        range.offset = MIN(range.offset, other->offset);
        range.end = MAX(range.end, other->end);
        ranges->bytes -= other->end - other->offset;
    }
    replace(ranges, at, after - at, range);
    ranges->bytes += range.end - range.offset;
    return range;
}

bool byte_ranges_missing(const struct byte_ranges *ranges, uint64_t from, uint64_t limit,
                         struct byte_range *ret)
{
    size_t at = find(ranges, from);

    *ret = (struct byte_range){from, limit};
    if (at < ranges->count && ranges->items[at].offset <= from)
        ret->offset = ranges->items[at++].end;
    if (at < ranges->count)
        ret->end = MIN(limit, ranges->items[at].offset);
    return ret->offset < ret->end;
}

bool byte_ranges_hold(const struct byte_ranges *ranges, uint64_t offset, uint64_t end)
{
    struct byte_range missing;

    return !byte_ranges_missing(ranges, offset, end, &missing);
}
