/* What of an image goes, by Docker's rules (moby, daemon/images/image_delete.go). */
#include "daemon/image/remove.h"

/* What goes of an image. */
struct planned_image {
    bool names, whole;
    size_t children; /* that go before it */
};

void removal_done(struct removal *removal)
{
    size_t iterator = 0;
    void *planned;

    while (removal->planned && map_next(removal->planned, &iterator, NULL, &planned))
        free(planned);
    map_free(removal->planned);
    image_removals_done(&removal->lines);
    for (size_t i = 0; i < removal->count; i++)
        strv_free(removal->items[i].names);
    free(removal->items);
    *removal = (struct removal){0};
}

/* --- Names -------------------------------------------------------------------------------------
 */

static bool is_digest(const char *name)
{
    return strchr(name, '@');
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* All names of an image, in order. The caller frees the copy. */
static char **names_of(const struct image *image)
{
    size_t tags = image->tag_count, digests = image->repo_digest_count;
    char **names = xcalloc(tags + digests + 1, sizeof(*names));

    for (size_t i = 0; i < tags; i++)
        names[i] = xstrdup(image->tags[i]);
    for (size_t i = 0; i < digests; i++)
        names[tags + i] = xstrdup(image->repo_digests[i]);
    qsort(names, tags + digests, sizeof(*names), compare_names);
    return names;
}

/* Without a parser: canonical names have a digest or a tag. */
static size_t repository_length(const char *name)
{
    const char *end = strchr(name, '@');

    if (!end)
        end = strrchr(name, ':');
    return end ? (size_t)(end - name) : strlen(name);
}

static bool same_repository(const char *name, const char *other)
{
    size_t length = repository_length(name);

    return length == repository_length(other) && memcmp(name, other, length) == 0;
}

/* At most one tag, and all digests of that one repository: as if it were one name. */
static bool is_single(char *const *names)
{
    const char *tag = NULL, *digest = NULL;

    for (char *const *name = names; *name; name++) {
        if (!is_digest(*name) && tag)
            return false;
        if (!is_digest(*name))
            tag = *name;
        else if (!digest)
            digest = *name;
        else if (!same_repository(*name, digest))
            return false;
    }
    return (tag || digest) && (!tag || !digest || same_repository(tag, digest));
}

/* --- Conflicts ---------------------------------------------------------------------------------
 */

static bool conflict(const struct image *image, bool forceable, const char *reason, const char *why,
                     struct error *err)
{
    return error_set(err, ERROR_FAILED_PRECONDITION, reason,
                     "conflict: unable to delete %.12s (%s) - %s", digest_hex(&image->id),
                     forceable ? "must be forced" : "cannot be forced", why);
}

static bool in_use(const struct image *image, bool running, const char *container,
                   struct error *err)
{
    CLEANUP_FREE char *why = xasprintf("image is being used by %s container %.12s",
                                       running ? "running" : "stopped", container);

    conflict(image, !running, "IMAGE_IN_USE", why, err);
    return error_hint(err, running ? "stop the container first" : "use --force");
}

static struct planned_image planned_of(const struct removal *removal, const struct digest *id)
{
    const struct planned_image *planned =
        removal->planned ? map_get(removal->planned, id->text) : NULL;

    return planned ? *planned : (struct planned_image){0};
}

bool removal_is_planned(const struct removal *removal, const struct digest *id)
{
    return planned_of(removal, id).whole;
}

/* Those that do not go before it. */
static bool has_children_left(const struct removal *removal, const struct image *image)
{
    return image->children > planned_of(removal, &image->id).children;
}

/* Unless they are about to go. */
static bool has_names(const struct removal *removal, const struct image *image)
{
    return !planned_of(removal, &image->id).names &&
           image->tag_count + image->repo_digest_count > 0;
}

/* names: whether those that it still has are a conflict. */
static bool check_conflicts(const struct removal *removal, const struct image *image, bool force,
                            bool names, struct error *err)
{
    const char *container = image_holder(removal->store, &image->id, true);

    if (has_children_left(removal, image))
        return conflict(image, false, "IMAGE_HAS_CHILDREN", "image has dependent child images",
                        err);
    if (container)
        return in_use(image, true, container, err);
    if (force)
        return true;
    if (names && has_names(removal, image)) {
        conflict(image, true, "IMAGE_CONFLICT", "image is referenced in multiple repositories",
                 err);
        return error_hint(err, "remove its names one by one, or use --force");
    }
    container = image_holder(removal->store, &image->id, false);
    return !container || in_use(image, false, container, err);
}

static bool check_reference(const struct removal *removal, const struct image *image,
                            const char *text, struct error *err)
{
    const char *running = image_holder(removal->store, &image->id, true);
    const char *container = running ? running : image_holder(removal->store, &image->id, false);

    if (!container)
        return true;
    error_set(err, ERROR_FAILED_PRECONDITION, "IMAGE_IN_USE",
              "conflict: unable to remove repository reference \"%s\" (must force) - container "
              "%.12s is using its referenced image %.12s",
              text, container, digest_hex(&image->id));
    return error_hint(err, running ? "use --force to remove the name only: the image stays"
                                   : "use --force to remove it nevertheless");
}

/* --- Lines -------------------------------------------------------------------------------------
 */

void image_removals_done(struct image_removals *removals)
{
    for (size_t i = 0; i < removals->count; i++)
        free(removals->items[i].what);
    free(removals->items);
    *removals = (struct image_removals){0};
}

void image_removals_move(struct image_removals *to, struct image_removals *from)
{
    if (from->count > 0) {
        to->items = xrealloc(to->items, (to->count + from->count) * sizeof(*to->items));
        memcpy(to->items + to->count, from->items, from->count * sizeof(*to->items));
        to->count += from->count;
    }
    free(from->items);
    *from = (struct image_removals){0};
}

static void add_line(struct image_removals *lines, bool untagged, char *what)
{
    /* Doubled when they are full. */
    if ((lines->count & (lines->count - 1)) == 0)
        lines->items = xrealloc(lines->items, MAX(2 * lines->count, 1) * sizeof(*lines->items));
    lines->items[lines->count++] = (struct image_removed){.untagged = untagged, .what = what};
}

static size_t common_layers(const struct image *a, const struct image *b)
{
    size_t count = 0;

    while (count < a->diff_id_count && count < b->diff_id_count &&
           digest_eq(&a->diff_ids[count], &b->diff_ids[count]))
        count++;
    return count;
}

/* Docker names layers by chain ID: of the bottom layer its diff_id, above that the digest of
 * "chain diff_id" (OCI image-spec, config.md, "Layer ChainID"). From the top, those go that no
 * image has that stays, and no container: that one holds all layers of its image. */
static void add_layer_lines(struct removal *removal, const struct image *image)
{
    CLEANUP_FREE struct digest *chain = xcalloc(image->diff_id_count + 1, sizeof(*chain));
    CLEANUP_FREE const struct image **others = image_list(removal->store, NULL);
    size_t kept = 0;

    for (const struct image **other = others; *other && kept < image->diff_id_count; other++) {
        size_t common = common_layers(image, *other);
        if (common > kept && !removal_is_planned(removal, &(*other)->id))
            kept = common;
    }
    if (image_holder(removal->store, &image->id, false))
        kept = image->diff_id_count;
    for (size_t i = 0; i < image->diff_id_count; i++) {
        CLEANUP_FREE char *link =
            i > 0 ? xasprintf("%s %s", chain[i - 1].text, image->diff_ids[i].text) : NULL;
        chain[i] = link ? digest_of(link, strlen(link)) : image->diff_ids[i];
    }
    for (size_t i = image->diff_id_count; i-- > kept;)
        add_line(&removal->lines, false, xstrdup(chain[i].text));
}

/* --- The plan ----------------------------------------------------------------------------------
 */

static struct planned_image *planned_for(struct removal *removal, const struct digest *id)
{
    struct planned_image *planned;

    if (!removal->planned)
        removal->planned = map_new();
    planned = map_get(removal->planned, id->text);
    if (!planned) {
        planned = xcalloc(1, sizeof(*planned));
        map_put(removal->planned, id->text, planned);
    }
    return planned;
}

static void add_item(struct removal *removal, const struct image *image, char **names, size_t told,
                     bool whole)
{
    struct planned_image *planned = planned_for(removal, &image->id);

    planned->names = true;
    planned->whole |= whole;
    if (whole && digest_is_set(&image->parent))
        planned_for(removal, &image->parent)->children++;
    /* Doubled when they are full. */
    if ((removal->count & (removal->count - 1)) == 0)
        removal->items =
            xrealloc(removal->items, MAX(2 * removal->count, 1) * sizeof(*removal->items));
    removal->items[removal->count++] = (struct image_deletion){
        .id = image->id,
        .names = names,
        .told = told,
        .whole = whole,
        .forced = removal->force,
    };
}

/* The image itself; its names have their lines. */
static void add_whole(struct removal *removal, const struct image *image, size_t told)
{
    add_item(removal, image, names_of(image), told, true);
    add_line(&removal->lines, false, xstrdup(image->id.text));
    add_layer_lines(removal, image);
}

/* Parents that nobody named and nothing needs any more, without a word about those that stay. */
static void add_parents(struct removal *removal, const struct image *image)
{
    while (!removal->no_prune && digest_is_set(&image->parent)) {
        image = image_find_id(removal->store, image->parent.text, NULL);
        if (!image || !check_conflicts(removal, image, false, true, NULL))
            return;
        add_whole(removal, image, 0);
    }
}

static bool plan_by_id(struct removal *removal, const struct image *image, struct error *err)
{
    CLEANUP(strv_cleanup) char **names = names_of(image);

    if (!check_conflicts(removal, image, removal->force, !is_single(names), err))
        return false;
    for (char *const *name = names; *name; name++)
        add_line(&removal->lines, true, image_familiar(*name));
    add_whole(removal, image, strv_count(names));
    add_parents(removal, image);
    return true;
}

/* Whether another of the names is a tag of the same repository. */
static bool has_other_tag(char *const *names, const char *name)
{
    for (; *names; names++) {
        if (!is_digest(*names) && !str_eq(*names, name) && same_repository(*names, name))
            return true;
    }
    return false;
}

/* The digests of a repository go with its last tag. */
static char **names_with(char *const *names, const char *name)
{
    bool digests = !is_digest(name) && !has_other_tag(names, name);
    char **with = NULL;

    strv_add(&with, name);
    for (; digests && *names; names++) {
        if (is_digest(*names) && same_repository(*names, name))
            strv_add(&with, *names);
    }
    return with;
}

static bool plan_by_name(struct removal *removal, const struct image *image, const char *name,
                         const char *text, struct error *err)
{
    CLEANUP(strv_cleanup) char **names = names_of(image);
    CLEANUP(strv_cleanup) char **with = names_with(names, name);

    if (!removal->force && is_single(names) && !check_reference(removal, image, text, err))
        return false;
    for (char *const *one = with; *one; one++)
        add_line(&removal->lines, true, image_familiar(*one));
    /* What keeps the image then is no error: the name has gone. */
    if (strv_count(with) < strv_count(names) ||
        !check_conflicts(removal, image, removal->force, false, NULL)) {
        add_item(removal, image, TAKE(with), 1, false);
        return true;
    }
    add_whole(removal, image, 1);
    add_parents(removal, image);
    return true;
}

/* A name that looks like the image's own ID is taken for that, as Docker does. */
static bool begins_id(const struct image *image, const char *text)
{
    return str_starts(digest_hex(&image->id), text);
}

bool removal_plan_image(struct removal *removal, const char *text, struct error *err)
{
    CLEANUP_FREE char *name = NULL;
    const struct image *image = image_resolve_name(removal->store, text, &name, err);

    if (!image)
        return false;
    if (!name || begins_id(image, text))
        return plan_by_id(removal, image, err);
    return plan_by_name(removal, image, name, text, err);
}

void removal_plan_unused(struct removal *removal, const struct image *image)
{
    CLEANUP(strv_cleanup) char **names = names_of(image);
    /* A digest that goes with a tag is not told of. */
    size_t told = image->tag_count > 0 ? image->tag_count : image->repo_digest_count;

    for (char *const *name = names; *name; name++)
        add_line(&removal->lines, true, image_familiar(*name));
    if (!check_conflicts(removal, image, false, false, NULL)) {
        add_item(removal, image, TAKE(names), told, false);
        return;
    }
    add_whole(removal, image, told);
    add_parents(removal, image);
}

uint64_t removal_bytes(const struct removal *removal)
{
    return images_delete_bytes(removal->store, removal->items, removal->count);
}

bool await_removal(struct store *store, const struct removal *removal, uint64_t *ret_freed_bytes,
                   struct error *err)
{
    CLEANUP(layers_pruned_done) struct layers_pruned layers = {0};

    if (!await_images_delete(store, removal->items, removal->count, &layers, err))
        return false;
    if (ret_freed_bytes)
        *ret_freed_bytes += layers.freed_bytes;
    return true;
}

bool removal_try_again(const struct error *failure, int tries)
{
    return tries < REMOVAL_TRIES &&
           (error_is(failure, "IMAGE_CHANGED") || failure->code == ERROR_NOT_FOUND);
}

bool await_image_remove(struct store *store, const char *text, const struct image_remove *options,
                        struct image_removals *ret, struct error *err)
{
    for (int tries = 1;; tries++) {
        CLEANUP_ERROR struct error failure = {0};
        CLEANUP(removal_done)
        struct removal removal = {
            .store = store,
            .force = options->force,
            .no_prune = options->no_prune,
        };
        if (!removal_plan_image(&removal, text, err))
            return false;
        if (await_removal(store, &removal, NULL, &failure)) {
            image_removals_move(ret, &removal.lines);
            return true;
        }
        if (!removal_try_again(&failure, tries))
            return error_move(err, &failure);
    }
}
