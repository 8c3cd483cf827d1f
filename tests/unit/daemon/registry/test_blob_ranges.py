"""Ranges of blobs: every lie about them is found, and what is right is taken. Each test runs
registry_tool, as test_registry_client.py does."""

import re
import time

import pytest
from test_registry_client import (  # noqa: F401 (fixtures)
    SECRET, Running, certificates, certs_dir, failed, image, images, make_registry, registry,
    tool)
from fault_registry import Fault, sha256

OLD = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.fixture(name="place")
def fixture_place(registry, image):  # noqa: F811
    """A registry with an image, and how to ask for ranges of its layer."""
    return Place(registry, image)


class Place:
    def __init__(self, registry, image):  # noqa: F811
        self.registry = registry
        self.name = registry.push("app", image)
        self.layer = image.layers[0]
        self.data = self.layer.blob

    def range(self, first, end, validator="-", size=None):
        return ("range", self.name, self.layer.digest, size or len(self.data), first, end,
                validator)

    def is_part(self, result, first, end, **more):
        assert result == {"offset": first, "bytes": end - first,
                          "sha256": sha256(self.data[first:end]), "ranges": True, **more}

    def is_all(self, result, **more):
        assert result == {"offset": 0, "bytes": len(self.data), "sha256": self.layer.digest,
                          "ranges": False, **more}


def test_ranges(place):
    size = len(place.data)
    ranges = [(0, 1), (0, size - 1), (1, size), (size - 1, size), (70000, 70001), (500, 150000)]
    results = tool(*(word for one in ranges for word in place.range(*one)))
    for one, result in zip(ranges, results):
        place.is_part(result, *one)
    sent = [one.headers["range"] for one in place.registry.matching("GET", "/blobs/")]
    assert sent == [f"bytes={first}-{end - 1}" for first, end in ranges]
    assert {one.connection for one in place.registry.matching("GET", "/blobs/")} == {
        place.registry.matching("GET", "/blobs/")[0].connection}, "connections are used again"


def test_all_is_no_range(place):
    result = tool(*place.range(0, len(place.data)))
    assert result["bytes"] == len(place.data) and result["ranges"]
    assert "range" not in place.registry.matching("GET", "/blobs/")[0].headers


def test_nothing_is_not_asked_for(place):
    assert tool(*place.range(7, 7))["bytes"] == 0
    assert place.registry.requests == []


def lie(first, last, size):
    """What a server may claim to send, where these bytes were asked for."""
    return {
        "from before": f"bytes {first - 1}-{last}/{size}",
        "from after": f"bytes {first + 1}-{last}/{size}",
        "shorter": f"bytes {first}-{last - 1}/{size}",
        "longer": f"bytes {first}-{last + 1}/{size}",
        "to the end": f"bytes {first}-{size - 1}/{size}",
        "from the start": f"bytes 0-{last - first}/{size}",
        "smaller blob": f"bytes {first}-{last}/{last + 1}",
        "larger blob": f"bytes {first}-{last}/{size + 1}",
        "other unit": f"octets {first}-{last}/{size}",
        "no unit": f"{first}-{last}/{size}",
        "zeros": f"bytes 0{first}-{last}/{size}",
        "blanks": f"bytes  {first}-{last}/{size}",
        "more": f"bytes {first}-{last}/{size}, {first}-{last}/{size}",
        "unsatisfied": f"bytes */{size}",
        "empty": "",
    }


@pytest.mark.parametrize("which", list(lie(10, 20, 30)))
def test_wrong_content_range(place, which):
    place.registry.fault("/blobs/", Fault(content_range=lambda *true: lie(*true)[which]), times=1)
    wrong, right = tool(*place.range(1000, 2000), *place.range(0, len(place.data)))
    failed(wrong, "FAILED_PRECONDITION", "RANGE_BROKEN", "another range than asked for")
    # The whole blob may be had all the same, and it is known that ranges may not.
    place.is_all(right)


def part(first, last, size, body, **more):
    return Fault(status=206, body=body, headers={"Content-Range": f"bytes {first}-{last}/{size}",
                                                 **more})


def test_wrong_parts(place):
    size, data = len(place.data), place.data
    cases = [
        (Fault(status=206, body=data[1000:2000]), "another range than asked for: none"),
        (part(1000, 1999, size, data[1000:1999]), "its length is wrong: 999"),
        (part(1000, 1999, size, data[1000:2001]), "its length is wrong: 1001"),
        (part(1000, 1999, size, data[1000:]), f"its length is wrong: {size - 1000}"),
        (part(1000, 1999, size, data), f"its length is wrong: {size}"),
        (Fault(status=206, body=b"--x\r\nContent-Range: bytes 1000-1999/2\r\n\r\n",
               headers={"Content-Type": "multipart/byteranges; boundary=x"}), "several parts"),
        (part(1000, 1999, size, data[1000:2000],
              **{"Content-Type": "Multipart/ByteRanges; boundary=x"}), "several parts"),
        (Fault(status=416), "ends before the range"),
    ]
    place.registry.fault("/blobs/", *(fault for fault, _ in cases), times=len(cases))
    results = tool(*(word for _ in cases for word in place.range(1000, 2000)))
    for (_, wanted), result in zip(cases, results):
        failed(result, "FAILED_PRECONDITION", "RANGE_BROKEN", wanted)


@pytest.mark.parametrize("fault, code, reason", [
    (Fault(chunked=True, long=1), "FAILED_PRECONDITION", "REGISTRY_PROTOCOL"),
    (Fault(chunked=True, short=1), "UNAVAILABLE", "BLOB_TRUNCATED"),
    (Fault(short=1), "UNAVAILABLE", "BLOB_TRUNCATED"),
    (Fault(reset_after=500), "UNAVAILABLE", "CONNECTION_FAILED"),
    (Fault(headers={"Content-Encoding": "gzip"}), "FAILED_PRECONDITION", "REGISTRY_PROTOCOL"),
    (Fault(headers={"Content-Encoding": "br"}, ignore_range=True), "FAILED_PRECONDITION",
     "REGISTRY_PROTOCOL"),
    (Fault(ignore_range=True, long=1), "FAILED_PRECONDITION", "REGISTRY_PROTOCOL"),
    (Fault(ignore_range=True, body=b"x" * 10), "FAILED_PRECONDITION", "REGISTRY_PROTOCOL"),
    (Fault(status=204), "FAILED_PRECONDITION", "REGISTRY_PROTOCOL"),
    (Fault(status=304), "FAILED_PRECONDITION", "REGISTRY_PROTOCOL"),
    (Fault(status=404), "NOT_FOUND", "BLOB_UNKNOWN"),
    (Fault(status=410), "FAILED_PRECONDITION", "REGISTRY_PROTOCOL"),
    (Fault(cut_headers=True), "UNAVAILABLE", "CONNECTION_FAILED"),
], ids=lambda value: repr(value)[:120] if isinstance(value, Fault) else None)
def test_lies_about_lengths_and_what_it_is(place, fault, code, reason):
    place.registry.fault("/blobs/", fault)
    failed(tool(*place.range(1000, 2000)), code, reason)


def test_total_that_is_not_known(place):
    place.registry.fault("/blobs/", Fault(content_range=lambda first, last, _: f"bytes {first}-"
                                                                                f"{last}/*"))
    place.is_part(tool(*place.range(1000, 2000)), 1000, 2000)


def test_a_server_that_ignores_ranges(place):
    place.registry.fault("/blobs/", Fault(ignore_range=True))
    place.is_all(tool(*place.range(1000, 2000)))


# --- Validators ----------------------------------------------------------------------------------


@pytest.mark.parametrize("headers, validator", [
    ({"ETag": '"a"'}, '"a"'),
    ({"ETag": '"a"', "Last-Modified": OLD}, '"a"'),
    ({"ETag": 'W/"a"'}, None),
    ({"ETag": 'W/"a"', "Last-Modified": OLD}, None),
    ({"ETag": ""}, None),
    ({"Last-Modified": OLD}, OLD),
    ({"Last-Modified": "yesterday"}, None),
    ({"Last-Modified": "now"}, None),
    ({}, None),
])
def test_what_is_a_validator(place, headers, validator):
    if headers.get("Last-Modified") == "now":
        headers = {"Last-Modified": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())}
    place.registry.fault("/blobs/", Fault(headers=headers))
    assert tool(*place.range(1000, 2000)).get("validator") == validator


def test_a_validator_is_sent(place):
    place.registry.fault("/blobs/", Fault(headers={"ETag": '"a"'}))
    place.is_part(tool(*place.range(1000, 2000, '"a"')), 1000, 2000, validator='"a"')
    assert place.registry.matching("GET", "/blobs/")[0].headers["if-range"] == '"a"'


def test_content_that_has_changed(place):
    """A server sends all of what is there now. Its size must be right; validators are of no use
    any more, but ranges are."""
    place.registry.fault("/blobs/", Fault(ignore_range=True, headers={"ETag": '"b"'}),
                         when=lambda request: request.headers.get("if-range") == '"a"')
    place.registry.fault("/blobs/", Fault(headers={"ETag": '"c"'}))
    changed, after = tool(*place.range(1000, 2000, '"a"'), *place.range(1000, 2000))
    assert changed == {"offset": 0, "bytes": len(place.data), "sha256": place.layer.digest,
                       "ranges": True}
    place.is_part(after, 1000, 2000)


def test_content_that_has_changed_in_size(place):
    place.registry.fault("/blobs/", Fault(ignore_range=True, body=b"other", headers={"ETag": '"b"'}))
    failed(tool(*place.range(1000, 2000, '"a"')), "FAILED_PRECONDITION", "REGISTRY_PROTOCOL",
           "its length is wrong: 5")


def test_a_server_that_ignores_ranges_with_a_validator(place):
    place.registry.fault("/blobs/", Fault(ignore_range=True, headers={"ETag": '"a"'}))
    place.is_all(tool(*place.range(1000, 2000, '"a"')), validator='"a"')


def test_a_part_of_something_else(place):
    place.registry.fault("/blobs/", Fault(headers={"ETag": '"b"'}))
    failed(tool(*place.range(1000, 2000, '"a"')), "FAILED_PRECONDITION", "RANGE_BROKEN",
           "a part of something else")


# --- Credentials ---------------------------------------------------------------------------------


def test_a_token_that_ends_between_ranges(place):
    place.registry.require_bearer("user", SECRET)
    place.registry.fault("/blobs/", Fault(status=401, headers={
        "WWW-Authenticate": f'Bearer realm="{place.registry.url}/token",service="fault",'
                            'scope="repository:app:pull"'}),
        when=lambda request: request.headers.get("range") == "bytes=2000-2999" and
        len(place.registry.matching("GET", "/token")) == 1)
    results = tool("--user", "user", "--password", SECRET, *place.range(1000, 2000),
                   *place.range(2000, 3000), *place.range(3000, 4000))
    for number, result in enumerate(results, 1):
        place.is_part(result, number * 1000, number * 1000 + 1000)
    assert place.registry.count("GET", "/token") == 2


def test_a_token_is_never_right(place):
    place.registry.require_bearer("user", SECRET)
    place.registry.fault("/blobs/", Fault(status=401, headers={
        "WWW-Authenticate": f'Bearer realm="{place.registry.url}/token",service="fault",'
                            'scope="repository:app:pull"'}))
    failed(tool("--user", "user", "--password", SECRET, *place.range(1000, 2000)),
           "UNAUTHENTICATED", "UNAUTHORIZED")
    assert place.registry.count("GET", "/blobs/") == 2 and place.registry.count("GET", "/token") == 1


def test_ranges_elsewhere(make_registry, image):  # noqa: F811
    """A redirect to another host gets the range and its condition, but no credentials."""
    registry, cdn = make_registry(), make_registry()  # noqa: F811
    place = Place(registry, image)
    cdn.push("app", image)
    registry.require_basic("user", SECRET)
    registry.fault("/blobs/", Fault(redirect=cdn.url + "{path}?signature=x"),
                   when=lambda request: request.authorization)
    cdn.fault("/blobs/", Fault(headers={"ETag": '"a"'}))
    results = tool("--user", "user", "--password", SECRET, *place.range(1000, 2000, '"a"'),
                   *place.range(2000, 3000, '"a"'))
    place.is_part(results[0], 1000, 2000, validator='"a"')
    place.is_part(results[1], 2000, 3000, validator='"a"')
    assert [(one.headers["range"], one.headers["if-range"], one.authorization)
            for one in cdn.requests] == [("bytes=1000-1999", '"a"', None),
                                         ("bytes=2000-2999", '"a"', None)]


def test_a_lie_elsewhere(make_registry, image):  # noqa: F811
    registry, cdn = make_registry(), make_registry()  # noqa: F811
    place = Place(registry, image)
    cdn.push("app", image)
    registry.fault("/blobs/", Fault(redirect=cdn.url + "{path}"))
    cdn.fault("/blobs/", Fault(content_range="bytes 0-999/1000", body=b"x" * 1000))
    failed(tool(*place.range(1000, 2000)), "FAILED_PRECONDITION", "RANGE_BROKEN")


# --- Speed ---------------------------------------------------------------------------------------


def test_too_slow(place):
    place.registry.fault("/blobs/", Fault(drip=(10, 0.02)))
    started = time.monotonic()
    failed(tool("--low-speed", 5000, "--low-speed-ms", 400, *place.range(1000, 20000)),
           "UNAVAILABLE", "TOO_SLOW", "too slow")
    assert 0.3 < time.monotonic() - started < 5


def test_fast_enough(place):
    place.registry.fault("/blobs/", Fault(drip=(100, 0.02)))
    place.is_part(tool("--low-speed", 100, "--low-speed-ms", 300, *place.range(1000, 4000)), 1000,
                  4000)


@pytest.mark.parametrize("after", [0, 500])
def test_nothing_at_all(place, after):
    """It is found by the speed as well, long before the stall timeout."""
    place.registry.fault("/blobs/", Fault(stall_after=after))
    started = time.monotonic()
    failed(tool("--low-speed", 10000, "--low-speed-ms", 300, *place.range(1000, 2000)),
           "UNAVAILABLE", "STALLED" if after == 0 else "TOO_SLOW")
    assert time.monotonic() - started < 5


def test_a_pause_of_the_reader_is_not_slow(registry):  # noqa: F811
    data = images.payload(16 << 20, 1, 0)
    digest = registry.push_blob("app", data)
    running = Running("--low-speed", 1000000, "--low-speed-ms", 100, "slow",
                      f"{registry.host}/app", digest, len(data))
    assert running.line() == {"waiting": True}
    time.sleep(1)  # ten times as long as a server may be slow
    running.send_line()
    assert running.finish() == [{"bytes": len(data), "sha256": digest}]


def received_ahead(registry, *options):  # noqa: F811
    """What the kernel took in for a reader that was fast, and then stopped."""
    data = images.payload(48 << 20, 1, 0)
    digest = registry.push_blob("app", data)
    running = Running(*options, "--slow-at", 16 << 20, "slow", f"{registry.host}/app", digest, len(data))
    assert running.line() == {"waiting": True}
    before, now = -1, 0
    while now != before:  # until the kernel's buffers are full
        before = now
        time.sleep(0.1)
        with open("/proc/net/tcp", encoding="ascii") as sockets:
            queues = re.findall(rf" \w+:\w+ \w+:{registry.port:04X} \w+ \w+:(\w+)", sockets.read())
        now = max(int(queue, 16) for queue in queues)
    running.send_line()
    assert running.finish() == [{"bytes": len(data), "sha256": digest}]
    return before


def test_a_small_buffer_of_the_kernel(registry):  # noqa: F811
    ahead = received_ahead(registry, "--buffer", 65536)
    assert ahead <= 4 * 65536
    assert 4 * ahead < received_ahead(registry)


# --- Health --------------------------------------------------------------------------------------


def test_places_that_failed_are_asked_last(make_registry, image):  # noqa: F811
    first, second = make_registry(), make_registry()
    names = [f"127.0.0.1:{one.port}" for one in (first, second)]
    layer = image.layers[0]
    for one in (first, second):
        one.push("library/app", image)
    options = [word for one in (first, second) for word in ("--mirror", one.url)]
    read = ("blob", "app", layer.digest, len(layer.blob), 0)
    sources = ("sources", "app", "pull")
    # Where an image is not, that says nothing of the mirror.
    first.fault("/blobs/", Fault(status=404), Fault(status=500), times=2)
    results = tool(*options, *read, *sources, *read, *sources, *read, *sources)
    hub = "registry-1.docker.io"
    assert [one["sources"] for one in results if "sources" in one] == [
        [*names, hub], [names[1], hub, names[0]], [names[1], hub, names[0]]]
    assert all(one["bytes"] == len(layer.blob) for one in results if "bytes" in one)
    assert first.count("GET", "/blobs/") == 2


def test_the_proxy_of_a_host(make_registry, image, tmp_path):  # noqa: F811
    """It counts for its host only, and the environment's does not."""
    mirror, proxy, registry = make_registry(), make_registry(), make_registry()  # noqa: F811
    name = registry.push("app", image)
    proxy.push("app", image)
    layer = image.layers[0]
    (tmp_path / registry.host).mkdir()
    (tmp_path / registry.host / "hosts.toml").write_text(
        f'[host."{mirror.url}"]\nproxy = "{proxy.url}"\n')
    environment = {"http_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.1"}
    result = tool("--hosts-dir", tmp_path, "range", name, layer.digest, len(layer.blob), 5, 10, "-",
                  env=environment)
    assert result["bytes"] == 5 and mirror.requests == [] and registry.requests == []
    assert proxy.requests[0].path == (f"{mirror.url}/v2/app/blobs/{layer.digest}"
                                      f"?ns=127.0.0.1%3A{registry.port}")


def test_what_is_for_a_host_stays_there(make_registry, image, tmp_path):  # noqa: F811
    """Headers of hosts.toml do not follow a redirect; and our own token comes before theirs."""
    mirror, cdn, registry = make_registry(), make_registry(), make_registry()  # noqa: F811
    name = registry.push("app", image)
    layer = image.layers[0]
    cdn.push("app", image)
    mirror.fault("/blobs/", Fault(redirect=cdn.url + "{path}"))
    (tmp_path / registry.host).mkdir()
    (tmp_path / registry.host / "hosts.toml").write_text(
        f'[host."{mirror.url}".header]\nAuthorization = "Basic {SECRET}"\nx-who = "davit"\n')
    result = tool("--hosts-dir", tmp_path, "--user", "user", "--password", SECRET, "range", name,
                  layer.digest, len(layer.blob), 5, 10, "-")
    assert result["bytes"] == 5
    assert [one.authorization for one in mirror.requests] == [f"Basic {SECRET}"]
    assert [one.headers["x-who"] for one in mirror.requests] == ["davit"]
    assert [(one.authorization, one.headers.get("x-who")) for one in cdn.requests] == [(None, None)]


def test_roots_of_an_entry_count_for_it_only(make_registry, certificates, image, tmp_path):  # noqa: F811
    """A connection that was made with them is not used by those who do not trust them."""
    server = make_registry(tls=(certificates / "server.crt", certificates / "server.key"))
    server.push("app", image)
    layer = image.layers[0]
    host = f"registry.test:{server.port}"
    (tmp_path / "other.test").mkdir()
    (tmp_path / "other.test" / "hosts.toml").write_text(
        f'[host."https://{host}"]\nca = "{certificates}/ca.crt"\n')
    through = ("range", "other.test/app", layer.digest, len(layer.blob), 5, 10, "-")
    directly = ("range", f"{host}/app", layer.digest, len(layer.blob), 5, 10, "-")
    first, refused, again = tool("--hosts-dir", tmp_path, *through, *directly, *through)
    assert first["bytes"] == again["bytes"] == 5
    failed(refused, "UNAVAILABLE", "TLS_FAILED")


def test_verification_is_skipped_for_an_entry_only(make_registry, certificates, image, tmp_path):  # noqa: F811
    server = make_registry(tls=(certificates / "alone.crt", certificates / "alone.key"))
    server.push("app", image)
    layer = image.layers[0]
    host = f"registry.test:{server.port}"
    (tmp_path / "other.test").mkdir()
    (tmp_path / "other.test" / "hosts.toml").write_text(
        f'[host."https://{host}"]\nskip_verify = true\n')
    through = ("range", "other.test/app", layer.digest, len(layer.blob), 5, 10, "-")
    directly = ("range", f"{host}/app", layer.digest, len(layer.blob), 5, 10, "-")
    first, refused = tool("--hosts-dir", tmp_path, *through, *directly)
    assert first["bytes"] == 5
    failed(refused, "UNAVAILABLE", "TLS_FAILED")


def test_a_file_that_is_wrong_leads_nowhere(registry, image, tmp_path):  # noqa: F811
    name = registry.push("app", image)
    (tmp_path / registry.host).mkdir()
    (tmp_path / registry.host / "hosts.toml").write_text("server = 1")
    failed(tool("--hosts-dir", tmp_path, "resolve", name), "FAILED_PRECONDITION", "INVALID_CONFIG",
           f"{tmp_path}/{registry.host}/hosts.toml:1")
    assert registry.requests == []


@pytest.mark.parametrize("path, prefix, base", [
    ("", "", "/v2"), ("/", "", "/v2"), ("/cache", "cache/", "/v2"), ("/a/b/", "a/b/", "/v2"),
    ("/v2/proxy", "", "/v2/proxy"), ("/cache/v2/", "", "/cache/v2"), ("/v2x", "v2x/", "/v2"),
])
def test_paths_of_mirrors(make_registry, image, path, prefix, base):  # noqa: F811
    """Before the repository, or as they are where they name the API."""
    mirror = make_registry()
    layer = image.layers[0]
    mirror.push(prefix + "app", image)
    mirror.push("proxy/app", image)
    mirror.require_basic("user", SECRET)
    mirror.fault(f"^{base}/{prefix}app/blobs/{layer.digest}$",
                 part(5, 9, len(layer.blob), layer.blob[5:10]))
    result = tool("--mirror-of", "other.test", "--mirror-of", mirror.url + path, "--user", "user",
                  "--password", SECRET, "range", "other.test/app", layer.digest, len(layer.blob),
                  5, 10, "-")
    assert result["bytes"] == 5
    assert [one.authorization for one in mirror.requests] == [None]


def test_hosts_that_want_credentials_get_none(make_registry, image, tmp_path):  # noqa: F811
    """They are for the registry that the name says, under whatever name it is listed."""
    mirror, registry = make_registry(), make_registry()  # noqa: F811
    name = registry.push("app", image)
    mirror.push("app", image)
    layer = image.layers[0]
    for one in (mirror, registry):
        one.require_basic("user", SECRET)
    (tmp_path / registry.host).mkdir()
    (tmp_path / registry.host / "hosts.toml").write_text(
        f'[host."{mirror.url}"]\n[host."{registry.url}"]\n')
    result = tool("--hosts-dir", tmp_path, "--user", "user", "--password", SECRET, "blob", name,
                  layer.digest, len(layer.blob), 0)
    assert result["sha256"] == layer.digest
    assert [one.authorization for one in mirror.requests] == [None]
    assert registry.requests[-1].authorization.startswith("Basic ")


def test_nobody_waits_for_a_busy_mirror(make_registry, image):  # noqa: F811
    mirror, registry = make_registry(), make_registry()  # noqa: F811
    name = registry.push("app", image)
    mirror.fault("/v2/", Fault(status=503, headers={"Retry-After": "20"}))
    registry.fault("/manifests/", Fault(status=503), times=2)  # this one is asked again
    started = time.monotonic()
    result = tool("--mirror-of", registry.host, "--mirror-of", mirror.url, "resolve", name)
    assert result["digest"] == image.digest
    assert time.monotonic() - started < 15
    assert len(mirror.requests) == 1 and registry.count("GET", "/manifests/") == 3


def test_what_the_registry_itself_says_counts(make_registry, image):  # noqa: F811
    mirror, registry = make_registry(), make_registry()  # noqa: F811
    name = registry.push("app", image)
    mirror.fault("/v2/", Fault(status=500))
    registry.fault("/manifests/", Fault(status=403))
    # Also when the mirror has become the last to be asked.
    for result in tool("--mirror-of", registry.host, "--mirror-of", mirror.url, "resolve", name,
                       "resolve", name):
        failed(result, "PERMISSION_DENIED", "DENIED")


def test_a_token_that_another_request_got_meanwhile(place):
    place.registry.require_bearer("user", SECRET)
    place.registry.fault("/blobs/", Fault(hold=True), times=1)
    running = Running("--user", "user", "--password", SECRET, "blobs", 2,
                      place.name, place.layer.digest, len(place.data))
    place.registry.wait_for(lambda: any(one.finished and one.status == 200 for one in
                                        place.registry.matching("GET", "/blobs/")))
    place.registry.release()
    assert running.finish() == [{"bytes": 2 * len(place.data)}]
    assert place.registry.count("GET", "/token") == 1


@pytest.mark.parametrize("text, milliseconds", [
    ("7", 7000), ("0", 1), ("999999999999", 366 * 24 * 3600 * 1000), ("soon", None), (None, None)])
def test_blobs_tell_when_to_ask_again(place, text, milliseconds):
    """They do not wait by themselves: who has other sources decides."""
    place.registry.fault("/blobs/", Fault(status=503, headers={"Retry-After": text} if text else {}))
    failure = failed(tool(*place.range(5, 10)), "UNAVAILABLE", "REGISTRY_BUSY")
    assert failure.get("retry_after_ms") == milliseconds
    assert place.registry.count("GET", "/blobs/") == 1


def test_tokens_of_a_mirror_without_tls(make_registry, image):  # noqa: F811
    """As the configuration has it, and without anything to give away."""
    mirror = make_registry()
    mirror.push("app", image)
    layer = image.layers[0]
    url = f"http://mirror.test:{mirror.port}"
    mirror.require_bearer(realm=url + "/token")
    result = tool("--mirror-of", "other.test", "--mirror-of", url, "--user", "user", "--password",
                  SECRET, "range", "other.test/app", layer.digest, len(layer.blob), 5, 10, "-")
    assert result["bytes"] == 5
    assert [one.authorization for one in mirror.matching("GET", "/token")] == [None]
