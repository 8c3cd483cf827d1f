#include "daemon/registry/challenge.h"

#include <strings.h>

#include "proto/base/strbuf.h"

/* "tchar" of RFC 9110, 5.6.2 */
#define TOKEN_CHARACTERS \
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~"

void challenge_done(struct challenge *challenge)
{
    free(challenge->realm);
    free(challenge->service);
    free(challenge->scope);
    *challenge = (struct challenge){0};
}

static void skip(const char **text, const char *characters)
{
    *text += strspn(*text, characters);
}

/* A token, or NULL. The caller frees it. */
static char *take_token(const char **text)
{
    size_t length = strspn(*text, TOKEN_CHARACTERS);
    char *token = length ? xstrndup(*text, length) : NULL;

    *text += length;
    return token;
}

/* "..." with backslashes; what is not closed ends with the text. */
static char *take_quoted(const char **text)
{
    CLEANUP_STRBUF struct strbuf value = {0};

    for ((*text)++; **text && **text != '"'; (*text)++) {
        if (**text == '\\' && (*text)[1])
            (*text)++;
        strbuf_add_char(&value, **text);
    }
    if (**text)
        (*text)++;
    return strbuf_take(&value);
}

/* name = value; false and nothing taken if another scheme or a token68 stands there. */
static bool take_parameter(const char **text, char **ret_name, char **ret_value)
{
    const char *rest = *text;
    CLEANUP_FREE char *name = take_token(&rest);

    skip(&rest, " \t");
    if (!name || *rest != '=')
        return false;
    rest++;
    skip(&rest, " \t");
    *ret_value = *rest == '"' ? take_quoted(&rest) : take_token(&rest);
    if (!*ret_value)
        return false;
    *ret_name = TAKE(name);
    *text = rest;
    return true;
}

static void keep(char **member, char **value)
{
    if (!*member)
        *member = TAKE(*value);
}

/* The parameters of one challenge. */
static void take_parameters(const char **text, struct challenge *challenge)
{
    for (;;) {
        CLEANUP_FREE char *name = NULL;
        CLEANUP_FREE char *value = NULL;
        skip(text, " \t,");
        if (!take_parameter(text, &name, &value))
            return;
        if (strcasecmp(name, "realm") == 0)
            keep(&challenge->realm, &value);
        else if (strcasecmp(name, "service") == 0)
            keep(&challenge->service, &value);
        else if (strcasecmp(name, "scope") == 0)
            keep(&challenge->scope, &value);
    }
}

static enum challenge_kind kind_of(const char *scheme, const struct challenge *challenge)
{
    if (strcasecmp(scheme, "Bearer") == 0 && !str_empty(challenge->realm))
        return CHALLENGE_BEARER;
    return strcasecmp(scheme, "Basic") == 0 ? CHALLENGE_BASIC : CHALLENGE_NONE;
}

void challenge_add(struct challenge *ret, const char *header)
{
    const char *text = header;

    for (;;) {
        CLEANUP_CHALLENGE struct challenge challenge = {0};
        CLEANUP_FREE char *scheme = NULL;
        skip(&text, " \t,");
        if (!*text)
            return;
        scheme = take_token(&text);
        if (!scheme) {
            text++; /* nothing that belongs here */
            continue;
        }
        take_parameters(&text, &challenge);
        challenge.kind = kind_of(scheme, &challenge);
        if (challenge.kind > ret->kind) {
            challenge_done(ret);
            *ret = challenge;
            challenge = (struct challenge){0};
        }
    }
}
