/* Bodies of requests: pieces that libcurl takes from while the task fetches the next. */
#include "daemon/registry/http_internal.h"
#include "proto/async/loop.h"

#define PIECE_BYTES (128 * KIB)

/* CURLOPT_READFUNCTION: what there is of the piece; without any, libcurl pauses. */
static size_t on_send(char *buffer, size_t size, size_t count, void *arg)
{
    struct http_response *response = arg;
    uint64_t end = response->piece_offset + response->piece_size;
    bool inside = response->send_offset >= response->piece_offset && response->send_offset < end;
    size_t taken = inside ? MIN(size * count, end - response->send_offset) : 0;

    if (response->body && response->send_offset == response->body->size_bytes)
        return 0;
    if (taken) {
        memcpy(buffer, response->piece + (response->send_offset - response->piece_offset), taken);
        response->send_offset += taken;
    } else {
        response->starved = true;
    }
    wake_all(&response->changed);
    return taken ? taken : CURL_READFUNC_PAUSE;
}

/* CURLOPT_SEEKFUNCTION: a kept connection was dead, the next one gets the body from here. */
static int on_seek(void *arg, curl_off_t offset, int origin UNUSED)
{
    struct http_response *response = arg;

    response->send_offset = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

void http_set_method(struct http_response *response, const struct http_request *request)
{
    CURL *easy = response->easy;
    const char *method = request->method;

    if (request->post_body) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long)strlen(request->post_body));
        curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, request->post_body);
    } else if (str_eq(method, "HEAD")) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else if (str_eq(method, "POST") || str_eq(method, "PUT") || str_eq(method, "PATCH")) {
        uint64_t size_bytes = request->body ? request->body->size_bytes : 0;
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)size_bytes);
        curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)PIECE_BYTES);
        curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_send);
        curl_easy_setopt(easy, CURLOPT_READDATA, response);
        curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(easy, CURLOPT_SEEKDATA, response);
        response->body = size_bytes ? request->body : NULL;
    } else if (str_eq(method, "DELETE")) {
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
    } else {
        CHECK(!method || str_eq(method, "GET"));
    }
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, (long)request->own_connection);
    curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, (long)request->own_connection);
}

/* Fetches the next piece, and has libcurl go on. */
static bool await_piece(struct http_response *response, struct error *err)
{
    const struct http_body *body = response->body;
    uint64_t offset = response->send_offset;
    ssize_t n;

    response->starved = false;
    if (!response->piece)
        response->piece = xmalloc(PIECE_BYTES);
    response->piece_size = 0; /* while it is being written */
    n = body->await_read(body->arg, offset, response->piece,
                         MIN(PIECE_BYTES, body->size_bytes - offset), err);
    if (n < 0)
        return false;
    CHECK(n > 0);
    response->piece_offset = offset;
    response->piece_size = (size_t)n;
    curl_easy_pause(response->easy, CURLPAUSE_CONT);
    return true;
}

bool http_await_headers(struct http_response *response, uint64_t answer_grace_ms, struct error *err)
{
    const struct http *http = response->http;
    uint64_t timeout_ms = http->connect_timeout_ms + http->stall_timeout_ms;
    bool begun = false;

    while (response->phase == RESPONSE_HEADERS) {
        uint64_t started_ms = loop_now_ms(), offset = response->send_offset;
        if (response->starved) {
            begun = true; /* it is connected */
            if (!await_piece(response, err))
                return false;
            continue;
        }
        /* Once all is sent, the answer is waited for; if the connection turns out to have been dead
         * by then, libcurl sends all of it again. */
        if (begun)
            timeout_ms = http->stall_timeout_ms + (http_is_sending(response) ? 0 : answer_grace_ms);
        if (!http_await_change(response, timeout_ms, "waiting for a registry", err))
            return false;
        if (response->send_offset > offset &&
            !http_check_speed(response, loop_now_ms() - started_ms, response->send_offset - offset,
                              err))
            return false;
    }
    if (http_is_sending(response) && response->status >= 200 && response->status < 300)
        response->refusal = "it answers before it was sent all";
    response->body = NULL;
    response->waited_ms = response->waited_bytes = 0;
    free(TAKE(response->piece));
    response->piece_size = 0;
    return response->refusal && response->status ? http_failed(response, err) : true;
}
