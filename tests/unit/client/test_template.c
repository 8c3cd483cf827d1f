/* Go's templates for --format, and JSON as Go lays it out. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#include "client/inspect_types.h"
#include "client/ui/json_indent.h"

static const char data[] =
    "{\"Name\":\"busybox\",\"Stars\":3300,\"Official\":true,\"Empty\":\"\",\"None\":null,"
    "\"Tags\":[\"1\",\"latest\"],\"Config\":{\"User\":\"root\",\"Deep\":{\"er\":7}},"
    "\"Evil\":\"a\\u001b[31mb\\u009bc\\nd\",\"Wide\":\"\\u00e4\\u00f6\\u00fc\"}";

static bool render(const char *text, struct strbuf *out, struct error *err)
{
    CLEANUP_JSON json_t *json = json_parse(data, strlen(data), MIB, "data", err);
    CLEANUP(template_cleanup) struct template *template = template_parse(text, err);
    return template && template_render(template, json, out, err);
}

static void test_templates(void **state UNUSED)
{
    static const struct {
        const char *template, *expected;
    } cases[] = {
        {"", ""},
        {"plain } text {", "plain } text {"},
        {"{{.Name}}", "busybox"},
        {"{{ .Name }}: {{.Stars}}!", "busybox: 3300!"},
        {"{{.Official}} {{.None}}", "true <no value>"},
        {"{{.Config.User}} {{.Config.Deep.er}}", "root 7"},
        {"{{json .Config}}", "{\"Deep\":{\"er\":7},\"User\":\"root\"}"},
        {"{{json .Name}}{{json .Tags}}{{json .None}}", "\"busybox\"[\"1\",\"latest\"]null"},
        {"{{upper .Name}} {{.Name | upper | lower}}", "BUSYBOX busybox"},
        {"{{title \"a new day\"}}", "A New Day"},
        {"{{truncate .Name 4}} {{truncate .Wide 2}} {{truncate .Name 99}}", "busy äö busybox"},
        {"[{{pad .Name 1 2}}][{{pad .Empty 1 2}}]", "[ busybox  ][]"},
        {"{{join (split \"1,latest\" \",\") \", \"}} {{split .Name \"y\"}}", "1, latest [bus box]"},
        {"{{len .Tags}} {{len .Name}} {{len .Config}}", "2 7 2"},
        {"{{eq .Name \"busybox\"}} {{ne .Stars 3300}} {{not .Empty}}", "true false true"},
        {"{{if .Official}}yes{{else}}no{{end}}{{if .Empty}}x{{end}}", "yes"},
        {"{{if (eq .Name `x`)}}a{{else}}b{{end}}", "b"},
        {"{{range .Tags}}<{{.}}>{{end}}{{range .None}}x{{else}}none{{end}}", "<1><latest>none"},
        {"a  {{- .Name -}}  b", "abusyboxb"},
        {"{{/* a comment */}}x{{- /* another */ -}} y", "xy"},
        {"{{\"}}\"}}{{`a\\n`}}{{\"t\\tab\"}}", "}}a\\nt\tab"},
        {"{{println .Name}}x", "busybox\nx"},
        {"{{-1}} {{12}}", "-1 12"},
        /* What comes from the data steers no terminal. */
        {"{{.Evil}}", "a\\u001b[31mb\\u009bc\nd"},
        {"{{printf \"%c\" (index .Evil 1)}}{{printf \"%c\" (index \"x\\x1b\" 1)}}", "\\u001b\033"},
        {"{{json .Evil}}", "\"a\\u001b[31mb\\u009bc\\nd\""},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_STRBUF struct strbuf text = {0};
        CLEANUP_ERROR struct error err = {0};
        if (!render(cases[i].template, &text, &err))
            fail_msg("%s: %s", cases[i].template, err.message);
        if (!str_eq(strbuf_text(&text), cases[i].expected))
            fail_msg("%s: \"%s\", not \"%s\"", cases[i].template, strbuf_text(&text),
                     cases[i].expected);
    }
}

static void test_broken_templates(void **state UNUSED)
{
    static const struct {
        const char *template, *message;
    } cases[] = {
        {"{{", ":1: unclosed action"},
        {"{{.Name", ":1: unclosed action"},
        {"{{\"}}", ":1: unterminated quoted string"},
        {"{{}}", ":1: missing value for command"},
        {"{{foo .Name}}", ":1: function \"foo\" not defined"},
        {"{{upper}}",
         ":1:2: executing \"\" at <upper>: wrong number of args for upper: want 1 got 0"},
        {"{{upper .Name .Name}}",
         ":1:2: executing \"\" at <upper>: wrong number of args for upper: want 1 got 2"},
        {"{{.Name .Name}}",
         ":1:2: executing \"\" at <.Name>: Name is not a method but has arguments"},
        {"{{(.Name}}", ":1: unclosed left paren"},
        {"{{.Name)}}", ":1: unexpected right paren"},
        {"{{$x}}", ":1: undefined variable \"$x\""},
        {"{{if .Name}}", ":1: unexpected EOF"},
        {"{{if .Name}}{{else}}", ":1: unexpected EOF"},
        {"{{end}}", ":1: unexpected {{end}}"},
        {"{{if}}{{end}}", ":1: missing value for if"},
        {"{{.Name.Sub}}",
         ":1:7: executing \"\" at <.Name.Sub>: can't evaluate field Sub in type interface {}"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_STRBUF struct strbuf text = {0};
        CLEANUP_FREE char *expected =
            xasprintf("template parsing error: template: %s", cases[i].message);
        CLEANUP_ERROR struct error err = {0};
        if (render(cases[i].template, &text, &err))
            fail_msg("%s: \"%s\"", cases[i].template, strbuf_text(&text));
        if (!str_eq(err.message, expected))
            fail_msg("%s: \"%s\"", cases[i].template, err.message);
    }
}

/* --- As Docker's ------------------------------------------------------------------------------
 */

#define CASES_MAX_BYTES MIB

static json_t *read_cases(void)
{
    CLEANUP_FREE char *text = xmalloc(CASES_MAX_BYTES);
    FILE *file = fopen(TEMPLATES_FILE, "r");
    CLEANUP_ERROR struct error err = {0};
    size_t size;
    json_t *json;

    assert_non_null(file);
    size = fread(text, 1, CASES_MAX_BYTES, file);
    fclose(file);
    json = json_parse(text, size, CASES_MAX_BYTES, TEMPLATES_FILE, &err);
    assert_ok(json != NULL, &err);
    return json;
}

/* What Docker's command line makes of them: test_format_docker.py sees to it where there is one. */
static void test_like_docker(void **state UNUSED)
{
    CLEANUP_JSON json_t *json = read_cases();
    const json_t *document = json_object_get(json, "document"), *one;
    unsigned failed = 0;
    size_t i;

    json_array_foreach (json_object_get(json, "cases"), i, one) {
        const char *text = json_string_value(json_array_get(one, 0));
        const char *expected = json_string_value(json_array_get(one, 1));
        const char *problem = json_string_value(json_array_get(one, 2));
        CLEANUP_STRBUF struct strbuf out = {0};
        CLEANUP_ERROR struct error err = {0};
        CLEANUP(template_cleanup) struct template *template = template_parse(text, &err);
        CLEANUP_FREE char *message =
            problem ? xasprintf("template parsing error: template: %s", problem) : NULL;
        if (template)
            template_render_inspected(template, &image_inspect_type, document, &out, &err);
        if (str_eq(strbuf_text(&out), expected ? expected : "") && str_eq(err.message, message))
            continue;
        failed++;
        print_error("%s: \"%s\" %s\n", text, strbuf_text(&out), err.message);
    }
    assert_true(i > 400);
    assert_int_equal(failed, 0);
}

/* After one that had to be seen as a map nothing may be missing any more, as in Docker. */
static void test_strict_afterwards(void **state UNUSED)
{
    CLEANUP_JSON json_t *first = json_pack("{s:{s:s}, s:i}", "Labels", "a", "1", "More", 1);
    CLEANUP_JSON json_t *second = json_pack("{s:{}}", "Labels");
    static const struct template_field fields[] = {{"Labels", "Labels", &template_string_map,
                                                    false},
                                                   {.name = NULL}};
    static const struct template_type type = {.kind = TYPE_STRUCT, .name = "t", .fields = fields};
    CLEANUP(template_cleanup)
    struct template *template =
        template_parse("{{.Labels.a}}{{if .Labels.a}}{{.More}}{{end}}", NULL);
    CLEANUP_STRBUF struct strbuf out = {0};
    CLEANUP_ERROR struct error err = {0};

    assert_ok(template_render_inspected(template, &type, second, &out, &err), &err);
    assert_ok(template_render_inspected(template, &type, first, &out, &err), &err);
    assert_string_equal(strbuf_text(&out), "<no value>11");
    assert_false(template_render_inspected(template, &type, second, &out, &err));
    assert_non_null(strstr(err.message, "map has no entry for key \"a\""));
    assert_string_equal(strbuf_text(&out), "<no value>11");
}

/* --- What would not end ------------------------------------------------------------------------
 */

static void test_limits(void **state UNUSED)
{
    static const struct {
        const char *template, *message;
    } cases[] = {
        {"{{range 3000000}}{{end}}", "too many steps"},
        {"{{range 2000}}{{range 2000}}{{end}}{{end}}", "too many steps"},
        {"{{define \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}", "maximum template depth"},
        {"{{define \"a\"}}x{{template \"b\"}}{{end}}{{define \"b\"}}{{template \"a\"}}{{end}}"
         "{{template \"a\"}}",
         "maximum template depth"},
        {"{{$x := \"abcdefgh\"}}{{range 40}}{{$x = print $x $x}}{{end}}", "too long"},
        {"{{$x := pad \"x\" 1000000 0}}{{range 40}}{{$x}}{{end}}", "too long"},
        {"{{pad \"x\" 99999999999 0}}", "too long"},
        {"{{pad \"x\" 0 20000000}}", "too long"},
        {"{{$x := printf \"%1000000d%1000000d\" 1 1}}{{range 40}}{{printf \"%s%s\" $x $x}}{{end}}",
         "too long"},
        {"{{split (pad \"x\" 200000 0) \"\"}}", "too many parts"},
        {"{{join (split (pad \"x\" 90000 0) \" \") (pad \"x\" 9000 0)}}", "too long"},
        {"{{$x := 0}}{{range 1000000}}{{$x = print .}}{{end}}", "too long"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_STRBUF struct strbuf text = {0};
        CLEANUP_ERROR struct error err = {0};
        if (render(cases[i].template, &text, &err))
            fail_msg("%s", cases[i].template);
        if (!strstr(err.message, cases[i].message))
            fail_msg("%s: %s", cases[i].template, err.message);
        assert_int_equal(text.length, 0);
    }
}

/* The limit holds within one verb and one call, too. */
static void test_memory_limit(void **state UNUSED)
{
    static const char *const pieces[] = {
        "{{printf \"%1000000v\" (split (printf \"%0700d\" 1) \"\")}}",
        "{{$x := pad \"x\" 9000000 0}}{{print",
        "{{$x := pad \"x\" 9000000 0}}{{println",
        "{{$x := pad \"x\" 9000000 0}}{{printf \"\"",
        "{{$x := pad \"x\" 9000000 0}}{{html",
        "{{printf \"%1000000v\" .}}",
    };
    CLEANUP_JSON json_t *map = json_object();
    struct rusage before, after;

    for (int i = 0; i < 350; i++) {
        CLEANUP_FREE char *key = xasprintf("%d", i);
        json_object_set_new(map, key, json_integer(i));
    }
    getrusage(RUSAGE_SELF, &before);
    for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
        CLEANUP_STRBUF struct strbuf text = {0}, out = {0};
        CLEANUP_ERROR struct error err = {0};
        strbuf_add_str(&text, pieces[i]);
        if (!str_ends(pieces[i], "}}")) {
            for (int k = 0; k < 80; k++)
                strbuf_add_str(&text, " $x");
            strbuf_add_str(&text, "}}");
        }
        CLEANUP(template_cleanup)
        struct template *template = template_parse(strbuf_text(&text), &err);
        assert_ok(template != NULL, &err);
        assert_false(template_render(template, map, &out, &err));
        if (!strstr(err.message, "too long: the limit is 16777216 bytes"))
            fail_msg("%s: %s", pieces[i], err.message);
        getrusage(RUSAGE_SELF, &after);
        if (after.ru_maxrss - before.ru_maxrss > 500L * 1024)
            fail_msg("%s: %ld KiB", pieces[i], after.ru_maxrss - before.ru_maxrss);
    }
}

/* Its own limit is no rows': what they take together may be more. */
static void test_limit_of_each_row(void **state UNUSED)
{
    CLEANUP_JSON json_t *json = json_pack("{s:[s,s]}", "Tags", "a", "b");
    CLEANUP(template_cleanup) struct template *template = template_parse("{{.Tags}}", NULL);
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_STRBUF struct strbuf out = {0};

    for (unsigned i = 0; i <= TEMPLATE_OUTPUT_MAX; i++)
        strbuf_add_char(&out, 'x');
    assert_ok(template_render(template, json, &out, &err), &err);
    assert_string_equal(out.data + TEMPLATE_OUTPUT_MAX, "x[a b]");
}

/* More than a command line holds: no time that grows with their square. */
static void test_many_operands(void **state UNUSED)
{
    const char *const begins[] = {"{{print", "{{1", "{{"}, *const pieces[] = {" 1", "|print", ".A"};
    const clock_t start = clock();

    for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
        CLEANUP_STRBUF struct strbuf text = {0};
        CLEANUP_ERROR struct error err = {0};
        strbuf_add_str(&text, begins[i]);
        for (int k = 0; k < 120000; k++)
            strbuf_add_str(&text, pieces[i]);
        strbuf_add_str(&text, "}}");
        CLEANUP(template_cleanup)
        struct template *template = template_parse(strbuf_text(&text), &err);
        assert_ok(template != NULL, &err);
    }
    assert_true((clock() - start) / CLOCKS_PER_SEC < 3);
}

/* As deep as one likes: an error, not a crash. */
static void test_deep_templates(void **state UNUSED)
{
    const char *const pieces[] = {"{{if .Name}}", "("};
    for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
        CLEANUP_STRBUF struct strbuf template = {0}, text = {0};
        CLEANUP_ERROR struct error err = {0};
        strbuf_add_str(&template, i ? "{{" : "");
        for (int depth = 0; depth < 100000; depth++)
            strbuf_add_str(&template, pieces[i]);
        strbuf_add_str(&template, i ? "}}" : "");
        assert_false(render(strbuf_text(&template), &text, &err));
        if (!strstr(err.message, "nested too deep"))
            fail_msg("%s", err.message);
    }
}

static char *rows_as(const char *format, const char *rows)
{
    static const struct format_column columns[] = {{"Name", "NAME"}, {"Stars", "STARS"}};
    const struct format what = {.text = format,
                                .table = "{{.Name}}\t{{.Stars}}",
                                .raw = "name: {{.Name}}\n",
                                .columns = columns,
                                .column_count = ARRAY_SIZE(columns)};
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_JSON json_t *json = json_parse(rows, strlen(rows), MIB, "rows", &err);
    struct strbuf text = {0};
    assert_ok(format_rows(&what, json, &text, &err), &err);
    return strbuf_take(&text);
}

static void test_formats(void **state UNUSED)
{
    static const char rows[] =
        "[{\"Name\":\"busybox\",\"Stars\":\"12\"},{\"Name\":\"b\",\"Stars\":\"\"}]";
    static const struct {
        const char *format, *rows, *expected;
    } cases[] = {
        {NULL, rows, "NAME      STARS\nbusybox   12\nb         \n"},
        {"table", rows, "NAME      STARS\nbusybox   12\nb         \n"},
        {"table {{.Stars}}\\t{{upper .Name}}", rows,
         "STARS     NAME\n12        BUSYBOX\n          "
         "B\n"},
        {"table {{.Name}}", "[]", "NAME\n"},
        /* In the heading Docker's functions do nothing, Go's do, and what fails there ends it. */
        {"table {{lower .Name}}\\t{{len .Name}}\\t{{json .}}\\tx", rows,
         "NAME      4         \n"
         "busybox   7         {\"Name\":\"busybox\",\"Stars\":\"12\"}   x\n"
         "b         1         {\"Name\":\"b\",\"Stars\":\"\"}           x\n"},
        {"table {{.Name}}{{if eq .Stars \"12\"}}\\n{{end}}", rows, "NAME\nbusybox\n\nb\n"},
        {"tables {{.Name}}", "[]", "s NAME\n"},
        {" {{.Name}} ", rows, "busybox\nb\n"},
        {"raw", rows, "name: busybox\n\nname: b\n\n"},
        {"json", rows,
         "{\"Name\":\"busybox\",\"Stars\":\"12\"}\n{\"Name\":\"b\",\"Stars\":\"\"}\n"},
        {"{{.Name}}", rows, "busybox\nb\n"},
        {"{{.Name}}\\n", "[]", ""},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_FREE char *text = rows_as(cases[i].format, cases[i].rows);
        assert_string_equal(text, cases[i].expected);
    }
}

static void test_json_indented(void **state UNUSED)
{
    static const struct {
        const char *json, *expected;
    } cases[] = {
        {"{}", "{}"},
        {" [ ] ", "[]"},
        {"1.50e3", "1.50e3"},
        {"{\"b\":1,\"a\":[1,2,{}],\"c\":{\"d\":null}}",
         "{\n.\"b\": 1,\n.\"a\": [\n..1,\n..2,\n..{}\n.],\n.\"c\": {\n..\"d\": null\n.}\n}"},
        {"[\"{\\\"a\\\": [1]}\", \"\\\\\"]", "[\n.\"{\\\"a\\\": [1]}\",\n.\"\\\\\"\n]"},
        {"[\"\302\233\177\303\244\"]", "[\n.\"\\u009b\\u007f\303\244\"\n]"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_STRBUF struct strbuf text = {0};
        add_json_indented(&text, cases[i].json, strlen(cases[i].json), ".");
        assert_string_equal(strbuf_text(&text), cases[i].expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_templates),
        cmocka_unit_test(test_broken_templates),
        cmocka_unit_test(test_like_docker),
        cmocka_unit_test(test_strict_afterwards),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_memory_limit),
        cmocka_unit_test(test_limit_of_each_row),
        cmocka_unit_test(test_many_operands),
        cmocka_unit_test(test_deep_templates),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_json_indented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
