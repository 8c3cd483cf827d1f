#include "client/ui/template_node.h"

void node_free(struct node *node)
{
    while (node) {
        struct node *next = node->next;
        node_free(node->children);
        node_free(node->declarations);
        node_free(node->pipe);
        node_free(node->list);
        node_free(node->otherwise);
        strv_free(node->names);
        free(node->text);
        free(node->value);
        free(node);
        node = next;
    }
}

static void add_names(const struct node *node, struct strbuf *out)
{
    for (char *const *name = node->names; name && *name; name++) {
        const bool first_of_variable = node->kind == NODE_VARIABLE && name == node->names;
        strbuf_addf(out, "%s%s", first_of_variable ? "" : ".", *name);
    }
}

static void add_all(const struct node *node, const char *separator, struct strbuf *out)
{
    for (const struct node *first = node; node; node = node->next) {
        strbuf_add_str(out, node == first ? "" : separator);
        node_describe(node, out);
    }
}

static void add_in_parens(const struct node *node, struct strbuf *out)
{
    const bool parens = node->kind == NODE_PIPE;

    strbuf_add_str(out, parens ? "(" : "");
    node_describe(node, out);
    strbuf_add_str(out, parens ? ")" : "");
}

static void add_command(const struct node *node, struct strbuf *out)
{
    for (const struct node *operand = node->children; operand; operand = operand->next) {
        strbuf_add_str(out, operand == node->children ? "" : " ");
        add_in_parens(operand, out);
    }
}

static void add_template(const struct node *node, struct strbuf *out)
{
    strbuf_addf(out, "{{template %s", node->text);
    if (node->pipe) {
        strbuf_add_char(out, ' ');
        node_describe(node->pipe, out);
    }
    strbuf_add_str(out, "}}");
}

void node_describe(const struct node *node, struct strbuf *out)
{
    switch (node->kind) {
    case NODE_PIPE:
        if (node->declarations) {
            add_all(node->declarations, ", ", out);
            strbuf_add_str(out, node->is_assignment ? " = " : " := ");
        }
        add_all(node->children, " | ", out);
        break;
    case NODE_COMMAND:
        add_command(node, out);
        break;
    case NODE_CHAIN:
        add_in_parens(node->children, out);
        add_names(node, out);
        break;
    case NODE_FIELD:
    case NODE_VARIABLE:
        add_names(node, out);
        break;
    case NODE_TEMPLATE:
        add_template(node, out);
        break;
    default:
        strbuf_add(out, node->text ? node->text : "", node->length);
    }
}
