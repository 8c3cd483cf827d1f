/* Questions to a registry that are not about one image's content: whether credentials are right,
 * which tags and repositories there are, what a manifest says. They ask the registry itself, never
 * a mirror. All of them suspend; cancel aborts the requests; errors are those of
 * await_registry_resolve() and those named. */
#pragma once

#include "daemon/registry/registry.h"

/* Verifies credentials: /v2/ with what it asks for. `domain` as in references. *ret_identity_token
 * is what a token server gives to stand for the password, or NULL; the caller wipes and frees it.
 * Docker's words: UNAUTHENTICATED "login attempt to https://host/v2/ failed with status: 401
 * Unauthorized", "Get "https://host/v2/": unauthorized: ...". */
bool await_registry_login(struct registry_client *client, const char *domain,
                          const struct registry_auth *auth, char **ret_identity_token,
                          struct error *err);

/* The tags of a repository, in the registry's order; the caller frees with strv_free. At most
 * LISTING_MAX, then RESOURCE_EXHAUSTED. */
#define LISTING_MAX 100000
bool await_registry_tags(struct registry_client *client, const struct reference *reference,
                         const struct registry_auth *auth, char ***ret, struct error *err);

/* What a term must be like to be found. */
struct search_query {
    const char *term; /* "busybox"; "host:5000/team" asks that registry */
    size_t limit;     /* of results, at least 1 */
    uint32_t stars;   /* at least so many */
    /* 0: no, 1: yes, -1: all the same. */
    int official, automated;
};
#define SEARCH_LIMIT_MAX 100
#define SEARCH_LIMIT_DEFAULT 25

struct search_result {
    char *name, *description; /* as the server has them: any bytes */
    uint32_t stars;
    bool official, automated;
};

struct search_results {
    struct search_result *items;
    size_t count;
};
void search_results_done(struct search_results *results);
#define CLEANUP_SEARCH_RESULTS CLEANUP(search_results_done)

/* Docker Hub by its search protocol (docker/docker-v1 "index" API: GET /v1/search?q=&n=); other
 * registries through their catalogue (distribution-spec, "/v2/_catalog"), and where there is none,
 * by the same protocol. INVALID_ARGUMENT for a term that is none. */
bool await_registry_search(struct registry_client *client, const struct search_query *query,
                           const struct registry_auth *auth, struct search_results *ret,
                           struct error *err);

/* A manifest or index as it came, verified against its digest. */
struct registry_manifest {
    struct digest digest;
    char *media_type;
    char *data;
    size_t size;
    char *config_data; /* of an image, if it was asked for; NULL else */
    size_t config_size;
    struct digest *entries; /* of an index, in its order, attestations too */
    size_t entry_count;
};
void registry_manifest_done(struct registry_manifest *manifest);
#define CLEANUP_REGISTRY_MANIFEST CLEANUP(registry_manifest_done)

/* INVALID_ARGUMENT, reason INVALID_MANIFEST, for what is neither an image nor an index. */
bool await_registry_manifest(struct registry_client *client, const struct reference *reference,
                             const struct registry_auth *auth, bool with_config,
                             struct registry_manifest *ret, struct error *err);
