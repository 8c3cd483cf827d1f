#include "client/ui/units.h"

void add_duration(struct strbuf *out, int64_t seconds)
{
    seconds = MIN(seconds, INT64_MAX / 1000000000); /* Go's longest duration */
    const int64_t minutes = seconds / 60, hours = (seconds + 1800) / 3600;
    const int64_t day = 24, week = 7 * day, month = 30 * day, year = 365 * day;
    if (seconds < 1)
        strbuf_add_str(out, "Less than a second");
    else if (seconds == 1)
        strbuf_add_str(out, "1 second");
    else if (seconds < 60)
        strbuf_addf(out, "%lld seconds", (long long)seconds);
    else if (minutes == 1)
        strbuf_add_str(out, "About a minute");
    else if (minutes < 60)
        strbuf_addf(out, "%lld minutes", (long long)minutes);
    else if (hours == 1)
        strbuf_add_str(out, "About an hour");
    else if (hours < 2 * day)
        strbuf_addf(out, "%lld hours", (long long)hours);
    else if (hours < 2 * week)
        strbuf_addf(out, "%lld days", (long long)(hours / day));
    else if (hours < 2 * month)
        strbuf_addf(out, "%lld weeks", (long long)(hours / week));
    else if (hours < 2 * year)
        strbuf_addf(out, "%lld months", (long long)(hours / month));
    else
        strbuf_addf(out, "%lld years", (long long)(seconds / 3600 / year)); /* not rounded */
}

void add_countdown(struct strbuf *out, int64_t milliseconds)
{
    const long long seconds = (long long)((milliseconds + 999) / 1000);
    if (seconds < 60)
        strbuf_addf(out, "%llds", MAX(seconds, 0));
    else if (seconds < 3600)
        strbuf_addf(out, "%lldm%02llds", seconds / 60, seconds % 60);
    else
        strbuf_addf(out, "%lldh%02lldm", seconds / 3600, seconds / 60 % 60);
}

const char *id_digits(const char *id)
{
    const char *colon = strchr(id, ':');
    return colon ? colon + 1 : id;
}
