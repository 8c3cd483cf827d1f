#include "daemon/store/untar/untar.h"

#include <errno.h>

#include "daemon/store/untar/internal.h"

#define INPUT_BUFFER_BYTES (256 * KIB)

static void untar_done(struct untar *untar)
{
    dirs_close(untar);
    archive_read_free(untar->archive);
    free(untar->buffer);
}

static la_ssize_t read_input(struct archive *archive, void *arg, const void **ret_block)
{
    struct untar *untar = arg;
    ssize_t n = untar->input->read(untar->input->arg, untar->buffer, INPUT_BUFFER_BYTES);

    *ret_block = untar->buffer;
    if (n < 0) {
        untar->input_errno = (int)-n;
        archive_set_error(archive, (int)-n, "read failed");
        return -1;
    }
    untar->input_ended = n == 0;
    return n;
}

static bool archive_damaged(const struct untar *untar, struct error *err)
{
    const char *why = archive_error_string(untar->archive);

    if (untar->input_errno)
        return error_set_errno(err, untar->input_errno, "cannot read the archive");
    return error_set(err, ERROR_DATA_LOSS, "INVALID_LAYER",
                     "the archive is damaged after %llu entries: %s",
                     (unsigned long long)untar->result->entries, why ? why : "unknown error");
}

/* Formats are enumerated (SECURITY.md, rule 3): tar, and no bytes at all, which is an empty one. */
static bool archive_begin(struct untar *untar, struct error *err)
{
    untar->archive = archive_read_new();
    CHECK(untar->archive);
    archive_read_support_format_tar(untar->archive);
    archive_read_support_format_empty(untar->archive);
    return archive_read_open(untar->archive, untar, NULL, read_input, NULL) == ARCHIVE_OK ||
           archive_damaged(untar, err);
}

static bool untar_entries(struct untar *untar, struct error *err)
{
    struct archive_entry *entry;
    int r;

    /* ARCHIVE_WARN: something in the header could not be converted, and is there as it was. */
    while ((r = archive_read_next_header(untar->archive, &entry)) == ARCHIVE_OK ||
           r == ARCHIVE_WARN) {
        if (++untar->result->entries > UNTAR_ENTRIES_MAX)
            return error_set(err, ERROR_DATA_LOSS, "INVALID_LAYER",
                             "the archive has more than %d entries", UNTAR_ENTRIES_MAX);
        if (!untar_entry(untar, entry, err))
            return false;
    }
    return r == ARCHIVE_EOF || archive_damaged(untar, err);
}

/* What follows the end of the archive belongs to its hash and to nothing else. */
static bool drain(struct untar *untar, struct error *err)
{
    while (!untar->input_ended) {
        ssize_t n = untar->input->read(untar->input->arg, untar->buffer, INPUT_BUFFER_BYTES);
        if (n < 0)
            return error_set_errno(err, (int)n, "cannot read the archive");
        untar->input_ended = n == 0;
    }
    return true;
}

bool untar(int root_fd, const struct untar_input *input, struct untar_result *ret,
           struct error *err)
{
    CLEANUP(untar_done)
    struct untar untar = {
        .root_fd = root_fd,
        .input = input,
        .buffer = xmalloc(INPUT_BUFFER_BYTES),
        .result = ret,
    };

    return archive_begin(&untar, err) && untar_entries(&untar, err) && drain(&untar, err);
}
