/* Listening sockets: unix sockets of our own, or systemd's (sd_listen_fds(3)). */
#pragma once

#include "proto/async/stream.h"

struct listener {
    struct stream *stream;
    char *path; /* of a socket to remove at the end; NULL if it is systemd's */
};

/* Opens a socket for "unix:///path": mode 0660, owner root, the given group (NULL: root). A socket
 * nobody listens on is replaced; one that answers is ALREADY_EXISTS (SOCKET_IN_USE). */
bool listener_open(const char *host, const char *group, struct listener *ret, struct error *err);

/* The sockets systemd passed, as many as there are (at most LISTENERS_MAX). */
#define LISTENERS_MAX 16
bool listeners_from_systemd(struct listener *listeners, size_t *ret_count, struct error *err);

void listener_done(struct listener *listener);
