#include "daemon/registry/toml.h"

#include <ctype.h>

#include "daemon/registry/toml_word.h"
#include "proto/base/strbuf.h"

struct parser {
    const char *at, *end;
    const char *name;
    unsigned int line, depth, values;
    struct error *err;
};

/* --- Values ----------------------------------------------------------------------------------- */

struct toml *toml_free(struct toml *toml)
{
    if (!toml)
        return NULL;
    for (size_t i = 0; i < toml->count; i++)
        toml_free(toml->children[i]);
    free(toml->children);
    free(toml->key);
    free(toml->text);
    free(toml);
    return NULL;
}

struct toml *toml_get(const struct toml *table, const char *key)
{
    for (size_t i = 0; i < table->count; i++) {
        if (str_eq(table->children[i]->key, key))
            return table->children[i];
    }
    return NULL;
}

const char *toml_kind_name(enum toml_kind kind)
{
    static const char *const names[] = {"a string", "an integer", "a float", "a boolean",
                                        "a date",   "an array",   "a table"};

    return names[kind];
}

static bool fail(const struct parser *parser, const char *why)
{
    return error_set(parser->err, ERROR_INVALID_ARGUMENT, "INVALID_CONFIG", "%s:%u: %s",
                     parser->name, parser->line, why);
}

static struct toml *new_value(struct parser *parser, enum toml_kind kind)
{
    struct toml *value;

    if (++parser->values > TOML_MAX_VALUES) {
        fail(parser, "there are too many values");
        return NULL;
    }
    value = xcalloc(1, sizeof(*value));
    value->kind = kind;
    value->line = parser->line;
    return value;
}

static struct toml *add_child(struct toml *parent, struct toml *child)
{
    parent->children = xrealloc(parent->children, (parent->count + 1) * sizeof(*parent->children));
    return parent->children[parent->count++] = child;
}

/* --- Characters ------------------------------------------------------------------------------- */

static int peek(const struct parser *parser)
{
    return parser->at < parser->end ? (unsigned char)*parser->at : -1;
}

static bool take(struct parser *parser, const char *text)
{
    size_t length = strlen(text);

    if ((size_t)(parser->end - parser->at) < length || memcmp(parser->at, text, length) != 0)
        return false;
    parser->at += length;
    return true;
}

static void skip_blanks(struct parser *parser)
{
    while (peek(parser) == ' ' || peek(parser) == '\t')
        parser->at++;
}

/* A newline, which is counted. */
static bool take_newline(struct parser *parser)
{
    if (!take(parser, "\n") && !take(parser, "\r\n"))
        return false;
    parser->line++;
    return true;
}

static bool is_control(int c)
{
    return (c >= 0 && c < 0x20 && c != '\t') || c == 0x7f;
}

static bool skip_comment(struct parser *parser)
{
    if (peek(parser) != '#')
        return true;
    while (peek(parser) != -1 && peek(parser) != '\n' && peek(parser) != '\r') {
        if (is_control(peek(parser)))
            return fail(parser, "a control character in a comment");
        parser->at++;
    }
    return true;
}

/* Blanks, comments and newlines: between what stands in an array, or lines. */
static bool skip_all(struct parser *parser)
{
    do {
        skip_blanks(parser);
        if (!skip_comment(parser))
            return false;
    } while (take_newline(parser));
    return true;
}

static bool end_of_line(struct parser *parser)
{
    skip_blanks(parser);
    if (!skip_comment(parser))
        return false;
    if (peek(parser) == -1 || take_newline(parser))
        return true;
    return fail(parser, "something else follows what should be the end of the line");
}

/* --- Strings ---------------------------------------------------------------------------------- */

static void add_utf8(struct strbuf *ret, uint32_t c)
{
    if (c < 0x80) {
        strbuf_add_char(ret, (char)c);
    } else if (c < 0x800) {
        strbuf_add_char(ret, (char)(0xc0 | c >> 6));
        strbuf_add_char(ret, (char)(0x80 | (c & 0x3f)));
    } else if (c < 0x10000) {
        strbuf_add_char(ret, (char)(0xe0 | c >> 12));
        strbuf_add_char(ret, (char)(0x80 | (c >> 6 & 0x3f)));
        strbuf_add_char(ret, (char)(0x80 | (c & 0x3f)));
    } else {
        strbuf_add_char(ret, (char)(0xf0 | c >> 18));
        strbuf_add_char(ret, (char)(0x80 | (c >> 12 & 0x3f)));
        strbuf_add_char(ret, (char)(0x80 | (c >> 6 & 0x3f)));
        strbuf_add_char(ret, (char)(0x80 | (c & 0x3f)));
    }
}

static bool read_unicode(struct parser *parser, unsigned int digits, struct strbuf *ret)
{
    uint32_t c = 0;

    for (; digits > 0; digits--, parser->at++) {
        int digit = peek(parser);
        if (digit == -1 || !isxdigit(digit))
            return fail(parser, "\\u takes 4 hexadecimal digits, \\U takes 8");
        c = c << 4 | (uint32_t)(isdigit(digit) ? digit - '0' : (digit | 0x20) - 'a' + 10);
    }
    if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return fail(parser, "an escaped character that does not exist, or a zero byte");
    add_utf8(ret, c);
    return true;
}

/* A backslash at the end of a line takes all white space up to the next word with it. */
static bool skip_line_ending(struct parser *parser)
{
    const char *start = parser->at;

    skip_blanks(parser);
    if (!take_newline(parser)) {
        parser->at = start;
        return false;
    }
    do {
        skip_blanks(parser);
    } while (take_newline(parser));
    return true;
}

static bool read_escape(struct parser *parser, bool multi_line, struct strbuf *ret)
{
    static const char names[] = "btnfr\"\\", values[] = "\b\t\n\f\r\"\\";
    int c = peek(parser);
    const char *known = c > 0 ? strchr(names, c) : NULL;

    if (known) {
        parser->at++;
        strbuf_add_char(ret, values[known - names]);
        return true;
    }
    if (take(parser, "u"))
        return read_unicode(parser, 4, ret);
    if (take(parser, "U"))
        return read_unicode(parser, 8, ret);
    if (multi_line && skip_line_ending(parser))
        return true;
    return fail(parser, "an unknown escape in a string");
}

/* What follows the opening quote, up to and with the closing one. */
static bool read_line_string(struct parser *parser, char quote, struct strbuf *ret)
{
    for (;;) {
        int c = peek(parser);
        if (c == -1 || c == '\n' || c == '\r')
            return fail(parser, "a string is not closed");
        if (is_control(c))
            return fail(parser, "a control character in a string");
        parser->at++;
        if (c == quote)
            return true;
        if (c != '\\' || quote == '\'')
            strbuf_add_char(ret, (char)c);
        else if (!read_escape(parser, false, ret))
            return false;
    }
}

/* Three quotes end it; up to two more of them before those are its own. */
static bool read_closing_quotes(struct parser *parser, char quote, struct strbuf *ret,
                                bool *ret_closed)
{
    size_t count = 0;

    while (peek(parser) == quote && count < 5) {
        parser->at++;
        count++;
    }
    *ret_closed = count >= 3;
    for (size_t own = *ret_closed ? count - 3 : count; own > 0; own--)
        strbuf_add_char(ret, quote);
    return true;
}

static bool read_text(struct parser *parser, char quote, struct strbuf *ret)
{
    bool closed = false;

    take_newline(parser); /* right after the opening quotes it does not count */
    while (!closed) {
        int c = peek(parser);
        if (c == quote) {
            read_closing_quotes(parser, quote, ret, &closed);
        } else if (take_newline(parser)) {
            strbuf_add_char(ret, '\n');
        } else if (c == -1) {
            return fail(parser, "a string is not closed");
        } else if (is_control(c)) {
            return fail(parser, "a control character in a string");
        } else {
            parser->at++;
            if (c != '\\' || quote == '\'')
                strbuf_add_char(ret, (char)c);
            else if (!read_escape(parser, true, ret))
                return false;
        }
    }
    return true;
}

static bool read_string(struct parser *parser, bool may_have_lines, char **ret)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    char quote = *parser->at;
    const char *three = quote == '"' ? "\"\"\"" : "'''";
    bool ok;

    if (may_have_lines && take(parser, three)) {
        ok = read_text(parser, quote, &text);
    } else {
        parser->at++;
        ok = read_line_string(parser, quote, &text);
    }
    if (ok)
        *ret = strbuf_take(&text);
    return ok;
}

/* --- Words -------------------------------------------------------------------------------------
 */

/* The end of a word that is no string; a date may have a blank before its time. */
static const char *word_end(const struct parser *parser)
{
    const char *end = parser->at;

    while (end < parser->end && (isalnum((unsigned char)*end) || strchr("+-_.:", *end)) && *end)
        end++;
    if (end - parser->at == 10 && parser->at[4] == '-' && parser->end - end > 3 && end[0] == ' ' &&
        isdigit((unsigned char)end[1]) && isdigit((unsigned char)end[2]) && end[3] == ':') {
        end++;
        while (end < parser->end && *end && (isalnum((unsigned char)*end) || strchr("+-:.", *end)))
            end++;
    }
    return end;
}

static struct toml *parse_word(struct parser *parser)
{
    const char *end = word_end(parser);
    CLEANUP_FREE char *word = xstrndup(parser->at, (size_t)(end - parser->at));
    struct toml *value = new_value(parser, TOML_STRING);

    if (!value)
        return NULL;
    if (str_eq(word, "true") || str_eq(word, "false")) {
        value->kind = TOML_BOOLEAN;
        value->boolean = str_eq(word, "true");
    } else if (*word && toml_read_integer(parser->at, end, &value->integer)) {
        value->kind = TOML_INTEGER;
    } else if (toml_is_float(parser->at, end) || toml_is_date(word)) {
        value->kind = toml_is_date(word) ? TOML_DATE : TOML_FLOAT;
        value->text = TAKE(word);
    } else {
        fail(parser, *word ? "a value that is neither a string (in quotes), a number, a date, nor "
                             "true or false"
                           : "a value is missing");
        return toml_free(value);
    }
    parser->at = end;
    return value;
}

/* --- Arrays and tables ------------------------------------------------------------------------ */

static struct toml *parse_value(struct parser *parser);
static bool parse_pair(struct parser *parser, struct toml *table);

static struct toml *parse_array(struct parser *parser)
{
    CLEANUP(toml_cleanup) struct toml *array = new_value(parser, TOML_ARRAY);

    if (!array)
        return NULL;
    array->origin = TOML_CLOSED;
    parser->at++;
    for (;;) {
        struct toml *value;
        if (!skip_all(parser))
            return NULL;
        if (take(parser, "]"))
            return TAKE(array);
        value = parse_value(parser);
        if (!value)
            return NULL;
        add_child(array, value);
        if (!skip_all(parser))
            return NULL;
        if (!take(parser, ",") && peek(parser) != ']') {
            fail(parser, "an array lacks \",\" or \"]\"");
            return NULL;
        }
    }
}

/* Nothing can be added to what stands in braces. */
static void close_tables(struct toml *table)
{
    table->origin = TOML_CLOSED;
    for (size_t i = 0; i < table->count; i++)
        close_tables(table->children[i]);
}

static struct toml *parse_inline_table(struct parser *parser)
{
    CLEANUP(toml_cleanup) struct toml *table = new_value(parser, TOML_TABLE);

    if (!table)
        return NULL;
    parser->at++;
    skip_blanks(parser);
    if (take(parser, "}")) {
        close_tables(table);
        return TAKE(table);
    }
    for (;;) {
        skip_blanks(parser);
        if (!parse_pair(parser, table))
            return NULL;
        skip_blanks(parser);
        if (take(parser, "}")) {
            close_tables(table);
            return TAKE(table);
        }
        if (!take(parser, ",")) {
            fail(parser, "a table in braces lacks \",\" or \"}\"");
            return NULL;
        }
    }
}

static struct toml *parse_value(struct parser *parser)
{
    struct toml *value = NULL;
    int c = peek(parser);

    if (++parser->depth > TOML_MAX_DEPTH) {
        fail(parser, "values are nested too deep");
    } else if (c == '"' || c == '\'') {
        value = new_value(parser, TOML_STRING);
        if (value && !read_string(parser, true, &value->text))
            value = toml_free(value);
    } else if (c == '[') {
        value = parse_array(parser);
    } else if (c == '{') {
        value = parse_inline_table(parser);
    } else {
        value = parse_word(parser);
    }
    parser->depth--;
    return value;
}

/* --- Keys ------------------------------------------------------------------------------------- */

struct key {
    char *parts[TOML_MAX_DEPTH];
    size_t count;
};

static void key_done(struct key *key)
{
    for (size_t i = 0; i < key->count; i++)
        free(key->parts[i]);
}

static bool is_bare(int c)
{
    return c != -1 && (isalnum(c) || c == '-' || c == '_');
}

static bool parse_key_part(struct parser *parser, char **ret)
{
    const char *start = parser->at;

    if (peek(parser) == '"' || peek(parser) == '\'')
        return read_string(parser, false, ret);
    while (is_bare(peek(parser)))
        parser->at++;
    if (parser->at == start)
        return fail(parser, "a key is missing");
    *ret = xstrndup(start, (size_t)(parser->at - start));
    return true;
}

/* a."b.c".d */
static bool parse_key(struct parser *parser, struct key *ret)
{
    do {
        if (ret->count == TOML_MAX_DEPTH)
            return fail(parser, "a key has too many parts");
        skip_blanks(parser);
        if (!parse_key_part(parser, &ret->parts[ret->count]))
            return false;
        ret->count++;
        skip_blanks(parser);
    } while (take(parser, "."));
    return true;
}

static bool duplicate(const struct parser *parser, const char *key, const struct toml *first)
{
    return error_set(parser->err, ERROR_INVALID_ARGUMENT, "INVALID_CONFIG",
                     "%s:%u: \"%.100s\" is there already, in line %u", parser->name, parser->line,
                     key, first->line);
}

static struct toml *add_table(struct parser *parser, struct toml *parent, const char *key,
                              int origin)
{
    struct toml *table = new_value(parser, TOML_TABLE);

    if (!table)
        return NULL;
    table->key = xstrdup(key);
    table->origin = origin;
    return add_child(parent, table);
}

/* A table on the way of a dotted key: made, or one that an earlier dotted key made. */
static struct toml *step_by_dots(struct parser *parser, struct toml *table, const char *key)
{
    struct toml *next = toml_get(table, key);

    if (!next)
        return add_table(parser, table, key, TOML_BY_DOTS);
    if (next->kind == TOML_TABLE && next->origin == TOML_BY_DOTS)
        return next;
    duplicate(parser, key, next);
    return NULL;
}

/* key = value */
static bool parse_pair(struct parser *parser, struct toml *table)
{
    CLEANUP(key_done) struct key key = {.count = 0};
    struct toml *value;
    const char *last;

    if (!parse_key(parser, &key))
        return false;
    if (!take(parser, "="))
        return fail(parser, "\"=\" is missing after a key");
    for (size_t i = 0; i + 1 < key.count && table; i++)
        table = step_by_dots(parser, table, key.parts[i]);
    if (!table)
        return false;
    last = key.parts[key.count - 1];
    if (toml_get(table, last))
        return duplicate(parser, last, toml_get(table, last));
    skip_blanks(parser);
    value = parse_value(parser);
    if (!value)
        return false;
    value->key = xstrdup(last);
    add_child(table, value);
    return true;
}

/* --- Headers ---------------------------------------------------------------------------------- */

/* A table on the way of a header: made, any that is not closed, or the last of several. */
static struct toml *step_by_header(struct parser *parser, struct toml *table, const char *key)
{
    struct toml *next = toml_get(table, key);

    if (!next)
        return add_table(parser, table, key, TOML_IMPLIED);
    if (next->kind == TOML_ARRAY && next->origin != TOML_CLOSED)
        return next->children[next->count - 1];
    if (next->kind == TOML_TABLE && next->origin != TOML_CLOSED)
        return next;
    duplicate(parser, key, next);
    return NULL;
}

/* [table] */
static struct toml *open_table(struct parser *parser, struct toml *parent, const char *key)
{
    struct toml *table = toml_get(parent, key);

    if (!table)
        return add_table(parser, parent, key, TOML_BY_HEADER);
    if (table->kind == TOML_TABLE && table->origin == TOML_IMPLIED) {
        table->origin = TOML_BY_HEADER;
        return table;
    }
    duplicate(parser, key, table);
    return NULL;
}

/* [[table]] */
static struct toml *open_element(struct parser *parser, struct toml *parent, const char *key)
{
    struct toml *array = toml_get(parent, key), *table;

    if (!array) {
        array = new_value(parser, TOML_ARRAY);
        if (!array)
            return NULL;
        array->key = xstrdup(key);
        add_child(parent, array);
    } else if (array->kind != TOML_ARRAY || array->origin == TOML_CLOSED) {
        duplicate(parser, key, array);
        return NULL;
    }
    table = new_value(parser, TOML_TABLE);
    if (!table)
        return NULL;
    table->origin = TOML_BY_HEADER;
    return add_child(array, table);
}

static struct toml *parse_header(struct parser *parser, struct toml *root)
{
    CLEANUP(key_done) struct key key = {.count = 0};
    struct toml *table = root;
    bool element = take(parser, "[[");

    if (!element)
        parser->at++;
    if (!parse_key(parser, &key))
        return NULL;
    if (!take(parser, element ? "]]" : "]")) {
        fail(parser, "the name of a table is not closed");
        return NULL;
    }
    for (size_t i = 0; i + 1 < key.count && table; i++)
        table = step_by_header(parser, table, key.parts[i]);
    if (table && element)
        table = open_element(parser, table, key.parts[key.count - 1]);
    else if (table)
        table = open_table(parser, table, key.parts[key.count - 1]);
    return table;
}

/* --- The document ----------------------------------------------------------------------------- */

static bool check_utf8(struct parser *parser)
{
    const unsigned char *text = (const unsigned char *)parser->at;
    size_t left = (size_t)(parser->end - parser->at);

    while (left > 0) {
        size_t length = toml_utf8_length(text, left);
        if (length == 0)
            return fail(parser, "it is not valid UTF-8");
        parser->line += *text == '\n';
        text += length;
        left -= length;
    }
    parser->line = 1;
    return true;
}

static bool parse_document(struct parser *parser, struct toml *root)
{
    struct toml *table = root;

    take(parser, "\xef\xbb\xbf");
    if (!check_utf8(parser))
        return false;
    for (;;) {
        if (!skip_all(parser))
            return false;
        if (peek(parser) == -1)
            return true;
        if (peek(parser) == '[') {
            table = parse_header(parser, root);
            if (!table)
                return false;
        } else if (!parse_pair(parser, table)) {
            return false;
        }
        if (!end_of_line(parser))
            return false;
    }
}

struct toml *toml_parse(const char *text, size_t size, const char *name, struct error *err)
{
    struct parser parser = {.at = text, .end = text + size, .name = name, .line = 1, .err = err};
    CLEANUP(toml_cleanup) struct toml *root = NULL;

    if (size > TOML_MAX_BYTES) {
        error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_CONFIG", "%s: it is larger than 1 MiB",
                  name);
        return NULL;
    }
    root = new_value(&parser, TOML_TABLE);
    root->origin = TOML_BY_HEADER;
    return parse_document(&parser, root) ? TAKE(root) : NULL;
}
