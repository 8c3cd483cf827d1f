#include "daemon/image/prune.h"

#include <stdio.h>

#include "daemon/image/filter.h"
#include "daemon/image/remove.h"
#include "daemon/store/event.h"
#include "daemon/store/partial.h"
#include "proto/async/await.h"
#include "proto/base/log.h"

struct prune {
    struct store *store;
    bool all, images_only, dry_run;
    struct image_filter filter;
    struct removal planned; /* of a dry run */
    struct image_removals images;
    struct layers_pruned layers;
    struct partials_pruned partials;
    uint64_t image_bytes;
    struct digest *ids; /* of images that nothing used when it began */
    size_t images_done, images_total;
    bool done;
};

struct prune *prune_new(struct store *store, const struct prune_request *request, struct error *err)
{
    CLEANUP(prune_cleanup) struct prune *prune = xcalloc(1, sizeof(*prune));

    prune->store = store;
    prune->planned.store = store;
    if (!image_filter_parse(store, IMAGE_FILTER_PRUNE, request->filters, request->filter_count,
                            &prune->filter, err))
        return NULL;
    prune->all = request->all || prune->filter.dangling == DANGLING_NO;
    prune->images_only = request->images_only;
    prune->dry_run = request->dry_run;
    return TAKE(prune);
}

struct prune *prune_free(struct prune *prune)
{
    if (!prune)
        return NULL;
    image_filter_done(&prune->filter);
    removal_done(&prune->planned);
    image_removals_done(&prune->images);
    layers_pruned_done(&prune->layers);
    free(prune->ids);
    free(prune);
    return NULL;
}

/* --- Images ------------------------------------------------------------------------------------
 */

/* A digest is not a name that somebody gave it. Intermediate images go with their last child. */
static bool is_unused(const struct prune *prune, const struct image *image)
{
    return (prune->all ? !image_is_intermediate(image) : image_is_dangling(image)) &&
           !image_holder(prune->store, &image->id, true) &&
           !image_holder(prune->store, &image->id, false) &&
           image_filter_match(&prune->filter, image);
}

/* It may have gone, got a name or a container since it was listed. */
static bool await_prune_image(struct prune *prune, const struct digest *id, struct error *err)
{
    for (int tries = 1;; tries++) {
        CLEANUP(removal_done) struct removal removal = {.store = prune->store};
        CLEANUP_ERROR struct error failure = {0};
        const struct image *image = image_find_id(prune->store, id->text, NULL);

        if (!image || !is_unused(prune, image))
            return true;
        removal_plan_unused(&removal, image);
        if (await_removal(prune->store, &removal, &prune->image_bytes, &failure)) {
            image_removals_move(&prune->images, &removal.lines);
            return true;
        }
        if (!removal_try_again(&failure, tries))
            return error_move(err, &failure);
    }
}

static void plan_image(struct prune *prune, const struct digest *id)
{
    const struct image *image = image_find_id(prune->store, id->text, NULL);

    if (image && !removal_is_planned(&prune->planned, id))
        removal_plan_unused(&prune->planned, image);
}

static void add_id(struct prune *prune, const struct digest *id)
{
    size_t count = prune->images_total;

    /* Doubled when they are full. */
    if ((count & (count - 1)) == 0)
        prune->ids = xrealloc(prune->ids, MAX(2 * count, 1) * sizeof(*prune->ids));
    prune->ids[prune->images_total++] = *id;
}

/* Images come and go meanwhile. */
static bool await_list_unused(struct prune *prune, struct error *err)
{
    struct image_place place = IMAGE_PLACE_FIRST;
    const struct image *image;

    while ((image = image_next(prune->store, &place))) {
        int r;
        place = (struct image_place){image->created_unix_ns, image->id};
        if (is_unused(prune, image))
            add_id(prune, &image->id);
        r = await_slice();
        if (r < 0)
            return await_error(err, r, "looking for images that nothing uses");
    }
    return true;
}

static bool await_plan_images(struct prune *prune, struct error *err)
{
    for (; prune->images_done < prune->images_total; prune->images_done++) {
        int r = await_slice();
        if (r < 0)
            return await_error(err, r, "planning what goes");
        plan_image(prune, &prune->ids[prune->images_done]);
    }
    prune->image_bytes = removal_bytes(&prune->planned);
    image_removals_move(&prune->images, &prune->planned.lines);
    return true;
}

static bool await_prune_images(struct prune *prune, struct error *err)
{
    if (!await_list_unused(prune, err))
        return false;
    if (prune->dry_run)
        return await_plan_images(prune, err);
    for (; prune->images_done < prune->images_total; prune->images_done++) {
        if (!await_prune_image(prune, &prune->ids[prune->images_done], err))
            return false;
    }
    return true;
}

/* --- What else there is ------------------------------------------------------------------------
 */

/* Layers and downloads have no labels. */
static bool await_prune_others(struct prune *prune, struct error *err)
{
    int64_t before = prune->filter.before_unix_ns;

    if (prune->images_only || prune->filter.labels)
        return true;
    if (prune->dry_run)
        prune->layers = layers_unused(prune->store, before);
    else if (!await_layers_prune(prune->store, before, &prune->layers, err))
        return false;
    return await_partials_prune(prune->store, before, prune->dry_run, &prune->partials, err);
}

/* As Docker: one event, that says how much. Also of what went before a failure, or a cancel. */
static void await_tell(const struct prune *prune)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();
    CLEANUP_FREE char *bytes =
        xasprintf("%llu", (unsigned long long)prune_result(prune).freed_bytes);
    const struct event_note note = {.action = "prune", .actor = "", .reclaimed = bytes};
    CLEANUP_ERROR struct error err = {0};

    if (!await_event_add(prune->store, &note, &err))
        log_warn("nobody will be told of what was pruned", LOG("error", err.message));
}

bool await_prune(struct prune *prune, struct error *err)
{
    if (!await_prune_images(prune, err) || !await_prune_others(prune, err)) {
        if (prune_has_removed(prune))
            await_tell(prune);
        return error_prefix(err, "cannot remove everything that is not used");
    }
    prune->done = true;
    if (!prune->dry_run)
        await_tell(prune);
    return true;
}

/* --- Looking at it -----------------------------------------------------------------------------
 */

unsigned int prune_percent(const struct prune *prune)
{
    /* The rest is one call each. */
    return prune->done ? 100 : (unsigned int)(prune->images_done * 98 / (prune->images_total + 1));
}

bool prune_has_removed(const struct prune *prune)
{
    return !prune->dry_run && prune->images.count + prune->layers.count + prune->partials.count > 0;
}

struct prune_result prune_result(const struct prune *prune)
{
    return (struct prune_result){
        .images = &prune->images,
        .layers = &prune->layers,
        .partial_count = prune->partials.count,
        .freed_bytes = prune->image_bytes + prune->layers.freed_bytes + prune->partials.freed_bytes,
        .dry_run = prune->dry_run,
    };
}
