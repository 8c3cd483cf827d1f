/* Shared between http.c, http_send.c and http_failure.c only. */
#pragma once

#include <curl/curl.h>

#include "daemon/registry/http.h"

struct http {
    char *user_agent;
    uint64_t connect_timeout_ms, stall_timeout_ms;
    CURLM *multi; /* NULL while idle */
    struct loop_timer curl_timer, idle_timer;
    int *sockets; /* that are open */
    size_t socket_count;
    size_t open_count;
    bool initialised;
};

enum response_phase { RESPONSE_HEADERS, RESPONSE_BODY, RESPONSE_END };

struct response_header {
    char *name, *value;
};

struct http_response {
    struct http *http;
    CURL *easy;
    struct curl_slist *headers_out;
    char *host_port; /* for errors */
    char error_text[CURL_ERROR_SIZE];
    X509_STORE *roots;
    enum response_phase phase;
    CURLcode result;     /* once at its end */
    const char *refusal; /* why we broke it off */
    int status;
    struct response_header *headers;
    size_t header_count, header_bytes;
    struct wait_queue changed;
    /* Where a waiting reader wants its bytes, and what came beyond that. */
    uint8_t *reader;
    size_t reader_size, reader_filled;
    struct strbuf leftover;
    bool paused;
    /* The request's body: what libcurl takes from, until the headers are there. */
    const struct http_body *body; /* NULL: there is none, or no longer */
    uint8_t *piece;
    size_t piece_size;
    uint64_t piece_offset, send_offset; /* where it lies in the body; what is to be sent next */
    bool starved;                       /* libcurl wants more than the piece has */
    struct http_flow flow;
    uint64_t waited_ms, waited_bytes; /* since the last look at the speed */
    uint64_t quiet_ms;                /* waited without a byte */
};

/* Waits for a change for at most timeout_ms. False with STALLED, or with the task's own end. */
bool http_await_change(struct http_response *response, uint64_t timeout_ms, const char *reason,
                       struct error *err);

/* Sums up the waiting for bytes either way: what moved meanwhile must not be next to nothing. False
 * with STALLED or TOO_SLOW. */
bool http_check_speed(struct http_response *response, uint64_t waited_ms, uint64_t bytes,
                      struct error *err);

/* --- http_send.c: bodies of requests -----------------------------------------------------------
 */

/* Sets libcurl's options for the request's method and body. */
void http_set_method(struct http_response *response, const struct http_request *request);

/* Whether some of the body is still to be taken. */
static inline bool http_is_sending(const struct http_response *response)
{
    return response->body && response->send_offset < response->body->size_bytes;
}

/* Sends the body, as far as the server takes it, and waits for the response's headers, or its end.
 */
bool http_await_headers(struct http_response *response, uint64_t answer_grace_ms,
                        struct error *err);

/* --- http_failure.c: what an exchange that has ended tells the user ----------------------------
 */

/* That libcurl ended it with an error. Returns false. */
bool http_failed(const struct http_response *response, struct error *err);

/* That nothing moved for so long; `what` did not: "came". Returns false. */
bool http_stalled(const struct http_response *response, const char *what, uint64_t timeout_ms,
                  struct error *err);

/* That next to nothing moved since the last look at the speed. Returns false. */
bool http_too_slow(const struct http_response *response, struct error *err);
