/* Timers embedded in what they time: no allocation, and stopping takes effect at once. Any number
 * of them: starting and stopping cost O(log n). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct loop_timer {
    uint64_t expires_ms; /* on the loop's clock, while running */
    void (*fire)(struct loop_timer *timer);
    bool running;
    /* Place in the heap (timer.c). */
    uint64_t sequence;
    struct loop_timer *child, *next, *previous;
};

/* Calls fire(timer) on the loop once timeout_ms have passed, never inside this call; restarts a
 * running timer. Timers of equal expiry fire in the order of their start. The timer must stay in
 * memory until it fired or was stopped. Only on the loop's thread. */
void loop_timer_start(struct loop_timer *timer, uint64_t timeout_ms,
                      void (*fire)(struct loop_timer *timer));

/* Never fires after this. Does nothing for a timer that is not running or all zero. */
void loop_timer_stop(struct loop_timer *timer);
