"""The `command` handler: one program, run once for each file, or once for several of them.

argv without a shell, in a process group of its own, so that an end reaches everything the program
started. The exit status is the verdict: 0 success, 65 never (`EX_DATAERR`), those that the step
names unavailable, anything else later.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from daemon.config_steps import CommandStep
from daemon.handlers import RESULT_BYTES, Job, Outcome, Verdict
from daemon.handlers.arguments import Arguments, template, variables_of
from daemon.handlers.launching import Launcher
from daemon.handlers.record import Mark, Record, nowhere
from daemon.handlers.running import Pipe, Running, end_at_once
from daemon.handlers.said import how_it_ended, readable_tail, result_text, said
from daemon.handlers.start import Start
from daemon.handlers.starting import Starter
from daemon.handlers.streams import CannotBegin, Streams
from daemon.handlers.threads import Threads

_REJECTED = 65


class CommandHandler:
    """Runs the command of a step. Each run is on `record` for as long as it lasts."""

    def __init__(self, step: CommandStep, record: Record | None = None) -> None:
        self._step = step
        self._record = record or nowhere()
        self._arguments = Arguments(step.command)
        self._launcher = Launcher(step, program_varies=self._arguments.program_varies)
        self._starter = Starter(f"start-{step.name}"[:15])
        self._threads = Threads(f"open-{step.name}", step.places)
        self._output = None if step.output == "log" else template(step.output)

    async def run(self, job: Job) -> Outcome:
        """Run the program on one file, and see it, and its whole group when cut short, to the end.

        Cancelling sends TERM, and KILL after `kill_after`; cancelling again sends KILL at once.
        """
        return await self.run_together((job,))

    async def run_together(self, jobs: Sequence[Job]) -> Outcome:
        """The same for several files in one run, whose outcome is that of all."""
        began = time.monotonic()
        with Streams(self._step, self._output, jobs, self._threads) as streams:
            try:
                if streams.are_files:
                    await self._open(streams, jobs)
                outcome = await self._run(jobs, streams)
            except CannotBegin as cause:
                outcome = Outcome(cause.verdict, cause.error)
        return replace(outcome, duration_ms=round((time.monotonic() - began) * 1000, 3))

    async def close(self) -> None:
        """See `Handler`."""
        await self._starter.close()
        await self._threads.close()

    def share(self, jobs: Sequence[Job]) -> int:
        """How many of the jobs, from the first on, one run has room for: at least one."""
        room = self._launcher.room - sum(map(len, self._step.command))
        count = 0
        for job in jobs:
            room -= self._arguments.size_of(job)
            if room < 0:
                break
            count += 1
        return max(count, 1)

    async def _open(self, streams: Streams, jobs: Sequence[Job]) -> None:
        try:
            await streams.open()
        except OSError as error:
            program = self._arguments.of(jobs)[0]
            raise CannotBegin(*self._launcher.judge(program, error)) from error

    async def _run(self, jobs: Sequence[Job], streams: Streams) -> Outcome:
        program = _Program(self, jobs, streams)
        streams.lent_to = start = self._starter.start(program)
        pid = await self._process(jobs, start)
        status, timed_out = start.status, False
        if status is None:
            status, timed_out = await self._end(program, pid, start)
        if start.cancelled:
            raise asyncio.CancelledError
        return await self._judge(status, streams, timed_out=timed_out)

    def launch(self, jobs: Sequence[Job], mark: Mark, streams: Streams) -> int:
        """In a thread: start the program for these files; its process."""
        variables = mark.environment | variables_of(jobs, counted=self._step.batch > 1)
        return self._launcher.start(self._arguments.of(jobs), variables, streams)

    def begin(self, jobs: Sequence[Job]) -> Mark:
        """In a thread: put a run on record."""
        first = jobs[0]
        alone = first.file_id if len(jobs) == 1 else 0
        return self._record.begin(first.file.watch, first.step, alone)

    async def _process(self, jobs: Sequence[Job], start: Start) -> int:
        try:
            return await start.process(self._step.timeout, self._step.kill_after)
        except TimeoutError as error:
            late = f"not loaded after {self._step.timeout:g}s: does the disk with it hang?"
            raise CannotBegin(
                "unavailable", f"{os.fsdecode(self._arguments.of(jobs)[0])}: {late}"
            ) from error
        except Exception as error:  # whatever kept it from starting, `judge` says whose fault it is
            raise CannotBegin(*self._launcher.judge(self._arguments.of(jobs)[0], error)) from error

    async def _end(self, program: "_Program", pid: int, start: Start) -> tuple[int, bool]:
        """See a program to its end that still runs: its status, and whether it was out of time."""
        try:
            running = self._watch_over(pid, program.streams)
            if start.cancelled:
                running.push()
            return await running.end(), running.timed_out
        finally:
            program.mark.ended()

    def _watch_over(self, pid: int, streams: Streams) -> Running:
        try:
            streams.listen()
            return Running(pid, timeout=self._step.timeout, kill_after=self._step.kill_after)
        except (OSError, RuntimeError) as error:  # no memory, or no thread to wait for it in
            end_at_once(pid)
            raise CannotBegin("defer", f"cannot watch over the program: {error}") from error

    async def _judge(self, status: int, streams: Streams, *, timed_out: bool) -> Outcome:
        if timed_out:
            words = await streams.last_words()
            return Outcome("retry", said(f"timed out after {self._step.timeout:g}s", words))
        if status == 0:
            return Outcome("success") if streams.answer is None else await _answer(streams.answer)
        words = await streams.last_words()
        if self._launcher.was_not_run(status, words):
            return Outcome(self._launcher.verdict_without_program, readable_tail(words))
        return Outcome(self._verdict(status), said(how_it_ended(status), words))

    def _verdict(self, status: int) -> Verdict:
        if status in self._step.unavailable:
            return "unavailable"
        return "reject" if status == _REJECTED else "retry"


class _Program:
    """One run: what a thread does of it, from the record on to the end, if that comes soon."""

    def __init__(self, handler: CommandHandler, jobs: Sequence[Job], streams: Streams) -> None:
        self._handler = handler
        self._jobs = jobs
        self.streams = streams
        self.mark: Mark

    def launch(self) -> int:
        """See `Program`."""
        self.streams.make_pipes()
        self.mark = mark = self._handler.begin(self._jobs)
        try:
            pid = self._handler.launch(self._jobs, mark, self.streams)
        except BaseException:
            mark.ended()
            raise
        mark.started(pid)
        self.streams.given()
        return pid

    def over(self, status: int) -> None:
        """See `Program`."""
        self.mark.ended()
        if status == 0:
            self.streams.hush()


def install_child_watcher() -> None:
    """Let Python 3.11 wait for children as later versions do: by pidfd, without a thread for each.

    For the programs that asyncio starts, the watchers of trees for instance. Without pidfds (an old
    kernel, or a Python built for one) the threads stay. From 3.12 on there is nothing to install.
    """
    if sys.version_info >= (3, 12):
        return
    with suppress(AttributeError, OSError):
        os.close(os.pidfd_open(os.getpid()))
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())


async def _answer(pipe: Pipe) -> Outcome:
    """A success, if what it said on standard output can be handed on."""
    raw = await pipe.end()
    if len(raw) > RESULT_BYTES:
        return Outcome("retry", f"its result is longer than {RESULT_BYTES} bytes")
    try:
        return Outcome("success", result=result_text(raw))
    except ValueError as error:
        shown = readable_tail(raw[:80])
        found = f"found {shown!r}: {error}" if shown else "found nothing"
        return Outcome("retry", f"its standard output is not one JSON value; {found}")
