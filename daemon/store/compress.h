/* Compression of layers, without I/O: gzip (ISA-L; zlib where the CPU has none) and zstd. The same
 * bytes in always give the same bytes out, for one version of the library: no time, no name, and
 * pieces of one size. For the thread pool: no state shared with the loop. */
#pragma once

#include "proto/base/error.h"

enum compression { COMPRESSION_GZIP, COMPRESSION_ZSTD };

/* "gzip" or "zstd"; empty or NULL is gzip. INVALID_ARGUMENT (UNKNOWN_COMPRESSION). */
bool compression_parse(const char *text, enum compression *ret, struct error *err);

struct compressor;

/* size_bytes: of all that is to be compressed. */
#define COMPRESS_SIZE_UNKNOWN UINT64_MAX
struct compressor *compressor_new(enum compression compression, uint64_t size_bytes);
/* zstd, of which speed is wanted more than size: for what is not sent anywhere. */
struct compressor *compressor_new_fast(void);
struct compressor *compressor_new_zlib(void); /* never ISA-L: as where it is missing */
struct compressor *compressor_free(struct compressor *compressor);
static inline void compressor_cleanup(struct compressor **compressor)
{
    *compressor = compressor_free(*compressor);
}

/* Compresses the next piece: COMPRESS_PIECE_BYTES, but for the last, which may be shorter or empty.
 * Returns how much came out (0 and more, less than two pieces), at *ret until the next call. */
#define COMPRESS_PIECE_BYTES (256 * KIB)
size_t compress_piece(struct compressor *compressor, const void *data, size_t size, bool last,
                      const uint8_t **ret);
