#include "daemon/registry/toml_word.h"

#include <ctype.h>
#include <errno.h>

#include "proto/base/strbuf.h"

/* Underscores stand between digits only. */
static bool copy_digits(const char **at, const char *end, int base, struct strbuf *ret)
{
    bool after_digit = false;

    for (; *at < end; (*at)++) {
        int c = tolower((unsigned char)**at);
        bool digit = base == 16 ? isxdigit(c) : c >= '0' && c < '0' + base;
        if (c == '_' && after_digit && *at + 1 < end) {
            after_digit = false;
            continue;
        }
        if (!digit)
            break;
        strbuf_add_char(ret, (char)c);
        after_digit = true;
    }
    return after_digit;
}

/* 0x, 0o, 0b. */
static int base_of(const char *at, const char *end)
{
    if (end - at < 3 || at[0] != '0')
        return 10;
    return at[1] == 'x' ? 16 : at[1] == 'o' ? 8 : at[1] == 'b' ? 2 : 10;
}

bool toml_read_integer(const char *at, const char *end, int64_t *ret)
{
    CLEANUP_STRBUF struct strbuf digits = {0};
    int base = base_of(at, end);

    if (base != 10)
        at += 2;
    else if (*at == '+' || *at == '-')
        strbuf_add_char(&digits, *at++);
    if (base == 10 && end - at > 1 && *at == '0')
        return false;
    if (!copy_digits(&at, end, base, &digits) || at != end)
        return false;
    errno = 0;
    *ret = strtoll(strbuf_text(&digits), NULL, base);
    return errno == 0;
}

bool toml_is_float(const char *at, const char *end)
{
    CLEANUP_STRBUF struct strbuf digits = {0};
    bool fraction = false;
    size_t length;

    if (at < end && (*at == '+' || *at == '-'))
        at++;
    length = (size_t)(end - at);
    if (length == 3 && (memcmp(at, "inf", 3) == 0 || memcmp(at, "nan", 3) == 0))
        return true;
    if (length > 1 && at[0] == '0' && (isdigit((unsigned char)at[1]) || at[1] == '_'))
        return false;
    if (!copy_digits(&at, end, 10, &digits))
        return false;
    if (at < end && *at == '.') {
        at++;
        fraction = true;
        if (!copy_digits(&at, end, 10, &digits))
            return false;
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        fraction = true;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        if (!copy_digits(&at, end, 10, &digits))
            return false;
    }
    return fraction && at == end;
}

/* So many digits, of a number in these bounds. */
static bool take_number(const char **at, size_t digits, unsigned int low, unsigned int high,
                        unsigned int *ret)
{
    *ret = 0;
    for (; digits > 0; digits--, (*at)++) {
        if (!isdigit((unsigned char)**at))
            return false;
        *ret = *ret * 10 + (unsigned int)(**at - '0');
    }
    return *ret >= low && *ret <= high;
}

static bool take_char(const char **at, const char *one_of)
{
    if (!**at || !strchr(one_of, **at))
        return false;
    (*at)++;
    return true;
}

static bool take_day(const char **at)
{
    static const unsigned char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    unsigned int year, month, day;

    if (!take_number(at, 4, 0, 9999, &year) || !take_char(at, "-") ||
        !take_number(at, 2, 1, 12, &month) || !take_char(at, "-") ||
        !take_number(at, 2, 1, 31, &day))
        return false;
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return day <= days[month - 1] + (month == 2 && leap ? 1U : 0U);
}

static bool take_time(const char **at)
{
    unsigned int number;

    if (!take_number(at, 2, 0, 23, &number) || !take_char(at, ":") ||
        !take_number(at, 2, 0, 59, &number) || !take_char(at, ":") ||
        !take_number(at, 2, 0, 60, &number))
        return false;
    if (**at != '.')
        return true;
    (*at)++;
    if (!isdigit((unsigned char)**at))
        return false;
    while (isdigit((unsigned char)**at))
        (*at)++;
    return true;
}

bool toml_is_date(const char *at)
{
    unsigned int number;

    if (isdigit((unsigned char)at[0]) && isdigit((unsigned char)at[1]) && at[2] == ':')
        return take_time(&at) && !*at;
    if (!take_day(&at))
        return false;
    if (!*at)
        return true;
    if (!take_char(&at, "Tt ") || !take_time(&at))
        return false;
    if (take_char(&at, "Zz") || !*at)
        return !*at;
    return take_char(&at, "+-") && take_number(&at, 2, 0, 23, &number) && take_char(&at, ":") &&
           take_number(&at, 2, 0, 59, &number) && !*at;
}

size_t toml_utf8_length(const unsigned char *text, size_t size)
{
    uint32_t c = text[0], least;
    size_t length;

    if (c < 0x80)
        return 1;
    if (c >= 0xc2 && c < 0xe0) {
        length = 2, least = 0x80, c &= 0x1f;
    } else if (c >= 0xe0 && c < 0xf0) {
        length = 3, least = 0x800, c &= 0x0f;
    } else if (c >= 0xf0 && c < 0xf5) {
        length = 4, least = 0x10000, c &= 0x07;
    } else {
        return 0;
    }
    if (size < length)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (text[i] & 0x3fU);
    }
    return c < least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : length;
}
