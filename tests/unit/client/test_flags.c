#include "tests/unit/test.h"

#include "client/flags.h"

static bool not_odd(const char *value, struct error *err)
{
    if (!str_eq(value, "odd"))
        return true;
    return error_set(err, ERROR_INVALID_ARGUMENT, NULL, "it is odd");
}

static const struct flag table[] = {
    {.name = "env", .shorthand = 'e', .type = FLAG_LIST, .help = "Set variables", .check = not_odd},
    {.name = "human", .type = FLAG_BOOL, .help = "Say it in words", .fallback = "true"},
    {.name = "interactive", .shorthand = 'i', .type = FLAG_BOOL, .help = "Keep it open"},
    {.name = "progress",
     .type = FLAG_STRING,
     .help = "How progress is shown to those who want to see it while it goes on",
     .choices = "auto|tty",
     .fallback = "auto"},
    {.name = "quiet", .shorthand = 'q', .type = FLAG_BOOL, .help = "Say less"},
    {.name = "tty", .shorthand = 't', .type = FLAG_BOOL, .unsupported = true},
    {.name = "user", .shorthand = 'u', .type = FLAG_STRING, .help = "Who"},
};

#define ARGV(...) ((char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static struct flags parse(bool flags_first, char *const *argv)
{
    CLEANUP_ERROR struct error err = {0};
    struct flags flags;
    assert_ok(flags_parse(table, ARRAY_SIZE(table), flags_first, argv, &flags, &err), &err);
    return flags;
}

/* What pflag says to the same words (checked against docker 20.10). */
static void refuses(char *const *argv, const char *message)
{
    CLEANUP_ERROR struct error err = {0};
    struct flags flags;
    if (flags_parse(table, ARRAY_SIZE(table), false, argv, &flags, &err))
        fail_msg("accepted; expected: %s", message);
    assert_int_equal(err.code, ERROR_INVALID_ARGUMENT);
    assert_string_equal(err.message, message);
    assert_null(flags.args);
}

static void test_forms_of_values(void **state UNUSED)
{
    char *const *const forms[] = {
        ARGV("--user=me"), ARGV("--user", "me"), ARGV("-u", "me"), ARGV("-ume"),
        ARGV("-u=me"),     ARGV("-iqu", "me"),   ARGV("-iqume"),   ARGV("--user=you", "-u=me"),
    };
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        CLEANUP(flags_done) struct flags flags = parse(false, forms[i]);
        assert_string_equal(flag_string(&flags, "user"), "me");
        assert_int_equal(flags.arg_count, 0);
    }
}

static void test_defaults(void **state UNUSED)
{
    CLEANUP(flags_done) struct flags flags = parse(false, ARGV());
    assert_null(flag_string(&flags, "user"));
    assert_string_equal(flag_string(&flags, "progress"), "auto");
    assert_true(flag_bool(&flags, "human"));
    CLEANUP(flags_done) struct flags off = parse(false, ARGV("--human=false"));
    assert_false(flag_bool(&off, "human"));
    assert_null(flag_list(&flags, "env"));
    assert_false(flag_bool(&flags, "quiet"));
    assert_false(flag_is_set(&flags, "progress"));
    assert_false(flags.help);
    assert_null(flags.args[0]);
}

static void test_booleans(void **state UNUSED)
{
    static const struct {
        const char *word;
        bool value;
    } cases[] = {{"-q", true},         {"--quiet", true}, {"--quiet=true", true},
                 {"--quiet=T", true},  {"-q=1", true},    {"-q=false", false},
                 {"--quiet=0", false}, {"-iq", true},     {"--quiet=False", false}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(flags_done) struct flags flags = parse(false, ARGV((char *)cases[i].word));
        assert_int_equal(flag_bool(&flags, "quiet"), cases[i].value);
        assert_true(flag_is_set(&flags, "quiet"));
    }
}

static void test_lists_keep_order(void **state UNUSED)
{
    CLEANUP(flags_done)
    struct flags flags = parse(false, ARGV("-eA=1", "x", "--env", "B=a=b", "-e", "C="));
    char *const *list = flag_list(&flags, "env");
    assert_int_equal(strv_count(list), 3);
    assert_string_equal(list[0], "A=1");
    assert_string_equal(list[1], "B=a=b");
    assert_string_equal(list[2], "C=");
    assert_string_equal(flags.args[0], "x");
}

static void test_where_flags_end(void **state UNUSED)
{
    CLEANUP(flags_done) struct flags mixed = parse(false, ARGV("x", "-q", "--", "-i", "--foo"));
    assert_true(flag_bool(&mixed, "quiet"));
    assert_false(flag_bool(&mixed, "interactive"));
    assert_int_equal(mixed.arg_count, 3);
    assert_string_equal(mixed.args[2], "--foo");

    CLEANUP(flags_done) struct flags first = parse(true, ARGV("-q", "x", "-i", "--", "--foo"));
    assert_true(flag_bool(&first, "quiet"));
    assert_false(flag_bool(&first, "interactive"));
    assert_int_equal(first.arg_count, 4);
    assert_string_equal(first.args[1], "-i");
    assert_string_equal(first.args[2], "--");

    CLEANUP(flags_done) struct flags dash = parse(false, ARGV("-", "-q"));
    assert_string_equal(dash.args[0], "-");
    assert_true(flag_bool(&dash, "quiet"));
}

static void test_values_may_look_like_flags(void **state UNUSED)
{
    CLEANUP(flags_done) struct flags flags = parse(false, ARGV("--user", "-q", "-e", "--"));
    assert_string_equal(flag_string(&flags, "user"), "-q");
    assert_string_equal(flag_list(&flags, "env")[0], "--");
    assert_false(flag_bool(&flags, "quiet"));
}

static void test_help(void **state UNUSED)
{
    char *const *const forms[] = {ARGV("--help"), ARGV("-h"), ARGV("-qh"), ARGV("--help=true")};
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        CLEANUP(flags_done) struct flags flags = parse(false, forms[i]);
        assert_true(flags.help);
    }
    static const struct flag own[] = {{.name = "hostname", .shorthand = 'h', .type = FLAG_STRING}};
    CLEANUP_ERROR struct error err = {0};
    CLEANUP(flags_done) struct flags flags;
    assert_ok(flags_parse(own, 1, false, ARGV("-h", "name"), &flags, &err), &err);
    assert_false(flags.help);
    assert_string_equal(flag_string(&flags, "hostname"), "name");
}

static void test_errors(void **state UNUSED)
{
    refuses(ARGV("--foo"), "unknown flag: --foo");
    refuses(ARGV("--foo=bar"), "unknown flag: --foo");
    refuses(ARGV("--use", "x"), "unknown flag: --use");
    refuses(ARGV("-Z"), "unknown shorthand flag: 'Z' in -Z");
    refuses(ARGV("-qZi"), "unknown shorthand flag: 'Z' in -Zi");
    refuses(ARGV("--env"), "flag needs an argument: --env");
    refuses(ARGV("-e"), "flag needs an argument: 'e' in -e");
    refuses(ARGV("-qe"), "flag needs an argument: 'e' in -e");
    refuses(ARGV("---x"), "bad flag syntax: ---x");
    refuses(ARGV("--=x"), "bad flag syntax: --=x");
    refuses(ARGV("-q=maybe"), "invalid argument \"maybe\" for \"-q, --quiet\" flag: "
                              "strconv.ParseBool: parsing \"maybe\": invalid syntax");
    refuses(ARGV("--help=x"), "invalid argument \"x\" for \"--help\" flag: "
                              "strconv.ParseBool: parsing \"x\": invalid syntax");
    refuses(ARGV("--progress=tt"),
            "invalid argument \"tt\" for \"--progress\" flag: must be one of auto|tty");
    refuses(ARGV("--progress="),
            "invalid argument \"\" for \"--progress\" flag: must be one of auto|tty");
    refuses(ARGV("-e", "odd"), "invalid argument \"odd\" for \"-e, --env\" flag: it is odd");
    refuses(ARGV("-it"), "--tty is not supported by davit yet");
}

static void test_description(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    flags_describe(table, ARRAY_SIZE(table), 60, &text);
    assert_string_equal(strbuf_text(&text),
                        "  -e, --env list          Set variables\n"
                        "      --human             Say it in words (default true)\n"
                        "  -i, --interactive       Keep it open\n"
                        "      --progress string   How progress is shown to those who\n"
                        "                          want to see it while it goes on\n"
                        "                          (auto|tty) (default \"auto\")\n"
                        "  -q, --quiet             Say less\n"
                        "  -u, --user string       Who\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms_of_values),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_booleans),
        cmocka_unit_test(test_lists_keep_order),
        cmocka_unit_test(test_where_flags_end),
        cmocka_unit_test(test_values_may_look_like_flags),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_description),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
