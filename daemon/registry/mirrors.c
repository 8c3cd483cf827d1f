/* Mirrors as they are configured: Docker's of docker.io, and davit's own of any registry. */
#include "daemon/registry/internal.h"
#include "proto/async/loop.h"
#include "proto/base/log.h"

static bool not_valid(const char *url, const char *why, struct error *err)
{
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_CONFIG",
                     "registry mirror \"%.200s\" is not valid: %s", url, why);
}

static void mirror_done(struct mirror *mirror)
{
    free(mirror->registry);
    free(mirror->url);
    free(mirror->base);
    free(mirror->name);
    free(mirror->prefix);
}

void mirrors_free(struct mirror *mirrors, size_t count)
{
    for (size_t i = 0; i < count; i++)
        mirror_done(&mirrors[i]);
    free(mirrors);
}

/* Whether one part of the path is "v2". */
static bool names_api(const char *path)
{
    for (const char *at = strstr(path, "/v2"); at; at = strstr(at + 1, "/v2")) {
        if (at[3] == '\0' || at[3] == '/')
            return true;
    }
    return false;
}

/* A repository's name goes into URLs as it is: what stands before it is as plain (reference
 * grammar, and upper case, which some mirrors have in their paths). */
static bool is_plain_path(const char *path)
{
    static const char plain[] =
        "/abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

    return strspn(path, plain) == strlen(path) && !strstr(path, "//") && !strstr(path, "/.");
}

/* registry NULL: Docker's, of docker.io, which take no path. */
static bool mirror_parse(const char *registry, const char *text, struct mirror *ret,
                         struct error *err)
{
    CLEANUP_ORIGIN struct origin origin = {0};
    CLEANUP_FREE char *url = xstrdup(text);
    CLEANUP_ERROR struct error why = {0};
    size_t length = strlen(url);
    const char *host = strstr(url, "://"), *path;

    if (!origin_parse(url, &origin, &why))
        return not_valid(text, why.message, err);
    if (!host || (size_t)(host - url) != strlen(origin.scheme) || host[3] == '/')
        return not_valid(text, "it must begin with http:// or https:// and a host", err);
    while (url[length - 1] == '/')
        url[--length] = '\0';
    path = strchr(host + 3, '/');
    path = path ? path : "";
    if (!registry && (*path || strpbrk(url, "?#")))
        return not_valid(text, "it must be a scheme and a host only", err);
    if (!is_plain_path(path) || strpbrk(url, "?#"))
        return not_valid(text, "it must be a scheme, a host and a plain path only", err);
    ret->registry = xstrdup(registry ? registry : REFERENCE_DEFAULT_DOMAIN);
    ret->url = xstrdup(text);
    ret->name = xstrdup(origin.name);
    if (names_api(path)) {
        ret->base = xasprintf("%s://%s%s", origin.scheme, origin.name, path);
        ret->prefix = xstrdup("");
    } else {
        ret->base = xasprintf("%s://%s/v2", origin.scheme, origin.name);
        ret->prefix = *path ? xasprintf("%s/", path + 1) : xstrdup("");
    }
    return true;
}

/* "docker.io" has other names. */
static const char *registry_name(const char *name)
{
    return str_eq(name, "index.docker.io") || str_eq(name, "registry-1.docker.io")
               ? REFERENCE_DEFAULT_DOMAIN
               : name;
}

static bool registry_check(const char *name, struct error *err)
{
    CLEANUP_ORIGIN struct origin origin = {0};
    CLEANUP_FREE char *url = xasprintf("https://%s", name);

    if (!strpbrk(name, "/?#@") && origin_parse(url, &origin, NULL))
        return true;
    error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_CONFIG",
              "\"mirrors\" has \"%.200s\", which is no registry", name);
    return error_hint(err, "write HOST or HOST:PORT, as image names begin");
}

bool registry_options_check(const struct registry_options *options, struct error *err)
{
    for (char *const *entry = options->insecure_registries; entry && *entry; entry++) {
        if (!insecure_entry_check(*entry, err))
            return false;
    }
    for (char *const *pair = options->mirrors_of; pair && *pair; pair += 2) {
        CLEANUP(mirror_done) struct mirror mirror = {0};
        if (!registry_check(pair[0], err) || !mirror_parse(pair[0], pair[1], &mirror, err))
            return false;
    }
    for (char *const *url = options->mirrors; url && *url; url++) {
        CLEANUP(mirror_done) struct mirror mirror = {0};
        if (!mirror_parse(NULL, *url, &mirror, err))
            return false;
    }
    return true;
}

static void add_mirror(const char *registry, const char *url, struct mirror *mirrors, size_t *count)
{
    CLEANUP_ERROR struct error err = {0};

    if (mirror_parse(registry, url, &mirrors[*count], &err))
        (*count)++;
    else
        log_warn("a mirror is ignored", LOG("error", err.message));
}

struct mirror *mirrors_new(const struct registry_options *options, size_t *ret_count)
{
    size_t most = strv_count(options->mirrors) + strv_count(options->mirrors_of) / 2;
    struct mirror *mirrors = xcalloc(most + 1, sizeof(*mirrors));

    *ret_count = 0;
    for (char *const *pair = options->mirrors_of; pair && *pair; pair += 2)
        add_mirror(registry_name(pair[0]), pair[1], mirrors, ret_count);
    for (char *const *url = options->mirrors; url && *url; url++)
        add_mirror(NULL, *url, mirrors, ret_count);
    return mirrors;
}

/* --- Looking at them -------------------------------------------------------------------------- */

struct registry_mirror *registry_mirrors(const struct registry_client *client, size_t *ret_count)
{
    struct registry_mirror *mirrors = xcalloc(client->mirror_count + 1, sizeof(*mirrors));

    for (size_t i = 0; i < client->mirror_count; i++) {
        const struct mirror *mirror = &client->mirrors[i];
        const struct health *health = health_find(&client->health, mirror->base);
        mirrors[i].registry = xstrdup(mirror->registry);
        mirrors[i].url = xstrdup(mirror->url);
        if (!health)
            continue;
        mirrors[i].failures = health->failures;
        if (!health_is_good(health))
            mirrors[i].behind_ms = health->behind_until_ms - loop_now_ms();
        mirrors[i].bytes_served = health->bytes_served;
        mirrors[i].last_error = xstrdup(health->last_error);
    }
    *ret_count = client->mirror_count;
    return mirrors;
}

void registry_mirrors_free(struct registry_mirror *mirrors, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(mirrors[i].registry);
        free(mirrors[i].url);
        free(mirrors[i].last_error);
    }
    free(mirrors);
}
