"""The images on which davit and Docker are compared (test_docker_parity.py).

Their bytes are the same everywhere, so IDs, digests, sizes and times are known beforehand; only
`runnable` has the machine's busybox, and recent_images() are as old as they say, counted from now.
archive() writes what `docker save`
of 20.10 writes, with the parents that only such an archive can tell.
"""

import datetime
import io
import json
import tarfile
from dataclasses import dataclass, field

import images


@dataclass
class Member:
    """One image of an archive: what it is called, and which one of the archive is its parent."""
    image: images.Image
    tags: list = field(default_factory=list)
    parent: images.Image = None


def archive(members):
    """A docker-archive: manifest.json, and each configuration and layer once."""
    files = {}
    manifest = []
    for one in members:
        config = one.image.id.split(":")[1] + ".json"
        files[config] = one.image.config
        line = {"Config": config, "RepoTags": one.tags or None, "Layers": []}
        for layer in one.image.layers:
            name = layer.diff_id.split(":")[1] + "/layer.tar"
            files[name] = layer.tar
            line["Layers"].append(name)
        if one.parent:
            line["Parent"] = one.parent.id
        manifest.append(line)
    files["manifest.json"] = json.dumps(manifest).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make(layers, created, config=None, history=None, author=None, comment=None, platform=None,
         **more):
    """An image with the configuration that Docker's builder writes. history: a line per layer, or
    (line, True) where it has no layer, or with the time of its own (line, empty, created)."""
    lines = []
    for line in history or [f"/bin/sh -c #(nop) ADD file:{number} in / "
                            for number, _ in enumerate(layers)]:
        text, empty, *own = line if isinstance(line, tuple) else (line, False)
        lines.append({"created": own[0] if own else created, "created_by": text,
                      **({"empty_layer": True} if empty else {})})
    if comment:
        lines[-1]["comment"] = comment
    whole = {
        **images.parse_platform(platform or images.native_platform()),
        **({"author": author} if author else {}),
        **({"comment": comment} if comment else {}),
        **({"created": created} if created else {}),
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                   "Cmd": ["sh"], **(config or {})},
        "history": [{key: value for key, value in line.items() if value is not None}
                    for line in lines],
        "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
        **more,
    }
    return images.image(layers, config_bytes=json.dumps(whole).encode())


def _layer(name, size=1000):
    return images.layer([images.file(f"srv/{name}", images.payload(size, name))])


class Images:
    """All of them, by name. Archives of them: `members`, which all have names, `untagged`, and
    `chain`, of which only some have; `pushed` is what the registry has."""

    def __init__(self):
        base = images.layer([images.directory("bin"), images.symlink("bin/sh", "busybox"),
                             images.file("bin/busybox", images.payload(1_982_879, "base"), 0o755)])
        self.busybox = make([base], "2023-05-11T22:01:33.521738914Z",
                            history=["/bin/sh -c #(nop) ADD file:7e9002edaafd4e4579b65c8f0aaabde1"
                                     "aeb7fd3f8d95579f7fd3443cef785fd1 in / ",
                                     ('/bin/sh -c #(nop)  CMD ["sh"]', True)])
        self.glibc = make([_layer("glibc", 4_261_502)], "2022-12-29T20:23:04Z")
        self.musl = make([_layer("musl", 1_412_001)], "2021-12-30T20:23:05.1Z")
        self.odd = make(
            [base, _layer("odd", 123_456)], "2019-02-28T23:59:59.999999999Z",
            author="Zoë <zoe@example.com>", comment="made by hand",
            config={
                "Entrypoint": ["/docker-entrypoint.sh", "--flag", "a b"],
                "Cmd": ["nginx", "-g", "daemon off; <&>"],
                "Env": ["PATH=/usr/bin", "EMPTY=", "QUOTE=\"'\\", "名=値"],
                "ExposedPorts": {"80/tcp": {}, "8787/tcp": {}, "53/udp": {}},
                "Volumes": {"/var/lib/data": {}, "/srv/a b": {}},
                "WorkingDir": "/srv", "User": "1000:50", "StopSignal": "SIGQUIT",
                "Labels": {"maintainer": "john", "com.example.version": "1.0",
                           "description": "日本語のラベル <b>", "empty": ""},
                "Healthcheck": {"Test": ["CMD-SHELL", "curl -f http://localhost/ || exit 1"],
                                "Interval": 300000000000, "Timeout": 3000000000, "Retries": 3},
                "OnBuild": ["RUN true", "COPY . /srv"], "Shell": ["/bin/sh", "-ec"],
            },
            history=["/bin/sh -c #(nop) ADD file:0 in / ",
                     ("/bin/sh -c #(nop)  ENV EMPTY=", True),
                     "/bin/sh -c apt-get update     && apt-get install -y --no-install-recommends "
                     "nginx     && rm -rf /var/lib/apt/lists/*",
                     ('/bin/sh -c #(nop)  CMD ["nginx" "-g" "daemon off; <&>"]', True)])
        upper = [_layer(f"layer{number}", number * 1000) for number in range(1, 40)]
        self.forty = make([base] + upper,
                          "2020-06-15T12:00:00Z",
                          config={"Labels": {"com.example.version": "0.1", "maintainer": "jane"}})
        self.old = make([_layer("old", 2_000_000)], "2013-06-13T14:03:50.821769-07:00",
                        config={"Labels": {"is-official": "true"}})
        self.undated = make([_layer("undated")], None)
        self.arm = make([_layer("arm")], "2018-01-02T03:04:05Z", platform="linux/arm64/v8")
        self.tagged = [make([base, _layer(f"app{number}", 30_000 * number)],
                            f"2024-0{number}-01T00:00:00Z",
                            config={"Labels": {"com.example.version": f"1.{number}"}})
                       for number in range(1, 5)]
        self.dangling = [make([base, _layer(f"dangling{number}", 5000)],
                              f"2023-0{number}-09T10:11:12Z", config={"Labels": labels})
                         for number, labels in ((1, None), (2, {"deprecated": ""}),
                                                (3, {"maintainer": "john"}))]
        self._make_chain(base)
        self.runnable = make([images.layer(images.busybox_entries())], "2024-08-01T00:00:00Z")
        self.members = [
            Member(self.busybox, ["busybox:1.36", "busybox:latest", "busybox:uclibc"]),
            Member(self.glibc, ["busybox:glibc"]),
            Member(self.musl, ["busybox:musl"]),
            Member(self.odd, ["nginx:1.25", "example.com:5000/team/nginx:latest"]),
            Member(self.forty, ["forty:latest"]),
            Member(self.old, ["ubuntu:lucid"]),
            Member(self.arm, ["arm64v8/tool:v8"]),
        ]
        self.untagged = [Member(one) for one in self.dangling]
        self.pushed = {"team/app": dict(zip(("1.1", "1.2", "1.3", "latest"), self.tagged)),
                       "team/tool": {"latest": self.forty}}

    def _make_chain(self, base):
        """What a build leaves: each step's image is the parent of the next, the last has a name."""
        steps = [("/bin/sh -c #(nop) ADD file:7 in / ", base),
                 ("/bin/sh -c #(nop)  ENV A=1", None),
                 ("/bin/sh -c echo hello > /srv/hello", _layer("hello", 6)),
                 ("/bin/sh -c #(nop)  LABEL step=4", None)]
        layers, history, made = [], [], []
        for number, (text, layer) in enumerate(steps):
            created = f"2024-10-01T10:00:0{number}Z"
            history.append((text, layer is None, created))
            layers += [layer] if layer else []
            made.append(make(list(layers), created, history=list(history),
                             config={"Labels": {"step": str(number + 1)}}))
        # Made from the third step as well.
        side = make([*layers, _layer("side")], "2024-10-01T10:00:08Z",
                    history=[*history[:3], "RUN side"])
        self.chain = [Member(made[0], ["chain-base:latest"]), Member(made[1], [], made[0]),
                      Member(made[2], [], made[1]), Member(made[3], ["chain:latest"], made[2]),
                      Member(side, [], made[2])]

    def known(self):
        """Every hash that the content defines."""
        members = self.members + self.untagged + self.chain
        return hashes([member.image for member in members] + self.tagged +
                      [self.undated, self.runnable])


def hashes(all_images):
    """Every hash that they define: of images, manifests, layers, and of layers with all below."""
    found = set()
    for one in all_images:
        chain = None
        found |= {one.id, one.digest}
        for layer in one.layers:
            chain = images.sha256(f"{chain} {layer.diff_id}".encode()) if chain else layer.diff_id
            found |= {layer.diff_id, chain}
    return {name.split(":")[1] for name in found}


def recent_images(now):
    """Images that were made a while before `now`, a datetime in UTC."""
    ages = {"minutes": {"minutes": 3}, "hour": {"minutes": 61}, "hours": {"hours": 5},
            "day": {"hours": 40}, "days": {"days": 5}, "weeks": {"days": 20},
            "months": {"days": 100}, "years": {"days": 1000}, "future": {"days": -400}}
    members = []
    for number, (name, age) in enumerate(ages.items()):
        created = (now - datetime.timedelta(**age)).strftime("%Y-%m-%dT%H:%M:%SZ")
        members.append(Member(make([_layer(f"age{number}")], created), [f"age:{name}"]))
    return members
