#include "raw_peer.h"

#include <stdio.h>

void raw_peer_connect(struct raw_peer *peer, struct fixture *f, bool greet)
{
    CLEANUP_ERROR struct error err = {0};
    int fd = await_connect_unix(f->path, &err);

    assert_true(fd >= 0);
    *peer = (struct raw_peer){.stream = stream_new(fd), .goaway = -1};
    assert_int_equal(nghttp2_hd_inflate_new(&peer->inflater), 0);
    if (!greet)
        return;
    strbuf_add_str(&peer->out, NGHTTP2_CLIENT_MAGIC);
    raw_frame(peer, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
}

void raw_peer_done(struct raw_peer *peer)
{
    stream_free(peer->stream);
    strbuf_done(&peer->out);
    strbuf_done(&peer->in);
    nghttp2_hd_inflate_del(peer->inflater);
}

/* --- Sending ---------------------------------------------------------------------------------- */

void raw_frame(struct raw_peer *peer, uint8_t type, uint8_t flags, uint32_t stream_id,
               const void *payload, size_t size)
{
    const uint8_t header[] = {
        (uint8_t)(size >> 16),
        (uint8_t)(size >> 8),
        (uint8_t)size,
        type,
        flags,
        (uint8_t)(stream_id >> 24),
        (uint8_t)(stream_id >> 16),
        (uint8_t)(stream_id >> 8),
        (uint8_t)stream_id,
    };

    strbuf_add(&peer->out, header, sizeof(header));
    strbuf_add(&peer->out, payload, size);
}

/* A literal field without indexing, names and values below 127 bytes (RFC 7541 section 6.2.2). */
static void add_field(struct strbuf *block, const char *key, const char *value)
{
    strbuf_add_char(block, 0);
    strbuf_add_char(block, (char)strlen(key));
    strbuf_add_str(block, key);
    strbuf_add_char(block, (char)strlen(value));
    strbuf_add_str(block, value);
}

static const char *replaced(const char *const *headers, const char *key, const char *value)
{
    for (size_t i = 0; headers && headers[i]; i += 2) {
        if (str_eq(headers[i], key))
            return headers[i + 1];
    }
    return value;
}

void raw_request(struct raw_peer *peer, uint32_t stream_id, uint8_t flags,
                 const char *const *headers)
{
    static const char *const usual[][2] = {
        {":method", "POST"},         {":scheme", "http"}, {":path", METHOD("Unary")},
        {":authority", "localhost"}, {"te", "trailers"},  {"content-type", "application/grpc"},
    };
    CLEANUP_STRBUF struct strbuf block = {0};

    for (size_t i = 0; i < ARRAY_SIZE(usual); i++)
        add_field(&block, usual[i][0], replaced(headers, usual[i][0], usual[i][1]));
    for (size_t i = 0; headers && headers[i]; i += 2) {
        bool is_usual = false;
        for (size_t j = 0; j < ARRAY_SIZE(usual); j++)
            is_usual |= str_eq(headers[i], usual[j][0]);
        if (!is_usual)
            add_field(&block, headers[i], headers[i + 1]);
    }
    raw_frame(peer, NGHTTP2_HEADERS, flags, stream_id, block.data, block.length);
}

void await_raw_flush(struct raw_peer *peer)
{
    await_write(peer->stream, peer->out.data, peer->out.length);
    strbuf_clear(&peer->out);
}

/* --- Receiving -------------------------------------------------------------------------------- */

static uint32_t number(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void read_headers(struct raw_peer *peer, const uint8_t *block, size_t size)
{
    int flags = 0;

    while (!(flags & NGHTTP2_HD_INFLATE_FINAL)) {
        nghttp2_nv nv;
        ssize_t n = nghttp2_hd_inflate_hd2(peer->inflater, &nv, &flags, block, size, 1);
        assert_true(n >= 0);
        block += n;
        size -= (size_t)n;
        if (!(flags & NGHTTP2_HD_INFLATE_EMIT))
            continue;
        if (str_eq((char *)nv.name, ":status"))
            snprintf(peer->http_status, sizeof(peer->http_status), "%s", (char *)nv.value);
        if (str_eq((char *)nv.name, "grpc-status"))
            snprintf(peer->grpc_status, sizeof(peer->grpc_status), "%s", (char *)nv.value);
    }
    nghttp2_hd_inflate_end_headers(peer->inflater);
}

static void read_frame(struct raw_peer *peer, uint8_t type, uint8_t flags, const uint8_t *payload,
                       size_t size)
{
    switch (type) {
    case NGHTTP2_HEADERS:
        read_headers(peer, payload, size);
        peer->ended += flags & NGHTTP2_FLAG_END_STREAM ? 1 : 0;
        break;
    case NGHTTP2_RST_STREAM:
        peer->released += number(payload) == NGHTTP2_NO_ERROR;
        if (number(payload) != NGHTTP2_NO_ERROR) {
            peer->last_reset = number(payload);
            peer->resets++;
            peer->ended++;
        }
        break;
    case NGHTTP2_GOAWAY:
        if (peer->goaway <= 0)
            peer->goaway = (int)number(payload + 4);
        break;
    default:
        break;
    }
}

static void await_raw_read(struct raw_peer *peer)
{
    char buffer[4096];
    ssize_t n = await_read(peer->stream, buffer, sizeof(buffer));

    if (n <= 0) {
        peer->eof = true;
        return;
    }
    strbuf_add(&peer->in, buffer, (size_t)n);
    for (;;) {
        const uint8_t *p = (const uint8_t *)peer->in.data;
        if (peer->in.length < 9)
            return;
        size_t size = number(p) >> 8;
        if (peer->in.length < 9 + size)
            return;
        read_frame(peer, p[3], p[4], p + 9, size);
        strbuf_consume(&peer->in, 9 + size);
    }
}

void await_raw_ended(struct raw_peer *peer, uint32_t ended)
{
    await_raw_flush(peer);
    while (peer->ended < ended && !peer->eof)
        await_raw_read(peer);
    assert_true(peer->ended >= ended);
}

void await_raw_released(struct raw_peer *peer, uint32_t released)
{
    await_raw_flush(peer);
    while (peer->released < released && !peer->eof)
        await_raw_read(peer);
    assert_int_equal(peer->released, released);
}

void await_raw_eof(struct raw_peer *peer)
{
    await_raw_flush(peer);
    while (!peer->eof)
        await_raw_read(peer);
}
