/* A request to a registry or token server as the rules want it: TLS by host, redirects one hop at a
 * time and without credentials elsewhere, retries while a server is busy, errors a user
 * understands.
 *
 * Nouns: the *transport* is what all exchanges of a client share; an *exchange* is one request with
 * what it may do. Begin with await_exchange(). */
#pragma once

#include "daemon/registry/hosts.h"
#include "daemon/registry/http.h"
#include "daemon/registry/tls.h"

#define REDIRECTS_MAX 10
#define ERROR_BODY_MAX_BYTES (64 * KIB)

struct transport {
    struct http *http;
    struct tls_loader tls;
    char **insecure;     /* NULL-terminated */
    uint64_t backoff_ms; /* before the first retry; doubles from there */
};

struct exchange {
    const char *url;
    const char *authorization;  /* the header's value, for the URL's own origin only; or NULL */
    const char *const *headers; /* others, NULL-terminated; may be NULL */
    const struct host_access *access; /* for the URL's own origin only; or NULL */
    const char *method;               /* as in struct http_request, as are these */
    const char *post_body;
    const struct http_body *request_body;
    uint64_t answer_grace_ms;
    bool own_connection;
    bool caller_waits;     /* Retry-After is the caller's to obey: no attempt after it */
    unsigned int attempts; /* at least 1; more than one while the server is busy or breaks off */
    struct strbuf *body;   /* takes the body of a 200 as part of the exchange; NULL: read later */
    size_t body_limit_bytes;
    char **ret_url;        /* where the answer came from, the caller's; NULL: it does not matter */
    struct http_flow flow; /* of what is read later */
    struct registry_wait *wait; /* says so while it waits for the next attempt; NULL: nobody asks */
};

/* Sends it, follows redirects, retries. Returns a response that is neither a redirect nor 429 nor
 * 5xx; the caller frees it. ret_elsewhere (may be NULL): it came from another origin than the
 * URL's. Errors: those of await_http_open, those of await_http_body if there is one to read, and
 * - UNAVAILABLE, REGISTRY_BUSY: 429 and 5xx after all attempts, with the registry's own words;
 * - FAILED_PRECONDITION, REGISTRY_PROTOCOL: redirects in a circle, to plain HTTP, to nowhere.
 * Suspends. Cancel aborts it. */
struct http_response *await_exchange(struct transport *transport, const struct exchange *exchange,
                                     bool *ret_elsewhere, struct error *err);

/* A URL that a server gave in its answer to url, such as where to send an upload, if it may be
 * followed; the caller frees it. Not from HTTPS to plain HTTP, unless that server is insecure
 * anyway. Errors as for redirects. */
char *exchange_location(const struct transport *transport, const char *url, const char *location,
                        struct error *err);

/* Reads the rest of a refusal, and makes an error of it: 401 UNAUTHENTICATED (UNAUTHORIZED), 403
 * PERMISSION_DENIED (DENIED), 404 NOT_FOUND (NAME_UNKNOWN, MANIFEST_UNKNOWN, BLOB_UNKNOWN, or
 * NOT_FOUND where the registry gives no such code), 407 and others
 * FAILED_PRECONDITION (REGISTRY_PROTOCOL). The message is the registry's, as Docker words it:
 * "manifest unknown: manifest unknown". Always false. */
bool await_refusal(struct http_response *response, const char *host_name, struct error *err);
