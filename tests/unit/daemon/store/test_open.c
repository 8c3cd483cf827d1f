/* Opening a data root: the lock, the schema, roots that cannot be used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "daemon/store/db.h"
#include "tests/unit/daemon/store/fixture.h"

static mode_t mode_of(const char *name)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", scratch_directory(), name);
    struct stat st;

    CHECK(lstat(path, &st) == 0);
    return st.st_mode & 07777;
}

static bool body_create(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("new/deep/root", err);
    CLEANUP_FREE char *id = NULL;

    CHECK(store);
    id = xstrdup(store_id(store));
    CHECK(mode_of("new/deep/root") == 0700 && mode_of("new/deep/root/layers") == 0700);
    CHECK(mode_of("new/deep/root/tmp") == 0700 && mode_of("new/deep/root/davit.db") == 0600);
    store_close_await(store);
    CHECK((store = await_open_scratch("new/deep/root", err)));
    CHECK(str_eq(id, store_id(store)));
    store_close_await(store);
    return true;
}

static void test_create(void **state UNUSED)
{
    run_task(body_create, NULL);
}

/* --- The lock ----------------------------------------------------------------------------------
 */

static bool body_hold(void *arg, struct error *err)
{
    const int *pipes = arg;
    struct store *store = await_open_scratch("locked", err);
    char byte = 'x';

    CHECK(store);
    CHECK(write(pipes[1], &byte, 1) == 1);
    CHECK(read(pipes[2], &byte, 1) == 1); /* blocks this process until the other has looked */
    store_close_await(store);
    return true;
}

static bool body_second(void *arg, struct error *err)
{
    CLEANUP_FREE char *pid = xasprintf("(pid %d)", *(int *)arg);
    struct store *store = await_open_scratch("locked", err);

    CHECK(!store && error_is(err, "DATA_ROOT_IN_USE"));
    CHECK(err->code == ERROR_FAILED_PRECONDITION && err->hint);
    CHECK(strstr(err->message, pid) && strstr(err->message, "/locked"));
    error_done(err);
    return true;
}

static bool body_third(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("locked", err);

    CHECK(store);
    store_close_await(store);
    return true;
}

static void test_lock(void **state UNUSED)
{
    int pipes[4], status, pid;
    char byte;

    scratch_directory();
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    assert_int_equal(pipe2(pipes + 2, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        run_task(body_hold, pipes);
        _exit(0);
    }
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    run_task(body_second, &pid);
    assert_int_equal(write(pipes[3], &byte, 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    run_task(body_third, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(pipes); i++)
        close(pipes[i]);
}

/* --- Others who look at the database -----------------------------------------------------------
 */

/* The last connection that is closed deletes the log: SQLite tells by the locks which it is. */
static void test_a_look_at_the_database_leaves_its_log(void **state UNUSED)
{
    CLEANUP_FREE char *path = xasprintf("%s/looked-at.db", scratch_directory());
    CLEANUP_FREE char *log = xasprintf("%s-wal", path);
    CLEANUP_ERROR struct error err = {0};
    struct db *db;
    int pipes[2], status, pid;
    char byte = 'x';

    /* A process that has the database open would hand its memory of the locks down. */
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        sqlite3 *other;
        CHECK(read(pipes[0], &byte, 1) == 1);
        CHECK(sqlite3_open(path, &other) == SQLITE_OK);
        CHECK(sqlite3_exec(other, "SELECT * FROM meta", NULL, NULL, NULL) == SQLITE_OK);
        sqlite3_close(other);
        _exit(0);
    }
    db = db_open(path, &err);
    assert_non_null(db);
    assert_int_equal(write(pipes[1], &byte, 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(access(log, F_OK), 0);
    close(pipes[0]);
    close(pipes[1]);
    db_close(db);
}

/* --- The schema --------------------------------------------------------------------------------
 */

static void test_migrations(void **state UNUSED)
{
    CLEANUP_FREE char *path = xasprintf("%s/migrate.db", scratch_directory());

    /* From each version, also from none, to the newest; data of version 1 stays. */
    for (int from = 0; from <= db_schema_version(); from++) {
        CLEANUP_ERROR struct error err = {0};
        const struct db_value key = db_text("id");
        struct db *db = db_open_version(path, from, &err);
        sqlite3_stmt *row;
        assert_non_null(db);
        if (from >= 1)
            assert_true(db_run_script(db, "INSERT INTO meta VALUES ('id', 'kept')", &err));
        db_close(db);
        db = db_open(path, &err);
        assert_non_null(db);
        row = db_query(db, "SELECT value FROM meta WHERE key = ?", &key, 1, &err);
        assert_int_equal(db_step(db, row, &err), from >= 1);
        db_query_done(&row);
        row = db_query(db, "PRAGMA user_version", NULL, 0, &err);
        assert_int_equal(db_step(db, row, &err), 1);
        assert_int_equal(sqlite3_column_int(row, 0), db_schema_version());
        db_query_done(&row);
        db_close(db);
        unlink(path);
    }
}

/* A layer from before there were sums and seals counts as verified when it was stored. */
static void test_migration_of_layers(void **state UNUSED)
{
    static const char sql[] = "SELECT verified_unix_ns, disk_bytes IS NULL, seal IS NULL,"
                              " damage IS NULL FROM layers";
    CLEANUP_FREE char *path = xasprintf("%s/layers.db", scratch_directory());
    CLEANUP_ERROR struct error err = {0};
    struct db *db = db_open_version(path, 1, &err);
    sqlite3_stmt *row;

    assert_non_null(db);
    assert_true(db_run_script(db, "INSERT INTO layers VALUES ('sha256:ab', 10, 20, 30)", &err));
    db_close(db);
    db = db_open(path, &err);
    assert_non_null(db);
    row = db_query(db, sql, NULL, 0, &err);
    assert_int_equal(db_step(db, row, &err), 1);
    assert_int_equal(sqlite3_column_int(row, 0), 30);
    for (int i = 1; i < 4; i++)
        assert_int_equal(sqlite3_column_int(row, i), 1);
    db_query_done(&row);
    db_close(db);
}

static void test_newer_schema(void **state UNUSED)
{
    CLEANUP_FREE char *path = xasprintf("%s/newer.db", scratch_directory());
    CLEANUP_ERROR struct error err = {0};
    struct db *db = db_open(path, &err);

    assert_non_null(db);
    assert_true(db_run_script(db, "PRAGMA user_version = 999", &err));
    db_close(db);
    assert_null(db_open(path, &err));
    assert_true(error_is(&err, "SCHEMA_TOO_NEW"));
    assert_non_null(strstr(err.message, "999"));
}

static void test_damaged_database(void **state UNUSED)
{
    CLEANUP_FREE char *path = xasprintf("%s/damaged.db", scratch_directory());
    CLEANUP_ERROR struct error err = {0};
    FILE *file = fopen(path, "w");

    for (size_t i = 0; i < 1000; i++)
        fputs("this is no database", file);
    fclose(file);
    assert_null(db_open(path, &err));
    assert_true(error_is(&err, "DATABASE_DAMAGED"));
    assert_int_equal(err.code, ERROR_DATA_LOSS);
}

static bool failing_change(struct db *db, void *arg UNUSED, struct error *err)
{
    return db_run(db, "INSERT INTO meta VALUES (?, ?)", err, db_text("a"), db_text("b")) &&
           db_run(db, "INSERT INTO meta VALUES (?, ?)", err, db_text("a"), db_text("c"));
}

static void test_rollback(void **state UNUSED)
{
    CLEANUP_FREE char *path = xasprintf("%s/rollback.db", scratch_directory());
    CLEANUP_ERROR struct error err = {0};
    struct db *db = db_open(path, &err);
    sqlite3_stmt *row;

    assert_non_null(db);
    assert_false(db_transaction(db, failing_change, NULL, &err));
    assert_int_equal(err.code, ERROR_INTERNAL);
    row = db_query(db, "SELECT value FROM meta WHERE key = 'a'", NULL, 0, &err);
    assert_int_equal(db_step(db, row, &err), 0);
    db_query_done(&row);
    db_close(db);
}

/* --- Roots that cannot be used -----------------------------------------------------------------
 */

static bool body_unusable(void *arg UNUSED, struct error *err)
{
    CLEANUP_FREE char *file = xasprintf("%s/a-file", scratch_directory());
    struct store *store;

    CHECK(!await_open_scratch("readonly/root", err));
    CHECK(err->code == ERROR_PERMISSION_DENIED && strstr(err->message, "/readonly/root"));
    CHECK(strstr(err->message, "Read-only file system") && err->hint);
    error_done(err);
    CHECK(!await_open_scratch("readonly", err) && err->code == ERROR_PERMISSION_DENIED);
    CHECK(strstr(err->message, "/readonly") && err->hint);
    error_done(err);
    close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    CHECK(!await_open_scratch("a-file", err) && strstr(err->message, "Not a directory"));
    error_done(err);
    CHECK(!await_open_scratch("a-file/below", err) && strstr(err->message, "Not a directory"));
    error_done(err);
    store = await_store_open(&(struct store_options){.data_root = file, .driver = "zfs"}, err);
    CHECK(!store && error_is(err, "UNKNOWN_STORAGE_DRIVER") && strstr(err->hint, "directory"));
    error_done(err);
    return true;
}

static void test_unusable_roots(void **state UNUSED)
{
    CLEANUP_FREE char *path = xasprintf("%s/readonly", scratch_directory());

    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=64k"), 0);
    run_task(body_unusable, NULL);
    assert_int_equal(umount2(path, MNT_DETACH), 0);
}

static bool body_missing_untar(void *arg UNUSED, struct error *err)
{
    CLEANUP_FREE char *data_root = xasprintf("%s/no-untar", scratch_directory());
    const struct store_options options = {.data_root = data_root, .programs_dir = "/no/such"};

    CHECK(!await_store_open(&options, err) && error_is(err, "UNPACKER_MISSING"));
    CHECK(strstr(err->message, "/no/such"));
    error_done(err);
    return true;
}

static void test_missing_unpacker(void **state UNUSED)
{
    run_task(body_missing_untar, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lock), /* first: it forks, so no threads yet */
        cmocka_unit_test(test_a_look_at_the_database_leaves_its_log),
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_migrations),
        cmocka_unit_test(test_migration_of_layers),
        cmocka_unit_test(test_newer_schema),
        cmocka_unit_test(test_damaged_database),
        cmocka_unit_test(test_rollback),
        cmocka_unit_test(test_unusable_roots),
        cmocka_unit_test(test_missing_unpacker),
    };

    own_mounts();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
