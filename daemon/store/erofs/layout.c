#include "daemon/store/erofs/internal.h"

/* --- Directories -------------------------------------------------------------------------------
 */

/* A name with its first bytes as a number that sorts the same. */
struct sort_key {
    uint64_t prefix;
    struct erofs_name *name;
};

static struct sort_key make_key(struct erofs_name *name)
{
    unsigned char bytes[8] = {0};
    struct sort_key key = {.name = name};

    memcpy(bytes, name->text, MIN(name->length, sizeof(bytes)));
    for (size_t i = 0; i < sizeof(bytes); i++)
        key.prefix = key.prefix << 8 | bytes[i];
    return key;
}

static int compare_keys(const void *a_ptr, const void *b_ptr)
{
    const struct sort_key *a = a_ptr, *b = b_ptr;
    int r;

    if (a->prefix != b->prefix)
        return a->prefix < b->prefix ? -1 : 1;
    r = memcmp(a->name->text, b->name->text, MIN(a->name->length, b->name->length));
    return r ? r : (int)a->name->length - (int)b->name->length;
}

/* "." and "..", which are sorted among the others. */
static void add_dots(struct erofs_tree *tree, struct erofs_inode *dir)
{
    for (uint8_t length = 1; length <= 2; length++) {
        struct erofs_name *name = arena_add(&tree->arena, sizeof(*name) + length);
        *name = (struct erofs_name){
            .length = length,
            .dir = dir,
            .inode = length == 1 ? dir : dir->dir.parent,
            .next = dir->dir.names,
        };
        memcpy(name->text, "..", length);
        dir->dir.names = name;
        dir->name_count++;
    }
}

static void sort_names(struct erofs_inode *dir)
{
    CLEANUP_FREE struct sort_key *keys = xmalloc(dir->name_count * sizeof(*keys));
    size_t count = dir->name_count;
    bool sorted = true;

    /* They are linked last first, and archives are often sorted. */
    for (struct erofs_name *name = dir->dir.names; name; name = name->next)
        keys[--count] = make_key(name);
    for (size_t i = 1; i < dir->name_count && sorted; i++)
        sorted = compare_keys(&keys[i - 1], &keys[i]) < 0;
    if (!sorted)
        qsort(keys, dir->name_count, sizeof(*keys), compare_keys);
    for (size_t i = 0; i < dir->name_count; i++)
        keys[i].name->next = i + 1 < dir->name_count ? keys[i + 1].name : NULL;
    dir->dir.names = keys[0].name;
}

const struct erofs_name *erofs_dir_block(const struct erofs_name *name, struct erofs_dir_block *ret)
{
    *ret = (struct erofs_dir_block){.first = name};
    for (; name; name = name->next) {
        size_t size = sizeof(struct erofs_dirent) + name->length;
        if (ret->size + size > EROFS_BLOCK)
            break;
        ret->size += size;
        ret->count++;
    }
    return name;
}

static uint64_t dir_size(const struct erofs_inode *dir)
{
    const struct erofs_name *name = dir->dir.names;
    struct erofs_dir_block block;
    uint64_t size = 0;

    while (name) {
        size = erofs_round_up(size, EROFS_BLOCK);
        name = erofs_dir_block(name, &block);
        size += block.size;
    }
    return size;
}

/* --- The order of inodes -----------------------------------------------------------------------
 */

static void add_inode(struct erofs_image *image, size_t *capacity, struct erofs_inode *inode)
{
    if (inode->nid)
        return;
    if (image->inode_count == *capacity) {
        *capacity *= 2;
        image->inodes = xrealloc(image->inodes, *capacity * sizeof(struct erofs_inode *));
    }
    inode->nid = 1; /* seen; its place comes later */
    image->inodes[image->inode_count++] = inode;
}

/* What is in a directory lies together, so that listing it reads little. */
static void order_inodes(struct erofs_image *image)
{
    size_t capacity = image->tree->names.count / 2 + 16;

    image->inodes = xmalloc(capacity * sizeof(struct erofs_inode *));
    add_inode(image, &capacity, image->tree->root);
    for (size_t i = 0; i < image->inode_count; i++) {
        struct erofs_inode *dir = image->inodes[i];
        if (!S_ISDIR(dir->mode))
            continue;
        add_dots(image->tree, dir);
        sort_names(dir);
        dir->size = dir_size(dir);
        for (struct erofs_name *name = dir->dir.names; name; name = name->next)
            add_inode(image, &capacity, name->inode);
    }
}

/* --- Compact inodes ----------------------------------------------------------------------------
 */

static bool fits_compact(const struct erofs_inode *inode)
{
    return inode->uid <= UINT16_MAX && inode->gid <= UINT16_MAX && inode->links <= UINT16_MAX &&
           inode->size <= UINT32_MAX;
}

struct time_count {
    struct table_item item;
    uint32_t count;
    const struct erofs_inode *inode;
};

static struct time_count *find_time(struct table *times, const struct erofs_inode *inode,
                                    uint32_t hash)
{
    size_t iterator = hash;
    struct table_item *item;

    while ((item = table_next(times, hash, &iterator))) {
        struct time_count *found = CONTAINER_OF(item, struct time_count, item);
        if (found->inode->seconds == inode->seconds &&
            found->inode->nanoseconds == inode->nanoseconds)
            return found;
    }
    return NULL;
}

/* Compact inodes have no time of their own but the image's: the one that most of them have, the
 * first of several. */
static void choose_time(struct erofs_image *image)
{
    struct arena *arena = &image->tree->arena;
    const struct time_count *best = NULL;
    struct table times;

    table_init(&times);
    for (size_t i = 0; i < image->inode_count; i++) {
        struct erofs_inode *inode = image->inodes[i];
        uint32_t hash =
            table_hash(&times, inode->nanoseconds, &inode->seconds, sizeof(inode->seconds));
        struct time_count *found;
        if (!fits_compact(inode))
            continue;
        found = find_time(&times, inode, hash);
        if (!found) {
            found = arena_add(arena, sizeof(*found));
            *found = (struct time_count){.item.hash = hash, .inode = inode};
            table_add(&times, &found->item);
        }
        found->count++;
        if (!best || found->count > best->count)
            best = found;
    }
    if (best) {
        image->build_seconds = best->inode->seconds;
        image->build_nanoseconds = best->inode->nanoseconds;
    }
    table_done(&times);
}

/* --- Shared xattrs -----------------------------------------------------------------------------
 */

static void count_uses(struct erofs_image *image)
{
    for (size_t i = 0; i < image->inode_count; i++) {
        const struct erofs_xattrs *xattrs = image->inodes[i]->xattrs;
        for (uint32_t k = 0; xattrs && k < xattrs->count; k++)
            xattrs->items[k]->uses++;
    }
}

/* Numbers those that are used more than once, in the order of their first use; returns how many
 * bytes they take. */
static uint64_t place_shared(struct erofs_image *image)
{
    uint64_t offset = 0;

    image->shared = xcalloc(image->tree->xattrs.count + 1, sizeof(struct erofs_xattr *));
    for (size_t i = 0; i < image->inode_count; i++) {
        const struct erofs_xattrs *xattrs = image->inodes[i]->xattrs;
        for (uint32_t k = 0; xattrs && k < xattrs->count; k++) {
            struct erofs_xattr *xattr = xattrs->items[k];
            if (xattr->uses < 2 || xattr->shared_id != UINT32_MAX)
                continue;
            xattr->shared_id = (uint32_t)(offset / 4);
            offset += erofs_xattr_size(xattr);
            image->shared[image->shared_count++] = xattr;
        }
    }
    return offset;
}

/* --- Places ------------------------------------------------------------------------------------
 */

uint32_t erofs_inode_head(const struct erofs_inode *inode)
{
    return (inode->extended ? sizeof(struct erofs_inode_extended)
                            : sizeof(struct erofs_inode_compact)) +
           erofs_xattrs_size(inode->xattrs);
}

/* Where an inode can begin from offset on, so that what is inline after it is within one block; or
 * 0 if a block of its own wastes less. */
static uint64_t find_inline(uint64_t offset, uint32_t head, uint32_t size)
{
    for (uint64_t begin = offset; begin < offset + EROFS_BLOCK; begin += EROFS_SLOT) {
        if ((begin + head) % EROFS_BLOCK + size <= EROFS_BLOCK)
            return begin - offset > EROFS_BLOCK - size ? 0 : begin;
    }
    return 0;
}

static uint64_t place_chunked(struct erofs_inode *inode, uint64_t offset)
{
    uint64_t chunks = (inode->size + EROFS_CHUNK_MAX - 1) / EROFS_CHUNK_MAX;

    inode->layout = EROFS_CHUNKED;
    return erofs_round_up(offset + erofs_inode_head(inode), sizeof(struct erofs_chunk)) +
           chunks * sizeof(struct erofs_chunk);
}

/* Gives an inode its place at offset or after it, and what needs blocks of its own theirs from
 * *data_blocks on; returns where the inode ends. */
static uint64_t place_inode(struct erofs_image *image, struct erofs_inode *inode, uint64_t offset,
                            uint64_t *data_blocks)
{
    uint64_t blocks = 0, begin;
    uint32_t head, tail = 0;

    inode->extended = !fits_compact(inode) || inode->seconds != image->build_seconds ||
                      inode->nanoseconds != image->build_nanoseconds;
    inode->layout = EROFS_FLAT;
    offset = erofs_round_up(offset, EROFS_SLOT);
    head = erofs_inode_head(inode);
    if (S_ISDIR(inode->mode) || S_ISLNK(inode->mode)) {
        blocks = inode->size / EROFS_BLOCK;
        tail = inode->size % EROFS_BLOCK;
        /* A symlink is inline as a whole or not at all: only then the kernel keeps it. */
        begin = tail && !(S_ISLNK(inode->mode) && blocks) ? find_inline(offset, head, tail) : 0;
        if (begin) {
            inode->layout = EROFS_INLINE;
            offset = begin;
        } else if (tail) {
            tail = 0;
            blocks++;
        }
        inode->data_block = (uint32_t)*data_blocks;
        *data_blocks += blocks;
    }
    inode->nid = (uint32_t)(offset / EROFS_SLOT);
    if (S_ISREG(inode->mode) && inode->size > 0)
        return place_chunked(inode, offset);
    return offset + head + tail;
}

void erofs_layout(struct erofs_image *image)
{
    uint64_t offset = EROFS_META_BEGIN, data_blocks = 0, shared_bytes;

    order_inodes(image);
    choose_time(image);
    count_uses(image);
    shared_bytes = place_shared(image);
    for (size_t i = 0; i < image->inode_count; i++)
        offset = place_inode(image, image->inodes[i], offset, &data_blocks);
    image->meta_end = offset;
    image->xattr_begin = erofs_round_up(offset, EROFS_BLOCK);
    image->xattr_end = image->xattr_begin + shared_bytes;
    image->data_begin = erofs_round_up(image->xattr_end, EROFS_BLOCK);
    image->end = image->data_begin + data_blocks * EROFS_BLOCK;
}
