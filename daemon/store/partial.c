#include "daemon/store/partial.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "daemon/store/internal.h"
#include "daemon/store/partial_file.h"
#include "daemon/store/tree.h"
#include "proto/async/await.h"
#include "proto/async/loop.h"
#include "proto/base/fault.h"
#include "proto/base/log.h"

/* Header and maps are written once there is so much: a small blob is not worth them. */
#define TAIL_FROM_BYTES (32 * KIB)

#define SYNC_INTERVAL_MS 2000

/* What a thread of the pool writes just now. */
struct writing {
    struct list node;
    struct byte_range range;
};

struct partial {
    struct store *store;
    struct digest blob;
    struct partial_layout layout;
    int fd;

    pthread_mutex_t lock; /* for state.have, writings, sync_error; held for no I/O */
    struct list writings;
    struct error sync_error; /* then what was not durable before does not count */

    pthread_mutex_t tail_lock; /* for the file beyond the blob, and the rest of state */
    struct partial_state state;
    bool dir_synced;

    /* The loop's. */
    bool discarded, syncing;
    bool no_sync; /* it is being opened, closed, reset or adopted */
    uint64_t opened_ms, synced_bytes;
};

static bool failed(const struct partial *partial, struct error *err)
{
    return error_prefix(err, "cannot store blob %.19s in %s", partial->blob.text,
                        partial->store->data_root);
}

/* --- Open: in the pool ------------------------------------------------------------------------ */

struct open_work {
    struct partial *partial;
    bool ok;
    struct error err;
};

/* What says nothing about the file. */
static bool is_passing(int errnum)
{
    return errnum == EMFILE || errnum == ENFILE || errnum == ENOMEM || errnum == EINTR;
}

/* False if there is nothing, or nothing of use, which is removed then. */
static bool open_kept(struct partial *partial)
{
    const struct store *store = partial->store;
    const char *name = digest_hex(&partial->blob);
    CLEANUP_ERROR struct error err = {0};
    int r;

    partial->fd =
        openat(store->partials.dir_fd, name, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (partial->fd < 0 && (errno == ENOENT || is_passing(errno)))
        return false;
    if (partial->fd < 0)
        error_set_errno(&err, errno, "cannot open it");
    else if (partial_file_read(partial->fd, &partial->layout, &partial->blob,
                               store->partials.boot_id, &partial->state, &err))
        return true;
    close_fd(&partial->fd);
    partial_state_done(&partial->state);
    partial->state = (struct partial_state){0};
    r = tree_remove(store->partials.dir_fd, name, NULL);
    log_warn(r < 0 ? "cannot use or remove what was kept of a blob"
                   : "discarded what was kept of a blob",
             LOG("blob", (const char *)partial->blob.text), LOG("error", err.message));
    return false;
}

static void open_in_pool(void *arg)
{
    struct open_work *work = arg;
    struct partial *partial = work->partial;

    work->ok = true;
    if (open_kept(partial))
        return;
    partial->fd = openat(partial->store->partials.dir_fd, digest_hex(&partial->blob),
                         O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    /* Its length tells it from one that is complete. */
    if (partial->fd < 0 || ftruncate(partial->fd, (off_t)partial->layout.end) < 0) {
        error_set_errno(&work->err, errno, "cannot create a file");
        work->ok = failed(partial, &work->err);
    }
    fault_point("partial.created");
}

/* --- Close and sync: in the pool -------------------------------------------------------------- */

static void copy_ranges(struct byte_ranges *to, const struct byte_ranges *from)
{
    byte_ranges_done(to);
    for (size_t i = 0; i < from->count; i++)
        byte_ranges_add(to, from->items[i].offset, from->items[i].end);
}

/* Both locks in this order. The tail lock is held. */
static bool write_tail(struct partial *partial, struct error *err)
{
    CLEANUP(partial_state_done) struct partial_state state = {0};

    pthread_mutex_lock(&partial->lock);
    copy_ranges(&state.have, &partial->state.have);
    pthread_mutex_unlock(&partial->lock);
    copy_ranges(&state.durable, &partial->state.durable);
    partial->state.current = partial_file_write_tail(partial->fd, &partial->layout, &partial->blob,
                                                     partial->store->partials.boot_id, &state, err);
    fault_point("partial.tail");
    return partial->state.current;
}

/* Writes it if it is not there and `bytes` are worth it. Once it is there, whoever writes a block
 * sets its byte. */
static bool need_tail(struct partial *partial, uint64_t bytes, bool *ret_there, struct error *err)
{
    bool ok = true;

    pthread_mutex_lock(&partial->tail_lock);
    if (!partial->state.current && bytes >= TAIL_FROM_BYTES)
        ok = write_tail(partial, err);
    *ret_there = partial->state.current;
    pthread_mutex_unlock(&partial->tail_lock);
    return ok;
}

/* The whole blocks of a range. */
static struct byte_range whole_blocks(const struct partial_layout *layout, struct byte_range range)
{
    struct byte_range blocks = partial_blocks(layout, range);

    return (struct byte_range){
        .offset = blocks.offset * layout->block_bytes,
        .end = MIN(blocks.end * layout->block_bytes, layout->size_bytes),
    };
}

/* Notes as durable what was there before the last sync. */
static bool mark_durable(struct partial *partial, const struct byte_ranges *synced,
                         struct error *err)
{
    const struct partial_layout *layout = &partial->layout;
    struct byte_ranges *durable = &partial->state.durable;

    for (size_t i = 0; i < synced->count; i++) {
        struct byte_range whole = whole_blocks(layout, synced->items[i]);
        struct byte_range range = {.end = whole.offset};
        while (byte_ranges_missing(durable, range.end, whole.end, &range)) {
            if (!partial_file_mark(partial->fd, layout->durable_offset,
                                   partial_blocks(layout, range), err))
                return false;
            byte_ranges_add(durable, range.offset, range.end);
        }
    }
    return true;
}

static bool sync_data(const struct partial *partial, struct error *err)
{
    int r;

    while ((r = fdatasync(partial->fd)) < 0 && errno == EINTR)
        continue;
    return r == 0 || error_set_errno(err, errno, "cannot sync it");
}

static bool sync_directory(struct partial *partial, struct error *err)
{
    if (!partial->dir_synced && fsync(partial->store->partials.dir_fd) < 0)
        return error_set_errno(err, errno, "cannot sync its directory");
    partial->dir_synced = true;
    return true;
}

/* Makes durable what is there now, then says so in the map. */
static bool checkpoint(struct partial *partial, struct error *err)
{
    CLEANUP(byte_ranges_done) struct byte_ranges snapshot = {0};
    bool ok;

    pthread_mutex_lock(&partial->lock);
    copy_ranges(&snapshot, &partial->state.have);
    pthread_mutex_unlock(&partial->lock);
    if (!need_tail(partial, UINT64_MAX, &ok, err) || !sync_data(partial, err))
        return false;
    fault_point("partial.synced");
    pthread_mutex_lock(&partial->tail_lock);
    ok = mark_durable(partial, &snapshot, err);
    pthread_mutex_unlock(&partial->tail_lock);
    fault_point("partial.marked");
    return ok && sync_data(partial, err) && sync_directory(partial, err);
}

/* A sync that failed leaves nobody knowing what is on the disk, and the next one says nothing of
 * it: only what was durable before counts. */
static void note_sync_error(struct partial *partial, struct error *failure)
{
    pthread_mutex_lock(&partial->lock);
    if (!error_is_set(&partial->sync_error))
        error_move(&partial->sync_error, failure);
    failed(partial, &partial->sync_error);
    pthread_mutex_unlock(&partial->lock);
}

static void sync_in_pool(void *arg)
{
    struct partial *partial = arg;
    CLEANUP_ERROR struct error failure = {0};

    if (!checkpoint(partial, &failure))
        note_sync_error(partial, &failure);
}

static bool has_whole_block(const struct partial *partial)
{
    for (size_t i = 0; i < partial->state.have.count; i++) {
        struct byte_range blocks = partial_blocks(&partial->layout, partial->state.have.items[i]);
        if (blocks.offset < blocks.end)
            return true;
    }
    return false;
}

/* False if nothing of it can be kept. */
static bool keep(struct partial *partial, struct error *err)
{
    struct partial_state *state = &partial->state;

    if (partial->discarded || !has_whole_block(partial))
        return false;
    if (state->have.bytes == state->durable.bytes)
        return true;
    if (!error_is_set(&partial->sync_error) && checkpoint(partial, err))
        return true;
    copy_ranges(&state->have, &state->durable);
    return has_whole_block(partial) && write_tail(partial, err);
}

static void close_in_pool(void *arg)
{
    struct partial *partial = arg;
    CLEANUP_ERROR struct error failure = {0};
    bool kept = keep(partial, &failure);

    if (error_is_set(&failure))
        log_warn("what was fetched of a blob may be lost",
                 LOG("blob", (const char *)partial->blob.text), LOG("error", failure.message));
    if (!kept && unlinkat(partial->store->partials.dir_fd, digest_hex(&partial->blob), 0) < 0)
        log_warn("cannot remove what was fetched of a blob",
                 LOG("blob", (const char *)partial->blob.text), LOG("error", strerror(errno)));
    close_fd(&partial->fd);
}

/* --- Open and close: in the task ---------------------------------------------------------------
 */

static struct partial *partial_new(struct store *store, const struct digest *blob,
                                   const struct partial_layout *layout)
{
    struct partial *partial = xcalloc(1, sizeof(*partial));

    partial->store = store;
    partial->blob = *blob;
    partial->layout = *layout;
    partial->fd = -1;
    partial->no_sync = true;
    partial->opened_ms = loop_now_ms();
    pthread_mutex_init(&partial->lock, NULL);
    pthread_mutex_init(&partial->tail_lock, NULL);
    list_init(&partial->writings);
    return partial;
}

/* The next one may open it. */
static struct partial *partial_free(struct partial *partial)
{
    struct partials *partials = &partial->store->partials;

    CHECK(map_remove(partials->open, partial->blob.text) == partial);
    wake_all(&partials->closed);
    close_fd(&partial->fd);
    partial_state_done(&partial->state);
    error_done(&partial->sync_error);
    pthread_mutex_destroy(&partial->lock);
    pthread_mutex_destroy(&partial->tail_lock);
    free(partial);
    return NULL;
}

struct partial *await_partial_open(struct store *store, const struct digest *blob,
                                   uint64_t size_bytes, struct error *err)
{
    struct partials *partials = &store->partials;
    struct partial_layout layout;
    struct open_work work = {0};
    int r = 0;

    if (!partial_layout_make(size_bytes, &layout, err))
        return NULL;
    while (r == 0 && map_get(partials->open, blob->text))
        r = await_wake(&partials->closed, "waiting for a partial blob");
    if (r < 0) {
        await_error(err, r, "waiting for blob %.19s", blob->text);
        return NULL;
    }
    work.partial = partial_new(store, blob, &layout);
    map_put(partials->open, blob->text, work.partial);
    r = await_work(open_in_pool, &work, "opening a partial blob");
    if (r == 0 && work.ok) {
        work.partial->no_sync = false;
        wake_all(&partials->opened);
        return work.partial;
    }
    if (r < 0)
        await_error(err, r, "opening blob %.19s", blob->text);
    else
        error_move(err, &work.err);
    return partial_free(work.partial);
}

/* From now on nobody syncs it in the background. Also for a cancelled task. */
static void stop_sync_await(struct partial *partial)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();

    partial->no_sync = true;
    while (partial->syncing)
        await_wake(&partial->store->partials.closed, "waiting for a partial blob to be synced");
}

struct partial *partial_close_await(struct partial *partial)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();

    if (!partial)
        return NULL;
    CHECK(list_empty(&partial->writings));
    stop_sync_await(partial);
    await_work(close_in_pool, partial, "closing a partial blob");
    kept_changed(partial->store);
    return partial_free(partial);
}

void partial_discard(struct partial *partial)
{
    partial->discarded = true;
}

/* --- Without its user --------------------------------------------------------------------------
 */

static void remove_in_pool(void *arg)
{
    struct open_work *work = arg;
    const struct partial *partial = work->partial;
    int r = tree_remove(partial->store->partials.dir_fd, digest_hex(&partial->blob), NULL);

    work->ok = r == 0 || error_set_errno(&work->err, r, "cannot remove blob %.19s from %s",
                                         partial->blob.text, partial->store->data_root);
    fault_point("partial.removed");
}

bool await_partial_remove(struct store *store, const struct digest *blob, struct error *err)
{
    const struct partial_layout layout = {0};
    struct open_work work = {.partial = partial_new(store, blob, &layout)};
    int r;

    /* Who wants to open it waits until it has gone. */
    CHECK(!map_put(store->partials.open, blob->text, work.partial));
    r = await_work(remove_in_pool, &work, "removing a partial blob");
    partial_free(work.partial);
    if (r < 0)
        return await_error(err, r, "removing blob %.19s", blob->text);
    return work.ok || error_move(err, &work.err);
}

struct look_work {
    const struct store *store;
    const struct digest *blob;
    struct partial_layout layout;
    uint64_t bytes;
};

static void look_in_pool(void *arg)
{
    struct look_work *work = arg;
    const struct partials *partials = &work->store->partials;
    CLEANUP_CLOSE int fd = openat(partials->dir_fd, digest_hex(work->blob),
                                  O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    CLEANUP(partial_state_done) struct partial_state state = {0};

    if (fd >= 0 &&
        partial_file_read(fd, &work->layout, work->blob, partials->boot_id, &state, NULL))
        work->bytes = state.have.bytes;
}

bool await_partial_kept(struct store *store, const struct digest *blob, uint64_t size_bytes,
                        uint64_t *ret_bytes, struct error *err)
{
    struct partial *open = map_get(store->partials.open, blob->text);
    struct look_work work = {.store = store, .blob = blob};
    int r;

    if (!partial_layout_make(size_bytes, &work.layout, err))
        return false;
    if (open && !open->no_sync) {
        *ret_bytes = partial_bytes(open);
        return true;
    }
    r = await_work(look_in_pool, &work, "looking for a partial blob");
    *ret_bytes = work.bytes;
    return r == 0 || await_error(err, r, "looking for blob %.19s", blob->text);
}

/* --- In the layer ------------------------------------------------------------------------------
 */

bool partial_link_blocking(struct partial *partial, int dir_fd, const char *name, struct error *err)
{
    struct partial_state *state = &partial->state;
    CLEANUP_ERROR struct error failure = {0};

    CHECK(state->have.bytes == partial->layout.size_bytes);
    if (!sync_data(partial, &failure)) {
        error_copy(err, &failure);
        note_sync_error(partial, &failure);
        return false;
    }
    byte_ranges_add(&state->durable, 0, partial->layout.size_bytes);
    if (ftruncate(partial->fd, (off_t)partial->layout.size_bytes) < 0)
        return error_set_errno(err, errno, "cannot cut %s", name);
    state->bare = true;
    state->current = false;
    fault_point("partial.bare");
    if (!sync_data(partial, err))
        return false;
    if (linkat(partial->store->partials.dir_fd, digest_hex(&partial->blob), dir_fd, name, 0) < 0)
        return error_set_errno(err, errno, "cannot link %s", name);
    return true;
}

void layer_adopt_blob_await(struct layer_writer *writer, struct partial *partial)
{
    stop_sync_await(partial);
    writer->adopted = partial;
    writer->blob = partial->blob;
    writer->blob_bytes = partial->layout.size_bytes;
}

/* --- What it holds ---------------------------------------------------------------------------- */

uint64_t partial_bytes(struct partial *partial)
{
    uint64_t bytes;

    pthread_mutex_lock(&partial->lock);
    bytes = partial->state.have.bytes;
    pthread_mutex_unlock(&partial->lock);
    return bytes;
}

bool partial_missing(struct partial *partial, uint64_t from, struct byte_range *ret)
{
    bool missing;

    pthread_mutex_lock(&partial->lock);
    missing = byte_ranges_missing(&partial->state.have, from, partial->layout.size_bytes, ret);
    pthread_mutex_unlock(&partial->lock);
    return missing;
}

uint64_t partial_contiguous(struct partial *partial)
{
    struct byte_range missing;

    return partial_missing(partial, 0, &missing) ? missing.offset : partial->layout.size_bytes;
}

/* --- Reading and writing -----------------------------------------------------------------------
 */

/* The first part of offset..end that is neither there nor being written. The lock is held. */
static bool find_unwritten(const struct partial *partial, uint64_t offset, uint64_t end,
                           struct byte_range *ret)
{
    bool again;

    do {
        if (!byte_ranges_missing(&partial->state.have, offset, end, ret))
            return false;
        again = false;
        LIST_FOR_EACH (node, &partial->writings) {
            const struct byte_range *other = &LIST_ITEM(node, struct writing, node)->range;
            if (other->offset <= ret->offset && ret->offset < other->end) {
                offset = other->end;
                again = true;
            } else if (ret->offset < other->offset) {
                ret->end = MIN(ret->end, other->offset);
            }
        }
    } while (again);
    return true;
}

static bool begin_writing(struct partial *partial, struct writing *writing, uint64_t offset,
                          uint64_t end, struct error *err)
{
    bool found, broken;

    pthread_mutex_lock(&partial->lock);
    broken = error_is_set(&partial->sync_error);
    if (broken)
        error_copy(err, &partial->sync_error);
    found = !broken && find_unwritten(partial, offset, end, &writing->range);
    if (found)
        list_append(&partial->writings, &writing->node);
    pthread_mutex_unlock(&partial->lock);
    return found;
}

/* Adds what was written, and returns the range that it completes. */
static struct byte_range end_writing(struct partial *partial, struct writing *writing,
                                     uint64_t written_end, uint64_t *ret_bytes)
{
    struct byte_range merged;

    pthread_mutex_lock(&partial->lock);
    list_remove(&writing->node);
    merged = byte_ranges_add(&partial->state.have, writing->range.offset, written_end);
    *ret_bytes = partial->state.have.bytes;
    pthread_mutex_unlock(&partial->lock);
    return merged;
}

/* The blocks that this write completed. */
static bool mark_written(struct partial *partial, struct byte_range written,
                         struct byte_range merged, uint64_t bytes, struct error *err)
{
    const struct partial_layout *layout = &partial->layout;
    struct byte_range blocks = partial_blocks(layout, merged);
    bool there;

    if (!need_tail(partial, bytes, &there, err))
        return false;
    if (!there || written.offset == written.end)
        return true;
    blocks.offset = MAX(blocks.offset, written.offset / layout->block_bytes);
    blocks.end = MIN(blocks.end, (written.end - 1) / layout->block_bytes + 1);
    return partial_file_mark(partial->fd, layout->written_offset, blocks, err);
}

/* Writes one part, and notes what came of it. */
static bool write_part(struct partial *partial, struct writing *writing, const void *data,
                       struct error *err)
{
    struct byte_range range = writing->range, merged;
    uint64_t at = range.offset, bytes;
    bool ok = space_grow_blocking(partial->store, range.end - range.offset, err);

    while (ok && at < range.end) {
        ssize_t n = pwrite(partial->fd, (const char *)data + (at - range.offset), range.end - at,
                           (off_t)at);
        if (n > 0)
            at += (uint64_t)n;
        else if (n == 0 || errno != EINTR)
            ok = error_set_errno(err, n < 0 ? errno : EIO, "cannot write");
    }
    fault_point("partial.written");
    merged = end_writing(partial, writing, at, &bytes);
    range.end = at;
    return mark_written(partial, range, merged, bytes, ok ? err : NULL) && ok;
}

bool partial_write_blocking(struct partial *partial, uint64_t offset, const void *data, size_t size,
                            struct error *err)
{
    CLEANUP_ERROR struct error failure = {0};
    uint64_t end = offset + size, at = offset;
    struct writing writing;

    CHECK(end >= offset && end <= partial->layout.size_bytes);
    while (begin_writing(partial, &writing, at, end, &failure)) {
        at = writing.range.end;
        if (!write_part(partial, &writing, (const char *)data + (writing.range.offset - offset),
                        &failure)) {
            error_move(err, &failure);
            return failed(partial, err);
        }
    }
    return !error_is_set(&failure) || error_move(err, &failure);
}

bool partial_read_blocking(struct partial *partial, uint64_t offset, void *data, size_t size,
                           struct error *err)
{
    bool there;

    pthread_mutex_lock(&partial->lock);
    there = byte_ranges_hold(&partial->state.have, offset, offset + size);
    pthread_mutex_unlock(&partial->lock);
    CHECK(there);
    return partial_file_pread(partial->fd, data, size, offset, err) || failed(partial, err);
}

/* --- Begin again -------------------------------------------------------------------------------
 */

struct reset_work {
    struct partial *partial;
    int errnum;
};

static void reset_in_pool(void *arg)
{
    struct reset_work *work = arg;
    struct partial *partial = work->partial;

    partial_state_done(&partial->state);
    partial->state = (struct partial_state){0};
    if (ftruncate(partial->fd, 0) < 0 || ftruncate(partial->fd, (off_t)partial->layout.end) < 0)
        work->errnum = errno;
}

bool await_partial_reset(struct partial *partial, struct error *err)
{
    struct reset_work work = {.partial = partial};
    int r;

    CHECK(list_empty(&partial->writings));
    stop_sync_await(partial);
    r = await_work(reset_in_pool, &work, "resetting a partial blob");
    partial->no_sync = false;
    partial->synced_bytes = 0;
    if (r == 0 && work.errnum == 0)
        return true;
    error_set_errno(err, r < 0 ? r : work.errnum, "cannot begin again");
    return failed(partial, err);
}

/* --- Syncing in the background -----------------------------------------------------------------
 */

static bool sync_is_due(struct partial *partial)
{
    return !partial->no_sync && loop_now_ms() - partial->opened_ms >= SYNC_INTERVAL_MS &&
           partial_bytes(partial) != partial->synced_bytes;
}

static int await_sync(struct partial *partial)
{
    uint64_t bytes = partial_bytes(partial);
    int r;

    partial->syncing = true;
    r = await_work(sync_in_pool, partial, "syncing a partial blob");
    partial->syncing = false;
    partial->synced_bytes = bytes;
    wake_all(&partial->store->partials.closed);
    return r;
}

static int await_sync_due(struct partials *partials)
{
    CLEANUP_FREE struct digest *blobs = xcalloc(map_count(partials->open) + 1, sizeof(*blobs));
    size_t count = 0, iterator = 0;
    void *value;
    int r = 0;

    while (map_next(partials->open, &iterator, NULL, &value))
        blobs[count++] = ((struct partial *)value)->blob;
    for (size_t i = 0; i < count && r == 0; i++) {
        struct partial *partial = map_get(partials->open, blobs[i].text);
        if (partial && sync_is_due(partial))
            r = await_sync(partial);
    }
    return r;
}

bool await_partial_sync_task(void *arg, struct error *err)
{
    struct store *store = arg;
    int r = 0;

    while (r == 0) {
        CLEANUP_ERROR struct error failure = {0};
        while (r == 0 && map_count(store->partials.open) == 0)
            r = await_wake(&store->partials.opened, "waiting for partial blobs");
        if (r == 0)
            r = await_sleep(SYNC_INTERVAL_MS);
        if (r == 0)
            r = await_sync_due(&store->partials);
        if (r == 0 && !await_headroom(store, &failure) && failure.code != ERROR_CANCELLED)
            log_warn("cannot make room for what is fetched", LOG("error", failure.message));
    }
    return await_error(err, r, "syncing partial blobs");
}
