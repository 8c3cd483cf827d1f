#include "daemon/container/container.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "daemon/container/engine.h"
#include "daemon/container/kept.h"
#include "daemon/container/prepare.h"
#include "proto/async/await.h"
#include "proto/async/loop.h"
#include "proto/base/log.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

#define SHORT_ID_LENGTH 12

struct container {
    struct list node;
    struct container_engine *engine;
    char id[65];
    struct container_paths paths;
    struct digest image;
    int64_t created_unix;
    uint64_t disk_bytes; /* at the last count */
    struct image_hold *hold;
    struct digest *diff_ids; /* bottom first */
    char **layer_dirs;       /* of those that are mounted, in the same order */
    size_t layer_count, mounted_count;
    const struct runtime *runtime; /* NULL until it has created the container */
    struct stream *stdin_stream, *stdout_stream, *stderr_stream;
    int pidfd;
    uv_poll_t *exit_poll; /* on pidfd, until the exit */
    bool remove, created, started, exited;
    int exit_code;
    struct wait_queue exit_queue;
};

/* --- Its parts ----------------------------------------------------------------------------------
 */

/* 64 hex digits. The first 12 become the hostname, which must not look like a number. */
static void make_id(char id[65])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t bytes[32];

    do {
        if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
            die("the system gives no random bytes");
        for (size_t i = 0; i < sizeof(bytes); i++) {
            id[2 * i] = digits[bytes[i] >> 4];
            id[2 * i + 1] = digits[bytes[i] & 15];
        }
        id[64] = '\0';
    } while (strspn(id, "0123456789") >= SHORT_ID_LENGTH);
}

static struct container *container_new(struct container_engine *engine,
                                       const struct container_options *options)
{
    struct container *container = xcalloc(1, sizeof(*container));

    container->engine = engine;
    container->remove = options->remove;
    container->pidfd = -1;
    make_id(container->id);
    container_paths_init(&container->paths, engine->data_root, engine->exec_root, container->id);
    wait_queue_init(&container->exit_queue);
    container->created_unix = time(NULL);
    list_append(&engine->containers, &container->node);
    wake_all(&engine->container_came);
    return container;
}

/* Copies from the store what must outlive the next await. */
static bool take_image(struct container *container, const struct container_options *options,
                       struct error *err)
{
    bool ambiguous = false;
    const struct image *image =
        image_find_id(container->engine->store, options->image.text, &ambiguous);

    if (!image) {
        error_set(err, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "No such image: %s",
                  options->image_name ? options->image_name : options->image.text);
        return error_hint(err, "get it with: davit pull %s",
                          options->image_name ? options->image_name : "NAME");
    }
    container->image = image->id;
    container->hold =
        image_hold_new(container->engine->store, &container->image, container->id, true);
    container->layer_count = image->diff_id_count;
    container->diff_ids = xmemdup(image->diff_ids, sizeof(struct digest) * image->diff_id_count);
    container->layer_dirs = xcalloc(image->diff_id_count + 1, sizeof(char *));
    return true;
}

static bool await_mount_layers(struct container *container, struct error *err)
{
    while (container->mounted_count < container->layer_count) {
        size_t i = container->mounted_count;
        if (!await_layer_mount(container->engine->store, &container->diff_ids[i],
                               &container->layer_dirs[i], err))
            return false;
        container->mounted_count++;
    }
    return true;
}

/* --- Streams ------------------------------------------------------------------------------------
 */

/* A pipe per stream. The ends of ours become streams, those of the container are in fds. */
struct pipes {
    int fds[3]; /* the container's stdin, stdout, stderr; -1: /dev/null */
};

static void pipes_done(struct pipes *pipes)
{
    for (size_t i = 0; i < ARRAY_SIZE(pipes->fds); i++)
        close_fd(&pipes->fds[i]);
}

/* Belongs to the container's user, who may open /dev/stdout again. */
static bool own_pipe(int fd, const struct preparation *prepared, struct error *err)
{
    if (fchown(fd, prepared->uid, prepared->gid) == 0)
        return true;
    return error_set_errno(err, errno, "cannot give a pipe to user %u", prepared->uid);
}

static bool make_pipe(struct stream **ret_stream, int *ret_fd, bool container_reads,
                      const struct preparation *prepared, struct error *err)
{
    int reader, writer, r = pipe_cloexec(&reader, &writer);

    if (r < 0)
        return error_set_errno(err, r, "cannot create a pipe");
    *ret_stream = stream_new(container_reads ? writer : reader);
    *ret_fd = container_reads ? reader : writer;
    fcntl(stream_fd(*ret_stream), F_SETFL, O_NONBLOCK);
    return own_pipe(*ret_fd, prepared, err);
}

static void close_streams(struct container *container)
{
    container->stdin_stream = stream_free(container->stdin_stream);
    container->stdout_stream = stream_free(container->stdout_stream);
    container->stderr_stream = stream_free(container->stderr_stream);
}

static bool make_pipes(struct container *container, bool attach_stdin,
                       const struct preparation *prepared, struct pipes *ret, struct error *err)
{
    return (!attach_stdin ||
            make_pipe(&container->stdin_stream, &ret->fds[0], true, prepared, err)) &&
           make_pipe(&container->stdout_stream, &ret->fds[1], false, prepared, err) &&
           make_pipe(&container->stderr_stream, &ret->fds[2], false, prepared, err);
}

/* --- Its first process --------------------------------------------------------------------------
 */

static void on_poll_closed(uv_handle_t *handle)
{
    free(handle);
}

static void stop_watching(struct container *container)
{
    if (!container->exit_poll)
        return;
    uv_close((uv_handle_t *)container->exit_poll, on_poll_closed);
    container->exit_poll = NULL;
}

static void note_exit(struct container *container, int exit_code)
{
    stop_watching(container);
    container->exited = true;
    container->exit_code = exit_code;
    image_hold_set_running(container->hold, false);
    wake_all(&container->exit_queue);
}

static void on_exit_event(uv_poll_t *handle, int status UNUSED, int events UNUSED)
{
    struct container *container = handle->data;
    siginfo_t info = {0};

    if (waitid(P_PIDFD, (id_t)container->pidfd, &info, WEXITED | WNOHANG) < 0) {
        if (errno == EINTR)
            return; /* the poll fires again */
        log_error("the exit status of a container is lost", LOG("id", (char *)container->id),
                  LOG("error", strerror(errno)));
        note_exit(container, 255);
    } else if (info.si_pid != 0) {
        note_exit(container, info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status);
    }
}

/* The process is our child since the runtime ended, so its pid cannot be another's by now. */
static bool watch_process(struct container *container, pid_t pid, struct error *err)
{
    uv_poll_t *poll;
    int r;

    container->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (container->pidfd < 0)
        return error_set_errno(err, errno, "cannot watch process %d", pid);
    fcntl(container->pidfd, F_SETFD, FD_CLOEXEC);
    poll = xcalloc(1, sizeof(*poll));
    if ((r = uv_poll_init(loop_uv(), poll, container->pidfd)) < 0) {
        free(poll);
        return error_set_errno(err, r, "cannot watch process %d", pid);
    }
    poll->data = container;
    container->exit_poll = poll;
    uv_poll_start(poll, UV_READABLE, on_exit_event);
    return true;
}

void container_kill(struct container *container)
{
    if (container->pidfd >= 0 && !container->exited)
        syscall(SYS_pidfd_send_signal, container->pidfd, SIGKILL, NULL, 0);
}

/* --- Creating -----------------------------------------------------------------------------------
 */

/* One runtime's attempt. A failed one leaves nothing in the runtime's state, and no streams. */
static bool await_attempt(struct container *container, const struct runtime *runtime,
                          const struct container_options *options,
                          const struct preparation *prepared, struct error *err)
{
    CLEANUP(pipes_done) struct pipes pipes = {{-1, -1, -1}};
    struct runtime_create create = {.id = container->id, .bundle = container->paths.bundle_dir};
    pid_t pid = 0;

    if (!make_pipes(container, options->attach_stdin, prepared, &pipes, err)) {
        close_streams(container);
        return false;
    }
    memcpy(create.fds, pipes.fds, sizeof(create.fds));
    create.stderr_reader = stream_fd(container->stderr_stream);
    container->runtime = runtime;
    if (await_runtime_create(runtime, &create, &pid, err) && watch_process(container, pid, err)) {
        container->created = true;
        return true;
    }
    close_streams(container);
    if (runtime_owning(&container->engine->runtimes, container->id)) {
        CLEANUP(task_unshield) struct task_shield shield = task_shield();
        CLEANUP_ERROR struct error problem = {0};
        if (!await_runtime_delete(runtime, container->id, &problem))
            log_warn("cannot delete a container", LOG("id", (char *)container->id),
                     LOG("error", problem.message));
    }
    if (pid > 0)
        waitpid(pid, NULL, WNOHANG); /* a process that could not be watched */
    container->runtime = NULL;
    return false;
}

static bool is_about_the_command(const struct error *err)
{
    return error_is(err, "COMMAND_NOT_FOUND") || error_is(err, "COMMAND_NOT_EXECUTABLE");
}

/* Tries the runtimes in order; the first that gets as far as the command is the chosen one. */
static bool await_create_by_runtime(struct container *container,
                                    const struct container_options *options,
                                    const struct preparation *prepared, struct error *err)
{
    struct runtime_set *set = &container->engine->runtimes;
    struct runtime *candidates[RUNTIME_MAX];
    size_t count = runtime_candidates(set, candidates);
    bool all_missing = true;
    int r;

    for (size_t i = 0; i < count; i++) {
        CLEANUP_ERROR struct error problem = {0};
        bool ok = await_attempt(container, candidates[i], options, prepared, &problem);
        if (ok || is_about_the_command(&problem)) {
            set->chosen = candidates[i];
            return ok || error_move(err, &problem);
        }
        if (error_is(&problem, "RUNTIME_MISSING")) {
            if (!set->chosen)
                continue;
            set->chosen = NULL; /* uninstalled: look again */
            return await_create_by_runtime(container, options, prepared, err);
        }
        if ((r = task_check()) < 0)
            return await_error(err, r, "creating a container");
        if (i + 1 < count)
            log_warn("an OCI runtime cannot create containers here",
                     LOG("runtime", candidates[i]->name), LOG("error", problem.message));
        all_missing = false;
        error_move(err, &problem);
    }
    return all_missing ? runtime_missing(set, err) : false;
}

static void container_cleanup_await(struct container **container)
{
    if (*container)
        (*container)->remove = true; /* it never was: nothing of it stays */
    *container = container_free_await(*container);
}

struct container *await_container_create(struct container_engine *engine,
                                         const struct container_options *options, struct error *err)
{
    CLEANUP(container_cleanup_await) struct container *container = container_new(engine, options);
    CLEANUP(image_data_done) struct image_data data = {0};
    struct preparation job = {
        .id = container->id,
        .paths = &container->paths,
        .options = options,
    };
    int r;

    if (!take_image(container, options, err) ||
        !await_image_data(engine->store, &container->image, &data, err) ||
        !await_mount_layers(container, err))
        return NULL;
    job.config_data = data.config;
    job.config_size = data.config_size;
    job.lower_dirs = container->layer_dirs;
    job.lower_count = container->layer_count;
    job.diff_ids = container->diff_ids;
    if ((r = await_work(prepare_container, &job, "preparing a container")) < 0) {
        await_error(err, r, "preparing a container");
        return NULL;
    }
    if (!job.ok) {
        error_move(err, &job.err);
        return NULL;
    }
    if (!await_create_by_runtime(container, options, &job, err))
        return NULL;
    if ((r = task_check()) < 0) {
        await_error(err, r, "creating a container");
        return NULL;
    }
    log_debug("created container", LOG("id", (char *)container->id),
              LOG("runtime", container->runtime->name));
    return TAKE(container);
}

/* --- Running ------------------------------------------------------------------------------------
 */

bool await_container_start(struct container *container, struct error *err)
{
    if (container->started) {
        return error_set(err, ERROR_FAILED_PRECONDITION, "ALREADY_STARTED",
                         "container %.12s has been started", container->id);
    }
    if (!await_runtime_start(container->runtime, container->id, container->paths.bundle_dir, err))
        return false;
    container->started = true;
    return true;
}

bool container_signal(struct container *container, int signum, struct error *err)
{
    if (signum < 1 || signum >= NSIG) {
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_SIGNAL", "invalid signal: %d",
                         signum);
    }
    /* Before the start the first process is still the runtime's own. */
    if (container_is_running(container) &&
        syscall(SYS_pidfd_send_signal, container->pidfd, signum, NULL, 0) == 0)
        return true;
    if (!container_is_running(container) || errno == ESRCH) {
        return error_set(err, ERROR_FAILED_PRECONDITION, "NOT_RUNNING",
                         "container %.12s is not running", container->id);
    }
    return error_set_errno(err, errno, "cannot send signal %d to container %.12s", signum,
                           container->id);
}

bool await_container_exit(struct container *container, int *ret_exit_code, struct error *err)
{
    int r = task_check();

    while (r == 0 && !container->exited)
        r = await_wake(&container->exit_queue, "waiting for a container");
    if (r < 0)
        return await_error(err, r, "waiting for container %.12s", container->id);
    if (ret_exit_code)
        *ret_exit_code = container->exit_code;
    return true;
}

/* --- The end ------------------------------------------------------------------------------------
 */

static void leave_runtime_await(struct container *container)
{
    CLEANUP_ERROR struct error err = {0};

    container_kill(container);
    while (container->created && !container->exited)
        await_wake(&container->exit_queue, "waiting for a killed container");
    if (container->runtime && !await_runtime_delete(container->runtime, container->id, &err))
        log_warn("cannot delete a container", LOG("id", (char *)container->id),
                 LOG("error", err.message));
}

static void leave_files_await(struct container *container)
{
    CLEANUP_ERROR struct error err = {0};

    if (!remove_files_await(&container->paths, !container->remove, &err))
        log_warn("cannot remove a container's files", LOG("id", (char *)container->id),
                 LOG("error", err.message));
    else if (!container->remove)
        kept_add_await(container->engine, container);
    while (container->mounted_count > 0) {
        layer_unmount_await(container->engine->store,
                            &container->diff_ids[--container->mounted_count]);
    }
}

struct container *container_free_await(struct container *container)
{
    struct container_engine *engine;

    if (!container)
        return NULL;
    CLEANUP(task_unshield) struct task_shield shield = task_shield();
    engine = container->engine;
    leave_runtime_await(container);
    leave_files_await(container);
    image_hold_free(container->hold);
    stop_watching(container);
    close_streams(container);
    close_fd(&container->pidfd);
    strv_free(container->layer_dirs);
    free(container->diff_ids);
    container_paths_done(&container->paths);
    list_remove(&container->node);
    wake_all(&engine->container_gone);
    free(container);
    return NULL;
}

/* --- Looking at it ------------------------------------------------------------------------------
 */

const char *container_id(const struct container *container)
{
    return container->id;
}

struct container *container_find(const struct container_engine *engine, const char *id,
                                 struct error *err)
{
    struct container *found = NULL;

    LIST_FOR_EACH (node, &engine->containers) {
        struct container *container = container_of_node(node);
        if (str_empty(id) || !str_starts(container->id, id))
            continue;
        if (found) {
            error_set(err, ERROR_INVALID_ARGUMENT, "AMBIGUOUS_ID",
                      "more than one container has an ID that begins with %s", id);
            error_hint(err, "give more of its digits");
            return NULL;
        }
        found = container;
    }
    if (!found)
        error_set(err, ERROR_NOT_FOUND, "CONTAINER_NOT_FOUND", "No such container: %.128s", id);
    return found;
}

struct stream *container_stdin(struct container *container)
{
    return container->stdin_stream;
}

struct stream *container_stdout(struct container *container)
{
    return container->stdout_stream;
}

struct stream *container_stderr(struct container *container)
{
    return container->stderr_stream;
}

void container_close_stdin(struct container *container)
{
    container->stdin_stream = stream_free(container->stdin_stream);
}

struct container *container_of_node(struct list *node)
{
    return LIST_ITEM(node, struct container, node);
}

struct container_usage container_usage(const struct container *container)
{
    struct container_usage usage = {
        .image = container->image,
        .created_unix = container->created_unix,
        .disk_bytes = container->disk_bytes,
        .running = container_is_running(container),
    };

    memcpy(usage.id, container->id, sizeof(usage.id));
    return usage;
}

const struct digest *container_layers(const struct container *container, size_t *ret_count)
{
    *ret_count = container->layer_count;
    return container->diff_ids;
}

void container_set_disk_bytes(struct container *container, uint64_t disk_bytes)
{
    container->disk_bytes = disk_bytes;
}

bool container_is_running(const struct container *container)
{
    return container->started && !container->exited;
}
