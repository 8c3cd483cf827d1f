"""A layer as each storage driver mounts it is what GNU tar makes of its archive: names, types,
modes, owners, times, xattrs, links, devices and contents. And a stack of layers is what overlayfs
makes of such trees.

DAVIT_TEST_DEBIAN=full takes a whole Debian (debootstrap's minbase, kept in /var/tmp) in place of a
few packages' files.
"""

import contextlib
import functools
import os
import pathlib
import random
import shutil
import subprocess
import tempfile

import pytest
import sample_trees
import tars
import trees
from conftest import Davit, _scratch_base as scratch_base

# What a shell's layer and the runtime put over the root.
COVERED = (b"bin", b"dev", b"etc", b"home", b"proc", b"root", b"sys", b"tmp", b"usr/bin",
           b"var/tmp")
DEBIAN_PACKAGES = ["base-files", "bash", "coreutils", "dash", "debianutils", "dpkg", "libc-bin",
                   "libc6", "libcrypt1", "mount", "passwd", "perl-base", "util-linux"]
MODULES = pathlib.Path("/usr/lib/node_modules/npm"), pathlib.Path("/usr/share/nodejs")


@pytest.fixture(scope="module", params=trees.DRIVERS)
def daemon(request):
    with trees.daemon_with(request.param) as made:
        yield made


@contextlib.contextmanager
def workshop(base=None):
    path = pathlib.Path(tempfile.mkdtemp(prefix="davit-layers-", dir=base or scratch_base()))
    try:
        yield path
    finally:
        subprocess.run(["rm", "-rf", path], check=True)


def with_expected(archives, base=None):
    """{what: (archive, the tree that GNU tar makes of it)}. Made once for both drivers."""
    samples = {}
    for what, archive in archives.items():
        with workshop(base) as directory:
            trees.gnu_extract(archive, directory)
            samples[what] = archive, trees.snapshot(directory)
    return samples


def assert_equal_to_gnu_tar(daemon, registry, name, samples, compression="none"):
    """The archives become the layers of one image."""
    archives = [archive for archive, _ in samples.values()]
    with trees.viewing(daemon, registry, name, archives, compression) as view:
        for (what, (_, expected)), layer in zip(samples.items(), view.layers):
            trees.assert_same(trees.snapshot(layer), expected, what)


# --- Dialects ------------------------------------------------------------------------------------


def bsdtar(tree, kind):
    return subprocess.run(["bsdtar", "--format", kind, "--numeric-owner", "-C", tree, "-cf", "-",
                           "."], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True).stdout


def python_tar(tree, kind):
    """In a process of its own: it is given directories too deep for their paths to be opened."""
    script = ("import os, sys, tarfile; os.chdir(sys.argv[1]); "
              "tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=int(sys.argv[2]), "
              "encoding='utf-8', errors='surrogateescape').add('.')")
    return subprocess.run(["/usr/bin/python3", "-c", script, tree, str(kind)],
                          stdout=subprocess.PIPE, check=True).stdout


@functools.cache
def dialects():
    archives = {}
    with workshop("/dev/shm") as tree:  # where each file may have any time and xattr
        sample_trees.make_plain(tree)
        archives["v7"] = trees.gnu_create(tree, "--format=v7")
        sample_trees.add_nodes(tree)
        archives["ustar"] = trees.gnu_create(tree, "--format=ustar")
        archives["bsdtar ustar"] = bsdtar(tree, "ustar")
        archives["python ustar"] = python_tar(tree, 0)
        sample_trees.add_long(tree)
        for kind in ("oldgnu", "gnu"):
            archives["gnu tar " + kind] = trees.gnu_create(tree, "--format=" + kind)
        archives["bsdtar gnutar"] = bsdtar(tree, "gnutar")
        archives["python gnu"] = python_tar(tree, 1)
        archives["python pax"] = python_tar(tree, 2)
        sample_trees.add_rich(tree)
        archives["gnu tar pax"] = trees.gnu_create(tree, *trees.PAX_WITH_XATTRS)
        archives["bsdtar pax"] = bsdtar(tree, "pax")
    return with_expected(archives)


def test_dialects(daemon, registry):
    assert_equal_to_gnu_tar(daemon, registry, "layers/dialects", dialects())


def test_what_the_file_system_below_could_not_hold(daemon, registry):
    """EROFS holds more than ext4, which is what the other driver unpacks to."""
    if daemon.driver != "erofs":
        return
    with workshop("/dev/shm") as tree:
        sample_trees.add_far(tree)
        archive = trees.gnu_create(tree, *trees.PAX_WITH_XATTRS)
    assert_equal_to_gnu_tar(daemon, registry, "layers/far",
                            with_expected({"far": archive}, "/dev/shm"))


@functools.cache
def sparse():
    with workshop("/dev/shm") as tree:
        sample_trees.make_sparse(tree)
        archives = {"gnu": trees.gnu_create(tree, "--sparse", "--format=gnu"),
                    "bsdtar": bsdtar(tree, "pax")}
        for version in ("0.0", "0.1", "1.0"):
            archives["pax " + version] = trees.gnu_create(
                tree, "--sparse", "--format=posix", "--sparse-version=" + version)
    assert max(map(len, archives.values())) < 10 << 20
    return with_expected(archives)


def test_sparse_files(daemon, registry):
    assert_equal_to_gnu_tar(daemon, registry, "layers/sparse", sparse())


def test_headers_as_go_writes_them(daemon, registry):
    """Docker's layers: PAX headers only where they are needed, and then with fields left at 0."""
    def go(name, records, **fields):
        records = sorted(records.items())
        base = os.path.join(os.path.dirname(name), "PaxHeaders.0", os.path.basename(name))
        head = tars.pax(records, name=base.encode("ascii", "ignore"), mode=0, mtime=0)
        return head + tars.file(name.encode("ascii", "ignore"), **fields)

    large = 3_000_000_000
    archive = tars.archive(
        tars.directory("./"), tars.directory("d/"),
        tars.file("d/plain", b"1", user="root", group="root"),
        go("d/\u00fcml\u00e4ut", {"path": "d/\u00fcml\u00e4ut"}, data=b"2"),
        go("d/" + "n" * 200, {"path": "d/" + "n" * 200}, data=b"3"),
        go("d/owner", {"uid": str(large), "gid": str(large + 1)}, data=b"4"),
        go("d/time", {"mtime": "1700000000.123456789", "atime": "1", "ctime": "2.5"}, data=b"5"),
        go("d/time-cut", {"mtime": "1700000000.5"}, data=b"6"),
        go("d/xattrs", {"SCHILY.xattr.security.capability": sample_trees.CAPABILITY_2,
                        "SCHILY.xattr.user.a=b": "c", "SCHILY.xattr.user.z": b"\0\n="}, data=b"7"),
        go("d/link", {"linkpath": "d/\u00fcml\u00e4ut", "path": "d/link"}, kind=tars.HARDLINK),
        go("d/symlink", {"linkpath": "\u00fc" * 200}, kind=tars.SYMLINK, mode=0o777),
        tars.char("d/null", 1, 3, mode=0o666), tars.fifo("d/fifo"))
    assert_equal_to_gnu_tar(daemon, registry, "layers/go", with_expected({"Go": archive}), "gzip")


# --- Trees that people have ----------------------------------------------------------------------


@functools.cache
def debian():
    return with_expected({"debian": debian_archive()})["debian"]


def debian_archive():
    if os.environ.get("DAVIT_TEST_DEBIAN") == "full":
        cached = pathlib.Path("/var/tmp/davit-test-debian.tar")
        if not cached.exists():
            with tempfile.TemporaryDirectory(dir="/var/tmp") as root:
                subprocess.run(["debootstrap", "--variant=minbase", "stable", root], check=True)
                cached.write_bytes(trees.gnu_create(root, *trees.PAX_WITH_XATTRS))
        return cached.read_bytes()
    listed = subprocess.run(["dpkg-query", "-L", *DEBIAN_PACKAGES], stdout=subprocess.PIPE,
                            text=True, check=False).stdout.split("\n")
    names = {"."}
    for path in listed:
        if not path.startswith("/") or not os.path.lexists(path) or path == "/.":
            continue
        # Not through the links of a merged /usr, which come before what they lead to.
        path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        while path != "/":
            names.add("." + path)
            path = os.path.dirname(path)
    return subprocess.run(["tar", "--numeric-owner", "--no-recursion", *trees.PAX_WITH_XATTRS,
                           "-C", "/", "-cf", "-", "-T", "-"], stdout=subprocess.PIPE, check=True,
                          input="\n".join(sorted(names)).encode()).stdout


def test_debian(daemon, registry):
    archive, expected = debian()
    assert len(expected) > 1500
    with trees.viewing(daemon, registry, "layers/debian", [archive], "gzip") as view:
        trees.assert_same(trees.snapshot(view.layers[0]), expected, "the layer")
        root = trees.snapshot(view.root, COVERED)
        trees.assert_same({path: root.get(path) for path in expected if not covered(path)},
                          {path: item for path, item in expected.items() if not covered(path)},
                          "the container's root")
        run = Davit(daemon)("run", "--rm", view.reference, "/usr/bin/perl", "-e", "print 6 * 7")
        assert run.stdout == "42"


def covered(path):
    return path in (b".", b"usr", b"var") or \
        any(path == one or path.startswith(one + b"/") for one in COVERED)


@functools.cache
def node_modules():
    top = next(one for one in MODULES if one.exists())
    return with_expected({"GNU tar": trees.gnu_create(top), "bsdtar": bsdtar(top, "pax")})


def test_node_modules(daemon, registry):
    """Many small files; scopes, and links of programs."""
    assert_equal_to_gnu_tar(daemon, registry, "layers/npm", node_modules(), "zstd")


# --- Stacks --------------------------------------------------------------------------------------


class History:
    """A file system that changes, and the layers that Docker would make of its changes."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.tree = {"t": {"kind": "dir", "mode": 0o755, "mtime": tars.MTIME}}
        self.clock = tars.MTIME
        self.count = 0

    def layer(self):
        self.before = dict(self.tree)
        self.entries, self.opaque, self.gone, self.links = {}, set(), set(), {}
        self._set("t", self.tree["t"])
        changes = [self._add_file, self._add_file, self._add_dir, self._add_dir, self._add_link,
                   self._add_hard_links, self._remove, self._change, self._change_dir,
                   self._replace, self._empty, self._rename]
        for _ in range(25):
            self.random.choice(changes)()
        return self._archive()

    # --- Changes

    def _name(self):
        self.count += 1
        return self.random.choice(["", ".", "x" * 80, "\u00e9"]) + f"n{self.count}"

    def _pick(self, kinds, removable=True):
        """With removable neither the top nor any directory that much is in."""
        found = [path for path, node in self.tree.items() if node["kind"] in kinds and
                 (not removable or
                  path != "t" and sum(one.startswith(path + "/") for one in self.tree) < 5)]
        return self.random.choice(found) if found else None

    def _new_path(self):
        return self._pick(["dir"], removable=False) + "/" + self._name()

    def _tick(self):
        self.clock += self.random.randrange(1, 1000)
        return self.clock

    def _node(self, kind, **more):
        mode = self.random.choice([0o755, 0o700, 0o1777] if kind == "dir" else
                                  [0o644, 0o600, 0o4755, 0o444])
        return {"kind": kind, "mode": 0o777 if kind == "link" else mode, "mtime": self._tick(),
                "uid": self.random.choice([0, 0, 1000, 70_000]), **more}

    def _set(self, path, node):
        """Its directories are in the layer, too."""
        self.tree[path] = self.entries[path] = node
        self.gone.discard(path)
        above = os.path.dirname(path)
        if above and above not in self.entries:
            self.tree[above] = {**self.tree[above], "mtime": self._tick()}
            self._set(above, self.tree[above])

    def _drop(self, path):
        for known in (self.tree, self.entries, self.links):
            for one in [one for one in known if one == path or one.startswith(path + "/")]:
                del known[one]
        self.opaque = {one for one in self.opaque if one != path and not one.startswith(path + "/")}
        self.gone = {one for one in self.gone if not one.startswith(path + "/")}
        self.links = {link: first for link, first in self.links.items() if first in self.entries}

    def _add_file(self):
        data = self.random.randbytes(self.random.choice([0, 1, 100, 5000]))
        self._set(self._new_path(), self._node("file", data=data))

    def _add_dir(self):
        self._set(self._new_path(), self._node("dir"))

    def _add_link(self):
        target = self.random.choice(["nothing", "/t", "..", self._pick(["file", "dir"]) or "."])
        self._set(self._new_path(), self._node("link", target=target))

    def _add_hard_links(self):
        node = self._node("file", data=self._name().encode())
        first = self._new_path()
        self._set(first, node)
        for _ in range(self.random.randrange(1, 4)):
            path = self._new_path()
            self._set(path, node)
            self.links[path] = first

    def _remove(self):
        path = self._pick(["file", "dir", "link"])
        if path:
            self._drop(path)
            self.gone.add(path)
            self._touch(os.path.dirname(path))

    def _touch(self, path):
        self.entries.pop(path, None)
        self._set(path, {**self.tree[path], "mtime": self._tick()})

    def _change(self):
        path = self._pick(["file"])
        if path and path not in self.links and path not in self.links.values():
            self._set(path, self._node("file", data=b"changed" * self.random.randrange(900)))

    def _change_dir(self):
        self._set(self._pick(["dir"], removable=False), self._node("dir"))

    def _replace(self):
        """By something of another type."""
        path = self._pick(["file", "dir", "link"])
        if not path:
            return
        kinds = {"file", "dir", "link"} - {self.tree[path]["kind"]}
        self._drop(path)
        kind = self.random.choice(sorted(kinds))
        self._set(path, self._node(kind, **{"file": {"data": b"replaced"}, "dir": {},
                                            "link": {"target": "replaced"}}[kind]))
        if kind == "dir" and self.before.get(path, {}).get("kind") == "dir":
            self.opaque.add(path)  # what it was before has to be hidden
        self._touch(os.path.dirname(path))

    def _empty(self):
        path = self._pick(["dir"])
        if path:
            self._drop(path)
            self._set(path, self._node("dir"))
            self.opaque.add(path)

    def _rename(self):
        path, to = self._pick(["file", "link"]), self._new_path()
        if path:
            node = self.tree[path]
            self._drop(path)
            self.gone.add(path)
            self._touch(os.path.dirname(path))
            self._set(to, node)

    # --- Layers

    def _archive(self):
        parts = []
        # A whiteout of nothing is one, too: overlayfs lists it in directories that are one layer's.
        for path in sorted(self.gone & self.before.keys()):
            above, name = os.path.split(path)
            parts.append(tars.pax({"path": f"{above}/.wh.{name}"}) + tars.file("x"))
        for path in sorted(self.opaque):
            parts.append(tars.pax({"path": f"{path}/.wh..wh..opq"}) + tars.file("x"))
        for path in sorted(self.entries, key=lambda one: (one in self.links, one)):
            parts.append(self._entry(path, self.entries[path], self.links.get(path)))
        return tars.archive(*parts)

    def _entry(self, path, node, linked):
        fields = {"mode": node["mode"], "uid": node.get("uid", 0)}
        head = tars.pax({"path": path, "mtime": f"{node['mtime']}.5",
                         "SCHILY.xattr.user.time": str(node["mtime"])})
        if linked:
            return tars.pax({"path": path, "linkpath": linked}) + tars.hardlink("x", "x", **fields)
        if node["kind"] == "dir":
            return head + tars.directory("x", **fields)
        if node["kind"] == "link":
            return tars.pax({"path": path, "mtime": f"{node['mtime']}.5"}) + \
                tars.symlink("x", node["target"], **fields)
        return head + tars.file("x", node["data"], **fields)


def overlay_form(top):
    """Turns the whiteouts that GNU tar unpacked into overlayfs's."""
    for above, _, names in os.walk(top):
        for name in names:
            path = os.path.join(above, name)
            if not name.startswith(".wh."):
                continue
            times = os.stat(above)
            os.unlink(path)
            if name == ".wh..wh..opq":
                os.setxattr(above, "trusted.overlay.opaque", b"y")
            else:
                hidden = os.path.join(above, name.removeprefix(".wh."))
                os.mknod(hidden, 0o020000, os.makedev(0, 0))
                os.utime(hidden, ns=(0, 0))
            os.utime(above, ns=(times.st_atime_ns, times.st_mtime_ns))


def apply(archive, top, unpacked):
    """The layer upon a plain tree: what each removes goes first."""
    def remove(path):
        if os.path.islink(path) or not os.path.isdir(path):
            pathlib.Path(path).unlink(missing_ok=True)
        else:
            shutil.rmtree(path)

    for above, directories, names in os.walk(unpacked):
        below = os.path.join(top, os.path.relpath(above, unpacked))
        for name in names:
            if name == ".wh..wh..opq" and os.path.isdir(below):
                remove(below)
                os.mkdir(below)
        for name in names:
            remove(os.path.join(below, name.removeprefix(".wh.")))
        for name in directories:
            path = os.path.join(below, name)
            if os.path.islink(os.path.join(above, name)) or not os.path.isdir(path) or \
                    os.path.islink(path):
                remove(path)
    trees.gnu_extract(archive, top, "--exclude=.wh.*")


@functools.cache
def stack(seed):
    """Archives, the tree of each, and what overlayfs and what a plain tree make of all."""
    history = History(seed)
    archives = [history.layer() for _ in range(40)]
    with workshop() as directory:
        flat, merged = directory / "flat", directory / "merged"
        flat.mkdir()
        merged.mkdir()
        layers = []
        for number, archive in enumerate(archives):
            unpacked = directory / str(number)
            unpacked.mkdir()
            trees.gnu_extract(archive, unpacked)
            apply(archive, flat, unpacked)
            overlay_form(unpacked)
            layers.append(trees.snapshot(unpacked))
        lower = ":".join(str(number) for number in reversed(range(len(archives))))
        subprocess.run(["mount", "-t", "overlay", "none", "-o", f"lowerdir={lower}", merged],
                       cwd=directory, check=True)
        try:
            return archives, layers, trees.snapshot(merged / "t"), trees.snapshot(flat / "t")
        finally:
            subprocess.run(["umount", merged], check=True)


def without(tree, *keys):
    return {path: {key: value for key, value in item.items() if key not in keys}
            for path, item in tree.items()}


@pytest.mark.parametrize("seed", range(int(os.environ.get("DAVIT_TEST_STACKS", "1"))))
def test_a_stack_of_40_layers(daemon, registry, seed):
    archives, layers, merged, flat = stack(seed)
    assert len(flat) > 100
    with trees.viewing(daemon, registry, f"layers/stack{seed}", archives, "gzip") as view:
        for number, (layer, expected) in enumerate(zip(view.layers, layers)):
            tree = trees.snapshot(layer)
            tree[b"."] = expected[b"."]  # it has no entry
            trees.assert_same(tree, expected, f"layer {number}")
        root = trees.snapshot(view.root / "t")
    trees.assert_same(root, merged, "the overlay")
    # A file that a layer replaced leaves its links in the layers below with one name less.
    trees.assert_same(without(root, "links", "same as"), without(flat, "links", "same as"),
                      "the overlay and a plain tree")
