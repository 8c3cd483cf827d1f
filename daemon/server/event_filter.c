#include "daemon/server/event_filter.h"

/* Each event is compared with each of them. */
#define FILTERS_MAX 100

static const char *const names[] = {
    "config", "container", "daemon", "event",  "image",   "label", "network",
    "node",   "plugin",    "scope",  "secret", "service", "type",  "volume",
};

static const char *value_of(const char *filter, const char *name)
{
    size_t length = strlen(name);

    return strncmp(filter, name, length) == 0 && filter[length] == '=' ? filter + length + 1 : NULL;
}

bool event_filters_check(char *const *filters, size_t count, struct error *err)
{
    if (count > FILTERS_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_FILTER",
                         "%zu filters, the limit is %d", count, FILTERS_MAX);
    for (size_t i = 0; i < count; i++) {
        bool known = false;
        for (size_t k = 0; k < ARRAY_SIZE(names); k++)
            known |= value_of(filters[i], names[k]) != NULL;
        if (known)
            continue;
        error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_FILTER", "invalid filter '%.*s'",
                  (int)strcspn(filters[i], "="), filters[i]);
        return error_hint(err, "filters are type, event, image and label, as in "
                               "--filter event=pull");
    }
    return true;
}

/* "busybox:latest" is also meant by "busybox". */
static bool names_image(const char *wanted, const char *name)
{
    const char *slash = strrchr(name, '/');
    const char *tag = strchr(slash ? slash : name, ':');
    const char *digest = strchr(name, '@');
    const char *end = digest ? digest : tag;

    return str_eq(wanted, name) || (end && strlen(wanted) == (size_t)(end - name) &&
                                    strncmp(wanted, name, strlen(wanted)) == 0);
}

static bool has_label(const char *wanted, const json_t *attributes)
{
    CLEANUP_FREE char *key = xstrndup(wanted, strcspn(wanted, "="));
    const char *value = json_str(attributes, key);

    return value && (!strchr(wanted, '=') || str_eq(value, strchr(wanted, '=') + 1));
}

static bool matches(const char *name, const char *wanted, const struct event_record *event,
                    const json_t *attributes)
{
    const char *actor_name = json_str(attributes, "name");

    if (str_eq(name, "type"))
        return str_eq(wanted, event->type);
    if (str_eq(name, "event"))
        return str_eq(wanted, event->action);
    if (str_eq(name, "scope"))
        return str_eq(wanted, "local");
    if (str_eq(name, "label"))
        return has_label(wanted, attributes);
    if (!str_eq(name, event->type))
        return false; /* of another kind of thing */
    return names_image(wanted, event->actor) || (actor_name && names_image(wanted, actor_name));
}

/* One name's filters. */
static bool matches_name(const char *name, char *const *filters, size_t count,
                         const struct event_record *event, const json_t *attributes)
{
    bool all = str_eq(name, "label"), asked = false, any = false;

    for (size_t i = 0; i < count; i++) {
        const char *wanted = value_of(filters[i], name);
        if (!wanted)
            continue;
        bool match = matches(name, wanted, event, attributes);
        if (all && !match)
            return false;
        asked = true;
        any |= match;
    }
    return any || !asked;
}

bool event_matches(char *const *filters, size_t count, const struct event_record *event,
                   const json_t *attributes)
{
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (!matches_name(names[i], filters, count, event, attributes))
            return false;
    }
    return true;
}
