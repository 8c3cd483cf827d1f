"""What the command line prints and returns: help, usage, errors, lists. Progress is in
test_cli_pull.py, streams and signals in test_cli_run.py, completion in test_cli_completion.py."""

import json
import os
import re
import shutil
import subprocess
import time

import grpc
import pytest

from conftest import BIN_DIR

pytest_plugins = ("fake_daemon",)

NOBODY = "unix:///nonexistent/davit.sock"
ALIASES = {("image", "ls"), ("image", "pull"), ("image", "push"), ("image", "rm"),
           ("image", "tag"), ("system", "info"), ("system", "events"), ("container", "run")}


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
            aliases = text.partition("Aliases:")[2]
            assert f"davit {name} {inner}" in aliases or (name, inner) not in ALIASES


USAGE = {"davit": " [OPTIONS] COMMAND [ARG...]", "davit image": "",
         "davit run": " [OPTIONS] IMAGE [COMMAND] [ARG...]", "davit info": " [OPTIONS]",
         "davit pull": " [OPTIONS] NAME[:TAG|@DIGEST]", "davit rmi": " [OPTIONS] IMAGE [IMAGE...]",
         "davit tag": " SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
         "davit images": " [OPTIONS] [REPOSITORY[:TAG]]"}


@pytest.mark.parametrize("path, arguments, code, message", [
    (None, ["foo"], 1, "davit: unknown command: davit foo\n"),
    (None, ["pul"], 1, "davit: unknown command: davit pul\n\nDid you mean 'davit pull'?\n"),
    ("davit image", ["image", "pul"], 1,
     "davit: unknown command: davit image pul\n\nDid you mean 'davit image pull'?\n"),
    ("davit image", ["image", "lss"], 1,
     "davit: unknown command: davit image lss\n\nDid you mean 'davit image ls'?\n"),
    (None, ["ps"], 1, "davit: unknown command: davit ps\n\n"
                      "Docker has this command, davit does not have it yet\n"),
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
    usage = f"Usage:  {path}{USAGE[path]}\n\n" if path else ""
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
    for arguments in (["images"], ["pull", "x"], ["rmi", "x"], ["system", "df"]):
        code, output, errors = alone(*arguments)
        assert (code, output) == (1, "")
        assert errors.startswith(refused) and errors.count("\n") == 2 and "Hint: " in errors
    code, output, errors = alone("run", "x")
    assert code == 125
    assert errors.startswith("davit: " + refused)
    assert errors.endswith("\n\nRun 'davit run --help' for more information\n")


@pytest.mark.parametrize("arguments, known", [
    (["version"], "Client:\n Version: .*"),
    (["version", "--format", "{{.Client.Version}}"], r"\d+\.\d+\.\d+\n"),
    (["version", "--format", "{{.Server.Version}}"], "\n"),
    (["version", "--format", "json"], '{"Client":{"Version":.*"Server":null}\n'),
    (["info"], "Client:\n Version:    .*\n\nServer:\n"),
    (["info", "--format", "{{.Images}} {{.Name}}"], "0 \n"),
])
def test_without_a_daemon_what_is_known_is_shown(arguments, known):
    code, output, errors = alone(*arguments)
    assert code == 1
    assert re.fullmatch(known, output, re.S)
    assert errors.startswith(f"Cannot connect to the davit daemon at {NOBODY}.")


def test_nobody_is_asked_for_what_is_known():
    code, output, errors = alone("info", "--format", "{{.ClientInfo.Version}}")
    assert (code, errors) == (0, "") and re.fullmatch(r"\d+\.\d+\.\d+\n", output)


def test_host_flag_is_before_the_environment():
    assert "/other/one" in alone("-H", "unix:///other/one", "images")[2]
    assert "/run/davit/davit.sock" in alone("images", environment={"DAVIT_HOST": ""})[2]


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:1", "unix://relative", "/path", "unix:///",
                                  "unix:///" + "x" * 200])
def test_bad_hosts(host):
    code, output, errors = alone("-H", host, "images")
    assert (code, output) == (1, "")
    assert host.removeprefix("unix://") in errors


@pytest.mark.parametrize("words", [["-D", "images"], ["--tlsverify", "images"],
                                   ["--config", "/x", "images"], ["-l", "debug", "images"]])
def test_global_flags_that_davit_has_not(words):
    """Refused in so many words: nothing is done that was meant otherwise."""
    code, output, errors = alone(*words)
    assert (code, output) == (125, "") and "not supported" in errors and "--" in errors


def test_forbidden_socket(fake):
    os.chmod(fake.socket, 0o600)
    os.chmod(fake.root, 0o755)
    done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                           shutil.copy(BIN_DIR / "davit", fake.root / "davit"), "-H", fake.host,
                           "images"], capture_output=True, text=True, check=False,
                          env={**os.environ, "HOME": "/nonexistent"})
    assert done.returncode == 1
    assert done.stderr.startswith("permission denied while trying to connect to the davit daemon")


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


VERSION = """
Server: davitd
 Engine:
  Version:          1.2.3
  Git commit:       abcdef0
  OS/Arch:          linux/amd64
  Kernel:           6.12
 runc:
  Version:          1.1.5
"""


def test_version(cli, fake):
    fake.version = lambda request, context: fake.system.VersionResponse(
        version="1.2.3", git_commit="abcdef0", os="linux", arch="amd64", kernel="6.12",
        components=[fake.system.Component(name="runc", version="1.1.5")])
    output = cli("version").stdout
    assert re.match(r"Client:\n Version:           \d", output) and output.endswith(VERSION)
    server = json.loads(cli("version", "--format=json").stdout)["Server"]
    assert [(one["Name"], one["Version"]) for one in server["Components"]] == [
        ("Engine", "1.2.3"), ("runc", "1.1.5")]
    assert server["Components"][0]["Details"]["KernelVersion"] == "6.12"
    assert cli("version", "-f", "{{.Server.Os}}/{{.Server.Arch}}").stdout == "linux/amd64\n"
    result = cli("version", "-f", "{{.Foo}}", check=False)
    assert (result.code, result.stdout) == (1, "\n")
    assert result.stderr == ('template: version:1:2: executing "version" at <.Foo>: '
                             "can't evaluate field Foo in type system.versionInfo\n")
    result = cli("version", "-f", "{{.Server", check=False)
    assert (result.code, result.stdout) == (64, "")
    assert result.stderr.startswith("template parsing error: ")


INFO = """
Server:
 Containers: 2
  Running: 1
  Paused: 0
  Stopped: 1
 Images: 3
 Server Version: 1.2.3
 Storage Driver: directory
 Swarm: inactive
 Runtimes: runc
 Default Runtime: runc
 runc version: 1.1.5
 Security Options:
  seccomp
   Profile: builtin
 CPUs: 2
 Total Memory: 7.752GiB
 Name: host
 ID: X
 Insecure Registries:
  127.0.0.0/8
 Max Concurrent Downloads: 3
 Tasks: 4
 Loop Worst Stall: 1.2ms (pull x)

"""


def test_info(cli, fake):
    fake.info = lambda request, context: fake.system.InfoResponse(
        id="X", name="host", images=3, containers=2, containers_running=1,
        storage_driver="directory", memory_bytes=8323461120, cpus=2, version="1.2.3",
        warnings=["no swap limit"], insecure_registries=["127.0.0.0/8"], runtime="runc",
        runtime_version="1.1.5", security_options=["seccomp"], max_concurrent_downloads=3, tasks=4,
        loop_worst_stall_us=1234, loop_worst_stall_task="pull x")
    result = cli("info")
    assert re.fullmatch(r"Client:\n Version:    [\d.]+\n" + re.escape(INFO), result.stdout)
    assert result.stderr == "WARNING: no swap limit\n"
    info = json.loads(cli("system", "info", "-f", "json").stdout)
    assert (info["MemTotal"], info["ContainersStopped"]) == (8323461120, 1)
    assert info["SecurityOptions"] == ["name=seccomp,profile=builtin"]
    # As scripts ask Docker.
    wanted = "{{.Swarm.LocalNodeState}} {{.Driver}} {{json .Runtimes}}"
    assert cli("info", "-f", wanted).stdout == 'inactive directory {"runc":{"path":"runc"}}\n'


DISK_USAGE = """\
TYPE                TOTAL     ACTIVE    SIZE      RECLAIMABLE
Images              2         1         12.35MB   345.7kB (2%)
Containers          1         0         5kB       5kB (100%)
Local Volumes       0         0         0B        0B
Build Cache         0         0         0B        0B
Partial downloads   1         0         777B      0B (0%)
Database            1         1         40.96kB   0B (0%)
"""
DISK_USAGE_VERBOSE = """\
Images space usage:

REPOSITORY   TAG       IMAGE ID       CREATED       SIZE      SHARED SIZE   UNIQUE SIZE   CONTAINERS
busybox      latest    aaaaaaaaaaaa   2 weeks ago   4.27MB    1kB           4.269MB       1
<none>       <none>    bbbbbbbbbbbb   N/A           0B        0B            0B            0

Containers space usage:

CONTAINER ID   IMAGE            COMMAND   LOCAL VOLUMES   SIZE      CREATED              STATUS    NAMES
cccccccccccc   busybox:latest             0               5kB       About a minute ago   Exited    

Local Volumes space usage:

VOLUME NAME   LINKS     SIZE

Build cache usage: 0B

CACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED

Partial downloads usage: 777B

Database usage: 40.96kB
"""


@pytest.fixture
def used(fake):
    system, now = fake.system, time.time_ns()
    images = [system.ImageUsage(
        image=fake.images.Image(
            id="sha256:" + "a" * 64, repo_tags=["busybox:latest", "busybox:1"],
            repo_digests=["busybox@sha256:" + "d" * 64],
            created_unix_ns=now - 15 * 86400 * 10**9),
        shared_bytes=1000, unique_bytes=4269000, containers=1),
        system.ImageUsage(image=fake.images.Image(id="sha256:" + "b" * 64,
                                                  created_unix_ns=-2**63))]
    container = system.ContainerUsage(id="c" * 64, image_id="sha256:" + "a" * 64,
                                      image="busybox:latest", size_bytes=5000,
                                      created_unix=now // 10**9 - 90)

    def disk_usage(request, context):
        return system.DiskUsageResponse(
            images=system.Usage(total=2, active=1, size_bytes=12345678, reclaimable_bytes=345678),
            containers=system.Usage(total=1, size_bytes=5000, reclaimable_bytes=5000),
            partials=system.Usage(total=1, size_bytes=777), metadata_bytes=40960,
            image_list=images if request.verbose else [],
            container_list=[container] if request.verbose else [])
    fake.disk_usage = disk_usage


def test_disk_usage(cli, used):
    assert cli("system", "df").stdout == DISK_USAGE
    rows = [json.loads(line) for line in cli("system", "df", "--format", "json").stdout.split("\n")
            if line]
    assert rows[0] == {"Type": "Images", "TotalCount": "2", "Active": "1", "Size": "12.35MB",
                       "SizeBytes": 12345678, "Reclaimable": "345.7kB (2%)",
                       "ReclaimableBytes": 345678}
    assert list(rows[0]) == sorted(rows[0])
    table = cli("system", "df", "--format", "table {{.Type}}\t{{.Size}}").stdout
    assert table.startswith("TYPE                SIZE\nImages              12.35MB\n")
    lines = cli("system", "df", "--format", "{{.Type}}: {{.Reclaimable}}").stdout.splitlines()
    assert lines[1] == "Containers: 5kB (100%)"


def test_disk_usage_in_detail(cli, used):
    assert cli("system", "df", "-v").stdout == DISK_USAGE_VERBOSE
    assert cli("system", "df", "-v", "--format", "table").stdout == DISK_USAGE_VERBOSE
    usage = json.loads(cli("system", "df", "-v", "--format", "json").stdout)
    assert usage["Images"][0]["ID"] == "sha256:" + "a" * 64
    assert (usage["Images"][0]["UniqueSize"], usage["Images"][0]["UniqueSizeBytes"]) == (
        "4.269MB", 4269000)
    assert usage["Volumes"] == usage["BuildCache"] == []
    template = "{{range .Images}}{{.Repository}}={{.SharedSize}} {{end}}"
    assert cli("system", "df", "-v", "--format", template).stdout == "busybox=1kB <none>=0B "
    result = cli("system", "df", "-v", "--format", "{{.Foo}}", check=False)
    assert (result.code, result.stdout, result.stderr) == (
        1, "", 'template: :1:2: executing "" at <.Foo>: can\'t evaluate field Foo in type '
               "*formatter.diskUsageContext\n")
