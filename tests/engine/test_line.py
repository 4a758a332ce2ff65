"""What asks a disk that may hang: an answer that does not come is an error, and holds up nobody."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from daemon.engine.line import Line, NoAnswer
from daemon.handlers import threads
from tests.engine.conftest import DEADLINE

pytestmark = pytest.mark.timeout(2 * DEADLINE)
PATIENCE = 0.05
NAMES = ("unhurried", "patient")


class Hang:
    """A call that does not return before it is let go."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.over.wait(DEADLINE)
        return "late"


@pytest.fixture
async def hang(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hang]:
    """One that is let go at the end, for no thread is to outlive its test."""
    monkeypatch.setattr(threads, "CLOSE_SECONDS", 0.01)
    hang = Hang()
    yield hang
    hang.over.set()


def named(name: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == name]


async def answering(line: Line) -> None:
    """Wait until it answers; nobody tells of that."""
    async with asyncio.timeout(DEADLINE):
        while line.silent.is_set():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0)


async def test_it_is_refused_while_it_hangs(hang: Hang) -> None:
    """A call that hangs, those behind it and those that come are refused, until it returns."""
    line = Line("test", PATIENCE)
    waiting = [line.run(hang), line.run(lambda: "behind")]
    for asked in waiting:
        with pytest.raises(NoAnswer, match="does not answer"):
            await asked
    assert line.silent_for >= PATIENCE
    with pytest.raises(NoAnswer):
        await line.run(lambda: "then")
    hang.over.set()
    await answering(line)
    assert line.silent_for == 0
    assert await line.run(lambda: "now") == "now"
    await line.close()


async def test_one_that_goes_on_does_not_hang() -> None:
    """However long a call takes, it is answered as long as it comes further."""
    line, steps = Line("test", PATIENCE), threading.Event()

    def work() -> str:
        for _ in range(20):
            line.go_on()
            steps.wait(PATIENCE / 5)
        return "slow"

    assert await line.run(work) == "slow"
    assert not line.silent.is_set()
    await line.close()


async def test_without_patience(hang: Hang, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only its own tree waits for is never refused."""
    monkeypatch.setattr("daemon.engine.line.REST_SECONDS", 0.001)
    line = Line("test", None)
    asked = line.run(hang)
    await asyncio.wait([asked], timeout=0.05)
    assert not asked.done()
    hang.over.set()
    assert await asked == "late"
    await line.close()


async def test_it_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that has nothing to do ends, and another begins with the next call."""
    monkeypatch.setattr("daemon.engine.line.REST_SECONDS", 0.001)
    lines = [Line("unhurried", None), Line("patient", PATIENCE)]
    for _ in range(2):
        for line in lines:
            assert await line.run(lambda: threading.current_thread().name) in NAMES
        async with asyncio.timeout(DEADLINE):
            while any(map(named, NAMES)):  # noqa: ASYNC110 - nobody tells of a thread
                await asyncio.sleep(0)
    await asyncio.gather(*(line.close() for line in lines))


async def test_a_stop_while_it_hangs(hang: Hang) -> None:
    """It is left behind; whoever waits for it was cancelled by then."""
    line = Line("test", PATIENCE)
    asked = line.run(hang)
    asked.cancel()
    await line.close()
    assert asked.cancelled()
