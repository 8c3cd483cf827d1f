/* A server with the echo service on a unix socket, and a client connected to it, both on the loop
 * of one test. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "echo_service.h"
#include "proto/async/await.h"
#include "proto/async/loop.h"
#include "proto/async/stream.h"

typedef Davit__Test__EchoRequest Request;
typedef Davit__Test__EchoResponse Response;

struct fixture {
    char path[64];
    char *address; /* unix:///path */
    struct stream *listener;
    struct group serving, clients, tasks; /* tasks: for the test's own */
    struct grpc_server *server;
    struct echo_service echo;
    struct grpc_client *client;
};

/* Runs body as a task on the loop and takes everything down after it. */
void with_server(void (*body)(struct fixture *f));

#define METHOD(name) "/davit.test.Echo/" name
#define RESPONSE (&davit__test__echo_response__descriptor)

/* Starts a call; sends `request` and half-closes if it is given. */
struct grpc_call *start_call(struct fixture *f, const char *method, const Request *request,
                             const struct grpc_call_options *options);

/* The next response: 1, 0 at the end, -1; only its payload's size and count are kept. */
int await_response(struct grpc_call *call, size_t *ret_size, uint32_t *ret_count,
                   struct error *err);

/* Waits until a counter of the echo service is at least this. */
void await_counter(struct fixture *f, const uint32_t *counter, uint32_t at_least);

/* Asserts that the call ends now with this status. */
void assert_ends(struct grpc_call *call, enum error_code code);
