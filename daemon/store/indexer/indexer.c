#include "daemon/store/indexer/indexer.h"

#include <errno.h>

#include "daemon/store/indexer/internal.h"
#include "proto/base/fault.h"

#define BLOCK 512
#define SPARSE_ALIGN (4 * KIB)
#define SYMLINK_MAX 4095 /* as the kernel's */

struct indexer {
    const struct index_io *io;
    struct layer_reader *reader;
    const struct layer_entry *entry;
    struct erofs_tree *tree;
    uint64_t archive_used, sparse_used;
    /* The directory of the last entry, since the next one's is often the same. */
    char dir_path[LAYER_PATH_MAX];
    size_t dir_length;
    struct erofs_inode *dir; /* NULL: unknown */
};

static void indexer_done(struct indexer *indexer)
{
    erofs_tree_free(indexer->tree);
    layer_reader_free(indexer->reader);
}

/* --- The place of an entry ---------------------------------------------------------------------
 */

/* The directory that the entry goes to. */
static struct erofs_inode *open_parent(struct indexer *indexer, struct error *err)
{
    const struct path *path = &indexer->entry->path;

    if (indexer->dir && path->parent_length == indexer->dir_length &&
        memcmp(path->text, indexer->dir_path, path->parent_length) == 0)
        return indexer->dir;
    indexer->dir = resolve_dir(indexer->tree, path->text, path->parent_length);
    if (!indexer->dir) {
        entry_failed(path, errno, "open its directory", err);
        return NULL;
    }
    indexer->dir_length = path->parent_length;
    memcpy(indexer->dir_path, path->text, path->parent_length);
    return indexer->dir;
}

/* The same, and what it has there already, if anything. */
static struct erofs_inode *open_place(struct indexer *indexer, struct erofs_inode **ret_there,
                                      struct error *err)
{
    const struct path *path = &indexer->entry->path;
    struct erofs_inode *dir = open_parent(indexer, err);
    size_t length = strlen(path->base);

    if (!dir)
        return NULL;
    if (length > EROFS_NAME_MAX) {
        entry_failed(path, ENAMETOOLONG, "create it", err);
        return NULL;
    }
    *ret_there = erofs_tree_get(indexer->tree, dir, path->base, length);
    return dir;
}

/* Puts an inode in the entry's place: the last one of a name wins. */
static void put(struct indexer *indexer, struct erofs_inode *dir, const struct erofs_inode *there,
                struct erofs_inode *inode)
{
    const char *base = indexer->entry->path.base;

    /* Paths may lead elsewhere now. */
    if (there && (S_ISDIR(there->mode) || S_ISLNK(there->mode)))
        indexer->dir = NULL;
    erofs_tree_put(indexer->tree, dir, base, strlen(base), inode);
}

/* A directory that hides what lower layers have in its place, in overlayfs form. */
static bool make_opaque(struct indexer *indexer, struct erofs_inode *dir, struct error *err)
{
    return set_opaque(indexer->tree, dir) ||
           entry_failed(&indexer->entry->path, errno, "make it opaque", err);
}

/* --- What all kinds have -----------------------------------------------------------------------
 */

static void set_meta(struct erofs_inode *inode, const struct layer_entry *entry)
{
    inode->mode = (uint16_t)((inode->mode & S_IFMT) | (entry->mode & 07777));
    inode->uid = entry->uid;
    inode->gid = entry->gid;
    inode->seconds = entry->times[1].tv_sec;
    inode->nanoseconds = (uint32_t)entry->times[1].tv_nsec;
}

static bool set_xattrs(struct indexer *indexer, struct erofs_inode *inode, struct error *err)
{
    struct layer_xattr xattr;

    while (layer_reader_next_xattr(indexer->reader, &xattr)) {
        if (!erofs_inode_set_xattr(indexer->tree, inode, xattr.name, xattr.value, xattr.size))
            return entry_failed(&indexer->entry->path, errno, "set an xattr", err);
    }
    return true;
}

static bool check_content(const struct indexer *indexer, struct error *err)
{
    return erofs_tree_content_bytes(indexer->tree) <= LAYER_CONTENT_MAX ||
           entry_invalid(&indexer->entry->path, "makes the layer larger than 16 TiB", err);
}

/* --- Content -----------------------------------------------------------------------------------
 */

/* A place for the file's content beside the archive. */
static bool add_sparse(struct indexer *indexer, struct erofs_inode *inode, struct error *err)
{
    uint64_t size = (inode->size + SPARSE_ALIGN - 1) / SPARSE_ALIGN * SPARSE_ALIGN;

    if (size > INDEX_SPARSE_MAX - indexer->sparse_used)
        return entry_invalid(&indexer->entry->path,
                             "makes the sparse files of the layer larger than 1 TiB", err);
    inode->content.source = 2;
    inode->content.block = (uint32_t)(indexer->sparse_used / BLOCK);
    indexer->sparse_used += size;
    return true;
}

struct piece {
    const void *data;
    size_t size;
    int64_t offset;
};

static int next_piece(struct layer_reader *reader, struct piece *ret, struct error *err)
{
    return layer_reader_next_data(reader, &ret->data, &ret->size, &ret->offset, err);
}

/* Writes this piece and those after it; r is what next_piece() said of it. */
static bool write_pieces(struct indexer *indexer, struct layer_reader *reader,
                         struct erofs_inode *inode, struct piece piece, int r, struct error *err)
{
    const struct index_io *io = indexer->io;
    uint64_t begin = indexer->sparse_used;

    if (!add_sparse(indexer, inode, err))
        return false;
    for (; r > 0; r = next_piece(reader, &piece, err)) {
        if (!io->write_sparse(io->arg, piece.data, piece.size, begin + (uint64_t)piece.offset, err))
            return error_prefix(err, "entry \"%s\"", path_quote(indexer->entry->path.text).text);
    }
    return r == 0;
}

/* The archive from an entry on, a second time. */
struct again {
    const struct index_io *io;
    uint64_t position, end;
};

static ssize_t read_again(void *arg, void *buffer, size_t size)
{
    struct again *again = arg;
    ssize_t n = again->io->read_at(again->io->arg, buffer, MIN(size, again->end - again->position),
                                   again->position);

    again->position += n < 0 ? 0 : (uint64_t)n;
    return n;
}

/* Content that turned out to be other than its size says, after it was passed over. */
static bool write_again(struct indexer *indexer, struct erofs_inode *inode, uint64_t end,
                        struct error *err)
{
    struct again again = {
        .io = indexer->io,
        .position = layer_reader_header_position(indexer->reader),
        .end = end,
    };
    const struct layer_input input = {.read = read_again, .arg = &again};
    CLEANUP(layer_reader_cleanup) struct layer_reader *reader = layer_reader_new(&input, err);
    const struct layer_entry *entry;
    struct piece piece;
    int r;

    if (!reader || layer_reader_next(reader, &entry, err) <= 0)
        return false;
    r = next_piece(reader, &piece, err);
    return r >= 0 && write_pieces(indexer, reader, inode, piece, r, err);
}

/* Leaves the content where it lies in the archive if it can be mapped from there: whole, and in
 * blocks. */
static bool add_content(struct indexer *indexer, struct erofs_inode *inode, struct error *err)
{
    uint64_t stored = (inode->size + BLOCK - 1) / BLOCK * BLOCK;
    bool whole;
    uint64_t position = layer_reader_position(indexer->reader, &whole);
    struct piece piece;
    int64_t skipped;
    int r = next_piece(indexer->reader, &piece, err);

    if (r < 0)
        return false;
    if (!whole || position % BLOCK != 0 || (r > 0 && piece.offset != 0))
        return write_pieces(indexer, indexer->reader, inode, piece, r, err);
    skipped = layer_reader_skip(indexer->reader, err);
    if (skipped < 0)
        return false;
    if ((uint64_t)skipped != stored)
        return write_again(indexer, inode, position + (uint64_t)skipped, err);
    inode->content.source = 1;
    inode->content.block = (uint32_t)(position / BLOCK);
    indexer->archive_used = MAX(indexer->archive_used, position + stored);
    return true;
}

/* --- Kinds of entries --------------------------------------------------------------------------
 */

static bool add_file(struct indexer *indexer, struct error *err)
{
    const struct layer_entry *entry = indexer->entry;
    struct erofs_inode *inode, *there, *dir = open_place(indexer, &there, err);

    if (!dir)
        return false;
    if (entry->size < 0)
        return entry_invalid(&entry->path, "has a negative size", err);
    inode = erofs_inode_new(indexer->tree, S_IFREG);
    inode->size = (uint64_t)entry->size;
    set_meta(inode, entry);
    put(indexer, dir, there, inode);
    return check_content(indexer, err) && set_xattrs(indexer, inode, err) &&
           add_content(indexer, inode, err);
}

/* A directory stays for a directory; one that takes the place of a whiteout still hides what is
 * below. */
static bool add_dir(struct indexer *indexer, struct error *err)
{
    const struct layer_entry *entry = indexer->entry;
    struct erofs_inode *inode, *there = erofs_tree_root(indexer->tree), *dir = NULL;

    if (entry->path.length > 0 && !(dir = open_place(indexer, &there, err)))
        return false;
    inode = there;
    if (!there || !S_ISDIR(there->mode)) {
        inode = erofs_inode_new(indexer->tree, S_IFDIR);
        put(indexer, dir, there, inode);
        if (there && is_whiteout(there) && !make_opaque(indexer, inode, err))
            return false;
    }
    set_meta(inode, entry);
    return set_xattrs(indexer, inode, err);
}

static bool add_symlink(struct indexer *indexer, struct error *err)
{
    const struct layer_entry *entry = indexer->entry;
    struct erofs_inode *inode, *there, *dir = open_place(indexer, &there, err);

    if (!dir)
        return false;
    if (strlen(entry->target) > SYMLINK_MAX)
        return entry_failed(&entry->path, ENAMETOOLONG, "create it", err);
    inode = erofs_inode_new_symlink(indexer->tree, entry->target);
    set_meta(inode, entry);
    inode->mode = S_IFLNK | 0777;
    put(indexer, dir, there, inode);
    return check_content(indexer, err);
}

static bool add_special(struct indexer *indexer, struct error *err)
{
    const struct layer_entry *entry = indexer->entry;
    struct erofs_inode *inode, *there, *dir = open_place(indexer, &there, err);

    if (!dir)
        return false;
    if (entry->device > UINT32_MAX)
        return entry_failed(&entry->path, EINVAL, "create it", err);
    inode = erofs_inode_new(indexer->tree, entry->mode & S_IFMT);
    inode->device = (uint32_t)entry->device;
    set_meta(inode, entry);
    put(indexer, dir, there, inode);
    return true;
}

static bool link_failed(const struct indexer *indexer, int errnum, struct error *err)
{
    entry_failed(&indexer->entry->path, errnum, "link it", err);
    return error_prefix(err, "hard link to \"%s\"", path_quote(indexer->entry->link.text).text);
}

/* The directory that what a hard link is to is in. */
static struct erofs_inode *open_link_parent(struct indexer *indexer, struct error *err)
{
    const struct path *link = &indexer->entry->link;
    struct erofs_inode *dir = resolve_dir(indexer->tree, link->text, link->parent_length);

    if (!dir)
        entry_failed(&indexer->entry->path, errno, "open its directory", err);
    return dir;
}

/* What a hard link is to; a link at the end of its name is not followed. */
static struct erofs_inode *find_target(struct indexer *indexer, const struct erofs_inode *dir,
                                       struct error *err)
{
    const char *base = indexer->entry->link.base;
    size_t length = strlen(base);
    struct erofs_inode *target = erofs_tree_get(indexer->tree, dir, base, length);

    if (!target)
        link_failed(indexer, length > EROFS_NAME_MAX ? ENAMETOOLONG : ENOENT, err);
    return target;
}

static bool add_hardlink(struct indexer *indexer, struct error *err)
{
    struct erofs_inode *link_dir = open_link_parent(indexer, err), *target, *there, *dir;

    if (!link_dir || !(dir = open_place(indexer, &there, err)) ||
        !(target = find_target(indexer, link_dir, err)))
        return false;
    /* GNU tar stores a file that is named twice as a link to itself. */
    if (there == target)
        return true;
    if (there) {
        /* What is replaced goes first (a whiteout is as good as nothing), and the way to the target
         * may have led through it. */
        put(indexer, dir, there, erofs_inode_new(indexer->tree, S_IFCHR));
        if (!(link_dir = open_link_parent(indexer, err)) ||
            !(target = find_target(indexer, link_dir, err)))
            return false;
    }
    if (S_ISDIR(target->mode))
        return link_failed(indexer, EPERM, err);
    put(indexer, dir, NULL, target);
    return true;
}

/* A whiteout hides what lower layers have there, in overlayfs form a character device 0:0. It says
 * nothing about its own layer: what that has in the place stays, and a directory is opaque. */
static bool add_whiteout(struct indexer *indexer, struct error *err)
{
    struct erofs_inode *there, *dir = open_place(indexer, &there, err);

    if (!dir)
        return false;
    if (!there)
        put(indexer, dir, NULL, erofs_inode_new(indexer->tree, S_IFCHR));
    return !there || !S_ISDIR(there->mode) || make_opaque(indexer, there, err);
}

static bool add_opaque_mark(struct indexer *indexer, struct error *err)
{
    struct erofs_inode *dir = open_parent(indexer, err);

    return dir && make_opaque(indexer, dir, err);
}

static bool add_entry(struct indexer *indexer, struct error *err)
{
    switch (indexer->entry->kind) {
    case ENTRY_FILE:
        return add_file(indexer, err);
    case ENTRY_DIR:
        return add_dir(indexer, err);
    case ENTRY_SYMLINK:
        return add_symlink(indexer, err);
    case ENTRY_SPECIAL:
        return add_special(indexer, err);
    case ENTRY_HARDLINK:
        return add_hardlink(indexer, err);
    case ENTRY_WHITEOUT:
        return add_whiteout(indexer, err);
    case ENTRY_OPAQUE:
        return add_opaque_mark(indexer, err);
    }
    return false;
}

/* --- The layer ---------------------------------------------------------------------------------
 */

static bool add_entries(struct indexer *indexer, struct error *err)
{
    int r;

    while ((r = layer_reader_next(indexer->reader, &indexer->entry, err)) > 0) {
        fault_point("index.entry");
        if (!add_entry(indexer, err))
            return false;
        if (erofs_tree_memory(indexer->tree) > INDEX_MEMORY_MAX)
            return entry_invalid(&indexer->entry->path,
                                 "is more than fits in an index: its names and xattrs are too much",
                                 err);
    }
    return r == 0;
}

static bool write_index(struct indexer *indexer, struct layer_report *ret, struct error *err)
{
    const uint64_t source_bytes[EROFS_SOURCES] = {indexer->archive_used, indexer->sparse_used};
    const struct erofs_sink sink = {.write = indexer->io->write_index, .arg = indexer->io->arg};

    ret->entries = layer_reader_entries(indexer->reader);
    ret->content_bytes = erofs_tree_content_bytes(indexer->tree);
    ret->sparse_bytes = indexer->sparse_used;
    return erofs_write(indexer->tree, source_bytes, &sink, &ret->index_bytes, err);
}

bool index_layer(const struct index_io *io, struct layer_report *ret, struct error *err)
{
    CLEANUP(indexer_done) struct indexer indexer = {.io = io, .tree = erofs_tree_new()};

    indexer.reader = layer_reader_new(&io->archive, err);
    return indexer.reader && add_entries(&indexer, err) && write_index(&indexer, ret, err) &&
           layer_reader_drain(indexer.reader, err);
}
