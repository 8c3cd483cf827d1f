#include <errno.h>
#include <linux/close_range.h>
#include <signal.h>
#include <unistd.h>

#include "proto/async/await.h"
#include "proto/async/internal.h"
#include "proto/async/loop.h"
#include "proto/async/stream.h"
#include "proto/base/strbuf.h"

struct process {
    uv_process_t handle;
    struct wait_queue waiters;
    unsigned int users;    /* tasks inside await_process */
    bool exited, orphaned; /* orphaned: freed by its owner, waits for the end */
    int status;
};

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_exit_of(uv_process_t *handle, int64_t exit_status, int term_signal)
{
    struct process *process = handle->data;

    process->exited = true;
    process->status = term_signal ? 128 + term_signal : (int)exit_status;
    wake_all(&process->waiters);
    if (process->orphaned)
        uv_close((uv_handle_t *)handle, on_closed);
}

static void map_descriptors(const struct process_options *options, uv_stdio_container_t *stdio,
                            int *ret_count)
{
    CHECK(options->fd_count <= ARRAY_SIZE(options->fds));
    for (size_t i = 0; i < options->fd_count; i++) {
        stdio[i].flags = options->fds[i] >= 0 ? UV_INHERIT_FD : UV_IGNORE;
        stdio[i].data.fd = options->fds[i];
    }
    *ret_count = (int)options->fd_count;
}

struct process *process_start(const struct process_options *options, struct error *err)
{
    struct process *process = xcalloc(1, sizeof(*process));
    uv_stdio_container_t stdio[ARRAY_SIZE(options->fds)];
    uv_process_options_t uv = {
        .exit_cb = on_exit_of,
        .file = options->argv[0],
        .args = (char **)options->argv,
        .env = (char **)options->envp,
        .cwd = options->cwd,
        .flags = options->new_session ? UV_PROCESS_DETACHED : 0,
        .stdio = stdio,
    };
    int r;

    map_descriptors(options, stdio, &uv.stdio_count);
    wait_queue_init(&process->waiters);
    process->handle.data = process;
    /* A library may have opened something without CLOEXEC: nothing but the mapped descriptors may
     * reach the child (SECURITY.md, rule 10). */
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    r = uv_spawn(loop_uv(), &process->handle, &uv);
    if (r < 0) {
        if (options->cwd)
            error_set_errno(err, r, "cannot run %s in %s", options->argv[0], options->cwd);
        else
            error_set_errno(err, r, "cannot run %s", options->argv[0]);
        uv_close((uv_handle_t *)&process->handle, on_closed);
        return NULL;
    }
    return process;
}

pid_t process_pid(const struct process *process)
{
    return process->handle.pid;
}

int process_kill(struct process *process, int signum)
{
    return process->exited ? -ESRCH : uv_process_kill(&process->handle, signum);
}

int await_process(struct process *process, int *ret_status)
{
    int r = task_check();

    process->users++;
    while (r == 0 && !process->exited)
        r = await_wake(&process->waiters, "waiting for a process");
    process->users--;
    if (r == 0 && ret_status)
        *ret_status = process->status;
    return r;
}

struct process *process_free(struct process *process)
{
    if (!process)
        return NULL;
    if (process->users)
        die("a process is freed while a task waits for it");
    if (process->exited) {
        uv_close((uv_handle_t *)&process->handle, on_closed);
    } else {
        process->orphaned = true;
        process_kill(process, SIGKILL);
    }
    return NULL;
}

/* --- A whole command -------------------------------------------------------------------------- */

struct collector {
    struct stream *stream;
    struct strbuf text;
    size_t limit_bytes;
};

static bool collect(void *arg, struct error *err)
{
    struct collector *collector = arg;
    char buffer[4096];
    ssize_t n;

    while ((n = await_read(collector->stream, buffer, sizeof(buffer))) > 0) {
        size_t room = collector->limit_bytes - collector->text.length;
        strbuf_add(&collector->text, buffer, MIN((size_t)n, room));
    }
    return n < 0 ? await_error(err, (int)n, "reading a command's output") : true;
}

static void collector_done(struct collector *collector)
{
    stream_free(collector->stream);
    strbuf_done(&collector->text);
}

bool await_command(char *const *argv, size_t limit_bytes, int *ret_status, char **ret_stdout,
                   char **ret_stderr, struct error *err)
{
    CLEANUP(collector_done) struct collector out = {.limit_bytes = limit_bytes};
    CLEANUP(collector_done) struct collector errors = {.limit_bytes = limit_bytes};
    CLEANUP(process_cleanup) struct process *process = NULL;
    CLEANUP(group_done_await) struct group readers;
    CLEANUP_CLOSE int out_fd = -1;
    CLEANUP_CLOSE int errors_fd = -1;
    struct process_options options = {.argv = argv, .fd_count = 3};
    int read_fd, r;

    group_init(&readers);
    if ((r = pipe_cloexec(&read_fd, &out_fd)) < 0)
        return error_set_errno(err, r, "cannot run %s", argv[0]);
    out.stream = stream_new(read_fd);
    if ((r = pipe_cloexec(&read_fd, &errors_fd)) < 0)
        return error_set_errno(err, r, "cannot run %s", argv[0]);
    errors.stream = stream_new(read_fd);
    options.fds[0] = -1;
    options.fds[1] = out_fd;
    options.fds[2] = errors_fd;
    process = process_start(&options, err);
    if (!process)
        return false;
    close_fd(&out_fd);
    close_fd(&errors_fd);
    if (!task_spawn(&readers, "read output of", argv[0], collect, &out, err) ||
        !task_spawn(&readers, "read errors of", argv[0], collect, &errors, err))
        return false;
    if ((r = await_process(process, ret_status)) < 0) {
        CLEANUP(task_unshield) struct task_shield shield = task_shield();
        process_kill(process, SIGKILL);
        await_process(process, NULL);
        return await_error(err, r, "running %s", argv[0]);
    }
    if (!await_group(&readers, err))
        return false;
    if (ret_stdout)
        *ret_stdout = strbuf_take(&out.text);
    if (ret_stderr)
        *ret_stderr = strbuf_take(&errors.text);
    return true;
}
