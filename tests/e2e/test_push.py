"""davit push and davit tag against docker-registry: what is sent, under which digests, and what a
user sees of it. Faults are in test_fault_matrix_push.py."""

import base64
import gzip
import http.client
import json
import re
import shutil
import subprocess
import time

import archives
import images
import pytest
from conftest import Davit
from fault_proxy import FaultProxy
from fault_registry import Fault, sha256
from token_server import TokenServer

MANIFESTS = ", ".join(one["manifest"] for one in images.MEDIA_TYPES.values())


def an_image(*seeds, size=200_000, schema=images.DOCKER):
    return images.image([images.layer([images.file(f"f{seed}", images.payload(size, seed))])
                         for seed in seeds], schema)


def fetch(server, path, accept="*/*"):
    connection = http.client.HTTPConnection(server.host)
    connection.request("GET", path, headers={"Accept": accept})
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, (path, answer.status, body)
    return body, answer.headers


def manifest_at(server, repository, tag="latest"):
    body, headers = fetch(server, f"/v2/{repository}/manifests/{tag}", MANIFESTS)
    assert headers["Docker-Content-Digest"] == sha256(body)
    return body, headers["Content-Type"]


def tars_at(server, repository, manifest):
    """The layers as the registry has them, inflated by others than davit."""
    tars = []
    for layer in json.loads(manifest)["layers"]:
        blob, _ = fetch(server, f"/v2/{repository}/blobs/{layer['digest']}")
        assert (sha256(blob), len(blob)) == (layer["digest"], layer["size"])
        tars.append(subprocess.run(["zstd", "-dc"], input=blob, stdout=subprocess.PIPE,
                                   check=True).stdout
                    if layer["mediaType"].endswith("zstd") else gzip.decompress(blob))
    return tars


def uploads(server, since=0):
    """Of blobs, not counting configurations that davit sends at the end: (method, path)."""
    return [(method, path) for method, path, _ in server.requests()[since:]
            if method in ("PATCH", "PUT") and "/blobs/" in path]


def pushed(result, tag="latest"):
    """What the command line said of a tag: (digest, size, difference or None)."""
    match = re.search(rf"^{tag}: digest: (sha256:[0-9a-f]{{64}}) size: (\d+)\n"
                      r"(?:The manifest differs [^:]*: (.*)\n)?", result.stdout, re.MULTILINE)
    assert match, result
    return match[1], int(match[2]), match[3]


def pull(davit, server, made, repository, tag="latest"):
    name = server.push(repository, made, tag)
    davit("pull", "-q", name)
    return name


def log_in(daemon, server, user, password):
    directory = daemon.home / ".docker"
    directory.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (directory / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": auth}}}))


# --- What the registry has already ---------------------------------------------------------------


@pytest.mark.parametrize("schema", [images.DOCKER, images.OCI])
def test_an_unchanged_image_sends_nothing_and_stays_what_it_was(davit, registry, schema):
    made = an_image(1, 2, schema=schema)
    name = pull(davit, registry, made, f"push-same/{schema}")
    before = len(registry.requests())
    result = davit("push", name)
    assert pushed(result) == (made.digest, len(made.manifest), None)
    assert result.stdout.startswith(f"The push refers to repository [{name.removesuffix(':latest')}"
                                    "]\n")
    assert result.stdout.count("Layer already exists") == 2
    assert uploads(registry, before) == []


def test_another_repository_of_the_registry_takes_the_layers_over(davit, registry):
    made = an_image(3, 4)
    name = pull(davit, registry, made, "push-mount/one")
    davit("tag", name, f"{registry.host}/push-mount/two:v2")
    before = len(registry.requests())
    result = davit("push", f"{registry.host}/push-mount/two:v2")
    assert pushed(result, "v2") == (made.digest, len(made.manifest), None)
    assert result.stdout.count("Mounted from push-mount/one") == 2
    (method, path), = uploads(registry, before)  # the configuration
    assert method == "PUT" and sha256(made.config) in path
    assert manifest_at(registry, "push-mount/two", "v2") == (made.manifest, made.media_type)
    assert davit("push", f"{registry.host}/push-mount/two:v2").stdout.count("already exists") == 2


# --- What it lacks -------------------------------------------------------------------------------


@pytest.fixture
def empty(make_registry):
    return make_registry()


@pytest.fixture
def packer(make_davitd):
    """Has layers' tars, so that it can compress them."""
    return Davit(make_davitd("--storage-driver", "erofs"))


@pytest.mark.parametrize("schema, compression", [(images.DOCKER, None), (images.OCI, None),
                                                 (images.OCI, "zstd"), (images.DOCKER, "zstd")])
def test_an_empty_registry_gets_the_layers_compressed_anew(packer, make_davitd, registry, empty,
                                                           schema, compression):
    davit = packer
    made = an_image(5, 6, size=3_000_000, schema=schema)
    name = pull(davit, registry, made, f"push-empty/{schema}-{compression}".lower())
    target = f"{empty.host}/team/app"
    davit("tag", name, target)
    options = ["--compression", compression] if compression else []
    digest, size, difference = pushed(davit("push", *options, target))
    assert "2 of 2 layers were compressed anew" in difference
    manifest, media_type = manifest_at(empty, "team/app")
    assert (digest, size) == (sha256(manifest), len(manifest))
    family = images.OCI if compression == "zstd" else schema
    assert media_type == images.MEDIA_TYPES[family]["manifest"]
    assert {layer["mediaType"] for layer in json.loads(manifest)["layers"]} == \
        {images.MEDIA_TYPES[family][compression or "gzip"]}
    assert tars_at(empty, "team/app", manifest) == [layer.tar for layer in made.layers]
    assert fetch(empty, f"/v2/team/app/blobs/{made.id}")[0] == made.config
    # Somebody else gets the same image: davit compares each layer with the configuration.
    other = Davit(make_davitd())
    other("pull", "-q", target)
    assert made.id[7:19] in other("images").stdout
    # The same bytes come out each time, and what was sent once is not sent again.
    before = len(empty.requests())
    davit("tag", name, f"{empty.host}/team/second")
    again = davit("push", *options, f"{empty.host}/team/second")
    assert pushed(again)[0] == digest
    assert again.stdout.count("Mounted from team/app") == 2
    assert len(uploads(empty, before)) == 1


def test_layers_that_came_uncompressed_go_so(packer, registry, empty):
    made = images.image([images.layer([images.file("f", b"x" * 100_000)], "none")], images.OCI)
    name = pull(packer, registry, made, "push-plain/app")
    packer("tag", name, f"{empty.host}/team/app")
    assert pushed(packer("push", f"{empty.host}/team/app")) == \
        (made.digest, len(made.manifest), None)
    assert empty.blob_path(made.layers[0].diff_id).read_bytes() == made.layers[0].tar


@pytest.mark.parametrize("driver", ["erofs", "directory"])
def test_kept_blobs_are_sent_as_they_came(make_davitd, registry, empty, driver):
    davit = Davit(make_davitd("--storage-driver", driver, config={"keep-compressed": True}))
    made = an_image(7, 8)
    name = pull(davit, registry, made, f"push-kept/{driver}")
    davit("tag", name, f"{empty.host}/team/app")
    assert pushed(davit("push", f"{empty.host}/team/app")) == \
        (made.digest, len(made.manifest), None)
    assert manifest_at(empty, "team/app") == (made.manifest, made.media_type)


def test_a_kept_blob_that_was_damaged_is_made_again(make_davitd, registry, empty):
    daemon = make_davitd("--storage-driver", "erofs", config={"keep-compressed": True})
    davit = Davit(daemon)
    made = an_image(9)
    name = pull(davit, registry, made, "push-damaged/app")
    kept = daemon.data_root / "layers" / made.layers[0].diff_id[7:] / "layer.blob"
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    kept.write_bytes(data)
    davit("tag", name, f"{empty.host}/team/app")
    assert "compressed anew" in pushed(davit("push", f"{empty.host}/team/app"))[2]
    assert tars_at(empty, "team/app", manifest_at(empty, "team/app")[0]) == [made.layers[0].tar]


def test_a_damaged_layer_is_not_pushed(packer, registry, empty):
    davit = packer
    made = an_image(10)
    name = pull(davit, registry, made, "push-broken/app")
    tar = davit.daemon.data_root / "layers" / made.layers[0].diff_id[7:] / "layer.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    davit("tag", name, f"{empty.host}/team/app")
    failed = davit("push", f"{empty.host}/team/app", check=False)
    assert failed.code == 1
    assert "is damaged" in failed.stderr and "davit system verify --repair" in failed.stderr
    assert not [one for one in empty.requests() if "manifests" in one[1]]


def test_layers_kept_unpacked_are_sent_as_the_blobs_beside_them(make_davitd, make_registry, empty):
    davit = Davit(make_davitd("--storage-driver", "directory"))
    source = make_registry()
    made = an_image(11, 12)
    name = pull(davit, source, made, "team/app")
    davit("tag", name, f"{empty.host}/team/app")
    assert pushed(davit("push", f"{empty.host}/team/app")) == \
        (made.digest, len(made.manifest), None)
    assert [source.asked(layer.digest) for layer in made.layers] == [1, 1]  # by the pull
    assert manifest_at(empty, "team/app") == (made.manifest, made.media_type)
    # Compressed otherwise they come out of those blobs, too.
    third = make_registry()
    davit("tag", name, f"{third.host}/team/app")
    again = davit("push", "--compression", "zstd", f"{third.host}/team/app")
    assert "2 of 2 layers were compressed anew, as asked for" in pushed(again)[2]
    assert [source.asked(layer.digest) for layer in made.layers] == [1, 1]
    assert tars_at(third, "team/app", manifest_at(third, "team/app")[0]) == \
        [layer.tar for layer in made.layers]


@pytest.mark.parametrize("driver", ["erofs", "directory"])
def test_what_was_loaded_is_sent_compressed(make_davitd, empty, scratch, driver):
    davit = Davit(make_davitd("--storage-driver", driver))
    made = an_image(16, 17)
    (scratch / "archive.tar").write_bytes(
        archives.pack(archives.docker_members((made, [f"{empty.host}/team/loaded:latest"]))))
    davit("load", "-q", "-i", scratch / "archive.tar")
    digest, size, difference = pushed(davit("push", f"{empty.host}/team/loaded"))
    assert difference is None  # from a manifest that nobody has seen
    body, media_type = manifest_at(empty, "team/loaded")
    assert (digest, size) == (sha256(body), len(body))
    assert media_type == images.MEDIA_TYPES[images.OCI]["manifest"]
    assert {layer["mediaType"] for layer in json.loads(body)["layers"]} == \
        {images.MEDIA_TYPES[images.OCI]["gzip"]}
    assert tars_at(empty, "team/loaded", body) == [layer.tar for layer in made.layers]


def test_layers_kept_unpacked_come_from_where_they_were_seen(make_davitd, make_registry, empty):
    davit = Davit(make_davitd("--storage-driver", "directory", "--keep-compressed=false"))
    source = make_registry()
    made = an_image(11, 12)
    name = pull(davit, source, made, "team/app")
    davit("tag", name, f"{empty.host}/team/app")
    assert pushed(davit("push", f"{empty.host}/team/app")) == \
        (made.digest, len(made.manifest), None)
    assert [source.asked(layer.digest) for layer in made.layers] == [2, 2]  # by pull and push
    assert manifest_at(empty, "team/app") == (made.manifest, made.media_type)
    # Where that is not possible it says so.
    source.stop()
    third = make_registry()
    davit("tag", name, f"{third.host}/team/app")
    empty.stop()
    failed = davit("push", f"{third.host}/team/app", check=False)
    assert failed.code == 1
    assert "is kept unpacked, and fetching it again failed" in failed.stderr


# --- Several tags, several layers ----------------------------------------------------------------


def test_all_tags(davit, registry, empty):
    one, two = an_image(13, 14), an_image(13, 15)
    for tag, made in (("a", one), ("b", two)):
        davit("tag", pull(davit, registry, made, "push-all/app", tag), f"{empty.host}/team/app:{tag}")
    davit("tag", f"{registry.host}/push-all/app:a", f"{empty.host}/team/another")
    result = davit("push", "-a", f"{empty.host}/team/app")
    assert result.stdout.count("Pushed") == 3  # the shared layer once
    for tag in "ab":
        assert pushed(result, tag)[0] == sha256(manifest_at(empty, "team/app", tag)[0])
    assert not [one for one in empty.requests() if "team/another" in one[1]]
    refused = davit("push", "-a", f"{empty.host}/team/app:a", check=False)
    assert refused.code == 1 and "tag can't be used with --all-tags/-a" in refused.stderr


def test_layers_are_sent_side_by_side_but_not_too_many(make_davitd, registry, empty):
    davit = Davit(make_davitd("--max-concurrent-uploads", "3"))
    made = an_image(*range(20, 26), size=50_000)
    name = pull(davit, registry, made, "push-parallel/app")
    with FaultProxy(empty) as proxy:
        proxy.replace(empty.url, proxy.url)
        proxy.fault("digest=", Fault(hold=True), method="PUT")
        davit("tag", name, f"{proxy.host}/team/app")
        process = davit.start("push", "--progress=json", f"{proxy.host}/team/app", text=True)
        proxy.wait_stalled(3)
        while True:
            states = [layer["state"] for layer in json.loads(process.stdout.readline())["layers"]]
            if states.count("SENDING") == 3:
                break
        assert states.count("WAITING") == 3
        assert proxy.count("PUT", "digest=") == 3
        proxy.clear_faults()
        proxy.release()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


def test_progress_is_exact_from_the_first_byte(davit, registry, empty):
    made = an_image(30, 31, size=4_000_000)
    name = pull(davit, registry, made, "push-progress/app")
    davit("tag", name, f"{empty.host}/team/app")
    lines = [json.loads(line) for line in
             davit("push", "--progress=json", f"{empty.host}/team/app").stdout.splitlines()]
    total = sum(len(layer.tar) for layer in made.layers)
    assert {line["bytes_total"] for line in lines if line["phase"] != "RESOLVING"} == {total}
    percents = [line["percent"] for line in lines]
    assert percents == sorted(percents) and percents[-1] == 100
    assert lines[-1]["bytes_fetched"] == total
    assert [layer["digest"] for layer in lines[-1]["layers"]] == \
        [layer.diff_id for layer in made.layers]
    tag, = lines[-1]["result"]["tags"]
    assert tag["digest"] == sha256(manifest_at(empty, "team/app")[0])


def test_quiet(davit, registry):
    name = pull(davit, registry, an_image(32), "push-quiet/app")
    assert davit("push", "-q", name).stdout == name + "\n"


def test_a_rate_is_kept(davit, registry, empty):
    made = images.image([images.random_layer("rate", 600_000)])
    name = pull(davit, registry, made, "push-rate/app")
    davit("tag", name, f"{empty.host}/team/app")
    started = time.monotonic()
    davit("push", "--limit-rate", "300k", f"{empty.host}/team/app")
    assert 1.7 < time.monotonic() - started < 4


@pytest.mark.parametrize("method", ["HEAD", "PUT"])
def test_a_registry_that_asks_to_wait_gets_that_and_it_is_seen(davit, registry, empty, method):
    made = an_image(33)
    name = pull(davit, registry, made, f"push-busy/{method}".lower())
    with FaultProxy(empty) as proxy:
        proxy.replace(empty.url, proxy.url)
        davit("tag", name, f"{proxy.host}/team/app")
        proxy.fault("/blobs/", Fault(status=429, headers={"Retry-After": "1"}, body=b"busy"),
                    method=method, times=1)
        lines = [json.loads(line) for line in
                 davit("push", "--progress=json", f"{proxy.host}/team/app").stdout.splitlines()]
    waits = [layer for line in lines for layer in line["layers"]
             if layer["state"] == "RATE_LIMITED"]
    assert waits and "429" in waits[0]["error"]
    assert abs(waits[0]["until_unix_ms"] / 1000 - time.time()) < 60
    assert lines[-1]["layers"][0]["error"] is None


# --- Being interrupted ---------------------------------------------------------------------------


def test_what_was_sent_before_a_kill_is_not_sent_again(davitd, davit, registry, empty, wait_until):
    made = an_image(40, 41)
    name = pull(davit, registry, made, "push-kill/app")
    with FaultProxy(empty) as proxy:
        proxy.replace(empty.url, proxy.url)
        target = f"{proxy.host}/team/app"
        davit("tag", name, target)
        proxy.fault("digest=", Fault(), Fault(hold=True), method="PUT")
        process = davit.start("push", "--progress=json", target, text=True)
        while True:
            line = json.loads(process.stdout.readline())
            if "DONE" in [layer["state"] for layer in line["layers"]]:
                break
        davitd.kill()
        process.communicate(timeout=60)
        assert process.returncode == 1
        proxy.clear_faults()
        proxy.release()
        davitd.start()
        before = len(proxy.requests)
        result = davit("push", target)
        assert result.stdout.count("Layer already exists") >= 1, result
        assert len([one for one in proxy.requests[before:]
                    if one.method == "PUT" and "digest=" in one.path]) <= 2


def test_ctrl_c_ends_it(davit, registry, empty):
    name = pull(davit, registry, an_image(42), "push-cancel/app")
    with FaultProxy(empty) as proxy:
        proxy.replace(empty.url, proxy.url)
        davit("tag", name, f"{proxy.host}/team/app")
        proxy.fault("digest=", Fault(hold=True), method="PUT")
        process = davit.start("push", f"{proxy.host}/team/app", text=True)
        proxy.wait_stalled()
        process.send_signal(2)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 130, output + errors
        proxy.clear_faults()
        proxy.release()
        davit("push", "-q", f"{proxy.host}/team/app")


def test_two_pushes_of_one_image_are_one_job(davit, registry, empty):
    name = pull(davit, registry, an_image(43), "push-join/app")
    with FaultProxy(empty) as proxy:
        proxy.replace(empty.url, proxy.url)
        davit("tag", name, f"{proxy.host}/team/app")
        proxy.fault("digest=", Fault(hold=True), method="PUT")
        first = davit.start("push", "--progress=json", f"{proxy.host}/team/app", text=True)
        proxy.wait_stalled()
        second = davit.start("push", "--progress=json", f"{proxy.host}/team/app", text=True)
        assert json.loads(second.stdout.readline())["job"] == \
            json.loads(first.stdout.readline())["job"]
        proxy.clear_faults()
        proxy.release()
        for process in (first, second):
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors


# --- Credentials ---------------------------------------------------------------------------------


def test_passwords(davitd, davit, registry, make_registry):
    locked = make_registry(htpasswd={"user": "s3cret"})
    made = an_image(50)
    target = f"{locked.host}/team/app"
    davit("tag", pull(davit, registry, made, "push-password/app"), target)
    refused = davit("push", target, check=False)
    assert refused.code == 1
    assert "unauthorized: authentication required" in refused.stderr
    assert "davit login" in refused.stderr
    log_in(davitd, locked, "user", "wr0ng")
    assert davit("push", target, check=False).code == 1
    log_in(davitd, locked, "user", "s3cret")
    davit("push", target)
    assert "s3cret" not in davitd.log() and "wr0ng" not in davitd.log()


def test_tls(make_davitd, registry, make_registry, scratch):
    secure = make_registry(tls=True, htpasswd={"user": "s3cret"})
    directory = scratch / "certs" / secure.host
    directory.mkdir(parents=True)
    shutil.copy(secure.cafile, directory / "ca.crt")
    daemon = make_davitd(config={"certs-dir": str(scratch / "certs"), "keep-compressed": True})
    davit = Davit(daemon)
    made = an_image(52, size=6_000_000)
    log_in(daemon, secure, "user", "s3cret")
    davit("tag", pull(davit, registry, made, "push-tls/app"), f"{secure.host}/team/app")
    assert pushed(davit("push", f"{secure.host}/team/app"))[0] == made.digest
    assert secure.blob_path(made.layers[0].digest).read_bytes() == made.layers[0].blob


def test_tokens_for_push_and_for_mounts(davitd, davit, make_registry, tmp_path):
    with TokenServer(tmp_path, users={"writer": ("s3cret", {"pull", "push"}),
                                      "reader": ("s3cret", {"pull"})}) as tokens:
        locked = make_registry(token_server=tokens)
        made = an_image(51)
        name = locked.push("team/app", made)
        second = f"{locked.host}/team/second"
        log_in(davitd, locked, "reader", "s3cret")
        davit("pull", "-q", name)
        davit("tag", name, second)
        denied = davit("push", second, check=False)
        assert denied.code == 1
        assert "denied: requested access to the resource is denied" in denied.stderr
        log_in(davitd, locked, "writer", "s3cret")
        result = davit("push", second)
        assert pushed(result)[0] == made.digest
        assert "Mounted from team/app" in result.stdout
        scopes = [set(grant.scopes) for grant in tokens.grants if grant.user == "writer"]
        assert {"repository:team/second:pull,push"} in scopes
        assert {"repository:team/second:pull,push", "repository:team/app:pull"} in scopes


# --- Other places --------------------------------------------------------------------------------


@pytest.mark.parametrize("capabilities", [["pull", "resolve"], ["pull", "resolve", "push"]],
                         ids=lambda one: one[-1])
def test_a_mirror_is_pushed_to_only_where_it_may_be(make_davitd, registry, make_registry, scratch,
                                                    capabilities):
    main, mirror = make_registry(), make_registry()
    (scratch / main.host).mkdir()
    (scratch / main.host / "hosts.toml").write_text(
        f'[host."{mirror.url}"]\n  capabilities = {json.dumps(capabilities)}\n')
    davit = Davit(make_davitd(config={"hosts-dirs": [str(scratch)], "keep-compressed": True}))
    made = an_image(59)
    davit("tag", pull(davit, registry, made, f"push-host/{len(capabilities)}"),
          f"{main.host}/team/app")
    davit("push", f"{main.host}/team/app")
    chosen, other = (mirror, main) if "push" in capabilities else (main, mirror)
    assert manifest_at(chosen, "team/app")[0] == made.manifest
    assert not [one for one in other.requests() if one[0] != "GET"]


# --- What cannot be pushed, and names ------------------------------------------------------------


def test_names_that_are_not_there(davit, registry):
    name = pull(davit, registry, an_image(60), "push-names/app")
    for wanted, text in (
        (name.replace(":latest", ":v9"), f"tag does not exist: {name.replace(':latest', ':v9')}"),
        ("no/such", "An image does not exist locally with the tag: no/such"),
        (f"a@sha256:{64 * '0'}", "cannot push a digest reference"),
        ("UPPER", "invalid reference format"),
    ):
        failed = davit("push", wanted, check=False)
        assert failed.code == 1 and text in failed.stderr, failed


def test_a_registry_that_is_not_there(davit, registry, empty):
    empty.stop()
    davit("tag", pull(davit, registry, an_image(61), "push-nowhere/app"), f"{empty.host}/team/app")
    failed = davit("push", f"{empty.host}/team/app", check=False)
    assert failed.code == 1
    assert empty.host in failed.stderr and "refused" in failed.stderr


def test_events_tell_of_it(davit, registry):
    name = pull(davit, registry, an_image(62), "push-events/app")
    other = f"{registry.host}/push-events/other:v1"
    davit("tag", name, other)
    davit("push", "-q", other)
    told = davit("events", "--since", "1h", "--until", "0s", "--format",
                 "{{.Action}} {{.Actor.Attributes.name}}").stdout.splitlines()
    assert told[-2:] == [f"tag {other}", f"push {other.removesuffix(':v1')}"]


def test_tags(davit, registry):
    one, two = an_image(63), an_image(64)
    first = pull(davit, registry, one, "push-tags/one")
    second = pull(davit, registry, two, "push-tags/two")
    davit("tag", first, "local/name:v1")
    davit("tag", one.id[7:19], "by/id")
    assert {line.split()[0] for line in davit("images").stdout.splitlines()
            if one.id[7:19] in line} >= {"local/name", "by/id"}
    davit("tag", second, "local/name:v1")  # moves
    assert not [line for line in davit("images").stdout.splitlines()
                if one.id[7:19] in line and "local/name" in line]
    davit("rmi", "by/id")
    for arguments, text in (
        (("no/such", "x"), "No such image: no/such:latest"),
        ((first, "UPPER"), "invalid reference format"),
        ((first, f"x@sha256:{64 * '0'}"), "refusing to create a tag with a digest reference"),
    ):
        failed = davit("tag", *arguments, check=False)
        assert failed.code == 1 and text in failed.stderr, failed
