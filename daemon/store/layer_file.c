#include "daemon/store/layer_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "daemon/store/internal.h"
#include "proto/async/await.h"

void layer_file_close(struct layer_file *file)
{
    close_fd(&file->fd);
}

struct open_work {
    const struct store *store;
    const struct digest *diff_id;
    const char *name; /* in the layer's directory */
    struct layer_file *file;
    struct error error;
};

static void open_blocking(void *arg)
{
    struct open_work *work = arg;
    CLEANUP_FREE char *path = xasprintf("%s/%s", digest_hex(work->diff_id), work->name);
    CLEANUP_CLOSE int fd =
        openat(work->store->layers_fd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat status;

    if (fd < 0 || fstat(fd, &status) < 0) {
        error_set_errno(&work->error, errno, "cannot open %s of layer %.19s", work->name,
                        work->diff_id->text);
    } else if (!S_ISREG(status.st_mode)) {
        error_set(&work->error, ERROR_DATA_LOSS, "LAYER_DAMAGED", "%s of layer %.19s is no file",
                  work->name, work->diff_id->text);
    } else {
        work->file->fd = TAKE_FD(fd);
        work->file->size_bytes = (uint64_t)status.st_size;
    }
}

struct digest_work {
    const struct digest *diff_id;
    struct digest *digest;
};

static bool read_digest(struct db *db, void *arg, struct error *err)
{
    const struct digest_work *work = arg;
    const struct db_value diff_id = db_text(work->diff_id->text);
    CLEANUP(db_query_done)
    sqlite3_stmt *row = db_query(db,
                                 "SELECT blob_digest FROM layers WHERE diff_id = ?"
                                 " AND blob_digest IS NOT NULL",
                                 &diff_id, 1, err);
    int r = row ? db_step(db, row, err) : -1;

    return r == 0 ||
           (r > 0 && digest_parse((const char *)sqlite3_column_text(row, 0), work->digest, err));
}

static bool await_blob_digest(struct store *store, const struct digest *diff_id, struct digest *ret,
                              struct error *err)
{
    struct digest_work work = {.diff_id = diff_id, .digest = ret};
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);

    return locked && await_db_transaction(locked, read_digest, &work, err);
}

static bool no_file(const struct digest *diff_id, const char *why, struct error *err)
{
    return error_set(err, ERROR_FAILED_PRECONDITION, "NO_LAYER_FILE", "layer %.19s: %s",
                     diff_id->text, why);
}

bool await_layer_file_open(struct store *store, const struct digest *diff_id, enum layer_part part,
                           struct layer_file *ret, struct error *err)
{
    const struct layer *layer = layer_get(store, diff_id);
    CLEANUP_LAYER_FILE struct layer_file file = {.fd = -1, .digest = *diff_id};
    struct open_work work = {.store = store, .diff_id = diff_id, .name = LAYER_BLOB, .file = &file};
    int r;

    *ret = (struct layer_file){.fd = -1};
    if (!layer || layer->hidden || layer->damage)
        return error_set(err, ERROR_NOT_FOUND, "LAYER_NOT_FOUND", "layer %.19s is not in the store",
                         diff_id->text);
    if (part == LAYER_TAR) {
        work.name = store->driver->tar_name;
        if (!work.name)
            return no_file(diff_id, "the storage driver keeps no tar of it", err);
    } else {
        file.digest = (struct digest){0};
        if (!layer->blob_bytes || layer->blob_damaged)
            return no_file(diff_id, "its compressed blob was not kept", err);
        if (!await_blob_digest(store, diff_id, &file.digest, err))
            return false;
        if (!digest_is_set(&file.digest))
            return no_file(diff_id, "its compressed blob was not kept", err);
    }
    if ((r = await_work(open_blocking, &work, "opening a layer")) < 0)
        return await_error(err, r, "opening layer %.19s", diff_id->text);
    if (error_is_set(&work.error))
        return error_move(err, &work.error);
    *ret = file;
    file.fd = -1;
    return true;
}

bool layer_damaged(const struct digest *diff_id, const char *how, struct error *err)
{
    error_set(err, ERROR_DATA_LOSS, "LAYER_DAMAGED", "layer %.19s is damaged: %s", diff_id->text,
              how);
    return error_hint(err, "fetch it again with: davit system verify --repair");
}
