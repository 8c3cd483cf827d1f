#!/usr/bin/python3
"""Pulls a Debian image of 7 layers (450 MB compressed, 1.2 GB) from a registry on loopback: davit
beside dockerd and podman, where they are installed, and beside the floor, which is what download,
inflate, hash and write cost with no engine. Every run has fresh roots and cold caches.

Needs root and `third_party/deps.sh build run test bench`."""

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from common import (CACHE, ENGINES, DavitEngine, PeakMemory, Registry, Scratch, debian_image,
                    drop_caches, median, memory, say, table, timed, verdicts, write_json)

REPOSITORY = "bench/debian"


def floor(registry, image, root):
    """Every layer by curl, igzip (or gzip), sha256sum of both sides, one sequential write and one
    fsync: 3 at a time, as engines do."""
    inflate = "igzip -dc" if shutil.which("igzip") else "gzip -dc"

    def one(layer):
        target = root / layer.digest[7:]
        script = (f"curl -sf {registry.url}/v2/{REPOSITORY}/blobs/{layer.digest} | "
                  f"tee >(sha256sum >{target}.digest) | {inflate} | tee {target} | sha256sum "
                  f">{target}.diff; sync {target}")
        subprocess.run(["bash", "-eo", "pipefail", "-c", script], check=True)
        assert (root / f"{target}.diff").read_text()[:64] == layer.diff_id[7:]

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(one, image.layers))


def measure_engine(engine_class, name):
    """(seconds, memory of davitd or None) of one pull on fresh roots with cold caches."""
    with Scratch() as root:
        engine = engine_class(root)
        engine.start()
        figures = None
        try:
            drop_caches()
            if engine_class is DavitEngine:
                idle = memory(engine.daemon.pid)
                with PeakMemory(engine.daemon.pid) as sampled:
                    seconds = timed(engine.pull, name)
                figures = {"idle": idle, "peak": sampled.peak,
                           "after": memory(engine.daemon.pid)}
            else:
                seconds = timed(engine.pull, name)
        finally:
            engine.stop()
        return seconds, figures


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="names with commas: davit,dockerd,podman,floor")
    parser.add_argument("--json", metavar="FILE", help="write the figures there; - for stdout")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else None

    image, size = debian_image()
    store = CACHE / "registry"
    store.mkdir(exist_ok=True)
    registry = Registry(store)
    try:
        name = registry.push(REPOSITORY, image)
        compressed = sum(one.path.stat().st_size for one in image.layers)
        contenders = [one for one in ENGINES
                      if (wanted is None or one.name in wanted) and one.available()]
        times, figures = {}, []
        for number in range(options.rounds):
            for engine_class in contenders:
                seconds, memories = measure_engine(engine_class, name)
                times.setdefault(engine_class.name, []).append(seconds)
                figures += [memories] if memories else []
                say(f"round {number + 1}: {engine_class.name} {seconds:.1f} s")
            if wanted is None or "floor" in wanted:
                with Scratch() as root:
                    drop_caches()
                    seconds = timed(floor, registry, image, root)
                times.setdefault("floor", []).append(seconds)
                say(f"round {number + 1}: floor {seconds:.1f} s")
    finally:
        registry.stop()

    print(f"pull of {len(image.layers)} layers, {compressed / 1e6:.0f} MB compressed, "
          f"{size / 1e6:.0f} MB, {options.rounds} rounds, cold caches, {os.cpu_count()} CPUs\n")
    medians = {who: median(values) for who, values in times.items()}
    ours = medians.get("davit")
    rows = [("engine", "median s", "best s", "davit is")]
    for who, value in medians.items():
        ratio = f"{ours / value:.2f}x" if ours and who != "davit" else ""
        rows.append((who, f"{value:.2f}", f"{min(times[who]):.2f}", ratio))
    table(rows)

    ratio = {who: ours / value for who, value in medians.items()} if ours else {}
    peak = {key: max(one["peak"][key] for one in figures) / 1024 for key in
            ("RssAnon", "RssAnonAll", "VmRSS")} if figures else {}
    budgets = [
        ("davit / dockerd", ratio.get("dockerd"), 0.6, "x"),
        ("davit / floor", ratio.get("floor"), 1.5, "x"),
        ("davitd private at the peak", peak.get("RssAnon"), 32, " MiB"),
        ("davitd and its helpers", peak.get("RssAnonAll"), 32, " MiB"),
    ]
    table(verdicts(budgets))
    write_json(options.json, {
        "image": {"layers": len(image.layers), "compressed_bytes": compressed, "bytes": size},
        "seconds": times, "median_seconds": medians, "ratio": ratio, "davitd_memory_kib": figures,
    })


if __name__ == "__main__":
    sys.exit(main())
