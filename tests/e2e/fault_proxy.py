"""A proxy in front of a real registry or token server: what passes is theirs, but for the faults.

    proxy = FaultProxy(registry)            # of conftest.py or fault_registry.py; tls=(cert, key)
    proxy.fault(LAYER(layer), Fault(reset_after=100), times=1)
    ... pull f"{proxy.host}/team/app" ...
    assert proxy.bytes_sent(layer.digest) <= len(layer.blob)

Faults, rules and records are a FaultRegistry's. Beyond those:

    Fault(read_stall=N)                 reads so many bytes of the request's body, which the
                                        registry gets, and then nothing; read_reset=N, read_short=N
                                        likewise break the connection or close it
    Fault(read_drip=(size, seconds))    reads so slowly
    Fault(read_wrong=N)                 the registry gets this byte of the request's body wrong
    Fault(lose_answer=True)             the registry did it, but the connection breaks
    proxy.close_after_bytes = 8 << 20   each connection ends after so many bytes of bodies
    proxy.close_after_seconds = 30      each connection ends after this time, even within a body
    proxy.connections_max = 3           a connection beyond those that are open is reset at once
    proxy.pace = Pace(bytes_per_second) all answers together are no faster than this
    proxy.replace(a, b)                 in Location and WWW-Authenticate: a realm or host

Bytes count as sent when the kernel took them, and it takes few that the peer has not
(SNDBUF_BYTES).
"""

import http.client
import re
import socket
import ssl
import threading
import time
import urllib.parse

from fault_registry import BrokenOff, FaultRegistry, _Handler

SNDBUF_BYTES = 32 << 10
# On a line with a pace: what is handed over is hardly more than what the line has carried.
PACED_BYTES = 16 << 10
# Of an upload that is read no more, little is on its way.
RCVBUF_BYTES = 32 << 10
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade",
              "expect", "content-length", "date", "server"}


class Pace:
    """Bytes per second for all who share it."""

    def __init__(self, bytes_per_second):
        self.bytes_per_second = bytes_per_second
        self.lock = threading.Lock()
        self.next_at = 0

    def delay(self, count):
        """Seconds to wait after `count` bytes."""
        with self.lock:
            now = time.monotonic()
            self.next_at = max(self.next_at, now) + count / self.bytes_per_second
            return self.next_at - now


class FaultProxy(FaultRegistry):
    def __init__(self, upstream, **options):
        self.upstream = upstream
        self.replacements = []
        self.close_after_bytes = None
        self.close_after_seconds = None
        self.connections_max = None
        self.connections_refused = 0
        self.open = 0
        self.pace = None
        super().__init__(handler=_ProxyHandler, **options)
        self.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RCVBUF_BYTES)

    def replace(self, old, new):
        self.replacements.append((old, new))

    def name(self, pushed):
        """What the registry's push() returned, as a name on this proxy."""
        return f"{self.host}/{pushed.split('/', 1)[1]}"

    def connect(self):
        location = urllib.parse.urlsplit(self.upstream.url).netloc
        if self.upstream.url.startswith("https:"):
            context = ssl.create_default_context(cafile=self.upstream.cafile)
            return http.client.HTTPSConnection(location, context=context)
        return http.client.HTTPConnection(location)

    def replaced(self, text):
        for old, new in self.replacements:
            text = text.replace(old, new)
        return text

    def bytes_by_digest(self):
        """{digest: bytes of bodies sent of it}, whatever the repository."""
        sent = {}
        with self.lock:
            for one in self.requests:
                match = re.search(r"/blobs/(sha256:[0-9a-f]{64})", one.path)
                if match and one.method == "GET":
                    sent[match[1]] = sent.get(match[1], 0) + one.sent
        return sent


def blob(what):
    """The pattern of a layer's or config's requests."""
    return f"/blobs/{what.digest if hasattr(what, 'digest') else what}"


class _ProxyHandler(_Handler):

    @property
    def piece_bytes(self):
        return PACED_BYTES if self.registry.pace else super().piece_bytes

    def setup(self):
        proxy = self.server.registry
        self.sent_here = 0
        self.opened_at = time.monotonic()
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SNDBUF_BYTES)
        # Small pieces are to leave at once.
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.refused = False
        with proxy.lock:
            proxy.open += 1
            if proxy.connections_max is not None and proxy.open > proxy.connections_max:
                self.refused = True
                proxy.connections_refused += 1
        if proxy.close_after_seconds is not None:
            self.timer = threading.Timer(proxy.close_after_seconds, self._hang_up)
            self.timer.daemon = True
            self.timer.start()
        super().setup()

    def handle(self):
        if self.refused:
            try:
                self._reset()
            except BrokenOff:
                return
        super().handle()

    def finish(self):
        with self.registry.lock:
            self.registry.open -= 1
        if hasattr(self, "timer"):
            self.timer.cancel()
        super().finish()

    def _hang_up(self):
        try:
            self.raw.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    do_PUT = do_PATCH = do_DELETE = lambda self: self._answer()

    # --- The request's body, passed on as it comes ---------------------------------------------

    def _read_body(self):
        # Forms are small, and tests look at them; all else is read when the fault is known.
        if "x-www-form-urlencoded" in (self.headers.get("Content-Type") or ""):
            return super()._read_body()
        return b""

    def _pieces(self):
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read1(min(left, 65536))
            if not piece:
                raise BrokenOff
            left -= len(piece)
            yield piece

    def _small(self, fault):
        """The pieces as small as the fault needs them."""
        stops = [one for one in (fault.read_stall, fault.read_reset, fault.read_short)
                 if one is not None]
        step = fault.read_drip[0] if fault.read_drip else 65536
        position = 0
        for piece in self._pieces():
            while piece:
                ends = [stop - position for stop in stops if stop > position]
                part = piece[:min([step] + ends)]
                piece = piece[len(part):]
                position += len(part)
                yield position, part

    def _pass_body(self, request, fault, connection):
        chunked = "chunked" in (self.headers.get("Transfer-Encoding") or "")
        self._read_stop(fault, 0)
        wrong = fault.read_wrong
        for position, part in self._small(fault):
            start = position - len(part)
            if wrong is not None and start <= wrong < position:
                part = bytearray(part)
                part[wrong - start] ^= 1
            with self.registry.lock:
                request.received += len(part)
                self.registry.changed.notify_all()
            try:
                connection.send(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
            except OSError:
                pass  # it has answered and reads no more
            if fault.read_drip:
                self._pause(fault.read_drip[1])
            self._read_stop(fault, position)
        if chunked:
            connection.send(b"0\r\n\r\n")

    def _read_stop(self, fault, position):
        if fault.read_stall == position:
            self._stall()
        if fault.read_reset == position:
            self._reset()
        if fault.read_short == position:
            raise BrokenOff

    # --- The answer ------------------------------------------------------------------------------

    def _respond(self, request, fault):
        if fault.redirect is not None or fault.status is not None:
            for piece in self._pieces() if not request.body else ():
                request.received += len(piece)
        return super()._respond(request, fault)

    def _genuine(self, request, fault):
        connection = self.registry.connect()
        try:
            self._ask(request, fault, connection)
            response = connection.getresponse()
            body = response.read()
        except (http.client.HTTPException, ConnectionError) as error:
            return 502, {}, str(error).encode()
        finally:
            connection.close()
        headers = {name: self.registry.replaced(value) for name, value in response.getheaders()
                   if name.lower() not in HOP_BY_HOP or
                   (name.lower() == "content-length" and request.method == "HEAD")}
        if fault.lose_answer:
            self._reset()
        return response.status, headers, body

    def _ask(self, request, fault, connection):
        connection.putrequest(request.method, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP_BY_HOP and not (fault.ignore_range and
                                                       name.lower() == "range"):
                connection.putheader(name, value)
        if self.server.tls:
            connection.putheader("X-Forwarded-Proto", "https")
        for name in ("Content-Length", "Transfer-Encoding"):
            if self.headers.get(name):
                connection.putheader(name, self.headers[name])
        connection.endheaders()
        if request.body:
            connection.send(request.body)
        else:
            self._pass_body(request, fault, connection)

    def _apply_range(self, fault, status, headers, body):
        lie = fault.content_range
        if not lie or status not in (200, 206):
            return status, headers, body
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", headers.get("Content-Range", ""))
        true = [int(one) for one in match.groups()] if match else [0, len(body) - 1, len(body)]
        return 206, {**headers, "Content-Range": lie if isinstance(lie, str) else lie(*true)}, body

    def _sent(self, request, count):
        super()._sent(request, count)
        proxy = self.registry
        if proxy.pace:
            self._pause(proxy.pace.delay(count))
        self.sent_here += count
        if proxy.close_after_bytes is not None and self.sent_here >= proxy.close_after_bytes:
            raise BrokenOff
