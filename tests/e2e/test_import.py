"""Importing: a tar becomes an image of one layer, from a file, standard input and the web."""

import bz2
import gzip
import hashlib
import http.server
import json
import lzma
import subprocess
import threading

import archives
import images
import pytest
from conftest import Davit, wait_until

TAR = images.make_tar([images.directory("bin"), images.file("bin/x", "content"),
                       images.symlink("l", "bin/x")])
DIFF_ID = "sha256:" + hashlib.sha256(TAR).hexdigest()


@pytest.fixture(params=["erofs", "directory"])
def importer(request, make_davitd):
    return Davit(make_davitd("--storage-driver", request.param))


@pytest.fixture
def tar(tmp_path):
    (tmp_path / "root.tar").write_bytes(TAR)
    return tmp_path / "root.tar"


class Files(http.server.BaseHTTPRequestHandler):
    """/root.tar; /moved leads there; /short breaks off."""

    def do_GET(self):
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/root.tar")
            self.send_header("Content-Length", "0")
        elif self.path in ("/root.tar", "/short"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(TAR) + (self.path == "/short") * 10))
        else:
            self.send_response(404)
            self.send_header("Content-Length", "0")
        self.end_headers()
        if self.path in ("/root.tar", "/short"):
            self.wfile.write(TAR)
        self.close_connection = self.path == "/short"

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def inspected(davit, name):
    return json.loads(davit("image", "inspect", name).stdout)[0]


def check_nothing_is_there(davit):
    assert davit("images", "-aq").stdout == ""
    assert list((davit.daemon.data_root / "layers").iterdir()) == []
    wait_until(lambda: not any((davit.daemon.data_root / "tmp").iterdir()), "an empty tmp")


def test_a_file(importer, tar):
    """The layer is the tar, bit for bit, however it was compressed."""
    image_id = importer("import", tar, "made:1").stdout.strip()
    shown = inspected(importer, "made:1")
    assert shown["Id"] == image_id and image_id.startswith("sha256:")
    assert shown["RootFS"]["Layers"] == [DIFF_ID]
    assert (shown["Comment"], shown["Os"], shown["Parent"]) == ("Imported from -", "linux", "")
    assert shown["Architecture"] == images.native_platform().split("/")[1]
    assert shown["Created"][:2] == "20" and shown["Metadata"]["LastTagTime"][:2] == "20"
    assert importer("history", "--format", "{{.Comment}}", "made:1").stdout == "Imported from -\n"
    for outer in archives.OUTERS[1:]:
        packed = tar.with_name(f"root.{outer}")
        packed.write_bytes(archives.squeeze(TAR, outer))
        other = importer("import", packed).stdout.strip()
        assert inspected(importer, other)["RootFS"]["Layers"] == [DIFF_ID], outer
        assert inspected(importer, other)["RepoTags"] == []
    assert len(list((importer.daemon.data_root / "layers").iterdir())) == 1
    assert importer("system", "verify").code == 0


def test_standard_input_and_changes(importer):
    busybox = images.make_tar(images.busybox_entries())
    result = importer("import", "-c", "ENV A=b C=$D", "--change", "ENTRYPOINT [\"echo\"]",
                      "-c", "CMD [\"$A\", \"$C\"]\nLABEL x=y", "-m", "a \"message\"",
                      "-", "made", input=busybox, text=False)
    shown = inspected(importer, "made:latest")
    assert result.stdout.decode().strip() == shown["Id"] and shown["Comment"] == "a \"message\""
    config = shown["Config"]
    assert (config["Env"], config["Entrypoint"], config["Cmd"], config["Labels"]) == \
        (["A=b", "C="], ["echo"], ["$A", "$C"], {"x": "y"})
    assert importer("run", "--rm", "made").stdout == "$A $C\n"


def test_from_the_web(davit, web):
    for path in ("/root.tar", "/moved"):
        said = davit("import", web + path, "web:1").stdout.splitlines()
        assert said[0] == f"Downloading from {web}{path}" and len(said) == 2
        shown = inspected(davit, "web:1")
        assert (shown["Id"], shown["Comment"]) == (said[1], f"Imported from {web}{path}")
        assert shown["RootFS"]["Layers"] == [DIFF_ID]


def test_what_the_web_has_not(davit, web):
    result = davit("import", f"{web}/none", check=False)
    assert (result.code, result.stdout) == (1, "")
    assert f"failed to GET {web}/none with status 404" in result.stderr
    result = davit("import", f"{web}/short", check=False)
    assert result.code == 1 and "before the end" in result.stderr, result
    result = davit("import", "http://127.0.0.1:1/x", check=False)
    assert "Get \"http://127.0.0.1:1/x\": cannot connect to 127.0.0.1:1" in result.stderr
    result = davit("import", "https://user:secret@127.0.0.1/x", check=False)
    assert "has a user or password in it" in result.stderr and "secret" not in result.stderr
    assert "secret" not in davit("jobs", "-a").stdout
    check_nothing_is_there(davit)


@pytest.mark.parametrize("arguments,error", [
    (["-c", "RUN x", "FILE"], "RUN is not a valid change command"),
    (["-c", "ENV", "FILE"], "ENV requires at least one argument"),
    (["FILE", "Upper:1"], "repository name (library/Upper) must be lowercase"),
    (["FILE", "name@" + DIFF_ID], "cannot import digest reference"),
    (["--platform", "windows/amd64", "FILE"], "operating system is not supported"),
    (["--platform", "nothing", "FILE"], "\"nothing\": unknown operating system or architecture"),
    (["/no/such/file"], "open /no/such/file: no such file or directory"),
])
def test_refused(davit, tar, arguments, error):
    """Before a byte of the tar is read."""
    result = davit("import", *[tar if one == "FILE" else one for one in arguments], check=False)
    assert result.code == 1 and error in result.stderr and result.stdout == "", result
    check_nothing_is_there(davit)


def test_platform(davit, tar):
    davit("import", "--platform", "linux/arm/v6", tar, "arm:6")
    shown = inspected(davit, "arm:6")
    assert (shown["Architecture"], shown["Variant"]) == ("arm", "v6")


@pytest.mark.parametrize("data", [b"no tar at all " * 100, TAR[:1500], gzip.compress(TAR)[:-20],
                                  lzma.compress(TAR)[:-20], bz2.compress(TAR)[:-20],
                                  gzip.compress(b"garbage" * 1000)])
def test_what_is_no_tar(importer, data):
    result = importer("import", "-", "bad:1", input=data, check=False, text=False)
    assert result.code == 1 and b"Error response from daemon: " in result.stderr, result
    check_nothing_is_there(importer)


def test_jobs_and_events(davit, tar):
    image_id = davit("import", tar, "made:1").stdout.strip()
    assert davit("jobs", "-a", "--format", "{{.Kind}} {{.Subject}} {{.State}}").stdout == \
        "import root.tar done\n"
    line = davit("events", "--since", "0", "--until", "0s", "--filter", "event=import",
                 "--format", "{{json .}}").stdout
    assert json.loads(line)["Actor"] == {"ID": image_id, "Attributes": {"name": image_id}}
    process = davit.start("import", "-", "other:1", stdin=subprocess.PIPE)
    process.stdin.write(TAR[:1000])
    process.stdin.flush()
    job_id = wait_until(lambda: davit("jobs", "--format", "{{.ID}}").stdout, "the job").strip()
    davit("jobs", "cancel", job_id)
    _, errors = process.communicate()
    assert process.returncode == 1 and b"was cancelled" in errors
    assert davit("images", "-q", "other").stdout == ""


def test_progress_on_a_terminal(davit, tar):
    terminal = davit.pty("import", tar)
    assert terminal.wait() == 0
    assert "Importing" in terminal.output
    image_id = davit("images", "-q", "--no-trunc").stdout.strip()
    assert terminal.output.replace("\r", "").endswith(f"{image_id}\n")
