"""Mirrors of any registry: from daemon.json, and from files as containerd has them (hosts.toml).

The registry itself, `main`, wants a password; mirrors have the same content and want none. All are
real registries behind proxies that tell who was asked for what, and with which credentials.
"""

import base64
import json
import signal
import subprocess

import images
import pytest
from conftest import Davit
from fault_proxy import FaultProxy
from fault_registry import Fault

PASSWORD = "main-password"
SETTINGS = {"retry-backoff": "50ms", "stall-timeout": "5s", "low-speed-time": "2s"}


@pytest.fixture(scope="module")
def content(module_registry):
    """A registry of all content without guard."""
    return module_registry()


@pytest.fixture(scope="module")
def guarded(module_registry, content):
    return module_registry(htpasswd={"user": PASSWORD}, content_of=content)


@pytest.fixture
def place(content):
    """place(upstream=content): a proxy that stands for a mirror or the registry itself."""
    made = []

    def make(upstream=content, **options):
        made.append(FaultProxy(upstream, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


class World:
    """A registry with mirrors and a daemon that knows of them."""

    def __init__(self, make_davitd, place, guarded, scratch):
        self.make_davitd, self.place, self.scratch = make_davitd, place, scratch
        self.main = place(guarded)
        self.hosts = scratch / "hosts.d"
        self.hosts.mkdir()
        self.mirrors = []
        self.daemon = self.davit = None

    def add(self, **options):
        self.mirrors.append(self.place(**options))
        return self.mirrors[-1]

    def start(self, **config):
        self.daemon = self.make_davitd(config={**SETTINGS, "hosts-dirs": [str(self.hosts)],
                                               **config})
        self.davit = Davit(self.daemon)
        auth = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
        directory = self.daemon.home / ".docker"
        directory.mkdir(exist_ok=True)
        (directory / "config.json").write_text(
            json.dumps({"auths": {self.main.host: {"auth": auth}}}))

    def write(self, text, host=None):
        """hosts.toml of the host, else of the main registry's."""
        directory = self.hosts / (host or self.main.host)
        directory.mkdir(exist_ok=True)
        (directory / "hosts.toml").write_text(text)

    def pull(self, image, repository="team/app", check=True):
        self.mirrors[0].upstream.push(repository, image)
        return self.davit("pull", "-q", f"{self.main.host}/{repository}", check=check)

    def who(self, image):
        """Where each digest's bytes came from: {layer: [index of the mirror, or "main"]}."""
        places = [*enumerate(self.mirrors), ("main", self.main)]
        return [[name for name, one in places if one.bytes_sent(layer.digest)]
                for layer in image.layers]

    def no_secrets(self):
        for mirror in self.mirrors:
            for one in mirror.requests:
                assert one.authorization is None, one
                assert PASSWORD not in str(one.headers)


@pytest.fixture
def world(make_davitd, place, guarded, scratch):
    one = World(make_davitd, place, guarded, scratch)
    yield one
    one.no_secrets()


def some_image(name, size=300_000):
    return images.image([images.random_layer(name, size)])


def hosts_toml(world, more="", server=None):
    """The mirrors in their order, all of which can do everything."""
    lines = [f'server = "{server or world.main.url}"']
    for mirror in world.mirrors:
        lines.append(f'[host."{mirror.url}"]\n  capabilities = ["pull", "resolve"]\n{more}')
    return "\n".join(lines)


# --- hosts.toml ----------------------------------------------------------------------------------


def test_mirrors_are_asked_in_their_order(world):
    world.add(), world.add()
    world.write(hosts_toml(world))
    world.start()
    image = some_image("order")
    world.pull(image)
    assert world.who(image) == [[0]]
    assert not world.mirrors[1].requests
    assert not world.main.requests


def test_the_file_is_read_anew_for_each_pull(world):
    world.add(), world.add()
    world.write(hosts_toml(world))
    world.start()
    world.pull(some_image("anew"))
    world.mirrors.reverse()
    world.write(hosts_toml(world))
    image = some_image("anew again")
    world.pull(image)
    assert world.who(image) == [[0]]


def test_default_is_for_registries_without_a_file(world):
    world.add()
    world.write("\n".join(hosts_toml(world).splitlines()[1:]), "_default")
    world.start()
    image = some_image("default")
    world.pull(image)
    assert world.who(image) == [[0]]


def test_a_mirror_that_may_not_resolve_is_not_asked_for_tags(world):
    first, second = world.add(), world.add()
    world.write(f'server = "{world.main.url}"\n'
                f'[host."{first.url}"]\ncapabilities = ["pull"]\n'
                f'[host."{second.url}"]\ncapabilities = ["pull", "resolve"]\n')
    world.start()
    image = some_image("resolve")
    world.pull(image)
    assert not first.matching("GET", "/manifests/latest")
    assert second.matching("GET", "/manifests/latest")
    assert world.who(image) == [[0]]


def test_a_mirror_that_may_only_resolve_gives_no_layers(world):
    first = world.add()
    world.write(f'server = "{world.main.url}"\n[host."{first.url}"]\ncapabilities = ["resolve"]\n')
    world.start()
    image = some_image("only-resolve")
    world.pull(image)
    assert first.matching("GET", "/manifests/latest")
    assert world.who(image) == [["main"]]


def test_override_path_rewrites_where_things_are(world, content):
    first = world.add()
    world.write(f'server = "{world.main.url}"\n[host."{first.url}/v2/cache/of/main"]\n'
                'capabilities = ["pull", "resolve"]\noverride_path = true\n')
    world.start()
    image = some_image("override")
    content.push("cache/of/main/team/app", image)
    world.davit("pull", "-q", f"{world.main.host}/team/app")
    assert world.who(image) == [[0]]
    assert {one.path.split("/team/app/")[0] for one in first.requests} <= \
        {"/v2/cache/of/main", "/v2/", "/v2/cache/of/main/"}


def test_a_path_before_v2(world, module_registry, content, place):
    below = module_registry(content_of=content, prefix="/cache/")
    world.mirrors.append(place(below))
    content.push("team/app", some_image("prefix"))
    world.write(f'[host."{world.mirrors[0].url}/cache"]\ncapabilities = ["pull", "resolve"]\n')
    world.start()
    image = some_image("prefix")
    world.davit("pull", "-q", f"{world.main.host}/team/app")
    assert world.who(image) == [[0]]
    assert world.mirrors[0].matching("GET", "/cache/v2/team/app/manifests/latest")


def test_headers_go_to_their_mirror_only(world):
    world.add()
    world.write(hosts_toml(world, f'[host."{world.mirrors[0].url}".header]\n'
                                  'X-Who = "davit"\nX-More = ["a", "b"]\n'))
    world.start()
    world.mirrors[0].fault("/blobs/", Fault(status=404))
    image = some_image("header")
    world.pull(image)
    assert {one.headers.get("x-who") for one in world.mirrors[0].requests} == {"davit"}
    assert not [one for one in world.main.requests if "x-who" in one.headers]


def test_certificates_of_mirrors(world, module_registry, content):
    secure = module_registry(tls=True, content_of=content)
    world.add()
    base = (f'server = "{world.main.url}"\n[host."{secure.url}"]\n'
            'capabilities = ["pull", "resolve"]\n')
    world.start()
    for number, line in enumerate((f'ca = "{secure.cafile}"', "skip_verify = true",
                                   f'ca = ["{secure.cafile}"]')):
        world.write(base + line + "\n")
        image = some_image(f"certificate{number}")
        world.pull(image)
        assert secure.asked(image.layers[0].digest), line
    # Nobody vouches for it: the registry itself is asked instead.
    world.write(base)
    image = some_image("untrusted")
    world.pull(image)
    assert not secure.asked(image.layers[0].digest)
    assert world.who(image) == [["main"]]


def test_certificates_of_ours(world, place, module_registry, content):
    secure = module_registry(tls=True, content_of=content)
    root = secure.root
    wanting = place(tls=(root / "server.crt", root / "server.key"))
    wanting.require_client_certificates(secure.cafile)
    for command in (
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout client.key -out client.csr "
        "-subj /CN=client",
        "x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out client.crt -days 2",
    ):
        subprocess.run(["openssl", *command.split()], cwd=root, check=True, capture_output=True)
    world.mirrors.append(wanting)
    world.write(f'server = "{world.main.url}"\n[host."{wanting.url}"]\n'
                f'capabilities = ["pull", "resolve"]\nca = "{secure.cafile}"\n'
                f'client = [["{root}/client.crt", "{root}/client.key"]]\n')
    world.start()
    image = some_image("client-certificate")
    content.push("team/app", image)
    world.davit("pull", "-q", f"{world.main.host}/team/app")
    assert world.who(image) == [[0]]


@pytest.mark.parametrize("text, wanted", [
    ("server = ", "line 1|:1"),
    ('[host."ftp://mirror"]\n', "ftp"),
    ('[host."http://127.0.0.1:1"]\ncapabilities = ["fly"]\n', ":2: .*pull"),
    ("[[[", "line 1|:1"),
], ids=["cut", "scheme", "capability", "brackets"])
def test_a_file_that_makes_no_sense_is_named(world, text, wanted):
    import re
    world.add()
    world.write(text)
    world.start()
    failed = world.pull(some_image("broken-file"), check=False)
    assert failed.code == 1
    assert str(world.hosts / world.main.host / "hosts.toml") in failed.stderr
    assert re.search(wanted, failed.stderr), failed.stderr


# --- Failover ------------------------------------------------------------------------------------

FAILURES = {
    "not there": lambda mirror: mirror.stop(),
    "404": lambda mirror: mirror.fault("", Fault(status=404), method="*"),
    "503": lambda mirror: mirror.fault("", Fault(status=503), method="*"),
    "429": lambda mirror: mirror.fault("", Fault(status=429, headers={"Retry-After": "3600"}),
                                       method="*"),
    "401": lambda mirror: mirror.fault("", Fault(status=401, headers={
        "WWW-Authenticate": 'Basic realm="give me your password"'}), method="*"),
    "401 Bearer": lambda mirror: mirror.fault("/v2/", Fault(status=401, headers={
        "WWW-Authenticate": f'Bearer realm="{mirror.url}/token",service="x"'}), method="*"),
    "reset": lambda mirror: mirror.fault("", Fault(reset_after=-1), method="*"),
    "wrong bytes": lambda mirror: mirror.fault("/blobs/", Fault(wrong_byte=100)),
    "layers missing": lambda mirror: mirror.fault("/blobs/", Fault(status=404)),
    "a redirect to nowhere": lambda mirror: mirror.fault("", Fault(
        redirect="http://127.0.0.1:1{path}"), method="*"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_a_mirror_does_not_give_the_next_one_does(world, failure):
    world.add(), world.add()
    world.write(hosts_toml(world))
    world.start()
    image = some_image(failure)
    FAILURES[failure](world.mirrors[0])
    world.pull(image)
    assert world.who(image)[0][-1] == 1
    assert not world.main.requests


def test_the_registry_itself_is_the_last_to_be_asked_and_the_only_one_with_credentials(world):
    world.add(), world.add()
    world.write(hosts_toml(world))
    world.start()
    for mirror in world.mirrors:
        mirror.fault("/blobs/", Fault(status=401, headers={
            "WWW-Authenticate": 'Basic realm="tests"'}))
    image = some_image("last")
    world.pull(image)
    assert world.who(image)[0][-1] == "main"
    assert any((one.authorization or "").startswith("Basic ") for one in world.main.requests)


def test_a_mirror_that_failed_is_asked_later_the_next_time(world):
    world.add(), world.add()
    world.write(hosts_toml(world))
    world.start()
    world.mirrors[0].fault("", Fault(status=503), method="*")
    world.pull(some_image("unhealthy"))
    before = len(world.mirrors[0].requests)
    image = some_image("unhealthy again")
    world.pull(image, "team/other")
    assert len(world.mirrors[0].requests) == before
    assert world.who(image) == [[1]]


# --- daemon.json ---------------------------------------------------------------------------------


def test_mirrors_of_daemon_json(world):
    world.add()
    world.start(mirrors={world.main.host: [world.mirrors[0].url]})
    image = some_image("daemon-json")
    world.pull(image)
    assert world.who(image) == [[0]]


def test_registry_mirrors_are_for_docker_hub_as_in_docker(world, content):
    world.add()
    world.start(**{"registry-mirrors": [world.mirrors[0].url]})
    image = some_image("hub")
    content.push("library/hub-app", image)
    world.davit("pull", "-q", "hub-app")
    assert world.who(image) == [[0]]


def configure(world, **config):
    path = world.daemon.root / "daemon.json"
    path.write_text(json.dumps({**SETTINGS, "hosts-dirs": [str(world.hosts)], **config}))


def test_sighup_reads_the_mirrors_again(world, wait_until):
    first, second = world.add(), world.add()
    world.start(mirrors={world.main.host: [first.url]})
    running_image, image = some_image("running", 3_000_000), some_image("after")
    first.upstream.push("team/running", running_image)
    first.fault(running_image.layers[0].digest, Fault(stall_after=1_000_000), times=1)
    running = world.davit.start("pull", "-q", f"{world.main.host}/team/running", text=True)
    first.wait_stalled()
    configure(world, mirrors={world.main.host: [second.url]})
    world.daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "reload" in world.daemon.log(), "the reload")
    world.pull(image)
    assert world.who(image) == [[1]]
    # What runs keeps its sources.
    first.release()
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
    assert world.who(running_image) == [[0]]


def test_sighup_with_a_broken_file_changes_nothing(world, wait_until):
    first = world.add()
    world.start(mirrors={world.main.host: [first.url]})
    (world.daemon.root / "daemon.json").write_text("{")
    world.daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "daemon.json" in world.daemon.log(), "a complaint")
    image = some_image("as-before")
    world.pull(image)
    assert world.who(image) == [[0]]
