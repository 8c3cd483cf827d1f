#include "daemon/build/instruction.h"

#include <stdio.h>
#include <strings.h>

#include "proto/base/json.h"
#include "proto/base/strbuf.h"

static const struct {
    const char *name;
    enum instruction_kind kind;
} known[] = {
    {"CMD", INSTRUCTION_CMD},
    {"ENTRYPOINT", INSTRUCTION_ENTRYPOINT},
    {"ENV", INSTRUCTION_ENV},
    {"EXPOSE", INSTRUCTION_EXPOSE},
    {"HEALTHCHECK", INSTRUCTION_HEALTHCHECK},
    {"LABEL", INSTRUCTION_LABEL},
    {"ONBUILD", INSTRUCTION_ONBUILD},
    {"STOPSIGNAL", INSTRUCTION_STOPSIGNAL},
    {"USER", INSTRUCTION_USER},
    {"VOLUME", INSTRUCTION_VOLUME},
    {"WORKDIR", INSTRUCTION_WORKDIR},
};

void instruction_done(struct instruction *instruction)
{
    free(instruction->name);
    strv_free(instruction->flags);
    free(instruction->text);
    strv_free(instruction->args);
    *instruction = (struct instruction){0};
}

static bool invalid(struct error *err, const char *what, const char *why)
{
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION", "%s %s", what, why);
}

/* --- Lines -------------------------------------------------------------------------------------
 */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static const char *skip_spaces(const char *text)
{
    while (is_space(*text))
        text++;
    return text;
}

/* Removes spaces at the end. */
static void trim_end(struct strbuf *text)
{
    while (text->length > 0 && is_space(text->data[text->length - 1]))
        text->data[--text->length] = '\0';
}

/* A line without its end, which the reader goes past. */
static char *take_line(struct instruction_reader *reader)
{
    size_t length = strcspn(reader->rest, "\n");
    char *line = xstrndup(reader->rest, length);

    reader->rest += length + (reader->rest[length] == '\n');
    if (length > 0 && line[length - 1] == '\r')
        line[length - 1] = '\0';
    return line;
}

static bool is_comment(const char *line)
{
    return *skip_spaces(line) == '#';
}

/* A backslash at its end, but no escaped one: it goes, and the next line belongs to this one. */
static bool trim_continuation(char *line)
{
    size_t length = strlen(line);

    while (length > 0 && (line[length - 1] == ' ' || line[length - 1] == '\t'))
        length--;
    if (length == 0 || line[length - 1] != '\\' || (length > 1 && line[length - 2] == '\\'))
        return false;
    line[length - 1] = '\0';
    return true;
}

/* What belongs together, without comments and empty lines. "" at the end of the text. */
static void take_logical_line(struct instruction_reader *reader, struct strbuf *ret)
{
    bool continues = false;

    while (*reader->rest && (continues || ret->length == 0)) {
        CLEANUP_FREE char *line = take_line(reader);
        if (is_comment(line) || !*skip_spaces(line))
            continue;
        continues = trim_continuation(line);
        strbuf_add_str(ret, ret->length == 0 ? skip_spaces(line) : line);
    }
    trim_end(ret);
}

/* --- Words -------------------------------------------------------------------------------------
 */

/* The end of a word: quoted spaces do not end it, nor does an escaped one. */
static const char *word_end(const char *text)
{
    char quote = '\0';

    for (; *text && (quote || !is_space(*text)); text++) {
        if (*text == '\\' && quote != '\'') {
            if (!text[1])
                return text + 1;
            text++;
        } else if (quote && *text == quote)
            quote = '\0';
        else if (!quote && (*text == '\'' || *text == '"'))
            quote = *text;
    }
    return text;
}

/* A word as it is written, but for a backslash at the very end of the text. */
static char *take_word(const char **text)
{
    const char *begin = *text, *end = word_end(begin);
    size_t length = (size_t)(end - begin), slashes = 0;

    *text = skip_spaces(end);
    while (!*end && slashes < length && end[-1 - (ptrdiff_t)slashes] == '\\')
        slashes++;
    return xstrndup(begin, length - slashes % 2);
}

static bool is_flag(const char *text)
{
    return str_starts(text, "--") && text[2] && !is_space(text[2]);
}

/* Flags before the arguments; "--" alone ends them. */
static const char *take_flags(const char *text, struct instruction *ret)
{
    while (is_flag(text)) {
        CLEANUP_FREE char *flag = take_word(&text);
        strv_add(&ret->flags, flag);
    }
    if (str_starts(text, "--") && (!text[2] || is_space(text[2])))
        text = skip_spaces(text + 2);
    return text;
}

static size_t word_length(const char *text)
{
    size_t length = 0;

    while (text[length] && !is_space(text[length]))
        length++;
    return length;
}

/* As many as the text can have, however short; for lists that are filled without counting them anew
 * for each. */
static char **words_new(const char *text)
{
    return xcalloc(strlen(text) / 2 + 2, sizeof(char *));
}

static void take_words(const char *text, char ***ret)
{
    size_t count = 0;

    if (!*text)
        return;
    *ret = words_new(text);
    while (*text) {
        const size_t length = word_length(text);
        (*ret)[count++] = xstrndup(text, length);
        text = skip_spaces(text + length);
    }
}

/* --- Forms of arguments ------------------------------------------------------------------------
 */

/* *ret_is: the text is a JSON array, of strings only. */
static bool take_json(const char *text, struct instruction *ret, bool *ret_is, struct error *err)
{
    CLEANUP_JSON json_t *json = NULL;
    const size_t before = strv_count(ret->args);
    const json_t *item;
    size_t i;

    *ret_is = false;
    if (*text != '[')
        return true;
    json = json_parse(text, strlen(text), DOCKERFILE_MAX_BYTES, "it", NULL);
    if (!json_is_array(json))
        return true;
    if (json_array_size(json) > 0)
        ret->args = xrealloc(ret->args, (before + json_array_size(json) + 1) * sizeof(char *));
    json_array_foreach (json, i, item) {
        ret->args[before + i] = NULL;
        if (!json_is_string(item))
            return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION",
                             "when using JSON array syntax, arrays must be comprised of strings "
                             "only");
        ret->args[before + i] = xstrdup(json_string_value(item));
        ret->args[before + i + 1] = NULL;
    }
    return *ret_is = true;
}

/* CMD's forms. */
static bool take_command(const char *text, struct instruction *ret, struct error *err)
{
    if (!take_json(text, ret, &ret->json, err))
        return false;
    if (!ret->json && *text)
        strv_add(&ret->args, text);
    return true;
}

static bool take_list(const char *text, struct instruction *ret, struct error *err)
{
    if (!take_json(text, ret, &ret->json, err))
        return false;
    if (!ret->json)
        take_words(text, &ret->args);
    return true;
}

static bool no_equals(const char *word, struct error *err)
{
    CLEANUP_STRBUF struct strbuf quoted = {0};

    strbuf_add_quoted(&quoted, word);
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION",
                     "Syntax error - can't find = in %s. Must be of the form: name=value",
                     strbuf_text(&quoted));
}

/* "name value and all that follows", as ENV was once. */
static bool take_old_pair(const char *what, const char *text, struct instruction *ret,
                          struct error *err)
{
    size_t length = strcspn(text, " \t\v\f\r");
    CLEANUP_FREE char *name = xstrndup(text, length);

    if (!text[length])
        return invalid(err, what, "must have two arguments");
    strv_add(&ret->args, name);
    strv_add(&ret->args, skip_spaces(text + length));
    return true;
}

static bool take_pairs(const char *what, const char *text, struct instruction *ret,
                       struct error *err)
{
    const char *rest = text;
    size_t count = 0;

    while (*rest) {
        CLEANUP_FREE char *word = take_word(&rest);
        const char *equals = strchr(word, '=');
        if (!equals && count == 0)
            return take_old_pair(what, text, ret, err);
        if (!equals)
            return no_equals(word, err);
        if (equals == word)
            return invalid(err, what, "names can not be blank");
        if (!ret->args)
            ret->args = xcalloc(strlen(text) + 3, sizeof(char *)); /* two for each two bytes */
        ret->args[count++] = xstrndup(word, (size_t)(equals - word));
        ret->args[count++] = xstrdup(equals + 1);
    }
    return true;
}

/* --- Instructions ------------------------------------------------------------------------------
 */

static bool take_health_check(const char *text, struct instruction *ret, struct error *err)
{
    const char *rest = text;
    const size_t length = word_length(text);
    CLEANUP_FREE char *type = NULL;

    if (length == 0)
        return true;
    type = xstrndup(text, length);
    for (char *c = type; *c; c++)
        *c = *c >= 'a' && *c <= 'z' ? (char)(*c - 'a' + 'A') : *c;
    rest = skip_spaces(text + length);
    strv_add(&ret->args, type);
    return take_command(rest, ret, err);
}

/* What it is about to trigger must be an instruction that a build may have there. Its name is
 * looked at before anything is parsed: that does not end in an ONBUILD of ONBUILDs. */
static bool check_trigger(const char *text, struct error *err)
{
    static const char *const refused[] = {"MAINTAINER", "FROM"};
    struct instruction_reader reader = {.rest = text};
    CLEANUP(instruction_done) struct instruction trigger = {0};
    CLEANUP_FREE char *name = xstrndup(text, strcspn(text, " \t\v\f\r"));

    if (strcasecmp(name, "ONBUILD") == 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION",
                         "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        if (strcasecmp(name, refused[i]) == 0)
            return invalid(err, refused[i], "isn't allowed as an ONBUILD trigger");
    }
    return instruction_next(&reader, &trigger, err) >= 0;
}

static bool take_args(const char *text, struct instruction *ret, struct error *err)
{
    switch (ret->kind) {
    case INSTRUCTION_CMD:
    case INSTRUCTION_ENTRYPOINT:
        return take_command(text, ret, err);
    case INSTRUCTION_ENV:
        return take_pairs("ENV", text, ret, err);
    case INSTRUCTION_LABEL:
        return take_pairs("LABEL", text, ret, err);
    case INSTRUCTION_EXPOSE:
        take_words(text, &ret->args);
        return true;
    case INSTRUCTION_VOLUME:
        return take_list(text, ret, err);
    case INSTRUCTION_HEALTHCHECK:
        return take_health_check(text, ret, err);
    case INSTRUCTION_ONBUILD:
    case INSTRUCTION_STOPSIGNAL:
    case INSTRUCTION_USER:
    case INSTRUCTION_WORKDIR:
        if (*text)
            strv_add(&ret->args, text);
        return true;
    case INSTRUCTION_OTHER:
        return true;
    }
    return true;
}

/* What it must have, however little. */
static bool check_args(const struct instruction *instruction, const char *what, struct error *err)
{
    switch (instruction->kind) {
    case INSTRUCTION_CMD:
    case INSTRUCTION_ENTRYPOINT:
    case INSTRUCTION_OTHER:
        return true;
    case INSTRUCTION_STOPSIGNAL:
    case INSTRUCTION_USER:
    case INSTRUCTION_WORKDIR:
        return instruction->args || invalid(err, what, "requires exactly one argument");
    case INSTRUCTION_ONBUILD:
        if (!instruction->args)
            return invalid(err, what, "requires at least one argument");
        return check_trigger(instruction->args[0], err);
    case INSTRUCTION_ENV:
    case INSTRUCTION_EXPOSE:
    case INSTRUCTION_HEALTHCHECK:
    case INSTRUCTION_LABEL:
    case INSTRUCTION_VOLUME:
        return instruction->args || invalid(err, what, "requires at least one argument");
    }
    return true;
}

static bool parse(const char *line, struct instruction *ret, struct error *err)
{
    size_t length = strcspn(line, " \t\v\f\r");
    const char *what = NULL, *text;

    ret->name = xstrndup(line, length);
    ret->kind = INSTRUCTION_OTHER;
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (strcasecmp(ret->name, known[i].name) == 0) {
            ret->kind = known[i].kind;
            what = known[i].name;
        }
    }
    text = take_flags(skip_spaces(line + length), ret);
    ret->text = xstrdup(text);
    return take_args(text, ret, err) && check_args(ret, what, err);
}

int instruction_next(struct instruction_reader *reader, struct instruction *ret, struct error *err)
{
    CLEANUP_STRBUF struct strbuf line = {0};
    CLEANUP(instruction_done) struct instruction parsed = {0};

    *ret = (struct instruction){0};
    if (!reader->checked && strlen(reader->rest) > DOCKERFILE_MAX_BYTES) {
        error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION",
                  "the instructions are longer than 1 MiB");
        return -1;
    }
    reader->checked = true;
    take_logical_line(reader, &line);
    if (line.length == 0)
        return 0;
    if (!parse(line.data, &parsed, err))
        return -1;
    *ret = parsed;
    parsed = (struct instruction){0};
    return 1;
}
