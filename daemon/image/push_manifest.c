/* The manifest of an image that is pushed. */
#include "daemon/image/push_internal.h"
#include "proto/base/json.h"

#define DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define DOCKER_CONFIG "application/vnd.docker.container.image.v1+json"
#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_CONFIG "application/vnd.oci.image.config.v1+json"
#define DOCKER_PREFIX "application/vnd.docker."

const char *layer_media_type(const struct descriptor *original, enum compression compression)
{
    if (compression == COMPRESSION_ZSTD)
        return OCI_LAYER "+zstd"; /* Docker's manifests have none */
    return str_starts(original->media_type, DOCKER_PREFIX) ? DOCKER_LAYER_GZIP : OCI_LAYER "+gzip";
}

/* A layer's type in the words of the manifest's family. */
static const char *type_for(const char *media_type, bool oci)
{
    if (str_ends(media_type, "zstd"))
        return OCI_LAYER "+zstd";
    if (str_ends(media_type, "gzip"))
        return oci ? OCI_LAYER "+gzip" : DOCKER_LAYER_GZIP;
    return oci ? OCI_LAYER : "application/vnd.docker.image.rootfs.diff.tar";
}

static bool is_changed(const struct push_layer *layer)
{
    return !digest_eq(&layer->found.digest, &layer->original.digest);
}

/* Docker's family has no zstd: such an image becomes one of OCI's. */
static bool becomes_oci(const struct push_image *image)
{
    for (size_t i = 0; i < image->manifest->layer_count; i++) {
        if (str_ends(image->layers[i]->found.media_type, "zstd"))
            return true;
    }
    return !str_eq(image->manifest->media_type, DOCKER_MANIFEST);
}

static void set_string(json_t *object, const char *key, const char *value)
{
    json_object_set_new(object, key, json_string(value));
}

static void change_layers(const struct push_image *image, json_t *json, bool oci, bool other_family)
{
    json_t *layers = json_object_get(json, "layers");

    for (size_t i = 0; i < image->manifest->layer_count; i++) {
        const struct descriptor *found = &image->layers[i]->found;
        json_t *item = json_array_get(layers, i);
        if (is_changed(image->layers[i])) {
            set_string(item, "digest", found->digest.text);
            json_object_set_new(item, "size", json_integer((json_int_t)found->size_bytes));
        } else if (!other_family) {
            continue;
        }
        set_string(item, "mediaType", type_for(found->media_type, oci));
    }
}

/* It came as a tar, and another way than from a registry: nobody knows it by that digest. */
static bool was_never_sent(const struct push_layer *layer)
{
    return digest_eq(&layer->original.digest, &layer->diff_id) && !layer_fetchable(layer);
}

static char *describe(const struct push_image *image, bool other_family)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    size_t packed = 0, others = 0, count = image->manifest->layer_count;

    for (size_t i = 0; i < count; i++) {
        if (!is_changed(image->layers[i]) || was_never_sent(image->layers[i]))
            continue;
        if (image->layers[i]->way == PUSH_PACK)
            packed++;
        else
            others++;
    }
    if (packed && image->layers[0]->push->compression_given)
        strbuf_addf(&text, "%zu of %zu layers were compressed anew, as asked for", packed, count);
    else if (packed)
        strbuf_addf(&text,
                    "%zu of %zu layers were compressed anew, for the blobs they came as were not "
                    "kept (see keep-compressed)",
                    packed, count);
    if (others)
        strbuf_addf(&text, "%s%zu of %zu layers are at the registry in another compression already",
                    packed ? "; " : "", others, count);
    if (other_family && text.length)
        strbuf_add_str(&text, "; it is an OCI manifest now, for Docker's have no zstd");
    return strbuf_take(&text);
}

char *push_manifest(struct push_image *image, size_t *ret_size, char **ret_type)
{
    bool changed = false, oci = becomes_oci(image);
    bool other_family = oci && str_eq(image->manifest->media_type, DOCKER_MANIFEST);
    CLEANUP_JSON json_t *json = NULL;
    char *text;

    for (size_t i = 0; i < image->manifest->layer_count; i++)
        changed = changed || is_changed(image->layers[i]);
    if (!changed) {
        *ret_size = image->data.manifest_size;
        *ret_type = xstrdup(image->manifest->media_type);
        return xmemdup(image->data.manifest, image->data.manifest_size);
    }
    /* It was parsed before. */
    json = json_parse(image->data.manifest, image->data.manifest_size, MANIFEST_MAX_BYTES,
                      "the manifest", NULL);
    CHECK(json);
    change_layers(image, json, oci, other_family);
    if (other_family) {
        set_string(json, "mediaType", OCI_MANIFEST);
        set_string(json_object_get(json, "config"), "mediaType", OCI_CONFIG);
    }
    image->difference = describe(image, other_family);
    text = json_text(json);
    *ret_size = strlen(text);
    *ret_type = xstrdup(other_family ? OCI_MANIFEST : image->manifest->media_type);
    return text;
}
