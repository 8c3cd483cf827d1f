"""Docker beside davit: a real dockerd of its own, and one shell in which a command is run for both.

    docker = DockerEngine(root).start()         # docker.stop()
    sides = [Side(docker...), Side(davit...)]   # see test_docker_parity.py
    Side.run("docker images -q | xargs docker rmi")

dockerd has roots, socket and containerd of its own and touches no network. DAVIT_TEST_DOCKER names
the directory of another Docker (bin/docker, bin/containerd, sbin/dockerd) than the installed one.
"""

import dataclasses
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

from conftest import BIN_DIR, Notify, our_processes, sanitizer_environment, start, wait_until

SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
COMMAND_SECONDS = 60
FRESH_ID = "f" * 64


def docker_path():
    other = os.environ.get("DAVIT_TEST_DOCKER")
    return f"{other}/bin:{other}/sbin:{SYSTEM_PATH}" if other else SYSTEM_PATH


def docker_installed():
    return all(shutil.which(program, path=docker_path()) for program in ("docker", "dockerd"))


class DockerEngine:
    """dockerd as it is installed, except that it is alone."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.host = f"unix://{self.root}/docker.sock"
        self.home = self.root / "home"
        self.home.mkdir()
        self.log_path = self.root / "docker.log"

    def environment(self):
        return {"PATH": docker_path(), "HOME": str(self.home), "DOCKER_HOST": self.host,
                "DOCKER_BUILDKIT": "0", "DOCKER_CLI_HINTS": "false", "TZ": "UTC",
                "LC_ALL": "C.UTF-8"}

    def start(self):
        (self.root / "docker.json").write_text(json.dumps({}))
        notify = Notify(self.root / "docker.notify")
        command = [shutil.which("dockerd", path=docker_path()), "--data-root", self.root / "docker",
                   "--exec-root", self.root / "docker.exec", "--pidfile", self.root / "docker.pid",
                   "--config-file", self.root / "docker.json", "-H", self.host, "--iptables=false",
                   "--ip6tables=false", "--bridge=none"]
        with open(self.log_path, "wb") as log:
            self.process = start(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                 env={**self.environment(), "NOTIFY_SOCKET": notify.path})
        try:
            ready = notify.wait_for("READY=1", lambda: self.process.poll() is None)
            assert ready, f"dockerd exited with {self.process.poll()}:\n{self.log()}"
        finally:
            notify.close()
        return self

    def log(self):
        return self.log_path.read_text(errors="replace")[-8000:]

    def stop(self):
        containerd = self._containerd()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(COMMAND_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            our_processes.discard(self.process.pid)
            # It stops its containerd itself, unless it was killed.
            if containerd:
                wait_until(lambda: self._gone(containerd), "the end of dockerd's containerd")

    def _containerd(self):
        path = self.root / "docker.exec/containerd/containerd.pid"
        return int(path.read_text()) if path.exists() else None

    def _gone(self, pid):
        """Kills the process if it is still what it was."""
        try:
            command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
            if str(self.root).encode() not in command:
                return True
            os.kill(pid, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            return True
        return False


# --- A command, and what came of it --------------------------------------------------------------


@dataclasses.dataclass
class Answer:
    code: int
    stdout: str
    stderr: str

    def __str__(self):
        return f"exit {self.code}\n--- stdout\n{self.stdout}--- stderr\n{self.stderr}"


class Side:
    """One of the two engines: its shell, and what makes its answers comparable."""

    def __init__(self, program, environment, directory, known, since, registry):
        """known: the hashes that the images define; since: when this began, 2026-01-02T03:04:05."""
        self.program = program
        self.environment = environment
        self.directory = directory
        self.known = known
        self.since = since
        self.registry = registry
        self.fresh = set()

    def spawn(self, command, stdin=subprocess.DEVNULL):
        # Not where it is part of a name: docker.io/library/x, docker-archive, /docker.
        text = re.sub(r"(?<![\w./-])docker(?![\w./-])", self.program, command)
        return start(["bash", "-c", text], cwd=self.directory, env=self.environment,
                     stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                     errors="replace")

    def collect(self, process):
        try:
            stdout, stderr = process.communicate(timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            stderr += f"\n{self.program} had not ended after {COMMAND_SECONDS} s\n"
        our_processes.discard(process.pid)
        return Answer(process.returncode, self.normalise(stdout), self.normalise(stderr))

    def run(self, command):
        return self.collect(self.spawn(command))

    def hold(self, command):
        """Starts a container that says "up" and then reads its standard input till release()."""
        process = self.spawn(command, stdin=subprocess.PIPE)
        line = process.stdout.readline()
        assert line == "up\n", line + process.stderr.read()
        return process

    def release(self, process):
        process.stdin.close()
        process.stdin = None
        self.collect(process)

    def normalise(self, text):
        """Takes away what is no difference: the program's name; davit's hints, which Docker has
        not; hashes of what was made during the test; times and ages since it began; how, and in how
        many bytes of the disk, layers are kept; Docker's three forms of "Run 'docker --help'"."""
        if self.program == "davit":
            text = re.sub(r"^Hint: .*\n", "", text, flags=re.M)
            text = re.sub(r"\bdavit(d?)\b", r"docker\1", text)
        else:
            text = re.sub(r"\n(SRun|See) ('.*' for more information)", r"\nRun \2", text)
            text = re.sub(r"open /\S*/docker-import-\d+/", "open /tmp/docker-import-1/", text)
        text = re.sub(r"(reclaimed space: )[1-9].*", r"\1some", text)
        text = text.replace(self.registry, "127.0.0.1:44444")
        text = re.sub(r"\b[0-9a-f]{64}\b", self._fresh_id, text)
        for short in self.fresh:
            text = re.sub(rf"\b{short}\b", FRESH_ID[:12], text)
        text = re.sub(r"\bcontainer [0-9a-f]{12}\b", f"container {FRESH_ID[:12]}", text)
        text = re.sub(r"20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| \+0000 UTC)",
                      self._fresh_time, text)
        text, fresh_ages = re.subn(r"(Less than a second|About a minute|\b\d+ seconds?) ago",
                                   "just now", text)
        if fresh_ages:
            text = re.sub(r" +", " ", text)  # they decide how wide a column is
        return re.sub(r'"GraphDriver": ?\{.*?\n?\s*\},(?=\s*"RootFS")', '"GraphDriver": {},', text,
                      flags=re.S)

    def _fresh_id(self, match):
        if match[0] in self.known:
            return match[0]
        self.fresh.add(match[0][:12])
        return FRESH_ID

    def _fresh_time(self, match):
        return "<now>" if match[0].replace(" ", "T")[:19] >= self.since else match[0]


def davit_environment(daemon):
    """davit's shell: that of Docker, with davit's programs before it."""
    return {"PATH": f"{BIN_DIR}:{docker_path()}", "HOME": str(daemon.home),
            "DAVIT_HOST": daemon.host, "TZ": "UTC", "LC_ALL": "C.UTF-8",
            **sanitizer_environment(daemon.root)}


def without_ages(answer):
    """For an answer that is kept: what was two years old then is three now."""
    def cut(text):
        return re.sub(r" +", " ", re.sub(r"\d+ (\w+) ago", "some time ago", text))
    return Answer(answer.code, cut(answer.stdout), cut(answer.stderr))


def same_answer(a, b):
    return (a.code == b.code and same_output(a.stdout, b.stdout)
            and same_output(a.stderr, b.stderr))


def same_output(a, b):
    """Lines of the same image in another order are no difference: Docker lists the repositories of
    an image as its map has them."""
    return a == b or _by_image(a) == _by_image(b)


def _by_image(text):
    groups = itertools.groupby(text.splitlines(),
                               lambda line: re.findall(r"\b[0-9a-f]{12}", line)[-1:])
    return [sorted(lines) for _, lines in groups]
