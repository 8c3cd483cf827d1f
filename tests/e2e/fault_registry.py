"""A small registry that lies, stalls and breaks off as told, for what a real one would not do.

Nouns: a *fault* changes one answer; a *rule* says which requests it meets; a *request* is the
record of one that came. Everything else is answered as a registry would.

    registry = FaultRegistry()                      # listens on 127.0.0.1; tls=(cert, key) for TLS
    name = registry.push("team/app", image)         # an Image or Index of images.py
    registry.push_blob("team/app", b"...")          # by hand; push_manifest() likewise
    registry.fault(r"/blobs/", Fault(reset_after=100), times=1)
    ... pull name ...
    assert registry.count("GET", layer.digest) == 2
    registry.stop()

What a fault can do, alone or together; sizes are in bytes of the body:

    Fault(status=503, headers={"Retry-After": "1"}, body=b"busy")     another answer; a header may
                                        be a function that makes its text
    Fault(wrong_bytes=True)             right size, wrong content
    Fault(wrong_byte=70)                right size, one bit of this byte of the answer is wrong; of
                                        the last: -1
    Fault(short=10)                     closes 10 bytes early, Content-Length as if complete
    Fault(long=10)                      10 bytes too many, Content-Length that says so
    Fault(content_length=5)             that Content-Length, whatever is sent
    Fault(chunked=True)                 no Content-Length; combines with short and long
    Fault(ignore_range=True)            200 and everything, though a range was asked for
    Fault(content_range="bytes 0-1/2")  206 with this Content-Range; or a function that makes it of
                                        the true first byte, last byte and size
    Fault(cut_headers=True)             closes in the middle of the headers
    Fault(stall_after=100)              sends 100, then nothing until release(); -1: no headers
    Fault(reset_after=100)              sends 100, then a TCP reset; -1: not even headers
    Fault(redirect="http://...")        307; "{path}" in it is replaced
    Fault(hold=True)                    answers as usual, but only after release()
    Fault(absolute=True, ...)           stall_after and reset_after count from the beginning of the
                                        blob, whatever range is asked for; no effect on others
    Fault(drip=(size, seconds))         sends pieces of this size, this far apart
    Fault(drip_headers=(size, seconds)) the same for the headers

Rules match in the order in which they were added, each for `times` requests or for ever. More
faults in one call are used one after the other, the last one from then on.

It is a proxy, too: it answers requests for other servers as if they were for itself, and with
`tunnel_to` set to a host and port, CONNECT leads there, whatever it asks for.

Credentials: require_basic("user", "password"), or require_bearer("user", "password"); with None for
the user, tokens are given to anyone. The realm is <url>/token unless `realm` names another, such as
that of a second FaultRegistry, whose give_tokens_for(first) hands them out. Tokens end with
expire_tokens(). `requests` records each request with its headers, so a test can tell on which host
an Authorization arrived.

As a program: fault_registry.py [--tls-cert FILE --tls-key FILE] [--demo NAME:TAG]
[--fault REGEX JSON]...: prints its URL, then a JSON line for each request, until its input ends.
A fault's JSON has the names above: '{"status": 503, "times": 2}'.
"""

import argparse
import base64
import dataclasses
import hashlib
import http.server
import json
import os
import re
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse

WAIT_SECONDS = 60


@dataclasses.dataclass
class Fault:
    status: int = None
    headers: dict = dataclasses.field(default_factory=dict)
    body: bytes = None
    wrong_bytes: bool = False
    wrong_byte: int = None
    short: int = 0
    long: int = 0
    content_length: int = None
    chunked: bool = False
    ignore_range: bool = False
    content_range: object = None
    cut_headers: bool = False
    stall_after: int = None
    reset_after: int = None
    redirect: str = None
    hold: bool = False
    drip: tuple = None
    drip_headers: tuple = None
    absolute: bool = False
    # Only where a FaultProxy passes on the request.
    read_stall: int = None
    read_reset: int = None
    read_short: int = None
    read_drip: tuple = None
    read_wrong: int = None
    lose_answer: bool = False


@dataclasses.dataclass
class Request:
    method: str
    path: str
    headers: dict  # names in lower case
    body: bytes
    connection: int  # a number for the connection it came on
    at: float = dataclasses.field(default_factory=time.monotonic)  # when it came
    status: int = None  # of the answer; None while there is none
    sent: int = 0  # bytes of the answer's body handed to the kernel
    received: int = 0  # bytes of the request's body
    finished: bool = False

    @property
    def authorization(self):
        return self.headers.get("authorization")


@dataclasses.dataclass
class Rule:
    method: str
    pattern: re.Pattern
    faults: list
    times: int
    when: object = None
    used: int = 0


class BrokenOff(Exception):
    """The connection is to end here."""


class FaultRegistry:
    def __init__(self, tls=None, address="127.0.0.1", port=0, handler=None):
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.blobs = {}  # (repository, digest) -> bytes
        self.manifests = {}  # (repository, tag or digest) -> (bytes, media type)
        self.rules = []
        self.requests = []
        self.released = 0  # how often release() was called
        self.stalled = 0  # answers that wait for release() now
        self.stopping = False
        self.basic = None
        self.bearer = None
        self.tokens = {}  # token -> scope
        self.token_source = self
        self.token_lifetime = 300
        self.connections = 0
        self.resets = 0
        self.on_request = None
        self.tunnel_to = None
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server_class = type("Server", (_Server,), {"address_family": family})
        self.server = server_class((address, port), handler or _Handler)
        self.server.registry = self
        self.server.tls = None
        if tls:
            self.server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.server.tls.load_cert_chain(*tls)
        self.port = self.server.server_address[1]
        self.host = f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"
        self.url = ("https://" if tls else "http://") + self.host
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def require_client_certificates(self, cafile):
        self.server.tls.load_verify_locations(cafile)
        self.server.tls.verify_mode = ssl.CERT_REQUIRED

    def stop(self):
        with self.lock:
            self.stopping = True
            self.changed.notify_all()
        self.server.shutdown()
        self.server.close_connections()
        self.server.server_close()
        self.thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    # --- Content -----------------------------------------------------------------------------

    def push(self, repository, what, tag="latest"):
        """Takes in an image or index; returns the name to pull."""
        with self.lock:
            for blob in what.blobs():
                self.push_blob(repository, blob)
            for data, media_type in what.manifests() + [(what.manifest, what.media_type)]:
                self.push_manifest(repository, sha256(data), data, media_type)
            self.push_manifest(repository, tag, what.manifest, what.media_type)
        return f"{self.host}/{repository}:{tag}"

    def push_blob(self, repository, data, digest=None):
        """`digest` may be a lie. Returns it."""
        digest = digest or sha256(data)
        with self.lock:
            self.blobs[repository, digest] = data
        return digest

    def push_manifest(self, repository, reference, data, media_type):
        """Under a tag or a digest, which may be a lie. `data` may be anything that is JSON."""
        if not isinstance(data, bytes):
            data = json.dumps(data).encode()
        with self.lock:
            self.manifests[repository, reference] = (data, media_type)
            self.manifests[repository, sha256(data)] = (data, media_type)
        return f"{self.host}/{repository}" + ("@" if ":" in reference else ":") + reference

    # --- Faults ------------------------------------------------------------------------------

    def fault(self, pattern, *faults, method="GET", times=None, when=None):
        """Requests whose path (with its query) the pattern is found in meet these faults; `when`
        is asked of the Request, too."""
        with self.lock:
            self.rules.append(Rule(method, re.compile(pattern), list(faults), times, when))

    def clear_faults(self):
        with self.lock:
            self.rules.clear()

    def release(self):
        """Lets everything go on that a fault has stopped so far."""
        with self.lock:
            self.released += 1
            self.changed.notify_all()

    def wait_stalled(self, count=1, seconds=WAIT_SECONDS):
        """Waits until so many answers wait for release()."""
        self.wait_for(lambda: self.stalled >= count, f"{count} stalled answers", seconds)

    def wait_for(self, condition, what="a condition", seconds=WAIT_SECONDS):
        """Waits until condition() holds; it is looked at whenever something happens here."""
        with self.lock:
            if not self.changed.wait_for(condition, seconds):
                raise AssertionError(f"waited {seconds} s in vain for {what}")

    # --- Credentials -------------------------------------------------------------------------

    def require_basic(self, user, password):
        self.basic = (user, password)

    def require_bearer(self, user=None, password=None, realm=None, service="fault",
                       identity_token=None, lifetime=300):
        """identity_token: what POST /token takes as refresh_token."""
        self.token_lifetime = lifetime
        self.bearer = {"user": user, "password": password, "service": service,
                       "realm": realm or self.url + "/token", "identity_token": identity_token}

    def give_tokens_for(self, other):
        """This one's /token hands out tokens that the other one takes."""
        self.token_source = other

    def expire_tokens(self):
        with self.lock:
            self.tokens.clear()

    # --- What came ---------------------------------------------------------------------------

    def matching(self, method, text):
        with self.lock:
            return [one for one in self.requests if one.method == method and text in one.path]

    def count(self, method, text):
        """How many requests there were whose path contains the text."""
        return len(self.matching(method, text))

    def bytes_sent(self, text):
        """Bytes of bodies sent for paths that contain the text: each once, if nothing was lost."""
        return sum(one.sent for one in self.matching("GET", text))

    def forget(self):
        with self.lock:
            self.requests.clear()


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


# --- The server ----------------------------------------------------------------------------------


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.open_sockets = set()

    def process_request(self, request, client_address):
        self.open_sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.open_sockets.discard(request)
        super().shutdown_request(request)

    def close_connections(self):
        for one in list(self.open_sockets):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def handle_error(self, request, client_address):
        error = sys.exc_info()[1]
        if not isinstance(error, (OSError, BrokenOff)):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "fault-registry"
    piece_bytes = 64 << 10
    sys_version = ""

    def setup(self):
        self.raw = self.request
        self.registry = self.server.registry
        if self.server.tls:
            # Here, in the connection's own thread: a handshake must not keep others waiting.
            self.request.settimeout(WAIT_SECONDS)
            self.request = self.server.tls.wrap_socket(self.raw, server_side=True)
            self.raw = self.request
        self.request.settimeout(None)
        with self.registry.lock:
            self.registry.connections += 1
            self.connection_number = self.registry.connections
        super().setup()

    def handle(self):
        try:
            super().handle()
        except ValueError:
            if not self.raw._closed:  # else it flushes what a reset has closed
                raise

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer()

    def do_HEAD(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def do_CONNECT(self):
        registry = self.registry
        request = Request("CONNECT", self.path, {name.lower(): value for name, value in
                                                 self.headers.items()}, b"",
                          self.connection_number)
        with registry.lock:
            registry.requests.append(request)
            registry.changed.notify_all()
        self.close_connection = True
        if not registry.tunnel_to:
            request.status = 407
            self.send_error(407)
            return
        request.status = 200
        self.send_response(200)
        self.end_headers()
        with socket.create_connection(registry.tunnel_to) as far:
            back = threading.Thread(target=_copy, args=(far, self.raw), daemon=True)
            back.start()
            _copy(self.raw, far)
            back.join()

    def _answer(self):
        registry = self.registry
        request = Request(self.command, self.path,
                          {name.lower(): value for name, value in self.headers.items()},
                          self._read_body(), self.connection_number)
        with registry.lock:
            registry.requests.append(request)
            fault = self._find_fault(request)
            registry.changed.notify_all()
        try:
            if fault.hold:
                self._stall()
            status, headers, body = self._respond(request, fault)
            self._send(request, fault, status, headers, body)
        except BrokenOff:
            self.close_connection = True
        finally:
            with registry.lock:
                request.finished = True
                registry.changed.notify_all()
            if registry.on_request:
                registry.on_request(request)

    def _read_body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _find_fault(self, request):
        for rule in self.registry.rules:
            if rule.method not in (self.command, "*") or not rule.pattern.search(self.path):
                continue
            if rule.when and not rule.when(request):
                continue
            if rule.times is not None and rule.used >= rule.times:
                continue
            rule.used += 1
            return rule.faults[min(rule.used, len(rule.faults)) - 1]
        return Fault()

    # --- What a registry would answer --------------------------------------------------------

    def _respond(self, request, fault):
        """(status, headers, body) with the fault's changes to them."""
        if fault.redirect is not None:
            return 307, {"Location": fault.redirect.replace("{path}", self.path),
                         **fault.headers}, b""
        if fault.status is not None:
            body = fault.body if fault.body is not None else _errors("FAULT", "as told")
            return fault.status, dict(fault.headers), body
        status, headers, body = self._genuine(request, fault)
        if fault.body is not None:
            body = fault.body
        if fault.wrong_bytes:
            body = bytes(byte ^ 0x55 for byte in body)
        status, headers, body = self._apply_range(fault, status, headers, body)
        if fault.wrong_byte is not None and body:
            wrong = bytearray(body)
            wrong[fault.wrong_byte % len(wrong)] ^= 1
            body = bytes(wrong)
        return status, {**headers, **fault.headers}, body

    def _genuine(self, request, _fault):
        path, _, query = self.path.partition("?")
        registry = self.registry
        if path == "/token":
            return self._token(request, urllib.parse.parse_qs(query))
        refused = self._check_credentials(request)
        if refused:
            return refused
        if path in ("/v2", "/v2/"):
            return 200, {"Content-Type": "application/json"}, b"{}"
        match = re.fullmatch(r"(?:.*)?/v2/(.+)/(manifests|blobs)/([^/]+)", path)
        if not match:
            return 404, {}, _errors("UNSUPPORTED", "no such page")
        repository, kind, reference = match.groups()
        if kind == "blobs":
            body = registry.blobs.get((repository, reference))
            if body is None:
                return 404, {}, _errors("BLOB_UNKNOWN", "blob unknown to registry")
            return 200, {"Content-Type": "application/octet-stream",
                         "Docker-Content-Digest": reference}, body
        found = registry.manifests.get((repository, reference))
        if found is None:
            return 404, {}, _errors("MANIFEST_UNKNOWN", "manifest unknown")
        headers = {"Docker-Content-Digest": sha256(found[0])}
        if found[1] is not None:
            headers["Content-Type"] = found[1]
        return 200, headers, found[0]

    def _apply_range(self, fault, status, headers, body):
        lie = fault.content_range
        if isinstance(lie, str):
            return 206, {**headers, "Content-Range": lie}, body
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if status != 200 or not (match or lie) or fault.ignore_range:
            return status, headers, body
        size = len(body)
        first, last = (int(match[1]), int(match[2] or size - 1)) if match else (0, size - 1)
        if first >= size:
            return 416, {"Content-Range": f"bytes */{size}"}, b""
        last = min(last, size - 1)
        text = lie(first, last, size) if lie else f"bytes {first}-{last}/{size}"
        return 206, {**headers, "Content-Range": text}, body[first:last + 1]

    def _check_credentials(self, request):
        registry = self.registry
        if registry.basic:
            if _basic(request) == registry.basic:
                return None
            return 401, {"WWW-Authenticate": 'Basic realm="fault"'}, \
                _errors("UNAUTHORIZED", "authentication required")
        if registry.bearer:
            kind, _, token = (request.authorization or "").partition(" ")
            match = re.match(r".*/v2/(.+)/(manifests|blobs)/", self.path)
            scope = f"repository:{match[1]}:pull" if match else ""
            with registry.lock:
                if kind == "Bearer" and registry.tokens.get(token) == scope:
                    return None
            challenge = (f'Bearer realm="{registry.bearer["realm"]}",'
                         f'service="{registry.bearer["service"]}",scope="{scope}"')
            return 401, {"WWW-Authenticate": challenge}, \
                _errors("UNAUTHORIZED", "authentication required")
        return None

    def _token(self, request, query):
        source = self.registry.token_source
        bearer = source.bearer
        if not bearer:
            return 404, {}, _errors("UNSUPPORTED", "no tokens here")
        if request.method == "POST":
            form = urllib.parse.parse_qs(request.body.decode())
            scope = form.get("scope", [""])[0]
            allowed = (bearer["identity_token"] is not None and
                       form.get("grant_type") == ["refresh_token"] and
                       form.get("refresh_token") == [bearer["identity_token"]] and
                       form.get("service") == [bearer["service"]])
        else:
            scope = query.get("scope", [""])[0]
            allowed = bearer["user"] is None or _basic(request) == (bearer["user"],
                                                                    bearer["password"])
        if not allowed:
            return 401, {}, _errors("UNAUTHORIZED", "incorrect username or password")
        with source.lock:
            token = f"token-{len(source.tokens) + 1}-{os.urandom(8).hex()}"
            source.tokens[token] = scope
        key = "access_token" if request.method == "POST" else "token"
        answer = {key: token, "expires_in": source.token_lifetime}
        return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    # --- Sending it --------------------------------------------------------------------------

    def _send(self, request, fault, status, headers, body):
        if fault.long:
            body += b"x" * fault.long
        length = len(body)
        if fault.short:
            body = body[:-fault.short]
        if fault.absolute:
            fault = _relative(fault, headers)
        names = {name.lower() for name in headers}
        with self.registry.lock:
            request.status = status
        self._stop_at(fault, -1)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value() if callable(value) else value)
        if fault.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif "content-length" not in names:
            if fault.content_length is not None:
                length = fault.content_length
            self.send_header("Content-Length", str(length))
        self._send_headers(fault)
        if self.command == "HEAD":
            return
        self._send_body(request, fault, body)
        if fault.chunked and not fault.short:
            self.wfile.write(b"0\r\n\r\n")
        if fault.short or fault.content_length is not None:
            raise BrokenOff

    def _send_headers(self, fault):
        if not fault.cut_headers and not fault.drip_headers:
            return self.end_headers()
        text = b"".join(self._headers_buffer) + b"\r\n"
        self._headers_buffer = []
        if fault.cut_headers:
            self.wfile.write(text[:len(text) // 2])
            raise BrokenOff
        step, pause = fault.drip_headers
        for position in range(0, len(text), step):
            self.wfile.write(text[position:position + step])
            self._pause(pause)

    def _send_body(self, request, fault, body):
        stops = {stop for stop in (fault.stall_after, fault.reset_after)
                 if stop is not None and 0 <= stop <= len(body)}
        position = 0
        for stop in sorted(stops) + [len(body)]:
            step, pause = fault.drip or (self.piece_bytes, 0)
            while position < stop:
                piece = body[position:min(stop, position + step)]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if fault.chunked else piece)
                position += len(piece)
                self._sent(request, len(piece))
                if pause:
                    self._pause(pause)
            self._stop_at(fault, stop)

    def _sent(self, request, count):
        with self.registry.lock:
            request.sent += count
            self.registry.changed.notify_all()

    def _pause(self, seconds):
        registry = self.registry
        with registry.lock:
            if registry.changed.wait_for(lambda: registry.stopping, seconds):
                raise BrokenOff

    def _stop_at(self, fault, position):
        if fault.stall_after == position:
            self._stall()
        if fault.reset_after == position:
            self._reset()

    def _reset(self):
        with self.registry.lock:
            self.registry.resets += 1
            self.registry.changed.notify_all()
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wfile.flush()
        self.rfile.close()
        self.wfile.close()
        self.raw.close()
        raise BrokenOff

    def _stall(self):
        registry = self.registry
        with registry.lock:
            before = registry.released
            registry.stalled += 1
            registry.changed.notify_all()
            registry.changed.wait_for(lambda: registry.released > before or registry.stopping)
            registry.stalled -= 1
            if registry.stopping:
                raise BrokenOff

    def finish(self):
        try:
            super().finish()
        except (OSError, ValueError):
            pass


def _relative(fault, headers):
    """Positions in the blob become positions in this part of it."""
    match = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    first = int(match[1]) if match else 0
    found = {}
    for name in ("stall_after", "reset_after"):
        position = getattr(fault, name)
        if position is not None:
            found[name] = position - first if position >= first else None
    return dataclasses.replace(fault, **found)


def _copy(source, target):
    """Until the source ends; then the target knows of it."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def _errors(code, message):
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def _basic(request):
    kind, _, text = (request.authorization or "").partition(" ")
    if kind != "Basic":
        return None
    user, _, password = base64.b64decode(text).decode().partition(":")
    return user, password


# --- The program ---------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--demo", metavar="NAME:TAG")
    parser.add_argument("--fault", nargs=2, action="append", default=[], metavar=("REGEX", "JSON"))
    options = parser.parse_args()
    tls = (options.tls_cert, options.tls_key) if options.tls_cert else None
    registry = FaultRegistry(tls, port=options.port)
    for pattern, text in options.fault:
        values = json.loads(text)
        times, method = values.pop("times", None), values.pop("method", "GET")
        if "body" in values:
            values["body"] = values["body"].encode()
        registry.fault(pattern, Fault(**values), times=times, method=method)
    if options.demo:
        import images
        name, _, tag = options.demo.partition(":")
        registry.push(name, images.busybox_image(), tag or "latest")
    registry.on_request = lambda request: print(
        json.dumps({**dataclasses.asdict(request), "body": request.body.decode(errors="replace")}),
        flush=True)
    print(registry.url, flush=True)
    sys.stdin.read()
    registry.stop()


if __name__ == "__main__":
    main()
