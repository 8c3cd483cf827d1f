#include "client/flags.h"

#include <stdio.h>

struct parser {
    struct flags *flags;
    char *const *next; /* what is left of argv */
    bool flags_first;
};

static bool invalid(struct error *err, const char *format, ...) PRINTF_LIKE(2, 3);

static bool invalid(struct error *err, const char *format, ...)
{
    va_list args;
    CLEANUP_STRBUF struct strbuf text = {0};
    va_start(args, format);
    strbuf_vaddf(&text, format, args);
    va_end(args);
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_FLAG", "%s", strbuf_text(&text));
}

/* The words strconv.ParseBool knows. */
static bool parse_bool(const char *text, bool *ret)
{
    static const char *const yes[] = {"1", "t", "T", "TRUE", "true", "True"};
    static const char *const no[] = {"0", "f", "F", "FALSE", "false", "False"};
    for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
        if (str_eq(text, yes[i]) || str_eq(text, no[i])) {
            *ret = str_eq(text, yes[i]);
            return true;
        }
    }
    return false;
}

static bool is_choice(const char *choices, const char *value)
{
    size_t length = strlen(value);
    for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL) {
        if (length && strncmp(c, value, length) == 0 && (c[length] == '|' || c[length] == '\0'))
            return true;
    }
    return false;
}

/* pflag names a flag in this error by all its names. */
static bool invalid_value(const struct flag *flag, const char *value, const char *why,
                          struct error *err)
{
    if (flag->shorthand)
        return invalid(err, "invalid argument \"%s\" for \"-%c, --%s\" flag: %s", value,
                       flag->shorthand, flag->name, why);
    return invalid(err, "invalid argument \"%s\" for \"--%s\" flag: %s", value, flag->name, why);
}

static bool set_value(struct flags *flags, const struct flag *flag, const char *value,
                      struct error *err)
{
    bool yes;
    if (flag->type == FLAG_BOOL && !parse_bool(value, &yes)) {
        CLEANUP_FREE char *why =
            xasprintf("strconv.ParseBool: parsing \"%s\": invalid syntax", value);
        return invalid_value(flag, value, why, err);
    }
    if (flag->choices && !is_choice(flag->choices, value)) {
        CLEANUP_FREE char *why = xasprintf("must be one of %s", flag->choices);
        return invalid_value(flag, value, why, err);
    }
    CLEANUP_ERROR struct error reason = {0};
    if (flag->check && !flag->check(value, &reason))
        return invalid_value(flag, value, reason.message, err);

    char ***slot = &flags->values[flag - flags->table];
    if (flag->type != FLAG_LIST)
        *slot = strv_free(*slot);
    strv_add(slot, value);
    return true;
}

static const struct flag help_flag = {.name = "help",
                                      .shorthand = 'h',
                                      .type = FLAG_BOOL,
                                      .help = "Print usage"};

static const struct flag *find_long(const struct flags *flags, const char *name, size_t length)
{
    for (size_t i = 0; i < flags->count; i++) {
        const struct flag *flag = &flags->table[i];
        if (strncmp(flag->name, name, length) == 0 && flag->name[length] == '\0')
            return flag;
    }
    return length == strlen("help") && strncmp(name, "help", length) == 0 ? &help_flag : NULL;
}

static const struct flag *find_short(const struct flags *flags, char shorthand)
{
    for (size_t i = 0; i < flags->count; i++) {
        if (flags->table[i].shorthand == shorthand)
            return &flags->table[i];
    }
    return shorthand == 'h' ? &help_flag : NULL;
}

/* --help is every command's and in no table. */
static bool set_flag(struct parser *parser, const struct flag *flag, const char *value,
                     struct error *err)
{
    if (flag->unsupported)
        return invalid(err, "--%s is not supported by davit yet", flag->name);
    if (flag != &help_flag)
        return set_value(parser->flags, flag, value, err);
    if (parse_bool(value, &parser->flags->help))
        return true;
    return invalid(err,
                   "invalid argument \"%s\" for \"--help\" flag: strconv.ParseBool: parsing "
                   "\"%s\": invalid syntax",
                   value, value);
}

static bool parse_long(struct parser *parser, const char *word, struct error *err)
{
    const char *name = word + 2;
    const char *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    if (length == 0 || name[0] == '-')
        return invalid(err, "bad flag syntax: %s", word);
    const struct flag *flag = find_long(parser->flags, name, length);
    if (!flag)
        return invalid(err, "unknown flag: --%.*s", (int)length, name);
    if (equals)
        return set_flag(parser, flag, equals + 1, err);
    if (flag->type == FLAG_BOOL)
        return set_flag(parser, flag, "true", err);
    if (!*parser->next)
        return invalid(err, "flag needs an argument: %s", word);
    return set_flag(parser, flag, *parser->next++, err);
}

/* "-abc" is "-a -b -c" as long as they are booleans; the first that wants a value gets the rest of
 * the word, without a leading '=', or the next word. */
static bool parse_shorts(struct parser *parser, const char *word, struct error *err)
{
    for (const char *c = word + 1; *c; c++) {
        const struct flag *flag = find_short(parser->flags, *c);
        if (!flag)
            return invalid(err, "unknown shorthand flag: '%c' in -%s", *c, c);
        if (c[1] == '=' && c[2])
            return set_flag(parser, flag, c + 2, err);
        if (flag->type == FLAG_BOOL) {
            if (!set_flag(parser, flag, "true", err))
                return false;
            continue;
        }
        if (c[1])
            return set_flag(parser, flag, c + 1, err);
        if (!*parser->next)
            return invalid(err, "flag needs an argument: '%c' in -%s", *c, c);
        return set_flag(parser, flag, *parser->next++, err);
    }
    return true;
}

static bool parse_words(struct parser *parser, struct error *err)
{
    struct flags *flags = parser->flags;
    bool only_args = false;
    while (*parser->next) {
        char *word = *parser->next++;
        if (only_args || word[0] != '-' || word[1] == '\0') {
            flags->args[flags->arg_count++] = word;
            only_args = only_args || parser->flags_first;
        } else if (str_eq(word, "--")) {
            only_args = true;
        } else if (!(word[1] == '-' ? parse_long(parser, word, err)
                                    : parse_shorts(parser, word, err))) {
            return false;
        }
    }
    return true;
}

bool flags_parse(const struct flag *table, size_t count, bool flags_first, char *const *argv,
                 struct flags *ret, struct error *err)
{
    *ret = (struct flags){.table = table, .count = count};
    ret->values = xcalloc(count + 1, sizeof(*ret->values));
    ret->args = xcalloc(strv_count(argv) + 1, sizeof(*ret->args));
    struct parser parser = {.flags = ret, .next = argv, .flags_first = flags_first};
    if (parse_words(&parser, err))
        return true;
    flags_done(ret);
    return false;
}

void flags_done(struct flags *flags)
{
    for (size_t i = 0; flags->values && i < flags->count; i++)
        strv_free(flags->values[i]);
    free(flags->values);
    free(flags->args); /* the words are argv's */
    *flags = (struct flags){0};
}

static size_t flag_index(const struct flags *flags, const char *name, enum flag_type type)
{
    for (size_t i = 0; i < flags->count; i++) {
        if (str_eq(flags->table[i].name, name) && flags->table[i].type == type)
            return i;
    }
    die("no flag --%s of this type in the command's table", name);
}

bool flag_bool(const struct flags *flags, const char *name)
{
    const size_t i = flag_index(flags, name, FLAG_BOOL);
    const char *text = flags->values[i] ? flags->values[i][0] : flags->table[i].fallback;
    bool yes = false;
    return text && parse_bool(text, &yes) && yes;
}

const char *flag_string(const struct flags *flags, const char *name)
{
    size_t i = flag_index(flags, name, FLAG_STRING);
    return flags->values[i] ? flags->values[i][0] : flags->table[i].fallback;
}

char *const *flag_list(const struct flags *flags, const char *name)
{
    return flags->values[flag_index(flags, name, FLAG_LIST)];
}

bool flag_is_set(const struct flags *flags, const char *name)
{
    for (size_t i = 0; i < flags->count; i++) {
        if (str_eq(flags->table[i].name, name))
            return flags->values[i] != NULL;
    }
    die("no flag --%s in the command's table", name);
}

/* --- Help --------------------------------------------------------------------------------------
 */

const char *flag_kind(const struct flag *flag)
{
    static const char *const kinds[] = {[FLAG_BOOL] = "", "string", "list"};
    return flag->kind ? flag->kind : kinds[flag->type];
}

void flag_describe_values(const struct flag *flag, struct strbuf *out)
{
    const bool quoted = !flag->kind && flag->type != FLAG_BOOL;
    if (flag->choices)
        strbuf_addf(out, " (%s)", flag->choices);
    if (flag->fallback)
        strbuf_addf(out, quoted ? " (default \"%s\")" : " (default %s)", flag->fallback);
}

static void add_left_column(const struct flag *flag, struct strbuf *out)
{
    const char *kind = flag_kind(flag);
    if (flag->shorthand)
        strbuf_addf(out, "  -%c, --%s", flag->shorthand, flag->name);
    else
        strbuf_addf(out, "      --%s", flag->name);
    if (*kind)
        strbuf_addf(out, " %s", kind);
}

/* Adds text at column indent, breaking at blanks and at its newlines so that lines fit width. */
static void add_wrapped(const char *text, size_t indent, size_t width, struct strbuf *out)
{
    size_t room = width > indent + 24 ? width - indent : 24;
    while (*text) {
        size_t length = strcspn(text, "\n");
        if (length > room) {
            length = room;
            while (length > 0 && text[length] != ' ')
                length--;
            if (length == 0)
                length = strcspn(text, " \n");
        }
        strbuf_add(out, text, length);
        strbuf_add_char(out, '\n');
        text += length;
        text += *text == ' ' || *text == '\n';
        if (*text)
            strbuf_addf(out, "%*s", (int)indent, "");
    }
}

void flags_describe(const struct flag *table, size_t count, size_t width, struct strbuf *out)
{
    size_t widest = 0;
    for (size_t i = 0; i < count; i++) {
        CLEANUP_STRBUF struct strbuf left = {0};
        if (table[i].unsupported)
            continue;
        add_left_column(&table[i], &left);
        widest = MAX(widest, left.length);
    }
    for (size_t i = 0; i < count; i++) {
        CLEANUP_STRBUF struct strbuf left = {0}, help = {0};
        if (table[i].unsupported)
            continue;
        add_left_column(&table[i], &left);
        strbuf_add_str(&help, table[i].help);
        flag_describe_values(&table[i], &help);
        strbuf_addf(out, "%-*s   ", (int)widest, strbuf_text(&left));
        add_wrapped(strbuf_text(&help), widest + 3, width, out);
    }
}
