/* Pruning: removes what nothing uses. One flow, await_prune(), and how far it is at any moment. */
#pragma once

#include "daemon/image/image.h"

struct prune;

struct prune_request {
    bool all;             /* also images that have names, if no container has them */
    bool images_only;     /* no layers without an image, no downloads that were broken off */
    bool dry_run;         /* nothing is removed; the result says what would be */
    char *const *filters; /* as filter.h has them for prunes; what has no labels has none of those
                             that are asked for */
    size_t filter_count;
};

/* INVALID_ARGUMENT (INVALID_FILTER). Does not suspend. */
struct prune *prune_new(struct store *store, const struct prune_request *request,
                        struct error *err);
struct prune *prune_free(struct prune *prune); /* takes NULL; returns NULL */
static inline void prune_cleanup(struct prune **prune)
{
    *prune = prune_free(*prune);
}

/* Images, then layers that no image has, then downloads that were broken off. What somebody began
 * to use meanwhile stays, and is no error. Suspends. On an error, what the result lists has gone.
 */
bool await_prune(struct prune *prune, struct error *err);

unsigned int prune_percent(const struct prune *prune);

struct prune_result {
    const struct image_removals *images;
    const struct layers_pruned *layers;
    size_t partial_count;
    uint64_t freed_bytes; /* on the disk; files go in the background */
    bool dry_run;
};
struct prune_result prune_result(const struct prune *prune); /* borrowed */

/* Whether anything has gone: also after a failure. */
bool prune_has_removed(const struct prune *prune);
