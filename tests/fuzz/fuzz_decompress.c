/* Inflating strangers' bytes. The first byte chooses the piece sizes; whatever both ISA-L and zlib
 * take they must inflate to the same bytes. */
#include "daemon/store/decompress.h"
#include "proto/base/strbuf.h"

#define OUTPUT_MAX (1 * MIB) /* the caller's limit on bombs */

static bool inflate_all(struct decompressor *decompressor, const uint8_t *data, size_t size,
                        size_t in_step, size_t out_step, struct strbuf *out)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *buffer = xmalloc(out_step);

    for (size_t done = 0; done < size;) {
        const uint8_t *piece = data + done;
        size_t piece_size = MIN(in_step, size - done);
        ssize_t n;
        done += piece_size;
        do {
            n = decompress(decompressor, &piece, &piece_size, buffer, out_step, &err);
            if (n < 0) {
                CHECK(error_is(&err, "INVALID_COMPRESSION"));
                return false;
            }
            strbuf_add(out, buffer, (size_t)n);
            if (out->length > OUTPUT_MAX)
                return false;
        } while (piece_size > 0 || (size_t)n == out_step);
    }
    CHECK(decompressor_output_bytes(decompressor) == out->length);
    return decompressor_finished(decompressor, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t steps[] = {1, 7, 512, 65536};
    CLEANUP(decompressor_cleanup) struct decompressor *fast = decompressor_new();
    CLEANUP(decompressor_cleanup) struct decompressor *portable = decompressor_new_zlib();
    CLEANUP_STRBUF struct strbuf a = {0};
    CLEANUP_STRBUF struct strbuf b = {0};

    if (size < 1)
        return 0;
    size_t in_step = steps[data[0] % 4], out_step = steps[data[0] / 4 % 4];
    if (inflate_all(fast, data + 1, size - 1, in_step, out_step, &a) &&
        inflate_all(portable, data + 1, size - 1, out_step, in_step, &b))
        CHECK(a.length == b.length && memcmp(strbuf_text(&a), strbuf_text(&b), a.length) == 0);
    return 0;
}
