/* How layers are kept on disk, behind one interface: chosen when the store is opened. Each layer
 * has a directory of its own, which the driver fills while it lies in tmp/ and the store moves into
 * place and removes; only the driver knows what is in it. */
#pragma once

#include "proto/async/task.h"
#include "proto/base/digest.h"

struct layer_driver_context {
    const char *untar_path, *index_path; /* the confined readers of archives */
};

/* What a driver says of a layer that is complete. */
struct layer_content {
    uint64_t content_bytes; /* of regular files and symlinks, each inode once */
    uint64_t disk_bytes;    /* allocated by what it put into the directory; 0: not known without
                               looking at all of it again */
    char *seal;             /* short text; lets check_begin() see any later change that the hash of
                               the tar does not show. The caller's. */
};

/* A layer in its place. */
struct layer_place {
    const char *directory;
    const char
        *mount_point; /* outside of it; exists while the driver has something mounted there */
};

struct layer_driver {
    const char *name;
    const char *summary;  /* how it keeps layers, for people */
    const char *needs;    /* "it takes ..."; NULL: nothing that a data root may lack */
    const char *tar_name; /* of the uncompressed tar in a layer's directory; NULL: it keeps none */

    /* Whether what is mounted stays as it is when the layer's directory goes. */
    bool replaces_mounted;

    /* Whether it works in this data root, found out by trying it in an empty directory there.
     * Blocks. The error says why not. */
    bool (*probe)(int dir_fd, struct error *err);

    /* Begins to fill an empty directory. The result is freed by end_await only. The descriptor is
     * the caller's and stays open until then. */
    void *(*await_prepare)(const struct layer_driver_context *context, int dir_fd,
                           struct error *err);

    /* The next bytes of the uncompressed tar, in two halves: one for the thread pool, which blocks
     * (NULL: nothing to do there), then one that waits while the driver is busy. */
    bool (*write)(void *preparation, const void *data, size_t size, struct error *err);
    bool (*await_write)(void *preparation, const void *data, size_t size, struct error *err);

    /* No more bytes: everything is written and durable. */
    bool (*await_commit)(void *preparation, struct layer_content *ret, struct error *err);

    /* Ends what still runs, whatever the task's state, and frees. After it nobody touches the
     * directory. Takes NULL. */
    void (*end_await)(void *preparation);

    /* Reads back all of a layer and compares it with its diff_id and seal: begin, steps of about a
     * MiB until one gives 0, end. They block, for the thread pool. A step returns the bytes that it
     * read, in all about check_bytes(); 0 once everything is as it was; or -1: DATA_LOSS
     * (LAYER_DAMAGED) says what has changed. diff_id and seal stay the caller's until the end; seal
     * may be NULL, for a layer from before there were any. */
    void *(*check_begin)(int dir_fd, const struct digest *diff_id, const char *seal);
    ssize_t (*check_step)(void *check, struct error *err);
    void (*check_end)(void *check);
    uint64_t (*check_bytes)(uint64_t tar_bytes, uint64_t content_bytes);

    /* The layer as an overlayfs lower layer; the path is the caller's. Called for each user, also
     * when it is mounted already, be it by a daemon before this one; the other after the last.
     * One layer is mounted or unmounted by one task at a time. */
    bool (*await_mount)(const struct layer_place *place, char **ret_path, struct error *err);
    void (*unmount_await)(const struct layer_place *place);
};

extern const struct layer_driver erofs_driver;
extern const struct layer_driver directory_driver;
