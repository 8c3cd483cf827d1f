#include "client/ui/moment.h"

#include <time.h>

#define NS_PER_SECOND 1000000000LL

static void add_formatted(struct strbuf *out, int64_t unix_ns, const char *format, struct tm *ret)
{
    const time_t seconds = (time_t)(unix_ns / NS_PER_SECOND - (unix_ns % NS_PER_SECOND < 0));
    char text[96];
    localtime_r(&seconds, ret);
    strftime(text, sizeof(text), format, ret);
    strbuf_add_str(out, text);
}

void add_moment(struct strbuf *out, int64_t unix_ns)
{
    struct tm tm;
    if (unix_ns == MOMENT_LONG_AGO)
        strbuf_add_str(out, "0001-01-01 00:00:00 +0000 UTC");
    else
        add_formatted(out, unix_ns, "%Y-%m-%d %H:%M:%S %z %Z", &tm);
}

void add_date(struct strbuf *out, int64_t unix_ns)
{
    struct tm tm;
    if (unix_ns == MOMENT_LONG_AGO) {
        strbuf_add_str(out, "0001-01-01T00:00:00Z");
        return;
    }
    add_formatted(out, unix_ns, "%Y-%m-%dT%H:%M:%S", &tm);
    const long minutes = labs(tm.tm_gmtoff) / 60;
    if (minutes == 0)
        strbuf_add_char(out, 'Z');
    else
        strbuf_addf(out, "%c%02ld:%02ld", tm.tm_gmtoff < 0 ? '-' : '+', minutes / 60, minutes % 60);
}
