"""The `function` handler for functions that block: each runs in a thread of the daemon.

A thread cannot be ended. So a function that is out of time, or that was cancelled, keeps its thread
until it returns; and its file is not handed to another one before that.
"""

import asyncio
import threading
import time
from collections import deque
from contextlib import suppress
from queue import SimpleQueue

from msgspec.structs import replace

from daemon.handlers import Job, Outcome
from daemon.handlers.function_loading import Function
from daemon.handlers.function_outcomes import call
from daemon.handlers.ticket import Ticket

_CLOSE_SECONDS = 0.5


class _Call:
    """A job on its way to a thread and back. Who takes the ticket starts it, or withdraws it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.over: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.ticket = Ticket()


class ThreadFunctionHandler:
    """Calls `function` in up to `threads` threads; `timeout` and `kill_after` are seconds."""

    def __init__(
        self, function: Function, *, threads: int, timeout: float, kill_after: float
    ) -> None:
        self._function = function
        self._most = threads
        self._timeout = timeout
        self._kill_after = kill_after
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._finished: deque[tuple[_Call, Outcome]] = deque()
        self._is_telling = False
        self._waiting = 0
        # By the number of the file: functions that nobody waits for any more, and that still run.
        self._left: dict[int, _Call] = {}

    async def run(self, job: Job) -> Outcome:
        """Call it, and wait for `timeout`.

        Cancelling withdraws what no thread has yet; for what runs it waits `kill_after`, or until
        it is cancelled again.
        """
        began = time.monotonic()
        outcome = await self._outcome(job)
        return replace(outcome, duration_ms=round((time.monotonic() - began) * 1000, 3))

    async def close(self) -> None:
        """End the threads. One whose function does not return is left behind."""
        for _ in self._threads:
            self._calls.put(None)
        deadline = time.monotonic() + (0.0 if self._left else _CLOSE_SECONDS)
        for thread in self._threads:
            # They have nothing to do, and end in microseconds.
            thread.join(max(deadline - time.monotonic(), 0.0))
        self._threads.clear()

    async def _outcome(self, job: Job) -> Outcome:
        before = self._left.get(job.file_id)
        if before is not None:
            await asyncio.wait((before.over,), timeout=self._timeout)
            if not before.over.done():
                return Outcome("retry", "an attempt before this one still runs, in a thread")
        current = _Call(job)
        self._waiting += 1
        try:
            if not self._is_served():
                return Outcome("defer", "there can be no more threads just now")
            self._calls.put(current)
            await asyncio.wait((current.over,), timeout=self._timeout)
        except asyncio.CancelledError:
            await self._give_up(current)
            raise
        finally:
            self._waiting -= 1
        return current.over.result() if current.over.done() else self._too_late(current)

    def _is_served(self) -> bool:
        """Whether there is a thread for what waits; another one begins if there is a use for it."""
        if len(self._threads) < min(self._waiting + len(self._left), self._most):
            loop = asyncio.get_running_loop()
            name = f"function-{len(self._threads)}"
            # A daemon thread: a function that never returns must not keep the process from ending.
            thread = threading.Thread(target=self._work, args=(loop,), name=name, daemon=True)
            with suppress(RuntimeError):  # the machine has no more: those that are there have it
                thread.start()
                self._threads.append(thread)
        return bool(self._threads)

    def _too_late(self, current: _Call) -> Outcome:
        late = f"timed out after {self._timeout:g}s"
        if current.ticket.take():
            why = f"all {self._most} threads have functions that do not return"
            return Outcome("unavailable", f"{late}: {why}")
        self._leave(current)
        still = "it still runs, and keeps its place, for a thread cannot be ended"
        return Outcome("retry", f"{late}: {still}", suspect=True)

    async def _give_up(self, current: _Call) -> None:
        if current.ticket.take():
            return
        try:
            await asyncio.wait((current.over,), timeout=self._kill_after)
        finally:
            if not current.over.done():
                self._leave(current)

    def _leave(self, current: _Call) -> None:
        number = current.job.file_id
        self._left[number] = current
        current.over.add_done_callback(lambda _: self._left.pop(number, None))

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while (current := self._calls.get()) is not None:
            if not current.ticket.take():
                continue
            outcome = call(self._function, current.job)
            self._finished.append((current, outcome))
            if not self._is_telling:
                self._is_telling = True
                # One that comes back after the loop's end has nobody left who waits for it.
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        # First: what is finished from here on is told by another call, if not by this one.
        self._is_telling = False
        while self._finished:
            current, outcome = self._finished.popleft()
            if not current.over.done():
                current.over.set_result(outcome)
