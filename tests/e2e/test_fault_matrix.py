"""The fault matrix: what is asked for, by what goes wrong with it, before a real registry that wants
tokens of a real token server.

Nouns: a *kind* of request and a *fault* make a *cell*; a cell has *cases*: how exactly it goes
wrong, how often, and what is to come of it: the image, or one exact reason. A *run* is one case with
its own image, proxies and credentials. All runs share one daemon and go on at once; each test tells
of one of them.

Of each run is asserted: the layers are those of the image, or nothing is visible; once the fault is
gone the same pull succeeds; nothing verified was sent twice, and of the rest little; no credential
came to a host it is not for. Of the daemon, that it lives.
"""

import base64
import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import os
import re
import time
import urllib.request

import images
import pytest
from conftest import Davit, Registry, _make_scratch
from fault_proxy import FaultProxy
from fault_registry import Fault
from token_server import TokenServer

PASSWORD = "password-of-the-matrix"
PARALLEL = 12
# What a broken connection may have held, beyond what was read of it.
SLACK_BYTES = 1 << 20
SLOW = (1, 1.0)
LINE = (32 << 10, 0.001)
YEAR_S = 365 * 24 * 3600

SETTINGS = {
    "low-speed-time": "2s", "stall-timeout": "3s", "connect-timeout": "10s",
    "retry-backoff": "50ms", "max-concurrent-downloads": 100, "max-connections": 200,
}


@dataclasses.dataclass
class Case:
    name: str
    fault: object  # Fault, list of Faults, or a function that makes them of the run
    times: int = 1  # None: until it is cleared
    reason: object = None  # None: it recovers; else one, or several where it depends on timing
    check: object = None  # called with the run when the first pull is over
    again: bool = False  # what was wrong may be sent a second time


# --- The table -----------------------------------------------------------------------------------


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
    """Between the first request that met the fault and the next one."""
    def check(run):
        first, second = run.met()[:2]
        assert second.at - first.at >= seconds, second.at - first.at
    return check


def no_range_asked(run):
    assert not [one for one in run.met() if "range" in one.headers]


def elsewhere_was_asked(run):
    assert run.elsewhere.requests


def http_date(seconds):
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + seconds))


def busy(status, retry_after=None):
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Fault(status=status, headers=headers, body=b"busy")


def redirected(run):
    return Fault(redirect=run.elsewhere.url + "{path}")


def shifted(first, last, size):
    """A function for Fault.content_range: true values, plus these."""
    return lambda a, b, c: f"bytes {a + first}-{b + last}/{c + size}"


def documents(wrong, wrong_range, refused_once, missing, redirect):
    """The cases of what is small and read as a whole."""
    lost = ("CONNECTION_FAILED",)
    return {
        "truncate": [
            Case("body", Fault(short=50)),
            Case("body-chunked", Fault(short=50, chunked=True)),
            Case("headers", Fault(cut_headers=True)),
            Case("for-ever", Fault(short=50), None, lost),
        ],
        "stall": [
            Case("headers", Fault(stall_after=-1)),
            Case("body", Fault(stall_after=100)),
            Case("for-ever", Fault(stall_after=100), None, "STALLED"),
        ],
        "1 B/s": [
            Case("body", Fault(drip=SLOW)),
            Case("headers", Fault(drip_headers=SLOW)),
        ],
        "wrong byte": wrong,
        "wrong length": [
            Case("says-less", Fault(content_length=60), None,
                 ("REGISTRY_PROTOCOL", "DIGEST_MISMATCH", "INVALID_MANIFEST", "SIZE_MISMATCH")),
            Case("says-more", Fault(content_length=20_000)),
            Case("is-more", Fault(long=100), None,
                 ("REGISTRY_PROTOCOL", "DIGEST_MISMATCH", "INVALID_MANIFEST", "SIZE_MISMATCH")),
        ],
        "200 for Range": [
            Case("none-asked", [Fault(short=50), Fault(ignore_range=True)], 2,
                 check=no_range_asked),
        ],
        "wrong Content-Range": wrong_range,
        "401 loop": [
            Case("once", challenge, 1, refused_once),
            Case("for-ever", challenge, None, "UNAUTHORIZED", check=asked_at_most(4)),
        ],
        "404": [
            Case("for-ever", Fault(status=404), None, missing, check=asked_at_most(1)),
        ],
        "429": [
            Case("seconds", busy(429, 1), 1, check=waited(1)),
            Case("date", lambda run: busy(429, http_date(2)), 1, check=waited(1)),
            Case("absurd", busy(429, YEAR_S), None, "REGISTRY_BUSY", check=asked_at_most(1)),
            Case("silent", busy(429)),
        ],
        "5xx burst": [
            Case("three", [busy(503), busy(500), busy(502)], 3),
            Case("for-ever", busy(503), None, "REGISTRY_BUSY"),
        ],
        "reset": [
            Case("headers", Fault(reset_after=-1)),
            Case("body", Fault(reset_after=100)),
            Case("for-ever", Fault(reset_after=100), None, lost),
        ],
        "cross-host redirect": redirect,
    }


FOLLOWED = [
    Case("other-host", redirected, check=elsewhere_was_asked),
    Case("for-ever", redirected, None, check=elsewhere_was_asked),
]

TABLE = {
    "manifest": documents(
        wrong=[
            Case("once", Fault(wrong_byte=-200), None, "DIGEST_MISMATCH"),
            Case("all", Fault(wrong_bytes=True), None, "DIGEST_MISMATCH"),
        ],
        wrong_range=[
            Case("206", Fault(content_range="bytes 5-6/7"), None, "REGISTRY_PROTOCOL"),
        ],
        # A token that is refused though it is new will not be better the next time.
        refused_once="UNAUTHORIZED", missing=("NOT_FOUND", "MANIFEST_UNKNOWN"),
        redirect=FOLLOWED),
    "config": documents(
        wrong=[
            Case("for-ever", Fault(wrong_byte=100), None, "DIGEST_MISMATCH"),
        ],
        wrong_range=[
            Case("206", Fault(content_range="bytes 5-6/7"), None, "REGISTRY_PROTOCOL"),
        ],
        refused_once=None, missing="BLOB_UNKNOWN",
        redirect=FOLLOWED),
    "token": documents(
        wrong=[
            Case("for-ever", Fault(wrong_byte=900), None, ("UNAUTHORIZED", "REGISTRY_PROTOCOL")),
        ],
        wrong_range=[
            Case("206", Fault(content_range="bytes 5-6/7"), None, "REGISTRY_PROTOCOL"),
        ],
        # By the one who knows the password.
        refused_once="UNAUTHORIZED", missing=("UNAUTHORIZED", "REGISTRY_PROTOCOL", "NOT_FOUND"),
        # Nobody there knows who asks, for the password did not go along.
        redirect=[
            Case("other-host", redirected, None, "UNAUTHORIZED", check=elsewhere_was_asked),
        ]),
    "layer": {
        "truncate": [
            Case("once", Fault(short=2_000_000)),
            Case("chunked", Fault(short=2_000_000, chunked=True)),
            Case("headers", Fault(cut_headers=True)),
            Case("near-the-end", Fault(short=1)),
            Case("for-ever", Fault(short=1), None, "BLOB_TRUNCATED"),
        ],
        "stall": [
            Case("headers", Fault(stall_after=-1)),
            Case("body", Fault(stall_after=2_000_000)),
            Case("for-ever", Fault(stall_after=-1), None, "STALLED"),
        ],
        "1 B/s": [
            Case("body", Fault(drip=SLOW)),
            Case("headers", Fault(drip_headers=SLOW)),
        ],
        "wrong byte": [
            Case("once", Fault(wrong_byte=2_000_000), again=True),
            Case("last", Fault(wrong_byte=-1), again=True),
            Case("for-ever", Fault(wrong_byte=2_000_000), None, "DIGEST_MISMATCH", again=True),
            Case("all", Fault(wrong_bytes=True), None, "DIGEST_MISMATCH", again=True),
        ],
        "wrong length": [
            Case("says-less", Fault(content_length=100_000), None, "REGISTRY_PROTOCOL"),
            Case("says-more", Fault(content_length=9_000_000), None, "REGISTRY_PROTOCOL"),
            Case("is-more", Fault(long=100), None, "REGISTRY_PROTOCOL"),
            Case("is-more-chunked", Fault(long=100, chunked=True), None, "REGISTRY_PROTOCOL",
                 again=True),
        ],
        "200 for Range": [
            Case("once", [Fault(reset_after=2_000_000, drip=LINE), Fault(ignore_range=True)], 2, again=True),
            Case("for-ever", [Fault(reset_after=2_000_000, drip=LINE), Fault(ignore_range=True)], None,
                 again=True),
        ],
        "wrong Content-Range": [
            Case("start", [Fault(reset_after=2_000_000, drip=LINE), Fault(content_range=shifted(1, 0, 0))], 2,
                 again=True),
            Case("end", [Fault(reset_after=2_000_000, drip=LINE), Fault(content_range=shifted(0, -1, 0))], 2,
                 again=True),
            Case("size", [Fault(reset_after=2_000_000, drip=LINE), Fault(content_range=shifted(0, 0, 1))], 2,
                 again=True),
            Case("nonsense", [Fault(reset_after=2_000_000, drip=LINE), Fault(content_range="bytes x")], 2,
                 again=True),
            Case("for-ever", [Fault(reset_after=2_000_000, drip=LINE), Fault(content_range=shifted(1, 0, 0))],
                 None, ("RANGE_BROKEN", "REGISTRY_PROTOCOL"), again=True),
        ],
        "401 loop": [
            Case("once", challenge),
            Case("in-the-middle", lambda run: [Fault(reset_after=2_000_000, drip=LINE), challenge(run)], 2),
            Case("for-ever", challenge, None, "UNAUTHORIZED", check=asked_at_most(4)),
        ],
        "404": [
            Case("for-ever", Fault(status=404), None, "BLOB_UNKNOWN", check=asked_at_most(1)),
            Case("in-the-middle", [Fault(reset_after=2_000_000, drip=LINE), Fault(status=404)], None,
                 "BLOB_UNKNOWN"),
        ],
        "429": [
            Case("seconds", busy(429, 1), check=waited(1)),
            Case("date", lambda run: busy(429, http_date(2)), check=waited(1)),
            Case("in-the-middle", [Fault(reset_after=2_000_000, drip=LINE), busy(429, 1)], 2),
            Case("silent", busy(429)),
        ],
        "5xx burst": [
            Case("three", [busy(503), busy(500), busy(502)], 3),
            Case("in-the-middle", [Fault(reset_after=2_000_000, drip=LINE), busy(503), busy(500)], 3),
            Case("for-ever", busy(503), None, "REGISTRY_BUSY"),
        ],
        "reset": [
            Case("headers", Fault(reset_after=-1)),
            Case("body", Fault(reset_after=2_000_000, drip=LINE)),
            Case("ten", [Fault(reset_after=100_000, drip=LINE)], 10),
            Case("for-ever", Fault(reset_after=-1), None, "CONNECTION_FAILED"),
        ],
        "cross-host redirect": FOLLOWED + [
            Case("breaks-there", lambda run: [Fault(reset_after=2_000_000, drip=LINE), redirected(run)], None,
                 check=elsewhere_was_asked),
        ],
    },
}

KINDS = ("manifest", "config", "layer", "token")
FAULTS = ("truncate", "stall", "1 B/s", "wrong byte", "wrong length", "200 for Range",
          "wrong Content-Range", "401 loop", "404", "429", "5xx burst", "reset",
          "cross-host redirect")


def test_the_table_is_complete():
    assert {(kind, fault) for kind in TABLE for fault in TABLE[kind]} == \
        set(itertools.product(KINDS, FAULTS))


# --- One run -------------------------------------------------------------------------------------


class Run:
    numbers = itertools.count()

    def __init__(self, stage, kind, case):
        self.stage, self.kind, self.case = stage, kind, case
        self.number = next(self.numbers)
        self.repository = f"matrix/{kind}-{self.number}"
        self.witness = images.random_layer(f"witness{self.number}", 200_000)
        size = 3_000_000 if kind == "layer" else 20_000
        self.target = images.random_layer(f"target{self.number}", size)
        self.image = images.image([self.witness, self.target])
        self.pushed = stage.registry.push(self.repository, self.image)
        self.registry = FaultProxy(stage.registry)
        self.tokens = FaultProxy(stage.tokens)
        self.elsewhere = FaultProxy(stage.tokens if kind == "token" else stage.open_registry)
        self.registry.replace(stage.tokens.url, self.tokens.url)
        self.name = self.registry.name(self.pushed)
        self.davit = Davit(stage.daemon)

    def close(self):
        for proxy in (self.registry, self.tokens, self.elsewhere):
            proxy.stop()

    @property
    def guarded(self):
        """The proxy whose answers go wrong."""
        return self.tokens if self.kind == "token" else self.registry

    @property
    def pattern(self):
        return {"manifest": "/manifests/latest", "config": self.image.id, "token": "^/token",
                "layer": self.target.digest}[self.kind]

    def met(self):
        """The requests that the fault is for, all of them."""
        with self.guarded.lock:
            return [one for one in self.guarded.requests
                    if re.search(self.pattern, one.path) and one.authorization]

    def pull(self):
        """The reason of its failure, or None."""
        result = self.davit("pull", "--progress=json", self.name, check=False, timeout=120,
                            environment={"DOCKER_CONFIG": self.stage.credentials(self.registry)})
        last = json.loads(result.stdout.splitlines()[-1]) if result.stdout else {}
        if result.code == 0:
            return None
        assert result.code == 1 and result.stderr.startswith("davit: ") or result.stderr, result
        assert PASSWORD not in result.stdout + result.stderr
        self.said = result.stderr
        return last["error"]["reason"] if "error" in last else f"? {result}"

    def listed(self):
        return self.davit("images", "-q", "--no-trunc", self.name).stdout.split()

    def go(self):
        fault = self.case.fault(self) if callable(self.case.fault) else self.case.fault
        faults = fault if isinstance(fault, list) else [fault]
        # What comes without a token is refused anyway.
        self.guarded.fault(self.pattern, *faults, method="*", times=self.case.times,
                           when=lambda request: request.authorization)
        reason = self.pull()
        wanted = self.case.reason
        if isinstance(wanted, str):
            wanted = (wanted,)
        if wanted is None:
            assert reason is None, self.said
        else:
            assert reason in wanted, f"{reason}: {getattr(self, 'said', 'it succeeded')}"
            assert self.listed() == []
        if self.case.check:
            self.case.check(self)
        self.guarded.clear_faults()
        self.guarded.release()
        if reason is not None:
            assert self.pull() is None, self.said
        self.check()

    def check(self):
        assert self.listed() == [self.image.id]
        for layer in (self.witness, self.target):
            self.stage.check_layer(layer)
        self.check_bytes()
        self.check_credentials()

    def check_bytes(self):
        sent = self.registry.bytes_by_digest()
        for digest, count in self.elsewhere.bytes_by_digest().items():
            sent[digest] = sent.get(digest, 0) + count
        for layer in (self.witness, self.target):
            size = len(layer.blob)
            allowed = size + min(SLACK_BYTES, size // 2)
            if layer is self.target and self.case.again:
                allowed += 3 * size
            assert size <= sent[layer.digest] <= allowed, \
                f"{sent[layer.digest]} bytes of a layer of {size} were sent"
        # What was fetched by the end is not asked for again.
        before = len(self.registry.requests)
        assert self.pull() is None, self.said
        again = [one.path for one in self.registry.requests[before:] if "/blobs/" in one.path]
        assert [one for one in again if self.image.id not in one] == []

    def check_credentials(self):
        basic = base64.b64encode(f"reader:{PASSWORD}".encode()).decode()
        for one in self.registry.requests:
            assert one.authorization is None or one.authorization.startswith("Bearer "), one
        for one in self.elsewhere.requests:
            assert one.authorization is None, one
            for text in (PASSWORD, basic, urllib.request.quote(basic)):
                assert text not in f"{one.path}{one.headers}{one.body}", one
        assert any(one.authorization == f"Basic {basic}" for one in self.tokens.requests)


# --- All of them ---------------------------------------------------------------------------------


class Stage:
    """What the runs share."""

    def __init__(self, make_davitd):
        self.root = _make_scratch()
        self.roots = [_make_scratch() for _ in range(3)]
        self.tokens = TokenServer(self.roots[0], {"reader": (PASSWORD, {"pull"})})
        self.registry = Registry(self.roots[1], token_server=self.tokens)
        self.open_registry = Registry(self.roots[2], content_of=self.registry)
        import subprocess; from conftest import BIN_DIR
        known = subprocess.run([BIN_DIR / "davitd", "--help"], capture_output=True, text=True).stdout
        self.daemon = make_davitd(config={k: v for k, v in SETTINGS.items() if "--" + k in known})
        self.driver = "erofs" if "erofs" in Davit(self.daemon)("info").stdout else "directory"

    def credentials(self, proxy):
        directory = self.root / str(proxy.port)
        directory.mkdir(exist_ok=True)
        auth = base64.b64encode(f"reader:{PASSWORD}".encode()).decode()
        (directory / "config.json").write_text(json.dumps({"auths": {proxy.host: {"auth": auth}}}))
        return str(directory)

    def check_layer(self, layer):
        """That its bytes are on the disk, or its one file."""
        directory = self.daemon.data_root / "layers" / layer.diff_id.removeprefix("sha256:")
        if self.driver == "erofs":
            assert hashlib.sha256((directory / "layer.tar").read_bytes()).hexdigest() == \
                directory.name
            return
        (path,) = (directory / "fs").iterdir()
        assert path.read_bytes() in layer.tar

    def close(self):
        for registry in (self.registry, self.open_registry):
            registry.stop()
        self.tokens.stop()
        for root in [self.root, *self.roots]:
            os.system(f"rm -r {root}")


def cases():
    return [pytest.param((kind, case), id=f"{kind}-{fault}-{case.name}".replace(" ", "-"))
            for kind in KINDS for fault in FAULTS for case in TABLE[kind][fault]]


@pytest.fixture(scope="module")
def outcomes(request):
    """{id of a test: future of its run}, of the tests that were chosen."""
    from conftest import davitd_maker
    with davitd_maker() as make_davitd:
        stage = Stage(make_davitd)
        pid = stage.daemon.pid
        try:
            with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
                chosen = [item.callspec for item in request.session.items
                          if "cell" in getattr(getattr(item, "callspec", None), "params", {})]
                yield {one.id: pool.submit(run, stage, *one.params["cell"]) for one in chosen}
            assert stage.daemon.process.poll() is None and stage.daemon.pid == pid
            assert PASSWORD not in stage.daemon.log()
        finally:
            stage.close()


def run(stage, kind, case):
    one = Run(stage, kind, case)
    try:
        one.go()
    finally:
        one.close()


@pytest.mark.parametrize("cell", cases())
def test_cell(outcomes, request, cell):
    outcomes[request.node.callspec.id].result()
