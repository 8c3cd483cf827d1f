#include "tests/unit/test.h"

#include "proto/base/size.h"

/* Expected texts are what github.com/docker/go-units gives. */
static void test_sizes(void **state UNUSED)
{
    static const struct {
        uint64_t bytes;
        const char *decimal, *binary;
    } cases[] = {
        {0, "0B", "0B"},
        {999, "999B", "999B"},
        {1000, "1kB", "1000B"},
        {1024, "1.024kB", "1KiB"},
        {4270000, "4.27MB", "4.072MiB"},
        {187912345, "187.9MB", "179.2MiB"},
        {999999, "1000kB", "976.6KiB"},
        {8323461120, "8.323GB", "7.752GiB"},
        {UINT64_MAX, "18.45EB", "16EiB"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_STRBUF struct strbuf decimal = {0}, binary = {0};
        add_size(&decimal, cases[i].bytes);
        add_memory_size(&binary, cases[i].bytes);
        assert_string_equal(strbuf_text(&decimal), cases[i].decimal);
        assert_string_equal(strbuf_text(&binary), cases[i].binary);
    }
}

static void test_reading(void **state UNUSED)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {
        {"0", 0},
        {"4096", 4096},
        {"17B", 17},
        {"10GB", 10000000000},
        {"10g", 10000000000},
        {"1.5k", 1500},
        {"3mb", 3000000},
        {"512MiB", 512 * MIB},
        {"2Gi", 2 * GIB},
        {"1TIB", 1024 * GIB},
        {"9000000T", 9000000000000000000},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t bytes = 1;
        if (!size_parse(cases[i].text, &bytes) || bytes != cases[i].bytes)
            fail_msg("%s is %llu", cases[i].text, (unsigned long long)bytes);
    }
}

static void test_not_a_size(void **state UNUSED)
{
    static const char *const cases[] = {
        "",          "GB",  "-1",    "+1",   " 1",
        "1 GB",      ".5",  "1.2.3", "0x10", "1e3",
        "inf",       "nan", "1GBB",  "1bb",  "1X",
        "10000000T", "5%",  "1i",    "1kBs", "99999999999999999999",
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t bytes;
        if (size_parse(cases[i], &bytes))
            fail_msg("\"%s\" was taken for %llu", cases[i], (unsigned long long)bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_reading),
        cmocka_unit_test(test_not_a_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
