/* Images on their way out: rows, then directories out of the way, then their files. */
#include <errno.h>
#include <stdio.h>

#include "daemon/store/event.h"
#include "daemon/store/internal.h"
#include "proto/async/await.h"
#include "proto/base/fault.h"
#include "proto/base/log.h"

struct removal {
    struct store *store;
    const struct image_deletion *images;
    size_t image_count;
    struct event_record **events; /* in the order of the images: of names that go, and of images */
    size_t event_count;
    struct layer **layers;
    struct digest *diff_ids;
    char **tmp_names;
    size_t layer_count;
    uint64_t freed_bytes;
};

static void removal_done(struct removal *removal)
{
    for (size_t i = 0; removal->tmp_names && i < removal->layer_count; i++)
        free(removal->tmp_names[i]);
    for (size_t i = 0; i < removal->event_count; i++)
        event_record_unref(removal->events[i]);
    free(removal->events);
    free(removal->layers);
    free(removal->tmp_names);
    free(removal->diff_ids);
}

/* --- Rows --------------------------------------------------------------------------------------
 */

/* While the image still has its labels. */
static bool write_events(struct db *db, const struct removal *removal,
                         const struct image_deletion *image, size_t *place, struct error *err)
{
    const char *id = image->id.text;
    const struct event_note untag = {.action = "untag",
                                     .actor = id,
                                     .name = id,
                                     .image = &image->id};
    const struct event_note delete = {.action = "delete", .actor = id, .name = id};

    for (size_t i = 0; i < image->told; i++) {
        if (!event_write(db, removal->store, &untag, &removal->events[(*place)++], err))
            return false;
    }
    return !image->whole ||
           event_write(db, removal->store, &delete, &removal->events[(*place)++], err);
}

static bool delete_image(struct db *db, const struct image_deletion *image, struct error *err)
{
    if (image->whole)
        return db_run(db, "DELETE FROM images WHERE id = ?", err, db_text(image->id.text));
    for (char *const *name = image->names; name && *name; name++) {
        if (!db_run(db, "DELETE FROM image_names WHERE name = ?", err, db_text(*name)))
            return false;
    }
    return true;
}

static bool delete_rows(struct db *db, void *arg, struct error *err)
{
    const struct removal *removal = arg;
    size_t place = 0;

    for (size_t i = 0; i < removal->image_count; i++) {
        if (!write_events(db, removal, &removal->images[i], &place, err) ||
            !delete_image(db, &removal->images[i], err))
            return false;
    }
    for (size_t i = 0; i < removal->layer_count; i++) {
        if (!db_run(db, "DELETE FROM layers WHERE diff_id = ?", err,
                    db_text(removal->diff_ids[i].text)))
            return false;
    }
    fault_point("removal.rows");
    return true;
}

/* What fails here has no row any more: the next start removes it. */
static void move_away(void *arg)
{
    const struct removal *removal = arg;
    const struct store *store = removal->store;

    for (size_t i = 0; i < removal->layer_count; i++) {
        const char *hex = digest_hex(&removal->diff_ids[i]);
        if (renameat(store->layers_fd, hex, store->tmp_fd, removal->tmp_names[i]) < 0) {
            log_warn("cannot move a removed layer away", LOG("layer", hex),
                     LOG("error", strerror(errno)));
        }
        fault_point("removal.moved");
    }
}

/* --- In memory ---------------------------------------------------------------------------------
 */

static void set_hidden(const struct removal *removal, bool hidden)
{
    for (size_t i = 0; i < removal->image_count; i++) {
        if (removal->images[i].whole)
            image_at(removal->store, &removal->images[i].id)->hidden = hidden;
    }
    for (size_t i = 0; i < removal->layer_count; i++)
        removal->layers[i]->hidden = hidden;
}

static void forget_images(const struct removal *removal)
{
    for (size_t i = 0; i < removal->image_count; i++) {
        const struct image_deletion *image = &removal->images[i];
        if (image->whole) {
            image_drop(removal->store, image_at(removal->store, &image->id));
            continue;
        }
        for (char *const *name = image->names; name && *name; name++)
            image_drop_name(removal->store, *name);
    }
}

/* Of what is in `layers`. The database is locked. Cannot be cancelled once it has begun. */
static bool await_remove(struct removal *removal, struct error *err)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();
    struct store *store = removal->store;
    size_t count = removal->layer_count;

    for (size_t i = 0; i < removal->image_count; i++)
        removal->event_count += removal->images[i].told + removal->images[i].whole;
    removal->events = xcalloc(removal->event_count + 1, sizeof(struct event_record *));
    removal->diff_ids = xcalloc(count + 1, sizeof(*removal->diff_ids));
    removal->tmp_names = xcalloc(count + 1, sizeof(*removal->tmp_names));
    for (size_t i = 0; i < count; i++) {
        removal->diff_ids[i] = removal->layers[i]->info.diff_id;
        removal->tmp_names[i] = tmp_name(store, &removal->diff_ids[i]);
        removal->freed_bytes += removal->layers[i]->disk_bytes;
    }
    /* From here on nobody finds them, so that nobody begins to use them. */
    set_hidden(removal, true);
    if (!await_db_removal(store->db, delete_rows, removal, err)) {
        set_hidden(removal, false);
        return false;
    }
    for (size_t i = 0; i < removal->event_count; i++)
        event_publish(store, TAKE(removal->events[i]));
    fault_point("removal.committed");
    for (size_t i = 0; i < count; i++)
        layer_unmount_unused_await(store, &removal->diff_ids[i]);
    if (count > 0)
        await_work(move_away, removal, "removing layers");
    forget_images(removal);
    for (size_t i = 0; i < count; i++) {
        layer_drop(store, &removal->diff_ids[i]);
        trash_add(store, removal->tmp_names[i]);
    }
    return true;
}

static void give_result(struct removal *removal, struct layers_pruned *ret)
{
    if (ret)
        *ret = (struct layers_pruned){
            .diff_ids = TAKE(removal->diff_ids),
            .count = removal->layer_count,
            .freed_bytes = removal->freed_bytes,
        };
}

/* --- Images ------------------------------------------------------------------------------------
 */

static bool has_changed(const struct digest *id, struct error *err)
{
    return error_set(err, ERROR_ABORTED, "IMAGE_CHANGED", "image %.19s has changed meanwhile",
                     id->text);
}

/* It is as the caller thinks. `deleted`: children of it that go before it. */
static bool check_deletion(const struct store *store, const struct image_deletion *deletion,
                           size_t deleted, struct error *err)
{
    const struct image *image = image_get(store, &deletion->id);

    if (!image)
        return error_set(err, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "there is no image %.19s",
                         deletion->id.text);
    for (char *const *name = deletion->names; name && *name; name++) {
        if (map_get(store->names, *name) != image)
            return has_changed(&deletion->id, err);
    }
    if (deletion->whole &&
        (image->children != deleted ||
         strv_count(deletion->names) != image->tag_count + image->repo_digest_count ||
         image_holder(store, &image->id, true) ||
         (!deletion->forced && image_holder(store, &image->id, false))))
        return has_changed(&deletion->id, err);
    return true;
}

static bool check_deletions(const struct store *store, const struct image_deletion *items,
                            size_t count, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        size_t deleted = 0;
        for (size_t k = 0; k < i; k++) {
            const struct image *before = image_get(store, &items[k].id);
            deleted += items[k].whole && before && digest_eq(&before->parent, &items[i].id);
        }
        if (!check_deletion(store, &items[i], deleted, err))
            return false;
    }
    return true;
}

/* Each once, of each image from the top. */
static void find_layers(struct removal *removal)
{
    size_t count = 0;

    for (size_t i = 0; i < removal->image_count; i++) {
        const struct image *image = image_get(removal->store, &removal->images[i].id);
        if (!removal->images[i].whole || !image)
            continue;
        removal->layers =
            xrealloc(removal->layers, (count + image->diff_id_count + 1) * sizeof(struct layer *));
        for (size_t k = image->diff_id_count; k-- > 0;) {
            struct layer *layer = layer_get(removal->store, &image->diff_ids[k]);
            if (layer && layer->marks++ == 0)
                removal->layers[count++] = layer;
        }
    }
    for (size_t i = 0; i < count; i++) {
        struct layer *layer = removal->layers[i];
        if (!layer_in_use(removal->store, layer, layer->marks))
            removal->layers[removal->layer_count++] = layer;
        layer->marks = 0;
    }
}

uint64_t images_delete_bytes(const struct store *store, const struct image_deletion *items,
                             size_t count)
{
    CLEANUP(removal_done)
    struct removal removal = {.store = (struct store *)store,
                              .images = items,
                              .image_count = count};
    uint64_t bytes = 0;

    find_layers(&removal);
    for (size_t i = 0; i < removal.layer_count; i++)
        bytes += removal.layers[i]->disk_bytes;
    return bytes;
}

bool await_images_delete(struct store *store, const struct image_deletion *items, size_t count,
                         struct layers_pruned *ret, struct error *err)
{
    CLEANUP(removal_done)
    struct removal removal = {.store = store, .images = items, .image_count = count};
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);

    if (ret)
        *ret = (struct layers_pruned){0};
    if (!locked || !check_deletions(store, items, count, err))
        return false;
    find_layers(&removal);
    if (!await_remove(&removal, err))
        return error_prefix(err, "cannot remove image %.19s", items[0].id.text);
    give_result(&removal, ret);
    return true;
}

/* --- Layers ------------------------------------------------------------------------------------
 */

bool await_layers_delete(struct store *store, struct layer **layers, size_t count,
                         struct layers_pruned *ret, struct error *err)
{
    CLEANUP(removal_done)
    struct removal removal = {
        .store = store,
        .layers = xmemdup(layers, count * sizeof(*layers)),
        .layer_count = count,
    };

    if (!await_remove(&removal, err))
        return false;
    give_result(&removal, ret);
    return true;
}
