/* Shared between the files of this folder only. */
#pragma once

#include <ucontext.h>
#include <uv.h>

#include "proto/async/task.h"

/* gcc tells by macros, clang by features. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TASK_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define TASK_TSAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define TASK_ASAN 1
#endif
#ifdef __SANITIZE_THREAD__
#define TASK_TSAN 1
#endif

struct task {
    struct list ready_node; /* in the ready list while it is to be resumed */
    struct list queue_node; /* in the wait queue it waits in */
    struct list group_node;
    struct list all_node;
    struct group *group;
    task_fn fn;
    void *arg;
    char name[64];
    const char *wait_reason; /* static text; NULL while ready or running */
    uint64_t spawned_ms, waiting_since_ms, slice_start_us;
    bool cancelled, finished, woken;
    unsigned int shields;
    struct deadline *deadline; /* innermost */
    struct stack *stack;
    ucontext_t context;
    void *asan_fake_stack;
    void *tsan_fiber;
};

/* Memory of one coroutine's stack, with a guard below. Recycled through a small pool. This struct
 * and what is reserved lie in the same mapping, above the stack: when it is unmapped all is gone,
 * and ten thousand tasks leave no holes in the heap. */
struct stack {
    void *bottom; /* lowest usable byte; the guard ends here */
    size_t size;
    void *mapping;
    size_t mapping_size;
    unsigned int valgrind_id;
    struct stack *next_free;
};
struct stack *stack_new(void);                         /* NULL: the system has no more */
void *stack_reserve(struct stack *stack, size_t size); /* zeroed, from the top of a fresh one */
void stack_free(struct stack *stack);
void stack_pool_clear(void);

/* From now on a task that runs out of its stack is named before the process dies of it. */
void stack_watch_overflow(void);

/* Runs every task that is ready now, once. Called by the loop, outside of any task. True if some
 * are ready again. */
bool tasks_run_ready(void);

/* Puts a task on the ready list, if it is not there. */
void task_wake(struct task *task);

/* Gives control back to the loop until task_wake. Wake-ups may be spurious: callers loop. */
void task_suspend(const char *reason);

/* The running task; aborts with the name of the await if there is none. */
struct task *task_require(const char *await_name);

/* All running timers of the loop. */
struct timers {
    struct loop_timer *first; /* the next to fire */
    uint64_t sequence;
};
void timers_add(struct timers *timers, struct loop_timer *timer); /* expires_ms is set */
void timers_remove(struct timers *timers, struct loop_timer *timer);

/* Like loop_timer_start, at a time of the loop's clock. */
void loop_timer_start_at(struct loop_timer *timer, uint64_t expires_ms,
                         void (*fire)(struct loop_timer *timer));

/* The loop's clock, brought up to date: what a task does may have taken a while. */
uint64_t loop_update_now_ms(void);

uint64_t clock_us(void);

/* The task that kept the loop longest in this iteration. */
void loop_note_slice(const char *task_name, uint64_t slice_us);

/* The handle belongs to a process whose owner has freed it: it closes itself when that ends. */
bool process_is_orphan(const uv_handle_t *handle);
