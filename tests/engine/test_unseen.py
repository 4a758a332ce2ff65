"""What the disk would not show is looked at again, soon and a few times."""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from daemon.cli.faults import FaultyStore, InjectedFault
from daemon.core.model import Trigger
from daemon.engine import unseen
from daemon.engine.inbox import Inbox
from tests.engine.conftest import DEADLINE, Open, background, key
from tests.engine.test_reconciler import Scan

LOOK = Trigger(key("a"), "look", "hint")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unseen, "FIRST_SECONDS", 0.001)


def failing(real: Callable[..., Any], end: bytes, errors: list[int]) -> Callable[..., Any]:
    """A call of the system that meets these errors at a path, and then none."""

    def call(path: Any, **options: Any) -> Any:
        if isinstance(path, bytes) and path.endswith(end) and errors:
            number = errors.pop(0)
            raise OSError(number, os.strerror(number))
        return real(path, **options)

    return call


@pytest.mark.parametrize("known", [False, True])
async def test_file(engine: Open, monkeypatch: pytest.MonkeyPatch, *, known: bool) -> None:
    """A change that the disk would not show at its hint is on record when it does, and no later."""
    async with engine(steps=0) as rig:
        path = rig.write("a")
        if known:
            await rig.send(path, "look")
            rig.write("a", "another content\n")
        errors = [errno.EIO, errno.ENOMEM]
        monkeypatch.setattr("os.lstat", failing(os.lstat, b"/a", errors))
        await rig.send(path, "look", cause="hint")
        row = await rig.state(path, ["done" if not known else "settling"])
        assert row.seen is not None
        assert row.seen.size == (8 if not known else 16)
        failed = [line["error"] for line in await rig.lines() if line["outcome"] == "failed"]
        assert failed == ["Input/output error (lstat)", "Cannot allocate memory (lstat)"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
async def test_folder(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A folder that could not be listed is scanned again, by itself."""
    (tree / "d").mkdir()
    (tree / "d/a").write_text("x")
    async with engine(steps=0) as rig:
        scan = Scan(rig, monkeypatch)
        monkeypatch.setattr("os.scandir", failing(os.scandir, b"/d", [number] * 2))
        assert (await scan.run()).unreadable == 1
        async with background(scan.reconciler.run_requests()):
            await rig.state(rig.key("d/a"), ["done"])


async def test_what_lasts(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may not be seen is not asked for again: a hint tells when it may."""
    (tree / "d").mkdir()
    async with engine(steps=0) as rig:
        scan, path = Scan(rig, monkeypatch), rig.write("a")
        monkeypatch.setattr("os.lstat", failing(os.lstat, b"/a", [errno.EACCES]))
        monkeypatch.setattr("os.scandir", failing(os.scandir, b"/d", [errno.EACCES]))
        await rig.send(path, "look", cause="hint")
        await scan.run(b"d")
        async with asyncio.timeout(DEADLINE):
            await rig.service.inbox.unseen.over("incoming")
        assert not rig.service.inbox.unseen._tries


async def test_later_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look waits twice as long as the one before; the last is followed by none."""
    monkeypatch.setattr(unseen, "TIMES", 4)
    inbox = Inbox()
    loop = asyncio.get_running_loop()
    waits = []
    for _ in range(4):
        since = loop.time()
        inbox.unseen.again(LOOK)
        inbox.unseen.again(LOOK)
        (_, due) = inbox.unseen._tries[LOOK.key]
        waits.append(round((due - since) * 1000))
        assert await asyncio.wait_for(inbox.take(9), DEADLINE) == [LOOK]
    assert waits == [1, 2, 4, 8]
    inbox.unseen.again(LOOK)
    assert not inbox.unseen._tries


async def test_seen_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that has been seen since begins with a short wait again."""
    monkeypatch.setattr(unseen, "MADE_SECONDS", -1.0)
    inbox = Inbox()
    for _ in range(3):
        inbox.unseen.again(LOOK)
        assert await asyncio.wait_for(inbox.take(9), DEADLINE) == [LOOK]
        assert inbox.unseen._tries[LOOK.key][0] == 1


async def test_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are more paths than are kept their tree is scanned, once for all of them."""
    monkeypatch.setattr(unseen, "LIMIT", 2)
    monkeypatch.setattr(unseen, "FIRST_SECONDS", 0.05)
    inbox = Inbox()
    for name in ("a", "b", "c", "d"):
        inbox.unseen.again(Trigger(key(name), "look", "scan"))
    async with asyncio.timeout(DEADLINE):
        assert await inbox.next_scans() == [(key(""), "hint")]
    assert [each.key for each in await inbox.take(9)] == [key("a"), key("b")]


async def test_adoption_waits_for_what_is_unseen(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old files in a folder that could not be listed at the first start are adopted as well."""
    monkeypatch.setattr(unseen, "MADE_SECONDS", 0.5)
    (tree / "d").mkdir()
    (tree / "d/a").write_text("x")
    async with engine(existing="adopt") as rig:
        scan = Scan(rig, monkeypatch)
        monkeypatch.setattr("os.scandir", failing(os.scandir, b"/d", [errno.EMFILE]))
        scan.tree.adopt_before = 2**62
        await scan.run()
        async with background(scan.reconciler.run_requests()):
            await rig.service._finish_adoption(scan.tree)
            assert scan.tree.adopt_before == 0
            assert (await rig.row(rig.key("d/a"))).state == "done"


async def test_error_of_ours(engine: Open) -> None:
    """A look that ended in an error of ours is made again, and its file is on record."""
    async with engine(steps=0, wrap=FaultyStore.around) as rig:
        cast("FaultyStore", rig.service.ledger.store).before = InjectedFault("once")
        path = rig.write("a")
        await rig.send(path, "look", cause="hint")
        await rig.state(path, ["done"])
        (failed,) = [line for line in await rig.lines() if line["outcome"] == "failed"]
        assert failed["error"] == "InjectedFault: once"
