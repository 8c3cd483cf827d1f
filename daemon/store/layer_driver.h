/* How layers are kept on disk, behind one interface: chosen when the store is opened. Each layer
 * has a directory of its own, which the driver fills while it lies in tmp/ and the store moves into
 * place and removes; only the driver knows what is in it. */
#pragma once

#include "proto/async/task.h"

struct layer_driver_context {
    const char *untar_path;
};

struct layer_driver {
    const char *name;

    /* Begins to fill an empty directory. The result is freed by end_await only. The descriptor is
     * the caller's and stays open until then. */
    void *(*await_prepare)(const struct layer_driver_context *context, int dir_fd,
                           struct error *err);

    /* The next bytes of the uncompressed tar; waits while the driver is busy. */
    bool (*await_write)(void *preparation, const void *data, size_t size, struct error *err);

    /* No more bytes: all is written, though not yet durable. */
    bool (*await_commit)(void *preparation, uint64_t *ret_content_bytes, struct error *err);

    /* Ends what still runs, whatever the task's state, and frees. After it nobody touches the
     * directory. Takes NULL. */
    void (*end_await)(void *preparation);

    /* The layer in this directory as an overlayfs lower layer; the path is the caller's. Called for
     * the first user, and the other after the last. */
    bool (*await_mount)(const char *layer_path, char **ret_path, struct error *err);
    void (*unmount_await)(const char *layer_path);
};

extern const struct layer_driver directory_driver;
