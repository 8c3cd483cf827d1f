"""davitd's gRPC API as any language's client uses it: Debian's python3-grpcio, messages generated
from the published proto files."""

import re
import subprocess
import sys

import grpc
import images
import pytest
from fake_daemon import load_messages
from fault_registry import Fault, FaultRegistry

WAIT = 60
MIB = 1 << 20


@pytest.fixture(scope="session")
def messages(tmp_path_factory):
    directory = tmp_path_factory.mktemp("api")
    yield load_messages(directory)
    sys.path.remove(str(directory))


class Api:
    def __init__(self, daemon, messages):
        self.daemon = daemon
        vars(self).update(vars(messages))
        self.channel = grpc.insecure_channel(f"unix:{daemon.socket}", [
            ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0),
            ("grpc.max_send_message_length", 16 * MIB)])

    def stub(self, method, kind, response):
        return getattr(self.channel, kind)(f"/davit.v1.{method}",
                                           request_serializer=lambda one: one.SerializeToString(),
                                           response_deserializer=response.FromString)

    def info(self, **options):
        stub = self.stub("System/Info", "unary_unary", self.system.InfoResponse)
        return stub(self.system.InfoRequest(), timeout=WAIT, **options)

    def pull(self, name, **options):
        stub = self.stub("Images/Pull", "unary_stream", self.jobs.JobUpdate)
        request = self.images.PullRequest(reference=name, cancel_on_leave=True)
        return stub(request, **{"timeout": WAIT, **options})

    def list(self):
        stub = self.stub("Images/List", "unary_unary", self.images.ListImagesResponse)
        return stub(self.images.ListImagesRequest(), timeout=WAIT).images

    def run(self, requests):
        stub = self.stub("Containers/Run", "stream_stream", self.containers.RunResponse)
        return stub(requests, timeout=WAIT)


@pytest.fixture
def api(davitd, messages):
    made = Api(davitd, messages)
    yield made
    made.channel.close()


@pytest.fixture
def liar():
    with FaultRegistry() as registry:
        yield registry


def detail(api, error):
    """davit's own part of an error status: google.rpc.Status holding one ErrorDetail."""
    raw = dict(error.trailing_metadata())["grpc-status-details-bin"]
    marker = b"type.googleapis.com/davit.v1.ErrorDetail"
    at = raw.index(marker) + len(marker)
    assert raw[at] == 0x12  # Any.value, its length in one byte or two
    start = at + 2 if raw[at + 1] < 0x80 else at + 3
    return api.error.ErrorDetail.FromString(raw[start:])


def test_info_and_version(api):
    info = api.info()
    assert info.storage_driver in ("erofs", "directory")
    assert info.tasks > 0
    assert info.loop_worst_stall_us > 0
    version = api.stub("System/Version", "unary_unary", api.system.VersionResponse)(
        api.system.VersionRequest(), timeout=WAIT)
    assert version.version == info.version
    assert {"libuv", "libcurl", "SQLite"} <= {one.name for one in version.components}


def test_pull_streams_snapshots_and_a_result(api, liar):
    made = images.busybox_image()
    seen = list(api.pull(liar.push("api/app", made)))
    assert seen[-1].job.pull_result.digest == made.digest
    assert seen[-1].job.pull_result.image_id == made.id
    assert not any(one.job.HasField("pull_result") for one in seen[:-1])
    assert [one.id for one in api.list()] == [made.id]


def test_the_log_says_who_changed_something(davitd, davit, registry):
    name = registry.push("api/peer", images.busybox_image())
    davit("pull", "-q", name)
    davit("run", "--rm", name, "true")
    davit("rmi", name)
    lines = davitd.log().splitlines()
    for what in (f"pull image={name}", " run container=", f"removed image image={name}"):
        line, = [one for one in lines if what in one]
        assert re.search(r'peer="pid \d+ uid 0"', line), line


def test_errors_carry_reason_and_hint(api, liar):
    with pytest.raises(grpc.RpcError) as caught:
        list(api.pull(f"{liar.host}/no/such"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert detail(api, caught.value).reason == "MANIFEST_UNKNOWN"
    with pytest.raises(grpc.RpcError) as caught:
        list(api.pull("UPPER"))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert detail(api, caught.value).reason == "INVALID_REFERENCE"


def stalled_pull(api, liar, **options):
    made = images.image([images.layer([images.file("data", images.payload(3_000_000, 1, 0))])])
    name = liar.push("api/stalled", made)
    liar.fault(made.layers[0].digest, Fault(stall_after=1_000_000))
    call = api.pull(name, **options)
    liar.wait_stalled()
    return call


def test_cancel_in_mid_stream_cancels_the_pull(davitd, api, liar, wait_until):
    call = stalled_pull(api, liar)
    assert any((davitd.data_root / "tmp").iterdir())
    call.cancel()
    wait_until(lambda: not any((davitd.data_root / "tmp").iterdir()), "the layer to be dropped")
    assert not api.list()


def test_a_deadline_ends_the_pull(davitd, api, liar, wait_until):
    call = stalled_pull(api, liar, timeout=1)
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: not any((davitd.data_root / "tmp").iterdir()), "the layer to be dropped")


def test_a_message_over_four_mebibytes_is_refused(api):
    stub = api.stub("Images/Pull", "unary_stream", api.jobs.JobUpdate)
    with pytest.raises(grpc.RpcError) as caught:
        list(stub(api.images.PullRequest(reference="x" * (4 * MIB + 1)), timeout=WAIT))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.RpcError) as caught:
        list(stub(api.images.PullRequest(reference="x" * (4 * MIB - 100)), timeout=WAIT))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert api.info().version


def test_a_client_that_stops_reading_holds_up_nobody(api, davit, registry):
    name = registry.push("api/yes", images.busybox_image())
    davit("pull", "-q", name)
    start = api.containers.RunRequest(start=api.containers.RunStart(
        image=name, command=["yes"], remove=True))
    call = api.run(iter([start]))
    assert next(call).created.id
    next(call)  # and no more: the container writes into a full pipe from here on
    for _ in range(20):
        assert api.info().containers_running == 1
    assert davit("run", "--rm", name, "echo", "served").stdout == "served\n"
    call.cancel()


def test_many_watchers_of_one_transfer(api, liar):
    made = images.image([images.layer([images.file("data", images.payload(500_000, 2, 0))])])
    name = liar.push("api/shared", made)
    liar.fault(made.layers[0].digest, Fault(hold=True))
    calls = [api.pull(name) for _ in range(30)]
    for call in calls:
        while not next(call).job.progress.items:
            pass
    liar.wait_stalled()
    liar.release()
    assert {list(call)[-1].job.pull_result.digest for call in calls} == {made.digest}
    assert liar.count("GET", made.layers[0].digest) == 1


def test_unknown_values_are_errors(api, davit, registry):
    name = registry.push("api/network", images.busybox_image())
    davit("pull", "-q", name)
    start = api.containers.RunRequest(start=api.containers.RunStart(
        image=name, network="bridge-of-nowhere"))
    with pytest.raises(grpc.RpcError) as caught:
        list(api.run(iter([start])))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as caught:
        list(api.run(iter([api.containers.RunRequest(stdin=b"first")])))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_an_http1_client_is_told_whom_it_talks_to(davitd):
    def curl(path, *options):
        return subprocess.run(["curl", "-sS", "-i", "--unix-socket", davitd.socket, *options,
                               f"http://davit{path}"], capture_output=True, text=True,
                              check=True).stdout
    assert curl("/_ping").startswith("HTTP/1.1 200 OK") and curl("/v1.43/_ping").endswith("OK")
    assert '"Name":"davit"' in curl("/version")
    missing = curl("/containers/json")
    assert missing.startswith("HTTP/1.1 404") and '"message":"page not found"' in missing
