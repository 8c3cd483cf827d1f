/* Shared between the files of this folder only.
 *
 * Who does what: table.c joins and leaves; transfer.c is the flow of one transfer; scheduler.c says
 * who may begin, and starts connections; connection.c fetches segments; places.c says from where;
 * consumer.c makes a layer of what came. All of it is on the loop. */
#pragma once

#include "daemon/store/partial.h"
#include "daemon/transfer/meter.h"
#include "daemon/transfer/prober.h"
#include "daemon/transfer/rate.h"
#include "daemon/transfer/segments.h"
#include "daemon/transfer/transfer.h"
#include "proto/base/map.h"

struct transfer_table {
    struct store *store;
    struct registry_client *client;
    struct http_flow flow;
    uint64_t backoff_ms;
    struct rate_limit *limit;
    struct map *by_key;
    struct group group;
    unsigned int abandoned; /* that have not ended yet */
    struct wait_queue unwound_queue;
    /* The scheduler's. */
    unsigned int max_concurrent, max_connections;
    unsigned int running;    /* transfers that have a slot */
    struct list slot_queue;  /* of those that wait for one */
    struct list fetching;    /* of those that are in a round (transfer.c) */
    struct list connections; /* in the order of their start */
    unsigned int connection_count;
    struct prober prober;
    uint64_t bytes_received;
    struct loop_timer timer;
};

struct requester {
    unsigned int references;
    struct rate_limit *limit;
    unsigned int running; /* transfers whose slot it is charged for */
};
struct requester *requester_ref(struct requester *requester);
struct requester *requester_unref(struct requester *requester); /* takes NULL; returns NULL */

struct transfer_share {
    struct list node;
    struct transfer *transfer;
    struct requester *requester;
    bool joined; /* the transfer was there already */
};

/* A source as a transfer sees it: whose it is, and how it does. */
struct place {
    struct list node;
    struct source *source;
    const struct transfer_share *share; /* NULL: that has left, and it goes with its connections */
    bool used_up;         /* it does not have the blob, or not for us, or gave wrong bytes */
    uint64_t retry_at_ms; /* not to be asked before */
    unsigned int failures;
    unsigned int broken_ranges;
    struct error error; /* the last one */
    char *validator;    /* NULL: none */
    unsigned int connections;
    uint64_t bytes_served; /* in this round */
};

/* A task that fetches segments of one transfer, one after the other. */
struct connection {
    struct list node, table_node;
    struct transfer *transfer;
    struct place *place; /* that it asks; NULL: none */
    struct task *task;   /* NULL before it runs */
    struct segment segment;
    bool whole;            /* it gets the whole blob, from the first byte on, instead */
    struct meter meter;    /* of useful bytes, since the first of them */
    bool delivering;       /* they have come */
    bool last_segment;     /* it ends after this one */
    uint64_t asked_ms;     /* the present request */
    uint64_t received;     /* useful bytes of it */
    uint64_t buffer_limit; /* of the kernel's, under a cap; 0: none */
    struct blob_stream *stream;
    uint8_t *buffer;
    uint64_t buffer_offset, buffered_ms; /* of its first byte: place and time */
    size_t buffered;
};

struct transfer {
    struct transfer_table *table;
    char key[160]; /* blob digest and diff_id: a manifest that lies about one harms only itself */
    struct descriptor blob;
    struct digest diff_id;
    struct list shares, places;
    struct place *place; /* the one that serves; NULL: none yet */
    struct task *task;   /* NULL before it runs and after it ended */
    bool ended, abandoned;
    struct wait_queue waiters;
    struct error error;
    bool sources_failed;       /* the error is that of the last of them: each share has its own */
    enum transfer_state state; /* WAITING, FETCHING, STORING or the end */
    struct meter meter;
    uint64_t bytes_fetched; /* that are here or on their way to the disk */
    uint64_t bytes_resumed, bytes_stored;

    struct list slot_node;
    struct event slot_event;
    struct requester *charged; /* for the slot; NULL: it has none */

    /* A round: from what there is to all bytes, or to an error. */
    struct list fetching_node;
    struct group *group;
    struct partial *partial; /* NULL before and after the rounds */
    struct segments segments;
    struct list connections;
    unsigned int connection_count;
    bool whole;                /* a connection gets all; there is no other */
    unsigned int fruitless;    /* attempts in a row */
    uint64_t left_alone_ms;    /* in a row, because sources asked for it */
    uint64_t connect_after_ms; /* new ones; those that there are go on */
    bool rate_limited;         /* a source asked for the present wait, if there is one; until: */
    int64_t wait_until_unix_ms;
    unsigned int straggles;
    struct error last_error;   /* of any source */
    struct wait_queue arrived; /* the consumer waits for bytes */
    struct wait_queue changed; /* the transfer's task waits for the end of the round */
    struct error failure;      /* that ends it */
    bool consumed;             /* so does this: all went into the layer */
    bool wrong_bytes;          /* all came, and they are not the blob's */
    uint64_t bytes_consumed;
};

/* --- table.c ----------------------------------------------------------------------------------
 */

/* Its task ends: tells those who wait; frees it if there are none. */
void transfer_ended(struct transfer *transfer);

/* Its own cap: NULL if one of its requesters has none. Borrowed. */
struct rate_limit *transfer_limit(const struct transfer *transfer);

/* --- transfer.c -------------------------------------------------------------------------------
 */

bool transfer_task(void *arg, struct error *err);

/* Ends the round, unless it has ended: err is moved. */
void transfer_fail(struct transfer *transfer, struct error *err);

/* What is missing becomes gaps of the segments. None is live. */
void transfer_find_gaps(struct transfer *transfer);

/* --- consumer.c -------------------------------------------------------------------------------
 */

/* Reads the blob from its first byte on as it comes, checks it and writes the layer. With wrong
 * bytes DIGEST_MISMATCH, and transfer->wrong_bytes. */
bool await_consume(struct transfer *transfer, struct layer_writer *writer, struct error *err);

/* --- connection.c -----------------------------------------------------------------------------
 */

/* Starts one, if there is a place to ask and something to ask for. Does not suspend. */
bool connection_start(struct transfer *transfer);

/* --- places.c ---------------------------------------------------------------------------------
 */

void places_add(struct transfer *transfer, const struct transfer_share *share,
                const struct source_list *sources);
void places_leave(struct transfer *transfer, const struct transfer_share *share);
void places_free(struct transfer *transfer);
struct place *place_ref(struct place *place);                              /* for a connection */
struct place *place_unref(struct transfer *transfer, struct place *place); /* returns NULL */

/* The place to ask now: the one that serves, or the first that may be asked. NULL: none now. */
struct place *places_choose(struct transfer *transfer);

/* The one that may be asked first, later. NULL: all are used up. */
const struct place *places_next(const struct transfer *transfer);

/* A new round begins after wrong bytes, from another place if there is one. False: there is none.
 */
bool places_begin_anew(struct transfer *transfer, const struct error *err);

/* The last error of this share's own; NULL: none. */
const struct error *places_error(const struct transfer *transfer,
                                 const struct transfer_share *share);

/* --- scheduler.c ------------------------------------------------------------------------------
 */

int await_slot(struct transfer *transfer);
void slot_release(struct transfer *transfer); /* does nothing if it has none */
/* Call when who is waiting, or what there is, has changed. */
void slots_serve(struct transfer_table *table);
/* A share leaves: the slot is charged to somebody else. */
void slot_recharge(struct transfer *transfer, const struct transfer_share *leaving);

void scheduler_add(struct transfer *transfer);    /* its round begins */
void scheduler_remove(struct transfer *transfer); /* its round ends */

/* Starts the connections that are due. Call when anything has changed. */
void scheduler_look(struct transfer_table *table);

/* Whether a connection goes on with another segment. */
bool scheduler_may_go_on(const struct connection *connection);

/* --- failure.c --------------------------------------------------------------------------------
 */

/* What comes of a request that failed: the place waits, or is used up, or the round ends. */
void connection_failed(struct connection *connection, struct error *err);
