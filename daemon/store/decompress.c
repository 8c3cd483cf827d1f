#include "daemon/store/decompress.h"

#include <stdio.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#ifdef DAVIT_HAVE_ISAL
#include <isa-l/igzip_lib.h>
#endif

#define ZSTD_WINDOW_LOG_MAX 27

/* The first bytes of the formats we read, and of some that we can only name in the error. */
enum format { FORMAT_UNKNOWN, FORMAT_PLAIN, FORMAT_GZIP, FORMAT_ZSTD, FORMAT_FOREIGN };

static const struct magic {
    const char *bytes;
    size_t size;
    enum format format;
    const char *name;
} magics[] = {
    {"\x1f\x8b", 2, FORMAT_GZIP, "gzip"},
    {"\x28\xb5\x2f\xfd", 4, FORMAT_ZSTD, "zstd"},
    {"\xfd\x37\x7a\x58\x5a", 5, FORMAT_FOREIGN, "xz"},
    {"BZh", 3, FORMAT_FOREIGN, "bzip2"},
};

/* What an engine did with one piece of input. */
struct step {
    const uint8_t *in;
    size_t in_size;
    uint8_t *out;
    size_t out_size;
};

struct decompressor {
    enum format format;
    const char *format_name;
    bool zlib_only, failed;
    bool between; /* after a whole member or frame: the stream may end here */
    uint8_t head[5];
    size_t head_size, head_used; /* bytes looked at to recognise the format, then decompressed */
    uint64_t output_bytes;
#ifdef DAVIT_HAVE_ISAL
    struct inflate_state *isal;
    struct isal_gzip_header isal_header;
    bool isal_header_read; /* of the member */
#endif
    z_stream *zlib;
    ZSTD_DCtx *zstd;
};

struct decompressor *decompressor_new(void)
{
    struct decompressor *decompressor = xcalloc(1, sizeof(*decompressor));

    decompressor->between = true; /* nothing at all is an empty stream */
    decompressor->format_name = "compressed";
    return decompressor;
}

struct decompressor *decompressor_new_zlib(void)
{
    struct decompressor *decompressor = decompressor_new();

    decompressor->zlib_only = true;
    return decompressor;
}

struct decompressor *decompressor_free(struct decompressor *decompressor)
{
    if (!decompressor)
        return NULL;
#ifdef DAVIT_HAVE_ISAL
    free(decompressor->isal);
#endif
    if (decompressor->zlib)
        inflateEnd(decompressor->zlib);
    free(decompressor->zlib);
    ZSTD_freeDCtx(decompressor->zstd);
    free(decompressor);
    return NULL;
}

uint64_t decompressor_output_bytes(const struct decompressor *decompressor)
{
    return decompressor->output_bytes;
}

/* Decides as soon as the bytes so far leave one format. */
static void recognise(struct decompressor *decompressor)
{
    bool undecided = false;

    for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
        const struct magic *magic = &magics[i];
        size_t size = MIN(decompressor->head_size, magic->size);
        if (memcmp(decompressor->head, magic->bytes, size) != 0)
            continue;
        if (size == magic->size) {
            decompressor->format = magic->format;
            decompressor->format_name = magic->name;
            return;
        }
        undecided = true;
    }
    if (!undecided)
        decompressor->format = FORMAT_PLAIN;
}

static bool damaged(struct decompressor *decompressor, const char *why, struct error *err)
{
    decompressor->failed = true;
    return error_set(err, ERROR_DATA_LOSS, "INVALID_COMPRESSION", "damaged %s data: %s",
                     decompressor->format_name, why);
}

/* --- Engines: each takes from and adds to a step until input or room has run out ---------------
 */

static bool step_plain(struct decompressor *decompressor, struct step *step)
{
    size_t size = MIN(step->in_size, step->out_size);

    if (size) {
        memcpy(step->out, step->in, size);
        decompressor->between = true;
    }
    *step = (struct step){step->in + size, step->in_size - size, step->out + size,
                          step->out_size - size};
    return true;
}

#ifdef DAVIT_HAVE_ISAL
static const char *isal_error_text(int code)
{
    switch (code) {
    case ISAL_INVALID_BLOCK:
        return "invalid deflate block";
    case ISAL_INVALID_SYMBOL:
        return "invalid deflate symbol";
    case ISAL_INVALID_LOOKBACK:
        return "invalid distance";
    case ISAL_INVALID_WRAPPER:
        return "invalid gzip header";
    case ISAL_UNSUPPORTED_METHOD:
        return "unsupported compression method";
    case ISAL_INCORRECT_CHECKSUM:
        return "checksum mismatch";
    default:
        return "inflate failed";
    }
}

/* ISA-L would read a member's header itself, but only all of it at once with its checksum. */
static int isal_step(struct decompressor *decompressor)
{
    struct inflate_state *state = decompressor->isal;
    int r = ISAL_DECOMP_OK;

    if (!decompressor->isal_header_read) {
        r = isal_read_gzip_header(state, &decompressor->isal_header);
        if (r == ISAL_END_INPUT)
            return ISAL_DECOMP_OK;
        decompressor->isal_header_read = r == ISAL_DECOMP_OK;
    }
    return r == ISAL_DECOMP_OK ? isal_inflate(state) : r > 0 ? ISAL_INVALID_WRAPPER : r;
}

static bool step_isal(struct decompressor *decompressor, struct step *step, struct error *err)
{
    struct inflate_state *state = decompressor->isal;
    struct step before;

    if (!state) {
        state = decompressor->isal = xmalloc(sizeof(*state));
        isal_inflate_init(state);
        state->crc_flag = ISAL_GZIP_NO_HDR_VER;
    }
    do {
        int r;
        if (decompressor->between) {
            if (step->in_size == 0)
                return true;
            isal_inflate_reset(state);
            isal_gzip_header_init(&decompressor->isal_header);
            decompressor->isal_header_read = false;
            decompressor->between = false;
        }
        before = *step;
        state->next_in = (uint8_t *)step->in;
        state->avail_in = (uint32_t)MIN(step->in_size, UINT32_MAX);
        state->next_out = step->out;
        state->avail_out = (uint32_t)MIN(step->out_size, UINT32_MAX);
        r = isal_step(decompressor);
        step->in_size -= (size_t)(state->next_in - step->in);
        step->in = state->next_in;
        step->out_size -= (size_t)(state->next_out - step->out);
        step->out = state->next_out;
        if (r < 0)
            return damaged(decompressor, isal_error_text(r), err);
        decompressor->between = state->block_state == ISAL_BLOCK_FINISH;
    } while (decompressor->between || step->in != before.in || step->out != before.out);
    return true;
}
#endif

static bool step_zlib(struct decompressor *decompressor, struct step *step, struct error *err)
{
    z_stream *state = decompressor->zlib;
    struct step before;

    if (!state) {
        state = decompressor->zlib = xcalloc(1, sizeof(*state));
        if (inflateInit2(state, 16 + MAX_WBITS) != Z_OK) /* 16: gzip header and trailer */
            die("zlib does not start");
    }
    do {
        int r;
        if (decompressor->between) {
            if (step->in_size == 0)
                return true;
            inflateReset(state);
            decompressor->between = false;
        }
        before = *step;
        state->next_in = (uint8_t *)step->in;
        state->avail_in = (uInt)MIN(step->in_size, UINT32_MAX);
        state->next_out = step->out;
        state->avail_out = (uInt)MIN(step->out_size, UINT32_MAX);
        r = inflate(state, Z_NO_FLUSH);
        step->in_size -= (size_t)(state->next_in - step->in);
        step->in = state->next_in;
        step->out_size -= (size_t)(state->next_out - step->out);
        step->out = state->next_out;
        if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
            return damaged(decompressor, state->msg ? state->msg : "inflate failed", err);
        decompressor->between = r == Z_STREAM_END;
    } while (decompressor->between || step->in != before.in || step->out != before.out);
    return true;
}

static bool step_zstd(struct decompressor *decompressor, struct step *step, struct error *err)
{
    ZSTD_inBuffer in = {.src = step->in, .size = step->in_size};
    ZSTD_outBuffer out = {.dst = step->out, .size = step->out_size};

    if (!decompressor->zstd) {
        decompressor->zstd = ZSTD_createDCtx();
        CHECK(decompressor->zstd);
        ZSTD_DCtx_setParameter(decompressor->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX);
    }
    /* Without input it only gives what it holds back from an unfinished frame. */
    while (out.pos < out.size && !(decompressor->between && in.pos == in.size)) {
        size_t in_before = in.pos, out_before = out.pos;
        size_t r = ZSTD_decompressStream(decompressor->zstd, &out, &in);
        if (ZSTD_isError(r))
            return damaged(decompressor, ZSTD_getErrorName(r), err);
        decompressor->between = r == 0;
        if (in.pos == in_before && out.pos == out_before)
            break;
    }
    *step = (struct step){step->in + in.pos, step->in_size - in.pos, step->out + out.pos,
                          step->out_size - out.pos};
    return true;
}

static bool step_any(struct decompressor *decompressor, struct step *step, struct error *err)
{
    switch (decompressor->format) {
    case FORMAT_PLAIN:
        return step_plain(decompressor, step);
    case FORMAT_GZIP:
#ifdef DAVIT_HAVE_ISAL
        if (!decompressor->zlib_only)
            return step_isal(decompressor, step, err);
#endif
        return step_zlib(decompressor, step, err);
    case FORMAT_ZSTD:
        return step_zstd(decompressor, step, err);
    case FORMAT_FOREIGN:
        decompressor->failed = true;
        return error_set(err, ERROR_DATA_LOSS, "INVALID_COMPRESSION",
                         "%s compression is not supported in layers, only gzip and zstd",
                         decompressor->format_name);
    default:
        return true;
    }
}

/* --- The stream --------------------------------------------------------------------------------
 */

ssize_t decompress(struct decompressor *decompressor, const uint8_t **data, size_t *size, void *out,
                   size_t out_size, struct error *err)
{
    struct step step = {.out = out, .out_size = out_size};

    if (decompressor->failed) {
        error_set(err, ERROR_DATA_LOSS, "INVALID_COMPRESSION", "damaged %s data",
                  decompressor->format_name);
        return -1;
    }
    while (decompressor->format == FORMAT_UNKNOWN && *size > 0) {
        decompressor->head[decompressor->head_size++] = *(*data)++;
        (*size)--;
        decompressor->between = false;
        recognise(decompressor);
        if (decompressor->format == FORMAT_GZIP || decompressor->format == FORMAT_ZSTD)
            decompressor->between = true; /* before the first member */
    }
    if (decompressor->head_used < decompressor->head_size) {
        step.in = decompressor->head + decompressor->head_used;
        step.in_size = decompressor->head_size - decompressor->head_used;
        if (!step_any(decompressor, &step, err))
            return -1;
        decompressor->head_used =
            decompressor->format == FORMAT_UNKNOWN ? 0 : decompressor->head_size - step.in_size;
    }
    if (decompressor->format != FORMAT_UNKNOWN &&
        decompressor->head_used == decompressor->head_size) {
        step.in = *data;
        step.in_size = *size;
        if (!step_any(decompressor, &step, err))
            return -1;
        *data = step.in;
        *size = step.in_size;
    }
    decompressor->output_bytes += out_size - step.out_size;
    return (ssize_t)(out_size - step.out_size);
}

bool decompressor_finished(const struct decompressor *decompressor, struct error *err)
{
    if (decompressor->between && !decompressor->failed)
        return true;
    return error_set(err, ERROR_DATA_LOSS, "INVALID_COMPRESSION", "the %s data ends early",
                     decompressor->format_name);
}
