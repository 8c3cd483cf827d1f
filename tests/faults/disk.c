/* A disk that remembers what it was told and when: fault-disk MOUNTPOINT IMAGE LOG serves one file,
 * MOUNTPOINT/disk, for a loop device to lie on. What the loop device writes goes into IMAGE, and
 * into LOG in its order, together with the flushes (the loop device makes an fsync(2) of one). A
 * disk with a volatile cache may lose, at a power cut, any part of what was written since the last
 * flush that it had answered, and nothing else: from LOG, volume.py makes such a disk for any
 * moment.
 *
 * FUSE's own protocol (linux/fuse.h), as little as a loop device needs; one request after the
 * other, so that a write that was answered before a flush came stands before it. Ends when
 * unmounted. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define WRITE_MAX (1 << 20)
#define DISK_NODE 2 /* the directory is FUSE_ROOT_ID */
#define FOREVER_S 3600

/* A line of the log; after a write, its data. volume.py knows the layout. */
struct record {
    char kind; /* 'W' or 'F' */
    char padding[3];
    uint32_t size_bytes;
    uint64_t offset;
};

struct disk {
    int fuse_fd, image_fd, log_fd;
    uint64_t size_bytes;
};

_Noreturn static void die(const char *what)
{
    fprintf(stderr, "fault-disk: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* --- The log ---------------------------------------------------------------------------------- */

static void note(const struct disk *disk, char kind, uint64_t offset, const void *data,
                 uint32_t size)
{
    struct record record = {.kind = kind, .size_bytes = size, .offset = offset};
    struct iovec parts[] = {{&record, sizeof(record)}, {(void *)data, size}};

    if (writev(disk->log_fd, parts, 2) != (ssize_t)(sizeof(record) + size))
        die("cannot write the log");
}

/* --- Answers ---------------------------------------------------------------------------------- */

static void answer(const struct disk *disk, const struct fuse_in_header *in, int errnum,
                   const void *data, size_t size)
{
    struct fuse_out_header out = {
        .len = (uint32_t)(sizeof(out) + size),
        .error = -errnum,
        .unique = in->unique,
    };
    struct iovec parts[] = {{&out, sizeof(out)}, {(void *)data, size}};

    if (writev(disk->fuse_fd, parts, size ? 2 : 1) < 0 && errno != ENOENT)
        die("cannot answer");
}

static struct fuse_attr attributes(const struct disk *disk, uint64_t node)
{
    bool is_disk = node == DISK_NODE;

    return (struct fuse_attr){
        .ino = node,
        .size = is_disk ? disk->size_bytes : 0,
        .blocks = is_disk ? disk->size_bytes / 512 : 0,
        .mode = is_disk ? S_IFREG | 0600 : S_IFDIR | 0700,
        .nlink = 1,
        .blksize = 4096,
    };
}

static void answer_init(const struct disk *disk, const struct fuse_in_header *in,
                        const struct fuse_init_in *init)
{
    const struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = FUSE_KERNEL_MINOR_VERSION,
        .flags = init->flags & (FUSE_BIG_WRITES | FUSE_MAX_PAGES),
        .max_write = WRITE_MAX,
        .max_pages = WRITE_MAX / 4096,
    };

    answer(disk, in, 0, &out, sizeof(out));
}

static void answer_lookup(const struct disk *disk, const struct fuse_in_header *in,
                          const char *name)
{
    const struct fuse_entry_out out = {
        .nodeid = DISK_NODE,
        .entry_valid = FOREVER_S,
        .attr_valid = FOREVER_S,
        .attr = attributes(disk, DISK_NODE),
    };

    if (strcmp(name, "disk") == 0)
        answer(disk, in, 0, &out, sizeof(out));
    else
        answer(disk, in, ENOENT, NULL, 0);
}

static void answer_getattr(const struct disk *disk, const struct fuse_in_header *in)
{
    const struct fuse_attr_out out = {
        .attr_valid = FOREVER_S,
        .attr = attributes(disk, in->nodeid),
    };

    answer(disk, in, 0, &out, sizeof(out));
}

/* Past the kernel's page cache: every write of the loop device comes here, and at once. */
static void answer_open(const struct disk *disk, const struct fuse_in_header *in)
{
    const struct fuse_open_out out = {.open_flags = FOPEN_DIRECT_IO};

    answer(disk, in, 0, &out, sizeof(out));
}

static void answer_read(const struct disk *disk, const struct fuse_in_header *in,
                        const struct fuse_read_in *read)
{
    static char data[WRITE_MAX];
    ssize_t n = pread(disk->image_fd, data, read->size < WRITE_MAX ? read->size : WRITE_MAX,
                      (off_t)read->offset);

    if (n < 0)
        answer(disk, in, errno, NULL, 0);
    else
        answer(disk, in, 0, data, (size_t)n);
}

static void answer_write(const struct disk *disk, const struct fuse_in_header *in,
                         const struct fuse_write_in *write)
{
    const struct fuse_write_out out = {.size = write->size};
    const void *data = write + 1;

    if (pwrite(disk->image_fd, data, write->size, (off_t)write->offset) != (ssize_t)write->size)
        die("cannot write the image");
    note(disk, 'W', write->offset, data, write->size);
    answer(disk, in, 0, &out, sizeof(out));
}

static void answer_request(const struct disk *disk, const struct fuse_in_header *in)
{
    const void *body = in + 1;

    switch (in->opcode) {
    case FUSE_INIT:
        answer_init(disk, in, body);
        break;
    case FUSE_LOOKUP:
        answer_lookup(disk, in, body);
        break;
    case FUSE_GETATTR:
        answer_getattr(disk, in);
        break;
    case FUSE_OPEN:
        answer_open(disk, in);
        break;
    case FUSE_READ:
        answer_read(disk, in, body);
        break;
    case FUSE_WRITE:
        answer_write(disk, in, body);
        break;
    case FUSE_FSYNC:
        note(disk, 'F', 0, NULL, 0);
        answer(disk, in, 0, NULL, 0);
        break;
    case FUSE_FLUSH: /* close(2) of a descriptor */
    case FUSE_RELEASE:
        answer(disk, in, 0, NULL, 0);
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT: /* they take no answer */
        break;
    default:
        answer(disk, in, ENOSYS, NULL, 0);
    }
}

int main(int argc, char **argv)
{
    static _Alignas(struct fuse_in_header) char request[WRITE_MAX + 4096];
    struct disk disk;
    struct stat st;
    char options[64];
    ssize_t n;

    if (argc != 4) {
        fputs("usage: fault-disk MOUNTPOINT IMAGE LOG\n", stderr);
        return 2;
    }
    disk.image_fd = open(argv[2], O_RDWR | O_CLOEXEC);
    if (disk.image_fd < 0 || fstat(disk.image_fd, &st) < 0)
        die(argv[2]);
    disk.size_bytes = (uint64_t)st.st_size;
    disk.log_fd = open(argv[3], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (disk.log_fd < 0)
        die(argv[3]);
    disk.fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", disk.fuse_fd);
    if (mount("fault-disk", argv[1], "fuse", MS_NOSUID | MS_NODEV, options) < 0)
        die("cannot mount");
    puts("ready");
    fflush(stdout);
    while ((n = read(disk.fuse_fd, request, sizeof(request))) > 0 || errno == EINTR) {
        if (n > 0)
            answer_request(&disk, (const struct fuse_in_header *)request);
    }
    return errno == ENODEV ? 0 : 1;
}
