/* `inspect`: documents of any kind of object, as Docker prints them. */
#pragma once

#include "client/ui/template.h"

/* What is printed of the documents that were found: indented JSON, compact JSON, or what a template
 * makes of each. */
struct inspection {
    const char *format;        /* of --format; NULL or "": indented */
    struct template *template; /* made of it, unless it is "json" */
    struct strbuf documents;   /* compact, with commas between */
    struct strbuf text;        /* what the template made */
};

/* INVALID_ARGUMENT in Docker's words for a template that is none. */
bool inspection_init(struct inspection *inspection, const char *format, struct error *err);
void inspection_done(struct inspection *inspection);

/* Takes in one more document, which must be JSON, of a type. False with what the template says
 * against it. */
bool inspection_add(struct inspection *inspection, const struct template_type *type,
                    const char *json, size_t size, struct error *err);

/* Appends all of it; an empty list if there was none. */
void inspection_print(const struct inspection *inspection, struct strbuf *out);
