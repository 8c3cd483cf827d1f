#include "tests/unit/test.h"

#include "daemon/registry/hosts.h"
#include "daemon/registry/registry.h"

static void test_trust(void **state)
{
    char *insecure[] = {"plain.example.com", "port.example.com:5000", "10.1.0.0/20",
                        "fd00::/8",          "not/a/network",         NULL};
    static const struct {
        const char *name;
        enum host_trust trust;
    } cases[] = {
        {"localhost", HOST_LOOPBACK},
        {"LocalHost:5000", HOST_LOOPBACK},
        {"127.0.0.1:5000", HOST_LOOPBACK},
        {"127.9.8.7", HOST_LOOPBACK},
        {"[::1]:5000", HOST_LOOPBACK},
        {"[::1]", HOST_LOOPBACK},
        {"[0:0:0:0:0:0:0:1]", HOST_LOOPBACK},
        {"localhost.example.com", HOST_SECURE},
        {"127.example.com", HOST_SECURE},
        {"127.0.0.1.example.com", HOST_SECURE},
        {"docker.io", HOST_SECURE},
        {"plain.example.com", HOST_INSECURE},
        {"PLAIN.example.com", HOST_INSECURE},
        {"plain.example.com:5000", HOST_SECURE},
        {"x.plain.example.com", HOST_SECURE},
        {"port.example.com:5000", HOST_INSECURE},
        {"port.example.com", HOST_SECURE},
        {"port.example.com:5001", HOST_SECURE},
        {"10.1.15.255:5000", HOST_INSECURE},
        {"10.1.16.0:5000", HOST_SECURE},
        {"10.1.0.1.example.com", HOST_SECURE},
        {"[fd12::1]:443", HOST_INSECURE},
        {"[fe80::1]", HOST_SECURE},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (host_trust(insecure, cases[i].name) != cases[i].trust)
            fail_msg("%s: %d", cases[i].name, host_trust(insecure, cases[i].name));
    }
    assert_int_equal(host_trust(NULL, "docker.io"), HOST_SECURE);
}

static void test_origin(void **state)
{
    static const struct {
        const char *url, *scheme, *host, *name; /* scheme NULL: refused */
        unsigned int port;
    } cases[] = {
        {"https://r.io/v2/", "https", "r.io", "r.io", 443},
        {"HTTPS://R.io:443/", "https", "r.io", "r.io:443", 443},
        {"http://127.0.0.1:5000", "http", "127.0.0.1", "127.0.0.1:5000", 5000},
        {"http://[::1]:5000/x", "http", "[::1]", "[::1]:5000", 5000},
        {"https://user:secret@r.io/", NULL, NULL, NULL, 0},
        {"https://user@r.io/", NULL, NULL, NULL, 0},
        {"file:///etc/passwd", NULL, NULL, NULL, 0},
        {"ftp://r.io/", NULL, NULL, NULL, 0},
        {"https:///", NULL, NULL, NULL, 0},
        {"/relative", NULL, NULL, NULL, 0},
        {"https://r.io:99999/", NULL, NULL, NULL, 0},
        {"https://r.io\r\nHost: x/", NULL, NULL, NULL, 0},
        {"", NULL, NULL, NULL, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ORIGIN struct origin origin = {0};
        CLEANUP_ERROR struct error err = {0};
        bool ok = origin_parse(cases[i].url, &origin, &err);
        if (!cases[i].scheme) {
            assert_false(ok);
            assert_null(strstr(err.message, "secret"));
            assert_true(error_is(&err, "INVALID_URL"));
            continue;
        }
        assert_ok(ok, &err);
        assert_string_equal(origin.scheme, cases[i].scheme);
        assert_string_equal(origin.host, cases[i].host);
        assert_string_equal(origin.name, cases[i].name);
        assert_int_equal(origin.port, cases[i].port);
    }
}

static void test_origin_equality(void **state)
{
    static const struct {
        const char *a, *b;
        bool equal;
    } cases[] = {
        {"https://r.io/a", "https://R.IO:443/b?c", true},
        {"https://r.io/", "http://r.io/", false},
        {"https://r.io/", "https://r.io:444/", false},
        {"https://r.io/", "https://r.io.evil.com/", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ORIGIN struct origin a = {0}, b = {0};
        assert_true(origin_parse(cases[i].a, &a, NULL) && origin_parse(cases[i].b, &b, NULL));
        assert_int_equal(origin_eq(&a, &b), cases[i].equal);
    }
}

static void test_resolve(void **state)
{
    static const struct {
        const char *base, *location, *result;
    } cases[] = {
        {"https://r.io/v2/a", "/x?y=z", "https://r.io/x?y=z"},
        {"https://r.io/v2/a", "b", "https://r.io/v2/b"},
        {"https://r.io/v2/a", "https://cdn.io/b?sig=%2F", "https://cdn.io/b?sig=%2F"},
        {"https://r.io/v2/a", "//cdn.io/b", "https://cdn.io/b"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_FREE char *result = url_resolve(cases[i].base, cases[i].location, NULL);
        assert_non_null(result);
        assert_string_equal(result, cases[i].result);
    }
}

static void test_options(void **state)
{
    static const struct {
        char *mirror, *insecure;
        const char *message; /* NULL: taken */
    } cases[] = {
        {"https://mirror.example.com", "r.io", NULL},
        {"http://mirror.example.com:5000/", "r.io:5000", NULL},
        {"https://[::1]:5000", "10.0.0.0/8", NULL},
        {NULL, "fd00::/8", NULL},
        {NULL, "[::1]:5000", NULL},
        {"mirror.example.com", NULL, "registry mirror \"mirror.example.com\" is not valid"},
        {"ftp://mirror.example.com", NULL, "neither http nor https"},
        {"https://mirror.example.com/path", NULL, "a scheme and a host only"},
        {"https://mirror.example.com?x", NULL, "a scheme and a host only"},
        {"https://u:p@mirror.example.com", NULL, "user or password"},
        {NULL, "http://r.io", "insecure registry \"http://r.io\" is not valid"},
        {NULL, "10.0.0.0/33", "is not valid"},
        {NULL, "10.0.0.0/8x", "is not valid"},
        {NULL, "r.io/path", "is not valid"},
        {NULL, "", "is not valid"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char *mirrors[] = {cases[i].mirror, NULL}, *insecure[] = {cases[i].insecure, NULL};
        const struct registry_options options = {.mirrors = mirrors,
                                                 .insecure_registries = insecure};
        CLEANUP_ERROR struct error err = {0};
        bool ok = registry_options_check(&options, &err);
        if (!cases[i].message) {
            assert_ok(ok, &err);
            continue;
        }
        if (ok)
            fail_msg("%s %s was taken", cases[i].mirror, cases[i].insecure);
        assert_true(error_is(&err, "INVALID_CONFIG"));
        assert_error(&err, ERROR_INVALID_ARGUMENT, cases[i].message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trust),           cmocka_unit_test(test_origin),
        cmocka_unit_test(test_origin_equality), cmocka_unit_test(test_resolve),
        cmocka_unit_test(test_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
