/* What is known once something was sent to a registry. */
#include "daemon/store/event.h"
#include "daemon/store/internal.h"

struct sent_work {
    const struct digest *diff_id;
    const struct layer_blob *blob;
    const char *repository;
};

static bool write_sent(struct db *db, void *arg, struct error *err)
{
    const struct sent_work *work = arg;

    return source_write(db, work->diff_id->text, work->repository, work->blob, wall_clock_ns(),
                        err);
}

bool await_layer_sent(struct store *store, const struct digest *diff_id,
                      const struct layer_blob *blob, const char *repository, struct error *err)
{
    struct sent_work work = {diff_id, blob, repository};
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);

    if (!locked)
        return false;
    if (!layer_get(store, diff_id))
        return error_set(err, ERROR_NOT_FOUND, "LAYER_NOT_FOUND", "layer %.19s is not in the store",
                         diff_id->text);
    return await_db_transaction(locked, write_sent, &work, err);
}

struct pushed_work {
    const struct store *store;
    const struct digest *id;
    const char *repo_digest;
    const struct event_note *note;
    struct event_record *event;
};

static bool write_pushed(struct db *db, void *arg, struct error *err)
{
    struct pushed_work *work = arg;

    return db_run(db, "INSERT OR REPLACE INTO image_names VALUES (?, 'digest', ?)", err,
                  db_text(work->repo_digest), db_text(work->id->text)) &&
           event_write(db, work->store, work->note, &work->event, err);
}

bool await_image_pushed(struct store *store, const struct digest *id, const char *repo_digest,
                        const struct event_note *event, struct error *err)
{
    struct pushed_work work = {.store = store, .id = id, .repo_digest = repo_digest, .note = event};
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);
    struct image *image;

    if (!locked)
        return false;
    image = image_get(store, id);
    if (!image)
        return error_set(err, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "there is no image %.19s",
                         id->text);
    if (!await_db_transaction(locked, write_pushed, &work, err)) {
        event_record_unref(work.event);
        return error_prefix(err, "cannot note the push of image %.19s", id->text);
    }
    image_add_name(store, image, repo_digest, false);
    event_publish(store, work.event);
    return true;
}
