"""`davit rmi`, `tag` and holds of containers, over restarts and kills, where docker_commands.txt has
no Docker to compare with."""

import re
import subprocess

import docker_images
import images
import pytest
from conftest import Davit
from docker_images import Member, make


def layer(name):
    return images.layer([images.file(name, name)])


def load(davit, members, path):
    path.write_bytes(docker_images.archive(members))
    return davit("load", "-i", path)


def rows(davit, *arguments):
    return [line.split() for line in davit("images", *arguments).stdout.splitlines()[1:]]


def ids(davit):
    """Each once, newest first."""
    return list(dict.fromkeys(davit("images", "-aq", "--no-trunc").stdout.split()))


def events(davit):
    """What happened: (action, actor)."""
    lines = davit("events", "--since", "1h", "--until", "0s").stdout.splitlines()
    return [tuple(re.search(r" image (\S+) (\S+)", line).groups()) for line in lines]


@pytest.fixture
def busybox(davit, registry):
    name = registry.push("rmi/busybox", images.busybox_image([[images.file("content", "x")]]))
    davit("pull", "-q", name)
    return name


# --- Containers ----------------------------------------------------------------------------------


def test_a_stopped_container_holds_its_image_also_after_a_restart(davitd, davit, busybox):
    davit("run", busybox, "sh", "-c", "echo kept > /file")
    (container,) = [path.name for path in (davitd.data_root / "containers").iterdir()]
    (image,) = ids(davit)
    short = image.removeprefix("sha256:")[:12]
    layers = set((davitd.data_root / "layers").iterdir())
    for again in range(3):
        refused = davit("rmi", busybox, check=False)
        assert (refused.code, refused.stdout) == (1, "")
        assert refused.stderr.splitlines()[0] == (
            f'Error response from daemon: conflict: unable to remove repository reference "{busybox}" '
            f"(must force) - container {container[:12]} is using its referenced image {short}")
        refused = davit("rmi", short, check=False)
        assert refused.code == 1 and refused.stderr.splitlines()[0] == (
            f"Error response from daemon: conflict: unable to delete {short} (must be forced) - image "
            f"is being used by stopped container {container[:12]}")
        if again == 0:
            davitd.stop()
            davitd.start()
        elif again == 1:
            davitd.kill()
            davitd.start()
    # By force the image goes; what the container wrote keeps what it lies on, also later.
    removed = davit("rmi", "-f", short).stdout.splitlines()
    assert removed[0] == f"Untagged: {busybox}" and removed[-1] == f"Deleted: {image}"
    for _ in range(2):
        assert ids(davit) == [] and set((davitd.data_root / "layers").iterdir()) == layers
        davit("system", "prune", "-af")
        davitd.kill()
        davitd.start()


def test_a_running_container_holds_its_image_whatever_is_forced(davit, busybox):
    (image,) = ids(davit)
    running = davit.start("run", "--rm", "-i", busybox, "cat", stdin=subprocess.PIPE)
    running.stdin.write(b"x")
    running.stdin.flush()
    assert running.stdout.read(1) == b"x"
    for force in ([], ["-f"]):
        refused = davit("rmi", *force, image, check=False)
        assert refused.code == 1
        assert re.search(r"\(cannot be forced\) - image is being used by running container \w{12}$",
                         refused.stderr.splitlines()[0])
    # A name can be: the image stays without.
    assert davit("rmi", "-f", busybox).stdout.splitlines()[0] == f"Untagged: {busybox}"
    assert ids(davit) == [image] and rows(davit)[0][:2] == ["<none>", "<none>"]
    assert davit("image", "prune", "-af").stdout == "Total reclaimed space: 0B\n"
    running.stdin.close()
    assert running.wait() == 0
    davit("rmi", image)
    assert ids(davit) == []


# --- Parents -------------------------------------------------------------------------------------


def make_chain():
    """Three steps of a build: only the last has a name."""
    layers, history, made = [], [], []
    for number in range(3):
        layers.append(layer(f"step{number}"))
        created = f"2024-01-0{number + 1}T00:00:00Z"
        history.append((f"RUN step {number}", False, created))
        made.append(make(list(layers), created, history=list(history)))
    return [Member(made[0]), Member(made[1], [], made[0]), Member(made[2], ["chain:1"], made[1])]


def test_parents_go_with_their_last_child_in_one_step(davitd, davit, tmp_path):
    chain = make_chain()
    load(davit, chain, tmp_path / "chain.tar")
    assert [row[0] for row in rows(davit)] == ["chain"] and len(rows(davit, "-a")) == 3
    assert davit("images", "-q", "-f", "dangling=true").stdout == ""
    davitd.kill()
    davitd.start()
    before = len(events(davit))
    removed = davit("rmi", "chain:1").stdout.splitlines()
    assert removed[0] == "Untagged: chain:1" and len(removed) == 1 + 2 * 3
    assert removed[1::2] == [f"Deleted: {member.image.id}" for member in reversed(chain)]
    assert ids(davit) == [] and not any((davitd.data_root / "layers").iterdir())
    # Each told by its ID, in that order.
    actions = events(davit)[before:]
    assert actions == [("untag", chain[2].image.id)] + [
        ("delete", member.image.id) for member in reversed(chain)]


def test_no_prune_leaves_the_parents(davit, tmp_path):
    chain = make_chain()
    load(davit, chain, tmp_path / "chain.tar")
    davit("rmi", "--no-prune", "chain:1")
    assert ids(davit) == [chain[1].image.id, chain[0].image.id]
    # Now the second is dangling, and the first still a part of it.
    assert davit("images", "-q", "--no-trunc", "-f", "dangling=true").stdout.split() == [
        chain[1].image.id]
    said = davit("image", "prune", "-f").stdout
    assert [line for line in said.splitlines() if line.startswith("deleted: ")][::2] == [
        f"deleted: {chain[1].image.id}", f"deleted: {chain[0].image.id}"]
    assert ids(davit) == []


# --- IDs -----------------------------------------------------------------------------------------


def test_the_candidates_of_an_ambiguous_id(davit, tmp_path):
    members = [Member(make([layer("one")], f"2024-01-01T00:{i:02}:00Z"), [f"many:{i}"])
               for i in range(40)]
    load(davit, members, tmp_path / "many.tar")
    by_digit = {}
    for member in members:
        by_digit.setdefault(member.image.id[7], []).append(member)
    digit, found = max(by_digit.items(), key=lambda item: len(item[1]))
    for command in (["rmi", digit], ["tag", digit, "new"], ["image", "inspect", digit],
                    ["rmi", f"sha256:{digit}"]):
        refused = davit(*command, check=False)
        assert refused.code == 1 and len(ids(davit)) == 40
        line = refused.stderr.splitlines()[0]
        assert "more than one image has an ID that begins with" in line
        newest = reversed(found[-8:])  # the first eight
        wanted = ", ".join(f"{one.image.id[7:19]} ({one.tags[0]})" for one in newest)
        assert wanted in line, (wanted, line)


def test_several_on_one_command_line(davit, tmp_path):
    members = [Member(make([layer(name)], "2024-01-01T00:00:00Z"), [f"{name}:1"]) for name in "abc"]
    load(davit, members, tmp_path / "abc.tar")
    davit("tag", "c:1", "c:2")
    result = davit("rmi", "a:1", "nope", "UPPER", members[2].image.id, "b:1", "b:1", check=False)
    assert result.code == 1
    assert [line for line in result.stdout.splitlines() if "Untagged" in line] == [
        "Untagged: a:1", "Untagged: b:1"]
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert [re.sub(r"[0-9a-f]{12}", "ID", line) for line in errors] == [
        "Error response from daemon: No such image: nope:latest",
        "Error response from daemon: invalid reference format: repository name (library/UPPER) must be "
        "lowercase",
        "Error response from daemon: conflict: unable to delete ID (must be forced) - image is "
        "referenced in multiple repositories",
        "Error response from daemon: No such image: b:1"]
    assert ids(davit) == [members[2].image.id]
    result = davit("rmi", "-f", "nope", members[2].image.id)
    assert "No such image: nope:latest" in result.stderr and ids(davit) == []


# --- Tags that move ------------------------------------------------------------------------------


def test_who_loses_a_tag_dangles(davitd, davit, registry, tmp_path):
    """By a tag, a load, a pull."""
    def dangling():
        return davit("images", "-q", "--no-trunc", "-f", "dangling=true").stdout.split()

    one, two, three, four = (make([layer(name)], f"2024-01-0{number}T00:00:00Z")
                             for number, name in enumerate(("one", "two", "three", "four"), 1))
    name = registry.push("rmi/moves", four)
    load(davit, [Member(one, [name]), Member(two, ["other:1"])], tmp_path / "first.tar")
    davit("tag", "other:1", name)
    assert dangling() == [one.id]
    said = load(davit, [Member(three, [name])], tmp_path / "second.tar").stdout
    assert f"renaming the old one with ID {two.id} to empty string" in said
    assert dangling() == [one.id]
    said = load(davit, [Member(one, [name])], tmp_path / "third.tar").stdout
    assert f"The image {name} already exists, renaming the old one with ID {three.id} to empty" in said
    assert dangling() == [three.id]
    davit("pull", "-q", name)
    assert dangling() == [three.id, one.id]
    davitd.kill()
    davitd.start()
    assert dangling() == [three.id, one.id]
    assert {row[0] for row in rows(davit)} == {"<none>", "other", name.rpartition(":")[0]}
    davit("rmi", *dangling())
    assert sorted(ids(davit)) == sorted([two.id, four.id])


# --- Speed ---------------------------------------------------------------------------------------


def test_10000_tags(make_davitd, tmp_path):
    """Loaded, listed, started with and removed; nothing of it is quadratic."""
    davitd = make_davitd()
    davit = Davit(davitd)
    many = make([layer("many")], "2024-01-01T00:00:00Z")
    tags = [f"many/tags:t{number:05}" for number in range(10000)]
    load(davit, [Member(many, tags)], tmp_path / "many.tar")
    davitd.kill()
    davitd.start()
    assert len(rows(davit)) == 10000
    assert davit("rmi", tags[5000]).stdout == f"Untagged: {tags[5000]}\n"
    removed = davit("rmi", "-f", many.id).stdout.splitlines()
    assert len(removed) == 9999 + 2 and removed[9999] == f"Deleted: {many.id}"
    assert ids(davit) == []
