"""The watcher, with the real watchfiles: hints come, and its failures are survived."""

# ruff: noqa: ASYNC240 - a local file answers at once, and nothing else runs in the loop

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from daemon.cli.harness import Rig
from daemon.core.model import Key, Trigger
from daemon.sources.hints import Hints
from tests.engine.conftest import DEADLINE, Open, background, key


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.sources.hints.ROOT_CHECK_MS", 40)
    monkeypatch.setattr("daemon.sources.roots.CHECK_SECONDS", 0.04)
    monkeypatch.setattr("daemon.sources.hints.BACKOFF_FIRST", 0.01)


def hints(rig: Rig, *, polled: bool = False) -> Hints:
    tree = rig.service.trees["incoming"]
    return Hints(tree, rig.service.inbox, rig.journal, polled=polled)


async def line(rig: Rig, event: str) -> dict[str, Any]:
    """Wait for a line about the daemon; each turn of the loop lets the journal write."""
    async with asyncio.timeout(DEADLINE):
        while True:
            for found in await rig.lines():
                if found["event"] == f"daemon.{event}":
                    return found
            await asyncio.sleep(0)


async def scan_of(rig: Rig, wanted: bytes) -> None:
    async with asyncio.timeout(DEADLINE):
        while wanted not in [each.key.path for each in await rig.service.inbox.next_scans()]:
            pass


async def test_file_is_hinted(engine: Open) -> None:
    """A file that is created, written or removed leads to a look."""
    async with engine() as rig:
        watcher = hints(rig)
        async with background(watcher.run()):
            await watcher.watching.wait()
            path = rig.write("a")
            await rig.state(path, ["ready"])
            (rig.service.trees["incoming"].watch.path / "a").unlink()
            await rig.state(path, ["gone"])


async def test_new_folder_is_scanned(engine: Open, tree: Path) -> None:
    """A folder that appears is scanned: what is in it already, no hint tells of."""
    (tree.parent / "made/deep").mkdir(parents=True)
    (tree.parent / "made/deep/a").write_text("x")
    async with engine() as rig:
        watcher = hints(rig)
        async with background(watcher.run()):
            await watcher.watching.wait()
            (tree.parent / "made").rename(tree / "made")
            await scan_of(rig, b"made")


async def test_removed_folder_is_scanned(engine: Open, tree: Path) -> None:
    """A folder that disappears is suspected to leave rows behind: those have to go."""
    (tree / "d").mkdir()
    async with engine() as rig:
        watcher = hints(rig)
        async with background(watcher.run()):
            await watcher.watching.wait()
            (tree / "d").rename(tree.parent / "away")
            assert key("d") in await rig.service.inbox.suspects()


async def test_excluded_names_are_no_hint(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the patterns leave out does not reach the inbox."""
    async with engine(exclude=("*.part",)) as rig:
        watcher = hints(rig)
        seen: list[Key] = []
        real = rig.service.inbox.put

        def put(trigger: Trigger) -> None:
            seen.append(trigger.key)
            real(trigger)

        monkeypatch.setattr(rig.service.inbox, "put", put)
        async with background(watcher.run()):
            await watcher.watching.wait()
            (tree / "a.part").write_text("x")
            await rig.state(rig.write("b"), ["ready"])
    assert set(seen) == {key("b")}


async def test_name_that_is_not_utf8(engine: Open, tree: Path) -> None:
    """A name that ends watchfiles' iterator is survived: said, watched again, and scanned."""
    async with engine() as rig:
        watcher = hints(rig)
        async with background(watcher.run()):
            await watcher.watching.wait()
            Path(os.fsdecode(bytes(tree) + b"/bad-\xff")).write_text("x")
            await scan_of(rig, b"")
            assert (await line(rig, "watcher_restarted"))["watch"] == "incoming"
            Path(os.fsdecode(bytes(tree) + b"/bad-\xff")).unlink()
            await scan_of(rig, b"")


@pytest.mark.parametrize("polled", [False, True])
async def test_root_that_goes_and_comes_back(engine: Open, tree: Path, *, polled: bool) -> None:
    """A root that is removed and made again is said to be lost and back, and is watched again."""
    async with engine() as rig:
        watcher = hints(rig, polled=polled)
        async with background(watcher.run(), rig.service.roots.run()):
            await watcher.watching.wait()
            tree.rmdir()
            assert (await line(rig, "root_lost"))["path"] == str(tree)
            tree.mkdir()
            await line(rig, "root_back")
            await scan_of(rig, b"")
            it = rig.service.trees["incoming"]
            assert it.root_id == it.identify_root()
            await line(rig, "watcher_restarted")


async def test_root_that_was_replaced(engine: Open, tree: Path) -> None:
    """A root that is another folder now is watched and scanned; its files are found."""
    async with engine() as rig:
        watcher = hints(rig)
        async with background(watcher.run(), rig.service.roots.run()):
            await watcher.watching.wait()
            tree.rename(tree.parent / "away")
            tree.mkdir()
            await scan_of(rig, b"")
            await line(rig, "watcher_restarted")
