"""The first, second, ... call of a kind fails, once, until an operation passes unharmed: then all
have been met. Of many calls some are left out, others with each DAVIT_FAULT_SEED; none are with
DAVIT_FAULT_EVERY=1."""

import contextlib
import os
import random

import pytest
import store
from failing import KINDS, Control
from victim import Failure

EVERY = bool(os.environ.get("DAVIT_FAULT_EVERY"))


@pytest.fixture
def control(scratch):
    return Control(scratch)


@pytest.fixture
def victim(make_victim, control, driver):
    one = make_victim(driver, start=False)
    return one.start(**control.environment)


def next_call(number, chance):
    """All of the first, then ever fewer."""
    return number + 1 if EVERY or number < 6 else number + 1 + chance.randrange(number // 2)


def attempt(victim, control, kind, number, errnum, operation):
    """(calls that were made, the one that failed, its Failure or None)"""
    failure = None
    control.arm(kind, number, errnum, victim.daemon.data_root)
    try:
        operation()
    except Failure as error:
        failure = error
    calls, name = control.disarm()
    return calls, name, failure


def check(victim, control, kind):
    """What could not be removed is litter for the next start."""
    assert victim.is_alive(), victim.daemon.log()[-4000:]
    if kind in ("open", "rename", "unlink") and victim.orphans():
        victim.check_whole()
        victim.stop()
        victim.start(**control.environment)
    victim.check()


def run_until_unharmed(victim, control, kind, chance, operation, then, whole_at_once=True,
                       may_succeed=lambda name: True):
    """`then` puts the victim into the state before the operation; returns what failed how."""
    number, met = 1, []
    while True:
        errnum = chance.choice(KINDS[kind][1])
        calls, name, failure = attempt(victim, control, kind, number, errnum, operation)
        story = f"{name or kind} {number} of {calls} fails with {os.strerror(errnum)}: {failure}"
        try:
            if calls < number:
                assert not failure, f"nothing failed, and yet: {failure}"
                then()
                return met
            if failure:
                failure.check_typed()
            else:
                assert may_succeed(name), "it was said to have succeeded"
            if whole_at_once:
                check(victim, control, kind)
            then()
            check(victim, control, kind)
        except Exception as error:
            raise AssertionError(f"{story}\n{error}") from error
        met.append(story)
        number = next_call(number, chance)


def report(what, seed, met):
    print(f"\n{what}: {len(met)} calls failed with DAVIT_FAULT_SEED={seed}\n" + "\n".join(met))


@pytest.mark.parametrize("kind", KINDS)
def test_pull(victim, control, kind, seed):
    def then():
        victim.pull("a")
        victim.check_listed("a")
        victim.remove("a")

    def may_succeed(name):
        """What was not synced is not durable, but for a hint and SQLite's checkpoints."""
        return kind != "sync" or "sync_file_range" in name or "davit.db" in name

    chance = random.Random(f"{seed} pull {kind}")
    report(f"pull, {kind}", seed, run_until_unharmed(victim, control, kind, chance,
                                                     lambda: victim.pull("a"), then,
                                                     may_succeed=may_succeed))


@pytest.mark.parametrize("kind", ("write", "sync", "rename", "open"))
def test_load(victim, control, kind, seed):
    """Of two images at once: both or none."""
    def then():
        assert victim.listed() in (set(), {"a", "b"})
        victim.load("ab")
        victim.check_listed("ab")
        victim.remove("a")
        victim.remove("b")

    def may_succeed(name):
        return kind != "sync" or "sync_file_range" in name or "davit.db" in name

    chance = random.Random(f"{seed} load {kind}")
    report(f"load, {kind}", seed, run_until_unharmed(victim, control, kind, chance,
                                                     lambda: victim.load("ab"), then,
                                                     may_succeed=may_succeed))


@pytest.mark.parametrize("kind", ("read", "open"))
def test_save(victim, control, kind, seed):
    """What comes out is the archive, or an error."""
    saved = []

    def save():
        saved[:] = [victim.save("ab")]

    def then():
        assert saved == [whole]
        assert victim.verify() == []  # what could not be read leaves quarantine
        saved.clear()
        save()
        assert saved == [whole]

    victim.load("ab")
    whole = victim.save("ab")
    chance = random.Random(f"{seed} save {kind}")

    def then_after_failure():
        if not saved:
            saved.append(victim.save("ab") if victim.verify() == [] else b"")
        then()

    report(f"save, {kind}", seed, run_until_unharmed(victim, control, kind, chance, save,
                                                     then_after_failure, whole_at_once=False))


@pytest.mark.parametrize("kind", ("write", "sync"))
def test_tag(victim, control, kind, seed):
    numbers = iter(range(10_000))

    def tag():
        victim.tag("a", f"tagged:{next(numbers)}")

    victim.pull("a")
    chance = random.Random(f"{seed} tag {kind}")
    report(f"tag, {kind}", seed, run_until_unharmed(
        victim, control, kind, chance, tag, lambda: victim.tag("a", "tagged:again"),
        may_succeed=lambda name: "davit.db" in name))


@pytest.mark.parametrize("kind", ("write", "sync", "rename", "mount", "open", "unlink"))
def test_remove(victim, control, kind, seed):
    def remove():
        victim.remove("a")
        victim.settle()  # its files go in the background

    def then():
        if "a" in victim.listed():
            victim.remove("a")
        victim.check()
        victim.pull("a")
        victim.check_listed("ab")

    victim.pull("a")
    victim.pull("b")
    chance = random.Random(f"{seed} remove {kind}")
    report(f"remove, {kind}", seed, run_until_unharmed(victim, control, kind, chance, remove, then))


@pytest.mark.parametrize("kind", ("write", "sync", "open", "read"))
def test_verify(victim, control, kind, seed):
    """What cannot be read is damaged; what cannot be opened for want of descriptors is not."""
    def verify():
        found = victim.verify()
        rows = store.Rows(victim.daemon.data_root)
        assert "Input/output error" in "".join(found) or not any(rows.layers.values()), found

    def then():
        assert victim.verify() == []  # it leaves quarantine

    victim.pull("a")
    chance = random.Random(f"{seed} verify {kind}")
    report(f"verify, {kind}", seed, run_until_unharmed(victim, control, kind, chance, verify, then,
                                                       whole_at_once=False))


@pytest.mark.parametrize("kind", KINDS)
def test_start(victim, control, kind, seed):
    """After a kill at the beginning of a pull. A start that fails says why; or all is well."""
    chance = random.Random(f"{seed} start {kind}")
    victim.pull("a")
    number, met = 1, []
    while True:
        errnum = chance.choice(KINDS[kind][1])
        call = victim.begin_pull("b")
        victim.kill()
        with contextlib.suppress(Failure):
            victim.end(call)
        control.arm(kind, number, errnum, victim.daemon.data_root)
        started = victim.try_start(**control.environment)
        calls, name = control.disarm()
        story = f"{name or kind} {number} of {calls} fails with {os.strerror(errnum)}: {started}"
        try:
            assert calls >= number or started == "ready"
            if started != "ready":
                victim.start(**control.environment)
            check(victim, control, kind)
            if "b" in victim.listed():
                victim.remove("b")
            victim.check_listed("a")
            if calls < number:
                break
        except Exception as error:
            raise AssertionError(f"{story}\n{error}") from error
        met.append(story)
        number = next_call(number, chance)
    report(f"start, {kind}", seed, met)
