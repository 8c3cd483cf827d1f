#include "client/ui/template_number.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "client/ui/unicode.h"

/* --- Strings -----------------------------------------------------------------------------------
 */

/* So many digits of a base. */
static bool read_digits(const char **text, const char *end, unsigned count, int base, uint32_t *ret)
{
    char digits[9] = "";
    char *stop;

    if (end - *text < (ptrdiff_t)count)
        return false;
    memcpy(digits, *text, count);
    *text += count;
    *ret = (uint32_t)strtoul(digits, &stop, base);
    return stop == digits + count && isxdigit((unsigned char)*digits);
}

/* After a backslash. False: there is no such escape. *ret_byte: it is a byte, no character. */
static bool read_escape(const char **text, const char *end, char quote, uint32_t *ret,
                        bool *ret_byte)
{
    static const char letters[] = "abfnrtv\\", values[] = "\a\b\f\n\r\t\v\\";
    const char c = *(*text)++;
    const char *letter = c ? strchr(letters, c) : NULL;
    bool valid;

    *ret_byte = false;
    if (letter || c == quote) {
        *ret = (unsigned char)(letter ? values[letter - letters] : quote);
        return true;
    }
    if (c >= '0' && c <= '7') {
        --*text;
        *ret_byte = true;
        return read_digits(text, end, 3, 8, ret) && *ret < 256;
    }
    *ret_byte = c == 'x';
    if (c != 'x' && c != 'u' && c != 'U')
        return false;
    valid = read_digits(text, end, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16, ret);
    return valid && *ret <= 0x10ffff && !(*ret >= 0xd800 && *ret < 0xe000);
}

static bool unquote_escapes(const char *text, const char *end, char quote, struct strbuf *out)
{
    uint32_t character;
    bool byte;

    while (text < end) {
        if (*text == quote || *text == '\n')
            return false;
        if (*text != '\\') {
            strbuf_add_char(out, *text++);
            continue;
        }
        if (++text == end || !read_escape(&text, end, quote, &character, &byte))
            return false;
        if (byte)
            strbuf_add_char(out, (char)character);
        else
            unicode_add(out, character);
    }
    return true;
}

char *string_unquote(const char *quoted, size_t length, size_t *ret_length)
{
    CLEANUP_STRBUF struct strbuf out = {0};
    const char *text = quoted + 1, *end = quoted + length - 1;

    if (*quoted != '`' && !unquote_escapes(text, end, *quoted, &out))
        return NULL;
    for (; *quoted == '`' && text < end; text++) {
        if (*text != '\r')
            strbuf_add_char(&out, *text);
    }
    *ret_length = out.length;
    return strbuf_take(&out);
}

/* --- Numbers -----------------------------------------------------------------------------------
 */

static char *problem(const char *what, const char *text, bool quoted)
{
    CLEANUP_STRBUF struct strbuf out = {0};

    strbuf_add_str(&out, what);
    if (quoted)
        add_go_quoted(&out, text, strlen(text));
    else
        strbuf_add_str(&out, text);
    return strbuf_take(&out);
}

static void set_integer(struct number *number, int64_t integer)
{
    number->is_int = number->is_float = true;
    number->integer = integer;
    number->real = (double)integer;
}

static bool parse_character(const char *text, size_t length, struct number *ret, char **ret_problem)
{
    size_t value_length, used = 0;
    uint32_t character = 0;
    CLEANUP_FREE char *value = string_unquote(text, length, &value_length);

    if (value && value_length) {
        used = unicode_read(value, value_length, &character);
        if (used == 1 && character == UNICODE_REPLACEMENT)
            character = (unsigned char)*value; /* '\xff' is a byte */
    }
    if (!value || used == 0) {
        *ret_problem = xstrdup("invalid syntax");
        return false;
    }
    if (used != value_length) {
        *ret_problem = problem("malformed character constant: ", text, false);
        return false;
    }
    set_integer(ret, character);
    return true;
}

/* Underscores may stand between digits, and after the base's prefix, only of numbers that have
 * one. The caller frees the result. */
static char *without_underscores(const char *text, bool prefixed)
{
    CLEANUP_STRBUF struct strbuf out = {0};

    for (const char *c = text; *c; c++) {
        const bool fits =
            c > text && isalnum((unsigned char)c[-1]) && isxdigit((unsigned char)c[1]);
        if (*c != '_')
            strbuf_add_char(&out, *c);
        else if (!fits || (!prefixed && text[0] == '0'))
            return NULL;
    }
    return strbuf_take(&out);
}

/* Go's base 0: 0x, 0o, 0b, 0. */
static bool parse_unsigned(const char *digits, uint64_t *ret)
{
    const char second = (char)(*digits == '0' ? tolower((unsigned char)digits[1]) : '\0');
    const int base = second == 'x' ? 16 : second == 'o' || second ? 8 : 10;
    const bool binary = second == 'b', prefixed = second == 'x' || second == 'o' || binary;
    char *end;

    digits += prefixed ? 2 : 0;
    errno = 0;
    *ret = strtoull(digits, &end, binary ? 2 : base);
    return isxdigit((unsigned char)*digits) && !*end && errno == 0;
}

static bool parse_integer(const char *text, struct number *ret)
{
    const bool negative = *text == '-';
    uint64_t size;

    if (!parse_unsigned(text + (negative || *text == '+'), &size))
        return false;
    if (size <= (negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX)) {
        set_integer(ret, negative ? (int64_t)(0 - size) : (int64_t)size);
        return true;
    }
    ret->too_large = *text != '-' && *text != '+';
    ret->is_float = ret->too_large;
    ret->real = (double)size;
    return ret->too_large;
}

static bool parse_real(const char *text, double *ret)
{
    const bool hex = strpbrk(text, "xX") != NULL;
    char *end;

    if (!strpbrk(text, "0123456789") || (hex && !strpbrk(text, "pP")))
        return false;
    *ret = strtod(text, &end);
    return !*end && isfinite(*ret);
}

static bool parse_complex(const char *text, struct number *ret)
{
    const size_t length = strlen(text);
    const char *split = text + length - 1;
    CLEANUP_FREE char *real = NULL, *imaginary = NULL;

    while (split > text && !(strchr("+-", *split) && !strchr("eEpP", split[-1])))
        split--;
    real = xstrndup(text, (size_t)(split - text));
    imaginary = xstrndup(split, (size_t)(text + length - 1 - split));
    ret->is_complex = true;
    return (!*real || parse_real(real, &ret->real)) && parse_real(imaginary, &ret->imaginary);
}

bool number_parse(const struct token *token, struct number *ret, char **ret_problem)
{
    CLEANUP_FREE char *text = xstrndup(token->text, token->length), *digits = NULL;
    const char *first = text + (strchr("+-", *text) != NULL);

    *ret = (struct number){0};
    if (token->kind == TOKEN_CHARACTER_CONSTANT)
        return parse_character(text, token->length, ret, ret_problem);
    digits = without_underscores(text, *first == '0' && isalpha((unsigned char)first[1]));
    if (!digits) {
        *ret_problem = problem("illegal number syntax: ", text, true);
        return false;
    }
    if (*digits && digits[strlen(digits) - 1] == 'i' && parse_complex(digits, ret))
        return true;
    if (parse_integer(digits, ret))
        return true;
    if (!parse_real(digits, &ret->real)) {
        *ret_problem = problem("illegal number syntax: ", text, true);
        return false;
    }
    if (!strpbrk(text, ".eEpP")) {
        *ret_problem = problem("integer overflow: ", text, true);
        return false;
    }
    ret->is_float = true;
    if (fabs(ret->real) < 9e18 && (double)(int64_t)ret->real == ret->real) {
        ret->is_int = true;
        ret->integer = (int64_t)ret->real;
    }
    return true;
}
