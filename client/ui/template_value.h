/* What a template computes with: a *value* is JSON with the type that Go would give it. Used by the
 * evaluator and its functions. Nothing here suspends. */
#pragma once

#include "client/ui/template_node.h"

struct value {
    const struct template_type *type; /* NULL: no value at all */
    const json_t *json;               /* of the type, or NULL: the type's zero value */
    bool boxed;                       /* within an interface {}; matters to errors only */
    bool foreign;                     /* text in it is not the user's own */
};

/* What evaluates one template once. */
struct evaluation {
    const struct template *template;
    bool raw; /* numbers are json.Number, nothing may be missing */
    bool strict;
    bool one_line;                /* data has no newlines and tabs in the output */
    bool heading;                 /* Docker's functions leave their argument as it is */
    const struct node *at, *call; /* for errors */
    const char *definition;       /* that is being executed */
    json_t *made;                 /* owns what functions made */
    size_t made_bytes, out_before;
    unsigned steps, depth;
    struct variable {
        const char *name;
        struct value value;
    } * variables;                        /* the innermost last */
    size_t variable_count, variable_base; /* those before the base are another template's */
    unsigned changes, assignments;        /* of variables; assignments are changes, too */
    struct strbuf *out;
    struct error *err;
};

/* --- Making them -------------------------------------------------------------------------------
 */

/* JSON as a type: of another kind than that, it is the type's zero value. */
struct value value_of(const struct evaluation *evaluation, const struct template_type *type,
                      const json_t *json);

struct value value_bool(bool truth);
struct value value_int(struct evaluation *evaluation, int64_t integer);
struct value value_byte(struct evaluation *evaluation, unsigned char byte, bool foreign);
struct value value_float(struct evaluation *evaluation, double real);
/* Copies the text. */
struct value value_text(struct evaluation *evaluation, const char *text, size_t length,
                        bool foreign);
/* Takes the array, of strings. */
struct value value_strings(struct evaluation *evaluation, json_t *array, bool foreign);

/* Keeps JSON that was made for as long as the evaluation lasts. */
const json_t *value_keep(struct evaluation *evaluation, json_t *json, size_t bytes);

/* --- Looking into them -------------------------------------------------------------------------
 */

/* As Go's reflect.Kind. */
bool value_is_nil(const struct value *value); /* a nil pointer or interface, or no value */
bool value_truth(const struct value *value);
size_t value_length(const struct value *value); /* of strings, slices, maps */
int64_t value_integer(const struct value *value);
double value_real(const struct value *value);
bool value_is_text(const struct value *value); /* a string or a json.Number */

/* The caller frees it. */
char *value_string(const struct value *value, size_t *ret_length);

/* An element of a slice. */
struct value value_at(const struct evaluation *evaluation, const struct value *list, size_t index);

/* A member of a map; no value, if it has none. */
struct value value_member(const struct evaluation *evaluation, const struct value *map,
                          const char *key, size_t length);

/* A field of a struct, a pointer to one or a row. False: there is none. */
bool value_field(const struct evaluation *evaluation, const struct value *value, const char *name,
                 struct value *ret);

/* The keys of a map, sorted, terminated by NULL; the caller frees the array only. */
const char **value_keys(const struct value *map);

/* --- As text -----------------------------------------------------------------------------------
 */

extern const struct template_type template_byte; /* uint8 */

/* Appends text so that it steers no terminal. */
void add_clean(const struct evaluation *evaluation, struct strbuf *out, const char *text,
               size_t length);

/* Past the limit: what goes through parts or arguments stops there, and it is an error at the end.
 */
static inline bool is_too_long(const struct strbuf *text)
{
    return text->length > TEMPLATE_OUTPUT_MAX;
}

/* Appends it as Go's fmt.Print does, to a text that has nothing else but the call's. */
void value_print(const struct evaluation *evaluation, const struct value *value,
                 struct strbuf *out);

/* The same of what a pointer points to. */
void value_print_pointed(const struct evaluation *evaluation, const struct value *value,
                         struct strbuf *out);

/* Appends its JSON: maps sorted, structs as they came. */
void value_json(const struct evaluation *evaluation, const struct value *value, struct strbuf *out);

/* Appends what fmt.Sprintf makes of them. */
void value_printf(const struct evaluation *evaluation, const char *format, size_t length,
                  const struct value *arguments, size_t count, struct strbuf *out);

/* --- Functions ---------------------------------------------------------------------------------
 */

struct function {
    const char *name;
    /* Those that must be there: 's' string, 'i' int, 'l' []string, 'a' interface {}, 'v'
     * reflect.Value. */
    const char *parameters;
    char more; /* any number of these may follow; or 0 */
    /* False with the evaluation's error. */
    bool (*call)(struct evaluation *evaluation, const struct value *arguments, size_t count,
                 struct value *ret);
};

const struct function *function_find(const char *name, size_t length, bool heading);

/* What failed, where the evaluation is. Returns false. */
bool evaluation_failed(struct evaluation *evaluation, const char *format, ...) PRINTF_LIKE(2, 3);

/* The same in a call of a function. */
bool function_failed(struct evaluation *evaluation, const char *format, ...) PRINTF_LIKE(2, 3);

/* --- All of it ---------------------------------------------------------------------------------
 */

/* Appends what the template makes of the data, also if it fails half-way. The evaluation is zero
 * but for its options. */
bool evaluate_template(struct evaluation *evaluation, const struct template *template,
                       const struct template_type *type, const json_t *data, struct strbuf *out,
                       struct error *err);
