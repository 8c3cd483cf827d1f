/* What is known once a layer was sent to a registry. */
#include "daemon/store/internal.h"

struct sent_work {
    const struct digest *diff_id;
    const struct layer_blob *blob;
    const char *repository;
};

static bool write_sent(struct db *db, void *arg, struct error *err)
{
    const struct sent_work *work = arg;

    return source_write(db, work->diff_id->text, work->repository, work->blob, wall_clock_ns(),
                        err);
}

bool await_layer_sent(struct store *store, const struct digest *diff_id,
                      const struct layer_blob *blob, const char *repository, struct error *err)
{
    struct sent_work work = {diff_id, blob, repository};
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);

    if (!locked)
        return false;
    if (!layer_get(store, diff_id))
        return error_set(err, ERROR_NOT_FOUND, "LAYER_NOT_FOUND", "layer %.19s is not in the store",
                         diff_id->text);
    return await_db_transaction(locked, write_sent, &work, err);
}
