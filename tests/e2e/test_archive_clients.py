"""Clients of save, load and import that stall, leave or are killed, files that cannot be written,
and others who use the same images meanwhile: the daemon's memory is bounded, nothing is stuck,
nothing is half there, and the same succeeds afterwards."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import threading

import archives
import images
import pytest
from conftest import BIN_DIR, WAIT_SECONDS, Davit, _make_scratch, davitd_maker, start, wait_until
from siege import SANITIZED

MIB = 1 << 20
SIZE = 24 * MIB
TAG = "example.com/clients/image:1"
DAEMON_MEMORY_MAX = 32 << 20


def make_image(name, size=SIZE):
    """A layer that does not fit into any buffer on the way, and a small one."""
    return images.image([images.layer([images.file("large", images.payload(size, name, 0))], "none"),
                         images.layer([images.file("small", name)], "none")])


IMAGE = make_image("clients")
ARCHIVE = archives.pack(archives.docker_members((IMAGE, [TAG])))
HALF = len(ARCHIVE) // 2


@pytest.fixture(scope="module")
def archive():
    directory = _make_scratch()
    (directory / "given.tar").write_bytes(ARCHIVE)
    yield directory / "given.tar"
    shutil.rmtree(directory)


@pytest.fixture
def loaded(davit, archive):
    davit("load", "-q", "-i", archive)
    return davit


def jobs(davit, *arguments):
    return [json.loads(line) for line in
            davit("jobs", "--format", "json", *arguments).stdout.splitlines()]


def wait_for_job(davit, kind):
    return wait_until(lambda: next(iter(one for one in jobs(davit) if one["Kind"] == kind), None),
                      f"a job {kind}")


def wait_for_no_job(davit):
    wait_until(lambda: not jobs(davit), "the job to end")


def anonymous_memory(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", text)[1]) << 10


def check_memory(davit):
    if not SANITIZED:
        assert anonymous_memory(davit.daemon.pid) < DAEMON_MEMORY_MAX


def nothing_is_there(davit):
    data_root = davit.daemon.data_root
    assert davit("images", "-aq").stdout == ""
    wait_until(lambda: not os.listdir(data_root / "tmp") and not os.listdir(data_root / "layers"),
               "files to go")
    with contextlib.closing(sqlite3.connect(f"file:{data_root}/davit.db?mode=ro",
                                            uri=True)) as database:
        assert not list(database.execute("SELECT * FROM layers"))


def load_works(davit, archive):
    assert davit("load", "-i", archive).stdout.endswith(f"Loaded image: {TAG}\n")
    assert davit("images", "-q", "--no-trunc").stdout == IMAGE.id + "\n"
    assert davit("system", "verify").code == 0


def save_works(davit, scratch):
    davit("save", "-o", scratch / "again.tar", TAG)
    davit("rmi", TAG)
    load_works(davit, scratch / "again.tar")


def feed_half(davit, *arguments):
    """A client that has been given the half of an archive, and waits; all that was given is taken."""
    process = davit.start("load", *arguments, stdin=subprocess.PIPE)
    process.stdin.write(ARCHIVE[:HALF])
    process.stdin.flush()
    return process, wait_for_job(davit, "load")


def end(process):
    said, errors = process.communicate(timeout=WAIT_SECONDS)
    return process.returncode, said.decode(errors="replace"), errors.decode(errors="replace")


# --- Loading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
def test_a_client_is_killed_while_it_loads(davit, archive, how):
    process, _ = feed_half(davit)
    process.send_signal(how)
    process.stdin.close()
    process.stdin = None
    end(process)
    wait_for_no_job(davit)
    nothing_is_there(davit)
    load_works(davit, archive)


def test_a_client_stalls_while_it_loads(davit, archive):
    """Others are served meanwhile; whoever cancels the job frees everything."""
    process, job = feed_half(davit)
    check_memory(davit)
    assert davit("images", "-aq").stdout == ""
    assert davit("system", "verify").code == 0
    davit("jobs", "cancel", job["ID"])
    process.stdin = process.stdin.close()
    code, said, errors = end(process)
    assert (code, said) == (1, "") and "cancel" in errors, (code, said, errors)
    wait_for_no_job(davit)
    nothing_is_there(davit)
    load_works(davit, archive)


def children(pid):
    """{name of its program: path in /proc}"""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            path = pathlib.Path("/proc", child)
            found[(path / "comm").read_text().strip()] = path
    return found


def test_who_reads_the_archive_is_confined(davit):
    """It has no privilege, sees no files, and cannot open, connect or fork. That the calls fail is
    shown in tests/unit/daemon/store/test_confine.c."""
    process, _ = feed_half(davit)
    reader = wait_until(lambda: children(davit.daemon.pid).get("davit-archive"), "the reader")
    status = dict(line.split(":\t", 1) for line in
                  (reader / "status").read_text().splitlines() if ":\t" in line)
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, (kind, status[kind])
    assert status["NoNewPrivs"] == "1"
    assert os.listdir(reader / "root") == []
    for kind in ("net", "mnt", "ipc"):
        assert os.readlink(reader / "ns" / kind) != os.readlink(f"/proc/self/ns/{kind}"), kind
    if not SANITIZED:
        assert status["Seccomp"] == "2"
        assert sorted(os.listdir(reader / "fd"), key=int) == ["0", "1", "2"]
        assert (reader / "environ").read_bytes() == b""
    process.kill()
    end(process)
    wait_for_no_job(davit)
    assert not reader.exists()


def test_an_archive_ends_in_the_middle(davit, archive):
    process, _ = feed_half(davit)
    code, said, errors = end(process)
    assert (code, said) == (1, "") and errors
    nothing_is_there(davit)
    load_works(davit, archive)


def test_the_daemon_stops_while_it_loads(davit, archive):
    process, _ = feed_half(davit)
    davit.daemon.stop()  # within its time
    process.stdin = process.stdin.close()
    code, said, errors = end(process)
    assert (code, said) == (1, "") and errors
    davit.daemon.start()
    assert not jobs(davit)  # it is not resumed
    nothing_is_there(davit)
    load_works(davit, archive)


def test_the_daemon_is_killed_while_it_loads(davit, archive):
    process, _ = feed_half(davit)
    davit.daemon.kill()
    process.stdin = process.stdin.close()
    code, said, errors = end(process)
    assert (code, said) == (1, "") and errors
    davit.daemon.start()
    nothing_is_there(davit)
    load_works(davit, archive)


def test_the_same_archive_by_many_at_once(davit, archive, scratch):
    processes = [davit.start("load", "-q", "-i", archive) for _ in range(6)]
    for process in processes:
        assert end(process) == (0, f"Loaded image: {TAG}\n", "")
    assert davit("images", "-q", "--no-trunc").stdout == IMAGE.id + "\n"
    assert len(os.listdir(davit.daemon.data_root / "layers")) == 2
    check_memory(davit)
    save_works(davit, scratch)


def test_images_come_and_go_while_one_loads(davit, archive):
    """What a load has stored or found is not taken from it by those who remove and prune."""
    ended = threading.Event()
    failures = []

    def sweep():
        while not ended.is_set():
            for command in (("rmi", "-f", TAG), ("system", "prune", "-af")):
                result = davit(*command, check=False)
                if result.code and "o such image" not in result.stderr:
                    failures.append(str(result))

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for _ in range(8):
            davit("load", "-q", "-i", archive)
    finally:
        ended.set()
        sweeper.join()
    assert not failures, failures
    load_works(davit, archive)
    assert len(os.listdir(davit.daemon.data_root / "layers")) == 2


# --- Saving --------------------------------------------------------------------------------------


def begin_save(davit):
    """A client whose reader has taken a little of the archive, and no more."""
    process = davit.start("save", TAG)
    assert len(process.stdout.read(1000)) == 1000
    return process, wait_for_job(davit, "save")


def test_a_reader_stalls(loaded, scratch):
    process, job = begin_save(loaded)
    before = anonymous_memory(loaded.daemon.pid)
    assert loaded("system", "verify").code == 0  # others are served
    check_memory(loaded)
    assert anonymous_memory(loaded.daemon.pid) - before < 8 * MIB or SANITIZED
    assert [one["ID"] for one in jobs(loaded)] == [job["ID"]]  # it waits
    loaded("jobs", "cancel", job["ID"])
    wait_for_no_job(loaded)
    code, said, errors = end(process)
    assert code == 1 and len(said) < SIZE and "cancel" in errors, (code, errors)
    save_works(loaded, scratch)


def test_a_cancelled_save_holds_no_layers(loaded):
    """Also while its reader stalls: what is removed then gives its space back."""
    process, job = begin_save(loaded)
    layers = loaded.daemon.data_root / "layers"
    loaded("jobs", "cancel", job["ID"])
    wait_for_no_job(loaded)
    loaded("rmi", TAG)
    wait_until(lambda: loaded("system", "prune", "-f") and not os.listdir(layers), "layers to go")
    end(process)


def test_a_reader_goes_on_after_a_while(loaded):
    process, _ = begin_save(loaded)
    loaded("images")
    rest = process.stdout.read()
    assert process.wait(WAIT_SECONDS) == 0, process.stderr.read()
    whole = loaded("save", TAG, text=False).stdout
    assert whole[1000:] == rest


def test_a_reader_goes_away(loaded, scratch):
    process, _ = begin_save(loaded)
    process.stdout.close()
    process.stdout = open(os.devnull, "rb")
    process.wait(WAIT_SECONDS)
    assert process.returncode != 0
    wait_for_no_job(loaded)
    save_works(loaded, scratch)


@pytest.mark.parametrize("how", (signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
def test_a_client_is_killed_while_it_saves(loaded, scratch, how):
    """With -o nothing of it is left, but of what is killed nobody can clean up after."""
    out = scratch / "out"
    out.mkdir()
    loaded.daemon.process.send_signal(signal.SIGSTOP)
    process = loaded.start("save", "-o", out / "archive.tar", TAG)
    wait_until(lambda: os.listdir(out), "the file to be there")
    process.send_signal(how)
    if how == signal.SIGKILL:
        process.wait()
    loaded.daemon.process.send_signal(signal.SIGCONT)
    code, _, _ = end(process)
    assert code == -how if how == signal.SIGKILL else 128 + how
    wait_for_no_job(loaded)
    assert "archive.tar" not in os.listdir(out)
    assert how == signal.SIGKILL or os.listdir(out) == []
    save_works(loaded, scratch)


def test_an_image_goes_while_it_is_saved(loaded):
    """The archive is complete and right, or it ends with an error: never anything between."""
    whole = loaded("save", TAG, text=False).stdout
    process, _ = begin_save(loaded)
    loaded("rmi", "-f", TAG)
    rest = process.stdout.read()
    code = process.wait(WAIT_SECONDS)
    assert (code == 0) == (rest == whole[1000:])
    assert code == 0 or process.stderr.read()
    wait_for_no_job(loaded)
    loaded("system", "prune", "-f")  # what a save had held goes with it, or a while later
    nothing_is_there(loaded)


def test_the_daemon_dies_while_it_saves(loaded, scratch):
    process, _ = begin_save(loaded)
    loaded.daemon.kill()
    code, _, errors = end(process)
    assert code == 1 and errors
    loaded.daemon.start()
    save_works(loaded, scratch)


def test_a_damaged_layer_is_not_saved(loaded, scratch):
    layer = loaded.daemon.data_root / "layers" / IMAGE.layers[0].diff_id.removeprefix("sha256:")
    largest = max((path for path in layer.rglob("*") if path.is_file()),
                  key=lambda path: path.stat().st_size)
    with open(largest, "r+b") as handle:
        handle.seek(SIZE // 2)
        handle.write(b"changed")
    (scratch / "out").mkdir()
    result = loaded("save", "-o", scratch / "out/archive.tar", TAG, check=False)
    assert result.code == 1 and IMAGE.layers[0].diff_id[7:19] in result.stderr, result
    assert os.listdir(scratch / "out") == []
    piped = loaded("save", TAG, check=False, text=False)
    assert piped.code == 1 and piped.stderr


# --- Where archives are written ------------------------------------------------------------------


def test_only_the_owner_may_read_an_archive(loaded, scratch):
    loaded("save", "-o", scratch / "archive.tar", TAG)
    assert stat.S_IMODE((scratch / "archive.tar").stat().st_mode) == 0o600
    assert os.listdir(scratch) == ["archive.tar"]


def test_a_file_is_replaced_only_by_a_whole_archive(loaded, scratch):
    out = scratch / "archive.tar"
    out.write_text("precious")
    result = loaded("save", "-o", out, TAG, "missing:image", check=False)
    assert result.code == 1 and "missing:image" in result.stderr
    assert out.read_text() == "precious"
    loaded("save", "-o", out, TAG)
    assert out.stat().st_size > SIZE
    assert os.listdir(scratch) == ["archive.tar"]


def test_a_link_is_not_written_through(loaded, scratch):
    (scratch / "victim").write_text("precious")
    (scratch / "archive.tar").symlink_to("victim")
    result = loaded("save", "-o", scratch / "archive.tar", TAG, check=False)
    assert result.code == 1 and "cannot write to a symbolic link" in result.stderr
    assert (scratch / "archive.tar").readlink() == pathlib.Path("victim")
    assert (scratch / "victim").read_text() == "precious"


def test_devices_and_pipes_stay_what_they_are(loaded, scratch):
    os.mkfifo(scratch / "fifo")
    for path in (scratch / "fifo", scratch):
        before = os.lstat(path)[:3]
        result = loaded("save", "-o", path, TAG, check=False)
        assert result.code == 1 and result.stderr, result
        assert os.lstat(path)[:3] == before
    for path in ("/dev/null", "/dev/full", "/proc/version"):
        before = os.lstat(path)[:3]
        result = loaded("save", "-o", path, TAG, check=False)
        assert result.code == 1 and result.stderr, result
        assert os.lstat(path)[:3] == before
    assert os.listdir(scratch) == ["fifo"]


def test_a_directory_that_is_not_there(loaded, scratch):
    result = loaded("save", "-o", scratch / "no/archive.tar", TAG, check=False)
    assert result.code == 1 and "no" in result.stderr
    assert os.listdir(scratch) == []


def test_the_client_has_no_space(loaded, scratch):
    point = scratch / "small"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", point], check=True)
    try:
        (point / "archive.tar").write_text("precious")
        result = loaded("save", "-o", point / "archive.tar", TAG, check=False)
        assert result.code == 1 and "o space left" in result.stderr, result
        assert os.listdir(point) == ["archive.tar"]
        assert (point / "archive.tar").read_text() == "precious"
    finally:
        subprocess.run(["umount", point], check=True)
    with open("/dev/full", "wb") as full:
        process = start([BIN_DIR / "davit", "save", TAG], env=loaded.environment(), stdout=full,
                        stderr=subprocess.PIPE, text=True)
        _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 1 and "o space left" in errors, errors
    wait_for_no_job(loaded)
    save_works(loaded, scratch)


def test_not_to_a_terminal(loaded):
    terminal = loaded.pty("save", TAG)
    assert terminal.wait() == 1
    assert "cowardly refusing to save to a terminal. Use the -o flag or redirect" in terminal.output


def test_not_from_a_terminal(davit):
    terminal = davit.pty("load")
    assert terminal.wait() == 1
    assert "requested load from stdin, but stdin is empty" in terminal.output


# --- Texts that steer terminals ------------------------------------------------------------------

EVIL = "\x1b]0;title\x07\x1b[2J\x9b31m\u202eevil\r\nX"


def evil_image():
    config = {"created": "2024-01-02T03:04:05Z", "os": "linux", "architecture": "amd64",
              "author": EVIL, "comment": EVIL,
              "config": {"Env": [EVIL], "Cmd": [EVIL], "Labels": {EVIL: EVIL}, "User": EVIL,
                         "WorkingDir": "/" + EVIL},
              "history": [{"created_by": EVIL, "comment": EVIL, "author": EVIL,
                           "created": "2024-01-02T03:04:05Z"}],
              "rootfs": {"type": "layers", "diff_ids": [IMAGE.layers[1].diff_id]}}
    return images.image([IMAGE.layers[1]], config_bytes=json.dumps(config).encode())


COMMANDS = (
    ("images", "--format", "{{.Repository}} {{.Tag}} {{.Labels}}"),
    ("images", "--format", "table {{.ID}}\t{{.Labels}}"), ("images", "--format", "json"),
    ("history", "ID"), ("history", "--no-trunc", "ID"),
    ("history", "--format", "{{.Comment}} {{.CreatedBy}}", "ID"),
    ("history", "--format", "json", "ID"), ("inspect", "ID"), ("image", "inspect", "ID"),
    ("inspect", "-f", "{{.Author}} {{.Config.Labels}} {{.Config.Env}} {{println .Comment}}", "ID"),
    ("inspect", "-f", "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}}{{end}}", "ID"),
    ("inspect", "-f", "{{json .Config}}", "ID"), ("images", "--filter", f"label={EVIL}"),
    ("images", "--filter", EVIL), ("images", EVIL), ("inspect", EVIL), ("rmi", EVIL),
    ("tag", "ID", EVIL), ("history", EVIL), ("save", EVIL), ("load", "-i", EVIL),
    ("import", EVIL), ("import", "-", EVIL), ("import", "-c", f"ENV {EVIL}", "-"),
    ("import", "-c", EVIL, "-"), ("inspect", "--type", EVIL, "ID"),
    ("images", "--format", "{{" + EVIL + "}}"), (EVIL,), ("images", "--" + EVIL),
    ("system", "df", "-v"), ("jobs", "-a"),
    ("events", "--since", "1h", "--until", "0s"))


@pytest.mark.parametrize("number", range(len(COMMANDS)),
                         ids=lambda number: ascii(" ".join(COMMANDS[number]))[1:40])
def test_nothing_steers_a_terminal(evil_terminal, number):
    """What an image has in it, or a user has typed by a script, reaches no terminal as it is."""
    davit, image_id = evil_terminal
    command = [image_id if word == "ID" else word for word in COMMANDS[number]]
    terminal = davit.pty(*command)
    terminal.wait()
    shown = re.sub(r"\x1b\[[0-9;]*[mKA]|\x1b\[\?25[lh]", "", terminal.output)  # its own
    assert "\x1b" not in shown and "\x07" not in shown and "\x9b" not in shown, ascii(shown)
    # Templates leave ends of lines as they are: to have them is what they are used for.
    assert "inspect" in command or "X" not in re.findall(r"^.", shown, re.M), ascii(shown)


@pytest.fixture(scope="module")
def evil_terminal():
    with davitd_maker() as make:
        davit = Davit(make())
        image = evil_image()
        davit("load", input=archives.pack(archives.docker_members((image, ["evil:1"]))), text=False)
        yield davit, image.id


def test_a_file_name_steers_no_terminal(davit, scratch):
    """The name of what is loaded is on the screen while it is read."""
    evil = scratch / "a\x1b[31mb.tar"
    os.mkfifo(evil)
    terminal = davit.pty("load", "-i", evil)
    with open(evil, "wb") as archive:
        archive.write(ARCHIVE[:HALF])
        wait_until(lambda: jobs(davit), "the load")
        job, = jobs(davit)
        watcher = davit.pty("jobs", "watch", job["ID"])
        wait_until(lambda: "b.tar" in watcher.output or "Loading" in watcher.output, "its progress")
    terminal.wait()
    watcher.wait()
    assert "\x1b[31m" not in terminal.output + watcher.output


def test_an_import_of_a_pipe_that_nobody_opens_ends(davit, scratch):
    os.mkfifo(scratch / "fifo")
    process = davit.start("import", scratch / "fifo")
    waits_in = pathlib.Path(f"/proc/{process.pid}/wchan")
    wait_until(lambda: waits_in.read_text() == "wait_for_partner", "it to open the pipe")
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) in (-signal.SIGTERM, 128 + signal.SIGTERM)
