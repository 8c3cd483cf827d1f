"""Listing and removing images, with Docker's rules."""

import images


def make(registry, name, text, tag="latest"):
    return registry.push(name, images.busybox_image([[images.file("content", text)]]), tag)


def rows(davit, *arguments):
    return [line.split() for line in davit("images", *arguments).stdout.splitlines()[1:]]


def test_a_tag_that_is_not_the_last_is_only_untagged(davit, registry):
    made = images.busybox_image([[images.file("content", "shared")]])
    one = registry.push("rmi/two-tags", made, "one")
    two = registry.push("rmi/two-tags", made, "two")
    davit("pull", "-q", one)
    davit("pull", "-q", two)
    assert davit("rmi", one).stdout == f"Untagged: {one}\n"
    assert [row[1] for row in rows(davit)] == ["two"]
    assert davit("run", "--rm", two, "cat", "/content").stdout == "shared"


def test_the_last_tag_removes_digests_image_and_layers(davit, registry):
    name = make(registry, "rmi/last", "last")
    pulled = davit("pull", name).stdout.splitlines()
    digest = next(line.split()[1] for line in pulled if line.startswith("Digest: "))
    image_id = davit("images", "-q", "--no-trunc").stdout.strip()
    removed = davit("rmi", name).stdout.splitlines()
    repository = name.removesuffix(":latest")
    assert removed[:3] == [f"Untagged: {name}", f"Untagged: {repository}@{digest}",
                           f"Deleted: {image_id}"]
    assert all(line.startswith("Deleted: sha256:") for line in removed[3:])
    assert len(removed) == 5  # two layers, by chain ID
    assert rows(davit) == []


def test_a_layer_in_use_by_another_image_stays(davit, registry):
    one, two = make(registry, "rmi/one", "1"), make(registry, "rmi/two", "2")
    davit("pull", "-q", one)
    davit("pull", "-q", two)
    removed = davit("rmi", one).stdout.splitlines()
    assert len([line for line in removed if line.startswith("Deleted: ")]) == 2  # image, top layer
    assert davit("run", "--rm", two, "cat", "/content").stdout == "2"


def test_by_id_and_prefix(davit, registry):
    name = make(registry, "rmi/by-id", "id")
    davit("pull", "-q", name)
    image_id = davit("images", "-q").stdout.strip()
    assert davit("run", "--rm", image_id[:6], "cat", "/content").stdout == "id"
    assert f"Untagged: {name}" in davit("rmi", image_id).stdout
    assert rows(davit) == []


def test_an_id_with_names_in_two_repositories_needs_force(davit, registry):
    made = images.busybox_image([[images.file("content", "two names")]])
    davit("pull", "-q", registry.push("rmi/name-a", made))
    davit("pull", "-q", registry.push("rmi/name-b", made))
    image_id = davit("images", "-q").stdout.split()[0]
    refused = davit("rmi", image_id, check=False)
    assert refused.code == 1
    assert f"unable to delete {image_id} (must be forced)" in refused.stderr
    assert len(rows(davit)) == 2
    davit("rmi", "-f", image_id)
    assert rows(davit) == []


def test_missing_images_are_named_and_the_others_removed(davit, registry):
    name = make(registry, "rmi/exists", "exists")
    davit("pull", "-q", name)
    result = davit("rmi", "nope", name, "also-nope:1", check=False)
    assert result.code == 1
    assert "No such image: nope:latest" in result.stderr
    assert "No such image: also-nope:1" in result.stderr
    assert rows(davit) == []


def test_by_digest_without_tag(davit, registry):
    name = make(registry, "rmi/by-digest", "digest")
    pulled = davit("pull", name).stdout.splitlines()
    digest = next(line.split()[1] for line in pulled if line.startswith("Digest: "))
    davit("rmi", name)
    by_digest = f"{name.removesuffix(':latest')}@{digest}"
    davit("pull", by_digest)
    assert rows(davit)[0][1] == "<none>"
    assert davit("run", "--rm", by_digest, "cat", "/content").stdout == "digest"
    davit("rmi", by_digest)
    assert rows(davit) == []


def test_a_tag_that_moves_leaves_the_old_image_without_name(davit, registry):
    name = make(registry, "rmi/moves", "old")
    davit("pull", "-q", name)
    old = davit("images", "-q").stdout.strip()
    make(registry, "rmi/moves", "new")
    assert f"Downloaded newer image for {name}" in davit("pull", name).stdout
    assert davit("run", "--rm", name, "cat", "/content").stdout == "new"
    assert davit("run", "--rm", old, "cat", "/content").stdout == "old"
    assert len(rows(davit)) == 2


def test_images_survive_a_restart(davitd, davit, registry):
    name = make(registry, "rmi/restart", "still here")
    davit("pull", "-q", name)
    before = davit("images", "--digests", "--no-trunc").stdout
    davitd.stop()
    davitd.start()
    assert davit("images", "--digests", "--no-trunc").stdout == before
    assert davit("run", "--rm", name, "cat", "/content").stdout == "still here"
