#include "daemon/store/tree_walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "proto/base/map.h"

#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* A directory on the way down. Only the deepest is open: ".." leads back. */
struct level {
    char **names; /* sorted */
    size_t next;
    dev_t device;
    ino_t inode;
    struct level *above;
};

struct tree_walk {
    bool changing, begun;
    bool entering; /* the entry that was given last is a directory */
    int fd;        /* the deepest directory */
    int entry_fd;
    struct level *deepest;
    struct map *hard_links; /* inode to the number of its first name */
    uint64_t count;         /* entries so far */
};

struct tree_walk *tree_walk_new(int dir_fd, bool changing)
{
    struct tree_walk *walk = xcalloc(1, sizeof(*walk));

    walk->changing = changing;
    walk->fd = openat(dir_fd, ".", OPEN_DIR);
    walk->entry_fd = -1;
    walk->hard_links = map_new();
    return walk;
}

static void forget_deepest(struct tree_walk *walk)
{
    struct level *level = walk->deepest;

    walk->deepest = level->above;
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

struct tree_walk *tree_walk_free(struct tree_walk *walk)
{
    if (!walk)
        return NULL;
    while (walk->deepest)
        forget_deepest(walk);
    forget_links(walk->hard_links);
    close_fd(&walk->fd);
    close_fd(&walk->entry_fd);
    free(walk);
    return NULL;
}

bool tree_failed(const char *doing, const char *name, struct error *err)
{
    int errnum = errno;

    if (errnum == EIO || errnum == EUCLEAN || errnum == ENOENT)
        return error_set(err, ERROR_DATA_LOSS, "LAYER_DAMAGED", "cannot %s %s: %s", doing, name,
                         strerror(errnum));
    return error_set_errno(err, errnum, "cannot %s %s", doing, name);
}

/* --- Down and up -------------------------------------------------------------------------------
 */

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void read_names(struct level *level, DIR *list)
{
    const struct dirent *item;
    size_t count = 0, room = 0;

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
    qsort(level->names, count, sizeof(char *), compare_names);
}

/* Lists what the directory that is open now holds. */
static bool list_deepest(struct tree_walk *walk, struct error *err)
{
    struct level *level = xcalloc(1, sizeof(*level));
    int list_fd = openat(walk->fd, ".", OPEN_DIR);
    DIR *list = list_fd >= 0 ? fdopendir(list_fd) : NULL;
    struct stat st;

    level->above = walk->deepest;
    walk->deepest = level;
    if (!list || fstat(list_fd, &st) < 0) {
        tree_failed("list", "a directory", err);
        if (list)
            closedir(list);
        else
            close_fd(&list_fd);
        return false;
    }
    level->device = st.st_dev;
    level->inode = st.st_ino;
    read_names(level, list);
    closedir(list);
    return true;
}

static bool has_gone(const struct tree_walk *walk)
{
    return walk->changing && (errno == ENOENT || errno == ENOTDIR);
}

/* Goes down into the directory that was given last. */
static bool enter(struct tree_walk *walk, struct error *err)
{
    int fd;

    walk->entering = false;
    if (walk->deepest) {
        const char *name = walk->deepest->names[walk->deepest->next - 1];
        fd = openat(walk->fd, name, OPEN_DIR);
        if (fd < 0)
            return has_gone(walk) || tree_failed("open", name, err);
        close_fd(&walk->fd);
        walk->fd = fd;
    }
    return list_deepest(walk, err);
}

static int leave(struct tree_walk *walk, struct tree_entry *ret, struct error *err)
{
    CLEANUP_CLOSE int above_fd = -1;
    struct stat st;

    *ret = (struct tree_entry){.leaving = true};
    forget_deepest(walk);
    if (!walk->deepest)
        return 1;
    above_fd = openat(walk->fd, "..", OPEN_DIR);
    if (above_fd < 0 || fstat(above_fd, &st) < 0)
        return tree_failed("leave", "a directory", err) - 1;
    close_fd(&walk->fd);
    walk->fd = TAKE_FD(above_fd);
    if (st.st_dev == walk->deepest->device && st.st_ino == walk->deepest->inode)
        return 1;
    errno = ESTALE; /* it was moved */
    return tree_failed("leave", "a directory", err) - 1;
}

/* --- Entries -----------------------------------------------------------------------------------
 */

static uint64_t first_of(struct tree_walk *walk, const struct stat *st)
{
    char key[48];
    uint64_t *first;

    if (S_ISDIR(st->st_mode) || st->st_nlink < 2)
        return 0;
    snprintf(key, sizeof(key), "%" PRIu64 ":%" PRIu64, (uint64_t)st->st_dev, (uint64_t)st->st_ino);
    first = map_get(walk->hard_links, key);
    if (!first)
        map_put(walk->hard_links, key, xmemdup(&walk->count, sizeof(walk->count)));
    return first ? *first : 0;
}

static int begin(struct tree_walk *walk, struct tree_entry *ret, struct error *err)
{
    walk->begun = true;
    *ret = (struct tree_entry){.dir_fd = -1, .fd = walk->fd};
    if (walk->fd < 0 || fstat(walk->fd, &ret->st) < 0)
        return tree_failed("open", "its directory", err) - 1;
    walk->entering = true;
    walk->count = 1;
    return 1;
}

/* 1; 0 if it has gone; -1. */
static int open_entry(struct tree_walk *walk, const char *name, struct tree_entry *ret,
                      struct error *err)
{
    close_fd(&walk->entry_fd);
    walk->entry_fd = openat(walk->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    *ret = (struct tree_entry){.name = name, .dir_fd = walk->fd, .fd = walk->entry_fd};
    if (walk->entry_fd < 0 || fstat(walk->entry_fd, &ret->st) < 0)
        return has_gone(walk) ? 0 : tree_failed("open", name, err) - 1;
    ret->same_as = first_of(walk, &ret->st);
    walk->entering = S_ISDIR(ret->st.st_mode);
    walk->count++;
    return 1;
}

int tree_walk_next(struct tree_walk *walk, struct tree_entry *ret, struct error *err)
{
    if (!walk->begun)
        return begin(walk, ret, err);
    for (;;) {
        const char *name;
        int r;
        if (walk->entering && !enter(walk, err))
            return -1;
        if (!walk->deepest)
            return 0;
        name = walk->deepest->names[walk->deepest->next];
        if (!name)
            return leave(walk, ret, err);
        walk->deepest->next++;
        if ((r = open_entry(walk, name, ret, err)) != 0)
            return r;
    }
}

uint64_t tree_disk_bytes(int dir_fd, const atomic_bool *stop)
{
    CLEANUP(tree_walk_cleanup) struct tree_walk *walk = tree_walk_new(dir_fd, true);
    struct tree_entry entry;
    uint64_t blocks = 0;

    while (!(stop && atomic_load(stop)) && tree_walk_next(walk, &entry, NULL) > 0) {
        if (!entry.leaving && !entry.same_as)
            blocks += (uint64_t)entry.st.st_blocks;
    }
    return blocks * STAT_BLOCK_BYTES;
}
