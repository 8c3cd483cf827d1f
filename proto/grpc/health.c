/* grpc.health.v1.Health. */
#include "proto/grpc/health/v1/health.pb-c.h"
#include "proto/grpc/internal.h"

typedef Grpc__Health__V1__HealthCheckRequest HealthRequest;
typedef Grpc__Health__V1__HealthCheckResponse HealthResponse;

static void request_cleanup(HealthRequest **request)
{
    grpc__health__v1__health_check_request__free_unpacked(*request, NULL);
}

static bool is_served(const struct grpc_server *server, const char *service)
{
    if (!*service)
        return true;
    for (const struct service_entry *entry = server->services; entry; entry = entry->next) {
        if (str_eq(entry->descriptor->name, service))
            return true;
    }
    return false;
}

static bool await_send_status(struct grpc_call *call, const struct grpc_server *server,
                              const char *service, struct error *err)
{
    HealthResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

#define STATUS(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name
    response.status = !is_served(server, service) ? STATUS(SERVICE_UNKNOWN)
                      : server->serving           ? STATUS(SERVING)
                                                  : STATUS(NOT_SERVING);
#undef STATUS
    return await_grpc_send(call, &response.base, err);
}

static bool check(struct grpc_call *call, void *context, struct error *err)
{
    const struct grpc_server *server = context;
    CLEANUP(request_cleanup) HealthRequest *request = NULL;

    request = (void *)await_grpc_request(call, err);
    if (!request)
        return false;
    if (!is_served(server, request->service))
        return error_set(err, ERROR_NOT_FOUND, NULL, "no such service: %s", request->service);
    return await_send_status(call, server, request->service, err);
}

static bool watch(struct grpc_call *call, void *context, struct error *err)
{
    struct grpc_server *server = context;
    CLEANUP(request_cleanup) HealthRequest *request = NULL;
    int r = 0;

    request = (void *)await_grpc_request(call, err);
    if (!request)
        return false;
    for (;;) {
        bool sent = server->serving;
        if (!await_send_status(call, server, request->service, err))
            return false;
        while (r == 0 && server->serving == sent && !server->draining)
            r = await_wake(&server->serving_changed, "watching health");
        if (r < 0)
            return await_error(err, r, "watching health");
        if (server->serving == sent) /* a watcher must not hold up the end */
            return error_set(err, ERROR_UNAVAILABLE, "SHUTTING_DOWN",
                             "the server is shutting down");
    }
}

void grpc_server_set_serving(struct grpc_server *server, bool serving)
{
    server->serving = serving;
    wake_all(&server->serving_changed);
}

void server_add_health(struct grpc_server *server)
{
    static const struct grpc_method methods[] = {{"Check", check}, {"Watch", watch}};

    grpc_server_add(server, &grpc__health__v1__health__descriptor, methods, ARRAY_SIZE(methods),
                    server);
}
