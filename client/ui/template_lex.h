/* The words of a template, as Go's text/template has them. A *token* is one of them. Used by the
 * parser only. */
#pragma once

#include "proto/base/strbuf.h"

enum token_kind {
    TOKEN_ERROR, /* its text says what is wrong; nothing comes after it */
    TOKEN_BOOL,
    TOKEN_CHARACTER, /* punctuation of no meaning but ',' */
    TOKEN_CHARACTER_CONSTANT,
    TOKEN_COMPLEX,
    TOKEN_ASSIGN,
    TOKEN_DECLARE,
    TOKEN_END_OF_TEXT,
    TOKEN_FIELD, /* ".Name" */
    TOKEN_IDENTIFIER,
    TOKEN_LEFT_DELIMITER,
    TOKEN_LEFT_PAREN,
    TOKEN_NUMBER,
    TOKEN_PIPE,
    TOKEN_RAW_STRING,
    TOKEN_RIGHT_DELIMITER,
    TOKEN_RIGHT_PAREN,
    TOKEN_SPACE,
    TOKEN_STRING,
    TOKEN_TEXT,
    TOKEN_VARIABLE,
    TOKEN_KEYWORDS, /* none itself: those that follow are */
    TOKEN_BLOCK,
    TOKEN_BREAK,
    TOKEN_CONTINUE,
    TOKEN_DOT,
    TOKEN_DEFINE,
    TOKEN_ELSE,
    TOKEN_END,
    TOKEN_IF,
    TOKEN_NIL,
    TOKEN_RANGE,
    TOKEN_TEMPLATE,
    TOKEN_WITH,
};

struct token {
    enum token_kind kind;
    size_t position; /* bytes before it */
    unsigned line;   /* from 1, where it begins */
    const char *text;
    size_t length;
};

struct lexer {
    const char *input;
    size_t size;
    size_t position, start; /* of what is being read */
    unsigned line, start_line;
    int paren_depth;
    bool inside_action, ended;
    struct strbuf problem; /* the text of TOKEN_ERROR */
};

void lexer_init(struct lexer *lexer, const char *input);
void lexer_done(struct lexer *lexer);

/* Its text is valid as long as the lexer and the input are. After TOKEN_ERROR and TOKEN_END_OF_TEXT
 * there is only TOKEN_END_OF_TEXT. */
struct token lexer_next(struct lexer *lexer);

/* Appends the token as Go writes it in errors. */
void token_describe(const struct token *token, struct strbuf *out);

/* Appends text in Go's double quotes. */
void add_go_quoted(struct strbuf *out, const char *text, size_t length);
