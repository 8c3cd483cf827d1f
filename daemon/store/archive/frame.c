#include "daemon/store/archive/frame.h"

#include "daemon/store/archive/report.h"

void frame_encode_header(uint8_t out[FRAME_HEADER_BYTES], const struct frame *frame)
{
    const uint32_t words[2] = {frame->kind, frame->size};

    memcpy(out, words, sizeof(words));
}

size_t frame_encode_member(uint8_t *out, const struct frame_member *member)
{
    const size_t path = strlen(member->path) + 1, target = strlen(member->target) + 1;

    CHECK(path <= LAYER_PATH_MAX && target <= LAYER_PATH_MAX);
    out[0] = member->is_link ? 'l' : 'f';
    memcpy(out + 1, &member->size_bytes, 8);
    memcpy(out + 9, member->path, path);
    memcpy(out + 9 + path, member->target, target);
    return 9 + path + target;
}

static bool malformed(struct error *err)
{
    return error_set(err, ERROR_INTERNAL, "UNPACKER_FAILED",
                     "the process that reads the archive does not keep to its protocol");
}

bool frame_decode_header(const uint8_t data[FRAME_HEADER_BYTES], struct frame *ret,
                         struct error *err)
{
    uint32_t words[2];

    memcpy(words, data, sizeof(words));
    ret->kind = words[0];
    ret->size = words[1];
    switch (ret->kind) {
    case FRAME_MEMBER:
        return (ret->size > 0 && ret->size <= FRAME_MEMBER_MAX) || malformed(err);
    case FRAME_DATA:
        return (ret->size > 0 && ret->size <= FRAME_DATA_MAX) || malformed(err);
    case FRAME_END:
        return ret->size == 0 || malformed(err);
    case FRAME_FAILED:
        return (ret->size > 0 && ret->size <= FRAME_FAILED_MAX) || malformed(err);
    }
    return malformed(err);
}

/* A text with its NUL at the beginning of data, not longer than a path; NULL if there is none. */
static const char *take_text(const char **data, size_t *size)
{
    const char *text = *data;
    const char *end = memchr(text, '\0', MIN(*size, LAYER_PATH_MAX));

    if (!end)
        return NULL;
    *size -= (size_t)(end + 1 - text);
    *data = end + 1;
    return text;
}

bool frame_decode_member(const void *bytes, size_t size, struct frame_member *ret,
                         struct error *err)
{
    const char *data = bytes;

    if (size < 9 || (data[0] != 'f' && data[0] != 'l'))
        return malformed(err);
    ret->is_link = data[0] == 'l';
    memcpy(&ret->size_bytes, data + 1, 8);
    data += 9;
    size -= 9;
    ret->path = take_text(&data, &size);
    ret->target = ret->path ? take_text(&data, &size) : NULL;
    if (!ret->target || size > 0 || !*ret->path || ret->size_bytes > INT64_MAX ||
        ret->is_link != (*ret->target != '\0') || (ret->is_link && ret->size_bytes > 0))
        return malformed(err);
    return true;
}

bool frame_decode_failure(const void *data, size_t size, struct error *err)
{
    CLEANUP(layer_report_done) struct layer_report report = {0};

    return report_decode(data, size, &report, err) ? malformed(err) : false;
}
