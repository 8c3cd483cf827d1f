#include "daemon/registry/internal.h"
#include "daemon/registry/queries.h"

#define LOGIN_ATTEMPTS 2

struct login {
    struct registry_client *client;
    const struct registry_auth *auth;
    const struct source *source;
    const char *url; /* "https://registry-1.docker.io/v2/" */
    struct origin origin;
};

/* A login is for no repository; nor is a grant of an earlier one good enough. */
static struct auth_subject subject_of(const struct login *login)
{
    return (struct auth_subject){.origin = &login->origin, .repository = "", .auth = login->auth};
}

static struct http_response *await_get(const struct login *login, const char *authorization,
                                       bool *ret_elsewhere, struct error *err)
{
    return await_exchange(&login->client->transport,
                          &(struct exchange){.url = login->url,
                                             .access = login->source->access,
                                             .authorization = authorization,
                                             .attempts = LOGIN_ATTEMPTS},
                          ret_elsewhere, err);
}

/* As Docker words it. */
static bool await_judge(const struct login *login, struct http_response *response,
                        struct error *err)
{
    const int status = http_status(response);
    CLEANUP_STRBUF struct strbuf body = {0};

    await_http_body(response, ERROR_BODY_MAX_BYTES, &body, NULL); /* the connection is used again */
    if (status == 200)
        return true;
    error_set(err,
              status == 401   ? ERROR_UNAUTHENTICATED
              : status == 403 ? ERROR_PERMISSION_DENIED
                              : ERROR_FAILED_PRECONDITION,
              status == 401   ? "UNAUTHORIZED"
              : status == 403 ? "DENIED"
                              : "REGISTRY_PROTOCOL",
              "login attempt to %s failed with status: %d%s", login->url, status,
              status == 401   ? " Unauthorized"
              : status == 403 ? " Forbidden"
              : status == 404 ? " Not Found"
                              : "");
    if (status == 401)
        return error_hint(err, "check the user name and the password");
    return status == 404 ? error_hint(err, "check the name: %s is no registry", login->origin.name)
                         : false;
}

static bool await_login_at(const struct login *login, char **ret_identity_token, struct error *err)
{
    struct auth_cache *cache = login->client->auth_cache;
    const struct auth_subject subject = subject_of(login);
    CLEANUP(http_response_cleanup) struct http_response *refused = NULL, *response = NULL;
    CLEANUP_SECRET char *authorization = NULL;
    bool elsewhere = false;

    auth_forget(cache, &subject);
    refused = await_get(login, NULL, &elsewhere, err);
    if (!refused)
        return error_prefix(err, "Get \"%s\"", login->url);
    if (http_status(refused) != 401 || elsewhere)
        return await_judge(login, refused, err);
    if (!await_auth_login(&login->client->transport, cache, &subject, refused, ret_identity_token,
                          err)) {
        if (err->code == ERROR_UNAUTHENTICATED)
            error_hint(err, "check the user name and the password");
        return error_prefix(err, "Get \"%s\"", login->url);
    }
    authorization = xstrdup(auth_cached(cache, &subject));
    auth_forget(cache, &subject);
    response = await_get(login, authorization, NULL, err);
    return response ? await_judge(login, response, err)
                    : error_prefix(err, "Get \"%s\"", login->url);
}

bool await_registry_login(struct registry_client *client, const char *domain,
                          const struct registry_auth *auth, char **ret_identity_token,
                          struct error *err)
{
    const struct reference reference = {.domain = (char *)domain, .path = (char *)""};
    CLEANUP(source_cleanup)
    struct source *source = await_own_source(client, &reference, auth, err);
    struct login login = {.client = client, .auth = auth, .source = source};
    CLEANUP_FREE char *base = NULL, *url = NULL;
    bool ok;

    *ret_identity_token = NULL;
    if (!source)
        return false;
    base = await_source_base(client, source, err);
    if (!base) /* then it is Docker's first try that failed */
        return error_prefix(err, "Get \"https://%s/v2/\"", domain);
    url = xasprintf("%s/", base);
    login.url = url;
    ok = origin_parse(url, &login.origin, err) && await_login_at(&login, ret_identity_token, err);
    origin_done(&login.origin);
    return ok;
}
