"""Programs are started in threads: what hangs there holds up nobody, and is not forgotten."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from daemon.handlers import starting
from daemon.handlers.running import end_at_once
from daemon.handlers.start import Start
from daemon.handlers.starting import THREADS, Starter
from tests.unit import shortage

LONG = 20.0


class Call:
    """A program that a call starts. `statuses`: of the runs of it that have ended."""

    def __init__(self, call: Callable[[], int]) -> None:
        self._call = call
        self.statuses: list[int] = []

    def launch(self) -> int:
        return self._call()

    def over(self, status: int) -> None:
        self.statuses.append(status)


def pid(number: int) -> Call:
    """One that is started at once and has this number, which is no child's of ours."""
    return Call(lambda: number)


def brief() -> int:
    """A real program that is over by then."""
    pid = os.posix_spawn("/bin/false", ["false"], {}, setsid=True)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


class Loading(Call):
    """Starts of a real program, each of which takes as long as the test wants."""

    def __init__(self) -> None:
        super().__init__(self.load)
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.pids: list[int] = []

    def load(self) -> int:
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
    others = [starter.start(pid(n)) for n in range(1, 100)]
    assert [await other.process(LONG, LONG) for other in others] == list(range(1, 100))
    assert not hanging.told


async def test_what_came_before_one_that_hangs(starter: Starter, loading: Loading) -> None:
    """A start that is over is told of, though the thread that would have told hangs by then."""
    waiting, ready = threading.Semaphore(0), threading.Event()

    def slow() -> int:
        waiting.release()
        assert ready.wait(LONG)
        return 7

    before = [starter.start(Call(slow)) for _ in range(THREADS)]
    for _ in before:
        assert await asyncio.to_thread(waiting.acquire, timeout=LONG)
    hanging = [starter.start(loading) for _ in range(THREADS)]
    ready.set()
    assert [await start.process(LONG, LONG) for start in before] == [7] * THREADS
    assert not [start for start in hanging if start.told]


async def test_over_by_then(starter: Starter, loading: Loading) -> None:
    """Which programs are over by the time they are told of is known, and how they ended."""
    loading.go_on.set()
    briefly = Call(brief)
    starts = [starter.start(program) for program in (briefly, loading) * 20]
    for start in starts:
        pid = await start.process(LONG, LONG)
        assert start.status == (None if pid in loading.pids else 1)
    assert briefly.statuses == [1] * 20
    assert loading.statuses == []


async def test_told_of_together(starter: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many at once the loop hears in few groups, and of the last of them as well."""
    monkeypatch.setattr(starting, "_LOOK_SECONDS", LONG)
    groups = 0
    told: set[int] = set()

    def count() -> None:
        nonlocal groups, told
        now = {number for number, start in enumerate(starts) if start.told}
        groups += now != told
        told = now
        if len(now) < len(starts):
            asyncio.get_running_loop().call_soon(count)

    starts = [starter.start(Call(brief)) for _ in range(128)]
    count()
    async with asyncio.timeout(LONG):
        await asyncio.gather(*(start.process(LONG, LONG) for start in starts))
    assert groups <= 32


async def test_why_there_is_none(starter: Starter) -> None:
    """What keeps a program from starting reaches whoever asked for it."""

    def refused() -> int:
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        await starter.start(Call(refused)).process(LONG, LONG)


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
    assert loading.statuses == [-9]
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
    starts = [starter.start(Call(late)) for _ in range(THREADS)]
    for start in starts:
        with pytest.raises(TimeoutError):
            await start.process(0.05, LONG)
    go_on.set()
    for start in starts:
        await over(start)
    assert await starter.start(pid(7)).process(LONG, LONG) == 7


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

    waiting = asyncio.create_task(starter.start(Call(refused)).process(LONG, LONG))
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
    assert await starter.start(pid(7)).process(LONG, LONG) == 7
    starts = [starter.start(pid(8)) for _ in range(9)]
    await starter.close()
    assert all(start.told for start in starts)
    assert [await start.process(LONG, LONG) for start in starts] == [8] * 9
    assert not [thread for thread in threading.enumerate() if thread.name == "start-test"]


async def test_no_more_threads(starter: Starter, loading: Loading) -> None:
    """Where there can be no thread nothing is started, now or later; one that is there goes on."""
    with shortage.of_threads():
        none = starter.start(loading)
        with pytest.raises(BlockingIOError):
            await none.process(LONG, LONG)
    first = starter.start(pid(7))
    with shortage.of_threads():
        second = starter.start(pid(8))
        assert [await start.process(LONG, LONG) for start in (first, second)] == [7, 8]
    assert loading.pids == []


def test_ended_by_somebody_else() -> None:
    """A program that somebody else has waited for is over: no thread ends for that."""
    pid = os.posix_spawn("/bin/true", ["true"], {}, setsid=True)
    os.waitpid(pid, 0)
    end_at_once(pid)
