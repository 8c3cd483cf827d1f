#include "daemon/store/layer_tar.h"

#include <errno.h>
#include <fcntl.h>

#include "daemon/store/decompress.h"
#include "daemon/store/internal.h"
#include "proto/async/await.h"

#define INPUT_BYTES (256 * KIB)

struct layer_tar {
    struct digest diff_id;
    uint64_t size_bytes, offset;
    struct layer_file file; /* the tar itself, or the blob */
    uint64_t file_offset;
    struct hasher *hasher; /* NULL: all was read */
    bool checked;          /* and is right */
    /* Of a blob only. */
    struct decompressor *decompressor;
    uint8_t *input;
    const uint8_t *next; /* in it */
    size_t left;
    bool input_ended;
};

/* --- Open and close ----------------------------------------------------------------------------
 */

static bool blob_damaged(const struct digest *diff_id, const char *how, struct error *err)
{
    error_set(err, ERROR_DATA_LOSS, "BLOB_DAMAGED",
              "the compressed copy of layer %.19s is damaged: %s", diff_id->text, how);
    return error_hint(err, "fetch it again with: davit system verify --repair");
}

static bool damaged(const struct layer_tar *tar, const char *how, struct error *err)
{
    return tar->decompressor ? blob_damaged(&tar->diff_id, how, err)
                             : layer_damaged(&tar->diff_id, how, err);
}

struct layer_tar *layer_tar_of_file(const struct digest *diff_id, uint64_t tar_bytes,
                                    struct layer_file *file, bool compressed)
{
    struct layer_tar *tar = xcalloc(1, sizeof(*tar));

    tar->diff_id = *diff_id;
    tar->size_bytes = tar_bytes;
    tar->file = *file;
    file->fd = -1;
    tar->hasher = hasher_new();
    posix_fadvise(tar->file.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    if (compressed) {
        tar->decompressor = decompressor_new();
        tar->input = xmalloc(INPUT_BYTES);
    }
    return tar;
}

/* The tar, or else the blob. */
static bool await_open_file(struct store *store, const struct digest *diff_id,
                            struct layer_file *ret, bool *ret_compressed, struct error *err)
{
    CLEANUP_ERROR struct error problem = {0};
    const struct layer *layer;

    *ret_compressed = false;
    if (await_layer_file_open(store, diff_id, LAYER_TAR, ret, err))
        return true;
    layer = layer_get(store, diff_id);
    if (!error_is(err, "NO_LAYER_FILE") || !layer)
        return false;
    if (layer->blob_damaged)
        return blob_damaged(diff_id, "it was found to have changed", err);
    *ret_compressed = true;
    if (await_layer_file_open(store, diff_id, LAYER_KEPT, ret, &problem)) {
        error_done(err);
        return true;
    }
    if (!error_is(&problem, "NO_LAYER_FILE"))
        return error_move(err, &problem);
    error_set(err, ERROR_FAILED_PRECONDITION, "NO_LAYER_FILE",
              "layer %.19s is kept unpacked only, without the archive that it came as",
              diff_id->text);
    return error_hint(err, "with \"keep-compressed\" in /etc/davit/daemon.json, or the storage "
                           "driver erofs, images that are removed and pulled again can be saved");
}

struct layer_tar *await_layer_tar_open(struct store *store, const struct digest *diff_id,
                                       struct error *err)
{
    const struct layer *layer = layer_get(store, diff_id);
    uint64_t tar_bytes = layer ? layer->info.tar_bytes : 0;
    CLEANUP_LAYER_FILE struct layer_file file = {.fd = -1};
    bool compressed;

    if (layer && layer->damage) {
        layer_damaged(diff_id, layer->damage, err);
        return NULL;
    }
    if (!await_open_file(store, diff_id, &file, &compressed, err))
        return NULL;
    if (!compressed && file.size_bytes != tar_bytes) {
        layer_damaged(diff_id, "its tar has another length", err);
        return NULL;
    }
    return layer_tar_of_file(diff_id, tar_bytes, &file, compressed);
}

struct layer_tar *layer_tar_free(struct layer_tar *tar)
{
    if (!tar)
        return NULL;
    layer_file_close(&tar->file);
    hasher_free(tar->hasher);
    decompressor_free(tar->decompressor);
    free(tar->input);
    free(tar);
    return NULL;
}

void layer_tar_rewind(struct layer_tar *tar)
{
    bool compressed = tar->decompressor;

    decompressor_free(tar->decompressor);
    tar->decompressor = compressed ? decompressor_new() : NULL;
    hasher_free(tar->hasher);
    tar->hasher = hasher_new();
    tar->offset = tar->file_offset = tar->left = 0;
    tar->checked = tar->input_ended = false;
}

uint64_t layer_tar_size(const struct layer_tar *tar)
{
    return tar->size_bytes;
}

/* --- Read, in the thread pool ------------------------------------------------------------------
 */

/* At most `size` bytes of the file; 0 at its end. */
static ssize_t read_file(struct layer_tar *tar, void *buffer, size_t size, struct error *err)
{
    ssize_t n;

    do
        n = pread(tar->file.fd, buffer, size, (off_t)tar->file_offset);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        error_set_errno(err, errno, "cannot read layer %.19s", tar->diff_id.text);
    else
        tar->file_offset += (uint64_t)n;
    return n;
}

static bool refill(struct layer_tar *tar, struct error *err)
{
    ssize_t n = read_file(tar, tar->input, INPUT_BYTES, err);

    if (n < 0)
        return false;
    tar->next = tar->input;
    tar->left = (size_t)n;
    tar->input_ended = n == 0;
    return true;
}

/* As read_file(), of what comes out of the blob. */
static ssize_t inflate_some(struct layer_tar *tar, void *buffer, size_t size, struct error *err)
{
    CLEANUP_ERROR struct error problem = {0};
    ssize_t n;

    do {
        if (tar->left == 0 && !tar->input_ended && !refill(tar, err))
            return -1;
        n = decompress(tar->decompressor, &tar->next, &tar->left, buffer, size, &problem);
    } while (n == 0 && !tar->input_ended);
    if (n < 0 || (n == 0 && !decompressor_finished(tar->decompressor, &problem))) {
        damaged(tar, problem.message, err);
        return -1;
    }
    return n;
}

static ssize_t read_some(struct layer_tar *tar, void *buffer, size_t size, struct error *err)
{
    return tar->decompressor ? inflate_some(tar, buffer, size, err)
                             : read_file(tar, buffer, size, err);
}

/* All was read: nothing comes after it, and it is what it should be. */
static bool check_end(struct layer_tar *tar, struct error *err)
{
    struct digest digest;
    uint8_t more;
    ssize_t n = read_some(tar, &more, 1, err);

    if (n < 0)
        return false;
    digest = hasher_finish(tar->hasher);
    tar->hasher = hasher_free(tar->hasher);
    if (n > 0)
        return damaged(tar, "it is longer than it was", err);
    if (!digest_eq(&digest, &tar->diff_id))
        return damaged(tar, "it has another digest", err);
    tar->checked = true;
    return true;
}

ssize_t layer_tar_read_blocking(struct layer_tar *tar, void *buffer, size_t size, struct error *err)
{
    size_t filled = 0;

    if (tar->checked)
        return 0;
    CHECK(tar->hasher); /* it failed before */
    size = (size_t)MIN(size, tar->size_bytes - tar->offset);
    while (filled < size) {
        uint8_t *place = (uint8_t *)buffer + filled;
        ssize_t n = read_some(tar, place, size - filled, err);
        if (n == 0)
            damaged(tar, "it is shorter than it was", err);
        if (n <= 0)
            return -1;
        hasher_update(tar->hasher, place, (size_t)n);
        filled += (size_t)n;
    }
    tar->offset += size;
    if (tar->offset == tar->size_bytes && !check_end(tar, err))
        return -1;
    return (ssize_t)size;
}

/* --- Read, in a task ---------------------------------------------------------------------------
 */

struct read_work {
    struct layer_tar *tar;
    void *buffer;
    size_t size;
    ssize_t n;
    struct error error;
};

static void read_blocking(void *arg)
{
    struct read_work *work = arg;

    work->n = layer_tar_read_blocking(work->tar, work->buffer, work->size, &work->error);
}

ssize_t await_layer_tar_read(struct layer_tar *tar, void *buffer, size_t size, struct error *err)
{
    struct read_work work = {.tar = tar, .buffer = buffer, .size = size};
    int r;

    if (tar->checked)
        return 0;
    r = await_work(read_blocking, &work, "reading a layer");
    if (r < 0) {
        await_error(err, r, "reading layer %.19s", tar->diff_id.text);
        return -1;
    }
    if (work.n < 0)
        error_move(err, &work.error);
    return work.n;
}
