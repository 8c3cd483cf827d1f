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
        {3 * 365 * day - 600, "2 years"}, /* years are not rounded, hours are */
        {20000 * day, "54 years"},
        {INT64_MAX, "292 years"},
        {INT64_MIN, "Less than a second"},
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

/* Expected texts are what Docker's tabwriter makes of the same. */
static void test_tables(void **state UNUSED)
{
    static const char *const free_texts[] = {"NONE", "TEXT", NULL};
    static const struct {
        const char *text, *table;
        size_t width;
    } cases[] = {
        {"", "", 0},
        {"a\n", "a\n", 0},
        {"a\tb\nccccccccccc\td\n", "a             b\nccccccccccc   d\n", 0},
        {"a\tb", "a         b\n", 0},
        {"a\t\n\tb\n", "a         \n          b\n", 0},
        /* A line without the column ends it. */
        {"IMAGE ID\nTAG\tx\n0123456789ab\nlatest-of-all\tx\n",
         "IMAGE ID\nTAG       x\n0123456789ab\nlatest-of-all   x\n", 0},
        {"a\tb\tc\nxxxxxxxxxxxxxx\ty\n", "a                b         c\nxxxxxxxxxxxxxx   y\n", 0},
        /* Wide ones take two columns, combining ones none. */
        {"\u4f60\u597d\tx\nab\tx\n", "\u4f60\u597d      x\nab        x\n", 0},
        {"\U0001f600\tx\n", "\U0001f600        x\n", 0},
        {"e\u0301e\u0301\tx\n", "e\u0301e\u0301        x\n", 0},
        {"\u00e4\u00f6\u00fc\tx\n", "\u00e4\u00f6\u00fc       x\n", 0},
        /* The widest gives way to what fits; what is short stays. */
        {"NAME\tID\nabcdefghijklmnopqrstuvwxyz\t0123456789ab\n",
         "NAME                       ID\nabcdefghijklmnopqrstuvw\u2026   0123456789ab\n", 39},
        /* Free text first, and what is long and none never. */
        {"AGE\tTEXT\n14 minutes ago\tabcdefghijklmn\n",
         "AGE              TEXT\n14 minutes ago   abcdefghijk\u2026\n", 29},
        {"AGE\tTEXT\n14 minutes ago\tabcdefghijklmn\n",
         "AGE             TEXT\n14 minutes a\u2026   abcdefghijk\u2026\n", 28},
        {"DIGEST\tTEXT\n0123456789012345678901234567890123456789x\tabcdefghijklmn\n",
         "DIGEST                                      TEXT\n"
         "0123456789012345678901234567890123456789x   abcdefghijk\u2026\n",
         30},
        {"abcdefghijklmnopqrstuvwxyz\t0123456789abcdefghij\n",
         "abcdefghijk\u2026   0123456789a\u2026\n", 5},
        {"\u4f60\u597d\u4f60\u597d\u4f60\u597d\u4f60\u597d\tx\n",
         "\u4f60\u597d\u4f60\u597d\u4f60\u597d\u2026   x\n", 17},
        {"short\tx\n", "short     x\n", 80},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_STRBUF struct strbuf text = {0};
        add_table(&text, cases[i].text, strlen(cases[i].text),
                  &(struct table_fit){cases[i].width, free_texts});
        if (!str_eq(strbuf_text(&text), cases[i].table))
            fail_msg("%s:\n%s", cases[i].text, strbuf_text(&text));
    }
}

static void test_columns(void **state UNUSED)
{
    static const struct {
        const char *text;
        size_t columns;
    } cases[] = {{"", 0},         {"abc", 3},    {"\u00e4\u00df", 2}, {"\u4f60\u597d", 4},
                 {"a\u0301", 1},  {"\uff21", 2}, {"\U0001f600", 2},   {"\u200b", 0},
                 {"\xff\xfe", 2}, {"\u2026", 1}, {"\uac00", 2}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (terminal_columns(cases[i].text) != cases[i].columns)
            fail_msg("%s: %zu", cases[i].text, terminal_columns(cases[i].text));
    }
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
        cmocka_unit_test(test_durations), cmocka_unit_test(test_countdowns),
        cmocka_unit_test(test_table),     cmocka_unit_test(test_tables),
        cmocka_unit_test(test_columns),   cmocka_unit_test(test_size_without_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
