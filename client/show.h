/* One thing shown as --format says: what `version` and `info` have in common, and what others say
 * of a template that is none. */
#pragma once

#include "client/cli.h"
#include "client/ui/template.h"

#define EXIT_TEMPLATE 64 /* Docker's, where a template cannot be parsed */

struct showing {
    const char *format;        /* as it was given, or NULL */
    struct template *template; /* NULL: none given */
    bool json;
};

#define CLEANUP_SHOWING CLEANUP(showing_done)

/* Of the flag --format; errors call the template by the name. False with err for one that is none;
 * the exit code is Docker's. */
bool showing_init(struct showing *showing, struct cli *cli, const char *name, struct error *err);
void showing_done(struct showing *showing);

/* Whether the command lays it out itself. */
bool showing_is_plain(const struct showing *showing);

/* Appends data of a type laid out by the format, and a newline. False with err for what the
 * template cannot make of it. */
bool showing_add(const struct showing *showing, const struct template_type *type,
                 const json_t *data, struct strbuf *out, struct error *err);

/* What is wrong with a template, without the words that it is one. */
const char *template_problem(const struct error *err);

/* The same by a template and without a newline. What it cannot make of it is said in the words that
 * Docker has where it shows one thing. */
bool show_template(const struct template *template, const struct template_type *type,
                   const json_t *data, struct strbuf *out, struct error *err);
