/* Shared between save.c and save_documents.c only. */
#pragma once

#include "daemon/image/save.h"
#include "proto/base/strbuf.h"

struct save_image {
    struct digest id, parent; /* parent: unset unless it is saved, too */
    char **tags;              /* canonical, sorted; NULL: none */
    size_t tag_count;
    struct layer_info *layers;
    size_t layer_count;
    uint64_t config_bytes;
    char *manifest;
    struct digest manifest_digest;
};

/* What lies beside the blobs. The texts are the caller's. */
char *save_index(const struct save_image *images, size_t count);
char *save_manifest_json(const struct save_image *images, size_t count);
char *save_repositories(const struct save_image *images,
                        size_t count); /* NULL: there are no tags */
