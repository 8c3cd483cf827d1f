#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "daemon/store/event.h"
#include "daemon/store/internal.h"
#include "proto/async/await.h"
#include "proto/base/fault.h"
#include "proto/base/log.h"

#define COLLECT_INTERVAL_MAX_MS (3600 * 1000)

bool layer_in_use(const struct store *store, const struct layer *layer, const struct image *except)
{
    const struct digest *diff_id = &layer->info.diff_id;

    if (layer->mounts > 0 || layer->image_uses > (except ? image_uses(except, diff_id) : 0))
        return true;
    LIST_FOR_EACH (node, &store->leases) {
        const struct layer_lease *lease = LIST_ITEM(node, struct layer_lease, node);
        for (size_t i = 0; i < lease->count; i++) {
            if (digest_eq(&lease->diff_ids[i], diff_id))
                return true;
        }
    }
    return false;
}

/* --- Removal: rows, then directories out of the way, then their files ----------------------------
 */

struct removal {
    struct store *store;
    struct event_record **events; /* one for each name that goes, and that of the image */
    size_t untagged;
    const struct digest *image_id; /* or NULL */
    struct digest *diff_ids;
    char **tmp_names;
    size_t count;
};

/* While the image still has its labels. */
static bool write_events(struct db *db, const struct removal *removal, struct error *err)
{
    const char *id = removal->image_id->text;
    const struct event_note untag = {.action = "untag",
                                     .actor = id,
                                     .name = id,
                                     .image = removal->image_id};
    const struct event_note delete = {.action = "delete", .actor = id, .name = id};

    for (size_t i = 0; i < removal->untagged; i++) {
        if (!event_write(db, removal->store, &untag, &removal->events[i], err))
            return false;
    }
    return event_write(db, removal->store, &delete, &removal->events[removal->untagged], err);
}

static bool delete_rows(struct db *db, void *arg, struct error *err)
{
    const struct removal *removal = arg;

    if (removal->image_id && !write_events(db, removal, err))
        return false;
    if (removal->image_id &&
        !db_run(db, "DELETE FROM images WHERE id = ?", err, db_text(removal->image_id->text)))
        return false;
    for (size_t i = 0; i < removal->count; i++) {
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

    for (size_t i = 0; i < removal->count; i++) {
        const char *hex = digest_hex(&removal->diff_ids[i]);
        if (renameat(store->layers_fd, hex, store->tmp_fd, removal->tmp_names[i]) < 0) {
            log_warn("cannot move a removed layer away", LOG("layer", hex),
                     LOG("error", strerror(errno)));
        }
        fault_point("removal.moved");
    }
}

static void set_hidden(struct image *image, struct layer *const *layers, size_t count, bool hidden)
{
    if (image)
        image->hidden = hidden;
    for (size_t i = 0; i < count; i++)
        layers[i]->hidden = hidden;
}

static void removal_done(struct removal *removal)
{
    for (size_t i = 0; i < removal->count; i++)
        free(removal->tmp_names[i]);
    for (size_t i = 0; i <= removal->untagged; i++)
        event_record_unref(removal->events[i]);
    free(removal->events);
    free(removal->tmp_names);
    free(removal->diff_ids);
}

bool await_remove(struct store *store, struct image *image, size_t untagged,
                  struct layer *const *layers, size_t count, struct error *err)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();
    CLEANUP(removal_done)
    struct removal removal = {
        .store = store,
        .events = xcalloc(untagged + 1, sizeof(struct event_record *)),
        .untagged = untagged,
        .image_id = image ? &image->id : NULL,
        .diff_ids = xcalloc(count + 1, sizeof(*removal.diff_ids)),
        .tmp_names = xcalloc(count + 1, sizeof(*removal.tmp_names)),
        .count = count,
    };

    for (size_t i = 0; i < count; i++) {
        removal.diff_ids[i] = layers[i]->info.diff_id;
        removal.tmp_names[i] = tmp_name(store, &removal.diff_ids[i]);
    }
    /* From here on nobody finds them, so that nobody begins to use them. */
    set_hidden(image, layers, count, true);
    if (!await_db_removal(store->db, delete_rows, &removal, err)) {
        set_hidden(image, layers, count, false);
        return false;
    }
    for (size_t i = 0; i <= untagged; i++)
        event_publish(store, TAKE(removal.events[i]));
    fault_point("removal.committed");
    for (size_t i = 0; i < count; i++)
        layer_unmount_unused_await(store, &removal.diff_ids[i]);
    await_work(move_away, &removal, "removing layers");
    if (image)
        image_drop(store, image);
    for (size_t i = 0; i < count; i++) {
        layer_drop(store, &removal.diff_ids[i]);
        trash_add(store, removal.tmp_names[i]);
    }
    return true;
}

/* --- What nothing uses -------------------------------------------------------------------------
 */

bool await_layers_prune(struct store *store, int64_t before_unix_ns, struct layers_pruned *ret,
                        struct error *err)
{
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);
    CLEANUP_FREE struct layer **unused = NULL;
    CLEANUP(layers_pruned_done) struct layers_pruned pruned = {0};
    size_t iterator = 0;
    void *value;

    *ret = pruned;
    if (!locked)
        return false;
    unused = xcalloc(map_count(store->layers) + 1, sizeof(struct layer *));
    pruned.diff_ids = xcalloc(map_count(store->layers) + 1, sizeof(*pruned.diff_ids));
    while (map_next(store->layers, &iterator, NULL, &value)) {
        struct layer *layer = value;
        if (layer->used_unix_ns > before_unix_ns || layer_in_use(store, layer, NULL))
            continue;
        pruned.freed_bytes += layer->disk_bytes;
        pruned.diff_ids[pruned.count] = layer->info.diff_id;
        unused[pruned.count++] = layer;
    }
    if (pruned.count == 0)
        return true;
    if (!await_remove(store, NULL, 0, unused, pruned.count, err))
        return false;
    log_info("removed layers that nothing uses", LOG("count", pruned.count));
    *ret = pruned;
    pruned = (struct layers_pruned){0};
    return true;
}

void layers_pruned_done(struct layers_pruned *pruned)
{
    free(pruned->diff_ids);
    *pruned = (struct layers_pruned){0};
}

bool await_collect_task(void *arg, struct error *err)
{
    struct store *store = arg;
    uint64_t interval_ms =
        MIN((uint64_t)store->grace_ns / 1000000 + 1, (uint64_t)COLLECT_INTERVAL_MAX_MS);
    int r;

    for (;;) {
        CLEANUP_ERROR struct error failure = {0};
        CLEANUP(layers_pruned_done) struct layers_pruned pruned = {0};
        if (!await_layers_prune(store, wall_clock_ns() - store->grace_ns, &pruned, &failure) &&
            failure.code != ERROR_CANCELLED)
            log_warn("cannot remove unused layers", LOG("error", failure.message));
        if ((r = await_sleep(interval_ms)) < 0)
            return await_error(err, r, "collecting layers");
    }
}
