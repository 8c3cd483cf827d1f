#include "daemon/server/upload.h"

#include "daemon/server/job_message.h"
#include "proto/async/channel.h"

#define MESSAGES 2

struct upload {
    unsigned int refs;
    const ProtobufCBinaryData *(*data_of)(const ProtobufCMessage *message);
    struct channel *messages;
    ProtobufCMessage *current; /* whose bytes are being worked on */
    struct error error;        /* why not all has come */
};

struct upload *upload_new(const ProtobufCBinaryData *(*data_of)(const ProtobufCMessage *message))
{
    struct upload *upload = xcalloc(1, sizeof(*upload));

    upload->refs = 1;
    upload->data_of = data_of;
    upload->messages = channel_new(MESSAGES);
    return upload;
}

struct upload *upload_ref(struct upload *upload)
{
    upload->refs++;
    return upload;
}

static void free_message(void *message)
{
    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
}

struct upload *upload_unref(struct upload *upload)
{
    if (!upload || --upload->refs)
        return NULL;
    channel_free(upload->messages, free_message);
    free_message(upload->current);
    error_done(&upload->error);
    free(upload);
    return NULL;
}

/* --- The job's end -----------------------------------------------------------------------------
 */

ssize_t await_upload_next(void *arg, const void **ret, struct error *err)
{
    struct upload *upload = arg;
    const ProtobufCBinaryData *data = NULL;

    do {
        void *message = NULL;
        int r;
        free_message(TAKE(upload->current));
        r = await_recv(upload->messages, &message);
        if (r < 0)
            await_error(err, r, "receiving");
        else if (r == 0 && error_is_set(&upload->error))
            error_copy(err, &upload->error);
        else if (r == 0)
            return 0;
        if (r <= 0)
            return -1;
        upload->current = message;
        data = upload->data_of(message);
    } while (data->len == 0);
    *ret = data->data;
    return (ssize_t)data->len;
}

/* --- The call's end ----------------------------------------------------------------------------
 */

void await_upload_receive(struct upload *upload, struct grpc_call *call)
{
    ProtobufCMessage *message = NULL;
    int r;

    while ((r = await_grpc_recv(call, &message, &upload->error)) > 0) {
        if (!upload->data_of(message)) {
            error_set(&upload->error, ERROR_INVALID_ARGUMENT, "UNEXPECTED_MESSAGE",
                      "a message has neither options at the beginning nor data");
            free_message(message);
            break;
        }
        if ((r = await_send(upload->messages, message)) < 0) {
            await_error(&upload->error, r, "receiving");
            free_message(message);
            break;
        }
    }
    channel_close(upload->messages);
}

struct receiving {
    struct upload *upload;
    struct grpc_call *call;
};

static bool receive_task(void *arg, struct error *err UNUSED)
{
    struct receiving *receiving = arg;

    await_upload_receive(receiving->upload, receiving->call);
    return true;
}

bool await_upload_job(struct grpc_call *call, struct upload *upload, struct job *job,
                      struct error *err)
{
    CLEANUP(job_cleanup) struct job *held = job_ref(job);
    struct receiving receiving = {upload, call};
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    return task_spawn(&group, "upload", job_info(held).id, receive_task, &receiving, err) &&
           await_follow_job(call, held, (struct job_following){.cancel_on_leave = true}, err);
}
