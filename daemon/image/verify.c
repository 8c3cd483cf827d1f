#include "daemon/image/verify.h"

#include "daemon/image/image.h"
#include "proto/base/log.h"
#include "proto/base/map.h"

/* Layers that are read at the same time. */
#define VERIFY_WORKERS 2

struct verify_layer {
    struct digest diff_id;
    uint64_t bytes_total;
    struct layer_verification state;
};

struct verify {
    struct pull_engine engine;
    bool repair;
    struct registry_login *logins;
    size_t login_count;
    struct repairer repairer;

    struct digest *images;
    struct verify_layer *layers;
    size_t image_count, layer_count;
    enum verify_phase phase;
    size_t images_done, layers_done, next_layer;
    uint64_t bytes_total, since_ms;

    struct verify_problem **problems;
    size_t problem_count, settled_count, repaired_count;
};

/* --- What there is to do -----------------------------------------------------------------------
 */

static void add_layer(struct verify *verify, struct map *known, const struct digest *diff_id)
{
    struct verify_layer *layer;

    if (map_put(known, diff_id->text, verify))
        return;
    verify->layers = xrealloc(verify->layers, (verify->layer_count + 1) * sizeof(*verify->layers));
    layer = &verify->layers[verify->layer_count++];
    *layer = (struct verify_layer){
        .diff_id = *diff_id,
        .bytes_total = layer_verify_bytes(verify->engine.store, diff_id),
    };
    verify->bytes_total += layer->bytes_total;
}

static void add_image(struct verify *verify, struct map *known, const struct image *image)
{
    if (map_put(known, image->id.text, verify))
        return;
    verify->images = xrealloc(verify->images, (verify->image_count + 1) * sizeof(*verify->images));
    verify->images[verify->image_count++] = image->id;
    for (size_t i = 0; i < image->diff_id_count; i++)
        add_layer(verify, known, &image->diff_ids[i]);
}

static void add_everything(struct verify *verify, struct map *known)
{
    CLEANUP_FREE const struct image **images = NULL;
    CLEANUP_FREE struct digest *layers = NULL;
    size_t image_count, layer_count;

    images = image_list(verify->engine.store, &image_count);
    for (size_t i = 0; i < image_count; i++)
        add_image(verify, known, images[i]);
    layers = layer_list(verify->engine.store, &layer_count); /* also those of no image */
    for (size_t i = 0; i < layer_count; i++)
        add_layer(verify, known, &layers[i]);
}

static void copy_logins(struct verify *verify, const struct verify_request *request)
{
    verify->logins = xcalloc(request->login_count + 1, sizeof(*verify->logins));
    verify->login_count = request->login_count;
    for (size_t i = 0; i < request->login_count; i++) {
        const struct registry_login *login = &request->logins[i];
        verify->logins[i] = (struct registry_login){
            .domain = xstrdup(login->domain),
            .auth = {xstrdup(login->auth.username), xstrdup(login->auth.password),
                     xstrdup(login->auth.identity_token)},
        };
    }
}

struct verify *verify_new(const struct pull_engine *engine, const struct verify_request *request,
                          struct error *err)
{
    CLEANUP(verify_cleanup) struct verify *verify = xcalloc(1, sizeof(*verify));
    CLEANUP(map_cleanup) struct map *known = map_new();

    verify->engine = *engine;
    verify->repair = request->repair;
    copy_logins(verify, request);
    verify->repairer = (struct repairer){
        .engine = &verify->engine,
        .logins = verify->logins,
        .login_count = verify->login_count,
    };
    verify->since_ms = now_ms();
    if (request->image_count == 0)
        add_everything(verify, known);
    for (size_t i = 0; i < request->image_count; i++) {
        const struct image *image = image_resolve(engine->store, request->images[i], err);
        if (!image)
            return NULL;
        add_image(verify, known, image);
    }
    return TAKE(verify);
}

struct verify *verify_free(struct verify *verify)
{
    if (!verify)
        return NULL;
    for (size_t i = 0; i < verify->login_count; i++) {
        free((char *)verify->logins[i].domain);
        free((char *)verify->logins[i].auth.username);
        free_secret((char *)verify->logins[i].auth.password);
        free_secret((char *)verify->logins[i].auth.identity_token);
    }
    for (size_t i = 0; i < verify->problem_count; i++) {
        strv_free(verify->problems[i]->images);
        error_done(&verify->problems[i]->error);
        free(verify->problems[i]);
    }
    free(verify->problems);
    free(verify->logins);
    free(verify->images);
    free(verify->layers);
    free(verify);
    return NULL;
}

/* --- Problems ----------------------------------------------------------------------------------
 */

static char *image_name(const struct image *image)
{
    if (image->tags && *image->tags)
        return image_familiar(*image->tags);
    if (image->repo_digests && *image->repo_digests)
        return image_familiar(*image->repo_digests);
    return xasprintf("%.12s", digest_hex(&image->id));
}

static bool concerns(const struct image *image, const struct verify_problem *problem)
{
    if (digest_is_set(&problem->image))
        return digest_eq(&image->id, &problem->image);
    for (size_t i = 0; i < image->diff_id_count; i++) {
        if (digest_eq(&image->diff_ids[i], &problem->layer))
            return true;
    }
    return false;
}

/* Also those that were not asked for. */
static void find_images(const struct store *store, struct verify_problem *problem)
{
    CLEANUP_FREE const struct image **images = image_list(store, NULL);

    problem->images = xcalloc(VERIFY_IMAGES_NAMED + 1, sizeof(*problem->images));
    for (const struct image **image = images; *image; image++) {
        if (!concerns(*image, problem))
            continue;
        if (problem->image_count < VERIFY_IMAGES_NAMED)
            problem->images[problem->image_count] = image_name(*image);
        problem->image_count++;
    }
}

/* Takes what is wrong over from err. */
static void add_problem(struct verify *verify, const struct digest *image,
                        const struct digest *layer, struct error *err)
{
    struct verify_problem *problem = xcalloc(1, sizeof(*problem));

    if (image)
        problem->image = *image;
    if (layer)
        problem->layer = *layer;
    find_images(verify->engine.store, problem);
    error_move(&problem->error, err);
    if (!problem->error.hint)
        error_hint(&problem->error, "fetch it again with: davit system verify --repair");
    verify->problems =
        xrealloc(verify->problems, (verify->problem_count + 1) * sizeof(struct verify_problem *));
    verify->problems[verify->problem_count++] = problem;
    if (!verify->repair)
        verify->settled_count++;
}

/* --- Reading -----------------------------------------------------------------------------------
 */

static bool await_check_images(struct verify *verify, struct error *err)
{
    for (size_t i = 0; i < verify->image_count; i++) {
        CLEANUP(image_data_done) struct image_data data = {0};
        if (!await_image_data(verify->engine.store, &verify->images[i], &data, err)) {
            if (error_is(err, "IMAGE_DAMAGED"))
                add_problem(verify, &verify->images[i], NULL, err);
            else if (!error_is(err, "IMAGE_NOT_FOUND")) /* removed since */
                return false;
            error_done(err);
        }
        verify->images_done++;
    }
    return true;
}

/* Whether an image needs the layer, so that its absence is a problem. */
static bool is_needed(const struct verify *verify, const struct digest *diff_id)
{
    CLEANUP_FREE const struct image **images = image_list(verify->engine.store, NULL);
    const struct verify_problem problem = {.layer = *diff_id};

    for (const struct image **image = images; *image; image++) {
        if (concerns(*image, &problem))
            return true;
    }
    return false;
}

static bool await_check_layer(struct verify *verify, struct verify_layer *layer, struct error *err)
{
    bool ok;

    do {
        error_done(err);
        ok = await_layer_verify(verify->engine.store, &layer->diff_id, &layer->state, err);
    } while (!ok && error_is(err, "LAYER_REPLACED"));
    if (ok)
        return true;
    if (err->code == ERROR_CANCELLED)
        return false;
    if (!error_is(err, "LAYER_NOT_FOUND"))
        add_problem(verify, NULL, &layer->diff_id, err);
    else if (is_needed(verify, &layer->diff_id)) {
        error_set(err, ERROR_DATA_LOSS, "LAYER_MISSING", "it is not in the store");
        add_problem(verify, NULL, &layer->diff_id, err);
    }
    error_done(err);
    layer->state.bytes_done = layer->bytes_total;
    return true;
}

static bool worker_task(void *arg, struct error *err)
{
    struct verify *verify = arg;

    while (verify->next_layer < verify->layer_count) {
        if (!await_check_layer(verify, &verify->layers[verify->next_layer++], err))
            return false;
        verify->layers_done++;
    }
    return true;
}

static bool await_check_layers(struct verify *verify, struct error *err)
{
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    for (size_t i = 0; i < VERIFY_WORKERS; i++) {
        if (!task_spawn(&group, "verify", NULL, worker_task, verify, err))
            return false;
    }
    return await_group(&group, err);
}

/* --- Repairing ---------------------------------------------------------------------------------
 */

static bool await_repair(struct verify *verify, struct verify_problem *problem, struct error *err)
{
    bool is_image = digest_is_set(&problem->image);

    if (is_image ? await_repair_image(&verify->repairer, &problem->image, err)
                 : await_repair_layer(&verify->repairer, &problem->layer, err)) {
        log_info("fetched again what was damaged",
                 LOG("digest",
                     (const char *)(is_image ? problem->image.text : problem->layer.text)));
        problem->repaired = true;
        verify->repaired_count++;
        return true;
    }
    if (err->code == ERROR_CANCELLED)
        return false;
    error_prefix(err, "%s; it could not be repaired", problem->error.message);
    if (!err->hint)
        error_hint(err, "try again, or remove the image and pull it again");
    error_move(&problem->error, err);
    return true;
}

/* Images first: their manifests know where their layers are. */
static bool await_repair_all(struct verify *verify, struct error *err)
{
    verify->phase = VERIFY_REPAIRING;
    while (verify->settled_count < verify->problem_count) {
        if (!await_repair(verify, verify->problems[verify->settled_count], err))
            return false;
        verify->settled_count++;
    }
    return true;
}

bool await_verify(struct verify *verify, struct error *err)
{
    if (!await_check_images(verify, err) || !await_check_layers(verify, err) ||
        (verify->repair && !await_repair_all(verify, err)))
        return error_prefix(err, "cannot verify everything");
    verify->phase = VERIFY_DONE;
    log_info("verified", LOG("images", verify->images_done), LOG("layers", verify->layers_done),
             LOG("bytes", verify->bytes_total), LOG("problems", verify->problem_count),
             LOG("repaired", verify->repaired_count));
    return true;
}

/* --- Looking at it -----------------------------------------------------------------------------
 */

void verify_progress(const struct verify *verify, struct verify_progress *ret)
{
    uint64_t elapsed_ms = now_ms() - verify->since_ms;

    *ret = (struct verify_progress){
        .phase = verify->phase,
        .images_done = verify->images_done,
        .images_total = verify->image_count,
        .layers_done = verify->layers_done,
        .layers_total = verify->layer_count,
        .bytes_total = verify->bytes_total,
        .eta_ms = -1,
        .problem_count = verify->problem_count,
        .repaired_count = verify->repaired_count,
    };
    for (size_t i = 0; i < verify->layer_count; i++)
        ret->bytes_done += MIN(verify->layers[i].state.bytes_done, verify->layers[i].bytes_total);
    if (elapsed_ms > 0 && verify->phase == VERIFY_CHECKING)
        ret->bytes_per_second = ret->bytes_done * 1000 / elapsed_ms;
    if (ret->bytes_per_second > 0)
        ret->eta_ms =
            (int64_t)((ret->bytes_total - ret->bytes_done) * 1000 / ret->bytes_per_second);
    if (verify->repairer.share) {
        ret->repair_bytes_done = transfer_progress(verify->repairer.share).bytes_fetched;
        ret->repair_bytes_total = transfer_blob_bytes(verify->repairer.share);
    }
}

const struct verify_problem *verify_settled_problem(const struct verify *verify, size_t index)
{
    return index < verify->settled_count ? verify->problems[index] : NULL;
}
