#include "tests/unit/test.h"

#include "daemon/registry/toml.h"

static struct toml *parse(const char *text)
{
    CLEANUP_ERROR struct error err = {0};
    struct toml *toml = toml_parse(text, strlen(text), "f.toml", &err);

    if (!toml)
        fail_msg("%s: %s", text, err.message);
    return toml;
}

static const struct toml *at(const struct toml *toml, const char *a, const char *b)
{
    toml = toml_get(toml, a);
    assert_non_null(toml);
    return b ? toml_get(toml, b) : toml;
}

static void test_strings(void **state)
{
    static const struct {
        const char *text, *value;
    } cases[] = {
        {"k = \"\"", ""},
        {"k=\"a # b\" # c", "a # b"},
        {"k = \"\\b\\t\\n\\f\\r\\\"\\\\\"", "\b\t\n\f\r\"\\"},
        {"k = \"\\u00e9\\U0001F600\\u20ac\"", "\xc3\xa9\xf0\x9f\x98\x80\xe2\x82\xac"},
        {"k = 'C:\\n\\\"x'", "C:\\n\\\"x"},
        {"k = \"\"\"a\nb\"\"\"", "a\nb"},
        {"k = \"\"\"\na\r\nb\"\"\"", "a\nb"},
        {"k = \"\"\"a\\\n   \n\t b\"\"\"", "ab"},
        {"k = \"\"\"a\\  \n b\"\"\"", "ab"},
        {"k = \"\"\"\"a\"\" b\"\"\"\"\"", "\"a\"\" b\"\""},
        {"k = '''it's ''two'''''", "it's ''two''"},
        {"k = '''\\a'''", "\\a"},
        {"\"k\" = 'x'", "x"},
        {"'k' = \"\"\"\"\"\"", ""},
        {"\xef\xbb\xbfk = \"\xc3\xa9\"", "\xc3\xa9"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(toml_cleanup) struct toml *toml = parse(cases[i].text);
        assert_int_equal(at(toml, "k", NULL)->kind, TOML_STRING);
        assert_string_equal(at(toml, "k", NULL)->text, cases[i].value);
    }
}

static void test_numbers(void **state)
{
    static const struct {
        const char *text;
        enum toml_kind kind;
        int64_t value;
    } cases[] = {
        {"k = 0", TOML_INTEGER, 0},
        {"k = +99", TOML_INTEGER, 99},
        {"k = -1_000", TOML_INTEGER, -1000},
        {"k = 0xDEAD_beef", TOML_INTEGER, 0xdeadbeef},
        {"k = 0o755", TOML_INTEGER, 0755},
        {"k = 0b1101", TOML_INTEGER, 13},
        {"k = 9223372036854775807", TOML_INTEGER, INT64_MAX},
        {"k = -9223372036854775808", TOML_INTEGER, INT64_MIN},
        {"k = 1.5", TOML_FLOAT, 0},
        {"k = -0.0", TOML_FLOAT, 0},
        {"k = 6.626e-34", TOML_FLOAT, 0},
        {"k = 5e+22", TOML_FLOAT, 0},
        {"k = 1_0.2_5E1_0", TOML_FLOAT, 0},
        {"k = inf", TOML_FLOAT, 0},
        {"k = -nan", TOML_FLOAT, 0},
        {"k = 1979-05-27T07:32:00Z", TOML_DATE, 0},
        {"k = 1979-05-27 00:32:00.999999-07:00", TOML_DATE, 0},
        {"k = 1979-05-27t07:32:00", TOML_DATE, 0},
        {"k = 2000-02-29", TOML_DATE, 0},
        {"k = 2000-02-28 # x", TOML_DATE, 0},
        {"k = 07:32:00.5", TOML_DATE, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(toml_cleanup) struct toml *toml = parse(cases[i].text);
        if (at(toml, "k", NULL)->kind != cases[i].kind)
            fail_msg("%s is %s", cases[i].text, toml_kind_name(at(toml, "k", NULL)->kind));
        assert_true(at(toml, "k", NULL)->integer == cases[i].value);
    }
}

static void test_tables(void **state)
{
    CLEANUP(toml_cleanup)
    struct toml *toml = parse("server = \"https://x\"\r\n"
                              "a.b.\"c.d\" = true\n"
                              "a.b.e = false\n"
                              "list = [ 1, 'two', # three\n [[]], {x = 1, y.z = 2}, ]\n"
                              "[ host . \"https://m:5000/v2\" ] # comment\n"
                              "capabilities = [\"pull\"]\n"
                              "[host.second.header]\n"
                              "x = \"1\"\n"
                              "[host.second]\n"
                              "skip_verify = true\n"
                              "[[more]]\n"
                              "n = 1\n"
                              "[more.sub]\n"
                              "[[more]]\n"
                              "n = 2\n"
                              "[more.sub]\n"
                              "[[more.deep]]\n");
    const struct toml *host = toml_get(toml, "host"), *list = toml_get(toml, "list");

    (void)state;
    assert_true(toml_get(at(toml, "a", "b"), "c.d")->boolean);
    assert_false(toml_get(at(toml, "a", "b"), "e")->boolean);
    assert_int_equal(list->count, 4);
    assert_int_equal(list->children[0]->integer, 1);
    assert_string_equal(list->children[1]->text, "two");
    assert_int_equal(list->children[2]->children[0]->count, 0);
    assert_int_equal(toml_get(toml_get(list->children[3], "y"), "z")->integer, 2);
    /* In the file's order, with the line they stand in. */
    assert_int_equal(host->count, 2);
    assert_string_equal(host->children[0]->key, "https://m:5000/v2");
    assert_int_equal(host->children[0]->line, 6);
    assert_string_equal(host->children[1]->key, "second");
    assert_true(at(host, "second", "skip_verify")->boolean);
    assert_string_equal(toml_get(at(host, "second", "header"), "x")->text, "1");
    assert_int_equal(toml_get(toml, "more")->count, 2);
    assert_int_equal(toml_get(toml_get(toml, "more")->children[1], "n")->integer, 2);
    assert_non_null(toml_get(toml_get(toml, "more")->children[1], "deep"));
    assert_null(toml_get(toml, "nothing"));
}

static void test_empty(void **state)
{
    static const char *const cases[] = {"",    "\n",        "# nothing", "  \t\r\n\n#\n",
                                        "[a]", "[a]\n[a.b]"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(toml_cleanup) struct toml *toml = parse(cases[i]);
        assert_true(toml->count <= 1);
    }
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *fragment;
    } cases[] = {
        {"k", "f.toml:1: \"=\" is missing"},
        {"\n\nk = ", "f.toml:3: a value is missing"},
        {"k = 1 l = 2", "end of the line"},
        {"= 1", "a key is missing"},
        {"k. = 1", "a key is missing"},
        {"k = x", "neither a string"},
        {"k = TRUE", "neither"},
        {"k = 01", "neither"},
        {"k = 1__0", "neither"},
        {"k = 1_", "neither"},
        {"k = _1", "neither"},
        {"k = 0x", "neither"},
        {"k = 0xg", "neither"},
        {"k = +0x1", "neither"},
        {"k = 1.", "neither"},
        {"k = .5", "neither"},
        {"k = 1.e5", "neither"},
        {"k = 1._5", "neither"},
        {"k = 03.14", "neither"},
        {"k = 9223372036854775808", "neither"},
        {"k = 2001-02-29", "neither"},
        {"k = 2001-13-01", "neither"},
        {"k = 24:00:00", "neither"},
        {"k = 07:32", "neither"},
        {"k = 2001-01-01T07:32:00.", "neither"},
        {"k = 2001-01-01T07:32:00+25:00", "neither"},
        {"k = \"a", "not closed"},
        {"k = \"a\nb\"", "not closed"},
        {"k = 'a", "not closed"},
        {"k = \"\"\"a\"\"", "not closed"},
        {"k = \"\\x41\"", "unknown escape"},
        {"k = \"\\", "unknown escape"},
        {"k = \"\\u12\"", "hexadecimal"},
        {"k = \"\\ud800\"", "does not exist"},
        {"k = \"\\U00110000\"", "does not exist"},
        {"k = \"\\u0000\"", "zero byte"},
        {"k = \"\x01\"", "control character"},
        {"k = '\x7f'", "control character"},
        {"k = \"\"\"\r\"\"\"", "control character"},
        {"# \x02", "control character"},
        {"k = 1\rl = 2", "end of the line"},
        {"k = [1", "lacks"},
        {"k = [1 2]", "lacks"},
        {"k = [,]", "a value is missing"},
        {"k = {a = 1,}", "a key is missing"},
        {"k = {a = 1\n}", "lacks"},
        {"k = {a = 1", "lacks"},
        {"k = {a = 1, a = 2}", "is there already"},
        {"k = 1\nk = 2", "f.toml:2: \"k\" is there already, in line 1"},
        {"[a]\n[a]", "f.toml:2: \"a\" is there already, in line 1"},
        {"[a]\nb = 1\n[a.b]", "is there already"},
        {"[a.b]\n[a]\nb.c = 1", "is there already"},
        {"a.b = 1\n[a]", "is there already"},
        {"a = {b = 1}\n[a.c]", "is there already"},
        {"a = {b.c = 1}\na.b.d = 2", "is there already"},
        {"a = [{b = 1}]\n[[a]]", "is there already"},
        {"a = [{b = 1}]\n[a.c]", "is there already"},
        {"[[a]]\n[a]", "is there already"},
        {"[a]\n[[a]]", "is there already"},
        {"a = 1\na.b = 2", "is there already"},
        {"[a", "not closed"},
        {"[[a]", "not closed"},
        {"[]", "a key is missing"},
        {"[a] b = 1", "end of the line"},
        {"\"\"\"k\"\"\" = 1", "\"=\" is missing"},
        {"k = \"\xc3\"", "UTF-8"},
        {"\n\xff", "f.toml:2: it is not valid UTF-8"},
        {"k = \"\xed\xa0\x80\"", "UTF-8"},
        {"k = \"\xc0\x80\"", "UTF-8"},
        {"k = [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", "too deep"},
        {"a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q = 1", "too many parts"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ERROR struct error err = {0};
        struct toml *toml = toml_parse(cases[i].text, strlen(cases[i].text), "f.toml", &err);
        if (toml)
            fail_msg("accepted: %s", cases[i].text);
        assert_error(&err, ERROR_INVALID_ARGUMENT, cases[i].fragment);
    }
}

static void test_limits(void **state)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *text = xcalloc(1, TOML_MAX_BYTES + 2);

    (void)state;
    memset(text, ' ', TOML_MAX_BYTES + 1);
    toml_free(parse(text + 1));
    assert_null(toml_parse(text, TOML_MAX_BYTES + 1, "f", &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "larger than 1 MiB");
    text[0] = 'k';
    text[1] = '=';
    text[2] = '[';
    for (size_t i = 0; i < TOML_MAX_VALUES; i++) {
        text[3 + 2 * i] = '1';
        text[4 + 2 * i] = ',';
    }
    assert_null(toml_parse(text, TOML_MAX_BYTES, "f", &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "too many values");
    /* A zero byte is a control character, wherever it stands. */
    assert_null(toml_parse("k = \"a\0b\"", 9, "f", &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "control character");
    assert_null(toml_parse("k = 1\0", 6, "f", &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "end of the line");
    assert_null(toml_parse("\0", 1, "f", &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "a key is missing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_tables),  cmocka_unit_test(test_empty),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
