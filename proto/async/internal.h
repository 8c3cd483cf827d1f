/* Shared between the files of this folder only. */
#pragma once

#include <ucontext.h>
#include <uv.h>

#include "proto/async/task.h"

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

/* Memory of one coroutine's stack, with a guard page below. Recycled through a small pool. */
struct stack {
    void *bottom; /* lowest usable byte */
    size_t size;
    void *mapping;
    size_t mapping_size;
    unsigned int valgrind_id;
    struct stack *next_free;
};
struct stack *stack_new(void); /* NULL: the system has no more */
void stack_free(struct stack *stack);
void stack_pool_clear(void);

/* Runs every task that is ready now, once. Called by the loop, outside of any task. True if some
 * are ready again. */
bool tasks_run_ready(void);

/* Puts a task on the ready list, if it is not there. */
void task_wake(struct task *task);

/* Gives control back to the loop until task_wake. Wake-ups may be spurious: callers loop. */
void task_suspend(const char *reason);

/* The running task; aborts with the name of the await if there is none. */
struct task *task_require(const char *await_name);

uint64_t clock_us(void);

/* The task that kept the loop longest in this iteration. */
void loop_note_slice(const char *task_name, uint64_t slice_us);
