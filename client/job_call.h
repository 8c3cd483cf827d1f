/* Starting jobs that talk to registries: what `davit pull` and `davit push` have in common. */
#pragma once

#include "client/watch.h"
#include "proto/davit/v1/images.pb-c.h"

/* Messages want what need not be free'd as char *, and "" for what is not set. */
static inline char *text_or_empty(const char *text)
{
    return (char *)(text ? text : "");
}

/* The credentials for a reference's registry as a message of a request. */
struct request_login {
    struct credentials credentials;
    Davit__V1__RegistryAuth message;
    Davit__V1__RegistryAuth *auth; /* NULL: there are none */
};
void request_login_done(struct request_login *login);

/* Into a zeroed one. */
bool await_request_login(struct cli *cli, const char *reference, struct request_login *ret,
                         struct error *err);

/* Sends the request of an RPC that streams JobUpdates. The caller frees the call. */
struct grpc_call *await_job_call(struct cli *cli, const char *method,
                                 const ProtobufCMessage *request, struct error *err);

/* Prints the job's ID once it has begun. */
bool await_print_job(struct cli *cli, struct grpc_call *call, struct error *err);

/* For flags that are a rate. */
bool check_rate(const char *rate, struct error *err);
