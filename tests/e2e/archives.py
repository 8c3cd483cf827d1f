"""Archives of images in each form that the field writes them in, made here.

Nouns: *members* are {name: content} of an archive, in order; a *named* image is a pair of an image of
images.py and its tags. docker_members(), podman_members() and oci_members() are what docker 20.10,
podman and skopeo, and OCI layouts have; both_members() is what docker 25 and davit write. pack()
makes a tar of them, squeeze() compresses it.
"""

import bz2
import gzip
import json
import lzma
import subprocess

import images
import tars

OUTERS = ("none", "gzip", "zstd", "xz", "bzip2")


def hex_of(digest):
    return digest.removeprefix("sha256:")


def to_json(value):
    return json.dumps(value).encode()


def squeeze(data, outer):
    """Compressed as quickly as can be."""
    if outer == "none":
        return data
    if outer == "zstd":
        return subprocess.run(["zstd", "-1", "-q", "-c"], input=data, stdout=subprocess.PIPE,
                              check=True).stdout
    return {"gzip": lambda: gzip.compress(data, 1, mtime=0), "bzip2": lambda: bz2.compress(data, 1),
            "xz": lambda: lzma.compress(data, preset=0)}[outer]()


def entry(name, content):
    """A member: of bytes a file; what is callable makes the entry from the name."""
    return content(name) if callable(content) else tars.file(name, content)


def pack(members, *more, end=tars.END):
    return b"".join(entry(*one) for one in members.items()) + b"".join(more) + end


def link_to(target):
    return lambda name: tars.symlink(name, target)


# --- As docker 20.10 and podman ------------------------------------------------------------------


def docker_members(*named):
    """<config>.json, <layer>/layer.tar, manifest.json, repositories."""
    members, lines, repositories = {}, [], {}
    for image, tags in named:
        paths = []
        for layer in image.layers:
            folder = hex_of(images.sha256(layer.diff_id.encode()))
            members.setdefault(f"{folder}/", tars.directory)
            members.setdefault(f"{folder}/VERSION", b"1.0")
            members.setdefault(f"{folder}/json", to_json({"id": folder}))
            members.setdefault(f"{folder}/layer.tar", layer.tar)
            paths.append(f"{folder}/layer.tar")
        config = hex_of(image.id) + ".json"
        members[config] = image.config
        lines.append({"Config": config, "RepoTags": list(tags) or None, "Layers": paths})
        for tag in tags:
            name, _, version = tag.rpartition(":")
            repositories.setdefault(name, {})[version] = hex_of(image.id)
    members["manifest.json"] = to_json(lines)
    if repositories:
        members["repositories"] = to_json(repositories)
    return members


def podman_members(*named):
    """<diff_id>.tar, and what older readers want as links to them."""
    members, lines = {}, []
    for image, tags in named:
        paths = []
        for layer in image.layers:
            path = hex_of(layer.diff_id) + ".tar"
            folder = hex_of(images.sha256(layer.diff_id.encode()))
            members.setdefault(path, layer.tar)
            members.setdefault(f"{folder}/VERSION", b"1.0")
            members.setdefault(f"{folder}/layer.tar", link_to(f"../{path}"))
            members.setdefault(f"{folder}/json", to_json({"id": folder}))
            paths.append(path)
        config = hex_of(image.id) + ".json"
        members[config] = image.config
        lines.append({"Config": config, "RepoTags": list(tags), "Layers": paths})
    members["repositories"] = to_json({})
    members["manifest.json"] = to_json(lines)
    return members


# --- As OCI layouts ------------------------------------------------------------------------------


def blob_path(digest):
    return f"blobs/sha256/{hex_of(digest)}"


def descriptor(what, tag=None, **more):
    """Of an image, an index, or anything that has a manifest."""
    line = {"mediaType": what.media_type, "digest": what.digest, "size": len(what.manifest)}
    if tag:
        line["annotations"] = {"io.containerd.image.name": tag,
                               "org.opencontainers.image.ref.name": tag.rpartition(":")[2]}
    return {**line, **more}


def layout(index_lines):
    return {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": to_json({"schemaVersion": 2, "mediaType":
                                   images.MEDIA_TYPES[images.OCI]["index"],
                                   "manifests": index_lines})}


def oci_members(*named):
    """Of images or indexes. A tag without a repository stands as skopeo writes it."""
    blobs, lines = {}, []
    for what, tags in named:
        for blob in what.blobs() + [data for data, _ in what.manifests()] + [what.manifest]:
            blobs[blob_path(images.sha256(blob))] = blob
        lines += [descriptor(what, tag) for tag in tags] or [descriptor(what)]
    return {**layout(lines), **blobs}


def both_members(*named):
    """Layers as they are uncompressed, each blob once, both descriptions."""
    plain = [(images.image([images.layer(layer.tar, "none") for layer in image.layers],
                           schema=images.OCI, config_bytes=image.config), tags)
             for image, tags in named]
    lines = [{"Config": blob_path(image.id), "RepoTags": list(tags) or None,
              "Layers": [blob_path(layer.diff_id) for layer in image.layers]}
             for image, tags in plain]
    return {**oci_members(*plain), "manifest.json": to_json(lines)}


FORMS = {"docker": docker_members, "podman": podman_members, "oci": oci_members,
         "both": both_members}
