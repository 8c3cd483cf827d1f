#include "daemon/store/db.h"

#include <errno.h>
#include <fcntl.h>

#include "proto/async/await.h"

#define RESERVE_BYTES (256 * KIB)
#define BUSY_TIMEOUT_MS 5000 /* somebody looks at the database with another program */

struct db {
    sqlite3 *sqlite;
    char *path;
    bool locked;
    bool unsynced; /* transactions do not wait for the disk just now */
    struct wait_queue waiters;
};

/* Migrations: entry n takes the schema from version n to n + 1. Never change one that was
 * released; append. */
static const char *const migrations[] = {
    "CREATE TABLE meta ("
    "    key TEXT PRIMARY KEY,"
    "    value TEXT NOT NULL"
    ") STRICT, WITHOUT ROWID;"
    "CREATE TABLE layers ("
    "    diff_id TEXT PRIMARY KEY,"
    "    tar_bytes INTEGER NOT NULL,"
    "    content_bytes INTEGER NOT NULL,"
    "    created_unix_ns INTEGER NOT NULL"
    ") STRICT, WITHOUT ROWID;"
    "CREATE TABLE images ("
    "    id TEXT PRIMARY KEY,"
    "    manifest_digest TEXT NOT NULL,"
    "    created_unix_ns INTEGER NOT NULL,"
    "    os TEXT,"
    "    architecture TEXT,"
    "    size_bytes INTEGER NOT NULL,"
    "    manifest BLOB NOT NULL," /* large columns last: reading the others does not touch them */
    "    config BLOB NOT NULL"
    ") STRICT;"
    "CREATE TABLE image_layers ("
    "    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,"
    "    position INTEGER NOT NULL,"
    "    diff_id TEXT NOT NULL,"
    "    PRIMARY KEY (image_id, position)"
    ") STRICT, WITHOUT ROWID;"
    "CREATE TABLE image_names ("
    "    name TEXT PRIMARY KEY,"
    "    kind TEXT NOT NULL CHECK (kind IN ('tag', 'digest')),"
    "    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE"
    ") STRICT, WITHOUT ROWID;"
    "CREATE INDEX image_names_by_image ON image_names (image_id);",

    "ALTER TABLE layers ADD COLUMN disk_bytes INTEGER;" /* NULL: not counted yet */
    "ALTER TABLE layers ADD COLUMN verified_unix_ns INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE layers ADD COLUMN blob_digest TEXT;" /* of layer.blob, if it is there */
    "ALTER TABLE layers ADD COLUMN blob_bytes INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE layers ADD COLUMN damage TEXT;" /* why it is in quarantine; NULL: it is not */
    "ALTER TABLE layers ADD COLUMN seal TEXT;"
    "UPDATE layers SET verified_unix_ns = created_unix_ns;"
    "CREATE TABLE layer_blobs (" /* what a layer was, compressed, in registries */
    "    diff_id TEXT NOT NULL REFERENCES layers (diff_id) ON DELETE CASCADE,"
    "    digest TEXT NOT NULL,"
    "    repository TEXT NOT NULL," /* "docker.io/library/busybox" */
    "    media_type TEXT NOT NULL,"
    "    size_bytes INTEGER NOT NULL,"
    "    seen_unix_ns INTEGER NOT NULL,"
    "    PRIMARY KEY (diff_id, digest, repository)"
    ") STRICT, WITHOUT ROWID;",

    "CREATE TABLE events ("
    "    id INTEGER PRIMARY KEY AUTOINCREMENT," /* never used twice */
    "    time_unix_ns INTEGER NOT NULL,"
    "    type TEXT NOT NULL,"
    "    action TEXT NOT NULL,"
    "    actor TEXT NOT NULL,"
    "    attributes TEXT NOT NULL" /* a JSON object */
    ") STRICT;"
    "CREATE TABLE jobs ("
    "    id TEXT PRIMARY KEY,"
    "    kind TEXT NOT NULL,"
    "    state TEXT NOT NULL,"
    "    subject TEXT NOT NULL,"
    "    ended INTEGER NOT NULL,"
    "    started_unix_ms INTEGER NOT NULL,"
    "    ended_unix_ms INTEGER NOT NULL,"
    "    attempts INTEGER NOT NULL,"
    "    limit_bytes_per_second INTEGER NOT NULL,"
    "    sequence INTEGER NOT NULL,"
    "    percent INTEGER NOT NULL,"
    "    bytes_fetched INTEGER NOT NULL,"
    "    bytes_total INTEGER NOT NULL,"
    "    error_code INTEGER NOT NULL,"
    "    error_reason TEXT,"
    "    error_message TEXT,"
    "    error_hint TEXT,"
    "    details BLOB NOT NULL,"
    "    request BLOB" /* to begin it again; no secrets. NULL: that cannot be done */
    ") STRICT;",

    /* Not columns of `images`: they would come after its large ones. */
    "CREATE TABLE image_details ("
    "    image_id TEXT PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,"
    "    parent_id TEXT," /* of the local image it was made from */
    "    tagged_unix_ns INTEGER NOT NULL DEFAULT 0,"
    "    variant TEXT," /* these two as its config has them */
    "    labels TEXT"   /* a JSON object of texts */
    ") STRICT, WITHOUT ROWID;"
    /* What a start reads of images, without the pages of their configs. */
    "CREATE INDEX images_in_short ON images"
    " (id, manifest_digest, created_unix_ns, os, architecture, size_bytes);",
};

int db_schema_version(void)
{
    return ARRAY_SIZE(migrations);
}

/* --- Errors ------------------------------------------------------------------------------------
 */

static bool sqlite_failed(struct db *db, const char *doing, struct error *err)
{
    int code = sqlite3_errcode(db->sqlite) & 0xff;
    int errnum = sqlite3_system_errno(db->sqlite);
    const char *why = sqlite3_errmsg(db->sqlite);

    switch (code) {
    case SQLITE_FULL:
        return error_set_errno(err, ENOSPC, "cannot %s %s", doing, db->path);
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
        /* SQLite does not always remember the number. */
        return error_set_errno(err, errnum > 0 ? errnum : EIO, "cannot %s %s", doing, db->path);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        error_set(err, ERROR_DATA_LOSS, "DATABASE_DAMAGED", "cannot %s %s: %s", doing, db->path,
                  why);
        return error_hint(err, "restore it from a backup, or start over with another data root");
    default:
        return error_set(err, ERROR_INTERNAL, NULL, "cannot %s %s: %s", doing, db->path, why);
    }
}

/* --- Statements --------------------------------------------------------------------------------
 */

bool db_run_script(struct db *db, const char *sql, struct error *err)
{
    return sqlite3_exec(db->sqlite, sql, NULL, NULL, NULL) == SQLITE_OK ||
           sqlite_failed(db, "change", err);
}

static void bind_value(sqlite3_stmt *statement, int index, const struct db_value *value)
{
    int r;

    if (value->type == DB_VALUE_INTEGER)
        r = sqlite3_bind_int64(statement, index, value->number);
    else if (value->type == DB_VALUE_TEXT)
        r = sqlite3_bind_text(statement, index, value->data, -1, SQLITE_STATIC);
    else
        r = sqlite3_bind_blob64(statement, index, value->data ? value->data : "",
                                (sqlite3_uint64)value->number, SQLITE_STATIC);
    CHECK(r == SQLITE_OK);
}

sqlite3_stmt *db_query(struct db *db, const char *sql, const struct db_value *values, size_t count,
                       struct error *err)
{
    sqlite3_stmt *statement = NULL;

    if (sqlite3_prepare_v2(db->sqlite, sql, -1, &statement, NULL) != SQLITE_OK) {
        sqlite_failed(db, "use", err);
        return NULL;
    }
    CHECK(sqlite3_bind_parameter_count(statement) == (int)count);
    for (size_t i = 0; i < count; i++)
        bind_value(statement, (int)i + 1, &values[i]);
    return statement;
}

int db_step(struct db *db, sqlite3_stmt *statement, struct error *err)
{
    int r = sqlite3_step(statement);

    if (r == SQLITE_ROW)
        return 1;
    if (r == SQLITE_DONE)
        return 0;
    sqlite_failed(db, "use", err);
    return -1;
}

void db_query_done(sqlite3_stmt **statement)
{
    sqlite3_finalize(*statement);
    *statement = NULL;
}

int64_t db_last_id(const struct db *db)
{
    return sqlite3_last_insert_rowid(db->sqlite);
}

char *db_column_text(sqlite3_stmt *statement, int column)
{
    return xstrdup((const char *)sqlite3_column_text(statement, column));
}

bool db_run_values(struct db *db, const char *sql, const struct db_value *values, size_t count,
                   struct error *err)
{
    CLEANUP(db_query_done) sqlite3_stmt *statement = db_query(db, sql, values, count, err);
    int r = 1;

    while (statement && r == 1)
        r = db_step(db, statement, err);
    return statement && r == 0;
}

/* --- The reserve -------------------------------------------------------------------------------
 */

/* Also what frees space needs some, for SQLite's log: on a full disk, that of a file which lies
 * beside the database for this. If it cannot be made now, then another time. */
static void make_reserve(const char *db_path)
{
    CLEANUP_FREE char *path = xasprintf("%s-reserve", db_path);
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd >= 0 && fallocate(fd, 0, 0, (off_t)RESERVE_BYTES) < 0)
        unlink(path);
}

/* True if err was that the disk is full, and less so now. */
static bool give_up_reserve(const char *db_path, struct error *err)
{
    CLEANUP_FREE char *path = xasprintf("%s-reserve", db_path);

    if (!err || !error_is(err, "NO_SPACE") || unlink(path) < 0)
        return false;
    error_done(err);
    return true;
}

/* --- Open --------------------------------------------------------------------------------------
 */

static bool read_version(struct db *db, int *ret, struct error *err)
{
    CLEANUP(db_query_done)
    sqlite3_stmt *statement = db_query(db, "PRAGMA user_version", NULL, 0, err);

    if (!statement || db_step(db, statement, err) != 1)
        return false;
    *ret = sqlite3_column_int(statement, 0);
    return true;
}

/* One step, in a transaction: arg points to the version it leads to. */
static bool migrate_step(struct db *db, void *arg, struct error *err)
{
    const int *version = arg;
    CLEANUP_FREE char *set_version = xasprintf("PRAGMA user_version = %d", *version);

    return db_run_script(db, migrations[*version - 1], err) && db_run_script(db, set_version, err);
}

static bool migrate(struct db *db, int target, struct error *err)
{
    int version;

    if (!read_version(db, &version, err))
        return false;
    if (version > db_schema_version()) {
        error_set(err, ERROR_FAILED_PRECONDITION, "SCHEMA_TOO_NEW",
                  "%s was written by a newer davitd (schema %d, this one knows %d)", db->path,
                  version, db_schema_version());
        return error_hint(err, "run the newer davitd again, or use another data root");
    }
    while (version < target) {
        version++;
        if (!db_transaction(db, migrate_step, &version, err))
            return error_prefix(err, "cannot migrate to schema %d", version);
    }
    return true;
}

/* The memory is the daemon's: a small page cache, a small lookaside. What is temporary (journals of
 * single statements in large transactions) stays there: /var/tmp may be full, or not to be written
 * to. */
static bool configure(struct db *db, struct error *err)
{
    sqlite3_busy_timeout(db->sqlite, BUSY_TIMEOUT_MS);
    sqlite3_db_config(db->sqlite, SQLITE_DBCONFIG_LOOKASIDE, NULL, 128, 64);
    sqlite3_db_config(db->sqlite, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    return db_run_script(db,
                         "PRAGMA cache_size = -256;"
                         "PRAGMA temp_store = MEMORY;"
                         "PRAGMA journal_mode = WAL;"
                         "PRAGMA synchronous = FULL;"
                         "PRAGMA foreign_keys = ON;"
                         "PRAGMA trusted_schema = OFF;",
                         err);
}

static struct db *open_once(const char *path, int version, struct error *err)
{
    struct db *db = xcalloc(1, sizeof(*db));
    int fd;

    db->path = xstrdup(path);
    wait_queue_init(&db->waiters);
    /* SQLite would make it readable for all, and its other files take their mode from it. Closed
     * before SQLite locks the file: a close(2) drops all locks of the process, and then another
     * program that looks at the database deletes the log that we write to. */
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        error_set_errno(err, errno, "cannot open %s", path);
        return db_close(db);
    }
    close(fd);
    if (sqlite3_open_v2(path, &db->sqlite, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) !=
        SQLITE_OK) {
        sqlite_failed(db, "open", err);
        return db_close(db);
    }
    /* SQLite's way out if the file cannot be opened just now, for want of descriptors say. */
    if (sqlite3_db_readonly(db->sqlite, "main") == 1) {
        error_set(err, ERROR_UNAVAILABLE, "DATABASE_READ_ONLY",
                  "cannot open %s to write: SQLite opened it to read only", path);
        error_hint(err, "start davitd again");
        return db_close(db);
    }
    if (!configure(db, err) || !migrate(db, version, err))
        return db_close(db);
    return db;
}

struct db *db_open_version(const char *path, int version, struct error *err)
{
    struct db *db = open_once(path, version, err);

    if (!db && give_up_reserve(path, err))
        db = open_once(path, version, err);
    if (db)
        make_reserve(path);
    return db;
}

struct db *db_open(const char *path, struct error *err)
{
    return db_open_version(path, db_schema_version(), err);
}

struct db *db_close(struct db *db)
{
    if (!db)
        return NULL;
    sqlite3_close(db->sqlite);
    free(db->path);
    free(db);
    return NULL;
}

/* --- Transactions ------------------------------------------------------------------------------
 */

struct db *await_db_lock(struct db *db, struct error *err)
{
    int r = task_check();

    while (r == 0 && db->locked)
        r = await_wake(&db->waiters, "waiting for the database");
    if (r < 0) {
        wake_one(&db->waiters); /* the wake-up may have been meant for us */
        await_error(err, r, "waiting for the database");
        return NULL;
    }
    db->locked = true;
    return db;
}

void db_unlock(struct db **locked)
{
    struct db *db = TAKE(*locked);

    if (!db)
        return;
    CHECK(db->locked);
    db->locked = false;
    wake_one(&db->waiters);
}

bool db_transaction(struct db *db, db_fn fn, void *arg, struct error *err)
{
    if (!db_run_script(db, "BEGIN IMMEDIATE", err))
        return false;
    if (fn(db, arg, err) && db_run_script(db, "COMMIT", err))
        return true;
    sqlite3_exec(db->sqlite, "ROLLBACK", NULL, NULL, NULL);
    return false;
}

struct db_work {
    struct db *db;
    db_fn fn;
    void *arg;
    bool ok;
    struct error err;
};

static void transact(struct db_work *work)
{
    work->ok = db_transaction(work->db, work->fn, work->arg, &work->err);
    sqlite3_db_release_memory(work->db->sqlite);
}

static bool set_synced(struct db *db, bool synced, struct error *err)
{
    if (db->unsynced == !synced)
        return true;
    if (!db_run_script(db, synced ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL",
                       err))
        return false;
    db->unsynced = !synced;
    return true;
}

static void run_transaction(void *arg)
{
    struct db_work *work = arg;

    work->ok = set_synced(work->db, true, &work->err);
    if (work->ok)
        transact(work);
}

static void run_unsynced(void *arg)
{
    struct db_work *work = arg;

    work->ok = set_synced(work->db, false, &work->err);
    if (work->ok)
        transact(work);
}

static void run_removal(void *arg)
{
    struct db_work *work = arg;
    const char *path = work->db->path;

    make_reserve(path);
    run_transaction(work);
    if (!work->ok && give_up_reserve(path, &work->err))
        run_transaction(work);
}

static bool await_run(struct db_work *work, void (*run)(void *work), struct error *err)
{
    int r;

    CHECK(work->db->locked);
    r = await_work(run, work, "writing the database");
    if (r < 0)
        return await_error(err, r, "writing the database");
    if (!work->ok)
        error_move(err, &work->err);
    return work->ok;
}

bool await_db_transaction(struct db *db, db_fn fn, void *arg, struct error *err)
{
    struct db_work work = {.db = db, .fn = fn, .arg = arg};

    return await_run(&work, run_transaction, err);
}

bool await_db_transaction_unsynced(struct db *db, db_fn fn, void *arg, struct error *err)
{
    struct db_work work = {.db = db, .fn = fn, .arg = arg};

    return await_run(&work, run_unsynced, err);
}

bool await_db_removal(struct db *db, db_fn fn, void *arg, struct error *err)
{
    struct db_work work = {.db = db, .fn = fn, .arg = arg};

    return await_run(&work, run_removal, err);
}
