"""davitd's gRPC API as any language's client uses it: Debian's python3-grpcio, messages generated
from the published proto files."""

import re
import subprocess

import grpc
import images
import pytest
from api import MIB, WAIT, detail
from fault_registry import Fault, FaultRegistry

pytest_plugins = ["api"]


@pytest.fixture
def liar():
    with FaultRegistry() as registry:
        yield registry


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
