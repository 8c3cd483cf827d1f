"""Pulling from registries that work, lie, stall and break off."""

import json
import signal
import threading

import images
import pytest
from fault_registry import Fault, FaultRegistry


@pytest.fixture
def liar():
    with FaultRegistry() as registry:
        yield registry


def big_image(*seeds, size=3_000_000):
    """An image with a layer of incompressible bytes for each seed."""
    return images.image([images.layer([images.file(f"data{seed}", images.payload(size, seed, 0))])
                         for seed in seeds])


def snapshots(davit, *arguments):
    result = davit("pull", "--progress=json", *arguments)
    return [json.loads(line) for line in result.stdout.splitlines()]


def nothing_listed(davit):
    return davit("images", "-q").stdout == ""


# --- What is fetched -----------------------------------------------------------------------------


def test_present_layers_are_not_fetched_again(davit, liar):
    base = images.layer([images.file("base", images.payload(100_000, 1))])
    top = images.layer([images.file("top", "top")])
    davit("pull", "-q", liar.push("share/base", images.image([base])))
    pulled = davit("pull", liar.push("share/both", images.image([base, top]))).stdout
    assert f"{base.digest[7:19]}: Already exists" in pulled
    assert f"{top.digest[7:19]}: Pull complete" in pulled
    assert liar.count("GET", base.digest) == 1


def test_concurrent_pulls_fetch_every_shared_layer_once(davit, liar):
    shared = images.layer([images.file("shared", images.payload(2_000_000, 2, 0))])
    made = [images.image([shared, images.layer([images.file("own", str(number))])])
            for number in range(5)]
    names = [liar.push(f"concurrent/app{number}", one) for number, one in enumerate(made)]
    liar.fault(shared.digest, Fault(hold=True))
    running = [davit.start("pull", "-q", name, text=True) for name in names]
    for one in made:  # all five know their layers: their configs have been fetched
        config_digest = images.sha256(one.config)
        liar.wait_for(lambda digest=config_digest: liar.count("GET", digest), "a config")
    liar.wait_stalled()
    liar.release()
    for process in running:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert liar.count("GET", shared.digest) == 1
    assert len(davit("images", "-q").stdout.split()) == 5


def test_a_layer_that_stands_twice_is_fetched_once(davit, liar):
    twice = images.layer([images.file("twice", images.payload(50_000, 3))])
    name = liar.push("twice/app", images.image([twice, twice]))
    assert snapshots(davit, name)[-1]["bytes_total"] == len(twice.blob)
    assert liar.count("GET", twice.digest) == 1


def test_no_more_downloads_at_once_than_configured(make_davitd, liar):
    from conftest import Davit
    davit = Davit(make_davitd("--max-concurrent-downloads", "2"))
    made = big_image(4, 5, 6, 7, size=200_000)
    for one in made.layers:
        liar.fault(one.digest, Fault(hold=True), times=1)
    process = davit.start("pull", "-q", liar.push("many/app", made), text=True)
    asked = lambda: sum(liar.count("GET", one.digest) for one in made.layers)
    liar.wait_stalled(2)
    assert asked() == 2
    liar.release()
    liar.wait_for(lambda: asked() == 4, "the other layers")
    liar.wait_stalled(2)
    liar.release()
    assert process.wait(60) == 0


# --- Progress ------------------------------------------------------------------------------------


def test_totals_are_exact_before_the_first_byte_and_nothing_falls(davit, liar):
    made = big_image(8, 9)
    for one in made.layers:
        liar.fault(one.digest, Fault(drip=(300_000, 0.05)))
    seen = snapshots(davit, liar.push("progress/app", made))
    total = sum(len(one.blob) for one in made.layers)
    listed = [one for one in seen if one["layers"]]
    assert {one["bytes_total"] for one in listed} == {total}
    assert [layer["digest"] for layer in listed[0]["layers"]] == [one.digest for one in made.layers]
    assert any(0 < one["percent"] < 100 for one in seen)
    for name in ("sequence", "percent", "bytes_fetched"):
        values = [one[name] for one in seen]
        assert values == sorted(values), name
    assert seen[-1]["percent"] == 100
    assert seen[-1]["bytes_fetched"] == total
    assert seen[-1]["result"]["digest"] == made.digest


# --- Broken connections --------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [
    Fault(reset_after=1_000_000, drip=(50_000, 0.01)), Fault(short=1_000_000)],
                         ids=["reset", "short"])
def test_a_broken_download_goes_on_where_it_stopped(davit, liar, fault):
    made = big_image(10)
    digest = made.layers[0].digest
    liar.fault(digest, fault, times=1)
    name = liar.push("resume/app", made)
    davit("pull", "-q", name)
    first, second = liar.matching("GET", digest)
    assert "range" not in first.headers
    start = int(second.headers["range"].removeprefix("bytes=").rstrip("-").split("-")[0])
    assert start > 0
    assert first.sent + second.sent <= len(made.layers[0].blob) * 1.02 + 600_000
    assert len(made.layers[0].blob) - start == second.sent


def test_a_registry_that_is_busy_is_asked_again(davit, liar):
    made = big_image(11, size=100_000)
    busy = Fault(status=503, body=b"busy")
    liar.fault("/manifests/", busy, times=2)
    liar.fault(made.layers[0].digest, Fault(status=429, headers={"Retry-After": "0"}), times=2)
    davit("pull", "-q", liar.push("busy/app", made))
    assert liar.count("GET", made.layers[0].digest) == 3


def test_a_range_that_is_ignored_is_skipped_over(davit, liar):
    made = big_image(12)
    digest = made.layers[0].digest
    liar.fault(digest, Fault(reset_after=500_000), times=1)
    liar.fault(digest, Fault(ignore_range=True), times=1)
    davit("pull", "-q", liar.push("ignored-range/app", made))


# --- Lies ----------------------------------------------------------------------------------------

LIES = {
    "wrong bytes": (Fault(wrong_bytes=True), r"digest|compress|inflate"),
    "too long": (Fault(long=100), "size|length|bytes|long"),
    "too short for ever": (Fault(short=100), "short|bytes|closed|ended|broke"),
    "chunked and too long": (Fault(chunked=True, long=100), "size|length|bytes|long"),
    "gone": (Fault(status=404), "not found|unknown"),
    "always busy": (Fault(status=503), "503|busy|unavailable"),
    "denied": (Fault(status=403), "denied|403|forbidden"),
}


@pytest.mark.parametrize("lie", LIES, ids=lambda name: name.replace(" ", "-"))
def test_a_lie_about_a_layer_leaves_nothing_and_the_truth_works(davitd, davit, liar, lie):
    import re
    fault, wanted = LIES[lie]
    made = big_image(13, 14, size=300_000)
    name = liar.push("lies/app", made)
    liar.fault(made.layers[1].digest, fault)
    failed = davit("pull", name, check=False)
    assert failed.code == 1
    assert re.search(wanted, failed.stderr, re.IGNORECASE), failed.stderr
    assert made.layers[1].digest[7:19] in failed.stderr
    assert nothing_listed(davit)
    liar.clear_faults()
    davit("pull", "-q", name)
    assert davitd.process.poll() is None


def test_a_layer_that_is_not_the_one_in_the_config(davit, liar):
    """The blob is what the manifest says, but its content is not what the config says."""
    good = images.layer([images.file("a", "a")])
    other = images.layer([images.file("b", "b")])
    config = images.image([other]).config
    name = liar.push("diff-id/app", images.image([good], config_bytes=config))
    failed = davit("pull", name, check=False)
    assert failed.code == 1
    assert other.diff_id[:19] in failed.stderr
    assert nothing_listed(davit)


def test_a_manifest_that_is_not_the_one_asked_for(davit, liar):
    made = big_image(15, size=1000)
    name = liar.push("manifest/app", made).removesuffix(":latest")
    liar.fault("/manifests/", Fault(wrong_bytes=True))
    failed = davit("pull", f"{name}@{made.digest}", check=False)
    assert failed.code == 1
    assert made.digest in failed.stderr


@pytest.mark.parametrize("document, wanted", [
    (b"{", "JSON"),
    (b"[]", "manifest"),
    (b'{"schemaVersion": 1, "name": "x"}', "schema"),
    (b'{"schemaVersion": 2, "layers": [], "manifests": []}', "manifest"),
    (json.dumps({"schemaVersion": 2, "mediaType": images.MEDIA_TYPES["oci"]["manifest"],
                 "config": {"mediaType": images.MEDIA_TYPES["oci"]["config"], "size": 2,
                            "digest": "sha256:../../../../etc/passwd"},
                 "layers": [{"mediaType": images.MEDIA_TYPES["oci"]["gzip"], "size": 1,
                             "digest": "sha256:" + 64 * "0"}]}).encode(), "digest"),
    (b" " * (5 << 20), "large|limit|bytes"),
], ids=["cut", "array", "schema1", "two-things", "digest-is-a-path", "5MiB"])
def test_manifests_that_are_none(davit, liar, document, wanted):
    import re
    liar.push_manifest("broken/app", "latest", document, images.MEDIA_TYPES["oci"]["manifest"])
    failed = davit("pull", f"{liar.host}/broken/app", check=False)
    assert failed.code == 1
    assert re.search(wanted, failed.stderr), failed.stderr


# --- What is not there ---------------------------------------------------------------------------


def test_missing_tag_and_repository(davit, registry):
    registry.push("missing/app", big_image(16, size=1000))
    for name in (f"{registry.host}/missing/app:nope", f"{registry.host}/no/such:latest"):
        failed = davit("pull", name, check=False)
        assert failed.code == 1
        assert failed.stderr.splitlines()[0].endswith(
            f"manifest for {name} not found: manifest unknown: manifest unknown") or \
            f"manifest for {name} not found" in failed.stderr, failed.stderr


def test_no_registry_there(davit, liar):
    liar.stop()
    failed = davit("pull", f"{liar.host}/a/b", check=False)
    assert failed.code == 1
    assert liar.host in failed.stderr
    assert "refused" in failed.stderr


def test_names_that_are_none(davit):
    for name in ("UPPER", "a//b", "a:b:c", "-x", "a@sha256:123", "a" * 300):
        failed = davit("pull", "--", name, check=False)
        assert failed.code == 1
        assert "invalid reference format" in failed.stderr or "256 characters" in failed.stderr or \
            "255 characters" in failed.stderr, failed.stderr


def test_credentials(davitd, davit, make_registry):
    locked = make_registry(htpasswd={"user": "secret"})
    name = locked.push("locked/app", images.busybox_image())
    refused = davit("pull", name, check=False)
    assert refused.code == 1
    assert "login" in refused.stderr or "credentials" in refused.stderr

    def log_in(password):
        import base64
        directory = davitd.home / ".docker"
        directory.mkdir(exist_ok=True)
        auth = base64.b64encode(f"user:{password}".encode()).decode()
        (directory / "config.json").write_text(json.dumps({"auths": {locked.host: {"auth": auth}}}))

    log_in("wrong-password")
    wrong = davit("pull", name, check=False)
    assert wrong.code == 1
    assert "wrong-password" not in wrong.stderr + davitd.log()
    log_in("secret")
    davit("pull", "-q", name)
    assert "secret" not in davitd.log()


def test_a_certificate_that_nobody_vouches_for(davit, make_registry):
    registry = make_registry(tls=True)
    name = registry.push("tls/app", images.busybox_image())
    # Loopback may be plain HTTP, so a name that is not loopback's address is what TLS protects:
    # here the daemon is told nothing about the certificate's maker.
    failed = davit("pull", name, check=False)
    assert failed.code == 1
    assert "certificate" in failed.stderr
    assert "certs.d" in failed.stderr


# --- Being interrupted ---------------------------------------------------------------------------


def in_flight(liar, made, davit, name):
    liar.fault(made.layers[0].digest, Fault(stall_after=1_000_000))
    process = davit.start("pull", name, text=True)
    liar.wait_stalled()
    return process


def test_ctrl_c_cancels_the_download(davitd, davit, liar, wait_until):
    made = big_image(17)
    name = liar.push("interrupt/app", made)
    process = in_flight(liar, made, davit, name)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    # The registry notices that its reader has gone: the daemon let the connection go.
    wait_until(lambda: not list((davitd.data_root / "tmp").iterdir()), "the layer to be removed")
    assert nothing_listed(davit)
    liar.clear_faults()
    liar.release()
    davit("pull", "-q", name)


def test_one_of_two_waiters_leaving_cancels_nothing(davit, liar):
    made = big_image(18)
    name = liar.push("two-waiters/app", made)
    liar.fault(made.layers[0].digest, Fault(hold=True), times=1)
    first = davit.start("pull", "-q", name, text=True)
    liar.wait_stalled()
    second = davit.start("pull", "--progress=json", name, text=True)
    while not json.loads(second.stdout.readline())["layers"]:
        pass  # it shares the transfer as soon as it lists its layers
    first.kill()
    first.wait()
    liar.release()
    output, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert liar.count("GET", made.layers[0].digest) == 1


def test_kill_9_in_mid_pull_leaves_only_litter_that_the_next_start_removes(davitd, davit, liar,
                                                                           wait_until):
    made = big_image(19)
    name = liar.push("crash/app", made)
    process = in_flight(liar, made, davit, name)
    davitd.kill()
    process.communicate(timeout=60)
    assert process.returncode == 1
    liar.clear_faults()
    liar.release()
    davitd.start()
    wait_until(lambda: not list((davitd.data_root / "tmp").iterdir()), "the litter to be removed")
    assert nothing_listed(davit)
    davit("pull", "-q", name)


def test_sigterm_in_mid_pull_ends_it_with_a_word(davitd, davit, liar):
    made = big_image(20)
    process = in_flight(liar, made, davit, liar.push("sigterm/app", made))
    davitd.stop()  # asserts that it ends within 10 s
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.strip()
    assert "Traceback" not in errors


# --- Many at once --------------------------------------------------------------------------------


def test_many_pulls_and_removals_at_once(davitd, davit, liar):
    made = [big_image(30 + number, size=200_000) for number in range(4)]
    names = [liar.push(f"stress/app{number}", one) for number, one in enumerate(made)]
    failures = []

    def work(name):
        for _ in range(5):
            for command in (("pull", "-q", name), ("rmi", name)):
                result = davit(*command, check=False)
                if result.code:
                    failures.append(str(result))

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert nothing_listed(davit)
    assert davitd.process.poll() is None
