/* The manifest of an image whose layers are uncompressed tars, as archives have them: what was
 * fetched of it does not fit those. The same bytes for the same image, and the same as Docker's. */
#pragma once

#include "daemon/store/store.h"

#define PLAIN_MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define PLAIN_CONFIG_TYPE "application/vnd.oci.image.config.v1+json"
#define PLAIN_LAYER_TYPE "application/vnd.oci.image.layer.v1.tar"

/* Layers: bottom first; of each diff_id and tar_bytes count. The text is the caller's. */
char *plain_manifest(const struct digest *config, uint64_t config_size,
                     const struct layer_info *layers, size_t count);
