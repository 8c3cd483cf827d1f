#!/usr/bin/python3
"""A store of many images: how long `system df` takes, `rmi`, and the daemon's start. The images are
rows and small directories: what is measured does not depend on what is in layers.

Needs root and `third_party/deps.sh build run test`."""

import argparse
import hashlib
import json
import sqlite3
import sys
import tempfile
import time

import grpc

from common import Daemon, Scratch, memory, say, table, verdicts, write_json
from fake_daemon import load_messages

LAYERS_OWN, LAYERS_SHARED, GROUP = 4, 4, 10


def digest(*parts):
    return "sha256:" + hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()


def layers_of(number):
    """Each image has layers of its own, and some with nine others."""
    return ([digest("shared", number // GROUP, i) for i in range(LAYERS_SHARED)] +
            [digest("own", number, i) for i in range(LAYERS_OWN)])


def fill(data_root, count):
    """Adds rows and directories of `count` images to a store that is not running."""
    now = time.time_ns()
    known = set()
    with sqlite3.connect(data_root / "davit.db") as database:
        for number in range(count):
            config = json.dumps({"number": number, "history": ["x" * 60] * 30}).encode()
            manifest = json.dumps({"number": number, "layers": layers_of(number)}).encode()
            image = "sha256:" + hashlib.sha256(config).hexdigest()
            database.execute("INSERT INTO images VALUES (?, ?, ?, 'linux', 'amd64', ?, ?, ?)",
                             (image, "sha256:" + hashlib.sha256(manifest).hexdigest(), now + number,
                              8000, manifest, config))
            for position, layer in enumerate(layers_of(number)):
                database.execute("INSERT INTO image_layers VALUES (?, ?, ?)",
                                 (image, position, layer))
                if layer in known:
                    continue
                known.add(layer)
                directory = data_root / "layers" / layer.split(":")[1]
                directory.mkdir()
                (directory / "layer.tar").write_bytes(b"x" * 1000)
                database.execute(
                    "INSERT INTO layers (diff_id, tar_bytes, content_bytes, created_unix_ns,"
                    " disk_bytes, verified_unix_ns) VALUES (?, 1000, 1000, ?, 8192, ?)",
                    (layer, now, now))
            for kind, name in (("tag", f"docker.io/bench/image{number}:latest"),
                               ("digest", f"docker.io/bench/image{number}@{image}")):
                database.execute("INSERT INTO image_names VALUES (?, ?, ?)", (name, kind, image))
    return len(known)


class Client:
    def __init__(self, daemon, messages):
        self.channel = grpc.insecure_channel(daemon.host)
        self.messages = messages

    def call(self, method, request, response):
        """Milliseconds."""
        function = self.channel.unary_unary(method, response_deserializer=response.FromString,
                                            request_serializer=type(request).SerializeToString)
        begin = time.monotonic()
        function(request)
        return (time.monotonic() - begin) * 1000

    def df(self, verbose):
        system = self.messages.system
        return self.call("/davit.v1.System/DiskUsage", system.DiskUsageRequest(verbose=verbose),
                         system.DiskUsageResponse)

    def remove(self, name):
        images = self.messages.images
        return self.call("/davit.v1.Images/Remove", images.RemoveImageRequest(reference=name),
                         images.RemoveImageResponse)


def start_daemon(root):
    daemon = Daemon(root)
    begin = time.monotonic()
    daemon.start()
    return daemon, (time.monotonic() - begin) * 1000


def measure(count, rounds, messages):
    with Scratch() as root:
        start_daemon(root)[0].stop()
        layers = fill(root / "data", count)
        start_daemon(root)[0].stop()
        daemon, ready_ms = start_daemon(root)
        client = Client(daemon, messages)
        client.df(False)  # connects
        result = {"images": count, "layers": layers, "start_ms": ready_ms}
        for name, verbose in (("df_ms", False), ("df_verbose_ms", True)):
            result[name] = sorted(client.df(verbose) for _ in range(rounds))
        result["private_kib"] = memory(daemon.pid)["RssAnon"]
        result["rmi_ms"] = sorted(client.remove(f"bench/image{number}")
                                  for number in range(0, count, max(1, count // 50)))
        daemon.stop()
    return result


def percentile(values, part):
    return values[min(len(values) - 1, int(len(values) * part))]


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", default="100,1000,10000", help="how many, several with commas")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        messages = load_messages(directory)
        results = []
        for count in map(int, options.images.split(",")):
            say(f"{count} images")
            results.append(measure(count, options.rounds, messages))
    rows = [["images", "layers", "df p50", "df p99", "df -v p50", "df -v p99", "rmi p50", "rmi p99",
             "start", "private KiB"]]
    for result in results:
        rows.append([str(result["images"]), str(result["layers"]),
                     *(f"{percentile(result[name], part):.2f} ms"
                       for name in ("df_ms", "df_verbose_ms", "rmi_ms") for part in (0.5, 0.99)),
                     f"{result['start_ms']:.0f} ms", str(result["private_kib"])])
    table(rows)
    table(verdicts([(f"df of {result['images']} images, p99", percentile(result["df_ms"], 0.99), 10,
                     "ms") for result in results]))
    write_json(options.json, results)


if __name__ == "__main__":
    main(sys.argv[1:])
