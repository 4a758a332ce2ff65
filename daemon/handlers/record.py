"""On record: which programs run for us, so that the next daemon finds those that outlive this one.

A plain file of lines of one length, a slot for each run: what it is for, and its process. It is
written without fsync, for the page cache survives a killed daemon; a program survives no power cut.
A run is on record before its process is (which is 0 until then), and its name is in the process's
environment: whichever moment the daemon is killed at, one of the two tells.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

from daemon.handlers.parts import NOWHERE, Parts

NAME = "handlers"
# The variable by which a process, and whatever it starts, can be told to be of a run.
VARIABLE = b"TREEWARDEN_RUN"
_SLOT = 256
_BLANK = b" " * (_SLOT - 1) + b"\n"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TICKS = os.sysconf("SC_CLK_TCK")


class Left(NamedTuple):
    """A run on record that nobody has taken off it. Times in clock ticks since the boot.

    `file_id` is 0 where it is about more than one file; `lane` is the watch and the step. The
    process, 0 if it was not known yet, began between the two times.
    """

    slot: int
    run: bytes
    pid: int
    after: int
    before: int
    file_id: int
    lane: bytes

    @property
    def age(self) -> float:
        """For how many seconds it has been going on."""
        return (ticks() - self.after) / _TICKS


class Mark:
    """One run, on record from here on. The process is told its name by `environment`."""

    __slots__ = ("_about", "_began", "_record", "_slot", "environment")

    def __init__(self, record: "Record", slot: int, run: bytes, about: bytes) -> None:
        self._record = record
        self._slot = slot
        self._about = about
        self._began = ticks()
        self.environment = {VARIABLE: run}
        record.write(slot, b"%b 0 %d 0 %b" % (run, self._began, about))

    def started(self, pid: int) -> None:
        """The process is there: the leader of a session of its own."""
        line = b"%b %d %d %d %b"
        run = self.environment[VARIABLE]
        self._record.write(self._slot, line % (run, pid, self._began, ticks(), self._about))

    def ended(self) -> None:
        """It is gone, or never came."""
        self._record.forget(self._slot)


class Record:
    """The runs of one daemon. `left` are those of the ones before it, as far as they are known.

    `parts` is beside it, of what the daemon itself has begun to write.
    """

    def __init__(
        self, fd: int, instance: bytes, left: tuple[Left, ...] = (), parts: Parts = NOWHERE
    ) -> None:
        self._fd = fd
        self.parts = parts
        self._instance = instance
        self.left = left
        # Programs are started in several threads, and each of these calls is one step for them all.
        self._runs = count(1)
        last = max((one.slot for one in left), default=0)
        self._further = count(last + 1)
        taken = {one.slot for one in left}
        self._free = [slot for slot in range(1, last) if slot not in taken]

    @classmethod
    def open(cls, state_dir: Path) -> "Record":
        """The record in a state folder, which this process must hold.

        Raises:
            OSError: it cannot be made, read or written.
        """
        fd = os.open(state_dir / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            header = _line(b"boot " + _boot_id())
            lines = _lines(fd)
            left = tuple(_left(lines)) if next(lines, b"") == header else ()
            if not left:
                os.ftruncate(fd, 0)
            os.pwrite(fd, header, 0)
            st = os.fstat(fd)
            parts = Parts.open(state_dir)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, b"%x-%x-%x" % (st.st_dev, st.st_ino, time.time_ns()), left, parts)

    def begin(self, watch: str, step: str, file_id: int = 0) -> Mark:
        """Put a run on record; `file_id` where it is about a single file. In any thread."""
        try:
            slot = self._free.pop()
        except IndexError:
            slot = next(self._further)
        run = b"%b.%d" % (self._instance, next(self._runs))
        return Mark(self, slot, run, b"%d %b" % (file_id, lane_of(watch, step)))

    def write(self, slot: int, line: bytes) -> None:
        """Keep a line. On a full disk it is not kept, and the environment of the process tells."""
        with suppress(OSError):
            os.pwrite(self._fd, _line(line), slot * _SLOT)

    def forget(self, slot: int) -> None:
        """What a slot held is over."""
        with suppress(OSError):
            os.pwrite(self._fd, _BLANK, slot * _SLOT)
        self._free.append(slot)

    def close(self) -> None:
        """Give the file back. May be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        self.parts.close()


@cache
def nowhere() -> Record:
    """A record that keeps nothing, for handlers without a daemon."""
    return Record(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), b"nobody")


def lane_of(watch: str, step: str) -> bytes:
    """How a step is written in the record: shortened, so that the line of a long one fits."""
    return os.fsencode(f"{watch[:40]}/{step[:40]}")


def ticks() -> int:
    """Now, as /proc counts the starts of processes."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS)


def _line(text: bytes) -> bytes:
    return text.ljust(_SLOT - 1)[: _SLOT - 1] + b"\n"


def _lines(fd: int) -> Iterator[bytes]:
    at = 0
    while len(line := os.pread(fd, _SLOT, at)) == _SLOT:
        yield line
        at += _SLOT


def _left(lines: Iterator[bytes]) -> Iterator[Left]:
    for slot, line in enumerate(lines, 1):
        # A line that a full disk tore is none.
        with suppress(ValueError):
            run, pid, after, before, file_id, lane = line.split()
            yield Left(slot, run, int(pid), int(after), int(before), int(file_id), lane)


def _boot_id() -> bytes:
    try:
        return _BOOT.read_bytes().strip()
    except OSError:  # and without /proc nobody could be found either
        return b"unknown"
