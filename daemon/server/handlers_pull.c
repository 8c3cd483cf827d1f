/* Images.Pull: a pull as a job. An example for other kinds: the job's argument with its engine
 * call, the ops, and a handler that joins or starts the job and follows it. */
#include "daemon/server/handlers.h"
#include "daemon/server/job_message.h"
#include "proto/base/log.h"

struct pull_job {
    struct pull *pull;
    char *familiar, *tag, *canonical, *key;
    bool pulled;
    struct pull_progress progress; /* large: not for a stack */
};

static void pull_job_free(void *arg)
{
    struct pull_job *job = arg;

    pull_free(job->pull);
    free(job->familiar);
    free(job->tag);
    free(job->canonical);
    free(job->key);
    free(job);
}

static bool run_pull(void *arg, struct error *err)
{
    struct pull_job *job = arg;

    job->pulled = await_pull(job->pull, err);
    return job->pulled;
}

static enum job_item_state item_state(enum pull_layer_state state)
{
    switch (state) {
    case PULL_LAYER_WAITING:
        return JOB_ITEM_WAITING;
    case PULL_LAYER_FETCHING:
        return JOB_ITEM_FETCHING;
    case PULL_LAYER_SHARED:
        return JOB_ITEM_SHARED;
    case PULL_LAYER_RATE_LIMITED:
        return JOB_ITEM_RATE_LIMITED;
    case PULL_LAYER_RETRYING:
        return JOB_ITEM_RETRYING;
    case PULL_LAYER_STORING:
        return JOB_ITEM_STORING;
    case PULL_LAYER_DONE:
        return JOB_ITEM_DONE;
    case PULL_LAYER_PRESENT:
        return JOB_ITEM_PRESENT;
    }
    return JOB_ITEM_WAITING;
}

static enum job_phase phase_of(enum pull_phase phase)
{
    switch (phase) {
    case PULL_RESOLVING:
        return JOB_RESOLVING;
    case PULL_FETCHING:
        return JOB_TRANSFERRING;
    case PULL_COMMITTING:
        return JOB_COMMITTING;
    case PULL_DONE:
        return JOB_ENDED;
    }
    return JOB_RESOLVING;
}

/* Before layers are known, there is something to tell only while a registry keeps it waiting. */
static void fill_wait(const struct pull_job *job, struct job_progress *ret)
{
    const struct registry_wait *wait = job->progress.wait;

    ret->item_count = 1;
    ret->items[0] = (struct job_item){
        .id = job->tag,
        .state = wait->cause.retry_after_ms ? JOB_ITEM_RATE_LIMITED : JOB_ITEM_RETRYING,
        .until_unix_ms = wait->until_unix_ms,
        .error = wait->cause.message,
    };
}

static void fill_progress(void *arg, struct job_progress *ret)
{
    struct pull_job *job = arg;
    const struct pull_progress *engine = &job->progress;

    pull_progress(job->pull, &job->progress);
    ret->phase = phase_of(engine->phase);
    ret->bytes_fetched = engine->bytes_fetched;
    ret->bytes_total = engine->bytes_total;
    ret->percent = engine->percent;
    ret->bytes_per_second = engine->bytes_per_second;
    ret->eta_ms = engine->eta_ms;
    ret->item_count = engine->layer_count;
    for (size_t i = 0; i < engine->layer_count; i++) {
        const struct pull_layer_progress *layer = &engine->layers[i];
        ret->items[i] = (struct job_item){
            .id = layer->digest->text,
            .state = item_state(layer->state),
            .bytes_fetched = layer->bytes_fetched,
            .bytes_total = layer->bytes_total,
            .bytes_stored = layer->bytes_stored,
            .bytes_resumed = layer->bytes_resumed,
            .bytes_per_second = layer->bytes_per_second,
            .source = layer->source,
            .until_unix_ms = layer->until_unix_ms,
            .error = layer->error,
            .connections = layer->connections,
        };
    }
    if (engine->wait)
        fill_wait(job, ret);
}

static void add_details(void *arg, struct strbuf *ret)
{
    struct pull_job *job = arg;
    const struct reference *reference = pull_reference(job->pull);
    Davit__V1__Job message = DAVIT__V1__JOB__INIT;
    Davit__V1__PullDetails details = DAVIT__V1__PULL_DETAILS__INIT;
    Davit__V1__PullResult result = DAVIT__V1__PULL_RESULT__INIT;

    details.repository = reference->path;
    details.tag = job->tag;
    details.default_tag = reference->default_tag;
    message.pull = &details;
    if (job->pulled) {
        struct pull_result engine = pull_result(job->pull);
        result.reference = job->canonical;
        result.digest = (char *)engine.digest->text;
        result.image_id = (char *)engine.image_id->text;
        result.up_to_date = engine.up_to_date;
        message.result_case = DAVIT__V1__JOB__RESULT_PULL_RESULT;
        message.pull_result = &result;
    }
    job_details_add(ret, &message);
}

static void set_limit(void *arg, uint64_t bytes_per_second)
{
    struct pull_job *job = arg;

    pull_set_limit(job->pull, bytes_per_second);
}

static const struct job_ops pull_ops = {
    .await_run = run_pull,
    .progress = fill_progress,
    .details = add_details,
    .set_limit = set_limit,
    .free = pull_job_free,
};

/* --- The call ----------------------------------------------------------------------------------
 */

static char *or_null(char *value)
{
    return str_empty(value) ? NULL : value;
}

struct registry_auth request_auth(const Davit__V1__RegistryAuth *auth)
{
    if (!auth)
        return (struct registry_auth){0};
    return (struct registry_auth){or_null(auth->username), or_null(auth->password),
                                  or_null(auth->identity_token)};
}

struct digest request_rights(const Davit__V1__RegistryAuth *auth)
{
    CLEANUP_FREE char *rights =
        auth ? xasprintf("%s\n%s\n%s", auth->username, auth->password, auth->identity_token)
             : xstrdup("");
    struct digest digest = digest_of(rights, strlen(rights));

    explicit_bzero(rights, strlen(rights));
    return digest;
}

/* Equal for equal pulls: of one image, for one platform, with the same rights. */
static char *pull_key(const struct pull_job *job, const Davit__V1__PullRequest *request)
{
    struct digest rights = request_rights(request->auth);

    return xasprintf("%s %s %s", job->canonical, request->platform, rights.text);
}

static struct pull_job *pull_job_new(const struct engines *engines,
                                     const Davit__V1__PullRequest *request, struct error *err)
{
    struct pull_request engine_request = {.reference = request->reference,
                                          .platform = request->platform,
                                          .auth = request_auth(request->auth)};
    const struct reference *reference;
    struct pull_job *job;
    struct pull *pull;

    pull = pull_new(&engines->pull, &engine_request, err);
    if (!pull)
        return NULL;
    job = xcalloc(1, sizeof(*job));
    reference = pull_reference(pull);
    job->pull = pull;
    job->familiar = reference_familiar(reference);
    job->canonical = reference_canonical(reference);
    job->tag = xstrdup(digest_is_set(&reference->digest) ? reference->digest.text : reference->tag);
    job->key = pull_key(job, request);
    return job;
}

bool pull_spec(const struct engines *engines, const ProtobufCMessage *request, struct job_spec *ret,
               struct error *err)
{
    struct pull_job *job = pull_job_new(engines, (const Davit__V1__PullRequest *)request, err);

    if (job)
        *ret = (struct job_spec){
            .kind = JOB_PULL,
            .subject = job->familiar,
            .key = job->key,
            .ops = &pull_ops,
            .arg = job,
        };
    return job != NULL;
}

bool handle_pull(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__PullRequest *request = (const Davit__V1__PullRequest *)message;
    Davit__V1__PullRequest again = DAVIT__V1__PULL_REQUEST__INIT;
    struct job_spec spec;
    struct job *job;

    if (!message || !pull_spec(engines, message, &spec, err))
        return false;
    spec.limit_bytes_per_second = request->limit_bytes_per_second;
    again.reference = request->reference;
    again.platform = request->platform;
    job = job_join_or_start(engines->jobs, &spec, request->auth ? NULL : &again.base, err);
    if (!job)
        return false;
    log_info("pull", LOG("image", request->reference), LOG("job", job_info(job).id),
             LOG("peer", grpc_call_peer(call)));
    return await_follow_job(call, job,
                            (struct job_following){request->detach, request->cancel_on_leave}, err);
}
