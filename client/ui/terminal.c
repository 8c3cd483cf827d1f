#include "client/ui/terminal.h"

#include <sys/ioctl.h>
#include <termios.h>

bool terminal_is_smart(int fd)
{
    const char *type = getenv("TERM");
    return isatty(fd) && !str_empty(type) && !str_eq(type, "dumb");
}

static unsigned size_or(unsigned reported, const char *variable, unsigned fallback)
{
    if (reported > 0)
        return reported;
    const char *text = getenv(variable);
    const long value = text ? strtol(text, NULL, 10) : 0;
    return value > 0 && value <= 10000 ? (unsigned)value : fallback;
}

struct terminal_size terminal_size(int fd)
{
    struct winsize size = {0};
    if (ioctl(fd, TIOCGWINSZ, &size) < 0)
        size = (struct winsize){0};
    return (struct terminal_size){.width = size_or(size.ws_col, "COLUMNS", 80),
                                  .height = size_or(size.ws_row, "LINES", 24)};
}

bool terminal_wants_color(int fd)
{
    return terminal_is_smart(fd) && str_empty(getenv("NO_COLOR"));
}

/* Length of the well-formed UTF-8 sequence at s (Unicode 15, table 3-7), or 0. */
static size_t utf8_length(const unsigned char *s)
{
    static const struct {
        unsigned char first_low, first_high, second_low, second_high;
        size_t length;
    } forms[] = {
        {0x01, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        if (s[0] < forms[i].first_low || s[0] > forms[i].first_high)
            continue;
        if (forms[i].length > 1 && (s[1] < forms[i].second_low || s[1] > forms[i].second_high))
            return 0;
        for (size_t k = 2; k < forms[i].length; k++) {
            if (s[k] < 0x80 || s[k] > 0xbf)
                return 0;
        }
        return forms[i].length;
    }
    return 0;
}

void terminal_add_safe(struct strbuf *out, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    while (*s) {
        const size_t length = utf8_length(s);
        /* U+0080 to U+009F are control characters too: C2 80 to C2 9F. */
        const bool control =
            (*s < 0x20 && *s != '\n' && *s != '\t') || *s == 0x7f || (s[0] == 0xc2 && s[1] < 0xa0);
        if (length == 0 || control)
            strbuf_add_char(out, '?');
        else
            strbuf_add(out, s, length);
        s += MAX(length, 1);
    }
}

size_t terminal_columns(const char *text)
{
    size_t columns = 0;
    for (; *text; text++)
        columns += ((unsigned char)*text & 0xc0) != 0x80;
    return columns;
}
