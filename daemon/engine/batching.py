"""Questions asked apart, answered together: the way to pay for a thread hop once a batch."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from daemon.errors import StoreUnavailable

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Group: TypeAlias = tuple[Sequence[Question], asyncio.Future[Sequence[Answer]]]


class Batcher(Generic[Question, Answer]):
    """Collects what is asked while the last batch is being answered; that is the next batch.

    No timer is needed: one question alone is answered at once, a thousand in one go. What is asked
    together is answered together. `at_once`: so many batches are being answered at a time; where
    they are `whole`, a further one is begun only when it is full, and so loses nothing by that.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]],
        limit: int = 1024,
        at_once: int = 1,
        *,
        whole: bool = False,
    ) -> None:
        self._answer = answer
        self._limit = limit
        self._at_once = at_once
        self._whole = whole
        self._asked: deque[Group[Question, Answer]] = deque()
        self._size = 0
        self._tasks: set[asyncio.Task[None]] = set()
        # A task is about to take what has been asked so far.
        self._starting = False

    def ask(self, questions: Sequence[Question]) -> asyncio.Future[Sequence[Answer]]:
        """Resolves to the answers in order, or to the exception that these questions met alone."""
        future: asyncio.Future[Sequence[Answer]] = asyncio.get_running_loop().create_future()
        self._asked.append((questions, future))
        self._size += len(questions)
        if not self._starting:
            self._start()
        return future

    async def close(self) -> None:
        """Wait until all that was asked is answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self) -> None:
        if len(self._tasks) < self._at_once and self._may_begin(len(self._tasks)):
            self._starting = True
            task = asyncio.get_running_loop().create_task(self._work())
            self._tasks.add(task)

    def _may_begin(self, others: int) -> bool:
        """Whether to begin a batch beside so many others."""
        return not others or not self._whole or self._size >= self._limit

    async def _work(self) -> None:
        self._starting = False
        try:
            while self._asked and self._may_begin(len(self._tasks) - 1):
                groups = self._take()
                if self._asked:
                    self._start()
                await self._resolve(groups)
        finally:
            # Here, and not in a callback: whoever asks in between would wait for nobody.
            if task := asyncio.current_task():
                self._tasks.discard(task)

    def _take(self) -> list["Group[Question, Answer]"]:
        """Whole groups, up to the limit; a group that is larger comes alone."""
        groups = [self._asked.popleft()]
        size = len(groups[0][0])
        while self._asked and (size := size + len(self._asked[0][0])) <= self._limit:
            groups.append(self._asked.popleft())
        self._size -= sum(len(questions) for questions, _ in groups)
        return groups

    async def _resolve(self, groups: list["Group[Question, Answer]"]) -> None:
        """After an error group by group: what one has asked is no trouble of the others."""
        try:
            answers = await self._answer([each for questions, _ in groups for each in questions])
        except Exception as error:  # noqa: BLE001 - each asker gets its own, and decides
            # A database that is away is nobody's doing, and would have each of them wait for it.
            if len(groups) > 1 and not isinstance(error, StoreUnavailable):
                for group in groups:
                    await self._resolve([group])
                return
            for _, future in groups:
                if not future.done():
                    future.set_exception(error)
            return
        at = 0
        for questions, future in groups:
            if not future.done():
                future.set_result(answers[at : at + len(questions)])
            at += len(questions)
