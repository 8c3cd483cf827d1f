/* Streaming inflate of layer blobs, without I/O: gzip (ISA-L; zlib where the CPU has none), zstd,
 * or none, recognised by the first bytes. For the thread pool: no state shared with the loop.
 * The limit on what comes out is the caller's: see decompressor_output_bytes(). */
#pragma once

#include <sys/types.h>

#include "proto/base/error.h"

struct decompressor;

struct decompressor *decompressor_new(void);
struct decompressor *decompressor_new_zlib(void); /* never ISA-L: as where it is missing */
struct decompressor *decompressor_free(struct decompressor *decompressor);
static inline void decompressor_cleanup(struct decompressor **decompressor)
{
    *decompressor = decompressor_free(*decompressor);
}

/* Takes input and gives output, as much as fits: advances *data and *size by what was consumed,
 * returns the number of bytes put into out, or -1 with err (DATA_LOSS, INVALID_COMPRESSION;
 * sticky). Call until *size is 0 and it returns less than out_size. Handles several gzip members
 * and zstd frames in a row. A zstd window is at most 128 MiB, the default of the zstd tool. */
ssize_t decompress(struct decompressor *decompressor, const uint8_t **data, size_t *size, void *out,
                   size_t out_size, struct error *err);

/* After the last input: true if the stream ended where a stream may end. */
bool decompressor_finished(const struct decompressor *decompressor, struct error *err);

/* All that came out so far. */
uint64_t decompressor_output_bytes(const struct decompressor *decompressor);
