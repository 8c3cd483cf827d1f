/* Where to ask for a reference. */
#include "daemon/registry/hosts_dir.h"
#include "daemon/registry/internal.h"
#include "proto/base/log.h"

/* Of one registry, from daemon.json; there is room for hosts.toml, too, and for the registry. */
#define MIRRORS_MAX (SOURCES_MAX - HOSTS_FILE_MAX_HOSTS - 1)

#define DOCKER_HUB_NAME "registry-1.docker.io"

/* --- Life cycle ------------------------------------------------------------------------------- */

struct source *source_ref(struct source *source)
{
    source->references++;
    return source;
}

struct source *source_unref(struct source *source)
{
    if (!source || --source->references > 0)
        return NULL;
    free(source->base);
    free(source->scheme_key);
    free(source->name);
    free(source->repository);
    free(source->query);
    host_access_unref(source->access);
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

static struct source *finish(struct registry_client *client, struct source *source)
{
    source->health = health_of(&client->health, source->base ? source->base : source->scheme_key);
    return source;
}

/* A place counts once, where it is first. Takes the source. */
static void add_source(struct source_list *list, struct source *source)
{
    bool known = list->count == SOURCES_MAX;

    for (size_t i = 0; i < list->count; i++)
        known = known || (str_eq(list->items[i]->base, source->base) &&
                          str_eq(list->items[i]->scheme_key, source->scheme_key) &&
                          str_eq(list->items[i]->repository, source->repository));
    if (known) {
        source_unref(source);
        return;
    }
    list->items = xrealloc(list->items, (list->count + 1) * sizeof(*list->items));
    list->items[list->count++] = source;
}

static void take_auth(struct source *source, const struct registry_auth *auth)
{
    if (!auth)
        return;
    source->username = xstrdup(auth->username);
    source->password = xstrdup(auth->password);
    source->identity_token = xstrdup(auth->identity_token);
}

static struct source *mirror_source(struct registry_client *client,
                                    const struct reference *reference, const struct mirror *mirror)
{
    struct source *source = source_new(reference, mirror->name);

    source->base = xstrdup(mirror->base);
    free(source->repository);
    source->repository = xasprintf("%s%s", mirror->prefix, reference->path);
    source->mirror = true;
    return finish(client, source);
}

static const char *own_name(const struct reference *reference)
{
    return str_eq(reference->domain, REFERENCE_DEFAULT_DOMAIN) ? DOCKER_HUB_NAME
                                                               : reference->domain;
}

struct source *registry_itself(struct registry_client *client, const struct reference *reference,
                               const struct registry_auth *auth)
{
    const char *name = own_name(reference);
    struct source *source = source_new(reference, name);

    if (name != reference->domain ||
        host_trust(client->transport.insecure, reference->domain) == HOST_SECURE)
        source->base = xasprintf("https://%s/v2", name);
    else
        source->scheme_key = xstrdup(reference->domain);
    take_auth(source, auth);
    return finish(client, source);
}

/* As containerd tells a mirror what it stands in for: "ns=localhost%3A5000". */
static char *namespace_query(const char *domain)
{
    struct strbuf query = {0};

    strbuf_add_str(&query, "ns=");
    for (const char *c = domain; *c; c++) {
        if (*c == ':')
            strbuf_add_str(&query, "%3A");
        else
            strbuf_add_char(&query, *c);
    }
    return strbuf_take(&query);
}

/* A host of hosts.toml. Credentials are for the registry that the reference names, and for no other
 * host that stands in for it. */
static struct source *host_source(struct registry_client *client, const struct reference *reference,
                                  const struct registry_auth *auth, const struct host_entry *entry)
{
    struct source *source;
    bool itself = entry->base && (str_eq(entry->name, own_name(reference)) ||
                                  str_eq(entry->name, reference->domain));

    if (!entry->base) {
        source = registry_itself(client, reference, auth);
    } else {
        source = source_new(reference, itself ? own_name(reference) : entry->name);
        source->base = xstrdup(entry->base);
        if (itself)
            take_auth(source, auth);
        else
            source->query = namespace_query(reference->domain);
        source->mirror = !itself;
        finish(client, source);
    }
    source->access = host_access_ref(entry->access);
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

static bool none_left(const struct reference *reference, enum source_use use, struct error *err)
{
    const char *what = use == SOURCE_PUSH ? "push" : use == SOURCE_RESOLVE ? "resolve" : "pull";

    error_set(err, ERROR_FAILED_PRECONDITION, "INVALID_CONFIG",
              "hosts.toml of %s names no host that has the capability \"%s\"", reference->domain,
              what);
    return error_hint(err, "add it to the \"capabilities\" of a host, or of the server");
}

bool await_registry_sources(struct registry_client *client, const struct reference *reference,
                            const struct registry_auth *auth, enum source_use use,
                            struct source_list *ret, struct error *err)
{
    CLEANUP_HOSTS_FILE struct hosts_file file = {0};
    bool found;

    *ret = (struct source_list){0};
    if (!await_hosts_load(client->hosts_dirs, reference->domain, &file, &found, err))
        return false;
    for (size_t i = 0; i < client->mirror_count && use != SOURCE_PUSH; i++) {
        if (ret->count < MIRRORS_MAX && str_eq(client->mirrors[i].registry, reference->domain))
            add_source(ret, mirror_source(client, reference, &client->mirrors[i]));
    }
    for (size_t i = 0; i < file.count; i++) {
        if (file.hosts[i].uses & use)
            add_source(ret, host_source(client, reference, auth, &file.hosts[i]));
    }
    if (!found)
        add_source(ret, registry_itself(client, reference, auth));
    else if (file.server.uses & use)
        add_source(ret, host_source(client, reference, auth, &file.server));
    if (ret->count == 0)
        return none_left(reference, use, err);
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
    bool news;

    if (err->code == ERROR_CANCELLED)
        return;
    if (!is_its_fault(err)) {
        log_debug("a source does not have it", LOG("source", source->name),
                  LOG("error", err->message));
        return;
    }
    news = health_is_good(source->health);
    health_failed(source->health, err->message, err->retry_after_ms);
    /* Not for each of many connections; and of the registry itself the user hears. */
    if (source->mirror && news)
        log_warn("a mirror failed: it is asked last for a while", LOG("mirror", source->name),
                 LOG("failures_in_a_row", (uint64_t)source->health->failures),
                 LOG("error", err->message));
}

void source_served(struct source *source, uint64_t bytes)
{
    health_succeeded(source->health, bytes);
}

bool source_ignores_ranges(const struct source *source)
{
    return health_whole_only(source->health);
}
