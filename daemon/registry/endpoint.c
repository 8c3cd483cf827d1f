/* Where to ask for a reference, and asking there. */
#include <strings.h>

#include "daemon/registry/internal.h"
#include "proto/async/loop.h"
#include "proto/base/log.h"

#define DOCKER_HUB_BASE "https://registry-1.docker.io"
#define MIRROR_PENALTY_MS 30000

/* --- Places ----------------------------------------------------------------------------------- */

struct endpoint registry_endpoint(struct registry_client *client, const struct reference *reference,
                                  const struct registry_auth *auth)
{
    struct endpoint endpoint = {.auth = auth};

    if (str_eq(reference->domain, REFERENCE_DEFAULT_DOMAIN))
        endpoint.base = xstrdup(DOCKER_HUB_BASE);
    else if (host_trust(client->transport.insecure, reference->domain) == HOST_SECURE)
        endpoint.base = xasprintf("https://%s", reference->domain);
    else
        endpoint.scheme_key = reference->domain; /* the base is to be found out */
    return endpoint;
}

size_t list_endpoints(struct registry_client *client, const struct reference *reference,
                      const struct registry_auth *auth, struct endpoint *ret)
{
    bool hub = str_eq(reference->domain, REFERENCE_DEFAULT_DOMAIN);
    size_t count = 0;

    for (size_t i = 0; hub && i < client->mirror_count && count < ENDPOINTS_MAX - 1; i++) {
        struct mirror *mirror = &client->mirrors[i];
        if (mirror->skip_until_ms > loop_now_ms())
            continue;
        ret[count++] = (struct endpoint){.base = xstrdup(mirror->base), .mirror = mirror};
    }
    ret[count] = registry_endpoint(client, reference, auth);
    return count + 1;
}

void endpoints_done(struct endpoint *endpoints, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(endpoints[i].base);
}

bool endpoint_failed(struct mirror *mirror, const struct error *err)
{
    if (err->code == ERROR_CANCELLED || task_check() < 0)
        return false;
    if (mirror) {
        log_warn("a mirror failed", LOG("mirror", mirror->base), LOG("error", err->message));
        /* One that merely lacks this image may have the next. */
        if (err->code != ERROR_NOT_FOUND)
            mirror->skip_until_ms = loop_now_ms() + MIRROR_PENALTY_MS;
    }
    return true;
}

/* --- HTTPS or HTTP ---------------------------------------------------------------------------- */

static bool await_probe(struct registry_client *client, const char *scheme, const char *host_name,
                        struct error *err)
{
    CLEANUP_FREE char *url = xasprintf("%s://%s/v2/", scheme, host_name);
    CLEANUP(http_response_cleanup)
    struct http_response *response =
        await_exchange(&client->transport, &(struct exchange){.url = url, .attempts = 1}, NULL,
                       err);
    CLEANUP_STRBUF struct strbuf body = {0};

    if (!response)
        return false;
    /* What Go's TLS servers say to plain HTTP. */
    if (http_status(response) == 400)
        return error_set(err, ERROR_UNAVAILABLE, "TLS_FAILED",
                         "%s: server takes HTTPS requests only", host_name);
    /* Read to its end, so that the connection can be used again. */
    await_http_body(response, ERROR_BODY_MAX_BYTES, &body, NULL);
    return true;
}

/* Did it at least answer in this scheme? */
static bool answered(const struct error *err)
{
    return error_is(err, "REGISTRY_BUSY") || error_is(err, "REGISTRY_PROTOCOL");
}

/* Not for a certificate that is not trusted: that is a server which speaks TLS. */
static bool may_be_plain(const struct error *err)
{
    return error_is(err, "NOT_TLS") || error_is(err, "TLS_FAILED") ||
           error_is(err, "CONNECTION_LOST") || error_is(err, "CONNECTION_REFUSED");
}

/* For a host that may be plain HTTP: HTTPS if it speaks it, as Docker does. */
static const char *await_find_scheme(struct registry_client *client, const char *host_name,
                                     struct error *err)
{
    CLEANUP_ERROR struct error secure = {0};
    const char *found = map_get(client->schemes, host_name);

    if (found)
        return found;
    if (await_probe(client, "https", host_name, &secure) || answered(&secure))
        found = "https";
    else if (may_be_plain(&secure) &&
             (await_probe(client, "http", host_name, err) || answered(err)))
        found = "http";
    if (found) {
        error_done(err);
        map_put(client->schemes, host_name, (void *)found);
        return found;
    }
    if (!error_is_set(err) || (error_is(&secure, "TLS_FAILED") && err->code != ERROR_CANCELLED))
        error_move(err, &secure);
    return NULL;
}

/* --- Asking ----------------------------------------------------------------------------------- */

static bool refused_twice(const struct endpoint *endpoint, struct http_response *response,
                          const struct origin *origin, struct error *err)
{
    const struct registry_auth *auth = endpoint->auth;

    await_refusal(response, origin->name, err);
    if (auth && !str_empty(auth->username))
        error_prefix(err, "registry %s refuses the credentials of user %s", origin->name,
                     auth->username);
    return false;
}

/* Once with what was granted before, or without; after a 401 once more with what it asks for. */
static struct http_response *await_authorized(struct registry_client *client,
                                              const struct endpoint *endpoint,
                                              const char *repository, struct exchange *exchange,
                                              struct error *err)
{
    CLEANUP_ORIGIN struct origin origin = {0};
    struct auth_subject subject = {.origin = &origin,
                                   .repository = repository,
                                   .auth = endpoint->auth};
    struct auth_cache *cache = client->auth_cache;

    if (!origin_parse(exchange->url, &origin, err))
        return NULL;
    for (unsigned int number = 1;; number++) {
        CLEANUP_FREE char *authorization = xstrdup(auth_cached(cache, &subject));
        CLEANUP(http_response_cleanup) struct http_response *response = NULL;
        bool elsewhere;
        exchange->authorization = authorization;
        response = await_exchange(&client->transport, exchange, &elsewhere, err);
        exchange->authorization = NULL;
        if (authorization)
            explicit_bzero(authorization, strlen(authorization));
        if (!response || http_status(response) != 401)
            return TAKE(response);
        if (elsewhere) {
            await_refusal(response, origin.name, err);
            error_prefix(err, "%s redirects to a server that wants credentials", origin.name);
            return NULL;
        }
        auth_forget(cache, &subject);
        if (number == 2) {
            refused_twice(endpoint, response, &origin, err);
            return NULL;
        }
        if (!await_authenticate(&client->transport, cache, &subject, response, err))
            return NULL;
    }
}

struct http_response *await_endpoint_get(struct registry_client *client, struct endpoint *endpoint,
                                         const struct reference *reference,
                                         const struct endpoint_request *request, struct error *err)
{
    const char *headers[] = {"Accept-Encoding: identity", request->header, NULL};
    struct http_response *response = NULL;
    CLEANUP_FREE char *url = NULL;

    if (!endpoint->base) {
        const char *scheme = await_find_scheme(client, endpoint->scheme_key, err);
        if (scheme)
            endpoint->base = xasprintf("%s://%s", scheme, endpoint->scheme_key);
    }
    if (endpoint->base) {
        url = request->path ? xasprintf("%s%s", endpoint->base, request->path)
                            : xasprintf("%s/v2/%s/%s/%s", endpoint->base, reference->path,
                                        request->kind, request->name);
        response = await_authorized(client, endpoint, reference->path,
                                    &(struct exchange){
                                        .url = url,
                                        .headers = headers,
                                        .attempts = request->attempts,
                                        .body = request->body,
                                        .body_limit_bytes = request->body_limit_bytes,
                                    },
                                    err);
    }
    if (response)
        return response;
    /* The host may speak the other scheme by now. */
    if (endpoint->scheme_key && err->code == ERROR_UNAVAILABLE && !error_is(err, "REGISTRY_BUSY"))
        map_remove(client->schemes, endpoint->scheme_key);
    explain(reference, endpoint->auth, err);
    return NULL;
}

/* --- Errors ----------------------------------------------------------------------------------- */

static void set_reason(struct error *err, const char *reason)
{
    free(err->reason);
    err->reason = xstrdup(reason);
}

static void explain_denied(const struct reference *reference, const struct registry_auth *auth,
                           struct error *err)
{
    CLEANUP_FREE char *name = reference_familiar_name(reference);
    bool had_credentials = auth && (!str_empty(auth->username) || !str_empty(auth->identity_token));

    if (err->code == ERROR_UNAUTHENTICATED && had_credentials) {
        error_hint(err, "log in to %s again; davit uses the credentials in ~/.docker/config.json",
                   reference->domain);
        return;
    }
    error_prefix(
        err, "pull access denied for %s, repository does not exist or may require 'davit login'",
        name);
    if (had_credentials)
        error_hint(err, "check the name, and that user %s may read it",
                   auth->username ? auth->username : "");
    else
        error_hint(err,
                   "check the name; davit uses the credentials in ~/.docker/config.json, and "
                   "there are none for %s",
                   reference->domain);
}

bool explain(const struct reference *reference, const struct registry_auth *auth, struct error *err)
{
    if (error_is(err, "CONNECTION_REFUSED") || error_is(err, "CONNECTION_LOST") ||
        error_is(err, "TRUNCATED")) {
        set_reason(err, "CONNECTION_FAILED");
    } else if (error_is(err, "NOT_TLS") || error_is(err, "UNTRUSTED")) {
        set_reason(err, "TLS_FAILED");
    } else if (error_is(err, "BODY_TOO_LARGE")) {
        err->code = ERROR_FAILED_PRECONDITION;
        set_reason(err, "REGISTRY_PROTOCOL");
    } else if (error_is(err, "NAME_UNKNOWN")) {
        set_reason(err, "MANIFEST_UNKNOWN");
        explain_denied(reference, auth, err);
    } else if (error_is(err, "UNAUTHORIZED") || error_is(err, "DENIED")) {
        explain_denied(reference, auth, err);
    }
    return false;
}
