#include "daemon/store/decompress.h"
#include "daemon/transfer/internal.h"
#include "proto/async/await.h"

/* One buffer of compressed and one of uncompressed bytes per transfer: large, so that the loop and
 * the thread pool call each other rarely. What is inflated is hashed and written in pieces that are
 * in the processor's cache still; larger ones also cost ext4 more. */
#define INPUT_BYTES (256 * KIB)
#define OUTPUT_BYTES (1 * MIB)
#define PIECE_BYTES (256 * KIB)
_Static_assert(OUTPUT_BYTES % PIECE_BYTES == 0, "the last piece must fit");

/* A layer may inflate to this much (SECURITY.md, "Limits"). */
#define INFLATED_MIN_LIMIT (1 * GIB)
#define INFLATED_RATIO_LIMIT 200

struct consumer {
    struct transfer *transfer;
    struct layer_writer *writer;
    struct hasher *hasher;
    struct decompressor *decompressor;
    uint8_t *input, *output;
    /* What is wrong with the layer; the rest of the blob is hashed only, for it tells whose fault
     * that is: the publisher's, or that of who sent it. */
    struct error invalid;
};

static void consumer_done(struct consumer *consumer)
{
    hasher_free(consumer->hasher);
    decompressor_free(consumer->decompressor);
    free(consumer->input);
    free(consumer->output);
    error_done(&consumer->invalid);
}

static bool check_inflated_size(const struct transfer *transfer, struct error *err)
{
    uint64_t limit = MAX(INFLATED_MIN_LIMIT, transfer->blob.size_bytes * INFLATED_RATIO_LIMIT);

    if (transfer->bytes_stored <= limit)
        return true;
    return error_set(err, ERROR_DATA_LOSS, "INVALID_LAYER",
                     "%s inflates to more than %llu bytes, %u times its size: refused",
                     transfer->blob.digest.text, (unsigned long long)limit, INFLATED_RATIO_LIMIT);
}

/* One step of the thread pool: read what came and hash it, inflate as much as fits, hash and store
 * that. */
struct consume_step {
    struct consumer *consumer;
    struct partial *partial;
    uint64_t offset;
    const uint8_t *input;
    size_t input_size;
    bool first;     /* false when the step goes on with input that has been read and hashed, */
    bool taken;     /* as it is then */
    bool hash_only; /* nothing more goes into the layer */
    size_t output_size;
    bool ok;
    struct error error;
};

static bool take_input(struct consume_step *step)
{
    struct consumer *consumer = step->consumer;

    if (!partial_read_blocking(step->partial, step->offset, consumer->input, step->input_size,
                               &step->error))
        return false;
    hasher_update(consumer->hasher, consumer->input, step->input_size);
    return step->taken = true;
}

static void consume_in_pool(void *arg)
{
    struct consume_step *step = arg;
    struct consumer *consumer = step->consumer;
    ssize_t n = PIECE_BYTES;

    step->ok = !step->first || take_input(step);
    step->output_size = 0;
    if (step->hash_only) {
        step->input_size = 0;
        return;
    }
    while (step->ok && n == PIECE_BYTES && step->output_size < OUTPUT_BYTES) {
        uint8_t *piece = consumer->output + step->output_size;
        n = decompress(consumer->decompressor, &step->input, &step->input_size, piece, PIECE_BYTES,
                       &step->error);
        if (n > 0)
            step->output_size += (size_t)n;
        step->ok = n == 0 || (n > 0 && layer_write_blocking(consumer->writer, piece, (size_t)n,
                                                            &step->error));
    }
}

/* Hashes, inflates and stores bytes that are there. */
static bool await_consume_bytes(struct consumer *consumer, size_t size, struct error *err)
{
    struct transfer *transfer = consumer->transfer;
    struct consume_step step = {.consumer = consumer,
                                .partial = transfer->partial,
                                .offset = transfer->bytes_consumed,
                                .input = consumer->input,
                                .input_size = size,
                                .first = true,
                                .hash_only = error_is_set(&consumer->invalid)};
    int r;

    do {
        if ((r = await_work(consume_in_pool, &step, "storing a layer")) < 0)
            return await_error(err, r, "storing a layer");
        if (step.first && step.taken)
            transfer->bytes_consumed += size;
        step.first = false;
        if (!step.ok)
            return error_move(err, &step.error);
        if (step.output_size > 0 &&
            !await_layer_written(consumer->writer, consumer->output, step.output_size, err))
            return false;
        transfer->bytes_stored += step.output_size;
        if (!check_inflated_size(transfer, err))
            return false;
    } while (step.input_size > 0 || step.output_size == OUTPUT_BYTES);
    return true;
}

static bool check_blob(struct consumer *consumer, struct error *err)
{
    struct transfer *transfer = consumer->transfer;
    struct digest actual = hasher_finish(consumer->hasher);

    if (!digest_eq(&actual, &transfer->blob.digest)) {
        transfer->wrong_bytes = true;
        error_set(err, ERROR_DATA_LOSS, "DIGEST_MISMATCH",
                  "the registry sent wrong bytes for %s: their digest is %s",
                  transfer->blob.digest.text, actual.text);
        return error_hint(err, "nothing was kept of it; try again, and if it happens again the "
                               "registry, a mirror or a proxy damages data");
    }
    if (error_is_set(&consumer->invalid))
        return error_move(err, &consumer->invalid);
    return decompressor_finished(consumer->decompressor, err);
}

/* Waits for bytes beyond what was consumed: their count, at most a buffer's. */
static bool await_bytes(struct transfer *transfer, size_t *ret_size, struct error *err)
{
    uint64_t there;
    int r;

    while ((there = partial_contiguous(transfer->partial)) == transfer->bytes_consumed) {
        if ((r = await_wake(&transfer->arrived, "waiting for bytes")) < 0)
            return await_error(err, r, "waiting for layer %s", transfer->blob.digest.text);
    }
    *ret_size = MIN(INPUT_BYTES, there - transfer->bytes_consumed);
    return true;
}

bool await_consume(struct transfer *transfer, struct layer_writer *writer, struct error *err)
{
    CLEANUP(consumer_done)
    struct consumer consumer = {.transfer = transfer,
                                .writer = writer,
                                .hasher = hasher_new(),
                                .decompressor = decompressor_new(),
                                .input = xmalloc(INPUT_BYTES),
                                .output = xmalloc(OUTPUT_BYTES)};
    CLEANUP_ERROR struct error failure = {0};
    size_t size = 0;

    while (transfer->bytes_consumed < transfer->blob.size_bytes) {
        if (!await_bytes(transfer, &size, err))
            return false;
        if (await_consume_bytes(&consumer, size, &failure))
            continue;
        if (failure.code != ERROR_DATA_LOSS || error_is_set(&consumer.invalid))
            return error_move(err, &failure);
        error_move(&consumer.invalid, &failure);
    }
    return check_blob(&consumer, err);
}
