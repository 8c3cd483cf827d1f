/* The event loop of a process: one libuv loop on one thread, the ready list of its tasks, and a
 * gauge of how long it was ever kept from its events. Begin with loop_run_main() in a program. */
#pragma once

#include <uv.h>

#include "proto/base/error.h"

struct loop;

/* The loop of this process; created on first use, on the thread that will run it. */
struct loop *loop_get(void);

/* libuv's loop, for files that wrap another kind of event. Use the awaits where they will do. */
uv_loop_t *loop_uv(void);

/* Runs `main_task` as the first task until it and every task it waits for have ended, then closes
 * the loop. Returns what the task returned; err gets its error. Not reentrant. */
bool loop_run_main(bool (*main_task)(void *arg, struct error *err), void *arg, struct error *err);

/* Milliseconds on the loop's clock, as of the current iteration. */
uint64_t loop_now_ms(void);

/* The longest time one iteration spent outside of poll since start (or the last reset), in
 * microseconds, and the name of the task that ran longest in it ("" if it was not a task).
 * Debug builds warn when an iteration takes longer than LOOP_STALL_WARN_US. */
#define LOOP_STALL_WARN_US 5000
struct loop_stall {
    uint64_t worst_us;
    char task_name[64];
};
struct loop_stall loop_worst_stall(void);
void loop_reset_stall(void);

/* Calls fn(arg) on the loop, soon, never from inside this call. Only from the loop's thread. */
void loop_defer(void (*fn)(void *arg), void *arg);

/* Signals as events: fn runs on the loop for each delivery until loop_signal_stop. */
struct loop_signal;
struct loop_signal *loop_signal_start(int signum, void (*fn)(int signum, void *arg), void *arg);
struct loop_signal *loop_signal_stop(struct loop_signal *handler); /* frees; returns NULL */
