#include "client/credentials.h"

#include <openssl/evp.h>

#include "client/credential_file.h"
#include "client/credential_helper.h"
#include "client/secrets.h"
#include "proto/base/strbuf.h"

#define AUTH_MAX_BYTES (64 * KIB)
#define DOMAIN_MAX_LENGTH 255
#define DOCKER_DOMAIN "docker.io"
#define DOCKER_KEY "https://index.docker.io/v1/"

void credentials_done(struct credentials *credentials)
{
    free(credentials->username);
    free_secret(credentials->password);
    free_secret(credentials->identity_token);
    *credentials = (struct credentials){0};
}

/* --- Whose ------------------------------------------------------------------------------------ */

static const char domain_characters[] = "0123456789abcdefghijklmnopqrstuvwxyz"
                                        "ABCDEFGHIJKLMNOPQRSTUVWXYZ-.:[]";

char *registry_of_argument(const char *argument, struct error *err)
{
    const char *start = argument ? argument : "";
    size_t length;

    if (str_starts(start, "https://"))
        start += strlen("https://");
    else if (str_starts(start, "http://"))
        start += strlen("http://");
    length = strcspn(start, "/");
    CLEANUP_FREE char *domain = xstrndup(start, length);
    if (str_empty(argument) || str_eq(domain, DOCKER_DOMAIN) || str_eq(domain, "index.docker.io"))
        return xstrdup(DOCKER_DOMAIN);
    if (length > 0 && length <= DOMAIN_MAX_LENGTH && strspn(domain, domain_characters) == length)
        return TAKE(domain);
    error_set(err, ERROR_INVALID_ARGUMENT, NULL, "\"%s\" is no registry", argument);
    error_hint(err, "name it as HOST or HOST:PORT");
    return NULL;
}

/* distribution/reference, splitDockerDomain() */
char *registry_domain(const char *reference)
{
    const size_t length = strcspn(reference, "/");
    CLEANUP_FREE char *first = xstrndup(reference, length);
    bool is_domain = strpbrk(first, ".:") || str_eq(first, "localhost") ||
                     strpbrk(first, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");

    if (!reference[length] || !is_domain || str_eq(first, "index.docker.io"))
        return xstrdup(DOCKER_DOMAIN);
    if (length > DOMAIN_MAX_LENGTH || strspn(first, domain_characters) != length)
        return NULL;
    return TAKE(first);
}

/* --- Entries ---------------------------------------------------------------------------------- */

/* base64 of "user:password". */
static bool decode_auth(const char *text, struct credentials *ret)
{
    size_t size = strlen(text);
    CLEANUP_SECRET_STRBUF struct strbuf plain = {0};
    char *colon;
    int length;

    if (size == 0 || size % 4 || size > AUTH_MAX_BYTES)
        return false;
    strbuf_reserve(&plain, size);
    length = EVP_DecodeBlock((unsigned char *)plain.data, (const unsigned char *)text, (int)size);
    if (length < 0)
        return false;
    /* EVP_DecodeBlock counts the bytes that padding stands for. */
    length -= (text[size - 1] == '=') + (text[size - 2] == '=');
    plain.length = (size_t)length;
    plain.data[plain.length] = '\0';
    colon = strchr(plain.data, ':');
    if (!colon)
        return false;
    ret->username = xstrndup(plain.data, (size_t)(colon - plain.data));
    ret->password = xstrdup(colon + 1);
    return true;
}

static bool take_entry(const json_t *entry, const char *path, const char *server,
                       struct credentials *ret, struct error *err)
{
    const char *auth = json_str(entry, "auth"), *token = json_str(entry, "identitytoken");
    const char *username = json_str(entry, "username"), *password = json_str(entry, "password");

    if (!str_empty(auth) && !decode_auth(auth, ret)) {
        error_set(err, ERROR_INVALID_ARGUMENT, "CREDENTIALS",
                  "Error loading config file: %s: the entry \"auth\" for %s is not base64 of "
                  "USER:PASSWORD",
                  path, server);
        return error_hint(err, "log in to the registry again, or remove the entry");
    }
    if (str_empty(auth) && !str_empty(username) && password) {
        ret->username = xstrdup(username);
        ret->password = xstrdup(password);
    }
    if (!str_empty(token)) {
        ret->identity_token = xstrdup(token);
        free_secret(TAKE(ret->password));
    }
    return true;
}

/* --- Where ------------------------------------------------------------------------------------ */

/* What the file says about one registry. */
struct place {
    char *path;
    json_t *config;     /* NULL: there is no file */
    const char *key;    /* "https://index.docker.io/v1/" */
    const char *domain; /* "index.docker.io" */
    const char *helper; /* of config; NULL or "": the file itself */
};

static void place_done(struct place *place)
{
    free(place->path);
    json_decref(place->config);
}

static bool find_place(const char *registry_domain, struct place *ret, struct error *err)
{
    const bool hub = str_eq(registry_domain, DOCKER_DOMAIN);

    ret->path = credential_file_path();
    ret->key = credentials_key(registry_domain);
    ret->domain = hub ? "index.docker.io" : registry_domain;
    if (!credential_file_load(ret->path, &ret->config, err)) {
        free(err->reason);
        err->reason = xstrdup("CREDENTIALS");
        return error_prefix(err, "Error loading config file");
    }
    ret->helper = json_string_value(
        credential_entry_find(json_object_get(ret->config, "credHelpers"), ret->key, ret->domain));
    if (!ret->helper)
        ret->helper = json_str(ret->config, "credsStore");
    return true;
}

const char *credentials_key(const char *registry_domain)
{
    return str_eq(registry_domain, DOCKER_DOMAIN) ? DOCKER_KEY : registry_domain;
}

/* --- Finding ---------------------------------------------------------------------------------- */

static bool is_empty(const struct credentials *credentials)
{
    return !credentials->username && !credentials->identity_token;
}

bool await_credentials_find(const char *registry_domain, struct credentials *ret, struct error *err)
{
    CLEANUP_CREDENTIALS struct credentials found = {0};
    CLEANUP(place_done) struct place place = {0};
    const json_t *entry;

    *ret = (struct credentials){0};
    if (!find_place(registry_domain, &place, err) ||
        (!str_empty(place.helper) && !await_helper_get(place.helper, place.key, &found, err)))
        return false;
    entry = credential_entry_find(json_object_get(place.config, "auths"), place.key, place.domain);
    if (is_empty(&found) && entry && !take_entry(entry, place.path, place.key, &found, err))
        return false;
    *ret = found;
    found = (struct credentials){0};
    return true;
}

/* --- Keeping ---------------------------------------------------------------------------------- */

/* As Docker has it: {"auth": base64 of "user:password"}, or an identity token and no password. */
static json_t *make_entry(const struct credentials *credentials)
{
    CLEANUP_SECRET_STRBUF struct strbuf plain = {0}, encoded = {0};
    const bool token = credentials->identity_token != NULL;
    const char *username = credentials->username ? credentials->username : "";
    json_t *entry = json_object();

    strbuf_reserve(&plain, AUTH_MAX_BYTES);
    strbuf_addf(&plain, "%s:%s", username, token ? "" : credentials->password);
    strbuf_reserve(&encoded, plain.length * 4 / 3 + 8);
    EVP_EncodeBlock((unsigned char *)encoded.data, (const unsigned char *)plain.data,
                    (int)plain.length);
    json_object_set_new(entry, "auth", json_string(encoded.data));
    if (token)
        json_object_set_new(entry, "identitytoken", json_string(credentials->identity_token));
    encoded.length = 0; /* it is wiped by its capacity */
    return entry;
}

static size_t length_of(const char *text)
{
    return text ? strlen(text) : 0;
}

bool await_credentials_store(const char *registry_domain, const struct credentials *credentials,
                             char **ret_unencrypted, struct error *err)
{
    CLEANUP(place_done) struct place place = {0};
    CLEANUP_JSON json_t *entry = NULL;
    bool changed = false, helped;

    *ret_unencrypted = NULL;
    if (length_of(credentials->username) + length_of(credentials->password) >= AUTH_MAX_BYTES / 2)
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL, "the credentials are too long");
    if (!find_place(registry_domain, &place, err))
        return false;
    helped = !str_empty(place.helper);
    if (helped && !await_helper_store(place.helper, place.key, credentials, err))
        return error_prefix(err, "Error saving credentials");
    /* Docker, too, notes the name of a registry that a helper knows. */
    entry = helped ? json_object() : make_entry(credentials);
    const struct credential_edit edit = {place.path, place.key, place.domain, entry};
    if (!await_credential_file_edit(&edit, &changed, err))
        return error_prefix(err, "Error saving credentials");
    if (changed && !helped && !credentials->identity_token)
        *ret_unencrypted = xstrdup(place.path);
    return true;
}

bool await_credentials_erase(const char *registry_domain, struct error *err)
{
    CLEANUP(place_done) struct place place = {0};
    CLEANUP_ERROR struct error problem = {0};
    bool changed, erased;

    if (!find_place(registry_domain, &place, err))
        return false;
    erased = str_empty(place.helper) || await_helper_erase(place.helper, place.key, &problem);
    const struct credential_edit edit = {place.path, place.key, place.domain, NULL};
    return await_credential_file_edit(&edit, &changed, err) &&
           (erased || error_move(err, &problem));
}
