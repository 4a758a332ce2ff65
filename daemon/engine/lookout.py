"""A thread of our own that looks out for something, so that the loop can sleep meanwhile."""

import asyncio
import time
from collections.abc import Callable
from queue import Empty

from daemon.engine.worker import Worker
from daemon.handlers.threads import Task, Tasks, tell

# A thread that has not come back for so long hangs.
LATE_SECONDS = 5.0


class Lookout(Worker):
    """A worker that asks a question when it has had nothing to do for a while, and again.

    If the answer is yes, or there can be none, `due` is set; whoever waits for it clears it, and
    looks. Were the loop to ask, it would be woken twice each time, by the timer and the answer:
    with two questions a second, two thirds of what an idle daemon costs. It begins with the first
    call that it is given.
    """

    def __init__(self, name: str, ask: Callable[[], bool], seconds: float) -> None:
        super().__init__(name)
        self.due = asyncio.Event()
        self._ask = ask
        self.seconds = seconds
        self._back = time.monotonic()

    def is_late(self) -> bool:
        """Whether the thread hangs in a call, or in the question."""
        return time.monotonic() - self._back > self.seconds + LATE_SECONDS

    def _next(self, tasks: Tasks, loop: asyncio.AbstractEventLoop) -> Task | None:
        while True:
            self._back = time.monotonic()
            try:
                return tasks.get(timeout=self.seconds)
            except Empty:
                if self._is_yes():
                    tell(loop, self.due.set)

    def _is_yes(self) -> bool:
        try:
            return self._ask()
        except Exception:  # noqa: BLE001 - whoever looks then meets it where it can be told
            return True
