#include "daemon/image/prune.h"

#include <stdio.h>

#include "daemon/store/event.h"
#include "daemon/store/partial.h"
#include "proto/base/log.h"

struct prune {
    struct store *store;
    struct prune_request request;
    struct image_removals images;
    struct layers_pruned layers;
    struct partials_pruned partials;
    uint64_t image_bytes;
    size_t images_done, images_total;
    bool done;
};

struct prune *prune_new(struct store *store, const struct prune_request *request)
{
    struct prune *prune = xcalloc(1, sizeof(*prune));

    prune->store = store;
    prune->request = *request;
    return prune;
}

struct prune *prune_free(struct prune *prune)
{
    if (!prune)
        return NULL;
    image_removals_done(&prune->images);
    layers_pruned_done(&prune->layers);
    free(prune);
    return NULL;
}

/* A digest is not a name that somebody gave it. */
static bool is_unused(const struct prune *prune, const struct image *image)
{
    if (image->created_unix_ns >= prune->request.until_unix_ns)
        return false;
    return (prune->request.all || !image->tags || !*image->tags) &&
           image_usage(prune->store, image).containers == 0;
}

/* It may have gone, got a name or a container since it was listed. */
static bool await_prune_image(struct prune *prune, const struct digest *id, struct error *err)
{
    const struct image *image = image_find_id(prune->store, id->text, NULL);
    CLEANUP_ERROR struct error failure = {0};
    const struct image_remove options = {.force = true, .ret_freed_bytes = &prune->image_bytes};

    if (!image || !is_unused(prune, image))
        return true;
    return await_image_remove(prune->store, id->text, &options, &prune->images, &failure) ||
           failure.code == ERROR_NOT_FOUND || error_is(&failure, "IMAGE_IN_USE") ||
           error_is(&failure, "IMAGE_HAS_CHILDREN") || error_move(err, &failure);
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
        if (!await_prune_image(prune, &ids[prune->images_done], err))
            return false;
    }
    return true;
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
    int64_t until = prune->request.until_unix_ns;

    if (!await_prune_images(prune, err) ||
        !await_layers_prune(prune->store, until, &prune->layers, err) ||
        !await_partials_prune(prune->store, until, &prune->partials, err))
        return error_prefix(err, "cannot remove everything that is not used");
    prune->done = true;
    await_tell(prune);
    return true;
}

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
    };
}
