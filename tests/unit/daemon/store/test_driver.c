/* Which storage driver keeps a data root, and what is found mounted after a daemon was killed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/store/fs_context.h"
#include "proto/base/strbuf.h"
#include "tests/unit/daemon/store/fixture.h"

/* --- Choice ------------------------------------------------------------------------------------
 */

static void expect_driver(const char *root, const char *forced, const char *expected,
                          const char *reason)
{
    CLEANUP_ERROR struct error err = {0};
    struct store *store = await_open_with(root, forced, &err);

    if (!store)
        die("%s: %s", root, err.message);
    if (!str_eq(store_driver_name(store), expected) || !strstr(store_driver_reason(store), reason))
        die("%s: not %s (%s) but %s: %s", root, expected, reason, store_driver_name(store),
            store_driver_reason(store));
    store_close_await(store);
}

static void expect_refusal(const char *root, const char *forced, const char *reason,
                           const char *message, const char *hint)
{
    CLEANUP_ERROR struct error err = {0};

    CHECK(!await_open_with(root, forced, &err));
    if (err.code != ERROR_FAILED_PRECONDITION || !error_is(&err, reason) ||
        !strstr(err.message, message) || !strstr(err.message, root) || !strstr(err.hint, hint))
        die("%s: not %s, but %s: %s (%s)", root, reason, err.reason, err.message, err.hint);
}

static void store_one_layer(const char *root, const char *driver, struct error *err)
{
    struct store *store = await_open_with(root, driver, err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest diff_id = make_layer(&tar, "file", root);

    CHECK(store && await_store_layer(store, &diff_id, &tar, NULL, err));
    store_close_await(store);
}

static bool body_choice(void *arg UNUSED, struct error *err)
{
    expect_driver("choice", NULL, "erofs", "mounted from their tar files");
    /* Without layers a data root takes any, and is nobody's. */
    expect_driver("choice", "directory", "directory", "as configured");
    expect_driver("choice", NULL, "erofs", "mounted from their tar files");
    store_one_layer("choice", "directory", err);
    expect_driver("choice", NULL, "directory", "the layers in the data root are its own");
    expect_driver("choice", "directory", "directory", "as configured");
    expect_refusal("choice", "erofs", "STORAGE_DRIVER_MISMATCH", "by the storage driver directory",
                   "--storage-driver directory");
    store_one_layer("other", "erofs", err);
    expect_driver("other", NULL, "erofs", "the layers in the data root are its own");
    expect_refusal("other", "directory", "STORAGE_DRIVER_MISMATCH", "by the storage driver erofs",
                   "--storage-driver erofs");
    return true;
}

static void test_choice(void **state UNUSED)
{
    run_task(body_choice, NULL);
}

static bool body_on_overlay(void *arg UNUSED, struct error *err)
{
    expect_driver("overlay/root", NULL, "directory", "does not lie on an overlay); layers are");
    expect_refusal("overlay/root", "erofs", "STORAGE_DRIVER_UNSUPPORTED", "as configured",
                   "--storage-driver directory");
    store_one_layer("overlay/root", NULL, err);
    expect_driver("overlay/root", NULL, "directory", "the layers in the data root are its own");
    /* No other driver may be named for layers that are there. */
    expect_refusal("overlay/theirs", NULL, "STORAGE_DRIVER_UNSUPPORTED", "are its own",
                   "use another data root");
    expect_refusal("overlay/theirs", "erofs", "STORAGE_DRIVER_UNSUPPORTED", "as configured",
                   "use another data root");
    return true;
}

static bool body_below_overlay(void *arg UNUSED, struct error *err)
{
    store_one_layer("lower/theirs", "erofs", err);
    return true;
}

/* Overlays cannot be stacked as deep as erofs on an overlay would need. */
static void test_on_overlay(void **state UNUSED)
{
    const char *dir = scratch_directory();
    CLEANUP_FREE char *options =
        xasprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", dir, dir, dir);
    CLEANUP_FREE char *target = xasprintf("%s/overlay", dir);

    for (size_t i = 0; i < 4; i++) {
        static const char *const names[] = {"lower", "upper", "work", "overlay"};
        CLEANUP_FREE char *path = xasprintf("%s/%s", dir, names[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    run_task(body_below_overlay, NULL);
    assert_int_equal(mount("overlay", target, "overlay", 0, options), 0);
    run_task(body_on_overlay, NULL);
    assert_int_equal(umount2(target, MNT_DETACH), 0);
}

/* What kernels before 6.12 say of erofs, later ones say of ext4. */
static void test_no_mount_from_files(void **state UNUSED)
{
    CLEANUP_FREE char *path = xasprintf("%s/file", scratch_directory());
    CLEANUP_CLOSE int file_fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_CLOSE int context_fd = fs_open("ext4", &err);

    assert_true(file_fd >= 0 && context_fd >= 0 && fs_set_path(context_fd, "source", path, &err));
    assert_int_equal(fs_create(context_fd, 0, &err), -1);
    assert_string_equal(err.message,
                        "the kernel takes only a block device for it here, not a file");
}

/* --- Mounts of a daemon that was killed --------------------------------------------------------
 */

static bool is_mounted(const char *root, const struct digest *diff_id)
{
    CLEANUP_FREE char *path =
        xasprintf("%s/%s/mnt/%s", scratch_directory(), root, digest_hex(diff_id));
    struct statfs fs;

    return statfs(path, &fs) == 0 && fs.f_type == EROFS_SUPER_MAGIC_V1;
}

static bool body_killed(void *root, struct error *err)
{
    struct store *store = await_open_with(root, "erofs", err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest diff_id = make_layer(&tar, "file", root);
    CLEANUP_FREE char *path = NULL;

    CHECK(store && await_store_layer(store, &diff_id, &tar, NULL, err) &&
          await_layer_mount(store, &diff_id, &path, err) && is_mounted(root, &diff_id));
    kill(getpid(), SIGKILL);
    return true;
}

/* It forks, so it comes before there are threads. */
static int kill_with_mounts(void **state UNUSED)
{
    static char *const roots[] = {"claimed", "unclaimed"};

    scratch_directory(); /* the children's too */
    for (size_t i = 0; i < ARRAY_SIZE(roots); i++) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            run_task(body_killed, roots[i]);
            _exit(1);
        }
        CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
              WTERMSIG(status) == SIGKILL);
    }
    return 0;
}

static bool body_found_again(void *root, struct error *err)
{
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest diff_id = make_layer(&tar, "file", root);
    CLEANUP_FREE char *path = NULL;
    struct store *store;

    CHECK(is_mounted(root, &diff_id));
    CHECK((store = await_open_with(root, "erofs", err)));
    CHECK(is_mounted(root, &diff_id));
    CHECK(await_layer_mount(store, &diff_id, &path, err));
    store_unmount_unused_await(store); /* it is in use */
    CHECK(is_mounted(root, &diff_id));
    layer_unmount_await(store, &diff_id);
    CHECK(!is_mounted(root, &diff_id));
    store_close_await(store);
    return true;
}

static bool body_nobody_uses(void *root, struct error *err)
{
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest diff_id = make_layer(&tar, "file", root);
    struct store *store;

    CHECK(is_mounted(root, &diff_id));
    CHECK((store = await_open_with(root, "erofs", err)));
    store_unmount_unused_await(store);
    CHECK(!is_mounted(root, &diff_id) && count_entries("unclaimed/mnt") == 0);
    store_close_await(store);
    return true;
}

static void test_mounts_are_found_again(void **state UNUSED)
{
    run_task(body_found_again, "claimed");
}

static void test_mounts_that_nobody_uses_go(void **state UNUSED)
{
    run_task(body_nobody_uses, "unclaimed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mounts_are_found_again),
        cmocka_unit_test(test_mounts_that_nobody_uses_go),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_on_overlay),
        cmocka_unit_test(test_no_mount_from_files),
    };

    own_mounts();
    return cmocka_run_group_tests(tests, kill_with_mounts, NULL);
}
