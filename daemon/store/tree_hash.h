/* One hash over a tree: names, types, modes, owners, times, xattrs, links and contents. The same
 * tree gives the same hash; any change but of access times gives another. Blocks: for the thread
 * pool. Safe on trees that strangers named: relative to descriptors, never through a link, at any
 * depth with a few descriptors. */
#pragma once

#include "proto/base/digest.h"

struct tree_hash;

/* The tree below dir_fd, which stays the caller's and open until the end; nobody changes it.
 * from_disk: contents are read from the disk also where they are cached, and are not cached. */
struct tree_hash *tree_hash_new(int dir_fd, bool from_disk);
struct tree_hash *tree_hash_free(struct tree_hash *hash); /* takes NULL; returns NULL */

/* Goes on until about a MiB is read. Bytes of contents (files and symlinks, each inode once) read,
 * at least 1; 0 at the end; -1 with err. */
ssize_t tree_hash_step(struct tree_hash *hash, struct error *err);

struct digest tree_hash_finish(struct tree_hash *hash); /* once, at the end */

/* Allocated bytes of the tree, each inode once; at the end. */
uint64_t tree_hash_disk_bytes(const struct tree_hash *hash);
