#include "daemon/store/erofs/image.h"

#include <endian.h>

#include "daemon/store/erofs/internal.h"

#define WRITE_BYTES (256 * KIB)

/* What is written collects in a buffer; an error of the sink ends all writing. */
struct writer {
    const struct erofs_sink *sink;
    uint8_t *buffer;
    size_t used;
    uint64_t offset; /* of the next byte in the image */
    struct error *err;
    bool failed;
};

static void flush(struct writer *writer)
{
    if (!writer->failed && writer->used > 0)
        writer->failed =
            !writer->sink->write(writer->sink->arg, writer->buffer, writer->used, writer->err);
    writer->used = 0;
}

/* size is at most WRITE_BYTES. */
static void *reserve(struct writer *writer, size_t size)
{
    void *place;

    if (writer->used + size > WRITE_BYTES)
        flush(writer);
    place = writer->buffer + writer->used;
    writer->used += size;
    writer->offset += size;
    return place;
}

static void put(struct writer *writer, const void *data, size_t size)
{
    memcpy(reserve(writer, size), data, size);
}

static void pad_to(struct writer *writer, uint64_t offset)
{
    while (writer->offset < offset) {
        size_t size = MIN(offset - writer->offset, WRITE_BYTES);
        memset(reserve(writer, size), 0, size);
    }
}

/* --- Superblock --------------------------------------------------------------------------------
 */

static uint32_t crc32c(const uint8_t *data, size_t size)
{
    uint32_t crc = ~0U;

    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78U : 0);
    }
    return crc;
}

static void put_super(struct writer *writer, const struct erofs_image *image)
{
    uint8_t block[EROFS_BLOCK] = {0};
    struct erofs_device *devices = (void *)(block + sizeof(struct erofs_super));
    struct erofs_super super = {
        .magic = htole32(EROFS_MAGIC),
        .feature_compat = htole32(EROFS_COMPAT_CHECKSUM),
        .block_bits = EROFS_BLOCK_BITS,
        .root_nid = htole16((uint16_t)image->tree->root->nid),
        .inodes = htole64(image->inode_count),
        .build_seconds = htole64((uint64_t)image->build_seconds),
        .build_nanoseconds = htole32(image->build_nanoseconds),
        .blocks = htole32((uint32_t)(image->end / EROFS_BLOCK)),
        .xattr_block = htole32((uint32_t)(image->xattr_begin / EROFS_BLOCK)),
        .feature_incompat = htole32(EROFS_INCOMPAT_CHUNKED | EROFS_INCOMPAT_DEVICES),
        .extra_devices = htole16(image->source_blocks[1] ? 2 : 1),
        .device_slot = htole16(EROFS_DEVICES_OFFSET / sizeof(struct erofs_device)),
    };

    memcpy(block, &super, sizeof(super));
    for (size_t i = 0; i < EROFS_SOURCES; i++)
        devices[i].blocks = htole32((uint32_t)image->source_blocks[i]);
    super.checksum = htole32(crc32c(block, sizeof(block)));
    memcpy(block, &super, sizeof(super));
    pad_to(writer, EROFS_SUPER_OFFSET);
    put(writer, block, sizeof(block));
}

/* --- Directories -------------------------------------------------------------------------------
 */

static uint8_t dirent_type(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return 1;
    case S_IFDIR:
        return 2;
    case S_IFCHR:
        return 3;
    case S_IFBLK:
        return 4;
    case S_IFIFO:
        return 5;
    case S_IFLNK:
        return 7;
    default:
        return 0;
    }
}

static void put_dir_block(struct writer *writer, const struct erofs_dir_block *block)
{
    uint8_t *place = reserve(writer, block->size);
    const struct erofs_name *name = block->first;
    size_t name_offset = block->count * sizeof(struct erofs_dirent);

    for (size_t i = 0; i < block->count; i++, name = name->next) {
        const struct erofs_dirent dirent = {
            .nid = htole64(name->inode->nid),
            .name_offset = htole16((uint16_t)name_offset),
            .type = dirent_type(name->inode->mode),
        };
        memcpy(place + i * sizeof(dirent), &dirent, sizeof(dirent));
        memcpy(place + name_offset, name->text, name->length);
        name_offset += name->length;
    }
}

/* The last block alone, or all but it. */
static void put_dir(struct writer *writer, const struct erofs_inode *dir, bool tail)
{
    const struct erofs_name *name = dir->dir.names;
    struct erofs_dir_block block;

    while (name) {
        name = erofs_dir_block(name, &block);
        if ((dir->layout == EROFS_INLINE && !name) != tail)
            continue;
        put_dir_block(writer, &block);
        if (!tail)
            pad_to(writer, erofs_round_up(writer->offset, EROFS_BLOCK));
    }
}

/* --- Inodes ------------------------------------------------------------------------------------
 */

static uint8_t chunk_bits(uint64_t size)
{
    uint8_t bits = 0;

    while (((uint64_t)EROFS_BLOCK << bits) < MIN(size, EROFS_CHUNK_MAX))
        bits++;
    return bits;
}

static uint32_t inode_content(const struct erofs_image *image, const struct erofs_inode *inode)
{
    switch (inode->mode & S_IFMT) {
    case S_IFREG:
        return inode->layout == EROFS_CHUNKED ? EROFS_CHUNK_INDEXES | chunk_bits(inode->size) : 0;
    case S_IFDIR:
    case S_IFLNK:
        return (uint32_t)(image->data_begin / EROFS_BLOCK) + inode->data_block;
    case S_IFCHR:
    case S_IFBLK:
        return inode->device;
    default:
        return 0;
    }
}

static uint16_t xattr_count(const struct erofs_inode *inode)
{
    uint32_t size = erofs_xattrs_size(inode->xattrs);

    return size ? (uint16_t)((size - sizeof(struct erofs_xattr_header)) / 4 + 1) : 0;
}

static void put_compact(struct writer *writer, const struct erofs_image *image,
                        const struct erofs_inode *inode, uint32_t number)
{
    const struct erofs_inode_compact compact = {
        .format = htole16(EROFS_FORMAT(inode->layout, 0)),
        .xattr_count = htole16(xattr_count(inode)),
        .mode = htole16(inode->mode),
        .links = htole16((uint16_t)inode->links),
        .size = htole32((uint32_t)inode->size),
        .content = htole32(inode_content(image, inode)),
        .number = htole32(number),
        .uid = htole16((uint16_t)inode->uid),
        .gid = htole16((uint16_t)inode->gid),
    };

    put(writer, &compact, sizeof(compact));
}

static void put_extended(struct writer *writer, const struct erofs_image *image,
                         const struct erofs_inode *inode, uint32_t number)
{
    const struct erofs_inode_extended extended = {
        .format = htole16(EROFS_FORMAT(inode->layout, 1)),
        .xattr_count = htole16(xattr_count(inode)),
        .mode = htole16(inode->mode),
        .size = htole64(inode->size),
        .content = htole32(inode_content(image, inode)),
        .number = htole32(number),
        .uid = htole32(inode->uid),
        .gid = htole32(inode->gid),
        .seconds = htole64((uint64_t)inode->seconds),
        .nanoseconds = htole32(inode->nanoseconds),
        .links = htole32(inode->links),
    };

    put(writer, &extended, sizeof(extended));
}

static void put_xattr(struct writer *writer, const struct erofs_xattr *xattr)
{
    const struct erofs_xattr_entry entry = {
        .name_length = xattr->name_length,
        .prefix = xattr->prefix,
        .value_size = htole16(xattr->value_size),
    };

    put(writer, &entry, sizeof(entry));
    put(writer, xattr->data, (size_t)xattr->name_length + xattr->value_size);
    pad_to(writer, erofs_round_up(writer->offset, 4));
}

static void put_xattrs(struct writer *writer, const struct erofs_xattrs *xattrs)
{
    size_t shared = erofs_xattrs_shared(xattrs), seen = 0;
    const struct erofs_xattr_header header = {.shared_count = (uint8_t)shared};

    put(writer, &header, sizeof(header));
    for (uint32_t i = 0; i < xattrs->count && seen < shared; i++) {
        uint32_t id = htole32(xattrs->items[i]->shared_id);
        if (xattrs->items[i]->uses < 2)
            continue;
        put(writer, &id, sizeof(id));
        seen++;
    }
    seen = 0;
    for (uint32_t i = 0; i < xattrs->count; i++) {
        if (xattrs->items[i]->uses < 2 || seen++ >= shared)
            put_xattr(writer, xattrs->items[i]);
    }
}

static void put_chunks(struct writer *writer, const struct erofs_inode *inode)
{
    uint32_t block = inode->content.block;

    pad_to(writer, erofs_round_up(writer->offset, sizeof(struct erofs_chunk)));
    for (uint64_t done = 0; done < inode->size; done += EROFS_CHUNK_MAX) {
        const struct erofs_chunk chunk = {
            .device = htole16((uint16_t)inode->content.source),
            .block = htole32(block + (uint32_t)(done / EROFS_BLOCK)),
        };
        put(writer, &chunk, sizeof(chunk));
    }
}

static void put_inode(struct writer *writer, const struct erofs_image *image,
                      const struct erofs_inode *inode, uint32_t number)
{
    pad_to(writer, erofs_inode_offset(inode));
    if (inode->extended)
        put_extended(writer, image, inode, number);
    else
        put_compact(writer, image, inode, number);
    if (inode->xattrs)
        put_xattrs(writer, inode->xattrs);
    if (inode->layout == EROFS_CHUNKED)
        put_chunks(writer, inode);
    if (inode->layout == EROFS_INLINE && S_ISDIR(inode->mode))
        put_dir(writer, inode, true);
    if (inode->layout == EROFS_INLINE && S_ISLNK(inode->mode))
        put(writer, inode->target, inode->size);
}

/* --- The image ---------------------------------------------------------------------------------
 */

/* What did not fit after the inodes. */
static void put_data(struct writer *writer, const struct erofs_image *image)
{
    pad_to(writer, image->data_begin);
    for (size_t i = 0; i < image->inode_count; i++) {
        const struct erofs_inode *inode = image->inodes[i];
        if (S_ISDIR(inode->mode))
            put_dir(writer, inode, false);
        if (S_ISLNK(inode->mode) && inode->layout == EROFS_FLAT) {
            put(writer, inode->target, inode->size);
            pad_to(writer, erofs_round_up(writer->offset, EROFS_BLOCK));
        }
    }
}

static bool check_size(struct erofs_image *image, const uint64_t source_bytes[EROFS_SOURCES],
                       struct error *err)
{
    bool fits = image->end / EROFS_SLOT <= UINT32_MAX; /* and in blocks */

    for (size_t i = 0; i < EROFS_SOURCES; i++) {
        image->source_blocks[i] = (source_bytes[i] + EROFS_BLOCK - 1) / EROFS_BLOCK;
        fits = fits && image->source_blocks[i] < UINT32_MAX;
    }
    return fits || error_set(err, ERROR_DATA_LOSS, "INVALID_LAYER",
                             "the layer is larger than the 2 TiB that an index can be for");
}

bool erofs_write(struct erofs_tree *tree, const uint64_t source_bytes[EROFS_SOURCES],
                 const struct erofs_sink *sink, uint64_t *ret_bytes, struct error *err)
{
    struct erofs_image image = {.tree = tree};
    CLEANUP_FREE uint8_t *buffer = xmalloc(WRITE_BYTES);
    struct writer writer = {.sink = sink, .buffer = buffer, .err = err};

    erofs_layout(&image);
    writer.failed = !check_size(&image, source_bytes, err);
    if (!writer.failed)
        put_super(&writer, &image);
    for (size_t i = 0; i < image.inode_count && !writer.failed; i++)
        put_inode(&writer, &image, image.inodes[i], (uint32_t)i + 1);
    if (!writer.failed) {
        pad_to(&writer, image.xattr_begin);
        for (size_t i = 0; i < image.shared_count; i++)
            put_xattr(&writer, image.shared[i]);
        put_data(&writer, &image);
        flush(&writer);
    }
    *ret_bytes = image.end;
    free(image.inodes);
    free(image.shared);
    return !writer.failed;
}
