#include "daemon/build/expand.h"

#define DEPTH_MAX 32 /* of braces in braces */

struct expansion {
    const char *rest;
    char *const *env;
    unsigned int depth;
    struct error *err;
};

#define failed(expansion, ...) \
    error_set((expansion)->err, ERROR_INVALID_ARGUMENT, "INVALID_WORD", __VA_ARGS__)

static bool check_size(struct expansion *expansion, const struct strbuf *out)
{
    return out->length <= EXPANDED_MAX_BYTES || failed(expansion, "it expands to more than 1 MiB");
}

/* NULL: it is not set. */
static const char *lookup(const struct expansion *expansion, const char *name)
{
    const size_t length = strlen(name);
    const char *value = NULL;

    for (char *const *one = expansion->env; one && *one; one++) {
        if (strncmp(*one, name, length) == 0 && (*one)[length] == '=')
            value = *one + length + 1;
    }
    return value;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c) ||
           (unsigned char)c >= 0x80;
}

static char *take_name(struct expansion *expansion)
{
    const char *begin = expansion->rest;
    size_t length = 0;

    if (is_digit(*begin)) {
        while (is_digit(begin[length]))
            length++;
    } else if (*begin && strchr("@*#?-$!", *begin))
        length = 1;
    else {
        while (is_name(begin[length]))
            length++;
    }
    expansion->rest += length;
    return xstrndup(begin, length);
}

static bool add_until(struct expansion *expansion, char stop, struct strbuf *out);

/* "${NAME:-word}" and so on; the braces' content from its name's end. */
static bool add_modified(struct expansion *expansion, const char *name, struct strbuf *out)
{
    CLEANUP_STRBUF struct strbuf word = {0};
    const char *value = lookup(expansion, name);
    const char *modifier = expansion->rest;
    bool colon = *modifier == ':';
    size_t length = colon ? 2 : 1;
    char kind = modifier[colon], shown[3] = {0};
    bool set = value && !(colon && !*value);

    memcpy(shown, modifier, strnlen(modifier, length));
    if (!*modifier || !kind)
        return failed(expansion, "syntax error: missing '}'");
    if (kind != '-' && kind != '+' && kind != '?')
        return failed(expansion, "unsupported modifier (%s) in substitution", shown);
    expansion->rest += length;
    if (!add_until(expansion, '}', &word))
        return false;
    if (kind == '?' && !set) {
        const char *why = word.length > 0 ? word.data : "is not allowed to be unset";
        return failed(expansion, "%s: %s", name, why);
    }
    if (kind == '+')
        strbuf_add_str(out, set ? strbuf_text(&word) : "");
    else
        strbuf_add_str(out, set ? value : strbuf_text(&word));
    return check_size(expansion, out);
}

static bool add_variable(struct expansion *expansion, struct strbuf *out)
{
    CLEANUP_FREE char *name = NULL;
    const char *value;

    expansion->rest++;
    if (*expansion->rest != '{') {
        name = take_name(expansion);
        value = lookup(expansion, name);
        strbuf_add_str(out, !*name ? "$" : value ? value : "");
        return check_size(expansion, out);
    }
    expansion->rest++;
    if (!*expansion->rest)
        return failed(expansion, "syntax error: missing '}'");
    if (strchr("{}:", *expansion->rest))
        return failed(expansion, "syntax error: bad substitution");
    name = take_name(expansion);
    if (*expansion->rest != '}')
        return add_modified(expansion, name, out);
    expansion->rest++;
    value = lookup(expansion, name);
    strbuf_add_str(out, value ? value : "");
    return check_size(expansion, out);
}

static bool add_single_quoted(struct expansion *expansion, struct strbuf *out)
{
    const char *begin = ++expansion->rest, *end = strchr(begin, '\'');

    if (!end)
        return failed(expansion, "unexpected end of statement while looking for matching "
                                 "single-quote");
    strbuf_add(out, begin, (size_t)(end - begin));
    expansion->rest = end + 1;
    return true;
}

static bool add_double_quoted(struct expansion *expansion, struct strbuf *out)
{
    for (expansion->rest++; *expansion->rest;) {
        char c = *expansion->rest;
        if (c == '"') {
            expansion->rest++;
            return true;
        }
        if (c == '$') {
            if (!add_variable(expansion, out))
                return false;
            continue;
        }
        expansion->rest++;
        if (c == '\\') {
            char next = *expansion->rest;
            if (!next)
                break;
            if (next == '"' || next == '$' || next == '\\') {
                c = next;
                expansion->rest++;
            }
        }
        strbuf_add_char(out, c);
    }
    return failed(expansion, "unexpected end of statement while looking for matching double-quote");
}

/* Up to stop, which is passed over; '\0': to the end. */
static bool add_until(struct expansion *expansion, char stop, struct strbuf *out)
{
    if (++expansion->depth > DEPTH_MAX)
        return failed(expansion, "substitutions lie in each other too deep");
    while (*expansion->rest && *expansion->rest != stop) {
        bool ok = true;
        switch (*expansion->rest) {
        case '\'':
            ok = add_single_quoted(expansion, out);
            break;
        case '"':
            ok = add_double_quoted(expansion, out);
            break;
        case '$':
            ok = add_variable(expansion, out);
            break;
        case '\\':
            expansion->rest++;
            if (!*expansion->rest)
                break;
            /* fallthrough */
        default:
            strbuf_add_char(out, *expansion->rest++);
        }
        if (!ok)
            return false;
    }
    expansion->depth--;
    if (stop && !*expansion->rest)
        return failed(expansion, "syntax error: missing '}'");
    expansion->rest += stop != '\0';
    return true;
}

bool expand_word(const char *word, char *const *env, char **ret, struct error *err)
{
    CLEANUP_STRBUF struct strbuf out = {0};
    CLEANUP_STRBUF struct strbuf quoted = {0};
    struct expansion expansion = {.rest = word, .env = env, .err = err};

    if (add_until(&expansion, '\0', &out)) {
        *ret = strbuf_take(&out);
        return true;
    }
    strbuf_add_quoted(&quoted, word);
    return error_prefix(err, "failed to process %.300s", strbuf_text(&quoted));
}
