"""What the tests of the fault matrix share.

Nouns: a *kind* of request and a *fault* make a *cell*; a cell has *cases*: how exactly it goes
wrong, how often, and what is to come of it: success, or one exact reason. A *run* is one case with
its own image, proxies and credentials. All runs of a file share a *stage*: one daemon, and real
registries that want tokens of a real token server; they go on at once, and each test tells of one
of them. Begin with Run, which is made a pull or a push by those who derive from it.
"""

import base64
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import json
import re
import shutil
import time
import urllib.request

import images
import pytest
from conftest import Davit, Registry, _make_scratch, davitd_maker
from fault_proxy import FaultProxy
from fault_registry import Fault
from token_server import TokenServer

PASSWORD = "password-of-the-matrix"
USER = "user-of-the-matrix"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
PARALLEL = 16
SLOW = (1, 1.0)
LINE = (32 << 10, 0.001)
YEAR_S = 365 * 24 * 3600

FAULTS = ("truncate", "stall", "1 B/s", "wrong byte", "wrong length", "200 for Range",
          "wrong Content-Range", "401 loop", "404", "429", "5xx burst", "reset",
          "cross-host redirect")

SETTINGS = {
    "low-speed-time": "2s", "stall-timeout": "2s", "connect-timeout": "1s",
    "retry-backoff": "50ms", "max-concurrent-downloads": 100, "max-connections": 100,
}


@dataclasses.dataclass
class Case:
    name: str
    fault: object  # Fault, list of Faults, or a function that makes them of the run
    times: int = 1  # None: until it is cleared
    reason: object = None  # None: it recovers; else one, or several where it depends on timing
    check: object = None  # called with the run when the first pull is over
    again: bool = False  # what was wrong may be sent a second time
    method: str = None  # that it is for; else the kind's


# --- Faults and checks that many cases have ------------------------------------------------------


def challenge(run):
    """As if the token were not good enough."""
    return Fault(status=401, headers={
        "WWW-Authenticate": f'Bearer realm="{run.tokens.url}/token",service="tests",'
                            f'scope="repository:{run.repository}:pull"'})


def asked_at_most(count):
    def check(run):
        asked = len(run.met())
        assert asked <= count, f"asked {asked} times"
    return check


def waited(seconds):
    """Between the first request that met the fault and the one that did not."""
    def check(run):
        met = run.met()
        refused = next(one for one in met if one.status == 429)
        # The daemon's timers count whole milliseconds: one is lost where it begins within one.
        assert met[-1].at - refused.at >= seconds - 0.001, met[-1].at - refused.at
    return check


def no_range_asked(run):
    assert not [one for one in run.met() if "range" in one.headers]


def elsewhere_was_asked(run):
    assert run.elsewhere.requests


def busy(status, retry_after=None):
    """retry_after: a number, or a function, of which a request is told what it returns then."""
    value = retry_after if callable(retry_after) else str(retry_after)
    headers = {} if retry_after is None else {"Retry-After": value}
    return Fault(status=status, headers=headers, body=b"busy")


def http_date():
    """That of in two or three seconds."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3))


def redirected(run):
    return Fault(redirect=run.elsewhere.url + "{path}")


def redirected_to_one_who_asks(run):
    """A host that would like to have the password."""
    run.elsewhere.fault("", Fault(status=401, headers={
        "WWW-Authenticate": 'Basic realm="give it to me"'}), method="*")
    return redirected(run)


def shifted(first, last, size):
    """A function for Fault.content_range: true values, plus these."""
    return lambda a, b, c: f"bytes {a + first}-{b + last}/{c + size}"


# --- One run -------------------------------------------------------------------------------------


class Run:
    """Derived classes have: size (of the target layer), pattern, method, act(), visible(), check()
    and check_again()."""

    numbers = itertools.count()
    method = "*"

    def __init__(self, stage, kind, case):
        self.stage, self.kind, self.case = stage, kind, case
        self.number = next(self.numbers)
        self.repository = f"matrix/{kind}-{self.number}".lower()
        self.witness = images.random_layer(f"witness{self.number}", 200_000)
        self.target = images.random_layer(f"target{self.number}", self.size)
        self.image = images.image([self.witness, self.target])
        self.pushed = stage.content.push(self.repository, self.image)
        self.registry = FaultProxy(stage.content)
        self.tokens = FaultProxy(stage.tokens)
        self.elsewhere = FaultProxy(stage.tokens if kind == "token" else stage.open_registry)
        self.registry.replace(stage.tokens.url, self.tokens.url)
        self.name = self.registry.name(self.pushed)
        self.davit = Davit(stage.daemon)
        self.said = "it succeeded"

    def close(self):
        for proxy in (self.registry, self.tokens, self.elsewhere):
            proxy.stop()

    @property
    def guarded(self):
        """The proxy whose answers go wrong."""
        return self.tokens if self.kind == "token" else self.registry

    def met(self):
        """The requests that the fault is for, all of them."""
        with self.guarded.lock:
            return [one for one in self.guarded.requests
                    if re.search(self.pattern, one.path) and one.authorization and
                    self.method in ("*", one.method)]

    def client(self, *arguments):
        """A command; the reason of its failure, or None."""
        result = self.davit(*arguments, check=False, timeout=120, environment={
            "DOCKER_CONFIG": self.stage.credentials(self.registry)})
        assert PASSWORD not in result.stdout + result.stderr
        if result.code == 0:
            return None
        assert result.code == 1 and result.stderr, result
        self.said = result.stderr
        last = json.loads(result.stdout.splitlines()[-1]) if result.stdout else {}
        return last["error"]["reason"] if "error" in last else f"? {result}"

    def go(self):
        case = self.case
        fault = case.fault(self) if callable(case.fault) else case.fault
        # What comes without a token is refused anyway.
        self.guarded.fault(self.pattern, *(fault if isinstance(fault, list) else [fault]),
                           method=case.method or self.method, times=case.times,
                           when=lambda request: request.authorization)
        reason = self.act()
        if case.reason is None:
            assert reason is None, self.said
        else:
            wanted = (case.reason,) if isinstance(case.reason, str) else case.reason
            assert reason in wanted, f"{reason}: {self.said}"
            assert reason is None or not self.visible()
        if case.check:
            case.check(self)
        self.guarded.clear_faults()
        self.guarded.release()
        self.registry.replacements = [one for one in self.registry.replacements
                                      if one[1] != self.elsewhere.url]
        if reason is not None:
            assert self.act() is None, self.said
        self.check()
        self.check_again()
        self.check_credentials()

    def check_credentials(self):
        for one in self.registry.requests:
            assert one.authorization is None or one.authorization.startswith("Bearer "), one
        for one in self.elsewhere.requests:
            assert one.authorization is None, one
            for text in (PASSWORD, BASIC, urllib.request.quote(BASIC)):
                assert text not in f"{one.path}{one.headers}{one.body}", one
        assert any(one.authorization == f"Basic {BASIC}" for one in self.tokens.requests)


# --- All of them ---------------------------------------------------------------------------------


class Stage:
    """What the runs share. Whoever has the password may pull and push; on the open registry, which
    has the same content, anybody. `content`: where the images of the runs are put."""

    config = {}

    def __init__(self, make_davitd):
        self.roots = []
        # First: if it does not start, there is nothing else to stop.
        self.daemon = make_davitd(config={**SETTINGS, **self.config})
        self.tokens = TokenServer(self._root(), {USER: (PASSWORD, {"pull", "push"})})
        self.registries = []
        self.content = self.registry = self._registry(token_server=self.tokens)
        self.open_registry = self._registry(content_of=self.registry)
        self.erofs = "erofs" in Davit(self.daemon)("info").stdout
        self.credentials_root = self._root()

    def _root(self):
        self.roots.append(_make_scratch())
        return self.roots[-1]

    def _registry(self, **options):
        self.registries.append(Registry(self._root(), **options))
        return self.registries[-1]

    def credentials(self, proxy):
        directory = self.credentials_root / str(proxy.port)
        directory.mkdir(exist_ok=True)
        (directory / "config.json").write_text(json.dumps({"auths": {proxy.host: {"auth": BASIC}}}))
        return str(directory)

    def check_layer(self, layer):
        """That its bytes are on the disk, or its one file."""
        directory = self.daemon.data_root / "layers" / layer.diff_id.removeprefix("sha256:")
        if self.erofs:
            assert hashlib.sha256((directory / "layer.tar").read_bytes()).hexdigest() == \
                directory.name
            return
        (path,) = (directory / "fs").iterdir()
        assert path.read_bytes() in layer.tar

    def close(self):
        for registry in self.registries:
            registry.stop()
        self.tokens.stop()
        for root in self.roots:
            shutil.rmtree(root)


def cases(table):
    return [pytest.param((kind, case), id=f"{kind}-{fault}-{case.name}".replace(" ", "-"))
            for kind, faults in table.items() for fault in FAULTS for case in faults[fault]]


@contextlib.contextmanager
def outcomes_of(session, run_class, stage_class=Stage):
    """{id of a test: future of its run}, of the tests of this class that were chosen."""
    with davitd_maker() as make_davitd:
        stage = stage_class(make_davitd)
        pid = stage.daemon.pid
        try:
            with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
                chosen = [item.callspec for item in session.items
                          if getattr(item.module, "RUN", None) is run_class and
                          "cell" in getattr(getattr(item, "callspec", None), "params", {})]
                # Those first that wait for time to pass.
                chosen.sort(key=lambda one: not re.search("stall|1-B", one.id))
                yield {one.id: pool.submit(_run, run_class, stage, *one.params["cell"])
                       for one in chosen}
            assert stage.daemon.process.poll() is None and stage.daemon.pid == pid, \
                stage.daemon.log()[-4000:]
            assert PASSWORD not in stage.daemon.log()
        finally:
            stage.close()


def _run(run_class, stage, kind, case):
    one = run_class(stage, kind, case)
    try:
        one.go()
    finally:
        one.close()
