"""A daemon that says what a test wants said, for what a real one would not do on demand: snapshots
at a given pace, broken streams, every kind of error. It speaks gRPC by Debian's python3-grpcio."""

import concurrent.futures
import importlib
import os
import pathlib
import subprocess
import sys
import types

import grpc

from conftest import REPOSITORY, sanitizer_environment, sanitizer_reports


def load_messages(directory):
    """Python's classes for proto/davit/v1, made by protoc: (containers, error, images, system)."""
    names = ("containers", "error", "images", "system")
    subprocess.run(["protoc", f"-I{REPOSITORY}/proto", f"--python_out={directory}",
                    *(f"davit/v1/{name}.proto" for name in names)], check=True)
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    return [importlib.import_module(f"davit.v1.{name}_pb2") for name in names]


class FakeDaemon:
    """Handlers are attributes: pull(request, context) and run(requests, context) generate
    responses; list(request, context), remove, version and info return one."""

    def __init__(self, root, messages):
        self.root = pathlib.Path(root)
        self.containers, self.error, self.images, self.system = messages
        self.home = self.root / "home"
        self.home.mkdir()
        self.socket = self.root / "davit.sock"
        self.host = f"unix://{self.socket}"
        self.process = types.SimpleNamespace(send_signal=lambda number: None)
        self.pull = self.run = self.list = self.remove = self.version = self.info = None
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
        images, containers, system = self.images, self.containers, self.system
        self._serve("Images", {
            "Pull": (grpc.unary_stream_rpc_method_handler, "pull", images.PullRequest),
            "List": (grpc.unary_unary_rpc_method_handler, "list", images.ListImagesRequest),
            "Remove": (grpc.unary_unary_rpc_method_handler, "remove", images.RemoveImageRequest)})
        self._serve("Containers", {
            "Run": (grpc.stream_stream_rpc_method_handler, "run", containers.RunRequest)})
        self._serve("System", {
            "Version": (grpc.unary_unary_rpc_method_handler, "version", system.VersionRequest),
            "Info": (grpc.unary_unary_rpc_method_handler, "info", system.InfoRequest)})
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
