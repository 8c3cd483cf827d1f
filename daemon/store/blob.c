/* Where layers were seen, as registries have them: compressed. */
#include "daemon/store/internal.h"
#include "proto/async/await.h"

/* Of one layer, whatever its blobs are: the newest stay. */
#define SOURCES_MAX 32

bool source_write(struct db *db, const char *diff_id, const char *repository,
                  const struct layer_blob *blob, int64_t now, struct error *err)
{
    return db_run(db, "INSERT OR REPLACE INTO layer_blobs VALUES (?, ?, ?, ?, ?, ?)", err,
                  db_text(diff_id), db_text(blob->digest.text), db_text(repository),
                  db_text(blob->media_type), db_integer((int64_t)blob->size_bytes),
                  db_integer(now)) &&
           db_run(db,
                  "DELETE FROM layer_blobs WHERE diff_id = ?1 AND seen_unix_ns < ("
                  " SELECT seen_unix_ns FROM layer_blobs WHERE diff_id = ?1"
                  " ORDER BY seen_unix_ns DESC LIMIT 1 OFFSET ?2)",
                  err, db_text(diff_id), db_integer(SOURCES_MAX - 1));
}

bool sources_write(struct db *db, const struct image *image, struct error *err)
{
    int64_t now = wall_clock_ns();

    for (size_t i = 0; image->blobs && i < image->diff_id_count; i++) {
        if (!source_write(db, image->diff_ids[i].text, image->repository, &image->blobs[i], now,
                          err))
            return false;
    }
    return true;
}

struct read_work {
    const struct digest *diff_id;
    struct layer_sources *sources;
};

static bool read_sources(struct db *db, void *arg, struct error *err)
{
    static const char sql[] = "SELECT digest, media_type, size_bytes, repository FROM layer_blobs"
                              " WHERE diff_id = ? AND repository <> ''"
                              " ORDER BY seen_unix_ns DESC";
    const struct read_work *work = arg;
    struct layer_sources *sources = work->sources;
    const struct db_value diff_id = db_text(work->diff_id->text);
    CLEANUP(db_query_done) sqlite3_stmt *row = db_query(db, sql, &diff_id, 1, err);
    int r = row ? 1 : -1;

    while (r > 0 && (r = db_step(db, row, err)) > 0) {
        struct layer_source *source;
        sources->items = xrealloc(sources->items, (sources->count + 1) * sizeof(*sources->items));
        source = &sources->items[sources->count];
        *source = (struct layer_source){.blob.size_bytes = (uint64_t)sqlite3_column_int64(row, 2)};
        if (!digest_parse((const char *)sqlite3_column_text(row, 0), &source->blob.digest, err))
            return false;
        source->blob.media_type = db_column_text(row, 1);
        source->repository = db_column_text(row, 3);
        sources->count++;
    }
    return r == 0;
}

bool await_layer_sources(struct store *store, const struct digest *diff_id,
                         struct layer_sources *ret, struct error *err)
{
    struct read_work work = {.diff_id = diff_id, .sources = ret};
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);

    *ret = (struct layer_sources){0};
    if (locked && await_db_transaction(locked, read_sources, &work, err))
        return true;
    layer_sources_done(ret);
    return false;
}

void layer_sources_done(struct layer_sources *sources)
{
    for (size_t i = 0; i < sources->count; i++) {
        free(sources->items[i].blob.media_type);
        free(sources->items[i].repository);
    }
    free(sources->items);
    *sources = (struct layer_sources){0};
}

struct find_work {
    const struct digest *blob;
    struct digest diff_id; /* unset: not known */
};

static bool find_blob(struct db *db, void *arg, struct error *err)
{
    struct find_work *work = arg;
    const struct db_value digest = db_text(work->blob->text);
    CLEANUP(db_query_done)
    sqlite3_stmt *row =
        db_query(db, "SELECT diff_id FROM layer_blobs WHERE digest = ?", &digest, 1, err);
    int r = row ? db_step(db, row, err) : -1;

    if (r <= 0)
        return r == 0;
    return digest_parse((const char *)sqlite3_column_text(row, 0), &work->diff_id, err);
}

bool await_layer_find_blob(struct store *store, const struct digest *blob, struct digest *ret,
                           struct error *err)
{
    struct find_work work = {.blob = blob};
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);
    bool ok = locked && await_db_transaction(locked, find_blob, &work, err);

    *ret = work.diff_id;
    return ok;
}
