#include "client/ui/template_value.h"

#include "client/ui/unicode.h"

/* --- Types -------------------------------------------------------------------------------------
 */

#define TYPE(what, go_name, of)                            \
    {                                                      \
        .kind = (what), .name = (go_name), .element = (of) \
    }

static const struct template_field no_fields[] = {{.name = NULL}};
static const struct template_type empty = {.kind = TYPE_STRUCT,
                                           .name = "struct {}",
                                           .fields = no_fields};

const struct template_type template_any = TYPE(TYPE_ANY, "interface {}", NULL),
                           template_bool = TYPE(TYPE_BOOL, "bool", NULL),
                           template_int = TYPE(TYPE_INT, "int", NULL),
                           template_int64 = TYPE(TYPE_INT, "int64", NULL),
                           template_byte = TYPE(TYPE_INT, "uint8", NULL),
                           template_float = TYPE(TYPE_FLOAT, "float64", NULL),
                           template_string = TYPE(TYPE_STRING, "string", NULL),
                           template_time = TYPE(TYPE_TIME, "time.Time", NULL),
                           template_duration = TYPE(TYPE_INT, "time.Duration", NULL),
                           template_strings = TYPE(TYPE_SLICE, "[]string", &template_string),
                           template_string_map =
                               TYPE(TYPE_MAP, "map[string]string", &template_string),
                           template_set = TYPE(TYPE_MAP, "map[string]struct {}", &empty);

static const struct template_type number = TYPE(TYPE_NUMBER, "json.Number", NULL),
                                  any_slice = TYPE(TYPE_SLICE, "[]interface {}", &template_any),
                                  any_map =
                                      TYPE(TYPE_MAP, "map[string]interface {}", &template_any);

/* What an interface {} holds. */
static const struct template_type *type_of(const struct evaluation *evaluation, const json_t *json)
{
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return &any_map;
    case JSON_ARRAY:
        return &any_slice;
    case JSON_STRING:
        return &template_string;
    case JSON_INTEGER:
        return evaluation->raw ? &number : &template_int;
    case JSON_REAL:
        return evaluation->raw ? &number : &template_float;
    default:
        return &template_bool;
    }
}

static bool fits(const struct template_type *type, const json_t *json)
{
    switch (type->kind) {
    case TYPE_BOOL:
        return json_is_boolean(json);
    case TYPE_INT:
        return json_is_integer(json);
    case TYPE_FLOAT:
    case TYPE_NUMBER:
        return json_is_number(json);
    case TYPE_STRING:
    case TYPE_TIME:
        return json_is_string(json);
    case TYPE_SLICE:
        return json_is_array(json);
    default:
        return json_is_object(json);
    }
}

/* --- Making them -------------------------------------------------------------------------------
 */

struct value value_of(const struct evaluation *evaluation, const struct template_type *type,
                      const json_t *json)
{
    if (!json || json_is_null(json))
        return (struct value){type, NULL, .boxed = type->kind == TYPE_ANY, .foreign = true};
    if (type->kind == TYPE_ANY)
        return (struct value){type_of(evaluation, json), json, .boxed = true, .foreign = true};
    return (struct value){type, fits(type, json) ? json : NULL, .boxed = false, .foreign = true};
}

const json_t *value_keep(struct evaluation *evaluation, json_t *json, size_t bytes)
{
    evaluation->made_bytes += bytes + 64;
    json_array_append_new(evaluation->made, json);
    return json;
}

struct value value_bool(bool truth)
{
    return (struct value){.type = &template_bool, .json = json_boolean(truth)};
}

struct value value_int(struct evaluation *evaluation, int64_t integer)
{
    return (struct value){.type = &template_int,
                          .json = value_keep(evaluation, json_integer(integer), 0)};
}

struct value value_byte(struct evaluation *evaluation, unsigned char byte, bool foreign)
{
    return (struct value){.type = &template_byte,
                          .json = value_keep(evaluation, json_integer(byte), 0),
                          .foreign = foreign};
}

struct value value_float(struct evaluation *evaluation, double real)
{
    return (struct value){.type = &template_float,
                          .json = value_keep(evaluation, json_real(real), 0)};
}

/* Go's strings are any bytes. */
struct value value_text(struct evaluation *evaluation, const char *text, size_t length,
                        bool foreign)
{
    return (struct value){
        .type = &template_string,
        .json = value_keep(evaluation, json_stringn_nocheck(text, length), length),
        .foreign = foreign,
    };
}

struct value value_strings(struct evaluation *evaluation, json_t *array, bool foreign)
{
    const size_t bytes = json_array_size(array) * 64;

    return (struct value){.type = &template_strings,
                          .json = value_keep(evaluation, array, bytes),
                          .foreign = foreign};
}

/* --- Looking into them -------------------------------------------------------------------------
 */

bool value_is_nil(const struct value *value)
{
    return !value->type ||
           (!value->json && (value->type->kind == TYPE_ANY || value->type->kind == TYPE_POINTER));
}

bool value_is_text(const struct value *value)
{
    return value->type && (value->type->kind == TYPE_STRING || value->type->kind == TYPE_NUMBER);
}

int64_t value_integer(const struct value *value)
{
    return json_integer_value(value->json);
}

double value_real(const struct value *value)
{
    return json_number_value(value->json);
}

char *value_string(const struct value *value, size_t *ret_length)
{
    const char *text = json_string_value(value->json);
    char *copy;

    if (json_is_number(value->json)) {
        CLEANUP_STRBUF struct strbuf digits = {0};
        const struct evaluation plain = {.raw = false};
        value_json(&plain, value, &digits);
        *ret_length = digits.length;
        return strbuf_take(&digits);
    }
    *ret_length = text ? json_string_length(value->json) : 0;
    copy = xcalloc(1, *ret_length + 1);
    memcpy(copy, text ? text : "", *ret_length);
    return copy;
}

size_t value_length(const struct value *value)
{
    size_t length = json_array_size(value->json) + json_object_size(value->json);

    if (value_is_text(value))
        free(value_string(value, &length));
    return length;
}

bool value_truth(const struct value *value)
{
    if (value_is_nil(value))
        return false;
    switch (value->type->kind) {
    case TYPE_BOOL:
        return json_is_true(value->json);
    case TYPE_INT:
        return value_integer(value) != 0;
    case TYPE_FLOAT:
        return value_real(value) < 0 || value_real(value) > 0;
    case TYPE_STRING:
    case TYPE_NUMBER:
    case TYPE_SLICE:
    case TYPE_MAP:
        return value_length(value) > 0;
    default:
        return true;
    }
}

/* As the element that it is of something. */
static struct value part_of(const struct evaluation *evaluation, const struct value *whole,
                            const struct template_type *type, const json_t *json)
{
    struct value value = value_of(evaluation, type, json);

    value.foreign = whole->foreign;
    return value;
}

struct value value_at(const struct evaluation *evaluation, const struct value *list, size_t index)
{
    return part_of(evaluation, list, list->type->element, json_array_get(list->json, index));
}

struct value value_member(const struct evaluation *evaluation, const struct value *map,
                          const char *key, size_t length)
{
    const json_t *json = json_object_getn(map->json, key, length);

    return json ? part_of(evaluation, map, map->type->element, json) : (struct value){.json = NULL};
}

bool value_field(const struct evaluation *evaluation, const struct value *value, const char *name,
                 struct value *ret)
{
    const struct template_type *type = value->type;
    const json_t *json;

    if (type->kind == TYPE_POINTER)
        type = type->element;
    if (type->kind == TYPE_ROW) {
        json = json_object_get(value->json, name);
        *ret = part_of(evaluation, value, &template_any, json);
        ret->boxed = false;
        return json != NULL;
    }
    if (type->kind != TYPE_STRUCT)
        return false;
    for (const struct template_field *field = type->fields; field->name; field++) {
        const struct value embedded = part_of(evaluation, value, field->type, value->json);
        if (str_eq(field->name, name)) {
            json = field->key ? json_object_get(value->json, field->key) : value->json;
            *ret = part_of(evaluation, value, field->type, json);
            return true;
        }
        if (!field->key && value_field(evaluation, &embedded, name, ret))
            return true;
    }
    return false;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

const char **value_keys(const struct value *map)
{
    json_t *object = (json_t *)map->json;
    const char **keys = xcalloc(json_object_size(object) + 1, sizeof(*keys));
    size_t count = 0;

    for (void *i = json_object_iter(object); i; i = json_object_iter_next(object, i))
        keys[count++] = json_object_iter_key(i);
    qsort(keys, count, sizeof(*keys), compare_keys);
    return keys;
}

/* --- As text -----------------------------------------------------------------------------------
 */

void add_clean(const struct evaluation *evaluation, struct strbuf *out, const char *text,
               size_t length)
{
    uint32_t c;

    for (size_t i = 0, used; i < length; i += used) {
        used = unicode_read(text + i, length - i, &c);
        const bool layout = c == '\n' || c == '\t' || c == '\r';
        if (layout && (evaluation->one_line || c == '\r'))
            strbuf_add_str(out, c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r");
        else if (!layout && (c < 0x20 || (c >= 0x7f && c < 0xa0)))
            strbuf_addf(out, "\\u%04x", c);
        else
            unicode_add(out, c);
    }
}
