/* What the program that reads a layer's archive (davit-untar, davit-index) says to the daemon when
 * it is done, on its standard output. */
#pragma once

#include "daemon/store/archive/limits.h"
#include "proto/base/digest.h"
#include "proto/base/strbuf.h"

struct layer_report {
    uint64_t content_bytes; /* of regular files and symlinks, each inode once: as Docker counts */
    uint64_t entries;
    uint64_t index_bytes;  /* davit-index: of the EROFS index */
    uint64_t sparse_bytes; /* davit-index: of the expanded content beside the archive; often 0 */
    struct digest seal;    /* davit-index: see erofs/seal.h */
    /* davit-untar: paths of directories to be marked opaque, each with its NUL. The mark is a
     * trusted.* xattr, for which it is not privileged enough: its parent sets it. */
    struct strbuf opaque;
};

void layer_report_done(struct layer_report *report);

/* Longer is not from one of ours. */
#define REPORT_MAX (LAYER_OPAQUE_MAX + 4 * KIB)

void report_encode_result(struct strbuf *out, const struct layer_report *report);
void report_encode_error(struct strbuf *out, const struct error *err);

/* True with *ret filled (release with layer_report_done), or false with the error that was
 * reported. Anything malformed, also nothing at all, is INTERNAL (UNPACKER_FAILED): what reads an
 * archive from a stranger is not trusted with what it says either. */
bool report_decode(const char *data, size_t size, struct layer_report *ret, struct error *err);
