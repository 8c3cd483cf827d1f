"""The main job from end to end: pull, list, run, remove."""

import images


def test_pull_list_run_remove(davit, registry):
    name = registry.push("smoke/one", images.busybox_image(
        [[images.file("etc/layer2", "from the second layer\n")]],
        config={"Env": ["PATH=/bin", "COLOUR=blue"], "WorkingDir": "/tmp"}))

    pulled = davit("pull", name).stdout.splitlines()
    assert pulled[0] == "latest: Pulling from smoke/one"
    assert sum(line.endswith(": Pull complete") for line in pulled) == 2
    assert pulled[-2:] == [f"Status: Downloaded newer image for {name}", name]

    rows = [line.split() for line in davit("images").stdout.splitlines()]
    assert rows[0][:2] == ["REPOSITORY", "TAG"]
    assert rows[1][:2] == [name.removesuffix(":latest"), "latest"]

    assert davit("run", "--rm", name, "cat", "/etc/layer2").stdout == "from the second layer\n"
    shown = davit("run", "--rm", "-e", "SIZE=3", name, "sh", "-c", "echo $COLOUR $SIZE $PWD; id -u")
    assert shown.stdout == "blue 3 /tmp\n0\n"
    assert davit("run", "--rm", name, "sh", "-c", "exit 7", check=False).code == 7

    again = davit("pull", name).stdout.splitlines()
    assert again[-2] == f"Status: Image is up to date for {name}"

    removed = davit("rmi", name).stdout.splitlines()
    assert removed[0] == f"Untagged: {name}"
    assert len(davit("images").stdout.splitlines()) == 1


def test_every_kind_of_manifest_and_compression(davit, registry):
    for schema in (images.DOCKER, images.OCI):
        for compression in ("gzip", "zstd", "none"):
            made = images.busybox_image([[images.file("kind", f"{schema} {compression}")]],
                                        compression=compression, schema=schema)
            name = registry.push(f"smoke/{schema}-{compression}", made)
            davit("pull", "-q", name)
            assert davit("run", "--rm", name, "cat", "/kind").stdout == f"{schema} {compression}"


def test_index_by_platform(davit, registry):
    native = images.busybox_image([[images.file("platform", "native")]], schema=images.OCI)
    foreign = images.busybox_image([[images.file("platform", "foreign")]], schema=images.OCI,
                                   platform="linux/riscv64")
    name = registry.push("smoke/index", images.index([foreign, native]))
    davit("pull", name)
    assert davit("run", "--rm", name, "cat", "/platform").stdout == "native"
    missing = registry.push("smoke/missing", images.index([foreign]))
    failed = davit("pull", missing, check=False)
    assert failed.code == 1
    assert "platform" in failed.stderr
    davit("pull", "--platform", "linux/riscv64", missing)
