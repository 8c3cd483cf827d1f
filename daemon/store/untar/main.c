/* davit-untar: unpacks one layer for the daemon, confined. Not for people: descriptor 3 is the
 * directory, standard input the tar archive, standard output takes the report
 * (archive/report.h). */
#include <errno.h>
#include <unistd.h>

#include "daemon/store/archive/confine.h"
#include "daemon/store/untar/confine.h"
#include "daemon/store/untar/untar.h"

#define DIR_FD 3

static ssize_t read_stdin(void *arg UNUSED, void *buffer, size_t size)
{
    ssize_t n;

    do
        n = read(STDIN_FILENO, buffer, size);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static bool run(struct layer_report *ret, struct error *err)
{
    const struct layer_input input = {.read = read_stdin};
    CLEANUP_CLOSE int root_fd = confine(DIR_FD, err);

    return root_fd >= 0 && untar(root_fd, &input, ret, err);
}

int main(int argc, char **argv UNUSED)
{
    confined_main("davit-untar", argc, run);
}
