/* The ledger: what is on the disk, from memory. Layers are counted when they are committed; those
 * that a davitd without a ledger committed are counted in the background. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/store/internal.h"
#include "daemon/store/tree_walk.h"
#include "proto/async/await.h"
#include "proto/base/log.h"

/* --- Sums --------------------------------------------------------------------------------------
 */

/* Each layer of the image once; the array has room for all. Marks them with how often they come. */
static size_t mark_layers(const struct store *store, const struct image *image,
                          struct layer **layers)
{
    size_t count = 0;

    for (size_t i = 0; i < image->diff_id_count; i++) {
        struct layer *layer = layer_get(store, &image->diff_ids[i]);
        if (layer && layer->marks++ == 0)
            layers[count++] = layer;
    }
    return count;
}

struct image_usage image_usage(const struct store *store, const struct image *image)
{
    struct image_usage usage = {0};
    struct layer *layers[LAYERS_MAX];
    size_t count = mark_layers(store, image, layers);

    for (size_t i = 0; i < count; i++) {
        if (layers[i]->image_uses == layers[i]->marks)
            usage.unique_bytes += layers[i]->disk_bytes;
        else
            usage.shared_bytes += layers[i]->disk_bytes;
        layers[i]->marks = 0;
    }
    usage.containers = image_containers(store, &image->id);
    return usage;
}

/* What containers hold: each image and each layer once. */
static void add_active(const struct store *store, struct store_usage *usage)
{
    size_t room = store->image_count, layer_count = 0;
    CLEANUP_FREE struct layer **layers = NULL;
    CLEANUP_FREE const struct image **held = xcalloc(room + 1, sizeof(*held));

    LIST_FOR_EACH (node, &store->holds) {
        const struct image_hold *hold = LIST_ITEM(node, struct image_hold, node);
        const struct image *image = image_find_id(store, hold->image.text, NULL);
        bool again = !image;
        for (size_t i = 0; i < usage->active_image_count && !again; i++)
            again = held[i] == image;
        if (again)
            continue;
        held[usage->active_image_count++] = image;
        layers = xrealloc(layers, (layer_count + image->diff_id_count) * sizeof(*layers));
        layer_count += mark_layers(store, image, layers + layer_count);
    }
    for (size_t i = 0; i < layer_count; i++) {
        usage->active_layer_bytes += layers[i]->disk_bytes;
        layers[i]->marks = 0;
    }
}

size_t store_damaged_count(const struct store *store)
{
    return store->damaged_count;
}

struct usage_work {
    const char *data_root;
    uint64_t metadata_bytes;
};

/* What lies in the data root itself: the database and its files, and the directories, without what
 * is in them. */
static void measure_metadata(void *arg)
{
    struct usage_work *work = arg;
    DIR *root = opendir(work->data_root);
    const struct dirent *entry;
    struct stat st;

    while (root && (entry = readdir(root))) {
        if (!str_eq(entry->d_name, "..") &&
            fstatat(dirfd(root), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            work->metadata_bytes += (uint64_t)st.st_blocks * STAT_BLOCK_BYTES;
    }
    if (root)
        closedir(root);
}

bool await_store_usage(struct store *store, struct store_usage *ret, struct error *err)
{
    struct usage_work work = {.data_root = store->data_root};
    int r = await_work(measure_metadata, &work, "measuring the database");

    if (r < 0)
        return await_error(err, r, "measuring the database");
    *ret = (struct store_usage){
        .image_count = store->image_count,
        .layer_count = map_count(store->layers),
        .layer_bytes = store->layer_bytes,
        .metadata_bytes = work.metadata_bytes,
    };
    add_active(store, ret);
    return await_kept_usage(store, ret, err);
}

/* --- Layers that have not been counted ---------------------------------------------------------
 */

struct count_work {
    const struct store *store;
    const atomic_bool *stop; /* then the count is not complete */
    struct digest diff_id;
    uint64_t disk_bytes;
};

static void count_in_pool(void *arg)
{
    struct count_work *work = arg;
    CLEANUP_CLOSE int fd = openat(work->store->layers_fd, digest_hex(&work->diff_id),
                                  O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0)
        work->disk_bytes = tree_disk_bytes(fd, work->stop);
}

static bool write_count(struct db *db, void *arg, struct error *err)
{
    const struct count_work *work = arg;

    return db_run(db, "UPDATE layers SET disk_bytes = ? WHERE diff_id = ?", err,
                  db_integer((int64_t)work->disk_bytes), db_text(work->diff_id.text));
}

static bool await_count(struct store *store, const struct digest *diff_id, struct error *err)
{
    struct count_work work = {.store = store, .stop = &store->trash.stop, .diff_id = *diff_id};
    int r = await_work(count_in_pool, &work, "counting a layer");
    CLEANUP(db_unlock) struct db *locked = r == 0 ? await_db_lock(store->db, err) : NULL;
    struct layer *layer;

    if (r < 0 || atomic_load(work.stop))
        return await_error(err, r < 0 ? r : -ECANCELED, "counting a layer");
    if (!locked || !await_db_transaction(locked, write_count, &work, err))
        return false;
    layer = layer_get(store, diff_id);
    if (layer)
        layer_set_disk_bytes(store, layer, work.disk_bytes);
    return true;
}

bool await_count_task(void *arg, struct error *err)
{
    struct store *store = arg;
    CLEANUP_FREE struct digest *diff_ids = NULL;
    size_t count = 0, iterator = 0;
    void *value;
    int r;

    diff_ids = xcalloc(map_count(store->layers) + 1, sizeof(*diff_ids));
    while (map_next(store->layers, &iterator, NULL, &value)) {
        const struct layer *layer = value;
        if (layer->disk_bytes == 0)
            diff_ids[count++] = layer->info.diff_id;
    }
    for (size_t i = 0; i < count; i++) {
        CLEANUP_ERROR struct error failure = {0};
        if (!await_count(store, &diff_ids[i], &failure) && (r = task_check()) < 0)
            return await_error(err, r, "counting layers");
        if (error_is_set(&failure))
            log_warn("cannot count a layer", LOG("layer", (const char *)diff_ids[i].text),
                     LOG("error", failure.message));
    }
    return true;
}
