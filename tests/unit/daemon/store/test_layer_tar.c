/* Layers read as their tars, from what the driver keeps or from kept blobs; and how these come to
 * be kept of layers that do not come from a registry. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <sys/stat.h>

#include "daemon/store/compress.h"
#include "daemon/store/layer_file.h"
#include "daemon/store/layer_tar.h"
#include "tests/unit/daemon/store/fixture.h"

/* Several pieces of the compressor, and no whole number of them. */
#define CONTENT_BYTES (900 * KIB + 77)

enum keep { KEEP_NOTHING, KEEP_COMPRESSING, KEEP_AS_IT_CAME };

static bool with_directories(void)
{
    return str_eq(test_driver(), "directory");
}

static struct digest large_layer(struct strbuf *tar)
{
    CLEANUP_FREE char *content = xmalloc(CONTENT_BYTES);
    uint32_t state = 1;

    for (size_t i = 0; i < CONTENT_BYTES; i++) {
        state = state * 1664525 + 1013904223;
        content[i] = (char)(state >> 24 & 0x3f);
    }
    tar_add(tar, "large", '0', content, CONTENT_BYTES);
    tar_end(tar);
    return digest_of(tar->data, tar->length);
}

static void compress_all(const struct strbuf *tar, struct strbuf *ret)
{
    struct compressor *compressor = compressor_new(COMPRESSION_GZIP, tar->length);

    for (size_t done = 0; done < tar->length; done += COMPRESS_PIECE_BYTES) {
        size_t size = MIN(tar->length - done, COMPRESS_PIECE_BYTES);
        const uint8_t *out;
        size_t n =
            compress_piece(compressor, tar->data + done, size, done + size == tar->length, &out);
        strbuf_add(ret, out, n);
    }
    compressor_free(compressor);
}

/* In parts that fit no piece. */
static void await_store_keeping(struct store *store, const struct digest *diff_id,
                                const struct strbuf *tar, const struct strbuf *blob, enum keep keep)
{
    CLEANUP_ERROR struct error err = {0};
    struct layer_writer *writer = await_layer_prepare(store, diff_id, &err);
    const size_t part = 100001;

    assert_non_null(writer);
    if (keep != KEEP_NOTHING)
        layer_writer_keep(writer, keep == KEEP_COMPRESSING);
    for (size_t done = 0; done < tar->length; done += part)
        CHECK(await_layer_write(writer, tar->data + done, MIN(part, tar->length - done), &err));
    for (size_t done = 0; keep == KEEP_AS_IT_CAME && done < blob->length; done += 999)
        CHECK(layer_keep_blocking(writer, blob->data + done, MIN(999, blob->length - done), &err));
    CHECK(await_layer_commit(writer, NULL, &err));
    layer_writer_free_await(writer);
}

/* All of it, or what it failed with. */
static bool await_read_all(struct store *store, const struct digest *diff_id, struct strbuf *ret,
                           struct error *err)
{
    CLEANUP(layer_tar_cleanup)
    struct layer_tar *tar = await_layer_tar_open(store, diff_id, err);
    char buffer[7001];
    ssize_t n;

    strbuf_clear(ret);
    if (!tar)
        return false;
    while ((n = await_layer_tar_read(tar, buffer, sizeof(buffer), err)) > 0)
        strbuf_add(ret, buffer, (size_t)n);
    if (n < 0) {
        CHECK(ret->length < layer_tar_size(tar)); /* the end is not given */
        return false;
    }
    CHECK(ret->length == layer_tar_size(tar));
    CHECK(await_layer_tar_read(tar, buffer, sizeof(buffer), err) == 0);
    return true;
}

static struct store *await_open_keeping(const char *name, bool keep, bool drop)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *root = xasprintf("%s/%s", scratch_directory(), name);
    struct store *store = await_store_open(&(struct store_options){.data_root = root,
                                                                   .driver = test_driver(),
                                                                   .programs_dir = PROGRAMS_DIR,
                                                                   .keep_blobs = keep,
                                                                   .drop_blobs = drop},
                                           &err);

    assert_non_null(store);
    return store;
}

static char *layer_path(const char *root, const struct digest *diff_id, const char *file)
{
    return xasprintf("%s/layers/%s/%s", root, digest_hex(diff_id), file);
}

/* What is kept to give the layer out. */
static char *given_file(const char *root, const struct digest *diff_id)
{
    return layer_path(root, diff_id, with_directories() ? "layer.blob" : "layer.tar");
}

static bool blob_exists(const char *root, const struct digest *diff_id)
{
    CLEANUP_FREE char *file = layer_path(root, diff_id, "layer.blob");
    CLEANUP_FREE char *path = xasprintf("%s/%s", scratch_directory(), file);

    return access(path, F_OK) == 0;
}

static void expect_same(const struct strbuf *a, const struct strbuf *b)
{
    assert_int_equal(a->length, b->length);
    assert_memory_equal(a->data, b->data, a->length);
}

/* --- Tests -------------------------------------------------------------------------------------
 */

static bool body_read(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_keeping("read", false, false);
    CLEANUP_STRBUF struct strbuf tar = {0}, read = {0};
    struct digest diff_id = large_layer(&tar);

    await_store_keeping(store, &diff_id, &tar, NULL, KEEP_COMPRESSING);
    assert_int_equal(blob_exists("read", &diff_id), with_directories());
    CHECK(await_read_all(store, &diff_id, &read, err));
    expect_same(&read, &tar);
    store_close_await(store);

    /* A later daemon finds it, and its ledger is right. */
    store = await_open_keeping("read", false, false);
    CHECK(await_read_all(store, &diff_id, &read, err));
    expect_same(&read, &tar);
    CHECK(await_layer_verify(store, &diff_id, &(struct layer_verification){0}, err));
    store_close_await(store);
    return true;
}

static bool body_empty(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_keeping("empty", false, false);
    CLEANUP_STRBUF struct strbuf tar = {0}, read = {0};
    struct digest diff_id;

    tar_end(&tar);
    diff_id = digest_of(tar.data, tar.length);
    await_store_keeping(store, &diff_id, &tar, NULL, KEEP_COMPRESSING);
    CHECK(await_read_all(store, &diff_id, &read, err));
    expect_same(&read, &tar);
    store_close_await(store);
    return true;
}

static bool body_as_it_came(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_keeping("came", true, false);
    CLEANUP_STRBUF struct strbuf tar = {0}, blob = {0}, read = {0};
    CLEANUP_LAYER_FILE struct layer_file file = {.fd = -1};
    struct digest diff_id = large_layer(&tar), digest;

    compress_all(&tar, &blob);
    digest = digest_of(blob.data, blob.length);
    await_store_keeping(store, &diff_id, &tar, &blob, KEEP_AS_IT_CAME);
    CHECK(await_layer_file_open(store, &diff_id, LAYER_KEPT, &file, err));
    assert_string_equal(file.digest.text, digest.text);
    assert_int_equal(file.size_bytes, blob.length);
    CHECK(await_read_all(store, &diff_id, &read, err));
    expect_same(&read, &tar);
    CHECK(await_layer_verify(store, &diff_id, &(struct layer_verification){0}, err));
    store_close_await(store);
    return true;
}

/* Without a tar and without a blob there is nothing to give. */
static bool body_dropped(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_keeping("dropped", false, true);
    CLEANUP_STRBUF struct strbuf tar = {0}, read = {0};
    struct digest diff_id = large_layer(&tar);

    await_store_keeping(store, &diff_id, &tar, NULL, KEEP_COMPRESSING);
    assert_false(blob_exists("dropped", &diff_id));
    if (with_directories()) {
        CHECK(!await_read_all(store, &diff_id, &read, err));
        CHECK(err->code == ERROR_FAILED_PRECONDITION && error_is(err, "NO_LAYER_FILE"));
        CHECK(strstr(err->message, digest_hex(&diff_id)) || strstr(err->message, "sha256:"));
        CHECK(strstr(err->hint, "keep-compressed"));
        error_done(err);
    } else {
        CHECK(await_read_all(store, &diff_id, &read, err));
    }
    store_close_await(store);
    return true;
}

static void expect_damage(struct store *store, const struct digest *diff_id)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_STRBUF struct strbuf read = {0};

    CHECK(!await_read_all(store, diff_id, &read, &err));
    assert_int_equal(err.code, ERROR_DATA_LOSS);
    assert_string_equal(err.reason, with_directories() ? "BLOB_DAMAGED" : "LAYER_DAMAGED");
    CHECK(strstr(err.hint, "davit system verify --repair"));
}

static bool body_damaged(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_keeping("damaged", false, false);
    CLEANUP_STRBUF struct strbuf tar = {0}, read = {0};
    CLEANUP_FREE char *file = NULL, *path = NULL;
    struct digest diff_id = large_layer(&tar);
    struct stat status;

    await_store_keeping(store, &diff_id, &tar, NULL, KEEP_COMPRESSING);
    file = given_file("damaged", &diff_id);
    path = xasprintf("%s/%s", scratch_directory(), file);
    CHECK(stat(path, &status) == 0);
    flip_byte(file, status.st_size / 2);
    expect_damage(store, &diff_id);
    flip_byte(file, status.st_size / 2);
    CHECK(await_read_all(store, &diff_id, &read, err));
    CHECK(truncate(path, status.st_size - 1) == 0);
    expect_damage(store, &diff_id);
    CHECK(truncate(path, status.st_size + 1) == 0);
    expect_damage(store, &diff_id);
    store_close_await(store);
    return true;
}

/* What is known to be damaged is not opened. */
static bool body_quarantined(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_keeping("quarantined", false, false);
    CLEANUP_STRBUF struct strbuf tar = {0};
    CLEANUP_FREE char *file = NULL;
    struct digest diff_id = large_layer(&tar);

    await_store_keeping(store, &diff_id, &tar, NULL, KEEP_COMPRESSING);
    file = given_file("quarantined", &diff_id);
    flip_byte(file, 600);
    CHECK(!await_layer_verify(store, &diff_id, &(struct layer_verification){0}, err));
    error_done(err);
    flip_byte(file, 600); /* it would be right again */
    CHECK(!await_layer_tar_open(store, &diff_id, err));
    assert_int_equal(err->code, ERROR_DATA_LOSS);
    error_done(err);
    store_close_await(store);
    return true;
}

static bool body_missing(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_keeping("missing", false, false);
    struct digest none = digest_of("none", 4);

    CHECK(!await_layer_tar_open(store, &none, err));
    CHECK(err->code == ERROR_NOT_FOUND && error_is(err, "LAYER_NOT_FOUND"));
    error_done(err);
    store_close_await(store);
    return true;
}

#define TEST(name)                      \
    static void test_##name(void **arg) \
    {                                   \
        (void)arg;                      \
        run_task(body_##name, NULL);    \
    }

TEST(read)
TEST(empty)
TEST(as_it_came)
TEST(dropped)
TEST(damaged)
TEST(quarantined)
TEST(missing)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),       cmocka_unit_test(test_empty),
        cmocka_unit_test(test_as_it_came), cmocka_unit_test(test_dropped),
        cmocka_unit_test(test_damaged),    cmocka_unit_test(test_quarantined),
        cmocka_unit_test(test_missing),
    };

    own_mounts();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
