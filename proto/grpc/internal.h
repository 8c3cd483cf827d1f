/* Shared between the files of this folder only.
 *
 * A *connection* is an nghttp2 session on a socket: one task reads, one writes, and both ends of
 * gRPC use it in the same way. A *call* is one HTTP/2 stream; it is held by its stream, by the
 * task of its handler (server) or by whoever made it (client), and freed when the last lets go.
 * nghttp2's callbacks run inside mem_recv and mem_send: they change state and wake, no more. */
#pragma once

#include <nghttp2/nghttp2.h>

#include "proto/async/stream.h"
#include "proto/base/map.h"
#include "proto/base/strbuf.h"
#include "proto/grpc/grpc.h"

/* What a peer may make us hold or do (SECURITY.md, "Limits"). */
#define MAX_STREAMS 100                /* open at once, per connection */
#define MAX_HANDLERS (2 * MAX_STREAMS) /* tasks, those still unwinding included */
#define MAX_HEADER_BYTES (64 * KIB)    /* of one call, counted as RFC 9113 section 6.5.2 does */
#define NUISANCE_BURST 500             /* resets, pings, settings, empty frames... */
#define NUISANCE_PER_SECOND 50         /* ...and how many are forgiven each second */
#define SEND_QUEUE (64 * KIB)          /* of one call: a sender waits while more is queued */
#define MAX_UNPACKED (32 * MIB)        /* memory of one received message, however it was packed */

/* Variables, so that tests need not wait for so long. */
struct grpc_timeouts {
    uint64_t header_ms; /* from a header's first byte to its last */
    uint64_t idle_ms;   /* a server's connection without calls */
    uint64_t ping_ms;   /* for the answer to a keepalive ping */
    uint64_t flush_ms;  /* for the last frames of a connection, and for the peer to hang up */
};
extern struct grpc_timeouts grpc_timeouts;

/* --- Bytes waiting: appended at the end, taken from the front --------------------------------- */

struct fifo {
    struct strbuf bytes;
    size_t start;
};

static inline size_t fifo_size(const struct fifo *fifo)
{
    return fifo->bytes.length - fifo->start;
}

static inline const uint8_t *fifo_front(const struct fifo *fifo)
{
    return (const uint8_t *)strbuf_text(&fifo->bytes) + fifo->start;
}

void fifo_done(struct fifo *fifo);
uint8_t *fifo_extend(struct fifo *fifo, size_t size); /* where size more bytes are to be put */
void fifo_drop(struct fifo *fifo, size_t size);       /* from the front */

/* --- Calls ------------------------------------------------------------------------------------ */

struct header {
    char *key, *value; /* value: decoded if the key ends in -bin */
    size_t value_size;
};

struct method_entry {
    char *path; /* "/davit.v1.Images/Pull" */
    const ProtobufCMethodDescriptor *descriptor;
    grpc_handler handler; /* NULL: UNIMPLEMENTED */
    void *context;
};

struct grpc_call {
    unsigned int refs;
    struct connection *connection; /* a reference */
    struct list node;              /* in connection->calls while attached */
    int32_t stream_id;
    bool attached;             /* to a live HTTP/2 stream, which holds a reference */
    bool remote_done;          /* the peer sends no more */
    bool send_closed;          /* we queue no more */
    bool ended;                /* nothing more can be sent; status is final */
    struct error status;       /* server: why it was cut short; client: the call's status */
    struct wait_queue changed; /* whatever an await of the call may wait for */

    struct fifo in; /* received and not yet taken */
    size_t in_owed; /* bytes of it that the peer's window has not been given back */
    struct fifo out;

    struct header *headers;
    size_t header_count, header_bytes;

    const ProtobufCMessageDescriptor *in_type, *out_type; /* out_type: NULL on the client */

    /* Server */
    const struct method_entry *method;
    struct task *task; /* while the handler runs */
    bool headers_sent;
    bool has_deadline;
    uint64_t started_ms, deadline_ms; /* on the loop's clock */

    /* Client */
    struct loop_timer timer;
};

struct grpc_call *call_new(struct connection *connection, int32_t stream_id);
struct grpc_call *call_ref(struct grpc_call *call);
struct grpc_call *call_unref(struct grpc_call *call); /* NULL */

/* The HTTP/2 stream is gone. status (moved; may be NULL or empty) is taken if none is set. Wakes
 * and, on the server, cancels the handler. */
void call_detach(struct grpc_call *call, struct error *status);

/* Ends the call with a status (moved) and resets the stream. */
void call_fail(struct grpc_call *call, uint32_t http2_error, struct error *status);

/* Server: sends the final status once all queued messages have gone. */
void call_finish(struct grpc_call *call, const struct error *status);

/* Server: answers with nothing but an HTTP status, or a gRPC status. */
void call_reject_http(struct grpc_call *call, const char *http_status);

/* Client: HEADERS or trailers are complete. */
void call_on_response_headers(struct grpc_call *call, bool end_stream);

/* Makes the status of a call whose stream was closed with an HTTP/2 error code. */
void call_status_of_http2(const struct grpc_call *call, uint32_t http2_error, struct error *ret);

void call_add_header(struct grpc_call *call, const char *key, const uint8_t *value, size_t size);
const struct header *call_header(const struct grpc_call *call, const char *key);
const char *call_header_value(const struct grpc_call *call, const char *key); /* or NULL */

/* Request or response header for nghttp2, which copies both. */
nghttp2_nv header_nv(const char *key, const char *value);

/* Sends what the call that is the stream's user data has queued. */
extern const nghttp2_data_provider call_data_provider;

/* --- Connections ------------------------------------------------------------------------------ */

struct connection {
    unsigned int refs;
    struct grpc_server *server; /* NULL: this is the client's end */
    char *peer; /* for messages: "the davit daemon at unix:///...", or the client's "pid 1 uid 0" */
    struct stream *stream;
    nghttp2_session *session;
    struct list calls; /* attached ones */
    struct list node;  /* server: in its connections */
    struct group handlers, writers;
    struct task *writer;
    struct event write_wanted;
    struct loop_timer timer;
    struct error end; /* why it ended */
    bool settled;     /* the peer's first SETTINGS has come */
    bool draining, goaway_received;
    bool closing;   /* what is queued now is the last to be sent */
    bool last_sent; /* the last has been sent, or cannot be */
    bool eof;       /* the peer sends no more, or we read no more */
    bool ended;     /* there is no session any more */

    uint64_t started_ms, idle_since_ms, last_read_ms;
    uint64_t header_since_ms; /* 0: no header is half received */
    uint64_t keepalive_ms;    /* 0: off */
    uint64_t ping_since_ms;   /* 0: none is on its way */
    bool ping_late;
    double nuisance;
    uint64_t nuisance_ms;
};

/* Owns fd and peer. */
struct connection *connection_new(int fd, struct grpc_server *server, char *peer);
struct connection *connection_ref(struct connection *connection);
struct connection *connection_unref(struct connection *connection); /* NULL */

/* Runs it in the current task until it has ended and all its handlers with it. */
void await_connection_run(struct connection *connection, const void *first, size_t first_size);

/* Tells the writer that there are frames to send. */
void connection_flush(struct connection *connection);

/* Asks for no new calls (GOAWAY), and ends after the running ones; called again, it refuses those
 * that still come. */
void connection_drain(struct connection *connection);

/* No more reading: its run ends soon. Safe from anywhere. */
void connection_stop(struct connection *connection);

/* Sets the timer to whatever is due next. After any change of calls or timeouts. */
void connection_arm(struct connection *connection);

/* --- Server ----------------------------------------------------------------------------------- */

struct grpc_server {
    struct list connections;
    struct map *methods; /* by path; values are owned */
    struct service_entry {
        const ProtobufCServiceDescriptor *descriptor;
        struct service_entry *next;
    } * services;
    const void *descriptors;
    size_t descriptors_size;
    bool serving, draining;
    uint64_t keepalive_ms;
    struct wait_queue serving_changed;
};

/* The request's header is complete: answers it or starts its handler. */
void server_dispatch(struct grpc_call *call);

/* Adds the standard services. */
void server_add_health(struct grpc_server *server);
void server_add_reflection(struct grpc_server *server);
