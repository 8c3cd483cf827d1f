#include "fixture.h"

#include <errno.h>
#include <stdio.h>
#include <sys/un.h>

struct accepted {
    struct grpc_server *server;
    int fd;
};

static bool serve(void *arg, struct error *err)
{
    struct accepted accepted = *(struct accepted *)arg;

    (void)err;
    free(arg);
    await_grpc_serve(accepted.server, accepted.fd, NULL, 0);
    return true;
}

static bool listen_on(void *arg, struct error *err)
{
    struct fixture *f = arg;
    int fd;

    while ((fd = await_accept(f->listener)) >= 0) {
        struct accepted *accepted = xmalloc(sizeof(*accepted));
        *accepted = (struct accepted){f->server, fd};
        assert_true(task_spawn(&f->serving, "serve", NULL, serve, accepted, err));
    }
    return true;
}

static void listen_unix(struct fixture *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(f->path, sizeof(f->path), "/tmp/test_grpc.%d.sock", (int)getpid());
    unlink(f->path);
    strcpy(address.sun_path, f->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 16), 0);
    f->listener = stream_new(fd);
    f->address = xasprintf("unix://%s", f->path);
}

struct body {
    void (*run)(struct fixture *f);
};

static bool run_body(void *arg, struct error *err)
{
    const struct body *body = arg;
    struct fixture fixture = {0}, *f = &fixture;

    group_init(&f->serving);
    group_init(&f->clients);
    group_init(&f->tasks);
    f->server = grpc_server_new();
    echo_service_init(&f->echo, f->server);
    listen_unix(f);
    assert_true(task_spawn(&f->serving, "listen", NULL, listen_on, f, err));
    f->client = await_grpc_connect(&f->clients, f->address, err);
    assert_non_null(f->client);
    body->run(f);
    group_done_await(&f->tasks);
    f->client = grpc_client_free(f->client);
    group_done_await(&f->clients);
    group_done_await(&f->serving);
    grpc_server_free(f->server);
    stream_free(f->listener);
    unlink(f->path);
    free(f->address);
    return true;
}

void with_server(void (*run)(struct fixture *f))
{
    struct body body = {run};
    CLEANUP_ERROR struct error err = {0};

    setenv("CMOCKA_TEST_ABORT", "1", 1); /* a failure inside a task cannot jump out of it */
    assert_true(loop_run_main(run_body, &body, &err));
}

struct grpc_call *start_call(struct fixture *f, const char *method, const Request *request,
                             const struct grpc_call_options *options)
{
    CLEANUP_ERROR struct error err = {0};
    struct grpc_call *call = grpc_client_call(f->client, method, RESPONSE, options, &err);

    assert_non_null(call);
    if (request) {
        assert_true(await_grpc_send(call, &request->base, &err));
        assert_true(await_grpc_close_send(call, &err));
    }
    return call;
}

int await_response(struct grpc_call *call, size_t *ret_size, uint32_t *ret_count, struct error *err)
{
    Response *response;
    int r = await_grpc_recv(call, (ProtobufCMessage **)&response, err);

    if (r <= 0)
        return r;
    if (ret_size)
        *ret_size = response->payload.len;
    if (ret_count)
        *ret_count = response->count;
    davit__test__echo_response__free_unpacked(response, NULL);
    return 1;
}

void await_counter(struct fixture *f, const uint32_t *counter, uint32_t at_least)
{
    while (*counter < at_least)
        assert_int_equal(await_wake(&f->echo.changed, "a counter of the test"), 0);
}

void assert_ends(struct grpc_call *call, enum error_code code)
{
    CLEANUP_ERROR struct error err = {0};

    assert_int_equal(await_response(call, NULL, NULL, &err), code == ERROR_NONE ? 0 : -1);
    if (err.code != code)
        print_error("%s: %s\n", error_code_name(err.code), err.message);
    assert_int_equal(err.code, code);
}
