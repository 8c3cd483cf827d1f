"""Fixtures of the fault tests; those of tests/e2e (registry, make_davitd, ...) are here, too.

  driver        "directory", then "erofs"
  shelf         the images that the tests pull, in the registry; knows what is in their layers
  make_volume   a file system of its own on a loop device; see volume.py
  make_victim   make_victim(driver): a daemon to be killed or starved, its data root on a volume;
                see victim.py
"""

import importlib.util
import os
import pathlib
import random
import shutil
import sys
import tempfile

import pytest

E2E = pathlib.Path(__file__).resolve().parents[1] / "e2e"
sys.path.insert(0, str(E2E))
spec = importlib.util.spec_from_file_location("e2e_conftest", E2E / "conftest.py")
e2e_conftest = importlib.util.module_from_spec(spec)
sys.modules["e2e_conftest"] = e2e_conftest
spec.loader.exec_module(e2e_conftest)
from e2e_conftest import *  # noqa: E402,F401,F403: fixtures and hooks
from e2e_conftest import BIN_DIR, _make_scratch  # noqa: E402,F401: for trees

import shelf as shelf_module  # noqa: E402
import victim as victim_module  # noqa: E402
import volume as volume_module  # noqa: E402
from fake_daemon import load_messages  # noqa: E402

DRIVERS = ("directory", "erofs")
# Of all that is random; shown at the end, so that a failure can be met again.
SEED = os.environ.get("DAVIT_FAULT_SEED") or str(random.SystemRandom().getrandbits(32))


def pytest_configure(config):
    e2e_conftest.pytest_configure(config)
    if b"DAVIT_FAULT_POINT" not in (BIN_DIR / "davitd").read_bytes():
        raise pytest.UsageError("the fault tests need a build of the preset \"faults\"")


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"DAVIT_FAULT_SEED={SEED}")


@pytest.fixture(params=DRIVERS)
def driver(request):
    return request.param


@pytest.fixture
def seed():
    return SEED


@pytest.fixture(scope="session")
def messages(tmp_path_factory):
    directory = tmp_path_factory.mktemp("api")
    yield load_messages(directory)
    sys.path.remove(str(directory))


@pytest.fixture(scope="session")
def shelf(registry):
    return shelf_module.Shelf(registry)


@pytest.fixture
def make_victim(make_volume, make_davitd, messages, shelf):
    made = []

    def make(driver, start=True, data_root=None, **options):
        # No reserve: the disk itself is to be what fails.
        daemon = make_davitd("--storage-driver", driver, "--reserve-space", "0", start=False,
                             data_root=data_root or make_volume().data_root, **options)
        one = victim_module.Victim(daemon, messages, driver, shelf)
        made.append(one)
        return one.start() if start else one

    yield make
    for one in made:
        one.disconnect()


@pytest.fixture
def make_volume():
    """In memory, if there is enough: other users of the machine's disk do not disturb it then."""
    made = []
    base = "/dev/shm" if shutil.disk_usage("/dev/shm").free > 2 << 30 else "/var/tmp"

    def make(kind=volume_module.Volume, **options):
        directory = pathlib.Path(tempfile.mkdtemp(prefix="dt-", dir=base))
        one = kind(directory, **options)
        made.append((one, directory))
        return one

    yield make
    for one, directory in reversed(made):
        one.close()
        shutil.rmtree(directory)
