/* Images.Import: a job that reads a tar as the call brings it, or fetches it itself. */
#include "daemon/image/import.h"
#include "daemon/server/handlers.h"
#include "daemon/server/job_message.h"
#include "daemon/server/upload.h"
#include "proto/base/log.h"

struct import_job {
    struct upload *upload;
    struct archive_source source;
    struct import *import;
    char *subject;
    bool imported;
};

static void import_job_free(void *arg)
{
    struct import_job *job = arg;

    import_free(job->import);
    upload_unref(job->upload);
    free(job->subject);
    free(job);
}

static bool run_import(void *arg, struct error *err)
{
    struct import_job *job = arg;

    job->imported = await_import(job->import, err);
    return job->imported;
}

static void fill_progress(void *arg, struct job_progress *ret)
{
    const struct import_job *job = arg;
    const struct import_progress engine = import_progress(job->import);
    const uint64_t passed_ms = engine.begun_ms ? MAX(now_ms() - engine.begun_ms, 1U) : 1;

    ret->phase = job->imported ? JOB_ENDED : engine.committing ? JOB_COMMITTING : JOB_TRANSFERRING;
    ret->bytes_fetched = engine.bytes_read;
    ret->bytes_total = engine.bytes_total;
    ret->bytes_per_second = engine.bytes_read * 1000 / passed_ms;
    ret->eta_ms = -1;
    if (engine.bytes_total > 0)
        ret->percent = (unsigned int)MIN(engine.bytes_read * 100 / engine.bytes_total, 99U);
    if (engine.bytes_total > engine.bytes_read && ret->bytes_per_second > 0)
        ret->eta_ms =
            (int64_t)((engine.bytes_total - engine.bytes_read) * 1000 / ret->bytes_per_second);
    ret->item_count = 1;
    ret->items[0] = (struct job_item){
        .id = "",
        .state = job->imported ? JOB_ITEM_DONE : JOB_ITEM_FETCHING,
        .bytes_fetched = engine.bytes_read,
        .bytes_total = engine.bytes_total,
        .bytes_stored = engine.bytes_stored,
    };
}

static void add_details(void *arg, struct strbuf *ret)
{
    const struct import_job *job = arg;
    Davit__V1__Job message = DAVIT__V1__JOB__INIT;
    Davit__V1__ImportResult result = DAVIT__V1__IMPORT_RESULT__INIT;

    if (!job->imported)
        return;
    result.image_id = (char *)import_result(job->import)->text;
    message.result_case = DAVIT__V1__JOB__RESULT_IMPORT_RESULT;
    message.import_result = &result;
    job_details_add(ret, &message);
}

static const struct job_ops import_ops = {
    .await_run = run_import,
    .progress = fill_progress,
    .details = add_details,
    .free = import_job_free,
};

/* --- The call ----------------------------------------------------------------------------------
 */

static const ProtobufCBinaryData *data_of(const ProtobufCMessage *message)
{
    const Davit__V1__ImportImageRequest *request = (const Davit__V1__ImportImageRequest *)message;

    return request->what_case == DAVIT__V1__IMPORT_IMAGE_REQUEST__WHAT_DATA ? &request->data : NULL;
}

static bool is_url(const char *source)
{
    return str_starts(source, "http://") || str_starts(source, "https://");
}

static struct import_job *
await_import_job_new(const struct engines *engines,
                     const Davit__V1__ImportImageRequest__ImportOptions *options, struct error *err)
{
    struct import_job *job = xcalloc(1, sizeof(*job));
    const bool url = is_url(options->source);
    const struct import_request request = {
        .url = url ? options->source : NULL,
        .reference = options->reference,
        .message = options->message,
        .platform = options->platform,
        .changes = options->changes,
        .change_count = options->n_changes,
    };

    job->upload = upload_new(data_of);
    job->source = (struct archive_source){.await_next = await_upload_next,
                                          .arg = job->upload,
                                          .bytes_total = options->bytes_total};
    job->subject = xstrdup(str_empty(options->source) ? "-" : options->source);
    job->import = await_import_new(engines->store, engines->pull.registry,
                                   url ? NULL : &job->source, &request, err);
    if (job->import)
        return job;
    import_job_free(job);
    return NULL;
}

bool handle_import(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = NULL;
    const Davit__V1__ImportImageRequest *request;
    CLEANUP(upload_cleanup) struct upload *upload = NULL;
    struct import_job *import_job;
    struct job *job;

    if (await_grpc_recv(call, &message, err) < 0)
        return false;
    request = (const Davit__V1__ImportImageRequest *)message;
    if (!request || request->what_case != DAVIT__V1__IMPORT_IMAGE_REQUEST__WHAT_OPTIONS)
        return error_set(err, ERROR_INVALID_ARGUMENT, "UNEXPECTED_MESSAGE",
                         "the first message has no options");
    import_job = await_import_job_new(engines, request->options, err);
    if (!import_job)
        return false;
    upload = upload_ref(import_job->upload);
    job = job_start(engines->jobs,
                    &(struct job_spec){.kind = JOB_IMPORT,
                                       .subject = import_job->subject,
                                       .ops = &import_ops,
                                       .arg = import_job},
                    err);
    if (!job)
        return false;
    log_info("import", LOG("from", job_info(job).subject), LOG("job", job_info(job).id),
             LOG("peer", grpc_call_peer(call)));
    return await_upload_job(call, upload, job, err);
}
