"""A small registry to push to, which does as told what real ones do only now and then.

    with UploadRegistry(cut=[100]) as registry:
        ... upload ...
        assert registry.blobs[digest] == data

What it can be told, alone or together:

    cut=[n, ...]         connections break after so many bytes of the next bodies; None: not that
    stall=[n, ...]       nothing more is read after so many bytes, until stop()
    flip=[n, ...]        this byte of the next sessions is taken in wrong
    keeps=False          it loses the session with a body that broke off, as docker-registry does
    lose_sessions=n      the next n requests to sessions find none
    chunks=405           this for PATCH
    limit=n              413 for larger bodies
    min_length=n         OCI-Chunk-Min-Length
    relative=True        Locations without a host
    elsewhere=other      Locations of sessions at another UploadRegistry
    redirect=other       307 to there for PATCH and PUT
    busy=[(status, headers), ...]   answers to the next requests that send something
    lose_answers=n       n uploads are closed without a word of it
    slow_offset=n        it claims to have n bytes less than it got, once per session
    user=(name, password)           Basic
    wrong_digest=True    it closes uploads as something else
"""

import base64
import hashlib
import http.server
import re
import socket
import struct
import threading
import urllib.parse
import uuid


class Record:
    def __init__(self, handler):
        self.method, self.path = handler.command, handler.path
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.connection = handler.client_address
        self.received = 0


class UploadRegistry:
    def __init__(self, **options):
        self.cut, self.stall, self.busy, self.flip = [], [], [], []
        self.keeps, self.chunks, self.relative = True, 202, False
        self.lose_sessions, self.lose_answers, self.slow_offset = 0, 0, 0
        self.limit = self.min_length = self.elsewhere = self.redirect = self.user = None
        self.wrong_digest = False
        vars(self).update(options)
        self.blobs = {}  # digest -> bytes
        self.manifests = {}  # name -> (type, bytes)
        self.sessions = {}  # id -> bytearray
        self.requests = []
        self.stopped = threading.Event()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.registry = self
        self.host = "127.0.0.1:%d" % self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def of(self, method):
        return [one for one in self.requests if one.method == method]

    def received(self):
        return sum(one.received for one in self.requests)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_any(self):
        registry = self.server.registry
        self.record = Record(self)
        registry.requests.append(self.record)
        path, _, query = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(query))
        if registry.user and self.headers.get("Authorization") != \
                "Basic " + base64.b64encode(":".join(registry.user).encode()).decode():
            return self.answer(401, {"WWW-Authenticate": 'Basic realm="x"'})
        if path == "/v2/":
            return self.answer(200)
        if self.command in ("POST", "PATCH", "PUT") and registry.busy:
            self.read_body(None)
            return self.answer(*registry.busy.pop(0))
        manifest = re.fullmatch(r"/v2/.+/manifests/(.+)", path)
        if manifest and self.command == "PUT":
            data = bytearray()
            self.read_body(data)
            registry.manifests[manifest[1]] = (self.headers["Content-Type"], bytes(data))
            return self.answer(201, {"Docker-Content-Digest": "sha256:" + 64 * "0"}
                               if registry.wrong_digest else {})
        blob = re.fullmatch(r"/v2/.+/blobs/(sha256:.+)", path)
        if blob:
            found = registry.blobs.get(blob[1])
            return self.answer(404) if found is None else self.answer(200, body=found)
        if self.command == "POST":
            return self.open_session(query)
        return self.session(path.rsplit("/", 1)[1], query)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = do_any

    def open_session(self, query):
        registry = self.server.registry
        if query.get("mount") in registry.blobs and query.get("from") == "team/base":
            return self.answer(201)
        owner = registry.elsewhere or registry
        identity = uuid.uuid4().hex
        owner.sessions[identity] = bytearray()
        headers = {"OCI-Chunk-Min-Length": str(registry.min_length)} if registry.min_length else {}
        return self.answer(202, {**headers, "Location": self.location(identity, owner)})

    def location(self, identity, owner=None):
        registry = self.server.registry
        path = f"/uploads/{identity}?state={uuid.uuid4().hex}"
        return path if registry.relative else f"http://{(owner or registry).host}{path}"

    def session(self, identity, query):
        registry = self.server.registry
        if registry.redirect and self.command in ("PATCH", "PUT"):
            registry.redirect.sessions[identity] = registry.sessions[identity]
            return self.answer(307, {"Location": f"http://{registry.redirect.host}{self.path}"})
        if registry.lose_sessions:
            registry.lose_sessions -= 1
            registry.sessions.pop(identity, None)
        data = registry.sessions.get(identity)
        if data is None:
            self.read_body(None)
            return self.answer(404)
        if self.command == "DELETE":
            del registry.sessions[identity]
            return self.answer(204)
        if self.command == "GET":
            return self.answer(204, self.progress(identity, data))
        return self.take(identity, data, query)

    def progress(self, identity, data):
        return {"Location": self.location(identity), "Range": f"0-{max(len(data) - 1, 0)}"}

    def take(self, identity, data, query):
        registry = self.server.registry
        length = int(self.headers["Content-Length"])
        start = re.match(r"(\d+)-(\d+)$", self.headers.get("Content-Range") or "")
        if self.command == "PATCH" and registry.chunks != 202:
            self.read_body(None)
            return self.answer(registry.chunks)
        if registry.limit is not None and length > registry.limit:
            self.read_body(None)
            return self.answer(413)
        if start and (int(start[1]) != len(data) or int(start[2]) != len(data) + length - 1):
            self.read_body(None)
            return self.answer(416, self.progress(identity, data))
        first = not data
        if not self.read_body(data):
            if not registry.keeps:
                del registry.sessions[identity]
            return None
        if registry.flip and first:
            data[registry.flip.pop(0)] ^= 1
        if self.command == "PUT":
            return self.close_session(identity, data, query)
        if registry.slow_offset:
            del data[-registry.slow_offset:]
            registry.slow_offset = 0
        return self.answer(202, self.progress(identity, data))

    def close_session(self, identity, data, query):
        registry = self.server.registry
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        del registry.sessions[identity]
        if query.get("digest") != digest:
            return self.answer(400, {}, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
        registry.blobs[digest] = bytes(data)
        if registry.lose_answers:
            registry.lose_answers -= 1
            return self.reset()
        return self.answer(201, {"Docker-Content-Digest": "sha256:" + 64 * "0"
                                 if registry.wrong_digest else digest})

    def read_body(self, data):
        """False if the connection broke."""
        registry = self.server.registry
        left = int(self.headers.get("Content-Length") or 0)
        cut = registry.cut.pop(0) if registry.cut and left and data is not None else None
        stall = registry.stall.pop(0) if registry.stall and left and data is not None else None
        while left:
            most = min(left, 65536, *[end - self.record.received for end in (cut, stall)
                                      if end is not None])
            piece = self.rfile.read1(most) if most else b""
            if not piece:
                if most == 0 and stall is not None:
                    registry.stopped.wait()
                self.reset()
                return False
            left -= len(piece)
            self.record.received += len(piece)
            if data is not None:
                data += piece
        return True

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def answer(self, status, headers=None, body=b""):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle(self):
        try:
            super().handle()
        except (OSError, ValueError):
            pass  # it has gone
