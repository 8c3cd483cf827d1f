/* A walk over a tree that strangers named: relative to descriptors, never through a link, at any
 * depth with a few descriptors. Blocks: for the thread pool. */
#pragma once

#include <stdatomic.h>
#include <sys/stat.h>

#include "proto/base/error.h"

#define STAT_BLOCK_BYTES 512 /* of st_blocks: stat(3type) */

struct tree_walk;

struct tree_entry {
    const char *name; /* in its directory; NULL for the root */
    int dir_fd;       /* its directory; -1 for the root */
    int fd;           /* the entry itself, O_PATH; of the root as it was opened */
    struct stat st;
    /* For the second and further names of an inode: the number of its first, counted from 0, the
     * root's. Otherwise 0. */
    uint64_t same_as;
    bool leaving; /* all of a directory has been given; nothing else is set */
};

/* The tree below dir_fd, which stays the caller's. `changing`: it may be in use, and what comes and
 * goes during the walk is no error. */
struct tree_walk *tree_walk_new(int dir_fd, bool changing);
struct tree_walk *tree_walk_free(struct tree_walk *walk); /* takes NULL; returns NULL */
static inline void tree_walk_cleanup(struct tree_walk **walk)
{
    *walk = tree_walk_free(*walk);
}

/* The next entry, sorted by name within each directory, directories before what is in them: 1; 0
 * after the last; -1 with err, DATA_LOSS (LAYER_DAMAGED) where the tree does not hold what it
 * should or cannot be read. What it gives is valid until the next call. */
int tree_walk_next(struct tree_walk *walk, struct tree_entry *ret, struct error *err);

/* The error of an operation on an entry of the tree, from errno, as tree_walk_next() gives it. */
bool tree_failed(const char *doing, const char *name, struct error *err);

/* Allocated bytes of the tree, each inode once, as du(1) counts. As far as it gets, where the tree
 * is changing or cannot be read, or once *stop is true (NULL: never). */
uint64_t tree_disk_bytes(int dir_fd, const atomic_bool *stop);
