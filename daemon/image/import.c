#include "daemon/image/import.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "daemon/build/change.h"
#include "daemon/image/image.h"
#include "daemon/image/layer_intake.h"
#include "daemon/image/plain_manifest.h"
#include "daemon/registry/download.h"
#include "daemon/registry/manifest.h"
#include "daemon/registry/reference.h"
#include "daemon/store/archive_opener.h"
#include "daemon/store/event.h"
#include "proto/async/await.h"
#include "proto/base/json.h"
#include "proto/base/log.h"

#define DOWNLOAD_BYTES (256 * KIB)
#define MESSAGE_MAX_BYTES (64 * KIB)

struct import {
    struct store *store;
    struct registry_client *client;
    const struct archive_source *source;
    char *url, *message, *name; /* name: canonical; NULL: none */
    struct platform platform;
    json_t *config; /* of containers */
    struct archive_opener *opener;
    struct error source_error; /* why not all of it came */
    struct layer_lease *lease;
    struct layer_info layer;
    bool stored, committing;
    uint64_t bytes_read, bytes_total, bytes_stored, begun_ms;
    int64_t begun_unix_ns;
    struct digest id;
};

struct import *import_free(struct import *import)
{
    if (!import)
        return NULL;
    free(import->url);
    free(import->message);
    free(import->name);
    platform_done(&import->platform);
    json_decref(import->config);
    error_done(&import->source_error);
    free(import);
    return NULL;
}

/* --- The request -------------------------------------------------------------------------------
 */

static bool read_reference(struct import *import, const char *text, struct error *err)
{
    CLEANUP_REFERENCE struct reference reference = {0};

    if (str_empty(text))
        return true;
    if (!reference_parse(text, &reference, err))
        return false;
    if (digest_is_set(&reference.digest))
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_REFERENCE",
                         "cannot import digest reference");
    import->name = reference_canonical(&reference);
    return image_check_tag(&reference, err);
}

static bool read_platform(struct import *import, const char *text, struct error *err)
{
    if (!platform_parse(text ? text : "", &import->platform, err))
        return false;
    return str_eq(import->platform.os, "linux") ||
           error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_PLATFORM",
                     "operating system is not supported");
}

static bool read_message(struct import *import, const char *text, struct error *err)
{
    CLEANUP_JSON json_t *json = NULL;

    import->message = str_empty(text)
                          ? xasprintf("Imported from %s", import->url ? import->url : "-")
                          : xstrdup(text);
    json = json_string(import->message);
    return (json && strlen(import->message) <= MESSAGE_MAX_BYTES) ||
           error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_MESSAGE",
                     "the message is not valid UTF-8, or longer than 64 KiB");
}

/* Short texts can be much work. */
struct changes_work {
    json_t *config;
    const struct import_request *request;
    bool ok;
    struct error err;
};

static void apply_changes(void *arg)
{
    struct changes_work *work = arg;

    work->ok = changes_apply(work->config, work->request->changes, work->request->change_count,
                             &work->err);
}

static bool await_changes(struct import *import, const struct import_request *request,
                          struct error *err)
{
    struct changes_work work = {.config = import->config, .request = request};
    int r = request->change_count ? await_work(apply_changes, &work, "reading instructions") : 0;

    if (r < 0)
        return await_error(err, r, "reading instructions");
    return request->change_count == 0 || work.ok || error_move(err, &work.err);
}

struct import *await_import_new(struct store *store, struct registry_client *client,
                                const struct archive_source *source,
                                const struct import_request *request, struct error *err)
{
    struct import *import = xcalloc(1, sizeof(*import));

    import->store = store;
    import->client = client;
    import->source = source;
    import->url = xstrdup(request->url);
    if (request->url && !download_url_check(request->url, err))
        return import_free(import);
    import->config = json_object();
    if (source)
        import->bytes_total = source->bytes_total;
    if (read_reference(import, request->reference, err) &&
        read_platform(import, request->platform, err) &&
        read_message(import, request->message, err) && await_changes(import, request, err))
        return import;
    return import_free(import);
}

/* --- The tar goes in ---------------------------------------------------------------------------
 */

/* False without err when no more is wanted. */
static bool await_pass_on(struct import *import, const void *data, size_t size, struct error *err)
{
    int r = await_archive_opener_write(import->opener, data, size);

    import->bytes_read += size;
    if (r == 0 || r == -EPIPE) /* then it says itself what is wrong */
        return r == 0;
    return await_error(err, r, "reading the archive");
}

static bool await_feed_url(struct import *import, struct error *err)
{
    CLEANUP_FREE uint8_t *buffer = xmalloc(DOWNLOAD_BYTES);
    CLEANUP(http_response_cleanup)
    struct http_response *response = await_download(import->client, import->url, err);
    ssize_t n = response ? 1 : -1;

    if (response)
        import->bytes_total = download_bytes(response);
    while (n > 0 && (n = await_http_read(response, buffer, DOWNLOAD_BYTES, err)) > 0) {
        if (!await_pass_on(import, buffer, (size_t)n, err))
            return false;
    }
    return n == 0;
}

static bool await_feed_source(struct import *import, struct error *err)
{
    const void *data;
    ssize_t n;

    while ((n = import->source->await_next(import->source->arg, &data, err)) > 0) {
        if (!await_pass_on(import, data, (size_t)n, err))
            return false;
    }
    return n == 0;
}

static bool feed_task(void *arg, struct error *err UNUSED)
{
    struct import *import = arg;

    if (import->url)
        await_feed_url(import, &import->source_error);
    else
        await_feed_source(import, &import->source_error);
    archive_opener_end_input(import->opener);
    return true;
}

static bool await_pieces(struct import *import, struct layer_intake *intake, struct error *err)
{
    struct archive_piece piece;
    int r;

    while ((r = await_archive_opener_next(import->opener, &piece, err)) > 0) {
        if (!await_layer_intake_add(intake, piece.data, piece.size, err))
            return false;
        import->bytes_stored += piece.size;
    }
    return r == 0;
}

/* From the bytes as they come to the tar as it will be written. */
static bool await_inflate(struct import *import, struct layer_intake *intake, struct error *err)
{
    CLEANUP_ERROR struct error failure = {0};
    CLEANUP(group_done_await) struct group feeder;
    bool ok;

    group_init(&feeder);
    ok = task_spawn(&feeder, "archive", NULL, feed_task, import, err) &&
         await_pieces(import, intake, &failure);
    group_cancel(&feeder);
    if (!await_group(&feeder, err))
        return false;
    /* If it did not come whole, that is what is wrong. */
    if (error_is_set(&import->source_error) && import->source_error.code != ERROR_CANCELLED)
        return error_move(err, &import->source_error);
    return ok || (error_is_set(&failure) && error_move(err, &failure));
}

static void intake_cleanup_await(struct layer_intake **intake)
{
    layer_intake_free_await(*intake);
}

static void opener_done_await(struct import **import)
{
    archive_opener_free_await((*import)->opener);
    (*import)->opener = NULL;
}

static bool await_layer(struct import *import, struct error *err)
{
    const struct layer_intake_options options = {.store = import->store, .format = LAYER_PLAIN};
    CLEANUP(opener_done_await) struct import *opener = import;
    CLEANUP(intake_cleanup_await) struct layer_intake *intake = NULL;
    struct layer_received received;

    import->opener = await_archive_opener_start(import->store, ARCHIVE_INFLATE, err);
    intake = import->opener ? await_layer_intake_new(&options, err) : NULL;
    if (!intake || !await_inflate(import, intake, err) ||
        !await_layer_intake_finish(intake, &received, err))
        return false;
    import->layer = received.info;
    import->lease = layer_lease_new(import->store, &received.info.diff_id, 1);
    import->stored = true;
    return true;
}

/* --- The image ---------------------------------------------------------------------------------
 */

/* As Go writes it: "2024-01-02T03:04:05.678Z" */
static char *time_text(int64_t unix_ns)
{
    const time_t seconds = (time_t)(unix_ns / 1000000000);
    char date[32], fraction[16];
    struct tm tm;
    size_t length;

    gmtime_r(&seconds, &tm);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    length =
        (size_t)snprintf(fraction, sizeof(fraction), ".%09lld", (long long)(unix_ns % 1000000000));
    while (length > 0 && (fraction[length - 1] == '0' || fraction[length - 1] == '.'))
        fraction[--length] = '\0';
    return xasprintf("%s%sZ", date, fraction);
}

/* In the order in which Docker has it. */
static char *make_config(const struct import *import, int64_t created_unix_ns)
{
    CLEANUP_FREE char *created = time_text(created_unix_ns);
    CLEANUP_JSON json_t *json =
        json_pack("{s:s, s:s, s:O, s:s, s:[{s:s, s:s}], s:s, s:{s:s, s:[s]}}", "architecture",
                  import->platform.architecture, "comment", import->message, "config",
                  import->config, "created", created, "history", "created", created, "comment",
                  import->message, "os", import->platform.os, "rootfs", "type", "layers",
                  "diff_ids", import->layer.diff_id.text);

    CHECK(json);
    if (!str_empty(import->platform.variant))
        json_object_set_new(json, "variant", json_string(import->platform.variant));
    return json_text(json);
}

/* The documents of the image; a configuration can be 4 MiB: not for the loop. */
struct documents {
    const struct import *import;
    int64_t created_unix_ns;
    char *config, *manifest;
    size_t config_size, manifest_size;
    struct digest id, manifest_digest;
};

static void documents_done(struct documents *documents)
{
    free(documents->config);
    free(documents->manifest);
}

static void make_documents(void *arg)
{
    struct documents *made = arg;

    made->config = make_config(made->import, made->created_unix_ns);
    made->config_size = strlen(made->config);
    made->id = digest_of(made->config, made->config_size);
    made->manifest = plain_manifest(&made->id, made->config_size, &made->import->layer, 1);
    made->manifest_size = strlen(made->manifest);
    made->manifest_digest = digest_of(made->manifest, made->manifest_size);
}

static bool await_commit(struct import *import, struct error *err)
{
    CLEANUP(documents_done)
    struct documents made = {.import = import, .created_unix_ns = wall_clock_ns()};
    char *tags[] = {import->name, NULL};
    struct event_note event = {.action = "import", .image = &import->id};
    struct image image = {.created_unix_ns = made.created_unix_ns,
                          .os = import->platform.os,
                          .architecture = import->platform.architecture,
                          .event = &event,
                          .diff_ids = &import->layer.diff_id,
                          .diff_id_count = 1};
    struct image_commit commit = {.image = &image, .tags = tags, .tagged = true};
    bool ok;
    int r;

    import->committing = true;
    if ((r = await_work(make_documents, &made, "making an image")) < 0)
        return await_error(err, r, "making an image");
    if (made.config_size > MANIFEST_MAX_BYTES)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION",
                         "the changes make a configuration of more than 4 MiB");
    image.id = import->id = made.id;
    image.config_data = made.config;
    image.config_size = made.config_size;
    image.manifest_data = made.manifest;
    image.manifest_size = made.manifest_size;
    image.manifest_digest = made.manifest_digest;
    event.actor = event.name = import->id.text;
    ok = await_images_commit(import->store, &commit, 1, NULL, 0, err);
    image_commits_done(&commit, 1);
    return ok;
}

/* What was stored goes, if there is no image of it. Also for a cancelled task. */
static void layer_done_await(struct import **ptr)
{
    struct import *import = *ptr;

    import->lease = layer_lease_free(import->lease);
    if (import->stored)
        layers_drop_await(import->store, &import->layer.diff_id, 1, import->begun_unix_ns);
}

bool await_import(struct import *import, struct error *err)
{
    CLEANUP(layer_done_await) struct import *layer = import;

    import->begun_ms = now_ms();
    import->begun_unix_ns = wall_clock_ns();
    if (!await_layer(import, err) || !await_commit(import, err))
        return false;
    log_info("imported image", LOG("image", import->id.text),
             LOG("name", import->name ? import->name : ""));
    return true;
}

struct import_progress import_progress(const struct import *import)
{
    return (struct import_progress){
        .committing = import->committing,
        .bytes_read = import->bytes_read,
        .bytes_total = import->bytes_total,
        .bytes_stored = import->bytes_stored,
        .begun_ms = import->begun_ms,
    };
}

const struct digest *import_result(const struct import *import)
{
    return &import->id;
}
