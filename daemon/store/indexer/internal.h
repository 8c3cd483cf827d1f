/* Shared between the files of this folder only. */
#pragma once

#include "daemon/store/erofs/tree.h"
#include "daemon/store/indexer/indexer.h"

/* The directory at path (length bytes of it), in the root, through links; missing ones are created,
 * but none that a link leads to: what openat2(2) does with RESOLVE_IN_ROOT, and mkdir(2) step by
 * step. A whiteout in the way becomes a directory that hides the same. NULL with errno. */
struct erofs_inode *resolve_dir(struct erofs_tree *tree, const char *path, size_t length);

/* In overlayfs form: a character device 0:0 hides what lower layers have there. */
bool is_whiteout(const struct erofs_inode *inode);

/* Makes a directory hide what lower layers have there. False with errno. */
bool set_opaque(struct erofs_tree *tree, struct erofs_inode *dir);
