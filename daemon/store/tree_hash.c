#include "daemon/store/tree_hash.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "proto/base/map.h"

#define STEP_BYTES (1 * MIB)
#define STEP_ENTRIES 1024 /* empty files also take time */
#define BUFFER_BYTES (256 * KIB)
#define XATTR_BYTES_MAX (64 * KIB) /* the kernel has no longer ones */
#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* A directory on the way down. Only the deepest is open: ".." leads back. */
struct level {
    char **names; /* sorted */
    size_t next;
    dev_t device;
    ino_t inode;
    struct level *above;
};

struct tree_hash {
    struct hasher *hasher;
    int fd; /* of the deepest directory */
    struct level *deepest;
    int file_fd;            /* the file that is being read, or -1 */
    struct map *hard_links; /* inode to the number of the first name of it */
    uint64_t entries;
    bool begun;
    char *buffer;
};

struct tree_hash *tree_hash_new(int dir_fd)
{
    struct tree_hash *hash = xcalloc(1, sizeof(*hash));

    hash->hasher = hasher_new();
    hash->fd = openat(dir_fd, ".", OPEN_DIR);
    hash->file_fd = -1;
    hash->hard_links = map_new();
    hash->buffer = xmalloc(BUFFER_BYTES);
    return hash;
}

static void forget_deepest(struct tree_hash *hash)
{
    struct level *level = hash->deepest;

    hash->deepest = level->above;
    strv_free(level->names);
    free(level);
}

static void forget_links(struct map *links)
{
    size_t iterator = 0;
    void *first;

    while (map_next(links, &iterator, NULL, &first))
        free(first);
    map_free(links);
}

struct tree_hash *tree_hash_free(struct tree_hash *hash)
{
    if (!hash)
        return NULL;
    while (hash->deepest)
        forget_deepest(hash);
    forget_links(hash->hard_links);
    hasher_free(hash->hasher);
    close_fd(&hash->fd);
    close_fd(&hash->file_fd);
    free(hash->buffer);
    free(hash);
    return NULL;
}

struct digest tree_hash_finish(struct tree_hash *hash)
{
    return hasher_finish(hash->hasher);
}

/* Every part goes in with its length, so that no two trees give the same bytes. */
static void add(struct tree_hash *hash, const void *data, size_t size)
{
    uint64_t length = size;

    hasher_update(hash->hasher, &length, sizeof(length));
    hasher_update(hash->hasher, data, size);
}

static void add_numbers(struct tree_hash *hash, const struct stat *st)
{
    /* Directories' sizes and link counts are the file system's own matter. */
    char text[256];
    int length =
        snprintf(text, sizeof(text), "%o %u %u %" PRIu64 " %" PRId64 ".%09ld %" PRIu64, st->st_mode,
                 st->st_uid, st->st_gid, S_ISDIR(st->st_mode) ? 0 : (uint64_t)st->st_size,
                 (int64_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, (uint64_t)st->st_rdev);

    add(hash, text, (size_t)length);
}

/* --- Extended attributes -----------------------------------------------------------------------
 */

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static size_t count_names(const char *list, size_t size)
{
    size_t count = 0;

    for (size_t i = 0; i < size; i++)
        count += list[i] == '\0';
    return count;
}

/* Through /proc, which reaches symlinks and devices too without opening them. */
static bool add_xattrs(struct tree_hash *hash, int fd)
{
    CLEANUP_FREE char *list = xmalloc(XATTR_BYTES_MAX);
    CLEANUP_FREE char *value = NULL;
    CLEANUP_FREE char **names = NULL;
    char path[40];
    ssize_t size;
    size_t count;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    size = listxattr(path, list, XATTR_BYTES_MAX);
    if (size <= 0)
        return size == 0 || errno == EOPNOTSUPP;
    count = count_names(list, (size_t)size);
    names = xcalloc(count, sizeof(*names));
    for (size_t i = 0, at = 0; i < count; at += strlen(list + at) + 1)
        names[i++] = list + at;
    qsort(names, count, sizeof(*names), compare_names);
    value = xmalloc(XATTR_BYTES_MAX);
    for (size_t i = 0; i < count; i++) {
        ssize_t value_size = getxattr(path, names[i], value, XATTR_BYTES_MAX);
        if (value_size < 0)
            return false;
        add(hash, names[i], strlen(names[i]));
        add(hash, value, (size_t)value_size);
    }
    return true;
}

/* --- Entries -----------------------------------------------------------------------------------
 */

static bool failed(const char *doing, const char *name, struct error *err)
{
    int errnum = errno;

    if (errnum == EIO || errnum == EUCLEAN || errnum == ENOENT)
        return error_set(err, ERROR_DATA_LOSS, "LAYER_DAMAGED", "cannot %s %s: %s", doing, name,
                         strerror(errnum));
    return error_set_errno(err, errnum, "cannot %s %s", doing, name);
}

/* Lists what the directory that is open now holds. */
static bool list_dir(struct tree_hash *hash, struct error *err)
{
    struct level *level = xcalloc(1, sizeof(*level));
    int list_fd = openat(hash->fd, ".", OPEN_DIR);
    DIR *list = list_fd >= 0 ? fdopendir(list_fd) : NULL;
    const struct dirent *item;
    size_t count = 0, room = 0;
    struct stat st;

    level->above = hash->deepest;
    hash->deepest = level;
    if (!list || fstat(list_fd, &st) < 0) {
        failed("list", "a directory", err);
        close_fd(&list_fd);
        return false;
    }
    level->device = st.st_dev;
    level->inode = st.st_ino;
    level->names = xcalloc(1, sizeof(char *));
    while ((item = readdir(list))) {
        if (str_eq(item->d_name, ".") || str_eq(item->d_name, ".."))
            continue;
        if (count + 1 >= room) {
            room = MAX((size_t)16, room * 2);
            level->names = xrealloc(level->names, room * sizeof(char *));
        }
        level->names[count++] = xstrdup(item->d_name);
        level->names[count] = NULL;
    }
    closedir(list);
    qsort(level->names, count, sizeof(char *), compare_names);
    return true;
}

static bool leave(struct tree_hash *hash, struct error *err)
{
    int above_fd = -1;
    struct stat st;

    add(hash, "..", 2);
    forget_deepest(hash);
    if (!hash->deepest)
        return true;
    above_fd = openat(hash->fd, "..", OPEN_DIR);
    if (above_fd < 0 || fstat(above_fd, &st) < 0) {
        close_fd(&above_fd);
        return failed("leave", "a directory", err);
    }
    close_fd(&hash->fd);
    hash->fd = above_fd;
    if (st.st_dev == hash->deepest->device && st.st_ino == hash->deepest->inode)
        return true;
    errno = ESTALE;
    return failed("leave", "a directory", err);
}

/* True if the inode has come before, under another name: its content is not read again. */
static bool is_known_link(struct tree_hash *hash, const struct stat *st)
{
    char key[48], number[32];
    char *first;

    if (S_ISDIR(st->st_mode) || st->st_nlink < 2)
        return false;
    snprintf(key, sizeof(key), "%" PRIu64 ":%" PRIu64, (uint64_t)st->st_dev, (uint64_t)st->st_ino);
    first = map_get(hash->hard_links, key);
    if (first) {
        add(hash, first, strlen(first));
        return true;
    }
    snprintf(number, sizeof(number), "link to %" PRIu64, hash->entries);
    map_put(hash->hard_links, key, xstrdup(number));
    return false;
}

static bool add_symlink(struct tree_hash *hash, const char *name, size_t *done, struct error *err)
{
    ssize_t size = readlinkat(hash->fd, name, hash->buffer, BUFFER_BYTES);

    if (size < 0)
        return failed("read the link", name, err);
    add(hash, hash->buffer, (size_t)size);
    *done += (size_t)size;
    return true;
}

static bool enter_dir(struct tree_hash *hash, const char *name, struct error *err)
{
    int fd = openat(hash->fd, name, OPEN_DIR);

    if (fd < 0)
        return failed("open", name, err);
    close_fd(&hash->fd);
    hash->fd = fd;
    return list_dir(hash, err);
}

/* What is a file is only opened, and a directory entered. */
static bool begin_entry(struct tree_hash *hash, const char *name, size_t *done, struct error *err)
{
    CLEANUP_CLOSE int fd = openat(hash->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    hash->entries++;
    add(hash, name, strlen(name));
    if (fd < 0 || fstat(fd, &st) < 0)
        return failed("open", name, err);
    add_numbers(hash, &st);
    if (!add_xattrs(hash, fd))
        return failed("read the xattrs of", name, err);
    if (is_known_link(hash, &st))
        return true;
    switch (st.st_mode & S_IFMT) {
    case S_IFDIR:
        return enter_dir(hash, name, err);
    case S_IFLNK:
        return add_symlink(hash, name, done, err);
    case S_IFREG:
        hash->file_fd = openat(hash->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        return hash->file_fd >= 0 || failed("open", name, err);
    default:
        return true;
    }
}

static bool read_file(struct tree_hash *hash, size_t *done, struct error *err)
{
    ssize_t n = read(hash->file_fd, hash->buffer, BUFFER_BYTES);

    if (n < 0)
        return failed("read", "a file", err);
    hasher_update(hash->hasher, hash->buffer, (size_t)n);
    if (n == 0)
        close_fd(&hash->file_fd);
    *done += (size_t)n;
    return true;
}

static bool begin(struct tree_hash *hash, struct error *err)
{
    struct stat st;

    if (hash->begun)
        return true;
    hash->begun = true;
    if (hash->fd < 0 || fstat(hash->fd, &st) < 0)
        return failed("open", "its directory", err);
    add_numbers(hash, &st);
    return (add_xattrs(hash, hash->fd) || failed("read the xattrs of", "its root", err)) &&
           list_dir(hash, err);
}

ssize_t tree_hash_step(struct tree_hash *hash, struct error *err)
{
    size_t done = 0;

    if (!begin(hash, err))
        return -1;
    for (size_t i = 0; hash->deepest && done < STEP_BYTES && i < STEP_ENTRIES; i++) {
        struct level *level = hash->deepest;
        const char *name = level->names[level->next];
        bool ok;
        if (hash->file_fd >= 0)
            ok = read_file(hash, &done, err);
        else if (name && ++level->next)
            ok = begin_entry(hash, name, &done, err);
        else
            ok = leave(hash, err);
        if (!ok)
            return -1;
    }
    return hash->deepest ? (ssize_t)MAX(done, (size_t)1) : (ssize_t)done;
}
