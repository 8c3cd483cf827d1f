#include "daemon/image/inspect.h"

#include <time.h>

#include "daemon/image/image_config.h"
#include "daemon/registry/manifest.h"
#include "proto/async/await.h"
#include "proto/base/strbuf.h"

/* --- The document ------------------------------------------------------------------------------
 */

/* jansson's compact text as Go would have written it: without the characters that mean something in
 * HTML, and with lower-case digits. A pass over the text will do, for all of them are in strings.
 */
static char *go_json(const json_t *document)
{
    static const char line_separators[] = "\xe2\x80"; /* and a8 or a9 */
    CLEANUP_FREE char *text = json_text(document);
    struct strbuf out = {0};

    for (const char *c = text; *c; c++) {
        if (*c == '<' || *c == '>' || *c == '&') {
            strbuf_addf(&out, "\\u%04x", (unsigned int)*c);
        } else if (str_starts(c, line_separators) && (c[2] == '\xa8' || c[2] == '\xa9')) {
            strbuf_addf(&out, "\\u20%02x", (unsigned char)c[2] - 0x80);
            c += 2;
        } else if (*c == '\\') {
            size_t length = c[1] == 'u' ? 6 : 2;
            for (size_t i = 0; i < length; i++)
                strbuf_add_char(&out, i > 1 && c[i] <= 'F' ? (char)(c[i] | 0x20) : c[i]);
            c += length - 1;
        } else {
            strbuf_add_char(&out, *c);
        }
    }
    return strbuf_take(&out);
}

static json_t *texts_json(char *const *texts)
{
    json_t *array = json_array();

    for (; texts && *texts; texts++)
        json_array_append_new(array, json_string(*texts));
    return array;
}

/* Never: Go's zero time. */
static char *moment_text(int64_t unix_ns)
{
    time_t seconds = (time_t)(unix_ns / 1000000000);
    char date[32], text[64];
    struct tm utc;

    if (unix_ns == 0)
        return xstrdup("0001-01-01T00:00:00Z");
    gmtime_r(&seconds, &utc);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text, sizeof(text), "%s.%09lldZ", date, (long long)(unix_ns % 1000000000));
    return image_date(text);
}

/* Text members of the configuration, each under the name that the document has for it. */
static bool add_texts(json_t *document, const json_t *config, const char *const (*names)[2],
                      size_t count, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        const char *name = names[i][0], *text;
        bool may_miss = *name == '?';
        if (!image_config_text(config, "", names[i][1], &text, err))
            return false;
        if (!may_miss || *text)
            json_object_set_new(document, name + may_miss, json_string(text));
    }
    return true;
}

/* Of an image without one that of its last step. */
static bool add_comment(json_t *document, const json_t *config, struct error *err)
{
    const json_t *history = json_object_get(config, "history");
    size_t steps = json_array_size(history);
    const char *comment;

    if (!image_config_text(config, "", "comment", &comment, err))
        return false;
    if (!*comment && steps > 0) {
        CLEANUP_FREE char *path = xasprintf("history[%zu].", steps - 1);
        const json_t *last = json_array_get(history, steps - 1);
        if (!image_config_text(last, path, "comment", &comment, err))
            return false;
    }
    json_object_set_new(document, "Comment", json_string(comment));
    return true;
}

static void add_created(json_t *document, const json_t *config)
{
    const char *created = json_str(config, "created");
    CLEANUP_FREE char *date = created ? image_date(created) : NULL;

    if (date)
        json_object_set_new(document, "Created", json_string(date));
}

static void add_storage(json_t *document, const struct image_facts *facts, const json_t *config)
{
    CLEANUP_FREE char *tagged = moment_text(facts->tagged_unix_ns);
    json_t *diff_ids = json_object_get(json_object_get(config, "rootfs"), "diff_ids");
    json_t *rootfs = json_pack("{s:s}", "Type", "layers");

    if (json_array_size(diff_ids) > 0)
        json_object_set(rootfs, "Layers", diff_ids);
    json_object_set_new(document, "Size", json_integer((json_int_t)facts->size_bytes));
    json_object_set_new(document, "GraphDriver",
                        json_pack("{s:{}, s:s}", "Data", "Name", facts->driver));
    json_object_set_new(document, "RootFS", rootfs);
    json_object_set_new(document, "Metadata", json_pack("{s:s}", "LastTagTime", tagged));
}

char *image_inspect_json(const struct image_facts *facts, const char *config, size_t config_size,
                         struct error *err)
{
    static const char *const people[][2] = {{"DockerVersion", "docker_version"},
                                            {"Author", "author"}};
    /* "?": left out where it is empty */
    static const char *const platform[][2] = {{"Architecture", "architecture"},
                                              {"?Variant", "variant"},
                                              {"Os", "os"},
                                              {"?OsVersion", "os.version"}};
    CLEANUP_JSON json_t *json =
        json_parse(config, config_size, MANIFEST_MAX_BYTES, "its configuration", err);
    CLEANUP_JSON json_t *document = json_object();
    json_t *run_config;

    if (!json)
        return NULL;
    json_object_set_new(document, "Id", json_string(facts->id));
    json_object_set_new(document, "RepoTags", texts_json(facts->tags));
    json_object_set_new(document, "RepoDigests", texts_json(facts->digests));
    json_object_set_new(document, "Parent", json_string(facts->parent));
    if (!add_comment(document, json, err))
        return NULL;
    add_created(document, json);
    if (!add_texts(document, json, people, ARRAY_SIZE(people), err) ||
        !add_texts(document, json, platform, ARRAY_SIZE(platform), err))
        return NULL;
    if (str_empty(json_str(document, "Os")))
        json_object_set_new(document, "Os", json_string("linux"));
    add_storage(document, facts, json);
    run_config = image_config_document(json_object_get(json, "config"), err);
    if (!run_config)
        return NULL;
    json_object_set_new(document, "Config", run_config);
    return go_json(document);
}

/* --- Asking ------------------------------------------------------------------------------------
 */

struct inspect_work {
    struct image_facts facts;
    struct image_data data;
    char **tags, **digests;
    struct digest id, parent;
    char *json;
    struct error err;
};

static void inspect_work_done(struct inspect_work *work)
{
    image_data_done(&work->data);
    strv_free(work->tags);
    strv_free(work->digests);
    free(work->json);
    error_done(&work->err);
}

static void make_document(void *arg)
{
    struct inspect_work *work = arg;

    work->json =
        image_inspect_json(&work->facts, work->data.config, work->data.config_size, &work->err);
}

static void take_facts(struct inspect_work *work, const struct store *store,
                       const struct image *image)
{
    work->id = image->id;
    work->parent = image->parent;
    work->tags = image_familiar_names(image->tags);
    work->digests = image_familiar_names(image->repo_digests);
    work->facts = (struct image_facts){
        .id = work->id.text,
        .parent = work->parent.text,
        .tags = work->tags,
        .digests = work->digests,
        .size_bytes = image->size_bytes,
        .driver = store_driver_name(store),
        .tagged_unix_ns = image->tagged_unix_ns,
    };
}

bool image_check_platform(const struct image *image, const char *text, const char *platform,
                          struct error *err)
{
    const struct platform offered = {image->os, image->architecture, image->variant};
    CLEANUP_PLATFORM struct platform wanted = {0};
    CLEANUP_FREE char *is = NULL, *wants = NULL;

    if (str_empty(platform))
        return true;
    if (!platform_parse(platform, &wanted, err))
        return false;
    if (platform_rank(&wanted, &offered) >= 0)
        return true;
    is = platform_text(&offered);
    wants = platform_text(&wanted);
    return error_set(err, ERROR_NOT_FOUND, "PLATFORM_MISMATCH",
                     "image with reference %s was found but its platform (%s) does not match the "
                     "specified platform (%s)",
                     text, is, wants);
}

const struct image *image_resolve_platform(const struct store *store, const char *text,
                                           const char *platform, struct error *err)
{
    const struct image *image = image_resolve(store, text, err);

    return image && image_check_platform(image, text, platform, err) ? image : NULL;
}

bool await_image_inspect(struct store *store, const char *text, const char *platform,
                         char **ret_json, size_t *ret_size, struct error *err)
{
    CLEANUP(inspect_work_done) struct inspect_work work = {0};
    const struct image *image = image_resolve_platform(store, text, platform, err);
    int r;

    if (!image)
        return false;
    take_facts(&work, store, image);
    if (!await_image_data(store, &work.id, &work.data, err))
        return false;
    r = await_work(make_document, &work, "inspecting an image");
    if (r < 0)
        return await_error(err, r, "inspecting an image");
    if (!work.json) {
        error_move(err, &work.err);
        return error_prefix(err, "the configuration of image %.19s", work.id.text);
    }
    *ret_json = TAKE(work.json);
    *ret_size = strlen(*ret_json);
    return true;
}
