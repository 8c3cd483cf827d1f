/* The steps that an image was made by, as `docker history` tells them. Begin with
 * await_image_history(). */
#pragma once

#include "daemon/image/image.h"

struct image_step {
    struct digest id;        /* of the local image that ends here; unset: there is none */
    char **tags;             /* familiar names of that image; NULL: none */
    int64_t created_unix_ns; /* 0: not known */
    char *created_by, *comment;
    uint64_t size_bytes; /* of the layer that it added; 0: none */
};

struct image_history {
    struct image_step *steps; /* newest first */
    size_t count;
};
void image_history_done(struct image_history *history);

/* The image is found as image_resolve_platform() finds it, its configuration read and compared with
 * its ID (IMAGE_DAMAGED). FAILED_PRECONDITION (INVALID_CONFIG) for a history that cannot be.
 * Suspends. */
bool await_image_history(struct store *store, const char *text, const char *platform,
                         struct image_history *ret, struct error *err);

/* The steps of a configuration, without I/O: ids and tags are not filled. layer_bytes: of each of
 * its layers, bottom first. To be released also after a failure. */
bool image_history_parse(const char *config, size_t config_size, const uint64_t *layer_bytes,
                         size_t layer_count, struct image_history *ret, struct error *err);
