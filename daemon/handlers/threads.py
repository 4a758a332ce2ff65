"""Threads of our own for calls that block, with a future for each."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TypeAlias, TypeVar

Answer = TypeVar("Answer")
CLOSE_SECONDS = 2.0
Task = Callable[[], None]
Tasks: TypeAlias = "SimpleQueue[Task | None]"


class Threads:
    """Runs calls in up to `most` threads, which begin as they are needed; in one thread in order.

    Daemon threads, unlike those of the loop's executor: a disk that hangs, or a reader that
    stalls for ever, must not keep the process from ending. Nor does it hold up those who have
    threads of their own. And half the price: 17 us an empty call where `asyncio.to_thread` takes
    34 to 50.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name[:15]  # the kernel keeps no more
        self._most = most
        self._tasks: Tasks = SimpleQueue()
        # Each with what resolves at its end.
        self._threads: dict[threading.Thread, asyncio.Future[None]] = {}
        # Calls that wait or run, whether or not somebody still waits for them.
        self._unfinished = 0

    def run(self, call: Callable[[], Answer]) -> asyncio.Future[Answer]:
        """Resolves to what `call` returns, or to what it raises.

        Raises:
            RuntimeError: there can be no thread for it just now, and none is to have it later.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if len(self._threads) < min(self._unfinished + 1, self._most):
            self._begin_thread(loop)
        self._unfinished += 1
        self._tasks.put(lambda: self._answer(call, future, loop))
        return future

    async def close(self) -> None:
        """End the threads after what they were given; one that hangs is left after a while."""
        threads, self._threads = self._threads, {}
        for _ in threads:
            self._tasks.put(None)
        if threads:
            await asyncio.wait(threads.values(), timeout=CLOSE_SECONDS)
        for thread, over in threads.items():
            if over.done():
                # Nothing is left that could hang: it is at its end, in microseconds.
                thread.join(CLOSE_SECONDS)

    def rest(self) -> None:
        """Let the threads end, if nothing is to be done; the next call begins others."""
        if not self._unfinished:
            tasks, self._tasks = self._tasks, SimpleQueue()
            for _ in self._threads:
                tasks.put(None)
            self._threads = {}

    def _begin_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        over = loop.create_future()
        args = self._tasks, loop, over
        thread = threading.Thread(target=self._work, args=args, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the machine has no more: those that are there have it
            if not self._threads:
                raise
        else:
            self._threads[thread] = over

    def _work(
        self, tasks: Tasks, loop: asyncio.AbstractEventLoop, over: asyncio.Future[None]
    ) -> None:
        while (task := self._next(tasks, loop)) is not None:
            task()
        tell(loop, partial(_settle, over, lambda: over.set_result(None)))

    def _next(self, tasks: Tasks, _loop: asyncio.AbstractEventLoop) -> Task | None:
        return tasks.get()

    def _answer(
        self,
        call: Callable[[], Answer],
        future: asyncio.Future[Answer],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        try:
            answer = call()
        except BaseException as error:  # noqa: BLE001 - whoever asked gets it
            failed = error  # `error` is unbound where this clause ends
            tell(loop, partial(self._finish, future, lambda: future.set_exception(failed)))
        else:
            tell(loop, partial(self._finish, future, lambda: future.set_result(answer)))

    def _finish(self, future: asyncio.Future[Answer], settle: Callable[[], None]) -> None:
        self._unfinished -= 1
        _settle(future, settle)


def tell(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Have the loop make a call; from another thread."""
    # What comes after the loop's end has nobody left who waits for it.
    if not loop.is_closed():
        with suppress(RuntimeError):  # it was closed in this very moment
            loop.call_soon_threadsafe(call)


def _settle(future: asyncio.Future[Answer], settle: Callable[[], None]) -> None:
    if not future.done():
        settle()
