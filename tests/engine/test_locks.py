"""The per-path lock map."""

import asyncio

import pytest

from daemon.core.model import Row
from daemon.engine.locks import Hold, LockMap
from tests.engine.conftest import key


class Turns:
    """Holders of one path that write down when they come in, and leave when told."""

    def __init__(self) -> None:
        self.locks = LockMap()
        self.entered: list[int] = []
        self.leave = [asyncio.Event() for _ in range(4)]

    async def hold(self, number: int, name: str = "a") -> None:
        async with self.locks.hold(key(name)):
            self.entered.append(number)
            await self.leave[number].wait()

    def start(self, *numbers: int) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.hold(number)) for number in numbers]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_first_come_first_served() -> None:
    """Holders of one path pass one by one, in the order in which they came."""
    turns = Turns()
    tasks = turns.start(0, 1, 2, 3)
    for number in range(4):
        await settle()
        assert turns.entered == list(range(number + 1))
        turns.leave[number].set()
    await asyncio.gather(*tasks)


async def test_paths_do_not_wait_for_each_other() -> None:
    """Another path is held at the same time."""
    turns = Turns()
    async with turns.locks.hold(key("a")), turns.locks.hold(key("b")):
        assert len(turns.locks) == 2


async def test_cancelled_waiter_leaves_the_line() -> None:
    """Who is cancelled while waiting does not get the lock, and those behind do."""
    turns = Turns()
    first, second, third = turns.start(0, 1, 2)
    await settle()
    second.cancel()
    turns.leave[0].set()
    await settle()
    assert turns.entered == [0, 2]
    turns.leave[2].set()
    await asyncio.gather(first, third)
    assert len(turns.locks) == 0


async def test_cancelled_in_the_moment_of_its_turn() -> None:
    """Who is cancelled just when the lock was given passes it on."""
    turns = Turns()
    first, second, third = turns.start(0, 1, 2)
    await settle()
    turns.leave[0].set()
    await asyncio.sleep(0)
    second.cancel()
    await settle()
    assert turns.entered == [0, 2]
    turns.leave[2].set()
    await asyncio.gather(first, third)
    assert len(turns.locks) == 0


async def test_error_inside_passes_the_lock_on() -> None:
    """A holder that raises gives the lock back."""
    turns = Turns()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the way out is the subject
        async with turns.locks.hold(key("a")):
            (waiting,) = turns.start(0)
            await settle()
            raise ZeroDivisionError
    turns.leave[0].set()
    await waiting
    assert turns.entered == [0]


async def test_row_is_handed_on() -> None:
    """What a holder leaves in the slot its follower finds there; an idle path keeps nothing."""
    locks = LockMap()
    row = Row(1, key("a"))

    async def follower() -> Row | None:
        async with locks.hold(key("a")) as slot:
            return slot.row

    async with locks.hold(key("a")) as slot:
        task = asyncio.create_task(follower())
        await settle()
        slot.row = row
    assert await task is row
    assert await follower() is None
    assert len(locks) == 0


async def test_place_in_line_is_taken_at_once() -> None:
    """Who asks first is first, though somebody else waits for his turn sooner."""
    locks, order = LockMap(), []
    slot = locks.take_if_free(key("a"))
    assert slot is not None
    first, second = locks.hold(key("a")), locks.hold(key("a"))

    async def enter(hold: Hold, name: str) -> None:
        async with hold:
            order.append(name)

    tasks = [asyncio.create_task(enter(second, "second"))]
    await settle()
    tasks.append(asyncio.create_task(enter(first, "first")))
    locks.give_back(key("a"))
    await asyncio.gather(*tasks)
    assert order == ["first", "second"]
    assert len(locks) == 0
