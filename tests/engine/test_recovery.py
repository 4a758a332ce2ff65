"""What a former run left behind."""

import asyncio
from pathlib import Path

import pytest

from daemon.cli.harness import Rig
from daemon.config import Settle
from daemon.core.model import Key
from daemon.sources.recovery import recover
from daemon.store.opening import open_store
from daemon.store.rows import record_of_transition
from tests.engine.conftest import Gate, Open, background, step_on


async def left_processing(folder: Path, *paths: Key) -> None:
    """As a killed daemon leaves it: the start is committed, and nobody runs."""
    async with open_store("sqlite", folder / "state") as store:
        for row in await store.rows(paths):
            assert row is not None
            start = step_on(row, "start", "processing", "old-1", attempt=row.attempt + 1)
            seq = (await store.last_ids()).seq + 1
            assert await store.apply([(start, record_of_transition(start, seq))], 0) == [True]


async def test_processing_is_interrupted(
    engine: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was being handled when the daemon died is ready again, page by page, and counted."""
    monkeypatch.setattr("daemon.engine.ledger.PAGE", 2)
    async with engine() as rig:
        paths = [rig.write(f"{number}") for number in range(5)]
        for path in paths:
            await rig.send(path, "look")
    await left_processing(tmp_path, *paths)
    async with engine() as rig:
        service = rig.service
        assert await recover(service.trees.values(), service.inbox, service.ledger) == 5
        await service.inbox.idle()
        for path in paths:
            row = await rig.row(path)
            assert (row.state, row.interruptions, row.attempt) == ("ready", 1, 1)
        causes = {line["cause"] for line in await rig.lines() if line["event"] == "interrupt"}
        assert causes == {"crash"}


class Slow:
    """In the place of the hints: a watcher whose walk takes until the test says that it ends."""

    def __init__(self, watching: asyncio.Event) -> None:
        self.watching = watching

    async def run(self) -> None:
        await asyncio.Event().wait()


async def test_renamed_while_nobody_ran(
    engine: Open, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing file that was being handled is not let go before the first scan has looked."""
    watching, gate = asyncio.Event(), Gate()
    monkeypatch.setattr("daemon.service.Hints", lambda *_, **__: Slow(watching))
    async with engine(gate) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        number = (await rig.row(path)).id
    await left_processing(tmp_path, path)
    (tree / "a").rename(tree / "b")
    async with engine(gate) as rig:
        service = rig.service
        patience = service.pipeline._patience
        async with background(service._serve()):
            # Its time is over; before there was a scan it was let go then.
            while not any(patience._over.values()):
                assert (await rig.row(path)).state != "gone"
            watching.set()
            job = await gate.let_pass()
            await rig.state(rig.key("b"), ["done"])
        assert (job.file_id, job.file.path, job.attempt) == (number, b"b", 2)


async def test_file_that_takes_the_daemon_down(engine: Open, tmp_path: Path) -> None:
    """A file whose handling ends the daemon again and again is quarantined."""
    async with engine() as rig:
        path = rig.write("a")
        await rig.send(path, "look")
    for _ in range(3):
        await left_processing(tmp_path, path)
        async with engine(interruptions=3) as rig:
            service = rig.service
            await recover(service.trees.values(), service.inbox, service.ledger)
            await service.inbox.idle()
            state = (await rig.row(path)).state
    assert state == "quarantined"


async def test_removed_step(engine: Open) -> None:
    """A file that waits for a step that is no longer configured settles and begins again."""
    async with engine(steps=2) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
    async with engine(steps=0) as rig:
        service = rig.service
        assert await recover(service.trees.values(), service.inbox, service.ledger) == 1
        await service.inbox.idle()
        await rig.send(path, "look")
        assert (await rig.row(path)).state == "done"


async def recovered(rig: Rig) -> None:
    """A start, and whatever follows from it."""
    service = rig.service
    await recover(service.trees.values(), service.inbox, service.ledger)
    await service.scanner.scan(service.trees["incoming"], [b""])
    await service.inbox.idle()


async def test_set_that_was_completed_while_nobody_looked(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that waited for their manifest when the daemon died need not wait for their timer."""
    monkeypatch.setattr("daemon.engine.ledger.PAGE", 2)
    settle = Settle(quiet=0.0, manifest="*.manifest")
    async with engine(settle=settle) as rig:
        paths = [rig.write(f"{number}") for number in range(5)]
        for path in paths:
            await rig.send(path, "look")
        await rig.service.inbox.idle()
    (tree / "x.manifest").write_text("\n".join(map(str, range(5))))
    async with engine(settle=settle) as rig:
        assert {(await rig.row(path)).state for path in paths} == {"settling"}
        await recovered(rig)
        assert {(await rig.row(path)).state for path in paths} == {"ready"}


async def test_digest_that_was_being_computed(engine: Open) -> None:
    """A file that was being read when the daemon ended is read by the next one at once."""
    async with engine(identity="content") as rig:
        await rig.service.pipeline.drop_waiting()
        path = rig.write("a")
        await rig.send(path, "look")
        assert (await rig.row(path)).state == "settling"
    async with engine(identity="content") as rig:
        await recovered(rig)
        assert (await rig.row(path)).state == "ready"


async def test_nothing_to_recover(engine: Open) -> None:
    """What waits for a step that exists, or is done, is left alone."""
    async with engine() as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        service = rig.service
        assert await recover(service.trees.values(), service.inbox, service.ledger) == 0
        assert len(service.inbox) == 0
        assert (await rig.row(path)).version == 1
