"""One program on its way: asked for in the loop, started in a thread, and told of in the loop."""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeAlias

from daemon.handlers.running import end_at_once, status_if_over
from daemon.handlers.ticket import Ticket

_KILLED = -9
# What came of a start: its process, or what kept it from starting.
Became: TypeAlias = int | Exception


class Program(Protocol):
    """What is done in a thread: blocking there holds up nobody but others of the same step."""

    def launch(self) -> int:
        """Start it; its process. Whatever keeps it from starting is raised."""
        ...

    def over(self, status: int) -> None:
        """It has ended, and been waited for."""
        ...


class Start:
    """A program on its way. `status`: it is over, has been waited for, and ended so.

    `cancelled`: `process` was cancelled, and has returned all the same.
    """

    __slots__ = (
        "_afterwards",
        "_became",
        "_deadline",
        "_loop",
        "_news",
        "_program",
        "_to_begin",
        "_to_keep",
        "cancelled",
        "status",
        "told",
    )

    def __init__(self, program: Program) -> None:
        self._program: Program | None = program
        self._to_begin = Ticket()
        self._to_keep = Ticket()
        self._became: Became = 0
        self._afterwards: list[Callable[[], object]] = []
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Future[None] = self._loop.create_future()
        self._deadline: float | None = None
        self.cancelled = False
        self.status: int | None = None
        # No thread has to do with it any more.
        self.told = False

    async def process(self, within: float, grace: float) -> int:
        """The process, which the caller then has to end: at once, if `cancelled` is set.

        Where there is a `status` there is nothing left to end. Cancelling withdraws what no thread
        has begun with; for the rest it waits `grace`, or until it is cancelled again. What comes to
        be after all that is ended by its thread.

        Raises:
            TimeoutError: there is none `within` so many seconds.
            Exception: whatever kept it from starting.
        """
        self._deadline = self._loop.time() + within
        while not self.told:
            try:
                await self._news
            except asyncio.CancelledError:
                if self._withdraw() or (self.cancelled and self._to_keep.take()):
                    raise
                self.cancelled = True
                self._deadline = self._loop.time() + grace
                self._news = self._loop.create_future()
            except TimeoutError:
                if self.cancelled:
                    raise asyncio.CancelledError from None
                raise
        if not isinstance(self._became, Exception):
            return self._became
        raise asyncio.CancelledError if self.cancelled else self._became

    def expire(self, now: float) -> None:
        """In the loop: give it up, if its time is over."""
        if self._deadline is None or now < self._deadline or self._news.done():
            return
        if self._withdraw() or self._to_keep.take():
            self._news.set_exception(TimeoutError())

    def afterwards(self, call: Callable[[], object]) -> None:
        """Call when no thread has to do with it any more: most often that is now."""
        if self.told:
            call()
        else:
            self._afterwards.append(call)

    def run(self) -> Became | None:
        """In a thread: start it. None: it was withdrawn."""
        program = self._program
        if program is None or not self._to_begin.take():
            return None
        try:
            pid = program.launch()
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            return error
        if not self._to_keep.take():
            end_at_once(pid)
            self._ended(_KILLED)
        return pid

    def look(self, became: Became) -> bool:
        """In a thread: whether there is nothing left that could end.

        Of one that is to be ended the number is kept from being another group's: what it has
        started ends with it.
        """
        if isinstance(became, int) and self.status is None and not self.cancelled:
            status = status_if_over(became)
            if status is not None:
                self._ended(status)
        return self.status is not None or isinstance(became, Exception)

    def tell(self, became: Became) -> None:
        """In the loop: say what came of it."""
        self._became = became
        self._finish()
        if not self._news.done():
            self._news.set_result(None)

    def _ended(self, status: int) -> None:
        if self._program is not None:
            self._program.over(status)
        self.status = status

    def _withdraw(self) -> bool:
        if not self._to_begin.take():
            return False
        self._finish()
        return True

    def _finish(self) -> None:
        self.told = True
        for call in self._afterwards:
            call()
        # Each knows of the other, and nobody looks for such rings.
        self._program = None
        self._afterwards.clear()
