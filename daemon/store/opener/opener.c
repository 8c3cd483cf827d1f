#include "daemon/store/opener/opener.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>

#include "daemon/store/archive/path.h"
#include "daemon/store/archive/report.h"
#include "daemon/store/decompress.h"
#include "proto/base/strbuf.h"

#define INPUT_BYTES (256 * KIB)
#define MAGIC_BYTES 6

struct opener {
    const struct opener_io *io;
    uint8_t *input, *inflated; /* INPUT_BYTES each; the second only where it is needed */
    const uint8_t *rest;       /* of the input, which the decompressor has not taken yet */
    size_t rest_size;
    bool input_ended, full; /* full: there may be more to come of what was taken */
    int output_errno;
    uint64_t taken_bytes, inflated_bytes, sent_bytes;
    struct decompressor *decompressor; /* of gzip and zstd; libarchive does the others */
    struct archive *archive;
    struct error error; /* of what libarchive calls */
    bool tar;
    uint64_t members;
};

static void opener_done(struct opener *opener)
{
    if (opener->archive)
        archive_read_free(opener->archive);
    decompressor_free(opener->decompressor);
    free(opener->input);
    free(opener->inflated);
    error_done(&opener->error);
}

static bool refuse(struct error *err, const char *why)
{
    return error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE", "%s", why);
}

static bool member_invalid(const char *path, const char *why, struct error *err)
{
    return error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE", "member \"%s\" %s",
                     path_quote(path).text, why);
}

/* --- Input -------------------------------------------------------------------------------------
 */

/* More of the archive as it comes, behind what is there. */
static bool take_input(struct opener *opener, size_t kept, struct error *err)
{
    ssize_t n = opener->io->read(opener->io->arg, opener->input + kept, INPUT_BYTES - kept);

    if (n < 0)
        return error_set_errno(err, (int)n, "cannot read the archive");
    opener->input_ended = n == 0;
    opener->taken_bytes += (uint64_t)n;
    opener->rest = opener->input;
    opener->rest_size = kept + (size_t)n;
    return true;
}

/* Bombs: what comes out must be in some proportion to what went in. */
static bool check_ratio(const struct opener *opener, uint64_t bytes, struct error *err)
{
    if (bytes <= MAX(ARCHIVE_INFLATED_MIN, opener->taken_bytes * ARCHIVE_INFLATED_RATIO))
        return true;
    return error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                     "the archive inflates to more than %u times its size: refused",
                     ARCHIVE_INFLATED_RATIO);
}

/* The first bytes, until they tell how they are compressed. */
static bool sniff(struct opener *opener, struct error *err)
{
    static const char gzip[] = "\x1f\x8b", zstd[] = "\x28\xb5\x2f\xfd";

    while (opener->rest_size < MAGIC_BYTES && !opener->input_ended) {
        if (!take_input(opener, opener->rest_size, err))
            return false;
    }
    if ((opener->rest_size >= 2 && memcmp(opener->rest, gzip, 2) == 0) ||
        (opener->rest_size >= 4 && memcmp(opener->rest, zstd, 4) == 0)) {
        opener->decompressor = decompressor_new();
        opener->inflated = xmalloc(INPUT_BYTES);
    }
    return true;
}

/* What is left of the input, without looking at it: bytes behind the end of the archive. Not
 * without end: /dev/zero begins like an empty archive. */
static bool drain(struct opener *opener, struct error *err)
{
    const uint64_t end = opener->taken_bytes + ARCHIVE_DRAINED_MAX;

    while (!opener->input_ended && opener->taken_bytes < end) {
        if (!take_input(opener, 0, err))
            return false;
    }
    return true;
}

static ssize_t read_inflated(struct opener *opener, const void **ret, struct error *err)
{
    ssize_t n = 0;

    *ret = opener->inflated;
    while (n == 0) {
        if (opener->rest_size == 0 && !opener->full) {
            if (opener->input_ended || !take_input(opener, 0, err))
                return opener->input_ended && decompressor_finished(opener->decompressor, err) ? 0
                                                                                               : -1;
            if (opener->rest_size == 0)
                continue;
        }
        n = decompress(opener->decompressor, &opener->rest, &opener->rest_size, opener->inflated,
                       INPUT_BYTES, err);
        opener->full = n == INPUT_BYTES;
    }
    if (n < 0)
        return -1;
    opener->inflated_bytes += (uint64_t)n;
    return check_ratio(opener, opener->inflated_bytes, err) ? n : -1;
}

/* The next bytes: plain where they are so or we inflate them, else as they come. 0 at the end; -1.
 */
static ssize_t next_input(struct opener *opener, const void **ret, struct error *err)
{
    size_t size;

    if (opener->decompressor)
        return read_inflated(opener, ret, err);
    if (opener->rest_size == 0 && !opener->input_ended && !take_input(opener, 0, err))
        return -1;
    *ret = opener->rest;
    size = opener->rest_size;
    opener->rest_size = 0;
    return (ssize_t)size;
}

/* --- Output ------------------------------------------------------------------------------------
 */

/* False also when nobody takes it: then there is nobody to be told. */
static bool send_frame(struct opener *opener, enum frame_kind kind, const void *data, size_t size)
{
    const struct frame frame = {kind, (uint32_t)size};
    uint8_t header[FRAME_HEADER_BYTES];

    if (opener->output_errno)
        return false;
    frame_encode_header(header, &frame);
    opener->output_errno = opener->io->write(opener->io->arg, header, sizeof(header), data, size);
    return opener->output_errno == 0;
}

static bool send_data(struct opener *opener, const void *data, size_t size, struct error *err)
{
    opener->sent_bytes += size;
    if (!check_ratio(opener, opener->sent_bytes, err))
        return false;
    for (size_t done = 0; done < size;) {
        size_t piece = MIN(size - done, FRAME_DATA_MAX);
        if (!send_frame(opener, FRAME_DATA, (const char *)data + done, piece))
            return error_set(err, ERROR_CANCELLED, NULL, "nobody takes the members");
        done += piece;
    }
    return true;
}

static bool send_zeros(struct opener *opener, uint64_t size, struct error *err)
{
    static const uint8_t zeros[64 * KIB];

    for (uint64_t done = 0; done < size;) {
        size_t piece = (size_t)MIN(size - done, sizeof(zeros));
        if (!send_data(opener, zeros, piece, err))
            return false;
        done += piece;
    }
    return true;
}

/* --- libarchive --------------------------------------------------------------------------------
 */

/* Also what libarchive inflates counts, and what it passes over. */
static bool check_filters(const struct opener *opener, struct error *err)
{
    return check_ratio(opener, (uint64_t)archive_filter_bytes(opener->archive, 0), err);
}

static la_ssize_t give_input(struct archive *archive, void *arg, const void **ret)
{
    struct opener *opener = arg;
    ssize_t n =
        check_filters(opener, &opener->error) ? next_input(opener, ret, &opener->error) : -1;

    if (n < 0)
        archive_set_error(archive, EIO, "read failed");
    return n;
}

static bool archive_failed(struct opener *opener, const char *path, struct error *err)
{
    const char *why = archive_error_string(opener->archive);

    if (error_is_set(&opener->error)) {
        error_move(err, &opener->error);
        if (error_is(err, "INVALID_COMPRESSION"))
            error_prefix(err, "the archive");
        return false;
    }
    if (path)
        return error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE", "member \"%s\": %s",
                         path_quote(path).text, why ? why : "it is damaged");
    if (opener->members == 0 && opener->tar && str_eq(why, "Unrecognized archive format"))
        return refuse(err, "no tar archive, nor one that gzip, zstd, xz or bzip2 compressed");
    return error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE",
                     "the archive is damaged after %llu members: %s",
                     (unsigned long long)opener->members, why ? why : "unknown error");
}

/* One that is compressed is compressed once: libarchive would go on for 25 times. The last of the
 * filters is none. */
static bool check_filter_count(const struct opener *opener, struct error *err)
{
    return archive_filter_count(opener->archive) + (opener->decompressor != NULL) <= 2 ||
           refuse(err, "the archive is compressed more than once");
}

/* Formats and filters are enumerated (SECURITY.md, rule 3): tar only; in this process only. */
static bool start_libarchive(struct opener *opener, bool tar, struct error *err)
{
    opener->tar = tar;
    opener->archive = archive_read_new();
    CHECK(opener->archive);
    if ((tar ? archive_read_support_format_tar(opener->archive)
             : archive_read_support_format_raw(opener->archive)) != ARCHIVE_OK ||
        archive_read_support_filter_xz(opener->archive) != ARCHIVE_OK ||
        archive_read_support_filter_bzip2(opener->archive) != ARCHIVE_OK)
        die("libarchive lacks a format");
    return archive_read_open2(opener->archive, opener, NULL, give_input, NULL, NULL) ==
               ARCHIVE_OK ||
           archive_failed(opener, NULL, err);
}

/* --- Members -----------------------------------------------------------------------------------
 */

/* What libarchive may take for a hole between pieces is one of zeros. */
static bool send_content(struct opener *opener, const char *path, uint64_t size, struct error *err)
{
    uint64_t position = 0;
    const void *data;
    size_t n;
    int64_t offset;
    int r;

    while ((r = archive_read_data_block(opener->archive, &data, &n, &offset)) == ARCHIVE_OK) {
        if (offset < 0 || (uint64_t)offset < position || (uint64_t)offset > size ||
            n > size - (uint64_t)offset)
            return member_invalid(path, "has data out of order or beyond its size", err);
        if (!send_zeros(opener, (uint64_t)offset - position, err) ||
            !send_data(opener, data, n, err))
            return false;
        position = (uint64_t)offset + n;
    }
    if (r != ARCHIVE_EOF)
        return archive_failed(opener, path, err);
    return send_zeros(opener, size - position, err);
}

static bool send_member(struct opener *opener, const struct frame_member *member)
{
    uint8_t bytes[FRAME_MEMBER_MAX];

    return send_frame(opener, FRAME_MEMBER, bytes, frame_encode_member(bytes, member));
}

/* A path of the archive's as the archive means it: symlinks from where they are. */
static bool parse_target(const struct path *member, const char *target, bool symlink,
                         struct path *ret, struct error *err)
{
    CLEANUP_STRBUF struct strbuf joined = {0};

    if (symlink && *target != '/') {
        strbuf_add(&joined, member->text, member->parent_length);
        strbuf_add_char(&joined, '/');
    }
    strbuf_add_str(&joined, target);
    return path_parse(strbuf_text(&joined), ret, NULL) ||
           member_invalid(member->text, "is a link that leads out of the archive", err);
}

static bool send_link(struct opener *opener, const struct path *path, const char *target,
                      bool symlink, struct error *err)
{
    struct path meant;
    struct frame_member member = {.is_link = true, .path = path->text, .target = meant.text};

    if (!parse_target(path, target, symlink, &meant, err))
        return false;
    return meant.length == 0 || send_member(opener, &member);
}

static bool handle_entry(struct opener *opener, struct archive_entry *entry, struct error *err)
{
    const char *name = archive_entry_pathname(entry), *hardlink = archive_entry_hardlink(entry);
    struct path path;
    struct frame_member member = {.path = path.text, .target = ""};
    int64_t size = archive_entry_size(entry);

    if (str_empty(name))
        return error_set(err, ERROR_DATA_LOSS, "INVALID_ARCHIVE", "member %llu has no name",
                         (unsigned long long)opener->members);
    if (!path_parse(name, &path, NULL))
        return member_invalid(name,
                              strlen(name) < LAYER_PATH_MAX ? "leads out of the archive"
                                                            : "has a name of more than 4095 bytes",
                              err);
    if (path.length == 0)
        return true;
    if (hardlink)
        return send_link(opener, &path, hardlink, false, err);
    if (archive_entry_filetype(entry) == AE_IFLNK && archive_entry_symlink(entry))
        return send_link(opener, &path, archive_entry_symlink(entry), true, err);
    if (archive_entry_filetype(entry) != AE_IFREG)
        return true;
    if (size < 0)
        return member_invalid(path.text, "has no size", err);
    member.size_bytes = (uint64_t)size;
    return send_member(opener, &member) && send_content(opener, path.text, member.size_bytes, err);
}

/* A name that cannot be converted to our locale is there as it was. */
static bool is_usable(const struct opener *opener, int r)
{
    return r == ARCHIVE_OK || (r == ARCHIVE_WARN && archive_errno(opener->archive) == EILSEQ);
}

static bool send_members(struct opener *opener, struct error *err)
{
    struct archive_entry *entry;
    int r;

    if (!start_libarchive(opener, true, err))
        return false;
    while ((r = archive_read_next_header(opener->archive, &entry)) != ARCHIVE_EOF) {
        if (!is_usable(opener, r))
            return archive_failed(opener, NULL, err);
        if (!check_filter_count(opener, err) || !check_filters(opener, err))
            return false;
        if (++opener->members > ARCHIVE_MEMBERS_MAX)
            return refuse(err, "the archive has more than 1000000 members");
        if (!handle_entry(opener, entry, err))
            return false;
    }
    return true;
}

/* --- Inflate -----------------------------------------------------------------------------------
 */

static bool is_foreign(const struct opener *opener)
{
    return (opener->rest_size >= 3 && memcmp(opener->rest, "BZh", 3) == 0) ||
           (opener->rest_size >= 6 && memcmp(opener->rest,
                                             "\xfd"
                                             "7zXZ",
                                             6) == 0);
}

static bool inflate_foreign(struct opener *opener, struct error *err)
{
    struct archive_entry *entry;
    const void *data;
    size_t size;
    int64_t offset;
    int r;

    if (!start_libarchive(opener, false, err))
        return false;
    if (archive_read_next_header(opener->archive, &entry) != ARCHIVE_OK)
        return archive_failed(opener, NULL, err);
    if (!check_filter_count(opener, err))
        return false;
    while ((r = archive_read_data_block(opener->archive, &data, &size, &offset)) == ARCHIVE_OK) {
        if (!send_data(opener, data, size, err))
            return false;
    }
    return r == ARCHIVE_EOF || archive_failed(opener, NULL, err);
}

static bool inflate(struct opener *opener, struct error *err)
{
    const void *data;
    ssize_t n;

    if (!opener->decompressor && is_foreign(opener))
        return inflate_foreign(opener, err);
    while ((n = next_input(opener, &data, err)) > 0) {
        if (!send_data(opener, data, (size_t)n, err))
            return false;
    }
    return n == 0;
}

/* --- All of it ---------------------------------------------------------------------------------
 */

static bool read_mode(struct opener *opener, enum archive_mode *ret, struct error *err)
{
    uint8_t byte;
    ssize_t n = opener->io->read(opener->io->arg, &byte, 1);

    if (n < 0)
        return error_set_errno(err, (int)n, "cannot read the archive");
    if (n != 1 || (byte != ARCHIVE_MEMBERS && byte != ARCHIVE_INFLATE))
        return error_set(err, ERROR_INTERNAL, NULL, "it was not said what to do");
    *ret = byte;
    return true;
}

static bool run(struct opener *opener, struct error *err)
{
    enum archive_mode mode = ARCHIVE_MEMBERS;

    if (!read_mode(opener, &mode, err) || !sniff(opener, err))
        return false;
    if (opener->rest_size == 0)
        return true; /* nothing at all has no members */
    return (mode == ARCHIVE_MEMBERS ? send_members(opener, err) : inflate(opener, err)) &&
           drain(opener, err);
}

bool open_archive(const struct opener_io *io)
{
    CLEANUP(opener_done) struct opener opener = {.io = io, .input = xmalloc(INPUT_BYTES)};
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_STRBUF struct strbuf text = {0};

    if (run(&opener, &err))
        return send_frame(&opener, FRAME_END, NULL, 0);
    report_encode_error(&text, &err);
    send_frame(&opener, FRAME_FAILED, text.data, MIN(text.length, FRAME_FAILED_MAX));
    return false;
}
