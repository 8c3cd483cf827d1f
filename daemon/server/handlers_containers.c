#include <errno.h>

#include "daemon/image/image.h"
#include "daemon/server/handlers.h"
#include "proto/async/stream.h"
#include "proto/base/log.h"
#include "proto/davit/v1/containers.pb-c.h"

/* What is read from a container at once, and so the largest message of its output. */
#define OUTPUT_CHUNK (64 * KIB)

/* One attached run: a task per direction, all of them in one group. */
struct run {
    struct grpc_call *call;
    struct container *container;
    bool sending; /* one task sends at a time, the others wait */
    struct wait_queue send_queue;
};

struct output {
    struct run *run;
    struct stream *stream;
    Davit__V1__RunResponse__WhatCase kind;
};

static bool await_respond(struct run *run, const Davit__V1__RunResponse *response,
                          struct error *err)
{
    bool ok;
    int r = 0;

    while (run->sending) {
        if ((r = await_wake(&run->send_queue, "sending output")) < 0)
            return await_error(err, r, "sending output");
    }
    run->sending = true;
    ok = await_grpc_send(run->call, &response->base, err);
    run->sending = false;
    wake_one(&run->send_queue);
    return ok;
}

static bool output_task(void *arg, struct error *err)
{
    const struct output *output = arg;
    CLEANUP_FREE uint8_t *buffer = xmalloc(OUTPUT_CHUNK);
    ssize_t n;

    while ((n = await_read(output->stream, buffer, OUTPUT_CHUNK)) > 0) {
        Davit__V1__RunResponse response = DAVIT__V1__RUN_RESPONSE__INIT;
        ProtobufCBinaryData data = {.data = buffer, .len = (size_t)n};
        response.what_case = output->kind;
        if (output->kind == DAVIT__V1__RUN_RESPONSE__WHAT_STDOUT)
            response.stdout = data;
        else
            response.stderr = data;
        if (!await_respond(output->run, &response, err))
            return false;
    }
    return n < 0 ? await_error(err, (int)n, "reading the container's output") : true;
}

/* Writes to the container; one that has closed its stdin or ended loses the rest, like a pipe. */
static bool await_to_stdin(struct run *run, const ProtobufCBinaryData *data, struct error *err)
{
    struct stream *stream = container_stdin(run->container);
    int r;

    if (!stream)
        return true;
    r = await_write(stream, data->data, data->len);
    if (r == -EPIPE) {
        container_close_stdin(run->container);
        return true;
    }
    return r < 0 ? await_error(err, r, "writing to the container's stdin") : true;
}

static bool await_handle_request(struct run *run, const Davit__V1__RunRequest *request,
                                 struct error *err)
{
    switch (request->what_case) {
    case DAVIT__V1__RUN_REQUEST__WHAT_STDIN:
        return await_to_stdin(run, &request->stdin, err);
    case DAVIT__V1__RUN_REQUEST__WHAT_STDIN_EOF:
        container_close_stdin(run->container);
        return true;
    default:
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                         "after start, a run takes stdin and stdin_eof only");
    }
}

/* Ends with the client's stream; a client that goes away cancels the whole call. */
static bool requests_task(void *arg, struct error *err)
{
    struct run *run = arg;

    for (;;) {
        CLEANUP_MESSAGE ProtobufCMessage *message = NULL;
        int r = await_grpc_recv(run->call, &message, err);
        if (r <= 0)
            return r == 0;
        if (!await_handle_request(run, (const Davit__V1__RunRequest *)message, err))
            return false;
    }
}

/* --- The flow --------------------------------------------------------------------------------- */

static const char *or_null(const char *value)
{
    return str_empty(value) ? NULL : value;
}

static bool network_of(const char *name, enum container_network *ret, struct error *err)
{
    if (str_empty(name) || str_eq(name, "none")) {
        *ret = CONTAINER_NETWORK_NONE;
    } else if (str_eq(name, "host")) {
        *ret = CONTAINER_NETWORK_HOST;
    } else {
        error_set(err, ERROR_INVALID_ARGUMENT, "NETWORK_NOT_FOUND", "network %s not found", name);
        return error_hint(err, "this version knows the networks none and host");
    }
    return true;
}

/* A repeated field as NULL-terminated array of the message's own strings; free the array only. */
static char **strv_of(char **items, size_t count)
{
    char **strv = xcalloc(count + 1, sizeof(*strv));

    if (count)
        memcpy(strv, items, count * sizeof(*strv));
    return strv;
}

static struct container *await_create(const struct engines *engines,
                                      const Davit__V1__RunStart *start, struct error *err)
{
    CLEANUP_FREE char **command = strv_of(start->command, start->n_command);
    CLEANUP_FREE char **entrypoint = strv_of(start->entrypoint, start->n_entrypoint);
    CLEANUP_FREE char **env = strv_of(start->env, start->n_env);
    const struct image *image = image_resolve(engines->store, start->image, err);
    struct container_options options = {
        .image_name = start->image,
        .command = command,
        .entrypoint = start->has_entrypoint ? entrypoint : NULL,
        .env = env,
        .working_dir = or_null(start->working_dir),
        .user = or_null(start->user),
        .hostname = or_null(start->hostname),
        .attach_stdin = start->attach_stdin,
        .remove = start->remove,
    };

    if (!image || !network_of(start->network, &options.network, err))
        return NULL;
    options.image = image->id;
    return await_container_create(engines->containers, &options, err);
}

static bool await_send_created(struct run *run, struct error *err)
{
    Davit__V1__RunResponse response = DAVIT__V1__RUN_RESPONSE__INIT;
    Davit__V1__RunCreated created = DAVIT__V1__RUN_CREATED__INIT;

    created.id = (char *)container_id(run->container);
    response.what_case = DAVIT__V1__RUN_RESPONSE__WHAT_CREATED;
    response.created = &created;
    return await_respond(run, &response, err);
}

static bool await_send_exited(struct run *run, int exit_code, struct error *err)
{
    Davit__V1__RunResponse response = DAVIT__V1__RUN_RESPONSE__INIT;
    Davit__V1__RunExited exited = DAVIT__V1__RUN_EXITED__INIT;

    exited.exit_code = (uint32_t)exit_code;
    response.what_case = DAVIT__V1__RUN_RESPONSE__WHAT_EXITED;
    response.exited = &exited;
    return await_respond(run, &response, err);
}

/* A container has finished when its process has exited and both its outputs reached their end. */
static bool await_attached(struct run *run, int *ret_exit_code, struct error *err)
{
    struct output outputs[] = {
        {run, container_stdout(run->container), DAVIT__V1__RUN_RESPONSE__WHAT_STDOUT},
        {run, container_stderr(run->container), DAVIT__V1__RUN_RESPONSE__WHAT_STDERR},
    };
    CLEANUP(group_done_await) struct group requests;
    CLEANUP(group_done_await) struct group reading;

    group_init(&requests);
    group_init(&reading);
    if (!await_container_start(run->container, err) || !await_send_created(run, err))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(outputs); i++) {
        if (!task_spawn(&reading, "output of", container_id(run->container), output_task,
                        &outputs[i], err))
            return false;
    }
    return task_spawn(&requests, "input of", container_id(run->container), requests_task, run,
                      err) &&
           await_container_exit(run->container, ret_exit_code, err) && await_group(&reading, err);
}

static bool handle_run(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__RunRequest *request = (const Davit__V1__RunRequest *)message;
    struct run run = {.call = call};
    int exit_code = 0;
    bool ok;

    if (!message)
        return false;
    if (request->what_case != DAVIT__V1__RUN_REQUEST__WHAT_START)
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL, "a run begins with start");
    wait_queue_init(&run.send_queue);
    run.container = await_create(engines, request->start, err);
    if (!run.container)
        return false;
    log_info("run", LOG("container", container_id(run.container)),
             LOG("image", request->start->image), LOG("peer", grpc_call_peer(call)));
    ok = await_attached(&run, &exit_code, err);
    run.container = container_free_await(run.container);
    return ok && await_send_exited(&run, exit_code, err);
}

/* --- Signals ---------------------------------------------------------------------------------- */

static bool handle_kill(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__KillRequest *request = (const Davit__V1__KillRequest *)message;
    Davit__V1__KillResponse response = DAVIT__V1__KILL_RESPONSE__INIT;
    struct container *container;

    if (!message || !(container = container_find(engines->containers, request->id, err)) ||
        !container_signal(container, (int)request->signal, err))
        return false;
    log_info("kill", LOG("container", container_id(container)), LOG("signal", request->signal),
             LOG("peer", grpc_call_peer(call)));
    return await_grpc_send(call, &response.base, err);
}

void handlers_containers_add(struct grpc_server *server, const struct engines *engines)
{
    static const struct grpc_method methods[] = {
        {"Run", handle_run},
        {"Kill", handle_kill},
    };

    grpc_server_add(server, &davit__v1__containers__descriptor, methods, ARRAY_SIZE(methods),
                    (void *)engines);
}
