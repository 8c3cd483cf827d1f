#include "tests/unit/test.h"

#include "daemon/registry/reference.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "sha256:" HEX64
#define TEN(x) x x x x x x x x x x

static void test_valid(void **state)
{
    static const struct {
        const char *text, *domain, *path, *tag;
        bool digest;
        const char *familiar, *canonical;
    } cases[] = {
        {"ubuntu", "docker.io", "library/ubuntu", "latest", false, "ubuntu:latest",
         "docker.io/library/ubuntu:latest"},
        {"ubuntu:22.04", "docker.io", "library/ubuntu", "22.04", false, "ubuntu:22.04",
         "docker.io/library/ubuntu:22.04"},
        {"library/ubuntu", "docker.io", "library/ubuntu", "latest", false, "ubuntu:latest",
         "docker.io/library/ubuntu:latest"},
        {"docker.io/ubuntu", "docker.io", "library/ubuntu", "latest", false, "ubuntu:latest",
         "docker.io/library/ubuntu:latest"},
        {"index.docker.io/ubuntu", "docker.io", "library/ubuntu", "latest", false, "ubuntu:latest",
         "docker.io/library/ubuntu:latest"},
        {"index.docker.io/a/b", "docker.io", "a/b", "latest", false, "a/b:latest",
         "docker.io/a/b:latest"},
        {"docker.io/library/a/b", "docker.io", "library/a/b", "latest", false, "library/a/b:latest",
         "docker.io/library/a/b:latest"},
        {"user/app", "docker.io", "user/app", "latest", false, "user/app:latest",
         "docker.io/user/app:latest"},
        {"docker.io/a.b/c", "docker.io", "a.b/c", "latest", false, "docker.io/a.b/c:latest",
         "docker.io/a.b/c:latest"},
        {"localhost", "docker.io", "library/localhost", "latest", false, "localhost:latest",
         "docker.io/library/localhost:latest"},
        {"localhost/app", "localhost", "app", "latest", false, "localhost/app:latest",
         "localhost/app:latest"},
        {"localhost:5000/app", "localhost:5000", "app", "latest", false,
         "localhost:5000/app:latest", "localhost:5000/app:latest"},
        {"localhost:5000/app:1", "localhost:5000", "app", "1", false, "localhost:5000/app:1",
         "localhost:5000/app:1"},
        {"app:5000", "docker.io", "library/app", "5000", false, "app:5000",
         "docker.io/library/app:5000"},
        {"[::1]:5000/app", "[::1]:5000", "app", "latest", false, "[::1]:5000/app:latest",
         "[::1]:5000/app:latest"},
        {"[fd00:1:2::3]/app", "[fd00:1:2::3]", "app", "latest", false, "[fd00:1:2::3]/app:latest",
         "[fd00:1:2::3]/app:latest"},
        {"127.0.0.1:5000/a/b/c", "127.0.0.1:5000", "a/b/c", "latest", false,
         "127.0.0.1:5000/a/b/c:latest", "127.0.0.1:5000/a/b/c:latest"},
        {"Registry/app", "Registry", "app", "latest", false, "Registry/app:latest",
         "Registry/app:latest"},
        {"xn--n3h.com/app", "xn--n3h.com", "app", "latest", false, "xn--n3h.com/app:latest",
         "xn--n3h.com/app:latest"},
        {"ubuntu@" DIGEST, "docker.io", "library/ubuntu", NULL, true, "ubuntu@" DIGEST,
         "docker.io/library/ubuntu@" DIGEST},
        {"ubuntu:22.04@" DIGEST, "docker.io", "library/ubuntu", "22.04", true,
         "ubuntu:22.04@" DIGEST, "docker.io/library/ubuntu:22.04@" DIGEST},
        {"r.io:5000/a@" DIGEST, "r.io:5000", "a", NULL, true, "r.io:5000/a@" DIGEST,
         "r.io:5000/a@" DIGEST},
        {"a-b__c.d_e---f", "docker.io", "library/a-b__c.d_e---f", "latest", false,
         "a-b__c.d_e---f:latest", "docker.io/library/a-b__c.d_e---f:latest"},
        {"app:_A.b-C", "docker.io", "library/app", "_A.b-C", false, "app:_A.b-C",
         "docker.io/library/app:_A.b-C"},
        /* 63 or 65 digits are a name. */
        {"a" HEX64, "docker.io", "library/a" HEX64, "latest", false, "a" HEX64 ":latest",
         "docker.io/library/a" HEX64 ":latest"},
        {"x/" HEX64, "docker.io", "x/" HEX64, "latest", false, "x/" HEX64 ":latest",
         "docker.io/x/" HEX64 ":latest"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_REFERENCE struct reference reference = {0};
        CLEANUP_ERROR struct error err = {0};
        if (!reference_parse(cases[i].text, &reference, &err))
            fail_msg("%s: %s", cases[i].text, err.message);
        assert_string_equal(reference.domain, cases[i].domain);
        assert_string_equal(reference.path, cases[i].path);
        assert_true(str_eq(reference.tag, cases[i].tag));
        assert_int_equal(digest_is_set(&reference.digest), cases[i].digest);
        if (cases[i].digest)
            assert_string_equal(reference.digest.text, DIGEST);
        CLEANUP_FREE char *familiar = reference_familiar(&reference);
        CLEANUP_FREE char *canonical = reference_canonical(&reference);
        assert_string_equal(familiar, cases[i].familiar);
        assert_string_equal(canonical, cases[i].canonical);
        /* Both texts name the same thing again. */
        for (int form = 0; form < 2; form++) {
            CLEANUP_REFERENCE struct reference again = {0};
            assert_true(reference_parse(form ? familiar : canonical, &again, &err));
            CLEANUP_FREE char *text = reference_canonical(&again);
            assert_string_equal(text, canonical);
        }
    }
}

static void test_default_tag(void **state)
{
    static const struct {
        const char *text;
        bool expected;
    } cases[] = {{"a", true}, {"a:latest", false}, {"a@" DIGEST, false}, {"a:b@" DIGEST, false}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_REFERENCE struct reference reference = {0};
        assert_true(reference_parse(cases[i].text, &reference, NULL));
        assert_int_equal(reference.default_tag, cases[i].expected);
    }
}

static void test_invalid(void **state)
{
    static const char format[] = "invalid reference format";
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", format},
        {":latest", format},
        {"/app", format},
        {"app/", format},
        {"a//b", format},
        {"app:", format},
        {"app@", format},
        {"app:tag:tag", format},
        {"app: tag", format},
        {" app", format},
        {"app ", format},
        {"app\n", format},
        {"-app", format},
        {"app-", format},
        {"_app", format},
        {"a..b", format},
        {"a___b", format},
        {"a._b", format},
        {".", format},
        {"..", format},
        {"../x", format},
        {"a/../b", format},
        {"a/.b", format},
        {"app:.tag", format},
        {"app:-tag", format},
        {"app:a/b", format},
        {"http://localhost/app", format},
        {"https://r.io/app", format},
        {"r.io:/app", format},
        {"r.io:port/app", format},
        {"r.io:50 00/app", format},
        {"-r.io/app", format},
        {"r-.io/app", format},
        {"r_x.io/app", format},
        {"r..io/app", format},
        {".r.io/app", format},
        {"r.io./app", format},
        {"[::1/app", format},
        {"[]/app:1", format},
        {"[::1]5000/app", format},
        {"[::g]:5000/app", format},
        {"r.io/", format},
        {"user@r.io/app", format},
        {"a\xc3\xa9", format},
        {"app@sha256", format},
        {"app@sha256:", format},
        {"app@sha256:abc", format},
        {"app@:" HEX64, format},
        {"app@sha256:" HEX64 "/../x", format},
        {"app@sha256:../../../../../../../../etc/passwd0000", format},
        {"app@" DIGEST ":tag", format},
        {"app@sha256:" HEX64 "00", "invalid checksum digest length"},
        {"app@sha512:" HEX64 HEX64, "unsupported digest algorithm"},
        {"app@md5:0123456789abcdef0123456789abcdef", "unsupported digest algorithm"},
        {"app@sha256:ABCDEF6789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
         "invalid checksum digest format"},
        {"Ubuntu", "invalid reference format: repository name (library/Ubuntu) must be lowercase"},
        {"r.io/App", "invalid reference format: repository name (App) must be lowercase"},
        {"r.io/A/b:C", "invalid reference format: repository name (A/b) must be lowercase"},
        {HEX64, "invalid repository name (" HEX64 "), cannot specify 64-byte hexadecimal strings"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_REFERENCE struct reference reference = {0};
        CLEANUP_ERROR struct error err = {0};
        if (reference_parse(cases[i].text, &reference, &err))
            fail_msg("\"%s\" was taken", cases[i].text);
        assert_null(reference.path);
        assert_true(error_is(&err, "INVALID_REFERENCE"));
        assert_error(&err, ERROR_INVALID_ARGUMENT, cases[i].message);
    }
}

static void test_lengths(void **state)
{
    /* 10 + 10 * 24 = 250, and "docker.io/" makes more than 255. */
    static const char too_long[] = "aaaaaaaa/a" TEN(TEN("a") TEN("b") "abcd");
    static const char tag128[] = "app:" TEN("123456789012") "12345678";
    static const char tag129[] = "app:" TEN("123456789012") "123456789";
    CLEANUP_REFERENCE struct reference reference = {0};
    CLEANUP_ERROR struct error err = {0};

    (void)state;
    assert_false(reference_parse(too_long, &reference, &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT,
                 "repository name must not be more than 255 characters");
    assert_true(reference_parse(too_long + 5, &reference, &err));
    assert_int_equal(strlen(reference.path) + strlen("docker.io/"), 255);
    reference_done(&reference);
    assert_true(reference_parse(tag128, &reference, &err));
    reference_done(&reference);
    assert_false(reference_parse(tag129, &reference, &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "invalid reference format");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),
        cmocka_unit_test(test_default_tag),
        cmocka_unit_test(test_invalid),
        cmocka_unit_test(test_lengths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
