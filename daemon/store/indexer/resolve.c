#include <errno.h>

#include "daemon/store/indexer/internal.h"

#define LINKS_MAX 40 /* as the kernel's */

/* Text that is still to be walked: the path, then the targets of the links in it. */
struct segment {
    const char *at, *end;
};

bool is_whiteout(const struct erofs_inode *inode)
{
    return S_ISCHR(inode->mode) && inode->device == 0;
}

bool set_opaque(struct erofs_tree *tree, struct erofs_inode *dir)
{
    return erofs_inode_set_xattr(tree, dir, "trusted.overlay.opaque", "y", 1);
}

struct walk {
    struct erofs_tree *tree;
    struct erofs_inode *dir;
    struct segment segments[LINKS_MAX + 1];
    size_t depth;
    size_t links;
};

static int follow(struct walk *walk, const struct erofs_inode *link)
{
    if (++walk->links > LINKS_MAX)
        return ELOOP;
    walk->segments[++walk->depth] =
        (struct segment){.at = link->target, .end = link->target + link->size};
    if (link->target[0] == '/')
        walk->dir = erofs_tree_root(walk->tree);
    return 0;
}

static int enter(struct walk *walk, const char *name, size_t length)
{
    struct erofs_inode *inode;

    if (length == 1 && name[0] == '.')
        return 0;
    if (length == 2 && name[0] == '.' && name[1] == '.') {
        walk->dir = walk->dir->dir.parent;
        return 0;
    }
    if (length > EROFS_NAME_MAX)
        return ENAMETOOLONG;
    inode = erofs_tree_get(walk->tree, walk->dir, name, length);
    if (walk->depth == 0 && (!inode || is_whiteout(inode))) {
        bool opaque = inode != NULL;
        inode = erofs_inode_new(walk->tree, S_IFDIR | 0755);
        erofs_tree_put(walk->tree, walk->dir, name, length, inode);
        if (opaque && !set_opaque(walk->tree, inode))
            return errno;
    }
    if (!inode)
        return ENOENT;
    if (S_ISLNK(inode->mode))
        return follow(walk, inode);
    if (!S_ISDIR(inode->mode))
        return ENOTDIR;
    walk->dir = inode;
    return 0;
}

struct erofs_inode *resolve_dir(struct erofs_tree *tree, const char *path, size_t length)
{
    struct walk walk = {
        .tree = tree,
        .dir = erofs_tree_root(tree),
        .segments = {{.at = path, .end = path + length}},
    };
    int r = 0;

    while (r == 0) {
        struct segment *segment = &walk.segments[walk.depth];
        const char *name;
        while (segment->at < segment->end && *segment->at == '/')
            segment->at++;
        name = segment->at;
        while (segment->at < segment->end && *segment->at != '/')
            segment->at++;
        if (segment->at > name)
            r = enter(&walk, name, (size_t)(segment->at - name));
        else if (walk.depth > 0)
            walk.depth--;
        else
            return walk.dir;
    }
    errno = r;
    return NULL;
}
