/* An overlay of layers with a directory to write to on top. Blocks: for the thread pool. */
#pragma once

#include "proto/base/error.h"

struct overlay {
    char *const *lower_dirs; /* bottom first; at least one, at most 127 */
    size_t lower_count;
    const char *upper_dir, *work_dir;
    const char *mount_point;
    bool disposable; /* never synced to disk */
};

/* Mounts it. The error has what the kernel says. */
bool overlay_mount(const struct overlay *overlay, struct error *err);
