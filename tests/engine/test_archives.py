"""The folders that files are taken to, in a real engine: which is known, waited for, confirmed."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from daemon.cli.harness import Rig
from daemon.config_after import Move
from daemon.core.model import Key, Row
from daemon.core.removals import Mark, read_mark
from daemon.engine.breaker import Breaker
from daemon.engine.filing import Unfinished
from daemon.engine.lanes import Lane
from daemon.sources.recovery import recover
from daemon.store.opening import open_store
from tests.engine.conftest import Open, background
from tests.engine.test_on_done import interrupted, names

# What is changed in a mark, so that another folder seems to be known from before the last restart.
ANOTHER: Mapping[str, Any] = {"ino": 1, "born": 1, "boot": "before"}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    return tmp_path / "archive"


@pytest.fixture
def on_done(archive: Path) -> Move:
    return Move(move=f"{archive}/{{relpath}}")


async def take(rig: Rig, name: str) -> Row:
    """A file, once it has been tried."""
    path = rig.write(name)
    await rig.send(path, "look")
    await rig.send(path, "start")
    return await rig.state(path, ["gone", "ready"])


async def known(rig: Rig, archive: Path) -> Mark | None:
    return read_mark(await rig.store.archive(bytes(archive)))


async def forge(tmp_path: Path, archive: Path, changes: Mapping[str, Any] = ANOTHER) -> None:
    """Have another folder known than the one that is there."""
    async with open_store("sqlite", tmp_path / "state") as store:
        mark = read_mark(await store.archive(bytes(archive)))
        assert mark is not None
        text = msgspec.json.encode(replace(mark, **changes)).decode()
        await store.keep_archive(bytes(archive), text)


async def events(rig: Rig) -> list[str]:
    """What was said of archives."""
    said = [line["event"] for line in await rig.lines()]
    return [event.removeprefix("daemon.") for event in said if "archive" in event]


async def confirm(rig: Rig) -> bool:
    return await rig.service.archives.confirm(rig.service.trees["incoming"])


def make_anew(folder: Path) -> None:
    """Put another folder in the place of one, whose inode stays taken."""
    folder.rename(folder.with_name("old"))
    folder.mkdir()


def make_away(folder: Path) -> None:
    folder.rmdir()


def identity(folder: Path) -> tuple[int, int]:
    st = folder.stat()
    return st.st_dev, st.st_ino


async def test_known_from_the_first_file_on(engine: Open, archive: Path, on_done: Move) -> None:
    """Its record is there before the file is, and nothing is said."""
    async with engine(steps=0, on_done=on_done) as rig:
        assert await known(rig, archive) is None
        assert (await take(rig, "a")).state == "gone"
        mark = await known(rig, archive)
        assert mark is not None
        assert (mark.dev, mark.ino) == identity(archive)
        assert await events(rig) == []


async def test_a_deleted_file_goes_nowhere(engine: Open) -> None:
    """Where files are deleted there is no folder to be known or confirmed."""
    async with engine(steps=0, on_done="delete") as rig:
        assert (await take(rig, "a")).state == "gone"
        assert await confirm(rig)


@pytest.mark.parametrize("restarted", [True, False])
async def test_made_anew(engine: Open, archive: Path, on_done: Move, *, restarted: bool) -> None:
    """A folder that somebody made in its place, on the same file system, is the archive."""
    async with engine(steps=0, on_done=on_done) as rig:
        await take(rig, "a")
        if not restarted:
            make_anew(archive)
            assert (await take(rig, "b")).state == "gone"
    if restarted:
        make_anew(archive)
    async with engine(steps=0, on_done=on_done) as rig:
        assert (await take(rig, "c")).state == "gone"
        assert await events(rig) == []
        mark = await known(rig, archive)
        assert mark is not None
        assert (mark.dev, mark.ino) == identity(archive)


async def test_another_one(
    engine: Open,
    tmp_path: Path,
    archive: Path,
    on_done: Move,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing goes there, no attempt is spent; an operator's word has all that wait go at once."""
    # Nobody comes back but by that word.
    monkeypatch.setattr(Breaker, "patience", lambda _self, _times: 3_600.0)
    async with engine(steps=0, on_done=on_done) as rig:
        await take(rig, "a")
    await forge(tmp_path, archive)
    async with engine(steps=0, on_done=on_done) as rig:
        rows = [await take(rig, name) for name in "bc"]
        assert [(row.state, row.failures, row.interruptions) for row in rows] == 2 * [
            ("ready", 0, 0)
        ]
        for row in rows:
            assert f"'{archive}' is not the archive that is known" in (row.error or "")
            assert "reconcile --confirm-archive incoming" in (row.error or "")
        assert names(archive) == ["a"]
        assert await events(rig) == ["archive_lost"]
        async with background(rig.service.dispatcher.run()):
            assert await confirm(rig)
            for row in rows:
                await rig.state(row.key, ["gone"])
        assert await events(rig) == ["archive_lost", "archive_back"]
        mark = await known(rig, archive)
        assert mark is not None
        assert (mark.dev, mark.ino) == identity(archive)


async def test_shared(engine: Open, tmp_path: Path, archive: Path, on_done: Move) -> None:
    """What one has learnt of a folder holds for all that take files there."""
    async with engine(steps=0, on_done=on_done) as rig:
        await take(rig, "a")
    await forge(tmp_path, archive)
    async with engine(steps=0, on_done=on_done, on_quarantine=on_done) as rig:
        assert (await take(rig, "b")).state == "ready"
        done, aside = rig.service.archives._of["incoming"]
        assert (aside.step, done.step) == ("on_quarantine", "on_done")
        assert await aside.confirm()
        assert await done.meet() is None
        assert await events(rig) == ["archive_lost", "archive_back"]


async def test_nothing_to_confirm(engine: Open, archive: Path, on_done: Move) -> None:
    """Where no folder stands an operator's word counts for nothing."""
    async with engine(steps=0, on_done=on_done) as rig:
        make_away(archive)
        assert not await confirm(rig)
        assert await known(rig, archive) is None


async def processing(engine: Open, tmp_path: Path, archive: Path, on_done: Move) -> Key:
    """A file that was being taken away when the daemon was killed, and another archive since."""
    async with engine(steps=0, on_done=on_done) as rig:
        await take(rig, "a")
        path = rig.write("b")
        await rig.send(path, "look")
    await interrupted(tmp_path, path)
    await forge(tmp_path, archive)
    return path


async def test_killed_and_the_archive_is_away(
    engine: Open,
    tmp_path: Path,
    tree: Path,
    archive: Path,
    on_done: Move,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that was taken is not found missing: only the known archive tells where it is."""
    monkeypatch.setattr("daemon.handlers.filing.AGAIN_SECONDS", 0.01)
    path = await processing(engine, tmp_path, archive, on_done)
    (tree / "b").rename(archive / "b")
    async with engine(steps=0, on_done=on_done) as rig:
        service, unfinished = rig.service, Unfinished(rig.service.dispatcher)
        await recover(service.trees.values(), service.inbox, service.ledger, [unfinished])
        async with background(unfinished.report(service.inbox)):
            while await events(rig) != ["archive_lost"]:  # noqa: ASYNC110 - lines make no event
                await asyncio.sleep(0)
            await rig.send(path, "look", waited=True)
            assert (await rig.row(path)).state == "processing"
            assert await confirm(rig)
            await rig.state(path, ["gone"])
        (line,) = [x for x in await rig.lines() if x["event"] == "succeed" and x["path"] == "b"]
        assert (line["target"], line["cause"]) == (str(archive / "b"), "crash")


async def test_killed_before_it_was_taken(
    engine: Open, tmp_path: Path, archive: Path, on_done: Move
) -> None:
    """A file that stands yet does not stay in the hands of nobody: it waits like all others."""
    path = await processing(engine, tmp_path, archive, on_done)
    async with engine(steps=0, on_done=on_done) as rig:
        service, unfinished = rig.service, Unfinished(rig.service.dispatcher)
        await recover(service.trees.values(), service.inbox, service.ledger, [unfinished])
        await unfinished.report(service.inbox)
        await rig.state(path, ["ready"])


async def test_an_open_step_is_hastened(engine: Open, on_done: Move) -> None:
    """What the step needs may be there: the next file is a probe at once, and `status` says so."""
    async with engine(steps=0, on_done=on_done) as rig:
        lane: Lane = rig.service.dispatcher._lanes["incoming", "on_done"]
        now = asyncio.get_running_loop().time()
        lane.breaker.open(now, 3_600.0)
        assert lane.room(now) == 0
        rig.service.dispatcher.hasten("incoming", "on_done")
        assert lane.room(asyncio.get_running_loop().time()) == 1
        assert lane.standing.probe_at is not None
        rig.service.dispatcher.hasten("incoming", "on_quarantine")  # which has no lane


async def test_a_name_like_an_option(engine: Open, tmp_path: Path, archive: Path) -> None:
    """What an operator is to type can be typed, whatever the watch is called."""
    move = Move(move=f"{archive}/{{relpath}}")
    async with engine(steps=0, on_done=move, name="-my files") as rig:
        await take(rig, "a")
    await forge(tmp_path, archive)
    async with engine(steps=0, on_done=move, name="-my files") as rig:
        row = await take(rig, "b")
        assert (row.error or "").endswith("--confirm-archive -- '-my files'")
