"""Disks that are full, of bytes or of inodes, at any moment of a pull or load."""

import contextlib
import os
import subprocess

import pytest
import volume
from victim import Failure

MIB = 1 << 20


class Tmpfs(volume.Volume):
    """A small one: bytes and inodes are counted exactly."""

    def __init__(self, directory, size_mib=16, inodes=1000):
        self.path = directory / "mounted"
        self.path.mkdir()
        volume.run("mount", "-t", "tmpfs", "-o", f"size={size_mib}M,nr_inodes={inodes}", "tmpfs",
                   self.path)


# The kernel mounts no EROFS from files on a tmpfs.
PLACES = [("directory", Tmpfs), ("directory", volume.Volume), ("erofs", volume.Volume)]
IDS = [f"{driver}-{kind.__name__.lower()}" for driver, kind in PLACES]


def fill(disk, leave_bytes):
    """Takes all space but so much."""
    taken = disk.free_bytes() - leave_bytes
    with open(disk.path / "ballast", "wb") as ballast:
        with contextlib.suppress(OSError):
            os.posix_fallocate(ballast.fileno(), 0, max(taken, 1))


def fill_inodes(disk, leave):
    directory = disk.path / "ballast"
    directory.mkdir()
    while os.statvfs(disk.path).f_ffree > leave:
        os.mknod(directory / str(os.statvfs(disk.path).f_ffree))


def make_room(disk):
    subprocess.run(["rm", "-rf", disk.path / "ballast"], check=True)


def fill_until_it_fits(store_image, victim, disk, limit, leave_room):
    """Pulls or loads with ever more room: a clear error, until it succeeds. Returns how many failed."""
    failed = 0
    for room in limit:
        leave_room(room)
        try:
            store_image("a")
        except Failure as failure:
            failed += 1
            failure.check_typed()
            assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "NO_SPACE"), failure
        else:
            make_room(disk)
            victim.check()
            return failed
        finally:
            make_room(disk)
        victim.check()
        victim.check_listed("b")
    store_image("a")
    victim.check()
    return failed


@pytest.mark.parametrize("verb", ("pull", "load"))
@pytest.mark.parametrize(("driver", "kind"), PLACES, ids=IDS)
def test_out_of_bytes(make_volume, make_victim, driver, kind, verb):
    disk = make_volume(kind, size_mib=24)
    victim = make_victim(driver, data_root=disk.data_root)
    victim.pull("b")
    failed = fill_until_it_fits(getattr(victim, verb), victim, disk, range(0, 6 * MIB, MIB // 8),
                                lambda room: fill(disk, room))
    assert failed >= 3
    victim.check_listed("ab")


@pytest.mark.parametrize("verb", ("pull", "load"))
@pytest.mark.parametrize(("driver", "kind"), PLACES, ids=IDS)
def test_out_of_inodes(make_volume, make_victim, driver, kind, verb):
    disk = make_volume(kind, size_mib=24, inodes=500)
    victim = make_victim(driver, data_root=disk.data_root)
    victim.pull("b")
    failed = fill_until_it_fits(getattr(victim, verb), victim, disk, range(0, 100, 5),
                                lambda room: fill_inodes(disk, room))
    assert failed >= 2
    victim.check_listed("ab")


@pytest.mark.parametrize(("driver", "kind"), PLACES, ids=IDS)
def test_saving_takes_no_space(make_volume, make_victim, driver, kind):
    disk = make_volume(kind, size_mib=24)
    victim = make_victim(driver, data_root=disk.data_root)
    victim.pull("a")
    before = victim.save("a")
    fill(disk, 0)
    assert victim.save("a") == before
    victim.check(verify=False)  # it could not note that all is well


@pytest.mark.parametrize(("driver", "kind"), PLACES, ids=IDS)
def test_removal_on_a_full_disk(make_volume, make_victim, driver, kind):
    """What a user does then has to work: nothing else frees space."""
    disk = make_volume(kind, size_mib=24)
    victim = make_victim(driver, data_root=disk.data_root)
    victim.pull("a")
    victim.pull("b")
    fill(disk, 0)
    before = disk.free_bytes()
    victim.remove("a")
    victim.check()
    assert disk.free_bytes() >= before + 600_000
    victim.remove("b")
    victim.check()


@pytest.mark.parametrize("end", ("kill", "stop"))
@pytest.mark.parametrize(("driver", "kind"), PLACES, ids=IDS)
def test_start_on_a_full_disk(make_volume, make_victim, driver, kind, end):
    disk = make_volume(kind, size_mib=24)
    victim = make_victim(driver, data_root=disk.data_root)
    victim.pull("a")
    getattr(victim, end)()
    fill(disk, 0)
    victim.start()
    victim.check(verify=False)  # it could not note that all is well
    victim.remove("a")
    victim.check()
