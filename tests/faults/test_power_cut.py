"""Power cuts: what a disk with a write cache may hold afterwards (DAVIT_FAULT_CUTS of each driver),
and what ext4 holds that was shut down in the middle (DAVIT_FAULT_SHUTDOWNS)."""

import os
import random
import threading
import time

import store
import volume
from victim import Failure

CUTS = int(os.environ.get("DAVIT_FAULT_CUTS") or 32)
SHUTDOWNS = int(os.environ.get("DAVIT_FAULT_SHUTDOWNS") or 8)


def test_the_disk_is_honest(make_volume, seed):
    """What was synced is there after every cut, what was not is there or not, and the file system
    is always sound."""
    chance = random.Random(f"{seed} disk")
    disk = make_volume(volume.Disk, size_mib=64)
    synced = []
    for number in range(20):
        for kind in ("synced", "lost"):
            (disk.path / f"{kind}{number}").write_bytes(b"%d" % number * 5000)
        with open(disk.path / f"synced{number}", "rb") as handle:
            os.fdatasync(handle.fileno())
        synced.append(disk.position())
    disk.end()
    ends = [synced[number] for number in (3, 8, 9, 15, 19)]
    lost = 0
    for position in ends:
        disk.cut(position, chance, keep=chance.choice((0, 0.5)))
        for number, moment in enumerate(synced):
            if moment <= position:
                content = (disk.path / f"synced{number}").read_bytes()
                assert content == b"%d" % number * 5000, number
                path = disk.path / f"lost{number}"
                lost += not path.exists() or path.read_bytes() != b"%d" % number * 5000
        disk.check()
    assert lost, "nothing was ever lost: this is no power cut"


class History:
    """What was done while the disk was recorded, and what must therefore be there at a position."""

    def __init__(self, disk, victim):
        self.disk = disk
        self.victim = victim
        self.present = set()
        self.moments = [(0, frozenset(), frozenset())]  # position, surely there, not known

    def do(self, verb, letter):
        call = getattr(self.victim, f"begin_{verb}")(letter)
        self.note(uncertain={letter})
        self.victim.end(call)
        (self.present.add if verb == "pull" else self.present.discard)(letter)
        self.note()

    def note(self, uncertain=()):
        self.moments.append((self.disk.position(), frozenset(self.present), frozenset(uncertain)))

    def at(self, position):
        """(surely there, not known): at a cut between two moments, as at either."""
        before = [moment for moment in self.moments if moment[0] <= position][-1]
        return before[1], before[2]


def choose_positions(disk, history, chance, count):
    """Anywhere, but half of them just where something was answered, or a flush was."""
    anywhere = [chance.randrange(disk.records[-1][0]) for _ in range(count - count // 2)]
    points = [moment[0] for moment in history.moments[1:]] + disk.flushes()
    return sorted(anywhere + [chance.choice(points) for _ in range(count // 2)])


def check_recovery(victim, certain, uncertain):
    victim.start()
    listed = victim.listed()
    assert listed - uncertain == certain - uncertain, (
        f"listed {sorted(listed)}, not {sorted(certain)} (perhaps {sorted(uncertain)})\n"
        f"{victim.daemon.log()[-4000:]}")
    victim.check()
    for letter in "abc":
        victim.pull(letter)
    victim.check()


def test_cut_at_random_moments(make_volume, make_victim, driver, seed):
    chance = random.Random(f"{seed} {driver}")
    disk = make_volume(volume.Disk)
    victim = make_victim(driver, data_root=disk.data_root)
    history = History(disk, victim)
    for verb, letter in (("pull", "a"), ("pull", "b"), ("remove", "a"), ("pull", "c"),
                         ("remove", "b"), ("pull", "a"), ("remove", "c"), ("pull", "b")):
        history.do(verb, letter)
        if letter == "b":
            store.rewind_log(disk.data_root)
    victim.kill()
    disk.end()
    for position in choose_positions(disk, history, chance, CUTS):
        disk.cut(position, chance)
        try:
            check_recovery(victim, *history.at(position))
        except Exception as error:
            raise AssertionError(f"cut at {position} of {disk.records[-1][0]} with "
                                 f"DAVIT_FAULT_SEED={seed}: {error}") from error
        victim.stop()
        disk.unmount()
    print(f"{driver}: {CUTS} cuts of {len(disk.records)} writes with {len(disk.flushes())} flushes")


def shut_down_during(victim, disk, verb, letter, delay):
    """Calls, and shuts the file system down after `delay`. True if the call was answered before
    that, False if it failed, None if it was answered while that went on: the kernel then says that
    something is on the disk also if it was aborted meanwhile."""
    shut_down_at = None

    def shut_down():
        nonlocal shut_down_at
        shut_down_at = time.monotonic()
        disk.shut_down()

    call = getattr(victim, f"begin_{verb}")(letter)
    moment = threading.Timer(delay, shut_down)
    moment.start()
    try:
        victim.end(call)
        answered_at = time.monotonic()
    except Failure as failure:
        failure.check_typed()
        return False
    finally:
        moment.join()
    return True if answered_at < shut_down_at else None


def test_file_system_shut_down(make_volume, make_victim, driver, seed):
    """The daemon's own view of it: everything fails, and says so."""
    chance = random.Random(f"{seed} shutdown {driver}")
    disk = make_volume()
    victim = make_victim(driver, data_root=disk.data_root)
    victim.pull("a")
    present = {"a"}
    for number in range(SHUTDOWNS):
        letter = "bc"[number % 2]
        verb = "remove" if letter in present else "pull"
        done = shut_down_during(victim, disk, verb, letter, chance.uniform(0, 0.05))
        if done:
            (present.add if verb == "pull" else present.discard)(letter)
        assert victim.is_alive(), victim.daemon.log()[-4000:]
        victim.kill()
        disk.unmount()
        disk.mount(disk.image)
        victim.start()
        uncertain = set() if done else {letter}
        listed = victim.listed()
        assert listed - uncertain == present - uncertain, victim.daemon.log()[-4000:]
        victim.check()
        victim.pull(letter)
        present = listed | {letter}
