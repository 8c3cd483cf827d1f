#include "daemon/store/archive_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "daemon/store/archive/report.h"
#include "proto/async/await.h"

#define FIRST_FD 3 /* the program's own begin here */
#define PIPE_BYTES (1 * MIB)

/* Sanitizers and fault points take their options from the environment; nothing else of ours needs
 * it. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(DAVIT_FAULT_POINTS)
#define READER_ENVIRONMENT NULL
#else
static char *const empty_environment[] = {NULL};
#define READER_ENVIRONMENT empty_environment
#endif

struct archive_reader {
    struct stream *input;  /* NULL once it is to end */
    struct stream *report; /* what it says at its end */
    struct process *process;
};

struct archive_reader *await_archive_reader_start(const char *program, const int *fds,
                                                  size_t fd_count, struct error *err)
{
    CLEANUP_CLOSE int input_fd = -1;
    CLEANUP_CLOSE int report_fd = -1;
    struct process_options options = {
        .argv = (char *const[]){(char *)program, NULL},
        .envp = READER_ENVIRONMENT,
        .fd_count = FIRST_FD + fd_count,
    };
    struct archive_reader *reader;
    int our_input_fd, our_report_fd, r;

    if ((r = pipe_cloexec(&input_fd, &our_input_fd)) < 0) {
        error_set_errno(err, r, "cannot make a pipe");
        return NULL;
    }
    reader = xcalloc(1, sizeof(*reader));
    reader->input = stream_new(our_input_fd);
    r = pipe_cloexec(&our_report_fd, &report_fd);
    if (r == 0) {
        reader->report = stream_new(our_report_fd);
        fcntl(input_fd, F_SETPIPE_SZ, (int)PIPE_BYTES); /* smaller only means more switches */
        options.fds[STDIN_FILENO] = input_fd;
        options.fds[STDOUT_FILENO] = report_fd;
        options.fds[STDERR_FILENO] = STDERR_FILENO;
        if (fd_count > 0)
            memcpy(options.fds + FIRST_FD, fds, fd_count * sizeof(*fds));
        reader->process = await_process_start(&options, err);
    } else
        error_set_errno(err, r, "cannot make a pipe");
    if (reader->process)
        return reader;
    archive_reader_end_await(reader);
    return NULL;
}

void archive_reader_end_await(struct archive_reader *reader)
{
    if (!reader)
        return;
    stream_free(reader->input);
    stream_free(reader->report);
    if (reader->process) {
        CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();
        process_kill(reader->process, SIGKILL);
        await_process(reader->process, NULL);
        process_free(reader->process);
    }
    free(reader);
}

/* Reads the report to its end, and waits for the end of the process. */
static bool await_report(struct archive_reader *reader, struct layer_report *ret, struct error *err)
{
    CLEANUP_STRBUF struct strbuf report = {0};
    int status = 0, r;

    for (;;) {
        ssize_t n;
        strbuf_reserve(&report, 4096);
        n = await_read(reader->report, report.data + report.length, 4096);
        if (n < 0)
            return await_error(err, (int)n, "reading the archive");
        if (n == 0)
            break;
        report.length += (size_t)n;
        if (report.length > REPORT_MAX)
            return error_set(err, ERROR_INTERNAL, "UNPACKER_FAILED",
                             "the unpacker reports without end");
    }
    if ((r = await_process(reader->process, &status)) < 0)
        return await_error(err, r, "reading the archive");
    if (report.length == 0)
        return error_set(err, ERROR_INTERNAL, "UNPACKER_FAILED",
                         "the unpacker ended with status %d: the archive is hostile, or memory is "
                         "short",
                         status);
    return report_decode(report.data, report.length, ret, err);
}

bool await_archive_reader_write(struct archive_reader *reader, const void *data, size_t size,
                                struct error *err)
{
    CLEANUP(layer_report_done) struct layer_report result = {0};
    int r = await_write(reader->input, data, size);

    if (r == 0)
        return true;
    if (r != -EPIPE)
        return await_error(err, r, "reading the archive");
    /* It reads to the end of all archives but those that it refuses. */
    if (await_report(reader, &result, err))
        error_set(err, ERROR_INTERNAL, "UNPACKER_FAILED", "the unpacker ended early");
    return false;
}

bool await_archive_reader_finish(struct archive_reader *reader, struct layer_report *ret,
                                 struct error *err)
{
    reader->input = stream_free(reader->input);
    return await_report(reader, ret, err);
}

/* --- Those that say more -----------------------------------------------------------------------
 */

struct stream *archive_reader_input(struct archive_reader *reader)
{
    return reader->input;
}

struct stream *archive_reader_output(struct archive_reader *reader)
{
    return reader->report;
}

void archive_reader_end_input(struct archive_reader *reader)
{
    reader->input = stream_free(reader->input);
}

int await_archive_reader_status(struct archive_reader *reader, int *ret_status)
{
    return await_process(reader->process, ret_status);
}
