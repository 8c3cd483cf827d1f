"""What the command line prints and returns: help, errors, progress, streams, signals. Most of it
needs no daemon, or a fake one that can be told what to say; the rest of the tests use the real."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import grpc
import pytest

from conftest import BIN_DIR, REPOSITORY, Davit, start
from fake_daemon import FakeDaemon, load_messages

NOBODY = "unix:///nonexistent/davit.sock"
ESCAPE = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


@pytest.fixture(scope="session")
def messages(tmp_path_factory):
    return load_messages(tmp_path_factory.mktemp("messages"))


@pytest.fixture
def fake(scratch, messages):
    daemon = FakeDaemon(scratch, messages)
    yield daemon
    daemon.stop()


@pytest.fixture
def cli(fake):
    """davit against the fake daemon."""
    return Davit(fake)


def alone(*arguments, environment=None):
    """davit without any daemon: (exit code, stdout, stderr)."""
    done = subprocess.run([BIN_DIR / "davit", *arguments], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=60, check=False,
                          env={"PATH": os.environ["PATH"], "DAVIT_HOST": NOBODY,
                               **(environment or {})})
    return done.returncode, done.stdout, done.stderr


# --- Help, usage and flags, in Docker's words ----------------------------------------------------


def test_help_at_every_level():
    code, top, errors = alone("--help")
    assert (code, errors) == (0, "")
    assert top.startswith("\nUsage:  davit [OPTIONS] COMMAND\n\nA container engine for servers\n")
    assert alone() == alone("help") == alone("-h") == (0, top, "")
    names = re.findall(r"^  ([a-z]+)   +\S", top.split("Management Commands:")[1], re.M)
    assert {"image", "container", "system", "images", "pull", "run", "version"} <= set(names)
    for name in names:
        code, text, errors = alone(name, "--help")
        assert (code, errors) == (0, "")
        assert text.startswith(f"\nUsage:  davit {name} ")
        assert alone("help", name) == (0, text, "")
        for inner in re.findall(r"^  ([a-z]+)   +\S", text.partition("Commands:")[2], re.M):
            code, text, errors = alone(name, inner, "--help")
            assert (code, errors) == (0, "")
            assert text.startswith(f"\nUsage:  davit {name} {inner} ")
            assert f"davit {name} {inner}" in text.split("Aliases:")[1]


@pytest.mark.parametrize("arguments, code, errors", [
    (["foo"], 1, "davit: 'foo' is not a davit command.\nSee 'davit --help'\n"),
    (["pul"], 1, "davit: 'pul' is not a davit command.\nSee 'davit --help'\n\n"
                 "Did you mean 'davit pull'?\n"),
    (["image", "pul"], 1, "davit: 'image pul' is not a davit command.\n"
                          "See 'davit image --help'\n\nDid you mean 'davit image pull'?\n"),
    (["\33[31m"], 1, "davit: '\\u001b[31m' is not a davit command.\nSee 'davit --help'\n"),
    (["help", "foo"], 1, "unknown help topic: foo\n"),
    (["--foo"], 125, "unknown flag: --foo\nSee 'davit --help'.\n"),
    (["-Z"], 125, "unknown shorthand flag: 'Z' in -Z\nSee 'davit --help'.\n"),
    (["pull", "--foo", "x"], 125, "unknown flag: --foo\nSee 'davit pull --help'.\n"),
    (["image", "pull", "--foo"], 125, "unknown flag: --foo\nSee 'davit image pull --help'.\n"),
    (["run", "-e"], 125, "flag needs an argument: 'e' in -e\nSee 'davit run --help'.\n"),
    (["run", "--rm=maybe", "x"], 125,
     'invalid argument "maybe" for "--rm" flag: strconv.ParseBool: parsing "maybe": '
     "invalid syntax\nSee 'davit run --help'.\n"),
    (["run", "-e", "", "x"], 125, 'invalid argument "" for "-e, --env" flag: invalid '
                                  "environment variable: \nSee 'davit run --help'.\n"),
    (["run", "-it", "x"], 125, "--tty is not supported by davit yet\nSee 'davit run --help'.\n"),
    (["run", "--network", "bridge", "x"], 125,
     'invalid argument "bridge" for "--network" flag: must be one of none|host\n'
     "See 'davit run --help'.\n"),
    (["run", "--env-file", "/nonexistent", "x"], 125,
     "davit: open /nonexistent: No such file or directory.\nSee 'davit run --help'.\n"),
    (["pull"], 1, '"davit pull" requires exactly 1 argument.\nSee \'davit pull --help\'.\n\n'
                  "Usage:  davit pull [OPTIONS] NAME[:TAG|@DIGEST]\n\n"
                  "Download an image from a registry\n"),
    (["images", "a", "b"], 1, '"davit images" requires at most 1 argument.\n'
                              "See 'davit images --help'.\n\n"
                              "Usage:  davit images [OPTIONS] [REPOSITORY[:TAG]]\n\nList images\n"),
    (["rmi"], 1, '"davit rmi" requires at least 1 argument.\nSee \'davit rmi --help\'.\n\n'
                 "Usage:  davit rmi [OPTIONS] IMAGE [IMAGE...]\n\nRemove one or more images\n"),
    (["info", "x"], 1, '"davit info" accepts no arguments.\nSee \'davit info --help\'.\n\n'
                       "Usage:  davit info [OPTIONS]\n\nDisplay system-wide information\n"),
])
def test_errors_of_usage(arguments, code, errors):
    assert alone(*arguments) == (code, "", errors)


def test_version_flag():
    for arguments in (["--version"], ["-v"], ["-v", "pull"]):
        code, output, errors = alone(*arguments)
        assert (code, errors) == (0, "")
        assert re.fullmatch(r"davit version \d+\.\d+\.\d+(, build [0-9a-f]+)?\n", output)


# --- No daemon -----------------------------------------------------------------------------------


def test_no_daemon():
    refused = f"Cannot connect to the davit daemon at {NOBODY}. Is the davit daemon running?\n"
    for arguments in (["images"], ["pull", "x"], ["rmi", "x"], ["info"]):
        code, output, errors = alone(*arguments)
        assert (code, output) == (1, "")
        assert errors.startswith(refused) and errors.count("\n") == 2 and "Hint: " in errors
    code, output, errors = alone("run", "x")
    assert code == 125
    assert errors.startswith("davit: " + refused)
    assert errors.endswith("\nSee 'davit run --help'.\n")
    code, output, errors = alone("version")
    assert code == 1
    assert output.startswith("Client:\n Version: ")
    assert errors.startswith(refused)


def test_host_flag_is_before_the_environment():
    assert "/other/one" in alone("-H", "unix:///other/one", "images")[2]
    assert "/run/davit/davit.sock" in alone("images", environment={"DAVIT_HOST": ""})[2]


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:1", "unix://relative", "/path", "unix:///",
                                  "unix:///" + "x" * 200])
def test_bad_hosts(host):
    code, output, errors = alone("-H", host, "images")
    assert (code, output) == (1, "")
    assert host.removeprefix("unix://") in errors


def test_forbidden_socket(fake):
    os.chmod(fake.socket, 0o600)
    os.chmod(fake.root, 0o755)
    done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                           shutil.copy(BIN_DIR / "davit", fake.root / "davit"), "-H", fake.host,
                           "images"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("permission denied while trying to connect to the davit daemon")


def test_full_standard_output():
    with open("/dev/full", "w") as full:
        for arguments in (["--help"], ["--version"]):
            done = subprocess.run([BIN_DIR / "davit", *arguments], stdout=full,
                                  stderr=subprocess.PIPE, text=True, check=False)
            assert done.returncode == 1
            assert "standard output: No space left on device" in done.stderr


def test_closed_standard_streams(cli, fake):
    """What davit opens must not take their places, and so the user's output."""
    seen, started = [], threading.Event()

    def list_images(request, context):
        started.wait(60)
        seen.extend(os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in range(3))
        return fake.images.ListImagesResponse()
    fake.list = list_images
    process = cli.start("images", stdin=None, stdout=None, stderr=None,
                        preexec_fn=lambda: os.closerange(0, 3))
    started.set()
    assert process.wait(60) == 0
    assert seen == ["/dev/null"] * 3


# --- Completion ----------------------------------------------------------------------------------

BASH_SCRIPT = r"""
source "$1"
PATH=$2:$PATH COMP_LINE=$3 COMP_POINT=${#3}
_davit davit "" ""
printf '%s\n' "${COMPREPLY[@]}"
"""


def completions(cli, line):
    done = subprocess.run(["bash", "-c", BASH_SCRIPT, "bash",
                           REPOSITORY / "client/completion/davit.bash", BIN_DIR, line],
                          capture_output=True, text=True, check=True, env=cli.environment())
    assert done.stderr == ""
    return done.stdout.split()


def test_completion_in_bash(cli, fake):
    fake.list = lambda request, context: fake.images.ListImagesResponse(images=[
        fake.images.Image(repo_tags=["busybox:latest", "localhost:5000/app:1"])])
    assert completions(cli, "davit im") == ["images", "image"]
    assert completions(cli, "davit image ") == ["ls", "pull", "rm"]
    assert completions(cli, "davit pull --progress=j") == ["json"]
    assert completions(cli, "davit pull --progress j") == ["json"]
    assert completions(cli, "davit run --rm b") == ["busybox:latest"]
    # Readline replaces only what follows the last colon.
    assert completions(cli, "davit rmi localhost:5") == ["5000/app:1"]
    assert completions(cli, "davit rmi busybox:") == ["latest"]
    assert completions(cli, "davit run busybox ") == []


@pytest.mark.parametrize("shell, script", [
    (shell, script) for shell, script in (("bash", "davit.bash"), ("zsh", "_davit"),
                                          ("fish", "davit.fish")) if shutil.which(shell)])
def test_completion_scripts_parse(shell, script):
    subprocess.run([shell, "-n", REPOSITORY / "client/completion" / script], check=True)


# --- Pull: what is shown -------------------------------------------------------------------------

HEX = ["%064x" % (0xabcdef000000 + i << 208) for i in range(50)]


def snapshot(fake, sequence, layers, **more):
    """layers: (state, fetched, total) each."""
    images = fake.images
    progress = images.PullProgress(
        sequence=sequence, reference="busybox:latest", repository="library/busybox", tag="latest",
        default_tag=True, phase=images.PullProgress.FETCHING if layers else
        images.PullProgress.RESOLVING, bytes_fetched=sum(one[1] for one in layers),
        bytes_total=sum(one[2] for one in layers), eta_ms=-1)
    progress.percent = progress.bytes_fetched * 100 // max(1, progress.bytes_total)
    for i, (state, fetched, total) in enumerate(layers):
        progress.layers.add(digest="sha256:" + HEX[i], bytes_fetched=fetched, bytes_total=total,
                            state=images.LayerProgress.State.Value(state))
    for key, value in more.items():
        setattr(progress, key, value)
    return images.PullResponse(progress=progress)


def finish(fake, sequence, layers, up_to_date=False):
    last = snapshot(fake, sequence, [("EXISTS" if up_to_date else "DONE", total, total)
                                     for _, _, total in layers], phase=4)
    last.result.reference = "docker.io/library/busybox:latest"
    last.result.digest = "sha256:" + "d" * 64
    last.result.image_id = "sha256:" + "e" * 64
    last.result.up_to_date = up_to_date
    return last


def two_layers(fake):
    def pull(request, context):
        yield snapshot(fake, 1, [])
        yield snapshot(fake, 2, [("EXISTS", 10, 10), ("FETCHING", 5, 10)])
        yield snapshot(fake, 3, [("EXISTS", 10, 10), ("STORING", 10, 10)])
        yield finish(fake, 4, [("", 0, 10)] * 2)
    return pull


DIGEST_LINE = "Digest: sha256:" + "d" * 64


def test_pull_in_a_pipe(cli, fake):
    fake.pull = two_layers(fake)
    first, second = HEX[0][:12], HEX[1][:12]
    result = cli("pull", "busybox")
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[:2] == ["Using default tag: latest", "latest: Pulling from library/busybox"]
    assert lines[-3:] == [DIGEST_LINE, "Status: Downloaded newer image for busybox:latest",
                          "docker.io/library/busybox:latest"]
    # The first snapshots may be merged; each layer's own lines keep their order.
    assert [line for line in lines if line.startswith(second)] == [
        f"{second}: Pulling fs layer", f"{second}: Download complete", f"{second}: Pull complete"]
    assert any(line.startswith(f"{first}: ") for line in lines)


def test_pull_of_what_is_there(cli, fake):
    def pull(request, context):
        assert (request.reference, request.platform) == ("busybox", "linux/arm64")
        yield finish(fake, 1, [("", 0, 10)], up_to_date=True)
    fake.pull = pull
    assert cli("image", "pull", "--platform", "linux/arm64", "busybox").stdout.splitlines() == [
        "Using default tag: latest", "latest: Pulling from library/busybox",
        f"{HEX[0][:12]}: Already exists", DIGEST_LINE,
        "Status: Image is up to date for busybox:latest", "docker.io/library/busybox:latest"]


def test_pull_quiet(cli, fake):
    fake.pull = two_layers(fake)
    assert cli("pull", "-q", "busybox").stdout == "docker.io/library/busybox:latest\n"


def test_pull_json(cli, fake):
    fake.pull = two_layers(fake)
    lines = [json.loads(line) for line in
             cli("pull", "--progress=json", "busybox").stdout.splitlines()]
    assert lines[-1]["result"] == {"reference": "docker.io/library/busybox:latest",
                                   "digest": "sha256:" + "d" * 64,
                                   "image_id": "sha256:" + "e" * 64, "up_to_date": False}
    assert lines[-1]["percent"] == 100
    assert [layer["state"] for layer in lines[-1]["layers"]] == ["DONE", "DONE"]
    sequences = [line["sequence"] for line in lines]
    assert sequences == sorted(set(sequences))


def test_pull_json_error(cli, fake):
    fake.pull = lambda request, context: fake.fail(
        context, grpc.StatusCode.NOT_FOUND, "manifest for x:latest not found: manifest unknown",
        "MANIFEST_NOT_FOUND", "look for a tag")
    result = cli("pull", "--progress=json", "x", check=False)
    assert result.code == 1
    assert json.loads(result.stdout.splitlines()[-1]) == {"error": {
        "code": "NOT_FOUND", "reason": "MANIFEST_NOT_FOUND", "hint": "look for a tag",
        "message": "Error response from daemon: manifest for x:latest not found: manifest unknown"}}


def test_pull_error(cli, fake):
    def pull(request, context):
        yield snapshot(fake, 1, [])
        fake.fail(context, grpc.StatusCode.NOT_FOUND,
                  "manifest for busybox:latest not found: manifest unknown", "MANIFEST_NOT_FOUND",
                  "look for a tag")
    fake.pull = pull
    result = cli("pull", "busybox", check=False)
    assert (result.code, result.stdout) == (1, "Using default tag: latest\n")
    assert result.stderr == ("Error response from daemon: manifest for busybox:latest not found: "
                             "manifest unknown\nHint: look for a tag\n")


def test_pull_without_result_is_an_error(cli, fake):
    fake.pull = lambda request, context: iter([snapshot(fake, 1, [])])
    result = cli("pull", "busybox", check=False)
    assert result.code == 1
    assert "without a result" in result.stderr


def test_an_error_cannot_steer_the_terminal(cli, fake):
    fake.pull = lambda request, context: fake.fail(
        context, grpc.StatusCode.UNKNOWN, "denied: \33]0;title\7\nsecond \u009b31m")
    result = cli("pull", "busybox", check=False)
    assert result.code == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", result.stderr)
    assert result.stderr.count("\n") == 1


class Stalled:
    """A pull that sends snapshots as it is told, and waits in between."""

    def __init__(self, fake, layers):
        self.fake, self.layers = fake, layers
        self.go, self.cancelled = threading.Event(), threading.Event()
        fake.pull = self.pull

    def pull(self, request, context):
        context.add_callback(self.on_end)
        yield snapshot(self.fake, 1, self.layers)
        self.go.wait(60)
        if context.is_active():
            yield finish(self.fake, 2, self.layers)

    def on_end(self):
        self.cancelled.set()
        self.go.set()


def frames(output):
    """What was drawn: for each frame, its lines."""
    return [ESCAPE.sub("", frame).replace("\r", "").rstrip("\n").split("\n")
            for frame in output.split("\x1b[?7l")[1:]]


def test_pull_on_a_terminal(cli, fake):
    stalled = Stalled(fake, [("EXISTS", 10, 10), ("FETCHING", 2500000, 10000000),
                             ("WAITING", 0, 10)])
    terminal = cli.pty("pull", "busybox", columns=80)
    terminal.wait_for(r"Total: 25%")
    assert "\x1b[?25l" in terminal.output and "\x1b[?25h" not in terminal.output
    shown = frames(terminal.output)[-1]
    assert shown[0] == f"{HEX[0][:12]}: Already exists"
    assert re.fullmatch(HEX[1][:12] + r": Downloading \[=+> +\]    2\.5MB/10MB", shown[1])
    assert shown[2] == f"{HEX[2][:12]}: Waiting"
    assert all(len(line) <= 79 for line in shown)

    terminal.resize(30, 24)
    terminal.process.send_signal(signal.SIGWINCH)
    terminal.wait_for(HEX[1][:12] + r": 25%")
    assert all(len(line) <= 29 for line in frames(terminal.output)[-1])

    stalled.go.set()
    assert terminal.wait() == 0
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")
    assert terminal.output.endswith("docker.io/library/busybox:latest\r\n")
    assert f"{HEX[1][:12]}: \x1b[32mPull complete\x1b[0m" in terminal.output


def test_pull_of_more_layers_than_rows(cli, fake):
    stalled = Stalled(fake, [("FETCHING", i, 100) for i in range(50)])
    terminal = cli.pty("pull", "busybox", columns=60, rows=10)
    terminal.wait_for(r"\.\.\. and 43 more")
    assert len(frames(terminal.output)[-1]) == 9
    stalled.go.set()
    assert terminal.wait() == 0
    assert terminal.output.count("Pull complete") == 50


@pytest.mark.parametrize("how", ["ctrl-c", "SIGTERM", "SIGHUP"])
def test_pull_interrupted(cli, fake, how):
    stalled = Stalled(fake, [("FETCHING", 1, 100)])
    terminal = cli.pty("pull", "busybox")
    terminal.wait_for(r"Total: 1%")
    if how == "ctrl-c":
        terminal.send("\3")
    else:
        terminal.process.send_signal(getattr(signal, how))
    assert stalled.cancelled.wait(60)
    code = 128 + (signal.SIGINT if how == "ctrl-c" else getattr(signal, how))
    assert terminal.wait() == code
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")
    assert "rror" not in terminal.output


def test_ctrl_z_gives_an_orderly_terminal(cli, fake, wait_until):
    stalled = Stalled(fake, [("FETCHING", 1, 100)])
    terminal = cli.pty("pull", "busybox")
    terminal.wait_for(r"Total: 1%")
    terminal.process.send_signal(signal.SIGTSTP)
    terminal.wait_for(r"\x1b\[\?25h")
    stopped = lambda: open(f"/proc/{terminal.process.pid}/stat").read().rsplit(")")[1].split()[0]
    wait_until(lambda: stopped() == "T", "davit to stop")
    terminal.process.send_signal(signal.SIGCONT)
    terminal.wait_for(r"(?s)\x1b\[\?25h.*\x1b\[\?25l.*Total: 1%")
    stalled.go.set()
    assert terminal.wait() == 0


@pytest.mark.parametrize("environment, live, colour", [
    ({}, True, True), ({"NO_COLOR": "1"}, True, False), ({"NO_COLOR": ""}, True, True),
    ({"TERM": "dumb"}, False, False), ({"TERM": ""}, False, False)])
def test_what_the_terminal_wants(cli, fake, environment, live, colour):
    fake.pull = two_layers(fake)
    terminal = cli.pty("pull", "busybox", environment=environment)
    assert terminal.wait() == 0
    assert ("\x1b[" in terminal.output) == live
    assert ("\x1b[32m" in terminal.output) == colour


def test_progress_is_chosen_by_flag(cli, fake):
    fake.pull = two_layers(fake)
    assert "\x1b[?25l" in cli("pull", "--progress=tty", "busybox").stdout
    terminal = cli.pty("pull", "--progress=plain", "busybox")
    assert terminal.wait() == 0
    assert "\x1b" not in terminal.output


def test_at_most_ten_frames_a_second(cli, fake):
    begin = []

    def pull(request, context):
        begin.append(time.monotonic())
        for i in range(400):
            yield snapshot(fake, i, [("FETCHING", i, 1000)])
            time.sleep(0.005)
        yield finish(fake, 400, [("", 0, 1000)])
    fake.pull = pull
    terminal = cli.pty("pull", "busybox")
    assert terminal.wait() == 0
    seconds = time.monotonic() - begin[0]
    assert 5 < len(frames(terminal.output)) <= seconds * 10 + 3


def test_a_reader_that_goes_away(cli, fake):
    stalled = Stalled(fake, [("FETCHING", 1, 100)])
    process = cli.start("pull", "busybox")
    process.stdout.readline()
    process.stdout.close()
    stalled.go.set()
    assert process.wait(60) == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""


def test_full_disk_for_the_output(cli, fake):
    Stalled(fake, [("FETCHING", 1, 100)])
    with open("/dev/full", "w") as full:
        process = cli.start("pull", "busybox", stdout=full)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith(b"cannot write to standard output: No space left on device\n")


def test_a_daemon_that_dies(scratch, messages):
    (scratch / "fake").mkdir()
    fake = FakeDaemon(scratch / "fake", messages)
    stalled = Stalled(fake, [("FETCHING", 1, 100)])
    process = Davit(fake).start("pull", "busybox", text=True)
    process.stdout.readline()
    fake.stop()
    _, errors = process.communicate(timeout=60)
    stalled.go.set()
    assert process.returncode == 1
    assert errors


# --- Run -----------------------------------------------------------------------------------------


def created(fake, *warnings):
    return fake.containers.RunResponse(
        created=fake.containers.RunCreated(id="c" * 64, warnings=warnings))


def exited(fake, code):
    return fake.containers.RunResponse(exited=fake.containers.RunExited(exit_code=code))


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
    assert result.stderr == ("davit: Error response from daemon: it failed.\nHint: mend it\n"
                             "See 'davit run --help'.\n")


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
    """A container that prints its standard input, and tells of signals."""
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
    seen, ready = [], threading.Event()

    def run(requests, context):
        next(requests)
        yield created(fake)
        yield fake.containers.RunResponse(stdout=b"ready\n")
        for request in requests:
            seen.append(request.signal)
            yield fake.containers.RunResponse(stdout=b"%d\n" % request.signal)
            if request.signal == signal.SIGTERM:
                yield exited(fake, 143)
                return
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


def test_run_ends_at_the_third_ctrl_c(cli, fake):
    cancelled = threading.Event()

    def run(requests, context):
        context.add_callback(cancelled.set)
        next(requests)
        yield created(fake)
        yield fake.containers.RunResponse(stdout=b"ready\n")
        for request in requests:  # and ignores them
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
    def run(requests, context):
        next(requests)
        yield created(fake)
        yield fake.containers.RunResponse(stdout=b"ready\n")
        for request in requests:
            assert request.signal == signal.SIGUSR1
            break
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


# --- Lists and removal ---------------------------------------------------------------------------


def test_images(cli, fake):
    now = time.time_ns()

    def list_images(request, context):
        assert request.reference in ("", "busybox")
        return fake.images.ListImagesResponse(images=[fake.images.Image(
            id="sha256:" + "a" * 64, repo_tags=["busybox:latest"], size_bytes=4270000,
            repo_digests=["busybox@sha256:" + "d" * 64],
            created_unix_ns=now - 15 * 86400 * 10**9)])
    fake.list = list_images
    table = ("REPOSITORY   TAG       IMAGE ID       CREATED       SIZE\n"
             "busybox      latest    aaaaaaaaaaaa   2 weeks ago   4.27MB\n")
    assert cli("images").stdout == table
    assert cli("image", "ls", "busybox").stdout == cli("image", "list").stdout == table
    assert cli("images", "-q").stdout == "aaaaaaaaaaaa\n"
    assert cli("images", "-q", "--no-trunc").stdout == "sha256:" + "a" * 64 + "\n"
    assert "sha256:" + "d" * 64 in cli("images", "--digests").stdout


def test_rmi_goes_on_after_an_error(cli, fake):
    def remove(request, context):
        if request.reference == "bad":
            fake.fail(context, grpc.StatusCode.NOT_FOUND, "No such image: bad:latest",
                      "IMAGE_NOT_FOUND")
        Removed = fake.images.RemoveImageResponse.Removed
        return fake.images.RemoveImageResponse(removed=[
            Removed(untagged=f"{request.reference}:latest"), Removed(deleted="sha256:aa")])
    fake.remove = remove
    removed = "Untagged: {}:latest\nDeleted: sha256:aa\n"
    result = cli("rmi", "a", "bad", "b", check=False)
    assert (result.code, result.stdout) == (1, removed.format("a") + removed.format("b"))
    assert result.stderr == "Error response from daemon: No such image: bad:latest\n"
    result = cli("image", "rm", "-f", "a", "bad", check=False)
    assert (result.code, result.stdout) == (0, removed.format("a"))
    assert "No such image: bad:latest" in result.stderr


def test_version_and_info(cli, fake):
    system = fake.system
    fake.version = lambda request, context: system.VersionResponse(
        version="1.2.3", git_commit="abcdef0", os="linux", arch="amd64", kernel="6.12",
        components=[system.Component(name="runc", version="1.1.5")])
    fake.info = lambda request, context: system.InfoResponse(
        id="X", name="host", images=3, containers=2, containers_running=1,
        storage_driver="directory", memory_bytes=8323461120, cpus=2, version="1.2.3",
        warnings=["no swap limit"], insecure_registries=["127.0.0.0/8"],
        loop_worst_stall_us=1234, loop_worst_stall_task="pull x")
    output = cli("version").stdout
    assert "\nServer: davitd\n Engine:\n  Version:          1.2.3\n" in output
    assert "\n runc:\n  Version:          1.1.5\n" in output
    assert json.loads(cli("version", "--format=json").stdout)["Server"]["Components"] == [
        {"Name": "runc", "Version": "1.1.5"}]
    result = cli("info")
    assert "\nServer:\n Containers: 2\n  Running: 1\n  Stopped: 1\n Images: 3\n" in result.stdout
    assert "\n Total Memory: 7.752GiB\n" in result.stdout
    assert "\n Insecure Registries:\n  127.0.0.0/8\n" in result.stdout
    assert "\n Loop Worst Stall: 1.2ms (pull x)\n" in result.stdout
    assert result.stderr == "WARNING: no swap limit\n"
    assert json.loads(cli("system", "info", "-f", "json").stdout)["MemTotal"] == 8323461120
