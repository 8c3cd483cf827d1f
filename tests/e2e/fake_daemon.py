"""A daemon that says what a test wants said, for what a real one would not do on demand: snapshots
at a given pace, broken streams, every kind of error. It speaks gRPC by Debian's python3-grpcio.

Fixtures for tests that name it in `pytest_plugins`: `fake` is a FakeDaemon, `cli` is davit on it.
"""

import concurrent.futures
import importlib
import os
import pathlib
import subprocess
import sys
import types

import grpc
import pytest

from conftest import REPOSITORY, Davit, sanitizer_environment, sanitizer_reports


def load_messages(directory):
    """Python's classes for proto/davit/v1, made by protoc: a namespace of one module per file."""
    names = sorted(path.stem for path in (REPOSITORY / "proto/davit/v1").glob("*.proto"))
    subprocess.run(["protoc", f"-I{REPOSITORY}/proto", f"--python_out={directory}",
                    *(f"davit/v1/{name}.proto" for name in names)], check=True)
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    return types.SimpleNamespace(**{name: importlib.import_module(f"davit.v1.{name}_pb2")
                                    for name in names})


class FakeDaemon:
    """Handlers are attributes: pull(request, context), verify and run(requests, context) generate
    responses; kill(request, context), list, remove, plan, list_tags, search, list_jobs, cancel_job,
    version, info and disk_usage return one."""

    def __init__(self, root, messages):
        self.root = pathlib.Path(root)
        vars(self).update(vars(messages))
        self.home = self.root / "home"
        self.home.mkdir()
        self.socket = self.root / "davit.sock"
        self.host = f"unix://{self.socket}"
        self.process = types.SimpleNamespace(send_signal=lambda number: None)
        self.pull = self.run = self.kill = self.list = self.remove = self.version = self.info = None
        self.disk_usage = self.verify = self.plan = self.list_tags = self.cancel_job = None
        self.search = None
        self.list_jobs = None
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
        images, containers, system = self.images, self.containers, self.system
        self._serve("Images", {
            "Pull": (grpc.unary_stream_rpc_method_handler, "pull", images.PullRequest),
            "Plan": (grpc.unary_unary_rpc_method_handler, "plan", images.PullRequest),
            "List": (grpc.unary_unary_rpc_method_handler, "list", images.ListImagesRequest),
            "Remove": (grpc.unary_unary_rpc_method_handler, "remove", images.RemoveImageRequest)})
        self._serve("Registries", {
            "ListTags": (grpc.unary_unary_rpc_method_handler, "list_tags",
                         self.registries.ListTagsRequest),
            "Search": (grpc.unary_unary_rpc_method_handler, "search",
                       self.registries.SearchRequest)})
        self._serve("Jobs", {
            "List": (grpc.unary_unary_rpc_method_handler, "list_jobs", self.jobs.ListJobsRequest),
            "Cancel": (grpc.unary_unary_rpc_method_handler, "cancel_job",
                       self.jobs.CancelJobRequest)})
        self._serve("Containers", {
            "Run": (grpc.stream_stream_rpc_method_handler, "run", containers.RunRequest),
            "Kill": (grpc.unary_unary_rpc_method_handler, "kill", containers.KillRequest)})
        self._serve("System", {
            "Version": (grpc.unary_unary_rpc_method_handler, "version", system.VersionRequest),
            "Info": (grpc.unary_unary_rpc_method_handler, "info", system.InfoRequest),
            "DiskUsage": (grpc.unary_unary_rpc_method_handler, "disk_usage",
                          system.DiskUsageRequest),
            "Verify": (grpc.unary_stream_rpc_method_handler, "verify", system.VerifyRequest)})
        assert self.server.add_insecure_port(self.host)
        self.server.start()

    def _serve(self, service, methods):
        handlers = {}
        for name, (kind, attribute, request) in methods.items():
            def call(*arguments, attribute=attribute):
                return getattr(self, attribute)(*arguments)
            handlers[name] = kind(call, request_deserializer=request.FromString,
                                  response_serializer=lambda message: message.SerializeToString())
        self.server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(f"davit.v1.{service}", handlers)])

    def fail(self, context, code, message, reason="", hint=""):
        """Ends a call as davitd does: the detail in a google.rpc.Status, encoded by hand."""
        detail = self.error.ErrorDetail(reason=reason, hint=hint).SerializeToString()
        any_message = (field(1, b"type.googleapis.com/davit.v1.ErrorDetail") + field(2, detail))
        status = (bytes([0x08, code.value[0]]) + field(2, message.encode()) +
                  field(3, any_message))
        context.set_trailing_metadata((("grpc-status-details-bin", status),))
        context.abort(code, message)

    # What conftest's Davit asks of a daemon.

    def clean_environment(self):
        kept = {key: value for key, value in os.environ.items()
                if key in ("PATH", "LANG") or key.startswith("LSAN_")}
        return {**kept, "HOME": str(self.home), **sanitizer_environment(self.root)}

    def log(self):
        return ""

    def stop(self):
        self.server.stop(None).wait()
        reports = sanitizer_reports(self.root)
        assert not reports, reports


def field(number, data):
    """A length-delimited protobuf field."""
    length, encoded = len(data), b""
    while length > 127:
        encoded += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + encoded + bytes([length]) + data


# --- Fixtures ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def messages(tmp_path_factory):
    return load_messages(tmp_path_factory.mktemp("messages"))


@pytest.fixture
def fake(scratch, messages):
    daemon = FakeDaemon(scratch, messages)
    yield daemon
    daemon.stop()


@pytest.fixture
def cli(fake):
    """davit against the fake daemon."""
    return Davit(fake)


# --- Snapshots of a pull -------------------------------------------------------------------------

HEX = ["%064x" % (0xabcdef000000 + i << 208) for i in range(50)]


def snapshot(fake, sequence, layers, **more):
    """layers: (state, fetched, total) each."""
    jobs = fake.jobs
    job = jobs.Job(id="0123456789ab", kind=jobs.Job.PULL, subject="busybox:latest",
                   state=jobs.Job.RUNNING, pull=jobs.PullDetails(
                       repository="library/busybox", tag="latest", default_tag=True))
    progress = job.progress
    progress.sequence = sequence
    progress.phase = jobs.JobProgress.TRANSFERRING if layers else jobs.JobProgress.RESOLVING
    progress.bytes_fetched = sum(one[1] for one in layers)
    progress.bytes_total = sum(one[2] for one in layers)
    progress.eta_ms = -1
    progress.percent = progress.bytes_fetched * 100 // max(1, progress.bytes_total)
    for i, (state, fetched, total) in enumerate(layers):
        progress.items.add(id="sha256:" + HEX[i], bytes_fetched=fetched, bytes_total=total,
                           state=jobs.JobItem.State.Value(state))
    for key, value in more.items():
        setattr(progress, key, value)
    return jobs.JobUpdate(job=job)


def finish(fake, sequence, layers, up_to_date=False):
    last = snapshot(fake, sequence, [("PRESENT" if up_to_date else "DONE", total, total)
                                     for _, _, total in layers], phase=4)
    last.job.state = fake.jobs.Job.DONE
    result = last.job.pull_result
    result.reference = "docker.io/library/busybox:latest"
    result.digest = "sha256:" + "d" * 64
    result.image_id = "sha256:" + "e" * 64
    result.up_to_date = up_to_date
    return last


def two_layers(fake):
    def pull(request, context):
        yield snapshot(fake, 1, [])
        yield snapshot(fake, 2, [("PRESENT", 10, 10), ("FETCHING", 5, 10)])
        yield snapshot(fake, 3, [("PRESENT", 10, 10), ("STORING", 10, 10)])
        yield finish(fake, 4, [("", 0, 10)] * 2)
    return pull


DIGEST_LINE = "Digest: sha256:" + "d" * 64
