#include "daemon/image/save.h"

#include "daemon/image/image.h"
#include "daemon/image/inspect.h"
#include "daemon/image/load.h"
#include "daemon/image/plain_manifest.h"
#include "daemon/image/save_internal.h"
#include "daemon/image/tar_header.h"
#include "daemon/registry/reference.h"
#include "daemon/store/layer_tar.h"
#include "proto/async/await.h"
#include "proto/base/map.h"

/* Configs that are kept in memory from the beginning to the end; those beyond are read again when
 * it is their turn. */
#define CONFIGS_BYTES (4 * MIB)

#define BLOBS "blobs/sha256/"

struct entry {
    enum { ENTRY_DIRECTORY, ENTRY_DOCUMENT, ENTRY_CONFIG, ENTRY_LAYER } kind;
    char name[sizeof(BLOBS) + 64];
    uint64_t size_bytes;
    char *data;                     /* of what is in memory; owned */
    const struct save_image *image; /* of a config; of a layer one that has it */
    struct digest digest;           /* of a blob */
};

struct save {
    struct store *store;
    struct save_image *images; /* sorted by ID */
    size_t image_count;
    struct map *numbers; /* of images by ID, from 1; only while they are collected */
    struct layer_lease *lease;
    struct entry *entries;
    size_t entry_count;
    size_t *layers; /* of entries: those that are layers */
    size_t layer_count;
    uint64_t bytes_done, bytes_total, configs_bytes;
    uint64_t documents_bytes; /* with configs */
    uint64_t list_bytes;      /* of manifest.json */
    bool prepared;
    /* Where reading is. */
    size_t current;  /* entry; entry_count: the end's zeros */
    uint64_t offset; /* in it, with header and padding */
    struct layer_tar *tar;
    char *config; /* that was read again */
};

/* --- Which images ------------------------------------------------------------------------------
 */

static int compare_images(const void *a, const void *b)
{
    const struct save_image *one = a, *other = b;

    return strcmp(one->id.text, other->id.text);
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static struct save_image *add_image(struct save *save, const struct image *image)
{
    uintptr_t number = (uintptr_t)map_get(save->numbers, image->id.text);
    struct save_image *added;

    if (number)
        return &save->images[number - 1];
    save->images = xrealloc(save->images, (save->image_count + 1) * sizeof(*save->images));
    added = &save->images[save->image_count++];
    *added = (struct save_image){.id = image->id,
                                 .parent = image->parent,
                                 .layer_count = image->diff_id_count};
    added->layers = xcalloc(image->diff_id_count + 1, sizeof(*added->layers));
    for (size_t i = 0; i < image->diff_id_count; i++)
        added->layers[i].diff_id = image->diff_ids[i];
    map_put(save->numbers, image->id.text, (void *)(uintptr_t)save->image_count);
    return added;
}

static void add_tag(struct save *save, const struct image *image, const char *tag)
{
    struct save_image *added = add_image(save, image);

    added->tags = xrealloc(added->tags, (added->tag_count + 2) * sizeof(*added->tags));
    added->tags[added->tag_count++] = xstrdup(tag);
    added->tags[added->tag_count] = NULL;
}

/* Each once. */
static void sort_tags(struct save_image *image)
{
    size_t kept = 0;

    if (image->tag_count == 0)
        return;
    qsort(image->tags, image->tag_count, sizeof(*image->tags), compare_texts);
    for (size_t i = 0; i < image->tag_count; i++) {
        if (kept > 0 && str_eq(image->tags[i], image->tags[kept - 1]))
            free(image->tags[i]);
        else
            image->tags[kept++] = image->tags[i];
    }
    image->tag_count = kept;
    image->tags[kept] = NULL;
}

/* A repository whose name alone is among the references. */
struct repository {
    char **tags; /* canonical; those that were there when the images were looked through */
    size_t tag_count;
    bool done, found; /* found: images of it were added */
};

static void repositories_cleanup(struct map **repositories)
{
    struct repository *repository;
    size_t iterator = 0;

    while (*repositories && map_next(*repositories, &iterator, NULL, (void **)&repository)) {
        for (size_t i = 0; i < repository->tag_count; i++)
            free(repository->tags[i]);
        free(repository->tags);
        free(repository);
    }
    map_cleanup(repositories);
}

static bool await_ask(struct map *repositories, char *const *references, size_t count,
                      struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        CLEANUP_REFERENCE struct reference reference = {0};
        CLEANUP_FREE char *name = NULL;
        int r = await_slice();

        if (r < 0)
            return await_error(err, r, "looking for images");
        if (!reference_parse(references[i], &reference, NULL) || !reference.default_tag)
            continue;
        name = reference_name(&reference);
        if (!map_get(repositories, name))
            map_put(repositories, name, xcalloc(1, sizeof(struct repository)));
    }
    return true;
}

static void collect_tags(struct map *repositories, const struct image *image)
{
    for (char **tag = image->tags; tag && *tag; tag++) {
        CLEANUP_FREE char *name = xstrndup(*tag, (size_t)(strrchr(*tag, ':') - *tag));
        struct repository *repository = map_get(repositories, name);

        if (!repository)
            continue;
        repository->tags =
            xrealloc(repository->tags, (repository->tag_count + 1) * sizeof(*repository->tags));
        repository->tags[repository->tag_count++] = xstrdup(*tag);
    }
}

/* The tags of all repositories that are asked for, in one go through the images: both may be many.
 */
static bool await_repositories(const struct save *save, char *const *references, size_t count,
                               struct map *ret, struct error *err)
{
    struct image_place place = IMAGE_PLACE_FIRST;
    const struct image *image;

    if (!await_ask(ret, references, count, err))
        return false;
    while (map_count(ret) > 0 && (image = image_next(save->store, &place))) {
        int r;

        place = (struct image_place){image->created_unix_ns, image->id};
        collect_tags(ret, image);
        r = await_slice();
        if (r < 0)
            return await_error(err, r, "looking for images");
    }
    return true;
}

/* All tags of a repository, or those of the platform; false if it has none. */
static bool add_repository(struct save *save, struct map *repositories,
                           const struct reference *reference, const char *platform)
{
    CLEANUP_FREE char *name = reference_name(reference);
    struct repository *repository = map_get(repositories, name);

    for (size_t i = 0; i < repository->tag_count && !repository->done; i++) {
        const char *tag = repository->tags[i];
        const struct image *image = image_find(save->store, tag);
        if (!image || !image_check_platform(image, tag, platform, NULL))
            continue;
        add_tag(save, image, tag);
        repository->found = true;
    }
    repository->done = true;
    return repository->found;
}

static bool add_reference(struct save *save, struct map *repositories, const char *text,
                          const char *platform, struct error *err)
{
    CLEANUP_REFERENCE struct reference reference = {0};
    CLEANUP_FREE char *canonical = NULL;
    const struct image *image;

    if (!reference_parse(text, &reference, NULL))
        reference_done(&reference);
    else if (reference.default_tag && add_repository(save, repositories, &reference, platform))
        return true;
    image = image_resolve_platform(save->store, text, platform, err);
    if (!image && reference.default_tag && error_is(err, "IMAGE_NOT_FOUND"))
        return error_set(err, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "No such image: %s", text);
    if (!image)
        return false;
    if (reference.path && !reference.default_tag && !digest_is_set(&reference.digest))
        canonical = reference_canonical(&reference);
    if (canonical && image_find(save->store, canonical) == image)
        add_tag(save, image, canonical);
    else
        add_image(save, image);
    return true;
}

static void hold_layers(struct save *save)
{
    CLEANUP_FREE struct digest *diff_ids = NULL;
    size_t count = 0;

    for (size_t i = 0; i < save->image_count; i++)
        count += save->images[i].layer_count;
    diff_ids = xcalloc(count + 1, sizeof(*diff_ids));
    count = 0;
    for (size_t i = 0; i < save->image_count; i++) {
        for (size_t j = 0; j < save->images[i].layer_count; j++)
            diff_ids[count++] = save->images[i].layers[j].diff_id;
    }
    save->lease = layer_lease_new(save->store, diff_ids, count);
}

static bool await_references(struct save *save, char *const *references, size_t count,
                             const char *platform, struct error *err)
{
    CLEANUP(repositories_cleanup) struct map *repositories = map_new();

    if (count > SAVE_MAX_REFERENCES) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "TOO_MANY_REFERENCES",
                  "%zu images to save were named, the limit is %d", count, SAVE_MAX_REFERENCES);
        return error_hint(err, "save them in several archives");
    }
    if (!await_repositories(save, references, count, repositories, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        int r = await_slice();
        if (r < 0)
            return await_error(err, r, "looking for images");
        if (!add_reference(save, repositories, references[i], platform, err))
            return false;
    }
    return save->image_count > 0 ||
           error_set(err, ERROR_INVALID_ARGUMENT, "NO_IMAGES", "no images to save were named");
}

struct save *await_save_new(struct store *store, char *const *references, size_t count,
                            const char *platform, struct error *err)
{
    struct save *save = xcalloc(1, sizeof(*save));

    save->store = store;
    save->numbers = map_new();
    if (!await_references(save, references, count, platform, err))
        return save_free(save);
    qsort(save->images, save->image_count, sizeof(*save->images), compare_images);
    for (size_t i = 0; i < save->image_count; i++) {
        struct save_image *image = &save->images[i];
        sort_tags(image);
        if (!map_get(save->numbers, image->parent.text))
            image->parent = (struct digest){0};
    }
    save->numbers = map_free(save->numbers);
    hold_layers(save);
    return save;
}

struct save *save_free(struct save *save)
{
    if (!save)
        return NULL;
    map_free(save->numbers);
    layer_tar_free(save->tar);
    layer_lease_free(save->lease);
    for (size_t i = 0; i < save->entry_count; i++)
        free(save->entries[i].data);
    for (size_t i = 0; i < save->image_count; i++) {
        strv_free(save->images[i].tags);
        free(save->images[i].layers);
        free(save->images[i].manifest);
    }
    free(save->images);
    free(save->entries);
    free(save->layers);
    free(save->config);
    free(save);
    return NULL;
}

/* The caller's. */
static char *image_name(const struct save_image *image)
{
    return image->tags ? image_familiar(image->tags[0]) : xstrndup(digest_hex(&image->id), 12);
}

char *save_subject(const struct save *save)
{
    CLEANUP_FREE char *name = image_name(&save->images[0]);

    return save->image_count == 1 ? xstrdup(name)
                                  : xasprintf("%s and %zu more", name, save->image_count - 1);
}

static bool save_failed(const struct save_image *image, struct error *err)
{
    CLEANUP_FREE char *name = image_name(image);

    return error_prefix(err, "cannot save %s", name);
}

/* --- What the archive consists of --------------------------------------------------------------
 */

static struct entry *add_entry(struct save *save, const char *name, char *data)
{
    struct entry *entry;

    save->entries = xrealloc(save->entries, (save->entry_count + 1) * sizeof(*save->entries));
    entry = &save->entries[save->entry_count++];
    *entry = (struct entry){.kind = data ? ENTRY_DOCUMENT : ENTRY_DIRECTORY, .data = data};
    CHECK(strlen(name) < sizeof(entry->name));
    strcpy(entry->name, name);
    if (data)
        entry->size_bytes = strlen(data);
    save->documents_bytes += entry->size_bytes;
    return entry;
}

static struct entry *add_blob(struct save *save, const struct digest *digest, int kind,
                              uint64_t size_bytes)
{
    CLEANUP_FREE char *name = xasprintf(BLOBS "%s", digest_hex(digest));
    struct entry *entry = add_entry(save, name, NULL);

    entry->kind = kind;
    entry->digest = *digest;
    entry->size_bytes = size_bytes;
    if (kind == ENTRY_LAYER)
        save->layer_count++;
    else
        save->documents_bytes += size_bytes;
    return entry;
}

static bool await_config(const struct save *save, const struct save_image *image,
                         struct image_data *ret, struct error *err)
{
    CLEANUP_FREE char *name = NULL;

    if (await_image_data(save->store, &image->id, ret, err))
        return true;
    if (!error_is(err, "IMAGE_NOT_FOUND"))
        return save_failed(image, err);
    name = image_name(image);
    return error_set(err, ERROR_ABORTED, "IMAGE_REMOVED",
                     "image %s was removed while it was being saved", name);
}

/* The length of a layer, and whether it can be had at all. Each is asked once. */
static bool await_layer_entry(struct save *save, struct map *known, const struct save_image *image,
                              struct layer_info *layer, struct error *err)
{
    const struct layer_info *before = map_get(known, layer->diff_id.text);
    CLEANUP(layer_tar_cleanup) struct layer_tar *tar = NULL;

    if (before) {
        layer->tar_bytes = before->tar_bytes;
        return true;
    }
    tar = await_layer_tar_open(save->store, &layer->diff_id, err);
    if (!tar)
        return save_failed(image, err);
    layer->tar_bytes = layer_tar_size(tar);
    map_put(known, layer->diff_id.text, layer);
    add_blob(save, &layer->diff_id, ENTRY_LAYER, layer->tar_bytes)->image = image;
    return true;
}

/* What is written can be loaded again. */
static bool check_limits(const struct save *save, struct error *err)
{
    uint64_t described = save->documents_bytes + save->entry_count * LOAD_MEMBER_BYTES;

    if (described <= LOAD_MAX_BYTES && save->list_bytes <= LOAD_MAX_LIST_BYTES &&
        save->layer_count <= LOAD_MAX_LAYERS)
        return true;
    error_set(
        err, ERROR_RESOURCE_EXHAUSTED, "TOO_MANY_IMAGES",
        "%zu images are too many for one archive: it could not be loaded, which takes %llu MiB "
        "of what describes images, %llu MiB of it in one list, and %d layers",
        save->image_count, LOAD_MAX_BYTES / MIB, LOAD_MAX_LIST_BYTES / MIB, LOAD_MAX_LAYERS);
    return error_hint(err, "save them in several archives");
}

static bool await_image_entries(struct save *save, struct map *known, struct save_image *image,
                                struct error *err)
{
    CLEANUP(image_data_done) struct image_data data = {0};
    struct entry *config, *manifest;

    if (!await_config(save, image, &data, err))
        return false;
    for (size_t i = 0; i < image->layer_count; i++) {
        if (!await_layer_entry(save, known, image, &image->layers[i], err))
            return false;
    }
    image->config_bytes = data.config_size;
    image->manifest =
        plain_manifest(&image->id, image->config_bytes, image->layers, image->layer_count);
    image->manifest_digest = digest_of(image->manifest, strlen(image->manifest));
    manifest = add_blob(save, &image->manifest_digest, ENTRY_DOCUMENT, strlen(image->manifest));
    manifest->data = xstrdup(image->manifest);
    config = add_blob(save, &image->id, ENTRY_CONFIG, data.config_size);
    config->image = image;
    if (save->configs_bytes + data.config_size <= CONFIGS_BYTES) {
        config->data = TAKE(data.config);
        save->configs_bytes += data.config_size;
    }
    return check_limits(save, err);
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *one = a, *other = b;

    return strcmp(one->name, other->name);
}

static uint64_t stored_bytes(const struct entry *entry)
{
    const struct tar_entry header = {entry->name, entry->size_bytes};

    return tar_header_size(&header) + entry->size_bytes + tar_padding(entry->size_bytes);
}

/* In the thread pool: there may be many tags. */
static void lay_out(void *arg)
{
    struct save *save = arg;
    char *repositories = save_repositories(save->images, save->image_count);

    add_entry(save, "blobs/", NULL);
    add_entry(save, BLOBS, NULL);
    add_entry(save, "index.json", save_index(save->images, save->image_count));
    save->list_bytes =
        add_entry(save, "manifest.json", save_manifest_json(save->images, save->image_count))
            ->size_bytes;
    add_entry(save, "oci-layout", xstrdup("{\"imageLayoutVersion\": \"1.0.0\"}"));
    if (repositories)
        add_entry(save, "repositories", repositories);
    qsort(save->entries, save->entry_count, sizeof(*save->entries), compare_entries);
    save->layers = xcalloc(save->layer_count + 1, sizeof(*save->layers));
    save->layer_count = 0;
    for (size_t i = 0; i < save->entry_count; i++) {
        if (save->entries[i].kind == ENTRY_LAYER)
            save->layers[save->layer_count++] = i;
        save->bytes_total += stored_bytes(&save->entries[i]);
    }
    save->bytes_total += TAR_END_BYTES;
}

bool await_save_prepare(struct save *save, struct error *err)
{
    CLEANUP(map_cleanup) struct map *known = map_new();
    int r;

    for (size_t i = 0; i < save->image_count; i++) {
        if (!await_image_entries(save, known, &save->images[i], err))
            return false;
    }
    r = await_work(lay_out, save, "laying out an archive");
    if (r < 0)
        return await_error(err, r, "saving images");
    save->prepared = check_limits(save, err);
    return save->prepared;
}

uint64_t save_bytes_total(const struct save *save)
{
    return save->bytes_total;
}

/* --- Reading it --------------------------------------------------------------------------------
 */

/* A part of the current entry's content, or -1. */
static ssize_t await_content(struct save *save, struct entry *entry, uint64_t offset, void *buffer,
                             size_t size, struct error *err)
{
    CLEANUP(image_data_done) struct image_data data = {0};

    if (entry->kind == ENTRY_LAYER) {
        ssize_t n;
        if (!save->tar)
            save->tar = await_layer_tar_open(save->store, &entry->digest, err);
        n = save->tar ? await_layer_tar_read(save->tar, buffer, size, err) : -1;
        if (n < 0)
            save_failed(entry->image, err);
        return n;
    }
    if (!entry->data && !save->config) {
        if (!await_config(save, entry->image, &data, err))
            return -1;
        save->config = TAKE(data.config);
    }
    memcpy(buffer, (entry->data ? entry->data : save->config) + offset, size);
    return (ssize_t)size;
}

static void next_entry(struct save *save)
{
    save->tar = layer_tar_free(save->tar);
    free(save->config);
    save->config = NULL;
    save->current++;
    save->offset = 0;
}

/* Header, content, zeros. 0: the entry has been read. */
static ssize_t await_entry(struct save *save, struct entry *entry, uint8_t *buffer, size_t size,
                           struct error *err)
{
    const struct tar_entry tar_entry = {entry->name, entry->size_bytes};
    uint64_t header_size = tar_header_size(&tar_entry), content;
    uint8_t header[TAR_HEADER_MAX];

    if (save->offset < header_size) {
        size = (size_t)MIN(size, header_size - save->offset);
        tar_header_write(&tar_entry, header);
        memcpy(buffer, header + save->offset, size);
        return (ssize_t)size;
    }
    content = save->offset - header_size;
    if (content < entry->size_bytes)
        return await_content(save, entry, content, buffer,
                             (size_t)MIN(size, entry->size_bytes - content), err);
    size = (size_t)MIN(size, stored_bytes(entry) - save->offset);
    memset(buffer, 0, size);
    return (ssize_t)size;
}

ssize_t await_save_read(struct save *save, void *buffer, size_t size, struct error *err)
{
    uint8_t *place = buffer;
    size_t left = (size_t)MIN(size, save->bytes_total - save->bytes_done), wanted = left;

    while (left > 0) {
        ssize_t n = (ssize_t)left;
        if (save->current == save->entry_count)
            memset(place, 0, left); /* the end */
        else
            n = await_entry(save, &save->entries[save->current], place, left, err);
        if (n < 0)
            return -1;
        save->offset += (uint64_t)n;
        save->bytes_done += (uint64_t)n;
        place += n;
        left -= (size_t)n;
        if (save->current < save->entry_count &&
            save->offset == stored_bytes(&save->entries[save->current]))
            next_entry(save);
    }
    return (ssize_t)wanted;
}

/* --- Looking at it -----------------------------------------------------------------------------
 */

struct save_progress save_progress(const struct save *save)
{
    if (!save->prepared)
        return (struct save_progress){0};
    return (struct save_progress){save->bytes_done, save->bytes_total, save->layer_count};
}

struct save_layer save_layer(const struct save *save, size_t index)
{
    const struct entry *entry = &save->entries[save->layers[index]];
    struct save_layer layer = {&entry->digest, 0, entry->size_bytes};

    if (save->layers[index] < save->current)
        layer.bytes_done = entry->size_bytes;
    else if (save->layers[index] == save->current)
        layer.bytes_done = MIN(save->offset, entry->size_bytes);
    return layer;
}
