/* Makes the k-th call of a kind fail in a program that it is preloaded into (LD_PRELOAD): what it
 * does is told through a page of shared memory, the file that DAVIT_FAULT_CONTROL names, so that it
 * changes while the program runs. failing.py has the other end.
 *
 * Calls on files count only if those lie on the device that the control names, the data root's;
 * mounts count all. libc's wrappers are replaced, syscall(2) among them: SQLite, too, calls these.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define REAL(name) ((__typeof__(&(name)))real(#name))

/* Bits of control.kinds. failing.py knows them by name. */
enum kind {
    KIND_WRITE = 1,
    KIND_SYNC = 2,
    KIND_RENAME = 4,
    KIND_MOUNT = 8,
    KIND_OPEN = 16,
    KIND_ALLOCATE = 32, /* ftruncate, fallocate */
    KIND_MKDIR = 64,
    KIND_UNLINK = 128,
    KIND_READ = 256,
};

/* failing.py knows the layout. */
struct control {
    _Atomic uint32_t kinds; /* 0: nothing is counted, nothing fails */
    int32_t errnum;
    uint64_t device;
    uint64_t first;        /* the call that fails, from 1 */
    uint64_t failures;     /* so many, from that one on */
    _Atomic uint64_t hits; /* calls of these kinds so far */
    char last[64];         /* the call that failed last */
};

/* Of descriptors that a helper gets. Once it has confined itself it may not ask any more. */
#define INHERITED_FDS 16

static struct control *control;
static struct stat inherited[INHERITED_FDS];

static void *real(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);

    if (!function)
        abort();
    return function;
}

__attribute__((constructor)) static void attach(void)
{
    const char *path = getenv("DAVIT_FAULT_CONTROL");
    int fd = path ? (int)syscall(SYS_open, path, O_RDWR | O_CLOEXEC, 0) : -1;

    if (fd < 0)
        return;
    control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (control == MAP_FAILED)
        control = NULL;
    syscall(SYS_close, fd);
    for (fd = 0; fd < INHERITED_FDS; fd++)
        fstat(fd, &inherited[fd]);
}

/* --- Which calls fail ------------------------------------------------------------------------- */

static bool wanted(enum kind kind)
{
    return control && (atomic_load(&control->kinds) & kind);
}

static bool hit(const char *call)
{
    uint64_t number = atomic_fetch_add(&control->hits, 1) + 1;

    if (number < control->first || number - control->first >= control->failures)
        return false;
    snprintf(control->last, sizeof(control->last), "%s", call);
    errno = control->errnum;
    return true;
}

/* Says on which file, as far as the process may ask. */
static bool hit_fd(const char *call, int fd)
{
    char link[32], path[4096] = "";
    const char *name;

    if (!hit(call))
        return false;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof(path) - 1) < 0)
        *path = '\0';
    name = strrchr(path, '/');
    snprintf(control->last, sizeof(control->last), "%s %.40s", call, name ? name + 1 : "");
    errno = control->errnum;
    return true;
}

static bool fails_fd(enum kind kind, const char *call, int fd)
{
    int errnum = errno;
    struct stat st = {0};

    if (!wanted(kind))
        return false;
    if (fstat(fd, &st) < 0 && errno == EPERM && fd >= 0 && fd < INHERITED_FDS)
        st = inherited[fd];
    errno = errnum;
    return st.st_dev == control->device && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) &&
           hit_fd(call, fd);
}

/* A path counts by the directory that it lies in; what is not there yet is not looked for. */
static bool fails_at(enum kind kind, const char *call, int dir_fd, const char *path)
{
    int errnum = errno;
    struct stat st;
    bool counts = false;

    if (!wanted(kind))
        return false;
    if (*path == '/') {
        char parent[4096];
        snprintf(parent, sizeof(parent), "%s", path);
        *strrchr(parent, '/') = '\0';
        counts = stat(*parent ? parent : "/", &st) == 0 && st.st_dev == control->device;
    } else {
        counts = fstatat(dir_fd, "", &st, AT_EMPTY_PATH) == 0 && st.st_dev == control->device;
    }
    errno = errnum;
    return counts && hit(call);
}

static bool fails(enum kind kind, const char *call)
{
    return wanted(kind) && hit(call);
}

/* --- Reading and writing ---------------------------------------------------------------------- */

#define CALL_ON_FD(kind, type, name, parameters, arguments) \
    EXPORT type name parameters                             \
    {                                                       \
        if (fails_fd(kind, #name, fd))                      \
            return -1;                                      \
        return REAL(name) arguments;                        \
    }

CALL_ON_FD(KIND_WRITE, ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
CALL_ON_FD(KIND_WRITE, ssize_t, pwrite, (int fd, const void *data, size_t size, off_t offset),
           (fd, data, size, offset))
CALL_ON_FD(KIND_WRITE, ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t offset),
           (fd, data, size, offset))
CALL_ON_FD(KIND_WRITE, ssize_t, writev, (int fd, const struct iovec *parts, int count),
           (fd, parts, count))
CALL_ON_FD(KIND_WRITE, ssize_t, pwritev,
           (int fd, const struct iovec *parts, int count, off_t offset), (fd, parts, count, offset))
CALL_ON_FD(KIND_READ, ssize_t, read, (int fd, void *data, size_t size), (fd, data, size))
CALL_ON_FD(KIND_READ, ssize_t, pread, (int fd, void *data, size_t size, off_t offset),
           (fd, data, size, offset))
CALL_ON_FD(KIND_READ, ssize_t, pread64, (int fd, void *data, size_t size, off64_t offset),
           (fd, data, size, offset))

/* --- Durability, sizes ------------------------------------------------------------------------ */

CALL_ON_FD(KIND_SYNC, int, fsync, (int fd), (fd))
CALL_ON_FD(KIND_SYNC, int, fdatasync, (int fd), (fd))
CALL_ON_FD(KIND_SYNC, int, syncfs, (int fd), (fd))
CALL_ON_FD(KIND_SYNC, int, sync_file_range, (int fd, off64_t offset, off64_t size, unsigned flags),
           (fd, offset, size, flags))
CALL_ON_FD(KIND_ALLOCATE, int, ftruncate, (int fd, off_t size), (fd, size))
CALL_ON_FD(KIND_ALLOCATE, int, ftruncate64, (int fd, off64_t size), (fd, size))
CALL_ON_FD(KIND_ALLOCATE, int, fallocate, (int fd, int mode, off_t offset, off_t size),
           (fd, mode, offset, size))
CALL_ON_FD(KIND_ALLOCATE, int, fallocate64, (int fd, int mode, off64_t offset, off64_t size),
           (fd, mode, offset, size))

/* It gives the error, and leaves errno alone. */
EXPORT int posix_fallocate(int fd, off_t offset, off_t size)
{
    if (fails_fd(KIND_ALLOCATE, "posix_fallocate", fd))
        return errno;
    return REAL(posix_fallocate)(fd, offset, size);
}

/* --- Names ------------------------------------------------------------------------------------ */

#define CALL_AT(kind, name, dir_fd, path, parameters, arguments) \
    EXPORT int name parameters                                   \
    {                                                            \
        if (fails_at(kind, #name, dir_fd, path))                 \
            return -1;                                           \
        return REAL(name) arguments;                             \
    }

CALL_AT(KIND_RENAME, rename, AT_FDCWD, old, (const char *old, const char *new), (old, new))
CALL_AT(KIND_RENAME, renameat, old_fd, old,
        (int old_fd, const char *old, int new_fd, const char *new), (old_fd, old, new_fd, new))
CALL_AT(KIND_RENAME, renameat2, old_fd, old,
        (int old_fd, const char *old, int new_fd, const char *new, unsigned flags),
        (old_fd, old, new_fd, new, flags))
CALL_AT(KIND_MKDIR, mkdir, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
CALL_AT(KIND_MKDIR, mkdirat, fd, path, (int fd, const char *path, mode_t mode), (fd, path, mode))
CALL_AT(KIND_UNLINK, unlink, AT_FDCWD, path, (const char *path), (path))
CALL_AT(KIND_UNLINK, unlinkat, fd, path, (int fd, const char *path, int flags), (fd, path, flags))
CALL_AT(KIND_UNLINK, rmdir, AT_FDCWD, path, (const char *path), (path))

#define OPEN(name, dir_fd, parameters, arguments)     \
    EXPORT int name parameters                        \
    {                                                 \
        mode_t mode = 0;                              \
                                                      \
        if (flags & (O_CREAT | O_TMPFILE)) {          \
            va_list more;                             \
            va_start(more, flags);                    \
            mode = va_arg(more, mode_t);              \
            va_end(more);                             \
        }                                             \
        if (fails_at(KIND_OPEN, #name, dir_fd, path)) \
            return -1;                                \
        return REAL(name) arguments;                  \
    }

OPEN(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, fd, (int fd, const char *path, int flags, ...), (fd, path, flags, mode))
OPEN(openat64, fd, (int fd, const char *path, int flags, ...), (fd, path, flags, mode))

/* --- Mounts ----------------------------------------------------------------------------------- */

#define CALL(kind, name, parameters, arguments) \
    EXPORT int name parameters                  \
    {                                           \
        if (fails(kind, #name))                 \
            return -1;                          \
        return REAL(name) arguments;            \
    }

CALL(KIND_MOUNT, mount,
     (const char *source, const char *target, const char *type, unsigned long flags,
      const void *data),
     (source, target, type, flags, data))
CALL(KIND_MOUNT, fsopen, (const char *type, unsigned flags), (type, flags))
CALL(KIND_MOUNT, fsconfig,
     (int fd, unsigned command, const char *key, const void *value, int number),
     (fd, command, key, value, number))
CALL(KIND_MOUNT, fsmount, (int fd, unsigned flags, unsigned attributes), (fd, flags, attributes))
CALL(KIND_MOUNT, move_mount,
     (int from_fd, const char *from, int to_fd, const char *to, unsigned flags),
     (from_fd, from, to_fd, to, flags))
CALL(KIND_MOUNT, open_tree, (int fd, const char *path, unsigned flags), (fd, path, flags))
CALL(KIND_MOUNT, umount2, (const char *target, int flags), (target, flags))

/* --- syscall(2) ------------------------------------------------------------------------------- */

static bool fails_syscall(long number, const long *arguments)
{
    switch (number) {
    case SYS_openat2:
        return fails_at(KIND_OPEN, "openat2", (int)arguments[0], (const char *)arguments[1]);
    case SYS_renameat2:
        return fails_at(KIND_RENAME, "renameat2", (int)arguments[0], (const char *)arguments[1]);
    case SYS_fsopen:
    case SYS_fsconfig:
    case SYS_fsmount:
    case SYS_move_mount:
    case SYS_open_tree:
    case SYS_mount_setattr:
        return fails(KIND_MOUNT, "syscall of a mount");
    default:
        return false;
    }
}

EXPORT long syscall(long number, ...)
{
    long arguments[6];
    va_list more;

    va_start(more, number);
    for (int i = 0; i < 6; i++)
        arguments[i] = va_arg(more, long);
    va_end(more);
    if (fails_syscall(number, arguments))
        return -1;
    return REAL(syscall)(number, arguments[0], arguments[1], arguments[2], arguments[3],
                         arguments[4], arguments[5]);
}
