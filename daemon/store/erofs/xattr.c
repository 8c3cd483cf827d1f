#include <errno.h>

#include "daemon/store/erofs/internal.h"

#define XATTRS_PER_INODE_MAX 1024
#define XATTRS_SIZE_MAX (128 * KIB) /* the format could hold twice as much */
#define XATTR_NAME_MAX_LENGTH 255   /* in all */

static const struct {
    const char *text;
    enum erofs_xattr_prefix prefix;
} prefixes[] = {
    {"user.", EROFS_XATTR_USER},
    {"security.", EROFS_XATTR_SECURITY},
    {"trusted.", EROFS_XATTR_TRUSTED},
};

/* The part of the name after the prefix; NULL if it has none that we know. */
static const char *split_name(const char *name, uint8_t *ret_prefix)
{
    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
        if (str_starts(name, prefixes[i].text)) {
            *ret_prefix = (uint8_t)prefixes[i].prefix;
            return name + strlen(prefixes[i].text);
        }
    }
    return NULL;
}

static bool same_name(const struct erofs_xattr *a, const struct erofs_xattr *b)
{
    return a->prefix == b->prefix && a->name_length == b->name_length &&
           memcmp(a->data, b->data, a->name_length) == 0;
}

static bool same_value(const struct erofs_xattr *a, const struct erofs_xattr *b)
{
    return a->value_size == b->value_size &&
           memcmp(a->data + a->name_length, b->data + b->name_length, a->value_size) == 0;
}

/* The one item of this name and value. */
static struct erofs_xattr *intern(struct erofs_tree *tree, uint8_t prefix, const char *name,
                                  const void *value, size_t size)
{
    size_t name_length = strlen(name), iterator;
    CLEANUP_FREE struct erofs_xattr *wanted = xmalloc(sizeof(*wanted) + name_length + size);
    struct table_item *item;
    struct erofs_xattr *kept;
    uint32_t hash;

    *wanted = (struct erofs_xattr){
        .value_size = (uint16_t)size,
        .prefix = prefix,
        .name_length = (uint8_t)name_length,
        .shared_id = UINT32_MAX,
    };
    memcpy(wanted->data, name, name_length);
    if (size)
        memcpy(wanted->data + name_length, value, size);
    hash = table_hash(&tree->xattrs, (uint64_t)prefix << 32 | name_length, wanted->data,
                      name_length + size);
    wanted->item.hash = hash;
    iterator = hash;
    while ((item = table_next(&tree->xattrs, hash, &iterator))) {
        kept = CONTAINER_OF(item, struct erofs_xattr, item);
        if (same_name(kept, wanted) && same_value(kept, wanted))
            return kept;
    }
    kept = arena_add(&tree->arena, sizeof(*kept) + name_length + size);
    memcpy(kept, wanted, sizeof(*kept) + name_length + size);
    table_add(&tree->xattrs, &kept->item);
    return kept;
}

static struct erofs_xattrs *grow(struct erofs_tree *tree, const struct erofs_xattrs *old)
{
    uint32_t capacity = old ? old->capacity * 2 : 1;
    struct erofs_xattrs *xattrs =
        arena_add(&tree->arena, sizeof(*xattrs) + capacity * sizeof(struct erofs_xattr *));

    xattrs->capacity = capacity;
    xattrs->count = old ? old->count : 0;
    if (old)
        memcpy(xattrs->items, old->items, old->count * sizeof(struct erofs_xattr *));
    return xattrs;
}

/* An errno, as setxattr(2) has it. */
static int check_xattr(const char *name, const char *rest, size_t size)
{
    if (!rest)
        return EOPNOTSUPP;
    if (str_empty(rest))
        return EINVAL;
    if (strlen(name) > XATTR_NAME_MAX_LENGTH)
        return ERANGE;
    return size > UINT16_MAX ? E2BIG : 0;
}

bool erofs_inode_set_xattr(struct erofs_tree *tree, struct erofs_inode *inode, const char *name,
                           const void *value, size_t size)
{
    struct erofs_xattrs *xattrs = inode->xattrs;
    struct erofs_xattr *xattr;
    uint8_t prefix;
    const char *rest = split_name(name, &prefix);
    uint32_t i = 0;

    errno = check_xattr(name, rest, size);
    if (errno)
        return false;
    xattr = intern(tree, prefix, rest, value, size);
    while (xattrs && i < xattrs->count && !same_name(xattrs->items[i], xattr))
        i++;
    if (!xattrs || i == xattrs->capacity)
        inode->xattrs = xattrs = grow(tree, xattrs);
    xattrs->items[i] = xattr;
    xattrs->count = MAX(xattrs->count, i + 1);
    if (xattrs->count > XATTRS_PER_INODE_MAX || erofs_xattrs_size(xattrs) > XATTRS_SIZE_MAX) {
        errno = E2BIG;
        return false;
    }
    return true;
}

uint32_t erofs_xattr_size(const struct erofs_xattr *xattr)
{
    return (uint32_t)erofs_round_up(sizeof(struct erofs_xattr_entry) + xattr->name_length +
                                        xattr->value_size,
                                    4);
}

size_t erofs_xattrs_shared(const struct erofs_xattrs *xattrs)
{
    size_t shared = 0;

    for (uint32_t i = 0; i < xattrs->count; i++)
        shared += xattrs->items[i]->uses > 1;
    return MIN(shared, EROFS_SHARED_MAX);
}

uint32_t erofs_xattrs_size(const struct erofs_xattrs *xattrs)
{
    uint32_t size = sizeof(struct erofs_xattr_header);
    size_t shared = 0;

    if (!xattrs)
        return 0;
    for (uint32_t i = 0; i < xattrs->count; i++) {
        if (xattrs->items[i]->uses > 1 && shared++ < EROFS_SHARED_MAX)
            size += sizeof(uint32_t);
        else
            size += erofs_xattr_size(xattrs->items[i]);
    }
    return size;
}
