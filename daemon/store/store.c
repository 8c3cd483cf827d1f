#include "daemon/store/store.h"

#include <errno.h>

#include "daemon/store/internal.h"
#include "proto/async/await.h"

#define GRACE_DEFAULT_MS (24ULL * 3600 * 1000)
#define PARTIAL_TTL_DEFAULT_MS (72ULL * 3600 * 1000)
#define PARTIAL_MAX_DEFAULT_BYTES (20ULL * 1000 * 1000 * 1000)

static struct store *store_new(const struct store_options *options)
{
    struct store *store = xcalloc(1, sizeof(*store));
    uint64_t grace_ms = options->layer_grace_ms ? options->layer_grace_ms : GRACE_DEFAULT_MS;
    uint64_t ttl_ms = options->partial_ttl_ms ? options->partial_ttl_ms : PARTIAL_TTL_DEFAULT_MS;

    store->data_root = xstrdup(options->data_root);
    store->reserve_bytes = options->reserve_bytes;
    store->reserve_percent = options->reserve_percent;
    store->grace_ns = (int64_t)grace_ms * 1000000;
    store->scrub_interval_ms = options->scrub_interval_ms;
    store->keep_blobs = options->keep_blobs;
    store->drop_blobs = options->drop_blobs;
    /* What an earlier daemon left in tmp/ is still there. */
    store->sequence = (uint64_t)wall_clock_ns();
    store->lock_fd = store->layers_fd = store->tmp_fd = store->mnt_fd = store->partials.dir_fd = -1;
    store->layers = map_new();
    store->leased = map_new();
    store->names = map_new();
    store->images_by_id = map_new();
    list_init(&store->holds);
    event_log_init(&store->events, options->events_max);
    wait_queue_init(&store->mount_queue);
    store->partials.ttl_ns = (int64_t)ttl_ms * 1000000;
    store->partials.max_bytes =
        options->partial_max_bytes ? options->partial_max_bytes : PARTIAL_MAX_DEFAULT_BYTES;
    store->partials.open = map_new();
    wait_queue_init(&store->partials.closed);
    wait_queue_init(&store->partials.opened);
    wait_queue_init(&store->partials.changes);
    list_init(&store->partials.leases);
    list_init(&store->trash.names);
    wait_queue_init(&store->trash.waiters);
    wait_queue_init(&store->trash.removed);
    group_init(&store->background);
    return store;
}

static void store_free(struct store *store)
{
    size_t iterator = 0;
    void *layer;

    db_close(store->db);
    trash_clear(store);
    event_log_done(&store->events);
    for (size_t i = 0; i < store->image_count; i++)
        image_free(store->images[i]);
    while (map_next(store->layers, &iterator, NULL, &layer))
        layer_free(layer);
    map_free(store->layers);
    map_free(store->leased);
    map_free(store->names);
    map_free(store->images_by_id);
    map_free(store->partials.open);
    free(store->images);
    close_fd(&store->tmp_fd);
    close_fd(&store->mnt_fd);
    close_fd(&store->partials.dir_fd);
    close_fd(&store->layers_fd);
    close_fd(&store->lock_fd); /* last: another daemon may begin */
    free(store->untar_path);
    free(store->index_path);
    free(store->archive_path);
    free(store->driver_reason);
    free(store->data_root);
    free(store);
}

struct open_work {
    struct store *store;
    const struct store_options *options;
    bool ok;
    struct error err;
};

static void open_in_pool(void *arg)
{
    struct open_work *work = arg;

    work->ok = store_open_blocking(work->store, work->options, &work->err);
}

static void close_in_pool(void *arg)
{
    store_free(arg);
}

static bool start_background(struct store *store, struct error *err)
{
    struct group *group = &store->background;

    return task_spawn(group, "remove litter", NULL, await_trash_task, store, err) &&
           task_spawn(group, "collect layers", NULL, await_collect_task, store, err) &&
           task_spawn(group, "count layers", NULL, await_count_task, store, err) &&
           task_spawn(group, "sync partials", NULL, await_partial_sync_task, store, err) &&
           task_spawn(group, "sweep partials", NULL, await_sweep_task, store, err) &&
           (store->scrub_interval_ms == 0 ||
            task_spawn(group, "scrub", NULL, await_scrub_task, store, err));
}

struct store *await_store_open(const struct store_options *options, struct error *err)
{
    struct open_work work = {.options = options};
    int r;

    if (!driver_name_check(options->driver, err))
        return NULL;
    work.store = store_new(options);
    r = await_work(open_in_pool, &work, "opening the data root");
    if (r < 0)
        await_error(err, r, "opening the data root %s", options->data_root);
    else if (!work.ok)
        error_move(err, &work.err);
    else if (start_background(work.store, err))
        return work.store;
    return store_close_await(work.store);
}

struct store *store_close_await(struct store *store)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();

    if (!store)
        return NULL;
    CHECK(map_count(store->leased) == 0 && list_empty(&store->partials.leases));
    atomic_store(&store->trash.stop, true);
    group_done_await(&store->background);
    store_unmount_unused_await(store);
    await_work(close_in_pool, store, "closing the data root");
    return NULL;
}

const char *store_driver_name(const struct store *store)
{
    return store->driver->name;
}

const char *store_driver_reason(const struct store *store)
{
    return store->driver_reason;
}

bool store_keeps_blobs(const struct store *store)
{
    return store->keep_blobs || (!store->drop_blobs && !store->driver->tar_name);
}

const char *store_id(const struct store *store)
{
    return store->id;
}
