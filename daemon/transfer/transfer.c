#include "daemon/transfer/transfer.h"

#include <stdio.h>

#include "daemon/store/decompress.h"
#include "proto/async/await.h"
#include "proto/async/loop.h"
#include "proto/base/log.h"
#include "proto/base/map.h"

/* One buffer of compressed and one of uncompressed bytes per running transfer: large, so that the
 * loop and the thread pool call each other rarely. What is inflated is hashed and written in pieces
 * that are in the processor's cache still; larger ones also cost ext4 more. */
#define INPUT_BYTES (256 * KIB)
#define OUTPUT_BYTES (1 * MIB)
#define PIECE_BYTES (256 * KIB)
_Static_assert(OUTPUT_BYTES % PIECE_BYTES == 0, "the last piece must fit");

/* A layer may inflate to this much (SECURITY.md, "Limits"). */
#define INFLATED_MIN_LIMIT (1 * GIB)
#define INFLATED_RATIO_LIMIT 200

/* A source is given up after this many attempts in a row that brought no byte. */
#define FRUITLESS_ATTEMPTS_MAX 5
#define BACKOFF_FIRST_MS 250
#define BACKOFF_MAX_MS 8000

struct source {
    struct list node;
    struct reference reference;
    char *username, *password, *identity_token;
};

struct transfer {
    struct transfer_table *table;
    char key[160]; /* blob digest and diff_id: a manifest that lies about one harms only itself */
    struct descriptor blob;
    struct digest diff_id;
    struct list sources;
    struct task *task; /* NULL before it runs and after it ended */
    unsigned int shares;
    bool ended, abandoned;
    struct wait_queue waiters;
    struct transfer_progress progress;
    uint64_t speed_since_ms, speed_bytes;
    struct error error;
};

struct transfer_table {
    struct store *store;
    struct registry_client *client;
    bool keep_compressed;
    struct map *by_key;
    struct group group;
    unsigned int free_slots;
    struct wait_queue slot_queue;
    unsigned int abandoned; /* that have not ended yet */
    struct wait_queue unwound_queue;
};

struct transfer_share {
    struct transfer *transfer;
};

/* --- Life cycle ------------------------------------------------------------------------------- */

struct transfer_table *transfer_table_new(const struct transfer_options *options)
{
    struct transfer_table *table = xcalloc(1, sizeof(*table));

    table->store = options->store;
    table->client = options->client;
    table->keep_compressed = options->keep_compressed;
    table->by_key = map_new();
    table->free_slots = options->max_concurrent;
    wait_queue_init(&table->slot_queue);
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
    map_free(table->by_key);
    free(table);
    return NULL;
}

static void reference_copy(struct reference *dst, const struct reference *src)
{
    *dst = *src;
    dst->domain = xstrdup(src->domain);
    dst->path = xstrdup(src->path);
    dst->tag = xstrdup(src->tag);
}

static void add_source(struct transfer *transfer, const struct reference *reference,
                       const struct registry_auth *auth)
{
    struct source *source = xcalloc(1, sizeof(*source));

    reference_copy(&source->reference, reference);
    if (auth) {
        source->username = xstrdup(auth->username);
        source->password = xstrdup(auth->password);
        source->identity_token = xstrdup(auth->identity_token);
    }
    list_append(&transfer->sources, &source->node);
}

static void source_free(struct source *source)
{
    reference_done(&source->reference);
    free(source->username);
    if (source->password)
        explicit_bzero(source->password, strlen(source->password));
    free(source->password);
    if (source->identity_token)
        explicit_bzero(source->identity_token, strlen(source->identity_token));
    free(source->identity_token);
    free(source);
}

/* Frees a transfer that has ended and that nobody shares. */
static void transfer_free_if_unused(struct transfer *transfer)
{
    if (!transfer->ended || transfer->shares)
        return;
    LIST_FOR_EACH (node, &transfer->sources) {
        source_free(LIST_ITEM(node, struct source, node));
    }
    error_done(&transfer->error);
    free(transfer->blob.media_type);
    free(transfer);
}

/* From now on nobody joins it; another transfer may already stand under its key. */
static void leave_table(struct transfer *transfer)
{
    if (map_get(transfer->table->by_key, transfer->key) == transfer)
        map_remove(transfer->table->by_key, transfer->key);
}

static void make_key(char *key, size_t size, const struct digest *blob,
                     const struct digest *diff_id)
{
    snprintf(key, size, "%s %s", blob->text, diff_id->text);
}

/* --- Fetching --------------------------------------------------------------------------------- */

/* What one running transfer needs; all of it outlives the attempts, so that an attempt goes on at
 * the byte where the last one stopped. */
struct fetch {
    struct transfer *transfer;
    struct registry_client *client;
    struct layer_writer *writer;
    struct hasher *hasher;
    struct decompressor *decompressor;
    uint8_t *input, *output;
};

static void fetch_done_await(struct fetch *fetch)
{
    fetch->writer = layer_writer_free_await(fetch->writer);
    fetch->hasher = hasher_free(fetch->hasher);
    fetch->decompressor = decompressor_free(fetch->decompressor);
    free(fetch->input);
    free(fetch->output);
}

static bool check_inflated_size(const struct transfer *transfer, struct error *err)
{
    uint64_t limit = MAX(INFLATED_MIN_LIMIT, transfer->blob.size_bytes * INFLATED_RATIO_LIMIT);

    if (transfer->progress.bytes_stored <= limit)
        return true;
    return error_set(err, ERROR_DATA_LOSS, "INVALID_LAYER",
                     "%s inflates to more than %llu bytes, %u times its size: refused",
                     transfer->blob.digest.text, (unsigned long long)limit, INFLATED_RATIO_LIMIT);
}

/* One step of the thread pool: hash what came, keep it if it is to be kept, inflate as much as
 * fits, hash and store that. */
struct store_step {
    struct fetch *fetch;
    const uint8_t *input;
    size_t input_size;
    bool first; /* false when the step goes on with input that has been hashed and kept */
    size_t output_size;
    bool ok;
    struct error error;
};

static bool take_input(struct store_step *step)
{
    struct fetch *fetch = step->fetch;
    const struct transfer *transfer = fetch->transfer;

    hasher_update(fetch->hasher, step->input, step->input_size);
    return !transfer->table->keep_compressed ||
           layer_keep_blob_blocking(fetch->writer, &transfer->blob.digest, step->input,
                                    step->input_size, &step->error);
}

static void store_in_pool(void *arg)
{
    struct store_step *step = arg;
    struct fetch *fetch = step->fetch;
    ssize_t n = PIECE_BYTES;

    step->ok = !step->first || take_input(step);
    step->output_size = 0;
    while (step->ok && n == PIECE_BYTES && step->output_size < OUTPUT_BYTES) {
        uint8_t *piece = fetch->output + step->output_size;
        n = decompress(fetch->decompressor, &step->input, &step->input_size, piece, PIECE_BYTES,
                       &step->error);
        if (n > 0)
            step->output_size += (size_t)n;
        step->ok = n == 0 ||
                   (n > 0 && layer_write_blocking(fetch->writer, piece, (size_t)n, &step->error));
    }
}

/* Hashes, inflates and stores bytes that came. */
static bool await_store_bytes(struct fetch *fetch, size_t size, struct error *err)
{
    struct store_step step = {.fetch = fetch,
                              .input = fetch->input,
                              .input_size = size,
                              .first = true};
    int r;

    do {
        if ((r = await_work(store_in_pool, &step, "storing a layer")) < 0)
            return await_error(err, r, "storing a layer");
        if (!step.ok)
            return error_move(err, &step.error);
        step.first = false;
        if (step.output_size > 0 &&
            !await_layer_written(fetch->writer, fetch->output, step.output_size, err))
            return false;
        fetch->transfer->progress.bytes_stored += step.output_size;
        if (!check_inflated_size(fetch->transfer, err))
            return false;
    } while (step.input_size > 0 || step.output_size == OUTPUT_BYTES);
    return true;
}

/* A moving average over about two seconds. */
static void note_fetched(struct transfer *transfer, uint64_t bytes)
{
    struct transfer_progress *progress = &transfer->progress;
    uint64_t now = loop_now_ms(), elapsed = now - transfer->speed_since_ms;

    progress->bytes_fetched += bytes;
    transfer->speed_bytes += bytes;
    if (elapsed < 200)
        return;
    uint64_t current = transfer->speed_bytes * 1000 / elapsed;
    progress->bytes_per_second =
        progress->bytes_per_second ? (progress->bytes_per_second * 4 + current) / 5 : current;
    transfer->speed_since_ms = now;
    transfer->speed_bytes = 0;
}

/* Reads until a buffer is full or the blob ends: few large steps for the pool. */
static ssize_t await_fill(struct blob_stream *stream, struct fetch *fetch, struct error *err)
{
    size_t filled = 0;

    while (filled < INPUT_BYTES) {
        ssize_t n = await_blob_read(stream, fetch->input + filled, INPUT_BYTES - filled, err);
        if (n < 0 && filled == 0)
            return -1;
        if (n <= 0)
            break; /* an error will come back at the next read */
        filled += (size_t)n;
        note_fetched(fetch->transfer, (uint64_t)n);
    }
    return (ssize_t)filled;
}

/* One connection's worth: from the byte reached until the end or an error. */
static bool await_attempt(struct fetch *fetch, const struct source *source, struct error *err)
{
    struct transfer *transfer = fetch->transfer;
    const struct registry_auth auth = {source->username, source->password, source->identity_token};
    CLEANUP(blob_stream_cleanup) struct blob_stream *stream = NULL;
    ssize_t n;

    stream = await_blob_open_any(fetch->client, &source->reference, &auth, &transfer->blob,
                                 transfer->progress.bytes_fetched, err);
    if (!stream)
        return false;
    transfer->speed_since_ms = loop_now_ms();
    while ((n = await_fill(stream, fetch, err)) > 0) {
        if (transfer->progress.bytes_fetched == transfer->blob.size_bytes)
            transfer->progress.state = TRANSFER_STORING;
        if (!await_store_bytes(fetch, (size_t)n, err))
            return false;
    }
    return n == 0;
}

/* What may go away by itself: connections, stalls, busy registries. */
static bool worth_a_retry(const struct error *err)
{
    return err->code == ERROR_UNAVAILABLE && !error_is(err, "TLS_FAILED");
}

static int await_backoff(unsigned int fruitless)
{
    uint64_t ms = BACKOFF_FIRST_MS << MIN(fruitless, 5U);

    ms = MIN(ms, BACKOFF_MAX_MS);
    return await_sleep(ms / 2 + (uint64_t)random() % (ms / 2 + 1));
}

/* Tries one source until the blob is complete, retrying while bytes arrive. */
static bool await_fetch_from(struct fetch *fetch, const struct source *source, struct error *err)
{
    struct transfer *transfer = fetch->transfer;
    unsigned int fruitless = 0;

    for (;;) {
        uint64_t before = transfer->progress.bytes_fetched;
        if (await_attempt(fetch, source, err))
            return true;
        fruitless = transfer->progress.bytes_fetched > before ? 0 : fruitless + 1;
        if (!worth_a_retry(err) || fruitless >= FRUITLESS_ATTEMPTS_MAX)
            return false;
        log_debug("retrying blob", LOG("digest", (const char *)transfer->blob.digest.text),
                  LOG("at", transfer->progress.bytes_fetched), LOG("error", err->message));
        transfer->progress.bytes_per_second = 0;
        if (await_backoff(fruitless) < 0)
            return error_set(err, ERROR_CANCELLED, NULL, "fetching was cancelled");
        error_done(err);
    }
}

static bool check_blob(struct fetch *fetch, struct error *err)
{
    const struct transfer *transfer = fetch->transfer;
    struct digest actual = hasher_finish(fetch->hasher);

    if (!digest_eq(&actual, &transfer->blob.digest)) {
        error_set(err, ERROR_DATA_LOSS, "DIGEST_MISMATCH",
                  "the registry sent wrong bytes for %s: their digest is %s",
                  transfer->blob.digest.text, actual.text);
        return error_hint(err, "nothing was kept of it; try again, and if it happens again the "
                               "registry, a mirror or a proxy damages data");
    }
    return decompressor_finished(fetch->decompressor, err);
}

static bool await_fetch(struct fetch *fetch, struct error *err)
{
    struct transfer *transfer = fetch->transfer;
    bool complete = false;

    fetch->writer = await_layer_prepare(transfer->table->store, &transfer->diff_id, err);
    if (!fetch->writer)
        return false;
    fetch->hasher = hasher_new();
    fetch->decompressor = decompressor_new();
    fetch->input = xmalloc(INPUT_BYTES);
    fetch->output = xmalloc(OUTPUT_BYTES);
    /* Sources may be appended while this waits, so the list is walked by its links. */
    for (struct list *node = transfer->sources.next; node != &transfer->sources && !complete;
         node = node->next) {
        error_done(err);
        complete = await_fetch_from(fetch, LIST_ITEM(node, struct source, node), err);
        if (!complete && (err->code == ERROR_CANCELLED || err->code == ERROR_DATA_LOSS ||
                          err->code == ERROR_RESOURCE_EXHAUSTED))
            return false;
    }
    if (!complete || !check_blob(fetch, err))
        return false;
    transfer->progress.state = TRANSFER_STORING;
    return await_layer_commit(fetch->writer, NULL, err);
}

static int await_slot(struct transfer_table *table)
{
    int r = task_check();

    while (r == 0 && !table->free_slots)
        r = await_wake(&table->slot_queue, "waiting for a download slot");
    if (r < 0)
        wake_one(&table->slot_queue); /* it may have been meant for this task */
    else
        table->free_slots--;
    return r;
}

static void release_slot(struct transfer_table *table)
{
    table->free_slots++;
    wake_one(&table->slot_queue);
}

static bool await_run_transfer(struct transfer *transfer, struct error *err)
{
    struct transfer_table *table = transfer->table;
    int r;
    bool ok;

    if ((r = await_slot(table)) < 0)
        return await_error(err, r, "waiting for a download slot");
    transfer->progress.state = TRANSFER_FETCHING;
    {
        CLEANUP(fetch_done_await)
        struct fetch fetch = {.transfer = transfer, .client = table->client};
        ok = await_fetch(&fetch, err);
    }
    release_slot(table);
    return ok;
}

static bool transfer_task(void *arg, struct error *err)
{
    struct transfer *transfer = arg;
    bool ok;

    transfer->task = task_current();
    if (transfer->abandoned)
        task_cancel(transfer->task);
    ok = await_run_transfer(transfer, &transfer->error);
    transfer->task = NULL;
    transfer->progress.state = ok ? TRANSFER_DONE : TRANSFER_FAILED;
    transfer->progress.bytes_per_second = 0;
    transfer->ended = true;
    leave_table(transfer);
    wake_all(&transfer->waiters);
    if (transfer->abandoned) {
        transfer->table->abandoned--;
        wake_all(&transfer->table->unwound_queue);
    }
    transfer_free_if_unused(transfer);
    (void)err;
    return true; /* its error goes to those who share it, not to the other transfers */
}

/* --- Sharing ---------------------------------------------------------------------------------- */

static struct transfer *transfer_start(struct transfer_table *table, const struct descriptor *blob,
                                       const struct digest *diff_id, struct error *err)
{
    struct transfer *transfer = xcalloc(1, sizeof(*transfer));

    transfer->table = table;
    transfer->blob = *blob;
    transfer->blob.media_type = xstrdup(blob->media_type);
    transfer->diff_id = *diff_id;
    make_key(transfer->key, sizeof(transfer->key), &blob->digest, diff_id);
    list_init(&transfer->sources);
    wait_queue_init(&transfer->waiters);
    if (!task_spawn(&table->group, "fetch", digest_hex(&blob->digest), transfer_task, transfer,
                    err)) {
        transfer->ended = true;
        transfer_free_if_unused(transfer);
        return NULL;
    }
    map_put(table->by_key, transfer->key, transfer);
    return transfer;
}

struct transfer_share *transfer_join(struct transfer_table *table,
                                     const struct reference *reference,
                                     const struct registry_auth *auth,
                                     const struct descriptor *blob, const struct digest *diff_id,
                                     struct error *err)
{
    struct transfer_share *share;
    struct transfer *transfer;
    char key[sizeof(transfer->key)];

    make_key(key, sizeof(key), &blob->digest, diff_id);
    transfer = map_get(table->by_key, key);
    if (!transfer)
        transfer = transfer_start(table, blob, diff_id, err);
    if (!transfer)
        return NULL;
    add_source(transfer, reference, auth);
    transfer->shares++;
    share = xcalloc(1, sizeof(*share));
    share->transfer = transfer;
    return share;
}

bool transfer_runs(const struct transfer_table *table, const struct descriptor *blob,
                   const struct digest *diff_id)
{
    char key[sizeof(((struct transfer *)0)->key)];

    make_key(key, sizeof(key), &blob->digest, diff_id);
    return map_get(table->by_key, key);
}

uint64_t transfer_disk_bytes(const struct transfer_table *table, uint64_t blob_bytes)
{
    return table->keep_compressed ? 2 * blob_bytes : blob_bytes;
}

uint64_t transfer_table_disk_bytes_left(const struct transfer_table *table)
{
    uint64_t bytes = 0;
    size_t iterator = 0;
    void *value;

    while (map_next(table->by_key, &iterator, NULL, &value)) {
        const struct transfer *transfer = value;
        bytes += transfer->blob.size_bytes - transfer->progress.bytes_fetched;
    }
    return transfer_disk_bytes(table, bytes);
}

bool transfer_table_unwinds(const struct transfer_table *table)
{
    return table->abandoned > 0;
}

int await_transfer_unwound(struct transfer_table *table)
{
    return await_wake(&table->unwound_queue, "waiting for space that is being freed");
}

struct transfer_progress transfer_progress(const struct transfer_share *share)
{
    return share->transfer->progress;
}

uint64_t transfer_blob_bytes(const struct transfer_share *share)
{
    return share->transfer->blob.size_bytes;
}

bool await_transfer(struct transfer_share *share, struct error *err)
{
    struct transfer *transfer = share->transfer;
    int r;

    while (!transfer->ended) {
        if ((r = await_wake(&transfer->waiters, "waiting for a layer")) < 0)
            return await_error(err, r, "waiting for layer %s", transfer->blob.digest.text);
    }
    return error_is_set(&transfer->error) ? error_copy(err, &transfer->error) : true;
}

struct transfer_share *transfer_leave(struct transfer_share *share)
{
    struct transfer *transfer;

    if (!share)
        return NULL;
    transfer = share->transfer;
    free(share);
    transfer->shares--;
    if (!transfer->shares && !transfer->ended) {
        leave_table(transfer);
        transfer->abandoned = true;
        transfer->table->abandoned++;
        if (transfer->task)
            task_cancel(transfer->task);
    }
    transfer_free_if_unused(transfer);
    return NULL;
}
