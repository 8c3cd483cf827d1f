#include "daemon/container/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <unistd.h>

#include "daemon/store/fs_context.h"
#include "proto/base/strbuf.h"

/* Images may have one layer several times (empty ones mostly); overlayfs refuses a directory that
 * it has already. What the lower one has, the upper one has too: only the topmost counts. */
static bool stands_above(const struct overlay *overlay, size_t i)
{
    for (size_t above = i + 1; above < overlay->lower_count; above++) {
        if (str_eq(overlay->lower_dirs[above], overlay->lower_dirs[i]))
            return true;
    }
    return false;
}

/* --- The new mount API: Linux 6.8 ---------------------------------------------------------------
 */

static bool set_layers(int context_fd, const struct overlay *overlay, struct error *err)
{
    for (size_t i = overlay->lower_count; i-- > 0;) { /* the top first */
        if (!stands_above(overlay, i) &&
            !fs_set_path(context_fd, "lowerdir+", overlay->lower_dirs[i], err))
            return false;
    }
    return true;
}

/* index=off: an upper directory is mounted by one container only. volatile: without it, unmounting
 * writes out everything that is dirty on the file system below. */
static bool mount_by_context(const struct overlay *overlay, struct error *err)
{
    CLEANUP_CLOSE int context_fd = fs_open("overlay", err);
    CLEANUP_CLOSE int mount_fd = -1;

    if (context_fd < 0 || !fs_set(context_fd, "source", "overlay", err) ||
        !set_layers(context_fd, overlay, err) ||
        !fs_set_path(context_fd, "upperdir", overlay->upper_dir, err) ||
        !fs_set_path(context_fd, "workdir", overlay->work_dir, err) ||
        !fs_set(context_fd, "index", "off", err) ||
        (overlay->disposable && !fs_set(context_fd, "volatile", NULL, err)))
        return false;
    mount_fd = fs_create(context_fd, 0, err);
    return mount_fd >= 0 && fs_attach(mount_fd, overlay->mount_point, err);
}

/* --- mount(2), for older kernels ----------------------------------------------------------------
 */

/* Directories are given to the kernel as descriptors: their paths need no escaping, and 127 of
 * them fit into the one page that mount(2) takes. */
struct options {
    struct strbuf text;
    int *fds;
    size_t fd_count;
};

static void options_done(struct options *options)
{
    for (size_t i = 0; i < options->fd_count; i++)
        close(options->fds[i]);
    free(options->fds);
    strbuf_done(&options->text);
}

static bool add_directory(struct options *options, const char *before, const char *path)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return false;
    options->fds = xrealloc(options->fds, sizeof(int) * (options->fd_count + 1));
    options->fds[options->fd_count++] = fd;
    strbuf_addf(&options->text, "%s/proc/self/fd/%d", before, fd);
    return true;
}

static bool mount_by_options(const struct overlay *overlay)
{
    CLEANUP(options_done) struct options options = {0};

    for (size_t i = overlay->lower_count; i-- > 0;) {
        const char *before = i + 1 == overlay->lower_count ? "lowerdir=" : ":";
        if (!stands_above(overlay, i) && !add_directory(&options, before, overlay->lower_dirs[i]))
            return false;
    }
    if (!add_directory(&options, ",upperdir=", overlay->upper_dir) ||
        !add_directory(&options, ",workdir=", overlay->work_dir))
        return false;
    strbuf_add_str(&options.text, overlay->disposable ? ",index=off,volatile" : ",index=off");
    return mount("overlay", overlay->mount_point, "overlay", 0, options.text.data) == 0;
}

static bool mount_as_kernel_can(const struct overlay *overlay, struct error *err)
{
    /* An older kernel logs each option that it does not know: it is asked once. */
    static atomic_bool is_old;

    if (atomic_load(&is_old))
        return mount_by_options(overlay) ||
               error_set_errno(err, errno, "the kernel refused the mount");
    if (mount_by_context(overlay, err))
        return true;
    if (error_is(err, "FILESYSTEM_MISSING") || !mount_by_options(overlay))
        return false;
    error_done(err);
    atomic_store(&is_old, true);
    return true;
}

bool overlay_mount(const struct overlay *overlay, struct error *err)
{
    if (mount_as_kernel_can(overlay, err))
        return true;
    error_prefix(err, "cannot mount an overlay of %zu layers at %s", overlay->lower_count,
                 overlay->mount_point);
    return error_hint(err, error_is(err, "FILESYSTEM_MISSING")
                               ? "load it with `modprobe overlay`"
                               : "the data root must lie on a file system that overlayfs accepts, "
                                 "such as ext4 or xfs; the kernel's log (dmesg) may say more");
}
