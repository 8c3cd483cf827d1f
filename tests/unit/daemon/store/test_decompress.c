#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>

#include "daemon/store/decompress.h"
#include "proto/base/strbuf.h"

enum { PLAIN_BYTES = 300000 };

static char plain[PLAIN_BYTES];

/* Half of it compresses, half does not; the same in each run. */
static void fill_plain(void)
{
    uint32_t random = 1;

    for (size_t i = 0; i < PLAIN_BYTES; i++) {
        random = random * 1664525 + 1013904223;
        plain[i] = i / 4096 % 2 ? (char)(random >> 24) : (char)('a' + i % 7);
    }
}

static void add_gzip_with(struct strbuf *out, gz_header *header, const void *data, size_t size)
{
    z_stream stream = {0};

    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, 0), Z_OK);
    assert_true(!header || deflateSetHeader(&stream, header) == Z_OK);
    strbuf_reserve(out, deflateBound(&stream, size) + 64);
    stream.next_in = (Bytef *)data;
    stream.avail_in = (uInt)size;
    stream.next_out = (Bytef *)out->data + out->length;
    stream.avail_out = (uInt)(out->capacity - out->length - 1);
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    out->length += stream.total_out;
    deflateEnd(&stream);
}

static void add_gzip(struct strbuf *out, const void *data, size_t size)
{
    add_gzip_with(out, NULL, data, size);
}

static void add_zstd(struct strbuf *out, const void *data, size_t size)
{
    size_t n;

    strbuf_reserve(out, ZSTD_compressBound(size) + 64);
    n = ZSTD_compress(out->data + out->length, ZSTD_compressBound(size), data, size, 3);
    assert_false(ZSTD_isError(n));
    out->length += n;
}

/* Runs it with input in pieces of in_step bytes and output in pieces of out_step. */
static bool inflate_all(bool zlib_only, const struct strbuf *in, size_t in_step, size_t out_step,
                        struct strbuf *out, struct error *err)
{
    CLEANUP(decompressor_cleanup)
    struct decompressor *decompressor = zlib_only ? decompressor_new_zlib() : decompressor_new();
    CLEANUP_FREE char *buffer = xmalloc(out_step);

    strbuf_clear(out);
    for (size_t done = 0; done < in->length;) {
        const uint8_t *data = (const uint8_t *)in->data + done;
        size_t size = MIN(in_step, in->length - done);
        ssize_t n;
        done += size;
        do {
            n = decompress(decompressor, &data, &size, buffer, out_step, err);
            if (n < 0)
                return false;
            strbuf_add(out, buffer, (size_t)n);
        } while (size > 0 || (size_t)n == out_step);
    }
    assert_int_equal(decompressor_output_bytes(decompressor), out->length);
    return decompressor_finished(decompressor, err);
}

static const size_t steps[][2] = {{1, 1},      {1, 70000},        {7, 3}, {4096, 1}, {4096, 4096},
                                  {70000, 13}, {1 << 20, 1 << 20}};

static void assert_inflates(const struct strbuf *in, const void *data, size_t size)
{
    CLEANUP_STRBUF struct strbuf out = {0};

    for (int zlib_only = 0; zlib_only < 2; zlib_only++) {
        for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
            CLEANUP_ERROR struct error err = {0};
            if (!inflate_all(zlib_only, in, steps[i][0], steps[i][1], &out, &err))
                fail_msg("zlib %d, steps %zu: %s", zlib_only, i, err.message);
            assert_int_equal(out.length, size);
            assert_true(size == 0 || memcmp(out.data, data, size) == 0);
        }
    }
}

static void assert_refused(const struct strbuf *in, const char *message_part)
{
    CLEANUP_STRBUF struct strbuf out = {0};

    for (int zlib_only = 0; zlib_only < 2; zlib_only++) {
        for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
            CLEANUP_ERROR struct error err = {0};
            assert_false(inflate_all(zlib_only, in, steps[i][0], steps[i][1], &out, &err));
            assert_int_equal(err.code, ERROR_DATA_LOSS);
            assert_string_equal(err.reason, "INVALID_COMPRESSION");
            if (!strstr(err.message, message_part))
                fail_msg("\"%s\" does not say \"%s\"", err.message, message_part);
        }
    }
}

static void test_formats(void **state)
{
    CLEANUP_STRBUF struct strbuf gzip = {0};
    CLEANUP_STRBUF struct strbuf zstd = {0};
    CLEANUP_STRBUF struct strbuf none = {0};
    CLEANUP_STRBUF struct strbuf empty = {0};

    (void)state;
    add_gzip(&gzip, plain, PLAIN_BYTES);
    assert_inflates(&gzip, plain, PLAIN_BYTES);
    add_zstd(&zstd, plain, PLAIN_BYTES);
    assert_inflates(&zstd, plain, PLAIN_BYTES);
    strbuf_add(&none, plain, PLAIN_BYTES);
    assert_inflates(&none, plain, PLAIN_BYTES);
    assert_inflates(&empty, "", 0);
    /* Begins like a compressed stream, but is none. */
    strbuf_clear(&none);
    strbuf_add_str(&none, "\x28\xb5plain");
    assert_inflates(&none, "\x28\xb5plain", 7);
}

static void test_members_in_a_row(void **state)
{
    CLEANUP_STRBUF struct strbuf gzip = {0};
    CLEANUP_STRBUF struct strbuf zstd = {0};
    static const char skippable[] = "\x50\x2a\x4d\x18\x03\0\0\0abc";

    (void)state;
    add_gzip(&gzip, "", 0);
    add_gzip(&gzip, plain, 1000);
    add_gzip(&gzip, plain + 1000, PLAIN_BYTES - 1000);
    add_gzip(&gzip, "", 0);
    assert_inflates(&gzip, plain, PLAIN_BYTES);
    add_zstd(&zstd, "", 0);
    add_zstd(&zstd, plain, 1000);
    strbuf_add(&zstd, skippable, sizeof(skippable) - 1);
    add_zstd(&zstd, plain + 1000, PLAIN_BYTES - 1000);
    add_zstd(&zstd, "", 0);
    assert_inflates(&zstd, plain, PLAIN_BYTES);
}

/* Fields that hardly anybody writes: extra bytes, name, comment and a checksum of them. */
static void test_gzip_headers(void **state)
{
    static char extra[] = "extra", name[] = "../name", comment[] = "comment";
    gz_header header = {.text = 1,
                        .time = 5,
                        .extra = (Bytef *)extra,
                        .extra_len = 5,
                        .name = (Bytef *)name,
                        .comment = (Bytef *)comment,
                        .hcrc = 1};
    CLEANUP_STRBUF struct strbuf gzip = {0};

    (void)state;
    add_gzip_with(&gzip, &header, plain, 1000);
    add_gzip(&gzip, plain + 1000, 1000);
    add_gzip_with(&gzip, &header, plain + 2000, PLAIN_BYTES - 2000);
    assert_inflates(&gzip, plain, PLAIN_BYTES);
    gzip.data[13] ^= 1;
    assert_refused(&gzip, "");
}

static void test_truncated(void **state)
{
    CLEANUP_STRBUF struct strbuf gzip = {0};
    CLEANUP_STRBUF struct strbuf zstd = {0};
    static const size_t cuts[] = {1, 3, 5, 11, 1000};

    (void)state;
    add_gzip(&gzip, plain, 50000);
    add_zstd(&zstd, plain, 50000);
    for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
        struct strbuf cut = gzip;
        cut.length = cuts[i];
        assert_refused(&cut, "ends early");
        cut.length = gzip.length - cuts[i];
        assert_refused(&cut, "ends early");
        cut = zstd;
        cut.length = cuts[i];
        assert_refused(&cut, "ends early");
        cut.length = zstd.length - cuts[i];
        assert_refused(&cut, "ends early");
    }
}

static void test_damaged(void **state)
{
    CLEANUP_STRBUF struct strbuf gzip = {0};
    CLEANUP_STRBUF struct strbuf zstd = {0};
    CLEANUP_STRBUF struct strbuf foreign = {0};

    (void)state;
    add_gzip(&gzip, plain, PLAIN_BYTES);
    gzip.data[gzip.length - 8] ^= 1; /* the checksum */
    assert_refused(&gzip, "gzip");
    gzip.data[gzip.length - 8] ^= 1;
    gzip.data[gzip.length - 1] ^= 1; /* the length */
    assert_refused(&gzip, "gzip");
    gzip.data[gzip.length - 1] ^= 1;
    strbuf_add_str(&gzip, "garbage");
    assert_refused(&gzip, "gzip");
    add_zstd(&zstd, plain, PLAIN_BYTES);
    strbuf_add_str(&zstd, "garbage");
    assert_refused(&zstd, "zstd");
    strbuf_add_str(&foreign, "BZh91AY");
    assert_refused(&foreign, "bzip2 compression is not supported");
    strbuf_clear(&foreign);
    strbuf_add(&foreign,
               "\xfd"
               "7zXZ\0",
               6);
    assert_refused(&foreign, "xz compression is not supported");
}

/* A frame that wants 512 MiB of memory. */
static void test_window_limit(void **state)
{
    CLEANUP_STRBUF struct strbuf frame = {0};

    (void)state;
    strbuf_add(&frame, "\x28\xb5\x2f\xfd\x00\x98\x01\x00\x00", 9);
    assert_refused(&frame, "too much memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),      cmocka_unit_test(test_members_in_a_row),
        cmocka_unit_test(test_truncated),    cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_window_limit), cmocka_unit_test(test_gzip_headers),
    };

    fill_plain();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
