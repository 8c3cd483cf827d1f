#include <errno.h>

#include "daemon/store/event.h"
#include "daemon/store/internal.h"
#include "proto/async/await.h"
#include "proto/base/fault.h"
#include "proto/base/log.h"

/* --- In memory ---------------------------------------------------------------------------------
 */

struct image *image_new(void)
{
    return xcalloc(1, sizeof(struct image));
}

struct image *image_free(struct image *image)
{
    if (!image)
        return NULL;
    free(image->os);
    free(image->architecture);
    free(image->diff_ids);
    strv_free(image->tags);
    strv_free(image->repo_digests);
    free(image);
    return NULL;
}

unsigned int image_uses(const struct image *image, const struct digest *diff_id)
{
    unsigned int uses = 0;

    for (size_t i = 0; i < image->diff_id_count; i++)
        uses += digest_eq(&image->diff_ids[i], diff_id);
    return uses;
}

/* Newest first; the id decides between equals, so that lists do not jump. */
static bool comes_before(const struct image *a, const struct image *b)
{
    if (a->created_unix_ns != b->created_unix_ns)
        return a->created_unix_ns > b->created_unix_ns;
    return strcmp(a->id.text, b->id.text) < 0;
}

static void count_uses(struct store *store, const struct image *image, int by)
{
    for (size_t i = 0; i < image->diff_id_count; i++) {
        struct layer *layer = map_get(store->layers, image->diff_ids[i].text);
        if (layer)
            layer->image_uses += (unsigned int)by;
    }
}

void image_add(struct store *store, struct image *image)
{
    size_t place = 0;

    while (place < store->image_count && comes_before(store->images[place], image))
        place++;
    store->images = xrealloc(store->images, (store->image_count + 1) * sizeof(struct image *));
    memmove(store->images + place + 1, store->images + place,
            (store->image_count - place) * sizeof(struct image *));
    store->images[place] = image;
    store->image_count++;
    count_uses(store, image, 1);
}

static void strv_drop(char **strv, const char *text)
{
    for (char **item = strv; item && *item; item++) {
        if (!str_eq(*item, text))
            continue;
        free(*item);
        memmove(item, item + 1, (strv_count(item + 1) + 1) * sizeof(char *));
        return;
    }
}

static void drop_name(struct store *store, const char *name)
{
    struct image *image = map_remove(store->names, name);

    if (!image)
        return;
    strv_drop(image->tags, name);
    strv_drop(image->repo_digests, name);
}

void image_add_name(struct store *store, struct image *image, const char *name, bool is_tag)
{
    if (map_get(store->names, name) == image)
        return;
    drop_name(store, name);
    map_put(store->names, name, image);
    strv_add(is_tag ? &image->tags : &image->repo_digests, name);
}

void image_drop(struct store *store, struct image *image)
{
    size_t place = 0;

    for (char **name = image->tags; name && *name; name++)
        map_remove(store->names, *name);
    for (char **name = image->repo_digests; name && *name; name++)
        map_remove(store->names, *name);
    count_uses(store, image, -1);
    while (store->images[place] != image)
        place++;
    store->image_count--;
    memmove(store->images + place, store->images + place + 1,
            (store->image_count - place) * sizeof(struct image *));
    image_free(image);
}

struct image *image_get(const struct store *store, const struct digest *id)
{
    for (size_t i = 0; i < store->image_count; i++) {
        if (digest_eq(&store->images[i]->id, id))
            return store->images[i]->hidden ? NULL : store->images[i];
    }
    return NULL;
}

/* --- Lists and look-ups ------------------------------------------------------------------------
 */

const struct image **image_list(const struct store *store, size_t *ret_count)
{
    const struct image **list = xcalloc(store->image_count + 1, sizeof(struct image *));
    size_t count = 0;

    for (size_t i = 0; i < store->image_count; i++) {
        if (!store->images[i]->hidden)
            list[count++] = store->images[i];
    }
    if (ret_count)
        *ret_count = count;
    return list;
}

const struct image *image_find(const struct store *store, const char *canonical)
{
    const struct image *image = map_get(store->names, canonical);

    return image && !image->hidden ? image : NULL;
}

const struct image *image_find_id(const struct store *store, const char *prefix,
                                  bool *ret_ambiguous)
{
    const struct image *found = NULL;

    if (ret_ambiguous)
        *ret_ambiguous = false;
    if (str_starts(prefix, "sha256:"))
        prefix += strlen("sha256:");
    if (str_empty(prefix))
        return NULL;
    for (size_t i = 0; i < store->image_count; i++) {
        const struct image *image = store->images[i];
        if (image->hidden || !str_starts(digest_hex(&image->id), prefix))
            continue;
        if (found) {
            if (ret_ambiguous)
                *ret_ambiguous = true;
            return NULL;
        }
        found = image;
    }
    return found;
}

/* --- Manifest and config -----------------------------------------------------------------------
 */

struct read_work {
    const struct digest *id;
    struct image_data data;
    bool found, manifest_damaged, config_damaged;
};

static void copy_blob(sqlite3_stmt *row, int column, char **ret_data, size_t *ret_size)
{
    const void *blob = sqlite3_column_blob(row, column);

    *ret_size = (size_t)sqlite3_column_bytes(row, column);
    *ret_data = xmalloc(*ret_size + 1);
    if (*ret_size)
        memcpy(*ret_data, blob, *ret_size);
    (*ret_data)[*ret_size] = '\0';
}

static bool read_data(struct db *db, void *arg, struct error *err)
{
    struct read_work *work = arg;
    const struct db_value id = db_text(work->id->text);
    CLEANUP(db_query_done)
    sqlite3_stmt *row =
        db_query(db, "SELECT manifest_digest, manifest, config FROM images WHERE id = ?", &id, 1,
                 err);
    int r = row ? db_step(db, row, err) : -1;
    struct image_data *data = &work->data;
    struct digest manifest, config;

    if (r < 0)
        return false;
    work->found = r == 1;
    if (!work->found)
        return true;
    copy_blob(row, 1, &data->manifest, &data->manifest_size);
    copy_blob(row, 2, &data->config, &data->config_size);
    manifest = digest_of(data->manifest, data->manifest_size);
    config = digest_of(data->config, data->config_size);
    work->manifest_damaged = !str_eq(manifest.text, (const char *)sqlite3_column_text(row, 0));
    work->config_damaged = !digest_eq(&config, work->id);
    return true;
}

void image_data_done(struct image_data *data)
{
    free(data->manifest);
    free(data->config);
    *data = (struct image_data){0};
}

static bool image_damaged(struct store *store, const struct digest *id, const char *what,
                          struct error *err)
{
    struct image *image = image_get(store, id);

    if (image && !image->damaged)
        log_error("an image is damaged", LOG("image", (const char *)id->text),
                  LOG("changed", what));
    if (image)
        image->damaged = true;
    error_set(err, ERROR_DATA_LOSS, "IMAGE_DAMAGED", "image %.19s is damaged: its %s has changed",
              id->text, what);
    return error_hint(err, "fetch it again with: davit system verify --repair");
}

bool await_image_data(struct store *store, const struct digest *id, struct image_data *ret,
                      struct error *err)
{
    struct read_work work = {.id = id};
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);

    if (!locked)
        return false;
    if (!await_db_transaction(locked, read_data, &work, err)) {
        image_data_done(&work.data);
        return error_prefix(err, "cannot read image %.19s", id->text);
    }
    if (!work.found)
        return error_set(err, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "there is no image %.19s",
                         id->text);
    if (!work.manifest_damaged && !work.config_damaged) {
        *ret = work.data;
        return true;
    }
    image_data_done(&work.data);
    return image_damaged(store, id, work.config_damaged ? "config" : "manifest", err);
}

/* --- Commit ------------------------------------------------------------------------------------
 */

struct image_work {
    const struct image *image;
    const char *tag, *repo_digest;
    const struct store *store;
    bool new_image;
    uint64_t size_bytes;
    struct event_record *event;
};

static bool write_names(struct db *db, const struct image_work *work, struct error *err)
{
    static const char sql[] = "INSERT OR REPLACE INTO image_names VALUES (?, ?, ?)";
    const char *id = work->image->id.text;

    if (work->tag && !db_run(db, sql, err, db_text(work->tag), db_text("tag"), db_text(id)))
        return false;
    return !work->repo_digest ||
           db_run(db, sql, err, db_text(work->repo_digest), db_text("digest"), db_text(id));
}

static bool write_image(struct db *db, void *arg, struct error *err)
{
    struct image_work *work = arg;
    const struct image *image = work->image;

    if (!db_run(db,
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE"
                " SET manifest_digest = excluded.manifest_digest, manifest = excluded.manifest,"
                " config = excluded.config",
                err, db_text(image->id.text), db_text(image->manifest_digest.text),
                db_integer(image->created_unix_ns), db_text(image->os),
                db_text(image->architecture), db_integer((int64_t)work->size_bytes),
                db_blob(image->manifest_data, image->manifest_size),
                db_blob(image->config_data, image->config_size)))
        return false;
    for (size_t i = 0; work->new_image && i < image->diff_id_count; i++) {
        if (!db_run(db, "INSERT INTO image_layers VALUES (?, ?, ?)", err, db_text(image->id.text),
                    db_integer((int64_t)i), db_text(image->diff_ids[i].text)))
            return false;
    }
    fault_point("image.rows");
    return write_names(db, work, err) && sources_write(db, image, err) &&
           event_write(db, work->store, image->event, &work->event, err);
}

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

static struct image *copy_image(const struct image *image, uint64_t size_bytes)
{
    struct image *copy = image_new();

    copy->id = image->id;
    copy->created_unix_ns = image->created_unix_ns;
    copy->os = xstrdup(image->os);
    copy->architecture = xstrdup(image->architecture);
    if (image->diff_id_count > 0)
        copy->diff_ids = xmemdup(image->diff_ids, image->diff_id_count * sizeof(*image->diff_ids));
    copy->diff_id_count = image->diff_id_count;
    copy->size_bytes = size_bytes;
    return copy;
}

bool await_image_commit(struct store *store, const struct image *image, const char *tag,
                        const char *repo_digest, bool *ret_changed, struct error *err)
{
    struct image_work work = {.store = store,
                              .image = image,
                              .tag = tag,
                              .repo_digest = repo_digest};
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);
    struct image *kept;
    bool changed;

    if (!locked)
        return false;
    kept = image_get(store, &image->id);
    work.new_image = !kept;
    if (!sum_layers(store, image, &work.size_bytes, err))
        return false;
    if (!await_db_transaction(locked, write_image, &work, err)) {
        event_record_unref(work.event);
        return error_prefix(err, "cannot store image %.19s", image->id.text);
    }
    fault_point("image.committed");
    if (!kept) {
        kept = copy_image(image, work.size_bytes);
        image_add(store, kept);
    }
    kept->manifest_digest = image->manifest_digest;
    kept->damaged = false;
    changed = work.new_image || (tag && map_get(store->names, tag) != kept) ||
              (!tag && repo_digest && map_get(store->names, repo_digest) != kept);
    if (tag)
        image_add_name(store, kept, tag, true);
    if (repo_digest)
        image_add_name(store, kept, repo_digest, false);
    if (ret_changed)
        *ret_changed = changed;
    event_publish(store, work.event);
    return true;
}

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

/* --- Untag and delete --------------------------------------------------------------------------
 */

struct untag_work {
    const struct store *store;
    const char *name;
    struct event_note note;
    struct event_record *event;
};

static bool delete_name(struct db *db, void *arg, struct error *err)
{
    struct untag_work *work = arg;

    return db_run(db, "DELETE FROM image_names WHERE name = ?", err, db_text(work->name)) &&
           event_write(db, work->store, &work->note, &work->event, err);
}

static bool await_drop_name(struct store *store, const char *canonical, bool tell,
                            struct error *err)
{
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);
    CLEANUP_FREE char *name = xstrdup(canonical); /* the caller's may be the image's own */
    struct untag_work work = {.store = store};
    const struct image *image;
    struct digest id;

    if (!locked)
        return false;
    image = image_find(store, name);
    if (!image)
        return error_set(err, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "there is no image named %s",
                         name);
    id = image->id;
    if (tell)
        work.note = (struct event_note){"untag", id.text, id.text, .image = &id};
    work.name = name;
    if (!await_db_transaction(locked, delete_name, &work, err)) {
        event_record_unref(work.event);
        return error_prefix(err, "cannot remove the name %s", name);
    }
    drop_name(store, name);
    event_publish(store, work.event);
    return true;
}

bool await_image_untag(struct store *store, const char *canonical, struct error *err)
{
    return await_drop_name(store, canonical, true, err);
}

bool await_image_forget_name(struct store *store, const char *canonical, struct error *err)
{
    return await_drop_name(store, canonical, false, err);
}

struct image_hold *image_hold_new(struct store *store, const struct digest *id, const char *holder)
{
    struct image_hold *hold = xcalloc(1, sizeof(*hold));

    hold->image = *id;
    hold->holder = xstrdup(holder);
    list_append(&store->holds, &hold->node);
    return hold;
}

struct image_hold *image_hold_free(struct image_hold *hold)
{
    if (!hold)
        return NULL;
    list_remove(&hold->node);
    free(hold->holder);
    free(hold);
    return NULL;
}

static bool check_not_held(const struct store *store, const struct digest *id, struct error *err)
{
    LIST_FOR_EACH (node, &store->holds) {
        const struct image_hold *hold = LIST_ITEM(node, struct image_hold, node);
        if (digest_eq(&hold->image, id)) {
            return error_set(err, ERROR_FAILED_PRECONDITION, "IMAGE_IN_USE",
                             "conflict: unable to delete %.12s (cannot be forced) - image is being "
                             "used by %s",
                             digest_hex(id), hold->holder);
        }
    }
    return true;
}

bool await_image_delete(struct store *store, const struct digest *id, size_t untagged,
                        char ***ret_deleted, struct error *err)
{
    struct digest image_id = *id; /* the caller's may be the image's own */
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);
    struct layer *layers[LAYERS_MAX];
    CLEANUP(strv_cleanup) char **deleted = NULL;
    struct image *image;
    size_t count = 0;

    if (!locked)
        return false;
    image = image_get(store, &image_id);
    if (!image)
        return error_set(err, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "there is no image %.19s",
                         image_id.text);
    if (!check_not_held(store, &image_id, err))
        return false;
    /* From the top; a layer that is there twice once. */
    for (size_t i = image->diff_id_count; i-- > 0;) {
        struct layer *layer = layer_get(store, &image->diff_ids[i]);
        bool again = false;
        for (size_t k = 0; k < count; k++)
            again |= layers[k] == layer;
        if (layer && !again && !layer_in_use(store, layer, image)) {
            layers[count++] = layer;
            strv_add(&deleted, layer->info.diff_id.text);
        }
    }
    if (!await_remove(store, image, untagged, layers, count, err))
        return error_prefix(err, "cannot remove image %.19s", image_id.text);
    if (ret_deleted)
        *ret_deleted = deleted ? TAKE(deleted) : xcalloc(1, sizeof(char *));
    return true;
}
