#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/store/internal.h"
#include "daemon/store/layer_file.h"
#include "daemon/store/tree.h"
#include "proto/async/await.h"
#include "proto/base/fault.h"

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

    if (!layer || layer->damage)
        return false;
    if (ret)
        *ret = layer->info;
    return true;
}

struct digest *layer_list(const struct store *store, size_t *ret_count)
{
    struct digest *list = xcalloc(map_count(store->layers) + 1, sizeof(*list));
    size_t count = 0, iterator = 0;
    void *value;

    while (map_next(store->layers, &iterator, NULL, &value)) {
        const struct layer *layer = value;
        if (!layer->hidden)
            list[count++] = layer->info.diff_id;
    }
    *ret_count = count;
    return list;
}

void layer_set_disk_bytes(struct store *store, struct layer *layer, uint64_t disk_bytes)
{
    store->layer_bytes += disk_bytes - layer->disk_bytes;
    layer->disk_bytes = disk_bytes;
}

void layer_set_damage(struct store *store, struct layer *layer, const char *damage)
{
    store->damaged_count += (damage != NULL) - (size_t)(layer->damage != NULL);
    free(layer->damage);
    layer->damage = xstrdup(damage);
}

void layer_update(struct store *store, struct layer *layer, const struct layer_row *row)
{
    layer->info = row->info;
    layer_set_disk_bytes(store, layer, row->disk_bytes);
    layer_set_damage(store, layer, row->damage);
    layer->blob_bytes = row->blob_bytes;
    layer->verified_unix_ns = row->verified_unix_ns;
    layer->blob_damaged = false;
    layer->version = store->sequence++;
}

void layer_add(struct store *store, const struct layer_row *row)
{
    struct layer *layer = xcalloc(1, sizeof(*layer));

    layer_update(store, layer, row);
    layer->used_unix_ns = row->created_unix_ns;
    for (size_t i = 0; i < store->image_count; i++)
        layer->image_uses += image_uses(store->images[i], &row->info.diff_id);
    CHECK(!map_put(store->layers, row->info.diff_id.text, layer));
}

struct layer *layer_free(struct layer *layer)
{
    if (!layer)
        return NULL;
    free(layer->damage);
    free(layer);
    return NULL;
}

void layer_drop(struct store *store, const struct digest *diff_id)
{
    struct layer *layer = map_remove(store->layers, diff_id->text);

    if (!layer)
        return;
    layer_set_disk_bytes(store, layer, 0);
    layer_set_damage(store, layer, NULL);
    layer_free(layer);
}

bool layer_check_replaceable(const struct store *store, const struct layer *layer,
                             struct error *err)
{
    if (layer->mounts == 0 || store->driver->replaces_mounted)
        return true;
    error_set(err, ERROR_FAILED_PRECONDITION, "LAYER_IN_USE",
              "layer %.19s is damaged, and a container that runs uses its files",
              layer->info.diff_id.text);
    return error_hint(err, "stop the containers of its images and try again");
}

/* --- Prepare -----------------------------------------------------------------------------------
 */

char *tmp_name(struct store *store, const struct digest *diff_id)
{
    return xasprintf("%s.%llu", digest_is_set(diff_id) ? digest_hex(diff_id) : "layer",
                     (unsigned long long)store->sequence++);
}

bool layer_failed(const struct layer_writer *writer, struct error *err)
{
    if (!digest_is_set(&writer->diff_id))
        return error_prefix(err, "cannot store a layer in %s", writer->store->data_root);
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
    const struct layer *old = diff_id ? layer_get(store, diff_id) : NULL;
    int r;

    writer->store = store;
    if (diff_id)
        writer->diff_id = *diff_id;
    writer->dir_fd = -1;
    writer->hasher = hasher_new();
    writer->name = tmp_name(store, &writer->diff_id);
    make.name = writer->name;
    if (old && !layer_check_replaceable(store, old, err)) {
        layer_failed(writer, err);
        return layer_writer_free_await(writer);
    }
    r = await_work(make_dir, &make, "preparing a layer");
    writer->dir_fd = make.fd;
    if (r < 0 || make.errnum)
        error_set_errno(err, r < 0 ? r : make.errnum, "cannot create a directory");
    else
        writer->preparation = store->driver->await_prepare(&context, writer->dir_fd, err);
    fault_point("layer.prepared");
    if (writer->preparation)
        return writer;
    layer_failed(writer, err);
    return layer_writer_free_await(writer);
}

/* --- Write -------------------------------------------------------------------------------------
 */

void layer_writer_keep(struct layer_writer *writer, bool compress)
{
    CHECK(!writer->blob_writer && writer->tar_bytes == 0);
    if (store_keeps_blobs(writer->store) && !(compress && writer->store->driver->tar_name))
        writer->blob_writer = blob_writer_new(writer->dir_fd, compress);
}

static bool keep_blocking(struct layer_writer *writer, const void *data, size_t size,
                          struct error *err)
{
    uint64_t grown;

    return blob_write_blocking(writer->blob_writer, data, size, &grown, err) &&
           space_grow_blocking(writer->store, grown, err);
}

bool layer_write_blocking(struct layer_writer *writer, const void *data, size_t size,
                          struct error *err)
{
    const struct layer_driver *driver = writer->store->driver;

    fault_point("layer.write");
    hasher_update(writer->hasher, data, size);
    writer->tar_bytes += size;
    return (space_grow_blocking(writer->store, size, err) &&
            (!driver->write || driver->write(writer->preparation, data, size, err)) &&
            (!writer->blob_writer || !blob_writer_compresses(writer->blob_writer) ||
             keep_blocking(writer, data, size, err))) ||
           layer_failed(writer, err);
}

bool layer_keep_blocking(struct layer_writer *writer, const void *data, size_t size,
                         struct error *err)
{
    return !writer->blob_writer || keep_blocking(writer, data, size, err) ||
           layer_failed(writer, err);
}

bool await_layer_written(struct layer_writer *writer, const void *data, size_t size,
                         struct error *err)
{
    return writer->store->driver->await_write(writer->preparation, data, size, err) ||
           layer_failed(writer, err);
}

struct write_work {
    struct layer_writer *writer;
    const void *data;
    size_t size;
    bool ok;
    struct error err;
};

static void write_in_pool(void *arg)
{
    struct write_work *work = arg;

    work->ok = layer_write_blocking(work->writer, work->data, work->size, &work->err);
}

bool await_layer_write(struct layer_writer *writer, const void *data, size_t size,
                       struct error *err)
{
    struct write_work work = {.writer = writer, .data = data, .size = size};
    int r;

    if (size == 0)
        return true;
    r = await_work(write_in_pool, &work, "storing a layer");
    if (r < 0)
        return await_error(err, r, "storing a layer");
    return work.ok ? await_layer_written(writer, data, size, err) : error_move(err, &work.err);
}

/* --- Commit ------------------------------------------------------------------------------------
 */

static bool check_hash(struct layer_writer *writer, struct error *err)
{
    struct digest digest = hasher_finish(writer->hasher);

    writer->hasher = hasher_free(writer->hasher);
    if (!digest_is_set(&writer->diff_id))
        writer->diff_id = digest;
    if (digest_eq(&digest, &writer->diff_id))
        return true;
    return error_set(err, ERROR_DATA_LOSS, "DIFF_ID_MISMATCH",
                     "layer %.19s: its uncompressed bytes are %.19s, not what the image says",
                     writer->diff_id.text, digest.text);
}

/* It is there already, in order: the files of this one need not become durable. */
static bool is_stored(const struct layer_writer *writer, struct layer_info *ret)
{
    const struct layer *layer = layer_get(writer->store, &writer->diff_id);

    if (!layer || layer->damage || layer->blob_damaged)
        return false;
    *ret = layer->info;
    return true;
}

struct finish_work {
    struct layer_writer *writer;
    struct error err;
};

static void finish_blob(void *arg)
{
    struct finish_work *work = arg;
    struct layer_writer *writer = work->writer;

    blob_finish_blocking(writer->blob_writer, &writer->blob, &writer->blob_bytes, &work->err);
}

static bool await_finish_blob(struct layer_writer *writer, struct error *err)
{
    struct finish_work work = {.writer = writer};
    int r;

    if (!writer->blob_writer)
        return true;
    if ((r = await_work(finish_blob, &work, "storing a blob")) < 0)
        return await_error(err, r, "storing a blob");
    return !error_is_set(&work.err) || error_move(err, &work.err);
}

bool await_layer_commit(struct layer_writer *writer, struct layer_info *ret, struct error *err)
{
    struct layer_content content = {0};
    struct layer_info info;
    bool ok;

    if (!check_hash(writer, err))
        return false;
    if (is_stored(writer, &info)) {
        if (ret)
            *ret = info;
        return true;
    }
    fault_point("layer.received");
    ok = await_finish_blob(writer, err) &&
         writer->store->driver->await_commit(writer->preparation, &content, err) &&
         await_commit_row(writer, &content, &info, err);
    free(content.seal);
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
    blob_writer_free(writer->blob_writer);
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
    if (layer->damage)
        return layer_damaged(diff_id, layer->damage, err);
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

void layer_unmount_replaced_await(struct store *store, struct layer *layer)
{
    CLEANUP(place_done) struct layer_place place = {0};

    place_of(store, &layer->info.diff_id, &place);
    layer->mounts++; /* it stays meanwhile */
    mount_lock_await(store, layer);
    if (layer->mounted)
        store->driver->unmount_await(&place);
    layer->mounted = false;
    mount_unlock(store, layer);
    layer->mounts--;
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
    for (size_t i = 0; i < count; i++) {
        size_t *leases = map_get(store->leased, diff_ids[i].text);
        if (!leases) {
            leases = xcalloc(1, sizeof(*leases));
            map_put(store->leased, diff_ids[i].text, leases);
        }
        (*leases)++;
    }
    return lease;
}

static void give_back(struct store *store, const struct digest *diff_id)
{
    struct layer *layer = layer_get(store, diff_id);
    size_t *leases = map_get(store->leased, diff_id->text);

    if (layer)
        layer->used_unix_ns = wall_clock_ns();
    if (--*leases > 0)
        return;
    map_remove(store->leased, diff_id->text);
    free(leases);
}

struct layer_lease *layer_lease_free(struct layer_lease *lease)
{
    if (!lease)
        return NULL;
    for (size_t i = 0; i < lease->count; i++)
        give_back(lease->store, &lease->diff_ids[i]);
    free(lease->diff_ids);
    free(lease);
    return NULL;
}
