"""Archives from strangers: an exact tree or an exact error, nothing outside, memory bounded."""
import os
import resource
import stat
import struct
import subprocess
import tarfile

import pytest

from layers import Tar, is_indexer, snapshot, unpack

SANITIZED = bool(os.environ.get("DAVIT_SANITIZED"))


@pytest.fixture
def canary(out, tmp_path):
    """What lies around the directory, and must look as before in the end."""
    outside = tmp_path / "canary"
    (outside / "file").write_text("untouched")
    (outside / "dir").mkdir()
    (outside / "dir" / "file").write_text("untouched")
    os.symlink("dir", outside / "link")

    def look():
        tree = snapshot(str(outside))
        return {name: item for name, item in tree.items() if not name.startswith(b"./out")}

    before = look()
    yield str(outside)
    assert look() == before


def expect_invalid(report, *parts):
    assert report[0] == "failed" and report[1] == "INVALID_LAYER", report
    for part in parts:
        assert part in report[2], report


def header(name, size=0, kind=b"0", link=b"", magic=b"ustar\x0000"):
    """A raw header block."""
    block = bytearray(512)
    block[0:len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136] = b"%011o\0" % size if size < 8**11 else b"\x80" + struct.pack(">11x")[:3] + \
        struct.pack(">Q", size)
    block[136:148], block[156:157] = b"00000000000\0", kind
    block[157:157 + len(link)] = link
    block[257:265] = magic
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pad(data):
    return data + b"\0" * (-len(data) % 512)


END = b"\0" * 1024


# --- Out of the directory -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../escape", "../../escape", "a/../../escape", "/../escape",
                                  "./../escape", "a/b/../../../escape", "..", "../", "a/../.."])
@pytest.mark.parametrize("kind", ["file", "dir", "symlink", "hardlink", "fifo", "device"])
def test_names_that_lead_out(program, out, canary, name, kind):
    archive = Tar().dir("a").dir("a/b").file("target")
    {"file": lambda: archive.file(name, b"x"), "dir": lambda: archive.dir(name),
     "symlink": lambda: archive.symlink(name, "x"),
     "hardlink": lambda: archive.hardlink(name, "target"), "fifo": lambda: archive.fifo(name),
     "device": lambda: archive.device(name)}[kind]()
    expect_invalid(unpack(program, archive.bytes(), out), "leads out of the layer",
                   name.rstrip("/"))


def test_dots_that_stay_inside(program, out, canary):
    """As Docker: resolved in the name, before any link."""
    archive = Tar().dir("a").symlink("l", "/").file("a/../b", b"1").file("l/../c", b"2").bytes()
    assert unpack(program, archive, out)[0] == "ok"
    assert {b"./b", b"./c"} < set(snapshot(out))


def test_absolute_names_are_taken_from_the_root(program, out, canary):
    archive = Tar().file("/etc/absolute", b"1").file("//double//slash", b"2").bytes()
    assert unpack(program, archive, out)[0] == "ok"
    assert {b"./etc/absolute", b"./double/slash"} < set(snapshot(out))


@pytest.mark.parametrize("target", ["..", "../..", "/", "../dir", "{canary}", "{canary}/dir",
                                    "/proc/self/root", "/proc/self/cwd/..", "../link"])
def test_writing_through_a_link(program, out, canary, target):
    """The link is resolved in the root: what it names outside is not there."""
    target = target.format(canary=canary)
    archive = Tar().symlink("l", target).file("l/file", b"evil").file("l/new", b"evil").bytes()
    report = unpack(program, archive, out)
    if target in ("..", "../..", "/"):
        assert report[0] == "ok", report
        assert open(os.path.join(out, "file"), "rb").read() == b"evil"
    else:
        expect_invalid(report, "l/file")


def test_links_through_links(program, out, canary):
    archive = (Tar().dir("d").symlink("a", "b/..").symlink("b", "d/../..").symlink("c", "a/b/a")
               .file("c/evil", b"1").bytes())
    assert unpack(program, archive, out)[0] == "ok"
    assert b"./evil" in snapshot(out)


def test_link_loop(program, out, canary):
    archive = Tar().symlink("a", "b").symlink("b", "a").file("a/x", b"1").bytes()
    expect_invalid(unpack(program, archive, out), "a/x")


def test_directory_becomes_a_link(program, out, canary):
    """The open directory of an earlier entry is not used for a path that leads elsewhere now."""
    archive = (Tar().dir("d").file("d/1", b"1").symlink("d", "/").file("d/2", b"2").dir("e")
               .symlink("e", "../dir").file("e/file", b"evil").bytes())
    expect_invalid(unpack(program, archive, out), "e/file")
    tree = snapshot(out)
    assert is_indexer(program) or (b"./2" in tree and b"./d/1" not in tree)


def test_file_in_the_place_of_a_link(program, out, canary):
    """The last name is never followed."""
    for kind in ("file", "fifo", "device"):
        archive = Tar().symlink("x", f"{canary}/file").symlink("y", "../file")
        for name in ("x", "y"):
            getattr(archive, kind)(name, mode=0o600)
        assert unpack(program, archive.bytes(), out)[0] == "ok"
        assert not any(stat.S_ISLNK(item["type"]) for item in snapshot(out).values())


def test_directory_in_the_place_of_a_link(program, out, canary):
    archive = Tar().symlink("x", "../dir").dir("x", mode=0o700).file("x/file", b"mine").bytes()
    assert unpack(program, archive, out)[0] == "ok"
    assert snapshot(out)[b"./x"]["mode"] == "0o700"


@pytest.mark.parametrize("target", ["../file", "/../file", "a/../../file", "../../../etc/passwd"])
def test_hard_link_out(program, out, canary, target):
    expect_invalid(unpack(program, Tar().dir("a").hardlink("h", target).bytes(), out),
                   "leads out of the layer", '"h"')


def test_hard_link_through_a_link(program, out, canary):
    archive = Tar().symlink("l", canary).hardlink("h", "l/file").file("h", b"evil").bytes()
    expect_invalid(unpack(program, archive, out), '"h"', "No such file")


def test_hard_link_to_a_link_does_not_follow(program, out, canary):
    archive = (Tar().symlink("l", f"{canary}/file").hardlink("h", "l").file("h", b"evil").bytes())
    assert unpack(program, archive, out)[0] == "ok"
    tree = snapshot(out)
    assert stat.S_ISREG(tree[b"./h"]["type"]) and stat.S_ISLNK(tree[b"./l"]["type"])


def test_hard_link_to_nothing(program, out, canary):
    expect_invalid(unpack(program, Tar().hardlink("h", "no/such").bytes(), out), '"h"', "no/such")
    expect_invalid(unpack(program, Tar().hardlink("h", "/").bytes(), out), '"h"')
    expect_invalid(unpack(program, Tar().dir("d").hardlink("h", "d").bytes(), out), '"h"')


@pytest.mark.parametrize("kind", ["file", "symlink", "hardlink", "fifo", "device"])
@pytest.mark.parametrize("name", [".", "./", "/", "a/.."])
def test_root_that_is_no_directory(program, out, canary, name, kind):
    archive = Tar().file("target")
    if kind in ("symlink", "hardlink"):
        getattr(archive, kind)(name, "target")
    else:
        getattr(archive, kind)(name)
    report = unpack(program, archive.bytes(), out)
    if report[0] == "ok":  # old archives write directories as files with a slash at the end
        assert kind == "file" and name.endswith("/")
    else:
        expect_invalid(report, "root of the layer")
    assert os.path.isdir(out)


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh..."])
def test_whiteouts_of_no_name(program, out, canary, name):
    expect_invalid(unpack(program, Tar().dir("d").file(name).bytes(), out), "whiteout", name)


def test_whiteouts_outside(program, out, canary):
    for name in ("../.wh.file", "../dir/.wh..wh..opq", ".wh.a/../../.wh.b"):
        expect_invalid(unpack(program, Tar().file(name).bytes(), out), "leads out")
    archive = Tar().symlink("l", "../dir").file("l/.wh.file").bytes()
    expect_invalid(unpack(program, archive, out), "l/file")
    archive = Tar().symlink("l", canary + "/dir").file("l/.wh..wh..opq").bytes()
    expect_invalid(unpack(program, archive, out), "l/.wh..wh..opq")


def test_removal_follows_no_link(program, out, canary):
    archive = (Tar().dir("d").symlink("d/up", "../../dir").symlink("d/abs", canary)
               .hardlink("d/hard", "d/up").file("d", b"now a file").bytes())
    assert unpack(program, archive, out)[0] == "ok"
    assert stat.S_ISREG(snapshot(out)[b"./d"]["type"])


def test_parent_that_is_no_directory(program, out, canary):
    expect_invalid(unpack(program, Tar().file("f", b"1").file("f/g", b"2").bytes(), out), "f/g")
    expect_invalid(unpack(program, Tar().fifo("p").file("p/g", b"2").bytes(), out), "p/g")
    expect_invalid(unpack(program, Tar().device("c").file("c/g").bytes(), out), "c/g")


# --- Damaged --------------------------------------------------------------------------------------


def test_what_is_no_tar(program, out):
    for data in (b"x", b"hello world" * 200, os.urandom(5000), b"PK\x03\x04" + b"\0" * 2000,
                 b"070701" + b"0" * 1000, b"!<arch>\n" + b" " * 1000, b"\x1f\x8b\x08" + b"\0" * 600,
                 b"#!/bin/sh\n" * 100, b"070707" + b"0" * 600):
        expect_invalid(unpack(program, data, out))
    assert os.listdir(out) == []


def test_empty_layers(program, out):
    assert unpack(program, b"", out) == ("ok", 0, 0, [])
    assert unpack(program, END, out) == ("ok", 0, 0, [])
    assert unpack(program, b"\0" * 10240, out) == ("ok", 0, 0, [])


def test_truncated(program, out):
    archive = Tar().file("a", b"x" * 3000).bytes()
    for cut in (100, 511, 513, 1024, 3400):
        expect_invalid(unpack(program, archive[:cut], out))


def test_bytes_after_the_end(program, out):
    """They belong to the hash, so they are read, and to nothing else."""
    more = Tar().file("more", b"1").bytes()
    archive = Tar().file("a", b"1").bytes() + b"garbage" * 100000 + more
    assert unpack(program, archive, out)[:3] == ("ok", 1, 1)
    assert sorted(snapshot(out)) == [b".", b"./a"]


def test_bad_checksum(program, out):
    good = Tar().file("a", b"1").bytes()[:1024]
    bad = bytearray(header(b"b"))
    bad[0] ^= 1
    expect_invalid(unpack(program, good + bytes(bad) + END, out))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_huge_special_headers(program, out, kind):
    """A header set has at most 1 MiB: refused by its size, not after reading it."""
    for size in ((1 << 20) + 1, 1 << 30, 8**11 - 1, (1 << 63) - 1):
        report = unpack(program, header(b"x", size, kind) + b"\0" * 100000, out)
        if kind != b"g":
            expect_invalid(report)
        assert os.listdir(out) == []


def test_special_headers_without_end(program, out):
    longlink = header(b"././@LongLink", 100, b"L", magic=b"ustar  \0") + pad(b"n" * 100)
    report = unpack(program, longlink * 5000 + header(b"f") + END, out)
    assert report[0] == "failed" or b"./" + b"n" * 100 in snapshot(out)


def pax(records):
    body = b""
    for key, value in records:
        size = len(key) + len(value) + 3
        size += len(str(size + len(str(size))))
        body += b"%d %s=%s\n" % (size, key, value)
    return header(b"pax", len(body), b"x") + pad(body)


@pytest.mark.parametrize("records", [
    [(b"path", b"")], [(b"path", b"a\0b")], [(b"size", b"-1")], [(b"size", b"9" * 30)],
    [(b"mtime", b"9" * 100)], [(b"mtime", b"nan")], [(b"uid", b"-5")], [(b"uid", b"4294967295")],
    [(b"gid", b"99999999999999999999")], [(b"linkpath", b"x" * 5000)],
    [(b"SCHILY.xattr.user.a", b"v" * 70000)], [(b"GNU.sparse.map", b"0,1,2")],
    [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9" * 18)],
    [(b"GNU.sparse.map", b"9223372036854775807,9223372036854775807"),
     (b"GNU.sparse.size", b"9223372036854775807")],
    [(b"hdrcharset", b"UNKNOWN")], [(b"LIBARCHIVE.xattr.user.%00", b"!!!")],
])
def test_strange_pax_records(program, out, canary, records):
    report = unpack(program, pax(records) + header(b"file", 4) + pad(b"data") + END, out)
    assert report[0] in ("ok", "failed")
    if report[0] == "failed":
        expect_invalid(report)


def test_owner_out_of_range(program, out):
    report = unpack(program, pax([(b"uid", b"4294967295")]) + header(b"f") + END, out)
    expect_invalid(report, "owner out of range")


def test_name_too_long(program, out):
    name = "d" * 200 + "/"
    archive = Tar().file(name * 20 + "x" * 75, b"1").bytes()
    assert unpack(program, archive, out)[0] == "ok"
    expect_invalid(unpack(program, Tar().file(name * 20 + "x" * 76).bytes(), out), "4095")
    expect_invalid(unpack(program, Tar().file("x" * 256).bytes(), out), "File name too long")


def test_xattrs_too_large(program, out):
    headers = {f"SCHILY.xattr.trusted.{i}": "v" * 10000 for i in range(7)}
    expect_invalid(unpack(program, Tar().file("a", pax_headers=headers).bytes(), out), "64 KiB")


def test_sparse_file_beyond_the_limit(program, out):
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"),
               (b"GNU.sparse.realsize", b"%d" % (1 << 60)), (b"GNU.sparse.name", b"huge")]
    report = unpack(program, pax(records) + header(b"f", 512) + pad(b"0\n") + END, out)
    expect_invalid(report, "huge")


def test_control_characters_in_messages(program, out):
    report = unpack(program, Tar().file("../\x1b[31m\n\"\\\xe9").bytes(), out)
    expect_invalid(report, '\\x1b[31m\\x0a\\x22\\x5c')


# --- Much of it -----------------------------------------------------------------------------------


def peak_memory(program, directory, feed):
    """Unpacks what feed() writes; the report, and the peak of resident memory just before its end
    (None if it ended by itself)."""
    process = subprocess.Popen(["sh", "-c", 'exec "$0" 3<"$1"', program, directory],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    peak = None
    try:
        feed(process.stdin)
        process.stdin.flush()
        for line in open(f"/proc/{process.pid}/status", encoding="ascii"):
            if line.startswith("VmHWM:"):
                peak = int(line.split()[1]) * 1024
        process.stdin.close()
    except BrokenPipeError:
        pass
    report = process.stdout.read()
    process.stdout.close()
    process.wait()
    return report, peak


def test_too_many_entries(davit_untar, out):
    blocks = header(b".wh..wh.aufs") * 1000  # costs nothing but reading

    def feed(stdin):
        for _ in range(2000):
            stdin.write(blocks)
        stdin.write(header(b"one-too-many"))
        stdin.write(END)

    report, _ = peak_memory(davit_untar, out, feed)
    assert report.startswith(b"failed 15 INVALID_LAYER\n") and b"2000000 entries" in report
    assert os.listdir(out) == []


@pytest.mark.skipif(SANITIZED, reason="sanitizers need memory of their own")
def test_memory_is_bounded(davit_untar, out):
    """Large files, many directories, a sparse map without end."""
    def large_file(stdin):
        stdin.write(header(b"large", 1 << 28))
        for _ in range(1 << 8):
            stdin.write(b"\0" * (1 << 20))
        stdin.write(END)

    def many_directories(stdin):
        for i in range(20000):
            stdin.write(header(b"d%d" % i, kind=b"5") + header(b"d%d/f" % i))
        stdin.write(END)

    def sparse_map(stdin):
        records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"),
                   (b"GNU.sparse.realsize", b"1000")]
        stdin.write(pax(records) + header(b"f", 1 << 30))
        stdin.write(b"99999999999\n")
        while True:
            stdin.write(b"0\n0\n" * 100000)

    for feed in (large_file, many_directories):
        report, peak = peak_memory(davit_untar, out, feed)
        assert report.startswith(b"ok") and peak < 16 << 20, (feed.__name__, peak)
    # The map is read into memory that the process has not got.
    report, _ = peak_memory(davit_untar, out, sparse_map)
    assert not report.startswith(b"ok")


def test_deep_tree_is_replaced(program, out):
    """Deeper than descriptors or a stack could go: made through links, removed step by step."""
    tar = Tar()
    deep = "d/" * 150
    for i in range(10):
        tar.symlink(f"l{i}", "top" if i == 0 else f"l{i - 1}/{deep[:-1]}")
        tar.dir(f"l{i}/{deep}" if i else f"top/{deep}")
    tar.file("top", b"gone")
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)
    report = unpack(program, tar.bytes(), out)
    assert soft == resource.getrlimit(resource.RLIMIT_NOFILE)
    if report[0] == "ok":
        assert stat.S_ISREG(snapshot(out)[b"./top"]["type"])
    else:
        expect_invalid(report)


def test_tar_dialect_of_solaris_and_v7(program, out):
    """libarchive reads them; so do we."""
    v7 = header(b"v7/", kind=b"\0", magic=b"\0" * 8) + \
        header(b"v7/file", 3, b"\0", magic=b"\0" * 8) + pad(b"abc") + END
    assert unpack(program, v7, out)[0] == "ok"
    assert open(os.path.join(out, "v7/file"), "rb").read() == b"abc"


def test_devices_cannot_be_opened(davit_untar, out):
    """Behind the mount of the confined process a node is only a name. Its own write to it, as the
    content of a file of the same name, replaces the node."""
    archive = Tar().device("null", 1, 3).file("null", b"data").bytes()
    assert unpack(davit_untar, archive, out)[0] == "ok"
    assert stat.S_ISREG(snapshot(out)[b"./null"]["type"])


def test_gnu_formats_that_carry_attacks(program, out, canary):
    """The same names through long-name headers."""
    for fmt in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        for name in ("../" + "x" * 90, "a/../../" + "y" * 60):
            archive = Tar(format=fmt).file(name, b"evil").bytes()
            expect_invalid(unpack(program, archive, out), "leads out")
    long_name = "../" + "x" * 300
    for fmt in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        expect_invalid(unpack(program, Tar(format=fmt).file(long_name).bytes(), out), "leads out")
        expect_invalid(unpack(program, Tar(format=fmt).hardlink("h", long_name).bytes(), out),
                       "leads out")
