"""The daemon with a clock in its loop, which records when the loop was blocked, and by what.

    python -m tests.benchmarks.stalls REPORT run --config FILE     the daemon
    python -m tests.benchmarks.stalls REPORT                       an empty loop, until SIGTERM

A task in the loop sleeps 5 ms at a time. Each time that it wakes more than 2 ms late, REPORT gets a
JSON object at the end: when it woke (`at`, wall clock), how late (`late_ms`), and the processor
time that the loop's own thread (`thread_ms`) and the whole process (`process_ms`) used meanwhile. A
thread that computed all the time is a callback that took long; a process that did is another thread
that held the interpreter lock; neither, and the machine was busy elsewhere, which the empty loop
shows as well.
"""

import asyncio
import json
import runpy
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest.mock import patch

SLEEP_SECONDS = 0.005
LATE_SECONDS = 0.002

T = TypeVar("T")


class Stall(NamedTuple):
    """The loop came back late."""

    at: float
    late_ms: float
    thread_ms: float
    process_ms: float


class Clock:
    """What a task finds that does nothing but sleep."""

    def __init__(self) -> None:
        self.stalls: list[Stall] = []

    async def run(self) -> None:
        while True:
            began = time.perf_counter(), time.thread_time(), time.process_time()
            await asyncio.sleep(SLEEP_SECONDS)
            late = time.perf_counter() - began[0] - SLEEP_SECONDS
            if late > LATE_SECONDS:
                thread, process = time.thread_time() - began[1], time.process_time() - began[2]
                self.stalls.append(Stall(time.time(), 1e3 * late, 1e3 * thread, 1e3 * process))

    def write(self, report: Path) -> None:
        lines = [json.dumps(stall._asdict()) + "\n" for stall in self.stalls]
        report.write_text("".join(lines), encoding="utf-8")


async def beside(clock: Clock, main: Coroutine[Any, Any, T]) -> T:
    """Run what was to be run, and the clock in the same loop."""
    task = asyncio.create_task(clock.run())
    try:
        return await main
    finally:
        task.cancel()


def read_stalls(report: Path) -> list[Stall]:
    """What a process that has ended has recorded."""
    return [Stall(**json.loads(line)) for line in report.read_text("utf-8").splitlines()]


def run_daemon(clock: Clock, arguments: list[str]) -> None:
    """The daemon's own command line starts its own loop, with one task more in it."""
    real_run = asyncio.run

    def run(main: Coroutine[Any, Any, T], **options: Any) -> T:
        return real_run(beside(clock, main), **options)

    sys.argv = ["treewarden", *arguments]
    with patch.object(asyncio, "run", run):
        runpy.run_module("daemon", run_name="__main__", alter_sys=True)


async def until_terminated() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


def main() -> None:
    report, arguments = Path(sys.argv[1]), sys.argv[2:]
    clock = Clock()
    try:
        if arguments:
            run_daemon(clock, arguments)
        else:
            asyncio.run(beside(clock, until_terminated()))
    finally:
        clock.write(report)


if __name__ == "__main__":
    main()
