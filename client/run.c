#include <errno.h>
#include <signal.h>

#include "client/cli.h"
#include "client/environment.h"
#include "client/pull.h"
#include "proto/davit/v1/containers.pb-c.h"

#define STDIN_CHUNK (32 * KIB)
#define INTERRUPTS_MAX 3 /* so many Ctrl-C, and davit goes without the container's consent */

static const int forwarded_signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

/* Two tasks share a call: the main one receives, one sends standard input. A third sends signals,
 * each by a call of its own, so that they do not wait behind input that the container leaves. */
struct run {
    struct cli *cli;
    struct grpc_call *call;
    struct group senders;
    char *id; /* NULL until it has been created */
    bool exited;
    int exit_code;

    struct wait_queue changed;                            /* id, pending, printing */
    unsigned char pending[ARRAY_SIZE(forwarded_signals)]; /* signals to send, by index */
    int interrupts;
    bool printing; /* to standard error, which two tasks do */
    struct loop_signal *handlers[ARRAY_SIZE(forwarded_signals)];
};

/* --- Sending -----------------------------------------------------------------------------------
 */

static bool await_print_error(struct run *run, const void *data, size_t size, struct error *err)
{
    int r = 0;
    while (r == 0 && run->printing)
        r = await_wake(&run->changed, "standard error");
    if (r < 0)
        return await_error(err, r, "writing to standard error");
    run->printing = true;
    const bool printed = await_cli_print_error(run->cli, data, size, err);
    run->printing = false;
    wake_all(&run->changed);
    return printed;
}

static bool await_send_stdin(struct run *run, struct error *err)
{
    CLEANUP(stream_cleanup) struct stream *in = stream_new(STDIN_FILENO);
    CLEANUP_FREE unsigned char *chunk = xmalloc(STDIN_CHUNK);
    Davit__V1__RunRequest request = DAVIT__V1__RUN_REQUEST__INIT;
    ssize_t n;
    request.what_case = DAVIT__V1__RUN_REQUEST__WHAT_STDIN;
    while ((n = await_read(in, chunk, STDIN_CHUNK)) > 0) {
        request.stdin = (ProtobufCBinaryData){.len = (size_t)n, .data = chunk};
        if (!await_grpc_send(run->call, &request.base, err))
            return false;
    }
    if (n == -ECANCELED)
        return await_error(err, (int)n, "reading standard input");
    /* What cannot be read (a background job's terminal) has come to its end too. */
    request.what_case = DAVIT__V1__RUN_REQUEST__WHAT_STDIN_EOF;
    request.stdin_eof = true;
    return await_grpc_send(run->call, &request.base, err);
}

/* A signal that comes too late is none; any other failure the user is to know of. */
static bool await_send_signal(struct run *run, int signum, struct error *err)
{
    Davit__V1__KillRequest request = DAVIT__V1__KILL_REQUEST__INIT;
    CLEANUP_STRBUF struct strbuf text = {0};
    ProtobufCMessage *response = NULL;
    request.id = run->id;
    request.signal = (uint32_t)signum;
    if (await_cli_call(run->cli, "/davit.v1.Containers/Kill", &request.base,
                       &davit__v1__kill_response__descriptor, &response, err)) {
        protobuf_c_message_free_unpacked(response, NULL);
        return true;
    }
    if (err->code == ERROR_CANCELLED)
        return false;
    if (error_is(err, "NOT_RUNNING") || error_is(err, "CONTAINER_NOT_FOUND")) {
        error_done(err);
        return true;
    }
    strbuf_addf(&text, "WARNING: SIG%s does not reach the container: %s\n", sigabbrev_np(signum),
                err->message);
    error_done(err);
    return await_print_error(run, text.data, text.length, err);
}

/* One of the pending signals, or 0: none, or nobody to send it to yet. */
static int take_signal(struct run *run)
{
    for (size_t i = 0; run->id && i < ARRAY_SIZE(forwarded_signals); i++) {
        if (run->pending[i] > 0) {
            run->pending[i]--;
            return forwarded_signals[i];
        }
    }
    return 0;
}

/* Looks at all of them again after each call: one may have come meanwhile. */
static bool await_send_signals(struct run *run, struct error *err)
{
    for (;;) {
        const int signum = take_signal(run);
        if (signum != 0 && !await_send_signal(run, signum, err))
            return false;
        if (signum != 0)
            continue;
        const int r = await_wake(&run->changed, "a signal");
        if (r < 0)
            return await_error(err, r, "waiting for signals");
    }
}

/* A sender that fails says nothing: the call has ended, and the receiver knows why. */
static bool stdin_main(void *arg, struct error *err UNUSED)
{
    CLEANUP_ERROR struct error ignored = {0};
    await_send_stdin(arg, &ignored);
    return true;
}

static bool signals_main(void *arg, struct error *err UNUSED)
{
    CLEANUP_ERROR struct error ignored = {0};
    await_send_signals(arg, &ignored);
    return true;
}

/* --- Signals -----------------------------------------------------------------------------------
 */

static void on_signal(int signum, void *arg)
{
    struct run *run = arg;
    const bool ends = signum == SIGINT || signum == SIGTERM;
    if (ends && ++run->interrupts >= INTERRUPTS_MAX) {
        cli_end_by_signal(run->cli, signum); /* the daemon kills a container without client */
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(forwarded_signals); i++) {
        if (forwarded_signals[i] == signum && run->pending[i] < INTERRUPTS_MAX)
            run->pending[i]++;
    }
    wake_all(&run->changed);
}

static void forward_signals(struct run *run)
{
    cli_default_signals(run->cli);
    for (size_t i = 0; i < ARRAY_SIZE(forwarded_signals); i++) {
        if (!cli_signal_is_ignored(forwarded_signals[i]))
            run->handlers[i] = loop_signal_start(forwarded_signals[i], on_signal, run);
    }
}

/* --- Receiving ---------------------------------------------------------------------------------
 */

static bool await_created(struct run *run, const Davit__V1__RunCreated *created, struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    for (size_t i = 0; i < created->n_warnings; i++) {
        strbuf_add_str(&text, "WARNING: ");
        strbuf_add_printable(&text, created->warnings[i]);
        strbuf_add_char(&text, '\n');
    }
    if (!run->id) {
        run->id = xstrdup(created->id);
        forward_signals(run);
    }
    return await_print_error(run, text.data, text.length, err);
}

/* Writing waits for the reader of our output, and so the container does. */
static bool await_response(struct run *run, const Davit__V1__RunResponse *response,
                           struct error *err)
{
    switch (response->what_case) {
    case DAVIT__V1__RUN_RESPONSE__WHAT_CREATED:
        return await_created(run, response->created, err);
    case DAVIT__V1__RUN_RESPONSE__WHAT_STDOUT:
        return await_cli_print(run->cli, response->stdout.data, response->stdout.len, err);
    case DAVIT__V1__RUN_RESPONSE__WHAT_STDERR:
        return await_print_error(run, response->stderr.data, response->stderr.len, err);
    case DAVIT__V1__RUN_RESPONSE__WHAT_EXITED:
        run->exited = true;
        run->exit_code = (int)response->exited->exit_code;
        return true;
    default:
        return true; /* of a newer daemon */
    }
}

static bool await_responses(struct run *run, struct error *err)
{
    ProtobufCMessage *message = NULL;
    int r;
    while ((r = await_grpc_recv(run->call, &message, err)) > 0) {
        Davit__V1__RunResponse *response = (Davit__V1__RunResponse *)message;
        const bool done = await_response(run, response, err);
        davit__v1__run_response__free_unpacked(response, NULL);
        if (!done)
            return false;
    }
    if (r < 0)
        return cli_daemon_error(err);
    if (!run->exited)
        return error_set(err, ERROR_INTERNAL, NULL,
                         "the daemon ended the stream without the container's exit code");
    run->cli->exit_code = run->exit_code;
    return true;
}

/* --- One run -----------------------------------------------------------------------------------
 */

static void run_done_await(struct run *run)
{
    group_done_await(&run->senders);
    for (size_t i = 0; i < ARRAY_SIZE(run->handlers); i++) {
        if (run->handlers[i])
            loop_signal_stop(run->handlers[i]);
    }
    run->call = grpc_call_free(run->call);
    free(run->id);
}

static bool await_run_once(struct cli *cli, Davit__V1__RunStart *start, struct error *err)
{
    CLEANUP(run_done_await) struct run run = {.cli = cli};
    Davit__V1__RunRequest request = DAVIT__V1__RUN_REQUEST__INIT;
    group_init(&run.senders);
    wait_queue_init(&run.changed);
    request.what_case = DAVIT__V1__RUN_REQUEST__WHAT_START;
    request.start = start;
    if (!await_cli_connect(cli, err))
        return false;
    run.call = grpc_client_call(cli->client, "/davit.v1.Containers/Run",
                                &davit__v1__run_response__descriptor, NULL, err);
    if (!run.call || !await_grpc_send(run.call, &request.base, err))
        return cli_daemon_error(err);
    if (!task_spawn(&run.senders, "signals", NULL, signals_main, &run, err) ||
        (start->attach_stdin && !task_spawn(&run.senders, "stdin", NULL, stdin_main, &run, err)))
        return false;
    return await_responses(&run, err);
}

/* --- davit run ---------------------------------------------------------------------------------
 */

static bool await_pull_for_run(struct cli *cli, const char *image, struct error *err)
{
    const struct pull_options options = {
        .reference = image,
        .platform = flag_string(&cli->flags, "platform"),
        .watch = {.quiet = flag_bool(&cli->flags, "quiet"),
                  .within_run = true,
                  .interrupt = WATCH_INTERRUPT_CANCELS},
    };
    return await_pull(cli, &options, err);
}

/* Docker's message names the image in full: with the tag that is meant. */
static bool await_say_missing(struct cli *cli, const char *image, struct error *err)
{
    const char *last = strrchr(image, '/') ? strrchr(image, '/') : image;
    const bool complete = strchr(last, ':') || strchr(image, '@');
    CLEANUP_STRBUF struct strbuf text = {0};
    strbuf_addf(&text, "Unable to find image '%s%s' locally\n", image, complete ? "" : ":latest");
    return await_cli_print_error(cli, text.data, text.length, err);
}

static bool await_run_image(struct cli *cli, Davit__V1__RunStart *start, struct error *err)
{
    const char *pull = flag_string(&cli->flags, "pull");
    if (str_eq(pull, "always")) {
        if (!await_pull_for_run(cli, start->image, err))
            return false;
        return await_run_once(cli, start, err);
    }
    if (await_run_once(cli, start, err))
        return true;
    if (!error_is(err, "IMAGE_NOT_FOUND") || str_eq(pull, "never"))
        return false;
    error_done(err);
    return await_say_missing(cli, start->image, err) &&
           await_pull_for_run(cli, start->image, err) && await_run_once(cli, start, err);
}

static void set_exit_code(struct cli *cli, const struct error *err)
{
    if (error_is(err, "COMMAND_NOT_FOUND"))
        cli->exit_code = 127;
    else if (error_is(err, "COMMAND_NOT_EXECUTABLE"))
        cli->exit_code = 126;
}

/* Messages want what need not be free'd as char *, and "" for what is not set. */
static char *flag_text(const struct flags *flags, const char *name)
{
    const char *value = flag_string(flags, name);
    return (char *)(value ? value : "");
}

static bool await_run(struct cli *cli, struct error *err)
{
    const struct flags *flags = &cli->flags;
    Davit__V1__RunStart start = DAVIT__V1__RUN_START__INIT;
    const char *entrypoint = flag_string(flags, "entrypoint");
    CLEANUP(strv_cleanup)
    char **env = environment_read(flag_list(flags, "env-file"), flag_list(flags, "env"), err);
    if (!env)
        return false;
    start.image = flags->args[0];
    start.command = flags->args + 1;
    start.n_command = flags->arg_count - 1;
    start.has_entrypoint = entrypoint != NULL;
    start.entrypoint = (char **)&entrypoint;
    start.n_entrypoint = str_empty(entrypoint) ? 0 : 1; /* --entrypoint "" resets the image's */
    start.env = env;
    start.n_env = strv_count(env);
    start.working_dir = flag_text(flags, "workdir");
    start.user = flag_text(flags, "user");
    start.network = flag_text(flags, "network");
    start.hostname = flag_text(flags, "hostname");
    start.remove = flag_bool(flags, "rm");
    start.attach_stdin = flag_bool(flags, "interactive");

    cli_cancel_on_signals(cli);
    if (await_run_image(cli, &start, err))
        return true;
    set_exit_code(cli, err);
    return false;
}

static const struct flag flags[] = {
    {.name = "detach", .shorthand = 'd', .type = FLAG_BOOL, .unsupported = true},
    {.name = "entrypoint",
     .type = FLAG_STRING,
     .help = "Overwrite the default ENTRYPOINT of the image"},
    {.name = "env",
     .shorthand = 'e',
     .type = FLAG_LIST,
     .help = "Set environment variables",
     .check = environment_check},
    {.name = "env-file",
     .type = FLAG_LIST,
     .help = "Read in a file of environment variables",
     .completes = COMPLETE_FILES},
    {.name = "hostname", .shorthand = 'h', .type = FLAG_STRING, .help = "Container host name"},
    {.name = "interactive",
     .shorthand = 'i',
     .type = FLAG_BOOL,
     .help = "Pass standard input on to the command"},
    {.name = "name", .type = FLAG_STRING, .unsupported = true},
    {.name = "network",
     .type = FLAG_STRING,
     .help = "Connect the container to a network",
     .choices = "none|host",
     .fallback = "none"},
    {.name = "platform",
     .type = FLAG_STRING,
     .help = "Set platform if the image has to be pulled: os/arch[/variant]",
     .suggestions = PLATFORM_SUGGESTIONS},
    {.name = "publish", .shorthand = 'p', .type = FLAG_LIST, .unsupported = true},
    {.name = "pull",
     .type = FLAG_STRING,
     .help = "Pull image before running",
     .choices = "always|missing|never",
     .fallback = "missing"},
    {.name = "quiet", .shorthand = 'q', .type = FLAG_BOOL, .help = "Suppress the pull output"},
    {.name = "rm", .type = FLAG_BOOL, .help = "Automatically remove the container when it exits"},
    {.name = "tty", .shorthand = 't', .type = FLAG_BOOL, .unsupported = true},
    {.name = "user",
     .shorthand = 'u',
     .type = FLAG_STRING,
     .help = "Username or UID (format: <name|uid>[:<group|gid>])"},
    {.name = "volume", .shorthand = 'v', .type = FLAG_LIST, .unsupported = true},
    {.name = "workdir",
     .shorthand = 'w',
     .type = FLAG_STRING,
     .help = "Working directory inside the container"},
};

const struct command run_command = {
    .usage = "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    .summary = "Create and run a new container from an image",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .min_args = 1,
    .max_args = ANY_NUMBER,
    .flags_first = true,
    .failure_exit = 125,
    .completes = COMPLETE_IMAGE,
    .description = "Makes a container from an image, which is pulled if it is not here, and runs a "
                   "command in it: the one given, or the image's own. The exit code is the "
                   "command's; 125 means that davit or its daemon failed, 126 that the command "
                   "cannot be executed, 127 that it was not found, 128 + n that signal n ended it.",
    .examples = "    davit run --rm busybox echo hello\n"
                "    echo 1 2 3 | davit run --rm -i busybox wc -w\n"
                "    davit run --rm -e LANG=C --env-file app.env -w /srv app ./start",
    .await_run = await_run,
};
