"""davit save: which images its names stand for, what a program and a terminal see of it, and what
it takes to give out layers that are kept unpacked. Archives themselves are in test_archives.py,
readers that stall or leave in test_archive_clients.py."""

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile

import archives
import images
import pytest
from conftest import Davit

pytest_plugins = ["api"]

SHARED = images.layer([images.file("shared", images.payload(300_000, "shared"))])
ONE = images.image([SHARED, images.layer([images.file("one", "1")])])
TWO = images.image([SHARED, images.layer([images.file("two", "2")])])
# For archives of which no part fits into what is on its way.
LARGE = images.image([images.layer([images.file("large", images.payload(3_000_000, "large", 0))])])


@pytest.fixture
def shelf(davit, registry):
    """shelf(image, name, ...): pulled, by these names only."""
    def add(image, *names):
        pulled = registry.push(f"save/{image.id[7:19]}", image)
        davit("pull", "-q", pulled)
        for name in names:
            davit("tag", pulled, name)
        davit("rmi", pulled)
        return pulled

    return add


def read(data):
    """{name: content} of an archive."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar if info.isfile()}


def names_in(data):
    """{image's ID: its names} of an archive."""
    return {"sha256:" + one["Config"].rsplit("/")[-1]: one["RepoTags"]
            for one in json.loads(read(data)["manifest.json"])}


def save(davit, *names):
    return davit("save", *names, text=False).stdout


# --- Which images --------------------------------------------------------------------------------


def test_what_names_stand_for(davit, shelf):
    shelf(ONE, "app:1", "app:latest", "other/app:x")
    shelf(TWO, "app:2")
    all_of_it = {ONE.id: ["app:1", "app:latest"], TWO.id: ["app:2"]}
    assert names_in(save(davit, "app")) == all_of_it
    assert names_in(save(davit, "app:1")) == {ONE.id: ["app:1"]}
    assert names_in(save(davit, ONE.id)) == {ONE.id: None}
    assert names_in(save(davit, ONE.id[7:15], TWO.id[7:19])) == {ONE.id: None, TWO.id: None}
    assert names_in(save(davit, "app:1", ONE.id, "docker.io/library/app:1")) == {ONE.id: ["app:1"]}
    assert names_in(save(davit, "app", "other/app:x")) == \
        {**all_of_it, ONE.id: ["app:1", "app:latest", "other/app:x"]}


def test_a_name_by_digest_is_no_tag(davit, registry):
    name = registry.push("save/digest", ONE)
    davit("pull", "-q", name)
    repository = name.removesuffix(":latest")
    assert names_in(save(davit, f"{repository}@{ONE.digest}")) == {ONE.id: None}
    assert names_in(save(davit, repository)) == {ONE.id: [name]}


def test_layers_are_there_once_and_as_they_were(davit, shelf):
    shelf(ONE, "app:1")
    shelf(TWO, "app:2")
    members = read(save(davit, "app"))
    for image in (ONE, TWO):
        assert members[archives.blob_path(image.id)] == image.config
        for layer in image.layers:
            assert members[archives.blob_path(layer.diff_id)] == layer.tar
    assert sum(name.startswith("blobs/") for name in members) == 3 + 2 + 2


def test_many_images_of_many_layers_come_back(make_davitd, scratch):
    """Of which the list in the archive is larger than other documents may be."""
    layers = [images.layer([images.file("number", str(number))], "none") for number in range(40)]
    some = [images.image(layers, config={"User": str(number)}) for number in range(400)]
    (scratch / "in.tar").write_bytes(archives.pack(archives.docker_members(
        *((image, [f"app:{number}"]) for number, image in enumerate(some)))))
    davit, other = Davit(make_davitd()), Davit(make_davitd())
    davit("load", "-q", "-i", scratch / "in.tar")
    davit("save", "-o", scratch / "out.tar", "app")
    with tarfile.open(scratch / "out.tar") as tar:
        assert tar.getmember("manifest.json").size > 4 << 20
    loaded = other("load", "-i", scratch / "out.tar").stdout
    assert sorted(loaded.splitlines()) == sorted(
        f"Loaded image: app:{number}" for number in range(400))


@pytest.mark.parametrize("name, said", [
    ("nothing", "No such image: nothing"), ("nothing:1", "No such image: nothing:1"),
    ("app:2", "No such image: app:2"), ("abcdef12", "No such image: abcdef12"),
    ("sha256:abcd", "No such image: sha256:abcd"),
    ("App", "invalid reference format: repository name (library/App) must be lowercase"),
    ("", "invalid reference format"), ("a:b:c", "invalid reference format"),
])
def test_a_wrong_name_writes_nothing(davit, shelf, scratch, name, said):
    shelf(ONE, "app:1")
    failed = davit("save", "-o", scratch / "archive.tar", "app:1", name, check=False)
    assert (failed.code, failed.stdout) == (1, "")
    assert failed.stderr.splitlines()[0] == f"Error response from daemon: {said}"
    assert os.listdir(scratch) == []
    assert davit("save", "app:1", name, check=False).stdout == ""


# --- What is seen of it --------------------------------------------------------------------------


def test_its_length_is_told_before_the_first_byte(davitd, davit, shelf, make_api):
    shelf(LARGE, "large:1")
    shelf(ONE, "app:1")
    api = make_api(davitd)
    for names in (("large:1", "app:1"), ("app:1",)):
        first, *pieces = api.save(*names)
        data = b"".join(piece.data for piece in pieces)
        assert first.start.bytes_total == len(data)
        assert data == save(davit, *names)
        job, = (one for one in api.list_jobs(everything=True) if one.id == first.start.job_id)
        assert (job.kind, job.state) == (api.jobs.Job.SAVE, api.jobs.Job.DONE)
        assert job.progress.bytes_fetched == job.progress.bytes_total == len(data)
        assert job.progress.percent == 100
    assert job.subject == "app:1"


def test_a_job_shows_how_far_it_is(davitd, davit, shelf, make_api):
    shelf(LARGE, "large:1")
    api = make_api(davitd, [("grpc.http2.bdp_probe", 0)])  # what it has not read is not sent
    call = api.save("large:1")
    start = next(call).start
    next(call)  # and then nobody reads
    job = next(update.job for update in api.watch_job(start.job_id)
               if update.job.progress.bytes_fetched)
    assert (job.subject, job.state) == ("large:1", api.jobs.Job.RUNNING)
    assert 0 < job.progress.bytes_fetched < job.progress.bytes_total == start.bytes_total
    item, = job.progress.items
    assert item.id == LARGE.layers[0].diff_id
    assert item.state == api.jobs.JobItem.SENDING
    assert 0 < item.bytes_fetched < item.bytes_total == len(LARGE.layers[0].tar)
    call.cancel()
    assert [*api.watch_job(start.job_id)][-1].job.state == api.jobs.Job.CANCELLED


def test_a_terminal_shows_a_bar_and_the_pipe_has_the_archive(davit, shelf, scratch):
    shelf(LARGE, "large:1")
    terminal = davit.pty("save", "-o", scratch / "archive.tar", "large:1")
    assert terminal.wait() == 0
    shown = re.findall(r"Saving  \[(=*)> *\]  (\S+)/(\S+)", terminal.output)
    assert shown and shown[-1][1] == shown[-1][2]
    assert terminal.output.endswith("\r\x1b[K\x1b[?25h")  # nothing of it stays
    assert (scratch / "archive.tar").read_bytes() == save(davit, "large:1")
    assert davit("save", "-o", scratch / "archive.tar", "large:1").stderr == ""


# --- Layers that are kept unpacked ---------------------------------------------------------------


def blob_of(daemon, layer):
    return daemon.data_root / "layers" / layer.diff_id[7:] / "layer.blob"


def loaded(make_davitd, scratch, image, *arguments):
    davit = Davit(make_davitd("--storage-driver", "directory", *arguments))
    (scratch / "given.tar").write_bytes(
        archives.pack(archives.docker_members((image, ["app:1"]))))
    davit("load", "-q", "-i", scratch / "given.tar")
    return davit


def disk_usage(davit):
    usage = json.loads(davit("system", "df", "--format", "json").stdout.splitlines()[0])
    return usage["SizeBytes"]


def test_what_was_pulled_is_given_out_of_the_blob(make_davitd, registry):
    davit = Davit(make_davitd("--storage-driver", "directory"))
    name = registry.push("save/unpacked", ONE)
    davit("pull", "-q", name)
    for layer in ONE.layers:
        assert blob_of(davit.daemon, layer).read_bytes() == layer.blob
    members = read(save(davit, name))
    for layer in ONE.layers:
        assert members[archives.blob_path(layer.diff_id)] == layer.tar


def test_what_came_without_a_blob_gets_one(make_davitd, scratch):
    davit = loaded(make_davitd, scratch, ONE)
    members = read(save(davit, "app:1"))
    for layer in ONE.layers:
        inflated = subprocess.run(["zstd", "-dc", blob_of(davit.daemon, layer)], check=True,
                                  stdout=subprocess.PIPE).stdout
        assert inflated == members[archives.blob_path(layer.diff_id)] == layer.tar
    assert blob_of(davit.daemon, SHARED).stat().st_size < 0.8 * len(SHARED.tar)
    du = subprocess.run(["du", "-s", "-B1", davit.daemon.data_root / "layers"], check=True,
                        stdout=subprocess.PIPE, text=True).stdout
    assert abs(int(du.split()[0]) - disk_usage(davit)) <= 16384
    # A daemon that finds it there, and one that looks whether it is still right.
    davit.daemon.stop()
    davit.daemon.start()
    assert read(save(davit, "app:1")) == members
    assert ", 0 problems" in davit("system", "verify").stdout
    davit("rmi", "app:1")
    davit("system", "prune", "-f")
    assert disk_usage(davit) == 0


def test_a_blob_that_changed_is_found(make_davitd, scratch):
    davit = loaded(make_davitd, scratch, ONE)
    blob = blob_of(davit.daemon, SHARED)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    for attempt in ("read", "known"):
        failed = davit("save", "-o", scratch / "archive.tar", "app:1", check=False)
        assert failed.code == 1, attempt
        assert failed.stderr.startswith("Error response from daemon: cannot save app:1: the "
                                        f"compressed copy of layer {SHARED.diff_id[:19]} is damaged")
        assert "davit system verify --repair" in failed.stderr
        assert "archive.tar" not in os.listdir(scratch)
        verified = davit("system", "verify", check=False)
        assert verified.code == 1 and "layer.blob" in verified.stdout


def test_where_blobs_are_dropped_it_says_so(make_davitd, scratch):
    davit = loaded(make_davitd, scratch, ONE, "--keep-compressed=false")
    assert not blob_of(davit.daemon, SHARED).exists()
    failed = davit("save", "-o", scratch / "archive.tar", "app:1", check=False)
    assert failed.code == 1
    assert f"cannot save app:1: layer {SHARED.diff_id[:19]} is kept unpacked only" in failed.stderr
    assert "keep-compressed" in failed.stderr
    assert os.listdir(scratch) == ["given.tar"]


def test_a_blob_that_came_along_is_kept_as_it_is(make_davitd, scratch):
    davit = Davit(make_davitd("--storage-driver", "directory"))
    (scratch / "given.tar").write_bytes(archives.pack(archives.oci_members((ONE, ["app:1"]))))
    davit("load", "-q", "-i", scratch / "given.tar")
    for layer in ONE.layers:
        assert blob_of(davit.daemon, layer).read_bytes() == layer.blob
    assert names_in(save(davit, ONE.id)) == {ONE.id: None}
    assert hashlib.sha256(read(save(davit, ONE.id))[archives.blob_path(SHARED.diff_id)]).hexdigest() \
        == SHARED.diff_id[7:]
