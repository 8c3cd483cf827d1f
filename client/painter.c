#include "client/painter.h"

#include <errno.h>
#include <signal.h>

#define REDRAW_MS 100

bool await_painter_show(struct painter *painter, const struct strbuf *text, struct error *err)
{
    if (painter->fd == STDERR_FILENO)
        return await_cli_print_error(painter->cli, text->data, text->length, err);
    return await_cli_print(painter->cli, text->data, text->length, err);
}

/* --- The task ----------------------------------------------------------------------------------
 */

/* Waits until REDRAW_MS have passed or the last state has come. */
static int await_next_frame(struct painter *painter)
{
    CLEANUP(deadline_pop) struct deadline frame;
    deadline_push(&frame, REDRAW_MS);
    int r = 0;
    while (r == 0 && !painter->finished)
        r = await_wake(&painter->changed, "next frame");
    return r == -ETIMEDOUT ? 0 : r;
}

static bool await_paint(struct painter *painter, struct error *err)
{
    for (;;) {
        int r = 0;
        while (r == 0 && !painter->stale && !painter->finished)
            r = await_wake(&painter->changed, "something to show");
        if (r < 0)
            return await_error(err, r, "showing progress");
        if (!painter->stale)
            return true;
        CLEANUP_STRBUF struct strbuf frame = {0};
        painter->stale = false;
        painter->render(painter->arg, &frame);
        if (!await_painter_show(painter, &frame, err))
            return false;
        if ((r = await_next_frame(painter)) < 0)
            return await_error(err, r, "showing progress");
    }
}

static bool painter_main(void *arg, struct error *err)
{
    struct painter *painter = arg;
    if (await_paint(painter, err))
        return true;
    if (err->code == ERROR_CANCELLED)
        return false; /* the main task ends, and has its own words for why */
    /* Without a reader there is nothing to do it for. */
    error_copy(&painter->error, err);
    task_cancel(painter->cli->main_task);
    return false;
}

/* --- The terminal ------------------------------------------------------------------------------
 */

static void on_resize(int signum UNUSED, void *arg)
{
    struct painter *painter = arg;
    if (painter->has_state)
        painter_changed(painter, true);
}

static void leave_terminal(struct painter *painter)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    painter->leave(painter->arg, &text);
    if (text.length && write(painter->fd, text.data, text.length) < 0)
        return; /* the terminal has gone: nothing to put right */
}

/* Ctrl-Z: the shell gets an orderly terminal; `fg` goes on below. */
static void on_stop(int signum UNUSED, void *arg)
{
    leave_terminal(arg);
    raise(SIGSTOP);
    on_resize(SIGWINCH, arg);
}

/* --- Life --------------------------------------------------------------------------------------
 */

bool painter_start(struct painter *painter, struct error *err)
{
    group_init(&painter->group);
    wait_queue_init(&painter->changed);
    if (!painter->render)
        return true;
    if (painter->live) {
        painter->on_resize = loop_signal_start(SIGWINCH, on_resize, painter);
        painter->on_stop = loop_signal_start(SIGTSTP, on_stop, painter);
    }
    return task_spawn(&painter->group, "progress", NULL, painter_main, painter, err);
}

void painter_changed(struct painter *painter, bool show)
{
    painter->has_state = true;
    painter->stale = show;
    wake_all(&painter->changed);
}

bool await_painter_finish(struct painter *painter, struct error *err)
{
    painter->finished = true;
    wake_all(&painter->changed);
    return await_group(&painter->group, err);
}

void painter_leave(struct painter *painter)
{
    if (painter->live)
        leave_terminal(painter);
}

void painter_done_await(struct painter *painter)
{
    group_done_await(&painter->group);
    if (painter->on_resize)
        loop_signal_stop(painter->on_resize);
    if (painter->on_stop)
        loop_signal_stop(painter->on_stop);
    painter_leave(painter);
    error_done(&painter->error);
}
