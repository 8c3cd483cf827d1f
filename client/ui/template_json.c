/* JSON as Go's encoding/json writes it, but safe for terminals. */
#include <math.h>
#include <stdio.h>

#include "client/ui/template_value.h"
#include "client/ui/unicode.h"

static void add_character(struct strbuf *out, uint32_t c, bool html)
{
    static const char letters[] = "btn\vfr"; /* from \b on; there is none for \v */

    if (c == '"' || c == '\\')
        strbuf_addf(out, "\\%c", (char)c);
    else if (c >= '\b' && c <= '\r' && c != '\v')
        strbuf_addf(out, "\\%c", letters[c - '\b']);
    else if (c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 ||
             (html && (c == '<' || c == '>' || c == '&')))
        strbuf_addf(out, "\\u%04x", c);
    else
        unicode_add(out, c);
}

/* With html Go's Marshal() of what writes its own JSON: Docker's rows. */
static void add_string(struct strbuf *out, const char *text, size_t length, bool html)
{
    uint32_t c;

    strbuf_add_char(out, '"');
    for (size_t i = 0; i < length;) {
        const size_t used = unicode_read(text + i, length - i, &c);
        if (c == UNICODE_REPLACEMENT && used == 1)
            strbuf_add_str(out, "\\ufffd");
        else
            add_character(out, c, html);
        i += used;
    }
    strbuf_add_char(out, '"');
}

/* The fewest digits that are this number again; exponents as ECMAScript has them. */
static void add_real(struct strbuf *out, double real)
{
    char text[400];
    const bool fixed = real == 0 || (fabs(real) >= 1e-6 && fabs(real) < 1e21);

    for (int digits = 0; digits < 18; digits++) {
        snprintf(text, sizeof(text), "%.*e", digits, real);
        if (strtod(text, NULL) == real)
            break;
    }
    char *exponent = strchr(text, 'e');
    if (fixed && exponent) {
        const long power = strtol(exponent + 1, NULL, 10);
        const char *point = strchr(text, '.');
        const long after = point ? exponent - point - 1 : 0;
        snprintf(text, sizeof(text), "%.*f", (int)MAX(after - power, 0), real);
    } else if (exponent && exponent[2] == '0') {
        memmove(exponent + 2, exponent + 3, strlen(exponent + 3) + 1);
    }
    strbuf_add_str(out, text);
}

static void add_scalar(const json_t *json, struct strbuf *out)
{
    switch (json ? json_typeof(json) : JSON_NULL) {
    case JSON_STRING:
        add_string(out, json_string_value(json), json_string_length(json), false);
        break;
    case JSON_INTEGER:
        strbuf_addf(out, "%lld", (long long)json_integer_value(json));
        break;
    case JSON_REAL:
        add_real(out, json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        strbuf_add_str(out, json_is_true(json) ? "true" : "false");
        break;
    default:
        strbuf_add_str(out, "null");
    }
}

static void add_key(struct strbuf *out, const char *key, bool *first)
{
    strbuf_add_str(out, *first ? "" : ",");
    *first = false;
    add_string(out, key, strlen(key), false);
    strbuf_add_char(out, ':');
}

static void add_map(const struct evaluation *evaluation, const struct value *map,
                    struct strbuf *out)
{
    CLEANUP_FREE const char **keys = value_keys(map);
    bool first = true;

    for (const char **key = keys; *key; key++) {
        const struct value member =
            map->type->kind == TYPE_ROW
                ? value_of(evaluation, &template_any, json_object_get(map->json, *key))
                : value_member(evaluation, map, *key, strlen(*key));
        add_key(out, *key, &first);
        if (map->type->kind == TYPE_ROW && json_is_string(member.json))
            add_string(out, json_string_value(member.json), json_string_length(member.json), true);
        else
            value_json(evaluation, &member, out);
    }
}

static bool is_empty(const struct value *value)
{
    switch (value->type->kind) {
    case TYPE_STRUCT:
    case TYPE_TIME:
        return false;
    default:
        return !value_truth(value);
    }
}

/* In Go's order, an embedded struct's in its place. */
static void add_struct(const struct evaluation *evaluation, const struct template_type *type,
                       const json_t *json, bool *first, struct strbuf *out)
{
    for (const struct template_field *field = type->fields; field->name; field++) {
        if (!field->key) {
            add_struct(evaluation, field->type, json, first, out);
            continue;
        }
        const struct value member =
            value_of(evaluation, field->type, json_object_get(json, field->key));
        if (field->omit_empty && is_empty(&member))
            continue;
        add_key(out, field->key, first);
        value_json(evaluation, &member, out);
    }
}

static void add_object(const struct evaluation *evaluation, const struct value *value,
                       struct strbuf *out)
{
    const struct template_type *type = value->type;
    bool first = true;

    type = type->kind == TYPE_POINTER ? type->element : type;
    strbuf_add_char(out, '{');
    if (type->kind == TYPE_STRUCT)
        add_struct(evaluation, type, value->json, &first, out);
    else
        add_map(evaluation, value, out);
    strbuf_add_char(out, '}');
}

void value_json(const struct evaluation *evaluation, const struct value *value, struct strbuf *out)
{
    const bool text = value->type && value->type->kind == TYPE_STRING;

    if (json_is_object(value->json) ||
        (!value->json && value->type && value->type->kind >= TYPE_STRUCT)) {
        add_object(evaluation, value, out);
    } else if (json_is_array(value->json)) {
        strbuf_add_char(out, '[');
        for (size_t i = 0; i < json_array_size(value->json); i++) {
            const struct value element = value_at(evaluation, value, i);
            strbuf_add_str(out, i ? "," : "");
            value_json(evaluation, &element, out);
        }
        strbuf_add_char(out, ']');
    } else if (!value->json && text) {
        strbuf_add_str(out, "\"\"");
    } else if (!value->json && value->type && value->type->kind == TYPE_BOOL) {
        strbuf_add_str(out, "false");
    } else if (!value->json && value->type &&
               (value->type->kind == TYPE_INT || value->type->kind == TYPE_FLOAT)) {
        strbuf_add_char(out, '0');
    } else if (!value->json && value->type && value->type->kind == TYPE_TIME) {
        strbuf_add_str(out, "\"0001-01-01T00:00:00Z\"");
    } else {
        add_scalar(value->json, out);
    }
}
