/* What containers take on the disk: counted when one ends, and now and then while it runs, so that
 * who asks is answered from memory. Shared between the files of this folder only. */
#pragma once

#include "daemon/container/engine.h"

/* Counts the bytes of one. 0, -ECANCELED. */
int await_usage_count(struct container_engine *engine, struct container_usage *usage);

/* Background task: counts what is not counted, then what runs. */
bool await_usage_task(void *engine, struct error *err);
