"""A watcher: its process, with the real watchfiles, and everything that can go wrong with it."""

# ruff: noqa: ASYNC240 - a local file answers at once, and nothing else runs in the loop

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from daemon.sources.watcher import (
    Canary,
    Changes,
    Ended,
    Exhausted,
    Flood,
    Proven,
    Ready,
    Report,
    RootDeleted,
    Watcher,
)
from tests.engine.children import (
    alter,
    canary_of,
    condition,
    confine,
    deaf,
    make_files,
    paused,
    run_over,
    watched_by,
    weaken,
)
from tests.engine.conftest import DEADLINE


class NoMoreError(Exception):
    """The watcher has ended."""


class Ear:
    """Listens to a watcher, and knows what it has reported so far."""

    def __init__(self, watcher: Watcher, canary: Path) -> None:
        self.watcher = watcher
        self._canary = canary
        self.reports: list[Report] = []
        self._stream = aiter(watcher)

    async def hear(self, *kinds: type[Report]) -> Report:
        """The next report of one of these kinds."""
        async with self._in_time():
            while True:
                if (report := await anext(self._stream, None)) is None:
                    raise NoMoreError(self.watcher.ended)
                self.reports.append(report)
                if isinstance(self.reports[-1], kinds):
                    return self.reports[-1]

    async def hear_of(self, *names: str) -> None:
        """Wait until each of these has been named, now or before."""
        while not set(map(os.fsencode, names)) <= set(self.named):
            await self.hear(Changes)

    async def end(self) -> Ended:
        """Listen to the end."""
        async with self._in_time():
            async for report in self._stream:
                self.reports.append(report)
        return self.watcher.ended

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(DEADLINE):
                yield
        except TimeoutError:
            last = "; ".join(f"{report!r:.100}" for report in self.reports[-5:])
            state = condition(self.watcher.pid, self._canary)
            pytest.fail(f"heard {len(self.reports)} reports, the last of them {last}\n{state}")

    @property
    def told(self) -> list[Changes]:
        """The changes."""
        return [report for report in self.reports if isinstance(report, Changes)]

    @property
    def proven(self) -> range:
        """The canaries of which is known that they are back."""
        told = [report.canary for report in self.reports if isinstance(report, Proven)]
        return range(max(told, default=0) + 1)

    @property
    def named(self) -> list[bytes]:
        """Every path, in order."""
        return [
            path
            for report in self.told
            for path in (*(path for path, _ in report.present), *report.removed)
        ]


def watcher_of(tree: Path) -> Watcher:
    return Watcher(bytes(tree), canary_of(tree))


@pytest.fixture(autouse=True)
def _state(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()


@asynccontextmanager
async def listening(tree: Path) -> AsyncIterator[Ear]:
    """A watcher that is in place."""
    async with watcher_of(tree) as watcher:
        ear = Ear(watcher, canary_of(tree))
        await ear.hear(Ready)
        yield ear


async def test_changes_are_told(tree: Path) -> None:
    """A file that is created, written or removed is named, by its bytes below the root."""
    (tree / "d").mkdir()
    async with listening(tree) as ear:
        path = tree / "d" / "ä"
        path.write_text("x")
        await ear.hear_of("d/ä")
        assert all(report.present and not report.removed for report in ear.told)
        path.unlink()
        while not ear.told[-1].removed:
            await ear.hear(Changes)
        assert ear.told[-1].removed == ["d/ä".encode()]
        assert set(ear.named) == {"d/ä".encode()}


async def test_canary(tree: Path) -> None:
    """The canary measures the way of a hint, is none, and has a folder of its own."""
    async with listening(tree) as ear:
        (tree / "a").write_text("x")
        await ear.hear_of("a")
        (tree / "b").write_text("x")
        await ear.hear_of("b")
        assert set(ear.named) == {b"a", b"b"}
        assert any(report.latency_us for report in ear.told)
    assert canary_of(tree).stat().st_mode & 0o777 == 0o700


async def test_removals_are_proven(tree: Path) -> None:
    """After removals, and only then, it is told when a canary is back that was sent after them."""
    async with listening(tree) as ear:
        for number in range(20):
            (tree / f"{number}").write_text("x")
            await ear.hear_of(f"{number}")
        assert not any(isinstance(report, Proven) for report in ear.reports)
        canaries = [report.canary for report in ear.told]
        assert canaries == sorted(set(canaries))
        for number in range(20):
            (tree / f"{number}").unlink()
            while not ear.told[-1].removed or ear.told[-1].removed[0] != b"%d" % number:
                await ear.hear(Changes)
            removed = ear.told[-1]
            assert removed.canary > canaries[-1]
            while removed.canary not in ear.proven:
                await ear.hear(Proven)


async def test_new_folder(tree: Path) -> None:
    """A new folder is told once more when it is watched, and all that came in it."""
    new = tree.parent / "new"
    folders = [new / f"{number}" / "deep" for number in range(2_000)]
    for folder in folders:
        folder.mkdir(parents=True)
    inodes = {folder.stat().st_ino for folder in [new, *folders]}
    async with listening(tree) as ear:
        for turn in range(3):
            new.rename(tree / f"new{turn}")
            await ear.hear_of(f"new{turn}")
            while ear.named.count(f"new{turn}".encode()) < 2:
                await ear.hear(Changes)
            assert inodes <= watched_by(ear.watcher.pid)
            (tree / f"new{turn}").rename(new)


async def test_new_folder_that_cannot_be_watched(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nothing tells for too long that it is watched, another watcher is due."""
    alter(monkeypatch, "watch_arrivals", UNWATCHED_NS=-1)
    async with listening(tree) as ear:
        (tree / "new").mkdir()
        assert "is not watched" in (await ear.end()).reason
    assert ear.named == [b"new"]


async def test_new_folders_under_one_watcher_after_another(tree: Path) -> None:
    """What a watcher leaves behind serves the next one, however often it was used."""
    for turn in range(4):
        async with listening(tree) as ear:
            for number in range(turn):
                (tree / f"{turn}-{number}").mkdir()
                while ear.named.count(f"{turn}-{number}".encode()) < 2:
                    await ear.hear(Changes)


async def test_idle_canary(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher with nothing to tell says at times that it is well."""
    alter(monkeypatch, "watch_child", CANARY_NS=1, ACTIVE_NS=1)
    async with listening(tree) as ear:
        report = await ear.hear(Canary)
    assert isinstance(report, Canary)
    assert report.latency_us > 0


async def test_new_names_before_old(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one batch what is there is told before what is not: the new name precedes the old.

    Each report but the last says that there are more.
    """
    alter(monkeypatch, "watch_child", STEP_MS=100, DEBOUNCE_MS=5_000, CHUNK=7)
    make_files(tree, 50)
    async with listening(tree) as ear:
        for path in list(tree.iterdir()):
            path.rename(path.with_name(f"new-{path.name}"))
        await ear.hear_of(*map(str, range(50)))
        assert all(name.startswith(b"new-") for name in ear.named[:50])
        assert [report.more for report in ear.told] == [True] * 15 + [False]


async def test_burst(tree: Path) -> None:
    """More files than the queue holds, while the process stands still: said to be a burst."""
    async with listening(tree) as ear:
        with paused(ear.watcher.pid):
            make_files(tree, 20_000)
        report = await ear.hear(Changes)
        assert isinstance(report, Changes)
        assert report.burst
        (tree / "later").write_text("x")
        try:
            await ear.hear_of("later")
        except NoMoreError:
            # A canary met the full queue, which says the same.
            assert ear.watcher.ended.cause == "overflow"


async def test_change_that_readers_pushed_out(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that found the queue full of readers is not heard of: but that there was more is."""
    alter(monkeypatch, "watch_child", GAP_NS=10_000_000, WAIT_NS=1_000_000)
    make_files(tree, 20_000)
    async with listening(tree) as ear:
        with paused(ear.watcher.pid):
            for path in tree.iterdir():
                os.close(os.open(path, os.O_RDONLY))
            (tree / "lost").write_text("x")
        with contextlib.suppress(StopAsyncIteration):
            await ear.hear(Changes)
        assert ear.named == []
        assert ear.watcher.ended.cause == "overflow" or ear.told[0].burst


async def test_flood(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is too large is not told by its names."""
    alter(monkeypatch, "watch_child", FLOOD=10)
    async with listening(tree) as ear:
        with paused(ear.watcher.pid):
            make_files(tree, 200)
        await ear.hear(Flood)


async def test_overflow(tree: Path) -> None:
    """A canary that a full queue dropped is found out by the one after it: the watcher ends."""
    async with listening(tree) as ear:
        await run_over(ear.watcher.pid, tree)
        assert (await ear.end()).cause == "overflow"
        assert len(ear.named) > 1_000


async def test_blind(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher whose canary does not come back at all ends."""
    alter(monkeypatch, "watch_canary", BLIND_NS=50_000_000)
    alter(monkeypatch, "watch_child", CANARY_NS=1)
    async with listening(tree) as ear:
        with deaf(ear.watcher.pid):
            assert (await ear.end()).cause == "blind"


async def test_paused_is_not_blind(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time in which the process did not run is none in which the canary could have come back."""
    alter(monkeypatch, "watch_canary", BLIND_NS=200_000_000, TURN_NS=1_000_000)
    alter(monkeypatch, "watch_child", CANARY_NS=1)
    async with listening(tree) as ear:
        for name in ("a", "b"):
            with paused(ear.watcher.pid):
                (tree / name).write_text("x")
                end = time.monotonic() + 0.3
                while time.monotonic() < end:
                    make_files(tree.parent, 100)
            await ear.hear_of(name)


async def test_name_that_is_not_utf8(tree: Path) -> None:
    """Such a name ends the watcher, which says so."""
    async with listening(tree) as ear:
        Path(os.fsdecode(bytes(tree) + b"/bad-\xff")).write_text("x")
        ended = await ear.end()
        assert ended.cause == "ended"
        assert "decode" in ended.reason


async def test_folders_that_are_not_utf8(tmp_path: Path) -> None:
    """That the root, or our own folder, has such a name is no trouble."""
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/odd\xff"))
    (odd / "tree" / "d").mkdir(parents=True)
    (odd / "state").mkdir()
    async with listening(odd / "tree") as ear:
        (odd / "tree" / "d" / "a").write_text("x")
        await ear.hear_of("d/a")
        assert set(ear.named) == {b"d/a"}
        (odd / "tree" / "new").mkdir()
        while ear.named.count(b"new") < 2:
            await ear.hear(Changes)
        (odd / "tree").rename(odd / "away")
        await ear.hear(RootDeleted)


async def test_root_that_is_not_there(tree: Path) -> None:
    """A root that cannot be found ends the watcher before it is in place."""
    tree.rmdir()
    async with watcher_of(tree) as watcher:
        ended = await Ear(watcher, canary_of(tree)).end()
    assert ended.cause == "ended"
    assert "FileNotFoundError" in ended.reason


async def test_root_that_cannot_be_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root that may not be listed ends the watcher before it is in place."""
    weaken(monkeypatch)
    tree.chmod(0)
    try:
        async with watcher_of(tree) as watcher:
            ended = await Ear(watcher, canary_of(tree)).end()
    finally:
        tree.chmod(0o755)
    assert ended.cause == "ended"
    assert "PermissionError" in ended.reason


@pytest.mark.parametrize("removed", [True, False])
async def test_root_that_goes(tree: Path, *, removed: bool) -> None:
    """A root that is removed or renamed is reported."""
    async with listening(tree) as ear:
        if removed:
            tree.rmdir()
        else:
            tree.rename(tree.with_name("away"))
        await ear.hear(RootDeleted)


async def test_folder_that_cannot_be_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All the others are watched nevertheless; once it can be read, another watcher is due."""
    weaken(monkeypatch)
    folders = [tree / a / b / c for a in "abcd" for b in "abcd" for c in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
    closed = [tree / "b", tree / "c" / "b", tree / "d" / "d" / "a"]
    for folder in closed:
        folder.chmod(0)
    try:
        async with listening(tree) as ear:
            names = [f"{folder.relative_to(tree)}/x" for folder in folders]
            names = [name for name in names if not name.startswith(("b/", "c/b/", "d/d/a/"))]
            for name in names:
                (tree / name).write_text("x")
            await ear.hear_of(*names)
            closed[-1].chmod(0o755)
            assert "can be read" in (await ear.end()).reason
    finally:
        for folder in closed:
            folder.chmod(0o755)


async def test_link_to_where_it_cannot_be_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder out of the tree, behind a link, that cannot be read takes no folder's watch."""
    weaken(monkeypatch)
    closed = tree.parent / "out" / "closed"
    closed.mkdir(parents=True)
    closed.chmod(0)
    names = [f"{number}/x" for number in range(20)]
    for number in range(20):
        (tree / f"{number}").mkdir()
        (tree / f"link-{number}").symlink_to(closed.parent)
    try:
        async with listening(tree) as ear:
            for name in names:
                (tree / name).write_text("x")
            await ear.hear_of(*names)
    finally:
        closed.chmod(0o755)


async def test_new_folder_that_cannot_be_walked(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that arrives with one inside that cannot be read: another watcher is due."""
    weaken(monkeypatch)
    closed = tree.parent / "new" / "a" / "b"
    closed.mkdir(parents=True)
    closed.chmod(0)
    try:
        async with listening(tree) as ear:
            (tree.parent / "new").rename(tree / "new")
            assert "cannot be read" in (await ear.end()).reason
    finally:
        (tree / "new" / "a" / "b").chmod(0o755)


async def test_link_to_a_folder(tree: Path) -> None:
    """What happens in a folder is told by its own name, and nothing of what is out of the tree."""
    (tree / "d" / "e").mkdir(parents=True)
    (tree.parent / "out").mkdir()
    for number in range(20):
        (tree / f"link-{number}").symlink_to("d")
    (tree / "out").symlink_to("../out")
    async with listening(tree) as ear:
        (tree.parent / "out" / "x").write_text("x")
        (tree / "d" / "x").write_text("x")
        (tree / "d" / "e" / "x").write_text("x")
        await ear.hear_of("d/x", "d/e/x")
        assert set(ear.named) == {b"d/x", b"d/e/x"}


async def test_link_to_a_folder_that_is_removed(tree: Path) -> None:
    """The folder's only watch may go with the link: another watcher is due."""
    (tree / "d").mkdir()
    async with listening(tree) as ear:
        (tree.parent / "new").mkdir()
        (tree.parent / "new" / "link").symlink_to(tree / "d")
        (tree.parent / "new").rename(tree / "new")
        await ear.hear_of("new")
        (tree / "a").write_text("x")
        await ear.hear_of("a")
        (tree / "new" / "link").unlink()
        assert "link" in (await ear.end()).reason


@pytest.mark.parametrize("target", ["d", "../out"])
async def test_file_in_the_place_of_a_link(tree: Path, target: str) -> None:
    """One rename puts a file where a link to a folder was: its name is told, now and later."""
    (tree / "d").mkdir()
    (tree.parent / "out").mkdir()
    (tree / "link").symlink_to(target)
    (tree / "new").write_text("x")
    async with listening(tree) as ear:
        (tree / "new").rename(tree / "link")
        await ear.hear_of("link")
        ear.reports.clear()
        (tree / "link").write_text("more")
        await ear.hear_of("link")


async def test_new_link_to_a_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link in a new folder takes over an old folder's watch, whose files keep their names."""
    alter(monkeypatch, "watch_child", STEP_MS=100, DEBOUNCE_MS=5_000)
    (tree / "d").mkdir()
    new = tree.parent / "new"
    (new / "link" / "far").mkdir(parents=True)
    far = (new / "link" / "far").stat().st_ino
    (new / "link" / "far" / "d").symlink_to(tree / "d")
    async with listening(tree) as ear:
        (tree / "a").write_text("x")
        await ear.hear_of("a")
        new.rename(tree / "new")
        while far not in watched_by(ear.watcher.pid):  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0)
        make_files(tree / "d", 100)
        await ear.hear_of(*(f"d/{number}" for number in range(100)))


async def test_watches_that_do_not_suffice(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer watches than folders the watcher is in place, and says that it is not complete."""
    confine(monkeypatch, watches=5)
    for number in range(20):
        (tree / f"{number}").mkdir()
    async with listening(tree) as ear:
        (ready,) = ear.reports
        assert isinstance(ready, Ready)
        assert not ready.complete
        (tree / "a").write_text("x")
        await ear.hear_of("a")


async def test_watches_that_run_out(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New folders that find no watch left are no silent loss."""
    alter(monkeypatch, "watch_child", PROBE_NS=0)
    confine(monkeypatch, watches=5)
    async with listening(tree) as ear:
        (ready,) = ear.reports
        assert isinstance(ready, Ready)
        assert ready.complete
        for number in range(20):
            (tree / f"{number}").mkdir()
        assert await ear.hear(Exhausted) == Exhausted("max_user_watches")


async def test_watches_that_are_free_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher that ran short ends when there are watches for another."""
    alter(monkeypatch, "watch_child", PROBE_NS=0, RETRY_NS=0, CANARY_NS=1)
    confine(monkeypatch, watches=15)
    for number in range(20):
        (tree / f"{number}").mkdir()
    async with listening(tree) as ear:
        for number in range(20):
            (tree / f"{number}").rmdir()
        assert "watches again" in (await ear.end()).reason


async def test_no_instance_left(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an instance nothing can be watched; the limit is named."""
    confine(monkeypatch, instances=0)
    async with watcher_of(tree) as watcher:
        ear = Ear(watcher, canary_of(tree))
        assert (await ear.end()).cause == "ended"
        assert ear.reports == [Exhausted("max_user_instances")]


async def test_process_that_is_killed(tree: Path) -> None:
    """A process that dies without a word ends the iteration, and how it died is said."""
    async with listening(tree) as ear:
        os.kill(ear.watcher.pid, signal.SIGKILL)
        assert await ear.end() == Ended("died", "its process ended: Killed")


async def test_process_that_crashes(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of what it wrote to stderr is in the reason."""
    monkeypatch.setattr("daemon.sources.watcher._PROGRAM", "raise SystemExit('bad luck')")
    async with watcher_of(tree) as watcher:
        ended = await Ear(watcher, canary_of(tree)).end()
    assert ended == Ended("died", "its process ended: exit status 1: bad luck")


async def test_signals_of_a_whole_group(tree: Path) -> None:
    """What systemd or a terminal sends to all is for the daemon alone, and so is a lease."""
    async with listening(tree) as ear:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGIO):
            os.kill(ear.watcher.pid, number)
        (tree / "a").write_text("x")
        await ear.hear_of("a")
        ear.watcher.stop()
        assert (await ear.end()).cause == "stopped"


async def test_process_that_does_not_end(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot hear that it is to end is killed."""
    monkeypatch.setattr("daemon.sources.watcher.KILL_AFTER", 0.01)
    async with listening(tree) as ear:
        pid = ear.watcher.pid
        os.kill(pid, signal.SIGSTOP)
    assert not Path(f"/proc/{pid}").exists()


async def test_cancelled_while_it_ends(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever leaves in a hurry leaves no process behind."""
    monkeypatch.setattr("daemon.sources.watcher.KILL_AFTER", 0.1)
    pids: list[int] = []

    async def leave() -> None:
        async with listening(tree) as ear:
            pids.append(ear.watcher.pid)
            os.kill(pids[0], signal.SIGSTOP)

    leaving = asyncio.create_task(leave())
    async with asyncio.timeout(DEADLINE):
        while not pids:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    assert not Path(f"/proc/{pids[0]}").exists()


async def test_stop_while_nobody_reads(tree: Path) -> None:
    """A process that waits for its reader, its pipe full, ends like any other."""
    async with listening(tree) as ear:
        pid = ear.watcher.pid
        make_files(tree, 20_000)
    assert not Path(f"/proc/{pid}").exists()


PARENT = """
import asyncio, sys
from pathlib import Path
from daemon.sources.watcher import Ready, Watcher

async def main():
    async with Watcher(sys.argv[1].encode(), Path(sys.argv[2])) as watcher:
        async for report in watcher:
            print(watcher.pid, flush=True)

asyncio.run(main())
"""


def test_parent_that_is_gone(tree: Path) -> None:
    """A process whose daemon was killed ends by itself."""
    argv = (sys.executable, "-c", PARENT, tree, canary_of(tree))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        descriptor = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    try:
        assert select.select([descriptor], [], [], DEADLINE)[0]
    finally:
        os.close(descriptor)
