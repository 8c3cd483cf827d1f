/* The unpacker as a plain process, with none of davit-untar's walls: what keeps an archive inside
 * the directory must hold by itself. If it does not, the machine must not suffer: everything but
 * the test's own directory is read-only to this process. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/store/untar/untar.h"

static ssize_t read_stdin(void *arg UNUSED, void *buffer, size_t size)
{
    ssize_t n = read(STDIN_FILENO, buffer, size);

    return n < 0 ? -errno : n;
}

#define TEST_DIRECTORY "/davit-untar-test-" /* conftest.py makes it; there are canaries in it */

/* The directory on descriptor 3 again, where nothing but its test can be written to. */
static int open_protected(void)
{
    const struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY, .propagation = MS_PRIVATE};
    const struct mount_attr writable = {.attr_clr = MOUNT_ATTR_RDONLY};
    char path[4096] = "", *test, *end, separator;
    ssize_t length = readlink("/proc/self/fd/3", path, sizeof(path) - 1);

    test = length > 0 ? strstr(path, TEST_DIRECTORY) : NULL;
    if (!test)
        die("descriptor 3 is no directory of a test: %s", path);
    end = test + 1 + strcspn(test + 1, "/");
    separator = *end;
    *end = '\0';
    if (unshare(CLONE_NEWNS) < 0 ||
        mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, (struct mount_attr *)&read_only,
                      sizeof(read_only)) < 0 ||
        mount(path, path, NULL, MS_BIND, NULL) < 0 ||
        mount_setattr(AT_FDCWD, path, 0, (struct mount_attr *)&writable, sizeof(writable)) < 0)
        die("cannot protect the machine: %s", strerror(errno));
    *end = separator;
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int main(void)
{
    const struct layer_input input = {.read = read_stdin};
    CLEANUP(layer_report_done) struct layer_report result = {0};
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_STRBUF struct strbuf report = {0};
    bool ok;

    umask(0);
    ok = untar(open_protected(), &input, &result, &err);
    if (ok)
        report_encode_result(&report, &result);
    else
        report_encode_error(&report, &err);
    if (write(STDOUT_FILENO, report.data, report.length) != (ssize_t)report.length)
        return 2;
    return ok ? 0 : 1;
}
