/* --format: Go's text/template as Docker's command line has it, with its functions json, split,
 * join, title, lower, upper, pad, truncate, and its words for what is wrong.
 *
 * Nouns: a *template* is one such text, parsed. A *type* says what Go makes of a piece of JSON: a
 * struct has certain fields, of which a missing one is an error, a map has any. A *format* is what
 * --format was given for a list: a template for each row, "table ..." for a table made by one,
 * "json" or "raw".
 *
 * What no template gets over: TEMPLATE_DEPTH_MAX, TEMPLATE_STEPS_MAX, TEMPLATE_OUTPUT_MAX. */
#pragma once

#include "proto/base/json.h"
#include "proto/base/strbuf.h"

#define TEMPLATE_STEPS_MAX 2000000     /* nodes and elements that are gone through */
#define TEMPLATE_OUTPUT_MAX (16 * MIB) /* of text that is made, printed or not */

/* --- Types -------------------------------------------------------------------------------------
 */

enum type_kind {
    TYPE_ANY, /* interface {}: whatever the JSON has; its objects are maps */
    TYPE_BOOL,
    TYPE_INT,
    TYPE_FLOAT,
    TYPE_STRING,
    TYPE_NUMBER, /* json.Number: a string of digits */
    TYPE_TIME,
    TYPE_SLICE,
    TYPE_MAP,
    TYPE_POINTER, /* to a struct */
    TYPE_STRUCT,
    TYPE_ROW, /* a struct of whatever fields the JSON has */
};

struct template_field {
    const char *name; /* Go's: "ID" */
    const char *key;  /* in the JSON: "Id"; NULL: an embedded struct, whose fields are there, too */
    const struct template_type *type;
    bool omit_empty; /* it is not in its JSON then */
};

struct template_type {
    enum type_kind kind;
    const char *name;                    /* in errors: "image.InspectResponse" */
    const struct template_type *element; /* of slices, maps, pointers */
    const struct template_field *fields; /* of structs, in Go's order; the last has no name */
};

/* Those that are made of nothing else. */
extern const struct template_type template_any, template_bool, template_int, template_int64,
    template_float, template_string, template_time, template_duration,
    template_strings /* []string */, template_string_map /* map[string]string */,
    template_set /* map[string]struct {} */;

/* --- Templates ---------------------------------------------------------------------------------
 */

struct template;

/* NULL with INVALID_ARGUMENT in Docker's words. The caller frees it. */
struct template *template_parse(const char *text, struct error *err);
struct template *template_free(struct template *template);
static inline void template_cleanup(struct template **template)
{
    *template = template_free(*template);
}

/* The same with a name for errors, which else is empty. */
struct template *template_parse_named(const char *name, const char *text, struct error *err);

/* Appends what the template makes of the data, which is of TYPE_ANY. What comes from the data is
 * made printable but for newlines and tabs, so that it steers no terminal. INVALID_ARGUMENT in
 * Docker's words; `out` is as it was then. */
bool template_render(const struct template *template, const json_t *data, struct strbuf *out,
                     struct error *err);

/* The same for data of a type. */
bool template_render_as(const struct template *template, const struct template_type *type,
                        const json_t *data, struct strbuf *out, struct error *err);

/* The same as `docker inspect` does it: if the type has not all that the template wants, then as a
 * map of what there is in the JSON, in which nothing may be missing, and that also for all that the
 * template renders afterwards. */
bool template_render_inspected(struct template *template, const struct template_type *type,
                               const json_t *data, struct strbuf *out, struct error *err);

/* --- Formats -----------------------------------------------------------------------------------
 */

struct format_column {
    const char *field, *heading; /* "StarCount", "STARS" */
};

struct format {
    const char *text;                    /* as the user gave it; NULL: a table of all columns */
    const char *table;                   /* the columns of that: "{{.Name}}\t{{.StarCount}}" */
    const char *raw;                     /* the template of "raw"; NULL: that is no word */
    const char *type_name;               /* "*search.searchContext"; NULL: "row" */
    const struct format_column *columns; /* all that there are headings for */
    size_t column_count;
    size_t width;                  /* of the terminal that a table has to fit; 0: none */
    const char *const *free_texts; /* headings of what is shortened first then, or NULL */
};

/* Appends an array of objects, laid out as the format wants it. A table has its heading also
 * without rows. */
bool format_rows(const struct format *format, const json_t *rows, struct strbuf *out,
                 struct error *err);
