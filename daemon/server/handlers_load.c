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

/* An image of the result; the texts are its own but for IDs, which are the engine's. */
static Davit__V1__LoadResult__Loaded *loaded_message(const struct loaded_image *image)
{
    Davit__V1__LoadResult__Loaded *message = xcalloc(1, sizeof(*message));
    const size_t count = strv_count(image->names);

    davit__v1__load_result__loaded__init(message);
    message->image_id = xstrdup(image->id.text);
    message->names = xcalloc(count + 1, sizeof(*message->names));
    message->renamed = xcalloc(count + 1, sizeof(Davit__V1__LoadResult__Renamed *));
    for (size_t i = 0; i < count; i++) {
        Davit__V1__LoadResult__Renamed *renamed;
        message->names[message->n_names++] = image_familiar(image->names[i]);
        if (!image->moved_from || !digest_is_set(&image->moved_from[i]))
            continue;
        renamed = message->renamed[message->n_renamed++] = xcalloc(1, sizeof(*renamed));
        davit__v1__load_result__renamed__init(renamed);
        renamed->name = image_familiar(image->names[i]);
        renamed->old_image_id = xstrdup(image->moved_from[i].text);
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
    size_t bytes = 0;

    davit__v1__load_result__init(result);
    result->images = xcalloc(count + 1, sizeof(Davit__V1__LoadResult__Loaded *));
    for (size_t i = 0; i < count && bytes < RESULT_MAX_BYTES; i++) {
        const struct loaded_image image = load_result(job->load, i);
        result->images[i] = loaded_message(&image);
        result->n_images++;
        bytes += protobuf_c_message_get_packed_size(&result->images[i]->base);
    }
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
