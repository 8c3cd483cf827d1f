/* What containers take on the disk: counted when one ends, and now and then while it runs, so that
 * who asks is answered from memory. Shared between the files of this folder only. */
#pragma once

#include "daemon/container/engine.h"

/* A container that has ended, whose files are kept. */
struct kept_container {
    struct list node;
    struct container_usage usage;
};

/* Adds one that has ended. What is not known yet (image, bytes) the background finds out. */
struct kept_container *kept_add(struct container_engine *engine, const char *id);
void kept_clear(struct container_engine *engine);

/* The same with all that is known; counts its bytes. Suspends, also for a cancelled task. */
void kept_add_await(struct container_engine *engine, const struct container *container);

/* Background task: counts what is not counted, then what runs. */
bool await_usage_task(void *engine, struct error *err);
