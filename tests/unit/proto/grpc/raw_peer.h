/* A client that sends any frames it likes: HTTP/2 (RFC 9113) by hand. */
#pragma once

#include <nghttp2/nghttp2.h>

#include "fixture.h"
#include "proto/base/strbuf.h"

struct raw_peer {
    struct stream *stream;
    struct strbuf out, in;
    nghttp2_hd_inflater *inflater;
    char http_status[8], grpc_status[8]; /* of the last response */
    uint32_t ended;                      /* responses and resets with the last frame of a stream */
    uint32_t resets, last_reset;         /* RST_STREAM but NO_ERROR, and the code of the last */
    uint32_t released;                   /* RST_STREAM with NO_ERROR */
    int goaway;                          /* error code, -1: none came */
    bool eof;
};

/* Connects; sends the preface and empty settings with the first flush if `greet`. */
void raw_peer_connect(struct raw_peer *peer, struct fixture *f, bool greet);
void raw_peer_done(struct raw_peer *peer);

/* These only queue. */
void raw_frame(struct raw_peer *peer, uint8_t type, uint8_t flags, uint32_t stream_id,
               const void *payload, size_t size);
/* HEADERS of a request with END_HEADERS and more flags: key, value, ..., NULL replace or add to
 * those of a good request for Echo.Unary. */
void raw_request(struct raw_peer *peer, uint32_t stream_id, uint8_t flags,
                 const char *const *headers);

/* Sends what is queued; a server that has hung up does not matter. */
void await_raw_flush(struct raw_peer *peer);

/* Sends, and reads until so many have come, or until the end. */
void await_raw_ended(struct raw_peer *peer, uint32_t ended);
void await_raw_released(struct raw_peer *peer, uint32_t released);
void await_raw_eof(struct raw_peer *peer);
