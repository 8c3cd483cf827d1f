/* Shared between the files of this folder only. */
#pragma once

#include "daemon/store/untar/untar.h"
#include "proto/base/map.h"

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
    struct layer_reader *reader;
    const struct layer_entry *entry;
    struct dir dirs[DIRS_OPEN];
    uint64_t clock;
    int open_errno; /* of the last directory that could not be opened */
    struct layer_report *report;
    struct map *opaque; /* inode number as text -> path, allocated */
    size_t opaque_size, root_path_length;
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

bool stat_is_whiteout(const struct stat *st);

/* Of what no entry describes. */
extern const struct timespec no_times[2];

/* --- opaque.c: directories that hide what is below them ----------------------------------------
 */

bool opaque_init(struct untar *untar, struct error *err);
void opaque_done(struct untar *untar);

/* The directory behind fd is one, for as long as it is there. */
bool opaque_add(struct untar *untar, int fd, struct error *err);

/* A directory was removed. */
void opaque_forget(struct untar *untar, const struct stat *st);

/* Puts those that are left into the report. */
void opaque_report(const struct untar *untar);

/* --- entry.c -----------------------------------------------------------------------------------
 */

bool untar_entry(struct untar *untar, struct error *err);
