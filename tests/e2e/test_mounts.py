"""Layers' mounts: once per layer, for as long as somebody uses it, found again after a crash."""

import pathlib
import re
import subprocess

import images
import pytest
from conftest import Davit, mounts_below


@pytest.fixture
def daemon(make_davitd):
    return make_davitd("--storage-driver", "erofs")


def layer_mounts(daemon):
    return sorted(mounts_below(daemon.data_root / "mnt"))


def start_container(davit, name):
    """A container that runs until its client's input ends."""
    process = davit.start("run", "--rm", "-i", name, "sh", "-c", "echo ready; read _",
                          stdin=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def end_container(process):
    process.communicate("\n", timeout=60)
    assert process.returncode == 0


def test_info_names_the_driver_and_why(make_davitd):
    shown = Davit(make_davitd())("info").stdout
    assert re.search(r"^ Storage Driver: erofs$", shown, re.M)
    assert re.search(r"^  Reason: layers are mounted from their tar files$", shown, re.M)
    shown = Davit(make_davitd("--storage-driver", "directory"))("info").stdout
    assert re.search(r"^ Storage Driver: directory$", shown, re.M)
    assert re.search(r"^  Reason: as configured$", shown, re.M)


def test_a_layer_is_mounted_once_for_all_its_containers(daemon, registry):
    davit = Davit(daemon)
    first = registry.push("mounts/first", images.busybox_image([[images.file("first", "1")]]))
    second = registry.push("mounts/second", images.busybox_image([[images.file("second", "2")]]))
    for name in (first, second):
        davit("pull", "-q", name)
    assert layer_mounts(daemon) == []
    containers = [start_container(davit, first)]
    assert len(layer_mounts(daemon)) == 2
    containers.append(start_container(davit, first))
    assert len(layer_mounts(daemon)) == 2
    containers.append(start_container(davit, second))
    assert len(layer_mounts(daemon)) == 3  # the one with busybox is shared
    end_container(containers.pop(0))
    assert len(layer_mounts(daemon)) == 3
    end_container(containers.pop(0))
    assert len(layer_mounts(daemon)) == 2
    end_container(containers.pop(0))
    assert layer_mounts(daemon) == []
    assert list((daemon.data_root / "mnt").iterdir()) == []


def test_127_layers_and_a_daemon_that_is_killed(daemon, registry, wait_until):
    davit = Davit(daemon)
    name = registry.push("mounts/many", images.busybox_image(
        [[images.file(f"layer{number}", str(number))] for number in range(126)]))
    davit("pull", "-q", name)
    process = start_container(davit, name)
    assert len(layer_mounts(daemon)) == 127
    daemon.kill()
    process.communicate(timeout=60)
    assert len(layer_mounts(daemon)) == 127
    daemon.start()
    wait_until(lambda: not layer_mounts(daemon), "the end of mounts that nobody uses")
    text = davit("run", "--rm", name, "sh", "-c", "cat /layer0 /layer125; ls / | grep -c layer")
    assert text.stdout == "0125126\n"
    assert layer_mounts(daemon) == []


def test_what_the_kernel_refuses_is_told(daemon, registry):
    """An index that has become something else."""
    davit = Davit(daemon)
    name = registry.push("mounts/damaged", images.busybox_image([[images.file("a", "1")]]))
    davit("pull", "-q", name)
    for index in pathlib.Path(daemon.data_root / "layers").glob("*/layer.erofs"):
        index.write_bytes(b"\0" * 4096)
    failed = davit("run", "--rm", name, "true", check=False)
    assert failed.code == 125
    assert re.search(r"cannot mount layer sha256:\w{12}: its files in \S+/layers/\w{64}: "
                     r"the kernel refused the mount: Invalid argument", failed.stderr)
    assert "davit system verify" in failed.stderr
    assert layer_mounts(daemon) == []
