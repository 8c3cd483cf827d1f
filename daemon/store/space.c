/* How full the file system of the data root may get. */
#include <errno.h>
#include <sys/statvfs.h>

#include "daemon/store/internal.h"
#include "proto/async/await.h"
#include "proto/base/size.h"

/* The free space is looked at each time that the layers have grown by so much. What comes until the
 * next look must fit, too, and a tar of empty files grows eightfold when it is unpacked. */
#define LOOK_BYTES (1 * MIB)
#define LOOK_MARGIN_BYTES (8 * LOOK_BYTES)

/* What layers may grow by until somebody looks again whether to remove what is kept. */
#define HEADROOM_BYTES (1 * GIB)
#define HEADROOM_DISK_PERCENT 5

/* --- Looking -----------------------------------------------------------------------------------
 */

static bool look_blocking(const struct store *store, struct space *ret, struct error *err)
{
    struct statvfs fs;

    if (fstatvfs(store->layers_fd, &fs) < 0)
        return error_set_errno(err, errno, "cannot look at the free space of %s", store->data_root);
    ret->disk_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
    ret->free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    ret->reserve_bytes = ret->disk_bytes / 100 * store->reserve_percent;
    ret->reserve_bytes = MIN(ret->reserve_bytes, store->reserve_bytes);
    ret->inodes_spent = fs.f_files > 0 && fs.f_favail == 0; /* some count none at all */
    return true;
}

struct look_work {
    const struct store *store;
    struct space space;
    bool ok;
    struct error err;
};

static void look_in_pool(void *arg)
{
    struct look_work *work = arg;

    work->ok = look_blocking(work->store, &work->space, &work->err);
}

static bool fits(const struct space *space, uint64_t needed_bytes)
{
    return space->free_bytes >= space->reserve_bytes &&
           space->free_bytes - space->reserve_bytes >= needed_bytes;
}

static bool await_look(const struct store *store, struct space *ret, struct error *err)
{
    struct look_work work = {.store = store};
    int r = await_work(look_in_pool, &work, "looking at the free space");

    *ret = work.space;
    if (r < 0)
        return await_error(err, r, "looking at the free space of %s", store->data_root);
    return work.ok || error_move(err, &work.err);
}

bool await_space(struct store *store, uint64_t needed_bytes, struct space *ret, struct error *err)
{
    bool more_to_come = true;

    while (more_to_come) {
        bool nothing_goes = list_empty(&store->trash.names);
        int r = 0;
        if (!await_look(store, ret, err))
            return false;
        if (!ret->inodes_spent && fits(ret, needed_bytes))
            return true;
        if (!list_empty(&store->trash.names))
            r = await_wake(&store->trash.removed, "waiting for space that is being freed");
        if (r < 0)
            return await_error(err, r, "looking at the free space of %s", store->data_root);
        if (nothing_goes && !await_kept_drop_oldest(store, &more_to_come, err))
            return false;
    }
    return true;
}

bool await_headroom(struct store *store, struct error *err)
{
    bool more_to_come = true;

    while (more_to_come) {
        struct space space;
        if (!await_look(store, &space, err))
            return false;
        if (fits(&space, MIN(HEADROOM_BYTES, space.disk_bytes / 100 * HEADROOM_DISK_PERCENT)))
            return true;
        if (!await_kept_drop_oldest(store, &more_to_come, err))
            return false;
    }
    return true;
}

/* --- What does not fit -------------------------------------------------------------------------
 */

void space_hint(const struct store *store, const struct space *space, struct error *err)
{
    if (space->inodes_spent)
        error_hint(err,
                   "the file system of %s has no inodes left: remove files there, for example "
                   "images with 'davit rmi', or use one that was made with more",
                   store->data_root);
    else
        error_hint(err,
                   "free some space in %s, for example with 'davit rmi', or use a larger disk%s",
                   store->data_root, space->reserve_bytes ? ", or lower --reserve-space" : "");
}

static bool no_inodes(const struct store *store, const struct space *space, struct error *err)
{
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "NO_SPACE",
              "no file can be made in %s: its file system has no inodes left", store->data_root);
    space_hint(store, space, err);
    return false;
}

bool space_check(const struct store *store, const struct space *space, uint64_t needed_bytes,
                 uint64_t promised_bytes, struct error *err)
{
    CLEANUP_STRBUF struct strbuf less = {0};

    if (space->inodes_spent)
        return no_inodes(store, space, err);
    if (fits(space, needed_bytes + promised_bytes))
        return true;
    if (space->reserve_bytes)
        strbuf_addf(&less, ", %s of it to stay free (reserve-space)",
                    size_text(space->reserve_bytes).text);
    if (promised_bytes)
        strbuf_addf(&less, ", %s of it for what other pulls fetch", size_text(promised_bytes).text);
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "NO_SPACE",
              "at least %s more is needed in %s, and %s is free%s", size_text(needed_bytes).text,
              store->data_root, size_text(space->free_bytes).text, strbuf_text(&less));
    space_hint(store, space, err);
    return false;
}

bool space_grow_blocking(struct store *store, uint64_t bytes, struct error *err)
{
    uint64_t before = atomic_fetch_add(&store->grown_bytes, bytes);
    struct space space;

    if (before > 0 && before / LOOK_BYTES == (before + bytes) / LOOK_BYTES)
        return true;
    if (!look_blocking(store, &space, err))
        return false;
    space.inodes_spent = false; /* none may be needed: who makes a file will see */
    return space.reserve_bytes == 0 || space_check(store, &space, LOOK_MARGIN_BYTES, 0, err);
}
