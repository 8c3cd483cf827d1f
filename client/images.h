/* The list of images as rows, as Docker makes them: a pure function, for `davit images`. */
#pragma once

#include "proto/base/error.h"
#include "proto/base/strbuf.h"
#include "proto/davit/v1/images.pb-c.h"

struct images_view {
    bool only_ids, full_ids, digests;
    const char *format; /* of --format; NULL: a table */
    int64_t now_unix;   /* seconds; ages are counted from here */
    size_t width;       /* that a table has to fit; 0: any */
};

/* Appends the table, or the IDs one per line, or what the format wants. An image has one row per
 * tag (and digest, where they are shown), one per repository where only digests are known, else one
 * with "<none>". INVALID_ARGUMENT for a format that is none. */
bool images_print(const Davit__V1__ListImagesResponse *list, const struct images_view *view,
                  struct strbuf *out, struct error *err);
