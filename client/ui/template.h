/* --format: Go's templates, the part of them that people use on Docker's command line.
 *
 * What is understood: {{.Field.Sub}}, {{.}}, "text", `text`, numbers, true, false; functions json,
 * lower, upper, title, truncate, pad, join, split, len, eq, ne, not, println; pipes and brackets;
 * {{if}} {{else}} {{end}}, {{range}}; {{- and -}}; {{/ * comments * /}}.
 * Nouns: a *template* is one such text, parsed; a *format* is what --format was given: a template
 * for each row, "table ..." for a table made by one, or "json". */
#pragma once

#include "proto/base/json.h"
#include "proto/base/strbuf.h"

struct template;

/* NULL with INVALID_ARGUMENT in Docker's words. The caller frees it. */
struct template *template_parse(const char *text, struct error *err);
struct template *template_free(struct template *template);
static inline void template_cleanup(struct template **template)
{
    *template = template_free(*template);
}

/* Appends what the template makes of the data. What comes from the data is made printable, so that
 * it steers no terminal. INVALID_ARGUMENT for a field that the data has not. */
bool template_render(const struct template *template, const json_t *data, struct strbuf *out,
                     struct error *err);

struct format_column {
    const char *field, *heading; /* "StarCount", "STARS" */
};

struct format {
    const char *text;                    /* as the user gave it; NULL: a table of all columns */
    const char *table;                   /* the columns of that: "{{.Name}}\t{{.StarCount}}" */
    const struct format_column *columns; /* all that there are headings for */
    size_t column_count;
};

/* Appends an array of objects, laid out as the format wants it. A table has its heading also
 * without rows. */
bool format_rows(const struct format *format, const json_t *rows, struct strbuf *out,
                 struct error *err);
