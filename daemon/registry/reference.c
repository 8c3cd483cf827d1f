/* The grammar is that of github.com/distribution/reference, regexp.go and normalize.go. */
#include "daemon/registry/reference.h"

#include <ctype.h>

#include "proto/base/strbuf.h"

#define LEGACY_DOMAIN "index.docker.io"
#define OFFICIAL_PREFIX "library/"
#define NAME_MAX_LENGTH 255
#define TAG_MAX_LENGTH 128
#define LOWER_ALNUM "abcdefghijklmnopqrstuvwxyz0123456789"
#define ALNUM LOWER_ALNUM "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"
#define HEX DIGITS "abcdefABCDEF"

void reference_done(struct reference *reference)
{
    free(reference->domain);
    free(reference->path);
    free(reference->tag);
    *reference = (struct reference){0};
}

static bool invalid(struct error *err)
{
    error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_REFERENCE", "invalid reference format");
    return error_hint(err, "write it as NAME[:TAG] or NAME@sha256:DIGEST, such as alpine:3.20 or "
                           "registry.example.com:5000/team/app");
}

/* --- Grammar ---------------------------------------------------------------------------------- */

/* domain-component ["." domain-component]*, where a component has no hyphen at its ends. */
static bool is_domain_name(const char *text, size_t length)
{
    size_t position = 0;

    for (;;) {
        size_t size = strspn(text + position, ALNUM "-");
        size = MIN(size, length - position);
        if (size == 0 || text[position] == '-' || text[position + size - 1] == '-')
            return false;
        position += size;
        if (position == length)
            return true;
        if (text[position++] != '.')
            return false;
    }
}

static bool is_domain(const char *text)
{
    size_t length;

    if (text[0] == '[') {
        length = strspn(text + 1, HEX ":");
        if (length == 0 || text[length + 1] != ']')
            return false;
        length += 2;
    } else {
        length = strcspn(text, ":");
        if (!is_domain_name(text, length))
            return false;
    }
    if (text[length] == '\0')
        return true;
    text += length + 1;
    return text[-1] == ':' && *text && text[strspn(text, DIGITS)] == '\0';
}

/* Path components of lower-case words, joined within by one of ".", "_", "__" or hyphens. */
static bool is_path(const char *text)
{
    for (;;) {
        size_t separator, word = strspn(text, LOWER_ALNUM);
        if (word == 0)
            return false;
        text += word;
        if (*text == '\0')
            return true;
        if (*text == '/' || *text == '.')
            separator = 1;
        else if (*text == '_')
            separator = text[1] == '_' ? 2 : 1;
        else
            separator = strspn(text, "-");
        if (separator == 0)
            return false;
        text += separator;
    }
}

static bool is_tag(const char *text)
{
    size_t length = strlen(text);

    return length > 0 && length <= TAG_MAX_LENGTH && text[0] != '.' && text[0] != '-' &&
           strspn(text, ALNUM "_.-") == length;
}

/* An algorithm, a colon, at least 32 hex digits; then sha256 alone is known here. */
static bool parse_digest(const char *text, struct digest *ret, struct error *err)
{
    const char *hex = strchr(text, ':');
    size_t algorithm = hex ? (size_t)(hex - text) : 0, length;

    if (!algorithm || !isalpha((unsigned char)text[0]) || strspn(text, ALNUM "+._-") < algorithm)
        return invalid(err);
    hex++;
    length = strlen(hex);
    if (length < 32 || strspn(hex, HEX) != length)
        return invalid(err);
    if (!str_starts(text, "sha256:"))
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_REFERENCE",
                         "unsupported digest algorithm: %.*s", (int)MIN(algorithm, 32U), text);
    if (length != 64)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_REFERENCE",
                         "invalid checksum digest length: %zu hex digits instead of 64", length);
    if (!digest_parse(text, ret, NULL))
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_REFERENCE",
                         "invalid checksum digest format: the hex digits must be lower case");
    return true;
}

static bool has_upper(const char *text)
{
    for (; *text; text++) {
        if (*text >= 'A' && *text <= 'Z')
            return true;
    }
    return false;
}

/* --- Parsing ---------------------------------------------------------------------------------- */

/* The first component is a registry if it could not be a part of a path on docker.io. */
static bool looks_like_domain(const char *component)
{
    return strpbrk(component, ".:") || strcmp(component, "localhost") == 0 || has_upper(component);
}

static void split_domain(const char *text, char **ret_domain, char **ret_rest)
{
    const char *slash = strchr(text, '/');
    CLEANUP_FREE char *first = slash ? xstrndup(text, (size_t)(slash - text)) : NULL;
    bool given = first && looks_like_domain(first);
    const char *rest = given ? slash + 1 : text;
    bool is_default =
        !given || str_eq(first, REFERENCE_DEFAULT_DOMAIN) || str_eq(first, LEGACY_DOMAIN);

    *ret_domain = xstrdup(is_default ? REFERENCE_DEFAULT_DOMAIN : first);
    *ret_rest = xasprintf("%s%s", is_default && !strchr(rest, '/') ? OFFICIAL_PREFIX : "", rest);
}

static bool check_lower_case(const char *rest, struct error *err)
{
    CLEANUP_FREE char *name = xstrndup(rest, strcspn(rest, ":"));

    if (!has_upper(name))
        return true;
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_REFERENCE",
                     "invalid reference format: repository name (%.255s) must be lowercase", name);
}

/* path[:tag][@digest]; cuts rest into its parts. */
static bool parse_rest(char *rest, struct reference *reference, struct error *err)
{
    char *digest = strchr(rest, '@');
    char *tag, *slash;

    if (digest) {
        *digest++ = '\0';
        if (!parse_digest(digest, &reference->digest, err))
            return false;
    }
    slash = strrchr(rest, '/');
    tag = strchr(slash ? slash : rest, ':');
    if (tag) {
        *tag++ = '\0';
        if (!is_tag(tag))
            return invalid(err);
        reference->tag = xstrdup(tag);
    }
    if (!is_path(rest))
        return invalid(err);
    reference->path = xstrdup(rest);
    return true;
}

bool reference_parse(const char *text, struct reference *ret, struct error *err)
{
    CLEANUP_REFERENCE struct reference reference = {0};
    CLEANUP_FREE char *rest = NULL;

    if (strlen(text) == 64 && strspn(text, DIGITS "abcdef") == 64)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_REFERENCE",
                         "invalid repository name (%s), cannot specify 64-byte hexadecimal strings",
                         text);
    split_domain(text, &reference.domain, &rest);
    if (!check_lower_case(rest, err))
        return false;
    if (!is_domain(reference.domain))
        return invalid(err);
    if (!parse_rest(rest, &reference, err))
        return false;
    if (strlen(reference.domain) + 1 + strlen(reference.path) > NAME_MAX_LENGTH)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_REFERENCE",
                         "repository name must not be more than %d characters", NAME_MAX_LENGTH);
    if (!reference.tag && !digest_is_set(&reference.digest)) {
        reference.tag = xstrdup(REFERENCE_DEFAULT_TAG);
        reference.default_tag = true;
    }
    *ret = reference;
    reference = (struct reference){0};
    return true;
}

/* --- Texts ------------------------------------------------------------------------------------ */

char *reference_name(const struct reference *reference)
{
    return xasprintf("%s/%s", reference->domain, reference->path);
}

char *reference_familiar_name(const struct reference *reference)
{
    const char *path = reference->path;
    CLEANUP_FREE char *first = xstrndup(path, strcspn(path, "/"));

    if (!str_eq(reference->domain, REFERENCE_DEFAULT_DOMAIN))
        return reference_name(reference);
    if (str_starts(path, OFFICIAL_PREFIX) && !strchr(path + strlen(OFFICIAL_PREFIX), '/'))
        return xstrdup(path + strlen(OFFICIAL_PREFIX));
    /* docker.io/a.b/c must not become the path c on a registry a.b. */
    return looks_like_domain(first) ? reference_name(reference) : xstrdup(path);
}

static char *with_tag_and_digest(char *name, const struct reference *reference)
{
    CLEANUP_FREE char *owned = name;
    bool has_digest = digest_is_set(&reference->digest);

    return xasprintf("%s%s%s%s%s", name, reference->tag ? ":" : "",
                     reference->tag ? reference->tag : "", has_digest ? "@" : "",
                     has_digest ? reference->digest.text : "");
}

char *reference_familiar(const struct reference *reference)
{
    return with_tag_and_digest(reference_familiar_name(reference), reference);
}

char *reference_canonical(const struct reference *reference)
{
    return with_tag_and_digest(reference_name(reference), reference);
}
