"""A thread that asks a disk which may hang: whoever waits for it is told so, and goes on."""

import asyncio
import errno
from collections.abc import Callable
from typing import Any, TypeVar

from daemon.handlers.threads import Threads

# In so many looks at the thread: a pause of the whole process counts as one of them.
TICKS = 4
# A thread that is seldom needed ends when it has had nothing to do for so long.
REST_SECONDS = 1.0
Answer = TypeVar("Answer")


class NoAnswer(TimeoutError):  # noqa: N818 - what came of the question, and read as that
    """The disk does not answer. What was asked may be answered yet, to nobody."""

    def __init__(self) -> None:
        super().__init__(errno.ETIMEDOUT, "its file system does not answer")


class Line(Threads):
    """Runs calls in order in one thread, and refuses them while that hangs.

    It hangs when none of its calls has gone on for longer than its `patience`; None: it is never
    said to, for nobody else waits for it. It ends when it is not needed, and begins with a call.
    """

    def __init__(self, name: str, patience: float | None) -> None:
        super().__init__(name, 1)
        self._patience = patience
        self._asked: set[asyncio.Future[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        # How far the calls have come; what that was when it was last looked at, and how often the
        # same since.
        self._steps = self._last = self._same = 0
        # Set while it does not answer; since when that is so, by the loop's clock.
        self.silent = asyncio.Event()
        self._since = 0.0

    @property
    def silent_for(self) -> float:
        """For how many seconds it has not answered; 0 while it does."""
        if not self.silent.is_set():
            return 0.0
        return asyncio.get_running_loop().time() - self._since

    def run(self, call: Callable[[], Answer]) -> asyncio.Future[Answer]:
        """Resolves to what `call` returns, to what it raises, or to `NoAnswer`.

        Raises:
            RuntimeError: there can be no thread for it just now, and none is to have it later.
        """
        if self.silent.is_set():
            refused: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            refused.set_exception(NoAnswer())
            return refused

        def work() -> Answer:
            self.go_on()
            return call()

        future = super().run(work)
        self._asked.add(future)
        if self._timer is None:
            self._same = 0
            self._wait()
        return future

    def go_on(self) -> None:
        """A call has come a step further; to be called in the thread."""
        self._steps += 1

    async def close(self) -> None:
        """End the thread after what it was given; one that hangs is left after a while."""
        self._forget_timer()
        await super().close()

    def _finish(self, future: asyncio.Future[Answer], settle: Callable[[], None]) -> None:
        super()._finish(future, settle)
        self._asked.discard(future)
        self._same = 0
        self.silent.clear()

    def _wait(self) -> None:
        seconds = REST_SECONDS if self._patience is None else self._patience / TICKS
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Has any call come further since the last time?"""
        self._timer = None
        if not self._unfinished:
            self.rest()
            return
        self._same = self._same + 1 if self._steps == self._last else 0
        self._last = self._steps
        if not self._same:
            self.silent.clear()
        elif self._same == TICKS and self._patience is not None:
            self._fall_silent(self._patience)
        self._wait()

    def _fall_silent(self, seconds: float) -> None:
        self._since = asyncio.get_running_loop().time() - seconds
        self.silent.set()
        asked, self._asked = self._asked, set()
        for future in asked:
            if not future.done():
                future.set_exception(NoAnswer())
