/* Serves echo.proto on the unix socket that its argument names, for test_grpc.py. Prints "ready",
 * then obeys one-word lines on stdin: "drain", "serving", "not-serving"; ends at end of file. */
#include <errno.h>
#include <stdio.h>
#include <sys/un.h>

#include "echo_service.h"
#include "proto/async/loop.h"
#include "proto/async/stream.h"

struct echo_server {
    struct grpc_server *grpc;
    struct echo_service echo;
    struct group listening, connections;
    struct stream *listener;
    const char *path;
};

struct accepted {
    struct grpc_server *grpc;
    int fd;
};

static bool serve(void *arg, struct error *err)
{
    struct accepted accepted = *(struct accepted *)arg;

    (void)err;
    free(arg);
    await_grpc_serve(accepted.grpc, accepted.fd, NULL, 0);
    return true;
}

static bool listen_on(void *arg, struct error *err)
{
    struct echo_server *server = arg;
    int fd;

    while ((fd = await_accept(server->listener)) >= 0) {
        struct accepted *accepted = xmalloc(sizeof(*accepted));
        *accepted = (struct accepted){server->grpc, fd};
        if (!task_spawn(&server->connections, "serve", NULL, serve, accepted, err))
            return false;
    }
    return fd == -ECANCELED ? true : await_error(err, fd, "accepting");
}

static void await_obey(struct echo_server *server, const char *line)
{
    if (str_starts(line, "drain")) {
        group_done_await(&server->listening);
        server->listener = stream_free(server->listener);
        grpc_server_drain(server->grpc);
    } else if (str_starts(line, "serving")) {
        grpc_server_set_serving(server->grpc, true);
    } else if (str_starts(line, "not-serving")) {
        grpc_server_set_serving(server->grpc, false);
    }
    puts("done");
    fflush(stdout);
}

static bool run(void *arg, struct error *err)
{
    struct echo_server *server = arg;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    CLEANUP(stream_cleanup) struct stream *commands = stream_new(STDIN_FILENO);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char line[64];
    ssize_t n;

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", server->path);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 64) < 0)
        return error_set_errno(err, errno, "cannot listen on %s", server->path);
    server->listener = stream_new(fd);
    server->grpc = grpc_server_new();
    echo_service_init(&server->echo, server->grpc);
    group_init(&server->listening);
    group_init(&server->connections);
    if (!task_spawn(&server->listening, "listen", NULL, listen_on, server, err))
        return false;
    puts("ready");
    fflush(stdout);
    while ((n = await_read(commands, line, sizeof(line) - 1)) > 0) {
        line[n] = '\0';
        await_obey(server, line);
    }
    group_done_await(&server->listening);
    group_done_await(&server->connections);
    stream_free(server->listener);
    grpc_server_free(server->grpc);
    return true;
}

int main(int argc, char **argv)
{
    struct echo_server server = {.path = argc == 2 ? argv[1] : "/nowhere"};
    CLEANUP_ERROR struct error err = {0};

    if (loop_run_main(run, &server, &err))
        return 0;
    fprintf(stderr, "%s\n", err.message);
    return 1;
}
