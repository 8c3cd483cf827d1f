#include "daemon/server/server.h"

#include <errno.h>
#include <sys/socket.h>

#include "daemon/server/docker/http1.h"
#include "daemon/server/handlers.h"
#include "daemon/server/listener.h"
#include "proto/async/await.h"
#include "proto/base/log.h"
#include "proto/davit/v1/descriptors.h"

/* Both languages begin with ASCII; HTTP/2's first line is this (RFC 9113, section 3.4). */
static const char http2_preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
#define SNIFF_BYTES (sizeof(http2_preface) - 1)
#define SNIFF_TIMEOUT_MS 10000

/* Accepting fails like this when descriptors run out: the others' ends free some. */
#define ACCEPT_RETRY_MS 100

struct server {
    const struct engines *engines;
    struct listener listeners[LISTENERS_MAX];
    size_t listener_count;
    struct group connections;
    struct grpc_server *grpc;
};

struct connection {
    struct server *server;
    int fd;
};

/* --- Connections ------------------------------------------------------------------------------ */

/* Reads until the language is clear: true for HTTP/2. ret_size bytes were read. */
static bool await_sniff(struct stream *stream, char *first, size_t *ret_size, bool *ret_http2)
{
    CLEANUP(deadline_pop) struct deadline deadline;
    size_t size = 0;

    deadline_push(&deadline, SNIFF_TIMEOUT_MS);
    while (size < SNIFF_BYTES && memcmp(first, http2_preface, size) == 0) {
        ssize_t n = await_read(stream, first + size, SNIFF_BYTES - size);
        if (n <= 0)
            return false;
        size += (size_t)n;
    }
    *ret_size = size;
    *ret_http2 = size == SNIFF_BYTES && memcmp(first, http2_preface, size) == 0;
    return true;
}

static void log_peer(int fd)
{
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0)
        log_debug("connection", LOG("pid", peer.pid), LOG("uid", peer.uid));
}

static bool connection_task(void *arg, struct error *err UNUSED)
{
    struct connection connection = *(struct connection *)arg;
    char first[SNIFF_BYTES];
    size_t size = 0;
    bool http2 = false;
    int fd;

    free(arg);
    log_peer(connection.fd);
    {
        CLEANUP(stream_cleanup) struct stream *stream = stream_new(connection.fd);
        if (!await_sniff(stream, first, &size, &http2))
            return true;
        fd = stream_release(TAKE(stream));
    }
    if (http2)
        await_grpc_serve(connection.server->grpc, fd, first, size);
    else
        await_http1_serve(connection.server->engines, fd, first, size);
    return true; /* what goes wrong on a connection is told to its client */
}

static void start_connection(struct server *server, int fd)
{
    CLEANUP_ERROR struct error err = {0};
    struct connection *connection = xcalloc(1, sizeof(*connection));

    connection->server = server;
    connection->fd = fd;
    if (task_spawn(&server->connections, "connection", NULL, connection_task, connection, &err))
        return;
    log_warn("connection refused", LOG("error", err.message));
    close(fd);
    free(connection);
}

struct acceptor {
    struct server *server;
    struct stream *listener;
};

static bool accept_task(void *arg, struct error *err UNUSED)
{
    const struct acceptor *acceptor = arg;

    for (;;) {
        int fd = await_accept(acceptor->listener);
        if (fd >= 0) {
            start_connection(acceptor->server, fd);
            continue;
        }
        if (fd != -ECANCELED)
            log_warn("cannot accept a connection", LOG("error", strerror(-fd)));
        if (fd == -ECANCELED || await_sleep(ACCEPT_RETRY_MS) < 0)
            return true;
    }
}

/* --- The server ------------------------------------------------------------------------------- */

static bool open_listeners(struct server *server, struct error *err)
{
    const struct config *config = server->engines->config;

    if (!listeners_from_systemd(server->listeners, &server->listener_count, err))
        return false;
    for (char **host = config->hosts; *host; host++) {
        if (server->listener_count > 0 || str_starts(*host, "fd://"))
            continue; /* systemd's sockets are the sockets */
        if (server->listener_count == LISTENERS_MAX)
            return error_set(err, ERROR_INVALID_ARGUMENT, NULL, "more than %d hosts",
                             LISTENERS_MAX);
        if (!listener_open(*host, config->group, &server->listeners[server->listener_count], err))
            return false;
        server->listener_count++;
    }
    if (server->listener_count > 0)
        return true;
    error_set(err, ERROR_FAILED_PRECONDITION, NULL,
              "no sockets to listen on: systemd passed none for fd://");
    return error_hint(err, "start davitd through davitd.socket, or with --host unix:///path");
}

struct server *server_new(const struct engines *engines, struct error *err)
{
    struct server *server = xcalloc(1, sizeof(*server));

    server->engines = engines;
    group_init(&server->connections);
    if (!open_listeners(server, err))
        return server_free(server);
    server->grpc = grpc_server_new();
    grpc_server_set_descriptors(server->grpc, davit_v1_descriptors,
                                (size_t)(davit_v1_descriptors_end - davit_v1_descriptors));
    handlers_system_add(server->grpc, engines);
    handlers_images_add(server->grpc, engines);
    handlers_containers_add(server->grpc, engines);
    handlers_events_add(server->grpc, engines);
    handlers_jobs_add(server->grpc, engines);
    handlers_registries_add(server->grpc, engines);
    return server;
}

bool await_server_run(struct server *server, uint64_t grace_ms, struct error *err)
{
    struct acceptor acceptors[LISTENERS_MAX];
    struct group accepting;
    bool ok = true;

    group_init(&accepting);
    for (size_t i = 0; i < server->listener_count && ok; i++) {
        acceptors[i] = (struct acceptor){server, server->listeners[i].stream};
        ok = task_spawn(&accepting, "accept", NULL, accept_task, &acceptors[i], err);
    }
    if (ok) {
        grpc_server_set_serving(server->grpc, true);
        ok = await_group(&accepting, err);
    }
    group_done_await(&accepting);
    {
        CLEANUP(task_unshield) struct task_shield shield = task_shield();
        grpc_server_set_serving(server->grpc, false);
        grpc_server_drain(server->grpc);
        /* First the jobs, so that their watchers are told before they are sent away. */
        job_table_stop_await(server->engines->jobs, grace_ms / 2);
        await_group_idle(&server->connections, grace_ms / 2);
        group_done_await(&server->connections);
    }
    return ok;
}

struct server *server_free(struct server *server)
{
    if (!server)
        return NULL;
    grpc_server_free(server->grpc);
    for (size_t i = 0; i < server->listener_count; i++)
        listener_done(&server->listeners[i]);
    free(server);
    return NULL;
}
