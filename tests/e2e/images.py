#!/usr/bin/python3
"""Makes container images without internet, with nothing but Python's standard library, and puts
them into a registry or an OCI layout.

Nouns: an *entry* is one line of a tar archive; a *layer* is a list of entries, as tar and as the
compressed blob; an *image* is layers, config and manifest; an *index* names images by platform.
Begin with busybox_image(), or image([layer([file("a", b"x")])]), then push().

As a program: images.py http://127.0.0.1:5000 NAME[:TAG]  pushes a busybox image of several layers.
"""

import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import random
import shutil
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.parse
from dataclasses import dataclass, field

DOCKER = "docker"
OCI = "oci"
MEDIA_TYPES = {
    DOCKER: {
        "manifest": "application/vnd.docker.distribution.manifest.v2+json",
        "index": "application/vnd.docker.distribution.manifest.list.v2+json",
        "config": "application/vnd.docker.container.image.v1+json",
        "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "zstd": "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "none": "application/vnd.docker.image.rootfs.diff.tar",
    },
    OCI: {
        "manifest": "application/vnd.oci.image.manifest.v1+json",
        "index": "application/vnd.oci.image.index.v1+json",
        "config": "application/vnd.oci.image.config.v1+json",
        "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
        "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
        "none": "application/vnd.oci.image.layer.v1.tar",
    },
}
MTIME = 1600000000
APPLETS = """sh ash cat chmod chown cp cut date dd df dirname du echo env expr false find grep head
hostname id kill ln ls md5sum mkdir mktemp mount mv nc nproc od ping printenv printf ps pwd readlink
rm rmdir sed seq sha256sum sleep sort stat stty sync tail tar tee test touch tr true tty ulimit
umount uname uniq vi wc which whoami xargs yes""".split()


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


# --- Entries -------------------------------------------------------------------------------------


def _entry(name, kind, mode, uid=0, gid=0, mtime=MTIME, link="", data=b"", xattrs=None, device=None):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid, info.mtime = kind, mode, uid, gid, mtime
    info.linkname, info.size = link, len(data)
    info.devmajor, info.devminor = device or (0, 0)
    for key, value in (xattrs or {}).items():
        text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
        info.pax_headers["SCHILY.xattr." + key] = text
    return info, data


def file(name, data=b"", mode=0o644, **more):
    data = data.encode() if isinstance(data, str) else data
    return _entry(name, tarfile.REGTYPE, mode, data=data, **more)


def directory(name, mode=0o755, **more):
    return _entry(name, tarfile.DIRTYPE, mode, **more)


def symlink(name, target, **more):
    return _entry(name, tarfile.SYMTYPE, 0o777, link=target, **more)


def hardlink(name, target, **more):
    return _entry(name, tarfile.LNKTYPE, 0o644, link=target, **more)


def fifo(name, mode=0o644, **more):
    return _entry(name, tarfile.FIFOTYPE, mode, **more)


def char_device(name, major, minor, mode=0o666, **more):
    return _entry(name, tarfile.CHRTYPE, mode, device=(major, minor), **more)


def whiteout(name):
    """Removes `name`, a path, of the layers below."""
    parent, base = os.path.split(name)
    return file(os.path.join(parent, ".wh." + base))


def opaque(name):
    """Hides what the layers below have in the directory `name`."""
    return file(os.path.join(name, ".wh..wh..opq"))


def busybox_entries():
    """A root file system of busybox and what a shell expects."""
    program = shutil.which("busybox", path="/bin:/usr/bin:" + os.environ.get("PATH", ""))
    if not program:
        raise SystemExit("images.py: no busybox; install busybox-static")
    with open(program, "rb") as handle:
        entries = [directory("bin"), file("bin/busybox", handle.read(), 0o755)]
    known = subprocess.run([program, "--list"], capture_output=True, text=True).stdout.split()
    entries += [symlink("bin/" + name, "busybox") for name in APPLETS if name in known]
    for name in ("dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "var", "var/tmp"):
        entries.append(directory(name))
    entries += [
        directory("tmp", 0o1777),
        file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"
             "daemon:x:1:1:daemon:/usr/sbin:/bin/false\nuser:x:1000:1000:User:/home:/bin/sh\n"),
        file("etc/group", "root:x:0:\ndaemon:x:1:\nstaff:x:50:user\nuser:x:1000:\n"),
        symlink("usr/bin/env", "../../bin/busybox"),
    ]
    # A dynamically linked busybox (Debian's package "busybox") brings its libraries along.
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    for word in libraries.split():
        if word.startswith("/") and os.path.isfile(word):
            with open(word, "rb") as handle:
                entries.append(file(word.lstrip("/"), handle.read(), 0o755))
    return entries


def payload(size, seed, compressible=0.5):
    """`size` bytes, the same for the same seed, of which a share compresses well."""
    source = random.Random(seed)
    block = 4096
    text = b" ".join(b"%x" % source.getrandbits(24) for _ in range(block // 7))
    parts = []
    for _ in range(size // block + 1):
        parts.append(text[:block].ljust(block) if source.random() < compressible
                     else source.randbytes(block))
    return b"".join(parts)[:size]


# --- Layers, images, indexes ---------------------------------------------------------------------


@dataclass
class Layer:
    tar: bytes
    blob: bytes
    compression: str

    @property
    def diff_id(self):
        return sha256(self.tar)

    @property
    def digest(self):
        return sha256(self.blob)


@dataclass
class Image:
    layers: list
    config: bytes
    manifest: bytes
    media_type: str
    platform: dict
    extra_blobs: list = field(default_factory=list)

    @property
    def id(self):
        return sha256(self.config)

    @property
    def digest(self):
        return sha256(self.manifest)

    def blobs(self):
        return [layer.blob for layer in self.layers] + [self.config] + self.extra_blobs

    def manifests(self):
        """What a registry must have before `manifest`: (bytes, media type) each."""
        return []


@dataclass
class Index:
    images: list
    manifest: bytes
    media_type: str

    @property
    def digest(self):
        return sha256(self.manifest)

    def blobs(self):
        return [blob for one in self.images for blob in one.blobs()]

    def manifests(self):
        below = []
        for one in self.images:
            below += one.manifests() + [(one.manifest, one.media_type)]
        return below


def make_tar(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def compress(data, compression, level=6):
    if compression == "gzip":
        return gzip.compress(data, level, mtime=0)
    if compression == "zstd":
        return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE,
                              check=True).stdout
    assert compression == "none", compression
    return data


def layer(entries, compression="gzip"):
    """A layer of entries, or of bytes that are a tar already."""
    tar = entries if isinstance(entries, bytes) else make_tar(entries)
    return Layer(tar, compress(tar, compression), compression)


def random_layer(name, size):
    """A layer of one file, as large compressed as on the disk; gzip that costs nothing to make."""
    tar = make_tar([file(name, payload(size, name, 0))])
    return Layer(tar, compress(tar, "gzip", 0), "gzip")


def parse_platform(text):
    system, architecture, *variant = text.split("/")
    platform = {"architecture": architecture, "os": system}
    if variant:
        platform["variant"] = variant[0]
    return platform


def native_platform():
    names = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "ppc64le": "ppc64le",
             "s390x": "s390x", "riscv64": "riscv64"}
    return "linux/" + names.get(os.uname().machine, os.uname().machine)


def image(layers, schema=DOCKER, platform=None, config=None, created="2024-01-02T03:04:05Z",
          config_bytes=None):
    """An image of layers. `config` is what stands below "config" in its configuration: Env, Cmd,
    Entrypoint, WorkingDir, User; config_bytes replaces the whole of it."""
    types = MEDIA_TYPES[schema]
    platform = parse_platform(platform or native_platform())
    if config_bytes is None:
        whole = {
            **platform,
            "created": created,
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["sh"],
                       **(config or {})},
            "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
            "history": [{"created": created, "created_by": f"layer {number}"}
                        for number, _ in enumerate(layers)],
        }
        config_bytes = json.dumps(whole).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": types["manifest"],
        "config": {"mediaType": types["config"], "size": len(config_bytes),
                   "digest": sha256(config_bytes)},
        "layers": [{"mediaType": types[one.compression], "size": len(one.blob),
                    "digest": one.digest} for one in layers],
    }
    return Image(layers, config_bytes, json.dumps(manifest, indent=2).encode(), types["manifest"],
                 platform)


def index(images, schema=OCI):
    """A manifest list (Docker) or index (OCI) of images, or of indexes."""
    manifests = []
    for one in images:
        line = {"mediaType": one.media_type, "size": len(one.manifest), "digest": one.digest}
        if isinstance(one, Image):
            line["platform"] = one.platform
        manifests.append(line)
    types = MEDIA_TYPES[schema]
    text = json.dumps({"schemaVersion": 2, "mediaType": types["index"], "manifests": manifests},
                      indent=2)
    return Index(images, text.encode(), types["index"])


def busybox_image(extra_layers=(), compression="gzip", **more):
    """A busybox that runs, with more layers on top, each a list of entries."""
    layers = [layer(busybox_entries(), compression)]
    layers += [layer(entries, compression) for entries in extra_layers]
    return image(layers, **more)


# --- Registries and layouts ----------------------------------------------------------------------


class PushError(Exception):
    pass


class Connection:
    """One HTTP connection to a registry, with Basic credentials if it wants any, or with what
    `auth` says if it is a text."""

    def __init__(self, url, auth=None, cafile=None):
        self.url = urllib.parse.urlsplit(url)
        self.headers = {}
        if isinstance(auth, str):
            self.headers["Authorization"] = auth
        elif auth:
            token = base64.b64encode(f"{auth[0]}:{auth[1]}".encode()).decode()
            self.headers["Authorization"] = "Basic " + token
        if self.url.scheme == "https":
            context = ssl.create_default_context(cafile=cafile)
            self.http = http.client.HTTPSConnection(self.url.netloc, context=context)
        else:
            self.http = http.client.HTTPConnection(self.url.netloc)

    def request(self, method, target, body=None, expect=(), **headers):
        self.http.request(method, target, body, {**self.headers, **headers})
        response = self.http.getresponse()
        text = response.read()
        if expect and response.status not in expect:
            raise PushError(f"{method} {target}: {response.status} {text[:500]!r}")
        return response

    def push_blob(self, repository, data):
        digest = sha256(data)
        base = f"/v2/{repository}/blobs/"
        if self.request("HEAD", base + digest).status == 200:
            return
        started = self.request("POST", base + "uploads/", b"", expect=(202,))
        location = started.headers["Location"]
        if location.startswith("http"):
            location = location.split(self.url.netloc, 1)[1]
        location += ("&" if "?" in location else "?") + "digest=" + digest
        self.request("PUT", location, data, expect=(201,),
                     **{"Content-Type": "application/octet-stream"})

    def push_manifest(self, repository, reference, data, media_type):
        self.request("PUT", f"/v2/{repository}/manifests/{reference}", data, expect=(201,),
                     **{"Content-Type": media_type})


def push(url, repository, what, tag="latest", auth=None, cafile=None):
    """Pushes an image or index; returns its name without the scheme: "127.0.0.1:5000/a/b:tag"."""
    connection = Connection(url, auth, cafile)
    for blob in what.blobs():
        connection.push_blob(repository, blob)
    for data, media_type in what.manifests():
        connection.push_manifest(repository, sha256(data), data, media_type)
    connection.push_manifest(repository, tag, what.manifest, what.media_type)
    connection.http.close()
    return f"{connection.url.netloc}/{repository}:{tag}"


def write_layout(path, what, tag="latest"):
    """Writes an OCI image layout: oci-layout, index.json and blobs/."""
    blobs = os.path.join(path, "blobs", "sha256")
    os.makedirs(blobs, exist_ok=True)
    everything = what.blobs() + [data for data, _ in what.manifests()] + [what.manifest]
    for data in everything:
        with open(os.path.join(blobs, sha256(data).split(":")[1]), "wb") as out:
            out.write(data)
    with open(os.path.join(path, "oci-layout"), "w") as out:
        json.dump({"imageLayoutVersion": "1.0.0"}, out)
    entry = {"mediaType": what.media_type, "size": len(what.manifest), "digest": what.digest,
             "annotations": {"org.opencontainers.image.ref.name": tag}}
    with open(os.path.join(path, "index.json"), "w") as out:
        json.dump({"schemaVersion": 2, "manifests": [entry]}, out)


def demo_image():
    """What the quick start pulls: busybox, and layers large enough to watch."""
    sizes = (40, 24, 12, 6)
    extra = [[directory("srv"), file(f"srv/data{number}", payload(size << 20, number))]
             for number, size in enumerate(sizes)]
    extra.append([file("etc/motd", "Hello from a container that davit runs.\n")])
    return busybox_image(extra, config={"Cmd": ["cat", "/etc/motd"]})


def main(arguments):
    if len(arguments) != 2 or arguments[0].startswith("-"):
        raise SystemExit(__doc__.split("As a program: ")[1].strip())
    name, _, tag = arguments[1].partition(":")
    started = time.monotonic()
    made = demo_image()
    print(push(arguments[0], name, made, tag or "latest"))
    size = sum(len(one.blob) for one in made.layers)
    print(f"{len(made.layers)} layers, {size / 1e6:.1f} MB compressed, made and pushed in "
          f"{time.monotonic() - started:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
