/* What a process that reads an archive may say to the daemon, were it taken over by the archive: it
 * is understood or refused, never anything between. The first byte chooses what it is taken for. */
#include "daemon/store/archive/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_header(const uint8_t *data, size_t size)
{
    CLEANUP_ERROR struct error err = {0};
    struct frame frame;
    uint8_t again[FRAME_HEADER_BYTES];

    if (size < FRAME_HEADER_BYTES)
        return;
    if (!frame_decode_header(data, &frame, &err)) {
        CHECK(error_is(&err, "UNPACKER_FAILED"));
        return;
    }
    CHECK(frame.size <= FRAME_DATA_MAX);
    frame_encode_header(again, &frame);
    CHECK(memcmp(again, data, sizeof(again)) == 0);
}

static void check_member(const uint8_t *data, size_t size)
{
    CLEANUP_ERROR struct error err = {0};
    struct frame_member member;
    uint8_t again[FRAME_MEMBER_MAX];

    if (!frame_decode_member(data, size, &member, &err)) {
        CHECK(error_is(&err, "UNPACKER_FAILED"));
        return;
    }
    CHECK(*member.path && strlen(member.path) < LAYER_PATH_MAX);
    CHECK(strlen(member.target) < LAYER_PATH_MAX && member.size_bytes <= INT64_MAX);
    CHECK(frame_encode_member(again, &member) == size && memcmp(again, data, size) == 0);
}

static void check_failure(const uint8_t *data, size_t size)
{
    CLEANUP_ERROR struct error err = {0};

    CHECK(!frame_decode_failure(data, size, &err) && error_is_set(&err));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > FRAME_MEMBER_MAX)
        return 0;
    switch (data[0] % 3) {
    case 0:
        check_header(data + 1, size - 1);
        break;
    case 1:
        check_member(data + 1, size - 1);
        break;
    default:
        check_failure(data + 1, size - 1);
    }
    return 0;
}
