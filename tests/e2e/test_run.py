"""Running a command: exit codes, streams, signals, users, isolation, and what is left behind."""

import os
import pathlib
import re
import select
import signal
import subprocess
import time

import images
import pytest

PASSWD = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"
GROUP = "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"


@pytest.fixture
def image(davit, registry):
    made = images.busybox_image([[
        images.directory("etc"), images.file("etc/passwd", PASSWD), images.file("etc/group", GROUP),
        images.directory("home/user", uid=1000, gid=1000), images.directory("tmp", mode=0o1777),
        images.file("bin/not-executable", "x", mode=0o644),
        images.file("bin/not-a-program", "\0\1\2\3", mode=0o755),
        images.symlink("escape", "/../../../../etc"),
    ]], config={"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["echo", "from", "Cmd"]})
    name = registry.push("run/base", made)
    davit("pull", "-q", name)
    return name


@pytest.fixture(autouse=True)
def nothing_left(davitd, wait_until):
    yield
    if davitd.process is None:
        return
    # A client that vanished did not wait for the end.
    wait_until(lambda: not list((davitd.exec_root / "containers").glob("*")), "the containers' end")
    mounts = pathlib.Path("/proc/self/mountinfo").read_text()
    assert str(davitd.exec_root / "containers") not in mounts


def sh(davit, image, script, *options, **more):
    return davit("run", "--rm", *options, image, "sh", "-c", script, **more)


# --- Exit codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("script, code", [("exit 0", 0), ("exit 1", 1), ("exit 125", 125),
                                          ("exit 255", 255), ("kill -9 $$", 137),
                                          ("kill -15 $$; sleep 9", None)])
def test_the_commands_own_exit_code(davit, image, script, code):
    if code is None:
        # The first process of a PID namespace ignores signals that it does not handle.
        script, code = "(kill -15 $$); exit 3", 3
    if code == 137:
        script = "sh -c 'kill -9 $$'; exit $?"
    assert sh(davit, image, script, check=False).code == code


@pytest.mark.parametrize("command, code, wanted", [
    ("no-such-program", 127, r'exec: "no-such-program": executable file not found in \$PATH'),
    ("/bin/no-such-file", 127, "no such file or directory"),
    ("/bin/not-executable", 126, "permission denied"),
    # The runtime finds this out too late for anybody but the container's own stderr, as in Docker.
    ("/bin/not-a-program", 1, "exec format error"),
    ("/etc", 126, "is a directory|permission denied"),
])
def test_commands_that_cannot_run(davit, image, command, code, wanted):
    failed = davit("run", "--rm", image, command, check=False)
    assert failed.code == code, failed
    assert re.search(wanted, failed.stderr), failed
    assert failed.stdout == ""


def test_errors_of_davit_itself_are_125(davit, image, registry):
    for arguments in (["--network", "nope", image], ["--frobnicate", image],
                      [f"{registry.host}/no/such-image"], ["-u", "nobody-there", image],
                      ["-w", "relative", image]):
        assert davit("run", "--rm", *arguments, check=False).code == 125, arguments
    failed = davit("run", "-u", "nobody-there", image, check=False)
    assert "unable to find user nobody-there" in failed.stderr


def test_a_missing_image_is_pulled(davit, registry):
    name = registry.push("run/missing", images.busybox_image())
    result = davit("run", "--rm", name, "echo", "pulled")
    assert result.stdout == "pulled\n"
    assert f"Unable to find image '{name}' locally" in result.stderr


# --- Command, environment, user, directory -------------------------------------------------------


def test_cmd_and_entrypoint(davit, registry, image):
    assert davit("run", "--rm", image).stdout == "from Cmd\n"
    assert davit("run", "--rm", image, "echo", "mine").stdout == "mine\n"
    assert davit("run", "--rm", "--entrypoint", "echo", image).stdout == "\n"
    assert davit("run", "--rm", "--entrypoint", "echo", image, "a", "b").stdout == "a b\n"
    both = registry.push("run/entrypoint", images.busybox_image(
        config={"Entrypoint": ["echo", "entry"], "Cmd": ["cmd"]}))
    davit("pull", "-q", both)
    assert davit("run", "--rm", both).stdout == "entry cmd\n"
    assert davit("run", "--rm", both, "own").stdout == "entry own\n"
    none = registry.push("run/no-command", images.busybox_image(config={"Cmd": None}))
    davit("pull", "-q", none)
    failed = davit("run", "--rm", none, check=False)
    assert failed.code == 125
    assert "no command specified" in failed.stderr.lower()


def test_environment(davit, image):
    shown = davit("run", "--rm", "-e", "A=1", "-e", "FROM_IMAGE=changed", "-e", "HOME=/h", image,
                  "env").stdout.splitlines()
    assert {"A=1", "FROM_IMAGE=changed", "PATH=/bin", "HOME=/h"} <= set(shown)
    assert len([line for line in shown if line.startswith("HOSTNAME=")]) == 1
    assert len(shown) == len({line.split("=")[0] for line in shown})
    assert "TAKEN=over" in davit("run", "--rm", "-e", "TAKEN", "-e", "UNSET", image, "env",
                                 environment={"TAKEN": "over"}).stdout


@pytest.mark.parametrize("user, shown", [
    (None, "0:0:0:/root"), ("user", "1000:1000:1000 2000:/home/user"), ("1000", "1000:1000:1000 2000:/home/user"),
    ("4242", "4242:0:0:/"), ("user:root", "1000:0:0:/home/user"), ("7:8", "7:8:8:/"),
])
def test_user(davit, image, user, shown):
    options = ["-u", user] if user else []
    result = sh(davit, image, 'echo "$(id -u):$(id -g):$(id -G):$HOME"', *options)
    assert result.stdout.strip() == shown


def test_working_directory_is_made_inside_the_image_only(davit, image):
    assert sh(davit, image, "pwd", "-w", "/made/by/davit").stdout == "/made/by/davit\n"
    sh(davit, image, "pwd", "-w", "/escape/davit-was-here", check=False)
    assert not os.path.exists("/etc/davit-was-here")


def test_changes_stay_in_the_container(davit, image):
    assert sh(davit, image, "echo changed > /etc/passwd; rm /bin/env; cat /etc/passwd").stdout == \
        "changed\n"
    assert davit("run", "--rm", image, "cat", "/etc/passwd").stdout == PASSWD


# --- Isolation -----------------------------------------------------------------------------------


def test_what_docker_gives_a_container(davit, image):
    status = sh(davit, image, "cat /proc/self/status").stdout
    assert re.search(r"CapEff:\s+00000000a80425fb", status)
    assert re.search(r"CapBnd:\s+00000000a80425fb", status)
    assert re.search(r"CapInh:\s+0000000000000000", status)
    assert re.search(r"CapAmb:\s+0000000000000000", status)
    assert re.search(r"Seccomp:\s+2", status)
    plain = sh(davit, image, "cat /proc/self/status", "-u", "user").stdout
    assert re.search(r"CapEff:\s+0000000000000000", plain)
    assert sh(davit, image, "echo $$; ls /proc | grep -c '^[0-9]'").stdout.split()[0] == "1"
    assert sh(davit, image, "cat /proc/kcore | head -c 1 | wc -c").stdout.strip() == "0"
    assert sh(davit, image, "echo 1 > /proc/sys/kernel/panic", check=False).code == 1
    assert sh(davit, image, "echo x > /sys/x", check=False).code == 1
    assert sh(davit, image, "mknod /tmp/x b 8 0 && dd if=/tmp/x count=1", check=False).code == 1
    assert "shm" in sh(davit, image, "mount").stdout


def test_no_descriptor_comes_along(davit, image):
    listed = sh(davit, image, "ls /proc/self/fd").stdout.split()
    assert set(listed) <= {"0", "1", "2", "3"}  # 3 is the directory that ls reads


def test_network_none_and_host(davit, image):
    assert sh(davit, image, "ls /sys/class/net").stdout.split() == ["lo"]
    assert sh(davit, image, "ls /sys/class/net", "--network", "none").stdout.split() == ["lo"]
    assert "127.0.0.1" in sh(davit, image, "cat /etc/hosts").stdout
    host = sh(davit, image, "cat /proc/net/dev", "--network", "host").stdout
    for interface in os.listdir("/sys/class/net"):
        assert f"{interface}:" in host


def test_host_name(davit, image):
    shown = sh(davit, image, "hostname; cat /etc/hostname; echo $HOSTNAME").stdout.split()
    assert len(set(shown)) == 1 and re.fullmatch("[0-9a-f]{12}", shown[0])
    assert sh(davit, image, "hostname", "--hostname", "named").stdout == "named\n"


# --- Streams -------------------------------------------------------------------------------------


def test_stdout_and_stderr_are_apart(davit, image):
    result = sh(davit, image, "echo out; echo err >&2")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


def test_stdin_goes_in_and_ends(davit, image):
    data = os.urandom(10_000_000)
    result = davit("run", "--rm", "-i", image, "cat", input=data, text=False)
    assert result.stdout == data
    assert davit("run", "--rm", image, "cat", input="dropped").stdout == ""
    assert davit("run", "--rm", "-i", image, "true", input="x" * 1_000_000).code == 0


def test_output_of_200_megabytes_through_a_slow_reader_keeps_memory_flat(davitd, davit, image):
    process = davit.start("run", "--rm", image, "head", "-c", "200000000", "/dev/zero",
                          stderr=None)
    process.stdout.read(1_000_000)  # then nobody reads for a while: everything must come to rest
    peak = lambda: int(re.search(r"RssAnon:\s+(\d+)", pathlib.Path(
        f"/proc/{davitd.pid}/status").read_text())[1])
    resting = lambda: [pathlib.Path(f"/proc/{pid}/io").read_text()
                       for pid in (davitd.pid, process.pid)]
    before = resting()
    while True:
        time.sleep(0.2)
        now = resting()
        if now == before:
            break
        before = now
    if "build-asan" not in os.environ.get("DAVIT_TEST_BIN_DIR", ""):
        assert peak() < 16 * 1024
    total = 1_000_000
    while chunk := process.stdout.read(1 << 20):
        total += len(chunk)
    assert process.wait() == 0
    assert total == 200_000_000


def test_output_after_the_first_process_has_ended_still_arrives(davit, image):
    script = "(while kill -0 1; do :; done 2>/dev/null; echo late) & exit 4"
    result = sh(davit, image, "sh -c 'echo early' & wait; exit 4", check=False)
    assert (result.code, result.stdout) == (4, "early\n")
    # The end of a PID namespace's first process ends them all; nothing may hang on their pipes.
    assert sh(davit, image, script, check=False).code == 4


def test_a_reader_that_goes_away(davit, image):
    process = davit.start("run", "--rm", image, "yes")
    process.stdout.read(100)
    process.stdout.close()
    process.stderr.close()
    process.wait(60)


# --- Signals and vanishing clients ---------------------------------------------------------------


def test_signals_are_forwarded(davit, image):
    for number, name in ((signal.SIGTERM, "TERM"), (signal.SIGINT, "INT"), (signal.SIGUSR1, "USR1"),
                         (signal.SIGHUP, "HUP")):
        process = davit.start("run", "--rm", image, "sh", "-c",
                              f"trap 'echo got {name}; exit 9' {name}; echo ready; "
                              "while :; do sleep 0.05; done", text=True)
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        assert (output, process.returncode) == (f"got {name}\n", 9), errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_overtake_input_that_nobody_reads(davit, image, number):
    process = davit.start("run", "--rm", "-i", image, "sh", "-c",
                          "trap 'echo got INT; exit 7' INT; trap 'echo got TERM; exit 8' TERM; "
                          "echo ready; while :; do sleep 0.05; done", stdin=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    os.set_blocking(process.stdin.fileno(), False)
    # Full is a pipe that takes nothing for a while: davit has nowhere to put what it holds.
    while select.select([], [process.stdin], [], 1)[1]:
        os.write(process.stdin.fileno(), bytes(4096))
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    wanted = {signal.SIGINT: (b"got INT\n", 7), signal.SIGTERM: (b"got TERM\n", 8)}
    assert (output, process.returncode) == wanted[number], errors


@pytest.mark.parametrize("remove", [True, False])
def test_a_client_that_vanishes_takes_its_container_along(davitd, davit, image, wait_until, remove):
    process = davit.start("run", *(["--rm"] if remove else []), image, "sh", "-c",
                          f"echo ready; exec sleep 1000{os.getpid()}", text=True)
    process.stdout.readline()
    running = list((davitd.exec_root / "containers").iterdir())
    assert len(running) == 1
    process.kill()
    process.communicate()
    wait_until(lambda: not list((davitd.exec_root / "containers").iterdir()), "the container's end")
    listed = subprocess.run(["pgrep", "-f", f"^sleep 1000{os.getpid()}$"], capture_output=True,
                            text=True)
    assert listed.stdout == ""
    # Its changes are kept unless it was to be removed.
    assert bool(list((davitd.data_root / "containers").iterdir())) == (not remove)


def test_a_container_of_a_killed_daemon_is_cleaned_at_the_next_start(davitd, davit, image):
    process = davit.start("run", "--rm", image, "sh", "-c", "echo ready; exec sleep 1000",
                          text=True)
    process.stdout.readline()
    davitd.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 125
    assert errors.strip()
    davitd.start()
    assert davit("run", "--rm", image, "echo", "again").stdout == "again\n"


def test_sigterm_of_the_daemon_ends_containers_cleanly(davitd, davit, image):
    process = davit.start("run", "--rm", image, "sh", "-c", "echo ready; exec sleep 1000",
                          text=True)
    process.stdout.readline()
    davitd.stop()
    process.communicate(timeout=60)
    assert process.returncode == 125
    davitd.start()


def test_an_image_in_use_cannot_be_removed(davit, image):
    process = davit.start("run", "--rm", image, "sh", "-c", "echo ready; read x", text=True,
                          stdin=subprocess.DEVNULL)
    process.communicate(timeout=60)
    process = davit.start("run", "--rm", "-i", image, "sh", "-c", "echo ready; read x", text=True,
                          stdin=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    refused = davit("rmi", image, check=False)
    assert refused.code == 1
    assert "is using its referenced image" in refused.stderr
    process.communicate("\n", timeout=60)
    davit("rmi", image)


def test_many_containers_at_once(davit, image):
    running = [davit.start("run", "--rm", image, "sh", "-c", f"echo {n}; exit {n}", text=True)
               for n in range(20)]
    for number, process in enumerate(running):
        output, errors = process.communicate(timeout=120)
        assert (output, process.returncode) == (f"{number}\n", number), errors


def test_an_image_without_layers(davit, registry):
    name = registry.push("run/empty", images.image([]))
    davit("pull", "-q", name)
    assert davit("run", "--rm", name, check=False).code == 127
    davit("rmi", name)


def test_127_layers(davit, registry):
    name = registry.push("run/127", images.busybox_image(
        [[images.file(f"layer{number}", str(number))] for number in range(126)]))
    davit("pull", "-q", name)
    assert sh(davit, name, "cat /layer0 /layer125; ls / | grep -c layer").stdout == "0125126\n"


def test_a_layer_that_stands_twice(davit, registry):
    twice = [images.file("a", "from the layer that stands twice")]
    name = registry.push("run/twice", images.busybox_image(
        [twice, [images.file("a", "between"), images.file("b", "b")], twice]))
    davit("pull", "-q", name)
    assert sh(davit, name, "cat /a /b").stdout == "from the layer that stands twiceb"


def test_whiteouts_and_opaque_directories(davit, registry):
    name = registry.push("run/whiteouts", images.busybox_image([
        [images.file("a/gone", "x"), images.file("a/stays", "x"), images.file("b/hidden", "x")],
        [images.whiteout("a/gone"), images.opaque("b"), images.file("b/new", "x")]]))
    davit("pull", "-q", name)
    assert sh(davit, name, "ls /a /b | tr '\\n' ' '").stdout == "/a: stays  /b: new "
