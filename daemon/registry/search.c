#include <curl/curl.h>
#include <strings.h>

#include "daemon/registry/listing.h"
#include "daemon/registry/queries.h"
#include "proto/base/json.h"

#define DOCKER_INDEX "https://index.docker.io"
#define ATTEMPTS 4
#define TERM_MAX_BYTES 1024

static const char domain_characters[] = "0123456789abcdefghijklmnopqrstuvwxyz"
                                        "ABCDEFGHIJKLMNOPQRSTUVWXYZ-.:[]";

void search_results_done(struct search_results *results)
{
    for (size_t i = 0; i < results->count; i++) {
        free(results->items[i].name);
        free(results->items[i].description);
    }
    free(results->items);
    *results = (struct search_results){0};
}

struct search {
    struct registry_client *client;
    const struct search_query *query;
    const struct registry_auth *auth;
    char *domain;     /* of a registry of the user's own; NULL: Docker Hub */
    const char *term; /* without it */
    struct search_results *results;
};

/* What fits the query, in the server's order, as long as there is room. */
static void take_result(struct search *search, const struct search_result *result)
{
    const struct search_query *query = search->query;
    struct search_results *results = search->results;

    if (results->count >= query->limit || result->stars < query->stars ||
        (query->official >= 0 && result->official != (query->official != 0)) ||
        (query->automated >= 0 && result->automated != (query->automated != 0)))
        return;
    results->items = xrealloc(results->items, (results->count + 1) * sizeof(struct search_result));
    results->items[results->count] = *result;
    results->items[results->count].name = xstrdup(result->name);
    results->items[results->count].description = xstrdup(result->description);
    results->count++;
}

/* --- The search protocol ---------------------------------------------------------------------- */

static bool take_answer(struct search *search, const char *base, const struct strbuf *body,
                        struct error *err)
{
    CLEANUP_JSON json_t *json =
        json_parse(strbuf_text(body), body->length, MANIFEST_MAX_BYTES, "the answer", NULL);
    const json_t *list = json_object_get(json, "results"), *one;
    size_t i;

    if (!json_is_array(list) && !json_is_null(list))
        return error_set(err, ERROR_FAILED_PRECONDITION, "REGISTRY_PROTOCOL",
                         "%s answers a search with something else", base);
    json_array_foreach ((json_t *)list, i, one) {
        const char *name = json_str(one, "name"), *description = json_str(one, "description");
        const int64_t stars = json_int(one, "star_count", 0);
        if (str_empty(name))
            continue;
        take_result(search, &(struct search_result){
                                .name = (char *)name,
                                .description = (char *)(description ? description : ""),
                                .stars = (uint32_t)MIN(MAX(stars, 0), UINT32_MAX),
                                .official = json_bool(one, "is_official", false),
                                .automated = json_bool(one, "is_automated", false),
                            });
    }
    return true;
}

/* GET BASE/v1/search?q=TERM&n=LIMIT, with the password where there is one. */
static bool await_protocol(struct search *search, const char *base, struct error *err)
{
    char *escaped = curl_easy_escape(NULL, search->term, 0);
    CLEANUP_FREE char *url =
        xasprintf("%s/v1/search?q=%s&n=%zu", base, escaped, search->query->limit);
    CLEANUP_SECRET char *authorization = auth_basic(search->auth);
    CLEANUP_STRBUF struct strbuf body = {0};
    CLEANUP(http_response_cleanup) struct http_response *response = NULL;

    curl_free(escaped);
    response = await_exchange(&search->client->transport,
                              &(struct exchange){.url = url,
                                                 .authorization = authorization,
                                                 .attempts = ATTEMPTS,
                                                 .body = &body,
                                                 .body_limit_bytes = MANIFEST_MAX_BYTES},
                              NULL, err);
    if (!response)
        return false;
    if (http_status(response) == 200)
        return take_answer(search, base, &body, err);
    await_refusal(response, base, err);
    return error_prefix(err, "search at %s", base);
}

/* --- The catalogue ---------------------------------------------------------------------------- */

/* Names that have the term in them; there is nothing else to search in. */
static bool take_repository(void *arg, const char *name)
{
    struct search *search = arg;
    CLEANUP_FREE char *full = xasprintf("%s/%s", search->domain, name);

    if (strcasestr(name, search->term))
        take_result(search, &(struct search_result){.name = full, .description = (char *)""});
    return search->results->count < search->query->limit;
}

static bool await_catalogue(struct search *search, struct error *err)
{
    const struct reference reference = {.domain = search->domain, .path = (char *)""};
    CLEANUP(source_cleanup)
    struct source *source = await_own_source(search->client, &reference, search->auth, err);
    const struct listing listing = {.client = search->client,
                                    .source = source,
                                    .path = "/_catalog",
                                    .key = "repositories",
                                    .visit = take_repository,
                                    .arg = search};
    CLEANUP_FREE char *base = source ? await_source_base(search->client, source, err) : NULL;

    if (!base)
        return source ? explain(source, err) : false;
    CLEANUP_ERROR struct error problem = {0};
    if (await_listing(&listing, &problem))
        return true;
    error_prefix(&problem, "the catalogue of %s", search->domain);
    /* Where there is none, there may be something else; if not, the first answer counts. */
    if (problem.code == ERROR_NOT_FOUND || error_is(&problem, "REGISTRY_PROTOCOL")) {
        base[strlen(base) - strlen("/v2")] = '\0';
        CLEANUP_ERROR struct error ignored = {0};
        if (await_protocol(search, base, &ignored))
            return true;
    }
    return error_move(err, &problem);
}

/* --- Both ------------------------------------------------------------------------------------- */

/* As Docker: "host:5000/term" and "localhost/term" name a registry, "user/term" does not. */
static char *domain_of(const char *term)
{
    const size_t length = strcspn(term, "/");
    CLEANUP_FREE char *first = xstrndup(term, length);

    if (!term[length] || !(strpbrk(first, ".:") || str_eq(first, "localhost")) ||
        str_eq(first, "docker.io") || str_eq(first, "index.docker.io"))
        return NULL;
    return TAKE(first);
}

bool await_registry_search(struct registry_client *client, const struct search_query *query,
                           const struct registry_auth *auth, struct search_results *ret,
                           struct error *err)
{
    CLEANUP_FREE char *domain = domain_of(query->term);
    struct search search = {
        .client = client, .query = query, .auth = auth, .domain = domain, .results = ret};
    bool ok;

    search.term = query->term;
    if (domain)
        search.term += strlen(domain) + 1;
    else if (str_starts(search.term, "docker.io/") || str_starts(search.term, "index.docker.io/"))
        search.term = strchr(search.term, '/') + 1;
    if (strlen(query->term) > TERM_MAX_BYTES ||
        (domain && strspn(domain, domain_characters) != strlen(domain)))
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_TERM",
                         "invalid search term \"%.100s\"", query->term);
    *ret = (struct search_results){0};
    ok = domain ? await_catalogue(&search, err) : await_protocol(&search, DOCKER_INDEX, err);
    if (!ok)
        search_results_done(ret);
    return ok;
}
