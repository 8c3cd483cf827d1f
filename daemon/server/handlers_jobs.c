/* Jobs: what runs, and what became of what has ended. */
#include "daemon/server/handlers.h"
#include "daemon/server/job_message.h"
#include "proto/base/log.h"
#include "proto/davit/v1/system.pb-c.h"

/* --- After a stop of the daemon ----------------------------------------------------------------
 */

bool job_spec_of_request(void *engines, enum job_kind kind, const void *request, size_t size,
                         struct job_spec *ret, struct error *err)
{
    static const struct {
        const ProtobufCMessageDescriptor *type; /* of requests */
        bool (*spec)(const struct engines *engines, const ProtobufCMessage *request,
                     struct job_spec *ret, struct error *err);
    } kinds[] = {
        [JOB_PULL] = {&davit__v1__pull_request__descriptor, pull_spec},
        [JOB_PUSH] = {&davit__v1__push_request__descriptor, push_spec},
        [JOB_VERIFY] = {&davit__v1__verify_request__descriptor, verify_spec},
    };
    CLEANUP_MESSAGE ProtobufCMessage *message = NULL;

    if (kind < ARRAY_SIZE(kinds))
        message = protobuf_c_message_unpack(kinds[kind].type, NULL, size, request);
    if (message)
        return kinds[kind].spec(engines, message, ret, err);
    return error_set(err, ERROR_INTERNAL, NULL, "what was asked for cannot be read any more");
}

/* --- Calls -------------------------------------------------------------------------------------
 */

static bool handle_list(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__ListJobsRequest *request = (const Davit__V1__ListJobsRequest *)message;
    CLEANUP(jobs_done) struct jobs jobs = {0};
    Davit__V1__ListJobsResponse *response;
    bool sent;

    if (!message || !await_jobs(engines->jobs, request->all, &jobs, err))
        return false;
    response = xcalloc(1, sizeof(*response));
    davit__v1__list_jobs_response__init(response);
    response->jobs = xcalloc(jobs.count, sizeof(struct Davit__V1__Job *));
    for (size_t i = 0; i < jobs.count; i++) {
        const struct job_info info = job_info(jobs.items[i]);
        response->jobs[response->n_jobs++] = job_message(&info);
    }
    sent = await_grpc_send(call, &response->base, err);
    davit__v1__list_jobs_response__free_unpacked(response, NULL);
    return sent;
}

static bool handle_watch(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__WatchJobRequest *request = (const Davit__V1__WatchJobRequest *)message;
    CLEANUP(job_cleanup) struct job *job = NULL;

    if (!message)
        return false;
    job = await_job_find(engines->jobs, request->id, err);
    return job && await_send_snapshots(call, job, JOB_LEAVE_OBSERVER, request->since_sequence, err);
}

static bool handle_cancel(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__CancelJobRequest *request = (const Davit__V1__CancelJobRequest *)message;
    Davit__V1__CancelJobResponse response = DAVIT__V1__CANCEL_JOB_RESPONSE__INIT;
    CLEANUP(job_cleanup) struct job *job = NULL;
    struct job_info info;
    bool sent;

    if (!message)
        return false;
    job = await_job_find(engines->jobs, request->id, err);
    if (!job)
        return false;
    if (request->unless_wanted)
        response.wanted = !job_cancel_unless_wanted(job);
    else
        job_cancel(job);
    info = job_info(job);
    log_info(response.wanted ? "not cancelled: others wait for it" : "cancel", LOG("job", info.id),
             LOG("subject", info.subject), LOG("peer", grpc_call_peer(call)));
    response.job = job_message(&info);
    sent = await_grpc_send(call, &response.base, err);
    davit__v1__job__free_unpacked(response.job, NULL);
    return sent;
}

static bool handle_update(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__UpdateJobRequest *request = (const Davit__V1__UpdateJobRequest *)message;
    Davit__V1__UpdateJobResponse response = DAVIT__V1__UPDATE_JOB_RESPONSE__INIT;
    CLEANUP(job_cleanup) struct job *job = NULL;
    struct job_info info;
    bool sent;

    if (!message)
        return false;
    job = await_job_find(engines->jobs, request->id, err);
    if (!job ||
        (request->limit_case == DAVIT__V1__UPDATE_JOB_REQUEST__LIMIT_LIMIT_BYTES_PER_SECOND &&
         !job_set_limit(job, request->limit_bytes_per_second, err)))
        return false;
    job_remember_await(job);
    info = job_info(job);
    log_info("update", LOG("job", info.id), LOG("subject", info.subject),
             LOG("limit_bytes_per_second", info.limit_bytes_per_second),
             LOG("peer", grpc_call_peer(call)));
    response.job = job_message(&info);
    sent = await_grpc_send(call, &response.base, err);
    davit__v1__job__free_unpacked(response.job, NULL);
    return sent;
}

void handlers_jobs_add(struct grpc_server *server, const struct engines *engines)
{
    static const struct grpc_method methods[] = {
        {"List", handle_list},
        {"Watch", handle_watch},
        {"Cancel", handle_cancel},
        {"Update", handle_update},
    };

    grpc_server_add(server, &davit__v1__jobs__descriptor, methods, ARRAY_SIZE(methods),
                    (void *)engines);
}
