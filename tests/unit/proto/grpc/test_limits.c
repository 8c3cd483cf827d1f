/* What the server does with clients that do what they should not. */
#include <stdio.h>

#include "proto/grpc/codec.h"
#include "proto/grpc/internal.h"
#include "raw_peer.h"

#define COMPLETE (NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM)

/* The server is well: another client is served. */
static void check_alive(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};
    const Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    ProtobufCMessage *response;

    if (!await_grpc_unary(f->client, METHOD("Unary"), &request.base, RESPONSE, &response, &err))
        fail_msg("%s", err.message);
    protobuf_c_message_free_unpacked(response, NULL);
}

static void check_status(const struct raw_peer *peer, const char *http, const char *grpc)
{
    assert_string_equal(peer->http_status, http);
    assert_string_equal(peer->grpc_status, grpc);
}

/* --- Requests --------------------------------------------------------------------------------- */

static void body_requests(struct fixture *f)
{
    static const struct {
        const char *key, *value, *http_status, *grpc_status;
    } cases[] = {
        {":method", "GET", "405", ""},
        {":method", "PUT", "405", ""},
        {"content-type", "application/json", "415", ""},
        {"content-type", "application/grpc-web", "415", ""},
        {"content-type", "application/grpcx", "415", ""},
        {"content-type", "application/grpc+proto", "200", "3"}, /* it has no message */
        {"content-type", "application/grpc;charset=utf-8", "200", "3"},
        {"grpc-encoding", "identity", "200", "3"},
        {"grpc-encoding", "gzip", "200", "12"},
        {"grpc-timeout", "1", "200", "13"},
        {"grpc-timeout", "123456789S", "200", "13"},
        {"grpc-timeout", "0m", "200", "4"},
        {":path", "/", "200", "12"},
        {":path", "/davit.test.Echo", "200", "12"},
        {":path", "/davit.test.Echo/Unary/", "200", "12"},
        {":path", METHOD("Missing"), "200", "12"},
        {"x-bad-bin", "!!!", "200", "3"}, /* left out */
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *const headers[] = {cases[i].key, cases[i].value, NULL};
        CLEANUP(raw_peer_done) struct raw_peer peer;
        raw_peer_connect(&peer, f, true);
        raw_request(&peer, 1, COMPLETE, headers);
        await_raw_ended(&peer, 1);
        check_status(&peer, cases[i].http_status, cases[i].grpc_status);
    }
}

/* A client that has got its status need not send the rest of its request. */
static void body_released(struct fixture *f)
{
    static const char *const headers[] = {":path", METHOD("Missing"), NULL};
    CLEANUP(raw_peer_done) struct raw_peer peer;

    raw_peer_connect(&peer, f, true);
    raw_request(&peer, 1, NGHTTP2_FLAG_END_HEADERS, headers);
    await_raw_released(&peer, 1);
    check_status(&peer, "200", "12");
    raw_request(&peer, 3, COMPLETE, headers);
    await_raw_ended(&peer, 2);
    assert_int_equal(peer.released, 1);
}

/* A request with these bytes as its data. */
static void check_data(struct fixture *f, const void *data, size_t size, bool end,
                       const char *grpc_status)
{
    const size_t frame_size = 16384;
    CLEANUP(raw_peer_done) struct raw_peer peer;

    raw_peer_connect(&peer, f, true);
    raw_request(&peer, 1, NGHTTP2_FLAG_END_HEADERS, NULL);
    for (size_t sent = 0; sent < size; sent += frame_size) {
        bool last = sent + frame_size >= size;
        raw_frame(&peer, NGHTTP2_DATA, last && end ? NGHTTP2_FLAG_END_STREAM : 0, 1,
                  (const char *)data + sent, MIN(frame_size, size - sent));
    }
    await_raw_ended(&peer, 1);
    check_status(&peer, "200", grpc_status);
}

static void body_messages(struct fixture *f)
{
    static const uint8_t too_large[] = {0, 0, 0x40, 0, 1}, compressed[] = {1, 0, 0, 0, 1, 'x'};
    static const uint8_t torn[] = {0, 0, 0, 0, 9, 'x'}, torn_prefix[] = {0, 0, 0};
    static const uint8_t garbage[] = {0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff};
    static const uint8_t odd_flag[] = {7, 0, 0, 0, 0};
    static uint8_t bomb[5 + 60000];

    check_data(f, too_large, sizeof(too_large), false, "8");
    check_data(f, compressed, sizeof(compressed), true, "12");
    check_data(f, odd_flag, sizeof(odd_flag), true, "13");
    check_data(f, torn, sizeof(torn), true, "13");
    check_data(f, torn_prefix, sizeof(torn_prefix), true, "13");
    check_data(f, garbage, sizeof(garbage), true, "3");
    /* Two bytes per part, and more than fifty in memory. */
    grpc_prefix_write(bomb, sizeof(bomb) - 5);
    for (size_t i = 5; i < sizeof(bomb); i += 2)
        bomb[i] = 9 << 3 | 2;
    check_data(f, bomb, sizeof(bomb), true, "0");
    check_alive(f);
}

/* As many parts as 4 MiB can name do not become 100 MiB of memory. */
static void body_unpacked_size(struct fixture *f)
{
    CLEANUP_ERROR struct error err = {0};
    Request request = DAVIT__TEST__ECHO_REQUEST__INIT;
    Davit__Test__Part part = DAVIT__TEST__PART__INIT;
    ProtobufCMessage *response;

    request.n_parts = 2000000;
    request.parts = xcalloc(request.n_parts, sizeof(*request.parts));
    for (size_t i = 0; i < request.n_parts; i++)
        request.parts[i] = &part;
    assert_false(
        await_grpc_unary(f->client, METHOD("Unary"), &request.base, RESPONSE, &response, &err));
    assert_int_equal(err.code, ERROR_INVALID_ARGUMENT);
    free(request.parts);
    check_alive(f);
}

/* --- Headers ---------------------------------------------------------------------------------- */

static void body_large_header(struct fixture *f)
{
    CLEANUP(raw_peer_done) struct raw_peer peer;
    char value[101];

    memset(value, 'x', 100);
    value[100] = '\0';
    raw_peer_connect(&peer, f, true);
    raw_request(&peer, 1, NGHTTP2_FLAG_END_STREAM, NULL);
    for (size_t sent = 0, n = 0; sent < MAX_HEADER_BYTES; sent += 100 + 8 + 32, n++) {
        char field[120];
        int size = snprintf(field, sizeof(field), "%c%cx-%06zu%c%s", 0, 8, n, 100, value);
        bool last = sent + 100 + 8 + 32 >= MAX_HEADER_BYTES;
        raw_frame(&peer, NGHTTP2_CONTINUATION, last ? NGHTTP2_FLAG_END_HEADERS : 0, 1, field,
                  (size_t)size);
    }
    await_raw_flush(&peer);
    await_raw_eof(&peer); /* nghttp2 takes few CONTINUATION frames */
    check_alive(f);
}

static void body_header_list(struct fixture *f)
{
    CLEANUP(raw_peer_done) struct raw_peer peer;
    const char *headers[2 * 90 + 1] = {NULL};
    char keys[90][10], value[101];

    /* One frame of less than 16 KiB names fields of more than 64 KiB: half of them repeat a field
     * of 4 KiB from the dynamic table. */
    memset(value, 'x', 100);
    value[100] = '\0';
    for (size_t i = 0; i < 90; i++) {
        snprintf(keys[i], sizeof(keys[i]), "x-%zu", i);
        headers[2 * i] = keys[i];
        headers[2 * i + 1] = value;
    }
    raw_peer_connect(&peer, f, true);
    raw_request(&peer, 1, COMPLETE, headers); /* 12 KiB: fine */
    await_raw_ended(&peer, 1);
    check_status(&peer, "200", "3");

    CLEANUP_STRBUF struct strbuf block = {0};
    static const uint8_t indexed_path[] = {0x83, 0x86, 0x04, 1, '/', 0x01, 1, 'l'};
    strbuf_add(&block, indexed_path, sizeof(indexed_path));
    strbuf_add(&block, "\x40\x01y\x7f\xa1\x1e", 6); /* y: 4000 bytes, into the table */
    for (size_t i = 0; i < 4000; i++)
        strbuf_add_char(&block, 'v');
    for (size_t i = 0; i < 20; i++)
        strbuf_add_char(&block, (char)0xbe); /* again */
    raw_frame(&peer, NGHTTP2_HEADERS, COMPLETE, 3, block.data, block.length);
    await_raw_ended(&peer, 2);
    check_status(&peer, "200", "8");

    for (size_t i = 0; i < 100; i++)
        strbuf_add_char(&block, (char)0xbe);
    raw_frame(&peer, NGHTTP2_HEADERS, COMPLETE, 5, block.data, block.length);
    await_raw_eof(&peer);
    assert_int_equal(peer.goaway, NGHTTP2_ENHANCE_YOUR_CALM);
    check_alive(f);
}

/* --- Floods ----------------------------------------------------------------------------------- */

static void check_flood(struct fixture *f, void (*one)(struct raw_peer *peer, uint32_t i))
{
    CLEANUP(raw_peer_done) struct raw_peer peer;

    raw_peer_connect(&peer, f, true);
    raw_request(&peer, 1, NGHTTP2_FLAG_END_HEADERS, NULL);
    for (uint32_t i = 0; i < NUISANCE_BURST / 2; i++)
        one(&peer, i);
    await_raw_flush(&peer);
    check_alive(f); /* by now it has read all that */
    raw_request(&peer, 99999, COMPLETE, NULL);
    while (!str_eq(peer.grpc_status, "3") && !peer.eof)
        await_raw_ended(&peer, peer.ended + 1);
    assert_int_equal(peer.goaway, -1);
    for (uint32_t i = 50000; i < 50000 + NUISANCE_BURST; i++)
        one(&peer, i);
    await_raw_eof(&peer);
    assert_int_equal(peer.goaway, NGHTTP2_ENHANCE_YOUR_CALM);
    check_alive(f);
}

static void one_ping(struct raw_peer *peer, uint32_t i)
{
    (void)i;
    raw_frame(peer, NGHTTP2_PING, 0, 0, "12345678", 8);
}

static void one_settings(struct raw_peer *peer, uint32_t i)
{
    (void)i;
    raw_frame(peer, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
}

static void one_empty(struct raw_peer *peer, uint32_t i)
{
    (void)i;
    raw_frame(peer, NGHTTP2_DATA, 0, 1, NULL, 0);
}

static void one_reset(struct raw_peer *peer, uint32_t i)
{
    raw_request(peer, 3 + 2 * i, NGHTTP2_FLAG_END_HEADERS, NULL);
    raw_frame(peer, NGHTTP2_RST_STREAM, 0, 3 + 2 * i, "\0\0\0\x08", 4);
}

static void body_floods(struct fixture *f)
{
    check_flood(f, one_ping);
    check_flood(f, one_settings);
    check_flood(f, one_empty);
    check_flood(f, one_reset);
}

static void body_streams(struct fixture *f)
{
    static const char *const headers[] = {":path", METHOD("Wait"), NULL};
    CLEANUP(raw_peer_done) struct raw_peer peer;

    raw_peer_connect(&peer, f, true);
    for (uint32_t i = 0; i < MAX_STREAMS + 5; i++)
        raw_request(&peer, 1 + 2 * i, COMPLETE, headers);
    await_raw_ended(&peer, 5);
    assert_int_equal(peer.resets, 5);
    assert_int_equal(peer.last_reset, NGHTTP2_REFUSED_STREAM);
    assert_int_equal(f->echo.running, MAX_STREAMS);
    check_alive(f);
}

/* Streams that are reset count until their handlers have unwound. */
static void body_handlers(struct fixture *f)
{
    CLEANUP(raw_peer_done) struct raw_peer peer;

    raw_peer_connect(&peer, f, true);
    for (uint32_t i = 0; i < MAX_HANDLERS + 10; i++)
        one_reset(&peer, i);
    await_raw_ended(&peer, 10);
    assert_int_equal(peer.last_reset, NGHTTP2_REFUSED_STREAM);
}

/* A client that takes nothing from its socket, however much its windows allow, and floods. */
static void body_deaf(struct fixture *f)
{
    static const char *const headers[] = {":path", METHOD("Count"), NULL};
    static const uint8_t message[] = {0,      0,    0,    0,    8, /* count; size: 16383 */
                                      2 << 3, 0xff, 0xff, 0xff, 0x7f, 3 << 3, 0xff, 0x7f};
    CLEANUP(raw_peer_done) struct raw_peer peer;

    grpc_timeouts.flush_ms = 10;
    raw_peer_connect(&peer, f, true);
    raw_frame(&peer, NGHTTP2_SETTINGS, 0, 0, "\0\4\x7f\xff\xff\xff", 6);
    raw_frame(&peer, NGHTTP2_WINDOW_UPDATE, 0, 0, "\x7f\0\0\0", 4);
    raw_request(&peer, 1, NGHTTP2_FLAG_END_HEADERS, headers);
    raw_frame(&peer, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, message, sizeof(message));
    await_raw_flush(&peer);
    await_counter(f, &f->echo.started, 1);
    for (size_t i = 0; i < 50; i++)
        check_alive(f);
    assert_in_range(f->echo.sent, 4, 100); /* the socket's buffer and our own are full */
    for (uint32_t i = 0; i < 2 * NUISANCE_BURST; i++)
        one_ping(&peer, i);
    await_raw_flush(&peer);
    while (f->server->connections.next->next != &f->server->connections)
        assert_int_equal(await_yield(), 0); /* until only the other client's is left */
    assert_int_equal(f->echo.cancelled, 1);
    check_alive(f);
}

/* The last word of a call is queued when its client has already gone. */
static void body_hang_up(struct fixture *f)
{
    static const char *const methods[] = {METHOD("Unary"), METHOD("Count"), METHOD("Wait"),
                                          METHOD("Missing")};
    static const uint8_t message[] = {0, 0, 0, 0, 4, 2 << 3, 100, 3 << 3, 100}; /* count, size */

    for (size_t i = 0; i < 100; i++) {
        const char *const headers[] = {":path", methods[i % ARRAY_SIZE(methods)], NULL};
        CLEANUP(raw_peer_done) struct raw_peer peer;
        raw_peer_connect(&peer, f, true);
        raw_request(&peer, 1, NGHTTP2_FLAG_END_HEADERS, headers);
        raw_frame(&peer, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, message, sizeof(message));
        await_raw_flush(&peer);
        for (size_t turns = 0; turns < i / 10; turns++)
            await_yield();

        /* Request and end of file at once. */
        int fds[2];
        CLEANUP(raw_peer_done) struct raw_peer queue;
        raw_peer_connect(&queue, f, true);
        raw_request(&queue, 1, NGHTTP2_FLAG_END_HEADERS, headers);
        raw_frame(&queue, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, message, sizeof(message));
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        shutdown(fds[1], SHUT_WR);
        await_grpc_serve(f->server, fds[0], queue.out.data, queue.out.length);
        close(fds[1]);
    }
    check_alive(f);
    while (f->echo.running)
        assert_int_equal(await_wake(&f->echo.changed, "the handlers"), 0);
}

/* --- Time ------------------------------------------------------------------------------------- */

static void body_slow_header(struct fixture *f)
{
    grpc_timeouts.header_ms = 10;
    for (size_t bytes = 0; bytes <= 24; bytes += 12) { /* of the preface */
        CLEANUP(raw_peer_done) struct raw_peer peer;
        raw_peer_connect(&peer, f, false);
        strbuf_add(&peer.out, NGHTTP2_CLIENT_MAGIC, bytes);
        await_raw_eof(&peer);
    }
    CLEANUP(raw_peer_done) struct raw_peer peer;
    raw_peer_connect(&peer, f, true);
    raw_request(&peer, 1, 0, NULL); /* a CONTINUATION is to follow */
    await_raw_eof(&peer);
    check_alive(f);
}

static void body_idle(struct fixture *f)
{
    static const char *const headers[] = {":path", METHOD("Wait"), NULL};
    CLEANUP(raw_peer_done) struct raw_peer idle, busy;

    grpc_timeouts.idle_ms = 10;
    raw_peer_connect(&busy, f, true);
    raw_request(&busy, 1, COMPLETE, headers);
    await_raw_flush(&busy);
    await_counter(f, &f->echo.running, 1);
    raw_peer_connect(&idle, f, true);
    await_raw_eof(&idle);
    assert_int_equal(idle.goaway, NGHTTP2_NO_ERROR);
    assert_int_equal(f->echo.running, 1); /* a call keeps its connection */
    raw_frame(&busy, NGHTTP2_RST_STREAM, 0, 1, "\0\0\0\x08", 4);
    await_raw_eof(&busy);
    assert_int_equal(busy.goaway, NGHTTP2_NO_ERROR);
    assert_int_equal(f->echo.cancelled, 1);
}

/* Where the server was told to look after its clients, one that answers no ping loses its calls. */
static void body_keepalive(struct fixture *f)
{
    static const char *const headers[] = {":path", METHOD("Wait"), NULL};
    CLEANUP(raw_peer_done) struct raw_peer peer;

    grpc_timeouts.ping_ms = 10;
    grpc_server_set_keepalive(f->server, 10);
    raw_peer_connect(&peer, f, true);
    raw_request(&peer, 1, COMPLETE, headers);
    await_raw_eof(&peer);
    assert_int_equal(f->echo.started, 1);
    await_counter(f, &f->echo.cancelled, 1);
}

/* Not HTTP/2, and HTTP/2 that breaks its rules. */
static void body_junk(struct fixture *f)
{
    static const char *const junk[] = {
        "GET / HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    };

    for (size_t i = 0; i < ARRAY_SIZE(junk); i++) {
        CLEANUP(raw_peer_done) struct raw_peer peer;
        raw_peer_connect(&peer, f, false);
        strbuf_add_str(&peer.out, junk[i]);
        await_raw_eof(&peer);
    }
    CLEANUP(raw_peer_done) struct raw_peer peer;
    raw_peer_connect(&peer, f, true);
    raw_request(&peer, 2, COMPLETE, NULL); /* an even stream is the server's */
    await_raw_eof(&peer);
    assert_int_equal(peer.goaway, NGHTTP2_PROTOCOL_ERROR);
    check_alive(f);
}

static int reset_timeouts(void **state)
{
    static struct grpc_timeouts before;

    (void)state;
    if (!before.idle_ms)
        before = grpc_timeouts;
    grpc_timeouts = before;
    return 0;
}

#define TEST(name)                    \
    static void test_##name(void **s) \
    {                                 \
        (void)s;                      \
        with_server(body_##name);     \
    }
#define TESTS(X)     \
    X(requests)      \
    X(released)      \
    X(messages)      \
    X(unpacked_size) \
    X(large_header)  \
    X(header_list)   \
    X(floods) X(streams) X(handlers) X(deaf) X(hang_up) X(keepalive) X(slow_header) X(idle) X(junk)

TESTS(TEST)

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
#define ENTRY(name) cmocka_unit_test_setup(test_##name, reset_timeouts),
    const struct CMUnitTest tests[] = {TESTS(ENTRY)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
