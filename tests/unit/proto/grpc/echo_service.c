#include "echo_service.h"

#include <errno.h>
#include <stdio.h>

#include "proto/async/await.h"

typedef Davit__Test__EchoRequest Request;
typedef Davit__Test__EchoResponse Response;

static void request_cleanup(Request **request)
{
    davit__test__echo_request__free_unpacked(*request, NULL);
}

static void stats_request_cleanup(Davit__Test__StatsRequest **request)
{
    davit__test__stats_request__free_unpacked(*request, NULL);
}

/* --- Counting what goes on -------------------------------------------------------------------- */

struct running {
    struct echo_service *echo;
};

static struct running running_begin(struct echo_service *echo)
{
    echo->started++;
    echo->running++;
    wake_all(&echo->changed);
    return (struct running){.echo = echo};
}

static void running_end(struct running *running)
{
    struct echo_service *echo = running->echo;
    int r = task_check();

    echo->running--;
    echo->cancelled += r == -ECANCELED;
    echo->timed_out += r == -ETIMEDOUT;
    wake_all(&echo->changed);
}

#define RUNNING(echo) CLEANUP(running_end) UNUSED struct running running_ = running_begin(echo)

/* --- Methods ---------------------------------------------------------------------------------- */

static bool echo_unary(struct grpc_call *call, void *context, struct error *err)
{
    CLEANUP(request_cleanup) Request *request = NULL;
    Response response = DAVIT__TEST__ECHO_RESPONSE__INIT;
    const char *header;

    (void)context;
    request = (void *)await_grpc_request(call, err);
    if (!request)
        return false;
    header = grpc_call_metadata(call, request->header);
    response.payload = request->payload;
    response.header = (char *)(header ? header : "");
    return await_grpc_send(call, &response.base, err);
}

static bool echo_count(struct grpc_call *call, void *context, struct error *err)
{
    struct echo_service *echo = context;
    CLEANUP(request_cleanup) Request *request = NULL;
    CLEANUP_FREE uint8_t *payload = NULL;
    Response response = DAVIT__TEST__ECHO_RESPONSE__INIT;
    RUNNING(echo);

    request = (void *)await_grpc_request(call, err);
    if (!request)
        return false;
    payload = xcalloc(1, request->size + 1);
    response.payload.len = request->size;
    response.payload.data = payload;
    for (uint32_t i = 0; i < request->count; i++) {
        response.count = i;
        if (!await_grpc_send(call, &response.base, err))
            return false;
        echo->sent++;
        wake_all(&echo->changed);
    }
    return true;
}

static bool echo_sum(struct grpc_call *call, void *context, struct error *err)
{
    Response response = DAVIT__TEST__ECHO_RESPONSE__INIT;
    RUNNING(context);

    for (;;) {
        CLEANUP(request_cleanup) Request *request = NULL;
        int r = await_grpc_recv(call, (ProtobufCMessage **)&request, err);
        if (r < 0)
            return false;
        if (r == 0)
            return await_grpc_send(call, &response.base, err);
        response.count++;
        response.size += request->payload.len;
    }
}

static bool echo_chat(struct grpc_call *call, void *context, struct error *err)
{
    Response response = DAVIT__TEST__ECHO_RESPONSE__INIT;
    RUNNING(context);

    for (;;) {
        CLEANUP(request_cleanup) Request *request = NULL;
        int r = await_grpc_recv(call, (ProtobufCMessage **)&request, err);
        if (r <= 0)
            return r == 0;
        response.count++;
        response.payload = request->payload;
        if (!await_grpc_send(call, &response.base, err))
            return false;
    }
}

static bool echo_wait(struct grpc_call *call, void *context, struct error *err)
{
    RUNNING(context);
    int r = await_sleep(UINT64_MAX / 4);

    (void)call;
    return await_error(err, r, "waiting");
}

static bool echo_fail(struct grpc_call *call, void *context, struct error *err)
{
    CLEANUP(request_cleanup) Request *request = NULL;

    (void)context;
    request = (void *)await_grpc_request(call, err);
    if (!request)
        return false;
    if (request->count)
        await_sleep(UINT64_MAX / 4);
    error_set(err, (enum error_code)request->code, *request->reason ? request->reason : NULL, "%s",
              request->message);
    return *request->hint ? error_hint(err, "%s", request->hint) : false;
}

static bool echo_fail_later(struct grpc_call *call, void *context, struct error *err)
{
    Response response = DAVIT__TEST__ECHO_RESPONSE__INIT;

    return await_grpc_send(call, &response.base, err) && echo_fail(call, context, err);
}

static uint64_t private_kib(void)
{
    unsigned long resident = 0, shared = 0;
    FILE *file = fopen("/proc/self/statm", "re");

    if (file && fscanf(file, "%*u %lu %lu", &resident, &shared) != 2)
        resident = shared = 0;
    if (file)
        fclose(file);
    return (resident - shared) * 4;
}

static bool echo_stats(struct grpc_call *call, void *context, struct error *err)
{
    struct echo_service *echo = context;
    CLEANUP(stats_request_cleanup) Davit__Test__StatsRequest *request = NULL;
    Davit__Test__StatsResponse response = DAVIT__TEST__STATS_RESPONSE__INIT;
    int r = 0;

    request = (void *)await_grpc_request(call, err);
    if (!request)
        return false;
    while (r == 0 && (echo->started < request->started || echo->cancelled < request->cancelled ||
                      echo->timed_out < request->timed_out || echo->sent < request->sent))
        r = await_wake(&echo->changed, "counters");
    if (r < 0)
        return await_error(err, r, "waiting for counters");
    response.started = echo->started;
    response.running = echo->running;
    response.cancelled = echo->cancelled;
    response.timed_out = echo->timed_out;
    response.sent = echo->sent;
    response.private_kib = private_kib();
    return await_grpc_send(call, &response.base, err);
}

void echo_service_init(struct echo_service *echo, struct grpc_server *server)
{
    static const struct grpc_method methods[] = {
        {"Unary", echo_unary}, {"Count", echo_count},
        {"Sum", echo_sum},     {"Chat", echo_chat},
        {"Wait", echo_wait},   {"Mute", echo_wait},
        {"Fail", echo_fail},   {"FailLater", echo_fail_later},
        {"Stats", echo_stats},
    };

    *echo = (struct echo_service){0};
    wait_queue_init(&echo->changed);
    grpc_server_add(server, &davit__test__echo__descriptor, methods, ARRAY_SIZE(methods), echo);
    grpc_server_set_descriptors(server, echo_descriptors,
                                (size_t)(echo_descriptors_end - echo_descriptors));
}
