/* Images on their way in. */
#include "daemon/store/event.h"
#include "daemon/store/internal.h"
#include "proto/async/await.h"
#include "proto/base/fault.h"

#define IMAGES_MAX 10000 /* at once */
/* Docker builds with one per instruction; an image that stands deeper has no parent. */
#define PARENTS_MAX 512

/* One of the images, while the transaction is prepared and run. Of those that come twice, the first
 * has the parent and the count of names. */
struct item_work {
    struct image_commit *item;
    uint64_t size_bytes;
    struct digest parent; /* unset: it keeps the one it has */
    size_t name_count;
    struct image_details details;
    struct event_record *event;
};

struct commit_work {
    const struct store *store;
    struct item_work *items;
    size_t count;
    struct map *by_id;   /* the first of each image */
    struct map *renamed; /* images whose names are others now, by their ids */
    const struct event_note *notes;
    struct event_record **events;
    size_t event_count;
    int64_t now_unix_ns;
};

static void commit_work_done(struct commit_work *work)
{
    for (size_t i = 0; i < work->count; i++) {
        image_details_done(&work->items[i].details);
        event_record_unref(work->items[i].event);
    }
    for (size_t i = 0; i < work->event_count; i++)
        event_record_unref(work->events[i]);
    map_free(work->by_id);
    map_free(work->renamed);
    free(work->items);
    free(work->events);
}

/* --- Rows --------------------------------------------------------------------------------------
 */

static bool write_names(struct db *db, char *const *names, const char *kind, const char *id,
                        struct error *err)
{
    for (; names && *names; names++) {
        if (!db_run(db, "INSERT OR REPLACE INTO image_names VALUES (?, ?, ?)", err, db_text(*names),
                    db_text(kind), db_text(id)))
            return false;
    }
    return true;
}

static bool write_rows(struct db *db, const struct item_work *work, struct error *err)
{
    const struct image *image = work->item->image;

    if (!db_run(db,
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE"
                " SET manifest_digest = excluded.manifest_digest, manifest = excluded.manifest,"
                " config = excluded.config",
                err, db_text(image->id.text), db_text(image->manifest_digest.text),
                db_integer(image->created_unix_ns), db_text(image->os),
                db_text(image->architecture), db_integer((int64_t)work->size_bytes),
                db_blob(image->manifest_data, image->manifest_size),
                db_blob(image->config_data, image->config_size)) ||
        !image_details_write(db, &image->id, &work->details, err))
        return false;
    for (size_t i = 0; work->item->is_new && i < image->diff_id_count; i++) {
        /* Not if the same image comes twice. */
        if (!db_run(db, "INSERT OR IGNORE INTO image_layers VALUES (?, ?, ?)", err,
                    db_text(image->id.text), db_integer((int64_t)i),
                    db_text(image->diff_ids[i].text)))
            return false;
    }
    return true;
}

static bool write_item(struct db *db, struct commit_work *work, struct item_work *one,
                       struct error *err)
{
    const struct image *image = one->item->image;
    const char *id = image->id.text;

    one->details = image_details_of(image->config_data, image->config_size);
    if (!write_rows(db, one, err))
        return false;
    if (digest_is_set(&one->parent) && !image_parent_write(db, &image->id, &one->parent, err))
        return false;
    if (one->item->tagged && !image_tagged_write(db, &image->id, work->now_unix_ns, err))
        return false;
    fault_point("image.rows");
    return write_names(db, one->item->tags, "tag", id, err) &&
           write_names(db, one->item->repo_digests, "digest", id, err) &&
           sources_write(db, image, err) &&
           event_write(db, work->store, image->event, &one->event, err);
}

static bool write_all(struct db *db, void *arg, struct error *err)
{
    struct commit_work *work = arg;

    for (size_t i = 0; i < work->count; i++) {
        if (!write_item(db, work, &work->items[i], err))
            return false;
    }
    for (size_t i = 0; i < work->event_count; i++) {
        if (!event_write(db, work->store, &work->notes[i], &work->events[i], err))
            return false;
    }
    return true;
}

/* --- Before ------------------------------------------------------------------------------------
 */

static bool sum_layers(const struct store *store, const struct image *image, uint64_t *ret_bytes,
                       struct error *err)
{
    struct layer_info info;

    *ret_bytes = 0;
    if (image->diff_id_count > LAYERS_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "TOO_MANY_LAYERS",
                         "the image has %zu layers, the limit is %d", image->diff_id_count,
                         LAYERS_MAX);
    for (size_t i = 0; i < image->diff_id_count; i++) {
        if (!layer_find(store, &image->diff_ids[i], &info))
            return error_set(err, ERROR_FAILED_PRECONDITION, "LAYER_MISSING",
                             "layer %.19s of the image is not in the store",
                             image->diff_ids[i].text);
        *ret_bytes += info.content_bytes;
    }
    return true;
}

/* The parent is there, or will be, and does not descend from the image: an archive may say so. */
static bool is_fit_parent(const struct commit_work *work, const struct digest *id,
                          const struct digest *parent)
{
    for (size_t depth = 0; depth < PARENTS_MAX; depth++) {
        const struct item_work *item = map_get(work->by_id, parent->text);
        const struct image *image = image_get(work->store, parent);
        if (digest_eq(parent, id) || (!item && !image))
            return false;
        if (item && digest_is_set(&item->parent))
            parent = &item->parent;
        else if (image && digest_is_set(&image->parent))
            parent = &image->parent;
        else
            return true;
    }
    return false;
}

static size_t count_new(const struct store *store, const struct image *kept, char *const *names)
{
    size_t count = 0;

    for (; names && *names && count <= NAMES_MAX; names++)
        count += !kept || map_get(store->names, *names) != kept;
    return count;
}

static bool prepare(struct commit_work *work, struct item_work *one, struct error *err)
{
    const struct image *image = one->item->image;
    const struct image *kept = image_get(work->store, &image->id);
    struct item_work *first = map_get(work->by_id, image->id.text);

    if (!sum_layers(work->store, image, &one->size_bytes, err))
        return false;
    one->item->is_new = !kept;
    if (one == first && kept)
        first->name_count = kept->tag_count + kept->repo_digest_count;
    first->name_count += count_new(work->store, kept, one->item->tags) +
                         count_new(work->store, kept, one->item->repo_digests);
    if (!image_check_name_count(first->name_count, err))
        return false;
    if (digest_is_set(&image->parent) && is_fit_parent(work, &image->id, &image->parent))
        first->parent = image->parent;
    return true;
}

/* Nothing changes meanwhile: the database is locked. */
static bool await_prepare(struct commit_work *work, struct error *err)
{
    if (work->count > IMAGES_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "TOO_MANY_IMAGES",
                         "cannot store %zu images at once, the limit is %d", work->count,
                         IMAGES_MAX);
    for (size_t i = 0; i < work->count; i++) {
        const char *id = work->items[i].item->image->id.text;
        if (!map_get(work->by_id, id))
            map_put(work->by_id, id, &work->items[i]);
    }
    for (size_t i = 0; i < work->count; i++) {
        int r;
        if (!prepare(work, &work->items[i], err))
            return error_prefix(err, "cannot store image %.19s",
                                work->items[i].item->image->id.text);
        r = await_slice();
        if (r < 0)
            return await_error(err, r, "storing images");
    }
    return true;
}

/* --- In memory ---------------------------------------------------------------------------------
 */

static struct image *copy_image(struct item_work *work)
{
    const struct image *image = work->item->image;
    struct image *copy = image_new();

    copy->id = image->id;
    copy->created_unix_ns = image->created_unix_ns;
    copy->os = xstrdup(image->os);
    copy->architecture = xstrdup(image->architecture);
    copy->variant = TAKE(work->details.variant);
    copy->labels = TAKE(work->details.labels);
    if (image->diff_id_count > 0)
        copy->diff_ids = xmemdup(image->diff_ids, image->diff_id_count * sizeof(*image->diff_ids));
    copy->diff_id_count = image->diff_id_count;
    copy->size_bytes = work->size_bytes;
    return copy;
}

static void apply_name(struct store *store, struct commit_work *work, struct image *kept,
                       const char *name, bool is_tag)
{
    struct image *before = image_append_name(store, kept, name, is_tag);

    if (before)
        map_put(work->renamed, before->id.text, before);
}

static void apply_names(struct store *store, struct commit_work *work, struct image *kept,
                        struct image_commit *item)
{
    size_t count = strv_count(item->tags);

    item->moved_from = count > 0 ? xcalloc(count, sizeof(*item->moved_from)) : NULL;
    for (size_t i = 0; i < count; i++) {
        const struct image *before = map_get(store->names, item->tags[i]);
        if (before && before != kept)
            item->moved_from[i] = before->id;
        item->changed |= before != kept;
        apply_name(store, work, kept, item->tags[i], true);
    }
    for (char *const *name = item->repo_digests; name && *name; name++) {
        if (count == 0)
            item->changed |= map_get(store->names, *name) != kept;
        apply_name(store, work, kept, *name, false);
    }
    map_put(work->renamed, kept->id.text, kept);
}

static void apply_item(struct store *store, struct commit_work *work, struct item_work *one)
{
    struct image_commit *item = one->item;
    struct image *kept = image_get(store, &item->image->id);

    if (!kept) {
        kept = copy_image(one);
        image_add(store, kept);
    }
    kept->manifest_digest = item->image->manifest_digest;
    kept->damaged = false;
    if (item->tagged)
        kept->tagged_unix_ns = work->now_unix_ns;
    item->changed = item->is_new;
    apply_names(store, work, kept, item);
}

static void apply(struct store *store, struct commit_work *work)
{
    size_t iterator = 0;
    void *renamed;

    for (size_t i = 0; i < work->count; i++)
        apply_item(store, work, &work->items[i]);
    while (map_next(work->renamed, &iterator, NULL, &renamed))
        image_settle_names(store, renamed);
    for (size_t i = 0; i < work->count; i++) {
        struct image *kept = image_get(store, &work->items[i].item->image->id);
        if (digest_is_set(&work->items[i].parent))
            image_set_parent(store, kept, &work->items[i].parent);
        event_publish(store, TAKE(work->items[i].event));
    }
    for (size_t i = 0; i < work->event_count; i++)
        event_publish(store, TAKE(work->events[i]));
}

/* --- All of it ---------------------------------------------------------------------------------
 */

bool await_images_commit(struct store *store, struct image_commit *items, size_t count,
                         const struct event_note *events, size_t event_count, struct error *err)
{
    CLEANUP(commit_work_done)
    struct commit_work work = {.store = store,
                               .items = xcalloc(count + 1, sizeof(struct item_work)),
                               .count = count,
                               .by_id = map_new(),
                               .renamed = map_new(),
                               .notes = events,
                               .events = xcalloc(event_count + 1, sizeof(struct event_record *)),
                               .event_count = event_count,
                               .now_unix_ns = wall_clock_ns()};
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);

    for (size_t i = 0; i < count; i++)
        work.items[i].item = &items[i];
    if (!locked || !await_prepare(&work, err))
        return false;
    if (!await_db_transaction(locked, write_all, &work, err)) {
        if (count == 1)
            return error_prefix(err, "cannot store image %.19s", items[0].image->id.text);
        return error_prefix(err, "cannot store %zu images", count);
    }
    fault_point("image.committed");
    apply(store, &work);
    return true;
}

void image_commits_done(struct image_commit *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(items[i].moved_from);
        items[i].moved_from = NULL;
    }
}

bool await_image_commit(struct store *store, const struct image *image, const char *tag,
                        const char *repo_digest, bool *ret_changed, struct error *err)
{
    char *const tags[] = {(char *)tag, NULL}, *const digests[] = {(char *)repo_digest, NULL};
    struct image_commit item = {.image = image, .tags = tags, .repo_digests = digests};
    bool ok = await_images_commit(store, &item, 1, NULL, 0, err);

    if (ok && ret_changed)
        *ret_changed = item.changed;
    image_commits_done(&item, 1);
    return ok;
}

/* --- Putting back ------------------------------------------------------------------------------
 */

static bool restore_data(struct db *db, void *arg, struct error *err)
{
    const struct image *image = arg;

    return db_run(db,
                  "UPDATE images SET manifest_digest = ?, manifest = ?, config = ? WHERE id = ?",
                  err, db_text(image->manifest_digest.text),
                  db_blob(image->manifest_data, image->manifest_size),
                  db_blob(image->config_data, image->config_size), db_text(image->id.text));
}

bool await_image_restore(struct store *store, const struct image *image, struct error *err)
{
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);
    struct image *kept;

    if (!locked)
        return false;
    kept = image_get(store, &image->id);
    if (!kept)
        return error_set(err, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "there is no image %.19s",
                         image->id.text);
    if (!await_db_transaction(locked, restore_data, (void *)image, err))
        return error_prefix(err, "cannot store image %.19s", image->id.text);
    kept->manifest_digest = image->manifest_digest;
    kept->damaged = false;
    return true;
}
