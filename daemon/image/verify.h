/* Verifying images: everything that is stored of them is read again, every layer once, and fetched
 * again if so asked. One flow, await_verify(), and its progress as a snapshot at any moment. */
#pragma once

#include "daemon/image/repair.h"

struct verify;

struct verify_request {
    char *const *images; /* as the user typed them; none: all there is */
    size_t image_count;
    bool repair;
    const struct registry_login *logins; /* copied */
    size_t login_count;
};

/* Finds the images. NOT_FOUND (IMAGE_NOT_FOUND) and other errors of image_resolve(). The caller
 * owns it and frees it after await_verify has returned. */
struct verify *verify_new(const struct pull_engine *engine, const struct verify_request *request,
                          struct error *err);
struct verify *verify_free(struct verify *verify);
static inline void verify_cleanup(struct verify **verify)
{
    *verify = verify_free(*verify);
}

/* Reads everything, then repairs what is to be. What is damaged is no error, but a problem: an
 * error is what keeps the rest from being verified. Suspends for as long as that takes. */
bool await_verify(struct verify *verify, struct error *err);

enum verify_phase { VERIFY_CHECKING, VERIFY_REPAIRING, VERIFY_DONE };

struct verify_progress {
    enum verify_phase phase;
    size_t images_done, images_total, layers_done, layers_total;
    uint64_t bytes_done, bytes_total; /* exact from the start */
    uint64_t bytes_per_second;
    int64_t eta_ms; /* -1 while unknown */
    size_t problem_count, repaired_count;
    uint64_t repair_bytes_done, repair_bytes_total; /* of what is being fetched now */
};
void verify_progress(const struct verify *verify, struct verify_progress *ret);

#define VERIFY_IMAGES_NAMED 16

struct verify_problem {
    char **images;       /* familiar names, or IDs, of the first that have it; NULL-terminated */
    size_t image_count;  /* of all that have it */
    struct digest layer; /* not set: the image itself, its manifest or config */
    struct digest image; /* ID, if the image itself */
    struct error error;  /* what is wrong, and what to do */
    bool repaired;
};

/* Those about which no more is to be learned, in the order in which they became so: NULL from the
 * end on. Borrowed, valid until verify_free(). */
const struct verify_problem *verify_settled_problem(const struct verify *verify, size_t index);
