import os
import pathlib
import subprocess
import tempfile

import pytest

import indexed

PROGRAMS = {"confined": os.environ["DAVIT_UNTAR"], "plain": os.environ["UNTAR_UNCONFINED"],
            "index": os.environ["DAVIT_INDEX"]}


@pytest.fixture
def tmp_path():
    """Pytest's own keeps the last three; and trees here are too deep for Python to remove."""
    path = tempfile.mkdtemp(prefix="davit-untar-test-")
    yield pathlib.Path(path)
    indexed.unmount_below(path)
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.fixture(params=sorted(PROGRAMS))
def program(request):
    """Each test holds with davit-untar, without its confinement, and with davit-index."""
    return PROGRAMS[request.param]


@pytest.fixture
def davit_untar():
    return PROGRAMS["confined"]


@pytest.fixture
def davit_index():
    return PROGRAMS["index"]


@pytest.fixture(autouse=True)
def kernel():
    """Whatever was indexed, the kernel has nothing to complain of."""
    messages = indexed.Messages()
    yield messages
    complaints = messages.complaints()
    messages.close()
    assert not complaints


@pytest.fixture
def out(tmp_path):
    """The directory to unpack into."""
    directory = tmp_path / "canary" / "out"
    directory.mkdir(parents=True)
    return str(directory)
