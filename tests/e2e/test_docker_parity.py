"""davit gives what Docker gives: the commands of docker_commands.txt, which are those of Docker's
documentation on images, run in both engines on the same images, and their answers are compared.

Side.normalise() in docker_engine.py lists what is not compared. DAVIT_TEST_DOCKER=/path/of/docker28
pytest ... takes another Docker; with DAVIT_TEST_DOCKER_RECORD=1 the answers of the lines marked
"28:" are written to docker28_answers.json (with a Docker of 28 or later).
"""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import re
import shutil

import docker_images
import images
import pytest
from conftest import Registry, _make_scratch, davitd_maker
from docker_engine import (Answer, DockerEngine, Side, davit_environment, docker_installed,
                           same_answer, without_ages)

HERE = pathlib.Path(__file__).parent
ANSWERS = HERE / "docker28_answers.json"
MODERN = 28


@dataclasses.dataclass
class Section:
    title: str
    lines: list  # Line


@dataclasses.dataclass
class Line:
    mark: str  # "28", "own", "hold", "release", or None
    command: str


def read_script():
    sections = []
    for text in (HERE / "docker_commands.txt").read_text().splitlines():
        if text.startswith("== "):
            sections.append(Section(text[3:].split("  ")[0], []))
        elif text and not text.startswith("#"):
            sections[-1].lines.append(
                Line(*re.fullmatch(r"(?:(28|own|hold|release): ?)?(.*)", text).groups()))
    return sections


SCRIPT = read_script()


# --- Both engines, and the same images for both --------------------------------------------------


def write_files(directory, made, recent):
    """What the commands read: archives, and a root file system in several wrappings."""
    directory.mkdir()
    archives = {"base": made.members, "untagged": made.untagged, "chain": made.chain}
    for name, members in archives.items():
        (directory / f"{name}.tar").write_bytes(docker_images.archive(members))
    for name in ("undated", "runnable"):
        alone = docker_images.Member(getattr(made, name), [f"{name}:latest", f"{name}:other"])
        (directory / f"{name}.tar").write_bytes(docker_images.archive([alone]))
    (directory / "recent.tar").write_bytes(docker_images.archive(recent))
    (directory / "empty.tar").write_bytes(b"")
    tree = images.make_tar([images.directory("etc"), images.file("etc/hello", "hello\n" * 100),
                            images.symlink("etc/link", "hello")])
    (directory / "rootfs.tar").write_bytes(tree)
    (directory / "rootfs.tgz").write_bytes(images.compress(tree, "gzip"))
    (directory / "rootfs/etc").mkdir(parents=True)
    (directory / "rootfs/etc/hello").write_text("hello\n" * 100)


def short(image):
    return image.id.split(":")[1][:12]


def script_environment(made, registry):
    names = ("busybox", "glibc", "musl", "odd", "forty", "old", "runnable")
    layer = made.tagged[0].layers[1]
    return {
        "REGISTRY": registry.host,
        **{name.upper(): short(getattr(made, name)) for name in names},
        "CHAIN": short(made.chain[3].image), "CHAIN_SIDE": short(made.chain[4].image),
        "APP_DIGEST": made.tagged[0].digest, "TOOL_DIGEST": made.forty.digest,
        "LAYER_DIGEST": layer.digest,
    }


@contextlib.contextmanager
def both_engines():
    """The two sides, Docker's first."""
    made = docker_images.Images()
    root = _make_scratch()
    now = datetime.datetime.now(datetime.timezone.utc)
    recent = docker_images.recent_images(now)
    known = made.known() | docker_images.hashes([one.image for one in recent])
    (root / "registry").mkdir()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, root)
        registry = Registry(root / "registry")
        stack.callback(registry.stop)
        for repository, tags in made.pushed.items():
            for tag, image in tags.items():
                registry.push(repository, image, tag)
        daemon = stack.enter_context(davitd_maker())()
        docker = DockerEngine(root).start()
        stack.callback(docker.stop)
        sides = []
        for program, environment in (("docker", docker.environment()),
                                     ("davit", davit_environment(daemon))):
            directory = root / f"files-{program}"
            write_files(directory, made, recent)
            sides.append(Side(program, {**environment, **script_environment(made, registry)},
                              directory, known, now.isoformat()[:19], registry.host))
        yield sides


# --- The comparison ------------------------------------------------------------------------------


class Comparison:
    """Runs lines in both engines at once and collects what differs."""

    def __init__(self, sides):
        self.sides = sides
        self.answers = json.loads(ANSWERS.read_text()) if ANSWERS.exists() else {}
        version = sides[0].run("docker version -f '{{.Client.Version}} {{.Server.Version}}'").stdout
        self.modern = all(int(one.split(".")[0]) >= MODERN for one in version.split())
        self.recording = bool(os.environ.get("DAVIT_TEST_DOCKER_RECORD"))
        assert self.modern or not self.recording, f"answers of Docker {version} are not to be kept"
        self.recorded = {}

    def section(self, section):
        """What differs, as texts."""
        held = []
        found = []
        for line in section.lines:
            if line.mark == "hold":
                held = [side.hold(line.command) for side in self.sides]
            elif line.mark == "release":
                for side, process in zip(self.sides, held):
                    side.release(process)
                held = []
            else:
                difference = self.line(section.title, line)
                found += [difference] if difference else []
        return found

    def line(self, title, line):
        expected, got = self._run(line.command)
        key = f"{title}: {line.command}"
        if line.mark == "28":
            if self.recording:
                self.recorded[key] = dataclasses.asdict(without_ages(expected))
            if not self.modern:
                expected = Answer(**self.answers[key])
                got = without_ages(got)
        elif line.mark == "own":
            expected = dataclasses.replace(got, code=expected.code)
        if same_answer(expected, got):
            return None
        return f"$ {line.command}\n=== Docker: {expected}=== davit: {got}"

    def _run(self, command):
        processes = [side.spawn(command) for side in self.sides]
        return [side.collect(process) for side, process in zip(self.sides, processes)]

    def keep(self):
        text = json.dumps(self.recorded, ensure_ascii=False, indent=1, sort_keys=True)
        ANSWERS.write_text(text + "\n")


@pytest.fixture(scope="module")
def comparison():
    with both_engines() as sides:
        made = Comparison(sides)
        yield made
        if made.recording:
            made.keep()


@pytest.mark.skipif(not docker_installed(), reason="docker.io is not installed")
@pytest.mark.parametrize("section", SCRIPT, ids=lambda section: section.title)
def test_same_answers(comparison, section):
    differences = comparison.section(section)
    assert not differences, f"{len(differences)} differ\n\n" + "\n".join(differences)


BUILD = r"""set -e
docker image prune -a -f > out
docker load -q -i base.tar > out
printf 'FROM busybox:musl\nENV A=1\nCOPY etc /etc\nLABEL "名"="値"\nCMD ["x"]\n' \
    > rootfs/Dockerfile
docker build -q -t built:1 rootfs
docker commit -m 'by hand' -a me $(docker create built:1) committed:1
docker tag built:1 built:2
docker save built committed:1 busybox:musl $(docker history -q built:1 | grep -v missing) \
    > built.tar
docker images -aq --no-trunc > ids
docker rm $(docker ps -lq)
docker image prune -a -f > out
"""
BUILT = """docker load -q -i built.tar | sort | grep image:
docker images | sort
docker images -a | sort
docker images -f dangling=true
docker images -f label=名=値 -q | sort
docker history built:1
docker history --no-trunc -q committed:1
docker inspect -f '{{.Parent}} {{.Comment}} {{.Author}}' $(docker images -aq) | sort
docker rmi busybox:musl
docker rmi committed:1 built:1
docker images -a | sort
docker rmi built:2 | head -n 3
docker images -a""".splitlines()


@pytest.mark.skipif(not docker_installed(), reason="docker.io is not installed")
def test_images_of_builder_and_commit(comparison):
    """What only Docker can make yet: it leaves parents, which save and load keep."""
    docker, davit = comparison.sides
    made = docker.run(BUILD)
    assert made.code == 0, made
    shutil.copy(docker.directory / "built.tar", davit.directory)
    assert davit.run("docker image prune -a -f").code == 0
    for side in comparison.sides:
        side.known |= {line[-64:] for line in (docker.directory / "ids").read_text().split()}
        side.fresh.clear()
    differences = comparison.section(Section("built", [Line(None, command) for command in BUILT]))
    assert not differences, "\n".join(differences)


def test_script_is_long_enough():
    lines = [line for section in SCRIPT for line in section.lines]
    compared = {line.command for line in lines if line.mark in (None, "28")}
    assert len(compared) >= 150
    assert len([line for line in lines if line.mark == "own"]) < 15
