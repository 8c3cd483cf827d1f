#include "client/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>

#include "proto/async/await.h"
#include "proto/async/stream.h"
#include "proto/base/json.h"
#include "proto/base/strbuf.h"

#define CONFIG_MAX_BYTES (4 * MIB)
#define HELPER_OUTPUT_MAX_BYTES (1 * MIB)
#define DOMAIN_MAX_LENGTH 255
#define DOCKER_DOMAIN "docker.io"
#define DOCKER_KEY "https://index.docker.io/v1/"
#define TOKEN_USER "<token>" /* helpers give an identity token in place of a password */

static void free_secret(char *secret)
{
    if (secret)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

void credentials_done(struct credentials *credentials)
{
    free(credentials->username);
    free_secret(credentials->password);
    free_secret(credentials->identity_token);
    *credentials = (struct credentials){0};
}

static void wipe_strbuf(struct strbuf *buf)
{
    if (buf->data)
        explicit_bzero(buf->data, buf->length);
    strbuf_done(buf);
}

/* The parser quotes what it stumbles over, and that may be a secret. */
static void drop_quotation(struct error *err)
{
    char *quotation = strstr(err->message, " near '");

    if (quotation)
        *quotation = '\0';
}

/* --- Whose ------------------------------------------------------------------------------------ */

/* distribution/reference, splitDockerDomain() */
char *registry_domain(const char *reference)
{
    static const char domain_characters[] = "0123456789abcdefghijklmnopqrstuvwxyz"
                                            "ABCDEFGHIJKLMNOPQRSTUVWXYZ-.:[]";
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

/* --- The file --------------------------------------------------------------------------------- */

static char *config_path(void)
{
    const char *dir = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
    const struct passwd *user;

    if (!str_empty(dir))
        return xasprintf("%s/config.json", dir);
    if (str_empty(home)) {
        user = getpwuid(getuid());
        home = user ? user->pw_dir : "/";
    }
    return xasprintf("%s/.docker/config.json", home);
}

/* True with *ret NULL if there is no such file. */
static bool load_config(const char *path, json_t **ret, struct error *err)
{
    CLEANUP(wipe_strbuf) struct strbuf text = {0};
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return true;
    if (fd < 0)
        return error_set_errno(err, errno, "cannot read %s", path);
    do {
        strbuf_reserve(&text, 16 * KIB);
        n = read(fd, text.data + text.length, 16 * KIB);
        if (n < 0)
            return error_set_errno(err, errno, "cannot read %s", path);
        text.length += (size_t)n;
        text.data[text.length] = '\0';
    } while (n > 0 && text.length <= CONFIG_MAX_BYTES);
    *ret = json_parse(text.data, text.length, CONFIG_MAX_BYTES, path, err);
    if (!*ret)
        drop_quotation(err);
    return *ret != NULL;
}

/* --- Entries ---------------------------------------------------------------------------------- */

/* "https://host:port/v1/" is "host:port". */
static bool is_key_of(const char *key, const char *domain)
{
    size_t length;

    if (str_starts(key, "https://"))
        key += strlen("https://");
    else if (str_starts(key, "http://"))
        key += strlen("http://");
    length = strcspn(key, "/");
    return length == strlen(domain) && strncmp(key, domain, length) == 0;
}

/* The exact key first, then any that names the same host, as Docker does. */
static const json_t *find_entry(const json_t *entries, const char *server, const char *domain)
{
    const json_t *exact = json_object_get(entries, server);
    const char *key;
    json_t *value;

    if (exact)
        return exact;
    json_object_foreach ((json_t *)entries, key, value) {
        if (is_key_of(key, domain))
            return value;
    }
    return NULL;
}

/* base64 of "user:password". */
static bool decode_auth(const char *text, struct credentials *ret)
{
    size_t size = strlen(text);
    CLEANUP(wipe_strbuf) struct strbuf plain = {0};
    char *colon;
    int length;

    if (size == 0 || size % 4 || size > CONFIG_MAX_BYTES)
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

/* --- Helpers ---------------------------------------------------------------------------------- */

/* Starts it with the server's name as its input. */
static struct process *await_start_helper(const char *program, const char *server, int *ret_out,
                                          struct error *err)
{
    char *argv[] = {(char *)program, (char *)"get", NULL};
    CLEANUP_CLOSE int in_read = -1;
    CLEANUP_CLOSE int in_write = -1;
    CLEANUP_CLOSE int out_read = -1;
    CLEANUP_CLOSE int out_write = -1;
    struct process_options options = {.argv = argv, .fd_count = 3};
    struct process *process;
    int r;

    if ((r = pipe_cloexec(&in_read, &in_write)) < 0 ||
        (r = pipe_cloexec(&out_read, &out_write)) < 0) {
        error_set_errno(err, r, "cannot run %s", program);
        return NULL;
    }
    /* A pipe takes this much without a reader. */
    if (write(in_write, server, strlen(server)) != (ssize_t)strlen(server)) {
        error_set_errno(err, errno, "cannot write to %s", program);
        return NULL;
    }
    options.fds[0] = in_read;
    options.fds[1] = out_write;
    options.fds[2] = STDERR_FILENO;
    process = await_process_start(&options, err);
    if (process)
        *ret_out = TAKE_FD(out_read);
    return process;
}

static bool await_helper_output(const char *program, const char *server, struct strbuf *ret,
                                int *ret_status, struct error *err)
{
    CLEANUP(process_cleanup) struct process *process = NULL;
    CLEANUP(stream_cleanup) struct stream *out = NULL;
    int fd = -1, r = 0;
    ssize_t n;

    process = await_start_helper(program, server, &fd, err);
    if (!process)
        return false;
    out = stream_new(fd);
    do {
        strbuf_reserve(ret, 4096);
        n = await_read(out, ret->data + ret->length, 4096);
        if (n > 0)
            ret->length += (size_t)n;
        ret->data[ret->length] = '\0';
    } while (n > 0 && ret->length <= HELPER_OUTPUT_MAX_BYTES);
    if (n > 0) /* it has not ended, nor will it: freeing it kills it */
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, NULL, "its output has no end");
    if (n < 0 || (r = await_process(process, ret_status)) < 0)
        return await_error(err, n < 0 ? (int)n : r, "running %s", program);
    return true;
}

static bool helper_failed(const char *program, const char *why, struct error *err)
{
    error_set(err, ERROR_FAILED_PRECONDITION, "CREDENTIALS",
              "the credential helper %s does not work: %.200s", program, why);
    return error_hint(err,
                      "install it, or remove its name from \"credsStore\" and \"credHelpers\" in "
                      "Docker's config.json");
}

/* docker-credential-NAME get: JSON on its output, or a complaint there and an exit status. */
static bool await_helper(const char *name, const char *server, struct credentials *ret,
                         struct error *err)
{
    CLEANUP_FREE char *program = xasprintf("docker-credential-%s", name);
    CLEANUP(wipe_strbuf) struct strbuf output = {0};
    CLEANUP_JSON json_t *json = NULL;
    CLEANUP_ERROR struct error problem = {0};
    const char *username, *secret;
    int status = 0;

    if (strchr(name, '/'))
        return helper_failed(program, "its name has a slash in it", err);
    if (!await_helper_output(program, server, &output, &status, &problem))
        return problem.code == ERROR_CANCELLED ? error_move(err, &problem)
                                               : helper_failed(program, problem.message, err);
    if (status != 0) {
        output.data[strcspn(output.data, "\r\n")] = '\0';
        if (strstr(output.data, "credentials not found"))
            return true;
        return helper_failed(program, output.data, err);
    }
    json = json_parse(output.data, output.length, HELPER_OUTPUT_MAX_BYTES, "its output", &problem);
    username = json_str(json, "Username");
    secret = json_str(json, "Secret");
    if (!json)
        drop_quotation(&problem);
    if (!username || !secret)
        return helper_failed(program,
                             json ? "its output lacks Username or Secret" : problem.message, err);
    if (strcmp(username, TOKEN_USER) == 0) {
        ret->identity_token = xstrdup(secret);
    } else if (*username) {
        ret->username = xstrdup(username);
        ret->password = xstrdup(secret);
    }
    return true;
}

/* --- All together ----------------------------------------------------------------------------- */

static bool is_empty(const struct credentials *credentials)
{
    return !credentials->username && !credentials->identity_token;
}

bool await_credentials_find(const char *registry_domain, struct credentials *ret, struct error *err)
{
    CLEANUP_CREDENTIALS struct credentials found = {0};
    CLEANUP_FREE char *path = config_path();
    CLEANUP_JSON json_t *config = NULL;
    bool hub = str_eq(registry_domain, DOCKER_DOMAIN);
    const char *server = hub ? DOCKER_KEY : registry_domain;
    const char *domain = hub ? "index.docker.io" : registry_domain;
    const char *helper;
    const json_t *entry;

    *ret = (struct credentials){0};
    if (!load_config(path, &config, err)) {
        free(err->reason);
        err->reason = xstrdup("CREDENTIALS");
        return error_prefix(err, "Error loading config file");
    }
    helper = json_string_value(find_entry(json_object_get(config, "credHelpers"), server, domain));
    if (!helper)
        helper = json_str(config, "credsStore");
    if (!str_empty(helper) && !await_helper(helper, server, &found, err))
        return false;
    entry = find_entry(json_object_get(config, "auths"), server, domain);
    if (is_empty(&found) && entry && !take_entry(entry, path, server, &found, err))
        return false;
    *ret = found;
    found = (struct credentials){0};
    return true;
}
