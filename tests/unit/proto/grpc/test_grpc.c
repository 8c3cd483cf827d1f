/* Our client against our server. */
#include <errno.h>
#include <stdio.h>
#include <sys/un.h>

#include "fixture.h"
#include "proto/davit/v1/descriptors.h"
#include "proto/grpc/health/v1/health.pb-c.h"
#include "proto/grpc/internal.h"
#include "proto/grpc/reflection/v1/reflection.pb-c.h"

static Response *unary(struct fixture *f, const Request *request)
{
    CLEANUP_ERROR struct error err = {0};
    ProtobufCMessage *response;

    if (!await_grpc_unary(f->client, METHOD("Unary"), &request->base, RESPONSE, &response, &err))
        fail_msg("%s", err.message);
    return (Response *)response;
}

static void check_unary(struct fixture *f, size_t size)
{
    CLEANUP_FREE uint8_t *payload = xmalloc(size + 1);
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    Response *response;

    for (size_t i = 0; i < size; i++)
        payload[i] = (uint8_t)(i * 7 + i / 251);
    request.payload.data = payload;
    request.payload.len = size;
    response = unary(f, &request);
    assert_int_equal(response->payload.len, size);
    if (size)
        assert_memory_equal(response->payload.data, payload, size);
    davit__test__echo_response__free_unpacked(response, NULL);
}

/* --- The four kinds --------------------------------------------------------------------------- */

/* Tag, length and bytes of a payload make exactly 4 MiB. */
#define LARGEST_PAYLOAD (GRPC_MAX_MESSAGE - 5)

static void body_unary(struct fixture *f)
{
    static const size_t sizes[] = {0, 1, 16379, 16384, 65535, 65536, 1000000, LARGEST_PAYLOAD};

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        check_unary(f, sizes[i]);
}

static void body_too_large(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE uint8_t *payload = xcalloc(1, LARGEST_PAYLOAD + 1);
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    ProtobufCMessage *response;

    request.payload.data = payload;
    request.payload.len = LARGEST_PAYLOAD + 1;
    assert_false(
        await_grpc_unary(f->client, METHOD("Unary"), &request.base, RESPONSE, &response, &err));
    assert_int_equal(err.code, ERROR_RESOURCE_EXHAUSTED);
    assert_null(response);

    /* In the other direction the handler fails. */
    request = (Request)DAVIT__TEST__ECHO_REQUEST__INIT;
    request.count = 1;
    request.size = LARGEST_PAYLOAD + 1;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, METHOD("Count"), &request, NULL);
    assert_ends(call, ERROR_RESOURCE_EXHAUSTED);
    check_unary(f, 10);
}

static void body_metadata(struct fixture *f)
{
    static const char *const headers[] = {"x-first", "one", "x-second-bin", "\xff\x01\x02", NULL};
    static const char *const keys[] = {"x-first", "x-second-bin", "content-type", "x-none"};
    static const char *const values[] = {"one", "\xff\x01\x02", "application/grpc", ""};
    const struct grpc_call_options options = {.headers = headers};

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        CLEANUP_ERROR struct error err = {0};
        Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
        Response *response;
        request.header = (char *)keys[i];
        CLEANUP(grpc_call_cleanup)
        struct grpc_call *call = start_call(f, METHOD("Unary"), &request, &options);
        assert_int_equal(await_grpc_recv(call, (ProtobufCMessage **)&response, &err), 1);
        assert_string_equal(response->header, values[i]);
        assert_string_equal(grpc_call_metadata(call, "content-type"), "application/grpc");
        davit__test__echo_response__free_unpacked(response, NULL);
        assert_ends(call, ERROR_NONE);
    }
}

static void body_server_streaming(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    size_t size;
    uint32_t count;

    request.count = 3000;
    request.size = 1000;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, METHOD("Count"), &request, NULL);
    for (uint32_t i = 0; i < request.count; i++) {
        assert_int_equal(await_response(call, &size, &count, &err), 1);
        assert_int_equal(count, i);
        assert_int_equal(size, request.size);
    }
    assert_ends(call, ERROR_NONE);
    assert_ends(call, ERROR_NONE); /* and so it stays */
    assert_false(await_grpc_send(call, &request.base, &err));
}

static void body_client_streaming(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};
    static uint8_t payload[100000];
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    Response *response;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, METHOD("Sum"), NULL, NULL);

    request.payload.data = payload;
    for (size_t i = 0; i < 200; i++) {
        request.payload.len = i * 500;
        assert_true(await_grpc_send(call, &request.base, &err));
    }
    assert_true(await_grpc_close_send(call, &err));
    assert_int_equal(await_grpc_recv(call, (ProtobufCMessage **)&response, &err), 1);
    assert_int_equal(response->count, 200);
    assert_int_equal(response->size, 500 * 200 * 199 / 2);
    davit__test__echo_response__free_unpacked(response, NULL);
    assert_ends(call, ERROR_NONE);
}

static void body_chat(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    uint32_t count;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, METHOD("Chat"), NULL, NULL);

    for (uint32_t i = 1; i <= 100; i++) { /* each waits for its answer */
        assert_true(await_grpc_send(call, &request.base, &err));
        assert_int_equal(await_response(call, NULL, &count, &err), 1);
        assert_int_equal(count, i);
    }
    assert_true(await_grpc_close_send(call, &err));
    assert_ends(call, ERROR_NONE);
}

/* One task sends while another receives. */
static bool send_all(void *arg, struct error *err)
{
    static uint8_t payload[5000];
    struct grpc_call *call = arg;
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;

    request.payload.data = payload;
    request.payload.len = sizeof(payload);
    for (size_t i = 0; i < 1000; i++) {
        if (!await_grpc_send(call, &request.base, err))
            return false;
    }
    return await_grpc_close_send(call, err);
}

static void body_chat_two_tasks(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};
    uint32_t count = 0;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, METHOD("Chat"), NULL, NULL);

    assert_true(task_spawn(&f->tasks, "send", NULL, send_all, call, &err));
    while (await_response(call, NULL, &count, &err) == 1)
        ;
    assert_false(error_is_set(&err));
    assert_int_equal(count, 1000);
    assert_true(await_group(&f->tasks, &err));
}

static bool call_often(void *arg, struct error *err)
{
    (void)err;
    for (size_t i = 0; i < 5; i++)
        check_unary(arg, 1000 * i);
    return true;
}

static void body_many(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};

    for (size_t i = 0; i < 400; i++) /* four times as many as streams are allowed */
        assert_true(task_spawn(&f->tasks, "call", NULL, call_often, f, &err));
    assert_true(await_group(&f->tasks, &err));
}

/* --- Errors ----------------------------------------------------------------------------------- */

static void check_failure(struct fixture *f, const char *method, int responses)
{
    CLEANUP_ERROR struct error err = {0};
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;

    request.code = ERROR_FAILED_PRECONDITION;
    request.message = (char *)"layer \"\xc3\xa4\" is 100% gone";
    request.reason = (char *)"LAYER_GONE";
    request.hint = (char *)"pull it again";
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, method, &request, NULL);
    while (responses--)
        assert_int_equal(await_response(call, NULL, NULL, &err), 1);
    assert_int_equal(await_response(call, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERROR_FAILED_PRECONDITION);
    assert_string_equal(err.message, request.message);
    assert_string_equal(err.reason, request.reason);
    assert_string_equal(err.hint, request.hint);
}

static void body_failure(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    ProtobufCMessage *response;

    check_failure(f, METHOD("Fail"), 0);
    check_failure(f, METHOD("FailLater"), 1);
    request.code = ERROR_NOT_FOUND;
    assert_false(
        await_grpc_unary(f->client, METHOD("Fail"), &request.base, RESPONSE, &response, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    request.code = ERROR_NONE; /* failed, but did not say why */
    assert_false(
        await_grpc_unary(f->client, METHOD("Fail"), &request.base, RESPONSE, &response, &err));
    assert_int_equal(err.code, ERROR_UNKNOWN);
}

static void body_unimplemented(struct fixture *f)
{
    static const char *const methods[] = {METHOD("Missing"), METHOD("Nothing"), "/a/b", "/"};
    const Request request = DAVIT__TEST__ECHO_REQUEST__INIT;

    for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
        CLEANUP(grpc_call_cleanup)
        struct grpc_call *call = start_call(f, methods[i], &request, NULL);
        assert_ends(call, ERROR_UNIMPLEMENTED);
    }
}

static void body_no_request(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, METHOD("Unary"), NULL, NULL);

    assert_true(await_grpc_close_send(call, &err));
    assert_ends(call, ERROR_INVALID_ARGUMENT);
}

/* --- Cancel and deadlines --------------------------------------------------------------------- */

static void body_cancel(struct fixture *f)
{
    const Request request = DAVIT__TEST__ECHO_REQUEST__INIT;

    grpc_call_free(start_call(f, METHOD("Wait"), &request, NULL)); /* not even sent */
    struct grpc_call *call = start_call(f, METHOD("Wait"), &request, NULL);
    await_counter(f, &f->echo.running, 1);
    grpc_call_free(call); /* the handler waits for something else than the call */
    await_counter(f, &f->echo.cancelled, 1);

    call = start_call(f, METHOD("Sum"), NULL, NULL);
    await_counter(f, &f->echo.running, 1);
    grpc_call_free(call);
    await_counter(f, &f->echo.cancelled, 2);
    assert_int_equal(f->echo.running, 0);
    check_unary(f, 10);
}

static void body_cancel_mid_stream(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;

    request.count = UINT32_MAX;
    request.size = 1000;
    struct grpc_call *call = start_call(f, METHOD("Count"), &request, NULL);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(await_response(call, NULL, NULL, &err), 1);
    grpc_call_free(call);
    await_counter(f, &f->echo.cancelled, 1);
    check_unary(f, 10);
}

static bool wait_for_answer(void *arg, struct error *err)
{
    struct fixture *f = arg;
    const Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    ProtobufCMessage *response;

    return await_grpc_unary(f->client, METHOD("Wait"), &request.base, RESPONSE, &response, err);
}

static void body_cancel_task(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};

    assert_true(task_spawn(&f->tasks, "caller", NULL, wait_for_answer, f, &err));
    await_counter(f, &f->echo.running, 1);
    group_cancel(&f->tasks);
    assert_false(await_group(&f->tasks, &err));
    assert_int_equal(err.code, ERROR_CANCELLED);
    await_counter(f, &f->echo.cancelled, 1);
}

static void body_client_leaves(struct fixture *f)
{
    const Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, METHOD("Wait"), &request, NULL);
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *other = start_call(f, METHOD("Mute"), NULL, NULL);

    await_counter(f, &f->echo.running, 2);
    f->client = grpc_client_free(f->client);
    await_counter(f, &f->echo.cancelled, 2);
    assert_ends(call, ERROR_CANCELLED);
    assert_ends(other, ERROR_CANCELLED);
}

static void body_server_ends(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};
    const Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, METHOD("Wait"), &request, NULL);

    await_counter(f, &f->echo.running, 1);
    group_cancel(&f->serving);
    assert_int_equal(await_response(call, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERROR_UNAVAILABLE);
    assert_string_equal(err.reason, "SHUTTING_DOWN");
    assert_int_equal(f->echo.cancelled, 1);
    group_done_await(&f->serving);
}

/* The server's own clock, with a client that does not watch it. */
static void body_server_deadline(struct fixture *f)
{
    static const char *const headers[] = {"grpc-timeout", "20m", NULL};
    const struct grpc_call_options options = {.headers = headers};
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, METHOD("Wait"), &request, &options);

    assert_ends(call, ERROR_DEADLINE_EXCEEDED);
    assert_int_equal(f->echo.timed_out, 1);

    request.count = 1; /* whatever the handler makes of it */
    request.code = ERROR_NOT_FOUND;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *late = start_call(f, METHOD("Fail"), &request, &options);
    assert_ends(late, ERROR_DEADLINE_EXCEEDED);

    request.count = UINT32_MAX;
    request.size = 1000;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *slow = start_call(f, METHOD("Count"), &request, &options);
    await_counter(f, &f->echo.timed_out, 2); /* while it waited for our window */
    check_unary(f, 10);
    CLEANUP_ERROR struct error err = {0};
    while (await_response(slow, NULL, NULL, &err) == 1)
        ;
    assert_int_equal(err.code, ERROR_DEADLINE_EXCEEDED);
}

/* --- Back-pressure ---------------------------------------------------------------------------- */

/* All that can be under way without being taken: both queues, a window, what is in the making. */
#define UNDER_WAY (SEND_QUEUE + 2 * 65536)

static void body_slow_reader(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    uint32_t received = 0;

    request.count = 20000;
    request.size = 1000;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, METHOD("Count"), &request, NULL);
    await_counter(f, &f->echo.running, 1);
    for (size_t i = 0; i < 50; i++)
        check_unary(f, 50000); /* others are not kept waiting */
    assert_in_range(f->echo.sent * 1000, 65536, UNDER_WAY);
    assert_in_range(fifo_size(&call->in), 60000, 65536);
    while (await_response(call, NULL, NULL, &err) == 1) {
        received++;
        assert_true((f->echo.sent - received) * 1000 <= UNDER_WAY);
        assert_true(call->in.bytes.capacity <= 4 * 65536);
    }
    assert_false(error_is_set(&err));
    assert_int_equal(received, request.count);
}

/* As much as its reader allows, and no more. */
static void body_wide_reader(struct fixture *f)
{
    enum { WINDOW = 512 * 1024 };
    CLEANUP_ERROR struct error err = {0};
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    uint32_t received = 1;

    request.count = 20000;
    request.size = 1000;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, METHOD("Count"), &request, NULL);
    assert_int_equal(await_response(call, NULL, NULL, &err), 1);
    grpc_call_set_window(call, WINDOW);
    for (size_t i = 0; i < 50; i++)
        check_unary(f, 50000);
    assert_in_range(fifo_size(&call->in), WINDOW - 66000, WINDOW);
    assert_in_range(f->echo.sent * 1000, WINDOW, WINDOW + UNDER_WAY);
    while (await_response(call, NULL, NULL, &err) == 1)
        received++;
    assert_false(error_is_set(&err));
    assert_int_equal(received, request.count);
}

struct sender {
    struct grpc_call *call;
    size_t sent;
};

static bool send_forever(void *arg, struct error *err)
{
    static uint8_t payload[1000];
    struct sender *sender = arg;
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;

    request.payload.data = payload;
    request.payload.len = sizeof(payload);
    while (await_grpc_send(sender->call, &request.base, err))
        sender->sent++;
    return false;
}

static void body_slow_server(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};
    struct sender sender = {.call = start_call(f, METHOD("Mute"), NULL, NULL)};

    assert_true(task_spawn(&f->tasks, "send", NULL, send_forever, &sender, &err));
    await_counter(f, &f->echo.running, 1);
    for (size_t i = 0; i < 50; i++)
        check_unary(f, 50000);
    assert_in_range(sender.sent * 1000, 65536, UNDER_WAY);
    group_cancel(&f->tasks);
    assert_false(await_group(&f->tasks, &err));
    assert_int_equal(err.code, ERROR_CANCELLED);
    grpc_call_free(sender.call);
    await_counter(f, &f->echo.cancelled, 1);
}

/* Windows that nobody takes from, as many as there may be, leave the connection usable. */
static void body_many_slow(struct fixture *f)
{
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    struct grpc_call *calls[MAX_STREAMS - 1];

    request.count = UINT32_MAX;
    request.size = 10000;
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
        calls[i] = start_call(f, METHOD("Count"), &request, NULL);
    await_counter(f, &f->echo.running, ARRAY_SIZE(calls));
    check_unary(f, 1000000);
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
        grpc_call_free(calls[i]);
    await_counter(f, &f->echo.cancelled, ARRAY_SIZE(calls));
}

/* --- Connections ------------------------------------------------------------------------------ */

static void body_drain(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, METHOD("Chat"), NULL, NULL);
    ProtobufCMessage *response;

    await_counter(f, &f->echo.running, 1);
    grpc_server_drain(f->server);
    while (await_grpc_unary(f->client, METHOD("Unary"), &request.base, RESPONSE, &response, &err))
        protobuf_c_message_free_unpacked(response, NULL); /* it has not heard of it yet */
    assert_int_equal(err.code, ERROR_UNAVAILABLE);
    assert_true(await_grpc_send(call, &request.base, &err)); /* this one goes on */
    assert_int_equal(await_response(call, NULL, NULL, &err), 1);
    assert_true(await_grpc_close_send(call, &err));
    assert_ends(call, ERROR_NONE);
    assert_true(await_group(&f->clients, &err)); /* and then the connection ends */
    assert_null(grpc_client_call(f->client, METHOD("Unary"), RESPONSE, NULL, &err));
    assert_int_equal(err.code, ERROR_UNAVAILABLE);
}

static void body_no_daemon(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};

    assert_null(await_grpc_connect(&f->clients, "unix:///nowhere/davit.sock", &err));
    assert_int_equal(err.code, ERROR_UNAVAILABLE);
    assert_string_equal(err.message,
                        "Cannot connect to the davit daemon at unix:///nowhere/davit.sock. "
                        "Is the davit daemon running?");
    assert_non_null(err.hint);
    assert_null(await_grpc_connect(&f->clients, "tcp://localhost:1", &err));
    assert_int_equal(err.code, ERROR_INVALID_ARGUMENT);
}

/* A socket that we listen on instead of the server. */
struct stub {
    char path[96];
    struct stream *listener, *connection;
    struct grpc_client *client;
};

static void stub_connect(struct fixture *f, struct stub *stub)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    CLEANUP_FREE char *url = NULL;
    CLEANUP_ERROR struct error err = {0};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(stub->path, sizeof(stub->path), "%s.stub", f->path);
    url = xasprintf("unix://%s", stub->path);
    unlink(stub->path);
    strcpy(address.sun_path, stub->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    stub->listener = stream_new(fd);
    stub->client = await_grpc_connect(&f->clients, url, &err);
    assert_non_null(stub->client);
    stub->connection = stream_new(await_accept(stub->listener));
}

static void stub_done(struct stub *stub)
{
    grpc_client_free(stub->client);
    stream_free(stub->connection);
    stream_free(stub->listener);
    unlink(stub->path);
}

static void check_lost(struct fixture *f, struct stub *stub, const char *why)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *expected =
        xasprintf("lost the connection to the davit daemon at unix://%s: %s", stub->path, why);
    struct grpc_client *client = f->client;

    f->client = stub->client;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, METHOD("Wait"), NULL, NULL);
    f->client = client;
    if (stub->connection && str_starts(why, "it closed")) {
        assert_int_equal(await_readable(stub->connection), 0);
        stub->connection = stream_free(stub->connection);
    }
    assert_int_equal(await_response(call, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERROR_UNAVAILABLE);
    assert_string_equal(err.message, expected);
}

static void body_client_deadline(struct fixture *f)
{
    const struct grpc_call_options options = {.timeout_ms = 20};
    CLEANUP_ERROR struct error err = {0};
    struct stub stub = {.client = NULL}; /* does not even read */

    stub_connect(f, &stub);
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call =
        grpc_client_call(stub.client, METHOD("Wait"), RESPONSE, &options, &err);
    assert_ends(call, ERROR_DEADLINE_EXCEEDED);
    stub_done(&stub);
}

static void body_server_dies(struct fixture *f)
{
    struct stub stub = {.client = NULL};
    CLEANUP_ERROR struct error err = {0};

    stub_connect(f, &stub);
    check_lost(f, &stub, "it closed the connection");
    assert_null(grpc_client_call(stub.client, METHOD("Wait"), RESPONSE, NULL, &err));
    assert_int_equal(err.code, ERROR_UNAVAILABLE);
    stub_done(&stub);
}

static void body_not_grpc(struct fixture *f)
{
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    struct stub stub = {.client = NULL};

    stub_connect(f, &stub);
    assert_int_equal(await_write(stub.connection, answer, strlen(answer)), 0);
    CLEANUP_ERROR struct error err = {0};
    struct grpc_client *client = f->client;
    f->client = stub.client;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, METHOD("Wait"), NULL, NULL);
    f->client = client;
    assert_int_equal(await_response(call, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERROR_UNAVAILABLE);
    assert_non_null(strstr(err.message, "does not speak gRPC"));
    stub_done(&stub);
}

static void body_keepalive(struct fixture *f)
{
    const struct grpc_timeouts before = grpc_timeouts;
    struct stub stub = {.client = NULL};

    grpc_timeouts.ping_ms = 10;
    stub_connect(f, &stub);
    grpc_client_set_keepalive(stub.client, 10);
    check_lost(f, &stub, "it has stopped answering");
    stub_done(&stub);

    /* A server that answers is kept, however long its call takes. */
    grpc_client_set_keepalive(f->client, 1);
    static const char *const headers[] = {"grpc-timeout", "200m", NULL};
    const struct grpc_call_options options = {.headers = headers};
    const Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    grpc_timeouts.ping_ms = 60000;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = start_call(f, METHOD("Wait"), &request, &options);
    assert_ends(call, ERROR_DEADLINE_EXCEEDED);
    grpc_timeouts = before;
}

/* --- The standard services -------------------------------------------------------------------- */

typedef Grpc__Health__V1__HealthCheckRequest HealthRequest;
typedef Grpc__Health__V1__HealthCheckResponse HealthResponse;
#define HEALTH_RESPONSE (&grpc__health__v1__health_check_response__descriptor)
#define HEALTH(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

static void check_health(struct fixture *f, const char *service, int expected)
{
    CLEANUP_ERROR struct error err = {0};
    HealthRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    HealthResponse *response;

    request.service = (char *)service;
    if (!await_grpc_unary(f->client, "/grpc.health.v1.Health/Check", &request.base, HEALTH_RESPONSE,
                          (ProtobufCMessage **)&response, &err)) {
        assert_int_equal(expected, HEALTH(SERVICE_UNKNOWN));
        assert_int_equal(err.code, ERROR_NOT_FOUND);
        return;
    }
    assert_int_equal(response->status, expected);
    grpc__health__v1__health_check_response__free_unpacked(response, NULL);
}

static void watch_health(struct grpc_call *call, int expected)
{
    CLEANUP_ERROR struct error err = {0};
    HealthResponse *response;

    assert_int_equal(await_grpc_recv(call, (ProtobufCMessage **)&response, &err), 1);
    assert_int_equal(response->status, expected);
    grpc__health__v1__health_check_response__free_unpacked(response, NULL);
}

static void body_health(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};
    HealthRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call =
        grpc_client_call(f->client, "/grpc.health.v1.Health/Watch", HEALTH_RESPONSE, NULL, &err);

    check_health(f, "", HEALTH(SERVING));
    check_health(f, "davit.test.Echo", HEALTH(SERVING));
    check_health(f, "davit.test.None", HEALTH(SERVICE_UNKNOWN));
    assert_true(await_grpc_send(call, &request.base, &err));
    assert_true(await_grpc_close_send(call, &err));
    watch_health(call, HEALTH(SERVING));
    grpc_server_set_serving(f->server, false);
    watch_health(call, HEALTH(NOT_SERVING));
    check_health(f, "", HEALTH(NOT_SERVING));
    grpc_server_set_serving(f->server, true);
    watch_health(call, HEALTH(SERVING));
    grpc_server_drain(f->server);
    watch_health(call, HEALTH(NOT_SERVING));
    assert_ends(call, ERROR_UNAVAILABLE);
}

typedef Grpc__Reflection__V1__ServerReflectionRequest ReflectionRequest;
typedef Grpc__Reflection__V1__ServerReflectionResponse ReflectionResponse;

static ReflectionResponse *reflect(struct grpc_call *call, const ReflectionRequest *request)
{
    CLEANUP_ERROR struct error err = {0};
    ReflectionResponse *response;

    assert_true(await_grpc_send(call, &request->base, &err));
    assert_int_equal(await_grpc_recv(call, (ProtobufCMessage **)&response, &err), 1);
    return response;
}

#define REFLECTION_REQUEST(name) \
    GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##name
#define REFLECTION_RESPONSE(name) \
    GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##name

/* The file that defines a symbol, as its name can be found in it. */
static void check_symbol(struct grpc_call *call, const char *symbol, const char *file)
{
    ReflectionRequest request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    ReflectionResponse *response;

    request.message_request_case = REFLECTION_REQUEST(FILE_CONTAINING_SYMBOL);
    request.file_containing_symbol = (char *)symbol;
    response = reflect(call, &request);
    if (file) {
        assert_int_equal(response->message_response_case,
                         REFLECTION_RESPONSE(FILE_DESCRIPTOR_RESPONSE));
        assert_int_equal(response->file_descriptor_response->n_file_descriptor_proto, 1);
        ProtobufCBinaryData *data = response->file_descriptor_response->file_descriptor_proto;
        assert_int_equal(data->data[0], 0x0a); /* field 1, name */
        assert_int_equal(data->data[1], strlen(file));
        assert_memory_equal(data->data + 2, file, strlen(file));
    } else {
        assert_int_equal(response->message_response_case, REFLECTION_RESPONSE(ERROR_RESPONSE));
        assert_int_equal(response->error_response->error_code, ERROR_NOT_FOUND);
    }
    grpc__reflection__v1__server_reflection_response__free_unpacked(response, NULL);
}

static void check_reflection(struct fixture *f, const char *method)
{
    CLEANUP_ERROR struct error err = {0};
    ReflectionRequest request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    ReflectionResponse *response;
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call =
        grpc_client_call(f->client, method,
                         &grpc__reflection__v1__server_reflection_response__descriptor, NULL, &err);

    request.message_request_case = REFLECTION_REQUEST(LIST_SERVICES);
    request.list_services = (char *)"";
    response = reflect(call, &request);
    assert_int_equal(response->list_services_response->n_service, 4);
    grpc__reflection__v1__server_reflection_response__free_unpacked(response, NULL);

    check_symbol(call, "davit.v1.Images", "davit/v1/images.proto");
    check_symbol(call, "davit.v1.Images.Pull", "davit/v1/images.proto");
    check_symbol(call, "davit.v1.JobProgress.Phase", "davit/v1/jobs.proto");
    check_symbol(call, "davit.v1.JobProgress.RESOLVING", "davit/v1/jobs.proto");
    check_symbol(call, "davit.v1.RemoveImageResponse.Removed.untagged", "davit/v1/images.proto");
    check_symbol(call, "davit.v1.ErrorDetail", "davit/v1/error.proto");
    check_symbol(call, "grpc.health.v1.Health", "grpc/health/v1/health.proto");
    check_symbol(call, "davit.v1.None", NULL);
    check_symbol(call, "davit.v1.Images.None", NULL);
    check_symbol(call, "davit.v1", NULL);
    check_symbol(call, "", NULL);
    request = (ReflectionRequest)GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    response = reflect(call, &request);
    assert_int_equal(response->error_response->error_code, ERROR_INVALID_ARGUMENT);
    grpc__reflection__v1__server_reflection_response__free_unpacked(response, NULL);
    assert_true(await_grpc_close_send(call, &err));
    assert_ends(call, ERROR_NONE);
}

static void body_reflection(struct fixture *f)
{
    grpc_server_set_descriptors(f->server, davit_v1_descriptors, DAVIT_V1_DESCRIPTORS_SIZE);
    check_reflection(f, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    check_reflection(f, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");
}

#define TEST(name)                    \
    static void test_##name(void **s) \
    {                                 \
        (void)s;                      \
        with_server(body_##name);     \
    }
#define TESTS(X)         \
    X(unary)             \
    X(too_large)         \
    X(metadata)          \
    X(server_streaming)  \
    X(client_streaming)  \
    X(chat)              \
    X(chat_two_tasks)    \
    X(many)              \
    X(failure)           \
    X(unimplemented)     \
    X(no_request)        \
    X(cancel)            \
    X(cancel_mid_stream) \
    X(cancel_task)       \
    X(client_leaves)     \
    X(server_ends)       \
    X(server_deadline)   \
    X(client_deadline)   \
    X(slow_reader)       \
    X(wide_reader)       \
    X(slow_server)       \
    X(many_slow)         \
    X(drain) X(no_daemon) X(server_dies) X(not_grpc) X(keepalive) X(health) X(reflection)

TESTS(TEST)

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
#define ENTRY(name) cmocka_unit_test(test_##name),
    const struct CMUnitTest tests[] = {TESTS(ENTRY)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
