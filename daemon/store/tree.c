#include "daemon/store/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* A directory on the way down. Only the deepest is open: ".." leads back. */
struct level {
    char *name; /* in the directory above */
    dev_t above_device;
    ino_t above_inode;
    struct level *above;
};

struct walk {
    const struct tree_remove_options *options;
    int fd; /* of the deepest directory */
    struct level *deepest;
};

#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

static int enter(struct walk *walk, int dir_fd, const char *name)
{
    struct level *level;
    struct stat st;
    int fd = openat(dir_fd, name, OPEN_DIR);

    if (fd < 0 || fstat(dir_fd, &st) < 0) {
        int errnum = errno;
        close_fd(&fd);
        return -errnum;
    }
    level = xcalloc(1, sizeof(*level));
    level->name = xstrdup(name);
    level->above_device = st.st_dev;
    level->above_inode = st.st_ino;
    level->above = walk->deepest;
    walk->deepest = level;
    close_fd(&walk->fd);
    walk->fd = fd;
    return 0;
}

static void forget_deepest(struct walk *walk)
{
    struct level *level = walk->deepest;

    walk->deepest = level->above;
    free(level->name);
    free(level);
}

/* unlinkat(2), and says what that was. -EISDIR or -EPERM: a directory. */
static int unlink_one(const struct walk *walk, int dir_fd, const char *name, int flags)
{
    const struct tree_remove_options *options = walk->options;
    struct stat st;

    if (!options || !options->removed)
        return unlinkat(dir_fd, name, flags) < 0 ? -errno : 0;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || unlinkat(dir_fd, name, flags) < 0)
        return -errno;
    options->removed(options->arg, &st);
    return 0;
}

/* Goes up from an empty directory and removes it. */
static int leave(struct walk *walk, int top_fd)
{
    const struct level *level = walk->deepest;
    CLEANUP_CLOSE int above_fd = -1;
    struct stat st;
    int r;

    above_fd = level->above ? openat(walk->fd, "..", OPEN_DIR) : fcntl(top_fd, F_DUPFD_CLOEXEC, 3);
    if (above_fd < 0 || fstat(above_fd, &st) < 0)
        return -errno;
    if (st.st_dev != level->above_device || st.st_ino != level->above_inode)
        return -ESTALE;
    if ((r = unlink_one(walk, above_fd, level->name, AT_REMOVEDIR)) < 0)
        return r;
    close_fd(&walk->fd);
    walk->fd = TAKE_FD(above_fd);
    forget_deepest(walk);
    return 0;
}

/* 0: gone; 1: a directory with something in it; or a negative errno. */
static int remove_one(const struct walk *walk, int dir_fd, const char *name, bool is_dir)
{
    int r = is_dir ? -EISDIR : unlink_one(walk, dir_fd, name, 0), r_dir;

    if (r != -EISDIR && r != -EPERM) /* unlink(2) of a directory gives either */
        return r;
    r_dir = unlink_one(walk, dir_fd, name, AT_REMOVEDIR);
    if (r_dir == -ENOTEMPTY || r_dir == -EEXIST)
        return 1;
    return r_dir == -ENOTDIR ? r : r_dir;
}

static int closedir_cleanup(DIR **dir)
{
    return closedir(*dir);
}

/* Removes what the deepest directory holds, until it is empty (0) or the walk has gone deeper (1).
 */
static int clear_deepest(struct walk *walk)
{
    int list_fd = openat(walk->fd, ".", OPEN_DIR);
    DIR *list = list_fd >= 0 ? fdopendir(list_fd) : NULL;
    const struct dirent *item;
    int r = 0;

    if (!list) {
        r = -errno;
        close_fd(&list_fd);
        return r;
    }
    CLEANUP(closedir_cleanup) DIR *owned UNUSED = list;
    while ((item = readdir(list))) {
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
            continue;
        if (walk->options && walk->options->stop && atomic_load(walk->options->stop))
            return -ECANCELED;
        r = remove_one(walk, walk->fd, item->d_name, item->d_type == DT_DIR);
        if (r == 1)
            r = enter(walk, walk->fd, item->d_name);
        else if (r == 0)
            continue;
        return r < 0 ? r : 1;
    }
    return 0;
}

int tree_remove(int dir_fd, const char *name, const struct tree_remove_options *options)
{
    struct walk walk = {.options = options, .fd = -1};
    int r = remove_one(&walk, dir_fd, name, false);

    if (r == 1)
        r = enter(&walk, dir_fd, name);
    while (r >= 0 && walk.deepest) {
        r = clear_deepest(&walk);
        if (r == 0)
            r = leave(&walk, dir_fd);
    }
    while (walk.deepest)
        forget_deepest(&walk);
    close_fd(&walk.fd);
    return r == -ENOENT ? 0 : r;
}
