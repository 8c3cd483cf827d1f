#include "proto/async/channel.h"

#include <errno.h>

struct channel {
    void **items;
    size_t capacity, first, count;
    bool closed;
    unsigned int users; /* tasks inside await_send or await_recv */
    struct wait_queue senders, receivers;
};

struct channel *channel_new(size_t capacity)
{
    struct channel *channel = xcalloc(1, sizeof(*channel));

    CHECK(capacity > 0);
    channel->items = xcalloc(capacity, sizeof(*channel->items));
    channel->capacity = capacity;
    wait_queue_init(&channel->senders);
    wait_queue_init(&channel->receivers);
    return channel;
}

static void *take_first(struct channel *channel)
{
    void *item = channel->items[channel->first];

    channel->first = (channel->first + 1) % channel->capacity;
    channel->count--;
    return item;
}

struct channel *channel_free(struct channel *channel, void (*free_item)(void *item))
{
    if (!channel)
        return NULL;
    if (channel->users)
        die("a channel is freed while a task waits for it");
    while (channel->count) {
        void *item = take_first(channel);
        if (free_item)
            free_item(item);
    }
    free(channel->items);
    free(channel);
    return NULL;
}

int await_send(struct channel *channel, void *item)
{
    int r;

    channel->users++;
    r = await_slice();
    while (r == 0 && !channel->closed && channel->count == channel->capacity)
        r = await_wake(&channel->senders, "sending to a channel");
    channel->users--;
    if (r < 0)
        return r;
    if (channel->closed)
        return -EPIPE;
    channel->items[(channel->first + channel->count++) % channel->capacity] = item;
    wake_one(&channel->receivers);
    return 0;
}

int await_recv(struct channel *channel, void **ret_item)
{
    int r;

    channel->users++;
    r = await_slice();
    while (r == 0 && !channel->closed && channel->count == 0)
        r = await_wake(&channel->receivers, "receiving from a channel");
    channel->users--;
    if (r < 0)
        return r;
    if (channel->count == 0)
        return 0;
    *ret_item = take_first(channel);
    wake_one(&channel->senders);
    return 1;
}

void channel_close(struct channel *channel)
{
    channel->closed = true;
    wake_all(&channel->senders);
    wake_all(&channel->receivers);
}

size_t channel_length(const struct channel *channel)
{
    return channel->count;
}
