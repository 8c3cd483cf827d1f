/* Constants of a template as Go reads them. Used by the parser. */
#pragma once

#include "client/ui/template_lex.h"
#include "client/ui/template_node.h"

/* False with the text of the error, which the caller frees. */
bool number_parse(const struct token *token, struct number *ret, char **ret_problem);

/* What a quoted token stands for, which is the caller's. NULL: no valid Go. */
char *string_unquote(const char *quoted, size_t length, size_t *ret_length);
