/* Mounting with the kernel's new mount API (fsopen(2), fsconfig(2), fsmount(2), move_mount(2)),
 * with what the kernel says about a failure in the error. Blocks: for the thread pool. */
#pragma once

#include "proto/base/error.h"

/* A new file system of a type to be configured: a descriptor of the caller's, or -1.
 * FAILED_PRECONDITION (FILESYSTEM_MISSING) if the kernel does not have it. */
int fs_open(const char *type, struct error *err);

/* One setting; value NULL: a flag. */
bool fs_set(int context_fd, const char *key, const char *value, struct error *err);

/* One setting that is a path, of any length (the kernel takes strings of 255 bytes). */
bool fs_set_path(int context_fd, const char *key, const char *path, struct error *err);

/* Makes the file system: a descriptor of a mount that is not attached anywhere yet, or -1.
 * attributes: MOUNT_ATTR_*. */
int fs_create(int context_fd, unsigned int attributes, struct error *err);

/* Attaches the mount at a directory. */
bool fs_attach(int mount_fd, const char *path, struct error *err);
