#include "daemon/job/internal.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

#include "proto/async/await.h"
#include "proto/async/loop.h"
#include "proto/base/log.h"

struct job_watch {
    struct list node;
    struct job *job;
    enum job_leave leave;
    bool began;
    uint64_t seen;    /* sequence of the last snapshot it got */
    uint64_t next_ms; /* when it may get another */
};

/* --- Life cycle --------------------------------------------------------------------------------
 */

struct job_table *job_table_new(const struct job_table_options *options)
{
    struct job_table *table = xcalloc(1, sizeof(*table));

    table->options = *options;
    list_init(&table->running);
    group_init(&table->group);
    return table;
}

struct job_table *job_table_free(struct job_table *table)
{
    if (!table)
        return NULL;
    CHECK(list_empty(&table->running));
    strbuf_done(&table->scratch);
    free(table);
    return NULL;
}

struct job *job_new(struct job_table *table, const struct job_spec *spec)
{
    struct job *job = xcalloc(1, sizeof(*job));
    uint8_t random[JOB_ID_BYTES];

    job->refs = 1;
    job->table = table;
    job->progress = xcalloc(1, sizeof(*job->progress));
    job->progress->eta_ms = -1;
    list_init(&job->node);
    list_init(&job->watches);
    wait_queue_init(&job->changed);
    wait_queue_init(&job->recorded);
    if (!spec)
        return job;
    CHECK(getrandom(random, sizeof(random), 0) == (ssize_t)sizeof(random));
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(job->id + 2 * i, 3, "%02x", random[i]);
    job->attempts = 1;
    job->kind = spec->kind;
    job->subject = xstrdup(spec->subject);
    job->key = xstrdup(spec->key);
    job->limit_bytes_per_second = spec->limit_bytes_per_second;
    job->ops = spec->ops;
    job->arg = spec->arg;
    job->started_unix_ms = wall_clock_ns() / 1000000;
    if (spec->request)
        strbuf_add(&job->request, spec->request->data, spec->request->length);
    return job;
}

static void free_arg(struct job *job)
{
    if (job->arg && job->ops->free)
        job->ops->free(job->arg);
    job->arg = NULL;
}

struct job *job_ref(struct job *job)
{
    job->refs++;
    return job;
}

struct job *job_unref(struct job *job)
{
    if (!job || --job->refs)
        return NULL;
    loop_timer_stop(&job->ticker);
    free_arg(job);
    free(job->subject);
    free(job->key);
    free(job->progress);
    strbuf_done(&job->details);
    strbuf_done(&job->request);
    error_done(&job->failure);
    job_snapshot_unref(job->snapshot);
    free(job);
    return NULL;
}

/* --- State and snapshots -----------------------------------------------------------------------
 */

static struct job_info info_of(const struct job *job)
{
    return (struct job_info){
        .id = job->id,
        .subject = job->subject,
        .kind = job->kind,
        .state = job->state,
        .started_unix_ms = job->started_unix_ms,
        .ended_unix_ms = job->ended_unix_ms,
        .watchers = job->watch_count,
        .limit_bytes_per_second = job->limit_bytes_per_second,
        .sequence = job->sequence,
        .progress = job->progress,
        .details = &job->details,
        .failure = &job->failure,
    };
}

bool job_is_running(const struct job *job)
{
    return job->state == JOB_RUNNING && !job->ending;
}

/* Asks the ops, unless what they said last is what stays. */
static void update_state(struct job *job)
{
    struct job_progress *progress = job->progress;

    if (!job_is_running(job))
        return;
    memset(progress, 0, sizeof(*progress));
    progress->eta_ms = -1;
    if (job->ops->progress)
        job->ops->progress(job->arg, progress);
    CHECK(progress->item_count <= JOB_MAX_ITEMS);
    job->percent = MAX(job->percent, MIN(progress->percent, 100));
    progress->percent = job->percent;
    strbuf_clear(&job->details);
    if (job->ops->details)
        job->ops->details(job->arg, &job->details);
}

struct job_info job_info(struct job *job)
{
    update_state(job);
    return info_of(job);
}

bool job_check(const struct job *job, struct error *err)
{
    return !error_is_set(&job->failure) || error_copy(err, &job->failure);
}

struct job_snapshot *job_snapshot_unref(struct job_snapshot *snapshot)
{
    if (snapshot && --snapshot->refs == 0)
        free(snapshot);
    return NULL;
}

static const struct strbuf *encode(struct job *job)
{
    struct strbuf *scratch = &job->table->scratch;
    const struct job_info info = info_of(job);

    strbuf_clear(scratch);
    job->table->options.encode(&info, scratch);
    return scratch;
}

/* The state as it was told last; NULL if watchers have it already. */
static struct job_snapshot *snapshot_new(struct job *job)
{
    const struct strbuf *bytes = encode(job);
    struct job_snapshot *snapshot;

    if (job->snapshot && job->snapshot->size == bytes->length &&
        memcmp(job->snapshot->data, bytes->data, bytes->length) == 0)
        return NULL;
    job->sequence++;
    bytes = encode(job);
    snapshot = xmalloc(sizeof(*snapshot) + bytes->length);
    *snapshot = (struct job_snapshot){.refs = 1,
                                      .sequence = job->sequence,
                                      .ended = job->state != JOB_RUNNING,
                                      .size = bytes->length};
    memcpy(snapshot->data, bytes->data, bytes->length);
    return snapshot;
}

/* Takes it over. */
static void publish(struct job *job, struct job_snapshot *snapshot)
{
    job_snapshot_unref(job->snapshot);
    job->snapshot = snapshot;
    wake_all(&job->changed);
}

void job_refresh(struct job *job)
{
    struct job_snapshot *snapshot;

    update_state(job);
    snapshot = snapshot_new(job);
    if (snapshot)
        publish(job, snapshot);
}

static void tick(struct loop_timer *timer)
{
    struct job *job = CONTAINER_OF(timer, struct job, ticker);

    if (!job_is_running(job) || list_empty(&job->watches))
        return;
    job_refresh(job);
    loop_timer_start(timer, JOB_SNAPSHOT_INTERVAL_MS, tick);
}

/* --- The task ----------------------------------------------------------------------------------
 */

bool job_will_resume(const struct job *job)
{
    return job->table->options.resume && job->request.length > 0 &&
           job->attempts < JOB_ATTEMPTS_MAX;
}

bool job_interrupted_error(const struct job *job, const char *why, struct error *err)
{
    error_set(err, ERROR_UNAVAILABLE, "JOB_INTERRUPTED", "job %s (%s) was interrupted: %s", job->id,
              job->subject, why);
    if (job_will_resume(job))
        return error_hint(err, "it goes on when the daemon runs again: 'davit jobs watch %s'",
                          job->id);
    if (job->kind == JOB_PULL || job->kind == JOB_PUSH) /* what came or went is kept */
        return error_hint(err, "run the command again: it goes on where this one was");
    return error_hint(err, "run the command again");
}

static enum job_state end_state(struct job *job, bool ok)
{
    if (ok)
        return JOB_DONE;
    if (job->interrupted) {
        job_interrupted_error(job, "the daemon was stopped", &job->failure);
        return JOB_INTERRUPTED;
    }
    if (job->cancelled) {
        error_set(&job->failure, ERROR_CANCELLED, "JOB_CANCELLED", "job %s (%s) was cancelled",
                  job->id, job->subject);
        return JOB_CANCELLED;
    }
    return JOB_FAILED;
}

/* Whatever became of the work: remembers it, then tells it. */
static void end_await(struct job *job, bool ok)
{
    CLEANUP(task_unshield) struct task_shield shield = task_shield();
    struct job_snapshot *last;

    update_state(job);
    job->ending = true;
    loop_timer_stop(&job->ticker);
    job->state = end_state(job, ok);
    job->ended_unix_ms = wall_clock_ns() / 1000000;
    job->progress->phase = JOB_ENDED;
    job->progress->bytes_per_second = 0;
    job->progress->eta_ms = -1;
    if (ok)
        job->progress->percent = job->percent = 100;
    last = snapshot_new(job);
    job->progress->item_count = 0; /* their texts are somebody else's, who may go meanwhile */
    job_remember_await(job);
    if (last)
        publish(job, last);
    free_arg(job);
}

static bool job_task(void *arg, struct error *err UNUSED)
{
    CLEANUP(job_cleanup) struct job *job = arg;
    bool ok;

    job->task = task_current();
    if (job->cancelled || job->interrupted)
        task_cancel(job->task);
    if (job->limit_bytes_per_second && job->ops->set_limit)
        job->ops->set_limit(job->arg, job->limit_bytes_per_second);
    ok = job->ops->await_run(job->arg, &job->failure);
    job->task = NULL;
    end_await(job, ok);
    list_remove(&job->node);
    return true; /* one job's failure is not the others' */
}

bool job_begin(struct job *job, struct error *err)
{
    struct job_table *table = job->table;

    if (table->stopping) {
        error_set(err, ERROR_UNAVAILABLE, "DAEMON_STOPPING", "the daemon is being stopped");
        return error_hint(err, "try again when it runs again");
    }
    if (!task_spawn(&table->group, "job", job->subject, job_task, job, err))
        return false;
    list_append(&table->running, &job->node);
    record_begin(job);
    return true;
}

struct job *job_start(struct job_table *table, const struct job_spec *spec, struct error *err)
{
    CLEANUP(job_cleanup) struct job *job = job_new(table, spec);

    return job_begin(job, err) ? TAKE(job) : NULL;
}

struct job *job_join(struct job_table *table, enum job_kind kind, const char *key)
{
    LIST_FOR_EACH (node, &table->running) {
        struct job *job = LIST_ITEM(node, struct job, node);
        if (job->kind == kind && key && str_eq(job->key, key) && !job->ending && !job->cancelled &&
            !job->interrupted)
            return job;
    }
    return NULL;
}

struct job **job_list(const struct job_table *table, size_t *ret_count)
{
    struct job **list = NULL;
    size_t count = 0;

    LIST_FOR_EACH (node, &table->running) {
        list = xrealloc(list, (count + 2) * sizeof(struct job *));
        list[count++] = LIST_ITEM(node, struct job, node);
    }
    if (!list)
        list = xcalloc(1, sizeof(struct job *));
    list[count] = NULL;
    *ret_count = count;
    return list;
}

/* --- Changing it -------------------------------------------------------------------------------
 */

void job_detach(struct job *job)
{
    job->detached = true;
}

void job_cancel(struct job *job)
{
    if (!job_is_running(job))
        return;
    job->cancelled = true;
    if (job->task)
        task_cancel(job->task);
}

bool job_set_limit(struct job *job, uint64_t bytes_per_second, struct error *err)
{
    if (!job_is_running(job))
        return error_set(err, ERROR_FAILED_PRECONDITION, "JOB_ENDED",
                         "job %s (%s) has ended: it cannot be changed", job->id, job->subject);
    if (!job->ops->set_limit)
        return error_set(err, ERROR_FAILED_PRECONDITION, "JOB_HAS_NO_LIMIT",
                         "job %s (%s) transfers nothing that could be limited", job->id,
                         job->subject);
    job->limit_bytes_per_second = bytes_per_second;
    if (job->task) /* otherwise it is told when it begins */
        job->ops->set_limit(job->arg, bytes_per_second);
    return true;
}

void job_table_stop_await(struct job_table *table, uint64_t grace_ms)
{
    CLEANUP(task_unshield) struct task_shield shield = task_shield();

    table->stopping = true;
    await_group_idle(&table->group, grace_ms);
    LIST_FOR_EACH (node, &table->running) {
        struct job *job = LIST_ITEM(node, struct job, node);
        job->interrupted = true;
        if (job->task)
            task_cancel(job->task);
    }
    group_done_await(&table->group);
}

/* --- Watching ----------------------------------------------------------------------------------
 */

struct job_watch *job_watch_new(struct job *job, enum job_leave leave)
{
    struct job_watch *watch = xcalloc(1, sizeof(*watch));

    watch->job = job_ref(job);
    watch->leave = leave;
    list_append(&job->watches, &watch->node);
    job->watch_count++;
    if (job_is_running(job) && !job->ticker.running)
        tick(&job->ticker);
    return watch;
}

/* How many asked for it, not merely look. */
static size_t wanted_by(const struct job *job)
{
    size_t count = 0;

    LIST_FOR_EACH (node, &job->watches) {
        if (LIST_ITEM(node, struct job_watch, node)->leave != JOB_LEAVE_OBSERVER)
            count++;
    }
    return count;
}

static bool is_wanted(const struct job *job)
{
    return job->detached || wanted_by(job) > 0;
}

bool job_cancel_unless_wanted(struct job *job)
{
    if (job->detached || wanted_by(job) > 1)
        return false;
    job_cancel(job);
    return true;
}

struct job_watch *job_watch_free(struct job_watch *watch)
{
    struct job *job;

    if (!watch)
        return NULL;
    job = watch->job;
    list_remove(&watch->node);
    job->watch_count--;
    if (watch->leave == JOB_LEAVE_DETACHES)
        job->detached = true;
    if (watch->leave == JOB_LEAVE_CANCELS && !is_wanted(job)) {
        if (job_is_running(job))
            log_info("cancelled: nobody waits for it", LOG("job", (const char *)job->id),
                     LOG("subject", (const char *)job->subject));
        job_cancel(job);
    }
    free(watch);
    job_unref(job);
    return NULL;
}

/* Until something changes, or the watch may have what has changed already. */
static int await_change(struct job_watch *watch, uint64_t now_ms)
{
    static const char reason[] = "watching a job";
    int r;

    if (now_ms >= watch->next_ms)
        return await_wake(&watch->job->changed, reason);
    {
        CLEANUP(deadline_pop) struct deadline deadline;
        deadline_push(&deadline, watch->next_ms - now_ms);
        r = await_wake(&watch->job->changed, reason);
    }
    return r == -ETIMEDOUT ? task_check() : r;
}

struct job_snapshot *await_job_snapshot(struct job_watch *watch, uint64_t since_sequence,
                                        struct error *err)
{
    int r = task_check();

    if (!watch->began)
        watch->seen = since_sequence;
    while (r == 0) {
        struct job_snapshot *snapshot = watch->job->snapshot;
        uint64_t now = loop_now_ms();
        bool newer = snapshot && snapshot->sequence > watch->seen;
        if (snapshot && (snapshot->ended || (newer && now >= watch->next_ms))) {
            watch->began = true;
            watch->seen = snapshot->sequence;
            watch->next_ms = now + JOB_SNAPSHOT_INTERVAL_MS;
            snapshot->refs++;
            return snapshot;
        }
        r = await_change(watch, newer ? now : UINT64_MAX);
    }
    await_error(err, r, "watching job %s", watch->job->id);
    return NULL;
}
