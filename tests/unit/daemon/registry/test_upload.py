"""Uploads against a registry that does as told, and against a real one. Each test runs upload_tool,
which says in its first lines what it can be told to do."""

import hashlib
import importlib.util
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading

import pytest

HERE = pathlib.Path(__file__).resolve().parent
E2E = HERE.parents[2] / "e2e"
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(E2E))
from fault_proxy import FaultProxy  # noqa: E402
from fault_registry import Fault  # noqa: E402
from upload_registry import UploadRegistry  # noqa: E402

TOOL = os.environ.get("UPLOAD_TOOL", "")
DATA = random.Random(1).randbytes(1_000_000)
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()
CHUNK = 300_000


@pytest.fixture(scope="session")
def blob(tmp_path_factory):
    path = tmp_path_factory.mktemp("upload") / "blob"
    path.write_bytes(DATA)
    return path


def tool(*arguments):
    kept = {name: value for name, value in os.environ.items()
            if not name.upper().endswith("_PROXY")}
    done = subprocess.run([TOOL, *map(str, arguments)], capture_output=True, text=True, timeout=60,
                          env=kept, check=False)
    assert done.returncode == 0, done.stderr
    for sign in ("Sanitizer", "runtime error", "check failed", "s3cret"):
        assert sign not in done.stdout + done.stderr, done.stderr
    return json.loads(done.stdout)


def upload(registry, blob, *options):
    return tool("--chunk", CHUNK, *options, "upload", f"{registry.host}/team/app", blob)


def sent(registry, result):
    assert result.get("digest") == DIGEST, result
    assert registry.blobs == {DIGEST: DATA}
    return result


# --- What is meant to happen ---------------------------------------------------------------------


def test_chunks_then_the_last_one_closes_it(blob):
    with UploadRegistry() as registry:
        result = sent(registry, upload(registry, blob))
        assert [one.method for one in registry.requests if one.path != "/v2/"] == \
            ["POST", "PATCH", "PATCH", "PATCH", "PUT"]
        assert [one.headers["content-range"] for one in registry.of("PATCH")] == \
            ["0-299999", "300000-599999", "600000-899999"]
        assert "expect" not in registry.of("PATCH")[0].headers
        assert len({one.connection for one in registry.of("PATCH")}) == 1
        assert (result["size"], result["waits"]) == (len(DATA), 0)


def test_what_fits_into_one_chunk_takes_two_requests(blob):
    with UploadRegistry() as registry:
        sent(registry, tool("upload", f"{registry.host}/team/app", blob))
        assert [one.method for one in registry.requests if one.path != "/v2/"] == ["POST", "PUT"]
        assert "content-range" not in registry.of("PUT")[0].headers


def test_an_empty_blob(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    with UploadRegistry() as registry:
        tool("upload", f"{registry.host}/team/app", tmp_path / "empty")
        assert list(registry.blobs.values()) == [b""]


@pytest.mark.parametrize("options", [{"relative": True}, {"min_length": 450_000}],
                         ids=["relative", "min-length"])
def test_what_a_server_may_say_of_its_sessions(blob, options):
    with UploadRegistry(**options) as registry:
        sent(registry, upload(registry, blob))
        if "min_length" in options:
            assert [one.received for one in registry.of("PATCH")] == [450_000, 450_000]


def test_blobs_that_are_there(blob):
    with UploadRegistry() as registry:
        registry.blobs[DIGEST] = DATA
        name = f"{registry.host}/team/app"
        assert tool("present", name, DIGEST, len(DATA))["yes"]
        assert not tool("present", name, DIGEST, 5)["yes"]  # something else of that name
        assert not tool("present", name, "sha256:" + 64 * "0", 5)["yes"]
        assert tool("mount", name, DIGEST, "team/base")["yes"]
        assert not tool("mount", name, DIGEST, "team/other")["yes"]
        assert not registry.sessions  # the one that came instead was closed


def test_a_manifest(tmp_path):
    (tmp_path / "manifest").write_bytes(b'{"x": 1}')
    with UploadRegistry(busy=[(503, {}), (502, {})]) as registry:
        name = f"{registry.host}/team/app"
        assert "code" not in tool("manifest", name, "latest", tmp_path / "manifest")
        assert registry.manifests == {
            "latest": ("application/vnd.oci.image.manifest.v1+json", b'{"x": 1}')}
        registry.busy = [(429, {"Retry-After": "1"})]
        waited = tool("manifest", name, "latest", tmp_path / "manifest")
        assert (waited["waits"], waited["longest_wait_ms"] >= 1000) == (1, True)
        registry.wrong_digest = True
        failed = tool("manifest", name, "latest", tmp_path / "manifest")
        assert (failed["code"], failed["reason"]) == ("DATA_LOSS", "DIGEST_MISMATCH")


# --- Where things break --------------------------------------------------------------------------


def test_it_goes_on_at_the_server_s_offset(blob):
    with UploadRegistry(cut=[None, 123_456]) as registry:
        result = sent(registry, upload(registry, blob))
        assert [one.headers["content-range"].split("-")[0] for one in registry.of("PATCH")][:3] == \
            ["0", "300000", "423456"]
        assert registry.received() == len(DATA)  # not a byte twice
        assert result["waits"] == 1


def test_it_goes_on_where_a_server_took_less(blob):
    with UploadRegistry(slow_offset=1000) as registry:
        sent(registry, upload(registry, blob))
        assert registry.of("PATCH")[1].headers["content-range"].startswith("299000-")


def test_many_breaks_are_no_reason_to_give_up(blob):
    with UploadRegistry(cut=[20_000] * 20) as registry:
        result = sent(registry, upload(registry, blob))
        assert registry.received() == len(DATA)
        assert result["waits"] == 20


def test_six_breaks_without_a_byte_are(blob):
    with UploadRegistry(cut=[0] * 100) as registry:
        failed = upload(registry, blob)
        assert (failed["code"], failed["reason"]) == ("UNAVAILABLE", "CONNECTION_FAILED")
        assert registry.host in failed["message"]
        assert failed["waits"] == 5


def test_a_lost_session_is_begun_again(blob):
    with UploadRegistry(cut=[None, 100_000], keeps=False) as registry:
        sent(registry, upload(registry, blob))
        assert len(registry.of("POST")) == 2
        # From then on a connection each: what closes connections may not hit the next session.
        late = registry.requests[-4:]
        assert len({one.connection for one in late}) == 4


def test_sessions_that_are_always_lost_are_an_error(blob):
    with UploadRegistry(lose_sessions=1000) as registry:
        failed = upload(registry, blob)
        assert (failed["code"], failed["reason"]) == ("FAILED_PRECONDITION", "REGISTRY_PROTOCOL")


def test_bytes_that_were_damaged_on_the_way_are_sent_again(blob):
    with UploadRegistry(flip=[1000]) as registry:
        sent(registry, upload(registry, blob))
        assert len(registry.of("POST")) == 2
    with UploadRegistry(flip=[1000, 1000]) as registry:
        failed = upload(registry, blob)
        assert (failed["code"], failed["reason"]) == ("DATA_LOSS", "DIGEST_MISMATCH")


def test_an_answer_that_got_lost_is_looked_for(blob):
    with UploadRegistry(lose_answers=1) as registry:
        sent(registry, upload(registry, blob))
        assert registry.received() == len(DATA)


def test_a_server_that_stops_reading(blob):
    with UploadRegistry(stall=[None, 50_000]) as registry:
        result = tool("--chunk", CHUNK, "--stall-ms", 300, "upload", f"{registry.host}/team/app",
                      blob)
        sent(registry, result)
        assert result["waits"] == 1


def test_a_server_that_never_reads(tmp_path):
    large = tmp_path / "large"  # more than the kernels take
    large.write_bytes(bytes(16 << 20))
    with UploadRegistry(stall=[0] * 100) as registry:
        failed = tool("--stall-ms", 100, "upload", f"{registry.host}/team/app", large)
        assert (failed["code"], failed["reason"]) == ("UNAVAILABLE", "STALLED"), failed


@pytest.mark.parametrize("busy", [[(429, {"Retry-After": "1"})], [(503, {})] * 3, [(500, {})]],
                         ids=["429", "503", "500"])
def test_a_busy_server_is_waited_for(blob, busy):
    with UploadRegistry(busy=list(busy)) as registry:
        result = sent(registry, upload(registry, blob))
        assert result["waits"] == len(busy)
        assert (result["longest_wait_ms"] >= 1000) == (busy[0][0] == 429)


def test_a_busy_server_is_not_waited_for_for_ever(blob):
    with UploadRegistry(busy=[(503, {})] * 100) as registry:
        failed = upload(registry, blob)
        assert (failed["code"], failed["reason"]) == ("UNAVAILABLE", "REGISTRY_BUSY")


@pytest.mark.parametrize("status", [400, 405, 416])
def test_a_server_that_takes_no_chunks_gets_all_at_once(blob, status):
    with UploadRegistry(chunks=status) as registry:
        sent(registry, upload(registry, blob))
        assert [one.received for one in registry.of("PUT")] == [len(DATA)]


def test_chunks_that_are_too_large(blob):
    with UploadRegistry(limit=270_000) as registry:
        sent(registry, upload(registry, blob))


def test_a_limit_that_nothing_fits_into(blob):
    with UploadRegistry(limit=1000) as registry:
        failed = upload(registry, blob)
        assert failed["reason"] == "REGISTRY_PROTOCOL"
        assert "client_max_body_size" in failed["hint"]


def test_a_registry_that_has_something_else(blob):
    with UploadRegistry(wrong_digest=True) as registry:
        failed = upload(registry, blob)
        assert (failed["code"], failed["reason"]) == ("DATA_LOSS", "DIGEST_MISMATCH")


# --- Credentials ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["elsewhere", "redirect"])
def test_no_credentials_at_another_host(blob, way):
    with UploadRegistry() as other, UploadRegistry(user=("u", "s3cret"), **{way: other}) as registry:
        result = upload(registry, blob, "--user", "u", "--password", "s3cret")
        assert result.get("digest") == DIGEST, result
        assert other.blobs == {DIGEST: DATA}
        assert all("authorization" not in one.headers for one in other.requests)
        assert any("authorization" in one.headers for one in registry.requests)


@pytest.mark.parametrize("way", ["elsewhere", "redirect"])
def test_no_credentials_at_another_host_that_asks_for_them(blob, way):
    login = ("u", "s3cret")
    with UploadRegistry(user=login) as other, UploadRegistry(user=login, **{way: other}) as registry:
        failed = upload(registry, blob, "--user", "u", "--password", "s3cret")
        assert (failed["code"], failed["reason"]) == ("UNAUTHENTICATED", "UNAUTHORIZED"), failed
        assert other.requests
        assert all("authorization" not in one.headers for one in other.requests)


def test_wrong_credentials(blob):
    with UploadRegistry(user=("u", "right")) as registry:
        failed = upload(registry, blob, "--user", "u", "--password", "s3cret")
        assert (failed["code"], failed["reason"]) == ("UNAUTHENTICATED", "UNAUTHORIZED")
        assert len(registry.of("POST")) == 2


# --- A real registry -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    spec = importlib.util.spec_from_file_location("e2e_conftest", E2E / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tempfile.mkdtemp(prefix="dt-upload-")
    server = module.Registry(root)
    yield server
    server.stop()
    shutil.rmtree(root)


def test_docker_registry(real, blob):
    assert upload(real, blob)["digest"] == DIGEST
    assert real.blob_path(DIGEST).read_bytes() == DATA
    assert tool("present", f"{real.host}/team/app", DIGEST, len(DATA))["yes"]
    assert tool("mount", f"{real.host}/team/second", DIGEST, "team/app")["yes"]
    assert not tool("mount", f"{real.host}/team/third", "sha256:" + 64 * "0", "team/app")["yes"]


@pytest.mark.parametrize("fault", [Fault(read_reset=100_000), Fault(read_reset=0),
                                   Fault(lose_answer=True)], ids=["middle", "between", "answer"])
def test_docker_registry_behind_a_proxy_that_breaks(real, blob, fault, tmp_path):
    data = random.Random(str(fault)).randbytes(1_000_000)
    (tmp_path / "blob").write_bytes(data)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    with FaultProxy(real) as proxy:
        proxy.replace(real.host, proxy.host)
        proxy.fault("/uploads/", Fault(), fault, Fault(), method="PATCH", times=2)
        result = upload(proxy, tmp_path / "blob")
        assert result.get("digest") == digest, result
    assert real.blob_path(digest).read_bytes() == data


class Cutter:
    """A way to a server on which each connection breaks after so many bytes to it."""

    def __init__(self, server, limit):
        self.target = ("127.0.0.1", server.port)
        self.limit = limit
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.cuts = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            threading.Thread(target=self.copy, args=(client, server, self.limit),
                             daemon=True).start()
            threading.Thread(target=self.copy, args=(server, client, None), daemon=True).start()

    def copy(self, source, target, left):
        try:
            while left != 0:
                data = source.recv(min(left or 65536, 65536))
                if not data:
                    break
                target.sendall(data)
                left = left - len(data) if left is not None else None
            self.cuts += left == 0
        except OSError:
            pass
        for one in (source, target):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()


def test_docker_registry_over_connections_that_never_last(real, tmp_path):
    """Each time it loses the session: chunks have to be small enough for a connection of their
    own."""
    data = random.Random("cutter").randbytes(3_000_000)
    (tmp_path / "blob").write_bytes(data)
    cutter = Cutter(real, 700_000)
    result = tool("upload", f"{cutter.host}/team/app", tmp_path / "blob")
    cutter.close()
    assert result.get("size") == len(data), result
    assert cutter.cuts >= 2
    assert real.blob_path(result["digest"]).read_bytes() == data
