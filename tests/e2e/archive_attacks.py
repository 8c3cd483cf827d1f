"""Archives of images from strangers, each with the one outcome that is right.

An *attack* is what is fed to `davit load`, and either the images that are there afterwards,
{ID: tags}, or a pattern that the error must match, and its reason. corpus() makes them all; each
has images and tags of its own, so that they can be loaded one beside the other.
test_archive_attacks.py loads them.

What is right: an archive is taken as one, or not at all; what it names must be in it, and be what
it was said to be; its members' names are only names. Where two readings are possible, none is made.
"""

import dataclasses
import functools
import gzip
import json
import lzma
import struct
import zlib

import archives
import images
import layer_attacks
import tars
from archives import blob_path, descriptor, hex_of, link_to, pack, squeeze, to_json
from tars import END, GNU

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
OCI = images.MEDIA_TYPES[images.OCI]

# What is wrong where it is not the archive itself: the same as for what comes from a registry.
NO_JSON = {"reason": "INVALID_JSON", "code": "INVALID_ARGUMENT", "error": "not valid JSON"}
MUCH_JSON = {"reason": "INVALID_JSON", "code": "RESOURCE_EXHAUSTED", "error": "the limit is"}
NO_MANIFEST = {"reason": "INVALID_MANIFEST", "code": "INVALID_ARGUMENT"}
UNSUPPORTED = {"reason": "UNSUPPORTED_MANIFEST", "code": "UNIMPLEMENTED"}
NO_DIGEST = {"reason": "INVALID_DIGEST", "code": "INVALID_ARGUMENT", "error": "invalid digest"}
NO_DIFF_ID = {"reason": "DIFF_ID_MISMATCH", "error": "its uncompressed bytes are sha256"}
DAMAGED = {"reason": "INVALID_COMPRESSION", "error": "damaged|ends early"}
NO_SPACE = {"reason": "NO_SPACE", "code": "RESOURCE_EXHAUSTED", "error": "more is needed"}


@dataclasses.dataclass
class Attack:
    name: str
    parts: tuple  # bytes, or functions that make them: large ones are made when needed
    images: dict = None
    said: dict = None  # the images that the daemon names as loaded, if it is not these
    error: str = None
    reason: str = "INVALID_ARCHIVE"
    code: str = "DATA_LOSS"
    outers: tuple = None  # compressions it is sent in, apart from none; by default one of them
    forever: bool = False  # zeros follow, without end
    lines: tuple = ()  # that `davit load` prints, where it matters

    def data(self):
        return b"".join(one() if callable(one) else one for one in self.parts)


class Maker:
    """What the attacks of one corpus are made with: each gets images of its own."""

    def __init__(self, canary):
        self.canary = canary
        self.made = {}

    def image(self, name, layers=1, **more):
        more.setdefault("schema", images.OCI)
        made = [images.layer([images.file(f"layer-{number}", name)], "none")
                for number in range(layers)]
        return images.image(made, **more)

    def __call__(self, name, *parts, **fields):
        assert name not in self.made, name
        parts = tuple(pack(one) if isinstance(one, dict) else one for one in parts)
        fields.setdefault("outers", (archives.OUTERS[1 + len(self.made) % 4],))
        self.made[name] = Attack(name, parts, **fields)


def tag_of(name):
    return f"attack/{name}:x"


def good(make, name, form="docker", **more):
    """(image, members, what must be there)"""
    image = make.image(name, **more)
    return image, archives.FORMS[form]((image, [tag_of(name)])), {image.id: [tag_of(name)]}


def docker_with(make, name, change, **fields):
    """An archive as docker's, whose members `change` has changed, given the image too."""
    image, members, result = good(make, name)
    members = change(members, image) or members
    if "error" not in fields:
        fields.setdefault("images", result)
    make(name, members, **fields)


def oci_with(make, name, change, **fields):
    image, members, result = good(make, name, "oci")
    members = change(members, image) or members
    if "error" not in fields:
        fields.setdefault("images", result)
    make(name, members, **fields)


def manifest_with(make, name, line=None, **fields):
    """manifest.json whose only line is changed; a value of None leaves the key out."""
    def change(members, _):
        (old,) = json.loads(members["manifest.json"])
        new = {key: value for key, value in {**old, **line}.items() if value is not ...}
        members["manifest.json"] = to_json([new])
    docker_with(make, name, change, **fields)


def config_with(make, name, change, form="docker", **fields):
    """An image whose configuration is changed, and all that depends on it with it."""
    image = make.image(name)
    config = json.loads(image.config)
    changed = change(config)
    config = config if changed is None else changed
    data = config if isinstance(config, bytes) else to_json(config)
    image = images.image(image.layers, config_bytes=data, schema=images.OCI)
    if "error" not in fields:
        fields.setdefault("images", {image.id: [tag_of(name)]})
    make(name, archives.FORMS[form]((image, [tag_of(name)])), **fields)


# --- What must load ------------------------------------------------------------------------------


def forms(make):
    for form in archives.FORMS:
        name = f"form-{form}"
        _, members, result = good(make, name, form, layers=3)
        make(name, members, images=result, outers=archives.OUTERS[1:])
        name = f"form-{form}-backwards"
        _, members, result = good(make, name, form, layers=3)
        make(name, dict(reversed(members.items())), images=result)
    for compression in ("gzip", "zstd"):
        name = f"form-docker-of-{compression}-layers"
        image, members, result = good(make, name)
        members = {path: squeeze(data, compression) if path.endswith("layer.tar") else data
                   for path, data in members.items()}
        make(name, members, images=result)
        name = f"form-oci-of-{compression}-layers"
        image = make.image(name)
        image = images.image([images.layer(one.tar, compression) for one in image.layers],
                             schema=images.OCI, config_bytes=image.config)
        make(name, archives.oci_members((image, [tag_of(name)])),
             images={image.id: [tag_of(name)]})
    for name, prefix in (("dot", "./"), ("slash", "/"), ("dots", "a/../"), ("many", ".//././")):
        name = f"form-of-names-with-{name}"
        _, members, result = good(make, name)
        make(name, {prefix + path: data for path, data in members.items()}, images=result)
    name = "form-two-images-three-tags"
    one, two = make.image(name + "1"), make.image(name + "2")
    tags = [tag_of(name + letter) for letter in "abc"]
    make(name, archives.docker_members((one, tags[:2]), (two, tags[2:])),
         images={one.id: tags[:2], two.id: tags[2:]})
    for form in archives.FORMS:
        name = f"form-{form}-no-tags"
        image = make.image(name)
        make(name, archives.FORMS[form]((image, [])), images={image.id: []})
    name = "form-127-layers"
    _, members, result = good(make, name, layers=127)
    make(name, members, images=result)
    name = "form-128-layers"
    _, members, _ = good(make, name, layers=128)
    make(name, members, error="too many layers", **NO_MANIFEST)


# --- Names of members ----------------------------------------------------------------------------


def names(make):
    evil = b"evil"

    def beside(*entries):
        return lambda members, _: {**members, **{f"entry{number}": lambda __, one=one: one
                                                 for number, one in enumerate(entries)}}

    strange = (tars.file("/" + make.canary + "/file", evil), tars.directory("."),
               tars.file("\x1b[31m\n\xe9", evil), tars.file(b"\xff\xfe", evil),
               tars.file("a" * 100, evil), tars.pax({"path": b"f\0/../evil"}),
               tars.file("x", evil), tars.gnu_long("n" * 3000), tars.file("x", evil, magic=GNU),
               tars.symlink("out", make.canary), tars.file("out/file", evil),
               tars.hardlink("hard", make.canary + "/file"), tars.file("hard", evil),
               tars.symlink("proc", "/proc/self/fd"), tars.file("proc/1", evil),
               tars.char("device", 1, 3), tars.block("disk"), tars.fifo("fifo"),
               tars.file(".wh.x", evil), tars.file(".wh..wh..opq", evil))
    docker_with(make, "name-others-that-nobody-needs", beside(*strange),
                outers=archives.OUTERS[1:])
    for name, path in (("dotdot", "../escape"), ("dotdot-alone", ".."),
                       ("dotdot-deep", "a/../../x"), ("canary", "../../../../canary/file")):
        docker_with(make, f"name-other-{name}", beside(tars.file(path, evil)),
                    error=f'"{path}" leads out of the archive')
    docker_with(make, "name-of-1-mib", beside(tars.gnu_long("d/" * (MIB // 2 - 1)),
                                              tars.file("x", magic=GNU)), error=".")
    docker_with(make, "name-empty", beside(tars.file("", evil)), error="member 8 has no name")
    for name, path in (("dotdot", "../manifest.json"), ("below", "x/manifest.json"),
                       ("other-case", "Manifest.json"), ("space", "manifest.json "),
                       ("backslash", ".\\manifest.json")):
        docker_with(make, f"name-manifest-{name}", lambda members, _, path=path: {
            path if key == "manifest.json" else key: data for key, data in members.items()},
            error="manifest.json")
    docker_with(make, "name-by-pax", lambda members, _: {
        key: (lambda _, key=key, data=data: tars.pax({"path": key}) + tars.file("harmless", data))
        if isinstance(data, bytes) else data for key, data in members.items()})
    docker_with(make, "name-by-gnu", lambda members, _: {
        key: (lambda _, key=key, data=data: tars.gnu_long(key) +
              tars.file("../../x", data, magic=GNU))
        if isinstance(data, bytes) else data for key, data in members.items()})
    docker_with(make, "name-manifest-cut-by-nul", lambda members, _: {
        key: (lambda _, data=data: tars.pax({"path": b"manifest.json\0x"}) + tars.file("y", data))
        if key == "manifest.json" else data for key, data in members.items()})
    for name, path in (("out", "../../../../canary/file"), ("absolute", make.canary + "/file"),
                       ("etc-passwd", "/etc/passwd"), ("empty", ""), ("dot", "."), ("slash", "/"),
                       ("manifest", "manifest.json"), ("proc", "/proc/self/mem"),
                       ("long", "x/" * 5000), ("escapes", "\x1b]0;evil\x07\n\u202e"),
                       ("missing", "nothing.tar"), ("directory", "dir"), ("percent", "%s%n%d")):
        if name == "directory":
            def change(members, _):
                (line,) = json.loads(members["manifest.json"])
                line["Layers"] = ["dir"]
                members["manifest.json"] = to_json([line])
                members["dir/"] = tars.directory
            docker_with(make, "layer-path-directory", change, error='"dir"|dir')
            continue
        manifest_with(make, f"layer-path-{name}", {"Layers": [path]}, error="no member|no layer")
        manifest_with(make, f"config-path-{name}", {"Config": path},
                      **({"error": "not an object", **NO_MANIFEST} if name == "manifest" else
                         {"error": "no member"}))
    manifest_with(make, "layer-path-nul", {"Layers": ["a\0b"]}, **NO_JSON)


# --- Links between members -----------------------------------------------------------------------


def links(make):
    def linked(name, entries, error=None, first=True, what="layer.tar", **fields):
        """Where the layer (or config) was are these entries, functions of (its path, the path that
        it is moved to)."""
        def change(members, _):
            path = next(key for key in members if key.endswith(what))
            data = members.pop(path)
            made = [(f"link{number}", lambda _, one=one: one(path, "moved/real"))
                    for number, one in enumerate(entries)]
            moved = [("moved/real", data)]
            return dict((made + moved if first else moved + made) + list(members.items()))
        more = {"error": error} if error else {}
        docker_with(make, "link-" + name, change, **more, **fields)

    symlink = tars.symlink
    linked("forwards", [lambda path, real: symlink(path, "../" + real)])
    linked("backwards", [lambda path, real: symlink(path, "../" + real)], first=False)
    linked("hard", [lambda path, real: tars.hardlink(path, real)], first=False)
    linked("hard-forwards", [lambda path, real: tars.hardlink(path, real)])
    linked("absolute", [lambda path, real: symlink(path, "/" + real)])
    linked("of-the-config", [lambda path, real: symlink(path, real)], what=".json")
    linked("chain", [lambda path, real: symlink(path, "../a0"),
                     *(lambda _, __, n=n: symlink(f"a{n}", f"a{n + 1}") for n in range(8)),
                     lambda _, real: symlink("a8", real)])
    linked("chain-of-1000", [lambda path, real: symlink(path, "../a0"),
                             *(lambda _, __, n=n: symlink(f"a{n}", f"a{n + 1}")
                               for n in range(1000)), lambda _, real: symlink("a1000", real)],
           error="link")
    linked("to-itself", [lambda path, _: symlink(path, "layer.tar")], error="link")
    linked("hard-to-itself", [lambda path, _: tars.hardlink(path, path)], error="link")
    linked("loop", [lambda path, _: symlink(path, "../b"), lambda *_: symlink("b", "c"),
                    lambda *_: symlink("c", "b")], error="link")
    for name, target in (("passwd", "/etc/passwd"), ("canary", make.canary + "/file"),
                         ("upwards", "../../../../canary/file"), ("proc", "/proc/self/fd/0"),
                         ("nothing", "nothing"), ("empty", ""), ("directory", "../moved"),
                         ("long", "x" * 100), ("escapes", "\x1b[2J\n")):
        linked(f"to-{name}", [lambda path, _, target=target: symlink(path, target)], error=".")
        linked(f"hard-to-{name}", [lambda path, _, target=target: tars.hardlink(path, target)],
               error=".")
    linked("through-a-directory", [lambda path, _: symlink(path, "../dir/real"),
                                   lambda *_: symlink("dir", "moved")],
           error='no member "dir/real"')
    for what in ("layer.tar", ".json"):
        kind = what.strip(".").split(".")[0]
        linked(f"{kind}-is-a-device", [lambda path, _: tars.char(path, 1, 5)], what=what, error=".")
        linked(f"{kind}-is-a-fifo", [lambda path, _: tars.fifo(path)], what=what, error=".")
        linked(f"{kind}-is-a-directory", [lambda path, _: tars.directory(path)], what=what,
               error=".")
    for name, one in (("a-device", lambda path: tars.char(path)), ("a-fifo", tars.fifo),
                      ("a-directory", tars.directory),
                      ("a-link-to-nothing", link_to("nothing")),
                      ("a-link-out", link_to(make.canary + "/file"))):
        docker_with(make, f"manifest-is-{name}",
                    lambda members, _, one=one: members.update({"manifest.json": one}), error=".")
        oci_with(make, f"index-is-{name}",
                 lambda members, _, one=one: members.update({"index.json": one}), error=".")


# --- What is missing, wrong, or there twice ------------------------------------------------------


def missing(make):
    make("empty-archive", END, error="does not contain", outers=archives.OUTERS[1:])
    make("empty-input", b"", error="is empty", reason="EMPTY_ARCHIVE", code="INVALID_ARGUMENT",
         outers=())
    make("only-directories", tars.directory("a"), tars.directory("b"), END, error=".")
    make("only-oci-layout", {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}, error=".")
    make("only-repositories", {"repositories": b"{}"}, error=".")
    for form in archives.FORMS:
        image = make.image(f"missing-{form}", layers=2)
        members = archives.FORMS[form]((image, [tag_of(f"missing-{form}")]))
        for number, (key, data) in enumerate(members.items()):
            if not isinstance(data, bytes) or \
                    key.endswith(("VERSION", "/json", "repositories", "oci-layout")) or \
                    (form == "both" and (key.endswith(".json") or b'"layers"' in data)):
                continue
            make(f"missing-{form}-{number}", {path: content for path, content in members.items()
                                             if path != key}, error=".")


def lies(make):
    """Bytes that are not those that were named."""
    image, members, _ = good(make, "lie-oci", "oci", layers=2)
    paths = {"manifest": blob_path(image.digest), "config": blob_path(image.id),
             "layer": blob_path(image.layers[0].digest), "layer-2": blob_path(image.layers[1].digest)}
    for what, path in paths.items():
        data = members[path]
        for name, changed in (("bit", data[:20] + bytes([data[20] ^ 1]) + data[21:]),
                              ("longer", data + b" "), ("shorter", data[:-1]), ("empty", b"")):
            # That a layer is damaged is seen by who reads it, or by who has hashed it.
            layer = {"reason": ("INVALID_LAYER", "INVALID_ARCHIVE")} if name == "bit" else {}
            make(f"lie-oci-{what}-{name}", {**members, path: changed},
                 error="not what its name says|no JSON document|damaged", **layer)
        for name, size in (("more", 1), ("less", -1)):
            name = f"lie-oci-size-of-{what}-{name}"
            one = make.image(name, layers=2)
            manifest = json.loads(one.manifest)
            if what == "config":
                manifest["config"]["size"] += size
            elif what != "manifest":
                manifest["layers"][what == "layer-2"]["size"] += size
            one.manifest = to_json(manifest)
            line = descriptor(one, tag_of(name))
            line["size"] += size if what == "manifest" else 0
            make(name, {**archives.oci_members((one, [])), **archives.layout([line])},
                 error="bytes")
    # The path of a digest that is a link to what has another one, and a name that says so.
    for what in paths:
        name = f"lie-oci-link-of-{what}"
        one = make.image(name, layers=2)
        line = descriptor(one, tag_of(name))
        manifest = json.loads(one.manifest)
        wrong = images.sha256(what.encode())
        if what == "manifest":
            target, line["digest"] = one.digest, wrong
        elif what == "config":
            target, manifest["config"]["digest"] = one.id, wrong
        else:
            layer = manifest["layers"][what == "layer-2"]
            target, layer["digest"] = layer["digest"], wrong
        if what != "manifest":
            one.manifest = to_json(manifest)
            line = descriptor(one, tag_of(name))
        members = {**archives.oci_members((one, [])), **archives.layout([line])}
        members["elsewhere.json" if what in ("manifest", "config") else "elsewhere.tar"] = \
            members.pop(blob_path(target))
        members[blob_path(wrong)] = link_to("../../" + next(
            path for path in members if path.startswith("elsewhere")))
        make(name, members, error=f"what names it says {wrong}")
    for form in ("docker", "podman", "both"):
        for name, pick in (("swapped", lambda ids: ids[::-1]), ("fewer", lambda ids: ids[:-1]),
                           ("more", lambda ids: ids + ids[:1]), ("none", lambda ids: []),
                           ("wrong", lambda ids: ids[:-1] + ["sha256:" + "1" * 64])):
            title = f"lie-{form}-diff-ids-{name}"
            one = make.image(title, layers=2)
            config = json.loads(one.config)
            config["rootfs"]["diff_ids"] = pick(config["rootfs"]["diff_ids"])
            one = images.image(one.layers, config_bytes=to_json(config), schema=images.OCI)
            make(title, archives.FORMS[form]((one, [tag_of(title)])),
                 **(NO_DIFF_ID if name in ("swapped", "wrong") else
                    {"error": r"has 2 layers for image .* whose configuration has \d"}))
    for name, digest in (("upper", "sha256:" + "AB" * 32), ("short", "sha256:" + "ab" * 31),
                         ("sha512", "sha512:" + "ab" * 64), ("path", "sha256:../../index.json"),
                         ("traversal", "sha256:" + "../" * 21 + "x"), ("empty", ""),
                         ("no-algorithm", "ab" * 32), ("number", 5), ("null", None)):
        oci_with(make, f"digest-{name}", lambda members, one, digest=digest: members.update(
            archives.layout([{**descriptor(one, "attack/x:x"), "digest": digest}])),
            **(NO_DIGEST if isinstance(digest, str) else {"error": "has no digest"}))
    # A name is only a name in an archive as docker's: the ID is the hash.
    name = "config-by-another-name"
    image, members, result = good(make, name)
    (line,) = json.loads(members["manifest.json"])
    content = members.pop(line["Config"])
    line["Config"] = "0" * 64 + ".json"
    make(name, {line["Config"]: content, **members, "manifest.json": to_json([line])},
         images=result)


def twice(make):
    docker_with(make, "twice-the-same", lambda members, _: {
        key: (lambda path, data=data: 2 * tars.file(path, data)) if isinstance(data, bytes)
        else data for key, data in members.items()}, error="has two members")
    for what in ("manifest.json", ".json", "layer.tar"):
        name = f"twice-{what.strip('.')}"
        image, members, _ = good(make, name)
        other = archives.docker_members((make.image(name + "-other"), [tag_of(name + "-other")]))
        path = next(key for key in members if key.endswith(what) and
                    (what != ".json" or key != "manifest.json"))
        second = next(data for key, data in other.items() if key.endswith(what) and
                      (what != ".json" or key != "manifest.json"))
        for order in ("before", "after"):
            pair = [second, members[path]] if order == "before" else [members[path], second]
            make(f"{name}-{order}", {**members, path: lambda key, pair=pair: tars.file(
                key, pair[0]) + tars.file(key, pair[1])}, error="has two members")
    for name in ("index.json", "manifest"):
        title = f"twice-oci-{name}"
        image, members, _ = good(make, title, "oci")
        path = "index.json" if name == "index.json" else blob_path(image.digest)
        make(title, {**members, path: lambda key, data=members[path]: tars.file(key, data) +
                     tars.file(key, data + b" ")}, error="has two members")
    name = "twice-file-then-link"
    image, members, _ = good(make, name)
    path = next(key for key in members if key.endswith("layer.tar"))
    make(name, {**members, path: lambda key, data=members[path]: tars.file(key, data) +
                tars.symlink(key, "/etc/passwd")}, error="has two members")
    name = "twice-concatenated-archives"
    _, members, result = good(make, name)
    _, second, _ = good(make, name + "-second")
    make(name, pack(members), pack(second), images=result)
    name = "twice-compressed-members"  # gzip members and zstd frames are one stream
    _, members, result = good(make, name)
    data = pack(members)
    make(name + "-gzip", gzip.compress(data[:700]) + gzip.compress(data[700:]), images=result,
         outers=())
    name += "-zstd"
    _, members, result = good(make, name)
    data = pack(members)
    make(name, squeeze(data[:700], "zstd") + squeeze(data[700:], "zstd"), images=result, outers=())
    # Two things at once: manifest.json alone counts.
    name = "two-things-at-once"
    _, members, result = good(make, name)
    other = make.image(name + "-other")
    make(name, {**members, **archives.oci_members((other, [tag_of(name + "-other")]))},
         images=result, outers=archives.OUTERS[1:])
    name = "two-things-one-broken"
    _, members, result = good(make, name, "both")
    make(name, {**members, "index.json": b"{broken"}, images=result)


# --- JSON ----------------------------------------------------------------------------------------


def documents(make):
    deep = b'[' * 100_000 + b']' * 100_000
    bad = {"empty": b"", "garbage": b"\xff\xfe\0garbage", "cut": b'[{"Config": "x', "null": b"null",
           "number": b"5", "text": b'"x"', "object": b"{}", "no-images": b"[]", "deep": deep,
           "line-of-text": b'["x"]', "line-null": b"[null]", "line-list": b"[[]]",
           "line-empty": b"[{}]", "then-garbage": b"[] x", "two": b"[][]",
           "nul": b"[{\"Config\": \"a\0b\"}]", "many-empty": b"[" + b"{}," * 100_000 + b"{}]",
           "4-mib-of-values": b"[" + b"0," * (2 * MIB - 2) + b"0]"}
    outcomes = {**dict.fromkeys(("empty", "garbage", "cut", "null", "number", "text", "then-garbage",
                                 "two", "nul"), NO_JSON),
                **dict.fromkeys(("deep", "many-empty", "4-mib-of-values"), MUCH_JSON)}
    # manifest.json is parsed item by item, each of which is an object.
    listed = {**outcomes, **dict.fromkeys(("object", "line-of-text", "line-null",
                                           "4-mib-of-values"), NO_JSON)}
    del listed["many-empty"]
    for name, data in bad.items():
        for path, change, known in (("manifest", docker_with, listed), ("index", oci_with, outcomes)):
            change(make, f"{path}-json-{name}", lambda members, _, path=path, data=data:
                   members.update({f"{path}.json": data}),
                   **known.get(name, {"error": rf'{path}\.json"'}), outers=())
    manifest_with(make, "manifest-json-of-4-mib", {"Comment": "x" * (4 * MIB)},
                  **{**MUCH_JSON, "error": "too large"})
    manifest_with(make, "manifest-json-of-much", {"Comment": [[]] * 100_000}, **MUCH_JSON)
    docker_with(make, "manifest-json-of-16-mib-of-spaces", lambda members, _: members.update(
        {"manifest.json": members["manifest.json"] + b" " * (16 * MIB)}), error="16 MiB")
    docker_with(make, "manifest-json-with-space", lambda members, _: members.update(
        {"manifest.json": b"\n\t " + members["manifest.json"] + b" " * (5 * MIB)}))
    for name, line in {
            "config-number": {"Config": 5}, "config-null": {"Config": None}, "config-no": {"Config": ...},
            "layers-text": {"Layers": "x"}, "layers-object": {"Layers": {}},
            "layers-of-numbers": {"Layers": [5]}, "layers-null-inside": {"Layers": [None]},
            "layers-no": {"Layers": ...}, "layers-null": {"Layers": None},
            "tags-text": {"RepoTags": "x"}, "tags-of-numbers": {"RepoTags": [5]},
            "tags-object": {"RepoTags": {"a": "b"}}}.items():
        manifest_with(make, f"type-{name}", line, error=r'"manifest\.json"')
    manifest_with(make, "type-unknown-keys", {"Evil": {"a": [1]}, "LayerSources": None})
    for name, key, value, loads in (
            ("os-number", "os", 5, False), ("rootfs-null", "rootfs", None, False),
            ("rootfs-list", "rootfs", [], False), ("config-list", "config", [], False),
            ("architecture-object", "architecture", {}, False),
            ("history-text", "history", "x", True), ("created-number", "created", 5, True)):
        for form in ("docker", "oci"):
            config_with(make, f"config-{form}-{name}",
                        lambda config, key=key, value=value: config.update({key: value}), form,
                        **({} if loads else {"error": "invalid image configuration",
                                             **NO_MANIFEST}))
    # What nobody needs to store an image is looked at by those who need it.
    for name, change, loads in (
            ("env-number", {"Env": 5}, False), ("env-of-numbers", {"Env": [5]}, False),
            ("user-number", {"User": 5}, False), ("cmd-text", {"Cmd": "x"}, True),
            ("labels-list", {"Labels": ["x"]}, True), ("ports-list", {"ExposedPorts": []}, True),
            ("labels-of-numbers", {"Labels": {"a": 5}}, True)):
        config_with(make, f"config-{name}", lambda config, change=change: config["config"].update(
            change), **({} if loads else {"error": "not a", **NO_MANIFEST}))
    for name, value in (("text", "x"), ("numbers", [5])):
        config_with(make, f"config-diff-ids-{name}", lambda config, value=value:
                    config["rootfs"].update(diff_ids=value), error="rootfs|diff_id", **NO_MANIFEST)
    config_with(make, "config-deep", lambda _: deep, **MUCH_JSON)
    config_with(make, "config-empty", lambda _: b"", **NO_JSON)
    config_with(make, "config-windows", lambda config: config.update(os="windows"),
                error="for windows", reason="UNSUPPORTED_PLATFORM", code="FAILED_PRECONDITION")
    config_with(make, "config-other-machine", lambda config: config.update(architecture="s390x"))
    config_with(make, "config-of-4-mib", lambda config: config.update(comment="x" * 4 * MIB),
                error="4 MiB|large")
    config_with(make, "config-labels-that-steer-terminals", lambda config: config["config"].update(
        Labels={"\x1b]0;evil\x07": "\x1b[2J\u202e\r\n"}))


# --- Names of images -----------------------------------------------------------------------------


def references(make):
    bad = {"upper": "attack/Upper:x", "unicode": "attack/\u00fcber:x", "homoglyph": "att\u0430ck:x",
           "digest": "attack/d@sha256:" + "1" * 64, "tag-and-digest": "a:b@sha256:" + "1" * 64,
           "empty": "", "space": "attack/ x:x", "colon": ":", "no-name": ":x", "long-tag":
           "attack/t:" + "x" * 129, "long-name": "attack/" + "x" * 300 + ":x", "escape":
           "attack/\x1b[31m:x", "newline": "attack/x:x\nattack/y:y", "dotdot": "../../x:x",
           "slash": "/x:x", "id": "1" * 64, "id-tag": "sha256:" + "1" * 64, "angle": "<none>:<none>",
           "option": "--help", "nul": "attack/x:x\0y"}
    for name, tag in bad.items():
        error = NO_JSON if name == "nul" else {"error": "invalid tag|sha256"}
        manifest_with(make, f"tag-{name}", {"RepoTags": [tag]}, **error)
        manifest_with(make, f"tag-{name}-second", {"RepoTags": [tag_of(f"tag-{name}"), tag]},
                      **error)
    for name, tags, result in (
            ("without-tag", ["attack/tag-without-tag"], ["attack/tag-without-tag:latest"]),
            ("port", ["host:99999999999/x:x"], ["host:99999999999/x:x"]),  # as Docker's grammar
            ("complete", ["docker.io/library/tag-complete:x"], ["tag-complete:x"]),
            ("twice", 2 * [tag_of("tag-twice")], 2 * [tag_of("tag-twice")]),
            ("null", None, []), ("none", [], [])):
        image, members, _ = good(make, f"tag-{name}")
        (line,) = json.loads(members["manifest.json"])
        make(f"tag-{name}", {**members, "manifest.json": to_json([{**line, "RepoTags": tags}])},
             images={image.id: result})
    for form in ("docker", "oci"):
        name = f"tag-of-two-images-{form}"
        one, two = make.image(name + "1"), make.image(name + "2")
        make(name, archives.FORMS[form]((one, [tag_of(name)]), (two, [tag_of(name)])),
             said={one.id: [tag_of(name)], two.id: [tag_of(name)]},
             images={one.id: [], two.id: [tag_of(name)]})
        name = f"tag-10000-{form}"
        image = make.image(name)
        tags = [f"attack/many-{form}:{number}" for number in range(10_000)]
        make(name, archives.FORMS[form]((image, tags)), images={image.id: tags}, outers=())

    def nameless(name, change):
        image, members, _ = good(make, name, "oci")
        change(members, image)
        make(name, members, images={image.id: []})

    # OCI: what names an image is an annotation, which may be anything.
    for name, value in (("number", 5), ("object", {}), ("escape", "\x1b[31m"), ("empty", ""),
                        ("upper", "Attack:x"), ("long", "x" * 5000)):
        def change(members, one, value=value):
            line = descriptor(one)
            line["annotations"] = {"io.containerd.image.name": value,
                                   "org.opencontainers.image.ref.name": value}
            members.update(archives.layout([line]))
        if name == "upper":
            oci_with(make, f"annotation-{name}", change, error='invalid tag "Attack:x"')
        else:
            nameless(f"annotation-{name}", change)
    nameless("annotations-list", lambda members, one: members.update(archives.layout(
        [{**descriptor(one), "annotations": ["x"]}])))


# --- OCI -----------------------------------------------------------------------------------------


def layouts(make):
    def wrap(what, times, make_index=images.index):
        for _ in range(times):
            what = make_index([what])
        return what

    for depth in (1, 2):
        name = f"index-nested-{depth}"
        image = make.image(name)
        make(name, archives.oci_members((wrap(image, depth), [tag_of(name)])),
             images={image.id: [tag_of(name)]})
    name = "index-nested-50"
    image = make.image(name)
    make(name, archives.oci_members((wrap(image, 50), [tag_of(name)])), error="too deep")
    name = "index-of-two-platforms"
    mine, other = make.image(name), make.image(name + "-other", platform="linux/s390x")
    make(name, archives.oci_members((images.index([other, mine]), [tag_of(name)])),
         images={mine.id: [tag_of(name)]})
    name = "index-of-two-platforms-one-there"  # as `docker save --platform` and skopeo write it
    mine, other = make.image(name), make.image(name + "-other", platform="linux/s390x")
    members = archives.oci_members((images.index([other, mine]), [tag_of(name)]))
    gone = {blob_path(images.sha256(blob)) for blob in [*other.blobs(), other.manifest]}
    make(name, {path: data for path, data in members.items() if path not in gone},
         images={mine.id: [tag_of(name)]})
    name = "index-of-other-platforms"
    others = [make.image(name + one, platform=one) for one in ("linux/s390x", "windows/amd64")]
    make(name, archives.oci_members((images.index(others), [tag_of(name)])), error="s390x",
         reason="NO_MATCHING_PLATFORM", code="NOT_FOUND")
    name = "index-of-1025"
    image = make.image(name)
    tags = [f"attack/{name}:{number}" for number in range(1025)]
    make(name, archives.oci_members((image, tags)), images={image.id: tags}, outers=())
    # Older tools wrote these.
    oci_with(make, "index-schema-1", lambda members, _: members.update(
        {"index.json": members["index.json"].replace(b'"schemaVersion": 2',
                                                     b'"schemaVersion": 1')}))
    oci_with(make, "layout-version-9", lambda members, _: members.update(
        {"oci-layout": b'{"imageLayoutVersion": "9.0.0"}'}))
    oci_with(make, "layout-missing", lambda members, _: {
        path: data for path, data in members.items() if path != "oci-layout"})
    oci_with(make, "index-empty", lambda members, _: members.update(archives.layout([])), error=".")
    oci_with(make, "index-names-a-layer", lambda members, one: members.update(archives.layout(
        [{"mediaType": OCI["manifest"], "digest": one.layers[0].digest,
          "size": len(one.layers[0].blob)}])), error="no JSON document")
    oci_with(make, "index-of-type-of-a-layer", lambda members, one: members.update(archives.layout(
        [descriptor(one, mediaType=OCI["gzip"])])), error="not a container image", **UNSUPPORTED)
    for name, size in (("negative", -1), ("8-eib", 2**63 - 1), ("beyond", 2**64), ("text", "5"),
                       ("float", 1.5), ("0", 0)):
        oci_with(make, f"descriptor-size-{name}", lambda members, one, size=size: members.update(
            archives.layout([descriptor(one, tag_of("x"), size=size)])),
                 **(NO_JSON if name == "beyond" else {"error": "size|bytes"}))

    def changed_manifest(name, change, **fields):
        image = make.image(name)
        manifest = json.loads(image.manifest)
        change(manifest)
        image.manifest = to_json(manifest)
        if "error" not in fields:
            fields["images"] = {image.id: [tag_of(name)]}
        make(name, archives.oci_members((image, [tag_of(name)])), **fields)

    foreign = {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
               "digest": "sha256:" + "1" * 64, "size": 5, "urls": ["http://127.0.0.1:1/evil"]}
    changed_manifest("foreign-layer", lambda one: one["layers"].append(foreign),
                     error="does not distribute", **UNSUPPORTED)
    changed_manifest("foreign-layer-alone", lambda one: one.update(layers=[foreign]),
                     error="does not distribute", **UNSUPPORTED)
    changed_manifest("layer-with-urls", lambda one: one["layers"][0].update(
        urls=["http://127.0.0.1:1/evil"]))
    changed_manifest("layer-called-gzip", lambda one: one["layers"][0].update(
        mediaType=OCI["gzip"]))
    changed_manifest("layer-of-unknown-type", lambda one: one["layers"][0].update(
        mediaType="application/x-evil"), error="unknown kind", **UNSUPPORTED)
    changed_manifest("layer-is-the-config", lambda one: one.update(layers=[one["config"]]),
                     error="unknown kind", **UNSUPPORTED)
    changed_manifest("layer-twice", lambda one: one["layers"].append(one["layers"][0]),
                     error="has 2 layers")
    changed_manifest("layers-none", lambda one: one.update(layers=[]), error="has 0 layers")
    changed_manifest("config-is-a-layer", lambda one: one.update(config=one["layers"][0]),
                     error="not a container image", **UNSUPPORTED)
    changed_manifest("artifact", lambda one: one["config"].update(
        mediaType="application/vnd.oci.empty.v1+json"), error="not a container image",
        **UNSUPPORTED)
    changed_manifest("manifest-and-index", lambda one: one.update(manifests=[]),
                     error="an image and an index at once", **NO_MANIFEST)
    changed_manifest("manifest-schema-1", lambda one: one.update(schemaVersion=1),
                     error="obsolete", **UNSUPPORTED)
    changed_manifest("manifest-layers-object", lambda one: one.update(layers={}),
                     error="no array of layers", **NO_MANIFEST)


# --- Where an archive ends, and what tar can say -------------------------------------------------


def framing(make):
    image = make.image("cut", layers=2)
    members = archives.docker_members((image, [tag_of("cut")]))
    whole = pack(members)
    manifest_at = whole.index(b"manifest.json\0")
    layer_at = whole.index(b"/layer.tar\0") // 512 * 512
    cuts = {"1-byte": 1, "in-a-header": 300, "after-a-header": 512, "in-a-layer-header":
            layer_at + 100, "before-a-layer": layer_at + 512, "in-a-layer": layer_at + 700,
            "before-the-manifest": manifest_at, "after-the-manifest-header": manifest_at + 512,
            "in-the-manifest": manifest_at + 600}
    for where, at in cuts.items():
        make(f"cut-{where}", whole[:at], error=".")
    for outer in archives.OUTERS[1:]:
        blob = squeeze(whole, outer)
        for where, at in (("1-byte", 1), ("in-the-header", 5), ("in-the-middle", len(blob) // 2),
                          ("last-byte", len(blob) - 1), ("trailer", len(blob) - 6)):
            image = make.image(f"cut-{outer}-{where}")
            tag = tag_of(f"cut-{outer}-{where}")
            cut = squeeze(pack(archives.docker_members((image, [tag]))), outer)
            at = at if at < 6 else len(cut) - (len(blob) - at)
            # What is lost after the archive's end is not missed: gzip's sum, the last of zstd's.
            if where == "last-byte" and outer in ("gzip", "zstd") or \
                    (where, outer) == ("trailer", "gzip"):
                make(f"cut-{outer}-{where}", cut[:at], outers=(), images={image.id: [tag]})
            else:
                make(f"cut-{outer}-{where}", cut[:at], outers=(),
                     **(DAMAGED if outer in ("gzip", "zstd") and at > 4 else {"error": "."}))
        image = make.image(f"flip-{outer}")
        flipped = bytearray(squeeze(pack(archives.docker_members((image, [tag_of("flip")]))), outer))
        flipped[len(flipped) // 2] ^= 0x10
        make(f"flip-{outer}", bytes(flipped), outers=(),
             **(DAMAGED if outer in ("gzip", "zstd") else {"error": "."}))
    docker = functools.partial(docker_with, make)
    for name, end in (("missing", b""), ("one-block", bytes(512)), ("cut", bytes(700)),
                      ("then-garbage", END + b"garbage" * 1000), ("then-zeros", bytes(MIB)),
                      ("then-gzip", END + gzip.compress(b"x" * 1000))):
        _, members, result = good(make, f"end-{name}")
        make(f"end-{name}", pack(members, end=end), images=result)
    _, members, result = good(make, "end-then-zeros-forever")
    make("end-then-zeros-forever", pack(members), images=result, outers=(), forever=True)
    make("zeros-forever", b"", error=".", outers=(), forever=True)
    docker("garbage-between", lambda members, _: {
        "garbage": lambda _: b"garbage!" * 64, **members}, error=".")
    for name, size in (("negative", -1), ("8-eib", 2**63 - 1), ("beyond", 2**70),
                       ("exbibyte", 2**60)):
        docker(f"member-of-size-{name}", lambda members, _, size=size: {
            "0": lambda _: tars.header("big", size=size), **members},
            **(NO_SPACE if name == "exbibyte" else {"error": "."}))
        docker(f"manifest-of-size-{name}", lambda members, _, size=size: {
            "manifest.json": lambda key: tars.header(key, size=size)}, error=".")
    docker("pax-size-override", lambda members, _: {
        key: (lambda path, data=data: tars.pax({"size": str(len(data))}) +
              tars.file(path, data, size=0)) if isinstance(data, bytes) else data
        for key, data in members.items()})
    docker("pax-header-of-2-mib", lambda members, _: {
        "0": lambda _: tars.pax({"comment": "x" * 2 * MIB}) + tars.file("x", b"1"), **members},
        error=".")
    docker("pax-header-of-8-eib", lambda members, _: {
        "0": lambda _: tars.header("x", b"x", 2**63 - 1), **members}, error=".")
    docker("pax-many-records", lambda members, _: {
        "0": lambda _: tars.pax([(f"a.{one}", "") for one in range(60_000)]) + tars.file("x"),
        **members})
    docker("pax-global", lambda members, _: {
        "0": lambda _: tars.pax_global({"path": "manifest.json", "size": "5"}), **members})
    docker("pax-on-pax", lambda members, _: {
        "0": lambda _: b"".join(tars.pax({"path": f"e{one}"}) for one in range(5000)), **members},
        error=".")
    docker("xattrs-and-owners", lambda members, _: {
        key: (lambda path, data=data: tars.xattrs({"user.x": "1", "trusted.overlay.opaque": "y"}) +
              tars.file(path, data, uid=2**40, mode=0o7777777)) if isinstance(data, bytes) else data
        for key, data in members.items()})
    for form, sparse in tars.SPARSE_FORMS.items():
        name = f"sparse-{form}"
        image, members, result = good(make, name)
        path = next(key for key in members if key.endswith("layer.tar"))
        tar = members[path]
        make(f"{name}-layer", {**members, path: lambda key, sparse=sparse, tar=tar: sparse(
            key, len(tar), [(0, len(tar))], tar)}, images=result)
        make(f"{name}-of-a-terabyte", {**members, path: lambda key, sparse=sparse: sparse(
            key, 1 << 40, [(0, 512)], b"x" * 512)}, **NO_SPACE)
        make(f"{name}-manifest-of-a-terabyte", {
            **members, "manifest.json": lambda key, sparse=sparse: sparse(
                key, 1 << 40, [(0, 2)], b"[]")}, error=".")
    for name in ("7zip", "ar", "newc", "odc", "mtree", "shar", "warc", "xar", "zip"):
        make(f"format-{name}", functools.partial(layer_attacks.foreign_archive, name), error=".",
             outers=())
    for name, data in (("text", b"hello world\n" * 100), ("script", b"#!/bin/sh\nrm -rf /\n" * 99),
                       ("random", images.payload(200_000, "random", 0)), ("1-byte", b"x"),
                       ("gzip-of-nothing", gzip.compress(b"")), ("gzip-header", b"\x1f\x8b"),
                       ("xz-header", b"\xfd7zXZ\0"), ("zstd-header", b"\x28\xb5\x2f\xfd"),
                       ("rpm", b"\xed\xab\xee\xdb" + bytes(1000)),
                       ("uuencode", b"begin 644 evil\n#86)C\n`\nend\n" + bytes(1000))):
        make(f"format-{name}", data, outers=(),
             **(DAMAGED if name in ("gzip-header", "zstd-header") else {"error": "."}))
    for name, compress in (("lzma", functools.partial(lzma.compress, format=lzma.FORMAT_ALONE)),
                           ("zlib", zlib.compress)):
        _, members, _ = good(make, f"outer-{name}")
        make(f"outer-{name}", compress(pack(members)), error=".", outers=())
    _, members, _ = good(make, "outer-gzip-in-gzip")
    make("outer-gzip-in-gzip", gzip.compress(gzip.compress(pack(members))), error="no tar archive",
         outers=())
    nested = pack(members)
    for _ in range(20):
        nested = gzip.compress(nested)
    make("outer-gzip-20-times", nested, error=".", outers=())


# --- Bombs and masses ----------------------------------------------------------------------------


def zstd_zeros(size):
    """A frame that is so many zeros: blocks of 128 KiB that are 4 bytes each."""
    assert size % (128 * KIB) == 0
    block = (128 * KIB << 3 | 1 << 1)
    blocks = size // (128 * KIB)
    return b"\x28\xb5\x2f\xfd\x00\x58" + \
        (struct.pack("<I", block)[:3] + b"\0") * (blocks - 1) + \
        struct.pack("<I", block | 1)[:3] + b"\0"


def gzip_zeros(size):
    return size // (16 * MIB) * gzip.compress(bytes(16 * MIB), mtime=0)


def xz_zeros(size):
    return size // (64 * MIB) * lzma.compress(bytes(64 * MIB), preset=0)


BOMBS = {"zstd": (zstd_zeros, 3 * GIB), "gzip": (gzip_zeros, 2 * GIB), "xz": (xz_zeros, 2 * GIB)}


def outer_bomb(outer, name, claimed=1 << 40):
    """A member that claims a size, of which so much is there."""
    zeros, size = BOMBS[outer]
    return squeeze(tars.header(name, size=claimed), outer) + zeros(size)


def bombs(make):
    for outer in BOMBS:
        make(f"bomb-{outer}-layer", functools.partial(outer_bomb, outer, "a/layer.tar"), outers=(),
             **NO_SPACE)
        for name in ("manifest.json", "other"):
            make(f"bomb-{outer}-{name}", functools.partial(outer_bomb, outer, name), outers=(),
                 error="nothing of an image")
        zeros, size = BOMBS[outer]
        make(f"bomb-{outer}-zeros", functools.partial(zeros, size), error="does not contain",
             outers=())
    make("bomb-that-fits", functools.partial(outer_bomb, "zstd", "a/layer.tar", 2 * GIB), outers=(),
         error="inflates to more than 200 times")
    name = "bomb-of-a-layer"
    image = make.image(name)

    def inner_bomb():
        zeros, size = BOMBS["zstd"]
        # Counted is what comes, not what the archive says will: the bomb is all in its first bytes.
        blob = squeeze(tars.header("zeros", size=1 << 36), "zstd") + zeros(size) + bytes(20 * MIB)
        bomb = images.image([images.Layer(image.layers[0].tar, blob, "zstd")], schema=images.OCI,
                            config_bytes=image.config)
        return pack(archives.oci_members((bomb, [tag_of("bomb")])))
    make(name, inner_bomb, error="inflates to more than 200 times", reason="INVALID_LAYER",
         outers=())
    _, members, _ = good(make, "zstd-window-of-2-gib")
    make("zstd-window-of-2-gib", layer_attacks.zstd(pack(members), "--ultra", "--long=31"),
         outers=(), **DAMAGED)
    _, members, _ = good(make, "xz-dictionary-of-3-gib")
    make("xz-dictionary-of-3-gib", xz_with_dictionary(pack(members)), error=".", outers=())


def xz_with_dictionary(data):
    """An xz stream that claims to need a dictionary of 3 GiB: the byte that says so is changed,
    with its checksum."""
    blob = bytearray(lzma.compress(data, preset=0))
    at = 12  # block header after the stream header
    size = (blob[at] + 1) * 4
    flags = bytes(blob[at:at + size])
    place = flags.index(b"\x21\x01") + 2
    blob[at + place] = 39
    crc = zlib.crc32(bytes(blob[at:at + size - 4]))
    blob[at + size - 4:at + size] = struct.pack("<I", crc)
    return bytes(blob)


def masses(make):
    def many(name, one, count, **fields):
        """So many of a member, or of those that a function makes, and then a whole archive."""
        _, members, result = good(make, name)
        fields = fields or {"images": result}
        head = (lambda: b"".join(map(one, range(count)))) if callable(one) else lambda: one * count
        make(name, head, pack(members), outers=(), **fields)

    much = {"error": "more than 32 MiB of documents and names"}
    many("mass-of-one-name", tars.file("x"), 50_000)
    many("mass-of-names", lambda one: tars.file(f"d/{one}"), 50_000)
    many("mass-of-directories", lambda one: tars.directory(f"{one}"), 50_000)
    many("mass-of-members", tars.file("x"), 1_000_001, error="more than 1000000 members")
    many("mass-of-json", lambda one: tars.file(f"d/{one}.json", b'{"x": %d}' % one), 100_000,
         **much)
    many("mass-of-links", lambda one: tars.symlink(f"{one}/layer.tar", f"../{one + 1}/layer.tar"),
         100_000, **much)
    many("mass-of-large-json", lambda one: tars.file(f"{one}.json", b'{"x": "%s"}' % (
        b"x" * (4 * MIB - 20))), 12, **much)
    name = "mass-of-images"
    base = make.image(name)
    many_images = [images.image(base.layers, schema=images.OCI, config={"User": str(number)})
                   for number in range(300)]
    make(name, archives.docker_members(*((image, [f"attack/{name}:{number}"])
                                         for number, image in enumerate(many_images))),
         images={image.id: [f"attack/{name}:{number}"]
                 for number, image in enumerate(many_images)}, outers=())
    name = "mass-of-the-same-image"
    image = make.image(name)
    members = archives.docker_members((image, []))
    (line,) = json.loads(members["manifest.json"])
    tags = [f"attack/{name}:{number}" for number in range(1000)]
    members["manifest.json"] = to_json([{**line, "RepoTags": [tag]} for tag in tags])
    make(name, members, images={image.id: tags}, outers=())


def repeated(make):
    """Documents that are large, and named often: to be read once."""
    name = "mass-of-index-lines"
    image = make.image(name)
    manifest = json.loads(image.manifest)
    manifest["annotations"] = {"x": "y" * (4 * MIB - 2000)}
    image.manifest = to_json(manifest)
    members = archives.oci_members((image, [tag_of(name)]))
    lines = [descriptor(image, tag_of(name))] + [descriptor(image)] * 15_000
    make(name, {**members, **archives.layout(lines)}, images={image.id: [tag_of(name)]}, outers=())
    name = "mass-of-parents"
    steps = [{"created_by": "x" * MIB, "created": "2024-01-02T03:04:05Z"},
             {"created_by": "y", "created": "2024-01-02T03:04:05Z"}]
    base = make.image(name)
    parent, child = (images.image(base.layers, schema=images.OCI, config_bytes=to_json({
        **json.loads(base.config), "history": steps[:count]})) for count in (1, 2))
    members = archives.docker_members((parent, [tag_of(name)]), (child, [tag_of(name + "-child")]))
    first, second = json.loads(members["manifest.json"])
    second["Parent"] = parent.id
    lines = [first, second] + [{**second, "RepoTags": None}] * 10_000
    make(name, {**members, "manifest.json": to_json(lines)},
         images={parent.id: [tag_of(name)], child.id: [tag_of(name + "-child")]}, outers=())


    name = "mass-of-histories"
    base = make.image(name)
    chain = [images.image(base.layers, schema=images.OCI, config_bytes=to_json({
        **json.loads(base.config), "history": [{}] * count})) for count in range(40_000, 40_024)]
    members = archives.docker_members(*((one, []) for one in chain))
    lines = json.loads(members["manifest.json"])
    for parent, line in zip(chain, lines[1:]):
        line["Parent"] = parent.id
    make(name, {**members, "manifest.json": to_json(lines)},
         images={one.id: [] for one in chain}, outers=())
    name = "mass-of-tags"
    _, members, _ = good(make, name)
    (line,) = json.loads(members["manifest.json"])
    line["RepoTags"] = [f"attack/tags:{number}" for number in range(95_000)]
    make(name, {**members, "manifest.json": to_json([line])}, error="more than 10000 tags",
         outers=())


def contents(make):
    """Layers that are no layers: the attacks of layer_attacks.py are made on pulls; here that the
    same things read them."""
    for name, tar, reason in (
            ("no-tar", b"no tar at all" * 100, "INVALID_LAYER"),
            ("dotdot", tars.archive(tars.file("../escape", b"evil")), "INVALID_LAYER"),
            ("cut", tars.file("f", b"x" * 5000)[:1000], "INVALID_LAYER"),
            ("link-out", tars.archive(tars.symlink("l", make.canary),
                                      tars.file("l/file", b"evil")), "INVALID_LAYER")):
        for form in ("docker", "oci"):
            image = images.image([images.layer(tar + form.encode() * (name == "no-tar"), "none")],
                                 schema=images.OCI)
            make(f"content-{name}-{form}", archives.FORMS[form]((image, [tag_of("content")])),
                 error="cannot store layer", reason=reason)
    for form in ("docker", "oci"):
        image = images.image([images.layer(b"", "none")], schema=images.OCI,
                             config={"User": form})
        make(f"content-empty-{form}", archives.FORMS[form]((image, [tag_of(f"empty-{form}")])),
             images={image.id: [tag_of(f"empty-{form}")]})
    good_one = make.image("content-second-layer-bad")
    bad = images.layer(tars.archive(tars.file("../escape", b"second")), "none")
    image = images.image([*good_one.layers, bad], schema=images.OCI)
    make("content-second-layer-bad", archives.docker_members((image, [tag_of("bad")])),
         error="leads out of the layer", reason="INVALID_LAYER")
    # One good image, one bad: neither.
    fine = make.image("content-second-image-bad")
    image = images.image([bad], schema=images.OCI)
    make("content-second-image-bad",
         archives.docker_members((fine, [tag_of("fine")]), (image, [tag_of("bad")])),
         error="leads out of the layer", reason="INVALID_LAYER")


def corpus(canary):
    make = Maker(canary)
    for area in (forms, names, links, missing, lies, twice, documents, references, layouts, framing,
                 bombs, masses, repeated, contents):
        area(make)
    return list(make.made.values())
