/* For tests of code that awaits: each TASK_TEST(name) { ...; return true; } is a cmocka test whose
 * body runs as the main task of a fresh loop. `err` is at hand in the body; returning false fails
 * the test with its message. A loop that ends with tasks, timers or handles left over aborts. */
#pragma once

#include "tests/unit/test.h"

#include "proto/async/loop.h"
#include "proto/async/task.h"

static inline void run_task(task_fn fn, void *arg)
{
    static bool running;
    CLEANUP_ERROR struct error err = {0};

    if (running)
        fail_msg("an earlier test failed inside its task: the loop cannot be used again");
    running = true;
    assert_ok(loop_run_main(fn, arg, &err), &err);
    running = false;
}

#define TASK_TEST(name)                                    \
    static bool name##_task(void *arg, struct error *err); \
    static void name(void **state)                         \
    {                                                      \
        (void)state;                                       \
        run_task(name##_task, NULL);                       \
    }                                                      \
    static bool name##_task(void *arg UNUSED, struct error *err UNUSED)
