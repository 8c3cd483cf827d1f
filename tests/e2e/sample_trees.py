"""Trees to make layers of, with every kind of entry and the edges of what can be said of one.

make_plain() is what every dialect of tar can say; the others add what only some can.
"""

import os
import random
import stat

CAPABILITY_2 = bytes.fromhex("0100000200200000000000000000000000000000")
CAPABILITY_3 = bytes.fromhex("010000030020000000000000000000000000000039300000")  # root is 12345
SECOND = 10**9
HUGE = 5 << 30  # sparse, beyond 32 bits


class Maker:
    """Makes things below a directory; names may be bytes."""

    def __init__(self, top):
        self.top = os.fsencode(top)

    def path(self, name):
        return self.top + b"/" + os.fsencode(name)

    def file(self, name, data=b"", mode=0o644):
        with open(self.path(name), "wb") as out:
            out.write(data)
        os.chmod(self.path(name), mode)
        return self.path(name)

    def directory(self, name, mode=0o755):
        os.mkdir(self.path(name))
        os.chmod(self.path(name), mode)
        return self.path(name)

    def set_times(self, name, ns):
        os.utime(self.path(name), ns=(ns, ns), follow_symlinks=False)


def make_plain(top):
    """Names up to 99 bytes; owners up to 2^21; no FIFOs and devices."""
    make = Maker(top)
    os.chmod(top, 0o751)
    for size in (0, 1, 511, 512, 513, 4095, 4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1):
        make.file(f"size-{size}", random.Random(size).randbytes(size))
    make.file("zeros", bytes(100_000))
    for mode in (0, 0o111, 0o444, 0o644, 0o755, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777):
        make.file(f"mode-{mode:o}", b"x")
        os.chown(make.path(f"mode-{mode:o}"), 12, 34)
        os.chmod(make.path(f"mode-{mode:o}"), mode)
        make.directory(f"dir-{mode:o}")
        make.file(f"dir-{mode:o}/inside", b"x")
        make.directory(f"dir-{mode:o}/sub")
        os.chown(make.path(f"dir-{mode:o}"), 56, 78)
        os.chmod(make.path(f"dir-{mode:o}"), mode)
        for name in ("inside", "sub"):  # a directory with set-group-id has given them its group
            os.chown(make.path(f"dir-{mode:o}/{name}"), 0, 0)
            os.chmod(make.path(f"dir-{mode:o}/{name}"), 0o755)
    for owner in (1, 65534, 65535, 65536, 2097151):
        os.chown(make.file(f"owner-{owner}"), owner, owner)
    for name, target in {"link": "size-1", "link-absolute": "/absolute/target",
                         "link-up": "../../up", "link-dot": ".", "link-loop": "link-loop"}.items():
        os.symlink(target, make.path(name))
    os.chown(make.path("link-up"), 7, 8, follow_symlinks=False)
    make.directory("hard")
    for number in range(100):
        os.makedirs(make.path(f"hard/{number % 7}"), exist_ok=True)
        os.link(make.path("size-513"), make.path(f"hard/{number % 7}/{number}"))
    os.link(make.path("link-up"), make.path("hard-of-link"), follow_symlinks=False)
    for name in (b"caf\xc3\xa9", b"latin-\xe9", b"e\xcc\x81", b"new\nline", b"back\\slash", b" ",
                 b"-dash", b"*", b"#", b"\xff\xfe", b"\xf0\x9f\x90\xb3", b".hidden", b"..."):
        make.file(name, name)
    for byte in set(range(1, 256)) - set(b"/."):
        make.file(b"byte-%c" % byte)
    for count in range(0, 64, 7):
        _fill_directory(make, f"fill-{count}", count, 8)
    _fill_directory(make, "fill-large", 600, 50)
    os.makedirs(make.path("a/b/c/d/e/f/g/h"))
    for number, name in enumerate(("size-1", "link-absolute", "a/b", "dir-1777", "size-512")):
        make.set_times(name, (1_000_000_000 + number) * SECOND)
    for name, seconds in {"zero": 0, "one": 1, "2038": 2**31 - 1, "after-2038": 2**31,
                          "2106": 2**32, "before-2242": 2**33 - 1}.items():
        make.file(f"time-{name}")
        make.set_times(f"time-{name}", seconds * SECOND)
    # Last, as what is made in a directory changes its time.
    for name in ("fill-0", "fill-large", "hard", "."):
        make.set_times(name, 1_234_567_890 * SECOND)


def _fill_directory(make, name, count, length):
    """Sizes of directories that fill blocks exactly, nearly and more than that."""
    make.directory(name)
    for number in range(count):
        os.link(make.path("size-0"), make.path(f"{name}/" + str(number).rjust(length, "n")))


def add_nodes(top):
    """What is neither file nor directory nor link."""
    make = Maker(top)
    os.mkfifo(make.path("fifo"), 0o640)
    os.chmod(make.path("fifo"), 0o640)
    os.link(make.path("fifo"), make.path("hard-of-fifo"))
    for kind, letter in ((stat.S_IFCHR, "c"), (stat.S_IFBLK, "b")):
        for major, minor in ((1, 3), (8, 0), (7, 200), (1, 256), (255, 255), (256, 0),
                             (259, 70_000), (4095, 1_048_575), (0, 1), (1, 0)):
            name = f"{letter}-{major}-{minor}"
            os.mknod(make.path(name), kind | 0o620, os.makedev(major, minor))
            os.chmod(make.path(name), 0o620)
            os.chown(make.path(name), 0, 5)
    os.link(make.path("c-1-3"), make.path("hard-of-device"))


def add_long(top):
    """Names, links and paths up to their limits."""
    make = Maker(top)
    for length in (100, 101, 155, 156, 254, 255):
        make.file("n" * length, b"long")
        os.link(make.path("n" * length), make.path("h" * length))
    for length in (100, 101, 255, 256, 511, 512, 513, 4000, 4094, 4095):
        os.symlink("t" * length, make.path(f"link-{length}"))
    for length in range(1, 700, 23):  # those short enough lie beside their inodes
        os.symlink("s" * length, make.path(f"short-link-{length}"))
    fd = os.open(make.top, os.O_RDONLY)
    for _ in range(15):
        os.mkdir("d" * 255, dir_fd=fd)
        below = os.open("d" * 255, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.mkdir("e" * 244, dir_fd=fd)
    os.close(os.open("e" * 244 + "/" + "f" * 8, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
    os.symlink("s" * 4095, "e" * 244 + "/" + "l" * 8, dir_fd=fd)
    os.close(fd)


def add_rich(top):
    """What only PAX headers can say: parts of seconds, times before 1970, large owners, xattrs."""
    make = Maker(top)
    for name, ns in {"ns": 1_234_567_890_123_456_789, "one-ns": 1, "last-ns": 999_999_999,
                     "before": -365 * 86400 * SECOND, "before-ns": -1_500_000_000,
                     "1901": -(2**31) * SECOND, "2242": 2**33 * SECOND + 7}.items():
        make.file(f"time-{name}")
        make.directory(f"time-dir-{name}")
        os.symlink("x", make.path(f"time-link-{name}"))
        for kind in ("", "dir-", "link-"):
            make.set_times(f"time-{kind}{name}", ns)
    for owner in (2097152, 2**31 - 1, 2**31, 2**32 - 2):
        os.chown(make.file(f"owner-{owner}"), owner, 2**32 - 2 - owner)
    for number in range(40):  # the same for many, so that they may be stored once
        os.setxattr(make.file(f"xattr-shared-{number}"), "user.shared", b"shared value" * 9)
        os.setxattr(make.path(f"xattr-shared-{number}"), "user.own", b"%d" % number)
    os.setxattr(make.file("xattr"), "user.empty", b"")
    os.setxattr(make.path("xattr"), "user.binary", bytes(range(256)))
    os.setxattr(make.file("xattr-large"), "user.large", b"v" * 3000)
    os.setxattr(make.file("xattr-long-name"), "user." + "n" * 250, b"1")
    for number in range(60):
        os.setxattr(make.file("xattr-many") if not number else make.path("xattr-many"),
                    f"user.number.{number}", b"x" * number)
    os.setxattr(make.directory("xattr-dir"), "user.dir", b"d")
    for name, value in (("2", CAPABILITY_2), ("3", CAPABILITY_3)):
        os.chown(make.file(f"capability-{name}", b"#!", 0o755), 12, 34)
        os.setxattr(make.path(f"capability-{name}"), "security.capability", value)


def add_far(top):
    """What not every file system can hold, and ext4 cannot."""
    make = Maker(top)
    for name, seconds in {"2446": 2**34, "33658": 10**12, "1833": -2**32, "end": 2**40,
                          "begin": -2**40}.items():
        make.file(f"far-{name}")
        make.set_times(f"far-{name}", seconds * SECOND + 123)
    os.setxattr(make.file("far-xattr"), "user.largest", b"x" * 65000)
    for number in range(1024):
        os.setxattr(make.file("far-xattrs") if not number else make.path("far-xattrs"),
                    f"user.{number:04}", b"v")


def make_sparse(top):
    make = Maker(top)
    shapes = {"hole-first": [(1 << 20, b"end")], "hole-last": [(0, b"start")], "only-hole": [],
              "many": [(number * 65536, b"x" * 100) for number in range(60)],
              "blocks": [(number * 8192, b"y" * 4096) for number in range(30)]}
    for name, pieces in shapes.items():
        _write_pieces(make.file(name), pieces, 5 << 20)
    _write_pieces(make.file("huge"), [(0, b"first"), ((1 << 32) - 3, b"across"),
                                      (HUGE - 4, b"last")], HUGE)
    make.file("dense", b"not sparse at all")


def _write_pieces(path, pieces, size):
    with open(path, "r+b") as out:
        for offset, data in pieces:
            out.seek(offset)
            out.write(data)
        out.truncate(size)
