"""The fault matrix of pulls: what is asked for, by what goes wrong with it (see matrix.py).

Of each run is asserted: the layers are those of the image, or nothing is visible; once the fault is
gone the same pull succeeds; nothing verified was sent twice, and of the rest little; no credential
came to a host it is not for. Of the daemon, that it lives.
"""

import itertools

import pytest
from fault_registry import Fault
from matrix import (FAULTS, LINE, SLOW, YEAR_S, Case, Run, asked_at_most, busy, cases, challenge,
                    elsewhere_was_asked, http_date, no_range_asked, outcomes_of, redirected,
                    redirected_to_one_who_asks, shifted, waited)

# What connections that break, or leave work to others, may have held beyond what was read of them.
# It is less than what comes before MID.
SLACK_BYTES = 3 << 19
MID = Fault(reset_after=2_000_000, drip=LINE)
KINDS = ("manifest", "config", "layer", "token")


# --- The table -----------------------------------------------------------------------------------


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
            Case("date", busy(429, http_date), 1, check=waited(1)),
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
    Case("asks-there", redirected_to_one_who_asks, None, "UNAUTHORIZED", check=elsewhere_was_asked),
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
            Case("other-host", redirected, None, "DENIED", check=elsewhere_was_asked),
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
            # What comes after the blob is noticed, or not waited for: it is taken in no case.
            Case("is-more-chunked", Fault(long=100, chunked=True), None,
                 (None, "REGISTRY_PROTOCOL"), again=True),
        ],
        "200 for Range": [
            Case("once", [MID, Fault(ignore_range=True)], 2, again=True),
            Case("for-ever", [MID, Fault(ignore_range=True)], None,
                 again=True),
        ],
        "wrong Content-Range": [
            Case("start", [MID, Fault(content_range=shifted(1, 0, 0))], 2,
                 again=True),
            Case("end", [MID, Fault(content_range=shifted(0, -1, 0))], 2,
                 again=True),
            Case("size", [MID, Fault(content_range=shifted(0, 0, 1))], 2,
                 again=True),
            Case("nonsense", [MID, Fault(content_range="bytes x")], 2,
                 again=True),
            Case("for-ever", [MID, Fault(content_range=shifted(1, 0, 0))],
                 None, ("RANGE_BROKEN", "REGISTRY_PROTOCOL"), again=True),
        ],
        "401 loop": [
            Case("once", challenge),
            Case("in-the-middle", lambda run: [MID, challenge(run)], 2),
            Case("for-ever", challenge, None, "UNAUTHORIZED", check=asked_at_most(4)),
        ],
        "404": [
            Case("for-ever", Fault(status=404), None, "BLOB_UNKNOWN", check=asked_at_most(1)),
            Case("in-the-middle", [MID, Fault(status=404)], None,
                 "BLOB_UNKNOWN"),
        ],
        "429": [
            Case("seconds", busy(429, 1), check=waited(1)),
            Case("date", busy(429, http_date), check=waited(1)),
            Case("in-the-middle", [MID, busy(429, 1)], 2),
            Case("silent", busy(429)),
        ],
        "5xx burst": [
            Case("three", [busy(503), busy(500), busy(502)], 3),
            Case("in-the-middle", [MID, busy(503), busy(500)], 3),
            Case("for-ever", busy(503), None, "REGISTRY_BUSY"),
        ],
        "reset": [
            Case("headers", Fault(reset_after=-1)),
            Case("body", MID),
            Case("ten", [Fault(reset_after=100_000, drip=LINE)], 10),
            Case("for-ever", Fault(reset_after=-1), None, "CONNECTION_FAILED"),
        ],
        "cross-host redirect": FOLLOWED + [
            Case("breaks-there", lambda run: [MID, redirected(run)], None,
                 check=elsewhere_was_asked),
        ],
    },
}


def test_the_table_is_complete():
    assert {(kind, fault) for kind in TABLE for fault in TABLE[kind]} == \
        set(itertools.product(KINDS, FAULTS))


# --- The runs ------------------------------------------------------------------------------------


class Pull(Run):

    @property
    def size(self):
        return 3_000_000 if self.kind == "layer" else 20_000

    @property
    def pattern(self):
        return {"manifest": "/manifests/latest", "config": self.image.id, "token": "^/token",
                "layer": self.target.digest}[self.kind]

    def act(self):
        return self.client("pull", "--progress=json", self.name)

    def visible(self):
        return self.davit("images", "-q", "--no-trunc", self.name).stdout.split()

    def check(self):
        assert self.visible() == [self.image.id]
        for proxy in (self.registry, self.elsewhere):
            proxy.wait_for(lambda all=proxy.requests: not [one for one in all if not one.finished])
        sent = self.registry.bytes_by_digest()
        for digest, count in self.elsewhere.bytes_by_digest().items():
            sent[digest] = sent.get(digest, 0) + count
        for layer in (self.witness, self.target):
            self.stage.check_layer(layer)
            size = len(layer.blob)
            allowed = size + min(SLACK_BYTES, size)
            if layer is self.target and self.case.again:
                allowed += 3 * size
            assert size <= sent[layer.digest] < allowed, \
                f"{sent[layer.digest]} bytes of a layer of {size} were sent: " + str(
                    [(one.headers.get("range"), one.status, one.sent)
                     for one in self.registry.matching("GET", layer.digest)])

    def check_again(self):
        """No layer is asked for once it is there."""
        before = len(self.registry.requests)
        assert self.act() is None, self.said
        assert not [one.path for one in self.registry.requests[before:]
                    if "/blobs/" in one.path and self.image.id not in one.path]


RUN = Pull


@pytest.fixture(scope="module")
def outcomes(request):
    with outcomes_of(request.session, Pull) as outcomes:
        yield outcomes


@pytest.mark.parametrize("cell", cases(TABLE))
def test_cell(outcomes, request, cell):
    outcomes[request.node.callspec.id].result()
