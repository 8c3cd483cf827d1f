"""What `davit run` sends, prints and returns: streams, signals, exit codes."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time

import grpc
import images
import pytest

from conftest import BIN_DIR, start
from fake_daemon import DIGEST_LINE, two_layers

pytest_plugins = ("fake_daemon",)


def created(fake, *warnings):
    return fake.containers.RunResponse(
        created=fake.containers.RunCreated(id="c" * 64, warnings=warnings))


def exited(fake, code):
    return fake.containers.RunResponse(exited=fake.containers.RunExited(exit_code=code))


def signals_of(fake):
    """The queue of what Kill is called with from now on."""
    signals = queue.Queue()

    def kill(request, context):
        assert request.id == "c" * 64
        signals.put(request.signal)
        return fake.containers.KillResponse()
    fake.kill = kill
    return signals


def test_run_sends_what_was_asked(cli, fake, scratch):
    seen = []

    def run(requests, context):
        seen.append(next(requests).start)
        yield created(fake)
        yield exited(fake, 0)
    fake.run = run
    (scratch / "env").write_text("# comment\nFROM_FILE=1\nHERE\n")
    cli("run", "--rm", "-e", "A=b=c", "--env=HERE", "-eGONE", "--env-file", scratch / "env",
        "-w", "/tmp", "-u1000:1000", "--entrypoint", "/bin/x", "-h", "name", "--network=host", "-i",
        "image", "ls", "-l", "--rm", "--", "-e", input="", environment={"HERE": "yes"})
    start_message = seen[0]
    assert start_message.image == "image"
    assert list(start_message.command) == ["ls", "-l", "--rm", "--", "-e"]
    assert list(start_message.env) == ["FROM_FILE=1", "HERE=yes", "A=b=c", "HERE=yes", "GONE"]
    assert list(start_message.entrypoint) == ["/bin/x"]
    assert (start_message.has_entrypoint, start_message.remove, start_message.attach_stdin) == (
        True, True, True)
    assert (start_message.working_dir, start_message.user, start_message.hostname,
            start_message.network) == ("/tmp", "1000:1000", "name", "host")

    cli("run", "--entrypoint", "", "image")
    plain = seen[1]
    assert (plain.has_entrypoint, list(plain.entrypoint), list(plain.command)) == (True, [], [])
    assert (plain.attach_stdin, plain.remove, plain.network) == (False, False, "none")
    cli("container", "run", "image")
    assert not seen[2].has_entrypoint


@pytest.mark.parametrize("code", [0, 1, 7, 125, 137, 255])
def test_run_returns_the_containers_code(cli, fake, code):
    def run(requests, context):
        next(requests)
        yield created(fake, "no swap limit")
        yield fake.containers.RunResponse(stdout=b"out\0\xff\n")
        yield fake.containers.RunResponse(stderr=b"err\n")
        yield exited(fake, code)
    fake.run = run
    result = cli("run", "image", check=False, text=False)
    assert (result.code, result.stdout) == (code, b"out\0\xff\n")
    assert result.stderr == b"WARNING: no swap limit\nerr\n"


@pytest.mark.parametrize("reason, code", [("COMMAND_NOT_FOUND", 127),
                                          ("COMMAND_NOT_EXECUTABLE", 126), ("NO_SPACE", 125),
                                          ("", 125)])
def test_run_errors(cli, fake, reason, code):
    fake.run = lambda requests, context: fake.fail(
        context, grpc.StatusCode.INVALID_ARGUMENT, "it failed", reason, "mend it")
    result = cli("run", "image", check=False)
    assert (result.code, result.stdout) == (code, "")
    assert result.stderr == ("davit: Error response from daemon: it failed\nHint: mend it\n"
                             "\nRun 'davit run --help' for more information\n")


def test_run_without_an_exit_code_is_an_error(cli, fake):
    fake.run = lambda requests, context: iter([created(fake)])
    result = cli("run", "image", check=False)
    assert result.code == 125
    assert "without the container's exit code" in result.stderr


def missing_once(fake):
    """The image is missing until it has been pulled."""
    pulled = []

    def pull(request, context):
        pulled.append(request)
        yield from two_layers(fake)(request, context)

    def run(requests, context):
        start_message = next(requests).start
        if not pulled:
            fake.fail(context, grpc.StatusCode.NOT_FOUND, f"No such image: {start_message.image}",
                      "IMAGE_NOT_FOUND")
        yield created(fake)
        yield fake.containers.RunResponse(stdout=b"ran\n")
        yield exited(fake, 3)
    fake.pull, fake.run = pull, run
    return pulled


def test_run_pulls_what_is_missing(cli, fake):
    pulled = missing_once(fake)
    result = cli("run", "--platform", "linux/arm64", "busybox", check=False)
    assert (result.code, result.stdout) == (3, "ran\n")
    lines = result.stderr.splitlines()
    assert lines[:2] == ["Unable to find image 'busybox:latest' locally",
                         "latest: Pulling from library/busybox"]
    assert lines[-2:] == [DIGEST_LINE, "Status: Downloaded newer image for busybox:latest"]
    assert [(one.reference, one.platform) for one in pulled] == [("busybox", "linux/arm64")]


def test_run_pull_policies(cli, fake):
    pulled = missing_once(fake)
    result = cli("run", "--pull=never", "busybox", check=False)
    assert (result.code, len(pulled)) == (125, 0)
    assert "No such image: busybox" in result.stderr
    result = cli("run", "-q", "--pull=always", "busybox", check=False)
    assert (result.code, result.stdout, result.stderr, len(pulled)) == (3, "ran\n", "", 1)
    cli("run", "--pull=always", "busybox", check=False)
    assert len(pulled) == 2
    cli("run", "busybox", check=False)
    assert len(pulled) == 2


@pytest.mark.parametrize("image, shown", [
    ("localhost:5000/a", "localhost:5000/a:latest"), ("localhost:5000/a:1", "localhost:5000/a:1"),
    ("a@sha256:" + "0" * 64, "a@sha256:" + "0" * 64)])
def test_run_names_the_missing_image_in_full(cli, fake, image, shown):
    missing_once(fake)
    assert f"Unable to find image '{shown}' locally\n" in cli("run", image, check=False).stderr


def echo(fake, seen):
    """A container that prints its standard input."""
    def run(requests, context):
        assert next(requests).start.attach_stdin
        yield created(fake)
        for request in requests:
            kind = request.WhichOneof("what")
            seen.append((kind, getattr(request, kind)))
            if kind == "stdin":
                yield fake.containers.RunResponse(stdout=request.stdin)
            if kind == "stdin_eof":
                break
        yield exited(fake, 0)
    return run


def test_run_passes_standard_input_on(cli, fake, scratch):
    seen = []
    fake.run = echo(fake, seen)
    data = os.urandom(3_000_000)
    assert cli("run", "-i", "image", input=data, text=False).stdout == data
    assert seen[-1] == ("stdin_eof", True)
    assert max(len(value) for kind, value in seen if kind == "stdin") <= 65536
    # A file, and no input at all.
    (scratch / "input").write_bytes(data)
    with open(scratch / "input", "rb") as file:
        process = cli.start("run", "-i", "image", stdin=file)
        assert process.communicate(timeout=60)[0] == data
    process = cli.start("run", "-i", "image")
    assert process.communicate(timeout=60)[0] == b""


def test_run_leaves_standard_input_alone_without_i(cli, fake):
    def run(requests, context):
        assert not next(requests).start.attach_stdin
        yield created(fake)
        yield exited(fake, 0)
    fake.run = run
    script = f"printf 'one\\ntwo\\n' | ({BIN_DIR}/davit run image; cat)"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True,
                          env=cli.environment())
    assert done.stdout == "one\ntwo\n"


def test_run_leaves_shared_descriptors_blocking(cli, fake):
    """Non-blocking mode belongs to the open file, which others have too."""
    fake.run = echo(fake, [])
    check = ("import fcntl, os, sys; sys.exit(any(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK "
             "for fd in (0, 1, 2)))")
    for prefix in ("sleep 0.2; cat /proc/cpuinfo", "true"):
        script = f"({prefix}) | ({BIN_DIR}/davit run -i image; {sys.executable} -c '{check}') | cat"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", script], capture_output=True,
                              check=False, env=cli.environment())
        assert (done.returncode, done.stderr) == (0, b"")


def test_run_waits_for_a_container_that_does_not_read(cli, fake):
    enough, stop = threading.Event(), threading.Event()

    def run(requests, context):
        next(requests)
        yield created(fake)
        enough.wait(60)
        yield exited(fake, 0)
        stop.set()
    fake.run = run
    process = cli.start("run", "-i", "image", stdin=subprocess.PIPE)
    os.set_blocking(process.stdin.fileno(), False)
    taken, quiet_since = 0, time.monotonic()
    while time.monotonic() - quiet_since < 1 and taken < 50_000_000:
        try:
            taken += os.write(process.stdin.fileno(), bytes(65536))
            quiet_since = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
    assert taken < 20_000_000
    enough.set()
    assert process.wait(60) == 0


def test_run_stops_reading_when_its_reader_does(cli, fake):
    sent = []

    def run(requests, context):
        next(requests)
        yield created(fake)
        for _ in range(1000):
            sent.append(65536)
            yield fake.containers.RunResponse(stdout=bytes(65536))
        yield exited(fake, 0)
    fake.run = run
    process = cli.start("run", "image")
    process.stdout.read(1)
    before = -1
    while before != sum(sent):  # until everything has come to rest
        before = sum(sent)
        time.sleep(0.3)
    assert before < 20_000_000
    assert 1 + len(process.stdout.read()) == 65_536_000
    assert process.wait(60) == 0


def test_run_forwards_signals(cli, fake):
    seen, signals = [], signals_of(fake)

    def run(requests, context):
        next(requests)
        yield created(fake)
        yield fake.containers.RunResponse(stdout=b"ready\n")
        while signal.SIGTERM not in seen:
            seen.append(signals.get(timeout=60))
            yield fake.containers.RunResponse(stdout=b"%d\n" % seen[-1])
        yield exited(fake, 143)
    fake.run = run
    process = cli.start("run", "image")
    assert process.stdout.readline() == b"ready\n"
    wanted = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT,
              signal.SIGTERM]
    for one in wanted:
        process.send_signal(one)
        assert process.stdout.readline() == b"%d\n" % one
    assert process.wait(60) == 143
    assert seen == wanted


@pytest.mark.parametrize("code, reason, warning", [
    ("FAILED_PRECONDITION", "NOT_RUNNING", ""), ("NOT_FOUND", "CONTAINER_NOT_FOUND", ""),
    ("INTERNAL", "", "WARNING: SIGTERM does not reach the container: "
     "Error response from daemon: it failed\n")])
def test_run_when_a_signal_cannot_be_sent(cli, fake, code, reason, warning):
    """It comes too late, which is no failure, or something is wrong, which the user is told."""
    killed = threading.Event()

    def kill(request, context):
        killed.set()
        fake.fail(context, grpc.StatusCode[code], "it failed", reason)

    def run(requests, context):
        next(requests)
        yield created(fake)
        yield fake.containers.RunResponse(stdout=b"ready\n")
        assert next(requests).stdin == b"go on\n"
        yield exited(fake, 3)
    fake.run, fake.kill = run, kill
    process = cli.start("run", "-i", "image", stdin=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert killed.wait(60)
    if warning:
        assert process.stderr.readline() == warning
    assert process.communicate("go on\n", timeout=60)[1] == ""
    assert process.returncode == 3


def test_run_ends_at_the_third_ctrl_c(cli, fake):
    cancelled, signals = threading.Event(), signals_of(fake)

    def run(requests, context):
        context.add_callback(lambda: (cancelled.set(), signals.put(None)))
        next(requests)
        yield created(fake)
        yield fake.containers.RunResponse(stdout=b"ready\n")
        while signals.get(timeout=60):  # and ignores them
            yield fake.containers.RunResponse(stdout=b"no\n")
    fake.run = run
    process = cli.start("run", "image")
    assert process.stdout.readline() == b"ready\n"
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"no\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert cancelled.wait(60)


def test_run_interrupted_before_it_began(cli, fake):
    began, cancelled = threading.Event(), threading.Event()

    def run(requests, context):
        context.add_callback(cancelled.set)
        began.set()
        cancelled.wait(60)
        yield from ()
    fake.run = run
    process = cli.start("run", "image")
    assert began.wait(60)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert cancelled.wait(60)


def test_run_ignores_what_nohup_ignores(cli, fake):
    signals = signals_of(fake)

    def run(requests, context):
        next(requests)
        yield created(fake)
        yield fake.containers.RunResponse(stdout=b"ready\n")
        assert signals.get(timeout=60) == signal.SIGUSR1
        yield exited(fake, 0)
    fake.run = run
    process = start(["sh", "-c", f"trap '' HUP; exec {BIN_DIR}/davit run image"],
                    env=cli.environment(), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 0


def test_run_whose_reader_goes_away(cli, fake):
    cancelled = threading.Event()

    def run(requests, context):
        context.add_callback(cancelled.set)
        next(requests)
        yield created(fake)
        while context.is_active():
            yield fake.containers.RunResponse(stdout=b"y\n" * 1000)
    fake.run = run
    process = cli.start("run", "image")
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(60) == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""
    assert cancelled.wait(60)


def test_ctrl_c_reaches_a_real_container(davit, registry):
    name = registry.push("cli/signals", images.busybox_image([]))
    terminal = davit.pty("run", name, "sh", "-c", "trap 'echo got it; exit 5' INT; echo ready; "
                         "while :; do sleep 0.05; done")
    terminal.wait_for("ready")
    assert f"Unable to find image '{name}' locally" in terminal.output
    terminal.send("\3")
    assert terminal.wait() == 5
    assert "got it" in terminal.output
