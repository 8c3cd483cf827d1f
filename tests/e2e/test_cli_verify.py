"""What `davit system verify` and `davit system df` show on terminals and in pipes, and how they end."""

import json
import re
import signal
import threading

import grpc
import pytest

pytest_plugins = ("fake_daemon",)

ESCAPE = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")
DIFF_ID = "sha256:" + "ab" * 32


def progress(fake, done, total=1_000_000_000, **more):
    return fake.jobs.VerifyProgress(
        phase=fake.jobs.VerifyProgress.CHECKING, images_total=2, images_done=2,
        layers_done=3, layers_total=7, bytes_done=done, bytes_total=total,
        bytes_per_second=200_000_000, eta_ms=4000, **more)


def problem(fake, **more):
    values = dict(images=["busybox:latest", "b:1"], image_count=2, digest=DIFF_ID, is_layer=True,
                  reason="LAYER_DAMAGED", message="its layer.tar has changed", hint="do this")
    return fake.jobs.VerifyProblem(**{**values, **more})


def result(fake, problems=0, repaired=0):
    return fake.jobs.VerifyResult(images=2, layers=7, bytes=1_000_000_000, problems=problems,
                                    repaired=repaired)


def update(fake, progress, problems=(), result=None):
    """A snapshot: with all problems so far."""
    jobs = fake.jobs
    job = jobs.Job(id="0123456789ab", kind=jobs.Job.VERIFY, state=jobs.Job.RUNNING,
                   verify=jobs.VerifyDetails(progress=progress, problems=problems))
    if result:
        job.state = jobs.Job.DONE
        job.verify_result.CopyFrom(result)
    return jobs.JobUpdate(job=job)


class Stalled:
    """A verification that has got so far and waits: go.set() ends it."""

    def __init__(self, fake, first, last):
        self.fake, self.first, self.last = fake, first, last
        self.go, self.cancelled = threading.Event(), threading.Event()
        fake.verify = self.verify

    def verify(self, request, context):
        context.add_callback(self.on_end)
        yield self.first
        self.go.wait(60)
        if context.is_active():
            yield self.last

    def on_end(self):
        self.cancelled.set()
        self.go.set()


LINE = "busybox:latest, b:1: layer abababababab: its layer.tar has changed; do this"


def test_in_a_pipe(cli, fake):
    def verify(request, context):
        assert list(request.images) == ["a", "b"] and not request.repair and not request.logins
        yield update(fake, progress(fake, 0))
        yield update(fake, progress(fake, 1), problems=[problem(fake)])
        yield update(fake, progress(fake, 2), result=result(fake, 1))
    fake.verify = verify
    told = cli("system", "verify", "a", "b", check=False)
    assert told.code == 1 and told.stderr == ""
    assert told.stdout == f"{LINE}\n2 images, 7 layers verified (1GB), 1 problem\n"


def test_what_is_repaired_is_no_failure(cli, fake):
    def verify(request, context):
        assert request.repair
        (login,) = request.logins
        assert (login.registry, login.auth.username) == ("docker.io", "")
        yield update(fake, progress(fake, 1), result=result(fake, 2, 2),
                     problems=[problem(fake, repaired=True),
                               problem(fake, repaired=True, is_layer=False, images=[],
                                       image_count=0)])
    fake.verify = verify
    fake.list = lambda request, context: fake.images.ListImagesResponse(
        images=[fake.images.Image(id="sha256:" + "1" * 64, repo_tags=["busybox:latest", "a/b:1"])])
    told = cli("system", "verify", "--repair")
    assert told.stdout.splitlines() == [
        "busybox:latest, b:1: layer abababababab: its layer.tar has changed; repaired",
        "(no image): its layer.tar has changed; repaired",
        "2 images, 7 layers verified (1GB), 2 problems, 2 repaired"]


def test_json(cli, fake):
    def verify(request, context):
        yield update(fake, progress(fake, 1), problems=[problem(fake)])
        yield update(fake, progress(fake, 2), result=result(fake, 1))
    fake.verify = verify
    told = cli("system", "verify", "--format", "json", check=False)
    assert told.code == 1
    assert json.loads(told.stdout) == {
        "images": 2, "layers": 7, "bytes": 1_000_000_000, "repaired": 0, "problems": [
            {"images": ["busybox:latest", "b:1"], "image_count": 2, "digest": DIFF_ID, "is_layer": True,
             "reason": "LAYER_DAMAGED", "message": "its layer.tar has changed",
             "hint": "do this", "repaired": False}]}


def test_on_a_terminal(cli, fake):
    stalled = Stalled(
        fake, update(fake, progress(fake, 250_000_000)),
        update(fake, progress(fake, 10**9), problems=[problem(fake)],
               result=result(fake, 1)))
    terminal = cli.pty("system", "verify", columns=79)
    terminal.wait_for(r"Verifying layers: 3/7  \[=+> +\]  250MB/1GB  200MB/s  ETA 4s")
    assert "\x1b[?25l" in terminal.output and "\x1b[?25h" not in terminal.output
    terminal.resize(30, 24)
    terminal.process.send_signal(signal.SIGWINCH)
    terminal.wait_for(r"Verifying layers: 3/7  ETA 4s\x1b")
    stalled.go.set()
    assert terminal.wait() == 1
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")
    shown = ESCAPE.sub("", terminal.output).replace("\r\n", "\n").rsplit("\r", 1)[1]
    assert shown == "2 images, 7 layers verified (1GB), 1 problem\n"
    assert LINE in terminal.output


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(cli, fake, how):
    stalled = Stalled(fake, update(fake, progress(fake, 250_000_000)), None)
    terminal = cli.pty("system", "verify")
    terminal.wait_for("Verifying layers")
    terminal.process.send_signal(how)
    assert stalled.cancelled.wait(60)
    assert terminal.wait() == 128 + how
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")
    assert "rror" not in terminal.output


def test_what_was_found_before_an_error_is_said(cli, fake):
    def verify(request, context):
        yield update(fake, progress(fake, 1), problems=[problem(fake)])
        fake.fail(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "the disk is full", "NO_SPACE",
                  "make room")
    fake.verify = verify
    told = cli("system", "verify", check=False)
    assert (told.code, told.stdout) == (1, LINE + "\n")
    assert told.stderr == "Error response from daemon: the disk is full\nHint: make room\n"


def test_names_from_strangers_steer_no_terminal(cli, fake):
    def verify(request, context):
        yield update(fake, progress(fake, 1), result=result(fake, 1),
                     problems=[problem(fake, images=["a\x1b[2J"], image_count=99,
                                       message="b\nc", hint="d\re")])
    fake.verify = verify
    told = cli("system", "verify", check=False).stdout
    assert "\x1b" not in told and told.count("\n") == 2 and "\r" not in told
