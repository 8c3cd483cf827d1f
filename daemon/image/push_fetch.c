/* Layers that are not kept as files: fetched from where they were seen, to be sent elsewhere. */
#include "daemon/image/push_internal.h"
#include "proto/async/await.h"
#include "proto/base/log.h"

#define BUFFER_BYTES (256 * KIB)
#define SOURCE_TRIES 3 /* in a row without a byte */

static bool is_original(const struct push_layer *layer, const struct layer_source *source)
{
    return digest_eq(&source->blob.digest, &layer->original.digest);
}

bool layer_fetchable(const struct push_layer *layer)
{
    for (size_t i = 0; i < layer->sources.count; i++) {
        if (is_original(layer, &layer->sources.items[i]))
            return true;
    }
    return false;
}

/* --- In the thread pool ------------------------------------------------------------------------
 */

struct work {
    struct partial *partial;
    uint64_t offset;
    void *buffer;
    size_t size;
    struct digest digest;
    struct error error;
};

static void write_blocking(void *arg)
{
    struct work *work = arg;

    partial_write_blocking(work->partial, work->offset, work->buffer, work->size, &work->error);
}

static void hash_blocking(void *arg)
{
    struct work *work = arg;
    CLEANUP(hasher_cleanup) struct hasher *hasher = hasher_new();
    CLEANUP_FREE void *buffer = xmalloc(BUFFER_BYTES);

    for (uint64_t offset = 0; offset < work->offset; offset += BUFFER_BYTES) {
        size_t size = (size_t)MIN(BUFFER_BYTES, work->offset - offset);
        if (!partial_read_blocking(work->partial, offset, buffer, size, &work->error))
            return;
        hasher_update(hasher, buffer, size);
    }
    work->digest = hasher_finish(hasher);
}

static bool await_in_pool(void (*fn)(void *arg), struct work *work, struct error *err)
{
    int r = await_work(fn, work, "storing a blob");

    if (r < 0)
        return await_error(err, r, "storing a blob");
    return !error_is_set(&work->error) || error_move(err, &work->error);
}

/* --- One source --------------------------------------------------------------------------------
 */

struct fetch {
    struct push_layer *layer;
    struct partial *partial;
    void *buffer;
};

static bool await_range(const struct fetch *fetch, struct source *source, struct byte_range missing,
                        struct error *err)
{
    const struct blob_request request = {.source = source,
                                         .blob = &fetch->layer->original,
                                         .offset = missing.offset,
                                         .end = missing.end};
    CLEANUP(blob_stream_cleanup)
    struct blob_stream *stream =
        await_blob_open(fetch->layer->push->engine->options.registry, &request, err);
    struct work work = {.partial = fetch->partial, .buffer = fetch->buffer};
    ssize_t n = -1;

    if (!stream)
        return false;
    work.offset = blob_stream_offset(stream);
    while ((n = await_blob_read(stream, fetch->buffer, BUFFER_BYTES, err)) > 0) {
        work.size = (size_t)n;
        if (!await_in_pool(write_blocking, &work, err))
            return false;
        work.offset += (uint64_t)n;
    }
    return n == 0;
}

/* All that is missing. It goes on while bytes come. */
static bool await_from_source(const struct fetch *fetch, struct source *source, struct error *err)
{
    unsigned int fruitless = 0;
    struct byte_range missing;

    while (partial_missing(fetch->partial, 0, &missing)) {
        uint64_t before = partial_bytes(fetch->partial);
        if (await_range(fetch, source, missing, err))
            continue;
        source_failed(source, err);
        fruitless = partial_bytes(fetch->partial) > before ? 0 : fruitless + 1;
        if (err->code != ERROR_UNAVAILABLE || fruitless == SOURCE_TRIES)
            return false;
        error_done(err);
        if (await_sleep(250) < 0)
            return await_error(err, task_check(), "waiting for %s", source_name(source));
    }
    source_served(source, fetch->layer->original.size_bytes);
    return true;
}

/* The credentials are the target's, and only for repositories of the same registry. */
static bool await_from_repository(const struct fetch *fetch, const char *repository,
                                  struct error *err)
{
    const struct push *push = fetch->layer->push;
    const struct registry_auth auth = {push->username, push->password, push->identity_token};
    CLEANUP_REFERENCE struct reference reference = {0};
    CLEANUP_SOURCE_LIST struct source_list list = {0};
    bool ok = false;

    if (!reference_parse(repository, &reference, err) ||
        !await_registry_sources(push->engine->options.registry, &reference,
                                str_eq(reference.domain, push->reference.domain) ? &auth : NULL,
                                SOURCE_PULL, &list, err))
        return false;
    for (size_t i = 0; i < list.count && !ok && task_check() == 0; i++) {
        error_done(err);
        ok = await_from_source(fetch, list.items[i], err);
    }
    return ok;
}

/* --- All of it ---------------------------------------------------------------------------------
 */

static bool await_check(const struct fetch *fetch, struct error *err)
{
    const struct digest *expected = &fetch->layer->original.digest;
    struct work work = {.partial = fetch->partial, .offset = fetch->layer->original.size_bytes};

    if (!await_in_pool(hash_blocking, &work, err))
        return false;
    if (digest_eq(&work.digest, expected))
        return true;
    partial_discard(fetch->partial);
    error_set(err, ERROR_DATA_LOSS, "DIGEST_MISMATCH",
              "wrong bytes came for blob %s: their digest is %s", expected->text, work.digest.text);
    return error_hint(err, "nothing was kept of it; try again");
}

static bool await_from_anywhere(const struct fetch *fetch, struct error *err)
{
    const struct layer_sources *sources = &fetch->layer->sources;
    bool ok = false;

    for (size_t i = 0; i < sources->count && !ok && task_check() == 0; i++) {
        if (!is_original(fetch->layer, &sources->items[i]))
            continue;
        error_done(err);
        ok = await_from_repository(fetch, sources->items[i].repository, err);
        if (!ok)
            log_debug("a layer to be pushed was not fetched", LOG("error", err->message));
    }
    return ok && await_check(fetch, err);
}

struct partial *await_layer_fetch(struct push_layer *layer, struct error *err)
{
    CLEANUP_FREE void *buffer = xmalloc(BUFFER_BYTES);
    struct fetch fetch = {.layer = layer, .buffer = buffer};

    fetch.partial = await_partial_open(layer->push->engine->options.store, &layer->original.digest,
                                       layer->original.size_bytes, err);
    if (!fetch.partial)
        return NULL;
    if (await_from_anywhere(&fetch, err))
        return fetch.partial;
    error_prefix(err, "layer %.19s is kept unpacked, and fetching it again failed",
                 layer->diff_id.text);
    partial_close_await(fetch.partial);
    return NULL;
}
