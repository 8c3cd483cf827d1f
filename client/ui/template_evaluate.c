/* Walks through a template's nodes as Go's text/template does. What is an error there is one here,
 * in the same words and at the same place. */
#include <stdio.h>

#include "client/ui/template_value.h"

enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE, FLOW_FAILED };

/* What comes through a pipe: the last argument. */
struct piped {
    bool is_there;
    struct value value;
};

static const struct piped nothing_piped;

/* --- Errors ------------------------------------------------------------------------------------
 */

static bool fail(struct evaluation *e, const char *text)
{
    CLEANUP_STRBUF struct strbuf place = {0}, name = {0};
    const char *source = e->template->text, *line_start = source;
    unsigned line = 1;

    for (const char *c = source; c < source + e->at->position; c++) {
        line += *c == '\n';
        line_start = *c == '\n' ? c + 1 : line_start;
    }
    node_describe(e->at, &place);
    strbuf_add_quoted(&name, e->definition);
    return error_set(e->err, ERROR_INVALID_ARGUMENT, "INVALID_TEMPLATE",
                     "template parsing error: template: %s:%u:%zu: executing %s at <%s>: %s",
                     e->template->name, line, e->at->position - (size_t)(line_start - source),
                     strbuf_text(&name), strbuf_text(&place), text);
}

bool evaluation_failed(struct evaluation *e, const char *format, ...)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    va_list args;

    va_start(args, format);
    strbuf_vaddf(&text, format, args);
    va_end(args);
    return fail(e, strbuf_text(&text));
}

bool function_failed(struct evaluation *e, const char *format, ...)
{
    const struct node *first = e->call->kind == NODE_COMMAND ? e->call->children : e->call;
    CLEANUP_STRBUF struct strbuf text = {0};
    va_list args;

    strbuf_addf(&text, "error calling %s: ", first->text);
    va_start(args, format);
    strbuf_vaddf(&text, format, args);
    va_end(args);
    e->at = e->call;
    return fail(e, strbuf_text(&text));
}

/* Each list and pipeline within another takes some of the stack; {{template}} makes more levels
 * than the parser let through. */
#define LEVELS_MAX (2 * TEMPLATE_DEPTH_MAX)

static bool may_go_on(struct evaluation *e)
{
    if (e->depth > LEVELS_MAX)
        return evaluation_failed(e, "exceeded maximum template depth (%d)", LEVELS_MAX);
    if (++e->steps > TEMPLATE_STEPS_MAX)
        return evaluation_failed(e, "too many steps: the limit is %d", TEMPLATE_STEPS_MAX);
    if (e->made_bytes + e->out->length - e->out_before > TEMPLATE_OUTPUT_MAX)
        return evaluation_failed(e, "the output is too long: the limit is %llu bytes",
                                 TEMPLATE_OUTPUT_MAX);
    return true;
}

/* --- Variables ---------------------------------------------------------------------------------
 */

static void push_variable(struct evaluation *e, const char *name, const struct value *value)
{
    const size_t size = (e->variable_count + 1) * sizeof(*e->variables);

    e->variables = xrealloc(e->variables, size);
    e->variables[e->variable_count++] = (struct variable){name, *value};
    e->changes++;
}

static struct value *find_variable(struct evaluation *e, const char *name)
{
    for (size_t i = e->variable_count; i > e->variable_base; i--) {
        if (str_eq(e->variables[i - 1].name, name))
            return &e->variables[i - 1].value;
    }
    evaluation_failed(e, "undefined variable: %s", name);
    return NULL;
}

static bool set_variable(struct evaluation *e, const char *name, const struct value *value)
{
    struct value *variable = find_variable(e, name);

    if (variable)
        *variable = *value;
    e->changes++;
    e->assignments++;
    return variable != NULL;
}

/* How much functions have made up to now. */
struct mark {
    size_t count, bytes;
};

static struct mark mark_of(const struct evaluation *e)
{
    return (struct mark){json_array_size(e->made), e->made_bytes};
}

/* Frees what was made since. */
static void release(struct evaluation *e, struct mark mark)
{
    while (json_array_size(e->made) > mark.count)
        json_array_remove(e->made, json_array_size(e->made) - 1);
    e->made_bytes = mark.bytes;
}

/* --- Fields ------------------------------------------------------------------------------------
 */

static bool field_of_map(struct evaluation *e, const char *name, bool arguments,
                         const struct value *map, struct value *ret)
{
    if (arguments)
        return evaluation_failed(e, "%s is not a method but has arguments", name);
    *ret = value_member(e, map, name, strlen(name));
    return ret->type || !e->strict || evaluation_failed(e, "map has no entry for key \"%s\"", name);
}

/* "value.name" */
static bool evaluate_field(struct evaluation *e, const char *name, size_t arguments,
                           const struct value *value, struct value *ret)
{
    const struct template_type *type = value->type;
    const char *type_name = !type ? "" : value->boxed ? "interface {}" : type->name;
    struct value field;

    *ret = (struct value){.json = NULL};
    if (!type)
        return !e->strict || evaluation_failed(e, "nil data; no entry for key \"%s\"", name);
    if (type->kind == TYPE_ANY)
        return evaluation_failed(e, "nil pointer evaluating %s.%s", type_name, name);
    if (type->kind == TYPE_MAP)
        return field_of_map(e, name, arguments > 0, value, ret);
    if (!value_field(e, value, name, &field))
        return evaluation_failed(e, "can't evaluate field %s in type %s", name, type_name);
    if (value_is_nil(value))
        return evaluation_failed(e, "nil pointer evaluating %s.%s", type_name, name);
    if (arguments && type->kind == TYPE_ROW)
        return evaluation_failed(e, "wrong number of args for %s: want 0 got %zu", name, arguments);
    if (arguments)
        return evaluation_failed(e, "%s has arguments but cannot be invoked as function", name);
    *ret = field;
    return true;
}

/* "value.name.name"; the last may be given arguments, which then is an error. */
static bool evaluate_fields(struct evaluation *e, char *const *names, size_t arguments,
                            const struct value *value, struct value *ret)
{
    *ret = *value;
    for (; *names; names++) {
        const struct value before = *ret;
        if (!evaluate_field(e, *names, names[1] ? 0 : arguments, &before, ret))
            return false;
    }
    return true;
}

/* --- Operands ----------------------------------------------------------------------------------
 */

static bool evaluate_pipe(struct evaluation *e, const struct value *dot, const struct node *pipe,
                          struct value *ret);
static bool evaluate_call(struct evaluation *e, const struct value *dot, const struct node *call,
                          const struct piped *piped, struct value *ret);
static bool evaluate_argument(struct evaluation *e, const struct value *dot,
                              const struct node *node, char parameter, struct value *ret);

static size_t argument_count(const struct node *first, const struct piped *piped)
{
    size_t count = piped->is_there;

    for (first = first->next; first; first = first->next)
        count++;
    return count;
}

/* Only functions have arguments. */
static bool has_none(struct evaluation *e, const struct node *first, size_t arguments)
{
    CLEANUP_STRBUF struct strbuf text = {0};

    if (arguments == 0)
        return true;
    node_describe(first, &text);
    return evaluation_failed(e, "can't give argument to non-function %s", strbuf_text(&text));
}

static bool evaluate_chain(struct evaluation *e, const struct value *dot, const struct node *chain,
                           size_t arguments, struct value *ret)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    struct value value;

    e->at = chain;
    node_describe(chain, &text);
    if (chain->children->kind == NODE_NIL)
        return evaluation_failed(e, "indirection through explicit nil in %s", strbuf_text(&text));
    return evaluate_argument(e, dot, chain->children, '\0', &value) &&
           evaluate_fields(e, chain->names, arguments, &value, ret);
}

static bool evaluate_variable(struct evaluation *e, const struct node *node, size_t arguments,
                              struct value *ret)
{
    const struct value *variable;

    e->at = node;
    variable = find_variable(e, node->names[0]);
    if (!variable)
        return false;
    if (node->names[1])
        return evaluate_fields(e, node->names + 1, arguments, variable, ret);
    *ret = *variable;
    return has_none(e, node, arguments);
}

static bool is_written_as_real(const char *text)
{
    const bool hex = (text[0] == '0' && (text[1] | 0x20) == 'x') && !strpbrk(text, "pP");

    return *text != '\'' && !hex && strpbrk(text, ".eEpP");
}

static bool evaluate_number(struct evaluation *e, const struct node *node, struct value *ret)
{
    const struct number *number = &node->number;

    e->at = node;
    if (number->is_complex)
        return evaluation_failed(e, "complex numbers are not supported");
    if (number->is_float && is_written_as_real(node->text))
        *ret = value_float(e, number->real);
    else if (number->is_int)
        *ret = value_int(e, number->integer);
    else
        return evaluation_failed(e, "%s overflows int", node->text);
    return true;
}

/* A word that stands for itself. */
static bool evaluate_constant(struct evaluation *e, const struct value *dot,
                              const struct node *node, struct value *ret)
{
    switch (node->kind) {
    case NODE_DOT:
        *ret = *dot;
        return true;
    case NODE_BOOL:
        *ret = value_bool(node->truth);
        return true;
    case NODE_NUMBER:
        return evaluate_number(e, node, ret);
    case NODE_STRING:
        *ret = value_text(e, node->value, node->value_length, false);
        return true;
    default:
        return evaluation_failed(e, "nil is not a command");
    }
}

static bool evaluate_command(struct evaluation *e, const struct value *dot,
                             const struct node *command, const struct piped *piped,
                             struct value *ret)
{
    const struct node *first = command->children;
    const size_t arguments = argument_count(first, piped);

    switch (first->kind) {
    case NODE_FIELD:
        e->at = first;
        return evaluate_fields(e, first->names, arguments, dot, ret);
    case NODE_CHAIN:
        return evaluate_chain(e, dot, first, arguments, ret);
    case NODE_IDENTIFIER:
        return evaluate_call(e, dot, command, piped, ret);
    case NODE_PIPE:
        return has_none(e, first, arguments) && evaluate_pipe(e, dot, first, ret);
    case NODE_VARIABLE:
        return evaluate_variable(e, first, arguments, ret);
    default:
        e->at = first;
        return has_none(e, first, arguments) && evaluate_constant(e, dot, first, ret);
    }
}

static void unbox(struct value *value)
{
    value->boxed = false;
    if (value->type && value->type->kind == TYPE_ANY)
        *value = (struct value){.json = NULL};
}

static bool evaluate_pipe(struct evaluation *e, const struct value *dot, const struct node *pipe,
                          struct value *ret)
{
    struct piped piped = nothing_piped;

    e->at = pipe;
    e->depth++;
    for (const struct node *command = pipe->children; command; command = command->next) {
        struct value value = {.json = NULL};
        if (!may_go_on(e) || !evaluate_command(e, dot, command, &piped, &value))
            return false;
        unbox(&value);
        piped = (struct piped){true, value};
    }
    e->depth--;
    *ret = piped.value;
    for (const struct node *name = pipe->declarations; name; name = name->next) {
        if (!pipe->is_assignment)
            push_variable(e, name->names[0], ret);
        else if (!set_variable(e, name->names[0], ret))
            return false;
    }
    return true;
}

/* --- Arguments ---------------------------------------------------------------------------------
 */

static const char *parameter_name(char parameter)
{
    return parameter == 's'   ? "string"
           : parameter == 'i' ? "int"
           : parameter == 'l' ? "[]string"
           : parameter == 'v' ? "reflect.Value"
                              : "interface {}";
}

static bool is_of(const struct value *value, char parameter)
{
    return parameter == 's'   ? value->type->kind == TYPE_STRING
           : parameter == 'i' ? value->type == &template_int
           : parameter == 'l' ? str_eq(value->type->name, template_strings.name)
                              : true;
}

/* Whether a value is of the type that a function wants; nil may become one. */
static bool validate(struct evaluation *e, struct value *value, char parameter)
{
    const char *wanted = parameter_name(parameter);

    if (!value->type) {
        if (parameter == 'a')
            *value = value_of(e, &template_any, NULL);
        else if (parameter == 'l')
            *value = value_of(e, &template_strings, NULL);
        return (parameter != 's' && parameter != 'i') ||
               evaluation_failed(e, "invalid value; expected %s", wanted);
    }
    if (!is_of(value, parameter))
        return evaluation_failed(e, "wrong type for value; expected %s; got %s", wanted,
                                 value->type->name);
    value->boxed &= parameter == '\0' || parameter == 'v';
    return true;
}

/* A constant where a function wants a type. */
static bool evaluate_literal(struct evaluation *e, const struct value *dot, const struct node *node,
                             char parameter, struct value *ret)
{
    if (parameter == 's' && node->kind != NODE_STRING)
        return evaluation_failed(e, "expected string; found %s", node->text);
    if (parameter == 'i') {
        if (node->kind != NODE_NUMBER || !node->number.is_int)
            return evaluation_failed(e, "expected integer; found %s", node->text);
        *ret = value_int(e, node->number.integer);
        return true;
    }
    if (parameter == 'l')
        return evaluation_failed(e, "can't handle %s for arg of type []string", node->text);
    return evaluate_constant(e, dot, node, ret);
}

static bool evaluate_argument(struct evaluation *e, const struct value *dot,
                              const struct node *node, char parameter, struct value *ret)
{
    *ret = (struct value){.json = NULL};
    e->at = node;
    if (!may_go_on(e))
        return false;
    switch (node->kind) {
    case NODE_DOT:
        *ret = *dot;
        return validate(e, ret, parameter);
    case NODE_NIL:
        if (parameter == 's' || parameter == 'i')
            return evaluation_failed(e, "cannot assign nil to %s", parameter_name(parameter));
        return validate(e, ret, parameter);
    case NODE_FIELD:
        return evaluate_fields(e, node->names, 0, dot, ret) && validate(e, ret, parameter);
    case NODE_VARIABLE:
        return evaluate_variable(e, node, 0, ret) && validate(e, ret, parameter);
    case NODE_PIPE:
        return evaluate_pipe(e, dot, node, ret) && validate(e, ret, parameter);
    case NODE_IDENTIFIER:
        return evaluate_call(e, dot, node, &nothing_piped, ret) && validate(e, ret, parameter);
    case NODE_CHAIN:
        return evaluate_chain(e, dot, node, 0, ret) && validate(e, ret, parameter);
    default:
        return evaluate_literal(e, dot, node, parameter, ret);
    }
}

/* --- Calls -------------------------------------------------------------------------------------
 */

static bool check_count(struct evaluation *e, const struct function *function, size_t count,
                        const struct piped *piped)
{
    const size_t wanted = strlen(function->parameters);

    if (function->more)
        return count >= wanted ||
               evaluation_failed(e, "wrong number of args for %s: want at least %zu got %zu",
                                 function->name, wanted, count - piped->is_there);
    return count == wanted || evaluation_failed(e, "wrong number of args for %s: want %zu got %zu",
                                                function->name, wanted, count);
}

static char parameter_at(const struct function *function, size_t index)
{
    return index < strlen(function->parameters) ? function->parameters[index] : function->more;
}

/* and, or: only as far as it takes. */
static bool evaluate_and_or(struct evaluation *e, const struct value *dot,
                            const struct node *argument, const struct piped *piped, bool is_or,
                            struct value *ret)
{
    for (; argument; argument = argument->next) {
        if (!evaluate_argument(e, dot, argument, 'v', ret))
            return false;
        if (value_truth(ret) == is_or)
            return true;
    }
    if (!piped->is_there)
        return true;
    *ret = piped->value;
    return validate(e, ret, 'v');
}

static bool evaluate_arguments(struct evaluation *e, const struct value *dot,
                               const struct node *argument, const struct piped *piped,
                               const struct function *function, struct value *ret)
{
    size_t i = 0;

    for (; argument; argument = argument->next, i++) {
        if (!evaluate_argument(e, dot, argument, parameter_at(function, i), &ret[i]))
            return false;
    }
    if (!piped->is_there)
        return true;
    ret[i] = piped->value;
    return validate(e, &ret[i], parameter_at(function, i));
}

/* A command, or a name alone. */
static bool evaluate_call(struct evaluation *e, const struct value *dot, const struct node *call,
                          const struct piped *piped, struct value *ret)
{
    const bool command = call->kind == NODE_COMMAND;
    const struct node *name = command ? call->children : call;
    const struct function *function = function_find(name->text, name->length, e->heading);
    const size_t count = command ? argument_count(name, piped) : 0;
    const struct node *first = command ? name->next : NULL;
    CLEANUP_FREE struct value *arguments = NULL;

    e->at = name;
    if (!check_count(e, function, count, piped))
        return false;
    if (str_eq(function->name, "and") || str_eq(function->name, "or"))
        return evaluate_and_or(e, dot, first, piped, *function->name == 'o', ret);
    arguments = xcalloc(count + 1, sizeof(*arguments));
    if (!evaluate_arguments(e, dot, first, piped, function, arguments))
        return false;
    e->call = call;
    return function->call(e, arguments, count, ret);
}

/* --- Actions -----------------------------------------------------------------------------------
 */

static enum flow walk(struct evaluation *e, const struct value *dot, const struct node *node);

static enum flow walk_list(struct evaluation *e, const struct value *dot, const struct node *list)
{
    enum flow flow = FLOW_ON;

    e->at = list;
    e->depth++;
    for (const struct node *node = list->children; node && flow == FLOW_ON; node = node->next)
        flow = walk(e, dot, node);
    e->depth--;
    return flow;
}

static enum flow walk_if_or_with(struct evaluation *e, const struct value *dot,
                                 const struct node *node)
{
    const size_t variables = e->variable_count;
    enum flow flow = FLOW_ON;
    struct value value;

    if (!evaluate_pipe(e, dot, node->pipe, &value))
        return FLOW_FAILED;
    if (value_truth(&value))
        flow = walk_list(e, node->kind == NODE_WITH ? &value : dot, node->list);
    else if (node->otherwise)
        flow = walk_list(e, dot, node->otherwise);
    e->variable_count = variables;
    return flow;
}

/* One turn of a range. What was made for it goes, if no variable from outside was given any of it.
 */
static enum flow walk_element(struct evaluation *e, const struct node *range, struct mark made,
                              const struct value *key, const struct value *element)
{
    const unsigned assignments = e->assignments;
    const struct node *names = range->pipe->declarations;
    const struct value *values[] = {names && names->next ? key : element, element};
    const size_t count = names ? 1 + (names->next != NULL) : 0, variables = e->variable_count;
    enum flow flow;

    for (size_t i = 0; i < count; i++, names = names->next) {
        if (!range->pipe->is_assignment)
            e->variables[variables - count + i].value = *values[i];
        else if (!set_variable(e, names->names[0], values[i]))
            return FLOW_FAILED;
    }
    e->changes++;
    e->at = range->pipe;
    flow = may_go_on(e) ? walk_list(e, element, range->list) : FLOW_FAILED;
    e->variable_count = variables;
    if (assignments == e->assignments)
        release(e, made);
    return flow == FLOW_CONTINUE ? FLOW_ON : flow;
}

static enum flow range_over_slice(struct evaluation *e, const struct node *range,
                                  const struct value *list)
{
    enum flow flow = FLOW_ON;

    for (size_t i = 0; i < json_array_size(list->json) && flow == FLOW_ON; i++) {
        const struct mark made = mark_of(e);
        const struct value key = value_int(e, (int64_t)i), element = value_at(e, list, i);
        flow = walk_element(e, range, made, &key, &element);
    }
    return flow;
}

static enum flow range_over_map(struct evaluation *e, const struct node *range,
                                const struct value *map)
{
    CLEANUP_FREE const char **keys = value_keys(map);
    enum flow flow = FLOW_ON;

    for (const char **name = keys; *name && flow == FLOW_ON; name++) {
        const struct mark made = mark_of(e);
        const struct value key = value_text(e, *name, strlen(*name), map->foreign);
        const struct value element = value_member(e, map, *name, strlen(*name));
        flow = walk_element(e, range, made, &key, &element);
    }
    return flow;
}

static enum flow range_over_int(struct evaluation *e, const struct node *range,
                                const struct value *count)
{
    const struct value none = {.json = NULL};
    enum flow flow = FLOW_ON;

    for (int64_t i = 0; i < value_integer(count) && flow == FLOW_ON; i++) {
        const struct mark made = mark_of(e);
        struct value element = value_int(e, i);
        element.type = count->type;
        flow = walk_element(e, range, made, &none, &element);
    }
    return flow;
}

static enum flow walk_range(struct evaluation *e, const struct value *dot, const struct node *node)
{
    const size_t variables = e->variable_count;
    CLEANUP_STRBUF struct strbuf text = {0};
    enum flow flow = FLOW_ON;
    struct value value;

    if (!evaluate_pipe(e, dot, node->pipe, &value))
        return FLOW_FAILED;
    const enum type_kind kind = value.type ? value.type->kind : TYPE_SLICE;
    if (kind != TYPE_INT && kind != TYPE_SLICE && kind != TYPE_MAP) {
        value_print(e, &value, &text);
        evaluation_failed(e, "range can't iterate over %s", strbuf_text(&text));
        return FLOW_FAILED;
    }
    if (kind == TYPE_INT && node->pipe->declarations && node->pipe->declarations->next) {
        evaluation_failed(e, "can't use %lld to iterate over more than one variable",
                          (long long)value_integer(&value));
        return FLOW_FAILED;
    }
    if (kind == TYPE_INT ? value_integer(&value) <= 0 : value_length(&value) == 0)
        flow = node->otherwise ? walk_list(e, dot, node->otherwise) : FLOW_ON;
    else if (kind == TYPE_INT)
        flow = range_over_int(e, node, &value);
    else if (kind == TYPE_SLICE)
        flow = range_over_slice(e, node, &value);
    else
        flow = range_over_map(e, node, &value);
    e->variable_count = variables;
    return flow == FLOW_BREAK && value.type ? FLOW_ON : flow;
}

/* A {{template}} sees no variables but its own. */
static enum flow walk_template(struct evaluation *e, const struct value *dot,
                               const struct node *node)
{
    const struct definition *definition = e->template->definitions;
    const struct definition *end = definition + e->template->definition_count;
    const size_t base = e->variable_base;
    const char *name = e->definition;
    struct value value = {.json = NULL};
    enum flow flow = FLOW_FAILED;

    while (definition < end && !str_eq(definition->name, node->value))
        definition++;
    if (definition == end) {
        evaluation_failed(e, "template \"%s\" not defined", node->value);
        return FLOW_FAILED;
    }
    if (!may_go_on(e))
        return FLOW_FAILED;
    if (node->pipe && !evaluate_pipe(e, dot, node->pipe, &value))
        return FLOW_FAILED;
    const size_t count = e->variable_count;
    e->variable_base = count;
    push_variable(e, "$", &value);
    e->definition = definition->name;
    flow = walk_list(e, &value, definition->list);
    e->definition = name;
    e->variable_base = base;
    e->variable_count = count;
    return flow;
}

/* Prints a value, unless it is kept in variables. What was made for it goes. */
static enum flow walk_action(struct evaluation *e, const struct value *dot, const struct node *node)
{
    const struct mark made = mark_of(e);
    const unsigned changes = e->changes;
    struct value value;
    size_t length;

    if (!evaluate_pipe(e, dot, node->pipe, &value))
        return FLOW_FAILED;
    if (node->pipe->declarations)
        return FLOW_ON;
    e->at = node;
    if (!value.type)
        strbuf_add_str(e->out, "<no value>");
    else if (value.type->kind == TYPE_STRING && !value.foreign) {
        CLEANUP_FREE char *text = value_string(&value, &length);
        strbuf_add(e->out, text, length);
    } else {
        CLEANUP_STRBUF struct strbuf text = {0};
        value_print_pointed(e, &value, &text);
        strbuf_add(e->out, strbuf_text(&text), text.length);
    }
    if (changes == e->changes)
        release(e, made);
    return may_go_on(e) ? FLOW_ON : FLOW_FAILED;
}

static enum flow walk(struct evaluation *e, const struct value *dot, const struct node *node)
{
    e->at = node;
    switch (node->kind) {
    case NODE_TEXT:
        strbuf_add(e->out, node->text, node->length);
        return may_go_on(e) ? FLOW_ON : FLOW_FAILED;
    case NODE_IF:
    case NODE_WITH:
        return walk_if_or_with(e, dot, node);
    case NODE_RANGE:
        return walk_range(e, dot, node);
    case NODE_BREAK:
        return FLOW_BREAK;
    case NODE_CONTINUE:
        return FLOW_CONTINUE;
    case NODE_TEMPLATE:
        return walk_template(e, dot, node);
    default:
        return walk_action(e, dot, node);
    }
}

/* --- Rendering ---------------------------------------------------------------------------------
 */

static const struct node *root_of(const struct template *template)
{
    const struct definition *definition = template->definitions;

    while (definition->name)
        definition++;
    return definition->list;
}

bool evaluate_template(struct evaluation *e, const struct template *template,
                       const struct template_type *type, const json_t *data, struct strbuf *out,
                       struct error *err)
{
    CLEANUP_ERROR struct error problem = {0};
    struct value root;
    bool ok;

    e->template = template;
    e->definition = template->name;
    e->strict |= template->strict;
    e->made = json_array();
    e->out = out;
    e->out_before = out->length;
    e->err = &problem;
    root = value_of(e, type, data);
    unbox(&root);
    push_variable(e, "$", &root);
    ok = walk_list(e, &root, root_of(template)) != FLOW_FAILED;
    json_decref(e->made);
    free(e->variables);
    return ok || error_move(err, &problem);
}

/* Back to where it was if that fails. */
static bool render(struct evaluation *e, const struct template *template,
                   const struct template_type *type, const json_t *data, struct strbuf *out,
                   struct error *err)
{
    const size_t length = out->length;

    if (evaluate_template(e, template, type, data, out, err))
        return true;
    out->length = length;
    if (out->data)
        out->data[length] = '\0';
    return false;
}

bool template_render_as(const struct template *template, const struct template_type *type,
                        const json_t *data, struct strbuf *out, struct error *err)
{
    struct evaluation e = {.raw = false};

    return render(&e, template, type, data, out, err);
}

bool template_render(const struct template *template, const json_t *data, struct strbuf *out,
                     struct error *err)
{
    return template_render_as(template, &template_any, data, out, err);
}

bool template_render_inspected(struct template *template, const struct template_type *type,
                               const json_t *data, struct strbuf *out, struct error *err)
{
    struct evaluation e = {.raw = true};

    if (template_render_as(template, type, data, out, NULL))
        return true;
    template->strict = true;
    return render(&e, template, &template_any, data, out, err);
}
