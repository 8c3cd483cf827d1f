"""Archives from strangers, each with the one result that is right.

An *attack* is an archive and either the listing of its tree (trees.py) or a pattern that the error
must match; the layer's digest is in every error, and its reason is INVALID_LAYER if no other is
named. corpus() makes them all. test_layer_attacks.py pulls them.

What is right is what the OCI image specification (layer.md) says and, where it is silent, what
Docker does; never a file outside the layer, and never a guess at what damaged bytes may have meant.
"""

import bz2
import dataclasses
import functools
import gzip
import lzma
import os
import re
import struct
import subprocess
import tempfile
import zlib

import images
from tars import (BLOCK, END, GNU, SPARSE_FORMS, V7, archive, block, char, directory, fifo, file,
                  gnu_long, hardlink, header, pad, pax, pax_global, pax_record, sparse_old_gnu,
                  sparse_pax_10, symlink, xattrs)

MIB = 1 << 20
DAMAGED = r"the archive is damaged after \d+ entries: \w"


@dataclasses.dataclass
class Attack:
    name: str
    entries: tuple  # bytes, or functions that make them: large ones are made when needed
    tree: dict = None  # or a function that is given the layer's directory
    error: str = None
    reason: str = "INVALID_LAYER"
    end: bytes = END
    compress: object = None  # makes the blob of the archive
    compression: str = "none"  # what the manifest says it is
    diff_id: str = None  # what the config says, if it is not the truth
    drivers: tuple = ("directory", "erofs")

    @functools.cached_property
    def layer(self):
        tar = b"".join(one() if callable(one) else one for one in self.entries) + self.end
        return images.Layer(tar, self.compress(tar) if self.compress else tar, self.compression)

    def image(self):
        honest = images.image([self.layer])
        if not self.diff_id:
            return honest
        lie = honest.config.replace(self.layer.diff_id.encode(), self.diff_id.encode())
        return images.image([self.layer], config_bytes=lie)


def attack(name, *entries, **fields):
    return Attack(name, entries, **fields)


def dirs(path):
    """The listing of a directory and those above it."""
    parts = path.strip("/").split("/")
    return {"/".join(parts[:count + 1]): "d" for count in range(len(parts))}


# --- Names ---------------------------------------------------------------------------------------


def names(canary):
    out = "leads out of the layer"
    evil = b"evil"
    yield attack("name-dotdot", file("../escape", evil), error=r'"\.\./escape" ' + out)
    yield attack("name-dotdot-deep", directory("a"), file("a/../../escape", evil), error=out)
    yield attack("name-dotdot-absolute", file("/../escape", evil), error=out)
    yield attack("name-dotdot-alone", directory(".."), error=out)
    yield attack("name-dotdot-to-canary", file("../../../../canary/file", evil), error=out)
    yield attack("name-dotdot-in-prefix", file("escape", evil, prefix=".."), error=out)
    yield attack("name-dotdot-by-pax", pax({"path": "../escape"}), file("harmless", evil),
                 error=out)
    yield attack("name-dotdot-by-gnu", gnu_long("x/../../escape"),
                 file("harmless", evil, magic=GNU), error=out)
    yield attack("name-dotdot-inside", directory("a"), symlink("l", "/a"), file("a/../b", b"1"),
                 file("l/../c", b"2"), tree={"a": "d", "l": "l -> /a", "b": "f '1'", "c": "f '2'"})
    yield attack("name-absolute", file(canary + "/file", evil), file("//double//slash", b"2"),
                 tree={**dirs(canary), canary.strip("/") + "/file": "f 'evil'", "double": "d",
                       "double/slash": "f '2'"})
    yield attack("name-backslash", file("..\\..\\escape", evil), file("C:\\x", evil),
                 tree={"..\\..\\escape": "f 'evil'", "C:\\x": "f 'evil'"})
    strange = [b"new\nline", b"tab\t", b"\x1b[31mred", b"latin-\xe9", b"\xff\xfe\xfd", b" ", b"-rf",
               b"*", b"\x7f", b"\xc0\xaf", b"\xed\xa0\x80", b"...", b"%2e%2e", b"~", b"lost+found",
               b"layer.tar", b"layer.erofs", b"fs", b"work"]
    yield attack("name-strange-bytes", *(file(one, b"1") for one in strange),
                 tree={one.decode("utf-8", "surrogateescape"): "f '1'" for one in strange})
    yield attack("name-strange-bytes-by-pax", *(pax({"path": one}) + file("x", b"1")
                                                for one in strange),
                 tree={one.decode("utf-8", "surrogateescape"): "f '1'" for one in strange})
    yield attack("name-binary-charset", pax({"hdrcharset": "BINARY", "path": b"\xff\xe9"}),
                 file("x", b"1"), tree={b"\xff\xe9".decode("utf-8", "surrogateescape"): "f '1'"})
    yield attack("name-two-of-one-look", file("\u00e9", b"1"), file("e\u0301", b"2"),
                 file("A", b"3"), file("a", b"4"),
                 tree={"\u00e9": "f '1'", "e\u0301": "f '2'", "A": "f '3'", "a": "f '4'"})
    yield attack("name-in-message", file(b"../\x1b[31m\n\"\\\xe9"),
                 error=re.escape(r'"../\x1b[31m\x0a\x22\x5c\xe9"'))
    yield attack("name-of-255", gnu_long("n" * 255), file("x", b"1", magic=GNU),
                 tree={"n" * 255: "f '1'"})
    yield attack("name-of-256", pax({"path": "d/" + "n" * 256}), file("x", b"1"),
                 error="File name too long")
    yield attack("name-fills-its-fields", file("n" * 100, b"1", prefix="p" * 155),
                 tree={"p" * 155: "d", "p" * 155 + "/" + "n" * 100: "f '1'"})
    long = "/".join(["d" * 255] * 15 + ["e" * 250] + ["f" * 4])
    assert len(long) == 4095
    yield attack("path-of-4095", pax({"path": long}), file("x", b"1"),
                 tree={**dirs(long), long: "f '1'"})
    yield attack("path-of-4096", pax({"path": long + "f"}), file("x", b"1"), error="4095 bytes")
    yield attack("path-of-a-megabyte", gnu_long("d/" * (MIB // 2 - 1)), file("x", magic=GNU),
                 error="4095 bytes")
    deep = "/".join("d" * 2047)
    yield attack("path-deep", pax({"path": deep + "/f"}), file("x", b"1"),
                 tree={**dirs(deep), deep + "/f": "f '1'"})
    yield attack("name-empty", file("", b"1"), error="no name")
    yield attack("name-empty-by-pax", pax({"path": ""}), file("x", b"1"), tree={"x": "f '1'"})
    yield attack("name-slash-at-end", file("v7/", magic=V7, kind=b"\0"), file("v7/f/"),
                 tree={"v7": "d 644", "v7/f": "d 644"})
    yield attack("name-slash-at-end-of-a-file", file("d/", b"data"), file("last"), error=DAMAGED)


def roots(_):
    why = "root of the layer"
    yield attack("root-is-a-link", symlink("./", "/etc"), file("passwd"), error=why)
    yield attack("root-is-a-hard-link", file("f"), hardlink(".", "f"), error=why)
    yield attack("root-is-a-file", file(".", b"1"), error=why)
    yield attack("root-is-a-device", char("a/.."), error=why)
    yield attack("root-with-no-rights", directory("./", mode=0, uid=5, gid=6), file("f", b"1"),
                 directory("/", mode=0o711, uid=7),
                 tree={".": "d 711 uid=7", "f": "f '1'"})


# --- Links ---------------------------------------------------------------------------------------


def links(canary):
    chain = [symlink("l0", "d")] + [symlink(f"l{one}", f"l{one - 1}") for one in range(1, 41)]
    chain_tree = {"d": "d", "l0": "l -> d"}
    chain_tree |= {f"l{one}": f"l -> l{one - 1}" for one in range(1, 41)}
    yield attack("link-absolute-then-file", symlink("l", canary), file("l/file", b"evil"),
                 error='"l/file"')
    yield attack("link-upwards-then-file", symlink("l", "../../../../canary"),
                 file("l/file", b"evil"), error='"l/file"')
    yield attack("link-to-proc", symlink("l", "/proc/self/root"), file("l/tmp/x", b"evil"),
                 error='"l/tmp/x"')
    yield attack("link-to-descriptor", symlink("l", "/proc/self/fd/3"), file("l/x", b"evil"),
                 error='"l/x"')
    yield attack("link-above-the-root", symlink("l", "../../.."), file("l/x", b"1"),
                 tree={"l": "l -> ../../..", "x": "f '1'"})
    yield attack("link-to-the-root", symlink("run", "/"), file("run/a/b", b"1"),
                 tree={"run": "l -> /", "a": "d", "a/b": "f '1'"})
    yield attack("link-through-links", directory("d"), symlink("a", "b/.."),
                 symlink("b", "d/../.."), symlink("c", "a/b/a"), file("c/x", b"1"),
                 tree={"d": "d", "a": "l -> b/..", "b": "l -> d/../..", "c": "l -> a/b/a",
                       "x": "f '1'"})
    yield attack("link-chain-of-40", directory("d"), *chain, file("l39/x", b"1"),
                 tree={**chain_tree, "d/x": "f '1'"})
    yield attack("link-chain-of-41", directory("d"), *chain, file("l40/x", b"1"),
                 error='"l40/x".*symbolic links')
    yield attack("link-loop", symlink("a", "b"), symlink("b", "a"), file("a/x"), error='"a/x"')
    yield attack("link-to-itself", symlink("a", "a"), directory("a/d"), error='"a/d"')
    yield attack("link-to-nothing", symlink("l", "nothing"), file("l/x"), error='"l/x"')
    yield attack("link-to-a-file", file("f"), symlink("l", "f"), file("l/x"),
                 error='"l/x".*Not a directory')
    yield attack("link-and-new-directories", directory("d"), symlink("l", "d"), file("l/n/x", b"1"),
                 tree={"d": "d", "l": "l -> d", "d/n": "d", "d/n/x": "f '1'"})
    yield attack("link-replaces-directory", directory("d"), file("d/1"), symlink("d", canary),
                 file("d/file", b"evil"), error='"d/file"')
    yield attack("link-replaces-directory-inside", directory("d"), file("d/1"), directory("e"),
                 symlink("d", "e"), file("d/2", b"2"),
                 tree={"e": "d", "d": "l -> e", "e/2": "f '2'"})
    yield attack("link-replaces-a-parent", directory("a"), directory("a/b"), file("a/b/1"),
                 directory("z"), symlink("a", "z"), file("a/b/2", b"2"),
                 tree={"z": "d", "a": "l -> z", "z/b": "d", "z/b/2": "f '2'"})
    yield attack("link-is-replaced", symlink("x", canary + "/file"), file("x", b"mine"),
                 symlink("y", canary), directory("y"), file("y/file", b"mine"),
                 symlink("z", canary + "/new"), fifo("z"),
                 tree={"x": "f 'mine'", "y": "d", "y/file": "f 'mine'", "z": "p"})
    yield attack("link-of-4095", pax({"linkpath": "t" * 4095}), symlink("l", "x"),
                 tree={"l": "l -> " + "t" * 4095})
    yield attack("link-of-4096", pax({"linkpath": "t" * 4096}), symlink("l", "x"), error='"l"')
    yield attack("link-to-empty", symlink("l", ""), error='"l" is a symlink to nothing')
    yield attack("link-of-strange-bytes", symlink("l", b"\n\x1b\xff/../\xe9"),
                 tree={"l": "l -> " + b"\n\x1b\xff/../\xe9".decode("utf-8", "surrogateescape")})


def hard_links(canary):
    out = "leads out of the layer"
    many = 70_000
    yield attack("hard-out", hardlink("h", "../../../../canary/file"), error='"h".*' + out)
    yield attack("hard-absolute", hardlink("h", canary + "/file"), file("h", b"evil"), error='"h"')
    yield attack("hard-out-through-link", symlink("l", canary), hardlink("h", "l/file"),
                 file("h", b"evil"), error='"h".*No such file')
    yield attack("hard-by-long-name", gnu_long("../" + "x" * 300, b"K"), hardlink("h", "f"),
                 error=out)
    yield attack("hard-by-pax", file("f"), pax({"linkpath": "../canary/file"}), hardlink("h", "f"),
                 error=out)
    yield attack("hard-to-later", hardlink("h", "f"), file("f"), error='"h".*No such file')
    yield attack("hard-cycle", hardlink("a", "b"), hardlink("b", "a"), error='"a".*No such file')
    yield attack("hard-to-itself", file("f", b"1"), hardlink("f", "./f"), tree={"f": "f '1'"})
    yield attack("hard-to-itself-missing", hardlink("f", "f"), error='"f".*No such file')
    yield attack("hard-to-directory", directory("d"), hardlink("h", "d"), error='"h"')
    yield attack("hard-to-root", hardlink("h", "/"), error='"h"')
    yield attack("hard-to-nothing", hardlink("h", ""), error='"h"')
    yield attack("hard-to-link", symlink("l", canary + "/file"), hardlink("h", "l"),
                 file("h", b"mine"), tree={"l": f"l -> {canary}/file", "h": "f 'mine'"})
    yield attack("hard-to-everything", file("f", b"1"), fifo("p"), char("c"), symlink("l", "x"),
                 *(hardlink("h" + one, one) for one in "fpcl"),
                 tree={"f": "f links=2 '1'", "hf": "f links=2 '1'", "p": "p links=2",
                       "hp": "p links=2", "c": "c 1:3 links=2", "hc": "c 1:3 links=2",
                       "l": "l links=2 -> x", "hl": "l links=2 -> x"})
    yield attack("hard-then-replaced", file("a", b"1"), hardlink("b", "a"), hardlink("c", "b"),
                 file("a", b"2"), tree={"a": "f '2'", "b": "f links=2 '1'", "c": "f links=2 '1'"})
    yield attack("hard-replaces-what-it-links", directory("d"), file("d/f"), hardlink("d", "d/f"),
                 error='"d".*No such file')
    yield attack("hard-replaces-file", file("a", b"1"), file("b", b"2"), hardlink("b", "a"),
                 tree={"a": "f links=2 '1'", "b": "f links=2 '1'"})
    yield attack("hard-with-other-fields", file("a", b"1"), hardlink("b", "a", mode=0o4777, uid=7,
                                                                     mtime=1),
                 tree={"a": "f links=2 '1'", "b": "f links=2 '1'"})
    yield attack("hard-through-parent-link", directory("d"), file("d/f", b"1"), symlink("l", "d"),
                 hardlink("l/h", "l/f"),
                 tree={"d": "d", "l": "l -> d", "d/f": "f links=2 '1'", "d/h": "f links=2 '1'"})
    yield attack("hard-beyond-the-file-system", file("f", b"1"),
                 lambda: b"".join(hardlink(f"h{one}", "f") for one in range(1, many)),
                 tree=functools.partial(check_many_links, many=many), error='"h.*Too many links')


def check_many_links(top, many):
    assert (top / "f").stat().st_nlink == many
    assert len(list(top.iterdir())) == many


# --- Whiteouts -----------------------------------------------------------------------------------


def whiteouts(canary):
    none = "whiteout of no name"
    for name in (".wh.", ".wh..", ".wh...", "d/.wh..."):
        yield attack("whiteout-of-" + name.replace("/", "-"), directory("d"), file(name),
                     error=re.escape(f'"{name}"') + ".*" + none)
    yield attack("whiteout-out", file(".wh.a/../../x"), error="leads out")
    yield attack("whiteout-out-through-link", symlink("l", canary), file("l/.wh.file"),
                 error='"l/file"|"l/.wh.file"')
    yield attack("whiteout-through-link", directory("d"), symlink("l", "d"), file("l/.wh.x"),
                 tree={"d": "d", "l": "l -> d", "d/x": "whiteout"})
    yield attack("whiteout-of-any-type", file(".wh.a", b"content" * 1000), directory(".wh.b/"),
                 symlink(".wh.c", canary), hardlink(".wh.d", "missing"), fifo(".wh.e"),
                 char(".wh.f"), file("last", b"1"),
                 tree={**{one: "whiteout" for one in "abcdef"}, "last": "f '1'"})
    yield attack("whiteout-by-pax", pax({"path": "d/.wh.etc"}), file("harmless"),
                 tree={"d": "d", "d/etc": "whiteout"})
    yield attack("whiteout-of-255", gnu_long(".wh." + "n" * 255), file("x", magic=GNU),
                 tree={"n" * 255: "whiteout"})
    yield attack("whiteout-of-256", gnu_long(".wh." + "n" * 256), file("x", magic=GNU),
                 error="File name too long")
    yield attack("whiteout-twice", file(".wh.x"), file(".wh.x"), tree={"x": "whiteout"})
    yield attack("whiteout-in-other-case", file(".WH.x", b"1"), file("a.wh.x", b"2"),
                 tree={".WH.x": "f '1'", "a.wh.x": "f '2'"})
    yield attack("whiteout-and-present", file(".wh.a"), file("a", b"1"), file("b", b"2"),
                 file(".wh.b"), file(".wh.d"), directory("d"), file("d/x", b"3"), directory("e"),
                 file("e/x", b"4"), file(".wh.e"),
                 tree={"a": "f '1'", "b": "f '2'", "d": "d opaque", "d/x": "f '3'",
                       "e": "d opaque", "e/x": "f '4'"})
    yield attack("whiteout-then-entry-inside", file(".wh.d"), file("d/x/y", b"1"),
                 tree={"d": "d opaque", "d/x": "d", "d/x/y": "f '1'"})
    yield attack("whiteout-inside-whiteout", file(".wh.d"), file("d/.wh.x"),
                 tree={"d": "d opaque", "d/x": "whiteout"})
    yield attack("whiteout-and-link", file(".wh.l"), symlink("l", "d"), directory("d"),
                 file(".wh.d"), file("l/x", b"1"),
                 tree={"l": "l -> d", "d": "d opaque", "d/x": "f '1'"})
    yield attack("whiteout-is-linked", file(".wh.x"), hardlink("h", "x"),
                 tree={"x": "whiteout", "h": "whiteout"})
    yield attack("whiteout-as-parent-name", file(".wh.d/x", b"1"),
                 tree={".wh.d": "d", ".wh.d/x": "f '1'"})
    yield attack("whiteout-forged-by-device", char("x", 0, 0), directory("d"), char("d", 0, 0),
                 char("e", 0, 0), directory("e"),
                 tree={"x": "whiteout", "d": "whiteout", "e": "d opaque"})
    yield attack("whiteout-forged-by-xattr",
                 xattrs({"trusted.overlay.whiteout": "y", "user.overlay.whiteout": "y"}), file("x"),
                 xattrs({"trusted.overlay.opaque": "x"}), directory("d"),
                 tree={"x": "f user.overlay.whiteout='y' ''", "d": "d"})


def opaque_marks(canary):
    mark = ".wh..wh..opq"
    yield attack("opaque-before-and-after", file("a/" + mark), directory("a", mode=0o700),
                 file("a/x", b"1"), directory("b"), file("b/x", b"2"), file("b/" + mark),
                 file("b/" + mark),
                 tree={"a": "d 700 opaque", "a/x": "f '1'", "b": "d opaque", "b/x": "f '2'"})
    yield attack("opaque-of-any-type", directory(f"a/{mark}/"), symlink("b/" + mark, canary),
                 file("c/" + mark, b"content" * 500), hardlink("d/" + mark, canary),
                 tree={one: "d opaque" for one in "abcd"})
    yield attack("opaque-root", file(mark), file("x", b"1"), tree={".": "d opaque", "x": "f '1'"})
    yield attack("opaque-out", file("../" + mark), error="leads out")
    yield attack("opaque-out-through-link", symlink("l", canary), file("l/" + mark),
                 error=re.escape(f'"l/{mark}"'))
    yield attack("opaque-in-a-file", file("f"), file("f/" + mark), error="Not a directory")
    yield attack("opaque-through-link", directory("d"), directory("e"), symlink("l", "d"),
                 file("l/" + mark), symlink("l", "e"),
                 tree={"d": "d opaque", "e": "d", "l": "l -> e"})
    yield attack("opaque-then-link", directory("d"), file("d/" + mark), directory("e"),
                 symlink("d", "e"), tree={"d": "l -> e", "e": "d"})
    yield attack("opaque-then-file", directory("d"), file("d/" + mark), file("d", b"1"),
                 tree={"d": "f '1'"})
    yield attack("opaque-and-whiteout", file("d/" + mark), file("d/.wh.x"), file("d/y", b"1"),
                 tree={"d": "d opaque", "d/x": "whiteout", "d/y": "f '1'"})
    yield attack("opaque-in-every-place", lambda: b"".join(file(f"d{one}/{mark}")
                                                           for one in range(3000)),
                 tree={f"d{one}": "d opaque" for one in range(3000)})
    yield attack("aufs-leftovers", directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", b"x"),
                 file(".wh..wh.aufs", b"y"), directory("d"), directory("d/.wh..wh.orph"),
                 file("x", b"1"), tree={"d": "d", "x": "f '1'"})
    yield attack("aufs-hard-link", directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", b"x"),
                 hardlink("h", ".wh..wh.plnk/1.2"), error='"h".*No such file')


# --- The same name twice -------------------------------------------------------------------------

KINDS = {
    "file": (lambda name: file(name, b"1", mode=0o600), {"": "f 600 '1'"}),
    "dir": (lambda name: directory(name, mode=0o700), {"": "d 700"}),
    "full": (lambda name: directory(name) + file(name + "/f", b"2") + directory(name + "/d") +
             symlink(name + "/l", "/"),
             {"": "d", "/f": "f '2'", "/d": "d", "/l": "l -> /"}),
    "link": (lambda name: symlink(name, "other"), {"": "l -> other"}),
    "hard": (lambda name: hardlink(name, "other/file"), {"": "f links=%d 'other'"}),
    "fifo": (fifo, {"": "p"}),
    "char": (lambda name: char(name, 5, 1), {"": "c 5:1"}),
    "block": (block, {"": "b 8:0"}),
    "whiteout": (lambda name: char(name, 0, 0), {"": "whiteout"}),
}


def twice(_):
    """All pairs: the last wins, but a directory stays for a directory."""
    entries, tree = [directory("other"), file("other/file", b"other")], {"other": "d"}
    linked = 1 + sum(second == "hard" for _ in KINDS for second in KINDS)
    tree["other/file"] = KINDS["hard"][1][""] % linked
    for first, (make_first, tree_first) in KINDS.items():
        for second, (make_second, tree_second) in KINDS.items():
            name = f"{first}-{second}"
            entries += [make_first(name), make_second(name)]
            below = dict(tree_second)
            if first == "full" and second == "dir":
                below = {**tree_first, **tree_second}
            if first == "whiteout" and second in ("dir", "full"):
                below[""] += " opaque"
            if second == "hard":
                below[""] %= linked
            tree.update({name + path: line for path, line in below.items()})
    yield attack("twice-all-pairs", *entries, tree=tree)
    yield attack("twice-content", *(file("f", b"x" * size) for size in (10_000, 0, 5, 600, 3)),
                 tree={"f": "f 'xxx'"})
    yield attack("twice-ten-thousand-times", lambda: file("f", b"1") * 10_000,
                 tree={"f": "f '1'"})
    yield attack("twice-by-another-path", directory("d"), symlink("l", "d"), file("d/f", b"1"),
                 file("l/f", b"2"), file("/d/./f/../f", b"3"),
                 tree={"d": "d", "l": "l -> d", "d/f": "f '3'"})
    yield attack("parent-is-a-file", file("f", b"1"), file("f/g"), error='"f/g".*Not a directory')
    yield attack("parent-is-a-fifo", fifo("p"), directory("p/d"), error='"p/d".*Not a directory')
    yield attack("parent-is-a-device", char("c"), file("c/x"), error='"c/x".*Not a directory')
    yield attack("parent-becomes-a-file", directory("d"), file("d/1"), file("d", b"1"), file("d/2"),
                 error='"d/2".*Not a directory')


# --- Nodes, types, owners, times -----------------------------------------------------------------


def nodes(_):
    largest = (4095, 1048575)
    yield attack("node-numbers", char("null"), block("sda"), char("large", *largest),
                 fifo("p", device=(9, 9)), char("minor", 1, 300),
                 tree={"null": "c 1:3", "sda": "b 8:0", "large": "c 4095:1048575", "p": "p",
                       "minor": "c 1:300"})
    yield attack("node-major-too-large", char("c", 4096, 0), error='"c"')
    yield attack("node-minor-too-large", char("c", 0, 1048576), error='"c"')
    yield attack("node-negative", char("c", -1, -1), error='"c"')
    yield attack("node-then-content", char("sda", 8, 0), file("sda", b"data"),
                 tree={"sda": "f 'data'"})
    yield attack("type-unknown", file("z", b"data", b"Z"), file("last", b"1"),
                 tree={"z": "f 'data'", "last": "f '1'"})
    yield attack("type-contiguous", file("c", b"data", b"7"), tree={"c": "f 'data'"})
    yield attack("type-socket-in-mode", file("s", b"1", mode=0o140644),
                 file("d", b"2", mode=0o40755), tree={"s": "f '1'", "d": "f 755 '2'"})
    yield attack("gnu-volume-label", file("volume", kind=b"V", magic=GNU), file("f", b"1"),
                 tree={"f": "f '1'"})
    yield attack("gnu-multi-volume", file("f", b"rest", kind=b"M", magic=GNU), file("g", b"1"),
                 error='"f" is of an unknown type')
    yield attack("gnu-dump-directory", file("d", b"Yf\0Dg\0\0", kind=b"D", magic=GNU),
                 file("d/f", b"1"), tree={"d": "d 644", "d/f": "f '1'"})
    yield attack("gnu-old-names", file("n", b"Rename a to ../b\n", kind=b"N", magic=GNU),
                 file("f", b"1"), tree={"n": r"f 'Rename a to ../b\n'", "f": "f '1'"})
    yield attack("solaris-acl", file("a", b"1000000\0user::rw-", kind=b"A"), file("f", b"1"),
                 tree={"f": "f '1'"})
    yield attack("solaris-pax", pax({"path": "real"}, b"X"), file("f", b"1"),
                 tree={"real": "f '1'"})
    yield attack("mode-with-all-bits", file("f", b"1", mode=0o7777777), tree={"f": "f 7777 '1'"})
    most = 2**32 - 2
    yield attack("owner-largest", file("f", b"1", uid=most, gid=most),
                 tree={"f": f"f uid={most} gid={most} '1'"})
    for name, uid in (("minus-one", 2**32 - 1), ("beyond", 2**40), ("negative", -1),
                      ("lowest", -2**55)):
        yield attack("owner-" + name, file("f", uid=uid), error='"f" has an owner out of range')
    yield attack("owner-by-pax-beyond", pax({"uid": "9" * 30}), file("f"),
                 error='"f" has an owner out of range')
    yield attack("owner-by-pax-negative", pax({"gid": "-5"}), file("f"),
                 error='"f" has an owner out of range')
    yield attack("owner-by-name", pax({"uname": "root", "gname": "0"}),
                 file("f", b"1", uid=5, user="root", group="../x"), tree={"f": "f uid=5 '1'"})


# --- Extended attributes -------------------------------------------------------------------------

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw, version 2
FORGED = ["trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.overlay.metacopy",
          "trusted.overlay.origin", "trusted.overlay.impure", "trusted.overlay.nlink",
          "trusted.overlay.upper", "trusted.overlay.uuid", "trusted.overlay.protattr",
          "trusted.overlay.overlay.opaque", "trusted.x", "security.selinux", "security.ima",
          "security.evm", "security.SMACK64", "security.apparmor", "security.", "security",
          "system.posix_acl_access", "system.posix_acl_default", "btrfs.compression", "xuser.a",
          "USER.a", "user", "", "os2.x"]


def attributes(_):
    forged = xattrs({name: "y" for name in FORGED} | {"user.ok": "y", "user.overlay.opaque": "y"})
    passed = "user.ok='y' user.overlay.opaque='y'"
    yield attack("xattr-forged", forged, file("f", b"1"), forged, directory("d"), forged,
                 symlink("l", "x"), forged, fifo("p"), forged, char("c"),
                 tree={"f": f"f {passed} '1'", "d": f"d {passed}", "l": "l -> x", "p": "p",
                       "c": "c 1:3"})
    yield attack("xattr-capability", xattrs({"security.capability": CAPABILITY}), file("f", b"1"),
                 tree={"f": f"f security.capability={repr(CAPABILITY)[1:]} '1'"})
    yield attack("xattr-capability-on-others",
                 *(xattrs({"security.capability": CAPABILITY}) + one
                   for one in (symlink("l", "x"), fifo("p"), char("c"))),
                 tree={"l": "l -> x", "p": "p", "c": "c 1:3"})
    for name, value in (("short", CAPABILITY[:-1]), ("long", CAPABILITY + bytes(8)),
                        ("version-1", bytes.fromhex("010000010020000000000000")),
                        ("version-9", b"\1\0\0\x09" + CAPABILITY[4:]), ("empty", b"")):
        yield attack("xattr-capability-" + name, xattrs({"security.capability": value}), file("f"),
                     error='"f".*xattr')
    yield attack("xattr-name-of-255", xattrs({"user." + "n" * 250: "1"}), file("f", b"1"),
                 tree={"f": "f user." + "n" * 250 + "='1' '1'"})
    yield attack("xattr-name-of-256", xattrs({"user." + "n" * 251: "1"}), file("f"),
                 error='"f".*xattr')
    yield attack("xattr-name-empty", xattrs({"user.": "1"}), file("f"), error='"f".*xattr')
    yield attack("xattr-values", xattrs({"user.a": b"\0=\n\xff", "user.b": b"", "user.c": "x=y=z"}),
                 file("f", b"1"),
                 tree={"f": r"f user.a='\x00=\n\xff' user.b='' user.c='x=y=z' '1'"})
    yield attack("xattr-twice", pax([("SCHILY.xattr.user.a", "1"), ("SCHILY.xattr.user.a", "2")]),
                 file("f", b"1"), tree={"f": "f user.a='2' '1'"})
    yield attack("xattr-many", xattrs({f"user.{one:03}": "v" for one in range(100)}),
                 file("f", b"1"),
                 tree={"f": "f " + " ".join(f"user.{one:03}='v'" for one in range(100)) + " '1'"})
    yield attack("xattr-too-many", lambda: xattrs({f"user.{one}": "" for one in range(1025)}),
                 file("f"), error='"f" has more than 1024 xattrs')
    too_much = '"f" has more than 64 KiB of xattrs'
    yield attack("xattr-bomb", xattrs({f"user.{one}": "v" * 7000 for one in range(10)}), file("f"),
                 error=too_much)
    yield attack("xattr-bomb-of-others",
                 xattrs({f"trusted.{one}": "v" * 7000 for one in range(10)}), file("f"),
                 error=too_much)
    yield attack("xattr-bomb-of-names", lambda: xattrs({f"user.{one}": "" for one in range(9000)}),
                 file("f"), error=too_much)
    yield attack("xattr-for-no-file",
                 pax({"SCHILY.acl.access": "user::rwx", "SCHILY.fflags": "sappnd", "\xe9": "\xe9",
                      "LIBARCHIVE.creationtime": "1", "LIBARCHIVE.xattr.trusted.x": "eQ==",
                      "comment": "x" * 5000}),
                 file("f", b"1"), tree={"f": "f 744 '1'"})  # an ACL has the mode in it


# --- PAX headers ---------------------------------------------------------------------------------


def pax_headers(_):
    good, f = {"f": "f 'data'"}, file("f", b"data")
    yield attack("pax-nul-in-path", pax({"path": b"f\0/../../evil"}), f, tree=good)
    for name, value in (("negative", "-1"), ("beyond-64-bit", "9" * 30), ("no-number", "x")):
        yield attack("pax-size-" + name, pax({"size": value}), f, error=DAMAGED)
    yield attack("pax-size-of-8-eib", pax({"size": str(2**63 - 1)}), f, error=DAMAGED)
    # Readers that differ here see different layers.
    yield attack("pax-size-hides-an-entry", pax({"size": "1024"}), file("f", size=0),
                 file("evil", b"evil"), file("last", b"1"),
                 tree=functools.partial(check_hidden, size=1024))
    yield attack("pax-size-shows-no-more", pax({"size": "4"}), file("f", b"data", size=1024),
                 file("last", b"1"), tree={"f": "f 'data'", "last": "f '1'"})
    yield attack("pax-time-garbage", pax({"mtime": "nan", "atime": "x", "ctime": "1e9"}), f,
                 tree=good | {"f": "f @0.000000000 'data'"})
    yield attack("pax-time-digits", pax({"mtime": "5." + "9" * 300}), f,
                 tree={"f": "f @5.999999999 'data'"})
    record = pax_record("path", "evil")
    for name, body in (("length-too-short", pax_record("path", "evil", 5)),
                       ("length-too-long", pax_record("path", "evil", 500)),
                       ("length-zero", b"0 path=evil\n"), ("length-missing", b"path=evil\n"),
                       ("length-negative", b"-13 path=evil\n"),
                       ("length-huge", b"99999999999999999999 path=evil\n"),
                       ("no-newline", record[:-1] + b"x"), ("no-equals", b"10 patheX\n"),
                       ("cut", record[:-4])):
        yield attack("pax-" + name, pax(body), f, error=DAMAGED)
    yield attack("pax-header-of-2-mib", lambda: pax({"comment": "x" * 2 * MIB}), f, error=DAMAGED)
    yield attack("pax-header-of-8-eib", header("x", b"x", 2**63 - 1), error=DAMAGED)
    yield attack("pax-header-negative", header("x", b"x", -1), error=DAMAGED)
    yield attack("pax-many-records", lambda: pax([(f"a.{one}", "") for one in range(60_000)]), f,
                 tree=good)
    yield attack("pax-on-pax", *[pax({"path": f"e{one}"}) for one in range(5000)], f, error=DAMAGED)
    yield attack("pax-without-entry", pax({"path": "x"}), error=DAMAGED)
    yield attack("pax-at-the-very-end", pax({"path": "x"}), end=b"", error=DAMAGED)
    yield attack("pax-link-for-a-file", pax({"linkpath": "/etc/passwd"}), f, tree=good)
    yield attack("pax-global", pax_global({"path": "../evil", "uid": "7", "mtime": "1",
                                           "linkpath": "/x", "SCHILY.xattr.user.a": "1"}),
                 f, file("g", b"1"), tree=good | {"g": "f '1'"})
    yield attack("pax-global-bomb", lambda: pax_global({"comment": "x" * 3 * MIB}), f,
                 error=DAMAGED)
    yield attack("pax-charset-unknown", pax({"hdrcharset": "EBCDIC", "path": "f"}), f, tree=good)


def gnu_headers(_):
    f = file("f", b"data", magic=GNU)
    yield attack("gnu-name-of-8-eib", header("././@LongLink", b"L", 2**63 - 1, magic=GNU),
                 error=DAMAGED)
    yield attack("gnu-name-of-2-mib", lambda: gnu_long("x" * 2 * MIB), f, error=DAMAGED)
    yield attack("gnu-name-negative", header("././@LongLink", b"L", -1, magic=GNU), error=DAMAGED)
    yield attack("gnu-name-empty", file("././@LongLink", b"", b"L", magic=GNU), f, error="no name")
    yield attack("gnu-name-cut-by-nul", gnu_long(b"a\0/../../evil"), f, tree={"a": "f 'data'"})
    yield attack("gnu-name-on-name", *[gnu_long(f"e{one}") for one in range(5000)], f,
                 error=DAMAGED)
    yield attack("gnu-name-twice", gnu_long("first"), gnu_long("second"), f,
                 tree={"second": "f 'data'"})
    yield attack("gnu-name-without-entry", gnu_long("x" * 200), error=DAMAGED)
    yield attack("gnu-name-and-pax", gnu_long("gnu"), pax({"path": "pax"}), f,
                 tree={"gnu": "f 'data'"})  # as Go's reader
    yield attack("gnu-link-for-a-file", gnu_long("/etc/passwd", b"K"), f, tree={"f": "f 'data'"})


def check_hidden(top, size):
    """Where a header and its PAX header disagree about the size, the latter counts."""
    assert sorted(one.name for one in top.iterdir()) == ["f", "last"]
    assert (top / "f").stat().st_size == size


# --- Sparse files --------------------------------------------------------------------------------


def sparse(_):
    size, good = 50_000, [(0, 100), (20_000, 100), (49_900, 100)]
    data = b"a" * 100 + b"b" * 100 + b"c" * 100
    content = b"a" * 100 + bytes(19_900) + b"b" * 100 + bytes(29_800) + b"c" * 100
    order, beyond = '"s" has data out of order', '"s" has data beyond its size'
    too_large = '"s" makes the layer larger than 16 TiB'
    for form, make in SPARSE_FORMS.items():
        yield attack(f"sparse-{form}", make("s", size, good, data), file("last", b"1"),
                     tree=functools.partial(check_content, name="s", content=content))
        for name, wrong_size, sparse_map, error in (
                ("negative", size, [(-512, 100)], DAMAGED),
                ("negative-size", -size, good, '"s" has a negative size'),
                ("beyond-its-size", 1000, [(5000, 300)], beyond),
                ("8-eib", 2**63 - 1, [(2**62, 300)], too_large),
                ("overflow", 2**63 - 1, [(2**63 - 100, 300)], f"{too_large}|{DAMAGED}"),
                ("overlapping", size, [(0, 200), (100, 100)], order),
                ("backwards", size, list(reversed(good)), order)):
            yield attack(f"sparse-{form}-{name}", make("s", wrong_size, sparse_map, data),
                         error=error)
        yield attack(f"sparse-{form}-short-of-data", make("s", 40_000, [(0, 30_000)], data),
                     tree=functools.partial(check_content, name="s",
                                            content=data + bytes(40_000 - len(data))))
        large = 1 << 33
        yield attack(f"sparse-{form}-of-8-gib", make("s", large, [(large - 300, 300)], data),
                     tree=functools.partial(check_large, size=large, end=data))
    yield attack("sparse-map-without-end", sparse_pax_10("s", size, [(0, 1)])[:-BLOCK],
                 lambda: b"0\n" * 100_000, error=DAMAGED)
    yield attack("sparse-map-that-lies", pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                                              "GNU.sparse.realsize": "100"}),
                 file("s", pad(b"99999999999\n0\n1\n") + data), error=DAMAGED)
    for stored, real in ((300, 1), (300, 299), (513, 512), (1, 0)):
        yield attack(f"sparse-of-{stored}-of-{real}",
                     pax({"GNU.sparse.realsize": str(real), "GNU.sparse.name": "s"}),
                     file("f", b"x" * stored), error=beyond)
    yield attack("sparse-of-unknown-version",
                 pax({"GNU.sparse.major": "9", "GNU.sparse.minor": "9"}), file("s", data),
                 error=DAMAGED)
    yield attack("sparse-extension-cut", sparse_old_gnu("s", size, [(one, 1) for one in range(30)])
                 [:BLOCK], end=b"", error=DAMAGED)
    segments = 1_000_000
    yield attack("sparse-of-a-million-segments",
                 lambda: sparse_pax_10("s", 2 * segments, [(2 * one, 1) for one in range(segments)],
                                       b"x" * segments),
                 tree=functools.partial(check_content, name="s", content=b"x\0" * segments))


def check_content(top, name, content):
    assert (top / name).read_bytes() == content


def check_large(top, size, end):
    with open(top / "s", "rb") as large:
        assert os.fstat(large.fileno()).st_size == size
        assert large.read(MIB) == bytes(MIB)
        large.seek(size - MIB)
        assert large.read() == bytes(MIB - len(end)) + end



# --- Where an archive ends -----------------------------------------------------------------------


def framing(_):
    f, tree = file("f", b"1"), {"f": "f '1'"}
    long = gnu_long("n" * 300)
    whole = f + pax({"path": "p"}) + file("x", b"x" * 700) + long + file("y", b"2", magic=GNU)
    at = {"in-a-header": 100, "in-a-checksum": 150, "before-the-last-byte-of-a-header": BLOCK - 1,
          "before-content": BLOCK, "in-content": BLOCK + 1, "in-a-pax-header": 2 * BLOCK + 50,
          "before-pax-records": 3 * BLOCK, "in-pax-records": 3 * BLOCK + 5,
          "after-pax-records": 4 * BLOCK, "in-content-later": 5 * BLOCK + 600,
          "before-a-long-name": 8 * BLOCK, "in-a-long-name": 8 * BLOCK + 100,
          "after-a-long-name": 9 * BLOCK}
    for where, cut in at.items():
        yield attack("cut-" + where, whole[:cut], end=b"", error="damaged|Truncated")
    yield attack("cut-in-padding", f[:-100], end=b"", error='"f" Truncated')
    yield attack("end-missing", f, end=b"", tree=tree)
    yield attack("end-of-one-block", f, end=bytes(BLOCK), tree=tree)
    yield attack("end-cut", f, end=bytes(700), tree=tree)
    yield attack("end-then-another-archive", f, END, file("evil"), tree=tree)
    yield attack("end-of-one-block-then-another-archive", f, bytes(BLOCK), file("evil"), tree=tree)
    yield attack("end-then-garbage", f, END, b"garbage" * 30_000, end=b"", tree=tree)
    yield attack("end-then-3-bytes", f, END, b"abc", end=b"", tree=tree)
    yield attack("empty", end=b"", tree={})
    yield attack("empty-with-end", tree={})
    yield attack("zeros-only", bytes(MIB), tree={})
    yield attack("zeros-less-than-a-block", end=bytes(100), error=DAMAGED)
    yield attack("one-byte", end=b"x", error=DAMAGED)
    yield attack("garbage-before", b"garbage!" * 64, f, error=DAMAGED)
    yield attack("garbage-between", f, b"garbage!" * 64, file("g"), error=DAMAGED)
    yield attack("garbage-of-a-header", file("f", b"1", b"\xff", mode=b"zzzzzzz\0",
                                             uid=b"\xff" * 8, mtime=b"x" * 12),
                 error='"f" has an owner out of range')
    yield attack("checksum-wrong", header("f", checksum=b"0000001\0"), error=DAMAGED)
    yield attack("checksum-wrong-later", f, header("g", checksum=b"0000001\0"), error=DAMAGED)
    yield attack("checksum-empty", header("f", checksum=bytes(8)), error=DAMAGED)
    signed = header("\xe9", b"5", mode=0o755)
    wrong = sum(signed) - sum(signed[148:156]) + 8 * 32 - 2 * 256
    yield attack("checksum-of-signed-bytes", directory("\xe9", checksum=b"%06o\0 " % wrong),
                 tree={"\xe9": "d"})
    for name, size in (("negative", -1), ("of-8-eib", 2**63 - 1), ("beyond-64-bit", 2**70),
                       ("negative-64-bit", -2**63)):
        yield attack("size-" + name, header("f", size=size), error=DAMAGED)
    yield attack("size-of-an-exbibyte", header("f", size=2**60), file("g"), error="16 TiB")
    yield attack("size-beyond-the-end", header("f", size=5000), b"x" * BLOCK, end=b"",
                 error="Truncated|truncated")
    yield attack("size-no-number", file("f", b"data", size=b"hello world\0"), error=DAMAGED)
    yield attack("size-of-what-has-none", directory("d", size=4), symlink("l", "x", size=4),
                 fifo("p", size=4), char("c", size=4), file("f", b"1"),
                 tree={"d": "d", "l": "l -> x", "p": "p", "c": "c 1:3", "f": "f '1'"})
    yield attack("size-of-a-directory-with-content", directory("d", size=4), pad(b"data"),
                 error=DAMAGED)
    yield attack("time-far", file("f", b"1", mtime=-2**31), file("g", b"2", mtime=2**33),
                 tree={"f": f"f @{-2**31}.000000000 '1'", "g": f"f @{2**33}.000000000 '2'"})


# --- Compression ---------------------------------------------------------------------------------


def zstd(data, *options):
    return subprocess.run(["zstd", "-q", "-c", *options], input=data, stdout=subprocess.PIPE,
                          check=True).stdout


def gzip_with_all_fields(data):
    """FTEXT, FHCRC, FEXTRA, FNAME and FCOMMENT."""
    head = b"\x1f\x8b\x08\x1f" + bytes(6) + struct.pack("<H", 4) + b"evil" + b"../../name\0" + \
        b"comment\0"
    head += struct.pack("<H", zlib.crc32(head) & 0xffff)
    deflate = zlib.compressobj(wbits=-15)
    return head + deflate.compress(data) + deflate.flush() + \
        struct.pack("<II", zlib.crc32(data), len(data))


def compression(_):
    invalid = {"reason": "INVALID_COMPRESSION", "error": "damaged|ends early"}
    not_tar = {"reason": "DIFF_ID_MISMATCH", "error": "not what the image says"}

    def packed(name, compress, media="gzip", **fields):
        fields = fields or {"tree": {"f": f"f {name!r}"}}
        return attack(name, file("f", name), compress=compress, compression=media, **fields)

    def packed_gzip(change):
        return lambda data: change(gzip.compress(data, mtime=0))

    yield packed("gzip-in-members", lambda data: gzip.compress(data[:100]) + gzip.compress(b"") +
                 gzip.compress(data[100:]))
    yield packed("gzip-with-all-fields", gzip_with_all_fields)
    yield packed("gzip-then-garbage", packed_gzip(lambda blob: blob + b"garbage"), **invalid)
    yield packed("gzip-then-zeros", packed_gzip(lambda blob: blob + bytes(512)), **invalid)
    yield packed("gzip-cut", packed_gzip(lambda blob: blob[:-4]), **invalid)
    yield packed("gzip-crc-wrong", packed_gzip(lambda blob: blob[:-8] + bytes(4) + blob[-4:]),
                 **invalid)
    yield packed("gzip-length-wrong", packed_gzip(lambda blob: blob[:-1] + b"\x55"), **invalid)
    yield packed("gzip-header-only", lambda _: b"\x1f\x8b", **invalid)
    yield packed("gzip-in-gzip", packed_gzip(gzip.compress), **not_tar)
    yield attack("gzip-in-gzip-as-told", lambda: gzip.compress(archive(file("f"))), end=b"",
                 compress=gzip.compress, compression="gzip", error=DAMAGED)
    yield packed("gzip-called-plain", gzip.compress, "none")
    yield packed("gzip-called-zstd", gzip.compress, "zstd")
    yield packed("zstd", zstd, "zstd")
    yield packed("zstd-called-gzip", zstd)
    yield packed("plain-called-gzip", None)
    yield packed("zstd-in-frames", lambda data: zstd(data[:700]) + b"\x50\x2a\x4d\x18" +
                 struct.pack("<I", 4) + b"skip" + zstd(data[700:]), "zstd")
    yield packed("zstd-cut", lambda data: zstd(data)[:-3], "zstd", **invalid)
    yield packed("zstd-then-garbage", lambda data: zstd(data) + b"garbage", "zstd", **invalid)
    yield packed("zstd-window-of-2-gib", lambda data: zstd(data, "--ultra", "--long=31"), "zstd",
                 **invalid)
    yield packed("zstd-of-a-dictionary", lambda data: b"\x28\xb5\x2f\xfd\x23\x01\0\0\0" +
                 zstd(data)[6:], "zstd", **invalid)
    yield packed("xz", lzma.compress, reason="INVALID_COMPRESSION",
                 error="xz compression is not supported")
    yield packed("bzip2", bz2.compress, reason="INVALID_COMPRESSION",
                 error="bzip2 compression is not supported")
    yield packed("lzma", functools.partial(lzma.compress, format=lzma.FORMAT_ALONE), **not_tar)
    yield packed("zlib", zlib.compress, **not_tar)
    # Members and frames of zeros: more than 1 GiB, and than 200 times the blob.
    bomb = {"error": "inflates to more than", "end": b""}
    zeros = bytes(16 * MIB)
    yield attack("bomb-of-gzip", b"gzip", compress=lambda _: 65 * gzip.compress(zeros),
                 compression="gzip", drivers=("erofs",), **bomb)
    yield attack("bomb-of-zstd", b"zstd", compress=lambda _: 65 * zstd(zeros), compression="zstd",
                 drivers=("directory",), **bomb)


# --- What is no tar archive ----------------------------------------------------------------------


def formats(_):
    """In files of these formats is one called "evil"."""
    for name in ("7zip", "ar", "arbsd", "bin", "newc", "odc", "mtree", "raw", "shar", "warc", "xar",
                 "zip"):
        yield attack("format-" + name, functools.partial(foreign_archive, name), end=b"",
                     error=DAMAGED)
    # It begins with zeros, which end a tar archive.
    yield attack("format-iso9660", functools.partial(foreign_archive, "iso9660"), end=b"", tree={})
    yield attack("format-script", b"#!/bin/sh\nrm -rf /\n" * 100, end=b"", error=DAMAGED)
    yield attack("format-text", b"hello world\n" * 100, end=b"", error=DAMAGED)
    yield attack("format-rar", b"Rar!\x1a\x07\x01\x00" + bytes(1000), end=b"", error=DAMAGED)
    yield attack("format-cab", b"MSCF" + bytes(1000), end=b"", error=DAMAGED)
    yield attack("format-lha", b"\x20\x00-lh0-" + bytes(1000), end=b"", error=DAMAGED)
    yield attack("format-uuencode", b"begin 644 evil\n#86)C\n`\nend\n" + bytes(1000), end=b"",
                 error=DAMAGED)


def foreign_archive(name):
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "evil"), "w") as out:
            out.write("evil")
        return subprocess.run(["bsdtar", "--format", name, "-cf", "-", "evil"], cwd=directory,
                              stdout=subprocess.PIPE, check=True).stdout


# --- Promises that are not kept, and masses ------------------------------------------------------


def lies(_):
    yield attack("diff-id-of-another", file("f"), diff_id="sha256:" + "1" * 64,
                 reason="DIFF_ID_MISMATCH", error="layer sha256:111111111111")
    yield attack("diff-id-of-the-blob", file("f"), compress=gzip.compress, compression="gzip",
                 diff_id="sha256:" + "2" * 64, reason="DIFF_ID_MISMATCH",
                 error="layer sha256:222222222222")


def masses(_):
    many = 100_000
    # Links, which are removed faster than files; of two files, as ext4 has 65,000 links to each.
    yield attack("mass-in-one-directory", file("even"), file("odd"),
                 lambda: b"".join(hardlink(f"d/{one}", "odd" if one % 2 else "even")
                                  for one in range(many)),
                 compress=functools.partial(gzip.compress, compresslevel=1), compression="gzip",
                 tree=functools.partial(check_mass, many=many))
    yield attack("mass-of-directories", lambda: b"".join(directory(f"{one}/{one}/{one}")
                                                         for one in range(2000)),
                 tree=functools.partial(check_mass, many=2000, below="."))


def check_mass(top, many, below="d"):
    names = os.listdir(top / below)
    assert len(names) == many and set(names) == {str(one) for one in range(many)}


def corpus(canary):
    areas = (names, roots, links, hard_links, whiteouts, opaque_marks, twice, nodes, attributes,
             pax_headers, gnu_headers, sparse, framing, compression, formats, lies, masses)
    made = [one for area in areas for one in area(canary)]
    assert len({one.name for one in made}) == len(made)
    return made
