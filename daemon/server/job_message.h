/* Jobs as messages. A snapshot is a serialised JobUpdate; what only one kind of job has is added by
 * its ops as a serialised Job with nothing else in it, for protobuf merges what is concatenated. */
#pragma once

#include "daemon/job/job.h"
#include "daemon/server/server.h"
#include "proto/davit/v1/jobs.pb-c.h"
#include "proto/grpc/grpc.h"

/* For job_table_options; the context is the engines. */
void job_update_encode(const struct job_info *info, struct strbuf *ret);

bool job_spec_of_request(void *engines, enum job_kind kind, const void *request, size_t size,
                         struct job_spec *ret, struct error *err);

/* Joins the job of this key that runs, or starts one. again: the request to begin it by after a
 * stop of the daemon, without what is only this client's, and without secrets; NULL if it has some,
 * for they are never written down. The spec's argument is taken over. A limit of the spec's is the
 * job's from now on, for all who watch it. Borrowed until the next await. */
struct job *job_join_or_start(struct job_table *table, const struct job_spec *spec,
                              const ProtobufCMessage *again, struct error *err);

/* For the details() of ops: only fields that one kind has may be set. */
void job_details_add(struct strbuf *ret, const Davit__V1__Job *details);

/* Without the items of its progress; the caller frees it. */
Davit__V1__Job *job_message(const struct job_info *info);

/* Sends a job's snapshots, from one newer than since_sequence on, until it has ended. */
bool await_send_snapshots(struct grpc_call *call, struct job *job, enum job_leave leave,
                          uint64_t since_sequence, struct error *err);

/* For calls that ask for a job: sends its snapshots, and fails as it does. A detached one is left
 * to itself after the first. Borrows the job. */
struct job_following {
    bool detach, cancel_on_leave;
};
bool await_follow_job(struct grpc_call *call, struct job *job, struct job_following how,
                      struct error *err);
