/* The last step of a layer on its way in: files durable in their place, then the row. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/store/internal.h"
#include "daemon/store/tree.h"
#include "daemon/store/tree_walk.h"
#include "proto/async/await.h"
#include "proto/base/fault.h"

struct commit_work {
    struct layer_writer *writer;
    struct layer_row row;
    uint64_t content_disk_bytes;
    bool replaces; /* a damaged layer, which has a row */
    bool moved;    /* into layers/ */
};

/* --- In the pool -------------------------------------------------------------------------------
 */

static uint64_t measure(const struct commit_work *work)
{
    const struct layer_writer *writer = work->writer;
    struct stat dir, blob = {0};

    if (work->content_disk_bytes == 0 || fstat(writer->dir_fd, &dir) < 0 ||
        (writer->blob_bytes && fstatat(writer->dir_fd, LAYER_BLOB, &blob, 0) < 0))
        return tree_disk_bytes(writer->dir_fd, NULL);
    return work->content_disk_bytes + (uint64_t)(dir.st_blocks + blob.st_blocks) * STAT_BLOCK_BYTES;
}

/* What the driver wrote is durable already. */
static bool sync_blob(const struct layer_writer *writer, struct error *err)
{
    if (writer->adopted && !partial_link_blocking(writer->adopted, writer->dir_fd, LAYER_BLOB, err))
        return false;
    return writer->blob_bytes == 0 || fsync(writer->dir_fd) == 0 ||
           error_set_errno(err, errno, "cannot sync its directory");
}

/* What is in the place goes where we were, and is removed with that: a damaged layer, or what has
 * no row and so is litter. */
static bool move_into_place(struct commit_work *work, struct error *err)
{
    const struct layer_writer *writer = work->writer;
    const struct store *store = writer->store;
    const char *hex = digest_hex(&writer->diff_id);

    if (renameat2(store->tmp_fd, writer->name, store->layers_fd, hex, RENAME_NOREPLACE) < 0 &&
        (errno != EEXIST ||
         renameat2(store->tmp_fd, writer->name, store->layers_fd, hex, RENAME_EXCHANGE) < 0))
        return error_set_errno(err, errno, "cannot move it into place");
    work->moved = true;
    fault_point("layer.moved");
    return fsync(store->layers_fd) == 0 || error_set_errno(err, errno, "cannot sync its directory");
}

static bool write_row(struct db *db, const struct layer_row *row, struct error *err)
{
    return db_run(db,
                  "INSERT INTO layers (diff_id, tar_bytes, content_bytes, created_unix_ns,"
                  " verified_unix_ns, disk_bytes, seal, blob_digest, blob_bytes)"
                  " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
                  " ON CONFLICT (diff_id) DO UPDATE SET"
                  " verified_unix_ns = excluded.verified_unix_ns,"
                  " disk_bytes = excluded.disk_bytes, seal = excluded.seal, damage = NULL,"
                  " blob_digest = excluded.blob_digest, blob_bytes = excluded.blob_bytes",
                  err, db_text(row->info.diff_id.text), db_integer((int64_t)row->info.tar_bytes),
                  db_integer((int64_t)row->info.content_bytes), db_integer(row->created_unix_ns),
                  db_integer(row->verified_unix_ns), db_integer((int64_t)row->disk_bytes),
                  db_text(row->seal), db_text(row->blob_bytes ? row->blob.text : NULL),
                  db_integer((int64_t)row->blob_bytes));
}

/* Directory durable in its place, then the row (SECURITY.md, rule 7). */
static bool commit_in_pool(struct db *db, void *arg, struct error *err)
{
    struct commit_work *work = arg;

    if (!sync_blob(work->writer, err))
        return false;
    work->row.disk_bytes = measure(work);
    fault_point("layer.durable");
    if (!move_into_place(work, err))
        return false;
    fault_point("layer.placed");
    if (!write_row(db, &work->row, err))
        return false;
    fault_point("layer.row");
    return true;
}

/* Back to tmp/, where it is litter. If that fails the next start finds it without a row, or, in
 * the place of a damaged layer, with a row that says so. */
static void move_back(void *arg)
{
    const struct commit_work *work = arg;
    const struct layer_writer *writer = work->writer;
    const struct store *store = writer->store;
    const char *hex = digest_hex(&writer->diff_id);

    if (work->replaces &&
        renameat2(store->layers_fd, hex, store->tmp_fd, writer->name, RENAME_EXCHANGE) == 0)
        return;
    tree_remove(store->tmp_fd, writer->name, NULL);
    renameat(store->layers_fd, hex, store->tmp_fd, writer->name);
}

/* --- In the task -------------------------------------------------------------------------------
 */

bool await_commit_row(struct layer_writer *writer, const struct layer_content *content,
                      struct layer_info *ret, struct error *err)
{
    struct store *store = writer->store;
    int64_t now = wall_clock_ns();
    struct commit_work work = {
        .writer = writer,
        .row = {.info = {.diff_id = writer->diff_id,
                         .tar_bytes = writer->tar_bytes,
                         .content_bytes = content->content_bytes},
                .created_unix_ns = now,
                .verified_unix_ns = now,
                .blob = writer->blob,
                .blob_bytes = writer->blob_bytes,
                .seal = content->seal},
        .content_disk_bytes = content->disk_bytes,
    };
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);
    struct layer *other;

    if (!locked)
        return false;
    other = layer_get(store, &writer->diff_id);
    *ret = other ? other->info : work.row.info;
    if (other && !other->damage && !other->blob_damaged)
        return true;
    work.replaces = other;
    if (other && !layer_check_replaceable(store, other, err))
        return false;
    if (!await_db_transaction(locked, commit_in_pool, &work, err)) {
        CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();
        if (work.moved)
            await_work(move_back, &work, "taking back a layer");
        return false;
    }
    fault_point("layer.committed");
    if (!other) {
        layer_add(store, &work.row);
        return true;
    }
    layer_update(store, other, &work.row);
    layer_unmount_replaced_await(store, other);
    return true;
}
