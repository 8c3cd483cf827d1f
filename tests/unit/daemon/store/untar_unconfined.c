/* The unpacker as a plain process, with none of davit-untar's walls: what keeps an archive inside
 * the directory must hold by itself. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/store/untar/untar.h"

static ssize_t read_stdin(void *arg UNUSED, void *buffer, size_t size)
{
    ssize_t n = read(STDIN_FILENO, buffer, size);

    return n < 0 ? -errno : n;
}

int main(void)
{
    const struct layer_input input = {.read = read_stdin};
    CLEANUP(layer_report_done) struct layer_report result = {0};
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_STRBUF struct strbuf report = {0};
    bool ok;

    umask(0);
    ok = untar(3, &input, &result, &err);
    if (ok)
        report_encode_result(&report, &result);
    else
        report_encode_error(&report, &err);
    if (write(STDOUT_FILENO, report.data, report.length) != (ssize_t)report.length)
        return 2;
    return ok ? 0 : 1;
}
