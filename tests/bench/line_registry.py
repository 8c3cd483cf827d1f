"""A registry as one finds it at the end of a long line: slow to answer, slow on each connection,
closing connections. It is fault_registry.py's, with these conditions on top of it.

    registry = line.far(LineRegistry, line.address, delay=0.1, connection_mbit=5)
    name = registry.push("bench/app", image)
    ... pull name ...
    registry.wire_bytes()          # that clients' kernels have acknowledged, headers included
    registry.fetched(digest)       # bytes of that blob's body that clients took
    registry.busy_connections()    # how many get a blob's bytes now
"""

import contextlib
import fcntl
import pathlib
import socket
import struct
import sys
import termios
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import fault_registry  # noqa: E402
from fault_registry import BrokenOff, FaultRegistry  # noqa: E402

TCP_INFO_BYTES_ACKED = 120  # struct tcp_info's offset of tcpi_bytes_acked
PIECES_PER_SECOND = 20
PIECE_MAX = 32 << 10
# What a server's kernel holds of an answer: small, so that what was handed to it is nearly what
# was sent, and a connection that is to be slow is so at once.
SEND_BUFFER = 128 << 10


class Conditions:
    """What each connection meets; may be changed while connections are open."""

    def __init__(self, delay=0, connection_mbit=None, close_after_bytes=None,
                 close_after_seconds=None):
        self.delay = delay  # seconds before each answer
        self.connection_mbit = connection_mbit
        self.close_after_bytes = close_after_bytes
        self.close_after_seconds = close_after_seconds


class LineRegistry(FaultRegistry):
    def __init__(self, address, **conditions):
        super().__init__(address=address)
        self.server.RequestHandlerClass = _Handler
        self.conditions = Conditions(**conditions)
        self.open = {}  # number -> handler
        self.closed_bytes = 0
        self.dropped = None  # (number of the connection, bytes per second)

    def set_conditions(self, **conditions):
        with self.lock:
            self.conditions = Conditions(**conditions)
            self.dropped = None

    def drop_one(self, bytes_per_second):
        """From now on the connection that has sent most is this slow. Returns its number."""
        with self.lock:
            busy = [one for one in self.open.values() if one.busy]
            if not busy:
                return None
            slow = max(busy, key=lambda one: one.body_bytes)
            self.dropped = (slow.connection_number, bytes_per_second)
            return slow.connection_number

    def busy_connections(self):
        with self.lock:
            return sum(one.busy for one in self.open.values())

    def wire_bytes(self):
        with self.lock:
            return self.closed_bytes + sum(one.acked() for one in self.open.values())

    def body_bytes(self):
        """Of all blobs' bodies so far."""
        return self.bytes_sent("/blobs/")

    def fetched(self, digest):
        return self.bytes_sent(digest)


class _Handler(fault_registry._Handler):
    busy = False
    body_bytes = 0

    def setup(self):
        super().setup()
        self.opened = self.due = time.monotonic()
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER // 2)
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.registry.lock:
            self.registry.open[self.connection_number] = self

    def finish(self):
        # Until the client has closed, too: else what is under way is not counted.
        with contextlib.suppress(OSError, ValueError):
            self.wfile.flush()
            self.raw.shutdown(socket.SHUT_WR)
            self.raw.settimeout(5)
            while self.raw.recv(65536):
                pass
        with self.registry.lock:
            del self.registry.open[self.connection_number]
            self.registry.closed_bytes += self.acked()
        super().finish()

    def acked(self):
        try:
            info = self.raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            return struct.unpack_from("<Q", info, TCP_INFO_BYTES_ACKED)[0]
        except OSError:
            return 0

    def _send(self, request, fault, status, headers, body):
        delay = self.registry.conditions.delay
        if delay:
            time.sleep(delay)
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{self.path.rsplit("/", 1)[1]}"', **headers}
        super()._send(request, fault, status, headers, body)

    def _send_body(self, request, fault, body):
        if "/blobs/" not in self.path:
            super()._send_body(request, fault, body)
            return
        view = memoryview(body)
        self.busy = True
        before = self.acked() + self._queued()
        try:
            position = 0
            while position < len(view):
                piece = view[position:position + self._wait_turn()]
                self.raw.sendall(piece)
                position += len(piece)
                self.body_bytes += len(piece)
                with self.registry.lock:
                    request.sent += len(piece)
                    self.registry.changed.notify_all()
        except OSError:
            # What the client did not want any more is not what it fetched.
            with self.registry.lock:
                request.sent = max(0, min(request.sent, self.acked() - before))
            raise
        finally:
            self.busy = False

    def _queued(self):
        """Bytes that were handed to the kernel and not acknowledged yet."""
        return struct.unpack("i", fcntl.ioctl(self.raw, termios.TIOCOUTQ, b"\0" * 4))[0]

    def _wait_turn(self):
        """Sleeps until the connection may send; returns how much."""
        conditions = self.registry.conditions
        limit, seconds = conditions.close_after_bytes, conditions.close_after_seconds
        if (limit and self.body_bytes >= limit or
                seconds and time.monotonic() - self.opened >= seconds):
            raise BrokenOff
        rate = conditions.connection_mbit and conditions.connection_mbit * 1e6 / 8
        if self.registry.dropped and self.registry.dropped[0] == self.connection_number:
            rate = self.registry.dropped[1]
        size = PIECE_MAX
        if rate:
            size = max(256, min(PIECE_MAX, int(rate / PIECES_PER_SECOND)))
            now = time.monotonic()
            # What it did not use in time is lost, but for a little: threads wake late.
            self.due = max(self.due, now - 2 / PIECES_PER_SECOND)
            if self.due > now:
                time.sleep(self.due - now)
            self.due += size / rate
        return min(size, limit - self.body_bytes) if limit else size
