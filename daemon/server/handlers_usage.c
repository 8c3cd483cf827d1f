/* System.DiskUsage: what `davit system df` shows. */
#include "daemon/image/image.h"
#include "daemon/server/handlers.h"
#include "proto/davit/v1/system.pb-c.h"

/* A response that owns all its parts; free with the message's own function. */
static Davit__V1__Usage *usage_message(size_t total, size_t active, uint64_t bytes,
                                       uint64_t reclaimable_bytes)
{
    Davit__V1__Usage *usage = xcalloc(1, sizeof(*usage));

    davit__v1__usage__init(usage);
    usage->total = (uint32_t)total;
    usage->active = (uint32_t)active;
    usage->size_bytes = bytes;
    usage->reclaimable_bytes = reclaimable_bytes;
    return usage;
}

static void add_images(Davit__V1__DiskUsageResponse *response, const struct store *store)
{
    size_t count;
    CLEANUP_FREE const struct image **images = image_list(store, &count);

    response->image_list = xcalloc(count, sizeof(*response->image_list));
    for (size_t i = 0; i < count; i++) {
        struct image_usage usage = image_usage(store, images[i]);
        Davit__V1__ImageUsage *message = xcalloc(1, sizeof(*message));
        davit__v1__image_usage__init(message);
        message->image = image_message(store, images[i]);
        message->shared_bytes = usage.shared_bytes;
        message->unique_bytes = usage.unique_bytes;
        message->containers = usage.containers;
        response->image_list[response->n_image_list++] = message;
    }
}

static Davit__V1__ContainerUsage *container_message(const struct store *store,
                                                    const struct container_usage *usage)
{
    Davit__V1__ContainerUsage *message = xcalloc(1, sizeof(*message));
    const struct image *image = image_find_id(store, usage->image.text, NULL);

    davit__v1__container_usage__init(message);
    message->id = xstrdup(usage->id);
    message->image_id = xstrdup(usage->image.text);
    message->image = image && image->tags && *image->tags ? image_familiar(*image->tags) : NULL;
    if (!message->image)
        message->image = xstrdup("");
    message->size_bytes = usage->disk_bytes;
    message->created_unix = usage->created_unix;
    message->running = usage->running;
    return message;
}

static void add_containers(Davit__V1__DiskUsageResponse *response, const struct engines *engines,
                           bool verbose)
{
    size_t count, running = 0;
    uint64_t bytes = 0, running_bytes = 0;
    CLEANUP_FREE struct container_usage *list = container_usage_list(engines->containers, &count);

    for (size_t i = 0; i < count; i++) {
        bytes += list[i].disk_bytes;
        running_bytes += list[i].running ? list[i].disk_bytes : 0;
        running += list[i].running;
    }
    response->containers = usage_message(count, running, bytes, bytes - running_bytes);
    if (!verbose)
        return;
    response->container_list = xcalloc(count, sizeof(*response->container_list));
    for (size_t i = 0; i < count; i++)
        response->container_list[response->n_container_list++] =
            container_message(engines->store, &list[i]);
}

bool handle_disk_usage(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__DiskUsageRequest *request = (const Davit__V1__DiskUsageRequest *)message;
    Davit__V1__DiskUsageResponse *response;
    struct store_usage usage;
    bool sent;

    if (!message || !await_store_usage(engines->store, &usage, err))
        return false;
    response = xcalloc(1, sizeof(*response));
    davit__v1__disk_usage_response__init(response);
    response->images = usage_message(usage.image_count, usage.active_image_count, usage.layer_bytes,
                                     usage.layer_bytes - usage.active_layer_bytes);
    response->partials =
        usage_message(usage.partial_count, usage.active_partial_count, usage.partial_bytes,
                      usage.partial_bytes - usage.active_partial_bytes);
    response->metadata_bytes = usage.metadata_bytes;
    add_containers(response, engines, request->verbose);
    if (request->verbose)
        add_images(response, engines->store);
    sent = await_grpc_send(call, &response->base, err);
    davit__v1__disk_usage_response__free_unpacked(response, NULL);
    return sent;
}
