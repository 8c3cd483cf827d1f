#include "tests/unit/task_test.h"

#include <fcntl.h>

#include "daemon/image/pack.h"
#include "daemon/store/decompress.h"
#include "proto/base/strbuf.h"

enum { TAR_BYTES = 7 * MIB + 4321, CHUNK = 300000 };

/* Half of it compresses, half does not; the same in each run. */
static uint8_t *make_tar(void)
{
    uint8_t *tar = xmalloc(TAR_BYTES);
    uint32_t random = 1;

    for (size_t i = 0; i < TAR_BYTES; i++) {
        random = random * 1664525 + 1013904223;
        tar[i] = i / 100000 % 2 ? (uint8_t)(random >> 24) : (uint8_t)('a' + i / 3 % 7);
    }
    return tar;
}

static struct pack *open_pack_as(const struct digest *diff_id, const uint8_t *tar, size_t size,
                                 enum compression compression)
{
    struct layer_file file = {.size_bytes = size};

    file.fd = open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    assert_true(file.fd >= 0);
    assert_int_equal(write(file.fd, tar, size), size);
    return pack_new(layer_tar_of_file(diff_id, TAR_BYTES, &file, false), compression);
}

static struct pack *open_pack(const uint8_t *tar, size_t size, enum compression compression)
{
    struct digest diff_id = digest_of(tar, TAR_BYTES);

    return open_pack_as(&diff_id, tar, size, compression);
}

static bool await_read_chunk(struct pack *pack, uint64_t offset, size_t size, struct strbuf *ret,
                             struct error *err)
{
    while (size > 0) {
        ssize_t n;
        strbuf_reserve(ret, 10000);
        n = await_pack_read(pack, offset, ret->data + ret->length, MIN(size, 10000U), err);
        if (n < 0)
            return false;
        assert_true(n > 0);
        ret->length += (size_t)n;
        offset += (size_t)n;
        size -= (size_t)n;
    }
    return true;
}

/* All of it in chunks of this size; each is read twice, as after a connection that broke. */
static bool await_all(struct pack *pack, uint64_t chunk_bytes, struct strbuf *ret,
                      struct error *err)
{
    uint64_t tar_bytes = 0;
    bool last = false;

    while (!last) {
        uint64_t offset = ret->length;
        CLEANUP_STRBUF struct strbuf again = {0};
        int64_t size = await_pack_chunk(pack, offset, 0, chunk_bytes, &last, err);
        if (size < 0 || !await_read_chunk(pack, offset, (size_t)size, ret, err) ||
            !await_read_chunk(pack, offset, (size_t)size, &again, err))
            return false;
        assert_true(last || (uint64_t)size == chunk_bytes);
        assert_memory_equal(again.data, ret->data + offset, size);
        assert_true(pack_tar_bytes(pack, ret->length) >= tar_bytes);
        tar_bytes = pack_tar_bytes(pack, ret->length);
    }
    assert_int_equal(tar_bytes, TAR_BYTES);
    return true;
}

static void check_content(const struct strbuf *packed, const uint8_t *tar)
{
    CLEANUP(decompressor_cleanup) struct decompressor *decompressor = decompressor_new();
    CLEANUP_FREE uint8_t *out = xmalloc(TAR_BYTES + 1);
    const uint8_t *data = (const uint8_t *)packed->data;
    size_t left = packed->length, filled = 0;
    ssize_t n;

    while ((n = decompress(decompressor, &data, &left, out + filled, TAR_BYTES + 1 - filled,
                           NULL)) > 0)
        filled += (size_t)n;
    assert_int_equal(n, 0);
    assert_int_equal(filled, TAR_BYTES);
    assert_memory_equal(out, tar, TAR_BYTES);
}

TASK_TEST(test_chunks_of_any_size_give_the_same)
{
    CLEANUP_FREE uint8_t *tar = make_tar();
    struct digest digests[4], measured;
    uint64_t size;

    for (size_t i = 0; i < 4; i++) {
        struct pack *pack = open_pack(tar, TAR_BYTES, i < 2 ? COMPRESSION_GZIP : COMPRESSION_ZSTD);
        CLEANUP_STRBUF struct strbuf packed = {0};
        assert_ok(await_all(pack, i % 2 ? 64 * MIB : CHUNK, &packed, err), err);
        assert_ok(await_pack_measure(pack, &measured, &size, err), err);
        digests[i] = digest_of(packed.data, packed.length);
        assert_string_equal(digests[i].text, measured.text);
        assert_int_equal(size, packed.length);
        check_content(&packed, tar);
        pack_free(pack);
    }
    assert_string_equal(digests[0].text, digests[1].text);
    assert_string_equal(digests[2].text, digests[3].text);
    return true;
}

/* A server that lost what it had, or has less than we think. */
TASK_TEST(test_it_can_begin_again_anywhere)
{
    CLEANUP_FREE uint8_t *tar = make_tar();
    struct pack *pack = open_pack(tar, TAR_BYTES, COMPRESSION_GZIP);
    CLEANUP_STRBUF struct strbuf packed = {0}, other = {0};
    static const uint64_t offsets[] = {0, 2 * CHUNK, CHUNK - 1, CHUNK, 17};
    bool last;

    assert_ok(await_all(pack, CHUNK, &packed, err), err);
    for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
        int64_t size = await_pack_chunk(pack, offsets[i], 0, CHUNK, &last, err);
        assert_int_equal(size, CHUNK);
        strbuf_clear(&other);
        assert_ok(await_read_chunk(pack, offsets[i], CHUNK, &other, err), err);
        assert_memory_equal(other.data, packed.data + offsets[i], CHUNK);
    }
    pack_free(pack);
    return true;
}

/* For servers that take no chunks: its size is known before it is sent. */
TASK_TEST(test_all_at_once)
{
    CLEANUP_FREE uint8_t *tar = make_tar();
    struct pack *pack = open_pack(tar, TAR_BYTES, COMPRESSION_ZSTD);
    CLEANUP_STRBUF struct strbuf packed = {0};
    struct digest digest;
    uint64_t size;
    bool last = false;

    assert_ok(await_pack_measure(pack, &digest, &size, err), err);
    for (size_t i = 0; i < 2; i++) {
        strbuf_clear(&packed);
        assert_int_equal(await_pack_chunk(pack, 0, 0, UINT64_MAX, &last, err), size);
        assert_true(last);
        assert_ok(await_read_chunk(pack, 0, size, &packed, err), err);
        assert_int_equal(packed.length, size);
        assert_int_equal(pack_tar_bytes(pack, size), TAR_BYTES);
        check_content(&packed, tar);
    }
    pack_free(pack);
    return true;
}

TASK_TEST(test_damage_shows_before_the_end)
{
    CLEANUP_FREE uint8_t *tar = make_tar();
    struct digest diff_id = digest_of(tar, TAR_BYTES);
    CLEANUP_STRBUF struct strbuf packed = {0};
    struct pack *pack;

    tar[TAR_BYTES / 2] ^= 1;
    pack = open_pack_as(&diff_id, tar, TAR_BYTES, COMPRESSION_GZIP);
    assert_false(await_all(pack, CHUNK, &packed, err));
    assert_error(err, ERROR_DATA_LOSS, "another digest");
    pack_free(pack);

    pack = open_pack(tar, TAR_BYTES - 1000, COMPRESSION_GZIP);
    strbuf_clear(&packed);
    assert_false(await_all(pack, CHUNK, &packed, err));
    assert_error(err, ERROR_DATA_LOSS, "shorter");
    pack_free(pack);
    return true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_of_any_size_give_the_same),
        cmocka_unit_test(test_it_can_begin_again_anywhere),
        cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_damage_shows_before_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
