/* The confined process that opens archives of images, and inflates (davit-archive), as the daemon
 * sees it: one task gives it the archive as it comes, another takes what is in it. */
#pragma once

#include "daemon/store/archive/frame.h"
#include "daemon/store/store.h"

struct archive_opener;

/* Starts it. Free it with archive_opener_free_await. NULL with err. */
struct archive_opener *await_archive_opener_start(const struct store *store, enum archive_mode mode,
                                                  struct error *err);

/* More of the archive; waits while it has enough. 0, or a negative errno: -EPIPE once it has
 * refused the archive, which whoever takes the pieces is told. */
int await_archive_opener_write(struct archive_opener *opener, const void *data, size_t size);

/* That was all of it. */
void archive_opener_end_input(struct archive_opener *opener);

/* So much was written. */
uint64_t archive_opener_input_bytes(const struct archive_opener *opener);

/* What comes out: members, and after each its bytes in pieces, as many as its size; with
 * ARCHIVE_INFLATE pieces only. */
struct archive_piece {
    bool is_member; /* then `member` holds, else `data`: one to ARCHIVE_PIECE_MAX bytes */
    struct frame_member member;
    const uint8_t *data;
    size_t size;
};
#define ARCHIVE_PIECE_MAX (512 * KIB)

/* The next one, valid until the next call: 1; 0 at the end of the archive; or -1: DATA_LOSS
 * (INVALID_ARCHIVE, INVALID_COMPRESSION) as the process tells, or because more comes out than goes
 * in by far; UNPACKER_FAILED if it died. */
int await_archive_opener_next(struct archive_opener *opener, struct archive_piece *ret,
                              struct error *err);

/* Kills it if it still runs and frees. Nobody else uses it meanwhile. Suspends, also for a
 * cancelled task. Takes NULL. */
void archive_opener_free_await(struct archive_opener *opener);
