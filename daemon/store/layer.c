#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/store/internal.h"
#include "daemon/store/tree.h"
#include "proto/async/await.h"

/* --- What is known -----------------------------------------------------------------------------
 */

struct layer *layer_get(const struct store *store, const struct digest *diff_id)
{
    struct layer *layer = map_get(store->layers, diff_id->text);

    return layer && !layer->hidden ? layer : NULL;
}

bool layer_find(const struct store *store, const struct digest *diff_id, struct layer_info *ret)
{
    const struct layer *layer = layer_get(store, diff_id);

    if (layer && ret)
        *ret = layer->info;
    return layer;
}

void layer_add(struct store *store, const struct layer_info *info, int64_t created_unix_ns)
{
    struct layer *layer = xcalloc(1, sizeof(*layer));

    layer->info = *info;
    layer->used_unix_ns = created_unix_ns;
    for (size_t i = 0; i < store->image_count; i++)
        layer->image_uses += image_uses(store->images[i], &info->diff_id);
    CHECK(!map_put(store->layers, info->diff_id.text, layer));
}

void layer_drop(struct store *store, const struct digest *diff_id)
{
    free(map_remove(store->layers, diff_id->text));
}

/* --- Prepare -----------------------------------------------------------------------------------
 */

struct layer_writer {
    struct store *store;
    struct digest diff_id;
    char *name; /* in tmp/ */
    int dir_fd;
    void *preparation; /* the driver's */
    struct hasher *hasher;
    uint64_t tar_bytes;
    bool moved; /* into layers/ */
};

char *tmp_name(struct store *store, const struct digest *diff_id)
{
    return xasprintf("%s.%llu", digest_hex(diff_id), (unsigned long long)store->sequence++);
}

static bool layer_failed(const struct layer_writer *writer, struct error *err)
{
    return error_prefix(err, "cannot store layer %.19s in %s", writer->diff_id.text,
                        writer->store->data_root);
}

struct make_dir {
    int parent_fd, fd, errnum;
    const char *name;
};

static void make_dir(void *arg)
{
    struct make_dir *make = arg;

    if (mkdirat(make->parent_fd, make->name, 0700) == 0)
        make->fd =
            openat(make->parent_fd, make->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (make->fd < 0)
        make->errnum = errno;
}

struct layer_writer *await_layer_prepare(struct store *store, const struct digest *diff_id,
                                         struct error *err)
{
    const struct layer_driver_context context = {.untar_path = store->untar_path,
                                                 .index_path = store->index_path};
    struct layer_writer *writer = xcalloc(1, sizeof(*writer));
    struct make_dir make = {.parent_fd = store->tmp_fd, .fd = -1};
    int r;

    writer->store = store;
    writer->diff_id = *diff_id;
    writer->hasher = hasher_new();
    writer->name = tmp_name(store, diff_id);
    make.name = writer->name;
    r = await_work(make_dir, &make, "preparing a layer");
    writer->dir_fd = make.fd;
    if (r < 0 || make.errnum)
        error_set_errno(err, r < 0 ? r : make.errnum, "cannot create a directory");
    else
        writer->preparation = store->driver->await_prepare(&context, writer->dir_fd, err);
    if (writer->preparation)
        return writer;
    layer_failed(writer, err);
    return layer_writer_free_await(writer);
}

/* --- Write -------------------------------------------------------------------------------------
 */

struct hash_work {
    struct hasher *hasher;
    const void *data;
    size_t size;
};

static void hash_in_pool(void *arg)
{
    const struct hash_work *work = arg;

    hasher_update(work->hasher, work->data, work->size);
}

/* While this hashes, the driver works on what it was given before. */
bool await_layer_write(struct layer_writer *writer, const void *data, size_t size,
                       struct error *err)
{
    struct hash_work work = {.hasher = writer->hasher, .data = data, .size = size};
    int r;

    if (size == 0)
        return true;
    r = await_work(hash_in_pool, &work, "hashing a layer");
    if (r < 0)
        return await_error(err, r, "storing layer %.19s", writer->diff_id.text);
    writer->tar_bytes += size;
    return writer->store->driver->await_write(writer->preparation, data, size, err) ||
           layer_failed(writer, err);
}

/* --- Commit ------------------------------------------------------------------------------------
 */

static bool check_hash(struct layer_writer *writer, struct error *err)
{
    struct digest digest = hasher_finish(writer->hasher);

    writer->hasher = hasher_free(writer->hasher);
    if (digest_eq(&digest, &writer->diff_id))
        return true;
    return error_set(err, ERROR_DATA_LOSS, "DIFF_ID_MISMATCH",
                     "layer %.19s: its uncompressed bytes are %.19s, not what the image says",
                     writer->diff_id.text, digest.text);
}

struct commit_work {
    struct layer_writer *writer;
    struct layer_info info;
    int64_t created_unix_ns;
};

/* Directory durable in its place, then the row (SECURITY.md, rule 7). */
static bool commit_in_pool(struct db *db, void *arg, struct error *err)
{
    const struct commit_work *work = arg;
    struct layer_writer *writer = work->writer;
    const struct store *store = writer->store;
    const char *hex = digest_hex(&writer->diff_id);

    /* What is there without a row is litter: it goes where we were, and is removed with that. */
    if (renameat2(store->tmp_fd, writer->name, store->layers_fd, hex, RENAME_NOREPLACE) < 0 &&
        (errno != EEXIST ||
         renameat2(store->tmp_fd, writer->name, store->layers_fd, hex, RENAME_EXCHANGE) < 0))
        return error_set_errno(err, errno, "cannot move it into place");
    writer->moved = true;
    if (fsync(store->layers_fd) < 0)
        return error_set_errno(err, errno, "cannot sync its directory");
    return db_run(db,
                  "INSERT INTO layers"
                  " (diff_id, tar_bytes, content_bytes, created_unix_ns, verified_unix_ns)"
                  " VALUES (?, ?, ?, ?, ?)",
                  err, db_text(writer->diff_id.text), db_integer((int64_t)work->info.tar_bytes),
                  db_integer((int64_t)work->info.content_bytes), db_integer(work->created_unix_ns),
                  db_integer(work->created_unix_ns));
}

/* Back to tmp/, where it is litter. If that fails the next start finds it without a row. */
static void move_back(void *arg)
{
    struct layer_writer *writer = arg;
    const struct store *store = writer->store;

    tree_remove(store->tmp_fd, writer->name, NULL);
    renameat(store->layers_fd, digest_hex(&writer->diff_id), store->tmp_fd, writer->name);
}

static bool await_commit_row(struct layer_writer *writer, struct layer_info *info,
                             struct error *err)
{
    struct store *store = writer->store;
    struct commit_work work = {.writer = writer, .info = *info, .created_unix_ns = wall_clock_ns()};
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);
    const struct layer *other;

    if (!locked)
        return false;
    other = layer_get(store, &writer->diff_id);
    if (other) {
        *info = other->info;
        return true;
    }
    if (await_db_transaction(locked, commit_in_pool, &work, err)) {
        layer_add(store, info, work.created_unix_ns);
        return true;
    }
    if (writer->moved) {
        CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();
        await_work(move_back, writer, "taking back a layer");
    }
    return false;
}

bool await_layer_commit(struct layer_writer *writer, struct layer_info *ret, struct error *err)
{
    struct layer_info info = {.diff_id = writer->diff_id, .tar_bytes = writer->tar_bytes};
    struct layer_content content = {0};
    bool ok;

    if (!check_hash(writer, err))
        return false;
    ok = writer->store->driver->await_commit(writer->preparation, &content, err);
    info.content_bytes = content.content_bytes;
    ok = ok && await_commit_row(writer, &info, err);
    free(content.seal); /* kept in the row */
    if (!ok)
        return layer_failed(writer, err);
    if (ret)
        *ret = info;
    return true;
}

struct discard_work {
    const struct store *store;
    const char *name;
};

static void discard_in_pool(void *arg)
{
    const struct discard_work *work = arg;

    tree_remove(work->store->tmp_fd, work->name, NULL);
}

struct layer_writer *layer_writer_free_await(struct layer_writer *writer)
{
    if (!writer)
        return NULL;
    writer->store->driver->end_await(writer->preparation);
    if (writer->dir_fd >= 0) {
        struct discard_work work = {.store = writer->store, .name = writer->name};
        CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();
        await_work(discard_in_pool, &work, "discarding a layer");
    }
    close_fd(&writer->dir_fd);
    hasher_free(writer->hasher);
    free(writer->name);
    free(writer);
    return NULL;
}

/* --- Mounts ------------------------------------------------------------------------------------
 */

static void place_of(const struct store *store, const struct digest *diff_id,
                     struct layer_place *ret)
{
    ret->directory = xasprintf("%s/layers/%s", store->data_root, digest_hex(diff_id));
    ret->mount_point = xasprintf("%s/mnt/%s", store->data_root, digest_hex(diff_id));
}

static void place_done(struct layer_place *place)
{
    free((char *)place->directory);
    free((char *)place->mount_point);
}

/* One mounts or unmounts a layer at a time. It is counted already, so it stays. Also for a
 * cancelled task. */
static void mount_lock_await(struct store *store, struct layer *layer)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();

    while (layer->mounting)
        await_wake(&store->mount_queue, "waiting for a layer's mount");
    layer->mounting = true;
}

static void mount_unlock(struct store *store, struct layer *layer)
{
    layer->mounting = false;
    wake_all(&store->mount_queue);
}

bool await_layer_mount(struct store *store, const struct digest *diff_id, char **ret_path,
                       struct error *err)
{
    CLEANUP(place_done) struct layer_place place = {0};
    struct layer *layer = layer_get(store, diff_id);
    bool ok;

    if (!layer)
        return error_set(err, ERROR_NOT_FOUND, "LAYER_NOT_FOUND", "there is no layer %.19s in %s",
                         diff_id->text, store->data_root);
    place_of(store, diff_id, &place);
    layer->mounts++; /* from here on it is not removed */
    mount_lock_await(store, layer);
    ok = store->driver->await_mount(&place, ret_path, err);
    layer->mounted |= ok;
    mount_unlock(store, layer);
    if (ok)
        return true;
    layer->mounts--;
    return error_prefix(err, "cannot mount layer %.19s", diff_id->text);
}

void layer_unmount_await(struct store *store, const struct digest *diff_id)
{
    CLEANUP(place_done) struct layer_place place = {0};
    struct layer *layer = layer_get(store, diff_id);

    CHECK(layer && layer->mounts > 0);
    place_of(store, diff_id, &place);
    mount_lock_await(store, layer);
    if (layer->mounts == 1) {
        store->driver->unmount_await(&place);
        layer->mounted = false;
    }
    mount_unlock(store, layer);
    layer->mounts--;
    layer->used_unix_ns = wall_clock_ns();
}

void layer_unmount_unused_await(struct store *store, const struct digest *diff_id)
{
    CLEANUP(place_done) struct layer_place place = {0};
    struct layer *layer = map_get(store->layers, diff_id->text);

    if (!layer || !layer->mounted || layer->mounting || layer->mounts > 0)
        return;
    place_of(store, diff_id, &place);
    layer->mounts++; /* it stays meanwhile */
    mount_lock_await(store, layer);
    if (layer->mounts == 1) {
        store->driver->unmount_await(&place);
        layer->mounted = false;
    }
    mount_unlock(store, layer);
    layer->mounts--;
}

void store_unmount_unused_await(struct store *store)
{
    CLEANUP_FREE struct digest *mounted = NULL;
    size_t count = 0, iterator = 0;
    void *value;

    mounted = xcalloc(map_count(store->layers) + 1, sizeof(*mounted));
    while (map_next(store->layers, &iterator, NULL, &value)) {
        const struct layer *layer = value;
        if (layer->mounted && layer->mounts == 0)
            mounted[count++] = layer->info.diff_id;
    }
    for (size_t i = 0; i < count; i++)
        layer_unmount_unused_await(store, &mounted[i]);
}

/* --- Leases ------------------------------------------------------------------------------------
 */

struct layer_lease *layer_lease_new(struct store *store, const struct digest *diff_ids,
                                    size_t count)
{
    struct layer_lease *lease = xcalloc(1, sizeof(*lease));

    lease->store = store;
    lease->diff_ids = xmemdup(diff_ids, count * sizeof(*diff_ids));
    lease->count = count;
    list_append(&store->leases, &lease->node);
    return lease;
}

struct layer_lease *layer_lease_free(struct layer_lease *lease)
{
    if (!lease)
        return NULL;
    for (size_t i = 0; i < lease->count; i++) {
        struct layer *layer = layer_get(lease->store, &lease->diff_ids[i]);
        if (layer)
            layer->used_unix_ns = wall_clock_ns();
    }
    list_remove(&lease->node);
    free(lease->diff_ids);
    free(lease);
    return NULL;
}
