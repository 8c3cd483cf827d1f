/* The `directory` driver: a layer is its unpacked tree, `fs`, in overlayfs form. davit-untar, a
 * confined process, unpacks it from a pipe; see untar/. Works on every kernel and filesystem that
 * overlayfs works on. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "daemon/store/archive_reader.h"
#include "daemon/store/layer_driver.h"
#include "daemon/store/tree_hash.h"
#include "daemon/store/tree_walk.h"
#include "proto/async/await.h"
#include "proto/base/fault.h"

struct unpacking {
    int fs_fd;
    struct archive_reader *untar;
};

/* --- Prepare -----------------------------------------------------------------------------------
 */

struct make_fs {
    int dir_fd, fs_fd, errnum;
};

/* What the parent directory would hand down (set-group-id, default ACL) is no part of the layer. */
static void make_fs(void *arg)
{
    struct make_fs *make = arg;

    if (mkdirat(make->dir_fd, "fs", 0755) == 0)
        make->fs_fd = openat(make->dir_fd, "fs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (make->fs_fd < 0 || fchown(make->fs_fd, 0, 0) < 0 || fchmod(make->fs_fd, 0755) < 0) {
        make->errnum = errno;
        return;
    }
    fremovexattr(make->fs_fd, "system.posix_acl_default");
    fremovexattr(make->fs_fd, "system.posix_acl_access");
}

static void directory_end_await(void *preparation)
{
    struct unpacking *unpacking = preparation;

    if (!unpacking)
        return;
    archive_reader_end_await(unpacking->untar);
    close_fd(&unpacking->fs_fd);
    free(unpacking);
}

static void *await_directory_prepare(const struct layer_driver_context *context, int dir_fd,
                                     struct error *err)
{
    struct make_fs make = {.dir_fd = dir_fd, .fs_fd = -1};
    struct unpacking *unpacking;
    int r = await_work(make_fs, &make, "preparing a layer");

    if (r < 0 || make.errnum) {
        close_fd(&make.fs_fd);
        error_set_errno(err, r < 0 ? r : make.errnum, "cannot create a directory");
        return NULL;
    }
    unpacking = xcalloc(1, sizeof(*unpacking));
    unpacking->fs_fd = make.fs_fd;
    unpacking->untar = await_archive_reader_start(context->untar_path, &unpacking->fs_fd, 1, err);
    if (unpacking->untar)
        return unpacking;
    directory_end_await(unpacking);
    return NULL;
}

/* --- Write and commit --------------------------------------------------------------------------
 */

static bool await_directory_write(void *preparation, const void *data, size_t size,
                                  struct error *err)
{
    struct unpacking *unpacking = preparation;

    return await_archive_reader_write(unpacking->untar, data, size, err);
}

struct opaque_marks {
    int fs_fd;
    const struct strbuf *paths;
    int errnum;
};

/* The unpacker found the paths, free of links, after the last entry. */
static void set_opaque_marks(void *arg)
{
    struct opaque_marks *marks = arg;
    const char *path = marks->paths->data, *end = path + marks->paths->length;

    for (; path < end; path += strlen(path) + 1) {
        struct open_how how = {
            .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
            .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
        };
        CLEANUP_CLOSE int fd =
            (int)syscall(SYS_openat2, marks->fs_fd, *path ? path : ".", &how, sizeof(how));
        if (fd < 0 || fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0) < 0) {
            marks->errnum = errno;
            return;
        }
    }
}

static bool await_opaque_marks(struct unpacking *unpacking, const struct strbuf *paths,
                               struct error *err)
{
    struct opaque_marks marks = {.fs_fd = unpacking->fs_fd, .paths = paths};
    int r;

    if (paths->length == 0)
        return true;
    r = await_work(set_opaque_marks, &marks, "marking opaque directories");
    return (r == 0 && marks.errnum == 0) ||
           error_set_errno(err, r < 0 ? r : marks.errnum, "cannot mark an opaque directory");
}

struct seal_work {
    int fs_fd;
    char *seal;
    uint64_t disk_bytes;
    bool ok;
    struct error err;
};

/* syncfs(2), since the files of a layer are many: an fsync(2) for each costs many times as much.
 * The descriptor is older than the first of them, so that no error of theirs is missed. */
static void sync_and_seal(void *arg)
{
    struct seal_work *work = arg;
    struct tree_hash *hash = tree_hash_new(work->fs_fd, false);
    ssize_t n = 1;

    fault_point("directory.unpacked");
    if (syncfs(work->fs_fd) < 0)
        work->ok = error_set_errno(&work->err, errno, "cannot sync");
    else {
        while ((n = tree_hash_step(hash, &work->err)) > 0)
            ;
        work->ok = n == 0;
    }
    if (work->ok)
        work->seal = xstrdup(tree_hash_finish(hash).text);
    work->disk_bytes = tree_hash_disk_bytes(hash);
    tree_hash_free(hash);
}

static bool await_directory_commit(void *preparation, struct layer_content *ret, struct error *err)
{
    CLEANUP(layer_report_done) struct layer_report result = {0};
    struct unpacking *unpacking = preparation;
    struct seal_work work = {.fs_fd = unpacking->fs_fd};
    int r;

    if (!await_archive_reader_finish(unpacking->untar, &result, err) ||
        !await_opaque_marks(unpacking, &result.opaque, err))
        return false;
    r = await_work(sync_and_seal, &work, "syncing a layer");
    if (r < 0)
        return await_error(err, r, "syncing a layer");
    ret->content_bytes = result.content_bytes;
    ret->disk_bytes = work.disk_bytes;
    ret->seal = work.seal;
    return work.ok || error_move(err, &work.err);
}

/* --- Check -------------------------------------------------------------------------------------
 */

struct directory_check {
    int fs_fd, open_errno;
    struct tree_hash *hash;
    const char *seal;
};

static void *directory_check_begin(int dir_fd, const struct digest *diff_id UNUSED,
                                   const char *seal)
{
    struct directory_check *check = xcalloc(1, sizeof(*check));

    check->fs_fd = openat(dir_fd, "fs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    check->open_errno = errno;
    check->hash = tree_hash_new(check->fs_fd, true);
    check->seal = seal;
    return check;
}

static ssize_t directory_check_step(void *arg, struct error *err)
{
    struct directory_check *check = arg;
    struct digest actual;
    ssize_t n;

    if (check->fs_fd < 0) {
        errno = check->open_errno;
        tree_failed("open", "its directory", err);
        return -1;
    }
    n = tree_hash_step(check->hash, err);
    if (n != 0 || !check->seal)
        return n;
    actual = tree_hash_finish(check->hash);
    if (str_eq(actual.text, check->seal))
        return 0;
    error_set(err, ERROR_DATA_LOSS, "LAYER_DAMAGED",
              "its unpacked files are not as they were when it was pulled");
    return -1;
}

static void directory_check_end(void *arg)
{
    struct directory_check *check = arg;

    tree_hash_free(check->hash);
    close_fd(&check->fs_fd);
    free(check);
}

static uint64_t directory_check_bytes(uint64_t tar_bytes UNUSED, uint64_t content_bytes)
{
    return content_bytes;
}

/* --- Mount -------------------------------------------------------------------------------------
 */

static bool directory_probe(int dir_fd UNUSED, struct error *err UNUSED)
{
    return true;
}

static bool await_directory_mount(const struct layer_place *place, char **ret_path,
                                  struct error *err UNUSED)
{
    *ret_path = xasprintf("%s/fs", place->directory);
    return true;
}

static void directory_unmount_await(const struct layer_place *place UNUSED)
{
}

const struct layer_driver directory_driver = {
    .name = "directory",
    .summary = "layers are unpacked into directories",
    .probe = directory_probe,
    .await_prepare = await_directory_prepare,
    .await_write = await_directory_write,
    .await_commit = await_directory_commit,
    .end_await = directory_end_await,
    .check_begin = directory_check_begin,
    .check_step = directory_check_step,
    .check_end = directory_check_end,
    .check_bytes = directory_check_bytes,
    .await_mount = await_directory_mount,
    .unmount_await = directory_unmount_await,
};
