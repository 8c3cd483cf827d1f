/* OCI image-spec: manifest.md, image-index.md, descriptor.md; Docker: the distribution
 * specification's manifest-v2-2.md. */
#include "daemon/registry/manifest.h"

#include <strings.h>

#include "proto/base/json.h"
#include "proto/base/strbuf.h"

#define DOCKER_TYPE "application/vnd.docker."
#define OCI_TYPE "application/vnd.oci.image."
#define DOCKER_MANIFEST DOCKER_TYPE "distribution.manifest.v2+json"
#define DOCKER_LIST DOCKER_TYPE "distribution.manifest.list.v2+json"
#define DOCKER_SCHEMA1 DOCKER_TYPE "distribution.manifest.v1"
#define OCI_MANIFEST OCI_TYPE "manifest.v1+json"
#define OCI_INDEX OCI_TYPE "index.v1+json"
#define LAYER_MAX_BYTES (1024 * GIB)

static bool is_one_of(const char *text, const char *const *names)
{
    for (; *names; names++) {
        if (strcmp(text, *names) == 0)
            return true;
    }
    return false;
}

/* --- Life cycle ------------------------------------------------------------------------------- */

static void entry_done(struct index_entry *entry)
{
    free(entry->descriptor.media_type);
    platform_done(&entry->platform);
    *entry = (struct index_entry){0};
}

struct manifest *manifest_free(struct manifest *manifest)
{
    if (!manifest)
        return NULL;
    for (size_t i = 0; i < manifest->layer_count; i++)
        free(manifest->layers[i].media_type);
    for (size_t i = 0; i < manifest->entry_count; i++)
        entry_done(&manifest->entries[i]);
    free(manifest->layers);
    free(manifest->entries);
    free(manifest->config.media_type);
    free(manifest->media_type);
    free(manifest);
    return NULL;
}

static bool invalid(struct error *err, const char *why)
{
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_MANIFEST", "invalid manifest: %s", why);
}

static bool unsupported(struct error *err, const char *what, const char *detail)
{
    return error_set(err, ERROR_UNIMPLEMENTED, "UNSUPPORTED_MANIFEST", "%s%.200s", what, detail);
}

/* --- Descriptors ------------------------------------------------------------------------------ */

static bool parse_descriptor(const json_t *json, uint64_t limit_bytes, struct descriptor *ret,
                             struct error *err)
{
    const char *media_type = json_str(json, "mediaType"), *digest = json_str(json, "digest");
    const json_t *size = json_object_get(json, "size"), *type = json_object_get(json, "mediaType");

    if (!json_is_object(json))
        return invalid(err, "a descriptor is not an object");
    if (type && !media_type)
        return invalid(err, "a descriptor's mediaType is not a string");
    if (!digest)
        return invalid(err, "a descriptor has no digest");
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return invalid(err, "a descriptor has no valid size");
    if ((uint64_t)json_integer_value(size) > limit_bytes)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "INVALID_MANIFEST",
                         "invalid manifest: %.80s has %lld bytes, the limit is %llu", digest,
                         (long long)json_integer_value(size), (unsigned long long)limit_bytes);
    if (!digest_parse(digest, &ret->digest, err))
        return error_prefix(err, "invalid manifest");
    ret->size_bytes = (uint64_t)json_integer_value(size);
    ret->media_type = xstrdup(media_type ? media_type : "");
    return true;
}

static bool check_layer_type(const struct descriptor *layer, struct error *err)
{
    static const char *const known[] = {
        DOCKER_TYPE "image.rootfs.diff.tar.gzip",
        DOCKER_TYPE "image.rootfs.diff.tar.zstd",
        DOCKER_TYPE "image.rootfs.diff.tar",
        OCI_TYPE "layer.v1.tar+gzip",
        OCI_TYPE "layer.v1.tar+zstd",
        OCI_TYPE "layer.v1.tar",
        NULL,
    };
    const char *type = layer->media_type;

    if (is_one_of(type, known))
        return true;
    if (str_ends(type, "+encrypted"))
        return unsupported(err, "the image has encrypted layers, which davit cannot read: ", type);
    if (strstr(type, ".foreign.") || strstr(type, ".nondistributable."))
        return unsupported(err,
                           "the image has layers that its registry does not distribute: ", type);
    return unsupported(err, "the image has layers of an unknown kind: ", type);
}

/* What Docker takes for an image's configuration: old tools wrote wrong types. */
static bool check_config_type(const struct descriptor *config, struct error *err)
{
    static const char *const known[] = {
        DOCKER_TYPE "container.image.v1+json",
        OCI_TYPE "config.v1+json",
        "application/octet-stream",
        "application/json",
        "text/html",
        "",
        NULL,
    };

    if (is_one_of(config->media_type, known))
        return true;
    return unsupported(err, "this is not a container image, its configuration is of type ",
                       config->media_type);
}

/* --- Images and indexes ----------------------------------------------------------------------- */

static bool parse_image(const json_t *json, struct manifest *manifest, struct error *err)
{
    const json_t *layers = json_object_get(json, "layers");
    size_t count = json_array_size(layers);

    /* None is fine: FROM scratch with nothing added. */
    if (!json_is_array(layers))
        return invalid(err, "it has no array of layers");
    if (count > MANIFEST_MAX_LAYERS)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "INVALID_MANIFEST",
                         "invalid manifest: it has %zu layers, the limit is %d", count,
                         MANIFEST_MAX_LAYERS);
    if (!parse_descriptor(json_object_get(json, "config"), MANIFEST_MAX_BYTES, &manifest->config,
                          err) ||
        !check_config_type(&manifest->config, err))
        return false;
    manifest->layers = xcalloc(count, sizeof(*manifest->layers));
    for (size_t i = 0; i < count; i++) {
        struct descriptor *layer = &manifest->layers[manifest->layer_count];
        if (!parse_descriptor(json_array_get(layers, i), LAYER_MAX_BYTES, layer, err))
            return false;
        manifest->layer_count++;
        if (!check_layer_type(layer, err))
            return false;
    }
    return true;
}

static bool parse_entry_platform(const json_t *json, struct platform *ret, struct error *err)
{
    const char *os = json_str(json, "os"), *architecture = json_str(json, "architecture");

    if (!json || json_is_null(json))
        return true;
    if (str_empty(os) || str_empty(architecture))
        return invalid(err, "a platform has no os or architecture");
    ret->os = xstrdup(os);
    ret->architecture = xstrdup(architecture);
    ret->variant = str_empty(json_str(json, "variant")) ? NULL : xstrdup(json_str(json, "variant"));
    return true;
}

/* buildkit's attestations hang in an index as if they were images for no platform. */
static bool is_attestation(const struct index_entry *entry)
{
    return str_eq(entry->platform.os, "unknown") && str_eq(entry->platform.architecture, "unknown");
}

static bool parse_index(const json_t *json, struct manifest *manifest, struct error *err)
{
    const json_t *entries = json_object_get(json, "manifests");
    size_t count = json_array_size(entries);

    if (!json_is_array(entries))
        return invalid(err, "it is an index without manifests");
    if (count > INDEX_MAX_ENTRIES)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "INVALID_MANIFEST",
                         "invalid manifest: the index has %zu entries, the limit is %d", count,
                         INDEX_MAX_ENTRIES);
    manifest->entries = xcalloc(count ? count : 1, sizeof(*manifest->entries));
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(entries, i);
        struct index_entry *entry = &manifest->entries[manifest->entry_count];
        /* Counted at once: what has been parsed of it is freed with the manifest. */
        manifest->entry_count++;
        if (!parse_descriptor(item, MANIFEST_MAX_BYTES, &entry->descriptor, err) ||
            !parse_entry_platform(json_object_get(item, "platform"), &entry->platform, err))
            return false;
        if (is_attestation(entry)) {
            entry_done(entry);
            manifest->entry_count--;
        }
    }
    return true;
}

/* --- What a document is ----------------------------------------------------------------------- */

/* Go's parsers take "Layers" for "layers". A document that means one thing to them and another to
 * us would pass checks made elsewhere, so such keys are refused. */
static bool check_keys(json_t *json, struct error *err)
{
    static const char *const keys[] = {"schemaVersion", "mediaType", "config", "layers",
                                       "manifests",     "fsLayers",  NULL};
    const char *key;
    json_t *value;

    json_object_foreach (json, key, value) {
        for (const char *const *known = keys; *known; known++) {
            if (strcasecmp(key, *known) == 0 && strcmp(key, *known) != 0)
                return invalid(err, "it has a key that differs from a known one only in case");
        }
    }
    return true;
}

/* The type without its parameters; NULL for those that say nothing. */
static char *meaningful_type(const char *content_type)
{
    static const char *const generic[] = {"", "application/json", "application/octet-stream",
                                          "text/plain", NULL};
    CLEANUP_FREE char *type =
        content_type ? xstrndup(content_type, strcspn(content_type, "; \t")) : NULL;

    return !type || is_one_of(type, generic) ? NULL : TAKE(type);
}

static bool check_known_type(const char *type, struct error *err)
{
    static const char *const known[] = {DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX,
                                        NULL};

    if (is_one_of(type, known))
        return true;
    if (str_starts(type, DOCKER_SCHEMA1)) {
        unsupported(err, "the image has the obsolete manifest format schema 1", "");
        return error_hint(err, "push it again with a current tool, or use a newer tag");
    }
    unsupported(err, "this is not a container image, its manifest is of type ", type);
    return error_hint(err, "check the name: the server may not be a registry");
}

static bool is_index_type(const char *type)
{
    return strcmp(type, DOCKER_LIST) == 0 || strcmp(type, OCI_INDEX) == 0;
}

/* One of the type in the document, the type it came with, and its shape must name it, and none may
 * contradict another (OCI image-spec, "mediaType"; CVE-2021-41190). */
static bool find_type(const json_t *json, const char *content_type, char **ret, struct error *err)
{
    CLEANUP_FREE char *outer = meaningful_type(content_type);
    const json_t *inner_json = json_object_get(json, "mediaType");
    const char *inner = json_string_value(inner_json);
    bool is_index = json_object_get(json, "manifests") != NULL;
    bool is_image = json_object_get(json, "layers") || json_object_get(json, "config");

    if ((outer && !check_known_type(outer, err)))
        return false;
    if (json_object_get(json, "fsLayers") || json_int(json, "schemaVersion", 2) == 1)
        return check_known_type(DOCKER_SCHEMA1, err);
    if (json_int(json, "schemaVersion", 0) != 2)
        return invalid(err, "its schemaVersion is not 2");
    if (inner_json && !inner)
        return invalid(err, "its mediaType is not a string");
    if (inner && !check_known_type(inner, err))
        return false;
    if (inner && outer && strcmp(inner, outer) != 0)
        return invalid(err, "its mediaType differs from the type it was sent with");
    if (is_index && is_image)
        return invalid(err, "it is an image and an index at once");
    if (!is_index && !is_image)
        return invalid(err, "it is neither an image nor an index");
    *ret = xstrdup(inner ? inner : outer ? outer : is_index ? OCI_INDEX : OCI_MANIFEST);
    if (is_index_type(*ret) != is_index)
        return invalid(err, "its content is not of the type it claims");
    return true;
}

struct manifest *manifest_parse(const void *data, size_t size, const char *content_type,
                                struct error *err)
{
    CLEANUP(manifest_cleanup) struct manifest *manifest = xcalloc(1, sizeof(*manifest));
    CLEANUP_JSON json_t *json = NULL;
    CLEANUP_FREE char *type = meaningful_type(content_type);
    bool ok;

    /* An HTML page is better reported as what it is than as invalid JSON. */
    if (type && !check_known_type(type, err))
        return NULL;
    json = json_parse(data, size, MANIFEST_MAX_BYTES, "the manifest", err);
    if (!json)
        return NULL;
    if (!json_is_object(json)) {
        invalid(err, "it is not an object");
        return NULL;
    }
    if (!check_keys(json, err) || !find_type(json, content_type, &manifest->media_type, err))
        return NULL;
    manifest->kind = is_index_type(manifest->media_type) ? MANIFEST_INDEX : MANIFEST_IMAGE;
    ok = manifest->kind == MANIFEST_INDEX ? parse_index(json, manifest, err)
                                          : parse_image(json, manifest, err);
    return ok ? TAKE(manifest) : NULL;
}

/* --- Choosing --------------------------------------------------------------------------------- */

static bool no_match(const struct manifest *index, const struct platform *wanted, struct error *err)
{
    CLEANUP_FREE char *wanted_text = platform_text(wanted);
    CLEANUP_STRBUF struct strbuf have = {0};

    for (size_t i = 0; i < index->entry_count && have.length < 500; i++) {
        CLEANUP_FREE char *text = platform_text(&index->entries[i].platform);
        strbuf_addf(&have, "%s%.60s", i ? ", " : "", text);
    }
    error_set(err, ERROR_NOT_FOUND, "NO_MATCHING_PLATFORM",
              "the image does not exist for platform %s, only for: %s", wanted_text,
              index->entry_count ? strbuf_text(&have) : "none");
    return error_hint(err, "choose one of those with --platform, or another tag");
}

const struct index_entry *manifest_choose(const struct manifest *index,
                                          const struct platform *wanted, struct error *err)
{
    const struct index_entry *best = NULL, *unnamed = NULL;
    int best_rank = -1;

    for (size_t i = 0; i < index->entry_count; i++) {
        const struct index_entry *entry = &index->entries[i];
        int rank;
        if (!entry->platform.os) {
            unnamed = unnamed ? unnamed : entry;
            continue;
        }
        rank = platform_rank(wanted, &entry->platform);
        if (rank >= 0 && (!best || rank < best_rank)) {
            best = entry;
            best_rank = rank;
        }
    }
    if (!best)
        best = unnamed;
    if (!best)
        no_match(index, wanted, err);
    return best;
}
