#include "daemon/image/prune.h"

#include <stdio.h>

#include "daemon/image/filter.h"
#include "daemon/image/remove.h"
#include "daemon/store/event.h"
#include "daemon/store/partial.h"
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

static bool is_planned(const struct prune *prune, const struct digest *id)
{
    for (size_t i = 0; i < prune->planned.count; i++) {
        if (prune->planned.items[i].whole && digest_eq(&prune->planned.items[i].id, id))
            return true;
    }
    return false;
}

static void plan_image(struct prune *prune, const struct digest *id)
{
    const struct image *image = image_find_id(prune->store, id->text, NULL);

    if (image && !is_planned(prune, id))
        removal_plan_unused(&prune->planned, image);
}

static bool await_prune_images(struct prune *prune, struct error *err)
{
    size_t count;
    CLEANUP_FREE const struct image **images = image_list(prune->store, &count);
    CLEANUP_FREE struct digest *ids = xcalloc(count + 1, sizeof(*ids));

    for (size_t i = 0; i < count; i++) {
        if (is_unused(prune, images[i]))
            ids[prune->images_total++] = images[i]->id;
    }
    for (; prune->images_done < prune->images_total; prune->images_done++) {
        if (prune->dry_run)
            plan_image(prune, &ids[prune->images_done]);
        else if (!await_prune_image(prune, &ids[prune->images_done], err))
            return false;
    }
    if (prune->dry_run) {
        prune->image_bytes = removal_bytes(&prune->planned);
        image_removals_move(&prune->images, &prune->planned.lines);
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

/* As Docker: one event, that says how much. */
static void await_tell(const struct prune *prune)
{
    CLEANUP_FREE char *bytes =
        xasprintf("%llu", (unsigned long long)prune_result(prune).freed_bytes);
    const struct event_note note = {.action = "prune", .actor = "", .reclaimed = bytes};
    CLEANUP_ERROR struct error err = {0};

    if (!await_event_add(prune->store, &note, &err))
        log_warn("nobody will be told of what was pruned", LOG("error", err.message));
}

bool await_prune(struct prune *prune, struct error *err)
{
    if (!await_prune_images(prune, err) || !await_prune_others(prune, err))
        return error_prefix(err, "cannot remove everything that is not used");
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
