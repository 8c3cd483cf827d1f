"""davitd as a service: settings, its socket, its roots, signals, what a crash leaves, systemd."""

import ctypes
import json
import os
import re
import signal
import socket
import stat
import subprocess
import time

import pytest

import images
from conftest import BIN_DIR, Davit, mounts_below, orphans, wait_until
from fault_registry import Fault, FaultRegistry


def refused(daemon):
    """Waits for a daemon that does not start: its message, and never READY."""
    code = daemon.wait_exit()
    assert code == 1, daemon.log()
    assert "READY=1" not in daemon.last_notify
    daemon.check_nothing_left()
    return daemon.log()


# --- Settings ------------------------------------------------------------------------------------


def test_help_and_version():
    shown = subprocess.run([BIN_DIR / "davitd", "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    for flag in ("--data-root", "--exec-root", "--host", "--config-file", "--pidfile",
                 "--insecure-registry", "--registry-mirror", "--max-concurrent-downloads",
                 "--log-level", "--log-format"):
        assert flag in shown.stdout
    shown = subprocess.run([BIN_DIR / "davitd", "--version"], capture_output=True, text=True)
    assert re.match(r"davitd version \d+\.\d+\.\d+", shown.stdout)


@pytest.mark.parametrize("text, words", [
    ('{"max-concurent-downloads": 3}', ["max-concurent-downloads"]),
    ('{"log-level": "info", "log-level": "debug"}', ["log-level", "duplicate"]),
    ('{"max-concurrent-downloads": "three"}', ["max-concurrent-downloads", "number"]),
    ('{"max-concurrent-downloads": 0}', ["max-concurrent-downloads", "1 to 100"]),
    ('{"insecure-registries": "localhost"}', ["insecure-registries", "array"]),
    ('{"log-format": "xml"}', ["log-format", "xml", "json"]),
    ('{"data-root": "/elsewhere"}', ["data-root", "both"]),
    ("[]", ["object"]),
    ('{"log-level": ', ["daemon.json"]),
])
def test_bad_config_file_is_named(make_davitd, text, words):
    daemon = make_davitd(config=text, wait=False)
    message = refused(daemon)
    assert len(message.splitlines()) <= 2, message
    for word in [*words, "daemon.json" if "daemon.json" in words else "davitd: "]:
        assert word in message
    assert not daemon.data_root.exists()


@pytest.mark.parametrize("arguments", [["--no-such-flag"], ["stray"], ["--log-level", "loud"],
                                       ["--max-concurrent-downloads", "-1"], ["-H", "tcp://:1"],
                                       ["--config-file", "/nonexistent/daemon.json"]])
def test_bad_flag_is_named(make_davitd, arguments):
    message = refused(make_davitd(*arguments, wait=False))
    assert arguments[-1] in message


def test_config_file_is_used(make_davitd):
    daemon = make_davitd(config={"max-concurrent-downloads": 7, "log-format": "json",
                                 "log-level": "debug", "insecure-registries": ["10.0.0.0/8"],
                                 "registry-mirrors": ["https://mirror.example"]})
    shown = Davit(daemon)("info").stdout
    assert "10.0.0.0/8" in shown
    assert "https://mirror.example" in shown
    assert json.loads(daemon.log().splitlines()[0])


def test_json_log_lines_parse(make_davitd, registry):
    daemon = make_davitd("--log-format", "json", "--log-level", "debug")
    Davit(daemon)("pull", registry.push("daemon/json", images.busybox_image()))
    daemon.stop()
    lines = [json.loads(line) for line in daemon.log().splitlines()]
    assert any(line.get("msg", line.get("message")) == "ready" for line in lines)


def test_pidfile(make_davitd, scratch):
    path = scratch / "davitd.pid"
    daemon = make_davitd("--pidfile", path)
    assert int(path.read_text()) == daemon.pid
    daemon.stop()
    assert not path.exists()


# --- Roots and socket ----------------------------------------------------------------------------


def test_modes_of_roots_and_socket(davitd):
    assert stat.S_IMODE(davitd.data_root.stat().st_mode) == 0o700
    assert stat.S_IMODE(davitd.socket.stat().st_mode) == 0o660
    pid = davitd.pid
    davitd.stop()
    assert not davitd.socket.exists(), pid


def test_second_daemon_on_the_same_data_root(davitd, make_davitd):
    second = make_davitd(wait=False, data_root=davitd.data_root)
    message = refused(second)
    assert str(davitd.data_root) in message
    assert len(message.splitlines()) <= 2
    Davit(davitd)("version")


def test_live_socket_is_an_error(davitd, make_davitd):
    second = make_davitd(start=False)
    second.socket, second.host = davitd.socket, davitd.host
    second.start(wait=False)
    assert str(davitd.socket) in refused(second)
    Davit(davitd)("version")


def test_stale_socket_is_replaced(make_davitd):
    daemon = make_davitd(start=False)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(daemon.socket))
    stale.close()
    daemon.start()
    Davit(daemon)("version")


def test_what_is_no_socket_is_not_replaced(make_davitd):
    daemon = make_davitd(start=False)
    daemon.socket.write_text("precious")
    daemon.start(wait=False)
    assert str(daemon.socket) in refused(daemon)
    assert daemon.socket.read_text() == "precious"


def test_unwritable_data_root(make_davitd, scratch):
    root = scratch / "readonly"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", root], check=True)
    try:
        daemon = make_davitd(wait=False, data_root=root / "data")
        message = refused(daemon)
        assert str(root / "data") in message
        assert "Read-only file system" in message
        assert len(message.splitlines()) <= 2
    finally:
        subprocess.run(["umount", root], check=True)


# --- Signals and crashes -------------------------------------------------------------------------


@pytest.fixture
def stalled():
    """A registry whose larger layer stops after a megabyte; .name is the image."""
    with FaultRegistry() as server:
        big = images.layer([images.file("big", images.payload(4 << 20, 11, compressible=0.1))])
        server.name = server.push("daemon/stalled", images.image(
            [images.layer(images.busybox_entries()), big]))
        server.fault(big.digest, Fault(stall_after=1 << 20))
        yield server


def litter(daemon):
    """Files of layers that are below the data root, however they are laid out."""
    names = ("big", "busybox", "layer.tar")
    return [path for path in daemon.data_root.rglob("*") if path.name in names and size(path)]


def size(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:  # moved meanwhile
        return 0


def test_sigterm_while_pulling(davit, davitd, stalled):
    client = davit.start("pull", stalled.name)
    stalled.wait_stalled()
    started = time.monotonic()
    davitd.stop()  # asserts exit status, time, and that nothing is left
    assert time.monotonic() - started < 10
    _, stderr = client.communicate(timeout=10)
    assert client.returncode == 1
    assert stderr.decode().strip()


def test_sigterm_twice_and_sigint(make_davitd):
    for signum in (signal.SIGINT, signal.SIGTERM):
        daemon = make_davitd()
        daemon.process.send_signal(signum)
        daemon.process.send_signal(signum)
        assert daemon.wait_exit() == 0


def test_sigterm_while_a_container_runs(davit, davitd, registry):
    name = registry.push("daemon/running", images.busybox_image())
    davit("pull", name)
    client = davit.start("run", "--rm", name, "sh", "-c", "trap '' TERM; echo up; sleep 1000")
    assert client.stdout.readline() == b"up\n"
    davitd.stop()
    client.communicate(timeout=10)
    assert client.returncode != 0


def test_kill_while_pulling_leaves_a_clean_store(davit, davitd, stalled):
    client = davit.start("pull", stalled.name)
    stalled.wait_stalled()
    wait_until(lambda: litter(davitd), "half a layer")
    davitd.kill()
    client.communicate(timeout=10)
    assert client.returncode == 1
    davitd.start()
    assert len(davit("images").stdout.splitlines()) == 1
    wait_until(lambda: not litter(davitd), "the remains to be gone")
    assert litter(davitd) == []
    stalled.clear_faults()
    davit("pull", stalled.name)
    run = davit("run", "--rm", stalled.name, "sh", "-c", "wc -c < /big")
    assert run.stdout == f"{4 << 20}\n"


def test_kill_while_a_container_runs(davit, davitd, registry):
    name = registry.push("daemon/orphan", images.busybox_image())
    davit("pull", name)
    client = davit.start("run", "--rm", name, "sh", "-c", "echo up; sleep 1000")
    assert client.stdout.readline() == b"up\n"
    davitd.kill()
    client.communicate(timeout=10)
    assert client.returncode == 125
    davitd.start()
    wait_until(lambda: not orphans(), "the container to be gone")
    assert mounts_below(davitd.root) == []
    assert davit("run", "--rm", name, "echo", "again").stdout == "again\n"
    assert "Containers: 0" in davit("info").stdout


def test_images_survive_a_restart(davit, davitd, registry):
    name = registry.push("daemon/kept", images.busybox_image())
    davit("pull", name)
    before = davit("images", "--no-trunc").stdout
    davitd.stop()
    davitd.start()
    assert davit("images", "--no-trunc").stdout == before
    davitd.kill()
    davitd.start()
    assert davit("images", "--no-trunc").stdout == before
    assert davit("run", "--rm", name, "echo", "kept").stdout == "kept\n"


def test_sigusr1_names_every_task(davit, davitd, stalled):
    client = davit.start("pull", stalled.name)
    stalled.wait_stalled()
    davitd.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: "worst_stall_us" in davitd.log() and "pull" in davitd.log(), "the dump")
    davit("version")
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=10)
    assert client.returncode != 0


# --- systemd -------------------------------------------------------------------------------------


def test_notify_ready_status_stopping(make_davitd):
    daemon = make_davitd()
    assert any(line.startswith("STATUS=") for line in daemon.notify.lines())
    # READY means that it answers.
    Davit(daemon)("version")
    daemon.stop()
    lines = daemon.last_notify
    assert lines.index("READY=1") < lines.index("STOPPING=1")


def test_notify_status_says_why_it_failed(make_davitd):
    daemon = make_davitd(config='{"nonsense": 1}', wait=False)
    daemon.wait_exit()
    assert any("nonsense" in line for line in daemon.last_notify if line.startswith("STATUS="))


class HeldThread:
    """Holds one thread of a process, as a loop that is stuck would be; the others go on."""

    SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17

    def __init__(self, tid):
        self.tid = tid
        self.ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

    def __enter__(self):
        for request in (self.SEIZE, self.INTERRUPT):
            if self.ptrace(request, self.tid, None, None) != 0:
                raise OSError(ctypes.get_errno(), "ptrace")
        os.waitpid(self.tid, 0x40000000)  # __WALL

    def __exit__(self, *_):
        self.ptrace(self.DETACH, self.tid, None, None)


def test_watchdog_is_fed_only_while_the_loop_answers(make_davitd):
    interval = 0.3
    daemon = make_davitd(environment={"WATCHDOG_USEC": str(int(interval * 1e6))})
    daemon.notify.wait_for("WATCHDOG=1")
    start = time.monotonic()
    fed = 0
    while fed < 4:
        fed += daemon.notify.collect(5).count("WATCHDOG=1")
        assert time.monotonic() - start < 10, "the watchdog is not fed"
    with HeldThread(daemon.pid):
        daemon.notify.collect()
        start = time.monotonic()
        while time.monotonic() - start < 3 * interval:
            assert "WATCHDOG=1" not in daemon.notify.collect(interval)
    assert daemon.notify.collect(5) == ["WATCHDOG=1"]


def test_no_watchdog_unless_asked(make_davitd):
    daemon = make_davitd()
    Davit(daemon)("version")
    assert "WATCHDOG=1" not in daemon.notify.lines()


def test_socket_activation(make_davitd):
    daemon = make_davitd(start=False, socket_argument=False)
    # It passes on only what it is told to, and starts the daemon at the first connection.
    keep = [f"-E{name}" for name in ("NOTIFY_SOCKET", "ASAN_OPTIONS", "UBSAN_OPTIONS", "HOME")]
    daemon.prefix = ["systemd-socket-activate", "-l", str(daemon.socket), *keep]
    daemon.start(wait=False)
    wait_until(daemon.socket.exists, "the listening socket")
    inode = daemon.socket.stat().st_ino
    davit = Davit(daemon)
    assert "Server" in davit("version").stdout
    daemon.wait_ready()
    daemon.stop()
    # It is systemd's socket: it stays.
    assert daemon.socket.stat().st_ino == inode


@pytest.fixture
def installed(scratch):
    """The prefix that everything was installed to; not the one that the build expects."""
    prefix = scratch / "usr"
    subprocess.run(["cmake", "--install", BIN_DIR.parent, "--prefix", prefix], check=True,
                   capture_output=True)
    return prefix


def test_installed_units(installed):
    units = installed / "lib/systemd/system"
    service = (units / "davitd.service").read_text()
    assert f"ExecStart={installed}/bin/davitd" in service
    for line in ("Type=notify", "Delegate=yes", "KillMode=process"):
        assert line in service.splitlines()
    assert re.search(r"^WatchdogSec=\d+", service, re.M)
    assert "SocketMode=0660" in (units / "davitd.socket").read_text()
    checked = subprocess.run(["systemd-analyze", "verify", units / "davitd.service",
                              units / "davitd.socket"], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_installed_programs_work(installed, make_davitd, registry):
    davit = Davit(make_davitd(program=installed / "bin/davitd"))
    name = registry.push("daemon/installed", images.busybox_image())
    davit("pull", name)
    assert davit("run", "--rm", name, "echo", "installed").stdout == "installed\n"
    shown = subprocess.run([installed / "bin/davit", "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
