/* What comes of requests that fail. Connections and servers do; a transfer fails only when no
 * source is left to ask, or when asking was in vain for too long. */
#include "daemon/transfer/internal.h"
#include "proto/async/loop.h"
#include "proto/base/log.h"

#define BACKOFF_MAX_MS 8000

/* No source is left alone for longer than this, whatever it says. */
#define LEFT_ALONE_MAX_MS (10 * 60 * 1000)

/* After so many bytes a connection may well break off: there is no need to wait. */
#define GOOD_BYTES (64 * KIB)

/* What may go away by itself: connections, stalls, busy registries. */
static bool worth_a_retry(const struct error *err)
{
    return err->code == ERROR_UNAVAILABLE && !error_is(err, "TLS_FAILED");
}

/* Does another connection get bytes from there? */
static bool others_get_bytes(const struct connection *connection, bool of_this_transfer)
{
    const char *name = source_name(connection->place->source);

    LIST_FOR_EACH (node, &connection->transfer->table->connections) {
        const struct connection *other = LIST_ITEM(node, struct connection, table_node);
        if (other == connection || !other->place || !other->delivering ||
            (of_this_transfer && other->transfer != connection->transfer))
            continue;
        if (str_eq(source_name(other->place->source), name))
            return true;
    }
    return false;
}

/* One more than the server, or the line, can do with? */
static bool was_one_too_many(const struct connection *connection, const struct error *err)
{
    if (connection->received)
        return false;
    return others_get_bytes(connection, true) ||
           (err->code == ERROR_UNAVAILABLE && others_get_bytes(connection, false));
}

static uint64_t wait_ms(const struct connection *connection, const struct error *err)
{
    const struct place *place = connection->place;
    uint64_t ms = connection->transfer->table->backoff_ms << MIN(place->failures, 5U);

    if (err->retry_after_ms)
        return MIN(err->retry_after_ms, LEFT_ALONE_MAX_MS);
    if (connection->received >= GOOD_BYTES)
        return 0;
    ms = MIN(ms, BACKOFF_MAX_MS);
    return ms / 2 + (uint64_t)random() % (ms / 2 + 1);
}

/* Bytes came, and not at next to no speed. */
static bool was_fruitful(const struct connection *connection)
{
    uint64_t elapsed = MAX(loop_now_ms() - connection->asked_ms, 1U);

    return connection->received * 1000 / elapsed >=
           MAX(connection->transfer->table->flow.low_speed_bytes_per_s, 1U);
}

static void count(struct connection *connection, const struct error *err, uint64_t wait)
{
    struct transfer *transfer = connection->transfer;

    if (was_fruitful(connection)) {
        transfer->fruitless = 0;
        transfer->left_alone_ms = 0;
        connection->place->failures = 0;
    } else if (err->retry_after_ms) {
        transfer->left_alone_ms += wait;
    } else {
        transfer->fruitless++;
        connection->place->failures++;
    }
}

void connection_failed(struct connection *connection, struct error *err)
{
    struct transfer *transfer = connection->transfer;
    struct place *place = connection->place;
    uint64_t now = loop_now_ms(), wait;

    if (err->code == ERROR_CANCELLED || err->code == ERROR_ABORTED || !error_is_set(err))
        return;
    log_debug("a request for a blob failed",
              LOG("digest", (const char *)transfer->blob.digest.text),
              LOG("source", source_name(place->source)), LOG("error", err->message));
    /* Now that it is known, the whole blob is asked for. */
    if (error_is(err, "RANGE_BROKEN") && place->broken_ranges++ == 0)
        return;
    error_copy(&transfer->last_error, err);
    wait = wait_ms(connection, err);
    transfer->rate_limited = err->retry_after_ms > 0;
    transfer->wait_until_unix_ms = wall_clock_ns() / 1000000 + (int64_t)wait;
    if (was_one_too_many(connection, err)) {
        place->failures++;
        prober_failed(&transfer->table->prober, transfer->table->connection_count - 1, now);
        transfer->connect_after_ms = now + wait;
        return;
    }
    source_failed(place->source, err);
    error_copy(&place->error, err);
    if (transfer->place == place)
        transfer->place = NULL;
    if (worth_a_retry(err)) {
        count(connection, err, wait);
        place->retry_at_ms = now + wait;
    } else {
        place->used_up = true;
    }
}
