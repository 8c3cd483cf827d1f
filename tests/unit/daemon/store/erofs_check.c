#include "tests/unit/daemon/store/erofs_check.h"

#include <endian.h>
#include <sys/stat.h>

#include "daemon/store/erofs/format.h"

#define NAME_MAX_LENGTH 255

struct image {
    const uint8_t *data;
    size_t size;
    struct erofs_super super;
    uint32_t device_blocks[3]; /* by number; 0 is the image */
    uint8_t *used;             /* for each byte of it */
    uint32_t *names;           /* for each nid, how many lead there */
    uint64_t inodes;
    struct dir *pending;
    struct strbuf *listing;
};

struct inode {
    uint64_t nid, offset, end; /* the end before what is inline */
    unsigned int layout;
    bool extended;
    uint16_t mode, xattr_count;
    uint32_t links, content, uid, gid;
    uint64_t size;
    int64_t seconds;
    uint32_t nanoseconds;
};

static const void *at(const struct image *image, uint64_t offset, uint64_t size)
{
    CHECK(offset <= image->size && size <= image->size - offset);
    return image->data + offset;
}

/* Nothing else may be there. */
static void claim(struct image *image, uint64_t offset, uint64_t size)
{
    at(image, offset, size);
    for (uint64_t i = offset; i < offset + size; i++) {
        CHECK(!image->used[i]);
        image->used[i] = 1;
    }
}

/* --- Superblock --------------------------------------------------------------------------------
 */

/* Another way to compute it than the writer's. */
static uint32_t crc32c(const uint8_t *data, size_t size)
{
    uint32_t table[256], crc = ~0U;

    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = table[i] & 1 ? table[i] >> 1 ^ 0x82F63B78U : table[i] >> 1;
    }
    for (size_t i = 0; i < size; i++)
        crc = table[(crc ^ data[i]) & 0xff] ^ crc >> 8;
    return crc;
}

static void check_super(struct image *image)
{
    uint8_t block[EROFS_BLOCK];
    uint16_t devices;

    memcpy(block, at(image, EROFS_SUPER_OFFSET, EROFS_BLOCK), EROFS_BLOCK);
    memcpy(&image->super, block, sizeof(image->super));
    memset(block + offsetof(struct erofs_super, checksum), 0, sizeof(uint32_t));
    CHECK(le32toh(image->super.magic) == EROFS_MAGIC);
    CHECK(le32toh(image->super.checksum) == crc32c(block, sizeof(block)));
    CHECK(image->super.block_bits == EROFS_BLOCK_BITS && image->super.dir_block_bits == 0);
    CHECK(le32toh(image->super.feature_incompat) ==
          (EROFS_INCOMPAT_CHUNKED | EROFS_INCOMPAT_DEVICES));
    CHECK(image->size % EROFS_BLOCK == 0);
    CHECK(le32toh(image->super.blocks) == image->size / EROFS_BLOCK);
    CHECK(le32toh(image->super.build_nanoseconds) < 1000000000);
    CHECK(image->super.meta_block == 0 && image->super.packed_nid == 0);
    devices = le16toh(image->super.extra_devices);
    CHECK(devices == 1 || devices == 2);
    image->device_blocks[0] = le32toh(image->super.blocks);
    for (uint16_t i = 0; i < devices; i++) {
        struct erofs_device device;
        memcpy(&device,
               at(image, (le16toh(image->super.device_slot) + i) * sizeof(device), sizeof(device)),
               sizeof(device));
        image->device_blocks[i + 1] = le32toh(device.blocks);
    }
    claim(image, 0, EROFS_SUPER_OFFSET + EROFS_BLOCK);
}

/* --- Inodes ------------------------------------------------------------------------------------
 */

static void read_compact(const struct image *image, struct inode *inode)
{
    struct erofs_inode_compact compact;

    memcpy(&compact, at(image, inode->offset, sizeof(compact)), sizeof(compact));
    CHECK(compact.reserved == 0 && compact.reserved2 == 0);
    inode->xattr_count = le16toh(compact.xattr_count);
    inode->mode = le16toh(compact.mode);
    inode->links = le16toh(compact.links);
    inode->size = le32toh(compact.size);
    inode->content = le32toh(compact.content);
    inode->uid = le16toh(compact.uid);
    inode->gid = le16toh(compact.gid);
    inode->seconds = (int64_t)le64toh(image->super.build_seconds);
    inode->nanoseconds = le32toh(image->super.build_nanoseconds);
    inode->end = inode->offset + sizeof(compact);
}

static void read_extended(const struct image *image, struct inode *inode)
{
    struct erofs_inode_extended extended;

    memcpy(&extended, at(image, inode->offset, sizeof(extended)), sizeof(extended));
    CHECK(extended.reserved == 0);
    inode->xattr_count = le16toh(extended.xattr_count);
    inode->mode = le16toh(extended.mode);
    inode->links = le32toh(extended.links);
    inode->size = le64toh(extended.size);
    inode->content = le32toh(extended.content);
    inode->uid = le32toh(extended.uid);
    inode->gid = le32toh(extended.gid);
    inode->seconds = (int64_t)le64toh(extended.seconds);
    inode->nanoseconds = le32toh(extended.nanoseconds);
    inode->end = inode->offset + sizeof(extended);
}

static struct inode read_inode(const struct image *image, uint64_t nid)
{
    struct inode inode = {.nid = nid, .offset = nid * EROFS_SLOT};
    uint16_t format;

    memcpy(&format, at(image, inode.offset, sizeof(format)), sizeof(format));
    format = le16toh(format);
    inode.extended = format & 1;
    inode.layout = format >> 1;
    if (inode.extended)
        read_extended(image, &inode);
    else
        read_compact(image, &inode);
    CHECK(inode.nanoseconds < 1000000000 && inode.links > 0);
    /* A header alone is none the kernel knows. */
    CHECK(inode.xattr_count != 1);
    if (inode.xattr_count)
        inode.end += sizeof(struct erofs_xattr_header) + 4 * (uint64_t)(inode.xattr_count - 1);
    return inode;
}

/* Content of a directory or symlink: whole blocks, and maybe the rest inline. */
static uint8_t *read_content(struct image *image, const struct inode *inode, bool first)
{
    uint64_t inline_size = inode->layout == EROFS_INLINE ? inode->size % EROFS_BLOCK : 0;
    uint64_t plain = inode->size - inline_size;
    uint64_t blocks = (plain + EROFS_BLOCK - 1) / EROFS_BLOCK * EROFS_BLOCK;
    uint64_t begin = (uint64_t)inode->content * EROFS_BLOCK;
    uint8_t *content = xmalloc(inode->size + 1);

    CHECK(inode->layout == EROFS_FLAT || inode->layout == EROFS_INLINE);
    if (plain)
        memcpy(content, at(image, begin, blocks), plain);
    if (inode->layout == EROFS_INLINE) {
        CHECK(inline_size > 0);
        CHECK(inode->end % EROFS_BLOCK + inline_size <= EROFS_BLOCK);
        memcpy(content + plain, at(image, inode->end, inline_size), inline_size);
    }
    if (first && plain)
        claim(image, begin, blocks);
    if (first)
        claim(image, inode->end, inline_size);
    content[inode->size] = '\0';
    return content;
}

/* --- Extended attributes -----------------------------------------------------------------------
 */

static const char *xattr_prefix(uint8_t prefix)
{
    switch (prefix) {
    case EROFS_XATTR_USER:
        return "user.";
    case EROFS_XATTR_TRUSTED:
        return "trusted.";
    case EROFS_XATTR_SECURITY:
        return "security.";
    default:
        die("unknown xattr prefix %u", prefix);
    }
}

/* Returns where the next one begins. */
static uint64_t list_xattr(struct image *image, uint64_t offset, char kind)
{
    struct erofs_xattr_entry entry;
    const uint8_t *name;
    uint64_t size;

    memcpy(&entry, at(image, offset, sizeof(entry)), sizeof(entry));
    size = sizeof(entry) + entry.name_length + le16toh(entry.value_size);
    CHECK(offset % 4 == 0 && entry.name_length > 0);
    name = (const uint8_t *)at(image, offset, size) + sizeof(entry);
    if (image->listing)
        strbuf_addf(image->listing, " %c:%s%.*s=%.*s", kind, xattr_prefix(entry.prefix),
                    entry.name_length, (const char *)name, (int)le16toh(entry.value_size),
                    (const char *)name + entry.name_length);
    return offset + (size + 3) / 4 * 4;
}

static void list_xattrs(struct image *image, const struct inode *inode)
{
    uint64_t begin = inode->end - 4 * (uint64_t)(inode->xattr_count - 1), next;
    struct erofs_xattr_header header;

    memcpy(&header, at(image, begin - sizeof(header), sizeof(header)), sizeof(header));
    CHECK(header.shared_count < inode->xattr_count);
    for (uint8_t i = 0; i < header.shared_count; i++) {
        uint32_t id;
        memcpy(&id, at(image, begin + 4 * (uint64_t)i, sizeof(id)), sizeof(id));
        list_xattr(image,
                   (uint64_t)le32toh(image->super.xattr_block) * EROFS_BLOCK +
                       4 * (uint64_t)le32toh(id),
                   's');
    }
    for (next = begin + 4 * (uint64_t)header.shared_count; next < inode->end;)
        next = list_xattr(image, next, 'i');
    CHECK(next == inode->end);
}

/* --- What inodes are ---------------------------------------------------------------------------
 */

static void check_file(struct image *image, const struct inode *inode, bool first)
{
    uint64_t chunk_bytes, begin = (inode->end + 7) / 8 * 8, count = 0;

    if (inode->layout == EROFS_FLAT) {
        CHECK(inode->size == 0);
        return;
    }
    CHECK(inode->layout == EROFS_CHUNKED && inode->size > 0);
    CHECK((inode->content & ~0x1fU) == EROFS_CHUNK_INDEXES);
    chunk_bytes = (uint64_t)EROFS_BLOCK << (inode->content & 0x1f);
    for (uint64_t done = 0; done < inode->size; done += chunk_bytes, count++) {
        uint64_t blocks = (MIN(chunk_bytes, inode->size - done) + EROFS_BLOCK - 1) / EROFS_BLOCK;
        struct erofs_chunk chunk;
        memcpy(&chunk, at(image, begin + count * sizeof(chunk), sizeof(chunk)), sizeof(chunk));
        CHECK(chunk.advise == 0);
        CHECK(le16toh(chunk.device) == 1 || le16toh(chunk.device) == 2);
        CHECK(le32toh(chunk.block) + blocks <= image->device_blocks[le16toh(chunk.device)]);
        if (image->listing)
            strbuf_addf(image->listing, " %u:%u", le16toh(chunk.device), le32toh(chunk.block));
    }
    CHECK(count == 1 || chunk_bytes == EROFS_CHUNK_MAX);
    if (first)
        claim(image, begin, count * sizeof(struct erofs_chunk));
}

static void check_symlink(struct image *image, const struct inode *inode, bool first)
{
    CLEANUP_FREE uint8_t *target = read_content(image, inode, first);

    CHECK(inode->size > 0 && inode->size < 4096 && strlen((char *)target) == inode->size);
    if (image->listing)
        strbuf_addf(image->listing, " -> %s", (char *)target);
}

static const uint8_t types[] = {[S_IFREG >> 12] = 1, [S_IFDIR >> 12] = 2, [S_IFCHR >> 12] = 3,
                                [S_IFBLK >> 12] = 4, [S_IFIFO >> 12] = 5, [S_IFLNK >> 12] = 7};

static void list_inode(struct image *image, const struct inode *inode, const char *path)
{
    static const char *const layouts[] = {
        [EROFS_FLAT] = "flat", [EROFS_INLINE] = "inline", [EROFS_CHUNKED] = "chunked"};

    if (image->listing)
        strbuf_addf(image->listing, "%s %s %06o %u:%u %u %llu %lld.%09u %s",
                    inode->extended ? "extended" : "compact", layouts[inode->layout], inode->mode,
                    inode->uid, inode->gid, inode->links, (unsigned long long)inode->size,
                    (long long)inode->seconds, inode->nanoseconds, *path ? path : "/");
}

static bool first_visit(struct image *image, const struct inode *inode)
{
    bool first = image->names[inode->nid] == 1;

    if (first) {
        claim(image, inode->offset, inode->end - inode->offset);
        image->inodes++;
    }
    return first;
}

static void end_line(struct image *image, const struct inode *inode)
{
    if (inode->xattr_count)
        list_xattrs(image, inode);
    if (image->listing)
        strbuf_add_char(image->listing, '\n');
}

static void check_name(struct image *image, uint64_t nid, const char *path)
{
    struct inode inode = read_inode(image, nid);
    bool first = first_visit(image, &inode);

    list_inode(image, &inode, path);
    CHECK(image->names[nid] <= inode.links);
    if (S_ISREG(inode.mode))
        check_file(image, &inode, first);
    else if (S_ISLNK(inode.mode))
        check_symlink(image, &inode, first);
    else if ((S_ISCHR(inode.mode) || S_ISBLK(inode.mode)) && image->listing)
        strbuf_addf(image->listing, " device %x", inode.content);
    end_line(image, &inode);
}

struct dir {
    struct dir *next;
    uint64_t nid, parent;
    char *path;
    uint64_t subdirs, dots;
    char last[NAME_MAX_LENGTH + 1];
};

static void add_dir(struct image *image, uint64_t nid, uint64_t parent, const char *path)
{
    struct dir *dir = xcalloc(1, sizeof(*dir));

    *dir =
        (struct dir){.next = image->pending, .nid = nid, .parent = parent, .path = xstrdup(path)};
    image->pending = dir;
    image->names[nid]++;
}

static void check_dirent(struct image *image, struct dir *dir, const struct erofs_dirent *dirent,
                         const char *name)
{
    uint64_t nid = le64toh(dirent->nid);
    CLEANUP_FREE char *path = NULL;

    CHECK(strcmp(dir->last, name) < 0);
    strcpy(dir->last, name);
    if (str_eq(name, ".") || str_eq(name, "..")) {
        CHECK(nid == (name[1] ? dir->parent : dir->nid) && dirent->type == 2);
        dir->dots++;
        return;
    }
    CHECK(!strchr(name, '/'));
    CHECK(dirent->type == types[read_inode(image, nid).mode >> 12]);
    path = xasprintf("%s/%s", dir->path, name);
    if (dirent->type == 2) {
        dir->subdirs++;
        add_dir(image, nid, dir->nid, path);
    } else {
        image->names[nid]++;
        check_name(image, nid, path);
    }
}

static void check_dir_block(struct image *image, struct dir *dir, const uint8_t *block, size_t size)
{
    struct erofs_dirent dirent, next;
    size_t count, end;
    char name[NAME_MAX_LENGTH + 1];

    memcpy(&dirent, block, sizeof(dirent));
    count = le16toh(dirent.name_offset) / sizeof(dirent);
    CHECK(count > 0 && count * sizeof(dirent) == le16toh(dirent.name_offset));
    for (size_t i = 0; i < count; i++, dirent = next) {
        size_t begin = le16toh(dirent.name_offset);
        if (i + 1 < count) {
            memcpy(&next, block + (i + 1) * sizeof(next), sizeof(next));
            end = le16toh(next.name_offset);
        } else {
            end = begin + strnlen((const char *)block + begin, size - begin);
        }
        CHECK(begin < end && end <= size && end - begin <= NAME_MAX_LENGTH);
        memcpy(name, block + begin, end - begin);
        name[end - begin] = '\0';
        CHECK(strlen(name) == end - begin);
        check_dirent(image, dir, &dirent, name);
    }
}

static void check_dir(struct image *image, struct dir *dir)
{
    struct inode inode = read_inode(image, dir->nid);
    CLEANUP_FREE uint8_t *content = NULL;

    CHECK(S_ISDIR(inode.mode) && image->names[dir->nid] == 1);
    first_visit(image, &inode);
    list_inode(image, &inode, dir->path);
    content = read_content(image, &inode, true);
    end_line(image, &inode);
    for (uint64_t begin = 0; begin < inode.size; begin += EROFS_BLOCK)
        check_dir_block(image, dir, content + begin, MIN(inode.size - begin, EROFS_BLOCK));
    CHECK(dir->dots == 2 && inode.links == 2 + dir->subdirs);
}

void erofs_check(const uint8_t *data, size_t size, uint64_t archive_bytes, uint64_t sparse_bytes,
                 struct strbuf *listing)
{
    CLEANUP_FREE uint8_t *used = xcalloc(1, size);
    CLEANUP_FREE uint32_t *names = xcalloc(size / EROFS_SLOT + 1, sizeof(*names));
    struct image image = {
        .data = data,
        .size = size,
        .used = used,
        .names = names,
        .listing = listing,
    };
    uint64_t root;

    check_super(&image);
    CHECK((uint64_t)image.device_blocks[1] * EROFS_BLOCK <= archive_bytes);
    CHECK((uint64_t)image.device_blocks[2] * EROFS_BLOCK == sparse_bytes);
    root = le16toh(image.super.root_nid);
    add_dir(&image, root, root, "");
    while (image.pending) {
        struct dir *dir = image.pending;
        image.pending = dir->next;
        check_dir(&image, dir);
        free(dir->path);
        free(dir);
    }
    CHECK(image.inodes == le64toh(image.super.inodes));
    for (uint64_t nid = 0; nid < size / EROFS_SLOT; nid++) {
        if (names[nid] && !S_ISDIR(read_inode(&image, nid).mode))
            CHECK(names[nid] == read_inode(&image, nid).links);
    }
}
