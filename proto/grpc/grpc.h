/* gRPC over HTTP/2 (nghttp2) on the loop, with protobuf-c messages. The wire protocol is
 * https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
 *
 * Nouns: a *server* serves *connections*; a *method* has a handler that runs as one task per
 * *call*; a *client* is one connection that makes calls. Begin with struct grpc_method to add an
 * RPC, with await_grpc_unary() to use one. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "proto/async/task.h"

#define GRPC_MAX_MESSAGE (4 * MIB)

struct grpc_call;

/* --- Both ends -------------------------------------------------------------------------------- */

/* Sends one message. Waits while the peer's window and the call's queue are full: back-pressure.
 * False once the call has ended, with its status, or on cancel. The message stays the caller's. */
bool await_grpc_send(struct grpc_call *call, const ProtobufCMessage *message, struct error *err);

/* The same with a message that was packed before: for what many are sent. */
bool await_grpc_send_packed(struct grpc_call *call, const void *data, size_t size,
                            struct error *err);

/* Waits until what was sent before is on its way to the peer: for what should be new when it goes.
 * False as await_grpc_send. */
bool await_grpc_sent(struct grpc_call *call, struct error *err);

/* Receives one message: 1 with *ret (the caller frees it with
 * protobuf_c_message_free_unpacked(*ret, NULL)), 0 at the end of the peer's stream (on the client:
 * the status was OK), -1 with err. The peer may send more only as far as this is called. */
int await_grpc_recv(struct grpc_call *call, ProtobufCMessage **ret, struct error *err);

/* Server: the one request of a unary or server-streaming method. NULL with err as await_grpc_recv,
 * or if the client sends none. The caller frees it likewise. */
ProtobufCMessage *await_grpc_request(struct grpc_call *call, struct error *err);

/* Value of a request header the peer sent (lower-case key; binary ones decoded), or NULL. */
const char *grpc_call_metadata(const struct grpc_call *call, const char *key);

/* Who is at the other end, for logs: on a server "pid 123 uid 0". Owned by the connection. */
const char *grpc_call_peer(const struct grpc_call *call);

/* --- Server ----------------------------------------------------------------------------------- */

/* Runs in its own task. Cancelled when the client resets the call, its connection ends or its
 * deadline passes. false: err becomes the status, with reason and hint as davit.v1.ErrorDetail in
 * grpc-status-details-bin. */
typedef bool (*grpc_handler)(struct grpc_call *call, void *context, struct error *err);

struct grpc_method {
    const char *name; /* as in the service: "Pull" */
    grpc_handler handler;
};

struct grpc_server;

/* Health and reflection are served by itself, SERVING from the start. */
struct grpc_server *grpc_server_new(void);
struct grpc_server *grpc_server_free(struct grpc_server *server); /* after its last connection */

/* Methods of a generated service; a service's method without a handler answers UNIMPLEMENTED.
 * The arrays and context must outlive the server. */
void grpc_server_add(struct grpc_server *server, const ProtobufCServiceDescriptor *service,
                     const struct grpc_method *methods, size_t count, void *context);

/* Serialised google.protobuf.FileDescriptorSet for reflection; borrowed, static. */
void grpc_server_set_descriptors(struct grpc_server *server, const void *data, size_t size);

/* For grpc.health.v1: whether the server and its services answer SERVING. */
void grpc_server_set_serving(struct grpc_server *server, bool serving);

/* Pings a client that has been silent for interval_ms while it has calls, and gives it up when it
 * does not answer. 0, the default: never; on a unix socket the kernel tells when a client ends, and
 * one that is stopped (Ctrl-Z) is to find its calls where it left them. */
void grpc_server_set_keepalive(struct grpc_server *server, uint64_t interval_ms);

/* Serves one accepted connection in the current task until it ends. Owns fd. `first` are bytes
 * already read from it (protocol sniffing), copied. Cancel sends GOAWAY and cancels the calls. */
void await_grpc_serve(struct grpc_server *server, int fd, const void *first, size_t first_size);

/* Sends GOAWAY on all connections: running calls go on, and so do those on their way, new ones are
 * refused. Each connection ends with its last call. */
void grpc_server_drain(struct grpc_server *server);

/* --- Client ----------------------------------------------------------------------------------- */

struct grpc_client;

/* Connects to "unix:///path". The connection's task goes into the group (cancel it at the end). */
struct grpc_client *await_grpc_connect(struct group *group, const char *address, struct error *err);
struct grpc_client *grpc_client_free(struct grpc_client *client); /* resets calls; NULL */

/* How long the server may be silent during calls before it is pinged; the calls of a server that
 * does not answer end with UNAVAILABLE. Default 20 s; 0: never. */
void grpc_client_set_keepalive(struct grpc_client *client, uint64_t interval_ms);

struct grpc_call_options {
    uint64_t timeout_ms;        /* 0: none; sent as grpc-timeout */
    const char *const *headers; /* key, value, ..., NULL; may be NULL */
};

/* Starts a call. `method` is "/davit.v1.Images/Pull". options may be NULL. */
struct grpc_call *grpc_client_call(struct grpc_client *client, const char *method,
                                   const ProtobufCMessageDescriptor *response_type,
                                   const struct grpc_call_options *options, struct error *err);

/* For what is long and wanted as a whole: so many bytes may come before they are taken, instead of
 * 64 KiB. Once the first message has come. */
void grpc_call_set_window(struct grpc_call *call, size_t bytes);

/* No more requests will be sent (half-close). */
bool await_grpc_close_send(struct grpc_call *call, struct error *err);

/* Ends the call if it has not ended (RST_STREAM CANCEL) and frees it; returns NULL. */
struct grpc_call *grpc_call_free(struct grpc_call *call);
static inline void grpc_call_cleanup(struct grpc_call **call)
{
    *call = grpc_call_free(*call);
}

/* One request, one response. *ret is the caller's as with await_grpc_recv. */
bool await_grpc_unary(struct grpc_client *client, const char *method,
                      const ProtobufCMessage *request,
                      const ProtobufCMessageDescriptor *response_type, ProtobufCMessage **ret,
                      struct error *err);
