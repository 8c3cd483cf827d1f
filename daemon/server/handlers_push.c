/* Images.Push: a push as a job. */
#include "daemon/server/handlers.h"
#include "daemon/server/job_message.h"
#include "proto/base/log.h"

struct push_job {
    struct push *push;
    char *familiar, *canonical, *repository, *key;
    bool all_tags, pushed;
    struct push_progress progress; /* large: not for a stack */
};

static void push_job_free(void *arg)
{
    struct push_job *job = arg;

    push_free(job->push);
    free(job->familiar);
    free(job->canonical);
    free(job->repository);
    free(job->key);
    free(job);
}

static bool run_push(void *arg, struct error *err)
{
    struct push_job *job = arg;

    job->pushed = await_push(job->push, err);
    return job->pushed;
}

static enum job_item_state item_state(enum push_layer_state state)
{
    switch (state) {
    case PUSH_LAYER_WAITING:
        return JOB_ITEM_WAITING;
    case PUSH_LAYER_CHECKING:
        return JOB_ITEM_CHECKING;
    case PUSH_LAYER_PRESENT:
        return JOB_ITEM_PRESENT;
    case PUSH_LAYER_MOUNTED:
        return JOB_ITEM_MOUNTED;
    case PUSH_LAYER_FETCHING:
        return JOB_ITEM_FETCHING;
    case PUSH_LAYER_SENDING:
        return JOB_ITEM_SENDING;
    case PUSH_LAYER_RETRYING:
        return JOB_ITEM_RETRYING;
    case PUSH_LAYER_RATE_LIMITED:
        return JOB_ITEM_RATE_LIMITED;
    case PUSH_LAYER_DONE:
        return JOB_ITEM_DONE;
    }
    return JOB_ITEM_WAITING;
}

static enum job_phase phase_of(enum push_phase phase)
{
    switch (phase) {
    case PUSH_CHECKING:
        return JOB_RESOLVING;
    case PUSH_SENDING:
        return JOB_TRANSFERRING;
    case PUSH_COMMITTING:
        return JOB_COMMITTING;
    case PUSH_DONE:
        return JOB_ENDED;
    }
    return JOB_RESOLVING;
}

static void fill_progress(void *arg, struct job_progress *ret)
{
    struct push_job *job = arg;
    const struct push_progress *engine = &job->progress;

    _Static_assert(PUSH_PROGRESS_LAYERS <= JOB_MAX_ITEMS, "each has its place");
    push_progress(job->push, &job->progress);
    ret->phase = phase_of(engine->phase);
    ret->bytes_fetched = engine->bytes_sent;
    ret->bytes_total = engine->bytes_total;
    ret->percent = engine->percent;
    ret->bytes_per_second = engine->bytes_per_second;
    ret->eta_ms = engine->eta_ms;
    ret->item_count = engine->layer_count;
    for (size_t i = 0; i < engine->layer_count; i++) {
        const struct push_layer_progress *layer = &engine->layers[i];
        ret->items[i] = (struct job_item){
            .id = layer->diff_id->text,
            .state = item_state(layer->state),
            .bytes_fetched = layer->bytes_sent,
            .bytes_total = layer->bytes_total,
            .bytes_per_second = layer->bytes_per_second,
            .source = layer->source,
            .until_unix_ms = layer->until_unix_ms,
            .error = layer->error,
        };
    }
}

/* The tags of a push that succeeded; the arrays are the caller's. */
static void add_tags(const struct push *push, Davit__V1__PushResult *ret,
                     Davit__V1__PushedTag **ret_tags)
{
    const struct push_result *tag;
    size_t count = 0;

    while (push_result(push, count))
        count++;
    *ret_tags = xcalloc(count, sizeof(**ret_tags));
    ret->tags = xcalloc(count, sizeof(Davit__V1__PushedTag *));
    for (; (tag = push_result(push, ret->n_tags)); ret->n_tags++) {
        Davit__V1__PushedTag *message = ret->tags[ret->n_tags] = &(*ret_tags)[ret->n_tags];
        davit__v1__pushed_tag__init(message);
        message->tag = (char *)tag->tag;
        message->digest = (char *)tag->digest->text;
        message->size_bytes = tag->size_bytes;
        message->difference = (char *)(tag->difference ? tag->difference : "");
    }
}

static void add_details(void *arg, struct strbuf *ret)
{
    struct push_job *job = arg;
    const struct reference *reference = push_reference(job->push);
    Davit__V1__Job message = DAVIT__V1__JOB__INIT;
    Davit__V1__PushDetails details = DAVIT__V1__PUSH_DETAILS__INIT;
    Davit__V1__PushResult result = DAVIT__V1__PUSH_RESULT__INIT;
    CLEANUP_FREE Davit__V1__PushedTag *tags = NULL;

    details.repository = job->repository;
    details.tag = reference->tag;
    details.default_tag = reference->default_tag;
    details.all_tags = job->all_tags;
    message.push = &details;
    if (job->pushed) {
        result.reference = job->all_tags ? job->repository : job->canonical;
        add_tags(job->push, &result, &tags);
        message.result_case = DAVIT__V1__JOB__RESULT_PUSH_RESULT;
        message.push_result = &result;
    }
    job_details_add(ret, &message);
    free(result.tags);
}

static void set_limit(void *arg, uint64_t bytes_per_second)
{
    struct push_job *job = arg;

    push_set_limit(job->push, bytes_per_second);
}

static const struct job_ops push_ops = {
    .await_run = run_push,
    .progress = fill_progress,
    .details = add_details,
    .set_limit = set_limit,
    .free = push_job_free,
};

/* --- The call ----------------------------------------------------------------------------------
 */

static struct push_job *push_job_new(const struct engines *engines,
                                     const Davit__V1__PushRequest *request, struct error *err)
{
    const struct push_request engine_request = {.reference = request->reference,
                                                .all_tags = request->all_tags,
                                                .compression = request->compression,
                                                .auth = request_auth(request->auth)};
    struct digest rights = request_rights(request->auth);
    struct push *push = push_new(engines->push, &engine_request, err);
    struct push_job *job;

    if (!push)
        return NULL;
    job = xcalloc(1, sizeof(*job));
    job->push = push;
    job->all_tags = request->all_tags;
    job->repository = reference_name(push_reference(push));
    job->canonical = reference_canonical(push_reference(push));
    job->familiar = job->all_tags ? reference_familiar_name(push_reference(push))
                                  : reference_familiar(push_reference(push));
    job->key =
        xasprintf("%s %d %s %s", job->canonical, job->all_tags, request->compression, rights.text);
    return job;
}

bool push_spec(const struct engines *engines, const ProtobufCMessage *request, struct job_spec *ret,
               struct error *err)
{
    struct push_job *job = push_job_new(engines, (const Davit__V1__PushRequest *)request, err);

    if (job)
        *ret = (struct job_spec){
            .kind = JOB_PUSH,
            .subject = job->familiar,
            .key = job->key,
            .ops = &push_ops,
            .arg = job,
        };
    return job != NULL;
}

bool handle_push(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__PushRequest *request = (const Davit__V1__PushRequest *)message;
    Davit__V1__PushRequest again = DAVIT__V1__PUSH_REQUEST__INIT;
    struct job_spec spec;
    struct job *job;

    if (!message || !push_spec(engines, message, &spec, err))
        return false;
    spec.limit_bytes_per_second = request->limit_bytes_per_second;
    again.reference = request->reference;
    again.all_tags = request->all_tags;
    again.compression = request->compression;
    job = job_join_or_start(engines->jobs, &spec, request->auth ? NULL : &again.base, err);
    if (!job)
        return false;
    log_info("push", LOG("image", request->reference), LOG("job", job_info(job).id),
             LOG("peer", grpc_call_peer(call)));
    return await_follow_job(call, job,
                            (struct job_following){request->detach, request->cancel_on_leave}, err);
}
