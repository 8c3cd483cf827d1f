/* The scrub: everything is read again once in an interval, in the background, so that what the disk
 * loses is known before it is needed. When each layer was last verified is in its row, so that a
 * restart goes on where the last daemon was. */
#include <errno.h>
#include <stdio.h>

#include "daemon/store/internal.h"
#include "proto/async/await.h"
#include "proto/base/log.h"

/* Slow enough not to be noticed beside other work, and 40 TiB in 30 days. */
#define SCRUB_BYTES_PER_SECOND (16 * MIB)

#define SCRUB_WAIT_MAX_MS (3600 * 1000)
#define NS_PER_MS 1000000

/* Milliseconds until what was verified then is due. */
static uint64_t due_in_ms(const struct store *store, int64_t verified_unix_ns)
{
    int64_t age_ns = wall_clock_ns() - verified_unix_ns; /* negative: the clock was set back */
    uint64_t age_ms = (uint64_t)MAX(age_ns, 0) / NS_PER_MS;

    return age_ms < store->scrub_interval_ms ? store->scrub_interval_ms - age_ms : 0;
}

/* The layer that is due next. What is in quarantine is known to be damaged. */
static const struct layer *next_layer(const struct store *store)
{
    const struct layer *next = NULL;
    size_t iterator = 0;
    void *value;

    while (map_next(store->layers, &iterator, NULL, &value)) {
        const struct layer *layer = value;
        if (!layer->damage && !layer->hidden &&
            (!next || layer->verified_unix_ns < next->verified_unix_ns))
            next = layer;
    }
    return next;
}

/* False with err for what is neither good nor damaged, but could not be found out. */
static bool await_scrub_layer(struct store *store, const struct layer *layer, struct error *err)
{
    struct layer_verification verification = {.bytes_per_second = SCRUB_BYTES_PER_SECOND};
    struct digest diff_id = layer->info.diff_id;

    /* Damage has been logged. */
    return await_layer_verify(store, &diff_id, &verification, err) ||
           err->code == ERROR_DATA_LOSS || err->code == ERROR_NOT_FOUND ||
           err->code == ERROR_ABORTED;
}

/* --- Manifests and configs ---------------------------------------------------------------------
 */

bool images_verified_write(struct db *db, void *arg, struct error *err)
{
    const struct store *store = arg;
    CLEANUP_FREE char *time = xasprintf("%lld", (long long)store->images_verified_unix_ns);

    return db_run(db, "INSERT OR REPLACE INTO meta VALUES (?, ?)", err,
                  db_text(IMAGES_VERIFIED_KEY), db_text(time));
}

static bool await_scrub_images(struct store *store, struct error *err)
{
    size_t count = store->image_count;
    CLEANUP_FREE struct digest *ids = xcalloc(count + 1, sizeof(*ids));
    CLEANUP(db_unlock) struct db *locked = NULL;

    for (size_t i = 0; i < count; i++)
        ids[i] = store->images[i]->id;
    for (size_t i = 0; i < count; i++) {
        CLEANUP(image_data_done) struct image_data data = {0};
        if (!await_image_data(store, &ids[i], &data, err) && err->code != ERROR_DATA_LOSS &&
            err->code != ERROR_NOT_FOUND)
            return false;
        error_done(err);
    }
    store->images_verified_unix_ns = wall_clock_ns();
    locked = await_db_lock(store->db, err);
    return locked && await_db_transaction(locked, images_verified_write, store, err);
}

/* --- The task ----------------------------------------------------------------------------------
 */

/* Does what is due, and says when to look again. */
static bool await_scrub(struct store *store, uint64_t *ret_wait_ms, struct error *err)
{
    uint64_t wait_ms = MIN(store->scrub_interval_ms, (uint64_t)SCRUB_WAIT_MAX_MS);
    const struct layer *layer;

    *ret_wait_ms = wait_ms; /* also after an error */
    if (due_in_ms(store, store->images_verified_unix_ns) == 0 && !await_scrub_images(store, err))
        return false;
    layer = next_layer(store);
    if (!layer)
        return true;
    *ret_wait_ms = MIN(wait_ms, due_in_ms(store, layer->verified_unix_ns));
    if (*ret_wait_ms > 0)
        return true;
    *ret_wait_ms = wait_ms;
    if (!await_scrub_layer(store, layer, err))
        return false;
    *ret_wait_ms = 0;
    return true;
}

bool await_scrub_task(void *arg, struct error *err)
{
    struct store *store = arg;

    for (;;) {
        CLEANUP_ERROR struct error failure = {0};
        uint64_t wait_ms;
        int r;
        if (!await_scrub(store, &wait_ms, &failure) && failure.code != ERROR_CANCELLED)
            log_warn("the scrub could not verify something", LOG("error", failure.message));
        if ((r = await_sleep(wait_ms)) < 0)
            return await_error(err, r, "scrubbing");
    }
}
