#include "daemon/registry/http_date.h"

#include <ctype.h>

#define YEAR_S (366LL * 24 * 3600)

/* One of names, in three letters or in full; case counts (RFC 9110, 5.6.7). */
static bool take_name(const char **text, const char *const *names, size_t count, bool full,
                      unsigned int *ret)
{
    for (size_t i = 0; i < count; i++) {
        size_t length = full ? strlen(names[i]) : 3;
        if (strncmp(*text, names[i], length) == 0) {
            *text += length;
            *ret = (unsigned int)i;
            return true;
        }
    }
    return false;
}

static bool take_day_name(const char **text, bool full)
{
    static const char *const names[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                        "Thursday", "Friday", "Saturday"};
    unsigned int which;

    return take_name(text, names, ARRAY_SIZE(names), full, &which);
}

static bool take_month(const char **text, unsigned int *ret)
{
    static const char *const names[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

    return take_name(text, names, ARRAY_SIZE(names), true, ret);
}

static bool take_text(const char **text, const char *expected)
{
    size_t length = strlen(expected);

    if (strncmp(*text, expected, length) != 0)
        return false;
    *text += length;
    return true;
}

/* So many digits; asctime's day has a blank instead of a leading zero. */
static bool take_digits(const char **text, unsigned int count, bool blank, unsigned int *ret)
{
    *ret = 0;
    for (unsigned int i = 0; i < count; i++, (*text)++) {
        if (i == 0 && blank && **text == ' ')
            continue;
        if (!isdigit((unsigned char)**text))
            return false;
        *ret = *ret * 10 + (unsigned int)(**text - '0');
    }
    return true;
}

struct moment {
    unsigned int year, month, day, hour, minute, second; /* month from 0 */
};

static bool take_time(const char **text, struct moment *ret)
{
    return take_digits(text, 2, false, &ret->hour) && take_text(text, ":") &&
           take_digits(text, 2, false, &ret->minute) && take_text(text, ":") &&
           take_digits(text, 2, false, &ret->second);
}

/* Sun, 06 Nov 1994 08:49:37 GMT */
static bool parse_fixed(const char *text, struct moment *ret)
{
    return take_day_name(&text, false) && take_text(&text, ", ") &&
           take_digits(&text, 2, false, &ret->day) && take_text(&text, " ") &&
           take_month(&text, &ret->month) && take_text(&text, " ") &&
           take_digits(&text, 4, false, &ret->year) && take_text(&text, " ") &&
           take_time(&text, ret) && take_text(&text, " GMT") && !*text;
}

/* Sunday, 06-Nov-94 08:49:37 GMT: a year of the past hundred, or of the next fifty. */
static bool parse_rfc850(const char *text, unsigned int this_year, struct moment *ret)
{
    if (!take_day_name(&text, true) || !take_text(&text, ", ") ||
        !take_digits(&text, 2, false, &ret->day) || !take_text(&text, "-") ||
        !take_month(&text, &ret->month) || !take_text(&text, "-") ||
        !take_digits(&text, 2, false, &ret->year) || !take_text(&text, " ") ||
        !take_time(&text, ret) || !take_text(&text, " GMT") || *text)
        return false;
    ret->year += this_year / 100 * 100;
    if (ret->year > this_year + 50)
        ret->year -= 100;
    return true;
}

/* Sun Nov  6 08:49:37 1994 */
static bool parse_asctime(const char *text, struct moment *ret)
{
    return take_day_name(&text, false) && take_text(&text, " ") && take_month(&text, &ret->month) &&
           take_text(&text, " ") && take_digits(&text, 2, true, &ret->day) &&
           take_text(&text, " ") && take_time(&text, ret) && take_text(&text, " ") &&
           take_digits(&text, 4, false, &ret->year) && !*text;
}

static bool is_leap(unsigned int year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* Days since 1970-01-01 of the first day of a year. */
static int64_t days_before(unsigned int year)
{
    int64_t y = (int64_t)year - 1;

    return y * 365 + y / 4 - y / 100 + y / 400 - 719162;
}

static bool to_unix(const struct moment *moment, int64_t *ret_unix)
{
    static const unsigned char lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int64_t days;

    /* A leap second is the first of the next minute. */
    if (moment->year < 1970 || moment->hour > 23 || moment->minute > 59 || moment->second > 60)
        return false;
    if (moment->day < 1 ||
        moment->day >
            lengths[moment->month] + (moment->month == 1 && is_leap(moment->year) ? 1U : 0U))
        return false;
    days = days_before(moment->year) + moment->day - 1;
    for (unsigned int month = 0; month < moment->month; month++)
        days += lengths[month] + (month == 1 && is_leap(moment->year) ? 1 : 0);
    *ret_unix = ((days * 24 + moment->hour) * 60 + moment->minute) * 60 + moment->second;
    return true;
}

bool http_date_parse(const char *text, int64_t now_unix, int64_t *ret_unix)
{
    unsigned int this_year = 1970 + (unsigned int)(now_unix / 31556952);
    struct moment moment;

    return (parse_fixed(text, &moment) || parse_rfc850(text, this_year, &moment) ||
            parse_asctime(text, &moment)) &&
           to_unix(&moment, ret_unix);
}

uint64_t retry_after_ms(const char *text, int64_t now_unix)
{
    int64_t seconds = 0, date;

    if (str_empty(text))
        return 0;
    if (strspn(text, "0123456789") == strlen(text)) {
        for (; *text && seconds < YEAR_S; text++)
            seconds = seconds * 10 + (*text - '0');
    } else if (http_date_parse(text, now_unix, &date)) {
        seconds = date - now_unix;
    } else {
        return 0;
    }
    seconds = MAX(MIN(seconds, YEAR_S), 0);
    return MAX((uint64_t)seconds * 1000, 1U);
}
