/* The part of store.h that containers use, over directories. */
#include <errno.h>

#include "tests/unit/daemon/container/run_fixture.h"

struct store {
    struct image image;
    char *config;
    char **layer_dirs;
    int holds, mounts, leases;
    size_t failing_layer;
};

static struct digest number_digest(size_t number)
{
    char text[32];

    snprintf(text, sizeof(text), "layer %zu", number);
    return digest_of(text, strlen(text));
}

struct store *stub_store_new(const char *config, char *const *layer_dirs, size_t count)
{
    struct store *store = xcalloc(1, sizeof(*store));

    store->config = xstrdup(config);
    store->layer_dirs = xcalloc(count + 1, sizeof(char *));
    store->image.id = digest_of(config, strlen(config));
    store->image.diff_ids = xcalloc(count + 1, sizeof(struct digest));
    store->image.diff_id_count = count;
    store->failing_layer = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        store->layer_dirs[i] = xstrdup(layer_dirs[i]);
        store->image.diff_ids[i] = number_digest(i);
    }
    return store;
}

struct store *stub_store_free(struct store *store)
{
    int holds = store->holds, mounts = store->mounts, leases = store->leases;

    strv_free(store->layer_dirs);
    free(store->image.diff_ids);
    free(store->config);
    free(store);
    assert_int_equal(holds, 0);
    assert_int_equal(mounts, 0);
    assert_int_equal(leases, 0);
    return NULL;
}

struct digest stub_image(const struct store *store)
{
    return store->image.id;
}

void stub_fail_mount(struct store *store, size_t layer)
{
    store->failing_layer = layer;
}

const struct image *image_find_id(const struct store *store, const char *prefix,
                                  bool *ret_ambiguous)
{
    *ret_ambiguous = false;
    return str_eq(prefix, store->image.id.text) ? &store->image : NULL;
}

bool await_image_data(struct store *store, const struct digest *id UNUSED, struct image_data *ret,
                      struct error *err)
{
    int r = await_yield();

    if (r < 0)
        return await_error(err, r, "reading an image");
    *ret =
        (struct image_data){.config = xstrdup(store->config), .config_size = strlen(store->config)};
    return true;
}

void image_data_done(struct image_data *data)
{
    free(data->manifest);
    free(data->config);
    *data = (struct image_data){0};
}

bool await_layer_mount(struct store *store, const struct digest *diff_id, char **ret_path,
                       struct error *err)
{
    int r = await_yield();

    if (r < 0)
        return await_error(err, r, "mounting a layer");
    for (size_t i = 0; i < store->image.diff_id_count; i++) {
        if (!digest_eq(&store->image.diff_ids[i], diff_id))
            continue;
        if (i == store->failing_layer)
            return error_set_errno(err, EIO, "cannot mount layer %zu", i);
        *ret_path = xstrdup(store->layer_dirs[i]);
        store->mounts++;
        return true;
    }
    fail_msg("no layer %s", diff_id->text);
    return false;
}

void layer_unmount_await(struct store *store, const struct digest *diff_id UNUSED)
{
    store->mounts--;
}

struct image_hold *image_hold_new(struct store *store, const struct digest *id,
                                  const char *container_id UNUSED, bool running UNUSED)
{
    assert_true(digest_eq(id, &store->image.id));
    store->holds++;
    return (struct image_hold *)store;
}

void image_hold_set_running(struct image_hold *hold UNUSED, bool running UNUSED)
{
}

struct image_hold *image_hold_free(struct image_hold *hold)
{
    if (hold)
        ((struct store *)hold)->holds--;
    return NULL;
}

struct layer_lease *layer_lease_new(struct store *store, const struct digest *diff_ids UNUSED,
                                    size_t count UNUSED)
{
    store->leases++;
    return (struct layer_lease *)store;
}

struct layer_lease *layer_lease_free(struct layer_lease *lease)
{
    if (lease)
        ((struct store *)lease)->leases--;
    return NULL;
}
