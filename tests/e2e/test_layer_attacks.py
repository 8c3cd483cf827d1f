"""Layers from strangers, pulled by a daemon of each storage driver: the exact tree or the exact
error, nothing outside or left over, memory bounded. The archives are in layer_attacks.py."""

import concurrent.futures
import json
import os
import re
import sqlite3

import layer_attacks
import pytest
import trees
from conftest import Davit, wait_until
from fault_registry import FaultRegistry
from siege import SANITIZED, Canary, MemoryWatch

LAYERS_MAX = 100  # of one image; an image may have 127
DAEMON_MEMORY_MAX = 64 << 20
READER_MEMORY_MAX = 128 << 20
NAMES = [one.name for one in layer_attacks.corpus("/canary")]


class Siege:
    """A daemon, and how each attack on it ended."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.davit = Davit(daemon)
        self.canary = Canary(daemon.root / "canary")
        self.attacks = {one.name: one for one in layer_attacks.corpus(str(self.canary.path))
                        if daemon.driver in one.drivers}
        self.errors, self.trees = {}, {}

    def run(self):
        watch = MemoryWatch(self.daemon.pid)
        kernel_log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(kernel_log, 0, os.SEEK_END)
        watch.start()
        try:
            self._attack()
        finally:
            watch.end()
        self.memory = watch.peaks
        self.complaints = complaints(kernel_log)
        os.close(kernel_log)

    def _attack(self):
        with FaultRegistry() as registry:
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda one: self._pull(registry, *one), enumerate(self.attacks)))
            accepted = [name for name in self.attacks if name not in self.errors]
            while accepted:
                self._look(registry, accepted[:LAYERS_MAX])
                accepted = accepted[LAYERS_MAX:]

    def _pull(self, registry, number, name):
        reference = registry.push(f"attacks/{number}", self.attacks[name].image())
        pulled = self.davit("pull", "--progress=json", reference, check=False)
        last = json.loads(pulled.stdout.splitlines()[-1]) if pulled.stdout else {"error": {}}
        if pulled.code:
            self.errors[name] = last["error"]

    def _look(self, registry, names):
        """All in one image, whose container runs: overlayfs takes them, too."""
        archives = [self.attacks[name].layer.tar for name in names]
        with trees.viewing(self.daemon, registry, "attacks/all", archives) as view:
            for name, top in zip(names, view.layers):
                try:
                    expected = self.attacks[name].tree
                    self.trees[name] = expected(top) if callable(expected) else trees.listing(top)
                except (AssertionError, OSError) as failure:
                    self.trees[name] = failure


@pytest.fixture(scope="module", params=trees.DRIVERS)
def siege(request):
    with trees.daemon_with(request.param) as daemon:
        made = Siege(daemon)
        made.run()
        yield made


@pytest.mark.parametrize("name", NAMES)
def test_attack(siege, name):
    if name not in siege.attacks:
        return  # too costly to be repeated with each driver
    attack = siege.attacks[name]
    if name not in siege.errors:
        if callable(attack.tree):
            assert siege.trees[name] is None, siege.trees[name]
        else:
            assert attack.tree is not None, f"accepted: {siege.trees[name]}"
            assert siege.trees[name] == attack.tree
        return
    error = siege.errors[name]
    assert attack.error is not None, f"refused: {error}"
    assert error.get("reason") == attack.reason, error
    assert error["code"] == "DATA_LOSS"
    assert re.search(attack.error, error["message"]), error
    assert f"layer {attack.layer.digest[7:19]}" in error["message"]
    assert error["message"].isprintable()


def test_every_attack_counts(siege):
    """Layers of one digest would be pulled once, and one result stand for two attacks."""
    assert len(siege.attacks) > 110
    layers = [one.layer.diff_id for one in siege.attacks.values() if one.tree is not None]
    assert len(layers) == len(set(layers))


def test_nothing_outside_is_touched(siege):
    assert siege.canary.is_untouched()
    assert set(os.listdir(siege.daemon.root)) <= {
        "canary", "daemon.json", "data", "davit.sock", "exec", "home", "log", "notify"}


def test_nothing_of_refused_layers_is_left(siege):
    data_root = siege.daemon.data_root
    wait_until(lambda: not os.listdir(data_root / "tmp"), "tmp/ to be empty")
    accepted = {one.layer.diff_id for name, one in siege.attacks.items()
                if name not in siege.errors}
    assert {f"sha256:{one}" for one in os.listdir(data_root / "layers")} == accepted
    with sqlite3.connect(f"file:{data_root}/davit.db?mode=ro", uri=True) as database:
        assert {one for one, in database.execute("SELECT diff_id FROM layers")} == accepted
    assert len(siege.davit("images", "-q").stdout.split()) == len(accepted)


def test_memory_stays_bounded(siege):
    if SANITIZED:
        return  # they need memory of their own
    reader = {"directory": "davit-untar", "erofs": "davit-index"}[siege.daemon.driver]
    print({name: f"{peak >> 10} KiB" for name, peak in siege.memory.items()})
    assert siege.memory["davitd"] < DAEMON_MEMORY_MAX
    assert siege.memory[reader] < READER_MEMORY_MAX


def complaints(kernel_log):
    """Warnings of the kernel about the file systems that layers are mounted with."""
    found = []
    while True:
        try:
            priority, text = os.read(kernel_log, 8192).decode(errors="replace").split(";", 1)
        except BlockingIOError:
            return found
        except BrokenPipeError:  # overwritten before it was read
            continue
        if int(priority.split(",")[0]) & 7 <= 4 and re.match("erofs|overlayfs", text):
            found.append(text)


def test_the_kernel_takes_all_layers(siege):
    assert siege.complaints == []


def test_the_daemon_lives(siege):
    assert siege.daemon.process.poll() is None
    siege.daemon.stop()  # which ends in order
