"""Starts programs in threads: until one is loaded, whoever starts it stands still.

That is most of a millisecond while the machine is busy, and without end where the disk with the
program hangs: it must stop neither the other steps nor what watches over the daemon.

Most programs are over a few milliseconds later, and then their thread waits for them as well: what
is left to the loop is to hear of them, many at a time.
"""

import asyncio
import errno
import os
import threading
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeAlias

from daemon.handlers.start import Became, Program, Start

# Of one step. While one waits for its program to be loaded, the other goes on.
THREADS = 2
# A thread starts so many more before it leaves one that still runs to the loop: most programs that
# are over in a few milliseconds are over by then, and the loop does not have to watch over them.
AHEAD = 8
# And one that has nothing more to start waits so long before it does.
_PATIENCE = 0.002
# When the loop looks for itself, should a thread hang that was about to tell; and whose time is up.
_LOOK_SECONDS = 0.05
_CLOSE_SECONDS = 0.5
Begun: TypeAlias = tuple[Start, Became]


class Starter:
    """Runs starts in up to `THREADS` threads, which begin with the first of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[Start | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        # What threads have started: of each the latest, and of all what is to be told.
        self._latest: list[deque[Begun]] = []
        self._oldest: list[Start | None] = []
        self._over: deque[Begun] = deque()
        # The loop was told that there is something, and has not heard it yet.
        self._is_called = False
        self._unfinished: set[Start] = set()
        self._is_timed = False

    def start(self, program: Program) -> Start:
        """Have it launched in a thread."""
        start = Start(program)
        self._unfinished.add(start)
        start.afterwards(lambda: self._unfinished.discard(start))
        if len(self._threads) < min(len(self._unfinished), THREADS):
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

    def _begin_thread(self) -> None:
        latest: deque[Begun] = deque()
        args = asyncio.get_running_loop(), latest
        # A daemon thread: one that hangs must not keep the process from ending.
        thread = threading.Thread(target=self._work, args=args, name=self._name, daemon=True)
        with suppress(RuntimeError):  # there may be no more just now: those that are there have it
            thread.start()
            self._threads.append(thread)
            self._latest.append(latest)
            self._oldest.append(None)

    def _work(self, loop: asyncio.AbstractEventLoop, latest: deque[Begun]) -> None:
        while True:
            start = self._next(loop, latest)
            if start is None:
                return
            if (became := start.run()) is not None:
                latest.append((start, became))
            self._pass_on(latest, AHEAD)
            # One half of them is told of, and replaced, while the other is started: the more the
            # loop hears of at once, and writes to the database, the less each of them costs.
            if len(self._over) >= self._queue.qsize():
                self._call(loop)

    def _next(self, loop: asyncio.AbstractEventLoop, latest: deque[Begun]) -> Start | None:
        with suppress(Empty):
            return self._queue.get_nowait()
        if latest:
            self._call(loop)
            with suppress(Empty):
                return self._queue.get(timeout=_PATIENCE)
            self._pass_on(latest, 0)
        self._call(loop)
        return self._queue.get()

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        # In this order: what is put there after the look has somebody who takes it away.
        if self._over and not self._is_called:
            self._is_called = True
            with suppress(RuntimeError):  # the loop was closed meanwhile, and nobody waits
                loop.call_soon_threadsafe(self._tell)

    def _pass_on(self, latest: deque[Begun], most: int) -> None:
        """Have told of those that are over, and of others but `most`."""
        with suppress(IndexError):  # there are no more, or the loop has taken them
            while True:
                start, became = latest.popleft()
                if not start.look(became) and len(latest) < most:
                    latest.appendleft((start, became))
                    break
                self._over.append((start, became))

    def _tell(self) -> None:
        self._is_called = False
        while self._over:
            start, became = self._over.popleft()
            start.tell(became)

    def _tell_all(self) -> None:
        for latest in self._latest:
            self._pass_on(latest, 0)
        self._tell()

    def _look_later(self) -> None:
        """Whoever would have told us of others may hang by now."""
        if not self._is_timed:
            self._is_timed = True
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._is_timed = False
        for number, latest in enumerate(self._latest):
            before, self._oldest[number] = self._oldest[number], _first(latest)
            if before is not None and before is self._oldest[number]:
                self._pass_on(latest, 0)  # its thread hangs
        self._tell()
        now = asyncio.get_running_loop().time()
        for start in list(self._unfinished):
            start.expire(now)
        if self._unfinished:
            self._look_later()


def _first(latest: deque[Begun]) -> Start | None:
    with suppress(IndexError):
        return latest[0][0]
    return None
