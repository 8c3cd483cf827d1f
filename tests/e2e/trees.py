"""Trees of files: exactly what is in one, what GNU tar makes of an archive, and what a daemon does.

Nouns: a *tree* is {path: item} of everything below a directory; an *item* is a dict of all that
must be the same in two trees; a *listing* is a tree as lines short enough to be written into a
test; a *view* shows the layers of an image as the daemon's driver mounts them.

Trees are walked by descriptor: their paths may be longer than the kernel takes in one piece.
"""

import contextlib
import hashlib
import os
import pathlib
import stat
import subprocess

import images
import tars
from conftest import REPOSITORY, WAIT_SECONDS, Daemon, Davit, _make_scratch

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
READ_WHOLE_MAX = 64 << 20
SAMPLE = 1 << 16
SHORT_MAX = 40
KINDS = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFCHR: "c",
         stat.S_IFBLK: "b", stat.S_IFIFO: "p"}
MTIME_NS = tars.MTIME * 10**9
DRIVERS = ("directory", "erofs")


# --- Looking at a tree ---------------------------------------------------------------------------


def walk(top):
    """(path, stat, name or None for the directory itself, descriptor of its directory) of
    everything; the top has the path b"."."""
    fd = os.open(top, OPEN_DIRECTORY)
    pending = [(b".", fd)]
    try:
        while pending:
            path, fd = pending.pop()
            yield path, os.fstat(fd), None, fd
            for name in sorted(map(os.fsencode, os.listdir(fd))):
                below = os.stat(name, dir_fd=fd, follow_symlinks=False)
                full = name if path == b"." else path + b"/" + name
                if stat.S_ISDIR(below.st_mode):
                    pending.append((full, os.open(name, OPEN_DIRECTORY, dir_fd=fd)))
                else:
                    yield full, below, name, fd
            os.close(fd)
            fd = None
    finally:
        for fd in [fd] * (fd is not None) + [one for _, one in pending]:
            with contextlib.suppress(OSError):
                os.close(fd)


def snapshot(top, skip=()):
    """The tree. Left out: times of access and of change, which an archive does not set, and what is
    in `skip`, paths."""
    tree, names = {}, {}
    for path, st, name, fd in walk(top):
        if any(path == one or path.startswith(one + b"/") for one in skip):
            continue
        mode = st.st_mode
        item = {"kind": KINDS[stat.S_IFMT(mode)], "mode": f"{stat.S_IMODE(mode):04o}",
                "owner": (st.st_uid, st.st_gid), "mtime": st.st_mtime_ns, "links": st.st_nlink}
        if name is None:
            item["xattrs"] = _xattrs(fd)
        else:
            names.setdefault((st.st_dev, st.st_ino), []).append(path)
            item["xattrs"] = _xattrs_of(name, fd, mode)
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            item["device"] = (os.major(st.st_rdev), os.minor(st.st_rdev))
        elif stat.S_ISLNK(mode):
            item["target"] = os.fsencode(os.readlink(name, dir_fd=fd))
        elif stat.S_ISREG(mode):
            item["size"] = st.st_size
            item["content"] = _content(name, fd, st.st_size)
        tree[path] = item
    for paths in names.values():
        for path in paths:
            tree[path]["same as"] = sorted(paths)
    return tree


def _xattrs(fd):
    return {name: os.getxattr(fd, name) for name in os.listxattr(fd)}


def _xattrs_of(name, dir_fd, mode):
    if stat.S_ISREG(mode):
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=dir_fd)
        try:
            return _xattrs(fd)
        finally:
            os.close(fd)
    # Neither links nor devices can be opened for it.
    path = b"/proc/self/fd/%d/%s" % (dir_fd, name)
    return {key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)}


def _content(name, dir_fd, size):
    """The content if it is short, else a digest. Of large files, which are mostly holes, a digest
    of parts."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        if size <= SHORT_MAX:
            return os.read(fd, SHORT_MAX + 1)
        digest = hashlib.sha256()
        if size <= READ_WHOLE_MAX:
            while data := os.read(fd, 1 << 20):
                digest.update(data)
        else:
            for offset in sampled_offsets(size):
                digest.update(os.pread(fd, SAMPLE, offset))
        return digest.hexdigest()
    finally:
        os.close(fd)


def sampled_offsets(size):
    """Where large files are compared: around powers of two, at the end, and regularly."""
    around = [1 << power for power in range(12, 44) if 1 << power < size] + [0, size]
    return sorted({max(0, one - SAMPLE // 2) for one in around} |
                  {size // 256 * part for part in range(256)})


def assert_same(ours, theirs, what):
    """That two trees are equal; says in which items they are not."""
    missing, added = sorted(theirs.keys() - ours.keys()), sorted(ours.keys() - theirs.keys())
    assert not missing and not added, f"{what}: missing {missing[:5]}, added {added[:5]}"
    different = [f"{path}: {key}: {ours[path].get(key)!r}, not {theirs[path].get(key)!r}"
                 for path in sorted(theirs) for key in sorted(ours[path].keys() | theirs[path])
                 if ours[path].get(key) != theirs[path].get(key)]
    assert not different, f"{what}: {len(different)} differences:\n" + "\n".join(different[:20])


# --- Listings ------------------------------------------------------------------------------------


def listing(top):
    """{path: line}: kind, then whatever is not as usual (0644, 0755 for directories, 0777 for
    links, root's, of tars.MTIME; directories' times and link counts are left out), then what it
    holds. "f 'text'", "d 1777", "l -> target", "c 5:1 600 uid=7", "whiteout", "d opaque". The top
    is listed if it is not "d"."""
    lines = {}
    for path, item in snapshot(top).items():
        line = _line(item)
        if path != b"." or line != "d":
            lines[path.decode("utf-8", "surrogateescape")] = line
    return lines


def _line(item):
    kind, attributes = item["kind"], dict(item["xattrs"])
    if kind == "c" and item["device"] == (0, 0):
        return "whiteout"
    words = [kind]
    if "device" in item:
        words.append("%d:%d" % item["device"])
    usual = {"d": "0755", "l": "0777"}.get(kind, "0644")
    if item["mode"] != usual:
        words.append(item["mode"].lstrip("0") or "0")
    words += [f"{what}={value}" for what, value in zip(("uid", "gid"), item["owner"]) if value]
    if kind != "d":
        if item["links"] != 1:
            words.append(f"links={item['links']}")
        if item["mtime"] != MTIME_NS:
            words.append(f"@{item['mtime'] // 10**9}.{item['mtime'] % 10**9:09d}")
    elif attributes.pop("trusted.overlay.opaque", None) == b"y":
        words.append("opaque")
    words += [f"{key}={_short(value)}" for key, value in sorted(attributes.items())]
    if kind == "l":
        words += ["->", item["target"].decode("utf-8", "surrogateescape")]
    if kind == "f":
        words.append(_short(item["content"]) if item["size"] <= SHORT_MAX else
                     f"<{item['size']} bytes>")
    return " ".join(words)


def _short(value):
    return repr(value)[1:] if len(value) <= SHORT_MAX else f"<{len(value)} bytes>"


# --- What other programs make of an archive ------------------------------------------------------


def gnu_extract(archive, directory, *options):
    """What GNU tar makes of it, as root would want it; of xattrs those that layers may have."""
    subprocess.run(["tar", "--numeric-owner", "--same-owner", "--delay-directory-restore", "-xpf",
                    "-", "--xattrs", "--xattrs-include=user.*",
                    "--xattrs-include=security.capability", "--warning=no-timestamp",
                    "--warning=no-unknown-keyword", *options, "-C", directory],
                   input=archive, check=True)


def gnu_create(directory, *options):
    return subprocess.run(["tar", "--numeric-owner", "-C", directory, "-cf", "-", *options, "."],
                          stdout=subprocess.PIPE, check=True).stdout


PAX_WITH_XATTRS = ("--format=posix", "--xattrs", "--xattrs-include=*")


# --- What a daemon makes of it -------------------------------------------------------------------


# Should the unpacker ever let go of its archive, it must not be the machine that pays: the daemon
# and all it starts see every file system but their own directory read-only, or do not start.
CONFINE = """set -e
mount --bind "$0" "$0"
mount -o remount,bind,ro /
while read -r _ _ _ _ point _; do
    case $point in / | "$0" | "$0"/* | /proc | /proc/* | /sys | /sys/* | /dev | /dev/pts) ;;
    *) mount -o remount,bind,ro "$point" 2>/dev/null || true ;;
    esac
done </proc/self/mountinfo
if touch /davit-test-probe 2>/dev/null; then
    echo "the root is writable: not started" >&2
    exit 1
fi
exec "$@"
"""


@contextlib.contextmanager
def daemon_with(driver):
    """A running daemon in a mount namespace of its own; checked and removed at the end."""
    root = _make_scratch()
    (root / "daemon.json").write_text("{}")
    daemon = Daemon(root, "--config-file", root / "daemon.json", "--storage-driver", driver,
                    prefix=("unshare", "--mount", "--propagation", "private", "sh", "-c", CONFINE,
                            root))
    daemon.driver = driver
    try:
        daemon.start()
        assert_confined(daemon)
        yield daemon
    finally:
        try:
            daemon.stop()
        finally:
            # Trees deeper than Python's own removal goes.
            subprocess.run(["rm", "-rf", daemon.data_root], check=True)
            daemon.finish()


def assert_confined(daemon):
    """The root that the daemon sees is read-only, but for its own directory."""
    seen = pathlib.Path(f"/proc/{daemon.pid}/root")
    for path in ("/", "/tmp", "/var/tmp", "/etc", REPOSITORY):
        assert os.statvfs(f"{seen}{path}").f_flag & os.ST_RDONLY, path
    assert not os.statvfs(f"{seen}{daemon.root}").f_flag & os.ST_RDONLY


class View:
    """The layers of an image, bottom first, as a container of it has them: overlayfs's lower
    directories; and `root`, what it makes of them."""

    def __init__(self, daemon, reference, diff_ids):
        self.daemon = daemon
        self.reference = reference
        self.layers = [self._layer(one.removeprefix("sha256:")) for one in diff_ids]
        (self.root,) = self._seen(daemon.exec_root / "containers").glob("*/rootfs")

    def _seen(self, path):
        """As in the daemon's mount namespace."""
        return pathlib.Path(f"/proc/{self.daemon.pid}/root{path}")

    def _layer(self, hexadecimal):
        if self.daemon.driver == "directory":
            return self._seen(self.daemon.data_root / "layers" / hexadecimal / "fs")
        return self._seen(self.daemon.data_root / "mnt" / hexadecimal)


SHELL_LAYER = images.layer(images.busybox_entries(), "none")


@contextlib.contextmanager
def viewing(daemon, registry, name, archives, compression="none"):
    """A View of the archives as layers of one image below a shell's, while a container runs."""
    layers = [images.layer(one, compression) for one in archives] + [SHELL_LAYER]
    reference = registry.push(name, images.image(layers))
    davit = Davit(daemon)
    davit("pull", "-q", reference, timeout=4 * WAIT_SECONDS)
    process = davit.start("run", "--rm", "-i", reference, "sh", "-c", "echo runs; cat",
                          stdin=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "runs\n", process.stderr.read()
        yield View(daemon, reference, [one.diff_id for one in layers[:-1]])
    finally:
        process.communicate(timeout=WAIT_SECONDS)
    davit("rmi", reference)
