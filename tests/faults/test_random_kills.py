"""kill -9 at random moments of pulls, loads and removals: DAVIT_FAULT_KILLS times (200), half with each
driver, one after the other in the same data root."""

import os
import random
import time

from victim import Failure

KILLS = int(os.environ.get("DAVIT_FAULT_KILLS") or 200)
LETTERS = "abc"


class Life:
    """What a data root goes through."""

    def __init__(self, victim, chance):
        self.victim = victim
        self.chance = chance
        self.present = set()
        # How long such a call takes, about: that is when to kill.
        self.seconds = {"pull": 0.1, "load": 0.1, "remove": 0.01}

    def choose(self):
        """[(verb, letter)] of one or two calls at the same time, of different images."""
        letters = self.chance.sample(LETTERS, self.chance.choice((1, 1, 2)))
        return [("remove" if letter in self.present else self.chance.choice(("pull", "load")),
                 letter) for letter in letters]

    def begin(self, verb, letter):
        return getattr(self.victim, f"begin_{verb}")(letter)

    def do(self, verb, letter):
        started = time.monotonic()
        self.victim.end(self.begin(verb, letter))
        self.seconds[verb] += (time.monotonic() - started - self.seconds[verb]) / 4
        self.note(verb, letter)

    def note(self, verb, letter):
        (self.present.discard if verb == "remove" else self.present.add)(letter)

    def settle(self, work, calls):
        """Notes what was answered before the kill: it must be found again. Returns what was not."""
        undone = []
        for (verb, letter), call in zip(work, calls):
            try:
                self.victim.end(call)
            except Failure as failure:
                assert failure.code == "UNAVAILABLE", failure
                undone.append((verb, letter))
            else:
                self.note(verb, letter)
        return undone

    def check(self, undone):
        """What was answered is as answered; the rest is either done or not."""
        listed = self.victim.listed()
        uncertain = {letter for _, letter in undone}
        assert listed - uncertain == self.present - uncertain
        self.present = listed

    def round(self):
        """One kill. Returns how many calls it met."""
        work = self.choose()
        calls = [self.begin(*one) for one in work]
        longest = max(self.seconds[verb] for verb, _ in work)
        time.sleep(self.chance.uniform(0, 1.1) * longest)  # the moment is what is tested
        self.victim.kill()
        undone = self.settle(work, calls)
        self.victim.start()
        self.check(undone)
        if self.chance.random() < 0.5:  # else at once, while the litter is still there
            self.victim.check()
        for verb, letter in undone:
            if verb != "remove" or letter in self.present:
                self.do(verb, letter)
        self.victim.check()
        return len(undone)


def test_kill_at_random_moments(make_victim, driver, seed):
    life = Life(make_victim(driver), random.Random(f"{seed} {driver}"))
    for verb in ("pull", "remove"):
        life.do(verb, "a")
    met = sum(life.round() > 0 for _ in range(KILLS // 2))
    assert met >= KILLS // 6, f"only {met} kills met a call: they test little"
