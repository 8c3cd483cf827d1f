/* The OCI runtime: crun or runc, a program that is called for each step of a container's life.
 *
 * Nouns: a *runtime*; the *runtime set*, those that may be used here. Which one works is known only
 * once it has created a container (crun 1.8, for one, cannot on a hybrid cgroup hierarchy), so the
 * first container decides: begin with runtime_candidates().
 *
 * Every call has a deadline, and a call that was begun ends: cancel lets it finish, for a while, so
 * that it leaves nothing half-made, and reports what it did: the next await fails then. */
#pragma once

#include <sys/types.h>

#include "proto/async/task.h"

struct runtime {
    char *name;          /* "runc" */
    char *command;       /* how it is called: a name to look up in PATH, or a path */
    char *version;       /* "1.1.5"; NULL while it has not answered */
    char *state_root;    /* where it keeps what it knows of its containers */
    uint64_t timeout_ms; /* of each call */
};

#define RUNTIME_MAX 2
struct runtime_set {
    struct runtime items[RUNTIME_MAX];
    size_t count;
    struct runtime *chosen; /* has created a container; NULL before */
};

/* configured: name or path, or NULL for crun and runc. Nothing is run yet. */
void runtime_set_init(struct runtime_set *set, const char *configured, const char *exec_root);
void runtime_set_done(struct runtime_set *set);

/* Asks each for its version. Those that do not answer keep NULL. */
void await_runtime_versions(struct runtime_set *set);

/* The one to show: the chosen one, else the first that has answered; NULL if there is none. */
const struct runtime *runtime_preferred(const struct runtime_set *set);

/* Those to try, in order: only the chosen one, if there is one. */
size_t runtime_candidates(struct runtime_set *set, struct runtime *ret[RUNTIME_MAX]);

/* The runtime that has this container in its state, or NULL. A few system calls. */
struct runtime *runtime_owning(struct runtime_set *set, const char *id);

/* The error when no candidate could be started: which, and what to install. Returns false. */
bool runtime_missing(const struct runtime_set *set, struct error *err);

struct runtime_create {
    const char *id;
    const char *bundle; /* directory with config.json; log.json and pid are written there */
    int fds[3];         /* of the container; -1: /dev/null. Stay the caller's */
    int stderr_reader;  /* other end of fds[2], non-blocking: read for the reason of a failure */
};

/* Creates the container; its first process waits for await_runtime_start. The process is then a
 * child of this process, which must be a subreaper. NOT_FOUND with reason RUNTIME_MISSING if there
 * is no such program. Otherwise reason COMMAND_NOT_FOUND or COMMAND_NOT_EXECUTABLE if the
 * container's command is at fault, RUNTIME_FAILED if not. */
bool await_runtime_create(const struct runtime *runtime, const struct runtime_create *create,
                          pid_t *ret_pid, struct error *err);
bool await_runtime_start(const struct runtime *runtime, const char *id, const char *bundle,
                         struct error *err);

/* Kills what runs, removes cgroups and state. A container that it does not know is success. */
bool await_runtime_delete(const struct runtime *runtime, const char *id, struct error *err);

/* The reason for what a runtime says: COMMAND_NOT_FOUND, COMMAND_NOT_EXECUTABLE or RUNTIME_FAILED.
 * Static. */
const char *runtime_error_reason(const char *text);

/* The last error in a runtime's log (a JSON object per line), the caller's; NULL if there is none.
 * The text is on one line and printable. */
char *runtime_log_error(const char *log, size_t size);
