#include <errno.h>

#include "proto/async/loop.h"
#include "proto/base/log.h"
#include "proto/grpc/internal.h"

/* Frames are read into one buffer and written from one per busy connection: an idle connection
 * holds neither. */
#define READ_BYTES (64 * KIB)
#define WRITE_BATCH_BYTES (64 * KIB)

struct grpc_timeouts grpc_timeouts = {
    .header_ms = 10000,
    .idle_ms = 120000,
    .ping_ms = 20000,
    .flush_ms = 1000,
};

/* --- Life cycle ------------------------------------------------------------------------------- */

static nghttp2_session *session_new(struct connection *connection);

struct connection *connection_new(int fd, struct grpc_server *server, char *peer)
{
    struct connection *connection = xcalloc(1, sizeof(*connection));

    connection->refs = 1;
    connection->server = server;
    connection->peer = peer;
    connection->stream = stream_new(fd);
    connection->session = session_new(connection);
    connection->started_ms = connection->idle_since_ms = connection->last_read_ms = loop_now_ms();
    connection->nuisance_ms = connection->started_ms;
    list_init(&connection->calls);
    list_init(&connection->node);
    group_init(&connection->handlers);
    group_init(&connection->writers);
    return connection;
}

struct connection *connection_ref(struct connection *connection)
{
    connection->refs++;
    return connection;
}

struct connection *connection_unref(struct connection *connection)
{
    if (!connection || --connection->refs)
        return NULL;
    CHECK(list_empty(&connection->calls));
    loop_timer_stop(&connection->timer);
    nghttp2_session_del(connection->session);
    stream_free(connection->stream);
    error_done(&connection->end);
    free(connection->peer);
    free(connection);
    return NULL;
}

void connection_flush(struct connection *connection)
{
    event_fire(&connection->write_wanted);
}

void connection_stop(struct connection *connection)
{
    connection->eof = true;
    shutdown(stream_fd(connection->stream), SHUT_RD);
}

static void refuse_calls(struct connection *connection)
{
    nghttp2_submit_goaway(connection->session, NGHTTP2_FLAG_NONE,
                          nghttp2_session_get_last_proc_stream_id(connection->session),
                          NGHTTP2_NO_ERROR, NULL, 0);
    connection_flush(connection);
}

static const uint8_t drain_ping[8] = "draining";

/* In two steps, RFC 9113 section 6.8: a client that is just making a call would lose it, and
 * grpcio even breaks the protocol then. What was on its way is here when the ping comes back. */
void connection_drain(struct connection *connection)
{
    if (connection->draining) {
        refuse_calls(connection);
        return;
    }
    connection->draining = true;
    nghttp2_submit_shutdown_notice(connection->session);
    nghttp2_submit_ping(connection->session, NGHTTP2_FLAG_NONE, drain_ping);
    connection_flush(connection);
}

/* --- nghttp2's callbacks ---------------------------------------------------------------------- */

/* Frames that cost us work and the peer nothing. Too many of them end the connection. */
static void count_nuisance(struct connection *connection)
{
    uint64_t now = loop_now_ms();

    if (!connection->server)
        return;
    connection->nuisance -= (double)(now - connection->nuisance_ms) * NUISANCE_PER_SECOND / 1000.0;
    connection->nuisance = MAX(connection->nuisance, 0.0) + 1;
    connection->nuisance_ms = now;
    if (connection->nuisance <= NUISANCE_BURST || error_is_set(&connection->end))
        return;
    nghttp2_session_terminate_session(connection->session, NGHTTP2_ENHANCE_YOUR_CALM);
    error_set(&connection->end, ERROR_RESOURCE_EXHAUSTED, NULL, "the client floods us");
    connection_stop(connection);
}

static struct grpc_call *call_of(const struct connection *connection, int32_t stream_id)
{
    return nghttp2_session_get_stream_user_data(connection->session, stream_id);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct connection *connection = user_data;

    connection->header_since_ms = loop_now_ms();
    connection_arm(connection);
    if (!connection->server || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct grpc_call *call = call_new(connection, frame->hd.stream_id);
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, call);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                     void *user_data)
{
    struct connection *connection = user_data;
    struct grpc_call *call = call_of(connection, frame->hd.stream_id);

    (void)flags;
    if (!call)
        return 0;
    call->header_bytes += name_size + value_size + 32;
    if (call->header_bytes <= MAX_HEADER_BYTES)
        call_add_header(call, (const char *)name, value, value_size);
    else if (call->header_bytes > 4 * MAX_HEADER_BYTES) /* not even worth an answer */
        nghttp2_session_terminate_session(session, NGHTTP2_ENHANCE_YOUR_CALM);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data,
                   size_t size, void *user_data)
{
    struct connection *connection = user_data;
    struct grpc_call *call = call_of(connection, stream_id);

    (void)flags;
    /* What a call has not taken counts against its own window only, so that it cannot starve the
     * others: at most MAX_STREAMS windows are held. */
    nghttp2_session_consume_connection(session, size);
    if (!call) {
        nghttp2_session_consume_stream(session, stream_id, size);
        return 0;
    }
    memcpy(fifo_extend(&call->in, size), data, size);
    call->in_owed += size;
    wake_all(&call->changed);
    return 0;
}

static void on_end_of_stream(struct grpc_call *call)
{
    call->remote_done = true;
    wake_all(&call->changed);
}

static void on_headers_complete(struct connection *connection, const nghttp2_frame *frame)
{
    struct grpc_call *call = call_of(connection, frame->hd.stream_id);
    bool end_stream = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;

    connection->header_since_ms = 0;
    connection_arm(connection);
    if (!call)
        return;
    if (end_stream)
        on_end_of_stream(call);
    if (!connection->server)
        call_on_response_headers(call, end_stream);
    else if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        server_dispatch(call);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct connection *connection = user_data;
    struct grpc_call *call;

    (void)session;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        on_headers_complete(connection, frame);
        break;
    case NGHTTP2_DATA:
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
            if ((call = call_of(connection, frame->hd.stream_id)))
                on_end_of_stream(call);
        } else if (frame->hd.length == 0) {
            count_nuisance(connection);
        }
        break;
    case NGHTTP2_SETTINGS:
        connection->settled = true;
        connection_arm(connection);
        count_nuisance(connection);
        break;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK) {
            connection->ping_since_ms = 0;
            connection->ping_late = false;
            connection_arm(connection);
            if (memcmp(frame->ping.opaque_data, drain_ping, sizeof(drain_ping)) == 0)
                refuse_calls(connection);
        } else {
            count_nuisance(connection);
        }
        break;
    case NGHTTP2_RST_STREAM:
    case NGHTTP2_PRIORITY:
        count_nuisance(connection);
        break;
    case NGHTTP2_GOAWAY:
        connection->goaway_received = true;
        break;
    default:
        break;
    }
    return 0;
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error,
                            void *user_data)
{
    (void)session, (void)frame, (void)error;
    count_nuisance(user_data);
    return 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    const struct connection *connection = user_data;

    /* The status is out: whatever the client still sends is of no use. */
    if (connection->server && frame->hd.type == NGHTTP2_HEADERS &&
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) &&
        nghttp2_session_get_stream_remote_close(session, frame->hd.stream_id) == 0)
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                  NGHTTP2_NO_ERROR);
    return 0;
}

static void close_call(struct grpc_call *call, uint32_t http2_error)
{
    CLEANUP_ERROR struct error status = {0};
    struct connection *connection = call->connection;

    call_status_of_http2(call, http2_error, &status);
    call_detach(call, &status);
    if (list_empty(&connection->calls))
        connection->idle_since_ms = loop_now_ms();
    connection_arm(connection);
}

static int on_stream_closed(nghttp2_session *session, int32_t stream_id, uint32_t http2_error,
                            void *user_data)
{
    struct grpc_call *call = call_of(user_data, stream_id);

    (void)session;
    if (call)
        close_call(call, http2_error);
    return 0;
}

/* A request that was never sent has no stream whose end would be told. */
static int on_frame_not_sent(nghttp2_session *session, const nghttp2_frame *frame, int error,
                             void *user_data)
{
    struct connection *connection = user_data;

    (void)session, (void)error;
    if (connection->server || frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    LIST_FOR_EACH (node, &connection->calls) {
        struct grpc_call *call = LIST_ITEM(node, struct grpc_call, node);
        if (call->stream_id == frame->hd.stream_id)
            close_call(call, NGHTTP2_REFUSED_STREAM);
    }
    return 0;
}

static nghttp2_session *session_new(struct connection *connection)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, MAX_HEADER_BYTES},
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, connection->server ? MAX_STREAMS : 0},
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
    };
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    nghttp2_session *session;
    int r;

    if (nghttp2_session_callbacks_new(&callbacks) < 0 || nghttp2_option_new(&option) < 0)
        die("out of memory");
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_frame_not_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_closed);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    r = connection->server ? nghttp2_session_server_new2(&session, callbacks, connection, option)
                           : nghttp2_session_client_new2(&session, callbacks, connection, option);
    if (r < 0)
        die("cannot make an HTTP/2 session: %s", nghttp2_strerror(r));
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings,
                            ARRAY_SIZE(settings) - (connection->server ? 1 : 0));
    return session;
}

/* --- Time ------------------------------------------------------------------------------------- */

static bool is_idle_server(const struct connection *connection)
{
    return connection->server && list_empty(&connection->calls);
}

static uint64_t earlier(uint64_t due_ms, uint64_t other_ms)
{
    return MIN(due_ms, other_ms);
}

static void on_timer(struct loop_timer *timer);

void connection_arm(struct connection *connection)
{
    uint64_t due = UINT64_MAX, now = loop_now_ms();

    if (connection->closing || connection->last_sent || connection->ended)
        return; /* the timer is for the last frames now */
    if (connection->server && !connection->settled)
        due = earlier(due, connection->started_ms + grpc_timeouts.header_ms);
    if (connection->server && connection->header_since_ms)
        due = earlier(due, connection->header_since_ms + grpc_timeouts.header_ms);
    if (is_idle_server(connection))
        due = earlier(due, connection->idle_since_ms + grpc_timeouts.idle_ms);
    if (connection->ping_since_ms)
        due = earlier(due, connection->ping_since_ms + grpc_timeouts.ping_ms);
    else if (connection->keepalive_ms && !list_empty(&connection->calls))
        due = earlier(due, connection->last_read_ms + connection->keepalive_ms);
    if (due == UINT64_MAX)
        loop_timer_stop(&connection->timer);
    else
        loop_timer_start(&connection->timer, due > now ? due - now : 0, on_timer);
}

/* Why the connection is to be given up, or NULL. */
static const char *check_keepalive(struct connection *connection, uint64_t now)
{
    if (!connection->ping_since_ms) {
        if (connection->keepalive_ms && !list_empty(&connection->calls) &&
            now >= connection->last_read_ms + connection->keepalive_ms) {
            connection->ping_since_ms = now;
            nghttp2_submit_ping(connection->session, NGHTTP2_FLAG_NONE, NULL);
        }
        return NULL;
    }
    if (now < connection->ping_since_ms + grpc_timeouts.ping_ms)
        return NULL;
    if (connection->ping_late)
        return "it has stopped answering";
    /* We may have been stopped ourselves (Ctrl-Z): read once more before judging. */
    connection->ping_late = true;
    connection->ping_since_ms = now;
    return NULL;
}

static void on_timer(struct loop_timer *timer)
{
    struct connection *connection = CONTAINER_OF(timer, struct connection, timer);
    uint64_t now = loop_now_ms();
    const char *why = NULL;

    if (connection->server && !connection->settled &&
        now >= connection->started_ms + grpc_timeouts.header_ms)
        why = "no HTTP/2 settings came in time";
    else if (connection->server && connection->header_since_ms &&
             now >= connection->header_since_ms + grpc_timeouts.header_ms)
        why = "a request header was not completed in time";
    else
        why = check_keepalive(connection, now);
    if (is_idle_server(connection) && now >= connection->idle_since_ms + grpc_timeouts.idle_ms) {
        connection->idle_since_ms = now;
        connection_drain(connection);
    }
    if (why) {
        if (!error_is_set(&connection->end))
            error_set(&connection->end, ERROR_UNAVAILABLE, NULL, "%s", why);
        connection_stop(connection);
    } else {
        connection_arm(connection);
    }
    connection_flush(connection);
}

static void on_flush_timeout(struct loop_timer *timer)
{
    struct connection *connection = CONTAINER_OF(timer, struct connection, timer);

    if (connection->writer)
        task_cancel(connection->writer);
    connection_stop(connection);
}

/* All has been sent. A server goes on reading until the client hangs up: one that finds our end
 * closed when it writes may never look at what we sent last. */
static void hang_up(struct connection *connection)
{
    connection->writer = NULL;
    connection->last_sent = true;
    shutdown(stream_fd(connection->stream), connection->server ? SHUT_WR : SHUT_RDWR);
    loop_timer_start(&connection->timer, grpc_timeouts.flush_ms, on_flush_timeout);
}

static void note_protocol_error(struct connection *connection)
{
    if (!error_is_set(&connection->end))
        error_set(&connection->end, ERROR_UNAVAILABLE, NULL,
                  connection->settled ? "it broke the HTTP/2 protocol" : "it does not speak gRPC");
}

/* --- Its two tasks ---------------------------------------------------------------------------- */

static ssize_t next_frames(struct connection *connection, struct strbuf *out)
{
    const uint8_t *data;
    ssize_t n = 0;

    strbuf_clear(out);
    while (out->length < WRITE_BATCH_BYTES &&
           (n = nghttp2_session_mem_send(connection->session, &data)) > 0)
        strbuf_add(out, data, (size_t)n);
    return n < 0 ? n : (ssize_t)out->length;
}

static bool await_write_frames(void *arg, struct error *err)
{
    struct connection *connection = arg;
    CLEANUP_STRBUF struct strbuf out = {0};
    int r = 0;

    (void)err;
    connection->writer = task_current();
    while (r == 0) {
        ssize_t n = next_frames(connection, &out);
        if (n < 0)
            break;
        if (n > 0) {
            r = await_write(connection->stream, out.data, out.length);
            continue;
        }
        if (connection->closing || (!nghttp2_session_want_read(connection->session) &&
                                    !nghttp2_session_want_write(connection->session)))
            break;
        strbuf_done(&out);
        r = await_event(&connection->write_wanted, "sending gRPC frames");
    }
    /* A client's session that is over without a GOAWAY from the server has sent one itself. */
    if (!connection->server && !connection->closing && r == 0 && !connection->goaway_received)
        note_protocol_error(connection);
    hang_up(connection);
    return true;
}

static bool feed(struct connection *connection, const void *data, size_t size)
{
    ssize_t n = nghttp2_session_mem_recv(connection->session, data, size);

    connection->last_read_ms = loop_now_ms();
    connection->ping_since_ms = 0;
    connection->ping_late = false;
    connection_flush(connection);
    if (n >= 0)
        return true;
    note_protocol_error(connection);
    nghttp2_session_terminate_session(connection->session, n == NGHTTP2_ERR_FLOODED
                                                               ? NGHTTP2_ENHANCE_YOUR_CALM
                                                               : NGHTTP2_PROTOCOL_ERROR);
    return false;
}

/* False once there is nothing more to read. */
static bool await_read_frames(struct connection *connection)
{
    static uint8_t buffer[READ_BYTES]; /* used between two awaits only: one serves all */
    int r = await_readable(connection->stream);
    ssize_t n = r < 0 ? r : stream_try_read(connection->stream, buffer, sizeof(buffer));

    if (n == -EAGAIN)
        return true;
    if (n > 0)
        return feed(connection, buffer, (size_t)n);
    connection->eof |= r == 0;
    if (error_is_set(&connection->end))
        return false;
    if (n == -ECANCELED || n == -ETIMEDOUT)
        error_set(&connection->end, ERROR_CANCELLED, NULL, "the connection was closed");
    else
        error_set(&connection->end, ERROR_UNAVAILABLE, NULL, "%s",
                  n == 0 || n == -ECONNRESET ? "it closed the connection" : strerror((int)-n));
    return false;
}

static void await_eof(struct connection *connection)
{
    char buffer[4096];

    while (!connection->eof) {
        int r = await_readable(connection->stream);
        ssize_t n = r < 0 ? r : stream_try_read(connection->stream, buffer, sizeof(buffer));
        connection->eof |= n <= 0 && n != -EAGAIN;
    }
}

static void await_connection_end(struct connection *connection)
{
    CLEANUP(task_unshield) UNUSED struct task_shield shield = task_shield();

    if (!error_is_set(&connection->end))
        error_set(&connection->end, ERROR_CANCELLED, NULL, "the connection was closed");
    refuse_calls(connection);
    if (connection->end.code == ERROR_UNAVAILABLE || !connection->server) {
        /* The peer is gone: nobody will read what the calls still have to say. */
        LIST_FOR_EACH (node, &connection->calls) {
            CLEANUP_ERROR struct error status = {0};
            error_set(&status, connection->end.code, "CONNECTION_LOST",
                      "lost the connection to %s: %s", connection->peer, connection->end.message);
            if (connection->end.code == ERROR_UNAVAILABLE)
                error_hint(&status, "look at the daemon's log: journalctl -u davitd");
            call_detach(LIST_ITEM(node, struct grpc_call, node), &status);
        }
    }
    group_done_await(&connection->handlers);
    connection->closing = true;
    loop_timer_start(&connection->timer, grpc_timeouts.flush_ms, on_flush_timeout);
    connection_flush(connection);
    await_group(&connection->writers, NULL);
    await_eof(connection);
    loop_timer_stop(&connection->timer);
    connection->ended = true;
    LIST_FOR_EACH (node, &connection->calls)
        call_detach(LIST_ITEM(node, struct grpc_call, node), NULL);
}

void await_connection_run(struct connection *connection, const void *first, size_t first_size)
{
    bool going;

    if (connection->server)
        connection->keepalive_ms = connection->server->keepalive_ms;
    connection_arm(connection);
    going = task_spawn(&connection->writers, "grpc-writer", connection->peer, await_write_frames,
                       connection, &connection->end);
    if (going && first_size)
        going = feed(connection, first, first_size);
    while (going && !connection->eof)
        going = await_read_frames(connection);
    await_connection_end(connection);
    log_debug("gRPC connection ended", LOG("peer", connection->peer),
              LOG("reason", error_is_set(&connection->end) ? connection->end.message : "done"));
}
