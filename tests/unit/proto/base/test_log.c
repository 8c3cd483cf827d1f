#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "proto/base/json.h"
#include "proto/base/log.h"
#include "proto/base/strbuf.h"

/* --- Catching what is written to stderr ---------------------------------------------------------
 */

static int saved_stderr = -1;
static FILE *caught;

static void catch_begin(void)
{
    fflush(stderr);
    saved_stderr = dup(STDERR_FILENO);
    caught = tmpfile();
    dup2(fileno(caught), STDERR_FILENO);
}

static char *catch_end(void)
{
    static char text[65536];
    size_t length;

    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    rewind(caught);
    length = fread(text, 1, sizeof(text) - 1, caught);
    text[length] = '\0';
    fclose(caught);
    return text;
}

#define LOGGED(statement) \
    ({                    \
        catch_begin();    \
        statement;        \
        catch_end();      \
    })

/* Everything after "2024-01-01T00:00:00.000Z ". */
static const char *after_time(const char *line)
{
    int year, end = 0;

    assert_int_equal(sscanf(line, "%4d-%*2d-%*2dT%*2d:%*2d:%*2d.%*3dZ %n", &year, &end), 1);
    assert_int_equal(end, 25);
    assert_true(year >= 2020);
    return line + end;
}

static int setup(void **state UNUSED)
{
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    unsetenv("JOURNAL_STREAM");
    return 0;
}

/* --- Text ---------------------------------------------------------------------------------------
 */

static void test_text(void **state UNUSED)
{
    const char *line =
        LOGGED(log_info("pulled", LOG("image", "busybox:latest"), LOG("bytes", (size_t)12345),
                        LOG("delta", -7), LOG("big", UINT64_MAX), LOG("yes", true)));

    assert_string_equal(after_time(line), "info  pulled image=busybox:latest bytes=12345 delta=-7"
                                          " big=18446744073709551615 yes=1\n");
}

static void test_text_without_fields(void **state UNUSED)
{
    assert_string_equal(after_time(LOGGED(log_warn("careful"))), "warn  careful\n");
    assert_string_equal(after_time(LOGGED(log_error("bad"))), "error bad\n");
}

static void test_text_quotes_what_could_be_misread(void **state UNUSED)
{
    static const struct {
        const char *value, *expected;
    } cases[] = {
        {"", "\"\""},
        {NULL, "-"},
        {"two words", "\"two words\""},
        {"a=b", "\"a=b\""},
        {"say \"x\"", "\"say \\\"x\\\"\""},
        {"back\\slash", "\"back\\\\slash\""},
        {"x\n2024-01-01T00:00:00.000Z error forged", NULL},
        {"\033[31mred", "\"\\u001b[31mred\""},
        {"\x01", "\"\\u0001\""},
        {"\x7f", "\"\\u007f\""},
        {"\xc2\x9b"
         "31m",
         "\"\\u009b31m\""},
        {"\xff\xfe", "\"\xef\xbf\xbd\xef\xbf\xbd\""},
        {"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *line = after_time(LOGGED(log_info("m", LOG("v", cases[i].value))));
        assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
        if (cases[i].expected) {
            CLEANUP_FREE char *expected = xasprintf("info  m v=%s\n", cases[i].expected);
            assert_string_equal(line, expected);
        }
    }
}

static void test_text_message_is_one_line(void **state UNUSED)
{
    CLEANUP_FREE char *message = xstrdup("a\nb\033[2J \"quoted\"");

    assert_string_equal(after_time(LOGGED(log_info(message))),
                        "info  a\\nb\\u001b[2J \"quoted\"\n");
}

/* --- JSON ---------------------------------------------------------------------------------------
 */

static json_t *parse_line(const char *line)
{
    CLEANUP_ERROR struct error err = {0};
    json_t *json = json_parse(line, strlen(line), 1 * MIB, "the line", &err);

    assert_ok(json, &err);
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    return json;
}

static void test_json(void **state UNUSED)
{
    CLEANUP_JSON json_t *json = NULL;
    int year;

    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    json = parse_line(LOGGED(log_info("pulled", LOG("image", "a b"), LOG("bytes", (size_t)5),
                                      LOG("delta", -7), LOG("none", (char *)NULL))));
    assert_int_equal(sscanf(json_str(json, "time"), "%4d-", &year), 1);
    assert_string_equal(json_str(json, "level"), "info");
    assert_string_equal(json_str(json, "msg"), "pulled");
    assert_string_equal(json_str(json, "image"), "a b");
    assert_int_equal(json_int(json, "bytes", 0), 5);
    assert_int_equal(json_int(json, "delta", 0), -7);
    assert_true(json_is_null(json_object_get(json, "none")));
}

static void test_json_is_valid_whatever_the_value(void **state UNUSED)
{
    static const struct {
        const char *value, *parsed; /* NULL: the same */
    } cases[] = {
        {"\",\"level\":\"forged", NULL},
        {"}\n{\"level\":\"error\"}", NULL},
        {"\\", NULL},
        {"\\u0041", NULL},
        {"\x01\x1f\x7f\b\f", NULL},
        {"\xc2\x9b", NULL},
        {"\xe2\x82\xac\xf0\x9f\x90\xb3", NULL},
        {"\xff", "\xef\xbf\xbd"},
        {"\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };

    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *expected = cases[i].parsed ? cases[i].parsed : cases[i].value;
        CLEANUP_JSON json_t *json =
            parse_line(LOGGED(log_info(cases[i].value, LOG("v", cases[i].value))));
        assert_string_equal(json_str(json, "v"), expected);
        assert_string_equal(json_str(json, "msg"), expected);
        assert_string_equal(json_str(json, "level"), "info");
        assert_int_equal(json_object_size(json), 4);
    }
}

static void test_every_byte_pair_is_valid_json(void **state UNUSED)
{
    struct log_field fields[250];
    static char keys[250][8], values[250][3];

    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    for (int first = 1; first < 256; first += 3) {
        CLEANUP_JSON json_t *json = NULL;
        for (int i = 0; i < 250; i++) {
            values[i][0] = (char)first;
            values[i][1] = (char)(i + 6);
            snprintf(keys[i], sizeof(keys[i]), "k%d", i);
            fields[i] = log_field_str(keys[i], values[i]);
        }
        json = parse_line(LOGGED(log_write(LOG_LEVEL_INFO, "m", fields, 250)));
        assert_int_equal(json_object_size(json), 253);
    }
}

/* --- Limits, levels, journal --------------------------------------------------------------------
 */

static void test_long_values_are_cut(void **state UNUSED)
{
    CLEANUP_FREE char *ascii = xmalloc(10001);
    const char *line;

    memset(ascii, 'x', 10000);
    ascii[10000] = '\0';
    line = after_time(LOGGED(log_info("m", LOG("v", ascii))));
    assert_int_equal(strlen(line), strlen("info  m v=") + 4096 + strlen("...\n"));
    assert_true(str_ends(line, "xxx...\n"));
    ascii[4096] = '\0';
    line = after_time(LOGGED(log_info("m", LOG("v", ascii))));
    assert_int_equal(strlen(line), strlen("info  m v=") + 4096 + strlen("\n"));
}

static void test_values_are_not_cut_inside_a_character(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf euros = {0};
    const char *line;

    for (int i = 0; i < 3000; i++)
        strbuf_add_str(&euros, "\xe2\x82\xac");
    line = LOGGED(log_info("m", LOG("v", strbuf_text(&euros))));
    assert_null(strstr(line, "\xef\xbf\xbd"));
    assert_true(str_ends(line, "\xe2\x82\xac...\n"));
}

static void test_levels(void **state UNUSED)
{
    static const struct {
        enum log_level level;
        size_t lines;
    } cases[] = {{LOG_LEVEL_DEBUG, 4},
                 {LOG_LEVEL_INFO, 3},
                 {LOG_LEVEL_WARN, 2},
                 {LOG_LEVEL_ERROR, 1}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        size_t lines = 0;
        log_setup(cases[i].level, LOG_FORMAT_TEXT);
        for (const char *c = LOGGED({
                 log_debug("d");
                 log_info("i");
                 log_warn("w");
                 log_error("e");
             });
             *c; c++)
            lines += *c == '\n';
        assert_int_equal(lines, cases[i].lines);
    }
}

static void test_parse(void **state UNUSED)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    enum log_level level;
    enum log_format format;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        assert_true(log_level_parse(names[i], &level));
        assert_int_equal(level, i);
    }
    assert_true(log_level_parse("fatal", &level));
    assert_int_equal(level, LOG_LEVEL_ERROR);
    assert_false(log_level_parse("", &level) || log_level_parse("INFO", &level));
    assert_true(log_format_parse("json", &format));
    assert_int_equal(format, LOG_FORMAT_JSON);
    assert_true(log_format_parse("text", &format));
    assert_int_equal(format, LOG_FORMAT_TEXT);
    assert_false(log_format_parse("xml", &format));
}

static void log_to_journal(void)
{
    char stream[64];
    struct stat st;

    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_error("broken\n<0>forged", LOG("v", "x\n<0>forged"));
    log_warn("w");
    log_info("i");
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    log_info("j");
}

static void test_journal_gets_priorities_and_no_time(void **state UNUSED)
{
    const char *text = LOGGED(log_to_journal());

    assert_true(str_starts(text, "<3>broken\\n<0>forged v=\"x\\n<0>forged\"\n<4>w\n<6>i\n"
                                 "<6>{\"time\":"));
}

static void test_journal_of_an_ancestor_is_not_ours(void **state UNUSED)
{
    setenv("JOURNAL_STREAM", "9:12345", 1);
    assert_string_equal(after_time(LOGGED(log_info("m"))), "info  m\n");
    setenv("JOURNAL_STREAM", "garbage", 1);
    assert_string_equal(after_time(LOGGED(log_info("m"))), "info  m\n");
}

static void log_to_closed_stderr(void *arg UNUSED)
{
    close(STDERR_FILENO);
    log_error("nobody hears it");
}

static void test_a_log_that_cannot_be_written_is_no_failure(void **state UNUSED)
{
    static struct child_end end;

    run_in_child(log_to_closed_stderr, NULL, &end);
    assert_int_equal(end.status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_text, setup),
        cmocka_unit_test_setup(test_text_without_fields, setup),
        cmocka_unit_test_setup(test_text_quotes_what_could_be_misread, setup),
        cmocka_unit_test_setup(test_text_message_is_one_line, setup),
        cmocka_unit_test_setup(test_json, setup),
        cmocka_unit_test_setup(test_json_is_valid_whatever_the_value, setup),
        cmocka_unit_test_setup(test_every_byte_pair_is_valid_json, setup),
        cmocka_unit_test_setup(test_long_values_are_cut, setup),
        cmocka_unit_test_setup(test_values_are_not_cut_inside_a_character, setup),
        cmocka_unit_test_setup(test_levels, setup),
        cmocka_unit_test_setup(test_parse, setup),
        cmocka_unit_test_setup(test_journal_gets_priorities_and_no_time, setup),
        cmocka_unit_test_setup(test_journal_of_an_ancestor_is_not_ours, setup),
        cmocka_unit_test_setup(test_a_log_that_cannot_be_written_is_no_failure, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
