"""`davit search` by Docker Hub's protocol and through catalogues, and `davit manifest inspect`."""

import base64
import json
import re

import images
import pytest

from conftest import Davit
from fault_registry import Fault, FaultRegistry

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
RESULTS = [
    {"name": "busybox", "description": "Busybox base image.", "star_count": 3300,
     "is_official": True, "is_automated": False},
    {"name": "user/x", "description": "first\nsecond \x1b[31m red \u009b31m", "star_count": 12,
     "is_official": False, "is_automated": True},
    {"name": "user/ünï", "description": "äöü ünï cödé description that is longer than forty-five",
     "star_count": 0, "is_official": False, "is_automated": False},
]


def answer(results):
    body = json.dumps({"num_results": len(results), "results": results})
    return Fault(status=200, headers={"Content-Type": "application/json"}, body=body.encode())


class Hub:
    """index.docker.io, as a proxy shows it to the daemon."""

    def __init__(self, make_davitd, certificate):
        self.server = FaultRegistry(tls=certificate)
        self.server.fault(r"^/v1/search", answer(RESULTS))
        self.proxy = FaultRegistry()
        self.proxy.tunnel_to = ("127.0.0.1", self.server.port)
        self.davit = Davit(make_davitd("--insecure-registry", "index.docker.io",
                                       environment={"HTTPS_PROXY": self.proxy.url}))

    def stop(self):
        self.server.stop()
        self.proxy.stop()


@pytest.fixture
def hub(make_davitd, make_registry):
    # Only for its certificate.
    registry = make_registry(tls=True)
    made = Hub(make_davitd, (f"{registry.root}/server.crt", f"{registry.root}/server.key"))
    yield made
    made.stop()


# --- Docker Hub ----------------------------------------------------------------------------------


def test_search(hub):
    assert hub.davit("search", "busy box&n=1").stdout == (
        "NAME       DESCRIPTION                                     STARS     OFFICIAL\n"
        "busybox    Busybox base image.                             3300      [OK]\n"
        "user/x     first second \\u001b[31m red \\u009b31m           12        \n"
        "user/ünï   äöü ünï cödé description that is longer than…   0         \n")
    assert [one.path for one in hub.server.requests] == ["/v1/search?q=busy%20box%26n%3D1&n=25"]
    assert {one.path for one in hub.proxy.requests} == {"index.docker.io:443"}
    assert hub.server.requests[0].authorization is None


def test_search_untruncated_and_formatted(hub):
    whole = hub.davit("search", "--no-trunc", "x").stdout
    assert "description that is longer than forty-five   0" in whole
    assert not CONTROL.search(whole)
    table = hub.davit("search", "--format", r"table {{.Name}}\t{{.IsOfficial}}", "x").stdout
    assert table.splitlines()[:2] == ["NAME       OFFICIAL", "busybox    [OK]"]
    lines = hub.davit("search", "--format", "{{.Name | upper}} {{.StarCount}} {{.IsOfficial}}",
                      "x").stdout.splitlines()
    assert lines[:2] == ["BUSYBOX 3300 true", "USER/X 12 false"]
    rows = [json.loads(line) for line in
            hub.davit("search", "--format", "json", "x").stdout.splitlines()]
    assert rows[1]["Description"] == "first second \x1b[31m red \u009b31m"
    assert rows[0] == {"Name": "busybox", "Description": "Busybox base image.",
                       "StarCount": "3300", "IsOfficial": "true", "IsAutomated": "false"}
    assert not CONTROL.search(hub.davit("search", "--format", "json", "x").stdout)
    wrong = hub.davit("search", "--format", "{{.Nope}}", "x", check=False)
    assert wrong.code == 1
    assert wrong.stderr.startswith("template parsing error: ")


@pytest.mark.parametrize("filters, names", [
    (["stars=12"], ["busybox", "user/x"]), (["is-official=true"], ["busybox"]),
    (["is-official=false"], ["user/x", "user/ünï"]), (["is-automated=true"], ["user/x"]),
    (["is-official=false", "stars=1"], ["user/x"])])
def test_search_filters(hub, filters, names):
    arguments = [word for one in filters for word in ("--filter", one)]
    assert hub.davit("search", "--format", "{{.Name}}", *arguments, "x").stdout.split() == names


@pytest.mark.parametrize("arguments, code, message", [
    (["--filter", "stars=x"], 1, "invalid filter 'stars=x'\n"),
    (["--filter", "is-official=maybe"], 1, "invalid filter 'is-official=maybe'\n"),
    (["--filter", "foo=x"], 1, "invalid filter 'foo'\n"),
    (["--filter", "foo"], 125, 'invalid argument "foo" for "-f, --filter" flag: bad format of '
     "filter (expected name=value)\n"),
    (["--limit", "101"], 1, "limit 101 is outside the range of [1, 100]\n"),
    (["--limit", "x"], 125, 'invalid argument "x" for "--limit" flag: strconv.ParseInt: parsing '
     '"x": invalid syntax\n')])
def test_search_refuses(davit, arguments, code, message):
    result = davit("search", *arguments, "x", check=False)
    assert result.code == code
    assert result.stderr.startswith(message)


def test_search_limit(hub):
    assert len(hub.davit("search", "--limit", "2", "x").stdout.splitlines()) == 3
    assert hub.server.requests[-1].path.endswith("&n=2")


def test_search_with_credentials(hub):
    path = hub.davit.daemon.home / ".docker"
    path.mkdir()
    auth = base64.b64encode(b"user:secret").decode()
    (path / "config.json").write_text(
        json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": auth}}}))
    hub.davit("search", "x")
    assert hub.server.requests[-1].authorization == f"Basic {auth}"
    assert "secret" not in hub.davit.daemon.log()


@pytest.mark.parametrize("fault, message", [
    (Fault(status=200, body=b"[]"), "answers a search with something else"),
    (Fault(status=200, body=b"<html>"), "answers a search with something else"),
    (Fault(status=403, body=b"no"), "search at https://index.docker.io: status 403"),
    (Fault(status=200, body=b"x" * (5 << 20)), "")])
def test_search_of_a_server_that_makes_no_sense(hub, fault, message):
    hub.server.rules.clear()
    hub.server.fault(r"^/v1/search", fault)
    result = hub.davit("search", "x", check=False)
    assert result.code == 1
    assert message in result.stderr


# --- Catalogues ----------------------------------------------------------------------------------


def names_of(result):
    return [line.split()[0] for line in result.stdout.splitlines()[1:]]


def test_search_in_a_catalogue(davit, make_registry):
    registry = make_registry(htpasswd={"user": "secret"})
    image = images.busybox_image()
    for name in ("alpha/app", "beta/App-two", "beta/other"):
        registry.push(name.lower(), image)
    refused = davit("search", f"{registry.host}/app", check=False)
    assert refused.code == 1
    assert f"the catalogue of {registry.host}" in refused.stderr
    davit("login", "-u", "user", "--password-stdin", registry.host, input="secret")
    assert names_of(davit("search", f"{registry.host}/APP")) == [
        f"{registry.host}/alpha/app", f"{registry.host}/beta/app-two"]
    assert len(names_of(davit("search", f"{registry.host}/"))) == 3
    assert names_of(davit("search", "--filter", "stars=1", f"{registry.host}/app")) == []


def page(names, following=None, key="repositories"):
    headers = {"Link": f'</v2/_catalog?n=1>; rel="first", <{following}>; rel="next"'}
    headers = headers if following else {"Link": '</v2/_catalog?n=1>; rel="first"'}
    return Fault(status=200, headers=headers, body=json.dumps({key: names}).encode())


def test_search_in_a_catalogue_of_pages(davit):
    with FaultRegistry() as registry:
        registry.fault(r"_catalog\?n=", page([f"app{i}" for i in range(20)],
                                             "/v2/_catalog?last=app19"))
        registry.fault(r"last=app19", page([f"app{i}" for i in range(20, 40)],
                                           f"{registry.url}/v2/_catalog?last=app39"))
        registry.fault(r"last=app39", page(None))
        assert names_of(davit("search", "--limit", "100", f"{registry.host}/app")) == [
            f"{registry.host}/app{i}" for i in range(40)]
        # No more pages than are needed.
        before = len(registry.requests)
        assert len(names_of(davit("search", f"{registry.host}/app1"))) == 11
        assert len(names_of(davit("search", "--limit", "1", f"{registry.host}/app"))) == 1
        assert sum("last=" in one.path for one in registry.requests[before:]) == 2


def test_a_catalogue_that_leads_elsewhere_or_in_circles(davit):
    with FaultRegistry() as elsewhere, FaultRegistry() as registry:
        registry.fault(r"_catalog\?n=", page(["a"], elsewhere.url + "/other"))
        result = davit("search", f"{registry.host}/x", check=False)
        assert result.code == 1
        assert "the link to the next page of a list makes no sense" in result.stderr
        assert elsewhere.requests == []
        registry.rules.clear()
        registry.fault(r"_catalog", page(["a"], "/v2/_catalog?last=a"))
        result = davit("search", f"{registry.host}/x", check=False)
        assert result.code == 1
        assert "the link to the next page of a list leads to the same page" in result.stderr


def test_a_registry_without_a_catalogue_may_know_the_search_protocol(davit):
    with FaultRegistry() as registry:
        registry.fault(r"^/v1/search", answer(RESULTS[:1]))
        assert names_of(davit("search", f"{registry.host}/x")) == ["busybox"]


# --- Manifests -----------------------------------------------------------------------------------

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def test_manifest_of_an_image(davit, registry):
    image = images.busybox_image()
    name = registry.push("manifest/image", image)
    result = davit("manifest", "inspect", name)
    # As Go indents the registry's own bytes.
    assert result.stdout == json.dumps(json.loads(image.manifest), indent="\t") + "\n"
    verbose = json.loads(davit("manifest", "inspect", "-v", name).stdout)
    assert verbose == {
        "Ref": name,
        "Descriptor": {"mediaType": image.media_type, "digest": image.digest,
                       "size": len(image.manifest),
                       "platform": {"architecture": images.native_platform().split("/")[1],
                                    "os": "linux"}},
        "Raw": base64.b64encode(image.manifest).decode(),
        "SchemaV2Manifest": json.loads(image.manifest)}
    by_digest = f"{name.rsplit(':', 1)[0]}@{image.digest}"
    assert davit("manifest", "inspect", by_digest).stdout == result.stdout


@pytest.mark.parametrize("schema, media_type, key", [
    (images.DOCKER, DOCKER_LIST, "SchemaV2Manifest"), (images.OCI, OCI_INDEX, "OCIManifest")])
def test_manifest_of_a_list(davit, registry, schema, media_type, key):
    parts = [images.busybox_image(schema=schema),
             images.busybox_image(schema=schema, platform="linux/arm/v7")]
    index = images.index(parts, schema=schema)
    name = registry.push(f"manifest/list-{key.lower()}", index)
    shown = davit("manifest", "inspect", name).stdout
    assert shown.startswith('{\n   "schemaVersion": 2,\n   "mediaType": "' + media_type)
    entries = json.loads(shown)["manifests"]
    assert [(one["digest"], one["size"]) for one in entries] == [
        (one.digest, len(one.manifest)) for one in parts]
    assert entries[1]["platform"] == {"architecture": "arm", "os": "linux", "variant": "v7"}
    verbose = json.loads(davit("manifest", "inspect", "--verbose", name).stdout)
    assert [one["Ref"] for one in verbose] == [f"{name}@{one.digest}" for one in parts]
    assert [one[key] for one in verbose] == [json.loads(one.manifest) for one in parts]
    assert verbose[1]["Descriptor"]["platform"]["variant"] == "v7"


def test_manifest_that_is_not_there(davit, registry):
    result = davit("manifest", "inspect", f"{registry.host}/nothing/here", check=False)
    assert result.code == 1
    assert result.stderr.startswith(f"no such manifest: {registry.host}/nothing/here:latest\n")


def test_manifest_of_an_insecure_registry(davit, make_registry):
    registry = make_registry(tls=True)
    name = registry.push("team/app", images.busybox_image())
    # Loopback may be plain HTTP, but not a certificate of one's own.
    refused = davit("manifest", "inspect", name, check=False)
    assert refused.code == 1 and "certificate" in refused.stderr
    assert json.loads(davit("manifest", "inspect", "--insecure", name).stdout)["layers"]


def test_a_manifest_cannot_steer_the_terminal(davit):
    with FaultRegistry() as registry:
        data = {"schemaVersion": 2, "config": {"digest": "sha256:" + "0" * 64}, "layers": [],
                "annotations": {"a": "\u009b31m\x7f", "b": "\x1b]0;title\x07"}}
        raw = json.dumps(data, ensure_ascii=False).encode()
        name = registry.push_manifest("team/app", "latest", raw,
                                      "application/vnd.oci.image.manifest.v1+json")
        shown = davit("manifest", "inspect", name).stdout
        assert json.loads(shown) == data
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)


@pytest.mark.parametrize("fault", [Fault(wrong_bytes=True), Fault(status=200, body=b"{}"),
                                   Fault(status=200, body=b'{"config":{},"manifests":[]}')])
def test_a_manifest_that_makes_no_sense(davit, fault):
    with FaultRegistry() as registry:
        name = registry.push("team/app", images.busybox_image())
        registry.fault(r"/manifests/", fault)
        result = davit("manifest", "inspect", name, check=False)
        assert (result.code, result.stdout) == (1, "")
        assert result.stderr.startswith("Error response from daemon: ")


def test_another_manifest_than_was_asked_for(davit):
    with FaultRegistry() as registry:
        wanted, other = images.busybox_image(), images.busybox_image(created="2025-01-01T00:00:00Z")
        registry.push("team/app", wanted)
        registry.push_manifest("team/app", wanted.digest, other.manifest, other.media_type)
        result = davit("manifest", "inspect", f"{registry.host}/team/app@{wanted.digest}",
                       check=False)
        assert (result.code, result.stdout) == (1, "")
        assert f"wrong bytes for the manifest {wanted.digest}" in result.stderr
