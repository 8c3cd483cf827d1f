import os
import pathlib
import subprocess
import tempfile

import pytest

PROGRAMS = {"confined": os.environ["DAVIT_UNTAR"], "plain": os.environ["UNTAR_UNCONFINED"]}


@pytest.fixture
def tmp_path():
    """Pytest's own keeps the last three; and trees here are too deep for Python to remove."""
    path = tempfile.mkdtemp(prefix="davit-untar-test-")
    yield pathlib.Path(path)
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.fixture(params=sorted(PROGRAMS))
def program(request):
    """Each test holds with davit-untar and without its confinement."""
    return PROGRAMS[request.param]


@pytest.fixture
def davit_untar():
    return PROGRAMS["confined"]


@pytest.fixture
def out(tmp_path):
    """The directory to unpack into."""
    directory = tmp_path / "canary" / "out"
    directory.mkdir(parents=True)
    return str(directory)
