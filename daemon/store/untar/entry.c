#include <errno.h>
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "daemon/store/tree.h"
#include "daemon/store/untar/internal.h"

/* The marks of layers (OCI image-spec, layer.md, "Whiteouts"). */
#define WHITEOUT ".wh."
#define WHITEOUT_META ".wh..wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"

/* What applies to any kind of entry. */
struct meta {
    mode_t mode; /* permissions only */
    uid_t uid;
    gid_t gid;
    struct timespec times[2]; /* as utimensat(2) takes them */
};

/* libarchive reads the "-1.5" of a PAX header as the second -1 and, from there, half a second on
 * towards the present; meant is the other direction. Other formats have no fractions. */
static struct timespec make_time(time_t seconds, long nanoseconds)
{
    if (seconds < 0 && nanoseconds > 0)
        return (struct timespec){seconds - 1, 1000000000 - nanoseconds};
    return (struct timespec){seconds, nanoseconds};
}

static bool read_meta(const struct untar *untar, struct archive_entry *entry, struct meta *ret,
                      struct error *err)
{
    int64_t uid = archive_entry_uid(entry), gid = archive_entry_gid(entry);

    if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
        return entry_invalid(&untar->path, "has an owner out of range", err);
    ret->mode = archive_entry_perm(entry) & 07777;
    ret->uid = (uid_t)uid;
    ret->gid = (gid_t)gid;
    ret->times[1] = make_time(archive_entry_mtime(entry), archive_entry_mtime_nsec(entry));
    ret->times[0] = ret->times[1];
    if (archive_entry_atime_is_set(entry))
        ret->times[0] = make_time(archive_entry_atime(entry), archive_entry_atime_nsec(entry));
    return true;
}

/* --- Replacing what an earlier entry left ------------------------------------------------------
 */

static void account_removed(void *arg, const struct stat *st)
{
    struct untar_result *result = arg;

    if ((S_ISREG(st->st_mode) || S_ISLNK(st->st_mode)) && st->st_nlink == 1)
        result->content_bytes -= (uint64_t)st->st_size;
}

static bool is_whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == 0;
}

static bool add_opaque(struct untar *untar, const char *path, size_t length, struct error *err)
{
    struct strbuf *opaque = &untar->result->opaque;

    if (opaque->length + length + 1 > UNTAR_OPAQUE_MAX)
        return entry_invalid(&untar->path, "is one opaque directory too many", err);
    strbuf_add(opaque, path, length);
    strbuf_add_char(opaque, '\0');
    return true;
}

/* Makes room for the entry: the last one of a name wins. A directory stays for a directory (then
 * *ret_kept); one that takes the place of a whiteout still hides what is below. */
static bool make_room(struct untar *untar, struct dir *dir, bool for_dir, bool *ret_kept,
                      struct error *err)
{
    const struct tree_remove_options options = {.removing = account_removed, .arg = untar->result};
    const struct path *path = &untar->path;
    struct stat st;
    int r;

    if (fstatat(dir->fd, path->base, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT || entry_failed(path, errno, "look at what it replaces", err);
    if (for_dir && S_ISDIR(st.st_mode)) {
        *ret_kept = true;
        return true;
    }
    if (for_dir && is_whiteout(&st) && !add_opaque(untar, path->text, path->length, err))
        return false;
    dir->touched = true;
    if (S_ISDIR(st.st_mode) || S_ISLNK(st.st_mode)) {
        /* Paths of open directories may lead elsewhere afterwards. */
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, dir->mtime};
        CLEANUP_CLOSE int dir_fd = fcntl(dir->fd, F_DUPFD_CLOEXEC, 3);
        if (dir_fd < 0)
            return entry_failed(path, errno, "replace what is there", err);
        dirs_close(untar);
        r = tree_remove(dir_fd, path->base, &options);
        futimens(dir_fd, times);
    } else {
        r = tree_remove(dir->fd, path->base, &options);
    }
    return r == 0 || entry_failed(path, -r, "replace what is there", err);
}

/* The directory the entry goes to. */
static struct dir *open_parent(struct untar *untar, struct error *err)
{
    return dirs_open(untar, untar->path.text, untar->path.parent_length, err);
}

/* Calls create() in the entry's directory, a second time if something had to make room. */
static struct dir *create_node(struct untar *untar, int (*create)(int dir_fd, void *arg), void *arg,
                               struct error *err)
{
    struct dir *dir = open_parent(untar, err);
    bool kept;

    if (!dir)
        return NULL;
    if (create(dir->fd, arg) < 0) {
        if (errno != EEXIST) {
            entry_failed(&untar->path, errno, "create it", err);
            return NULL;
        }
        if (!make_room(untar, dir, false, &kept, err) || !(dir = open_parent(untar, err)))
            return NULL;
        if (create(dir->fd, arg) < 0) {
            entry_failed(&untar->path, errno, "create it", err);
            return NULL;
        }
    }
    dir->touched = true;
    return dir;
}

/* --- Extended attributes -----------------------------------------------------------------------
 */

/* Only what belongs to users, and file capabilities: everything else would be orders to the
 * kernel or to overlayfs (SECURITY.md, "Layers"). */
static bool xattr_passes(const char *name)
{
    return str_starts(name, "user.") || str_eq(name, "security.capability");
}

static bool set_xattrs(struct untar *untar, struct archive_entry *entry, int fd, struct error *err)
{
    size_t total = 0, value_size;
    const void *value;
    const char *name;

    if (archive_entry_xattr_reset(entry) == 0)
        return true;
    while (archive_entry_xattr_next(entry, &name, &value, &value_size) == ARCHIVE_OK) {
        if (!name)
            continue;
        total += strlen(name) + value_size;
        if (total > UNTAR_XATTRS_MAX)
            return entry_invalid(&untar->path, "has more than 64 KiB of xattrs", err);
        if (!xattr_passes(name))
            continue;
        if (fsetxattr(fd, name, value, value_size, 0) == 0)
            continue;
        /* Some filesystems have no user.* xattrs; Docker goes on without them as well. */
        if (errno != EOPNOTSUPP || !str_starts(name, "user."))
            return entry_failed(&untar->path, errno, "set an xattr", err);
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
            return entry_failed(&untar->path, errno, "write it", err);
        data += n;
        size -= (size_t)n;
        offset += n;
    }
    return true;
}

static bool archive_failed(const struct untar *untar, struct error *err)
{
    const char *why = archive_error_string(untar->archive);

    if (untar->input_errno)
        return error_set_errno(err, untar->input_errno, "cannot read the archive");
    return entry_invalid(&untar->path, why ? why : "is damaged", err);
}

/* libarchive hands out its blocks where they lie in our buffer; holes are between them. */
static bool write_content(struct untar *untar, int fd, int64_t size, struct error *err)
{
    int64_t written = 0, offset;
    const void *block;
    size_t block_size;
    int r;

    while ((r = archive_read_data_block(untar->archive, &block, &block_size, &offset)) ==
           ARCHIVE_OK) {
        if (offset < 0 || offset > size || (int64_t)block_size > size - offset)
            return entry_invalid(&untar->path, "has data beyond its size", err);
        if (!write_at(untar, fd, block, block_size, offset, err))
            return false;
        written = MAX(written, offset + (int64_t)block_size);
    }
    if (r != ARCHIVE_EOF)
        return archive_failed(untar, err);
    if (written < size && ftruncate(fd, size) < 0)
        return entry_failed(&untar->path, errno, "write it", err);
    return true;
}

static bool finish_fd(struct untar *untar, struct archive_entry *entry, const struct meta *meta,
                      int fd, bool chown_always, struct error *err)
{
    bool chowned = meta->uid || meta->gid || chown_always;

    if (chowned && fchown(fd, meta->uid, meta->gid) < 0)
        return entry_failed(&untar->path, errno, "set its owner", err);
    /* Special bits last: chown takes them away. */
    if ((chown_always || (meta->mode & 07000)) && fchmod(fd, meta->mode) < 0)
        return entry_failed(&untar->path, errno, "set its mode", err);
    return set_xattrs(untar, entry, fd, err);
}

static bool add_content(struct untar *untar, int64_t size, struct error *err)
{
    uint64_t *total = &untar->result->content_bytes;

    if (size < 0 || (uint64_t)size > UNTAR_CONTENT_MAX - *total)
        return entry_invalid(&untar->path, "makes the layer larger than 16 TiB", err);
    *total += (uint64_t)size;
    return true;
}

static bool add_file(struct untar *untar, struct archive_entry *entry, const struct meta *meta,
                     struct error *err)
{
    struct file_creation creation = {.base = untar->path.base, .mode = meta->mode & 0777};
    int64_t size = archive_entry_size(entry);
    const struct dir *dir = create_node(untar, create_file, &creation, err);
    CLEANUP_CLOSE int fd = dir ? creation.fd : -1;

    if (!dir || !add_content(untar, size, err) || !write_content(untar, fd, size, err) ||
        !finish_fd(untar, entry, meta, fd, dir->setgid, err))
        return false;
    return futimens(fd, meta->times) == 0 || entry_failed(&untar->path, errno, "set its time", err);
}

/* --- Directories -------------------------------------------------------------------------------
 */

/* Also for the root, which exists. Its time is set when it is left. */
static bool finish_dir(struct untar *untar, struct archive_entry *entry, const struct meta *meta,
                       int fd, bool all, struct error *err)
{
    CLEANUP_CLOSE int owned_fd = fd;
    struct dir *dir;

    if (!finish_fd(untar, entry, meta, owned_fd, all, err))
        return false;
    dir = dirs_add(untar, untar->path.text, untar->path.length, TAKE_FD(owned_fd), err);
    if (!dir)
        return false;
    dir->mtime = meta->times[1];
    dir->touched = true;
    return true;
}

static bool add_dir(struct untar *untar, struct archive_entry *entry, const struct meta *meta,
                    struct error *err)
{
    const char *base = untar->path.base;
    struct dir *dir = open_parent(untar, err);
    bool kept = untar->path.length == 0;
    int fd;

    if (!dir)
        return false;
    if (!kept && mkdirat(dir->fd, base, meta->mode & 01777) < 0) {
        if (errno != EEXIST)
            return entry_failed(&untar->path, errno, "create it", err);
        if (!make_room(untar, dir, true, &kept, err) || !(dir = open_parent(untar, err)))
            return false;
        if (!kept && mkdirat(dir->fd, base, meta->mode & 01777) < 0)
            return entry_failed(&untar->path, errno, "create it", err);
    }
    dir->touched = true;
    fd = openat(dir->fd, *base ? base : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return entry_failed(&untar->path, errno, "open it", err);
    return finish_dir(untar, entry, meta, fd, kept || dir->setgid, err);
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
static bool finish_node(const struct untar *untar, const struct dir *dir, const struct meta *meta,
                        bool is_symlink, struct error *err)
{
    const struct path *path = &untar->path;

    if ((meta->uid || meta->gid || dir->setgid) &&
        fchownat(dir->fd, path->base, meta->uid, meta->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return entry_failed(path, errno, "set its owner", err);
    /* We have just made it, and nobody else is here: it is no link. */
    if (!is_symlink && (meta->mode & 07000) && fchmodat(dir->fd, path->base, meta->mode, 0) < 0)
        return entry_failed(path, errno, "set its mode", err);
    if (utimensat(dir->fd, path->base, meta->times, AT_SYMLINK_NOFOLLOW) < 0)
        return entry_failed(path, errno, "set its time", err);
    return true;
}

static bool add_symlink(struct untar *untar, struct archive_entry *entry, const struct meta *meta,
                        struct error *err)
{
    struct node_creation creation = {.base = untar->path.base,
                                     .target = archive_entry_symlink(entry)};
    const struct dir *dir;

    if (str_empty(creation.target))
        return entry_invalid(&untar->path, "is a symlink to nothing", err);
    dir = create_node(untar, create_symlink, &creation, err);
    return dir && add_content(untar, (int64_t)strlen(creation.target), err) &&
           finish_node(untar, dir, meta, true, err);
}

static bool add_special(struct untar *untar, struct archive_entry *entry, const struct meta *meta,
                        struct error *err)
{
    struct node_creation creation = {
        .base = untar->path.base,
        .mode = archive_entry_filetype(entry) | (meta->mode & 0777),
        .device = makedev(archive_entry_rdevmajor(entry), archive_entry_rdevminor(entry)),
    };
    const struct dir *dir;

    if (S_ISFIFO(creation.mode))
        creation.device = 0;
    dir = create_node(untar, create_special, &creation, err);
    return dir && finish_node(untar, dir, meta, false, err);
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
    const struct path *link = &untar->link;
    const char *base = untar->path.base;
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
    entry_failed(&untar->path, errno, "link it", err);
    error_prefix(err, "hard link to \"%s\"", path_quote(link->text).text);
    return LINK_FAILED;
}

static bool add_hardlink(struct untar *untar, const char *target, struct error *err)
{
    enum link_result result;
    struct dir *dir;
    bool kept;

    if (!path_parse(target, &untar->link, err))
        return error_prefix(err, "hard link \"%s\"", path_quote(untar->path.text).text);
    result = try_link(untar, err);
    if (result == LINK_PLACE_TAKEN) {
        if (!(dir = open_parent(untar, err)) || !make_room(untar, dir, false, &kept, err))
            return false;
        result = try_link(untar, err);
    }
    return result == LINK_MADE ||
           (result == LINK_PLACE_TAKEN && entry_failed(&untar->path, EEXIST, "link it", err));
}

/* --- Whiteouts ---------------------------------------------------------------------------------
 */

/* A whiteout hides what lower layers have there, in overlayfs form a character device 0:0. It says
 * nothing about its own layer: what that has in the place stays, and a directory is opaque. */
static bool add_whiteout(struct untar *untar, struct error *err)
{
    struct path *path = &untar->path;
    const char *hidden = path->base + strlen(WHITEOUT);
    struct dir *dir;
    struct stat st;

    if (str_empty(hidden) || str_eq(hidden, ".") || str_eq(hidden, ".."))
        return entry_invalid(path, "is a whiteout of no name", err);
    memmove(path->base, hidden, strlen(hidden) + 1);
    path->length -= strlen(WHITEOUT);
    if (!(dir = open_parent(untar, err)))
        return false;
    if (mknodat(dir->fd, path->base, S_IFCHR, 0) == 0) {
        dir->touched = true;
        return true;
    }
    if (errno != EEXIST || fstatat(dir->fd, path->base, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return entry_failed(path, errno, "create its whiteout", err);
    return !S_ISDIR(st.st_mode) || add_opaque(untar, path->text, path->length, err);
}

static bool add_opaque_mark(struct untar *untar, struct error *err)
{
    const struct path *path = &untar->path;

    return open_parent(untar, err) && add_opaque(untar, path->text, path->parent_length, err);
}

/* --- Any entry ---------------------------------------------------------------------------------
 */

static bool add_by_type(struct untar *untar, struct archive_entry *entry, struct error *err)
{
    const char *link_target = archive_entry_hardlink(entry);
    struct meta meta;

    if (link_target)
        return add_hardlink(untar, link_target, err);
    if (!read_meta(untar, entry, &meta, err))
        return false;
    switch (archive_entry_filetype(entry)) {
    case AE_IFREG:
        return add_file(untar, entry, &meta, err);
    case AE_IFDIR:
        return add_dir(untar, entry, &meta, err);
    case AE_IFLNK:
        return add_symlink(untar, entry, &meta, err);
    case AE_IFCHR:
    case AE_IFBLK:
    case AE_IFIFO:
        return add_special(untar, entry, &meta, err);
    default:
        return entry_invalid(&untar->path, "is of an unknown type", err);
    }
}

bool untar_entry(struct untar *untar, struct archive_entry *entry, struct error *err)
{
    const char *name = archive_entry_pathname(entry);
    struct path *path = &untar->path;

    if (str_empty(name))
        return error_set(err, ERROR_DATA_LOSS, "INVALID_LAYER", "entry %llu has no name",
                         (unsigned long long)untar->result->entries);
    if (!path_parse(name, path, err))
        return false;
    if (path->length == 0 &&
        (archive_entry_hardlink(entry) || archive_entry_filetype(entry) != AE_IFDIR))
        return entry_invalid(path, "is the root of the layer, but no directory", err);
    if (str_eq(path->base, WHITEOUT_OPAQUE))
        return add_opaque_mark(untar, err);
    /* What AUFS keeps for itself. */
    if (str_starts(path->text, WHITEOUT_META) || str_starts(path->base, WHITEOUT_META))
        return true;
    if (str_starts(path->base, WHITEOUT))
        return add_whiteout(untar, err);
    return add_by_type(untar, entry, err);
}
