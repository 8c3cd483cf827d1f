"""Archives between davit, docker, podman and skopeo, as the real ones write and read them: the same
images, names, configurations and layers, to the byte; and they run."""

import gzip
import hashlib
import json
import os
import subprocess
import tarfile

import archives
import images
import pytest
from archives import hex_of
from conftest import Davit, _make_scratch, davitd_maker, our_processes, start
from docker_engine import DockerEngine

SECONDS = 60
DOMAIN = "example.com/archives"
BASE = images.layer(images.busybox_entries(), "none")
EDGES = images.layer([images.directory("d", uid=7), images.file("d/f", "content", 0o4711),
                      images.hardlink("d/h", "d/f"), images.symlink("d/l", "f"),
                      images.file("d/marked", "x", xattrs={"user.mark": b"value"}),
                      images.file("n" * 200 + "/" + "m" * 200, "long"), images.fifo("d/p"),
                      images.whiteout("etc/group")], "none")
ONE = images.image([BASE, EDGES, images.layer([images.file("which", "one")], "none")],
                   config={"Labels": {"b": "<&>\u00e9", "a": ""}, "Env": ["PATH=/bin", "X=y"]})
TWO = images.image([BASE, images.layer([images.file("which", "two")], "none")])
TAGS = {"one": [f"{DOMAIN}/one:1", f"{DOMAIN}/one:latest"], "two": [f"{DOMAIN}/two:2"]}
NAMED = ((ONE, TAGS["one"]), (TWO, TAGS["two"]))
BOTH = {ONE.id: set(TAGS["one"]), TWO.id: set(TAGS["two"])}


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


# --- What is in an archive -----------------------------------------------------------------------


class Archive:
    """As read by nothing of davit's. `images`: {ID: (names, diff_ids)}, of the description asked for;
    every digest is checked."""

    def __init__(self, path, form):
        self.members, self.infos = {}, []
        with tarfile.open(path) as tar:
            for info in tar:
                self.infos.append(info)
                self.members[info.name] = tar.extractfile(info).read() if info.isreg() else info
        self.images = {}
        getattr(self, form)()

    def member(self, name):
        found = self.members[name]
        while isinstance(found, tarfile.TarInfo):
            assert found.issym(), name
            found = self.members[os.path.normpath(os.path.join(os.path.dirname(found.name),
                                                               found.linkname))]
        return found

    def add(self, config, layers, names):
        diff_ids = json.loads(config)["rootfs"]["diff_ids"]
        plain = [gzip.decompress(one) if one[:2] == b"\x1f\x8b" else
                 subprocess.run(["zstd", "-dcq"], input=one, stdout=subprocess.PIPE,
                                check=True).stdout if one[:4] == b"\x28\xb5\x2f\xfd" else one
                 for one in layers]
        assert [sha256(one) for one in plain] == diff_ids
        self.images.setdefault(sha256(config), (set(), diff_ids))[0].update(names)

    def docker(self):
        for line in json.loads(self.member("manifest.json")):
            self.add(self.member(line["Config"]), [self.member(one) for one in line["Layers"]],
                     line["RepoTags"] or [])

    def blob(self, line):
        found = self.member(archives.blob_path(line["digest"]))
        assert (sha256(found), len(found)) == (line["digest"], line["size"])
        return found

    def oci(self):
        assert json.loads(self.member("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
        for line in json.loads(self.member("index.json"))["manifests"]:
            manifest = json.loads(self.blob(line))
            named = line.get("annotations", {})
            name = named.get("io.containerd.image.name") or \
                named.get("org.opencontainers.image.ref.name")
            self.add(self.blob(manifest["config"]), [self.blob(one) for one in manifest["layers"]],
                     [name] if name else [])

    @property
    def names(self):
        return {one: names for one, (names, _) in self.images.items()}


# --- The tools -----------------------------------------------------------------------------------


class Tool:
    def __call__(self, *arguments):
        process = start([*self.command, *arguments], stdin=subprocess.DEVNULL, text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment)
        said, errors = process.communicate(timeout=SECONDS)
        our_processes.discard(process.pid)
        assert process.returncode == 0, f"{arguments}: {said}{errors}"
        return said

    def listed(self):
        """{ID: names}"""
        found = {}
        for line in self("images", "--no-trunc", "--format",
                         "{{.ID}} {{.Repository}}:{{.Tag}}").splitlines():
            image_id, name = line.split()
            names = found.setdefault("sha256:" + hex_of(image_id), set())
            if "<none>" not in name:
                names.add(name)
        return found

    def clear(self):
        known = set(self("images", "-aq").split())
        if known:
            self("rmi", "-f", *known)


class Docker(Tool):
    def __init__(self, root):
        self.engine = DockerEngine(root).start()
        self.environment = self.engine.environment()
        self.command = ["docker"]
        self.run_options = ("--network", "none")

    def stop(self):
        self.engine.stop()


class Podman(Tool):
    def __init__(self, root):
        self.root = root
        # What it keeps elsewhere goes with the root, too.
        self.environment = {**os.environ, "HOME": str(root), "TMPDIR": str(root)}
        self.command = ["podman", "--root", root / "storage", "--runroot", root / "run", "--tmpdir",
                        root / "tmp", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
                        "--events-backend", "none"]
        # Otherwise it wants more open files than root may have everywhere.
        self.run_options = ("--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit",
                            "nproc=1024:1024")

    def stop(self):
        pass


class Skopeo(Tool):
    def __init__(self, root):
        self.environment = {**os.environ, "HOME": str(root), "TMPDIR": str(root)}
        self.command = ["skopeo", "--insecure-policy"]

    def config(self, name):
        return self("inspect", "--config", "--raw", name).encode()


@pytest.fixture(scope="module")
def tools():
    """docker, podman and skopeo; the first two have both images."""
    roots, made = {}, {}
    try:
        for kind in (Docker, Podman, Skopeo):
            root = roots.setdefault(kind, _make_scratch())
            made[kind.__name__.lower()] = kind(root)
        seed = roots[Skopeo] / "seed.tar"
        seed.write_bytes(archives.pack(archives.docker_members(*NAMED)))
        made["seed"] = seed
        for name in ("docker", "podman"):
            made[name]("load", "-i", seed)
            assert made[name].listed() == BOTH
        yield made
    finally:
        for name in ("docker", "podman"):
            if name in made:
                made[name].stop()
        for root in roots.values():
            subprocess.run(["umount", "-q", root / "storage/vfs"], check=False)
            subprocess.run(["rm", "-rf", root], check=True)


@pytest.fixture(scope="module", params=("erofs",))
def engine(request):
    """A daemon with a storage driver: erofs, if a test does not say otherwise."""
    with davitd_maker() as make:
        yield Davit(make("--storage-driver", request.param))


def with_driver(*names):
    return pytest.mark.parametrize("engine", names, indirect=True)


@pytest.fixture
def davit(engine):
    """One without images."""
    yield engine
    known = set(engine("images", "-aq", "--no-trunc").stdout.split())
    if known:
        engine("rmi", "-f", *known)


def listed(davit):
    found = {}
    for image in json_lines(davit("images", "--no-trunc", "--format", "{{json .}}").stdout):
        names = found.setdefault(image["ID"], set())
        if "<none>" not in (image["Repository"], image["Tag"]):
            names.add(f"{image['Repository']}:{image['Tag']}")
    return found


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


def check_runs(davit, name, which):
    """The image is the right one, with all that its layers say."""
    assert davit("run", "--rm", name, "cat", "which").stdout == which
    if which == "one":
        look = "stat -c '%a %u %h' d/f; readlink d/l; test -e etc/group || echo gone"
        assert davit("run", "--rm", name, "sh", "-c", look).stdout == "4711 0 2\nf\ngone\n"


# --- What others write ---------------------------------------------------------------------------

# name: (the description that it has, how it is written)
WRITERS = {
    "docker": ("docker", lambda tools, out: tools["docker"](
        "save", "-o", out, *TAGS["one"], *TAGS["two"])),
    "docker-by-id": ("docker", lambda tools, out: tools["docker"]("save", "-o", out, ONE.id)),
    "docker-by-repository": ("docker", lambda tools, out: tools["docker"](
        "save", "-o", out, f"{DOMAIN}/one")),
    "podman-docker": ("docker", lambda tools, out: tools["podman"](
        "save", "-q", "--format", "docker-archive", "-m", "-o", out, *TAGS["one"], *TAGS["two"])),
    "podman-oci": ("oci", lambda tools, out: tools["podman"](
        "save", "-q", "--format", "oci-archive", "-o", out, TAGS["one"][0])),
    "skopeo-docker": ("docker", lambda tools, out: tools["skopeo"](
        "copy", "-q", f"docker-archive:{tools['seed']}:{TAGS['one'][0]}",
        f"docker-archive:{out}:{TAGS['one'][0]}")),
    "skopeo-oci": ("oci", lambda tools, out: tools["skopeo"](
        "copy", "-q", f"docker-archive:{tools['seed']}:{TAGS['one'][0]}",
        f"oci-archive:{out}:{TAGS['one'][0]}")),
    "skopeo-oci-zstd": ("oci", lambda tools, out: tools["skopeo"](
        "copy", "-q", "--dest-compress-format", "zstd",
        f"docker-archive:{tools['seed']}:{TAGS['two'][0]}", f"oci-archive:{out}:{TAGS['two'][0]}")),
}


@pytest.mark.parametrize(("engine", "number"), [(("erofs", "directory")[number % 2], number)
                                                for number in range(len(WRITERS))],
                         ids=WRITERS, indirect=["engine"])
def test_what_others_save_is_loaded(davit, tools, scratch, number):
    form, write = list(WRITERS.values())[number]
    path = scratch / "archive.tar"
    write(tools, path)
    theirs = Archive(path, form)
    assert theirs.images
    outer = archives.OUTERS[number % len(archives.OUTERS)]
    (scratch / "packed").write_bytes(archives.squeeze(path.read_bytes(), outer))
    said = davit("load", "-i", scratch / "packed").stdout
    assert listed(davit) == theirs.names
    for image_id, (names, _) in theirs.images.items():
        for name in names:
            assert f"Loaded image: {name}\n" in said
        assert names or f"Loaded image ID: {image_id}\n" in said
        check_runs(davit, image_id, "two" if "two" in str(names) else "one")
    # Nothing of it has changed on the way: its config and each layer have the same bytes.
    davit("save", "-o", scratch / "again", *(sorted(names)[0] if names else image_id
                                             for image_id, (names, _) in theirs.images.items()))
    again = Archive(scratch / "again", "docker")
    assert {one: diff_ids for one, (_, diff_ids) in again.images.items()} == \
        {one: diff_ids for one, (_, diff_ids) in theirs.images.items()}
    assert davit("load", "-i", path).stdout == said  # which changes nothing
    assert listed(davit) == theirs.names


# --- What davit writes ---------------------------------------------------------------------------


@pytest.fixture
def saved(davit, tools, scratch):
    """The archive of both images."""
    davit("load", "-i", tools["seed"])
    assert listed(davit) == BOTH
    davit("save", "-o", scratch / "saved.tar", *TAGS["one"], *TAGS["two"])
    return scratch / "saved.tar"


@with_driver("erofs", "directory")
def test_a_saved_archive_is_two_things_that_agree(saved):
    """An OCI image layout, and what docker writes; each blob once; nothing of the machine in it."""
    docker, oci = Archive(saved, "docker"), Archive(saved, "oci")
    assert docker.images == oci.images
    assert docker.names == BOTH
    names = [info.name for info in oci.infos]
    assert len(names) == len(set(names))
    assert set(names) - {"blobs", "blobs/sha256"} == {
        "oci-layout", "index.json", "manifest.json", "repositories",
        *(name for name in names if name.startswith("blobs/sha256/"))}
    for info in oci.infos:
        assert (info.uid, info.gid, info.uname, info.gname, info.mtime) == (0, 0, "", "", 0)
        if info.name.startswith("blobs/sha256/"):
            assert sha256(oci.members[info.name]) == "sha256:" + info.name.split("/")[2]
    assert json.loads(oci.members["repositories"]) == {
        f"{DOMAIN}/one": dict.fromkeys(("1", "latest"), hex_of(ONE.layers[-1].diff_id)),
        f"{DOMAIN}/two": {"2": hex_of(TWO.layers[-1].diff_id)}}


def test_the_same_images_give_the_same_archive(davit, saved, scratch):
    """In any order, to a file or a pipe, and from another daemon that has loaded it."""
    expected = saved.read_bytes()
    names = [*TAGS["two"], *reversed(TAGS["one"])]
    assert davit("save", *names, text=False).stdout == expected
    with davitd_maker() as make:
        other = Davit(make("--storage-driver", "directory"))
        other("load", input=expected, text=False)
        assert listed(other) == BOTH
        assert other("save", *names, text=False).stdout == expected


def test_docker_and_podman_load_what_davit_saves(saved, tools):
    for name in ("docker", "podman"):
        tool = tools[name]
        tool.clear()
        assert tool.listed() == {}
        tool("load", "-i", saved)
        assert tool.listed() == BOTH
        for tag, which in ((TAGS["one"][0], "one"), (TAGS["two"][0], "two")):
            assert tool("run", "--rm", *tool.run_options, tag, "cat", "which") == which


def test_skopeo_reads_what_davit_saves(saved, tools, davit, scratch):
    skopeo = tools["skopeo"]
    for image, tags in NAMED:
        for tag in tags:
            assert skopeo.config(f"docker-archive:{saved}:{tag}") == image.config
    # An OCI archive is asked by its annotation, in which docker has the tag alone.
    davit("save", "-o", scratch / "two.tar", TAGS["two"][0])
    assert skopeo.config(f"oci-archive:{scratch / 'two.tar'}") == TWO.config
    skopeo("copy", "-q", f"oci-archive:{scratch / 'two.tar'}", f"dir:{scratch / 'dir'}")
    manifest = json.loads((scratch / "dir/manifest.json").read_text())
    assert [one["digest"] for one in manifest["layers"]] == [one.diff_id for one in TWO.layers]


def test_a_layout_on_the_disk(saved, tools, scratch):
    """Unpacked, it is an OCI layout for whoever reads these."""
    (scratch / "layout").mkdir()
    subprocess.run(["tar", "-xf", saved, "-C", scratch / "layout"], check=True)
    index = json.loads((scratch / "layout/index.json").read_text())
    assert {line["digest"] for line in index["manifests"]}
    tagged = next(line["annotations"]["org.opencontainers.image.ref.name"]
                  for line in index["manifests"])
    config = tools["skopeo"].config(f"oci:{scratch / 'layout'}:{tagged}")
    assert sha256(config) in BOTH


@with_driver("directory")
def test_there_and_back_again(saved, tools, davit, scratch):
    """davit, docker, davit, podman, davit: the same."""
    path = saved
    for name, options in (("docker", ()), ("podman", ("-q", "-m"))):
        tool = tools[name]
        tool.clear()
        tool("load", "-i", path)
        path = scratch / f"{name}.tar"
        tool("save", *options, "-o", path, *TAGS["one"], *TAGS["two"])
        assert Archive(path, "docker").names == BOTH
        davit("rmi", "-f", *BOTH)
        davit("load", "-i", path)
        assert listed(davit) == BOTH
        path = scratch / f"after-{name}.tar"
        davit("save", "-o", path, *TAGS["one"], *TAGS["two"])
        assert path.read_bytes() == saved.read_bytes()
