/* Completion of command lines, for the scripts in completion/: what may follow is read from the
 * table of commands, so that it is always what davit accepts. */
#pragma once

#include "client/commands.h"

/* What the table cannot know. */
struct completion_wish {
    enum completion wants;
    size_t skip; /* of the last word so many bytes stand before it: "--filter=since=" */
};

/* `words` are those after "davit" up to the cursor, the last one (maybe "") to be completed.
 * Appends "candidate<tab>description" lines of what begins with it; one that ends in "=" is to be
 * gone on with. Returns what else is wanted: IMAGES, JOBS, FILES or NOTHING. Pure. */
struct completion_wish complete_words(char *const *words, struct strbuf *out);

/* Whether names are not all that is wanted: "3f", "sha256:". Pure. */
bool complete_is_id(const char *prefix);
