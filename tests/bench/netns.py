"""A line of a known rate, and what is on its far side.

    with Line(mbit=10) as line:
        registry = line.far(Registry, ...)   # called in the far network namespace, in a thread
        ... the engines run here, and reach it at line.address ...
        line.time_for(size)                  # seconds that so many bytes take at the very least

A pair of veth interfaces, one end in a network namespace of its own; each end's egress is held to
the rate by a token bucket (tc tbf). There is no delay beyond that: delays are the registry's.
The addresses are of 198.18.0.0/15, which RFC 2544 keeps for benchmarks.
"""

import ctypes
import os
import re
import subprocess
import threading

NETWORK = "198.18.0.0/15"
PREFIX = "davit-bench-"
CLONE_NEWNET = 0x40000000
# What a segment of TCP is on Ethernet, and what it carries: with timestamps, MTU 1500.
FRAME_BYTES, SEGMENT_BYTES = 1514, 1448
QUEUE = "50ms"


def _run(*words):
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def _forget_dead():
    """Removes what benchmarks left that were killed; the interfaces go with their namespace."""
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    for pid in re.findall(rf"^{PREFIX}(\d+)\b", names, re.M):
        if not os.path.exists(f"/proc/{pid}"):
            subprocess.run(["ip", "netns", "del", PREFIX + pid], check=False)


class Line:
    def __init__(self, mbit):
        self.mbit = mbit
        pid = os.getpid()
        self.name = f"{PREFIX}{pid}"
        self.near, self.end = f"dvb{pid}n", f"dvb{pid}f"
        block = pid % (1 << 14) * 4
        network = f"198.{18 + (block >> 16)}.{block >> 8 & 255}"
        self.near_address = f"{network}.{(block & 255) + 1}"
        self.address = f"{network}.{(block & 255) + 2}"

    def __enter__(self):
        _forget_dead()
        _run("ip", "netns", "add", self.name)
        try:
            inside = ["ip", "-n", self.name]
            _run("ip", "link", "add", self.near, "type", "veth", "peer", self.end, "netns",
                 self.name)
            _run("ip", "address", "add", f"{self.near_address}/30", "dev", self.near)
            _run(*inside, "address", "add", f"{self.address}/30", "dev", self.end)
            self.set_rate(self.mbit)
            _run("ip", "link", "set", self.near, "up")
            _run(*inside, "link", "set", self.end, "up")
            _run(*inside, "link", "set", "lo", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # The near end goes at once, not when the last socket in the namespace is closed.
        subprocess.run(["ip", "link", "del", self.near], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "netns", "del", self.name], check=False)

    def set_rate(self, mbit):
        self.mbit = mbit
        # What a timer of 4 ms lets through at once must fit.
        burst = max(16 << 10, int(mbit * 1e6 / 8 / 100))
        shape = ["root", "tbf", "rate", f"{mbit}mbit", "burst", burst, "latency", QUEUE]
        _run("tc", "qdisc", "replace", "dev", self.near, *shape)
        _run("tc", "-n", self.name, "qdisc", "replace", "dev", self.end, *shape)

    def time_for(self, size):
        return size * FRAME_BYTES / SEGMENT_BYTES * 8 / (self.mbit * 1e6)

    def far(self, function, *arguments, **options):
        """What function(...) returns, called in the far namespace: sockets it makes are there, and
        threads and processes it starts."""
        outcome = {}

        def call():
            try:
                with open(f"/run/netns/{self.name}") as namespace:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                outcome["result"] = function(*arguments, **options)
            except BaseException as error:
                outcome["error"] = error

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        if "error" in outcome:
            raise outcome["error"]
        return outcome["result"]
