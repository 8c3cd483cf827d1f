#!/usr/bin/python3
"""What archives of images cost: `save -o FILE` and `load -i FILE` of davit with each of its storage
drivers beside dockerd, podman and cp(1), with the Debian image of layers.py: 7 layers, 1.2 GB.

  save   to a file with cold caches, again with warm ones, and through a pipe; memory of davitd
  load   of what the same engine saved, with cold caches, and once more while it is there

Every engine has fresh roots; they take turns, round by round. `sync` is what a sync(1) right after it
still takes. Figures are medians. Needs root and `third_party/deps.sh build run test bench`."""

import argparse
import os
import subprocess
import sys

from common import (ENGINES, DavitEngine, PeakMemory, Scratch, debian_image, drop_caches, run, say,
                    show_figures, table, timed, verdicts, write_json)
from layers import Bench

PARTS = ["save", "load"]
SAVE_FIGURES = ["save", "save sync", "save again", "save piped", "save davitd MiB"]
LOAD_FIGURES = ["load", "load sync", "load again", "load davitd MiB", "load helpers MiB"]


def peak(engine, what, function, *arguments):
    """{what: seconds, "<what> davitd MiB": ...} of a call that davitd works for."""
    if not isinstance(engine, DavitEngine):
        return {what: timed(function, *arguments)}
    with PeakMemory(engine.daemon.pid) as sampled:
        seconds = timed(function, *arguments)
    return {what: seconds, f"{what}_davitd_MiB": sampled.peak["RssAnon"] / 1024,
            f"{what}_helpers_MiB": sampled.peak["helpers"] / 1024}


def command(engine, *arguments):
    run(*engine.command(*arguments), env=engine.environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def save(engine, name, target):
    target.unlink(missing_ok=True)  # podman refuses to write over it
    command(engine, "save", "-o", target, name)


def save_piped(engine, name):
    saving = subprocess.Popen([str(word) for word in engine.command("save", name)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, env=engine.environment())
    run("cat", stdin=saving.stdout, stdout=subprocess.DEVNULL)
    assert saving.wait() == 0


def measure_save(engine, name, target):
    drop_caches()
    figures = peak(engine, "save", save, engine, name, target)
    figures["save_sync"] = timed(os.sync)
    figures["save_again"] = timed(save, engine, name, target)
    os.sync()
    figures["save_piped"] = timed(save_piped, engine, name)
    return figures


def measure_load(engine, name, archive):
    engine.remove(name)
    drop_caches()
    figures = peak(engine, "load", command, engine, "load", "-i", archive)
    figures["load_sync"] = timed(os.sync)
    figures["load_again"] = timed(command, engine, "load", "-i", archive)
    return figures


def measure(bench, engine, name, label):
    archive = engine.root / "archive.tar"
    engine.pull(name)
    if "save" in bench.options.parts:
        bench.note(label, engine.name, **measure_save(engine, name, archive))
    else:
        save(engine, name, archive)
    if "load" in bench.options.parts:
        bench.note(label, engine.name, **measure_load(engine, name, archive))
    copy(bench, archive, label)


def copy(bench, archive, label):
    """The floor: the same bytes, and nothing done about them."""
    if not bench.with_floor or f"{label}: cp" in bench.copied:
        return
    bench.copied.add(f"{label}: cp")
    target = archive.with_suffix(".copy")
    drop_caches()
    seconds = timed(run, "cp", archive, target)
    bench.note(label, "cp", save=seconds, save_sync=timed(os.sync))
    bench.note(label, "cp", save_again=timed(run, "cp", archive, target))


def show_all(bench):
    figures = bench.figures
    show_figures(figures, "save, seconds", SAVE_FIGURES)
    show_figures(figures, "load, seconds", LOAD_FIGURES)
    rows = [(f"{what}: {who} / dockerd", figures.ratio(what, who, "dockerd"), 0.5, "x")
            for who in (one.name for one in bench.engines if issubclass(one, DavitEngine))
            for what in ("save", "save again", "load")]
    table(verdicts(rows))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--parts", type=words, default=PARTS, help="names with commas")
    parser.add_argument("--only", type=words, help="names with commas: " +
                        ",".join(one.name for one in ENGINES) + ",floor")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="write the figures there; - for stdout")
    bench = Bench(parser.parse_args(arguments))
    bench.copied = set()
    image, size = debian_image()
    say(f"{len(image.layers)} layers, {size / 1e6:.0f} MB")
    name = bench.registry.push("bench/debian", image)
    try:
        for label in bench.rounds():
            bench.each_engine(measure, name, label)
    finally:
        bench.registry.stop()
    print(f"{bench.options.rounds} rounds, {os.cpu_count()} CPUs, load {os.getloadavg()[2]:.1f}\n")
    show_all(bench)
    write_json(bench.options.json, {f"{who}: {what}": values
                                    for (what, who), values in bench.figures.values.items()})


if __name__ == "__main__":
    sys.exit(main())
