/* Shared between engine.c and container.c only. */
#pragma once

#include <stdatomic.h>

#include "daemon/container/container.h"
#include "daemon/container/rootfs.h"
#include "daemon/container/runtime.h"

struct container_engine {
    struct store *store;
    char *data_root, *exec_root; /* absolute */
    struct runtime_set runtimes;
    struct list containers; /* struct container: those that have not been freed */
    struct list kept;       /* struct kept_container, see kept.h */
    struct group group;     /* asking the runtimes for their versions, counting what is used */
    bool versions_asked;    /* each has answered or failed to */
    atomic_bool stopping;   /* counts end early */
    struct wait_queue container_came, container_gone;
};

/* Unmounts the root and removes the directories of a container, also those of a half-made one.
 * Suspends, also for a cancelled task. */
bool remove_files_await(const struct container_paths *paths, bool keep_data, struct error *err);

/* For engine.c: SIGKILL to a container that runs. Its owner sees the exit and frees it. */
void container_kill(struct container *container);
struct container *container_of_node(struct list *node);
bool container_is_running(const struct container *container);

struct container_usage container_usage(const struct container *container);
const struct digest *container_layers(const struct container *container, size_t *ret_count);
void container_set_disk_bytes(struct container *container, uint64_t disk_bytes);
