"""What `davit pull` shows on terminals and in pipes, and how it ends."""

import base64
import json
import os
import re
import signal
import threading
import time

import grpc
import images
import pytest

from conftest import Davit
from fake_daemon import DIGEST_LINE, HEX, FakeDaemon, finish, snapshot, two_layers

pytest_plugins = ("fake_daemon",)

ESCAPE = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


# --- In a pipe -----------------------------------------------------------------------------------


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



# --- Credentials ---------------------------------------------------------------------------------


SECRET = "correct horse"
USER = {"auth": base64.b64encode(f"user:{SECRET}".encode()).decode()}


def configure(fake, config):
    directory = fake.home / ".docker"
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(config if isinstance(config, str) else
                                           json.dumps(config))


def credential_helper(fake, name, script):
    """Installs docker-credential-NAME; returns the environment in which it is found."""
    directory = fake.root / "helpers"
    directory.mkdir(exist_ok=True)
    program = directory / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\nread -r server\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


def auth_of(cli, fake, *arguments, stderr="", environment=None):
    """What the daemon is given: (user, password, identity token), or None."""
    seen = []

    def pull(request, context):
        seen.append(request.auth if request.HasField("auth") else None)
        yield from two_layers(fake)(request, context)
    fake.pull = pull
    result = cli(*arguments, environment=environment)
    shown = re.sub(r"column \d+: .*", "column N", result.stderr)
    assert (len(seen), shown) == (1, stderr)
    assert SECRET not in result.stdout + result.stderr
    return seen[0] and (seen[0].username, seen[0].password, seen[0].identity_token)


def test_credentials_of_the_references_registry(cli, fake):
    assert auth_of(cli, fake, "pull", "busybox") is None
    configure(fake, {"auths": {
        "https://index.docker.io/v1/": USER, "localhost:5000": {"identitytoken": "token"},
        "empty.example.com": {}}})
    for name, expected in (("busybox", ("user", SECRET, "")), ("me/app:1", ("user", SECRET, "")),
                           ("docker.io/me/app", ("user", SECRET, "")),
                           ("localhost:5000/app", ("", "", "token")), ("localhost:5001/app", None),
                           ("empty.example.com/app", None), ("other.example.com/app", None)):
        assert auth_of(cli, fake, "pull", "-q", name) == expected, name


def test_credentials_of_the_pull_within_run(cli, fake):
    def run(requests, context):
        next(requests)
        containers = fake.containers
        yield containers.RunResponse(created=containers.RunCreated(id="c" * 64))
        yield containers.RunResponse(exited=containers.RunExited(exit_code=0))
    fake.run = run
    configure(fake, {"auths": {"r.example.com": USER}})
    assert auth_of(cli, fake, "run", "-q", "--pull=always", "r.example.com/app") == (
        "user", SECRET, "")


def test_credential_helpers(cli, fake):
    configure(fake, {"credsStore": "store", "credHelpers": {"own.example.com": "own"}})
    credential_helper(fake, "own", """echo '{"Username":"<token>","Secret":"own token"}'""")
    environment = credential_helper(fake, "store", 'case $1$server in get*example.com) ;; *) echo '
                                    '"credentials not found in native keychain"; exit 1;; esac\n'
                                    """echo '{"Username":"'$server'","Secret":"%s"}'""" % SECRET)
    for name, expected in (("own.example.com/app", ("", "", "own token")),
                           ("r.example.com/app", ("r.example.com", SECRET, "")),
                           ("busybox", None)):
        assert auth_of(cli, fake, "pull", name, environment=environment) == expected, name


@pytest.mark.parametrize("config, warning", [
    ('{"auths": {', "{path} is not valid JSON: line 1, column N"),
    ('{"auths": {"docker.io": {"auth" "%s"}}}' % SECRET,
     "{path} is not valid JSON: line 1, column N"),
    ({"auths": {"https://index.docker.io/v1/": {"auth": "bm9uc2Vuc2U="}}},
     '{path}: the entry "auth" for https://index.docker.io/v1/ is not base64 of USER:PASSWORD\n'
     "Hint: log in to the registry again, or remove the entry"),
])
def test_a_broken_configuration_is_a_warning(cli, fake, config, warning):
    configure(fake, config)
    text = warning.format(path=fake.home / ".docker/config.json")
    assert auth_of(cli, fake, "pull", "busybox",
                   stderr=f"WARNING: Error loading config file: {text}\n") is None


@pytest.mark.parametrize("script, why", [
    (None, "cannot run docker-credential-broken: No such file or directory"),
    ("echo the keychain is locked; exit 1", "the keychain is locked"),
    ("""echo '{"Username": "user", "Secret" "%s"}'""" % SECRET,
     "its output is not valid JSON: line 1, column N"),
    ("""echo '{"Secret": "%s"}'""" % SECRET, "its output lacks Username or Secret"),
])
def test_a_broken_credential_helper_is_a_warning(cli, fake, script, why):
    configure(fake, {"credsStore": "broken"})
    environment = credential_helper(fake, "broken", script) if script else None
    assert auth_of(cli, fake, "pull", "busybox", environment=environment, stderr=(
        f"WARNING: the credential helper docker-credential-broken does not work: {why}\n"
        'Hint: install it, or remove its name from "credsStore" and "credHelpers" in Docker\'s '
        "config.json\n")) is None


def test_interrupted_while_a_credential_helper_waits(cli, fake, wait_until):
    configure(fake, {"credsStore": "waits"})
    environment = credential_helper(fake, "waits", 'echo $$ > "$0.pid"; exec sleep 1000')
    process = cli.start("pull", "busybox", environment=environment)
    pid_file = fake.root / "helpers/docker-credential-waits.pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the helper's start")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr.read() == b""
    assert not os.path.exists(f"/proc/{pid_file.read_text().strip()}")


# --- On a terminal -------------------------------------------------------------------------------


class Stalled:
    """A pull that sends snapshots as it is told, and waits in between."""

    def __init__(self, fake, layers):
        self.fake, self.layers = fake, layers
        self.go, self.left, self.asked = (threading.Event() for _ in range(3))
        self.request = None
        self.ends = "DONE"
        fake.pull = self.pull

    def pull(self, request, context):
        self.request = request
        context.add_callback(self.on_end)
        yield snapshot(self.fake, 1, self.layers)
        self.go.wait(60)
        if context.is_active() and self.ends == "CANCELLED":
            self.fake.fail(context, grpc.StatusCode.CANCELLED, "the pull was cancelled",
                           "CANCELLED", "1B is kept")
        if context.is_active():
            yield finish(self.fake, 2, self.layers)

    def on_end(self):
        self.left.set()
        self.go.set()


def frames(output):
    """What was drawn: for each frame, its lines."""
    return [ESCAPE.sub("", frame.split("\x1b[?7h")[0]).replace("\r", "").rstrip("\n").split("\n")
            for frame in output.split("\x1b[?7l")[1:]]


def test_pull_on_a_terminal(cli, fake):
    stalled = Stalled(fake, [("PRESENT", 10, 10), ("FETCHING", 2500000, 10000000),
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


JOB = "0123456789ab"
ASKS = f"Press Ctrl-C again to cancel; the pull goes on: davit jobs watch {JOB}"
GOES_ON = f"The pull goes on: davit jobs watch {JOB}"


@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP"])
def test_a_pull_goes_on_without_its_client(cli, fake, how):
    stalled = Stalled(fake, [("FETCHING", 1, 100)])
    terminal = cli.pty("pull", "busybox")
    terminal.wait_for(r"Total: 1%")
    terminal.process.send_signal(getattr(signal, how))
    assert stalled.left.wait(60)
    assert terminal.wait() == 128 + getattr(signal, how)
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")
    assert "rror" not in terminal.output
    assert terminal.output.endswith(GOES_ON + "\r\n")
    assert not stalled.request.cancel_on_leave


def cancelling(fake, stalled, wanted=False):
    """Jobs.Cancel, which ends the pull unless others want it."""
    def cancel(request, context):
        assert (request.id, request.unless_wanted) == (JOB, True)
        stalled.asked.set()
        if not wanted:
            stalled.ends = "CANCELLED"
            stalled.go.set()
        return fake.jobs.CancelJobResponse(wanted=wanted)
    fake.cancel_job = cancel


def test_ctrl_c_asks_first(cli, fake):
    stalled = Stalled(fake, [("FETCHING", 1, 100)])
    cancelling(fake, stalled)
    terminal = cli.pty("pull", "busybox", columns=100)
    terminal.wait_for(r"Total: 1%")
    terminal.send("\3")
    terminal.wait_for(re.escape(ASKS))
    assert not stalled.asked.is_set()
    terminal.send("\3")
    assert terminal.wait() == 130
    assert stalled.asked.is_set()
    assert terminal.output.endswith("The pull is cancelled.\r\nHint: 1B is kept\r\n")
    assert ASKS not in frames(terminal.output)[-1]
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")


def test_ctrl_c_once_changes_nothing(cli, fake):
    stalled = Stalled(fake, [("FETCHING", 1, 100)])
    terminal = cli.pty("pull", "--progress=plain", "busybox")
    terminal.wait_for("Pulling fs layer")
    terminal.send("\3")
    terminal.wait_for(re.escape(ASKS) + "\r\n")
    stalled.go.set()
    assert terminal.wait() == 0
    assert terminal.output.endswith("docker.io/library/busybox:latest\r\n")


def test_what_others_want_is_not_cancelled(cli, fake):
    stalled = Stalled(fake, [("FETCHING", 1, 100)])
    cancelling(fake, stalled, wanted=True)
    terminal = cli.pty("pull", "busybox")
    terminal.wait_for(r"Total: 1%")
    terminal.send("\3")
    terminal.wait_for("Press Ctrl-C again")
    terminal.send("\3")
    assert terminal.wait() == 130
    assert f"The pull goes on, for others wait for it: davit jobs watch {JOB}" in terminal.output


def test_detach_on_interrupt(cli, fake):
    stalled = Stalled(fake, [("FETCHING", 1, 100)])
    terminal = cli.pty("pull", "--detach-on-interrupt", "busybox")
    terminal.wait_for(r"Total: 1%")
    terminal.send("\3")
    assert stalled.left.wait(60)
    assert terminal.wait() == 130
    assert terminal.output.endswith(GOES_ON + "\r\n")


def test_without_a_terminal_the_first_interrupt_cancels(cli, fake):
    stalled = Stalled(fake, [("FETCHING", 1, 100)])
    cancelling(fake, stalled)
    process = cli.start("pull", "busybox", text=True)
    while "Pulling fs layer" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "The pull is cancelled.\nHint: 1B is kept\n")
    assert stalled.asked.is_set()


def test_cancelled_json(cli, fake):
    stalled = Stalled(fake, [("FETCHING", 1, 100)])
    cancelling(fake, stalled)
    process = cli.start("pull", "--progress=json", "busybox", text=True)
    assert json.loads(process.stdout.readline())["state"] == "RUNNING"
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(shown.splitlines()[-1])["error"]["code"] == "CANCELLED"


def test_a_source_that_is_not_the_registry_is_named(cli, fake):
    def pull(request, context):
        for source in ("registry-1.docker.io", "mirror.example.com"):
            update = snapshot(fake, 1, [("FETCHING", 1, 100)])
            update.job.progress.items[0].source = source
            yield update
            go.wait(60)
            go.clear()
        yield finish(fake, 2, [("", 0, 100)])
    go = threading.Event()
    fake.pull = pull
    terminal = cli.pty("pull", "busybox", columns=110)
    terminal.wait_for("Downloading")
    assert "from registry" not in terminal.output
    go.set()
    terminal.wait_for("from mirror.example.com")
    go.set()
    assert terminal.wait() == 0


def test_a_third_interrupt_waits_for_nobody(cli, fake):
    stalled = Stalled(fake, [("FETCHING", 1, 100)])
    hangs = threading.Event()

    def cancel(request, context):
        stalled.asked.set()
        hangs.wait(60)
        return fake.jobs.CancelJobResponse()
    fake.cancel_job = cancel
    terminal = cli.pty("pull", "busybox")
    terminal.wait_for(r"Total: 1%")
    terminal.send("\3")
    terminal.wait_for("Press Ctrl-C again")
    terminal.send("\3")
    assert stalled.asked.wait(60)
    terminal.send("\3")
    assert terminal.wait() in (130, -signal.SIGINT)
    hangs.set()
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")


def test_run_pulls_for_itself_alone(cli, fake):
    """Who interrupts `run` has no use for the image."""
    def run(requests, context):
        next(requests)
        fake.fail(context, grpc.StatusCode.NOT_FOUND, "no such image", "IMAGE_NOT_FOUND")
        yield
    fake.run = run
    stalled = Stalled(fake, [("FETCHING", 1, 100)])
    terminal = cli.pty("run", "busybox")
    terminal.wait_for(r"Total: 1%")
    terminal.send("\3")
    assert stalled.left.wait(60)
    assert terminal.wait() == 130, terminal.output
    assert stalled.request.cancel_on_leave
    assert "goes on" not in terminal.output


# --- Other ways to pull --------------------------------------------------------------------------


def test_detached(cli, fake):
    asked = []

    def pull(request, context):
        asked.append((request.detach, request.limit_bytes_per_second))
        yield snapshot(fake, 1, [("FETCHING", 1, 100)])
    fake.pull = pull
    result = cli("pull", "-d", "--limit-rate", "1.5M", "busybox")
    assert (result.stdout, result.stderr) == (JOB + "\n", "")
    assert asked == [(True, 1500000)]


@pytest.mark.parametrize("rate, bytes_per_second", [
    ("500k", 500_000), ("512KiB", 524_288), ("2M", 2_000_000), ("0", 0), ("4096", 4096)])
def test_limit_rate(cli, fake, rate, bytes_per_second):
    asked = []

    def pull(request, context):
        asked.append(request.limit_bytes_per_second)
        yield from two_layers(fake)(request, context)
    fake.pull = pull
    cli("pull", "--limit-rate", rate, "busybox")
    assert asked == [bytes_per_second]


def test_limit_rate_that_makes_no_sense(cli):
    result = cli("pull", "--limit-rate", "fast", "busybox", check=False)
    assert result.code == 125
    assert result.stderr.startswith('invalid argument "fast" for "--limit-rate" flag: must be bytes')


def some_tags(fake, broken=()):
    """A repository of tags a to c, of which some cannot be pulled."""
    fake.list_tags = lambda request, context: fake.registries.ListTagsResponse(
        references=[f"host/app:{tag}" for tag in "abc"], repository="host/app")

    def pull(request, context):
        tag = request.reference[-1]
        if tag in broken:
            fake.fail(context, grpc.StatusCode.UNAVAILABLE, "out of order", "STALLED", "try again")
        yield finish(fake, 1, [("", 0, 10)])
    fake.pull = pull


def test_all_tags(cli, fake):
    some_tags(fake)
    lines = cli("pull", "-a", "host/app").stdout.splitlines()
    assert [line for line in lines if line.startswith("Digest: ")] == [DIGEST_LINE] * 3
    assert lines[-2:] == ["Status: Downloaded newer image for host/app", "host/app"]
    assert cli("pull", "-aq", "host/app").stdout == "host/app\n"


def test_all_tags_but_one(cli, fake):
    some_tags(fake, broken="b")
    result = cli("pull", "--all-tags", "host/app", check=False)
    assert result.code == 1
    assert result.stderr == ("host/app:b: Error response from daemon: out of order\n"
                             "Hint: try again\n")
    assert result.stdout.count(DIGEST_LINE) == 2
    assert result.stdout.endswith("Status: Downloaded 2 of 3 tags of host/app\nhost/app\n")


@pytest.mark.parametrize("arguments, message", [
    (["-a", "host:5000/app:1"], "tag can't be used with --all-tags/-a"),
    (["-a", "app@sha256:0"], "tag can't be used with --all-tags/-a"),
    (["-a", "-d", "app"], "conflicting options: cannot specify both --all-tags and --detach"),
    (["--plan", "-a", "app"],
     "conflicting options: cannot specify --plan with --all-tags or --detach")])
def test_what_does_not_fit_together(cli, arguments, message):
    result = cli("pull", *arguments, check=False)
    assert (result.code, result.stderr) == (1, message + "\n")


@pytest.mark.parametrize("fits", [True, False])
def test_plan(cli, fake, fits):
    what = fake.images.PlannedLayer
    plan = fake.images.PullPlan(
        reference="busybox:latest", digest="sha256:" + "d" * 64, image_id="sha256:" + "e" * 64,
        sources=["mirror.example.com", "registry-1.docker.io"], bytes_total=40_000_000,
        bytes_to_fetch=12_500_000, disk_bytes=60_000_000, disk_free_bytes=2_000_000_000,
        disk_reserve_bytes=1_000_000_000, fits=fits)
    for i, (state, kept) in enumerate([(what.FETCH, 0), (what.FETCH, 7_500_000), (what.SHARED, 0),
                                       (what.PRESENT, 0)]):
        plan.layers.add(digest="sha256:" + HEX[i], bytes_total=10_000_000, bytes_kept=kept,
                        what=state)
    fake.plan = lambda request, context: plan
    result = cli("pull", "--plan", "busybox", check=False)
    assert result.code == (0 if fits else 1)
    ids = [text[:12] for text in HEX]
    assert result.stdout == (
        f"busybox:latest\nDigest: sha256:{'d' * 64}\n"
        "LAYER          SIZE      KEPT      STATE\n"
        f"{ids[0]}   10MB      0B        to be fetched\n"
        f"{ids[1]}   10MB      7.5MB     to be resumed\n"
        f"{ids[2]}   10MB      0B        another pull fetches it\n"
        f"{ids[3]}   10MB      0B        already exists\n"
        "From:   mirror.example.com, then registry-1.docker.io\n"
        "Fetch:  12.5MB of 40MB\n"
        "Disk:   60MB, 2GB free (1GB of it in reserve)" + ("\n" if fits else ": does not fit\n"))
    shown = json.loads(cli("pull", "--plan", "--progress=json", "busybox", check=False).stdout)
    assert shown["fits"] == fits and shown["bytes_to_fetch"] == 12_500_000
    assert shown["layers"][1] == {"digest": "sha256:" + HEX[1], "bytes_total": 10_000_000,
                                  "bytes_kept": 7_500_000, "what": "FETCH"}


# --- More of the terminal ------------------------------------------------------------------------


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


# --- The real daemon on a terminal ---------------------------------------------------------------


def test_a_real_pull_on_a_terminal(davit, registry):
    layers = [[images.file(f"data{i}", os.urandom(2_000_000))] for i in range(6)]
    name = registry.push("cli/live", images.busybox_image(layers))
    terminal = davit.pty("pull", name, columns=70)
    assert terminal.wait() == 0
    shown = frames(terminal.output)
    percents = [int(match) for frame in shown
                for match in re.findall(r"Total: (\d+)%", "".join(frame))]
    assert percents == sorted(percents)
    assert all(len(line) <= 69 for frame in shown for line in frame)
    assert sum(line.endswith(": Pull complete") for line in shown[-1]) == len(layers) + 1
    assert terminal.output.endswith(f"Status: Downloaded newer image for {name}\r\n{name}\r\n")
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")
