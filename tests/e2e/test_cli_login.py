"""`davit login` and `davit logout`: what registries say, where credentials are kept, what is asked
and shown."""

import base64
import json
import os
import re
import signal
import stat
import subprocess
import threading

import images
import pytest

from conftest import BIN_DIR, Davit, Terminal, wait_until
from fault_registry import Fault, FaultRegistry
from token_server import TokenServer

SECRET = "correct horse:battery"
WARNING = ("\nWARNING! Your credentials are stored unencrypted in '{}'.\n"
           "Configure a credential helper to remove this warning. See\n"
           "https://docs.docker.com/go/credential-store/\n\n")
INSECURE = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n"
UNAUTHORIZED = ("Error response from daemon: login attempt to {}/v2/ failed with status: "
                "401 Unauthorized\n")


@pytest.fixture
def guarded(make_registry):
    return make_registry(htpasswd={"user": SECRET})


@pytest.fixture
def config_path(davitd):
    return davitd.home / ".docker" / "config.json"


def login(davit, registry, *arguments, user="user", password=SECRET, **options):
    return davit("login", "-u", user, "--password-stdin", *arguments, registry.host,
                 input=password + "\n", **options)


def stored(path):
    return json.loads(path.read_text())


def encoded(user, password):
    return base64.b64encode(f"{user}:{password}".encode()).decode()


# --- With a real registry ------------------------------------------------------------------------


def test_login_pull_logout(davit, davitd, guarded, config_path):
    name = guarded.push("team/app", images.busybox_image())
    assert davit("pull", name, check=False).code == 1
    result = login(davit, guarded)
    assert result.stdout == "Login Succeeded\n"
    assert result.stderr == WARNING.format(config_path)
    assert stored(config_path) == {"auths": {guarded.host: {"auth": encoded("user", SECRET)}}}
    # As Docker writes it, for Docker's own tools.
    assert config_path.read_text().startswith('{\n\t"auths": {\n\t\t"')
    assert stat.S_IMODE(config_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(config_path.parent.stat().st_mode) == 0o700
    davit("pull", "-q", name)

    # Nothing new is stored, so nothing is warned of.
    assert login(davit, guarded).stderr == ""
    again = davit("login", guarded.host)
    assert again.stderr.startswith("Authenticating with existing credentials... [Username: user]\n")
    assert again.stdout == "Login Succeeded\n"

    result = davit("logout", guarded.host)
    assert (result.stdout, result.stderr) == (
        f"Removing login credentials for {guarded.host}\n", "")
    assert stored(config_path) == {"auths": {}}
    assert davit("logout", guarded.host).code == 0
    assert SECRET not in davitd.log()


def test_wrong_password(davit, davitd, guarded, config_path):
    result = login(davit, guarded, password="a wrong one", check=False)
    assert result.code == 1
    assert result.stderr.startswith(UNAUTHORIZED.format(guarded.url))
    assert "Hint: check the user name and the password\n" in result.stderr
    assert not config_path.exists()
    assert "a wrong one" not in davitd.log() + result.stderr


def test_password_on_the_command_line(davit, guarded, config_path):
    result = davit("login", "-u", "user", "-p", SECRET, guarded.host)
    assert result.stderr == INSECURE + WARNING.format(config_path)


@pytest.mark.parametrize("arguments, message", [
    (["--password-stdin"], "the --password-stdin option requires --username to be set\n"),
    (["-u", "user", "-p", "x", "--password-stdin"],
     "conflicting options: cannot specify both --password and --password-stdin\n"),
    ([], "Error: Cannot perform an interactive login from a non TTY device\n"),
    (["-u", "user"], "Error: Cannot perform an interactive login from a non TTY device\n"),
    (["-u", "user", "--password-stdin"],
     "Error: Cannot perform an interactive login from a non TTY device\n"),
])
def test_what_does_not_fit_together(davit, arguments, message):
    result = davit("login", *arguments, "localhost:1", check=False)
    assert result.code == 1
    assert result.stderr.startswith(message)


@pytest.mark.parametrize("server, message", [
    ("localhost:1", 'Error response from daemon: Get "https://localhost:1/v2/": cannot connect'),
    ("a b", '"a b" is no registry'), ("http://", '"http://" is no registry')])
def test_no_registry(davit, server, message):
    result = davit("login", "-u", "user", "--password-stdin", server, input="x", check=False)
    assert result.code == 1
    assert result.stderr.startswith(message)


def test_a_registry_that_asks_nothing(davit, registry, config_path):
    assert login(davit, registry).stdout == "Login Succeeded\n"
    assert registry.host in stored(config_path)["auths"]


def test_with_tls_and_a_certificate_of_its_own(make_davitd, make_registry, scratch):
    registry = make_registry(htpasswd={"user": SECRET}, tls=True)
    certs = scratch / "certs"
    (certs / registry.host).mkdir(parents=True)
    davitd = make_davitd(config={"certs-dir": str(certs)})
    davit = Davit(davitd)
    result = login(davit, registry, check=False)
    assert result.code == 1
    assert f'Get "https://{registry.host}/v2/"' in result.stderr
    assert "ca.crt" in result.stderr
    (certs / registry.host / "ca.crt").write_bytes(open(registry.cafile, "rb").read())
    assert login(davit, registry).stdout == "Login Succeeded\n"


def test_a_registry_as_hosts_toml_describes_it(make_davitd, make_registry, scratch):
    registry = make_registry(htpasswd={"user": SECRET}, tls=True)
    directory = scratch / "hosts" / registry.host
    directory.mkdir(parents=True)
    (directory / "hosts.toml").write_text(
        f'server = "{registry.url}"\nca = "{registry.cafile}"\n'
        '[host."https://mirror.invalid"]\ncapabilities = ["pull", "resolve"]\n')
    davit = Davit(make_davitd(config={"hosts-dirs": [str(scratch / "hosts")]}))
    assert login(davit, registry).stdout == "Login Succeeded\n"


# --- Token servers -------------------------------------------------------------------------------


@pytest.fixture
def tokens(scratch):
    server = TokenServer(scratch, users={"reader": (SECRET, {"pull"})})
    yield server
    server.stop()


def test_an_identity_token_takes_the_passwords_place(davit, davitd, make_registry, tokens,
                                                     config_path):
    registry = make_registry(token_server=tokens)
    name = registry.push("team/app", images.busybox_image())
    result = login(davit, registry, user="reader")
    # No password is stored, so nothing is warned of.
    assert (result.stdout, result.stderr) == ("Login Succeeded\n", "")
    asked = [one.path for one in tokens.requests if one.authorization]
    assert "offline_token=true" in asked[-1] and "scope=" not in asked[-1]
    entry = stored(config_path)["auths"][registry.host]
    assert entry["identitytoken"] in tokens.refresh_tokens
    assert entry["auth"] == encoded("reader", "")
    assert SECRET not in config_path.read_text()
    assert davit("login", registry.host).stdout == "Login Succeeded\n"
    renewed = stored(config_path)["auths"][registry.host]
    assert renewed["auth"] == entry["auth"]
    assert renewed["identitytoken"] not in (None, entry["identitytoken"])
    davit("pull", "-q", name)
    assert SECRET not in davitd.log() and entry["identitytoken"] not in davitd.log()


def test_a_token_server_that_refuses(davit, make_registry, tokens, config_path):
    registry = make_registry(token_server=tokens)
    result = login(davit, registry, user="reader", password="wrong", check=False)
    assert result.code == 1
    assert result.stderr.startswith(
        f'Error response from daemon: Get "{registry.url}/v2/": unauthorized: incorrect username '
        "or password\n")
    assert not config_path.exists()


def test_credentials_stay_where_they_are_meant_for(davit):
    """A registry that redirects its /v2/ elsewhere gets no password sent there."""
    with FaultRegistry() as elsewhere, FaultRegistry() as registry:
        elsewhere.require_basic("user", SECRET)
        registry.fault(r"/v2/$", Fault(redirect=elsewhere.url + "{path}"))
        result = login(davit, registry, check=False)
        assert result.code == 1
        assert {one.authorization for one in elsewhere.requests + registry.requests} == {None}


# --- The file ------------------------------------------------------------------------------------


def test_the_rest_of_the_file_stays(davit, guarded, config_path):
    config_path.parent.mkdir()
    before = {"HttpHeaders": {"X": "y"}, "psFormat": "table {{.ID}}", "unknown": [1, 2.5, None],
              "auths": {"other.example.com": {"auth": encoded("a", "b"), "extra": 1},
                        f"https://{guarded.host}/v1/": {"auth": encoded("old", "spelling")}}}
    config_path.write_text(json.dumps(before))
    config_path.chmod(0o644)
    login(davit, guarded)
    after = stored(config_path)
    assert list(after) == list(before)
    assert after["auths"] == {"other.example.com": before["auths"]["other.example.com"],
                              guarded.host: {"auth": encoded("user", SECRET)}}
    assert {**after, "auths": 0} == {**before, "auths": 0}
    assert stat.S_IMODE(config_path.stat().st_mode) == 0o600
    assert os.listdir(config_path.parent) == ["config.json"]


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_is_followed(davit, guarded, config_path, scratch, dangling):
    config_path.parent.mkdir()
    target = scratch / "real.json"
    if not dangling:
        target.write_text("{}")
    config_path.symlink_to(target)
    login(davit, guarded)
    assert config_path.is_symlink()
    assert guarded.host in stored(target)["auths"]


def test_a_broken_file_is_left_alone(davit, guarded, config_path):
    config_path.parent.mkdir()
    config_path.write_text('{"auths": {"x": {"auth": "c2VjcmV0"}')
    result = login(davit, guarded, check=False)
    assert result.code == 1
    assert "Error loading config file" in result.stderr and "c2VjcmV0" not in result.stderr
    assert config_path.read_text() == '{"auths": {"x": {"auth": "c2VjcmV0"}'


def test_logins_at_once_lose_nothing(davit, config_path):
    """Each changes the file that all share; between them, logouts of what was never there."""
    with FaultRegistry(address="0.0.0.0") as registry:
        names = [f"127.0.0.{i}:{registry.port}" for i in range(1, 21)]
        processes = []
        for i, name in enumerate(names):
            process = davit.start("login", "-u", "user", "--password-stdin", name,
                                  stdin=subprocess.PIPE)
            process.stdin.write(b"x\n")
            process.stdin.close()
            processes += [process, davit.start("logout", f"nothing{i}.example.com")]
        assert [process.wait(60) for process in processes] == [0] * len(processes)
    assert set(stored(config_path)["auths"]) == set(names)
    assert os.listdir(config_path.parent) == ["config.json"]


def test_docker_config_names_the_directory(davit, guarded, scratch):
    directory = scratch / "elsewhere"
    login(davit, guarded, environment={"DOCKER_CONFIG": str(directory)})
    assert guarded.host in stored(directory / "config.json")["auths"]


# --- Helpers -------------------------------------------------------------------------------------

# Keeps what it is told in files, and writes down how it was called.
HELPER = """#!/bin/sh
tr '\\0' ' ' < /proc/$$/cmdline >> {log}
echo >> {log}
case $1 in
store) cat > {store} ;;
get) [ -e {store} ] && cat {store} || {{ echo 'credentials not found in native keychain'; exit 1; }} ;;
erase) cat > {store}.erased; rm -f {store} ;;
*) exit 3 ;;
esac
"""


@pytest.fixture
def helper(davitd, scratch):
    """A credential store "test"; .environment finds it."""
    class Helper:
        store = scratch / "store"
        log = scratch / "helper-log"
        erased = scratch / "store.erased"
        program = scratch / "docker-credential-test"
        environment = {"PATH": f"{scratch}:{os.environ['PATH']}"}
    Helper.program.write_text(HELPER.format(log=Helper.log, store=Helper.store))
    Helper.program.chmod(0o755)
    (davitd.home / ".docker").mkdir()
    return Helper


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_a_helper_keeps_the_credentials(davit, davitd, guarded, config_path, helper, key):
    value = "test" if key == "credsStore" else {guarded.host: "test"}
    config_path.write_text(json.dumps({key: value}))
    result = login(davit, guarded, environment=helper.environment)
    assert (result.stdout, result.stderr) == ("Login Succeeded\n", "")
    assert json.loads(helper.store.read_text()) == {
        "ServerURL": guarded.host, "Username": "user", "Secret": SECRET}
    # As with Docker, the file tells that there is a login, and no more.
    assert stored(config_path) == {key: value, "auths": {guarded.host: {}}}
    assert SECRET not in helper.log.read_text()
    assert "Login Succeeded" in davit("login", guarded.host, environment=helper.environment).stdout
    davit("logout", guarded.host, environment=helper.environment)
    assert helper.erased.read_text() == guarded.host
    assert stored(config_path) == {key: value, "auths": {}}
    assert SECRET not in davitd.log()


def test_an_identity_token_in_a_helper(davit, make_registry, tokens, config_path, helper):
    registry = make_registry(token_server=tokens)
    config_path.write_text(json.dumps({"credsStore": "test"}))
    login(davit, registry, user="reader", environment=helper.environment)
    kept = json.loads(helper.store.read_text())
    assert kept["Username"] == "<token>" and kept["Secret"] in tokens.refresh_tokens
    again = davit("login", registry.host, environment=helper.environment)
    assert again.stdout == "Login Succeeded\n"
    # The server gives a new one for the old one; that is kept, too.
    renewed = json.loads(helper.store.read_text())
    assert renewed["Secret"] in tokens.refresh_tokens and renewed["Secret"] != kept["Secret"]


def test_a_helper_that_cannot_store(davit, guarded, config_path, helper):
    config_path.write_text(json.dumps({"credsStore": "test"}))
    helper.program.write_text("#!/bin/sh\ncat > /dev/null\necho the keyring is locked\nexit 1\n")
    result = login(davit, guarded, environment=helper.environment, check=False)
    assert result.code == 1
    assert result.stderr.startswith(
        "Error saving credentials: the credential helper docker-credential-test does not work: the "
        "keyring is locked\n")
    assert SECRET not in result.stderr
    assert stored(config_path) == {"credsStore": "test"}


def test_a_helper_that_cannot_erase(davit, guarded, config_path, helper):
    config_path.write_text(json.dumps({"credsStore": "test", "auths": {guarded.host: {}}}))
    helper.program.write_text("#!/bin/sh\ncat > /dev/null\necho the keyring is locked\nexit 1\n")
    result = davit("logout", guarded.host, environment=helper.environment)
    assert result.stderr.startswith(
        f"WARNING: could not erase credentials:\n{guarded.host}: the credential helper")
    assert stored(config_path)["auths"] == {}


# --- On a terminal -------------------------------------------------------------------------------


def test_prompts(davit, guarded, config_path):
    terminal = davit.pty("login", guarded.host)
    terminal.wait_for("Username: $")
    terminal.send("user\n")
    terminal.wait_for("Password: $")
    terminal.send(SECRET + "\n")
    assert terminal.wait() == 0
    assert SECRET not in terminal.output
    shown = terminal.output.replace("\r\n", "\n")
    assert shown == ("Username: user\nPassword: \n" + WARNING.format(config_path) +
                     "Login Succeeded\n")


def test_stored_credentials_that_are_refused_are_asked_for_again(davit, guarded, config_path):
    config_path.parent.mkdir()
    config_path.write_text(json.dumps({"auths": {guarded.host: {"auth": encoded("user", "old")}}}))
    terminal = davit.pty("login", guarded.host)
    terminal.wait_for(r"Username \(user\): $")
    assert "Login did not succeed, error: Error response from daemon: " in terminal.output
    terminal.send("\n")
    terminal.wait_for("Password: $")
    terminal.send(SECRET + "\n")
    assert terminal.wait() == 0
    assert stored(config_path)["auths"][guarded.host] == {"auth": encoded("user", SECRET)}


@pytest.mark.parametrize("typed, message", [
    ("\n", "Error: Non-null Username Required"), ("\4", "Error: Non-null Username Required")])
def test_no_user(davit, guarded, typed, message):
    terminal = davit.pty("login", guarded.host)
    terminal.wait_for("Username: $")
    terminal.send(typed)
    assert terminal.wait() == 1
    assert message in terminal.output


def test_no_password(davit, guarded):
    terminal = davit.pty("login", "-u", "user", guarded.host)
    terminal.wait_for("Password: $")
    terminal.send("\n")
    assert terminal.wait() == 1
    assert "Error: Password Required" in terminal.output


def test_interrupted_at_the_password(davit, guarded, config_path, tmp_path):
    """The terminal echoes again afterwards: a shell that goes on there is usable."""
    script = tmp_path / "script"
    script.write_text(f"trap : INT\n{BIN_DIR}/davit login -u user {guarded.host}\n"
                      "echo exit $?\nstty -a | tr ' ' '\\n' | grep '^-*echo$'\n")
    terminal = Terminal(["sh", script], davit.environment({"TERM": "xterm"}))
    terminal.wait_for("Password: $")
    terminal.send("\3")
    terminal.wait_for("exit 130")
    terminal.wait_for("\n *echo")
    terminal.wait()
    assert "-echo" not in terminal.output
    assert not config_path.exists()


# --- Docker Hub ----------------------------------------------------------------------------------


def test_docker_hub(make_davitd, make_registry, scratch):
    """Through a proxy that leads wherever one wants to go to a registry of ours."""
    registry = make_registry(htpasswd={"user": SECRET}, tls=True)
    with FaultRegistry() as proxy:
        proxy.tunnel_to = ("127.0.0.1", registry.port)
        davitd = make_davitd("--insecure-registry", "registry-1.docker.io",
                             environment={"HTTPS_PROXY": proxy.url})
        davit = Davit(davitd)
        config_path = davitd.home / ".docker/config.json"
        for names in ([], ["docker.io"], ["index.docker.io"], ["https://index.docker.io/v1/"]):
            davit("login", "-u", "user", "--password-stdin", *names, input=SECRET)
            assert list(stored(config_path)["auths"]) == ["https://index.docker.io/v1/"]
            result = davit("logout", *names)
            assert result.stdout == "Removing login credentials for https://index.docker.io/v1/\n"
            assert stored(config_path)["auths"] == {}
        assert {one.path for one in proxy.requests} == {"registry-1.docker.io:443"}
        wrong = davit("login", "-u", "user", "--password-stdin", input="wrong", check=False)
        assert wrong.stderr.startswith(UNAUTHORIZED.format("https://registry-1.docker.io"))
        terminal = davit.pty("login")
        terminal.wait_for(r"(?s)Log in with your Docker ID.*Username: $")
        terminal.send("\3")
        assert terminal.wait() == 128 + signal.SIGINT


# --- Nobody sees it ------------------------------------------------------------------------------


def test_the_password_is_in_no_command_line(davit, guarded, config_path, helper, scratch):
    """Of no process that runs during a login with a helper."""
    config_path.write_text(json.dumps({"credsStore": "test"}))
    go, started = scratch / "go", scratch / "started"
    os.mkfifo(go)
    helper.program.write_text(f"#!/bin/sh\ncat > {helper.store}\ntouch {started}\nread x < {go}\n")
    result = []
    thread = threading.Thread(target=lambda: result.append(
        login(davit, guarded, environment=helper.environment, check=False)))
    thread.start()
    wait_until(started.exists, "the helper")
    seen = subprocess.run(["ps", "-eo", "args", "e"], capture_output=True, text=True).stdout
    go.write_text("\n")
    thread.join()
    assert result[0].code == 0
    assert "docker-credential-test" in seen and SECRET not in seen
    assert re.search(re.escape(SECRET), helper.store.read_text())


def test_the_password_is_in_no_log(make_davitd, make_registry, tokens):
    """Not even in one that says everything."""
    davitd = make_davitd("--debug")
    davit = Davit(davitd)
    registry = make_registry(token_server=tokens)
    name = registry.push("team/app", images.busybox_image())
    login(davit, registry, user="reader")
    login(davit, registry, user="reader", password=SECRET + "x", check=False)
    davit("pull", "-q", name)
    davit("search", f"{registry.host}/app", check=False)
    davitd.process.send_signal(signal.SIGUSR1)
    secrets = [SECRET, encoded("reader", SECRET), *tokens.refresh_tokens,
               *(grant.token for grant in tokens.grants)]
    wait_until(lambda: "task" in davitd.log(), "the list of tasks")
    assert [one for one in secrets if one in davitd.log()] == []
