/* Loading: from an archive of images to images in the store. One flow, await_load(): the archive is
 * read once, as it comes; its layers are stored as they pass, its documents are kept until the end,
 * when they tell what the images are; then all of them become visible at once, or none.
 *
 * Nouns: a *member* of the archive, which is a *document* (JSON), a *layer*, or a link to another;
 * the *plan*, what images there are by the documents. Begin with await_load(). */
#pragma once

#include "daemon/store/store.h"

/* Where the bytes of an archive come from. */
struct archive_source {
    /* The next ones, valid until the next call: their count, 0 at the end, or -1 with err. */
    ssize_t (*await_next)(void *arg, const void **ret, struct error *err);
    void *arg;
    uint64_t bytes_total; /* 0: not known */
    const char *name;     /* for people: "images.tar" */
};

/* What an archive may have, which is what is written, too: documents and names together;
 * manifest.json alone, which is parsed image by image; layers. */
#define LOAD_MAX_BYTES (32 * MIB)
#define LOAD_MAX_LIST_BYTES (16 * MIB)
#define LOAD_MAX_LAYERS 16384
#define LOAD_MEMBER_BYTES (1 * KIB) /* at most, for a name as save gives them */

struct load;

/* All are borrowed and outlive it. platform: NULL or empty: this machine's where there is a choice;
 * otherwise all images must run on it. */
struct load *load_new(struct store *store, const struct archive_source *source,
                      const char *platform);
struct load *load_free(struct load *load); /* returns NULL */

/* Suspends for as long as the source takes. On an error or cancel nothing is visible, and the
 * layers that were stored go again, unless others use them. INVALID_ARCHIVE says what is wrong with
 * which member; INVALID_ARGUMENT (EMPTY_ARCHIVE) for no bytes at all; NOT_FOUND
 * (PLATFORM_MISMATCH); NO_SPACE. */
bool await_load(struct load *load, struct error *err);

enum load_phase { LOAD_READING, LOAD_COMMITTING, LOAD_DONE };
enum load_layer_state { LOAD_LAYER_LOADING, LOAD_LAYER_PRESENT, LOAD_LAYER_DONE };

#define LOAD_PROGRESS_LAYERS 128

struct load_progress {
    enum load_phase phase;
    uint64_t bytes_read, bytes_total, bytes_per_second; /* of the archive */
    unsigned int percent;
    int64_t eta_ms; /* -1 while unknown */
    size_t layer_count;
    struct load_layer_progress {
        const char *id; /* what is known of it: its diff_id, in the end; borrowed */
        enum load_layer_state state;
        uint64_t bytes_done, bytes_total; /* as the archive has them */
    } layers[LOAD_PROGRESS_LAYERS];       /* the last ones */
};
void load_progress(struct load *load, struct load_progress *ret);

/* What was loaded, in the archive's order; of images with the same ID each time. Valid once
 * await_load() has succeeded. */
struct loaded_image {
    struct digest id;
    char *const *names;              /* canonical tags, NULL-terminated; or NULL */
    const struct digest *moved_from; /* per name: the image that had it until then; or NULL */
};
size_t load_count(const struct load *load);
struct loaded_image load_result(const struct load *load, size_t index);
