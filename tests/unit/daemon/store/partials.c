#include "tests/unit/daemon/store/partials.h"

#include "proto/async/await.h"
#include "tests/unit/test.h"

uint8_t blob_byte(uint64_t offset)
{
    return (uint8_t)(offset * 31 + (offset >> 8) * 7 + (offset >> 16));
}

struct digest blob_named(int name)
{
    return digest_of(&name, sizeof(name));
}

struct digest blob_digest(void)
{
    return blob_named('*');
}

struct partial *await_open_blob(struct store *store, uint64_t size, struct error *err)
{
    const struct digest digest = blob_digest();
    struct partial *partial = await_partial_open(store, &digest, size, err);

    assert_ok(partial, err);
    return partial;
}

struct io {
    struct partial *partial;
    uint64_t offset;
    uint8_t *data;
    size_t size;
    bool ok;
    struct error err;
};

static void write_in_pool(void *arg)
{
    struct io *io = arg;

    io->ok = partial_write_blocking(io->partial, io->offset, io->data, io->size, &io->err);
}

static void read_in_pool(void *arg)
{
    struct io *io = arg;

    io->ok = partial_read_blocking(io->partial, io->offset, io->data, io->size, &io->err);
}

bool await_write_blob(struct partial *partial, uint64_t offset, uint64_t end, struct error *err)
{
    CLEANUP_FREE uint8_t *data = xmalloc(end - offset + 1);
    struct io io = {partial, offset, data, end - offset, false, {0}};

    for (uint64_t i = offset; i < end; i++)
        data[i - offset] = blob_byte(i);
    CHECK(await_work(write_in_pool, &io, "writing") == 0);
    return io.ok || error_move(err, &io.err);
}

void await_check_holds(struct partial *partial, uint64_t offset, uint64_t end)
{
    CLEANUP_FREE uint8_t *data = xmalloc(end - offset + 1);
    struct io io = {partial, offset, data, end - offset, false, {0}};
    struct byte_range missing;

    assert_int_equal(partial_bytes(partial), end - offset);
    assert_int_equal(partial_contiguous(partial), offset == 0 ? end : 0);
    if (offset > 0) {
        assert_true(partial_missing(partial, 0, &missing));
        assert_int_equal(missing.offset, 0);
        assert_int_equal(missing.end, offset == end ? missing.end : offset);
    }
    if (offset == end)
        return;
    CHECK(await_work(read_in_pool, &io, "reading") == 0);
    assert_ok(io.ok, &io.err);
    for (uint64_t i = offset; i < end; i++)
        assert_int_equal(data[i - offset], blob_byte(i));
}
