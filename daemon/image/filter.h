/* Which images somebody means: Docker's filters, each "name=value". Lists know dangling, label,
 * before, since, until and reference; prunes dangling, label, label! and until. Several of one
 * name: all labels and times must be right, any one of the references. */
#pragma once

#include "daemon/store/store.h"

enum image_filter_use { IMAGE_FILTER_LIST, IMAGE_FILTER_PRUNE };

enum image_dangling { DANGLING_NOT_ASKED, DANGLING_YES, DANGLING_NO };

struct image_filter {
    enum image_dangling dangling; /* for the caller: lists and prunes mean different things by it */
    int64_t before_unix_ns;       /* made before then; INT64_MAX: whenever */
    int64_t after_unix_ns;        /* made after then; INT64_MIN: whenever */
    char **labels, **labels_not;  /* "key" or "key=value" */
    char **references;            /* patterns of familiar names */
};

/* INVALID_ARGUMENT with reason INVALID_FILTER, in Docker's words: for a name that is none of this
 * use, a value that is none of this name. Images that `before` and `since` name are looked up as
 * image_resolve() does, with its errors. Does not suspend. To be released also after a failure. */
bool image_filter_parse(const struct store *store, enum image_filter_use use, char *const *filters,
                        size_t count, struct image_filter *ret, struct error *err);
void image_filter_done(struct image_filter *filter);
#define CLEANUP_IMAGE_FILTER CLEANUP(image_filter_done)

/* By its time and labels; of dangling and references the caller asks itself. */
bool image_filter_match(const struct image_filter *filter, const struct image *image);

/* Whether a canonical tag or digest is one of the references; true if none were asked for. */
bool image_filter_match_name(const struct image_filter *filter, const char *canonical);
