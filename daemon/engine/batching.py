"""Questions asked apart, answered together: the way to pay for a thread hop once a batch."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Group: TypeAlias = tuple[Sequence[Question], asyncio.Future[Sequence[Answer]]]


class Batcher(Generic[Question, Answer]):
    """Collects what is asked while the last batch is being answered; that is the next batch.

    No timer is needed: one question alone is answered at once, a thousand in one go. What is asked
    together is answered together.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]],
        limit: int = 1024,
    ) -> None:
        self._answer = answer
        self._limit = limit
        self._asked: deque[Group[Question, Answer]] = deque()
        self._task: asyncio.Task[None] | None = None

    def ask(self, questions: Sequence[Question]) -> asyncio.Future[Sequence[Answer]]:
        """Resolves to the answers in order, or to the exception that the whole batch met."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Answer]] = loop.create_future()
        self._asked.append((questions, future))
        if self._task is None:
            self._task = loop.create_task(self._work())
        return future

    async def close(self) -> None:
        """Wait until all that was asked is answered."""
        while self._task is not None:
            await self._task

    async def _work(self) -> None:
        while self._asked:
            await self._resolve(self._take())
        self._task = None

    def _take(self) -> list["Group[Question, Answer]"]:
        """Whole groups, up to the limit; a group that is larger comes alone."""
        groups = [self._asked.popleft()]
        size = len(groups[0][0])
        while self._asked and (size := size + len(self._asked[0][0])) <= self._limit:
            groups.append(self._asked.popleft())
        return groups

    async def _resolve(self, groups: list["Group[Question, Answer]"]) -> None:
        try:
            answers = await self._answer([each for questions, _ in groups for each in questions])
        except Exception as error:  # noqa: BLE001 - each asker gets it, and decides
            for _, future in groups:
                if not future.done():
                    future.set_exception(error)
            return
        at = 0
        for questions, future in groups:
            if not future.done():
                future.set_result(answers[at : at + len(questions)])
            at += len(questions)
