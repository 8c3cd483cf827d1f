#include "daemon/store/erofs/tree.h"

#include "daemon/store/erofs/internal.h"

#define ARENA_CHUNK (256 * KIB)
#define ARENA_ALIGN 8

/* --- Memory ------------------------------------------------------------------------------------
 */

struct arena_chunk {
    struct arena_chunk *next;
    char data[] __attribute__((aligned(ARENA_ALIGN)));
};

static char *add_chunk(struct arena *arena, size_t size)
{
    struct arena_chunk *chunk = xmalloc(sizeof(*chunk) + size);

    chunk->next = arena->chunks;
    arena->chunks = chunk;
    arena->total += sizeof(*chunk) + size;
    return chunk->data;
}

void *arena_add(struct arena *arena, size_t size)
{
    void *data;

    size = erofs_round_up(size, ARENA_ALIGN);
    if (size > ARENA_CHUNK / 8)
        return add_chunk(arena, size);
    if (size > arena->left) {
        arena->at = add_chunk(arena, ARENA_CHUNK);
        arena->left = ARENA_CHUNK;
    }
    data = arena->at;
    arena->at += size;
    arena->left -= size;
    return data;
}

static void arena_done(struct arena *arena)
{
    while (arena->chunks) {
        struct arena_chunk *next = arena->chunks->next;
        free(arena->chunks);
        arena->chunks = next;
    }
}

/* --- The tree ----------------------------------------------------------------------------------
 */

struct erofs_tree *erofs_tree_new(void)
{
    struct erofs_tree *tree = xcalloc(1, sizeof(*tree));

    table_init(&tree->names);
    table_init(&tree->xattrs);
    tree->root = erofs_inode_new(tree, S_IFDIR | 0755);
    tree->root->links++; /* as if it had a name */
    tree->root->dir.parent = tree->root;
    return tree;
}

struct erofs_tree *erofs_tree_free(struct erofs_tree *tree)
{
    if (!tree)
        return NULL;
    table_done(&tree->names);
    table_done(&tree->xattrs);
    arena_done(&tree->arena);
    free(tree);
    return NULL;
}

struct erofs_inode *erofs_tree_root(struct erofs_tree *tree)
{
    return tree->root;
}

uint64_t erofs_tree_content_bytes(const struct erofs_tree *tree)
{
    return tree->content_bytes;
}

size_t erofs_tree_memory(const struct erofs_tree *tree)
{
    return tree->arena.total +
           (tree->names.mask + tree->xattrs.mask + 2) * sizeof(struct table_item *);
}

struct erofs_inode *erofs_inode_new(struct erofs_tree *tree, mode_t mode)
{
    struct erofs_inode *inode = arena_add(&tree->arena, sizeof(*inode));

    *inode = (struct erofs_inode){.mode = (uint16_t)mode, .links = S_ISDIR(mode)};
    return inode;
}

struct erofs_inode *erofs_inode_new_symlink(struct erofs_tree *tree, const char *target)
{
    struct erofs_inode *inode = erofs_inode_new(tree, S_IFLNK | 0777);
    size_t length = strlen(target);
    char *copy = arena_add(&tree->arena, length + 1);

    memcpy(copy, target, length + 1);
    inode->target = copy;
    inode->size = length;
    return inode;
}

static uint32_t hash_name(const struct erofs_tree *tree, const struct erofs_inode *dir,
                          const char *name, size_t length)
{
    return table_hash(&tree->names, (uintptr_t)dir, name, length);
}

static struct erofs_name *find_name(const struct erofs_tree *tree, const struct erofs_inode *dir,
                                    const char *name, size_t length, uint32_t hash)
{
    struct table_item *item;
    size_t iterator = hash;

    while ((item = table_next(&tree->names, hash, &iterator))) {
        struct erofs_name *found = CONTAINER_OF(item, struct erofs_name, item);
        if (found->dir == dir && found->length == length && memcmp(found->text, name, length) == 0)
            return found;
    }
    return NULL;
}

struct erofs_inode *erofs_tree_get(const struct erofs_tree *tree, const struct erofs_inode *dir,
                                   const char *name, size_t length)
{
    struct erofs_name *found =
        find_name(tree, dir, name, length, hash_name(tree, dir, name, length));

    return found ? found->inode : NULL;
}

static bool is_content(const struct erofs_inode *inode)
{
    return S_ISREG(inode->mode) || S_ISLNK(inode->mode);
}

/* What has lost a name: a directory is gone with all that is in it, at any depth. */
static void drop(struct erofs_tree *tree, struct erofs_inode *inode)
{
    struct erofs_inode **dirs = NULL;
    size_t count = 0, capacity = 0;

    for (;;) {
        inode->links--;
        if (is_content(inode) && inode->links == 0)
            tree->content_bytes -= inode->size;
        if (S_ISDIR(inode->mode) && inode->dir.names) {
            if (count == capacity) {
                capacity = capacity ? capacity * 2 : 16;
                dirs = xrealloc(dirs, capacity * sizeof(struct erofs_inode *));
            }
            dirs[count++] = inode;
        }
        while (count > 0 && !dirs[count - 1]->dir.names)
            count--;
        if (count == 0)
            break;
        inode = dirs[count - 1]->dir.names->inode;
        dirs[count - 1]->dir.names = dirs[count - 1]->dir.names->next;
    }
    free(dirs);
}

static struct erofs_name *add_name(struct erofs_tree *tree, struct erofs_inode *dir,
                                   const char *text, size_t length, uint32_t hash)
{
    struct erofs_name *name = arena_add(&tree->arena, sizeof(*name) + length);

    CHECK(S_ISDIR(dir->mode) && length > 0 && length <= EROFS_NAME_MAX);
    *name = (struct erofs_name){
        .item.hash = hash,
        .length = (uint8_t)length,
        .dir = dir,
        .next = dir->dir.names,
    };
    memcpy(name->text, text, length);
    table_add(&tree->names, &name->item);
    dir->dir.names = name;
    dir->name_count++;
    return name;
}

void erofs_tree_put(struct erofs_tree *tree, struct erofs_inode *dir, const char *name,
                    size_t length, struct erofs_inode *inode)
{
    uint32_t hash = hash_name(tree, dir, name, length);
    struct erofs_name *link = find_name(tree, dir, name, length, hash);

    if (!link)
        link = add_name(tree, dir, name, length, hash);
    else {
        dir->links -= S_ISDIR(link->inode->mode);
        drop(tree, link->inode);
    }
    link->inode = inode;
    if (S_ISDIR(inode->mode)) {
        inode->dir.parent = dir;
        dir->links++;
    }
    if (is_content(inode) && inode->links == 0)
        tree->content_bytes += inode->size;
    inode->links++;
}
