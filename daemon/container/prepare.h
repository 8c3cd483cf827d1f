/* From an image's config and its mounted layers to a bundle that a runtime can create a container
 * from: overlay, files of /etc, user, working directory, config.json. */
#pragma once

#include "daemon/container/container.h"
#include "daemon/container/rootfs.h"

struct preparation {
    /* In; borrowed. */
    const char *id;
    const struct container_paths *paths;
    const struct container_options *options;
    const char *config_data; /* of the image */
    size_t config_size;
    char *const *lower_dirs; /* bottom first */
    size_t lower_count;
    const struct digest *diff_ids; /* as many */
    /* Out. */
    bool ok;
    struct error err;
    uint32_t uid, gid; /* of the container's first process */
};

/* Fills a struct preparation. For await_work. What it left when it failed is removed with the
 * container's paths. */
void prepare_container(void *arg);
