/* What is kept of blobs that did not arrive, and for how long: until it is old, too much, or in the
 * way. Only the files know what is kept: there are few, and nothing that could differ from them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "daemon/store/internal.h"
#include "daemon/store/partial.h"
#include "daemon/store/tree.h"
#include "daemon/store/tree_walk.h"
#include "proto/async/await.h"
#include "proto/base/fault.h"
#include "proto/base/log.h"

#define SWEEP_MAX_MS (3600 * 1000)
#define SWEEP_MIN_MS 1000

/* What has been lying for so long may take this part of the disk, whatever the maximum says. */
#define REST_NS (3600 * 1000000000LL)
#define REST_DISK_PERCENT 10

/* --- Leases ------------------------------------------------------------------------------------
 */

struct partial_lease {
    struct list node;
    struct store *store;
    struct digest *blobs;
    size_t count;
};

struct partial_lease *partial_lease_new(struct store *store, const struct digest *blobs,
                                        size_t count)
{
    struct partial_lease *lease = xcalloc(1, sizeof(*lease));

    lease->store = store;
    lease->blobs = xmemdup(blobs, count * sizeof(*blobs));
    lease->count = count;
    list_append(&store->partials.leases, &lease->node);
    return lease;
}

struct partial_lease *partial_lease_free(struct partial_lease *lease)
{
    if (!lease)
        return NULL;
    kept_changed(lease->store);
    list_remove(&lease->node);
    free(lease->blobs);
    free(lease);
    return NULL;
}

static bool is_leased(const struct store *store, const struct digest *blob)
{
    LIST_FOR_EACH (node, &store->partials.leases) {
        const struct partial_lease *lease = LIST_ITEM(node, struct partial_lease, node);
        for (size_t i = 0; i < lease->count; i++) {
            if (digest_eq(&lease->blobs[i], blob))
                return true;
        }
    }
    return false;
}

/* --- The list ----------------------------------------------------------------------------------
 */

struct kept {
    struct digest blob;
    int64_t written_unix_ns;
    uint64_t disk_bytes;
};

struct kept_list {
    const struct store *store;
    struct kept *items; /* oldest first */
    size_t count;
    uint64_t disk_capacity;
};

static void kept_list_done(struct kept_list *list)
{
    free(list->items);
}

static int by_age(const void *a, const void *b)
{
    const struct kept *left = a, *right = b;

    return (left->written_unix_ns > right->written_unix_ns) -
           (left->written_unix_ns < right->written_unix_ns);
}

static void add_kept(struct kept_list *list, const char *name)
{
    CLEANUP_FREE char *text = xasprintf("sha256:%s", name);
    struct kept kept;
    struct stat st;

    if (!digest_parse(text, &kept.blob, NULL) ||
        fstatat(list->store->partials.dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    kept.written_unix_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    /* With another link it is a layer's, and counted there. */
    kept.disk_bytes = st.st_nlink > 1 ? 0 : (uint64_t)st.st_blocks * STAT_BLOCK_BYTES;
    list->items = xrealloc(list->items, (list->count + 1) * sizeof(*list->items));
    list->items[list->count++] = kept;
}

static void list_in_pool(void *arg)
{
    struct kept_list *list = arg;
    int fd = openat(list->store->partials.dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *item;
    struct statvfs fs;

    if (fstatvfs(list->store->partials.dir_fd, &fs) == 0)
        list->disk_capacity = (uint64_t)fs.f_blocks * fs.f_frsize;
    while (dir && (item = readdir(dir)))
        add_kept(list, item->d_name);
    if (dir)
        closedir(dir);
    else
        close_fd(&fd);
    if (list->count > 1)
        qsort(list->items, list->count, sizeof(*list->items), by_age);
}

/* Also what is in use. */
static int await_list(const struct store *store, struct kept_list *ret)
{
    *ret = (struct kept_list){.store = store};
    return await_work(list_in_pool, ret, "listing partial blobs");
}

/* That nobody uses, nor is going to. */
static bool is_free(const struct store *store, const struct kept *kept)
{
    return !map_get(store->partials.open, kept->blob.text) && !is_leased(store, &kept->blob);
}

bool await_kept_usage(struct store *store, struct store_usage *ret, struct error *err)
{
    CLEANUP(kept_list_done) struct kept_list list;
    int r = await_list(store, &list);

    if (r < 0)
        return await_error(err, r, "listing partial blobs");
    for (size_t i = 0; i < list.count; i++) {
        const struct kept *kept = &list.items[i];
        bool used = !is_free(store, kept);
        ret->partial_count++;
        ret->partial_bytes += kept->disk_bytes;
        ret->active_partial_count += used;
        ret->active_partial_bytes += used ? kept->disk_bytes : 0;
    }
    return true;
}

/* --- Removal -----------------------------------------------------------------------------------
 */

/* What is to go, the oldest first. */
struct cut {
    int64_t before_unix_ns; /* only what was written before */
    uint64_t max_bytes;     /* until all of that is at most so much, */
    unsigned int percent;   /* and so much of the disk (0: whatever that is), */
    size_t max_count;       /* or so many have gone */
    bool dry_run;           /* they stay */
};

static bool await_cut(struct store *store, const struct cut *cut, struct partials_pruned *ret,
                      struct error *err)
{
    CLEANUP(kept_list_done) struct kept_list list;
    uint64_t bytes = 0, max_bytes = cut->max_bytes;
    int r = await_list(store, &list);

    *ret = (struct partials_pruned){0};
    if (r < 0)
        return await_error(err, r, "listing partial blobs");
    if (cut->percent)
        max_bytes = list.disk_capacity / 100 * cut->percent;
    for (size_t i = 0; i < list.count; i++) {
        if (list.items[i].written_unix_ns < cut->before_unix_ns && is_free(store, &list.items[i]))
            bytes += MAX(list.items[i].disk_bytes, 1U);
    }
    for (size_t i = 0; i < list.count && ret->count < cut->max_count && bytes > max_bytes; i++) {
        const struct kept *kept = &list.items[i];
        if (kept->written_unix_ns >= cut->before_unix_ns || !is_free(store, kept))
            continue;
        if (!cut->dry_run && !await_partial_remove(store, &kept->blob, err))
            return false;
        bytes -= MIN(bytes, MAX(kept->disk_bytes, 1U));
        ret->count++;
        ret->freed_bytes += kept->disk_bytes;
    }
    return true;
}

bool await_partials_prune(struct store *store, int64_t before_unix_ns, bool dry_run,
                          struct partials_pruned *ret, struct error *err)
{
    const struct cut cut = {.before_unix_ns = before_unix_ns,
                            .max_count = SIZE_MAX,
                            .dry_run = dry_run};

    return await_cut(store, &cut, ret, err);
}

bool await_kept_drop_oldest(struct store *store, bool *ret_dropped, struct error *err)
{
    const struct cut cut = {.before_unix_ns = INT64_MAX, .max_count = 1};
    struct partials_pruned dropped;

    *ret_dropped = false;
    if (!await_cut(store, &cut, &dropped, err))
        return false;
    *ret_dropped = dropped.count > 0;
    if (dropped.count > 0)
        log_info("removed a partial download: space is short", LOG("bytes", dropped.freed_bytes));
    return true;
}

static bool await_sweep(struct store *store, struct error *err)
{
    const int64_t now = wall_clock_ns();
    const struct cut cuts[] = {
        {.before_unix_ns = now - store->partials.ttl_ns, .max_count = SIZE_MAX},
        {.before_unix_ns = INT64_MAX,
         .max_bytes = store->partials.max_bytes,
         .max_count = SIZE_MAX},
        {.before_unix_ns = now - REST_NS, .percent = REST_DISK_PERCENT, .max_count = SIZE_MAX},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
        struct partials_pruned pruned;
        bool ok = await_cut(store, &cuts[i], &pruned, err);
        if (pruned.count > 0)
            log_info("removed partial downloads: they are old, or too large",
                     LOG("count", pruned.count), LOG("bytes", pruned.freed_bytes));
        if (!ok)
            return false;
    }
    return true;
}

void kept_changed(struct store *store)
{
    store->partials.changed = true;
    wake_all(&store->partials.changes);
}

/* Waits for that, or until something has become old. */
static int await_change(struct store *store)
{
    CLEANUP(deadline_pop) struct deadline deadline;
    uint64_t ttl_ms = MAX((uint64_t)store->partials.ttl_ns / 1000000, (uint64_t)SWEEP_MIN_MS);
    int r = 0;

    deadline_push(&deadline, MIN(ttl_ms, (uint64_t)SWEEP_MAX_MS));
    while (r == 0 && !store->partials.changed)
        r = await_wake(&store->partials.changes, "waiting for partial blobs to be kept");
    store->partials.changed = false;
    return r == -ETIMEDOUT ? 0 : r;
}

bool await_sweep_task(void *arg, struct error *err)
{
    struct store *store = arg;
    int r;

    do {
        CLEANUP_ERROR struct error failure = {0};
        if (!await_sweep(store, &failure) && failure.code != ERROR_CANCELLED)
            log_warn("cannot remove what was kept of blobs", LOG("error", failure.message));
    } while ((r = await_change(store)) == 0);
    return await_error(err, r, "looking after partial blobs");
}
