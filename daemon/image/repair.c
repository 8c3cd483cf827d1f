#include "daemon/image/repair.h"

/* --- Where to look -----------------------------------------------------------------------------
 */

struct candidate {
    struct descriptor blob; /* not set for images */
    char *repository;
};

struct candidates {
    struct candidate *items;
    size_t count;
};

static void candidates_done(struct candidates *candidates)
{
    for (size_t i = 0; i < candidates->count; i++) {
        free(candidates->items[i].blob.media_type);
        free(candidates->items[i].repository);
    }
    free(candidates->items);
}

/* The descriptor is copied. */
static void add_candidate(struct candidates *candidates, const struct descriptor *blob,
                          const char *repository)
{
    struct candidate *added;

    for (size_t i = 0; i < candidates->count; i++) {
        const struct candidate *known = &candidates->items[i];
        if (str_eq(known->repository, repository) && digest_eq(&known->blob.digest, &blob->digest))
            return;
    }
    candidates->items =
        xrealloc(candidates->items, (candidates->count + 1) * sizeof(*candidates->items));
    added = &candidates->items[candidates->count++];
    added->blob = *blob;
    added->blob.media_type = xstrdup(blob->media_type);
    added->repository = xstrdup(repository);
}

/* The repositories that an image has names in. */
static void add_repositories(struct candidates *candidates, const struct descriptor *blob,
                             char *const *names)
{
    for (; names && *names; names++) {
        CLEANUP_REFERENCE struct reference reference = {0};
        CLEANUP_FREE char *repository = NULL;
        if (!reference_parse(*names, &reference, NULL))
            continue;
        repository = reference_name(&reference);
        add_candidate(candidates, blob, repository);
    }
}

/* What the manifest of an image says of the layer. */
static bool await_add_of_image(struct candidates *candidates, struct store *store,
                               const struct digest *id, const struct digest *diff_id,
                               struct error *err)
{
    CLEANUP(image_data_done) struct image_data data = {0};
    CLEANUP(manifest_cleanup) struct manifest *manifest = NULL;
    const struct image *image;

    if (!await_image_data(store, id, &data, err))
        return err->code != ERROR_CANCELLED;
    manifest = manifest_parse(data.manifest, data.manifest_size, NULL, err);
    image = image_find_id(store, id->text, NULL);
    for (size_t i = 0; manifest && image && i < image->diff_id_count; i++) {
        if (i >= manifest->layer_count || !digest_eq(&image->diff_ids[i], diff_id))
            continue;
        add_repositories(candidates, &manifest->layers[i], image->repo_digests);
        add_repositories(candidates, &manifest->layers[i], image->tags);
    }
    return true;
}

static bool has_layer(const struct image *image, const struct digest *diff_id)
{
    for (size_t i = 0; i < image->diff_id_count; i++) {
        if (digest_eq(&image->diff_ids[i], diff_id))
            return true;
    }
    return false;
}

static bool await_find_candidates(struct store *store, const struct digest *diff_id,
                                  struct candidates *ret, struct error *err)
{
    CLEANUP(layer_sources_done) struct layer_sources sources = {0};
    CLEANUP_FREE const struct image **images = NULL;
    CLEANUP_FREE struct digest *ids = NULL;
    size_t image_count, count = 0;

    if (!await_layer_sources(store, diff_id, &sources, err))
        return false;
    for (size_t i = 0; i < sources.count; i++) {
        const struct layer_source *source = &sources.items[i];
        const struct descriptor blob = {source->blob.media_type, source->blob.digest,
                                        source->blob.size_bytes};
        add_candidate(ret, &blob, source->repository);
    }
    /* These know it too if its row is lost. */
    images = image_list(store, &image_count);
    ids = xcalloc(image_count + 1, sizeof(*ids));
    for (size_t i = 0; i < image_count; i++) {
        if (has_layer(images[i], diff_id))
            ids[count++] = images[i]->id;
    }
    for (size_t i = 0; i < count; i++) {
        if (!await_add_of_image(ret, store, &ids[i], diff_id, err))
            return false;
        error_done(err);
    }
    return true;
}

static const struct registry_auth *find_auth(const struct repairer *repairer,
                                             const struct reference *reference)
{
    for (size_t i = 0; i < repairer->login_count; i++) {
        if (str_eq(repairer->logins[i].domain, reference->domain))
            return &repairer->logins[i].auth;
    }
    return NULL;
}

static bool no_source(struct error *err)
{
    error_set(err, ERROR_FAILED_PRECONDITION, "NO_SOURCE", "no registry is known that has it");
    return error_hint(err, "remove the image and pull it again");
}

/* Whether another source may do better. */
static bool worth_another(const struct error *err)
{
    return err->code != ERROR_CANCELLED && err->code != ERROR_RESOURCE_EXHAUSTED &&
           !error_is(err, "LAYER_IN_USE");
}

/* --- Layers ------------------------------------------------------------------------------------
 */

static bool await_fetch_layer(struct repairer *repairer, const struct candidate *candidate,
                              const struct digest *diff_id, struct error *err)
{
    CLEANUP_REFERENCE struct reference reference = {0};
    CLEANUP_SOURCE_LIST struct source_list sources = {0};
    struct requester *requester;
    bool ok;

    if (!reference_parse(candidate->repository, &reference, err) ||
        !await_registry_sources(repairer->engine->registry, &reference,
                                find_auth(repairer, &reference), SOURCE_PULL, &sources, err))
        return false;
    requester = requester_new(0);
    repairer->share = transfer_join(repairer->engine->transfers,
                                    &(struct transfer_request){
                                        .requester = requester,
                                        .sources = &sources,
                                        .blob = &candidate->blob,
                                        .diff_id = diff_id,
                                    },
                                    err);
    ok = repairer->share && await_transfer(repairer->share, err);
    repairer->share = transfer_leave(repairer->share);
    requester_free(requester);
    return ok || error_prefix(err, "%s", candidate->repository);
}

bool await_repair_layer(struct repairer *repairer, const struct digest *diff_id, struct error *err)
{
    struct store *store = repairer->engine->store;
    CLEANUP(candidates_done) struct candidates candidates = {0};
    struct layer_lease *lease = layer_lease_new(store, diff_id, 1);
    bool ok = await_find_candidates(store, diff_id, &candidates, err);

    if (ok)
        ok = no_source(err); /* unless there is one */
    for (size_t i = 0; !ok && i < candidates.count; i++) {
        error_done(err);
        ok = await_fetch_layer(repairer, &candidates.items[i], diff_id, err);
        if (!ok && !worth_another(err))
            break;
    }
    layer_lease_free(lease);
    return ok;
}

/* --- Images ------------------------------------------------------------------------------------
 */

static bool await_fetch_image(struct repairer *repairer, const char *repository,
                              const struct image *wanted, const struct platform *platform,
                              struct error *err)
{
    CLEANUP_REFERENCE struct reference reference = {0};
    CLEANUP_FREE char *text = xasprintf("%s@%s", repository, wanted->manifest_digest.text);
    CLEANUP(resolved_image_cleanup) struct resolved_image *resolved = NULL;
    struct image image = *wanted;

    if (!reference_parse(text, &reference, err))
        return false;
    resolved = await_registry_resolve(repairer->engine->registry, &reference,
                                      find_auth(repairer, &reference), platform, NULL, err);
    if (!resolved)
        return false;
    if (!digest_eq(&resolved->manifest->config.digest, &wanted->id))
        return error_set(err, ERROR_DATA_LOSS, "DIGEST_MISMATCH",
                         "%s: the manifest is of another image, %.19s", text,
                         resolved->manifest->config.digest.text);
    image.manifest_data = resolved->manifest_data;
    image.manifest_size = resolved->manifest_size;
    image.config_data = resolved->config_data;
    image.config_size = resolved->config_size;
    return await_image_restore(repairer->engine->store, &image, err);
}

bool await_repair_image(struct repairer *repairer, const struct digest *id, struct error *err)
{
    static const struct descriptor none = {0};
    const struct image *image = image_find_id(repairer->engine->store, id->text, NULL);
    CLEANUP(candidates_done) struct candidates candidates = {0};
    CLEANUP_PLATFORM struct platform platform = {0};
    CLEANUP_FREE char *platform_text = NULL;
    struct image wanted = {0};
    bool ok;

    if (!image)
        return error_set(err, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "there is no image %.19s",
                         id->text);
    wanted.id = image->id;
    wanted.manifest_digest = image->manifest_digest;
    add_repositories(&candidates, &none, image->repo_digests);
    add_repositories(&candidates, &none, image->tags);
    platform_text = xasprintf("%s/%s", image->os, image->architecture);
    if (!platform_parse(platform_text, &platform, err))
        return false;
    ok = no_source(err); /* unless there is one */
    for (size_t i = 0; !ok && i < candidates.count; i++) {
        error_done(err);
        ok = await_fetch_image(repairer, candidates.items[i].repository, &wanted, &platform, err);
        if (!ok && !worth_another(err))
            break;
    }
    return ok;
}
