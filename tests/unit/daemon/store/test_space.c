/* The space that layers may take, on a small file system. */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "daemon/store/internal.h"
#include "tests/unit/daemon/store/fixture.h"

#define DISK_BYTES (64 * MIB)
#define RESERVE_BYTES (24 * MIB)
#define PIECE_BYTES (512 * KIB) /* as transfers write */

static uint64_t free_bytes(void)
{
    struct statvfs fs;

    CHECK(statvfs(scratch_directory(), &fs) == 0);
    return (uint64_t)fs.f_bavail * fs.f_frsize;
}

/* Unpacking works on every file system, EROFS does not. */
static struct store *await_open(uint64_t reserve_bytes, unsigned int percent, struct error *err)
{
    CLEANUP_FREE char *data_root = xasprintf("%s/root", scratch_directory());
    struct store *store = await_store_open(&(struct store_options){.data_root = data_root,
                                                                   .driver = "directory",
                                                                   .reserve_bytes = reserve_bytes,
                                                                   .reserve_percent = percent,
                                                                   .programs_dir = PROGRAMS_DIR},
                                           err);

    CHECK(store);
    return store;
}

/* A layer of files of file_size zeros, size in all. */
static struct digest make_zeros(struct strbuf *tar, size_t size, size_t file_size)
{
    CLEANUP_FREE char *content = xcalloc(1, file_size);
    char name[32];

    strbuf_clear(tar);
    for (size_t i = 0; i < size / file_size; i++) {
        snprintf(name, sizeof(name), "file%zu", i);
        tar_add(tar, name, '0', content, file_size);
    }
    tar_end(tar);
    return digest_of(tar->data, tar->length);
}

/* Stores it in pieces; ret_least is the least space that was free meanwhile. */
static bool await_store_pieces(struct store *store, const struct digest *diff_id,
                               const struct strbuf *tar, uint64_t *ret_least, struct error *err)
{
    struct layer_writer *writer = await_layer_prepare(store, diff_id, err);
    bool ok = writer;

    *ret_least = free_bytes();
    for (size_t done = 0; ok && done < tar->length; done += PIECE_BYTES) {
        ok = await_layer_write(writer, tar->data + done, MIN(PIECE_BYTES, tar->length - done), err);
        *ret_least = MIN(*ret_least, free_bytes());
    }
    ok = ok && await_layer_commit(writer, NULL, err);
    layer_writer_free_await(writer);
    return ok;
}

static void check_no_space(const struct error *err, const char *message, const char *hint)
{
    if (err->code != ERROR_RESOURCE_EXHAUSTED || !error_is(err, "NO_SPACE") ||
        !strstr(err->message, message) || !err->hint || !strstr(err->hint, hint))
        die("not NO_SPACE with \"%s\", but %s: %s (%s)", message, error_code_name(err->code),
            err->message, err->hint);
}

static void mount_disk(const char *options)
{
    assert_int_equal(mount("tmpfs", scratch_directory(), "tmpfs", 0, options), 0);
}

static void run_on_disk(task_fn body, const char *options)
{
    mount_disk(options);
    run_task(body, NULL);
    assert_int_equal(umount2(scratch_directory(), MNT_DETACH), 0);
}

/* --- The reserve -------------------------------------------------------------------------------
 */

static bool body_reserve(void *arg UNUSED, struct error *err)
{
    static const size_t file_sizes[] = {5 * MIB, 4096, 1};
    struct store *store = await_open(RESERVE_BYTES, 100, err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    struct digest diff_id;
    uint64_t least;

    for (size_t i = 0; i < ARRAY_SIZE(file_sizes); i++) {
        CLEANUP_ERROR struct error failure = {0};
        /* Of single bytes 20,000 take 80 MiB on the disk. */
        diff_id = make_zeros(&tar, file_sizes[i] == 1 ? 20000 : 50 * MIB, file_sizes[i]);
        CHECK(!await_store_pieces(store, &diff_id, &tar, &least, &failure));
        check_no_space(&failure, "25.17MB of it to stay free", "--reserve-space");
        if (least < RESERVE_BYTES)
            die("files of %zu: only %llu bytes were free", file_sizes[i],
                (unsigned long long)least);
        CHECK(!layer_find(store, &diff_id, NULL) && count_entries("root/tmp") == 0);
    }
    diff_id = make_zeros(&tar, 25 * MIB, 5 * MIB);
    assert_ok(await_store_pieces(store, &diff_id, &tar, &least, err), err);
    store_close_await(store);
    return true;
}

static void test_reserve_is_kept(void **state UNUSED)
{
    run_on_disk(body_reserve, "size=64m");
}

static bool body_sizes(void *arg UNUSED, struct error *err)
{
    static const struct {
        uint64_t bytes;
        unsigned int percent;
        uint64_t reserve;
    } cases[] = {
        {0, 0, 0},
        {0, 100, 0},
        {UINT64_MAX, 0, 0},
        {1000, 100, 1000},
        {1000000000, 25, DISK_BYTES / 100 * 25},
        {1000000, 25, 1000000},
        {UINT64_MAX, 99, DISK_BYTES / 100 * 99},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct store *store = await_open(cases[i].bytes, cases[i].percent, err);
        struct space space;
        assert_ok(await_space(store, 0, &space, err), err);
        assert_int_equal(space.reserve_bytes, cases[i].reserve);
        assert_int_equal(space.free_bytes, free_bytes());
        assert_false(space.inodes_spent);
        store_close_await(store);
    }
    return true;
}

static void test_reserve_in_bytes_and_percent(void **state UNUSED)
{
    run_on_disk(body_sizes, "size=64m");
}

/* --- Asking before -----------------------------------------------------------------------------
 */

static bool body_check(void *arg UNUSED, struct error *err)
{
    struct space space = {.free_bytes = 100 * MIB, .reserve_bytes = 40 * MIB};
    struct store *store = await_open(0, 0, err);
    CLEANUP_ERROR struct error failure = {0};

    assert_ok(space_check(store, &space, 60 * MIB, 0, err), err);
    assert_ok(space_check(store, &space, 50 * MIB, 10 * MIB, err), err);
    assert_false(space_check(store, &space, 60 * MIB + 1, 0, &failure));
    check_no_space(&failure, "at least 62.91MB more is needed in /", "davit rmi");
    check_no_space(&failure, ", and 104.9MB is free, 41.94MB of it to stay free (reserve", "");
    assert_false(space_check(store, &space, 50 * MIB, 11 * MIB, &failure));
    check_no_space(&failure, "11.53MB of it for what other pulls fetch", "--reserve-space");
    space.reserve_bytes = 101 * MIB;
    assert_false(space_check(store, &space, 0, 0, &failure));
    space = (struct space){.free_bytes = 100 * MIB, .inodes_spent = true};
    assert_false(space_check(store, &space, 1, 0, &failure));
    check_no_space(&failure, "no inodes left", "made with more");
    store_close_await(store);
    return true;
}

static void test_check(void **state UNUSED)
{
    run_on_disk(body_check, "size=64m");
}

static void use_up_inodes(void)
{
    CLEANUP_FREE char *directory = xasprintf("%s/filler", scratch_directory());
    bool made = true;

    assert_int_equal(mkdir(directory, 0700), 0);
    for (int i = 0; made; i++) {
        CLEANUP_FREE char *path = xasprintf("%s/%d", directory, i);
        CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        made = fd >= 0;
    }
}

static bool body_inodes(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open(0, 0, err);
    struct space space;

    use_up_inodes();
    assert_ok(await_space(store, 1, &space, err), err);
    assert_true(space.inodes_spent);
    store_close_await(store);
    return true;
}

static void test_inodes(void **state UNUSED)
{
    run_on_disk(body_inodes, "size=64m,nr_inodes=100");
}

/* Something large in tmp/, as a removed layer is. */
static void make_trash(const char *name)
{
    CLEANUP_FREE char *directory = xasprintf("%s/root/tmp/%s", scratch_directory(), name);

    assert_int_equal(mkdir(directory, 0700), 0);
    for (int i = 0; i < 30; i++) {
        CLEANUP_FREE char *path = xasprintf("%s/%d", directory, i);
        CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_int_equal(posix_fallocate(fd, 0, 1 * MIB), 0);
    }
}

static bool body_trash(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open(0, 0, err);
    struct space space;

    make_trash("first");
    make_trash("second");
    trash_add(store, "first");
    trash_add(store, "second");
    assert_ok(await_space(store, 60 * MIB, &space, err), err);
    assert_true(space.free_bytes > 60 * MIB);
    /* What fits is not made to wait, and what never will is told so. */
    make_trash("third");
    trash_add(store, "third");
    assert_ok(await_space(store, 1 * MIB, &space, err), err);
    assert_ok(await_space(store, 1 * GIB, &space, err), err);
    assert_false(space_check(store, &space, 1 * GIB, 0, NULL));
    assert_int_equal(count_entries("root/tmp"), 0);
    store_close_await(store);
    return true;
}

static void test_waits_for_what_is_being_removed(void **state UNUSED)
{
    run_on_disk(body_trash, "size=64m");
}

/* --- None left ---------------------------------------------------------------------------------
 */

static void fill_disk(int fd)
{
    static char block[64 * KIB];

    for (size_t size = sizeof(block); size > 0; size /= 2) {
        while (write(fd, block, size) > 0)
            ;
    }
    assert_int_equal(free_bytes(), 0);
}

/* The rows do not fit: nothing of the layer or image is there, and it works once there is space. */
static bool body_rows(void *arg UNUSED, struct error *err)
{
    CLEANUP_FREE char *path = xasprintf("%s/filler", scratch_directory());
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    struct store *store = await_open(0, 0, err);
    CLEANUP_STRBUF struct strbuf tar = {0};
    CLEANUP_FREE char *config = xcalloc(1, 2 * MIB);
    CLEANUP_ERROR struct error failure = {0};
    struct digest diff_id = make_layer(&tar, "file", "content");
    struct image image = {.config_data = config,
                          .manifest_data = config,
                          .config_size = 2 * MIB,
                          .manifest_size = 2 * MIB,
                          .os = "linux",
                          .architecture = "amd64",
                          .diff_ids = &diff_id,
                          .diff_id_count = 1};
    bool changed;

    memset(config, 'x', 2 * MIB);
    image.id = image.manifest_digest = digest_of(config, 2 * MIB);
    assert_ok(await_store_layer(store, &diff_id, &tar, NULL, err), err);
    fill_disk(fd);
    assert_false(await_image_commit(store, &image, "full:latest", NULL, &changed, &failure));
    check_no_space(&failure, "davit.db", "davit rmi");
    assert_null(image_find(store, "full:latest"));
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_ok(await_image_commit(store, &image, "full:latest", NULL, &changed, err), err);
    assert_non_null(image_find(store, "full:latest"));
    store_close_await(store);
    return true;
}

static void test_rows_on_a_full_disk(void **state UNUSED)
{
    run_on_disk(body_rows, "size=64m");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reserve_is_kept),
        cmocka_unit_test(test_reserve_in_bytes_and_percent),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_inodes),
        cmocka_unit_test(test_waits_for_what_is_being_removed),
        cmocka_unit_test(test_rows_on_a_full_disk),
    };

    own_mounts();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
