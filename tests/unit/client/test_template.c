/* Go's templates for --format, and JSON as Go lays it out. */
#include "tests/unit/test.h"

#include "client/ui/json_indent.h"
#include "client/ui/template.h"

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
        cmocka_unit_test(test_templates),      cmocka_unit_test(test_broken_templates),
        cmocka_unit_test(test_deep_templates), cmocka_unit_test(test_formats),
        cmocka_unit_test(test_json_indented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
