#include "client/output_file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "proto/async/await.h"

/* The disk begins to write while there is more to come. */
#define FLUSH_BYTES (8 * MIB)

/* The directory a path lies in; the caller's. */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        return xstrdup(".");
    return slash == path ? xstrdup("/") : xstrndup(path, (size_t)(slash - path));
}

/* As Go words it: "stat /nope: no such file or directory". */
static bool stat_failed(const char *what, const char *path, int errnum, struct error *err)
{
    CLEANUP_FREE char *why = xstrdup(strerror(errnum));

    *why = (char)tolower((unsigned char)*why);
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_OUTPUT", "%s %s: %s", what, path, why);
}

static const char *kind_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return "a directory";
    case S_IFLNK:
        return "a symbolic link directly";
    case S_IFIFO:
        return "a named pipe (FIFO)";
    case S_IFCHR:
        return "a character device file";
    case S_IFBLK:
        return "a block device file";
    default:
        return "a socket";
    }
}

bool output_file_check(const char *path, struct error *err)
{
    CLEANUP_FREE char *parent = parent_of(path);
    struct stat status;

    if (stat(parent, &status) < 0)
        return stat_failed("invalid output path: stat", parent, errno, err);
    if (!S_ISDIR(status.st_mode))
        return stat_failed("invalid output path: stat", parent, ENOTDIR, err);
    if (lstat(path, &status) < 0)
        return errno == ENOENT ||
               stat_failed("failed to stat output path: lstat", path, errno, err);
    return S_ISREG(status.st_mode) || error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_OUTPUT",
                                                "cannot write to %s", kind_of(status.st_mode));
}

/* --- In the thread pool ------------------------------------------------------------------------
 */

struct work {
    struct output_file *file;
    const char *data;
    size_t size;
    struct error error;
};

static void open_blocking(void *arg)
{
    struct work *work = arg;
    struct output_file *file = work->file;
    CLEANUP_FREE char *parent = parent_of(file->path);
    const char *slash = strrchr(file->path, '/');
    unsigned int number = 0;

    CHECK(getrandom(&number, sizeof(number), 0) == (ssize_t)sizeof(number));
    file->temporary = xasprintf("%s/.tmp-%s%u", parent, slash ? slash + 1 : file->path, number);
    file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file->fd >= 0)
        return;
    error_set_errno(&work->error, errno, "cannot create %s", file->temporary);
    free(file->temporary);
    file->temporary = NULL;
}

static void write_blocking(void *arg)
{
    struct work *work = arg;
    struct output_file *file = work->file;

    while (work->size > 0) {
        ssize_t n = write(file->fd, work->data, work->size);
        if (n < 0 && errno != EINTR) {
            error_set_errno(&work->error, errno, "cannot write %s", file->path);
            return;
        }
        if (n < 0)
            continue;
        work->data += n;
        work->size -= (size_t)n;
        file->size_bytes += (uint64_t)n;
    }
    if (file->size_bytes - file->flushed_bytes < FLUSH_BYTES)
        return;
    sync_file_range(file->fd, (off_t)file->flushed_bytes, 0, SYNC_FILE_RANGE_WRITE);
    file->flushed_bytes = file->size_bytes;
}

static void commit_blocking(void *arg)
{
    struct work *work = arg;
    struct output_file *file = work->file;

    if (fsync(file->fd) < 0)
        error_set_errno(&work->error, errno, "cannot write %s", file->path);
    else if (rename(file->temporary, file->path) < 0)
        error_set_errno(&work->error, errno, "cannot rename %s to %s", file->temporary, file->path);
    if (error_is_set(&work->error))
        return;
    free(file->temporary);
    file->temporary = NULL;
}

static bool await_in_pool(void (*fn)(void *arg), struct work *work, struct error *err)
{
    int r = await_work(fn, work, "writing a file");

    if (r < 0)
        return await_error(err, r, "writing %s", work->file->path);
    return !error_is_set(&work->error) || error_move(err, &work->error);
}

/* --- The file ----------------------------------------------------------------------------------
 */

bool await_output_file_open(const char *path, struct output_file *ret, struct error *err)
{
    struct work work = {.file = ret};

    *ret = (struct output_file){.path = path, .fd = -1};
    return await_in_pool(open_blocking, &work, err);
}

bool await_output_file_write(struct output_file *file, const void *data, size_t size,
                             struct error *err)
{
    struct work work = {.file = file, .data = data, .size = size};

    return await_in_pool(write_blocking, &work, err);
}

bool await_output_file_commit(struct output_file *file, struct error *err)
{
    struct work work = {.file = file};

    return await_in_pool(commit_blocking, &work, err);
}

void output_file_done(struct output_file *file)
{
    if (file->temporary)
        unlink(file->temporary);
    free(file->temporary);
    file->temporary = NULL;
    close_fd(&file->fd);
}
