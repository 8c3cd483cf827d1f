#include "daemon/store/archive_opener.h"

#include <errno.h>
#include <fcntl.h>

#include "daemon/store/archive_reader.h"
#include "daemon/store/internal.h"

#define PIPE_BYTES (1 * MIB)

/* As the process itself has it (opener/opener.h), in case that it is not itself any more. */
#define OUTPUT_MIN (1 * GIB)
#define OUTPUT_RATIO 200

struct archive_opener {
    struct archive_reader *reader;
    uint64_t input_bytes, output_bytes;
    uint8_t *buffer; /* what came from it: begin to end */
    size_t begin, end;
    uint64_t member_left; /* of the last member's bytes */
    size_t data_left;     /* of the frame's */
    bool members;         /* not ARCHIVE_INFLATE */
};

struct archive_opener *await_archive_opener_start(const struct store *store, enum archive_mode mode,
                                                  struct error *err)
{
    struct archive_opener *opener = xcalloc(1, sizeof(*opener));
    const char first = (char)mode;
    int r;

    opener->members = mode == ARCHIVE_MEMBERS;
    opener->buffer = xmalloc(ARCHIVE_PIECE_MAX);
    opener->reader = await_archive_reader_start(store->archive_path, NULL, 0, err);
    if (!opener->reader) {
        archive_opener_free_await(opener);
        return NULL;
    }
    /* Smaller only means more switches. */
    fcntl(stream_fd(archive_reader_output(opener->reader)), F_SETPIPE_SZ, (int)PIPE_BYTES);
    r = await_write(archive_reader_input(opener->reader), &first, 1);
    if (r == 0 || r == -EPIPE)
        return opener;
    await_error(err, r, "starting to read the archive");
    archive_opener_free_await(opener);
    return NULL;
}

void archive_opener_free_await(struct archive_opener *opener)
{
    if (!opener)
        return;
    archive_reader_end_await(opener->reader);
    free(opener->buffer);
    free(opener);
}

int await_archive_opener_write(struct archive_opener *opener, const void *data, size_t size)
{
    opener->input_bytes += size;
    return await_write(archive_reader_input(opener->reader), data, size);
}

void archive_opener_end_input(struct archive_opener *opener)
{
    archive_reader_end_input(opener->reader);
}

uint64_t archive_opener_input_bytes(const struct archive_opener *opener)
{
    return opener->input_bytes;
}

/* --- Output ------------------------------------------------------------------------------------
 */

static int out_of_order(struct error *err)
{
    error_set(err, ERROR_INTERNAL, "UNPACKER_FAILED",
              "the process that reads the archive does not keep to its protocol");
    return -1;
}

static int await_died(struct archive_opener *opener, struct error *err)
{
    int status = 0, r = await_archive_reader_status(opener->reader, &status);

    if (r < 0)
        await_error(err, r, "reading the archive");
    else
        error_set(err, ERROR_INTERNAL, "UNPACKER_FAILED",
                  "the process that reads the archive ended with status %d: the archive is "
                  "hostile, or memory is short",
                  status);
    return -1;
}

/* At least so many bytes in the buffer, at begin. */
static bool await_bytes(struct archive_opener *opener, size_t size, struct error *err)
{
    while (opener->end - opener->begin < size) {
        ssize_t n;
        if (opener->begin > 0) {
            memmove(opener->buffer, opener->buffer + opener->begin, opener->end - opener->begin);
            opener->end -= opener->begin;
            opener->begin = 0;
        }
        n = await_read(archive_reader_output(opener->reader), opener->buffer + opener->end,
                       ARCHIVE_PIECE_MAX - opener->end);
        if (n < 0)
            return await_error(err, (int)n, "reading the archive");
        if (n == 0) {
            await_died(opener, err);
            return false;
        }
        opener->end += (size_t)n;
    }
    return true;
}

static int await_data(struct archive_opener *opener, struct archive_piece *ret, struct error *err)
{
    if (!await_bytes(opener, 1, err))
        return -1;
    *ret = (struct archive_piece){.data = opener->buffer + opener->begin,
                                  .size = MIN(opener->data_left, opener->end - opener->begin)};
    opener->begin += ret->size;
    opener->data_left -= ret->size;
    opener->output_bytes += ret->size;
    if (opener->output_bytes <= MAX(OUTPUT_MIN, opener->input_bytes * OUTPUT_RATIO))
        return 1;
    error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
              "the archive inflates to more than %d times its size: refused", OUTPUT_RATIO);
    return -1;
}

/* The bytes of a member are as many as it says. */
static int await_data_frame(struct archive_opener *opener, size_t size, struct archive_piece *ret,
                            struct error *err)
{
    if (opener->members && size > opener->member_left)
        return out_of_order(err);
    opener->member_left -= opener->members ? size : 0;
    opener->data_left = size;
    return await_data(opener, ret, err);
}

static int await_member(struct archive_opener *opener, size_t size, struct archive_piece *ret,
                        struct error *err)
{
    if (!opener->members || opener->member_left > 0)
        return out_of_order(err);
    if (!await_bytes(opener, size, err))
        return -1;
    *ret = (struct archive_piece){.is_member = true};
    if (!frame_decode_member(opener->buffer + opener->begin, size, &ret->member, err))
        return -1;
    opener->begin += size;
    opener->member_left = ret->member.size_bytes;
    return 1;
}

int await_archive_opener_next(struct archive_opener *opener, struct archive_piece *ret,
                              struct error *err)
{
    struct frame frame;

    if (opener->data_left > 0)
        return await_data(opener, ret, err);
    if (!await_bytes(opener, FRAME_HEADER_BYTES, err) ||
        !frame_decode_header(opener->buffer + opener->begin, &frame, err))
        return -1;
    opener->begin += FRAME_HEADER_BYTES;
    switch (frame.kind) {
    case FRAME_MEMBER:
        return await_member(opener, frame.size, ret, err);
    case FRAME_DATA:
        return await_data_frame(opener, frame.size, ret, err);
    case FRAME_END:
        return opener->member_left == 0 ? 0 : out_of_order(err);
    case FRAME_FAILED:
        if (await_bytes(opener, frame.size, err))
            frame_decode_failure(opener->buffer + opener->begin, frame.size, err);
        return -1;
    }
    return out_of_order(err);
}
