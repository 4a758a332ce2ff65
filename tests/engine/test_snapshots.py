"""What a tree knows of its own eyes reaches the database when it changed, and not too often."""

import asyncio
from pathlib import Path

import pytest

from daemon.cli.harness import Rig
from daemon.engine.detection import Detection
from daemon.engine.snapshots import Snapshots
from daemon.engine.trees import Tree
from daemon.store.inspect import inspect
from tests.engine.conftest import Open, background


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.engine.snapshots.TURN_SECONDS", 0.005)
    monkeypatch.setattr("daemon.engine.snapshots.EVERY_SECONDS", 0.0)


class Watched:
    """Snapshots of the rig's tree, and a count of what they write."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = rig
        self.tree: Tree = rig.service.trees["incoming"]
        self.snapshots = Snapshots(rig.service.trees, rig.service.ledger, asyncio.Event())
        self.written: list[Detection] = []
        self._news = asyncio.Event()
        real = rig.store.keep_detection

        async def keep(watch: str, text: str) -> None:
            await real(watch, text)
            self.written.append(Detection.heard(text))
            self._news.set()

        monkeypatch.setattr(rig.store, "keep_detection", keep)

    async def write(self) -> Detection:
        """The next one that is written."""
        await self._news.wait()
        self._news.clear()
        return self.written[-1]


async def test_everything_survives_the_way(
    engine: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another process reads is what the tree knows, counts by cause included."""
    async with engine() as rig:
        watched = Watched(rig, monkeypatch)
        detection = watched.tree.detection
        detection.mode, detection.reason = "partly", "no watches left"
        detection.latency_us, detection.directories = 2_300, 12
        detection.overflows, detection.restarts = 1, 2
        detection.miss("overflow", 10)
        detection.miss("burst", 3)
        await watched.snapshots.keep(watched.tree)
        with inspect(tmp_path / "state" / "treewarden.db") as inspection:
            assert Detection.heard(inspection.detections()["incoming"]) == detection


async def test_changes_are_written(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first turn replaces what a former run left; then each change is written, once."""
    async with engine() as rig:
        watched = Watched(rig, monkeypatch)
        async with background(watched.snapshots.run()):
            assert await watched.write() == Detection()
            watched.tree.detection.overflows = 1
            assert (await watched.write()).overflows == 1
            watched.tree.detection.miss("overflow", 7)
            assert (await watched.write()).missed_ever == {"overflow": 7}
        assert len(watched.written) == 3


async def test_no_more_often_than_that(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes all the time is written at intervals; what must be seen at once, at once."""
    monkeypatch.setattr("daemon.engine.snapshots.EVERY_SECONDS", 3_600.0)
    async with engine() as rig:
        watched = Watched(rig, monkeypatch)
        async with background(watched.snapshots.run()):
            await watched.write()
            watched.tree.detection.overflows = 1
            assert not watched.snapshots._is_due(watched.tree)
            await watched.snapshots.keep(watched.tree)
            assert (await watched.write()).overflows == 1


async def test_how_a_tree_is_seen_does_not_wait(
    engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it is polled, and why, is written with the next turn, and that it is watched again."""
    monkeypatch.setattr("daemon.engine.snapshots.EVERY_SECONDS", 3_600.0)
    async with engine() as rig:
        watched = Watched(rig, monkeypatch)
        async with background(watched.snapshots.run()):
            await watched.write()
            detection = watched.tree.detection
            detection.mode, detection.reason = "polled", "no instances left"
            assert (await watched.write()).mode == "polled"
            detection.reason = "the root is lost"
            assert (await watched.write()).reason == "the root is lost"
            detection.mode, detection.reason = "inotify", None
            assert (await watched.write()).mode == "inotify"
        assert len(watched.written) == 4


async def test_the_latency_alone_is_no_news(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle tree, whose canary finds another latency every time, hardly writes to the disk."""
    async with engine() as rig:
        watched = Watched(rig, monkeypatch)
        async with background(watched.snapshots.run()):
            await watched.write()
            watched.tree.detection.latency_us = 2_000
            assert not watched.snapshots._is_due(watched.tree)
            monkeypatch.setattr("daemon.engine.snapshots.LATENCY_EVERY_SECONDS", 0.0)
            assert (await watched.write()).latency_us == 2_000
        assert len(watched.written) == 2


async def test_nothing_new_is_not_written(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept twice, written once."""
    async with engine() as rig:
        watched = Watched(rig, monkeypatch)
        await watched.snapshots.keep(watched.tree)
        await watched.snapshots.keep(watched.tree)
        assert len(watched.written) == 1
