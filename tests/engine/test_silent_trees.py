"""A tree whose disk hangs, in the engine: its files wait, and what became of them is recorded."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from daemon.core.model import Key, Trigger
from daemon.core.settle import Look
from daemon.engine import asking
from daemon.engine.disk import Question, look_at_all
from daemon.engine.inbox import Inbox
from daemon.handlers import Outcome
from tests.engine.conftest import DEADLINE, Gate, Open

pytestmark = pytest.mark.timeout(2 * DEADLINE)


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is clear every look hangs. It is set at first."""
    answers = threading.Event()
    answers.set()

    def look(questions: Sequence[Question], go_on: Callable[[], object]) -> list[Look]:
        assert answers.wait(DEADLINE)
        return look_at_all(questions, go_on)

    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(asking, "look_at_all", look)
    yield answers
    answers.set()


async def test_an_outcome_is_recorded(engine: Open, silence: threading.Event) -> None:
    """How a handler fared is on record though its file cannot be looked at."""
    gate = Gate()
    async with engine(gate) as rig:
        running = asyncio.create_task(rig.service.dispatcher.run())
        path = rig.write("a")
        await rig.send(path, "look")
        _, ending = await gate.next()
        silence.clear()
        ending.set_result(Outcome("success"))
        await rig.state(path, ["done"])
        silence.set()
        running.cancel()
        await asyncio.wait([running])


async def test_nothing_is_concluded_and_nothing_said(
    engine: Open, silence: threading.Event
) -> None:
    """Files wait for it; that they do is said for the tree, and not for each of them."""
    async with engine(quiet=3600) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        before = await rig.row(path)
        silence.clear()
        (rig.service.trees["incoming"].watch.path / "a").unlink()
        for _ in range(3):
            assert await rig.send(path, "look") is None
        assert await rig.row(path) == before
        assert [line for line in await rig.lines() if line.get("outcome") == "failed"] == []
        silence.set()
        # The looks that were in vain are made again.
        await rig.state(path, ["gone"])


async def test_no_start_while_it_hangs(engine: Open, silence: threading.Event) -> None:
    """A handler is not started on a file that cannot be looked at, and no attempt is spent."""
    async with engine() as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        row = await rig.state(path, ["ready"])
        silence.clear()
        assert await rig.send(path, "start", version=row.version) is None
        assert await rig.row(path) == row


async def test_idle_but_for_another_watch() -> None:
    """What is kept back of a watch, whose scan may hang, keeps no other from being quiet."""
    inbox = Inbox()
    inbox.hold("far")
    inbox.scanning["far"] += 1
    inbox.request_scan(Key("far", b"d"), "hint")
    assert await inbox.quiet_for("near", DEADLINE)
    assert not await inbox.quiet_for("far", 0.01)
    assert inbox.finds("far")
    assert not inbox.finds("near")
    inbox.put(Trigger(Key("near", b"a"), "look", "hint"))
    quiet = asyncio.create_task(inbox.quiet_for("near", DEADLINE))
    await asyncio.sleep(0)
    assert not quiet.done()
    inbox.finished_all(await inbox.take())
    assert await quiet


async def test_scans_of_a_watch_that_has_enough() -> None:
    """Those of others are given out, and its own when it has room; they are merged meanwhile."""
    inbox, busy = Inbox(), {"far"}
    inbox.request_scan(Key("far", b"d"), "burst")
    waiting = asyncio.create_task(inbox.next_scans(busy))
    await asyncio.sleep(0)
    inbox.request_scan(Key("near", b"d"), "hint")
    assert await waiting == [(Key("near", b"d"), "hint")]
    inbox.request_scan(Key("far", b"d"), "hint")
    waiting = asyncio.create_task(inbox.next_scans(busy))
    await asyncio.sleep(0)
    assert not waiting.done()
    busy.clear()
    inbox.scans_end()
    assert await waiting == [(Key("far", b"d"), "hint")]
