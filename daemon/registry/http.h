/* HTTP(S) requests on the loop, through libcurl's multi-socket interface.
 *
 * Nouns: the *http client* holds connections and is set up at the first request; a *request* is
 * one exchange, without redirects; a *response* is its status, its headers, and a body that comes
 * as it is read. Begin with await_http_open(), or with await_http_fetch() for small bodies.
 *
 * Only HTTP/1.1: several large bodies at once then have a connection each, and a body that is not
 * read stays in the kernel's buffers, where HTTP/2 in libcurl keeps up to 32 MiB per stream. */
#pragma once

#include <openssl/types.h>

#include "proto/async/task.h"
#include "proto/base/strbuf.h"

#define HTTP_MAX_HEADER_BYTES (64 * KIB)

struct http;

struct http_options {
    const char *user_agent;
    /* A server that does not answer the connection, and one that sends nothing (or, unless a
     * request says otherwise, next to nothing) while we wait. 0: 30 and 60 seconds. */
    uint64_t connect_timeout_ms, stall_timeout_ms;
};

struct http *http_new(const struct http_options *options);
struct http *http_free(struct http *http); /* no response open; returns NULL */

/* How the server proves who it is, and how we do. */
struct http_tls {
    bool verify;
    X509_STORE *roots; /* borrowed until the response's headers are there; NULL without verify */
    /* Which roots those are, where they are not the host's usual ones: a connection that was made
     * with others is not used for this request. */
    const char *roots_name;
    const char *certificate_file, *key_file; /* NULL: none */
};

/* What a request sends. It is asked for as the connection takes it, from offset 0 on; again from
 * another offset where a connection turns out to be dead. */
struct http_body {
    uint64_t size_bytes;
    /* Puts the bytes from offset on into buffer: at least one, at most size of them. May suspend,
     * which the server is not blamed for. -1 with err ends the request. */
    ssize_t (*await_read)(void *arg, uint64_t offset, void *buffer, size_t size, struct error *err);
    void *arg;
};

/* How slow a body may come: less than so many bytes per second over so long a time spent waiting
 * for it is TOO_SLOW. Time in which nobody reads does not count. 0: the http client's own. */
struct http_flow {
    uint64_t low_speed_bytes_per_s, low_speed_ms;
};

struct http_request {
    const char *url;              /* http or https, without user and password */
    const char *method;           /* NULL: GET, or POST with post_body */
    const char *const *headers;   /* "Name: value", NULL-terminated; may be NULL */
    const char *post_body;        /* a form; NULL: none */
    const struct http_body *body; /* of a POST, PUT or PATCH; NULL: none */
    uint64_t answer_grace_ms;     /* how much more than the stall timeout, once all is sent */
    bool own_connection;          /* a new one, which nobody uses afterwards */
    uint64_t connect_timeout_ms;  /* 0: the client's */
    const char *proxy;            /* a URL; NULL: as the environment has it */
    struct http_tls tls;
    struct http_flow flow;
};

struct http_response;

/* Sends it and waits for the response's headers; a refusal may come before all is sent. Errors are
 * those of the body, and UNAVAILABLE with one of these reasons, which
 * name host and port, never a credential:
 * - CONNECTION_REFUSED: nothing was sent, for no connection came about (refused, unknown host,
 *   timeout, no route, proxy);
 * - NOT_TLS: the server does not speak TLS on that port;
 * - UNTRUSTED: the server's certificate is not trusted, or not for this host;
 * - TLS_FAILED: any other failure of TLS;
 * - CONNECTION_LOST: it broke off before the headers were complete;
 * - STALLED: no headers came in time, or the server took next to nothing of the body;
 * and FAILED_PRECONDITION, reason REGISTRY_PROTOCOL, for headers that are no HTTP or too many.
 * Cancel aborts the exchange. */
struct http_response *await_http_open(struct http *http, const struct http_request *request,
                                      struct error *err);

/* Frees it. A connection whose body has not been read to its end is closed. Returns NULL. */
struct http_response *http_response_free(struct http_response *response);
static inline void http_response_cleanup(struct http_response **response)
{
    *response = http_response_free(*response);
}

int http_status(const struct http_response *response);

/* A header's value, or NULL. With several of one name: the index-th. Owned by the response. */
const char *http_header(const struct http_response *response, const char *name, size_t index);

/* Bytes of the body, 0 at its end, -1 with err: UNAVAILABLE with TRUNCATED if the connection was
 * closed before the end, CONNECTION_LOST if it broke, STALLED, TOO_SLOW. Waits until there is a
 * byte. What is not read is not received: the server waits. */
ssize_t await_http_read(struct http_response *response, void *buffer, size_t size,
                        struct error *err);

/* Lets the kernel receive only about that much ahead of the reader; 0: as much as it likes. */
void http_limit_buffer(struct http_response *response, size_t size_bytes);

/* Appends the rest of the body to ret. Longer than limit_bytes: RESOURCE_EXHAUSTED with reason
 * BODY_TOO_LARGE. */
bool await_http_body(struct http_response *response, size_t limit_bytes, struct strbuf *ret,
                     struct error *err);
