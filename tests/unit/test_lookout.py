"""A thread that looks out for something while the loop sleeps."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from daemon.engine import lookout
from daemon.engine.lookout import Lookout

DEADLINE = 20


async def started(ask: Callable[[], bool]) -> Lookout:
    """One that has begun, and asks all the time."""
    made = Lookout("test", ask, 0.001)
    await made.run(lambda: None)
    return made


async def test_it_tells_of_a_yes_and_of_no_no() -> None:
    """It asks by itself until the answer is yes, and only then is anybody woken."""
    answers = [False, False, True]
    asking = await started(lambda: answers.pop(0) if answers else False)
    async with asyncio.timeout(DEADLINE):
        await asking.due.wait()
    assert answers == []
    await asking.close()


async def test_it_asks_again_after_a_call() -> None:
    """What it is given to do is done in between, and does not end the asking."""
    asked = threading.Semaphore(0)

    def ask() -> bool:
        asked.release()
        return False

    asking = await started(ask)
    for _ in range(3):
        assert await asyncio.to_thread(asked.acquire, timeout=DEADLINE)
        assert await asking.run(threading.current_thread) in threading.enumerate()
    assert not asking.due.is_set()
    await asking.close()


async def test_a_question_that_fails_is_a_yes() -> None:
    """Whoever looks then meets the error itself, and the asking goes on."""
    asking = await started(lambda: 1 // 0 == 1)
    async with asyncio.timeout(DEADLINE):
        for _ in range(2):
            await asking.due.wait()
            asking.due.clear()
    await asking.close()


async def test_one_that_hangs_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question, or a call, that does not come back for long can be told from peace."""
    monkeypatch.setattr(lookout, "LATE_SECONDS", 0.05)
    asked, answer = threading.Event(), threading.Event()

    def ask() -> bool:
        asked.set()
        return answer.wait(DEADLINE)

    asking = await started(ask)
    assert await asyncio.to_thread(asked.wait, DEADLINE)
    async with asyncio.timeout(DEADLINE):
        while not asking.is_late():  # noqa: ASYNC110 - time alone makes it so
            await asyncio.sleep(0)
        answer.set()
        await asking.due.wait()
        while asking.is_late():  # noqa: ASYNC110 - no event tells that the thread is back
            await asyncio.sleep(0)
    await asking.close()
