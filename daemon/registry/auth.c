#include "daemon/registry/auth.h"

#include <curl/curl.h>
#include <openssl/evp.h>

#include "proto/async/loop.h"
#include "proto/base/json.h"
#include "proto/base/map.h"

#define CLIENT_ID "davit"
#define CACHE_MAX_ENTRIES 256
/* What a token lives for if its server does not say, and at most. */
#define TOKEN_DEFAULT_S 60
#define TOKEN_MAX_S (24 * 3600)
/* A token is not used when it has less than this left, for it must outlive the request. */
#define TOKEN_MARGIN_MS 5000ULL
#define TOKEN_ATTEMPTS 4

/* --- The cache -------------------------------------------------------------------------------- */

struct grant {
    char *authorization;
    uint64_t expires_ms; /* on the loop's clock */
};

struct auth_cache {
    struct map *by_subject;
};

static void grant_free(struct grant *grant)
{
    if (!grant)
        return;
    free_secret(grant->authorization);
    free(grant);
}

static void forget_all(struct auth_cache *cache)
{
    size_t iterator = 0;
    const char *key;
    void *value;

    while (map_next(cache->by_subject, &iterator, &key, &value))
        grant_free(value);
    map_free(cache->by_subject);
    cache->by_subject = map_new();
}

struct auth_cache *auth_cache_new(void)
{
    struct auth_cache *cache = xcalloc(1, sizeof(*cache));

    cache->by_subject = map_new();
    return cache;
}

struct auth_cache *auth_cache_free(struct auth_cache *cache)
{
    if (!cache)
        return NULL;
    forget_all(cache);
    map_free(cache->by_subject);
    free(cache);
    return NULL;
}

/* Other credentials are another subject, even of the same user: one who no longer has the password
 * must not profit from a token that it once brought. */
static char *subject_key(const struct auth_subject *subject)
{
    const struct registry_auth *auth = subject->auth;
    const char *const secrets[] = {auth ? auth->username : NULL, auth ? auth->password : NULL,
                                   auth ? auth->identity_token : NULL};
    CLEANUP(hasher_cleanup) struct hasher *hasher = hasher_new();
    struct digest digest;

    for (size_t i = 0; i < ARRAY_SIZE(secrets); i++) {
        const char *text = secrets[i] ? secrets[i] : "";
        hasher_update(hasher, text, strlen(text) + 1);
    }
    digest = hasher_finish(hasher);
    return xasprintf("%s://%s:%u/%s %s%s %s", subject->origin->scheme, subject->origin->host,
                     subject->origin->port, subject->repository, digest_hex(&digest),
                     subject->push ? " push" : "", subject->mount_from ? subject->mount_from : "");
}

const char *auth_cached(struct auth_cache *cache, const struct auth_subject *subject)
{
    CLEANUP_FREE char *key = subject_key(subject);
    const struct grant *grant = map_get(cache->by_subject, key);

    if (!grant && subject->mount_from) {
        struct auth_subject wider = *subject;
        const char *authorization;
        wider.mount_from = NULL;
        authorization = auth_cached(cache, &wider);
        /* A password is for everything. */
        return authorization && str_starts(authorization, "Basic ") ? authorization : NULL;
    }
    return grant && grant->expires_ms > loop_now_ms() ? grant->authorization : NULL;
}

void auth_forget(struct auth_cache *cache, const struct auth_subject *subject)
{
    CLEANUP_FREE char *key = subject_key(subject);

    grant_free(map_remove(cache->by_subject, key));
}

static void remember(struct auth_cache *cache, const struct auth_subject *subject,
                     char *authorization, uint64_t lifetime_s)
{
    CLEANUP_FREE char *key = subject_key(subject);
    struct grant *grant = xcalloc(1, sizeof(*grant));

    if (map_count(cache->by_subject) >= CACHE_MAX_ENTRIES)
        forget_all(cache);
    grant->authorization = authorization;
    grant->expires_ms = loop_now_ms() + lifetime_s * 1000 - MIN(TOKEN_MARGIN_MS, lifetime_s * 500);
    grant_free(map_put(cache->by_subject, key, grant));
}

/* --- Basic ------------------------------------------------------------------------------------ */

static char *basic_header(const struct registry_auth *auth)
{
    CLEANUP_SECRET char *plain = xasprintf("%s:%s", auth->username, auth->password);
    size_t length = strlen(plain);
    CLEANUP_SECRET char *encoded = xcalloc(1, length * 4 / 3 + 8);

    EVP_EncodeBlock((unsigned char *)encoded, (const unsigned char *)plain, (int)length);
    return xasprintf("Basic %s", encoded);
}

static bool has_password(const struct registry_auth *auth)
{
    return auth && !str_empty(auth->username) && auth->password;
}

char *auth_basic(const struct registry_auth *auth)
{
    return has_password(auth) ? basic_header(auth) : NULL;
}

/* --- Bearer ----------------------------------------------------------------------------------- */

static bool is_anonymous(const struct registry_auth *auth)
{
    return !auth || (str_empty(auth->username) && str_empty(auth->identity_token));
}

/* Where the token server is: https, or as little trusted as the registry that names it. */
static bool check_realm(const struct transport *transport, const struct auth_subject *subject,
                        const char *realm, struct origin *ret, struct error *err)
{
    if (!origin_parse(realm, ret, err)) {
        error_prefix(err, "%s names a token server", subject->origin->name);
        err->code = ERROR_FAILED_PRECONDITION;
        return false;
    }
    if (str_eq(ret->scheme, "https") || host_trust(transport->insecure, ret->name) != HOST_SECURE ||
        host_trust(transport->insecure, subject->origin->name) == HOST_INSECURE)
        return true;
    /* A mirror without TLS, as configured, and nothing to give away. */
    if (str_eq(subject->origin->scheme, "http") && is_anonymous(subject->auth))
        return true;
    error_set(err, ERROR_FAILED_PRECONDITION, "REGISTRY_PROTOCOL",
              "%s names a token server without TLS, %s: refused", subject->origin->name, realm);
    return error_hint(err, "if that is meant so, list the registry in \"insecure-registries\"");
}

static void add_field(struct strbuf *form, const char *name, const char *value)
{
    char *escaped;

    if (str_empty(value))
        return;
    escaped = curl_easy_escape(NULL, value, 0);
    CHECK(escaped);
    strbuf_addf(form, "%s%s=%s", form->length ? "&" : "", name, escaped);
    explicit_bzero(escaped, strlen(escaped));
    curl_free(escaped);
}

/* A token becomes a header: nothing in it may end the line. */
static bool is_header_safe(const char *token)
{
    for (const unsigned char *c = (const unsigned char *)token; *c; c++) {
        if (*c <= 0x20 || *c >= 0x7f)
            return false;
    }
    return *token && strlen(token) < HTTP_MAX_HEADER_BYTES;
}

static bool take_token(struct auth_cache *cache, const struct auth_subject *subject,
                       const char *realm, const struct strbuf *answer, char **ret_identity_token,
                       struct error *err)
{
    CLEANUP_JSON json_t *json =
        json_parse(strbuf_text(answer), answer->length, TOKEN_MAX_BYTES, "the answer", err);
    const char *token = json_str(json, "token");
    const char *identity = json_str(json, "refresh_token");
    int64_t lifetime_s = json_int(json, "expires_in", 0);

    token = token ? token : json_str(json, "access_token");
    if (json && token && is_header_safe(token)) {
        if (ret_identity_token && !str_empty(identity))
            *ret_identity_token = xstrdup(identity);
        if (lifetime_s <= 0)
            lifetime_s = TOKEN_DEFAULT_S;
        remember(cache, subject, xasprintf("Bearer %s", token),
                 (uint64_t)MIN(lifetime_s, TOKEN_MAX_S));
        return true;
    }
    return error_set(err, ERROR_FAILED_PRECONDITION, "REGISTRY_PROTOCOL",
                     "the token server %s sent no valid token", realm);
}

/* What pushing needs is asked for at once, whatever the first request alone would need; and what
 * the registry names beside that ("Token Scope Documentation"). */
static char *push_scope(const struct auth_subject *subject, const struct challenge *challenge)
{
    CLEANUP_FREE char *own = xasprintf("repository:%s:", subject->repository);
    CLEANUP_FREE char *from =
        subject->mount_from ? xasprintf("repository:%s:pull", subject->mount_from) : xstrdup("");
    CLEANUP_FREE char *named = xstrdup(challenge->scope);
    CLEANUP_STRBUF struct strbuf scope = {0};
    char *rest = NULL;

    strbuf_addf(&scope, "%spull,push", own);
    if (*from)
        strbuf_addf(&scope, " %s", from);
    for (char *one = named ? strtok_r(named, " ", &rest) : NULL; one;
         one = strtok_r(NULL, " ", &rest)) {
        if (!str_starts(one, own) && strcmp(one, from) != 0)
            strbuf_addf(&scope, " %s", one);
    }
    return strbuf_take(&scope);
}

/* Of a login, no more than the server asks for: it is for no repository. */
static char *wanted_scope(const struct auth_subject *subject, const struct challenge *challenge,
                          bool login)
{
    if (subject->push)
        return push_scope(subject, challenge);
    if (challenge->scope || login)
        return xstrdup(challenge->scope);
    return xasprintf("repository:%s:pull", subject->repository);
}

/* A POST has them in one field, a GET each in its own. */
static void add_scope(struct strbuf *form, char *scope, bool together)
{
    char *rest = NULL;

    if (together) {
        add_field(form, "scope", scope);
        return;
    }
    for (char *one = scope ? strtok_r(scope, " ", &rest) : NULL; one;
         one = strtok_r(NULL, " ", &rest))
        add_field(form, "scope", one);
}

/* GET with the password, if there is one, or POST with an identity token (OAuth2).
 * ret_identity_token: a login, which wants one for later, too. */
static bool await_token(struct transport *transport, struct auth_cache *cache,
                        const struct auth_subject *subject, const struct challenge *challenge,
                        char **ret_identity_token, struct error *err)
{
    const struct registry_auth *auth = subject->auth;
    CLEANUP_ORIGIN struct origin realm = {0};
    CLEANUP_STRBUF struct strbuf form = {0}, answer = {0};
    CLEANUP_FREE char *scope = wanted_scope(subject, challenge, ret_identity_token);
    CLEANUP_FREE char *url = NULL;
    CLEANUP_SECRET char *authorization = NULL;
    CLEANUP(http_response_cleanup) struct http_response *response = NULL;
    bool post = auth && !str_empty(auth->identity_token), ok;

    if (!check_realm(transport, subject, challenge->realm, &realm, err))
        return false;
    add_field(&form, "service", challenge->service);
    add_scope(&form, scope, post);
    add_field(&form, "client_id", CLIENT_ID);
    if (post) {
        add_field(&form, "grant_type", "refresh_token");
        add_field(&form, "refresh_token", auth->identity_token);
        url = xstrdup(challenge->realm);
    } else {
        if (has_password(auth)) {
            add_field(&form, "account", auth->username);
            if (ret_identity_token)
                add_field(&form, "offline_token", "true");
            authorization = basic_header(auth);
        }
        url = xasprintf("%s%c%s", challenge->realm, strchr(challenge->realm, '?') ? '&' : '?',
                        form.data);
    }
    response = await_exchange(transport,
                              &(struct exchange){.url = url,
                                                 .authorization = authorization,
                                                 .post_body = post ? form.data : NULL,
                                                 .attempts = TOKEN_ATTEMPTS,
                                                 .body = &answer,
                                                 .body_limit_bytes = TOKEN_MAX_BYTES},
                              NULL, err);
    explicit_bzero(form.data, form.length);
    if (!response)
        return error_prefix(err, "token server");
    ok = http_status(response) == 200
             ? take_token(cache, subject, challenge->realm, &answer, ret_identity_token, err)
             : await_refusal(response, realm.name, err);
    if (answer.data)
        explicit_bzero(answer.data, answer.length);
    return ok;
}

/* --- 401 -------------------------------------------------------------------------------------- */

static bool await_answer(struct transport *transport, struct auth_cache *cache,
                         const struct auth_subject *subject, struct http_response *refused,
                         char **ret_identity_token, struct error *err)
{
    CLEANUP_CHALLENGE struct challenge challenge = {0};
    const char *header;

    for (size_t i = 0; (header = http_header(refused, "WWW-Authenticate", i)); i++)
        challenge_add(&challenge, header);
    if (challenge.kind == CHALLENGE_BEARER)
        return await_token(transport, cache, subject, &challenge, ret_identity_token, err);
    if (challenge.kind == CHALLENGE_BASIC && has_password(subject->auth)) {
        remember(cache, subject, basic_header(subject->auth), TOKEN_MAX_S);
        return true;
    }
    await_refusal(refused, subject->origin->name, err);
    if (challenge.kind == CHALLENGE_NONE)
        error_prefix(err, "%s asks for credentials in a way that davit does not know",
                     subject->origin->name);
    return false;
}

bool await_authenticate(struct transport *transport, struct auth_cache *cache,
                        const struct auth_subject *subject, struct http_response *refused,
                        struct error *err)
{
    return await_answer(transport, cache, subject, refused, NULL, err);
}

bool await_auth_login(struct transport *transport, struct auth_cache *cache,
                      const struct auth_subject *subject, struct http_response *refused,
                      char **ret_identity_token, struct error *err)
{
    return await_answer(transport, cache, subject, refused, ret_identity_token, err);
}
