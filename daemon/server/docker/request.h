/* HTTP/1 requests of the Docker Engine API: a parser without I/O around llhttp. */
#pragma once

#include "proto/base/strbuf.h"

#include <llhttp.h>

#define REQUEST_HEADER_MAX (64 * KIB)
#define REQUEST_BODY_MAX (4 * MIB)

struct request {
    llhttp_t parser;
    struct strbuf url;
    size_t header_bytes, body_bytes;
    bool complete, keep_alive;
    int refusal; /* HTTP status to refuse it with; 0 while it is fine */
};

void request_init(struct request *request);
void request_done(struct request *request);

/* Feeds bytes as they come. Returns how many it took: all, or as far as the end of one request
 * (then `complete`), or up to where it is refused (then `refusal`: 400, 413, 431, 501). */
size_t request_feed(struct request *request, const char *data, size_t size);

/* "GET", ...; static. */
const char *request_method(const struct request *request);

/* The path without query and without a leading "/v1.43": "/_ping". The caller frees it. */
char *request_path(const struct request *request);
