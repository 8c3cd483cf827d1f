#include "client/watch.h"

#include <signal.h>
#include <stdio.h>

#include "client/painter.h"
#include "client/ui/progress.h"
#include "proto/async/await.h"
#include "proto/base/json.h"
#include "proto/base/size.h"

#define COUNTDOWN_MS 1000
#define CANCEL_TIMEOUT_MS 10000

enum progress_mode { PROGRESS_TTY, PROGRESS_PLAIN, PROGRESS_JSON, PROGRESS_NONE };

/* Two tasks: the caller's receives snapshots and keeps the newest; the painter shows it. On a
 * terminal a third counts down what is waited for. */
struct watch {
    struct cli *cli;
    const struct watch_options *options;
    enum progress_mode mode;
    struct painter painter;
    struct group clock;
    struct progress_screen screen;
    struct progress_lines lines;
    char *notice, *home;

    job_snapshot *now; /* the newest; NULL before the first */
    struct loop_signal *on_interrupt;
    unsigned interrupts;
    bool cancels; /* the job is to end */
};

static int64_t now_unix_ms(void)
{
    return wall_clock_ns() / 1000000;
}

static bool has_result(const struct watch *watch)
{
    return watch->now && watch->now->state == DAVIT__V1__JOB__STATE__DONE;
}

/* --- The painter -------------------------------------------------------------------------------
 */

static void draw(struct watch *watch, struct strbuf *out)
{
    watch->screen.now_unix_ms = now_unix_ms();
    progress_draw(&watch->screen, watch->now, terminal_size(watch->painter.fd), out);
}

static void render(void *arg, struct strbuf *out)
{
    struct watch *watch = arg;
    if (watch->mode == PROGRESS_JSON) {
        progress_add_json(watch->now, false, out);
    } else if (watch->mode == PROGRESS_PLAIN) {
        watch->lines.now_unix_ms = now_unix_ms();
        progress_say(&watch->lines, watch->now, out);
    } else {
        draw(watch, out);
    }
}

static void leave_screen(void *arg, struct strbuf *out)
{
    struct watch *watch = arg;
    if (watch->screen.drawn) /* over the terminal's echo of Ctrl-C */
        draw(watch, out);
    progress_leave(&watch->screen, out);
}

static bool counts_down(const struct watch *watch)
{
    for (size_t i = 0; watch->now && i < watch->now->progress->n_items; i++) {
        if (watch->now->progress->items[i]->until_unix_ms > 0)
            return true;
    }
    return false;
}

static bool clock_main(void *arg, struct error *err UNUSED)
{
    struct watch *watch = arg;
    while (await_sleep(COUNTDOWN_MS) == 0) {
        if (counts_down(watch) && !has_result(watch))
            painter_changed(&watch->painter, true);
    }
    return true;
}

/* --- Interrupts --------------------------------------------------------------------------------
 */

/* In a callback of the loop: nothing to be waited for. */
static void say_hint(struct watch *watch)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    strbuf_addf(&text, "Press Ctrl-C again to cancel; the %s goes on: davit jobs watch %s",
                watch->options->what, watch->now->id);
    if (watch->mode == PROGRESS_TTY) {
        watch->notice = strbuf_take(&text);
        watch->screen.notice = watch->notice;
        painter_changed(&watch->painter, true);
        return;
    }
    strbuf_add_char(&text, '\n');
    (void)!write(STDERR_FILENO, text.data, text.length);
}

static void on_interrupt(int signum, void *arg)
{
    struct watch *watch = arg;
    const bool asks = watch->options->interrupt == WATCH_INTERRUPT_ASKS;
    watch->interrupts++;
    if (asks && watch->now && isatty(STDERR_FILENO) && watch->interrupts == 1) {
        say_hint(watch);
        return;
    }
    if (watch->interrupts > 2) { /* not even for the daemon is to be waited */
        signal(signum, SIG_DFL);
        raise(signum);
    }
    watch->screen.notice = NULL;
    watch->cancels = asks;
    cli_end_by_signal(watch->cli, signum);
}

static void response_free(Davit__V1__CancelJobResponse **response)
{
    davit__v1__cancel_job_response__free_unpacked(*response, NULL);
}

/* Others may wait for it, too: what they asked for is not this one's to cancel. *ret_wanted then.
 */
static bool await_cancel_job(struct watch *watch, bool *ret_wanted, struct error *err)
{
    Davit__V1__CancelJobRequest request = DAVIT__V1__CANCEL_JOB_REQUEST__INIT;
    CLEANUP(response_free) Davit__V1__CancelJobResponse *response = NULL;
    request.id = watch->now->id;
    request.unless_wanted = true;
    if (!await_cli_call(watch->cli, "/davit.v1.Jobs/Cancel", &request.base,
                        &davit__v1__cancel_job_response__descriptor, (ProtobufCMessage **)&response,
                        err))
        return false;
    *ret_wanted = response->wanted;
    return true;
}

/* --- The call ----------------------------------------------------------------------------------
 */

/* What comes from the registry itself is not said to. */
static char *home_of(const char *subject)
{
    char *domain = registry_domain(subject);
    if (!str_eq(domain, "docker.io"))
        return domain;
    free(domain);
    return xstrdup("registry-1.docker.io");
}

static void set_now(struct watch *watch, job_snapshot *now)
{
    if (!now || !now->progress) {
        davit__v1__job__free_unpacked(now, NULL);
        return;
    }
    davit__v1__job__free_unpacked(watch->now, NULL);
    watch->now = now;
    if (!watch->home)
        watch->screen.home = watch->home = home_of(now->subject);
    /* The last one is shown with the result, but for its lines. */
    painter_changed(&watch->painter, !has_result(watch) || watch->mode == PROGRESS_PLAIN);
}

static void set_failure(const Davit__V1__JobFailure *failure, struct error *err)
{
    const enum error_code code = failure->code ? (enum error_code)failure->code : ERROR_UNKNOWN;
    error_set(err, code, str_empty(failure->reason) ? NULL : failure->reason, "%s",
              failure->message);
    if (!str_empty(failure->hint))
        error_hint(err, "%s", failure->hint);
    cli_daemon_error(err);
}

/* Jobs that do not outlive who asked for them. */
static bool ends_with_client(const job_snapshot *job)
{
    return job->kind == DAVIT__V1__JOB__KIND__LOAD || job->kind == DAVIT__V1__JOB__KIND__IMPORT;
}

/* The daemon goes on without us, or has gone itself: either way nothing is lost. */
static bool connection_lost(const struct watch *watch, struct error *err)
{
    if (!watch->now || ends_with_client(watch->now) || !error_is(err, "CONNECTION_LOST"))
        return cli_daemon_error(err);
    return error_hint(err,
                      "the %s goes on if the daemon does: 'davit jobs watch %s' joins it again; "
                      "after a restart of the daemon start it again, what it has done is kept",
                      watch->options->what, watch->now->id);
}

/* Until the stream ends, which it does well only after the job has. */
static bool await_snapshots(struct watch *watch, struct grpc_call *call, struct error *err)
{
    ProtobufCMessage *message = NULL;
    int r;
    while ((r = await_grpc_recv(call, &message, err)) > 0) {
        Davit__V1__JobUpdate *update = (Davit__V1__JobUpdate *)message;
        set_now(watch, TAKE(update->job));
        davit__v1__job_update__free_unpacked(update, NULL);
    }
    if (r < 0)
        return connection_lost(watch, err);
    if (has_result(watch))
        return true;
    if (watch->now && watch->now->failure)
        set_failure(watch->now->failure, err);
    else
        error_set(err, ERROR_INTERNAL, NULL, "the daemon ended the %s without a result",
                  watch->options->what);
    return false;
}

/* --- The end -----------------------------------------------------------------------------------
 */

static bool await_finish(struct watch *watch, struct error *err)
{
    const job_snapshot *last = watch->now;
    const bool pulled = last->result_case == DAVIT__V1__JOB__RESULT_PULL_RESULT;
    CLEANUP_STRBUF struct strbuf text = {0};
    if (watch->options->ret_changed && pulled && !last->pull_result->up_to_date)
        *watch->options->ret_changed = true;
    if (watch->mode == PROGRESS_JSON) {
        progress_add_json(last, true, &text);
    } else if (watch->mode == PROGRESS_NONE) {
        if (!watch->options->within_run && !watch->options->one_of_many && pulled)
            strbuf_addf(&text, "%s\n", last->pull_result->reference);
        if (last->result_case == DAVIT__V1__JOB__RESULT_PUSH_RESULT)
            strbuf_addf(&text, "%s\n", last->push_result->reference);
        if (ends_with_client(last))
            progress_add_result(last, false, false, &text);
    } else {
        if (watch->mode == PROGRESS_TTY)
            progress_draw_last(&watch->screen, last, terminal_size(watch->painter.fd), &text);
        progress_add_result(last, watch->options->within_run, watch->options->one_of_many, &text);
    }
    return await_painter_show(&watch->painter, &text, err);
}

/* Programs that read the JSON need not read standard error. */
static void await_show_json_error(struct watch *watch, const struct error *failure)
{
    CLEANUP_JSON json_t *object =
        json_pack("{s:{s:s, s:s*, s:s, s:s*}}", "error", "code", error_code_name(failure->code),
                  "reason", failure->reason, "message", failure->message ? failure->message : "",
                  "hint", failure->hint);
    CLEANUP_ERROR struct error ignored = {0};
    CLEANUP_STRBUF struct strbuf text = {0};
    if (!object)
        return;
    CLEANUP_FREE char *line = json_text(object);
    strbuf_addf(&text, "%s\n", line);
    await_painter_show(&watch->painter, &text, &ignored);
}

static bool has_last_words(const struct watch *watch)
{
    return watch->now && watch->options->interrupt != WATCH_INTERRUPT_CANCELS &&
           watch->cli->signum != SIGPIPE;
}

/* What was fetched is not lost: the next pull goes on from there. */
static void say_cancelled(const struct watch *watch, const struct error *ending)
{
    const Davit__V1__JobProgress *progress = watch->now->progress;
    fprintf(stderr, "The %s is cancelled.\n", watch->options->what);
    if (ending->hint)
        fprintf(stderr, "Hint: %s\n", ending->hint);
    else if (watch->now->kind == DAVIT__V1__JOB__KIND__PULL && progress->bytes_fetched)
        fprintf(stderr, "Hint: %s of %s are kept for now: the next pull goes on from there\n",
                size_text(progress->bytes_fetched).text, size_text(progress->bytes_total).text);
}

/* A signal has ended the watch, below the screen as it was left. The job is cancelled if that was
 * meant; what became of it is the last thing said. */
static void await_say_goodbye(struct watch *watch, struct grpc_call *call)
{
    CLEANUP(task_unshield) struct task_shield shield = task_shield();
    CLEANUP(deadline_pop) struct deadline deadline;
    CLEANUP_ERROR struct error ignored = {0};
    CLEANUP_ERROR struct error ending = {0};
    const char *what = watch->options->what;
    bool wanted = false, asked;

    deadline_push(&deadline, CANCEL_TIMEOUT_MS);
    asked = watch->cancels && await_cancel_job(watch, &wanted, &ignored);
    if (asked && !wanted && !await_snapshots(watch, call, &ending) &&
        ending.code == ERROR_CANCELLED) {
        if (watch->mode == PROGRESS_JSON)
            await_show_json_error(watch, &ending);
        say_cancelled(watch, &ending);
    } else if (wanted) {
        fprintf(stderr, "The %s goes on, for others wait for it: davit jobs watch %s\n", what,
                watch->now->id);
    } else if (!has_result(watch)) {
        fprintf(stderr, "The %s goes on: davit jobs watch %s\n", what, watch->now->id);
    }
}

static void watch_done_await(struct watch *watch)
{
    if (watch->on_interrupt)
        loop_signal_stop(watch->on_interrupt);
    group_done_await(&watch->clock);
    painter_done_await(&watch->painter);
    progress_lines_done(&watch->lines);
    free(watch->notice);
    free(watch->home);
    davit__v1__job__free_unpacked(watch->now, NULL);
}

static enum progress_mode choose_mode(const struct watch_options *options, int fd)
{
    if (options->quiet)
        return PROGRESS_NONE;
    if (str_eq(options->progress, "json"))
        return PROGRESS_JSON;
    if (str_eq(options->progress, "tty"))
        return PROGRESS_TTY;
    if (str_eq(options->progress, "plain"))
        return PROGRESS_PLAIN;
    return terminal_is_smart(fd) ? PROGRESS_TTY : PROGRESS_PLAIN;
}

static bool watch_start(struct watch *watch, struct error *err)
{
    const int fd = watch->options->within_run ? STDERR_FILENO : STDOUT_FILENO;
    watch->mode = choose_mode(watch->options, fd);
    watch->screen.heading.within_run = watch->lines.heading.within_run = watch->options->within_run;
    watch->screen.color = terminal_wants_color(fd);
    watch->painter = (struct painter){
        .cli = watch->cli,
        .fd = fd,
        .live = watch->mode == PROGRESS_TTY,
        .render = watch->mode == PROGRESS_NONE ? NULL : render,
        .leave = leave_screen,
        .arg = watch,
    };
    group_init(&watch->clock);
    cli_cancel_on_signals(watch->cli);
    watch->on_interrupt = cli_take_interrupt(watch->cli, on_interrupt, watch);
    return painter_start(&watch->painter, err) &&
           (!watch->painter.live ||
            task_spawn(&watch->clock, "countdown", NULL, clock_main, watch, err));
}

bool await_watch(struct cli *cli, struct grpc_call *call, const struct watch_options *options,
                 struct error *err)
{
    CLEANUP(watch_done_await) struct watch watch = {.cli = cli, .options = options};
    if (!watch_start(&watch, err))
        return false;

    CLEANUP_ERROR struct error show_error = {0};
    const bool ended = await_snapshots(&watch, call, err);
    const bool shown = await_painter_finish(&watch.painter, &show_error);
    if (error_is_set(&watch.painter.error))
        return error_move(err, &watch.painter.error);
    if (!ended && watch.mode == PROGRESS_JSON && err->code != ERROR_CANCELLED)
        await_show_json_error(&watch, err);
    if (!ended && cli->signum && has_last_words(&watch)) {
        painter_leave(&watch.painter);
        await_say_goodbye(&watch, call);
    }
    if (!ended)
        return false;
    return shown ? await_finish(&watch, err) : error_move(err, &show_error);
}
