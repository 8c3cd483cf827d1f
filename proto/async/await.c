#include "proto/async/await.h"

#include <errno.h>

#include "proto/async/internal.h"
#include "proto/async/loop.h"

struct sleeper {
    struct loop_timer timer;
    struct event event;
};

static void on_sleep_over(struct loop_timer *timer)
{
    event_fire(&CONTAINER_OF(timer, struct sleeper, timer)->event);
}

int await_sleep(uint64_t ms)
{
    struct sleeper sleeper = {0};
    int r;

    task_require("await_sleep");
    loop_timer_start(&sleeper.timer, ms, on_sleep_over);
    r = await_event(&sleeper.event, "sleeping");
    loop_timer_stop(&sleeper.timer);
    return r;
}

struct work {
    uv_work_t request;
    void (*fn)(void *arg);
    void *arg;
    struct task *task;
    bool ended, withdrawn;
};

static void work_run(uv_work_t *request)
{
    struct work *work = request->data;

    work->fn(work->arg);
}

static void work_ended(uv_work_t *request, int status)
{
    struct work *work = request->data;

    work->ended = true;
    work->withdrawn = status == UV_ECANCELED;
    task_wake(work->task);
}

int await_work(void (*fn)(void *arg), void *arg, const char *reason)
{
    struct work work = {.fn = fn, .arg = arg, .task = task_require("await_work")};
    bool asked = false;
    int r = task_check();

    if (r < 0)
        return r;
    work.request.data = &work;
    if (uv_queue_work(loop_uv(), &work.request, work_run, work_ended) < 0)
        die("cannot queue work");
    while (!work.ended) {
        task_suspend(reason);
        if (!work.ended && !asked && task_check() < 0) {
            asked = true;
            uv_cancel((uv_req_t *)&work.request); /* fails if it has started: then it finishes */
        }
    }
    if (!work.withdrawn)
        return 0;
    r = task_check();
    return r < 0 ? r : -ECANCELED;
}
