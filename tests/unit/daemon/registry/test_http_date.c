#include "tests/unit/test.h"

#include <time.h>

#include "daemon/registry/http_date.h"

#define NOW 1700000000 /* 2023-11-14T22:13:20Z */
#define YEAR_MS (366ULL * 24 * 3600 * 1000)

static void test_dates(void **state)
{
    static const struct {
        const char *text;
        int64_t seconds;
    } cases[] = {
        {"Sun, 06 Nov 1994 08:49:37 GMT", 784111777},
        {"Sunday, 06-Nov-94 08:49:37 GMT", 784111777},
        {"Sun Nov  6 08:49:37 1994", 784111777},
        {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        {"Thu, 29 Feb 2024 23:59:60 GMT", 1709251200},
        {"Tue, 01 Mar 2022 00:00:00 GMT", 1646092800},
        {"Fri, 31 Dec 9999 23:59:59 GMT", 253402300799},
        {"Tuesday, 14-Nov-23 22:13:20 GMT", NOW},
        {"Wednesday, 01-Jan-70 00:00:00 GMT", 3155760000}, /* 2070 is within fifty years */
        {"Friday, 01-Jan-99 00:00:00 GMT", 915148800},
        {"Tue Nov 14 22:13:20 2023", NOW},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int64_t seconds = -1;
        if (!http_date_parse(cases[i].text, NOW, &seconds) || seconds != cases[i].seconds)
            fail_msg("%s: %lld", cases[i].text, (long long)seconds);
    }
}

/* Every day of a hundred years, as the C library counts them. */
static void test_all_days(void **state)
{
    (void)state;
    for (time_t day = 0; day < 100LL * 365 * 24 * 3600; day += 24 * 3600) {
        char text[64];
        struct tm tm;
        int64_t seconds = -1;
        gmtime_r(&day, &tm);
        strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        assert_true(http_date_parse(text, NOW, &seconds));
        assert_true(seconds == day);
    }
}

static void test_refused(void **state)
{
    static const char *const cases[] = {
        "",
        "soon",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 CET",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 32 Oct 1994 08:49:37 GMT",
        "Wed, 29 Feb 2023 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1969 08:00:00 GMT",
        "Sun, 06 Nov 1994 08:49 GMT",
        "1994-11-06T08:49:37Z",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int64_t seconds;
        if (http_date_parse(cases[i], NOW, &seconds))
            fail_msg("accepted: %s", cases[i]);
    }
}

static void test_retry_after(void **state)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } cases[] = {
        {NULL, 0},
        {"", 0},
        {"0", 1},
        {"7", 7000},
        {"120", 120000},
        {"99999999999999999999999999", YEAR_MS},
        {"31622401", YEAR_MS},
        {"-1", 0},
        {"+1", 0},
        {"1.5", 0},
        {"1 ", 0},
        {"later", 0},
        {"Tue, 14 Nov 2023 22:13:25 GMT", 5000},
        {"Tue, 14 Nov 2023 22:13:20 GMT", 1},
        {"Sun, 06 Nov 1994 08:49:37 GMT", 1},
        {"Fri, 31 Dec 9999 23:59:59 GMT", YEAR_MS},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t ms = retry_after_ms(cases[i].text, NOW);
        if (ms != cases[i].ms)
            fail_msg("%s: %llu", cases[i].text ? cases[i].text : "none", (unsigned long long)ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dates),
        cmocka_unit_test(test_all_days),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_retry_after),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
