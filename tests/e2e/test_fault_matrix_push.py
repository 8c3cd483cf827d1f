"""The fault matrix of pushes: HEAD and uploads, by what goes wrong with them (see matrix.py).

Of each run is asserted: the registry has the very image that was pulled, or none; once the fault is
gone the same push succeeds; what is there is not sent again; no credential came to a host it is not
for. Of the daemon, that it lives.
"""

import hashlib
import itertools

import images
import pytest
from fault_registry import Fault
from matrix import (FAULTS, SLOW, Case, Run, Stage, asked_at_most, busy, cases, challenge,
                    elsewhere_was_asked, http_date, no_range_asked, outcomes_of, redirected,
                    redirected_to_one_who_asks, waited)

KINDS = ("HEAD", "upload")
NOWHERE = "sha256:" + 64 * "0"
# Chunks begin with 4 MiB: a layer that is sent in two parts, by PATCH and PUT.
LAYER_BYTES = 5_500_000


# --- The table -----------------------------------------------------------------------------------


def elsewhere_in_location(run):
    """The session is at another host from its first answer on."""
    run.registry.replace(run.registry.url, run.elsewhere.url)
    return Fault()


def elsewhere_in_location_asks(run):
    redirected_to_one_who_asks(run)
    return elsewhere_in_location(run)


TABLE = {
    "HEAD": {
        "truncate": [
            Case("once", Fault(cut_headers=True)),
            Case("for-ever", Fault(cut_headers=True), None, "CONNECTION_FAILED"),
        ],
        "stall": [
            Case("once", Fault(stall_after=-1)),
            Case("for-ever", Fault(stall_after=-1), None, "STALLED"),
        ],
        "1 B/s": [
            Case("headers", Fault(drip_headers=SLOW)),
        ],
        # A registry that says that it has a blob, but another one.
        "wrong byte": [
            Case("digest", Fault(status=200, headers={"Docker-Content-Digest": NOWHERE}), None),
        ],
        "wrong length": [
            Case("another-size", Fault(status=200, headers={"Content-Length": "5"}), None),
        ],
        "200 for Range": [
            Case("none-asked", Fault(cut_headers=True), check=no_range_asked),
        ],
        "wrong Content-Range": [
            Case("206", Fault(status=206, headers={"Content-Range": "bytes 0-1/2"}), None,
                 "REGISTRY_PROTOCOL"),
        ],
        "401 loop": [
            Case("for-ever", challenge, None, "UNAUTHORIZED", check=asked_at_most(12)),
        ],
        "404": [
            Case("for-ever", Fault(status=404), None),
        ],
        "429": [
            Case("seconds", busy(429, 1), check=waited(1)),
            Case("date", busy(429, http_date), check=waited(1)),
        ],
        "5xx burst": [
            Case("three", [busy(503), busy(500), busy(502)], 3),
            Case("for-ever", busy(503), None, "REGISTRY_BUSY"),
        ],
        "reset": [
            Case("headers", Fault(reset_after=-1)),
            Case("for-ever", Fault(reset_after=-1), None, "CONNECTION_FAILED"),
        ],
        "cross-host redirect": [
            Case("other-host", redirected, None, check=elsewhere_was_asked),
            Case("asks-there", redirected_to_one_who_asks, None, "UNAUTHORIZED",
                 check=elsewhere_was_asked),
        ],
    },
    "upload": {
        "truncate": [
            Case("start", Fault(cut_headers=True), method="POST"),
            Case("chunk", Fault(read_short=2_000_000), method="PATCH", again=True),
            Case("chunk-answer", Fault(lose_answer=True), method="PATCH", again=True),
            Case("end", Fault(read_short=100_000), method="PUT", again=True),
            Case("end-answer", Fault(lose_answer=True), method="PUT", again=True),
            Case("for-ever", Fault(read_short=100_000), None, "CONNECTION_FAILED", method="PUT",
                 again=True),
        ],
        "stall": [
            Case("start", Fault(stall_after=-1), method="POST"),
            Case("chunk", Fault(read_stall=2_000_000), method="PATCH", again=True),
            Case("chunk-answer", Fault(stall_after=-1), method="PATCH", again=True),
            Case("end", Fault(read_stall=100_000), method="PUT", again=True),
            Case("for-ever", Fault(stall_after=-1), None, "STALLED", method="POST"),
        ],
        "1 B/s": [
            Case("start", Fault(drip_headers=SLOW), method="POST"),
            Case("chunk", Fault(read_drip=SLOW), method="PATCH", again=True),
        ],
        "wrong byte": [
            Case("chunk", Fault(read_wrong=1000), method="PATCH", again=True),
            Case("end", Fault(read_wrong=1000), method="PUT", again=True),
            Case("for-ever", Fault(read_wrong=1000), None, "DIGEST_MISMATCH", method="PUT",
                 again=True),
            Case("said", Fault(headers={"Docker-Content-Digest": NOWHERE}), None,
                 "DIGEST_MISMATCH", method="PUT", again=True),
        ],
        "wrong length": [
            Case("has-less", Fault(headers={"Range": "0-99"}), method="PATCH", again=True),
            Case("has-more", Fault(headers={"Range": "0-99999999"}), None, "REGISTRY_PROTOCOL",
                 method="PATCH", again=True),
        ],
        "200 for Range": [
            Case("chunk", Fault(status=200), None, "REGISTRY_PROTOCOL", method="PATCH",
                 again=True),
        ],
        "wrong Content-Range": [
            Case("416", Fault(status=416), method="PATCH", again=True),
            Case("nonsense", Fault(headers={"Range": "bytes x-y"}), None, "REGISTRY_PROTOCOL",
                 method="PATCH", again=True),
        ],
        "401 loop": [
            Case("chunk", challenge, method="PATCH", again=True),
            Case("end", challenge, method="PUT", again=True),
            Case("for-ever", challenge, None, "UNAUTHORIZED", method="POST"),
        ],
        "404": [
            Case("session-lost", Fault(status=404), method="PATCH", again=True),
            Case("end", Fault(status=404), method="PUT", again=True),
            Case("for-ever", Fault(status=404), None, ("NOT_FOUND", "NAME_UNKNOWN"),
                 method="POST"),
        ],
        "429": [
            Case("start", busy(429, 1), method="POST", check=waited(1)),
            Case("chunk", busy(429, http_date), method="PATCH", again=True),
            Case("end", busy(429, 1), method="PUT", again=True),
        ],
        "5xx burst": [
            Case("start", [busy(503), busy(500), busy(502)], 3, method="POST"),
            Case("chunk", [busy(503), busy(500), busy(502)], 3, method="PATCH", again=True),
            Case("end", [busy(503), busy(500), busy(502)], 3, method="PUT", again=True),
            Case("for-ever", busy(503), None, "REGISTRY_BUSY", method="POST"),
        ],
        "reset": [
            Case("start", Fault(reset_after=-1), method="POST"),
            Case("chunk", Fault(read_reset=2_000_000), method="PATCH", again=True),
            Case("end", Fault(read_reset=100_000), method="PUT", again=True),
            Case("for-ever", Fault(read_reset=0), None, "CONNECTION_FAILED", method="POST"),
        ],
        "cross-host redirect": [
            Case("location", elsewhere_in_location, None, method="POST", again=True,
                 check=elsewhere_was_asked),
            Case("location-asks", elsewhere_in_location_asks, None, "UNAUTHORIZED", method="POST",
                 again=True, check=elsewhere_was_asked),
            Case("start", redirected, None, method="POST", again=True, check=elsewhere_was_asked),
            Case("chunk", redirected, None, method="PATCH", again=True, check=elsewhere_was_asked),
            Case("end", redirected, None, method="PUT", again=True, check=elsewhere_was_asked),
        ],
    },
}


def test_the_table_is_complete():
    assert {(kind, fault) for kind in TABLE for fault in TABLE[kind]} == \
        set(itertools.product(KINDS, FAULTS))


# --- The runs ------------------------------------------------------------------------------------


class PushStage(Stage):
    """The daemon has the images from a registry of their own."""

    config = {"keep-compressed": True}

    def __init__(self, make_davitd):
        super().__init__(make_davitd)
        self.content = self._registry()


class Push(Run):

    def __init__(self, stage, kind, case):
        super().__init__(stage, kind, case)
        assert self.client("pull", "-q", self.name) is None, self.said
        self.registry.upstream = stage.registry
        self.registry.forget()

    @property
    def size(self):
        return LAYER_BYTES if self.case.method == "PATCH" else 400_000

    @property
    def method(self):
        return self.case.method or self.kind

    pattern = "/blobs/"

    def act(self):
        return self.client("push", "--progress=json", self.name)

    def visible(self):
        answer = images.Connection(self.stage.open_registry.url).request(
            "GET", f"/v2/{self.repository}/manifests/latest", Accept=self.image.media_type)
        return answer.status == 200 and answer.headers["Docker-Content-Digest"]

    def check(self):
        assert self.visible() == self.image.digest
        for layer in (self.witness, self.target):
            data = self.stage.open_registry.blob_path(layer.digest).read_bytes()
            assert hashlib.sha256(data).hexdigest() == layer.digest.removeprefix("sha256:")
        sent = sum(one.received for proxy in (self.registry, self.elsewhere)
                   for one in proxy.requests if "/blobs/uploads/" in one.path)
        size = sum(len(blob) for blob in self.image.blobs())
        # What is broken off for ever is tried six times.
        tries = 1 if not self.case.again else 4 if self.case.reason is None else 10
        assert size <= sent <= size * tries

    def check_again(self):
        """What is there is not sent."""
        before = len(self.registry.requests)
        assert self.act() is None, self.said
        assert not [one.path for one in self.registry.requests[before:] if "/uploads/" in one.path]


RUN = Push


@pytest.fixture(scope="module")
def outcomes(request):
    with outcomes_of(request.session, Push, PushStage) as outcomes:
        yield outcomes


@pytest.mark.parametrize("cell", cases(TABLE))
def test_cell(outcomes, request, cell):
    outcomes[request.node.callspec.id].result()
