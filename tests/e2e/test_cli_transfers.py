"""`davit pull` and real jobs: leaving, joining, cancelling and going on, on the command line."""

import json
import os
import re
import signal

import images
import pytest

from conftest import Davit
from fault_registry import Fault, FaultRegistry

JOB = re.compile(r"davit jobs watch ([0-9a-f]{12})")


@pytest.fixture
def faults():
    with FaultRegistry() as server:
        yield server


def incompressible(size):
    return [images.file("data", os.urandom(size))]


def push_stalling(faults, name="team/app", after=2_000_000):
    """An image whose last layer stalls once at so many bytes, until release()."""
    image = images.busybox_image([incompressible(4_000_000)])
    full = faults.push(name, image)
    faults.fault(image.layers[-1].digest, Fault(stall_after=after), times=1)
    return full, image


def jobs(davit, *arguments):
    lines = davit("jobs", "--format", "json", *arguments).stdout.splitlines()
    return [json.loads(line) for line in lines]


# --- Leaving -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_pull_outlives_its_client(davit, faults, how):
    name, _ = push_stalling(faults)
    process = davit.start("pull", name, text=True)
    faults.wait_stalled()
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-how if how == signal.SIGKILL else 128 + how)
    [job] = jobs(davit)
    if how != signal.SIGKILL:
        assert errors == f"The pull goes on: davit jobs watch {job['ID']}\n"
    watcher = davit.start("jobs", "watch", job["ID"], text=True)
    faults.release()
    shown, errors = watcher.communicate(timeout=60)
    assert (watcher.returncode, errors) == (0, "")
    assert shown.endswith(f"Status: Downloaded newer image for {name}\n{name}\n")
    # Whoever comes too late is told the same.
    assert davit("jobs", "watch", job["ID"]).stdout.endswith(f"{name}\n{name}\n")


def test_detached(davit, faults):
    name, _ = push_stalling(faults)
    job = davit("pull", "--detach", name).stdout.strip()
    assert re.fullmatch("[0-9a-f]{12}", job)
    faults.wait_stalled()
    assert [one["ID"] for one in jobs(davit)] == [job]
    faults.release()
    davit("jobs", "watch", job)
    assert davit("images", "-q").stdout.count("\n") == 1


# --- Cancelling ----------------------------------------------------------------------------------


def press_twice(terminal):
    terminal.send("\3")
    terminal.wait_for("Press Ctrl-C again to cancel; the pull goes on: " + JOB.pattern)
    terminal.send("\3")


def test_cancelled_and_gone_on_with(davit, faults, wait_until):
    name, image = push_stalling(faults)
    terminal = davit.pty("pull", name, columns=100)
    faults.wait_stalled()
    terminal.wait_for(r"Downloading \[=+")
    press_twice(terminal)
    assert terminal.wait() == 130
    match = re.search(r"The pull is cancelled\.\r\nHint: (.*) are kept", terminal.output)
    assert match, terminal.output
    assert [one["State"] for one in jobs(davit, "-a")] == ["cancelled"]

    plan = json.loads(davit("pull", "--plan", "--progress=json", name).stdout)
    kept = plan["layers"][-1]["bytes_kept"]
    assert 0 < kept <= 2_000_000
    before = len(faults.requests)
    shown = davit("pull", name).stdout
    layer = image.layers[-1].digest.split(":")[1][:12]
    assert re.search(f"^{layer}: Resuming at .*B of .*B$", shown, re.M), shown
    ranges = [one.headers["range"] for one in faults.requests[before:]
              if image.layers[-1].digest in one.path]
    assert ranges and min(int(re.match(r"bytes=(\d+)-", one)[1]) for one in ranges) == kept


def test_two_who_pull_one_image(davit, faults):
    """One who cancels does not end it for the other."""
    name, _ = push_stalling(faults)
    other = davit.start("pull", name, text=True)
    faults.wait_stalled()
    terminal = davit.pty("pull", name)
    terminal.wait_for("Total:")
    assert len(jobs(davit)) == 1
    press_twice(terminal)
    assert terminal.wait() == 130
    assert "The pull goes on, for others wait for it: davit jobs watch" in terminal.output
    faults.release()
    shown, errors = other.communicate(timeout=60)
    assert (other.returncode, errors) == (0, "")
    assert shown.endswith(f"Status: Downloaded newer image for {name}\n{name}\n")


def test_cancelled_by_another_command(davit, faults):
    name, _ = push_stalling(faults)
    process = davit.start("pull", name, text=True)
    faults.wait_stalled()
    [job] = jobs(davit)
    davit("jobs", "cancel", job["ID"])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cancelled" in errors


# --- The daemon goes away ------------------------------------------------------------------------


def test_a_daemon_that_is_killed(davit, davitd, faults):
    name, image = push_stalling(faults)
    process = davit.start("pull", name, text=True)
    faults.wait_stalled()
    [job] = jobs(davit)
    davitd.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"davit jobs watch {job['ID']}" in errors and "what it has done is kept" in errors
    faults.release()
    davitd.start()
    result = davit("jobs", "watch", job["ID"], check=False)
    assert result.code == 1
    assert "interrupted" in result.stderr
    assert davit("pull", name).stdout.endswith(f"{name}\n{name}\n")
    assert image.layers[-1].digest in "".join(one.path for one in faults.requests)


# --- All tags ------------------------------------------------------------------------------------


def test_all_tags_of_a_real_registry(davit, registry):
    for tag in ("one", "two", "three"):
        name = registry.push("cli/many", images.busybox_image([incompressible(1000)]), tag)
    repository = name.rsplit(":", 1)[0]
    result = davit("pull", "-a", repository)
    lines = result.stdout.splitlines()
    assert sorted(line for line in lines if ": Pulling from " in line) == [
        f"{tag}: Pulling from cli/many" for tag in ("one", "three", "two")]
    assert lines[-2:] == [f"Status: Downloaded newer image for {repository}", repository]
    assert davit("pull", "-a", repository).stdout.splitlines()[-2] == (
        f"Status: Image is up to date for {repository}")
    shown = davit("images", repository).stdout
    assert {line.split()[1] for line in shown.splitlines()[1:]} == {"one", "two", "three"}


def test_all_tags_in_pages_and_one_is_broken(davit, faults):
    image = images.busybox_image()
    for tag in ("a", "b", "c"):
        faults.push("team/app", image, tag)
    faults.fault(r"tags/list\?n=", Fault(
        status=200, body=b'{"name": "team/app", "tags": ["a", "b"]}',
        headers={"Link": '</v2/team/app/tags/list?last=b&n=2>; rel="next"'}))
    faults.fault(r"tags/list\?last=b", Fault(
        status=200, body=b'{"name": "team/app", "tags": ["c", "not/a tag", "-x"]}'))
    faults.fault(r"manifests/b$", Fault(status=404))
    result = davit("pull", "-a", f"{faults.host}/team/app", check=False)
    assert result.code == 1
    assert result.stderr.startswith(f"{faults.host}/team/app:b: Error response from daemon: ")
    assert result.stdout.endswith(
        f"Status: Downloaded 2 of 3 tags of {faults.host}/team/app\n{faults.host}/team/app\n")
    assert davit("images", "-q").stdout.count("\n") == 2


def test_all_tags_of_nothing(davit, registry):
    result = davit("pull", "-a", f"{registry.host}/cli/nothing", check=False)
    assert result.code == 1
    assert "name unknown" in result.stderr
    with FaultRegistry() as without:
        result = davit("pull", "-a", f"{without.host}/cli/app", check=False)
        assert result.code == 1
        assert f"the tags of {without.host}/cli/app: " in result.stderr


# --- A capped rate -------------------------------------------------------------------------------


def test_a_rate_is_capped_and_changed(davit, faults):
    """A cap that would take minutes, lifted: it did hold, and it is changed on a running job."""
    name = faults.push("team/app", images.busybox_image([incompressible(8_000_000)]))
    terminal = davit.pty("pull", "--limit-rate", "50k", name, columns=100)
    terminal.wait_for(r"limit 50kB/s")
    [job] = jobs(davit)
    assert davit("images", "-q").stdout == ""
    davit("jobs", "update", "--limit-rate", "0", job["ID"])
    assert terminal.wait() == 0
    assert "Downloaded newer image" in terminal.output


# --- Who asks the registry -----------------------------------------------------------------------


def test_logged_in_clients_of_one_daemon(make_davitd, make_registry):
    """A guarded image is not for who has no password, even while another pulls it."""
    registry = make_registry(htpasswd={"user": "secret"})
    name = registry.push("team/app", images.busybox_image())
    davit = Davit(make_davitd())
    davit("login", "-u", "user", "--password-stdin", registry.host, input="secret")
    davit("pull", "-q", name)
    davit("logout", registry.host)
    result = davit("pull", name, check=False)
    assert result.code == 1
    assert "davit login" in result.stderr
