/* Pulling: from a reference to an image in the store. One flow, await_pull(), and its progress as
 * a snapshot that can be taken at any moment. */
#pragma once

#include "daemon/registry/registry.h"
#include "daemon/transfer/transfer.h"
#include "daemon/store/store.h"

struct pull;

struct pull_request {
    const char *reference; /* as the user typed it */
    const char *platform;  /* NULL or empty: this machine's */
    struct registry_auth auth;
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
 * committed meanwhile stay until they are collected. */
bool await_pull(struct pull *pull, struct error *err);

enum pull_phase { PULL_RESOLVING, PULL_FETCHING, PULL_COMMITTING, PULL_DONE };
enum pull_layer_state {
    PULL_LAYER_WAITING,
    PULL_LAYER_FETCHING,
    PULL_LAYER_STORING,
    PULL_LAYER_DONE,
    PULL_LAYER_EXISTS,
};

struct pull_layer_progress {
    const struct digest *digest; /* of the blob; borrowed from the pull */
    enum pull_layer_state state;
    uint64_t bytes_fetched, bytes_total, bytes_stored, bytes_per_second;
};

struct pull_progress {
    enum pull_phase phase;
    size_t layer_count; /* 0 until the manifest is known */
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
