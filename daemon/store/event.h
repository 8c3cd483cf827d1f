/* Events: what happened to images, numbered and kept, each written in the transaction of the change
 * that it tells of. Numbers rise by one and are never used again; the oldest events are dropped.
 *
 * A reader has the number of the last event it saw: await_events_after() waits for newer ones and
 * reads some of them, at the reader's own pace. */
#pragma once

#include "daemon/store/store.h"

#define EVENTS_MAX_DEFAULT 100000
#define EVENTS_MAX_AGE_DAYS 30

struct event_record {
    unsigned int refs;
    int64_t id, time_unix_ns;
    const char *type, *action, *actor;
    const char *attributes; /* a JSON object of texts, its keys in order */
    char text[];
};
struct event_record *event_record_unref(struct event_record *event); /* takes NULL; returns NULL */

/* As a change or a caller tells it; Docker's words. */
struct event_note {
    const char *action;         /* "pull"; NULL: nothing is to be told */
    const char *actor;          /* "busybox:latest", or an image's ID */
    const char *name;           /* the attribute of that name; NULL: none */
    const char *reclaimed;      /* likewise */
    const struct digest *image; /* its labels are attributes, too; NULL: of none */
};

/* An event of type "image" of which nothing else is written. */
bool await_event_add(struct store *store, const struct event_note *note, struct error *err);

int64_t event_last_id(const struct store *store); /* 0: there was none yet */

struct events {
    struct event_record **items;
    size_t count;
    int64_t first_id; /* of the oldest that is kept; what lies before it and after the number that
                         was asked for is gone. Of the next one, if none is kept */
};
void events_done(struct events *events);

/* Reads the next events after a number, at most EVENTS_PER_READ, and none at all if there are none.
 */
#define EVENTS_PER_READ 64
bool await_events_read(struct store *store, int64_t after_id, struct events *ret,
                       struct error *err);

/* The number of the last event before that time, or 0. */
bool await_event_id_before(struct store *store, int64_t time_unix_ns, int64_t *ret,
                           struct error *err);

/* Waits until there is an event after that number. 0, -ECANCELED, -ETIMEDOUT. */
int await_event_newer(struct store *store, int64_t after_id);
