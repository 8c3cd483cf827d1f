"""Fixtures of the end-to-end tests: a real registry, a real daemon, the real command line.

  registry       docker-registry on loopback, shared by all tests; push() an image into it
  make_registry  another one: make_registry(htpasswd={"user": "password"}, tls=True); or
                 token_server=a TokenServer; content_of=another registry
  davitd         a running daemon with roots of its own, checked for what it leaves behind
  make_davitd    one with other arguments: make_davitd("--log-format", "json", wait=False)
  davit          the command line against `davitd`: davit("pull", name, check=False)
  scratch        a short directory on a file system that can carry overlays

The programs are those in DAVIT_TEST_BIN_DIR, else in build/bin.
"""

import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import glob
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import images  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BIN_DIR = pathlib.Path(os.environ.get("DAVIT_TEST_BIN_DIR") or REPOSITORY / "build" / "bin")
BIN_DIR = BIN_DIR.resolve()
STOP_SECONDS = 10
# Sanitizers make everything slower; a wait that ends by an event may as well be long.
WAIT_SECONDS = 60
PR_SET_CHILD_SUBREAPER = 36

# What the tests themselves started; any other child of ours was orphaned by a davitd.
our_processes = set()


def pytest_configure(config):
    if os.geteuid() != 0:
        raise pytest.UsageError("the end-to-end tests need root: davitd mounts and runs containers")
    for program in ("davitd", "davit"):
        if not (BIN_DIR / program).exists():
            raise pytest.UsageError(f"no {BIN_DIR / program}: build first, or set "
                                    "DAVIT_TEST_BIN_DIR")
    # A job in the background ignores signals, and would hand that down to all it starts.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise pytest.UsageError("cannot become a subreaper")


# Reasons for which a test may be skipped where CI is set; any other skip is a failure there.
ALLOWED_SKIPS = ()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(allowed in reason for allowed in ALLOWED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"a skip counts as a failure in CI: {reason}"


# --- Waiting and looking -------------------------------------------------------------------------


def wait_until(condition, what, seconds=WAIT_SECONDS):
    """Polls where there is no event to wait for; returns what the condition returned."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.01)


def mounts_below(path):
    with open("/proc/self/mountinfo") as table:
        points = [line.split()[4] for line in table]
    return [point for point in points if (point + "/").startswith(str(path) + "/")]


def orphans():
    """Processes that fell to us because what started them has gone: {pid: command line}."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as handle:
                text = handle.read()
            pid, rest = int(text.split(" ", 1)[0]), text.rsplit(")", 1)[1].split()
            if int(rest[1]) != os.getpid() or pid in our_processes:
                continue
            if rest[0] == "Z":
                os.waitpid(pid, os.WNOHANG)
                continue
            with open(f"/proc/{pid}/cmdline") as handle:
                found[pid] = handle.read().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError, ChildProcessError):
            continue
    return found


def start(arguments, **options):
    """Popen whose process is known as ours."""
    process = subprocess.Popen([str(one) for one in arguments], **options)
    our_processes.add(process.pid)
    return process


def sanitizer_environment(report_dir):
    """Sanitizers write their reports to files, so that none is missed."""
    common = f"log_path={report_dir}/sanitizer:"
    return {
        "ASAN_OPTIONS": common + "detect_stack_use_after_return=0:" +
        os.environ.get("ASAN_OPTIONS", ""),
        "UBSAN_OPTIONS": common + "print_stacktrace=1:" + os.environ.get("UBSAN_OPTIONS", ""),
        "TSAN_OPTIONS": common + os.environ.get("TSAN_OPTIONS", ""),
    }


def sanitizer_reports(report_dir):
    texts = []
    for path in glob.glob(f"{report_dir}/sanitizer.*"):
        with open(path, errors="replace") as handle:
            texts.append(f"{path}:\n{handle.read()}")
    return "\n".join(texts)


# --- Directories ---------------------------------------------------------------------------------


def _scratch_base():
    """A directory that can be an overlay's upper layer: not on an overlay itself."""
    for path in (os.environ.get("DAVIT_TEST_TMP"), "/var/tmp", "/tmp", "/dev/shm"):
        if not path:
            continue
        kind = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True)
        if kind.returncode == 0 and kind.stdout.strip() != "overlayfs":
            return path
    raise pytest.UsageError("/var/tmp, /tmp and /dev/shm are all on overlayfs; set DAVIT_TEST_TMP")


def _make_scratch():
    # Short: socket paths end at 107 bytes.
    return pathlib.Path(tempfile.mkdtemp(prefix="dt-", dir=_scratch_base()))


@pytest.fixture
def scratch():
    path = _make_scratch()
    yield path
    assert mounts_below(path) == []
    shutil.rmtree(path)


# --- Registry ------------------------------------------------------------------------------------


class Registry:
    """docker-registry, as its users run it."""

    def __init__(self, root, htpasswd=None, tls=False, mirror_of=None, port=0, token_server=None,
                 content_of=None, prefix=None):
        """content_of: another registry, of the same content but perhaps other guards. prefix: what
        stands before /v2/, "/path/"."""
        self.root = pathlib.Path(root)
        self.data = content_of.data if content_of else self.root / "data"
        self.token_server = token_server
        self.auth = next(iter(htpasswd.items())) if htpasswd else None
        self.cafile = None
        http = {"addr": f"127.0.0.1:{port}"}
        config = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(self.data)},
                        "delete": {"enabled": True}},
            "http": http,
        }
        if mirror_of:
            config["proxy"] = {"remoteurl": mirror_of}
        if htpasswd:
            self._write_htpasswd(htpasswd)
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(self.root / "htpasswd")}}
        # So that an upload may go on at another registry of the same content.
        http["secret"] = "tests"
        if prefix:
            http["prefix"] = prefix
        if token_server:
            config["auth"] = {"token": token_server.registry_config()}
        if tls:
            self._make_certificates()
            http["tls"] = {"certificate": str(self.root / "server.crt"),
                           "key": str(self.root / "server.key")}
        # JSON is YAML.
        (self.root / "config.yml").write_text(json.dumps(config))
        self.log_path = self.root / "log"
        with open(self.log_path, "wb") as log:
            self.process = start(["docker-registry", "serve", self.root / "config.yml"],
                                 stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        found = wait_until(self._address, "docker-registry to listen")
        self.host = found
        self.port = int(found.rsplit(":", 1)[1])
        self.url = ("https://" if tls else "http://") + found

    def _address(self):
        text = self.log()
        assert self.process.poll() is None, text
        match = re.search(r"listening on (127\.0\.0\.1:\d+)", text)
        return match and match.group(1)

    def _write_htpasswd(self, users):
        lines = []
        for user, password in users.items():
            made = subprocess.run(["perl", "-e", r'print crypt($ARGV[0], "\$2y\$05\$" . "a" x 22)',
                                   password], capture_output=True, text=True, check=True).stdout
            lines.append(f"{user}:{made}\n")
        (self.root / "htpasswd").write_text("".join(lines))

    def _make_certificates(self):
        self.cafile = str(self.root / "ca.crt")
        (self.root / "extensions").write_text(
            "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n"
            "keyUsage=digitalSignature\nextendedKeyUsage=serverAuth\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
        for command in (
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key "
            "-out ca.crt -days 2 -subj /CN=tests-ca -addext keyUsage=critical,keyCertSign,cRLSign",
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key "
            "-out server.csr -subj /CN=localhost",
            "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial "
            "-out server.crt -days 2 -extfile extensions",
        ):
            subprocess.run(["openssl", *command.split()], cwd=self.root, check=True,
                           capture_output=True)

    def push(self, repository, what, tag="latest"):
        """Pushes an image or index of images.py; returns the name to pull."""
        auth = self.auth
        if self.token_server:
            auth = self.token_server.authorization("tests", repository)
        return images.push(self.url, repository, what, tag, auth, self.cafile)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def requests(self):
        """(method, path, status) of every request so far, from the access log."""
        return [(match[0], match[1], int(match[2])) for match in
                re.findall(r'"(GET|HEAD|PUT|POST|PATCH|DELETE) (\S+) HTTP/\S+" (\d+)', self.log())]

    def asked(self, text):
        """How often somebody got what has this in its path."""
        return sum(method == "GET" and text in path for method, path, _ in self.requests())

    def blob_path(self, digest):
        hexadecimal = digest.split(":")[1]
        return (self.data / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] /
                hexadecimal / "data")

    def stop(self):
        self.process.kill()
        self.process.wait()
        our_processes.discard(self.process.pid)


@pytest.fixture(scope="session")
def registry():
    root = _make_scratch()
    server = Registry(root)
    yield server
    server.stop()
    shutil.rmtree(root)


@pytest.fixture
def make_registry():
    with registry_maker() as make:
        yield make


@pytest.fixture(scope="module")
def module_registry():
    """make_registry for all tests of a file."""
    with registry_maker() as make:
        yield make


@contextlib.contextmanager
def registry_maker():
    made = []

    def make(**options):
        root = _make_scratch()
        server = Registry(root, **options)
        made.append((server, root))
        return server

    try:
        yield make
    finally:
        for server, root in made:
            server.stop()
            shutil.rmtree(root)


# --- Daemon --------------------------------------------------------------------------------------


class Notify:
    """The service manager's end of sd_notify(3): collects what the daemon reports."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.socket.bind(self.path)
        self.messages = []  # (monotonic time, line)

    def collect(self, timeout=0.0):
        """Reads what is there, waiting up to timeout for the first; returns the new lines."""
        new = []
        while select.select([self.socket], [], [], 0 if new else timeout)[0]:
            text = self.socket.recv(65536).decode()
            new += [(time.monotonic(), line) for line in text.splitlines()]
        self.messages += new
        return [line for _, line in new]

    def lines(self):
        self.collect()
        return [line for _, line in self.messages]

    def wait_for(self, wanted, alive=lambda: True, seconds=WAIT_SECONDS):
        deadline = time.monotonic() + seconds
        while wanted not in [line for _, line in self.messages]:
            if not alive():
                self.collect()
                break
            assert time.monotonic() < deadline, f"no {wanted} within {seconds} s"
            self.collect(0.1)
        return wanted in [line for _, line in self.messages]

    def close(self):
        self.socket.close()
        os.unlink(self.path)


class Daemon:
    """One davitd with roots of its own. start() may be called again after stop() or kill()."""

    def __init__(self, root, *arguments, environment=None, prefix=(), socket_argument=True,
                 program=BIN_DIR / "davitd"):
        self.root = pathlib.Path(root)
        self.data_root = self.root / "data"
        self.exec_root = self.root / "exec"
        self.socket = self.root / "davit.sock"
        self.host = f"unix://{self.socket}"
        self.home = self.root / "home"
        self.home.mkdir(exist_ok=True)
        self.arguments = list(arguments)
        self.environment = {**environment} if environment else {}
        self.prefix = list(prefix)
        self.program = program
        self.socket_argument = socket_argument
        self.log_path = self.root / "log"
        self.process = None
        self.notify = None
        self.killed = False

    def command(self):
        host = ["-H", self.host] if self.socket_argument else []
        return [*self.prefix, self.program, "--data-root", self.data_root,
                "--exec-root", self.exec_root, *host, *self.arguments]

    def clean_environment(self):
        """The caller's, without what would change a test's meaning."""
        kept = {key: value for key, value in os.environ.items()
                if not key.upper().endswith("_PROXY") and not key.startswith("DAVIT_")
                and key not in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "DOCKER_CONFIG",
                                "JOURNAL_STREAM")}
        return {**kept, "HOME": str(self.home), **sanitizer_environment(self.root)}

    def start(self, wait=True):
        assert self.process is None
        notify_path = self.root / "notify"
        self.notify = Notify(notify_path)
        environment = {**self.clean_environment(), "NOTIFY_SOCKET": str(notify_path),
                       **self.environment}
        with open(self.log_path, "ab") as log:
            self.process = start(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                 env=environment, cwd="/")
        self.killed = False
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self):
        ready = self.notify.wait_for("READY=1", lambda: self.process.poll() is None)
        assert ready, f"davitd exited with {self.process.poll()}:\n{self.log()}"

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_exit(self, seconds=STOP_SECONDS):
        """Its exit status; what still runs after the time is killed and fails the test."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(0.5)
            self.process.kill()
            self.process.wait()
            self._forget()
            raise AssertionError(f"davitd had not exited after {seconds} s:\n{self.log()}") from None
        self._forget()
        return status

    def _forget(self):
        our_processes.discard(self.process.pid)
        self.process = None
        self.notify.collect()
        self.last_notify = [line for _, line in self.notify.messages]
        self.notify.close()

    def stop(self):
        """SIGTERM, and everything that must be true afterwards."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        status = self.wait_exit()
        assert status == 0, f"davitd exited with {status} on SIGTERM:\n{self.log()}"
        self.check_nothing_left()

    def kill(self):
        """kill -9: what a crash or power cut leaves, a next start() has to clean."""
        self.process.kill()
        self.process.wait()
        self._forget()
        self.killed = True

    def check_nothing_left(self):
        left = orphans()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert left == {}, f"processes left: {left}\n{self.log()}"
        mounts = mounts_below(self.root)
        assert mounts == [], f"mounts left: {mounts}\n{self.log()}"

    def finish(self):
        """For the end of a test: stops it, checks, and removes its files whatever happened."""
        try:
            if self.process is not None:
                self.stop()
            elif not self.killed:
                self.check_nothing_left()
            reports = sanitizer_reports(self.root)
            assert not reports, reports
        finally:
            for pid in orphans():
                os.kill(pid, signal.SIGKILL)
            for point in sorted(mounts_below(self.root), reverse=True):
                subprocess.run(["umount", "-l", point], check=False)
            shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture
def make_davitd():
    """make_davitd(*arguments, wait=True, start=True, config=None, environment=None, prefix=())"""
    with davitd_maker() as make:
        yield make


@contextlib.contextmanager
def davitd_maker():
    """make_davitd for longer than a test; the daemons are checked at the end."""
    made = []

    def make(*arguments, wait=True, start=True, config=None, data_root=None, **options):
        root = _make_scratch()
        # Always a file of its own, so that the machine's /etc/davit/daemon.json is not read.
        text = config if isinstance(config, str) else json.dumps(config or {})
        (root / "daemon.json").write_text(text)
        arguments = ("--config-file", root / "daemon.json", *arguments)
        driver = os.environ.get("DAVIT_TEST_STORAGE_DRIVER")
        if driver and "--storage-driver" not in arguments:
            arguments += ("--storage-driver", driver)
        daemon = Daemon(root, *arguments, **options)
        if data_root is not None:
            daemon.data_root = data_root
        made.append(daemon)
        return daemon.start(wait) if start else daemon

    failures = []
    try:
        yield make
    finally:
        for daemon in reversed(made):
            try:
                daemon.finish()
            except AssertionError as failure:
                failures.append(str(failure))
    assert not failures, "\n".join(failures)


@pytest.fixture
def davitd(make_davitd):
    return make_davitd()


# --- Command line --------------------------------------------------------------------------------


@dataclasses.dataclass
class Result:
    arguments: list
    code: int
    stdout: str
    stderr: str

    def __str__(self):
        return (f"davit {' '.join(map(str, self.arguments))}: exit {self.code}\n"
                f"stdout: {self.stdout}\nstderr: {self.stderr}")


class Davit:
    """davit(*arguments) runs to its end; .start() leaves it running; .pty() gives it a terminal."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.host = daemon.host

    def environment(self, extra=None):
        return {**self.daemon.clean_environment(), "DAVIT_HOST": self.host, **(extra or {})}

    def __call__(self, *arguments, check=True, input=None, environment=None, timeout=WAIT_SECONDS,
                 text=True):
        process = start([BIN_DIR / "davit", *arguments],
                        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=text,
                        errors="replace" if text else None, env=self.environment(environment))
        try:
            stdout, stderr = process.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            self.daemon.process.send_signal(signal.SIGUSR1)
            process.kill()
            stdout, stderr = process.communicate()
            raise AssertionError(f"davit {arguments} had not ended after {timeout} s:\n{stdout}"
                                 f"{stderr}\n{self.daemon.log()[-4000:]}") from None
        our_processes.discard(process.pid)
        result = Result(list(arguments), process.returncode, stdout, stderr)
        if check:
            assert result.code == 0, f"{result}\ndavitd: {self.daemon.log()[-4000:]}"
        return result

    def start(self, *arguments, environment=None, **options):
        """A Popen; the test waits for its end."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
                   "stderr": subprocess.PIPE, **options}
        return start([BIN_DIR / "davit", *arguments], env=self.environment(environment), **options)

    def pty(self, *arguments, columns=80, rows=24, environment=None):
        return Terminal([BIN_DIR / "davit", *arguments],
                        self.environment({"TERM": "xterm-256color", **(environment or {})}),
                        columns, rows)


@pytest.fixture
def davit(davitd):
    return Davit(davitd)


class Terminal:
    """A program in a terminal of its own. Its output is drained all the time into `output`."""

    def __init__(self, command, environment, columns=80, rows=24):
        self.master, slave = pty.openpty()
        self.resize(columns, rows)
        # setsid gives it the terminal. Nothing is called between fork and exec: where gRPC's threads
        # run in this process, that would hang.
        self.process = start(["setsid", "--ctty", *command], stdin=slave, stdout=slave,
                             stderr=slave, env=environment)
        os.close(slave)
        self.output = ""
        self.changed = threading.Condition()
        self.closed = False
        self.reader = threading.Thread(target=self._drain, daemon=True)
        self.reader.start()

    def _drain(self):
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                data = b""  # EIO: the other end is closed
            with self.changed:
                if not data:
                    self.closed = True
                self.output += data.decode(errors="replace")
                self.changed.notify_all()
            if not data:
                return

    def resize(self, columns, rows=24):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text):
        os.write(self.master, text.encode())

    def wait_for(self, pattern, seconds=WAIT_SECONDS):
        """Waits until the output matches; returns the match."""
        with self.changed:
            found = self.changed.wait_for(
                lambda: re.search(pattern, self.output) or self.closed, seconds)
            match = re.search(pattern, self.output)
            assert match, f"no {pattern!r} ({'closed' if found else 'timeout'}):\n{self.output!r}"
            return match

    def wait(self, seconds=WAIT_SECONDS):
        """Waits for its end; returns the exit code. `output` is complete then."""
        code = self.process.wait(seconds)
        self.reader.join(seconds)
        os.close(self.master)
        our_processes.discard(self.process.pid)
        return code


@pytest.fixture(name="wait_until")
def wait_until_fixture():
    return wait_until
