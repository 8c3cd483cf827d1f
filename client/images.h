/* The list of images as rows of Docker's table: a pure function, for `davit images`. */
#pragma once

#include "client/ui/table.h"
#include "proto/davit/v1/images.pb-c.h"

struct images_view {
    bool only_ids, full_ids, digests;
    int64_t now_unix; /* seconds; ages are counted from here */
};

/* Appends the table, or the IDs one per line. An image has one row per tag (and digest, where they
 * are shown), one per repository where only digests are known, else one with "<none>". */
void images_print(const Davit__V1__ListImagesResponse *list, const struct images_view *view,
                  struct strbuf *out);
