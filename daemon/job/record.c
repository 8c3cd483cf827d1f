/* What is remembered of jobs, and jobs made from that. */
#include <stdio.h>

#include "daemon/job/internal.h"
#include "daemon/store/job_record.h"
#include "proto/base/log.h"

static const char *const kind_names[] = {
    [JOB_PULL] = "pull", [JOB_PUSH] = "push", [JOB_VERIFY] = "verify", [JOB_PRUNE] = "prune",
    [JOB_SAVE] = "save", [JOB_LOAD] = "load", [JOB_IMPORT] = "import",
};

static const char *const state_names[] = {
    [JOB_RUNNING] = "running",         [JOB_DONE] = "done",
    [JOB_FAILED] = "failed",           [JOB_CANCELLED] = "cancelled",
    [JOB_INTERRUPTED] = "interrupted",
};

/* -1: no name of this list */
static int index_of(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (str_eq(names[i], name))
            return (int)i;
    }
    return -1;
}

/* --- Writing -----------------------------------------------------------------------------------
 */

/* The texts are the job's. */
static struct job_record record_of(const struct job *job)
{
    return (struct job_record){
        .id = (char *)job->id,
        .kind = (char *)kind_names[job->kind],
        .state = (char *)state_names[job->state],
        .subject = job->subject,
        /* The next daemon has to see to what it is to begin again. */
        .ended =
            job->state != JOB_RUNNING && !(job->state == JOB_INTERRUPTED && job_will_resume(job)),
        .started_unix_ms = job->started_unix_ms,
        .ended_unix_ms = job->ended_unix_ms,
        .attempts = job->attempts,
        .limit_bytes_per_second = job->limit_bytes_per_second,
        .sequence = job->sequence,
        .percent = job->percent,
        .bytes_fetched = job->progress->bytes_fetched,
        .bytes_total = job->progress->bytes_total,
        .failure = job->failure,
        .details = {job->details.data, job->details.length},
        .request = {job->request.data, job->request.length},
    };
}

static void await_write(struct job *job)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_STRBUF struct strbuf details = {0};
    struct store *store = job->table->options.store;
    struct job_record record = record_of(job);

    /* Whoever looks at the job meanwhile has them made anew. */
    strbuf_add(&details, job->details.data, job->details.length);
    record.details = (struct record_bytes){details.data, details.length};
    if (store && !await_job_record_write(store, &record, &err))
        log_warn("a job will not be remembered", LOG("job", (const char *)job->id),
                 LOG("error", err.message));
    job->recording = false;
    wake_all(&job->recorded);
}

int await_job_recorded(struct job *job)
{
    int r = task_check();

    while (r == 0 && job->recording)
        r = await_wake(&job->recorded, "waiting for a job's record");
    return r;
}

void job_remember_await(struct job *job)
{
    CLEANUP(task_unshield) struct task_shield shield = task_shield();

    await_job_recorded(job);
    job->recording = true;
    await_write(job);
}

static bool write_task(void *arg, struct error *err UNUSED)
{
    CLEANUP(job_cleanup) struct job *job = arg;
    CLEANUP(task_unshield) struct task_shield shield = task_shield();

    await_write(job);
    return true;
}

void record_begin(struct job *job)
{
    CLEANUP_ERROR struct error err = {0};

    if (!job->table->options.store)
        return;
    job->recording = true;
    if (task_spawn(&job->table->group, "record", job->id, write_task, job_ref(job), &err))
        return;
    job_unref(job);
    job->recording = false;
    log_warn("a job will not be remembered if the daemon is killed", LOG("error", err.message));
}

/* --- Reading -----------------------------------------------------------------------------------
 */

/* A job as it was left; NULL if a newer daemon wrote it, of a kind that this one does not know. */
static struct job *job_of_record(struct job_table *table, struct job_record *record)
{
    int kind = index_of(kind_names, ARRAY_SIZE(kind_names), record->kind);
    int state = index_of(state_names, ARRAY_SIZE(state_names), record->state);
    struct job *job;

    if (kind < 0 || state < 0 || strlen(record->id) != 2 * JOB_ID_BYTES)
        return NULL;
    job = job_new(table, NULL);
    snprintf(job->id, sizeof(job->id), "%s", record->id);
    job->kind = (enum job_kind)kind;
    job->state = (enum job_state)state;
    job->subject = TAKE(record->subject);
    job->started_unix_ms = record->started_unix_ms;
    job->ended_unix_ms = record->ended_unix_ms;
    job->attempts = record->attempts;
    job->limit_bytes_per_second = record->limit_bytes_per_second;
    /* That of the last snapshot, which is made again. */
    job->sequence = record->sequence - MIN(record->sequence, 1U);
    job->progress->phase = JOB_ENDED;
    job->progress->percent = job->percent = record->percent;
    job->progress->bytes_fetched = record->bytes_fetched;
    job->progress->bytes_total = record->bytes_total;
    strbuf_add(&job->details, record->details.data, record->details.size);
    strbuf_add(&job->request, record->request.data, record->request.size);
    error_move(&job->failure, &record->failure);
    return job;
}

void jobs_done(struct jobs *jobs)
{
    for (size_t i = 0; i < jobs->count; i++)
        job_unref(jobs->items[i]);
    free(jobs->items);
    *jobs = (struct jobs){0};
}

static void add_job(struct jobs *jobs, struct job *job)
{
    jobs->items = xrealloc(jobs->items, (jobs->count + 1) * sizeof(struct job *));
    jobs->items[jobs->count++] = job;
}

static bool contains(const struct jobs *jobs, const char *id)
{
    for (size_t i = 0; i < jobs->count; i++) {
        if (str_eq(jobs->items[i]->id, id))
            return true;
    }
    return false;
}

static bool await_add_ended(struct job_table *table, const char *prefix, struct jobs *ret,
                            struct error *err)
{
    CLEANUP(job_records_done) struct job_records records = {0};

    if (!table->options.store)
        return true;
    if (!await_job_records_read(table->options.store, prefix, true, &records, err))
        return false;
    for (size_t i = 0; i < records.count; i++) {
        /* One that has just ended may be there twice. */
        struct job *job =
            contains(ret, records.items[i].id) ? NULL : job_of_record(table, &records.items[i]);
        if (job)
            add_job(ret, job);
    }
    return true;
}

static void add_running(struct job_table *table, const char *prefix, struct jobs *ret)
{
    size_t count;
    CLEANUP_FREE struct job **list = job_list(table, &count);

    while (count-- > 0) {
        if (str_starts(list[count]->id, prefix))
            add_job(ret, job_ref(list[count]));
    }
}

bool await_jobs(struct job_table *table, bool ended, struct jobs *ret, struct error *err)
{
    *ret = (struct jobs){0};
    add_running(table, "", ret);
    if (!ended || await_add_ended(table, "", ret, err))
        return true;
    jobs_done(ret);
    return false;
}

struct job *await_job_find(struct job_table *table, const char *id_prefix, struct error *err)
{
    CLEANUP(jobs_done) struct jobs jobs = {0};

    if (!str_empty(id_prefix)) {
        add_running(table, id_prefix, &jobs);
        if (!await_add_ended(table, id_prefix, &jobs, err))
            return NULL;
    }
    if (jobs.count == 1) {
        struct job *job = job_ref(jobs.items[0]);
        if (!job_is_running(job) && !job->snapshot && !job->ending)
            job_refresh(job);
        return job;
    }
    if (jobs.count > 1) {
        error_set(err, ERROR_INVALID_ARGUMENT, "AMBIGUOUS_ID",
                  "more than one job has an id that begins with %s", id_prefix);
        error_hint(err, "give more of its digits");
        return NULL;
    }
    error_set(err, ERROR_NOT_FOUND, "JOB_NOT_FOUND", "No such job: %s", id_prefix);
    error_hint(err, "'davit jobs -a' lists those that run and the last that have ended");
    return NULL;
}

/* --- After a start -----------------------------------------------------------------------------
 */

/* Begins again what a record tells of, under its id; false if that cannot be done. */
static bool resume(struct job_table *table, const struct job *left, struct error *err)
{
    const struct job_table_options *options = &table->options;
    CLEANUP(job_cleanup) struct job *job = NULL;
    struct job_spec spec = {0};

    if (!options->spec_of_request(options->context, left->kind, left->request.data,
                                  left->request.length, &spec, err))
        return false;
    spec.request = &left->request;
    spec.limit_bytes_per_second = left->limit_bytes_per_second;
    job = job_new(table, &spec);
    memcpy(job->id, left->id, sizeof(job->id));
    job->started_unix_ms = left->started_unix_ms;
    job->attempts = left->attempts + 1;
    job->percent = left->percent;
    job->sequence = (uint64_t)left->attempts << 32; /* above all that were seen */
    job->detached = true;
    if (!job_begin(job, err))
        return false;
    log_info("resumed", LOG("job", (const char *)job->id),
             LOG("subject", (const char *)job->subject));
    TAKE(job);
    return true;
}

static void recover_await(struct job_table *table, struct job *left)
{
    CLEANUP_ERROR struct error why = {0};

    if (job_will_resume(left) && resume(table, left, &why))
        return;
    strbuf_done(&left->request);
    left->state = JOB_INTERRUPTED;
    left->ended_unix_ms = left->ended_unix_ms ? left->ended_unix_ms : wall_clock_ns() / 1000000;
    left->sequence = (uint64_t)left->attempts << 32;
    job_interrupted_error(left, error_is_set(&why) ? why.message : "the daemon was stopped",
                          &left->failure);
    job_remember_await(left);
}

bool await_job_table_recover(struct job_table *table, struct error *err)
{
    CLEANUP(job_records_done) struct job_records records = {0};

    if (!await_job_records_read(table->options.store, "", false, &records, err))
        return false;
    for (size_t i = records.count; i-- > 0;) {
        CLEANUP(job_cleanup) struct job *left = job_of_record(table, &records.items[i]);
        if (left)
            recover_await(table, left);
    }
    return true;
}
