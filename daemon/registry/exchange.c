#include "daemon/registry/exchange.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

#include "daemon/registry/http_date.h"
#include "daemon/registry/wait.h"
#include "proto/async/await.h"
#include "proto/base/json.h"
#include "proto/base/log.h"

/* A server that asks for more patience than this gets none: the user decides. */
#define RETRY_AFTER_MAX_MS 30000
#define BACKOFF_MAX_MS 8000
#define TEXT_MAX 300

/* --- What a server says ----------------------------------------------------------------------- */

/* A stranger's text for a terminal: one line without control characters. */
static void add_clean(struct strbuf *ret, const char *text)
{
    size_t added = 0;

    for (const unsigned char *c = (const unsigned char *)text; *c && added < TEXT_MAX; c++) {
        bool c1 = c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0; /* terminals obey these, too */
        strbuf_add_char(ret, c1 || *c < 0x20 || *c == 0x7f ? ' ' : (char)*c);
        added++;
    }
    /* Not in the middle of a character. */
    while (added == TEXT_MAX && ret->length && (ret->data[ret->length - 1] & 0xc0) == 0x80)
        ret->data[--ret->length] = '\0';
}

/* {"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]} becomes "manifest unknown:
 * manifest unknown" (distribution-spec, "Error Codes"); Docker's token server has "details". */
static bool describe_json(const json_t *json, struct strbuf *ret, char **ret_code)
{
    const json_t *first = json_array_get(json_object_get(json, "errors"), 0);
    const char *code = json_str(first, "code"), *message = json_str(first, "message");

    if (!first)
        message = json_str(json, "details");
    if (str_empty(code) && str_empty(message))
        return false;
    if (!str_empty(code)) {
        *ret_code = xstrndup(code, 40);
        CLEANUP_FREE char *words = xstrdup(*ret_code);
        for (char *c = words; *c; c++)
            *c = *c == '_' ? ' ' : (char)tolower((unsigned char)*c);
        add_clean(ret, words);
        if (!str_empty(message))
            strbuf_add_str(ret, ": ");
    }
    if (!str_empty(message))
        add_clean(ret, message);
    return true;
}

/* What registries say with these: answers to HEAD have no words. */
static const char *default_words(int status)
{
    return status == 401   ? "unauthorized: authentication required"
           : status == 403 ? "denied: requested access to the resource is denied"
                           : NULL;
}

/* The registry's own words, and its code if it gave one; "404 Not Found" if it said nothing. */
static void await_describe(struct http_response *response, struct strbuf *ret, char **ret_code)
{
    CLEANUP_STRBUF struct strbuf body = {0};
    CLEANUP_JSON json_t *json = NULL;
    const char *type = http_header(response, "Content-Type", 0);

    if (await_http_body(response, ERROR_BODY_MAX_BYTES, &body, NULL))
        json = json_parse(strbuf_text(&body), body.length, ERROR_BODY_MAX_BYTES, "the error", NULL);
    if (json && describe_json(json, ret, ret_code))
        return;
    if (body.length == 0 && default_words(http_status(response))) {
        strbuf_add_str(ret, default_words(http_status(response)));
        return;
    }
    strbuf_addf(ret, "status %d", http_status(response));
    if (!json && body.length && type && str_starts(type, "text/plain")) {
        strbuf_add_str(ret, ": ");
        add_clean(ret, body.data);
    }
}

/* A stranger's code becomes a reason only where it is one we act on. */
static const char *not_found_reason(const char *code)
{
    static const char *const known[] = {"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN"};

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (str_eq(code, known[i]))
            return known[i];
    }
    return "NOT_FOUND";
}

bool await_refusal(struct http_response *response, const char *host_name, struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_FREE char *code = NULL;
    int status = http_status(response);

    await_describe(response, &text, &code);
    switch (status) {
    case 401:
        return error_set(err, ERROR_UNAUTHENTICATED, "UNAUTHORIZED", "%s", text.data);
    case 403:
        return error_set(err, ERROR_PERMISSION_DENIED, "DENIED", "%s", text.data);
    case 404:
        return error_set(err, ERROR_NOT_FOUND, not_found_reason(code), "%s", text.data);
    case 413:
        error_set(err, ERROR_FAILED_PRECONDITION, "REGISTRY_PROTOCOL",
                  "%s refuses something of this size: %s", host_name, text.data);
        return error_hint(err, "the registry, or a proxy before it, limits how much may be sent at "
                               "once (nginx: client_max_body_size)");
    case 407:
        error_set(err, ERROR_FAILED_PRECONDITION, "REGISTRY_PROTOCOL",
                  "%s: the proxy wants other credentials", host_name);
        return error_hint(err, "check HTTP_PROXY in the environment of davitd");
    default:
        return error_set(err, ERROR_FAILED_PRECONDITION, "REGISTRY_PROTOCOL",
                         "%s: unexpected answer: %s", host_name, text.data);
    }
}

/* --- Retries ---------------------------------------------------------------------------------- */

/* 429 and 5xx: fills err. */
static bool await_busy(struct http_response *response, const char *host_name, struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_FREE char *code = NULL;
    int status = http_status(response);
    uint64_t wait_ms;

    if (status != 429 && status < 500)
        return false;
    wait_ms = retry_after_ms(http_header(response, "Retry-After", 0), time(NULL));
    await_describe(response, &text, &code);
    error_set(err, ERROR_UNAVAILABLE, "REGISTRY_BUSY", "%s answers %d: %s", host_name, status,
              text.data);
    err->retry_after_ms = wait_ms;
    if (wait_ms > RETRY_AFTER_MAX_MS)
        error_hint(err, "the registry asks to wait for %llu seconds",
                   (unsigned long long)wait_ms / 1000);
    else if (status == 429)
        error_hint(err, "the registry limits how often it may be asked: try again later, or with "
                        "credentials");
    else
        error_hint(err, "the registry has a problem: try again later");
    return true;
}

static bool worth_a_retry(const struct error *err)
{
    return err->retry_after_ms <= RETRY_AFTER_MAX_MS &&
           (error_is(err, "REGISTRY_BUSY") || error_is(err, "CONNECTION_LOST") ||
            error_is(err, "TRUNCATED") || error_is(err, "STALLED") || error_is(err, "TOO_SLOW"));
}

static uint64_t backoff_ms(const struct transport *transport, unsigned int number,
                           const struct error *failure)
{
    uint64_t ms = transport->backoff_ms << MIN(number, 10U);

    if (failure->retry_after_ms)
        return failure->retry_after_ms;
    ms = MIN(ms, BACKOFF_MAX_MS);
    return ms / 2 + (uint64_t)random() % (ms / 2 + 1);
}

static int await_backoff(struct registry_wait *wait, uint64_t ms, const struct error *failure)
{
    int r;

    if (!wait)
        return await_sleep(ms);
    error_copy(&wait->cause, failure);
    wait->until_unix_ms = wall_clock_ns() / 1000000 + (int64_t)ms;
    r = await_sleep(ms);
    registry_wait_done(wait);
    return r;
}

/* --- One hop ---------------------------------------------------------------------------------- */

static void add_tls_hint(struct error *err, const char *name, const char *certs_dir)
{
    if (error_is(err, "UNTRUSTED")) {
        error_hint(err,
                   "if the registry has a certificate of its own, put the CA's as %s/%s/ca.crt; or "
                   "list %s in \"insecure-registries\" to do without verification",
                   certs_dir ? certs_dir : "certs.d", name, name);
    } else if (error_is(err, "TLS_FAILED")) {
        error_hint(
            err,
            "if the registry wants a certificate of ours, put it as %s/%s/client.cert, and its "
            "key beside it as client.key",
            certs_dir ? certs_dir : "certs.d", name);
    } else if (error_is(err, "NOT_TLS")) {
        error_hint(err,
                   "if the registry is meant to be plain HTTP, list %s in \"insecure-registries\" "
                   "of /etc/davit/daemon.json or give davitd --insecure-registry %s",
                   name, name);
    }
}

static bool is_authorization(const char *header)
{
    return strncasecmp(header, "Authorization:", strlen("Authorization:")) == 0;
}

/* The list for the request; its texts are borrowed. */
static const char **list_headers(const struct exchange *exchange, const struct host_access *access,
                                 const char *authorization)
{
    size_t count = strv_count((char *const *)exchange->headers), kept = 0;
    char *const *own = access ? access->headers : NULL;
    const char **headers = xcalloc(count + strv_count(own) + 2, sizeof(*headers));

    for (; kept < count; kept++)
        headers[kept] = exchange->headers[kept];
    for (; own && *own; own++) {
        if (!authorization || !is_authorization(*own))
            headers[kept++] = *own;
    }
    headers[kept] = authorization;
    return headers;
}

/* here: at the origin that the exchange is for, and nowhere else. */
static struct http_response *await_hop(struct transport *transport, const struct exchange *exchange,
                                       const char *url, const struct origin *origin, bool here,
                                       struct error *err)
{
    const struct host_access *access = here ? exchange->access : NULL;
    CLEANUP_TLS_FILES struct tls_files files = {0};
    CLEANUP_SECRET char *authorization = NULL;
    CLEANUP_FREE const char **headers = NULL;
    bool tls = str_eq(origin->scheme, "https");
    bool verify = tls && host_trust(transport->insecure, origin->name) != HOST_INSECURE &&
                  !(access && access->skip_verify);
    struct http_response *response;

    if (tls && !await_tls_load(&transport->tls, origin->name, verify, access, &files, err))
        return NULL;
    if (here && exchange->authorization)
        authorization = xasprintf("Authorization: %s", exchange->authorization);
    headers = list_headers(exchange, access, authorization);
    response = await_http_open(transport->http,
                               &(struct http_request){
                                   .url = url,
                                   .method = exchange->method,
                                   .headers = headers,
                                   .post_body = exchange->post_body,
                                   .body = exchange->request_body,
                                   .answer_grace_ms = exchange->answer_grace_ms,
                                   .own_connection = exchange->own_connection,
                                   .connect_timeout_ms = access ? access->connect_timeout_ms : 0,
                                   .proxy = access ? access->proxy : NULL,
                                   .tls = {.verify = verify,
                                           .roots = files.roots,
                                           .roots_name = files.roots_name,
                                           .certificate_file = files.certificate_file,
                                           .key_file = files.key_file},
                                   .flow = exchange->flow,
                               },
                               err);
    if (!response)
        add_tls_hint(err, origin->name, transport->tls.certs_dir);
    return response;
}

/* --- Redirects -------------------------------------------------------------------------------- */

static bool is_redirect(int status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

static bool bad_redirect(const struct origin *from, const char *why, struct error *err)
{
    return error_set(err, ERROR_FAILED_PRECONDITION, "REGISTRY_PROTOCOL",
                     "%s: refused to follow a redirect: %s", from->name, why);
}

/* Where a redirect leads: fills url and origin anew. */
static bool take_redirect(const struct transport *transport, const struct http_response *response,
                          const struct origin *first, char **url, struct origin *origin,
                          struct error *err)
{
    const char *location = http_header(response, "Location", 0);
    CLEANUP_FREE char *target = location ? url_resolve(*url, location, NULL) : NULL;
    CLEANUP_ORIGIN struct origin next = {0};

    if (!target || !origin_parse(target, &next, NULL))
        return bad_redirect(first, "it leads to no valid URL", err);
    if (str_eq(next.scheme, "http") && str_eq(origin->scheme, "https") &&
        host_trust(transport->insecure, first->name) != HOST_INSECURE)
        return bad_redirect(first, "it leads from HTTPS to plain HTTP", err);
    free(*url);
    *url = TAKE(target);
    origin_done(origin);
    *origin = next;
    next = (struct origin){0};
    return true;
}

char *exchange_location(const struct transport *transport, const char *url, const char *location,
                        struct error *err)
{
    CLEANUP_FREE char *target = location ? url_resolve(url, location, NULL) : NULL;
    CLEANUP_ORIGIN struct origin from = {0}, to = {0};

    if (!origin_parse(url, &from, err))
        return NULL;
    if (!target || !origin_parse(target, &to, NULL)) {
        error_set(err, ERROR_FAILED_PRECONDITION, "REGISTRY_PROTOCOL",
                  "%s: its Location is no valid URL", from.name);
        return NULL;
    }
    if (str_eq(to.scheme, "http") && str_eq(from.scheme, "https") &&
        host_trust(transport->insecure, from.name) != HOST_INSECURE) {
        error_set(err, ERROR_FAILED_PRECONDITION, "REGISTRY_PROTOCOL",
                  "%s: refused to go on at %s: its Location leads from HTTPS to plain HTTP",
                  from.name, to.name);
        return NULL;
    }
    return TAKE(target);
}

static bool await_body(const struct exchange *exchange, struct http_response *response,
                       struct error *err)
{
    if (!exchange->body || http_status(response) != 200)
        return true;
    strbuf_clear(exchange->body); /* of what an earlier attempt left */
    return await_http_body(response, exchange->body_limit_bytes, exchange->body, err);
}

/* Only 307 and 308 keep what a request is (RFC 9110, 15.4). */
static bool check_redirected(const struct exchange *exchange, int status,
                             const struct origin *first, struct error *err)
{
    bool reads =
        !exchange->method || str_eq(exchange->method, "GET") || str_eq(exchange->method, "HEAD");

    if (exchange->post_body)
        return bad_redirect(first, "it would send a secret elsewhere", err);
    if (!reads && status != 307 && status != 308)
        return bad_redirect(first, "it would make another request of it", err);
    return true;
}

/* One attempt: request by request until there is an answer. */
static struct http_response *await_follow(struct transport *transport,
                                          const struct exchange *exchange, bool *ret_elsewhere,
                                          struct error *err)
{
    CLEANUP_FREE char *url = xstrdup(exchange->url);
    CLEANUP_ORIGIN struct origin first = {0}, origin = {0};

    if (!origin_parse(url, &first, err) || !origin_parse(url, &origin, err))
        return NULL;
    for (unsigned int hops = 0; hops <= REDIRECTS_MAX; hops++) {
        bool here = origin_eq(&first, &origin);
        CLEANUP(http_response_cleanup)
        struct http_response *response = await_hop(transport, exchange, url, &origin, here, err);
        if (!response || await_busy(response, origin.name, err))
            return NULL;
        if (!is_redirect(http_status(response))) {
            if (!await_body(exchange, response, err))
                return NULL;
            *ret_elsewhere = !here;
            if (exchange->ret_url) {
                free(*exchange->ret_url); /* of an answer before this one */
                *exchange->ret_url = TAKE(url);
            }
            return TAKE(response);
        }
        if (!check_redirected(exchange, http_status(response), &first, err))
            return NULL;
        if (!take_redirect(transport, response, &first, &url, &origin, err))
            return NULL;
    }
    bad_redirect(&first, "there were too many in a row", err);
    return NULL;
}

struct http_response *await_exchange(struct transport *transport, const struct exchange *exchange,
                                     bool *ret_elsewhere, struct error *err)
{
    bool elsewhere = false;

    for (unsigned int number = 1;; number++) {
        CLEANUP_ERROR struct error failure = {0};
        struct http_response *response = await_follow(transport, exchange, &elsewhere, &failure);
        if (response) {
            if (ret_elsewhere)
                *ret_elsewhere = elsewhere;
            return response;
        }
        if (number >= exchange->attempts || !worth_a_retry(&failure) ||
            (exchange->caller_waits && failure.retry_after_ms)) {
            error_move(err, &failure);
            return NULL;
        }
        log_debug("asking a registry again", LOG("error", failure.message));
        int r =
            await_backoff(exchange->wait, backoff_ms(transport, number - 1, &failure), &failure);
        if (r < 0) {
            await_error(err, r, "waiting for a registry");
            return NULL;
        }
    }
}
