/* What is removed of images, and what Docker says of it. Nouns: a *removal* is a plan, made in one
 * look at the store without an await, and then done in one transaction. Begin with
 * removal_plan_image(). Shared by rmi (await_image_remove()) and prunes. */
#pragma once

#include "daemon/image/image.h"
#include "proto/base/map.h"

struct removal {
    const struct store *store;
    bool force, no_prune;
    struct image_removals lines;
    struct image_deletion *items;
    size_t count;
    struct map *planned; /* what the items mean for images, by their ids */
};
void removal_done(struct removal *removal);

/* As a user names it: errors as await_image_remove(). */
bool removal_plan_image(struct removal *removal, const char *text, struct error *err);

/* An image that nobody wants, with all its names; what has children that stay only loses them. */
void removal_plan_unused(struct removal *removal, const struct image *image);

/* Whether an image goes as a whole. */
bool removal_is_planned(const struct removal *removal, const struct digest *id);

/* What it will free on the disk, as things are. */
uint64_t removal_bytes(const struct removal *removal);

/* Does it. ABORTED (IMAGE_CHANGED), NOT_FOUND: something changed, plan again. */
bool await_removal(struct store *store, const struct removal *removal, uint64_t *ret_freed_bytes,
                   struct error *err);

/* Whether that is so after a failure; not for ever. */
#define REMOVAL_TRIES 100
bool removal_try_again(const struct error *failure, int tries);
