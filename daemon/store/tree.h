/* Removal of trees that strangers named: relative to descriptors, never through a link, at any
 * depth with two descriptors. Blocks: for the thread pool and for davit-untar. */
#pragma once

#include <stdatomic.h>
#include <sys/stat.h>

#include "proto/base/util.h"

struct tree_remove_options {
    /* Called for everything that was removed, with what it was; may be NULL. */
    void (*removed)(void *arg, const struct stat *st);
    void *arg;
    const atomic_bool *stop; /* ends early with ECANCELED once true; may be NULL */
};

/* Removes `name` in dir_fd (not AT_FDCWD), a tree or anything else; what is not there is fine. The
 * tree must be nobody else's meanwhile. options may be NULL. 0 or a negative errno. */
int tree_remove(int dir_fd, const char *name, const struct tree_remove_options *options);
