"""Damage on the disk: found, refused, and fetched again. Disk usage, exact to the byte.

Damage is a byte that changes and nothing that stat shows, as disks do it."""

import base64
import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess

import images
import pytest
from conftest import Davit

SECRET = b"what it held when it was pulled"


@pytest.fixture(params=["directory", "erofs"])
def driver(request):
    return request.param


@pytest.fixture
def make_store(make_davitd, driver):
    def make(*arguments, **options):
        return Store(make_davitd("--storage-driver", driver, *arguments, **options), driver)
    return make


@pytest.fixture
def store(make_store):
    return make_store()


# For what does not depend on how layers are kept.
ONE_DRIVER = pytest.mark.parametrize("driver", ["erofs"], indirect=True)


class Store:
    """A daemon, the command line on it, and what lies on its disk."""

    def __init__(self, davitd, driver):
        self.davitd, self.driver = davitd, driver
        self.davit = Davit(davitd)
        self.root = davitd.data_root

    def directory(self, layer):
        return self.root / "layers" / layer.diff_id.split(":")[1]

    def content_file(self, layer):
        """Where the file "secret" of a layer is."""
        return self.directory(layer) / ("layer.tar" if self.driver == "erofs" else "fs/secret")

    @contextlib.contextmanager
    def database(self):
        with contextlib.closing(sqlite3.connect(self.root / "davit.db", timeout=10)) as database:
            with database:
                yield database

    def verify(self, *arguments, code=0):
        result = self.davit("system", "verify", *arguments, check=False)
        assert result.code == code, f"{result}\n{self.davitd.log()[-4000:]}"
        return result.stdout.splitlines()

    def du(self):
        out = subprocess.run(["du", "-sx", "--block-size=1", self.root], check=True,
                             capture_output=True, text=True).stdout
        return int(out.split()[0])

    def df(self, *arguments):
        out = self.davit("system", "df", "--format", "json", *arguments).stdout
        return [json.loads(line) for line in out.splitlines()]

    def df_sum(self):
        return sum(row["SizeBytes"] for row in self.df())

    def reads_secret(self, name):
        return self.davit("run", "--rm", name, "cat", "/secret").stdout.encode() == SECRET


def flip_at(path, offset):
    """Changes a byte of a file."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip(path, needle=SECRET):
    """The same in the middle of the needle that is in it; returns where."""
    offset = path.read_bytes().index(needle) + len(needle) // 2
    flip_at(path, offset)
    return offset


def secret_layer(more=b""):
    return images.layer([images.file("secret", SECRET), images.file("more", more)])


def image_of(*layers):
    return images.busybox_image([layer.tar for layer in layers])


def push(registry, name, *layers):
    return registry.push(f"verify/{name}", image_of(*layers))


# --- What is damaged -----------------------------------------------------------------------------


def flip_content(store, layer):
    return flip(store.content_file(layer))


def flip_index(store, layer):
    flip(store.directory(layer) / "layer.erofs", b"secret")


def lose_directory(store, layer):
    shutil.rmtree(store.directory(layer))


def flip_manifest(store, layer):
    with store.database() as database:
        database.execute("UPDATE images SET manifest = CAST(replace(manifest, 'layers', 'lawers')"
                         " AS BLOB) WHERE CAST(manifest AS TEXT) LIKE ?", (f"%{layer.digest}%",))


def flip_config(store, layer):
    with store.database() as database:
        database.execute("UPDATE images SET config = CAST(replace(config, 'rootfs', 'rootfz')"
                         " AS BLOB) WHERE CAST(config AS TEXT) LIKE ?", (f"%{layer.diff_id}%",))


LAYER_DAMAGE = [flip_content, flip_index, lose_directory]
IMAGE_DAMAGE = [flip_manifest, flip_config]


DAMAGE = [(driver, damage) for driver in ("directory", "erofs")
          for damage in LAYER_DAMAGE + IMAGE_DAMAGE
          if driver == "erofs" or damage is not flip_index]


@pytest.mark.parametrize("driver, damage", DAMAGE, indirect=["driver"])
def test_damage_is_found_refused_and_repaired(store, registry, damage):
    layer, other = secret_layer(), images.layer([images.file("other", b"sound")])
    name = push(registry, "damaged", layer)
    sound = push(registry, "sound", other)
    store.davit("pull", "-q", name)
    store.davit("pull", "-q", sound)
    assert re.fullmatch(r"2 images, 3 layers verified \(\S+\), 0 problems", *store.verify())

    damage(store, layer)
    *problems, summary = store.verify(code=1)
    assert re.fullmatch(r"2 images, 3 layers verified \(\S+\), 1 problem", summary)
    assert len(problems) == 1 and problems[0].startswith(f"{name}: ")
    assert "davit system verify --repair" in problems[0]
    if damage in LAYER_DAMAGE:
        assert f": layer {layer.diff_id[7:19]}: " in problems[0]
    refused = store.davit("run", "--rm", name, "true", check=False)
    assert refused.code == 125 and "damaged" in refused.stderr
    assert "davit system verify --repair" in refused.stderr
    assert store.davit("run", "--rm", sound, "cat", "/other").stdout == "sound"
    assert "WARNING: Damaged on the disk" in store.davit("info").stderr

    *problems, summary = store.verify("--repair")
    assert problems and problems[0].endswith("; repaired")
    assert re.fullmatch(r"2 images, 3 layers verified \(\S+\), 1 problem, 1 repaired", summary)
    assert store.verify()[-1].endswith(", 0 problems")
    assert store.reads_secret(name)
    assert "WARNING" not in store.davit("info").stderr


def test_a_pull_heals_and_fetches_nothing_else(store, registry):
    layer = secret_layer()
    name = push(registry, "healed", layer)
    store.davit("pull", "-q", name)
    flip_content(store, layer)
    store.verify(code=1)
    before = len(registry.requests())
    store.davit("pull", "-q", name)
    fetched = [path for method, path, _ in registry.requests()[before:]
               if method == "GET" and "/blobs/" in path]
    assert [path for path in fetched if path.endswith(layer.digest)] != []
    config = image_of(layer).id
    assert {path.rsplit("/", 1)[1] for path in fetched} <= {layer.digest, config}
    assert store.reads_secret(name)
    assert store.verify()[-1].endswith(", 0 problems")


def test_quarantine_outlives_the_daemon(store, registry):
    layer = secret_layer()
    name = push(registry, "restarted", layer)
    store.davit("pull", "-q", name)
    offset = flip_content(store, layer)
    store.verify(code=1)
    store.davitd.stop()
    store.davitd.start()
    refused = store.davit("run", "--rm", name, "true", check=False)
    assert refused.code == 125 and "damaged" in refused.stderr
    # Somebody puts it right by other means.
    flip_at(store.content_file(layer), offset)
    store.verify()
    assert store.reads_secret(name)


@ONE_DRIVER
def test_a_shared_layer_is_checked_once_and_names_all_its_images(store, registry):
    layer = secret_layer()
    names = [push(registry, f"shared-{number}", layer,
                  images.layer([images.file("number", str(number).encode())]))
             for number in range(6)]
    for name in names[:2]:
        store.davit("pull", "-q", name)
    flip_content(store, layer)
    problem, summary = store.verify(names[0], code=1)
    assert summary.startswith("1 image, 3 layers verified ")
    assert set(names[:2]) == set(problem.split(": layer")[0].split(", "))
    store.verify("--repair")
    for name in names[2:]:
        store.davit("pull", "-q", name)
    flip_content(store, layer)
    problem, _ = store.verify(code=1)
    assert re.match(r"\S+, \S+, \S+ and 3 more: layer ", problem)


@ONE_DRIVER
def test_only_what_is_named_is_verified(store, registry):
    layer, other = secret_layer(), images.layer([images.file("other", b"sound")])
    name, sound = push(registry, "one", layer), push(registry, "other", other)
    store.davit("pull", "-q", name)
    store.davit("pull", "-q", sound)
    flip_content(store, layer)
    assert re.fullmatch(r"1 image, 2 layers verified \(\S+\), 0 problems", *store.verify(sound))
    assert len(store.verify(sound, name, code=1)) == 2
    missing = store.davit("system", "verify", "absent", check=False)
    assert missing.code == 1 and "No such image: absent:latest" in missing.stderr


@ONE_DRIVER
def test_quiet_and_json(store, registry):
    layer = secret_layer()
    name = push(registry, "formats", layer)
    store.davit("pull", "-q", name)
    assert store.verify("--quiet") == []
    flip_content(store, layer)
    assert len(store.verify("-q", code=1)) == 1
    told = json.loads(store.davit("system", "verify", "--format", "json", check=False).stdout)
    assert (told["images"], told["layers"], told["repaired"]) == (1, 2, 0)
    (problem,) = told["problems"]
    assert problem["images"] == [name] and problem["digest"] == layer.diff_id
    assert problem["is_layer"] and problem["reason"] == "LAYER_DAMAGED" and problem["hint"]
    assert not problem["repaired"]


# --- Repairing -----------------------------------------------------------------------------------


@ONE_DRIVER
def test_repair_uses_the_credentials_of_the_user(store, make_registry):
    registry = make_registry(htpasswd={"user": "secret-password"})
    layer = secret_layer()
    name = push(registry, "private", layer)
    config = store.davitd.home / ".docker" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"auths": {registry.host: {
        "auth": base64.b64encode(b"user:secret-password").decode()}}}))
    store.davit("pull", "-q", name)
    flip_content(store, layer)
    flip_manifest(store, layer)
    config.rename(config.with_suffix(".away"))
    *problems, summary = store.verify("--repair", code=1)
    assert summary.endswith(", 2 problems") and len(problems) == 2
    assert all("it could not be repaired" in problem for problem in problems)
    config.with_suffix(".away").rename(config)
    *problems, summary = store.verify("--repair")
    assert summary.endswith(", 2 problems, 2 repaired")
    assert store.reads_secret(name)
    assert "secret-password" not in store.davitd.log()


@ONE_DRIVER
def test_a_layer_comes_from_wherever_it_was_seen(store, make_registry):
    """Also from where it was there already, and pulled with an image that has gone since."""
    one, two = make_registry(), make_registry()
    layer = secret_layer()
    name = push(one, "first", layer)
    store.davit("pull", "-q", name)
    other = push(two, "second", layer, images.layer([images.file("other", b"image")]))
    store.davit("pull", "-q", other)
    store.davit("rmi", other)
    one.process.kill()
    one.process.wait()
    flip_content(store, layer)
    store.verify("--repair")
    assert store.reads_secret(name)


@ONE_DRIVER
def test_what_no_registry_has_any_more_stays_damaged(store, make_registry):
    registry = make_registry()
    layer = secret_layer()
    name = push(registry, "lost", layer)
    store.davit("pull", "-q", name)
    registry.blob_path(layer.digest).unlink()
    flip_content(store, layer)
    problem, summary = store.verify("--repair", code=1)
    assert "it could not be repaired: " in problem and summary.endswith(", 1 problem")
    assert "blob unknown" in problem and "push it again" in problem
    assert store.davit("run", "--rm", name, "true", check=False).code == 125


def test_repair_beside_a_container_that_uses_the_layer(store, registry):
    """What is mounted keeps its files; what was unpacked cannot be exchanged under it."""
    layer = secret_layer()
    name = push(registry, "in-use", layer)
    store.davit("pull", "-q", name)
    running = store.davit.start("run", "--rm", "-i", name, "sh", "-c",
                                "echo up; read line; cat /more; echo $line", text=True,
                                stdin=subprocess.PIPE)
    assert running.stdout.readline() == "up\n"
    flip_content(store, layer)
    if store.driver == "directory":
        *problems, summary = store.verify("--repair", code=1)
        assert "a container that runs uses its files" in problems[0]
        assert "stop the containers" in problems[0]
        assert store.davit("pull", "-q", name, check=False).code == 1
    else:
        store.verify("--repair")
        assert store.reads_secret(name)
    out, _ = running.communicate("goes on\n")
    assert (out, running.returncode) == ("goes on\n", 0)
    store.verify("--repair")
    assert store.verify()[-1].endswith(", 0 problems")
    assert store.reads_secret(name)


# --- The compressed copy -------------------------------------------------------------------------


def test_compressed_layers_are_kept_and_verified(make_store, registry):
    store = make_store("--keep-compressed")
    layer = secret_layer(images.payload(300_000, 1))
    name = push(registry, "kept", layer)
    store.davit("pull", "-q", name)
    blob = store.directory(layer) / "layer.blob"
    assert images.sha256(blob.read_bytes()) == layer.digest
    assert abs(store.df_sum() - store.du()) <= store.du() / 100
    flip_at(blob, 1000)
    problem, summary = store.verify(code=1)
    assert "layer.blob" in problem and summary.endswith(", 1 problem")
    assert store.reads_secret(name)  # the layer itself is in order
    store.verify("--repair")
    assert store.verify()[-1].endswith(", 0 problems")
    assert images.sha256(blob.read_bytes()) == layer.digest


@ONE_DRIVER
def test_compressed_layers_are_not_kept_by_default(store, registry):
    layer = secret_layer()
    store.davit("pull", "-q", push(registry, "not-kept", layer))
    assert not (store.directory(layer) / "layer.blob").exists()


# --- The scrub -----------------------------------------------------------------------------------


def test_the_scrub_finds_damage(make_store, registry, wait_until):
    store = make_store("--scrub-interval", "1s")
    layer = secret_layer()
    name = push(registry, "scrubbed", layer)
    store.davit("pull", "-q", name)
    flip_content(store, layer)
    wait_until(lambda: "a layer is damaged" in store.davitd.log(), "the scrub")
    line = next(line for line in store.davitd.log().splitlines() if "a layer is damaged" in line)
    assert " error " in line and layer.diff_id in line
    refused = store.davit("run", "--rm", name, "true", check=False)
    assert refused.code == 125 and "damaged" in refused.stderr
    store.verify("--repair")
    assert store.reads_secret(name)


# --- Disk usage ----------------------------------------------------------------------------------


def within_a_percent(store):
    du = store.du()
    return abs(store.df_sum() - du) <= du / 100


def test_disk_usage_is_what_du_says(store, registry, wait_until):
    shared = images.layer([images.file("shared", images.payload(700_000, 2))])
    one = push(registry, "df-one", shared, secret_layer())
    two = push(registry, "df-two", shared, images.layer(
        [images.file(f"d{number % 7}/{number}", bytes(number * 10)) for number in range(400)]))
    assert within_a_percent(store)
    store.davit("pull", "-q", one)
    assert within_a_percent(store)
    store.davit("pull", "-q", two)
    assert within_a_percent(store)
    store.davit("run", two, "sh", "-c", "head -c 3000000 /dev/zero > /big; rm /shared")
    assert within_a_percent(store)
    store.davitd.stop()
    store.davitd.start()
    wait_until(lambda: within_a_percent(store), "the ended container to be counted")
    (verbose,) = store.df("--verbose")
    by_name = {f"{row['Repository']}:{row['Tag']}": row for row in verbose["Images"]}
    assert by_name[one]["SharedSizeBytes"] == by_name[two]["SharedSizeBytes"] > 700_000
    for name, row in by_name.items():
        assert row["SizeBytes"] == row["SharedSizeBytes"] + row["UniqueSizeBytes"]
    (container,) = verbose["Containers"]
    assert container["Image"] == two and container["State"] == "exited"
    assert container["SizeBytes"] > 3_000_000
    # What an image alone has is what its removal gives back.
    total = store.df()[0]["SizeBytes"]
    store.davit("rmi", one)
    assert total - store.df()[0]["SizeBytes"] == by_name[one]["UniqueSizeBytes"]


@ONE_DRIVER
def test_disk_usage_tables(store, registry):
    name = push(registry, "tables", secret_layer())
    store.davit("pull", "-q", name)
    heading, *rows = store.davit("system", "df").stdout.splitlines()
    assert heading.split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert [row.split()[:3] for row in rows] == [["Images", "1", "0"], ["Containers", "0", "0"],
                                                 ["Local", "Volumes", "0"],
                                                 ["Build", "Cache", "0"],
                                                 ["Partial", "downloads", "0"],
                                                 ["Database", "1", "1"]]
    assert rows[0].endswith("(100%)") and rows[1].endswith("0B        0B")
    running = store.davit.start("run", "--rm", "-i", name, "cat", stdin=subprocess.PIPE)
    running.stdin.write(b"x")
    running.stdin.flush()
    assert running.stdout.read(1) == b"x"
    rows = store.davit("system", "df").stdout.splitlines()
    assert rows[1].split()[:3] == ["Images", "1", "1"] and rows[1].endswith(" 0B (0%)")
    assert rows[2].split()[:3] == ["Containers", "1", "1"]
    verbose = store.davit("system", "df", "-v").stdout
    assert "Images space usage:\n\nREPOSITORY" in verbose and "SHARED SIZE   UNIQUE SIZE" in verbose
    assert re.search(r"\nContainers space usage:\n\nCONTAINER ID +IMAGE .* STATUS +NAMES\n"
                     rf"[0-9a-f]{{12}} +{re.escape(name)} .* ago +Up *\n", verbose)
    running.stdin.close()
    assert running.wait() == 0
