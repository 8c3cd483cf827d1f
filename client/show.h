/* One thing shown as --format says: what `version` and `info` have in common. */
#pragma once

#include "client/cli.h"
#include "proto/base/json.h"

struct showing {
    struct template *template; /* NULL: none given */
    bool json;
};

#define CLEANUP_SHOWING CLEANUP(showing_done)

/* Of the flag --format. False with err for a template that is none; the exit code is Docker's. */
bool showing_init(struct showing *showing, struct cli *cli, struct error *err);
void showing_done(struct showing *showing);

/* Whether the command lays it out itself. */
bool showing_is_plain(const struct showing *showing);

/* Appends data laid out by the format, and a newline. False with err for what the template cannot
 * make of it. */
bool showing_add(const struct showing *showing, const json_t *data, struct strbuf *out,
                 struct error *err);
