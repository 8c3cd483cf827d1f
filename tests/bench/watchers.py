"""Watchers of jobs through the public gRPC API: many that are idle, and one that comes and goes.

    with IdleWatchers(daemon.socket, messages, job_id, connections=1000, streams=1) as watchers:
        ...                    # each has had a snapshot; what comes meanwhile is read
    outcome = reconnect(api, job_id, 50)

Idle ones are bare frames of HTTP/2 on sockets: a thousand clients of grpcio would be more than the
daemon that is measured.
"""

import selectors
import socket
import struct
import threading
import time

import grpc

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WAIT_SECONDS = 60


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name, value):
    """HPACK: a field that goes into no table, without Huffman coding (RFC 7541, 6.2.2)."""
    return b"\0" + b"".join(struct.pack("B", len(one)) + one for one in (name, value))


def call(path, message, stream):
    """The frames of a gRPC request."""
    # Of the static table: 3 is ":method: POST", 6 is ":scheme: http".
    fields = b"\x83\x86" + b"".join(_literal(name, value) for name, value in (
        (b":path", path.encode()), (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"), (b"te", b"trailers")))
    return (frame(HEADERS, END_HEADERS, stream, fields) +
            frame(DATA, END_STREAM, stream, b"\0" + struct.pack(">I", len(message)) + message))


class _Connection:
    def __init__(self, path, message, streams):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.buffer = b""
        self.waiting = {2 * number + 1 for number in range(streams)}
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0) + b"".join(
            call("/davit.v1.Jobs/Watch", message, stream) for stream in sorted(self.waiting)))

    def read(self):
        """False at the end."""
        data = self.socket.recv(65536)
        self.buffer += data
        while len(self.buffer) >= 9:
            size = int.from_bytes(self.buffer[:3], "big")
            kind, flags, stream = struct.unpack_from(">BBI", self.buffer, 3)
            if len(self.buffer) < 9 + size:
                break
            payload, self.buffer = self.buffer[9:9 + size], self.buffer[9 + size:]
            if kind == DATA and size:
                self.waiting.discard(stream)
            if kind in (SETTINGS, PING) and not flags & ACK:
                self.socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        return bool(data)


class IdleWatchers:
    def __init__(self, path, messages, job_id, connections, streams):
        self.path = path
        self.message = messages.jobs.WatchJobRequest(id=job_id).SerializeToString()
        self.connections, self.streams = connections, streams
        self.ended = False
        self.closed = 0

    def __enter__(self):
        self.selector = selectors.DefaultSelector()
        self.open = [_Connection(self.path, self.message, self.streams)
                     for _ in range(self.connections)]
        for one in self.open:
            self.selector.register(one.socket, selectors.EVENT_READ, one)
        self.thread = threading.Thread(target=self._read)
        self.thread.start()
        deadline = time.monotonic() + WAIT_SECONDS
        while any(one.waiting for one in self.open):
            if self.closed or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"{sum(bool(one.waiting) for one in self.open)} connections of "
                                   f"watchers had no snapshot, {self.closed} were closed")
            time.sleep(0.05)
        return self

    def _read(self):
        while not self.ended:
            for key, _ in self.selector.select(0.1):
                if not key.data.read():
                    self.selector.unregister(key.fileobj)
                    self.closed += 1

    def __exit__(self, *_):
        self.ended = True
        self.thread.join()
        for one in self.open:
            one.socket.close()
        self.selector.close()


def reconnect(api, job_id, times, seconds_between):
    """Watches a job, leaving and coming back `times` times, each time from the sequence number seen
    last: {"falls": of the percentage, "repeats": snapshots that were not newer, "results": 1 if the
    last snapshot had one, ...}."""
    outcome = {"falls": 0, "repeats": 0, "results": 0, "reconnects": 0, "snapshots": 0}
    sequence = percent = 0
    for number in range(times + 1):
        last = number == times
        watch = api.watch_job(job_id, since_sequence=sequence, timeout=300)
        if not last:
            threading.Timer(seconds_between, watch.cancel).start()
        try:
            for update in watch:
                job = update.job
                outcome["snapshots"] += 1
                outcome["falls"] += job.progress.percent < percent
                outcome["repeats"] += (job.progress.sequence <= sequence and
                                       job.state == api.jobs.Job.RUNNING)
                percent, sequence = job.progress.percent, job.progress.sequence
                outcome["results"] = int(job.state == api.jobs.Job.DONE and
                                         job.HasField("pull_result"))
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.CANCELLED:
                raise RuntimeError(f"a watch failed: {error.details()}") from None
        outcome["reconnects"] += not last
    return {**outcome, "percent": percent}
