/* The gRPC services of the public API, one file each. A handler translates a request into an
 * engine call and the result back; it holds no logic of its own. */
#pragma once

#include "daemon/server/server.h"
#include "proto/davit/v1/images.pb-c.h"
#include "proto/grpc/grpc.h"

void handlers_system_add(struct grpc_server *server, const struct engines *engines);
void handlers_images_add(struct grpc_server *server, const struct engines *engines);
void handlers_containers_add(struct grpc_server *server, const struct engines *engines);
void handlers_events_add(struct grpc_server *server, const struct engines *engines);
void handlers_jobs_add(struct grpc_server *server, const struct engines *engines);
void handlers_registries_add(struct grpc_server *server, const struct engines *engines);

/* Methods that have a file of their own. */
bool handle_pull(struct grpc_call *call, void *context, struct error *err);
bool handle_plan(struct grpc_call *call, void *context, struct error *err);
bool handle_list_images(struct grpc_call *call, void *context, struct error *err);
bool handle_inspect_image(struct grpc_call *call, void *context, struct error *err);
bool handle_image_history(struct grpc_call *call, void *context, struct error *err);
bool handle_push(struct grpc_call *call, void *context, struct error *err);
bool handle_save(struct grpc_call *call, void *context, struct error *err);
bool handle_import(struct grpc_call *call, void *context, struct error *err);
bool handle_load(struct grpc_call *call, void *context, struct error *err);
bool handle_prune(struct grpc_call *call, void *context, struct error *err);
bool handle_disk_usage(struct grpc_call *call, void *context, struct error *err);
bool handle_verify(struct grpc_call *call, void *context, struct error *err);

/* The credentials of a request (which may have none), borrowed from it; and what is equal for equal
 * ones, without a secret in it. */
struct registry_auth request_auth(const Davit__V1__RegistryAuth *auth);
struct digest request_rights(const Davit__V1__RegistryAuth *auth);

/* What job_start() wants for a request; job_spec_of_request() in job_message.h chooses. */
bool pull_spec(const struct engines *engines, const ProtobufCMessage *request, struct job_spec *ret,
               struct error *err);
bool push_spec(const struct engines *engines, const ProtobufCMessage *request, struct job_spec *ret,
               struct error *err);
bool verify_spec(const struct engines *engines, const ProtobufCMessage *request,
                 struct job_spec *ret, struct error *err);

/* An image as message; the caller frees it with what holds it. */
Davit__V1__Image *image_message(const struct store *store, const struct image *image);

static inline void message_cleanup(void *ptr_to_message)
{
    ProtobufCMessage *message = *(ProtobufCMessage **)ptr_to_message;

    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
}
#define CLEANUP_MESSAGE CLEANUP(message_cleanup)
