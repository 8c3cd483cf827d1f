"""What the benchmarks share: the image, the engines side by side, sampling, tables."""

import gzip
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
import images  # noqa: E402
from conftest import (BIN_DIR, Daemon, Registry, mounts_below, our_processes, start,  # noqa: E402
                      wait_until)

if not (BIN_DIR / "davitd").exists():
    raise SystemExit(f"no {BIN_DIR / 'davitd'}: build first, or set DAVIT_TEST_BIN_DIR")
if os.geteuid() != 0:
    raise SystemExit("the benchmarks need root")

CACHE = pathlib.Path(os.environ.get("DAVIT_BENCH_DIR", "/var/tmp/davit-bench"))
SUITE = "bookworm"
# The packages of each layer above the base system: real files of every kind, and about as
# compressible as images are: 1.2 GB that gzip makes 450 MB of.
PACKAGES = [
    "gcc-12 g++-12 cpp-12 binutils-x86-64-linux-gnu libc6-dev linux-libc-dev libgcc-12-dev "
    "libstdc++-12-dev",
    "perl-modules-5.36 libperl5.36 git python3.11-minimal libpython3.11-stdlib "
    "libpython3.11-minimal libpython3.11-dev vim-runtime",
    "openjdk-17-jre-headless",
    "libllvm14 llvm-14",
    "postgresql-15 mariadb-server-core libnode108",
    "golang-1.19-src cmake-data",
]
# What no compressor shrinks (media, archives, models), so that the whole comes to 450 MB.
INCOMPRESSIBLE_MB = [0, 0, 0, 20, 0, 20, 20]


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as control:
        control.write("3")


# --- The image -----------------------------------------------------------------------------------


class StoredLayer:
    """A layer of images.py whose blob lies on disk."""

    compression = "gzip"

    def __init__(self, path, diff_id):
        self.path, self.diff_id = path, diff_id

    @property
    def blob(self):
        return self.path.read_bytes()

    @property
    def digest(self):
        return images.sha256(self.blob)


def _merge_usr(tree):
    """Packages of that age have files in /lib; the base system's /lib is a link to /usr/lib."""
    for name in ("bin", "sbin", "lib", "lib64"):
        if (tree / name).is_dir() and not (tree / name).is_symlink():
            run("cp", "-a", f"{tree / name}/.", tree / "usr" / name)
            shutil.rmtree(tree / name)


def _pack(tree, target, incompressible_mb):
    if incompressible_mb:
        (tree / "srv").mkdir(exist_ok=True)
        (tree / "srv" / target.stem).write_bytes(
            images.payload(incompressible_mb << 20, target.stem, compressible=0))
    tar = subprocess.Popen(["tar", "--sort=name", "--numeric-owner", "--mtime=@1700000000",
                            "--exclude=./var/cache/apt", "--exclude=./var/lib/apt/lists",
                            "-C", tree, "-c", "."], stdout=subprocess.PIPE)
    hasher, size = hashlib.sha256(), 0
    with open(target, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, 0) as out:
        while data := tar.stdout.read(1 << 20):
            hasher.update(data)
            size += len(data)
            out.write(data)
    assert tar.wait() == 0
    return f"sha256:{hasher.hexdigest()}", size


def _make_layers(directory):
    base = directory / "base"
    say(f"making the image below {CACHE}, once: debootstrap {SUITE} ...")
    run("debootstrap", "--variant=minbase", SUITE, base, stdout=subprocess.DEVNULL)
    trees = [base]
    for number, packages in enumerate(PACKAGES, 1):
        say(f"  layer {number}: {packages}")
        debs = base / "debs"
        debs.mkdir()
        run("chroot", base, "sh", "-c", f"cd debs && apt-get -qq -o APT::Sandbox::User=root download {packages}")
        trees.append(directory / f"tree{number}")
        (trees[-1] / "usr").mkdir(parents=True)
        for deb in sorted(debs.iterdir()):
            run("dpkg-deb", "-x", deb, trees[-1])
        _merge_usr(trees[-1])
        shutil.rmtree(debs)
    say("  packing ...")
    targets = [CACHE / f"layer{number}.tar.gz" for number in range(len(trees))]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(_pack, trees, targets, INCOMPRESSIBLE_MB))
    return [{"path": str(target), "diff_id": diff_id, "size": size}
            for target, (diff_id, size) in zip(targets, made)]


def debian_image():
    """The image of 7 layers, as (images.Image, uncompressed size); made once, kept in CACHE."""
    CACHE.mkdir(parents=True, exist_ok=True)
    index = CACHE / "layers.json"
    if not index.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as name:
            layers = _make_layers(pathlib.Path(name))
        index.write_text(json.dumps(layers))
    layers = json.loads(index.read_text())
    made = images.image([StoredLayer(pathlib.Path(one["path"]), one["diff_id"]) for one in layers],
                        config={"Cmd": ["bash"]})
    return made, sum(one["size"] for one in layers)


class Scratch:
    """A directory below CACHE, for one run of one engine."""

    def __enter__(self):
        CACHE.mkdir(parents=True, exist_ok=True)
        self.path = pathlib.Path(tempfile.mkdtemp(dir=CACHE, prefix="run-"))
        return self.path

    def __exit__(self, *_):
        for point in sorted(mounts_below(self.path), reverse=True):
            subprocess.run(["umount", "-l", point], check=False)
        # A tree of overlay2 has immutable-looking leftovers only if a mount is still there.
        shutil.rmtree(self.path, ignore_errors=True)


# --- Engines -------------------------------------------------------------------------------------


class Engine:
    """One engine on fresh roots below `root`: start, pull, run, stop."""

    name = None

    def __init__(self, root):
        self.root = root

    @classmethod
    def available(cls):
        return shutil.which(cls.name) is not None

    def start(self):
        pass

    def stop(self):
        pass

    def command(self, *arguments):
        raise NotImplementedError

    def pull(self, image):
        self._quiet(self.command("pull", image))

    def run_true(self, image):
        self._quiet(self.command("run", "--rm", "--network", "none", image, "true"))

    def _quiet(self, command):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                              env=self.environment())
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n"
                               f"{done.stdout}{done.stderr}")

    def environment(self):
        return {**os.environ, "HOME": str(self.root)}


class DavitEngine(Engine):
    name = "davit"

    def __init__(self, root):
        super().__init__(root)
        self.daemon = Daemon(root)

    @classmethod
    def available(cls):
        return True

    def start(self):
        self.daemon.start()

    def stop(self):
        self.daemon.stop()

    def command(self, *arguments):
        return [BIN_DIR / "davit", "-H", self.daemon.host, *arguments]


class DockerEngine(Engine):
    """dockerd with roots, socket and containerd of its own; it touches no network."""

    name = "dockerd"

    def start(self):
        self.host = f"unix://{self.root}/docker.sock"
        self.log = open(self.root / "log", "wb")
        self.process = start(
            ["dockerd", "--data-root", self.root / "data", "--exec-root", self.root / "exec",
             "-H", self.host, "--pidfile", self.root / "docker.pid", "--iptables=false",
             "--ip6tables=false", "--bridge=none", "--config-file", self._config()],
            stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, env=self.environment())
        wait_until(self._ready, "dockerd")

    def _config(self):
        path = self.root / "daemon.json"
        path.write_text("{}")
        return path

    def _ready(self):
        if self.process.poll() is not None:
            raise RuntimeError((self.root / "log").read_text()[-3000:])
        return subprocess.run(["docker", "-H", self.host, "version"], capture_output=True,
                              env=self.environment()).returncode == 0

    def command(self, *arguments):
        return ["docker", "-H", self.host, *arguments]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        our_processes.discard(self.process.pid)
        self.log.close()


class PodmanEngine(Engine):
    name = "podman"

    def start(self):
        (self.root / "storage").mkdir()

    def command(self, *arguments):
        flags = ["--root", self.root / "storage", "--runroot", self.root / "run",
                 "--tmpdir", self.root / "tmp", "--cgroup-manager", "cgroupfs",
                 "--storage-driver", "overlay", "--events-backend", "file"]
        if arguments[0] == "pull":
            arguments = ("pull", "--tls-verify=false", *arguments[1:])
        return ["podman", *flags, *arguments]



ENGINES = [DavitEngine, DockerEngine, PodmanEngine]


# --- Measuring -----------------------------------------------------------------------------------


def memory(pid):
    """{"RssAnon": KiB, "VmRSS": KiB} of a process now."""
    with open(f"/proc/{pid}/status") as status:
        return {key: int(value) for key, value in
                re.findall(r"^(RssAnon|VmRSS):\s+(\d+) kB", status.read(), re.M)}


def children(pid):
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        yield from map(int, path.read_text().split())


def memory_of_all(pid):
    """The same, with RssAnonAll: of the process and its children together."""
    result = memory(pid)
    result["RssAnonAll"] = result["RssAnon"]
    for child in children(pid):
        try:
            result["RssAnonAll"] += memory(child).get("RssAnon", 0)
        except FileNotFoundError:
            continue
    return result


class PeakMemory:
    """Samples a process's memory while the block runs; .peak has the largest values."""

    def __init__(self, pid, interval=0.02):
        self.pid, self.interval = pid, interval
        self.peak = {}
        self.ended = threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self._sample)
        self.thread.start()
        return self

    def _sample(self):
        while True:
            for key, value in memory_of_all(self.pid).items():
                self.peak[key] = max(self.peak.get(key, 0), value)
            if self.ended.wait(self.interval):
                return

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def timed(function, *arguments):
    started = time.monotonic()
    function(*arguments)
    return time.monotonic() - started


def median(values):
    return statistics.median(values)


# --- Showing -------------------------------------------------------------------------------------


def table(rows):
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip())
    print()


def verdicts(budgets):
    """Rows for (what, figure, budget, unit); the figure must not exceed the budget."""
    rows = [("budget", "measured", "at most", "")]
    for what, figure, budget, unit in budgets:
        if figure is not None:
            rows.append((what, f"{figure:.2f}{unit}", f"{budget}{unit}",
                         "ok" if figure <= budget else "MISSED"))
    return rows


def write_json(target, result):
    if not target:
        return
    text = json.dumps(result, indent=2) + "\n"
    if target == "-":
        print(text, end="")
    else:
        pathlib.Path(target).write_text(text)
