#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/async/await.h"
#include "proto/async/internal.h"
#include "proto/async/loop.h"
#include "proto/async/stream.h"
#include "proto/base/strbuf.h"

struct process {
    uv_poll_t poll; /* of the pidfd, until it has exited */
    pid_t pid;
    int pidfd;
    struct wait_queue waiters;
    unsigned int users; /* tasks inside await_process */
    bool exited;
    int status;
    struct list orphan_node; /* in `orphans`: freed by its owner, waits for the end */
};

static struct list orphans = {&orphans, &orphans};

/* --- Starting --------------------------------------------------------------------------------- */

struct spawn {
    const struct process_options *options;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int copies[ARRAY_SIZE(((struct process_options *)0)->fds)];
    pid_t pid;
    int pidfd, errnum;
};

/* What is mapped may lie where something else is to be mapped to: it is copied out of the way. */
static int copy_descriptors(struct spawn *spawn)
{
    const struct process_options *options = spawn->options;

    for (size_t i = 0; i < options->fd_count; i++) {
        if (options->fds[i] < 0)
            continue;
        spawn->copies[i] = fcntl(options->fds[i], F_DUPFD_CLOEXEC, (int)ARRAY_SIZE(options->fds));
        if (spawn->copies[i] < 0)
            return errno;
    }
    return 0;
}

static int add_actions(struct spawn *spawn)
{
    const struct process_options *options = spawn->options;
    int count = MAX((int)options->fd_count, STDERR_FILENO + 1), r = 0;

    for (int fd = 0; r == 0 && fd < count; fd++) {
        if (spawn->copies[fd] >= 0)
            r = posix_spawn_file_actions_adddup2(&spawn->actions, spawn->copies[fd], fd);
        else if (fd <= STDERR_FILENO)
            r = posix_spawn_file_actions_addopen(&spawn->actions, fd, "/dev/null", O_RDWR, 0);
        else
            r = posix_spawn_file_actions_addclose(&spawn->actions, fd);
    }
    /* A library may have opened something without CLOEXEC: nothing but the mapped descriptors may
     * reach the child (SECURITY.md, rule 10). */
    if (r == 0)
        r = posix_spawn_file_actions_addclosefrom_np(&spawn->actions, count);
    if (r == 0 && options->cwd)
        r = posix_spawn_file_actions_addchdir_np(&spawn->actions, options->cwd);
    return r;
}

static int set_attributes(struct spawn *spawn)
{
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    sigset_t none, all;

    sigemptyset(&none);
    memset(&all, 0xff, sizeof(all)); /* sigfillset(3) omits two, which would be ignored */
    posix_spawnattr_setsigmask(&spawn->attributes, &none);
    posix_spawnattr_setsigdefault(&spawn->attributes, &all);
    if (spawn->options->new_session)
        flags |= POSIX_SPAWN_SETSID;
    return posix_spawnattr_setflags(&spawn->attributes, flags);
}

static void kill_and_reap(void *arg)
{
    const pid_t *pid = arg;

    kill(*pid, SIGKILL);
    while (waitpid(*pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* glibc's posix_spawn(3) is a vfork that suspends only the thread of the pool that calls it. The
 * pid cannot be another's by the time of pidfd_open(2), since nobody else reaps our children. */
static int spawn_and_open(struct spawn *spawn)
{
    const struct process_options *options = spawn->options;
    int r = posix_spawnp(&spawn->pid, options->argv[0], &spawn->actions, &spawn->attributes,
                         options->argv, options->envp ? options->envp : environ);

    if (r)
        return r;
    spawn->pidfd = pidfd_open(spawn->pid, 0);
    if (spawn->pidfd >= 0)
        return 0;
    r = errno;
    kill_and_reap(&spawn->pid);
    return r;
}

static void spawn_in_pool(void *arg)
{
    struct spawn *spawn = arg;

    for (size_t i = 0; i < ARRAY_SIZE(spawn->copies); i++)
        spawn->copies[i] = -1;
    posix_spawn_file_actions_init(&spawn->actions);
    posix_spawnattr_init(&spawn->attributes);
    spawn->errnum = copy_descriptors(spawn);
    if (spawn->errnum == 0)
        spawn->errnum = add_actions(spawn);
    if (spawn->errnum == 0)
        spawn->errnum = set_attributes(spawn);
    if (spawn->errnum == 0)
        spawn->errnum = spawn_and_open(spawn);
    posix_spawn_file_actions_destroy(&spawn->actions);
    posix_spawnattr_destroy(&spawn->attributes);
    for (size_t i = 0; i < ARRAY_SIZE(spawn->copies); i++)
        close_fd(&spawn->copies[i]);
}

static void on_closed(uv_handle_t *handle)
{
    struct process *process = handle->data;

    close(process->pidfd);
    free(process);
}

static void process_close(struct process *process)
{
    list_remove(&process->orphan_node);
    uv_close((uv_handle_t *)&process->poll, on_closed);
}

static void on_exit_event(uv_poll_t *handle, int status UNUSED, int events UNUSED)
{
    struct process *process = handle->data;
    siginfo_t info = {0};

    if (waitid(P_PIDFD, (id_t)process->pidfd, &info, WEXITED | WNOHANG) < 0 && errno != EINTR)
        die("cannot learn how process %d ended: %s", process->pid, strerror(errno));
    if (info.si_pid == 0)
        return; /* the poll fires again */
    uv_poll_stop(&process->poll);
    process->exited = true;
    process->status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
    wake_all(&process->waiters);
    if (!list_empty(&process->orphan_node))
        process_close(process);
}

static struct process *process_new(const struct spawn *spawn, struct error *err)
{
    struct process *process = xcalloc(1, sizeof(*process));
    int r = uv_poll_init(loop_uv(), &process->poll, spawn->pidfd);

    if (r < 0) {
        free(process);
        error_set_errno(err, r, "cannot watch process %d", spawn->pid);
        return NULL;
    }
    process->pid = spawn->pid;
    process->pidfd = spawn->pidfd;
    process->poll.data = process;
    list_init(&process->orphan_node);
    wait_queue_init(&process->waiters);
    uv_poll_start(&process->poll, UV_READABLE, on_exit_event);
    return process;
}

static void abandon_await(struct spawn *spawn)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();

    await_work(kill_and_reap, &spawn->pid, "ending a process");
    close_fd(&spawn->pidfd);
}

struct process *await_process_start(const struct process_options *options, struct error *err)
{
    struct spawn spawn = {.options = options, .pidfd = -1};
    struct process *process;
    int r;

    CHECK(options->fd_count <= ARRAY_SIZE(options->fds));
    r = await_work(spawn_in_pool, &spawn, "starting a process");
    if (r < 0 || spawn.errnum) {
        if (options->cwd)
            error_set_errno(err, r < 0 ? r : spawn.errnum, "cannot run %s in %s", options->argv[0],
                            options->cwd);
        else
            error_set_errno(err, r < 0 ? r : spawn.errnum, "cannot run %s", options->argv[0]);
        return NULL;
    }
    /* The task may have been cancelled when it was too late to withdraw the start. */
    if ((r = task_check()) < 0)
        error_set_errno(err, r, "running %s", options->argv[0]);
    else if ((process = process_new(&spawn, err)))
        return process;
    abandon_await(&spawn);
    return NULL;
}

pid_t process_pid(const struct process *process)
{
    return process->pid;
}

int process_kill(struct process *process, int signum)
{
    if (process->exited)
        return -ESRCH;
    return pidfd_send_signal(process->pidfd, signum, NULL, 0) < 0 ? -errno : 0;
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
        process_close(process);
    } else {
        list_append(&orphans, &process->orphan_node);
        process_kill(process, SIGKILL);
    }
    return NULL;
}

bool process_is_orphan(const uv_handle_t *handle)
{
    LIST_FOR_EACH (node, &orphans) {
        if ((uv_handle_t *)&LIST_ITEM(node, struct process, orphan_node)->poll == handle)
            return true;
    }
    return false;
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
    process = await_process_start(&options, err);
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
