/* Images.Save: a job that makes the archive, at the pace of the call that sends it. */
#include "daemon/image/save.h"
#include "daemon/server/handlers.h"
#include "daemon/server/job_message.h"
#include "proto/base/log.h"

/* Pieces of the archive on their way from the job's task to the call's: while one is sent the next
 * is read. */
#define PIECES 2
#define PIECE_BYTES (256 * KIB)

/* The job's, and the call's. */
struct save_job {
    unsigned int refs;
    struct save *save;
    char *subject;
    uint64_t began_ms;
    bool prepared, ended; /* ended: there will be no more pieces */
    struct {
        uint8_t *data;
        size_t size;
    } pieces[PIECES];
    size_t read, sent; /* so many, since the beginning */
    struct wait_queue changed;
};

static void save_job_unref(void *arg)
{
    struct save_job *job = arg;

    if (--job->refs)
        return;
    save_free(job->save);
    for (size_t i = 0; i < PIECES; i++)
        free(job->pieces[i].data);
    free(job->subject);
    free(job);
}

static void save_job_cleanup(struct save_job **job)
{
    if (*job)
        save_job_unref(*job);
}

/* --- The job -----------------------------------------------------------------------------------
 */

static bool await_produce(struct save_job *job, struct error *err)
{
    ssize_t n;

    do {
        size_t place = job->read % PIECES;
        while (job->read - job->sent == PIECES) {
            int r = await_wake(&job->changed, "waiting for who reads an archive");
            if (r < 0)
                return await_error(err, r, "saving %s", job->subject);
        }
        n = await_save_read(job->save, job->pieces[place].data, PIECE_BYTES, err);
        if (n > 0) {
            job->pieces[place].size = (size_t)n;
            job->read++;
            wake_all(&job->changed);
        }
    } while (n > 0);
    return n == 0;
}

static bool run_save(void *arg, struct error *err)
{
    struct save_job *job = arg;
    bool ok = await_save_prepare(job->save, err);

    job->prepared = ok;
    job->began_ms = now_ms();
    wake_all(&job->changed);
    ok = ok && await_produce(job, err);
    job->ended = true;
    wake_all(&job->changed);
    return ok;
}

static void fill_progress(void *arg, struct job_progress *ret)
{
    const struct save_job *job = arg;
    struct save_progress progress = save_progress(job->save);
    uint64_t passed_ms = MAX(now_ms() - job->began_ms, 1U);

    ret->phase = job->prepared ? JOB_TRANSFERRING : JOB_RESOLVING;
    ret->bytes_fetched = progress.bytes_done;
    ret->bytes_total = progress.bytes_total;
    ret->eta_ms = -1;
    if (!job->prepared)
        return;
    ret->percent = (unsigned int)(progress.bytes_done * 100 / progress.bytes_total);
    ret->bytes_per_second = progress.bytes_done * 1000 / passed_ms;
    if (ret->bytes_per_second)
        ret->eta_ms =
            (int64_t)((progress.bytes_total - progress.bytes_done) * 1000 / ret->bytes_per_second);
    ret->item_count = MIN(progress.layer_count, JOB_MAX_ITEMS);
    for (size_t i = 0; i < ret->item_count; i++) {
        struct save_layer layer = save_layer(job->save, i);
        ret->items[i] = (struct job_item){
            .id = layer.diff_id->text,
            .state = layer.bytes_done == layer.bytes_total ? JOB_ITEM_DONE
                     : layer.bytes_done                    ? JOB_ITEM_SENDING
                                                           : JOB_ITEM_WAITING,
            .bytes_fetched = layer.bytes_done,
            .bytes_total = layer.bytes_total,
        };
    }
}

static const struct job_ops save_ops = {
    .await_run = run_save,
    .progress = fill_progress,
    .free = save_job_unref,
};

static struct save_job *save_job_new(struct save *save)
{
    struct save_job *job = xcalloc(1, sizeof(*job));

    job->refs = 1;
    job->save = save;
    job->subject = save_subject(save);
    for (size_t i = 0; i < PIECES; i++)
        job->pieces[i].data = xmalloc(PIECE_BYTES);
    wait_queue_init(&job->changed);
    return job;
}

/* --- The call ----------------------------------------------------------------------------------
 */

static bool await_send_start(struct grpc_call *call, struct job *job, const struct save *save,
                             struct error *err)
{
    Davit__V1__SaveImagesResponse__SaveStart start =
        DAVIT__V1__SAVE_IMAGES_RESPONSE__SAVE_START__INIT;
    Davit__V1__SaveImagesResponse response = DAVIT__V1__SAVE_IMAGES_RESPONSE__INIT;

    start.job_id = (char *)job_info(job).id;
    start.bytes_total = save_bytes_total(save);
    response.what_case = DAVIT__V1__SAVE_IMAGES_RESPONSE__WHAT_START;
    response.start = &start;
    return await_grpc_send(call, &response.base, err);
}

/* Until there is something to send, or nothing any more. */
static bool await_news(struct save_job *job, struct error *err)
{
    while (job->sent == job->read && !job->ended) {
        int r = await_wake(&job->changed, "waiting for an archive");
        if (r < 0)
            return await_error(err, r, "saving %s", job->subject);
    }
    return true;
}

static bool await_send_pieces(struct grpc_call *call, struct save_job *job, struct error *err)
{
    Davit__V1__SaveImagesResponse response = DAVIT__V1__SAVE_IMAGES_RESPONSE__INIT;

    response.what_case = DAVIT__V1__SAVE_IMAGES_RESPONSE__WHAT_DATA;
    while (await_news(job, err)) {
        size_t place = job->sent % PIECES;
        if (job->sent == job->read)
            return true;
        response.data.data = job->pieces[place].data;
        response.data.len = job->pieces[place].size;
        if (!await_grpc_send(call, &response.base, err))
            return false;
        job->sent++;
        wake_all(&job->changed);
    }
    return false;
}

/* What became of it. */
static bool await_end(struct job_watch *watch, const struct job *job, struct error *err)
{
    bool ended = false;

    while (!ended) {
        CLEANUP(job_snapshot_cleanup)
        struct job_snapshot *snapshot = await_job_snapshot(watch, 0, err);
        if (!snapshot)
            return false;
        ended = snapshot->ended;
    }
    return job_check(job, err);
}

struct sending {
    struct grpc_call *call;
    struct job *job;
    struct save_job *save_job;
};

static bool send_task(void *arg, struct error *err)
{
    struct sending *sending = arg;
    struct save_job *save_job = sending->save_job;

    while (!save_job->prepared && !save_job->ended) {
        int r = await_wake(&save_job->changed, "waiting for an archive");
        if (r < 0)
            return await_error(err, r, "saving %s", save_job->subject);
    }
    return !save_job->prepared ||
           (await_send_start(sending->call, sending->job, save_job->save, err) &&
            await_send_pieces(sending->call, save_job, err));
}

/* Sends it in a task of its own: one that is cancelled does not wait for a reader that stalls. */
static bool await_send_archive(struct grpc_call *call, struct job *job, struct save_job *save_job,
                               struct error *err)
{
    struct sending sending = {call, job, save_job};
    CLEANUP(job_watch_cleanup)
    struct job_watch *watch = job_watch_new(job, JOB_LEAVE_CANCELS);
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    return task_spawn(&group, "archive", job_info(job).id, send_task, &sending, err) &&
           await_end(watch, job, err) && await_group(&group, err);
}

bool handle_save(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__SaveImagesRequest *request = (const Davit__V1__SaveImagesRequest *)message;
    CLEANUP(save_job_cleanup) struct save_job *save_job = NULL;
    CLEANUP(job_cleanup) struct job *job = NULL;
    struct save *save;

    if (!message)
        return false;
    save = await_save_new(engines->store, request->references, request->n_references,
                          request->platform, err);
    if (!save)
        return false;
    save_job = save_job_new(save);
    save_job->refs++; /* also if it cannot be started */
    job = job_start(engines->jobs,
                    &(struct job_spec){.kind = JOB_SAVE,
                                       .subject = save_job->subject,
                                       .ops = &save_ops,
                                       .arg = save_job},
                    err);
    if (!job)
        return false;
    job_ref(job);
    log_info("save", LOG("images", save_job->subject), LOG("job", job_info(job).id),
             LOG("peer", grpc_call_peer(call)));
    return await_send_archive(call, job, save_job, err);
}
