/* Following a job with everything the user sees of it and can do about it: for `davit pull`, for
 * what `davit run` pulls, for `davit jobs watch`, and for other commands that start jobs. */
#pragma once

#include "client/cli.h"

#define WATCH_PROGRESS_CHOICES "auto|tty|plain|json"

/* What an interrupt (Ctrl-C) does. SIGTERM and SIGHUP always leave the job as it is. */
enum watch_interrupt {
    WATCH_INTERRUPT_ASKS,     /* the first says how to go on, the second cancels; without a terminal
                                 there is nobody to ask: the first cancels */
    WATCH_INTERRUPT_DETACHES, /* leaves; the job goes on */
    WATCH_INTERRUPT_CANCELS,  /* ends the call, which was made to cancel its job then */
};

struct watch_options {
    const char *progress; /* one of the choices; NULL: "auto" */
    bool quiet;           /* no progress; of a pull the name at the end */
    bool one_of_many;     /* the last words are for the caller to say */
    bool within_run;      /* everything goes to standard error, as Docker has it */
    enum watch_interrupt interrupt;
    const char *what;  /* for people: "pull" */
    bool *ret_changed; /* set if a pull found something new; or NULL */
};

/* Receives JobUpdates from the call, shows them, and ends well when the job has. The call is the
 * caller's. An error is the job's ("Error response from daemon: ...") or that of the connection,
 * with what can be done about it. Cancel leaves the terminal in order. */
bool await_watch(struct cli *cli, struct grpc_call *call, const struct watch_options *options,
                 struct error *err);
