/* Containers and the images they have. */
#include "daemon/store/internal.h"

struct image_hold *image_hold_new(struct store *store, const struct digest *id,
                                  const char *container_id, bool running)
{
    struct image_hold *hold = xcalloc(1, sizeof(*hold));

    hold->image = *id;
    hold->container = xstrdup(container_id);
    hold->running = running;
    list_append(&store->holds, &hold->node);
    return hold;
}

void image_hold_set_running(struct image_hold *hold, bool running)
{
    if (hold)
        hold->running = running;
}

struct image_hold *image_hold_free(struct image_hold *hold)
{
    if (!hold)
        return NULL;
    list_remove(&hold->node);
    free(hold->container);
    free(hold);
    return NULL;
}

const char *image_holder(const struct store *store, const struct digest *id, bool running)
{
    for (const struct list *node = store->holds.prev; node != &store->holds; node = node->prev) {
        const struct image_hold *hold = LIST_ITEM(node, struct image_hold, node);
        if (digest_eq(&hold->image, id) && hold->running == running)
            return hold->container;
    }
    return NULL;
}

unsigned int image_containers(const struct store *store, const struct digest *id)
{
    unsigned int count = 0;

    LIST_FOR_EACH (node, &store->holds)
        count += digest_eq(&LIST_ITEM(node, struct image_hold, node)->image, id);
    return count;
}
