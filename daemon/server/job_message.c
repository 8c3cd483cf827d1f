#include "daemon/server/job_message.h"

static Davit__V1__Job__Kind kind_of(enum job_kind kind)
{
    switch (kind) {
    case JOB_PULL:
        return DAVIT__V1__JOB__KIND__PULL;
    case JOB_PUSH:
        return DAVIT__V1__JOB__KIND__PUSH;
    case JOB_VERIFY:
        return DAVIT__V1__JOB__KIND__VERIFY;
    case JOB_PRUNE:
        return DAVIT__V1__JOB__KIND__PRUNE;
    case JOB_SAVE:
        return DAVIT__V1__JOB__KIND__SAVE;
    case JOB_LOAD:
        return DAVIT__V1__JOB__KIND__LOAD;
    case JOB_IMPORT:
        return DAVIT__V1__JOB__KIND__IMPORT;
    }
    return DAVIT__V1__JOB__KIND__KIND_UNSPECIFIED;
}

static Davit__V1__Job__State state_of(enum job_state state)
{
    switch (state) {
    case JOB_RUNNING:
        return DAVIT__V1__JOB__STATE__RUNNING;
    case JOB_DONE:
        return DAVIT__V1__JOB__STATE__DONE;
    case JOB_FAILED:
        return DAVIT__V1__JOB__STATE__FAILED;
    case JOB_CANCELLED:
        return DAVIT__V1__JOB__STATE__CANCELLED;
    case JOB_INTERRUPTED:
        return DAVIT__V1__JOB__STATE__INTERRUPTED;
    }
    return DAVIT__V1__JOB__STATE__STATE_UNSPECIFIED;
}

static Davit__V1__JobProgress__Phase phase_of(enum job_phase phase)
{
    switch (phase) {
    case JOB_RESOLVING:
        return DAVIT__V1__JOB_PROGRESS__PHASE__RESOLVING;
    case JOB_TRANSFERRING:
        return DAVIT__V1__JOB_PROGRESS__PHASE__TRANSFERRING;
    case JOB_COMMITTING:
        return DAVIT__V1__JOB_PROGRESS__PHASE__COMMITTING;
    case JOB_ENDED:
        return DAVIT__V1__JOB_PROGRESS__PHASE__ENDED;
    }
    return DAVIT__V1__JOB_PROGRESS__PHASE__PHASE_UNSPECIFIED;
}

static Davit__V1__JobItem__State item_state(enum job_item_state state)
{
    static const Davit__V1__JobItem__State states[] = {
        [JOB_ITEM_WAITING] = DAVIT__V1__JOB_ITEM__STATE__WAITING,
        [JOB_ITEM_RESOLVING] = DAVIT__V1__JOB_ITEM__STATE__RESOLVING,
        [JOB_ITEM_FETCHING] = DAVIT__V1__JOB_ITEM__STATE__FETCHING,
        [JOB_ITEM_RATE_LIMITED] = DAVIT__V1__JOB_ITEM__STATE__RATE_LIMITED,
        [JOB_ITEM_RETRYING] = DAVIT__V1__JOB_ITEM__STATE__RETRYING,
        [JOB_ITEM_STORING] = DAVIT__V1__JOB_ITEM__STATE__STORING,
        [JOB_ITEM_VERIFYING] = DAVIT__V1__JOB_ITEM__STATE__VERIFYING,
        [JOB_ITEM_PRESENT] = DAVIT__V1__JOB_ITEM__STATE__PRESENT,
        [JOB_ITEM_SHARED] = DAVIT__V1__JOB_ITEM__STATE__SHARED,
        [JOB_ITEM_DONE] = DAVIT__V1__JOB_ITEM__STATE__DONE,
        [JOB_ITEM_CHECKING] = DAVIT__V1__JOB_ITEM__STATE__CHECKING,
        [JOB_ITEM_MOUNTED] = DAVIT__V1__JOB_ITEM__STATE__MOUNTED,
        [JOB_ITEM_SENDING] = DAVIT__V1__JOB_ITEM__STATE__SENDING,
    };

    return states[state];
}

static char *text(const char *value)
{
    return (char *)(value ? value : "");
}

/* --- Packing -----------------------------------------------------------------------------------
 */

static void add_message(struct strbuf *ret, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);

    strbuf_reserve(ret, size);
    ret->length += protobuf_c_message_pack(message, (uint8_t *)ret->data + ret->length);
}

void job_details_add(struct strbuf *ret, const Davit__V1__Job *details)
{
    add_message(ret, &details->base);
}

static void fill_item(Davit__V1__JobItem *message, const struct job_item *item)
{
    davit__v1__job_item__init(message);
    message->id = text(item->id);
    message->state = item_state(item->state);
    message->bytes_fetched = item->bytes_fetched;
    message->bytes_total = item->bytes_total;
    message->bytes_stored = item->bytes_stored;
    message->bytes_resumed = item->bytes_resumed;
    message->bytes_per_second = item->bytes_per_second;
    message->source = text(item->source);
    message->until_unix_ms = item->until_unix_ms;
    message->error = text(item->error);
    message->connections = item->connections;
}

/* On the heap: it is large for a stack. */
struct items {
    Davit__V1__JobItem messages[JOB_MAX_ITEMS], *list[JOB_MAX_ITEMS];
};

static void fill_progress(Davit__V1__JobProgress *message, const struct job_info *info,
                          struct items *items)
{
    const struct job_progress *progress = info->progress;

    message->sequence = info->sequence;
    message->phase = phase_of(progress->phase);
    message->bytes_fetched = progress->bytes_fetched;
    message->bytes_total = progress->bytes_total;
    message->percent = progress->percent;
    message->bytes_per_second = progress->bytes_per_second;
    message->eta_ms = progress->eta_ms;
    if (!items)
        return;
    for (size_t i = 0; i < progress->item_count; i++) {
        fill_item(&items->messages[i], &progress->items[i]);
        items->list[i] = &items->messages[i];
    }
    message->items = items->list;
    message->n_items = progress->item_count;
}

/* A job as bytes; items: room for them, NULL to leave them out. */
static void add_job(struct strbuf *ret, const struct job_info *info, struct items *items)
{
    Davit__V1__Job job = DAVIT__V1__JOB__INIT;
    Davit__V1__JobProgress progress = DAVIT__V1__JOB_PROGRESS__INIT;
    Davit__V1__JobFailure failure = DAVIT__V1__JOB_FAILURE__INIT;

    job.id = text(info->id);
    job.kind = kind_of(info->kind);
    job.subject = text(info->subject);
    job.state = state_of(info->state);
    job.started_unix_ms = info->started_unix_ms;
    job.ended_unix_ms = info->ended_unix_ms;
    job.limit_bytes_per_second = info->limit_bytes_per_second;
    job.progress = &progress;
    fill_progress(&progress, info, items);
    if (error_is_set(info->failure)) {
        failure.code = (uint32_t)info->failure->code;
        failure.reason = text(info->failure->reason);
        failure.message = text(info->failure->message);
        failure.hint = text(info->failure->hint);
        job.failure = &failure;
    }
    add_message(ret, &job.base);
    strbuf_add(ret, info->details->data, info->details->length);
}

void job_update_encode(const struct job_info *info, struct strbuf *ret)
{
    CLEANUP_FREE struct items *items = xmalloc(sizeof(*items));
    CLEANUP_STRBUF struct strbuf job = {0};
    size_t size;

    add_job(&job, info, items);
    strbuf_add_char(ret, 1 << 3 | 2); /* JobUpdate.job: field 1, its length */
    for (size = job.length; size > 0x7f; size >>= 7)
        strbuf_add_char(ret, (char)(size | 0x80));
    strbuf_add_char(ret, (char)size);
    strbuf_add(ret, job.data, job.length);
}

Davit__V1__Job *job_message(const struct job_info *info)
{
    CLEANUP_STRBUF struct strbuf bytes = {0};
    Davit__V1__Job *job;

    add_job(&bytes, info, NULL);
    job = davit__v1__job__unpack(NULL, bytes.length, (const uint8_t *)bytes.data);
    CHECK(job);
    job->watchers = info->watchers;
    return job;
}

/* --- Starting ----------------------------------------------------------------------------------
 */

struct job *job_join_or_start(struct job_table *table, const struct job_spec *spec,
                              const ProtobufCMessage *again, struct error *err)
{
    struct job *job = job_join(table, spec->kind, spec->key);
    CLEANUP_STRBUF struct strbuf request = {0};
    struct job_spec complete = *spec;

    if (job) {
        spec->ops->free(spec->arg);
        if (spec->limit_bytes_per_second)
            job_set_limit(job, spec->limit_bytes_per_second, NULL);
        return job;
    }
    if (again) {
        add_message(&request, again);
        complete.request = &request;
    }
    return job_start(table, &complete, err);
}

/* --- Sending -----------------------------------------------------------------------------------
 */

bool await_send_snapshots(struct grpc_call *call, struct job *job, enum job_leave leave,
                          uint64_t since_sequence, struct error *err)
{
    CLEANUP(job_watch_cleanup) struct job_watch *watch = job_watch_new(job, leave);
    bool ended = false;

    while (!ended) {
        CLEANUP(job_snapshot_cleanup)
        struct job_snapshot *snapshot = await_job_snapshot(watch, since_sequence, err);
        if (!snapshot || !await_grpc_send_packed(call, snapshot->data, snapshot->size, err) ||
            !await_grpc_sent(call, err)) /* who reads slowly gets newer ones, not more */
            return false;
        ended = snapshot->ended;
    }
    return true;
}

static bool await_send_first(struct grpc_call *call, struct job *job, struct error *err)
{
    CLEANUP(job_watch_cleanup) struct job_watch *watch = NULL;
    CLEANUP(job_snapshot_cleanup) struct job_snapshot *snapshot = NULL;

    int r;

    job_detach(job);
    if ((r = await_job_recorded(job)) < 0) /* what it is told of is not forgotten */
        return await_error(err, r, "starting a job");
    watch = job_watch_new(job, JOB_LEAVE_OBSERVER);
    snapshot = await_job_snapshot(watch, 0, err);
    return snapshot && await_grpc_send_packed(call, snapshot->data, snapshot->size, err);
}

bool await_follow_job(struct grpc_call *call, struct job *job, struct job_following how,
                      struct error *err)
{
    CLEANUP(job_cleanup) struct job *held = job_ref(job);

    if (how.detach)
        return await_send_first(call, held, err);
    return await_send_snapshots(call, held,
                                how.cancel_on_leave ? JOB_LEAVE_CANCELS : JOB_LEAVE_DETACHES, 0,
                                err) &&
           job_check(held, err);
}
