#include "tests/unit/test.h"

#include <time.h>

#include "proto/base/timestamp.h"

#define NOW 1700000000000000000LL

static void test_moments(void **state UNUSED)
{
    static const struct {
        const char *text;
        int64_t unix_ns;
    } cases[] = {
        {"0", 0},
        {"1136073845", 1136073845000000000},
        {"1136073845.000000001", 1136073845000000001},
        {"1136073845.5", 1136073845500000000},
        {"1136073845.1234567899", 1136073845123456789},
        {"24h", NOW - 86400000000000},
        {"1h30m", NOW - 5400000000000},
        {"-24h", NOW + 86400000000000},
        {"+24h", NOW - 86400000000000},
        {"2d", NOW - 172800000000000},
        {"2006-01-02T15:04:05Z", 1136214245000000000},
        {"2006-01-02T15:04:05.999999999Z", 1136214245999999999},
        {"2006-01-02T15:04:05+07:30", 1136187245000000000},
        {"2006-01-02T15:04:05-07:00", 1136239445000000000},
        {"2006-01-02T15:04Z", 1136214240000000000},
        /* Local time, which is an hour before UTC here. */
        {"2006-01-02T15:04:05", 1136217845000000000},
        {"2006-01-02T15:04", 1136217840000000000},
        {"2006-01-02T15", 1136217600000000000},
        {"2006-01-02", 1136163600000000000},
        {"1970-01-01T00:00:00Z", 0},
    };

    setenv("TZ", "XXX1", 1);
    tzset();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t unix_ns = -1;
        if (!timestamp_parse(cases[i].text, NOW, &unix_ns) || unix_ns != cases[i].unix_ns)
            fail_msg("%s: %lld, not %lld", cases[i].text, (long long)unix_ns,
                     (long long)cases[i].unix_ns);
    }
}

static void test_what_is_none(void **state UNUSED)
{
    static const char *const cases[] = {
        "",
        "x",
        "-1",
        "1x",
        "1.",
        ".5",
        "2006-1-2",
        "2006-13-02",
        "2006-01-32",
        "2006-01-02T",
        "2006-01-02T25",
        "2006-01-02T15:60",
        "2006-01-02T15:04:05+7",
        "2006-01-02T15:04:05Zx",
        "2006-01-02 15:04",
        "99999999999999999999",
        "--24h",
        "-",
        "24hx",
        "2006-01-02T15:04:05.",
        "1969-12-31",
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t unix_ns;
        if (timestamp_parse(cases[i], NOW, &unix_ns))
            fail_msg("%s was taken for %lld", cases[i], (long long)unix_ns);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_what_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
