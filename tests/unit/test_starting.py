"""Programs are started in threads: what hangs there holds up nobody, and is not forgotten."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from daemon.handlers.running import end_at_once
from daemon.handlers.starting import THREADS, Start, Starter
from tests.unit import shortage

LONG = 20.0


class Loading:
    """Starts of a real program, each of which takes as long as the test wants."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.pids: list[int] = []

    def __call__(self) -> int:
        self.begun.release()
        assert self.go_on.wait(LONG)
        pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], {}, setsid=True)
        self.pids.append(pid)
        return pid

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=LONG)


@pytest.fixture
async def starter() -> AsyncIterator[Starter]:
    starter = Starter("start-test")
    yield starter
    await starter.close()


@pytest.fixture
async def loading(starter: Starter) -> AsyncIterator[Loading]:
    loading = Loading()
    yield loading
    loading.go_on.set()
    await starter.close()  # from here on no thread makes any more of them
    for pid in loading.pids:
        with suppress(ProcessLookupError, ChildProcessError):
            os.killpg(pid, 9)
            os.waitpid(pid, 0)  # noqa: ASYNC222 - it is dead


async def over(start: Start) -> None:
    """Wait until no thread has to do with it."""
    event = asyncio.Event()
    start.afterwards(event.set)
    async with asyncio.timeout(LONG):
        await event.wait()


async def test_one_that_hangs_holds_up_no_other(starter: Starter, loading: Loading) -> None:
    """While a program is loaded the loop turns, and the next one is started."""
    hanging = starter.start(loading)
    await loading.has_begun()
    others = [starter.start(lambda n=n: n) for n in range(1, 100)]  # type: ignore[misc]
    assert [await other.process(LONG, LONG) for other in others] == list(range(1, 100))
    assert not hanging.pid.done()


async def test_what_came_before_one_that_hangs(starter: Starter, loading: Loading) -> None:
    """A start that is over is told of, though the thread that would have told hangs by then."""
    waiting, ready = threading.Semaphore(0), threading.Event()

    def slow() -> int:
        waiting.release()
        assert ready.wait(LONG)
        return 7

    before = [starter.start(slow) for _ in range(THREADS)]
    for _ in before:
        assert await asyncio.to_thread(waiting.acquire, timeout=LONG)
    hanging = [starter.start(loading) for _ in range(THREADS)]
    ready.set()
    assert [await start.process(LONG, LONG) for start in before] == [7] * THREADS
    assert not [start for start in hanging if start.pid.done()]


async def test_over_by_then(starter: Starter, loading: Loading) -> None:
    """It is known which programs are over by the time they are told of; nobody waited for them."""

    def brief() -> int:
        pid = os.posix_spawn("/bin/true", ["true"], {}, setsid=True)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return pid

    loading.go_on.set()
    starts = [starter.start(call) for call in (brief, loading) * 20]
    for start in starts:
        pid = await start.process(LONG, LONG)
        assert start.ended == (pid not in loading.pids)
        waited_for, _ = os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - it does not block
        assert waited_for == (pid if start.ended else 0)


async def test_why_there_is_none(starter: Starter) -> None:
    """What keeps a program from starting reaches whoever asked for it."""

    def refused() -> int:
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        await starter.start(refused).process(LONG, LONG)


async def test_out_of_time(starter: Starter, loading: Loading) -> None:
    """A program that comes to be after its time is ended at once, and only then it is over."""
    start = starter.start(loading)
    await loading.has_begun()
    with pytest.raises(TimeoutError):
        await start.process(0.05, LONG)
    called: list[int] = []
    start.afterwards(lambda: called.append(1))
    assert called == []
    loading.go_on.set()
    await over(start)
    assert called == [1]
    with pytest.raises(ProcessLookupError):
        os.kill(loading.pids[0], 0)


async def test_out_of_time_and_out_of_reach(
    starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has become another user's ends when it wants; its thread goes on after that."""
    go_on = threading.Event()

    def late() -> int:
        assert go_on.wait(LONG)
        return os.posix_spawn("/bin/true", ["true"], {}, setsid=True)

    def refuse(_pid: int, _number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "killpg", refuse)
    starts = [starter.start(late) for _ in range(THREADS)]
    for start in starts:
        with pytest.raises(TimeoutError):
            await start.process(0.05, LONG)
    go_on.set()
    for start in starts:
        await over(start)
    assert await starter.start(lambda: 7).process(LONG, LONG) == 7


async def test_waits_for_a_thread_in_vain(starter: Starter, loading: Loading) -> None:
    """What no thread has begun with is withdrawn, by its time or by a cancellation: it never is."""
    hanging = [starter.start(loading) for _ in range(THREADS)]
    for _ in hanging:
        await loading.has_begun()
    late, unwanted = starter.start(loading), starter.start(loading)
    with pytest.raises(TimeoutError):
        await late.process(0.05, LONG)
    waiting = asyncio.create_task(unwanted.process(LONG, LONG))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting], timeout=LONG)
    assert waiting.cancelled()
    await over(late)
    await over(unwanted)
    loading.go_on.set()
    for start in hanging:
        await start.process(LONG, LONG)
    assert len(loading.pids) == THREADS


async def test_cancelled_while_it_is_loaded(starter: Starter, loading: Loading) -> None:
    """A process that comes in time for a cancellation is its caller's to end."""
    start = starter.start(loading)
    await loading.has_begun()
    waiting = asyncio.create_task(start.process(LONG, LONG))
    await asyncio.sleep(0)
    waiting.cancel()
    loading.go_on.set()
    assert await waiting == loading.pids[0]
    assert start.cancelled
    os.kill(loading.pids[0], 0)


async def test_cancelled_and_none_comes(starter: Starter) -> None:
    """A cancellation is one, too, when there is no process for its caller to end."""
    begun, go_on = threading.Event(), threading.Event()

    def refused() -> int:
        begun.set()
        assert go_on.wait(LONG)
        raise PermissionError("no")

    waiting = asyncio.create_task(starter.start(refused).process(LONG, LONG))
    assert await asyncio.to_thread(begun.wait, LONG)
    waiting.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait([waiting], timeout=LONG)
    assert waiting.cancelled()


@pytest.mark.parametrize("grace", [0.05, LONG])
async def test_cancelled_for_good(starter: Starter, loading: Loading, grace: float) -> None:
    """After its grace, or when it is cancelled again, nobody waits; what comes then is ended."""
    start = starter.start(loading)
    await loading.has_begun()
    waiting = asyncio.create_task(start.process(LONG, grace))
    await asyncio.sleep(0)
    waiting.cancel()
    if grace == LONG:
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.wait([waiting], timeout=LONG / 2)
    assert waiting.cancelled()
    loading.go_on.set()
    await over(start)
    with pytest.raises(ProcessLookupError):
        os.kill(loading.pids[0], 0)


async def test_closed(starter: Starter) -> None:
    """Once it is closed its threads are gone, however many had begun, and all is told of."""
    assert await starter.start(lambda: 7).process(LONG, LONG) == 7
    starts = [starter.start(lambda: 8) for _ in range(9)]
    await starter.close()
    assert [start.pid.result() for start in starts] == [8] * 9
    assert not [thread for thread in threading.enumerate() if thread.name == "start-test"]


async def test_no_more_threads(starter: Starter, loading: Loading) -> None:
    """Where there can be no thread nothing is started, now or later; one that is there goes on."""
    with shortage.of_threads():
        none = starter.start(loading)
        with pytest.raises(BlockingIOError):
            await none.process(LONG, LONG)
    first = starter.start(lambda: 7)
    with shortage.of_threads():
        second = starter.start(lambda: 8)
        assert [await start.process(LONG, LONG) for start in (first, second)] == [7, 8]
    assert loading.pids == []


def test_ended_by_somebody_else() -> None:
    """A program that somebody else has waited for is over: no thread ends for that."""
    pid = os.posix_spawn("/bin/true", ["true"], {}, setsid=True)
    os.waitpid(pid, 0)
    end_at_once(pid)
