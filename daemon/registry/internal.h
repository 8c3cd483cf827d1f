/* Shared between registry.c, endpoint.c and blob.c only. */
#pragma once

#include "daemon/registry/auth.h"
#include "daemon/registry/registry.h"
#include "proto/base/map.h"

/* A mirror that failed is left out for a while: its place in a blob must not cost every attempt. */
struct mirror {
    char *base; /* "https://mirror.example.com" */
    uint64_t skip_until_ms;
};

struct registry_client {
    struct transport transport;
    struct auth_cache *auth_cache;
    struct mirror *mirrors; /* of docker.io, in order */
    size_t mirror_count;
    struct map *schemes; /* of hosts that may be plain HTTP: "http" or "https", as found */
};

/* One place where a reference's content may be had. */
struct endpoint {
    char *base;                       /* "https://registry-1.docker.io" */
    struct mirror *mirror;            /* NULL: the registry itself */
    const struct registry_auth *auth; /* NULL for mirrors */
    const char *scheme_key;           /* in client->schemes; NULL if it is always https */
};

/* The places for a reference, in order; at most ENDPOINTS_MAX. Does not suspend. */
#define ENDPOINTS_MAX 16
size_t list_endpoints(struct registry_client *client, const struct reference *reference,
                      const struct registry_auth *auth, struct endpoint *ret);
void endpoints_done(struct endpoint *endpoints, size_t count);

/* The last of them alone: the registry itself. For endpoints_done(&endpoint, 1). */
struct endpoint registry_endpoint(struct registry_client *client, const struct reference *reference,
                                  const struct registry_auth *auth);

/* A GET of base/v2/REPOSITORY/KIND/NAME with the credentials that it takes. */
struct endpoint_request {
    const char *kind, *name; /* "manifests", "latest" */
    const char *path;        /* "/v2/_catalog" instead of both; NULL: none */
    const char *header;      /* such as Accept; or NULL */
    unsigned int attempts;
    struct strbuf *body; /* as in struct exchange */
    size_t body_limit_bytes;
};

/* Any response but 401. Finds out about HTTP or HTTPS, authenticates. Errors as explain() makes
 * them. */
struct http_response *await_endpoint_get(struct registry_client *client, struct endpoint *endpoint,
                                         const struct reference *reference,
                                         const struct endpoint_request *request, struct error *err);

/* Call when content could not be had: leaves a mirror (NULL: the registry itself) out for a while.
 * True if the next place may be asked, false if the task is at its end. */
bool endpoint_failed(struct mirror *mirror, const struct error *err);

/* Turns err into what registry.h promises: reasons, and Docker's words where its users know them.
 */
bool explain(const struct reference *reference, const struct registry_auth *auth,
             struct error *err);
