/* More names for images that are there. */
#include "daemon/store/event.h"
#include "daemon/store/internal.h"

struct name_work {
    const struct store *store;
    const struct digest *id;
    const char *name, *kind;
    const struct event_note *note;
    struct event_record *event;
    int64_t tagged_unix_ns; /* 0: as it was */
};

static bool write_name(struct db *db, void *arg, struct error *err)
{
    struct name_work *work = arg;

    return db_run(db, "INSERT OR REPLACE INTO image_names VALUES (?, ?, ?)", err,
                  db_text(work->name), db_text(work->kind), db_text(work->id->text)) &&
           (work->tagged_unix_ns == 0 ||
            image_tagged_write(db, work->id, work->tagged_unix_ns, err)) &&
           event_write(db, work->store, work->note, &work->event, err);
}

static bool await_add_name(struct store *store, struct name_work *work, struct error *err)
{
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);
    struct image *image;

    if (!locked)
        return false;
    image = image_get(store, work->id);
    if (!image)
        return error_set(err, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "there is no image %.19s",
                         work->id->text);
    /* Not of pushes: what has been done cannot be refused. */
    if (work->tagged_unix_ns && map_get(store->names, work->name) != image &&
        !image_check_name_count(image->tag_count + image->repo_digest_count + 1, err))
        return error_prefix(err, "cannot tag image %.19s", work->id->text);
    work->store = store;
    if (!await_db_transaction(locked, write_name, work, err)) {
        event_record_unref(work->event);
        return error_prefix(err, "cannot name image %.19s %s", work->id->text, work->name);
    }
    image_add_name(store, image, work->name, str_eq(work->kind, "tag"));
    if (work->tagged_unix_ns)
        image->tagged_unix_ns = work->tagged_unix_ns;
    event_publish(store, work->event);
    return true;
}

bool await_image_tag(struct store *store, const struct digest *id, const char *canonical,
                     const struct event_note *event, struct error *err)
{
    struct name_work work = {.id = id,
                             .name = canonical,
                             .kind = "tag",
                             .note = event,
                             .tagged_unix_ns = wall_clock_ns()};

    return await_add_name(store, &work, err);
}

bool await_image_pushed(struct store *store, const struct digest *id, const char *repo_digest,
                        const struct event_note *event, struct error *err)
{
    struct name_work work = {.id = id, .name = repo_digest, .kind = "digest", .note = event};

    return await_add_name(store, &work, err);
}
