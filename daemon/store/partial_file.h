/* The file of a partial: the blob's bytes where they belong, then, from the next page on, a header
 * and two maps of one byte per block, which only ever goes from 0 to 1:
 *
 *   written   the block is in the file: true while the kernel runs that the header names (a kill
 *             leaves the page cache alone)
 *   durable   it is on the disk: true for ever
 *
 * So nothing has to be in any order but: data before its byte, and, for `durable`, a sync between.
 * A file that is exactly as long as the blob has no header: it is complete and was checked. For the
 * files of this folder; blocks. */
#pragma once

#include "daemon/store/byte_ranges.h"
#include "proto/base/digest.h"

#define PARTIAL_BLOCK_BYTES (4 * KIB) /* of blobs up to 4 GiB, so that no map is beyond a MiB */

struct partial_layout {
    uint64_t size_bytes; /* of the blob */
    uint64_t block_bytes;
    size_t block_count;
    uint64_t header_offset, written_offset, durable_offset, end;
};

/* False with an error for a size that no file can have. */
bool partial_layout_make(uint64_t size_bytes, struct partial_layout *ret, struct error *err);

/* The range of blocks that lie wholly in a range of bytes. */
struct byte_range partial_blocks(const struct partial_layout *layout, struct byte_range bytes);

/* What the file holds. */
struct partial_state {
    struct byte_ranges have, durable;
    bool current; /* header and `written` are there, and of the running kernel */
    bool bare;    /* there is no header: complete */
};
void partial_state_done(struct partial_state *state);

/* Reads it into an empty state; boot_id is the running kernel's. False if it is not a file of this
 * blob and this davit, or cannot be read: it is of no use then. */
bool partial_file_read(int fd, const struct partial_layout *layout, const struct digest *blob,
                       const char *boot_id, struct partial_state *ret, struct error *err);

/* Writes the maps and then the header, which makes the state current. */
bool partial_file_write_tail(int fd, const struct partial_layout *layout, const struct digest *blob,
                             const char *boot_id, struct partial_state *state, struct error *err);

/* Sets bytes of a map. */
bool partial_file_mark(int fd, uint64_t map_offset, struct byte_range blocks, struct error *err);

/* All of the bytes, or an error. */
bool partial_file_write(int fd, const void *data, size_t size, uint64_t offset, struct error *err);
bool partial_file_pread(int fd, void *data, size_t size, uint64_t offset, struct error *err);
