/* The daemon's face: sockets, the sniffing of what a client speaks, and the handlers that translate
 * requests into engine calls. Begin with server_new() and await_server_run(); to add an RPC, with
 * the table at the end of handlers_<service>.c. */
#pragma once

#include "daemon/config.h"
#include "daemon/container/container.h"
#include "daemon/image/pull.h"
#include "daemon/image/push.h"
#include "daemon/job/job.h"
#include "daemon/store/store.h"
#include "daemon/system/info.h"

/* What handlers work with; all borrowed. */
struct engines {
    const struct config *config;
    const struct system_info *info;
    struct store *store;
    struct pull_engine pull;
    struct push_engine *push;
    struct container_engine *containers;
    struct job_table *jobs;
};

struct server;

/* Opens the configured sockets: from systemd where it passes any, otherwise as the hosts say. A
 * stale socket is replaced; a live one is an error (ALREADY_EXISTS, SOCKET_IN_USE). */
struct server *server_new(const struct engines *engines, struct error *err);

/* Accepts and serves until the task is cancelled. Then no new call is taken, those that run have
 * grace_ms to end before they are cancelled too. Suspends. */
bool await_server_run(struct server *server, uint64_t grace_ms, struct error *err);

/* Closes the sockets and removes those that it made. Returns NULL. */
struct server *server_free(struct server *server);
