/* What users do with images: find, list, remove them. Begin with image_resolve(). */
#pragma once

#include "daemon/store/store.h"

/* By whatever a user may write: name, name:tag, name@digest, ID or unique prefix of one. Borrowed
 * from the store until the next await. NULL with NOT_FOUND (IMAGE_NOT_FOUND, "No such image: x"),
 * or INVALID_ARGUMENT for an ambiguous prefix or a malformed name. */
const struct image *image_resolve(const struct store *store, const char *text, struct error *err);

/* The same; ret_name: the canonical name that matched, NULL if it was an ID; the caller's. */
const struct image *image_resolve_name(const struct store *store, const char *text, char **ret_name,
                                       struct error *err);

/* Familiar forms of a canonical tag or digest reference: "docker.io/library/busybox:latest" is
 * "busybox:latest". The caller frees it. */
char *image_familiar(const char *canonical);
/* The same of several; NULL gives an empty list. The caller frees it with strv_free. */
char **image_familiar_names(char *const *canonical);

/* Whether a reference may be a tag: it has no digest and does not look like one. INVALID_ARGUMENT
 * in Docker's words. */
struct reference;
bool image_check_tag(const struct reference *reference, struct error *err);

/* Gives the image that `source` names, as image_resolve() finds it, the tag `target`. Suspends.
 * INVALID_ARGUMENT (INVALID_REFERENCE) for a target that is no name or has a digest. */
bool await_image_tag_as(struct store *store, const char *source, const char *target,
                        struct error *err);

/* One line of what a removal did, in Docker's order. */
struct image_removed {
    bool untagged; /* otherwise deleted */
    char *what;    /* familiar name, or a digest: the image's ID, a layer's chain ID */
};
struct image_removals {
    struct image_removed *items;
    size_t count;
};
void image_removals_done(struct image_removals *removals);
void image_removals_move(struct image_removals *to, struct image_removals *from); /* appends */

struct image_remove {
    bool force;    /* although it has several names, or containers that have ended */
    bool no_prune; /* parents without a name stay */
};

/* Removes a name, and the image with its last one, and then its parents that have no name and no
 * other child, as `docker rmi` does; all or nothing. Suspends. FAILED_PRECONDITION with reason
 * IMAGE_CONFLICT (needs force), IMAGE_IN_USE, IMAGE_HAS_CHILDREN. */
bool await_image_remove(struct store *store, const char *text, const struct image_remove *options,
                        struct image_removals *ret, struct error *err);
