/* Joining, leaving, looking. */
#include <stdio.h>

#include "daemon/transfer/internal.h"
#include "proto/async/loop.h"

#define MAX_CONNECTIONS_DEFAULT 10
#define LOW_SPEED_DEFAULT_BYTES_PER_S 1024
#define LOW_SPEED_DEFAULT_MS 10000
#define BACKOFF_DEFAULT_MS 250
#define SPEED_WINDOW_MS 2000

/* --- The table -------------------------------------------------------------------------------- */

struct transfer_table *transfer_table_new(const struct transfer_options *options)
{
    struct transfer_table *table = xcalloc(1, sizeof(*table));

    table->store = options->store;
    table->client = options->client;
    table->flow.low_speed_bytes_per_s = options->low_speed_bytes_per_s
                                            ? options->low_speed_bytes_per_s
                                            : LOW_SPEED_DEFAULT_BYTES_PER_S;
    table->flow.low_speed_ms = options->low_speed_ms ? options->low_speed_ms : LOW_SPEED_DEFAULT_MS;
    table->backoff_ms = options->backoff_ms ? options->backoff_ms : BACKOFF_DEFAULT_MS;
    table->limit = rate_limit_new(options->bytes_per_second);
    table->by_key = map_new();
    table->max_concurrent = MAX(options->max_concurrent, 1U);
    table->max_connections =
        options->max_connections ? options->max_connections : MAX_CONNECTIONS_DEFAULT;
    prober_init(&table->prober, table->max_connections);
    list_init(&table->slot_queue);
    list_init(&table->fetching);
    list_init(&table->connections);
    wait_queue_init(&table->unwound_queue);
    group_init(&table->group);
    return table;
}

struct transfer_table *transfer_table_free_await(struct transfer_table *table)
{
    if (!table)
        return NULL;
    group_done_await(&table->group);
    CHECK(map_count(table->by_key) == 0);
    CHECK(table->running == 0 && table->connection_count == 0);
    loop_timer_stop(&table->timer);
    map_free(table->by_key);
    rate_limit_unref(table->limit);
    free(table);
    return NULL;
}

void transfer_table_set_limits(struct transfer_table *table, unsigned int max_concurrent,
                               uint64_t bytes_per_second)
{
    table->max_concurrent = MAX(max_concurrent, 1U);
    rate_limit_set(table->limit, bytes_per_second);
    slots_serve(table);
}

/* --- Requesters ------------------------------------------------------------------------------- */

struct requester *requester_new(uint64_t bytes_per_second)
{
    struct requester *requester = xcalloc(1, sizeof(*requester));

    requester->references = 1;
    requester->limit = rate_limit_new(bytes_per_second);
    return requester;
}

struct requester *requester_ref(struct requester *requester)
{
    if (requester)
        requester->references++;
    return requester;
}

struct requester *requester_unref(struct requester *requester)
{
    if (!requester || --requester->references > 0)
        return NULL;
    rate_limit_unref(requester->limit);
    free(requester);
    return NULL;
}

struct requester *requester_free(struct requester *requester)
{
    return requester_unref(requester);
}

void requester_set_limit(struct requester *requester, uint64_t bytes_per_second)
{
    rate_limit_set(requester->limit, bytes_per_second);
}

uint64_t requester_limit(const struct requester *requester)
{
    return rate_limit_get(requester->limit);
}

struct rate_limit *transfer_limit(const struct transfer *transfer)
{
    struct rate_limit *highest = NULL;

    LIST_FOR_EACH (node, (struct list *)&transfer->shares) {
        struct rate_limit *limit = LIST_ITEM(node, struct transfer_share, node)->requester->limit;
        if (!rate_limit_get(limit))
            return NULL;
        if (rate_limit_get(limit) > rate_limit_get(highest))
            highest = limit;
    }
    return highest;
}

/* --- A transfer's life ------------------------------------------------------------------------ */

static void make_key(char *key, size_t size, const struct digest *blob,
                     const struct digest *diff_id)
{
    snprintf(key, size, "%s %s", blob->text, diff_id->text);
}

/* Frees a transfer that has ended and that nobody shares. */
static void free_if_unused(struct transfer *transfer)
{
    if (!transfer->ended || !list_empty(&transfer->shares))
        return;
    places_free(transfer);
    error_done(&transfer->error);
    error_done(&transfer->last_error);
    free(transfer->blob.media_type);
    free(transfer);
}

/* Nobody finds it any more. */
static void leave_table(struct transfer *transfer)
{
    struct map *map = transfer->table->by_key;

    if (map_get(map, transfer->key) == transfer)
        map_remove(map, transfer->key);
}

void transfer_ended(struct transfer *transfer)
{
    struct transfer_table *table = transfer->table;

    transfer->ended = true;
    leave_table(transfer);
    wake_all(&transfer->waiters);
    if (transfer->abandoned) {
        table->abandoned--;
        wake_all(&table->unwound_queue);
    }
    free_if_unused(transfer);
}

static struct transfer *transfer_start(struct transfer_table *table,
                                       const struct transfer_request *request, struct error *err)
{
    struct transfer *transfer = xcalloc(1, sizeof(*transfer));

    transfer->table = table;
    transfer->blob = *request->blob;
    transfer->blob.media_type = xstrdup(request->blob->media_type);
    transfer->diff_id = *request->diff_id;
    transfer->bytes_fetched = MIN(request->kept_bytes, request->blob->size_bytes);
    make_key(transfer->key, sizeof(transfer->key), &transfer->blob.digest, &transfer->diff_id);
    list_init(&transfer->shares);
    list_init(&transfer->places);
    list_init(&transfer->connections);
    list_init(&transfer->slot_node);
    list_init(&transfer->fetching_node);
    wait_queue_init(&transfer->waiters);
    wait_queue_init(&transfer->arrived);
    wait_queue_init(&transfer->changed);
    meter_start(&transfer->meter, loop_now_ms());
    if (!task_spawn(&table->group, "fetch", digest_hex(&transfer->blob.digest), transfer_task,
                    transfer, err)) {
        transfer->ended = true;
        free_if_unused(transfer);
        return NULL;
    }
    map_put(table->by_key, transfer->key, transfer);
    return transfer;
}

/* --- Sharing ---------------------------------------------------------------------------------- */

static struct transfer *find(const struct transfer_table *table, const struct descriptor *blob,
                             const struct digest *diff_id)
{
    char key[sizeof(((struct transfer *)0)->key)];

    make_key(key, sizeof(key), &blob->digest, diff_id);
    return map_get(table->by_key, key);
}

struct transfer_share *transfer_join(struct transfer_table *table,
                                     const struct transfer_request *request, struct error *err)
{
    struct transfer *transfer = find(table, request->blob, request->diff_id);
    struct transfer_share *share;
    bool joined = transfer != NULL;

    if (!transfer)
        transfer = transfer_start(table, request, err);
    if (!transfer)
        return NULL;
    share = xcalloc(1, sizeof(*share));
    share->transfer = transfer;
    share->requester = requester_ref(request->requester);
    share->joined = joined;
    list_append(&transfer->shares, &share->node);
    places_add(transfer, share, request->sources);
    /* It may be ahead of others now. */
    slots_serve(table);
    return share;
}

struct transfer_share *transfer_leave(struct transfer_share *share)
{
    struct transfer *transfer;
    struct transfer_table *table;

    if (!share)
        return NULL;
    transfer = share->transfer;
    table = transfer->table;
    slot_recharge(transfer, share);
    places_leave(transfer, share);
    list_remove(&share->node);
    requester_unref(share->requester);
    free(share);
    if (list_empty(&transfer->shares) && !transfer->ended) {
        leave_table(transfer);
        transfer->abandoned = true;
        table->abandoned++;
        if (transfer->task)
            task_cancel(transfer->task);
    }
    free_if_unused(transfer);
    return NULL;
}

bool await_transfer(struct transfer_share *share, struct error *err)
{
    struct transfer *transfer = share->transfer;
    const struct error *own;
    int r;

    while (!transfer->ended) {
        if ((r = await_wake(&transfer->waiters, "waiting for a layer")) < 0)
            return await_error(err, r, "waiting for layer %s", transfer->blob.digest.text);
    }
    if (!error_is_set(&transfer->error))
        return true;
    own = transfer->sources_failed ? places_error(transfer, share) : NULL;
    return error_copy(err, own ? own : &transfer->error);
}

/* --- Looking ---------------------------------------------------------------------------------- */

bool transfer_runs(const struct transfer_table *table, const struct descriptor *blob,
                   const struct digest *diff_id)
{
    return find(table, blob, diff_id);
}

bool transfer_is_shared(const struct transfer_share *share)
{
    return share->joined;
}

uint64_t transfer_blob_bytes(const struct transfer_share *share)
{
    return share->transfer->blob.size_bytes;
}

uint64_t transfer_table_disk_bytes_left(const struct transfer_table *table)
{
    uint64_t bytes = 0;
    size_t iterator = 0;
    void *value;

    while (map_next(table->by_key, &iterator, NULL, &value)) {
        const struct transfer *transfer = value;
        uint64_t size = transfer->blob.size_bytes;
        bytes += size - MIN(size, transfer->bytes_fetched);
        bytes += size - MIN(size, transfer->bytes_stored);
    }
    return bytes;
}

bool transfer_table_unwinds(const struct transfer_table *table)
{
    return table->abandoned > 0;
}

int await_transfer_unwound(struct transfer_table *table)
{
    return await_wake(&table->unwound_queue, "waiting for space that is being freed");
}

/* A round that has no connection, for it must not ask anybody before a certain time. */
static void look_at_wait(const struct transfer *transfer, struct transfer_progress *ret)
{
    const struct place *next = places_next(transfer);

    if (!next || transfer->connection_count > 0 ||
        MAX(next->retry_at_ms, transfer->connect_after_ms) <= loop_now_ms())
        return;
    ret->state = transfer->rate_limited ? TRANSFER_RATE_LIMITED : TRANSFER_RETRYING;
    ret->until_unix_ms = transfer->wait_until_unix_ms;
    ret->error = transfer->last_error.message;
}

struct transfer_progress transfer_progress(const struct transfer_share *share)
{
    struct transfer *transfer = share->transfer;
    struct transfer_progress progress = {
        .state = transfer->state,
        .bytes_fetched = transfer->bytes_fetched,
        .bytes_resumed = transfer->bytes_resumed,
        .bytes_stored = transfer->bytes_stored,
        .connections = transfer->connection_count,
        .source = transfer->place ? source_name(transfer->place->source) : NULL,
    };

    if (transfer->state != TRANSFER_FETCHING)
        return progress;
    progress.bytes_per_second = meter_rate(&transfer->meter, loop_now_ms(), SPEED_WINDOW_MS);
    if (transfer->bytes_fetched == transfer->blob.size_bytes)
        progress.state = TRANSFER_STORING;
    else if (transfer->group)
        look_at_wait(transfer, &progress);
    return progress;
}
