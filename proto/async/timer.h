/* Timers embedded in what they time: no allocation, and stopping takes effect at once. */
#pragma once

#include "proto/base/list.h"

struct loop_timer {
    struct list node; /* zero or self-linked while not running */
    uint64_t expires_ms;
    void (*fire)(struct loop_timer *timer);
};

/* Calls fire(timer) on the loop once timeout_ms have passed; restarts a running timer. The timer
 * must stay in memory until it fired or was stopped. */
void loop_timer_start(struct loop_timer *timer, uint64_t timeout_ms,
                      void (*fire)(struct loop_timer *timer));

/* Never fires after this. Does nothing for a timer that is not running or all zero. */
void loop_timer_stop(struct loop_timer *timer);
