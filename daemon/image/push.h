/* Pushing: from an image in the store to a registry. One flow, await_push(), and its progress as a
 * snapshot that can be taken at any moment. push_layer.h has what is done for each layer. */
#pragma once

#include "daemon/registry/upload.h"
#include "daemon/store/compress.h"
#include "daemon/store/store.h"

/* What all pushes of the daemon share. */
struct push_engine;

struct push_options {
    struct store *store;
    struct registry_client *registry;
    unsigned int max_concurrent; /* layers that are sent at a time */
    uint64_t bytes_per_second;   /* of all uploads; 0: no cap */
};

struct push_engine *push_engine_new(const struct push_options *options);
/* Hold at once. */
void push_engine_set_limits(struct push_engine *engine, unsigned int max_concurrent,
                            uint64_t bytes_per_second);
struct push_engine *push_engine_free(struct push_engine *engine); /* no push left; returns NULL */

struct push;

struct push_request {
    const char *reference;   /* as the user typed it: a name, with or without tag */
    bool all_tags;           /* all that the repository has here */
    const char *compression; /* "gzip", "zstd"; NULL or empty: as it was, or else gzip */
    struct registry_auth auth;
    uint64_t limit_bytes_per_second; /* 0: none of its own */
};

/* Parses the request. INVALID_ARGUMENT: a bad reference (INVALID_REFERENCE) or compression; one
 * with a digest. The caller owns the push and frees it after await_push has returned. */
struct push *push_new(struct push_engine *engine, const struct push_request *request,
                      struct error *err);
struct push *push_free(struct push *push);
static inline void push_cleanup(struct push **push)
{
    *push = push_free(*push);
}

/* Finds out what the registry has, sends the layers that it lacks, then the manifests. Suspends for
 * as long as that takes. NOT_FOUND (TAG_NOT_FOUND) with Docker's words if there is nothing to push.
 * On an error or cancel, layers that have arrived stay known, and are not sent again. */
bool await_push(struct push *push, struct error *err);

/* Holds at once. 0: none. */
void push_set_limit(struct push *push, uint64_t bytes_per_second);

enum push_phase { PUSH_CHECKING, PUSH_SENDING, PUSH_COMMITTING, PUSH_DONE };
enum push_layer_state {
    PUSH_LAYER_WAITING,
    PUSH_LAYER_CHECKING, /* whether the registry has it */
    PUSH_LAYER_PRESENT,  /* it has */
    PUSH_LAYER_MOUNTED,  /* it had, in another repository */
    PUSH_LAYER_FETCHING, /* what is not kept here comes from where it was seen */
    PUSH_LAYER_SENDING,
    PUSH_LAYER_RETRYING,
    PUSH_LAYER_RATE_LIMITED, /* the registry asks to wait */
    PUSH_LAYER_DONE,
};

/* Bytes are those of the uncompressed layer, whatever is sent for it: only they are known before.
 */
struct push_layer_progress {
    const struct digest *diff_id; /* borrowed from the push */
    enum push_layer_state state;
    uint64_t bytes_sent, bytes_total, bytes_per_second;
    const char *source;    /* the repository it was mounted from; NULL: none. Borrowed */
    const char *error;     /* why it waits; NULL: it does not. Borrowed until the next await */
    int64_t until_unix_ms; /* until when */
};

#define PUSH_PROGRESS_LAYERS 256 /* more are only in the sums */

struct push_progress {
    enum push_phase phase;
    size_t layer_count; /* 0 until the images are read */
    struct push_layer_progress layers[PUSH_PROGRESS_LAYERS];
    /* Of the layers that are sent: exact from PUSH_SENDING on, before the first byte. */
    uint64_t bytes_sent, bytes_total;
    unsigned int percent; /* never falls */
    uint64_t bytes_per_second;
    int64_t eta_ms; /* -1 while unknown */
};

/* The newest state. Does not suspend. */
void push_progress(struct push *push, struct push_progress *ret);

const struct reference *push_reference(const struct push *push); /* borrowed */

/* A tag that was pushed. */
struct push_result {
    const char *tag;
    const struct digest *digest; /* of the manifest, as the registry has it now */
    uint64_t size_bytes;
    const char *difference; /* why the manifest is not the one that the image came with; NULL: it is
                               the same */
};
/* After await_push has succeeded; borrowed from the push. NULL from the end on. */
const struct push_result *push_result(const struct push *push, size_t index);
