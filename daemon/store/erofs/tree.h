/* A tree of files in memory, from which an EROFS image is made (image.h): small, since layers have
 * a million files, and without I/O: where the content of a file lies is all it knows of it.
 *
 * Nouns: an *inode*; a *name* that leads to it from a directory. Both live as long as the tree.
 * Begin with erofs_tree_put(). */
#pragma once

#include <sys/stat.h>

#include "proto/base/util.h"

#define EROFS_NAME_MAX 255

struct erofs_tree;
struct erofs_name;
struct erofs_xattrs;

struct erofs_inode {
    int64_t seconds; /* of the last change */
    uint32_t nanoseconds;
    uint32_t uid, gid;
    uint32_t links; /* names that lead here; of a directory also "." and its subdirectories' ".." */
    uint64_t size;  /* of a file or symlink; set before it gets a name */
    union {
        uint32_t device; /* number of a device node, as makedev(3) has it below 2^32 */
        const char *target;
        struct {
            struct erofs_name *names; /* what is in it */
            struct erofs_inode *parent;
        } dir;
        struct {
            uint32_t block;  /* where a file's content begins, in 512 bytes */
            uint32_t source; /* 1: the archive, 2: sparse content */
        } content;
    };
    struct erofs_xattrs *xattrs; /* NULL: none */
    uint16_t mode;
    /* Of the image. */
    uint8_t layout;
    bool extended;
    uint32_t nid;
    uint32_t data_block;
    uint32_t name_count;
};

struct erofs_tree *erofs_tree_new(void); /* with a root: 0755, time 0 */
struct erofs_tree *erofs_tree_free(struct erofs_tree *tree);
static inline void erofs_tree_cleanup(struct erofs_tree **tree)
{
    *tree = erofs_tree_free(*tree);
}

struct erofs_inode *erofs_tree_root(struct erofs_tree *tree);

/* Of regular files and symlinks that have a name, each counted once. */
uint64_t erofs_tree_content_bytes(const struct erofs_tree *tree);

/* What it all takes, about. */
size_t erofs_tree_memory(const struct erofs_tree *tree);

/* An inode with mode, without name. A symlink's target is copied. */
struct erofs_inode *erofs_inode_new(struct erofs_tree *tree, mode_t mode);
struct erofs_inode *erofs_inode_new_symlink(struct erofs_tree *tree, const char *target);

/* What a directory has under a name (at most EROFS_NAME_MAX bytes), or NULL. */
struct erofs_inode *erofs_tree_get(const struct erofs_tree *tree, const struct erofs_inode *dir,
                                   const char *name, size_t length);

/* Puts the inode there, a directory only if it has no name yet. What was there loses the name, a
 * directory everything in it as well. */
void erofs_tree_put(struct erofs_tree *tree, struct erofs_inode *dir, const char *name,
                    size_t length, struct erofs_inode *inode);

/* Sets an xattr; the values are copied, and shared between inodes. False with errno as setxattr(2)
 * has it: EOPNOTSUPP if it is not user.*, trusted.* or security.*, EINVAL if nothing follows that,
 * ERANGE if too much does, E2BIG. */
bool erofs_inode_set_xattr(struct erofs_tree *tree, struct erofs_inode *inode, const char *name,
                           const void *value, size_t size);
