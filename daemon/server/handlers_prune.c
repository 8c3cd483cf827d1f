/* System.Prune, as a job. */
#include "daemon/image/prune.h"
#include "daemon/server/handlers.h"
#include "daemon/server/job_message.h"
#include "proto/base/log.h"
#include "proto/davit/v1/system.pb-c.h"

struct prune_job {
    struct prune *prune;
    bool done;
};

static void prune_job_free(void *arg)
{
    struct prune_job *job = arg;

    prune_free(job->prune);
    free(job);
}

static bool run_prune(void *arg, struct error *err)
{
    struct prune_job *job = arg;

    job->done = await_prune(job->prune, err);
    return job->done;
}

static void fill_progress(void *arg, struct job_progress *ret)
{
    const struct prune_job *job = arg;

    ret->phase = job->done ? JOB_ENDED : JOB_TRANSFERRING;
    ret->percent = prune_percent(job->prune);
    ret->eta_ms = -1;
}

static void add_details(void *arg, struct strbuf *ret)
{
    const struct prune_job *job = arg;
    struct prune_result result = prune_result(job->prune);
    const struct image_removals *images = result.images;
    const struct layers_pruned *layers = result.layers;
    Davit__V1__Job message = DAVIT__V1__JOB__INIT;
    Davit__V1__PruneResult pruned = DAVIT__V1__PRUNE_RESULT__INIT;
    CLEANUP_FREE char **untagged = NULL, **deleted = NULL, **diff_ids = NULL;

    if (!job->done)
        return;
    untagged = xcalloc(images->count + 1, sizeof(*untagged));
    deleted = xcalloc(images->count + 1, sizeof(*deleted));
    diff_ids = xcalloc(layers->count + 1, sizeof(*diff_ids));
    for (size_t i = 0; i < images->count; i++) {
        if (images->items[i].untagged)
            untagged[pruned.n_untagged++] = images->items[i].what;
        else
            deleted[pruned.n_deleted++] = images->items[i].what;
    }
    for (size_t i = 0; i < layers->count; i++)
        diff_ids[pruned.n_layers++] = layers->diff_ids[i].text;
    pruned.untagged = untagged;
    pruned.deleted = deleted;
    pruned.layers = diff_ids;
    pruned.partials = (uint32_t)result.partial_count;
    pruned.reclaimed_bytes = result.freed_bytes;
    message.result_case = DAVIT__V1__JOB__RESULT_PRUNE_RESULT;
    message.prune_result = &pruned;
    job_details_add(ret, &message);
}

static const struct job_ops prune_ops = {
    .await_run = run_prune,
    .progress = fill_progress,
    .details = add_details,
    .free = prune_job_free,
};

/* The prune of this request, joined or started; borrowed until the next await. */
static struct job *start_or_join(const struct engines *engines,
                                 const Davit__V1__PruneRequest *request, struct error *err)
{
    const struct prune_request engine_request = {
        .all = request->all,
        .until_unix_ns = request->until_unix_ms ? request->until_unix_ms * 1000000 : INT64_MAX,
    };
    CLEANUP_FREE char *key = xasprintf("%d %lld", request->all, (long long)request->until_unix_ms);
    struct job *job = job_join(engines->jobs, JOB_PRUNE, key);
    struct prune_job *prune_job;

    if (job)
        return job;
    prune_job = xcalloc(1, sizeof(*prune_job));
    prune_job->prune = prune_new(engines->store, &engine_request);
    return job_start(engines->jobs,
                     &(struct job_spec){
                         .kind = JOB_PRUNE,
                         .subject = request->all ? "all" : "dangling",
                         .key = key,
                         .ops = &prune_ops,
                         .arg = prune_job,
                     },
                     err);
}

bool handle_prune(struct grpc_call *call, void *context, struct error *err)
{
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__PruneRequest *request = (const Davit__V1__PruneRequest *)message;
    struct job *job;

    if (!message)
        return false;
    job = start_or_join(context, request, err);
    if (!job)
        return false;
    log_info("prune", LOG("all", request->all), LOG("until_unix_ms", request->until_unix_ms),
             LOG("job", job_info(job).id), LOG("peer", grpc_call_peer(call)));
    return await_follow_job(call, job,
                            (struct job_following){request->detach, request->cancel_on_leave}, err);
}
