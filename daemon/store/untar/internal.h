/* Shared between the files of this folder only. */
#pragma once

#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>
#include <time.h>

#include "daemon/store/untar/untar.h"

/* --- path.c: names as they stand in archives, without I/O --------------------------------------
 */

struct path {
    char text[UNTAR_PATH_MAX]; /* relative, clean, no "." or ".."; "" is the root */
    size_t length;
    size_t parent_length; /* of the part before the last slash */
    char *base;           /* the last name, in text */
};

/* Makes a name from an archive a path below the root, as Docker does: absolute names are taken from
 * the root, ".." goes up in the text. One that would leave the root is an error. */
bool path_parse(const char *name, struct path *ret, struct error *err);

/* Text for messages: bytes that are no printable ASCII escaped, long names shortened. */
struct quoted {
    char text[256];
};
struct quoted path_quote(const char *name);

/* --- dirs.c: open directories ------------------------------------------------------------------
 */

/* An open directory that entries are being created in. Creating changes its time; that is put back
 * when the directory is left. */
struct dir {
    char *path; /* NULL while the place is free */
    size_t path_length;
    int fd;
    dev_t device;
    ino_t inode;
    bool setgid; /* what is created in it inherits its group */
    bool touched;
    struct timespec mtime; /* as it is to be once it is left */
    uint64_t used;
};

#define DIRS_OPEN 16

struct untar {
    int root_fd;
    struct archive *archive;
    const struct untar_input *input;
    void *buffer;
    int input_errno;
    bool input_ended;
    struct dir dirs[DIRS_OPEN];
    uint64_t clock;
    int open_errno;   /* of the last directory that could not be opened */
    struct path path; /* of the entry */
    struct path link; /* what it links to */
    struct untar_result *result;
};

/* The open directory at path (length bytes of it), resolved in the root; missing ones are created.
 * Valid until the next call. NULL with err. */
struct dir *dirs_open(struct untar *untar, const char *path, size_t length, struct error *err);

/* Takes over a directory that is already open. */
struct dir *dirs_add(struct untar *untar, const char *path, size_t length, int fd,
                     struct error *err);

/* Puts times back and closes all. Also before a directory or symlink is removed: paths may then
 * lead elsewhere. */
void dirs_close(struct untar *untar);

/* --- entry.c -----------------------------------------------------------------------------------
 */

bool untar_entry(struct untar *untar, struct archive_entry *entry, struct error *err);

/* --- Errors ------------------------------------------------------------------------------------
 */

/* INVALID_LAYER for what an archive can bring about, NO_SPACE, or INTERNAL. Returns false. */
bool entry_failed(const struct path *path, int errnum, const char *doing, struct error *err);
bool entry_invalid(const struct path *path, const char *why, struct error *err);
