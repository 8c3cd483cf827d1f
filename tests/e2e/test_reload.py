"""SIGHUP: what changes at once, what is said of it, and that a wrong file changes nothing."""

import json
import signal
import subprocess

import images
import pytest
from conftest import BIN_DIR, Davit
from fault_registry import Fault, FaultRegistry


@pytest.fixture(name="reload")
def fixture_reload(make_davitd):
    return Reload(make_davitd)


class Reload:
    def __init__(self, make_davitd):
        self.make_davitd = make_davitd
        self.daemon = self.davit = None

    def start(self, **config):
        self.daemon = self.make_davitd(config=config)
        self.davit = Davit(self.daemon)

    def __call__(self, text=None, **config):
        """Writes the file anew and reloads; returns the lines of the log that came of it."""
        if text is not None or config:
            (self.daemon.root / "daemon.json").write_text(
                json.dumps(config) if text is None else text)
        before = len(self.daemon.log())
        self.daemon.notify.lines()
        self.daemon.notify.messages.clear()
        self.daemon.process.send_signal(signal.SIGHUP)
        assert self.daemon.notify.wait_for("READY=1")
        return self.daemon.log()[before:].splitlines()

    def info(self):
        return json.loads(self.davit("info", "--format", "json").stdout)


def one(lines, *fragments):
    """The line of the log that has all of these."""
    found = [line for line in lines if all(fragment in line for fragment in fragments)]
    assert len(found) == 1, lines
    return found[0]


def test_nothing_new(reload):
    reload.start()
    lines = reload()
    one(lines, "configuration reloaded", "nothing")
    said = [line for _, line in reload.daemon.notify.messages]
    assert said.index("RELOADING=1") < said.index("READY=1")
    assert any(line.startswith("MONOTONIC_USEC=") for line in said)
    assert said[-1] == "STATUS=Serving"


def test_what_changes_at_once(reload):
    reload.start()
    lines = reload(**{
        "registry-mirrors": ["https://m.example.com"], "insecure-registries": ["r:5000"],
        "mirrors": {"quay.io": ["https://q.example.com/cache"]}, "limit-rate": "1M",
        "max-concurrent-downloads": 7, "debug": True, "hosts-dirs": ["/nowhere"],
        "certs-dir": "/nowhere"})
    line = one(lines, "configuration reloaded")
    for key in ("mirrors", "registry-mirrors", "insecure-registries", "limit-rate", "log-level",
                "max-concurrent-downloads", "hosts-dirs", "certs-dir"):
        assert key in line
    info = reload.info()
    assert info["RegistryMirrors"] == ["https://m.example.com"]
    assert info["InsecureRegistries"] == ["r:5000"]
    assert info["MaxConcurrentDownloads"] == 7
    assert [(mirror["Registry"], mirror["URL"]) for mirror in info["Mirrors"]] == [
        ("quay.io", "https://q.example.com/cache"), ("docker.io", "https://m.example.com")]
    # And back again.
    one(reload("{}"), "configuration reloaded", "log-level")
    info = reload.info()
    assert not info["RegistryMirrors"] and not info["Mirrors"]
    assert info["MaxConcurrentDownloads"] == 3


def test_what_needs_a_restart(reload):
    reload.start()
    lines = reload(**{"keep-compressed": True, "stall-timeout": "1s", "log-level": "error"})
    line = one(lines, "next start")
    assert "keep-compressed" in line and "stall-timeout" in line and "log-level" not in line


@pytest.mark.parametrize("text, wanted", [
    ("{", "line 1"),
    ('{"max-concurrent-downloads": 0}', "max-concurrent-downloads"),
    ('{"registry-mirrors": ["https://m.example.com/path"]}', "https://m.example.com/path"),
    ('{"mirrors": {"quay.io": ["ftp://q"]}}', "ftp://q"),
    ('{"mirrors": {"quay.io/a": ["https://q"]}}', "quay.io/a"),
    ('{"insecure-registries": ["http://r:5000"]}', "http://r:5000"),
    ('{"nonsense": 1, "max-concurrent-downloads": 9}', "nonsense"),
], ids=["cut", "number", "mirror", "scheme", "registry", "insecure", "key"])
def test_a_wrong_file_changes_nothing(reload, text, wanted):
    reload.start(**{"registry-mirrors": ["https://m.example.com"]})
    before = reload.info()
    one(reload(text), "not reloaded", wanted)
    after = reload.info()
    for key in ("RegistryMirrors", "InsecureRegistries", "MaxConcurrentDownloads", "Mirrors"):
        assert before[key] == after[key]
    # The daemon would not start with it, and says the same.
    done = subprocess.run([BIN_DIR / "davitd", "--validate", "--config-file",
                           reload.daemon.root / "daemon.json"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1 and wanted in done.stderr


def test_what_is_on_the_command_line_stays(make_davitd):
    daemon = make_davitd("--registry-mirror", "https://m.example.com")
    (daemon.root / "daemon.json").write_text('{"registry-mirrors": ["https://n.example.com"]}')
    daemon.notify.lines()
    daemon.notify.messages.clear()
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.notify.wait_for("READY=1")
    assert "specified both as a flag and in the configuration file" in daemon.log()
    info = json.loads(Davit(daemon)("info", "--format", "json").stdout)
    assert info["RegistryMirrors"] == ["https://m.example.com"]


def test_many_at_once(reload, wait_until):
    reload.start()
    for number in range(200):
        if number == 199:
            (reload.daemon.root / "daemon.json").write_text('{"max-concurrent-downloads": 5}')
        reload.daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: reload.info()["MaxConcurrentDownloads"] == 5, "the last of them")


def test_one_that_comes_during_another_counts(reload, wait_until, scratch):
    for number in range(300):  # to look at these takes some milliseconds
        (scratch / f"{number}.example.com").mkdir()
        (scratch / f"{number}.example.com" / "hosts.toml").write_text("# nothing\n" * 100)
    reload.start(**{"hosts-dirs": [str(scratch)]})
    path = reload.daemon.root / "daemon.json"
    for number in range(2, 22, 2):
        for wanted in (number, number + 1):
            path.write_text(json.dumps({"hosts-dirs": [str(scratch)],
                                        "max-concurrent-downloads": wanted}))
            reload.daemon.process.send_signal(signal.SIGHUP)
            wait_until(lambda: "RELOADING=1" in reload.daemon.notify.lines(), "the reload")
        wait_until(lambda: reload.info()["MaxConcurrentDownloads"] == wanted, "the second", 20)


def test_files_of_hosts_are_looked_at(reload, wait_until, scratch):
    """Though they are read when they are needed: who wrote them hears of it at once."""
    for host, text in (("good.example.com", ""), ("bad.example.com", "server = ")):
        (scratch / host).mkdir()
        (scratch / host / "hosts.toml").write_text(text)
    reload.start(**{"hosts-dirs": [str(scratch)]})
    wait_until(lambda: "bad.example.com/hosts.toml:1" in reload.daemon.log(), "a complaint")
    assert "good.example.com" not in reload.daemon.log()
    one(reload(), "bad.example.com/hosts.toml:1")
    (scratch / "bad.example.com" / "hosts.toml").write_text("")
    assert not [line for line in reload() if "hosts.toml" in line]


def test_info_tells_how_mirrors_fare(reload):
    with FaultRegistry() as broken, FaultRegistry() as registry:
        check_info_of_mirrors(reload, broken, registry)


def check_info_of_mirrors(reload, broken, registry):
    image = images.image([images.layer([images.file("a", "1")])])
    name = registry.push("team/app", image)
    broken.fault("/v2/", Fault(status=500))
    reload.start(**{"mirrors": {registry.host: [broken.url]}, "retry-backoff": "1ms"})
    assert reload.info()["Mirrors"][0]["Failures"] == 0
    reload.davit("pull", "-q", name)
    mirror = reload.info()["Mirrors"][0]
    assert mirror["Failures"] == 1 and 0 < mirror["BehindMilliseconds"] <= 25000
    assert "500" in mirror["LastError"] and mirror["BytesServed"] == 0
    text = reload.davit("info").stdout
    assert f"{broken.url} ({registry.host}): asked last for" in text and "500" in text
