#include "client/job_call.h"

#include "proto/base/size.h"

void request_login_done(struct request_login *login)
{
    credentials_done(&login->credentials);
}

bool await_request_login(struct cli *cli, const char *reference, struct request_login *ret,
                         struct error *err)
{
    CLEANUP_FREE char *domain = registry_domain(reference);
    const struct credentials *credentials = &ret->credentials;
    davit__v1__registry_auth__init(&ret->message);
    if (domain && !await_cli_credentials(cli, domain, &ret->credentials, err))
        return false;
    ret->message.username = text_or_empty(credentials->username);
    ret->message.password = text_or_empty(credentials->password);
    ret->message.identity_token = text_or_empty(credentials->identity_token);
    if (credentials->username || credentials->identity_token)
        ret->auth = &ret->message;
    return true;
}

struct grpc_call *await_job_call(struct cli *cli, const char *method,
                                 const ProtobufCMessage *request, struct error *err)
{
    return await_cli_stream(cli, method, request, &davit__v1__job_update__descriptor, err);
}

static void update_free(Davit__V1__JobUpdate **update)
{
    davit__v1__job_update__free_unpacked(*update, NULL);
}

bool await_print_job(struct cli *cli, struct grpc_call *call, struct error *err)
{
    CLEANUP(update_free) Davit__V1__JobUpdate *update = NULL;
    CLEANUP_STRBUF struct strbuf text = {0};
    const int r = await_grpc_recv(call, (ProtobufCMessage **)&update, err);
    if (r < 0)
        return cli_daemon_error(err);
    if (r == 0 || !update->job)
        return error_set(err, ERROR_INTERNAL, NULL, "the daemon started no job");
    strbuf_addf(&text, "%s\n", update->job->id);
    return await_cli_print(cli, text.data, text.length, err);
}

bool check_rate(const char *rate, struct error *err)
{
    uint64_t bytes;
    return size_parse(rate, &bytes) ? true
                                    : error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                                                "must be bytes per second such as 500k, 2M or "
                                                "512KiB; 0 for none");
}
