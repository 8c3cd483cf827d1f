/* Bytes that a client sends, on their way from the task of its call to that of the job which works
 * on them: no more than a few messages of them at a time. */
#pragma once

#include "daemon/job/job.h"
#include "proto/grpc/grpc.h"

struct upload;

/* data_of: the bytes in a message; NULL: it has none, which ends the call. Two hold it, the job and
 * the call; each gives it back. */
struct upload *upload_new(const ProtobufCBinaryData *(*data_of)(const ProtobufCMessage *message));
struct upload *upload_ref(struct upload *upload);
struct upload *upload_unref(struct upload *upload); /* takes NULL; returns NULL */
static inline void upload_cleanup(struct upload **upload)
{
    *upload = upload_unref(*upload);
}

/* For the job: as an archive_source does it; arg is the upload. */
ssize_t await_upload_next(void *arg, const void **ret, struct error *err);

/* For the call: receives until the client has sent all, or it goes. One that does not get so far
 * ends the job's reading with an error, too. */
void await_upload_receive(struct upload *upload, struct grpc_call *call);

/* Follows the job, which is cancelled if the client leaves, while its bytes are received. Whatever
 * the client still sends when the job has ended is not waited for. */
bool await_upload_job(struct grpc_call *call, struct upload *upload, struct job *job,
                      struct error *err);
