#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "daemon/container/rootfs.h"
#include "daemon/container/user.h"
#include "proto/base/strbuf.h"

/* A tree of an image, and things outside of it that must stay as they are. */
static char scratch[] = "/tmp/davit-rootfs-XXXXXX";

static char *at(const char *name)
{
    static char paths[8][256];
    static unsigned int next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof(paths[0]), "%s/%s", scratch, name);
    return path;
}

static void put(const char *name, const char *text)
{
    CLEANUP_CLOSE int fd = open(at(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static int make_scratch(void **state UNUSED)
{
    if (!mkdtemp(scratch))
        return -1;
    mkdir(at("root"), 0755);
    mkdir(at("root/etc"), 0755);
    mkdir(at("outside"), 0755);
    mkdir(at("data"), 0755);
    mkdir(at("data/containers"), 0755);
    mkdir(at("exec"), 0755);
    mkdir(at("exec/containers"), 0755);
    put("outside/passwd", "outside:x:0:0::/:\n");
    return 0;
}

static int remove_scratch(void **state UNUSED)
{
    CLEANUP_FREE char *command = xasprintf("rm -rf %s", scratch);

    return system(command);
}

/* --- Reading files of an image ------------------------------------------------------------------
 */

static int open_root(void)
{
    int fd = open(at("root"), O_PATH | O_DIRECTORY | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

/* Contents, NULL if there is no file; fails with err. */
static char *read_passwd(struct error *err)
{
    CLEANUP_CLOSE int root_fd = open_root();
    char *text = NULL;
    size_t size;

    rootfs_read_file(root_fd, "/etc/passwd", USER_FILE_MAX_BYTES, &text, &size, err);
    unlink(at("root/etc/passwd"));
    rmdir(at("root/etc/passwd"));
    return text;
}

static void files_are_read(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *text = NULL;
    CLEANUP_FREE char *linked = NULL;

    put("root/etc/passwd", "root:x:0:0\n");
    text = read_passwd(&err);
    assert_ok(text != NULL, &err);
    assert_string_equal(text, "root:x:0:0\n");
    assert_null(read_passwd(&err));
    assert_false(error_is_set(&err));
    /* Absolute links are the image's: as with /etc -> /usr/etc. */
    put("root/real", "inside\n");
    assert_int_equal(symlink("/real", at("root/etc/passwd")), 0);
    linked = read_passwd(&err);
    assert_string_equal(linked, "inside\n");
}

static void links_do_not_lead_out(void **state UNUSED)
{
    CLEANUP_FREE char *absolute = xasprintf("%s/outside/passwd", scratch);
    const char *const targets[] = {absolute, "../../outside/passwd", "passwd", "/proc/self/environ",
                                   "../../../../../../../../etc/passwd"};

    for (size_t i = 0; i < ARRAY_SIZE(targets); i++) {
        CLEANUP_ERROR struct error err = {0};
        CLEANUP_FREE char *text = NULL;
        assert_int_equal(symlink(targets[i], at("root/etc/passwd")), 0);
        text = read_passwd(&err);
        assert_null(text);
        assert_false(error_is_set(&err)); /* simply not there */
    }
}

static void odd_files_are_refused(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};

    assert_int_equal(mkfifo(at("root/etc/passwd"), 0644), 0);
    assert_null(read_passwd(&err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "/etc/passwd is not a regular file");
    assert_int_equal(mknod(at("root/etc/passwd"), S_IFCHR | 0644, makedev(1, 5)), 0);
    assert_null(read_passwd(&err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "/etc/passwd is not a regular file");
    assert_int_equal(mkdir(at("root/etc/passwd"), 0755), 0);
    assert_null(read_passwd(&err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "/etc/passwd is not a regular file");
    put("root/etc/passwd", "");
    assert_int_equal(truncate(at("root/etc/passwd"), 100LL * 1024 * 1024 * 1024), 0);
    assert_null(read_passwd(&err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "/etc/passwd is larger than 1048576 bytes");
}

/* --- Making directories -------------------------------------------------------------------------
 */

static void directories_are_made(void **state UNUSED)
{
    CLEANUP_CLOSE int root_fd = open_root();
    CLEANUP_ERROR struct error err = {0};
    mode_t before = umask(0077);
    struct stat st;

    assert_ok(rootfs_make_dirs(root_fd, "/", &err), &err);
    assert_ok(rootfs_make_dirs(root_fd, "/a/b/c", &err), &err);
    assert_ok(rootfs_make_dirs(root_fd, "/a/b/c", &err), &err);
    umask(before);
    assert_int_equal(stat(at("root/a/b/c"), &st), 0);
    assert_int_equal(st.st_mode, S_IFDIR | 0755);
    assert_int_equal(mkdir(at("root/var"), 0755), 0);
    assert_int_equal(symlink("/var", at("root/link")), 0);
    assert_ok(rootfs_make_dirs(root_fd, "/link/x/y", &err), &err);
    assert_int_equal(access(at("root/var/x/y"), F_OK), 0);
}

static void directories_are_made_inside_only(void **state UNUSED)
{
    CLEANUP_CLOSE int root_fd = open_root();
    CLEANUP_ERROR struct error err = {0};

    assert_int_equal(symlink(at("outside"), at("root/escape")), 0);
    assert_int_equal(symlink("../outside", at("root/climb")), 0);
    assert_int_equal(symlink("/proc/self/cwd", at("root/magic")), 0);
    assert_false(rootfs_make_dirs(root_fd, "/escape/evil", &err));
    assert_false(rootfs_make_dirs(root_fd, "/climb/evil", &err));
    assert_false(rootfs_make_dirs(root_fd, "/magic/evil", &err));
    assert_int_equal(access(at("outside/evil"), F_OK), -1);
    put("root/file", "");
    assert_false(rootfs_make_dirs(root_fd, "/file/x", &err));
    assert_error(&err, ERROR_INTERNAL, "cannot create /file/x in the container: Not a directory");
}

/* --- The overlay --------------------------------------------------------------------------------
 */

static void overlay_of(size_t count)
{
    CLEANUP(container_paths_done) struct container_paths paths = {0};
    CLEANUP_ERROR struct error err = {0};
    CLEANUP(strv_cleanup) char **layers = xcalloc(count + 1, sizeof(*layers));
    CLEANUP_FREE char *upper = NULL;
    CLEANUP_FREE char *command = NULL;
    char name[128];

    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "layer,with:odd\\name%zu", i);
        layers[i] = xstrdup(at(name));
        mkdir(layers[i], 0755);
        snprintf(name, sizeof(name), "layer,with:odd\\name%zu/file%zu", i, i);
        put(name, "");
        snprintf(name, sizeof(name), "layer,with:odd\\name%zu/top", i);
        char text[24];
        snprintf(text, sizeof(text), "%zu", i);
        put(name, text);
    }
    container_paths_init(&paths, at("data"), at("exec"), "id");
    assert_ok(container_paths_create(&paths, &err), &err);
    assert_ok(rootfs_mount(&paths, layers, count, true, &err), &err);
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "exec/containers/id/rootfs/file%zu", i);
        assert_int_equal(access(at(name), F_OK), 0);
    }
    if (count > 0) {
        char text[24] = "", expected[24];
        CLEANUP_CLOSE int fd = open(at("exec/containers/id/rootfs/top"), O_RDONLY | O_CLOEXEC);
        assert_true(read(fd, text, sizeof(text) - 1) > 0);
        snprintf(expected, sizeof(expected), "%zu", count - 1);
        assert_string_equal(text, expected);
    }
    put("exec/containers/id/rootfs/new", "x");
    assert_ok(rootfs_unmount(&paths, &err), &err);
    assert_ok(rootfs_unmount(&paths, &err), &err);
    upper = xasprintf("%s/upper/new", paths.data_dir);
    assert_int_equal(access(upper, F_OK), 0);
    command = xasprintf("rm -rf %s %s", paths.data_dir, paths.bundle_dir);
    assert_int_equal(system(command), 0);
}

static void overlays_of_0_1_and_127_layers(void **state UNUSED)
{
    overlay_of(0);
    overlay_of(1);
    overlay_of(127);
}

static void files_are_written_with_their_mode(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    mode_t before = umask(0077);
    struct stat st;

    assert_ok(write_file(at("written"), "text", 0644, &err), &err);
    umask(before);
    assert_int_equal(stat(at("written"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    assert_int_equal(st.st_size, 4);
    assert_false(write_file(at("no/such/dir"), "text", 0644, &err));
    assert_error(&err, ERROR_NOT_FOUND, "cannot write");
    assert_false(write_file("/dev/full", "text", 0644, &err));
    assert_error(&err, ERROR_RESOURCE_EXHAUSTED, "No space left");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(links_do_not_lead_out),
        cmocka_unit_test(odd_files_are_refused),
        cmocka_unit_test(directories_are_made),
        cmocka_unit_test(directories_are_made_inside_only),
        cmocka_unit_test(overlays_of_0_1_and_127_layers),
        cmocka_unit_test(files_are_written_with_their_mode),
    };

    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
