import os

import pytest

PROGRAMS = {"confined": os.environ["DAVIT_UNTAR"], "plain": os.environ["UNTAR_UNCONFINED"]}


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
