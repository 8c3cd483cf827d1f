/* The root directory of a container: an overlay over the layers of its image, and safe access to
 * what is in it. An image's tree is hostile: links, FIFOs, device nodes where files are expected.
 * Everything here blocks: for the thread pool. */
#pragma once

#include "proto/base/error.h"

/* Where a container's files are. */
struct container_paths {
    char *data_dir;   /* on disk: upper, work, and the files of /etc it may write to */
    char *bundle_dir; /* below the exec root: config.json, log, pid file, the mount point */
    char *rootfs;     /* the mount point */
};
void container_paths_init(struct container_paths *paths, const char *data_root,
                          const char *exec_root, const char *id);
void container_paths_done(struct container_paths *paths);

/* Creates the directories. */
bool container_paths_create(const struct container_paths *paths, struct error *err);

/* Mounts an overlay over lower_dirs (bottom first, any number from 0 to 127) at paths->rootfs.
 * A disposable one is never synced to disk. */
bool rootfs_mount(const struct container_paths *paths, char *const *lower_dirs, size_t count,
                  bool disposable, struct error *err);

/* Unmounts, also what is still in use; no mount there is fine. */
bool rootfs_unmount(const struct container_paths *paths, struct error *err);

/* A whole regular file below the root, links followed inside of it, the caller's. *ret NULL if
 * there is none. What is no regular file or longer than limit_bytes is INVALID_ARGUMENT, reason
 * INVALID_IMAGE. */
bool rootfs_read_file(int root_fd, const char *path, size_t limit_bytes, char **ret,
                      size_t *ret_size, struct error *err);

/* mkdir -p below the root, links followed inside of it, new directories root's with mode 0755. */
bool rootfs_make_dirs(int root_fd, const char *path, struct error *err);

/* Creates or replaces a file of ours with that mode, whatever the umask. */
bool write_file(const char *path, const char *text, mode_t mode, struct error *err);
