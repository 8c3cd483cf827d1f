#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/grpc/codec.h"
#include "proto/grpc/status.h"

#define LIMIT (4 * MIB)

static void test_prefix(void **state)
{
    static const size_t sizes[] = {0, 1, 255, 256, 65536, LIMIT};
    uint8_t prefix[GRPC_PREFIX_BYTES];
    struct error err = {0};
    size_t size;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        grpc_prefix_write(prefix, (uint32_t)sizes[i]);
        size = 12345;
        assert_int_equal(grpc_prefix_read(prefix, 5, LIMIT, &size, &err), 1);
        assert_int_equal(size, sizes[i]);
        for (size_t have = 0; have < 5; have++)
            assert_int_equal(grpc_prefix_read(prefix, have, LIMIT, &size, &err), 0);
    }
    assert_false(error_is_set(&err));
}

static void test_prefix_refused(void **state)
{
    static const uint8_t too_large[] = {0, 0, 0x40, 0, 1}, huge[] = {0, 0xff, 0xff, 0xff, 0xff};
    static const uint8_t compressed[] = {1, 0, 0, 0, 1}, odd[] = {2, 0, 0, 0, 1};
    CLEANUP_ERROR struct error err = {0};
    size_t size;

    (void)state;
    assert_int_equal(grpc_prefix_read(too_large, 5, LIMIT, &size, &err), -1);
    assert_int_equal(err.code, ERROR_RESOURCE_EXHAUSTED);
    assert_string_equal(err.message, "a message of 4194305 bytes came, the limit is 4194304");
    assert_int_equal(grpc_prefix_read(huge, 5, LIMIT, &size, &err), -1);
    assert_int_equal(err.code, ERROR_RESOURCE_EXHAUSTED);
    assert_int_equal(grpc_prefix_read(compressed, 5, LIMIT, &size, &err), -1);
    assert_int_equal(err.code, ERROR_UNIMPLEMENTED);
    assert_int_equal(grpc_prefix_read(odd, 5, LIMIT, &size, &err), -1);
    assert_int_equal(err.code, ERROR_INTERNAL);
}

static void check_percent(const char *text, const char *encoded)
{
    CLEANUP_STRBUF struct strbuf out = {0}, back = {0};

    grpc_percent_encode(&out, text);
    assert_string_equal(strbuf_text(&out), encoded);
    grpc_percent_decode(&back, strbuf_text(&out));
    assert_string_equal(strbuf_text(&back), text);
}

static void check_percent_decoded(const char *encoded, const char *text)
{
    CLEANUP_STRBUF struct strbuf out = {0};

    grpc_percent_decode(&out, encoded);
    assert_string_equal(strbuf_text(&out), text);
}

static void test_percent(void **state)
{
    (void)state;
    check_percent("", "");
    check_percent("no such image: a/b:c~", "no such image: a/b:c~");
    check_percent("100% \n\t\x7f", "100%25 %0A%09%7F");
    check_percent("gr\xc3\xb6\xc3\x9f", "gr%C3%B6%C3%9F");
    check_percent_decoded("%c3%b6", "\xc3\xb6");
    check_percent_decoded("%", "%");
    check_percent_decoded("%4", "%4");
    check_percent_decoded("%4g%zz%25", "%4g%zz%");
    check_percent_decoded("a%00b", "a%00b"); /* no NUL may come out */
}

static void check_timeout(uint64_t ms, const char *text)
{
    char out[GRPC_TIMEOUT_TEXT];

    grpc_timeout_format(ms, out);
    assert_string_equal(out, text);
}

static void check_timeout_parsed(const char *text, uint64_t ms)
{
    uint64_t out = 1;

    assert_true(grpc_timeout_parse(text, &out));
    assert_int_equal(out, ms);
}

static void test_timeout(void **state)
{
    static const char *const bad[] = {"",           "1",  "S",   "-1S", "+1S", "1.5S",
                                      "123456789S", "1h", "1Sm", " 1S", "1 S", "0x1S"};
    uint64_t ms;

    (void)state;
    check_timeout(0, "0m");
    check_timeout(99999999, "99999999m");
    check_timeout(100000000, "100000S");
    check_timeout(100000001, "100001S"); /* never earlier than asked */
    check_timeout(100000000000, "1666667M");
    check_timeout(UINT64_MAX, "99999999H");
    check_timeout_parsed("0m", 0);
    check_timeout_parsed("1H", 3600000);
    check_timeout_parsed("99999999H", 99999999ULL * 3600000);
    check_timeout_parsed("2M", 120000);
    check_timeout_parsed("3S", 3000);
    check_timeout_parsed("4m", 4);
    check_timeout_parsed("1u", 1);
    check_timeout_parsed("1001u", 2);
    check_timeout_parsed("1n", 1);
    check_timeout_parsed("00000000n", 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(grpc_timeout_parse(bad[i], &ms));
}

static void check_base64(const char *data, size_t size, const char *text)
{
    CLEANUP_STRBUF struct strbuf out = {0}, back = {0};

    strbuf_add_str(&out, ">");
    grpc_base64_encode(&out, data, size);
    assert_string_equal(out.data + 1, text);
    strbuf_add_str(&back, ">");
    assert_true(grpc_base64_decode(&back, out.data + 1));
    assert_int_equal(back.length, size + 1);
    assert_memory_equal(back.data + 1, data, size);
}

static void test_base64(void **state)
{
    static const char *const bad[] = {"A",     "AAAAA", "====",  "AA=",  "AAA==",  "A===",
                                      "AA AA", "AA-_",  "AAAA=", "=AAA", "AA==AA", "\n"};
    CLEANUP_STRBUF struct strbuf out = {0};

    (void)state;
    check_base64("", 0, "");
    check_base64("\0", 1, "AA");
    check_base64("\0\xff", 2, "AP8");
    check_base64("\0\xff\x10", 3, "AP8Q");
    check_base64("any carnal pleas", 16, "YW55IGNhcm5hbCBwbGVhcw");
    assert_true(grpc_base64_decode(&out, "AP8="));
    assert_int_equal(out.length, 2);
    assert_true(grpc_base64_decode(&out, "AA=="));
    assert_int_equal(out.length, 3);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(grpc_base64_decode(&out, bad[i]));
    assert_int_equal(out.length, 3);
}

/* An error there and back. */
static void send_error(const struct error *in, struct error *out)
{
    struct status_headers headers;
    CLEANUP_STRBUF struct strbuf details = {0};

    status_headers_make(&headers, in);
    if (headers.details)
        assert_true(grpc_base64_decode(&details, headers.details));
    status_parse(headers.code, headers.message, details.data, details.length, out);
    status_headers_done(&headers);
}

static void test_status(void **state)
{
    CLEANUP_ERROR struct error in = {0}, out = {0};

    (void)state;
    send_error(&in, &out);
    assert_false(error_is_set(&out));

    error_set(&in, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "no such image: \"gr\xc3\xbcn\" %%");
    error_hint(&in, "pull it first");
    in.retry_after_ms = 5000;
    send_error(&in, &out);
    assert_true(out.retry_after_ms == 5000);
    assert_int_equal(out.code, ERROR_NOT_FOUND);
    assert_string_equal(out.reason, "IMAGE_NOT_FOUND");
    assert_string_equal(out.message, in.message);
    assert_string_equal(out.hint, "pull it first");

    error_set(&in, ERROR_INTERNAL, NULL, "bad \xff name");
    send_error(&in, &out);
    assert_string_equal(out.message, in.message);
    assert_null(out.reason);
    assert_null(out.hint);
    assert_true(out.retry_after_ms == 0);
}

static void test_status_fits(void **state)
{
    CLEANUP_ERROR struct error in = {0}, out = {0};
    struct status_headers headers;
    char text[10000];

    (void)state;
    for (size_t i = 0; i + 2 < sizeof(text); i += 2)
        memcpy(text + i, "\xc3\xb6", 3);
    error_set(&in, ERROR_INTERNAL, "REASON", "x%s", text);
    error_hint(&in, "%s", text);
    status_headers_make(&headers, &in);
    /* Common clients refuse more than 8 KiB. */
    assert_true(strlen(headers.message) + strlen(headers.details) < 8000);
    status_headers_done(&headers);
    send_error(&in, &out);
    assert_int_equal(strlen(out.message), 1 + 2 * 749 + 3); /* cut between two characters */
    assert_string_equal(out.reason, "REASON");
}

static void test_status_parse(void **state)
{
    CLEANUP_ERROR struct error out = {0};

    (void)state;
    status_parse("5", NULL, "\xff\xff garbage", 10, &out);
    assert_int_equal(out.code, ERROR_NOT_FOUND);
    assert_string_equal(out.message, "NOT_FOUND");
    status_parse("17", "x", NULL, 0, &out);
    assert_int_equal(out.code, ERROR_UNKNOWN);
    status_parse("99999999999", "x", NULL, 0, &out);
    assert_int_equal(out.code, ERROR_UNKNOWN);
    status_parse("", "x", NULL, 0, &out);
    assert_int_equal(out.code, ERROR_UNKNOWN);
    status_parse("0", "fine", NULL, 0, &out);
    assert_false(error_is_set(&out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prefix),      cmocka_unit_test(test_prefix_refused),
        cmocka_unit_test(test_percent),     cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_base64),      cmocka_unit_test(test_status),
        cmocka_unit_test(test_status_fits), cmocka_unit_test(test_status_parse),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
