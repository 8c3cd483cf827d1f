#include "tests/unit/test.h"

#include <pthread.h>

#include "proto/base/json.h"
#include "proto/base/strbuf.h"

static json_t *parse(const char *text, struct error *err)
{
    return json_parse(text, strlen(text), 1000, "the text", err);
}

static void test_getters(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_JSON json_t *json =
        parse("{\"s\": \"text\", \"i\": -7, \"r\": 1.5, \"t\": true, \"n\": null}", &err);

    assert_ok(json, &err);
    assert_string_equal(json_str(json, "s"), "text");
    assert_null(json_str(json, "i"));
    assert_null(json_str(json, "absent"));
    assert_null(json_str(NULL, "s"));
    assert_int_equal(json_int(json, "i", 1), -7);
    assert_int_equal(json_int(json, "s", 1), 1);
    assert_int_equal(json_int(json, "r", 1), 1);
    assert_int_equal(json_int(NULL, "i", 1), 1);
    assert_true(json_bool(json, "t", false));
    assert_true(json_bool(json, "n", true));
    assert_false(json_bool(json, "absent", false));
}

static void test_refused(void **state UNUSED)
{
    static const struct {
        const char *text;
        enum error_code code;
        const char *fragment;
    } cases[] = {
        {"", ERROR_INVALID_ARGUMENT, "the text is not valid JSON: line 1"},
        {"{", ERROR_INVALID_ARGUMENT, "not valid JSON"},
        {"{\"a\": 1,\n \"a\": 2}", ERROR_INVALID_ARGUMENT, "line 2"},
        {"{} trailing", ERROR_INVALID_ARGUMENT, "not valid JSON"},
        {"{'a': 1}", ERROR_INVALID_ARGUMENT, "not valid JSON"},
        {"\"a\"", ERROR_INVALID_ARGUMENT, "not valid JSON"}, /* documents are objects or arrays */
        {"[\"\xff\"]", ERROR_INVALID_ARGUMENT, "not valid JSON"},
        {"[\"\\u0000\"]", ERROR_INVALID_ARGUMENT, "not valid JSON"},
        {"[99999999999999999999]", ERROR_INVALID_ARGUMENT, "not valid JSON"},
        {"[\033]", ERROR_INVALID_ARGUMENT, "not valid JSON"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ERROR struct error err = {0};
        assert_null(parse(cases[i].text, &err));
        assert_true(error_is(&err, "INVALID_JSON"));
        assert_null(strchr(err.message, '\033'));
        assert_error(&err, cases[i].code, cases[i].fragment);
    }
}

static void test_size_limit(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_JSON json_t *json = NULL;
    char text[] = "[1, 2]";

    assert_null(json_parse(text, 6, 5, "manifest of x", &err));
    assert_true(error_is(&err, "INVALID_JSON"));
    assert_error(&err, ERROR_RESOURCE_EXHAUSTED,
                 "manifest of x is too large: 6 bytes, the limit is 5");
    json = json_parse(text, 6, 6, "x", &err);
    assert_ok(json, &err);
}

static char *nested(size_t depth, const char *open, const char *middle, const char *close)
{
    struct strbuf text = {0};

    for (size_t i = 0; i < depth; i++)
        strbuf_add_str(&text, open);
    strbuf_add_str(&text, middle);
    for (size_t i = 0; i < depth; i++)
        strbuf_add_str(&text, close);
    return strbuf_take(&text);
}

static void test_depth_limit(void **state UNUSED)
{
    static const char *const opens[] = {"[", "{\"a\":", "[{\"b\\\"]\\\\\":"};
    static const char *const closes[] = {"]", "}", "}]"};
    static const size_t levels[] = {1, 1, 2};

    for (size_t i = 0; i < ARRAY_SIZE(opens); i++) {
        CLEANUP_ERROR struct error err = {0};
        CLEANUP_FREE char *most = nested(JSON_MAX_DEPTH / levels[i], opens[i], "1", closes[i]);
        CLEANUP_FREE char *more = nested(JSON_MAX_DEPTH / levels[i] + 1, opens[i], "1", closes[i]);
        CLEANUP_JSON json_t *json = json_parse(most, strlen(most), 10000, "x", &err);
        assert_ok(json, &err);
        assert_null(json_parse(more, strlen(more), 10000, "x", &err));
        assert_true(error_is(&err, "INVALID_JSON"));
        assert_error(&err, ERROR_RESOURCE_EXHAUSTED, "nested too deeply");
    }
}

static void test_brackets_in_strings_are_no_levels(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *text = nested(JSON_MAX_DEPTH * 2, "[", "", "{");
    CLEANUP_FREE char *document = xasprintf("[\"\\\"%s\", [], [], {}]", text);
    CLEANUP_JSON json_t *json = json_parse(document, strlen(document), 10000, "x", &err);

    assert_ok(json, &err);
}

/* An array of so many values; commas in strings are none. */
static char *many(size_t count, const char *value)
{
    struct strbuf text = {0};

    strbuf_add_char(&text, '[');
    for (size_t i = 0; i < count; i++)
        strbuf_addf(&text, "%s%s", i ? "," : "", value);
    strbuf_add_char(&text, ']');
    return strbuf_take(&text);
}

static void test_values_limit(void **state UNUSED)
{
    static const struct {
        const char *value;
        size_t most;
    } cases[] = {{"1", JSON_MAX_VALUES},
                 {"\",,,[\\\"{\"", JSON_MAX_VALUES},
                 {"{}", JSON_MAX_VALUES / 2}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ERROR struct error err = {0};
        CLEANUP_FREE char *most = many(cases[i].most, cases[i].value);
        CLEANUP_FREE char *more = many(cases[i].most + 1, cases[i].value);
        CLEANUP_JSON json_t *json = json_parse(most, strlen(most), 4 * MIB, "x", &err);
        assert_ok(json, &err);
        assert_null(json_parse(more, strlen(more), 4 * MIB, "x", &err));
        assert_true(error_is(&err, "INVALID_JSON"));
        assert_error(&err, ERROR_RESOURCE_EXHAUSTED, "too many values");
    }
}

/* What the limit is for: a task's stack. */
static void *parse_deep(void *arg UNUSED)
{
    CLEANUP_FREE char *text = nested(2000, "{\"a\":[", "1", "]}");
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_JSON json_t *json = json_parse(text, strlen(text), 1 * MIB, "x", &err);

    return json;
}

static void test_deep_nesting_does_not_take_the_stack(void **state UNUSED)
{
    pthread_attr_t attributes;
    pthread_t thread;
    void *result;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * KIB);
    assert_int_equal(pthread_create(&thread, &attributes, parse_deep, NULL), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    pthread_attr_destroy(&attributes);
    assert_null(result);
}

static void test_text(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_JSON json_t *json = parse("{ \"a\" : [ 1 , null ] }", &err);
    CLEANUP_FREE char *text = json_text(json);
    CLEANUP_JSON json_t *string = json_string("x");
    CLEANUP_FREE char *string_text = json_text(string);

    assert_string_equal(text, "{\"a\":[1,null]}");
    assert_string_equal(string_text, "\"x\"");
}

static void test_strv(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_JSON json_t *json =
        parse("{\"a\": [\"x\", \"y\"], \"e\": [], \"n\": null, \"s\": \"x\","
              " \"m\": [\"x\", 1]}",
              &err);
    CLEANUP(strv_cleanup) char **a = NULL;
    CLEANUP(strv_cleanup) char **e = NULL;
    char **none = (char **)1;

    assert_true(json_strv(json_object_get(json, "a"), "Cmd", &a, &err));
    assert_int_equal(strv_count(a), 2);
    assert_string_equal(a[1], "y");
    assert_true(json_strv(json_object_get(json, "e"), "Cmd", &e, &err));
    assert_non_null(e);
    assert_int_equal(strv_count(e), 0);
    assert_true(json_strv(json_object_get(json, "n"), "Cmd", &none, &err));
    assert_null(none);
    assert_true(json_strv(NULL, "Cmd", &none, &err));
    assert_null(none);
    assert_false(json_strv(json_object_get(json, "s"), "Cmd", &none, &err));
    assert_null(none);
    assert_error(&err, ERROR_INVALID_ARGUMENT, "Cmd is not an array of strings");
    assert_false(json_strv(json_object_get(json, "m"), "Cmd", &none, &err));
    assert_null(none);
    assert_error(&err, ERROR_INVALID_ARGUMENT, "Cmd has a member that is not a string");
}

/* How many items there are, or -1; those of a list of texts are put one behind the other. */
static int walk(const char *text, size_t limit_bytes, char *ret, struct error *err)
{
    struct json_items items = {.text = text, .size = strlen(text)};
    json_t *item;
    int r, count = 0;

    *ret = '\0';
    while ((r = json_items_next(&items, limit_bytes, "x", &item, err)) > 0) {
        CLEANUP_JSON json_t *owned = item;
        CLEANUP_FREE char *one = json_text(owned);
        strcat(ret, one);
        count++;
    }
    return r < 0 ? -1 : count;
}

static void test_items(void **state UNUSED)
{
    static const char *const none[] = {
        "",      " ",      "{}",      "null",   "[",      "[{}",    "[{},",
        "[{},]", "[,{}]",  "[{} {}]", "[{}}]",  "[{}] x", "[{}][]", "[{},\"a\"]",
        "[\"]",  "[{\"]}", "[5]",     "[{}]\\", "[{\\]",  "[null]", "[{\"a\\",
    };
    CLEANUP_ERROR struct error err = {0};
    char all[200];

    assert_int_equal(walk("[]", 10, all, &err), 0);
    assert_int_equal(walk(" \n[ ] \t", 10, all, &err), 0);
    assert_int_equal(walk(" [ {\"a\": \"],\\\"}\"} , [[1],[]]\r\n,{\"b\":[{}]}] ", 20, all, &err),
                     3);
    assert_string_equal(all, "{\"a\":\"],\\\"}\"}[[1],[]]{\"b\":[{}]}");
    for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
        assert_int_equal(walk(none[i], 100, all, &err), -1);
        assert_string_equal(err.reason, "INVALID_JSON");
        error_done(&err);
    }
    assert_int_equal(walk("[{\"a\":1},{\"a\":12345}]", 8, all, &err), -1);
    assert_string_equal(all, "{\"a\":1}");
    assert_error(&err, ERROR_RESOURCE_EXHAUSTED, "x is too large: 11 bytes, the limit is 8");
}

/* All of them together may have more values than one document. */
static void test_items_have_limits_of_their_own(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_ERROR struct error err = {0};
    struct json_items items;
    json_t *item;

    for (int i = 0; i < 3; i++) {
        strbuf_add_str(&text, i ? ",[0" : "[[0");
        for (int j = 0; j < JSON_MAX_VALUES / 2; j++)
            strbuf_add_str(&text, ",0");
        strbuf_add_char(&text, ']');
    }
    strbuf_add_char(&text, ']');
    items = (struct json_items){.text = text.data, .size = text.length};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(json_items_next(&items, 1 * MIB, "x", &item, &err), 1);
        assert_int_equal(json_array_size(item), JSON_MAX_VALUES / 2 + 1);
        json_decref(item);
    }
    assert_int_equal(json_items_next(&items, 1 * MIB, "x", &item, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_getters),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_size_limit),
        cmocka_unit_test(test_depth_limit),
        cmocka_unit_test(test_values_limit),
        cmocka_unit_test(test_brackets_in_strings_are_no_levels),
        cmocka_unit_test(test_deep_nesting_does_not_take_the_stack),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_strv),
        cmocka_unit_test(test_items),
        cmocka_unit_test(test_items_have_limits_of_their_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
