/* Shared between push.c, push_layer.c, push_fetch.c and push_manifest.c only. */
#pragma once

#include "daemon/image/push.h"
#include "daemon/store/partial.h"
#include "daemon/transfer/rate.h"

struct push_engine {
    struct push_options options;
    struct rate_limit *limit; /* of all uploads */
    unsigned int sending;     /* layers, of all pushes */
    struct wait_queue slot_free;
};

/* How the registry gets to have a layer. */
enum push_way {
    PUSH_THERE, /* it has it, or took it over from another repository */
    PUSH_KEPT,  /* the blob that was kept is sent as it is */
    PUSH_PLAIN, /* the tar is, for the manifest has it uncompressed */
    PUSH_PACK,  /* the tar is compressed anew */
    PUSH_FETCH, /* the blob is fetched from where it was seen, and sent */
};

struct push_layer {
    struct push *push;
    struct digest diff_id;
    uint64_t tar_bytes;
    struct descriptor original;   /* as the manifest has it */
    struct descriptor found;      /* as the registry has it, at the end */
    struct layer_sources sources; /* where it was seen */
    enum push_way way;
    enum push_layer_state state;
    char *mounted_from;
    struct error error; /* while it waits: why, and until when on the loop's clock */
    uint64_t until_ms;
    uint64_t bytes_sent; /* uncompressed; never falls */
    struct {
        uint64_t at_ms, bytes, bytes_per_second;
    } speed;
};

/* A tag, and the image that it is for. */
struct push_image {
    struct digest id;
    char *tag;
    struct image_data data;
    struct manifest *manifest;
    struct push_layer **layers; /* of the manifest; the push's */
    struct digest digest;       /* of what was pushed */
    char *difference;
    struct push_result result;
};

struct push {
    struct push_engine *engine;
    struct reference reference;
    char *username, *password, *identity_token;
    bool all_tags, compression_given;
    enum compression compression;
    struct rate_limit *limit;
    struct source *target;
    char *repository; /* "docker.io/library/busybox" */
    enum push_phase phase;
    struct push_image *images;
    size_t image_count;
    struct push_layer **layers; /* each once */
    size_t layer_count, next_layer;
    uint64_t bytes_total;
    unsigned int percent; /* the highest that was shown */
};

/* --- push_layer.c ------------------------------------------------------------------------------
 */

/* Finds out whether the registry has the layer, and how it gets it if not. LAYER_UNAVAILABLE if
 * there is no way. */
bool await_layer_check(struct push_layer *layer, struct error *err);

/* Sends it, if the registry lacks it, when its turn has come. */
bool await_layer_send(struct push_layer *layer, struct error *err);

/* --- push_fetch.c ------------------------------------------------------------------------------
 */

/* Whether a repository is known that has the layer as the manifest has it. */
bool layer_fetchable(const struct push_layer *layer);

/* Fetches it from there: complete and checked. The caller closes it. */
struct partial *await_layer_fetch(struct push_layer *layer, struct error *err);

/* --- push_manifest.c ---------------------------------------------------------------------------
 */

#define DOCKER_LAYER_GZIP "application/vnd.docker.image.rootfs.diff.tar.gzip"
#define OCI_LAYER "application/vnd.oci.image.layer.v1.tar"

/* "application/vnd.oci...", for a layer that was compressed anew in place of the original. Static.
 */
const char *layer_media_type(const struct descriptor *original, enum compression compression);

/* The manifest to be pushed, which is the image's own if all layers are what it says. The caller
 * frees it and *ret_type. */
char *push_manifest(struct push_image *image, size_t *ret_size, char **ret_type);
