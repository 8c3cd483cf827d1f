/* The Docker Engine API over HTTP/1. For now it answers what clients ask first, so that they see
 * whom they talk to: /_ping and /version; everything else is 404 in Docker's form. */
#pragma once

#include "daemon/server/server.h"

/* Serves one connection in the current task until it ends. Owns fd; `first` was read from it. */
void await_http1_serve(const struct engines *engines, int fd, const char *first, size_t first_size);
