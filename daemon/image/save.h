/* Images as one archive, which is an OCI image layout and what `docker save` writes at once:
 *
 *   blobs/sha256/HEX   configs as they are, manifests made for it, layers as their tars; each once
 *   index.json         OCI's list of manifests; one entry for each tag
 *   manifest.json      Docker's list of images
 *   oci-layout
 *   repositories       Docker's list of tags; only if there are any
 *
 * Entries are sorted and have no times: the same images give the same bytes. All lengths are known
 * before the first byte. Begin with await_save_new(); whoever reads sets the pace. */
#pragma once

#include <sys/types.h>

#include "daemon/store/store.h"

struct save;

/* References of one call: each that is the beginning of an ID is looked for among all images. */
#define SAVE_MAX_REFERENCES 10000

/* Finds the images: a name alone stands for all its tags, a name with tag for that one, anything
 * else for the image without a name. Keeps their layers when it returns. Errors are those of
 * image_resolve_platform(), NO_IMAGES, TOO_MANY_REFERENCES; platform may be NULL or empty: any. */
struct save *await_save_new(struct store *store, char *const *references, size_t count,
                            const char *platform, struct error *err);
struct save *save_free(struct save *save); /* takes NULL; returns NULL; does not suspend */

/* Reads what is small and sees that all layers can be had: FAILED_PRECONDITION (NO_LAYER_FILE),
 * DATA_LOSS (LAYER_DAMAGED, BLOB_DAMAGED, IMAGE_DAMAGED), TOO_MANY_IMAGES to be loaded. From then
 * on the length is known. */
bool await_save_prepare(struct save *save, struct error *err);
uint64_t save_bytes_total(const struct save *save);

/* The next bytes of the archive, `size` of them but at the end, then 0. -1 with err: as above, or
 * ABORTED (IMAGE_REMOVED). */
ssize_t await_save_read(struct save *save, void *buffer, size_t size, struct error *err);

/* "busybox:latest", and how many more there are: "busybox:latest and 2 more". The caller's. */
char *save_subject(const struct save *save);

/* From memory. */
struct save_progress {
    uint64_t bytes_done, bytes_total;
    size_t layer_count; /* each once, in the archive's order */
};
struct save_progress save_progress(const struct save *save);

struct save_layer {
    const struct digest *diff_id;
    uint64_t bytes_done, bytes_total;
};
struct save_layer save_layer(const struct save *save, size_t index);
