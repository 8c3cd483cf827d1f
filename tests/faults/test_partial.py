"""Blobs that are being fetched: what is there after kills, power cuts and failing calls is what was
written, and little is lost. Through a program of its own (fetch.c), without registry and daemon:
DAVIT_FAULT_FETCHES kills at random, DAVIT_FAULT_CUTS power cuts."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys

import pytest
import volume
from e2e_conftest import BIN_DIR, REPOSITORY, start
from failing import KINDS, Control

FETCHES = int(os.environ.get("DAVIT_FAULT_FETCHES") or 30)
CUTS = int(os.environ.get("DAVIT_FAULT_CUTS") or 24)
PROGRAM = BIN_DIR.parent / "tests" / "fault-fetch"
MIB = 1 << 20
SIZE = 6 * MIB + 12345
BLOCK = 4096
TASKS = 3
# A kill may come when so much has been written, and no word of it.
UNTOLD = 32 * 1024
POINTS = sorted(set(re.findall(r'fault_point\("(partial\.[a-z]+)"\)', "".join(
    path.read_text() for path in (REPOSITORY / "daemon/store").glob("*.c")))))


class Ranges:
    """Bytes of the blob, as a list of block numbers for what concerns whole blocks."""

    def __init__(self):
        self.bytes = bytearray(SIZE)

    def add(self, offset, end):
        self.bytes[offset:end] = b"\1" * (end - offset)

    def whole_blocks(self):
        return {at // BLOCK for at in range(0, SIZE, BLOCK)
                if 0 not in self.bytes[at:at + BLOCK]}

    def copy(self):
        other = Ranges()
        other.bytes[:] = self.bytes
        return other


class Fetch:
    """The program, its data root, and what it said that it has written."""

    def __init__(self, data_root, chance):
        self.data_root, self.chance = data_root, chance
        self.written = Ranges()
        self.boot = 1
        self.process = None

    def start(self, end="keep", pause_ms=0, environment=None):
        self.process = start([PROGRAM, self.data_root, str(SIZE), f"boot-{self.boot}", "fetch",
                              str(self.chance.getrandbits(31)), str(pause_ms), end],
                             stdout=subprocess.PIPE, text=True,
                             env={**os.environ, **(environment or {})})

    def read(self, line):
        """Notes it; returns its first word."""
        word, *rest = line.split()
        if word == "wrote":
            self.written.add(int(rest[0]), int(rest[1]))
        return word

    def read_lines(self, count=sys.maxsize):
        """So many, or all of them; the last one."""
        last = ""
        for _, last in zip(range(count), self.process.stdout):
            self.read(last)
        return last

    def end(self):
        """Waits for the end: (exit status, last line)."""
        last = self.read_lines()
        status = self.process.wait()
        self.process.stdout.close()
        return status, last

    def kill(self):
        self.process.kill()
        return self.end()

    def reboot(self):
        self.boot += 1

    def check(self):
        """What is there is right; returns what is missing."""
        found = subprocess.run([PROGRAM, self.data_root, str(SIZE), f"boot-{self.boot}", "check"],
                               capture_output=True, text=True, check=False)
        lines = [line.split() for line in found.stdout.splitlines()]
        assert found.returncode == 0 and lines[-1] == ["done"], found
        assert all(word in ("missing", "done") for word, *_ in lines), found.stdout
        there = Ranges()
        there.add(0, SIZE)
        for _, offset, end in lines[:-1]:
            there.bytes[int(offset):int(end)] = bytes(int(end) - int(offset))
        assert not os.listdir(self.data_root / "tmp")
        assert len(os.listdir(self.data_root / "partial")) <= 1
        return there

    def forget_all_but(self, there):
        self.written = there.copy()


@pytest.fixture
def fetch(scratch, seed, request):
    shutil.rmtree(scratch / "data", ignore_errors=True)
    return Fetch(scratch / "data", random.Random(f"{seed} {request.node.name}"))


def check_little_lost(fetch, there):
    """All whole blocks that were written, but for what may be untold."""
    lost = fetch.written.whole_blocks() - there.whole_blocks()
    told = len(fetch.written.whole_blocks()) * BLOCK
    assert len(lost) <= (TASKS if told > UNTOLD + TASKS * BLOCK else UNTOLD // BLOCK), (
        f"{len(lost)} of {told // BLOCK} blocks are lost: {sorted(lost)[:10]}")


# --- Kills ---------------------------------------------------------------------------------------


def test_kill_at_random_moments(fetch):
    """Again and again, until it is all there."""
    ends = 0
    for _ in range(FETCHES):
        fetch.start()
        fetch.read_lines(fetch.chance.randrange(50))  # there are about 80
        fetch.kill()
        there = fetch.check()
        check_little_lost(fetch, there)
        fetch.forget_all_but(there)
        if len(there.whole_blocks()) == SIZE // BLOCK:
            ends += 1
            shutil.rmtree(fetch.data_root)
            fetch.written = Ranges()
    print(f"{FETCHES} kills, {ends} blobs")


@pytest.mark.parametrize("point", POINTS)
def test_kill_at_points(fetch, point):
    """With hits of the kind that there are; at those that a fetch does not reach, an adoption."""
    for end, hit in (("keep", 1), ("keep", 3), ("adopt", 1)):
        fetch.start(end, environment={"DAVIT_FAULT_POINT": f"{point}:{hit}"})
        status, last = fetch.end()
        if status == 0:
            fetch.forget_all_but(Ranges() if end == "adopt" else fetch.check())
            continue
        assert status == -signal.SIGKILL, last
        there = fetch.check()
        check_little_lost(fetch, there)
        fetch.forget_all_but(there)
        break
    else:
        assert point == "partial.removed", f"{point} is never reached"
    fetch.start("adopt")
    assert fetch.end() == (0, "done\n")
    assert os.listdir(fetch.data_root / "partial") == []


# --- Power cuts ----------------------------------------------------------------------------------


def choose_positions(disk, chance):
    """Anywhere, and just before a flush: then all is on its way, and nothing has to be there."""
    before = [one[0] for one, after in zip(disk.records, disk.records[1:])
              if after[1] == b"F" and one[1] != b"F"]
    anywhere = [chance.randrange(disk.records[-1][0]) for _ in range(CUTS // 3)]
    return anywhere + chance.choices(before[len(before) // 4:], k=CUTS - CUTS // 3)


def test_power_cuts(make_volume, seed):
    """What is claimed is right, whatever part of the cache is lost; and what was closed is there.
    The first fetch is synced in the background, too."""
    chance = random.Random(f"{seed} partial cuts")
    disk = make_volume(volume.Disk, size_mib=64)
    fetch = Fetch(disk.data_root, chance)
    closed = [(0, set())]
    for count, pause_ms in ((15, 0), (15, 500), (15, 0), (15, 0)):
        fetch.start(pause_ms=pause_ms)
        fetch.read_lines(count)  # at half a second each, with a sync in between
        fetch.kill()
        there = fetch.check()  # closes it
        closed.append((disk.position(), there.whole_blocks()))
        fetch.forget_all_but(there)
    disk.end()
    found = 0
    for position in sorted(choose_positions(disk, chance)):
        disk.cut(position, chance)
        fetch.reboot()
        there = fetch.check().whole_blocks() if fetch.data_root.exists() else set()
        surely = [blocks for at, blocks in closed if at <= position][-1]
        assert surely <= there, f"cut at {position}: lost {sorted(surely - there)[:10]}"
        found += bool(there)
        disk.unmount()
    assert found, "nothing was ever kept: this tests nothing"
    print(f"{CUTS} cuts of {len(disk.records)} writes, something kept after {found}")


def test_power_cut_at_points(make_volume, seed):
    chance = random.Random(f"{seed} partial points")
    for point in ("partial.synced", "partial.marked", "partial.tail"):
        disk = make_volume(volume.Disk, size_mib=64)
        fetch = Fetch(disk.data_root, chance)
        fetch.start(environment={"DAVIT_FAULT_POINT": f"{point}:1"})
        assert fetch.end()[0] == -signal.SIGKILL, point
        position = disk.position()
        disk.end()
        for keep in (0, 0.5, 1):
            disk.cut(position, chance, keep)
            fetch.reboot()
            fetch.check()
            disk.unmount()


# --- Failing calls, full disks -------------------------------------------------------------------


def check_typed(last, story):
    match = re.match(r"error ([A-Z_]+) (\S+): \S", last)
    assert match and match[1] != "UNKNOWN", story
    assert match[2] != "-" or match[1] not in ("INTERNAL", "UNAVAILABLE"), story


def next_number(number, chance):
    """All of the first, then ever fewer."""
    return number + 1 if number < 8 else number + 1 + chance.randrange(number // 2)


@pytest.mark.parametrize("kind", ("write", "sync", "open", "allocate", "unlink", "read", "rename"))
def test_failing_calls(fetch, scratch, kind):
    """Each in turn, now and then with something kept from before: a typed error or none, nothing
    wrong is there, and the next fetch succeeds."""
    control = Control(scratch)
    number, met, none_left = 1, 0, False
    while True:
        errnum = fetch.chance.choice(KINDS[kind][1])
        end = "adopt" if none_left else fetch.chance.choice(("keep", "adopt"))
        fetch.data_root.mkdir()
        if fetch.chance.random() < 0.4:
            fetch.start()
            fetch.read_lines(20)
            fetch.kill()
        control.arm(kind, number, errnum, fetch.data_root)
        fetch.start(end, environment=control.environment)
        status, last = fetch.end()
        calls, name = control.disarm()
        story = f"{name or kind} {number} of {calls} fails with {os.strerror(errnum)}: {last}"
        assert status in (0, 1), story
        if status == 1:
            check_typed(last, story)
        try:
            there = fetch.check()
            if kind in ("write", "allocate") and status == 1:
                check_little_lost(fetch, there)
        except AssertionError as error:
            raise AssertionError(f"{story}\n{error}") from None
        assert status == 0 or calls >= number, story
        if calls < number and end == "adopt":
            break
        none_left = calls < number
        met += calls >= number
        fetch.start("adopt")
        assert fetch.end() == (0, "done\n"), story
        shutil.rmtree(fetch.data_root)
        fetch.written = Ranges()
        number = number if none_left else next_number(number, fetch.chance)
    assert met > 0
    print(f"{kind}: {met} calls failed")
