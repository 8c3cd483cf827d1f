#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "daemon/store/untar/internal.h"

/* What tells an inode from others of the layer, which lies on one file system. */
static const char *key_of(const struct stat *st, char key[24])
{
    snprintf(key, 24, "%" PRIu64, (uint64_t)st->st_ino);
    return key;
}

/* The path that the kernel knows, free of links: what an archive calls the directory may lead
 * elsewhere by the end of it. */
static bool find_path(int fd, char path[LAYER_PATH_MAX])
{
    return fchdir(fd) == 0 && getcwd(path, LAYER_PATH_MAX);
}

bool opaque_init(struct untar *untar, struct error *err)
{
    char path[LAYER_PATH_MAX];

    untar->opaque = map_new();
    if (!find_path(untar->root_fd, path))
        return error_set_errno(err, errno, "cannot find the root");
    /* "/", unless this process has not made it its root. */
    untar->root_path_length = str_eq(path, "/") ? 0 : strlen(path);
    return true;
}

void opaque_done(struct untar *untar)
{
    const char *key;
    void *path;

    for (size_t i = 0; map_next(untar->opaque, &i, &key, &path);)
        free(path);
    untar->opaque = map_free(untar->opaque);
}

bool opaque_add(struct untar *untar, int fd, struct error *err)
{
    char path[LAYER_PATH_MAX], key[24];
    const char *below;
    struct stat st;

    if (fstat(fd, &st) < 0)
        return entry_failed(&untar->entry->path, errno, "look at its directory", err);
    if (map_get(untar->opaque, key_of(&st, key)))
        return true;
    if (!find_path(fd, path))
        return entry_failed(&untar->entry->path, errno, "find its directory", err);
    below = path + untar->root_path_length;
    below += *below == '/';
    untar->opaque_size += strlen(below) + 1;
    if (untar->opaque_size > LAYER_OPAQUE_MAX)
        return entry_invalid(&untar->entry->path, "is one opaque directory too many", err);
    map_put(untar->opaque, key, xstrdup(below));
    return true;
}

void opaque_forget(struct untar *untar, const struct stat *st)
{
    char key[24];
    CLEANUP_FREE char *path = map_remove(untar->opaque, key_of(st, key));

    if (path)
        untar->opaque_size -= strlen(path) + 1;
}

void opaque_report(const struct untar *untar)
{
    struct strbuf *opaque = &untar->report->opaque;
    const char *key;
    void *path;

    for (size_t i = 0; map_next(untar->opaque, &i, &key, &path);)
        strbuf_add(opaque, path, strlen(path) + 1);
}
