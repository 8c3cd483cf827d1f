"""A daemon that is killed or starved, driven through its API.

Nouns: a *victim* is the daemon, its data root and what it must hold; a *failure* is a typed error
of a call. Begin with Victim.pull(), remove(), kill(), check().
"""

import collections
import os
import time

import grpc
import store
from e2e_conftest import orphans as orphan_processes
from e2e_conftest import wait_until

CALL_SECONDS = 60
PIECE = 1 << 16
RESTART_SECONDS = 2.0
DETAIL = b"type.googleapis.com/davit.v1.ErrorDetail"
# The daemon says so when a directory of a row has gone: the row came before what it names.
GAVE_UP = "warn  cannot "
LOST = "a layer is gone from the data root"


class Failure(Exception):
    """code: gRPC's word; reason: davit's, or ""."""

    def __init__(self, messages, error):
        self.code = error.code().name
        self.message = error.details()
        self.reason = self._reason(messages, error)
        super().__init__(f"{self.code} {self.reason or '(no reason)'}: {self.message}")

    @staticmethod
    def _reason(messages, error):
        raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        at = raw.find(DETAIL) + len(DETAIL)
        if at < len(DETAIL):
            return ""
        start = at + 2 if raw[at + 1] < 0x80 else at + 3
        return messages.error.ErrorDetail.FromString(raw[start:]).reason

    def check_typed(self):
        """That a program and its user can make something of it."""
        assert self.code not in ("UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED"), self
        assert self.code != "INTERNAL" or self.reason, f"an internal error without a reason: {self}"
        assert self.message


class Victim:
    def __init__(self, daemon, messages, driver, shelf):
        self.daemon = daemon
        self.messages = messages
        self.driver = driver
        self.shelf = shelf
        self.channel = None
        self.log_seen = 0

    # --- Its life --------------------------------------------------------------------------------

    def start(self, **environment):
        started = time.monotonic()
        self.daemon.environment = environment
        self.daemon.start()
        took = time.monotonic() - started
        # It takes some 20 ms. A machine with more to do than it has processors may take longer.
        busy = max(1.0, os.getloadavg()[0] / os.cpu_count())
        assert took < RESTART_SECONDS * busy, (
            f"ready only after {took:.2f} s\n{self.daemon.log()[-4000:]}")
        self.connect()
        return self

    def try_start(self, **environment):
        """"ready", or what it said when it gave up, or "killed"."""
        before = len(self.daemon.log())
        self.daemon.environment = environment
        self.daemon.start(wait=False)
        if self.daemon.notify.wait_for("READY=1", self.is_alive):
            self.connect()
            return "ready"
        status = self.daemon.process.wait(10)
        if status == -9:
            return "killed"
        self.daemon.wait_exit()
        said = self.daemon.log()[before:]
        assert status == 1 and "davitd: " in said, f"exit status {status}:\n{said}"
        return said[said.index("davitd: "):].strip()

    def connect(self):
        self.disconnect()
        self.channel = grpc.insecure_channel(f"unix:{self.daemon.socket}", [
            ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)])

    def disconnect(self):
        if self.channel:
            self.channel.close()
        self.channel = None

    def kill(self):
        """kill -9, also if it has died already; returns once its helpers have gone, too. Its calls
        end as UNAVAILABLE."""
        self.daemon.kill()
        wait_until(lambda: not orphan_processes(), "the dead daemon's helpers to end")

    def stop(self):
        self.disconnect()
        self.daemon.stop()

    def is_alive(self):
        return self.daemon.process is not None and self.daemon.process.poll() is None

    # --- Calls -----------------------------------------------------------------------------------

    def _stub(self, method, kind, response):
        return getattr(self.channel, kind)(f"/davit.v1.{method}",
                                           request_serializer=lambda one: one.SerializeToString(),
                                           response_deserializer=response.FromString)

    def begin_pull(self, letter):
        """Begins it; the result is for end()."""
        stub = self._stub("Images/Pull", "unary_stream", self.messages.jobs.JobUpdate)
        request = self.messages.images.PullRequest(reference=self.shelf.names[letter])
        stream = stub(request, timeout=CALL_SECONDS)
        return lambda: collections.deque(stream, 0)

    def begin_remove(self, letter):
        stub = self._stub("Images/Remove", "unary_unary", self.messages.images.RemoveImageResponse)
        request = self.messages.images.RemoveImageRequest(reference=self.shelf.names[letter])
        return stub.future(request, timeout=CALL_SECONDS).result

    def begin_load(self, letters, form="docker", outer="gzip"):
        """Of one archive of all these images."""
        data = self.shelf.archive(letters, form, outer)
        request = self.messages.images.LoadImagesRequest

        def requests():
            yield request(options=request.LoadOptions(bytes_total=len(data)))
            for at in range(0, len(data), PIECE):
                yield request(data=data[at:at + PIECE])

        stub = self._stub("Images/Load", "stream_stream", self.messages.jobs.JobUpdate)
        stream = stub(requests(), timeout=CALL_SECONDS)
        return lambda: collections.deque(stream, 0)

    def begin_tag(self, letter, name):
        stub = self._stub("Images/Tag", "unary_unary", self.messages.images.TagImageResponse)
        request = self.messages.images.TagImageRequest(source=self.shelf.names[letter], target=name)
        return stub.future(request, timeout=CALL_SECONDS).result

    def end(self, call):
        """Waits for the end of a call that was begun; raises Failure."""
        try:
            call()
        except grpc.RpcError as error:
            raise Failure(self.messages, error) from None

    def pull(self, letter):
        self.end(self.begin_pull(letter))

    def load(self, letters, **options):
        self.end(self.begin_load(letters, **options))

    def save(self, letters):
        """The archive."""
        stub = self._stub("Images/Save", "unary_stream", self.messages.images.SaveImagesResponse)
        request = self.messages.images.SaveImagesRequest(
            references=[self.shelf.names[letter] for letter in letters])
        try:
            return b"".join(one.data for one in stub(request, timeout=CALL_SECONDS))
        except grpc.RpcError as error:
            raise Failure(self.messages, error) from None

    def tag(self, letter, name):
        self.end(self.begin_tag(letter, name))

    def remove(self, letter):
        self.end(self.begin_remove(letter))

    def listed(self):
        """The letters of the images that the daemon lists."""
        stub = self._stub("Images/List", "unary_unary", self.messages.images.ListImagesResponse)
        listed = stub(self.messages.images.ListImagesRequest(), timeout=CALL_SECONDS).images
        tags = {tag for image in listed for tag in image.repo_tags}
        return {letter for letter, name in self.shelf.names.items() if name in tags}

    def verify(self, repair=False):
        """What davit itself finds wrong, and did not repair: messages."""
        stub = self._stub("System/Verify", "unary_stream", self.messages.jobs.JobUpdate)
        try:
            answers = list(stub(self.messages.system.VerifyRequest(repair=repair),
                                timeout=CALL_SECONDS))
        except grpc.RpcError as error:
            raise Failure(self.messages, error) from None
        return [problem.message for problem in answers[-1].job.verify.problems
                if not problem.repaired]

    # --- What must be true -----------------------------------------------------------------------

    def orphans(self):
        return store.orphans(self.daemon.data_root, self.driver)

    def settle(self):
        """Waits for the background: until nothing is left to remove, or it gave up on something."""
        wait_until(lambda: not self.orphans() or GAVE_UP in self.daemon.log()[self.log_seen:],
                   "orphans to be removed")

    def check_whole(self, verify=True):
        """Everything that is listed is whole. The daemon runs, and no call is on its way."""
        log = self.daemon.log()
        assert self.is_alive(), f"the daemon has ended:\n{log[-4000:]}"
        assert LOST not in log[self.log_seen:], f"a row came before its layer:\n{log[-4000:]}"
        found = store.problems(self.daemon.data_root, self.driver, self.shelf)
        found += self.verify() if verify else []
        assert not found, "\n".join(found + [log[-4000:]])

    def check(self, verify=True):
        """Everything that is listed is whole, and nothing else is kept."""
        self.check_whole(verify)
        self.settle()
        self.log_seen = len(self.daemon.log())
        assert not self.orphans(), f"orphans: {self.orphans()}\n{self.daemon.log()[-4000:]}"

    def check_listed(self, letters):
        assert self.listed() == set(letters), self.daemon.log()[-4000:]
