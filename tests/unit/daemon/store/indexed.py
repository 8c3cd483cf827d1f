"""Indexing an archive, and mounting the index with the kernel, file-backed, as the daemon does."""
import ctypes
import os
import struct
import subprocess
import tempfile

LIBC = ctypes.CDLL(None, use_errno=True)
FSOPEN, FSCONFIG, FSMOUNT, MOVE_MOUNT = 430, 431, 432, 429
CLOEXEC, SET_FLAG, SET_STRING, CREATE = 1, 0, 1, 6
F_EMPTY_PATH, AT_FDCWD, MNT_DETACH = 4, -100, 2


def syscall(number, *arguments):
    result = LIBC.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def mount(index, devices, mount_point):
    context = syscall(FSOPEN, b"erofs", CLOEXEC)
    try:
        syscall(FSCONFIG, context, SET_STRING, b"source", os.fsencode(index), 0)
        for device in devices:
            syscall(FSCONFIG, context, SET_STRING, b"device", os.fsencode(device), 0)
        syscall(FSCONFIG, context, SET_FLAG, b"ro", None, 0)
        syscall(FSCONFIG, context, CREATE, None, None, 0)
        mount_fd = syscall(FSMOUNT, context, CLOEXEC, 0)
    finally:
        os.close(context)
    try:
        syscall(MOVE_MOUNT, mount_fd, b"", AT_FDCWD, os.fsencode(mount_point), F_EMPTY_PATH)
    finally:
        os.close(mount_fd)


def unmount_below(directory):
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        points = [line.split()[4] for line in lines]
    for point in reversed(points):
        if point == str(directory) or point.startswith(f"{directory}/"):
            LIBC.umount2(os.fsencode(point), MNT_DETACH)


class Messages:
    """What the kernel has to say of EROFS, beyond that something was mounted."""

    def __init__(self):
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def complaints(self):
        found = []
        while True:
            try:
                message = os.read(self.fd, 8192).decode(errors="replace")
            except BlockingIOError:
                return found
            except BrokenPipeError:  # overwritten before it was read
                continue
            priority, _, text = message.partition(";")
            if text.startswith("erofs") and int(priority.split(",")[0]) & 7 <= 4:
                found.append(text)

    def close(self):
        os.close(self.fd)


class Indexed:
    """The files of a layer, and what davit-index reports."""

    def __init__(self, program, archive, directory):
        self.tar, self.index, self.sparse = (os.path.join(directory, name) for name in
                                             ("layer.tar", "layer.erofs", "sparse"))
        with open(self.tar, "wb") as file:
            file.write(archive)
        for name in (self.index, self.sparse):
            with open(name, "wb"):
                pass
        self.status, self.report = self.run(program, [len(archive)])

    def run(self, program, counters):
        process = start(program, self.tar, self.index, self.sparse)
        try:
            for counter in counters:
                process.stdin.write(struct.pack("=Q", counter))
            process.stdin.close()
        except BrokenPipeError:
            pass
        report = process.stdout.read()
        process.stdout.close()
        return process.wait(), report

    @property
    def words(self):
        return self.report.partition(b"\n")[0].decode().split()

    def mount(self, mount_point):
        sparse_bytes = int(self.words[4])
        assert os.path.getsize(self.index) == int(self.words[3])
        assert os.path.getsize(self.sparse) == sparse_bytes
        mount(self.index, [self.tar] + ([self.sparse] if sparse_bytes else []), mount_point)


def start(program, tar, index, sparse):
    return subprocess.Popen(
        ["sh", "-c", 'exec "$0" 3<"$1" 4<>"$2" 5<>"$3"', program, tar, index, sparse],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def unpack(program, archive, directory):
    """As layers.unpack, but that the directory is a mount point then."""
    with tempfile.TemporaryDirectory(prefix="davit-index-test-") as files:
        layer = Indexed(program, archive, files)
        words = layer.words
        if not words:
            raise AssertionError(f"no report, status {layer.status}")
        if words[0] == "failed":
            assert layer.status == 1
            return "failed", words[2], layer.report.partition(b"\n")[2].decode("ascii")
        assert layer.status == 0
        layer.mount(directory)
    return "ok", int(words[1]), int(words[2]), sorted(opaque_directories(directory))


def opaque_directories(top):
    pending = [(b"", os.open(top, os.O_RDONLY | os.O_DIRECTORY))]
    while pending:
        path, fd = pending.pop()
        if b"trusted.overlay.opaque" in map(os.fsencode, os.listxattr(fd)):
            yield path
        for entry in os.scandir(fd):
            if entry.is_dir(follow_symlinks=False):
                name = os.fsencode(entry.name)
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                pending.append((os.path.join(path, name), os.open(name, flags, dir_fd=fd)))
        os.close(fd)
