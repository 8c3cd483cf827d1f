#!/usr/bin/python3
"""What the layer store costs: davit with each of its storage drivers beside dockerd (overlay2),
podman (overlay) and the floor, which is floor.c: fetch, inflate, hash and write with no engine.

  pull    cold pull of a Debian image: 7 layers, 450 MB compressed, 1.2 GB; memory of davitd
  read    all files of that image, walked and then read from a container, each with cold caches
  rmi     removal of that image
  small   pull and rmi of an image of 40 small layers
  mounts  containers of two images that share layers: how many mounts, and how fast
  scale   one layer of 1 k to 1 M files: pull, run, rmi, beside GNU tar unpacking it

Every measurement has fresh roots and cold caches; the engines take turns, round by round. Figures
are medians, with the smallest and the largest. Needs root and
`third_party/deps.sh build run test bench`."""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import traceback

from common import (CACHE, ENGINES, DavitEngine, DirectoryEngine, Figures, Floor, PeakMemory,
                    Registry, Scratch, debian_image, drop_caches, files_image, mounts_of, output,
                    run, say, show, show_figures, sleeper, small_image, table, timed, verdicts,
                    wait_until, write_json)

PARTS = ["pull", "read", "rmi", "small", "mounts", "scale"]
ON_DEBIAN = ["pull", "read", "rmi"]
FILE_COUNTS = [1_000, 10_000, 100_000, 1_000_000]
# One round of layers with more files, and not of the driver that unpacks: removal takes minutes.
MANY_FILES = 100_000
CONTAINERS = 10
BROKEN = (AssertionError, OSError, RuntimeError, subprocess.SubprocessError)


class Bench:
    """The registry, those who compete, and what was measured."""

    def __init__(self, options):
        self.options = options
        self.figures = Figures()
        self.floor = Floor()
        wanted = options.only
        self.engines = [one for one in ENGINES
                        if (not wanted or one.name in wanted) and one.available()]
        self.with_floor = not wanted or "floor" in wanted
        store = CACHE / "registry"
        store.mkdir(exist_ok=True)
        self.registry = Registry(store)

    def storage_drivers(self):
        """By which each davit keeps layers here, for the head of the figures."""
        for engine_class in self.engines:
            if issubclass(engine_class, DavitEngine):
                with Scratch() as root, engine_class(root) as engine:
                    info = output(*engine.command("info"))
                yield f"{engine_class.name}: {re.search('storage driver: (.*)', info, re.I)[1]}"

    def rounds(self):
        for number in range(self.options.rounds):
            yield f"round {number + 1}"

    def each_engine(self, measure, *arguments, of=object, but=()):
        """measure(bench, engine, ...) on fresh roots for each; one that cannot is left out."""
        for engine_class in self.engines:
            if not issubclass(engine_class, of) or issubclass(engine_class, but):
                continue
            try:
                with Scratch() as root, engine_class(root) as engine:
                    measure(self, engine, *arguments)
            except BROKEN:
                say(f"left out: {engine_class.name}: {traceback.format_exc(limit=0)}")

    def note(self, label, who, **values):
        for what, value in values.items():
            self.figures.add(what.replace("_", " "), who, value)
        say(f"{label}: {who}: " + ", ".join(f"{what.replace('_', ' ')} {value:.3g}"
                                            for what, value in values.items()))


# --- The parts -----------------------------------------------------------------------------------


def measure_pull(engine, name):
    """{"seconds", "sync": what is left to reach the disk}, and davitd's memory in MiB."""
    drop_caches()
    if not isinstance(engine, DavitEngine):
        return {"pull": timed(engine.pull, name), "sync": timed(os.sync)}
    with PeakMemory(engine.daemon.pid) as sampled:
        seconds = timed(engine.pull, name)
    return {"pull": seconds, "sync": timed(os.sync), "davitd_MiB": sampled.peak["RssAnon"] / 1024,
            "helpers_MiB": sampled.peak["helpers"] / 1024}


def measure_floor(bench, repository, image, label, prefix=""):
    for durable in (False, True):
        who = "floor, durable" if durable else "floor"
        with Scratch() as root:
            drop_caches()
            seconds = timed(bench.floor.fetch, bench.registry, repository, image, root, durable)
            bench.note(label, who, **{prefix + "pull": seconds, prefix + "sync": timed(os.sync)})


def measure_read(bench, engine, name):
    """Seen from the host, through the root of a process in a container."""
    result = {}
    with sleeper(engine, name) as (_, pid):
        root = f"/proc/{pid}/root"
        for what in ("walk", "read"):
            drop_caches()
            result[what] = timed(bench.floor.look, what, root)
        result["read_again"] = timed(bench.floor.look, "read", root)
    return result


def measure_rmi(engine, name):
    result = {"rmi": timed(engine.remove, name)}
    if isinstance(engine, DavitEngine):
        started = time.monotonic()
        wait_until(engine.is_empty, "the removed layers' files to go", 600)
        result["gone"] = result["rmi"] + time.monotonic() - started
    return result


def debian_round(bench, engine, name, label):
    bench.note(label, engine.name, **measure_pull(engine, name))
    if "read" in bench.options.parts:
        bench.note(label, engine.name, **measure_read(bench, engine, name))
    if "rmi" in bench.options.parts:
        drop_caches()
        bench.note(label, engine.name, **measure_rmi(engine, name))


def part_debian(bench):
    image, size = debian_image()
    name = bench.registry.push("bench/debian", image)
    compressed = sum(one.path.stat().st_size for one in image.layers)
    say(f"{len(image.layers)} layers, {compressed / 1e6:.0f} MB compressed, {size / 1e6:.0f} MB")
    for label in bench.rounds():
        bench.each_engine(debian_round, name, label)
        if bench.with_floor:
            measure_floor(bench, "bench/debian", image, label)


def small_round(bench, engine, name, label):
    pulled, removed = measure_pull(engine, name), measure_rmi(engine, name)
    bench.note(label, engine.name, small_pull=pulled["pull"], small_sync=pulled["sync"],
               small_rmi=removed["rmi"])


def part_small(bench):
    image = small_image(40)
    name = bench.registry.push("bench/small", image)
    for label in bench.rounds():
        bench.each_engine(small_round, name, label)
        if bench.with_floor:
            measure_floor(bench, "bench/small", image, label, "small_")


def mounts_round(bench, engine, names, label):
    for name in names:
        engine.pull(name)
    with contextlib.ExitStack() as running:
        started = time.monotonic()
        for number in range(CONTAINERS):
            running.enter_context(sleeper(engine, names[number % len(names)]))
        seconds = time.monotonic() - started
        kinds = mounts_of(engine.root)
    bench.note(label, engine.name, start_per_container=seconds / CONTAINERS,
               mounts=sum(kinds.values()), layer_mounts=kinds["erofs"])


def part_mounts(bench):
    names = [bench.registry.push("bench/shared", small_image(20, top), tag)
             for top, tag in ((b"a", "a"), (b"b", "b"))]
    for label in bench.rounds():
        bench.each_engine(mounts_round, names, label)


def tar_unpacks(image, root):
    """GNU tar, of what igzip inflates, until it is on the disk: (seconds, until durable)."""
    drop_caches()
    blob = image.layers[-1].path
    unpack = timed(run, "tar", "-x", "-I", "igzip", "--numeric-owner", "-C", root, "-f", blob)
    return unpack, timed(os.sync)


def scale_round(bench, engine, name, count, label):
    pulled = measure_pull(engine, name)
    ran = timed(engine.run_true, name)
    removed = measure_rmi(engine, name)
    bench.note(label, engine.name, **{
        f"{count}_pull": pulled["pull"], f"{count}_run": ran, f"{count}_rmi": removed["rmi"],
        f"{count}_gone": removed["gone"], f"{count}_davitd": pulled["davitd_MiB"],
        f"{count}_helpers": pulled["helpers_MiB"]})


def part_scale(bench):
    for count in bench.options.files:
        image = files_image(count)
        name = bench.registry.push("bench/files", image, str(count))
        many = count > MANY_FILES
        for label in list(bench.rounds())[:1 if many else None]:
            bench.each_engine(scale_round, name, count, label, of=DavitEngine,
                              but=DirectoryEngine if many else ())
            if bench.with_floor:
                with Scratch() as root:
                    unpack, sync = tar_unpacks(image, root)
                    bench.note(label, "tar", **{f"{count}_pull": unpack + sync,
                                                f"{count}_gone": timed(shutil.rmtree, root)})


# --- Showing -------------------------------------------------------------------------------------


def show_scale(figures, counts):
    rows = [("one layer of", "", "pull s", "us/file", "run s", "rmi s", "gone s", "davitd MiB",
             "helpers MiB")]
    for count in counts:
        for who in figures.whos(f"{count} pull"):
            cells = [figures.median(f"{count} {what}", who)
                     for what in ("pull", "run", "rmi", "gone", "davitd", "helpers")]
            pull = cells[0]
            rows.append((f"{count} files", who, show(pull), f"{pull * 1e6 / count:.1f}",
                         *("" if cell is None else show(cell) for cell in cells[1:])))
    if len(rows) > 1:
        table(rows)


def show_all(bench):
    figures = bench.figures
    show_figures(figures, "7 layers, seconds",
                 ["pull", "sync", "walk", "read", "read again", "rmi", "gone"])
    show_figures(figures, "memory, MiB", ["davitd MiB", "helpers MiB"])
    show_figures(figures, "40 layers, seconds", ["small pull", "small sync", "small rmi"])
    show_figures(figures, f"{CONTAINERS} containers, 2 images of 21 layers, 20 of them shared",
                 ["start per container", "mounts", "layer mounts"])
    show_scale(figures, bench.options.files)
    budgets = []
    for who in [one.name for one in bench.engines if issubclass(one, DavitEngine)]:
        budgets += [
            (f"pull: {who} / dockerd", figures.ratio("pull", who, "dockerd"), 0.2, "x"),
            (f"pull: {who} / floor", figures.ratio("pull", who, "floor"), 1.5, "x"),
            (f"pull: {who} / floor, durable", figures.ratio("pull", who, "floor, durable"), 1.5,
             "x"),
            (f"{who}: davitd private at the peak", figures.largest("davitd MiB", who), 32, " MiB"),
        ]
    if any(figure is not None for _, figure, _, _ in budgets):
        table(verdicts(budgets))


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--parts", type=words, default=PARTS, help="names with commas")
    parser.add_argument("--only", type=words, help="names with commas: " +
                        ",".join(one.name for one in ENGINES) + ",floor")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=lambda text: [int(one) for one in text.split(",")],
                        default=FILE_COUNTS, help="how many in a layer, for scale")
    parser.add_argument("--json", metavar="FILE", help="write the figures there; - for stdout")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    return options


def main(arguments=None):
    options = parse(arguments)
    bench = Bench(options)
    parts = [(part_debian, ON_DEBIAN), (part_small, ["small"]), (part_mounts, ["mounts"]),
             (part_scale, ["scale"])]
    try:
        drivers = ", ".join(bench.storage_drivers())
        for part, names in parts:
            if not set(names) & set(options.parts):
                continue
            try:
                part(bench)
            except BROKEN:
                say(f"{part.__name__} broke off:\n{traceback.format_exc()}")
    finally:
        bench.registry.stop()
    print(f"{options.rounds} rounds, fresh roots, cold caches, {os.cpu_count()} CPUs, "
          f"load {os.getloadavg()[2]:.1f}; {drivers}\n")
    show_all(bench)
    write_json(options.json, {f"{who}: {what}": values
                              for (what, who), values in bench.figures.values.items()})


if __name__ == "__main__":
    sys.exit(main())
