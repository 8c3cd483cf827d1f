#include "daemon/store/partial_file.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCKS_MAX (1 * MIB)
#define PAGE_BYTES 4096 /* of the file, whatever the machine has */
#define SIZE_MAX_BYTES (1ULL << 62)

/* Compared as a whole: of a file that is ours we know every byte. */
struct header {
    char magic[16];
    uint64_t size_bytes, block_bytes;
    struct digest blob;
};
#define MAGIC "davit partial 1"
#define BOOT_ID_OFFSET 512 /* from the header on: a sector of its own, which is rewritten */
#define BOOT_ID_BYTES 64

_Static_assert(sizeof(struct header) <= BOOT_ID_OFFSET, "one sector");

/* --- Bytes ------------------------------------------------------------------------------------ */

bool partial_file_write(int fd, const void *data, size_t size, uint64_t offset, struct error *err)
{
    while (size > 0) {
        ssize_t n = pwrite(fd, data, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set_errno(err, n < 0 ? errno : EIO, "cannot write");
        data = (const char *)data + n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

bool partial_file_pread(int fd, void *data, size_t size, uint64_t offset, struct error *err)
{
    while (size > 0) {
        ssize_t n = pread(fd, data, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set_errno(err, n < 0 ? errno : EIO, "cannot read");
        data = (char *)data + n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

/* --- Layout ----------------------------------------------------------------------------------- */

bool partial_layout_make(uint64_t size_bytes, struct partial_layout *ret, struct error *err)
{
    uint64_t block_bytes = PARTIAL_BLOCK_BYTES;

    if (size_bytes > SIZE_MAX_BYTES)
        return error_set_errno(err, EFBIG, "a blob of %llu bytes", (unsigned long long)size_bytes);
    while (size_bytes / block_bytes >= BLOCKS_MAX)
        block_bytes *= 2;
    *ret = (struct partial_layout){
        .size_bytes = size_bytes,
        .block_bytes = block_bytes,
        .block_count = (size_t)((size_bytes + block_bytes - 1) / block_bytes),
        .header_offset = (size_bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES,
    };
    ret->written_offset = ret->header_offset + PAGE_BYTES;
    ret->durable_offset = ret->written_offset + ret->block_count;
    ret->end = ret->durable_offset + ret->block_count;
    return true;
}

struct byte_range partial_blocks(const struct partial_layout *layout, struct byte_range bytes)
{
    struct byte_range blocks = {
        .offset = (bytes.offset + layout->block_bytes - 1) / layout->block_bytes,
        .end = bytes.end / layout->block_bytes,
    };

    if (bytes.end == layout->size_bytes)
        blocks.end = layout->block_count; /* the last one may be short */
    return blocks;
}

/* --- Reading ---------------------------------------------------------------------------------- */

void partial_state_done(struct partial_state *state)
{
    byte_ranges_done(&state->have);
    byte_ranges_done(&state->durable);
}

static struct header make_header(const struct partial_layout *layout, const struct digest *blob)
{
    struct header header = {
        .magic = MAGIC,
        .size_bytes = layout->size_bytes,
        .block_bytes = layout->block_bytes,
    };

    memcpy(header.blob.text, blob->text, strlen(blob->text));
    return header;
}

static void add_block(struct byte_ranges *ranges, const struct partial_layout *layout, size_t block)
{
    uint64_t offset = block * layout->block_bytes;

    byte_ranges_add(ranges, offset, MIN(offset + layout->block_bytes, layout->size_bytes));
}

static bool read_map(int fd, const struct partial_layout *layout, uint64_t map_offset,
                     struct byte_ranges *ret, struct error *err)
{
    CLEANUP_FREE uint8_t *map = xmalloc(layout->block_count + 1);

    if (!partial_file_pread(fd, map, layout->block_count, map_offset, err))
        return false;
    for (size_t i = 0; i < layout->block_count; i++) {
        if (map[i] > 1)
            return error_set(err, ERROR_DATA_LOSS, NULL, "its map is damaged");
        if (map[i])
            add_block(ret, layout, i);
    }
    return true;
}

bool partial_file_read(int fd, const struct partial_layout *layout, const struct digest *blob,
                       const char *boot_id, struct partial_state *ret, struct error *err)
{
    const struct header expected = make_header(layout, blob);
    struct header header;
    char boot[BOOT_ID_BYTES];
    struct stat st;

    if (fstat(fd, &st) < 0)
        return error_set_errno(err, errno, "cannot look at it");
    if (!S_ISREG(st.st_mode) ||
        ((uint64_t)st.st_size != layout->end && (uint64_t)st.st_size != layout->size_bytes))
        return error_set(err, ERROR_DATA_LOSS, NULL, "it has another size");
    if ((uint64_t)st.st_size == layout->size_bytes) {
        ret->bare = true;
        byte_ranges_add(&ret->have, 0, layout->size_bytes);
        byte_ranges_add(&ret->durable, 0, layout->size_bytes);
        return true;
    }
    if (!partial_file_pread(fd, &header, sizeof(header), layout->header_offset, err) ||
        !partial_file_pread(fd, boot, sizeof(boot), layout->header_offset + BOOT_ID_OFFSET, err))
        return false;
    if (memcmp(&header, &expected, sizeof(header)) != 0)
        return error_set(err, ERROR_DATA_LOSS, NULL, "its header is of something else");
    ret->current = strncmp(boot, boot_id, sizeof(boot)) == 0;
    if (!read_map(fd, layout, layout->durable_offset, &ret->durable, err) ||
        (ret->current && !read_map(fd, layout, layout->written_offset, &ret->have, err)))
        return false;
    /* Writing `written` may have failed. */
    for (size_t i = 0; i < ret->durable.count; i++)
        byte_ranges_add(&ret->have, ret->durable.items[i].offset, ret->durable.items[i].end);
    return true;
}

/* --- Writing ---------------------------------------------------------------------------------- */

static bool write_map(int fd, const struct partial_layout *layout, uint64_t map_offset,
                      const struct byte_ranges *ranges, struct error *err)
{
    CLEANUP_FREE uint8_t *map = xcalloc(layout->block_count + 1, 1);

    for (size_t i = 0; i < ranges->count; i++) {
        struct byte_range blocks = partial_blocks(layout, ranges->items[i]);
        if (blocks.offset < blocks.end)
            memset(map + blocks.offset, 1, blocks.end - blocks.offset);
    }
    return partial_file_write(fd, map, layout->block_count, map_offset, err);
}

bool partial_file_write_tail(int fd, const struct partial_layout *layout, const struct digest *blob,
                             const char *boot_id, struct partial_state *state, struct error *err)
{
    const struct header header = make_header(layout, blob);
    char boot[BOOT_ID_BYTES] = {0};

    snprintf(boot, sizeof(boot), "%s", boot_id);
    state->current =
        write_map(fd, layout, layout->written_offset, &state->have, err) &&
        write_map(fd, layout, layout->durable_offset, &state->durable, err) &&
        partial_file_write(fd, &header, sizeof(header), layout->header_offset, err) &&
        partial_file_write(fd, boot, sizeof(boot), layout->header_offset + BOOT_ID_OFFSET, err);
    return state->current;
}

bool partial_file_mark(int fd, uint64_t map_offset, struct byte_range blocks, struct error *err)
{
    uint8_t ones[64];

    memset(ones, 1, sizeof(ones));
    while (blocks.offset < blocks.end) {
        size_t count = (size_t)MIN(sizeof(ones), blocks.end - blocks.offset);
        if (!partial_file_write(fd, ones, count, map_offset + blocks.offset, err))
            return false;
        blocks.offset += count;
    }
    return true;
}
