/* Docker's filters on images, and Go's patterns. */
#include "tests/unit/test.h"

#include "daemon/image/filter.h"
#include "daemon/image/glob.h"
#include "proto/base/strbuf.h"

/* --- Patterns ----------------------------------------------------------------------------------
 */

/* Those of Go's own tests (path/match_test.go) that mean something for bytes, and some more. */
static void test_patterns(void **state UNUSED)
{
    static const struct {
        const char *pattern, *text;
        bool match;
    } cases[] = {
        {"abc", "abc", true},
        {"abc", "abcd", false},
        {"abcd", "abc", false},
        {"", "", true},
        {"", "x", false},
        {"*", "abc", true},
        {"*", "", true},
        {"*c", "abc", true},
        {"a*", "a", true},
        {"a*", "abc", true},
        {"a*", "ab/c", false},
        {"a*/b", "abc/b", true},
        {"a*/b", "a/c/b", false},
        {"a*b*c*d*e*/f", "axbxcxdxe/f", true},
        {"a*b*c*d*e*/f", "axbxcxdxexxx/f", true},
        {"a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false},
        {"a*b*c*d*e*/f", "axbxcxdxexxx/fff", false},
        {"a*b?c*x", "abxbbxdbxebxczzx", true},
        {"a*b?c*x", "abxbbxdbxebxczzy", false},
        {"ab[c]", "abc", true},
        {"ab[b-d]", "abc", true},
        {"ab[e-g]", "abc", false},
        {"ab[^c]", "abc", false},
        {"ab[^b-d]", "abc", false},
        {"ab[^e-g]", "abc", true},
        {"a\\*b", "a*b", true},
        {"a\\*b", "ab", false},
        {"a[^a]b", "a-b", true},
        {"a???b", "a--b", false},
        {"[a-ζ]*", "A", false},
        {"*[a-z]", "b", true},
        {"a?b", "a/b", false},
        {"a*b", "a/b", false},
        {"[\\]a]", "]", true},
        {"[\\-]", "-", true},
        {"[x\\-]", "x", true},
        {"[x\\-]", "z", false},
        {"*x", "xxx", true},
        {"**", "abc", true},
        {"*b", "ab/b", false},
        {"*/*:1.*", "host/app:1.2", true},
        {"*/*:1.*", "host/app:2.1", false},
        {"*latest", "busybox:latest", true},
        {"a[*]b", "a*b", true},
        {"a[*]b", "axb", false},
        {"x*a/*", "xaa/b", true},
        {"?", "", false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (!glob_is_valid(cases[i].pattern))
            fail_msg("%s is not valid", cases[i].pattern);
        if (glob_match(cases[i].pattern, cases[i].text) != cases[i].match)
            fail_msg("%s and %s", cases[i].pattern, cases[i].text);
    }
}

static void test_patterns_that_are_none(void **state UNUSED)
{
    static const char *const cases[] = {
        "[",     "[a",      "[]",   "[]a]", "[-]",  "[x-]",  "[-x]",  "[a-b-c]",
        "[^",    "[^b",     "[^bc", "a[",   "a\\",  "[\\",   "[a\\",  "*[",
        "abc*[", "a*b*[]*", "x\\",  "[a-",  "[a-]", "[^-]x", "[^]x]",
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (glob_is_valid(cases[i]))
            fail_msg("%s is valid", cases[i]);
        assert_false(glob_match(cases[i], "a"));
    }
}

/* As many stars as fit must not take long. */
static void test_patterns_take_no_time(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf pattern = {0}, text = {0};

    for (int i = 0; i < 2000; i++) {
        strbuf_add_str(&pattern, "*a");
        strbuf_add_str(&text, "aaaa");
    }
    strbuf_add_char(&pattern, 'b');
    assert_false(glob_match(strbuf_text(&pattern), strbuf_text(&text)));
}

/* --- Parsing -----------------------------------------------------------------------------------
 */

static bool parse(enum image_filter_use use, const char *filter, struct image_filter *ret,
                  struct error *err)
{
    char *filters[] = {(char *)filter};

    return image_filter_parse(NULL, use, filters, 1, ret, err);
}

static void test_what_is_no_filter(void **state UNUSED)
{
    static const struct {
        enum image_filter_use use;
        const char *filter, *message;
    } cases[] = {
        {IMAGE_FILTER_LIST, "x=1", "invalid filter 'x'"},
        {IMAGE_FILTER_LIST, "label!=a", "invalid filter 'label!'"},
        {IMAGE_FILTER_LIST, "Label=a", "invalid filter 'Label'"},
        {IMAGE_FILTER_LIST, "=a", "invalid filter ''"},
        {IMAGE_FILTER_LIST, "label", "bad format of filter (expected name=value): label"},
        {IMAGE_FILTER_LIST, "", "bad format of filter"},
        {IMAGE_FILTER_LIST, "dangling=maybe", "invalid filter 'dangling=[maybe]'"},
        {IMAGE_FILTER_LIST, "dangling=", "invalid filter 'dangling=[]'"},
        {IMAGE_FILTER_LIST, "until=x", "failed to parse value as time or duration: \"x\""},
        {IMAGE_FILTER_LIST, "until=", "failed to parse value as time or duration: \"\""},
        {IMAGE_FILTER_LIST, "until=\x1b[2J", "\\u001b[2J"},
        {IMAGE_FILTER_LIST, "reference=a[", "syntax error in pattern"},
        {IMAGE_FILTER_PRUNE, "reference=a", "invalid filter 'reference'"},
        {IMAGE_FILTER_PRUNE, "before=a", "invalid filter 'before'"},
        {IMAGE_FILTER_PRUNE, "since=a", "invalid filter 'since'"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_IMAGE_FILTER struct image_filter filter;
        CLEANUP_ERROR struct error err = {0};
        assert_false(parse(cases[i].use, cases[i].filter, &filter, &err));
        assert_string_equal(err.reason, "INVALID_FILTER");
        assert_error(&err, ERROR_INVALID_ARGUMENT, cases[i].message);
    }
}

static void test_too_many(void **state UNUSED)
{
    CLEANUP_IMAGE_FILTER struct image_filter filter;
    CLEANUP(strv_cleanup) char **filters = NULL;
    CLEANUP_ERROR struct error err = {0};

    for (int i = 0; i < 100; i++)
        strv_add(&filters, "label=a");
    assert_true(image_filter_parse(NULL, IMAGE_FILTER_LIST, filters, 100, &filter, &err));
    image_filter_done(&filter);
    strv_add(&filters, "label=a");
    assert_false(image_filter_parse(NULL, IMAGE_FILTER_LIST, filters, 101, &filter, &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "101 filters, the limit is 100");
    image_filter_done(&filter);
}

static void test_long_patterns(void **state UNUSED)
{
    CLEANUP_FREE char *half = xasprintf("reference=%01024d", 0);
    CLEANUP_IMAGE_FILTER struct image_filter filter;
    CLEANUP_ERROR struct error err = {0};
    char *const filters[] = {half, half, "reference=1"};

    assert_true(image_filter_parse(NULL, IMAGE_FILTER_LIST, filters, 2, &filter, &err));
    image_filter_done(&filter);
    assert_false(image_filter_parse(NULL, IMAGE_FILTER_LIST, filters, 3, &filter, &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT,
                 "patterns of references of 2049 bytes, the limit is 2048");
}

static void test_dangling(void **state UNUSED)
{
    static const struct {
        const char *filters[2];
        enum image_dangling dangling;
    } cases[] = {
        {{"dangling=true", "dangling=1"}, DANGLING_YES},
        {{"dangling=0", "dangling=false"}, DANGLING_NO},
        {{"label=a", "label=b"}, DANGLING_NOT_ASKED},
    };
    char *both[] = {"dangling=true", "dangling=0"};
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_IMAGE_FILTER struct image_filter contradiction;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_IMAGE_FILTER struct image_filter filter;
        assert_ok(image_filter_parse(NULL, IMAGE_FILTER_LIST, (char **)cases[i].filters, 2, &filter,
                                     &err),
                  &err);
        assert_int_equal(filter.dangling, cases[i].dangling);
    }
    assert_false(image_filter_parse(NULL, IMAGE_FILTER_LIST, both, 2, &contradiction, &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "invalid filter 'dangling=[false true]'");
}

/* --- Matching ----------------------------------------------------------------------------------
 */

#define SECOND 1000000000LL

static bool matches(enum image_filter_use use, const struct image *image, const char *one,
                    const char *two)
{
    char *filters[] = {(char *)one, (char *)two};
    CLEANUP_IMAGE_FILTER struct image_filter filter;
    CLEANUP_ERROR struct error err = {0};

    assert_ok(image_filter_parse(NULL, use, filters, two ? 2 : 1, &filter, &err), &err);
    return image_filter_match(&filter, image);
}

static void test_labels(void **state UNUSED)
{
    static const struct {
        const char *one, *two;
        bool list;
    } cases[] = {
        {"label=a", NULL, true},       {"label=a=1", NULL, true},  {"label=a=2", NULL, false},
        {"label=a=", NULL, false},     {"label=c=", NULL, true},   {"label=c", NULL, true},
        {"label=x", NULL, false},      {"label=", NULL, false},    {"label=a", "label=b=2=3", true},
        {"label=a", "label=x", false}, {"label=b=2", NULL, false}, {"label=A", NULL, false},
    };
    const struct image image = {.labels = "{\"a\":\"1\",\"b\":\"2=3\",\"c\":\"\"}"};
    const struct image none = {.labels = NULL}, broken = {.labels = "{"};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (matches(IMAGE_FILTER_LIST, &image, cases[i].one, cases[i].two) != cases[i].list)
            fail_msg("%s %s", cases[i].one, cases[i].two ? cases[i].two : "");
    }
    assert_false(matches(IMAGE_FILTER_LIST, &none, "label=a", NULL));
    assert_false(matches(IMAGE_FILTER_LIST, &broken, "label=a", NULL));
}

/* As in Docker, who has one of several is not kept out by it. */
static void test_labels_that_must_not_be(void **state UNUSED)
{
    const struct image image = {.labels = "{\"a\":\"1\",\"b\":\"2\"}"}, none = {.labels = NULL};

    assert_false(matches(IMAGE_FILTER_PRUNE, &image, "label!=a", NULL));
    assert_false(matches(IMAGE_FILTER_PRUNE, &image, "label!=a=1", NULL));
    assert_true(matches(IMAGE_FILTER_PRUNE, &image, "label!=a=2", NULL));
    assert_true(matches(IMAGE_FILTER_PRUNE, &image, "label!=x", NULL));
    assert_true(matches(IMAGE_FILTER_PRUNE, &image, "label!=a", "label!=x"));
    assert_false(matches(IMAGE_FILTER_PRUNE, &image, "label!=a", "label!=b"));
    assert_false(matches(IMAGE_FILTER_PRUNE, &image, "label=a", "label!=b"));
    assert_true(matches(IMAGE_FILTER_PRUNE, &none, "label!=a", NULL));
}

static void test_times(void **state UNUSED)
{
    const struct image image = {.created_unix_ns = 1000 * SECOND};
    const struct image oldest = {.created_unix_ns = INT64_MIN};
    const struct image ahead = {.created_unix_ns = INT64_MAX};
    const struct image recent = {.created_unix_ns = wall_clock_ns() - 3600 * SECOND};

    assert_true(matches(IMAGE_FILTER_LIST, &image, "until=1001", NULL));
    assert_false(matches(IMAGE_FILTER_LIST, &image, "until=1000", NULL));
    assert_true(matches(IMAGE_FILTER_LIST, &image, "until=1000.000000001", NULL));
    assert_false(matches(IMAGE_FILTER_LIST, &image, "until=1001", "until=999"));
    assert_true(matches(IMAGE_FILTER_LIST, &image, "until=24h", NULL));
    assert_false(matches(IMAGE_FILTER_LIST, &recent, "until=2h", NULL));
    assert_true(matches(IMAGE_FILTER_LIST, &recent, "until=30m", NULL));
    assert_true(matches(IMAGE_FILTER_LIST, &oldest, "until=0", NULL));
    assert_false(matches(IMAGE_FILTER_LIST, &ahead, "until=2100-01-01", NULL));
    assert_true(matches(IMAGE_FILTER_PRUNE, &image, "until=1970-01-02T00:00:00Z", NULL));
    assert_true(matches(IMAGE_FILTER_LIST, &ahead, "dangling=true", NULL));
}

static void test_names(void **state UNUSED)
{
    static const struct {
        const char *pattern, *name;
        bool match;
    } cases[] = {
        {"busybox", "docker.io/library/busybox:latest", true},
        {"busybox:latest", "docker.io/library/busybox:latest", true},
        {"busybox:1", "docker.io/library/busybox:latest", false},
        {"busy*", "docker.io/library/busybox:latest", true},
        {"library/busybox", "docker.io/library/busybox:latest", false},
        {"docker.io/library/busybox", "docker.io/library/busybox:latest", false},
        {"*:latest", "docker.io/library/busybox:latest", true},
        {"*", "docker.io/me/app:1", false},
        {"*/*", "docker.io/me/app:1", true},
        {"me/app", "me/app:1", true},
        {"localhost:5000/*", "localhost:5000/app:1", true},
        {"busybox",
         "docker.io/library/busybox@sha256:"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         true},
        {"busybox@sha256:a*",
         "docker.io/library/busybox@sha256:"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         true},
        {"busybox:*",
         "docker.io/library/busybox@sha256:"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_FREE char *text = xasprintf("reference=%s", cases[i].pattern);
        CLEANUP_IMAGE_FILTER struct image_filter filter;
        CLEANUP_ERROR struct error err = {0};
        assert_ok(parse(IMAGE_FILTER_LIST, text, &filter, &err), &err);
        if (image_filter_match_name(&filter, cases[i].name) != cases[i].match)
            fail_msg("%s and %s", cases[i].pattern, cases[i].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_patterns_that_are_none),
        cmocka_unit_test(test_patterns_take_no_time),
        cmocka_unit_test(test_what_is_no_filter),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_long_patterns),
        cmocka_unit_test(test_dangling),
        cmocka_unit_test(test_labels),
        cmocka_unit_test(test_labels_that_must_not_be),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
