/* Shared within this folder only. */
#pragma once

#include "daemon/registry/auth.h"
#include "daemon/registry/health.h"
#include "daemon/registry/registry.h"
#include "daemon/registry/source.h"

/* A configured mirror of a registry. */
struct mirror {
    char *registry; /* "docker.io" */
    char *url;      /* as it was given */
    char *base;     /* "https://mirror.example.com/v2" */
    char *name;     /* "mirror.example.com" */
    char *prefix;   /* of repositories there: "", "dockerhub/" */
};

/* Mirrors of the options; invalid ones are left out, and logged. */
struct mirror *mirrors_new(const struct registry_options *options, size_t *ret_count);
void mirrors_free(struct mirror *mirrors, size_t count);

struct registry_client {
    struct transport transport;
    struct auth_cache *auth_cache;
    struct mirror *mirrors; /* in order */
    size_t mirror_count;
    char **hosts_dirs; /* where hosts.toml of hosts are */
    struct health_table health;
    struct map *schemes; /* of hosts that may be plain HTTP: "http" or "https", as found */
};

struct source {
    unsigned int references;
    char *base;                 /* "https://registry-1.docker.io/v2"; NULL: to be found out */
    char *scheme_key;           /* in client->schemes: "localhost:5000"; NULL where base is set */
    char *name;                 /* "registry-1.docker.io" */
    char *repository;           /* below base: "library/ubuntu" */
    char *query;                /* "ns=docker.io", for each request; or NULL */
    struct host_access *access; /* NULL: as always */
    bool mirror;                /* false: the registry itself */
    struct reference reference; /* for errors */
    char *username, *password, *identity_token; /* NULL for mirrors */
    struct health *health;
};

static inline void source_cleanup(struct source **source)
{
    *source = source_unref(*source);
}

/* The credentials, borrowed from the source. */
struct registry_auth source_auth(const struct source *source);

/* The source that is no mirror. Does not suspend; the caller releases it. */
struct source *registry_itself(struct registry_client *client, const struct reference *reference,
                               const struct registry_auth *auth);

/* The same as hosts.toml describes it. Suspends; errors of await_registry_sources(). */
struct source *await_own_source(struct registry_client *client, const struct reference *reference,
                                const struct registry_auth *auth, struct error *err);

/* "https://registry-1.docker.io/v2", once it is known whether a host speaks HTTP or HTTPS: may
 * suspend. The caller frees it. */
char *await_source_base(struct registry_client *client, const struct source *source,
                        struct error *err);

/* The manifests and indexes that there are. */
#define ACCEPT_MANIFESTS                                             \
    "Accept: application/vnd.docker.distribution.manifest.v2+json, " \
    "application/vnd.docker.distribution.manifest.list.v2+json, "    \
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"

/* A request for BASE/REPOSITORY/KIND/NAME with the credentials that it takes. */
struct source_request {
    const char *method;         /* NULL: GET */
    const char *kind, *name;    /* "manifests", "latest" */
    const char *path;           /* below the base, "" or "/_catalog", instead of both; or NULL */
    const char *const *headers; /* NULL-terminated, such as Accept; or NULL */
    unsigned int attempts;
    bool caller_waits;   /* as in struct exchange */
    struct strbuf *body; /* as in struct exchange */
    size_t body_limit_bytes;
    struct http_flow flow;
    /* Of a push. */
    const char *url; /* an upload's, instead of what is above; if it is of another origin than
                        the base, it gets no credentials */
    bool push;       /* needs more than to read */
    const char *mount_from; /* as in struct auth_subject */
    const struct http_body *request_body;
    uint64_t answer_grace_ms; /* as in struct http_request */
    bool own_connection;
    char **ret_url; /* as in struct exchange */
    struct registry_wait *wait;
};

/* Any response but 401. Finds out about HTTP or HTTPS, authenticates. Errors as
 * explain() makes them. */
struct http_response *await_source_ask(struct registry_client *client, const struct source *source,
                                       const struct source_request *request, struct error *err);

/* Turns err into what registry.h promises: reasons, and Docker's words where its users know them.
 */
bool explain(const struct source *source, struct error *err);

/* The same of a push. */
bool explain_push(const struct source *source, struct error *err);
