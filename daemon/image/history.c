#include "daemon/image/history.h"

#include "daemon/image/image_config.h"
#include "daemon/image/inspect.h"
#include "daemon/registry/manifest.h"
#include "proto/async/await.h"

void image_history_done(struct image_history *history)
{
    for (size_t i = 0; i < history->count; i++) {
        strv_free(history->steps[i].tags);
        free(history->steps[i].created_by);
        free(history->steps[i].comment);
    }
    free(history->steps);
    *history = (struct image_history){0};
}

/* --- The configuration's -----------------------------------------------------------------------
 */

static bool copy_text(const json_t *step, const char *path, const char *key, char **ret,
                      struct error *err)
{
    const char *text;

    if (!image_config_text(step, path, key, &text, err))
        return false;
    *ret = xstrdup(text);
    return true;
}

static bool parse_step(const json_t *json, const char *path, struct image_step *step,
                       bool *ret_empty, struct error *err)
{
    const json_t *empty = json_object_get(json, "empty_layer");

    if (empty && !json_is_boolean(empty) && !json_is_null(empty))
        return image_config_mistyped(path, "empty_layer", empty, "a boolean", err);
    *ret_empty = json_is_true(empty);
    step->created_unix_ns = image_config_time(json_str(json, "created"));
    return copy_text(json, path, "created_by", &step->created_by, err) &&
           copy_text(json, path, "comment", &step->comment, err);
}

static bool parse_steps(const json_t *steps, const uint64_t *layer_bytes, size_t layer_count,
                        struct image_history *ret, struct error *err)
{
    size_t count = json_array_size(steps), layers = 0;

    ret->steps = xcalloc(count + 1, sizeof(*ret->steps));
    ret->count = count;
    for (size_t i = 0; i < count; i++) {
        struct image_step *step = &ret->steps[count - 1 - i];
        CLEANUP_FREE char *name = xasprintf("history[%zu]", i);
        CLEANUP_FREE char *path = xasprintf("%s.", name);
        const json_t *json = json_array_get(steps, i);
        bool empty = false;
        if (!json_is_object(json))
            return image_config_mistyped("", name, json, "an object", err);
        if (!parse_step(json, path, step, &empty, err))
            return false;
        if (empty)
            continue;
        if (layers == layer_count)
            return error_set(err, ERROR_FAILED_PRECONDITION, "INVALID_CONFIG",
                             "its history has more layers than the image: %zu", layer_count);
        step->size_bytes = layer_bytes[layers++];
    }
    return true;
}

bool image_history_parse(const char *config, size_t config_size, const uint64_t *layer_bytes,
                         size_t layer_count, struct image_history *ret, struct error *err)
{
    CLEANUP_JSON json_t *json =
        json_parse(config, config_size, MANIFEST_MAX_BYTES, "its configuration", err);
    const json_t *steps = json_object_get(json, "history");

    *ret = (struct image_history){0};
    if (!json)
        return false;
    if (steps && !json_is_array(steps) && !json_is_null(steps))
        return image_config_mistyped("", "history", steps, "an array", err);
    return parse_steps(steps, layer_bytes, layer_count, ret, err);
}

/* --- Asking ------------------------------------------------------------------------------------
 */

struct history_work {
    struct image_data data;
    uint64_t *layer_bytes;
    size_t layer_count;
    struct image_history history;
    bool ok;
    struct error err;
};

static void history_work_done(struct history_work *work)
{
    image_data_done(&work->data);
    free(work->layer_bytes);
    image_history_done(&work->history);
    error_done(&work->err);
}

static void read_history(void *arg)
{
    struct history_work *work = arg;

    work->ok = image_history_parse(work->data.config, work->data.config_size, work->layer_bytes,
                                   work->layer_count, &work->history, &work->err);
}

/* A layer in quarantine counts as nothing until it has been fetched again. */
static void take_sizes(struct history_work *work, const struct store *store,
                       const struct image *image)
{
    work->layer_bytes = xcalloc(image->diff_id_count + 1, sizeof(*work->layer_bytes));
    for (size_t i = 0; i < image->diff_id_count; i++) {
        struct layer_info info;
        if (layer_find(store, &image->diff_ids[i], &info))
            work->layer_bytes[i] = info.content_bytes;
    }
    work->layer_count = image->diff_id_count;
}

/* As Docker: the last step is the image's, each before it its parent's, while there are any. */
static void name_steps(const struct store *store, const struct digest *id,
                       struct image_history *history)
{
    struct digest next = *id;

    for (size_t i = 0; i < history->count && digest_is_set(&next); i++) {
        const struct image *image = image_find_id(store, next.text, NULL);
        history->steps[i].id = next;
        if (!image)
            return;
        history->steps[i].tags = image_familiar_names(image->tags);
        next = image->parent;
    }
}

bool await_image_history(struct store *store, const char *text, const char *platform,
                         struct image_history *ret, struct error *err)
{
    CLEANUP(history_work_done) struct history_work work = {0};
    const struct image *image = image_resolve_platform(store, text, platform, err);
    struct digest id;
    int r;

    if (!image)
        return false;
    id = image->id;
    take_sizes(&work, store, image);
    if (!await_image_data(store, &id, &work.data, err))
        return false;
    r = await_work(read_history, &work, "reading an image's history");
    if (r < 0)
        return await_error(err, r, "reading an image's history");
    if (!work.ok) {
        error_move(err, &work.err);
        return error_prefix(err, "the configuration of image %.19s", id.text);
    }
    *ret = work.history;
    work.history = (struct image_history){0};
    name_steps(store, &id, ret);
    return true;
}
