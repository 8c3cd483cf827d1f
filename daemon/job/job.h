/* Jobs: what takes a while and outlives the client that asked for it. They can be listed, watched
 * by many, changed and cancelled, and how they ended is remembered in the store.
 *
 * Nouns: the *table* of the jobs that run; a *job*, which is a task and the record of it; its
 * *ops*, what a kind of job does; a *snapshot*, the newest state as the bytes that watchers are
 * sent, made once for all of them; a *watch*, somebody who waits for snapshots.
 * To make something a job, write its ops and call job_start(). */
#pragma once

#include "daemon/store/store.h"
#include "proto/base/strbuf.h"

struct job;
struct job_table;

enum job_kind { JOB_PULL, JOB_PUSH, JOB_VERIFY, JOB_PRUNE, JOB_SAVE, JOB_LOAD, JOB_IMPORT };
enum job_state { JOB_RUNNING, JOB_DONE, JOB_FAILED, JOB_CANCELLED, JOB_INTERRUPTED };
enum job_phase { JOB_RESOLVING, JOB_TRANSFERRING, JOB_COMMITTING, JOB_ENDED };
enum job_item_state {
    JOB_ITEM_WAITING,
    JOB_ITEM_RESOLVING,
    JOB_ITEM_FETCHING,
    JOB_ITEM_RATE_LIMITED,
    JOB_ITEM_RETRYING,
    JOB_ITEM_STORING,
    JOB_ITEM_VERIFYING,
    JOB_ITEM_PRESENT,
    JOB_ITEM_SHARED,
    JOB_ITEM_DONE,
    JOB_ITEM_CHECKING,
    JOB_ITEM_MOUNTED,
    JOB_ITEM_SENDING,
};

#define JOB_MAX_ITEMS 256

/* The texts are borrowed from what filled it, until the next await. */
struct job_item {
    const char *id;
    enum job_item_state state;
    uint64_t bytes_fetched, bytes_total, bytes_stored, bytes_resumed, bytes_per_second;
    const char *source;    /* NULL: not known */
    int64_t until_unix_ms; /* 0: not known */
    const char *error;     /* NULL: none */
    unsigned int connections;
};

struct job_progress {
    enum job_phase phase;
    uint64_t bytes_fetched, bytes_total, bytes_per_second;
    unsigned int percent;
    int64_t eta_ms; /* -1 while unknown */
    size_t item_count;
    struct job_item items[JOB_MAX_ITEMS];
};

/* --- What a kind of job does -------------------------------------------------------------------
 */

struct job_ops {
    /* The work. Suspends for as long as it takes; cancel unwinds it. */
    bool (*await_run)(void *arg, struct error *err);
    /* The newest state, into zeroed memory. Does not suspend. May be NULL. The percentage may
     * fall: the table does not show it. */
    void (*progress)(void *arg, struct job_progress *ret);
    /* What only this kind has, as bytes that the table's encode() understands: from the start, and
     * with the result once await_run() has succeeded. Does not suspend. May be NULL. */
    void (*details)(void *arg, struct strbuf *ret);
    /* Changes the rate limit while it runs; 0: none. NULL: it has none. */
    void (*set_limit)(void *arg, uint64_t bytes_per_second);
    void (*free)(void *arg); /* once it has ended; may be NULL */
};

struct job_spec {
    enum job_kind kind;
    const char *subject; /* for people: "busybox:latest" */
    const char *key;     /* equal ones of a kind are one job; NULL: never joined. In memory only */
    uint64_t limit_bytes_per_second; /* 0: none; ops are asked for it once more before they run */
    const struct job_ops *ops;
    void *arg;                    /* the job's, also if it cannot be started */
    const struct strbuf *request; /* what it takes to begin it again: for the table's resume(), kept
                                     on the disk, so without secrets. NULL: that cannot be done */
};

/* --- The table ---------------------------------------------------------------------------------
 */

struct job_info;

struct job_table_options {
    struct store *store; /* keeps the records; NULL: nobody does (tests) */
    /* Appends a job as the bytes that watchers get. */
    void (*encode)(const struct job_info *info, struct strbuf *ret);
    /* Whether jobs that a stop of the daemon interrupted are begun again by the next one. */
    bool resume;
    /* Fills what job_start() wants for a job that is begun again; the texts are arg's. */
    bool (*spec_of_request)(void *context, enum job_kind kind, const void *request, size_t size,
                            struct job_spec *ret, struct error *err);
    void *context;
};

struct job_table *job_table_new(const struct job_table_options *options);

/* After a start, before the first job: begins again what the last daemon left unfinished, if that
 * is wanted and can be done, and writes down of the rest that it was interrupted. */
bool await_job_table_recover(struct job_table *table, struct error *err);

/* The daemon stops: jobs that run have grace_ms to end; then they are interrupted, and from now on
 * none can be started (UNAVAILABLE, DAEMON_STOPPING). Suspends, also for a cancelled task. */
void job_table_stop_await(struct job_table *table, uint64_t grace_ms);

/* After a stop and the last watch. Returns NULL. */
struct job_table *job_table_free(struct job_table *table);

/* Starts a job. Does not suspend. The job is borrowed until the next await: watch it, or take a
 * reference. */
struct job *job_start(struct job_table *table, const struct job_spec *spec, struct error *err);

/* The one of this key that runs, or NULL. */
struct job *job_join(struct job_table *table, enum job_kind kind, const char *key);

struct job *job_ref(struct job *job);
struct job *job_unref(struct job *job); /* takes NULL; returns NULL */
static inline void job_cleanup(struct job **job)
{
    *job = job_unref(*job);
}

/* The job goes on whoever leaves. */
void job_detach(struct job *job);

/* Asks it to end, if it runs. Does not suspend. */
void job_cancel(struct job *job);

/* The same for one who watches it and asked for it; false if others asked for it, too. */
bool job_cancel_unless_wanted(struct job *job);

/* FAILED_PRECONDITION (JOB_ENDED, JOB_HAS_NO_LIMIT). */
bool job_set_limit(struct job *job, uint64_t bytes_per_second, struct error *err);

/* --- Looking at it -----------------------------------------------------------------------------
 */

struct job_info {
    const char *id, *subject;
    enum job_kind kind;
    enum job_state state;
    int64_t started_unix_ms, ended_unix_ms; /* 0: it runs */
    unsigned int watchers;
    uint64_t limit_bytes_per_second;
    uint64_t sequence;
    const struct job_progress *progress;
    const struct strbuf *details;
    const struct error *failure; /* empty: none */
};

/* The newest state. Borrowed until the next await. */
struct job_info job_info(struct job *job);

/* Those that run, oldest first; the array is the caller's, its members borrowed. */
struct job **job_list(const struct job_table *table, size_t *ret_count);

/* Those that run and, if `ended`, those that are remembered; newest first. */
struct jobs {
    struct job **items;
    size_t count;
};
bool await_jobs(struct job_table *table, bool ended, struct jobs *ret, struct error *err);
void jobs_done(struct jobs *jobs);

/* The one whose id begins so, running or remembered. The caller gives it back. NOT_FOUND
 * (JOB_NOT_FOUND), INVALID_ARGUMENT (AMBIGUOUS_ID). */
struct job *await_job_find(struct job_table *table, const char *id_prefix, struct error *err);

/* Writes down how it is now; what fails is logged. Suspends, also for a cancelled task. */
void job_remember_await(struct job *job);

/* Waits until it would be remembered after a kill. 0, -ECANCELED, -ETIMEDOUT. */
int await_job_recorded(struct job *job);

/* Why it did not succeed: FAILED, CANCELLED or INTERRUPTED. False with a copy; true if it did. */
bool job_check(const struct job *job, struct error *err);

struct job_snapshot {
    unsigned int refs;
    uint64_t sequence;
    bool ended; /* there will be none after it */
    size_t size;
    uint8_t data[];
};
struct job_snapshot *job_snapshot_unref(struct job_snapshot *snapshot); /* takes NULL */
static inline void job_snapshot_cleanup(struct job_snapshot **snapshot)
{
    *snapshot = job_snapshot_unref(*snapshot);
}

/* --- Watching ----------------------------------------------------------------------------------
 */

struct job_watch;

/* Watches a job, which stays in memory meanwhile. cancel_on_leave: the job is cancelled when this
 * watch goes and nobody is left who wants it. A watch that goes before the end without that leaves
 * the job to itself, as job_detach() does; an observer's coming and going changes nothing. */
enum job_leave { JOB_LEAVE_CANCELS, JOB_LEAVE_DETACHES, JOB_LEAVE_OBSERVER };
struct job_watch *job_watch_new(struct job *job, enum job_leave leave);
struct job_watch *job_watch_free(struct job_watch *watch); /* takes NULL; returns NULL */
static inline void job_watch_cleanup(struct job_watch **watch)
{
    *watch = job_watch_free(*watch);
}

/* Waits until there is a snapshot newer than the last one of this watch; the first time, newer than
 * since_sequence. At most one in JOB_SNAPSHOT_INTERVAL_MS, but for the last, which always comes.
 * NULL with err: the task was cancelled. The caller gives it back with job_snapshot_unref(). */
#define JOB_SNAPSHOT_INTERVAL_MS 100
struct job_snapshot *await_job_snapshot(struct job_watch *watch, uint64_t since_sequence,
                                        struct error *err);
