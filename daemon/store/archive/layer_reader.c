#include "daemon/store/archive/layer_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <endian.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/limits.h>
#include <linux/xattr.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#define INPUT_BUFFER_BYTES (256 * KIB)
#define TAR_BLOCK 512

/* The marks of layers (OCI image-spec, layer.md, "Whiteouts"). */
#define WHITEOUT ".wh."
#define WHITEOUT_META ".wh..wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"

struct layer_reader {
    struct archive *archive;
    const struct layer_input *input;
    void *buffer;
    int input_errno;
    bool primed, input_ended;
    uint64_t entries;
    struct layer_entry entry;
    struct archive_entry *archive_entry; /* the same as libarchive has it */
    struct layer_xattr *xattrs;          /* of the entry, by name */
    size_t xattr_count, xattr_next;
    int64_t content_begin; /* after so many bytes */
    int64_t data_end;      /* of its content so far */
};

/* --- Life cycle --------------------------------------------------------------------------------
 */

/* What libarchive reads first: a symlink, which we pass over. Of a link whose header has no target
 * it forgets that it is one, unless an earlier one had a target. Go's writer leaves out there what
 * is not ASCII; the target is then in a PAX header only. */
static ssize_t make_first_header(char block[TAR_BLOCK])
{
    static const char type_and_target[] = "2x", magic[] = "ustar\00000";
    unsigned int sum = 8 * ' ';

    memset(block, 0, TAR_BLOCK);
    block[0] = 'x';
    memcpy(block + 156, type_and_target, sizeof(type_and_target));
    memcpy(block + 257, magic, sizeof(magic));
    for (size_t i = 0; i < TAR_BLOCK; i++)
        sum += (unsigned char)block[i];
    snprintf(block + 148, 8, "%06o", sum);
    return TAR_BLOCK;
}

static la_ssize_t read_input(struct archive *archive, void *arg, const void **ret_block)
{
    struct layer_reader *reader = arg;
    ssize_t n = reader->primed
                    ? reader->input->read(reader->input->arg, reader->buffer, INPUT_BUFFER_BYTES)
                    : make_first_header(reader->buffer);

    reader->primed = true;
    *ret_block = reader->buffer;
    if (n < 0) {
        reader->input_errno = (int)-n;
        archive_set_error(archive, (int)-n, "read failed");
        return -1;
    }
    reader->input_ended = n == 0;
    return n;
}

static la_int64_t skip_input(struct archive *archive, void *arg, la_int64_t size)
{
    struct layer_reader *reader = arg;
    int64_t n = reader->input->skip(reader->input->arg, size);

    if (n < 0) {
        reader->input_errno = (int)-n;
        archive_set_error(archive, (int)-n, "skip failed");
        return -1;
    }
    return n;
}

static bool archive_damaged(const struct layer_reader *reader, struct error *err)
{
    const char *why = archive_error_string(reader->archive);

    if (reader->input_errno)
        return error_set_errno(err, reader->input_errno, "cannot read the archive");
    return error_set(err, ERROR_DATA_LOSS, "INVALID_LAYER",
                     "the archive is damaged after %llu entries: %s",
                     (unsigned long long)reader->entries, why ? why : "unknown error");
}

/* Formats are enumerated (SECURITY.md, rule 3): tar only. */
struct layer_reader *layer_reader_new(const struct layer_input *input, struct error *err)
{
    struct layer_reader *reader = xcalloc(1, sizeof(*reader));

    reader->input = input;
    reader->buffer = xmalloc(INPUT_BUFFER_BYTES);
    reader->archive = archive_read_new();
    CHECK(reader->archive);
    archive_read_support_format_tar(reader->archive);
    if (archive_read_open2(reader->archive, reader, NULL, read_input,
                           input->skip ? skip_input : NULL, NULL) == ARCHIVE_OK &&
        archive_read_next_header(reader->archive, &reader->archive_entry) == ARCHIVE_OK)
        return reader;
    archive_damaged(reader, err);
    return layer_reader_free(reader);
}

struct layer_reader *layer_reader_free(struct layer_reader *reader)
{
    if (!reader)
        return NULL;
    archive_read_free(reader->archive);
    free(reader->xattrs);
    free(reader->buffer);
    free(reader);
    return NULL;
}

/* --- What an entry means -----------------------------------------------------------------------
 */

/* libarchive reads the "-1.5" of a PAX header as the second -1 and, from there, half a second on
 * towards the present; meant is the other direction. Other formats have no fractions. */
static struct timespec make_time(time_t seconds, long nanoseconds)
{
    if (seconds < 0 && nanoseconds > 0)
        return (struct timespec){seconds - 1, 1000000000 - nanoseconds};
    return (struct timespec){seconds, nanoseconds};
}

static bool read_meta(struct layer_entry *entry, struct archive_entry *from, struct error *err)
{
    int64_t uid = archive_entry_uid(from), gid = archive_entry_gid(from);

    if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
        return entry_invalid(&entry->path, "has an owner out of range", err);
    entry->mode = archive_entry_perm(from) & 07777;
    entry->uid = (uid_t)uid;
    entry->gid = (gid_t)gid;
    entry->times[1] = make_time(archive_entry_mtime(from), archive_entry_mtime_nsec(from));
    entry->times[0] = entry->times[1];
    if (archive_entry_atime_is_set(from))
        entry->times[0] = make_time(archive_entry_atime(from), archive_entry_atime_nsec(from));
    for (int i = 0; i < 2; i++) {
        if (entry->times[i].tv_nsec < 0 || entry->times[i].tv_nsec > 999999999)
            return entry_invalid(&entry->path, "has a time that is none", err);
    }
    return true;
}

/* Numbers larger than the kernel's would be cut to become those of another device. */
static bool read_device(struct layer_entry *entry, struct archive_entry *from, struct error *err)
{
    uint64_t major = archive_entry_rdevmajor(from), minor = archive_entry_rdevminor(from);

    if (major > LAYER_DEVICE_MAJOR_MAX || minor > LAYER_DEVICE_MINOR_MAX)
        return entry_invalid(&entry->path, "has a device number out of range", err);
    entry->device = makedev((unsigned int)major, (unsigned int)minor);
    return true;
}

static bool read_type(struct layer_entry *entry, struct archive_entry *from, struct error *err)
{
    switch (archive_entry_filetype(from)) {
    case AE_IFREG:
        entry->kind = ENTRY_FILE;
        entry->size = archive_entry_size(from);
        return true;
    case AE_IFDIR:
        entry->kind = ENTRY_DIR;
        return true;
    case AE_IFLNK:
        entry->kind = ENTRY_SYMLINK;
        entry->target = archive_entry_symlink(from);
        if (str_empty(entry->target))
            return entry_invalid(&entry->path, "is a symlink to nothing", err);
        return strlen(entry->target) < LAYER_PATH_MAX ||
               entry_invalid(&entry->path, "is a symlink to more than 4095 bytes", err);
    case AE_IFCHR:
    case AE_IFBLK:
    case AE_IFIFO:
        entry->kind = ENTRY_SPECIAL;
        entry->mode |= archive_entry_filetype(from);
        entry->device = 0;
        return S_ISFIFO(entry->mode) || read_device(entry, from, err);
    default:
        return entry_invalid(&entry->path, "is of an unknown type", err);
    }
}

static bool read_hardlink(struct layer_entry *entry, const char *target, struct error *err)
{
    entry->kind = ENTRY_HARDLINK;
    return path_parse(target, &entry->link, err) ||
           error_prefix(err, "hard link \"%s\"", path_quote(entry->path.text).text);
}

static bool read_whiteout(struct layer_entry *entry, struct error *err)
{
    struct path *path = &entry->path;
    const char *hidden = path->base + strlen(WHITEOUT);

    if (str_empty(hidden) || str_eq(hidden, ".") || str_eq(hidden, ".."))
        return entry_invalid(path, "is a whiteout of no name", err);
    memmove(path->base, hidden, strlen(hidden) + 1);
    path->length -= strlen(WHITEOUT);
    entry->kind = ENTRY_WHITEOUT;
    return true;
}

/* *ret_ignored: it is nothing of the layer's. */
static bool read_entry(struct layer_reader *reader, bool *ret_ignored, struct error *err)
{
    struct archive_entry *from = reader->archive_entry;
    struct layer_entry *entry = &reader->entry;
    struct path *path = &entry->path;
    const char *name = archive_entry_pathname(from), *link_target = archive_entry_hardlink(from);

    *ret_ignored = false;
    if (str_empty(name))
        return error_set(err, ERROR_DATA_LOSS, "INVALID_LAYER", "entry %llu has no name",
                         (unsigned long long)reader->entries);
    if (!path_parse(name, path, err))
        return false;
    if (path->length == 0 && (link_target || archive_entry_filetype(from) != AE_IFDIR))
        return entry_invalid(path, "is the root of the layer, but no directory", err);
    if (str_eq(path->base, WHITEOUT_OPAQUE)) {
        entry->kind = ENTRY_OPAQUE;
        return true;
    }
    /* What AUFS keeps for itself. */
    *ret_ignored = str_starts(path->text, WHITEOUT_META) || str_starts(path->base, WHITEOUT_META);
    if (*ret_ignored)
        return true;
    if (str_starts(path->base, WHITEOUT))
        return read_whiteout(entry, err);
    if (link_target)
        return read_hardlink(entry, link_target, err);
    return read_meta(entry, from, err) && read_type(entry, from, err);
}

/* --- Extended attributes -----------------------------------------------------------------------
 */

/* Only what belongs to users, and file capabilities: everything else would be orders to the
 * kernel or to overlayfs (SECURITY.md, "Layers"). */
static bool xattr_passes(const char *name)
{
    return str_starts(name, "user.") || str_eq(name, XATTR_NAME_CAPS);
}

/* As the kernel judges it when it is set, so that what is only stored can be read, too. */
static bool capability_is_valid(const struct layer_xattr *xattr)
{
    uint32_t magic;

    if (xattr->size < sizeof(magic))
        return false;
    memcpy(&magic, xattr->value, sizeof(magic));
    magic = le32toh(magic) & ~(uint32_t)VFS_CAP_FLAGS_EFFECTIVE;
    return (magic == VFS_CAP_REVISION_2 && xattr->size == XATTR_CAPS_SZ_2) ||
           (magic == VFS_CAP_REVISION_3 && xattr->size == XATTR_CAPS_SZ_3);
}

static bool check_xattr(const struct layer_reader *reader, const struct layer_xattr *xattr,
                        struct error *err)
{
    size_t length = strlen(xattr->name);

    if (str_eq(xattr->name, XATTR_NAME_CAPS))
        return capability_is_valid(xattr) ||
               entry_invalid(&reader->entry.path, "has an xattr that is no file capabilities", err);
    return (length > strlen("user.") && length <= XATTR_NAME_MAX) ||
           entry_invalid(&reader->entry.path, "has an xattr whose name is too short or long", err);
}

static int compare_xattrs(const void *a, const void *b)
{
    const struct layer_xattr *first = a, *second = b;
    int order = strcmp(first->name, second->name);

    return order ? order : (first->order > second->order) - (first->order < second->order);
}

/* Of a name that is given twice the last counts; libarchive lists that one first. */
static void sort_xattrs(struct layer_reader *reader)
{
    size_t kept = 0;

    qsort(reader->xattrs, reader->xattr_count, sizeof(*reader->xattrs), compare_xattrs);
    for (size_t i = 0; i < reader->xattr_count; i++) {
        if (kept == 0 || !str_eq(reader->xattrs[kept - 1].name, reader->xattrs[i].name))
            reader->xattrs[kept++] = reader->xattrs[i];
    }
    reader->xattr_count = kept;
}

static bool collect_xattrs(struct layer_reader *reader, struct error *err)
{
    int count = archive_entry_xattr_reset(reader->archive_entry);
    struct layer_xattr xattr = {0};
    size_t total = 0;

    reader->xattr_count = reader->xattr_next = 0;
    if (count <= 0)
        return true;
    reader->xattrs = xrealloc(reader->xattrs, (size_t)count * sizeof(*reader->xattrs));
    for (; archive_entry_xattr_next(reader->archive_entry, &xattr.name, &xattr.value,
                                    &xattr.size) == ARCHIVE_OK;
         xattr.order++) {
        if (!xattr.name)
            continue;
        total += strlen(xattr.name) + xattr.size;
        if (total > LAYER_XATTRS_MAX)
            return entry_invalid(&reader->entry.path, "has more than 64 KiB of xattrs", err);
        if (!xattr_passes(xattr.name))
            continue;
        if (!check_xattr(reader, &xattr, err))
            return false;
        reader->xattrs[reader->xattr_count++] = xattr;
    }
    sort_xattrs(reader);
    return reader->xattr_count <= LAYER_XATTR_COUNT_MAX ||
           entry_invalid(&reader->entry.path, "has more than 1024 xattrs", err);
}

bool layer_reader_next_xattr(struct layer_reader *reader, struct layer_xattr *ret)
{
    if (reader->xattr_next == reader->xattr_count)
        return false;
    *ret = reader->xattrs[reader->xattr_next++];
    return true;
}

/* --- Entries -----------------------------------------------------------------------------------
 */

/* A name that cannot be converted to our locale is there as it was. Everything else that libarchive
 * only warns of is a header that it could not make sense of, in part or at all. */
static bool only_not_converted(const struct layer_reader *reader)
{
    return archive_errno(reader->archive) == EILSEQ;
}

int layer_reader_next(struct layer_reader *reader, const struct layer_entry **ret,
                      struct error *err)
{
    bool ignored;
    int r;

    do {
        r = archive_read_next_header(reader->archive, &reader->archive_entry);
        if (r == ARCHIVE_EOF)
            return 0;
        if (r != ARCHIVE_OK && !(r == ARCHIVE_WARN && only_not_converted(reader))) {
            archive_damaged(reader, err);
            return -1;
        }
        if (++reader->entries > LAYER_ENTRIES_MAX) {
            error_set(err, ERROR_DATA_LOSS, "INVALID_LAYER", "the archive has more than %d entries",
                      LAYER_ENTRIES_MAX);
            return -1;
        }
        if (!read_entry(reader, &ignored, err))
            return -1;
    } while (ignored);
    if (!collect_xattrs(reader, err))
        return -1;
    reader->data_end = 0;
    reader->content_begin = archive_filter_bytes(reader->archive, 0);
    *ret = &reader->entry;
    return 1;
}

uint64_t layer_reader_entries(const struct layer_reader *reader)
{
    return reader->entries;
}

/* --- Content -----------------------------------------------------------------------------------
 */

static void content_damaged(const struct layer_reader *reader, struct error *err)
{
    const char *why = archive_error_string(reader->archive);

    if (reader->input_errno)
        error_set_errno(err, reader->input_errno, "cannot read the archive");
    else
        entry_invalid(&reader->entry.path, why ? why : "is damaged", err);
}

int layer_reader_next_data(struct layer_reader *reader, const void **ret_data, size_t *ret_size,
                           int64_t *ret_offset, struct error *err)
{
    int64_t size = reader->entry.size;
    int r = archive_read_data_block(reader->archive, ret_data, ret_size, ret_offset);

    if (r == ARCHIVE_EOF)
        return 0;
    if (r != ARCHIVE_OK) {
        content_damaged(reader, err);
        return -1;
    }
    if (*ret_offset < 0 || *ret_offset > size || *ret_size > (uint64_t)(size - *ret_offset)) {
        entry_invalid(&reader->entry.path, "has data beyond its size", err);
        return -1;
    }
    if (*ret_offset < reader->data_end) {
        entry_invalid(&reader->entry.path, "has data out of order", err);
        return -1;
    }
    reader->data_end = *ret_offset + (int64_t)*ret_size;
    return 1;
}

uint64_t layer_reader_header_position(const struct layer_reader *reader)
{
    return (uint64_t)archive_read_header_position(reader->archive) - TAR_BLOCK;
}

uint64_t layer_reader_position(const struct layer_reader *reader, bool *ret_whole)
{
    *ret_whole = archive_entry_sparse_count(reader->archive_entry) == 0;
    return (uint64_t)reader->content_begin - TAR_BLOCK;
}

int64_t layer_reader_skip(struct layer_reader *reader, struct error *err)
{
    if (archive_read_data_skip(reader->archive) == ARCHIVE_OK)
        return archive_filter_bytes(reader->archive, 0) - reader->content_begin;
    content_damaged(reader, err);
    return -1;
}

bool layer_reader_drain(struct layer_reader *reader, struct error *err)
{
    const struct layer_input *input = reader->input;
    int64_t n;

    if (input->skip) {
        while ((n = input->skip(input->arg, INT64_MAX)) > 0)
            ;
        return n == 0 || error_set_errno(err, (int)n, "cannot read the archive");
    }
    while (!reader->input_ended) {
        n = input->read(input->arg, reader->buffer, INPUT_BUFFER_BYTES);
        if (n < 0)
            return error_set_errno(err, (int)n, "cannot read the archive");
        reader->input_ended = n == 0;
    }
    return true;
}
