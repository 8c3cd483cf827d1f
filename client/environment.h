/* Environment variables for a container as Docker's flags give them: "K=V", or "K" for the value
 * it has here. Nothing here suspends. */
#pragma once

#include "proto/base/error.h"

#define ENV_FILE_MAX (1 * MIB)

/* For the flag's table: a variable needs a name. */
bool environment_check(const char *variable, struct error *err);

/* Variables of the files, then those of the flags, NULL-terminated; "K" becomes "K=V", or stays
 * "K" (it is removed) if it is not set here. Either may be NULL. The caller owns the result; NULL
 * with err in Docker's words: a file that cannot be read, a name with blanks, too large. */
char **environment_read(char *const *files, char *const *flags, struct error *err);
