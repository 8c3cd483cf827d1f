#include "proto/base/json.h"

struct shape {
    size_t deepest; /* levels of arrays and objects */
    size_t values;  /* about: every bracket and comma begins one */
};

/* Looks at what is outside of strings only, and no further than both limits; what is not JSON is
 * the parser's to refuse. */
static struct shape shape_of(const char *text, size_t size)
{
    struct shape shape = {0};
    size_t depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < size && shape.deepest <= JSON_MAX_DEPTH; i++) {
        char c = text[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            depth++;
            shape.values++;
            shape.deepest = MAX(shape.deepest, depth);
        } else if (c == ',') {
            shape.values++;
        } else if ((c == ']' || c == '}') && depth) {
            depth--;
        }
    }
    return shape;
}

static bool check_shape(const char *text, size_t size, const char *what, struct error *err)
{
    struct shape shape = shape_of(text, size);

    if (shape.deepest > JSON_MAX_DEPTH)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "INVALID_JSON",
                         "%s is nested too deeply: the limit is %d levels", what, JSON_MAX_DEPTH);
    if (shape.values > JSON_MAX_VALUES)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "INVALID_JSON",
                         "%s has too many values: the limit is %d", what, JSON_MAX_VALUES);
    return true;
}

json_t *json_parse(const void *data, size_t size, size_t limit_bytes, const char *what,
                   struct error *err)
{
    json_error_t problem;
    json_t *json;

    if (size > limit_bytes) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "INVALID_JSON",
                  "%s is too large: %zu bytes, the limit is %zu", what, size, limit_bytes);
        return NULL;
    }
    if (!check_shape(data, size, what, err))
        return NULL;
    json = json_loadb(data, size, JSON_REJECT_DUPLICATES, &problem);
    if (!json) {
        error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_JSON",
                  "%s is not valid JSON: line %d, column %d: %s", what, problem.line,
                  problem.column, problem.text);
    }
    return json;
}

static void skip_space(struct json_items *items)
{
    while (items->at < items->size && items->text[items->at] &&
           strchr(" \t\r\n", items->text[items->at]))
        items->at++;
}

static bool take_char(struct json_items *items, char c)
{
    if (items->at == items->size || items->text[items->at] != c)
        return false;
    items->at++;
    skip_space(items);
    return true;
}

/* Where an item ends, if it is JSON. */
static size_t item_end(const struct json_items *items)
{
    size_t depth = 0, at = items->at;
    bool in_string = false;

    for (; at < items->size; at++) {
        char c = items->text[at];
        if (in_string) {
            at += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            depth++;
        } else if (depth == 0 && (c == ',' || c == ']' || c == '}')) {
            break;
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return MIN(at, items->size);
}

static int no_array(const struct json_items *items, const char *what, struct error *err)
{
    error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_JSON",
              "%s is not valid JSON: not an array at byte %zu", what, items->at);
    return -1;
}

int json_items_next(struct json_items *items, size_t limit_bytes, const char *what, json_t **ret,
                    struct error *err)
{
    bool first = !items->begun;
    size_t begin;

    *ret = NULL;
    if (first) {
        skip_space(items);
        if (!take_char(items, '['))
            return no_array(items, what, err);
        items->begun = true;
    }
    if (take_char(items, ']'))
        return items->at == items->size ? 0 : no_array(items, what, err);
    if (!first && !take_char(items, ','))
        return no_array(items, what, err);
    begin = items->at;
    items->at = item_end(items);
    *ret = json_parse(items->text + begin, items->at - begin, limit_bytes, what, err);
    return *ret ? 1 : -1;
}

const char *json_str(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

int64_t json_int(const json_t *object, const char *key, int64_t fallback)
{
    const json_t *value = json_object_get(object, key);

    return json_is_integer(value) ? json_integer_value(value) : fallback;
}

bool json_bool(const json_t *object, const char *key, bool fallback)
{
    const json_t *value = json_object_get(object, key);

    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

char *json_text(const json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);

    if (!text)
        die("cannot encode JSON");
    return text;
}

bool json_strv(const json_t *array, const char *what, char ***ret, struct error *err)
{
    size_t count = json_array_size(array);
    CLEANUP(strv_cleanup) char **strv = NULL;

    *ret = NULL;
    if (!array || json_is_null(array))
        return true;
    if (!json_is_array(array)) {
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_JSON",
                         "%s is not an array of strings", what);
    }
    strv = xcalloc(count + 1, sizeof(*strv));
    for (size_t i = 0; i < count; i++) {
        const char *value = json_string_value(json_array_get(array, i));
        if (!value) {
            return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_JSON",
                             "%s has a member that is not a string", what);
        }
        strv[i] = xstrdup(value);
    }
    *ret = TAKE(strv);
    return true;
}
