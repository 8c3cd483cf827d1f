#include "tests/unit/test.h"

#include "proto/base/duration.h"

static void test_read(void **state)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } cases[] = {
        {"0", 0},           {"0s", 0},
        {"1s", 1000},       {"500ms", 500},
        {"1h30m", 5400000}, {"1m1s1ms", 61001},
        {"1.5s", 1500},     {".5m", 30000},
        {"2.s", 2000},      {"30d", 2592000000},
        {"1us", 1},         {"999ns", 1},
        {"0.0001s", 1},     {"1.00000000000000000000000001h", 3600000},
        {"1\xc2\xb5s", 1},  {"36500d", 3153600000000},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t ms = UINT64_MAX;
        if (!duration_parse(cases[i].text, &ms) || ms != cases[i].ms)
            fail_msg("%s: %llu", cases[i].text, (unsigned long long)ms);
    }
}

static void test_refused(void **state)
{
    static const char *const cases[] = {
        "",       "1",
        "s",      "1x",
        "-1s",    "+1s",
        "1 s",    "1s ",
        ".s",     "1..5s",
        "1h3",    "1e3s",
        "36601d", "99999999999999999999s",
        "1S",     "ms",
        "0h0",    "00",
        "1h-1m",  "18446744073710s",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t ms;
        if (duration_parse(cases[i], &ms))
            fail_msg("accepted: %s", cases[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
