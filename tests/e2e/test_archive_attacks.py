"""Archives of images from strangers, loaded by a daemon: the exact images or the exact error, nothing
half-loaded, nothing outside touched, time and memory bounded. They are made in archive_attacks.py."""

import concurrent.futures
import contextlib
import itertools
import os
import re
import sqlite3
import time

import archive_attacks
import grpc
import pytest
import tars
import trees
from api import Api, detail
from archives import squeeze
from conftest import WAIT_SECONDS, Davit, wait_until
from siege import SANITIZED, Canary, MemoryWatch

pytest_plugins = ("api",)

PIECE = 1 << 18
DAEMON_MEMORY_MAX = 128 << 20  # three loads at once, each of 32 MiB of documents
READER_MEMORY_MAX = 128 << 20
SECONDS_MAX = 30
# Sanitizers make them several times as slow, and compression is libraries' business; and they need
# memory, so that none is refused.
NOT_SANITIZED = ("mass-of-members", "xz-dictionary-of-3-gib")
ATTACKS = [(one.name, outer) for one in archive_attacks.corpus("/canary")
           if not SANITIZED or one.name not in NOT_SANITIZED
           for outer in ("none", *(() if SANITIZED else one.outers))]


class Outcome:
    """How a load ended: `images`, {ID: names}, or `error` with its message."""

    def __init__(self, api, call):
        self.images, self.error = None, None
        started = time.monotonic()
        try:
            last = None
            for last in call:
                pass
            assert last.job.state == api.jobs.Job.DONE, last
            self.images = {}
            for one in last.job.load_result.images:
                self.images.setdefault(one.image_id, []).extend(one.names)
        except grpc.RpcError as error:
            self.error = error
            self.code = error.code().name
            self.message = error.details()
            self.reason = self._reason(api)
        self.seconds = time.monotonic() - started

    def _reason(self, api):
        try:
            return detail(api, self.error).reason
        except (KeyError, ValueError, StopIteration):
            return ""

    def __repr__(self):
        if self.error:
            return f"{self.code} {self.reason or '(no reason)'}: {self.message}"
        return f"loaded {self.images}"


class Siege:
    """A daemon, and how each attack on it ended."""

    def __init__(self, daemon, messages):
        self.daemon = daemon
        self.davit = Davit(daemon)
        self.api = Api(daemon, messages)
        self.canary = Canary(daemon.root / "canary")
        self.attacks = {one.name: one
                        for one in archive_attacks.corpus(str(self.canary.path))}
        self.outcomes = {}

    def run(self, chosen):
        watch = MemoryWatch(self.daemon.pid)
        watch.start()
        try:
            with concurrent.futures.ThreadPoolExecutor(3) as pool:
                list(pool.map(self._load, *zip(*chosen)))
        finally:
            watch.end()
        self.memory = watch.peaks

    def _load(self, name, outer):
        attack = self.attacks[name]
        data = squeeze(attack.data(), outer)
        pieces = (data[at:at + PIECE] for at in range(0, len(data), PIECE))
        if attack.forever:
            pieces = itertools.chain(pieces, itertools.repeat(bytes(PIECE)))
        self.outcomes[name, outer] = Outcome(self.api, self.api.load(
            pieces, timeout=4 * SECONDS_MAX, subject=name))

    def accepted(self):
        """{ID of an image: what must be its names} of all that was to be accepted."""
        found = {}
        for attack in self.attacks.values():
            if isinstance(attack.images, dict) and any(key[0] == attack.name
                                                       for key in self.outcomes):
                for image_id, tags in attack.images.items():
                    found.setdefault(image_id, set()).update(tags)
        return found


@pytest.fixture(scope="module")
def siege(request, messages):
    chosen = {item.callspec.params["key"] for item in request.session.items
              if item.module is request.module and
              "key" in getattr(getattr(item, "callspec", None), "params", {})}
    with trees.daemon_with("erofs") as daemon:
        made = Siege(daemon, messages)
        try:
            made.run(sorted(chosen))
            yield made
        finally:
            made.api.channel.close()


@pytest.mark.parametrize("key", ATTACKS, ids="-".join)
def test_attack(siege, key):
    attack, outcome = siege.attacks[key[0]], siege.outcomes[key]
    assert outcome.seconds < SECONDS_MAX, f"{outcome.seconds:.1f} s"
    if outcome.error is None:
        assert attack.images is not None, f"accepted: {outcome}"
        assert {one: sorted(names) for one, names in outcome.images.items()} == \
            {one: sorted(names) for one, names in (attack.said or attack.images).items()}
        return
    assert attack.error is not None, f"refused: {outcome}"
    assert outcome.code == attack.code, outcome
    assert outcome.reason in (attack.reason if isinstance(attack.reason, tuple) else
                              (attack.reason,)), outcome
    assert re.search(attack.error, outcome.message), outcome
    assert outcome.message.isprintable(), ascii(outcome.message)


def test_exactly_the_accepted_images_are_there(siege):
    listed = {image.id: set(image.repo_tags) for image in siege.api.list()}
    assert listed == siege.accepted()


def test_nothing_of_refused_archives_is_left(siege):
    data_root = siege.daemon.data_root
    wait_until(lambda: not os.listdir(data_root / "tmp"), "tmp/ to be empty")
    with contextlib.closing(sqlite3.connect(f"file:{data_root}/davit.db?mode=ro",
                                            uri=True)) as database:
        rows = {one for one, in database.execute("SELECT diff_id FROM layers")}
        used = {one for one, in database.execute("SELECT DISTINCT diff_id FROM image_layers")}
    assert rows == used
    assert {f"sha256:{one}" for one in os.listdir(data_root / "layers")} == rows
    assert not [job for job in siege.api.list_jobs() if job.state == siege.api.jobs.Job.RUNNING]


def test_what_is_left_is_whole(siege):
    assert "sha256:" not in siege.davit("system", "verify", "-q", check=False).stdout
    assert siege.davit("system", "verify").code == 0


def test_nothing_outside_is_touched(siege):
    assert siege.canary.is_untouched()
    assert set(os.listdir(siege.daemon.root)) <= {
        "canary", "daemon.json", "data", "davit.sock", "exec", "home", "log", "notify"}


def test_memory_stays_bounded(siege):
    if SANITIZED:
        return  # they need memory of their own
    print({name: f"{peak >> 10} KiB" for name, peak in siege.memory.items()})
    assert siege.memory["davitd"] < DAEMON_MEMORY_MAX
    assert siege.memory["davit-archive"] < READER_MEMORY_MAX


def test_the_daemon_lives(siege):
    assert siege.daemon.process.poll() is None
    assert "panic" not in siege.daemon.log()


# --- What else one can feed to `davit load` ------------------------------------------------------


def refused(davit, *arguments, error, **options):
    result = davit("load", *arguments, check=False, **options)
    assert result.code == 1, result
    assert re.search(error, result.stderr), result
    assert davit("images", "-aq").stdout == ""
    assert os.listdir(davit.daemon.data_root / "layers") == []
    return result


def test_nothing_on_standard_input(davit):
    refused(davit, error=".", input="")
    refused(davit, error=".")  # /dev/null


def test_files_that_are_none(davit, scratch):
    refused(davit, "-i", scratch, error="[Ii]s a directory|is a directory")
    refused(davit, "-i", scratch / "missing", error="no such file or directory|No such file")
    (scratch / "empty").touch()
    refused(davit, "-i", scratch / "empty", error=".")
    refused(davit, "-i", scratch / "dangling", error=".")


def test_devices_without_end(davit):
    for device in ("/dev/zero", "/dev/urandom"):
        refused(davit, "-i", device, error=".")
        with open(device, "rb") as endless:
            process = davit.start("load", stdin=endless, text=True)
            _, said = process.communicate(timeout=WAIT_SECONDS)
            assert process.returncode == 1 and said, said
    refused(davit, "-i", "/dev/full", error=".")


def test_a_fifo(davit, scratch):
    os.mkfifo(scratch / "fifo")
    image, members, _ = archive_attacks.good(archive_attacks.Maker("/x"), "fifo")
    process = davit.start("load", "-i", scratch / "fifo", text=True)
    with open(scratch / "fifo", "wb") as fifo:
        fifo.write(archive_attacks.pack(members))
    said, errors = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, said) == (0, "Loaded image: attack/fifo:x\n"), errors
    assert davit("images", "-aq", "--no-trunc").stdout == image.id + "\n"


# --- What one can give to `davit import` ---------------------------------------------------------


def import_outcome(davit, api, source="-", data=b"", **options):
    request = api.images.ImportImageRequest

    def requests():
        yield request(options=request.ImportOptions(source=source, **options))
        if data:
            yield request(data=data)
    stub = api.stub("Images/Import", "stream_stream", api.jobs.JobUpdate)
    try:
        last = list(stub(requests(), timeout=2 * SECONDS_MAX))[-1]
        return last.job.import_result.image_id
    except grpc.RpcError as error:
        assert davit.daemon.process.poll() is None
        assert davit("images", "-aq").stdout == ""
        return f"{error.code().name} {error.details()}"


TREE = tars.archive(tars.file("f", b"1"))
CHANGES = {
    "onbuild": (["ONBUILD " * 8000], "Chaining ONBUILD"),
    "words": (["EXPOSE " + "80 " * 20_000], "sha256:"),
    "pairs": (["LABEL " + " ".join(f"a{one}=1" for one in range(7000))], "sha256:"),
    "variables": (["ENV " + " ".join(f"A{one}=$A{one - 1}" for one in range(4000))], "sha256:"),
    "doubling": (["ENV A=0123456789"] + 40 * ["ENV A=$A$A"], "expands to more than 1 MiB"),
    "json": (["CMD [" + '"a",' * 16_000 + '"b"]'], "sha256:"),
    "deep": (["CMD " + "[" * 30_000], "sha256:"),
    "braces": (["ENV A=" + "${A:-" * 10_000], "too deep|missing"),
    "too-long": (["USER x"] * 20_000, "longer than 64 KiB"),
    "control": (["LABEL a=\x1b[2J"], "sha256:"),
    "from": (["FROM /etc/passwd"], "is not|not supported"),
    "copy": (["COPY /etc/passwd /"], "is not|not supported"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_hostile_changes(davit, api, name):
    changes, expected = CHANGES[name]
    started = time.monotonic()
    outcome = import_outcome(davit, api, data=TREE, changes=changes)
    assert re.search(expected, outcome), outcome
    assert time.monotonic() - started < SECONDS_MAX


@pytest.mark.parametrize("source", (
    "file:///etc/passwd", "FILE:///etc/passwd", "ftp://127.0.0.1:1/x", "gopher://127.0.0.1:1/x",
    "unix:///run/x", "dict://127.0.0.1:1/", "http://", "http:///etc/passwd", "http://a b/"))
def test_only_the_web_is_fetched_from(davit, api, source):
    """Anything else is the name of what the client sends, which here is nothing."""
    outcome = import_outcome(davit, api, source)
    if source.startswith("http"):
        assert outcome.startswith(("INVALID_ARGUMENT", "UNAVAILABLE")), outcome
    else:
        assert [(one.id, one.size_bytes) for one in api.list()] == [(outcome, 0)]


@pytest.mark.parametrize("data", (archive_attacks.zstd_zeros(2 << 30), b"no tar" * 1000, TREE[:700],
                                  tars.archive(tars.file("../escape", b"x")),
                                  archive_attacks.gzip_zeros(2 << 30)),
                         ids=("zstd-bomb", "no-tar", "cut", "dotdot", "gzip-bomb"))
def test_hostile_trees(davit, api, data):
    outcome = import_outcome(davit, api, data=data)
    assert re.match("DATA_LOSS|INVALID_ARGUMENT", outcome), outcome
    assert os.listdir(davit.daemon.data_root / "layers") == []
