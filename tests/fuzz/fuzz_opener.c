/* Archives of images from strangers: whatever is in them, what comes out are frames in the order
 * that the daemon wants, of clean paths, with as much data as they say. The first byte chooses the
 * size of pieces, and what is done with the rest. */
#include "daemon/store/opener/opener.h"
#include "tests/fuzz/tar_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    const uint8_t *data;
    size_t size, step;
    bool mode_sent, members;
    bool in_member, ended;
    uint64_t left; /* data that the last member still has to have */
    uint8_t mode;
};

static ssize_t read_piece(void *arg, void *buffer, size_t size)
{
    struct run *run = arg;
    size_t n = MIN(MIN(size, run->step), run->size);

    if (!run->mode_sent) {
        run->mode_sent = true;
        *(uint8_t *)buffer = run->mode;
        return 1;
    }
    if (n)
        memcpy(buffer, run->data, n);
    run->data += n;
    run->size -= n;
    return (ssize_t)n;
}

static void check_clean(const char *path)
{
    CHECK(*path && *path != '/' && path[strlen(path) - 1] != '/');
    for (const char *part = path; part; part = strchr(part, '/')) {
        part += *part == '/';
        size_t length = strcspn(part, "/");
        CHECK(length > 0 && !(length == 1 && *part == '.') &&
              !(length == 2 && memcmp(part, "..", 2) == 0));
    }
}

static void check_member(struct run *run, const void *data, size_t size)
{
    struct frame_member member;

    CHECK(run->members && run->left == 0);
    CHECK(frame_decode_member(data, size, &member, NULL));
    check_clean(member.path);
    if (member.is_link)
        check_clean(member.target);
    run->in_member = true;
    run->left = member.size_bytes;
}

static int take_frame(void *arg, const void *header, size_t header_size, const void *data,
                      size_t size)
{
    CLEANUP_ERROR struct error err = {0};
    struct run *run = arg;
    struct frame frame;

    CHECK(!run->ended && header_size == FRAME_HEADER_BYTES);
    CHECK(frame_decode_header(header, &frame, NULL) && frame.size == size);
    switch (frame.kind) {
    case FRAME_MEMBER:
        check_member(run, data, size);
        break;
    case FRAME_DATA:
        CHECK(!run->members || (run->in_member && run->left >= size));
        run->left -= run->members ? size : 0;
        break;
    case FRAME_END:
        CHECK(run->left == 0);
        run->ended = true;
        break;
    case FRAME_FAILED:
        CHECK(!frame_decode_failure(data, size, &err));
        CHECK(err.message && *err.message);
        run->ended = true;
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t steps[] = {1, 511, 4096, 1 << 20};
    CLEANUP_FREE uint8_t *archive = NULL;
    struct run run = {0};
    const struct opener_io io = {.read = read_piece, .write = take_frame, .arg = &run};

    if (size == 0)
        return 0;
    archive = xmemdup(data + 1, size - 1);
    if (data[0] & 8)
        mend_checksums(archive, size - 1);
    run.data = archive;
    run.size = size - 1;
    run.step = steps[data[0] % ARRAY_SIZE(steps)];
    run.members = !(data[0] & 4);
    run.mode = run.members ? ARCHIVE_MEMBERS : ARCHIVE_INFLATE;
    open_archive(&io);
    CHECK(run.ended);
    return 0;
}
