#include "daemon/transfer/internal.h"
#include "proto/async/await.h"
#include "proto/async/loop.h"
#include "proto/base/log.h"

/* Few large steps for the pool where bytes come fast; where they do not, little is on its way to
 * the disk, for a kill must not cost much. */
#define BUFFER_BYTES (256 * KIB)
#define WRITE_AFTER_MS 4

/* A small rest is asked for by one request. */
#define SMALL_BYTES (3 * MIB)

#define END_TIMEOUT_MS 1000

/* What the kernel receives ahead of us under a cap, in time and at least. */
#define CAPPED_AHEAD_MS 100
#define CAPPED_AHEAD_MIN_BYTES (32 * KIB)

/* --- To the disk ------------------------------------------------------------------------------ */

struct write_step {
    struct connection *connection;
    bool ok;
    struct error error;
};

static void write_in_pool(void *arg)
{
    struct write_step *step = arg;
    const struct connection *connection = step->connection;

    step->ok = partial_write_blocking(connection->transfer->partial, connection->buffer_offset,
                                      connection->buffer, connection->buffered, &step->error);
}

/* Writes what is in the buffer. Also for a cancelled task: what was fetched is kept. If that fails,
 * no other source helps: it ends the round. */
static bool write_await(struct connection *connection)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();
    struct transfer *transfer = connection->transfer;
    struct write_step step = {.connection = connection};

    if (!connection->buffered)
        return true;
    await_work(write_in_pool, &step, "writing a blob");
    connection->buffer_offset += connection->buffered;
    connection->buffered = 0;
    if (connection->whole)
        transfer->bytes_fetched = partial_bytes(transfer->partial);
    wake_all(&transfer->arrived);
    if (!step.ok)
        transfer_fail(transfer, &step.error);
    return step.ok;
}

/* --- From the network ------------------------------------------------------------------------- */

static void note_useful(struct connection *connection, uint64_t bytes)
{
    struct transfer *transfer = connection->transfer;
    uint64_t now = loop_now_ms();

    if (!connection->delivering)
        meter_start(&connection->meter, now);
    connection->delivering = true;
    connection->received += bytes;
    meter_add(&connection->meter, now, bytes);
    meter_add(&transfer->meter, now, bytes);
    transfer->table->bytes_received += bytes;
    if (!connection->whole)
        transfer->bytes_fetched += bytes;
}

/* What is beyond the segment was taken over by another meanwhile. */
static void take(struct connection *connection, size_t size)
{
    struct segment *segment = &connection->segment;

    size = MIN(size, segment->end - segment->position);
    if (!connection->buffered)
        connection->buffered_ms = loop_now_ms();
    connection->buffered += size;
    segment->position += size;
    note_useful(connection, size);
}

static bool must_write(const struct connection *connection)
{
    return connection->buffered == BUFFER_BYTES ||
           loop_now_ms() - connection->buffered_ms >= WRITE_AFTER_MS;
}

/* Under a cap the line would carry what the kernel has room for all the same. */
static void limit_buffer(struct connection *connection, uint64_t bytes_per_second)
{
    uint64_t limit = bytes_per_second * CAPPED_AHEAD_MS / 1000;

    if (bytes_per_second)
        limit = MAX(limit, CAPPED_AHEAD_MIN_BYTES);
    if (limit != connection->buffer_limit)
        blob_stream_limit_buffer(connection->stream, limit);
    connection->buffer_limit = limit;
}

static uint64_t smaller_cap(uint64_t a, uint64_t b)
{
    return a && b ? MIN(a, b) : a + b;
}

/* Reads to the end of the segment, wherever that is by then. */
static bool await_receive(struct connection *connection, struct error *err)
{
    struct transfer *transfer = connection->transfer;
    struct rate_limit *common = transfer->table->limit;
    struct segment *segment = &connection->segment;
    ssize_t n;
    int r;

    while (segment->position < segment->end) {
        CLEANUP(rate_limit_cleanup)
        struct rate_limit *own = rate_limit_ref(transfer_limit(transfer));
        size_t wanted = MIN(BUFFER_BYTES - connection->buffered, segment->end - segment->position);
        limit_buffer(connection, smaller_cap(rate_limit_get(own), rate_limit_get(common)));
        n = await_blob_read(connection->stream, connection->buffer + connection->buffered,
                            rate_grant(own, common, wanted), err);
        if (n < 0)
            return false;
        if (n == 0)
            return error_set(err, ERROR_UNAVAILABLE, "BLOB_TRUNCATED", "blob %s ends early",
                             transfer->blob.digest.text);
        take(connection, (size_t)n);
        /* First, for once the last bytes are there nobody waits any more. */
        if ((r = await_rate(own, common, (size_t)n)) < 0)
            return await_error(err, r, "fetching");
        if (must_write(connection) && !write_await(connection))
            return error_set(err, ERROR_CANCELLED, NULL, "the disk took no more");
    }
    return true;
}

/* Reads the end that an answer should have: a connection can then be used again, and one that sends
 * more than it said is not to be believed. */
static bool await_end(struct connection *connection, struct error *err)
{
    char excess;

    if (blob_stream_end(connection->stream) > connection->segment.end)
        return true; /* the rest was taken over by another */
    CLEANUP(deadline_pop) struct deadline deadline;
    deadline_push(&deadline, END_TIMEOUT_MS);
    if (await_blob_read(connection->stream, &excess, 1, err) == 0 ||
        err->code != ERROR_FAILED_PRECONDITION)
        return true;
    connection->segment.position = connection->buffer_offset;
    if (!connection->whole)
        connection->transfer->bytes_fetched -= connection->buffered;
    connection->buffered = 0;
    return false;
}

/* The server sends all, though a part was asked for. With nobody else at work that will do. False
 * if it is no use: then what is asked for next is something else. */
static bool take_whole(struct connection *connection)
{
    struct transfer *transfer = connection->transfer;
    struct place *place = connection->place;

    if (!source_ignores_ranges(place->source)) { /* the condition of the range failed */
        free(TAKE(place->validator));
        return false;
    }
    if (transfer->connection_count > 1)
        return false;
    segments_give_back(&transfer->segments, &connection->segment);
    segments_clear_gaps(&transfer->segments);
    connection->segment.position = 0;
    connection->segment.end = transfer->blob.size_bytes;
    connection->whole = transfer->whole = true;
    return true;
}

static bool await_ask(struct connection *connection, struct error *err)
{
    struct transfer *transfer = connection->transfer;
    struct place *place = connection->place;
    const struct blob_request request = {
        .source = place->source,
        .blob = &transfer->blob,
        .offset = connection->segment.position,
        .end = connection->segment.end,
        .validator = place->validator,
        .flow = transfer->table->flow,
    };
    const char *validator;

    connection->asked_ms = loop_now_ms();
    connection->received = connection->buffer_limit = 0;
    connection->stream = await_blob_open(transfer->table->client, &request, err);
    if (!connection->stream)
        return false;
    validator = blob_stream_validator(connection->stream);
    if (!str_eq(validator, place->validator)) {
        free(place->validator);
        place->validator = xstrdup(validator);
    }
    if (blob_stream_offset(connection->stream) == request.offset &&
        blob_stream_end(connection->stream) == request.end)
        return true;
    return take_whole(connection) ||
           error_set(err, ERROR_ABORTED, NULL, "all came where a part was asked for");
}

static bool await_fetch_segment(struct connection *connection, struct error *err)
{
    bool ok = await_ask(connection, err);

    if (ok) {
        connection->buffer_offset = connection->segment.position;
        ok = await_receive(connection, err) && await_end(connection, err);
        ok = write_await(connection) && ok;
    }
    connection->stream = blob_stream_free(connection->stream);
    connection->place->bytes_served += connection->received;
    if (connection->received)
        source_served(connection->place->source, connection->received);
    return ok;
}

/* --- The task --------------------------------------------------------------------------------- */

/* Its own, or the others' on average, or 0. */
static uint64_t likely_speed(const struct connection *connection)
{
    uint64_t sum = connection->segment.bytes_per_second, count = 0;

    if (sum)
        return sum;
    LIST_FOR_EACH (node, (struct list *)&connection->transfer->connections) {
        const struct connection *other = LIST_ITEM(node, struct connection, node);
        sum += other->segment.bytes_per_second;
        count += other->segment.bytes_per_second > 0;
    }
    return count ? sum / count : 0;
}

/* Finds something to do, and where to ask for it. */
static bool take_work(struct connection *connection)
{
    struct transfer *transfer = connection->transfer;
    struct segments *segments = &transfer->segments;
    struct place *place = transfer->whole ? NULL : places_choose(transfer);
    uint64_t speed = likely_speed(connection), size = segment_size_for(speed);
    bool alone = transfer->connection_count == 1;

    if (!place)
        return false;
    if (source_ignores_ranges(place->source)) {
        if (!alone || !segments_have_gap(segments))
            return false;
        segments_clear_gaps(segments);
        connection->segment.position = 0;
        connection->segment.end = transfer->blob.size_bytes;
        connection->whole = transfer->whole = true;
    } else {
        if (alone && segments_gap_bytes(segments) <= SMALL_BYTES)
            size = SMALL_BYTES;
        if (!segments_take(segments, size, &connection->segment) &&
            !segments_steal(segments, speed, &connection->segment))
            return false;
    }
    connection->place = place_ref(place);
    return true;
}

static void end_work(struct connection *connection)
{
    struct transfer *transfer = connection->transfer;

    segments_give_back(&transfer->segments, &connection->segment);
    if (connection->whole) {
        connection->whole = transfer->whole = false;
        transfer_find_gaps(transfer);
    }
    connection->place = place_unref(transfer, connection->place);
}

static void connection_end(struct connection *connection)
{
    struct transfer *transfer = connection->transfer;
    struct transfer_table *table = transfer->table;

    list_remove(&connection->node);
    list_remove(&connection->table_node);
    transfer->connection_count--;
    table->connection_count--;
    free(connection->buffer);
    free(connection);
    scheduler_look(table);
}

static bool connection_task(void *arg, struct error *err UNUSED)
{
    struct connection *connection = arg;
    struct transfer *transfer = connection->transfer;
    bool ok;

    connection->task = task_current();
    connection->buffer = xmalloc(BUFFER_BYTES);
    do {
        CLEANUP_ERROR struct error failure = {0};
        ok = await_fetch_segment(connection, &failure);
        if (ok)
            transfer->fruitless = connection->place->failures = 0;
        else
            connection_failed(connection, &failure);
        end_work(connection);
    } while (ok && scheduler_may_go_on(connection) && take_work(connection));
    connection_end(connection);
    return true; /* what failed is the transfer's to judge */
}

bool connection_start(struct transfer *transfer)
{
    struct transfer_table *table = transfer->table;
    struct connection *connection = xcalloc(1, sizeof(*connection));
    CLEANUP_ERROR struct error err = {0};

    connection->transfer = transfer;
    list_append(&transfer->connections, &connection->node);
    list_append(&table->connections, &connection->table_node);
    transfer->connection_count++;
    table->connection_count++;
    if (take_work(connection)) {
        if (task_spawn(transfer->group, "connection", digest_hex(&transfer->blob.digest),
                       connection_task, connection, &err))
            return true;
        end_work(connection);
        if (transfer->connection_count == 1)
            transfer_fail(transfer, &err);
    }
    list_remove(&connection->node);
    list_remove(&connection->table_node);
    transfer->connection_count--;
    table->connection_count--;
    free(connection);
    return false;
}
