/* Manifests, indexes and image configurations: what is taken is within the limits. The first byte
 * chooses the Content-Type. */
#include "daemon/registry/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_index(const struct manifest *index)
{
    static const char *const wanted[] = {"linux/amd64", "linux/arm64", "linux/arm/v7", "s390x"};

    CHECK(index->entry_count <= INDEX_MAX_ENTRIES);
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
        CLEANUP_PLATFORM struct platform platform = {0};
        CLEANUP_ERROR struct error err = {0};
        CHECK(platform_parse(wanted[i], &platform, NULL));
        CHECK(manifest_choose(index, &platform, &err) || error_is(&err, "NO_MATCHING_PLATFORM"));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const types[] = {
        NULL,
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json; charset=utf-8",
        "application/json",
    };
    CLEANUP(manifest_cleanup) struct manifest *manifest = NULL;
    CLEANUP(image_config_cleanup) struct image_config *config = NULL;
    CLEANUP_FREE char *text = NULL;
    CLEANUP_PLATFORM struct platform platform = {0};

    if (size == 0)
        return 0;
    manifest = manifest_parse(data + 1, size - 1, types[data[0] % ARRAY_SIZE(types)], NULL);
    if (manifest && manifest->kind == MANIFEST_INDEX)
        check_index(manifest);
    if (manifest && manifest->kind == MANIFEST_IMAGE)
        CHECK(manifest->layer_count <= MANIFEST_MAX_LAYERS);
    config = image_config_parse(data + 1, size - 1, NULL);
    if (config)
        CHECK(config->diff_id_count <= MANIFEST_MAX_LAYERS && config->os && config->architecture);
    text = xstrndup((const char *)data, size);
    if (platform_parse(text, &platform, NULL))
        CHECK(platform_rank(&platform, &platform) == 0);
    return 0;
}
