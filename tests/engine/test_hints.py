"""The hints, with a real watcher: they come, and whatever ends a watcher is survived and said."""

# ruff: noqa: ASYNC240 - a local file answers at once, and nothing else runs in the loop

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon.cli.harness import Rig
from daemon.core.model import Key, Trigger
from daemon.engine.detection import Detection
from daemon.sources.hints import Burst, Hints
from daemon.sources.watcher import Changes, Proven, Watcher
from tests.engine.children import alter, confine, make_files, paused, run_over
from tests.engine.conftest import DEADLINE, Open, background, key


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.sources.hints.BACKOFF_FIRST", 0.01)


@pytest.fixture
def watchers(monkeypatch: pytest.MonkeyPatch) -> list[Watcher]:
    """Every watcher that was started, the present one last."""
    started: list[Watcher] = []
    real = Watcher.__aenter__

    async def enter(self: Watcher) -> Watcher:
        started.append(self)
        return await real(self)

    monkeypatch.setattr(Watcher, "__aenter__", enter)
    return started


def hints(rig: Rig, *, polled: bool = False, **more: Any) -> Hints:
    tree = rig.service.trees["incoming"]
    canary = rig.log.parent / "state" / "canary" / "tree"
    return Hints(tree, rig.service.inbox, rig.journal, canary=canary, polled=polled, **more)


@asynccontextmanager
async def hinting(rig: Rig, **more: Any) -> AsyncIterator[Hints]:
    """Hints whose first watcher is in place, or is not to be had."""
    made = hints(rig, **more)
    async with background(made.run()):
        await made.watching.wait()
        yield made


def detection(rig: Rig) -> Detection:
    return rig.service.trees["incoming"].detection


async def line(rig: Rig, event: str) -> dict[str, Any]:
    """Wait for a line about the daemon; each turn of the loop lets the journal write."""
    async with asyncio.timeout(DEADLINE):
        while True:
            for found in await rig.lines():
                if found["event"] == f"daemon.{event}":
                    return found
            await asyncio.sleep(0)


async def until(true: Callable[[], bool]) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(DEADLINE):
        while not true():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)


async def scan_of(rig: Rig, wanted: bytes) -> str:
    """Wait for a scan to be asked for; why it is."""
    async with asyncio.timeout(DEADLINE):
        while True:
            for request in await rig.service.inbox.next_scans():
                if request.key.path == wanted:
                    return request.cause


async def test_file_is_hinted(engine: Open) -> None:
    """A file that is created, written or removed leads to a look."""
    async with engine() as rig, hinting(rig):
        path = rig.write("a")
        await rig.state(path, ["ready"])
        (rig.service.trees["incoming"].watch.path / "a").unlink()
        await rig.state(path, ["gone"])
        assert detection(rig).mode == "inotify"
        assert detection(rig).reason is None
        assert (detection(rig).latency_us or 0) > 0


async def test_batch_in_two_reports(engine: Open, tree: Path) -> None:
    """The old name is not believed to be free before all is told that was heard with it."""
    async with engine() as rig:
        made, path = hints(rig), rig.write("a")
        await rig.send(path, "look")
        first = (await rig.row(path)).id
        (tree / "a").rename(tree / "b")
        await made._take(Changes([(b"a", None)], [], burst=False, latency_us=None, more=True))
        barrier = rig.service.inbox.barrier("incoming")
        await rig.service.inbox.arrived()
        assert not barrier.is_passed()
        await made._take(Changes([(b"b", None)], [], burst=False, latency_us=None))
        assert not barrier.is_passed()
        await rig.service.inbox.arrived()
        assert barrier.is_passed()
        await rig.service.inbox.idle()
        assert (await rig.row(key("b"))).id == first


async def test_removal_waits_for_its_canary(engine: Open) -> None:
    """Nothing is believed to be gone before it is proven that the watcher has lost nothing."""
    async with engine() as rig:
        made, inbox = hints(rig), rig.service.inbox
        await made._take(Changes([], [b"a"], burst=False, latency_us=None, canary=3))
        barrier = inbox.barrier("incoming")
        await inbox.arrived()
        await made._take(Proven(2))
        assert not barrier.is_passed()
        await made._take(Proven(3))
        assert barrier.is_passed()


async def test_half_of_a_rename_is_lost(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the new name was dropped the removal waits for the scan, and the file keeps its row."""
    monkeypatch.setattr("daemon.engine.patience.GRACE_SECONDS", 0.01)
    async with engine() as rig:
        service, made, path = rig.service, hints(rig), rig.write("a")
        await rig.send(path, "look")
        first, patience = (await rig.row(path)).id, service.pipeline._patience
        (tree / "a").rename(tree / "b")
        await made._take(Changes([], [b"a"], burst=False, latency_us=None, canary=3))
        await until(lambda: bool(patience._over["incoming"]))
        barrier, _ = patience._over["incoming"][0]
        made._doubts.lose()
        await service.inbox.arrived()
        assert not barrier.is_passed()
        await service.reconciler.reconcile(service.trees["incoming"], "overflow")
        await service.inbox.idle()
        assert (await rig.row(key("b"))).id == first
        assert barrier.is_passed()


async def test_new_folder_is_scanned(engine: Open, tree: Path) -> None:
    """A folder that appears is scanned: what is in it already, no hint tells of."""
    (tree.parent / "made/deep").mkdir(parents=True)
    (tree.parent / "made/deep/a").write_text("x")
    async with engine() as rig, hinting(rig):
        (tree.parent / "made").rename(tree / "made")
        await scan_of(rig, b"made")


async def test_removed_folder_is_scanned(engine: Open, tree: Path) -> None:
    """A folder that disappears is suspected to leave rows behind: those have to go."""
    (tree / "d").mkdir()
    async with engine() as rig, hinting(rig):
        (tree / "d").rename(tree.parent / "away")
        assert key("d") in await rig.service.inbox.suspects.take()


async def test_excluded_names_are_no_hint(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the patterns leave out does not reach the inbox."""
    async with engine(exclude=("*.part",)) as rig:
        seen: list[Key] = []
        real = rig.service.inbox.put

        def put(trigger: Trigger) -> None:
            seen.append(trigger.key)
            real(trigger)

        monkeypatch.setattr(rig.service.inbox, "put", put)
        async with hinting(rig):
            (tree / "a.part").write_text("x")
            await rig.state(rig.write("b"), ["ready"])
    assert set(seen) == {key("b")}


async def test_first_watcher_asks_for_no_scan(engine: Open, watchers: list[Watcher]) -> None:
    """Whoever waits for the first watcher scans then: the scan is not asked for once more."""
    async with engine() as rig, hinting(rig):
        await rig.state(rig.write("a"), ["ready"])
        os.kill(watchers[0].pid, 9)
        assert await scan_of(rig, b"") == "watcher"
        assert len(watchers) == 2


async def test_name_that_is_not_utf8(engine: Open, tree: Path) -> None:
    """A name that ends the watcher is survived: said, watched again, and scanned."""
    async with engine() as rig, hinting(rig):
        bad = Path(os.fsdecode(bytes(tree) + b"/bad-\xff"))
        bad.write_text("x")
        assert await scan_of(rig, b"") == "watcher"
        said = await line(rig, "watcher_restarted")
        assert said["watch"] == "incoming"
        assert "decode" in said["reason"]
        assert detection(rig).restarts == 1
        bad.unlink()
        await scan_of(rig, b"")
        await rig.state(rig.write("a"), ["ready"])


async def test_watcher_that_was_killed(engine: Open, watchers: list[Watcher]) -> None:
    """A watcher's process that was killed is replaced, and the reason is on record."""
    async with engine() as rig, hinting(rig):
        os.kill(watchers[-1].pid, 9)
        await scan_of(rig, b"")
        assert "Killed" in (await line(rig, "watcher_restarted"))["reason"]
        assert detection(rig).mode == "inotify"
        await rig.state(rig.write("a"), ["ready"])


async def test_overflow(engine: Open, tree: Path, watchers: list[Watcher]) -> None:
    """A queue that ran over is said, counted, and followed by a new watcher and a scan."""
    async with engine() as rig, hinting(rig):
        await run_over(watchers[-1].pid, tree)
        # On a busy machine the watcher may tell of the crowd before it meets the overflow.
        while (cause := await scan_of(rig, b"")) == "burst":
            pass
        assert cause == "overflow"
        assert (await line(rig, "overflow"))["watch"] == "incoming"
        await line(rig, "watcher_restarted")
        assert (detection(rig).overflows, detection(rig).restarts) == (1, 1)
        assert detection(rig).mode == "inotify"


async def test_burst(engine: Open, tree: Path, watchers: list[Watcher]) -> None:
    """After a burst the tree is scanned: in the crowd something may have been overlooked."""
    async with engine() as rig, hinting(rig):
        with paused(watchers[-1].pid):
            make_files(tree, 3_000)
        assert await scan_of(rig, b"") == "burst"


async def test_flood(
    engine: Open, tree: Path, watchers: list[Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files too many to be told are found by a scan."""
    alter(monkeypatch, "watch_child", FLOOD=10)
    async with engine() as rig, hinting(rig):
        with paused(watchers[-1].pid):
            make_files(tree, 200)
        assert await scan_of(rig, b"") == "burst"


async def test_burst_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst is scanned after it, and one that goes on and on is scanned meanwhile."""
    monkeypatch.setattr("daemon.sources.hints.LULL_SECONDS", 3_600)
    monkeypatch.setattr("daemon.sources.hints.BURST_SECONDS", 0.01)
    asked = asyncio.Event()
    burst = Burst(asked.set)
    burst.end()
    assert not asked.is_set()
    burst.go_on()
    burst.go_on()
    await asyncio.wait_for(asked.wait(), DEADLINE)


@pytest.mark.parametrize("mode", ["poll", "auto"])
async def test_tree_that_is_polled(engine: Open, watchers: list[Watcher], mode: str) -> None:
    """Where watching is not wanted, or of no use, there is no watcher, and it is said why."""
    async with engine(mode=mode) as rig, hinting(rig, polled=True):
        assert detection(rig).mode == "polled"
        why = {"poll": "the configuration says so", "auto": "it is on a network file system"}
        assert detection(rig).reason == why[mode]
        assert watchers == []


async def test_root_that_is_lost_and_back(
    engine: Open, tree: Path, watchers: list[Watcher]
) -> None:
    """While there is no root nothing is watched; another root is watched anew, and scanned."""
    async with engine() as rig, hinting(rig):
        the_tree = rig.service.trees["incoming"]
        the_tree.rooted.clear()
        the_tree.rerooted.set()
        tree.rename(tree.parent / "away")
        await until(lambda: detection(rig).reason == "the root is lost")
        tree.mkdir()
        the_tree.rooted.set()
        assert await scan_of(rig, b"") == "root"
        assert len(watchers) == 2
        await rig.state(rig.write("a"), ["ready"])
        assert detection(rig).restarts == 0


async def test_burst_that_a_scan_has_found_to_be_an_overflow(
    engine: Open, watchers: list[Watcher]
) -> None:
    """The next watcher and its scan are told to be for that, and not for another root."""
    async with engine() as rig, hinting(rig):
        rig.service.trees["incoming"].rerooted.set()
        assert await scan_of(rig, b"") == "overflow"
        assert "queue ran over" in (await line(rig, "watcher_restarted"))["reason"]
        assert (len(watchers), detection(rig).restarts) == (2, 1)


async def test_start_without_a_root(engine: Open, watchers: list[Watcher]) -> None:
    """A root that is not there yet holds up nobody; it is watched and scanned when it comes."""
    async with engine() as rig:
        the_tree = rig.service.trees["incoming"]
        the_tree.rooted.clear()
        async with hinting(rig):
            assert (detection(rig).mode, watchers) == ("polled", [])
            the_tree.rooted.set()
            assert await scan_of(rig, b"") == "root"
            assert detection(rig).mode == "inotify"


async def test_root_that_is_removed(engine: Open, tree: Path) -> None:
    """Whoever looks after the roots hears of it at once."""
    gone = asyncio.Event()
    async with engine() as rig, hinting(rig, on_root_deleted=gone.set):
        tree.rmdir()
        await asyncio.wait_for(gone.wait(), DEADLINE)


async def test_watches_that_do_not_suffice(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could be watched is; that the rest is polled is said once, with the remedy."""
    confine(monkeypatch, watches=5)
    for number in range(20):
        (tree / f"{number}").mkdir()
    async with engine() as rig, hinting(rig):
        said = await line(rig, "degraded")
        assert said["sysctl"].endswith("watches")
        assert said["value"] > 5
        assert detection(rig).mode == "partly"
        assert said["sysctl"] in (detection(rig).reason or "")
        await rig.state(rig.write("a"), ["ready"])


async def test_no_instance_left(
    engine: Open, watchers: list[Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree that cannot be watched is polled, which is said once, until it can be."""
    monkeypatch.setattr("daemon.sources.hints.SHORTAGE_SECONDS", 0.01)
    with monkeypatch.context() as narrow:
        confine(narrow, instances=0)
        async with engine() as rig, hinting(rig):
            assert detection(rig).mode == "polled"
            assert (await line(rig, "degraded"))["sysctl"].endswith("instances")
            await until(lambda: len(watchers) >= 3)
            narrow.undo()
            assert await scan_of(rig, b"") == "watcher"
            assert detection(rig).mode == "inotify"
            lines = await rig.lines()
            assert [line["event"] for line in lines].count("daemon.degraded") == 1


async def test_watcher_that_cannot_be_started(
    engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a process the tree is polled, and why is said once; then it is tried again."""
    with monkeypatch.context() as broken:
        broken.setattr("daemon.sources.watcher._PYTHON", ("/no/such/program",))
        async with engine() as rig, hinting(rig):
            assert detection(rig).mode == "polled"
            assert "cannot be started" in (await line(rig, "degraded"))["reason"]
            broken.undo()
            assert await scan_of(rig, b"") == "watcher"


async def test_walk_that_takes_long(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher that is not in place for long holds up nobody, and is followed by a scan."""
    monkeypatch.setattr("daemon.sources.hints.PATIENCE_SECONDS", 0)
    async with engine() as rig, hinting(rig):
        assert detection(rig).mode == "polled"
        assert await scan_of(rig, b"") == "watcher"
        assert detection(rig).mode == "inotify"


async def test_stop_in_the_midst(engine: Open, tree: Path, watchers: list[Watcher]) -> None:
    """Cancelled while more comes than the inbox takes, the hints end, and their process."""
    async with engine() as rig:
        made = hints(rig)
        task = asyncio.create_task(made.run())
        await made.watching.wait()
        with paused(watchers[-1].pid):
            make_files(tree, 15_000)
        await until(lambda: len(rig.service.inbox) > 0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert not Path(f"/proc/{watchers[-1].pid}").exists()
