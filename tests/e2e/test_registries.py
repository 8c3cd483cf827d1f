"""The whole way of an image, from login to push, with each kind of real registry: plain, with TLS,
with a password file, with a token server. A proxy in front breaks what it is told to, and lets a
push go to an empty registry under the name that the image was pulled by."""

import json
import stat
from types import SimpleNamespace

import images
import pytest
from conftest import Davit
from fault_proxy import FaultProxy
from fault_registry import Fault
from token_server import TokenServer

USER, PASSWORD = "somebody", "a-password-that-is-seen-nowhere"
KINDS = ("plain", "TLS", "htpasswd", "token")


@pytest.fixture(params=KINDS)
def world(request, make_registry, make_davitd, scratch):
    """registry, an empty one of the same kind, a proxy before the first, and a davit."""
    kind, options, proxied, environment, tokens = request.param, {}, {}, {}, None
    if kind == "htpasswd":
        options = {"htpasswd": {USER: PASSWORD}}
    elif kind == "token":
        # "*" is what listing the catalogue takes.
        tokens = TokenServer(scratch, {USER: (PASSWORD, {"pull", "push", "*"})})
        options = {"token_server": tokens}
    elif kind == "TLS":
        options = {"tls": True}
    registry, empty = make_registry(**options), make_registry(**options)
    if kind == "TLS":
        proxied = {"tls": (registry.root / "server.crt", registry.root / "server.key")}
        environment = {"SSL_CERT_FILE": registry.cafile}
    front = FaultProxy(registry, **proxied)
    daemon = make_davitd(config={"retry-backoff": "50ms", "keep-compressed": True},
                         environment=environment)
    yield SimpleNamespace(kind=kind, guarded=kind in ("htpasswd", "token"), registry=registry,
                          empty=empty, front=front, daemon=daemon, davit=Davit(daemon),
                          config=daemon.home / ".docker" / "config.json")
    front.stop()
    if tokens:
        tokens.stop()


def log_in(world, password, check=True):
    return world.davit("login", "-u", USER, "--password-stdin", world.front.host, input=password,
                       check=check)


def refused(world, name):
    failed = world.davit("pull", name, check=False)
    assert failed.code == 1 and "davit login" in failed.stderr, failed


def test_from_login_to_push(world):
    davit, front = world.davit, world.front
    image = images.image([images.random_layer("first", 500_000),
                          images.random_layer("second", 3_000_000)])
    name = front.name(world.registry.push("team/app", image))
    world.registry.push("team/app", image, "other")

    if world.guarded:
        refused(world, name)
        failed = log_in(world, "wrong", check=False)
        assert failed.code == 1 and not world.config.exists(), failed
        log_in(world, PASSWORD)
        assert stat.S_IMODE(world.config.stat().st_mode) == 0o600
        assert list(json.loads(world.config.read_text())["auths"]) == [front.host]

    front.fault(image.layers[1].digest, Fault(reset_after=2_000_000, drip=(32 << 10, 0.001)),
                times=1)
    davit("pull", "-q", name)
    assert front.bytes_sent(image.layers[1].digest) < 4_000_000
    assert davit("images", "-q", "--no-trunc").stdout.split() == [image.id]
    shown = json.loads(davit("manifest", "inspect", name).stdout)
    assert shown["config"]["digest"] == image.id
    assert f"{front.host}/team/app" in davit("search", f"{front.host}/app").stdout
    davit("pull", "-a", "-q", f"{front.host}/team/app")
    assert "other" in davit("images", f"{front.host}/team/app").stdout

    front.upstream = world.empty
    davit("push", name)
    assert davit("manifest", "inspect", name).stdout
    pushed = world.empty.blob_path(image.digest)
    assert pushed.read_bytes() == image.manifest
    front.forget()
    davit("push", name)
    assert not [one for one in front.requests if "/uploads/" in one.path]
    davit("rmi", name, f"{front.host}/team/app:other")
    davit("pull", "-q", name)
    assert davit("images", "-q", "--no-trunc").stdout.split() == [image.id]

    if world.guarded:
        davit("logout", front.host)
        davit("rmi", name)
        refused(world, name)
    assert PASSWORD not in world.daemon.log()


def test_layers_are_not_fetched_in_the_clear_where_tls_was_asked_for(make_registry, make_davitd):
    registry = make_registry(tls=True)
    clear = make_registry(content_of=registry)
    front = FaultProxy(registry, tls=(registry.root / "server.crt", registry.root / "server.key"))
    davit = Davit(make_davitd(environment={"SSL_CERT_FILE": registry.cafile}))
    image = images.image([images.random_layer("secret", 10_000)])
    name = front.name(registry.push("team/app", image))
    front.fault("/blobs/", Fault(redirect=clear.url + "{path}"))
    failed = davit("pull", name, check=False)
    assert failed.code == 1 and "HTTPS to plain HTTP" in failed.stderr, failed
    assert not clear.requests()
    front.clear_faults()
    davit("pull", "-q", name)
    front.stop()


def test_who_may_only_pull_is_told_so_at_a_push(make_registry, make_davitd, scratch):
    tokens = TokenServer(scratch, {USER: (PASSWORD, {"pull"})})
    registry = make_registry(token_server=tokens)
    davit = Davit(make_davitd())
    name = registry.push("team/app", images.image([images.random_layer("only", 10_000)]))
    davit("login", "-u", USER, "--password-stdin", registry.host, input=PASSWORD)
    davit("pull", "-q", name)
    before = len(registry.requests())
    failed = davit("push", name, check=False)
    assert failed.code == 1 and "denied" in failed.stderr.lower(), failed
    assert not [one for one in registry.requests()[before:] if one[2] == 201]
    tokens.stop()
