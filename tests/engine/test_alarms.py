"""Alarms: each rings at its time, once, whatever the wall clock does."""

import asyncio
from collections.abc import Callable

import pytest

from daemon.core.model import Fingerprint, Row, Trigger
from daemon.engine.clock import now_us
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.sources.alarms import Alarms
from daemon.store import Store
from tests.engine.conftest import DEADLINE, background, born, commit, key, step_on

SEEN = Fingerprint(1, 2, 3, 4, 5)
SECOND = 1_000_000
Make = Callable[..., Alarms]


@pytest.fixture
async def ledger(store: Store, journal: Journal) -> Ledger:
    return Ledger(store, await store.last_ids(), journal)


@pytest.fixture
async def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def make(inbox: Inbox, ledger: Ledger) -> Make:
    return lambda clock=now_us: Alarms(inbox, ledger, ["incoming"], clock)


def row(number: int) -> Row:
    return Row(number, key(f"{number}"), "settling", 1)


async def rung(inbox: Inbox) -> Trigger:
    (trigger,) = await asyncio.wait_for(inbox.take(), DEADLINE)
    return trigger


async def test_rings_at_its_time(make: Make, inbox: Inbox) -> None:
    """An alarm rings not before its time, and brings along what stood there when it was set."""
    alarms, loop = make(), asyncio.get_running_loop()
    async with background(alarms.run()):
        due = loop.time() + 0.05
        alarms.set(row(1), now_us() + 50_000, SEEN)
        assert await rung(inbox) == Trigger(key("1"), "look", "alarm", seen=SEEN)
        assert due - 0.001 <= loop.time() < due + DEADLINE
        assert alarms._alarms == {}


async def test_in_order_of_time(make: Make, inbox: Inbox) -> None:
    """Alarms ring in the order of their times, not in that of their setting; the past at once."""
    alarms, now = make(), now_us()
    async with background(alarms.run()):
        for number, wait in enumerate((90_000, 60_000, 30_000, -5 * SECOND), 1):
            alarms.set(row(number), now + wait, None)
        assert [(await rung(inbox)).key.path for _ in range(4)] == [b"4", b"3", b"2", b"1"]


async def test_latest_setting_counts(make: Make, inbox: Inbox) -> None:
    """An alarm that is set anew rings at its new time only, sooner or later."""
    alarms, now = make(), now_us()
    async with background(alarms.run()):
        alarms.set(row(1), now + 20_000, None)
        alarms.set(row(1), now + 80_000, SEEN)
        alarms.set(row(2), now + 30 * SECOND, None)
        alarms.set(row(2), now + 40_000, None)
        assert [await rung(inbox), await rung(inbox)] == [
            Trigger(key("2"), "look", "alarm"),
            Trigger(key("1"), "look", "alarm", seen=SEEN),
        ]
        assert len(inbox) == 0


async def test_cleared(make: Make, inbox: Inbox) -> None:
    """An alarm that is cleared, or put off beyond the horizon, does not ring."""
    alarms, now = make(), now_us()
    async with background(alarms.run()):
        for number in (1, 2, 3):
            alarms.set(row(number), now + 20_000 + number, None)
        alarms.clear(row(1))
        alarms.clear(row(9))
        alarms.set(row(2), now + 3600 * SECOND, None)
        assert (await rung(inbox)).key == key("3")
        assert (len(inbox), alarms._alarms) == (0, {})


async def test_loaded_from_the_database(make: Make, inbox: Inbox, ledger: Ledger) -> None:
    """The timers of a former run ring, those that ended meanwhile at once."""
    now = now_us()
    for number, wait in enumerate((-9 * SECOND, 50_000, 3600 * SECOND), 1):
        await commit(ledger, born(f"{number}", due_at=now + wait, at=now - 10 * SECOND, seen=SEEN))
    alarms = make()
    async with background(alarms.run()):
        first, second = await rung(inbox), await rung(inbox)
        assert (first.key, second.key) == (key("1"), key("2"))
        assert first.seen == SEEN
        assert alarms._alarms == {}


async def test_clock_that_was_put_back(make: Make, inbox: Inbox, ledger: Ledger) -> None:
    """A timer of 50 ms, set by a clock an hour ahead, takes 50 ms from now and not an hour."""
    ahead = now_us() + 3600 * SECOND
    await commit(ledger, born("a", due_at=ahead + 50_000, at=ahead))
    async with background(make().run()):
        assert (await rung(inbox)).key == key("a")


async def test_clock_put_back_while_running(
    make: Make, inbox: Inbox, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that jumps delays nothing that is in memory, and hides nothing in the database."""
    monkeypatch.setattr("daemon.sources.alarms.HORIZON_SECONDS", 0.1)
    shift = 0
    alarms = make(lambda: now_us() + shift)
    async with background(alarms.run()):
        alarms.set(row(9), now_us() + 80_000, None)
        await commit(ledger, born("a", due_at=now_us() + SECOND, at=now_us()))
        shift = -3600 * SECOND
        assert (await rung(inbox)).key == key("9")
        assert (await rung(inbox)).key == key("a")


async def test_limit(
    make: Make, inbox: Inbox, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than LIMIT alarms are in memory; the others come from the database, none is lost."""
    monkeypatch.setattr("daemon.sources.alarms.LIMIT", 20)
    monkeypatch.setattr("daemon.sources.alarms.HORIZON_SECONDS", 0.1)
    alarms, now = make(), now_us()
    rows = {}
    for number in range(30):
        made = await commit(ledger, born(f"{number}", due_at=now + number, at=now))
        assert made is not None
        rows[made.key] = made
        alarms.set(made, now + number, None)
        assert len(alarms._alarms) <= 20
    async with background(alarms.run()):
        while rows:
            found = rows.pop((await rung(inbox)).key, None)
            # One that rings between its load and its commit rings again: a look costs nothing.
            if found is not None:
                await commit(ledger, step_on(found, "settle", "done", due_at=None))


async def test_set_anew_at_the_limit(
    make: Make, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that has an alarm may change it, however many there are."""
    monkeypatch.setattr("daemon.sources.alarms.LIMIT", 1)
    alarms = make()
    async with background(alarms.run()):
        alarms.set(row(1), now_us() + 50 * SECOND, None)
        alarms.set(row(2), now_us(), None)
        alarms.set(row(1), now_us(), None)
        assert (await rung(inbox)).key == key("1")


async def test_memory_is_bounded(make: Make, inbox: Inbox) -> None:
    """A file whose alarm is set anew with every hint costs no more memory than another."""
    alarms = make()
    for number in range(20_000):
        alarms.set(row(number % 3), now_us() + 30 * SECOND + number, None)
    assert len(alarms._heap) < 2_000
    alarms.set(row(1), now_us(), None)
    async with background(alarms.run()):
        assert (await rung(inbox)).key == key("1")


async def test_a_cancellation_is_not_lost_to_an_alarm(make: Make) -> None:
    """Told to end in the very turn in which an alarm is set, it ends: a stop must not hang."""
    alarms = make()
    alarms.set(row(1), now_us() + 50 * SECOND, None)
    task = asyncio.create_task(alarms.run())
    async with asyncio.timeout(DEADLINE):
        while not alarms._wake._waiters:  # noqa: ASYNC110 - it waits, and nothing says so
            await asyncio.sleep(0)
    alarms.set(row(2), now_us() + 30 * SECOND, None)
    task.cancel()
    await asyncio.wait([task], timeout=DEADLINE)
    assert task.cancelled()
