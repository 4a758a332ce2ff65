"""How a watcher's process waits: on a real inotify queue that another thread reads.

That is in a program of its own, since the signal has to be blocked in all threads.
"""

import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from daemon.sources import watch_lull
from daemon.sources.watch_lull import Lull
from tests.engine.conftest import DEADLINE

SECOND = 1_000_000_000
START = """
import ctypes, os, sys, threading, time
from daemon.sources.watch_lull import Lull, block

LONG = 3_600_000_000_000
block()
queue = ctypes.CDLL(None).inotify_init1(0)
ctypes.CDLL(None).inotify_add_watch(queue, os.fsencode(sys.argv[1]), 0x100)
lull = Lull()
"""
# The first wait of a lull that has heard nothing yet is the longest.
READ_ELSEWHERE = """
def touch_and_read():
    open(f"{sys.argv[1]}/a", "x").close()
    os.read(queue, 4096)

lull.listen(queue)
thread = threading.Thread(target=touch_and_read)
thread.start()
lull.wait(LONG)
thread.join()
print("heard")
"""
BEFORE = """
lull.listen(queue)
open(f"{sys.argv[1]}/a", "x").close()
os.read(queue, 4096)
lull.wait(LONG)
print("heard")
"""
UNTOLD = """
lull.listen(None)
lull.wait(LONG)
print("looks")
"""


class Clock:
    """Passes as it is waited for; the first wait, and no other, ends with a signal."""

    SIGIO = signal.SIGIO

    def __init__(self) -> None:
        self.now = 10 * SECOND
        self.heard = 0

    def monotonic_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)

    def sigtimedwait(self, _signals: set[int], seconds: float) -> object:
        if not self.heard:
            self.heard = self.now
            return self
        self.sleep(seconds)
        return None


def run(program: str, folder: Path) -> list[str]:
    """What it says; it fails if it waits for ever."""
    command = [sys.executable, "-c", START + program, str(folder)]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=DEADLINE
    ).stdout.split()


def test_an_event_that_another_thread_has_read(tmp_path: Path) -> None:
    """It ends the wait all the same: by the descriptor it could not be seen any more."""
    assert run(READ_ELSEWHERE, tmp_path) == ["heard"]


def test_an_event_before_the_wait(tmp_path: Path) -> None:
    """What happened while the process was busy, and was read by then, is not waited for again."""
    assert run(BEFORE, tmp_path) == ["heard"]


def test_looks_are_ever_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the last event on there are looks soon, then at times that grow, up to the most."""
    clock = Clock()
    monkeypatch.setattr(watch_lull, "time", clock)
    monkeypatch.setattr(watch_lull, "_signal", clock)
    lull = Lull()
    lull._is_told = True
    lull.wait(SECOND)
    looks = []
    while clock.now < 30 * SECOND:
        lull.wait(SECOND)
        looks.append(clock.now - clock.heard)
    assert looks[:3] == [1_000_000, 2_000_000, 3_000_000]
    steps = [after - before for before, after in pairwise(looks[2:])]
    assert steps == sorted(steps)
    assert steps[-1] == SECOND
    assert sum(step < SECOND for step in steps) <= 8


def test_a_queue_that_is_not_known(tmp_path: Path) -> None:
    """No signal comes of it, so looking goes on."""
    assert run(UNTOLD, tmp_path) == ["looks"]
