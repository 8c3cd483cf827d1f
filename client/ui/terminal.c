#include "client/ui/terminal.h"

#include <sys/ioctl.h>
#include <termios.h>

#include "client/ui/unicode.h"

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

size_t terminal_table_width(void)
{
    return isatty(STDOUT_FILENO) ? terminal_size(STDOUT_FILENO).width : 0;
}

bool terminal_wants_color(int fd)
{
    return terminal_is_smart(fd) && str_empty(getenv("NO_COLOR"));
}

size_t terminal_columns(const char *text)
{
    const size_t length = strlen(text);
    size_t columns = 0;
    uint32_t c;
    for (size_t i = 0; i < length;) {
        i += unicode_read(text + i, length - i, &c);
        columns += unicode_width(c);
    }
    return columns;
}

char *terminal_shortened(const char *text, size_t columns)
{
    const size_t length = strlen(text);
    size_t used = 0, end = 0;
    uint32_t c;
    if (terminal_columns(text) <= columns)
        return xstrdup(text);
    while (end < length) {
        const size_t size = unicode_read(text + end, length - end, &c);
        used += unicode_width(c);
        if (used >= columns)
            break;
        end += size;
    }
    return xasprintf("%.*s…", (int)end, text);
}
