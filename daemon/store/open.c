/* Opening a data root: done on the thread pool, before anybody knows the store. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/store/internal.h"
#include "proto/base/fault.h"
#include "proto/base/log.h"

/* --- Directories and the lock ------------------------------------------------------------------
 */

static bool make_data_root(const char *data_root, struct error *err)
{
    CLEANUP_FREE char *path = xstrdup(data_root);

    for (char *c = path + 1;; c++) {
        bool last = *c == '\0';
        if (*c != '/' && !last)
            continue;
        *c = '\0';
        if (mkdir(path, last ? 0700 : 0755) < 0 && errno != EEXIST) {
            error_set_errno(err, errno, "cannot create the data root %s", data_root);
            return error_hint(err, "davitd needs a directory that root may write to: see "
                                   "--data-root");
        }
        if (last)
            return true;
        *c = '/';
    }
}

static bool unusable(const char *data_root, const char *name, struct error *err)
{
    error_set_errno(err, errno, "cannot use the data root: %s/%s", data_root, name);
    if (err && err->code == ERROR_PERMISSION_DENIED)
        error_hint(err, "davitd needs a directory that root may write to: see --data-root");
    return false;
}

static bool take_lock(struct store *store, int root_fd, struct error *err)
{
    char pid[16] = "unknown";
    ssize_t n;

    store->lock_fd = openat(root_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (store->lock_fd < 0)
        return unusable(store->data_root, "lock", err);
    if (flock(store->lock_fd, LOCK_EX | LOCK_NB) == 0) {
        snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
        if (ftruncate(store->lock_fd, 0) < 0 ||
            pwrite(store->lock_fd, pid, strlen(pid), 0) != (ssize_t)strlen(pid))
            return unusable(store->data_root, "lock", err);
        return true;
    }
    if (errno != EWOULDBLOCK)
        return unusable(store->data_root, "lock", err);
    n = pread(store->lock_fd, pid, sizeof(pid) - 1, 0);
    if (n > 0)
        pid[strspn(pid, "0123456789")] = '\0';
    error_set(err, ERROR_FAILED_PRECONDITION, "DATA_ROOT_IN_USE",
              "the data root %s is in use by another davitd (pid %s)", store->data_root, pid);
    return error_hint(err, "stop that one first, or give this one its own --data-root");
}

static int open_subdirectory(int root_fd, const char *name)
{
    if (mkdirat(root_fd, name, 0700) < 0 && errno != EEXIST)
        return -1;
    return openat(root_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static bool open_directories(struct store *store, struct error *err)
{
    CLEANUP_CLOSE int root_fd = -1;
    char *absolute;

    if (!make_data_root(store->data_root, err))
        return false;
    absolute = realpath(store->data_root, NULL);
    if (!absolute)
        return unusable(store->data_root, "", err);
    free(store->data_root);
    store->data_root = absolute;
    root_fd = open(store->data_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return unusable(store->data_root, "", err);
    if (!take_lock(store, root_fd, err))
        return false;
    store->layers_fd = open_subdirectory(root_fd, "layers");
    if (store->layers_fd < 0)
        return unusable(store->data_root, "layers", err);
    store->tmp_fd = open_subdirectory(root_fd, "tmp");
    if (store->tmp_fd < 0)
        return unusable(store->data_root, "tmp", err);
    store->mnt_fd = open_subdirectory(root_fd, "mnt");
    if (store->mnt_fd < 0)
        return unusable(store->data_root, "mnt", err);
    store->partials.dir_fd = open_subdirectory(root_fd, "partial");
    if (store->partials.dir_fd < 0)
        return unusable(store->data_root, "partial", err);
    return fsync(root_fd) == 0 || unusable(store->data_root, "", err);
}

/* --- Rows --------------------------------------------------------------------------------------
 */

static bool read_meta(struct db *db, const char *key, char **ret, struct error *err)
{
    const struct db_value value = db_text(key);
    CLEANUP(db_query_done)
    sqlite3_stmt *row = db_query(db, "SELECT value FROM meta WHERE key = ?", &value, 1, err);
    int r = row ? db_step(db, row, err) : -1;

    if (r > 0)
        *ret = db_column_text(row, 0);
    return r >= 0;
}

/* The id is made once per data root. */
static bool load_id(struct db *db, struct store *store, struct error *err)
{
    CLEANUP_FREE char *id = NULL;
    unsigned char random[16];

    if (!read_meta(db, "id", &id, err))
        return false;
    if (id) {
        snprintf(store->id, sizeof(store->id), "%s", id);
        return true;
    }
    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        die("no random numbers");
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(store->id + 2 * i, 3, "%02x", random[i]);
    return db_run(db, "INSERT INTO meta VALUES ('id', ?)", err, db_text(store->id));
}

/* The driver is recorded too: it is whose layers are here. */
static bool load_driver(struct db *db, struct store *store, const char *forced, struct error *err)
{
    CLEANUP_FREE char *recorded = NULL;

    return read_meta(db, "driver", &recorded, err) &&
           driver_choose(store, forced, recorded, map_count(store->layers) > 0, err) &&
           (str_eq(recorded, store->driver->name) ||
            db_run(db, "INSERT OR REPLACE INTO meta VALUES ('driver', ?)", err,
                   db_text(store->driver->name)));
}

/* A data root from before there was a scrub counts as verified now. */
static bool load_scrub(struct db *db, struct store *store, struct error *err)
{
    CLEANUP_FREE char *verified = NULL;

    if (!read_meta(db, IMAGES_VERIFIED_KEY, &verified, err))
        return false;
    store->images_verified_unix_ns = verified ? strtoll(verified, NULL, 10) : wall_clock_ns();
    return verified || images_verified_write(db, store, err);
}

static bool column_digest(sqlite3_stmt *row, int column, struct digest *ret, struct error *err)
{
    const char *text = (const char *)sqlite3_column_text(row, column);

    return digest_parse(text ? text : "", ret, err);
}

static bool load_layers(struct db *db, struct store *store, struct error *err)
{
    CLEANUP(db_query_done)
    sqlite3_stmt *result =
        db_query(db,
                 "SELECT diff_id, tar_bytes, content_bytes, created_unix_ns, verified_unix_ns,"
                 " disk_bytes, blob_bytes, damage FROM layers",
                 NULL, 0, err);
    int r = result ? 1 : -1;

    while (r > 0 && (r = db_step(db, result, err)) > 0) {
        struct layer_row row = {
            .info.tar_bytes = (uint64_t)sqlite3_column_int64(result, 1),
            .info.content_bytes = (uint64_t)sqlite3_column_int64(result, 2),
            .created_unix_ns = sqlite3_column_int64(result, 3),
            .verified_unix_ns = sqlite3_column_int64(result, 4),
            .disk_bytes = (uint64_t)sqlite3_column_int64(result, 5), /* NULL gives 0 */
            .blob_bytes = (uint64_t)sqlite3_column_int64(result, 6),
            .damage = (const char *)sqlite3_column_text(result, 7),
        };
        if (!column_digest(result, 0, &row.info.diff_id, err))
            return false;
        layer_add(store, &row);
    }
    return r == 0;
}

static bool load_image_rows(struct db *db, struct store *store, struct error *err)
{
    CLEANUP(db_query_done)
    sqlite3_stmt *row =
        db_query(db,
                 "SELECT id, manifest_digest, created_unix_ns, os, architecture, size_bytes"
                 " FROM images INDEXED BY images_in_short",
                 NULL, 0, err);
    int r = row ? 1 : -1;

    while (r > 0 && (r = db_step(db, row, err)) > 0) {
        struct digest id, manifest_digest;
        struct image *image;

        if (!column_digest(row, 0, &id, err) || !column_digest(row, 1, &manifest_digest, err))
            return false;
        image = image_new();
        image->id = id;
        image->manifest_digest = manifest_digest;
        image->created_unix_ns = sqlite3_column_int64(row, 2);
        image->os = db_column_text(row, 3);
        image->architecture = db_column_text(row, 4);
        image->size_bytes = (uint64_t)sqlite3_column_int64(row, 5);
        image_append(store, image);
    }
    images_sort(store);
    return r == 0;
}

static struct image *column_image(const struct store *store, sqlite3_stmt *row, int column)
{
    return map_get(store->images_by_id, (const char *)sqlite3_column_text(row, column));
}

/* Doubled when they are full. */
static bool add_diff_id(struct store *store, struct image *image, sqlite3_stmt *row, int column,
                        struct error *err)
{
    size_t count = image->diff_id_count;
    struct layer *layer;

    if ((count & (count - 1)) == 0)
        image->diff_ids = xrealloc(image->diff_ids, MAX(2 * count, 1) * sizeof(*image->diff_ids));
    if (!column_digest(row, column, &image->diff_ids[count], err))
        return false;
    layer = map_get(store->layers, image->diff_ids[count].text);
    if (layer)
        layer->image_uses++;
    image->diff_id_count++;
    return true;
}

static bool load_image_layers(struct db *db, struct store *store, struct error *err)
{
    CLEANUP(db_query_done)
    sqlite3_stmt *row =
        db_query(db, "SELECT image_id, diff_id FROM image_layers ORDER BY image_id, position", NULL,
                 0, err);
    struct image *image = NULL;
    int r = row ? 1 : -1;

    while (r > 0 && (r = db_step(db, row, err)) > 0) {
        if (!image || !str_eq(image->id.text, (const char *)sqlite3_column_text(row, 0)))
            image = column_image(store, row, 0);
        if (image && !add_diff_id(store, image, row, 1, err))
            return false;
    }
    return r == 0;
}

/* In order, so that each image's are. */
static bool load_image_names(struct db *db, struct store *store, struct error *err)
{
    CLEANUP(db_query_done)
    sqlite3_stmt *row =
        db_query(db, "SELECT name, kind, image_id FROM image_names ORDER BY name", NULL, 0, err);
    int r = row ? 1 : -1;

    while (r > 0 && (r = db_step(db, row, err)) > 0) {
        struct image *image = column_image(store, row, 2);
        if (image)
            image_append_name(store, image, (const char *)sqlite3_column_text(row, 0),
                              str_eq((const char *)sqlite3_column_text(row, 1), "tag"));
    }
    return r == 0;
}

/* One query for each table: with one for each image a start would take its time. */
static bool load_images(struct db *db, struct store *store, struct error *err)
{
    return load_image_rows(db, store, err) && load_image_layers(db, store, err) &&
           load_image_names(db, store, err) && image_details_load(db, store, err);
}

/* --- Litter ------------------------------------------------------------------------------------
 */

static void closedir_cleanup(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

/* The names in a directory; the caller's. */
static bool list_directory(const struct store *store, int fd, const char *name, char ***ret,
                           struct error *err)
{
    int list_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP(closedir_cleanup) DIR *dir = list_fd >= 0 ? fdopendir(list_fd) : NULL;
    const struct dirent *item;
    size_t count = 0;

    if (!dir)
        return unusable(store->data_root, name, err);
    *ret = xcalloc(1, sizeof(char *));
    while ((item = readdir(dir))) {
        if (str_eq(item->d_name, ".") || str_eq(item->d_name, ".."))
            continue;
        /* Doubled when it is full. */
        if ((count & (count + 1)) == 0)
            *ret = xrealloc(*ret, 2 * (count + 1) * sizeof(char *));
        (*ret)[count++] = xstrdup(item->d_name);
        (*ret)[count] = NULL;
    }
    return true;
}

static bool move_litter(struct store *store, int fd, const char *name, struct error *err)
{
    CLEANUP_FREE char *trash_name = xasprintf("litter.%llu", (unsigned long long)store->sequence++);

    if (renameat(fd, name, store->tmp_fd, trash_name) < 0)
        return unusable(store->data_root, name, err);
    fault_point("open.litter");
    trash_add(store, trash_name);
    return true;
}

/* Everything in tmp/, every directory in layers/ that has no row: what was on its way in or out
 * when the last daemon ended; and what is no blob in partial/. */
static bool find_litter(struct store *store, char *const *layer_litter, struct error *err)
{
    CLEANUP(strv_cleanup) char **tmp_names = NULL;
    CLEANUP(strv_cleanup) char **partial_names = NULL;
    struct digest digest;

    if (!list_directory(store, store->tmp_fd, "tmp", &tmp_names, err) ||
        !list_directory(store, store->partials.dir_fd, "partial", &partial_names, err))
        return false;
    for (char **name = tmp_names; *name; name++)
        trash_add(store, *name);
    for (; layer_litter && *layer_litter; layer_litter++) {
        if (!move_litter(store, store->layers_fd, *layer_litter, err))
            return false;
    }
    for (char **name = partial_names; *name; name++) {
        CLEANUP_FREE char *blob = xasprintf("sha256:%s", *name);
        if (!digest_parse(blob, &digest, NULL) &&
            !move_litter(store, store->partials.dir_fd, *name, err))
            return false;
    }
    return true;
}

/* Layers that the last daemon mounted, and that nothing unmounted since: containers may run on
 * them, so they stay until it is known that nothing does. */
static bool find_mounts(struct store *store, struct error *err)
{
    CLEANUP(strv_cleanup) char **names = NULL;

    if (!list_directory(store, store->mnt_fd, "mnt", &names, err))
        return false;
    for (char **name = names; *name; name++) {
        CLEANUP_FREE char *diff_id = xasprintf("sha256:%s", *name);
        CLEANUP_FREE char *path = xasprintf("%s/mnt/%s", store->data_root, *name);
        struct layer *layer = map_get(store->layers, diff_id);
        if (layer) {
            layer->mounted = true;
            continue;
        }
        umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
        if (rmdir(path) < 0)
            log_warn("cannot remove a mount point", LOG("path", path),
                     LOG("error", strerror(errno)));
    }
    return true;
}

/* Marks the layers that have their directory; the names of what has no row: the caller's. */
static bool find_directories(struct store *store, char ***ret_litter, struct error *err)
{
    CLEANUP(strv_cleanup) char **names = NULL;
    char diff_id[sizeof("sha256:") + NAME_MAX];

    if (!list_directory(store, store->layers_fd, "layers", &names, err))
        return false;
    for (char **name = names; *name; name++) {
        struct layer *layer;
        snprintf(diff_id, sizeof(diff_id), "sha256:%s", *name);
        layer = map_get(store->layers, diff_id);
        if (layer)
            layer->marks = 1;
        else
            strv_add(ret_litter, *name);
    }
    return true;
}

/* A layer whose directory somebody took away is as if it had never been fetched: the next pull of
 * its images fetches it again. */
static bool forget_lost_layers(struct db *db, struct store *store, char ***ret_litter,
                               struct error *err)
{
    CLEANUP(strv_cleanup) char **lost = xcalloc(map_count(store->layers) + 1, sizeof(char *));
    size_t iterator = 0, count = 0;
    void *value;

    if (!find_directories(store, ret_litter, err))
        return false;
    while (map_next(store->layers, &iterator, NULL, &value)) {
        struct layer *layer = value;
        if (layer->marks == 0)
            lost[count++] = xstrdup(layer->info.diff_id.text);
        layer->marks = 0;
    }
    for (size_t i = 0; i < count; i++) {
        struct digest diff_id;
        log_warn("a layer is gone from the data root: images that have it must be pulled again",
                 LOG("layer", lost[i]));
        if (!digest_parse(lost[i], &diff_id, err) ||
            !db_run(db, "DELETE FROM layers WHERE diff_id = ?", err, db_text(lost[i])))
            return false;
        layer_drop(store, &diff_id);
    }
    return true;
}

/* --- All of it ---------------------------------------------------------------------------------
 */

struct load_work {
    struct store *store;
    const struct store_options *options;
    char **layer_litter; /* names in layers/ that have no row */
};

static void load_work_done(struct load_work *work)
{
    strv_free(work->layer_litter);
}

static bool load(struct db *db, void *arg, struct error *err)
{
    struct load_work *work = arg;
    struct store *store = work->store;

    return load_id(db, store, err) && load_scrub(db, store, err) && load_layers(db, store, err) &&
           load_driver(db, store, work->options->driver, err) &&
           forget_lost_layers(db, store, &work->layer_litter, err) && load_images(db, store, err) &&
           event_log_load(db, &store->events, err);
}

static bool has_programs(struct store *store, const char *dir)
{
    free(store->untar_path);
    free(store->index_path);
    free(store->archive_path);
    store->untar_path = xasprintf("%s/davit-untar", dir);
    store->index_path = xasprintf("%s/davit-index", dir);
    store->archive_path = xasprintf("%s/davit-archive", dir);
    return access(store->untar_path, X_OK) == 0 && access(store->index_path, X_OK) == 0 &&
           access(store->archive_path, X_OK) == 0;
}

/* Without it what was not synced does not count after a kill. */
static void read_boot_id(struct store *store)
{
    CLEANUP_CLOSE int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    char *id = store->partials.boot_id;
    ssize_t n = fd >= 0 ? read(fd, id, sizeof(store->partials.boot_id) - 1) : -1;

    id[MAX(n, 0)] = '\0';
    id[strcspn(id, "\n")] = '\0';
    if (n <= 0)
        snprintf(id, sizeof(store->partials.boot_id), "unknown %lld", (long long)wall_clock_ns());
}

/* Beside the program, as in a build directory, else where they are installed below the same prefix.
 */
static bool find_programs(struct store *store, const char *programs_dir, struct error *err)
{
    static const char *const places[] = {"", "/" DAVIT_LIBEXEC_FROM_BIN};
    char program[4096];
    ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    char *slash;

    program[MAX(n, 0)] = '\0';
    slash = strrchr(program, '/');
    for (size_t i = 0; !programs_dir && slash && i < ARRAY_SIZE(places); i++) {
        CLEANUP_FREE char *dir = xasprintf("%.*s%s", (int)(slash - program), program, places[i]);
        if (has_programs(store, dir))
            return true;
    }
    if (programs_dir && has_programs(store, programs_dir))
        return true;
    error_set(err, ERROR_FAILED_PRECONDITION, "UNPACKER_MISSING",
              "the programs davit-untar, davit-index and davit-archive are neither beside davitd "
              "nor in %s",
              programs_dir ? programs_dir : DAVIT_LIBEXEC_FROM_BIN);
    return error_hint(err, "install davit completely");
}

bool store_open_blocking(struct store *store, const struct store_options *options,
                         struct error *err)
{
    CLEANUP(load_work_done) struct load_work work = {.store = store, .options = options};
    CLEANUP_FREE char *db_path = NULL;

    if (!find_programs(store, options->programs_dir, err) || !open_directories(store, err))
        return false;
    db_path = xasprintf("%s/davit.db", store->data_root);
    read_boot_id(store);
    fault_point("open.directories");
    store->db = db_open(db_path, err);
    fault_point("open.database");
    return store->db && db_transaction(store->db, load, &work, err) &&
           find_litter(store, work.layer_litter, err) && find_mounts(store, err);
}
