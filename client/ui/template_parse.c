/* Makes nodes of tokens, with Go's grammar and its words for what is wrong. */
#include <stdio.h>

#include "client/ui/template_lex.h"
#include "client/ui/template_node.h"
#include "client/ui/template_number.h"

struct parser {
    struct template *template;
    struct lexer lexer;
    struct token tokens[3]; /* that were looked at ahead; [0] is the last that was read */
    unsigned ahead;
    char **variables; /* that are known here */
    size_t variable_count;
    unsigned depth, range_depth;
    unsigned action_line; /* where the action began that is read, or 0 */
    struct error *err;
};

#define CLEANUP_NODE CLEANUP(node_cleanup)

static void node_cleanup(struct node **node)
{
    node_free(*node);
}

/* --- Errors ------------------------------------------------------------------------------------
 */

static bool failed(const struct parser *parser)
{
    return error_is_set(parser->err);
}

/* Only the first is kept. NULL. */
static void *bad(struct parser *parser, const char *format, ...) PRINTF_LIKE(2, 3);

static void *bad(struct parser *parser, const char *format, ...)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    va_list args;

    if (failed(parser))
        return NULL;
    va_start(args, format);
    strbuf_vaddf(&text, format, args);
    va_end(args);
    error_set(parser->err, ERROR_INVALID_ARGUMENT, "INVALID_TEMPLATE",
              "template parsing error: template: %s:%u: %s", parser->template->name,
              parser->tokens[0].line, strbuf_text(&text));
    return NULL;
}

static void *unexpected(struct parser *parser, const struct token *token, const char *context)
{
    CLEANUP_STRBUF struct strbuf text = {0};

    token_describe(token, &text);
    if (token->kind != TOKEN_ERROR)
        return bad(parser, "unexpected %s in %s", strbuf_text(&text), context);
    if (parser->action_line && parser->action_line != token->line)
        strbuf_addf(&text, "%s started at %s:%u",
                    str_ends(strbuf_text(&text), " action") ? "" : " in action",
                    parser->template->name, parser->action_line);
    return bad(parser, "%s", strbuf_text(&text));
}

/* --- Tokens ------------------------------------------------------------------------------------
 */

static struct token next(struct parser *parser)
{
    if (parser->ahead)
        parser->ahead--;
    else
        parser->tokens[0] = lexer_next(&parser->lexer);
    return parser->tokens[parser->ahead];
}

static void back(struct parser *parser)
{
    parser->ahead++;
}

/* Puts back two, of which the last is still there. */
static void back_two(struct parser *parser, struct token before)
{
    parser->tokens[1] = before;
    parser->ahead = 2;
}

static void back_three(struct parser *parser, struct token first, struct token second)
{
    parser->tokens[1] = second;
    parser->tokens[2] = first;
    parser->ahead = 3;
}

static struct token peek(struct parser *parser)
{
    const struct token token = next(parser);

    back(parser);
    return token;
}

static struct token next_word(struct parser *parser)
{
    struct token token;

    do
        token = next(parser);
    while (token.kind == TOKEN_SPACE);
    return token;
}

static struct token peek_word(struct parser *parser)
{
    const struct token token = next_word(parser);

    back(parser);
    return token;
}

static bool expect(struct parser *parser, enum token_kind kind, const char *context)
{
    const struct token token = next_word(parser);

    return token.kind == kind || unexpected(parser, &token, context);
}

/* --- Nodes -------------------------------------------------------------------------------------
 */

static struct node *node_new(enum node_kind kind, size_t position)
{
    struct node *node = xcalloc(1, sizeof(*node));

    node->kind = kind;
    node->position = position;
    return node;
}

static struct node *node_of(enum node_kind kind, const struct token *token)
{
    struct node *node = node_new(kind, token->position);

    node->text = xcalloc(1, token->length + 1);
    memcpy(node->text, token->text, token->length);
    node->length = token->length;
    return node;
}

static void declare(struct parser *parser, struct node *pipe, const struct token *variable)
{
    struct node *node = node_of(NODE_VARIABLE, variable);

    strv_add(&node->names, node->text);
    if (pipe->declarations) /* no more than two */
        pipe->declarations->next = node;
    else
        pipe->declarations = node;
    strv_add(&parser->variables, node->text);
    parser->variable_count++;
}

static void forget_variables(struct parser *parser, size_t count)
{
    while (parser->variable_count > count) {
        free(parser->variables[--parser->variable_count]);
        parser->variables[parser->variable_count] = NULL;
    }
}

static bool enter(struct parser *parser)
{
    if (++parser->depth > TEMPLATE_DEPTH_MAX)
        bad(parser, "nested too deep: the limit is %d levels", TEMPLATE_DEPTH_MAX);
    return !failed(parser);
}

/* --- Expressions -------------------------------------------------------------------------------
 */

static struct node *parse_pipeline(struct parser *parser, const char *context, enum token_kind end);

static struct node *parse_variable(struct parser *parser, const struct token *token)
{
    struct node *node = node_of(NODE_VARIABLE, token);

    strv_add(&node->names, node->text);
    for (size_t i = 0; i < parser->variable_count; i++) {
        if (str_eq(parser->variables[i], node->text))
            return node;
    }
    bad(parser, "undefined variable \"%s\"", node->text);
    node_free(node);
    return NULL;
}

static struct node *parse_number(struct parser *parser, const struct token *token)
{
    struct node *node = node_of(NODE_NUMBER, token);
    CLEANUP_FREE char *problem = NULL;

    if (number_parse(token, &node->number, &problem))
        return node;
    bad(parser, "%s", problem);
    node_free(node);
    return NULL;
}

static struct node *parse_string(struct parser *parser, const struct token *token)
{
    struct node *node = node_of(NODE_STRING, token);

    node->value = string_unquote(token->text, token->length, &node->value_length);
    if (node->value)
        return node;
    bad(parser, "invalid syntax");
    node_free(node);
    return NULL;
}

static struct node *parse_identifier(struct parser *parser, const struct token *token)
{
    if (template_has_function(token->text, token->length))
        return node_of(NODE_IDENTIFIER, token);
    return bad(parser, "function \"%.*s\" not defined", (int)token->length, token->text);
}

static struct node *parse_field(const struct token *token)
{
    struct node *node = node_of(NODE_FIELD, token);

    strv_add(&node->names, node->text + 1);
    return node;
}

/* A word, or a pipeline in parentheses. NULL: neither, or an error. */
static struct node *parse_term(struct parser *parser)
{
    const struct token token = next_word(parser);
    struct node *node = NULL;

    switch (token.kind) {
    case TOKEN_IDENTIFIER:
        return parse_identifier(parser, &token);
    case TOKEN_DOT:
        return node_of(NODE_DOT, &token);
    case TOKEN_NIL:
        return node_of(NODE_NIL, &token);
    case TOKEN_VARIABLE:
        return parse_variable(parser, &token);
    case TOKEN_FIELD:
        return parse_field(&token);
    case TOKEN_BOOL:
        node = node_of(NODE_BOOL, &token);
        node->truth = str_eq(node->text, "true");
        return node;
    case TOKEN_CHARACTER_CONSTANT:
    case TOKEN_COMPLEX:
    case TOKEN_NUMBER:
        return parse_number(parser, &token);
    case TOKEN_LEFT_PAREN:
        return parse_pipeline(parser, "parenthesized pipeline", TOKEN_RIGHT_PAREN);
    case TOKEN_STRING:
    case TOKEN_RAW_STRING:
        return parse_string(parser, &token);
    default:
        back(parser);
        return NULL;
    }
}

/* A term with the fields that follow it. */
static struct node *parse_operand(struct parser *parser)
{
    CLEANUP_NODE struct node *node = parse_term(parser);
    struct node *chain;
    struct token token;
    size_t room = 0; /* for names */

    if (!node || failed(parser))
        return NULL;
    token = peek(parser);
    if (token.kind != TOKEN_FIELD)
        return TAKE(node);
    if (node->kind >= NODE_DOT) {
        CLEANUP_STRBUF struct strbuf text = {0};
        add_go_quoted(&text, node->text, node->length);
        return bad(parser, "unexpected . after term %s", strbuf_text(&text));
    }
    if (node->kind == NODE_FIELD || node->kind == NODE_VARIABLE) {
        chain = TAKE(node);
        chain->position = token.position;
    } else {
        chain = node_new(NODE_CHAIN, token.position);
        chain->children = TAKE(node);
    }
    for (size_t count = strv_count(chain->names); peek(parser).kind == TOKEN_FIELD; count++) {
        token = next(parser);
        if (count + 2 > room)
            chain->names = xrealloc(chain->names, (room = 2 * count + 2) * sizeof(*chain->names));
        chain->names[count] = xstrndup(token.text + 1, token.length - 1);
        chain->names[count + 1] = NULL;
    }
    return chain;
}

/* Operands up to a pipe, which is taken, or the end, which is not. */
static struct node *parse_command(struct parser *parser)
{
    CLEANUP_NODE struct node *command = node_new(NODE_COMMAND, peek_word(parser).position);
    struct node **last = &command->children;
    struct token token;

    do {
        peek_word(parser);
        struct node *operand = parse_operand(parser);
        if (failed(parser))
            return NULL;
        if (operand) {
            *last = operand;
            last = &operand->next;
        }
        token = next(parser);
    } while (token.kind == TOKEN_SPACE);
    if (token.kind == TOKEN_RIGHT_DELIMITER || token.kind == TOKEN_RIGHT_PAREN)
        back(parser);
    else if (token.kind != TOKEN_PIPE)
        return unexpected(parser, &token, "operand");
    if (!command->children)
        return bad(parser, "empty command");
    return TAKE(command);
}

/* "$x :=", "$x =", in a range "$i, $x :=". True if another variable may follow. */
static bool parse_declaration(struct parser *parser, struct node *pipe, const char *context)
{
    const struct token variable = next(parser), after = peek(parser);
    const struct token word = peek_word(parser);
    enum token_kind following;

    if (word.kind == TOKEN_ASSIGN || word.kind == TOKEN_DECLARE) {
        pipe->is_assignment = word.kind == TOKEN_ASSIGN;
        next_word(parser);
        declare(parser, pipe, &variable);
    } else if (word.kind == TOKEN_CHARACTER && *word.text == ',') {
        next_word(parser);
        declare(parser, pipe, &variable);
        if (!str_eq(context, "range") || pipe->declarations->next)
            return bad(parser, "too many declarations in %s", context);
        following = peek_word(parser).kind;
        return following == TOKEN_VARIABLE || following == TOKEN_RIGHT_DELIMITER ||
               following == TOKEN_RIGHT_PAREN || bad(parser, "range can only initialize variables");
    } else if (after.kind == TOKEN_SPACE) {
        back_three(parser, variable, after);
    } else {
        back_two(parser, variable);
    }
    return false;
}

static struct node *check_pipeline(struct parser *parser, struct node *pipe, const char *context)
{
    unsigned stage = 1;

    if (!pipe->children)
        return bad(parser, "missing value for %s", context);
    for (struct node *command = pipe->children->next; command; command = command->next) {
        stage++;
        if (command->children->kind >= NODE_DOT)
            return bad(parser, "non executable command in pipeline stage %u", stage);
    }
    return pipe;
}

static struct node *parse_pipeline(struct parser *parser, const char *context, enum token_kind end)
{
    CLEANUP_NODE struct node *pipe = node_new(NODE_PIPE, peek_word(parser).position);
    struct node **last = &pipe->children;

    if (!enter(parser))
        return NULL;
    while (peek_word(parser).kind == TOKEN_VARIABLE && parse_declaration(parser, pipe, context))
        ;
    while (!failed(parser)) {
        const struct token token = next_word(parser);
        if (token.kind == end) {
            parser->depth--;
            return check_pipeline(parser, pipe, context) ? TAKE(pipe) : NULL;
        }
        switch (token.kind) {
        case TOKEN_BOOL:
        case TOKEN_CHARACTER_CONSTANT:
        case TOKEN_COMPLEX:
        case TOKEN_DOT:
        case TOKEN_FIELD:
        case TOKEN_IDENTIFIER:
        case TOKEN_NUMBER:
        case TOKEN_NIL:
        case TOKEN_RAW_STRING:
        case TOKEN_STRING:
        case TOKEN_VARIABLE:
        case TOKEN_LEFT_PAREN:
            back(parser);
            *last = parse_command(parser);
            if (*last)
                last = &(*last)->next;
            break;
        default:
            unexpected(parser, &token, context);
        }
    }
    return NULL;
}

/* --- Actions -----------------------------------------------------------------------------------
 */

static struct node *parse_text_or_action(struct parser *parser);

/* Up to {{end}} or {{else}}, which is returned apart. */
static struct node *parse_list(struct parser *parser, struct node **ret_end)
{
    CLEANUP_NODE struct node *list = node_new(NODE_LIST, peek_word(parser).position);
    struct node **last = &list->children;

    while (!failed(parser)) {
        if (peek_word(parser).kind == TOKEN_END_OF_TEXT)
            return bad(parser, "unexpected EOF");
        struct node *node = parse_text_or_action(parser);
        if (!node)
            break;
        if (node->kind == NODE_END || node->kind == NODE_ELSE) {
            *ret_end = node;
            return TAKE(list);
        }
        *last = node;
        last = &node->next;
    }
    return NULL;
}

static struct node *parse_control(struct parser *parser, enum node_kind kind, const char *word);

/* After {{else}} of an if or with: "else if" and "else with" are one more level without an {{end}}
 * of its own. */
static bool parse_else(struct parser *parser, struct node *node, const char *word)
{
    CLEANUP_NODE struct node *end = NULL;
    const enum token_kind again = peek(parser).kind;

    if ((node->kind == NODE_IF && again == TOKEN_IF) ||
        (node->kind == NODE_WITH && again == TOKEN_WITH)) {
        next(parser);
        node->otherwise = node_new(NODE_LIST, node->position);
        node->otherwise->children = parse_control(parser, node->kind, word);
        return !failed(parser);
    }
    node->otherwise = parse_list(parser, &end);
    return end && (end->kind == NODE_END || bad(parser, "expected end; found {{else}}"));
}

static struct node *parse_control(struct parser *parser, enum node_kind kind, const char *word)
{
    CLEANUP_NODE struct node *node = node_new(kind, 0), *end = NULL;
    const size_t variables = parser->variable_count;

    if (!enter(parser))
        return NULL;
    node->pipe = parse_pipeline(parser, word, TOKEN_RIGHT_DELIMITER);
    if (!node->pipe)
        return NULL;
    node->position = node->pipe->position;
    parser->range_depth += kind == NODE_RANGE;
    node->list = parse_list(parser, &end);
    parser->range_depth -= kind == NODE_RANGE;
    if (!end || (end->kind == NODE_ELSE && !parse_else(parser, node, word)))
        return NULL;
    forget_variables(parser, variables);
    parser->depth--;
    return TAKE(node);
}

static struct node *parse_jump(struct parser *parser, enum node_kind kind, const char *word)
{
    const struct token token = next_word(parser);

    if (token.kind != TOKEN_RIGHT_DELIMITER) {
        CLEANUP_FREE char *context = xasprintf("{{%s}}", word);
        return unexpected(parser, &token, context);
    }
    if (parser->range_depth == 0)
        return bad(parser, "{{%s}} outside {{range}}", word);
    return node_of(kind, &token);
}

static bool is_empty(const struct node *list)
{
    for (const struct node *node = list->children; node; node = node->next) {
        if (node->kind != NODE_TEXT || strspn(node->text, " \t\r\n") != node->length)
            return false;
    }
    return true;
}

/* Takes the list. A template may be defined again if one of the two is empty. */
static void define(struct parser *parser, const char *name, struct node *list)
{
    struct template *template = parser->template;
    const size_t size = (template->definition_count + 1) * sizeof(*template->definitions);

    for (size_t i = 0; i < template->definition_count; i++) {
        struct definition *same = &template->definitions[i];
        if (!str_eq(same->name, name))
            continue;
        if (!is_empty(list) && !is_empty(same->list))
            bad(parser, "template: multiple definition of template \"%s\"", name);
        if (!is_empty(list)) {
            node_free(same->list);
            same->list = TAKE(list);
        }
        node_free(list);
        return;
    }
    template->definitions = xrealloc(template->definitions, size);
    template->definitions[template->definition_count++] = (struct definition){xstrdup(name), list};
}

/* A list of its own up to {{end}}: nothing from outside is known in it. */
static void parse_definition(struct parser *parser, const char *name, const char *context)
{
    CLEANUP_NODE struct node *end = NULL, *list = NULL;
    char **variables = parser->variables;
    const size_t count = parser->variable_count;
    const unsigned range_depth = parser->range_depth;

    parser->variables = NULL;
    parser->range_depth = 0;
    strv_add(&parser->variables, "$");
    parser->variable_count = 1;
    list = parse_list(parser, &end);
    strv_free(parser->variables);
    parser->variables = variables;
    parser->variable_count = count;
    parser->range_depth = range_depth;
    if (end && end->kind != NODE_END)
        bad(parser, "unexpected {{else}} in %s", context);
    if (!failed(parser))
        define(parser, name, TAKE(list));
}

/* The name is the next word. */
static struct node *parse_name(struct parser *parser, const char *context)
{
    const struct token token = next_word(parser);
    struct node *node;

    if (token.kind != TOKEN_STRING && token.kind != TOKEN_RAW_STRING)
        return unexpected(parser, &token, context);
    node = parse_string(parser, &token);
    if (node)
        node->kind = NODE_TEMPLATE;
    return node;
}

static struct node *parse_template(struct parser *parser, bool block)
{
    const char *context = block ? "block clause" : "template clause";
    CLEANUP_NODE struct node *node = parse_name(parser, context);

    if (!node)
        return NULL;
    if (!block && peek_word(parser).kind == TOKEN_RIGHT_DELIMITER)
        next_word(parser);
    else
        node->pipe = parse_pipeline(parser, context, TOKEN_RIGHT_DELIMITER);
    if (block && node->pipe && enter(parser)) {
        parse_definition(parser, node->value, context);
        parser->depth--;
    }
    return failed(parser) ? NULL : TAKE(node);
}

static struct node *parse_end_or_else(struct parser *parser, enum node_kind kind)
{
    struct token token;

    if (kind == NODE_ELSE) {
        token = peek_word(parser);
        if (token.kind == TOKEN_IF || token.kind == TOKEN_WITH)
            return node_new(NODE_ELSE, token.position);
    }
    token = peek_word(parser);
    return expect(parser, TOKEN_RIGHT_DELIMITER, kind == NODE_ELSE ? "else" : "end")
               ? node_new(kind, token.position)
               : NULL;
}

static struct node *parse_action(struct parser *parser)
{
    const struct token token = next_word(parser);
    struct node *node;

    switch (token.kind) {
    case TOKEN_BLOCK:
    case TOKEN_TEMPLATE:
        return parse_template(parser, token.kind == TOKEN_BLOCK);
    case TOKEN_BREAK:
        return parse_jump(parser, NODE_BREAK, "break");
    case TOKEN_CONTINUE:
        return parse_jump(parser, NODE_CONTINUE, "continue");
    case TOKEN_ELSE:
        return parse_end_or_else(parser, NODE_ELSE);
    case TOKEN_END:
        return parse_end_or_else(parser, NODE_END);
    case TOKEN_IF:
        return parse_control(parser, NODE_IF, "if");
    case TOKEN_RANGE:
        return parse_control(parser, NODE_RANGE, "range");
    case TOKEN_WITH:
        return parse_control(parser, NODE_WITH, "with");
    default:
        back(parser);
        node = node_new(NODE_ACTION, peek(parser).position);
        node->pipe = parse_pipeline(parser, "command", TOKEN_RIGHT_DELIMITER);
        return node;
    }
}

static struct node *parse_text_or_action(struct parser *parser)
{
    const struct token token = next_word(parser);
    struct node *node;

    if (token.kind == TOKEN_TEXT)
        return node_of(NODE_TEXT, &token);
    if (token.kind != TOKEN_LEFT_DELIMITER)
        return unexpected(parser, &token, "input");
    parser->action_line = token.line;
    node = parse_action(parser);
    if (!failed(parser)) {
        parser->action_line = 0;
        return node;
    }
    node_free(node);
    return NULL;
}

static bool parse_define(struct parser *parser)
{
    CLEANUP_NODE struct node *name = parse_name(parser, "define clause");

    if (!name || !expect(parser, TOKEN_RIGHT_DELIMITER, "define clause"))
        return false;
    parse_definition(parser, name->value, "define clause");
    return !failed(parser);
}

/* All of the text; only here {{define}} may stand. */
static void parse_all(struct parser *parser)
{
    CLEANUP_NODE struct node *list = node_new(NODE_LIST, 0);
    struct node **last = &list->children;

    while (!failed(parser) && peek(parser).kind != TOKEN_END_OF_TEXT) {
        if (peek(parser).kind == TOKEN_LEFT_DELIMITER) {
            const struct token delimiter = next(parser);
            if (next_word(parser).kind == TOKEN_DEFINE) {
                parse_define(parser);
                continue;
            }
            back_two(parser, delimiter);
        }
        struct node *node = parse_text_or_action(parser);
        if (!node)
            return;
        if (node->kind == NODE_END || node->kind == NODE_ELSE)
            bad(parser, "unexpected {{%s}}", node->kind == NODE_END ? "end" : "else");
        *last = node;
        last = &node->next;
    }
    if (!failed(parser))
        define(parser, NULL, TAKE(list));
}

/* --- The template ------------------------------------------------------------------------------
 */

struct template *template_free(struct template *template)
{
    if (!template)
        return NULL;
    for (size_t i = 0; i < template->definition_count; i++) {
        free(template->definitions[i].name);
        node_free(template->definitions[i].list);
    }
    free(template->definitions);
    free(template->name);
    free(template->text);
    free(template);
    return NULL;
}

struct template *template_parse_named(const char *name, const char *text, struct error *err)
{
    CLEANUP(template_cleanup) struct template *template = xcalloc(1, sizeof(*template));
    CLEANUP_ERROR struct error problem = {0};
    struct parser parser = {.template = template, .err = &problem};

    template->name = xstrdup(name);
    template->text = xstrdup(text);
    lexer_init(&parser.lexer, template->text);
    strv_add(&parser.variables, "$");
    parser.variable_count = 1;
    parse_all(&parser);
    strv_free(parser.variables);
    lexer_done(&parser.lexer);
    if (!error_is_set(&problem))
        return TAKE(template);
    error_move(err, &problem);
    return NULL;
}

struct template *template_parse(const char *text, struct error *err)
{
    return template_parse_named("", text, err);
}
