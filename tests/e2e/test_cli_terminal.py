"""What davit prints to: terminals of any size, pipes whose reader goes away, full disks, nothing."""

import json
import os
import re
import signal
import subprocess
import threading

import pytest

from conftest import BIN_DIR, Terminal, start

pytest_plugins = ("fake_daemon",)

GERMAN = "registry.example.com/gr\u00fc\u00dfe"  # no valid name, but who knows what a daemon says


def images(fake, count, name="repository-{}"):
    def list_images(request, context):
        return fake.images.ListImagesResponse(images=[
            fake.images.Image(id="sha256:%064x" % (i << 208), repo_tags=[f"{name.format(i)}:latest"],
                              created_unix_ns=10**18) for i in range(count)])
    fake.list = list_images


# --- Help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [20, 60, 80, 132])
def test_help_fits_the_terminal(cli, columns):
    terminal = Terminal([BIN_DIR / "davit", "run", "--help"], cli.environment({"TERM": "xterm"}),
                        columns=columns)
    assert terminal.wait() == 0
    options = terminal.output.split("Options:")[1].splitlines()
    assert len(options) > 10
    # Below that width the names of flags leave no room.
    assert max(map(len, options)) < max(columns, 55)


def test_help_says_what_the_command_is_called(cli):
    for path in (["image", "ls"], ["images"]):
        assert cli(*path, "--help").stdout.startswith(f"Usage:  davit {' '.join(path)} [OPTIONS]")


# --- Readers that go away ------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["images"], ["images", "-q"], ["images", "--format", "json"],
                                       ["run", "--help"], ["--version"]])
def test_a_reader_that_has_seen_enough(cli, fake, arguments):
    """As `davit images | head -1`: no word, and the exit code of SIGPIPE."""
    images(fake, 5000)
    reading, writing = os.pipe()
    os.close(reading)
    process = start([BIN_DIR / "davit", *arguments], stdout=writing, stderr=subprocess.PIPE,
                    env=cli.environment())
    os.close(writing)
    errors = process.communicate(timeout=60)[1]
    assert (process.returncode, errors) == (128 + signal.SIGPIPE, b"")


def test_the_first_line_of_many(cli, fake):
    images(fake, 5000)
    done = subprocess.run(["sh", "-c", '"$0" images | head -1', BIN_DIR / "davit"],
                          capture_output=True, text=True, check=True, env=cli.environment())
    assert (done.stdout.split()[:2], done.stderr) == (["REPOSITORY", "TAG"], "")


# --- What cannot be written ----------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["images"], ["images", "-q"], ["system", "df"], ["--help"],
                                       ["--version"]])
def test_a_full_disk(cli, fake, arguments):
    images(fake, 1)
    fake.disk_usage = lambda request, context: fake.system.DiskUsageResponse()
    with open("/dev/full", "w") as full:
        process = start([BIN_DIR / "davit", *arguments], stdout=full, stderr=subprocess.PIPE,
                        text=True, env=cli.environment())
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert errors == "cannot write to standard output: No space left on device\n"


def test_no_standard_output(cli, fake):
    """What would be printed is not lost without a word."""
    images(fake, 1)
    for arguments in (["images"], ["--help"]):
        done = subprocess.run(["sh", "-c", 'exec "$0" "$@" >&-', BIN_DIR / "davit", *arguments],
                              capture_output=True, text=True, check=False, env=cli.environment())
        assert done.returncode == 1
        assert done.stderr == "cannot write to standard output: Bad file descriptor\n"


def test_missing_standard_streams_are_not_taken_by_others(cli, fake):
    """What davit opens must not take their places, and so the user's output."""
    seen, going = [], threading.Event()

    def remove(request, context):
        going.wait(60)
        seen.extend(os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in range(3))
        return fake.images.RemoveImageResponse()
    fake.remove = remove
    process = start(["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', BIN_DIR / "davit", "rmi", "x"],
                    env=cli.environment())
    going.set()
    assert process.wait(60) == 0
    assert seen == ["/dev/null"] * 3


# --- Letters -------------------------------------------------------------------------------------


@pytest.mark.parametrize("locale", [{"LANG": "C"}, {"LC_ALL": "POSIX"}, {"LANG": "C.UTF-8"}, {}])
def test_letters_that_the_locale_does_not_have(cli, fake, locale):
    images(fake, 1, GERMAN)
    result = cli("images", environment={"LANG": "", **locale})
    heading, row = result.stdout.splitlines()
    assert row.startswith(GERMAN + "   latest ")
    assert heading.index("TAG") == row.index("latest")
    assert json.loads(cli("images", "--format", "json", environment=locale).stdout)[
        "Repository"] == GERMAN


def test_nothing_steers_the_terminal(cli, fake):
    images(fake, 1, "evil\33[2J\r\n")
    for arguments in (["images"], ["images", "--format", "{{.Repository}}"],
                      ["images", "--format", "json"], ["__complete", "--", "rmi", ""]):
        output = cli(*arguments).stdout
        assert "evil" in output and not re.search(r"[\0-\10\13-\37]", output), arguments
