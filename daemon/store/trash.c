#include <errno.h>

#include "daemon/store/internal.h"
#include "daemon/store/tree.h"
#include "proto/async/await.h"
#include "proto/base/fault.h"
#include "proto/base/log.h"

struct trash_item {
    struct list node;
    char *name;
};

void trash_add(struct store *store, const char *name)
{
    struct trash_item *item = xcalloc(1, sizeof(*item));

    item->name = xstrdup(name);
    list_append(&store->trash.names, &item->node);
    wake_one(&store->trash.waiters);
}

static void item_free(struct trash_item *item)
{
    list_remove(&item->node);
    free(item->name);
    free(item);
}

void trash_clear(struct store *store)
{
    struct list *node;

    while ((node = list_first(&store->trash.names)))
        item_free(LIST_ITEM(node, struct trash_item, node));
}

struct trash_work {
    struct store *store;
    const char *name;
    int result;
};

static void remove_in_pool(void *arg)
{
    struct trash_work *work = arg;
    const struct tree_remove_options options = {.stop = &work->store->trash.stop};

    fault_point("trash.remove");
    work->result = tree_remove(work->store->tmp_fd, work->name, &options);
    fault_point("trash.removed");
}

/* What cannot be removed now is litter for the next start. */
bool await_trash_task(void *arg, struct error *err)
{
    struct store *store = arg;
    struct list *node;

    for (;;) {
        struct trash_work work = {.store = store};
        int r = 0;
        while (r == 0 && !(node = list_first(&store->trash.names)))
            r = await_wake(&store->trash.waiters, "waiting for trees to remove");
        if (r < 0)
            return await_error(err, r, "removing trees");
        work.name = LIST_ITEM(node, struct trash_item, node)->name;
        r = await_work(remove_in_pool, &work, "removing a tree");
        if (r < 0)
            return await_error(err, r, "removing trees");
        if (work.result < 0 && work.result != -ECANCELED) {
            log_warn("cannot remove a tree", LOG("data_root", store->data_root),
                     LOG("name", work.name), LOG("error", strerror(-work.result)));
        }
        item_free(LIST_ITEM(node, struct trash_item, node));
        wake_all(&store->trash.removed);
    }
}
