#include "daemon/image/load.h"

#include <errno.h>

#include "daemon/image/load_internal.h"
#include "daemon/image/plain_manifest.h"
#include "daemon/store/archive_opener.h"
#include "daemon/store/event.h"
#include "proto/async/await.h"
#include "proto/base/log.h"
#include "proto/base/size.h"

/* What may be in an archive beside its images. */
#define OTHERS_MAX_BYTES (1 * GIB)
#define SPACE_CHECK_MIN_BYTES (1 * MIB)
#define FINISHING_MAX 8 /* layers that are made durable at the same time */

struct load {
    struct store *store;
    const struct archive_source *source;
    const char *wanted; /* platform; NULL or empty: none in particular */
    struct platform platform;
    struct archive_opener *opener;
    struct error source_error; /* why not all of the archive came */
    struct members members;
    uint64_t others_bytes;
    uint64_t bytes_read;         /* once the opener has gone */
    struct layer_lease **leases; /* on each layer that was seen, */
    struct digest *held;         /* and which that is */
    size_t held_count;
    struct group finishers; /* of layers that have come */
    size_t finishing;
    struct wait_queue finished;
    struct load_plan plan;
    struct image_commit *commits; /* as many as the plan's images, once they are committed */
    enum load_phase phase;
    uint64_t begun_ms;
    int64_t begun_unix_ns;
    unsigned int percent;
};

struct load *load_new(struct store *store, const struct archive_source *source,
                      const char *platform)
{
    struct load *load = xcalloc(1, sizeof(*load));

    load->store = store;
    load->source = source;
    load->wanted = platform;
    members_init(&load->members);
    wait_queue_init(&load->finished);
    return load;
}

static void commits_done(struct load *load)
{
    if (load->commits)
        image_commits_done(load->commits, load->plan.count);
    free(load->commits);
}

struct load *load_free(struct load *load)
{
    if (!load)
        return NULL;
    commits_done(load);
    load_plan_done(&load->plan);
    members_done(&load->members);
    platform_done(&load->platform);
    error_done(&load->source_error);
    free(load->leases);
    free(load->held);
    free(load);
    return NULL;
}

/* --- The archive goes in -----------------------------------------------------------------------
 */

static bool await_feed(struct load *load, struct error *err)
{
    const struct archive_source *source = load->source;
    const void *data;
    ssize_t n;
    int r;

    while ((n = source->await_next(source->arg, &data, err)) > 0) {
        r = await_archive_opener_write(load->opener, data, (size_t)n);
        if (r == -EPIPE)
            return true; /* it has read enough, or says itself what is wrong */
        if (r < 0)
            return await_error(err, r, "reading the archive");
    }
    return n == 0;
}

static bool feed_task(void *arg, struct error *err UNUSED)
{
    struct load *load = arg;

    await_feed(load, &load->source_error);
    archive_opener_end_input(load->opener);
    return true;
}

/* --- Layers ------------------------------------------------------------------------------------
 */

/* From now on nobody removes it. */
static void hold_layer(struct load *load, const struct digest *diff_id)
{
    const size_t count = load->held_count + 1;

    load->leases = xrealloc(load->leases, count * sizeof(struct layer_lease *));
    load->held = xrealloc(load->held, count * sizeof(*load->held));
    load->leases[load->held_count] = layer_lease_new(load->store, diff_id, 1);
    load->held[load->held_count++] = *diff_id;
}

/* Whether the store has it already, by its name. */
static bool await_find_layer(struct load *load, struct member *member, struct error *err)
{
    struct digest diff_id = member->hint;

    if (member->format == LAYER_PLAIN)
        member->present = layer_find(load->store, &diff_id, &member->layer);
    else if (digest_is_set(&member->named)) {
        if (!await_layer_find_blob(load->store, &member->named, &diff_id, err))
            return false;
        member->present = layer_find(load->store, &diff_id, &member->layer);
    }
    if (member->present)
        hold_layer(load, &member->layer.diff_id);
    return true;
}

/* Before the first byte of a large one. */
static bool await_check_space(struct load *load, const struct member *member, struct error *err)
{
    struct space space;

    if (member->size_bytes < SPACE_CHECK_MIN_BYTES)
        return true;
    return (await_space(load->store, member->size_bytes, &space, err) &&
            space_check(load->store, &space, member->size_bytes, 0, err)) ||
           error_prefix(err, "member \"%s\" of %s", member->path,
                        size_text(member->size_bytes).text);
}

static bool check_digest(const struct member *member, struct error *err)
{
    const struct digest *expected = digest_is_set(&member->named) ? &member->named : &member->hint;

    if (digest_eq(&member->digest, expected) ||
        (!digest_is_set(&member->named) && (!member->present || !digest_is_set(expected))))
        return true;
    return error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                     "it is not what its name says, its digest is %s", member->digest.text);
}

static bool await_finish_layer(struct load *load, struct member *member,
                               struct layer_intake *intake, struct error *err)
{
    struct layer_received received;

    if (!await_layer_intake_finish(intake, &received, err))
        return false;
    member->digest = received.digest;
    if (!member->present) {
        member->layer = received.info;
        hold_layer(load, &received.info.diff_id);
    }
    return check_digest(member, err);
}

/* What is wrong with a layer's bytes matters once an image has it: others may lie about that are
 * no layers at all. */
static bool note_failure(struct member *member, struct error *failure, struct error *err)
{
    if (failure->code == ERROR_DATA_LOSS) {
        error_move(&member->failure, failure);
        return true;
    }
    error_move(err, failure);
    return error_prefix(err, "member \"%s\"", member->path);
}

/* A layer whose bytes are there: while it is made durable, others come. */
struct finisher {
    struct load *load;
    struct member *member;
    struct layer_intake *intake;
};

static void finisher_done_await(struct finisher **ptr)
{
    struct finisher *finisher = *ptr;

    layer_intake_free_await(finisher->intake);
    finisher->load->finishing--;
    wake_all(&finisher->load->finished);
    free(finisher);
}

static bool finish_task(void *arg, struct error *err)
{
    CLEANUP(finisher_done_await) struct finisher *finisher = arg;
    CLEANUP_ERROR struct error failure = {0};

    return await_finish_layer(finisher->load, finisher->member, finisher->intake, &failure) ||
           note_failure(finisher->member, &failure, err);
}

/* Takes the intake over. */
static bool await_finish_later(struct load *load, struct member *member,
                               struct layer_intake *intake, struct error *err)
{
    struct finisher *finisher = xcalloc(1, sizeof(*finisher));
    int r = 0;

    *finisher = (struct finisher){load, member, intake};
    load->finishing++;
    while (r >= 0 && load->finishing > FINISHING_MAX)
        r = await_wake(&load->finished, "storing layers");
    if (r < 0)
        await_error(err, r, "storing layers");
    else if (error_is_set(&load->finishers.first_error))
        error_copy(err, &load->finishers.first_error);
    else if (task_spawn(&load->finishers, "layer", member->path, finish_task, finisher, err))
        return true;
    finisher_done_await(&finisher);
    return false;
}

/* --- Members -----------------------------------------------------------------------------------
 */

/* A member on its way in. */
struct arrival {
    struct load *load;
    struct member *member; /* the table's */
    struct layer_intake *intake;
};

static void arrival_done_await(struct arrival *arrival)
{
    layer_intake_free_await(arrival->intake);
}

static bool await_begin_layer(struct arrival *arrival, struct error *err)
{
    struct load *load = arrival->load;
    struct member *member = arrival->member;
    struct layer_intake_options options = {.store = load->store, .format = member->format};

    if (!await_find_layer(load, member, err) ||
        (!member->present && !await_check_space(load, member, err)))
        return false;
    options.hash_only = member->present;
    arrival->intake = await_layer_intake_new(&options, err);
    return arrival->intake;
}

static bool check_others(struct load *load, const char *path, uint64_t size, struct error *err)
{
    load->others_bytes += size;
    return load->others_bytes <= OTHERS_MAX_BYTES ||
           error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                     "member \"%s\" of %s is nothing of an image: refused", path,
                     size_text(size).text);
}

/* Now that it is known what it is. */
static bool await_begin(struct arrival *arrival, const char *path, uint64_t size, const void *head,
                        size_t head_size, struct error *err)
{
    struct load *load = arrival->load;
    enum member_kind kind = member_kind_of(path, size, head, head_size);
    struct member *member;

    if (kind == MEMBER_OTHER && !check_others(load, path, size, err))
        return false;
    if (kind == MEMBER_OTHER && size <= DOCUMENT_MAX_BYTES)
        return true; /* nobody will ask for it */
    member = member_new(path, kind, size);
    if (kind == MEMBER_LAYER)
        member->format = layer_format_of(head, head_size);
    if (!members_add(&load->members, member, err))
        return false;
    if (kind == MEMBER_OTHER)
        return true;
    arrival->member = member;
    if (kind == MEMBER_LAYER)
        return await_begin_layer(arrival, err);
    member->data = xcalloc(1, size + 1);
    return true;
}

static bool await_take(struct arrival *arrival, const void *data, size_t size, struct error *err)
{
    CLEANUP_ERROR struct error failure = {0};
    struct member *member = arrival->member;

    if (!member || size == 0)
        return true;
    if (member->kind == MEMBER_DOCUMENT)
        memcpy(member->data + member->done_bytes, data, size);
    member->done_bytes += size;
    if (!arrival->intake || await_layer_intake_add(arrival->intake, data, size, &failure))
        return true;
    arrival->intake = layer_intake_free_await(arrival->intake);
    return note_failure(member, &failure, err);
}

/* The next bytes of a member that is not at its end. */
static bool await_piece(struct load *load, struct archive_piece *ret, struct error *err)
{
    int r = await_archive_opener_next(load->opener, ret, err);

    if (r > 0 && !ret->is_member)
        return true;
    return r < 0 ? false
                 : error_set(err, ERROR_INTERNAL, "UNPACKER_FAILED",
                             "the process that reads the archive leaves out bytes of a member");
}

static bool await_file(struct load *load, const char *path, uint64_t size, struct error *err)
{
    CLEANUP(arrival_done_await) struct arrival arrival = {.load = load};
    uint8_t head[MEMBER_HEAD_BYTES];
    const size_t head_size = (size_t)MIN(size, sizeof(head));
    struct archive_piece piece = {0};
    size_t got = 0, used = 0;
    uint64_t left = size - head_size;

    while (got < head_size) {
        if (!await_piece(load, &piece, err))
            return false;
        used = MIN(piece.size, head_size - got);
        memcpy(head + got, piece.data, used);
        got += used;
    }
    if (!await_begin(&arrival, path, size, head, head_size, err) ||
        !await_take(&arrival, head, head_size, err))
        return false;
    if (piece.size > used) {
        left -= piece.size - used;
        if (!await_take(&arrival, piece.data + used, piece.size - used, err))
            return false;
    }
    while (left > 0) {
        if (!await_piece(load, &piece, err) || !await_take(&arrival, piece.data, piece.size, err))
            return false;
        left -= piece.size;
    }
    return !arrival.intake || await_finish_later(load, arrival.member, TAKE(arrival.intake), err);
}

static bool await_member(struct load *load, const struct frame_member *frame, struct error *err)
{
    CLEANUP_FREE char *path = NULL;
    struct member *link;

    if (!frame->is_link) {
        path = xstrdup(frame->path); /* the frame goes with the next piece */
        return await_file(load, path, frame->size_bytes, err);
    }
    link = member_new(frame->path, MEMBER_LINK, 0);
    link->target = xstrdup(frame->target);
    return members_add(&load->members, link, err);
}

/* Says which archive is wrong, where it is not said which of its members. */
static bool name_archive(const struct load *load, struct error *err)
{
    if (err && err->code == ERROR_DATA_LOSS && !str_starts(err->message, "member "))
        error_prefix(err, "%s", load->source->name);
    return false;
}

static bool await_members(struct load *load, struct error *err)
{
    struct archive_piece piece;
    int r;

    while ((r = await_archive_opener_next(load->opener, &piece, err)) > 0) {
        if (!await_member(load, &piece.member, err))
            return false;
    }
    return r == 0 || name_archive(load, err);
}

/* The same, and until their layers are stored. */
static bool await_stored(struct load *load, struct error *err)
{
    bool ok;

    group_init(&load->finishers);
    ok = await_members(load, err) && await_group(&load->finishers, err);
    group_done_await(&load->finishers);
    return ok;
}

static bool empty_archive(const struct load *load, struct error *err)
{
    return error_set(err, ERROR_INVALID_ARGUMENT, "EMPTY_ARCHIVE", "%s: the archive is empty",
                     load->source->name);
}

/* All of the archive, in both directions at once. */
static bool await_archive(struct load *load, struct error *err)
{
    CLEANUP_ERROR struct error failure = {0};
    CLEANUP(group_done_await) struct group feeder;
    bool ok;

    group_init(&feeder);
    ok = task_spawn(&feeder, "archive", NULL, feed_task, load, err) && await_stored(load, &failure);
    group_cancel(&feeder);
    if (!await_group(&feeder, err))
        return false;
    /* If it did not come whole, that is what is wrong. */
    if (error_is_set(&load->source_error) && load->source_error.code != ERROR_CANCELLED)
        return error_move(err, &load->source_error);
    if (!ok)
        return error_is_set(&failure) ? error_move(err, &failure) : false;
    return archive_opener_input_bytes(load->opener) > 0 || empty_archive(load, err);
}

/* --- Images ------------------------------------------------------------------------------------
 */

struct plan_work {
    struct load *load;
    bool ok;
    struct error err;
};

static void plan_in_pool(void *arg)
{
    struct plan_work *work = arg;
    struct load *load = work->load;

    work->ok =
        load_plan_make(&load->plan, &load->members, &load->platform, &work->err) &&
        (str_empty(load->wanted) || load_plan_check(&load->plan, &load->platform, &work->err));
}

static bool await_plan(struct load *load, struct error *err)
{
    struct plan_work work = {.load = load};
    int r = await_work(plan_in_pool, &work, "reading documents");

    if (r < 0)
        return await_error(err, r, "reading documents");
    return work.ok || error_move(err, &work.err) || name_archive(load, err);
}

/* What an image is committed from, beside the plan. */
struct making {
    struct image image;
    struct layer_blob *blobs;
    struct image_data there; /* of the same image, which is in the store */
    char *manifest;
    struct event_note event;
};

struct makings {
    struct making *items;
    size_t count;
};

static void makings_done(struct makings *makings)
{
    for (size_t i = 0; i < makings->count; i++) {
        image_data_done(&makings->items[i].there);
        free(makings->items[i].blobs);
        free(makings->items[i].manifest);
    }
    free(makings->items);
}

/* The manifest that came with it. */
static void use_manifest(struct making *making, const struct planned_image *planned)
{
    const struct manifest *manifest = planned->manifest;

    making->image.manifest_data = planned->manifest_member->data;
    making->image.manifest_size = planned->manifest_member->size_bytes;
    making->image.manifest_digest = planned->manifest_member->digest;
    making->blobs = xcalloc(manifest->layer_count + 1, sizeof(*making->blobs));
    for (size_t i = 0; i < manifest->layer_count; i++)
        making->blobs[i] = (struct layer_blob){
            .digest = manifest->layers[i].digest,
            .media_type = manifest->layers[i].media_type,
            .size_bytes = manifest->layers[i].size_bytes,
        };
    making->image.blobs = making->blobs;
    making->image.repository = "";
}

static void make_manifest(struct making *making, const struct planned_image *planned)
{
    const size_t count = planned->config->diff_id_count;
    CLEANUP_FREE struct layer_info *layers = xcalloc(count + 1, sizeof(*layers));

    for (size_t i = 0; i < count; i++)
        layers[i] = planned->layers[i]->layer;
    making->manifest =
        plain_manifest(&planned->id, planned->config_member->size_bytes, layers, count);
    making->image.manifest_data = making->manifest;
    making->image.manifest_size = strlen(making->manifest);
    making->image.manifest_digest =
        digest_of(making->image.manifest_data, making->image.manifest_size);
}

/* One that the store has for the image is better than one that is made: registries know it. */
static bool await_choose_manifest(struct load *load, struct making *making,
                                  const struct planned_image *planned, struct error *err)
{
    if (planned->manifest) {
        use_manifest(making, planned);
        return true;
    }
    if (await_image_data(load->store, &planned->id, &making->there, err)) {
        making->image.manifest_data = making->there.manifest;
        making->image.manifest_size = making->there.manifest_size;
        making->image.manifest_digest = making->there.manifest_digest;
    } else if (error_is(err, "IMAGE_NOT_FOUND") || error_is(err, "IMAGE_DAMAGED")) {
        error_done(err);
        make_manifest(making, planned);
    } else
        return false;
    return true;
}

static bool await_make(struct load *load, struct making *making,
                       const struct planned_image *planned, struct error *err)
{
    const struct image_config *config = planned->config;

    making->event = (struct event_note){.action = "load",
                                        .actor = planned->id.text,
                                        .name = planned->id.text,
                                        .image = &planned->id};
    making->image = (struct image){
        .id = planned->id,
        .config_data = planned->config_member->data,
        .config_size = planned->config_member->size_bytes,
        .event = &making->event,
        .created_unix_ns = config->created_unix_ns,
        .os = config->os,
        .architecture = config->architecture,
        .parent = planned->parent,
        .diff_ids = config->diff_ids,
        .diff_id_count = config->diff_id_count,
    };
    return await_choose_manifest(load, making, planned, err);
}

static bool await_commit(struct load *load, struct error *err)
{
    const size_t count = load->plan.count;
    CLEANUP(makings_done)
    struct makings makings = {xcalloc(count + 1, sizeof(*makings.items)), count};
    CLEANUP_ERROR struct error failure = {0};

    load->phase = LOAD_COMMITTING;
    load->commits = xcalloc(count + 1, sizeof(*load->commits));
    for (size_t i = 0; i < count; i++) {
        const struct planned_image *planned = &load->plan.images[i];
        if (!await_make(load, &makings.items[i], planned, &failure))
            return error_move(err, &failure);
        load->commits[i].image = &makings.items[i].image;
        load->commits[i].tags = planned->names;
    }
    return await_images_commit(load->store, load->commits, count, NULL, 0, err);
}

/* --- All of it ---------------------------------------------------------------------------------
 */

static void opener_done_await(struct load **load)
{
    if ((*load)->opener)
        (*load)->bytes_read = archive_opener_input_bytes((*load)->opener);
    archive_opener_free_await((*load)->opener);
    (*load)->opener = NULL;
}

/* What was stored and is of no image goes. Also for a cancelled task. */
static void layers_done_await(struct load **ptr)
{
    struct load *load = *ptr;

    for (size_t i = 0; i < load->held_count; i++)
        layer_lease_free(load->leases[i]);
    layers_drop_await(load->store, load->held, load->held_count, load->begun_unix_ns);
    load->held_count = 0;
}

static void explain_failure_await(struct load *load, struct error *err)
{
    CLEANUP(task_unshield) struct task_shield shield UNUSED = task_shield();
    struct space space;

    if (error_is(err, "NO_SPACE") && await_space(load->store, 0, &space, NULL))
        space_hint(load->store, &space, err);
}

static bool await_read_and_commit(struct load *load, struct error *err)
{
    CLEANUP(layers_done_await) struct load *layers = load;
    CLEANUP(opener_done_await) struct load *opener = load;

    load->opener = await_archive_opener_start(load->store, ARCHIVE_MEMBERS, err);
    return load->opener && await_archive(load, err) && await_plan(load, err) &&
           await_commit(load, err);
}

bool await_load(struct load *load, struct error *err)
{
    load->begun_ms = now_ms();
    load->begun_unix_ns = wall_clock_ns();
    if (!platform_parse(load->wanted, &load->platform, err))
        return false;
    if (!await_read_and_commit(load, err)) {
        if (err)
            explain_failure_await(load, err);
        return false;
    }
    load->phase = LOAD_DONE;
    log_info("loaded images", LOG("count", load->plan.count));
    return true;
}

size_t load_count(const struct load *load)
{
    return load->plan.count;
}

struct loaded_image load_result(const struct load *load, size_t index)
{
    return (struct loaded_image){
        .id = load->plan.images[index].id,
        .names = load->plan.images[index].names,
        .moved_from = load->commits[index].moved_from,
    };
}

/* --- Looking at it -----------------------------------------------------------------------------
 */

static struct load_layer_progress layer_progress(const struct member *member)
{
    const struct digest *known = digest_is_set(&member->layer.diff_id) ? &member->layer.diff_id
                                 : digest_is_set(&member->named)       ? &member->named
                                                                       : &member->hint;

    return (struct load_layer_progress){
        .id = digest_is_set(known) ? known->text : member->path,
        .state = member->present                         ? LOAD_LAYER_PRESENT
                 : digest_is_set(&member->layer.diff_id) ? LOAD_LAYER_DONE
                                                         : LOAD_LAYER_LOADING,
        .bytes_done = member->done_bytes,
        .bytes_total = member->size_bytes,
    };
}

void load_progress(struct load *load, struct load_progress *ret)
{
    const struct members *members = &load->members;
    size_t first = members->layer_count - MIN(members->layer_count, LOAD_PROGRESS_LAYERS);
    uint64_t elapsed_ms = now_ms() - load->begun_ms;

    *ret = (struct load_progress){.phase = load->phase,
                                  .bytes_total = load->source->bytes_total,
                                  .eta_ms = -1};
    ret->bytes_read = load->opener ? archive_opener_input_bytes(load->opener) : load->bytes_read;
    if (load->phase != LOAD_READING && ret->bytes_total > 0)
        ret->bytes_read = ret->bytes_total;
    if (load->begun_ms && elapsed_ms > 0)
        ret->bytes_per_second = ret->bytes_read * 1000 / elapsed_ms;
    if (ret->bytes_total > 0)
        load->percent =
            MAX(load->percent, MIN(99, (unsigned int)(ret->bytes_read * 100 / ret->bytes_total)));
    if (ret->bytes_total > ret->bytes_read && ret->bytes_per_second > 0)
        ret->eta_ms =
            (int64_t)((ret->bytes_total - ret->bytes_read) * 1000 / ret->bytes_per_second);
    ret->percent = load->phase == LOAD_DONE ? 100 : load->percent;
    for (size_t i = first; i < members->layer_count; i++)
        ret->layers[ret->layer_count++] = layer_progress(members->layers[i]);
}
