#include "daemon/registry/listing.h"

#include <ctype.h>

#include "daemon/registry/queries.h"
#include "proto/base/json.h"

#define PAGE_ENTRIES 1000
#define PAGES_MAX 1000
#define ATTEMPTS 4

static bool broken(const struct listing *listing, const char *why, struct error *err)
{
    return error_set(err, ERROR_FAILED_PRECONDITION, "REGISTRY_PROTOCOL", "%s: %s",
                     source_name(listing->source), why);
}

/* --- Links ------------------------------------------------------------------------------------ */

/* The target of `</v2/_catalog?last=a&n=5>; rel="next"` (RFC 8288), among others; NULL if there is
 * none. The caller frees it. */
static char *next_target(const char *links)
{
    const char *start, *end, *following, *relation;

    for (start = links ? strchr(links, '<') : NULL; start; start = following) {
        end = strchr(start, '>');
        if (!end)
            return NULL;
        following = strchr(end, '<');
        relation = strstr(end, "next");
        if (relation && (!following || relation < following))
            return xstrndup(start + 1, (size_t)(end - start - 1));
    }
    return NULL;
}

/* The next page as a path below the base: it must lead to the same place, for it gets the same
 * credentials. NULL without err if there is none. */
static char *next_path(const struct listing *listing, const char *base,
                       const struct http_response *response, struct error *err)
{
    CLEANUP_FREE char *target = next_target(http_header(response, "Link", 0));
    if (!target)
        return NULL;
    CLEANUP_FREE char *here = xasprintf("%s%s", base, listing->path);
    CLEANUP_FREE char *url = url_resolve(here, target, NULL);
    if (url && str_starts(url, base) && url[strlen(base)] == '/')
        return xstrdup(url + strlen(base));
    /* Behind a proxy that ends TLS, a registry may name itself otherwise. */
    const char *path = url ? strstr(url, "/v2/") : NULL;
    if (path)
        return xstrdup(path + strlen("/v2"));
    broken(listing, "the link to the next page of a list makes no sense", err);
    return NULL;
}

/* --- Pages ------------------------------------------------------------------------------------ */

/* False with err, or without: the visitor has enough. */
static bool visit_page(const struct listing *listing, const struct strbuf *body, size_t *count,
                       struct error *err)
{
    CLEANUP_JSON json_t *page =
        json_parse(strbuf_text(body), body->length, MANIFEST_MAX_BYTES, "the list", NULL);
    const json_t *names = json_object_get(page, listing->key);
    const json_t *name;
    size_t i;

    if (!names || (!json_is_array(names) && !json_is_null(names)))
        return broken(listing, "it sends a list that makes no sense", err);
    json_array_foreach ((json_t *)names, i, name) {
        if (!json_is_string(name))
            return broken(listing, "it sends a list that makes no sense", err);
        if (++*count > LISTING_MAX)
            return error_set(err, ERROR_RESOURCE_EXHAUSTED, "LIST_TOO_LONG",
                             "%s: the list has more than %d entries", source_name(listing->source),
                             LISTING_MAX);
        if (!listing->visit(listing->arg, json_string_value(name)))
            return false;
    }
    return true;
}

/* One page; *path becomes that of the next, or NULL. False with err, or without: enough. */
static bool await_page(const struct listing *listing, const char *base, char **path, size_t *count,
                       struct error *err)
{
    CLEANUP_STRBUF struct strbuf body = {0};
    const struct source_request request = {
        .path = *path,
        .attempts = ATTEMPTS,
        .body = &body,
        .body_limit_bytes = MANIFEST_MAX_BYTES,
    };
    CLEANUP(http_response_cleanup)
    struct http_response *response =
        await_source_ask(listing->client, listing->source, &request, err);

    if (!response)
        return false;
    if (http_status(response) != 200) {
        await_refusal(response, source_name(listing->source), err);
        return explain(listing->source, err);
    }
    if (!visit_page(listing, &body, count, err))
        return false;
    char *next = next_path(listing, base, response, err);
    if (str_eq(next, *path) && next)
        broken(listing, "the link to the next page of a list leads to the same page", err);
    free(*path);
    *path = next;
    return !error_is_set(err);
}

bool await_listing(const struct listing *listing, struct error *err)
{
    CLEANUP_FREE char *base = await_source_base(listing->client, listing->source, err);
    CLEANUP_FREE char *path = xasprintf("%s?n=%d", listing->path, PAGE_ENTRIES);
    CLEANUP_ERROR struct error problem = {0};
    size_t count = 0;

    if (!base)
        return explain(listing->source, err);
    for (unsigned int number = 0; path && number < PAGES_MAX; number++) {
        if (!await_page(listing, base, &path, &count, &problem))
            return !error_is_set(&problem) || error_move(err, &problem);
    }
    if (!path)
        return true;
    return error_set(err, ERROR_RESOURCE_EXHAUSTED, "LIST_TOO_LONG",
                     "%s: the list has more than %d pages", source_name(listing->source),
                     PAGES_MAX);
}

/* --- Tags ------------------------------------------------------------------------------------- */

static bool is_tag(const char *text)
{
    size_t length = 0;

    if (*text == '.' || *text == '-')
        return false;
    for (; isalnum((unsigned char)*text) || (*text && strchr("_.-", *text)); text++)
        length++;
    return *text == '\0' && length > 0 && length <= 128;
}

/* NULL-terminated as it grows. */
struct tags {
    char **items;
    size_t count, capacity;
};

/* What is no tag could not be pulled by its name. */
static bool take_tag(void *arg, const char *name)
{
    struct tags *tags = arg;

    if (!is_tag(name))
        return true;
    if (tags->count + 1 >= tags->capacity) {
        tags->capacity = MAX(tags->capacity * 2, 64);
        tags->items = xrealloc(tags->items, tags->capacity * sizeof(*tags->items));
    }
    tags->items[tags->count++] = xstrdup(name);
    tags->items[tags->count] = NULL;
    return true;
}

bool await_registry_tags(struct registry_client *client, const struct reference *reference,
                         const struct registry_auth *auth, char ***ret, struct error *err)
{
    CLEANUP(source_cleanup)
    struct source *source = await_own_source(client, reference, auth, err);
    CLEANUP_FREE char *path = xasprintf("/%s/tags/list", reference->path);
    struct tags tags = {.items = xcalloc(1, sizeof(char *)), .capacity = 1};
    const struct listing listing = {.client = client,
                                    .source = source,
                                    .path = path,
                                    .key = "tags",
                                    .visit = take_tag,
                                    .arg = &tags};

    if (source && await_listing(&listing, err)) {
        *ret = tags.items;
        return true;
    }
    strv_free(tags.items);
    /* What is said of a repository that is not there names it already. */
    return error_is(err, "MANIFEST_UNKNOWN") || error_is(err, "UNAUTHORIZED") ||
                   error_is(err, "DENIED")
               ? false
               : error_prefix(err, "the tags of %s/%s", reference->domain, reference->path);
}
