"""kill -9 at each fault_point() in the code, at its first and a later hit; and a power cut at those
between which something has to be on the disk before something else. Also: helpers that die."""

import random
import re

import pytest
import store
import volume
from e2e_conftest import REPOSITORY, Davit, wait_until
from victim import Failure

HELPERS = ("untar", "index")  # points of davit-untar and davit-index
OF_ONE_DRIVER = {"untar": "directory", "directory": "directory", "index": "erofs",
                 "erofs": "erofs"}
# What a power cut in between must not show.
ORDERED = ("layer.", "image.", "removal.", "erofs.indexed", "directory.")


def all_points():
    found = set()
    for path in (REPOSITORY / "daemon").rglob("*.c"):
        found |= set(re.findall(r'fault_point\("([a-z.-]+)"\)', path.read_text()))
    return sorted(found)


def cases(points):
    return [(driver, point) for point in points for driver in ("directory", "erofs")
            if OF_ONE_DRIVER.get(point.split(".")[0], driver) == driver]


# Those of partial blobs are test_partial.py's.
POINTS = [point for point in all_points() if point.split(".")[0] not in (*HELPERS, "partial")]
HELPER_POINTS = [point for point in all_points() if point.split(".")[0] in HELPERS]


class Life:
    """Everything that a daemon does with layers, until it dies of it."""

    def __init__(self, victim):
        self.victim = victim
        self.present = set()
        self.uncertain = set()
        self.together = set()  # all of them, or none
        self.damaged = False

    def begin(self, point):
        """An image is there, and litter."""
        self.victim.start()
        self.pull("b")
        self.victim.kill()
        data_root = self.victim.daemon.data_root
        for place in ("layers/" + "0" * 64, "layers/" + "1" * 64, "tmp/litter"):
            (data_root / place / "sub").mkdir(parents=True)
            (data_root / place / "sub" / "file").write_text("litter")
        result = self.victim.try_start(DAVIT_FAULT_POINT=point)
        if result == "ready":
            store.rewind_log(data_root)
        return result

    def go_on(self):
        """True once it has died."""
        steps = [(self.pull, "a"), (self.run, "r"), (self.remove, "a"), (self.pull, "c"),
                 (self.repair, "c"), (self.remove, "b"), (self.load, "ab"), (self.save, "ab"),
                 (self.load, "ac")]
        for step, letter in steps:
            try:
                step(letter)
            except Failure as failure:
                assert failure.code == "UNAVAILABLE", failure
                self.victim.daemon.process.wait(10)
            if not self.victim.is_alive():
                return True
        return False

    def pull(self, letter):
        self.uncertain = {letter}
        self.victim.pull(letter)
        self.uncertain = set()
        self.present.add(letter)

    def load(self, letters):
        """Several images of one archive, of which some may be there."""
        self.uncertain = self.together = set(letters) - self.present
        self.victim.load(letters)
        self.uncertain = self.together = set()
        self.present |= set(letters)

    def save(self, letters):
        self.victim.save(letters)

    def remove(self, letter):
        self.uncertain = {letter}
        self.victim.remove(letter)
        self.uncertain = set()
        self.present.discard(letter)
        wait_until(lambda: not self.victim.is_alive() or not self.victim.orphans(), "removal")

    def run(self, letter):
        self.pull(letter)
        result = Davit(self.victim.daemon)("run", "--rm", self.victim.shelf.names[letter], "true",
                                           check=False)
        if result.code:
            self.victim.daemon.process.wait(10)

    def repair(self, letter):
        diff_id = self.victim.shelf.images[letter].layers[-1].diff_id
        store.damage(self.victim.daemon.data_root, self.victim.driver, diff_id)
        self.damaged = True
        assert self.victim.verify(repair=True) == []
        self.damaged = False

    def check(self):
        """After the next start: what was answered holds, and everything can be done again."""
        listed = self.victim.listed()
        assert listed - self.uncertain == self.present - self.uncertain
        assert listed & self.together in (set(), self.together)
        if self.damaged:
            assert self.victim.verify(repair=True) == []
        self.victim.check()
        for letter in "abc":
            self.victim.pull(letter)
        self.victim.check()
        self.victim.remove("a")
        self.victim.check()


@pytest.mark.parametrize(("driver", "point"), cases(POINTS))
def test_kill(make_victim, driver, point):
    for hit in (1, 4):
        victim = make_victim(driver, start=False)
        life = Life(victim)
        died = life.begin(f"{point}:{hit}") != "ready" or life.go_on()
        assert died or hit > 1, f"{point} is never reached: give Life what reaches it"
        if died:
            victim.kill()
            victim.start()
            life.check()
        victim.stop()


@pytest.mark.parametrize(("driver", "point"),
                         cases([point for point in POINTS if point.startswith(ORDERED)]))
def test_power_cut(make_volume, make_victim, driver, point, seed):
    chance = random.Random(f"{seed} {point}")
    disk = make_volume(volume.Disk)
    victim = make_victim(driver, data_root=disk.data_root, start=False)
    life = Life(victim)
    if life.begin(point) == "ready":
        assert life.go_on(), f"{point} is never reached: give Life what reaches it"
    position = disk.position()
    victim.kill()
    disk.end()
    for keep in (0, 0.7):
        disk.cut(position, chance, keep)
        victim.start()
        life.check()
        victim.stop()
        disk.unmount()


@pytest.mark.parametrize(("driver", "point"), cases(HELPER_POINTS))
def test_helper_dies(make_victim, driver, point):
    victim = make_victim(driver, start=False)
    for hit in (1, 5):
        victim.start(DAVIT_FAULT_POINT=f"{point}:{hit}")
        try:
            victim.pull("a")
            assert hit > 1, f"{point} is never reached"
        except Failure as failure:
            failure.check_typed()
            assert (failure.code, failure.reason) == ("INTERNAL", "UNPACKER_FAILED"), failure
        victim.check()
        victim.stop()
        victim.start()
        victim.pull("a")
        victim.check()
        victim.remove("a")
        victim.stop()
