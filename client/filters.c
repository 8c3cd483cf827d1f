#include "client/filters.h"

#include <ctype.h>

bool filter_check(const char *filter, struct error *err)
{
    return !*filter || strchr(filter, '=')
               ? true
               : error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                           "bad format of filter (expected name=value)");
}

/* Without the blanks around it; the caller frees it. */
static char *trimmed(const char *text, size_t length)
{
    while (length > 0 && isspace((unsigned char)*text)) {
        text++;
        length--;
    }
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        length--;
    return xstrndup(text, length);
}

char **filters_normal(char *const *filters)
{
    char **normal = NULL;
    for (; filters && *filters; filters++) {
        const size_t length = strcspn(*filters, "=");
        if (!(*filters)[length])
            continue;
        CLEANUP_FREE char *name = trimmed(*filters, length);
        CLEANUP_FREE char *value = trimmed(*filters + length + 1, strlen(*filters + length + 1));
        for (char *c = name; *c; c++)
            *c = (char)tolower((unsigned char)*c);
        CLEANUP_FREE char *filter = xasprintf("%s=%s", name, value);
        strv_add(&normal, filter);
    }
    return normal;
}
