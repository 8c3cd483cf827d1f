/* What a template is made of, as Go's text/template/parse has it. A *node* is one piece: of a list
 * of texts and actions, of a pipeline, of a command with its operands. Used by the parser, which
 * makes them, and the evaluator. */
#pragma once

#include "client/ui/template.h"

/* Lists in lists, parentheses in parentheses: as deep as a task's stack bears. */
#define TEMPLATE_DEPTH_MAX 64

enum node_kind {
    NODE_LIST,
    NODE_TEXT,
    NODE_ACTION, /* of `pipe` */
    NODE_IF,     /* `pipe`, `list`, `otherwise` */
    NODE_RANGE,
    NODE_WITH,
    NODE_BREAK,
    NODE_CONTINUE,
    NODE_TEMPLATE, /* its name is `text`; `pipe` may be NULL */
    NODE_ELSE,     /* only while parsing, as is NODE_END */
    NODE_END,
    NODE_PIPE,    /* children: its commands */
    NODE_COMMAND, /* children: its operands; the first may be a function */
    NODE_FIELD,   /* ".A.B": names "A", "B" */
    NODE_CHAIN,   /* "(pipeline).A": one child, names "A" */
    NODE_VARIABLE,
    NODE_IDENTIFIER,
    NODE_DOT,
    NODE_NIL,
    NODE_BOOL,
    NODE_NUMBER,
    NODE_STRING,
};

struct number {
    bool is_int, is_float, is_complex;
    int64_t integer;
    bool too_large; /* for an int64_t, but not for a uint64_t */
    double real, imaginary;
};

struct node {
    enum node_kind kind;
    size_t position;
    struct node *next;         /* in its parent's children */
    struct node *children;     /* of lists, pipes, commands, chains */
    struct node *declarations; /* of a pipe: variables */
    bool is_assignment;
    struct node *pipe, *list, *otherwise;
    char **names; /* of fields and chains; of variables, "$x" first */
    char *text;   /* as it was written; of a text what is printed */
    size_t length;
    char *value; /* of a string, and of a template the name */
    size_t value_length;
    bool truth;
    struct number number;
};

/* {{define}} and {{block}}; the one without a name is the template itself. */
struct definition {
    char *name;
    struct node *list;
};

struct template
{
    char *name; /* for errors */
    char *text;
    struct definition *definitions;
    size_t definition_count;
    bool strict; /* a missing key is an error */
};

void node_free(struct node *node); /* and those that follow it */

/* Appends an expression, or an action of one, as Go writes it in errors. */
void node_describe(const struct node *node, struct strbuf *out);

/* Whether there is a function of that name. */
bool template_has_function(const char *name, size_t length);
