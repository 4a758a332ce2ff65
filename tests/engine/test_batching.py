"""Questions asked one by one, answered together."""

import asyncio
from collections.abc import Sequence

import pytest

from daemon.engine.batching import Batcher
from daemon.errors import StoreUnavailable
from tests.engine.conftest import only


class Oracle:
    """Answers with the square, once it is allowed to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may = asyncio.Event()
        self.error: Exception | None = None
        self.faulty: int | None = None

    async def answer(self, questions: Sequence[int]) -> list[int]:
        self.batches.append(list(questions))
        await self.may.wait()
        error, self.error = self.error, None
        if error is not None:
            raise error
        if self.faulty in questions:
            raise ZeroDivisionError
        return [number**2 for number in questions]


async def test_what_queues_is_the_next_batch() -> None:
    """What is asked during one answer is answered by the next, each asker with its own answer."""
    oracle = Oracle()
    batcher = Batcher(oracle.answer)
    first = [only(batcher.ask([number])) for number in range(3)]
    await asyncio.sleep(0)
    second = [only(batcher.ask([number])) for number in range(3, 8)]
    oracle.may.set()
    assert await asyncio.gather(*first, *second) == [number**2 for number in range(8)]
    assert oracle.batches == [[0, 1, 2], [3, 4, 5, 6, 7]]


async def test_limit() -> None:
    """No batch is larger than the limit, and none is out of order."""
    oracle = Oracle()
    oracle.may.set()
    batcher = Batcher(oracle.answer, limit=4)
    await asyncio.gather(*[only(batcher.ask([number])) for number in range(10)])
    assert oracle.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_error_reaches_who_asked_for_it() -> None:
    """An error that one question meets reaches nobody else of its batch, and nobody after it."""
    oracle = Oracle()
    oracle.faulty = 1
    batcher = Batcher(oracle.answer)
    asked = [only(batcher.ask([number])) for number in range(3)]
    await asyncio.sleep(0)
    asked.append(only(batcher.ask([3])))
    oracle.may.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [each for each in answers if isinstance(each, int)] == [0, 4, 9]
    assert isinstance(answers[1], ZeroDivisionError)
    assert oracle.batches == [[0, 1, 2], [0], [1], [2], [3]]


async def test_nobody_waits_alone_for_a_database() -> None:
    """A database that is away reaches everybody in the batch: it is asked no more for each."""
    oracle = Oracle()
    oracle.error = StoreUnavailable("away")
    oracle.may.set()
    batcher = Batcher(oracle.answer)
    asked = [only(batcher.ask([number])) for number in range(3)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(each) for each in answers} == {StoreUnavailable}
    assert oracle.batches == [[0, 1, 2]]


@pytest.mark.parametrize("fails", [False, True])
async def test_cancelled_asker_disturbs_nobody(*, fails: bool) -> None:
    """An asker that is cancelled gets no answer; the others of its batch get theirs."""
    oracle = Oracle()
    oracle.faulty = 2 if fails else None
    batcher = Batcher(oracle.answer)
    first, second = only(batcher.ask([1])), only(batcher.ask([2]))
    await asyncio.sleep(0)
    first.cancel()
    oracle.may.set()
    if fails:
        with pytest.raises(ZeroDivisionError):
            await second
    else:
        assert await second == 4
    assert await only(batcher.ask([5])) == 25


async def test_close_waits_for_all() -> None:
    """`close` returns when all that was asked, also meanwhile, is answered."""
    oracle = Oracle()
    batcher = Batcher(oracle.answer, limit=1)
    futures = [only(batcher.ask([1])), only(batcher.ask([2]))]
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    futures.append(only(batcher.ask([3])))
    oracle.may.set()
    await closing
    assert all(future.done() for future in futures)
    await batcher.close()


async def test_several_batches_at_once() -> None:
    """So many batches are answered at a time as may be; what is asked in one round is one batch."""
    oracle = Oracle()
    batcher = Batcher(oracle.answer, limit=3, at_once=2)
    futures = [only(batcher.ask([number])) for number in range(4)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert oracle.batches == [[0, 1, 2], [3]]
    futures += [only(batcher.ask([number])) for number in (4, 5)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(oracle.batches) == 2
    oracle.may.set()
    assert await asyncio.gather(*futures) == [number**2 for number in range(6)]
    assert oracle.batches[2:] == [[4, 5]]
    await batcher.close()


async def test_whole_batches() -> None:
    """Beside another a batch is begun only when it is full; what is left waits for both to end."""
    oracle = Oracle()
    batcher = Batcher(oracle.answer, limit=3, at_once=2, whole=True)
    futures = []
    begun = []
    for number in range(8):
        futures.append(only(batcher.ask([number])))
        for _ in range(3):
            await asyncio.sleep(0)
        begun.append(len(oracle.batches))
    assert begun == [1, 1, 1, 2, 2, 2, 2, 2]
    oracle.may.set()
    assert await asyncio.gather(*futures) == [number**2 for number in range(8)]
    assert oracle.batches == [[0], [1, 2, 3], [4, 5, 6], [7]]
    await batcher.close()
