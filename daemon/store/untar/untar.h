/* The unpacker of layers: reads a tar archive from a stranger and writes its entries below one
 * directory, never anywhere else (SECURITY.md, rules 1 and 2). It runs in davit-untar, a process of
 * its own that has confined itself (confine.h); the daemon talks to it through archive/report.h.
 *
 * Nouns: the *input*, where bytes come from; the *report*; an *opaque* directory, one that hides
 * what lower layers have in its place. Begin with untar(). */
#pragma once

#include "daemon/store/archive/layer_reader.h"
#include "daemon/store/archive/report.h"

/* Unpacks the archive below root_fd and reads the input to its end. Everything but tar, `..` that
 * leaves the root, links out of it, names that are too long: DATA_LOSS (INVALID_LAYER), naming the
 * entry; a full disk: RESOURCE_EXHAUSTED (NO_SPACE). What was written until then stays. What no
 * entry describes, the root and missing parents, is root's, 0755 and of 1970. Blocks; wants umask
 * 0; moves the working directory. */
bool untar(int root_fd, const struct layer_input *input, struct layer_report *ret,
           struct error *err);
