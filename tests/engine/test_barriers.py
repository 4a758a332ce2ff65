"""What was on its way has arrived before anything is concluded; what comes later keeps nobody."""

import asyncio
from typing import Literal

import pytest

from daemon.core.model import Key, Trigger
from daemon.engine.barriers import Barrier
from daemon.engine.inbox import Inbox
from daemon.engine.patience import Patience
from tests.engine.conftest import DEADLINE, key


def look(name: str) -> Trigger:
    return Trigger(key(name), "look", "hint")


async def test_nothing_on_its_way() -> None:
    """A barrier that nothing stands before is passed at once."""
    assert Inbox().barrier().is_passed()


@pytest.mark.parametrize("event", ["look", "hold"])
async def test_what_waits_and_what_is_worked_on(event: Literal["look", "hold"]) -> None:
    """What was put in has to be finished, not only taken; what comes later has not."""
    inbox = Inbox()
    inbox.put(Trigger(key("a"), event, "test"))
    barrier = inbox.barrier()
    assert not barrier.is_passed()
    taken = await inbox.take()
    assert not barrier.is_passed()
    inbox.put(look("later"))
    later = await inbox.take()
    inbox.put(look("a"))
    inbox.finished_all(taken)
    assert barrier.is_passed()
    assert not inbox.barrier().is_passed()
    inbox.finished_all(later)
    inbox.finished_all(await inbox.take())
    assert inbox.barrier().is_passed()


async def test_bundles() -> None:
    """So it is with what a scan found new, which is taken last."""
    inbox = Inbox()
    await inbox.offer_bundle([look("a"), look("b")])
    inbox.put(look("c"))
    barrier = inbox.barrier()
    inbox.finished_all(await inbox.take(9))
    assert not barrier.is_passed()
    bundle = await inbox.take(1)
    assert not barrier.is_passed()
    inbox.finished_all(bundle)
    assert barrier.is_passed()


async def test_groups_that_end_out_of_order() -> None:
    """All that was taken before has to be finished, whichever ends first."""
    inbox = Inbox()
    groups = []
    for name in ("a", "b", "c"):
        inbox.put(look(name))
        groups.append(await inbox.take())
    barrier = inbox.barrier()
    for number in (2, 0, 1):
        assert not barrier.is_passed()
        inbox.finished_all(groups[number])
    assert barrier.is_passed()


async def test_scans() -> None:
    """A scan that was asked for has to have listed, in all its parts, and what it put in to arrive.

    One that is asked for later, or of another watch, keeps nobody.
    """
    inbox = Inbox()
    for name in ("d", "e"):
        inbox.request_scan(key(name), "hint")
    barrier, without, other = (inbox.barrier(watch) for watch in ("incoming", None, "another"))
    await inbox.next_scans()
    ends = [inbox.begin_scan("incoming") for _ in "de"]
    inbox.request_scan(key("later"), "hint")
    await inbox.offer_bundle([look("d/a")])
    for listed in ends:
        assert not barrier.is_passed()
        listed()
    assert not barrier.is_passed()
    inbox.finished_all(await inbox.take())
    assert barrier.is_passed()
    assert without.is_passed()
    assert other.is_passed()


async def test_arrived() -> None:
    """Whoever waits for what is in the inbox goes on when its last group is finished."""
    inbox = Inbox()
    groups = []
    for name in ("a", "b"):
        inbox.put(look(name))
        groups.append(await inbox.take())
    arrived = asyncio.create_task(inbox.arrived())
    for group in groups:
        await asyncio.sleep(0)
        assert not arrived.done()
        inbox.finished_all(group)
    await asyncio.wait_for(arrived, DEADLINE)


async def test_what_waits_for_an_explanation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trigger comes back when that is finished which was at work when its time was over."""
    asked = asyncio.Event()
    is_passed = Barrier.is_passed

    def told(barrier: Barrier) -> bool:
        asked.set()
        return is_passed(barrier)

    monkeypatch.setattr(Barrier, "is_passed", told)
    inbox = Inbox()
    inbox.put(look("b"))
    at_work = await inbox.take()
    patience = Patience(inbox)
    patience.wait(look("a"))
    await asyncio.wait_for(asked.wait(), DEADLINE)
    assert (len(inbox), patience.has(key("a"))) == (0, True)
    inbox.finished_all(at_work)
    (back,) = await asyncio.wait_for(inbox.take(), DEADLINE)
    assert (back.key, back.waited, patience.has(key("a"))) == (key("a"), True, False)
    inbox.finished_all([back])
    await asyncio.wait_for(inbox.idle(), DEADLINE)


async def test_disk_that_hangs() -> None:
    """A scan that does not end keeps back what waits in its own watch only."""
    inbox = Inbox()
    inbox.begin("hanging")
    patience = Patience(inbox)
    patience.wait(Trigger(Key("hanging", b"a"), "look", "hint"))
    patience.wait(look("b"))
    (back,) = await asyncio.wait_for(inbox.take(9), DEADLINE)
    assert back.key == key("b")
    patience.drop()


async def test_stop() -> None:
    """When the daemon stops nothing waits any more: no scan ends that could explain it."""
    inbox = Inbox()
    patience = Patience(inbox)
    patience.wait(look("a"))
    patience.drop()
    patience.wait(look("b"))
    await asyncio.wait_for(inbox.idle(), DEADLINE)
    assert len(patience) == 0
