"""Makes calls of a daemon and of its helpers fail, through preload.c.

    control = Control(scratch)
    victim = make_victim(driver, start=False).start(**control.environment)
    control.arm("sync", 3, errno.ENOSPC, victim.daemon.data_root)   # the third of them from now on
    ...
    calls, name = control.disarm()
"""

import errno
import mmap
import os
import struct

from e2e_conftest import BIN_DIR

LIBRARY = BIN_DIR.parent / "tests" / "libdavit-faults.so"
# enum kind of preload.c, and what such a call may fail with.
KINDS = {
    "write": (1, (errno.EIO, errno.ENOSPC)),
    "sync": (2, (errno.EIO, errno.ENOSPC)),
    "rename": (4, (errno.EIO, errno.ENOSPC)),
    "mount": (8, (errno.EIO, errno.ENOMEM, errno.EBUSY)),
    "open": (16, (errno.EIO, errno.EMFILE, errno.ENOSPC)),
    "allocate": (32, (errno.EIO, errno.ENOSPC)),
    "mkdir": (64, (errno.EIO, errno.ENOSPC)),
    "unlink": (128, (errno.EIO,)),
    "read": (256, (errno.EIO,)),
}
CONTROL = struct.Struct("<IiQQQQ64s")  # struct control of preload.c


class Control:
    """`environment` is what the daemon is to be started with; its helpers inherit it."""

    def __init__(self, directory):
        path = directory / "control"
        path.write_bytes(bytes(CONTROL.size))
        with open(path, "r+b") as handle:
            self.memory = mmap.mmap(handle.fileno(), CONTROL.size)
        self.environment = {"LD_PRELOAD": str(LIBRARY), "DAVIT_FAULT_CONTROL": str(path)}

    def arm(self, kind, first, errnum, data_root, failures=1):
        bit, _ = KINDS[kind]
        device = os.stat(data_root).st_dev
        CONTROL.pack_into(self.memory, 0, 0, errnum, device, first, failures, 0, b"")
        struct.pack_into("<I", self.memory, 0, bit)  # last: from now on

    def disarm(self):
        """(calls of the kind that were made, name of the one that failed last)"""
        struct.pack_into("<I", self.memory, 0, 0)
        *_, hits, last = CONTROL.unpack_from(self.memory)
        return hits, last.rstrip(b"\0").decode()
