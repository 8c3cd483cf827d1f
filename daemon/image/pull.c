#include "daemon/image/pull.h"

#include "daemon/store/event.h"
#include "daemon/store/partial.h"
#include "proto/base/log.h"
#include "proto/base/size.h"

struct pull_layer {
    struct pull *pull;
    const struct descriptor *blob;
    const struct digest *diff_id;
    bool existed;
    bool repeated;       /* the same blob stands further down in the manifest */
    uint64_t bytes_kept; /* of a former try; as of when the pull began */
    struct transfer_share *share;
};

struct pull {
    struct pull_engine engine;
    struct reference reference;
    struct platform platform;
    char *username, *password, *identity_token;
    struct requester *requester;
    enum pull_phase phase;
    struct registry_wait wait;
    struct resolved_image *image;
    struct source_list sources;
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
    pull->requester = requester_new(request->bytes_per_second);
    pull->username = xstrdup(request->auth.username);
    pull->password = xstrdup(request->auth.password);
    pull->identity_token = xstrdup(request->auth.identity_token);
    if (!reference_parse(request->reference, &pull->reference, err) ||
        !platform_parse(request->platform ? request->platform : "", &pull->platform, err))
        return NULL;
    return TAKE(pull);
}

struct pull *pull_free(struct pull *pull)
{
    if (!pull)
        return NULL;
    for (size_t i = 0; pull->layers && i < pull->image->manifest->layer_count; i++)
        transfer_leave(pull->layers[i].share);
    free(pull->layers);
    requester_free(pull->requester);
    source_list_done(&pull->sources);
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

/* What there is of the layers now. They are listed once: their number and sizes are the
 * manifest's. */
static void list_layers(struct pull *pull)
{
    const struct manifest *manifest = pull->image->manifest;

    if (!pull->layers)
        pull->layers = xcalloc(manifest->layer_count, sizeof(*pull->layers));
    pull->bytes_total = 0;
    for (size_t i = 0; i < manifest->layer_count; i++) {
        struct pull_layer *layer = &pull->layers[i];
        layer->pull = pull;
        layer->blob = &manifest->layers[i];
        layer->diff_id = &pull->image->config->diff_ids[i];
        layer->existed = layer_find(pull->engine.store, layer->diff_id, NULL);
        layer->repeated = false;
        for (size_t j = 0; j < i && !layer->repeated; j++)
            layer->repeated = digest_eq(&pull->layers[j].blob->digest, &layer->blob->digest);
        if (!layer->existed && !layer->repeated)
            pull->bytes_total += layer->blob->size_bytes;
    }
}

static bool await_find_kept(struct pull *pull, struct error *err)
{
    for (size_t i = 0; i < pull->image->manifest->layer_count; i++) {
        struct pull_layer *layer = &pull->layers[i];
        if (!layer->existed && !layer->repeated &&
            !await_partial_kept(pull->engine.store, &layer->blob->digest, layer->blob->size_bytes,
                                &layer->bytes_kept, err))
            return false;
    }
    return true;
}

static bool is_to_be_fetched(const struct pull_layer *layer)
{
    return !layer->existed && !layer->repeated &&
           !transfer_runs(layer->pull->engine.transfers, layer->blob, layer->diff_id);
}

/* About the least that the store will grow by at some time; what others fetch already is not
 * counted. A layer's files never take less than its blob, and beside all of them there is a blob at
 * least that is not stored yet, or all of them if they are kept. */
static uint64_t bytes_needed(const struct pull *pull)
{
    uint64_t layers = 0, all_missing = 0, most_missing = 0;

    for (size_t i = 0; i < pull->image->manifest->layer_count; i++) {
        const struct pull_layer *layer = &pull->layers[i];
        uint64_t missing;
        if (!is_to_be_fetched(layer))
            continue;
        missing = layer->blob->size_bytes - MIN(layer->blob->size_bytes, layer->bytes_kept);
        layers += layer->blob->size_bytes;
        all_missing += missing;
        most_missing = MAX(most_missing, missing);
    }
    return layers + (store_keeps_blobs(pull->engine.store) ? all_missing : most_missing);
}

static bool await_look_for_room(struct pull *pull, struct error *err)
{
    struct transfer_table *transfers = pull->engine.transfers;
    struct space space;
    uint64_t needed;

    list_layers(pull);
    if (!await_find_kept(pull, err))
        return false;
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

static bool await_layers(struct pull *pull, struct error *err)
{
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    for (size_t i = 0; i < pull->image->manifest->layer_count; i++) {
        struct pull_layer *layer = &pull->layers[i];
        if (layer->existed)
            continue;
        layer->share = transfer_join(pull->engine.transfers,
                                     &(struct transfer_request){
                                         .requester = pull->requester,
                                         .sources = &pull->sources,
                                         .blob = layer->blob,
                                         .diff_id = layer->diff_id,
                                         .kept_bytes = layer->bytes_kept,
                                     },
                                     err);
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

/* What there is of the pull's layers by now. */
static uint64_t await_count_kept(const struct pull *pull)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < pull->image->manifest->layer_count; i++) {
        const struct pull_layer *layer = &pull->layers[i];
        uint64_t kept = 0;
        if (layer->existed || layer->repeated)
            continue;
        if (layer_find(pull->engine.store, layer->diff_id, NULL))
            kept = layer->blob->size_bytes;
        else
            await_partial_kept(pull->engine.store, &layer->blob->digest, layer->blob->size_bytes,
                               &kept, NULL);
        bytes += kept;
    }
    return bytes;
}

static void say_what_is_kept(const struct pull *pull, uint64_t kept, struct error *err)
{
    CLEANUP_FREE char *message = TAKE(err->message), *hint = TAKE(err->hint);
    const char *then = kept ? "pull again to go on from there" : "pull again";

    err->message = kept ? xasprintf("%s; %s of %s are kept", message, size_text(kept).text,
                                    size_text(pull->bytes_total).text)
                        : TAKE(message);
    err->hint = hint ? xasprintf("%s; then %s", hint, then) : xstrdup(then);
}

/* What is there already is not fetched again by the next try: the pull's user is told. Also for a
 * cancelled task. */
static void explain_failure_await(struct pull *pull, struct error *err)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();
    struct store *store = pull->engine.store;
    uint64_t kept = await_count_kept(pull);
    struct space space;

    if (error_is(err, "NO_SPACE") && await_space(store, 0, &space, NULL))
        space_hint(store, &space, err);
    say_what_is_kept(pull, kept, err);
}

static bool await_fetch(struct pull *pull, struct error *err)
{
    pull->phase = PULL_FETCHING;
    if (await_layers(pull, err)) {
        pull->phase = PULL_COMMITTING;
        if (await_commit(pull, err))
            return true;
    }
    if (err)
        explain_failure_await(pull, err);
    return false;
}

/* Neither layers nor what is kept of their blobs are removed meanwhile. */
struct leases {
    struct layer_lease *layers;
    struct partial_lease *partials;
};

static void leases_done(struct leases *leases)
{
    layer_lease_free(leases->layers);
    partial_lease_free(leases->partials);
}

static struct leases leases_take(const struct pull *pull)
{
    const struct manifest *manifest = pull->image->manifest;
    CLEANUP_FREE struct digest *blobs = xcalloc(manifest->layer_count + 1, sizeof(*blobs));
    struct store *store = pull->engine.store;

    for (size_t i = 0; i < manifest->layer_count; i++)
        blobs[i] = manifest->layers[i].digest;
    return (struct leases){
        .layers = layer_lease_new(store, pull->image->config->diff_ids,
                                  pull->image->config->diff_id_count),
        .partials = partial_lease_new(store, blobs, manifest->layer_count),
    };
}

static bool await_resolve(struct pull *pull, struct error *err)
{
    const struct registry_auth auth = {pull->username, pull->password, pull->identity_token};
    struct registry_client *registry = pull->engine.registry;

    pull->image = await_registry_resolve(registry, &pull->reference, &auth, &pull->platform,
                                         &pull->wait, err);
    return pull->image && await_registry_sources(registry, &pull->reference, &auth, SOURCE_PULL,
                                                 &pull->sources, err);
}

bool await_pull(struct pull *pull, struct error *err)
{
    CLEANUP_FREE char *name = reference_familiar(&pull->reference);
    CLEANUP(leases_done) struct leases leases = {0};

    if (!await_resolve(pull, err))
        return false;
    leases = leases_take(pull);
    if (!await_room(pull, err) || !await_fetch(pull, err))
        return error_prefix(err, "cannot pull %s", name);
    pull->phase = PULL_DONE;
    log_info("pulled image", LOG("image", name), LOG("bytes", pull->bytes_total),
             LOG("up_to_date", pull->up_to_date));
    return true;
}

void pull_set_limit(struct pull *pull, uint64_t bytes_per_second)
{
    requester_set_limit(pull->requester, bytes_per_second);
}

/* --- Looking at it ---------------------------------------------------------------------------- */

static enum pull_layer_state state_of(enum transfer_state state, bool shared)
{
    switch (state) {
    case TRANSFER_WAITING:
    case TRANSFER_FAILED:
        return PULL_LAYER_WAITING;
    case TRANSFER_FETCHING:
        return shared ? PULL_LAYER_SHARED : PULL_LAYER_FETCHING;
    case TRANSFER_RATE_LIMITED:
        return PULL_LAYER_RATE_LIMITED;
    case TRANSFER_RETRYING:
        return PULL_LAYER_RETRYING;
    case TRANSFER_STORING:
        return PULL_LAYER_STORING;
    case TRANSFER_DONE:
        return PULL_LAYER_DONE;
    }
    return PULL_LAYER_WAITING;
}

static struct pull_layer_progress layer_progress(const struct pull_layer *layer)
{
    struct transfer_progress transfer;

    if (layer->existed)
        return (struct pull_layer_progress){
            .digest = &layer->blob->digest,
            .state = PULL_LAYER_PRESENT,
            .bytes_fetched = layer->blob->size_bytes,
            .bytes_total = layer->blob->size_bytes,
        };
    if (!layer->share)
        return (struct pull_layer_progress){
            .digest = &layer->blob->digest,
            .state = PULL_LAYER_WAITING,
            .bytes_fetched = layer->bytes_kept,
            .bytes_total = layer->blob->size_bytes,
            .bytes_resumed = layer->bytes_kept,
        };
    transfer = transfer_progress(layer->share);
    return (struct pull_layer_progress){
        .digest = &layer->blob->digest,
        .state = state_of(transfer.state, transfer_is_shared(layer->share)),
        .bytes_fetched = transfer.bytes_fetched,
        .bytes_total = layer->blob->size_bytes,
        .bytes_stored = transfer.bytes_stored,
        .bytes_per_second = transfer.bytes_per_second,
        .bytes_resumed = transfer.bytes_resumed,
        .until_unix_ms = transfer.until_unix_ms,
        .source = transfer.source,
        .error = transfer.error,
        .connections = transfer.connections,
    };
}

void pull_progress(struct pull *pull, struct pull_progress *ret)
{
    ret->phase = pull->phase;
    ret->wait = pull->wait.until_unix_ms ? &pull->wait : NULL;
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

/* --- Without fetching ------------------------------------------------------------------------- */

void pull_plan_done(struct pull_plan *plan)
{
    free(plan->layers);
    strv_free(plan->sources);
    *plan = (struct pull_plan){0};
}

static void plan_layer(struct pull_plan *plan, const struct pull_layer *layer)
{
    struct pull_plan_layer *planned = &plan->layers[plan->layer_count++];

    planned->digest = layer->blob->digest;
    planned->bytes_total = layer->blob->size_bytes;
    planned->bytes_kept = layer->bytes_kept;
    plan->bytes_total += layer->blob->size_bytes;
    if (layer->existed)
        planned->what = PLAN_PRESENT;
    else if (!is_to_be_fetched(layer))
        planned->what = PLAN_SHARED;
    else
        plan->bytes_to_fetch += planned->bytes_total - planned->bytes_kept;
}

bool await_pull_plan(struct pull *pull, struct pull_plan *ret, struct error *err)
{
    struct store *store = pull->engine.store;

    *ret = (struct pull_plan){0};
    if (!await_resolve(pull, err))
        return false;
    list_layers(pull);
    if (!await_find_kept(pull, err) || !await_space(store, 0, &ret->space, err))
        return false;
    ret->digest = pull->image->digest;
    ret->image_id = pull->image->manifest->config.digest;
    ret->layers = xcalloc(pull->image->manifest->layer_count + 1, sizeof(*ret->layers));
    for (size_t i = 0; i < pull->image->manifest->layer_count; i++) {
        if (!pull->layers[i].repeated)
            plan_layer(ret, &pull->layers[i]);
    }
    for (size_t i = 0; i < pull->sources.count; i++)
        strv_add(&ret->sources, source_name(pull->sources.items[i]));
    ret->disk_bytes = bytes_needed(pull);
    ret->fits = ret->disk_bytes == 0 ||
                space_check(store, &ret->space, ret->disk_bytes,
                            transfer_table_disk_bytes_left(pull->engine.transfers), NULL);
    return true;
}
