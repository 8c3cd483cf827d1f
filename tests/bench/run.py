#!/usr/bin/python3
"""`run --rm --network none IMAGE true`: davit beside bare `runc run` of the bundle that davit made,
and beside dockerd and podman where they are installed. And the daemon itself: memory when idle,
time from its start to its being ready.

Needs root and `third_party/deps.sh build run test`, and `bench` for the other engines."""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time

from common import (ENGINES, DavitEngine, Registry, Scratch, images, median, memory, say, table,
                    timed, verdicts, write_json)


def take_bundle(engine, image, target):
    """The runtime configuration davit makes for this image, over a plain root directory."""
    shown = subprocess.Popen(engine.command("run", "--rm", "--network", "none", image, "sh", "-c",
                                            "echo up; sleep 1000"),
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    shown.stdout.readline()
    found = list(engine.root.glob("**/config.json"))
    found = [path for path in found if "ociVersion" in path.read_text()]
    assert len(found) == 1, found
    config = json.loads(found[0].read_text())
    root = found[0].parent / config["root"]["path"]
    subprocess.run(["cp", "-a", root, target / "rootfs"], check=True)
    for mount in config["mounts"]:
        if mount.get("type") == "bind" or "bind" in mount.get("options", []):
            copy = target / mount["destination"].replace("/", "_")
            shutil.copy(mount["source"], copy)
            mount["source"] = str(copy)
    shown.send_signal(signal.SIGKILL)
    shown.communicate()
    config["root"]["path"] = "rootfs"
    config["process"]["args"] = ["true"]
    config["process"]["terminal"] = False
    config.pop("hooks", None)
    (target / "config.json").write_text(json.dumps(config))


class BareRuntime:
    def __init__(self, bundle, runtime):
        self.bundle, self.runtime, self.number = bundle, runtime, 0

    def run_true(self, _):
        self.number += 1
        config = json.loads((self.bundle / "config.json").read_text())
        # A control group by this name was davit's.
        config["linux"]["cgroupsPath"] = f"/davit-bench/{self.number}"
        (self.bundle / "config.json").write_text(json.dumps(config))
        subprocess.run([self.runtime, "--root", self.bundle / "state", "run", "--bundle",
                        self.bundle, f"bench{self.number}"], check=True, stdin=subprocess.DEVNULL)


def time_start():
    """Seconds from exec to READY=1 on an empty data root, and memory then."""
    with Scratch() as root:
        engine = DavitEngine(root)
        engine.daemon.start()
        engine.daemon.stop()  # the first start makes the database; the next is what counts
        started = time.monotonic()
        engine.daemon.start()
        seconds = next(when for when, line in engine.daemon.notify.messages
                       if line == "READY=1") - started
        idle = memory(engine.daemon.pid)
        engine.stop()
        return seconds, idle


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", help="names with commas: davit,dockerd,podman")
    parser.add_argument("--json", metavar="FILE", help="write the figures there; - for stdout")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else None

    started, scratches, times = [], [], {}

    def scratch():
        scratches.append(Scratch())
        return scratches[-1].__enter__()

    registry = None
    try:
        registry = Registry(scratch())
        name = registry.push("bench/busybox", images.busybox_image())
        contenders = {}
        for engine_class in ENGINES:
            if (wanted and engine_class.name not in wanted) or not engine_class.available():
                continue
            engine = engine_class(scratch())
            engine.start()
            started.append(engine)
            engine.pull(name)
            contenders[engine_class.name] = engine
            if engine_class is DavitEngine:
                runtime = shutil.which("crun") or shutil.which("runc")
                bundle = scratch()
                take_bundle(engine, name, bundle)
                contenders[runtime.rsplit("/", 1)[1]] = BareRuntime(bundle, runtime)
        # Once to warm up, and to see which of the others can run at all on this machine.
        for who, contender in list(contenders.items()):
            try:
                contender.run_true(name)
            except RuntimeError as error:
                if who == "davit":
                    raise
                say(f"left out: {who}: {error}")
                del contenders[who]
        for _ in range(options.rounds):
            for who, contender in contenders.items():
                times.setdefault(who, []).append(timed(contender.run_true, name))
        after = memory(contenders["davit"].daemon.pid) if "davit" in contenders else None
    finally:
        for engine in started:
            engine.stop()
        if registry:
            registry.stop()
        for one in scratches:
            one.__exit__()
    starts = [time_start() for _ in range(10)] if wanted is None or "davit" in wanted else []

    print(f"run --rm --network none busybox true, {options.rounds} rounds\n")
    medians = {who: median(values) for who, values in times.items()}
    ours = medians.get("davit")
    rows = [("engine", "median ms", "best ms", "davit is")]
    for who, value in medians.items():
        ratio = f"{ours / value:.2f}x" if ours and who != "davit" else ""
        rows.append((who, f"{value * 1e3:.1f}", f"{min(times[who]) * 1e3:.1f}", ratio))
    table(rows)
    ratio = {who: ours / value for who, value in medians.items()} if ours else {}
    bare = ratio.get("runc", ratio.get("crun"))
    ready = median([seconds for seconds, _ in starts]) * 1e3 if starts else None
    table(verdicts([
        ("davit / bare runtime", bare, 2.5, "x"),
        ("davitd start to ready", ready, 30, " ms"),
        ("davitd idle, private", max(one["RssAnon"] for _, one in starts) / 1024 if starts
         else None, 4, " MiB"),
        ("davitd idle, resident", max(one["VmRSS"] for _, one in starts) / 1024 if starts
         else None, 20, " MiB"),
    ]))
    write_json(options.json, {
        "seconds": times, "median_seconds": medians, "ratio": ratio,
        "start_to_ready_seconds": [seconds for seconds, _ in starts],
        "idle_memory_kib": [one for _, one in starts], "memory_after_runs_kib": after,
    })


if __name__ == "__main__":
    sys.exit(main())
