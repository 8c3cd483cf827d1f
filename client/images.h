/* The list of images: all its pages, for who asks the daemon, and as rows, as Docker makes them. */
#pragma once

#include "client/cli.h"
#include "proto/davit/v1/images.pb-c.h"

#define CLEANUP_IMAGE_LIST CLEANUP(image_list_cleanup)

static inline void image_list_cleanup(Davit__V1__ListImagesResponse **list)
{
    davit__v1__list_images_response__free_unpacked(*list, NULL);
}

/* Asks for one page after the other; the request's token is used for that. The caller frees *ret,
 * which also after an error has what came before it. Errors as await_cli_call(). */
bool await_image_list(struct cli *cli, Davit__V1__ListImagesRequest *request,
                      Davit__V1__ListImagesResponse **ret, struct error *err);

struct images_view {
    bool only_ids, full_ids, digests;
    const char *format; /* of --format; NULL: a table */
    int64_t now_unix;   /* seconds; ages are counted from here */
    size_t width;       /* that a table has to fit; 0: any */
};

/* A pure function. Appends the table, or the IDs one per line, or what the format wants. An image
 * has one row per tag (and digest, where they are shown), one per repository where only digests are
 * known, else one with "<none>". INVALID_ARGUMENT for a format that is none. */
bool images_print(const Davit__V1__ListImagesResponse *list, const struct images_view *view,
                  struct strbuf *out, struct error *err);
