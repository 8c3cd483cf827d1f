/* Verifying, quarantine and replacement of layers; the ledger; the scrub; where layers were seen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "daemon/store/partial.h"
#include "tests/unit/daemon/store/fixture.h"

/* A file of the layer, below the scratch directory. The caller's. */
static char *file_of(const char *root, const struct digest *diff_id, const char *file)
{
    return xasprintf("%s/layers/%s/%s", root, digest_hex(diff_id), file);
}

static bool with_directories(void)
{
    return str_eq(test_driver(), "directory");
}

/* Changes what the first file of a layer, called so, holds. */
static void flip_content(const char *root, const struct digest *diff_id, const char *name)
{
    CLEANUP_FREE char *in_tree = xasprintf("fs/%s", name);
    CLEANUP_FREE char *file = file_of(root, diff_id, with_directories() ? in_tree : "layer.tar");

    flip_byte(file, with_directories() ? 0 : 512);
}

static bool await_verify(struct store *store, const struct digest *diff_id, struct error *err)
{
    struct layer_verification verification = {0};
    bool ok = await_layer_verify(store, diff_id, &verification, err);

    CHECK(!ok || verification.bytes_done == layer_verify_bytes(store, diff_id));
    return ok;
}

static void expect_damaged(struct store *store, const struct digest *diff_id)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *path = NULL;

    CHECK(!layer_find(store, diff_id, NULL));
    CHECK(!await_layer_mount(store, diff_id, &path, &err));
    CHECK(err.code == ERROR_DATA_LOSS && error_is(&err, "LAYER_DAMAGED"));
    CHECK(strstr(err.hint, "davit system verify --repair"));
}

static void expect_usable(struct store *store, const struct digest *diff_id)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *path = NULL;

    CHECK(layer_find(store, diff_id, NULL));
    CHECK(await_layer_mount(store, diff_id, &path, &err));
    layer_unmount_await(store, diff_id);
}

/* --- Quarantine --------------------------------------------------------------------------------
 */

static bool body_quarantine(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("quarantine", err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest sound = make_layer(&tar, "other", "sound"), diff_id;

    CHECK(store && await_store_layer(store, &sound, &tar, NULL, err));
    diff_id = make_layer(&tar, "hello", "world");
    CHECK(await_store_layer(store, &diff_id, &tar, NULL, err));
    CHECK(await_verify(store, &diff_id, err) && await_verify(store, &sound, err));
    flip_content("quarantine", &diff_id, "hello");
    expect_usable(store, &diff_id); /* nobody has looked */
    CHECK(!await_verify(store, &diff_id, err));
    CHECK(err->code == ERROR_DATA_LOSS && error_is(err, "LAYER_DAMAGED") && err->hint);
    error_done(err);
    expect_damaged(store, &diff_id);
    CHECK(store_damaged_count(store) == 1 && await_verify(store, &sound, err));
    expect_usable(store, &sound);
    store_close_await(store);
    /* Also after a restart; and what is as it was can be used again. */
    CHECK((store = await_open_scratch("quarantine", err)));
    expect_damaged(store, &diff_id);
    CHECK(store_damaged_count(store) == 1);
    flip_content("quarantine", &diff_id, "hello");
    CHECK(await_verify(store, &diff_id, err) && store_damaged_count(store) == 0);
    expect_usable(store, &diff_id);
    store_close_await(store);
    return true;
}

static void test_quarantine(void **state UNUSED)
{
    run_task(body_quarantine, NULL);
}

/* What the hash of the tar does not cover. */
static bool body_index(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("index", err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest diff_id = make_layer(&tar, "hello", "world");
    CLEANUP_FREE char *file =
        file_of("index", &diff_id, with_directories() ? "fs/hello" : "layer.erofs");
    CLEANUP_FREE char *path = xasprintf("%s/%s", scratch_directory(), file);

    CHECK(store && await_store_layer(store, &diff_id, &tar, NULL, err));
    if (with_directories())
        CHECK(chmod(path, 04755) == 0);
    else
        flip_byte(file, 1100);
    CHECK(!await_verify(store, &diff_id, err) && error_is(err, "LAYER_DAMAGED"));
    error_done(err);
    expect_damaged(store, &diff_id);
    store_close_await(store);
    return true;
}

static void test_what_the_tar_does_not_cover(void **state UNUSED)
{
    run_task(body_index, NULL);
}

static bool body_missing_file(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("gone", err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest diff_id = make_layer(&tar, "hello", "world");
    CLEANUP_FREE char *file =
        file_of("gone", &diff_id, with_directories() ? "fs/hello" : "layer.erofs");
    CLEANUP_FREE char *path = xasprintf("%s/%s", scratch_directory(), file);
    CLEANUP_FREE char *directory =
        xasprintf("%s/gone/layers/%s", scratch_directory(), digest_hex(&diff_id));

    CHECK(store && await_store_layer(store, &diff_id, &tar, NULL, err));
    CHECK(unlink(path) == 0);
    CHECK(!await_verify(store, &diff_id, err) && error_is(err, "LAYER_DAMAGED"));
    error_done(err);
    remove_path(directory);
    CHECK(!await_verify(store, &diff_id, err) && error_is(err, "LAYER_DAMAGED"));
    error_done(err);
    expect_damaged(store, &diff_id);
    store_close_await(store);
    return true;
}

static void test_missing_file(void **state UNUSED)
{
    run_task(body_missing_file, NULL);
}

/* The files of one that is in use stay where they are, unless what is mounted keeps them. */
static void await_replace_used(struct store *store, const struct digest *diff_id,
                               const struct strbuf *tar)
{
    CLEANUP_ERROR struct error err = {0};
    bool ok = await_store_layer(store, diff_id, tar, NULL, &err);

    CHECK(ok == !with_directories());
    if (!ok)
        CHECK(error_is(&err, "LAYER_IN_USE") && err.code == ERROR_FAILED_PRECONDITION && err.hint);
}

/* What a container sees that begins now. */
static bool holds(struct store *store, const struct digest *diff_id, const char *content)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *path = NULL;
    CLEANUP_FREE char *name = NULL;
    char text[10] = "";
    int fd;

    CHECK(await_layer_mount(store, diff_id, &path, &err));
    name = xasprintf("%s/hello", path);
    fd = open(name, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    layer_unmount_await(store, diff_id);
    return str_eq(text, content);
}

static bool body_replace(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("replace", err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest diff_id = make_layer(&tar, "hello", "world");
    CLEANUP_FREE char *path = NULL;

    CHECK(store && await_store_layer(store, &diff_id, &tar, NULL, err));
    CHECK(await_layer_mount(store, &diff_id, &path, err));
    flip_content("replace", &diff_id, "hello");
    CHECK(holds(store, &diff_id, "vorld"));
    CHECK(!await_verify(store, &diff_id, err));
    error_done(err);
    await_replace_used(store, &diff_id, &tar);
    CHECK(with_directories() || holds(store, &diff_id, "world"));
    layer_unmount_await(store, &diff_id);
    CHECK(await_store_layer(store, &diff_id, &tar, NULL, err));
    CHECK(store_damaged_count(store) == 0 && holds(store, &diff_id, "world"));
    CHECK(count_entries("replace/tmp") == 0 && count_entries("replace/layers") == 1);
    store_close_await(store);
    CHECK((store = await_open_scratch("replace", err)));
    CHECK(store_damaged_count(store) == 0 && holds(store, &diff_id, "world"));
    CHECK(await_verify(store, &diff_id, err));
    store_close_await(store);
    return true;
}

static void test_replace(void **state UNUSED)
{
    run_task(body_replace, NULL);
}

struct verifier {
    struct store *store;
    struct digest diff_id;
    struct layer_verification state;
    bool ended;
};

static bool task_verify(void *arg, struct error *err UNUSED)
{
    struct verifier *verifier = arg;
    CLEANUP_ERROR struct error failure = {0};

    CHECK(!await_layer_verify(verifier->store, &verifier->diff_id, &verifier->state, &failure));
    CHECK(error_is(&failure, "LAYER_REPLACED") || error_is(&failure, "LAYER_NOT_FOUND"));
    verifier->ended = true;
    return true;
}

/* What is removed while it is being verified is not damaged, it is gone; also if it is fetched
 * again before the end. */
static bool body_removed(void *arg UNUSED, struct error *err)
{
    struct verifier verifier = {.store = await_open_scratch("removed", err),
                                .state.bytes_per_second = 1 * MIB};
    CLEANUP_STRBUF struct strbuf tar = {0};
    CLEANUP_FREE char *content = xcalloc(1, 3 * MIB);
    struct sample sample;
    struct group group;

    CHECK(verifier.store);
    memset(content, 'x', 3 * MIB);
    for (size_t i = 0; i < 3; i++)
        tar_add(&tar, (const char *[]){"a", "b", "c"}[i], '0', content, MIB);
    tar_end(&tar);
    verifier.diff_id = digest_of(tar.data, tar.length);
    CHECK(await_store_layer(verifier.store, &verifier.diff_id, &tar, NULL, err));
    sample_make(&sample, "sample", 1, &verifier.diff_id, 1);
    CHECK(await_image_commit(verifier.store, &sample.image, "a:1", NULL, NULL, err));
    group_init(&group);
    CHECK(task_spawn(&group, "verify", NULL, task_verify, &verifier, err));
    while (verifier.state.bytes_done == 0)
        CHECK(await_yield() == 0); /* it goes on in a second */
    CHECK(await_delete_image(verifier.store, &sample.image.id, NULL, err));
    CHECK(await_store_layer(verifier.store, &verifier.diff_id, &tar, NULL, err));
    CHECK(await_group(&group, err) && verifier.ended);
    CHECK(store_damaged_count(verifier.store) == 0);
    expect_usable(verifier.store, &verifier.diff_id);
    store_close_await(verifier.store);
    return true;
}

static void test_removed_meanwhile(void **state UNUSED)
{
    run_task(body_removed, NULL);
}

static bool task_cancelled(void *arg, struct error *err UNUSED)
{
    struct verifier *verifier = arg;
    CLEANUP_ERROR struct error failure = {0};

    CHECK(!await_layer_verify(verifier->store, &verifier->diff_id, &verifier->state, &failure));
    CHECK(failure.code == ERROR_CANCELLED);
    verifier->ended = true;
    return true;
}

static bool body_cancel(void *arg UNUSED, struct error *err)
{
    struct verifier verifier = {.store = await_open_scratch("cancel", err),
                                .state.bytes_per_second = 1};
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct group group;

    CHECK(verifier.store);
    verifier.diff_id = make_layer(&tar, "hello", "world");
    CHECK(await_store_layer(verifier.store, &verifier.diff_id, &tar, NULL, err));
    flip_content("cancel", &verifier.diff_id, "hello");
    group_init(&group);
    CHECK(task_spawn(&group, "verify", NULL, task_cancelled, &verifier, err));
    while (verifier.state.bytes_done == 0)
        CHECK(await_yield() == 0);
    group_done_await(&group);
    CHECK(verifier.ended && store_damaged_count(verifier.store) == 0);
    expect_usable(verifier.store, &verifier.diff_id);
    store_close_await(verifier.store);
    return true;
}

static void test_cancel(void **state UNUSED)
{
    run_task(body_cancel, NULL);
}

/* --- The compressed copy -----------------------------------------------------------------------
 */

static bool await_store_with_blob(struct store *store, const struct digest *diff_id,
                                  const struct strbuf *tar, const char *blob, struct error *err)
{
    struct layer_writer *writer = await_layer_prepare(store, diff_id, err);
    struct digest digest = digest_of(blob, strlen(blob));
    struct partial *partial = await_partial_open(store, &digest, strlen(blob), err);
    bool ok = writer && partial && partial_write_blocking(partial, 0, blob, strlen(blob), err);

    if (ok)
        layer_adopt_blob_await(writer, partial);
    ok = ok && await_layer_write(writer, tar->data, tar->length, err) &&
         await_layer_commit(writer, NULL, err);
    layer_writer_free_await(writer);
    if (ok)
        partial_discard(partial);
    partial_close_await(partial);
    return ok;
}

/* A container comes while the new copy is on its way. */
static void await_used_before_commit(struct store *store, const struct digest *diff_id,
                                     const struct strbuf *tar)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *path = NULL;
    struct layer_writer *writer = await_layer_prepare(store, diff_id, &err);

    CHECK(writer && await_layer_write(writer, tar->data, tar->length, &err));
    CHECK(await_layer_mount(store, diff_id, &path, &err));
    CHECK(await_layer_commit(writer, NULL, &err) == !with_directories());
    CHECK(!with_directories() || error_is(&err, "LAYER_IN_USE"));
    layer_writer_free_await(writer);
    layer_unmount_await(store, diff_id);
    expect_usable(store, diff_id);
}

static bool body_blob(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("blob", err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest diff_id = make_layer(&tar, "hello", "world");
    CLEANUP_FREE char *file = file_of("blob", &diff_id, "layer.blob");
    CLEANUP_FREE char *path = xasprintf("%s/%s", scratch_directory(), file);
    struct stat st;

    CHECK(store && await_store_with_blob(store, &diff_id, &tar, "compressed", err));
    CHECK(stat(path, &st) == 0 && st.st_size == 10);
    CHECK(await_verify(store, &diff_id, err));
    CHECK(layer_verify_bytes(store, &diff_id) == (with_directories() ? 5 : tar.length) + 10);
    flip_byte(file, 4);
    CHECK(!await_verify(store, &diff_id, err) && error_is(err, "BLOB_DAMAGED"));
    CHECK(err->code == ERROR_DATA_LOSS && strstr(err->message, "layer.blob"));
    error_done(err);
    /* The layer itself is in order; a new copy heals it. */
    expect_usable(store, &diff_id);
    CHECK(store_damaged_count(store) == 0);
    await_used_before_commit(store, &diff_id, &tar);
    CHECK(await_store_with_blob(store, &diff_id, &tar, "compressed", err));
    CHECK(await_verify(store, &diff_id, err));
    store_close_await(store);
    return true;
}

static void test_kept_blob(void **state UNUSED)
{
    run_task(body_blob, NULL);
}

/* --- The ledger --------------------------------------------------------------------------------
 */

/* What du(1) says of the store, in bytes. */
static uint64_t du(const char *name)
{
    CLEANUP_FREE char *command =
        xasprintf("du -sx --block-size=1 %s/%s", scratch_directory(), name);
    FILE *pipe = popen(command, "re");
    unsigned long long bytes = 0;

    CHECK(pipe && fscanf(pipe, "%llu", &bytes) == 1 && pclose(pipe) == 0);
    return bytes;
}

/* Layers with many small files, large ones, a hole and hard links. */
static void await_layers_to_count(struct store *store, struct digest diff_ids[2], struct error *err)
{
    CLEANUP_STRBUF struct strbuf tar = {0};
    CLEANUP_FREE char *content = xcalloc(1, MIB);

    memset(content, 'x', MIB);
    for (size_t i = 0; i < 300; i++) {
        CLEANUP_FREE char *name = xasprintf("dir%zu/file%zu", i % 20, i);
        tar_add(&tar, name, '0', content, i * 40);
    }
    tar_add(&tar, "large", '0', content, MIB);
    tar_add(&tar, "link", '2', "large", 5);
    tar_add(&tar, "hard", '1', "large", 5);
    tar_end(&tar);
    diff_ids[0] = digest_of(tar.data, tar.length);
    CHECK(await_store_layer(store, &diff_ids[0], &tar, NULL, err));
    diff_ids[1] = make_layer(&tar, "small", "x");
    CHECK(await_store_with_blob(store, &diff_ids[1], &tar, "its compressed copy", err));
}

static uint64_t await_sum(struct store *store, struct error *err)
{
    struct store_usage usage;

    CHECK(await_store_usage(store, &usage, err));
    return usage.layer_bytes + usage.metadata_bytes;
}

static bool body_ledger(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("ledger", err);
    struct digest diff_ids[2];

    CHECK(store);
    await_layers_to_count(store, diff_ids, err);
    CHECK(await_sum(store, err) == du("ledger"));
    store_close_await(store);
    /* From the rows; then as in a data root that has none of it in its rows. */
    CHECK((store = await_open_scratch("ledger", err)));
    CHECK(await_sum(store, err) == du("ledger"));
    store_close_await(store);
    change_database("ledger", "UPDATE layers SET disk_bytes = NULL");
    CHECK((store = await_open_scratch("ledger", err)));
    while (await_sum(store, err) != du("ledger"))
        CHECK(await_sleep(1) == 0); /* the background counts */
    store_close_await(store);
    CHECK((store = await_open_scratch("ledger", err)));
    CHECK(await_sum(store, err) == du("ledger"));
    store_close_await(store);
    return true;
}

static void test_ledger_equals_du(void **state UNUSED)
{
    run_task(body_ledger, NULL);
}

static uint64_t disk_bytes(const char *root, const struct digest *diff_id)
{
    CLEANUP_FREE char *directory = file_of(root, diff_id, "");

    return du(directory);
}

static bool body_sharing(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("sharing", err);
    struct digest diff_ids[3], twice[3];
    struct sample first, second;
    struct image_usage usage;
    struct store_usage all;
    struct image_hold *hold;

    CHECK(store);
    await_three_layers(store, diff_ids, err);
    twice[0] = twice[2] = diff_ids[0];
    twice[1] = diff_ids[1];
    sample_make(&first, "first", 1, twice, 3);
    sample_make(&second, "second", 2, diff_ids + 1, 2);
    CHECK(await_image_commit(store, &first.image, "a:1", NULL, NULL, err));
    usage = image_usage(store, image_find(store, "a:1"));
    CHECK(usage.shared_bytes == 0);
    CHECK(usage.unique_bytes ==
          disk_bytes("sharing", &diff_ids[0]) + disk_bytes("sharing", &diff_ids[1]));
    CHECK(await_image_commit(store, &second.image, "a:2", NULL, NULL, err));
    hold = image_hold_new(store, &first.image.id, "1", true);
    usage = image_usage(store, image_find(store, "a:1"));
    CHECK(usage.unique_bytes == disk_bytes("sharing", &diff_ids[0]) && usage.containers == 1);
    CHECK(usage.shared_bytes == disk_bytes("sharing", &diff_ids[1]));
    CHECK(await_store_usage(store, &all, err));
    CHECK(all.image_count == 2 && all.active_image_count == 1 && all.layer_count == 3);
    CHECK(all.active_layer_bytes == usage.unique_bytes + usage.shared_bytes);
    image_hold_free(hold);
    CHECK(await_delete_image(store, &second.image.id, NULL, err));
    usage = image_usage(store, image_find(store, "a:1"));
    CHECK(usage.shared_bytes == 0 && usage.containers == 0);
    CHECK(await_store_usage(store, &all, err));
    CHECK(all.layer_bytes == usage.unique_bytes && all.active_layer_bytes == 0);
    store_close_await(store);
    return true;
}

static void test_shared_and_unique(void **state UNUSED)
{
    run_task(body_sharing, NULL);
}

/* --- The scrub ---------------------------------------------------------------------------------
 */

static struct store *await_open_scrubbing(const char *name, uint64_t interval_ms, struct error *err)
{
    CLEANUP_FREE char *data_root = xasprintf("%s/%s", scratch_directory(), name);

    return await_store_open(&(struct store_options){.data_root = data_root,
                                                    .driver = test_driver(),
                                                    .programs_dir = PROGRAMS_DIR,
                                                    .scrub_interval_ms = interval_ms},
                            err);
}

static const struct image *await_damaged_image(struct store *store, const char *name)
{
    while (!image_find(store, name)->damaged)
        CHECK(await_sleep(1) == 0);
    return image_find(store, name);
}

static bool body_scrub(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("scrub", err);
    struct digest diff_ids[3];
    struct sample sample;

    CHECK(store);
    await_three_layers(store, diff_ids, err);
    sample_make(&sample, "sample", 1, diff_ids, 3);
    CHECK(await_image_commit(store, &sample.image, "a:1", NULL, NULL, err));
    store_close_await(store);
    flip_content("scrub", &diff_ids[1], "file");
    change_database("scrub", "UPDATE images SET manifest = CAST('{}' AS BLOB)");
    CHECK((store = await_open_scrubbing("scrub", 1, err)));
    while (store_damaged_count(store) == 0)
        CHECK(await_sleep(1) == 0);
    expect_damaged(store, &diff_ids[1]);
    expect_usable(store, &diff_ids[0]);
    CHECK(await_damaged_image(store, "a:1"));
    store_close_await(store);
    return true;
}

static void test_scrub(void **state UNUSED)
{
    run_task(body_scrub, NULL);
}

/* What was verified by the last daemon is not begun again: only the layer that is due is read. */
static bool body_scrub_goes_on(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("goes-on", err);
    CLEANUP_FREE char *sql = NULL;
    struct digest diff_ids[3];

    CHECK(store);
    await_three_layers(store, diff_ids, err);
    store_close_await(store);
    flip_content("goes-on", &diff_ids[0], "file");
    flip_content("goes-on", &diff_ids[1], "file");
    sql =
        xasprintf("UPDATE layers SET verified_unix_ns = 1 WHERE diff_id != '%s'", diff_ids[1].text);
    change_database("goes-on", sql);
    CHECK((store = await_open_scrubbing("goes-on", 3600 * 1000, err)));
    while (store_damaged_count(store) == 0)
        CHECK(await_sleep(1) == 0);
    expect_damaged(store, &diff_ids[0]);
    store_close_await(store);
    change_database("goes-on", "UPDATE layers SET damage = NULL");
    /* The third was verified in the first run or is now; the second is not due. */
    CHECK((store = await_open_scrubbing("goes-on", 3600 * 1000, err)));
    while (store_damaged_count(store) == 0)
        CHECK(await_sleep(1) == 0);
    expect_usable(store, &diff_ids[1]);
    store_close_await(store);
    return true;
}

static void test_scrub_goes_on(void **state UNUSED)
{
    run_task(body_scrub_goes_on, NULL);
}

/* --- Where layers were seen --------------------------------------------------------------------
 */

static bool body_sources(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("sources", err);
    struct digest diff_ids[3];
    struct sample sample;
    struct layer_blob blobs[2] = {
        {digest_of("a", 1), "application/vnd.oci.image.layer.v1.tar+gzip", 11},
        {digest_of("b", 1), "application/vnd.oci.image.layer.v1.tar+zstd", 12},
    };
    CLEANUP(layer_sources_done) struct layer_sources sources = {0};

    CHECK(store);
    await_three_layers(store, diff_ids, err);
    sample_make(&sample, "sample", 1, diff_ids, 2);
    CHECK(await_image_commit(store, &sample.image, "a:1", NULL, NULL, err));
    CHECK(await_layer_sources(store, &diff_ids[1], &sources, err) && sources.count == 0);
    sample.image.blobs = blobs;
    for (size_t i = 0; i < 100; i++) {
        CLEANUP_FREE char *repository = xasprintf("docker.io/library/r%zu", i);
        sample.image.repository = repository;
        CHECK(await_image_commit(store, &sample.image, "a:1", NULL, NULL, err));
    }
    CHECK(await_layer_sources(store, &diff_ids[1], &sources, err) && sources.count == 32);
    CHECK(str_eq(sources.items[0].repository, "docker.io/library/r99"));
    CHECK(str_eq(sources.items[31].repository, "docker.io/library/r68"));
    CHECK(digest_eq(&sources.items[0].blob.digest, &blobs[1].digest));
    CHECK(str_eq(sources.items[0].blob.media_type, blobs[1].media_type));
    CHECK(sources.items[0].blob.size_bytes == 12);
    layer_sources_done(&sources);
    /* They go with the layer. */
    CHECK(await_delete_image(store, &sample.image.id, NULL, err));
    CHECK(await_layer_sources(store, &diff_ids[1], &sources, err) && sources.count == 0);
    store_close_await(store);
    return true;
}

static void test_sources(void **state UNUSED)
{
    run_task(body_sources, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quarantine),
        cmocka_unit_test(test_what_the_tar_does_not_cover),
        cmocka_unit_test(test_missing_file),
        cmocka_unit_test(test_replace),
        cmocka_unit_test(test_removed_meanwhile),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_kept_blob),
        cmocka_unit_test(test_ledger_equals_du),
        cmocka_unit_test(test_shared_and_unique),
        cmocka_unit_test(test_scrub),
        cmocka_unit_test(test_scrub_goes_on),
        cmocka_unit_test(test_sources),
    };

    own_mounts();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
