#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#include "proto/async/loop.h"
#include "proto/base/log.h"
#include "proto/grpc/codec.h"
#include "proto/grpc/internal.h"

/* --- Life cycle ------------------------------------------------------------------------------- */

struct grpc_server *grpc_server_new(void)
{
    struct grpc_server *server = xcalloc(1, sizeof(*server));

    list_init(&server->connections);
    wait_queue_init(&server->serving_changed);
    server->methods = map_new();
    server->serving = true;
    server_add_health(server);
    server_add_reflection(server);
    return server;
}

struct grpc_server *grpc_server_free(struct grpc_server *server)
{
    size_t iterator = 0;
    void *value;

    if (!server)
        return NULL;
    if (!list_empty(&server->connections))
        die("a gRPC server is freed while it serves connections");
    while (map_next(server->methods, &iterator, NULL, &value)) {
        struct method_entry *entry = value;
        free(entry->path);
        free(entry);
    }
    map_free(server->methods);
    while (server->services) {
        struct service_entry *next = server->services->next;
        free(server->services);
        server->services = next;
    }
    free(server);
    return NULL;
}

/* --- Methods ---------------------------------------------------------------------------------- */

static const struct grpc_method *find_method(const struct grpc_method *methods, size_t count,
                                             const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(methods[i].name, name) == 0)
            return &methods[i];
    }
    return NULL;
}

void grpc_server_add(struct grpc_server *server, const ProtobufCServiceDescriptor *service,
                     const struct grpc_method *methods, size_t count, void *context)
{
    struct service_entry *added = xcalloc(1, sizeof(*added));

    for (size_t i = 0; i < count; i++) {
        bool known = false;
        for (unsigned int j = 0; j < service->n_methods; j++)
            known |= str_eq(methods[i].name, service->methods[j].name);
        if (!known)
            die("service %s has no method \"%s\"", service->name, methods[i].name);
    }
    for (unsigned int i = 0; i < service->n_methods; i++) {
        const ProtobufCMethodDescriptor *descriptor = &service->methods[i];
        const struct grpc_method *method = find_method(methods, count, descriptor->name);
        struct method_entry *entry = xcalloc(1, sizeof(*entry));
        entry->path = xasprintf("/%s/%s", service->name, descriptor->name);
        entry->descriptor = descriptor;
        entry->handler = method ? method->handler : NULL;
        entry->context = context;
        if (map_put(server->methods, entry->path, entry))
            die("service %s was added twice", service->name);
    }
    added->descriptor = service;
    added->next = server->services;
    server->services = added;
}

void grpc_server_set_descriptors(struct grpc_server *server, const void *data, size_t size)
{
    server->descriptors = data;
    server->descriptors_size = size;
}

void grpc_server_set_keepalive(struct grpc_server *server, uint64_t interval_ms)
{
    server->keepalive_ms = interval_ms;
}

/* --- One call --------------------------------------------------------------------------------- */

static void log_call(const struct grpc_call *call, const struct error *status)
{
    log_debug("gRPC call", LOG("method", (const char *)call->method->path),
              LOG("status", error_code_name(status->code)),
              LOG("error", status->message ? status->message : ""),
              LOG("ms", loop_now_ms() - call->started_ms),
              LOG("peer", (const char *)call->connection->peer));
}

/* Runs the handler. `status` gets what the call ends with, whatever the handler made of it. */
static void await_handler(struct grpc_call *call, struct error *status)
{
    const struct method_entry *method = call->method;
    uint64_t now = loop_now_ms();
    uint64_t left_ms = call->deadline_ms > now ? call->deadline_ms - now : 0;
    CLEANUP(deadline_pop) struct deadline deadline;
    int r;

    deadline_push(&deadline, call->has_deadline ? left_ms : UINT64_MAX);
    if (!method->handler(call, method->context, status)) {
        if (!error_is_set(status))
            error_set(status, ERROR_UNKNOWN, NULL, "%s failed without saying why", method->path);
    } else {
        error_done(status);
    }
    r = task_check();
    if (r == -ETIMEDOUT)
        error_set(status, ERROR_DEADLINE_EXCEEDED, NULL, "the call's deadline has passed");
    else if (r == -ECANCELED && status->code == ERROR_CANCELLED)
        error_set(status, ERROR_UNAVAILABLE, "SHUTTING_DOWN", "the server is shutting down");
}

static bool await_call(void *arg, struct error *err)
{
    struct grpc_call *call = arg;
    CLEANUP_ERROR struct error status = {0};

    (void)err;
    if (!call->ended) {
        call->task = task_current();
        await_handler(call, &status);
        call->task = NULL;
        log_call(call, error_is_set(&call->status) ? &call->status : &status);
    }
    call_finish(call, &status);
    call_unref(call);
    return true; /* a call's failure is its client's business */
}

static void reject(struct grpc_call *call, enum error_code code, const char *format, ...)
    PRINTF_LIKE(3, 4);

static void reject(struct grpc_call *call, enum error_code code, const char *format, ...)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_ERROR struct error status = {0};
    va_list args;

    va_start(args, format);
    strbuf_vaddf(&text, format, args);
    va_end(args);
    error_set(&status, code, NULL, "%s", strbuf_text(&text));
    call_finish(call, &status);
}

static bool is_grpc(const char *content_type)
{
    static const char grpc[] = "application/grpc";
    char after;

    if (!content_type || !str_starts(content_type, grpc))
        return false;
    after = content_type[strlen(grpc)];
    return !after || after == '+' || after == ';';
}

/* What the header asks for; false once it has been answered. */
static bool check_request(struct grpc_call *call)
{
    const char *http_method = call_header_value(call, ":method");
    const char *encoding = call_header_value(call, "grpc-encoding");
    const char *timeout = call_header_value(call, "grpc-timeout");
    uint64_t timeout_ms;

    if (call->header_bytes > MAX_HEADER_BYTES)
        reject(call, ERROR_RESOURCE_EXHAUSTED, "the request's header is larger than %u bytes",
               (unsigned int)MAX_HEADER_BYTES);
    else if (!str_eq(http_method, "POST"))
        call_reject_http(call, "405");
    else if (!is_grpc(call_header_value(call, "content-type")))
        call_reject_http(call, "415");
    else if (encoding && !str_eq(encoding, "identity"))
        reject(call, ERROR_UNIMPLEMENTED, "compression \"%s\" is not supported, only identity",
               encoding);
    else if (timeout && !grpc_timeout_parse(timeout, &timeout_ms))
        reject(call, ERROR_INTERNAL, "malformed grpc-timeout \"%s\"", timeout);
    if (timeout && !call->ended) {
        call->has_deadline = true;
        call->deadline_ms = call->started_ms + timeout_ms;
    }
    return !call->ended;
}

void server_dispatch(struct grpc_call *call)
{
    struct connection *connection = call->connection;
    const char *path = call_header_value(call, ":path");
    CLEANUP_ERROR struct error err = {0};

    if (!check_request(call))
        return;
    call->method = path ? map_get(connection->server->methods, path) : NULL;
    if (!call->method) {
        reject(call, ERROR_UNIMPLEMENTED, "unknown method %s", path ? path : "");
        return;
    }
    if (!call->method->handler) {
        reject(call, ERROR_UNIMPLEMENTED, "%s is not implemented", path);
        return;
    }
    call->in_type = call->method->descriptor->input;
    call->out_type = call->method->descriptor->output;
    /* Reset calls count until their handlers have unwound. */
    if (connection->handlers.running >= MAX_HANDLERS) {
        call_fail(call, NGHTTP2_REFUSED_STREAM, NULL);
        return;
    }
    if (!task_spawn(&connection->handlers, "grpc", path, await_call, call_ref(call), &err)) {
        call_finish(call, &err);
        call_unref(call);
    }
}

/* --- Connections ------------------------------------------------------------------------------ */

static char *peer_name(int fd)
{
    struct ucred cred;
    socklen_t size = sizeof(cred);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0 || cred.pid == 0)
        return xstrdup("client");
    return xasprintf("pid %d uid %u", (int)cred.pid, cred.uid);
}

void await_grpc_serve(struct grpc_server *server, int fd, const void *first, size_t first_size)
{
    struct connection *connection = connection_new(fd, server, peer_name(fd));

    list_append(&server->connections, &connection->node);
    if (server->draining) {
        connection_drain(connection);
        connection_drain(connection);
    }
    await_connection_run(connection, first, first_size);
    list_remove(&connection->node);
    connection_unref(connection);
}

void grpc_server_drain(struct grpc_server *server)
{
    server->draining = true;
    grpc_server_set_serving(server, false);
    LIST_FOR_EACH (node, &server->connections)
        connection_drain(LIST_ITEM(node, struct connection, node));
}
