/* What images' configs say that lists show and filters ask for: kept beside the images' rows, so
 * that nobody has to read a config for it. */
#include "daemon/store/internal.h"
#include "proto/base/json.h"

#define CONFIG_MAX_BYTES (4 * MIB)

void image_details_done(struct image_details *details)
{
    free(details->labels);
    free(details->variant);
    *details = (struct image_details){0};
}

/* Labels are in memory and in each list: what is longer only shows where the config does. */
#define LABELS_MAX_BYTES (64 * KIB)

/* Texts only: others are none of Docker's. */
static char *labels_text(const json_t *labels)
{
    CLEANUP_JSON json_t *texts = json_object();
    CLEANUP_FREE char *text = NULL;
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)labels, key, value) {
        if (json_is_string(value))
            json_object_set(texts, key, value);
    }
    if (json_object_size(texts) > 0)
        text = json_dumps(texts, JSON_COMPACT | JSON_SORT_KEYS);
    return text && strlen(text) <= LABELS_MAX_BYTES ? TAKE(text) : NULL;
}

/* A config that cannot be read has none: whoever needs it will say so. */
struct image_details image_details_of(const void *config, size_t size)
{
    CLEANUP_JSON json_t *json = json_parse(config, size, CONFIG_MAX_BYTES, "config", NULL);
    const char *variant = json_str(json, "variant");

    return (struct image_details){
        .labels = labels_text(json_object_get(json_object_get(json, "config"), "Labels")),
        .variant = str_empty(variant) ? NULL : xstrdup(variant),
    };
}

bool image_details_write(struct db *db, const struct digest *id,
                         const struct image_details *details, struct error *err)
{
    return db_run(db,
                  "INSERT OR IGNORE INTO image_details (image_id, variant, labels)"
                  " VALUES (?, ?, ?)",
                  err, db_text(id->text), db_text(details->variant), db_text(details->labels));
}

bool image_parent_write(struct db *db, const struct digest *id, const struct digest *parent,
                        struct error *err)
{
    return db_run(db, "UPDATE image_details SET parent_id = ? WHERE image_id = ?", err,
                  db_text(parent->text), db_text(id->text));
}

bool image_tagged_write(struct db *db, const struct digest *id, int64_t unix_ns, struct error *err)
{
    return db_run(db, "UPDATE image_details SET tagged_unix_ns = ? WHERE image_id = ?", err,
                  db_integer(unix_ns), db_text(id->text));
}

/* --- Loading -----------------------------------------------------------------------------------
 */

static bool read_details(struct db *db, struct store *store, struct map *known, struct error *err)
{
    CLEANUP(db_query_done)
    sqlite3_stmt *row = db_query(db,
                                 "SELECT image_id, parent_id, tagged_unix_ns, variant, labels"
                                 " FROM image_details",
                                 NULL, 0, err);
    int r = row ? 1 : -1;

    while (r > 0 && (r = db_step(db, row, err)) > 0) {
        const char *id = (const char *)sqlite3_column_text(row, 0);
        const char *parent_id = (const char *)sqlite3_column_text(row, 1);
        struct image *image = map_get(store->images_by_id, id);
        struct digest parent;

        if (!image)
            continue; /* foreign keys see to it that there is one */
        image->tagged_unix_ns = sqlite3_column_int64(row, 2);
        image->variant = db_column_text(row, 3);
        image->labels = db_column_text(row, 4);
        if (parent_id && digest_parse(parent_id, &parent, NULL) &&
            map_get(store->images_by_id, parent_id))
            image_set_parent(store, image, &parent);
        map_put(known, id, image);
    }
    return r == 0;
}

static bool add_details(struct db *db, struct image *image, struct error *err)
{
    const struct db_value id = db_text(image->id.text);
    CLEANUP(db_query_done)
    sqlite3_stmt *row = db_query(db, "SELECT config FROM images WHERE id = ?", &id, 1, err);
    CLEANUP(image_details_done) struct image_details details = {0};

    if (!row || db_step(db, row, err) != 1)
        return false;
    details = image_details_of(sqlite3_column_blob(row, 0), (size_t)sqlite3_column_bytes(row, 0));
    if (!image_details_write(db, &image->id, &details, err))
        return false;
    image->labels = TAKE(details.labels);
    image->variant = TAKE(details.variant);
    return true;
}

bool image_details_load(struct db *db, struct store *store, struct error *err)
{
    CLEANUP(map_cleanup) struct map *known = map_new();

    if (!read_details(db, store, known, err))
        return false;
    /* Images from before there were details: once. */
    for (size_t i = 0; map_count(known) < store->image_count && i < store->image_count; i++) {
        if (!map_get(known, store->images[i]->id.text) && !add_details(db, store->images[i], err))
            return false;
    }
    return true;
}
