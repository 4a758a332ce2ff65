"""`on_quarantine`: what is quarantined leaves the tree, with a word beside it that says why."""

import asyncio
import errno
import json
import os
import threading
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from daemon.cli.harness import Rig
from daemon.config_after import Move
from daemon.core.model import Key
from daemon.engine.quarantine import Quarantine
from daemon.handlers import Outcome, relocate
from tests.engine.conftest import Gate, Open, background


@pytest.fixture
def aside(tmp_path: Path) -> Path:
    (tmp_path / "aside").mkdir()
    return tmp_path / "aside"


@pytest.fixture
def move(aside: Path) -> Move:
    return Move(move=f"{aside}/{{relpath}}")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def quarantine_of(rig: Rig) -> Quarantine:
    (quarantine,) = rig.service._quarantines
    return quarantine


async def quarantined(rig: Rig, gate: Gate, name: str = "a", error: str = "not a table") -> Key:
    path = rig.write(name)
    await rig.send(path, "look")
    await rig.send(path, "start")
    await gate.let_pass(Outcome("reject", error))
    await rig.state(path, ["quarantined"])
    await rig.service.inbox.idle()
    return path


def opened(engine: Open, gate: Gate, move: Move) -> AbstractAsyncContextManager[Rig]:
    return engine(gate, on_quarantine=move)


async def test_put_aside(engine: Open, tree: Path, aside: Path, move: Move) -> None:
    """The file goes to its place, its reason beside it; the row is gone and tells the story."""
    gate = Gate()
    async with opened(engine, gate, move) as rig:
        path = await quarantined(rig, gate, "d/a")
        async with background(quarantine_of(rig).run()):
            row = await rig.state(path, ["gone"])
        assert (row.error, row.done, row.plan) == ("not a table", None, "process")
        assert names(tree) == []
        assert (aside / "d/a").read_text() == "content\n"
        (line,) = [line for line in await rig.lines() if line["event"] == "vanish"]
        assert (line["target"], line["cause"], line["guard"]) == (
            str(aside / "d/a"),
            "on_quarantine",
            "put_aside",
        )
        reason = json.loads((aside / "d/a.reason.json").read_bytes())
        assert reason["error"] == "not a table"
        assert (reason["watch"], reason["path"], reason["step"]) == ("incoming", "d/a", "load")
        assert (reason["event"], reason["attempt"]) == ("reject", 1)
        assert [each["event"] for each in reason["history"]] == ["discover", "start", "reject"]


async def test_taken_when_it_is_quarantined(engine: Open, aside: Path, move: Move) -> None:
    """Whoever waits hears of each file that is quarantined."""
    gate = Gate()
    async with opened(engine, gate, move) as rig, background(quarantine_of(rig).run()):
        for name in ("a", "b"):
            path = rig.write(name)
            await rig.send(path, "look")
            await rig.send(path, "start")
            await gate.let_pass(Outcome("reject", "no"))
            await rig.state(path, ["gone"])
        assert names(aside) == ["a", "a.reason.json", "b", "b.reason.json"]


async def test_reason_never_replaces_a_file(engine: Open, aside: Path, move: Move) -> None:
    """A quarantined file that has the name of another one's reason stays what it is."""
    gate = Gate()
    async with opened(engine, gate, move) as rig:
        first = await quarantined(rig, gate, "b.reason.json")
        second = await quarantined(rig, gate, "b")
        await quarantine_of(rig).sweep()
        for path in (first, second):
            await rig.state(path, ["gone"])
        assert (aside / "b.reason.json").read_text() == "content\n"
        assert json.loads((aside / "b.reason.1.json").read_bytes())["path"] == "b"


@pytest.mark.parametrize("has_reason", [True, False])
async def test_killed_while_it_was_taken(
    engine: Open, tree: Path, aside: Path, move: Move, *, has_reason: bool
) -> None:
    """The next start records where a file is that was away, and writes a reason that is missing."""
    gate = Gate()
    async with opened(engine, gate, move) as rig:
        path = await quarantined(rig, gate)
    (tree / "a").rename(aside / "a")
    if has_reason:
        (aside / "a.reason.json").write_text("{}")
    async with opened(engine, gate, move) as rig:
        await quarantine_of(rig).resume()
        async with background(quarantine_of(rig).run()):
            row = await rig.state(path, ["gone"])
        assert row.error == "not a table"
        lines = [line for line in await rig.lines() if line["event"] == "vanish"]
        assert [line["target"] for line in lines] == [str(aside / "a")]
        reason = json.loads((aside / "a.reason.json").read_bytes())
        assert reason.get("error") == (None if has_reason else "not a table")
        assert names(aside) == ["a", "a.reason.json"]


async def test_place_that_is_away(
    engine: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the folder is away files stay quarantined; it is said once, and they follow later."""
    monkeypatch.setattr("daemon.engine.quarantine.RETRY_SECONDS", 0.01)
    gate, away = Gate(), Move(move=f"{tmp_path}/away/{{relpath}}")
    async with opened(engine, gate, away) as rig:
        paths = [await quarantined(rig, gate, name) for name in ("a", "b")]
        for _ in range(3):
            assert not await quarantine_of(rig).sweep()
        assert [(await rig.row(path)).state for path in paths] == ["quarantined"] * 2
        (line,) = [line for line in await rig.lines() if line["event"] == "daemon.degraded"]
        assert "make it, or mount it" in line["error"]
        async with background(quarantine_of(rig).run()):
            (tmp_path / "away").mkdir()
            for path in paths:
                await rig.state(path, ["gone"])
        assert names(tmp_path / "away") == ["a", "a.reason.json", "b", "b.reason.json"]


async def test_corrected_meanwhile(engine: Open, tree: Path, aside: Path, move: Move) -> None:
    """A file that was replaced since it was quarantined is not taken: it settles."""
    gate = Gate()
    async with opened(engine, gate, move) as rig:
        path = await quarantined(rig, gate)
        rig.write("a", "corrected, and longer\n")
        await quarantine_of(rig).sweep()
        await rig.state(path, ["settling"])
        assert (names(tree), names(aside)) == (["a"], [])


async def test_file_that_is_to_blame_does_not_hold_up_others(engine: Open, aside: Path) -> None:
    """One whose new name is too long stays, is told of, and the next one is taken."""
    gate = Gate()
    async with opened(engine, gate, Move(move=f"{aside}/{'x' * 200}{{name}}")) as rig:
        long = await quarantined(rig, gate, "y" * 200)
        short = await quarantined(rig, gate, "a")
        assert await quarantine_of(rig).sweep()
        await rig.state(short, ["gone"])
        assert (await rig.row(long)).state == "quarantined"
        (line,) = [line for line in await rig.lines() if line["event"] == "daemon.degraded"]
        assert (line["path"], line["reason"]) == ("y" * 200, "a quarantined file stays")


async def test_folder_that_takes_nothing_does_not_hold_up_others(
    engine: Open, aside: Path, move: Move
) -> None:
    """A file where a folder should be keeps only those that go below it, and is told of, once."""
    gate = Gate()
    async with opened(engine, gate, move) as rig:
        (aside / "d").write_text("not a folder")
        kept = await quarantined(rig, gate, "d/a")
        taken = await quarantined(rig, gate, "z")
        for _ in range(3):
            assert not await quarantine_of(rig).sweep()
        await rig.state(taken, ["gone"])
        assert (await rig.row(kept)).state == "quarantined"
        (line,) = [line for line in await rig.lines() if line["event"] == "daemon.degraded"]
        assert (line["path"], line["reason"]) == ("d/a", "a quarantined file stays")
        assert line["error"] == f"cannot take it away: Not a directory ({aside}/d)"


async def test_folder_that_is_forbidden_does_not_hold_up_others(
    engine: Open, aside: Path, move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes to a folder that nobody may write to waits, and what goes elsewhere is taken."""
    gate = Gate()
    async with opened(engine, gate, move) as rig:
        kept = [await quarantined(rig, gate, name) for name in ("d/a", "d/b")]
        taken = await quarantined(rig, gate, "z")
        forbid(monkeypatch, aside / "d")
        for _ in range(2):
            assert not await quarantine_of(rig).sweep()
        await rig.state(taken, ["gone"])
        assert [(await rig.row(path)).state for path in kept] == ["quarantined"] * 2
        (line,) = [line for line in await rig.lines() if line["event"] == "daemon.degraded"]
        assert line["error"] == f"cannot take it away: Permission denied ({aside}/d)"
        monkeypatch.undo()
        assert await quarantine_of(rig).sweep()
        for path in kept:
            await rig.state(path, ["gone"])


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """For root, too, who may write anywhere."""
    real = relocate._expect_writable

    def expect(asked: bytes) -> None:
        if asked == os.fsencode(folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), asked)
        real(asked)

    monkeypatch.setattr(relocate, "_expect_writable", expect)


async def test_taken_without_a_word(engine: Open, aside: Path, move: Move) -> None:
    """A file whose name leaves no room for that of its reason is taken, and that is said."""
    gate = Gate()
    async with opened(engine, gate, move) as rig:
        path = await quarantined(rig, gate, "y" * 250)
        assert await quarantine_of(rig).sweep()
        await rig.state(path, ["gone"])
        assert names(aside) == ["y" * 250]
        (line,) = [line for line in await rig.lines() if line["event"] == "daemon.degraded"]
        assert line["reason"] == "a quarantined file was taken without a word"
        assert line["error"] == "no reason beside it: File name too long"


async def test_a_look_while_it_is_taken(
    engine: Open, aside: Path, move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sees that the file is off the disk, before it is said where to, waits for that."""
    gate, real = Gate(), relocate.move
    async with opened(engine, gate, move) as rig:
        path = await quarantined(rig, gate)
        loop, asked = asyncio.get_running_loop(), asyncio.Event()

        def slow(*arguments: Any) -> bytes:
            target = real(*arguments)
            look = rig.send(path, "look", waited=True)
            asyncio.run_coroutine_threadsafe(look, loop).result()
            loop.call_soon_threadsafe(asked.set)
            return target

        monkeypatch.setattr(relocate, "move", slow)
        await quarantine_of(rig).sweep()
        assert asked.is_set()
        await rig.state(path, ["gone"])
        lines = [line for line in await rig.lines() if line["event"] == "vanish"]
        assert [line["target"] for line in lines] == [str(aside / "a")]


@pytest.mark.parametrize("newer", [True, False])
async def test_place_hangs_at_the_start(
    engine: Open,
    tree: Path,
    aside: Path,
    move: Move,
    monkeypatch: pytest.MonkeyPatch,
    *,
    newer: bool,
) -> None:
    """What a killed daemon had taken is not found missing before its place has answered."""
    gate, real, answers = Gate(), relocate.find, threading.Event()
    async with opened(engine, gate, move) as rig:
        path = await quarantined(rig, gate)
    (tree / "a").rename(aside / "a")
    if newer:
        (tree / "a").write_text("corrected, and longer\n")
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    def hang(*arguments: Any) -> bytes | None:
        loop.call_soon_threadsafe(asked.set)
        assert answers.wait(20)
        return real(*arguments)

    monkeypatch.setattr(relocate, "find", hang)
    async with opened(engine, gate, move) as rig:
        await quarantine_of(rig).resume()
        async with background(quarantine_of(rig).run()):
            await asked.wait()
            await rig.send(path, "look", waited=True)
            assert (await rig.row(path)).state == "quarantined"
            answers.set()
            await rig.state(path, ["settling", "ready"] if newer else ["gone"])
        (line,) = [line for line in await rig.lines() if line["event"] == "vanish"]
        assert line["target"] == str(aside / "a")
