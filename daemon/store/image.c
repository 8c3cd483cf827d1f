#include "daemon/store/internal.h"
#include "proto/async/await.h"
#include "proto/base/log.h"

/* --- In memory ---------------------------------------------------------------------------------
 */

struct image *image_new(void)
{
    return xcalloc(1, sizeof(struct image));
}

struct image *image_free(struct image *image)
{
    if (!image)
        return NULL;
    free(image->os);
    free(image->architecture);
    free(image->variant);
    free(image->labels);
    free(image->diff_ids);
    strv_free(image->tags);
    strv_free(image->repo_digests);
    free(image);
    return NULL;
}

unsigned int image_uses(const struct image *image, const struct digest *diff_id)
{
    unsigned int uses = 0;

    for (size_t i = 0; i < image->diff_id_count; i++)
        uses += digest_eq(&image->diff_ids[i], diff_id);
    return uses;
}

/* Newest first; the id decides between equals, so that lists do not jump. */
static bool comes_before(const struct image *a, const struct image *b)
{
    if (a->created_unix_ns != b->created_unix_ns)
        return a->created_unix_ns > b->created_unix_ns;
    return strcmp(a->id.text, b->id.text) < 0;
}

static void count_uses(struct store *store, const struct image *image, int by)
{
    for (size_t i = 0; i < image->diff_id_count; i++) {
        struct layer *layer = map_get(store->layers, image->diff_ids[i].text);
        if (layer)
            layer->image_uses += (unsigned int)by;
    }
}

struct image *image_at(const struct store *store, const struct digest *id)
{
    return digest_is_set(id) ? map_get(store->images_by_id, id->text) : NULL;
}

/* Where the image is, or would be. */
static size_t place_of(const struct store *store, const struct image *image)
{
    size_t low = 0, high = store->image_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (comes_before(store->images[middle], image))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void reserve_image(struct store *store)
{
    /* Doubled when it is full. */
    if ((store->image_count & (store->image_count - 1)) == 0)
        store->images =
            xrealloc(store->images, MAX(store->image_count * 2, 1) * sizeof(struct image *));
}

static void count_in(struct store *store, struct image *image)
{
    map_put(store->images_by_id, image->id.text, image);
    store->image_count++;
    count_uses(store, image, 1);
}

void image_append(struct store *store, struct image *image)
{
    reserve_image(store);
    store->images[store->image_count] = image;
    count_in(store, image);
}

static int compare_images(const void *a, const void *b)
{
    const struct image *const *first = a, *const *second = b;

    return comes_before(*first, *second) ? -1 : 1;
}

void images_sort(struct store *store)
{
    if (store->image_count > 1)
        qsort(store->images, store->image_count, sizeof(struct image *), compare_images);
}

void image_add(struct store *store, struct image *image)
{
    size_t place = place_of(store, image);

    reserve_image(store);
    memmove(store->images + place + 1, store->images + place,
            (store->image_count - place) * sizeof(struct image *));
    store->images[place] = image;
    count_in(store, image);
}

void image_set_parent(struct store *store, struct image *image, const struct digest *parent)
{
    struct image *before = image_at(store, &image->parent), *after = image_at(store, parent);

    if (before)
        before->children--;
    image->parent = *parent;
    if (after)
        after->children++;
}

static void name_drop(char **names, size_t *count, const char *name)
{
    for (size_t i = 0; i < *count; i++) {
        if (!str_eq(names[i], name))
            continue;
        free(names[i]);
        memmove(names + i, names + i + 1, (*count - i) * sizeof(char *));
        (*count)--;
        return;
    }
}

/* Doubled when it is full, for an image may have 10,000 names. */
static void name_append(char ***names, size_t *count, const char *name)
{
    if ((*count & (*count + 1)) == 0)
        *names = xrealloc(*names, 2 * (*count + 1) * sizeof(char *));
    (*names)[(*count)++] = xstrdup(name);
    (*names)[*count] = NULL;
}

bool image_check_name_count(size_t count, struct error *err)
{
    if (count <= NAMES_MAX)
        return true;
    error_set(err, ERROR_INVALID_ARGUMENT, "TOO_MANY_NAMES",
              "it would have more than %d tags and digests", NAMES_MAX);
    return error_hint(err, "remove names that nobody needs with: davit rmi NAME");
}

static void drop_from_lists(struct image *image, const char *name)
{
    name_drop(image->tags, &image->tag_count, name);
    name_drop(image->repo_digests, &image->repo_digest_count, name);
}

void image_drop_name(struct store *store, const char *name)
{
    struct image *image = map_remove(store->names, name);

    if (image)
        drop_from_lists(image, name);
}

struct image *image_append_name(struct store *store, struct image *image, const char *name,
                                bool is_tag)
{
    struct image *before = map_get(store->names, name);

    if (before == image)
        return NULL;
    map_put(store->names, name, image);
    if (is_tag)
        name_append(&image->tags, &image->tag_count, name);
    else
        name_append(&image->repo_digests, &image->repo_digest_count, name);
    return before;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void sort_names(char **names, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (strcmp(names[i - 1], names[i]) > 0) {
            qsort(names, count, sizeof(char *), compare_names);
            return;
        }
    }
}

void image_sort_names(struct image *image)
{
    sort_names(image->tags, image->tag_count);
    sort_names(image->repo_digests, image->repo_digest_count);
}

/* Of a sorted list, what another image has now, and what came back and is there twice. */
static void drop_lost(const struct store *store, const struct image *image, char **names,
                      size_t *count)
{
    size_t kept = 0;

    for (size_t i = 0; i < *count; i++) {
        if (map_get(store->names, names[i]) == image &&
            (kept == 0 || !str_eq(names[kept - 1], names[i])))
            names[kept++] = names[i];
        else
            free(names[i]);
    }
    if (names)
        names[kept] = NULL;
    *count = kept;
}

void image_settle_names(const struct store *store, struct image *image)
{
    image_sort_names(image);
    drop_lost(store, image, image->tags, &image->tag_count);
    drop_lost(store, image, image->repo_digests, &image->repo_digest_count);
}

void image_add_name(struct store *store, struct image *image, const char *name, bool is_tag)
{
    struct image *before = image_append_name(store, image, name, is_tag);

    if (before)
        drop_from_lists(before, name);
    image_sort_names(image);
}

void image_drop(struct store *store, struct image *image)
{
    const struct digest none = {0};
    size_t place = place_of(store, image);

    for (char **name = image->tags; name && *name; name++)
        map_remove(store->names, *name);
    for (char **name = image->repo_digests; name && *name; name++)
        map_remove(store->names, *name);
    image_set_parent(store, image, &none);
    count_uses(store, image, -1);
    map_remove(store->images_by_id, image->id.text);
    store->image_count--;
    memmove(store->images + place, store->images + place + 1,
            (store->image_count - place) * sizeof(struct image *));
    image_free(image);
}

struct image *image_get(const struct store *store, const struct digest *id)
{
    struct image *image = image_at(store, id);

    return image && !image->hidden ? image : NULL;
}

/* --- Lists and look-ups ------------------------------------------------------------------------
 */

const struct image **image_list(const struct store *store, size_t *ret_count)
{
    const struct image **list = xcalloc(store->image_count + 1, sizeof(struct image *));
    size_t count = 0;

    for (size_t i = 0; i < store->image_count; i++) {
        if (!store->images[i]->hidden)
            list[count++] = store->images[i];
    }
    if (ret_count)
        *ret_count = count;
    return list;
}

const struct image *image_find(const struct store *store, const char *canonical)
{
    const struct image *image = map_get(store->names, canonical);

    return image && !image->hidden ? image : NULL;
}

const struct image *image_next(const struct store *store, const struct image_place *place)
{
    const struct image after = {.created_unix_ns = place->created_unix_ns, .id = place->id};

    for (size_t i = place_of(store, &after); i < store->image_count; i++) {
        if (!store->images[i]->hidden && !digest_eq(&store->images[i]->id, &after.id))
            return store->images[i];
    }
    return NULL;
}

bool image_is_dangling(const struct image *image)
{
    return image->tag_count == 0 && image->children == 0;
}

bool image_is_intermediate(const struct image *image)
{
    return image->tag_count == 0 && image->repo_digest_count == 0 && image->children > 0;
}

const struct image **image_candidates(const struct store *store, const char *prefix, size_t max,
                                      size_t *ret_count)
{
    const char *hex = str_starts(prefix, "sha256:") ? prefix + strlen("sha256:") : prefix;
    const struct image **list = xcalloc(max + 1, sizeof(struct image *));

    *ret_count = 0;
    for (size_t i = 0; i < store->image_count && *hex; i++) {
        const struct image *image = store->images[i];
        if (image->hidden || !str_starts(digest_hex(&image->id), hex))
            continue;
        if (*ret_count < max)
            list[*ret_count] = image;
        (*ret_count)++;
    }
    return list;
}

const struct image *image_find_id(const struct store *store, const char *prefix,
                                  bool *ret_ambiguous)
{
    CLEANUP_FREE const struct image **list = NULL;
    struct digest id;
    size_t count;

    if (ret_ambiguous)
        *ret_ambiguous = false;
    if (digest_parse(prefix, &id, NULL))
        return image_get(store, &id);
    list = image_candidates(store, prefix, 1, &count);
    if (ret_ambiguous)
        *ret_ambiguous = count > 1;
    return count == 1 ? list[0] : NULL;
}

/* --- Manifest and config -----------------------------------------------------------------------
 */

struct read_work {
    const struct digest *id;
    struct image_data data;
    bool found, manifest_damaged, config_damaged;
};

static void copy_blob(sqlite3_stmt *row, int column, char **ret_data, size_t *ret_size)
{
    const void *blob = sqlite3_column_blob(row, column);

    *ret_size = (size_t)sqlite3_column_bytes(row, column);
    *ret_data = xmalloc(*ret_size + 1);
    if (*ret_size)
        memcpy(*ret_data, blob, *ret_size);
    (*ret_data)[*ret_size] = '\0';
}

static bool read_data(struct db *db, void *arg, struct error *err)
{
    struct read_work *work = arg;
    const struct db_value id = db_text(work->id->text);
    CLEANUP(db_query_done)
    sqlite3_stmt *row =
        db_query(db, "SELECT manifest_digest, manifest, config FROM images WHERE id = ?", &id, 1,
                 err);
    int r = row ? db_step(db, row, err) : -1;
    struct image_data *data = &work->data;
    struct digest config;

    if (r < 0)
        return false;
    work->found = r == 1;
    if (!work->found)
        return true;
    copy_blob(row, 1, &data->manifest, &data->manifest_size);
    copy_blob(row, 2, &data->config, &data->config_size);
    data->manifest_digest = digest_of(data->manifest, data->manifest_size);
    config = digest_of(data->config, data->config_size);
    work->manifest_damaged =
        !str_eq(data->manifest_digest.text, (const char *)sqlite3_column_text(row, 0));
    work->config_damaged = !digest_eq(&config, work->id);
    return true;
}

void image_data_done(struct image_data *data)
{
    free(data->manifest);
    free(data->config);
    *data = (struct image_data){0};
}

static bool image_damaged(struct store *store, const struct digest *id, const char *what,
                          struct error *err)
{
    struct image *image = image_get(store, id);

    if (image && !image->damaged)
        log_error("an image is damaged", LOG("image", (const char *)id->text),
                  LOG("changed", what));
    if (image)
        image->damaged = true;
    error_set(err, ERROR_DATA_LOSS, "IMAGE_DAMAGED", "image %.19s is damaged: its %s has changed",
              id->text, what);
    return error_hint(err, "fetch it again with: davit system verify --repair");
}

bool await_image_data(struct store *store, const struct digest *id, struct image_data *ret,
                      struct error *err)
{
    struct read_work work = {.id = id};
    CLEANUP(db_unlock) struct db *locked = await_db_lock(store->db, err);

    if (!locked)
        return false;
    if (!await_db_transaction(locked, read_data, &work, err)) {
        image_data_done(&work.data);
        return error_prefix(err, "cannot read image %.19s", id->text);
    }
    if (!work.found)
        return error_set(err, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "there is no image %.19s",
                         id->text);
    if (!work.manifest_damaged && !work.config_damaged) {
        *ret = work.data;
        return true;
    }
    image_data_done(&work.data);
    return image_damaged(store, id, work.config_damaged ? "config" : "manifest", err);
}
