/* What a registry says about an image, parsed and checked: manifests (Docker schema 2, OCI),
 * manifest lists and OCI indexes, and image configs. Parsers without I/O. */
#pragma once

#include "proto/base/digest.h"

#define MANIFEST_MAX_BYTES (4 * MIB)
#define MANIFEST_MAX_LAYERS 127
#define INDEX_MAX_ENTRIES 1024

struct platform {
    char *os, *architecture, *variant; /* Go's names; variant NULL if none */
};
void platform_done(struct platform *platform);
#define CLEANUP_PLATFORM CLEANUP(platform_done)

/* "linux/arm64/v8", "arm64", or empty for this machine. Spelled as Go does afterwards: x86_64 is
 * amd64. INVALID_ARGUMENT, reason INVALID_PLATFORM. */
bool platform_parse(const char *text, struct platform *ret, struct error *err);
char *platform_text(const struct platform *platform); /* "linux/arm/v7"; the caller frees it */

/* How well a machine that is `wanted` runs what is made for `offered`: 0 is exact, more is worse,
 * negative is not at all. As containerd's platforms.Only: arm/v7 runs v6 and v5, arm64 runs arm,
 * amd64 runs 386. */
int platform_rank(const struct platform *wanted, const struct platform *offered);

struct descriptor {
    char *media_type;
    struct digest digest;
    uint64_t size_bytes;
};

enum manifest_kind { MANIFEST_IMAGE, MANIFEST_INDEX };

struct manifest {
    enum manifest_kind kind;
    char *media_type;
    struct descriptor config;  /* MANIFEST_IMAGE */
    struct descriptor *layers; /* MANIFEST_IMAGE, bottom first */
    size_t layer_count;
    struct index_entry {
        struct descriptor descriptor;
        struct platform platform; /* all NULL if the index does not say */
    } * entries;                  /* MANIFEST_INDEX; without attestations */
    size_t entry_count;
};

struct manifest *manifest_free(struct manifest *manifest);
static inline void manifest_cleanup(struct manifest **manifest)
{
    *manifest = manifest_free(*manifest);
}

/* content_type is the HTTP header's, may be NULL; a document that could be two things at once, or
 * that contradicts its content type, is refused. Reasons: INVALID_MANIFEST, UNSUPPORTED_MANIFEST
 * (schema 1, foreign layers, artifacts that are no images). */
struct manifest *manifest_parse(const void *data, size_t size, const char *content_type,
                                struct error *err);

/* The entry for a platform as containerd's matcher would choose it: the best rank, the first of
 * equals; failing that, the first that names no platform. NULL with NOT_FOUND, reason
 * NO_MATCHING_PLATFORM, listing what there is. Owned by the manifest. */
const struct index_entry *manifest_choose(const struct manifest *index,
                                          const struct platform *wanted, struct error *err);

/* An image config (OCI image-spec config.md), the part that davit acts on. */
struct image_config {
    char *os, *architecture; /* "linux" and "" if absent */
    char *variant;           /* NULL if absent */
    int64_t created_unix_ns; /* as image_config_time() has it */
    char **env, **entrypoint, **cmd;
    char *user, *working_dir, *stop_signal;
    struct digest *diff_ids; /* bottom first */
    size_t diff_id_count;
};
/* INVALID_ARGUMENT, reason INVALID_MANIFEST. The caller owns the result. */
struct image_config *image_config_parse(const void *data, size_t size, struct error *err);
struct image_config *image_config_free(struct image_config *config);

/* A date of a configuration (RFC 3339). 0 for none, or what is none: a date decides nothing, so a
 * bad one makes no image unusable. What lies beyond 64 bits of nanoseconds is one of these: the
 * first is also Go's date of what has no date, the first of the year 1. */
#define TIME_LONG_AGO INT64_MIN
#define TIME_FAR_AHEAD (INT64_MAX / 1000000000 * 1000000000)
int64_t image_config_time(const char *text);

static inline void image_config_cleanup(struct image_config **config)
{
    *config = image_config_free(*config);
}
