"""What the tests of attacks share: what a daemon and its helpers take of memory meanwhile, and files
beside its own that nobody may touch."""

import contextlib
import glob
import os
import pathlib
import threading

import trees
from conftest import BIN_DIR

SANITIZED = b"__asan_init" in (BIN_DIR / "davitd").read_bytes()


class MemoryWatch(threading.Thread):
    """Looks at the processes that a daemon runs, and keeps the peak of each program's memory."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid = pid
        self.peaks = {}
        self.ended = threading.Event()

    def run(self):
        while not self.ended.wait(0.005):
            for path in glob.glob(f"/proc/{self.pid}/task/*/children"):
                with contextlib.suppress(OSError):
                    for child in pathlib.Path(path).read_text().split():
                        self.look(child)

    def look(self, pid):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":", 1) for line in
                          pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
            if "VmHWM" in fields:  # else it has ended
                name, peak = fields["Name"].strip(), int(fields["VmHWM"].split()[0]) << 10
                self.peaks[name] = max(peak, self.peaks.get(name, 0))

    def end(self):
        self.look(self.pid)
        self.ended.set()
        self.join()


class Canary:
    """A directory with inode numbers and times of change: nothing at all may happen to it."""

    def __init__(self, path):
        self.path = path
        (path / "dir").mkdir(parents=True)
        for name in ("file", "dir/file"):
            (path / name).write_text("untouched")
        os.symlink("dir", path / "link")
        self.before = self._look()

    def _look(self):
        return [(path, st[:7], st.st_mtime_ns, st.st_ctime_ns)
                for path, st, _, _ in trees.walk(self.path)]

    def is_untouched(self):
        return self._look() == self.before
