#include "daemon/container/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "daemon/container/overlay.h"

void container_paths_init(struct container_paths *paths, const char *data_root,
                          const char *exec_root, const char *id)
{
    paths->data_dir = xasprintf("%s/containers/%s", data_root, id);
    paths->bundle_dir = xasprintf("%s/containers/%s", exec_root, id);
    paths->rootfs = xasprintf("%s/rootfs", paths->bundle_dir);
}

void container_paths_done(struct container_paths *paths)
{
    free(paths->data_dir);
    free(paths->bundle_dir);
    free(paths->rootfs);
    *paths = (struct container_paths){0};
}

static bool make_dir(const char *parent, const char *name, mode_t mode, struct error *err)
{
    CLEANUP_FREE char *path = xasprintf("%s%s%s", parent, *name ? "/" : "", name);

    if (mkdir(path, mode) < 0 || chmod(path, mode) < 0)
        return error_set_errno(err, errno, "cannot create %s", path);
    return true;
}

bool container_paths_create(const struct container_paths *paths, struct error *err)
{
    /* "upper" is what the container sees as "/". */
    return make_dir(paths->data_dir, "", 0700, err) &&
           make_dir(paths->data_dir, "upper", 0755, err) &&
           make_dir(paths->data_dir, "work", 0700, err) &&
           make_dir(paths->data_dir, "empty", 0755, err) &&
           make_dir(paths->bundle_dir, "", 0700, err) && make_dir(paths->rootfs, "", 0755, err);
}

bool write_file(const char *path, const char *text, mode_t mode, struct error *err)
{
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
    size_t length = strlen(text);

    while (fd >= 0 && length > 0) {
        ssize_t n = write(fd, text, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        text += n;
        length -= (size_t)n;
    }
    if (fd < 0 || length > 0 || fchmod(fd, mode) < 0)
        return error_set_errno(err, errno, "cannot write %s", path);
    return true;
}

/* --- The overlay ------------------------------------------------------------------------------ */

bool rootfs_mount(const struct container_paths *paths, char *const *lower_dirs, size_t count,
                  bool disposable, struct error *err)
{
    CLEANUP_FREE char *upper = xasprintf("%s/upper", paths->data_dir);
    CLEANUP_FREE char *work = xasprintf("%s/work", paths->data_dir);
    CLEANUP_FREE char *empty = xasprintf("%s/empty", paths->data_dir);
    const struct overlay overlay = {
        .lower_dirs = count ? lower_dirs : &empty, /* overlayfs needs one */
        .lower_count = count ? count : 1,
        .upper_dir = upper,
        .work_dir = work,
        .mount_point = paths->rootfs,
        .disposable = disposable,
    };

    return overlay_mount(&overlay, err);
}

bool rootfs_unmount(const struct container_paths *paths, struct error *err)
{
    if (umount2(paths->rootfs, MNT_DETACH | UMOUNT_NOFOLLOW) == 0 || errno == EINVAL ||
        errno == ENOENT)
        return true;
    return error_set_errno(err, errno, "cannot unmount %s", paths->rootfs);
}

/* --- Inside the root -------------------------------------------------------------------------- */

/* The one way to a path of the image (SECURITY.md, rule 1). */
static int open_in_root(int root_fd, const char *path, uint64_t flags)
{
    struct open_how how = {
        .flags = flags | O_CLOEXEC,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    long fd;

    do /* EAGAIN: something was renamed during the walk */
        fd = syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    return (int)fd;
}

/* Opening a device node or a FIFO has effects, so first look without opening. */
static bool open_regular(int root_fd, const char *path, int *ret_fd, off_t *ret_size,
                         struct error *err)
{
    CLEANUP_CLOSE int path_fd = open_in_root(root_fd, path, O_PATH);
    char link[40];
    struct stat st;

    *ret_fd = -1;
    if (path_fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return true;
    if (path_fd < 0 || fstat(path_fd, &st) < 0)
        return error_set_errno(err, errno, "cannot open the image's %s", path);
    if (!S_ISREG(st.st_mode)) {
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_IMAGE",
                         "the image's %s is not a regular file", path);
    }
    snprintf(link, sizeof(link), "/proc/self/fd/%d", path_fd);
    *ret_fd = open(link, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    *ret_size = st.st_size;
    return *ret_fd >= 0 || error_set_errno(err, errno, "cannot open the image's %s", path);
}

bool rootfs_read_file(int root_fd, const char *path, size_t limit_bytes, char **ret,
                      size_t *ret_size, struct error *err)
{
    CLEANUP_CLOSE int fd = -1;
    CLEANUP_FREE char *data = NULL;
    off_t size = 0;
    size_t filled = 0;

    *ret = NULL;
    *ret_size = 0;
    if (!open_regular(root_fd, path, &fd, &size, err))
        return false;
    if (fd < 0)
        return true;
    if ((uint64_t)size > limit_bytes) {
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_IMAGE",
                         "the image's %s is larger than %zu bytes", path, limit_bytes);
    }
    data = xmalloc((size_t)size + 1);
    while (filled < (size_t)size) {
        ssize_t n = read(fd, data + filled, (size_t)size - filled);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(err, errno, "cannot read the image's %s", path);
        if (n == 0)
            break;
        filled += (size_t)n;
    }
    data[filled] = '\0';
    *ret = TAKE(data);
    *ret_size = filled;
    return true;
}

/* Makes one directory in a parent that exists. */
static bool make_dir_in_root(int root_fd, const char *path, struct error *err)
{
    CLEANUP_FREE char *copy = xstrdup(path);
    CLEANUP_CLOSE int parent_fd = -1;
    CLEANUP_CLOSE int fd = -1;
    char *name = strrchr(copy, '/');

    *name++ = '\0';
    parent_fd = open_in_root(root_fd, *copy ? copy : "/", O_PATH | O_DIRECTORY);
    if (parent_fd < 0 || mkdirat(parent_fd, name, 0755) < 0)
        return error_set_errno(err, errno, "cannot create %s in the container", path);
    fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fchmod(fd, 0755) < 0)
        return error_set_errno(err, errno, "cannot create %s in the container", path);
    return true;
}

bool rootfs_make_dirs(int root_fd, const char *path, struct error *err)
{
    CLEANUP_FREE char *prefix = xstrdup(path);

    for (char *end = prefix; *end;) {
        CLEANUP_CLOSE int fd = -1;
        char after;
        end += strspn(end, "/");
        end += strcspn(end, "/");
        after = *end;
        *end = '\0';
        fd = open_in_root(root_fd, prefix, O_PATH | O_DIRECTORY);
        if (fd < 0 && errno != ENOENT)
            return error_set_errno(err, errno, "cannot create %s in the container", path);
        if (fd < 0 && !make_dir_in_root(root_fd, prefix, err))
            return false;
        *end = after;
    }
    return true;
}
