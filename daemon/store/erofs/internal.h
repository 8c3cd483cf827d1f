/* Shared between the files of this folder only. */
#pragma once

#include "daemon/store/erofs/format.h"
#include "daemon/store/erofs/image.h"
#include "daemon/store/erofs/table.h"
#include "daemon/store/erofs/tree.h"

/* --- tree.c ------------------------------------------------------------------------------------
 */

struct arena_chunk;

/* Memory that is given back all at once. */
struct arena {
    struct arena_chunk *chunks;
    char *at;
    size_t left, total;
};

struct erofs_name {
    struct table_item item;
    uint8_t length;
    struct erofs_inode *dir, *inode;
    struct erofs_name *next; /* in dir */
    char text[];             /* no NUL */
};

struct erofs_tree {
    struct arena arena;
    struct table names;  /* struct erofs_name by dir and text */
    struct table xattrs; /* struct erofs_xattr by name and value */
    struct erofs_inode *root;
    uint64_t content_bytes;
};

void *arena_add(struct arena *arena, size_t size);

/* --- xattr.c -----------------------------------------------------------------------------------
 */

/* One name and value, which several inodes may have. */
struct erofs_xattr {
    struct table_item item;
    uint32_t uses;
    uint32_t shared_id; /* where it is in the image, if it is used more than once */
    uint16_t value_size;
    uint8_t prefix, name_length;
    char data[]; /* name without prefix, value */
};

struct erofs_xattrs {
    uint32_t count, capacity;
    struct erofs_xattr *items[];
};

#define EROFS_SHARED_MAX 255 /* xattrs that one inode can share */

/* In the image: the entry of one, and what an inode has after it in all. Multiples of 4. */
uint32_t erofs_xattr_size(const struct erofs_xattr *xattr);
uint32_t erofs_xattrs_size(const struct erofs_xattrs *xattrs); /* 0 for NULL */

/* How many of its items an inode shares; they are the first that have more than one use. */
size_t erofs_xattrs_shared(const struct erofs_xattrs *xattrs);

/* --- layout.c ----------------------------------------------------------------------------------
 */

struct erofs_image {
    struct erofs_tree *tree;
    struct erofs_inode **inodes; /* in the order of the image: breadth first, the root first */
    size_t inode_count;
    struct erofs_xattr **shared;
    size_t shared_count;
    int64_t build_seconds;
    uint32_t build_nanoseconds;
    uint64_t meta_end, xattr_begin, xattr_end, data_begin, end; /* bytes */
    uint64_t source_blocks[EROFS_SOURCES];
};

#define EROFS_META_BEGIN ((uint64_t)EROFS_SUPER_OFFSET + EROFS_BLOCK)

/* Sorts directories and gives everything its place. */
void erofs_layout(struct erofs_image *image);

static inline uint64_t erofs_inode_offset(const struct erofs_inode *inode)
{
    return (uint64_t)inode->nid * EROFS_SLOT;
}

/* Bytes of an inode with xattrs, before what is inline or its chunks. */
uint32_t erofs_inode_head(const struct erofs_inode *inode);

/* A block's worth of names. */
struct erofs_dir_block {
    const struct erofs_name *first;
    size_t count, size;
};

/* The block that begins with name; returns the name after it, NULL at the end. */
const struct erofs_name *erofs_dir_block(const struct erofs_name *name,
                                         struct erofs_dir_block *ret);

static inline uint64_t erofs_round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}
