/* One run of davit: which command was called how, and its way to the daemon and to the user.
 * A command begins with await_cli_call() for a question with one answer, await_cli_stream() for one
 * with many, or await_cli_connect() and grpc_client_call() for a dialogue, and ends with
 * await_cli_print(). */
#pragma once

#include "client/commands.h"
#include "client/credentials.h"
#include "proto/async/loop.h"
#include "proto/async/stream.h"
#include "proto/grpc/grpc.h"

struct cli {
    const char *host;              /* "unix:///run/davit/davit.sock" */
    const struct command *command; /* and how it was called: "davit image pull" */
    char *path;
    struct flags flags;

    int exit_code; /* set by commands whose exit code is not just success or failure */
    int signum;    /* the signal that ends davit, once there is one; no error is printed then */

    struct task *main_task;
    struct group group; /* the connection's task */
    struct grpc_client *client;
    struct stream *out, *err; /* standard output and error, made when first used */
    struct loop_signal *signals[3];
};

/* Connects to the daemon unless that has been done; errors as await_grpc_connect() tells them. */
bool await_cli_connect(struct cli *cli, struct error *err);

/* One request, one response, as await_grpc_unary(); the daemon's errors begin as Docker's:
 * "Error response from daemon: ". */
bool await_cli_call(struct cli *cli, const char *method, const ProtobufCMessage *request,
                    const ProtobufCMessageDescriptor *response_type, ProtobufCMessage **ret,
                    struct error *err);

/* One request, and a call whose responses are to be received. NULL with err as above; the caller
 * frees it. */
struct grpc_call *await_cli_stream(struct cli *cli, const char *method,
                                   const ProtobufCMessage *request,
                                   const ProtobufCMessageDescriptor *response_type,
                                   struct error *err);

/* Puts "Error response from daemon: " before an error that a call returned, if the daemon sent it.
 * Returns false. */
bool cli_daemon_error(struct error *err);

/* For commands of which Docker's command line checks the name by itself: of a wrong one the
 * daemon's mention is taken away again. Returns false. */
bool cli_reference_error(struct error *err);

/* As await_credentials_find(); what is wrong with them is a warning, as in Docker: a public image
 * needs none. */
bool await_cli_credentials(struct cli *cli, const char *registry_domain, struct credentials *ret,
                           struct error *err);

/* Writes to standard output (error), waiting for its reader. If the reader has gone, davit ends as
 * by SIGPIPE: false with CANCELLED. */
bool await_cli_print(struct cli *cli, const void *data, size_t size, struct error *err);
bool await_cli_print_error(struct cli *cli, const void *data, size_t size, struct error *err);

/* From now on SIGINT, SIGTERM and SIGHUP cancel the main task instead of killing the process, so
 * that the call ends and the terminal is put right; the exit code is 128 + n. */
void cli_cancel_on_signals(struct cli *cli);
void cli_default_signals(struct cli *cli); /* undoes it */

/* From now on SIGINT calls fn instead; NULL if it is ignored. The caller stops it. */
struct loop_signal *cli_take_interrupt(struct cli *cli, void (*fn)(int signum, void *arg),
                                       void *arg);

/* nohup(1) and shells' background jobs mean it when they ignore a signal: leave it alone. */
bool cli_signal_is_ignored(int signum);

/* Ends davit as the signal would: records it and cancels the main task. */
void cli_end_by_signal(struct cli *cli, int signum);

/* The last words about a failure, on standard error, with the hint on its own line. */
void cli_print_failure(const struct cli *cli, const struct error *err);

void cli_done_await(struct cli *cli);
