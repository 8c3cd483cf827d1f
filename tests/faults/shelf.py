"""The images that the fault tests pull: small, of several layers, of which they share some; and
what is in their layers."""

import os
import pathlib
import stat
import tempfile

import archives
import images
import trees


def base_entries():
    entries = [images.directory(name) for name in ("etc", "srv", "srv/deep", "srv/deep/er")]
    entries += [images.file(f"srv/{size}", images.payload(size, size))
                for size in (0, 1, 511, 512, 513, 4096, 70_000)]
    entries += [images.file(f"srv/deep/{number}", f"number {number}\n" * number)
                for number in range(12)]
    return entries + [
        images.file("etc/rights", b"r", 0o4750, uid=7, gid=8, mtime=1_234_567_890),
        images.file("etc/marked", b"m", xattrs={"user.mark": b"a value"}),
        images.symlink("etc/link", "../srv/deep/3"),
        images.hardlink("srv/again", "srv/70000"),
        images.fifo("srv/fifo"),
        images.char_device("srv/null", 1, 3),
    ]


def data_layer(name, size, *more, compression="gzip"):
    return images.layer([images.directory("data"), *more,
                         images.file(f"data/{name}", images.payload(size, name, 0.2))],
                        compression)


def make_images():
    base = images.layer(base_entries())
    whiteouts = data_layer("one", 300_000, images.directory("srv"), images.whiteout("srv/512"),
                           images.directory("srv/deep"), images.opaque("srv/deep"))
    plain = data_layer("plain", 20_000, compression="none")
    zstd = data_layer("zstd", 150_000, compression="zstd")
    return {
        "r": images.busybox_image(schema=images.OCI),  # the only one that runs
        "a": images.image([base, whiteouts, data_layer("a", 500_000), plain], schema=images.OCI),
        "b": images.image([base, data_layer("b", 200_000), zstd], schema=images.OCI),
        "c": images.image([base, whiteouts, zstd, data_layer("c", 100_000)], schema=images.OCI),
    }


def normal(tree):
    """Without what may differ: directories' times and link counts, a whiteout's attributes."""
    for item in tree.values():
        if item["kind"] == "d":
            del item["mtime"], item["links"]
        elif item["kind"] == "c" and item["device"] == (0, 0):
            item.clear()
            item["kind"] = "whiteout"
    return tree


def overlay_form(top):
    """Turns the whiteouts that an archive has into those that overlayfs has."""
    for directory, _, names in os.walk(top):
        for name in names:
            path = pathlib.Path(directory, name)
            if name == ".wh..wh..opq":
                path.unlink()
                os.setxattr(directory, "trusted.overlay.opaque", b"y")
            elif name.startswith(".wh."):
                path.unlink()
                os.mknod(path.with_name(name.removeprefix(".wh.")), stat.S_IFCHR, 0)


class Shelf:
    """`names` are what to pull, by a letter; `layers` are all layers, by diff_id."""

    def __init__(self, registry):
        self.images = make_images()
        self.names = {letter: registry.push(f"faults/{letter}", made)
                      for letter, made in self.images.items()}
        self.layers = {layer.diff_id: layer for made in self.images.values()
                       for layer in made.layers}
        self.trees = {diff_id: self._tree(layer) for diff_id, layer in self.layers.items()}

    def archive(self, letters, form, outer):
        """Of these images, under their names."""
        named = [(self.images[letter], [self.names[letter]]) for letter in letters]
        return archives.squeeze(archives.pack(archives.FORMS[form](*named)), outer)

    @staticmethod
    def _tree(layer):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as top:
            os.chmod(top, 0o755)
            trees.gnu_extract(layer.tar, top)
            overlay_form(top)
            return normal(trees.snapshot(top))

    def check_tree(self, diff_id, top):
        trees.assert_same(normal(trees.snapshot(top)), self.trees[diff_id],
                          f"layer {diff_id[:19]}")
