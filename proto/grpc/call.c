#include <errno.h>
#include <stdio.h>

#include "proto/async/loop.h"
#include "proto/grpc/codec.h"
#include "proto/grpc/internal.h"
#include "proto/grpc/status.h"

/* --- Bytes waiting ---------------------------------------------------------------------------- */

/* Memory that an empty fifo may keep. */
#define FIFO_KEEP_BYTES (16 * KIB)

void fifo_done(struct fifo *fifo)
{
    strbuf_done(&fifo->bytes);
    fifo->start = 0;
}

uint8_t *fifo_extend(struct fifo *fifo, size_t size)
{
    uint8_t *end;

    /* Rather than grow, move what is left to the front, if that is not much. */
    if (fifo->bytes.length + size >= fifo->bytes.capacity && fifo->start >= fifo_size(fifo) / 4) {
        strbuf_consume(&fifo->bytes, fifo->start);
        fifo->start = 0;
    }
    strbuf_reserve(&fifo->bytes, size);
    end = (uint8_t *)fifo->bytes.data + fifo->bytes.length;
    fifo->bytes.length += size;
    return end;
}

void fifo_drop(struct fifo *fifo, size_t size)
{
    fifo->start += size;
    if (fifo_size(fifo))
        return;
    fifo->start = 0;
    if (fifo->bytes.capacity > FIFO_KEEP_BYTES)
        strbuf_done(&fifo->bytes);
    else
        strbuf_clear(&fifo->bytes);
}

/* --- Life cycle ------------------------------------------------------------------------------- */

struct grpc_call *call_new(struct connection *connection, int32_t stream_id)
{
    struct grpc_call *call = xcalloc(1, sizeof(*call));

    call->refs = 1; /* the stream's */
    call->connection = connection_ref(connection);
    call->stream_id = stream_id;
    call->attached = true;
    call->started_ms = loop_now_ms();
    wait_queue_init(&call->changed);
    list_init(&call->node);
    list_append(&connection->calls, &call->node);
    connection_arm(connection);
    return call;
}

struct grpc_call *call_ref(struct grpc_call *call)
{
    call->refs++;
    return call;
}

struct grpc_call *call_unref(struct grpc_call *call)
{
    if (!call || --call->refs)
        return NULL;
    loop_timer_stop(&call->timer);
    for (size_t i = 0; i < call->header_count; i++) {
        free(call->headers[i].key);
        free(call->headers[i].value);
    }
    free(call->headers);
    fifo_done(&call->in);
    fifo_done(&call->out);
    error_done(&call->status);
    connection_unref(call->connection);
    free(call);
    return NULL;
}

/* From now on nothing is sent; what has been received can still be taken. */
static void call_end(struct grpc_call *call, struct error *status)
{
    if (call->ended)
        return;
    call->ended = call->remote_done = call->send_closed = true;
    if (status)
        error_move(&call->status, status);
    loop_timer_stop(&call->timer);
    if (call->task)
        task_cancel(call->task);
    wake_all(&call->changed);
}

void call_detach(struct grpc_call *call, struct error *status)
{
    if (!call->attached)
        return;
    call->attached = false;
    list_remove(&call->node);
    if (!call->connection->ended)
        nghttp2_session_set_stream_user_data(call->connection->session, call->stream_id, NULL);
    call_end(call, status);
    call_unref(call);
}

void call_fail(struct grpc_call *call, uint32_t http2_error, struct error *status)
{
    call_end(call, status);
    if (!call->attached)
        return;
    nghttp2_submit_rst_stream(call->connection->session, NGHTTP2_FLAG_NONE, call->stream_id,
                              http2_error);
    connection_flush(call->connection);
}

struct grpc_call *grpc_call_free(struct grpc_call *call)
{
    CLEANUP_ERROR struct error status = {0};

    if (!call)
        return NULL;
    if (!call->ended) {
        error_set(&status, ERROR_CANCELLED, NULL, "the call was cancelled");
        call_fail(call, NGHTTP2_CANCEL, &status);
    }
    return call_unref(call);
}

/* --- Headers ---------------------------------------------------------------------------------- */

void call_add_header(struct grpc_call *call, const char *key, const uint8_t *value, size_t size)
{
    struct strbuf text = {0};
    struct header *header;

    if (str_ends(key, "-bin")) {
        CLEANUP_FREE char *encoded = xstrndup((const char *)value, size);
        if (!grpc_base64_decode(&text, encoded)) {
            strbuf_done(&text);
            return;
        }
    } else {
        strbuf_add(&text, value, size);
    }
    call->headers = xrealloc(call->headers, (call->header_count + 1) * sizeof(*call->headers));
    header = &call->headers[call->header_count++];
    *header = (struct header){.key = xstrdup(key), .value_size = text.length};
    header->value = strbuf_take(&text);
}

const struct header *call_header(const struct grpc_call *call, const char *key)
{
    for (size_t i = 0; i < call->header_count; i++) {
        if (strcmp(call->headers[i].key, key) == 0)
            return &call->headers[i];
    }
    return NULL;
}

const char *call_header_value(const struct grpc_call *call, const char *key)
{
    const struct header *header = call_header(call, key);

    return header ? header->value : NULL;
}

const char *grpc_call_metadata(const struct grpc_call *call, const char *key)
{
    return call_header_value(call, key);
}

const char *grpc_call_peer(const struct grpc_call *call)
{
    return call->connection->peer;
}

nghttp2_nv header_nv(const char *key, const char *value)
{
    return (nghttp2_nv){
        .name = (uint8_t *)key,
        .value = (uint8_t *)value,
        .namelen = strlen(key),
        .valuelen = strlen(value),
    };
}

/* --- Sending ---------------------------------------------------------------------------------- */

static void submit_trailers(struct grpc_call *call)
{
    struct status_headers headers;
    nghttp2_nv nv[5];
    size_t count = 0;

    status_headers_make(&headers, &call->status);
    if (!call->headers_sent) {
        nv[count++] = header_nv(":status", "200");
        nv[count++] = header_nv("content-type", "application/grpc");
    }
    nv[count++] = header_nv("grpc-status", headers.code);
    if (headers.message)
        nv[count++] = header_nv("grpc-message", headers.message);
    if (headers.details)
        nv[count++] = header_nv("grpc-status-details-bin", headers.details);
    if (call->headers_sent)
        nghttp2_submit_trailer(call->connection->session, call->stream_id, nv, count);
    else
        nghttp2_submit_response(call->connection->session, call->stream_id, nv, count, NULL);
    status_headers_done(&headers);
}

/* nghttp2 asks for as many bytes as the peer's windows take. */
static ssize_t on_data_wanted(nghttp2_session *session, int32_t stream_id, uint8_t *buffer,
                              size_t size, uint32_t *flags, nghttp2_data_source *source,
                              void *user_data)
{
    struct grpc_call *call = nghttp2_session_get_stream_user_data(session, stream_id);
    size_t n = call ? MIN(size, fifo_size(&call->out)) : 0;

    (void)source, (void)user_data;
    if (!call) /* detached: the connection is ending, the stream only waits to be closed */
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (n == 0 && !call->send_closed)
        return NGHTTP2_ERR_DEFERRED;
    if (n) {
        memcpy(buffer, fifo_front(&call->out), n);
        fifo_drop(&call->out, n);
        wake_all(&call->changed);
    }
    if (call->send_closed && fifo_size(&call->out) == 0) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (call->connection->server) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            submit_trailers(call);
        }
    }
    return (ssize_t)n;
}

const nghttp2_data_provider call_data_provider = {.read_callback = on_data_wanted};

static void resume_sending(struct grpc_call *call)
{
    nghttp2_session_resume_data(call->connection->session, call->stream_id);
    connection_flush(call->connection);
}

static void send_response_headers(struct grpc_call *call)
{
    const nghttp2_nv nv[] = {
        header_nv(":status", "200"),
        header_nv("content-type", "application/grpc"),
    };

    call->headers_sent = true;
    nghttp2_submit_response(call->connection->session, call->stream_id, nv, ARRAY_SIZE(nv),
                            &call_data_provider);
}

/* Why an await of this call fails, from the negative errno of the task or the call's own end. */
static bool call_error(const struct grpc_call *call, int r, struct error *err)
{
    if (call->ended && error_is_set(&call->status))
        return error_copy(err, &call->status);
    if (r == -ETIMEDOUT)
        return error_set(err, ERROR_DEADLINE_EXCEEDED, NULL, "the deadline has passed");
    if (r < 0)
        return error_set(err, ERROR_CANCELLED, NULL, "the call was cancelled");
    return error_set(err, ERROR_CANCELLED, "CALL_ENDED", "the call has already ended");
}

/* Waits for room, and returns the place of the message's bytes; NULL with err. */
static uint8_t *await_place(struct grpc_call *call, size_t size, struct error *err)
{
    uint8_t *frame;
    int r = await_slice();

    if (size > GRPC_MAX_MESSAGE) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE",
                  "a message of %zu bytes is to be sent, the limit is %zu", size,
                  (size_t)GRPC_MAX_MESSAGE);
        return NULL;
    }
    while (r == 0 && !call->send_closed && fifo_size(&call->out) >= SEND_QUEUE)
        r = await_wake(&call->changed, "sending a gRPC message");
    if (r < 0 || call->send_closed) {
        call_error(call, r, err);
        return NULL;
    }
    frame = fifo_extend(&call->out, GRPC_PREFIX_BYTES + size);
    grpc_prefix_write(frame, (uint32_t)size);
    return frame + GRPC_PREFIX_BYTES;
}

static void send_placed(struct grpc_call *call)
{
    if (call->connection->server && !call->headers_sent)
        send_response_headers(call);
    resume_sending(call);
}

bool await_grpc_send(struct grpc_call *call, const ProtobufCMessage *message, struct error *err)
{
    uint8_t *place;

    CHECK(!call->out_type || message->descriptor == call->out_type);
    place = await_place(call, protobuf_c_message_get_packed_size(message), err);
    if (!place)
        return false;
    protobuf_c_message_pack(message, place);
    send_placed(call);
    return true;
}

bool await_grpc_send_packed(struct grpc_call *call, const void *data, size_t size,
                            struct error *err)
{
    uint8_t *place = await_place(call, size, err);

    if (!place)
        return false;
    if (size)
        memcpy(place, data, size);
    send_placed(call);
    return true;
}

bool await_grpc_sent(struct grpc_call *call, struct error *err)
{
    int r = task_check();

    while (r == 0 && !call->ended && fifo_size(&call->out) > 0)
        r = await_wake(&call->changed, "sending a gRPC message");
    return (r == 0 && !call->ended) || call_error(call, r, err);
}

bool await_grpc_close_send(struct grpc_call *call, struct error *err)
{
    int r = task_check();

    if (r < 0 || call->ended)
        return call_error(call, r, err);
    call->send_closed = true;
    resume_sending(call);
    return true;
}

void call_finish(struct grpc_call *call, const struct error *status)
{
    if (call->ended)
        return;
    error_copy(&call->status, status);
    call->ended = call->send_closed = true;
    if (call->headers_sent)
        resume_sending(call);
    else
        submit_trailers(call);
    connection_flush(call->connection);
}

void call_reject_http(struct grpc_call *call, const char *http_status)
{
    const nghttp2_nv nv[] = {header_nv(":status", http_status)};

    call->ended = call->send_closed = true;
    nghttp2_submit_response(call->connection->session, call->stream_id, nv, ARRAY_SIZE(nv), NULL);
    connection_flush(call->connection);
}

/* --- Receiving -------------------------------------------------------------------------------- */

/* Gives the peer's window back all but `keep` of the bytes that were received. */
static void grant_window(struct grpc_call *call, size_t keep)
{
    if (call->in_owed <= keep)
        return;
    if (call->attached) {
        nghttp2_session_consume_stream(call->connection->session, call->stream_id,
                                       call->in_owed - keep);
        connection_flush(call->connection);
    }
    call->in_owed = keep;
}

void grpc_call_set_window(struct grpc_call *call, size_t bytes)
{
    nghttp2_session *session = call->connection->session;

    if (!call->attached)
        return;
    nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, (int32_t)bytes);
    nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, call->stream_id,
                                          (int32_t)bytes);
    connection_flush(call->connection);
}

/* Unpacked messages can be many times larger than packed ones. */
struct budget {
    ProtobufCAllocator allocator;
    size_t left;
};

static void *budget_alloc(void *data, size_t size)
{
    struct budget *budget = data;
    size_t cost = size + 2 * sizeof(size_t);

    if (cost > budget->left)
        return NULL;
    budget->left -= cost;
    return xmalloc(size);
}

static void budget_free(void *data, void *ptr)
{
    (void)data;
    free(ptr);
}

static int unpack_message(const struct grpc_call *call, const uint8_t *data, size_t size,
                          ProtobufCMessage **ret, struct error *err)
{
    struct budget budget = {{budget_alloc, budget_free, &budget}, MAX_UNPACKED};

    *ret = protobuf_c_message_unpack(call->in_type, &budget.allocator, size, data);
    if (*ret)
        return 1;
    error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_MESSAGE",
              "what came is not a valid %s, or has too many parts", call->in_type->name);
    return -1;
}

/* One message out of what has arrived: 1, 0 if it is not complete, -1. */
static int take_message(struct grpc_call *call, ProtobufCMessage **ret, struct error *err)
{
    size_t size = 0;
    int r =
        grpc_prefix_read(fifo_front(&call->in), fifo_size(&call->in), GRPC_MAX_MESSAGE, &size, err);

    if (r < 0 || (r > 0 && fifo_size(&call->in) < GRPC_PREFIX_BYTES + size))
        return MIN(r, 0);
    if (r == 0)
        return 0;
    r = unpack_message(call, fifo_front(&call->in) + GRPC_PREFIX_BYTES, size, ret, err);
    fifo_drop(&call->in, GRPC_PREFIX_BYTES + size);
    grant_window(call, fifo_size(&call->in));
    return r;
}

/* The peer's stream has ended and all complete messages have been taken. */
static int end_of_stream(const struct grpc_call *call, struct error *err)
{
    if (error_is_set(&call->status)) {
        error_copy(err, &call->status);
        return -1;
    }
    if (fifo_size(&call->in)) {
        error_set(err, ERROR_INTERNAL, NULL, "the stream ended in the middle of a message");
        return -1;
    }
    return 0;
}

static void fail_receiving(struct grpc_call *call, const struct error *err)
{
    CLEANUP_ERROR struct error status = {0};

    if (call->connection->server) /* the handler returns it, and it becomes the status */
        return;
    error_copy(&status, err);
    call_fail(call, NGHTTP2_CANCEL, &status);
}

int await_grpc_recv(struct grpc_call *call, ProtobufCMessage **ret, struct error *err)
{
    CLEANUP_ERROR struct error failure = {0};
    int r = await_slice();

    *ret = NULL;
    while (r == 0) {
        int taken = take_message(call, ret, &failure);
        if (taken < 0)
            fail_receiving(call, &failure);
        if (taken < 0)
            error_move(err, &failure);
        if (taken != 0)
            return taken;
        if (call->connection->server ? call->remote_done : call->ended)
            return end_of_stream(call, err);
        grant_window(call, 0); /* somebody wants this message: let all of it come */
        r = await_wake(&call->changed, "receiving a gRPC message");
    }
    call_error(call, r, err);
    return -1;
}

ProtobufCMessage *await_grpc_request(struct grpc_call *call, struct error *err)
{
    ProtobufCMessage *request = NULL;

    if (await_grpc_recv(call, &request, err) == 0)
        error_set(err, ERROR_INVALID_ARGUMENT, NULL, "the client sent no request");
    return request;
}

/* --- The status a client sees ----------------------------------------------------------------- */

void call_on_response_headers(struct grpc_call *call, bool end_stream)
{
    CLEANUP_ERROR struct error status = {0};
    const struct header *details = call_header(call, "grpc-status-details-bin");
    const char *code = call_header_value(call, "grpc-status");

    if (!end_stream)
        return;
    if (code)
        status_parse(code, call_header_value(call, "grpc-message"), details ? details->value : NULL,
                     details ? details->value_size : 0, &status);
    else
        call_status_of_http2(call, NGHTTP2_NO_ERROR, &status);
    /* The server wants no more of our messages, sent or not. */
    if (nghttp2_session_get_stream_local_close(call->connection->session, call->stream_id) == 0)
        call_fail(call, NGHTTP2_NO_ERROR, &status);
    else
        call_end(call, &status);
}

/* https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md */
static enum error_code code_of_http_status(const char *http_status)
{
    switch (http_status ? atoi(http_status) : 0) {
    case 400:
        return ERROR_INTERNAL;
    case 401:
        return ERROR_UNAUTHENTICATED;
    case 403:
        return ERROR_PERMISSION_DENIED;
    case 404:
        return ERROR_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return ERROR_UNAVAILABLE;
    default:
        return ERROR_UNKNOWN;
    }
}

void call_status_of_http2(const struct grpc_call *call, uint32_t http2_error, struct error *ret)
{
    const char *peer = call->connection->peer;
    const char *http_status = call_header_value(call, ":status");

    switch (http2_error) {
    case NGHTTP2_NO_ERROR:
        if (http_status && !str_eq(http_status, "200"))
            error_set(ret, code_of_http_status(http_status), NULL,
                      "%s answered with HTTP status %s instead of gRPC", peer, http_status);
        else
            error_set(ret, ERROR_UNKNOWN, NULL, "%s ended the call without a status", peer);
        break;
    case NGHTTP2_REFUSED_STREAM:
        error_set(ret, ERROR_UNAVAILABLE, NULL, "%s takes no calls at the moment", peer);
        error_hint(ret, "it is being stopped or is overloaded: try again");
        break;
    case NGHTTP2_CANCEL:
        error_set(ret, ERROR_CANCELLED, NULL, "%s cancelled the call", peer);
        break;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        error_set(ret, ERROR_RESOURCE_EXHAUSTED, NULL, "%s asks for fewer calls", peer);
        break;
    default:
        error_set(ret, ERROR_INTERNAL, NULL, "%s ended the call: HTTP/2 error %s", peer,
                  nghttp2_http2_strerror(http2_error));
    }
}
