"""Starts programs in threads: until one is loaded, whoever starts it stands still.

That is most of a millisecond while the machine is busy, and without end where the disk with the
program hangs: it must stop neither the other steps nor what watches over the daemon.
"""

import asyncio
import errno
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeAlias

from daemon.handlers.running import end_at_once
from daemon.handlers.ticket import Ticket

# Of one step. While one waits for its program to be loaded, the other goes on.
THREADS = 2
# What is started before the loop is told of it: to be told costs it as much as a start.
TOGETHER = 16
# A thread starts so many more before it tells of one that still runs: most programs that are over
# in a few milliseconds are over by then, and the loop does not have to watch over them.
AHEAD = 4
# When it looks for itself, should a thread hang that was about to tell.
_LOOK_SECONDS = 0.05
_CLOSE_SECONDS = 0.5
# What came of a start: its process, or what kept it from starting.
Became: TypeAlias = int | Exception
Begun: TypeAlias = tuple["Start", Became]


class Start:
    """A program on its way; `pid` resolves to its process, or to what kept it from starting.

    `ended`: it is known to be over by then, and nobody has waited for it.
    """

    __slots__ = ("_call", "_to_begin", "_to_keep", "cancelled", "ended", "pid")

    def __init__(self, call: Callable[[], int]) -> None:
        self._call = call
        self._to_begin = Ticket()
        self._to_keep = Ticket()
        # Whether `process` was cancelled and has returned a process all the same.
        self.cancelled = False
        self.ended = False
        self.pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def process(self, within: float, grace: float) -> int:
        """The process, which the caller then has to end: at once, if `cancelled` is set.

        Cancelling withdraws what no thread has begun with; for the rest it waits `grace`, or until
        it is cancelled again. What comes to be after all that is ended by its thread.

        Raises:
            TimeoutError: there is none `within` so many seconds.
            Exception: whatever kept it from starting.
        """
        while not self.pid.done():
            try:
                await asyncio.wait((self.pid,), timeout=grace if self.cancelled else within)
            except asyncio.CancelledError:
                if self._withdraw() or (self.cancelled and self._to_keep.take()):
                    raise
                self.cancelled = True
            else:
                if not self.pid.done() and (self._withdraw() or self._to_keep.take()):
                    raise asyncio.CancelledError if self.cancelled else TimeoutError
        if self.cancelled and self.pid.exception() is not None:
            raise asyncio.CancelledError
        return self.pid.result()

    def afterwards(self, call: Callable[[], None]) -> None:
        """Call when no thread has to do with it any more: most often that is now."""
        if self.pid.done():
            call()
        else:
            self.pid.add_done_callback(lambda _: call())

    def run(self) -> Became | None:
        """In a thread: start it. None: it was withdrawn."""
        if not self._to_begin.take():
            return None
        try:
            pid = self._call()
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            return error
        if not self._to_keep.take():
            end_at_once(pid)
        return pid

    def look(self, became: Became) -> bool:
        """In a thread: whether there is nothing left that could end."""
        if isinstance(became, int):
            with suppress(ChildProcessError):
                how = os.WEXITED | os.WNOHANG | os.WNOWAIT
                self.ended = os.waitid(os.P_PID, became, how) is not None
        return self.ended or isinstance(became, Exception)

    def tell(self, became: Became) -> None:
        """In the loop: say what came of it."""
        if isinstance(became, Exception):
            self.pid.set_exception(became)
            self.pid.exception()  # if nobody waits any more, nobody minds
        else:
            self.pid.set_result(became)

    def _withdraw(self) -> bool:
        if not self._to_begin.take():
            return False
        self.pid.cancel()
        return True


class Starter:
    """Runs starts in up to `THREADS` threads, which begin with the first of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[Start | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        # What threads have started: of each the latest, and of all what is to be told.
        self._latest: list[deque[Begun]] = []
        self._over: deque[Begun] = deque()
        self._unfinished = 0
        self._is_timed = False

    def start(self, call: Callable[[], int]) -> Start:
        """`call` starts a program and returns its process; it is called in a thread."""
        start = Start(call)
        start.afterwards(self._finished)
        self._unfinished += 1
        if len(self._threads) < min(self._unfinished, THREADS):
            self._begin_thread()
        if self._threads:
            self._queue.put(start)
            self._look_later()
        else:
            start.tell(BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
        return start

    async def close(self) -> None:
        """End the threads; one that hangs is left behind. What the others have is told by then."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(_CLOSE_SECONDS)
        self._threads.clear()
        self._tell_all()
        await asyncio.sleep(0)  # whoever waits for it `afterwards` is called

    def _begin_thread(self) -> None:
        latest: deque[Begun] = deque()
        args = asyncio.get_running_loop(), latest
        # A daemon thread: one that hangs must not keep the process from ending.
        thread = threading.Thread(target=self._work, args=args, name=self._name, daemon=True)
        with suppress(RuntimeError):  # there may be no more just now: those that are there have it
            thread.start()
            self._threads.append(thread)
            self._latest.append(latest)

    def _work(self, loop: asyncio.AbstractEventLoop, latest: deque[Begun]) -> None:
        untold = 0
        while True:
            try:
                start = self._queue.get_nowait()
            except Empty:
                if self._pass_on(latest, 0) + untold:
                    untold = 0
                    self._wake(loop)
                start = self._queue.get()
            if start is None:
                return
            if (became := start.run()) is not None:
                latest.append((start, became))
            untold += self._pass_on(latest, AHEAD)
            if untold >= TOGETHER:
                untold = 0
                self._wake(loop)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile, and nobody waits
            loop.call_soon_threadsafe(self._tell)

    def _pass_on(self, latest: deque[Begun], most: int) -> int:
        """Have told of those that are over, and of others but `most`; how many that were."""
        count = 0
        with suppress(IndexError):  # there are no more, or the loop has taken them
            while True:
                start, became = latest.popleft()
                if not start.look(became) and len(latest) < most:
                    latest.appendleft((start, became))
                    break
                self._over.append((start, became))
                count += 1
        return count

    def _tell(self) -> None:
        while self._over:
            start, became = self._over.popleft()
            start.tell(became)

    def _tell_all(self) -> None:
        for latest in self._latest:
            self._pass_on(latest, 0)
        self._tell()

    def _finished(self) -> None:
        self._unfinished -= 1

    def _look_later(self) -> None:
        """Whoever would have told us of others may hang by now."""
        if not self._is_timed:
            self._is_timed = True
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._is_timed = False
        self._tell_all()
        if self._unfinished:
            self._look_later()
