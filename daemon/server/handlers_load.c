/* Images.Load: a job that reads the archive as the call brings it. */
#include "daemon/image/image.h"
#include "daemon/image/load.h"
#include "daemon/server/handlers.h"
#include "daemon/server/job_message.h"
#include "daemon/server/upload.h"
#include "proto/async/await.h"
#include "proto/base/log.h"

/* Of the names in a result, which is one message. */
#define RESULT_MAX_BYTES (2 * MIB)
#define NAME_EXTRA_BYTES 8 /* of tags and lengths */

struct load_job {
    struct upload *upload;
    struct archive_source source;
    struct load *load;
    char *subject, *platform;
    bool loaded;
    struct strbuf result;          /* as it is told; once it is loaded */
    struct load_progress progress; /* large: not for a stack */
};

static void load_job_free(void *arg)
{
    struct load_job *job = arg;

    load_free(job->load);
    upload_unref(job->upload);
    strbuf_done(&job->result);
    free(job->subject);
    free(job->platform);
    free(job);
}

static enum job_item_state item_state(enum load_layer_state state)
{
    switch (state) {
    case LOAD_LAYER_LOADING:
        return JOB_ITEM_FETCHING;
    case LOAD_LAYER_PRESENT:
        return JOB_ITEM_PRESENT;
    case LOAD_LAYER_DONE:
        return JOB_ITEM_DONE;
    }
    return JOB_ITEM_WAITING;
}

static enum job_phase phase_of(enum load_phase phase)
{
    switch (phase) {
    case LOAD_READING:
        return JOB_TRANSFERRING;
    case LOAD_COMMITTING:
        return JOB_COMMITTING;
    case LOAD_DONE:
        return JOB_ENDED;
    }
    return JOB_TRANSFERRING;
}

static void fill_progress(void *arg, struct job_progress *ret)
{
    struct load_job *job = arg;
    const struct load_progress *engine = &job->progress;

    _Static_assert(LOAD_PROGRESS_LAYERS <= JOB_MAX_ITEMS, "each has its place");
    load_progress(job->load, &job->progress);
    ret->phase = phase_of(engine->phase);
    ret->bytes_fetched = engine->bytes_read;
    ret->bytes_total = engine->bytes_total;
    ret->percent = engine->percent;
    ret->bytes_per_second = engine->bytes_per_second;
    ret->eta_ms = engine->eta_ms;
    ret->item_count = engine->layer_count;
    for (size_t i = 0; i < engine->layer_count; i++)
        ret->items[i] = (struct job_item){
            .id = engine->layers[i].id,
            .state = item_state(engine->layers[i].state),
            .bytes_fetched = engine->layers[i].bytes_done,
            .bytes_total = engine->layers[i].bytes_total,
        };
}

/* What of the result fits in one message. */
struct result_size {
    size_t bytes;
    uint64_t left_out;
};

static Davit__V1__LoadResult__Renamed *renamed_message(const char *name, const struct digest *id)
{
    Davit__V1__LoadResult__Renamed *message = xcalloc(1, sizeof(*message));

    davit__v1__load_result__renamed__init(message);
    message->name = image_familiar(name);
    message->old_image_id = xstrdup(id->text);
    return message;
}

static Davit__V1__LoadResult__Loaded *loaded_message(const struct loaded_image *image,
                                                     struct result_size *size)
{
    Davit__V1__LoadResult__Loaded *message = xcalloc(1, sizeof(*message));
    const size_t count = strv_count(image->names);

    davit__v1__load_result__loaded__init(message);
    message->image_id = xstrdup(image->id.text);
    message->names = xcalloc(count + 1, sizeof(*message->names));
    message->renamed = xcalloc(count + 1, sizeof(Davit__V1__LoadResult__Renamed *));
    size->bytes += sizeof(image->id.text) + NAME_EXTRA_BYTES;
    for (size_t i = 0; i < count; i++) {
        const bool moved = image->moved_from && digest_is_set(&image->moved_from[i]);
        if (size->bytes >= RESULT_MAX_BYTES) {
            size->left_out += count - i;
            break;
        }
        message->names[message->n_names++] = image_familiar(image->names[i]);
        size->bytes += strlen(image->names[i]) + NAME_EXTRA_BYTES;
        if (!moved)
            continue;
        message->renamed[message->n_renamed++] =
            renamed_message(image->names[i], &image->moved_from[i]);
        size->bytes += strlen(image->names[i]) + sizeof(image->id.text) + 2 * NAME_EXTRA_BYTES;
    }
    return message;
}

/* Names can be many: not for the loop. */
static void pack_result(void *arg)
{
    struct load_job *job = arg;
    const size_t count = load_count(job->load);
    Davit__V1__Job message = DAVIT__V1__JOB__INIT;
    Davit__V1__LoadResult *result = xcalloc(1, sizeof(*result));
    struct result_size size = {0};

    davit__v1__load_result__init(result);
    result->images = xcalloc(count + 1, sizeof(Davit__V1__LoadResult__Loaded *));
    for (size_t i = 0; i < count; i++) {
        const struct loaded_image image = load_result(job->load, i);
        if (size.bytes < RESULT_MAX_BYTES)
            result->images[result->n_images++] = loaded_message(&image, &size);
        else
            size.left_out += image.names ? strv_count(image.names) : 1;
    }
    result->left_out = size.left_out;
    message.result_case = DAVIT__V1__JOB__RESULT_LOAD_RESULT;
    message.load_result = result;
    job_details_add(&job->result, &message);
    davit__v1__load_result__free_unpacked(result, NULL);
}

static bool run_load(void *arg, struct error *err)
{
    struct load_job *job = arg;
    bool ok = await_load(job->load, err);
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();

    if (ok)
        await_work(pack_result, job, "telling what was loaded");
    return job->loaded = ok;
}

static void add_details(void *arg, struct strbuf *ret)
{
    const struct load_job *job = arg;

    if (job->loaded)
        strbuf_add(ret, job->result.data, job->result.length);
}

static const struct job_ops load_ops = {
    .await_run = run_load,
    .progress = fill_progress,
    .details = add_details,
    .free = load_job_free,
};

/* --- The call ----------------------------------------------------------------------------------
 */

static const ProtobufCBinaryData *data_of(const ProtobufCMessage *message)
{
    const Davit__V1__LoadImagesRequest *request = (const Davit__V1__LoadImagesRequest *)message;

    return request->what_case == DAVIT__V1__LOAD_IMAGES_REQUEST__WHAT_DATA ? &request->data : NULL;
}

static struct load_job *load_job_new(const struct engines *engines,
                                     const Davit__V1__LoadImagesRequest__LoadOptions *options)
{
    struct load_job *job = xcalloc(1, sizeof(*job));

    job->upload = upload_new(data_of);
    job->subject = xstrdup(str_empty(options->subject) ? "stdin" : options->subject);
    job->source = (struct archive_source){.await_next = await_upload_next,
                                          .arg = job->upload,
                                          .bytes_total = options->bytes_total};
    job->source.name = job->subject;
    job->platform = xstrdup(options->platform);
    job->load = load_new(engines->store, &job->source, job->platform);
    return job;
}

bool handle_load(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = NULL;
    const Davit__V1__LoadImagesRequest *request;
    CLEANUP(upload_cleanup) struct upload *upload = NULL;
    struct load_job *load_job;
    struct job *job;

    if (await_grpc_recv(call, &message, err) < 0)
        return false;
    request = (const Davit__V1__LoadImagesRequest *)message;
    if (!request || request->what_case != DAVIT__V1__LOAD_IMAGES_REQUEST__WHAT_OPTIONS)
        return error_set(err, ERROR_INVALID_ARGUMENT, "UNEXPECTED_MESSAGE",
                         "the first message has no options");
    load_job = load_job_new(engines, request->options);
    upload = upload_ref(load_job->upload);
    job = job_start(engines->jobs,
                    &(struct job_spec){.kind = JOB_LOAD,
                                       .subject = load_job->subject,
                                       .ops = &load_ops,
                                       .arg = load_job},
                    err);
    if (!job)
        return false;
    log_info("load", LOG("archive", job_info(job).subject), LOG("job", job_info(job).id),
             LOG("peer", grpc_call_peer(call)));
    return await_upload_job(call, upload, job, err);
}
