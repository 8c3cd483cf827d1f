"""Loading: what `davit load` makes of archives, what it says, and what it leaves of those that it
refuses. Archives of the real tools are in test_archives.py, hostile ones in
test_archive_attacks.py."""

import json
import os
import subprocess

import archives
import images
import pytest
import tars
from conftest import Davit, wait_until
from test_space import Disk

pytest_plugins = ("api",)

SMALL = images.image([images.layer([images.file("small", "1")]),
                      images.layer([images.file("more", b"2" * 5000)])],
                     config={"Labels": {"one": "small"}})
OTHER = images.image([images.layer([images.file("small", "1")]),
                      images.layer([images.file("other", "3")])])
NAMED = ((SMALL, ["example.com/a/b:1", "short:latest"]), (OTHER, ["other:2"]))
LOADED = ("Loaded image: example.com/a/b:1\nLoaded image: short:latest\n"
          "Loaded image: other:2\n")


@pytest.fixture(params=["erofs", "directory"])
def loader(request, make_davitd):
    """davit with each storage driver."""
    davit = Davit(make_davitd("--storage-driver", request.param))
    davit.driver = request.param
    return davit


@pytest.fixture
def archive(tmp_path):
    def make(members, outer="none", name="images.tar"):
        data = members if isinstance(members, bytes) else archives.pack(members)
        (tmp_path / name).write_bytes(archives.squeeze(data, outer))
        return tmp_path / name
    return make


def listed(davit):
    """{name: ID}; dangling ones under their IDs."""
    lines = davit("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout
    pairs = [line.split() for line in lines.splitlines()]
    return {image_id if "<none>" in name else name: image_id for name, image_id in pairs}


def layers_of(davit):
    return {entry.name: entry.stat().st_ino
            for entry in (davit.daemon.data_root / "layers").iterdir()}


def check_nothing_is_there(davit):
    assert listed(davit) == {} and layers_of(davit) == {}
    # What was stored is removed in the background.
    wait_until(lambda: not any((davit.daemon.data_root / "tmp").iterdir()), "an empty tmp")


# --- Forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", archives.FORMS)
def test_forms(loader, archive, form):
    """Each form, each time compressed in another way, from a file and from standard input."""
    members = archives.FORMS[form](*NAMED)
    outer = archives.OUTERS[1 + list(archives.FORMS).index(form)]
    assert loader("load", "-i", archive(members)).stdout == LOADED
    expected = {"example.com/a/b:1": SMALL.id, "short:latest": SMALL.id, "other:2": OTHER.id}
    assert listed(loader) == expected
    before = layers_of(loader)
    data = archives.squeeze(archives.pack(members), outer)
    assert loader("load", input=data, text=False).stdout.decode() == LOADED
    assert (listed(loader), layers_of(loader)) == (expected, before)  # and nothing stored again
    assert loader("system", "verify").code == 0


def test_compressed_layers_under_the_names_of_plain_ones(loader, archive):
    members = archives.podman_members(*NAMED)
    for layer in SMALL.layers + OTHER.layers:
        members[archives.hex_of(layer.diff_id) + ".tar"] = archives.squeeze(layer.tar, "gzip")
    for _ in range(2):
        assert loader("load", "-i", archive(members)).stdout == LOADED


def test_layers_are_what_was_in_the_archive(loader, archive):
    image = images.image([images.layer(images.busybox_entries())], config={"Cmd": ["echo", "hello"]})
    loader("load", "-i", archive(archives.docker_members((image, ["run:1"]))))
    if loader.driver == "erofs":
        path = loader.daemon.data_root / "layers" / archives.hex_of(image.layers[0].diff_id)
        assert (path / "layer.tar").read_bytes() == image.layers[0].tar
    assert loader("run", "--rm", "run:1").stdout == "hello\n"


def test_manifests_of_oci_layouts_are_kept(loader, archive, registry):
    """With compressed layers, too: what is pushed then has the digest of the layout."""
    compressed = images.image([images.layer([images.file("c", "4")], "gzip")], schema=images.OCI)
    name = f"{registry.host}/kept:1"
    loader("load", "-i", archive(archives.oci_members((compressed, [name]))))
    said = loader("push", name).stdout
    # erofs keeps no blob: it is compressed anew, which push tells.
    assert (f"digest: {compressed.digest} " in said) == (loader.driver == "directory")
    assert ("differs" in said) == (loader.driver == "erofs")


def test_the_platform_of_a_nested_index(loader, archive):
    native = images.native_platform()
    foreign = "arm64" if native.endswith("amd64") else "amd64"
    strange = images.image([images.layer([images.file("f", "foreign")])], schema=images.OCI,
                           platform=f"linux/{foreign}")
    ours = images.image([images.layer([images.file("f", "native")])], schema=images.OCI)
    index = images.index([strange, ours])
    loader("load", "-i", archive(archives.oci_members((index, ["multi:1"]))))
    assert listed(loader) == {"multi:1": ours.id}
    assert len(layers_of(loader)) == 1  # the others were stored as they came, and went again


def test_a_platform_that_is_wanted(loader, archive):
    native = images.native_platform()
    foreign = "arm64" if native.endswith("amd64") else "amd64"
    strange = images.image([images.layer([images.file("f", "foreign")])], schema=images.OCI,
                           platform=f"linux/{foreign}")
    ours = images.image([images.layer([images.file("f", "native")])], schema=images.OCI)
    both = archive(archives.oci_members((images.index([strange, ours]), ["multi:1"])))
    loader("load", "--platform", f"linux/{foreign}", "-i", both)
    assert listed(loader) == {"multi:1": strange.id}
    result = loader("save", "--platform", native, "multi:1", check=False)
    assert result.code == 1 and not result.stdout
    assert f"its platform (linux/{foreign}) does not match the specified" in result.stderr
    saved = loader("save", "--platform", f"linux/{foreign}", "multi", text=False).stdout
    assert saved == loader("save", "multi:1", text=False).stdout
    loader("rmi", "multi:1")
    one = archive(archives.docker_members((ours, ["one:1"])))
    result = loader("load", "--platform", f"linux/{foreign}", "-i", one, check=False)
    assert result.code == 1 and f"is for {native}, not for linux/{foreign}" in result.stderr
    assert listed(loader) == {} and not layers_of(loader)


def test_links_between_members(loader, archive):
    """docker 20.10 has a layer that comes twice as a symlink, tar(1) as a hard link."""
    members = archives.docker_members((SMALL, ["links:1"]))
    paths = [name for name in members if name.endswith("layer.tar")]
    content = members[paths[0]]
    members[paths[0]] = lambda name: tars.symlink(name, "../elsewhere/x.tar")
    linked = {**members, "elsewhere/x.tar": lambda name: tars.hardlink(name, "./real.tar"),
              "real.tar": content}
    loader("load", "-i", archive(linked))
    assert listed(loader) == {"links:1": SMALL.id}
    linked["real.tar"] = lambda name: tars.symlink(name, paths[0])
    result = loader("load", "-i", archive(linked), check=False)
    assert result.code == 1 and "is a link that leads nowhere" in result.stderr


def test_parents(loader, archive):
    parent_config = json.loads(SMALL.config)
    parent_config["history"] = [{"created_by": "a"}, {"created_by": "b"}]
    child_config = {**parent_config, "history": [*parent_config["history"], {"created_by": "c"}]}
    parent, child = (images.image(SMALL.layers, config_bytes=json.dumps(one).encode())
                     for one in (parent_config, child_config))
    members = archives.docker_members((child, ["child:1"]), (parent, []))
    lines = json.loads(members["manifest.json"])
    lines[0]["Parent"] = parent.id
    members["manifest.json"] = archives.to_json(lines)
    loader("load", "-i", archive(members))
    shown = json.loads(loader("image", "inspect", "child:1").stdout)[0]
    assert shown["Parent"] == parent.id
    lines[0]["Parent"], lines[1]["Parent"] = "", child.id
    members["manifest.json"] = archives.to_json(lines)
    result = loader("load", "-i", archive(members), check=False)
    assert f"image {child.id} is not a valid parent of {parent.id}" in result.stderr


# --- What is said --------------------------------------------------------------------------------


def test_documents_that_are_large_together(loader, archive):
    """What is said of many images of many layers is more than 4 MiB: each image's part is small."""
    some = [images.image([images.layer([images.file("number", str(number))])])
            for number in range(3)]
    members = archives.docker_members(*((image, [f"app:{number}"])
                                        for number, image in enumerate(some)))
    lines = json.loads(members["manifest.json"])
    for line in lines:
        line["LayerSources"] = {"x" * 2_000_000: [0] * 60_000}
    loader("load", "-i", archive({**members, "manifest.json": archives.to_json(lines)}))
    assert listed(loader) == {f"app:{number}": image.id for number, image in enumerate(some)}


def test_names_move(loader, archive):
    loader("load", "-i", archive(archives.docker_members((SMALL, ["name:1", "name:2"]))))
    second = archive(archives.docker_members((OTHER, ["name:1"]), (SMALL, ["name:2"])))
    assert loader("load", "-q", "-i", second).stdout == (
        f"The image name:1 already exists, renaming the old one with ID {SMALL.id} to empty string\n"
        "Loaded image: name:1\nLoaded image: name:2\n")
    assert listed(loader) == {"name:1": OTHER.id, "name:2": SMALL.id}


def test_more_names_than_are_told(loader, archive):
    """What does not fit in a message is counted: a load that succeeded says so."""
    names = [f"{'n' * 100}/{'m' * 100}:{'t' * 90}{number}" for number in range(8000)]
    for image, most in ((SMALL, 8000), (OTHER, 4500)):
        said = loader("load", "-i", archive(archives.docker_members((image, names)))).stdout
        lines = [line for line in said.splitlines() if line.startswith("Loaded image: ")]
        assert lines == [f"Loaded image: {name}" for name in names[:len(lines)]]
        assert 2000 < len(lines) < most
        assert said.endswith(f"\nLoaded {8000 - len(lines)} more, which are too many to name\n")
        assert len(listed(loader)) == 8000 + (image is OTHER)


def test_no_names(loader, archive):
    assert loader("load", "-i", archive(archives.podman_members((SMALL, [])))).stdout == \
        f"Loaded image ID: {SMALL.id}\n"
    assert listed(loader) == {SMALL.id: SMALL.id}


def test_events(davit, archive):
    davit("load", "-i", archive(archives.docker_members(*NAMED)))
    lines = davit("events", "--since", "0", "--until", "0s", "--filter", "event=load",
                  "--format", "{{json .}}").stdout.splitlines()
    told = [json.loads(line)["Actor"] for line in lines]
    assert told == [{"ID": SMALL.id, "Attributes": {"name": SMALL.id, "one": "small"}},
                    {"ID": OTHER.id, "Attributes": {"name": OTHER.id}}]


def test_progress_on_a_terminal(davit, archive):
    terminal = davit.pty("load", "-i", archive(archives.docker_members(*NAMED)))
    assert terminal.wait() == 0
    for layer in SMALL.layers:
        assert f"{archives.hex_of(layer.diff_id)[:12]}: " in terminal.output
    assert "Loading layer" in terminal.output
    assert terminal.output.replace("\r", "").endswith(LOADED)
    quiet = davit.pty("load", "-q", "-i", archive(archives.docker_members(*NAMED)))
    assert quiet.wait() == 0 and quiet.output.replace("\r", "") == LOADED


def test_bytes_read_never_fall(api):
    """Also where nobody said how many there will be."""
    data = archives.pack(archives.docker_members(*NAMED))
    read = [update.job.progress.bytes_fetched for update in api.load([data])]
    assert read == sorted(read) and read[-1] == len(data)


def test_nothing_to_load(davit, tmp_path):
    """An empty standard input, and a terminal, in Docker's words."""
    empty = "requested load from stdin, but stdin is empty\n"
    result = davit("load", check=False)
    assert (result.code, result.stderr) == (1, empty)
    terminal = davit.pty("load")
    assert terminal.wait() == 1 and terminal.output.replace("\r", "") == empty
    (tmp_path / "empty").touch()
    result = davit("load", "-i", tmp_path / "empty", check=False)
    assert result.stderr == "Error response from daemon: empty: the archive is empty\n"
    (tmp_path / "no-image").write_bytes(tars.END)
    result = davit("load", "-i", tmp_path / "no-image", check=False)
    assert result.stderr.startswith(
        "Error response from daemon: no-image: invalid archive: does not contain a manifest.json")
    result = davit("load", "-i", tmp_path / "none", check=False)
    assert result.stderr == f"open {tmp_path}/none: no such file or directory\n"
    assert davit("jobs", "-a", "--format", "{{.Kind}} {{.Subject}} {{.State}}").stdout == \
        "load no-image failed\nload empty failed\n"


# --- All or nothing ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", archives.FORMS)
def test_one_image_that_is_wrong_is_all(loader, archive, form):
    """The last image has a layer that is another one's: nothing of the first is there."""
    members = archives.FORMS[form](*NAMED)
    wrong = [name for name, content in members.items()
             if content in (OTHER.layers[1].tar, OTHER.layers[1].blob)]
    for name in wrong:
        members[name] = images.layer([images.file("a", "another")]).tar
    result = loader("load", "-i", archive(members), check=False)
    assert result.code == 1 and wrong[0] in result.stderr, result
    check_nothing_is_there(loader)
    assert loader("load", "-i", archive(archives.FORMS[form](*NAMED))).stdout == LOADED


def test_shared_layers_stay(loader, archive):
    """What another image has of an archive that is refused is still there."""
    loader("load", "-i", archive(archives.docker_members((SMALL, ["small:1"]))))
    before = layers_of(loader)
    members = archives.docker_members(*NAMED)
    del members[archives.hex_of(OTHER.id) + ".json"]
    result = loader("load", "-i", archive(members), check=False)
    assert f"the archive has no member \"{archives.hex_of(OTHER.id)}.json\"" in result.stderr
    assert (listed(loader), layers_of(loader)) == ({"small:1": SMALL.id}, before)


def test_a_full_disk(make_davitd, scratch, archive):
    """It is refused before the layer's first byte; the same succeeds once there is room."""
    disk = Disk(scratch, "ext4", 26 << 20)
    daemon = make_davitd("--storage-driver", "erofs", data_root=disk.path / "root")
    try:
        davit = Davit(daemon)
        large = images.image([images.layer([images.file("l", images.payload(20 << 20, "l", 0))],
                                           "none")])
        members = archives.docker_members((SMALL, ["small:1"]), (large, ["large:1"]))
        path = [name for name, content in members.items() if content == large.layers[0].tar][0]
        result = davit("load", "-i", archive(members), check=False)
        assert result.code == 1 and f"member \"{path}\" of 20" in result.stderr, result
        assert "is needed in" in result.stderr and "Hint: free some space" in result.stderr
        check_nothing_is_there(davit)
        disk.grow(60 << 20)
        davit("load", "-i", archive(members))
        assert listed(davit) == {"small:1": SMALL.id, "large:1": large.id}
    finally:
        daemon.stop()
        disk.close()


# --- Jobs ----------------------------------------------------------------------------------------


def begin(davit, archive, members):
    """A load from a pipe that has had most of the archive, and waits for the rest."""
    data = archives.pack(members)
    process = davit.start("load", stdin=subprocess.PIPE, text=False)
    process.stdin.write(data[:-2000])
    process.stdin.flush()
    return process, data[-2000:]


def test_a_job_that_is_cancelled(davit, archive):
    process, _ = begin(davit, archive, archives.docker_members(*NAMED))
    line = wait_until(lambda: davit("jobs", "--format", "{{.ID}} {{.Kind}} {{.Subject}}").stdout,
                      "the job")
    job_id, kind, subject = line.split()
    assert (kind, subject) == ("load", "stdin")
    davit("jobs", "cancel", job_id)
    _, errors = process.communicate()
    assert process.returncode == 1 and b"was cancelled" in errors
    check_nothing_is_there(davit)


def test_ctrl_c(davit, archive):
    terminal = davit.pty("load", "-i", archive_fifo(archive, davit))
    terminal.wait_for("Reading|Loading")
    terminal.send("\x03")
    assert terminal.wait() == 130
    wait_until(lambda: not davit("jobs").stdout.splitlines()[1:], "the end of the job")
    assert davit("jobs", "-a", "--format", "{{.State}}").stdout == "cancelled\n"
    check_nothing_is_there(davit)


def archive_fifo(archive, davit):
    """A FIFO that somebody holds open who writes most of an archive."""
    path = archive(b"").with_name("fifo")
    os.mkfifo(path)
    data = archives.pack(archives.docker_members(*NAMED))
    fd = os.open(path, os.O_RDWR)
    os.write(fd, data[:40000])
    davit.kept_open = fd
    return path


def test_an_archive_that_breaks_off(loader, archive):
    """At each kind of place."""
    data = archives.pack(archives.docker_members(*NAMED))
    for size in (1, 600, 5000, len(data) // 2, len(data) - 12000):
        result = loader("load", "-i", archive(data[:size]), check=False)
        assert result.code == 1 and "Error response from daemon" in result.stderr, (size, result)
    for outer in archives.OUTERS[1:]:
        result = loader("load", input=archives.squeeze(data, outer)[:-700], check=False, text=False)
        assert result.code == 1, (outer, result)
    check_nothing_is_there(loader)
