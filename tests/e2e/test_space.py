"""Pulling onto disks that are too small: each test has a file system of its own as data root."""

import os
import re
import signal
import subprocess
import threading

import images
import pytest
from conftest import Davit
from fault_registry import Fault, FaultRegistry

MB = 1_000_000


class Disk:
    """A small file system, mounted at `path`: tmpfs, or ext4 on a loop device. To grow ext4 takes a
    capability that not every root has: it is large, and a file takes what is too much."""

    def __init__(self, directory, kind, size, inodes=None):
        self.path, self.kind, self.ballast = directory / "disk", kind, directory / "disk/ballast"
        self.path.mkdir()
        if kind == "tmpfs":
            options = f"size={size}" + (f",nr_inodes={inodes}" if inodes else "")
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.path]
        else:
            image = directory / "disk.img"
            image.touch()
            os.truncate(image, 200 * MB)
            subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0",
                            *(["-N", str(inodes)] if inodes else []), image], check=True)
            command = ["mount", "-o", "loop", image, self.path]
        subprocess.run(command, check=True)
        if kind == "ext4":
            with open(self.ballast, "wb") as ballast:
                os.posix_fallocate(ballast.fileno(), 0, self.free() - size)

    def grow(self, size):
        if self.kind == "tmpfs":
            subprocess.run(["mount", "-o", f"remount,size={size},nr_inodes=0", self.path],
                           check=True)
        else:
            os.truncate(self.ballast, max(self.ballast.stat().st_size + self.free() - size, 0))

    def free(self):
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize

    def use_up_inodes(self):
        filler = self.path / "filler"
        filler.mkdir()
        with pytest.raises(OSError, match="No space left"):
            for number in range(100_000):
                (filler / str(number)).touch()
        return filler

    def close(self):
        # The device goes with the mount.
        subprocess.run(["umount", self.path], check=True)


# Unpacking works on any file system; files of tmpfs cannot be mounted as EROFS.
@pytest.fixture(params=["directory", "erofs"])
def driver(request):
    return request.param


@pytest.fixture
def start(make_davitd, scratch, driver):
    """start(size, *arguments): a disk and a davit on it."""
    disks, daemons = [], []

    def make(size, *arguments, inodes=None):
        disks.append(Disk(scratch, "tmpfs" if driver == "directory" else "ext4", size, inodes))
        daemons.append(make_davitd("--storage-driver", driver, *arguments,
                                   data_root=disks[-1].path / "root"))
        return disks[-1], Davit(daemons[-1])

    yield make
    for daemon in daemons:
        daemon.stop()
    for disk in disks:
        disk.close()


def random_layer(size, seed):
    """A layer that is as large compressed as it is on the disk."""
    return images.layer([images.file(f"random{seed}", images.payload(size, seed, 0))], "none")


def zeros_layer(size, name="zeros"):
    """A layer that is next to nothing until it is stored."""
    return images.layer([images.file(f"{name}{number}", bytes(MB))
                         for number in range(size // MB)])


def many_files():
    """A layer of 92 MB that takes a while to remove, where it was unpacked."""
    return images.layer([images.file(f"d/{number}", bytes(4000)) for number in range(20_000)],
                        "none")


@pytest.fixture
def fetched(registry):
    """fetched(layer): how often it was asked for by this test."""
    before = len(registry.requests())
    return lambda layer: sum(method == "GET" and layer.digest in path
                             for method, path, _ in registry.requests()[before:])


def stored(disk):
    return sorted(os.listdir(disk.path / "root" / "layers"))


def refused(davit, name, *patterns):
    """The pull fails, with all these in what it says."""
    result = davit("pull", name, check=False)
    assert result.code == 1, result
    for pattern in (f"cannot pull {name}: ", "davit rmi", *patterns):
        assert re.search(pattern, result.stderr), f"no {pattern!r} in {result}"
    return result.stderr


def litter(disk):
    return os.listdir(disk.path / "root" / "tmp")


# --- Before the first byte -----------------------------------------------------------------------


def test_what_cannot_fit_is_refused_before_its_first_byte(start, registry, fetched):
    disk, davit = start(48 * MB, "--reserve-space", "0", "--keep-compressed=false")
    layers = [random_layer(20 * MB, seed) for seed in (1, 2)]
    name = registry.push("space/early", images.image(layers))
    # Both, and the blob of one that is being stored.
    text = refused(davit, name, rf"at least 60\.\d+MB more is needed in {disk.path}/root, and "
                   r"4[2-8]\.\d+MB is free\n", "larger disk")
    assert "reserve" not in text
    assert stored(disk) == [] and [fetched(layer) for layer in layers] == [0, 0]
    # What is here already is not needed again.
    davit("pull", registry.push("space/first", images.image(layers[:1])))
    refused(davit, name, r"at least 40(\.\d+)?MB more is needed")


def test_what_would_get_into_the_reserve_is_refused(start, registry, fetched):
    disk, davit = start(48 * MB, "--reserve-space", "30MB")
    layer = random_layer(20 * MB, 3)
    refused(davit, registry.push("space/reserve", images.image([layer])),
            r"at least 40\.\d+MB more is needed", r"30MB of it to stay free \(reserve-space\)",
            "lower --reserve-space")
    assert fetched(layer) == 0
    davit("pull", registry.push("space/small", images.image([random_layer(2 * MB, 4)])))


def test_keeping_the_blobs_takes_twice_as_much(start, driver, registry, fetched):
    """As is done without being asked for where layers are unpacked."""
    disk, davit = start(48 * MB, "--reserve-space", "0",
                        *(["--keep-compressed"] if driver == "erofs" else []))
    layers = [random_layer(13 * MB, seed) for seed in (12, 13)]
    refused(davit, registry.push("space/twice", images.image(layers)),
            r"at least 52\.\d+MB more is needed")
    assert [fetched(layer) for layer in layers] == [0, 0] and stored(disk) == []


def test_what_other_pulls_still_fetch_counts(start):
    with FaultRegistry() as registry:
        disk, davit = start(48 * MB, "--reserve-space", "0")
        first, second = random_layer(15 * MB, 5), random_layer(16 * MB, 6)
        registry.fault(first.digest, Fault(hold=True))
        running = davit.start("pull", "-q", registry.push("space/first", images.image([first])),
                              text=True)
        registry.wait_stalled()
        name = registry.push("space/second", images.image([second]))
        refused(davit, name, r"30(\.\d+)?MB of it for what other pulls fetch")
        # An image that has the same layer needs nothing of its own.
        sharing = davit.start("pull", "-q", registry.push("space/sharing", images.image(
            [first, images.layer([images.file("own", "own")])])), text=True)
        registry.clear_faults()
        registry.release()
        for process in (running, sharing):
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
        assert registry.count("GET", second.digest) == 0
        assert len(stored(disk)) == 2


@pytest.mark.parametrize("driver", ["directory"], indirect=True)
def test_room_that_rmi_makes_is_there_at_once(start, registry):
    _, davit = start(200 * MB, "--reserve-space", "0")
    many = registry.push("space/many", images.image([many_files()]))
    large = registry.push("space/large", images.image([random_layer(75 * MB, 7)]))
    davit("pull", "-q", many)
    davit("rmi", many)
    davit("pull", "-q", large)


@pytest.mark.parametrize("driver", ["directory"], indirect=True)
def test_room_that_a_cancelled_pull_leaves_is_there_at_once(start, wait_until):
    with FaultRegistry() as registry:
        disk, davit = start(200 * MB, "--reserve-space", "0")
        layer = many_files()
        registry.fault(layer.digest, Fault(stall_after=len(layer.blob) - MB, absolute=True))
        name = registry.push("space/cancelled", images.image([layer]))
        running = davit.start("pull", "-q", name)
        registry.wait_stalled()
        wait_until(lambda: disk.free() < 50 * MB, "the disk to fill")
        running.send_signal(signal.SIGINT)
        running.wait()
        registry.clear_faults()
        registry.release()
        davit("pull", name)


# --- While it is written -------------------------------------------------------------------------


class LeastFree(threading.Thread):
    """The least space that was free while this ran."""

    def __init__(self, disk):
        super().__init__(daemon=True)
        self.disk, self.least, self.stop = disk, disk.free(), threading.Event()

    def run(self):
        while not self.stop.wait(0.001):
            self.least = min(self.least, self.disk.free())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.join()


def test_the_reserve_is_never_touched(start, registry, wait_until):
    disk, davit = start(80 * MB, "--reserve-space", "30MB")
    image = images.image([zeros_layer(45 * MB, name) for name in "abc"])
    with LeastFree(disk) as watch:
        refused(davit, registry.push("space/zeros", image), "lower --reserve-space",
                r"MB is free, 30MB of it to stay free \(reserve-space\); "
                r"[\d.]+kB of 137\.1kB are kept",
                "then pull again to go on from there")
    assert watch.least >= 30 * MB
    assert stored(disk) == []
    wait_until(lambda: litter(disk) == [], "the other layers to be given up")


def test_full_disk_keeps_what_was_complete(start, registry, fetched):
    disk, davit = start(48 * MB, "--reserve-space", "0", "--max-concurrent-downloads", "1")
    small, other = random_layer(5 * MB, 8), random_layer(3 * MB, 9)
    large = zeros_layer(60 * MB)
    name = registry.push("space/late", images.image([small, other, large]))
    refused(davit, name, f"layer {large.digest[7:19]}: ", "No space left on device; "
            r"8\.\d+MB of 8\.\d+MB are kept", "then pull again to go on from there")
    assert len(stored(disk)) == 2 and litter(disk) == []
    assert davit("images", "-q").stdout == ""
    requests = [fetched(layer) for layer in (small, other, large)]
    disk.grow(120 * MB)
    davit("pull", name)
    # Nothing again, not even what was fetched, but could not be stored.
    assert min(requests) > 0
    assert [fetched(layer) for layer in (small, other, large)] == requests
    assert len(stored(disk)) == 3 and davit("images", "-q").stdout != ""


# --- Inodes --------------------------------------------------------------------------------------


def test_no_inode_left(start, registry, fetched):
    disk, davit = start(48 * MB, "--reserve-space", "0", inodes=200)
    layer = random_layer(1 * MB, 10)
    name = registry.push("space/inodes", images.image([layer]))
    filler = disk.use_up_inodes()
    refused(davit, name, f"no file can be made in {disk.path}/root: its file system has no inodes")
    assert fetched(layer) == 0
    subprocess.run(["rm", "-r", filler], check=True)
    davit("pull", name)


def test_too_few_inodes(start, registry, driver, fetched):
    disk, davit = start(48 * MB, "--reserve-space", "0", "--max-concurrent-downloads", "1",
                        inodes=200)
    small = images.layer([images.file("a", "a")])
    many = images.layer([images.file(f"b/{number}", "b") for number in range(1000)])
    name = registry.push("space/files", images.image([small, many]))
    if driver == "erofs":
        davit("pull", name)  # two files a layer
        return
    refused(davit, name, r"No space left on device; [\d.]+k?B of [\d.]+k?B are kept")
    assert litter(disk) == []
    disk.grow(60 * MB)
    davit("pull", name)
    assert fetched(small) == 1
