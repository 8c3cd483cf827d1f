#include <errno.h>

#include "daemon/image/image.h"
#include "daemon/registry/reference.h"
#include "daemon/server/handlers.h"
#include "proto/async/await.h"
#include "proto/base/log.h"

/* --- Pull ------------------------------------------------------------------------------------- */

/* How often a watcher is sent a snapshot, at most. */
#define SNAPSHOT_INTERVAL_MS 100

/* A snapshot as message, with room for the largest image. On the heap: it is large for a stack. */
struct snapshot {
    Davit__V1__PullResponse response;
    Davit__V1__PullProgress progress;
    Davit__V1__PullResult result;
    Davit__V1__LayerProgress layers[MANIFEST_MAX_LAYERS];
    Davit__V1__LayerProgress *layer_list[MANIFEST_MAX_LAYERS];
    struct pull_progress engine;
    char *familiar, *tag, *canonical;
};

static void snapshot_cleanup(struct snapshot **snapshot)
{
    if (*snapshot) {
        free((*snapshot)->familiar);
        free((*snapshot)->tag);
        free((*snapshot)->canonical);
    }
    free(*snapshot);
}

static struct snapshot *snapshot_new(const struct pull *pull)
{
    struct snapshot *snapshot = xcalloc(1, sizeof(*snapshot));
    const struct reference *reference = pull_reference(pull);
    Davit__V1__PullProgress *progress = &snapshot->progress;

    davit__v1__pull_response__init(&snapshot->response);
    davit__v1__pull_progress__init(progress);
    davit__v1__pull_result__init(&snapshot->result);
    snapshot->familiar = reference_familiar(reference);
    snapshot->canonical = reference_canonical(reference);
    snapshot->tag =
        xstrdup(digest_is_set(&reference->digest) ? reference->digest.text : reference->tag);
    snapshot->response.progress = progress;
    progress->reference = snapshot->familiar;
    progress->repository = reference->path;
    progress->tag = snapshot->tag;
    progress->default_tag = reference->default_tag;
    progress->layers = snapshot->layer_list;
    for (size_t i = 0; i < MANIFEST_MAX_LAYERS; i++) {
        davit__v1__layer_progress__init(&snapshot->layers[i]);
        snapshot->layer_list[i] = &snapshot->layers[i];
    }
    return snapshot;
}

static Davit__V1__LayerProgress__State layer_state(enum pull_layer_state state)
{
    switch (state) {
    case PULL_LAYER_WAITING:
        return DAVIT__V1__LAYER_PROGRESS__STATE__WAITING;
    case PULL_LAYER_FETCHING:
        return DAVIT__V1__LAYER_PROGRESS__STATE__FETCHING;
    case PULL_LAYER_STORING:
        return DAVIT__V1__LAYER_PROGRESS__STATE__STORING;
    case PULL_LAYER_DONE:
        return DAVIT__V1__LAYER_PROGRESS__STATE__DONE;
    case PULL_LAYER_EXISTS:
        return DAVIT__V1__LAYER_PROGRESS__STATE__EXISTS;
    }
    return DAVIT__V1__LAYER_PROGRESS__STATE__STATE_UNSPECIFIED;
}

static Davit__V1__PullProgress__Phase pull_phase(enum pull_phase phase)
{
    switch (phase) {
    case PULL_RESOLVING:
        return DAVIT__V1__PULL_PROGRESS__PHASE__RESOLVING;
    case PULL_FETCHING:
        return DAVIT__V1__PULL_PROGRESS__PHASE__FETCHING;
    case PULL_COMMITTING:
        return DAVIT__V1__PULL_PROGRESS__PHASE__COMMITTING;
    case PULL_DONE:
        return DAVIT__V1__PULL_PROGRESS__PHASE__DONE;
    }
    return DAVIT__V1__PULL_PROGRESS__PHASE__PHASE_UNSPECIFIED;
}

static void snapshot_fill(struct snapshot *snapshot, struct pull *pull)
{
    Davit__V1__PullProgress *progress = &snapshot->progress;
    const struct pull_progress *engine = &snapshot->engine;

    pull_progress(pull, &snapshot->engine);
    progress->phase = pull_phase(engine->phase);
    progress->n_layers = engine->layer_count;
    for (size_t i = 0; i < engine->layer_count; i++) {
        snapshot->layers[i].digest = (char *)engine->layers[i].digest->text;
        snapshot->layers[i].state = layer_state(engine->layers[i].state);
        snapshot->layers[i].bytes_fetched = engine->layers[i].bytes_fetched;
        snapshot->layers[i].bytes_total = engine->layers[i].bytes_total;
        snapshot->layers[i].bytes_stored = engine->layers[i].bytes_stored;
        snapshot->layers[i].bytes_per_second = engine->layers[i].bytes_per_second;
    }
    progress->bytes_fetched = engine->bytes_fetched;
    progress->bytes_total = engine->bytes_total;
    progress->percent = engine->percent;
    progress->bytes_per_second = engine->bytes_per_second;
    progress->eta_ms = engine->eta_ms;
    progress->sequence++;
}

static bool pull_task(void *arg, struct error *err)
{
    return await_pull(arg, err);
}

/* Sends snapshots while the pull runs; a slow reader holds up only this loop and gets fewer. */
static bool await_watch(struct grpc_call *call, struct pull *pull, struct snapshot *snapshot,
                        struct group *group, struct error *err)
{
    int r;

    do {
        snapshot_fill(snapshot, pull);
        if (!await_grpc_send(call, &snapshot->response.base, err))
            return false;
        r = await_group_idle(group, SNAPSHOT_INTERVAL_MS);
    } while (r == -ETIMEDOUT && task_check() == 0);
    return await_group(group, err);
}

static bool await_send_result(struct grpc_call *call, struct pull *pull, struct snapshot *snapshot,
                              struct error *err)
{
    struct pull_result result = pull_result(pull);

    snapshot_fill(snapshot, pull);
    snapshot->result.reference = snapshot->canonical;
    snapshot->result.digest = (char *)result.digest->text;
    snapshot->result.image_id = (char *)result.image_id->text;
    snapshot->result.up_to_date = result.up_to_date;
    snapshot->response.result = &snapshot->result;
    return await_grpc_send(call, &snapshot->response.base, err);
}

static char *or_null(char *value)
{
    return str_empty(value) ? NULL : value;
}

static bool handle_pull(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__PullRequest *request = (const Davit__V1__PullRequest *)message;
    CLEANUP(pull_cleanup) struct pull *pull = NULL;
    CLEANUP(snapshot_cleanup) struct snapshot *snapshot = NULL;
    CLEANUP(group_done_await) struct group group;
    struct pull_request engine_request = {0};

    group_init(&group);
    if (!message)
        return false;
    engine_request.reference = request->reference;
    engine_request.platform = request->platform;
    if (request->auth) {
        engine_request.auth.username = or_null(request->auth->username);
        engine_request.auth.password = or_null(request->auth->password);
        engine_request.auth.identity_token = or_null(request->auth->identity_token);
    }
    pull = pull_new(&engines->pull, &engine_request, err);
    if (!pull)
        return false;
    log_info("pull", LOG("image", request->reference), LOG("peer", grpc_call_peer(call)));
    snapshot = snapshot_new(pull);
    return task_spawn(&group, "pull", request->reference, pull_task, pull, err) &&
           await_watch(call, pull, snapshot, &group, err) &&
           await_send_result(call, pull, snapshot, err);
}

/* --- List ------------------------------------------------------------------------------------- */

/* Canonical names to familiar ones; the caller frees with strv_free. */
static char **familiar_names(char *const *canonical)
{
    size_t count = strv_count(canonical);
    char **names = xcalloc(count + 1, sizeof(*names));

    for (size_t i = 0; i < count; i++)
        names[i] = image_familiar(canonical[i]);
    return names;
}

/* Does the image have a name in this repository, or this name if a tag was given? */
static bool name_matches(const struct image *image, const struct reference *wanted, bool tag_given)
{
    CLEANUP_FREE char *repository = reference_name(wanted);
    CLEANUP_FREE char *canonical = reference_canonical(wanted);
    size_t length = strlen(repository);

    for (char **tag = image->tags; tag && *tag; tag++) {
        if (tag_given ? str_eq(*tag, canonical)
                      : strncmp(*tag, repository, length) == 0 && (*tag)[length] == ':')
            return true;
    }
    return false;
}

Davit__V1__Image *image_message(const struct image *image)
{
    Davit__V1__Image *message = xcalloc(1, sizeof(*message));

    davit__v1__image__init(message);
    message->id = xstrdup(image->id.text);
    message->repo_tags = familiar_names(image->tags);
    message->n_repo_tags = strv_count(message->repo_tags);
    message->repo_digests = familiar_names(image->repo_digests);
    message->n_repo_digests = strv_count(message->repo_digests);
    message->created_unix_ns = image->created_unix_ns;
    message->size_bytes = image->size_bytes;
    message->os = xstrdup(image->os);
    message->architecture = xstrdup(image->architecture);
    return message;
}

static bool handle_list(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__ListImagesRequest *request = (const Davit__V1__ListImagesRequest *)message;
    CLEANUP_REFERENCE struct reference wanted = {0};
    CLEANUP_FREE const struct image **images = NULL;
    Davit__V1__ListImagesResponse *response;
    bool filter, sent;
    size_t count = 0;

    if (!message)
        return false;
    filter = !str_empty(request->reference);
    if (filter && !reference_parse(request->reference, &wanted, err))
        return false;
    images = image_list(engines->store, &count);
    response = xcalloc(1, sizeof(*response));
    davit__v1__list_images_response__init(response);
    response->images = xcalloc(count, sizeof(struct Davit__V1__Image *));
    for (size_t i = 0; i < count; i++) {
        if (!filter || name_matches(images[i], &wanted, !wanted.default_tag))
            response->images[response->n_images++] = image_message(images[i]);
    }
    sent = await_grpc_send(call, &response->base, err);
    davit__v1__list_images_response__free_unpacked(response, NULL);
    return sent;
}

/* --- Remove ----------------------------------------------------------------------------------- */

static bool handle_remove(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__RemoveImageRequest *request = (const Davit__V1__RemoveImageRequest *)message;
    CLEANUP(image_removals_done) struct image_removals removals = {0};
    Davit__V1__RemoveImageResponse response = DAVIT__V1__REMOVE_IMAGE_RESPONSE__INIT;
    CLEANUP_FREE Davit__V1__RemoveImageResponse__Removed *items = NULL;
    CLEANUP_FREE Davit__V1__RemoveImageResponse__Removed **list = NULL;

    if (!message ||
        !await_image_remove(engines->store, request->reference, request->force, &removals, err))
        return false;
    items = xcalloc(removals.count, sizeof(*items));
    list = xcalloc(removals.count, sizeof(*list));
    for (size_t i = 0; i < removals.count; i++) {
        davit__v1__remove_image_response__removed__init(&items[i]);
        list[i] = &items[i];
        if (removals.items[i].untagged) {
            items[i].what_case = DAVIT__V1__REMOVE_IMAGE_RESPONSE__REMOVED__WHAT_UNTAGGED;
            items[i].untagged = removals.items[i].what;
        } else {
            items[i].what_case = DAVIT__V1__REMOVE_IMAGE_RESPONSE__REMOVED__WHAT_DELETED;
            items[i].deleted = removals.items[i].what;
        }
    }
    response.removed = list;
    response.n_removed = removals.count;
    log_info("removed image", LOG("image", request->reference), LOG("peer", grpc_call_peer(call)));
    return await_grpc_send(call, &response.base, err);
}

void handlers_images_add(struct grpc_server *server, const struct engines *engines)
{
    static const struct grpc_method methods[] = {
        {"Pull", handle_pull},
        {"List", handle_list},
        {"Remove", handle_remove},
    };

    grpc_server_add(server, &davit__v1__images__descriptor, methods, ARRAY_SIZE(methods),
                    (void *)engines);
}
