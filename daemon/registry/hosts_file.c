#include "daemon/registry/hosts_file.h"

#include <strings.h>

#include "daemon/registry/hosts.h"
#include "daemon/registry/source.h"
#include "daemon/registry/toml.h"
#include "proto/base/duration.h"

#define MAX_STRINGS 64

/* --- Life cycle ------------------------------------------------------------------------------- */

struct host_access *host_access_ref(struct host_access *access)
{
    if (access)
        access->references++;
    return access;
}

struct host_access *host_access_unref(struct host_access *access)
{
    if (!access || --access->references > 0)
        return NULL;
    strv_free(access->ca_files);
    free(access->certificate_file);
    free(access->key_file);
    for (char **header = access->headers; header && *header; header++)
        explicit_bzero(*header, strlen(*header));
    strv_free(access->headers);
    free_secret(access->proxy); /* may have a password */
    free(access);
    return NULL;
}

static void entry_done(struct host_entry *entry)
{
    free(entry->base);
    free(entry->name);
    host_access_unref(entry->access);
}

void hosts_file_done(struct hosts_file *file)
{
    for (size_t i = 0; i < file->count; i++)
        entry_done(&file->hosts[i]);
    free(file->hosts);
    entry_done(&file->server);
    *file = (struct hosts_file){0};
}

/* --- Values ----------------------------------------------------------------------------------- */

struct reader {
    const char *path;
    struct error *err;
};

static bool refuse(const struct reader *reader, const struct toml *value, const char *why)
{
    error_set(reader->err, ERROR_INVALID_ARGUMENT, "INVALID_CONFIG", "%s:%u: \"%.100s\" %s",
              reader->path, value->line, value->key ? value->key : "", why);
    return error_hint(reader->err, "see containerd's documentation of hosts.toml");
}

/* A value of this kind, or NULL if there is none. False if it is of another. */
static bool get(const struct reader *reader, const struct toml *table, const char *key,
                enum toml_kind kind, const struct toml **ret)
{
    CLEANUP_FREE char *why = xasprintf("must be %s", toml_kind_name(kind));

    *ret = toml_get(table, key);
    return !*ret || (*ret)->kind == kind || refuse(reader, *ret, why);
}

static bool get_boolean(const struct reader *reader, const struct toml *table, const char *key,
                        bool *ret)
{
    const struct toml *value;

    if (!get(reader, table, key, TOML_BOOLEAN, &value))
        return false;
    *ret = value && value->boolean;
    return true;
}

/* A string, or an array of them. */
static bool get_strings(const struct reader *reader, const struct toml *value, char ***ret)
{
    if (value->kind == TOML_STRING) {
        strv_add(ret, value->text);
        return true;
    }
    if (value->kind != TOML_ARRAY || value->count > MAX_STRINGS)
        return refuse(reader, value, "must be a string or an array of at most 64");
    for (size_t i = 0; i < value->count; i++) {
        if (value->children[i]->kind != TOML_STRING)
            return refuse(reader, value, "must be a string or an array of strings");
        strv_add(ret, value->children[i]->text);
    }
    return true;
}

/* Files are relative to the one that names them. */
static char *file_path(const struct reader *reader, const char *name)
{
    const char *slash = strrchr(reader->path, '/');

    if (name[0] == '/' || !slash)
        return xstrdup(name);
    return xasprintf("%.*s/%s", (int)(slash - reader->path), reader->path, name);
}

/* --- How to speak to a host ------------------------------------------------------------------- */

static bool read_ca(const struct reader *reader, const struct toml *table,
                    struct host_access *access)
{
    const struct toml *value = toml_get(table, "ca");
    CLEANUP(strv_cleanup) char **names = NULL;

    if (!value)
        return true;
    if (!get_strings(reader, value, &names))
        return false;
    for (char **name = names; name && *name; name++) {
        CLEANUP_FREE char *path = file_path(reader, *name);
        strv_add(&access->ca_files, path);
    }
    return true;
}

/* A path, an array of paths, or of pairs of them. One connection has one certificate: the first
 * counts, as it does where there are several in certs.d. */
static bool read_client(const struct reader *reader, const struct toml *table,
                        struct host_access *access)
{
    const struct toml *value = toml_get(table, "client"), *first = value;
    const char *certificate, *key = NULL;

    if (!value)
        return true;
    if (value->kind == TOML_ARRAY) {
        if (value->count == 0)
            return true;
        first = value->children[0];
    }
    if (first->kind == TOML_ARRAY) {
        if (first->count != 2 || first->children[0]->kind != TOML_STRING ||
            first->children[1]->kind != TOML_STRING)
            return refuse(reader, value, "must have pairs of two paths");
        certificate = first->children[0]->text;
        key = first->children[1]->text;
    } else if (first->kind == TOML_STRING) {
        certificate = first->text;
    } else {
        return refuse(reader, value, "must be a path, an array of paths, or of pairs of paths");
    }
    access->certificate_file = file_path(reader, certificate);
    access->key_file = file_path(reader, str_empty(key) ? certificate : key);
    return true;
}

/* RFC 9110, 5.1 and 5.5: nothing in it may end the line. */
static bool is_header(const char *name, const char *value)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

    if (!*name || strspn(name, token) < strlen(name))
        return false;
    for (const unsigned char *c = (const unsigned char *)value; *c; c++) {
        if ((*c < 0x20 && *c != '\t') || *c == 0x7f)
            return false;
    }
    return true;
}

static bool read_headers(const struct reader *reader, const struct toml *table,
                         struct host_access *access)
{
    const struct toml *headers;

    if (!get(reader, table, "header", TOML_TABLE, &headers))
        return false;
    for (size_t i = 0; headers && i < headers->count; i++) {
        const struct toml *header = headers->children[i];
        CLEANUP(strv_cleanup) char **values = NULL;
        if (i == MAX_STRINGS)
            return refuse(reader, headers, "has too many headers");
        if (!get_strings(reader, header, &values))
            return false;
        for (char **value = values; value && *value; value++) {
            CLEANUP_FREE char *line = xasprintf("%s: %s", header->key, *value);
            if (!is_header(header->key, *value))
                return refuse(reader, header, "is no valid header");
            strv_add(&access->headers, line);
        }
    }
    return true;
}

static bool read_timeout(const struct reader *reader, const struct toml *table,
                         struct host_access *access)
{
    const struct toml *value;

    if (!get(reader, table, "dial_timeout", TOML_STRING, &value))
        return false;
    return !value || duration_parse(value->text, &access->connect_timeout_ms) ||
           refuse(reader, value, "must be a duration, such as \"3s\"");
}

static bool read_proxy(const struct reader *reader, const struct toml *table,
                       struct host_access *access)
{
    static const char *const schemes[] = {"http://", "https://", "socks5://", "socks5h://"};
    const struct toml *value;
    const char *host = NULL, *slash;

    if (!get(reader, table, "proxy", TOML_STRING, &value))
        return false;
    if (!value || str_empty(value->text))
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
        if (str_starts(value->text, schemes[i]))
            host = value->text + strlen(schemes[i]);
    }
    slash = host ? strchr(host, '/') : NULL;
    if (str_empty(host) || slash == host || (slash && slash[1]) || strpbrk(host, "?#"))
        return refuse(reader, value,
                      "must be http://, https://, socks5:// or socks5h:// and a host");
    access->proxy = xstrdup(value->text);
    return true;
}

/* --- Hosts ------------------------------------------------------------------------------------ */

static bool unknown_capability(const struct reader *reader, const struct toml *value,
                               const char *name)
{
    CLEANUP_FREE char *why =
        xasprintf("has \"%.100s\", but may have \"pull\", \"resolve\" and \"push\" only", name);

    return refuse(reader, value, why);
}

static bool read_capabilities(const struct reader *reader, const struct toml *table,
                              unsigned int *ret)
{
    const struct toml *value;

    *ret = SOURCE_PULL | SOURCE_RESOLVE | SOURCE_PUSH;
    if (!get(reader, table, "capabilities", TOML_ARRAY, &value))
        return false;
    if (!value || value->count == 0)
        return true;
    *ret = 0;
    for (size_t i = 0; i < value->count; i++) {
        const struct toml *item = value->children[i];
        const char *name = item->kind == TOML_STRING ? item->text : "";
        if (strcasecmp(name, "pull") == 0)
            *ret |= SOURCE_PULL;
        else if (strcasecmp(name, "resolve") == 0)
            *ret |= SOURCE_RESOLVE;
        else if (strcasecmp(name, "push") == 0)
            *ret |= SOURCE_PUSH;
        else
            return unknown_capability(reader, value, name);
    }
    return true;
}

/* "https://host:5000/path", where https:// may be left out, becomes the base of its API. */
static bool read_url(const struct reader *reader, const struct toml *where, const char *text,
                     bool override_path, struct host_entry *entry)
{
    CLEANUP_FREE char *url = strstr(text, "://") ? xstrdup(text) : xasprintf("https://%s", text);
    CLEANUP_ORIGIN struct origin origin = {0};
    CLEANUP_ERROR struct error why = {0};
    size_t length = strlen(url);
    const char *host = strstr(url, "://"), *path;

    /* libcurl takes other numbers of slashes, too. */
    if (!origin_parse(url, &origin, &why) || strpbrk(url, "?#") || !host ||
        (size_t)(host - url) != strlen(origin.scheme) || host[3] == '/')
        return refuse(reader, where,
                      "is no host: expected http:// or https://, a name, and a path at most");
    while (url[length - 1] == '/')
        url[--length] = '\0';
    path = strchr(host + 3, '/');
    path = path ? path : "";
    entry->base = xasprintf("%s://%s%s%s", origin.scheme, origin.name, path,
                            override_path || str_ends(path, "/v2") ? "" : "/v2");
    entry->name = xstrdup(origin.name);
    return true;
}

/* url may be NULL: the registry itself. */
static bool read_entry(const struct reader *reader, const struct toml *table,
                       const struct toml *where, const char *url, struct host_entry *entry)
{
    struct host_access *access = entry->access = xcalloc(1, sizeof(*access));
    bool override_path;

    access->references = 1;
    return get_boolean(reader, table, "override_path", &override_path) &&
           get_boolean(reader, table, "skip_verify", &access->skip_verify) &&
           read_capabilities(reader, table, &entry->uses) && read_ca(reader, table, access) &&
           read_client(reader, table, access) && read_headers(reader, table, access) &&
           read_timeout(reader, table, access) && read_proxy(reader, table, access) &&
           (!url || read_url(reader, where, url, override_path, entry));
}

static bool read_server(const struct reader *reader, const struct toml *root,
                        struct hosts_file *ret)
{
    const struct toml *server;

    if (!get(reader, root, "server", TOML_STRING, &server))
        return false;
    if (server && str_empty(server->text))
        server = NULL;
    if (!read_entry(reader, root, server, server ? server->text : NULL, &ret->server))
        return false;
    /* As in containerd, the file's own capabilities are those of a server that it names. */
    if (!server)
        ret->server.uses = SOURCE_PULL | SOURCE_RESOLVE | SOURCE_PUSH;
    return true;
}

bool hosts_file_parse(const char *text, size_t size, const char *path, struct hosts_file *ret,
                      struct error *err)
{
    const struct reader reader = {.path = path, .err = err};
    CLEANUP(toml_cleanup) struct toml *root = toml_parse(text, size, path, err);
    const struct toml *hosts;

    *ret = (struct hosts_file){0};
    if (!root || !read_server(&reader, root, ret) ||
        !get(&reader, root, "host", TOML_TABLE, &hosts))
        goto failed;
    for (size_t i = 0; hosts && i < hosts->count; i++) {
        const struct toml *host = hosts->children[i];
        if (host->kind != TOML_TABLE) {
            refuse(&reader, host, "must be a table");
            goto failed;
        }
        if (i == HOSTS_FILE_MAX_HOSTS) {
            refuse(&reader, host, "is one too many: there can be 32 hosts");
            goto failed;
        }
        ret->hosts = xrealloc(ret->hosts, (ret->count + 1) * sizeof(*ret->hosts));
        ret->hosts[ret->count] = (struct host_entry){0};
        if (!read_entry(&reader, host, host, host->key, &ret->hosts[ret->count++]))
            goto failed;
    }
    return true;
failed:
    hosts_file_done(ret);
    return false;
}
