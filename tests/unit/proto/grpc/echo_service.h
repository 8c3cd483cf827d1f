/* The service of echo.proto, for the unit tests and the server that other clients are tried on. */
#pragma once

#include "proto/grpc/grpc.h"
#include "tests/echo.pb-c.h"

struct echo_service {
    uint32_t started, running, cancelled, timed_out;
    uint64_t sent;
    struct wait_queue changed;
};

void echo_service_init(struct echo_service *echo, struct grpc_server *server);

/* FileDescriptorSet with echo.proto. */
extern const unsigned char echo_descriptors[], echo_descriptors_end[];
