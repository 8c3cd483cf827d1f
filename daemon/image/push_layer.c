/* One layer of a push: whether the registry has it, and sending it if not. */
#include <errno.h>
#include <unistd.h>

#include "daemon/image/pack.h"
#include "daemon/image/push_internal.h"
#include "proto/async/await.h"
#include "proto/async/loop.h"
#include "proto/base/log.h"

/* Repositories that are asked to give a layer: the ones where it was seen last. */
#define MOUNT_TRIES 3
/* Other compressions of a layer that are looked for. */
#define OTHERS_MAX 3

/* Compressed bytes in memory, of all layers that are sent. */
#define WINDOWS_BYTES (10 * MIB)
#define WINDOW_MIN_BYTES (1 * MIB)

#define SPEED_INTERVAL_MS 500
#define HASH_STEP_BYTES (256 * KIB)

/* --- Waiting for the registry ------------------------------------------------------------------
 */

static void on_wait(void *arg, const struct error *why, uint64_t until_ms)
{
    struct push_layer *layer = arg;

    layer->state = why->retry_after_ms ? PUSH_LAYER_RATE_LIMITED : PUSH_LAYER_RETRYING;
    error_copy(&layer->error, why);
    layer->until_ms = until_ms;
}

static void end_wait(struct push_layer *layer, enum push_layer_state state)
{
    layer->state = state;
    error_done(&layer->error);
    layer->until_ms = 0;
}

static void on_check(void *arg)
{
    end_wait(arg, PUSH_LAYER_CHECKING);
}

static void on_send(void *arg)
{
    end_wait(arg, PUSH_LAYER_SENDING);
}

/* --- Whether it is there -----------------------------------------------------------------------
 */

static void set_found(struct push_layer *layer, const struct digest *digest, uint64_t size_bytes,
                      const char *media_type)
{
    free(layer->found.media_type);
    layer->found = (struct descriptor){xstrdup(media_type), *digest, size_bytes};
}

/* Takes the blob over from where it was seen in the same registry. */
static bool await_mount(struct push_layer *layer, const struct digest *blob, bool *ret_found,
                        struct error *err)
{
    const struct push *push = layer->push;
    const struct upload_watcher watcher = {.waits = on_wait, .goes_on = on_check, .arg = layer};
    unsigned int tries = 0;

    for (size_t i = 0; i < layer->sources.count && tries < MOUNT_TRIES && !*ret_found; i++) {
        const struct layer_source *source = &layer->sources.items[i];
        CLEANUP_REFERENCE struct reference from = {0};
        if (!digest_eq(&source->blob.digest, blob) ||
            !reference_parse(source->repository, &from, NULL) ||
            !str_eq(from.domain, push->reference.domain) || str_eq(from.path, push->reference.path))
            continue;
        tries++;
        if (!await_blob_mount(push->engine->options.registry, push->target, blob, from.path,
                              &watcher, ret_found, err))
            return false;
        if (*ret_found) {
            free(layer->mounted_from);
            layer->mounted_from = xstrdup(from.path);
        }
    }
    return true;
}

static bool await_find_blob(struct push_layer *layer, const struct digest *blob,
                            uint64_t size_bytes, bool *ret_found, struct error *err)
{
    const struct push *push = layer->push;
    const struct upload_watcher watcher = {.waits = on_wait, .goes_on = on_check, .arg = layer};

    return await_blob_present(push->engine->options.registry, push->target, blob, size_bytes,
                              &watcher, ret_found, err) &&
           (*ret_found || await_mount(layer, blob, ret_found, err));
}

/* Another compression of it that the user did not rule out. */
static bool is_acceptable(const struct push_layer *layer, const struct layer_source *source)
{
    const struct push *push = layer->push;
    bool zstd = str_ends(source->blob.media_type, "zstd");
    CLEANUP_REFERENCE struct reference seen = {0};

    if (digest_eq(&source->blob.digest, &layer->original.digest) ||
        !reference_parse(source->repository, &seen, NULL) ||
        !str_eq(seen.domain, push->reference.domain))
        return false;
    return !push->compression_given || zstd == (push->compression == COMPRESSION_ZSTD);
}

static bool await_find_another(struct push_layer *layer, bool *ret_found, struct error *err)
{
    const struct digest *tried[OTHERS_MAX];
    size_t count = 0;

    for (size_t i = 0; i < layer->sources.count && count < OTHERS_MAX && !*ret_found; i++) {
        const struct layer_source *source = &layer->sources.items[i];
        bool again = false;
        for (size_t j = 0; j < count; j++)
            again = again || digest_eq(tried[j], &source->blob.digest);
        if (again || !is_acceptable(layer, source))
            continue;
        tried[count++] = &source->blob.digest;
        if (!await_find_blob(layer, &source->blob.digest, source->blob.size_bytes, ret_found, err))
            return false;
        if (*ret_found)
            set_found(layer, &source->blob.digest, source->blob.size_bytes,
                      source->blob.media_type);
    }
    return true;
}

/* --- How to send it ----------------------------------------------------------------------------
 */

/* Whether there is such a file, and whether it is the manifest's blob. An error that says that
 * there is none is none. */
static bool await_look(struct push_layer *layer, enum layer_part part, bool *ret_there,
                       bool *ret_original, struct error *err)
{
    CLEANUP_LAYER_FILE struct layer_file file = {.fd = -1};
    CLEANUP_ERROR struct error problem = {0};

    *ret_there = await_layer_file_open(layer->push->engine->options.store, &layer->diff_id, part,
                                       &file, &problem);
    *ret_original = *ret_there && digest_eq(&file.digest, &layer->original.digest);
    return *ret_there || error_is(&problem, "NO_LAYER_FILE") || error_move(err, &problem);
}

/* Whether its tar can be had, be it out of the kept blob. */
static bool await_look_for_tar(struct push_layer *layer, bool *ret_there, struct error *err)
{
    CLEANUP_ERROR struct error problem = {0};
    CLEANUP(layer_tar_cleanup)
    struct layer_tar *tar =
        await_layer_tar_open(layer->push->engine->options.store, &layer->diff_id, &problem);

    *ret_there = tar;
    return tar || error_is(&problem, "NO_LAYER_FILE") || error_is(&problem, "BLOB_DAMAGED") ||
           error_move(err, &problem);
}

/* Whether what was kept is what the user wants to have sent. */
static bool kept_will_do(const struct push_layer *layer)
{
    const struct push *push = layer->push;
    bool zstd = str_ends(layer->original.media_type, "zstd");
    bool gzip = str_ends(layer->original.media_type, "gzip");

    return !push->compression_given || (push->compression == COMPRESSION_ZSTD ? zstd : gzip);
}

static bool await_choose_way(struct push_layer *layer, struct error *err)
{
    bool has_file, has_tar, has_kept, kept_original, is_plain;

    if (!await_look(layer, LAYER_TAR, &has_file, &is_plain, err) ||
        !await_look_for_tar(layer, &has_tar, err) ||
        !await_look(layer, LAYER_KEPT, &has_kept, &kept_original, err))
        return false;
    if (has_kept && kept_original && (kept_will_do(layer) || !has_tar)) {
        layer->way = PUSH_KEPT;
    } else if (is_plain && !layer->push->compression_given && layer_fetchable(layer)) {
        layer->way = PUSH_PLAIN;
    } else if (has_tar) {
        layer->way = PUSH_PACK;
    } else if (layer_fetchable(layer)) {
        layer->way = PUSH_FETCH;
    } else {
        error_set(err, ERROR_FAILED_PRECONDITION, "LAYER_UNAVAILABLE",
                  "layer %.19s cannot be sent: the storage driver keeps layers unpacked, and no "
                  "registry is known that has it compressed",
                  layer->diff_id.text);
        return error_hint(err, "with \"keep-compressed\" in /etc/davit/daemon.json, or the storage "
                               "driver erofs, images that are pulled can be pushed anywhere");
    }
    return true;
}

bool await_layer_check(struct push_layer *layer, struct error *err)
{
    struct store *store = layer->push->engine->options.store;
    bool found = false;

    layer->state = PUSH_LAYER_CHECKING;
    if (!await_layer_sources(store, &layer->diff_id, &layer->sources, err) ||
        !await_find_blob(layer, &layer->original.digest, layer->original.size_bytes, &found, err))
        return false;
    if (found)
        set_found(layer, &layer->original.digest, layer->original.size_bytes,
                  layer->original.media_type);
    else if (!await_choose_way(layer, err))
        return false;
    /* It is sent as it was, or else better not at all. */
    if (!found && layer->way == PUSH_PACK && !await_find_another(layer, &found, err))
        return false;
    if (found)
        layer->way = PUSH_THERE;
    layer->state = !found                ? PUSH_LAYER_WAITING
                   : layer->mounted_from ? PUSH_LAYER_MOUNTED
                                         : PUSH_LAYER_PRESENT;
    return true;
}

/* --- What is sent ------------------------------------------------------------------------------
 */

/* The content of an upload, by one of three ways. */
struct outgoing {
    struct push_layer *layer;
    struct pack *pack;
    struct layer_file file;
    struct partial *partial;
    struct digest digest; /* of the latter two */
    uint64_t size_bytes;
};

/* How much of a layer may be in memory: few layers at a time get larger chunks. What zstd itself
 * takes, 2 MiB, comes off. */
static uint64_t window_bytes(const struct push *push)
{
    uint64_t all = push->compression == COMPRESSION_ZSTD ? WINDOWS_BYTES / 2 : WINDOWS_BYTES;

    return MAX(all / MAX(push->engine->sending, 1U), WINDOW_MIN_BYTES);
}

static int64_t await_outgoing_chunk(void *arg, uint64_t offset, uint64_t min_bytes,
                                    uint64_t max_bytes, bool *ret_last, struct error *err)
{
    const struct outgoing *outgoing = arg;
    uint64_t left;

    if (outgoing->pack) {
        if (max_bytes != UINT64_MAX)
            max_bytes = MIN(max_bytes, window_bytes(outgoing->layer->push));
        return await_pack_chunk(outgoing->pack, offset, min_bytes, max_bytes, ret_last, err);
    }
    left = outgoing->size_bytes - offset;
    *ret_last = left <= MAX(min_bytes, max_bytes);
    return (int64_t)MIN(left, MAX(min_bytes, max_bytes));
}

struct read_work {
    const struct outgoing *outgoing;
    uint64_t offset;
    void *buffer;
    size_t size;
    struct error error;
};

static void read_blocking(void *arg)
{
    struct read_work *work = arg;
    const struct outgoing *outgoing = work->outgoing;
    size_t filled = 0;

    if (outgoing->partial) {
        partial_read_blocking(outgoing->partial, work->offset, work->buffer, work->size,
                              &work->error);
        return;
    }
    while (filled < work->size) {
        ssize_t n = pread(outgoing->file.fd, (char *)work->buffer + filled, work->size - filled,
                          (off_t)(work->offset + filled));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            error_set_errno(&work->error, n < 0 ? errno : EIO, "cannot read blob %.19s",
                            outgoing->digest.text);
            return;
        }
        filled += (size_t)n;
    }
}

static bool await_read_file(const struct outgoing *outgoing, uint64_t offset, void *buffer,
                            size_t size, struct error *err)
{
    struct read_work work = {.outgoing = outgoing,
                             .offset = offset,
                             .buffer = buffer,
                             .size = size};
    int r = await_work(read_blocking, &work, "reading a blob");

    if (r < 0)
        return await_error(err, r, "reading blob %.19s", outgoing->digest.text);
    return !error_is_set(&work.error) || error_move(err, &work.error);
}

static void note_speed(struct push_layer *layer)
{
    uint64_t now_ms = loop_now_ms(), passed_ms = now_ms - layer->speed.at_ms, speed;

    if (passed_ms < SPEED_INTERVAL_MS)
        return;
    speed = (layer->bytes_sent - layer->speed.bytes) * 1000 / passed_ms;
    layer->speed.bytes_per_second =
        layer->speed.bytes_per_second ? (layer->speed.bytes_per_second * 2 + speed) / 3 : speed;
    layer->speed.at_ms = now_ms;
    layer->speed.bytes = layer->bytes_sent;
}

/* So many bytes of the blob have been sent. */
static void note_sent(const struct outgoing *outgoing, uint64_t offset)
{
    struct push_layer *layer = outgoing->layer;
    uint64_t bytes;

    if (outgoing->pack)
        bytes = pack_tar_bytes(outgoing->pack, offset);
    else
        bytes = (uint64_t)((double)layer->tar_bytes * (double)offset /
                           (double)MAX(outgoing->size_bytes, 1U));
    layer->bytes_sent = MAX(layer->bytes_sent, MIN(bytes, layer->tar_bytes));
    note_speed(layer);
}

static ssize_t await_outgoing_read(void *arg, uint64_t offset, void *buffer, size_t size,
                                   struct error *err)
{
    const struct outgoing *outgoing = arg;
    const struct push *push = outgoing->layer->push;
    struct rate_limit *common = push->engine->limit;
    ssize_t n = (ssize_t)rate_grant(push->limit, common, size);
    int r;

    if (outgoing->pack)
        n = await_pack_read(outgoing->pack, offset, buffer, (size_t)n, err);
    else if (!await_read_file(outgoing, offset, buffer, (size_t)n, err))
        n = -1;
    if (n < 0)
        return -1;
    if ((r = await_rate(push->limit, common, (size_t)n)) < 0) {
        await_error(err, r, "sending layer %.19s", outgoing->layer->diff_id.text);
        return -1;
    }
    note_sent(outgoing, offset + (uint64_t)n);
    return n;
}

static bool await_outgoing_measure(void *arg, struct digest *ret_digest, uint64_t *ret_size,
                                   struct error *err)
{
    const struct outgoing *outgoing = arg;

    if (outgoing->pack)
        return await_pack_measure(outgoing->pack, ret_digest, ret_size, err);
    *ret_digest = outgoing->digest;
    *ret_size = outgoing->size_bytes;
    return true;
}

/* --- Sending -----------------------------------------------------------------------------------
 */

static bool await_open(struct outgoing *outgoing, struct error *err)
{
    struct push_layer *layer = outgoing->layer;
    struct store *store = layer->push->engine->options.store;
    struct layer_tar *tar;

    outgoing->digest = layer->original.digest;
    outgoing->size_bytes = layer->original.size_bytes;
    switch (layer->way) {
    case PUSH_THERE:
        return true;
    case PUSH_KEPT:
    case PUSH_PLAIN:
        if (!await_layer_file_open(store, &layer->diff_id,
                                   layer->way == PUSH_KEPT ? LAYER_KEPT : LAYER_TAR,
                                   &outgoing->file, err))
            return false;
        outgoing->size_bytes = outgoing->file.size_bytes;
        return true;
    case PUSH_PACK:
        tar = await_layer_tar_open(store, &layer->diff_id, err);
        if (tar)
            outgoing->pack = pack_new(tar, layer->push->compression);
        return tar;
    case PUSH_FETCH:
        layer->state = PUSH_LAYER_FETCHING;
        outgoing->partial = await_layer_fetch(layer, err);
        return outgoing->partial != NULL;
    }
    return true;
}

static void close_await(struct outgoing *outgoing)
{
    pack_free(outgoing->pack);
    layer_file_close(&outgoing->file);
    partial_close_await(outgoing->partial);
}

static const char *sent_type(const struct push_layer *layer)
{
    return layer->way == PUSH_PACK ? layer_media_type(&layer->original, layer->push->compression)
                                   : layer->original.media_type;
}

static bool await_send_once(struct push_layer *layer, struct error *err)
{
    const struct push *push = layer->push;
    CLEANUP(close_await) struct outgoing outgoing = {.layer = layer, .file = {.fd = -1}};
    const struct upload_content content = {
        .await_chunk = await_outgoing_chunk,
        .await_read = await_outgoing_read,
        .await_measure = await_outgoing_measure,
        .arg = &outgoing,
    };
    const struct upload_watcher watcher = {.waits = on_wait, .goes_on = on_send, .arg = layer};
    struct digest digest;
    uint64_t size;

    if (!await_open(&outgoing, err) || !await_upload(push->engine->options.registry, push->target,
                                                     &content, &watcher, &digest, &size, err))
        return false;
    set_found(layer, &digest, size, sent_type(layer));
    if (outgoing.partial)
        partial_discard(outgoing.partial);
    return true;
}

/* The next push need not look for it; that this one does is no reason to fail. */
static void await_note(const struct push_layer *layer)
{
    const struct layer_blob blob = {layer->found.digest, layer->found.media_type,
                                    layer->found.size_bytes};
    CLEANUP_ERROR struct error problem = {0};

    if (!await_layer_sent(layer->push->engine->options.store, &layer->diff_id, &blob,
                          layer->push->repository, &problem))
        log_debug("where a layer was sent was not noted", LOG("error", problem.message));
}

static bool await_slot(struct push_engine *engine, struct error *err)
{
    while (engine->sending >= engine->options.max_concurrent) {
        int r = await_wake(&engine->slot_free, "waiting for others to be sent");
        if (r < 0)
            return await_error(err, r, "waiting for others to be sent");
    }
    engine->sending++;
    return true;
}

static void hash_blocking(void *arg)
{
    struct read_work *work = arg;
    CLEANUP(hasher_cleanup) struct hasher *hasher = hasher_new();
    struct digest digest;

    for (; work->offset < work->outgoing->size_bytes; work->offset += HASH_STEP_BYTES) {
        work->size = (size_t)MIN(HASH_STEP_BYTES, work->outgoing->size_bytes - work->offset);
        read_blocking(work);
        if (error_is_set(&work->error))
            return;
        hasher_update(hasher, work->buffer, work->size);
    }
    digest = hasher_finish(hasher);
    if (!digest_eq(&digest, &work->outgoing->digest))
        error_set(&work->error, ERROR_DATA_LOSS, "BLOB_DAMAGED", "it has another digest");
}

/* What was kept may have been damaged since; the registry finds that out. */
static bool await_is_damaged(struct push_layer *layer)
{
    CLEANUP(close_await) struct outgoing outgoing = {.layer = layer, .file = {.fd = -1}};
    CLEANUP_FREE void *buffer = xmalloc(HASH_STEP_BYTES);
    struct read_work work = {.outgoing = &outgoing, .buffer = buffer};
    bool damaged;

    if (!await_open(&outgoing, NULL) || await_work(hash_blocking, &work, "hashing a blob") < 0)
        return false;
    damaged = error_is_set(&work.error);
    error_done(&work.error);
    return damaged;
}

static bool await_send_anyhow(struct push_layer *layer, struct error *err)
{
    bool has_tar = false, unused;

    if (await_send_once(layer, err))
        return true;
    if ((layer->way != PUSH_KEPT && layer->way != PUSH_PLAIN) ||
        !error_is(err, "DIGEST_MISMATCH") || !await_is_damaged(layer) ||
        !await_look(layer, LAYER_TAR, &has_tar, &unused, NULL) ||
        (!has_tar && !layer_fetchable(layer)))
        return false;
    log_warn("a blob that was kept is damaged", LOG("layer", (const char *)layer->diff_id.text));
    error_done(err);
    layer->way = has_tar ? PUSH_PACK : PUSH_FETCH;
    return await_send_once(layer, err);
}

bool await_layer_send(struct push_layer *layer, struct error *err)
{
    struct push_engine *engine = layer->push->engine;
    bool ok;

    if (layer->way == PUSH_THERE)
        return true;
    if (!await_slot(engine, err))
        return false;
    layer->speed.at_ms = loop_now_ms();
    ok = await_send_anyhow(layer, err);
    engine->sending--;
    wake_all(&engine->slot_free);
    if (!ok)
        return false;
    layer->bytes_sent = layer->tar_bytes;
    layer->state = PUSH_LAYER_DONE;
    await_note(layer);
    return true;
}
