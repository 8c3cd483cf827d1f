/* Images, their names, leases and what is removed with them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/daemon/store/fixture.h"

#define BUSYBOX "docker.io/library/busybox"

static void check_loaded(struct store *store, const struct sample *first,
                         const struct sample *second)
{
    const struct image *image = image_find(store, BUSYBOX ":latest");
    CLEANUP_FREE const struct image **list = NULL;
    size_t count;

    CHECK(image && digest_eq(&image->id, &second->image.id));
    CHECK(image->size_bytes == 5 && image->diff_id_count == 2 && image->created_unix_ns == 200);
    CHECK(digest_eq(&image->diff_ids[0], &second->diff_ids[0]));
    CHECK(str_eq(image->os, "linux") && str_eq(image->architecture, "amd64"));
    CHECK(digest_eq(&image->manifest_digest, &second->image.manifest_digest));
    CHECK(strv_count(image->tags) == 1 && strv_count(image->repo_digests) == 0);
    list = image_list(store, &count);
    CHECK(count == 2 && list[0] == image && !list[2]);
    CHECK(digest_eq(&list[1]->id, &first->image.id) && strv_count(list[1]->tags) == 1);
    CHECK(str_eq(list[1]->tags[0], BUSYBOX ":old") && strv_count(list[1]->repo_digests) == 1);
    CHECK(image_find(store, list[1]->repo_digests[0]) == list[1]);
}

static bool body_commit(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("images", err);
    struct digest diff_ids[3];
    struct sample first, second;
    CLEANUP_FREE char *repo_digest = NULL;
    bool changed;

    CHECK(store);
    await_three_layers(store, diff_ids, err);
    sample_make(&first, "first", 100, diff_ids, 2);
    sample_make(&second, "second", 200, diff_ids + 1, 2);
    repo_digest = xasprintf("%s@%s", BUSYBOX, first.image.manifest_digest.text);
    CHECK(!image_find(store, BUSYBOX ":latest"));
    CHECK(await_image_commit(store, &first.image, BUSYBOX ":latest", repo_digest, &changed, err));
    CHECK(changed && image_find(store, repo_digest)->size_bytes == 3);
    CHECK(await_image_commit(store, &first.image, BUSYBOX ":latest", repo_digest, &changed, err));
    CHECK(!changed);
    CHECK(await_image_commit(store, &first.image, NULL, repo_digest, &changed, err) && !changed);
    CHECK(await_image_commit(store, &first.image, BUSYBOX ":old", NULL, &changed, err) && changed);
    /* The tag moves. */
    CHECK(await_image_commit(store, &second.image, BUSYBOX ":latest", NULL, &changed, err));
    CHECK(changed);
    check_loaded(store, &first, &second);
    store_close_await(store);
    CHECK((store = await_open_scratch("images", err)));
    check_loaded(store, &first, &second);
    store_close_await(store);
    return true;
}

static void test_commit_and_load(void **state UNUSED)
{
    run_task(body_commit, NULL);
}

static bool body_missing_layer(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("missing", err);
    struct digest absent = digest_of("absent", 6);
    struct sample sample;

    CHECK(store);
    sample_make(&sample, "sample", 1, &absent, 1);
    CHECK(!await_image_commit(store, &sample.image, "a/b:c", NULL, NULL, err));
    CHECK(error_is(err, "LAYER_MISSING") && err->code == ERROR_FAILED_PRECONDITION);
    error_done(err);
    CHECK(!image_find(store, "a/b:c"));
    store_close_await(store);
    return true;
}

static void test_missing_layer(void **state UNUSED)
{
    run_task(body_missing_layer, NULL);
}

static bool body_find_id(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("ids", err);
    static struct sample samples[40];
    bool ambiguous;

    CHECK(store);
    for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
        char name[16];
        snprintf(name, sizeof(name), "image %zu", i);
        sample_make(&samples[i], name, 1, samples[i].diff_ids, 0);
        CHECK(await_image_commit(store, &samples[i].image, NULL, NULL, NULL, err));
    }
    for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
        const struct digest *id = &samples[i].image.id;
        char prefix[13] = "";
        memcpy(prefix, digest_hex(id), 12);
        CHECK(digest_eq(&image_find_id(store, prefix, &ambiguous)->id, id) && !ambiguous);
        CHECK(digest_eq(&image_find_id(store, id->text, NULL)->id, id));
        CHECK(digest_eq(&image_find_id(store, digest_hex(id), NULL)->id, id));
    }
    /* 40 images share 16 first digits. */
    size_t unclear = 0;
    for (const char *digit = "0123456789abcdef"; *digit; digit++) {
        char prefix[2] = {*digit};
        CHECK(!ambiguous);
        unclear += !image_find_id(store, prefix, &ambiguous) && ambiguous;
        ambiguous = false;
    }
    CHECK(unclear >= 3);
    CHECK(!image_find_id(store, "xyz", &ambiguous) && !ambiguous);
    CHECK(!image_find_id(store, "", &ambiguous) && !image_find_id(store, "sha256:", &ambiguous));
    store_close_await(store);
    return true;
}

static void test_find_by_id(void **state UNUSED)
{
    run_task(body_find_id, NULL);
}

/* --- Manifest and config -----------------------------------------------------------------------
 */

static bool body_data(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("data", err);
    CLEANUP(image_data_done) struct image_data data = {0};
    struct digest absent = digest_of("absent", 6);
    struct sample sample;

    CHECK(store);
    sample_make(&sample, "sample", 1, &absent, 0);
    CHECK(await_image_commit(store, &sample.image, NULL, NULL, NULL, err));
    CHECK(await_image_data(store, &sample.image.id, &data, err));
    CHECK(str_eq(data.config, sample.config) && data.config_size == strlen(sample.config));
    CHECK(str_eq(data.manifest, sample.manifest));
    CHECK(data.manifest_size == strlen(sample.manifest));
    image_data_done(&data);
    CHECK(!await_image_data(store, &absent, &data, err) && error_is(err, "IMAGE_NOT_FOUND"));
    change_database("data", "UPDATE images SET config = CAST('{}' AS BLOB)");
    CHECK(!await_image_data(store, &sample.image.id, &data, err));
    CHECK(error_is(err, "IMAGE_DAMAGED") && strstr(err->message, "config"));
    error_done(err);
    store_close_await(store);
    return true;
}

static void test_data_is_checked(void **state UNUSED)
{
    run_task(body_data, NULL);
}

/* --- Removal -----------------------------------------------------------------------------------
 */

static bool body_remove(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("remove", err);
    CLEANUP(layers_pruned_done) struct layers_pruned deleted = {0};
    CLEANUP_FREE char *path = NULL;
    struct digest diff_ids[3];
    struct sample first, second;
    struct image_hold *holds[2];

    CHECK(store);
    await_three_layers(store, diff_ids, err);
    sample_make(&first, "first", 1, diff_ids, 2);
    sample_make(&second, "second", 2, diff_ids + 1, 2);
    CHECK(await_image_commit(store, &first.image, "a:1", "a@x", NULL, err));
    CHECK(await_image_commit(store, &second.image, "b:1", NULL, NULL, err));
    /* A name goes, the image stays. */
    CHECK(await_untag(store, "a:1", err) && !image_find(store, "a:1"));
    CHECK(image_find(store, "a@x") && image_find_id(store, first.image.id.text, NULL));
    CHECK(!await_untag(store, "a:1", err) && error_is(err, "IMAGE_NOT_FOUND"));
    error_done(err);
    /* A container has it. */
    holds[0] = image_hold_new(store, &first.image.id, "0", true);
    holds[1] = image_hold_new(store, &first.image.id, "1", true);
    holds[0] = image_hold_free(holds[0]);
    CHECK(!await_delete_image(store, &first.image.id, NULL, err) && error_is(err, "IMAGE_CHANGED"));
    CHECK(err->code == ERROR_ABORTED && image_find(store, "a@x"));
    CHECK(str_eq(image_holder(store, &first.image.id, true), "1"));
    error_done(err);
    holds[1] = image_hold_free(holds[1]);
    /* The layer that the other image has as well stays. */
    CHECK(await_delete_image(store, &first.image.id, &deleted, err));
    CHECK(deleted.count == 1 && digest_eq(&deleted.diff_ids[0], &diff_ids[0]));
    CHECK(!layer_find(store, &diff_ids[0], NULL) && layer_find(store, &diff_ids[1], NULL));
    CHECK(!image_find(store, "a@x") && !image_find_id(store, first.image.id.text, NULL));
    CHECK(!await_delete_image(store, &first.image.id, NULL, err));
    CHECK(error_is(err, "IMAGE_NOT_FOUND"));
    error_done(err);
    /* So does one that is mounted. */
    CHECK(await_layer_mount(store, &diff_ids[2], &path, err));
    layers_pruned_done(&deleted);
    CHECK(await_delete_image(store, &second.image.id, &deleted, err));
    CHECK(deleted.count == 1 && layer_find(store, &diff_ids[2], NULL));
    layer_unmount_await(store, &diff_ids[2]);
    CHECK(count_entries("remove/layers") == 1);
    while (count_entries("remove/tmp") > 0)
        CHECK(await_yield() == 0);
    store_close_await(store);
    return true;
}

static void test_remove(void **state UNUSED)
{
    run_task(body_remove, NULL);
}

struct deletion {
    struct store *store;
    struct digest id;
};

static bool task_delete(void *arg, struct error *err)
{
    struct deletion *deletion = arg;

    return await_delete_image(deletion->store, &deletion->id, NULL, err);
}

/* From its begin on nobody finds what is being removed, so that nobody begins to use it. */
static bool body_hidden(void *arg UNUSED, struct error *err)
{
    struct deletion deletion = {.store = await_open_scratch("hidden", err)};
    struct digest diff_ids[3];
    bool hidden_on_disk = false;
    struct sample sample;
    struct group group;

    CHECK(deletion.store);
    await_three_layers(deletion.store, diff_ids, err);
    sample_make(&sample, "sample", 1, diff_ids, 3);
    deletion.id = sample.image.id;
    CHECK(await_image_commit(deletion.store, &sample.image, "a:1", NULL, NULL, err));
    group_init(&group);
    CHECK(task_spawn(&group, "delete", NULL, task_delete, &deletion, err));
    while (group.running > 0) {
        CLEANUP_FREE const struct image **list = image_list(deletion.store, NULL);
        bool found = image_find(deletion.store, "a:1");
        CHECK(found == !!image_find_id(deletion.store, deletion.id.text, NULL));
        CHECK(found == layer_find(deletion.store, &diff_ids[0], NULL) && found == !!list[0]);
        hidden_on_disk |= !found && count_entries("hidden/layers") == 3;
        CHECK(await_yield() == 0);
    }
    CHECK(await_group(&group, err));
    CHECK(hidden_on_disk && count_entries("hidden/layers") == 0);
    store_close_await(deletion.store);
    return true;
}

static void test_hidden_while_removed(void **state UNUSED)
{
    run_task(body_hidden, NULL);
}

static bool body_same_layer_twice(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("twice", err);
    CLEANUP(layers_pruned_done) struct layers_pruned deleted = {0};
    struct digest diff_ids[3];
    struct sample sample;

    CHECK(store);
    await_three_layers(store, diff_ids, err);
    diff_ids[1] = diff_ids[0];
    sample_make(&sample, "sample", 1, diff_ids, 3);
    CHECK(await_image_commit(store, &sample.image, "a:1", NULL, NULL, err));
    CHECK(image_find(store, "a:1")->size_bytes == 1 + 1 + 3);
    CHECK(await_delete_image(store, &sample.image.id, &deleted, err));
    CHECK(deleted.count == 2);
    store_close_await(store);
    return true;
}

static void test_same_layer_twice(void **state UNUSED)
{
    run_task(body_same_layer_twice, NULL);
}

/* --- Leases and what nothing uses --------------------------------------------------------------
 */

static bool body_lease(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("lease", err);
    CLEANUP(layers_pruned_done) struct layers_pruned deleted = {0};
    struct layer_lease *lease;
    struct digest diff_ids[3];
    struct sample sample;

    CHECK(store);
    await_three_layers(store, diff_ids, err);
    sample_make(&sample, "sample", 1, diff_ids, 3);
    CHECK(await_image_commit(store, &sample.image, "a:1", NULL, NULL, err));
    lease = layer_lease_new(store, diff_ids, 2);
    CHECK(await_delete_image(store, &sample.image.id, &deleted, err));
    CHECK(deleted.count == 1 && digest_eq(&deleted.diff_ids[0], &diff_ids[2]));
    CHECK(layer_find(store, &diff_ids[0], NULL) && layer_find(store, &diff_ids[1], NULL));
    CHECK(!layer_lease_free(lease));
    CHECK(layer_find(store, &diff_ids[0], NULL)); /* for the grace time */
    store_close_await(store);
    return true;
}

static void test_lease(void **state UNUSED)
{
    run_task(body_lease, NULL);
}

static bool body_grace(void *arg UNUSED, struct error *err)
{
    CLEANUP_FREE char *data_root = xasprintf("%s/grace", scratch_directory());
    const struct store_options options = {.data_root = data_root,
                                          .driver = test_driver(),
                                          .programs_dir = PROGRAMS_DIR,
                                          .layer_grace_ms = 1};
    struct store *store = await_open_scratch("grace", err);
    struct digest diff_ids[3];
    struct layer_lease *lease;
    struct sample sample;

    CHECK(store);
    await_three_layers(store, diff_ids, err);
    sample_make(&sample, "sample", 1, diff_ids, 1);
    CHECK(await_image_commit(store, &sample.image, "a:1", NULL, NULL, err));
    store_close_await(store);
    CHECK((store = await_store_open(&options, err)));
    lease = layer_lease_new(store, &diff_ids[1], 1);
    while (layer_find(store, &diff_ids[2], NULL))
        CHECK(await_sleep(1) == 0);
    CHECK(layer_find(store, &diff_ids[0], NULL) && layer_find(store, &diff_ids[1], NULL));
    layer_lease_free(lease);
    while (layer_find(store, &diff_ids[1], NULL))
        CHECK(await_sleep(1) == 0);
    CHECK(layer_find(store, &diff_ids[0], NULL));
    store_close_await(store);
    CHECK(count_entries("grace/layers") == 1);
    return true;
}

static void test_grace_time(void **state UNUSED)
{
    run_task(body_grace, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commit_and_load),  cmocka_unit_test(test_missing_layer),
        cmocka_unit_test(test_find_by_id),       cmocka_unit_test(test_data_is_checked),
        cmocka_unit_test(test_remove),           cmocka_unit_test(test_hidden_while_removed),
        cmocka_unit_test(test_same_layer_twice), cmocka_unit_test(test_lease),
        cmocka_unit_test(test_grace_time),
    };

    own_mounts();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
