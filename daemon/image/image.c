#include "daemon/image/image.h"

#include "daemon/registry/reference.h"
#include "daemon/store/event.h"
#include "proto/base/strbuf.h"

#define CANDIDATES_MAX 8

/* --- Names ------------------------------------------------------------------------------------ */

char *image_familiar(const char *canonical)
{
    static const char hub[] = REFERENCE_DEFAULT_DOMAIN "/", official[] = "library/";
    const char *path = canonical + strlen(hub);
    CLEANUP_REFERENCE struct reference reference = {0};

    /* Lists are made of these: most need no parser. */
    if (!str_starts(canonical, hub))
        return xstrdup(canonical);
    if (str_starts(path, official) && !strchr(path + strlen(official), '/'))
        return xstrdup(path + strlen(official));
    if (!reference_parse(canonical, &reference, NULL))
        return xstrdup(canonical);
    return reference_familiar(&reference);
}

char **image_familiar_names(char *const *canonical)
{
    size_t count = strv_count(canonical);
    char **names = xcalloc(count + 1, sizeof(*names));

    for (size_t i = 0; i < count; i++)
        names[i] = image_familiar(canonical[i]);
    return names;
}

/* --- Finding ---------------------------------------------------------------------------------- */

/* The name under which text stands in the store, or NULL; the caller frees it. */
static char *find_name(const struct store *store, const char *text, const struct image **ret)
{
    CLEANUP_REFERENCE struct reference reference = {0};
    CLEANUP_FREE char *canonical = NULL;

    *ret = NULL;
    if (!reference_parse(text, &reference, NULL))
        return NULL;
    if (digest_is_set(&reference.digest)) {
        CLEANUP_FREE char *name = reference_name(&reference);
        canonical = xasprintf("%s@%s", name, reference.digest.text);
    } else {
        canonical = reference_canonical(&reference);
    }
    *ret = image_find(store, canonical);
    return *ret ? TAKE(canonical) : NULL;
}

static bool looks_like_id(const char *text)
{
    const char *hex = str_starts(text, "sha256:") ? text + strlen("sha256:") : text;
    size_t length = strlen(hex);

    return length > 0 && length <= 64 && strspn(hex, "0123456789abcdef") == length;
}

/* Which is no name, then (distribution/reference). */
static bool is_whole_id(const char *text)
{
    return looks_like_id(text) && strlen(text) == (str_starts(text, "sha256:") ? 71 : 64);
}

/* So many digits that they tell the candidates apart. */
static int digits_shown(const char *prefix)
{
    return strlen(prefix) < 12 ? 12 : 64;
}

static bool ambiguous(const struct store *store, const char *text, struct error *err)
{
    size_t count;
    CLEANUP_FREE const struct image **images =
        image_candidates(store, text, CANDIDATES_MAX, &count);
    CLEANUP_STRBUF struct strbuf list = {0};

    for (size_t i = 0; images[i]; i++) {
        CLEANUP_FREE char *name =
            images[i]->tag_count > 0 ? image_familiar(images[i]->tags[0]) : NULL;
        strbuf_addf(&list, "%s%.*s", i > 0 ? ", " : "", digits_shown(text),
                    digest_hex(&images[i]->id));
        if (name)
            strbuf_addf(&list, " (%s)", name);
    }
    if (count > CANDIDATES_MAX)
        strbuf_addf(&list, " and %zu more", count - CANDIDATES_MAX);
    error_set(err, ERROR_INVALID_ARGUMENT, "AMBIGUOUS_ID",
              "more than one image has an ID that begins with %s: %s", text, strbuf_text(&list));
    return error_hint(err, "give more of its digits");
}

static bool not_found(const char *text, struct error *err)
{
    CLEANUP_REFERENCE struct reference reference = {0};
    CLEANUP_FREE char *familiar = NULL;

    if (!is_whole_id(text) && !reference_parse(text, &reference, err))
        return false;
    familiar = is_whole_id(text) ? xstrdup(text) : reference_familiar(&reference);
    return error_set(err, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "No such image: %s", familiar);
}

const struct image *image_resolve_name(const struct store *store, const char *text, char **ret_name,
                                       struct error *err)
{
    const struct image *image = NULL;
    bool is_ambiguous = false;

    *ret_name = find_name(store, text, &image);
    if (!image && looks_like_id(text))
        image = image_find_id(store, text, &is_ambiguous);
    if (!image && is_ambiguous)
        ambiguous(store, text, err);
    else if (!image)
        not_found(text, err);
    return image;
}

const struct image *image_resolve(const struct store *store, const char *text, struct error *err)
{
    CLEANUP_FREE char *name = NULL;

    return image_resolve_name(store, text, &name, err);
}

/* --- Naming ----------------------------------------------------------------------------------- */

static bool parse_name(const char *text, struct reference *ret, struct error *err)
{
    CLEANUP_STRBUF struct strbuf safe = {0};

    if (reference_parse(text, ret, err))
        return true;
    strbuf_add_quoted(&safe, text);
    error_prefix(err, "Error parsing reference: %s is not a valid repository/tag",
                 strbuf_text(&safe));
    return error_hint(err, "names are like app, team/app:1.0 or host:5000/team/app:1.0: small "
                           "letters, digits, and between them . _ - and /");
}

bool image_check_tag(const struct reference *reference, struct error *err)
{
    if (digest_is_set(&reference->digest))
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_REFERENCE",
                         "refusing to create a tag with a digest reference");
    /* It would look like an ID. */
    if (str_eq(reference->domain, REFERENCE_DEFAULT_DOMAIN) &&
        str_eq(reference->path, "library/sha256"))
        return error_set(err, ERROR_INVALID_ARGUMENT, "AMBIGUOUS_NAME",
                         "refusing to create an ambiguous tag using digest algorithm as name");
    return true;
}

bool await_image_tag_as(struct store *store, const char *source, const char *target,
                        struct error *err)
{
    CLEANUP_REFERENCE struct reference reference = {0}, source_reference = {0};
    CLEANUP_FREE char *canonical = NULL, *familiar = NULL;
    const struct image *image;
    struct event_note event = {.action = "tag"};
    struct digest id;

    if ((!is_whole_id(source) && !parse_name(source, &source_reference, err)) ||
        !parse_name(target, &reference, err) || !image_check_tag(&reference, err) ||
        !(image = image_resolve(store, source, err)))
        return false;
    id = image->id;
    canonical = reference_canonical(&reference);
    familiar = reference_familiar(&reference);
    event.actor = id.text;
    event.name = familiar;
    event.image = &id;
    return await_image_tag(store, &id, canonical, &event, err);
}
