/* USER of an image or of `run --user`, resolved with the image's /etc/passwd and /etc/group. A
 * parser without I/O: the files come as bytes, from an image, and are hostile. */
#pragma once

#include "proto/base/error.h"

/* More than any real image has; longer is an error. */
#define USER_FILE_MAX_BYTES MIB

/* Highest uid and gid: 2^32 - 1 means "unchanged" to the kernel. */
#define USER_ID_MAX 4294967294U

struct exec_user {
    uint32_t uid, gid;
    uint32_t *groups; /* supplementary, without gid */
    size_t group_count;
    char *home; /* "/" if nothing better is known */
};
void exec_user_done(struct exec_user *user);

/* The contents of one of the two files; data NULL: the image has no such file. */
struct user_file {
    const char *data;
    size_t size;
};

/* Resolves "", "name", "uid", "name:group", "uid:gid" and any mix as Docker does: the first entry
 * that matches wins, supplementary groups come from the group file unless a group is named, and an
 * id without an entry is fine. Digits are an id, never looked up as a name. Entries with a number
 * out of range are passed over. Does not suspend. INVALID_ARGUMENT (INVALID_USER) or NOT_FOUND
 * (USER_NOT_FOUND). */
bool exec_user_resolve(const char *text, struct user_file passwd, struct user_file group,
                       struct exec_user *ret, struct error *err);
