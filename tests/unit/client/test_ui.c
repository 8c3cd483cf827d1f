#include "tests/unit/test.h"

#include "client/ui/table.h"
#include "client/ui/terminal.h"
#include "client/ui/units.h"

/* Expected texts are what github.com/docker/go-units gives. */
static void test_durations(void **state UNUSED)
{
    const int64_t minute = 60, hour = 60 * minute, day = 24 * hour;
    const struct {
        int64_t seconds;
        const char *text;
    } cases[] = {
        {-5, "Less than a second"},
        {0, "Less than a second"},
        {1, "1 second"},
        {59, "59 seconds"},
        {60, "About a minute"},
        {119, "About a minute"},
        {120, "2 minutes"},
        {59 * minute + 59, "59 minutes"},
        {hour, "About an hour"},
        {89 * minute, "About an hour"},
        {90 * minute, "2 hours"},
        {47 * hour, "47 hours"},
        {2 * day, "2 days"},
        {13 * day, "13 days"},
        {14 * day, "2 weeks"},
        {59 * day, "8 weeks"},
        {60 * day, "2 months"},
        {729 * day, "24 months"},
        {730 * day, "2 years"},
        {20000 * day, "54 years"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_STRBUF struct strbuf text = {0};
        add_duration(&text, cases[i].seconds);
        assert_string_equal(strbuf_text(&text), cases[i].text);
    }
}

static void test_countdowns(void **state UNUSED)
{
    static const struct {
        int64_t milliseconds;
        const char *text;
    } cases[] = {{0, "0s"},           {1, "1s"},          {45000, "45s"},   {65000, "1m05s"},
                 {3599000, "59m59s"}, {7380000, "2h03m"}, {INT64_MIN, "0s"}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_STRBUF struct strbuf text = {0};
        add_countdown(&text, cases[i].milliseconds);
        assert_string_equal(strbuf_text(&text), cases[i].text);
    }
}

static void test_table(void **state UNUSED)
{
    CLEANUP_TABLE struct table table;
    CLEANUP_STRBUF struct strbuf text = {0};
    table_init(&table, 3);
    table_row(&table, (const char *const[]){"REPOSITORY", "TAG", "SIZE"});
    table_row(&table, (const char *const[]){"busybox", "latest", "4.27MB"});
    table_row(&table, (const char *const[]){"localhost:5000/gr\xc3\xbc\xc3\x9f", "1", "1\tkB"});
    table_print(&table, &text);
    assert_string_equal(strbuf_text(&text),
                        "REPOSITORY            TAG       SIZE\n"
                        "busybox               latest    4.27MB\n"
                        "localhost:5000/gr\xc3\xbc\xc3\x9f   1         1\\tkB\n");
}

static void test_size_without_terminal(void **state UNUSED)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    unsetenv("COLUMNS");
    unsetenv("LINES");
    assert_int_equal(terminal_size(fds[0]).width, 80);
    assert_int_equal(terminal_size(fds[0]).height, 24);
    setenv("COLUMNS", "33", 1);
    setenv("LINES", "-4", 1);
    assert_int_equal(terminal_size(fds[0]).width, 33);
    assert_int_equal(terminal_size(fds[0]).height, 24);
    assert_false(terminal_is_smart(fds[0]));
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_countdowns),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_size_without_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
