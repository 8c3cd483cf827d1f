#!/usr/bin/python3
"""A store of many images: how long lists take, `system df`, `rmi`, and the daemon's start.

scale: 100 to 10,000 images, which are rows and small directories: what is measured does not depend
on what is in layers. tags: 10,000 tags on ten of them. beside: 100 small images and one of 40 layers
beside dockerd and podman, loaded from one archive into each.

Needs root and `third_party/deps.sh build run test`, and `bench` for the other engines."""

import argparse
import hashlib
import http.client
import importlib.util
import json
import os
import pathlib
import socket
import sqlite3
import sys
import tempfile
import time

import grpc

from common import (HERE, Daemon, DavitEngine, DockerEngine, PodmanEngine, Scratch, images, median,
                    memory, say, table, verdicts, write_json)
from fake_daemon import load_messages

LAYERS_OWN, LAYERS_SHARED, GROUP = 4, 4, 10


def digest(*parts):
    return "sha256:" + hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()


def layers_of(number):
    """Each image has layers of its own, and some with nine others."""
    return ([digest("shared", number // GROUP, i) for i in range(LAYERS_SHARED)] +
            [digest("own", number, i) for i in range(LAYERS_OWN)])


def fill(data_root, count, tags=1):
    """Adds rows and directories of `count` images with so many tags each to a store that is not
    running."""
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
            names = [("tag", f"docker.io/bench/image{number}:{tag or 'latest'}")
                     for tag in range(tags)]
            for kind, name in [*names, ("digest", f"docker.io/bench/image{number}@{image}")]:
                database.execute("INSERT INTO image_names VALUES (?, ?, ?)", (name, kind, image))
    return len(known)


class Client:
    def __init__(self, daemon, messages):
        # Of its own: not the connection to a daemon that was there before.
        self.channel = grpc.insecure_channel(daemon.host,
                                             [("grpc.use_local_subchannel_pool", 1)])
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

    def list(self):
        """All of it, as `davit images` asks for it: a page after the other."""
        api = self.messages.images
        function = self.channel.unary_unary(
            "/davit.v1.Images/List", response_deserializer=api.ListImagesResponse.FromString,
            request_serializer=api.ListImagesRequest.SerializeToString)
        begin, token, count = time.monotonic(), "", 0
        while True:
            answer = function(api.ListImagesRequest(page_token=token))
            count, token = count + len(answer.images), answer.next_page_token
            if not token:
                self.listed = count
                return (time.monotonic() - begin) * 1000

    def remove(self, name):
        api = self.messages.images
        return self.call("/davit.v1.Images/Remove", api.RemoveImageRequest(reference=name),
                         api.RemoveImageResponse)


def start_daemon(root):
    daemon = Daemon(root)
    begin = time.monotonic()
    daemon.start()
    return daemon, (time.monotonic() - begin) * 1000


def cpu_ms(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def measure(count, rounds, messages, tags=1):
    with Scratch() as root:
        start_daemon(root)[0].stop()
        layers = fill(root / "data", count, tags)
        start_daemon(root)[0].stop()
        daemon, ready_ms = start_daemon(root)
        result = {"images": count, "tags": count * tags, "layers": layers, "start_ms": ready_ms,
                  "start_cpu_ms": cpu_ms(daemon.pid), "private_kib": memory(daemon.pid)["RssAnon"]}
        client = Client(daemon, messages)
        client.df(False)  # connects
        result["list_ms"] = sorted(client.list() for _ in range(rounds))
        assert client.listed == count
        for name, verbose in (("df_ms", False), ("df_verbose_ms", True)):
            result[name] = sorted(client.df(verbose) for _ in range(rounds))
        names = [f"bench/image{number}" for number in range(0, count, max(1, count // 50))]
        result["rmi_ms"] = sorted(map(client.remove, names))
        daemon.stop()
    return result


def percentile(values, part):
    return values[min(len(values) - 1, int(len(values) * part))]


def show_scale(results):
    rows = [["images", "tags", "layers", "list p50", "list p99", "df p50", "df p99", "df -v p50",
             "df -v p99", "rmi p50", "rmi p99", "start", "its CPU", "private KiB"]]
    for result in results:
        rows.append([*(str(result[name]) for name in ("images", "tags", "layers")),
                     *(f"{percentile(result[name], part):.2f} ms"
                       for name in ("list_ms", "df_ms", "df_verbose_ms", "rmi_ms")
                       for part in (0.5, 0.99)),
                     *(f"{result[name]:.0f} ms" for name in ("start_ms", "start_cpu_ms")),
                     str(result["private_kib"])])
    table(rows)
    kept = []
    for result in results:
        what = f"{result['images']} images, {result['tags']} tags"
        kept.append((f"df of {what}, p99", percentile(result["df_ms"], 0.99), 10, "ms"))
        if result["images"] <= 100 and result["tags"] <= 100:
            kept.append((f"list of {what}, p99", percentile(result["list_ms"], 0.99), 2, "ms"))
            kept.append((f"private memory, {what}", result["private_kib"] / 1024, 4, "MiB"))
        kept.append((f"start with {what}", result["start_ms"], 200, "ms"))
    table(verdicts(kept))


# --- Beside other engines ------------------------------------------------------------------------


SMALL, DEEP_LAYERS = 100, 40


def e2e_module(name):
    """One that is not the benchmark of that name."""
    spec = importlib.util.spec_from_file_location(f"e2e_{name}", HERE.parent / f"e2e/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_archive(path):
    """Images that share two of three layers, by tens; and one of many, more than once."""
    def layer(*words):
        return images.layer([images.file("-".join(map(str, words)), " ".join(map(str, words)))],
                            "none")

    named = [(images.image([layer("shared", number // 10, "a"), layer("shared", number // 10, "b"),
                            layer("own", number)]), [f"bench/small{number}:latest"])
             for number in range(SMALL)]
    named += [(images.image([layer("deep", number, i) for i in range(DEEP_LAYERS)]),
               [f"bench/deep{number}:latest"]) for number in range(10)]
    archives = e2e_module("archives")
    path.write_bytes(archives.pack(archives.docker_members(*named)))


def run_quietly(engine, *arguments):
    begin = time.monotonic()
    engine._quiet(engine.command(*arguments))
    return (time.monotonic() - begin) * 1000


class DockerClient:
    """Its API, without its command line."""

    def __init__(self, host):
        self.path = host.removeprefix("unix://")
        self.connection = http.client.HTTPConnection("localhost")
        self.connection.sock = socket.socket(socket.AF_UNIX)
        self.connection.sock.connect(self.path)

    def ask(self, method, target):
        begin = time.monotonic()
        self.connection.request(method, target)
        answer = self.connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        return (time.monotonic() - begin) * 1000

    def list(self):
        return self.ask("GET", "/images/json")

    def remove(self, name):
        return self.ask("DELETE", f"/images/{name}")


def clients_of(engine, messages):
    """What has an API without a command line; and a pid."""
    if isinstance(engine, DavitEngine):
        client = Client(engine.daemon, messages)
        client.df(False)
        return client, engine.daemon.pid
    if isinstance(engine, DockerEngine):
        return DockerClient(engine.host), engine.process.pid
    return None, None


def measure_beside(kind, archive, rounds, messages):
    result = {"engine": kind.name}
    with Scratch() as root, kind(root) as engine:
        engine._quiet(engine.command("load", "-q", "-i", archive))
        client, pid = clients_of(engine, messages)
        result["images_cli_ms"] = sorted(run_quietly(engine, "images", "-q")
                                         for _ in range(max(3, rounds // 10)))
        if client:
            result["list_ms"] = sorted(client.list() for _ in range(rounds))
        result["rmi_cli_ms"] = sorted(run_quietly(engine, "rmi", f"bench/deep{number}")
                                      for number in range(5))
        if client:
            result["rmi_ms"] = sorted(client.remove(f"bench/deep{number}:latest")
                                      for number in range(5, 10))
            engine.stop()
            begin = time.monotonic()
            engine.start()
            result["start_ms"] = [(time.monotonic() - begin) * 1000]
            result["private_kib"] = memory(clients_of(engine, messages)[1])["RssAnon"]
    return result


def show_beside(results):
    names = [("list over the API, p50", "list_ms", 0.5), ("the same, p99", "list_ms", 0.99),
             ("`images -q`", "images_cli_ms", 0.5),
             (f"rmi of {DEEP_LAYERS} layers, API", "rmi_ms", 0.5),
             (f"`rmi` of {DEEP_LAYERS} layers", "rmi_cli_ms", 0.5), ("start", "start_ms", 0.5)]
    ours = results[0]
    rows = [[f"{SMALL} images", *(result["engine"] for result in results)]]
    for label, name, part in names:
        row = [label]
        for result in results:
            if name not in result:
                row.append("")
                continue
            value = percentile(result[name], part)
            ratio = percentile(ours[name], part) / value
            row.append(f"{value:.2f} ms" + (f" ({ratio:.2f}x)" if result is not ours else ""))
        rows.append(row)
    rows.append(["private KiB", *(str(result.get("private_kib", "")) for result in results)])
    table(rows)
    table(verdicts([("list of 100 images, p99", percentile(ours["list_ms"], 0.99), 2, "ms"),
                    ("rmi of 40 layers", median(ours["rmi_ms"]), 20, "ms")]))


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default="scale,tags,beside")
    parser.add_argument("--images", default="100,1000,10000", help="how many, several with commas")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    parts, results = options.parts.split(","), {}
    with tempfile.TemporaryDirectory() as directory:
        messages = load_messages(directory)
        scale = []
        for count in map(int, options.images.split(",")) if "scale" in parts else ():
            say(f"{count} images")
            scale.append(measure(count, options.rounds, messages))
        if "tags" in parts:
            say("10,000 tags on ten images")
            scale.append(measure(10, options.rounds, messages, 1000))
        if scale:
            show_scale(scale)
            results["scale"] = scale
        if "beside" in parts:
            archive = pathlib.Path(directory) / "archive.tar"
            make_archive(archive)
            results["beside"] = []
            for kind in (DavitEngine, DockerEngine, PodmanEngine):
                if kind.available():
                    say(kind.name)
                    results["beside"].append(
                        measure_beside(kind, archive, options.rounds, messages))
            show_beside(results["beside"])
    write_json(options.json, results)


if __name__ == "__main__":
    main(sys.argv[1:])
