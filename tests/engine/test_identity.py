"""Watches that go by content: what bytes a file holds decides whether it is new."""

import asyncio
import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.cli.harness import Rig
from daemon.core.model import Key, Trigger
from daemon.engine import contents
from daemon.engine.digests import LARGE
from daemon.engine.disk import fingerprint
from tests.engine.conftest import DEADLINE, Gate, Open
from tests.unit import shortage

CONTENT: dict[str, Any] = {"identity": "content"}


def digest_of(content: bytes) -> str:
    return "blake2b:" + hashlib.blake2b(content, digest_size=16).hexdigest()


async def look(rig: Rig, path: Key, **fields: Any) -> None:
    """A look, and whatever follows from it."""
    await rig.send(path, "look", **fields)
    await rig.service.inbox.idle()


async def story(rig: Rig, path: Key) -> list[str]:
    return [record.event for record in await rig.store.owed(0, 999) if record.path == path.path]


async def done(rig: Rig, gate: Gate, name: str, text: str = "content\n") -> Key:
    """A file that was handled; the key that its handler was given is `gate.key`."""
    path = rig.write(name, text)
    await look(rig, path)
    await handled(rig, gate, path)
    return path


async def handled(rig: Rig, gate: Gate, path: Key) -> str:
    """Let a ready file be handled; the idempotency key of its handler."""
    await rig.state(path, ["ready"])
    await rig.send(path, "start")
    job = await gate.let_pass()
    await rig.state(path, ["done"])
    await rig.service.inbox.idle()
    return job.idempotency_key


async def test_digest_before_ready(engine: Open) -> None:
    """A settled file goes on record as settling, and is ready only with its digest."""
    async with engine(**CONTENT) as rig:
        path = rig.write("a", "bytes")
        await look(rig, path)
        row = await rig.row(path)
        assert (row.state, row.digest) == ("ready", digest_of(b"bytes"))
        assert await story(rig, path) == ["discover", "settle"]
        (settle,) = [line for line in await rig.lines() if line["event"] == "settle"]
        assert settle["evidence"] == "quiet+lease"


def touch(path: Path) -> None:
    os.utime(path)


def copy_onto(path: Path) -> None:
    shutil.copyfile(path, path.parent.parent / "copy")
    shutil.copyfile(path.parent.parent / "copy", path)


def rename_onto(path: Path) -> None:
    shutil.copyfile(path, path.parent.parent / "copy")
    (path.parent.parent / "copy").rename(path)


SAME: list[Callable[[Path], None]] = [touch, copy_onto, rename_onto]


@pytest.mark.parametrize("change", SAME)
async def test_same_bytes(engine: Open, tree: Path, change: Callable[[Path], None]) -> None:
    """A touch, a copy onto it and a copy renamed over it settle as done: nothing to handle."""
    gate = Gate()
    async with engine(gate, **CONTENT) as rig:
        path = await done(rig, gate, "a")
        change(tree / "a")
        await look(rig, path, waited=True)
        await look(rig, path)
        row = await rig.row(path)
        assert row.seen == fingerprint((tree / "a").lstat())
        assert (row.state, (await story(rig, path))[-2:]) == ("done", ["change", "settle"])
        assert gate.jobs.empty()


async def test_restored_from_backup(engine: Open, tree: Path) -> None:
    """Removed and restored with another inode and mtime, a done file is done again."""
    gate = Gate()
    async with engine(gate, **CONTENT) as rig:
        path = await done(rig, gate, "a")
        shutil.copyfile(tree / "a", tree.parent / "backup")
        (tree / "a").unlink()
        await look(rig, path, waited=True)
        assert (await rig.row(path)).state == "gone"
        shutil.copyfile(tree.parent / "backup", tree / "a")
        os.utime(tree / "a", (1, 1))
        await look(rig, path)
        assert (await rig.row(path)).state == "done"
        assert "start" not in (await story(rig, path))[4:]


async def test_same_bytes_have_the_same_key(engine: Open) -> None:
    """What the handler is given to know a repetition by goes by the bytes, not by the inode."""
    gate = Gate()
    async with engine(gate, **CONTENT) as rig:
        path = rig.write("a", "one")
        await look(rig, path)
        first = await handled(rig, gate, path)
        keys = []
        for text in ("two", "one"):
            rig.write("a", text)
            await look(rig, path)
            await look(rig, path)
            keys.append(await handled(rig, gate, path))
        assert keys[1] == first != keys[0]


async def test_only_mode(engine: Open, tree: Path) -> None:
    """Chmod costs one digest and no transition, and the next scan finds nothing any more."""
    gate = Gate()
    async with engine(gate, **CONTENT) as rig:
        path = await done(rig, gate, "a")
        version = (await rig.row(path)).version
        (tree / "a").chmod(0o600)
        counts = await rig.service.scanner.scan(rig.service.trees["incoming"], [b""])
        await rig.service.inbox.idle()
        await rig.service.ledger.close()
        row = await rig.row(path)
        assert (counts.found, row.state, row.version) == (0, "done", version)
        assert row.seen == fingerprint((tree / "a").lstat())


async def test_other_bytes_of_the_same_size_and_mtime(engine: Open, tree: Path) -> None:
    """Written in place with its mtime put back, a file differs by its ctime: a scan finds it."""
    gate = Gate()
    async with engine(gate, **CONTENT) as rig:
        path = await done(rig, gate, "a", "aaaa")
        before = (tree / "a").stat()
        (tree / "a").write_text("bbbb")
        os.utime(tree / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
        await rig.service.scanner.scan(rig.service.trees["incoming"], [b""])
        await rig.service.inbox.idle()
        assert (await story(rig, path))[-1] == "change"
        await look(rig, path)
        row = await rig.row(path)
        assert (row.state, row.digest) == ("ready", digest_of(b"bbbb"))


async def test_by_stat_it_is_not_noticed(engine: Open, tree: Path) -> None:
    """The other identity knows inode, size and mtime only."""
    gate = Gate()
    async with engine(gate) as rig:
        path = await done(rig, gate, "a", "aaaa")
        before = (tree / "a").stat()
        (tree / "a").write_text("bbbb")
        os.utime(tree / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
        await rig.service.scanner.scan(rig.service.trees["incoming"], [b""])
        await look(rig, path)
        assert (await rig.row(path)).state == "done"
        assert (await rig.row(path)).digest is None


class Reads:
    """Holds up the digests of a rig, and counts them."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: asyncio.Queue[bytes] = asyncio.Queue()
        self.go_on = asyncio.Event()
        self._digests = rig.service.trees["incoming"].disk.digests
        self._of = self._digests.of
        monkeypatch.setattr(self._digests, "of", self.of)

    async def of(self, path: bytes, *rest: Any) -> str | None:
        self.begun.put_nowait(path)
        await self.go_on.wait()
        return await self._of(path, *rest)


async def test_one_digest_at_a_time(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a digest is computed looks start no other, and hold no place in the pipeline."""
    async with engine(**CONTENT) as rig:
        reads = Reads(rig, monkeypatch)
        path, other = rig.write("a"), rig.key("other")
        await rig.send(path, "look")
        assert await reads.begun.get() == bytes(tree / "a")
        for _ in range(100):
            rig.service.inbox.put(Trigger(path, "look", "hint"))
            await rig.send(path, "look")
        (tree / "other").mkdir()
        assert await rig.send(other, "look") is None
        assert (await rig.row(path)).state == "settling"
        assert not rig.service.inbox._idle.is_set()
        reads.go_on.set()
        await rig.service.inbox.idle()
        assert (await rig.row(path)).state == "ready"
        assert reads.begun.empty()


async def test_changed_while_it_is_read(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes under the reader's hands settles again, with the digest of the whole."""
    async with engine(**CONTENT) as rig:
        reads = Reads(rig, monkeypatch)
        path = rig.write("a", "half")
        await rig.send(path, "look")
        await reads.begun.get()
        rig.write("a", "whole")
        reads.go_on.set()
        await rig.service.inbox.idle()
        row = await rig.row(path)
        assert (row.state, row.digest) == ("ready", digest_of(b"whole"))
        assert await story(rig, path) == ["discover", "settle"]


async def test_removed_while_it_is_read(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that goes meanwhile is gone."""
    async with engine(**CONTENT) as rig:
        reads = Reads(rig, monkeypatch)
        path = rig.write("a")
        await rig.send(path, "look")
        await reads.begun.get()
        (tree / "a").unlink()
        reads.go_on.set()
        await rig.state(path, ["gone"])
        assert await story(rig, path) == ["discover", "vanish"]


async def test_unreadable(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read is said, stays settling, and is tried again with its next look."""

    async def refuse(*_: Any) -> str:
        raise PermissionError(13, "Permission denied")

    async with engine(**CONTENT) as rig:
        path = rig.write("a")
        digests = rig.service.trees["incoming"].disk.digests
        with monkeypatch.context() as patch:
            patch.setattr(digests, "of", refuse)
            await look(rig, path)
        assert (await rig.row(path)).state == "settling"
        (failed,) = [line for line in await rig.lines() if line["outcome"] == "failed"]
        assert failed["error"] == "Permission denied (digest)"
        await look(rig, path)
        assert (await rig.row(path)).state == "ready"


async def test_shortage(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor to be had it is tried again until there is one, and no line says so."""
    monkeypatch.setattr(contents, "AGAIN_SECONDS", 0.001)
    async with engine(**CONTENT) as rig:
        reads = Reads(rig, monkeypatch)
        path = rig.write("a")
        await rig.send(path, "look")
        await reads.begun.get()
        with shortage.of_descriptors():
            reads.go_on.set()
            for _ in range(3):
                await reads.begun.get()
        await rig.state(path, ["ready"])
        assert {line["outcome"] for line in await rig.lines()} == {"success"}


async def scanned(rig: Rig) -> None:
    """A scan, and whatever follows from it."""
    await rig.service.scanner.scan(rig.service.trees["incoming"], [b""])
    await rig.service.inbox.idle()


async def test_adopted(engine: Open, tree: Path) -> None:
    """What is adopted is done with its digest, so that a touch does not have it handled."""
    for number in range(300):
        (tree / f"{number}").write_bytes(b"%d" % number)
    async with engine(existing="adopt", **CONTENT) as rig:
        await scanned(rig)
        rows = [await rig.row(rig.key(str(number))) for number in range(300)]
        assert {row.state for row in rows} == {"done"}
        assert [row.digest for row in rows] == [digest_of(b"%d" % n) for n in range(300)]
        assert {row.version for row in rows} == {1}
        rig.service.trees["incoming"].adopt_before = 0
        os.utime(tree / "7")
        await look(rig, rig.key("7"))
        await look(rig, rig.key("7"))
        assert (await story(rig, rig.key("7"))) == ["discover", "change", "settle"]
        assert (await rig.row(rig.key("7"))).state == "done"


async def test_adopted_though_it_cannot_be_read(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a digest what was there before is adopted by what stat knows of it."""

    async def refuse(*_: Any) -> str:
        raise PermissionError(13, "Permission denied")

    (tree / "a").write_text("a")
    async with engine(existing="adopt", **CONTENT) as rig:
        monkeypatch.setattr(rig.service.trees["incoming"].disk.digests, "of", refuse)
        await scanned(rig)
        row = await rig.row(rig.key("a"))
        assert (row.state, row.digest) == ("done", None)
        assert row.seen is not None
        assert row.done == row.seen.content


async def test_adopted_while_it_is_written_to(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes while it is read is adopted as it stands, and not read for ever."""
    (tree / "a").write_text("a")
    async with engine(existing="adopt", **CONTENT) as rig:
        reads = Reads(rig, monkeypatch)
        tree_ = rig.service.trees["incoming"]
        tree_.adopt_before = 2**62
        reading = asyncio.ensure_future(scanned(rig))
        await reads.begun.get()
        rig.write("a", "longer")
        reads.go_on.set()
        await reading
        row = await rig.row(rig.key("a"))
        assert (row.state, row.seen and row.seen.size, row.digest) == ("done", 6, None)


async def test_the_next_at_a_path_whose_row_a_scan_did_not_see(engine: Open, tree: Path) -> None:
    """Whoever comes after what waits for its digest learns of the row that nobody has asked for."""
    async with engine(existing="adopt", steps=0, **CONTENT) as rig:
        path = rig.write("a")
        await look(rig, path)
        assert (await rig.row(path)).state == "done"
        found = fingerprint((tree / "a").stat())
        rig.service.trees["incoming"].adopt_before = 2**62
        rig.service.ledger._recent.clear()
        rig.service.pipeline._contents._known.clear()
        (tree / "a").unlink()
        await asyncio.gather(
            rig.send(path, "look", cause="scan", found=found),
            rig.send(path, "look", cause="hint", waited=True),
        )
        assert (await rig.row(path)).state == "gone"


async def test_stop_while_it_is_read(engine: Open, tree: Path) -> None:
    """A stop does not wait for a large file to be read; the next start begins anew."""
    with (tree / "large").open("wb") as file:
        file.truncate(2**40)
    async with engine(**CONTENT) as rig:
        path = rig.key("large")
        await rig.send(path, "look")
        async with asyncio.timeout(DEADLINE):
            while not any(t.name == "digests-incomin" for t in threading.enumerate()):  # noqa: ASYNC110 - nobody tells of a thread
                await asyncio.sleep(0)
        await rig.service.pipeline.drop_waiting()
        await rig.service.inbox.idle()
        assert (await rig.row(path)).state == "settling"
        assert not any(t.name.startswith("digest") for t in threading.enumerate())


async def test_a_large_file_does_not_hold_up_small_ones(engine: Open, tree: Path) -> None:
    """Files beside one that takes minutes to read are ready at once."""
    with (tree / "large").open("wb") as file:
        file.truncate(2**40)
    async with engine(**CONTENT) as rig:
        await rig.send(rig.key("large"), "look")
        small = rig.write("small")
        await rig.send(small, "look")
        await rig.state(small, ["ready"])
        assert (await rig.row(rig.key("large"))).state == "settling"
        assert LARGE < 2**40
        await rig.service.pipeline.drop_waiting()


async def test_rename_without_birth_times(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system knows none, the digest tells that it is the renamed file."""
    monkeypatch.setattr("daemon.engine.renames.born_ns", lambda _path: None)
    gate = Gate()
    async with engine(gate, **CONTENT) as rig:
        path = await done(rig, gate, "a")
        before = await rig.row(path)
        (tree / "a").rename(tree / "b")
        await rig.send(path, "look")
        await look(rig, rig.key("b"))
        moved = await rig.row(rig.key("b"))
        assert (moved.id, moved.state, moved.digest) == (before.id, "done", before.digest)
        assert (await rig.row(path)).id == 0


async def test_no_rename_without_birth_times(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same inode, size and mtime with other bytes is another file."""
    monkeypatch.setattr("daemon.engine.renames.born_ns", lambda _path: None)
    gate = Gate()
    async with engine(gate, **CONTENT) as rig:
        path = await done(rig, gate, "a", "aaaa")
        before = (tree / "a").stat()
        (tree / "a").rename(tree / "b")
        (tree / "b").write_text("bbbb")
        os.utime(tree / "b", ns=(before.st_atime_ns, before.st_mtime_ns))
        await look(rig, rig.key("b"))
        await look(rig, path)
        assert (await rig.row(path)).state == "gone"
        other = await rig.row(rig.key("b"))
        assert (other.state, other.digest) == ("ready", digest_of(b"bbbb"))


async def test_many(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that finds more files than may wait to be read waits itself, and all are read."""
    monkeypatch.setattr(contents, "ROOM", 20)
    for number in range(2_000):
        (tree / f"{number}").write_bytes(b"%d" % number)
    async with engine(steps=0, **CONTENT) as rig:
        await scanned(rig)
        rows = await rig.store.rows([rig.key(str(number)) for number in range(2_000)])
        assert {row and row.state for row in rows} == {"done"}
        assert rig.service.trees["incoming"].room.is_set()


async def test_too_many_to_adopt(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be adopted and finds no place in memory is left to another scan."""
    monkeypatch.setattr(contents, "LIMIT", 3)
    for number in range(9):
        (tree / f"{number}").write_bytes(b"%d" % number)
    async with engine(steps=0, existing="adopt", **CONTENT) as rig:
        for _ in range(2):
            await scanned(rig)
            assert await rig.service.inbox.next_scans() == [(rig.key(""), "burst")]
        await scanned(rig)
        rows = await rig.store.rows([rig.key(str(number)) for number in range(9)])
        assert {row and row.state for row in rows} == {"done"}
