#include "proto/async/loop.h"

#include <signal.h>
#include <stdio.h>

#include "proto/async/internal.h"
#include "proto/base/log.h"

struct deferred {
    struct list node;
    void (*fn)(void *arg);
    void *arg;
};

struct loop {
    uv_loop_t uv;
    uv_prepare_t prepare; /* runs the ready tasks before each poll, keeps the loop alive */
    uv_idle_t idle;       /* active while tasks are ready: the poll does not wait */
    uv_timer_t timer;     /* for the first of `timers` */
    struct timers timers;
    struct list deferred;
    bool interrupted; /* a signal came in this iteration */
    uint64_t iteration_start_us, iteration_idle_us;
    uint64_t slice_us; /* of the task that ran longest in this iteration */
    char slice_name[64];
    struct loop_stall worst;
    struct group main_group;
    bool running;
};

static struct loop *the_loop;

uint64_t clock_us(void)
{
    return uv_hrtime() / 1000;
}

/* --- Timers ----------------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *handle);

static void timers_arm(struct loop *loop, uint64_t at_least_ms)
{
    const struct loop_timer *first = loop->timers.first;
    uint64_t now = uv_now(&loop->uv);

    if (first)
        uv_timer_start(&loop->timer, on_timer,
                       first->expires_ms > now + at_least_ms ? first->expires_ms - now
                                                             : at_least_ms,
                       0);
    else
        uv_timer_stop(&loop->timer);
}

static void on_timer(uv_timer_t *handle)
{
    struct loop *loop = handle->data;
    uint64_t now = uv_now(&loop->uv), last = loop->timers.sequence;
    struct loop_timer *timer;

    /* One that is started meanwhile waits for the next time, even if it is due at once. */
    while ((timer = loop->timers.first) && timer->expires_ms <= now && timer->sequence <= last) {
        timers_remove(&loop->timers, timer);
        timer->fire(timer);
    }
    /* libuv before 1.45 would call this again, and never poll, for a timer that is due at once. */
    timers_arm(loop, 1);
}

void loop_timer_start_at(struct loop_timer *timer, uint64_t expires_ms,
                         void (*fire)(struct loop_timer *timer))
{
    struct loop *loop = loop_get();

    loop_timer_stop(timer);
    timer->expires_ms = expires_ms;
    timer->fire = fire;
    timers_add(&loop->timers, timer);
    if (loop->timers.first == timer)
        timers_arm(loop, 0);
}

void loop_timer_start(struct loop_timer *timer, uint64_t timeout_ms,
                      void (*fire)(struct loop_timer *timer))
{
    uint64_t now = loop_update_now_ms();

    loop_timer_start_at(timer, timeout_ms < UINT64_MAX - now ? now + timeout_ms : UINT64_MAX, fire);
}

void loop_timer_stop(struct loop_timer *timer)
{
    if (timer->running)
        timers_remove(&loop_get()->timers, timer);
}

uint64_t loop_update_now_ms(void)
{
    uv_update_time(loop_uv());
    return loop_now_ms();
}

/* --- Iterations ------------------------------------------------------------------------------- */

void loop_note_slice(const char *task_name, uint64_t slice_us)
{
    struct loop *loop = the_loop;

    if (slice_us <= loop->slice_us)
        return;
    loop->slice_us = slice_us;
    snprintf(loop->slice_name, sizeof(loop->slice_name), "%s", task_name);
}

/* One iteration is measured from prepare to prepare, without the time spent waiting in poll. When
 * a signal interrupts the poll, libuv (1.44) forgets how long it had waited until then: of such an
 * iteration only what ran in prepare counts, the tasks. */
static void measure_stall(struct loop *loop, uint64_t prepare_us)
{
    uint64_t now_us = clock_us(), idle_us = uv_metrics_idle_time(&loop->uv) / 1000;
    uint64_t began_us = loop->interrupted ? prepare_us : loop->iteration_start_us;
    uint64_t elapsed_us = now_us - began_us;
    uint64_t waited_us = loop->interrupted ? 0 : idle_us - loop->iteration_idle_us;
    uint64_t busy_us = elapsed_us > waited_us ? elapsed_us - waited_us : 0;

    if (loop->iteration_start_us && busy_us > loop->worst.worst_us) {
        bool was_task = loop->slice_us * 2 > busy_us;
        loop->worst.worst_us = busy_us;
        snprintf(loop->worst.task_name, sizeof(loop->worst.task_name), "%s",
                 was_task ? loop->slice_name : "");
    }
#ifndef NDEBUG
    if (loop->iteration_start_us && busy_us > LOOP_STALL_WARN_US) {
        log_debug("the loop stalled", LOG("us", busy_us), LOG("task", loop->slice_name),
                  LOG("task_us", loop->slice_us));
    }
#endif
    loop->iteration_start_us = now_us;
    loop->iteration_idle_us = idle_us;
    loop->interrupted = false;
    loop->slice_us = 0;
    loop->slice_name[0] = '\0';
}

static void run_deferred(struct loop *loop)
{
    struct list batch, *node;

    list_init(&batch);
    list_move_all(&batch, &loop->deferred);
    while ((node = list_first(&batch))) {
        struct deferred *deferred = LIST_ITEM(node, struct deferred, node);
        list_remove(node);
        deferred->fn(deferred->arg);
        free(deferred);
    }
}

static void on_idle(uv_idle_t *handle UNUSED)
{
}

static void on_prepare(uv_prepare_t *handle)
{
    struct loop *loop = handle->data;
    uint64_t began_us = clock_us();
    bool more;

    run_deferred(loop);
    more = tasks_run_ready();
    if (more || !list_empty(&loop->deferred))
        uv_idle_start(&loop->idle, on_idle);
    else
        uv_idle_stop(&loop->idle);
    measure_stall(loop, began_us);
    if (!loop->main_group.running)
        uv_stop(&loop->uv);
}

/* --- The loop --------------------------------------------------------------------------------- */

struct loop *loop_get(void)
{
    struct loop *loop = the_loop;

    if (loop)
        return loop;
    /* A peer that goes away is an error of write(2), not the end of the process. */
    signal(SIGPIPE, SIG_IGN);
    /* Who started us may have had it ignored, which would reap children before they are asked. */
    signal(SIGCHLD, SIG_DFL);
    loop = xcalloc(1, sizeof(*loop));
    if (uv_loop_init(&loop->uv) < 0)
        die("cannot create the event loop");
    uv_loop_configure(&loop->uv, UV_METRICS_IDLE_TIME);
    uv_prepare_init(&loop->uv, &loop->prepare);
    uv_idle_init(&loop->uv, &loop->idle);
    uv_timer_init(&loop->uv, &loop->timer);
    loop->prepare.data = loop->timer.data = loop;
    list_init(&loop->deferred);
    group_init(&loop->main_group);
    stack_watch_overflow();
    the_loop = loop;
    return loop;
}

uv_loop_t *loop_uv(void)
{
    return &loop_get()->uv;
}

uint64_t loop_now_ms(void)
{
    return uv_now(loop_uv());
}

struct loop_stall loop_worst_stall(void)
{
    return loop_get()->worst;
}

void loop_reset_stall(void)
{
    loop_get()->worst = (struct loop_stall){0};
}

void loop_defer(void (*fn)(void *arg), void *arg)
{
    struct deferred *deferred = xcalloc(1, sizeof(*deferred));

    deferred->fn = fn;
    deferred->arg = arg;
    list_append(&loop_get()->deferred, &deferred->node);
}

static void check_closed(uv_handle_t *handle, void *arg UNUSED)
{
    if (!uv_is_closing(handle) && !process_is_orphan(handle))
        die("the loop ends while a handle is open: %s", uv_handle_type_name(handle->type));
}

static void loop_close(struct loop *loop)
{
    if (loop->timers.first)
        die("the loop ends while a timer is running");
    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_close((uv_handle_t *)&loop->idle, NULL);
    uv_close((uv_handle_t *)&loop->timer, NULL);
    do {
        run_deferred(loop);
        uv_walk(&loop->uv, check_closed, NULL);
        uv_run(&loop->uv, UV_RUN_DEFAULT);
    } while (!list_empty(&loop->deferred));
    if (uv_loop_close(&loop->uv) < 0)
        die("the loop ends while a handle is open");
    stack_pool_clear();
    free(loop);
    the_loop = NULL;
}

bool loop_run_main(bool (*main_task)(void *arg, struct error *err), void *arg, struct error *err)
{
    struct loop *loop = loop_get();
    struct error first;

    if (loop->running)
        die("the loop is already running");
    loop->running = true;
    uv_update_time(&loop->uv);
    if (!task_spawn(&loop->main_group, "main", NULL, main_task, arg, err)) {
        loop_close(loop);
        return false;
    }
    uv_prepare_start(&loop->prepare, on_prepare);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    if (task_count()) {
        task_dump();
        die("the main task ended while %zu tasks were running", task_count());
    }
    first = loop->main_group.first_error;
    loop_close(loop);
    if (!error_is_set(&first))
        return true;
    return error_move(err, &first);
}

/* --- Signals ---------------------------------------------------------------------------------- */

struct loop_signal {
    uv_signal_t handle;
    void (*fn)(int signum, void *arg);
    void *arg;
};

static void on_signal(uv_signal_t *handle, int signum)
{
    struct loop_signal *handler = handle->data;

    the_loop->interrupted = true;
    handler->fn(signum, handler->arg);
}

struct loop_signal *loop_signal_start(int signum, void (*fn)(int signum, void *arg), void *arg)
{
    struct loop_signal *handler = xcalloc(1, sizeof(*handler));

    handler->fn = fn;
    handler->arg = arg;
    uv_signal_init(loop_uv(), &handler->handle);
    handler->handle.data = handler;
    if (uv_signal_start(&handler->handle, on_signal, signum) < 0)
        die("cannot handle signal %d", signum);
    uv_unref((uv_handle_t *)&handler->handle);
    return handler;
}

static void on_signal_closed(uv_handle_t *handle)
{
    free(handle->data);
}

struct loop_signal *loop_signal_stop(struct loop_signal *handler)
{
    if (handler)
        uv_close((uv_handle_t *)&handler->handle, on_signal_closed);
    return NULL;
}
