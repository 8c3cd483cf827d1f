/* Go's own functions and those of Docker's command line. */
#include <stdio.h>

#include "client/ui/template_value.h"
#include "client/ui/unicode.h"

#define PARTS_MAX 100000 /* of split */

typedef struct evaluation evaluation;
typedef const struct value *arguments;

/* --- Comparison --------------------------------------------------------------------------------
 */

/* Go compares what is of one of these; others are KIND_OTHER. */
enum kind { KIND_OTHER, KIND_BOOL, KIND_INT, KIND_FLOAT, KIND_STRING };

static enum kind kind_of(const struct value *value)
{
    switch (value->type ? value->type->kind : TYPE_ANY) {
    case TYPE_BOOL:
        return KIND_BOOL;
    case TYPE_INT:
        return KIND_INT;
    case TYPE_FLOAT:
        return KIND_FLOAT;
    case TYPE_STRING:
    case TYPE_NUMBER:
        return KIND_STRING;
    default:
        return KIND_OTHER;
    }
}

/* Of the same kind. Below, at or above 0. */
static int compare(const struct value *a, const struct value *b)
{
    size_t a_length, b_length;
    int difference;

    switch (kind_of(a)) {
    case KIND_BOOL:
        return json_is_true(a->json) - json_is_true(b->json);
    case KIND_INT:
        return (value_integer(a) > value_integer(b)) - (value_integer(a) < value_integer(b));
    case KIND_FLOAT:
        return (value_real(a) > value_real(b)) - (value_real(a) < value_real(b));
    default:
        break;
    }
    CLEANUP_FREE char *a_text = value_string(a, &a_length);
    CLEANUP_FREE char *b_text = value_string(b, &b_length);
    difference = memcmp(a_text, b_text, MIN(a_length, b_length));
    return difference ? difference : (a_length > b_length) - (a_length < b_length);
}

static bool is_comparable(const struct template_type *type)
{
    if (type->kind != TYPE_STRUCT)
        return type->kind != TYPE_SLICE && type->kind != TYPE_MAP;
    for (const struct template_field *field = type->fields; field->name; field++) {
        if (!is_comparable(field->type))
            return false;
    }
    return true;
}

static bool is_empty_value(const struct value *value)
{
    return value_is_nil(value) ||
           (!value->json && (value->type->kind == TYPE_SLICE || value->type->kind == TYPE_MAP));
}

static bool are_incompatible(evaluation *e, arguments a, arguments b)
{
    return function_failed(e, "incompatible types for comparison: %s and %s", a->type->name,
                           b->type->name);
}

/* Of two that are no numbers, strings or truths: only nil can be told. */
static bool others_are_equal(evaluation *e, arguments a, arguments b, bool *ret)
{
    CLEANUP_STRBUF struct strbuf text = {0};

    *ret = false;
    if (is_empty_value(a) || is_empty_value(b)) {
        *ret = is_empty_value(a) && is_empty_value(b);
        return true;
    }
    if (is_comparable(a->type) && is_comparable(b->type)) {
        *ret = a->type == b->type &&
               (a->type->kind == TYPE_POINTER ? a->json == b->json : json_equal(a->json, b->json));
        return true;
    }
    if (str_eq(a->type->name, b->type->name)) {
        value_printf(e, "%s", 2, b, 1, &text);
        return function_failed(e, "non-comparable type %s: %s", strbuf_text(&text), b->type->name);
    }
    value_printf(e, "%s", 2, a, 1, &text);
    strbuf_addf(&text, ": %s, %s: ", a->type->name, b->type->name);
    value_print(e, b, &text);
    return function_failed(e, "non-comparable types %s", strbuf_text(&text));
}

static bool are_equal(evaluation *e, arguments a, arguments b, bool *ret)
{
    const enum kind kind = kind_of(a);

    *ret = false;
    if (kind == kind_of(b) && kind == KIND_OTHER)
        return others_are_equal(e, a, b, ret);
    if (kind != kind_of(b))
        return value_is_nil(a) || value_is_nil(b) || are_incompatible(e, a, b);
    *ret = compare(a, b) == 0;
    return true;
}

static bool do_eq(evaluation *e, arguments a, size_t count, struct value *ret)
{
    bool equal = false;

    if (count < 2)
        return function_failed(e, "missing argument for comparison");
    for (size_t i = 1; i < count && !equal; i++) {
        if (!are_equal(e, &a[0], &a[i], &equal))
            return false;
    }
    *ret = value_bool(equal);
    return true;
}

static bool do_ne(evaluation *e, arguments a, size_t count UNUSED, struct value *ret)
{
    bool equal;
    const bool known = are_equal(e, &a[0], &a[1], &equal);

    *ret = value_bool(!equal);
    return known;
}

/* Whether the first is less than, equal to or greater than the second, as far as asked for. */
static bool order(evaluation *e, arguments a, const char *wanted, struct value *ret)
{
    const enum kind kind = kind_of(&a[0]), other = kind_of(&a[1]);
    int difference;

    if (kind == KIND_OTHER || other == KIND_OTHER || (kind == other && kind == KIND_BOOL))
        return function_failed(e, "invalid type for comparison");
    if (kind != other)
        return are_incompatible(e, &a[0], &a[1]);
    difference = compare(&a[0], &a[1]);
    *ret = value_bool(strchr(wanted, difference < 0 ? '<' : difference > 0 ? '>' : '=') != NULL);
    return true;
}

static bool do_lt(evaluation *e, arguments a, size_t count UNUSED, struct value *ret)
{
    return order(e, a, "<", ret);
}

static bool do_le(evaluation *e, arguments a, size_t count UNUSED, struct value *ret)
{
    return order(e, a, "<=", ret);
}

static bool do_gt(evaluation *e, arguments a, size_t count UNUSED, struct value *ret)
{
    return order(e, a, ">", ret);
}

static bool do_ge(evaluation *e, arguments a, size_t count UNUSED, struct value *ret)
{
    return order(e, a, ">=", ret);
}

static bool do_not(evaluation *e UNUSED, arguments a, size_t count UNUSED, struct value *ret)
{
    *ret = value_bool(!value_truth(&a[0]));
    return true;
}

/* The evaluator works them out, as it need not look at all arguments. */
static bool do_and_or(evaluation *e UNUSED, arguments a, size_t count, struct value *ret)
{
    *ret = a[count - 1];
    return true;
}

/* Without the pointer, if it is to one. */
static const char *pointed_name(const struct template_type *type)
{
    if (type->kind == TYPE_POINTER)
        return type->element->name;
    return type->name + (type->kind == TYPE_ROW && *type->name == '*');
}

/* --- Parts -------------------------------------------------------------------------------------
 */

/* No value, or an empty interface. */
static bool is_nothing(const struct value *value)
{
    return !value->type || value->type->kind == TYPE_ANY;
}

static bool take_index(evaluation *e, const struct value *index, size_t limit, size_t *ret)
{
    if (!index->type)
        return function_failed(e, "cannot index slice/array with nil");
    if (index->boxed || index->type->kind != TYPE_INT)
        return function_failed(e, "cannot index slice/array with type %s",
                               index->boxed ? "interface {}" : index->type->name);
    *ret = (size_t)value_integer(index);
    return (value_integer(index) >= 0 && *ret <= limit) ||
           function_failed(e, "index out of range: %lld", (long long)value_integer(index));
}

static bool index_list(evaluation *e, const struct value *list, const struct value *index,
                       struct value *ret)
{
    const size_t length = value_length(list);
    struct value number = *index;
    size_t at, used;

    if (is_nothing(index))
        number.type = NULL;
    number.boxed = false;
    if (!take_index(e, &number, length, &at))
        return false;
    if (at == length)
        return function_failed(e, "reflect: %s index out of range",
                               value_is_text(list) ? "string" : "slice");
    if (value_is_text(list)) {
        CLEANUP_FREE char *text = value_string(list, &used);
        *ret = value_byte(e, (unsigned char)text[at], list->foreign);
    } else {
        *ret = value_at(e, list, at);
    }
    return true;
}

static bool index_map(evaluation *e, const struct value *map, const struct value *index,
                      struct value *ret)
{
    size_t length;

    if (is_nothing(index))
        return function_failed(e, "value is nil; should be of type string");
    if (index->type->kind != TYPE_STRING)
        return function_failed(e, "value has type %s; should be string", index->type->name);
    CLEANUP_FREE char *key = value_string(index, &length);
    *ret = value_member(e, map, key, length);
    if (!ret->type)
        *ret = value_of(e, map->type->element, NULL);
    return true;
}

static bool do_index(evaluation *e, arguments a, size_t count, struct value *ret)
{
    *ret = a[0];
    if (is_nothing(ret))
        return function_failed(e, "index of untyped nil");
    for (size_t i = 1; i < count; i++) {
        const struct value item = *ret;
        if (value_is_nil(&item))
            return function_failed(e, "index of nil pointer");
        if (value_is_text(&item) || item.type->kind == TYPE_SLICE) {
            if (!index_list(e, &item, &a[i], ret))
                return false;
        } else if (item.type->kind != TYPE_MAP) {
            return function_failed(e, "can't index item of type %s", pointed_name(item.type));
        } else if (!index_map(e, &item, &a[i], ret)) {
            return false;
        }
    }
    return true;
}

static struct value part(evaluation *e, const struct value *value, size_t from, size_t to)
{
    struct value result = *value;
    json_t *array;
    size_t length;

    if (value_is_text(value)) {
        CLEANUP_FREE char *text = value_string(value, &length);
        result = value_text(e, text + from, to - from, value->foreign);
        result.type = value->type;
        return result;
    }
    array = json_array();
    for (size_t i = from; i < to; i++)
        json_array_append(array, json_array_get(value->json, i));
    result.json = value_keep(e, array, (to - from) * sizeof(json_t *));
    return result;
}

static bool do_slice(evaluation *e, arguments a, size_t count, struct value *ret)
{
    const struct value *item = &a[0];
    const size_t length = value_length(item);
    size_t at[3] = {0, length, length};

    if (is_nothing(item))
        return function_failed(e, "slice of untyped nil");
    if (count > 4)
        return function_failed(e, "too many slice indexes: %zu", count - 1);
    if (value_is_text(item) && count == 4)
        return function_failed(e, "cannot 3-index slice a string");
    if (!value_is_text(item) && item->type->kind != TYPE_SLICE)
        return function_failed(e, "can't slice item of type %s", item->type->name);
    for (size_t i = 0; i + 1 < count; i++) {
        if (!take_index(e, &a[i + 1], length, &at[i]))
            return false;
        if (i > 0 && at[i - 1] > at[i])
            return function_failed(e, "invalid slice index: %zu > %zu", at[i - 1], at[i]);
    }
    *ret = part(e, item, at[0], at[1]);
    return true;
}

static bool do_len(evaluation *e, arguments a, size_t count UNUSED, struct value *ret)
{
    const struct template_type *type = a[0].type;

    if (!type)
        return function_failed(e, "reflect: call of reflect.Value.Type on zero Value");
    if (value_is_nil(&a[0]))
        return function_failed(e, "len of nil pointer");
    if (!value_is_text(&a[0]) && type->kind != TYPE_SLICE && type->kind != TYPE_MAP)
        return function_failed(e, "len of type %s", pointed_name(type));
    *ret = value_int(e, (int64_t)value_length(&a[0]));
    return true;
}

/* Nothing that Docker shows can be called. */
static bool do_call(evaluation *e, arguments a, size_t count UNUSED, struct value *ret UNUSED)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    const struct node *callee = e->call->children ? e->call->children->next : NULL;

    if (value_is_nil(&a[0]))
        return function_failed(e, "call of nil");
    if (callee)
        node_describe(callee, &text);
    else
        value_print(e, &a[0], &text);
    return function_failed(e, "non-function %s of type %s", strbuf_text(&text), a[0].type->name);
}

/* --- Printing ----------------------------------------------------------------------------------
 */

/* The user's own text is as it is; what is of the data was made printable. */
static bool give(evaluation *e, const struct strbuf *text, bool foreign, struct value *ret)
{
    if (is_too_long(text))
        return function_failed(e, "the result is too long: the limit is %llu bytes",
                               TEMPLATE_OUTPUT_MAX);
    *ret = value_text(e, strbuf_text(text), text->length, foreign);
    return true;
}

static bool is_string(const struct value *value)
{
    return value->type && value->type->kind == TYPE_STRING;
}

/* Go's Sprint: blanks between two of which neither is a string. */
static void add_sprint(evaluation *e, arguments a, size_t count, struct strbuf *out)
{
    for (size_t i = 0; i < count && !is_too_long(out); i++) {
        if (i && !value_is_text(&a[i - 1]) && !value_is_text(&a[i]))
            strbuf_add_char(out, ' ');
        value_print(e, &a[i], out);
    }
}

static bool do_print(evaluation *e, arguments a, size_t count, struct value *ret)
{
    CLEANUP_STRBUF struct strbuf text = {0};

    add_sprint(e, a, count, &text);
    return give(e, &text, false, ret);
}

static bool do_println(evaluation *e, arguments a, size_t count, struct value *ret)
{
    CLEANUP_STRBUF struct strbuf text = {0};

    for (size_t i = 0; i < count && !is_too_long(&text); i++) {
        strbuf_add_str(&text, i ? " " : "");
        value_print(e, &a[i], &text);
    }
    strbuf_add_char(&text, '\n');
    return give(e, &text, false, ret);
}

static bool do_printf(evaluation *e, arguments a, size_t count, struct value *ret)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    size_t length;
    CLEANUP_FREE char *format = value_string(&a[0], &length);

    value_printf(e, format, length, a + 1, count - 1, &text);
    return give(e, &text, a[0].foreign, ret);
}

static bool do_json(evaluation *e, arguments a, size_t count UNUSED, struct value *ret)
{
    CLEANUP_STRBUF struct strbuf text = {0};

    value_json(e, &a[0], &text);
    return give(e, &text, false, ret);
}

/* What html, js and urlquery make safe. The caller frees it. */
static char *escapable(evaluation *e, arguments a, size_t count, size_t *ret_length)
{
    CLEANUP_STRBUF struct strbuf text = {0};

    if (count == 1 && is_string(&a[0]))
        return value_string(&a[0], ret_length);
    for (size_t i = 0; i < count && !is_too_long(&text); i++) {
        if (i && !value_is_text(&a[i - 1]) && !value_is_text(&a[i]) && !value_is_nil(&a[i - 1]) &&
            !value_is_nil(&a[i]))
            strbuf_add_char(&text, ' ');
        if (!a[i].type || (value_is_nil(&a[i]) && a[i].type->kind == TYPE_ANY))
            strbuf_add_str(&text, "<no value>");
        else
            value_print_pointed(e, &a[i], &text);
    }
    *ret_length = text.length;
    return strbuf_take(&text);
}

static bool is_foreign(arguments a, size_t count)
{
    bool foreign = false;

    for (size_t i = 0; i < count; i++)
        foreign |= a[i].foreign;
    return foreign;
}

static bool do_html(evaluation *e, arguments a, size_t count, struct value *ret)
{
    static const char special[] = "\"'&<>";
    static const char *const escapes[] = {"&#34;", "&#39;", "&amp;", "&lt;", "&gt;"};
    CLEANUP_STRBUF struct strbuf out = {0};
    size_t length;
    CLEANUP_FREE char *text = escapable(e, a, count, &length);

    for (size_t i = 0; i < length; i++) {
        const char *found = text[i] ? strchr(special, text[i]) : NULL;
        if (found)
            strbuf_add_str(&out, escapes[found - special]);
        else if (text[i])
            strbuf_add_char(&out, text[i]);
        else
            strbuf_add_str(&out, "\xef\xbf\xbd");
    }
    return give(e, &out, is_foreign(a, count), ret);
}

static void add_js(struct strbuf *out, uint32_t c)
{
    if (c == '\\' || c == '\'' || c == '"')
        strbuf_addf(out, "\\%c", (char)c);
    else if (c < ' ' || c == '<' || c == '>' || c == '&' || c == '=')
        strbuf_addf(out, "\\u%04X", c);
    else if (c < 0x80 || unicode_is_printable(c))
        unicode_add(out, c);
    else
        strbuf_addf(out, "\\u%04X", c);
}

static bool do_js(evaluation *e, arguments a, size_t count, struct value *ret)
{
    CLEANUP_STRBUF struct strbuf out = {0};
    size_t length;
    CLEANUP_FREE char *text = escapable(e, a, count, &length);
    uint32_t c;

    for (size_t i = 0; i < length;) {
        i += unicode_read(text + i, length - i, &c);
        add_js(&out, c);
    }
    return give(e, &out, is_foreign(a, count), ret);
}

static bool do_urlquery(evaluation *e, arguments a, size_t count, struct value *ret)
{
    CLEANUP_STRBUF struct strbuf out = {0};
    size_t length;
    CLEANUP_FREE char *text = escapable(e, a, count, &length);

    for (size_t i = 0; i < length; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c == ' ')
            strbuf_add_char(&out, '+');
        else if (c && (strchr("-_.~", c) || (c < 0x80 && unicode_is_letter(c))))
            strbuf_add_char(&out, (char)c);
        else
            strbuf_addf(&out, "%%%02X", c);
    }
    return give(e, &out, false, ret);
}

/* --- Docker's ----------------------------------------------------------------------------------
 */

static bool change_case(evaluation *e, arguments a, uint32_t (*change)(uint32_t), bool words,
                        struct value *ret)
{
    CLEANUP_STRBUF struct strbuf out = {0};
    size_t length;
    CLEANUP_FREE char *text = value_string(&a[0], &length);
    bool first = true;
    uint32_t c;

    for (size_t i = 0; i < length;) {
        i += unicode_read(text + i, length - i, &c);
        unicode_add(&out, !words || first ? change(c) : c);
        first = c < 0x80 ? c != '_' && !unicode_is_letter(c) : c == 0xa0 || c == 0x3000;
    }
    return give(e, &out, a[0].foreign, ret);
}

static bool do_lower(evaluation *e, arguments a, size_t count UNUSED, struct value *ret)
{
    return change_case(e, a, unicode_lower, false, ret);
}

static bool do_upper(evaluation *e, arguments a, size_t count UNUSED, struct value *ret)
{
    return change_case(e, a, unicode_upper, false, ret);
}

static bool do_title(evaluation *e, arguments a, size_t count UNUSED, struct value *ret)
{
    return change_case(e, a, unicode_upper, true, ret);
}

/* To so many characters: Docker counts bytes, and may leave half a character. */
static bool do_truncate(evaluation *e, arguments a, size_t count UNUSED, struct value *ret)
{
    const int64_t wanted = value_integer(&a[1]);
    size_t length, end = 0;
    CLEANUP_FREE char *text = value_string(&a[0], &length);
    uint32_t c;

    if (wanted < 0)
        return function_failed(e, "runtime error: slice bounds out of range [:%lld]",
                               (long long)wanted);
    for (int64_t i = 0; i < wanted && end < length; i++)
        end += unicode_read(text + end, length - end, &c);
    *ret = value_text(e, text, end, a[0].foreign);
    return true;
}

static bool do_pad(evaluation *e, arguments a, size_t count UNUSED, struct value *ret)
{
    const int64_t before = value_integer(&a[1]), after = value_integer(&a[2]);
    CLEANUP_STRBUF struct strbuf out = {0};
    size_t length;
    CLEANUP_FREE char *text = value_string(&a[0], &length);

    if (length && (before < 0 || after < 0))
        return function_failed(e, "strings: negative Repeat count");
    if (length && MAX(before, after) > (int64_t)TEMPLATE_OUTPUT_MAX)
        return function_failed(e, "the result is too long: the limit is %llu bytes",
                               TEMPLATE_OUTPUT_MAX);
    for (int64_t i = 0; length && i < before; i++)
        strbuf_add_char(&out, ' ');
    strbuf_add(&out, text, length);
    for (int64_t i = 0; length && i < after; i++)
        strbuf_add_char(&out, ' ');
    return give(e, &out, a[0].foreign, ret);
}

static bool do_join(evaluation *e, arguments a, size_t count UNUSED, struct value *ret)
{
    CLEANUP_STRBUF struct strbuf out = {0};
    size_t length;
    CLEANUP_FREE char *between = value_string(&a[1], &length);

    for (size_t i = 0; i < json_array_size(a[0].json) && !is_too_long(&out); i++) {
        const struct value element = value_at(e, &a[0], i);
        if (i)
            strbuf_add(&out, between, length);
        value_print(e, &element, &out);
    }
    return give(e, &out, a[1].foreign, ret);
}

/* Where the next part ends; without a separator after each character. */
static size_t part_end(const char *text, size_t length, const char *separator, size_t size)
{
    uint32_t c;
    const char *found = size ? memmem(text, length, separator, size) : NULL;

    if (size == 0)
        return unicode_read(text, length, &c);
    return found ? (size_t)(found - text) : length;
}

static bool do_split(evaluation *e, arguments a, size_t count UNUSED, struct value *ret)
{
    size_t length, size, end;
    CLEANUP_FREE char *text = value_string(&a[0], &length);
    CLEANUP_FREE char *separator = value_string(&a[1], &size);
    CLEANUP_JSON json_t *list = json_array();
    const char *start = text;

    while (length || size) {
        end = part_end(start, length, separator, size);
        json_array_append_new(list, json_stringn_nocheck(start, end));
        if (json_array_size(list) > PARTS_MAX)
            return function_failed(e, "too many parts: the limit is %d", PARTS_MAX);
        if (end == length)
            break;
        start += end + size;
        length -= end + size;
    }
    *ret = value_strings(e, json_incref(list), a[0].foreign);
    return true;
}

/* In the heading of a table Docker's functions leave the column's name as it is. */
static bool do_nothing(evaluation *e UNUSED, arguments a, size_t count UNUSED, struct value *ret)
{
    *ret = a[0];
    return true;
}

/* --- All of them -------------------------------------------------------------------------------
 */

static const struct function functions[] = {
    {"and", "v", 'v', do_and_or},
    {"call", "v", 'v', do_call},
    {"eq", "v", 'v', do_eq},
    {"ge", "vv", 0, do_ge},
    {"gt", "vv", 0, do_gt},
    {"html", "", 'a', do_html},
    {"index", "v", 'v', do_index},
    {"join", "ls", 0, do_join},
    {"js", "", 'a', do_js},
    {"json", "a", 0, do_json},
    {"le", "vv", 0, do_le},
    {"len", "v", 0, do_len},
    {"lower", "s", 0, do_lower},
    {"lt", "vv", 0, do_lt},
    {"ne", "vv", 0, do_ne},
    {"not", "v", 0, do_not},
    {"or", "v", 'v', do_and_or},
    {"pad", "sii", 0, do_pad},
    {"print", "", 'a', do_print},
    {"printf", "s", 'a', do_printf},
    {"println", "", 'a', do_println},
    {"slice", "v", 'v', do_slice},
    {"split", "ss", 0, do_split},
    {"title", "s", 0, do_title},
    {"truncate", "si", 0, do_truncate},
    {"upper", "s", 0, do_upper},
    {"urlquery", "", 'a', do_urlquery},
};

static const struct function heading_functions[] = {
    {"join", "ss", 0, do_nothing},     {"json", "s", 0, do_nothing},  {"lower", "s", 0, do_nothing},
    {"split", "ss", 0, do_nothing},    {"title", "s", 0, do_nothing}, {"upper", "s", 0, do_nothing},
    {"truncate", "si", 0, do_nothing},
};

static const struct function *find(const struct function *all, size_t count, const char *name,
                                   size_t length)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(all[i].name) == length && memcmp(all[i].name, name, length) == 0)
            return &all[i];
    }
    return NULL;
}

const struct function *function_find(const char *name, size_t length, bool heading)
{
    const struct function *function =
        heading ? find(heading_functions, ARRAY_SIZE(heading_functions), name, length) : NULL;

    return function ? function : find(functions, ARRAY_SIZE(functions), name, length);
}

bool template_has_function(const char *name, size_t length)
{
    return function_find(name, length, false) != NULL;
}
