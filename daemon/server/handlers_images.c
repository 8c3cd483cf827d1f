#include "daemon/image/image.h"
#include "daemon/server/handlers.h"
#include "proto/base/log.h"

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
    if (!await_image_remove(engines->store, request->reference,
                            &(struct image_remove){.force = request->force,
                                                   .no_prune = request->no_prune},
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
        {"Pull", handle_pull},
        {"Plan", handle_plan},
        {"Push", handle_push},
        {"List", handle_list_images},
        {"Inspect", handle_inspect_image},
        {"History", handle_image_history},
        {"Tag", handle_tag},
        {"Remove", handle_remove},
        {"Save", handle_save},
        {"Load", handle_load},
        {"Import", handle_import},
    };

    grpc_server_add(server, &davit__v1__images__descriptor, methods, ARRAY_SIZE(methods),
                    (void *)engines);
}
