/* Garbage collection while everything else goes on: nothing that is referenced is ever removed, and
 * nothing that is not stays past the grace time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "tests/unit/daemon/store/fixture.h"

#define LAYERS 6
#define USERS 8
#define ROUNDS 8

/* The collector of this store runs all the time. */
static struct store *await_open_collecting(const char *name, struct error *err)
{
    CLEANUP_FREE char *data_root = xasprintf("%s/%s", scratch_directory(), name);

    return await_store_open(&(struct store_options){.data_root = data_root,
                                                    .driver = test_driver(),
                                                    .programs_dir = PROGRAMS_DIR,
                                                    .layer_grace_ms = 1},
                            err);
}

/* Until the collector has gone by: it takes a layer that nothing uses. */
static void await_collector(struct store *store)
{
    static unsigned int number;
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_STRBUF struct strbuf tar = {0};
    CLEANUP_FREE char *content = xasprintf("unused %u", number++);
    struct digest diff_id = make_layer(&tar, "unused", content);

    if (!await_store_layer(store, &diff_id, &tar, NULL, &err))
        die("%s", err.message);
    while (layer_find(store, &diff_id, NULL))
        CHECK(await_sleep(1) == 0);
}

static void await_nothing(struct store *store, const char *name)
{
    CLEANUP_FREE char *layers = xasprintf("%s/layers", name);
    CLEANUP_FREE char *tmp = xasprintf("%s/tmp", name);
    size_t count = 1;

    while (count > 0 || count_entries(layers) > 0 || count_entries(tmp) > 0) {
        CLEANUP_FREE struct digest *left = layer_list(store, &count);
        CHECK(await_sleep(1) == 0);
    }
}

/* --- Many at once ------------------------------------------------------------------------------
 */

struct user {
    struct store *store;
    const struct strbuf *tars; /* LAYERS of them */
    const struct digest *diff_ids;
    unsigned int number, seed;
};

/* The layers of an image of its own: two of them, which others have in theirs. */
static void choose(struct user *user, struct sample *sample, size_t chosen[2])
{
    CLEANUP_FREE char *name = xasprintf("image %u %u", user->number, user->seed);

    chosen[0] = user->seed++ * 7 % LAYERS;
    chosen[1] = (chosen[0] + 1 + user->number % (LAYERS - 1)) % LAYERS;
    sample_make(sample, name, 1,
                (struct digest[]){user->diff_ids[chosen[0]], user->diff_ids[chosen[1]]}, 2);
}

/* As a pull does it. */
static void await_get(struct user *user, const struct sample *sample, const size_t chosen[2])
{
    CLEANUP_ERROR struct error err = {0};
    struct layer_lease *lease = layer_lease_new(user->store, sample->diff_ids, 2);

    for (size_t i = 0; i < 2; i++) {
        if (!layer_find(user->store, &sample->diff_ids[i], NULL) &&
            !await_store_layer(user->store, &sample->diff_ids[i], &user->tars[chosen[i]], NULL,
                               &err))
            die("%s", err.message);
        CHECK(await_yield() == 0);
        CHECK(layer_find(user->store, &sample->diff_ids[i], NULL));
    }
    if (!await_image_commit(user->store, &sample->image, NULL, NULL, NULL, &err))
        die("%s", err.message);
    layer_lease_free(lease);
}

/* As a container does it that outlives its image. */
static void await_use(struct user *user, const struct sample *sample)
{
    const struct digest *diff_id = &sample->diff_ids[1];
    struct layer_verification verification = {0};
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *path = NULL;
    CLEANUP_FREE char *file = NULL;

    if (!await_layer_mount(user->store, diff_id, &path, &err) ||
        !await_delete_image(user->store, &sample->image.id, NULL, &err))
        die("%s", err.message);
    await_collector(user->store);
    file = xasprintf("%s/file", path);
    CHECK(access(file, F_OK) == 0 && layer_find(user->store, diff_id, NULL));
    if (!await_layer_verify(user->store, diff_id, &verification, &err))
        die("%s", err.message);
    layer_unmount_await(user->store, diff_id);
}

static bool task_user(void *arg, struct error *err)
{
    struct user *user = arg;

    for (size_t round = 0; round < ROUNDS; round++) {
        struct sample sample;
        size_t chosen[2];
        choose(user, &sample, chosen);
        await_get(user, &sample, chosen);
        CHECK(await_yield() == 0);
        for (size_t i = 0; i < 2; i++)
            CHECK(layer_find(user->store, &sample.diff_ids[i], NULL));
        if (round % 2)
            await_use(user, &sample);
        else if (!await_delete_image(user->store, &sample.image.id, NULL, err))
            return false;
    }
    return true;
}

static bool body_many(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_collecting("many", err);
    static const char *const contents[LAYERS] = {"a", "b", "c", "d", "e", "f"};
    struct strbuf tars[LAYERS] = {0};
    struct digest diff_ids[LAYERS];
    struct user users[USERS];
    struct group group;

    CHECK(store);
    group_init(&group);
    for (size_t i = 0; i < LAYERS; i++)
        diff_ids[i] = make_layer(&tars[i], "file", contents[i]);
    for (unsigned int i = 0; i < USERS; i++) {
        users[i] = (struct user){store, tars, diff_ids, i, i * 100};
        CHECK(task_spawn(&group, "user", NULL, task_user, &users[i], err));
    }
    CHECK(await_group(&group, err));
    await_nothing(store, "many");
    store_close_await(store);
    for (size_t i = 0; i < LAYERS; i++)
        strbuf_done(&tars[i]);
    return true;
}

static void test_many_at_once(void **state UNUSED)
{
    run_task(body_many, NULL);
}

/* --- What holds a layer, one by one ------------------------------------------------------------
 */

static bool body_mount(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_collecting("mount", err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest diff_id = make_layer(&tar, "file", "mounted");
    CLEANUP(layers_pruned_done) struct layers_pruned deleted = {0};
    CLEANUP(layers_pruned_done) struct layers_pruned unused = {0};
    CLEANUP_FREE char *path = NULL;
    struct layer_lease *lease;
    struct sample sample;

    CHECK(store);
    lease = layer_lease_new(store, &diff_id, 1);
    CHECK(await_store_layer(store, &diff_id, &tar, NULL, err));
    /* Of two leases each holds it. */
    layer_lease_free(layer_lease_new(store, &diff_id, 1));
    unused = layers_unused(store, INT64_MAX);
    CHECK(unused.count == 0);
    sample_make(&sample, "sample", 1, &diff_id, 1);
    CHECK(await_image_commit(store, &sample.image, "a:1", NULL, NULL, err));
    layer_lease_free(lease);
    CHECK(await_layer_mount(store, &diff_id, &path, err));
    CHECK(await_delete_image(store, &sample.image.id, &deleted, err) && deleted.count == 0);
    await_collector(store);
    CHECK(layer_find(store, &diff_id, NULL));
    layer_unmount_await(store, &diff_id);
    await_nothing(store, "mount");
    store_close_await(store);
    return true;
}

static void test_a_mount_holds_its_layer(void **state UNUSED)
{
    run_task(body_mount, NULL);
}

static bool body_hold(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("hold", err);
    struct digest diff_ids[3];
    struct image_hold *hold;
    struct sample sample;

    CHECK(store);
    await_three_layers(store, diff_ids, err);
    sample_make(&sample, "sample", 1, diff_ids, 3);
    CHECK(await_image_commit(store, &sample.image, "a:1", NULL, NULL, err));
    hold = image_hold_new(store, &sample.image.id, "1", true);
    CHECK(!await_delete_image(store, &sample.image.id, NULL, err));
    CHECK(error_is(err, "IMAGE_CHANGED") && image_holder(store, &sample.image.id, true));
    error_done(err);
    CHECK(image_find(store, "a:1") && layer_find(store, &diff_ids[2], NULL));
    image_hold_free(hold);
    CHECK(await_delete_image(store, &sample.image.id, NULL, err));
    CHECK(!layer_find(store, &diff_ids[0], NULL));
    store_close_await(store);
    return true;
}

static void test_a_container_holds_its_image(void **state UNUSED)
{
    run_task(body_hold, NULL);
}

/* An image without a name is an image still: only its removal frees its layers. */
static bool body_untagged(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_collecting("untagged", err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest diff_id = make_layer(&tar, "file", "untagged");
    struct layer_lease *lease;
    struct sample sample;

    CHECK(store);
    lease = layer_lease_new(store, &diff_id, 1);
    CHECK(await_store_layer(store, &diff_id, &tar, NULL, err));
    sample_make(&sample, "sample", 1, &diff_id, 1);
    CHECK(await_image_commit(store, &sample.image, "a:1", NULL, NULL, err));
    layer_lease_free(lease);
    CHECK(await_untag(store, "a:1", err));
    await_collector(store);
    CHECK(layer_find(store, &diff_id, NULL));
    CHECK(await_delete_image(store, &sample.image.id, NULL, err));
    await_nothing(store, "untagged");
    store_close_await(store);
    return true;
}

static void test_an_image_without_a_name_stays(void **state UNUSED)
{
    run_task(body_untagged, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_a_mount_holds_its_layer),
        cmocka_unit_test(test_a_container_holds_its_image),
        cmocka_unit_test(test_an_image_without_a_name_stays),
    };

    own_mounts();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
