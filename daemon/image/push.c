#include "daemon/image/push.h"

#include "daemon/image/push_internal.h"
#include "daemon/store/event.h"
#include "proto/async/loop.h"
#include "proto/base/log.h"

/* Layers about which the registry is asked at a time. */
#define CHECKS_MAX 8

/* --- Life cycle --------------------------------------------------------------------------------
 */

struct push_engine *push_engine_new(const struct push_options *options)
{
    struct push_engine *engine = xcalloc(1, sizeof(*engine));

    engine->options = *options;
    engine->limit = rate_limit_new(options->bytes_per_second);
    wait_queue_init(&engine->slot_free);
    return engine;
}

void push_engine_set_limits(struct push_engine *engine, unsigned int max_concurrent,
                            uint64_t bytes_per_second)
{
    engine->options.max_concurrent = max_concurrent;
    rate_limit_set(engine->limit, bytes_per_second);
    wake_all(&engine->slot_free);
}

struct push_engine *push_engine_free(struct push_engine *engine)
{
    if (!engine)
        return NULL;
    CHECK(engine->sending == 0);
    rate_limit_unref(engine->limit);
    free(engine);
    return NULL;
}

static bool check_reference(const struct push *push, const struct push_request *request,
                            struct error *err)
{
    if (digest_is_set(&push->reference.digest))
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_REFERENCE",
                         "cannot push a digest reference");
    if (request->all_tags && !push->reference.default_tag)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_REFERENCE",
                         "tag can't be used with --all-tags/-a");
    return true;
}

struct push *push_new(struct push_engine *engine, const struct push_request *request,
                      struct error *err)
{
    CLEANUP(push_cleanup) struct push *push = xcalloc(1, sizeof(*push));

    push->engine = engine;
    push->username = xstrdup(request->auth.username);
    push->password = xstrdup(request->auth.password);
    push->identity_token = xstrdup(request->auth.identity_token);
    push->all_tags = request->all_tags;
    push->compression_given = !str_empty(request->compression);
    push->limit = rate_limit_new(request->limit_bytes_per_second);
    if (!compression_parse(request->compression, &push->compression, err) ||
        !reference_parse(request->reference, &push->reference, err) ||
        !check_reference(push, request, err))
        return NULL;
    push->repository = reference_name(&push->reference);
    return TAKE(push);
}

static void layer_free(struct push_layer *layer)
{
    free(layer->original.media_type);
    free(layer->found.media_type);
    layer_sources_done(&layer->sources);
    free(layer->mounted_from);
    error_done(&layer->error);
    free(layer);
}

static void image_done(struct push_image *image)
{
    free(image->tag);
    image_data_done(&image->data);
    manifest_free(image->manifest);
    free(image->layers);
    free(image->difference);
}

struct push *push_free(struct push *push)
{
    if (!push)
        return NULL;
    for (size_t i = 0; i < push->layer_count; i++)
        layer_free(push->layers[i]);
    for (size_t i = 0; i < push->image_count; i++)
        image_done(&push->images[i]);
    free(push->layers);
    free(push->images);
    source_unref(push->target);
    rate_limit_unref(push->limit);
    reference_done(&push->reference);
    free(push->repository);
    free(push->username);
    free_secret(push->password);
    free_secret(push->identity_token);
    free(push);
    return NULL;
}

void push_set_limit(struct push *push, uint64_t bytes_per_second)
{
    rate_limit_set(push->limit, bytes_per_second);
}

/* --- What there is to push ---------------------------------------------------------------------
 */

static void add_image(struct push *push, const struct image *image, const char *tag)
{
    struct push_image *added;

    push->images = xrealloc(push->images, (push->image_count + 1) * sizeof(*push->images));
    added = &push->images[push->image_count++];
    *added = (struct push_image){.id = image->id, .tag = xstrdup(tag)};
}

/* The tag of a canonical name in the push's repository; NULL for others. */
static const char *tag_in(const struct push *push, const char *name)
{
    size_t length = strlen(push->repository);

    return str_starts(name, push->repository) && name[length] == ':' ? name + length + 1 : NULL;
}

/* All of the repository, or the one; returns how many the repository has. */
static size_t list_images(struct push *push)
{
    CLEANUP_FREE const struct image **images = image_list(push->engine->options.store, NULL);
    size_t count = 0;

    for (const struct image **image = images; *image; image++) {
        for (char **name = (*image)->tags; name && *name; name++) {
            const char *tag = tag_in(push, *name);
            if (!tag)
                continue;
            count++;
            if (push->all_tags || str_eq(tag, push->reference.tag))
                add_image(push, *image, tag);
        }
    }
    return count;
}

static bool find_images(struct push *push, struct error *err)
{
    CLEANUP_FREE char *name = reference_familiar(&push->reference);
    CLEANUP_FREE char *repository = reference_familiar_name(&push->reference);
    size_t known = list_images(push);

    if (push->image_count > 0)
        return true;
    if (known > 0)
        error_set(err, ERROR_NOT_FOUND, "TAG_NOT_FOUND", "tag does not exist: %s", name);
    else
        error_set(err, ERROR_NOT_FOUND, "TAG_NOT_FOUND",
                  "An image does not exist locally with the tag: %s", repository);
    return error_hint(err, "davit images lists what there is");
}

/* The layer of a manifest, once for all images that have it. */
static struct push_layer *add_layer(struct push *push, const struct digest *diff_id,
                                    const struct descriptor *blob)
{
    struct layer_info info = {0};
    struct push_layer *layer;

    for (size_t i = 0; i < push->layer_count; i++) {
        layer = push->layers[i];
        if (digest_eq(&layer->diff_id, diff_id) &&
            digest_eq(&layer->original.digest, &blob->digest))
            return layer;
    }
    layer_find(push->engine->options.store, diff_id, &info);
    layer = xcalloc(1, sizeof(*layer));
    layer->push = push;
    layer->diff_id = *diff_id;
    layer->original = *blob;
    layer->original.media_type = xstrdup(blob->media_type);
    layer->tar_bytes = info.tar_bytes;
    push->layers = xrealloc(push->layers, (push->layer_count + 1) * sizeof(struct push_layer *));
    push->layers[push->layer_count++] = layer;
    return layer;
}

static bool await_read_image(struct push *push, struct push_image *image, struct error *err)
{
    struct store *store = push->engine->options.store;
    CLEANUP(image_config_cleanup) struct image_config *config = NULL;

    if (!await_image_data(store, &image->id, &image->data, err))
        return false;
    image->manifest = manifest_parse(image->data.manifest, image->data.manifest_size, NULL, err);
    config = image_config_parse(image->data.config, image->data.config_size, err);
    if (!image->manifest || !config)
        return error_prefix(err, "image %.19s", image->id.text);
    if (image->manifest->kind != MANIFEST_IMAGE ||
        image->manifest->layer_count != config->diff_id_count)
        return error_set(err, ERROR_DATA_LOSS, "IMAGE_DAMAGED",
                         "image %.19s: its manifest and its configuration differ", image->id.text);
    image->layers = xcalloc(config->diff_id_count, sizeof(struct push_layer *));
    for (size_t i = 0; i < config->diff_id_count; i++)
        image->layers[i] = add_layer(push, &config->diff_ids[i], &image->manifest->layers[i]);
    return true;
}

static bool await_read_images(struct push *push, struct error *err)
{
    for (size_t i = 0; i < push->image_count; i++) {
        if (!await_read_image(push, &push->images[i], err))
            return false;
    }
    return true;
}

/* --- Layers ------------------------------------------------------------------------------------
 */

static bool layer_failed(const struct push_layer *layer, struct error *err)
{
    /* What concerns all of them has nothing to do with this one. */
    if (err->code == ERROR_UNAUTHENTICATED || err->code == ERROR_PERMISSION_DENIED ||
        err->code == ERROR_CANCELLED)
        return false;
    return error_prefix(err, "layer %.12s", digest_hex(&layer->diff_id));
}

/* Takes one layer after the other until there is none. */
static bool check_task(void *arg, struct error *err)
{
    struct push *push = arg;

    while (push->next_layer < push->layer_count) {
        struct push_layer *layer = push->layers[push->next_layer++];
        if (!await_layer_check(layer, err))
            return layer_failed(layer, err);
    }
    return true;
}

static bool await_checks(struct push *push, struct error *err)
{
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    for (size_t i = 0; i < MIN(CHECKS_MAX, push->layer_count); i++) {
        if (!task_spawn(&group, "push-check", push->reference.path, check_task, push, err))
            return false;
    }
    return await_group(&group, err);
}

static bool send_task(void *arg, struct error *err)
{
    struct push_layer *layer = arg;

    return await_layer_send(layer, err) || layer_failed(layer, err);
}

static bool await_sending(struct push *push, struct error *err)
{
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    for (size_t i = 0; i < push->layer_count; i++) {
        struct push_layer *layer = push->layers[i];
        if (layer->way != PUSH_THERE &&
            !task_spawn(&group, "push-layer", digest_hex(&layer->diff_id), send_task, layer, err))
            return false;
    }
    return await_group(&group, err);
}

static void sum_up(struct push *push)
{
    for (size_t i = 0; i < push->layer_count; i++) {
        if (push->layers[i]->way != PUSH_THERE)
            push->bytes_total += push->layers[i]->tar_bytes;
    }
}

/* --- Configurations and manifests --------------------------------------------------------------
 */

static int64_t await_config_chunk(void *arg, uint64_t offset, uint64_t min_bytes UNUSED,
                                  uint64_t max_bytes UNUSED, bool *ret_last,
                                  struct error *err UNUSED)
{
    const struct push_image *image = arg;

    *ret_last = true;
    return (int64_t)(image->data.config_size - offset);
}

static ssize_t await_config_read(void *arg, uint64_t offset, void *buffer, size_t size,
                                 struct error *err UNUSED)
{
    const struct push_image *image = arg;

    memcpy(buffer, image->data.config + offset, size);
    return (ssize_t)size;
}

static bool await_config_measure(void *arg, struct digest *ret_digest, uint64_t *ret_size,
                                 struct error *err UNUSED)
{
    const struct push_image *image = arg;

    *ret_digest = image->id;
    *ret_size = image->data.config_size;
    return true;
}

static void ignore_wait(void *arg UNUSED, const struct error *why UNUSED, uint64_t until_ms UNUSED)
{
}

static void ignore_end(void *arg UNUSED)
{
}

static bool await_config(struct push *push, struct push_image *image, struct error *err)
{
    const struct upload_content content = {.await_chunk = await_config_chunk,
                                           .await_read = await_config_read,
                                           .await_measure = await_config_measure,
                                           .arg = image};
    const struct upload_watcher watcher = {.waits = ignore_wait, .goes_on = ignore_end};
    struct registry_client *registry = push->engine->options.registry;
    struct digest digest;
    bool present = false;
    uint64_t size;

    return await_blob_present(registry, push->target, &image->id, image->data.config_size, NULL,
                              &present, err) &&
           (present ||
            await_upload(registry, push->target, &content, &watcher, &digest, &size, err));
}

/* The image is at the registry; that this cannot be noted here changes nothing about it. */
static void await_note(struct push *push, const struct push_image *image)
{
    CLEANUP_FREE char *repo_digest = xasprintf("%s@%s", push->repository, image->digest.text);
    CLEANUP_FREE char *repository = reference_familiar_name(&push->reference);
    CLEANUP_FREE char *name = xasprintf("%s:%s", repository, image->tag);
    const struct event_note event = {"push", name, repository, .image = &image->id};
    CLEANUP_ERROR struct error problem = {0};

    if (!await_image_pushed(push->engine->options.store, &image->id, repo_digest, &event, &problem))
        log_warn("a push was not noted", LOG("image", name), LOG("error", problem.message));
}

static bool await_commit(struct push *push, struct push_image *image, struct error *err)
{
    CLEANUP_FREE char *data = NULL, *type = NULL;
    size_t size;

    if (!await_config(push, image, err))
        return false;
    data = push_manifest(image, &size, &type);
    if (!await_manifest_put(push->engine->options.registry, push->target, image->tag, type, data,
                            size, NULL, err))
        return false;
    image->digest = digest_of(data, size);
    image->result = (struct push_result){image->tag, &image->digest, size, image->difference};
    await_note(push, image);
    log_info("pushed image", LOG("repository", push->repository), LOG("tag", image->tag),
             LOG("digest", (const char *)image->digest.text), LOG("bytes", push->bytes_total));
    return true;
}

/* --- The flow ----------------------------------------------------------------------------------
 */

static bool await_all(struct push *push, struct error *err)
{
    const struct registry_auth auth = {push->username, push->password, push->identity_token};

    push->target =
        await_registry_target(push->engine->options.registry, &push->reference, &auth, err);
    if (!push->target || !await_checks(push, err))
        return false;
    sum_up(push);
    push->phase = PUSH_SENDING;
    if (!await_sending(push, err))
        return false;
    push->phase = PUSH_COMMITTING;
    for (size_t i = 0; i < push->image_count; i++) {
        if (!await_commit(push, &push->images[i], err))
            return false;
    }
    push->phase = PUSH_DONE;
    return true;
}

static struct layer_lease *lease_layers(const struct push *push)
{
    CLEANUP_FREE struct digest *diff_ids = xcalloc(push->layer_count + 1, sizeof(*diff_ids));

    for (size_t i = 0; i < push->layer_count; i++)
        diff_ids[i] = push->layers[i]->diff_id;
    return layer_lease_new(push->engine->options.store, diff_ids, push->layer_count);
}

bool await_push(struct push *push, struct error *err)
{
    CLEANUP_FREE char *name = reference_familiar(&push->reference);
    struct layer_lease *lease;
    bool ok;

    if (!find_images(push, err) || !await_read_images(push, err))
        return false;
    lease = lease_layers(push);
    ok = await_all(push, err);
    layer_lease_free(lease);
    if (ok || err->code == ERROR_UNAUTHENTICATED || err->code == ERROR_PERMISSION_DENIED)
        return ok; /* Docker's words stand for themselves */
    return error_prefix(err, "cannot push %s", name);
}

/* --- Looking at it -----------------------------------------------------------------------------
 */

static struct push_layer_progress layer_progress(const struct push_layer *layer)
{
    struct push_layer_progress progress = {
        .diff_id = &layer->diff_id,
        .state = layer->state,
        .bytes_sent = layer->bytes_sent,
        .bytes_total = layer->tar_bytes,
        .source = layer->mounted_from,
    };

    if (layer->state == PUSH_LAYER_SENDING)
        progress.bytes_per_second = layer->speed.bytes_per_second;
    if (error_is_set(&layer->error)) {
        uint64_t now_ms = loop_now_ms();
        progress.error = layer->error.message;
        progress.until_unix_ms = wall_clock_ns() / 1000000 +
                                 (int64_t)(layer->until_ms > now_ms ? layer->until_ms - now_ms : 0);
    }
    return progress;
}

void push_progress(struct push *push, struct push_progress *ret)
{
    ret->phase = push->phase;
    ret->layer_count = MIN(push->layer_count, PUSH_PROGRESS_LAYERS);
    ret->bytes_sent = 0;
    ret->bytes_total = push->bytes_total;
    ret->bytes_per_second = 0;
    ret->eta_ms = -1;
    for (size_t i = 0; i < push->layer_count; i++) {
        struct push_layer_progress layer = layer_progress(push->layers[i]);
        if (i < PUSH_PROGRESS_LAYERS)
            ret->layers[i] = layer;
        if (push->phase == PUSH_CHECKING || push->layers[i]->way == PUSH_THERE)
            continue;
        ret->bytes_sent += layer.bytes_sent;
        ret->bytes_per_second += layer.bytes_per_second;
    }
    if (ret->bytes_per_second)
        ret->eta_ms =
            (int64_t)((ret->bytes_total - ret->bytes_sent) * 1000 / ret->bytes_per_second);
    if (push->phase == PUSH_DONE)
        push->percent = 100;
    else if (ret->bytes_total)
        push->percent =
            MAX(push->percent, MIN(99U, (unsigned int)(ret->bytes_sent * 100 / ret->bytes_total)));
    ret->percent = push->percent;
}

const struct reference *push_reference(const struct push *push)
{
    return &push->reference;
}

const struct push_result *push_result(const struct push *push, size_t index)
{
    return index < push->image_count ? &push->images[index].result : NULL;
}
