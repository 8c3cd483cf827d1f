/* The `erofs` driver: a layer is its uncompressed tar as fetched, and an index of it that the
 * kernel mounts as a file system, with the tar as the device that files' contents lie on. Nothing
 * is unpacked. davit-index, a confined process, makes the index from the tar's headers while the
 * tar is still being written; see indexer/. Needs Linux 6.12, which mounts EROFS from files. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "daemon/store/archive_reader.h"
#include "daemon/store/erofs/image.h"
#include "daemon/store/erofs/seal.h"
#include "daemon/store/file_hash.h"
#include "daemon/store/fs_context.h"
#include "daemon/store/layer_driver.h"
#include "daemon/store/tree_walk.h"
#include "proto/async/await.h"
#include "proto/base/fault.h"

/* Files of a layer. */
#define TAR "layer.tar"
#define INDEX "layer.erofs"
#define SPARSE "sparse" /* contents that do not lie in the tar as they are: rare, and so is it */

/* Writing to the disk is started after this many bytes, so that little is left for the end. */
#define WRITE_BEHIND_BYTES (8 * MIB)
#define TELL_BYTES (1 * MIB) /* davit-index is woken after so many */

struct filling {
    int dir_fd; /* the caller's */
    int tar_fd, tar_read_fd, index_fd, sparse_fd;
    uint64_t tar_bytes;
    uint64_t written_behind; /* of them, on their way to the disk */
    uint64_t told_bytes;     /* of them, known to davit-index */
    struct archive_reader *indexer;
};

/* --- Prepare -----------------------------------------------------------------------------------
 */

struct open_files {
    struct filling *filling;
    int errnum;
};

static int create(int dir_fd, const char *name)
{
    return openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

static void open_files(void *arg)
{
    struct open_files *work = arg;
    struct filling *filling = work->filling;

    filling->tar_fd = create(filling->dir_fd, TAR);
    filling->tar_read_fd = openat(filling->dir_fd, TAR, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    filling->index_fd = create(filling->dir_fd, INDEX);
    filling->sparse_fd = create(filling->dir_fd, SPARSE);
    if (filling->tar_fd < 0 || filling->tar_read_fd < 0 || filling->index_fd < 0 ||
        filling->sparse_fd < 0)
        work->errnum = errno;
}

static void erofs_end_await(void *preparation)
{
    struct filling *filling = preparation;

    if (!filling)
        return;
    archive_reader_end_await(filling->indexer);
    close_fd(&filling->tar_fd);
    close_fd(&filling->tar_read_fd);
    close_fd(&filling->index_fd);
    close_fd(&filling->sparse_fd);
    free(filling);
}

static void *await_erofs_prepare(const struct layer_driver_context *context, int dir_fd,
                                 struct error *err)
{
    struct filling *filling = xcalloc(1, sizeof(*filling));
    struct open_files work = {.filling = filling};
    int r;

    filling->dir_fd = dir_fd;
    filling->tar_fd = filling->tar_read_fd = filling->index_fd = filling->sparse_fd = -1;
    r = await_work(open_files, &work, "preparing a layer");
    if (r < 0 || work.errnum)
        error_set_errno(err, r < 0 ? r : work.errnum, "cannot create its files");
    else {
        const int fds[] = {filling->tar_read_fd, filling->index_fd, filling->sparse_fd};
        filling->indexer =
            await_archive_reader_start(context->index_path, fds, ARRAY_SIZE(fds), err);
    }
    if (filling->indexer)
        return filling;
    erofs_end_await(filling);
    return NULL;
}

/* --- Write -------------------------------------------------------------------------------------
 */

static bool write_tar(void *preparation, const void *bytes, size_t size, struct error *err)
{
    struct filling *filling = preparation;
    const char *data = bytes;
    uint64_t pending;

    while (size > 0) {
        ssize_t n = pwrite(filling->tar_fd, data, size, (off_t)filling->tar_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(err, errno, "cannot write %s", TAR);
        data += n;
        size -= (size_t)n;
        filling->tar_bytes += (uint64_t)n;
    }
    pending = filling->tar_bytes - filling->written_behind;
    if (pending < WRITE_BEHIND_BYTES)
        return true;
    /* Only a hint: errors come back from fdatasync(2). */
    sync_file_range(filling->tar_fd, (off_t)filling->written_behind, (off_t)pending,
                    SYNC_FILE_RANGE_WRITE);
    filling->written_behind = filling->tar_bytes;
    return true;
}

/* Tells davit-index how far the tar is. */
static bool await_tell(struct filling *filling, struct error *err)
{
    filling->told_bytes = filling->tar_bytes;
    return await_archive_reader_write(filling->indexer, &filling->told_bytes,
                                      sizeof(filling->told_bytes), err);
}

static bool await_erofs_write(void *preparation, const void *data UNUSED, size_t size UNUSED,
                              struct error *err)
{
    struct filling *filling = preparation;

    return filling->tar_bytes - filling->told_bytes < TELL_BYTES || await_tell(filling, err);
}

/* --- Commit ------------------------------------------------------------------------------------
 */

struct sync_files {
    const struct filling *filling;
    bool sparse_used;
    int errnum;
};

static void sync_files(void *arg)
{
    struct sync_files *work = arg;
    const struct filling *filling = work->filling;

    fault_point("erofs.indexed");
    if ((!work->sparse_used && unlinkat(filling->dir_fd, SPARSE, 0) < 0) ||
        fdatasync(filling->tar_fd) < 0 || fdatasync(filling->index_fd) < 0 ||
        (work->sparse_used && fdatasync(filling->sparse_fd) < 0) || fsync(filling->dir_fd) < 0)
        work->errnum = errno;
}

static bool await_erofs_commit(void *preparation, struct layer_content *ret, struct error *err)
{
    CLEANUP(layer_report_done) struct layer_report report = {0};
    struct filling *filling = preparation;
    struct sync_files work = {.filling = filling};
    int r;

    if (!await_tell(filling, err) || !await_archive_reader_finish(filling->indexer, &report, err))
        return false;
    work.sparse_used = report.sparse_bytes > 0;
    r = await_work(sync_files, &work, "syncing a layer");
    if (r < 0 || work.errnum)
        return error_set_errno(err, r < 0 ? r : work.errnum, "cannot sync");
    ret->content_bytes = report.content_bytes;
    ret->seal = xstrdup(report.seal.text);
    return true;
}

/* --- Check -------------------------------------------------------------------------------------
 */

/* First the tar, then the seal of what stands beside it. */
struct erofs_check {
    const struct digest *diff_id;
    const char *expected_seal;
    int index_fd, sparse_fd;
    struct file_hash *tar;
    int tar_errno, index_errno, sparse_errno; /* why they could not be opened */
    bool tar_is_right;
    struct seal *seal;
};

/* Read from the disk: what lies in memory would hide what the disk has become. */
static int open_uncached(int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0)
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    return fd;
}

static void *erofs_check_begin(int dir_fd, const struct digest *diff_id, const char *seal)
{
    struct erofs_check *check = xcalloc(1, sizeof(*check));

    check->diff_id = diff_id;
    check->expected_seal = seal;
    check->tar = file_hash_open(dir_fd, TAR);
    check->tar_errno = errno;
    check->index_fd = open_uncached(dir_fd, INDEX);
    check->index_errno = errno;
    check->sparse_fd = open_uncached(dir_fd, SPARSE);
    check->sparse_errno = errno;
    return check;
}

static void erofs_check_end(void *arg)
{
    struct erofs_check *check = arg;

    seal_free(check->seal);
    file_hash_free(check->tar);
    close_fd(&check->index_fd);
    close_fd(&check->sparse_fd);
    free(check);
}

static uint64_t erofs_check_bytes(uint64_t tar_bytes, uint64_t content_bytes UNUSED)
{
    return tar_bytes;
}

static ssize_t damaged(struct error *err, const char *why)
{
    error_set(err, ERROR_DATA_LOSS, "LAYER_DAMAGED", "%s", why);
    return -1;
}

/* Damaged, unless it is not the file's fault: with too few descriptors, for example. */
static ssize_t unreadable(struct error *err, const char *doing, const char *name, int errnum)
{
    errno = errnum;
    tree_failed(doing, name, err);
    return -1;
}

/* Bytes read; 0 once the tar is what its name says. */
static ssize_t check_tar(struct erofs_check *check, struct error *err)
{
    ssize_t n = check->tar ? file_hash_step(check->tar) : -1;
    struct digest actual;

    if (n > 0)
        return n;
    if (!check->tar)
        return unreadable(err, "open", TAR, check->tar_errno);
    if (n < 0)
        return unreadable(err, "read", TAR, errno);
    actual = file_hash_finish(check->tar);
    check->tar_is_right = digest_eq(&actual, check->diff_id);
    if (check->tar_is_right)
        return 0;
    return damaged(err, "its " TAR " has changed: the hash is not the diff_id");
}

static ssize_t check_seal(struct erofs_check *check, struct error *err)
{
    struct digest actual;
    ssize_t n;

    if (check->index_fd < 0)
        return unreadable(err, "open", INDEX, check->index_errno);
    if (check->sparse_fd < 0 && check->sparse_errno != ENOENT)
        return unreadable(err, "open", SPARSE, check->sparse_errno);
    if (!check->seal)
        check->seal = seal_new(check->index_fd, check->sparse_fd);
    n = seal_step(check->seal, err);
    if (n < 0 && error_is(err, "IO_ERROR"))
        return unreadable(err, "read", INDEX, EIO);
    if (n != 0 || !check->expected_seal)
        return n;
    actual = seal_finish(check->seal);
    if (str_eq(actual.text, check->expected_seal))
        return 0;
    return damaged(err, "its " INDEX " has changed since it was pulled");
}

static ssize_t erofs_check_step(void *arg, struct error *err)
{
    struct erofs_check *check = arg;
    ssize_t n = check->tar_is_right ? 0 : check_tar(check, err);

    return n != 0 ? n : check_seal(check, err);
}

/* --- Mount -------------------------------------------------------------------------------------
 */

#define MOUNT_ATTRIBUTES \
    (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)

static bool set_device(int context_fd, const char *directory, const char *name, struct error *err)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", directory, name);

    return fs_set_path(context_fd, "device", path, err);
}

/* A mount of the layer in this directory, attached nowhere: a descriptor, or -1. */
static int create_mount(const char *directory, struct error *err)
{
    CLEANUP_FREE char *index = xasprintf("%s/%s", directory, INDEX);
    CLEANUP_FREE char *sparse = xasprintf("%s/%s", directory, SPARSE);
    CLEANUP_CLOSE int context_fd = fs_open("erofs", err);

    if (context_fd < 0 || !fs_set_path(context_fd, "source", index, err) ||
        !set_device(context_fd, directory, TAR, err) ||
        (access(sparse, F_OK) == 0 && !set_device(context_fd, directory, SPARSE, err)) ||
        !fs_set(context_fd, "ro", NULL, err))
        return -1;
    return fs_create(context_fd, MOUNT_ATTRIBUTES, err);
}

struct mount_work {
    const struct layer_place *place;
    bool ok;
    struct error err;
};

/* What a daemon before this one mounted is found again here. */
static bool is_mounted(const char *mount_point)
{
    struct statfs fs;

    return statfs(mount_point, &fs) == 0 && fs.f_type == EROFS_SUPER_MAGIC_V1;
}

static void mount_layer(void *arg)
{
    struct mount_work *work = arg;
    const char *mount_point = work->place->mount_point;
    CLEANUP_CLOSE int mount_fd = -1;

    if (mkdir(mount_point, 0700) < 0 && errno != EEXIST) {
        work->ok = error_set_errno(&work->err, errno, "cannot create %s", mount_point);
        return;
    }
    work->ok = is_mounted(mount_point);
    if (work->ok)
        return;
    fault_point("erofs.mount");
    mount_fd = create_mount(work->place->directory, &work->err);
    work->ok = mount_fd >= 0 && fs_attach(mount_fd, mount_point, &work->err);
    fault_point("erofs.mounted");
    if (!work->ok) {
        rmdir(mount_point);
        error_prefix(&work->err, "its files in %s", work->place->directory);
        error_hint(&work->err, "'davit system verify' finds out whether they are damaged; the "
                               "kernel's log (dmesg) may say more");
    }
}

static bool await_erofs_mount(const struct layer_place *place, char **ret_path, struct error *err)
{
    struct mount_work work = {.place = place};
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();

    await_work(mount_layer, &work, "mounting a layer");
    if (!work.ok)
        return error_move(err, &work.err);
    *ret_path = xstrdup(place->mount_point);
    return true;
}

/* The containers that use it hold on to the file system itself. */
static void unmount_layer(void *arg)
{
    const struct layer_place *place = arg;

    umount2(place->mount_point, MNT_DETACH | UMOUNT_NOFOLLOW);
    fault_point("erofs.unmounted");
    rmdir(place->mount_point);
}

static void erofs_unmount_await(const struct layer_place *place)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();

    await_work(unmount_layer, (void *)place, "unmounting a layer");
}

/* --- Probe -------------------------------------------------------------------------------------
 */

#define PROBE_TEXT "as it was written"
#define CONTENT_BLOCK 512 /* what an index counts the archive in */
#define PROBE_BLOCK 1     /* where the text begins */

static bool write_all(void *arg, const void *data, size_t size, struct error *err)
{
    const int *fd = arg;

    return write(*fd, data, size) == (ssize_t)size ||
           error_set_errno(err, errno, "cannot write a file");
}

/* A layer with one file. */
static bool make_probe(int dir_fd, struct error *err)
{
    static const char tar[2 * CONTENT_BLOCK] = {0};
    const uint64_t source_bytes[EROFS_SOURCES] = {sizeof(tar), 0};
    CLEANUP(erofs_tree_cleanup) struct erofs_tree *tree = erofs_tree_new();
    struct erofs_inode *file = erofs_inode_new(tree, S_IFREG | 0600);
    CLEANUP_CLOSE int tar_fd = create(dir_fd, TAR);
    CLEANUP_CLOSE int index_fd = create(dir_fd, INDEX);
    const struct erofs_sink sink = {.write = write_all, .arg = &index_fd};
    uint64_t index_bytes;

    if (tar_fd < 0 || index_fd < 0)
        return error_set_errno(err, errno, "cannot create a file");
    file->size = strlen(PROBE_TEXT);
    file->content.block = PROBE_BLOCK;
    file->content.source = 1;
    erofs_tree_put(tree, erofs_tree_root(tree), "probe", strlen("probe"), file);
    if (write(tar_fd, tar, sizeof(tar)) != sizeof(tar) ||
        pwrite(tar_fd, PROBE_TEXT, strlen(PROBE_TEXT), (off_t)PROBE_BLOCK * CONTENT_BLOCK) < 0)
        return error_set_errno(err, errno, "cannot write a file");
    return erofs_write(tree, source_bytes, &sink, &index_bytes, err);
}

/* Mounts a layer of one file and reads it: the kernel may lack what that takes, and so may the
 * file system of the data root. */
static bool erofs_probe(int dir_fd, struct error *err)
{
    CLEANUP_FREE char *directory = xasprintf("/proc/self/fd/%d", dir_fd);
    CLEANUP_CLOSE int mount_fd = make_probe(dir_fd, err) ? create_mount(directory, err) : -1;
    CLEANUP_CLOSE int fd = -1;
    char text[sizeof(PROBE_TEXT)] = "";

    if (mount_fd < 0)
        return false;
    fd = openat(mount_fd, "probe", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
        return error_set_errno(err, errno, "cannot read a file of a mounted layer");
    return str_eq(text, PROBE_TEXT) ||
           error_set(err, ERROR_INTERNAL, NULL, "a file of a mounted layer has wrong content");
}

const struct layer_driver erofs_driver = {
    .name = "erofs",
    .summary = "layers are mounted from their tar files",
    .needs = "it takes Linux 6.12 or newer and a data root that does not lie on an overlay",
    .tar_name = TAR,
    .replaces_mounted = true,
    .probe = erofs_probe,
    .await_prepare = await_erofs_prepare,
    .write = write_tar,
    .await_write = await_erofs_write,
    .await_commit = await_erofs_commit,
    .end_await = erofs_end_await,
    .check_begin = erofs_check_begin,
    .check_step = erofs_check_step,
    .check_end = erofs_check_end,
    .check_bytes = erofs_check_bytes,
    .await_mount = await_erofs_mount,
    .unmount_await = erofs_unmount_await,
};
