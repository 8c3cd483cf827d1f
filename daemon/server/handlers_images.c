#include "daemon/image/image.h"
#include "daemon/registry/reference.h"
#include "daemon/server/handlers.h"
#include "proto/base/log.h"

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

/* --- Tag -------------------------------------------------------------------------------------- */

static bool handle_tag(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__TagImageRequest *request = (const Davit__V1__TagImageRequest *)message;
    Davit__V1__TagImageResponse response = DAVIT__V1__TAG_IMAGE_RESPONSE__INIT;

    if (!message || !await_image_tag_as(engines->store, request->source, request->target, err))
        return false;
    log_info("tagged image", LOG("image", request->source), LOG("tag", request->target),
             LOG("peer", grpc_call_peer(call)));
    return await_grpc_send(call, &response.base, err);
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

    if (!message)
        return false;
    if (!await_image_remove(
            engines->store, request->reference,
            &(struct image_remove){.force = request->force, .no_prune = request->no_prune},
            &removals, err))
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
        {"Pull", handle_pull}, {"Plan", handle_plan}, {"Push", handle_push},
        {"List", handle_list}, {"Tag", handle_tag},   {"Remove", handle_remove},
    };

    grpc_server_add(server, &davit__v1__images__descriptor, methods, ARRAY_SIZE(methods),
                    (void *)engines);
}
