/* How long blobs that did not arrive are kept, and what becomes of one that is kept for good. */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

#include "daemon/store/internal.h"
#include "daemon/store/partial_file.h"
#include "tests/unit/daemon/store/fixture.h"
#include "tests/unit/daemon/store/partials.h"

struct limits {
    uint64_t ttl_ms, max_bytes;
};

static struct store *await_open_limited(const char *name, struct limits limits, struct error *err)
{
    CLEANUP_FREE char *data_root = xasprintf("%s/%s", scratch_directory(), name);
    const struct store_options options = {
        .data_root = data_root,
        .driver = "directory",
        .programs_dir = PROGRAMS_DIR,
        .partial_ttl_ms = limits.ttl_ms,
        .partial_max_bytes = limits.max_bytes,
    };
    struct store *store = await_store_open(&options, err);

    assert_ok(store, err);
    return store;
}

/* Keeps one MiB of blob `number`, written so many seconds ago. */
static void await_keep(struct store *store, int number, time_t seconds_ago, struct error *err)
{
    const struct digest digest = blob_named(number);
    struct partial *partial = await_partial_open(store, &digest, 2 * MIB, err);
    CLEANUP_FREE char *path = xasprintf("%s/partial/%s", store->data_root, digest_hex(&digest));
    const struct timespec then = {time(NULL) - seconds_ago, 0};

    assert_ok(partial, err);
    assert_ok(await_write_blob(partial, 0, 1 * MIB, err), err);
    partial_close_await(partial);
    assert_int_equal(utimensat(AT_FDCWD, path, (const struct timespec[]){then, then}, 0), 0);
}

/* What is kept, as a text: "ac". */
static const char *kept(const struct store *store)
{
    static char text[10];
    size_t length = 0;

    for (int number = 'a'; number <= 'e'; number++) {
        const struct digest digest = blob_named(number);
        CLEANUP_FREE char *path = xasprintf("%s/partial/%s", store->data_root, digest_hex(&digest));
        if (access(path, F_OK) == 0)
            text[length++] = (char)number;
    }
    text[length] = '\0';
    return text;
}

static void await_kept(const struct store *store, const char *expected)
{
    uint64_t begun_ms = now_ms();

    while (!str_eq(kept(store), expected)) {
        if (now_ms() - begun_ms > 10000)
            fail_msg("kept: %s, not %s", kept(store), expected);
        CHECK(await_sleep(5) == 0);
    }
}

static bool body_ttl(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_limited("ttl", (struct limits){0}, err);
    CLEANUP_FREE char *path = xasprintf("%s/partial/foreign", store->data_root);
    struct partial *partial;
    const struct digest d = blob_named('d');

    await_keep(store, 'a', 71 * 3600, err);
    await_keep(store, 'b', 73 * 3600, err);
    await_keep(store, 'c', -100, err); /* the clock was set back */
    await_keep(store, 'd', 100 * 3600, err);
    partial = await_partial_open(store, &d, 2 * MIB, err); /* in use, so it stays */
    await_kept(store, "acd");
    partial_close_await(partial);
    await_kept(store, "ac");
    store_close_await(store);

    /* Also at the start. */
    assert_int_equal(mkdir(path, 0700), 0);
    store = await_open_limited("ttl", (struct limits){.ttl_ms = 70 * 3600 * 1000}, err);
    await_kept(store, "c");
    while (access(path, F_OK) == 0 || count_entries("ttl/tmp") > 0)
        CHECK(await_sleep(5) == 0);
    store_close_await(store);
    return true;
}

static void test_old_ones_go(void **state UNUSED)
{
    run_task(body_ttl, NULL);
}

static bool body_short_ttl(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_limited("short", (struct limits){.ttl_ms = 1}, err);

    await_keep(store, 'a', 0, err);
    await_kept(store, "");
    store_close_await(store);
    return true;
}

static void test_those_kept_now_go_once_they_are_old(void **state UNUSED)
{
    run_task(body_short_ttl, NULL);
}

static bool body_max(void *arg UNUSED, struct error *err)
{
    const struct digest a = blob_named('a');
    struct store *store = await_open_limited("max", (struct limits){0}, err);
    struct partial_lease *lease = partial_lease_new(store, &a, 1);

    for (int number = 'a'; number <= 'd'; number++)
        await_keep(store, number, 90 - 10 * (number - 'a'), err);
    partial_lease_free(lease);
    store_close_await(store);

    store = await_open_limited("max", (struct limits){.max_bytes = 2 * MIB + 100 * KIB}, err);
    await_kept(store, "cd");
    lease = partial_lease_new(store, (const struct digest[]){blob_named('a'), blob_named('c')}, 2);
    await_keep(store, 'a', 200, err);
    await_keep(store, 'b', 100, err);
    await_keep(store, 'e', 10, err);
    await_kept(store, "acde");
    /* Nothing is about to use them any more. */
    partial_lease_free(lease);
    await_kept(store, "de");
    store_close_await(store);
    return true;
}

static void test_the_oldest_go_if_it_is_too_much(void **state UNUSED)
{
    run_task(body_max, NULL);
}

static bool body_rest(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_limited("rest", (struct limits){0}, err);

    /* 10 % of 32 MiB: three. */
    for (int number = 'a'; number <= 'd'; number++)
        await_keep(store, number, 3500, err);
    await_keep(store, 'e', 3700, err);
    await_kept(store, "abcde");
    await_keep(store, 'c', 3710, err);
    await_keep(store, 'b', 3720, err);
    await_keep(store, 'a', 3730, err);
    await_kept(store, "bcde");
    store_close_await(store);
    return true;
}

static void test_what_rests_takes_a_part_of_the_disk(void **state UNUSED)
{
    assert_int_equal(mount("tmpfs", scratch_directory(), "tmpfs", 0, "size=32m"), 0);
    run_task(body_rest, NULL);
    assert_int_equal(umount2(scratch_directory(), MNT_DETACH), 0);
}

static bool body_space(void *arg UNUSED, struct error *err)
{
    const struct digest b = blob_named('b'), c = blob_named('c');
    struct store *store = await_open_limited("space", (struct limits){0}, err);
    struct partial_lease *lease = partial_lease_new(store, &b, 1);
    struct partial *partial;
    struct space space;

    for (int number = 'a'; number <= 'd'; number++)
        await_keep(store, number, 90 - 10 * (number - 'a'), err);
    partial = await_partial_open(store, &c, 2 * MIB, err);
    assert_ok(await_space(store, 27 * MIB, &space, err), err);
    assert_string_equal(kept(store), "abcd");
    assert_ok(await_space(store, 28 * MIB + 512 * KIB, &space, err), err);
    assert_string_equal(kept(store), "bcd");
    assert_ok(space_check(store, &space, 28 * MIB + 512 * KIB, 0, err), err);
    /* In use, leased: they stay. */
    assert_ok(await_space(store, 100 * MIB, &space, err), err);
    assert_string_equal(kept(store), "bc");
    assert_false(space_check(store, &space, 100 * MIB, 0, NULL));
    partial_lease_free(lease);
    partial_close_await(partial);
    store_close_await(store);
    return true;
}

static void test_dropped_when_space_is_short(void **state UNUSED)
{
    assert_int_equal(mount("tmpfs", scratch_directory(), "tmpfs", 0, "size=32m"), 0);
    run_task(body_space, NULL);
    assert_int_equal(umount2(scratch_directory(), MNT_DETACH), 0);
}

/* While something is fetched: nobody asks for room, and yet it is made. */
static bool body_headroom(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_limited("headroom", (struct limits){0}, err);
    struct partial *partial;

    await_keep(store, 'a', 20, err);
    await_keep(store, 'b', 10, err);
    partial = await_open_blob(store, 40 * MIB, err);
    assert_ok(await_write_blob(partial, 0, 28 * MIB + 600 * KIB, err), err);
    await_kept(store, "b");
    partial_close_await(partial);
    store_close_await(store);
    return true;
}

static void test_room_is_made_while_something_is_fetched(void **state UNUSED)
{
    assert_int_equal(mount("tmpfs", scratch_directory(), "tmpfs", 0, "size=32m"), 0);
    run_task(body_headroom, NULL);
    assert_int_equal(umount2(scratch_directory(), MNT_DETACH), 0);
}

static bool body_prune(void *arg UNUSED, struct error *err)
{
    const struct digest b = blob_named('b'), c = blob_named('c');
    struct store *store = await_open_limited("prune", (struct limits){0}, err);
    struct partial_lease *lease = partial_lease_new(store, &b, 1);
    struct store_usage usage;
    struct partial *partial;
    struct partials_pruned pruned;
    uint64_t bytes;

    for (int number = 'a'; number <= 'e'; number++)
        await_keep(store, number, 1000 - 10 * (number - 'a'), err);
    partial = await_partial_open(store, &c, 2 * MIB, err);
    assert_ok(await_partial_kept(store, &b, 2 * MIB, &bytes, err), err);
    assert_int_equal(bytes, 1 * MIB);
    assert_ok(await_partial_kept(store, &b, 2 * MIB + 1, &bytes, err), err);
    assert_int_equal(bytes, 0);
    assert_ok(await_write_blob(partial, 1 * MIB, 1 * MIB + 5, err), err);
    assert_ok(await_partial_kept(store, &c, 2 * MIB, &bytes, err), err);
    assert_int_equal(bytes, 1 * MIB + 5);
    assert_ok(await_store_usage(store, &usage, err), err);
    assert_int_equal(usage.partial_count, 5);
    assert_int_equal(usage.active_partial_count, 2);
    assert_in_range(usage.partial_bytes, 5 * MIB, 5 * MIB + 100 * KIB);
    assert_in_range(usage.active_partial_bytes, 2 * MIB, 2 * MIB + 40 * KIB);

    assert_ok(await_partials_prune(store, wall_clock_ns() - 975 * 1000000000LL, false, &pruned,
                                   err),
              err);
    assert_string_equal(kept(store), "bcde");
    assert_int_equal(pruned.count, 1);
    assert_in_range(pruned.freed_bytes, 1 * MIB, 1 * MIB + 40 * KIB);
    assert_ok(await_partials_prune(store, INT64_MAX, false, &pruned, err), err);
    assert_string_equal(kept(store), "bc");
    assert_int_equal(pruned.count, 2);
    assert_in_range(pruned.freed_bytes, 2 * MIB, 2 * MIB + 80 * KIB);
    partial_lease_free(lease);
    partial_close_await(partial);
    store_close_await(store);
    return true;
}

static void test_prune(void **state UNUSED)
{
    run_task(body_prune, NULL);
}

/* --- Kept beside the layer ----------------------------------------------------------------------
 */

#define COMPRESSED (3 * PARTIAL_BLOCK_BYTES + 5)

struct adopt {
    struct store *store;
    const struct digest *diff_id;
    const struct strbuf *tar;
    struct partial *partial;
};

static bool await_adopt(const struct adopt *adopt, struct error *err)
{
    struct layer_writer *writer = await_layer_prepare(adopt->store, adopt->diff_id, err);
    bool ok = writer && await_layer_write(writer, adopt->tar->data, adopt->tar->length, err);

    if (ok)
        layer_adopt_blob_await(writer, adopt->partial);
    ok = ok && await_layer_commit(writer, NULL, err);
    layer_writer_free_await(writer);
    return ok;
}

static bool body_adopt(void *arg UNUSED, struct error *err)
{
    CLEANUP_STRBUF struct strbuf tar = {0};
    const struct digest diff_id = make_layer(&tar, "file", "content"), wrong = blob_named('x');
    struct store *store = await_open_scratch("adopt", err);
    CLEANUP_FREE char *path =
        xasprintf("%s/layers/%s/layer.blob", store->data_root, digest_hex(&diff_id));
    CLEANUP_FREE uint8_t *data = xmalloc(COMPRESSED);
    struct adopt adopt = {store, &diff_id, &tar, await_open_blob(store, COMPRESSED, err)};
    CLEANUP_ERROR struct error failure = {0};
    struct layer_verification verification = {0};
    CLEANUP_CLOSE int fd = -1;
    struct store_usage usage;
    struct stat st;

    /* What is fetched outlives a commit that fails. */
    assert_ok(await_write_blob(adopt.partial, 0, COMPRESSED, err), err);
    adopt.diff_id = &wrong;
    assert_false(await_adopt(&adopt, &failure));
    adopt.diff_id = &diff_id;
    partial_close_await(adopt.partial);
    adopt.partial = await_open_blob(store, COMPRESSED, err);
    await_check_holds(adopt.partial, 0, COMPRESSED);
    change_database("adopt", "CREATE TRIGGER no BEFORE INSERT ON layers BEGIN"
                             " SELECT RAISE(ABORT, 'not today'); END");
    assert_false(await_adopt(&adopt, &failure));
    partial_close_await(adopt.partial);
    change_database("adopt", "DROP TRIGGER no");
    adopt.partial = await_open_blob(store, COMPRESSED, err);
    await_check_holds(adopt.partial, 0, COMPRESSED);

    assert_ok(await_adopt(&adopt, err), err);
    assert_ok(await_store_usage(store, &usage, err), err);
    assert_int_equal(usage.partial_bytes, 0); /* it is the layer's already */
    partial_discard(adopt.partial);
    partial_close_await(adopt.partial);
    assert_int_equal(count_entries("adopt/partial"), 0);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0 && st.st_size == COMPRESSED);
    assert_int_equal(pread(fd, data, COMPRESSED, 0), COMPRESSED);
    for (size_t i = 0; i < COMPRESSED; i++)
        assert_int_equal(data[i], blob_byte(i));
    /* Its digest is not that of the blob, which verifying finds. */
    assert_false(await_layer_verify(store, &diff_id, &verification, &failure));
    assert_true(error_is(&failure, "BLOB_DAMAGED"));
    store_close_await(store);
    return true;
}

static void test_adopted_by_a_layer(void **state UNUSED)
{
    run_task(body_adopt, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_old_ones_go),
        cmocka_unit_test(test_those_kept_now_go_once_they_are_old),
        cmocka_unit_test(test_the_oldest_go_if_it_is_too_much),
        cmocka_unit_test(test_what_rests_takes_a_part_of_the_disk),
        cmocka_unit_test(test_dropped_when_space_is_short),
        cmocka_unit_test(test_room_is_made_while_something_is_fetched),
        cmocka_unit_test(test_prune),
        cmocka_unit_test(test_adopted_by_a_layer),
    };

    own_mounts();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
