/* Words of Dockerfiles as Docker's shell lexer reads them: quotes go, variables are replaced.
 * Without I/O. */
#pragma once

#include "proto/base/error.h"
#include "proto/base/strbuf.h"

#define EXPANDED_MAX_BYTES (1 * MIB)

/* env: "NAME=value", NULL-terminated, may be NULL; the last of a name counts. INVALID_ARGUMENT
 * (INVALID_WORD) in Docker's words, naming the word. The caller frees *ret. */
bool expand_word(const char *word, char *const *env, char **ret, struct error *err);
