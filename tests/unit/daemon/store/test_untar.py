"""What davit-untar makes of archives, entry by entry as GNU tar."""
import ctypes
import os
import stat
import subprocess
import tarfile

import pytest

from layers import Tar, gnu_extract, is_indexer, snapshot, unpack

SECOND = 10**9
CAP_NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")


def make_tree(top):
    """Every kind of entry, with edges of sizes, times, modes and names. GNU tar is told what to
    leave out for formats that cannot hold it."""
    os.chmod(top, 0o751)
    os.umask(0)

    def path(name):
        return os.fsencode(top) + b"/" + os.fsencode(name)

    for size in (0, 1, 511, 512, 513, 10240, 100000):
        with open(path(f"size-{size}"), "wb") as file:
            file.write(bytes(i * 7 % 251 for i in range(size)))
    for mode in (0o000, 0o644, 0o755, 0o4755, 0o2755, 0o1777, 0o6711):
        with open(path(f"mode-{mode:04o}"), "wb") as file:
            file.write(b"x")
        os.chown(path(f"mode-{mode:04o}"), 12, 34)
        os.chmod(path(f"mode-{mode:04o}"), mode)
        os.mkdir(path(f"dir-{mode:04o}"))
        with open(path(f"dir-{mode:04o}/inside"), "wb") as file:
            file.write(b"inside")
        os.mkdir(path(f"dir-{mode:04o}/sub"))
        os.chown(path(f"dir-{mode:04o}"), 56, 78)
        os.chown(path(f"dir-{mode:04o}/inside"), 0, 0)
        os.chown(path(f"dir-{mode:04o}/sub"), 0, 0)
        os.chmod(path(f"dir-{mode:04o}/sub"), 0o755)
        os.chmod(path(f"dir-{mode:04o}"), mode)
    for uid in (1, 1000, 65534, 2097151):
        with open(path(f"owner-{uid}"), "wb"):
            pass
        os.chown(path(f"owner-{uid}"), uid, uid)
    os.symlink("size-1", path("link"))
    os.symlink("/absolute/target", path("link-absolute"))
    os.symlink("../../up", path("link-up"))
    os.symlink("t" * 200, path("link-long"))
    os.chown(path("link-up"), 7, 8, follow_symlinks=False)
    os.link(path("size-513"), path("hard-1"))
    os.link(path("size-513"), path("hard-2"))
    os.link(path("link-up"), path("hard-of-link"), follow_symlinks=False)
    os.mkfifo(path("fifo"), 0o640)
    os.mknod(path("char"), stat.S_IFCHR | 0o620, os.makedev(1, 3))
    os.mknod(path("block"), stat.S_IFBLK | 0o660, os.makedev(7, 200))
    for name in (b"caf\xc3\xa9", b"latin-\xe9", b"decomposed-e\xcc\x81", b"new\nline", b"tab\t",
                 b"back\\slash", b"\xff\xfe", b" space ", b"-dash", b"*"):
        with open(path(name), "wb") as file:
            file.write(name)
    for length in (99, 100, 101, 155, 156, 254, 255):
        with open(path("n" * length), "wb"):
            pass
    os.makedirs(path("a/b/c/d"))
    return path


def add_pax_only(path):
    """What only PAX headers can hold."""
    times = {"ns": 1234567890_123456789, "before": -86400 * SECOND * 365, "late": 5000000000 * SECOND,
             "zero": 0, "before-ns": -1_500000000}
    for name, ns in times.items():
        with open(path(f"time-{name}"), "wb"):
            pass
        os.utime(path(f"time-{name}"), ns=(ns, ns))
        os.mkdir(path(f"time-dir-{name}"))
        os.utime(path(f"time-dir-{name}"), ns=(ns, ns))
    os.symlink("x", path("time-link"))
    os.utime(path("time-link"), ns=(987654321, 987654321), follow_symlinks=False)
    with open(path("owner-large"), "wb"):
        pass
    os.chown(path("owner-large"), 2**32 - 2, 2**32 - 2)
    with open(path("xattr"), "wb") as file:
        file.write(b"x")
    os.setxattr(path("xattr"), "user.empty", b"")
    os.setxattr(path("xattr"), "user.binary", b"\0=\n\xff")
    os.setxattr(path("xattr"), "user.long", b"v" * 2000)
    os.setxattr(path("a"), "user.dir", b"d")
    os.chown(path("mode-0755"), 12, 34)
    os.setxattr(path("mode-0755"), "security.capability", CAP_NET_RAW)
    add_deep(path)


def add_deep(path):
    """Paths of nearly 4 KiB, made step by step."""
    fd = os.open(path("."), os.O_RDONLY)
    for _ in range(16):
        os.mkdir("d" * 249, dir_fd=fd)
        below = os.open("d" * 249, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("f" * 80, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
    os.symlink("s" * 4090, "l" * 80, dir_fd=fd)
    os.close(fd)


def gnu_create(tree, *options):
    return subprocess.run(["tar", "--numeric-owner", "-c", "-f", "-", "-C", str(tree), *options],
                          stdout=subprocess.PIPE, check=True).stdout


PAX = ["--format=posix", "--xattrs", "--xattrs-include=*"]


def assert_equals_gnu(program, archive, out, tmp_path):
    expected = tmp_path / "expected"
    expected.mkdir()
    gnu_extract(archive, str(expected))
    report = unpack(program, archive, out)
    assert report[0] == "ok", report
    ours, theirs = snapshot(out), snapshot(str(expected))
    assert sorted(ours) == sorted(theirs)
    for name, item in theirs.items():
        assert ours[name] == item, name
    return ours


@pytest.mark.parametrize("options", [PAX, ["--format=gnu"], ["--format=oldgnu"]])
def test_equals_gnu_tar(program, out, tmp_path, options):
    tree = tmp_path / "tree"
    tree.mkdir()
    path = make_tree(str(tree))
    if options == PAX:
        add_pax_only(path)
    else:
        add_deep(path)
    tree_of_tar = assert_equals_gnu(program, gnu_create(tree, *options, "."), out, tmp_path)
    if options == PAX:
        assert tree_of_tar == snapshot(str(tree))


def test_equals_gnu_tar_ustar(program, out, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    make_tree(str(tree))
    for length in (101, 155, 156, 254, 255):
        os.unlink(tree / ("n" * length))
    os.unlink(tree / "link-long")
    os.makedirs(tree / ("p" * 90) / ("q" * 60))
    (tree / ("p" * 90) / ("q" * 60) / ("r" * 99)).write_bytes(b"prefix")
    assert_equals_gnu(program, gnu_create(tree, "--format=ustar", "."), out, tmp_path)


@pytest.mark.parametrize("options", [["--format=gnu"], [*PAX, "--sparse-version=0.0"],
                                     [*PAX, "--sparse-version=0.1"],
                                     [*PAX, "--sparse-version=1.0"]])
def test_sparse(program, out, tmp_path, options):
    tree = tmp_path / "tree"
    tree.mkdir()
    shapes = {"hole-first": [(1 << 20, b"end")], "hole-last": [(0, b"start")],
              "only-hole": [], "many": [(i * 65536, b"x" * 100) for i in range(60)]}
    for name, pieces in shapes.items():
        with open(tree / name, "wb") as file:
            for offset, data in pieces:
                file.seek(offset)
                file.write(data)
            file.truncate(max(5 << 20, file.tell()))
    archive = gnu_create(tree, *options, "--sparse", ".")
    assert len(archive) < 4 << 20
    assert_equals_gnu(program, archive, out, tmp_path)
    for name in shapes if not is_indexer(program) else []:
        assert os.stat(os.path.join(out, name)).st_blocks * 512 < 5 << 20, "holes were filled"


def test_long_names_of_another_writer(program, out, tmp_path):
    """An archive of another writer, with GNU long names."""
    archive = (Tar(format=tarfile.GNU_FORMAT).dir("./").dir("d").file("d/" + "x" * 150, b"1")
               .symlink("d/" + "y" * 150, "z" * 150).bytes())
    assert_equals_gnu(program, archive, out, tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_first_link_whose_target_only_a_pax_header_has(program, out, kind):
    """As Go's writer has it for targets without ASCII; libarchive needs help there."""
    archive = Tar().file("\u00fc").bytes()[:3 * 512] if kind == tarfile.LNKTYPE else b""
    archive += Tar().add("l", kind, pax_headers={"linkpath": "\u00fc"}).bytes()
    assert unpack(program, archive, out)[0] == "ok"
    link = snapshot(out)[b"./l"]
    if kind == tarfile.SYMTYPE:
        assert link["target"] == b"\xc3\xbc"
    else:
        assert link["same_inode"] == [b"./l", b"./\xc3\xbc"]


def test_parents_that_have_no_entry(program, out):
    archive = Tar().file("no/such/dir/file", b"1").file("/absolute/file", b"2").bytes()
    assert unpack(program, archive, out)[0] == "ok"
    tree = snapshot(out)
    assert tree[b"./no/such/dir"]["mode"] == "0o755"
    assert b"./no/such/dir/file" in tree and b"./absolute/file" in tree


def test_parent_through_a_link_in_the_root(program, out):
    """Images have var/run -> /run, and entries below var/run."""
    archive = (Tar().dir("run", mtime=5).dir("var").symlink("var/run", "/run")
               .file("var/run/pid", b"1").file("run/other", b"2").bytes())
    assert unpack(program, archive, out)[0] == "ok"
    tree = snapshot(out)
    assert b"./run/pid" in tree
    assert tree[b"./run"]["mtime"] == 5 * SECOND


def test_root_entry(program, out):
    archive = Tar().dir("./", mode=0o1711, uid=5, gid=6, mtime=77,
                        pax_headers={"SCHILY.xattr.user.root": "yes"}).file("./a").bytes()
    assert unpack(program, archive, out)[0] == "ok"
    root = snapshot(out)[b"."]
    assert (root["mode"], root["uid"], root["gid"]) == ("0o1711", 5, 6)
    assert root["mtime"] == 77 * SECOND
    assert root["xattrs"] == {"user.root": b"yes"}


def test_directory_entry_after_its_content(program, out):
    archive = (Tar().file("d/e/f", b"1").dir("d", mode=0o700, mtime=3)
               .dir("d/e", mode=0o711, mtime=4).bytes())
    assert unpack(program, archive, out)[0] == "ok"
    tree = snapshot(out)
    assert (tree[b"./d"]["mode"], tree[b"./d"]["mtime"]) == ("0o700", 3 * SECOND)
    assert (tree[b"./d/e"]["mode"], tree[b"./d/e"]["mtime"]) == ("0o711", 4 * SECOND)


def test_directory_times_survive_returning(program, out):
    """More directories than are kept open, filled in turns."""
    tar = Tar()
    for i in range(40):
        tar.dir(f"d{i}", mtime=100 + i)
    for turn in range(3):
        for i in range(40):
            tar.file(f"d{i}/f{turn}", mtime=1)
    assert unpack(program, tar.bytes(), out)[0] == "ok"
    tree = snapshot(out)
    for i in range(40):
        assert tree[f"./d{i}".encode()]["mtime"] == (100 + i) * SECOND


KINDS = {
    "file": lambda tar: tar.file("x", b"first", mode=0o640),
    "empty dir": lambda tar: tar.dir("x", mode=0o750),
    "full dir": lambda tar: tar.dir("x").dir("x/y").file("x/y/z", b"12345").symlink("x/l", "abc"),
    "symlink": lambda tar: tar.symlink("x", "target"),
    "symlink to dir": lambda tar: tar.symlink("x", "other"),
    "hardlink": lambda tar: tar.hardlink("x", "other/file"),
    "fifo": lambda tar: tar.fifo("x"),
    "device": lambda tar: tar.device("x"),
}


@pytest.mark.parametrize("second", sorted(KINDS))
@pytest.mark.parametrize("first", sorted(KINDS))
def test_last_entry_wins(program, out, tmp_path, first, second):
    """The tree is as if the first had not been there, but that directories are merged."""
    def begin():
        return Tar().dir("other", mtime=9).file("other/file", b"other")

    both, alone = begin(), begin()
    KINDS[first](both)
    KINDS[second](both)
    if first == "full dir" and second == "empty dir":
        KINDS[first](alone)
    KINDS[second](alone)
    alone_out = tmp_path / "alone"
    alone_out.mkdir()
    report, report_alone = unpack(program, both.bytes(), out), unpack(program, alone.bytes(),
                                                                     str(alone_out))
    assert report[0] == report_alone[0] == "ok", report
    assert report[1] == report_alone[1], "content is counted for what is there in the end"
    tree, tree_alone = snapshot(out), snapshot(str(alone_out))
    del tree[b"."], tree_alone[b"."]  # made by us: no time of its own
    assert tree == tree_alone


def test_file_named_twice_is_a_link_to_itself(program, out):
    archive = Tar().file("a", b"data").hardlink("a", "a").bytes()
    assert unpack(program, archive, out)[0] == "ok"
    assert open(os.path.join(out, "a"), "rb").read() == b"data"


def test_content_is_counted_as_docker_does(program, out):
    archive = (Tar().file("a", b"x" * 1000).hardlink("b", "a").symlink("c", "12345").dir("d")
               .fifo("e").file("f", b"y" * 50).file("f", b"z" * 7).file(".wh.gone").bytes())
    assert unpack(program, archive, out) == ("ok", 1000 + 5 + 7, 8, [])


def test_only_harmless_xattrs_pass(program, out):
    names = ["user.ok", "trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.x",
             "security.selinux", "security.ima", "system.posix_acl_access", "user.overlay.opaque"]
    archive = Tar()
    for path in ("file", "dir"):
        headers = {f"SCHILY.xattr.{name}": "y" for name in names}
        add = archive.file if path == "file" else archive.dir
        add(path, pax_headers=headers)
    assert unpack(program, archive.bytes(), out)[0] == "ok"
    for item in (b"./file", b"./dir"):
        assert sorted(snapshot(out)[item]["xattrs"]) == ["user.ok", "user.overlay.opaque"]


def test_the_last_xattr_of_a_name_wins(program, out):
    record = b"25 SCHILY.xattr.user.a=%d\n"
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2 * 25
    archive = header.tobuf() + (record % 1 + record % 2).ljust(512, b"\0") + Tar().file("f").bytes()
    assert unpack(program, archive, out)[0] == "ok"
    assert snapshot(out)[b"./f"]["xattrs"] == {"user.a": b"2"}


@pytest.mark.parametrize("name, value", [
    ("security.capability", b""), ("security.capability", CAP_NET_RAW[:-1]),
    ("security.capability", CAP_NET_RAW + bytes(4)), ("security.capability", bytes(20)),
    ("security.capability", b"\2" + CAP_NET_RAW[1:]), ("user.", b"1"), ("user." + "n" * 251, b"1")])
def test_xattrs_that_no_file_can_have(program, out, name, value):
    headers = {"SCHILY.xattr." + name: value.decode("utf-8", "surrogateescape")}
    report = unpack(program, Tar().file("f", pax_headers=headers).bytes(), out)
    assert report[:2] == ("failed", "INVALID_LAYER") and '"f" has an xattr' in report[2]


# --- Whiteouts ------------------------------------------------------------------------------------


def is_whiteout(item):
    return stat.S_ISCHR(item["type"]) and item["device"] == (0, 0)


def test_whiteouts(program, out):
    archive = (Tar().dir("d").file("d/.wh.gone").file(".wh.top").file("no/entry/.wh.x")
               .dir("o").file("o/.wh..wh..opq").file("o/new", b"1").bytes())
    report = unpack(program, archive, out)
    assert report[0] == "ok"
    assert report[3] == [b"o"]
    tree = snapshot(out)
    assert all(is_whiteout(tree[name]) for name in (b"./d/gone", b"./top", b"./no/entry/x"))
    assert not any(b".wh." in name for name in tree)


def test_opaque_before_its_directory(program, out):
    archive = Tar().file("a/b/.wh..wh..opq").dir("a/b", mode=0o700).file("a/b/c").bytes()
    assert unpack(program, archive, out)[3] == [b"a/b"]
    assert snapshot(out)[b"./a/b"]["mode"] == "0o700"


def test_opaque_is_the_directory_that_the_mark_found(program, out):
    """Also where a link led to it, and no longer once it has gone."""
    archive = (Tar().dir("d").dir("e").symlink("l", "d").file("l/.wh..wh..opq").symlink("l", "e")
               .dir("gone").file("gone/.wh..wh..opq").dir("gone/a").file("gone/a/.wh..wh..opq")
               .symlink("gone", "e").bytes())
    assert unpack(program, archive, out)[3] == [b"d"]


@pytest.mark.parametrize("name", ["d/x", "d/y/x", "d/.wh.x", "d/.wh..wh..opq"])
def test_directory_in_the_place_of_a_whiteout_is_opaque(program, out, name):
    """Though it has no entry of its own."""
    assert unpack(program, Tar().file(".wh.d").file(name).bytes(), out)[3] == [b"d"]


def test_opaque_root(program, out):
    assert unpack(program, Tar().file(".wh..wh..opq").bytes(), out)[3] == [b""]


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_whiteout_hides_lower_layers_only(program, out, whiteout_first):
    """What the same layer has in the place stays; a directory hides what is below it."""
    archive = Tar()
    if whiteout_first:
        archive.file(".wh.d").file(".wh.f")
    archive.dir("d").file("d/x").file("f", b"here")
    if not whiteout_first:
        archive.file(".wh.d").file(".wh.f")
    report = unpack(program, archive.bytes(), out)
    assert report[3] == [b"d"]
    tree = snapshot(out)
    assert b"./d/x" in tree and tree[b"./f"]["size"] == 4


def test_aufs_leftovers_are_dropped(program, out):
    archive = (Tar().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", b"x").file(".wh..wh.aufs")
               .dir("d").dir("d/.wh..wh.orph").bytes())
    assert unpack(program, archive, out)[:2] == ("ok", 0)
    assert sorted(snapshot(out)) == [b".", b"./d"]


# --- Confinement ----------------------------------------------------------------------------------


def test_confinement(davit_untar, out):
    reader, writer = os.pipe()
    process = subprocess.Popen(["sh", "-c", 'exec "$0" 3<"$1"', davit_untar, out],
                               stdin=reader, stdout=subprocess.PIPE)
    os.close(reader)
    archive = Tar().file("big", b"\0" * (1 << 20)).bytes()
    try:
        # More than a pipe holds: once it is taken, the reader has confined itself.
        os.write(writer, archive[:1 << 19])
        status = dict(line.split(":\t") for line in
                      open(f"/proc/{process.pid}/status", encoding="ascii").read().splitlines()
                      if ":\t" in line)
        kept = sum(1 << bit for bit in (0, 1, 3, 4, 27, 31))
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert int(status[name], 16) == kept, name
        assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        for namespace in ("net", "mnt", "ipc"):
            assert (os.readlink(f"/proc/{process.pid}/ns/{namespace}") !=
                    os.readlink(f"/proc/self/ns/{namespace}")), namespace
        assert os.path.samestat(os.stat(f"/proc/{process.pid}/root"), os.stat(out))
        # Devices cannot be opened where it is, though nodes can be made.
        os.mknod(os.path.join(out, "null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.close(os.open(os.path.join(out, "null"), os.O_WRONLY))
        with pytest.raises(PermissionError):
            os.open(f"/proc/{process.pid}/root/null", os.O_WRONLY)
        fds = {int(fd) for fd in os.listdir(f"/proc/{process.pid}/fd")}
        inside = [fd for fd in fds if fd > 2]
        assert all(os.path.samestat(os.stat(f"/proc/{process.pid}/fd/{fd}"), os.stat(out)) or
                   os.stat(f"/proc/{process.pid}/fd/{fd}").st_ino ==
                   os.stat(os.path.join(out, "big")).st_ino for fd in inside)
        os.write(writer, archive[1 << 19:])
    finally:
        os.close(writer)
        assert process.communicate()[0].startswith(b"ok")


def test_ends_with_its_parent(davit_untar, out):
    """A daemon that was killed leaves nobody behind who writes to its store."""
    reader, writer = os.pipe()
    libc = ctypes.CDLL(None)
    libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: the orphan becomes ours
    middle = subprocess.Popen(
        ["sh", "-c", 'exec 9<&0; "$0" 3<"$1" <&9 & echo $!; wait', davit_untar, out],
        stdin=reader, stdout=subprocess.PIPE)
    os.close(reader)
    try:
        orphan = int(middle.stdout.readline())
        os.write(writer, b"\0" * 200000)  # more than a pipe holds: it has begun to read
        middle.kill()
        middle.wait()
        assert os.waitstatus_to_exitcode(os.waitpid(orphan, 0)[1]) == -9
    finally:
        libc.prctl(36, 0, 0, 0, 0)
        middle.stdout.close()
        os.close(writer)
