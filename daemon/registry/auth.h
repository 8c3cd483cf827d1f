/* Credentials and tokens: what goes into an Authorization header, for whom, and for how long
 * (distribution: "Token Authentication Specification" and "OAuth2"). */
#pragma once

#include "daemon/registry/challenge.h"
#include "daemon/registry/exchange.h"
#include "daemon/registry/registry.h"

#define TOKEN_MAX_BYTES (4 * MIB)

/* What was granted, by origin, repository and credentials. Forgotten when it expires. */
struct auth_cache;

struct auth_cache *auth_cache_new(void);
struct auth_cache *auth_cache_free(struct auth_cache *cache);

/* For whom an Authorization is wanted. auth may be NULL: anonymous. */
struct auth_subject {
    const struct origin *origin; /* of the registry */
    const char *repository;
    const struct registry_auth *auth;
    bool push;              /* not only to read */
    const char *mount_from; /* and to take blobs from this repository, of the same registry */
};

/* The header's value that was granted last, or NULL if there is none or it expires soon. Valid
 * until the next await or the cache's change. */
const char *auth_cached(struct auth_cache *cache, const struct auth_subject *subject);

/* It was refused. */
void auth_forget(struct auth_cache *cache, const struct auth_subject *subject);

/* Does what a 401 asks for, so that auth_cached() has something to send: takes the user's
 * credentials (Basic), or fetches a token (Bearer). Suspends for a token. Errors of await_exchange,
 * and UNAUTHENTICATED, reason UNAUTHORIZED: no credentials, or the token server refuses them;
 * FAILED_PRECONDITION, reason REGISTRY_PROTOCOL: nothing that we know is asked for, or a token
 * server without TLS, or one that makes no sense. */
bool await_authenticate(struct transport *transport, struct auth_cache *cache,
                        const struct auth_subject *subject, struct http_response *refused,
                        struct error *err);

/* The same for a login: for no repository, and a token server is asked for an identity token that
 * stands for the password from now on; *ret_identity_token stays NULL if it gives none. The caller
 * wipes and frees it. */
bool await_auth_login(struct transport *transport, struct auth_cache *cache,
                      const struct auth_subject *subject, struct http_response *refused,
                      char **ret_identity_token, struct error *err);

/* "Basic ..." of a user's name and password, for a server that is known to want it without asking;
 * NULL if there is no password. The caller wipes and frees it. */
char *auth_basic(const struct registry_auth *auth);
