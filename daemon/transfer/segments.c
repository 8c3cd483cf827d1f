#include "daemon/transfer/segments.h"

/* A segment is about this long: requests cost little beside it, and little waits for it. */
#define SEGMENT_SECONDS 4
#define SEGMENT_MIN_BYTES (1 * MIB)
#define SEGMENT_FIRST_BYTES (2 * MIB) /* while the speed is not known */
#define SEGMENT_MAX_BYTES (64 * MIB)

/* What is stolen is at least so much, from one that would go on for at least so long. */
#define STEAL_MIN_BYTES (256 * KIB)
#define STEAL_MIN_MS 1000

struct gap {
    struct list node;
    uint64_t offset, end;
};

void segments_init(struct segments *segments)
{
    list_init(&segments->gaps);
    list_init(&segments->live);
}

void segments_done(struct segments *segments)
{
    CHECK(list_empty(&segments->live));
    segments_clear_gaps(segments);
}

static void gap_free(struct gap *gap)
{
    list_remove(&gap->node);
    free(gap);
}

void segments_clear_gaps(struct segments *segments)
{
    LIST_FOR_EACH (node, &segments->gaps) {
        gap_free(LIST_ITEM(node, struct gap, node));
    }
}

void segments_add(struct segments *segments, uint64_t offset, uint64_t end)
{
    struct list *next = segments->gaps.next;
    struct gap *gap;

    if (offset >= end)
        return;
    while (next != &segments->gaps && LIST_ITEM(next, struct gap, node)->offset < end)
        next = next->next;
    gap = xcalloc(1, sizeof(*gap));
    *gap = (struct gap){.offset = offset, .end = end};
    list_append(next, &gap->node); /* before it */
    /* Neighbours that touch are one. */
    if (next != &segments->gaps && LIST_ITEM(next, struct gap, node)->offset == end) {
        gap->end = LIST_ITEM(next, struct gap, node)->end;
        gap_free(LIST_ITEM(next, struct gap, node));
    }
    if (gap->node.prev != &segments->gaps) {
        struct gap *previous = LIST_ITEM(gap->node.prev, struct gap, node);
        CHECK(previous->end <= offset);
        if (previous->end == offset) {
            previous->end = gap->end;
            gap_free(gap);
        }
    }
}

static uint64_t align_up(uint64_t offset)
{
    return (offset + SEGMENT_ALIGN - 1) / SEGMENT_ALIGN * SEGMENT_ALIGN;
}

static void begin(struct segments *segments, struct segment *segment, uint64_t offset, uint64_t end)
{
    segment->position = offset;
    segment->end = end;
    list_append(&segments->live, &segment->node);
}

bool segments_take(struct segments *segments, uint64_t size_bytes, struct segment *ret)
{
    struct list *first = list_first(&segments->gaps);
    struct gap *gap;

    if (!first)
        return false;
    gap = LIST_ITEM(first, struct gap, node);
    begin(segments, ret, gap->offset, MIN(gap->end, align_up(gap->offset + size_bytes)));
    gap->offset = ret->end;
    if (gap->offset == gap->end)
        gap_free(gap);
    return true;
}

static uint64_t left_ms(const struct segment *segment)
{
    return (segment->end - segment->position) * 1000 / MAX(segment->bytes_per_second, 1U);
}

static struct segment *slowest(const struct segments *segments)
{
    struct segment *slowest = NULL;

    LIST_FOR_EACH (node, (struct list *)&segments->live) {
        struct segment *segment = LIST_ITEM(node, struct segment, node);
        if (segment->end - segment->position >= 2 * STEAL_MIN_BYTES &&
            left_ms(segment) >= STEAL_MIN_MS && (!slowest || left_ms(segment) > left_ms(slowest)))
            slowest = segment;
    }
    return slowest;
}

bool segments_can_steal(const struct segments *segments)
{
    return slowest(segments) != NULL;
}

bool segments_steal(struct segments *segments, uint64_t bytes_per_second, struct segment *ret)
{
    struct segment *victim = slowest(segments);
    uint64_t left, tail, cut;

    if (!victim)
        return false;
    left = victim->end - victim->position;
    tail = left / 2;
    /* In thousandths, for the product must fit. */
    if (bytes_per_second)
        tail =
            left / 1000 * (bytes_per_second * 1000 / (bytes_per_second + victim->bytes_per_second));
    tail = MAX(tail, STEAL_MIN_BYTES);
    cut = MIN(align_up(victim->end - tail), align_up(victim->end - STEAL_MIN_BYTES));
    if (cut <= victim->position || cut >= victim->end)
        return false;
    begin(segments, ret, cut, victim->end);
    victim->end = cut;
    return true;
}

void segments_give_back(struct segments *segments, struct segment *segment)
{
    if (!segment->node.next || list_empty(&segment->node))
        return;
    list_remove(&segment->node);
    segments_add(segments, segment->position, segment->end);
    segment->position = segment->end = 0;
}

void segments_cut(struct segments *segments, struct segment *segment)
{
    uint64_t end = segment->end, cut;

    /* About a second from here: what is on its way already should not have to come again. */
    if (!segment->bytes_per_second || segment->bytes_per_second >= end - segment->position)
        return;
    cut = align_up(segment->position + segment->bytes_per_second);
    if (cut >= end)
        return;
    segment->end = cut;
    segments_add(segments, cut, end);
}

bool segments_have_gap(const struct segments *segments)
{
    return !list_empty(&segments->gaps);
}

uint64_t segments_gap_bytes(const struct segments *segments)
{
    uint64_t bytes = 0;

    LIST_FOR_EACH (node, (struct list *)&segments->gaps) {
        bytes += LIST_ITEM(node, struct gap, node)->end - LIST_ITEM(node, struct gap, node)->offset;
    }
    return bytes;
}

uint64_t segment_size_for(uint64_t bytes_per_second)
{
    uint64_t size = bytes_per_second * SEGMENT_SECONDS;

    if (!bytes_per_second)
        return SEGMENT_FIRST_BYTES;
    return MIN(MAX(size, SEGMENT_MIN_BYTES), SEGMENT_MAX_BYTES);
}
