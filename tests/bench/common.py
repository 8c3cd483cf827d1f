"""What the benchmarks share: images, the engines side by side, the floor, sampling, tables."""

import collections
import contextlib
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
import uuid
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
import images  # noqa: E402
from conftest import (BIN_DIR, Daemon, Registry, mounts_below, our_processes, start,  # noqa: E402
                      wait_until)
from netns import NETWORK  # noqa: E402

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


def output(*command):
    return run(*command, stdout=subprocess.PIPE, text=True).stdout


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as control:
        control.write("3")


# --- Images --------------------------------------------------------------------------------------


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
    made = _compress(iter(lambda: tar.stdout.read(1 << 20), b""), target, 6)
    assert tar.wait() == 0
    return made


def _compress(pieces, target, level):
    """Writes pieces of a tar as a blob; returns what layers.json keeps of it."""
    hasher, size = hashlib.sha256(), 0
    with open(target, "wb") as raw, gzip.GzipFile("", "wb", level, raw, 0) as out:
        for data in pieces:
            hasher.update(data)
            size += len(data)
            out.write(data)
    return {"path": str(target), "diff_id": f"sha256:{hasher.hexdigest()}", "size": size}


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
        return list(pool.map(_pack, trees, targets, INCOMPRESSIBLE_MB))


def _kept(index, make):
    """What make(directory) said of the layers it made; made once, kept in CACHE."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if not (CACHE / index).exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as name:
            layers = make(pathlib.Path(name))
        (CACHE / index).write_text(json.dumps(layers))
    layers = json.loads((CACHE / index).read_text())
    return [StoredLayer(pathlib.Path(one["path"]), one["diff_id"]) for one in layers], layers


def debian_image():
    """The image of 7 layers, as (images.Image, uncompressed size)."""
    layers, known = _kept("layers.json", _make_layers)
    made = images.image(layers, config={"Cmd": ["bash"]})
    return made, sum(one["size"] for one in known)


def small_image(count, top=None):
    """busybox and `count` layers of 50 files, about 100 KB each; and a layer that only has `top`."""
    extra = [[images.directory("srv"), images.directory(f"srv/{number}")] +
             [images.file(f"srv/{number}/{each}", images.payload(each * 160, number * 100 + each))
              for each in range(50)] for number in range(count)]
    if top:
        extra.append([images.file("top", top)])
    return images.busybox_image(extra)


def _file_entries(count):
    """The tar of `count` files of up to 2 KiB, a thousand in each directory, in pieces."""
    def entry(name, kind, data):
        header = bytearray(512)
        header[:len(name)] = name
        mode = b"0000755" if kind == b"5" else b"0000644"
        header[100:156] = (mode + b"\0" + b"0000000\0" * 2 + b"%011o\0" % len(data) +
                           b"%011o\0" % images.MTIME + b" " * 8)
        header[156:157] = kind
        header[257:265] = b"ustar\00000"
        header[148:156] = b"%06o\0 " % sum(header)
        return bytes(header) + data + bytes(-len(data) % 512)

    text = images.payload(2048, "files", compressible=1)
    yield entry(b"files/", b"5", b"")
    for first in range(0, count, 1000):
        directory = b"files/%03d" % (first // 1000)
        parts = [entry(directory + b"/", b"5", b"")]
        parts += [entry(b"%s/%07d" % (directory, number), b"0", text[:number * 37 % 2049])
                  for number in range(first, min(first + 1000, count))]
        yield b"".join(parts)
    yield bytes(1024)


def files_image(count):
    """busybox, and a layer of `count` files."""
    def make(_):
        say(f"making a layer of {count} files, once ...")
        return [_compress(_file_entries(count), CACHE / f"files{count}.tar.gz", 1)]

    layers, _ = _kept(f"files{count}.json", make)
    return images.image([images.layer(images.busybox_entries()), *layers])


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
    """One engine on fresh roots below `root`: start, pull, run, remove, stop."""

    name = None

    def __init__(self, root):
        self.root = root

    @classmethod
    def available(cls):
        return shutil.which(cls.name) is not None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        pass

    def stop(self):
        pass

    def kill(self):
        """kill -9, of what is not gone with its client; start() may follow."""

    def command(self, *arguments):
        raise NotImplementedError

    def pull(self, image, timeout=None):
        self._quiet(self.command("pull", image), timeout)

    def push(self, image):
        self._quiet(self.command("push", image))

    def client(self, *arguments):
        """A Popen of its command line, quiet."""
        return subprocess.Popen([str(word) for word in self.command(*arguments)],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL, env=self.environment())

    def remove(self, image):
        self._quiet(self.command("rmi", image))

    def run_true(self, image):
        self._quiet(self.command("run", "--rm", "--network", "none", image, "true"))

    def _quiet(self, command, timeout=None):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                              env=self.environment(), timeout=timeout)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n"
                               f"{done.stdout}{done.stderr}")

    def environment(self):
        return {**os.environ, "HOME": str(self.root)}


class DavitEngine(Engine):
    """davitd with the storage driver that it chooses by itself."""

    name = "davit"
    arguments = ()

    def __init__(self, root, *more):
        super().__init__(root)
        self.daemon = Daemon(root, "--insecure-registry", NETWORK, *self.arguments, *more)

    @classmethod
    def available(cls):
        return True

    def start(self):
        self.daemon.start()

    def stop(self):
        self.daemon.stop()

    def kill(self):
        self.daemon.kill()

    def command(self, *arguments):
        return [BIN_DIR / "davit", "-H", self.daemon.host, *arguments]

    def is_empty(self):
        """No layer is there any more, nor what is left of one."""
        return not any(any((self.daemon.data_root / name).iterdir()) for name in ("layers", "tmp"))


class DirectoryEngine(DavitEngine):
    name = "davit-directory"
    arguments = ("--storage-driver", "directory")


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
        path.write_text(json.dumps({"insecure-registries": [NETWORK]}))
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
        self._ended()

    def kill(self):
        self.process.kill()
        self._ended()

    def _ended(self):
        self.process.wait(60)
        our_processes.discard(self.process.pid)
        self.log.close()
        # Its containerd may take a moment longer, or be a zombie if nobody reaps it: a new dockerd
        # would rely on either.
        pid_file = self.root / "exec/containerd/containerd.pid"
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pid = int(pid_file.read_text())
            while str(self.root) in pathlib.Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)
                time.sleep(0.01)
        pid_file.unlink(missing_ok=True)


class PodmanEngine(Engine):
    name = "podman"

    def environment(self):
        # What it leaves when it is killed goes with the root.
        return {**super().environment(), "TMPDIR": str(self.root / "storage")}

    def start(self):
        (self.root / "storage").mkdir(exist_ok=True)

    def command(self, *arguments):
        flags = ["--root", self.root / "storage", "--runroot", self.root / "run",
                 "--tmpdir", self.root / "tmp", "--cgroup-manager", "cgroupfs",
                 "--storage-driver", "overlay", "--events-backend", "file"]
        if arguments[0] in ("pull", "push"):
            arguments = (arguments[0], "--tls-verify=false", *arguments[1:])
        if arguments[0] == "run":  # else it wants more open files than root may have everywhere
            arguments = ("run", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
                         *arguments[1:])
        return ["podman", *flags, *arguments]


ENGINES = [DavitEngine, DirectoryEngine, DockerEngine, PodmanEngine]


@contextlib.contextmanager
def sleeper(engine, image):
    """A container that sleeps, with its engine's client; gives (client, pid of what sleeps)."""
    seconds = str(10**9 + uuid.uuid4().int % 10**9)

    def find():
        assert client.poll() is None, client.communicate()[1]
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if path.read_bytes() == b"sleep\0%s\0" % seconds.encode():
                    return int(path.parent.name)
        return None

    client = start(engine.command("run", "--rm", "--network", "none", image, "sleep", seconds),
                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                   env=engine.environment())
    try:
        pid = wait_until(find, f"a container of {engine.name}")
        try:
            yield client, pid
        finally:
            os.kill(pid, signal.SIGKILL)
    finally:
        client.communicate()
        our_processes.discard(client.pid)


def mounts_of(path):
    """How many mounts there are below a path, by type."""
    with open("/proc/self/mountinfo") as mounted:
        lines = [line.split() for line in mounted]
    return collections.Counter(line[line.index("-") + 1] for line in lines
                               if line[4].startswith(f"{path}/"))


# --- The floor -----------------------------------------------------------------------------------


class Floor:
    """floor.c, compiled once."""

    def __init__(self):
        CACHE.mkdir(parents=True, exist_ok=True)
        self.program = CACHE / "floor"
        isal = subprocess.run(["pkg-config", "--exists", "libisal"]).returncode == 0
        inflate = ["-DHAVE_ISAL", "-lisal"] if isal else ["-lz"]
        run("cc", "-std=gnu17", "-D_GNU_SOURCE", "-O2", "-o", self.program, HERE / "floor.c",
            *inflate, "-lcurl", "-lcrypto", "-pthread")

    def fetch(self, registry, repository, image, target, durable=False):
        """All layers of an image, 3 at a time, as the engines do."""
        words = []
        for layer in image.layers:
            words += [f"{registry.url}/v2/{repository}/blobs/{layer.digest}", layer.digest[7:],
                      layer.diff_id[7:]]
        run(self.program, "fetch", *(["--durable"] if durable else []), "--jobs", 3, target, *words)

    def look(self, what, tree):
        """"walk" or "read" of all files of a tree: (files, bytes)."""
        return [int(word) for word in output(self.program, what, tree).split()]


# --- Measuring -----------------------------------------------------------------------------------


def memory(pid):
    """{"RssAnon": KiB, "VmRSS": KiB} of a process now."""
    with open(f"/proc/{pid}/status") as status:
        return {key: int(value) for key, value in
                re.findall(r"^(RssAnon|VmRSS):\s+(\d+) kB", status.read(), re.M)}


def helpers_memory(pid):
    """KiB of private memory of a process's children, but for those that have yet to exec."""
    name, total = pathlib.Path(f"/proc/{pid}/comm").read_text(), 0
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in path.read_text().split():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    if pathlib.Path(f"/proc/{child}/comm").read_text() != name:
                        total += memory(child).get("RssAnon", 0)
    return total


class PeakMemory:
    """Samples a process while the block runs; .peak has the largest, in KiB: RssAnon and VmRSS of
    itself, and the private memory of its children together as "helpers"."""

    def __init__(self, pid, interval=0.01):
        self.pid, self.interval = pid, interval
        self.peak = {}
        self.ended = threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self._sample)
        self.thread.start()
        return self

    def _sample(self):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it was killed
            while True:
                for key, value in {**memory(self.pid), "helpers": helpers_memory(self.pid)}.items():
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


class Figures:
    """Values by what was measured and of whom: (what, who) -> one per round."""

    def __init__(self):
        self.values = {}

    def add(self, what, who, value):
        self.values.setdefault((what, who), []).append(value)

    def median(self, what, who):
        values = self.values.get((what, who))
        return median(values) if values else None

    def largest(self, what, who):
        return max(self.values.get((what, who), [None]), key=lambda value: value or 0)

    def whos(self, what):
        return [who for one, who in self.values if one == what]

    def ratio(self, what, ours, others):
        mine, theirs = self.median(what, ours), self.median(what, others)
        return mine / theirs if mine and theirs else None


def show(value, unit="s"):
    if unit == "MiB" or value >= 100:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def show_figures(figures, title, whats):
    """A row for each contender and figure: median, spread, and what davit is beside it."""
    rows = [(title, "engine", "median", "smallest", "largest", "davit is")]
    for what in whats:
        for who in figures.whos(what):
            values = figures.values[what, who]
            ratio = figures.ratio(what, DavitEngine.name, who)
            rows.append((what, who, show(median(values)), show(min(values)),
                         show(max(values)),
                         f"{ratio:.2f}x" if ratio and who != DavitEngine.name else ""))
    if len(rows) > 1:
        table(rows)


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
