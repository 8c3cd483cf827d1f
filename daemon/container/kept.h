/* Containers that have ended, whose files are kept: each has a note on the disk, so that a later
 * daemon knows of them, and holds its image and its layers. Shared between the files of this
 * folder only. */
#pragma once

#include "daemon/container/engine.h"

struct kept_container {
    struct list node;
    struct container_usage usage;
    struct image_hold *hold;   /* NULL: the note cannot be read */
    struct layer_lease *lease; /* its writable layer lies on these */
};

struct kept_note {
    const char *id;
    const struct digest *image;
    const struct digest *diff_ids; /* bottom first */
    size_t diff_id_count;
    int64_t created_unix;
};

#define KEPT_NOTE "container.json" /* in the container's directory below the data root */

/* Blocks. */
bool kept_note_write(const char *directory, const struct kept_note *note, struct error *err);

/* Adds those that earlier daemons kept. Their bytes the background counts. */
bool await_kept_load(struct container_engine *engine, char *const *ids, struct error *err);

/* Adds one that has ended; counts its bytes. Suspends, also for a cancelled task. */
void kept_add_await(struct container_engine *engine, const struct container *container);

void kept_clear(struct container_engine *engine);
