"""The registry client against a real registry and against one that lies and stalls. Each test runs
registry_tool, which says in its first lines what it can be told to do."""

import hashlib
import importlib.util
import itertools
import json
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

E2E = pathlib.Path(__file__).resolve().parents[3] / "e2e"
sys.path.insert(0, str(E2E))
import images  # noqa: E402
from fault_registry import Fault, FaultRegistry, sha256  # noqa: E402

TOOL = os.environ.get("REGISTRY_TOOL", "")
SECRET = "pass-w0rd"
DOCKER = images.MEDIA_TYPES[images.DOCKER]
OCI = images.MEDIA_TYPES[images.OCI]


def load_real_registry():
    """The class that the end-to-end tests run docker-registry with."""
    spec = importlib.util.spec_from_file_location("e2e_conftest", E2E / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Registry


# --- Running the tool ----------------------------------------------------------------------------


def environment(extra=None):
    kept = {name: value for name, value in os.environ.items()
            if not name.upper().endswith("_PROXY") and not name.startswith("SSL_CERT")}
    return {**kept, **(extra or {})}


def check_output(stdout, stderr):
    for sign in ("Sanitizer", "runtime error", "check failed"):
        assert sign not in stderr, stderr
    assert SECRET not in stdout + stderr
    return [json.loads(line) for line in stdout.splitlines()]


def tool(*arguments, env=None):
    """Runs commands; returns a result (a dict) for each, just the one if there is one."""
    done = subprocess.run([TOOL, *map(str, arguments)], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, env=environment(env), check=False)
    results = check_output(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr
    return results[0] if len(results) == 1 else results


def failed(result, code, reason, *fragments):
    assert (result.get("code"), result.get("reason")) == (code, reason), result
    for fragment in fragments:
        assert fragment in result["message"] + "\n" + result.get("hint", ""), result
    return result


class Running:
    """The tool with a line of input to come."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen([TOOL, *map(str, arguments)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=environment())

    def line(self):
        return json.loads(self.process.stdout.readline())

    def send_line(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self):
        stdout, stderr = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, stderr
        return check_output(stdout, stderr)


@pytest.fixture
def make_registry():
    made = []

    def make(*arguments, **options):
        made.append(FaultRegistry(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def registry(make_registry):
    return make_registry()


@pytest.fixture(scope="session")
def image():
    return images.image([images.layer([images.file("a", images.payload(200000, 1, 0))])])


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A CA; certificates of a server and of a client, signed by it; and one that nobody signed."""
    path = tmp_path_factory.mktemp("certificates")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    (path / "server.ext").write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.test\nbasicConstraints=CA:FALSE\n")
    (path / "client.ext").write_text("basicConstraints=CA:FALSE\n")
    commands = [f"req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=tests-ca",
                f"req -x509 {key} -keyout alone.key -out alone.crt -days 2 -subj /CN=registry.test "
                "-addext subjectAltName=DNS:registry.test"]
    for name in ("server", "client"):
        commands += [f"req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}",
                     f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial "
                     f"-out {name}.crt -days 2 -extfile {name}.ext"]
    for command in commands:
        subprocess.run(["openssl", *command.split()], cwd=path, check=True, capture_output=True)
    return path


@pytest.fixture
def certs_dir(tmp_path):
    path = tmp_path / "certs.d"

    def add(host, **files):
        (path / host).mkdir(parents=True, exist_ok=True)
        for name, source in files.items():
            shutil.copy(source, path / host / name.replace("_", "."))
        return path

    path.mkdir()
    add.path = path
    return add


def blob(name, layer, offset=0):
    return ("blob", name, layer.digest, len(layer.blob), offset)


def whole(layer, offset=0):
    data = layer.blob[offset:]
    return {"bytes": len(data), "sha256": sha256(data)}


# --- A real registry -----------------------------------------------------------------------------


@pytest.fixture
def make_real(tmp_path_factory):
    real_registry = load_real_registry()
    made = []

    def make(**options):
        made.append(real_registry(tmp_path_factory.mktemp("registry"), **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_real_registry(make_real, image):
    real = make_real()
    layer = image.layers[0]
    other = images.image([images.layer([images.file("b", "2")], "zstd")], schema=images.OCI,
                         platform="linux/s390x")
    native = images.image([images.layer([images.file("c", "3")], "none")], schema=images.OCI)
    index = images.index([other, native])
    name = real.push("team/app", image)
    several = real.push("team/several", index)

    one, by_digest, rest, chosen, asked, nothing, no_repository = tool(
        "resolve", name, "resolve", f"{real.host}/team/app@{image.digest}", *blob(name, layer, 1000),
        "resolve", several, "resolve", f"{real.host}/team/several@{other.digest}",
        "resolve", name + "x", "resolve", f"{real.host}/nope")
    assert one["digest"] == one["manifest_digest"] == image.digest
    assert one["id"] == image.id and one["layers"] == [layer.digest]
    assert one["config_size"] == len(image.config) and one["manifest_size"] == len(image.manifest)
    assert by_digest == one
    assert rest == whole(layer, 1000)
    assert chosen["digest"] == index.digest and chosen["manifest_digest"] == native.digest
    failed(asked, "NOT_FOUND", "NO_MATCHING_PLATFORM", "only for: linux/s390x", "--platform")
    failed(nothing, "NOT_FOUND", "MANIFEST_UNKNOWN", f"manifest for {name}x not found: "
           "manifest unknown")
    failed(no_repository, "NOT_FOUND", "MANIFEST_UNKNOWN",
           f"manifest for {real.host}/nope:latest not found: manifest unknown")
    assert tool("--platform", "linux/s390x", "resolve", several)["manifest_digest"] == other.digest


def test_real_registry_with_passwords(make_real, image):
    real = make_real(htpasswd={"user": SECRET})
    name = real.push("team/app", image)
    login = ["--user", "user", "--password", SECRET]

    none = tool("resolve", name)
    failed(none, "UNAUTHENTICATED", "UNAUTHORIZED",
           f"pull access denied for {real.host}/team/app, repository does not exist or may require "
           "'davit login'", "there are none for")
    wrong = tool("--user", "user", "--password", "no", "resolve", name)
    failed(wrong, "UNAUTHENTICATED", "UNAUTHORIZED",
           f"registry {real.host} refuses the credentials of user user", "log in")
    good, data = tool(*login, "resolve", name, *blob(name, image.layers[0]))
    assert good["digest"] == image.digest and data == whole(image.layers[0])


def test_real_registry_with_tls(make_real, certs_dir, image):
    real = make_real(tls=True)
    name = real.push("team/app", image)

    failed(tool("--certs", certs_dir.path, "resolve", name), "UNAVAILABLE", "TLS_FAILED",
           "certificate", f"{certs_dir.path}/{real.host}/ca.crt", "insecure-registries")
    path = certs_dir(real.host, ca_crt=real.cafile)
    assert tool("--certs", path, "resolve", name)["digest"] == image.digest
    assert tool("--insecure", real.host, "resolve", name)["digest"] == image.digest


# --- Connections ---------------------------------------------------------------------------------


def test_one_connection_for_one_thing_at_a_time(registry, image):
    name = registry.push("a", image)
    tool("resolve", name, *blob(name, image.layers[0]), "resolve", name)
    # The first was a try with TLS.
    assert len({one.connection for one in registry.requests}) == 1
    assert registry.count("GET", "/v2/") == 1 + 2 + 1 + 2
    assert {one.headers["user-agent"] for one in registry.requests} == {"davit/test"}


def test_several_blobs_at_once(registry, image):
    name = registry.push("a", image)
    layer = image.layers[0]
    registry.fault("/blobs/", Fault(stall_after=1000))
    running = Running("blobs", 3, name, layer.digest, len(layer.blob))
    registry.wait_stalled(3)
    registry.release()
    assert running.finish() == [{"bytes": 3 * len(layer.blob)}]


def test_nobody_there():
    failed(tool("resolve", "127.0.0.1:1/a"), "UNAVAILABLE", "CONNECTION_FAILED",
           "cannot connect to 127.0.0.1:1: Connection refused", "is the registry running")
    failed(tool("resolve", "nosuch.invalid/a"), "UNAVAILABLE", "CONNECTION_FAILED",
           "cannot connect to nosuch.invalid:443: no such host is known", "name servers")


def test_name_lookup_that_hangs():
    failed(tool("--connect-ms", 300, "resolve", "hang.test/a"), "UNAVAILABLE", "CONNECTION_FAILED",
           "cannot connect to hang.test:443: looking up its name timed out")


def test_ipv6(make_registry, image):
    registry = make_registry(address="::1")
    name = registry.push("a", image)
    assert name.startswith("[::1]:")
    assert tool("resolve", name)["digest"] == image.digest


def test_server_that_does_not_answer(registry, image):
    name = registry.push("a", image)
    registry.fault("/manifests/", Fault(stall_after=-1))
    failed(tool("--stall-ms", 300, "--connect-ms", 300, "resolve", name), "UNAVAILABLE", "STALLED",
           f"{registry.host}: stalled")


def test_reset_during_the_handshake(image):
    """That is a connection that broke, not a question of certificates."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def reset():
            for _ in range(4):  # attempts for a manifest
                connection = server.accept()[0]
                connection.recv(1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

        threading.Thread(target=reset, daemon=True).start()
        name = f"registry.test:{server.getsockname()[1]}/app"
        failed(tool("resolve", name), "UNAVAILABLE", "CONNECTION_FAILED", "broke")


def test_a_scheme_is_kept_while_the_registry_is_busy_breaking_off(registry, image):
    name = registry.push("app", image)
    registry.fault("/blobs/", Fault(reset_after=-1))
    for failure in tool(*blob(name, image.layers[0]), *blob(name, image.layers[0])):
        failed(failure, "UNAVAILABLE", "CONNECTION_FAILED")
    assert registry.count("GET", "/v2/") - registry.count("GET", "/v2/app") == 1, "one probe"


def test_headers_without_end(registry, image):
    name = registry.push("a", image)
    registry.fault("/manifests/", Fault(headers={"X-Long": "x" * 70000}))
    failed(tool("resolve", name), "FAILED_PRECONDITION", "REGISTRY_PROTOCOL", "64 KiB")


# --- HTTP and HTTPS ------------------------------------------------------------------------------


def elsewhere(name):
    """The same server by a name that is not loopback's."""
    return name.replace("127.0.0.1", "registry.test")


def test_plain_http_needs_to_be_allowed(registry, image):
    name = elsewhere(registry.push("a", image))
    host = elsewhere(registry.host)
    failed(tool("resolve", name), "UNAVAILABLE", "TLS_FAILED",
           "server gave HTTP response to HTTPS client", f"--insecure-registry {host}")
    assert registry.requests == []
    assert tool("--insecure", host, "resolve", name)["digest"] == image.digest
    failed(tool("--insecure", "other.test:5000", "resolve", name), "UNAVAILABLE", "TLS_FAILED")


def test_insecure_prefers_tls(make_registry, certificates, image):
    server = make_registry(tls=(certificates / "alone.crt", certificates / "alone.key"))
    name = elsewhere(server.push("a", image))
    failed(tool("resolve", name), "UNAVAILABLE", "TLS_FAILED", "self")
    assert tool("--insecure", elsewhere(server.host), "resolve", name)["digest"] == image.digest
    # Loopback may be plain, but a certificate that is there must be right.
    failed(tool("resolve", server.push("a", image)), "UNAVAILABLE", "TLS_FAILED", "self")


def test_certificate_for_another_host(make_registry, certificates, certs_dir, image):
    server = make_registry(tls=(certificates / "server.crt", certificates / "server.key"))
    name = server.push("a", image).replace("127.0.0.1", "other.test")
    host = server.host.replace("127.0.0.1", "other.test")
    path = certs_dir(host, ca_crt=certificates / "ca.crt")
    failed(tool("--certs", path, "resolve", name), "UNAVAILABLE", "TLS_FAILED", "other.test")


def test_roots_from_the_environment(make_registry, certificates, image):
    server = make_registry(tls=(certificates / "server.crt", certificates / "server.key"))
    name = elsewhere(server.push("a", image))
    assert tool("resolve", name, env={"SSL_CERT_FILE": str(certificates / "ca.crt")})["digest"] == \
        image.digest
    failed(tool("resolve", name), "UNAVAILABLE", "TLS_FAILED", "certificate")


def test_roots_of_one_host_do_not_count_for_another(make_registry, certificates, certs_dir, image):
    server = make_registry(tls=(certificates / "server.crt", certificates / "server.key"))
    name = server.push("a", image)
    path = certs_dir(server.host, ca_crt=certificates / "ca.crt")
    good, bad, again = tool("--certs", path, "resolve", name, "resolve", elsewhere(name),
                            "resolve", name)
    assert good["digest"] == again["digest"] == image.digest
    failed(bad, "UNAVAILABLE", "TLS_FAILED", "certificate")


def test_client_certificate(make_registry, certificates, certs_dir, image):
    server = make_registry(tls=(certificates / "server.crt", certificates / "server.key"))
    server.require_client_certificates(certificates / "ca.crt")
    name = elsewhere(server.push("a", image))
    host = elsewhere(server.host)
    path = certs_dir(host, ca_crt=certificates / "ca.crt")
    # The server's alert may be overtaken by the end of the connection.
    assert tool("--certs", path, "resolve", name)["reason"] in ("TLS_FAILED", "CONNECTION_FAILED")
    certs_dir(host, client_cert=certificates / "client.crt")
    failed(tool("--certs", path, "resolve", name), "FAILED_PRECONDITION", "TLS_FAILED",
           f"{path}/{host}/client.cert has no readable key")
    certs_dir(host, client_key=certificates / "client.key")
    assert tool("--certs", path, "resolve", name)["digest"] == image.digest


def test_broken_ca_file(registry, certs_dir, image):
    host = elsewhere(registry.host)
    path = certs_dir(host)
    (path / host / "ca.crt").write_text("nothing of the kind\n")
    failed(tool("--certs", path, "resolve", elsewhere(registry.push("a", image))),
           "FAILED_PRECONDITION", "TLS_FAILED", f"cannot read CA certificates from {path}/{host}/ca.crt")


# --- Proxies -------------------------------------------------------------------------------------


def test_proxy_for_plain_http(registry, image):
    registry.push("a", image)
    proxy = f"http://user:{SECRET}@{registry.host}"
    for variable in ("http_proxy", "HTTP_PROXY"):
        registry.forget()
        result = tool("--insecure", "far.test:5000", "resolve", "far.test:5000/a",
                      env={variable: proxy})
        assert result["digest"] == image.digest
        assert registry.count("GET", "http://far.test:5000/v2/a/manifests/") == 1
        assert registry.requests[0].headers["proxy-authorization"].startswith("Basic ")


def test_proxy_for_https(make_registry, certificates, certs_dir, image):
    server = make_registry(tls=(certificates / "server.crt", certificates / "server.key"))
    server.push("a", image)
    proxy = make_registry()
    proxy.tunnel_to = ("127.0.0.1", server.port)
    path = certs_dir("registry.test", ca_crt=certificates / "ca.crt")
    variables = {"HTTPS_PROXY": f"http://user:{SECRET}@{proxy.host}"}
    assert tool("--certs", path, "resolve", "registry.test/a", env=variables)["digest"] == \
        image.digest
    assert proxy.requests[0].path == "registry.test:443"
    assert all("proxy-authorization" not in one.headers for one in server.requests)
    # Listed in NO_PROXY, it is asked at once: there is nobody at port 443.
    failed(tool("--certs", path, "resolve", "registry.test/a",
                env={**variables, "NO_PROXY": "x.io,.test"}),
           "UNAVAILABLE", "CONNECTION_FAILED", "Connection refused")
    proxy.tunnel_to = None
    failed(tool("--certs", path, "resolve", "registry.test/a", env=variables), "UNAVAILABLE",
           "CONNECTION_FAILED", "407", "HTTPS_PROXY")


def test_loopback_is_not_proxied(registry, image):
    name = registry.push("a", image)
    nowhere = f"http://user:{SECRET}@127.0.0.1:1"
    variables = {"HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "http_proxy": nowhere}
    assert tool("resolve", name, env=variables)["digest"] == image.digest


@pytest.mark.parametrize("proxy", [f"http://user:{SECRET}@127.0.0.1:1",
                                   f"http://user:{SECRET}@nosuch.invalid:1",
                                   f"bad://user:{SECRET}@x:1", f"http://us er:{SECRET}@x y:1"])
def test_proxy_that_does_not_work(proxy):
    result = tool("resolve", "r.test/a", env={"HTTPS_PROXY": proxy})
    assert result["code"] == "UNAVAILABLE", result
    assert SECRET not in json.dumps(result)


# --- Credentials ---------------------------------------------------------------------------------

LOGIN = ["--user", "user", "--password", SECRET]


def tokens_sent(registry):
    return [one.authorization for one in registry.matching("GET", "/v2/")]


def test_anonymous_token(registry, image):
    registry.require_bearer()
    name = registry.push("team/app", image)
    tool("resolve", name, *blob(name, image.layers[0]), "resolve", name)
    assert registry.count("GET", "/token") == 1
    asked = registry.matching("GET", "/token")[0]
    assert "scope=repository%3Ateam%2Fapp%3Apull" in asked.path and "service=fault" in asked.path
    assert asked.authorization is None
    # One 401 for the manifest, and the token with all that follows.
    sent = [one for one in registry.matching("GET", "/v2/team/app/")]
    assert [one.status for one in sent] == [401, 200, 200, 200, 200, 200]
    assert all(one.authorization.startswith("Bearer ") for one in sent[1:])


def test_a_token_for_each_repository(registry, image):
    registry.require_bearer()
    tool("resolve", registry.push("one", image), "resolve", registry.push("two", image))
    assert registry.count("GET", "/token") == 2


def test_token_for_a_user(registry, image):
    registry.require_bearer("user", SECRET)
    name = registry.push("app", image)
    assert tool(*LOGIN, "resolve", name)["digest"] == image.digest
    assert "account=user" in registry.matching("GET", "/token")[0].path
    assert not any(sent and sent.startswith("Basic") for sent in tokens_sent(registry))
    registry.forget()
    failed(tool("--user", "user", "--password", "wrong", "resolve", name), "UNAUTHENTICATED",
           "UNAUTHORIZED", "incorrect username or password")
    failed(tool("resolve", name), "UNAUTHENTICATED", "UNAUTHORIZED", "pull access denied for")


def test_identity_token(registry, image):
    registry.require_bearer("user", "other", identity_token=SECRET)
    name = registry.push("app", image)
    assert tool("--identity-token", SECRET, "resolve", name)["digest"] == image.digest
    assert registry.count("POST", "/token") == 1 and registry.count("GET", "/token") == 0
    failed(tool("--identity-token", "wrong", "resolve", name), "UNAUTHENTICATED", "UNAUTHORIZED")


def test_token_server_elsewhere(make_registry, image):
    registry, tokens = make_registry(), make_registry()
    registry.require_bearer("user", SECRET, realm=tokens.url + "/token")
    tokens.give_tokens_for(registry)
    name = registry.push("app", image)
    assert tool(*LOGIN, "resolve", name)["digest"] == image.digest
    assert tokens.requests[0].authorization.startswith("Basic ")
    assert not any(sent and sent.startswith("Basic") for sent in tokens_sent(registry))


def test_token_that_ends(registry, image):
    """Refused before its time, it is fetched anew; known to have ended, it is not even sent."""
    registry.require_bearer(lifetime=300)
    name = registry.push("app", image)
    running = Running("resolve", name, "wait", *blob(name, image.layers[0]))
    assert running.line()["digest"] == image.digest and running.line()["waiting"]
    registry.expire_tokens()
    registry.forget()
    running.send_line()
    assert running.finish() == [whole(image.layers[0])]
    assert [one.status for one in registry.matching("GET", "/blobs/")] == [401, 200]
    assert registry.count("GET", "/token") == 1


def test_token_known_to_have_ended(registry, image):
    registry.require_bearer(lifetime=1)
    name = registry.push("app", image)
    running = Running("resolve", name, "wait", *blob(name, image.layers[0]))
    running.line(), running.line()
    registry.forget()
    time.sleep(1)  # a clock is what this is about
    running.send_line()
    running.finish()
    blobs = registry.matching("GET", "/blobs/")
    assert [one.status for one in blobs] == [401, 200] and blobs[0].authorization is None


def test_401_without_end(registry, image):
    name = registry.push("app", image)
    challenge = {"WWW-Authenticate": f'Bearer realm="{registry.url}/token",service="s"'}
    registry.require_bearer()
    registry.fault("/v2/app/", Fault(status=401, headers=challenge))
    failed(tool("resolve", name), "UNAUTHENTICATED", "UNAUTHORIZED", "pull access denied")
    assert registry.count("GET", "/manifests/") == 2 and registry.count("GET", "/token") == 1


@pytest.mark.parametrize("challenge", [None, "", "Negotiate", 'Digest realm="x"', "Bearer"])
def test_401_that_asks_for_nothing_known(registry, image, challenge):
    name = registry.push("app", image)
    headers = {} if challenge is None else {"WWW-Authenticate": challenge}
    registry.fault("/manifests/", Fault(status=401, headers=headers))
    failed(tool(*LOGIN, "resolve", name), "UNAUTHENTICATED", "UNAUTHORIZED",
           "asks for credentials in a way that davit does not know")


def test_403(registry, image):
    name = registry.push("app", image)
    body = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'
    registry.fault("/manifests/", Fault(status=403, body=body))
    failed(tool("resolve", name), "PERMISSION_DENIED", "DENIED", "pull access denied for",
           "denied: requested access to the resource is denied")


@pytest.mark.parametrize("realm, fragment", [
    ("http://tokens.test/token", "without TLS"),
    ("http://user:x@127.0.0.1/token", "user or password"),
    ("file:///etc/passwd", "neither http nor https"),
    ("nonsense", ""),
])
def test_realms_that_are_refused(registry, image, realm, fragment):
    registry.require_bearer("user", SECRET, realm=realm)
    result = tool(*LOGIN, "resolve", registry.push("app", image))
    assert result["code"] in ("FAILED_PRECONDITION", "UNAVAILABLE") and \
        fragment in result["message"], result


@pytest.mark.parametrize("fault, code, fragment", [
    (Fault(body=b"{}"), "FAILED_PRECONDITION", "no valid token"),
    (Fault(body=b"[]"), "FAILED_PRECONDITION", "no valid token"),
    (Fault(body=b'{"token":""}'), "FAILED_PRECONDITION", "no valid token"),
    (Fault(body=b'{"token":"a\\r\\nX-Injected: b"}'), "FAILED_PRECONDITION", "no valid token"),
    (Fault(body=b'{"token":"' + b"a" * 70000 + b'"}'), "FAILED_PRECONDITION", "no valid token"),
    (Fault(body=b'{"token":"' + b"a" * (4 << 20) + b'"}'), "FAILED_PRECONDITION", "longer than"),
    (Fault(body=b"no json"), "FAILED_PRECONDITION", "no valid token"),
    (Fault(status=500), "UNAVAILABLE", "answers 500"),
    (Fault(status=404), "NOT_FOUND", ""),
])
def test_token_servers_that_make_no_sense(registry, image, fault, code, fragment):
    registry.require_bearer()
    registry.fault("/token", fault)
    result = tool("resolve", registry.push("app", image))
    assert result["code"] == code and fragment in result["message"], result
    assert all("x-injected" not in one.headers for one in registry.requests)


@pytest.mark.parametrize("status", [429, 503])
def test_token_server_that_is_busy(registry, image, status):
    registry.require_bearer()
    registry.fault("/token", Fault(status=status, headers={"Retry-After": "1"}), times=1)
    started = time.monotonic()
    assert tool("resolve", registry.push("app", image))["digest"] == image.digest
    assert time.monotonic() - started >= 1
    registry.expire_tokens()
    registry.clear_faults()
    registry.fault("/token", Fault(status=status, headers={"Retry-After": "100"}))
    failure = failed(tool("resolve", registry.push("app", image)), "UNAVAILABLE", "REGISTRY_BUSY",
                     "token server", "asks to wait for 100 seconds")
    assert failure["retry_after_ms"] == 100000


# --- Redirects -----------------------------------------------------------------------------------


def test_redirect_to_another_host(make_registry, image):
    registry, cdn = make_registry(), make_registry()
    layer = image.layers[0]
    registry.require_bearer()
    name = registry.push("app", image)
    cdn.push("app", image)
    registry.fault("/blobs/" + layer.digest, Fault(redirect=cdn.url + "/cdn{path}?signature=x%2Fy"))
    _, all_of_it, rest = tool("resolve", name, *blob(name, layer), *blob(name, layer, 777))
    assert all_of_it == whole(layer) and rest == whole(layer, 777)
    assert [one.authorization for one in cdn.requests] == [None, None]
    assert cdn.requests[0].path.endswith("?signature=x%2Fy")
    assert cdn.requests[1].headers["range"] == f"bytes=777-{len(layer.blob) - 1}"


def test_basic_credentials_stay_where_they_belong(make_registry, image):
    registry, cdn = make_registry(), make_registry()
    registry.require_basic("user", SECRET)
    name = registry.push("app", image)
    cdn.push("app", image)
    registry.fault("/blobs/", Fault(redirect=cdn.url + "{path}"))
    assert tool(*LOGIN, "resolve", name)["digest"] == image.digest
    assert [one.authorization for one in cdn.requests] == [None]
    # Even if it asks for them.
    cdn.require_basic("user", SECRET)
    failed(tool(*LOGIN, "resolve", name), "UNAUTHENTICATED", "UNAUTHORIZED", "redirects to a server")
    assert {one.authorization for one in cdn.requests} == {None}


def test_redirect_within_the_host(registry, image):
    registry.require_basic("user", SECRET)
    name = registry.push("app", image)
    registry.push("moved", image)
    registry.fault("/v2/app/manifests/", Fault(redirect="/v2/moved/manifests/latest"))
    assert tool(*LOGIN, "resolve", name)["digest"] == image.digest


@pytest.mark.parametrize("target, fragment", [
    ("{path}", "too many"),
    ("file:///etc/passwd", "no valid URL"),
    ("http://user:x@127.0.0.1/", "no valid URL"),
    ("", "too many"),
])
def test_redirects_that_are_refused(registry, image, target, fragment):
    name = registry.push("app", image)
    registry.fault("/manifests/", Fault(redirect=target))
    failed(tool("resolve", name), "FAILED_PRECONDITION", "REGISTRY_PROTOCOL", fragment)
    assert registry.count("GET", "/manifests/") <= 11


def test_redirect_without_location(registry, image):
    name = registry.push("app", image)
    registry.fault("/manifests/", Fault(status=302))
    failed(tool("resolve", name), "FAILED_PRECONDITION", "REGISTRY_PROTOCOL", "no valid URL")


def test_redirect_from_https_to_http(make_registry, certificates, certs_dir, image):
    server = make_registry(tls=(certificates / "server.crt", certificates / "server.key"))
    plain = make_registry()
    plain.push("app", image)
    name = server.push("app", image)
    server.fault("/blobs/", Fault(redirect=plain.url + "{path}"))
    path = certs_dir(server.host, ca_crt=certificates / "ca.crt")
    failed(tool("--certs", path, "resolve", name), "FAILED_PRECONDITION", "REGISTRY_PROTOCOL",
           "from HTTPS to plain HTTP")
    assert plain.requests == []
    assert tool("--insecure", server.host, "resolve", name)["digest"] == image.digest


# --- Busy registries -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [
    Fault(status=500), Fault(status=502, body=b"<html>"), Fault(status=503), Fault(status=504),
    Fault(status=429), Fault(status=429, headers={"Retry-After": "0"}),
    Fault(status=429, headers={"Retry-After": "nonsense"}),
    Fault(status=429, headers={"Retry-After": "-5"}),
    Fault(status=503, headers={"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
    Fault(reset_after=-1), Fault(reset_after=10), Fault(short=10),
])
def test_manifest_after_a_hiccup(registry, image, fault):
    name = registry.push("app", image)
    registry.fault("/manifests/", fault, times=2)
    assert tool("resolve", name)["digest"] == image.digest
    assert registry.count("GET", "/manifests/") == 3


@pytest.mark.parametrize("seconds", ["99999", "31", "9" * 40, "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_retry_after_a_long_time(registry, image, seconds):
    name = registry.push("app", image)
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"rate limit reached"}]}'
    registry.fault("/manifests/",
                   Fault(status=429, headers={"Retry-After": seconds}, body=body))
    failure = failed(tool("resolve", name), "UNAVAILABLE", "REGISTRY_BUSY",
                     "answers 429: toomanyrequests: rate limit reached", "asks to wait for")
    assert failure["retry_after_ms"] == {"99999": 99999000, "31": 31000}.get(
        seconds, 366 * 24 * 3600 * 1000), "a year at most"
    assert registry.count("GET", "/manifests/") == 1


def test_busy_without_end(registry, image):
    name = registry.push("app", image)
    registry.fault("/manifests/", Fault(status=503, body=b"no\x1b[31m\nway", headers={
        "Content-Type": "text/plain"}))
    result = failed(tool("resolve", name), "UNAVAILABLE", "REGISTRY_BUSY",
                    f"{registry.host} answers 503: status 503: no [31m way")
    assert "\x1b" not in result["message"]
    assert registry.count("GET", "/manifests/") == 4


# --- Manifests -----------------------------------------------------------------------------------


def push_json(registry, document, media_type=DOCKER["manifest"], reference="latest"):
    return registry.push_manifest("app", reference, document, media_type)


def descriptor(data, media_type, **more):
    return {"mediaType": media_type, "size": len(data), "digest": sha256(data), **more}


def manifest_of(image, **changes):
    return {**json.loads(image.manifest), **changes}


def test_manifest_with_wrong_bytes(registry, image):
    registry.push("app", image)
    registry.fault("/manifests/", Fault(wrong_bytes=True, headers={"Docker-Content-Digest": ""}))
    failed(tool("resolve", f"{registry.host}/app@{image.digest}"), "DATA_LOSS", "DIGEST_MISMATCH",
           "wrong bytes for the manifest " + image.digest)


@pytest.mark.parametrize("claimed, code, reason", [
    ("sha256:" + "0" * 64, "DATA_LOSS", "DIGEST_MISMATCH"),
    ("sha256:../../../etc/passwd", "FAILED_PRECONDITION", "INVALID_DIGEST"),
    ("nonsense", "FAILED_PRECONDITION", "INVALID_DIGEST"),
])
def test_digest_header_that_lies(registry, image, claimed, code, reason):
    name = registry.push("app", image)
    registry.fault("/manifests/", Fault(headers={"Docker-Content-Digest": claimed}))
    failed(tool("resolve", name), code, reason)


def test_config_with_wrong_bytes(registry, image):
    name = registry.push("app", image)
    registry.fault("/blobs/", Fault(wrong_bytes=True))
    failed(tool("resolve", name), "DATA_LOSS", "DIGEST_MISMATCH",
           "wrong bytes for the image configuration " + image.id)


@pytest.mark.parametrize("fault", [Fault(long=10), Fault(chunked=True, long=10)])
def test_config_that_is_too_long(registry, image, fault):
    name = registry.push("app", image)
    registry.fault("/blobs/", fault)
    failed(tool("resolve", name), "DATA_LOSS", "DIGEST_MISMATCH")


def test_config_that_is_missing(registry, image):
    name = push_json(registry, image.manifest)
    failed(tool("resolve", name), "NOT_FOUND", "BLOB_UNKNOWN",
           f"the image's configuration {image.id} is missing")


def test_manifest_that_is_too_long(registry):
    registry.push_manifest("app", "latest", b" " * ((4 << 20) + 1), DOCKER["manifest"])
    failed(tool("resolve", f"{registry.host}/app"), "FAILED_PRECONDITION", "REGISTRY_PROTOCOL",
           "longer than 4194304 bytes")


def test_manifests_that_are_two_things(registry, image):
    index = json.loads(images.index([image], images.DOCKER).manifest)
    both = {**manifest_of(image), "manifests": index["manifests"]}
    failed(tool("resolve", push_json(registry, both)), "INVALID_ARGUMENT", "INVALID_MANIFEST",
           "an image and an index at once")
    failed(tool("resolve", push_json(registry, image.manifest, DOCKER["index"])),
           "INVALID_ARGUMENT", "INVALID_MANIFEST", "differs from the type it was sent with")
    failed(tool("resolve", push_json(registry, {**manifest_of(image), "MANIFESTS": []})),
           "INVALID_ARGUMENT", "INVALID_MANIFEST", "only in case")


def test_digests_that_are_paths(registry, image):
    path = "sha256:../../../../../../etc/passwd"
    layers = manifest_of(image)["layers"]
    bad_layer = manifest_of(image, layers=[{**layers[0], "digest": path}])
    failed(tool("resolve", push_json(registry, bad_layer)), "INVALID_ARGUMENT", "INVALID_DIGEST")
    bad_config = manifest_of(image, config={**manifest_of(image)["config"], "digest": path})
    failed(tool("resolve", push_json(registry, bad_config)), "INVALID_ARGUMENT", "INVALID_DIGEST")
    assert not any("passwd" in one.path for one in registry.requests)


def test_layers_and_diff_ids_differ_in_number(registry, image):
    layers = manifest_of(image)["layers"]
    registry.push("app", image)
    failed(tool("resolve", push_json(registry, manifest_of(image, layers=layers * 2))),
           "INVALID_ARGUMENT", "INVALID_MANIFEST", "2 layers, the configuration 1")


def test_a_web_page(registry):
    registry.push_manifest("app", "latest", b"<html>hello</html>", "text/html; charset=utf-8")
    failed(tool("resolve", f"{registry.host}/app"), "UNIMPLEMENTED", "UNSUPPORTED_MANIFEST",
           "text/html", "may not be a registry")


def test_foreign_layers(registry):
    config = b'{"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    registry.push_blob("app", config)
    document = {"schemaVersion": 2, "config": descriptor(config, DOCKER["config"]), "layers": [
        descriptor(b"x", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                   urls=["https://elsewhere.test/layer"])]}
    failed(tool("resolve", push_json(registry, document)), "UNIMPLEMENTED", "UNSUPPORTED_MANIFEST",
           "does not distribute")


def nested(image, depth):
    for _ in range(depth):
        image = images.index([image])
    return image


def test_nested_indexes(registry, image):
    assert tool("resolve", registry.push("app", nested(image, 2), "two"))["manifest_digest"] == \
        image.digest
    failed(tool("resolve", registry.push("app", nested(image, 3), "three")), "INVALID_ARGUMENT",
           "INVALID_MANIFEST", "nested more than 2 deep")


def test_index_with_attestations(registry, image):
    index = json.loads(images.index([image]).manifest)
    unknown = descriptor(b"{}", OCI["manifest"],
                         platform={"os": "unknown", "architecture": "unknown"})
    index["manifests"].insert(0, unknown)
    registry.push("app", image, "native")
    assert tool("resolve", push_json(registry, index, OCI["index"]))["manifest_digest"] == \
        image.digest


def test_index_that_lies_about_a_size(registry, image):
    index = json.loads(images.index([image]).manifest)
    index["manifests"][0]["size"] += 1
    registry.push("app", image, "native")
    failed(tool("resolve", push_json(registry, index, OCI["index"])), "DATA_LOSS",
           "DIGEST_MISMATCH", "what refers to it says")


def test_image_for_another_machine(registry):
    other = images.image([images.layer([images.file("a", "1")])], platform="linux/s390x")
    name = registry.push("app", other)
    failed(tool("resolve", name), "NOT_FOUND", "NO_MATCHING_PLATFORM", "--platform linux/s390x")
    assert tool("--platform", "s390x", "resolve", name)["architecture"] == "s390x"


# --- Blobs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault, offset, code, reason, fragment", [
    (Fault(short=10), 0, "UNAVAILABLE", "BLOB_TRUNCATED", "bytes of blob sha256:"),
    (Fault(short=10), 500, "UNAVAILABLE", "BLOB_TRUNCATED", "bytes of blob sha256:"),
    (Fault(chunked=True, short=10), 0, "UNAVAILABLE", "BLOB_TRUNCATED", "sent only"),
    (Fault(body=b"x" * 10, chunked=True), 0, "UNAVAILABLE", "BLOB_TRUNCATED", "sent only 10 of"),
    (Fault(body=b"", chunked=True), 0, "UNAVAILABLE", "BLOB_TRUNCATED", "sent only 0 of"),
    (Fault(long=10), 0, "FAILED_PRECONDITION", "REGISTRY_PROTOCOL", "its length is wrong"),
    (Fault(long=10), 500, "FAILED_PRECONDITION", "RANGE_BROKEN", "its length is wrong"),
    (Fault(chunked=True, long=10), 0, "FAILED_PRECONDITION", "REGISTRY_PROTOCOL", "longer than"),
    (Fault(chunked=True, long=10), 500, "FAILED_PRECONDITION", "REGISTRY_PROTOCOL", "longer than"),
    (Fault(content_length=5), 0, "FAILED_PRECONDITION", "REGISTRY_PROTOCOL", "length is wrong: 5"),
    (Fault(content_length=10 ** 30), 0, "FAILED_PRECONDITION", "REGISTRY_PROTOCOL", ""),
    (Fault(body=b""), 0, "FAILED_PRECONDITION", "REGISTRY_PROTOCOL", "length is wrong: 0"),
    (Fault(content_range="bytes 0-9/10"), 500, "FAILED_PRECONDITION", "RANGE_BROKEN",
     "another range"),
    (Fault(content_range="bytes 501-*/*"), 500, "FAILED_PRECONDITION", "RANGE_BROKEN",
     "another range"),
    (Fault(content_range="bytes 0-9/10"), 0, "FAILED_PRECONDITION", "REGISTRY_PROTOCOL", "a part"),
    (Fault(status=206), 500, "FAILED_PRECONDITION", "RANGE_BROKEN", "another range"),
    (Fault(status=416), 500, "FAILED_PRECONDITION", "RANGE_BROKEN", "ends before"),
    (Fault(status=204), 0, "FAILED_PRECONDITION", "REGISTRY_PROTOCOL", "status 204"),
    (Fault(headers={"Content-Encoding": "gzip"}), 0, "FAILED_PRECONDITION", "REGISTRY_PROTOCOL",
     "encoding"),
    (Fault(reset_after=100), 0, "UNAVAILABLE", "CONNECTION_FAILED", ""),
    (Fault(reset_after=100), 500, "UNAVAILABLE", "CONNECTION_FAILED", ""),
    (Fault(reset_after=-1), 0, "UNAVAILABLE", "CONNECTION_FAILED", ""),
    (Fault(stall_after=100), 0, "UNAVAILABLE", "STALLED", "stalled"),
    (Fault(stall_after=-1), 0, "UNAVAILABLE", "STALLED", "stalled"),
    (Fault(drip=(1, 0.1)), 0, "UNAVAILABLE", "TOO_SLOW", "too slow"),
    (Fault(status=404), 0, "NOT_FOUND", "BLOB_UNKNOWN", "not found"),
    (Fault(status=403), 0, "PERMISSION_DENIED", "DENIED", "pull access denied"),
    (Fault(status=401), 0, "UNAUTHENTICATED", "UNAUTHORIZED", ""),
    (Fault(status=503), 0, "UNAVAILABLE", "REGISTRY_BUSY", "answers 503"),
], ids=lambda value: repr(value)[:60] if isinstance(value, Fault) else None)
def test_blob_faults(registry, image, fault, offset, code, reason, fragment):
    name = registry.push("app", image)
    layer = image.layers[0]
    registry.fault("/blobs/", fault)
    stall = 1000 if fault.drip else 300  # a byte comes more often, but that is too slow
    failed(tool("--stall-ms", stall, "--connect-ms", 300, *blob(name, layer, offset)), code, reason,
           fragment)
    registry.clear_faults()
    assert tool(*blob(name, layer, offset)) == whole(layer, offset)


def test_slow_but_steady_blob(registry):
    data = b"0123456789" * 40
    digest = registry.push_blob("app", data)
    registry.fault("/blobs/", Fault(drip=(20, 0.05)))
    result = tool("--stall-ms", 300, "blob", f"{registry.host}/app", digest, len(data), 0)
    assert result == {"bytes": len(data), "sha256": digest}


def test_blob_by_a_server_that_knows_no_ranges(registry, image):
    name = registry.push("app", image)
    layer = image.layers[0]
    for fault in (Fault(ignore_range=True), Fault(ignore_range=True, chunked=True)):
        registry.clear_faults()
        registry.fault("/blobs/", fault)
        assert tool(*blob(name, layer, 150000)) == whole(layer, 150000)


def test_blob_of_unknown_total(registry, image):
    name = registry.push("app", image)
    layer = image.layers[0]
    end = len(layer.blob)
    registry.fault("/blobs/", Fault(content_range=f"bytes 10-{end - 1}/*", body=layer.blob[10:]))
    assert tool(*blob(name, layer, 10)) == whole(layer, 10)


def test_blob_without_anything_left(registry, image):
    name = registry.push("app", image)
    layer = image.layers[0]
    assert tool(*blob(name, layer, len(layer.blob)))["bytes"] == 0
    assert registry.requests == []


def test_slow_reader_holds_the_server_back(registry):
    data = images.payload(64 << 20, 1, 0)
    digest = registry.push_blob("app", data)
    running = Running("slow", f"{registry.host}/app", digest, len(data))
    assert running.line() == {"waiting": True}
    request = registry.matching("GET", "/blobs/")[0]
    before = -1
    while request.sent != before:  # until the kernel's buffers are full
        before = request.sent
        time.sleep(0.1)
    assert before < len(data) / 2
    with open(f"/proc/{running.process.pid}/status") as status:
        private = int(re.search(r"RssAnon:\s+(\d+)", status.read())[1])
    if not subprocess.run(["grep", "-q", "__asan_init", TOOL], check=False).returncode == 0:
        assert private < 8192
    running.send_line()
    assert running.finish() == [{"bytes": len(data), "sha256": digest}]


# --- Cancel --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command, fault", [
    *itertools.product(["resolve", "blob"], [Fault(stall_after=-1), Fault(stall_after=100)]),
    ("resolve", Fault(status=503, headers={"Retry-After": "30"})),
])
def test_cancel(registry, image, command, fault):
    name = registry.push("app", image)
    registry.fault("/manifests/|/blobs/", fault)
    arguments = ("resolve", name) if command == "resolve" else blob(name, image.layers[0])
    running = Running("--cancel", *arguments)
    if fault.status:
        registry.wait_for(lambda: any(one.finished for one in registry.matching("GET", "/v2/app")))
    else:
        registry.wait_stalled()
    started = time.monotonic()
    running.send_line()
    failed(running.finish()[0], "CANCELLED", None)
    assert time.monotonic() - started < 20
    registry.release()


def test_cancel_while_a_name_is_looked_up():
    running = Running("--cancel", "resolve", "hang.test/a")
    time.sleep(0.2)  # a lookup that has begun cannot be seen from here; before it is as well
    running.send_line()
    failed(running.finish()[0], "CANCELLED", None)


# --- Mirrors of docker.io ------------------------------------------------------------------------


def test_mirror(make_registry, image):
    mirror = make_registry()
    mirror.push("library/app", image)
    layer = image.layers[0]
    resolved, data = tool(*LOGIN, "--mirror", mirror.url, "resolve", "app", *blob("app", layer))
    assert resolved["digest"] == image.digest and data == whole(layer)
    assert {one.authorization for one in mirror.requests} == {None}


def test_mirror_that_wants_credentials_gets_none(make_registry, image):
    first, second = make_registry(), make_registry()
    for one in (first, second):
        one.push("library/app", image)
    first.require_basic("user", SECRET)
    result = tool(*LOGIN, "--mirror", first.url, "--mirror", second.url, "resolve", "app")
    assert result["digest"] == image.digest
    assert {one.authorization for one in first.requests} == {None}


@pytest.mark.parametrize("fault", [Fault(status=404), Fault(status=500), Fault(reset_after=-1),
                                   Fault(body=b"{}"), Fault(wrong_bytes=True)])
def test_mirror_that_fails(make_registry, image, fault):
    first, second = make_registry(), make_registry()
    for one in (first, second):
        one.push("library/app", image)
    first.fault("/v2/", fault)
    layer = image.layers[0]
    resolved, data = tool("--mirror", first.url, "--mirror", second.url, "resolve",
                          "app@" + image.digest, *blob("app", layer))
    assert resolved["digest"] == image.digest
    if not fault.wrong_bytes:  # of a blob's bytes, the reader knows
        assert data == whole(layer)


def test_mirror_that_breaks_off_is_left_out(make_registry, image):
    first, second = make_registry(), make_registry()
    for one in (first, second):
        one.push("library/app", image)
    layer = image.layers[0]
    first.fault("/blobs/", Fault(short=10))
    broken, rest = tool("--mirror", first.url, "--mirror", second.url, *blob("app", layer),
                        *blob("app", layer, 100))
    failed(broken, "UNAVAILABLE", "BLOB_TRUNCATED")
    assert rest == whole(layer, 100)
    assert first.count("GET", "/blobs/") == 1 and second.count("GET", "/blobs/") == 1


def test_no_mirror_has_it(make_registry):
    mirror = make_registry()
    proxy = {"HTTPS_PROXY": "http://127.0.0.1:1"}  # so that docker.io is asked, but not reached
    failed(tool("--mirror", mirror.url, "resolve", "app", env=proxy), "UNAVAILABLE",
           "CONNECTION_FAILED", "registry-1.docker.io:443")
    assert mirror.count("GET", "/v2/library/app/manifests/latest") == 1


def test_mirrors_are_for_docker_io_only(make_registry, image):
    mirror, registry = make_registry(), make_registry()
    name = registry.push("app", image)
    assert tool("--mirror", mirror.url, "resolve", name)["digest"] == image.digest
    assert mirror.requests == []
