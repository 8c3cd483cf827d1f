/* Reads the archive of a layer, entry by entry, and says what each means for the layer: the same
 * for everybody who unpacks or indexes one. Wants no privilege and runs in confined processes only;
 * libarchive does the reading (SECURITY.md, rules 2 and 3).
 *
 * Nouns: the *input*, where bytes come from; an *entry*; its *content*, which lies at a *position*
 * of the input. */
#pragma once

#include <sys/stat.h>
#include <time.h>

#include "daemon/store/archive/path.h"

struct layer_input {
    /* Up to size bytes; 0 at the end; a negative errno. */
    ssize_t (*read)(void *arg, void *buffer, size_t size);
    /* Passes over bytes, fewer only at the end; a negative errno. NULL: they are read. */
    int64_t (*skip)(void *arg, int64_t size);
    void *arg;
};

enum layer_entry_kind {
    ENTRY_FILE,
    ENTRY_DIR,
    ENTRY_SYMLINK,
    ENTRY_SPECIAL,  /* device node or FIFO */
    ENTRY_HARDLINK, /* to what an earlier entry left at `link` */
    ENTRY_WHITEOUT, /* of `path`: hides what lower layers have there */
    ENTRY_OPAQUE,   /* the parent of `path` hides all that lower layers have in it */
};

/* A hard link, whiteout or opaque mark has names only; of others `link` is unused. */
struct layer_entry {
    enum layer_entry_kind kind;
    struct path path;
    struct path link;
    const char *target; /* of a symlink; not empty */
    mode_t mode;        /* permissions, and of a special node its type */
    uid_t uid;
    gid_t gid;
    struct timespec times[2]; /* of access and modification, as utimensat(2) takes them */
    dev_t device;             /* of a device node, else 0 */
    int64_t size;             /* as claimed, maybe negative */
};

struct layer_xattr {
    const char *name;
    const void *value;
    size_t size;
    size_t order; /* among the entry's, for the reader */
};

struct layer_reader;

/* The input must outlive it. NULL with err: DATA_LOSS (INVALID_LAYER) if it is no tar archive. */
struct layer_reader *layer_reader_new(const struct layer_input *input, struct error *err);
struct layer_reader *layer_reader_free(struct layer_reader *reader);
static inline void layer_reader_cleanup(struct layer_reader **reader)
{
    *reader = layer_reader_free(*reader);
}

/* The next entry, valid until the next call; what is left of the last one's content is skipped. 1,
 * 0 at the end of the archive, or -1 with err. */
int layer_reader_next(struct layer_reader *reader, const struct layer_entry **ret,
                      struct error *err);

/* Entries so far. */
uint64_t layer_reader_entries(const struct layer_reader *reader);

/* The entry's next xattr of those that layers may set, by name, each once. False after the last. */
bool layer_reader_next_xattr(struct layer_reader *reader, struct layer_xattr *ret);

/* The next piece of a file's content: holes are between them; none begins before the end of the one
 * before, or goes beyond the file's size. Valid until the next call. 1, 0 at the end, or -1 with
 * err. */
int layer_reader_next_data(struct layer_reader *reader, const void **ret_data, size_t *ret_size,
                           int64_t *ret_offset, struct error *err);

/* Where in the input the entry begins, with all that is said of it before its header. */
uint64_t layer_reader_header_position(const struct layer_reader *reader);

/* Where in the input the content begins. *ret_whole: it lies there in one piece, if there is as
 * much of it as the file is large and the first piece is at 0; the archive may lie. */
uint64_t layer_reader_position(const struct layer_reader *reader, bool *ret_whole);

/* Passes over what is left of the content, to the next header. -1 with err, or how many bytes that
 * is from the position on. */
int64_t layer_reader_skip(struct layer_reader *reader, struct error *err);

/* Reads the input to its end. What follows the end of the archive belongs to its hash and to
 * nothing else. */
bool layer_reader_drain(struct layer_reader *reader, struct error *err);
