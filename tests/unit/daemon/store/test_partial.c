/* Blobs on their way in: what is found again after whatever ended the last try. */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "daemon/store/internal.h"
#include "daemon/store/partial_file.h"
#include "tests/unit/daemon/store/fixture.h"
#include "tests/unit/daemon/store/partials.h"

#define BLOCK (4 * PARTIAL_BLOCK_BYTES)
#define BOOT_ID "/proc/sys/kernel/random/boot_id"

static char *blob_path(const char *name)
{
    const struct digest digest = blob_digest();

    return xasprintf("%s/%s/partial/%s", scratch_directory(), name, digest_hex(&digest));
}

/* --- Ranges ------------------------------------------------------------------------------------
 */

#define MODEL_BYTES 200

static void check_against_model(const struct byte_ranges *ranges, const bool *model)
{
    uint64_t bytes = 0;

    for (uint64_t from = 0; from < MODEL_BYTES; from++) {
        struct byte_range missing;
        uint64_t offset = from, end;
        bool found;
        bytes += model[from];
        while (offset < MODEL_BYTES && model[offset])
            offset++;
        end = offset;
        while (end < MODEL_BYTES && !model[end])
            end++;
        found = byte_ranges_missing(ranges, from, MODEL_BYTES, &missing);
        assert_int_equal(found, offset < end);
        if (found) {
            assert_int_equal(missing.offset, offset);
            assert_int_equal(missing.end, end);
        }
        assert_int_equal(byte_ranges_hold(ranges, from, from + 1), model[from]);
    }
    assert_int_equal(ranges->bytes, bytes);
    for (size_t i = 1; i < ranges->count; i++)
        assert_true(ranges->items[i - 1].end < ranges->items[i].offset);
}

static void test_ranges(void **state UNUSED)
{
    srandom(1);
    for (int round = 0; round < 200; round++) {
        struct byte_ranges ranges = {0};
        bool model[MODEL_BYTES] = {false};
        for (int i = 0; i < 30; i++) {
            uint64_t offset = (uint64_t)random() % MODEL_BYTES;
            uint64_t length = (uint64_t)random() % 20, end = MIN(MODEL_BYTES, offset + length);
            struct byte_range merged = byte_ranges_add(&ranges, offset, end);
            assert_true(merged.offset <= offset && merged.end >= end);
            for (uint64_t at = offset; at < end; at++)
                model[at] = true;
            check_against_model(&ranges, model);
        }
        byte_ranges_done(&ranges);
    }
}

/* --- Kept --------------------------------------------------------------------------------------
 */

#define SIZE (10 * BLOCK + 100)

static bool body_close(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("close", err);
    struct partial *partial = await_open_blob(store, SIZE, err);
    struct byte_range missing;

    assert_int_equal(partial_bytes(partial), 0);
    assert_ok(await_write_blob(partial, 10, 2 * BLOCK + 7, err), err);
    await_check_holds(partial, 10, 2 * BLOCK + 7);
    assert_true(partial_missing(partial, 11, &missing));
    assert_int_equal(missing.offset, 2 * BLOCK + 7);
    assert_int_equal(missing.end, SIZE);
    assert_false(partial_missing(partial, SIZE, &missing));
    partial_close_await(partial);

    /* Whole blocks stay. */
    partial = await_open_blob(store, SIZE, err);
    await_check_holds(partial, PARTIAL_BLOCK_BYTES, 2 * BLOCK);
    assert_ok(await_write_blob(partial, 9 * BLOCK + 50, SIZE, err), err);
    assert_ok(await_write_blob(partial, 0, 9 * BLOCK + 50, err), err);
    await_check_holds(partial, 0, SIZE);
    assert_false(partial_missing(partial, 0, &missing));
    partial_close_await(partial);
    store_close_await(store);

    /* Also for the next daemon; the last block is a short one. */
    store = await_open_scratch("close", err);
    partial = await_open_blob(store, SIZE, err);
    await_check_holds(partial, 0, SIZE);
    partial_close_await(partial);
    assert_int_equal(count_entries("close/partial"), 1);
    store_close_await(store);
    return true;
}

static void test_kept_when_closed(void **state UNUSED)
{
    run_task(body_close, NULL);
}

static bool body_nothing(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("nothing", err);
    struct partial *partial = await_open_blob(store, SIZE, err);

    partial_close_await(partial);
    assert_int_equal(count_entries("nothing/partial"), 0);
    partial = await_open_blob(store, SIZE, err);
    assert_ok(await_write_blob(partial, 1, PARTIAL_BLOCK_BYTES, err), err);
    partial_close_await(partial);
    assert_int_equal(count_entries("nothing/partial"), 0);
    partial = await_open_blob(store, SIZE, err);
    assert_ok(await_write_blob(partial, 0, SIZE, err), err);
    partial_discard(partial);
    partial_close_await(partial);
    assert_int_equal(count_entries("nothing/partial"), 0);
    partial = await_open_blob(store, 0, err);
    await_check_holds(partial, 0, 0);
    partial_close_await(partial);
    assert_int_equal(count_entries("nothing/partial"), 0);
    assert_null(partial_close_await(NULL));
    store_close_await(store);
    return true;
}

static void test_nothing_is_not_kept(void **state UNUSED)
{
    run_task(body_nothing, NULL);
}

static bool body_reset(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("reset", err);
    struct partial *partial = await_open_blob(store, SIZE, err);

    assert_ok(await_write_blob(partial, 0, SIZE, err), err);
    partial_close_await(partial);
    partial = await_open_blob(store, SIZE, err);
    assert_ok(await_partial_reset(partial, err), err);
    assert_int_equal(partial_bytes(partial), 0);
    assert_ok(await_write_blob(partial, BLOCK, 6 * BLOCK, err), err);
    partial_close_await(partial);
    partial = await_open_blob(store, SIZE, err);
    await_check_holds(partial, BLOCK, 6 * BLOCK);
    assert_ok(await_partial_reset(partial, err), err);
    partial_close_await(partial);
    assert_int_equal(count_entries("reset/partial"), 0);
    store_close_await(store);
    return true;
}

static void test_reset(void **state UNUSED)
{
    run_task(body_reset, NULL);
}

/* --- After a kill, and after a reboot ------------------------------------------------------------
 */

/* Writes five blocks, closes, writes another two and a half, and dies. */
static bool body_die(void *arg, struct error *err)
{
    struct store *store = await_open_scratch(arg, err);
    struct partial *partial = await_open_blob(store, SIZE, err);

    assert_ok(await_write_blob(partial, 0, 5 * BLOCK, err), err);
    partial_close_await(partial);
    partial = await_open_blob(store, SIZE, err);
    assert_ok(await_write_blob(partial, 5 * BLOCK, 7 * BLOCK + 50, err), err);
    raise(SIGKILL);
    return true;
}

static void die_writing(void *arg)
{
    run_task(body_die, arg);
}

static bool body_die_reset(void *arg, struct error *err)
{
    struct store *store = await_open_scratch(arg, err);
    struct partial *partial = await_open_blob(store, SIZE, err);

    assert_ok(await_write_blob(partial, 0, SIZE, err), err);
    assert_ok(await_partial_reset(partial, err), err);
    raise(SIGKILL);
    return true;
}

static void die_reset(void *arg)
{
    run_task(body_die_reset, arg);
}

struct expected {
    const char *name;
    uint64_t offset, end;
};

static bool body_expect(void *arg, struct error *err)
{
    const struct expected *expected = arg;
    struct store *store = await_open_scratch(expected->name, err);
    struct partial *partial = await_open_blob(store, SIZE, err);

    await_check_holds(partial, expected->offset, expected->end);
    partial_close_await(partial);
    store_close_await(store);
    return true;
}

static void check_after_death(const char *name, uint64_t end)
{
    struct expected expected = {name, 0, end};
    static struct child_end child;

    run_in_child(die_writing, (void *)name, &child);
    if (!WIFSIGNALED(child.status) || WTERMSIG(child.status) != SIGKILL)
        fail_msg("%s", child.text);
    run_task(body_expect, &expected);
    run_task(body_expect, &expected); /* and the time after that */
}

UNUSED static void test_after_a_kill(void **state UNUSED)
{
    check_after_death("kill", 7 * BLOCK);
}

/* What was wrong does not come back. */
UNUSED static void test_after_a_kill_that_follows_a_reset(void **state UNUSED)
{
    struct expected expected = {"killed reset", 0, 0};
    static struct child_end child;

    run_in_child(die_reset, (void *)expected.name, &child);
    assert_true(WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGKILL);
    run_task(body_expect, &expected);
}

static void boot(const char *id)
{
    CLEANUP_FREE char *path = xasprintf("%s/boot_id", scratch_directory());
    FILE *file = fopen(path, "w");

    CHECK(file && fprintf(file, "%s\n", id) > 0 && fclose(file) == 0);
    assert_int_equal(mount(path, BOOT_ID, NULL, MS_BIND, NULL), 0);
}

UNUSED static void test_after_a_reboot(void **state UNUSED)
{
    struct expected expected = {"reboot", 0, 5 * BLOCK};
    static struct child_end child;

    run_in_child(die_writing, (void *)"reboot", &child);
    boot("00000000-0000-4000-8000-000000000001");
    run_task(body_expect, &expected);
    /* The maps are this boot's now: the same again after a kill. */
    check_after_death("reboot", 7 * BLOCK);
    assert_int_equal(umount2(BOOT_ID, 0), 0);
}

static bool body_background(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("background", err);
    struct partial *partial = await_open_blob(store, SIZE, err);
    CLEANUP_FREE char *path = blob_path("background");
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct partial_layout layout;
    uint64_t begun_ms = now_ms();
    uint8_t durable[2] = {0, 0};

    assert_ok(partial_layout_make(SIZE, &layout, err), err);
    assert_ok(await_write_blob(partial, 0, 2 * BLOCK, err), err);
    while (durable[0] == 0) {
        CHECK(now_ms() - begun_ms < 60000 && await_sleep(20) == 0);
        assert_true(pread(fd, durable, 2, (off_t)layout.durable_offset) == 2);
    }
    assert_true(now_ms() - begun_ms >= 1900);
    assert_int_equal(durable[1], 1);
    partial_close_await(partial);
    store_close_await(store);
    return true;
}

static void test_synced_in_the_background(void **state UNUSED)
{
    run_task(body_background, NULL);
}

/* --- Threads -----------------------------------------------------------------------------------
 */

struct storm {
    struct partial *partial;
    uint8_t fill;
};

/* Writes all of the blob in pieces that overlap those of the others, in its own bytes. */
static void storm_in_pool(void *arg)
{
    const struct storm *storm = arg;
    uint8_t data[3000];
    CLEANUP_ERROR struct error err = {0};

    memset(data, storm->fill, sizeof(data));
    for (uint64_t at = 0; at < SIZE; at += 1000 + storm->fill)
        CHECK(partial_write_blocking(storm->partial, at, data, MIN(sizeof(data), SIZE - at), &err));
}

static bool storm_task(void *arg, struct error *err UNUSED)
{
    CHECK(await_work(storm_in_pool, arg, "writing") == 0);
    return true;
}

/* Whoever writes a byte first has it: a reader never sees it change. */
static bool body_threads(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("threads", err);
    struct partial *partial = await_open_blob(store, SIZE, err);
    CLEANUP_FREE uint8_t *seen = xcalloc(1, SIZE), *again = xcalloc(1, SIZE);
    struct storm storms[4];
    uint64_t read_end = 0;
    struct group group;

    group_init(&group);
    for (size_t i = 0; i < ARRAY_SIZE(storms); i++) {
        storms[i] = (struct storm){partial, (uint8_t)(i + 1)};
        assert_ok(task_spawn(&group, "storm", NULL, storm_task, &storms[i], err), err);
    }
    while (read_end < SIZE) {
        uint64_t end = partial_contiguous(partial);
        if (end > read_end)
            assert_ok(partial_read_blocking(partial, read_end, seen + read_end, end - read_end,
                                            err),
                      err);
        read_end = end;
        CHECK(await_yield() == 0);
    }
    assert_ok(await_group(&group, err), err);
    assert_ok(partial_read_blocking(partial, 0, again, SIZE, err), err);
    assert_memory_equal(seen, again, SIZE);
    assert_null(memchr(seen, 0, SIZE));
    partial_close_await(partial);
    partial = await_open_blob(store, SIZE, err);
    assert_int_equal(partial_bytes(partial), SIZE);
    partial_close_await(partial);
    store_close_await(store);
    group_done_await(&group);
    return true;
}

static void test_several_threads(void **state UNUSED)
{
    run_task(body_threads, NULL);
}

#define LARGE (32 * MIB)

static void flood_in_pool(void *arg)
{
    const struct storm *storm = arg;
    CLEANUP_FREE uint8_t *data = xmalloc(LARGE);
    CLEANUP_ERROR struct error err = {0};

    memset(data, storm->fill, LARGE);
    CHECK(partial_write_blocking(storm->partial, 0, data, LARGE, &err));
}

static bool flood_task(void *arg, struct error *err UNUSED)
{
    CHECK(await_work(flood_in_pool, arg, "writing") == 0);
    return true;
}

/* The same with writes that take long, so that the second begins before the first has ended. */
static bool body_large(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("large", err);
    struct partial *partial = await_open_blob(store, LARGE, err);
    CLEANUP_FREE uint8_t *seen = xmalloc(LARGE), *again = xmalloc(LARGE);
    struct storm storms[3];
    struct group group;

    group_init(&group);
    for (size_t i = 0; i < ARRAY_SIZE(storms); i++) {
        storms[i] = (struct storm){partial, (uint8_t)(i + 1)};
        assert_ok(task_spawn(&group, "flood", NULL, flood_task, &storms[i], err), err);
    }
    while (partial_bytes(partial) < LARGE)
        CHECK(await_yield() == 0);
    assert_ok(partial_read_blocking(partial, 0, seen, LARGE, err), err);
    assert_ok(await_group(&group, err), err);
    assert_ok(partial_read_blocking(partial, 0, again, LARGE, err), err);
    assert_memory_equal(seen, again, LARGE);
    partial_discard(partial);
    partial_close_await(partial);
    store_close_await(store);
    group_done_await(&group);
    return true;
}

static void test_several_large_writes(void **state UNUSED)
{
    run_task(body_large, NULL);
}

struct second {
    struct store *store;
    bool opened;
};

static bool second_task(void *arg, struct error *err)
{
    struct second *second = arg;
    struct partial *partial = await_open_blob(second->store, SIZE, err);

    second->opened = true;
    await_check_holds(partial, 0, 3 * BLOCK);
    partial_close_await(partial);
    return true;
}

static bool body_one_user(void *arg UNUSED, struct error *err)
{
    struct second second = {.store = await_open_scratch("one", err)};
    struct partial *partial = await_open_blob(second.store, SIZE, err);
    struct group group;

    group_init(&group);
    assert_ok(task_spawn(&group, "second", NULL, second_task, &second, err), err);
    assert_ok(await_write_blob(partial, 0, 3 * BLOCK, err), err);
    for (int i = 0; i < 10; i++)
        CHECK(await_yield() == 0);
    assert_false(second.opened);
    partial_close_await(partial);
    assert_ok(await_group(&group, err), err);
    assert_true(second.opened);
    group_done_await(&group);
    store_close_await(second.store);
    return true;
}

static void test_one_user_at_a_time(void **state UNUSED)
{
    run_task(body_one_user, NULL);
}

/* --- Damage ------------------------------------------------------------------------------------
 */

static void put(const char *path, off_t offset, const char *data)
{
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    CHECK(fd >= 0 && pwrite(fd, data, strlen(data), offset) == (ssize_t)strlen(data));
}

static void damage(const char *path, const struct partial_layout *layout, unsigned int kind)
{
    CLEANUP_FREE char *elsewhere = xasprintf("%s.x", path), *inside = xasprintf("%s/file", path);

    switch (kind) {
    case 0:
        put(path, (off_t)layout->header_offset, "x");
        break;
    case 1:
        put(path, (off_t)layout->written_offset + 3, "\2");
        break;
    case 2:
        put(path, (off_t)layout->durable_offset, "\377");
        break;
    case 3:
        CHECK(truncate(path, (off_t)layout->end - 1) == 0);
        break;
    case 4:
        put(path, (off_t)layout->end, "x");
        break;
    case 5:
        CHECK(truncate(path, 0) == 0);
        break;
    case 6:
        CHECK(unlink(path) == 0 && mkdir(path, 0700) == 0);
        put(inside, 0, "x");
        break;
    case 7:
        CHECK(rename(path, elsewhere) == 0 && symlink(elsewhere, path) == 0);
        break;
    case 8:
        CHECK(unlink(path) == 0 && mkfifo(path, 0600) == 0);
        break;
    default:
        /* Of another blob: its name was changed. */
        put(path, (off_t)layout->header_offset + 16 + 2 * 8 + 10, "0000000000000000");
    }
}

static bool body_damage(void *arg UNUSED, struct error *err)
{
    CLEANUP_FREE char *path = blob_path("damage");
    struct store *store = await_open_scratch("damage", err);
    struct partial_layout layout;
    struct partial *partial;

    assert_ok(partial_layout_make(SIZE, &layout, err), err);
    for (unsigned int kind = 0; kind < 10; kind++) {
        partial = await_open_blob(store, SIZE, err);
        await_check_holds(partial, 0, 0);
        assert_ok(await_write_blob(partial, 0, SIZE, err), err);
        partial_close_await(partial);
        damage(path, &layout, kind);
    }
    partial = await_open_blob(store, SIZE, err);
    await_check_holds(partial, 0, 0);
    assert_ok(await_write_blob(partial, 0, SIZE, err), err);
    partial_close_await(partial);
    /* Somebody lies about its size. */
    partial = await_open_blob(store, SIZE + 1, err);
    await_check_holds(partial, 0, 0);
    partial_close_await(partial);
    store_close_await(store);
    return true;
}

static void test_damaged_files_are_discarded(void **state UNUSED)
{
    run_task(body_damage, NULL);
}

/* --- Sizes -------------------------------------------------------------------------------------
 */

static void test_layouts(void **state UNUSED)
{
    static const uint64_t sizes[] = {0,        1,       4095,         4096,       4097,      BLOCK,
                                     64 * GIB, 1 * GIB, 64 * GIB + 1, 1024 * GIB, 1ULL << 62};
    CLEANUP_ERROR struct error err = {0};
    struct partial_layout layout;

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct byte_range all = {0, sizes[i]};
        assert_ok(partial_layout_make(sizes[i], &layout, &err), &err);
        assert_true(layout.block_count <= 1 * MIB + 1);
        assert_true(layout.block_count * layout.block_bytes >= sizes[i]);
        assert_true(sizes[i] >= 4 * GIB || layout.block_bytes == PARTIAL_BLOCK_BYTES);
        assert_true(layout.header_offset >= sizes[i] && layout.header_offset % 4096 == 0);
        assert_true(layout.end > sizes[i]);
        assert_int_equal(partial_blocks(&layout, all).end, layout.block_count);
    }
    assert_false(partial_layout_make(UINT64_MAX, &layout, &err));
    assert_error(&err, ERROR_INTERNAL, "blob of 18446744073709551615 bytes");
}

/* --- No space ----------------------------------------------------------------------------------
 */

#define DISK_BYTES (32 * MIB)
#define RESERVE_BYTES (8 * MIB)

static bool body_full(void *arg UNUSED, struct error *err)
{
    CLEANUP_FREE char *data_root = xasprintf("%s/full", scratch_directory());
    const struct store_options options = {
        .data_root = data_root,
        .driver = "directory", /* works on every file system */
        .reserve_bytes = RESERVE_BYTES,
        .reserve_percent = 100,
        .programs_dir = PROGRAMS_DIR,
    };
    struct store *store = await_store_open(&options, err);
    struct partial *partial = await_open_blob(store, 2 * DISK_BYTES, err);
    CLEANUP_ERROR struct error failure = {0};
    uint64_t at = 0;
    struct statvfs fs;

    while (at < DISK_BYTES && await_write_blob(partial, at, at + 4 * BLOCK, &failure))
        at += 4 * BLOCK;
    if (!error_is(&failure, "NO_SPACE") || !failure.hint)
        fail_msg("%s", failure.message);
    assert_true(at > DISK_BYTES / 4);
    assert_true(statvfs(data_root, &fs) == 0 && fs.f_bavail * fs.f_frsize >= RESERVE_BYTES);
    await_check_holds(partial, 0, at);
    partial_close_await(partial);
    partial = await_open_blob(store, 2 * DISK_BYTES, err);
    await_check_holds(partial, 0, at);
    partial_close_await(partial);
    store_close_await(store);
    return true;
}

static void test_full_disk(void **state UNUSED)
{
    assert_int_equal(mount("tmpfs", scratch_directory(), "tmpfs", 0, "size=32m"), 0);
    run_task(body_full, NULL);
    assert_int_equal(umount2(scratch_directory(), MNT_DETACH), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_kept_when_closed),
        cmocka_unit_test(test_nothing_is_not_kept),
        cmocka_unit_test(test_reset),
#ifndef TEST_TSAN /* these fork when there are threads */
        cmocka_unit_test(test_after_a_kill),
        cmocka_unit_test(test_after_a_kill_that_follows_a_reset),
        cmocka_unit_test(test_after_a_reboot),
#endif
        cmocka_unit_test(test_synced_in_the_background),
        cmocka_unit_test(test_several_threads),
        cmocka_unit_test(test_several_large_writes),
        cmocka_unit_test(test_one_user_at_a_time),
        cmocka_unit_test(test_damaged_files_are_discarded),
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_full_disk),
    };

    own_mounts();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
