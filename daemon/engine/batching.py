"""Questions asked one by one, answered together: the way to pay for a thread hop once a batch."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Batcher(Generic[Question, Answer]):
    """Collects what is asked while the last batch is being answered; that is the next batch.

    No timer is needed: one question alone is answered at once, a thousand in one go.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]],
        limit: int = 1024,
    ) -> None:
        self._answer = answer
        self._limit = limit
        self._asked: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    def ask(self, question: Question) -> asyncio.Future[Answer]:
        """Resolves to the answer, or to the exception that its whole batch met."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._asked.append((question, future))
        if self._task is None:
            self._task = loop.create_task(self._work())
        return future

    async def close(self) -> None:
        """Wait until all that was asked is answered."""
        while self._task is not None:
            await self._task

    async def _work(self) -> None:
        while self._asked:
            batch, self._asked = self._asked[: self._limit], self._asked[self._limit :]
            await self._resolve(batch)
        self._task = None

    async def _resolve(self, batch: list[tuple[Question, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._answer([question for question, _ in batch])
        except Exception as error:  # noqa: BLE001 - each asker gets it, and decides
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
