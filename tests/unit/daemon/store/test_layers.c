/* Layers: what is written is there, what is not committed is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "tests/unit/daemon/store/fixture.h"

static char *read_file(const char *directory, const char *name)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", directory, name);
    FILE *file = fopen(path, "re");
    char text[100];
    size_t n;

    if (!file)
        return NULL;
    n = fread(text, 1, sizeof(text), file);
    fclose(file);
    return xstrndup(text, n);
}

static bool file_is(const char *directory, const char *name, const char *content)
{
    CLEANUP_FREE char *text = read_file(directory, name);

    return str_eq(text, content);
}

static bool body_commit(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("commit", err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    CLEANUP_FREE char *path = NULL;
    CLEANUP_FREE char *again = NULL;
    struct digest diff_id = make_layer(&tar, "hello", "world");
    struct layer_info info;

    CHECK(store);
    CHECK(str_eq(store_driver_name(store), test_driver()) && strlen(store_id(store)) == 32);
    CHECK(!layer_find(store, &diff_id, NULL));
    CHECK(!await_layer_mount(store, &diff_id, &path, err) && error_is(err, "LAYER_NOT_FOUND"));
    error_done(err);
    CHECK(await_store_layer(store, &diff_id, &tar, &info, err));
    CHECK(digest_eq(&info.diff_id, &diff_id));
    CHECK(info.tar_bytes == tar.length && info.content_bytes == 5);
    CHECK(layer_find(store, &diff_id, &info) && info.content_bytes == 5);
    CHECK(await_layer_mount(store, &diff_id, &path, err) && file_is(path, "hello", "world"));
    CHECK(await_layer_mount(store, &diff_id, &again, err) && str_eq(path, again));
    layer_unmount_await(store, &diff_id);
    layer_unmount_await(store, &diff_id);
    /* A second time is success. */
    CHECK(await_store_layer(store, &diff_id, &tar, &info, err));
    CHECK(count_entries("commit/layers") == 1 && count_entries("commit/tmp") == 0);
    store_close_await(store);
    /* It is still there after a restart. */
    CHECK((store = await_open_scratch("commit", err)));
    CHECK(layer_find(store, &diff_id, &info));
    CHECK(info.tar_bytes == tar.length && info.content_bytes == 5);
    store_close_await(store);
    return true;
}

static void test_commit(void **state UNUSED)
{
    run_task(body_commit, NULL);
}

/* What comes without being known before is found under what it turned out to be. */
static bool body_unknown(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("unknown", err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    CLEANUP_FREE char *path = NULL;
    struct digest diff_id = make_layer(&tar, "hello", "world");
    struct layer_info info = {0};

    CHECK(store);
    CHECK(await_store_layer(store, NULL, &tar, &info, err));
    CHECK(digest_eq(&info.diff_id, &diff_id) && info.content_bytes == 5);
    CHECK(await_layer_mount(store, &diff_id, &path, err) && file_is(path, "hello", "world"));
    layer_unmount_await(store, &diff_id);
    /* Again it is only read. */
    CHECK(await_store_layer(store, NULL, &tar, &info, err) && digest_eq(&info.diff_id, &diff_id));
    CHECK(count_entries("unknown/layers") == 1 && count_entries("unknown/tmp") == 0);
    store_close_await(store);
    return true;
}

static void test_unknown(void **state UNUSED)
{
    run_task(body_unknown, NULL);
}

/* --- Failures leave nothing --------------------------------------------------------------------
 */

static void expect_failure(struct store *store, const struct digest *diff_id,
                           const struct strbuf *tar, enum error_code code, const char *reason)
{
    CLEANUP_ERROR struct error err = {0};

    CHECK(!await_store_layer(store, diff_id, tar, NULL, &err));
    if (err.code != code || !error_is(&err, reason))
        die("not %s, but %s: %s", reason, err.reason, err.message);
    CHECK(!layer_find(store, diff_id, NULL));
    CHECK(count_entries("failures/tmp") == 0 && count_entries("failures/layers") == 0);
}

static bool body_failures(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("failures", err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest diff_id = make_layer(&tar, "hello", "world"), other = digest_of("x", 1);
    struct layer_writer *writer;

    CHECK(store);
    expect_failure(store, &other, &tar, ERROR_DATA_LOSS, "DIFF_ID_MISMATCH");
    tar.length -= 1500;
    diff_id = digest_of(tar.data, tar.length);
    expect_failure(store, &diff_id, &tar, ERROR_DATA_LOSS, "INVALID_LAYER");
    diff_id = make_layer(&tar, "../escape", "x");
    expect_failure(store, &diff_id, &tar, ERROR_DATA_LOSS, "INVALID_LAYER");
    /* One that is refused while more is on its way. */
    for (size_t i = 0; i < 50000; i++)
        strbuf_add_str(&tar, "more than a pipe holds, more than a pipe holds");
    diff_id = digest_of(tar.data, tar.length);
    expect_failure(store, &diff_id, &tar, ERROR_DATA_LOSS, "INVALID_LAYER");
    /* One that is given up. */
    diff_id = make_layer(&tar, "hello", "world");
    CHECK((writer = await_layer_prepare(store, &diff_id, err)));
    CHECK(await_layer_write(writer, tar.data, 600, err));
    CHECK(count_entries("failures/tmp") == 1);
    CHECK(!layer_writer_free_await(writer));
    CHECK(count_entries("failures/tmp") == 0);
    store_close_await(store);
    return true;
}

static void test_failures(void **state UNUSED)
{
    run_task(body_failures, NULL);
}

struct cancelled_write {
    struct store *store;
    struct task *task;
    const struct strbuf *tar;
    bool unwound;
};

static bool task_write_cancelled(void *arg, struct error *err)
{
    struct cancelled_write *write = arg;
    struct digest diff_id = digest_of(write->tar->data, write->tar->length);
    struct layer_writer *writer = await_layer_prepare(write->store, &diff_id, err);

    CHECK(writer && await_layer_write(writer, write->tar->data, 600, err));
    task_cancel(task_current());
    CHECK(!await_layer_write(writer, write->tar->data + 600, 100, err));
    CHECK(err->code == ERROR_CANCELLED);
    error_done(err);
    CHECK(!await_layer_commit(writer, NULL, err) && !layer_find(write->store, &diff_id, NULL));
    layer_writer_free_await(writer);
    write->unwound = true;
    return false;
}

static bool body_cancel(void *arg UNUSED, struct error *err)
{
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct cancelled_write write = {.store = await_open_scratch("cancel", err), .tar = &tar};
    struct group group;

    CHECK(write.store);
    make_layer(&tar, "hello", "world");
    group_init(&group);
    CHECK(task_spawn(&group, "write", NULL, task_write_cancelled, &write, err));
    await_group(&group, err);
    error_done(err);
    CHECK(write.unwound && count_entries("cancel/tmp") == 0);
    store_close_await(write.store);
    return true;
}

static void test_cancel(void **state UNUSED)
{
    run_task(body_cancel, NULL);
}

/* --- Two at once -------------------------------------------------------------------------------
 */

struct racer {
    struct store *store;
    const struct strbuf *tar;
};

static bool task_race(void *arg, struct error *err)
{
    struct racer *racer = arg;
    struct digest diff_id = digest_of(racer->tar->data, racer->tar->length);

    return await_store_layer(racer->store, &diff_id, racer->tar, NULL, err);
}

static bool body_race(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("race", err);
    struct strbuf tars[4] = {0};
    struct racer racers[12];
    struct group group;

    CHECK(store);
    group_init(&group);
    for (size_t i = 0; i < ARRAY_SIZE(tars); i++)
        make_layer(&tars[i], "file", (const char *[]){"a", "b", "c", "d"}[i]);
    for (size_t i = 0; i < ARRAY_SIZE(racers); i++) {
        racers[i] = (struct racer){.store = store, .tar = &tars[i % ARRAY_SIZE(tars)]};
        CHECK(task_spawn(&group, "race", NULL, task_race, &racers[i], err));
    }
    CHECK(await_group(&group, err));
    CHECK(count_entries("race/layers") == 4 && count_entries("race/tmp") == 0);
    for (size_t i = 0; i < ARRAY_SIZE(tars); i++)
        strbuf_done(&tars[i]);
    store_close_await(store);
    return true;
}

static void test_several_at_once(void **state UNUSED)
{
    run_task(body_race, NULL);
}

/* --- Whiteouts, as overlayfs understands them ---------------------------------------------------
 */

static void add_lower(struct strbuf *tar)
{
    tar_add(tar, "d/", '5', "", 0);
    tar_add(tar, "d/keep", '0', "1", 1);
    tar_add(tar, "d/gone", '0', "1", 1);
    tar_add(tar, "opaque/", '5', "", 0);
    tar_add(tar, "opaque/old", '0', "1", 1);
    tar_add(tar, "replaced/", '5', "", 0);
    tar_add(tar, "replaced/old", '0', "1", 1);
    tar_add(tar, "tree/", '5', "", 0);
    tar_add(tar, "tree/x", '0', "1", 1);
    tar_end(tar);
}

static void add_upper(struct strbuf *tar)
{
    tar_add(tar, "d/", '5', "", 0);
    tar_add(tar, "d/.wh.gone", '0', "", 0);
    tar_add(tar, "opaque/", '5', "", 0);
    tar_add(tar, "opaque/.wh..wh..opq", '0', "", 0);
    tar_add(tar, "opaque/new", '0', "2", 1);
    tar_add(tar, ".wh.replaced", '0', "", 0);
    tar_add(tar, "replaced/", '5', "", 0);
    tar_add(tar, "replaced/new", '0', "2", 1);
    tar_add(tar, ".wh.tree", '0', "", 0);
    tar_end(tar);
}

static bool exists(const char *directory, const char *name)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", directory, name);
    struct stat st;

    return lstat(path, &st) == 0;
}

static void check_overlay(const char *upper, const char *lower)
{
    CLEANUP_FREE char *mountpoint = xasprintf("%s/merged", scratch_directory());
    CLEANUP_FREE char *options = xasprintf("lowerdir=%s:%s", upper, lower);

    CHECK(mkdir(mountpoint, 0700) == 0);
    CHECK(mount("overlay", mountpoint, "overlay", MS_RDONLY, options) == 0);
    CHECK(exists(mountpoint, "d/keep") && !exists(mountpoint, "d/gone"));
    CHECK(exists(mountpoint, "opaque/new") && !exists(mountpoint, "opaque/old"));
    CHECK(exists(mountpoint, "replaced/new") && !exists(mountpoint, "replaced/old"));
    CHECK(!exists(mountpoint, "tree"));
    CHECK(umount2(mountpoint, MNT_DETACH) == 0);
    CHECK(rmdir(mountpoint) == 0);
}

static bool body_overlay(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("overlay", err);
    CLEANUP_STRBUF struct strbuf lower = {0};
    CLEANUP_STRBUF struct strbuf upper = {0};
    CLEANUP_FREE char *lower_path = NULL;
    CLEANUP_FREE char *upper_path = NULL;
    struct digest lower_id, upper_id;
    char value[2] = "";

    CHECK(store);
    add_lower(&lower);
    add_upper(&upper);
    lower_id = digest_of(lower.data, lower.length);
    upper_id = digest_of(upper.data, upper.length);
    CHECK(await_store_layer(store, &lower_id, &lower, NULL, err));
    CHECK(await_store_layer(store, &upper_id, &upper, NULL, err));
    CHECK(await_layer_mount(store, &lower_id, &lower_path, err));
    CHECK(await_layer_mount(store, &upper_id, &upper_path, err));
    CLEANUP_FREE char *opaque = xasprintf("%s/opaque", upper_path);
    CHECK(getxattr(opaque, "trusted.overlay.opaque", value, 2) == 1 && value[0] == 'y');
    check_overlay(upper_path, lower_path);
    layer_unmount_await(store, &lower_id);
    layer_unmount_await(store, &upper_id);
    store_close_await(store);
    return true;
}

static void test_whiteouts_in_overlayfs(void **state UNUSED)
{
    run_task(body_overlay, NULL);
}

/* --- A full disk -------------------------------------------------------------------------------
 */

static bool body_full(void *arg, struct error *err)
{
    const char *root = arg;
    struct store *store = await_open_scratch("full/root", err);
    CLEANUP_STRBUF struct strbuf small = {0};
    CLEANUP_STRBUF struct strbuf large = {0};
    CLEANUP_ERROR struct error failure = {0};
    CLEANUP_FREE char *content = xcalloc(1, 12 * MIB);
    struct digest small_id = make_layer(&small, "small", "x"), large_id;

    CHECK(store);
    CHECK(await_store_layer(store, &small_id, &small, NULL, err));
    tar_add(&large, "first", '0', content, 1 * MIB);
    tar_add(&large, "second", '0', content, 12 * MIB);
    tar_end(&large);
    large_id = digest_of(large.data, large.length);
    CHECK(!await_store_layer(store, &large_id, &large, NULL, &failure));
    if (!error_is(&failure, "NO_SPACE") || failure.code != ERROR_RESOURCE_EXHAUSTED)
        die("not NO_SPACE, but %s: %s", failure.reason, failure.message);
    CHECK(strstr(failure.message, root) && failure.hint);
    CHECK(count_entries("full/root/tmp") == 0 && count_entries("full/root/layers") == 1);
    CHECK(layer_find(store, &small_id, NULL));
    /* There is space again: the same works for what fits. */
    small_id = make_layer(&small, "other", "y");
    CHECK(await_store_layer(store, &small_id, &small, NULL, err));
    store_close_await(store);
    return true;
}

/* Not tmpfs, on which an index cannot be mounted. */
static void test_full_disk(void **state UNUSED)
{
    const char *dir = scratch_directory();
    CLEANUP_FREE char *mountpoint = xasprintf("%s/full", dir);
    CLEANUP_FREE char *root = xasprintf("%s/root", mountpoint);
    CLEANUP_FREE char *command =
        xasprintf("truncate -s 10M %s.ext4 && mkfs.ext4 -q -O ^has_journal -m 0 %s.ext4 &&"
                  " mount -o loop %s.ext4 %s",
                  mountpoint, mountpoint, mountpoint, mountpoint);

    assert_int_equal(mkdir(mountpoint, 0700), 0);
    assert_int_equal(system(command), 0);
    run_task(body_full, root);
    assert_int_equal(umount2(mountpoint, MNT_DETACH), 0);
}

/* --- kill -9 -----------------------------------------------------------------------------------
 */

static bool body_killed(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("killed", err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest diff_id = make_layer(&tar, "done", "1");
    struct layer_writer *writer;

    CHECK(store && await_store_layer(store, &diff_id, &tar, NULL, err));
    diff_id = make_layer(&tar, "half", "2");
    CHECK((writer = await_layer_prepare(store, &diff_id, err)));
    CHECK(await_layer_write(writer, tar.data, 700, err));
    raise(SIGKILL);
    return false;
}

static bool body_after_kill(void *arg UNUSED, struct error *err)
{
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest done = make_layer(&tar, "done", "1"), half = make_layer(&tar, "half", "2");
    struct store *store = await_open_scratch("killed", err);

    CHECK(store);
    CHECK(layer_find(store, &done, NULL) && !layer_find(store, &half, NULL));
    CHECK(count_entries("killed/layers") == 1);
    while (count_entries("killed/tmp") > 0)
        CHECK(await_yield() == 0); /* the background removes it */
    CHECK(await_store_layer(store, &half, &tar, NULL, err));
    CHECK(count_entries("killed/layers") == 2);
    store_close_await(store);
    return true;
}

static void add_litter(void)
{
    CLEANUP_FREE char *layers = xasprintf("%s/killed/layers", scratch_directory());
    CLEANUP_FREE char *moved = xasprintf("%s/%064d", layers, 7);
    CLEANUP_FREE char *foreign = xasprintf("%s/what-is-this", layers);

    /* Moved into place, but without a row: killed between the two. */
    assert_int_equal(mkdir(moved, 0700), 0);
    assert_int_equal(mkdir(foreign, 0700), 0);
}

static void test_kill_in_mid_layer(void **state UNUSED)
{
    int status;
    pid_t pid;

    scratch_directory(); /* the child's too */
    pid = fork();
    if (pid == 0) {
        run_task(body_killed, NULL);
        _exit(1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(count_entries("killed/tmp"), 1);
    add_litter();
    run_task(body_after_kill, NULL);
}

static bool body_make_lost(void *arg, struct error *err)
{
    struct store *store = await_open_scratch("lost", err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest *diff_id = arg;

    *diff_id = make_layer(&tar, "file", "lost");
    CHECK(store && await_store_layer(store, diff_id, &tar, NULL, err));
    store_close_await(store);
    return true;
}

static bool body_find_lost(void *arg, struct error *err)
{
    struct store *store = await_open_scratch("lost", err);
    CLEANUP_STRBUF struct strbuf tar = {0};

    CHECK(store && !layer_find(store, arg, NULL));
    make_layer(&tar, "file", "lost");
    CHECK(await_store_layer(store, arg, &tar, NULL, err) && layer_find(store, arg, NULL));
    store_close_await(store);
    return true;
}

static void test_directory_taken_away(void **state UNUSED)
{
    CLEANUP_FREE char *path = NULL;
    struct digest diff_id;

    run_task(body_make_lost, &diff_id);
    path = xasprintf("%s/lost/layers/%s", scratch_directory(), digest_hex(&diff_id));
    remove_path(path);
    run_task(body_find_lost, &diff_id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill_in_mid_layer), /* first: it forks, so no threads yet */
        cmocka_unit_test(test_commit),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_several_at_once),
        cmocka_unit_test(test_whiteouts_in_overlayfs),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_directory_taken_away),
    };

    own_mounts();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
