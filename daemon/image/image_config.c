#include "daemon/image/image_config.h"

#include <ctype.h>
#include <stdio.h>

/* --- Types ------------------------------------------------------------------------------------ */

/* Names and keys are a stranger's: of long ones the beginning will do. */
#define NAME_SHOWN 100

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "a boolean";
    }
}

bool image_config_mistyped(const char *path, const char *key, const json_t *value,
                           const char *wanted, struct error *err)
{
    error_set(err, ERROR_FAILED_PRECONDITION, "INVALID_CONFIG", "%s%s is %s, not %s", path, key,
              type_name(value), wanted);
    return error_hint(err, "no engine can use that: remove the image with `davit rmi`");
}

static bool is_absent(const json_t *value)
{
    return !value || json_is_null(value);
}

bool image_config_text(const json_t *object, const char *path, const char *key, const char **ret,
                       struct error *err)
{
    const json_t *value = json_object_get(object, key);

    *ret = "";
    if (is_absent(value))
        return true;
    if (!json_is_string(value))
        return image_config_mistyped(path, key, value, "a string", err);
    *ret = json_string_value(value);
    return true;
}

/* --- Members ---------------------------------------------------------------------------------- */

/* Converts a value that is there; *ret stays NULL if it is empty, which Docker takes for absent. */
typedef bool convert_fn(const json_t *value, const char *path, const char *key, json_t **ret,
                        struct error *err);

static bool convert_text(const json_t *value, const char *path, const char *key, json_t **ret,
                         struct error *err)
{
    if (!json_is_string(value))
        return image_config_mistyped(path, key, value, "a string", err);
    if (json_string_length(value) > 0)
        *ret = json_incref((json_t *)value);
    return true;
}

static bool convert_flag(const json_t *value, const char *path, const char *key, json_t **ret,
                         struct error *err)
{
    if (!json_is_boolean(value))
        return image_config_mistyped(path, key, value, "a boolean", err);
    if (json_is_true(value))
        *ret = json_true();
    return true;
}

static bool convert_number(const json_t *value, const char *path, const char *key, json_t **ret,
                           struct error *err)
{
    if (!json_is_integer(value))
        return image_config_mistyped(path, key, value, "a whole number", err);
    if (json_integer_value(value) != 0)
        *ret = json_incref((json_t *)value);
    return true;
}

/* To Go null is the empty string. */
static bool convert_texts(const json_t *value, const char *path, const char *key, json_t **ret,
                          struct error *err)
{
    CLEANUP_JSON json_t *texts = json_array();
    const json_t *item;
    size_t i;

    if (!json_is_array(value))
        return image_config_mistyped(path, key, value, "an array of strings", err);
    json_array_foreach ((json_t *)value, i, item) {
        CLEANUP_FREE char *name = xasprintf("%s[%zu]", key, i);
        if (!json_is_string(item) && !json_is_null(item))
            return image_config_mistyped(path, name, item, "a string", err);
        json_array_append_new(texts,
                              json_is_null(item) ? json_string("") : json_incref((json_t *)item));
    }
    if (json_array_size(texts) > 0)
        *ret = TAKE(texts);
    return true;
}

/* Also one word without its array. */
static bool convert_command(const json_t *value, const char *path, const char *key, json_t **ret,
                            struct error *err)
{
    if (!json_is_string(value))
        return convert_texts(value, path, key, ret, err);
    *ret = json_pack("[O]", value);
    return true;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Keys in order; the array is the caller's, the keys the object's. */
static const char **sorted_keys(const json_t *object)
{
    const char **keys = xcalloc(json_object_size(object) + 1, sizeof(*keys));
    const char *key;
    json_t *value;
    size_t count = 0;

    json_object_foreach ((json_t *)object, key, value)
        keys[count++] = key;
    qsort(keys, count, sizeof(*keys), compare_keys);
    return keys;
}

/* Ports and volumes: what counts are the keys. */
static bool convert_set(const json_t *value, const char *path, const char *key, json_t **ret,
                        struct error *err)
{
    CLEANUP_JSON json_t *set = json_object();
    CLEANUP_FREE const char **keys = NULL;

    if (!json_is_object(value))
        return image_config_mistyped(path, key, value, "an object", err);
    keys = sorted_keys(value);
    for (const char **name = keys; *name; name++) {
        const json_t *item = json_object_get(value, *name);
        CLEANUP_FREE char *shown = xasprintf("%s[\"%.*s\"]", key, NAME_SHOWN, *name);
        if (!json_is_object(item) && !json_is_null(item))
            return image_config_mistyped(path, shown, item, "an object", err);
        json_object_set_new(set, *name, json_object());
    }
    if (json_object_size(set) > 0)
        *ret = TAKE(set);
    return true;
}

static bool convert_labels(const json_t *value, const char *path, const char *key, json_t **ret,
                           struct error *err)
{
    CLEANUP_JSON json_t *labels = json_object();
    CLEANUP_FREE const char **keys = NULL;

    if (!json_is_object(value))
        return image_config_mistyped(path, key, value, "an object", err);
    keys = sorted_keys(value);
    for (const char **name = keys; *name; name++) {
        json_t *item = json_object_get(value, *name);
        CLEANUP_FREE char *shown = xasprintf("%s[\"%.*s\"]", key, NAME_SHOWN, *name);
        if (!json_is_string(item) && !json_is_null(item))
            return image_config_mistyped(path, shown, item, "a string", err);
        json_object_set_new(labels, *name,
                            json_is_null(item) ? json_string("") : json_incref(item));
    }
    if (json_object_size(labels) > 0)
        *ret = TAKE(labels);
    return true;
}

/* What an empty member is: left out, null, or the empty string. */
enum empty { EMPTY_ABSENT, EMPTY_NULL, EMPTY_TEXT };

struct member {
    const char *key;
    convert_fn *convert;
    enum empty empty;
};

static bool add_members(json_t *to, const json_t *from, const char *path,
                        const struct member *members, size_t count, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        const struct member *member = &members[i];
        const json_t *value = json_object_get(from, member->key);
        json_t *converted = NULL;
        if (!is_absent(value) && !member->convert(value, path, member->key, &converted, err))
            return false;
        if (!converted && member->empty == EMPTY_NULL)
            converted = json_null();
        else if (!converted && member->empty == EMPTY_TEXT)
            converted = json_string("");
        if (converted)
            json_object_set_new(to, member->key, converted);
    }
    return true;
}

/* One that is empty is there nevertheless: it inherits. */
static bool convert_health(const json_t *value, const char *path, const char *key, json_t **ret,
                           struct error *err)
{
    static const struct member members[] = {
        {"Interval", convert_number, EMPTY_ABSENT},
        {"Retries", convert_number, EMPTY_ABSENT},
        {"StartInterval", convert_number, EMPTY_ABSENT},
        {"StartPeriod", convert_number, EMPTY_ABSENT},
        {"Test", convert_texts, EMPTY_ABSENT},
        {"Timeout", convert_number, EMPTY_ABSENT},
    };
    CLEANUP_JSON json_t *health = json_object();
    CLEANUP_FREE char *inner = xasprintf("%s%s.", path, key);

    if (!json_is_object(value))
        return image_config_mistyped(path, key, value, "an object", err);
    if (!add_members(health, value, inner, members, ARRAY_SIZE(members), err))
        return false;
    *ret = TAKE(health);
    return true;
}

json_t *image_config_document(const json_t *config, struct error *err)
{
    /* In Docker's order, which is that of the alphabet. */
    static const struct member members[] = {
        {"ArgsEscaped", convert_flag, EMPTY_ABSENT}, {"Cmd", convert_command, EMPTY_NULL},
        {"Entrypoint", convert_command, EMPTY_NULL}, {"Env", convert_texts, EMPTY_NULL},
        {"ExposedPorts", convert_set, EMPTY_ABSENT}, {"Healthcheck", convert_health, EMPTY_ABSENT},
        {"Labels", convert_labels, EMPTY_NULL},      {"OnBuild", convert_texts, EMPTY_NULL},
        {"Shell", convert_command, EMPTY_ABSENT},    {"StopSignal", convert_text, EMPTY_ABSENT},
        {"User", convert_text, EMPTY_TEXT},          {"Volumes", convert_set, EMPTY_NULL},
        {"WorkingDir", convert_text, EMPTY_TEXT},
    };
    CLEANUP_JSON json_t *document = json_object();

    if (!is_absent(config) && !json_is_object(config)) {
        image_config_mistyped("", "config", config, "an object", err);
        return NULL;
    }
    if (!add_members(document, config, "config.", members, ARRAY_SIZE(members), err))
        return NULL;
    return TAKE(document);
}

/* --- Dates ------------------------------------------------------------------------------------ */

static bool take_number(const char **text, int digits, char separator, int least, int most)
{
    int number = 0;

    for (; digits > 0; digits--, (*text)++) {
        if (!isdigit((unsigned char)**text))
            return false;
        number = number * 10 + (**text - '0');
    }
    if (number < least || number > most)
        return false;
    if (!separator)
        return true;
    return *(*text)++ == separator;
}

char *image_date(const char *text)
{
    const char *rest = text, *fraction, *zone;
    size_t digits;

    if (!take_number(&rest, 4, '-', 0, 9999) || !take_number(&rest, 2, '-', 1, 12) ||
        !take_number(&rest, 2, 'T', 1, 31) || !take_number(&rest, 2, ':', 0, 23) ||
        !take_number(&rest, 2, ':', 0, 59) || !take_number(&rest, 2, '\0', 0, 59))
        return NULL;
    fraction = rest;
    digits = *rest == '.' ? strspn(rest + 1, "0123456789") : 0;
    if (*rest == '.' && digits == 0)
        return NULL;
    zone = rest += digits ? digits + 1 : 0;
    digits = MIN(digits, 9); /* nanoseconds */
    while (digits > 0 && fraction[digits] == '0')
        digits--;
    if (!str_eq(zone, "Z")) {
        if (*rest != '+' && *rest != '-')
            return NULL;
        rest++;
        if (!take_number(&rest, 2, ':', 0, 23) || !take_number(&rest, 2, '\0', 0, 59) || *rest)
            return NULL;
        if (str_eq(zone + 1, "00:00"))
            zone = "Z";
    }
    return xasprintf("%.*s%.*s%s", (int)(fraction - text), text, digits ? (int)digits + 1 : 0,
                     fraction, zone);
}
