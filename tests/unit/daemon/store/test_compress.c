#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/store/compress.h"
#include "daemon/store/decompress.h"
#include "proto/base/digest.h"
#include "proto/base/strbuf.h"

enum { PLAIN_BYTES = 5 * COMPRESS_PIECE_BYTES + 12345 };

static uint8_t *plain;

/* Half of it compresses, half does not; the same in each run. */
static int make_plain(void **state)
{
    uint32_t random = 1;

    (void)state;
    plain = xmalloc(PLAIN_BYTES);
    for (size_t i = 0; i < PLAIN_BYTES; i++) {
        random = random * 1664525 + 1013904223;
        plain[i] = i / 100000 % 2 ? (uint8_t)(random >> 24) : (uint8_t)('a' + i / 3 % 7);
    }
    return 0;
}

static int free_plain(void **state)
{
    (void)state;
    free(plain);
    return 0;
}

static void compress_all(struct compressor *compressor, size_t size, struct strbuf *ret)
{
    size_t done = 0;
    bool last;

    do {
        size_t piece = MIN(size - done, COMPRESS_PIECE_BYTES);
        const uint8_t *out;
        last = done + piece == size;
        size_t n = compress_piece(compressor, plain + done, piece, last, &out);
        assert_true(n < 2 * COMPRESS_PIECE_BYTES);
        strbuf_add(ret, out, n);
        done += piece;
    } while (!last);
    compressor_free(compressor);
}

static void check_plain(const struct strbuf *compressed, size_t size)
{
    CLEANUP(decompressor_cleanup) struct decompressor *decompressor = decompressor_new();
    CLEANUP_FREE uint8_t *out = xmalloc(size + 1);
    const uint8_t *data = (const uint8_t *)compressed->data;
    size_t left = compressed->length, filled = 0;
    ssize_t n;

    do {
        n = decompress(decompressor, &data, &left, out + filled, size + 1 - filled, NULL);
        assert_true(n >= 0);
        filled += (size_t)n;
    } while (n > 0);
    assert_int_equal(left, 0);
    assert_true(decompressor_finished(decompressor, NULL));
    assert_int_equal(filled, size);
    assert_memory_equal(out, plain, size);
}

static struct compressor *make(size_t kind, size_t size)
{
    switch (kind) {
    case 2:
        return compressor_new_zlib();
    case 3:
        return compressor_new_fast();
    default:
        return compressor_new((enum compression)kind, size);
    }
}

static void test_what_goes_in_comes_out_again(void **state)
{
    static const size_t sizes[] = {0, 1, COMPRESS_PIECE_BYTES - 1, COMPRESS_PIECE_BYTES,
                                   PLAIN_BYTES};

    (void)state;
    for (size_t kind = 0; kind < 4; kind++) {
        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
            CLEANUP_STRBUF struct strbuf compressed = {0};
            compress_all(make(kind, sizes[i]), sizes[i], &compressed);
            check_plain(&compressed, sizes[i]);
            assert_true(sizes[i] < PLAIN_BYTES || compressed.length < PLAIN_BYTES * 2 / 3);
        }
    }
}

static void test_the_same_goes_in_the_same_comes_out(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < 4; kind++) {
        struct digest digests[2];
        for (size_t i = 0; i < 2; i++) {
            CLEANUP_STRBUF struct strbuf compressed = {0};
            /* What lies in the memory that it gets is not what it begins with. */
            CLEANUP_FREE void *dirt = memset(xmalloc(MIB), (int)i * 0x55 + 1, MIB);
            free(TAKE(dirt));
            compress_all(make(kind, PLAIN_BYTES), PLAIN_BYTES, &compressed);
            digests[i] = digest_of(compressed.data, compressed.length);
        }
        assert_string_equal(digests[0].text, digests[1].text);
    }
}

/* RFC 1952, 2.3.1: bytes 4 to 7 are the time, bit 3 of byte 3 tells of a name. */
static void test_gzip_tells_neither_time_nor_name(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < 3; kind += 2) {
        CLEANUP_STRBUF struct strbuf compressed = {0};
        compress_all(make(kind, 100), 100, &compressed);
        assert_memory_equal(compressed.data, "\x1f\x8b\x08\0\0\0\0\0", 8);
    }
}

static void test_names_of_compressions(void **state)
{
    CLEANUP_ERROR struct error err = {0};
    enum compression compression;

    (void)state;
    assert_true(compression_parse("zstd", &compression, NULL));
    assert_int_equal(compression, COMPRESSION_ZSTD);
    assert_true(compression_parse("", &compression, NULL));
    assert_int_equal(compression, COMPRESSION_GZIP);
    assert_false(compression_parse("xz", &compression, &err));
    assert_string_equal(err.reason, "UNKNOWN_COMPRESSION");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_goes_in_comes_out_again),
        cmocka_unit_test(test_the_same_goes_in_the_same_comes_out),
        cmocka_unit_test(test_gzip_tells_neither_time_nor_name),
        cmocka_unit_test(test_names_of_compressions),
    };

    return cmocka_run_group_tests(tests, make_plain, free_plain);
}
