/* Asking a source: HTTP or HTTPS, credentials, Docker's words for refusals. */

#include "daemon/registry/internal.h"

/* --- HTTPS or HTTP ---------------------------------------------------------------------------- */

static bool await_probe(struct registry_client *client, const char *scheme,
                        const struct source *source, struct error *err)
{
    const char *host_name = source->scheme_key;
    CLEANUP_FREE char *url = xasprintf("%s://%s/v2/", scheme, host_name);
    const struct exchange exchange = {.url = url, .access = source->access, .attempts = 1};
    CLEANUP(http_response_cleanup)
    struct http_response *response = await_exchange(&client->transport, &exchange, NULL, err);
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
static const char *await_find_scheme(struct registry_client *client, const struct source *source,
                                     struct error *err)
{
    CLEANUP_ERROR struct error secure = {0};
    const char *found = map_get(client->schemes, source->scheme_key);

    if (found)
        return found;
    if (await_probe(client, "https", source, &secure) || answered(&secure))
        found = "https";
    else if (may_be_plain(&secure) && (await_probe(client, "http", source, err) || answered(err)))
        found = "http";
    if (found) {
        error_done(err);
        map_put(client->schemes, source->scheme_key, (void *)found);
        return found;
    }
    if (!error_is_set(err) || (error_is(&secure, "TLS_FAILED") && err->code != ERROR_CANCELLED))
        error_move(err, &secure);
    return NULL;
}

/* --- Asking ----------------------------------------------------------------------------------- */

/* What a token that does not go far enough is told (RFC 6750, 3.1). */
static bool lacks_scope(const struct http_response *response)
{
    const char *header = http_header(response, "WWW-Authenticate", 0);

    return header && strstr(header, "error=\"insufficient_scope\"");
}

static bool refused_twice(const struct source *source, struct http_response *response,
                          const struct origin *origin, struct error *err)
{
    if (lacks_scope(response))
        return error_set(err, ERROR_PERMISSION_DENIED, "DENIED",
                         "denied: requested access to the resource is denied");
    await_refusal(response, origin->name, err);
    if (!str_empty(source->username))
        error_prefix(err, "registry %s refuses the credentials of user %s", origin->name,
                     source->username);
    return false;
}

/* Whether something else was granted since: other requests with these credentials run as well. */
static bool granted_anew(struct auth_cache *cache, const struct auth_subject *subject,
                         const char *sent)
{
    const char *cached = auth_cached(cache, subject);

    return cached && !str_eq(cached, sent);
}

/* With what was granted before, or without; after a 401 with what was granted meanwhile, and at
 * last with what this asks for. */
static struct http_response *await_authorized(struct registry_client *client,
                                              const struct source *source,
                                              const struct source_request *request,
                                              struct exchange *exchange, struct error *err)
{
    CLEANUP_ORIGIN struct origin origin = {0};
    const struct registry_auth auth = source_auth(source);
    struct auth_subject subject = {.origin = &origin,
                                   .repository = source->repository,
                                   .auth = &auth,
                                   .push = request->push,
                                   .mount_from = request->mount_from};
    struct auth_cache *cache = client->auth_cache;
    bool looked_again = false, asked = false;

    if (!origin_parse(exchange->url, &origin, err))
        return NULL;
    for (;;) {
        CLEANUP_SECRET char *authorization = xstrdup(auth_cached(cache, &subject));
        CLEANUP(http_response_cleanup) struct http_response *response = NULL;
        bool elsewhere;
        exchange->authorization = authorization;
        response = await_exchange(&client->transport, exchange, &elsewhere, err);
        exchange->authorization = NULL;
        if (!response || http_status(response) != 401)
            return TAKE(response);
        if (elsewhere) {
            await_refusal(response, origin.name, err);
            error_prefix(err, "%s redirects to a server that wants credentials", origin.name);
            return NULL;
        }
        if (!asked && !looked_again && granted_anew(cache, &subject, authorization)) {
            looked_again = true;
            continue;
        }
        auth_forget(cache, &subject);
        if (asked) {
            refused_twice(source, response, &origin, err);
            return NULL;
        }
        if (!await_authenticate(&client->transport, cache, &subject, response, err))
            return NULL;
        asked = true;
    }
}

char *await_source_base(struct registry_client *client, const struct source *source,
                        struct error *err)
{
    const char *scheme;

    if (source->base)
        return xstrdup(source->base);
    scheme = await_find_scheme(client, source, err);
    return scheme ? xasprintf("%s://%s/v2", scheme, source->scheme_key) : NULL;
}

/* Credentials are for the registry, not for wherever it has uploads sent to. */
static bool is_elsewhere(const char *base, const char *url)
{
    CLEANUP_ORIGIN struct origin own = {0}, other = {0};

    return !origin_parse(base, &own, NULL) || !origin_parse(url, &other, NULL) ||
           !origin_eq(&own, &other);
}

static char *request_url(const struct source *source, const struct source_request *request,
                         const char *base)
{
    CLEANUP_FREE char *url = NULL;

    if (request->url)
        return xstrdup(request->url);
    url = request->path
              ? xasprintf("%s%s", base, request->path)
              : xasprintf("%s/%s/%s/%s", base, source->repository, request->kind, request->name);
    if (!source->query)
        return TAKE(url);
    return xasprintf("%s%c%s", url, strchr(url, '?') ? '&' : '?', source->query);
}

struct http_response *await_source_ask(struct registry_client *client, const struct source *source,
                                       const struct source_request *request, struct error *err)
{
    CLEANUP_FREE char *base = await_source_base(client, source, err), *url = NULL;
    struct http_response *response = NULL;

    if (base) {
        url = request_url(source, request, base);
        bool elsewhere = request->url && is_elsewhere(base, url);
        struct exchange exchange = {
            .url = url,
            .method = request->method,
            .headers = request->headers,
            .access = elsewhere ? NULL : source->access,
            .request_body = request->request_body,
            .answer_grace_ms = request->answer_grace_ms,
            .own_connection = request->own_connection,
            .attempts = request->attempts,
            .caller_waits = request->caller_waits,
            .body = request->body,
            .body_limit_bytes = request->body_limit_bytes,
            .ret_url = request->ret_url,
            .flow = request->flow,
            .wait = request->wait,
        };
        response = elsewhere ? await_exchange(&client->transport, &exchange, NULL, err)
                             : await_authorized(client, source, request, &exchange, err);
    }
    if (response)
        return response;
    /* The host may speak the other scheme by now. */
    if (source->scheme_key && (error_is(err, "CONNECTION_REFUSED") || error_is(err, "NOT_TLS")))
        map_remove(client->schemes, source->scheme_key);
    if (request->push)
        explain_push(source, err);
    else
        explain(source, err);
    return NULL;
}

/* --- Errors ----------------------------------------------------------------------------------- */

static void set_reason(struct error *err, const char *reason)
{
    free(err->reason);
    err->reason = xstrdup(reason);
}

static void explain_denied(const struct source *source, struct error *err)
{
    CLEANUP_FREE char *name = reference_familiar_name(&source->reference);
    const char *domain = source->reference.domain;
    bool had_credentials = !str_empty(source->username) || !str_empty(source->identity_token);

    if (err->code == ERROR_UNAUTHENTICATED && had_credentials) {
        error_hint(err, "log in to %s again; davit uses the credentials in ~/.docker/config.json",
                   domain);
        return;
    }
    error_prefix(
        err, "pull access denied for %s, repository does not exist or may require 'davit login'",
        name);
    if (had_credentials)
        error_hint(err, "check the name, and that user %s may read it",
                   source->username ? source->username : "");
    else
        error_hint(err,
                   "check the name; davit uses the credentials in ~/.docker/config.json, and "
                   "there are none for %s",
                   domain);
}

/* What goes wrong on the way. */
static void explain_transport(struct error *err)
{
    if (error_is(err, "CONNECTION_REFUSED") || error_is(err, "CONNECTION_LOST") ||
        error_is(err, "TRUNCATED")) {
        set_reason(err, "CONNECTION_FAILED");
    } else if (error_is(err, "NOT_TLS") || error_is(err, "UNTRUSTED")) {
        set_reason(err, "TLS_FAILED");
    } else if (error_is(err, "BODY_TOO_LARGE")) {
        err->code = ERROR_FAILED_PRECONDITION;
        set_reason(err, "REGISTRY_PROTOCOL");
    }
}

bool explain(const struct source *source, struct error *err)
{
    explain_transport(err);
    if (error_is(err, "NAME_UNKNOWN")) {
        set_reason(err, "MANIFEST_UNKNOWN");
        explain_denied(source, err);
    } else if (error_is(err, "UNAUTHORIZED") || error_is(err, "DENIED")) {
        explain_denied(source, err);
    }
    return false;
}

bool explain_push(const struct source *source, struct error *err)
{
    const char *domain = source->reference.domain;

    explain_transport(err);
    if (error_is(err, "NAME_UNKNOWN"))
        return error_hint(err, "check the name; some registries want a repository to be made "
                               "before it is pushed to");
    if (!error_is(err, "UNAUTHORIZED") && !error_is(err, "DENIED"))
        return false;
    if (!str_empty(source->username))
        return error_hint(err, "check the name, and that user %s may push to it", source->username);
    if (!str_empty(source->identity_token))
        return error_hint(err, "check the name, or log in to %s again", domain);
    return error_hint(err, "log in first: davit login %s", domain);
}
