"""Requests to the running daemon, through real files in its spool."""

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from daemon.cli.harness import Rig
from daemon.core.model import Key
from daemon.engine.trees import Tree
from daemon.errors import ServiceError
from daemon.sources.requests import Requests
from daemon.store.spool import Request, folder_of, make_folder, send, waiting, withdraw
from tests.engine.conftest import DEADLINE, Open, background

WHOLE = Key("incoming", b"")


class Desk:
    """The rig's requests, and what was confirmed."""

    def __init__(self, rig: Rig, tmp_path: Path, *, may_confirm: bool = True) -> None:
        self.rig = rig
        self.state = tmp_path / "state"
        self.confirmed: list[str] = []
        self.archives: list[str] = []
        self._may_confirm = may_confirm
        make_folder(self.state)
        self.folder = folder_of(self.state)
        service = rig.service
        self.requests = Requests(
            self.folder,
            service.trees,
            service.inbox,
            rig.journal,
            self._confirm,
            self._confirm_archive,
        )

    async def _confirm(self, tree: Tree) -> bool:
        self.confirmed.append(tree.name)
        return self._may_confirm

    async def _confirm_archive(self, tree: Tree) -> bool:
        self.archives.append(tree.name)
        return self._may_confirm

    async def take(self) -> list[tuple[Key, str]]:
        """Take up what is there; the scans that were asked for by that."""
        async with asyncio.TaskGroup() as tasks:
            await self.requests.take(tasks)
        scans = self.rig.service.inbox._scans
        found = list(scans.items())
        scans.clear()
        return found

    async def complaints(self) -> list[dict[str, Any]]:
        return [x for x in await self.rig.lines() if x["event"] == "daemon.degraded"]


async def test_a_scan_is_asked_for(engine: Open, tmp_path: Path) -> None:
    """The named watch is scanned, nothing is confirmed, and the file is gone."""
    async with engine() as rig:
        desk = Desk(rig, tmp_path)
        path = send(desk.state, Request(["incoming"]))
        assert waiting(desk.folder) == [(path, Request(["incoming"], confirm=False))]
        assert await desk.take() == [(WHOLE, "request")]
        assert (desk.confirmed, path.exists()) == ([], False)
        assert await desk.take() == []
        assert await desk.complaints() == []


async def test_no_name_means_all(engine: Open, tmp_path: Path) -> None:
    """Without a name every watch is scanned, and where asked confirmed."""
    async with engine() as rig:
        desk = Desk(rig, tmp_path)
        send(desk.state, Request([], confirm=True))
        assert await desk.take() == [(WHOLE, "request")]
        assert desk.confirmed == ["incoming"]


async def test_an_archive_is_confirmed(engine: Open, tmp_path: Path) -> None:
    """An operator's word on an archive is none on removals; its watch is scanned all the same."""
    async with engine() as rig:
        desk = Desk(rig, tmp_path)
        send(desk.state, Request(["incoming"], archive=True))
        assert await desk.take() == [(WHOLE, "request")]
        assert (desk.archives, desk.confirmed) == (["incoming"], [])
        assert await desk.complaints() == []


async def test_an_archive_that_is_away_is_not_confirmed(engine: Open, tmp_path: Path) -> None:
    """That it cannot be is said; what else is asked is done."""
    async with engine() as rig:
        desk = Desk(rig, tmp_path, may_confirm=False)
        send(desk.state, Request(["incoming"], archive=True))
        assert await desk.take() == [(WHOLE, "request")]
        (line,) = await desk.complaints()
        assert line["reason"] == "an archive cannot be confirmed while it is away"


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "untold"])
async def test_it_is_taken_up_while_running(
    engine: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_told: bool
) -> None:
    """One that comes while the daemon runs is seen to: inotify tells, or it is looked for."""
    monkeypatch.setattr("daemon.sources.requests.RARE_SECONDS", 3_600)
    monkeypatch.setattr("daemon.sources.requests.LOOK_SECONDS", 3_600 if is_told else 0.01)
    if not is_told:
        monkeypatch.setattr("daemon.engine.notice._init", lambda _flags: -1)
    async with engine() as rig:
        desk = Desk(rig, tmp_path)
        async with background(desk.requests.run()):
            for _ in range(2):
                await begun(desk)
                send(desk.state, Request(["incoming"]))
                async with asyncio.timeout(DEADLINE):
                    assert await rig.service.inbox.next_scans() == [(WHOLE, "request")]


async def begun(desk: Desk) -> None:
    """Until it is waited for what comes: it has looked already."""
    async with asyncio.timeout(DEADLINE):
        while not desk.requests._disk.due._waiters:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0)


async def test_what_cannot_be_confirmed_is_said(engine: Open, tmp_path: Path) -> None:
    """While the root is away the word of an operator is refused on the log, and nothing scanned."""
    async with engine() as rig:
        desk = Desk(rig, tmp_path, may_confirm=False)
        send(desk.state, Request(["incoming"], confirm=True))
        assert await desk.take() == []
        (line,) = await desk.complaints()
        assert (line["watch"], "cannot be confirmed" in line["reason"]) == ("incoming", True)


async def test_an_unknown_watch_is_said(engine: Open, tmp_path: Path) -> None:
    """A watch that this daemon has not is said; the others are seen to."""
    async with engine() as rig:
        desk = Desk(rig, tmp_path)
        send(desk.state, Request(["new", "incoming"]))
        assert await desk.take() == [(WHOLE, "request")]
        (line,) = await desk.complaints()
        assert line["reason"].endswith("has not: new")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"reconcile": "incoming"}',
        b'{"reconcile": [1]}',
        b'{"reconcile": [], "confirm": 1}',
        b'{"reconcile": [], "delete": true}',
        b'{"reconcile": ["' + b"x" * 70_000 + b'"]}',
        b"\xff\xfe",
    ],
    ids=["empty", "torn", "list", "text", "number", "flag", "unknown", "long", "no text"],
)
async def test_what_cannot_be_understood(engine: Open, tmp_path: Path, content: bytes) -> None:
    """Said once with the file's name, removed, and without any effect; the next is seen to."""
    async with engine() as rig:
        desk = Desk(rig, tmp_path)
        (desk.folder / "0.json").write_bytes(content)
        send(desk.state, Request(["incoming"]))
        assert await desk.take() == [(WHOLE, "request")]
        assert await desk.take() == []
        assert list(desk.folder.iterdir()) == []
        (line,) = await desk.complaints()
        assert line["path"] == str(desk.folder / "0.json")
        assert line["reason"].startswith("a request cannot be understood: ")


async def test_what_is_no_file(engine: Open, tmp_path: Path) -> None:
    """Links are not followed, pipes do not hang, and a folder is said once though it stays."""
    async with engine() as rig:
        desk = Desk(rig, tmp_path)
        (tmp_path / "secret").write_text('{"reconcile": ["incoming"]}')
        (desk.folder / "a.json").symlink_to(tmp_path / "secret")
        os.mkfifo(desk.folder / "b.json")
        (desk.folder / "c.json").mkdir()
        for _ in range(3):
            assert await desk.take() == []
        assert [entry.name for entry in desk.folder.iterdir()] == ["c.json"]
        assert len(await desk.complaints()) == 4
        assert (tmp_path / "secret").exists()


async def test_no_folder_is_no_request(engine: Open, tmp_path: Path) -> None:
    """A spool that was removed takes nothing, and whoever asks is told; the daemon goes on."""
    async with engine() as rig:
        desk = Desk(rig, tmp_path)
        desk.folder.rmdir()
        assert await desk.take() == []
        with pytest.raises(ServiceError, match="No such file or directory; see to that folder"):
            send(desk.state, Request([]))


async def test_requests_come_in_order(tmp_path: Path) -> None:
    """What was asked first is seen to first."""
    make_folder(tmp_path)
    sent = [send(tmp_path, Request([f"{number}"])) for number in range(20)]
    assert [path for path, _ in waiting(folder_of(tmp_path))] == sent


def test_a_request_can_be_taken_back(tmp_path: Path) -> None:
    """Once: what has been taken up meanwhile cannot be."""
    make_folder(tmp_path)
    path = send(tmp_path, Request([]))
    assert withdraw(path)
    assert not withdraw(path)


def test_the_folder_is_private_and_the_requests_readable(tmp_path: Path) -> None:
    """Only its owner writes there; what root writes under any umask the daemon can read."""
    before = os.umask(0o077)
    try:
        make_folder(tmp_path)
        folder_of(tmp_path).chmod(0o750)
        path = send(tmp_path, Request([]))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_the_folder_is_made_and_cleared(tmp_path: Path) -> None:
    """Nobody but the owner may write; what was left half written goes, what was asked stays."""
    before = os.umask(0o022)
    try:
        make_folder(tmp_path)
    finally:
        os.umask(before)
    folder = folder_of(tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    (folder / ".1-1.json").touch()
    path = send(tmp_path, Request([]))
    make_folder(tmp_path)
    assert list(folder.iterdir()) == [path]
