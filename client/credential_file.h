/* Docker's config.json as far as credentials go: where it is, reading it, and changing one entry of
 * it while others do the same. Begin with credential_file_load() or await_credential_file_edit().
 */
#pragma once

#include "proto/base/json.h"

/* In $DOCKER_CONFIG or ~/.docker. The caller's. */
char *credential_file_path(void);

/* The whole file. True with *ret NULL if there is none. INVALID_ARGUMENT if it makes no sense; no
 * error quotes it, for it has secrets in it. Does not suspend. */
bool credential_file_load(const char *path, json_t **ret, struct error *err);

/* The entry of a registry in "auths" or "credHelpers": the exact key first, then any that names the
 * same host, as Docker does. Borrowed; NULL if there is none. */
const json_t *credential_entry_find(const json_t *entries, const char *key, const char *domain);

struct credential_edit {
    const char *path;
    const char *key, *domain; /* as of credential_entry_find() */
    json_t *entry;            /* what "auths" is to have under the key; NULL: nothing */
};

/* Reads the file, changes the entry in "auths", keeps all else, replaces the file in one step,
 * durably, with mode 0600. A link is followed. Edits of several davit at once follow each other.
 * An erased entry takes all spellings of its host with it. ret_changed: the file was written; it
 * is not if it says so already. Suspends. */
bool await_credential_file_edit(const struct credential_edit *edit, bool *ret_changed,
                                struct error *err);
