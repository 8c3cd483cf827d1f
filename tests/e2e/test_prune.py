"""`davit system prune`: what it removes, what it leaves, and what it says."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import time

import docker_images
import images
import pytest
from conftest import Davit
from fault_registry import Fault, FaultRegistry

# Of docker 20.10 and 28, but for what davit has not, or has besides.
QUESTION = """WARNING! This will remove:
  - all {}
  - all layers that no image has
  - all downloads that were broken off
{}
Are you sure you want to continue? [y/N] """
DANGLING = "dangling images"
UNUSED = "images without at least one container associated to them"


def push(registry, name, text, **more):
    return registry.push(name, images.busybox_image([[images.file("content", text)]], **more))


def ids(davit):
    return set(davit("images", "-q", "--no-trunc").stdout.split())


def make_dangling(davit, registry, name):
    """Two images, of which the first has lost its name to the second; returns both IDs."""
    davit("pull", "-q", push(registry, name, f"{name} old"))
    (old,) = ids(davit)
    davit("pull", "-q", push(registry, name, f"{name} new"))
    (new,) = ids(davit) - {old}
    return old, new


def keep_download(davitd, letter="a", size=100_000, age_seconds=0):
    """As far as pruning looks at it, what a pull leaves that was cancelled."""
    path = davitd.data_root / "partial" / (letter * 64)
    path.write_bytes(os.urandom(size))
    then = time.time() - age_seconds
    os.utime(path, (then, then))
    return path


def usage(davit):
    """Rows of df, by their type."""
    lines = davit("system", "df", "--format", "json").stdout.splitlines()
    return {row["Type"]: row for row in map(json.loads, lines)}


def total_bytes(davit):
    return sum(row["SizeBytes"] for kind, row in usage(davit).items() if kind != "Database")


def disk_bytes(davitd):
    out = subprocess.run(["du", "-sx", "--block-size=1", davitd.data_root], check=True,
                         capture_output=True, text=True).stdout
    return int(out.split()[0])


def test_what_has_no_name_goes(davit, davitd, registry):
    old, new = make_dangling(davit, registry, "prune/dangling")
    download = keep_download(davitd)
    before = total_bytes(davit)
    said = davit("system", "prune", "-f").stdout
    # A blank line after each kind, then the sum.
    match = re.fullmatch(
        r"Deleted Images:\nuntagged: \S+/prune/dangling@sha256:\w{64}\n"
        rf"deleted: {old}\ndeleted: sha256:\w{{64}}\n\n"
        r"Deleted Partial Downloads: 1\n\nTotal reclaimed space: (\S+)\n", said)
    assert match, said
    assert ids(davit) == {new} and not download.exists()
    freed = before - total_bytes(davit)
    assert freed > 100_000 and match[1] == f"{float(f'{freed / 1000:.4g}'):g}kB"
    assert davit("system", "prune", "-f").stdout == "Total reclaimed space: 0B\n"


def test_all_leaves_what_containers_have(davit, registry):
    used = push(registry, "prune/used", "used")
    davit("pull", "-q", used)
    (used_id,) = ids(davit)
    davit("pull", "-q", push(registry, "prune/unused", "unused"))
    running = davit.start("run", "--rm", "-i", used, "cat", stdin=subprocess.PIPE)
    running.stdin.write(b"x")
    running.stdin.flush()
    assert running.stdout.read(1) == b"x"
    assert davit("system", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
    said = davit("system", "prune", "--all", "--force").stdout
    assert "untagged: " in said and "prune/unused:latest\n" in said and "prune/used" not in said
    assert ids(davit) == {used_id}
    running.stdin.close()
    assert running.wait() == 0
    davit("system", "prune", "-af")
    assert ids(davit) == set()


def test_layers_of_no_image_go(make_davitd):
    davitd = make_davitd("--max-concurrent-downloads", "1")  # one after the other
    davit = Davit(davitd)
    with FaultRegistry() as registry:
        layers = [images.layer([images.file(name, name * 50_000)], "none") for name in "ab"]
        registry.fault(layers[1].digest, Fault(status=404))
        failed = davit("pull", registry.push("prune/half", images.image(layers)), check=False)
        assert failed.code == 1
    assert os.listdir(davitd.data_root / "layers") == [layers[0].diff_id[7:]]
    assert davit("system", "prune", "-f", "--filter", "until=1h").stdout == (
        "Total reclaimed space: 0B\n")
    said = davit("system", "prune", "-f").stdout
    assert said.startswith(f"Deleted Layers:\n{layers[0].diff_id}\n\nTotal reclaimed space: 6")
    assert os.listdir(davitd.data_root / "layers") == []


def test_until(davit, davitd, registry):
    davit("pull", "-q", push(registry, "prune/2020", "2020", created="2020-05-05T00:00:00Z"))
    davit("pull", "-q", push(registry, "prune/2024", "2024", created="2024-05-05T00:00:00Z"))
    old, new = keep_download(davitd, "a", age_seconds=7200), keep_download(davitd, "b")
    davit("system", "prune", "-af", "--filter", "until=2019-01-01")
    assert len(ids(davit)) == 2 and old.exists()
    # All of them must be true.
    said = davit("system", "prune", "-af", "--filter", "until=1h", "--filter",
                 "until=2022-01-01T00:00:00Z").stdout
    assert "prune/2020:latest" in said and "2024" not in said and old.exists()
    davit("system", "prune", "-f", "--filter", "until=1h")
    assert not old.exists() and new.exists()
    assert len(ids(davit)) == 1


@pytest.mark.parametrize("command", ["image", "system"])
@pytest.mark.parametrize("wrong,why", [
    ("until=soon", 'failed to parse value as time or duration: "soon"'),
    ("until=", 'failed to parse value as time or duration: ""'),
    ("size=1", "invalid filter 'size'"),
    ("since=x", "invalid filter 'since'"),
])
def test_wrong_filters(davit, command, wrong, why):
    refused = davit(command, "prune", "-f", "--filter", wrong, check=False)
    assert refused.code == 1
    assert refused.stderr.splitlines()[0] == f"Error response from daemon: {why}"


def test_labels(davit, davitd, registry):
    """Both kinds of filter, on both commands; what has no labels stays if one is asked for."""
    for name, labels in (("a", {"keep": "yes"}), ("b", {"keep": "no", "x": "1"}), ("c", {})):
        davit("pull", "-q", push(registry, f"prune/label-{name}", name, config={"Labels": labels}))
    download = keep_download(davitd)

    def left():
        return {row[-1] for row in re.findall(r"prune/label-\w", davit("images").stdout)}

    davit("image", "prune", "-af", "--filter", "label=keep=maybe")
    davit("system", "prune", "-af", "--filter", "label=keep", "--filter", "label=x=2")
    assert left() == {"a", "b", "c"} and download.exists()
    davit("image", "prune", "-af", "--filter", "label!=keep=yes", "--filter", "label=x")
    assert left() == {"a", "c"}
    davit("system", "prune", "-af", "--filter", "label=keep=yes")
    assert left() == {"c"} and download.exists()
    davit("system", "prune", "-af", "--filter", "label!=keep")
    assert left() == set() and not download.exists()


def test_image_prune_says_what_docker_says(davit, davitd, registry):
    old, new = make_dangling(davit, registry, "prune/image")
    download = keep_download(davitd)
    before = usage(davit)["Images"]["SizeBytes"]
    asked = davit("image", "prune", input="n\n")
    assert asked.stdout == ("WARNING! This will remove all dangling images.\n"
                            "Are you sure you want to continue? [y/N] ")
    asked = davit("image", "prune", "-a", input="")
    assert asked.stdout.startswith("WARNING! This will remove all images without at least one "
                                   "container associated to them.\n"
                                   "Are you sure you want to continue? [y/N] ")
    planned = davit("image", "prune", "--dry-run").stdout
    assert ids(davit) == {old, new}
    said = davit("image", "prune", input="y\n").stdout
    lines = said.split("[y/N] ")[1].splitlines()
    assert lines[0] == "Deleted Images:" and lines[2] == f"deleted: {old}"
    assert re.fullmatch(r"untagged: \S+/prune/image@sha256:\w{64}", lines[1])
    assert re.fullmatch(r"deleted: sha256:\w{64}", lines[3])
    freed = before - usage(davit)["Images"]["SizeBytes"]
    assert lines[4:] == ["", f"Total reclaimed space: {float(f'{freed / 1000:.4g}'):g}kB"]
    assert planned.splitlines() == ["Would Delete Images:", *lines[1:5],
                                    lines[5].replace("Total reclaimed space",
                                                     "Total space that would be reclaimed")]
    assert ids(davit) == {new} and download.exists()  # no system prune
    assert davit("image", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
    refused = davit("image", "prune", "-f", "--filter", "dangling=false", check=False)
    assert refused.code == 1
    assert "invalid filter 'dangling=[false true]'" in refused.stderr
    davit("image", "prune", "-af")
    assert ids(davit) == set()


def test_a_dry_run_removes_nothing(davit, davitd, registry):
    make_dangling(davit, registry, "prune/dry")
    download = keep_download(davitd)
    before = disk_bytes(davitd), davit("images", "-a").stdout, total_bytes(davit)
    planned = davit("system", "prune", "-a", "--dry-run").stdout
    events = davit("events", "--since", "1h", "--until", "0s").stdout
    assert (davit("images", "-a").stdout, total_bytes(davit)) == before[1:]
    assert abs(disk_bytes(davitd) - before[0]) < 200_000 and download.exists()
    assert "image prune" not in events and "image delete" not in events
    done = davit("system", "prune", "-af").stdout
    assert planned == done.replace("Deleted ", "Would Delete ").replace(
        "Total reclaimed space", "Total space that would be reclaimed")
    assert download.exists() is False


def test_what_a_container_had_stays_after_a_restart(davitd, davit, registry):
    name = push(registry, "prune/stopped", "stopped")
    davit("pull", "-q", name)
    davit("run", name, "true")
    davitd.kill()
    davitd.start()
    assert davit("image", "prune", "-af").stdout == "Total reclaimed space: 0B\n"
    assert len(ids(davit)) == 1


@pytest.mark.parametrize("answer", ["n\n", "yes\n", "\n", ""])
def test_without_a_yes_nothing_goes(davit, davitd, answer):
    download = keep_download(davitd)
    result = davit("system", "prune", input=answer)
    assert result.stdout.rstrip("\n") == QUESTION.format(DANGLING, "").rstrip("\n")
    assert download.exists()


def test_the_question(davit, davitd):
    download = keep_download(davitd)
    terminal = davit.pty("system", "prune", "-a", "--filter", "until=1s")
    terminal.wait_for(r"\[y/N\] ")
    assert download.exists()
    terminal.send("Y\n")
    assert terminal.wait() == 0
    filters = "\n  Items to be pruned will be filtered with:\n  - until=1s\n"
    said = terminal.output.replace("\r\n", "\n")
    assert said.startswith(QUESTION.format(UNUSED, filters)), said
    assert said.endswith("Total reclaimed space: 0B\n")  # it was younger
    davit("system", "prune", input="y\n")
    assert not download.exists()


def test_a_cancelled_download_is_counted_and_goes(davit, davitd, wait_until):
    def downloads():
        return usage(davit)["Partial downloads"]

    with FaultRegistry() as registry:
        layer = images.layer([images.file("f", os.urandom(3_000_000))], "none")
        registry.fault(layer.digest, Fault(stall_after=2_000_000), times=1)
        name = registry.push("prune/cancelled", images.image([layer]))
        running = davit.start("pull", "-q", name)
        registry.wait_stalled()
        wait_until(lambda: downloads()["SizeBytes"] > 1_700_000, "the bytes to be counted")
        assert (downloads()["TotalCount"], downloads()["Active"]) == ("1", "1")
        assert downloads()["ReclaimableBytes"] == 0
        assert davit("system", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
        running.send_signal(signal.SIGINT)
        running.wait()
        wait_until(lambda: downloads()["Active"] == "0", "the pull to end")
        kept = downloads()
        assert kept["TotalCount"] == "1" and kept["ReclaimableBytes"] == kept["SizeBytes"]
        total = sum(row["SizeBytes"] for row in usage(davit).values())
        assert abs(total - disk_bytes(davitd)) < total / 100
        said = davit("system", "prune", "-f").stdout
        assert said.startswith("Deleted Partial Downloads: 1\n\nTotal reclaimed space: 2"), said
        assert os.listdir(davitd.data_root / "partial") == []
        registry.release()
        davit("pull", "-q", name)
        assert downloads()["TotalCount"] == "0"


def test_it_is_a_job_and_an_event(davit, davitd):
    keep_download(davitd, size=100_000)
    davit("system", "prune", "-f")
    (job,) = davit("jobs", "-a").stdout.splitlines()[1:]
    assert re.search(r"\bprune\b.*\bdone\b", job, re.I), job
    (event,) = davit("events", "--since", "1h", "--until", "0s").stdout.splitlines()
    assert re.search(r" image prune .*\breclaimed=10\d{4}\b", event), event


def load(davit, path, *members):
    path.write_bytes(docker_images.archive(members))
    davit("load", "-q", "-i", path)


def made(name, year):
    return docker_images.make([images.layer([images.file(name, name)])], f"{year}-05-05T00:00:00Z")


def test_what_went_before_a_failure_is_said(davit, davitd, tmp_path):
    old, new = made("old", 2020), made("new", 2024)  # that goes first
    load(davit, tmp_path / "two.tar", docker_images.Member(old), docker_images.Member(new))
    with contextlib.closing(sqlite3.connect(davitd.data_root / "davit.db")) as database, database:
        database.execute("CREATE TRIGGER no BEFORE DELETE ON images "
                         f"WHEN old.id = '{old.id}' BEGIN SELECT RAISE(FAIL, 'no'); END")
    failed = davit("image", "prune", "-f", check=False)
    assert failed.code == 1 and ids(davit) == {old.id}
    assert failed.stdout.startswith(f"Deleted Images:\ndeleted: {new.id}\n")
    assert "cannot remove everything that is not used" in failed.stderr
    assert "image prune" in davit("events", "--since", "1h", "--until", "0s").stdout
    failed = davit("image", "prune", "-f", check=False)
    assert failed.code == 1 and failed.stdout == ""


def test_more_than_a_message_has_room_for(davit, tmp_path):
    image = made("many", 2024)
    tags = [f"{'x' * 120}/{'y' * 110}:t{number:05}" for number in range(10_000)]
    load(davit, tmp_path / "many.tar", docker_images.Member(image, tags))
    for options in (["--dry-run"], ["-f"]):
        lines = davit("image", "prune", "-a", *options).stdout.splitlines()
        assert lines[1] == f"untagged: {tags[0]}"
        left_out = re.fullmatch(r"and (\d+) more", lines[-3])
        # Of the image and its layer, too.
        assert len(lines) - 4 + int(left_out[1]) == 10_002
        assert 2_000_000 < sum(len(line) for line in lines) < 2_200_000
    assert ids(davit) == set()
