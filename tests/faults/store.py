"""What a data root must be like at any moment at which no daemon writes to it, found out without
davit's code: from its SQLite file, its directories and the layers themselves.

Nouns: a *problem* is a line that says what is wrong; an *orphan* is a file that no row names.
Begin with problems() and orphans().
"""

import contextlib
import ctypes
import hashlib
import os
import pathlib
import re
import sqlite3
import subprocess
import tempfile

LIBC = ctypes.CDLL(None, use_errno=True)
MS_RDONLY = 1
# What may lie beside the layers: name, and whether it is looked into.
TOP = {"davit.db", "davit.db-wal", "davit.db-shm", "davit.db-reserve",
       "lock", "layers", "tmp", "mnt", "partial", "containers"}
FILES = {
    "directory": {"fs", "layer.blob"},
    "erofs": {"layer.tar", "layer.erofs", "sparse", "layer.blob"},
}
REQUIRED = {"directory": {"fs"}, "erofs": {"layer.tar", "layer.erofs"}}


class Rows:
    """What the database says."""

    def __init__(self, data_root):
        with contextlib.closing(sqlite3.connect(data_root / "davit.db", timeout=10)) as db:
            self.check = [row[0] for row in db.execute("PRAGMA integrity_check")]
            self.foreign = list(db.execute("PRAGMA foreign_key_check"))
            self.layers = dict(db.execute("SELECT diff_id, damage IS NOT NULL FROM layers"))
            self.image_layers = {}
            for image, diff_id in db.execute("SELECT images.id, diff_id FROM images LEFT JOIN "
                                             "image_layers ON image_id = id"):
                self.image_layers.setdefault(image, []).append(diff_id)
            self.names = dict(db.execute("SELECT name, image_id FROM image_names"))
            self.events = list(db.execute("SELECT action, actor FROM events ORDER BY id"))


def rewind_log(data_root):
    """Makes SQLite's log long, and to be written over from here on: syncing it makes nothing else
    durable then, as it does where the file grows."""
    with contextlib.closing(sqlite3.connect(data_root / "davit.db", timeout=10)) as db:
        db.execute("CREATE TABLE filler AS SELECT zeroblob(1000000)")
        db.execute("DROP TABLE filler")
        busy, frames, done = db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    assert not busy and frames == done > 200, (busy, frames, done)


def hex_of(diff_id):
    return diff_id.removeprefix("sha256:")


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while data := handle.read(1 << 20):
            digest.update(data)
    return "sha256:" + digest.hexdigest()


# --- Orphans -------------------------------------------------------------------------------------


def orphans(data_root, driver):
    """Paths of all that no row names; complete once the store has removed its litter."""
    rows = Rows(data_root)
    expected = {hex_of(diff_id) for diff_id in rows.layers}
    found = [name for name in os.listdir(data_root) if name not in TOP]
    found += [f"tmp/{name}" for name in os.listdir(data_root / "tmp")]
    for folder in ("layers", "mnt"):
        with contextlib.suppress(FileNotFoundError):
            found += [f"{folder}/{name}" for name in os.listdir(data_root / folder)
                      if name not in expected]
    found += [f"partial/{name}" for name in os.listdir(data_root / "partial")
              if not re.fullmatch("[0-9a-f]{64}", name)]
    for name in expected:
        with contextlib.suppress(FileNotFoundError):
            found += [f"layers/{name}/{file}" for file in os.listdir(data_root / "layers" / name)
                      if file not in FILES[driver]]
    return [f"{path} ({allocated(data_root / path)} bytes)" for path in sorted(found)]


def allocated(path):
    result = subprocess.run(["du", "-s", "--block-size=1", path], capture_output=True, text=True)
    return result.stdout.split("\t")[0] or "no"


# --- Layers --------------------------------------------------------------------------------------


@contextlib.contextmanager
def erofs_mount(layer):
    """The layer as the kernel mounts it, apart from any daemon's mount."""
    devices = [layer / name for name in ("layer.tar", "sparse") if (layer / name).exists()]
    options = ",".join(f"device={path}" for path in devices)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as point:
        if LIBC.mount(os.fsencode(layer / "layer.erofs"), os.fsencode(point), b"erofs", MS_RDONLY,
                      os.fsencode(options)) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            yield pathlib.Path(point)
        finally:
            if LIBC.umount2(os.fsencode(point), 0) < 0:
                raise OSError(ctypes.get_errno(), f"cannot unmount {point}")


def layer_problems(data_root, driver, diff_id, shelf):
    layer = data_root / "layers" / hex_of(diff_id)
    missing = [name for name in REQUIRED[driver] if not (layer / name).exists()]
    if missing:
        return [f"layer {diff_id}: no {', '.join(missing)}"]
    try:
        if driver == "directory":
            shelf.check_tree(diff_id, layer / "fs")
            return []
        digest = sha256_of(layer / "layer.tar")
        if digest != diff_id:
            return [f"layer {diff_id}: its tar is {digest}"]
        with erofs_mount(layer) as top:
            shelf.check_tree(diff_id, top)
    except (OSError, AssertionError) as error:
        return [f"layer {diff_id}: {error}"]
    return []


def damage(data_root, driver, diff_id):
    """Changes a byte of a layer, on the disk."""
    layer = data_root / "layers" / hex_of(diff_id)
    if driver == "erofs":
        path = layer / "layer.tar"
    else:
        path = max((path for path in layer.rglob("*") if path.is_file()),
                   key=lambda path: path.stat().st_size)
    with open(path, "r+b") as handle:
        handle.seek(path.stat().st_size // 2)
        byte = handle.read(1)[0]
        handle.seek(-1, os.SEEK_CUR)
        handle.write(bytes([byte ^ 1]))
        handle.flush()
        os.fsync(handle.fileno())


# --- Events --------------------------------------------------------------------------------------


def event_problems(rows, shelf):
    """An image and what is told of it: both or neither."""
    found = []
    for letter, name in shelf.names.items():
        image = shelf.images[letter].id
        told = [action for action, actor in rows.events
                if (action, actor) in (("pull", name), ("load", image), ("delete", image))]
        if (image in rows.image_layers) != (told[-1:] in (["pull"], ["load"])):
            found.append(f"image {name}: told of it was {told[-3:]}")
    return found


# --- All of it -----------------------------------------------------------------------------------


def problems(data_root, driver, shelf):
    """What is wrong with what the rows name: every layer must be whole, every image have them."""
    rows = Rows(data_root)
    found = [f"database: {line}" for line in rows.check if line != "ok"]
    found += [f"database: foreign key {line}" for line in rows.foreign]
    found += [f"layer {diff_id} is in quarantine" for diff_id, bad in rows.layers.items() if bad]
    for image, layers in rows.image_layers.items():
        if layers == [None]:
            found.append(f"image {image} has no layers")
        found += [f"image {image}: no row of layer {diff_id}" for diff_id in layers
                  if diff_id and diff_id not in rows.layers]
    found += event_problems(rows, shelf)
    for diff_id in rows.layers:
        found += layer_problems(data_root, driver, diff_id, shelf)
    return found
