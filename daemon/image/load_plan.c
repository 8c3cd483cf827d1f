/* What the documents of an archive say. Docker: image/spec (manifest.json); OCI image-spec:
 * image-layout.md, image-index.md. */
#include "daemon/image/image.h"
#include "daemon/image/load_internal.h"
#include "daemon/registry/reference.h"
#include "proto/base/json.h"

#define INDEX_DEPTH_MAX 2
#define TAGS_MAX 10000 /* of one image, as in the store */
#define NAME_ANNOTATION "io.containerd.image.name"
#define REF_ANNOTATION "org.opencontainers.image.ref.name"

static void image_done(struct planned_image *image)
{
    image_config_free(image->config);
    strv_free(image->names);
    free(image->layers);
}

void load_plan_done(struct load_plan *plan)
{
    size_t iterator = 0;
    void *value;

    for (size_t i = 0; i < plan->count; i++)
        image_done(&plan->images[i]);
    free(plan->images);
    while (plan->manifests && map_next(plan->manifests, &iterator, NULL, &value))
        manifest_free(value);
    map_free(plan->manifests);
    *plan = (struct load_plan){0};
}

struct planner {
    struct load_plan *plan;
    const struct members *members;
    const struct platform *platform;
    struct map *by_id; /* to one more than an index of the plan's images */
    bool optional;     /* manifests that are none are left out, */
    struct map *none;  /* and which that was */
};

static bool invalid(struct error *err, const char *path, const char *why)
{
    return error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE", "member \"%.200s\": %s", path, why);
}

/* --- Members -----------------------------------------------------------------------------------
 */

static struct member *find_document(const struct planner *planner, const char *path,
                                    struct error *err)
{
    struct member *member = members_find(planner->members, path, err);

    if (!member)
        return NULL;
    if (member->kind != MEMBER_DOCUMENT) {
        error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                  "member \"%.200s\": it is no JSON document of at most %llu MiB", member->path,
                  document_max_bytes(member->path) / MIB);
        return NULL;
    }
    if (!digest_is_set(&member->digest))
        member->digest = digest_of(member->data, member->size_bytes);
    if (digest_is_set(&member->named) && !digest_eq(&member->named, &member->digest)) {
        error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                  "member \"%s\": it is not what its name says, its digest is %s", member->path,
                  member->digest.text);
        return NULL;
    }
    return member;
}

static json_t *parse_document(const struct member *member, struct error *err)
{
    json_t *json = json_parse(member->data, member->size_bytes, DOCUMENT_MAX_BYTES, "it", err);

    if (!json)
        error_prefix(err, "member \"%s\"", member->path);
    return json;
}

/* The layer at a path, if it is this one. */
static struct member *find_layer(const struct planner *planner, const char *path,
                                 const struct digest *diff_id, struct error *err)
{
    struct member *member = members_find(planner->members, path, err);

    if (!member)
        return NULL;
    if (member->kind != MEMBER_LAYER) {
        invalid(err, member->path, "it is no layer");
        return NULL;
    }
    if (error_is_set(&member->failure)) {
        error_copy(err, &member->failure);
        error_prefix(err, "member \"%s\"", member->path);
        return NULL;
    }
    if (digest_eq(&member->layer.diff_id, diff_id))
        return member;
    error_set(err, ERROR_DATA_LOSS, "DIFF_ID_MISMATCH",
              "member \"%s\": its uncompressed bytes are %s, the image's configuration says %s",
              member->path, member->layer.diff_id.text, diff_id->text);
    return NULL;
}

/* --- Images ------------------------------------------------------------------------------------
 */

/* The image of a configuration, a new one or one that is there. */
static struct planned_image *add_image(struct planner *planner, const struct member *config_member,
                                       struct error *err)
{
    const struct member *member = config_member;
    struct load_plan *plan = planner->plan;
    size_t there = (size_t)map_get(planner->by_id, member->digest.text);
    struct planned_image *image;
    struct image_config *config;

    if (there)
        return &plan->images[there - 1];
    config = image_config_parse(member->data, member->size_bytes, err);
    if (!config) {
        error_prefix(err, "member \"%s\"", member->path);
        return NULL;
    }
    plan->images = xrealloc(plan->images, (plan->count + 1) * sizeof(*plan->images));
    image = &plan->images[plan->count++];
    *image = (struct planned_image){.id = member->digest,
                                    .config_member = member,
                                    .config = config,
                                    .layers = xcalloc(config->diff_id_count + 1, sizeof(void *))};
    map_put(planner->by_id, image->id.text, (void *)plan->count);
    if (str_eq(config->os, "linux"))
        return image;
    error_set(err, ERROR_FAILED_PRECONDITION, "UNSUPPORTED_PLATFORM",
              "member \"%s\": the image is for %.40s, and this is linux", member->path, config->os);
    return NULL;
}

static bool check_layer_count(const struct planned_image *image, size_t count, const char *path,
                              struct error *err)
{
    return count == image->config->diff_id_count ||
           error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                     "member \"%s\": it has %zu layers for image %.19s, whose configuration has "
                     "%zu",
                     path, count, image->id.text, image->config->diff_id_count);
}

static bool add_name(struct planned_image *image, const char *text, const char *path,
                     struct error *err)
{
    CLEANUP_REFERENCE struct reference reference = {0};

    if (!reference_parse(text, &reference, err) || !image_check_tag(&reference, err))
        return error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                         "member \"%s\": invalid tag \"%.300s\"", path, text);
    if (image->name_count >= TAGS_MAX)
        return error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                         "member \"%s\": image %.19s has more than %d tags", path, image->id.text,
                         TAGS_MAX);
    image->names = xrealloc(image->names, (image->name_count + 2) * sizeof(*image->names));
    image->names[image->name_count++] = reference_canonical(&reference);
    image->names[image->name_count] = NULL;
    return true;
}

/* --- OCI image layout --------------------------------------------------------------------------
 */

/* A path can be a link to what has another digest. */
static bool check_blob(const struct member *member, const struct digest *digest, uint64_t size,
                       struct error *err)
{
    if (!digest_eq(&member->digest, digest))
        return error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                         "member \"%s\": its digest is %s, what names it says %s", member->path,
                         member->digest.text, digest->text);
    return member->size_bytes == size ||
           error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                     "member \"%s\": it has %llu bytes, what names it says %llu", member->path,
                     (unsigned long long)member->size_bytes, (unsigned long long)size);
}

/* The document that a descriptor names. */
static struct member *find_blob(const struct planner *planner, const struct descriptor *descriptor,
                                struct error *err)
{
    CLEANUP_FREE char *path = xasprintf("blobs/sha256/%s", digest_hex(&descriptor->digest));
    struct member *member = find_document(planner, path, err);

    return member && check_blob(member, &descriptor->digest, descriptor->size_bytes, err) ? member
                                                                                          : NULL;
}

static const struct manifest *parse_manifest(struct planner *planner, const struct member *member,
                                             const char *media_type, struct error *err)
{
    struct map *manifests = planner->plan->manifests;
    struct manifest *manifest = map_get(manifests, member->digest.text);

    if (manifest || map_get(planner->none, member->digest.text))
        return manifest;
    manifest = manifest_parse(member->data, member->size_bytes, media_type, err);
    if (manifest)
        map_put(manifests, member->digest.text, manifest);
    else
        error_prefix(err, "member \"%s\"", member->path);
    if (!manifest && planner->optional)
        map_put(planner->none, member->digest.text, planner);
    return manifest;
}

/* The image manifest that a descriptor leads to, through indexes. */
static const struct manifest *find_manifest(struct planner *planner,
                                            const struct descriptor *descriptor, unsigned int depth,
                                            const struct member **ret_member, struct error *err)
{
    const struct member *member = find_blob(planner, descriptor, err);
    const struct manifest *manifest =
        member ? parse_manifest(planner, member, descriptor->media_type, err) : NULL;
    const struct index_entry *entry = NULL;

    *ret_member = member;
    if (!manifest || manifest->kind == MANIFEST_IMAGE)
        return manifest;
    if (depth < INDEX_DEPTH_MAX)
        entry = manifest->entry_count == 1 ? manifest->entries
                                           : manifest_choose(manifest, planner->platform, err);
    else
        error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE", "indexes lie in each other too deep");
    if (entry)
        return find_manifest(planner, &entry->descriptor, depth + 1, ret_member, err);
    error_prefix(err, "member \"%s\"", member->path);
    return NULL;
}

/* The layers of an image by its manifest, in this archive. */
static bool find_layers(const struct planner *planner, struct planned_image *image,
                        const struct manifest *manifest, struct error *err)
{
    for (size_t i = 0; i < manifest->layer_count; i++) {
        const struct descriptor *layer = &manifest->layers[i];
        CLEANUP_FREE char *path = xasprintf("blobs/sha256/%s", digest_hex(&layer->digest));
        image->layers[i] = find_layer(planner, path, &image->config->diff_ids[i], err);
        if (!image->layers[i] ||
            !check_blob(image->layers[i], &layer->digest, layer->size_bytes, err))
            return false;
    }
    return true;
}

/* An entry of index.json. */
struct layout_entry {
    struct descriptor descriptor; /* its type is borrowed; NULL: none */
    const char *name;             /* NULL: none; borrowed */
    bool has_platform;
    int rank;     /* how well it runs here; negative: not at all */
    bool dropped; /* another of its name runs better */
};

struct layout {
    json_t *json;
    struct layout_entry *entries;
    size_t count;
};

static void layout_done(struct layout *layout)
{
    json_decref(layout->json);
    free(layout->entries);
}

/* A tag alone (OCI's meaning of the second annotation) is no name of an image, nor is what names it
 * by its digest. */
static const char *entry_name(const json_t *item)
{
    const json_t *annotations = json_object_get(item, "annotations");
    const char *name = json_str(annotations, NAME_ANNOTATION);

    if (str_empty(name))
        name = json_str(annotations, REF_ANNOTATION);
    return str_empty(name) || !strpbrk(name, ":/") || strchr(name, '@') ? NULL : name;
}

static void read_platform(const struct planner *planner, const json_t *item,
                          struct layout_entry *ret)
{
    const json_t *platform = json_object_get(item, "platform");
    struct platform offered = {(char *)json_str(platform, "os"),
                               (char *)json_str(platform, "architecture"),
                               (char *)json_str(platform, "variant")};

    if (str_eq(offered.variant, ""))
        offered.variant = NULL;
    ret->has_platform = !str_empty(offered.os) && !str_empty(offered.architecture);
    if (ret->has_platform)
        ret->rank = platform_rank(planner->platform, &offered);
}

/* buildkit's attestations. */
static bool is_no_image(const json_t *item)
{
    return str_eq(json_str(json_object_get(item, "platform"), "os"), "unknown");
}

static bool read_entry(const struct planner *planner, const json_t *item, struct layout_entry *ret,
                       struct error *err)
{
    const char *digest = json_str(item, "digest");
    const json_t *size = json_object_get(item, "size");

    if (!digest)
        return invalid(err, "index.json", "a descriptor has no digest");
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return invalid(err, "index.json", "a descriptor has no valid size");
    ret->descriptor.media_type = (char *)json_str(item, "mediaType");
    ret->descriptor.size_bytes = (uint64_t)json_integer_value(size);
    ret->name = entry_name(item);
    read_platform(planner, item, ret);
    return digest_parse(digest, &ret->descriptor.digest, err) ||
           error_prefix(err, "member \"%s\"", "index.json");
}

/* Of those of one name that are for platforms the one that runs best counts; of those without a
 * name all that run, and if none does, all. What is for no platform counts always. */
static void choose_entries(struct layout *layout)
{
    CLEANUP(map_cleanup) struct map *best = map_new();
    bool unnamed_runs = false;

    for (size_t i = 0; i < layout->count; i++) {
        struct layout_entry *entry = &layout->entries[i];
        struct layout_entry *other = entry->name ? map_get(best, entry->name) : NULL;
        unnamed_runs |= !entry->name && entry->rank >= 0;
        if (!entry->name || !entry->has_platform)
            continue;
        if (other && (entry->rank < 0 || (other->rank >= 0 && other->rank <= entry->rank))) {
            entry->dropped = true;
            continue;
        }
        if (other)
            other->dropped = true;
        map_put(best, entry->name, entry);
    }
    for (size_t i = 0; i < layout->count; i++) {
        struct layout_entry *entry = &layout->entries[i];
        entry->dropped |= !entry->name && entry->rank < 0 && unnamed_runs;
    }
}

static bool read_layout(const struct planner *planner, struct layout *ret, struct error *err)
{
    const struct member *member = find_document(planner, "index.json", err);
    const json_t *items, *item;
    size_t i;

    ret->json = member ? parse_document(member, err) : NULL;
    if (!ret->json)
        return false;
    items = json_object_get(ret->json, "manifests");
    if (!json_is_array(items))
        return invalid(err, "index.json", "it has no array of manifests");
    ret->entries = xcalloc(json_array_size(items) + 1, sizeof(*ret->entries));
    json_array_foreach (items, i, item) {
        if (is_no_image(item))
            continue;
        if (!read_entry(planner, item, &ret->entries[ret->count], err))
            return false;
        ret->count++;
    }
    choose_entries(ret);
    return true;
}

static bool plan_entry(struct planner *planner, const struct layout_entry *entry, struct error *err)
{
    const struct member *manifest_member = NULL, *config_member;
    const struct manifest *manifest =
        find_manifest(planner, &entry->descriptor, 0, &manifest_member, err);
    struct planned_image *image;

    config_member = manifest ? find_blob(planner, &manifest->config, err) : NULL;
    image = config_member ? add_image(planner, config_member, err) : NULL;
    if (!image || (entry->name && !add_name(image, entry->name, "index.json", err)))
        return false;
    if (image->manifest)
        return true;
    if (!check_layer_count(image, manifest->layer_count, manifest_member->path, err) ||
        !find_layers(planner, image, manifest, err))
        return false;
    image->manifest_member = manifest_member;
    image->manifest = manifest;
    return true;
}

static bool plan_layout(struct planner *planner, struct error *err)
{
    CLEANUP(layout_done) struct layout layout = {0};

    if (!read_layout(planner, &layout, err))
        return false;
    for (size_t i = 0; i < layout.count; i++) {
        if (!layout.entries[i].dropped && !plan_entry(planner, &layout.entries[i], err))
            return false;
    }
    return planner->plan->count > 0 || invalid(err, "index.json", "it has no image");
}

/* --- What docker save writes -------------------------------------------------------------------
 */

static bool plan_names(struct planned_image *image, const json_t *item, struct error *err)
{
    const json_t *tags = json_object_get(item, "RepoTags"), *tag;
    size_t i;

    if (tags && !json_is_null(tags) && !json_is_array(tags))
        return invalid(err, "manifest.json", "RepoTags is no array");
    json_array_foreach (tags, i, tag) {
        if (!json_is_string(tag))
            return invalid(err, "manifest.json", "a tag is no string");
        if (!add_name(image, json_string_value(tag), "manifest.json", err))
            return false;
    }
    return true;
}

static bool plan_item(struct planner *planner, const json_t *item, struct error *err)
{
    const char *config = json_str(item, "Config");
    const json_t *layers = json_object_get(item, "Layers");
    const struct member *config_member;
    struct planned_image *image;

    if (!config)
        return invalid(err, "manifest.json", "an image has no Config");
    config_member = find_document(planner, config, err);
    image = config_member ? add_image(planner, config_member, err) : NULL;
    if (!image || !plan_names(image, item, err) ||
        !check_layer_count(image, json_array_size(layers), "manifest.json", err))
        return false;
    for (size_t i = 0; i < json_array_size(layers); i++) {
        const char *path = json_string_value(json_array_get(layers, i));
        if (!path)
            return invalid(err, "manifest.json", "the path of a layer is no string");
        image->layers[i] = find_layer(planner, path, &image->config->diff_ids[i], err);
        if (!image->layers[i])
            return false;
    }
    return true;
}

static int hash_text(const char *text, size_t size, void *hasher)
{
    hasher_update(hasher, text, size);
    return 0;
}

static struct digest digest_of_array(const json_t *array)
{
    CLEANUP(hasher_cleanup) struct hasher *hasher = hasher_new();

    json_dump_callback(array, hash_text, hasher, JSON_COMPACT | JSON_SORT_KEYS);
    return hasher_finish(hasher);
}

/* All histories together are too much to keep: digests tell whether two are the same. */
static void read_history(struct planned_image *image)
{
    CLEANUP_JSON json_t *config = NULL;
    json_t *history;

    if (digest_is_set(&image->history.all))
        return;
    config = parse_document(image->config_member, NULL);
    history = json_object_get(config, "history");
    image->history.count = json_array_size(history);
    image->history.all = digest_of_array(history);
    if (image->history.count == 0)
        return;
    json_array_remove(history, image->history.count - 1);
    image->history.all_but_last = digest_of_array(history);
}

/* Whether an image is one step of history beyond another, as Docker judges it. */
static bool is_parent(struct planned_image *parent, struct planned_image *child)
{
    read_history(parent);
    read_history(child);
    if (parent->history.count == 0 && child->history.count == 0)
        return true;
    return child->history.count == parent->history.count + 1 &&
           (parent->history.count == 0 ||
            digest_eq(&child->history.all_but_last, &parent->history.all));
}

/* One that is not in the archive counts as none; of several the first counts. */
static bool plan_parent(struct planner *planner, const json_t *item, struct error *err)
{
    const char *text = json_str(item, "Parent");
    const struct member *config_member =
        str_empty(text) ? NULL : find_document(planner, json_str(item, "Config"), err);
    size_t there = text ? (size_t)map_get(planner->by_id, text) : 0;
    struct planned_image *parent, *child;

    if (!config_member || !there)
        return str_empty(text) || config_member;
    parent = &planner->plan->images[there - 1];
    child = &planner->plan->images[(size_t)map_get(planner->by_id, config_member->digest.text) - 1];
    if (parent == child || digest_is_set(&child->parent))
        return true;
    if (!is_parent(parent, child))
        return error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                         "member \"manifest.json\": image %s is not a valid parent of %s",
                         parent->id.text, child->id.text);
    child->parent = parent->id;
    return true;
}

/* Whether a manifest is of an image whose layers are in the archive as it has them. */
static bool fits(const struct planned_image *image, const struct manifest *manifest)
{
    if (manifest->layer_count != image->config->diff_id_count)
        return false;
    for (size_t i = 0; i < manifest->layer_count; i++) {
        if (!digest_eq(&manifest->layers[i].digest, &image->layers[i]->digest) ||
            manifest->layers[i].size_bytes != image->layers[i]->size_bytes)
            return false;
    }
    return true;
}

/* An archive that is an OCI layout, too, has manifests: images keep them. What is wrong with it
 * does not matter. */
static void take_manifests(struct planner *planner)
{
    CLEANUP(layout_done) struct layout layout = {0};

    planner->optional = true;
    if (!read_layout(planner, &layout, NULL))
        return;
    for (size_t i = 0; i < layout.count; i++) {
        const struct member *member = NULL;
        const struct manifest *manifest =
            find_manifest(planner, &layout.entries[i].descriptor, 0, &member, NULL);
        size_t there = manifest ? (size_t)map_get(planner->by_id, manifest->config.digest.text) : 0;
        struct planned_image *image = there ? &planner->plan->images[there - 1] : NULL;
        if (!image || image->manifest || !fits(image, manifest))
            continue;
        image->manifest_member = member;
        image->manifest = manifest;
    }
}

/* One item at a time: all together may be larger than what is parsed at once. */
static bool plan_each(struct planner *planner, const struct member *member,
                      bool (*plan)(struct planner *planner, const json_t *item, struct error *err),
                      size_t *ret_count, struct error *err)
{
    struct json_items items = {.text = member->data, .size = member->size_bytes};
    json_t *item;
    int r;

    *ret_count = 0;
    while ((r = json_items_next(&items, DOCUMENT_MAX_BYTES, "it", &item, err)) > 0) {
        CLEANUP_JSON json_t *owned = item;
        if (!plan(planner, owned, err))
            return false;
        (*ret_count)++;
    }
    return r == 0 || error_prefix(err, "member \"%s\"", member->path);
}

static bool plan_items(struct planner *planner, struct error *err)
{
    const struct member *member = find_document(planner, "manifest.json", err);
    size_t count;

    if (!member || !plan_each(planner, member, plan_item, &count, err))
        return false;
    if (count == 0)
        return invalid(err, "manifest.json", "it has no image");
    if (!plan_each(planner, member, plan_parent, &count, err))
        return false;
    take_manifests(planner);
    return true;
}

bool load_plan_make(struct load_plan *plan, const struct members *members,
                    const struct platform *platform, struct error *err)
{
    CLEANUP(map_cleanup) struct map *by_id = map_new();
    CLEANUP(map_cleanup) struct map *none = map_new();
    struct planner planner = {
        .plan = plan, .members = members, .platform = platform, .by_id = by_id, .none = none};

    plan->manifests = map_new();
    if (map_get(members->by_path, "manifest.json"))
        return plan_items(&planner, err);
    if (map_get(members->by_path, "index.json"))
        return plan_layout(&planner, err);
    error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
              "invalid archive: does not contain a manifest.json or an index.json");
    return error_hint(err, "a tar of a root file system is not loaded but imported: davit import");
}

bool load_plan_check(const struct load_plan *plan, const struct platform *platform,
                     struct error *err)
{
    for (size_t i = 0; i < plan->count; i++) {
        const struct image_config *config = plan->images[i].config;
        const struct platform offered = {config->os, config->architecture, config->variant};
        if (platform_rank(platform, &offered) >= 0)
            continue;
        CLEANUP_FREE char *is = platform_text(&offered), *wanted = platform_text(platform);
        return error_set(err, ERROR_NOT_FOUND, "PLATFORM_MISMATCH",
                         "image %.19s of the archive is for %s, not for %s",
                         plan->images[i].id.text, is, wanted);
    }
    return true;
}
