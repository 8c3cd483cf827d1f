/* All there is to know of an image, as the Docker Engine API 1.51 has it: ImageInspect. Begin with
 * await_image_inspect(). */
#pragma once

#include "daemon/image/image.h"

/* The document as compact JSON, written as Go writes it; the caller frees it. The image is found as
 * image_resolve_platform() finds it, its configuration read and compared with its ID
 * (IMAGE_DAMAGED). FAILED_PRECONDITION (INVALID_CONFIG) for one that has what it cannot have.
 * Suspends. */
bool await_image_inspect(struct store *store, const char *text, const char *platform,
                         char **ret_json, size_t *ret_size, struct error *err);

/* Whether the image runs on a platform (NULL or empty: any), `text` being how it was asked for:
 * NOT_FOUND (PLATFORM_MISMATCH) in Docker's words otherwise. */
bool image_check_platform(const struct image *image, const char *text, const char *platform,
                          struct error *err);

/* As image_resolve(); NOT_FOUND (PLATFORM_MISMATCH) also for an image that this platform does not
 * run ("linux/arm64"; NULL or empty: any). INVALID_ARGUMENT (INVALID_PLATFORM). */
const struct image *image_resolve_platform(const struct store *store, const char *text,
                                           const char *platform, struct error *err);

/* What the document says that is not in the configuration. */
struct image_facts {
    const char *id, *parent; /* parent: "" for none */
    char *const *tags;       /* familiar, in order; NULL: none */
    char *const *digests;
    uint64_t size_bytes;
    const char *driver;
    int64_t tagged_unix_ns;
};

/* The same without I/O: NULL with an error. */
char *image_inspect_json(const struct image_facts *facts, const char *config, size_t config_size,
                         struct error *err);
