"""Programs that outlived the daemon that had started them: found, and ended or waited for.

A process is of a run if it is the leader that the record names, or of its session, or if its
environment says so: that of a program cannot be read by everybody, and it may have been emptied,
but then its session tells.
"""

import asyncio
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from daemon.handlers.orphaned import Listening
from daemon.handlers.record import VARIABLE, Left

_PROC = Path("/proc")
# Between two looks: at first so long, then half as long again each time, and at most so long.
_SOON = 0.02
_LONGEST = 1.0
Manner = Literal["end", "wait"]


class Process(NamedTuple):
    """A line of /proc: `began` in clock ticks since the boot."""

    pid: int
    parent: int
    session: int
    began: int


def alive(left: Sequence[Left]) -> dict[Left, list[Process]]:
    """Of runs on record those that are still going on, with their processes. Blocks."""
    if not left:
        return {}
    earliest = min(one.after for one in left) - 1
    # What is older than the runs is of none of them, and neither are we and who started us.
    all_of_them = {process.pid: process for process in _processes()}
    ours = set(_ancestors(os.getpid(), all_of_them))
    young = [p for p in all_of_them.values() if p.began >= earliest and p.pid not in ours]
    runs = {process.pid: _run_of(process.pid) for process in young}
    found = {one: [p for p in young if _is_of(p, one, runs[p.pid], all_of_them)] for one in left}
    return {one: processes for one, processes in found.items() if processes}


async def see_off(left: Left, manner: Manner, kill_after: float) -> None:
    """Return when nobody of a run is left. To end it is to send TERM, and later KILL."""
    began = time.monotonic()
    asked = manner == "wait"
    pause = _SOON
    with Listening() as listening:
        while processes := (await asyncio.to_thread(alive, [left])).get(left):
            listening.listen_to(process.pid for process in processes)
            forced = manner == "end" and time.monotonic() - began >= kill_after
            # Once, as to a group: what a handler starts to clean up after it was asked may work.
            if forced or not asked:
                for process in processes:
                    _signal(process, signal.SIGKILL if forced else signal.SIGTERM)
            asked = True
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST)


def _is_of(process: Process, left: Left, run: bytes, everybody: dict[int, Process]) -> bool:
    if run == left.run:
        return True
    if not left.pid or process.session != left.pid or process.began < left.after - 1:
        return False
    # A session keeps its number from being given away; but an emptied one does not.
    leader = everybody.get(left.pid)
    return leader is None or left.after - 1 <= leader.began <= left.before + 1


def _signal(process: Process, number: signal.Signals) -> None:
    """To this process, and to no other that has its number by now."""
    with suppress(ProcessLookupError, PermissionError):
        if not hasattr(os, "pidfd_open"):
            os.kill(process.pid, number)
            return
        fd = os.pidfd_open(process.pid)
        try:
            if _process(process.pid) == process:
                signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)


def _processes() -> Iterator[Process]:
    for name in os.listdir(_PROC):  # noqa: PTH208 - names, of which most are numbers
        if name.isdigit() and (process := _process(int(name))):
            yield process


def _process(pid: int) -> Process | None:
    """What /proc says of a process, unless it is over and only its parent does not know yet."""
    try:
        line = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The second field is a name in brackets, which may hold anything.
    state, parent, _, session, *more = line.rpartition(b")")[2].split()
    return None if state in b"ZXx" else Process(pid, int(parent), int(session), int(more[15]))


def _run_of(pid: int) -> bytes:
    try:
        variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return b""
    prefix = VARIABLE + b"="
    return next((v.removeprefix(prefix) for v in variables if v.startswith(prefix)), b"")


def _ancestors(pid: int, everybody: dict[int, Process]) -> Iterator[int]:
    while pid in everybody:
        yield pid
        pid = everybody[pid].parent
