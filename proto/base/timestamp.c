#include "proto/base/timestamp.h"

#include <ctype.h>
#include <time.h>

#include "proto/base/duration.h"

#define NS_PER_SECOND 1000000000LL
#define SECONDS_MAX (INT64_MAX / NS_PER_SECOND - 1)

/* Exactly so many digits. */
static bool take_digits(const char **text, int count, int *ret)
{
    *ret = 0;
    for (; count > 0; count--, (*text)++) {
        if (!isdigit((unsigned char)**text))
            return false;
        *ret = *ret * 10 + (**text - '0');
    }
    return true;
}

static bool take_char(const char **text, char c)
{
    if (**text != c)
        return false;
    (*text)++;
    return true;
}

/* ".5", or nothing. */
static bool take_fraction(const char **text, int64_t *ret_ns)
{
    int64_t unit = NS_PER_SECOND / 10;

    *ret_ns = 0;
    if (!take_char(text, '.'))
        return true;
    if (!isdigit((unsigned char)**text))
        return false;
    for (; isdigit((unsigned char)**text); (*text)++, unit /= 10)
        *ret_ns += (**text - '0') * unit;
    return true;
}

/* Hours, then as much as there is. */
static bool take_time(const char **text, struct tm *tm, int64_t *ret_ns)
{
    *ret_ns = 0;
    if (!take_digits(text, 2, &tm->tm_hour) || tm->tm_hour > 23)
        return false;
    if (!take_char(text, ':'))
        return true;
    if (!take_digits(text, 2, &tm->tm_min) || tm->tm_min > 59)
        return false;
    if (!take_char(text, ':'))
        return true;
    return take_digits(text, 2, &tm->tm_sec) && tm->tm_sec <= 60 && take_fraction(text, ret_ns);
}

/* "Z", "+02:00", or nothing: local time. */
static bool take_zone(const char **text, struct tm *tm, int64_t *ret_seconds)
{
    int sign = **text == '-' ? -1 : 1, hours, minutes;

    if (!**text) {
        tm->tm_isdst = -1;
        *ret_seconds = mktime(tm);
        return true;
    }
    *ret_seconds = timegm(tm);
    if (take_char(text, 'Z'))
        return true;
    if (**text != '+' && **text != '-')
        return false;
    (*text)++;
    if (!take_digits(text, 2, &hours) || !take_char(text, ':') || !take_digits(text, 2, &minutes) ||
        hours > 23 || minutes > 59)
        return false;
    *ret_seconds -= sign * (hours * 3600 + minutes * 60);
    return true;
}

static bool parse_date(const char *text, int64_t *ret_unix_ns)
{
    struct tm tm = {0};
    int64_t seconds, ns = 0;
    int year, month;

    if (!take_digits(&text, 4, &year) || !take_char(&text, '-') || !take_digits(&text, 2, &month) ||
        !take_char(&text, '-') || !take_digits(&text, 2, &tm.tm_mday) || year < 1970 ||
        year > 2200 || month < 1 || month > 12 || tm.tm_mday < 1 || tm.tm_mday > 31)
        return false;
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    if (take_char(&text, 'T') && !take_time(&text, &tm, &ns))
        return false;
    if (!take_zone(&text, &tm, &seconds) || *text)
        return false;
    *ret_unix_ns = seconds * NS_PER_SECOND + ns;
    return true;
}

static bool parse_seconds(const char *text, int64_t *ret_unix_ns)
{
    int64_t seconds = 0, ns;

    if (!isdigit((unsigned char)*text))
        return false;
    for (; isdigit((unsigned char)*text); text++) {
        seconds = seconds * 10 + (*text - '0');
        if (seconds > SECONDS_MAX)
            return false;
    }
    if (!take_fraction(&text, &ns) || *text)
        return false;
    *ret_unix_ns = seconds * NS_PER_SECOND + ns;
    return true;
}

bool timestamp_parse(const char *text, int64_t now_unix_ns, int64_t *ret_unix_ns)
{
    bool ahead = *text == '-';
    uint64_t ago_ms;

    if (parse_seconds(text, ret_unix_ns) || parse_date(text, ret_unix_ns))
        return true;
    if (!duration_parse(ahead || *text == '+' ? text + 1 : text, &ago_ms))
        return false;
    *ret_unix_ns = now_unix_ns - (ahead ? -1 : 1) * (int64_t)ago_ms * 1000000;
    return true;
}
