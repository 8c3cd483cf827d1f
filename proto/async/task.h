/* Tasks: stackful coroutines on the loop, for everything that has a beginning and an end.
 *
 * Nouns: a *task* is one running function; a *group* owns the tasks spawned into it and waits for
 * them; a *wait queue* is where tasks wait for a change of shared state; a *deadline* bounds every
 * await below it. Begin with task_spawn() and await_group().
 *
 * Rules:
 * - A function that may suspend has `await_` in its name (`_await` for cleanups).
 * - After an await, shared state may have changed: look it up again by key.
 * - Cancel is sticky: from then on each await of the task fails at once with -ECANCELED, so that it
 *   unwinds through its cleanup attributes. Work that must happen while unwinding (an unmount, a
 *   row to delete) goes inside a shield.
 * - Awaits return 0 (or a count) or a negative errno: -ECANCELED, or -ETIMEDOUT from a deadline.
 * - A group in which a task fails cancels the rest; an unfinished task is never freed.
 * - A task that runs for long without suspending keeps everybody else waiting: reads, writes and
 *   channels yield by themselves after a while; other loops call await_yield().
 * - Stacks are TASK_STACK_BYTES with a guard below: no large arrays on them. */
#pragma once

#include "proto/async/timer.h"
#include "proto/base/error.h"
#include "proto/base/list.h"

/* Builds with sanitizers use four times as much, because their frames are larger. */
#define TASK_STACK_BYTES (256 * KIB)
/* Each costs two mappings, and vm.max_map_count is 65530. */
#define TASK_MAX_DEFAULT 20000

struct task;

/* The body of a task. Returns false with err filled when it failed. */
typedef bool (*task_fn)(void *arg, struct error *err);

/* --- Groups ---------------------------------------------------------------------------------- */

struct group {
    struct list tasks;
    size_t running;
    bool cancelled;
    struct error
        first_error; /* of the first task that failed; cancellations only if nothing else */
    struct task *waiter;
};

void group_init(struct group *group);

/* Starts fn(arg) as a task of the group. It runs soon, never inside this call. `name` and `detail`
 * ("pull", "busybox:latest"; detail may be NULL) are copied and appear in logs and dumps. arg must
 * outlive the task. Spawning into a cancelled group gives a task that is cancelled from the start:
 * fn runs and its first await fails. RESOURCE_EXHAUSTED (reason TOO_MANY_TASKS) at the cap: fn
 * never runs. */
bool task_spawn(struct group *group, const char *name, const char *detail, task_fn fn, void *arg,
                struct error *err);

/* Cancels every task of the group, also those spawned later. Does not suspend. */
void group_cancel(struct group *group);

/* Waits until every task of the group has ended. Returns false with the first error if one failed.
 * If the waiting task is cancelled or its deadline passes, the group is cancelled, and the wait
 * goes on until all have unwound; then the error is CANCELLED or DEADLINE_EXCEEDED. */
bool await_group(struct group *group, struct error *err);

/* Waits until the group has no task left or timeout_ms has passed; does not cancel the group.
 * 0, -ETIMEDOUT, -ECANCELED. */
int await_group_idle(struct group *group, uint64_t timeout_ms);

/* For CLEANUP: cancels the group, waits for it whatever the caller's state, frees its error. */
void group_done_await(struct group *group);

/* --- The current task ------------------------------------------------------------------------- */

/* The running task, or NULL in a callback of the loop. */
struct task *task_current(void);
const char *task_name(const struct task *task); /* "pull busybox:latest"; owned by the task */

/* Cancels one task. Safe from callbacks and from other tasks; twice is the same as once. */
void task_cancel(struct task *task);

/* 0, or what the next await would fail with: -ECANCELED or -ETIMEDOUT. Does not suspend. */
int task_check(void);

/* Lets other tasks and events run once. 0 or a negative errno. */
int await_yield(void);

/* The same, but only if this task has run for TASK_SLICE_US without suspending. For awaits that
 * often need not wait. */
#define TASK_SLICE_US 2000
int await_slice(void);

/* While a shield is held, cancel and the deadlines around it do not reach the task's awaits;
 * deadlines pushed inside the shield do. Nests.
 * Use: CLEANUP(task_unshield) struct task_shield shield = task_shield(); */
struct task_shield {
    struct task *task;
};
struct task_shield task_shield(void);
void task_unshield(struct task_shield *shield);

/* A bound on all awaits of this task until it is popped: they fail with -ETIMEDOUT once timeout_ms
 * have passed, sticky until popped. Nests; an inner one cannot outlast an outer one. Same scope
 * rule as shields: CLEANUP(deadline_pop) struct deadline d; deadline_push(&d, 5000); */
struct deadline {
    struct task *task;
    struct deadline *outer;
    struct loop_timer timer;
    uint64_t expires_ms;  /* on the loop's clock */
    unsigned int shields; /* held when it was pushed: a later one hides it */
};
void deadline_push(struct deadline *deadline, uint64_t timeout_ms);
void deadline_pop(struct deadline *deadline);

/* Fills err for a negative errno that an await returned: CANCELLED, DEADLINE_EXCEEDED, or the
 * errno's own meaning; "what" says what was being done. Returns false. */
#define await_error(err, errnum, ...) error_set_errno(err, errnum, __VA_ARGS__)

/* --- Waiting for state ------------------------------------------------------------------------ */

/* Tasks that wait for a change of something they share. The waiter re-checks its condition in a
 * loop: while (!ready) if ((r = await_wake(&queue, "what")) < 0) ...  */
struct wait_queue {
    struct list waiters;
};
void wait_queue_init(struct wait_queue *queue);
void wake_all(struct wait_queue *queue); /* never switches; wakes through the ready list */
void wake_one(struct wait_queue *queue);
int await_wake(struct wait_queue *queue, const char *reason);

/* --- For wrappers of other event sources (curl, nghttp2, uv handles) -------------------------- */

/* A suspension that a callback ends. All zero at first. The task calls await_event; the callback
 * calls event_fire, before or during the wait. If cancel or a deadline ends the wait first,
 * await_event returns the negative errno, and an event_fire that may still come must find the event
 * in valid memory; it would end the next wait, so set `fired` to false before waiting again.
 * `reason` is static text that shows in dumps: "reading socket". */
struct event {
    struct task *task;
    bool fired;
};
int await_event(struct event *event, const char *reason);
void event_fire(struct event *event);

/* The same, but nothing ends the wait except event_fire: for operations that cannot be abandoned,
 * because their memory is the task's. Returns what task_check() then says. */
int await_event_always(struct event *event, const char *reason);

/* --- Looking at them -------------------------------------------------------------------------- */

size_t task_count(void); /* alive now */
void task_set_max(size_t max);

/* One log line per task: name, state, wait reason, age. davitd calls it on SIGUSR1. */
void task_dump(void);
