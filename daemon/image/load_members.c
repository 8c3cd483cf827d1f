#include <errno.h>
#include <stdio.h>

#include "daemon/image/load_internal.h"

#define LINKS_MAX 16

static struct member *member_free(struct member *member)
{
    if (!member)
        return NULL;
    free(member->path);
    free(member->target);
    free(member->data);
    error_done(&member->failure);
    free(member);
    return NULL;
}

void members_init(struct members *members)
{
    *members = (struct members){.by_path = map_new()};
}

void members_done(struct members *members)
{
    size_t iterator = 0;
    void *value;

    while (members->by_path && map_next(members->by_path, &iterator, NULL, &value))
        member_free(value);
    map_free(members->by_path);
    free(members->layers);
}

/* --- What a file is ----------------------------------------------------------------------------
 */

/* Text that begins as an object or array does: what a tar's first name could only do with a NUL
 * behind it. */
static bool looks_like_json(const char *head, size_t size)
{
    size_t begin = 0;

    while (begin < size && strchr(" \t\r\n", head[begin]) && head[begin])
        begin++;
    return begin < size && (head[begin] == '{' || head[begin] == '[') && !memchr(head, '\0', size);
}

static bool looks_like_tar(const char *head, size_t size)
{
    return size >= 262 && memcmp(head + 257, "ustar", 5) == 0;
}

static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

uint64_t document_max_bytes(const char *path)
{
    return str_eq(path, "manifest.json") ? LOAD_MAX_LIST_BYTES : DOCUMENT_MAX_BYTES;
}

enum member_kind member_kind_of(const char *path, uint64_t size_bytes, const void *head,
                                size_t head_size)
{
    const char *base = base_of(path);
    bool named_layer = str_starts(path, "blobs/") || str_ends(base, ".tar");

    if (looks_like_json(head, head_size) || str_ends(base, ".json")) {
        /* Docker's older archives have one for each layer; nobody reads them. */
        bool wanted = size_bytes <= document_max_bytes(path) && !str_eq(base, "json");
        return wanted ? MEMBER_DOCUMENT : MEMBER_OTHER;
    }
    if (named_layer || looks_like_tar(head, head_size))
        return MEMBER_LAYER;
    switch (layer_format_of(head, head_size)) {
    case LAYER_GZIP:
    case LAYER_ZSTD:
        return MEMBER_LAYER;
    default:
        return MEMBER_OTHER;
    }
}

/* "blobs/sha256/<hex>", or podman's and skopeo's "<hex of the diff_id>.tar" */
static void read_name(struct member *member)
{
    const char *base = base_of(member->path);
    CLEANUP_FREE char *digest = xasprintf("sha256:%.*s", (int)strcspn(base, "."), base);

    if (str_starts(member->path, "blobs/sha256/"))
        digest_parse(digest, &member->named, NULL);
    if (str_ends(base, ".tar") || digest_is_set(&member->named))
        digest_parse(digest, &member->hint, NULL);
}

_Static_assert(sizeof(struct member) + sizeof("blobs/sha256/") * 2 + 128 + 64 <= LOAD_MEMBER_BYTES,
               "what save counts with");

struct member *member_new(const char *path, enum member_kind kind, uint64_t size_bytes)
{
    struct member *member = xcalloc(1, sizeof(*member));

    member->path = xstrdup(path);
    member->kind = kind;
    member->size_bytes = size_bytes;
    read_name(member);
    return member;
}

/* --- The table ---------------------------------------------------------------------------------
 */

static bool too_many(const struct members *members, const struct member *member, struct error *err)
{
    if (member->kind == MEMBER_LAYER && members->layer_count >= MEMBERS_MAX_LAYERS)
        return !error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                          "the archive has more than %d layers", MEMBERS_MAX_LAYERS);
    if (members->bytes > MEMBERS_MAX_BYTES)
        return !error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                          "the archive has more than %llu MiB of documents and names",
                          MEMBERS_MAX_BYTES / MIB);
    return false;
}

bool members_add(struct members *members, struct member *member, struct error *err)
{
    struct member *before = map_get(members->by_path, member->path);

    if (before) {
        bool same = before->kind == MEMBER_LINK && member->kind == MEMBER_LINK &&
                    str_eq(before->target, member->target);
        if (!same)
            error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE", "the archive has two members \"%s\"",
                      member->path);
        member_free(member);
        return same;
    }
    members->bytes += sizeof(*member) + 2 * strlen(member->path) + 64;
    if (member->kind == MEMBER_LINK)
        members->bytes += strlen(member->target);
    if (member->kind == MEMBER_DOCUMENT)
        members->bytes += member->size_bytes;
    if (too_many(members, member, err)) {
        member_free(member);
        return false;
    }
    map_put(members->by_path, member->path, member);
    if (member->kind == MEMBER_LAYER) {
        members->layers =
            xrealloc(members->layers, (members->layer_count + 1) * sizeof(*members->layers));
        members->layers[members->layer_count++] = member;
    }
    return true;
}

struct member *members_find(const struct members *members, const char *path, struct error *err)
{
    const char *at = path;

    while (str_starts(at, "./"))
        at += 2;
    for (int hops = 0; hops < LINKS_MAX; hops++) {
        struct member *member = map_get(members->by_path, at);
        if (!member) {
            if (at == path)
                error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                          "the archive has no member \"%s\"", path);
            else
                error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                          "the archive has no member \"%s\", which \"%s\" leads to", at, path);
            return NULL;
        }
        if (member->kind != MEMBER_LINK)
            return member;
        at = member->target;
    }
    error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE", "member \"%s\" is a link that leads nowhere",
              path);
    return NULL;
}
