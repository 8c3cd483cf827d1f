#include "daemon/store/untar/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/store/archive/confine.h"

#define MEMORY_MAX (192 * MIB) /* address space; the libraries alone map some 40 MiB */

/* CAP_SYS_ADMIN, which the mark of an opaque directory takes, is not among them: the daemon sets
 * those. */
static const int kept_capabilities[] = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER,
                                        CAP_FSETID, CAP_MKNOD,        CAP_SETFCAP};

/* Device nodes may be made, but through this mount none can be opened. */
static bool enter_root(int dir_fd, struct error *err)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC};
    CLEANUP_CLOSE int mount_fd =
        open_tree(dir_fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (mount_fd < 0)
        return confine_failed(err, "open_tree");
    if (mount_setattr(mount_fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
        return confine_failed(err, "mount_setattr");
    if (fchdir(mount_fd) < 0 || chroot(".") < 0 || chdir("/") < 0)
        return confine_failed(err, "chroot");
    return true;
}

int confine(int dir_fd, struct error *err)
{
    int root_fd;

    umask(0);
    if (!enter_root(dir_fd, err))
        return -1;
    close_range(3, ~0U, 0);
    confine_namespaces();
    confine_resources(MEMORY_MAX);
    root_fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0) {
        confine_failed(err, "open the root");
        return -1;
    }
    if (!confine_capabilities(kept_capabilities, ARRAY_SIZE(kept_capabilities), err)) {
        close(root_fd);
        return -1;
    }
    return root_fd;
}
