#include "daemon/store/compress.h"

#include <zlib.h>
#include <zstd.h>
#ifdef DAVIT_HAVE_ISAL
#include <isa-l/igzip_lib.h>
#endif

#include "proto/base/strbuf.h"

/* Of ISA-L's 0 to 3 the smallest: 280 MB/s a core, which no slow line sees. Level 2 does 370, and
 * gives 1.5 % more; zlib's 6 does 20, and gives 10 % less. */
#define ISAL_LEVEL 3
#define ISAL_LEVEL_BUFFER_BYTES ISAL_DEF_LVL3_DEFAULT
#define ZLIB_LEVEL 6 /* Docker's */
#define ZSTD_LEVEL 3 /* zstd's own */
#define ZSTD_FAST_LEVEL 1
/* Level 3 would take 2 MiB, for 0.7 % less; memory is for as many layers as are sent at once. */
#define ZSTD_WINDOW_LOG 19
/* How much room is made at a time for what comes out. */
#define OUTPUT_STEP_BYTES (64 * KIB)

struct compressor {
    enum compression compression;
    struct strbuf output;
#ifdef DAVIT_HAVE_ISAL
    struct isal_zstream *isal;
    uint8_t *isal_level_buffer;
#endif
    z_stream *zlib;
    ZSTD_CCtx *zstd;
};

bool compression_parse(const char *text, enum compression *ret, struct error *err)
{
    *ret = COMPRESSION_GZIP;
    if (str_empty(text) || str_eq(text, "gzip"))
        return true;
    *ret = COMPRESSION_ZSTD;
    if (str_eq(text, "zstd"))
        return true;
    error_set(err, ERROR_INVALID_ARGUMENT, "UNKNOWN_COMPRESSION", "unknown compression \"%.40s\"",
              text);
    return error_hint(err, "gzip and zstd are known");
}

/* --- Life cycle --------------------------------------------------------------------------------
 */

#ifdef DAVIT_HAVE_ISAL
static void begin_isal(struct compressor *compressor)
{
    struct isal_zstream *stream = xcalloc(1, sizeof(*stream));

    isal_deflate_init(stream);
    stream->gzip_flag = IGZIP_GZIP;
    stream->level = ISAL_LEVEL;
    stream->level_buf_size = ISAL_LEVEL_BUFFER_BYTES;
    compressor->isal_level_buffer = xcalloc(1, ISAL_LEVEL_BUFFER_BYTES);
    stream->level_buf = compressor->isal_level_buffer;
    compressor->isal = stream;
}
#endif

static void begin_zstd(struct compressor *compressor, int level, uint64_t size_bytes)
{
    compressor->compression = COMPRESSION_ZSTD;
    compressor->zstd = ZSTD_createCCtx();
    CHECK(compressor->zstd);
    ZSTD_CCtx_setParameter(compressor->zstd, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(compressor->zstd, ZSTD_c_windowLog, ZSTD_WINDOW_LOG);
    ZSTD_CCtx_setPledgedSrcSize(compressor->zstd, size_bytes == COMPRESS_SIZE_UNKNOWN
                                                      ? ZSTD_CONTENTSIZE_UNKNOWN
                                                      : size_bytes);
}

struct compressor *compressor_new_fast(void)
{
    struct compressor *compressor = xcalloc(1, sizeof(*compressor));

    begin_zstd(compressor, ZSTD_FAST_LEVEL, COMPRESS_SIZE_UNKNOWN);
    return compressor;
}

struct compressor *compressor_new_zlib(void)
{
    struct compressor *compressor = xcalloc(1, sizeof(*compressor));
    z_stream *stream = compressor->zlib = xcalloc(1, sizeof(*stream));

    compressor->compression = COMPRESSION_GZIP;
    /* 16: a gzip header, without time and name */
    if (deflateInit2(stream, ZLIB_LEVEL, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        die("zlib does not start");
    return compressor;
}

struct compressor *compressor_new(enum compression compression, uint64_t size_bytes)
{
    struct compressor *compressor;

    if (compression == COMPRESSION_ZSTD) {
        compressor = xcalloc(1, sizeof(*compressor));
        begin_zstd(compressor, ZSTD_LEVEL, size_bytes);
        return compressor;
    }
#ifdef DAVIT_HAVE_ISAL
    compressor = xcalloc(1, sizeof(*compressor));
    compressor->compression = compression;
    begin_isal(compressor);
    return compressor;
#else
    return compressor_new_zlib();
#endif
}

struct compressor *compressor_free(struct compressor *compressor)
{
    if (!compressor)
        return NULL;
#ifdef DAVIT_HAVE_ISAL
    free(compressor->isal);
    free(compressor->isal_level_buffer);
#endif
    if (compressor->zlib)
        deflateEnd(compressor->zlib);
    free(compressor->zlib);
    ZSTD_freeCCtx(compressor->zstd);
    strbuf_done(&compressor->output);
    free(compressor);
    return NULL;
}

/* --- Pieces ------------------------------------------------------------------------------------
 */

/* Room for more output; *ret_size bytes of it. */
static uint8_t *make_room(struct compressor *compressor, size_t *ret_size)
{
    struct strbuf *output = &compressor->output;

    strbuf_reserve(output, OUTPUT_STEP_BYTES);
    *ret_size = output->capacity - output->length - 1;
    return (uint8_t *)output->data + output->length;
}

#ifdef DAVIT_HAVE_ISAL
static void piece_isal(struct compressor *compressor, const void *data, size_t size, bool last)
{
    struct isal_zstream *stream = compressor->isal;

    stream->next_in = (uint8_t *)data;
    stream->avail_in = (uint32_t)size;
    stream->end_of_stream = last;
    stream->flush = NO_FLUSH;
    do {
        size_t room;
        stream->next_out = make_room(compressor, &room);
        stream->avail_out = (uint32_t)room;
        if (isal_deflate(stream) != COMP_OK)
            die("ISA-L does not compress");
        compressor->output.length += room - stream->avail_out;
    } while (stream->avail_in > 0 || stream->avail_out == 0);
}
#endif

static void piece_zlib(struct compressor *compressor, const void *data, size_t size, bool last)
{
    z_stream *stream = compressor->zlib;

    stream->next_in = (uint8_t *)data;
    stream->avail_in = (uInt)size;
    do {
        size_t room;
        stream->next_out = make_room(compressor, &room);
        stream->avail_out = (uInt)room;
        if (deflate(stream, last ? Z_FINISH : Z_NO_FLUSH) == Z_STREAM_ERROR)
            die("zlib does not compress");
        compressor->output.length += room - stream->avail_out;
    } while (stream->avail_in > 0 || stream->avail_out == 0);
}

static void piece_zstd(struct compressor *compressor, const void *data, size_t size, bool last)
{
    ZSTD_inBuffer in = {.src = data, .size = size};
    size_t left;

    do {
        size_t room;
        ZSTD_outBuffer out = {.dst = make_room(compressor, &room)};
        out.size = room;
        left =
            ZSTD_compressStream2(compressor->zstd, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left))
            die("zstd does not compress: %s", ZSTD_getErrorName(left));
        compressor->output.length += out.pos;
    } while (in.pos < in.size || (last && left > 0));
}

size_t compress_piece(struct compressor *compressor, const void *data, size_t size, bool last,
                      const uint8_t **ret)
{
    CHECK(size == COMPRESS_PIECE_BYTES || (last && size < COMPRESS_PIECE_BYTES));
    strbuf_clear(&compressor->output);
    if (compressor->zstd)
        piece_zstd(compressor, data, size, last);
    else if (compressor->zlib)
        piece_zlib(compressor, data, size, last);
#ifdef DAVIT_HAVE_ISAL
    else
        piece_isal(compressor, data, size, last);
#endif
    *ret = (const uint8_t *)compressor->output.data;
    return compressor->output.length;
}
