"""What the command line prints and returns: help, usage, errors, completion, lists. Progress is in
test_cli_pull.py, streams and signals in test_cli_run.py."""

import json
import os
import re
import shutil
import subprocess
import threading
import time

import grpc
import pytest

from conftest import BIN_DIR, REPOSITORY, start

pytest_plugins = ("fake_daemon",)

NOBODY = "unix:///nonexistent/davit.sock"
NO_ALIAS = {("system", "df"), ("system", "prune"), ("system", "verify"),  # as in Docker
            ("jobs", "cancel"), ("jobs", "update"), ("jobs", "watch"), ("manifest", "inspect")}


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
    assert top.startswith("Usage:  davit [OPTIONS] COMMAND\n\nA container engine for servers\n\n"
                          "Common Commands:\n  run  ")
    assert alone() == alone("help") == alone("-h") == (0, top, "")
    names = re.findall(r"^  ([a-z]+)   +\S", top.split("Global Options:")[0], re.M)
    assert {"image", "container", "system", "images", "pull", "run", "version"} <= set(names)
    for name in names:
        code, text, errors = alone(name, "--help")
        assert (code, errors) == (0, "")
        assert text.startswith(f"Usage:  davit {name} ")
        assert alone("help", name) == (0, text, "")
        for inner in re.findall(r"^  ([a-z]+)   +\S", text.partition("\nCommands:")[2], re.M):
            code, text, errors = alone(name, inner, "--help")
            assert (code, errors) == (0, "")
            assert text.startswith(f"Usage:  davit {name} {inner} ")
            if (name, inner) not in NO_ALIAS:
                assert f"davit {name} {inner}" in text.split("Aliases:")[1]


USAGE = {"davit": "[OPTIONS] COMMAND", "davit image": "COMMAND",
         "davit run": "[OPTIONS] IMAGE [COMMAND] [ARG...]", "davit info": "[OPTIONS]",
         "davit pull": "[OPTIONS] NAME[:TAG|@DIGEST]", "davit rmi": "[OPTIONS] IMAGE [IMAGE...]",
         "davit tag": "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
         "davit images": "[OPTIONS] [REPOSITORY[:TAG]]"}


@pytest.mark.parametrize("path, arguments, code, message", [
    (None, ["foo"], 1, "davit: unknown command: davit foo\n"),
    (None, ["pul"], 1, "davit: unknown command: davit pul\n\nDid you mean 'davit pull'?\n"),
    ("davit image", ["image", "pul"], 1,
     "davit: unknown command: davit image pul\n\nDid you mean 'davit image pull'?\n"),
    (None, ["\33[31m"], 1, "davit: unknown command: davit \\u001b[31m\n"),
    ("davit", ["--foo"], 125, "unknown flag: --foo\n"),
    ("davit", ["-Z"], 125, "unknown shorthand flag: 'Z' in -Z\n"),
    ("davit pull", ["pull", "--foo", "x"], 125, "unknown flag: --foo\n"),
    ("davit image", ["image", "--foo"], 125, "unknown flag: --foo\n"),
    ("davit run", ["run", "-e"], 125, "flag needs an argument: 'e' in -e\n"),
    ("davit run", ["run", "--rm=maybe", "x"], 125,
     'invalid argument "maybe" for "--rm" flag: strconv.ParseBool: parsing "maybe": '
     "invalid syntax\n"),
    ("davit run", ["run", "-e", "", "x"], 125,
     'invalid argument "" for "-e, --env" flag: invalid environment variable: \n'),
    ("davit run", ["run", "-it", "x"], 125, "--tty is not supported by davit yet\n"),
    ("davit run", ["run", "--network", "bridge", "x"], 125,
     'invalid argument "bridge" for "--network" flag: must be one of none|host\n'),
    ("davit pull", ["pull"], 1, "davit: 'davit pull' requires 1 argument\n"),
    ("davit tag", ["tag", "a"], 1, "davit: 'davit tag' requires 2 arguments\n"),
    ("davit images", ["images", "a", "b"], 1,
     "davit: 'davit images' requires at most 1 argument\n"),
    ("davit rmi", ["rmi"], 1, "davit: 'davit rmi' requires at least 1 argument\n"),
    ("davit info", ["info", "x"], 1, "davit: 'davit info' accepts no arguments\n"),
])
def test_errors_of_usage(path, arguments, code, message):
    """In the words of Docker 28."""
    usage = f"Usage:  {path} {USAGE[path]}\n\n" if path else ""
    assert alone(*arguments) == (
        code, "", f"{message}\n{usage}Run '{path or 'davit'} --help' for more information\n")


@pytest.mark.parametrize("arguments, code, errors", [
    (["help", "foo"], 1, "unknown help topic: foo\n"),
    (["help", "image", "foo"], 1, "unknown help topic: foo\n"),
    (["run", "--env-file", "/nonexistent", "x"], 125,
     "davit: open /nonexistent: No such file or directory\n\n"
     "Run 'davit run --help' for more information\n"),
])
def test_errors(arguments, code, errors):
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
    assert errors.endswith("\n\nRun 'davit run --help' for more information\n")
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
    process = start(["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', BIN_DIR / "davit", "images"],
                    env=cli.environment())
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
    assert completions(cli, "davit sy") == ["system"]
    assert completions(cli, "davit system ") == ["df", "events", "info", "prune", "verify"]
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
