/* The gRPC services of the public API, one file each. A handler translates a request into an
 * engine call and the result back; it holds no logic of its own. */
#pragma once

#include "daemon/server/server.h"
#include "proto/grpc/grpc.h"

void handlers_system_add(struct grpc_server *server, const struct engines *engines);
void handlers_images_add(struct grpc_server *server, const struct engines *engines);
void handlers_containers_add(struct grpc_server *server, const struct engines *engines);

static inline void message_cleanup(void *ptr_to_message)
{
    ProtobufCMessage *message = *(ProtobufCMessage **)ptr_to_message;

    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
}
#define CLEANUP_MESSAGE CLEANUP(message_cleanup)
