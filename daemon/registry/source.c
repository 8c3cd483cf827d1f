/* Where to ask for a reference. */
#include "daemon/registry/internal.h"
#include "proto/base/log.h"

#define DOCKER_HUB_BASE "https://registry-1.docker.io/v2"

/* --- Life cycle ------------------------------------------------------------------------------- */

struct source *source_ref(struct source *source)
{
    source->references++;
    return source;
}

static void free_secret(char *secret)
{
    if (secret)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

struct source *source_unref(struct source *source)
{
    if (!source || --source->references > 0)
        return NULL;
    free(source->base);
    free(source->scheme_key);
    free(source->name);
    free(source->repository);
    reference_done(&source->reference);
    free(source->username);
    free_secret(source->password);
    free_secret(source->identity_token);
    health_unref(source->health);
    free(source);
    return NULL;
}

void source_list_done(struct source_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        source_unref(list->items[i]);
    free(list->items);
    *list = (struct source_list){0};
}

struct registry_auth source_auth(const struct source *source)
{
    return (struct registry_auth){source->username, source->password, source->identity_token};
}

const char *source_name(const struct source *source)
{
    return source->name;
}

bool source_is_mirror(const struct source *source)
{
    return source->mirror;
}

/* --- Places ----------------------------------------------------------------------------------- */

static struct source *source_new(const struct reference *reference, const char *name)
{
    struct source *source = xcalloc(1, sizeof(*source));

    source->references = 1;
    source->name = xstrdup(name);
    source->repository = xstrdup(reference->path);
    source->reference = (struct reference){
        .domain = xstrdup(reference->domain),
        .path = xstrdup(reference->path),
        .tag = xstrdup(reference->tag),
        .digest = reference->digest,
        .default_tag = reference->default_tag,
    };
    return source;
}

static void set_health(struct registry_client *client, struct source *source)
{
    source->health = health_of(&client->health, source->base ? source->base : source->scheme_key);
}

static void add_source(struct source_list *list, struct source *source)
{
    list->items = xrealloc(list->items, (list->count + 1) * sizeof(*list->items));
    list->items[list->count++] = source;
}

static void add_mirror(struct registry_client *client, const struct reference *reference,
                       const char *url, struct source_list *list)
{
    struct source *source = source_new(reference, strstr(url, "://") + 3);

    source->base = xasprintf("%s/v2", url);
    source->mirror = true;
    set_health(client, source);
    add_source(list, source);
}

struct source *registry_itself(struct registry_client *client, const struct reference *reference,
                               const struct registry_auth *auth)
{
    bool hub = str_eq(reference->domain, REFERENCE_DEFAULT_DOMAIN);
    struct source *source = source_new(reference, hub ? "registry-1.docker.io" : reference->domain);

    if (hub)
        source->base = xstrdup(DOCKER_HUB_BASE);
    else if (host_trust(client->transport.insecure, reference->domain) == HOST_SECURE)
        source->base = xasprintf("https://%s/v2", reference->domain);
    else
        source->scheme_key = xstrdup(reference->domain);
    if (auth) {
        source->username = xstrdup(auth->username);
        source->password = xstrdup(auth->password);
        source->identity_token = xstrdup(auth->identity_token);
    }
    set_health(client, source);
    return source;
}

/* Those that fail go behind the others; else the order stays. */
static void sort_by_health(struct source_list *list)
{
    struct source **sorted = xcalloc(list->count, sizeof(*sorted));
    size_t count = 0;

    for (unsigned int good = 2; good-- > 0;) {
        for (size_t i = 0; i < list->count; i++) {
            if (health_is_good(list->items[i]->health) == good)
                sorted[count++] = list->items[i];
        }
    }
    free(list->items);
    list->items = sorted;
}

bool await_registry_sources(struct registry_client *client, const struct reference *reference,
                            const struct registry_auth *auth, enum source_use use,
                            struct source_list *ret, struct error *err)
{
    int r = task_check();

    *ret = (struct source_list){0};
    if (r < 0)
        return error_set_errno(err, r, "looking for mirrors");
    if (str_eq(reference->domain, REFERENCE_DEFAULT_DOMAIN) && use != SOURCE_PUSH) {
        for (char **url = client->mirrors; *url && ret->count < SOURCES_MAX - 1; url++)
            add_mirror(client, reference, *url, ret);
    }
    add_source(ret, registry_itself(client, reference, auth));
    sort_by_health(ret);
    return true;
}

/* --- Health ----------------------------------------------------------------------------------- */

/* What it says of the repository, of the user or of us is not the place's fault. */
static bool is_its_fault(const struct error *err)
{
    switch (err->code) {
    case ERROR_UNAVAILABLE:
    case ERROR_DATA_LOSS:
        return true;
    case ERROR_FAILED_PRECONDITION:
        return error_is(err, "REGISTRY_PROTOCOL");
    default:
        return false;
    }
}

void source_failed(struct source *source, const struct error *err)
{
    if (err->code == ERROR_CANCELLED)
        return;
    if (source->mirror)
        log_warn("a mirror failed", LOG("mirror", source->name), LOG("error", err->message));
    if (is_its_fault(err))
        health_failed(source->health, err->message, err->retry_after_ms);
}

void source_served(struct source *source, uint64_t bytes)
{
    health_succeeded(source->health, bytes);
}

bool source_ignores_ranges(const struct source *source)
{
    return health_whole_only(source->health);
}
