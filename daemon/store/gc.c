#include "daemon/store/internal.h"
#include "proto/async/await.h"
#include "proto/base/log.h"

#define COLLECT_INTERVAL_MAX_MS (3600 * 1000)

bool layer_in_use(const struct store *store, const struct layer *layer, unsigned int uses)
{
    return layer->mounts > 0 || layer->image_uses > uses ||
           map_get(store->leased, layer->info.diff_id.text);
}

/* --- What nothing uses -------------------------------------------------------------------------
 */

static struct layer **list_unused(const struct store *store, int64_t before_unix_ns,
                                  size_t *ret_count)
{
    struct layer **unused = xcalloc(map_count(store->layers) + 1, sizeof(struct layer *));
    size_t iterator = 0;
    void *value;

    *ret_count = 0;
    while (map_next(store->layers, &iterator, NULL, &value)) {
        struct layer *layer = value;
        if (!layer->hidden && layer->used_unix_ns <= before_unix_ns &&
            !layer_in_use(store, layer, 0))
            unused[(*ret_count)++] = layer;
    }
    return unused;
}

struct layers_pruned layers_unused(const struct store *store, int64_t before_unix_ns)
{
    size_t count;
    CLEANUP_FREE struct layer **unused = list_unused(store, before_unix_ns, &count);
    struct layers_pruned pruned = {.diff_ids = xcalloc(count + 1, sizeof(struct digest))};

    for (size_t i = 0; i < count; i++) {
        pruned.diff_ids[pruned.count++] = unused[i]->info.diff_id;
        pruned.freed_bytes += unused[i]->disk_bytes;
    }
    return pruned;
}

bool await_layers_prune(struct store *store, int64_t before_unix_ns, struct layers_pruned *ret,
                        struct error *err)
{
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);
    CLEANUP_FREE struct layer **unused = NULL;
    size_t count;

    *ret = (struct layers_pruned){0};
    if (!locked)
        return false;
    unused = list_unused(store, before_unix_ns, &count);
    if (count == 0)
        return true;
    if (!await_layers_delete(store, unused, count, ret, err))
        return false;
    log_info("removed layers that nothing uses", LOG("count", count));
    return true;
}

void layers_drop_await(struct store *store, const struct digest *diff_ids, size_t count,
                       int64_t since_unix_ns)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();
    CLEANUP_ERROR struct error failure = {0};
    CLEANUP(layers_pruned_done) struct layers_pruned dropped = {0};
    CLEANUP(db_unlock) struct db *locked = count ? await_db_lock(store->db, &failure) : NULL;
    CLEANUP(map_cleanup) struct map *seen = map_new();
    CLEANUP_FREE struct layer **unused = xcalloc(count + 1, sizeof(struct layer *));
    size_t unused_count = 0;

    for (size_t i = 0; locked && i < count; i++) {
        struct layer *layer = layer_get(store, &diff_ids[i]);
        if (!layer || map_put(seen, diff_ids[i].text, layer))
            continue;
        layer->doomed |= layer->verified_unix_ns >= since_unix_ns;
        if (layer->doomed && !layer_in_use(store, layer, 0))
            unused[unused_count++] = layer;
    }
    if ((count > 0 && !locked) ||
        (unused_count > 0 && !await_layers_delete(store, unused, unused_count, &dropped, &failure)))
        log_warn("cannot remove unused layers", LOG("error", failure.message));
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

    /* Not at once: containers of earlier daemons are still to take their leases. */
    for (;;) {
        CLEANUP_ERROR struct error failure = {0};
        CLEANUP(layers_pruned_done) struct layers_pruned pruned = {0};
        if ((r = await_sleep(interval_ms)) < 0)
            return await_error(err, r, "collecting layers");
        if (!await_layers_prune(store, wall_clock_ns() - store->grace_ns, &pruned, &failure) &&
            failure.code != ERROR_CANCELLED)
            log_warn("cannot remove unused layers", LOG("error", failure.message));
    }
}
