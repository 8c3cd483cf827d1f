#include "daemon/store/archive/layer_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>

#define INPUT_BUFFER_BYTES (256 * KIB)

/* The marks of layers (OCI image-spec, layer.md, "Whiteouts"). */
#define WHITEOUT ".wh."
#define WHITEOUT_META ".wh..wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"

struct layer_reader {
    struct archive *archive;
    const struct layer_input *input;
    void *buffer;
    int input_errno;
    bool input_ended;
    uint64_t entries;
    struct layer_entry entry;
    struct archive_entry *archive_entry; /* the same as libarchive has it */
    size_t xattrs_size;
};

/* --- Life cycle --------------------------------------------------------------------------------
 */

static la_ssize_t read_input(struct archive *archive, void *arg, const void **ret_block)
{
    struct layer_reader *reader = arg;
    ssize_t n = reader->input->read(reader->input->arg, reader->buffer, INPUT_BUFFER_BYTES);

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

/* Formats are enumerated (SECURITY.md, rule 3): tar, and no bytes at all, which is an empty one. */
struct layer_reader *layer_reader_new(const struct layer_input *input, struct error *err)
{
    struct layer_reader *reader = xcalloc(1, sizeof(*reader));

    reader->input = input;
    reader->buffer = xmalloc(INPUT_BUFFER_BYTES);
    reader->archive = archive_read_new();
    CHECK(reader->archive);
    archive_read_support_format_tar(reader->archive);
    archive_read_support_format_empty(reader->archive);
    if (archive_read_open2(reader->archive, reader, NULL, read_input,
                           input->skip ? skip_input : NULL, NULL) == ARCHIVE_OK)
        return reader;
    archive_damaged(reader, err);
    return layer_reader_free(reader);
}

struct layer_reader *layer_reader_free(struct layer_reader *reader)
{
    if (!reader)
        return NULL;
    archive_read_free(reader->archive);
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
        return !str_empty(entry->target) ||
               entry_invalid(&entry->path, "is a symlink to nothing", err);
    case AE_IFCHR:
    case AE_IFBLK:
    case AE_IFIFO:
        entry->kind = ENTRY_SPECIAL;
        entry->mode |= archive_entry_filetype(from);
        if (!S_ISFIFO(entry->mode)) {
            entry->device_major = archive_entry_rdevmajor(from);
            entry->device_minor = archive_entry_rdevminor(from);
        }
        return true;
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

int layer_reader_next(struct layer_reader *reader, const struct layer_entry **ret,
                      struct error *err)
{
    bool ignored;
    int r;

    do {
        r = archive_read_next_header(reader->archive, &reader->archive_entry);
        if (r == ARCHIVE_EOF)
            return 0;
        /* ARCHIVE_WARN: something in the header could not be converted, and is there as it was. */
        if (r != ARCHIVE_OK && r != ARCHIVE_WARN) {
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
    archive_entry_xattr_reset(reader->archive_entry);
    reader->xattrs_size = 0;
    *ret = &reader->entry;
    return 1;
}

uint64_t layer_reader_entries(const struct layer_reader *reader)
{
    return reader->entries;
}

/* --- Extended attributes -----------------------------------------------------------------------
 */

/* Only what belongs to users, and file capabilities: everything else would be orders to the
 * kernel or to overlayfs (SECURITY.md, "Layers"). */
static bool xattr_passes(const char *name)
{
    return str_starts(name, "user.") || str_eq(name, "security.capability");
}

int layer_reader_next_xattr(struct layer_reader *reader, struct layer_xattr *ret, struct error *err)
{
    while (archive_entry_xattr_next(reader->archive_entry, &ret->name, &ret->value, &ret->size) ==
           ARCHIVE_OK) {
        if (!ret->name)
            continue;
        reader->xattrs_size += strlen(ret->name) + ret->size;
        if (reader->xattrs_size > LAYER_XATTRS_MAX) {
            entry_invalid(&reader->entry.path, "has more than 64 KiB of xattrs", err);
            return -1;
        }
        if (xattr_passes(ret->name))
            return 1;
    }
    return 0;
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
    return 1;
}

uint64_t layer_reader_position(const struct layer_reader *reader, bool *ret_whole)
{
    *ret_whole = archive_entry_sparse_count(reader->archive_entry) == 0;
    return (uint64_t)archive_filter_bytes(reader->archive, 0);
}

int64_t layer_reader_skip(struct layer_reader *reader, struct error *err)
{
    int64_t begin = archive_filter_bytes(reader->archive, 0);

    if (archive_read_data_skip(reader->archive) == ARCHIVE_OK)
        return archive_filter_bytes(reader->archive, 0) - begin;
    content_damaged(reader, err);
    return -1;
}

bool layer_reader_drain(struct layer_reader *reader, struct error *err)
{
    while (!reader->input_ended) {
        ssize_t n = reader->input->read(reader->input->arg, reader->buffer, INPUT_BUFFER_BYTES);
        if (n < 0)
            return error_set_errno(err, (int)n, "cannot read the archive");
        reader->input_ended = n == 0;
    }
    return true;
}
