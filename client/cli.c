#include "client/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>

/* --- The daemon --------------------------------------------------------------------------------
 */

bool await_cli_connect(struct cli *cli, struct error *err)
{
    if (!cli->client)
        cli->client = await_grpc_connect(&cli->group, cli->host, err);
    return cli->client != NULL;
}

#define FROM_DAEMON "Error response from daemon"

bool cli_daemon_error(struct error *err)
{
    /* What ended here, by a signal or a lost connection, is not the daemon's word. */
    if (err->code != ERROR_CANCELLED && !error_is(err, "CONNECTION_LOST"))
        error_prefix(err, FROM_DAEMON);
    return false;
}

bool cli_reference_error(struct error *err)
{
    const size_t length = strlen(FROM_DAEMON ": ");
    if (error_is(err, "INVALID_REFERENCE") && str_starts(err->message, FROM_DAEMON ": "))
        memmove(err->message, err->message + length, strlen(err->message + length) + 1);
    return false;
}

bool await_cli_call(struct cli *cli, const char *method, const ProtobufCMessage *request,
                    const ProtobufCMessageDescriptor *response_type, ProtobufCMessage **ret,
                    struct error *err)
{
    if (!await_cli_connect(cli, err))
        return false;
    return await_grpc_unary(cli->client, method, request, response_type, ret, err) ||
           cli_daemon_error(err);
}

struct grpc_call *await_cli_stream(struct cli *cli, const char *method,
                                   const ProtobufCMessage *request,
                                   const ProtobufCMessageDescriptor *response_type,
                                   struct error *err)
{
    CLEANUP(grpc_call_cleanup) struct grpc_call *call = NULL;
    if (!await_cli_connect(cli, err))
        return NULL;
    call = grpc_client_call(cli->client, method, response_type, NULL, err);
    if (call && await_grpc_send(call, request, err) && await_grpc_close_send(call, err))
        return TAKE(call);
    cli_daemon_error(err);
    return NULL;
}

/* --- The user ----------------------------------------------------------------------------------
 */

static bool await_print(struct cli *cli, struct stream **stream, int fd, const char *name,
                        const void *data, size_t size, struct error *err)
{
    if (!*stream)
        *stream = stream_new(fd);
    const int r = await_write(*stream, data, size);
    if (r == 0)
        return true;
    if (r == -EPIPE)
        cli_end_by_signal(cli, SIGPIPE);
    error_set_errno(err, r == -EPIPE ? -ECANCELED : r, "cannot write to %s", name);
    if (err) /* that is for the daemon's disk */
        free(TAKE(err->hint));
    return false;
}

bool await_cli_print(struct cli *cli, const void *data, size_t size, struct error *err)
{
    return await_print(cli, &cli->out, STDOUT_FILENO, "standard output", data, size, err);
}

bool await_cli_print_error(struct cli *cli, const void *data, size_t size, struct error *err)
{
    return await_print(cli, &cli->err, STDERR_FILENO, "standard error", data, size, err);
}

void cli_print_failure(const struct cli *cli, const struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    /* Docker's form: only `run`, whose own exit codes are others', says who speaks. */
    const bool named = cli->command->failure_exit != 0;
    const char *message = str_empty(err->message) ? error_code_name(err->code) : err->message;
    strbuf_addf(&text, "%s%s\n", named ? "davit: " : "", message);
    if (err->hint)
        strbuf_addf(&text, "Hint: %s\n", err->hint);
    if (named)
        strbuf_addf(&text, "\nRun '%s --help' for more information\n", cli->path);
    fputs(strbuf_text(&text), stderr);
}

bool await_cli_credentials(struct cli *cli, const char *registry_domain, struct credentials *ret,
                           struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    if (await_credentials_find(registry_domain, ret, err))
        return true;
    if (!error_is(err, "CREDENTIALS"))
        return false;
    strbuf_addf(&text, "WARNING: %s\n", err->message);
    if (err->hint)
        strbuf_addf(&text, "Hint: %s\n", err->hint);
    error_done(err);
    return await_cli_print_error(cli, text.data, text.length, err);
}

/* --- Signals -----------------------------------------------------------------------------------
 */

void cli_end_by_signal(struct cli *cli, int signum)
{
    if (!cli->signum)
        cli->signum = signum;
    task_cancel(cli->main_task);
}

static void on_signal(int signum, void *arg)
{
    cli_end_by_signal(arg, signum);
}

bool cli_signal_is_ignored(int signum)
{
    struct sigaction action;
    return sigaction(signum, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

void cli_cancel_on_signals(struct cli *cli)
{
    static const int signals[ARRAY_SIZE(cli->signals)] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        if (!cli->signals[i] && !cli_signal_is_ignored(signals[i]))
            cli->signals[i] = loop_signal_start(signals[i], on_signal, cli);
    }
}

struct loop_signal *cli_take_interrupt(struct cli *cli, void (*fn)(int signum, void *arg),
                                       void *arg)
{
    if (cli->signals[0]) /* SIGINT, of the list above */
        cli->signals[0] = loop_signal_stop(cli->signals[0]);
    return cli_signal_is_ignored(SIGINT) ? NULL : loop_signal_start(SIGINT, fn, arg);
}

void cli_default_signals(struct cli *cli)
{
    for (size_t i = 0; i < ARRAY_SIZE(cli->signals); i++) {
        if (cli->signals[i])
            cli->signals[i] = loop_signal_stop(cli->signals[i]);
    }
}

void cli_done_await(struct cli *cli)
{
    cli_default_signals(cli);
    cli->client = grpc_client_free(cli->client);
    group_done_await(&cli->group);
    /* The last words are still to be said: the descriptors stay open. */
    if (cli->out)
        stream_release(cli->out);
    if (cli->err)
        stream_release(cli->err);
    cli->out = cli->err = NULL;
}
