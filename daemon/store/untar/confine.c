#include "daemon/store/untar/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MEMORY_MAX (192 * MIB) /* address space; the libraries alone map some 40 MiB */
#define OPEN_MAX_FILES 64

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* CAP_SYS_ADMIN, which the mark of an opaque directory takes, is not among them: the daemon sets
 * those. */
static const int kept_capabilities[] = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER,
                                        CAP_FSETID, CAP_MKNOD,        CAP_SETFCAP};

static bool failed(struct error *err, const char *what)
{
    return error_set_errno(err, errno, "cannot confine the unpacker: %s", what);
}

/* Device nodes may be made, but through this mount none can be opened. */
static bool enter_root(int dir_fd, struct error *err)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC};
    CLEANUP_CLOSE int mount_fd =
        open_tree(dir_fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (mount_fd < 0)
        return failed(err, "open_tree");
    if (mount_setattr(mount_fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
        return failed(err, "mount_setattr");
    if (fchdir(mount_fd) < 0 || chroot(".") < 0 || chdir("/") < 0)
        return failed(err, "chroot");
    return true;
}

static void leave_namespaces(void)
{
    static const int namespaces[] = {CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS};

    /* Some kernels lack one or count them: the rest holds without. */
    for (size_t i = 0; i < ARRAY_SIZE(namespaces); i++)
        unshare(namespaces[i]);
}

static bool drop_capabilities(struct error *err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    uint64_t kept = 0;

    for (size_t i = 0; i < ARRAY_SIZE(kept_capabilities); i++)
        kept |= UINT64_C(1) << kept_capabilities[i];
    for (int capability = 0; capability < 64; capability++) {
        if (!(kept >> capability & 1) && prctl(PR_CAPBSET_READ, capability) == 1 &&
            prctl(PR_CAPBSET_DROP, capability) < 0)
            return failed(err, "capability bounding set");
    }
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (int i = 0; i < 2; i++)
        data[i].permitted = data[i].effective = (uint32_t)(kept >> (32 * i));
    if (syscall(SYS_capset, &header, data) < 0)
        return failed(err, "capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return failed(err, "no_new_privs");
    return true;
}

static void limit_resources(void)
{
    const struct {
        __rlimit_resource_t resource;
        rlim_t limit;
    } limits[] = {
        {RLIMIT_AS, SANITIZED ? RLIM_INFINITY : MEMORY_MAX},
        {RLIMIT_CORE, 0},
        {RLIMIT_NOFILE, OPEN_MAX_FILES},
        {RLIMIT_NPROC, SANITIZED ? RLIM_INFINITY : 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        struct rlimit limit = {limits[i].limit, limits[i].limit};
        setrlimit(limits[i].resource, &limit);
    }
}

int confine(int dir_fd, struct error *err)
{
    int root_fd;

    umask(0);
    if (!enter_root(dir_fd, err))
        return -1;
    close_range(3, ~0U, 0);
    leave_namespaces();
    limit_resources();
    root_fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0) {
        failed(err, "open the root");
        return -1;
    }
    if (!drop_capabilities(err)) {
        close(root_fd);
        return -1;
    }
    return root_fd;
}
