"""The five verbs, through the real disk and the real database."""

# ruff: noqa: ASYNC240 - a local file answers at once, and nothing else runs in the loop

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from daemon.cli.faults import FaultyStore, InjectedFault
from daemon.cli.harness import Rig
from daemon.core.model import Key, Record, Refused, Transition, Trigger
from daemon.engine.disk import fingerprint
from daemon.engine.pipeline import TOGETHER
from daemon.handlers import Outcome
from daemon.store import Store
from tests.engine.conftest import Gate, Open, key

Batch = Sequence[tuple[Transition, Record]]


class CountingStore(FaultyStore):
    """A store that remembers how large its transactions were."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.sizes: list[int] = []

    async def apply(self, batch: Batch, journaled: int) -> list[bool]:
        self.sizes.append(len(batch))
        return await super().apply(batch, journaled)


class PoisonedStore(FaultyStore):
    """A store that takes nothing of a certain file, until it has refused that alone."""

    poisoned: Key | None = None

    async def apply(self, batch: Batch, journaled: int) -> list[bool]:
        if any(transition.before.key == self.poisoned for transition, _ in batch):
            if len(batch) == 1:
                self.poisoned = None
            raise InjectedFault("poisoned")
        return await super().apply(batch, journaled)


async def story(rig: Rig, path: Key) -> list[str]:
    """What happened to a file, in a word each."""
    return [record.to_state for record in await rig.store.owed(0, 999) if record.path == path.path]


async def done(rig: Rig, gate: Gate, name: str, text: str = "content\n") -> Key:
    """A file that was handled."""
    path = rig.write(name, text)
    await rig.send(path, "look")
    await rig.send(path, "start")
    await gate.let_pass()
    await rig.state(path, ["done"])
    # The look that follows an outcome is over as well: it must not see what the test does next.
    await rig.service.inbox.idle()
    return path


async def test_settling_then_ready(engine: Open, tree: Path) -> None:
    """A file that is open for writing settles; closed and quiet, it is ready for its first step."""
    async with engine() as rig:
        with (tree / "a").open("w") as file:
            await rig.send(key("a"), "look")
            assert (await rig.row(key("a"))).state == "settling"
            file.write("more")
            file.flush()
            await rig.send(key("a"), "look")
            assert (await rig.row(key("a"))).version == 1
        await rig.send(key("a"), "look")
        row = await rig.row(key("a"))
        assert (row.state, row.step, row.seen and row.seen.size) == ("ready", "load", 4)
        (settle,) = [line for line in await rig.lines() if line["event"] == "settle"]
        assert settle["evidence"] == "quiet+lease"


async def test_steps_one_after_the_other(engine: Open) -> None:
    """A file passes its steps in their order, and is done after the last."""
    gate = Gate()
    async with engine(gate, steps=3) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        for step in ("load", "index", "ship"):
            await rig.send(path, "start")
            assert (await gate.let_pass()).step == step
            await rig.state(path, ["ready", "done"])
            await rig.service.inbox.idle()
        assert (await rig.row(path)).state == "done"


async def test_watch_without_steps(engine: Open) -> None:
    """A watch without steps only tracks: settled is done."""
    async with engine(steps=0) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        assert await story(rig, path) == ["done"]


async def test_unchanged_file_costs_nothing(engine: Open) -> None:
    """A look at a file that has not changed commits nothing and says nothing."""
    gate = Gate()
    async with engine(gate) as rig:
        path = await done(rig, gate, "a")
        before = await rig.store.last_ids(), len(await rig.lines())
        for _ in range(10):
            assert await rig.send(path, "look") is None
        assert (await rig.store.last_ids(), len(await rig.lines())) == before


async def test_change_of_a_done_file(engine: Open) -> None:
    """A done file with another content begins again."""
    gate = Gate()
    async with engine(gate) as rig:
        path = await done(rig, gate, "a")
        rig.write("a", "another content\n")
        await rig.send(path, "look")
        await rig.send(path, "look")
        assert await story(rig, path) == ["ready", "processing", "done", "settling", "ready"]


async def test_mode_and_links_are_no_change(engine: Open, tree: Path) -> None:
    """What moves only the ctime, as chmod and a hard link do, is no change of a done file."""
    gate = Gate()
    async with engine(gate) as rig:
        path = await done(rig, gate, "a")
        (tree / "a").chmod(0o600)
        (tree / "b").hardlink_to(tree / "a")
        assert await rig.send(path, "look") is None
        assert (await rig.row(path)).state == "done"


async def test_another_inode_is_a_change(engine: Open, tree: Path) -> None:
    """Replaced by a file of the same size and mtime, a done file has changed all the same."""
    gate = Gate()
    async with engine(gate) as rig:
        path = await done(rig, gate, "a", "aaaa")
        times = (tree / "a").stat()
        (tree / "b").write_text("bbbb")
        os.utime(tree / "b", ns=(times.st_atime_ns, times.st_mtime_ns))
        (tree / "b").rename(tree / "a")
        assert await rig.send(path, "look") is None
        result = await rig.send(path, "look", waited=True)
        assert isinstance(result, Transition)
        assert result.event == "change"


async def test_safe_save(engine: Open, tree: Path) -> None:
    """Written aside and renamed over: the file has changed, the name aside leaves nothing."""
    gate = Gate()
    async with engine(gate) as rig:
        path = await done(rig, gate, "a")
        aside = rig.write(".a.tmp", "new\n")
        (tree / ".a.tmp").rename(tree / "a")
        await rig.send(aside, "look")
        await rig.send(path, "look", waited=True)
        assert (await rig.row(aside)).id == 0
        assert (await rig.row(path)).state == "settling"


async def test_vanish_and_return(engine: Open, tree: Path) -> None:
    """A file off the disk is gone; the very same file back again is done as before."""
    gate = Gate()
    async with engine(gate) as rig:
        path = await done(rig, gate, "a")
        (tree / "a").rename(tree.parent / "away")
        await rig.send(path, "look", waited=True)
        (tree.parent / "away").rename(tree / "a")
        await rig.send(path, "look")
        assert await story(rig, path) == ["ready", "processing", "done", "gone", "done"]


async def test_folder_in_place_of_a_file(engine: Open, tree: Path) -> None:
    """A file that became a folder is gone, and the folder is scanned."""
    async with engine() as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        (tree / "a").unlink()
        (tree / "a").mkdir()
        await rig.send(path, "look")
        assert await rig.service.inbox.next_scans() == [(path, "new_directory")]
        assert (await rig.state(path, ["gone"])).version == 2


async def test_removal_waits(engine: Open, tree: Path) -> None:
    """What is missing is gone only after a second look: it might have stood elsewhere."""
    async with engine() as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        (tree / "a").rename(tree / "b")
        assert await rig.send(path, "look") is None
        assert (await rig.row(path)).state == "ready"
        await rig.send(rig.key("b"), "look")
        await rig.service.inbox.idle()
        moved = await rig.row(rig.key("b"))
        assert (moved.state, moved.version, (await rig.row(path)).id) == ("ready", 2, 0)


async def test_removals_frozen(engine: Open, tree: Path) -> None:
    """While the removals of a watch are frozen nothing is gone."""
    async with engine() as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        (tree / "a").unlink()
        detection = rig.service.trees["incoming"].detection
        detection.frozen = "the root is lost"
        assert await rig.send(path, "look", waited=True) is None
        assert (await rig.row(path)).state == "ready"
        detection.frozen = None
        await rig.send(path, "look", waited=True)
        assert (await rig.row(path)).state == "gone"


async def test_folder_that_went_where_a_file_once_was(engine: Open, tree: Path) -> None:
    """A path whose file is long gone may have been a folder since: it is suspected like any."""
    async with engine() as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        (tree / "a").unlink()
        await rig.send(path, "look", waited=True)
        assert (await rig.row(path)).state == "gone"
        assert await rig.send(path, "look", cause="hint") is None
        assert await rig.service.inbox.suspects.take() == [path]


async def test_folder_that_came_and_went_in_the_place_of_a_file(engine: Open, tree: Path) -> None:
    """While the file's removal waits, hints of the folder wait with it: then it is suspected."""
    async with engine() as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        (tree / "a").unlink()
        assert await rig.send(path, "look", cause="hint") is None
        (tree / "a").mkdir()
        await rig.send(rig.write("a/b"), "look")
        assert await rig.send(path, "look", cause="hint") is None
        assert await rig.service.inbox.next_scans() == [(path, "new_directory")]
        (tree / "a").rename(tree.parent / "away")
        assert await rig.send(path, "look", cause="hint") is None
        assert (await rig.state(path, ["gone"])).state == "gone"
        assert await rig.service.inbox.suspects.take() == [path]


@pytest.mark.parametrize("lasts", [True, False])
async def test_row_that_a_scan_did_not_see(engine: Open, tree: Path, *, lasts: bool) -> None:
    """A file that got its row after a scan found it, and is gone again when that is looked at."""
    async with engine(steps=0) as rig:
        path = rig.write("a")
        found = fingerprint((tree / "a").stat())
        await rig.send(path, "look", cause="hint")
        assert (await rig.row(path)).state == "done"
        if not lasts:
            (tree / "a").unlink()
        assert await rig.send(path, "look", cause="scan", found=found) is None
        await rig.service.inbox.idle()
        assert (await rig.row(path)).state == ("done" if lasts else "gone")


async def test_rename_to_a_path_whose_row_a_scan_did_not_see(engine: Open, tree: Path) -> None:
    """The row that the path got meanwhile is known of before another is moved there."""
    async with engine(steps=0) as rig:
        path, other = rig.write("a"), rig.write("b", "another")
        for each in (path, other):
            await rig.send(each, "look", cause="hint")
        (tree / "b").rename(tree / "a")
        found = fingerprint((tree / "a").stat())
        assert await rig.send(path, "look", cause="scan", found=found) is None
        await rig.send(other, "look", cause="hint")
        await rig.service.inbox.idle()
        await rig.send(path, "look")
        rows = [await rig.row(each) for each in (path, other)]
        assert [row.state for row in rows] == ["done", "gone"]
        assert rows[0].seen == found
        assert not [line for line in await rig.lines() if line.get("outcome") == "failed"]


async def test_unwanted_name(engine: Open) -> None:
    """What the patterns leave out is not discovered, whoever asks."""
    async with engine(exclude=("*.part",)) as rig:
        path = rig.write("a.part")
        assert await rig.send(path, "look") is None
        assert await rig.send(path, "discover") is None
        assert (await rig.row(path)).id == 0


async def test_start_of_a_file_that_changed(engine: Open) -> None:
    """A file that changed after it was ready is not started: it settles again."""
    gate = Gate()
    async with engine(gate) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        rig.write("a", "something else\n")
        result = await rig.send(path, "start")
        assert isinstance(result, Refused)
        assert result.guard == "fresh"
        assert (await rig.row(path)).state == "settling"
        assert gate.most == 0


async def test_lost_race_is_decided_again(engine: Open) -> None:
    """A row in memory that is of the past does no harm: it is decided again on the row as it is."""
    async with engine() as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        old = await rig.row(path)
        await rig.send(path, "hold")
        rig.service.ledger._recent[path] = old
        result = await rig.send(path, "skip")
        assert isinstance(result, Transition)
        assert (result.before.state, result.before.version) == ("held", 2)
        assert await story(rig, path) == ["ready", "held", "done"]


async def test_lost_race_that_is_refused(engine: Open) -> None:
    """Decided again, what the row as it is does not allow is refused."""
    async with engine() as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        old = await rig.row(path)
        await rig.send(path, "skip")
        rig.service.ledger._recent[path] = old
        assert isinstance(await rig.send(path, "start"), Refused)


async def test_a_scan_that_took_a_file_for_new(engine: Open) -> None:
    """Its row has come meanwhile, and is not in memory: the insert loses, and the row is read."""
    async with engine() as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        row = await rig.row(path)
        rig.service.ledger._recent.clear()
        async with asyncio.timeout(20):
            assert await rig.send(path, "look", found=row.seen) is None
        assert await rig.row(path) == row


async def test_an_old_sight_of_a_file_that_has_a_row(engine: Open, tree: Path) -> None:
    """What is to be adopted as a scan saw it, and has got a row since, is what it is now."""
    async with engine(steps=0, existing="adopt") as rig:
        (the_tree,) = rig.service.trees.values()
        path = rig.write("a")
        found = fingerprint((tree / "a").stat())
        the_tree.adopt_before = found.ctime_ns // 1000 + 1
        rig.write("a", "another content\n")
        await rig.send(path, "look")
        row = await rig.row(path)
        assert row.state == "done"
        rig.service.ledger._recent.clear()
        assert await rig.send(path, "look", cause="scan", found=found) is None
        assert await rig.row(path) == row


async def test_start_at_another_version(engine: Open) -> None:
    """A start that was asked for at a version that is past is a no-op: no line, no place taken."""
    async with engine() as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        await rig.send(path, "hold")
        lines = len(await rig.lines())
        assert await rig.send(path, "start", version=1) is None
        assert len(await rig.lines()) == lines


async def test_change_while_processing(engine: Open) -> None:
    """A file that changed under its handler's hands settles again after the success."""
    gate = Gate()
    async with engine(gate) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        await rig.send(path, "start")
        rig.write("a", "changed meanwhile\n")
        await gate.let_pass()
        await rig.state(path, ["settling", "ready"])
        await rig.service.inbox.idle()
        assert (await story(rig, path))[:3] == ["ready", "processing", "settling"]


async def test_change_before_a_failure(engine: Open) -> None:
    """After a failure, too, the file is looked at: a new content does not wait for the backoff."""
    gate = Gate()
    async with engine(gate) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        await rig.send(path, "start")
        rig.write("a", "changed meanwhile\n")
        await gate.let_pass(Outcome("retry", "no"))
        await rig.state(path, ["settling", "ready"])
        assert (await story(rig, path))[:4] == ["ready", "processing", "failed", "settling"]


async def test_removed_by_its_handler(engine: Open, tree: Path) -> None:
    """A handler that removes its file has done it: done, and then gone."""
    gate = Gate()
    async with engine(gate) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        await rig.send(path, "start")
        (tree / "a").unlink()
        await gate.let_pass()
        await rig.state(path, ["gone"])
        assert await story(rig, path) == ["ready", "processing", "done", "gone"]


@pytest.mark.parametrize(
    ("verdict", "states"), [("retry", ["failed"]), ("reject", ["quarantined"])]
)
async def test_failure(engine: Open, verdict: str, states: list[str]) -> None:
    """A failure waits for another attempt, a rejection for an operator; both keep the words."""
    gate = Gate()
    async with engine(gate) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        await rig.send(path, "start")
        await gate.let_pass(Outcome(verdict, "why", 1.5))  # type: ignore[arg-type]
        row = await rig.state(path, states)
        assert row.error == "why"
        assert (row.due_at is not None) == (verdict == "retry")


async def test_root_that_is_gone(engine: Open, tree: Path) -> None:
    """While the root is away, nothing is concluded; a success is recorded all the same."""
    gate = Gate()
    async with engine(gate) as rig:
        first, second = rig.write("a"), rig.write("b")
        for path in (first, second):
            await rig.send(path, "look")
        await rig.send(second, "start")
        tree.rename(tree.parent / "away")
        assert await rig.send(first, "look") is None
        await gate.let_pass()
        await rig.state(second, ["done"])
        tree.mkdir()
        assert await rig.send(first, "look") is None
        await rig.service.inbox.idle()
        assert (await rig.row(first)).state == "ready"
        assert (await rig.row(second)).state == "done"
        failed = [line for line in await rig.lines() if line["outcome"] == "failed"]
        assert all("root" in line["error"] for line in failed)
        assert len(failed) == 3


async def test_name_that_the_kernel_refuses(engine: Open) -> None:
    """A look that ends in an error leaves no row and is on the log."""
    async with engine() as rig:
        path = rig.key("x" * 300)
        assert await rig.send(path, "look") is None
        assert (await rig.row(path)).id == 0
        (line,) = await rig.lines()
        assert (line["outcome"], line["file_id"]) == ("failed", None)


async def test_far_future_does_no_harm(engine: Open, tree: Path) -> None:
    """A file with a time that no database holds is tracked, and so are those beside it."""
    async with engine() as rig:
        paths = [rig.write(f"{number}") for number in range(20)]
        os.utime(tree / "7", ns=(0, 13_569_465_600 * 10**9))
        await asyncio.gather(*(rig.send(path, "look") for path in paths))
        assert {(await rig.row(path)).state for path in paths} <= {"ready", "settling"}


async def test_error_concerns_one_file(engine: Open) -> None:
    """An error of ours is on the log as `failed`, and the next trigger of the file goes on."""
    async with engine(wrap=FaultyStore.around) as rig:
        path = rig.write("a")
        rig.service.ledger.store.before = InjectedFault("boom")  # type: ignore[attr-defined]
        assert await rig.send(path, "look") is None
        assert isinstance(await rig.send(path, "look"), Transition)
        outcomes = [line["outcome"] for line in await rig.lines()]
        assert sorted(outcomes) == ["failed", "success"]


async def test_outcome_that_met_an_error_is_recorded_later(
    engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected error at the commit of an outcome does not leave the file processing."""
    monkeypatch.setattr("daemon.engine.pipeline.AGAIN_SECONDS", 0.01)
    gate = Gate()
    async with engine(gate, wrap=FaultyStore.around) as rig:
        path = rig.write("a")
        await rig.send(path, "look")
        await rig.send(path, "start")
        rig.service.ledger.store.before = InjectedFault("boom")  # type: ignore[attr-defined]
        await gate.let_pass()
        assert (await rig.state(path, ["done"])).attempt == 0
        assert await story(rig, path) == ["ready", "processing", "done"]


async def test_merged_hints_through_the_inbox(engine: Open) -> None:
    """Triggers that pass through the inbox are all worked off, many files at once."""
    async with engine() as rig:
        paths = [rig.write(f"d{number % 5}/{number}") for number in range(300)]
        for path in paths * 2:
            rig.service.inbox.put(Trigger(path, "look", "hint"))
        await rig.service.inbox.idle()
        assert {(await rig.row(path)).state for path in paths} == {"ready"}


async def test_triggers_of_one_file_keep_their_order(engine: Open) -> None:
    """What happened to one file is done in the order in which it came, refusals among it."""
    async with engine(quiet=3600.0) as rig:
        path, other = rig.write("a"), rig.write("b")
        await rig.send(path, "look")
        for event in ("hold", "release", "release", "hold", "look", "release", "hold"):
            rig.service.inbox.put(Trigger(path, event, "test"))
            rig.service.inbox.put(Trigger(other, "look", "test"))
        await rig.service.inbox.idle()
        facts = [line for line in await rig.lines() if line["event"] in {"hold", "release"}]
        assert [(line["event"], line["outcome"]) for line in facts] == [
            ("hold", "success"),
            ("release", "success"),
            ("release", "rejected"),
            ("hold", "success"),
            ("release", "success"),
            ("hold", "success"),
        ]


async def test_stale_start_does_not_let_others_pass(engine: Open) -> None:
    """A trigger that comes to nothing at once does not let a later one overtake an earlier one."""
    async with engine(quiet=3600.0) as rig:
        path, inbox = rig.write("a"), rig.service.inbox
        await rig.send(path, "look")
        inbox.put(Trigger(path, "start", "test", version=99))
        inbox.put(Trigger(path, "hold", "test"))
        for number in range(TOGETHER - 2):
            inbox.put(Trigger(path, "start", "test", version=100 + number))
        inbox.put(Trigger(path, "release", "test"))
        await inbox.idle()
        assert await story(rig, path) == ["settling", "held", "settling"]


async def test_outcomes_are_committed_together(engine: Open) -> None:
    """The outcomes of many handlers that end at once are one transaction, and none is lost."""
    gate = Gate()
    async with engine(gate, wrap=CountingStore.around, concurrency=50) as rig:
        paths = [rig.write(f"{number}") for number in range(50)]
        await asyncio.gather(*(rig.send(path, "look") for path in paths))
        await asyncio.gather(*(rig.send(path, "start") for path in paths))
        endings = [(await gate.next())[1] for _ in paths]
        store = cast("CountingStore", rig.service.ledger.store)
        store.sizes.clear()
        for ending in endings:
            ending.set_result(Outcome("success"))
        for path in paths:
            await rig.state(path, ["done"])
        assert store.sizes == [50]


async def test_error_in_a_group_is_one_files_trouble(
    engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many outcomes of which one cannot be recorded, each of the others is, and once."""
    monkeypatch.setattr("daemon.engine.pipeline.AGAIN_SECONDS", 0.01)
    gate = Gate()
    async with engine(gate, wrap=PoisonedStore.around, concurrency=20) as rig:
        paths = [rig.write(f"{number}") for number in range(20)]
        await asyncio.gather(*(rig.send(path, "look") for path in paths))
        await asyncio.gather(*(rig.send(path, "start") for path in paths))
        endings = [(await gate.next())[1] for _ in paths]
        cast("PoisonedStore", rig.service.ledger.store).poisoned = paths[7]
        for ending in endings:
            ending.set_result(Outcome("success"))
        for path in paths:
            await rig.state(path, ["done"])
            assert await story(rig, path) == ["ready", "processing", "done"]
        failed = {line["path"] for line in await rig.lines() if line["outcome"] == "failed"}
        assert failed == {"7"}
