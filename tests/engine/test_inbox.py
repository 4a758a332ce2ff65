"""The inbox: what is merged, what goes first, who has to wait."""

import asyncio

import pytest

from daemon.core.model import Fingerprint, Trigger
from daemon.engine.inbox import Inbox
from tests.engine.conftest import DEADLINE, key

SEEN = Fingerprint(1, 2, 3, 4, 5)


def look(name: str, cause: str = "hint", seen: Fingerprint | None = None) -> Trigger:
    return Trigger(key(name), "look", cause, seen=seen)


async def everything(inbox: Inbox) -> list[Trigger]:
    return await inbox.take(len(inbox))


async def test_looks_are_merged() -> None:
    """A hundred looks at one path that wait are one look; once taken, the next is another."""
    inbox = Inbox()
    for _ in range(100):
        inbox.put(look("a"))
    assert len(inbox) == 1
    await inbox.take()
    inbox.put(look("a"))
    assert len(inbox) == 1


async def test_looks_in_order() -> None:
    """Looks at different paths are taken in the order in which they came."""
    inbox = Inbox()
    for name in ("b", "a", "c", "a", "b"):
        inbox.put(look(name))
    assert [t.key for t in await everything(inbox)] == [key("b"), key("a"), key("c")]


@pytest.mark.parametrize("first", ["hint", "alarm"])
async def test_knowledge_of_an_alarm_wins(first: str) -> None:
    """Of a hint and an alarm, whichever came first, the alarm stays: it knows what stood there."""
    inbox = Inbox()
    both = [look("a", "hint"), look("a", "alarm", SEEN)]
    for trigger in both if first == "hint" else reversed(both):
        inbox.put(trigger)
    assert await everything(inbox) == [both[1]]


async def test_facts_go_first_and_are_kept() -> None:
    """What reports a fact is never merged, keeps its order, and overtakes the looks."""
    inbox = Inbox()
    facts = [Trigger(key("a"), event, "test") for event in ("start", "start", "fail")]
    inbox.put(look("b"))
    for fact in facts:
        inbox.put(fact)
    assert await everything(inbox) == [*facts, look("b")]


async def test_take_waits() -> None:
    """`take` waits for what comes, and each trigger reaches one taker."""
    inbox = Inbox()
    takers = [asyncio.create_task(inbox.take()) for _ in range(3)]
    await asyncio.sleep(0)
    for name in ("a", "b", "c"):
        inbox.put(look(name))
    taken = await asyncio.wait_for(asyncio.gather(*takers), DEADLINE)
    assert [len(some) for some in taken] == [1, 1, 1]
    assert {trigger.key for (trigger,) in taken} == {key("a"), key("b"), key("c")}


async def test_offer_waits_for_room() -> None:
    """A source that offers waits while the inbox is full; who puts does not."""
    inbox = Inbox(limit=2)
    inbox.put(look("a"))
    await inbox.offer(look("b"))
    waiting = asyncio.create_task(inbox.offer(look("c")))
    inbox.put(Trigger(key("d"), "fail", "handler"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert (waiting.done(), len(inbox)) == (False, 3)
    await inbox.take()
    await asyncio.sleep(0)
    assert not waiting.done()
    await inbox.take()
    await asyncio.wait_for(waiting, DEADLINE)


async def test_idle() -> None:
    """`idle` waits until every trigger is not only taken but finished; merged ones count once."""
    inbox = Inbox()
    await inbox.idle()
    for name in ("a", "a", "b"):
        inbox.put(look(name))
    idle = asyncio.create_task(inbox.idle())
    first, second = await everything(inbox)
    inbox.finished_all([first])
    await asyncio.sleep(0)
    assert not idle.done()
    inbox.finished_all([second])
    await asyncio.wait_for(idle, DEADLINE)


async def test_scans_are_merged_while_they_wait() -> None:
    """A subtree is asked for once while it waits, and again once its scan has begun."""
    inbox = Inbox()
    for name in ("d", "d", "e", "d"):
        inbox.request_scan(key(name), "burst")
    assert await inbox.next_scans() == [(key("d"), "burst"), (key("e"), "burst")]
    for cause in ("burst", "overflow", "burst", "watcher"):
        inbox.request_scan(key("d"), cause)
    assert await inbox.next_scans() == [(key("d"), "overflow")]
    assert not inbox._scans


async def test_waited_counts_for_more() -> None:
    """A look that has waited takes the place of one that has not, and is not replaced by one."""
    inbox = Inbox()
    waited = Trigger(key("a"), "look", "hint", waited=True)
    inbox.put(look("a"))
    inbox.put(waited)
    inbox.put(look("a"))
    assert await inbox.take(9) == [waited]


@pytest.mark.parametrize("hinted", ["before", "after"])
async def test_what_a_scan_saw_is_no_answer_to_a_hint(hinted: str) -> None:
    """A hint that meets what a scan has seen has the disk looked at: it is the later one."""
    inbox = Inbox()
    scanned = Trigger(key("a"), "look", "scan", seen=SEEN, found=SEEN)
    both = [look("a"), scanned]
    for trigger in both if hinted == "before" else reversed(both):
        inbox.put(trigger)
    assert await everything(inbox) == [look("a", "scan", SEEN)]


async def test_bundles() -> None:
    """A bundle is taken whole, after everything else; it counts, and makes sources wait."""
    inbox = Inbox(limit=3)
    bundle = [look("a"), look("b"), look("c")]
    await inbox.offer_bundle(bundle)
    waiting = asyncio.create_task(inbox.offer(look("d")))
    inbox.put(look("a"))
    await asyncio.sleep(0)
    assert (len(inbox), waiting.done()) == (4, False)
    assert await inbox.take(9) == [look("a")]
    taken = await inbox.take(1)
    assert taken == bundle
    await asyncio.wait_for(waiting, DEADLINE)
    inbox.finished_all(taken)
    inbox.finished_all([look("a")])
    idle = asyncio.create_task(inbox.idle())
    await asyncio.sleep(0)
    assert not idle.done()
    assert await inbox.take(9) == [look("d")]
    inbox.finished_all([look("d")])
    await asyncio.wait_for(idle, DEADLINE)


async def test_what_is_known() -> None:
    """A path is known from its trigger to the end of its work; bundles are over when all are."""
    inbox = Inbox()
    inbox.put(look("a"))
    for name in ("b", "c"):
        await inbox.offer_bundle([look(name)])
    unbundled = asyncio.create_task(inbox.unbundled_for("incoming", DEADLINE))
    for name in ("a", "b", "c"):
        assert inbox.knows(key(name))
        taken = await inbox.take(9)
        assert taken == [look(name)]
        assert inbox.knows(key(name))
        await asyncio.sleep(0)
        assert not unbundled.done()
        inbox.finished_all(taken)
        assert not inbox.knows(key(name))
    await asyncio.wait_for(unbundled, DEADLINE)
    await inbox.offer_bundle([look("d")])
    await inbox.unbundled_for("incoming", 0)
    await inbox.unbundled_for("another", DEADLINE)


async def test_what_is_held_back_is_unfinished() -> None:
    """A trigger that somebody keeps back keeps the inbox from being idle."""
    inbox = Inbox()
    inbox.hold("incoming")
    idle = asyncio.create_task(inbox.idle())
    await asyncio.sleep(0)
    assert not idle.done()
    inbox.put(look("a"))
    inbox.let_go("incoming")
    inbox.finished_all(await inbox.take())
    await asyncio.wait_for(idle, DEADLINE)
