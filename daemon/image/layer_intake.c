#include "daemon/image/layer_intake.h"

#include "daemon/store/decompress.h"
#include "proto/async/await.h"

/* As for layers from registries: pieces that stay in the processor's cache from being inflated to
 * being written. */
#define OUTPUT_BYTES (1 * MIB)
#define PIECE_BYTES (256 * KIB)

/* A layer may inflate to this much (SECURITY.md, "Limits"). */
#define INFLATED_MIN_LIMIT (1 * GIB)
#define INFLATED_RATIO_LIMIT 200

struct layer_intake {
    struct store *store;
    struct layer_writer *writer;       /* NULL: it is only hashed */
    struct hasher *hasher;             /* of the bytes as they come; NULL: the writer's will do */
    struct decompressor *decompressor; /* NULL: they are plain */
    uint8_t *output;
    uint64_t taken_bytes, stored_bytes;
};

enum layer_format layer_format_of(const void *head, size_t size)
{
    static const struct {
        const char *bytes;
        size_t size;
        enum layer_format format;
    } magics[] = {
        {"\x1f\x8b", 2, LAYER_GZIP},
        {"\x28\xb5\x2f\xfd", 4, LAYER_ZSTD},
        {"\xfd\x37zXZ", 6, LAYER_FOREIGN},
        {"BZh", 3, LAYER_FOREIGN},
    };

    for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
        if (size >= magics[i].size && memcmp(head, magics[i].bytes, magics[i].size) == 0)
            return magics[i].format;
    }
    return LAYER_PLAIN;
}

struct layer_intake *await_layer_intake_new(const struct layer_intake_options *options,
                                            struct error *err)
{
    struct layer_intake *intake = xcalloc(1, sizeof(*intake));
    bool compressed = options->format != LAYER_PLAIN;

    intake->store = options->store;
    if (options->hash_only || compressed)
        intake->hasher = hasher_new();
    if (options->hash_only)
        return intake;
    if (compressed) {
        intake->decompressor = decompressor_new();
        intake->output = xmalloc(OUTPUT_BYTES);
    }
    intake->writer = await_layer_prepare(options->store, NULL, err);
    if (!intake->writer)
        return layer_intake_free_await(intake);
    layer_writer_keep(intake->writer, !compressed);
    return intake;
}

struct layer_intake *layer_intake_free_await(struct layer_intake *intake)
{
    if (!intake)
        return NULL;
    layer_writer_free_await(intake->writer);
    hasher_free(intake->hasher);
    decompressor_free(intake->decompressor);
    free(intake->output);
    free(intake);
    return NULL;
}

/* --- Bytes -------------------------------------------------------------------------------------
 */

/* One step of the thread pool. */
struct intake_step {
    struct layer_intake *intake;
    const uint8_t *data; /* goes on behind what was taken */
    size_t size;
    bool first; /* what is there has not been hashed yet */
    size_t output_size;
    bool ok;
    struct error error;
};

static bool write_plain(struct intake_step *step)
{
    bool ok = true;

    for (size_t done = 0; ok && done < step->size;) {
        size_t piece = MIN(PIECE_BYTES, step->size - done);
        ok = layer_write_blocking(step->intake->writer, step->data + done, piece, &step->error);
        done += piece;
    }
    return ok;
}

static bool write_inflated(struct intake_step *step)
{
    struct layer_intake *intake = step->intake;
    ssize_t n = PIECE_BYTES;
    bool ok = true;

    while (ok && n == PIECE_BYTES && step->output_size < OUTPUT_BYTES) {
        uint8_t *piece = intake->output + step->output_size;
        n = decompress(intake->decompressor, &step->data, &step->size, piece, PIECE_BYTES,
                       &step->error);
        if (n > 0)
            step->output_size += (size_t)n;
        ok = n == 0 ||
             (n > 0 && layer_write_blocking(intake->writer, piece, (size_t)n, &step->error));
    }
    return ok;
}

static void step_in_pool(void *arg)
{
    struct intake_step *step = arg;
    struct layer_intake *intake = step->intake;

    step->output_size = 0;
    step->ok = true;
    if (step->first && intake->hasher)
        hasher_update(intake->hasher, step->data, step->size);
    if (!intake->writer)
        step->size = 0;
    else if (!intake->decompressor)
        step->ok = write_plain(step);
    else
        step->ok = (!step->first ||
                    layer_keep_blocking(intake->writer, step->data, step->size, &step->error)) &&
                   write_inflated(step);
    step->first = false;
}

/* By what came, not by what was said to come. */
static bool check_inflated(struct layer_intake *intake, size_t more, struct error *err)
{
    intake->stored_bytes += more;
    if (intake->stored_bytes <= MAX(INFLATED_MIN_LIMIT, intake->taken_bytes * INFLATED_RATIO_LIMIT))
        return true;
    return error_set(err, ERROR_DATA_LOSS, "INVALID_LAYER",
                     "it inflates to more than %u times its size: refused", INFLATED_RATIO_LIMIT);
}

bool await_layer_intake_add(struct layer_intake *intake, const void *data, size_t size,
                            struct error *err)
{
    struct intake_step step = {.intake = intake, .data = data, .size = size, .first = true};
    int r;

    intake->taken_bytes += size;
    do {
        if ((r = await_work(step_in_pool, &step, "storing a layer")) < 0)
            return await_error(err, r, "storing a layer");
        if (!step.ok)
            return error_move(err, &step.error);
        if (!intake->decompressor)
            return !intake->writer || await_layer_written(intake->writer, data, size, err);
        if (step.output_size > 0 &&
            (!await_layer_written(intake->writer, intake->output, step.output_size, err) ||
             !check_inflated(intake, step.output_size, err)))
            return false;
    } while (step.size > 0 || step.output_size == OUTPUT_BYTES);
    return true;
}

bool await_layer_intake_finish(struct layer_intake *intake, struct layer_received *ret,
                               struct error *err)
{
    *ret = (struct layer_received){0};
    if (intake->decompressor && !decompressor_finished(intake->decompressor, err))
        return false;
    /* What follows takes a while, and others may be inflated meanwhile. */
    intake->decompressor = decompressor_free(intake->decompressor);
    free(TAKE(intake->output));
    if (intake->hasher)
        ret->digest = hasher_finish(intake->hasher);
    if (!intake->writer)
        return true;
    if (!await_layer_commit(intake->writer, &ret->info, err))
        return false;
    if (!intake->hasher)
        ret->digest = ret->info.diff_id;
    return true;
}
