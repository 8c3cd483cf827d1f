#include "daemon/store/fs_context.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

#include "proto/base/strbuf.h"

#define VALUE_MAX_BYTES 255 /* of a string in fsconfig(2) */

int fs_open(const char *type, struct error *err)
{
    int fd = fsopen(type, FSOPEN_CLOEXEC);

    if (fd >= 0)
        return fd;
    if (errno == ENODEV || errno == ENOSYS)
        error_set(err, ERROR_FAILED_PRECONDITION, "FILESYSTEM_MISSING", "the kernel has no %s",
                  type);
    else
        error_set_errno(err, errno, "cannot open a file system of type %s", type);
    return -1;
}

/* What the kernel has to say, each message with its level ("e erofs: ..."). */
static void read_messages(int context_fd, struct strbuf *ret)
{
    char message[512];
    ssize_t n;

    while ((n = read(context_fd, message, sizeof(message))) > 0) {
        while (n > 0 && message[n - 1] == '\n')
            n--;
        if (n > 2 && message[1] == ' ')
            strbuf_addf(ret, "%s%.*s", ret->length ? "; " : "", (int)n - 2, message + 2);
    }
}

static bool failed(int context_fd, int errnum, const char *what, struct error *err)
{
    CLEANUP_STRBUF struct strbuf messages = {0};

    read_messages(context_fd, &messages);
    error_set_errno(err, errnum, "%s", what);
    return !messages.length ? false : error_prefix(err, "%s", messages.data);
}

bool fs_set(int context_fd, const char *key, const char *value, struct error *err)
{
    CLEANUP_FREE char *what = NULL;

    if (fsconfig(context_fd, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, key, value, 0) == 0)
        return true;
    what =
        xasprintf("cannot set the mount option %s%s%s", key, value ? "=" : "", value ? value : "");
    return failed(context_fd, errno, what, err);
}

bool fs_set_path(int context_fd, const char *key, const char *path, struct error *err)
{
    CLEANUP_CLOSE int fd = -1;
    char link[40];

    if (strlen(path) <= VALUE_MAX_BYTES)
        return fs_set(context_fd, key, path, err);
    fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, errno, "cannot open %s", path);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    return fs_set(context_fd, key, link, err);
}

int fs_create(int context_fd, unsigned int attributes, struct error *err)
{
    int fd = -1;

    if (fsconfig(context_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        fd = fsmount(context_fd, FSMOUNT_CLOEXEC, attributes);
    if (fd >= 0)
        return fd;
    if (errno == ENOTBLK)
        error_set(err, ERROR_FAILED_PRECONDITION, "BLOCK_DEVICE_NEEDED",
                  "the kernel takes only a block device for it here, not a file");
    else
        failed(context_fd, errno, "the kernel refused the mount", err);
    return -1;
}

bool fs_attach(int mount_fd, const char *path, struct error *err)
{
    return move_mount(mount_fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) == 0 ||
           error_set_errno(err, errno, "cannot mount at %s", path);
}
