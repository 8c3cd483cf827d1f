/* davit-untar: unpacks one layer for the daemon, confined. Not for people: descriptor 3 is the
 * directory, standard input the tar archive, standard output takes the report (report.h). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "daemon/store/untar/confine.h"
#include "daemon/store/untar/report.h"

#define DIR_FD 3

static ssize_t read_stdin(void *arg UNUSED, void *buffer, size_t size)
{
    ssize_t n;

    do
        n = read(STDIN_FILENO, buffer, size);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static bool run(struct untar_result *result, struct error *err)
{
    const struct untar_input input = {.read = read_stdin};
    CLEANUP_CLOSE int root_fd = confine(DIR_FD, err);

    return root_fd >= 0 && untar(root_fd, &input, result, err);
}

static bool write_report(const struct strbuf *report)
{
    for (size_t done = 0; done < report->length;) {
        ssize_t n = write(STDOUT_FILENO, report->data + done, report->length - done);
        if (n < 0 && errno != EINTR)
            return false;
        done += n < 0 ? 0 : (size_t)n;
    }
    return true;
}

int main(int argc, char **argv UNUSED)
{
    CLEANUP(untar_result_done) struct untar_result result = {0};
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_STRBUF struct strbuf report = {0};
    bool ok;

    if (argc > 1 || isatty(STDIN_FILENO)) {
        fprintf(stderr, "davit-untar is run by davitd, not by hand\n");
        return 2;
    }
    /* A daemon that was killed must not leave somebody behind who writes to its store. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    ok = run(&result, &err);
    if (ok)
        report_encode_result(&report, &result);
    else
        report_encode_error(&report, &err);
    ok = write_report(&report) && ok;
    /* Without the exit handlers of sanitizers, which want /proc. */
    _exit(ok ? 0 : 1);
}
