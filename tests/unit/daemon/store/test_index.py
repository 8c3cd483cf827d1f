"""What davit-index makes of archives, seen through the kernel that mounts it; and the process
itself. What it has in common with the unpacker is in test_untar.py and test_attacks.py."""
import ctypes
import hashlib
import os
import pathlib
import random
import struct
import subprocess
import tarfile

import pytest

import indexed
from layers import Tar, snapshot, unpack

SANITIZED = bool(os.environ.get("DAVIT_SANITIZED"))
CORPUS = pathlib.Path(__file__).resolve().parents[3] / "fuzz" / "corpus"
SECOND = 10**9


@pytest.fixture
def layer(davit_index, tmp_path):
    """Indexes an archive; the files stay."""
    def make(archive):
        directory = tmp_path / "layer"
        directory.mkdir()
        return indexed.Indexed(davit_index, archive, str(directory))
    return make


def plain_header(name, size, kind=b"0", link=""):
    """Faster than Tar."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info.tobuf(tarfile.GNU_FORMAT)


# --- The same tree as the unpacker's --------------------------------------------------------------


def both(davit_untar, davit_index, tmp_path, archive):
    """What the unpacker and the indexer make of it: reports and trees."""
    results = []
    for name, program in (("unpacked", davit_untar), ("indexed", davit_index)):
        directory = tmp_path / name
        directory.mkdir()
        directory.chmod(0o755)  # whatever the umask
        report = unpack(program, archive, str(directory))
        tree = snapshot(str(directory)) if report[0] == "ok" else None
        results.append((report, tree))
        indexed.unmount_below(directory)
        subprocess.run(["rm", "-rf", str(directory)], check=True)
    return results


def assert_same(unpacked, index):
    assert index[0] == unpacked[0]
    if unpacked[1] is None:
        return
    assert sorted(index[1]) == sorted(unpacked[1])
    for name, item in unpacked[1].items():
        assert index[1][name] == item, name


class RandomArchive:
    """Few names, so that entries meet: replace, link to, hide and lead through each other."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.tar = Tar()
        self.files = []  # that may be there
        for _ in range(self.random.randint(1, 40)):
            self.add()

    def path(self, last):
        """Mostly of what may be directories, and at its end one of `last`, so that most archives
        are good ones."""
        parts = self.random.choices(["a", "b", "l", "f", ".", ".."], [9, 9, 2, 0.1, 0.1, 0.1],
                                    k=self.random.randint(0, 3))
        name = self.random.choice(last if self.random.random() < 0.9 else "abflm")
        return self.random.choice(["", "", "", "/"]) + "/".join([*parts, name])

    def fields(self):
        pick = self.random
        fields = {"mode": pick.choice([0o644, 0o755, 0o4711, 0o1777, 0]),
                  "uid": pick.choice([0, 0, 65535, 65536, 2**32 - 2]), "gid": pick.choice([0, 5]),
                  "mtime": pick.choice([0, 1, 1, 1600000000, -5, 1.5])}
        if pick.random() < 0.2:
            fields["pax_headers"] = {f"SCHILY.xattr.user.{name}": pick.choice(["1", "2" * 99, ""])
                                     for name in pick.choices("xyz", k=2)}
        return fields

    def add(self):
        pick, tar = self.random, self.tar
        kind = pick.choices(["file", "dir", "symlink", "hardlink", "fifo", "device", "whiteout",
                             "opaque"], [5, 7, 2, 2, 0.5, 0.5, 2, 2])[0]
        path = self.path({"dir": "abl", "symlink": "lm", "opaque": "ab", "whiteout": "abfg"}
                         .get(kind, "fgh"))
        head, _, tail = path.rpartition("/")
        if kind == "file":
            tar.file(path, b"x" * pick.choice([0, 1, 511, 512, 513, 5000]), **self.fields())
            self.files.append(path)
        elif kind == "symlink":
            tar.symlink(path, self.path("ab"), **self.fields())
        elif kind == "hardlink":
            tar.hardlink(path, pick.choice([*self.files[-3:] * 2, self.path("fgh")]))
        elif kind == "whiteout":
            tar.file(f"{head}/.wh.{tail}" if head else f".wh.{tail}")
        elif kind == "opaque":
            tar.file(f"{path}/.wh..wh..opq")
        else:
            getattr(tar, kind)(path, **self.fields())


@pytest.mark.parametrize("first", range(0, int(os.environ.get("DAVIT_RANDOM_ARCHIVES", "150")), 50))
def test_random_archives_give_the_same(davit_untar, davit_index, tmp_path, first):
    for seed in range(first, first + 50):
        archive = RandomArchive(seed).tar.bytes()
        unpacked, index = both(davit_untar, davit_index, tmp_path, archive)
        try:
            assert_same(unpacked, index)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


@pytest.mark.parametrize("cut", [1, 511, 512, 1000, 1024, 1536, 2048, 2500, 3071, 3072, 4096])
def test_cut_off_archives_give_the_same(davit_untar, davit_index, tmp_path, cut):
    archive = (Tar().file("a", b"x" * 700).symlink("l" * 150, "a").file("b", b"y").bytes())[:cut]
    unpacked, index = both(davit_untar, davit_index, tmp_path, archive)
    assert unpacked[0][:2] == index[0][:2]


@pytest.mark.parametrize("claimed", [0, 1, 512, 699, 700, 701, 1024, 1025, 100000, 1 << 20])
def test_sizes_that_are_lies_give_the_same(davit_untar, davit_index, tmp_path, claimed):
    """The header has another size than the archive has content."""
    archive = (Tar().file("before", b"b").file("f", b"x" * 700, pax_headers={
        "SCHILY.realsize": str(claimed)}).file("after", b"a").bytes())
    assert_same(*both(davit_untar, davit_index, tmp_path, archive))


def corpus():
    folders = [CORPUS / "fuzz_tar", CORPUS / "fuzz_erofs"]
    if "DAVIT_FUZZ_LEARNT" in os.environ:
        folders.append(pathlib.Path(os.environ["DAVIT_FUZZ_LEARNT"]))
    return sorted(path for folder in folders for path in folder.iterdir())


def mended(data):
    """As the fuzz targets do: checksums made right."""
    blocks = bytearray(data)
    for at in range(0, len(blocks) - 511, 512):
        if blocks[at + 257:at + 262] == b"ustar":
            blocks[at + 148:at + 156] = b" " * 8
            total = sum(blocks[at:at + 512])
            blocks[at + 148:at + 155] = b"%06o\0" % total
    return bytes(blocks)


def test_corpus(davit_index, davit_untar, tmp_path):
    """Whatever the fuzzers found worth keeping, the kernel reads without complaint, and it is what
    is unpacked."""
    files = corpus()
    assert files
    for path in files:
        archive = mended(path.read_bytes()[1:])
        unpacked, index = both(davit_untar, davit_index, tmp_path, archive)
        assert index[0][:2] == unpacked[0][:2], path
        if index[1]:
            assert sorted(index[1]) == sorted(unpacked[1]), path


# --- Forms of things ------------------------------------------------------------------------------


def test_edges_of_directories(davit_index, out):
    """Of any size around one, two and more blocks, each with xattrs or not: every name is found,
    and none between them."""
    tar = Tar()
    names = {}
    for count in range(0, 60):
        for length in (1, 29, 200, 255):
            directory = f"d{count}-{length}"
            names[directory] = [(f"{i:03}"[:length] * length)[:length] for i in range(count)]
            names[directory] = sorted(set(names[directory]))
            headers = {"SCHILY.xattr.user.x": "y" * count} if count % 3 == 0 else {}
            tar.dir(directory, mtime=count % 5, pax_headers=headers)
            for name in names[directory]:
                tar.file(f"{directory}/{name}")
    assert unpack(davit_index, tar.bytes(), out)[0] == "ok"
    for directory, expected in names.items():
        path = os.path.join(out, directory)
        assert sorted(os.listdir(path)) == expected
        for name in expected:
            os.stat(os.path.join(path, name))
            for other in (name[:-1] + "!", name[:-1] + "~", name[:-1] or "-"):
                assert os.path.exists(os.path.join(path, other)) == (other in expected)


def test_edges_of_inodes(davit_index, out):
    large = 2**32 - 2
    fields = {"plain": {}, "large": {"uid": large, "gid": large}, "uid": {"uid": 65536},
              "gid": {"gid": 65535}, "before": {"mtime": -12345}, "late": {"mtime": 2**33},
              "fraction": {"pax_headers": {"mtime": "77.000000001"}}}
    tar = Tar()
    for name, values in fields.items():
        tar.file(f"file-{name}", b"data", **values)
        tar.dir(f"dir-{name}", **values)
        tar.symlink(f"link-{name}", "x" * 300, **values)
        tar.fifo(f"fifo-{name}", **values)
        tar.device(f"device-{name}", 4095, 1048575, **values)
    assert unpack(davit_index, tar.bytes(), out)[0] == "ok"
    tree = snapshot(out)
    times = {"before": -12345 * SECOND, "late": 2**33 * SECOND, "fraction": 77 * SECOND + 1}
    for name, values in fields.items():
        for kind in ("file", "dir", "link", "fifo", "device"):
            item = tree[f"./{kind}-{name}".encode()]
            assert item["uid"] == values.get("uid", 0) and item["gid"] == values.get("gid", 0)
            assert item["mtime"] == times.get(name, 0), (kind, name)
        assert tree[f"./device-{name}".encode()]["device"] == (4095, 1048575)


def test_sizes_of_files(davit_index, out):
    sizes = [0, 1, 511, 512, 513, 1023, 4095, 4096, 4097, 65535, 65536, 1 << 20, (1 << 20) + 1]
    tar = Tar()
    contents = {size: random.Random(size).randbytes(size) for size in sizes}
    for size, content in contents.items():
        tar.file(f"f{size}", content)
    assert unpack(davit_index, tar.bytes(), out)[0] == "ok"
    for size, content in contents.items():
        with open(os.path.join(out, f"f{size}"), "rb") as file:
            assert file.read() == content
            assert os.fstat(file.fileno()).st_size == size


def test_symlinks_of_any_length(davit_index, out):
    tar = Tar()
    lengths = [1, 2, 100, 440, 447, 448, 449, 479, 480, 481, 511, 512, 513, 600, 991, 992, 993,
               1023, 1024, 1025, 2000, 4094, 4095]
    for length in lengths:
        for i in range(3):
            tar.symlink(f"l{length}-{i}", "t" * length, uid=i * 40000)
    assert unpack(davit_index, tar.bytes(), out)[0] == "ok"
    for length in lengths:
        for i in range(3):
            assert os.readlink(os.path.join(out, f"l{length}-{i}")) == "t" * length


def test_many_hard_links(davit_index, out):
    data = plain_header("first", 4) + b"data".ljust(512, b"\0")
    data += b"".join(plain_header(f"d/{i}", 0, b"1", "first") for i in range(65600))
    assert unpack(davit_index, data + b"\0" * 1024, out)[:3] == ("ok", 4, 65601)
    assert os.stat(os.path.join(out, "first")).st_nlink == 65601
    assert os.path.samefile(os.path.join(out, "first"), os.path.join(out, "d/65599"))
    assert len(os.listdir(os.path.join(out, "d"))) == 65600


def test_xattrs(davit_index, out):
    """Shared and not, more than an inode can share, and as long as they may be."""
    tar = Tar()
    values = {f"user.{i}": f"value {i}".encode() for i in range(300)}
    for name in ("a", "b"):
        tar.file(name, pax_headers={f"SCHILY.xattr.{key}": value.decode()
                                    for key, value in values.items()})
    tar.dir("long", pax_headers={"SCHILY.xattr.user.long": "v" * 65000})
    tar.dir("name", pax_headers={"SCHILY.xattr.user." + "n" * 250: "v"})
    tar.file("name/below", b"x", pax_headers={"SCHILY.xattr.user.n": "v"})
    assert unpack(davit_index, tar.bytes(), out)[0] == "ok"
    tree = snapshot(out)
    assert tree[b"./a"]["xattrs"] == tree[b"./b"]["xattrs"] == values
    assert tree[b"./long"]["xattrs"] == {"user.long": b"v" * 65000}
    assert tree[b"./name"]["xattrs"] == {"user." + "n" * 250: b"v"}
    assert tree[b"./name/below"]["xattrs"] == {"user.n": b"v"}
    with pytest.raises(OSError):
        os.getxattr(os.path.join(out, "a"), "user.none")


def test_what_overlayfs_takes(davit_index, tmp_path):
    """Whiteouts and opaque directories hide what is below."""
    below, above, merged = (tmp_path / name for name in ("below", "above", "merged"))
    for directory in (below, above, merged):
        directory.mkdir()
    archive = (Tar().file("gone").dir("o").file("o/old").dir("d").file("d/old").dir("kept")
               .file("kept/old").dir("w").file("w/old").bytes())
    assert unpack(davit_index, archive, str(below))[0] == "ok"
    archive = (Tar().file(".wh.gone").file("o/.wh..wh..opq").file("o/new").file(".wh.d").dir("d")
               .file("kept/new").file(".wh.w").file("w/new").bytes())
    assert unpack(davit_index, archive, str(above))[0] == "ok"
    subprocess.run(["mount", "-t", "overlay", "-o", f"lowerdir={above}:{below}", "none",
                    str(merged)], check=True)
    found = sorted(str(path.relative_to(merged)) for path in merged.rglob("*"))
    assert found == ["d", "kept", "kept/new", "kept/old", "o", "o/new", "w", "w/new"]


# --- Large ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(5 << 30) + 1, (1 << 40) + 5])
def test_huge_file(davit_index, tmp_path, out, size):
    """An archive with a hole: what is read is what lies there, also beyond one chunk."""
    tar, index, sparse = (str(tmp_path / name) for name in ("tar", "index", "sparse"))
    end = 512 + size + -size % 512
    with open(tar, "wb") as file:
        file.write(plain_header("huge", size))
        for offset in (0, 1 << 32, size - 4):
            file.seek(512 + offset)
            file.write(b"mark")
        file.seek(end)
        file.write(plain_header("after", 3) + b"end".ljust(512, b"\0") + b"\0" * 1024)
    open(index, "wb").close()
    open(sparse, "wb").close()
    process = indexed.start(davit_index, tar, index, sparse)
    report = process.communicate(struct.pack("=Q", os.path.getsize(tar)))[0]
    assert report.split()[:3] == [b"ok", b"%d" % (size + 3), b"2"]
    indexed.mount(index, [tar], out)
    with open(os.path.join(out, "huge"), "rb") as file:
        assert os.fstat(file.fileno()).st_size == size
        for offset in (0, 1 << 32, size - 4):
            file.seek(offset)
            assert file.read(4) == b"mark"
        assert file.read() == b""
    with open(os.path.join(out, "after"), "rb") as file:
        assert file.read() == b"end"


def test_long_run_of_headers(davit_index, out):
    """Nothing to skip for many reads in a row."""
    data = b"".join(plain_header(f"d/{i}", 0) for i in range(50000)) + b"\0" * 1024
    assert unpack(davit_index, data, out)[:3] == ("ok", 0, 50000)
    assert len(os.listdir(os.path.join(out, "d"))) == 50000


def test_directories_without_entry_are_bounded(davit_index, tmp_path):
    """A path of 4 KiB makes two thousand of them."""
    archive = b"".join(plain_header(f"{i}/" + "d/" * 2000 + "f", 0) for i in range(2500))
    report = unpack(davit_index, archive, str(tmp_path))
    assert report[:2] == ("failed", "INVALID_LAYER")
    assert "more than fits in an index" in report[2]


# --- Sparse content -------------------------------------------------------------------------------


def sparse_archive(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, pieces in {"a": [(0, b"start"), (1 << 30, b"middle")], "b": [],
                         "c": [(8192, b"c" * 10000)]}.items():
        with open(tree / name, "wb") as file:
            for offset, data in pieces:
                file.seek(offset)
                file.write(data)
            file.truncate(1 << 31)
    (tree / "plain").write_bytes(b"plain" * 1000)
    return subprocess.run(["tar", "--sparse", "-c", "-f", "-", "-C", str(tree), "."],
                          stdout=subprocess.PIPE, check=True).stdout


def expected_seal(layer, sparse):
    digest = hashlib.sha256(pathlib.Path(layer.index).read_bytes())
    with open(sparse, "rb") as file:
        offset = 0
        while True:
            try:
                offset = os.lseek(file.fileno(), offset, os.SEEK_DATA) & ~4095
            except OSError:
                break
            block = os.pread(file.fileno(), 4096, offset).ljust(4096, b"\0")
            if any(block):
                digest.update(struct.pack("<Q", offset // 4096) + block)
            offset += 4096
    return digest.hexdigest()


def test_sparse_content_stays_sparse(layer, tmp_path, out):
    made = layer(sparse_archive(tmp_path))
    assert made.words[0] == "ok"
    assert os.path.getsize(made.sparse) == 3 << 31
    assert os.stat(made.sparse).st_blocks * 512 < 1 << 20
    made.mount(out)
    with open(os.path.join(out, "a"), "rb") as file:
        assert file.read(6) == b"start\0"
        file.seek(1 << 30)
        assert file.read(7) == b"middle\0"
    with open(os.path.join(out, "c"), "rb") as file:
        file.seek(8191)
        assert file.read(10002) == b"\0" + b"c" * 10000 + b"\0"
    with open(os.path.join(out, "plain"), "rb") as file:
        assert file.read() == b"plain" * 1000


def test_seal(layer, tmp_path):
    made = layer(sparse_archive(tmp_path))
    assert made.words[5] == "sha256:" + expected_seal(made, made.sparse)


def test_sparse_beyond_the_limit(davit_index, out):
    tar = Tar()
    for i in range(3):
        tar.file(f"f{i}", b"0\n".ljust(512, b"\0"), pax_headers={
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": f"f{i}",
            "GNU.sparse.realsize": str(500 << 30)})
    report = unpack(davit_index, tar.bytes(), out)
    assert report[:2] == ("failed", "INVALID_LAYER") and "f2" in report[2], report


# --- The process ----------------------------------------------------------------------------------


def some_archive():
    tar = Tar().dir("d")
    for i in range(300):
        tar.file(f"d/{i}", b"x" * (i * 37 % 3000), mtime=i % 3)
    return tar.bytes()


def test_same_archive_same_index(layer, davit_index):
    """However it arrives."""
    archive = some_archive()
    made = layer(archive)
    first = pathlib.Path(made.index).read_bytes(), made.report
    pick = random.Random(1)
    for counters in ([0, 0, len(archive)], range(0, len(archive) + 1, 512),
                     sorted(pick.randrange(len(archive)) for _ in range(500)) + [len(archive)]):
        os.truncate(made.index, 0)
        status, report = made.run(davit_index, counters)
        assert status == 0 and (pathlib.Path(made.index).read_bytes(), report) == first


def test_archive_that_grows(layer, davit_index):
    """It begins with what is there; the pipe may bring a number in parts."""
    archive = some_archive()
    made = layer(archive)
    first = pathlib.Path(made.index).read_bytes()
    os.truncate(made.index, 0)
    os.truncate(made.tar, 0)
    process = indexed.start(davit_index, made.tar, made.index, made.sparse)
    with open(made.tar, "ab", buffering=0) as file:
        for at in range(0, len(archive), 10007):
            file.write(archive[at:at + 10007])
            counter = struct.pack("=Q", min(at + 10007, len(archive)))
            for part in (counter[:3], counter[3:]):
                process.stdin.write(part)
                process.stdin.flush()
    assert process.communicate()[0] == made.report
    assert pathlib.Path(made.index).read_bytes() == first


def test_archive_shorter_than_said(layer, davit_index):
    made = layer(some_archive())
    os.truncate(made.tar, 5000)
    os.truncate(made.index, 0)
    status, report = made.run(davit_index, [10**6])
    assert status == 1 and report.startswith(b"failed 13 ")


def test_archive_that_ends_early(layer, davit_index):
    made = layer(some_archive())
    os.truncate(made.index, 0)
    status, report = made.run(davit_index, [5000])
    assert status == 1 and report.startswith(b"failed 15 INVALID_LAYER\n")
    assert os.path.getsize(made.index) == 0


@pytest.mark.parametrize("full", ["index", "sparse"])
def test_full_disk(davit_index, tmp_path, full):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
    tar = tmp_path / "tar"
    if full == "index":
        tar.write_bytes(b"".join(plain_header(f"{i}", 0) for i in range(5000)))
    else:
        tar.write_bytes(Tar().file("f", b"1\n0\n100000\n".ljust(512, b"\0") + b"x" * 100000,
                                   pax_headers={
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "f",
            "GNU.sparse.realsize": "200000"}).bytes())
    paths = {name: str((small if name == full else tmp_path) / name)
             for name in ("index", "sparse")}
    for path in paths.values():
        open(path, "wb").close()
    process = indexed.start(davit_index, str(tar), paths["index"], paths["sparse"])
    report = process.communicate(struct.pack("=Q", tar.stat().st_size))[0]
    assert process.returncode == 1 and report.startswith(b"failed 8 NO_SPACE\n"), report


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.skipif(SANITIZED, reason="sanitizers need memory of their own")
def test_confinement(layer, davit_index):
    made = layer(some_archive())
    os.truncate(made.index, 0)
    process = indexed.start(davit_index, made.tar, made.index, made.sparse)
    try:
        while status_of(process.pid)["Seccomp"] != "2":
            assert process.poll() is None
        status = status_of(process.pid)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[name], 16) == 0, name
        assert status["NoNewPrivs"] == "1"
        assert sorted(map(int, os.listdir(f"/proc/{process.pid}/fd"))) == [0, 1, 2, 3, 4, 5]
        with open(f"/proc/{process.pid}/limits", encoding="ascii") as limits:
            assert f"{512 << 20}" in next(line for line in limits if "address space" in line)
    finally:
        assert process.communicate(struct.pack("=Q", os.path.getsize(made.tar)))[0] == made.report


def test_ends_with_its_parent(layer, davit_index):
    made = layer(some_archive())
    libc = ctypes.CDLL(None)
    libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: the orphan becomes ours
    middle = subprocess.Popen(
        ["sh", "-c", 'exec 9<&0; "$0" 3<"$1" 4<>"$2" 5<>"$3" <&9 & echo $!; wait', davit_index,
         made.tar, made.index, made.sparse], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        orphan = int(middle.stdout.readline())
        while status_of(orphan)["NoNewPrivs"] != "1":
            pass
        middle.kill()
        middle.wait()
        assert os.waitstatus_to_exitcode(os.waitpid(orphan, 0)[1]) == -9
    finally:
        libc.prctl(36, 0, 0, 0, 0)
        middle.stdin.close()
        middle.stdout.close()


def test_by_hand(davit_index):
    run = subprocess.run([davit_index, "x"], stderr=subprocess.PIPE, check=False)
    assert run.returncode == 2 and b"not by hand" in run.stderr
