#include <errno.h>

#include "proto/async/loop.h"
#include "proto/grpc/codec.h"
#include "proto/grpc/internal.h"

/* A daemon that is alive answers a ping in no time, however busy its calls are. */
#define CLIENT_KEEPALIVE_MS 20000

struct grpc_client {
    struct connection *connection;
};

/* --- Life cycle ------------------------------------------------------------------------------- */

static bool await_client_connection(void *arg, struct error *err)
{
    struct connection *connection = arg;

    (void)err; /* the calls tell */
    await_connection_run(connection, NULL, 0);
    connection_unref(connection);
    return true;
}

static void explain_connect_error(const char *address, struct error *err)
{
    if (err->code == ERROR_CANCELLED || err->code == ERROR_INVALID_ARGUMENT)
        return;
    if (err->code == ERROR_PERMISSION_DENIED) {
        error_set(err, ERROR_PERMISSION_DENIED, "DAEMON_PERMISSION_DENIED",
                  "permission denied while trying to connect to the davit daemon at %s", address);
        error_hint(err, "run the command as root, or as a member of the socket's group");
        return;
    }
    error_set(err, ERROR_UNAVAILABLE, "DAEMON_UNREACHABLE",
              "Cannot connect to the davit daemon at %s. Is the davit daemon running?", address);
    error_hint(err, "start it with 'systemctl start davitd', or name its socket with -H or "
                    "DAVIT_HOST");
}

struct grpc_client *await_grpc_connect(struct group *group, const char *address, struct error *err)
{
    struct grpc_client *client;
    struct connection *connection;
    int fd;

    if (!str_starts(address, "unix:///")) {
        error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_ADDRESS",
                  "cannot connect to \"%s\": not an address of the form unix:///path", address);
        error_hint(err, "the default is unix:///run/davit/davit.sock");
        return NULL;
    }
    fd = await_connect_unix(address + strlen("unix://"), err);
    if (fd < 0) {
        explain_connect_error(address, err);
        return NULL;
    }
    connection = connection_new(fd, NULL, xasprintf("the davit daemon at %s", address));
    connection->keepalive_ms = CLIENT_KEEPALIVE_MS;
    client = xcalloc(1, sizeof(*client));
    client->connection = connection;
    if (!task_spawn(group, "grpc-client", address, await_client_connection,
                    connection_ref(connection), err)) {
        connection_unref(connection);
        return grpc_client_free(client);
    }
    return client;
}

struct grpc_client *grpc_client_free(struct grpc_client *client)
{
    if (!client)
        return NULL;
    LIST_FOR_EACH (node, &client->connection->calls) {
        CLEANUP_ERROR struct error status = {0};
        error_set(&status, ERROR_CANCELLED, NULL, "the connection was closed");
        call_fail(LIST_ITEM(node, struct grpc_call, node), NGHTTP2_CANCEL, &status);
    }
    if (!client->connection->ended)
        connection_stop(client->connection);
    connection_unref(client->connection);
    free(client);
    return NULL;
}

void grpc_client_set_keepalive(struct grpc_client *client, uint64_t interval_ms)
{
    client->connection->keepalive_ms = interval_ms;
    connection_arm(client->connection);
}

/* --- Calls ------------------------------------------------------------------------------------ */

static void on_deadline(struct loop_timer *timer)
{
    struct grpc_call *call = CONTAINER_OF(timer, struct grpc_call, timer);
    CLEANUP_ERROR struct error status = {0};

    error_set(&status, ERROR_DEADLINE_EXCEEDED, NULL, "%s did not answer in time",
              call->connection->peer);
    call_fail(call, NGHTTP2_CANCEL, &status);
}

/* The header fields of a request; texts are borrowed or go into `owned`. */
#define MAX_CUSTOM_HEADERS 16
struct request_header {
    nghttp2_nv nv[7 + MAX_CUSTOM_HEADERS];
    size_t count;
    char timeout[GRPC_TIMEOUT_TEXT];
    char *owned[MAX_CUSTOM_HEADERS];
    size_t owned_count;
};

static void request_header_add(struct request_header *header, const char *key, const char *value)
{
    header->nv[header->count++] = header_nv(key, value);
}

static void request_header_done(struct request_header *header)
{
    for (size_t i = 0; i < header->owned_count; i++)
        free(header->owned[i]);
}

static void request_header_add_custom(struct request_header *header, const char *key,
                                      const char *value)
{
    struct strbuf encoded = {0};

    CHECK(header->count < ARRAY_SIZE(header->nv));
    if (str_ends(key, "-bin")) {
        grpc_base64_encode(&encoded, value, strlen(value));
        value = header->owned[header->owned_count++] = strbuf_take(&encoded);
    }
    request_header_add(header, key, value);
}

static void request_header_make(struct request_header *header, const char *method,
                                const struct grpc_call_options *options)
{
    request_header_add(header, ":method", "POST");
    request_header_add(header, ":scheme", "http");
    request_header_add(header, ":path", method);
    request_header_add(header, ":authority", "localhost");
    request_header_add(header, "te", "trailers");
    request_header_add(header, "content-type", "application/grpc");
    if (options && options->timeout_ms) {
        grpc_timeout_format(options->timeout_ms, header->timeout);
        request_header_add(header, "grpc-timeout", header->timeout);
    }
    for (size_t i = 0; options && options->headers && options->headers[i]; i += 2)
        request_header_add_custom(header, options->headers[i], options->headers[i + 1]);
}

struct grpc_call *grpc_client_call(struct grpc_client *client, const char *method,
                                   const ProtobufCMessageDescriptor *response_type,
                                   const struct grpc_call_options *options, struct error *err)
{
    struct connection *connection = client->connection;
    CLEANUP(request_header_done) struct request_header header = {.count = 0};
    struct grpc_call *call;
    int32_t stream_id;

    if (connection->ended || connection->goaway_received || error_is_set(&connection->end)) {
        error_set(err, ERROR_UNAVAILABLE, "CONNECTION_LOST", "lost the connection to %s: %s",
                  connection->peer,
                  error_is_set(&connection->end) ? connection->end.message : "it is being stopped");
        return NULL;
    }
    request_header_make(&header, method, options);
    call = call_new(connection, 0);
    call->in_type = response_type;
    stream_id = nghttp2_submit_request(connection->session, NULL, header.nv, header.count,
                                       &call_data_provider, call);
    if (stream_id < 0) {
        error_set(err, ERROR_UNAVAILABLE, NULL, "cannot start a call to %s: %s", connection->peer,
                  nghttp2_strerror(stream_id));
        call_detach(call, NULL);
        return NULL;
    }
    call->stream_id = stream_id;
    if (options && options->timeout_ms)
        loop_timer_start(&call->timer, options->timeout_ms, on_deadline);
    connection_flush(connection);
    return call_ref(call);
}

bool await_grpc_unary(struct grpc_client *client, const char *method,
                      const ProtobufCMessage *request,
                      const ProtobufCMessageDescriptor *response_type, ProtobufCMessage **ret,
                      struct error *err)
{
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = grpc_client_call(client, method, response_type, NULL, err);
    CLEANUP_ERROR struct error end = {0};
    ProtobufCMessage *extra = NULL;
    int r;

    *ret = NULL;
    if (!call || !await_grpc_send(call, request, err) || !await_grpc_close_send(call, err))
        return false;
    r = await_grpc_recv(call, ret, err);
    if (r == 0)
        error_set(err, ERROR_INTERNAL, NULL, "%s answered %s without a response",
                  call->connection->peer, method);
    if (r <= 0)
        return false;
    r = await_grpc_recv(call, &extra, &end); /* only the status is left */
    if (r == 0)
        return true;
    protobuf_c_message_free_unpacked(TAKE(*ret), NULL);
    if (r < 0)
        return error_move(err, &end);
    protobuf_c_message_free_unpacked(extra, NULL);
    return error_set(err, ERROR_INTERNAL, NULL, "%s answered %s with more than one response",
                     call->connection->peer, method);
}
