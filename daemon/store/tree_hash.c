#include "daemon/store/tree_hash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "daemon/store/sparse_hash.h"
#include "daemon/store/tree_walk.h"

#define STEP_BYTES (1 * MIB)
#define STEP_ENTRIES 1024 /* empty files also take time */
#define BUFFER_BYTES (256 * KIB)
#define XATTR_BYTES_MAX (64 * KIB) /* the kernel has no longer ones */

struct tree_hash {
    struct hasher *hasher;
    struct tree_walk *walk;
    int file_fd; /* the file that is being read, or -1 */
    off_t file_offset;
    bool from_disk;
    uint64_t disk_blocks;
    char *buffer;
};

struct tree_hash *tree_hash_new(int dir_fd, bool from_disk)
{
    struct tree_hash *hash = xcalloc(1, sizeof(*hash));

    hash->hasher = hasher_new();
    hash->walk = tree_walk_new(dir_fd, false);
    hash->file_fd = -1;
    hash->from_disk = from_disk;
    hash->buffer = xmalloc(BUFFER_BYTES);
    return hash;
}

struct tree_hash *tree_hash_free(struct tree_hash *hash)
{
    if (!hash)
        return NULL;
    tree_walk_free(hash->walk);
    hasher_free(hash->hasher);
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

/* From here on the file is read from the disk: what lies in memory would hide what the disk has
 * become. What is mapped stays. */
static void forget_cached(const struct tree_hash *hash)
{
    if (hash->from_disk)
        posix_fadvise(hash->file_fd, 0, 0, POSIX_FADV_DONTNEED);
}

static bool add_symlink(struct tree_hash *hash, const struct tree_entry *entry, size_t *done,
                        struct error *err)
{
    ssize_t size = readlinkat(entry->dir_fd, entry->name, hash->buffer, BUFFER_BYTES);

    if (size < 0)
        return tree_failed("read the link", entry->name, err);
    add(hash, hash->buffer, (size_t)size);
    *done += (size_t)size;
    return true;
}

/* What is a file is only opened. */
static bool add_entry(struct tree_hash *hash, const struct tree_entry *entry, size_t *done,
                      struct error *err)
{
    const char *name = entry->name ? entry->name : "its root";
    char link[40];

    if (entry->name)
        add(hash, name, strlen(name));
    add_numbers(hash, &entry->st);
    if (!add_xattrs(hash, entry->fd))
        return tree_failed("read the xattrs of", name, err);
    if (entry->same_as) {
        snprintf(link, sizeof(link), "link to %" PRIu64, entry->same_as);
        add(hash, link, strlen(link));
        return true; /* its content has been read */
    }
    hash->disk_blocks += (uint64_t)entry->st.st_blocks;
    if (S_ISLNK(entry->st.st_mode))
        return add_symlink(hash, entry, done, err);
    if (!S_ISREG(entry->st.st_mode))
        return true;
    hash->file_fd = openat(entry->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (hash->file_fd < 0)
        return tree_failed("open", name, err);
    hash->file_offset = 0;
    forget_cached(hash);
    return true;
}

static bool read_file(struct tree_hash *hash, size_t *done, struct error *err)
{
    ssize_t n = sparse_hash_step(hash->hasher, hash->file_fd, &hash->file_offset, hash->buffer,
                                 BUFFER_BYTES);

    if (n < 0) {
        errno = (int)-n;
        return tree_failed("read", "a file", err);
    }
    *done += (size_t)n;
    if (n > 0)
        return true;
    sparse_hash_end(hash->hasher);
    forget_cached(hash);
    close_fd(&hash->file_fd);
    return true;
}

ssize_t tree_hash_step(struct tree_hash *hash, struct error *err)
{
    size_t done = 0;

    for (size_t i = 0; done < STEP_BYTES && i < STEP_ENTRIES; i++) {
        struct tree_entry entry = {.leaving = true};
        int r = hash->file_fd >= 0 ? 1 : tree_walk_next(hash->walk, &entry, err);
        bool ok = true;
        if (r <= 0)
            return r < 0 ? -1 : (ssize_t)done;
        if (hash->file_fd >= 0)
            ok = read_file(hash, &done, err);
        else if (!entry.leaving)
            ok = add_entry(hash, &entry, &done, err);
        else
            add(hash, "..", 2);
        if (!ok)
            return -1;
    }
    return (ssize_t)MAX(done, (size_t)1);
}

uint64_t tree_hash_disk_bytes(const struct tree_hash *hash)
{
    return hash->disk_blocks * STAT_BLOCK_BYTES;
}
