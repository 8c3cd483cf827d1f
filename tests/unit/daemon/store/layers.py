"""Archives to unpack, and trees to compare. Trees are walked by descriptor: their paths may be
longer than the kernel takes in one piece."""
import hashlib
import io
import os
import stat
import subprocess
import tarfile

import indexed

OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def is_indexer(program):
    return program.endswith("davit-index")


def unpack(program, archive, directory):
    """Runs an unpacker, or the indexer and mounts what it makes; returns its report: ("ok",
    content_bytes, entries, opaque paths) or ("failed", reason, message)."""
    if is_indexer(program):
        return indexed.unpack(program, archive, directory)
    run = subprocess.run(["sh", "-c", 'exec "$0" 3<"$1"', program, directory],
                         input=archive, stdout=subprocess.PIPE, check=False)
    line, _, rest = run.stdout.partition(b"\n")
    words = line.decode().split()
    if not words:
        raise AssertionError(f"no report, status {run.returncode}")
    if words[0] == "ok":
        assert run.returncode == 0
        opaque = sorted(rest.split(b"\0")[:-1])
        return "ok", int(words[1]), int(words[2]), opaque
    assert run.returncode == 1
    return "failed", words[2], rest.decode("ascii")


def snapshot(directory, times=True):
    """Everything about every name below a directory, but which inode numbers it got."""
    tree, inodes = {}, {}
    top = os.open(directory, OPEN_DIR)
    pending = [(b".", top)]
    while pending:
        path, fd = pending.pop()
        tree[path] = describe(path, os.fstat(fd), None, fd, inodes, times)
        for name in os.listdir(fd):
            name = os.fsencode(name)
            st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            full = path + b"/" + name
            if stat.S_ISDIR(st.st_mode):
                pending.append((full, os.open(name, OPEN_DIR, dir_fd=fd)))
            else:
                tree[full] = describe(full, st, name, fd, inodes, times)
        os.close(fd)
    # Names of one inode belong together.
    for paths in inodes.values():
        for path in paths:
            tree[path]["same_inode"] = sorted(paths)
    return tree


def describe(path, st, name, dir_fd, inodes, times):
    mode = st.st_mode
    item = {"type": stat.S_IFMT(mode), "mode": oct(stat.S_IMODE(mode)), "uid": st.st_uid,
            "gid": st.st_gid}
    if times:
        item["mtime"] = st.st_mtime_ns
    if not stat.S_ISDIR(mode):
        item["nlink"] = st.st_nlink
        inodes.setdefault((st.st_dev, st.st_ino), []).append(path)
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        item["device"] = (os.major(st.st_rdev), os.minor(st.st_rdev))
    if stat.S_ISLNK(mode):
        item["target"] = os.readlink(name, dir_fd=dir_fd)
    if stat.S_ISREG(mode):
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=dir_fd)
        item["size"] = st.st_size
        if st.st_size <= 1 << 26:
            with open(fd, "rb", closefd=False) as file:
                item["sha256"] = hashlib.sha256(file.read()).hexdigest()
        item["xattrs"] = xattrs(fd)
        os.close(fd)
    elif stat.S_ISDIR(mode):
        item["xattrs"] = xattrs(dir_fd)
    return item


def xattrs(fd):
    """But for the mark of opaque directories, which davit-untar does not set itself."""
    return {name: os.getxattr(fd, name) for name in os.listxattr(fd)
            if name != "trusted.overlay.opaque"}


def gnu_extract(archive, directory):
    subprocess.run(["tar", "--numeric-owner", "--same-owner", "-xp", "--xattrs",
                    "--xattrs-include=user.*", "--xattrs-include=security.capability",
                    "-f", "-", "-C", directory], input=archive, check=True)


class Tar:
    """A tar archive in the making."""

    def __init__(self, **options):
        self.buffer = io.BytesIO()
        options = {"format": tarfile.PAX_FORMAT, "encoding": "utf-8", "errors": "surrogateescape",
                   **options}
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", **options)

    def add(self, name, kind=tarfile.REGTYPE, data=b"", link="", **fields):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, len(data)
        info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        for key, value in fields.items():
            setattr(info, key, value)
        self.tar.addfile(info, io.BytesIO(data))
        return self

    def file(self, name, data=b"", **fields):
        return self.add(name, tarfile.REGTYPE, data, **fields)

    def dir(self, name, **fields):
        return self.add(name, tarfile.DIRTYPE, **fields)

    def symlink(self, name, target, **fields):
        return self.add(name, tarfile.SYMTYPE, link=target, **fields)

    def hardlink(self, name, target, **fields):
        return self.add(name, tarfile.LNKTYPE, link=target, **fields)

    def fifo(self, name, **fields):
        return self.add(name, tarfile.FIFOTYPE, **fields)

    def device(self, name, major=1, minor=3, **fields):
        return self.add(name, tarfile.CHRTYPE, devmajor=major, devminor=minor, **fields)

    def bytes(self):
        self.tar.close()
        return self.buffer.getvalue()
