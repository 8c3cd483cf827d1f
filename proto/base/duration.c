#include "proto/base/duration.h"

#include <ctype.h>

#define MAX_NS (100ULL * 366 * 24 * 3600 * 1000000000ULL)

static const struct {
    const char *name;
    uint64_t ns;
} units[] = {
    {"ns", 1},
    {"us", 1000},
    {"\xc2\xb5s", 1000},
    {"ms", 1000000},
    {"s", 1000000000ULL},
    {"m", 60 * 1000000000ULL},
    {"h", 3600 * 1000000000ULL},
    {"d", 24 * 3600 * 1000000000ULL},
};

/* The unit at text, which ends before the next number; 0 if it is none. */
static uint64_t take_unit(const char **text)
{
    size_t length = strcspn(*text, "0123456789.");

    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        if (strlen(units[i].name) == length && strncmp(*text, units[i].name, length) == 0) {
            *text += length;
            return units[i].ns;
        }
    }
    return 0;
}

/* One number with its unit. */
static bool take_part(const char **text, uint64_t *ret_ns)
{
    uint64_t whole = 0, fraction = 0, scale = 1, unit;
    bool digits = false;

    for (; isdigit((unsigned char)**text); (*text)++, digits = true) {
        whole = whole * 10 + (uint64_t)(**text - '0');
        if (whole > MAX_NS)
            return false;
    }
    if (**text == '.') {
        for ((*text)++; isdigit((unsigned char)**text); (*text)++, digits = true) {
            if (scale < 10000) { /* finer parts make no difference to milliseconds */
                fraction = fraction * 10 + (uint64_t)(**text - '0');
                scale *= 10;
            }
        }
    }
    unit = take_unit(text);
    if (!digits || !unit || whole > MAX_NS / unit)
        return false;
    *ret_ns = whole * unit + fraction * (unit / scale) + fraction * (unit % scale) / scale;
    return true;
}

bool duration_parse_ns(const char *text, uint64_t *ret_ns)
{
    uint64_t total_ns = 0, part_ns;

    if (str_eq(text, "0")) {
        *ret_ns = 0;
        return true;
    }
    do {
        if (!take_part(&text, &part_ns) || part_ns > MAX_NS - total_ns)
            return false;
        total_ns += part_ns;
    } while (*text);
    *ret_ns = total_ns;
    return true;
}

bool duration_parse(const char *text, uint64_t *ret_ms)
{
    uint64_t ns;

    if (!duration_parse_ns(text, &ns))
        return false;
    *ret_ms = (ns + 999999) / 1000000;
    return true;
}
