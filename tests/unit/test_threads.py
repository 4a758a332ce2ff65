"""Threads of our own: as many as are needed, up to a number, and none that hangs is waited for."""

import asyncio
import threading

import pytest

from daemon.handlers import threads
from daemon.handlers.threads import Threads
from tests.unit import shortage


async def test_as_many_as_are_needed() -> None:
    """One call at a time takes one thread; at once there are no more than were allowed."""
    pool, barrier = Threads("test", 3), threading.Barrier(3)
    assert len({await pool.run(threading.get_ident) for _ in range(5)}) == 1
    assert sorted(await asyncio.gather(*(pool.run(barrier.wait) for _ in range(6)))) == [
        *(0, 0, 1, 1, 2, 2)
    ]
    assert len([each for each in threading.enumerate() if each.name == "test"]) == 3
    await pool.close()
    assert not [each for each in threading.enumerate() if each.name == "test"]


async def test_what_a_call_raises() -> None:
    """Whoever asked gets it, and the thread goes on."""
    pool = Threads("test", 1)
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0)
    assert await pool.run(lambda: 1) == 1
    await pool.close()


async def test_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others do not wait for it, though nobody waits for it any more; nor does the end."""
    monkeypatch.setattr(threads, "CLOSE_SECONDS", 0.01)
    pool, answers = Threads("test", 2), threading.Event()
    hanging = pool.run(answers.wait)
    hanging.cancel()
    assert await pool.run(lambda: 1) == 1
    await pool.close()
    answers.set()


async def test_no_thread() -> None:
    """A call for which there is no thread is never made, and one behind another waits for that."""
    pool, made = Threads("test", 2), []
    with shortage.of_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
        pool.run(lambda: made.append(1))
    answers = threading.Event()
    first = pool.run(answers.wait)
    with shortage.of_threads():
        second = pool.run(lambda: made.append(2))
    answers.set()
    await asyncio.gather(first, second)
    assert made == [2]
    await pool.close()
