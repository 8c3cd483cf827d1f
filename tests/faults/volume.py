"""File systems of a test's own, and what a power cut leaves of one.

Nouns: a *volume* is an ext4 on a loop device; a *disk* is a volume on a disk with a volatile write
cache, which remembers all that was written to it and when it was flushed (disk.c); a *position* is
a moment of its life; a *cut* is what it holds after losing power at a position: everything up to the
last flush that it had answered by then, and of what was written after that, any part.
"""

import contextlib
import fcntl
import os
import pathlib
import struct
import subprocess

from e2e_conftest import BIN_DIR, mounts_below, start, wait_until

# No write-back on rename by ext4 itself: what is to be durable has to be synced.
MOUNT_OPTIONS = "loop,noauto_da_alloc,nodiscard"
BLOCK = 4096
RECORD = struct.Struct("<c3xIQ")  # struct record of disk.c
EXT4_IOC_SHUTDOWN = 0x8004587D
SHUTDOWN_WITHOUT_LOG_FLUSH = 2


def run(*command):
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def make_file_system(image, size_mib, inodes=None):
    with open(image, "wb") as out:
        out.truncate(size_mib << 20)
    run("mkfs.ext4", "-q", "-m", "0", "-E", "nodiscard,lazy_itable_init=0",
        *(["-N", inodes] if inodes else []), image)


def loop_devices(directory):
    """Those whose files lie in a directory."""
    found = []
    for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if path.read_text().startswith(f"{directory}/"):
                found.append(path.parts[3])
    return found


class Volume:
    """Mounted at `path` from the beginning."""

    def __init__(self, directory, size_mib=128, inodes=None):
        self.image = directory / "image"
        self.path = directory / "mounted"
        self.path.mkdir()
        make_file_system(self.image, size_mib, inodes)
        self.mount(self.image)

    @property
    def data_root(self):
        return self.path / "data"

    def mount(self, image):
        run("mount", "-t", "ext4", "-o", MOUNT_OPTIONS, image, self.path)

    def _unmount(self):
        """With all that a killed daemon has left mounted below."""
        for point in reversed(mounts_below(self.path)):
            run("umount", point)

    def unmount(self):
        """For another mount, which would else get the loop device of this one, with its cache: that
        goes a little later, once no other mount namespace has a copy of the mount either."""
        self._unmount()
        wait_until(lambda: not loop_devices(self.path.parent), "the loop device to go")

    def shut_down(self):
        """As if the disk had been pulled out: nothing that is not on it will be."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", SHUTDOWN_WITHOUT_LOG_FLUSH))
        finally:
            os.close(fd)

    def free_bytes(self):
        state = os.statvfs(self.path)
        return state.f_bfree * state.f_frsize

    def close(self):
        self._unmount()


class Disk(Volume):
    def __init__(self, directory, size_mib=128):
        self.path = directory / "mounted"
        self.path.mkdir()
        self.image = directory / "image"
        self.log = directory / "writes"
        self.durable = directory / "durable"  # the disk at `reached`, for cuts
        self.remains = directory / "remains"  # the newest cut
        self.served = directory / "served"
        self.served.mkdir()
        make_file_system(self.image, size_mib)
        copy_sparse(self.image, self.durable)
        self.records = None
        self.reached = 0
        self.server = start([BIN_DIR.parent / "tests" / "fault-disk", self.served, self.image,
                             self.log], stdout=subprocess.PIPE)
        assert self.server.stdout.readline() == b"ready\n"
        self.mount(self.served / "disk")

    def position(self):
        return self.log.stat().st_size

    def end(self):
        """Ends recording, as of now; the volume is no longer mounted then."""
        position = self.position()
        self.unmount()
        run("umount", self.served)
        assert self.server.wait() == 0
        self.server.stdout.close()
        self.server = None
        self._read_log(position)

    def _read_log(self, until):
        """(position after it, kind, offset on the disk, place of its data in the log, size)"""
        self.records = []
        with open(self.log, "rb") as log:
            position = 0
            while position < until:
                kind, size, offset = RECORD.unpack(log.read(RECORD.size))
                data = position + RECORD.size
                position = data + size
                log.seek(position)
                self.records.append((position, kind, offset, data, size))

    def flushes(self):
        return [position for position, kind, *_ in self.records if kind == b"F"]

    def cut(self, position, chance, keep=None):
        """Mounts what is left after a power cut at a position, not before that of the last cut. Of
        each block that was not flushed, `keep` is the probability that it is kept."""
        if keep is None:
            keep = chance.choice((0, 0.5, 0.9, 1))
        past = [record for record in self.records[self.reached:] if record[0] <= position]
        flushed = max((number + 1 for number, record in enumerate(past) if record[1] == b"F"),
                      default=0)
        with open(self.log, "rb") as log:
            with open(self.durable, "r+b") as image:
                self._apply(log, image, past[:flushed], lambda: True)
            self.reached += flushed
            copy_sparse(self.durable, self.remains)
            with open(self.remains, "r+b") as image:
                self._apply(log, image, past[flushed:], lambda: chance.random() < keep)
        self.mount(self.remains)

    @staticmethod
    def _apply(log, image, records, kept):
        for _, kind, offset, place, size in records:
            for start_of in range(0, size, BLOCK) if kind == b"W" else ():
                if kept():
                    data = os.pread(log.fileno(), min(BLOCK, size - start_of), place + start_of)
                    os.pwrite(image.fileno(), data, offset + start_of)

    def check(self):
        """That the file system itself is sound, by e2fsck; unmounts."""
        self.unmount()
        run("e2fsck", "-fn", self.remains)

    def close(self):
        self._unmount()
        if self.server:
            run("umount", "-l", self.served)
            self.server.kill()
            self.server.wait()
            self.server.stdout.close()


def copy_sparse(source, target):
    run("cp", "--sparse=always", source, target)


