#include "daemon/container/runtime.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

#include "proto/async/await.h"
#include "proto/async/stream.h"
#include "proto/base/json.h"
#include "proto/base/log.h"
#include "proto/base/strbuf.h"

#define CALL_TIMEOUT_MS 60000ULL
#define VERSION_TIMEOUT_MS 10000
#define GRACE_MS 10000ULL /* for a call whose task was cancelled */
#define OUTPUT_LIMIT_BYTES (64 * KIB)
#define MESSAGE_LIMIT_BYTES 2048

/* --- Which ------------------------------------------------------------------------------------ */

static void runtime_add(struct runtime_set *set, const char *command, const char *exec_root)
{
    struct runtime *runtime = &set->items[set->count++];
    const char *slash = strrchr(command, '/');

    runtime->name = xstrdup(slash ? slash + 1 : command);
    runtime->command = xstrdup(command);
    runtime->timeout_ms = CALL_TIMEOUT_MS;
    runtime->state_root = xasprintf("%s/runtime/%s", exec_root, runtime->name);
}

void runtime_set_init(struct runtime_set *set, const char *configured, const char *exec_root)
{
    *set = (struct runtime_set){0};
    if (!str_empty(configured)) {
        runtime_add(set, configured, exec_root);
        return;
    }
    runtime_add(set, "crun", exec_root);
    runtime_add(set, "runc", exec_root);
}

void runtime_set_done(struct runtime_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        free(set->items[i].name);
        free(set->items[i].command);
        free(set->items[i].version);
        free(set->items[i].state_root);
    }
    *set = (struct runtime_set){0};
}

/* From "runc version 1.1.5+ds1\n..." the word after "version". */
static char *parse_version(const char *output)
{
    const char *word = strstr(output, "version ");

    if (!word)
        return NULL;
    word += strlen("version ");
    return xstrndup(word, strcspn(word, " \n\t"));
}

void await_runtime_versions(struct runtime_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        struct runtime *runtime = &set->items[i];
        char *const argv[] = {runtime->command, "--version", NULL};
        CLEANUP(deadline_pop) struct deadline deadline;
        CLEANUP_ERROR struct error err = {0};
        CLEANUP_FREE char *output = NULL;
        int status = 0;

        deadline_push(&deadline, VERSION_TIMEOUT_MS);
        if (!await_command(argv, OUTPUT_LIMIT_BYTES, &status, &output, NULL, &err))
            log_debug("OCI runtime is not usable", LOG("error", err.message));
        else if (status == 0)
            runtime->version = parse_version(output);
    }
}

const struct runtime *runtime_preferred(const struct runtime_set *set)
{
    if (set->chosen)
        return set->chosen;
    for (size_t i = 0; i < set->count; i++) {
        if (set->items[i].version)
            return &set->items[i];
    }
    return NULL;
}

size_t runtime_candidates(struct runtime_set *set, struct runtime *ret[RUNTIME_MAX])
{
    if (set->chosen) {
        ret[0] = set->chosen;
        return 1;
    }
    for (size_t i = 0; i < set->count; i++)
        ret[i] = &set->items[i];
    return set->count;
}

struct runtime *runtime_owning(struct runtime_set *set, const char *id)
{
    for (size_t i = 0; i < set->count; i++) {
        CLEANUP_FREE char *path = xasprintf("%s/%s", set->items[i].state_root, id);
        if (access(path, F_OK) == 0)
            return &set->items[i];
    }
    return NULL;
}

bool runtime_missing(const struct runtime_set *set, struct error *err)
{
    if (set->count == 1) {
        error_set(err, ERROR_FAILED_PRECONDITION, "RUNTIME_MISSING",
                  "cannot run containers: there is no OCI runtime \"%s\"", set->items[0].command);
        return error_hint(err, "install it, or give another with --runtime (crun, runc or a path)");
    }
    error_set(err, ERROR_FAILED_PRECONDITION, "RUNTIME_MISSING",
              "cannot run containers: no OCI runtime is installed, neither crun nor runc");
    return error_hint(err, "install one, for example: apt-get install runc");
}

/* --- Calling it ------------------------------------------------------------------------------- */

struct call {
    struct process *process;
    struct loop_timer timer;
    bool timed_out;
};

/* A runtime's helpers are in its session; a container's first process is not. */
static void on_timeout(struct loop_timer *timer)
{
    struct call *call = CONTAINER_OF(timer, struct call, timer);
    pid_t pid = process_pid(call->process);

    call->timed_out = true;
    if (process_kill(call->process, SIGKILL) == 0)
        kill(-pid, SIGKILL);
}

/* The daemon's environment has things in it that runtimes act upon, such as NOTIFY_SOCKET. Also for
 * a cancelled task: a runtime that was killed at its first steps would leave half of them. */
static struct process *await_start(char *const *argv, const int fds[3], struct error *err)
{
    const char *path = getenv("PATH");
    CLEANUP_FREE char *path_item =
        xasprintf("PATH=%s", path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
    char *envp[] = {path_item, NULL};
    struct process_options options = {
        .argv = argv,
        .envp = envp,
        .fds = {fds[0], fds[1], fds[2]},
        .fd_count = 3,
        .new_session = true,
    };
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();

    return await_process_start(&options, err);
}

/* Runs it to its end, whatever happens to the task meanwhile: also a cancelled task learns what a
 * call has done that ended in time. */
static bool await_call(const struct runtime *runtime, char *const *argv, const int fds[3],
                       int *ret_status, struct error *err)
{
    CLEANUP(process_cleanup) struct process *process = NULL;
    struct call call = {0};
    int r;

    if ((r = task_check()) < 0)
        return await_error(err, r, "running %s", runtime->name);
    process = await_start(argv, fds, err);
    if (!process) {
        if (err->code == ERROR_NOT_FOUND)
            error_set(err, ERROR_NOT_FOUND, "RUNTIME_MISSING", "there is no OCI runtime \"%s\"",
                      runtime->command);
        return false;
    }
    call.process = process;
    loop_timer_start(&call.timer, runtime->timeout_ms, on_timeout);
    if ((r = await_process(process, ret_status)) < 0) {
        CLEANUP(task_unshield) struct task_shield shield = task_shield();
        loop_timer_start(&call.timer, MIN(runtime->timeout_ms, GRACE_MS), on_timeout);
        await_process(process, ret_status);
    }
    loop_timer_stop(&call.timer);
    if (call.timed_out && r < 0)
        return await_error(err, r, "running %s", runtime->name);
    if (call.timed_out) {
        error_set(err, ERROR_DEADLINE_EXCEEDED, "RUNTIME_TIMEOUT",
                  "the OCI runtime %s did not end within %llu ms: killed", runtime->name,
                  (unsigned long long)runtime->timeout_ms);
        return error_hint(err, "see whether `%s --root %s list` answers", runtime->command,
                          runtime->state_root);
    }
    return true;
}

/* --- What it says ----------------------------------------------------------------------------- */

/* One line for people out of a stranger's bytes. */
static char *one_line(const char *text)
{
    CLEANUP_FREE char *copy = xstrndup(text, MESSAGE_LIMIT_BYTES);
    size_t length = strlen(copy);

    while (length > 0 && isspace((unsigned char)copy[length - 1]))
        copy[--length] = '\0';
    for (size_t i = 0; i < length; i++) {
        if (iscntrl((unsigned char)copy[i]))
            copy[i] = ' ';
    }
    return length > 0 ? TAKE(copy) : NULL;
}

char *runtime_log_error(const char *log, size_t size)
{
    char *result = NULL;

    while (size > 0) {
        const char *end = memchr(log, '\n', size);
        size_t length = end ? (size_t)(end - log) : size;
        CLEANUP_JSON json_t *line = json_parse(log, length, OUTPUT_LIMIT_BYTES, "log", NULL);
        const char *level = json_str(line, "level"), *message = json_str(line, "msg");
        if (message && (str_eq(level, "error") || str_eq(level, "fatal"))) {
            free(result);
            result = one_line(message);
        }
        length += end ? 1 : 0;
        log += length;
        size -= length;
    }
    return result;
}

/* What is there to read now, at most OUTPUT_LIMIT_BYTES. */
static void read_available(int fd, struct strbuf *ret)
{
    char buffer[1024];
    ssize_t n;

    while (fd >= 0 && ret->length < OUTPUT_LIMIT_BYTES &&
           (n = read(fd, buffer, sizeof(buffer))) > 0)
        strbuf_add(ret, buffer, (size_t)n);
}

static char *last_line(const struct strbuf *text)
{
    CLEANUP_FREE char *copy = xstrdup(strbuf_text(text));
    size_t length = strlen(copy);
    const char *newline;

    while (length > 0 && isspace((unsigned char)copy[length - 1]))
        copy[--length] = '\0';
    newline = strrchr(copy, '\n');
    return one_line(newline ? newline + 1 : copy);
}

static bool contains(const char *text, const char *part)
{
    return strcasestr(text, part) != NULL;
}

const char *runtime_error_reason(const char *text)
{
    /* runc: `exec: "nope": executable file not found in $PATH`; crun: "executable file `nope` not
     * found" and "open executable: Permission denied". */
    if (!contains(text, "exec: \"") && !contains(text, "executable"))
        return "RUNTIME_FAILED";
    if (contains(text, "not found") || contains(text, "no such file or directory"))
        return "COMMAND_NOT_FOUND";
    if (contains(text, "permission denied") || contains(text, "not permitted") ||
        contains(text, "is a directory") || contains(text, "exec format error"))
        return "COMMAND_NOT_EXECUTABLE";
    return "RUNTIME_FAILED";
}

/* Some failures are in the log, some only on stderr. */
static bool call_failed(const struct runtime *runtime, const char *step, const char *log_path,
                        int stderr_fd, int status, struct error *err)
{
    CLEANUP(strbuf_done) struct strbuf log = {0};
    CLEANUP(strbuf_done) struct strbuf output = {0};
    CLEANUP_CLOSE int log_fd = log_path ? open(log_path, O_RDONLY | O_CLOEXEC) : -1;
    CLEANUP_FREE char *text = NULL;
    const char *reason;

    read_available(log_fd, &log);
    read_available(stderr_fd, &output);
    text = runtime_log_error(strbuf_text(&log), log.length);
    if (!text)
        text = last_line(&output);
    if (!text)
        text = xasprintf("%s ended with status %d and said nothing", runtime->name, status);
    reason = runtime_error_reason(text);
    error_set(err, str_eq(reason, "RUNTIME_FAILED") ? ERROR_INTERNAL : ERROR_FAILED_PRECONDITION,
              reason, "OCI runtime %s failed: %s", step, text);
    if (str_eq(reason, "COMMAND_NOT_FOUND"))
        error_hint(err, "see whether the image has this command and how its path is spelled");
    else if (str_eq(reason, "COMMAND_NOT_EXECUTABLE"))
        error_hint(err, "the command must be a program or script with execute permission");
    return false;
}

/* --- Steps ------------------------------------------------------------------------------------ */

static bool read_pid(const char *path, pid_t *ret, struct error *err)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    char text[32] = "";
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (n <= 0)
        return error_set_errno(err, n < 0 ? errno : ENODATA, "cannot read the pid file %s", path);
    *ret = (pid_t)strtol(text, NULL, 10);
    if (*ret > 1)
        return true;
    return error_set(err, ERROR_INTERNAL, "RUNTIME_FAILED", "the pid file %s has no pid", path);
}

bool await_runtime_create(const struct runtime *runtime, const struct runtime_create *create,
                          pid_t *ret_pid, struct error *err)
{
    CLEANUP_FREE char *log_path = xasprintf("%s/log.json", create->bundle);
    CLEANUP_FREE char *pid_path = xasprintf("%s/pid", create->bundle);
    char *const argv[] = {
        runtime->command,
        "--root",
        runtime->state_root,
        "--log",
        log_path,
        "--log-format",
        "json",
        "create",
        "--bundle",
        (char *)create->bundle,
        "--pid-file",
        pid_path,
        (char *)create->id,
        NULL,
    };
    int status = 0;

    unlink(log_path); /* of another runtime that failed */
    if (!await_call(runtime, argv, create->fds, &status, err))
        return false;
    if (status != 0)
        return call_failed(runtime, "create", log_path, create->stderr_reader, status, err);
    return read_pid(pid_path, ret_pid, err);
}

/* A step whose output matters only if it fails. */
static bool await_step(const struct runtime *runtime, const char *step, char *const *argv,
                       const char *log_path, struct error *err)
{
    CLEANUP_CLOSE int reader = -1;
    CLEANUP_CLOSE int writer = -1;
    int status = 0, r = pipe_cloexec(&reader, &writer);

    if (r < 0)
        return error_set_errno(err, r, "cannot run %s", runtime->name);
    fcntl(reader, F_SETFL, O_NONBLOCK);
    if (!await_call(runtime, argv, (const int[]){-1, -1, writer}, &status, err))
        return false;
    return status == 0 || call_failed(runtime, step, log_path, reader, status, err);
}

bool await_runtime_start(const struct runtime *runtime, const char *id, const char *bundle,
                         struct error *err)
{
    CLEANUP_FREE char *log_path = xasprintf("%s/log.json", bundle);
    char *const argv[] = {
        runtime->command, "--root", runtime->state_root, "--log", log_path, "--log-format",
        "json",           "start",  (char *)id,          NULL,
    };

    return await_step(runtime, "start", argv, log_path, err);
}

bool await_runtime_delete(const struct runtime *runtime, const char *id, struct error *err)
{
    char *const argv[] = {runtime->command, "--root", runtime->state_root, "delete", "--force",
                          (char *)id,       NULL};

    return await_step(runtime, "delete", argv, NULL, err);
}
