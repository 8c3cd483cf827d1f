"""The manual pages that are made from the table of commands: one for every command and name, which
groff and mandoc have nothing to say about."""

import re
import subprocess

import pytest

from conftest import BIN_DIR


def davit(*arguments):
    return subprocess.run([BIN_DIR / "davit", *arguments], capture_output=True, text=True,
                          check=True).stdout


def commands_in(text):
    """Names in the lists of commands of a help text."""
    lists = re.findall(r"^(?:[A-Z]\w+ )?Commands:\n((?:  .*\n)+)", text, re.M)
    return re.findall(r"^  ([a-z]+) ", "".join(lists), re.M)


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
    directory = tmp_path_factory.mktemp("man1")
    subprocess.run([BIN_DIR.parent / "client" / "davit-manual", directory], check=True)
    return directory


@pytest.fixture(scope="module")
def paths():
    """Each way to call a command or group, as words after "davit"."""
    top = commands_in(davit("--help"))
    assert {"run", "images", "image", "system"} <= set(top)
    inner = [[name, one] for name in top for one in commands_in(davit(name, "--help"))]
    assert ["image", "ls"] in inner
    return [[]] + [[name] for name in top] + inner


def test_each_command_has_a_page_with_its_flags(manual, paths):
    for path in paths:
        text = (manual / ("-".join(["davit", *path]) + ".1")).read_text()
        if link := re.fullmatch(r"\.so man1/(.*)\n", text):
            text = (manual / link[1]).read_text()
        plain = text.replace("\\-", "-")
        usage = davit(*path, "--help")
        name = " ".join(["davit", *path])
        assert f".B {name}\n" in plain.split(".SH SYNOPSIS")[1], name
        for flag in re.findall(r"^ .*?(--[a-z-]+)", usage.partition("ptions:\n")[2], re.M):
            assert re.search(rf"^\.B .*{flag}\b", plain, re.M), (name, flag)


def test_links_lead_somewhere(manual):
    links = 0
    for page in manual.iterdir():
        if link := re.fullmatch(r"\.so man1/(.*)\n", page.read_text()):
            links += 1
            assert (manual / link[1]).read_text().startswith(".TH ")
    assert links > 5


def test_pages_are_proper(manual):
    pages = [page for page in manual.iterdir() if not page.read_text().startswith(".so")]
    assert len(pages) > 20
    done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", *pages], capture_output=True, text=True,
                          check=False)
    assert done.stdout + done.stderr == ""
    for page in pages:
        done = subprocess.run(["groff", "-ww", "-man", "-Tutf8", "-z", page], capture_output=True,
                              text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), page
