/* Importing: from a tar of a root file system, plain or compressed, to an image of that one layer.
 * Nouns as in load.h. Begin with await_import(). */
#pragma once

#include "daemon/image/load.h"
#include "daemon/registry/registry.h"

struct import_request {
    const char *url;       /* where the tar is; NULL: it comes from a source */
    const char *reference; /* name or name:tag; NULL or empty: none */
    const char *message;   /* the comment; NULL or empty: where it came from */
    const char *platform;  /* NULL or empty: this machine's */
    char *const *changes;  /* instructions of a Dockerfile */
    size_t change_count;
};

struct import;

/* Reads the request, which is copied; nothing else happens yet. Store, client and source (of which
 * one is NULL where the other is used) are borrowed and outlive it. INVALID_ARGUMENT in Docker's
 * words for a name, platform or instruction that is none. Suspends. */
struct import *await_import_new(struct store *store, struct registry_client *client,
                                const struct archive_source *source,
                                const struct import_request *request, struct error *err);
struct import *import_free(struct import *import); /* takes NULL; returns NULL */

/* Suspends for as long as the source takes. On an error or cancel nothing is left. INVALID_LAYER
 * for what is no tar, INVALID_ARCHIVE for what cannot be inflated, NO_SPACE. */
bool await_import(struct import *import, struct error *err);

struct import_progress {
    bool committing;
    uint64_t bytes_read, bytes_total; /* as it comes; 0: not known */
    uint64_t bytes_stored;            /* of the tar */
    uint64_t begun_ms;                /* 0: it has not begun */
};
struct import_progress import_progress(const struct import *import);

/* The image's ID, once await_import() has succeeded. */
const struct digest *import_result(const struct import *import);
