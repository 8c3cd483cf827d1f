/* A bounded queue of pointers between tasks: a sender waits while it is full, a receiver while it
 * is empty. */
#pragma once

#include "proto/async/task.h"

struct channel;

struct channel *channel_new(size_t capacity);

/* Frees it and what is still queued, with free_item if given. No task may be waiting. NULL. */
struct channel *channel_free(struct channel *channel, void (*free_item)(void *item));

/* 0; -EPIPE if closed; -ECANCELED, -ETIMEDOUT. The item belongs to the channel only after 0. */
int await_send(struct channel *channel, void *item);

/* 1 with an item; 0 once closed and empty; or a negative errno. */
int await_recv(struct channel *channel, void **ret_item);

/* No more sends; receivers get what is queued, then 0. Wakes everyone. */
void channel_close(struct channel *channel);

size_t channel_length(const struct channel *channel);
