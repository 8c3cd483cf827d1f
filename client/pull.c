#include "client/pull.h"

#include "client/credentials.h"
#include "client/painter.h"
#include "client/ui/progress.h"
#include "proto/base/json.h"
#include "proto/davit/v1/images.pb-c.h"

enum progress_mode { PROGRESS_TTY, PROGRESS_PLAIN, PROGRESS_JSON, PROGRESS_NONE };

/* Two tasks: the caller's receives snapshots and keeps the newest; the painter shows it. */
struct pull {
    struct cli *cli;
    const struct pull_options *options;
    enum progress_mode mode;
    struct painter painter;
    struct progress_screen screen;
    struct progress_lines lines;

    pull_job *now; /* the newest snapshot; NULL before the first */
};

/* --- The painter -------------------------------------------------------------------------------
 */

static void render(void *arg, struct strbuf *out)
{
    struct pull *pull = arg;
    if (pull->mode == PROGRESS_JSON)
        progress_add_json(pull->now, NULL, out);
    else if (pull->mode == PROGRESS_PLAIN)
        progress_say(&pull->lines, pull->now, out);
    else
        progress_draw(&pull->screen, pull->now, terminal_size(pull->painter.fd), out);
}

static void leave_screen(void *arg, struct strbuf *out)
{
    struct pull *pull = arg;
    if (pull->screen.drawn) /* over the terminal's echo of Ctrl-C */
        progress_draw(&pull->screen, pull->now, terminal_size(pull->painter.fd), out);
    progress_leave(&pull->screen, out);
}

/* --- The call ----------------------------------------------------------------------------------
 */

/* Messages want what need not be free'd as char *, and "" for what is not set. */
static char *text_or_empty(const char *text)
{
    return (char *)(text ? text : "");
}

static struct grpc_call *await_start_call(struct pull *pull, struct error *err)
{
    const struct pull_options *options = pull->options;
    Davit__V1__PullRequest request = DAVIT__V1__PULL_REQUEST__INIT;
    Davit__V1__RegistryAuth auth = DAVIT__V1__REGISTRY_AUTH__INIT;
    CLEANUP_CREDENTIALS struct credentials credentials = {0};
    CLEANUP(grpc_call_cleanup) struct grpc_call *call = NULL;
    CLEANUP_FREE char *domain = registry_domain(options->reference);
    if (!await_cli_connect(pull->cli, err) ||
        (domain && !await_cli_credentials(pull->cli, domain, &credentials, err)))
        return NULL;
    request.reference = (char *)options->reference;
    request.platform = text_or_empty(options->platform);
    request.cancel_on_leave = true;
    auth.username = text_or_empty(credentials.username);
    auth.password = text_or_empty(credentials.password);
    auth.identity_token = text_or_empty(credentials.identity_token);
    if (credentials.username || credentials.identity_token)
        request.auth = &auth;
    call = grpc_client_call(pull->cli->client, "/davit.v1.Images/Pull",
                            &davit__v1__job_update__descriptor, NULL, err);
    if (!call || !await_grpc_send(call, &request.base, err) || !await_grpc_close_send(call, err)) {
        cli_daemon_error(err);
        return NULL;
    }
    return TAKE(call);
}

static const pull_result *result_of(const struct pull *pull)
{
    const pull_job *now = pull->now;
    return now && now->result_case == DAVIT__V1__JOB__RESULT_PULL_RESULT ? now->pull_result : NULL;
}

static void set_now(struct pull *pull, pull_job *now)
{
    if (!now || !now->progress || !now->pull) { /* not a pull */
        davit__v1__job__free_unpacked(now, NULL);
        return;
    }
    davit__v1__job__free_unpacked(pull->now, NULL);
    pull->now = now;
    /* The last one is shown with the result, but for its lines. */
    painter_changed(&pull->painter, !result_of(pull) || pull->mode == PROGRESS_PLAIN);
}

/* Until the stream ends, which it does well only after a result. */
static bool await_snapshots(struct pull *pull, struct error *err)
{
    CLEANUP(grpc_call_cleanup) struct grpc_call *call = await_start_call(pull, err);
    ProtobufCMessage *message = NULL;
    int r;
    if (!call)
        return false;
    while ((r = await_grpc_recv(call, &message, err)) > 0) {
        Davit__V1__JobUpdate *update = (Davit__V1__JobUpdate *)message;
        set_now(pull, TAKE(update->job));
        davit__v1__job_update__free_unpacked(update, NULL);
    }
    if (r < 0)
        return cli_daemon_error(err);
    if (result_of(pull))
        return true;
    return error_set(err, ERROR_INTERNAL, NULL, "the daemon ended the pull without a result");
}

static enum progress_mode choose_mode(const struct pull_options *options, int fd)
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

static bool await_finish(struct pull *pull, struct error *err)
{
    const pull_result *result = result_of(pull);
    const pull_job *last = pull->now;
    CLEANUP_STRBUF struct strbuf text = {0};
    if (pull->mode == PROGRESS_JSON) {
        progress_add_json(last, result, &text);
    } else if (pull->mode == PROGRESS_NONE) {
        if (!pull->options->within_run)
            strbuf_addf(&text, "%s\n", result->reference);
    } else {
        if (pull->mode == PROGRESS_TTY)
            progress_draw_last(&pull->screen, last, terminal_size(pull->painter.fd), &text);
        progress_add_result(last, result, pull->options->within_run, &text);
    }
    return await_painter_show(&pull->painter, &text, err);
}

/* Programs that read the JSON need not read standard error. */
static void await_show_json_error(struct pull *pull, const struct error *failure)
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
    await_painter_show(&pull->painter, &text, &ignored);
}

static void pull_done_await(struct pull *pull)
{
    painter_done_await(&pull->painter);
    progress_lines_done(&pull->lines);
    davit__v1__job__free_unpacked(pull->now, NULL);
}

bool await_pull(struct cli *cli, const struct pull_options *options, struct error *err)
{
    const int fd = options->within_run ? STDERR_FILENO : STDOUT_FILENO;
    CLEANUP(pull_done_await)
    struct pull pull = {
        .cli = cli,
        .options = options,
        .mode = choose_mode(options, fd),
        .screen = {.heading.within_run = options->within_run, .color = terminal_wants_color(fd)},
        .lines = {.heading.within_run = options->within_run},
    };
    pull.painter = (struct painter){
        .cli = cli,
        .fd = fd,
        .live = pull.mode == PROGRESS_TTY,
        .render = pull.mode == PROGRESS_NONE ? NULL : render,
        .leave = leave_screen,
        .arg = &pull,
    };
    if (!painter_start(&pull.painter, err))
        return false;

    CLEANUP_ERROR struct error show_error = {0};
    const bool pulled = await_snapshots(&pull, err);
    const bool shown = await_painter_finish(&pull.painter, &show_error);
    if (error_is_set(&pull.painter.error))
        return error_move(err, &pull.painter.error);
    if (!pulled && pull.mode == PROGRESS_JSON && err->code != ERROR_CANCELLED)
        await_show_json_error(&pull, err);
    if (!pulled)
        return false;
    return shown ? await_finish(&pull, err) : error_move(err, &show_error);
}

/* --- davit pull --------------------------------------------------------------------------------
 */

static bool await_pull_command(struct cli *cli, struct error *err)
{
    const struct pull_options options = {
        .reference = cli->flags.args[0],
        .platform = flag_string(&cli->flags, "platform"),
        .progress = flag_string(&cli->flags, "progress"),
        .quiet = flag_bool(&cli->flags, "quiet"),
    };
    cli_cancel_on_signals(cli);
    return await_pull(cli, &options, err);
}

static const struct flag flags[] = {
    {.name = "all-tags", .shorthand = 'a', .type = FLAG_BOOL, .unsupported = true},
    {.name = "platform",
     .type = FLAG_STRING,
     .help = "Set platform if the image is multi-platform capable: os/arch[/variant]"},
    {.name = "progress",
     .type = FLAG_STRING,
     .help = "How progress is shown",
     .choices = PULL_PROGRESS_CHOICES,
     .fallback = "auto"},
    {.name = "quiet", .shorthand = 'q', .type = FLAG_BOOL, .help = "Suppress verbose output"},
};

const struct command pull_command = {
    .usage = "[OPTIONS] NAME[:TAG|@DIGEST]",
    .summary = "Download an image from a registry",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .min_args = 1,
    .max_args = 1,
    .completes = COMPLETE_IMAGE,
    .await_run = await_pull_command,
};
