"""The gRPC server as a client that is not ours sees it: Debian's python3-grpcio against
build/tests/grpc-echo-server, which serves tests/unit/proto/grpc/echo.proto."""

import importlib
import os
import pathlib
import subprocess
import sys
import threading

import grpc
import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BIN_DIR = pathlib.Path(os.environ.get("DAVIT_TEST_BIN_DIR") or REPOSITORY / "build" / "bin")
SERVER = BIN_DIR.resolve().parent / "tests" / "grpc-echo-server"
WAIT = 60  # seconds; every wait ends by an event
MIB = 1 << 20


class Echo:
    """The server process, and generic stubs for what it serves."""

    def __init__(self, path, modules):
        self.target = f"unix:{path}"
        self.process = subprocess.Popen([SERVER, path], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"
        self.echo, self.health, self.reflection, self.reflection_alpha = modules
        self.channels = []
        self.channel = self.connect()

    def connect(self):
        """A connection of its own: grpcio shares those with equal options."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0),
                   ("grpc.max_receive_message_length", 8 * MIB)]
        self.channels.append(grpc.insecure_channel(self.target, options))
        return self.channels[-1]

    def stub(self, method, kind="unary_unary", response=None, channel=None):
        path = method if method.startswith("/") else f"/davit.test.Echo/{method}"
        response = response or self.echo.EchoResponse
        return getattr(channel or self.channel, kind)(
            path, request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString)

    def request(self, **fields):
        return self.echo.EchoRequest(**fields)

    def stats(self, **at_least):
        """Waits for the counters."""
        stub = self.stub("Stats", response=self.echo.StatsResponse)
        return stub(self.echo.StatsRequest(**at_least), timeout=WAIT)

    def command(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def close(self):
        for channel in self.channels:
            channel.close()
        self.process.stdin.close()
        assert self.process.wait(WAIT) == 0
        self.process.stdout.close()


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """Python code for the messages, made by protoc."""
    out = tmp_path_factory.mktemp("proto")
    unit = REPOSITORY / "tests" / "unit" / "proto" / "grpc"
    subprocess.run(["protoc", f"--python_out={out}", "-I", unit, unit / "echo.proto"], check=True)
    sources = ["davit/v1/error.proto"]
    for name in ("health/v1/health", "reflection/v1/reflection", "reflection/v1alpha/reflection"):
        # "grpc" is grpcio's own package: these go to the top.
        os.makedirs(out / "standard" / os.path.dirname(name), exist_ok=True)
        (out / "standard" / f"{name}.proto").write_bytes(
            (REPOSITORY / "proto" / "grpc" / f"{name}.proto").read_bytes())
        subprocess.run(["protoc", f"--python_out={out}", "-I", out / "standard", f"{name}.proto"],
                       check=True)
    subprocess.run(["protoc", f"--python_out={out}", "-I", REPOSITORY / "proto", *sources],
                   check=True)
    sys.path.insert(0, str(out))
    yield [importlib.import_module(name) for name in (
        "echo_pb2", "health.v1.health_pb2", "reflection.v1.reflection_pb2",
        "reflection.v1alpha.reflection_pb2")]
    sys.path.remove(str(out))


@pytest.fixture
def server(tmp_path, modules):
    echo = Echo(str(tmp_path / "echo.sock"), modules)
    yield echo
    echo.close()


def failure(call):
    """The error that a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        result = call()
        if hasattr(result, "__iter__"):
            list(result)
    return caught.value


# --- The four kinds --------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 1, 16384, 65536, 1000000, 4 * MIB - 5])
def test_unary(server, size):
    payload = os.urandom(size)
    assert server.stub("Unary")(server.request(payload=payload), timeout=WAIT).payload == payload


def test_metadata(server):
    stub = server.stub("Unary")
    for key, value in (("x-text", "a text"), ("x-bytes-bin", "b\u00fctes".encode())):
        response = stub(server.request(header=key), metadata=[(key, value)], timeout=WAIT)
        assert response.header == (value if isinstance(value, str) else value.decode())


def test_server_streaming(server):
    stub = server.stub("Count", "unary_stream")
    counts = [r.count for r in stub(server.request(count=5000, size=1000), timeout=WAIT)]
    assert counts == list(range(5000))


def test_client_streaming(server):
    stub = server.stub("Sum", "stream_unary")
    requests = (server.request(payload=b"x" * (i * 10)) for i in range(1000))
    response = stub(requests, timeout=WAIT)
    assert (response.count, response.size) == (1000, 10 * 1000 * 999 // 2)


def test_chat(server):
    stub = server.stub("Chat", "stream_stream")
    payloads = [os.urandom(i * 7) for i in range(1000)]
    responses = stub((server.request(payload=p) for p in payloads), timeout=WAIT)
    assert [r.payload for r in responses] == payloads


def test_chat_answers_each(server):
    """Each request waits for the response to the one before: nothing is held back."""
    answered = threading.Semaphore(1)
    stub = server.stub("Chat", "stream_stream")

    def requests():
        for i in range(100):
            assert answered.acquire(timeout=WAIT)
            yield server.request(payload=bytes([i]))

    for i, response in enumerate(stub(requests(), timeout=WAIT)):
        assert response.payload == bytes([i])
        answered.release()
    assert i == 99


def test_many_at_once(server):
    """More calls than streams are allowed at once."""
    stub = server.stub("Unary")
    futures = [stub.future(server.request(payload=bytes(i)), timeout=WAIT) for i in range(1000)]
    assert [len(future.result().payload) for future in futures] == list(range(1000))


# --- Errors ----------------------------------------------------------------------------------------

def detail_of(error):
    """davit.v1.ErrorDetail out of grpc-status-details-bin, by hand: a google.rpc.Status."""
    from davit.v1 import error_pb2
    from google.protobuf import any_pb2
    data = dict(error.trailing_metadata())["grpc-status-details-bin"]
    fields = {}
    while data:  # tag, varint or length and bytes; all lengths here are below 128
        tag, value = data[0], data[1]
        if tag & 7 == 2:
            fields[tag >> 3], data = data[2:2 + value], data[2 + value:]
        else:
            fields[tag >> 3], data = value, data[2:]
    wrapped = any_pb2.Any.FromString(fields[3])
    detail = error_pb2.ErrorDetail()
    assert wrapped.Unpack(detail)
    return fields[1], fields[2].decode(), detail


@pytest.mark.parametrize("method,kind", [("Fail", "unary_unary"), ("FailLater", "unary_stream")])
def test_error_details(server, method, kind):
    message = "no such layer: gr\u00fcn 100%"
    request = server.request(code=5, message=message, reason="LAYER_NOT_FOUND", hint="pull it")
    error = failure(lambda: server.stub(method, kind)(request, timeout=WAIT))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert error.details() == message
    code, text, detail = detail_of(error)
    assert (code, text) == (5, message)
    assert (detail.reason, detail.hint) == ("LAYER_NOT_FOUND", "pull it")


def test_long_error(server):
    """Longer than what a client takes as trailers: it is cut, and still arrives."""
    request = server.request(code=9, message="\u00e4" * 20000, reason="LONG", hint="\u00f6" * 20000)
    error = failure(lambda: server.stub("Fail")(request, timeout=WAIT))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert error.details().startswith("\u00e4" * 700)


def test_unimplemented(server):
    for method in ("Missing", "Nothing", "/davit.test.Nothing/Unary"):
        error = failure(lambda m=method: server.stub(m)(server.request(), timeout=WAIT))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED


def test_compressed(server):
    error = failure(lambda: server.stub("Unary")(
        server.request(payload=b"x" * 1000), compression=grpc.Compression.Gzip, timeout=WAIT))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "identity" in error.details()


def test_message_too_large(server):
    error = failure(lambda: server.stub("Unary")(
        server.request(payload=b"x" * (4 * MIB + 1 - 5)), timeout=WAIT))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "4194305" in error.details()
    error = failure(lambda: server.stub("Count", "unary_stream")(
        server.request(count=1, size=4 * MIB), timeout=WAIT))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.stub("Unary")(server.request(payload=b"x"), timeout=WAIT).payload == b"x"


# --- Cancel and deadlines --------------------------------------------------------------------------

def test_cancel_unary(server):
    future = server.stub("Wait").future(server.request())
    server.stats(started=1)
    future.cancel()
    assert server.stats(cancelled=1).running == 0


def test_cancel_mid_stream(server):
    """The handler is busy sending when the cancel comes."""
    responses = server.stub("Count", "unary_stream")(server.request(count=1 << 31, size=1000))
    for _ in range(100):
        next(responses)
    responses.cancel()
    assert server.stats(cancelled=1).running == 0
    assert failure(lambda: responses).code() == grpc.StatusCode.CANCELLED


def test_cancel_bidi(server):
    hold = threading.Event()

    def requests():
        yield server.request(payload=b"x")
        hold.wait(WAIT)

    responses = server.stub("Chat", "stream_stream")(requests())
    assert next(responses).payload == b"x"
    responses.cancel()
    assert server.stats(cancelled=1).running == 0
    hold.set()


def test_client_leaves(server):
    channel = server.connect()
    future = server.stub("Wait", channel=channel).future(server.request())
    server.stats(started=1)
    channel.close()
    assert server.stats(cancelled=1).running == 0
    assert future.code() == grpc.StatusCode.CANCELLED


def test_deadline(server):
    error = failure(lambda: server.stub("Wait")(server.request(), timeout=0.2))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    stats = server.stats(started=1)
    if not stats.timed_out:  # the client's reset may be faster than the server's own clock
        stats = server.stats(cancelled=1)
    assert stats.running == 0


def test_deadline_of_a_stream(server):
    error = failure(lambda: server.stub("Count", "unary_stream")(
        server.request(count=1 << 31, size=10), timeout=0.2))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_enough_time(server):
    assert server.stub("Unary")(server.request(payload=b"x"), timeout=WAIT).payload == b"x"


# --- Back-pressure ---------------------------------------------------------------------------------

def test_client_that_stops_reading(server):
    """It holds up nobody else, and the server's memory stays what it was."""
    # grpcio reads ahead one message and a window per call, which it makes larger and larger.
    slow = [server.stub("Count", "unary_stream")(server.request(count=1 << 31, size=50000))
            for _ in range(50)]
    for responses in slow:
        next(responses)
    stub = server.stub("Unary")
    payload = os.urandom(MIB)
    private_kib = []
    for _ in range(2):
        for _ in range(30):
            assert stub(server.request(payload=payload), timeout=WAIT).payload == payload
        private_kib.append(server.stats().private_kib)
    stats = server.stats(started=50)
    assert stats.running == 50
    assert stats.sent < 50 * 1000
    if b"__asan_init" not in SERVER.read_bytes():  # it keeps what was freed
        assert private_kib[1] < 32 * 1024  # 50 calls with 64 KiB of queue and two messages each
        assert private_kib[1] - private_kib[0] < 4 * 1024
    for responses in slow:
        responses.cancel()
    assert server.stats(cancelled=50).running == 0


def test_stopped_process(server):
    """A client process that is stopped with its socket full keeps nobody waiting either."""
    code = f"""
import sys, grpc
channel = grpc.insecure_channel({server.target!r})
responses = channel.unary_stream("/davit.test.Echo/Count")(
    bytes.fromhex({server.request(count=1 << 31, size=10000).SerializeToString().hex()!r}))
next(iter(responses))
print("reading", flush=True)
for response in responses:
    pass
"""
    client = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert client.stdout.readline() == "reading\n"
        client.send_signal(19)  # SIGSTOP
        before = server.stats().sent
        stub = server.stub("Unary")
        payload = os.urandom(MIB)
        for _ in range(20):
            assert stub(server.request(payload=payload), timeout=WAIT).payload == payload
        after = server.stats()
        assert after.sent - before < 500  # 5 MB: windows and the socket's buffer
        assert after.running == 1
    finally:
        client.kill()
        client.wait()
        client.stdout.close()
    assert server.stats(cancelled=1).running == 0


def test_server_that_does_not_read(server):
    """The client is held back: it cannot hand over more than windows and queues take."""
    handed_over = 0
    blocked = threading.Event()

    def requests():
        nonlocal handed_over
        while not blocked.is_set():
            handed_over += 1
            yield server.request(payload=bytes(10000))

    future = server.stub("Mute", "stream_unary").future(requests())
    server.stats(started=1)
    stub = server.stub("Unary")
    for _ in range(200):
        stub(server.request(payload=bytes(10000)), timeout=WAIT)
    assert 0 < handed_over * 10000 < MIB
    blocked.set()
    future.cancel()
    assert server.stats(cancelled=1).running == 0


# --- Connections -----------------------------------------------------------------------------------

def test_drain(server):
    go_on = threading.Event()

    def requests():
        yield server.request(payload=b"1")
        assert go_on.wait(WAIT)
        yield server.request(payload=b"2")

    responses = server.stub("Chat", "stream_stream")(requests(), timeout=WAIT)
    assert next(responses).payload == b"1"
    server.command("drain")

    def call_until_refused():  # calls go on until the client has heard of it
        while True:
            server.stub("Unary")(server.request(), timeout=WAIT)

    assert failure(call_until_refused).code() == grpc.StatusCode.UNAVAILABLE
    go_on.set()
    assert [r.payload for r in responses] == [b"2"]


def test_server_ends(server):
    future = server.stub("Wait").future(server.request())
    server.stats(started=1)
    server.process.stdin.close()
    assert failure(future.result).code() == grpc.StatusCode.UNAVAILABLE
    assert "shutting down" in future.details()


# --- The standard services -------------------------------------------------------------------------

def test_health(server):
    request, status = server.health.HealthCheckRequest, server.health.HealthCheckResponse
    check = server.stub("/grpc.health.v1.Health/Check", response=status)
    watch = server.stub("/grpc.health.v1.Health/Watch", "unary_stream", response=status)
    assert check(request(), timeout=WAIT).status == status.SERVING
    assert check(request(service="davit.test.Echo"), timeout=WAIT).status == status.SERVING
    error = failure(lambda: check(request(service="davit.test.Nothing"), timeout=WAIT))
    assert error.code() == grpc.StatusCode.NOT_FOUND

    changes = watch(request(service="davit.test.Echo"), timeout=WAIT)
    unknown = watch(request(service="davit.test.Nothing"), timeout=WAIT)
    assert next(changes).status == status.SERVING
    assert next(unknown).status == status.SERVICE_UNKNOWN
    server.command("not-serving")
    assert next(changes).status == status.NOT_SERVING
    assert check(request(), timeout=WAIT).status == status.NOT_SERVING
    server.command("serving")
    assert next(changes).status == status.SERVING
    changes.cancel()
    unknown.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection(server, version):
    """What a tool such as grpcurl does: list services, fetch their files, build the messages."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    module = server.reflection if version == "v1" else server.reflection_alpha
    request = module.ServerReflectionRequest
    requests = [request(list_services=""),
                request(file_containing_symbol="davit.test.Echo.Unary"),
                request(file_by_filename="echo.proto"),
                request(file_containing_symbol=f"grpc.reflection.{version}.ServerReflection"),
                request(file_containing_symbol="davit.test.Nothing")]
    stub = server.stub(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                       "stream_stream", response=module.ServerReflectionResponse)
    services, by_symbol, by_name, own, unknown = stub(iter(requests), timeout=WAIT)
    assert sorted(s.name for s in services.list_services_response.service) == [
        "davit.test.Echo", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection"]
    assert by_symbol.original_request == requests[1]
    assert by_symbol.file_descriptor_response == by_name.file_descriptor_response
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]

    pool = descriptor_pool.DescriptorPool()
    for response in (by_symbol, own):
        for data in response.file_descriptor_response.file_descriptor_proto:
            pool.Add(descriptor_pb2.FileDescriptorProto.FromString(data))
    method = pool.FindServiceByName("davit.test.Echo").methods_by_name["Unary"]
    message = message_factory.MessageFactory(pool).GetPrototype(method.input_type)
    response = server.stub("Unary")(message(payload=b"reflected"), timeout=WAIT)
    assert response.payload == b"reflected"
