"""davitd's gRPC API from Python: Debian's python3-grpcio, messages generated from the published
proto files. Fixtures for tests that name it in `pytest_plugins`: `messages`, and `api`, an Api of
`davitd`; `make_api(daemon)` for others."""

import contextlib
import sys

import grpc
import pytest
from fake_daemon import load_messages

WAIT = 60
MIB = 1 << 20


class Api:
    """Attributes: one module of messages for each proto file (api.images, api.jobs)."""

    def __init__(self, daemon, messages, options=()):
        self.daemon = daemon
        vars(self).update(vars(messages))
        self.channel = grpc.insecure_channel(f"unix:{daemon.socket}", [
            ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0),
            ("grpc.max_send_message_length", 16 * MIB), *options])

    def stub(self, method, kind, response):
        return getattr(self.channel, kind)(f"/davit.v1.{method}",
                                           request_serializer=lambda one: one.SerializeToString(),
                                           response_deserializer=response.FromString)

    def info(self, **options):
        stub = self.stub("System/Info", "unary_unary", self.system.InfoResponse)
        return stub(self.system.InfoRequest(), timeout=WAIT, **options)

    def pull(self, name, timeout=WAIT, metadata=None, **request):
        stub = self.stub("Images/Pull", "unary_stream", self.jobs.JobUpdate)
        request = self.images.PullRequest(reference=name, **{"cancel_on_leave": True, **request})
        return stub(request, timeout=timeout, metadata=metadata)

    def list(self):
        stub = self.stub("Images/List", "unary_unary", self.images.ListImagesResponse)
        images, token = [], ""
        while True:
            page = stub(self.images.ListImagesRequest(all=True, page_token=token), timeout=WAIT)
            images += page.images
            token = page.next_page_token
            if not token:
                return images

    def load(self, pieces, timeout=WAIT, **options):
        """An archive from an iterable of its pieces: the stream of updates."""
        stub = self.stub("Images/Load", "stream_stream", self.jobs.JobUpdate)
        request = self.images.LoadImagesRequest

        def requests():
            yield request(options=request.LoadOptions(**options))
            for piece in pieces:
                yield request(data=piece)
        return stub(requests(), timeout=timeout)

    def save(self, *references, timeout=WAIT):
        stub = self.stub("Images/Save", "unary_stream", self.images.SaveImagesResponse)
        return stub(self.images.SaveImagesRequest(references=references), timeout=timeout)

    def run(self, requests):
        stub = self.stub("Containers/Run", "stream_stream", self.containers.RunResponse)
        return stub(requests, timeout=WAIT)

    def list_jobs(self, everything=False):
        stub = self.stub("Jobs/List", "unary_unary", self.jobs.ListJobsResponse)
        return stub(self.jobs.ListJobsRequest(all=everything), timeout=WAIT).jobs

    def watch_job(self, job_id, since_sequence=0, timeout=WAIT):
        stub = self.stub("Jobs/Watch", "unary_stream", self.jobs.JobUpdate)
        return stub(self.jobs.WatchJobRequest(id=job_id, since_sequence=since_sequence),
                    timeout=timeout)

    def cancel_job(self, job_id):
        stub = self.stub("Jobs/Cancel", "unary_unary", self.jobs.CancelJobResponse)
        return stub(self.jobs.CancelJobRequest(id=job_id), timeout=WAIT).job

    def update_job(self, job_id, **change):
        stub = self.stub("Jobs/Update", "unary_unary", self.jobs.UpdateJobResponse)
        return stub(self.jobs.UpdateJobRequest(id=job_id, **change), timeout=WAIT).job


def detail(api, error):
    """davit's own part of an error status: google.rpc.Status holding one ErrorDetail."""
    raw = dict(error.trailing_metadata())["grpc-status-details-bin"]
    marker = b"type.googleapis.com/davit.v1.ErrorDetail"
    at = raw.index(marker) + len(marker)
    assert raw[at] == 0x12  # Any.value, its length in one byte or two
    start = at + 2 if raw[at + 1] < 0x80 else at + 3
    return api.error.ErrorDetail.FromString(raw[start:])


@pytest.fixture(scope="session")
def messages(tmp_path_factory):
    directory = tmp_path_factory.mktemp("api")
    yield load_messages(directory)
    sys.path.remove(str(directory))


@pytest.fixture
def make_api(messages):
    with contextlib.ExitStack() as stack:
        def make(daemon, options=()):
            api = Api(daemon, messages, options)
            stack.callback(api.channel.close)
            return api
        yield make


@pytest.fixture
def api(davitd, make_api):
    return make_api(davitd)
