/* davit-archive: opens an archive of images for the daemon, confined. Not for people: standard
 * input is a mode and the archive, standard output takes frames (archive/frame.h). */
#include <errno.h>
#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

#include "daemon/store/archive/confine.h"
#include "daemon/store/opener/opener.h"

#define MEMORY_MAX (512 * MIB) /* address space; a window of zstd takes up to 128 MiB of it */

static ssize_t read_stdin(void *arg UNUSED, void *buffer, size_t size)
{
    ssize_t n;

    do
        n = read(STDIN_FILENO, buffer, size);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static int write_stdout(void *arg UNUSED, const void *header, size_t header_size, const void *data,
                        size_t size)
{
    struct iovec parts[2] = {{(void *)header, header_size}, {(void *)data, size}};

    while (parts[0].iov_len + parts[1].iov_len > 0) {
        ssize_t n = writev(STDOUT_FILENO, parts, 2);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        for (int i = 0; i < 2; i++) {
            size_t part = MIN((size_t)n, parts[i].iov_len);
            parts[i].iov_base = (char *)parts[i].iov_base + part;
            parts[i].iov_len -= part;
            n -= (ssize_t)part;
        }
    }
    return 0;
}

int main(int argc, char **argv UNUSED)
{
    const struct opener_io io = {.read = read_stdin, .write = write_stdout};
    CLEANUP_ERROR struct error err = {0};

    confined_begin("davit-archive", argc);
    if (!confine_to_nothing(&err) || !confine_to_open_files(STDERR_FILENO + 1, MEMORY_MAX, &err)) {
        fprintf(stderr, "davit-archive: %s\n", err.message);
        _exit(1);
    }
    _exit(open_archive(&io) ? 0 : 1);
}
