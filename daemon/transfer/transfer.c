/* The flow of one transfer, from its slot to the layer. */
#include "daemon/transfer/transfer.h"

#include "daemon/transfer/internal.h"
#include "proto/async/await.h"
#include "proto/async/loop.h"
#include "proto/base/log.h"

/* --- A round ---------------------------------------------------------------------------------- */

void transfer_fail(struct transfer *transfer, struct error *err)
{
    if (error_is_set(&transfer->failure))
        error_done(err);
    else
        error_move(&transfer->failure, err);
    wake_all(&transfer->changed);
}

void transfer_find_gaps(struct transfer *transfer)
{
    struct byte_range gap = {0};

    segments_clear_gaps(&transfer->segments);
    while (partial_missing(transfer->partial, gap.end, &gap))
        segments_add(&transfer->segments, gap.offset, gap.end);
}

struct consumption {
    struct transfer *transfer;
    struct layer_writer *writer;
};

static bool consumer_task(void *arg, struct error *err UNUSED)
{
    struct consumption *consumption = arg;
    struct transfer *transfer = consumption->transfer;
    CLEANUP_ERROR struct error failure = {0};

    transfer->consumed = await_consume(transfer, consumption->writer, &failure);
    if (transfer->consumed)
        wake_all(&transfer->changed);
    else
        transfer_fail(transfer, &failure);
    return true;
}

/* Connections and the consumer at work, until that has seen the last byte or one of them failed. */
static bool await_work_done(struct transfer *transfer, struct layer_writer *writer,
                            struct error *err)
{
    CLEANUP(group_done_await) struct group group;
    struct consumption consumption = {transfer, writer};
    int r = 0;

    group_init(&group);
    transfer->group = &group;
    if (!task_spawn(&group, "consumer", digest_hex(&transfer->blob.digest), consumer_task,
                    &consumption, err))
        return false;
    scheduler_add(transfer);
    while (r == 0 && !transfer->consumed && !error_is_set(&transfer->failure))
        r = await_wake(&transfer->changed, "fetching");
    scheduler_remove(transfer);
    return r == 0 || await_error(err, r, "fetching");
}

/* From what there is of the blob to a layer that is written, if not committed. */
static bool await_round(struct transfer *transfer, struct layer_writer *writer, struct error *err)
{
    bool ok;

    segments_init(&transfer->segments);
    transfer_find_gaps(transfer);
    transfer->bytes_fetched = transfer->bytes_resumed = partial_bytes(transfer->partial);
    transfer->bytes_stored = transfer->bytes_consumed = 0;
    transfer->consumed = transfer->wrong_bytes = false;
    transfer->fruitless = 0;
    transfer->left_alone_ms = transfer->connect_after_ms = 0;
    ok = await_work_done(transfer, writer, err);
    transfer->group = NULL;
    segments_done(&transfer->segments);
    if (ok && !transfer->consumed)
        ok = error_move(err, &transfer->failure);
    error_done(&transfer->failure);
    return ok;
}

/* --- The flow --------------------------------------------------------------------------------- */

static bool await_finish(struct transfer *transfer, struct layer_writer *writer, struct error *err)
{
    transfer->state = TRANSFER_STORING;
    if (store_keeps_blobs(transfer->table->store))
        layer_adopt_blob_await(writer, transfer->partial);
    return await_layer_commit(writer, NULL, err);
}

static void writer_cleanup_await(struct layer_writer **writer)
{
    *writer = layer_writer_free_await(*writer);
}

/* Once, or twice if what came the first time was wrong. */
static bool await_store(struct transfer *transfer, struct error *err)
{
    for (bool again = false;; again = true) {
        CLEANUP(writer_cleanup_await) struct layer_writer *writer = NULL;
        writer = await_layer_prepare(transfer->table->store, &transfer->diff_id, err);
        if (!writer)
            return false;
        transfer->state = TRANSFER_FETCHING;
        if (await_round(transfer, writer, err))
            return await_finish(transfer, writer, err);
        if (!transfer->wrong_bytes || again || !places_begin_anew(transfer, err))
            return false;
        log_warn("wrong bytes came for a layer: it is fetched anew",
                 LOG("digest", (const char *)transfer->blob.digest.text),
                 LOG("from", source_name(transfer->place->source)));
        error_done(err);
        if (!await_partial_reset(transfer->partial, err))
            return false;
    }
}

static bool await_run_transfer(struct transfer *transfer, struct error *err)
{
    bool ok;
    int r = await_slot(transfer);

    if (r < 0)
        return await_error(err, r, "waiting for a download slot");
    transfer->partial = await_partial_open(transfer->table->store, &transfer->blob.digest,
                                           transfer->blob.size_bytes, err);
    ok = transfer->partial && await_store(transfer, err);
    /* What is wrong, and what is stored elsewhere now, is not kept. */
    if (transfer->partial && (ok || err->code == ERROR_DATA_LOSS))
        partial_discard(transfer->partial);
    transfer->partial = partial_close_await(transfer->partial);
    slot_release(transfer);
    return ok;
}

bool transfer_task(void *arg, struct error *err UNUSED)
{
    struct transfer *transfer = arg;
    bool ok;

    transfer->task = task_current();
    if (transfer->abandoned)
        task_cancel(transfer->task);
    ok = await_run_transfer(transfer, &transfer->error);
    transfer->task = NULL;
    transfer->state = ok ? TRANSFER_DONE : TRANSFER_FAILED;
    transfer_ended(transfer);
    return true; /* its error goes to those who share it, not to the other transfers */
}
