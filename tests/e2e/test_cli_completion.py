"""Completion as users meet it: the shells themselves in a terminal, TAB pressed. `davit` is a script
there that shows how it was called, but for what the shells ask of it."""

import os
import re
import shutil
import stat

import pytest

from conftest import BIN_DIR, REPOSITORY, Terminal

pytest_plugins = ("fake_daemon",)

SCRIPTS = REPOSITORY / "client/completion"
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"],
             f"bind 'set enable-bracketed-paste off'; PS1='@ '; source {SCRIPTS}/davit.bash"),
    "zsh": (["zsh", "-f", "-i"],
            f"unsetopt zle_bracketed_paste; fpath=({SCRIPTS} $fpath); autoload -U compinit; "
            "compinit -u -D; PS1='@ '; PROMPT_EOL_MARK="),
    "fish": (["fish", "--no-config"],
             "function fish_prompt; echo '@ '; end; set fish_greeting; "
             f"source {SCRIPTS}/davit.fish"),
}
STAND_IN = """#!/bin/sh
if [ "$1" = __complete ]; then
    exec "{davit}" "$@"
fi
printf 'called:'
printf ' <%s>' "$@"
echo
"""
ID = "3fe0a1" + "b" * 58
OTHER = "77c2" + "d" * 60


@pytest.fixture(params=sorted(SHELLS))
def shell(request, cli, fake):
    if not shutil.which(request.param):
        pytest.fail(f"no {request.param}: install it with third_party/deps.sh test")
    pages = {"": fake.images.ListImagesResponse(next_page_token="more", images=[fake.images.Image(
        id="sha256:" + ID, repo_tags=["busybox:latest", "localhost:5000/app:1"],
        repo_digests=["busybox@sha256:" + "e" * 64])]),
             "more": fake.images.ListImagesResponse(images=[fake.images.Image(
                 id="sha256:" + OTHER)])}
    fake.list = lambda call, context: pages[call.page_token]
    fake.list_jobs = lambda call, context: fake.jobs.ListJobsResponse(jobs=[
        fake.jobs.Job(id="0a1b2c3d4e5f", subject="debian:12")])
    program = fake.root / "davit"
    program.write_text(STAND_IN.format(davit=BIN_DIR / "davit"))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (fake.root / "my images.tar").touch()
    yield Shell(request.param, fake.root, cli.environment())


class Shell:
    def __init__(self, name, directory, environment):
        command, setup = SHELLS[name]
        self.name = name
        self.file = directory / "home" / "dear file"
        self.file.touch()
        environment = {**environment, "PATH": f"{directory}:{os.environ['PATH']}",
                       "TERM": "xterm", "INPUTRC": "/dev/null", "LANG": "C.UTF-8",
                       "XDG_CONFIG_HOME": str(directory / "config")}
        self.terminal = Terminal(command, environment, columns=200)
        self.terminal.send(f"cd {directory}; {setup}; echo ready-$((40 + 2))\r"
                           if name != "fish" else
                           f"cd {directory}; {setup}; echo ready-(math 40 + 2)\r")
        self.terminal.wait_for("ready-42")
        self.terminal.wait_for("ready-42[^@]*@ ")

    def completed(self, typed):
        """What davit is called with once the typed line was completed."""
        before = len(re.findall("called:", self.terminal.output))
        self.terminal.send(typed + "\t\r")
        self.terminal.wait_for("(?s)" + "called:.*?" * before + r"called:[^\r\n]*[\r\n][^@]*@ ")
        return re.findall(r"called:([^\r\n]*)", self.terminal.output)[-1].strip()

    def offered(self, typed, *expected):
        """Waits until all that is expected was shown below the line."""
        start = len(self.terminal.output)
        self.terminal.send(typed + "\t\t")
        for text in expected:
            self.terminal.wait_for(f"(?s)^.{{{start}}}.*{re.escape(text)}")
        self.terminal.send("\x15")

    def end(self):
        self.terminal.send("\x15\x04")
        self.terminal.wait(5)


def test_words_are_completed(shell):
    assert shell.completed("davit ver") == "<version>"
    assert shell.completed("davit system pru") == "<system> <prune>"
    assert shell.completed("davit help manif") == "<help> <manifest>"
    assert shell.completed("davit pull --quie") == "<pull> <--quiet>"
    assert shell.completed("davit pull --progress js") == "<pull> <--progress> <json>"
    assert shell.completed("davit pull --progress=js") == "<pull> <--progress=json>"
    assert shell.completed("davit pull --platform linux/p") == "<pull> <--platform> <linux/ppc64le>"
    assert shell.completed("true; davit jobs watch 0") == "<jobs> <watch> <0a1b2c3d4e5f>"
    assert shell.completed("X=1 davit system pru") == "<system> <prune>"
    assert shell.completed("true | davit system pru") == "<system> <prune>"
    assert shell.completed("davit run --rm busybox --pl") == "<run> <--rm> <busybox> <--pl>"
    shell.end()


def test_images_are_completed(shell):
    assert shell.completed("davit rmi busy") == "<rmi> <busybox:latest>"
    assert shell.completed("davit rmi busybox:l") == "<rmi> <busybox:latest>"
    assert shell.completed('davit rmi "busy') == "<rmi> <busybox:latest>"
    assert shell.completed("davit rmi localhost:5") == "<rmi> <localhost:5000/app:1>"
    assert shell.completed("davit rmi busybox@") == f"<rmi> <busybox@sha256:{'e' * 64}>"
    assert shell.completed("davit rmi 3f") == f"<rmi> <{ID[:12]}>"
    assert shell.completed(f"davit rmi {OTHER[:13]}") == f"<rmi> <{OTHER}>"
    assert shell.completed("davit rmi sha256:3") == f"<rmi> <sha256:{ID}>"
    shell.end()


def test_a_word_is_completed_in_the_middle_of_a_line(shell):
    back = "\x02" * len(" other")
    assert shell.completed("davit rmi busy other" + back) == "<rmi> <busybox:latest> <other>"
    shell.end()


def test_what_there_is_is_shown(shell):
    shell.offered("davit image ", "ls", "push", "tag")
    shell.offered("davit rmi ", "busybox:latest", "localhost:5000/app:1", OTHER[:12])
    shell.end()


def test_values_of_flags_are_completed(shell):
    assert shell.completed("davit events -f im") == "<events> <-f> <image=>"
    assert shell.completed("davit events -f im\tbusy") == "<events> <-f> <image=busybox:latest>"
    assert shell.completed("davit events -f image=busy") == "<events> <-f> <image=busybox:latest>"
    assert shell.completed("davit events --filter=typ") == "<events> <--filter=type=image>"
    assert shell.completed("davit run --env-file my") == "<run> <--env-file> <my images.tar>"
    assert shell.completed("davit run --env-file ~/de") == f"<run> <--env-file> <{shell.file}>"
    assert shell.completed("davit load -i my\\ im") == "<load> <-i> <my images.tar>"
    assert shell.completed("davit import my") == "<import> <my images.tar>"
    assert shell.completed("davit import x busy") == "<import> <x> <busybox:latest>"
    assert shell.completed("davit run --env-file=my") == "<run> <--env-file=my images.tar>"
    shell.end()


def test_nobody_is_told_that_the_daemon_is_away(shell):
    shell.terminal.send("DAVIT_HOST=unix:///nonexistent; export DAVIT_HOST\r"
                        if shell.name != "fish" else "set -x DAVIT_HOST unix:///nonexistent\r")
    before = len(shell.terminal.output)
    assert shell.completed("davit rmi busy") == "<rmi> <busy>"
    assert "onnect" not in shell.terminal.output[before:]
    shell.end()
