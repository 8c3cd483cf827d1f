/* Running a command in an image: overlay mount, OCI runtime specification, runtime, streams.
 * Begin with await_container_run(). Supervised containers that outlive the daemon come with
 * davit-shim; here the task that runs a container stays with it. */
#pragma once

#include "daemon/store/store.h"
#include "proto/async/channel.h"
#include "proto/async/stream.h"

struct container_engine;

struct container_engine_options {
    struct store *store;
    const char *data_root; /* containers' upper directories */
    const char *exec_root; /* bundles, sockets, runtime state: tmpfs */
    const char *runtime;   /* NULL: the first of crun, runc that works */
};

/* Containers that a killed daemon left behind are deleted from the runtime, unmounted and removed;
 * the files of those that were not to be removed stay. Makes this process a subreaper (prctl(2)):
 * containers' first processes become its children. A missing runtime is no error here: creating a
 * container says so. Strings are copied. */
struct container_engine *await_container_engine_new(const struct container_engine_options *options,
                                                    struct error *err);
/* Kills what runs and waits for its removal. */
struct container_engine *container_engine_free_await(struct container_engine *engine);

/* "runc" and "1.1.5+ds1". Known a few milliseconds after start, sure once a container was created;
 * "" while unknown or if there is none. */
const char *container_runtime_name(const struct container_engine *engine);
const char *container_runtime_version(const struct container_engine *engine);
/* Were all asked, and did none answer? False while a question is out. */
bool container_runtime_absent(const struct container_engine *engine);
size_t container_count(const struct container_engine *engine);
size_t container_running_count(const struct container_engine *engine);

/* What a container takes on the disk, from memory: as it was when it ended, or at the last count
 * while it runs. The array is the caller's. */
struct container_usage {
    char id[65];
    struct digest image;
    int64_t created_unix;
    uint64_t disk_bytes; /* allocated: its writable layer and its own files of /etc; 0: not known */
    bool running;
};
struct container_usage *container_usage_list(const struct container_engine *engine,
                                             size_t *ret_count);

enum container_network { CONTAINER_NETWORK_NONE, CONTAINER_NETWORK_HOST };

struct container_options {
    struct digest image;     /* ID of an image in the store */
    const char *image_name;  /* as the user called it, for errors */
    char *const *command;    /* NULL or empty: the image's Cmd (unless entrypoint is given) */
    char *const *entrypoint; /* NULL: the image's */
    char *const *env;        /* "K=V" over the image's */
    const char *working_dir; /* NULL: the image's */
    const char *user;        /* NULL: the image's */
    const char *hostname;    /* NULL: the short ID */
    enum container_network network;
    bool attach_stdin;
    bool remove; /* remove its files when it has ended */
};

struct container;

/* Mounts, writes the bundle, creates the container with the runtime; the command does not run yet.
 * Errors carry Docker's exit code for `run` by their reason: COMMAND_NOT_FOUND (127),
 * COMMAND_NOT_EXECUTABLE (126), anything else 125. On failure and on cancel nothing is left. */
struct container *await_container_create(struct container_engine *engine,
                                         const struct container_options *options,
                                         struct error *err);

const char *container_id(const struct container *container); /* 64 hex digits */

/* By its ID or a prefix that only one has, among those that have not been freed. Does not suspend.
 * Borrowed, and valid until the caller's next await: its owner may free it then. NULL with
 * NOT_FOUND (CONTAINER_NOT_FOUND) or INVALID_ARGUMENT (AMBIGUOUS_ID). */
struct container *container_find(const struct container_engine *engine, const char *id,
                                 struct error *err);

/* Its standard streams as pipes, valid until container_free_await; stdin NULL unless attached.
 * Close stdin with container_close_stdin. */
struct stream *container_stdin(struct container *container);
struct stream *container_stdout(struct container *container);
struct stream *container_stderr(struct container *container);
void container_close_stdin(struct container *container);

/* Runs the command. Errors as for create. */
bool await_container_start(struct container *container, struct error *err);

/* Signal to the container's first process. Does not suspend. FAILED_PRECONDITION (NOT_RUNNING)
 * before its start and after its exit, INVALID_ARGUMENT (INVALID_SIGNAL) for no signal's number. */
bool container_signal(struct container *container, int signum, struct error *err);

/* Waits for the exit of its first process: code, or 128 + n for a signal. */
bool await_container_exit(struct container *container, int *ret_exit_code, struct error *err);

/* Kills it if it runs, deletes it from the runtime, unmounts; removes its files if so asked.
 * Suspends, also for a cancelled task. Returns NULL. */
struct container *container_free_await(struct container *container);
