#include "daemon/container/usage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "daemon/container/kept.h"
#include "daemon/store/tree_walk.h"
#include "proto/async/await.h"

/* Pauses between counts of what runs: at least this, and this many times what the count took. */
#define PAUSE_MIN_MS 10000
#define PAUSE_RATIO 100

/* --- In the pool -------------------------------------------------------------------------------
 */

struct count_work {
    const char *data_root;
    struct container_usage *usage;
    const atomic_bool *stop;
};

static void count_in_pool(void *arg)
{
    const struct count_work *work = arg;
    CLEANUP_FREE char *path = xasprintf("%s/containers/%s", work->data_root, work->usage->id);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return;
    work->usage->disk_bytes = tree_disk_bytes(fd, work->stop);
    if (atomic_load(work->stop))
        work->usage->disk_bytes = 0; /* for the next daemon to count */
}

int await_usage_count(struct container_engine *engine, struct container_usage *usage)
{
    struct count_work work = {
        .data_root = engine->data_root,
        .usage = usage,
        .stop = &engine->stopping,
    };

    return await_work(count_in_pool, &work, "counting a container");
}

/* --- In tasks ----------------------------------------------------------------------------------
 */

/* Nobody takes kept containers away, so that the list is only appended to. */
static int await_count_kept(struct container_engine *engine)
{
    for (struct list *node = engine->kept.next; node != &engine->kept; node = node->next) {
        struct kept_container *kept = LIST_ITEM(node, struct kept_container, node);
        struct container_usage usage = kept->usage;
        int r = usage.disk_bytes ? 0 : await_usage_count(engine, &usage);
        if (r < 0)
            return r;
        kept->usage = usage;
    }
    return 0;
}

static int await_count_running(struct container_engine *engine)
{
    CLEANUP_FREE struct container_usage *list = NULL;
    size_t count;
    int r = 0;

    list = container_usage_list(engine, &count);
    for (size_t i = 0; i < count && r == 0; i++) {
        struct container *container;
        if (!list[i].running || (r = await_usage_count(engine, &list[i])) < 0)
            continue;
        container = container_find(engine, list[i].id, NULL);
        if (container)
            container_set_disk_bytes(container, list[i].disk_bytes);
    }
    return r;
}

bool await_usage_task(void *arg, struct error *err)
{
    struct container_engine *engine = arg;
    uint64_t pause_ms = PAUSE_MIN_MS;
    int r = await_count_kept(engine);

    while (r == 0) {
        uint64_t began_ms;
        if (list_empty(&engine->containers)) {
            r = await_wake(&engine->container_came, "waiting for a container");
            continue;
        }
        if ((r = await_sleep(pause_ms)) < 0)
            break;
        began_ms = now_ms();
        r = await_count_running(engine);
        pause_ms = MAX(PAUSE_MIN_MS, (now_ms() - began_ms) * PAUSE_RATIO);
    }
    return await_error(err, r, "counting what containers take");
}

/* --- Looking at it -----------------------------------------------------------------------------
 */

struct container_usage *container_usage_list(const struct container_engine *engine,
                                             size_t *ret_count)
{
    struct container_usage *list = xcalloc(container_count(engine) + 1, sizeof(*list));
    size_t count = 0;

    LIST_FOR_EACH (node, &engine->containers) {
        list[count++] = container_usage(container_of_node(node));
    }
    LIST_FOR_EACH (node, &engine->kept) {
        list[count++] = LIST_ITEM(node, struct kept_container, node)->usage;
    }
    *ret_count = count;
    return list;
}
