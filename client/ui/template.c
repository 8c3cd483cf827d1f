#include "client/ui/template.h"

#include <ctype.h>
#include <stdio.h>

#include "client/ui/json_indent.h"
#include "client/ui/table.h"
#include "client/ui/terminal.h"

#define DEPTH_MAX 32
#define ARGUMENTS_MAX 8

/* --- What a template is made of ---------------------------------------------------------------
 */

enum node_kind { NODE_TEXT, NODE_VALUE, NODE_IF, NODE_RANGE };

struct node {
    enum node_kind kind;
    char *text;        /* NODE_TEXT; else the expression */
    struct node *body; /* NODE_IF, NODE_RANGE */
    struct node *otherwise;
    struct node *next;
};

struct template
{
    struct node *first;
};

static void nodes_free(struct node *node)
{
    while (node) {
        struct node *next = node->next;
        nodes_free(node->body);
        nodes_free(node->otherwise);
        free(node->text);
        free(node);
        node = next;
    }
}

struct template *template_free(struct template *template)
{
    if (template)
        nodes_free(template->first);
    free(template);
    return NULL;
}

static bool bad(struct error *err, const char *format, ...) PRINTF_LIKE(2, 3);

static bool bad(struct error *err, const char *format, ...)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    va_list args;

    va_start(args, format);
    strbuf_vaddf(&text, format, args);
    va_end(args);
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_TEMPLATE",
                     "template parsing error: template: %s", strbuf_text(&text));
}

/* --- Values -----------------------------------------------------------------------------------
 */

/* An expression that is being worked out, or, without data, only looked through for mistakes. */
struct expression {
    const char *next;
    const json_t *data;
    unsigned depth;
    struct error *err;
};

static bool is_true(const json_t *value)
{
    if (json_is_string(value))
        return json_string_length(value) > 0;
    if (json_is_integer(value))
        return json_integer_value(value) != 0;
    if (json_is_array(value) || json_is_object(value))
        return json_array_size(value) + json_object_size(value) > 0;
    return json_is_true(value) || json_is_real(value);
}

static void add_json(struct strbuf *out, const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);

    if (text)
        add_json_safe(out, text, strlen(text));
    free(text);
}

/* As it is shown, not yet made printable. */
static char *value_text(const json_t *value)
{
    CLEANUP_STRBUF struct strbuf text = {0};

    if (json_is_string(value))
        return xstrdup(json_string_value(value));
    if (!value || json_is_null(value))
        return xstrdup("<no value>");
    add_json(&text, value);
    return strbuf_take(&text);
}

/* --- Functions --------------------------------------------------------------------------------
 */

static json_t *text_value(char *text)
{
    json_t *value = json_string(text);

    free(text);
    return value;
}

static json_t *do_json(json_t *const *arguments)
{
    CLEANUP_STRBUF struct strbuf text = {0};

    add_json(&text, arguments[0]);
    return json_string(strbuf_text(&text));
}

static json_t *change_case(const json_t *value, int (*change)(int), bool only_first)
{
    char *text = value_text(value);
    bool first = true;

    for (char *c = text; *c; c++) {
        if ((first || !only_first) && !(*c & 0x80))
            *c = (char)change((unsigned char)*c);
        first = *c == ' ';
    }
    return text_value(text);
}

static json_t *do_lower(json_t *const *arguments)
{
    return change_case(arguments[0], tolower, false);
}

static json_t *do_upper(json_t *const *arguments)
{
    return change_case(arguments[0], toupper, false);
}

static json_t *do_title(json_t *const *arguments)
{
    return change_case(arguments[0], toupper, true);
}

/* To so many characters, not bytes. */
static json_t *do_truncate(json_t *const *arguments)
{
    char *text = value_text(arguments[0]);
    json_int_t left = json_integer_value(arguments[1]);
    char *c = text;

    while (*c && left-- > 0) {
        c++;
        while ((*c & 0xc0) == 0x80)
            c++;
    }
    *c = '\0';
    return text_value(text);
}

/* Blanks before and after. */
static json_t *do_pad(json_t *const *arguments)
{
    CLEANUP_FREE char *text = value_text(arguments[0]);
    const int before = (int)MIN(MAX(json_integer_value(arguments[1]), 0), 1000);
    const int after = (int)MIN(MAX(json_integer_value(arguments[2]), 0), 1000);

    return *text ? text_value(xasprintf("%*s%s%*s", before, "", text, after, "")) : json_string("");
}

static json_t *do_join(json_t *const *arguments)
{
    CLEANUP_STRBUF struct strbuf out = {0};
    CLEANUP_FREE char *between = value_text(arguments[1]);

    for (size_t i = 0; i < json_array_size(arguments[0]); i++) {
        CLEANUP_FREE char *text = value_text(json_array_get(arguments[0], i));
        strbuf_addf(&out, "%s%s", i ? between : "", text);
    }
    return json_string(strbuf_text(&out));
}

static json_t *do_split(json_t *const *arguments)
{
    CLEANUP_FREE char *text = value_text(arguments[0]);
    CLEANUP_FREE char *separator = value_text(arguments[1]);
    json_t *list = json_array();
    char *start = text, *found;

    while (*separator && (found = strstr(start, separator))) {
        *found = '\0';
        json_array_append_new(list, json_string(start));
        start = found + strlen(separator);
    }
    json_array_append_new(list, json_string(start));
    return list;
}

static json_t *do_len(json_t *const *arguments)
{
    const json_t *value = arguments[0];
    const size_t length =
        json_string_length(value) + json_array_size(value) + json_object_size(value);

    return json_integer((json_int_t)length);
}

static json_t *do_eq(json_t *const *arguments)
{
    CLEANUP_FREE char *a = value_text(arguments[0]);
    CLEANUP_FREE char *b = value_text(arguments[1]);

    return json_boolean(str_eq(a, b));
}

static json_t *do_ne(json_t *const *arguments)
{
    CLEANUP_JSON json_t *same = do_eq(arguments);

    return json_boolean(!json_is_true(same));
}

static json_t *do_not(json_t *const *arguments)
{
    return json_boolean(!is_true(arguments[0]));
}

static json_t *do_println(json_t *const *arguments)
{
    return text_value(value_text(arguments[0]));
}

static const struct function {
    const char *name;
    unsigned arguments;
    json_t *(*call)(json_t *const *arguments);
} functions[] = {
    {"json", 1, do_json},
    {"lower", 1, do_lower},
    {"upper", 1, do_upper},
    {"title", 1, do_title},
    {"truncate", 2, do_truncate},
    {"pad", 3, do_pad},
    {"join", 2, do_join},
    {"split", 2, do_split},
    {"len", 1, do_len},
    {"eq", 2, do_eq},
    {"ne", 2, do_ne},
    {"not", 1, do_not},
    {"println", 1, do_println},
};

/* --- Expressions ------------------------------------------------------------------------------
 */

static json_t *evaluate_pipe(struct expression *expression);

static void skip_blanks(struct expression *expression)
{
    while (isspace((unsigned char)*expression->next))
        expression->next++;
}

static bool is_name(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* ".", ".Field", ".Field.Sub" */
static json_t *evaluate_field(struct expression *expression)
{
    const json_t *value = expression->data;

    while (*expression->next == '.') {
        const size_t length =
            strspn(++expression->next, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                       "0123456789_");
        CLEANUP_FREE char *name = xstrndup(expression->next, length);
        expression->next += length;
        if (length == 0)
            break;
        if (!expression->data)
            continue;
        value = json_object_get(value, name);
        if (!value) {
            bad(expression->err, ":1: executing \"\" at <.%s>: can't evaluate field %s", name,
                name);
            return NULL;
        }
    }
    return value ? json_incref((json_t *)value) : json_null();
}

static json_t *evaluate_text(struct expression *expression)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    const char quote = *expression->next++;

    while (*expression->next && *expression->next != quote) {
        char c = *expression->next++;
        if (c == '\\' && quote == '"' && *expression->next) {
            c = *expression->next++;
            c = c == 'n' ? '\n' : c == 't' ? '\t' : c;
        }
        strbuf_add_char(&text, c);
    }
    if (*expression->next != quote) {
        bad(expression->err, ":1: unterminated quoted string");
        return NULL;
    }
    expression->next++;
    return json_string(strbuf_text(&text));
}

static json_t *evaluate_brackets(struct expression *expression)
{
    json_t *value;

    expression->next++;
    value = evaluate_pipe(expression);
    skip_blanks(expression);
    if (value && *expression->next != ')') {
        bad(expression->err, ":1: unclosed left paren");
        json_decref(value);
        return NULL;
    }
    if (value)
        expression->next++;
    return value;
}

static json_t *evaluate_operand(struct expression *expression)
{
    const char *start = expression->next;
    char *end;

    if (*start == '.')
        return evaluate_field(expression);
    if (*start == '"' || *start == '`')
        return evaluate_text(expression);
    if (*start == '(')
        return evaluate_brackets(expression);
    if (isdigit((unsigned char)*start) || *start == '-') {
        const long long number = strtoll(start, &end, 10);
        expression->next = end > start ? end : start + 1;
        return json_integer(number);
    }
    for (int truth = 0; truth <= 1; truth++) {
        const char *word = truth ? "true" : "false";
        const size_t length = strlen(word);
        if (strncmp(start, word, length) == 0 && !is_name(start[length])) {
            expression->next += length;
            return json_boolean(truth);
        }
    }
    bad(expression->err, ":1: unexpected \"%.20s\" in operand", start);
    return NULL;
}

static const struct function *find_function(struct expression *expression)
{
    const char *start = expression->next;
    size_t length = 0;

    while (is_name(start[length]))
        length++;
    for (size_t i = 0; length && i < ARRAY_SIZE(functions); i++) {
        if (strncmp(functions[i].name, start, length) == 0 && !functions[i].name[length]) {
            expression->next += length;
            return &functions[i];
        }
    }
    if (isalpha((unsigned char)*start) && strncmp(start, "true", 4) != 0 &&
        strncmp(start, "false", 5) != 0)
        bad(expression->err, ":1: function \"%.*s\" not defined", (int)MIN(length, 40U), start);
    return NULL;
}

static bool at_end(struct expression *expression)
{
    skip_blanks(expression);
    return !*expression->next || *expression->next == '|' || *expression->next == ')';
}

/* A function with its arguments, the last of which may come through a pipe; or one operand. Takes
 * what was piped. */
static json_t *evaluate_command(struct expression *expression, json_t *piped)
{
    json_t *arguments[ARGUMENTS_MAX] = {NULL}, *result = NULL;
    unsigned count = 0;
    const struct function *function;

    skip_blanks(expression);
    function = find_function(expression);
    while (!error_is_set(expression->err) && !at_end(expression) && count < ARGUMENTS_MAX - 1) {
        arguments[count] = evaluate_operand(expression);
        if (!arguments[count])
            break;
        count++;
    }
    if (piped)
        arguments[count++] = piped;
    if (error_is_set(expression->err))
        ;
    else if (!at_end(expression) || (count == 0 && !function))
        bad(expression->err, ":1: missing value for command");
    else if (!function && count != 1)
        bad(expression->err, ":1: can't give argument to non-function");
    else if (function && count != function->arguments)
        bad(expression->err, ":1: wrong number of args for %s: want %u got %u", function->name,
            function->arguments, count);
    else if (function)
        result = expression->data ? function->call(arguments) : json_null();
    else
        result = json_incref(arguments[0]);
    for (unsigned i = 0; i < count; i++)
        json_decref(arguments[i]);
    return result;
}

static json_t *evaluate_pipe(struct expression *expression)
{
    json_t *value;

    if (expression->depth >= DEPTH_MAX) {
        bad(expression->err, ":1: nested too deep");
        return NULL;
    }
    expression->depth++;
    value = evaluate_command(expression, NULL);
    while (value && *expression->next == '|') {
        expression->next++;
        value = evaluate_command(expression, value);
    }
    expression->depth--;
    return value;
}

/* The caller releases the result. Without data it is of no use but that it exists. */
static json_t *evaluate(const char *text, const json_t *data, struct error *err)
{
    struct expression expression = {.next = text, .data = data, .err = err};
    json_t *value = evaluate_pipe(&expression);

    if (!value || *expression.next == '\0')
        return value;
    json_decref(value);
    bad(err, ":1: unexpected \"%.20s\" in command", expression.next);
    return NULL;
}

/* --- Parsing ----------------------------------------------------------------------------------
 */

struct parser {
    const char *next;
    bool trim_next; /* "-}}" came before */
    unsigned depth;
};

static struct node *node_new(enum node_kind kind, char *text)
{
    struct node *node = xcalloc(1, sizeof(*node));

    node->kind = kind;
    node->text = text;
    return node;
}

static const char blanks[] = " \t\r\n";

/* Up to the next action. */
static struct node *parse_text(struct parser *parser)
{
    const char *start = parser->next, *end = strstr(start, "{{");
    size_t length = end ? (size_t)(end - start) : strlen(start);

    parser->next += length;
    if (parser->trim_next) {
        const size_t skipped = MIN(strspn(start, blanks), length);
        start += skipped;
        length -= skipped;
    }
    while (end && end[2] == '-' && length > 0 && strchr(blanks, start[length - 1]))
        length--;
    parser->trim_next = false;
    return node_new(NODE_TEXT, xstrndup(start, length));
}

/* Where an action ends: quotes may have braces in them. */
static const char *find_end(const char *start)
{
    char quote = '\0';

    for (const char *c = start; *c; c++) {
        if (quote && *c == '\\' && quote == '"' && c[1])
            c++;
        else if (quote)
            quote = *c == quote ? '\0' : quote;
        else if (*c == '"' || *c == '`')
            quote = *c;
        else if (c[0] == '}' && c[1] == '}')
            return c;
    }
    return NULL;
}

/* What stands between the braces, without blanks around it. The caller frees it. */
static char *take_action(struct parser *parser, struct error *err)
{
    const char *start = parser->next + 2, *end = find_end(start);
    size_t length;

    if (!end) {
        bad(err, ":1: unclosed action");
        return NULL;
    }
    parser->next = end + 2;
    parser->trim_next = end > start && end[-1] == '-';
    start += *start == '-';
    end -= parser->trim_next && end > start;
    length = (size_t)(end - start);
    while (length > 0 && isspace((unsigned char)*start)) {
        start++;
        length--;
    }
    while (length > 0 && isspace((unsigned char)start[length - 1]))
        length--;
    return xstrndup(start, length);
}

static bool parse_nodes(struct parser *parser, struct node **ret, char **ret_word,
                        struct error *err);

static bool is_word(const char *action, const char *word)
{
    return str_starts(action, word) && !is_name(action[strlen(word)]);
}

/* {{if}} or {{range}} up to its {{end}}. */
static struct node *parse_block(struct parser *parser, enum node_kind kind, const char *condition,
                                struct error *err)
{
    CLEANUP_FREE char *word = NULL;
    CLEANUP_JSON json_t *checked = evaluate(condition, NULL, err);
    struct node *node = node_new(kind, xstrdup(condition));

    if (!checked)
        return node;
    if (!parse_nodes(parser, &node->body, &word, err))
        return node;
    if (str_eq(word, "else")) {
        free(TAKE(word));
        parse_nodes(parser, &node->otherwise, &word, err);
    }
    if (!error_is_set(err) && !str_eq(word, "end"))
        bad(err, ":1: unexpected EOF");
    return node;
}

static struct node *parse_action(struct parser *parser, const char *action, struct error *err)
{
    if (str_starts(action, "/*"))
        return node_new(NODE_TEXT, xstrdup(""));
    if (is_word(action, "if"))
        return parse_block(parser, NODE_IF, action + strlen("if"), err);
    if (is_word(action, "range"))
        return parse_block(parser, NODE_RANGE, action + strlen("range"), err);
    CLEANUP_JSON json_t *checked = evaluate(action, NULL, err);
    return node_new(NODE_VALUE, xstrdup(action));
}

/* Until the end, or an {{else}} or {{end}}, which is then *ret_word. */
static bool parse_nodes(struct parser *parser, struct node **ret, char **ret_word,
                        struct error *err)
{
    struct node **end = ret;

    if (parser->depth >= DEPTH_MAX)
        return bad(err, ":1: nested too deep");
    parser->depth++;
    while (*parser->next && !error_is_set(err)) {
        if (!str_starts(parser->next, "{{")) {
            *end = parse_text(parser);
        } else {
            CLEANUP_FREE char *action = take_action(parser, err);
            if (!action)
                break;
            if (str_eq(action, "end") || str_eq(action, "else")) {
                *ret_word = TAKE(action);
                break;
            }
            *end = parse_action(parser, action, err);
        }
        end = &(*end)->next;
    }
    parser->depth--;
    return !error_is_set(err);
}

struct template *template_parse(const char *text, struct error *err)
{
    CLEANUP(template_cleanup) struct template *template = xcalloc(1, sizeof(*template));
    CLEANUP_FREE char *word = NULL;
    CLEANUP_ERROR struct error problem = {0};
    struct parser parser = {.next = text};

    if (parse_nodes(&parser, &template->first, &word, &problem) && word)
        bad(&problem, ":1: unexpected {{%s}}", word);
    if (!error_is_set(&problem))
        return TAKE(template);
    error_move(err, &problem);
    return NULL;
}

/* --- Rendering --------------------------------------------------------------------------------
 */

static bool render_nodes(const struct node *node, const json_t *data, struct strbuf *out,
                         struct error *err);

static bool render_node(const struct node *node, const json_t *data, struct strbuf *out,
                        struct error *err)
{
    CLEANUP_JSON json_t *value = NULL;

    if (node->kind == NODE_TEXT) {
        strbuf_add_str(out, node->text);
        return true;
    }
    value = evaluate(node->text, data, err);
    if (!value)
        return false;
    if (node->kind == NODE_IF)
        return render_nodes(is_true(value) ? node->body : node->otherwise, data, out, err);
    if (node->kind == NODE_RANGE) {
        for (size_t i = 0; i < json_array_size(value); i++) {
            if (!render_nodes(node->body, json_array_get(value, i), out, err))
                return false;
        }
        return json_array_size(value) > 0 || render_nodes(node->otherwise, data, out, err);
    }
    CLEANUP_FREE char *text = value_text(value);
    if (strchr("\"`", node->text[0]) && !strchr(node->text, '|'))
        strbuf_add_str(out, text); /* the user's own */
    else
        strbuf_add_printable(out, text);
    if (is_word(node->text, "println"))
        strbuf_add_char(out, '\n');
    return true;
}

static bool render_nodes(const struct node *node, const json_t *data, struct strbuf *out,
                         struct error *err)
{
    for (; node; node = node->next) {
        if (!render_node(node, data, out, err))
            return false;
    }
    return true;
}

bool template_render(const struct template *template, const json_t *data, struct strbuf *out,
                     struct error *err)
{
    CLEANUP_ERROR struct error problem = {0};

    return render_nodes(template->first, data, out, &problem) || error_move(err, &problem);
}

/* --- Formats ----------------------------------------------------------------------------------
 */

/* "\t" and "\n" as they come from a shell's quotes. */
static char *unescaped(const char *text)
{
    CLEANUP_STRBUF struct strbuf out = {0};

    for (; *text; text++) {
        const bool escape = text[0] == '\\' && (text[1] == 't' || text[1] == 'n');
        strbuf_add_char(&out, !escape ? *text : text[1] == 't' ? '\t' : '\n');
        text += escape;
    }
    return strbuf_take(&out);
}

static void add_table_row(struct table *table, char *line)
{
    CLEANUP_FREE const char **cells = xcalloc(table->columns, sizeof(*cells));

    for (size_t i = 0; i < table->columns; i++)
        cells[i] = line ? strsep(&line, "\t") : "";
    table_row(table, cells);
}

static bool format_table(const struct format *format, const char *columns, const json_t *rows,
                         struct strbuf *out, struct error *err)
{
    CLEANUP(template_cleanup) struct template *template = template_parse(columns, err);
    CLEANUP_JSON json_t *headings = json_object();
    CLEANUP_TABLE struct table table;
    size_t count = 1;

    for (const char *c = columns; *c; c++)
        count += *c == '\t';
    table_init(&table, count);
    for (size_t i = 0; i < format->column_count; i++)
        json_object_set_new(headings, format->columns[i].field,
                            json_string(format->columns[i].heading));
    for (size_t i = 0; template && i <= json_array_size(rows); i++) {
        CLEANUP_STRBUF struct strbuf line = {0};
        const json_t *row = i ? json_array_get(rows, i - 1) : headings;
        if (!template_render(template, row, &line, err))
            return false;
        strbuf_add_str(&line, "");
        add_table_row(&table, line.data);
    }
    if (template)
        table_print(&table, out);
    return template != NULL;
}

bool format_rows(const struct format *format, const json_t *rows, struct strbuf *out,
                 struct error *err)
{
    CLEANUP_FREE char *text = unescaped(format->text ? format->text : "table");

    if (str_eq(text, "table"))
        return format_table(format, format->table, rows, out, err);
    if (str_starts(text, "table "))
        return format_table(format, text + strlen("table "), rows, out, err);
    CLEANUP(template_cleanup)
    struct template *template = template_parse(str_eq(text, "json") ? "{{json .}}" : text, err);
    for (size_t i = 0; template && i < json_array_size(rows); i++) {
        if (!template_render(template, json_array_get(rows, i), out, err))
            return false;
        strbuf_add_char(out, '\n');
    }
    return template != NULL;
}
