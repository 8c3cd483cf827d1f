#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "daemon/store/tree.h"
#include "daemon/store/untar/internal.h"

/* --- Replacing what an earlier entry left ------------------------------------------------------
 */

static void account_removed(void *arg, const struct stat *st)
{
    struct untar *untar = arg;

    if (S_ISDIR(st->st_mode))
        opaque_forget(untar, st);
    else if ((S_ISREG(st->st_mode) || S_ISLNK(st->st_mode)) && st->st_nlink == 1)
        untar->report->content_bytes -= (uint64_t)st->st_size;
}

enum room { ROOM_FAILED, ROOM_FREE, ROOM_WAS_WHITEOUT, ROOM_KEPT };

/* Makes room for the entry: the last one of a name wins, but a directory stays for a directory. */
static enum room make_room(struct untar *untar, struct dir *dir, bool for_dir, struct error *err)
{
    const struct tree_remove_options options = {.removed = account_removed, .arg = untar};
    const struct path *path = &untar->entry->path;
    struct stat st;
    int r;

    if (fstatat(dir->fd, path->base, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno == ENOENT)
            return ROOM_FREE;
        entry_failed(path, errno, "look at what it replaces", err);
        return ROOM_FAILED;
    }
    if (for_dir && S_ISDIR(st.st_mode))
        return ROOM_KEPT;
    dir->touched = true;
    if (S_ISDIR(st.st_mode) || S_ISLNK(st.st_mode)) {
        /* Paths of open directories may lead elsewhere afterwards. */
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, dir->mtime};
        CLEANUP_CLOSE int dir_fd = fcntl(dir->fd, F_DUPFD_CLOEXEC, 3);
        if (dir_fd < 0) {
            entry_failed(path, errno, "replace what is there", err);
            return ROOM_FAILED;
        }
        dirs_close(untar);
        r = tree_remove(dir_fd, path->base, &options);
        futimens(dir_fd, times);
    } else {
        r = tree_remove(dir->fd, path->base, &options);
    }
    if (r < 0) {
        entry_failed(path, -r, "replace what is there", err);
        return ROOM_FAILED;
    }
    return stat_is_whiteout(&st) ? ROOM_WAS_WHITEOUT : ROOM_FREE;
}

/* The directory the entry goes to. */
static struct dir *open_parent(struct untar *untar, struct error *err)
{
    return dirs_open(untar, untar->entry->path.text, untar->entry->path.parent_length, err);
}

/* Calls create() in the entry's directory, a second time if something had to make room. */
static struct dir *create_node(struct untar *untar, int (*create)(int dir_fd, void *arg), void *arg,
                               struct error *err)
{
    struct dir *dir = open_parent(untar, err);

    if (!dir)
        return NULL;
    if (create(dir->fd, arg) < 0) {
        if (errno != EEXIST) {
            entry_failed(&untar->entry->path, errno, "create it", err);
            return NULL;
        }
        if (!make_room(untar, dir, false, err) || !(dir = open_parent(untar, err)))
            return NULL;
        if (create(dir->fd, arg) < 0) {
            entry_failed(&untar->entry->path, errno, "create it", err);
            return NULL;
        }
    }
    dir->touched = true;
    return dir;
}

/* --- Extended attributes -----------------------------------------------------------------------
 */

/* ext4 has 4 KiB for all of an inode, and calls more than that a lack of space. */
static bool space_is_left(int fd)
{
    struct statvfs fs;

    return fstatvfs(fd, &fs) == 0 && fs.f_bavail > 0;
}

static bool set_xattrs(struct untar *untar, int fd, struct error *err)
{
    const struct path *path = &untar->entry->path;
    struct layer_xattr xattr;

    while (layer_reader_next_xattr(untar->reader, &xattr)) {
        if (fsetxattr(fd, xattr.name, xattr.value, xattr.size, 0) == 0)
            continue;
        if (errno == ENOSPC && space_is_left(fd))
            return entry_invalid(path, "has more xattrs than the file system takes", err);
        /* Some filesystems have no user.* xattrs; Docker goes on without them as well. */
        if (errno != EOPNOTSUPP || !str_starts(xattr.name, "user."))
            return entry_failed(path, errno, "set an xattr", err);
    }
    return true;
}

/* --- Regular files -----------------------------------------------------------------------------
 */

struct file_creation {
    const char *base;
    mode_t mode;
    int fd;
};

static int create_file(int dir_fd, void *arg)
{
    struct file_creation *creation = arg;

    creation->fd = openat(dir_fd, creation->base,
                          O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, creation->mode);
    return creation->fd;
}

static bool write_at(const struct untar *untar, int fd, const char *data, size_t size,
                     int64_t offset, struct error *err)
{
    while (size > 0) {
        ssize_t n = pwrite(fd, data, size, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return entry_failed(&untar->entry->path, errno, "write it", err);
        data += n;
        size -= (size_t)n;
        offset += n;
    }
    return true;
}

/* The pieces lie in the reader's buffer; holes are between them. */
static bool write_content(struct untar *untar, int fd, struct error *err)
{
    int64_t written = 0, size = untar->entry->size, offset;
    const void *data;
    size_t data_size;
    int r;

    while ((r = layer_reader_next_data(untar->reader, &data, &data_size, &offset, err)) > 0) {
        if (!write_at(untar, fd, data, data_size, offset, err))
            return false;
        written = MAX(written, offset + (int64_t)data_size);
    }
    if (r < 0)
        return false;
    if (written < size && ftruncate(fd, size) < 0)
        return entry_failed(&untar->entry->path, errno, "write it", err);
    return true;
}

static bool finish_fd(struct untar *untar, int fd, bool chown_always, struct error *err)
{
    const struct layer_entry *entry = untar->entry;
    const struct path *path = &entry->path;
    bool chowned = entry->uid || entry->gid || chown_always;

    if (chowned && fchown(fd, entry->uid, entry->gid) < 0)
        return entry_failed(path, errno, "set its owner", err);
    /* Special bits last: chown takes them away. */
    if ((chown_always || (entry->mode & 07000)) && fchmod(fd, entry->mode) < 0)
        return entry_failed(path, errno, "set its mode", err);
    return set_xattrs(untar, fd, err);
}

static bool add_content(struct untar *untar, int64_t size, struct error *err)
{
    uint64_t *total = &untar->report->content_bytes;

    if (size < 0)
        return entry_invalid(&untar->entry->path, "has a negative size", err);
    if ((uint64_t)size > LAYER_CONTENT_MAX - *total)
        return entry_invalid(&untar->entry->path, "makes the layer larger than 16 TiB", err);
    *total += (uint64_t)size;
    return true;
}

static bool add_file(struct untar *untar, struct error *err)
{
    const struct layer_entry *entry = untar->entry;
    struct file_creation creation = {.base = entry->path.base, .mode = entry->mode & 0777};
    const struct dir *dir = create_node(untar, create_file, &creation, err);
    CLEANUP_CLOSE int fd = dir ? creation.fd : -1;

    if (!dir || !add_content(untar, entry->size, err) || !write_content(untar, fd, err) ||
        !finish_fd(untar, fd, dir->setgid, err))
        return false;
    return futimens(fd, entry->times) == 0 ||
           entry_failed(&untar->entry->path, errno, "set its time", err);
}

/* --- Directories -------------------------------------------------------------------------------
 */

/* Also for the root, which exists. Its time is set when it is left. */
static bool finish_dir(struct untar *untar, int fd, bool all, struct error *err)
{
    CLEANUP_CLOSE int owned_fd = fd;
    struct dir *dir;

    if (!finish_fd(untar, owned_fd, all, err))
        return false;
    dir =
        dirs_add(untar, untar->entry->path.text, untar->entry->path.length, TAKE_FD(owned_fd), err);
    if (!dir)
        return false;
    dir->mtime = untar->entry->times[1];
    dir->touched = true;
    return true;
}

/* One that takes the place of a whiteout still hides what is below. */
static bool add_dir(struct untar *untar, struct error *err)
{
    const struct layer_entry *entry = untar->entry;
    const char *base = entry->path.base;
    struct dir *dir = open_parent(untar, err);
    enum room room = entry->path.length ? ROOM_FREE : ROOM_KEPT;
    CLEANUP_CLOSE int fd = -1;

    if (!dir)
        return false;
    if (room != ROOM_KEPT && mkdirat(dir->fd, base, entry->mode & 01777) < 0) {
        if (errno != EEXIST)
            return entry_failed(&entry->path, errno, "create it", err);
        room = make_room(untar, dir, true, err);
        if (room == ROOM_FAILED || !(dir = open_parent(untar, err)))
            return false;
        if (room != ROOM_KEPT && mkdirat(dir->fd, base, entry->mode & 01777) < 0)
            return entry_failed(&entry->path, errno, "create it", err);
    }
    dir->touched = true;
    fd = openat(dir->fd, *base ? base : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return entry_failed(&entry->path, errno, "open it", err);
    if (room == ROOM_WAS_WHITEOUT && !opaque_add(untar, fd, err))
        return false;
    return finish_dir(untar, TAKE_FD(fd), room == ROOM_KEPT || dir->setgid, err);
}

/* --- Links, devices, FIFOs ---------------------------------------------------------------------
 */

struct node_creation {
    const char *base;
    const char *target; /* of a symlink */
    mode_t mode;        /* with the type */
    dev_t device;
};

static int create_symlink(int dir_fd, void *arg)
{
    const struct node_creation *creation = arg;

    return symlinkat(creation->target, dir_fd, creation->base);
}

static int create_special(int dir_fd, void *arg)
{
    const struct node_creation *creation = arg;

    return mknodat(dir_fd, creation->base, creation->mode, creation->device);
}

/* Owner, special bits and time of what is not opened. */
static bool finish_node(const struct untar *untar, const struct dir *dir, bool is_symlink,
                        struct error *err)
{
    const struct layer_entry *entry = untar->entry;
    const struct path *path = &entry->path;

    if ((entry->uid || entry->gid || dir->setgid) &&
        fchownat(dir->fd, path->base, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return entry_failed(path, errno, "set its owner", err);
    /* We have just made it, and nobody else is here: it is no link. */
    if (!is_symlink && (entry->mode & 07000) && fchmodat(dir->fd, path->base, entry->mode, 0) < 0)
        return entry_failed(path, errno, "set its mode", err);
    if (utimensat(dir->fd, path->base, entry->times, AT_SYMLINK_NOFOLLOW) < 0)
        return entry_failed(path, errno, "set its time", err);
    return true;
}

static bool add_symlink(struct untar *untar, struct error *err)
{
    const struct layer_entry *entry = untar->entry;
    struct node_creation creation = {.base = entry->path.base, .target = entry->target};
    const struct dir *dir = create_node(untar, create_symlink, &creation, err);

    return dir && add_content(untar, (int64_t)strlen(creation.target), err) &&
           finish_node(untar, dir, true, err);
}

static bool add_special(struct untar *untar, struct error *err)
{
    const struct layer_entry *entry = untar->entry;
    struct node_creation creation = {
        .base = entry->path.base,
        .mode = entry->mode & (S_IFMT | 0777),
        .device = entry->device,
    };
    const struct dir *dir = create_node(untar, create_special, &creation, err);

    return dir && finish_node(untar, dir, false, err);
}

static bool same_inode(int a_fd, const char *a_name, int b_fd, const char *b_name)
{
    struct stat a, b;

    return fstatat(a_fd, a_name, &a, AT_SYMLINK_NOFOLLOW) == 0 &&
           fstatat(b_fd, b_name, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_ino == b.st_ino &&
           a.st_dev == b.st_dev;
}

enum link_result { LINK_MADE, LINK_FAILED, LINK_PLACE_TAKEN };

/* A link at the end of the target's name is not followed but linked itself. */
static enum link_result try_link(struct untar *untar, struct error *err)
{
    const struct path *link = &untar->entry->link;
    const char *base = untar->entry->path.base;
    CLEANUP_CLOSE int target_fd = -1;
    struct dir *dir = dirs_open(untar, link->text, link->parent_length, err);

    if (!dir)
        return LINK_FAILED;
    target_fd = fcntl(dir->fd, F_DUPFD_CLOEXEC, 3); /* the next call may close it */
    if (target_fd < 0 || !(dir = open_parent(untar, err)))
        return LINK_FAILED;
    if (linkat(target_fd, link->base, dir->fd, base, 0) == 0) {
        dir->touched = true;
        return LINK_MADE;
    }
    if (errno == EEXIST) {
        /* GNU tar stores a file that is named twice as a link to itself. */
        return same_inode(target_fd, link->base, dir->fd, base) ? LINK_MADE : LINK_PLACE_TAKEN;
    }
    entry_failed(&untar->entry->path, errno, "link it", err);
    error_prefix(err, "hard link to \"%s\"", path_quote(link->text).text);
    return LINK_FAILED;
}

static bool add_hardlink(struct untar *untar, struct error *err)
{
    enum link_result result = try_link(untar, err);
    struct dir *dir;

    if (result == LINK_PLACE_TAKEN) {
        if (!(dir = open_parent(untar, err)) || !make_room(untar, dir, false, err))
            return false;
        result = try_link(untar, err);
    }
    return result == LINK_MADE || (result == LINK_PLACE_TAKEN &&
                                   entry_failed(&untar->entry->path, EEXIST, "link it", err));
}

/* --- Whiteouts ---------------------------------------------------------------------------------
 */

/* A whiteout hides what lower layers have there, in overlayfs form a character device 0:0. It says
 * nothing about its own layer: what that has in the place stays, and a directory is opaque. */
static bool add_whiteout(struct untar *untar, struct error *err)
{
    const struct path *path = &untar->entry->path;
    struct dir *dir = open_parent(untar, err);
    CLEANUP_CLOSE int fd = -1;

    if (!dir)
        return false;
    if (mknodat(dir->fd, path->base, S_IFCHR, 0) == 0) {
        dir->touched = true;
        return utimensat(dir->fd, path->base, no_times, AT_SYMLINK_NOFOLLOW) == 0 ||
               entry_failed(path, errno, "set its time", err);
    }
    if (errno != EEXIST)
        return entry_failed(path, errno, "create its whiteout", err);
    fd = openat(dir->fd, path->base, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOTDIR || entry_failed(path, errno, "create its whiteout", err);
    return opaque_add(untar, fd, err);
}

static bool add_opaque_mark(struct untar *untar, struct error *err)
{
    const struct dir *dir = open_parent(untar, err);

    return dir && opaque_add(untar, dir->fd, err);
}

/* --- Any entry ---------------------------------------------------------------------------------
 */

bool untar_entry(struct untar *untar, struct error *err)
{
    switch (untar->entry->kind) {
    case ENTRY_FILE:
        return add_file(untar, err);
    case ENTRY_DIR:
        return add_dir(untar, err);
    case ENTRY_SYMLINK:
        return add_symlink(untar, err);
    case ENTRY_SPECIAL:
        return add_special(untar, err);
    case ENTRY_HARDLINK:
        return add_hardlink(untar, err);
    case ENTRY_WHITEOUT:
        return add_whiteout(untar, err);
    case ENTRY_OPAQUE:
        return add_opaque_mark(untar, err);
    }
    return false;
}
