/* OCI image-spec, config.md. */
#include <stdio.h>
#include <time.h>

#include "daemon/registry/manifest.h"
#include "proto/base/json.h"

struct image_config *image_config_free(struct image_config *config)
{
    if (!config)
        return NULL;
    free(config->os);
    free(config->architecture);
    free(config->variant);
    strv_free(config->env);
    strv_free(config->entrypoint);
    strv_free(config->cmd);
    free(config->user);
    free(config->working_dir);
    free(config->stop_signal);
    free(config->diff_ids);
    free(config);
    return NULL;
}

static bool invalid(struct error *err, const char *why, const char *detail)
{
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_MANIFEST",
                     "invalid image configuration: %s%s", why, detail);
}

/* An absent or null member leaves *ret NULL. */
static bool copy_string(const json_t *object, const char *key, char **ret, struct error *err)
{
    const json_t *value = json_object_get(object, key);

    if (!value || json_is_null(value))
        return true;
    if (!json_is_string(value))
        return invalid(err, "not a string: ", key);
    *ret = xstrdup(json_string_value(value));
    return true;
}

/* Docker takes a plain string for a command of one word. */
static bool copy_strings(const json_t *object, const char *key, char ***ret, struct error *err)
{
    const json_t *value = json_object_get(object, key);

    if (json_is_string(value)) {
        *ret = xcalloc(2, sizeof(**ret));
        (*ret)[0] = xstrdup(json_string_value(value));
        return true;
    }
    if (json_strv(value, key, ret, NULL))
        return true;
    return invalid(err, "not an array of strings: ", key);
}

static int64_t parse_fraction(const char **text)
{
    int64_t ns = 0, unit = 100000000;

    if (**text != '.')
        return 0;
    for ((*text)++; **text >= '0' && **text <= '9'; (*text)++) {
        ns += (**text - '0') * unit;
        unit /= 10;
    }
    return ns;
}

/* RFC 3339, as Go writes it: 2024-01-02T03:04:05.678Z. */
int64_t image_config_time(const char *text)
{
    struct tm tm = {0};
    int hours = 0, minutes = 0;
    int64_t seconds, ns;
    char sign = 'Z';

    text = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
    if (!text)
        return 0;
    ns = parse_fraction(&text);
    if (*text != 'Z' && *text != 'z' &&
        (sscanf(text, "%c%2d:%2d", &sign, &hours, &minutes) != 3 || (sign != '+' && sign != '-')))
        return 0;
    seconds = (int64_t)timegm(&tm);
    seconds -= (sign == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
    /* Nanoseconds in 64 bits begin in 1677 and end in 2262. */
    if (seconds <= INT64_MIN / 1000000000)
        return TIME_LONG_AGO;
    return seconds >= INT64_MAX / 1000000000 ? TIME_FAR_AHEAD : seconds * 1000000000 + ns;
}

static bool parse_diff_ids(const json_t *rootfs, struct image_config *config, struct error *err)
{
    const json_t *diff_ids = json_object_get(rootfs, "diff_ids");
    size_t count = json_array_size(diff_ids);

    if (!str_eq(json_str(rootfs, "type"), "layers") || !json_is_array(diff_ids))
        return invalid(err, "it has no rootfs of layers", "");
    if (count > MANIFEST_MAX_LAYERS)
        return invalid(err, "it has too many layers", "");
    config->diff_ids = xcalloc(count ? count : 1, sizeof(*config->diff_ids));
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(diff_ids, i));
        if (!text)
            return invalid(err, "a diff_id is not a string", "");
        if (!digest_parse(text, &config->diff_ids[i], err))
            return error_prefix(err, "invalid image configuration: diff_id");
        config->diff_id_count++;
    }
    return true;
}

static bool parse_run_config(const json_t *json, struct image_config *config, struct error *err)
{
    if (json && !json_is_object(json) && !json_is_null(json))
        return invalid(err, "not an object: ", "config");
    return copy_strings(json, "Env", &config->env, err) &&
           copy_strings(json, "Entrypoint", &config->entrypoint, err) &&
           copy_strings(json, "Cmd", &config->cmd, err) &&
           copy_string(json, "User", &config->user, err) &&
           copy_string(json, "WorkingDir", &config->working_dir, err) &&
           copy_string(json, "StopSignal", &config->stop_signal, err);
}

struct image_config *image_config_parse(const void *data, size_t size, struct error *err)
{
    CLEANUP(image_config_cleanup) struct image_config *config = xcalloc(1, sizeof(*config));
    CLEANUP_JSON json_t *json =
        json_parse(data, size, MANIFEST_MAX_BYTES, "the image configuration", err);

    if (!json)
        return NULL;
    if (!json_is_object(json)) {
        invalid(err, "it is not an object", "");
        return NULL;
    }
    config->created_unix_ns = image_config_time(json_str(json, "created"));
    if (!copy_string(json, "os", &config->os, err) ||
        !copy_string(json, "architecture", &config->architecture, err) ||
        !copy_string(json, "variant", &config->variant, err) ||
        !parse_diff_ids(json_object_get(json, "rootfs"), config, err) ||
        !parse_run_config(json_object_get(json, "config"), config, err))
        return NULL;
    if (str_empty(config->os)) {
        free(config->os);
        config->os = xstrdup("linux");
    }
    if (!config->architecture)
        config->architecture = xstrdup("");
    return TAKE(config);
}
