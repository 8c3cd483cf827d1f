"""What a daemon that was killed leaves: much of it, in every place, under any name."""

import subprocess

import images
from e2e_conftest import Davit, mounts_below, wait_until


def make_tree(path):
    (path / "fs" / "deep" / "er").mkdir(parents=True)
    for number in range(5):
        (path / "fs" / "deep" / f"file{number}").write_text("litter")
    (path / "layer.tar").write_text("litter")


def test_litter_is_removed_while_layers_are_pulled(make_victim, driver):
    """Also under names that the next daemon might take, and under those of layers to be pulled."""
    victim = make_victim(driver)
    victim.pull("b")
    victim.kill()
    data_root = victim.daemon.data_root
    hexadecimals = [diff_id.removeprefix("sha256:") for diff_id in victim.shelf.layers]
    for number in range(20):
        make_tree(data_root / "tmp" / f"litter.{number}")
        for name in hexadecimals:
            make_tree(data_root / "tmp" / f"{name}.{number}")
    for name in hexadecimals:
        if not (data_root / "layers" / name).exists():
            make_tree(data_root / "layers" / name)
        (data_root / "mnt" / name).mkdir(exist_ok=True)
    for number in range(10):
        make_tree(data_root / "layers" / (f"{number}" * 64))
        (data_root / "mnt" / (f"{number}" * 64)).mkdir()
    (data_root / "layers" / "a-file").write_text("litter")
    victim.start()
    for letter in "abc":
        victim.pull(letter)
    victim.check()
    victim.check_listed("abc")


def test_start_after_a_kill_with_a_container_of_127_layers(make_victim, registry, driver):
    """It takes no longer than another start; the container's mounts go."""
    victim = make_victim(driver)
    layers = [images.layer(images.busybox_entries(), "none")]
    layers += [images.layer([images.file(f"file{number}")], "none") for number in range(126)]
    name = registry.push("faults/many-layers", images.image(layers))
    davit = Davit(victim.daemon)
    davit("pull", "-q", name)
    process = davit.start("run", "--rm", "-i", name, "sh", "-c", "echo runs; cat",
                          stdin=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "runs\n", process.stderr.read()
    victim.kill()
    process.communicate()
    victim.start()
    wait_until(lambda: not mounts_below(victim.daemon.data_root), "the mounts to go")
    assert victim.verify() == []
    davit("rmi", name)
    wait_until(lambda: not victim.orphans(), "the layers to go")
