/* System.Prune, as a job. */
#include "daemon/image/prune.h"
#include "daemon/server/handlers.h"
#include "daemon/server/job_message.h"
#include "proto/async/await.h"
#include "proto/base/log.h"
#include "proto/davit/v1/system.pb-c.h"

/* The largest of results: 2 MiB of lines, and what is counted is the rest. */
#define RESULT_MAX_BYTES (2 * MIB)
#define LINE_OVERHEAD_BYTES 10 /* at most, of a line in the message */

struct prune_job {
    struct prune *prune;
    bool ended;
    struct strbuf result; /* packed, once it has ended */
};

static void prune_job_free(void *arg)
{
    struct prune_job *job = arg;

    prune_free(job->prune);
    strbuf_done(&job->result);
    free(job);
}

static void fill_removed(Davit__V1__PruneResult__Removed *message, const struct image_removed *one)
{
    davit__v1__prune_result__removed__init(message);
    if (one->untagged) {
        message->what_case = DAVIT__V1__PRUNE_RESULT__REMOVED__WHAT_UNTAGGED;
        message->untagged = one->what;
    } else {
        message->what_case = DAVIT__V1__PRUNE_RESULT__REMOVED__WHAT_DELETED;
        message->deleted = one->what;
    }
}

/* How many of the lines have room; takes it. */
static size_t count_removed(const struct image_removals *images, size_t *room)
{
    size_t count = 0;

    for (; count < images->count; count++) {
        size_t bytes = strlen(images->items[count].what) + LINE_OVERHEAD_BYTES;
        if (bytes > *room)
            break;
        *room -= bytes;
    }
    return count;
}

/* On any thread: nobody else looks at the prune. */
static void pack_result(void *arg)
{
    struct prune_job *job = arg;
    struct prune_result result = prune_result(job->prune);
    const struct image_removals *images = result.images;
    const struct layers_pruned *layers = result.layers;
    size_t room = RESULT_MAX_BYTES, removed_count = count_removed(images, &room);
    size_t layer_count = MIN(layers->count, room / (sizeof(struct digest) + LINE_OVERHEAD_BYTES));
    Davit__V1__Job message = DAVIT__V1__JOB__INIT;
    Davit__V1__PruneResult pruned = DAVIT__V1__PRUNE_RESULT__INIT;
    CLEANUP_FREE Davit__V1__PruneResult__Removed *removed = NULL, **removed_list = NULL;
    CLEANUP_FREE char **diff_ids = NULL;

    removed = xcalloc(removed_count + 1, sizeof(*removed));
    removed_list = xcalloc(removed_count + 1, sizeof(*removed_list));
    diff_ids = xcalloc(layer_count + 1, sizeof(*diff_ids));
    for (size_t i = 0; i < removed_count; i++) {
        fill_removed(&removed[i], &images->items[i]);
        removed_list[pruned.n_removed++] = &removed[i];
    }
    for (size_t i = 0; i < layer_count; i++)
        diff_ids[pruned.n_layers++] = layers->diff_ids[i].text;
    pruned.removed = removed_list;
    pruned.removed_left_out = images->count - removed_count;
    pruned.layers = diff_ids;
    pruned.layers_left_out = layers->count - layer_count;
    pruned.dry_run = result.dry_run;
    pruned.partials = (uint32_t)result.partial_count;
    pruned.reclaimed_bytes = result.freed_bytes;
    message.result_case = DAVIT__V1__JOB__RESULT_PRUNE_RESULT;
    message.prune_result = &pruned;
    job_details_add(&job->result, &message);
}

static bool run_prune(void *arg, struct error *err)
{
    struct prune_job *job = arg;
    bool ok = await_prune(job->prune, err);
    /* Also of what went before a failure, or a cancel. */
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();

    if (ok || prune_has_removed(job->prune))
        await_work(pack_result, job, "packing what was pruned");
    job->ended = true;
    return ok;
}

static void fill_progress(void *arg, struct job_progress *ret)
{
    const struct prune_job *job = arg;

    ret->phase = job->ended ? JOB_ENDED : JOB_TRANSFERRING;
    ret->percent = prune_percent(job->prune);
    ret->eta_ms = -1;
}

static void add_details(void *arg, struct strbuf *ret)
{
    const struct prune_job *job = arg;

    if (job->ended)
        strbuf_add(ret, job->result.data, job->result.length);
}

static const struct job_ops prune_ops = {
    .await_run = run_prune,
    .progress = fill_progress,
    .details = add_details,
    .free = prune_job_free,
};

/* Prunes with one key are one job. */
static void add_key(const Davit__V1__PruneRequest *request, struct strbuf *key)
{
    strbuf_addf(key, "%d %d %d", request->all, request->images_only, request->dry_run);
    for (size_t i = 0; i < request->n_filters; i++)
        strbuf_addf(key, " %zu:%s", strlen(request->filters[i]), request->filters[i]);
}

/* The prune of this request, joined or started; borrowed until the next await. */
static struct job *start_or_join(const struct engines *engines,
                                 const Davit__V1__PruneRequest *request, struct error *err)
{
    const struct prune_request engine_request = {
        .all = request->all,
        .images_only = request->images_only,
        .dry_run = request->dry_run,
        .filters = request->filters,
        .filter_count = request->n_filters,
    };
    CLEANUP_STRBUF struct strbuf key = {0};
    struct prune *prune;
    struct job *job;
    struct prune_job *prune_job;

    add_key(request, &key);
    job = job_join(engines->jobs, JOB_PRUNE, strbuf_text(&key));
    if (job)
        return job;
    prune = prune_new(engines->store, &engine_request, err);
    if (!prune)
        return NULL;
    prune_job = xcalloc(1, sizeof(*prune_job));
    prune_job->prune = prune;
    return job_start(engines->jobs,
                     &(struct job_spec){
                         .kind = JOB_PRUNE,
                         .subject = request->all ? "all" : "dangling",
                         .key = strbuf_text(&key),
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
    log_info("prune", LOG("all", request->all), LOG("dry_run", request->dry_run),
             LOG("filters", request->n_filters), LOG("job", job_info(job).id),
             LOG("peer", grpc_call_peer(call)));
    return await_follow_job(call, job,
                            (struct job_following){request->detach, request->cancel_on_leave}, err);
}
