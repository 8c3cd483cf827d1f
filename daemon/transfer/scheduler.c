/* Who may begin, and how many connections each gets. */
#include "daemon/transfer/internal.h"
#include "proto/async/loop.h"
#include "proto/base/log.h"

#define TICK_MS 125
#define SPEED_WINDOW_MS 2000

/* --- Slots: how many layers at a time --------------------------------------------------------- */

/* The one of a transfer's requesters that has the fewest. */
static struct requester *least_busy(const struct transfer *transfer,
                                    const struct transfer_share *but)
{
    struct requester *least = NULL;

    LIST_FOR_EACH (node, (struct list *)&transfer->shares) {
        const struct transfer_share *share = LIST_ITEM(node, struct transfer_share, node);
        if (share != but && (!least || share->requester->running < least->running))
            least = share->requester;
    }
    return least;
}

static void charge(struct transfer *transfer, struct requester *requester)
{
    transfer->charged = requester_ref(requester);
    if (requester)
        requester->running++;
}

static void uncharge(struct transfer *transfer)
{
    if (transfer->charged)
        transfer->charged->running--;
    transfer->charged = requester_unref(transfer->charged);
}

/* A requester that has nothing running does not wait for the others' large layers. */
static bool has_room(const struct transfer_table *table, const struct requester *requester)
{
    return table->running < table->max_concurrent ||
           (requester->running == 0 && table->running < table->max_connections);
}

void slots_serve(struct transfer_table *table)
{
    for (;;) {
        struct requester *best = NULL;
        struct transfer *first = NULL;
        LIST_FOR_EACH (node, &table->slot_queue) {
            struct transfer *transfer = LIST_ITEM(node, struct transfer, slot_node);
            struct requester *requester = least_busy(transfer, NULL);
            if (requester && (!best || requester->running < best->running)) {
                best = requester;
                first = transfer;
            }
        }
        if (!best || !has_room(table, best))
            return;
        list_remove(&first->slot_node);
        charge(first, best);
        table->running++;
        event_fire(&first->slot_event);
    }
}

int await_slot(struct transfer *transfer)
{
    struct transfer_table *table = transfer->table;
    int r;

    list_append(&table->slot_queue, &transfer->slot_node);
    slots_serve(table);
    r = await_event(&transfer->slot_event, "waiting for a download slot");
    list_remove(&transfer->slot_node);
    if (r < 0)
        slot_release(transfer);
    return r;
}

void slot_release(struct transfer *transfer)
{
    if (!transfer->charged)
        return;
    uncharge(transfer);
    transfer->table->running--;
    slots_serve(transfer->table);
}

void slot_recharge(struct transfer *transfer, const struct transfer_share *leaving)
{
    struct requester *next = least_busy(transfer, leaving);

    if (!transfer->charged || transfer->charged != leaving->requester || !next)
        return;
    uncharge(transfer);
    charge(transfer, next);
    slots_serve(transfer->table);
}

/* --- Connections: how many of each ------------------------------------------------------------ */

/* More would not help one that is as fast as this, or that is about to end, */
#define FAST_BYTES_PER_S (30 * MIB)
#define SOON_MS 1500
/* or that waits for its consumer. */
#define BACKLOG_BYTES (8 * MIB)
#define EXTRA_MIN_BYTES (1 * MIB)

static uint64_t missing_bytes(const struct transfer *transfer)
{
    uint64_t bytes = segments_gap_bytes(&transfer->segments);

    LIST_FOR_EACH (node, (struct list *)&transfer->connections) {
        const struct connection *connection = LIST_ITEM(node, struct connection, node);
        bytes += connection->segment.end - connection->segment.position;
    }
    return bytes;
}

/* Of all transfers that are under a requester's limit; NULL: of all. */
static uint64_t speed_under(struct transfer_table *table, const struct rate_limit *own)
{
    uint64_t speed = 0;

    LIST_FOR_EACH (node, &table->fetching) {
        struct transfer *transfer = LIST_ITEM(node, struct transfer, fetching_node);
        if (!own || transfer_limit(transfer) == own)
            speed += meter_rate(&transfer->meter, loop_now_ms(), SPEED_WINDOW_MS);
    }
    return speed;
}

static bool is_capped(const struct transfer *transfer)
{
    struct transfer_table *table = transfer->table;
    const struct rate_limit *own = transfer_limit(transfer);
    uint64_t cap = rate_limit_get(own), common = rate_limit_get(table->limit);

    return (cap && speed_under(table, own) >= cap / 2) ||
           (common && speed_under(table, NULL) >= common / 2);
}

static bool has_delivering(const struct transfer *transfer)
{
    LIST_FOR_EACH (node, (struct list *)&transfer->connections) {
        if (LIST_ITEM(node, struct connection, node)->delivering)
            return true;
    }
    return false;
}

/* Would one more be of use, as far as the transfer goes? */
static bool wants_more(struct transfer *transfer)
{
    uint64_t missing = missing_bytes(transfer), now = loop_now_ms();
    uint64_t speed = meter_rate(&transfer->meter, now, SPEED_WINDOW_MS);

    if (transfer->connection_count == 0 || transfer->whole || transfer->connect_after_ms > now ||
        !transfer->place || source_ignores_ranges(transfer->place->source) ||
        !has_delivering(transfer))
        return false;
    if (missing < EXTRA_MIN_BYTES || missing * 1000 / MAX(speed, 1U) < SOON_MS ||
        speed / transfer->connection_count > FAST_BYTES_PER_S || is_capped(transfer) ||
        partial_contiguous(transfer->partial) > transfer->bytes_consumed + BACKLOG_BYTES)
        return false;
    return segments_gap_bytes(&transfer->segments) >= EXTRA_MIN_BYTES ||
           segments_can_steal(&transfer->segments);
}

static bool wants_first(struct transfer *transfer)
{
    return transfer->connection_count == 0 && segments_have_gap(&transfer->segments) &&
           !error_is_set(&transfer->failure) && transfer->connect_after_ms <= loop_now_ms() &&
           places_choose(transfer);
}

/* The next to get a connection: one that has none, or the one with the most to do for each. */
static struct transfer *pick(struct transfer_table *table, bool first)
{
    struct transfer *best = NULL;
    uint64_t best_bytes = 0;

    LIST_FOR_EACH (node, &table->fetching) {
        struct transfer *transfer = LIST_ITEM(node, struct transfer, fetching_node);
        uint64_t bytes = missing_bytes(transfer) / (transfer->connection_count + 1);
        if (first && wants_first(transfer))
            return transfer;
        if (!first && bytes > best_bytes && wants_more(transfer)) {
            best = transfer;
            best_bytes = bytes;
        }
    }
    return best;
}

static unsigned int layers_fetching(const struct transfer_table *table)
{
    unsigned int count = 0;

    LIST_FOR_EACH (node, (struct list *)&table->fetching) {
        const struct transfer *transfer = LIST_ITEM(node, struct transfer, fetching_node);
        if (transfer->connection_count || segments_have_gap(&transfer->segments))
            count++;
    }
    return count;
}

static unsigned int allowed(const struct transfer_table *table)
{
    return prober_allowed(&table->prober, layers_fetching(table));
}

/* The youngest of the transfer that has the most gives way to one that has none. */
static void make_way(struct transfer_table *table)
{
    struct connection *chosen = NULL;

    LIST_FOR_EACH (node, &table->connections) {
        struct connection *connection = LIST_ITEM(node, struct connection, table_node);
        unsigned int count = connection->transfer->connection_count;
        if (connection->last_segment)
            return; /* one does already */
        if (count > 1 && (!chosen || count >= chosen->transfer->connection_count))
            chosen = connection;
    }
    if (!chosen)
        return;
    chosen->last_segment = true;
    segments_cut(&chosen->transfer->segments, &chosen->segment);
}

bool scheduler_may_go_on(const struct connection *connection)
{
    const struct transfer *transfer = connection->transfer;

    if (connection->last_segment || error_is_set(&transfer->failure))
        return false;
    return transfer->connection_count == 1 ||
           transfer->table->connection_count <= allowed(transfer->table);
}

/* --- Ends ------------------------------------------------------------------------------------- */

#define FRUITLESS_MAX 6
#define LEFT_ALONE_IN_ALL_MS (15 * 60 * 1000)

/* Fails a transfer that nobody is left to ask for. */
static void give_up(struct transfer *transfer)
{
    const struct place *next = places_next(transfer);
    CLEANUP_ERROR struct error err = {0};

    if (transfer->connection_count > 0 || !segments_have_gap(&transfer->segments) ||
        error_is_set(&transfer->failure))
        return;
    if (next && transfer->fruitless < FRUITLESS_MAX &&
        transfer->left_alone_ms < LEFT_ALONE_IN_ALL_MS)
        return;
    if (error_is_set(&transfer->last_error))
        error_copy(&err, &transfer->last_error);
    else
        error_set(&err, ERROR_UNAVAILABLE, "NO_SOURCE", "nobody is left to ask for blob %s",
                  transfer->blob.digest.text);
    transfer->sources_failed = true;
    transfer_fail(transfer, &err);
}

/* --- Stragglers ------------------------------------------------------------------------------- */

#define STRAGGLER_AFTER_MS 2000
#define STRAGGLER_RATIO 4
#define STRAGGLER_LEFT_MS 4000
#define STRAGGLER_PEERS_MIN 2

static int compare_speeds(const void *a, const void *b)
{
    uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;

    return (first > second) - (first < second);
}

/* The median speed of the others that get bytes from the same place; 0: they are too few. */
static uint64_t speed_of_peers(const struct connection *connection)
{
    struct transfer_table *table = connection->transfer->table;
    CLEANUP_FREE uint64_t *speeds = xcalloc(table->connection_count + 1, sizeof(*speeds));
    const char *name = source_name(connection->place->source);
    size_t n = 0;

    LIST_FOR_EACH (node, &table->connections) {
        const struct connection *other = LIST_ITEM(node, struct connection, table_node);
        if (other != connection && other->place && other->delivering &&
            str_eq(source_name(other->place->source), name))
            speeds[n++] = other->segment.bytes_per_second;
    }
    /* For one that stands still the word of one will do. */
    if (n == 0 || (n < STRAGGLER_PEERS_MIN && connection->segment.bytes_per_second > 0))
        return 0;
    qsort(speeds, n, sizeof(*speeds), compare_speeds);
    return speeds[n / 2];
}

/* One that is much slower than the others do, and would be at it for long. */
static bool is_straggler(const struct connection *connection)
{
    const struct transfer *transfer = connection->transfer;
    uint64_t speed = connection->segment.bytes_per_second;
    uint64_t left = connection->segment.end - connection->segment.position;
    uint64_t patience_ms = (uint64_t)STRAGGLER_AFTER_MS << MIN(transfer->straggles, 5U);

    if (!connection->task || !connection->place ||
        loop_now_ms() - connection->asked_ms < patience_ms)
        return false;
    if (!connection->place->share && speed == 0)
        return true; /* whose it was has left; there are others to ask */
    if (connection->whole || left * 1000 / MAX(speed, 1U) < STRAGGLER_LEFT_MS ||
        rate_limit_get(transfer_limit(transfer)) || rate_limit_get(transfer->table->limit))
        return false;
    return speed * STRAGGLER_RATIO < speed_of_peers(connection);
}

static void look_for_stragglers(struct transfer_table *table)
{
    uint64_t now = loop_now_ms();

    LIST_FOR_EACH (node, &table->connections) {
        struct connection *connection = LIST_ITEM(node, struct connection, table_node);
        connection->segment.bytes_per_second =
            connection->delivering ? meter_rate(&connection->meter, now, SPEED_WINDOW_MS) : 0;
    }
    LIST_FOR_EACH (node, &table->connections) {
        struct connection *connection = LIST_ITEM(node, struct connection, table_node);
        if (!is_straggler(connection))
            continue;
        log_debug("a connection straggles: another goes on",
                  LOG("digest", (const char *)connection->transfer->blob.digest.text),
                  LOG("bytes_per_second", connection->segment.bytes_per_second));
        connection->transfer->straggles++;
        task_cancel(connection->task);
    }
}

/* --- All of it, now and then ------------------------------------------------------------------ */

static void take_sample(struct transfer_table *table)
{
    struct prober_sample sample = {
        .now_ms = loop_now_ms(),
        .total_bytes = table->bytes_received,
        .layers = layers_fetching(table),
        .connections = table->connection_count,
    };

    LIST_FOR_EACH (node, &table->connections) {
        const struct connection *connection = LIST_ITEM(node, struct connection, table_node);
        sample.delivering += connection->delivering;
        sample.fastest = MAX(sample.fastest, connection->segment.bytes_per_second);
    }
    sample.useful = pick(table, false) != NULL;
    LIST_FOR_EACH (node, &table->fetching) {
        struct transfer *transfer = LIST_ITEM(node, struct transfer, fetching_node);
        if (rate_limit_get(table->limit) || rate_limit_get(transfer_limit(transfer)))
            sample.capped = true;
    }
    prober_look(&table->prober, &sample);
}

/* The youngest ends soon where they are too many for the line. */
static void shed(struct transfer_table *table)
{
    struct connection *youngest;

    if (table->connection_count <= table->prober.ceiling)
        return;
    youngest = LIST_ITEM(table->connections.prev, struct connection, table_node);
    if (youngest->last_segment || youngest->whole)
        return;
    youngest->last_segment = true;
    segments_cut(&youngest->transfer->segments, &youngest->segment);
}

void scheduler_look(struct transfer_table *table)
{
    struct transfer *transfer;

    LIST_FOR_EACH (node, &table->fetching) {
        give_up(LIST_ITEM(node, struct transfer, fetching_node));
    }
    while ((transfer = pick(table, true))) {
        if (table->connection_count >= allowed(table)) {
            make_way(table);
            return;
        }
        if (!connection_start(transfer))
            break;
    }
    while (table->connection_count < allowed(table) && (transfer = pick(table, false)) &&
           connection_start(transfer))
        continue;
}

static void on_tick(struct loop_timer *timer)
{
    struct transfer_table *table = CONTAINER_OF(timer, struct transfer_table, timer);

    look_for_stragglers(table);
    take_sample(table);
    shed(table);
    scheduler_look(table);
    if (!list_empty(&table->fetching))
        loop_timer_start(&table->timer, TICK_MS, on_tick);
}

void scheduler_add(struct transfer *transfer)
{
    struct transfer_table *table = transfer->table;

    list_append(&table->fetching, &transfer->fetching_node);
    if (!table->timer.running)
        loop_timer_start(&table->timer, TICK_MS, on_tick);
    scheduler_look(table);
}

void scheduler_remove(struct transfer *transfer)
{
    list_remove(&transfer->fetching_node);
    scheduler_look(transfer->table);
}
