/* Shared between the files of this folder only. */
#pragma once

#include "daemon/job/job.h"
#include "proto/async/timer.h"
#include "proto/base/list.h"

#define JOB_ID_BYTES 6

/* One that the daemon dies of would be begun again at each start. */
#define JOB_ATTEMPTS_MAX 20

struct job_table {
    struct job_table_options options;
    struct list running;
    struct group group;
    bool stopping;
    struct strbuf scratch; /* for encoding */
};

struct job {
    struct list node; /* among those that run */
    struct job_table *table;
    unsigned int refs;
    char id[2 * JOB_ID_BYTES + 1];
    char *subject, *key;
    enum job_kind kind;
    enum job_state state;
    int64_t started_unix_ms, ended_unix_ms;
    uint64_t limit_bytes_per_second;
    const struct job_ops *ops;
    void *arg;         /* NULL once it has ended */
    struct task *task; /* NULL before and after it runs */
    bool cancelled, interrupted, detached;
    bool ending; /* the work is done, its record is being written */
    unsigned int attempts;
    struct strbuf request; /* to begin it again; empty: that cannot be done */
    bool recording;        /* a task writes its record */
    struct wait_queue recorded;
    struct list watches;
    unsigned int watch_count;
    struct loop_timer ticker; /* runs while somebody watches */
    struct wait_queue changed;
    unsigned int percent; /* the highest that was shown */
    struct job_progress *progress;
    struct strbuf details;
    struct error failure;
    uint64_t sequence;
    struct job_snapshot *snapshot; /* NULL: nobody has asked for one yet */
};

/* --- job.c -------------------------------------------------------------------------------------
 */

/* With one reference, in no list. spec may be NULL: one that has ended. */
struct job *job_new(struct job_table *table, const struct job_spec *spec);

/* Starts what job_new() made, whose reference is the task's from then on. */
bool job_begin(struct job *job, struct error *err);

bool job_is_running(const struct job *job);
void job_refresh(struct job *job); /* makes a new snapshot, if anything has changed */

/* Sets why it was interrupted, and what to do. Returns false. */
bool job_interrupted_error(const struct job *job, const char *why, struct error *err);
bool job_will_resume(const struct job *job); /* by the next daemon */

/* --- record.c ----------------------------------------------------------------------------------
 */

/* As job_remember_await(), in a task of its own. */
void record_begin(struct job *job);
