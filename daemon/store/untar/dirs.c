#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/store/untar/internal.h"

const struct timespec no_times[2];

/* glibc has no openat2() yet. */
static int open_in_root(int root_fd, const char *path)
{
    struct open_how how = {
        .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    long fd;

    do
        fd = syscall(SYS_openat2, root_fd, *path ? path : ".", &how, sizeof(how));
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    return (int)fd;
}

static void dir_leave(struct dir *dir)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, dir->mtime};

    if (!dir->path)
        return;
    if (dir->touched)
        futimens(dir->fd, times);
    close(dir->fd);
    free(dir->path);
    *dir = (struct dir){0};
}

void dirs_close(struct untar *untar)
{
    for (size_t i = 0; i < DIRS_OPEN; i++)
        dir_leave(&untar->dirs[i]);
}

static struct dir *find_path(struct untar *untar, const char *path, size_t length)
{
    for (size_t i = 0; i < DIRS_OPEN; i++) {
        struct dir *dir = &untar->dirs[i];
        if (dir->path && dir->path_length == length && memcmp(dir->path, path, length) == 0)
            return dir;
    }
    return NULL;
}

/* A directory has at most one place, or one place would put back the time that another changed:
 * links make several paths lead to it. */
static struct dir *find_inode(struct untar *untar, const struct stat *st)
{
    for (size_t i = 0; i < DIRS_OPEN; i++) {
        struct dir *dir = &untar->dirs[i];
        if (dir->path && dir->inode == st->st_ino && dir->device == st->st_dev)
            return dir;
    }
    return NULL;
}

static struct dir *least_used(struct untar *untar)
{
    struct dir *least = &untar->dirs[0];

    for (size_t i = 0; i < DIRS_OPEN; i++) {
        struct dir *dir = &untar->dirs[i];
        if (!dir->path)
            return dir;
        if (dir->used < least->used)
            least = dir;
    }
    return least;
}

struct dir *dirs_add(struct untar *untar, const char *path, size_t length, int fd,
                     struct error *err)
{
    CLEANUP_CLOSE int owned_fd = fd;
    struct stat st;
    struct dir *dir;

    if (fstat(owned_fd, &st) < 0) {
        entry_failed(&untar->entry->path, errno, "look at its directory", err);
        return NULL;
    }
    dir = find_inode(untar, &st);
    if (dir) {
        free(dir->path);
    } else {
        dir = least_used(untar);
        dir_leave(dir);
        *dir = (struct dir){
            .fd = TAKE_FD(owned_fd),
            .device = st.st_dev,
            .inode = st.st_ino,
            .mtime = st.st_mtim,
        };
    }
    dir->setgid = st.st_mode & S_ISGID;
    dir->path = xstrndup(path, length);
    dir->path_length = length;
    dir->used = ++untar->clock;
    return dir;
}

static struct dir *open_existing(struct untar *untar, const char *path, size_t length,
                                 struct error *err)
{
    struct dir *dir = find_path(untar, path, length);
    char text[LAYER_PATH_MAX];
    int fd;

    if (dir) {
        dir->used = ++untar->clock;
        return dir;
    }
    memcpy(text, path, length);
    text[length] = '\0';
    fd = open_in_root(untar->root_fd, text);
    if (fd < 0) {
        untar->open_errno = errno;
        entry_failed(&untar->entry->path, errno, "open its directory", err);
        return NULL;
    }
    return dirs_add(untar, path, length, fd, err);
}

bool stat_is_whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == 0;
}

/* A whiteout where a directory is to be: it hides what lower layers have there, so the directory
 * will have to. */
static bool take_whiteout(struct dir *parent, const char *name)
{
    struct stat st;

    return fstatat(parent->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && stat_is_whiteout(&st) &&
           unlinkat(parent->fd, name, 0) == 0;
}

static bool make_one(struct untar *untar, struct dir *parent, const char *name, bool *ret_opaque,
                     struct error *err)
{
    bool made = mkdirat(parent->fd, name, 0755) == 0;

    *ret_opaque = !made && errno == EEXIST && take_whiteout(parent, name);
    if (*ret_opaque)
        made = mkdirat(parent->fd, name, 0755) == 0;
    if (!made) {
        /* Whatever else is there stays, also a link that leads nowhere; opening it fails next. */
        return errno == EEXIST ||
               entry_failed(&untar->entry->path, errno, "create its directory", err);
    }
    parent->touched = true;
    if ((parent->setgid && (fchownat(parent->fd, name, 0, 0, AT_SYMLINK_NOFOLLOW) < 0 ||
                            fchmodat(parent->fd, name, 0755, 0) < 0)) ||
        utimensat(parent->fd, name, no_times, AT_SYMLINK_NOFOLLOW) < 0)
        return entry_failed(&untar->entry->path, errno, "create its directory", err);
    return true;
}

struct dir *dirs_open(struct untar *untar, const char *path, size_t length, struct error *err)
{
    CLEANUP_ERROR struct error first = {0};
    struct dir *dir;
    char name[LAYER_PATH_MAX];

    untar->open_errno = 0;
    dir = open_existing(untar, path, length, &first);
    if (dir)
        return dir;
    if (untar->open_errno != ENOENT && untar->open_errno != ENOTDIR) {
        error_move(err, &first);
        return NULL;
    }
    dir = open_existing(untar, path, 0, err);
    for (size_t end = 0; dir && end < length;) {
        size_t start = end ? end + 1 : 0;
        const char *slash = memchr(path + start, '/', length - start);
        bool opaque;
        end = slash ? (size_t)(slash - path) : length;
        memcpy(name, path + start, end - start);
        name[end - start] = '\0';
        if (!make_one(untar, dir, name, &opaque, err) ||
            !(dir = open_existing(untar, path, end, err)) ||
            (opaque && !opaque_add(untar, dir->fd, err)))
            return NULL;
    }
    return dir;
}
