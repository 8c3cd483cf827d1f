/* Shows the newest state of something that changes faster than it need be shown: a task that
 * renders it, at most every REDRAW_MS, as fast as the reader of our output takes it.
 * Begin with painter_start(); then painter_changed() for each new state. */
#pragma once

#include "client/cli.h"

struct painter {
    /* Set by its owner, whom arg leads to. */
    struct cli *cli;
    int fd;    /* standard output or error */
    bool live; /* a terminal: drawn anew when it is resized, left in order */
    void (*render)(void *arg, struct strbuf *out); /* the newest state; NULL: nothing is shown */
    void (*leave)(void *arg, struct strbuf *out);  /* what puts a live terminal right */
    void *arg;

    /* Its own. */
    bool has_state, stale, finished;
    struct wait_queue changed;
    struct group group;
    struct error error; /* nobody reads what is shown: the main task was cancelled for it */
    struct loop_signal *on_resize, *on_stop;
};

/* From now on there may be changes. Afterwards painter_done_await(), always. */
bool painter_start(struct painter *painter, struct error *err);

/* There is a new state to be shown, or (again false) one that need not be. */
void painter_changed(struct painter *painter, bool show);

/* Nothing changes any more: waits until the last state is shown. */
bool await_painter_finish(struct painter *painter, struct error *err);

/* Leaves a live terminal as it stands, for what is to be said below. */
void painter_leave(struct painter *painter);

/* Ends it, also in mid-frame, and leaves the terminal in order. */
void painter_done_await(struct painter *painter);

/* Writes to its descriptor: what is said once and not drawn. */
bool await_painter_show(struct painter *painter, const struct strbuf *text, struct error *err);
