/* A layer is read again and compared with what it was when it was committed. What is not the same
 * goes into quarantine: its row says why, nothing uses it, and a pull fetches it again. */
#include <errno.h>
#include <fcntl.h>
#include <linux/ioprio.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/store/file_hash.h"
#include "daemon/store/internal.h"
#include "daemon/store/tree_walk.h"
#include "proto/async/await.h"
#include "proto/base/fault.h"
#include "proto/base/log.h"

/* What one step in the pool works on; the task has it between the steps. */
struct check {
    const struct store *store;
    struct digest diff_id;
    char *seal;
    struct digest blob;
    bool has_blob, background;
    int dir_fd;
    void *driver_check;
    struct file_hash *blob_hash;
    enum { CHECK_BEGIN, CHECK_FILES, CHECK_BLOB } stage;
    ssize_t bytes_read; /* by this step; 0: all is well; -1: error */
    struct error error;
};

/* --- In the pool -------------------------------------------------------------------------------
 */

static bool read_row(struct db *db, void *arg, struct error *err)
{
    struct check *check = arg;
    const struct db_value diff_id = db_text(check->diff_id.text);
    CLEANUP(db_query_done)
    sqlite3_stmt *row =
        db_query(db, "SELECT seal, blob_digest FROM layers WHERE diff_id = ?", &diff_id, 1, err);
    int r = row ? db_step(db, row, err) : -1;

    if (r <= 0)
        return r == 0;
    check->seal = db_column_text(row, 0);
    check->has_blob = sqlite3_column_type(row, 1) != SQLITE_NULL;
    return !check->has_blob ||
           digest_parse((const char *)sqlite3_column_text(row, 1), &check->blob, err);
}

static ssize_t begin(struct check *check, struct error *err)
{
    check->dir_fd = openat(check->store->layers_fd, digest_hex(&check->diff_id),
                           O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (check->dir_fd < 0) {
        tree_failed("open", "its directory", err);
        return -1;
    }
    check->driver_check =
        check->store->driver->check_begin(check->dir_fd, &check->diff_id, check->seal);
    check->stage = CHECK_FILES;
    return 0;
}

static ssize_t check_blob(struct check *check, struct error *err)
{
    struct digest actual;
    ssize_t n;

    if (!check->blob_hash)
        check->blob_hash = file_hash_open(check->dir_fd, LAYER_BLOB);
    n = check->blob_hash ? file_hash_step(check->blob_hash) : -1;
    if (n > 0)
        return n;
    if (n == 0) {
        actual = file_hash_finish(check->blob_hash);
        if (digest_eq(&actual, &check->blob))
            return 0;
    }
    if (n < 0 && errno != ENOENT && errno != EIO && errno != EUCLEAN)
        error_set_errno(err, errno, "cannot read its compressed copy, " LAYER_BLOB);
    else
        error_set(err, ERROR_DATA_LOSS, "BLOB_DAMAGED",
                  "its compressed copy, " LAYER_BLOB ", is not as it was fetched%s%s",
                  n < 0 ? ": " : "", n < 0 ? strerror(errno) : "");
    return -1;
}

static ssize_t check_some(struct check *check, struct error *err)
{
    ssize_t n;

    if (check->stage == CHECK_BEGIN && begin(check, err) < 0)
        return -1;
    if (check->stage == CHECK_FILES) {
        n = check->store->driver->check_step(check->driver_check, err);
        if (n != 0 || !check->has_blob)
            return n;
        check->stage = CHECK_BLOB;
    }
    return check_blob(check, err);
}

static int io_priority(void)
{
    return (int)syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0);
}

static void set_io_priority(int priority)
{
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority);
}

/* The threads of the pool are everybody's: the priority is for the step only. */
static void check_in_pool(void *arg)
{
    struct check *check = arg;
    int before = check->background ? io_priority() : -1;

    if (before >= 0)
        set_io_priority(IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
    check->bytes_read = check_some(check, &check->error);
    if (before >= 0)
        set_io_priority(before);
}

static void end_in_pool(void *arg)
{
    struct check *check = arg;

    if (check->driver_check)
        check->store->driver->check_end(check->driver_check);
    file_hash_free(check->blob_hash);
    close_fd(&check->dir_fd);
}

/* --- The check ---------------------------------------------------------------------------------
 */

static void check_done_await(struct check *check)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();

    await_work(end_in_pool, check, "ending the check of a layer");
    free(check->seal);
    error_done(&check->error);
}

static bool await_row(struct check *check, struct error *err)
{
    CLEANUP(db_unlock) struct db *locked = await_db_lock(check->store->db, err);

    return locked && await_db_transaction(locked, read_row, check, err);
}

/* Keeps to the rate, after bytes that took so long. */
static int await_rate(uint64_t bytes_per_second, ssize_t bytes, uint64_t elapsed_ms)
{
    uint64_t due_ms = bytes_per_second ? (uint64_t)bytes * 1000 / bytes_per_second : 0;

    return due_ms > elapsed_ms ? await_sleep(due_ms - elapsed_ms) : 0;
}

static bool await_check(struct check *check, struct layer_verification *verification,
                        struct error *err)
{
    uint64_t total = layer_verify_bytes(check->store, &check->diff_id);
    int r;

    do {
        uint64_t since_ms = now_ms();
        if ((r = await_work(check_in_pool, check, "checking a layer")) < 0)
            return await_error(err, r, "verifying layer %.19s", check->diff_id.text);
        if (check->bytes_read < 0)
            return error_move(err, &check->error);
        verification->bytes_done =
            MIN(total, verification->bytes_done + (uint64_t)check->bytes_read);
        r = await_rate(verification->bytes_per_second, check->bytes_read, now_ms() - since_ms);
        if (r < 0)
            return await_error(err, r, "verifying layer %.19s", check->diff_id.text);
    } while (check->bytes_read > 0);
    verification->bytes_done = total;
    return true;
}

/* --- What comes of it --------------------------------------------------------------------------
 */

struct outcome {
    const struct digest *diff_id;
    int64_t verified_unix_ns;
    const char *damage;
};

static bool write_outcome(struct db *db, void *arg, struct error *err)
{
    const struct outcome *outcome = arg;

    return db_run(db, "UPDATE layers SET damage = ?, verified_unix_ns = ? WHERE diff_id = ?", err,
                  db_text(outcome->damage), db_integer(outcome->verified_unix_ns),
                  db_text(outcome->diff_id->text));
}

/* The layer that was checked, unless it was removed or replaced since. */
static struct layer *find_checked(struct store *store, const struct digest *diff_id,
                                  uint64_t version, struct error *err)
{
    struct layer *layer = layer_get(store, diff_id);

    if (layer && layer->version == version)
        return layer;
    if (layer)
        error_set(err, ERROR_ABORTED, "LAYER_REPLACED",
                  "layer %.19s was replaced while it was being verified", diff_id->text);
    else
        error_set(err, ERROR_NOT_FOUND, "LAYER_NOT_FOUND",
                  "layer %.19s was removed while it was being verified", diff_id->text);
    return NULL;
}

static bool await_write_outcome(struct store *store, const struct layer *layer, struct error *err)
{
    const struct outcome outcome = {
        .diff_id = &layer->info.diff_id,
        .verified_unix_ns = layer->verified_unix_ns,
        .damage = layer->damage,
    };

    return await_db_transaction(store->db, write_outcome, (void *)&outcome, err) ||
           error_prefix(err, "cannot note what became of layer %.19s", layer->info.diff_id.text);
}

/* What was found out counts also where the database cannot be written. */

/* Also for a cancelled task. */
static bool await_quarantine(struct store *store, const struct digest *diff_id, uint64_t version,
                             const struct error *found, struct error *err)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);
    struct layer *layer = locked ? find_checked(store, diff_id, version, err) : NULL;
    CLEANUP_ERROR struct error failure = {0};

    if (!layer)
        return false;
    log_error("a layer is damaged", LOG("layer", (const char *)diff_id->text),
              LOG("reason", found->reason), LOG("error", found->message));
    layer->blob_damaged = error_is(found, "BLOB_DAMAGED");
    layer_set_damage(store, layer, layer->blob_damaged ? NULL : found->message);
    if (layer->blob_damaged)
        layer->verified_unix_ns = wall_clock_ns();
    if (!await_write_outcome(store, layer, &failure))
        log_warn("quarantine will end with this daemon", LOG("error", failure.message));
    error_copy(err, found);
    return error_hint(err, "fetch it again with: davit system verify --repair");
}

static bool await_verified(struct store *store, const struct digest *diff_id, uint64_t version,
                           struct error *err)
{
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);
    struct layer *layer = locked ? find_checked(store, diff_id, version, err) : NULL;
    CLEANUP_ERROR struct error failure = {0};

    if (!layer)
        return false;
    layer->blob_damaged = false;
    layer->verified_unix_ns = wall_clock_ns();
    layer_set_damage(store, layer, NULL);
    if (!await_write_outcome(store, layer, &failure))
        log_warn("the next daemon will not know that a layer was verified",
                 LOG("error", failure.message));
    return true;
}

uint64_t layer_verify_bytes(const struct store *store, const struct digest *diff_id)
{
    const struct layer *layer = layer_get(store, diff_id);

    if (!layer)
        return 0;
    return store->driver->check_bytes(layer->info.tar_bytes, layer->info.content_bytes) +
           layer->blob_bytes;
}

bool await_layer_verify(struct store *store, const struct digest *diff_id,
                        struct layer_verification *verification, struct error *err)
{
    const struct layer *layer = layer_get(store, diff_id);
    CLEANUP(check_done_await)
    struct check check = {
        .store = store,
        .diff_id = *diff_id,
        .background = verification->bytes_per_second,
        .dir_fd = -1,
    };
    CLEANUP_ERROR struct error found = {0};
    uint64_t version;

    verification->bytes_done = 0;
    if (!layer)
        return error_set(err, ERROR_NOT_FOUND, "LAYER_NOT_FOUND", "there is no layer %.19s in %s",
                         diff_id->text, store->data_root);
    version = layer->version;
    if (!await_row(&check, err))
        return false;
    if (await_check(&check, verification, &found))
        return await_verified(store, diff_id, version, err);
    if (found.code == ERROR_CANCELLED || !find_checked(store, diff_id, version, err))
        return found.code == ERROR_CANCELLED ? error_move(err, &found) : false;
    if (found.code != ERROR_DATA_LOSS)
        return error_move(err, &found);
    return await_quarantine(store, diff_id, version, &found, err);
}
