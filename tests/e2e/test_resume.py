"""Pulls that are broken off, by whatever, go on where they stopped: counted in bytes over the wire
by a proxy in front of a real registry.

A *line* is a proxy with a pace, so that there is a middle to break off in.
"""

import json
import os
import random
import signal
import subprocess
import threading
import time

import images
import pytest
from conftest import Davit, Registry, _make_scratch
from fault_proxy import FaultProxy, Pace
from fault_registry import Fault
from test_space import MB, Disk
from token_server import TokenServer

# Of one layer, whatever happened to its pull: what is promised.
TWICE_BYTES = 1 << 20
TWICE_SHARE = 0.02
PACE = 24 << 20
# Connections that break are noticed at once; only tests of slowness wait for time to pass.
SETTINGS = {"retry-backoff": "50ms", "stall-timeout": "5s", "low-speed-time": "2s"}


def random_image(name, *sizes):
    return images.image([images.random_layer(f"{name}{number}", size)
                         for number, size in enumerate(sizes)])


def size_of(image):
    return sum(len(layer.blob) for layer in image.layers)


def blob_bytes(*proxies):
    """{digest: bytes sent of it by all of them}"""
    total = {}
    for proxy in proxies:
        for digest, count in proxy.bytes_by_digest().items():
            total[digest] = total.get(digest, 0) + count
    return total


def sent_of(image, *proxies):
    sent = blob_bytes(*proxies)
    return sum(sent.get(layer.digest, 0) for layer in image.layers)


def assert_hardly_twice(image, *proxies, slack=None):
    """slack: bytes per layer, less than what is promised, where little was in flight."""
    sent = blob_bytes(*proxies)
    for layer in image.layers:
        size = len(layer.blob)
        allowed = max(TWICE_BYTES, size * TWICE_SHARE) if slack is None else slack
        assert 0 < sent[layer.digest] <= size + allowed, \
            f"{sent[layer.digest]} bytes were sent of a layer of {size}"


def ranges(proxy, layer):
    """(first byte asked for, bytes sent) of each request, in their order."""
    found = []
    for one in proxy.matching("GET", layer.digest):
        text = one.headers.get("range", "bytes=0-")
        found.append((int(text.removeprefix("bytes=").split("-")[0]), one.sent))
    return found


def finish(process):
    """What a client says that was left running; it succeeds."""
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, f"{output}{errors}"
    return output


def fail(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, f"{output}{errors}"
    return output + errors


@pytest.fixture
def make_line(registry):
    """make_line(upstream=the registry, pace=PACE): a proxy with a pace of its own."""
    made = []

    def make(upstream=registry, pace=PACE, **options):
        line = FaultProxy(upstream, **options)
        line.pace = pace and Pace(pace)
        made.append(line)
        return line

    yield make
    for line in made:
        line.stop()


@pytest.fixture
def line(make_line):
    return make_line()


@pytest.fixture
def davitd(make_davitd):
    return make_davitd(config=SETTINGS)


# --- Broken off by us ----------------------------------------------------------------------------


def test_kill_9_at_ten_random_points_of_one_pull(davitd, davit, make_line, registry):
    line = make_line(pace=10 << 20)
    image = random_image("kill", *[6 * MB] * 5)
    name = line.name(registry.push("resume/kill", image))
    seed = random.randrange(1 << 32)
    print("seed", seed)
    source = random.Random(seed)
    for point in sorted(source.uniform(0.02, 0.95) * size_of(image) for _ in range(10)):
        running = davit.start("pull", "-q", name, text=True)
        line.wait_for(lambda least=point: sent_of(image, line) >= least, f"{point} bytes")
        davitd.kill()
        fail(running)
        davitd.start()
        assert davit("images", "-q").stdout == ""
    davit("pull", "-q", name)
    total = sent_of(image, line)
    print(f"{total} bytes for an image of {size_of(image)}: {total / size_of(image):.4f}")
    # Each kill costs what was on its way in three connections, and what was not written yet.
    assert total <= size_of(image) + 10 * (512 << 10)


BREAKS = {
    "cancel": lambda daemon, client: client.send_signal(signal.SIGINT),
    "stop": lambda daemon, client: (daemon.stop(), daemon.start()),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_what_a_pull_left_is_not_fetched_again(davitd, davit, line, registry, wait_until, broken):
    image = random_image(broken, 8 * MB, 8 * MB)
    name = line.name(registry.push("resume/" + broken.replace(" ", "-"), image))
    for share in (0.2, 0.5, 0.8):
        running = davit.start("pull", "-q", name, text=True)
        line.wait_for(lambda least=share * size_of(image): sent_of(image, line) >= least, "bytes")
        BREAKS[broken](davitd, running)
        running.communicate(timeout=60)
        if running.returncode == 0:
            break  # a daemon that is told to stop may finish what takes a moment
        # It has let go of its connections.
        wait_until(lambda: all(one.finished for one in line.requests), "the pull to be given up")
    davit("pull", "-q", name)
    assert_hardly_twice(image, line)


def test_a_pull_says_what_was_there_and_never_falls(davitd, davit, line, registry):
    image = random_image("progress", 6 * MB, 6 * MB)
    name = line.name(registry.push("resume/progress", image))
    running = davit.start("pull", "-q", name, text=True)
    line.wait_for(lambda: sent_of(image, line) >= 6 * MB, "bytes")
    davitd.kill()
    fail(running)
    davitd.start()
    seen = [json.loads(text) for text in
            davit("pull", "--progress=json", name).stdout.splitlines()]
    listed = [one for one in seen if one["layers"]]
    assert {one["bytes_total"] for one in listed} == {size_of(image)}
    assert listed[0]["bytes_fetched"] >= 3 * MB
    values = [one["bytes_fetched"] for one in seen]
    assert values == sorted(values) and values[-1] == size_of(image)


# --- Broken off by others ------------------------------------------------------------------------


def test_a_registry_that_is_restarted(davit, make_line, registry):
    first = make_line()
    image = random_image("restart", 10 * MB)
    name = first.name(registry.push("resume/restart", image))
    running = davit.start("pull", "-q", name, text=True)
    first.wait_for(lambda: sent_of(image, first) >= 4 * MB, "bytes")
    first.stop()
    # Nobody is there now; the next one is.
    second = make_line(port=first.port)
    finish(running)
    assert_hardly_twice(image, first, second)
    assert sent_of(image, second) <= size_of(image) - 4 * MB + TWICE_BYTES


def test_a_token_that_expires_in_the_middle(davitd, davit, make_line, make_registry, scratch,
                                            wait_until):
    tokens = TokenServer(scratch, anonymous={"pull"})
    guarded = make_registry(token_server=tokens)
    line = make_line(guarded)
    image = random_image("expiry", 6 * MB)
    name = line.name(guarded.push("resume/expiry", image))
    layer = image.layers[0]
    line.fault(layer.digest, Fault(stall_after=3 * MB, reset_after=3 * MB, absolute=True))
    tokens.lifetime_s, tokens.told_lifetime_s = 2, 300
    running = davit.start("pull", "-q", name, text=True)
    line.wait_stalled()
    given = line.matching("GET", layer.digest)[0].authorization

    def expired():
        probe = images.Connection(guarded.url, given)
        return probe.request("GET", f"/v2/resume/expiry/blobs/{layer.digest}",
                             Range="bytes=0-0").status == 401

    wait_until(expired, "the token to expire")
    tokens.lifetime_s = 300
    line.clear_faults()
    line.release()
    finish(running)
    assert_hardly_twice(image, line)
    assert len({one.authorization for one in line.matching("GET", layer.digest)}) == 2
    tokens.stop()


def test_a_disk_that_fills_in_the_middle(make_davitd, make_line, scratch, registry):
    kind = "tmpfs" if os.environ.get("DAVIT_TEST_STORAGE_DRIVER") == "directory" else "ext4"
    disk = Disk(scratch, kind, 60 * MB)
    daemon = make_davitd("--reserve-space", "0", config=SETTINGS, data_root=disk.path / "root",
                         **({"start": True}))
    try:
        davit, line = Davit(daemon), make_line(pace=None)
        image = random_image("full", 5 * MB, 15 * MB)
        name = line.name(registry.push("resume/full", image))
        # Whoever gets there, stays there.
        line.fault(image.layers[1].digest, Fault(stall_after=7 * MB, absolute=True))
        running = davit.start("pull", name, text=True)
        line.wait_stalled()
        line.clear_faults()
        filler = disk.path / "filler"
        with open(filler, "wb") as handle:
            os.posix_fallocate(handle.fileno(), 0, disk.free() - (256 << 10))
        line.release()
        said = fail(running)
        assert "No space left" in said or "not enough space" in said, said
        assert "kept" in said, said
        assert davit("images", "-q").stdout == ""
        filler.unlink()
        davit("pull", "-q", name)
        assert_hardly_twice(image, line)
    finally:
        daemon.stop()
        disk.close()


# --- Registries with manners of their own --------------------------------------------------------


@pytest.mark.parametrize("manner", ["8 MiB", "seconds"])
def test_a_registry_that_closes_every_connection(davit, make_line, registry, manner):
    line = make_line(pace=48 << 20)
    if manner == "8 MiB":
        line.close_after_bytes = 8 << 20
    else:
        line.close_after_seconds = 0.3
    image = random_image(manner, 45 * MB, 2 * MB)
    name = line.name(registry.push("resume/" + manner.replace(" ", "-").lower(), image))
    davit("pull", "-q", name)
    broken = len(line.matching("GET", image.layers[0].digest))
    assert broken > 2
    # Nothing was broken off by us: what the proxy sent, we have read.
    assert_hardly_twice(image, line)


def test_a_registry_that_takes_three_connections(make_davitd, make_line, registry):
    line = make_line(pace=16 << 20)
    line.connections_max = 3
    davit = Davit(make_davitd("--max-concurrent-downloads", "6", config=SETTINGS))
    image = random_image("three", *[3 * MB] * 6)
    name = line.name(registry.push("resume/three", image))
    davit("pull", "-q", name)
    assert line.connections_refused
    assert_hardly_twice(image, line)


def test_one_connection_that_stalls_is_given_up_for_another(davit, line, registry):
    image = random_image("stall", 10 * MB)
    name = line.name(registry.push("resume/stall", image))
    line.fault(image.layers[0].digest, Fault(stall_after=2 * MB, absolute=True), times=1)
    davit("pull", "-q", name)
    assert_hardly_twice(image, line, slack=512 << 10)


def test_a_registry_that_asks_for_a_year_is_waited_for_ten_minutes_at_a_time(davit, line, registry):
    image = random_image("year", 100_000)
    name = line.name(registry.push("resume/year", image))
    busy = Fault(status=429, headers={"Retry-After": "31536000"}, body=b"busy")
    line.fault(image.layers[0].digest, busy)
    running = davit.start("pull", "--progress=json", name, text=True)
    seen = {}
    while seen.get("state") != "RATE_LIMITED":
        snapshot = json.loads(running.stdout.readline())
        seen = snapshot["layers"][0] if snapshot["layers"] else {}
    assert 0 < seen["until_unix_ms"] / 1000 - time.time() <= 600, seen
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode != 0
    assert line.count("GET", image.layers[0].digest) == 1


# --- Mirrors -------------------------------------------------------------------------------------


def mirrored(make_davitd, *mirrors, **more):
    return make_davitd(config={**SETTINGS, "mirrors": {"registry.test": [one.url for one in
                                                                           mirrors]}, **more})


def test_the_second_mirror_goes_on_at_the_byte_where_the_first_stopped(make_davitd, make_line,
                                                                       registry):
    first, second = make_line(), make_line()
    davit = Davit(mirrored(make_davitd, first, second))
    image = random_image("failover", 12 * MB)
    layer = image.layers[0]
    registry.push("failover/app", image)
    first.fault(layer.digest, Fault(status=500), when=lambda _: first.resets)
    first.fault(layer.digest, Fault(reset_after=5 * MB, absolute=True))
    davit("pull", "-q", "registry.test/failover/app")
    had = sent_of(image, first)
    assert had >= 5 * MB - (64 << 10)
    # What was missing when the first one broke, and hardly more.
    assert sent_of(image, second) <= size_of(image) - had + (512 << 10)
    assert min(start for start, _ in ranges(second, layer)) > 4 * MB


def test_wrong_bytes_of_a_mirror_do_not_end_the_pull(make_davitd, make_line, registry):
    liar, honest = make_line(pace=None), make_line(pace=None)
    davit = Davit(mirrored(make_davitd, liar, honest))
    image = random_image("liar", 2 * MB)
    registry.push("liar/app", image)
    liar.fault(image.layers[0].digest, Fault(wrong_byte=MB))
    davit("pull", "-q", "registry.test/liar/app")
    assert ranges(honest, image.layers[0])[0][0] == 0
    assert sent_of(image, liar) <= size_of(image)


# --- Many at once --------------------------------------------------------------------------------


@pytest.fixture
def two(make_line, registry):
    """Lines to two registries, of a content of their own each."""
    root = _make_scratch()
    other = Registry(root)
    lines = make_line(pace=None), make_line(other, pace=None)
    yield lines
    other.stop()
    subprocess.run(["rm", "-r", root], check=True)


def push_through(line, repository, image):
    return line.name(line.upstream.push(repository, image))


def test_ten_pulls_of_ten_images_fetch_each_shared_digest_once(make_davitd, two):
    davit = Davit(make_davitd("--max-concurrent-downloads", "10", config=SETTINGS))
    shared = random_image("shared", *[400_000] * 5).layers
    made = [images.image(shared + [images.random_layer(f"own{number}", 50_000)])
            for number in range(10)]
    names = [push_through(two[number % 2], f"ten/app{number}", one)
             for number, one in enumerate(made)]
    for line in two:
        for layer in shared:
            line.fault(layer.digest, Fault(hold=True))
    running = [davit.start("pull", "--progress=json", name, text=True) for name in names]
    for process in running:
        while not json.loads(process.stdout.readline())["layers"]:
            pass  # as soon as it lists its layers, it shares their transfers
    for line in two:
        line.clear_faults()
        line.release()
    for process in running:
        finish(process)
    sent = blob_bytes(*two)
    for layer in shared:
        assert sent[layer.digest] == len(layer.blob)
        assert sum(line.count("GET", layer.digest) for line in two) == 1
    for one in made:
        assert sent[one.layers[-1].digest] == len(one.layers[-1].blob)


def sharing(two, davit, size=4 * MB):
    """The layer, and the clients, first that of the first registry, where it stalls half-way."""
    shared = images.random_layer(f"sharing{size}", size)
    made = [images.image([shared, images.layer([images.file("own", text)])]) for text in "ab"]
    names = [push_through(line, "sharing/app" + text, one)
             for line, one, text in zip(two, made, "ab")]
    return shared, names


def joined(davit, name, **options):
    """A client whose pull has its place in the transfers."""
    process = davit.start("pull", "--progress=json", name, text=True, **options)
    while not json.loads(process.stdout.readline())["layers"]:
        pass
    threading.Thread(target=process.stdout.read, daemon=True).start()
    return process


def drained(process):
    code = process.wait(120)
    return code, process.stderr.read()


def test_one_that_leaves_hurts_none_though_its_registry_served_all(make_davitd, two):
    davit = Davit(make_davitd(config={**SETTINGS, "low-speed-time": "60s"}))
    shared, names = sharing(two, davit)
    two[0].fault(shared.digest, Fault(stall_after=2 * MB, absolute=True))
    first = joined(davit, names[0])
    two[0].wait_stalled()
    second = joined(davit, names[1])
    first.send_signal(signal.SIGINT)
    assert first.wait(60) != 0
    left_at = time.monotonic()
    code, errors = drained(second)
    assert code == 0, errors
    # Nothing is asked with what the first one brought.
    assert not [one for one in two[0].matching("GET", shared.digest) if one.at > left_at]
    had = sum(count for _, count in ranges(two[0], shared))
    assert had >= 2 * MB
    assert sum(count for _, count in ranges(two[1], shared)) <= len(shared.blob) - had + (512 << 10)
    assert min(start for start, _ in ranges(two[1], shared)) >= MB
    two[0].release()


def test_the_failure_of_the_first_is_not_the_others(make_davitd, two):
    davit = Davit(make_davitd(config=SETTINGS))
    shared, names = sharing(two, davit)
    two[0].fault(shared.digest, Fault(hold=True, status=401), Fault(status=401))
    first = joined(davit, names[0])
    two[0].wait_stalled()
    second = joined(davit, names[1])
    two[0].release()
    code, errors = drained(second)
    assert code == 0, errors
    assert sum(count for _, count in ranges(two[1], shared)) == len(shared.blob)
    code, errors = drained(first)
    assert code == 0 or "refuse" in errors or "login" in errors or "credentials" in errors, errors


def test_credentials_of_one_pull_serve_no_other(make_davitd, two):
    """Each asks with its own, though both want the same layer of the same registry."""
    davit = Davit(make_davitd(config=SETTINGS))
    shared, names = sharing(two, davit)
    two[0].fault(shared.digest, Fault(status=403))
    failed = davit("pull", names[0], check=False)
    assert failed.code == 1 and shared.digest[7:19] in failed.stderr
    davit("pull", "-q", names[1])
    davit("pull", "-q", names[0])  # what is there need not be fetched
