/* Completion of command lines, for the scripts in completion/: what may follow is read from the
 * table of commands, so that it is always what davit accepts. */
#pragma once

#include "client/commands.h"

/* `words` are those after "davit" up to the cursor, the last one (maybe "") to be completed.
 * Appends "candidate<tab>description" lines of what begins with it. Returns what else is wanted:
 * COMPLETE_IMAGES, COMPLETE_JOBS or COMPLETE_NOTHING. Pure. */
enum completion complete_words(char *const *words, struct strbuf *out);
