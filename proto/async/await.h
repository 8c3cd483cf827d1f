/* What a task can wait for, apart from its own kind: time, the thread pool, processes. Files and
 * sockets are in stream.h, messages between tasks in channel.h. All return 0 or a negative errno
 * as task.h says; all must be called from a task. */
#pragma once

#include <sys/types.h>

#include "proto/async/task.h"

int await_sleep(uint64_t ms);

/* Runs fn(arg) on libuv's thread pool. fn owns arg alone meanwhile: no state shared with the loop,
 * no task or loop call inside. Cancel before it started withdraws it (-ECANCELED, fn never ran);
 * after that the await lasts until fn returned, and then reports 0: check arg, not the return
 * value, for what was done. `reason` is static text for dumps ("unpacking"). */
int await_work(void (*fn)(void *arg), void *arg, const char *reason);

/* A child process. All descriptors but the mapped ones are closed in it; signals are reset. The
 * flags of a mapped descriptor's file description (O_NONBLOCK) are what they were. */
struct process_options {
    char *const *argv; /* argv[0] is looked up in the caller's PATH */
    char *const *envp; /* NULL: the daemon's environment */
    const char *cwd;   /* NULL: unchanged */
    int fds[8]; /* fds[i] becomes descriptor i of the child; -1: /dev/null (closed, if i > 2) */
    size_t fd_count;  /* of fds; stdin, stdout and stderr are /dev/null where it is less than 3 */
    bool new_session; /* setsid(2) */
};

struct process;

/* Starts it, in the thread pool: until exec(2) is done. NOT_FOUND if there is no such program. The
 * caller keeps its descriptors and frees the process with process_free. Cancel leaves no process:
 * one that had already been started is dead and reaped on return, though it may have run. */
struct process *await_process_start(const struct process_options *options, struct error *err);
pid_t process_pid(const struct process *process);

/* Sends a signal; -ESRCH once the process has been reaped (never a recycled pid). */
int process_kill(struct process *process, int signum);

/* Waits for its end. ret_status: exit code, or 128 + n for a signal. May be called again. */
int await_process(struct process *process, int *ret_status);

/* Frees the object; a process that still runs gets SIGKILL and is reaped in the background. */
struct process *process_free(struct process *process);
static inline void process_cleanup(struct process **process)
{
    *process = process_free(*process);
}

/* Start, collect output (each stream up to limit_bytes, the rest is read and dropped), wait for the
 * end of the process and of its output: a child that it leaves behind with its stdout keeps it.
 * A non-zero exit is not an error here: look at ret_status. Output parameters may be NULL; texts
 * are the caller's. Cancel kills the process with SIGKILL and waits for it. */
bool await_command(char *const *argv, size_t limit_bytes, int *ret_status, char **ret_stdout,
                   char **ret_stderr, struct error *err);
