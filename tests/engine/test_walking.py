"""The walk of a scan: with processes that help and without, and what is read ahead of it."""

# ruff: noqa: ASYNC240 - a local file answers at once, and nothing else runs in the loop

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from daemon.cli.harness import Rig
from daemon.config import Settle
from daemon.engine import ahead, comparer, walking
from daemon.engine.ahead import Ahead
from daemon.engine.comparer import Crew
from daemon.engine.scanning import Counts, Differences
from daemon.engine.trees import Tree
from daemon.engine.walking import Walk
from daemon.sources import watcher
from daemon.store import Access, Store
from tests.engine.conftest import Open

SETTLE = Settle(quiet=0.0, marker="{name}.done")


@pytest.fixture
def helped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scan is a large one."""
    for module in (walking, ahead):
        monkeypatch.setattr(module, "ALONE", 0)


@pytest.fixture
def only_helped(helped: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the processes leave to the daemon's own thread is an error."""
    del helped

    def refuse(*_: Any) -> Differences:
        raise AssertionError("compared in the daemon")

    monkeypatch.setattr(walking, "compare_directories", refuse)


def put(tree: Path, *names: str | bytes) -> None:
    for name in names:
        path = tree / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode("utf-8", "surrogateescape"))


def the_tree(rig: Rig) -> Tree:
    return rig.service.trees["incoming"]


async def scan(rig: Rig) -> Counts:
    counts = await rig.service.scanner.scan(the_tree(rig), [b""])
    await rig.service.inbox.idle()
    return counts


async def read_ahead(rig: Rig) -> Ahead:
    """Read all there is before the next scan."""
    read = Ahead(the_tree(rig), rig.service.ledger, rig.service.scanner._crew)
    await read.read()
    rig.service.scanner._ahead["incoming"] = read
    return read


async def differences(rig: Rig, tops: Sequence[bytes] = (b"",)) -> dict[str, Any]:
    """All that a walk finds, put together."""
    found: dict[str, Any] = {}
    crew = Crew(rig.store)
    async with Walk(the_tree(rig), tops, rig.service.ledger, crew) as walk:
        async for each in walk:
            for name in each.__struct_fields__:
                value = getattr(each, name)
                found[name] = found.get(name, type(value)()) + value
    assert walk.failure is None
    return {name: sorted(each) if isinstance(each, list) else each for name, each in found.items()}


async def make_every_kind(rig: Rig, tree: Path) -> None:
    """Names and contents of every kind, beside rows that know some of them."""
    put(tree, "same", "other", "gone", "back", "d/same", b"d/\xff\n", "link-to", "a.part")
    os.utime(tree / "same", ns=(0, 13_569_465_600 * 10**9))
    await scan(rig)
    (tree / "back").unlink()
    await scan(rig)
    put(tree, "back", "new", "d/new", "excluded/a", "same.done", "e/f/g")
    (tree / "other").write_bytes(b"another content")
    (tree / "gone").unlink()
    (tree / "d/link").symlink_to("../e")
    os.mkfifo(tree / "e/pipe")


async def test_found_alike(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What processes find is what the daemon's own thread finds, whatever stands in the tree."""
    async with engine(settle=SETTLE, exclude=("*.part", "excluded")) as rig:
        await make_every_kind(rig, tree)
        alone = await differences(rig)
        assert (alone["changed"], alone["back"]) == ([b"other"], [b"back"])
        assert (alone["missing"], alone["aside"]) == ([b"gone"], [b"same.done"])
        assert [path for path, _ in alone["new"]] == [b"d/new", b"e/f/g", b"new"]
        assert (alone["others"], alone["folders"]) == ([b"d/link", b"e/pipe"], [b"d", b"e", b"e/f"])
        monkeypatch.setattr(walking, "ALONE", 0)
        monkeypatch.setattr(walking, "compare_directories", None)
        assert await differences(rig) == alone


@pytest.mark.usefixtures("only_helped")
async def test_by_content(engine: Open, tree: Path) -> None:
    """A file of which only the ctime is another is found by processes as well, by content."""
    put(tree, "a", "b")
    async with engine(identity="content") as rig:
        await scan(rig)
        for name in "ab":
            await rig.state(rig.key(name), {"ready"})
        (tree / "a").chmod(0o600)
        await read_ahead(rig)
        assert (await differences(rig))["aside"] == [b"a"]


@pytest.mark.usefixtures("only_helped")
async def test_read_ahead(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories that show what was read ahead of the scan are compared without their rows."""
    put(tree, "a", "d/a", b"d/\xff\n", "d/e/a")
    (tree / "d/link").symlink_to("a")
    async with engine() as rig:
        await scan(rig)
        hide_rows(rig.store, monkeypatch)
        await read_ahead(rig)
        assert await scan(rig) == Counts(whole=True, directories=3, files=4)


def hide_rows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the processes fail at the rows of a directory, though not at their summary."""
    access = store.access()
    assert access is not None
    broken = access._replace(known="SELECT nothing FROM nowhere WHERE ? = ?")
    monkeypatch.setattr(store, "access", lambda **_: broken)


async def test_changed_since_it_was_read(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens in a directory after its rows were read is found all the same."""
    put(tree, *(f"{folder}/{name}" for folder in "abcdef" for name in "xyz"))
    async with engine() as rig:
        await scan(rig)
        for module in (walking, ahead):
            monkeypatch.setattr(module, "ALONE", 0)
        await read_ahead(rig)
        put(tree, "a/new", "b/sub/new")
        (tree / "c/x").write_bytes(b"another content")
        os.utime(tree / "d/x", ns=(1, 1))
        (tree / "e/x").unlink()
        (tree / "f").rename(tree / "g")
        counts = await scan(rig)
        assert (counts.directories, counts.files) == (8, 19)
        assert (counts.new, counts.changed, counts.missing) == (5, 2, 1)


@pytest.mark.usefixtures("helped")
async def test_committed_since_it_was_read(engine: Open, tree: Path, tmp_path: Path) -> None:
    """What was read ahead is of no use once a row is another, though the disk is as it was then.

    The file was away when it was looked at, so its row has to be told that it is back.
    """
    put(tree, "d/a", "d/b")
    async with engine() as rig:
        await scan(rig)
        await read_ahead(rig)
        (tree / "d/a").rename(tmp_path / "away")
        await rig.send(rig.key("d/a"), "look", waited=True)
        assert (await rig.row(rig.key("d/a"))).state == "gone"
        (tmp_path / "away").rename(tree / "d/a")
        assert (await scan(rig)).new == 1
        await rig.state(rig.key("d/a"), {"ready"})


@pytest.mark.usefixtures("helped")
async def test_committed_while_it_was_read(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of before a transition and rows of after it are not kept together: none are."""
    put(tree, "d/a", "e/a")
    async with engine() as rig:
        await scan(rig)
        monkeypatch.setattr(ahead, "CHUNK", 1)
        take_up = Ahead._take_up

        async def take_up_and_commit(*chunk: Any) -> bool:
            goes_on = await take_up(*chunk)
            if goes_on:
                await rig.send(rig.write("new"), "look")
            return goes_on

        monkeypatch.setattr(Ahead, "_take_up", take_up_and_commit)
        read = await read_ahead(rig)
        assert read.of([b"d", b"e"]) == {}


@pytest.mark.usefixtures("helped")
async def test_nothing_is_listed_ahead(engine: Open, tree: Path, tmp_path: Path) -> None:
    """What is read ahead of the scan comes from the database alone: the tree is not touched."""
    put(tree, "d/a", "e/a")
    async with engine() as rig:
        await scan(rig)
        tree.rename(tmp_path / "away")
        read = await read_ahead(rig)
        assert set(read.of([b"d", b"e"])) == {b"d", b"e"}


@pytest.mark.usefixtures("helped")
async def test_changed_while_the_watcher_is_set_up(
    engine: Open, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is written in place before its folder is watched is found by the first scan.

    The rows have been read by then. Were its directory listed as well, nobody would see the change.
    """
    put(tree, "d/a", "e/a")
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    monkeypatch.setattr(watcher, "_PROGRAM", f"open({str(gate)!r}).read(); {watcher._PROGRAM}")
    async with engine() as rig:
        await scan(rig)
        done = asyncio.Event()
        monkeypatch.setattr(Ahead, "read", telling(Ahead.read, done))
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(rig.service._watch(the_tree(rig), tasks, lambda: None))
            await done.wait()
            (tree / "d/a").write_bytes(b"in place")
            await asyncio.to_thread(gate.write_bytes, b"")
            await watching
            await rig.service.inbox.idle()
            row = await rig.row(rig.key("d/a"))
            end(tasks)
        assert row.seen is not None
        assert row.seen.size == len(b"in place")
        (line,) = [x for x in await rig.lines() if x["event"] == "daemon.reconciled"]
        assert (line["changed"], line["missed"]) == (1, {"start": 1})


def telling(call: Any, done: asyncio.Event) -> Any:
    async def called(*arguments: Any) -> None:
        await call(*arguments)
        done.set()

    return called


def end(tasks: asyncio.TaskGroup) -> None:
    for task in tasks._tasks:
        task.cancel()


async def test_no_process(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no process can be started the daemon does without, and says so once."""
    put(tree, "a", "d/a")
    monkeypatch.setattr(walking, "ALONE", 0)
    monkeypatch.setattr(comparer, "PYTHON", ("/no/such/program",))
    async with engine() as rig:
        assert (await scan(rig)).new == 2
        assert (await scan(rig)).files == 2
        (line,) = [x for x in await rig.lines() if x["event"] == "daemon.degraded"]
        assert (line["watch"], line["level"]) == ("incoming", "warning")
        assert "/no/such/program" in line["error"]


@pytest.mark.usefixtures("helped")
async def test_process_that_dies(engine: Open, tree: Path) -> None:
    """What a process that was killed was to compare is compared all the same."""
    put(tree, "a", "d/a")
    async with engine() as rig:
        await scan(rig)
        read = await read_ahead(rig)
        assert read.comparer is not None
        process = read.comparer._process
        assert process is not None
        process.kill()
        put(tree, "d/b")
        counts = await scan(rig)
        assert (counts.files, counts.new) == (3, 1)
        assert process.returncode == -9


@pytest.mark.usefixtures("helped")
async def test_database_that_no_process_can_read(
    engine: Open, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the daemon asks, whose business it is when the database is away."""
    put(tree, "a", "d/a")
    async with engine() as rig:
        access = rig.store.access()
        assert access is not None
        elsewhere = Access((tmp_path / "none.db").as_uri() + "?mode=ro", *access[1:])
        monkeypatch.setattr(rig.store, "access", lambda **_: elsewhere)
        assert (await scan(rig)).new == 2
        await read_ahead(rig)
        assert (await scan(rig)).files == 2
        assert [x for x in await rig.lines() if x["event"] == "daemon.degraded"] == []


@pytest.mark.usefixtures("helped")
async def test_crew(engine: Open, tree: Path) -> None:
    """There are so many processes for all scans together, and who gets none does without."""
    put(tree, "a", "d/a")
    async with engine() as rig:
        crew = rig.service.scanner._crew
        hired = [crew.hire(the_tree(rig)) for _ in range(comparer.MOST + 1)]
        assert [each is None for each in hired] == [False] * comparer.MOST + [True]
        assert (await scan(rig)).new == 2
        for each in hired:
            if each is not None:
                await crew.dismiss(each)
        assert crew._free == comparer.MOST
        await scan(rig)
        assert crew._free == comparer.MOST


@pytest.mark.usefixtures("helped")
async def test_no_process_is_left(engine: Open, tree: Path) -> None:
    """Processes end with the scan that is cancelled, and with the daemon if none ever came."""
    put(tree, "a", "d/a")
    async with engine() as rig:
        await scan(rig)
        first = pid_of(await read_ahead(rig))
        scanning = asyncio.create_task(scan(rig))
        while rig.service.scanner._ahead:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0)
        scanning.cancel()
        await asyncio.wait([scanning])
        assert not Path(f"/proc/{first}").exists()
        second = pid_of(await read_ahead(rig))
        assert Path(f"/proc/{second}").exists()
    assert not Path(f"/proc/{second}").exists()


def pid_of(read: Ahead) -> int:
    assert read.comparer is not None
    assert read.comparer._process is not None
    return read.comparer._process.pid
