#include "daemon/image/filter.h"

#include "daemon/image/glob.h"
#include "daemon/image/image.h"
#include "daemon/registry/manifest.h"
#include "daemon/registry/reference.h"
#include "proto/base/json.h"
#include "proto/base/strbuf.h"
#include "proto/base/timestamp.h"

/* Each image is compared with each of them. */
#define FILTERS_MAX 100
#define FILTER_MAX_BYTES 4096
/* Of all of them together: each name is compared with each, and one name is not to take long. */
#define REFERENCES_MAX_BYTES 2048

/* --- Parsing ---------------------------------------------------------------------------------- */

struct parse {
    const struct store *store;
    int64_t now_unix_ns;
    size_t reference_bytes;
    struct image_filter *filter;
};

/* Docker lists all values that were given. */
static bool invalid_value(const char *name, const char *value, struct error *err)
{
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_FILTER", "invalid filter '%s=[%s]'",
                     name, value);
}

static bool take_dangling(struct parse *parse, const char *value, struct error *err)
{
    bool yes = str_eq(value, "true") || str_eq(value, "1");
    enum image_dangling dangling = yes ? DANGLING_YES : DANGLING_NO;

    if (!yes && !str_eq(value, "false") && !str_eq(value, "0")) {
        invalid_value("dangling", value, err);
        return error_hint(err, "it is dangling=true or dangling=false");
    }
    if (parse->filter->dangling && parse->filter->dangling != dangling)
        return invalid_value("dangling", "false true", err);
    parse->filter->dangling = dangling;
    return true;
}

static bool take_label(struct parse *parse, const char *value, struct error *err UNUSED)
{
    strv_add(&parse->filter->labels, value);
    return true;
}

static bool take_label_not(struct parse *parse, const char *value, struct error *err UNUSED)
{
    strv_add(&parse->filter->labels_not, value);
    return true;
}

static bool take_before(struct parse *parse, const char *value, struct error *err)
{
    const struct image *image = image_resolve(parse->store, value, err);

    if (image)
        parse->filter->before_unix_ns = MIN(parse->filter->before_unix_ns, image->created_unix_ns);
    return image;
}

static bool take_since(struct parse *parse, const char *value, struct error *err)
{
    const struct image *image = image_resolve(parse->store, value, err);

    if (image)
        parse->filter->after_unix_ns = MAX(parse->filter->after_unix_ns, image->created_unix_ns);
    return image;
}

static bool take_until(struct parse *parse, const char *value, struct error *err)
{
    CLEANUP_STRBUF struct strbuf safe = {0};
    int64_t unix_ns;

    if (timestamp_parse(value, parse->now_unix_ns, &unix_ns)) {
        parse->filter->before_unix_ns = MIN(parse->filter->before_unix_ns, unix_ns);
        return true;
    }
    strbuf_add_quoted(&safe, value);
    error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_FILTER",
              "failed to parse value as time or duration: %s", strbuf_text(&safe));
    return error_hint(err, "until=24h, until=2024-01-02 and until=2024-01-02T03:04:05Z are some");
}

static bool take_reference(struct parse *parse, const char *value, struct error *err)
{
    if (!glob_is_valid(value)) {
        error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_FILTER", "syntax error in pattern");
        return error_hint(err,
                          "of %s: `*` is any text without a slash, `[abc]` any of these, and `\\` "
                          "takes the next character as it is",
                          value);
    }
    parse->reference_bytes += strlen(value);
    if (parse->reference_bytes > REFERENCES_MAX_BYTES)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_FILTER",
                         "patterns of references of %zu bytes, the limit is %d",
                         parse->reference_bytes, REFERENCES_MAX_BYTES);
    strv_add(&parse->filter->references, value);
    return true;
}

#define IN_LISTS (1U << IMAGE_FILTER_LIST)
#define IN_PRUNES (1U << IMAGE_FILTER_PRUNE)

static const struct filter_name {
    const char *name;
    unsigned int uses;
    bool (*take)(struct parse *parse, const char *value, struct error *err);
} names[] = {
    {"before", IN_LISTS, take_before},           {"dangling", IN_LISTS | IN_PRUNES, take_dangling},
    {"label", IN_LISTS | IN_PRUNES, take_label}, {"label!", IN_PRUNES, take_label_not},
    {"reference", IN_LISTS, take_reference},     {"since", IN_LISTS, take_since},
    {"until", IN_LISTS | IN_PRUNES, take_until},
};

static bool unknown_name(enum image_filter_use use, const char *filter, size_t length,
                         struct error *err)
{
    CLEANUP_STRBUF struct strbuf known = {0};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (names[i].uses & 1U << use)
            strbuf_addf(&known, "%s%s", known.length ? ", " : "", names[i].name);
    }
    error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_FILTER", "invalid filter '%.*s'", (int)length,
              filter);
    return error_hint(err, "filters are %s", strbuf_text(&known));
}

static bool take_filter(struct parse *parse, enum image_filter_use use, const char *filter,
                        struct error *err)
{
    size_t length = strcspn(filter, "=");

    if (strlen(filter) > FILTER_MAX_BYTES)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_FILTER",
                         "a filter of %zu bytes, the limit is %d", strlen(filter),
                         FILTER_MAX_BYTES);
    if (!filter[length]) {
        error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_FILTER",
                  "bad format of filter (expected name=value): %s", filter);
        return error_hint(err, "write it as in label=com.example.version=1");
    }
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if ((names[i].uses & 1U << use) && strlen(names[i].name) == length &&
            strncmp(names[i].name, filter, length) == 0)
            return names[i].take(parse, filter + length + 1, err);
    }
    return unknown_name(use, filter, length, err);
}

bool image_filter_parse(const struct store *store, enum image_filter_use use, char *const *filters,
                        size_t count, struct image_filter *ret, struct error *err)
{
    struct parse parse = {.store = store, .now_unix_ns = wall_clock_ns(), .filter = ret};

    *ret = (struct image_filter){.before_unix_ns = INT64_MAX, .after_unix_ns = INT64_MIN};
    if (count > FILTERS_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_FILTER",
                         "%zu filters, the limit is %d", count, FILTERS_MAX);
    for (size_t i = 0; i < count; i++) {
        if (!take_filter(&parse, use, filters[i], err))
            return false;
    }
    return true;
}

void image_filter_done(struct image_filter *filter)
{
    strv_free(filter->labels);
    strv_free(filter->labels_not);
    strv_free(filter->references);
    *filter = (struct image_filter){0};
}

/* --- Matching --------------------------------------------------------------------------------- */

static bool has_label(const json_t *labels, const char *wanted)
{
    CLEANUP_FREE char *key = xstrndup(wanted, strcspn(wanted, "="));
    const char *value = json_str(labels, key);

    return value && (!strchr(wanted, '=') || str_eq(value, strchr(wanted, '=') + 1));
}

static bool has_labels(const json_t *labels, char *const *wanted)
{
    for (; wanted && *wanted; wanted++) {
        if (!has_label(labels, *wanted))
            return false;
    }
    return true;
}

bool image_filter_match(const struct image_filter *filter, const struct image *image)
{
    CLEANUP_JSON json_t *labels = NULL;

    if (filter->before_unix_ns != INT64_MAX && image->created_unix_ns >= filter->before_unix_ns)
        return false;
    if (filter->after_unix_ns != INT64_MIN && image->created_unix_ns <= filter->after_unix_ns)
        return false;
    if (!filter->labels && !filter->labels_not)
        return true;
    if (image->labels)
        labels = json_parse(image->labels, strlen(image->labels), MANIFEST_MAX_BYTES, "the labels",
                            NULL);
    /* As Docker: an image stays out that has all of those it must not have. */
    return has_labels(labels, filter->labels) &&
           (!filter->labels_not || !has_labels(labels, filter->labels_not));
}

bool image_filter_match_name(const struct image_filter *filter, const char *canonical)
{
    CLEANUP_REFERENCE struct reference reference = {0};
    CLEANUP_FREE char *familiar = NULL, *name = NULL;

    if (!filter->references)
        return true;
    if (!reference_parse(canonical, &reference, NULL))
        return false;
    familiar = reference_familiar(&reference);
    name = reference_familiar_name(&reference);
    for (char **pattern = filter->references; *pattern; pattern++) {
        if (glob_match(*pattern, familiar) || glob_match(*pattern, name))
            return true;
    }
    return false;
}
