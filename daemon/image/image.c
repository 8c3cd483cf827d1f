#include "daemon/image/image.h"

#include "daemon/registry/reference.h"
#include "daemon/store/event.h"

/* --- Names ------------------------------------------------------------------------------------ */

char *image_familiar(const char *canonical)
{
    CLEANUP_REFERENCE struct reference reference = {0};

    if (!reference_parse(canonical, &reference, NULL))
        return xstrdup(canonical);
    return reference_familiar(&reference);
}

/* "docker.io/library/busybox" of a canonical tag or digest; the caller frees it. */
static char *repository_of(const char *canonical)
{
    CLEANUP_REFERENCE struct reference reference = {0};

    if (!reference_parse(canonical, &reference, NULL))
        return xstrdup(canonical);
    return reference_name(&reference);
}

static const char *short_id(const struct digest *id, char buffer[13])
{
    memcpy(buffer, digest_hex(id), 12);
    buffer[12] = '\0';
    return buffer;
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

/* ret_name: the canonical name that matched, NULL if it was an ID; the caller's. */
static const struct image *resolve(const struct store *store, const char *text, char **ret_name,
                                   struct error *err)
{
    CLEANUP_REFERENCE struct reference reference = {0};
    const struct image *image = NULL;
    bool ambiguous = false;

    *ret_name = find_name(store, text, &image);
    if (image)
        return image;
    if (looks_like_id(text))
        image = image_find_id(store, text, &ambiguous);
    if (image)
        return image;
    if (ambiguous) {
        error_set(err, ERROR_INVALID_ARGUMENT, "AMBIGUOUS_ID",
                  "more than one image has an ID that begins with %s", text);
        error_hint(err, "give more of its digits");
        return NULL;
    }
    if (!looks_like_id(text) && !reference_parse(text, &reference, err))
        return NULL;
    if (reference.default_tag)
        error_set(err, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "No such image: %s:%s", text,
                  REFERENCE_DEFAULT_TAG);
    else
        error_set(err, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "No such image: %s", text);
    return NULL;
}

const struct image *image_resolve(const struct store *store, const char *text, struct error *err)
{
    CLEANUP_FREE char *name = NULL;

    return resolve(store, text, &name, err);
}

/* --- Naming ----------------------------------------------------------------------------------- */

bool await_image_tag_as(struct store *store, const char *source, const char *target,
                        struct error *err)
{
    CLEANUP_REFERENCE struct reference reference = {0};
    CLEANUP_FREE char *canonical = NULL, *familiar = NULL;
    const struct image *image = image_resolve(store, source, err);
    struct event_note event = {.action = "tag"};
    struct digest id;

    if (!image || !reference_parse(target, &reference, err))
        return false;
    if (digest_is_set(&reference.digest))
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_REFERENCE",
                         "refusing to create a tag with a digest reference");
    id = image->id;
    canonical = reference_canonical(&reference);
    familiar = reference_familiar(&reference);
    event.actor = id.text;
    event.name = familiar;
    event.image = &id;
    return await_image_tag(store, &id, canonical, &event, err);
}

/* --- Removing --------------------------------------------------------------------------------- */

void image_removals_done(struct image_removals *removals)
{
    for (size_t i = 0; i < removals->count; i++)
        free(removals->items[i].what);
    free(removals->items);
    *removals = (struct image_removals){0};
}

static void add_removal(struct image_removals *removals, bool untagged, char *what)
{
    size_t count = removals->count;

    removals->items = xrealloc(removals->items, (count + 1) * sizeof(*removals->items));
    removals->items[count] = (struct image_removed){.untagged = untagged, .what = what};
    removals->count++;
}

static bool await_untag(struct store *store, const char *canonical,
                        bool (*await_drop)(struct store *, const char *, struct error *),
                        struct image_removals *ret, struct error *err)
{
    if (!await_drop(store, canonical, err))
        return false;
    add_removal(ret, true, image_familiar(canonical));
    return true;
}

static bool strv_contains(char *const *strv, const char *text)
{
    for (; strv && *strv; strv++) {
        if (strcmp(*strv, text) == 0)
            return true;
    }
    return false;
}

/* Docker names layers by chain ID: of the bottom layer its diff_id, above that the digest of
 * "chain diff_id" (OCI image-spec, config.md, "Layer ChainID"). */
static void add_deleted_layers(struct image_removals *ret, const struct digest *diff_ids,
                               size_t count, char *const *deleted)
{
    CLEANUP_FREE struct digest *chain = xcalloc(count, sizeof(*chain));

    for (size_t i = 0; i < count; i++) {
        if (i == 0) {
            chain[0] = diff_ids[0];
            continue;
        }
        CLEANUP_FREE char *link = xasprintf("%s %s", chain[i - 1].text, diff_ids[i].text);
        chain[i] = digest_of(link, strlen(link));
    }
    for (size_t i = count; i-- > 0;) {
        if (strv_contains(deleted, diff_ids[i].text))
            add_removal(ret, false, xstrdup(chain[i].text));
    }
}

static bool await_delete(struct store *store, const struct digest *image_id, size_t untagged,
                         struct image_removals *ret, struct error *err)
{
    CLEANUP(strv_cleanup) char **deleted = NULL;
    const struct digest id = *image_id;
    const struct image *image = image_find_id(store, id.text, NULL);
    size_t count = image ? image->diff_id_count : 0;
    CLEANUP_FREE struct digest *diff_ids =
        image ? xmemdup(image->diff_ids, count * sizeof(*diff_ids)) : NULL;

    if (!image)
        return true; /* another client was faster */
    if (!await_image_delete(store, &id, untagged, &deleted, err))
        return false;
    add_removal(ret, false, xstrdup(id.text));
    add_deleted_layers(ret, diff_ids, count, deleted);
    return true;
}

/* All names of an image: tags, then digests. The caller frees the copy. */
static char **names_of(const struct image *image)
{
    size_t tags = strv_count(image->tags), digests = strv_count(image->repo_digests);
    char **names = xcalloc(tags + digests + 1, sizeof(*names));

    for (size_t i = 0; i < tags; i++)
        names[i] = xstrdup(image->tags[i]);
    for (size_t i = 0; i < digests; i++)
        names[tags + i] = xstrdup(image->repo_digests[i]);
    return names;
}

static bool in_one_repository(char *const *names)
{
    CLEANUP_FREE char *first = *names ? repository_of(*names) : NULL;

    for (; *names; names++) {
        CLEANUP_FREE char *repository = repository_of(*names);
        if (strcmp(repository, first) != 0)
            return false;
    }
    return true;
}

/* untagged: how many of the names were asked for; the others go with them. */
static bool await_remove_whole(struct store *store, const struct digest *id, char *const *names,
                               size_t untagged, struct image_removals *ret, struct error *err)
{
    /* The image goes first: if it cannot (a container holds it) its names stay. */
    CLEANUP(image_removals_done) struct image_removals deleted = {0};

    if (!await_delete(store, id, untagged, &deleted, err))
        return false;
    for (; *names; names++)
        add_removal(ret, true, image_familiar(*names));
    for (size_t i = 0; i < deleted.count; i++)
        add_removal(ret, deleted.items[i].untagged, TAKE(deleted.items[i].what));
    return true;
}

static bool conflict(const struct digest *id, struct error *err)
{
    char text[13];

    error_set(err, ERROR_FAILED_PRECONDITION, "IMAGE_CONFLICT",
              "conflict: unable to delete %s (must be forced) - image is referenced in multiple "
              "repositories",
              short_id(id, text));
    return error_hint(err, "remove its names one by one, or use --force");
}

/* Whether any tag is left once `name` has gone. */
static bool has_other_tag(const struct image *image, const char *name)
{
    for (char **tag = image->tags; tag && *tag; tag++) {
        if (strcmp(*tag, name) != 0)
            return true;
    }
    return false;
}

/* The digests of the repository that `name` was the last tag of go with it, as in Docker. */
static bool await_untag_digests(struct store *store, const struct digest *id, const char *name,
                                struct image_removals *ret, struct error *err)
{
    CLEANUP_FREE char *repository = repository_of(name);
    const struct image *image = image_find_id(store, id->text, NULL);
    CLEANUP(strv_cleanup) char **names = image ? names_of(image) : NULL;

    for (char **other = names; other && *other; other++) {
        CLEANUP_FREE char *other_repository = repository_of(*other);
        if (strcmp(other_repository, repository) == 0 && !strchr(*other, '@'))
            return true; /* a tag of this repository is left */
    }
    for (char **other = names; other && *other; other++) {
        CLEANUP_FREE char *other_repository = repository_of(*other);
        if (strcmp(other_repository, repository) == 0 &&
            !await_untag(store, *other, await_image_forget_name, ret, err))
            return false;
    }
    return true;
}

bool await_image_remove(struct store *store, const char *text, bool force,
                        struct image_removals *ret, struct error *err)
{
    CLEANUP_FREE char *name = NULL;
    const struct image *image = resolve(store, text, &name, err);
    CLEANUP(strv_cleanup) char **names = NULL;
    struct digest id;

    if (!image)
        return false;
    id = image->id;
    names = names_of(image);
    if (!name) {
        if (!force && !in_one_repository(names))
            return conflict(&id, err);
        return await_remove_whole(store, &id, names, strv_count(names), ret, err);
    }
    if (!has_other_tag(image, name) && (!strchr(name, '@') || !image->tags || !image->tags[0]))
        return await_remove_whole(store, &id, names, 1, ret, err);
    return await_untag(store, name, await_image_untag, ret, err) &&
           await_untag_digests(store, &id, name, ret, err);
}
