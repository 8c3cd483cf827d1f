/* Pulling: from a reference to an image in the store. One flow, await_pull(), and its progress as
 * a snapshot that can be taken at any moment. */
#pragma once

#include "daemon/registry/registry.h"
#include "daemon/store/store.h"
#include "daemon/transfer/transfer.h"

struct pull;

struct pull_request {
    const char *reference; /* as the user typed it */
    const char *platform;  /* NULL or empty: this machine's */
    struct registry_auth auth;
    uint64_t bytes_per_second; /* that it may fetch; 0: no cap of its own */
};

/* What a pull works with; borrowed, outlives it. */
struct pull_engine {
    struct store *store;
    struct registry_client *registry;
    struct transfer_table *transfers;
};

/* Parses the request; nothing is fetched yet. INVALID_ARGUMENT for a bad reference or platform.
 * The caller owns the pull and frees it after await_pull has returned. */
struct pull *pull_new(const struct pull_engine *engine, const struct pull_request *request,
                      struct error *err);
struct pull *pull_free(struct pull *pull);
static inline void pull_cleanup(struct pull **pull)
{
    *pull = pull_free(*pull);
}

/* Resolves the reference, fetches all missing layers at once, commits the image. Suspends for as
 * long as that takes. On an error or cancel nothing of the image is visible; layers that were
 * committed meanwhile, and bytes of others, are kept for the next try for a while: the error says
 * how much. */
bool await_pull(struct pull *pull, struct error *err);

/* Its cap from now on; 0: none. */
void pull_set_limit(struct pull *pull, uint64_t bytes_per_second);

enum pull_phase { PULL_RESOLVING, PULL_FETCHING, PULL_COMMITTING, PULL_DONE };
enum pull_layer_state {
    PULL_LAYER_WAITING,
    PULL_LAYER_FETCHING,
    PULL_LAYER_SHARED,       /* the same, but another pull began it */
    PULL_LAYER_RATE_LIMITED, /* its sources asked to be left alone until .. */
    PULL_LAYER_RETRYING,     /* it will be tried again at .. */
    PULL_LAYER_STORING,
    PULL_LAYER_DONE,
    PULL_LAYER_PRESENT, /* it was there before the pull */
};

struct pull_layer_progress {
    const struct digest *digest; /* of the blob; borrowed from the pull */
    enum pull_layer_state state;
    uint64_t bytes_fetched, bytes_total, bytes_stored, bytes_per_second;
    uint64_t bytes_resumed; /* of those fetched: they were there before */
    int64_t until_unix_ms;  /* of RATE_LIMITED and RETRYING; else 0 */
    const char *source;     /* NULL: none yet. Both until the next await */
    const char *error;      /* of RATE_LIMITED and RETRYING: why */
    unsigned int connections;
};

struct pull_progress {
    enum pull_phase phase;
    const struct registry_wait *wait; /* of RESOLVING, until the next await; NULL: it does not */
    size_t layer_count;               /* 0 until the manifest is known */
    struct pull_layer_progress layers[MANIFEST_MAX_LAYERS];
    uint64_t bytes_fetched, bytes_total; /* exact as soon as layers are listed */
    unsigned int percent;                /* never falls */
    uint64_t bytes_per_second;
    int64_t eta_ms; /* -1 while unknown */
};

/* The newest state. Does not suspend. */
void pull_progress(struct pull *pull, struct pull_progress *ret);

const struct reference *pull_reference(const struct pull *pull); /* borrowed */

/* After await_pull has succeeded; borrowed from the pull. */
struct pull_result {
    const struct digest *digest, *image_id;
    bool up_to_date; /* nothing changed */
};
struct pull_result pull_result(const struct pull *pull);

/* --- Without fetching --------------------------------------------------------------------------
 */

struct pull_plan_layer {
    struct digest digest; /* of the blob */
    uint64_t bytes_total, bytes_kept;
    enum { PLAN_FETCH, PLAN_SHARED, PLAN_PRESENT } what; /* SHARED: another pull fetches it */
};

/* What a pull would do now. */
struct pull_plan {
    struct digest digest, image_id;
    struct pull_plan_layer *layers; /* each blob once */
    size_t layer_count;
    char **sources;          /* to be asked in this order, "mirror.example.com"; NULL-terminated */
    uint64_t bytes_total;    /* of all layers */
    uint64_t bytes_to_fetch; /* by this pull itself */
    uint64_t disk_bytes;     /* that it needs at least; and those that there are: */
    struct space space;
    bool fits;
};
void pull_plan_done(struct pull_plan *plan);

/* Resolves the reference and looks at what there is. The pull is not run afterwards. */
bool await_pull_plan(struct pull *pull, struct pull_plan *ret, struct error *err);
