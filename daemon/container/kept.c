#include "daemon/container/kept.h"

#include <fcntl.h>
#include <stdio.h>

#include "daemon/container/usage.h"
#include "proto/async/await.h"
#include "proto/base/json.h"
#include "proto/base/log.h"

#define NOTE_MAX_BYTES (32 * KIB) /* 127 layers take a third of it */

/* --- Notes ------------------------------------------------------------------------------------ */

bool kept_note_write(const char *directory, const struct kept_note *note, struct error *err)
{
    CLEANUP_FREE char *path = xasprintf("%s/" KEPT_NOTE, directory);
    CLEANUP_JSON json_t *layers = json_array();
    CLEANUP_JSON json_t *json = NULL;
    CLEANUP_FREE char *text = NULL;

    for (size_t i = 0; i < note->diff_id_count; i++)
        json_array_append_new(layers, json_string(note->diff_ids[i].text));
    json = json_pack("{s:s, s:s, s:I, s:O}", "id", note->id, "image", note->image->text,
                     "created_unix", (json_int_t)note->created_unix, "layers", layers);
    text = json_text(json);
    return write_file(path, text, 0600, err);
}

struct read_work {
    const char *data_root;
    char *const *ids;
    struct found {
        struct container_usage usage;
        struct digest *diff_ids;
        size_t diff_id_count;
    } * found;
    size_t count;
};

static void read_work_done(struct read_work *work)
{
    for (size_t i = 0; i < work->count; i++)
        free(work->found[i].diff_ids);
    free(work->found);
}

static void read_layers(const json_t *layers, struct found *found)
{
    found->diff_ids = xcalloc(json_array_size(layers) + 1, sizeof(*found->diff_ids));
    for (size_t i = 0; i < json_array_size(layers); i++) {
        const char *text = json_string_value(json_array_get(layers, i));
        if (text && digest_parse(text, &found->diff_ids[found->diff_id_count], NULL))
            found->diff_id_count++;
    }
}

static void read_note(const char *directory, struct found *found)
{
    CLEANUP_FREE char *path = xasprintf("%s/" KEPT_NOTE, directory);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    CLEANUP_FREE char *text = xmalloc(NOTE_MAX_BYTES);
    ssize_t n = fd < 0 ? -1 : read(fd, text, NOTE_MAX_BYTES);
    CLEANUP_JSON json_t *note =
        n > 0 ? json_parse(text, (size_t)n, NOTE_MAX_BYTES, KEPT_NOTE, NULL) : NULL;

    if (!note || !json_str(note, "image"))
        return;
    digest_parse(json_str(note, "image"), &found->usage.image, NULL);
    found->usage.created_unix = json_int(note, "created_unix", 0);
    read_layers(json_object_get(note, "layers"), found);
}

/* Of containers the newest come last, as if they had been added just now. */
static int compare_found(const void *a, const void *b)
{
    const struct found *first = a, *second = b;

    return (first->usage.created_unix > second->usage.created_unix) -
           (first->usage.created_unix < second->usage.created_unix);
}

static void read_notes(void *arg)
{
    struct read_work *work = arg;

    for (size_t i = 0; i < work->count; i++) {
        CLEANUP_FREE char *path = xasprintf("%s/containers/%s", work->data_root, work->ids[i]);
        snprintf(work->found[i].usage.id, sizeof(work->found[i].usage.id), "%s", work->ids[i]);
        read_note(path, &work->found[i]);
    }
    if (work->count > 1)
        qsort(work->found, work->count, sizeof(*work->found), compare_found);
}

/* --- Keeping ---------------------------------------------------------------------------------- */

static void kept_add(struct container_engine *engine, const struct container_usage *usage,
                     const struct digest *diff_ids, size_t diff_id_count)
{
    struct kept_container *kept = xcalloc(1, sizeof(*kept));

    kept->usage = *usage;
    kept->usage.running = false;
    if (digest_is_set(&usage->image))
        kept->hold = image_hold_new(engine->store, &usage->image, usage->id, false);
    if (diff_id_count > 0)
        kept->lease = layer_lease_new(engine->store, diff_ids, diff_id_count);
    list_append(&engine->kept, &kept->node);
}

bool await_kept_load(struct container_engine *engine, char *const *ids, struct error *err)
{
    CLEANUP(read_work_done)
    struct read_work work = {
        .data_root = engine->data_root,
        .ids = ids,
        .found = xcalloc(strv_count(ids) + 1, sizeof(struct found)),
        .count = strv_count(ids),
    };
    int r = work.count > 0 ? await_work(read_notes, &work, "reading containers' notes") : 0;

    if (r < 0)
        return await_error(err, r, "looking for old containers");
    for (size_t i = 0; i < work.count; i++) {
        const struct found *found = &work.found[i];
        if (!digest_is_set(&found->usage.image))
            log_warn("a container's note cannot be read: its image can be removed",
                     LOG("id", (const char *)found->usage.id));
        kept_add(engine, &found->usage, found->diff_ids, found->diff_id_count);
    }
    return true;
}

void kept_add_await(struct container_engine *engine, const struct container *container)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();
    struct container_usage usage = container_usage(container);
    size_t count;
    const struct digest *diff_ids = container_layers(container, &count);

    await_usage_count(engine, &usage);
    kept_add(engine, &usage, diff_ids, count);
}

void kept_clear(struct container_engine *engine)
{
    struct list *node;

    while ((node = list_first(&engine->kept))) {
        struct kept_container *kept = LIST_ITEM(node, struct kept_container, node);
        list_remove(node);
        image_hold_free(kept->hold);
        layer_lease_free(kept->lease);
        free(kept);
    }
}
