/* The documents of an archive of images. Keys stand in Docker's order. */
#include "daemon/image/image.h"
#include "daemon/image/plain_manifest.h"
#include "daemon/image/save_internal.h"
#include "daemon/registry/reference.h"

static void add_comma(struct strbuf *json, bool *again)
{
    if (*again)
        strbuf_add_char(json, ',');
    *again = true;
}

/* --- index.json: OCI image-spec, image-index.md, with the names where Docker puts them -----------
 */

static void add_index_entry(struct strbuf *json, const struct save_image *image, const char *tag)
{
    strbuf_addf(json, "{\"mediaType\":\"" PLAIN_MANIFEST_TYPE "\",\"digest\":\"%s\",\"size\":%zu",
                image->manifest_digest.text, strlen(image->manifest));
    if (tag)
        strbuf_addf(json,
                    ",\"annotations\":{\"io.containerd.image.name\":\"%s\","
                    "\"org.opencontainers.image.ref.name\":\"%s\"}",
                    tag, strrchr(tag, ':') + 1);
    strbuf_add_char(json, '}');
}

char *save_index(const struct save_image *images, size_t count)
{
    struct strbuf json = {0};
    bool again = false;

    strbuf_add_str(&json,
                   "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\","
                   "\"manifests\":[");
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < MAX(images[i].tag_count, 1U); j++) {
            add_comma(&json, &again);
            add_index_entry(&json, &images[i], images[i].tags ? images[i].tags[j] : NULL);
        }
    }
    strbuf_add_str(&json, "]}");
    return strbuf_take(&json);
}

/* --- manifest.json -----------------------------------------------------------------------------
 */

static void add_tags(struct strbuf *json, char *const *tags)
{
    bool again = false;

    if (!tags) {
        strbuf_add_str(json, "null");
        return;
    }
    strbuf_add_char(json, '[');
    for (; *tags; tags++) {
        CLEANUP_FREE char *familiar = image_familiar(*tags);
        add_comma(json, &again);
        strbuf_add_quoted(json, familiar);
    }
    strbuf_add_char(json, ']');
}

static bool is_repeated(const struct save_image *image, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (digest_eq(&image->layers[i].diff_id, &image->layers[index].diff_id))
            return true;
    }
    return false;
}

static void add_image(struct strbuf *json, const struct save_image *image)
{
    bool again = false;

    strbuf_addf(json, "{\"Config\":\"blobs/sha256/%s\",\"RepoTags\":", digest_hex(&image->id));
    add_tags(json, image->tags);
    strbuf_add_str(json, ",\"Layers\":[");
    for (size_t i = 0; i < image->layer_count; i++) {
        add_comma(json, &again);
        strbuf_addf(json, "\"blobs/sha256/%s\"", digest_hex(&image->layers[i].diff_id));
    }
    strbuf_add_char(json, ']');
    if (digest_is_set(&image->parent))
        strbuf_addf(json, ",\"Parent\":\"%s\"", image->parent.text);
    strbuf_add_str(json, ",\"LayerSources\":{");
    again = false;
    for (size_t i = 0; i < image->layer_count; i++) {
        const struct layer_info *layer = &image->layers[i];
        if (is_repeated(image, i))
            continue;
        add_comma(json, &again);
        strbuf_addf(json,
                    "\"%s\":{\"mediaType\":\"" PLAIN_LAYER_TYPE
                    "\",\"size\":%llu,\"digest\":\"%s\"}",
                    layer->diff_id.text, (unsigned long long)layer->tar_bytes, layer->diff_id.text);
    }
    strbuf_add_str(json, "}}");
}

char *save_manifest_json(const struct save_image *images, size_t count)
{
    struct strbuf json = {0};
    bool again = false;

    strbuf_add_char(&json, '[');
    for (size_t i = 0; i < count; i++) {
        add_comma(&json, &again);
        add_image(&json, &images[i]);
    }
    strbuf_add_str(&json, "]\n");
    return strbuf_take(&json);
}

/* --- repositories: a tag's value is the layer on top, by which nobody finds the image any more ---
 */

struct named {
    char *name; /* familiar, without the tag */
    const char *tag;
    const struct save_image *image;
};

static int compare(const void *a, const void *b)
{
    const struct named *one = a, *other = b;
    int order = strcmp(one->name, other->name);

    return order ? order : strcmp(one->tag, other->tag);
}

static struct named *collect(const struct save_image *images, size_t count, size_t *ret_count)
{
    struct named *all = NULL;

    *ret_count = 0;
    for (size_t i = 0; i < count; i++) {
        for (char **tag = images[i].tags; tag && *tag; tag++) {
            CLEANUP_REFERENCE struct reference reference = {0};
            if (!reference_parse(*tag, &reference, NULL))
                continue;
            all = xrealloc(all, (*ret_count + 1) * sizeof(*all));
            all[(*ret_count)++] = (struct named){.name = reference_familiar_name(&reference),
                                                 .tag = strrchr(*tag, ':') + 1,
                                                 .image = &images[i]};
        }
    }
    return all;
}

char *save_repositories(const struct save_image *images, size_t count)
{
    struct strbuf json = {0};
    size_t tags;
    CLEANUP_FREE struct named *all = collect(images, count, &tags);

    if (tags == 0)
        return NULL;
    qsort(all, tags, sizeof(*all), compare);
    for (size_t i = 0; i < tags; i++) {
        const struct save_image *image = all[i].image;
        bool first = i == 0 || !str_eq(all[i].name, all[i - 1].name);
        if (first)
            strbuf_addf(&json, "%s\"%s\":{", i == 0 ? "{" : "},", all[i].name);
        strbuf_addf(&json, "%s\"%s\":\"%s\"", first ? "" : ",", all[i].tag,
                    image->layer_count ? digest_hex(&image->layers[image->layer_count - 1].diff_id)
                                       : "");
    }
    strbuf_add_str(&json, "}}\n");
    for (size_t i = 0; i < tags; i++)
        free(all[i].name);
    return strbuf_take(&json);
}
