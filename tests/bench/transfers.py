#!/usr/bin/python3
"""What transfers lose, on lines that are slow, far, shared or broken: davit beside dockerd and
podman in the same run, and beside the line itself.

  line       10 Mbit/s, 5 layers: the time, beside curl's for the same bytes on the same line
  latency    100 ms before each answer, each connection given 5 of the line's 50 Mbit/s
  kill       kill -9 at 10 random points of one pull: bytes over the wire, of the image's
  shared     10 pulls of 10 images that share 5 layers, beside the union pulled as one image
  straggler  one of 8 connections drops to 5 kB/s, beside the same pull without that
  closing    a registry that closes every connection after 8 MiB, or 30 s: does it finish?
  push       push of the Debian image of layers.py to an empty registry on loopback
  cap        500 kB/s: one pull, two under the daemon's cap, a running job changed, a push
  watchers   1,000 idle watchers of a pull, 50 reconnects of another: memory, losses
  small      a small pull and a manifest beside big pulls on 10 Mbit/s, and alone

The line is a pair of veth interfaces with tc tbf (netns.py), the registry on its far side a
scripted one (line_registry.py), so that the figures do not depend on the machine; push is the
exception. Every measurement has fresh roots; the engines take turns, round by round. Figures are
medians, with the smallest and the largest. Needs root and
`third_party/deps.sh build run test bench`."""

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from common import (BIN_DIR, CACHE, DavitEngine, DockerEngine, Figures, PeakMemory, PodmanEngine,
                    Registry, Scratch, debian_image, drop_caches, images, memory, output, run, say,
                    show, show_figures, table, timed, write_json)
from api import Api
from fake_daemon import load_messages
from fault_registry import Fault
from line_registry import LineRegistry
from netns import Line
from watchers import IdleWatchers, reconnect

BROKEN = (AssertionError, OSError, RuntimeError, subprocess.SubprocessError)
ENGINES = [DavitEngine, DockerEngine, PodmanEngine]
MEMORY_MAX_MIB = 32


class Bench:
    """Who competes, and what was measured."""

    def __init__(self, options):
        self.options = options
        self.figures = Figures()
        self.failures = []
        self.made = {}
        self.engines = [one for one in ENGINES
                        if one.name in options.engines and one.available()]

    def image(self, *sizes_mb, seed=0):
        """An image of layers of these sizes that no compressor shrinks; made once."""
        key, scale = (sizes_mb, seed), 0.2 if self.options.quick else 1
        if key not in self.made:
            self.made[key] = images.image([random_layer(size * scale, f"{seed}/{number}")
                                           for number, size in enumerate(sizes_mb)])
        return self.made[key]

    def has_flag(self, flag):
        """Whether this davitd has it."""
        return flag in output(BIN_DIR / "davitd", "--help")

    def note(self, scenario, who, **values):
        values = {what.replace("_", " "): value for what, value in values.items()}
        for what, value in values.items():
            self.figures.add(f"{scenario}: {what}", who, value)
        say(f"{scenario}: {who}: " +
            ", ".join(f"{what} {value:.4g}" for what, value in values.items()))

    def figure(self, what, who=DavitEngine.name):
        return self.figures.median(what, who)

    def each_engine(self, scenario, measure, *davit_arguments, of=object):
        """measure(engine) on fresh roots for each; what it returns is noted."""
        for engine_class in self.engines:
            if not issubclass(engine_class, of):
                continue
            arguments = davit_arguments if issubclass(engine_class, DavitEngine) else ()
            try:
                with Scratch() as root, engine_class(root, *arguments) as engine:
                    with watched_memory(engine) as peak:
                        values = measure(engine)
                    self.note(scenario, engine.name, **values)
                    if peak:
                        self.note(scenario, engine.name, davitd_MiB=peak["RssAnon"] / 1024)
            except BROKEN as error:
                self.fail(scenario, engine_class.name, error)

    def fail(self, scenario, who, error):
        text = str(error).strip().rsplit("\n", 1)[-1]
        if isinstance(error, subprocess.TimeoutExpired):
            text = f"no end after {error.timeout:.0f} s"
        self.failures.append((scenario, who, text))
        say(f"{scenario}: {who}: failed: {text}")
        if not isinstance(error, (subprocess.SubprocessError, RuntimeError)):
            say(traceback.format_exc())

    @contextlib.contextmanager
    def far_side(self, mbit, **conditions):
        """A line, and a registry on its far side."""
        with Line(mbit) as line:
            registry = line.far(LineRegistry, line.address, **conditions)
            try:
                yield line, registry
            finally:
                registry.stop()


@contextlib.contextmanager
def watched_memory(engine):
    """davitd's peak so far, in KiB; follows it from start to start. Empty for the others."""
    if not isinstance(engine, DavitEngine):
        yield {}
        return
    peak, ended = {}, threading.Event()

    def follow():
        while not ended.is_set():
            process = engine.daemon.process
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, AttributeError):
                with PeakMemory(process.pid, 0.02) as sampled:
                    while not ended.wait(0.1) and engine.daemon.process is process:
                        pass
                peak["RssAnon"] = max(peak.get("RssAnon", 0), sampled.peak.get("RssAnon", 0))
            ended.wait(0.01)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def random_layer(size_mb, seed):
    data = random.Random(seed).randbytes(int(size_mb * 1e6))
    tar = images.make_tar([images.directory("srv"), images.file(f"srv/{seed[-1]}", data)])
    return images.Layer(tar, images.gzip.compress(tar, 1, mtime=0), "gzip")


def compressed_size(image):
    return sum(len(layer.blob) for layer in image.layers)


def curl(registry, repository, image):
    """Fetches all layers, one after the other on one connection."""
    words = []
    for layer in image.layers:
        words += ["-o", "/dev/null", f"{registry.url}/v2/{repository}/blobs/{layer.digest}"]
    run("curl", "-sf", *words)


def wait_all(clients):
    for client in clients:
        if client.wait() != 0:
            raise RuntimeError(f"{' '.join(map(str, client.args))}: exit {client.returncode}")


# --- The scenarios -------------------------------------------------------------------------------


def line(bench):
    image = bench.image(12, 8, 6, 3, 2)
    with bench.far_side(10) as (way, registry):
        name = registry.push("bench/line", image)
        bench.note("line", "the line", seconds=way.time_for(compressed_size(image)))
        bench.note("line", "curl", seconds=timed(curl, registry, "bench/line", image))
        bench.each_engine("line", lambda engine: {"seconds": timed(engine.pull, name, 300)})


def latency(bench):
    image = bench.image(20, 15, 12, 8, 5)
    with bench.far_side(50, delay=0.1, connection_mbit=5) as (way, registry):
        name = registry.push("bench/latency", image)
        bench.note("latency", "the line", seconds=way.time_for(compressed_size(image)))

        def measure(engine):
            seen = registry.wire_bytes()
            seconds = timed(engine.pull, name, 300)
            return {"seconds": seconds,
                    "wire": (registry.wire_bytes() - seen) / compressed_size(image)}

        bench.each_engine("latency", measure)


def kill(bench):
    image = bench.image(40, 25, 20, 10, 5, seed=3)
    size = compressed_size(image)
    source = random.Random(bench.options.seed + bench.round)
    points = sorted(source.random() for _ in range(10))
    say("kill: at", ", ".join(f"{point:.1%}" for point in points), "of the image's bytes")
    with bench.far_side(50) as (_, registry):
        name = registry.push("bench/kill", image)

        def measure(engine):
            seen = registry.wire_bytes()
            for point in points:
                client = engine.client("pull", name)
                registry.wait_for(lambda: registry.wire_bytes() - seen >= point * size or  # noqa
                                  client.poll() is not None, "bytes", 120)  # noqa: B023
                client.kill()
                client.wait()
                engine.kill()
                engine.start()
            seconds = timed(engine.pull, name, 120)
            return {"wire": (registry.wire_bytes() - seen) / size, "last_pull": seconds}

        bench.each_engine("kill", measure)


def shared(bench):
    common = bench.image(8, 8, 8, 8, 8, seed=4).layers
    own = [random_layer(0.5, f"own/{number}") for number in range(10)]
    size = sum(len(layer.blob) for layer in common + own)
    with bench.far_side(50) as (way, registry):
        names = [registry.push(f"bench/shared{number}", images.image(common + [layer]))
                 for number, layer in enumerate(own)]
        union = registry.push("bench/union", images.image(common + own))
        bench.note("shared", "the line", seconds=way.time_for(size))

        def measure_union(engine):
            return {"union": timed(engine.pull, union, 300)}

        def measure(engine):
            registry.forget()
            started = time.monotonic()
            wait_all([engine.client("pull", name) for name in names])
            seconds = time.monotonic() - started
            fetched = [registry.fetched(layer.digest) / len(layer.blob) for layer in common + own]
            return {"seconds": seconds, "fetched": sum(fetched) / len(fetched),
                    "most_fetched": max(fetched)}

        bench.each_engine("shared", measure_union)
        bench.each_engine("shared", measure)


def straggler(bench):
    image = bench.image(60, seed=5)
    size = compressed_size(image)
    with bench.far_side(50, connection_mbit=5) as (_, registry):
        name = registry.push("bench/straggler", image)

        def clean(engine):
            return {"clean": timed(engine.pull, name, 300)}

        def measure(engine):
            registry.set_conditions(connection_mbit=5)
            seen, started = registry.body_bytes(), time.monotonic()
            client = engine.client("pull", name)
            registry.wait_for(lambda: registry.body_bytes() - seen >= size / 4, "a quarter", 120)
            busy = registry.busy_connections()
            registry.drop_one(5000)
            try:
                client.wait(300)
            finally:
                client.kill()
            wait_all([client])
            return {"seconds": time.monotonic() - started, "connections": busy}

        arguments = ("--max-connections", "8") if bench.has_flag("--max-connections") else ()
        for one in (clean, measure):
            bench.each_engine("straggler", one, *arguments, of=DavitEngine)


def closing(bench):
    for title, mbit, sizes, conditions in (
            ("after 8 MiB", 50, (64, 10), {"close_after_bytes": 8 << 20}),
            ("after 30 s", 50, (40,), {"close_after_seconds": 30, "connection_mbit": 0.8})):
        image = bench.image(*sizes, seed=6)
        with bench.far_side(mbit, **conditions) as (_, registry):
            name = registry.push("bench/closing", image)

            def measure(engine):
                seen = registry.wire_bytes()
                seconds = timed(engine.pull, name, 200)
                return {"seconds": seconds,  # noqa: B023
                        "wire": (registry.wire_bytes() - seen) / compressed_size(image)}

            bench.each_engine(f"closing {title}", measure)


@contextlib.contextmanager
def registry_at(root, port=0):
    root.mkdir(exist_ok=True)
    registry = Registry(root, port=port)
    try:
        yield registry
    finally:
        registry.stop()


def push(bench):
    image, _ = debian_image()

    def measure(engine):
        with registry_at(CACHE / "registry") as full:
            name = full.push("bench/debian", image)
            engine.pull(name)
            port = full.port
        empty = engine.root / "empty"
        try:
            with registry_at(empty, port):
                drop_caches()
                return {"seconds": timed(engine.push, name),
                        "sent_MB": sum(path.stat().st_size
                                       for path in empty.glob("data/**/blobs/**/data")) / 1e6}
        finally:
            shutil.rmtree(empty)

    bench.each_engine("push", measure)
    bench.each_engine("push, kept compressed", measure, "--keep-compressed", of=DavitEngine)


def wire_rate(registry, client):
    """Bytes per second that the daemon's kernel acknowledges while a client waits for them, without
    the first and the last second: then buffers are filled, and emptied."""
    samples = []
    while client.poll() is None:
        samples.append((time.monotonic(), registry.wire_bytes()))
        time.sleep(0.05)
    wait_all([client])
    begun = next(when for when, count in samples if count > samples[0][1])
    middle = [one for one in samples if begun + 1 <= one[0] <= samples[-1][0] - 1]
    (first, before), (last, after) = middle[0], middle[-1]
    return (after - before) / (last - first)


def cap(bench):
    image, other = bench.image(6, 4, seed=8), bench.image(6, 4, seed=9)
    with bench.far_side(50) as (_, registry):
        names = [registry.push("bench/cap", image), registry.push("bench/other", other)]

        def one(engine):
            return {"kB/s": wire_rate(registry, engine.client(
                "pull", "--limit-rate", "500k", names[0])) / 1000}

        def changed(engine):
            begin = engine.command("pull", "--detach", "--limit-rate", "250k", names[0])
            job = output(*begin).strip()
            run(*engine.command("jobs", "update", "--limit-rate", "500k", job),
                stdout=subprocess.DEVNULL)
            return {"kB/s": wire_rate(registry, engine.client("jobs", "watch", job)) / 1000}

        def two(engine):
            clients = [engine.client("pull", name) for name in names]
            rate = wire_rate(registry, clients[0])
            wait_all(clients)
            return {"kB/s": rate / 1000}

        def up(engine):
            engine.pull(names[0])
            with registry_at(engine.root / "empty") as empty:
                target = f"{empty.host}/bench/cap"
                run(*engine.command("tag", names[0], target), stdout=subprocess.DEVNULL)
                began = time.monotonic()
                wait_all([engine.client("push", "--limit-rate", "500k", target)])
                seconds = time.monotonic() - began
            return {"kB/s": compressed_size(image) / seconds / 1000}

        bench.each_engine("cap, a pull", one, of=DavitEngine)
        bench.each_engine("cap, changed", changed, of=DavitEngine)
        bench.each_engine("cap, two pulls", two, "--limit-rate", "500k", of=DavitEngine)
        bench.each_engine("cap, a push", up, "--keep-compressed", of=DavitEngine)


def watchers(bench):
    image = bench.image(12, 6, 2, seed=10)
    with bench.far_side(10) as (_, registry), tempfile.TemporaryDirectory() as generated:
        name = registry.push("bench/watched", image)
        messages = load_messages(generated)

        def connect(engine):
            api = Api(engine.daemon, messages)
            return api, next(api.pull(name, detach=True, cancel_on_leave=False)).job.id

        def idle(engine):
            registry.fault("/blobs/", Fault(hold=True))
            api, job = connect(engine)
            result = {}
            for connections, streams in ((10, 100), (1000, 1)):
                before = memory(engine.daemon.pid)["RssAnon"]
                with IdleWatchers(engine.daemon.socket, messages, job, connections, streams):
                    time.sleep(3)
                    more = memory(engine.daemon.pid)["RssAnon"] - before
                result[f"MiB, {connections} connections"] = more / 1024
            registry.clear_faults()
            registry.release()
            list(api.watch_job(job))
            return result

        def come_and_go(engine):
            api, job = connect(engine)
            return reconnect(api, job, 50, 0.3)

        bench.each_engine("watchers, 1,000 idle", idle, of=DavitEngine)
        bench.each_engine("watchers, coming and going", come_and_go, of=DavitEngine)


def small(bench):
    big = [bench.image(12, 12, seed=70 + number) for number in range(3)]
    little = [bench.image(0.8, 0.2, seed=80 + number) for number in range(2)]
    with bench.far_side(10) as (_, registry):
        bigs = [registry.push(f"bench/big{number}", one) for number, one in enumerate(big)]
        first, second = [registry.push(f"bench/small{number}", one)
                         for number, one in enumerate(little)]

        def measure(engine):
            result = {"alone": timed(engine.pull, first, 120),
                      "manifest_alone": timed(engine.pull, first, 120)}
            seen = registry.body_bytes()
            clients = [engine.client("pull", name) for name in bigs]
            try:
                registry.wait_for(lambda: registry.body_bytes() - seen > 5e6, "big pulls", 60)
                result["manifest_beside"] = timed(engine.pull, first, 120)
                result["beside"] = timed(engine.pull, second, 120)
            finally:
                for client in clients:
                    client.kill()
                    client.wait()
            return result

        bench.each_engine("small", measure)


# --- Showing -------------------------------------------------------------------------------------

SCENARIOS = [line, latency, kill, shared, straggler, closing, push, cap, watchers, small]


def ratio(bench, what, beside, against):
    """davit's `what` beside another's `against`, or None."""
    mine, theirs = bench.figure(what), bench.figure(against, beside)
    return mine / theirs if mine and theirs else None


def all_budgets(bench):
    """(what, figure, least, most, unit)"""
    own = DavitEngine.name
    yield "line: davit / curl", ratio(bench, "line: seconds", "curl", "line: seconds"), 0, 1.03, "x"
    yield ("latency: davit / dockerd",
           ratio(bench, "latency: seconds", "dockerd", "latency: seconds"), 0, 0.4, "x")
    yield "kill: bytes over the wire / image", largest(bench, "kill: wire"), 0, 1.02, "x"
    yield "shared: most often fetched", largest(bench, "shared: most fetched"), 0, 1.02, "x"
    yield ("shared: 10 images / their union",
           ratio(bench, "shared: seconds", own, "shared: union"), 0, 1.1, "x")
    yield ("straggler / clean", ratio(bench, "straggler: seconds", own, "straggler: clean"), 0, 1.2,
           "x")
    for title in ("after 8 MiB", "after 30 s"):
        yield (f"closing {title}: bytes over the wire / image",
               largest(bench, f"closing {title}: wire"), 0, 1.02, "x")
    for kind in ("push", "push, kept compressed"):
        yield (f"{kind}: davit / dockerd",
               ratio(bench, f"{kind}: seconds", "dockerd", "push: seconds"), 0, 0.4, "x")
    for kind in ("a pull", "changed", "two pulls", "a push"):
        yield f"cap, {kind}", bench.figure(f"cap, {kind}: kB/s"), 490, 510, " kB/s"
    yield ("1,000 idle watchers, 100 on a connection",
           largest(bench, "watchers, 1,000 idle: MiB, 10 connections"), 0, 10, " MiB")
    yield ("50 reconnects: percentage falls", largest(bench, "watchers, coming and going: falls"),
           0, 0, "")
    yield ("50 reconnects: results", smallest(bench, "watchers, coming and going: results"), 1, 1,
           "")
    for what, who in bench.figures.values:
        if what.endswith(": davitd MiB") and not what.startswith("watchers, 1,000"):
            yield (f"{what.rpartition(':')[0]}: davitd private at the peak",
                   bench.figures.largest(what, who), 0, MEMORY_MAX_MIB, " MiB")


def largest(bench, what):
    return max(bench.figures.values.get((what, DavitEngine.name), ()), default=None)


def smallest(bench, what):
    return min(bench.figures.values.get((what, DavitEngine.name), ()), default=None)


def show_all(bench):
    titles = []
    for what, _ in bench.figures.values:
        title, _, figure = what.rpartition(": ")
        if title not in titles and figure != "davitd MiB":
            titles.append(title)
    for title in titles:
        whats = dict.fromkeys(what for what, _ in bench.figures.values
                              if what.rpartition(": ")[0] == title and
                              not what.endswith("davitd MiB"))
        show_figures(bench.figures, title, whats)
    if bench.failures:
        table([("failed", "engine", "how"), *dict.fromkeys(bench.failures)])
    rows = [("budget", "measured", "allowed", "")]
    for what, figure, least, most, unit in all_budgets(bench):
        if figure is not None:
            allowed = f"{least} to {most}{unit}" if least else f"at most {most}{unit}"
            rows.append((what, show(figure) + unit, allowed,
                         "ok" if least <= figure <= most else "MISSED"))
    if len(rows) > 1:
        table(rows)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(",")  # noqa: E731
    names = [one.__name__ for one in SCENARIOS]
    parser.add_argument("--only", type=words, default=names, help="scenarios, with commas")
    parser.add_argument("--engines", type=words, default=[one.name for one in ENGINES],
                        help="with commas: davit,dockerd,podman")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, smaller images: to try it out")
    parser.add_argument("--seed", type=int, default=1, help="of the points at which to kill")
    parser.add_argument("--json", metavar="FILE", help="write the figures there; - for stdout")
    options = parser.parse_args(arguments)
    unknown = set(options.only) - set(names)
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}")
    if options.quick:
        options.rounds = 1
    return options


def main(arguments=None):
    options = parse(arguments)
    bench = Bench(options)
    for bench.round in range(options.rounds):
        for scenario in SCENARIOS:
            if scenario.__name__ not in options.only:
                continue
            try:
                scenario(bench)
            except BROKEN:
                say(f"{scenario.__name__} broke off:\n{traceback.format_exc()}")
                bench.failures.append((scenario.__name__, "", "broke off"))
    print(f"{options.rounds} rounds, fresh roots, {os.cpu_count()} CPUs, "
          f"load {os.getloadavg()[2]:.1f}\n")
    show_all(bench)
    write_json(options.json, {**{f"{who}: {what}": values
                                 for (what, who), values in bench.figures.values.items()},
                              "failures": bench.failures})


if __name__ == "__main__":
    sys.exit(main())
