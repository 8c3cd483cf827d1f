#include "daemon/image/pull.h"

#include <inttypes.h>

#include "daemon/store/event.h"
#include "proto/base/log.h"
#include "proto/base/size.h"

struct pull_layer {
    struct pull *pull;
    const struct descriptor *blob;
    const struct digest *diff_id;
    bool existed;
    bool repeated; /* the same blob stands further down in the manifest */
    struct transfer_share *share;
};

struct pull {
    struct pull_engine engine;
    struct reference reference;
    struct platform platform;
    char *username, *password, *identity_token;
    enum pull_phase phase;
    struct resolved_image *image;
    struct pull_layer *layers;
    uint64_t bytes_total;
    unsigned int percent; /* the highest that was shown */
    bool up_to_date;
};

struct pull *pull_new(const struct pull_engine *engine, const struct pull_request *request,
                      struct error *err)
{
    CLEANUP(pull_cleanup) struct pull *pull = xcalloc(1, sizeof(*pull));

    pull->engine = *engine;
    pull->username = xstrdup(request->auth.username);
    pull->password = xstrdup(request->auth.password);
    pull->identity_token = xstrdup(request->auth.identity_token);
    if (!reference_parse(request->reference, &pull->reference, err) ||
        !platform_parse(request->platform ? request->platform : "", &pull->platform, err))
        return NULL;
    return TAKE(pull);
}

static void free_secret(char *secret)
{
    if (secret)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

struct pull *pull_free(struct pull *pull)
{
    if (!pull)
        return NULL;
    for (size_t i = 0; pull->layers && i < pull->image->manifest->layer_count; i++)
        transfer_leave(pull->layers[i].share);
    free(pull->layers);
    resolved_image_free(pull->image);
    reference_done(&pull->reference);
    platform_done(&pull->platform);
    free(pull->username);
    free_secret(pull->password);
    free_secret(pull->identity_token);
    free(pull);
    return NULL;
}

/* --- The flow --------------------------------------------------------------------------------- */

static void list_layers(struct pull *pull)
{
    const struct manifest *manifest = pull->image->manifest;

    free(pull->layers);
    pull->layers = xcalloc(manifest->layer_count, sizeof(*pull->layers));
    pull->bytes_total = 0;
    for (size_t i = 0; i < manifest->layer_count; i++) {
        struct pull_layer *layer = &pull->layers[i];
        layer->pull = pull;
        layer->blob = &manifest->layers[i];
        layer->diff_id = &pull->image->config->diff_ids[i];
        layer->existed = layer_find(pull->engine.store, layer->diff_id, NULL);
        for (size_t j = 0; j < i && !layer->repeated; j++)
            layer->repeated = digest_eq(&pull->layers[j].blob->digest, &layer->blob->digest);
        if (!layer->existed && !layer->repeated)
            pull->bytes_total += layer->blob->size_bytes;
    }
}

/* A lower bound of what the store will grow by; what others fetch already is not counted. */
static uint64_t bytes_needed(const struct pull *pull)
{
    const struct manifest *manifest = pull->image->manifest;
    uint64_t bytes = 0;

    for (size_t i = 0; i < manifest->layer_count; i++) {
        const struct pull_layer *layer = &pull->layers[i];
        if (!layer->existed && !layer->repeated &&
            !transfer_runs(pull->engine.transfers, layer->blob, layer->diff_id))
            bytes += layer->blob->size_bytes;
    }
    return transfer_disk_bytes(pull->engine.transfers, bytes);
}

static bool await_look_for_room(struct pull *pull, struct error *err)
{
    struct transfer_table *transfers = pull->engine.transfers;
    struct space space;
    uint64_t needed;

    list_layers(pull);
    needed = bytes_needed(pull);
    if (needed == 0)
        return true;
    if (!await_space(pull->engine.store, needed, &space, err))
        return false;
    list_layers(pull); /* others were at work meanwhile */
    needed = bytes_needed(pull);
    return needed == 0 || space_check(pull->engine.store, &space, needed,
                                      transfer_table_disk_bytes_left(transfers), err);
}

/* Lists the layers, and refuses a pull that plainly does not fit, before its first byte. */
static bool await_room(struct pull *pull, struct error *err)
{
    for (;;) {
        struct transfer_table *transfers = pull->engine.transfers;
        bool more_to_come = transfer_table_unwinds(transfers);
        int r;
        if (await_look_for_room(pull, err))
            return true;
        if (!more_to_come || !err || !error_is(err, "NO_SPACE"))
            return false;
        error_done(err);
        if (transfer_table_unwinds(transfers) && (r = await_transfer_unwound(transfers)) < 0)
            return await_error(err, r, "waiting for space");
    }
}

static bool layer_task(void *arg, struct error *err)
{
    struct pull_layer *layer = arg;

    if (await_transfer(layer->share, err))
        return true;
    return error_prefix(err, "layer %.12s", digest_hex(&layer->blob->digest));
}

static bool await_layers(struct pull *pull, const struct registry_auth *auth, struct error *err)
{
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    for (size_t i = 0; i < pull->image->manifest->layer_count; i++) {
        struct pull_layer *layer = &pull->layers[i];
        if (layer->existed)
            continue;
        layer->share = transfer_join(pull->engine.transfers, &pull->reference, auth, layer->blob,
                                     layer->diff_id, err);
        if (!layer->share ||
            !task_spawn(&group, "layer", digest_hex(&layer->blob->digest), layer_task, layer, err))
            return false;
    }
    return await_group(&group, err);
}

/* The members' texts are the manifest's. */
static struct layer_blob *pull_blobs(const struct pull *pull)
{
    const struct manifest *manifest = pull->image->manifest;
    struct layer_blob *blobs = xcalloc(manifest->layer_count, sizeof(*blobs));

    for (size_t i = 0; i < manifest->layer_count; i++)
        blobs[i] = (struct layer_blob){
            .digest = manifest->layers[i].digest,
            .media_type = manifest->layers[i].media_type,
            .size_bytes = manifest->layers[i].size_bytes,
        };
    return blobs;
}

static bool await_commit(struct pull *pull, struct error *err)
{
    const struct resolved_image *resolved = pull->image;
    const struct image_config *config = resolved->config;
    CLEANUP_FREE char *name = reference_name(&pull->reference);
    CLEANUP_FREE char *repo_digest = xasprintf("%s@%s", name, resolved->digest.text);
    CLEANUP_FREE char *tag = NULL;
    CLEANUP_FREE struct layer_blob *blobs = pull_blobs(pull);
    CLEANUP_FREE char *familiar = reference_familiar(&pull->reference);
    CLEANUP_FREE char *familiar_name = reference_familiar_name(&pull->reference);
    const struct event_note event = {"pull", familiar, familiar_name,
                                     .image = &resolved->manifest->config.digest};
    bool changed = false;
    struct image image = {
        .manifest_digest = resolved->manifest_digest,
        .id = resolved->manifest->config.digest,
        .manifest_data = resolved->manifest_data,
        .manifest_size = resolved->manifest_size,
        .config_data = resolved->config_data,
        .config_size = resolved->config_size,
        .blobs = blobs,
        .repository = name,
        .event = &event,
        .created_unix_ns = config->created_unix_ns,
        .os = config->os,
        .architecture = config->architecture,
        .diff_ids = config->diff_ids,
        .diff_id_count = config->diff_id_count,
    };

    /* A reference with both a tag and a digest names the content: the tag stays where it is. */
    if (!digest_is_set(&pull->reference.digest))
        tag = xasprintf("%s:%s", name, pull->reference.tag);
    if (!await_image_commit(pull->engine.store, &image, tag, repo_digest, &changed, err))
        return false;
    pull->up_to_date = !changed;
    return true;
}

/* What is there already is not fetched again by the next try: the pull's user is told. */
static void await_explain_no_space(struct pull *pull, struct error *err)
{
    const struct manifest *manifest = pull->image->manifest;
    struct store *store = pull->engine.store;
    size_t kept = 0, count = 0;
    uint64_t kept_bytes = 0;
    struct space space;

    for (size_t i = 0; i < manifest->layer_count; i++) {
        const struct pull_layer *layer = &pull->layers[i];
        if (layer->repeated)
            continue;
        count++;
        if (!layer_find(store, layer->diff_id, NULL))
            continue;
        kept++;
        kept_bytes += layer->blob->size_bytes;
    }
    error_set(err, err->code, err->reason, "%s; %zu of %zu layers (%s) are kept for the next try",
              err->message, kept, count, size_text(kept_bytes).text);
    if (await_space(store, 0, &space, NULL))
        space_hint(store, &space, err);
}

static bool await_fetch(struct pull *pull, const struct registry_auth *auth, struct error *err)
{
    pull->phase = PULL_FETCHING;
    if (await_layers(pull, auth, err)) {
        pull->phase = PULL_COMMITTING;
        if (await_commit(pull, err))
            return true;
    }
    if (err && error_is(err, "NO_SPACE"))
        await_explain_no_space(pull, err);
    return false;
}

bool await_pull(struct pull *pull, struct error *err)
{
    const struct registry_auth auth = {pull->username, pull->password, pull->identity_token};
    CLEANUP_FREE char *name = reference_familiar(&pull->reference);
    struct layer_lease *lease;
    bool ok;

    pull->image = await_registry_resolve(pull->engine.registry, &pull->reference, &auth,
                                         &pull->platform, err);
    if (!pull->image)
        return false;
    lease = layer_lease_new(pull->engine.store, pull->image->config->diff_ids,
                            pull->image->config->diff_id_count);
    ok = await_room(pull, err) && await_fetch(pull, &auth, err);
    layer_lease_free(lease);
    if (!ok)
        return error_prefix(err, "cannot pull %s", name);
    pull->phase = PULL_DONE;
    log_info("pulled image", LOG("image", name), LOG("bytes", pull->bytes_total),
             LOG("up_to_date", pull->up_to_date));
    return true;
}

/* --- Looking at it ---------------------------------------------------------------------------- */

static enum pull_layer_state state_of(enum transfer_state state)
{
    switch (state) {
    case TRANSFER_WAITING:
    case TRANSFER_FAILED:
        return PULL_LAYER_WAITING;
    case TRANSFER_FETCHING:
        return PULL_LAYER_FETCHING;
    case TRANSFER_STORING:
        return PULL_LAYER_STORING;
    case TRANSFER_DONE:
        return PULL_LAYER_DONE;
    }
    return PULL_LAYER_WAITING;
}

static struct pull_layer_progress layer_progress(const struct pull_layer *layer)
{
    struct pull_layer_progress progress = {
        .digest = &layer->blob->digest,
        .state = PULL_LAYER_WAITING,
        .bytes_total = layer->blob->size_bytes,
    };

    if (layer->existed) {
        progress.state = PULL_LAYER_EXISTS;
        progress.bytes_fetched = layer->blob->size_bytes;
    } else if (layer->share) {
        struct transfer_progress transfer = transfer_progress(layer->share);
        progress.state = state_of(transfer.state);
        progress.bytes_fetched = transfer.bytes_fetched;
        progress.bytes_stored = transfer.bytes_stored;
        progress.bytes_per_second = transfer.bytes_per_second;
    }
    return progress;
}

void pull_progress(struct pull *pull, struct pull_progress *ret)
{
    ret->phase = pull->phase;
    ret->layer_count = pull->layers ? pull->image->manifest->layer_count : 0;
    ret->bytes_fetched = 0;
    ret->bytes_total = pull->bytes_total;
    ret->bytes_per_second = 0;
    ret->eta_ms = -1;
    for (size_t i = 0; i < ret->layer_count; i++) {
        const struct pull_layer *layer = &pull->layers[i];
        ret->layers[i] = layer_progress(layer);
        if (layer->existed || layer->repeated)
            continue;
        ret->bytes_fetched += ret->layers[i].bytes_fetched;
        ret->bytes_per_second += ret->layers[i].bytes_per_second;
    }
    if (ret->bytes_per_second)
        ret->eta_ms =
            (int64_t)((ret->bytes_total - ret->bytes_fetched) * 1000 / ret->bytes_per_second);
    if (pull->phase == PULL_DONE)
        pull->percent = 100;
    else if (ret->bytes_total)
        pull->percent = MAX(pull->percent,
                            MIN(99U, (unsigned int)(ret->bytes_fetched * 100 / ret->bytes_total)));
    ret->percent = pull->percent;
}

const struct reference *pull_reference(const struct pull *pull)
{
    return &pull->reference;
}

struct pull_result pull_result(const struct pull *pull)
{
    return (struct pull_result){
        .digest = &pull->image->digest,
        .image_id = &pull->image->manifest->config.digest,
        .up_to_date = pull->up_to_date,
    };
}
