#include "client/ui/template_lex.h"

#include "client/ui/unicode.h"

#define END_OF_INPUT UINT32_MAX
#define TRIM_MARKER_LENGTH 2 /* "- " and " -" */

void lexer_init(struct lexer *lexer, const char *input)
{
    *lexer = (struct lexer){
        .input = input, .size = strlen(input), .line = 1, .start_line = 1, .problem = {0}};
}

void lexer_done(struct lexer *lexer)
{
    strbuf_done(&lexer->problem);
}

/* --- Characters --------------------------------------------------------------------------------
 */

static bool is_space(uint32_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_alphanumeric(uint32_t c)
{
    return c == '_' || (c != END_OF_INPUT && unicode_is_letter(c));
}

static size_t left(const struct lexer *lexer)
{
    return lexer->size - lexer->position;
}

static uint32_t peek(const struct lexer *lexer, size_t *ret_length)
{
    uint32_t character = END_OF_INPUT;

    *ret_length = 0;
    if (left(lexer))
        *ret_length = unicode_read(lexer->input + lexer->position, left(lexer), &character);
    return character;
}

static uint32_t next(struct lexer *lexer)
{
    size_t length;
    const uint32_t character = peek(lexer, &length);

    lexer->position += length;
    lexer->line += character == '\n';
    return character;
}

static bool at(const struct lexer *lexer, size_t offset, const char *text)
{
    const size_t length = strlen(text);

    return left(lexer) >= offset + length &&
           memcmp(lexer->input + lexer->position + offset, text, length) == 0;
}

static bool accept(struct lexer *lexer, const char *valid)
{
    if (!left(lexer) || !lexer->input[lexer->position] ||
        !strchr(valid, lexer->input[lexer->position]))
        return false;
    lexer->position++;
    return true;
}

static void accept_run(struct lexer *lexer, const char *valid)
{
    while (accept(lexer, valid))
        ;
}

/* Over so many bytes. */
static void skip(struct lexer *lexer, size_t size)
{
    for (size_t i = 0; i < size; i++)
        lexer->line += lexer->input[lexer->position + i] == '\n';
    lexer->position += size;
}

static void ignore(struct lexer *lexer)
{
    lexer->start = lexer->position;
    lexer->start_line = lexer->line;
}

/* --- Tokens ------------------------------------------------------------------------------------
 */

static struct token emit(struct lexer *lexer, enum token_kind kind)
{
    const struct token token = {kind, lexer->start, lexer->start_line, lexer->input + lexer->start,
                                lexer->position - lexer->start};

    ignore(lexer);
    return token;
}

static struct token problem(struct lexer *lexer, const char *text)
{
    strbuf_add_str(&lexer->problem, text);
    lexer->ended = true;
    return (struct token){TOKEN_ERROR, lexer->start, lexer->start_line,
                          strbuf_text(&lexer->problem), lexer->problem.length};
}

/* "text: U+00E4 'ä'", as Go's %#U has it. */
static struct token bad_character(struct lexer *lexer, const char *text, uint32_t c)
{
    c = c == END_OF_INPUT ? UNICODE_REPLACEMENT : c;
    strbuf_addf(&lexer->problem, "%sU+%04X", text, c);
    if (unicode_is_printable(c)) {
        strbuf_add_str(&lexer->problem, " '");
        unicode_add(&lexer->problem, c);
        strbuf_add_char(&lexer->problem, '\'');
    }
    return problem(lexer, "");
}

static struct token bad_number(struct lexer *lexer)
{
    strbuf_add_str(&lexer->problem, "bad number syntax: ");
    add_go_quoted(&lexer->problem, lexer->input + lexer->start, lexer->position - lexer->start);
    return problem(lexer, "");
}

/* Whether an action ends here, maybe with a trim marker. */
static bool at_right_delimiter(const struct lexer *lexer, bool *ret_trim)
{
    *ret_trim = left(lexer) >= TRIM_MARKER_LENGTH &&
                is_space((unsigned char)lexer->input[lexer->position]) && at(lexer, 1, "-}}");
    return *ret_trim || at(lexer, 0, "}}");
}

static void skip_spaces(struct lexer *lexer)
{
    size_t length;

    while (is_space(peek(lexer, &length)))
        next(lexer);
}

static bool at_left_trim_marker(const struct lexer *lexer, size_t offset)
{
    return left(lexer) > offset + 1 && lexer->input[lexer->position + offset] == '-' &&
           is_space((unsigned char)lexer->input[lexer->position + offset + 1]);
}

/* Leaves the lexer behind the comment. False: it has no end, which ret_problem says. */
static bool skip_comment(struct lexer *lexer, const char **ret_problem)
{
    const char *end = memmem(lexer->input + lexer->position, left(lexer), "*/", 2);
    bool trim;

    *ret_problem = "unclosed comment";
    if (!end)
        return false;
    skip(lexer, (size_t)(end - lexer->input) + 2 - lexer->position);
    *ret_problem = "comment ends before closing delimiter";
    if (!at_right_delimiter(lexer, &trim))
        return false;
    skip(lexer, trim ? TRIM_MARKER_LENGTH + 2 : 2);
    if (trim)
        skip_spaces(lexer);
    ignore(lexer);
    return true;
}

/* At "{{". True: ret is the next token; false: it was a comment. */
static bool lex_left_delimiter(struct lexer *lexer, struct token *ret)
{
    size_t marker = at_left_trim_marker(lexer, 2) ? TRIM_MARKER_LENGTH : 0;
    const char *what;

    if (at(lexer, 2 + marker, "/*")) {
        skip(lexer, 2 + marker);
        ignore(lexer);
        skip(lexer, 2);
        if (skip_comment(lexer, &what))
            return false;
        *ret = problem(lexer, what);
        return true;
    }
    skip(lexer, 2);
    *ret = emit(lexer, TOKEN_LEFT_DELIMITER);
    skip(lexer, marker);
    ignore(lexer);
    lexer->inside_action = true;
    lexer->paren_depth = 0;
    return true;
}

static struct token lex_text(struct lexer *lexer)
{
    struct token token;

    for (;;) {
        const char *start = lexer->input + lexer->position;
        const char *end = memmem(start, left(lexer), "{{", 2);
        size_t length = end ? (size_t)(end - start) : left(lexer);
        skip(lexer, length);
        token = emit(lexer, TOKEN_TEXT);
        if (end && at_left_trim_marker(lexer, 2)) {
            while (token.length && is_space((unsigned char)token.text[token.length - 1]))
                token.length--;
        }
        if (token.length)
            return token;
        if (!end)
            break;
        if (lex_left_delimiter(lexer, &token))
            return token;
    }
    lexer->ended = true;
    return emit(lexer, TOKEN_END_OF_TEXT);
}

static struct token lex_right_delimiter(struct lexer *lexer, bool trim)
{
    struct token token;

    if (trim) {
        skip(lexer, TRIM_MARKER_LENGTH);
        ignore(lexer);
    }
    skip(lexer, 2);
    token = emit(lexer, TOKEN_RIGHT_DELIMITER);
    if (trim) {
        skip_spaces(lexer);
        ignore(lexer);
    }
    lexer->inside_action = false;
    return token;
}

/* A run of blanks, but for the one that belongs to " -}}". */
static struct token lex_space(struct lexer *lexer)
{
    bool trim;
    size_t length;

    while (is_space(peek(lexer, &length)) && !(at_right_delimiter(lexer, &trim) && trim))
        next(lexer);
    return emit(lexer, TOKEN_SPACE);
}

/* --- Words -------------------------------------------------------------------------------------
 */

static bool at_terminator(const struct lexer *lexer)
{
    size_t length;
    const uint32_t c = peek(lexer, &length);

    return c == END_OF_INPUT || is_space(c) || at(lexer, 0, "}}") ||
           (c && c < 0x80 && strchr(".,|:)(", (int)c));
}

static enum token_kind keyword(const char *word, size_t length)
{
    static const struct {
        const char *word;
        enum token_kind kind;
    } keywords[] = {
        {".", TOKEN_DOT},
        {"block", TOKEN_BLOCK},
        {"break", TOKEN_BREAK},
        {"else", TOKEN_ELSE},
        {"continue", TOKEN_CONTINUE},
        {"define", TOKEN_DEFINE},
        {"end", TOKEN_END},
        {"if", TOKEN_IF},
        {"range", TOKEN_RANGE},
        {"nil", TOKEN_NIL},
        {"template", TOKEN_TEMPLATE},
        {"with", TOKEN_WITH},
        {"true", TOKEN_BOOL},
        {"false", TOKEN_BOOL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(keywords); i++) {
        if (strlen(keywords[i].word) == length && memcmp(keywords[i].word, word, length) == 0)
            return keywords[i].kind;
    }
    return TOKEN_IDENTIFIER;
}

static struct token lex_word(struct lexer *lexer, enum token_kind kind)
{
    size_t length;

    while (is_alphanumeric(peek(lexer, &length)))
        next(lexer);
    if (!at_terminator(lexer))
        return bad_character(lexer, "bad character ", peek(lexer, &length));
    if (kind == TOKEN_IDENTIFIER)
        kind = keyword(lexer->input + lexer->start, lexer->position - lexer->start);
    return emit(lexer, kind);
}

/* The '.' or '$' was read. */
static struct token lex_field(struct lexer *lexer, enum token_kind kind)
{
    if (at_terminator(lexer))
        return emit(lexer, kind == TOKEN_FIELD ? TOKEN_DOT : kind);
    return lex_word(lexer, kind);
}

static bool scan_number(struct lexer *lexer)
{
    const char *digits = "0123456789_";
    size_t length;

    accept(lexer, "+-");
    if (accept(lexer, "0")) {
        if (accept(lexer, "xX"))
            digits = "0123456789abcdefABCDEF_";
        else if (accept(lexer, "oO"))
            digits = "01234567_";
        else if (accept(lexer, "bB"))
            digits = "01_";
    }
    accept_run(lexer, digits);
    if (accept(lexer, "."))
        accept_run(lexer, digits);
    if (strlen(digits) == 11 && accept(lexer, "eE")) {
        accept(lexer, "+-");
        accept_run(lexer, "0123456789_");
    }
    if (strlen(digits) == 23 && accept(lexer, "pP")) {
        accept(lexer, "+-");
        accept_run(lexer, "0123456789_");
    }
    accept(lexer, "i");
    if (!is_alphanumeric(peek(lexer, &length)))
        return true;
    next(lexer);
    return false;
}

static struct token lex_number(struct lexer *lexer)
{
    if (!scan_number(lexer))
        return bad_number(lexer);
    if (!at(lexer, 0, "+") && !at(lexer, 0, "-"))
        return emit(lexer, TOKEN_NUMBER);
    if (!scan_number(lexer) || lexer->input[lexer->position - 1] != 'i')
        return bad_number(lexer);
    return emit(lexer, TOKEN_COMPLEX);
}

/* Up to the quote, of which the first was read. */
static struct token lex_quoted(struct lexer *lexer, uint32_t quote, enum token_kind kind)
{
    const char *what = kind == TOKEN_STRING       ? "unterminated quoted string"
                       : kind == TOKEN_RAW_STRING ? "unterminated raw quoted string"
                                                  : "unterminated character constant";

    for (;;) {
        uint32_t c = next(lexer);
        if (c == quote)
            return emit(lexer, kind);
        if (kind != TOKEN_RAW_STRING && c == '\\') {
            c = next(lexer);
            c = c == quote || c == '\\' ? ' ' : c;
        }
        if (c == END_OF_INPUT || (c == '\n' && kind != TOKEN_RAW_STRING))
            return problem(lexer, what);
    }
}

static struct token lex_paren(struct lexer *lexer, uint32_t c)
{
    if (c == '(') {
        lexer->paren_depth++;
        return emit(lexer, TOKEN_LEFT_PAREN);
    }
    if (--lexer->paren_depth < 0)
        return problem(lexer, "unexpected right paren");
    return emit(lexer, TOKEN_RIGHT_PAREN);
}

/* The first character was read. */
static struct token lex_operand(struct lexer *lexer, uint32_t c)
{
    const bool number_follows =
        left(lexer) && lexer->input[lexer->position] >= '0' && lexer->input[lexer->position] <= '9';

    if (c == '"')
        return lex_quoted(lexer, '"', TOKEN_STRING);
    if (c == '`')
        return lex_quoted(lexer, '`', TOKEN_RAW_STRING);
    if (c == '\'')
        return lex_quoted(lexer, '\'', TOKEN_CHARACTER_CONSTANT);
    if (c == '$')
        return lex_field(lexer, TOKEN_VARIABLE);
    if (c == '.' && left(lexer) && !number_follows)
        return lex_field(lexer, TOKEN_FIELD);
    if (c == '.' || c == '+' || c == '-' || (c >= '0' && c <= '9')) {
        lexer->position--;
        return lex_number(lexer);
    }
    return lex_word(lexer, TOKEN_IDENTIFIER);
}

static struct token lex_inside_action(struct lexer *lexer)
{
    bool trim;
    uint32_t c;

    if (at_right_delimiter(lexer, &trim))
        return lexer->paren_depth == 0 ? lex_right_delimiter(lexer, trim)
                                       : problem(lexer, "unclosed left paren");
    c = next(lexer);
    if (c == END_OF_INPUT)
        return problem(lexer, "unclosed action");
    if (is_space(c))
        return lex_space(lexer);
    if (c == '=')
        return emit(lexer, TOKEN_ASSIGN);
    if (c == ':')
        return next(lexer) == '=' ? emit(lexer, TOKEN_DECLARE) : problem(lexer, "expected :=");
    if (c == '|')
        return emit(lexer, TOKEN_PIPE);
    if (c == '(' || c == ')')
        return lex_paren(lexer, c);
    if (is_alphanumeric(c) || (c < 0x80 && c && strchr("\"`'$.+-", (int)c)))
        return lex_operand(lexer, c);
    if (c < 0x80 && unicode_is_printable(c))
        return emit(lexer, TOKEN_CHARACTER);
    return bad_character(lexer, "unrecognized character in action: ", c);
}

struct token lexer_next(struct lexer *lexer)
{
    if (lexer->ended)
        return emit(lexer, TOKEN_END_OF_TEXT);
    return lexer->inside_action ? lex_inside_action(lexer) : lex_text(lexer);
}

/* --- In errors ---------------------------------------------------------------------------------
 */

void add_go_quoted(struct strbuf *out, const char *text, size_t length)
{
    static const char escapes[] = "abtnvfr";
    uint32_t c;

    strbuf_add_char(out, '"');
    for (size_t i = 0, used; i < length; i += used) {
        used = unicode_read(text + i, length - i, &c);
        if (c == UNICODE_REPLACEMENT && used == 1)
            strbuf_addf(out, "\\x%02x", (unsigned char)text[i]);
        else if (c == '"' || c == '\\')
            strbuf_addf(out, "\\%c", (char)c);
        else if (unicode_is_printable(c))
            strbuf_add(out, text + i, used);
        else if (c >= '\a' && c <= '\r')
            strbuf_addf(out, "\\%c", escapes[c - '\a']);
        else
            strbuf_addf(out, c < 0x80 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    }
    strbuf_add_char(out, '"');
}

void token_describe(const struct token *token, struct strbuf *out)
{
    size_t length = 0;
    uint32_t c;

    if (token->kind == TOKEN_END_OF_TEXT) {
        strbuf_add_str(out, "EOF");
    } else if (token->kind == TOKEN_ERROR) {
        strbuf_add(out, token->text, token->length);
    } else if (token->kind > TOKEN_KEYWORDS) {
        strbuf_addf(out, "<%.*s>", (int)token->length, token->text);
    } else {
        for (unsigned i = 0; i < 10 && length < token->length; i++)
            length += unicode_read(token->text + length, token->length - length, &c);
        add_go_quoted(out, token->text, token->length > 10 ? length : token->length);
        strbuf_add_str(out, token->length > 10 ? "..." : "");
    }
}
