#include "proto/base/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <strings.h>

static struct size_text scaled(uint64_t bytes, int digits, double base, const char *const *units,
                               size_t count)
{
    struct size_text result;
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= base && unit < count - 1) {
        value /= base;
        unit++;
    }
    snprintf(result.text, sizeof(result.text), "%.*g%s", digits, value, units[unit]);
    return result;
}

static const char *const decimal_units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};

struct size_text size_text(uint64_t bytes)
{
    return scaled(bytes, 4, 1000, decimal_units, ARRAY_SIZE(decimal_units));
}

struct size_text short_size_text(uint64_t bytes)
{
    return scaled(bytes, 3, 1000, decimal_units, ARRAY_SIZE(decimal_units));
}

void add_size(struct strbuf *out, uint64_t bytes)
{
    strbuf_add_str(out, size_text(bytes).text);
}

void add_memory_size(struct strbuf *out, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};

    strbuf_add_str(out, scaled(bytes, 4, 1024, units, ARRAY_SIZE(units)).text);
}

/* The factor that a unit stands for, or 0. */
static double unit_factor(const char *unit)
{
    static const char letters[] = "kmgt";
    double factor = 1, base = 1000;
    const char *letter = *unit ? strchr(letters, tolower((unsigned char)*unit)) : NULL;

    if (letter) {
        unit++;
        if (tolower((unsigned char)*unit) == 'i') {
            base = 1024;
            unit++;
        }
        for (const char *l = letters; l <= letter; l++)
            factor *= base;
    }
    return !*unit || strcasecmp(unit, "b") == 0 ? factor : 0;
}

bool size_parse(const char *text, uint64_t *ret_bytes)
{
    size_t digits = strspn(text, "0123456789."), dots = 0;
    double number, factor = unit_factor(text + digits);
    char *end;

    for (size_t i = 0; i < digits; i++)
        dots += text[i] == '.';
    if (!isdigit((unsigned char)*text) || dots > 1 || factor == 0)
        return false;
    number = strtod(text, &end);
    if (end != text + digits || number * factor >= (double)INT64_MAX)
        return false;
    *ret_bytes = (uint64_t)(number * factor);
    return true;
}
