/* What is missing of a blob, cut into the segments that connections fetch: no byte is in two of
 * them, and what one gives back or loses to another goes on at its exact byte. No I/O.
 *
 * Nouns: a *gap* is missing and nobody's; a *segment* belongs to one connection. Begin with
 * segments_take(). */
#pragma once

#include "proto/base/list.h"

/* Cuts are at multiples of this, so that a map of what is there has few half-filled blocks. */
#define SEGMENT_ALIGN (64 * KIB)

struct segments {
    struct list gaps; /* in order of their offsets */
    struct list live;
};

/* Embedded in a connection. */
struct segment {
    struct list node;
    uint64_t position, end;    /* the next byte to come, and behind the last one */
    uint64_t bytes_per_second; /* kept up to date by its connection; 0: not known yet */
};

void segments_init(struct segments *segments);
void segments_done(struct segments *segments); /* no segment is live */

/* Notes that a range is missing. It overlaps none that is known. */
void segments_add(struct segments *segments, uint64_t offset, uint64_t end);

/* The first gap, or its first size_bytes, becomes a segment. False if there is none. */
bool segments_take(struct segments *segments, uint64_t size_bytes, struct segment *ret);

/* The tail of the segment that would end last becomes one for a connection of this speed (0: not
 * known), so that both end at the same time. False if none is worth it. */
bool segments_steal(struct segments *segments, uint64_t bytes_per_second, struct segment *ret);

/* Whether segments_steal() would find one. */
bool segments_can_steal(const struct segments *segments);

/* A segment ends: what is left of it is a gap again. Does nothing for one that has ended. */
void segments_give_back(struct segments *segments, struct segment *segment);

/* A live segment is to end soon: its tail is a gap again, but for what comes within a second at
 * the speed that was measured; all of it if none was. */
void segments_cut(struct segments *segments, struct segment *segment);

/* All gaps go, to whoever asks for the whole blob. */
void segments_clear_gaps(struct segments *segments);

bool segments_have_gap(const struct segments *segments);
uint64_t segments_gap_bytes(const struct segments *segments);

/* A good size for the next segment of a connection of this speed. */
uint64_t segment_size_for(uint64_t bytes_per_second);
