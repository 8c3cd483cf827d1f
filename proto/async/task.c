#include "proto/async/task.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "proto/async/internal.h"
#include "proto/async/loop.h"
#include "proto/base/log.h"

#ifdef TASK_ASAN
#include <dlfcn.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef TASK_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* Per thread, so that the functions of await_work, which run elsewhere, are in no task. */
static _Thread_local struct task *current_task;

/* All on the loop's thread; there is one loop in a process (loop.h). */
static struct {
    struct list ready, all;
    ucontext_t loop_context;
    size_t count, max;
    bool ready_for_use;
#ifdef TASK_ASAN
    void *loop_fake_stack;
    const void *loop_stack_bottom;
    size_t loop_stack_size;
#endif
#ifdef TASK_TSAN
    void *loop_fiber;
#endif
} tasks = {.max = TASK_MAX_DEFAULT};

#ifdef TASK_ASAN
/* The C library's. ASan's own prints a warning and forgets the redzones of the stack it switches
 * to, for it does not know that switches are announced to it here. */
static int (*switch_context)(ucontext_t *from, const ucontext_t *to);
#else
#define switch_context swapcontext
#endif

static void tasks_init(void)
{
    if (tasks.ready_for_use)
        return;
#ifdef TASK_ASAN
    *(void **)&switch_context = dlsym(dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD), "swapcontext");
    CHECK(switch_context);
#endif
    list_init(&tasks.ready);
    list_init(&tasks.all);
    tasks.ready_for_use = true;
}

/* --- Switching -------------------------------------------------------------------------------- */

/* ThreadSanitizer runs signal handlers late: when the fiber that was interrupted makes a system
 * call. A signal that came while a task ran would wait for that task, which may wait for the
 * signal, or be lost with the task's fiber. So in such builds signals, but for those that report a
 * crash, are kept for the loop. */
struct held_signals {
    sigset_t before;
};

static struct held_signals hold_signals(void)
{
    struct held_signals held = {0};

#ifdef TASK_TSAN
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    sigset_t all;

    sigfillset(&all);
    for (size_t i = 0; i < ARRAY_SIZE(crashes); i++)
        sigdelset(&all, crashes[i]);
    pthread_sigmask(SIG_BLOCK, &all, &held.before);
#endif
    return held;
}

static void release_signals(const struct held_signals *held UNUSED)
{
#ifdef TASK_TSAN
    pthread_sigmask(SIG_SETMASK, &held->before, NULL);
#endif
}

static void switch_to_loop(struct task *task)
{
#ifdef TASK_ASAN
    /* A finished task never comes back: its fake stack is dropped. */
    __sanitizer_start_switch_fiber(task->finished ? NULL : &task->asan_fake_stack,
                                   tasks.loop_stack_bottom, tasks.loop_stack_size);
#endif
#ifdef TASK_TSAN
    __tsan_switch_to_fiber(tasks.loop_fiber, 0);
#endif
    switch_context(&task->context, &tasks.loop_context);
#ifdef TASK_ASAN
    __sanitizer_finish_switch_fiber(task->asan_fake_stack, &tasks.loop_stack_bottom,
                                    &tasks.loop_stack_size);
#endif
}

static void switch_to_task(struct task *task)
{
    struct held_signals held = hold_signals();
    uint64_t slice_us;

    current_task = task;
    task->wait_reason = NULL;
    task->slice_start_us = clock_us();
#ifdef TASK_ASAN
    __sanitizer_start_switch_fiber(&tasks.loop_fake_stack, task->stack->bottom, task->stack->size);
#endif
#ifdef TASK_TSAN
    tasks.loop_fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(task->tsan_fiber, 0);
#endif
    switch_context(&tasks.loop_context, &task->context);
#ifdef TASK_ASAN
    __sanitizer_finish_switch_fiber(tasks.loop_fake_stack, NULL, NULL);
#endif
    release_signals(&held);
    current_task = NULL;
    slice_us = clock_us() - task->slice_start_us;
    loop_note_slice(task->name, slice_us);
}

void task_suspend(const char *reason)
{
    struct task *task = current_task;

    task->wait_reason = reason;
    task->waiting_since_ms = loop_now_ms();
    switch_to_loop(task);
}

void task_wake(struct task *task)
{
    if (list_empty(&task->ready_node))
        list_append(&tasks.ready, &task->ready_node);
}

/* --- Life of a task --------------------------------------------------------------------------- */

static void group_note_end(struct group *group, bool ok, struct error *err)
{
    struct error *first = &group->first_error;

    group->running--;
    if (!ok) {
        /* A cancellation is mostly the echo of another failure: that one is what counts. */
        if (!error_is_set(first) ||
            (first->code == ERROR_CANCELLED && error_is_set(err) && err->code != ERROR_CANCELLED))
            error_move(first, err);
        if (!error_is_set(first))
            error_set(first, ERROR_UNKNOWN, NULL, "a task failed without saying why");
        if (!group->cancelled) /* once: it goes through all of them */
            group_cancel(group);
    }
    if (group->waiter)
        task_wake(group->waiter);
}

static void task_entry(void)
{
    struct task *task = current_task;
    CLEANUP_ERROR struct error err = {0};
    bool ok;

#ifdef TASK_ASAN
    __sanitizer_finish_switch_fiber(NULL, &tasks.loop_stack_bottom, &tasks.loop_stack_size);
#endif
    ok = task->fn(task->arg, &err);
    if (task->shields || task->deadline)
        die("task \"%s\" ended while holding a shield or a deadline", task->name);
    list_remove(&task->group_node);
    group_note_end(task->group, ok, &err);
    error_done(&err);
    task->finished = true;
    switch_to_loop(task);
    die("task \"%s\" resumed after its end", task->name);
}

static void task_free(struct task *task)
{
    CHECK(task->finished);
    list_remove(&task->ready_node);
    list_remove(&task->all_node);
#ifdef TASK_TSAN
    struct held_signals held = hold_signals();
    __tsan_destroy_fiber(task->tsan_fiber); /* switches to it and back */
    release_signals(&held);
#endif
    stack_free(task->stack); /* and with it the task */
    tasks.count--;
}

bool task_spawn(struct group *group, const char *name, const char *detail, task_fn fn, void *arg,
                struct error *err)
{
    struct stack *stack = NULL;
    struct held_signals held;
    struct task *task;

    loop_get();
    tasks_init();
    if (tasks.count < tasks.max)
        stack = stack_new();
    if (!stack) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "TOO_MANY_TASKS",
                  "cannot start task \"%s\": %zu tasks are running", name, tasks.count);
        return error_hint(err, "wait until some of the work is done and try again");
    }
    task = stack_reserve(stack, sizeof(*task));
    task->stack = stack;
    task->group = group;
    task->fn = fn;
    task->arg = arg;
    task->cancelled = group->cancelled;
    task->spawned_ms = loop_now_ms();
    snprintf(task->name, sizeof(task->name), detail ? "%s %s" : "%s", name, detail);
    held = hold_signals(); /* getcontext saves the mask, the task runs with it */
    getcontext(&task->context);
    task->context.uc_stack.ss_sp = stack->bottom;
    task->context.uc_stack.ss_size = stack->size;
    makecontext(&task->context, task_entry, 0);
#ifdef TASK_TSAN
    task->tsan_fiber = __tsan_create_fiber(0);
#endif
    release_signals(&held);
    list_init(&task->ready_node);
    list_init(&task->queue_node);
    list_append(&group->tasks, &task->group_node);
    list_append(&tasks.all, &task->all_node);
    group->running++;
    tasks.count++;
    task_wake(task);
    return true;
}

/* A round longer than this is interrupted for the events that came in meanwhile. */
#define ROUND_US 3000

bool tasks_run_ready(void)
{
    uint64_t started_us = clock_us();
    struct list batch;

    tasks_init();
    list_init(&batch);
    /* Only what is ready now: a task that yields comes in the next round, after the events. */
    list_move_all(&batch, &tasks.ready);
    while (!list_empty(&batch) && clock_us() - started_us < ROUND_US) {
        struct list *node = list_first(&batch);
        struct task *task = LIST_ITEM(node, struct task, ready_node);
        list_remove(node);
        switch_to_task(task);
        if (task->finished)
            task_free(task);
    }
    list_move_all(&batch, &tasks.ready); /* the rest of the round comes first in the next one */
    list_move_all(&tasks.ready, &batch);
    return !list_empty(&tasks.ready);
}

/* --- Groups ----------------------------------------------------------------------------------- */

void group_init(struct group *group)
{
    *group = (struct group){0};
    list_init(&group->tasks);
}

void group_cancel(struct group *group)
{
    group->cancelled = true;
    LIST_FOR_EACH (node, &group->tasks) {
        task_cancel(LIST_ITEM(node, struct task, group_node));
    }
}

static void group_wait_once(struct group *group, struct task *task)
{
    if (task->group == group)
        die("task \"%s\" waits for the group it belongs to", task->name);
    if (group->waiter)
        die("task \"%s\" waits for a group that \"%s\" waits for", task->name, group->waiter->name);
    group->waiter = task;
    task_suspend("waiting for its tasks");
    group->waiter = NULL;
}

bool await_group(struct group *group, struct error *err)
{
    struct task *task = task_require("await_group");
    CLEANUP_ERROR struct error first = {0};
    int interrupted = 0;

    while (group->running) {
        if (!interrupted && (interrupted = task_check()) < 0)
            group_cancel(group);
        group_wait_once(group, task);
    }
    error_move(&first, &group->first_error);
    group_init(group);
    if (interrupted)
        return await_error(err, interrupted, "waiting for tasks");
    if (error_is_set(&first))
        return error_move(err, &first);
    return true;
}

int await_group_idle(struct group *group, uint64_t timeout_ms)
{
    struct task *task = task_require("await_group_idle");
    CLEANUP(deadline_pop) struct deadline deadline;
    int r;

    deadline_push(&deadline, timeout_ms);
    while (group->running) {
        if ((r = task_check()) < 0)
            return r;
        group_wait_once(group, task);
    }
    return 0;
}

void group_done_await(struct group *group)
{
    struct task *task = current_task;

    if (group->running && !task)
        die("a group with %zu running tasks is destroyed outside of a task", group->running);
    if (group->running)
        group_cancel(group);
    while (group->running)
        group_wait_once(group, task);
    error_done(&group->first_error);
    group_init(group);
}

/* --- The current task ------------------------------------------------------------------------- */

struct task *task_current(void)
{
    return current_task;
}

struct task *task_require(const char *await_name)
{
    if (!current_task)
        die("%s called outside of a task", await_name);
    return current_task;
}

const char *task_name(const struct task *task)
{
    return task->name;
}

void task_cancel(struct task *task)
{
    task->cancelled = true;
    if (task != current_task)
        task_wake(task);
}

int task_check(void)
{
    const struct task *task = task_require("task_check");
    const struct deadline *deadline = task->deadline;

    if (task->cancelled && !task->shields)
        return -ECANCELED;
    if (deadline && deadline->shields == task->shields && loop_now_ms() >= deadline->expires_ms)
        return -ETIMEDOUT;
    return 0;
}

int await_yield(void)
{
    struct task *task = task_require("await_yield");
    int r = task_check();

    if (r < 0)
        return r;
    task_wake(task);
    task_suspend("yielding");
    return task_check();
}

int await_slice(void)
{
    const struct task *task = task_require("await_slice");

    return clock_us() - task->slice_start_us < TASK_SLICE_US ? task_check() : await_yield();
}

struct task_shield task_shield(void)
{
    struct task *task = task_require("task_shield");

    task->shields++;
    return (struct task_shield){.task = task};
}

void task_unshield(struct task_shield *shield)
{
    struct task *task = shield->task;

    CHECK(task == current_task && task->shields);
    CHECK(!task->deadline || task->deadline->shields < task->shields); /* pop it first */
    task->shields--;
}

static void deadline_expired(struct loop_timer *timer)
{
    task_wake(CONTAINER_OF(timer, struct deadline, timer)->task);
}

void deadline_push(struct deadline *deadline, uint64_t timeout_ms)
{
    struct task *task = task_require("deadline_push");
    struct deadline *outer = task->deadline;
    uint64_t now = loop_update_now_ms();

    *deadline = (struct deadline){.task = task, .outer = outer, .shields = task->shields};
    deadline->expires_ms = timeout_ms < UINT64_MAX - now ? now + timeout_ms : UINT64_MAX;
    if (outer && outer->shields == task->shields)
        deadline->expires_ms = MIN(deadline->expires_ms, outer->expires_ms);
    loop_timer_start_at(&deadline->timer, deadline->expires_ms, deadline_expired);
    task->deadline = deadline;
}

void deadline_pop(struct deadline *deadline)
{
    struct task *task = deadline->task;

    CHECK(task == current_task && task->deadline == deadline);
    CHECK(task->shields == deadline->shields); /* unshield first */
    loop_timer_stop(&deadline->timer);
    task->deadline = deadline->outer;
}

/* --- Waiting for state ------------------------------------------------------------------------ */

void wait_queue_init(struct wait_queue *queue)
{
    list_init(&queue->waiters);
}

void wake_one(struct wait_queue *queue)
{
    struct list *node = list_first(&queue->waiters);

    if (node) {
        struct task *task = LIST_ITEM(node, struct task, queue_node);
        list_remove(node);
        task->woken = true;
        task_wake(task);
    }
}

void wake_all(struct wait_queue *queue)
{
    while (!list_empty(&queue->waiters))
        wake_one(queue);
}

int await_wake(struct wait_queue *queue, const char *reason)
{
    struct task *task = task_require("await_wake");
    int r = 0;

    task->woken = false;
    list_append(&queue->waiters, &task->queue_node);
    while (!task->woken && (r = task_check()) == 0)
        task_suspend(reason);
    list_remove(&task->queue_node);
    return task->woken ? 0 : r;
}

static void event_wait_once(struct event *event, struct task *task, const char *reason)
{
    if (event->task)
        die("task \"%s\" waits for an event that \"%s\" waits for", task->name, event->task->name);
    event->task = task;
    task_suspend(reason);
    event->task = NULL;
}

int await_event(struct event *event, const char *reason)
{
    struct task *task = task_require("await_event");
    int r;

    while ((r = task_check()) == 0 && !event->fired)
        event_wait_once(event, task, reason);
    if (r == 0)
        event->fired = false;
    return r;
}

int await_event_always(struct event *event, const char *reason)
{
    struct task *task = task_require("await_event_always");

    while (!event->fired)
        event_wait_once(event, task, reason);
    event->fired = false;
    return task_check();
}

void event_fire(struct event *event)
{
    event->fired = true;
    if (event->task)
        task_wake(event->task);
}

/* --- Looking at them -------------------------------------------------------------------------- */

size_t task_count(void)
{
    return tasks.count;
}

void task_set_max(size_t max)
{
    tasks.max = max;
}

void task_dump(void)
{
    tasks_init();
    log_info("tasks", LOG("count", tasks.count), LOG("max", tasks.max));
    LIST_FOR_EACH (node, &tasks.all) {
        const struct task *task = LIST_ITEM(node, struct task, all_node);
        bool waiting = task->wait_reason != NULL;
        log_info("task", LOG("name", (const char *)task->name),
                 LOG("waiting_for", waiting                ? task->wait_reason
                                    : task == current_task ? "(running)"
                                                           : "(about to start)"),
                 LOG("waiting_ms", waiting ? loop_now_ms() - task->waiting_since_ms : 0),
                 LOG("age_ms", loop_now_ms() - task->spawned_ms),
                 LOG("state", task->cancelled ? "cancelled" : "alive"));
    }
}
