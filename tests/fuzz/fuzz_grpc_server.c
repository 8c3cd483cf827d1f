/* HTTP/2 frames from a stranger, to the whole server: session, calls, handlers. The input follows
 * the preface and an empty SETTINGS frame. */
#include <sys/socket.h>

#include "proto/async/loop.h"
#include "proto/base/log.h"
#include "proto/base/strbuf.h"
#include "tests/unit/proto/grpc/echo_service.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";

struct input {
    const uint8_t *data;
    size_t size;
};

static bool serve(void *arg, struct error *err)
{
    const struct input *input = arg;
    struct grpc_server *server;
    struct echo_service echo;
    CLEANUP_STRBUF struct strbuf first = {0};
    int fds[2];

    (void)err;
    server = grpc_server_new();
    echo_service_init(&echo, server);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    strbuf_add(&first, preface, sizeof(preface)); /* its NUL is the frame's last byte */
    strbuf_add(&first, input->data, input->size);
    shutdown(fds[1], SHUT_WR);
    await_grpc_serve(server, fds[0], first.data, first.length);
    close(fds[1]);
    CHECK(echo.running == 0);
    grpc_server_free(server);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    CLEANUP_ERROR struct error err = {0};

    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    CHECK(loop_run_main(serve, &input, &err));
    return 0;
}
