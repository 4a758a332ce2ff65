"""What a former run left behind: files whose handler died with it, files that wait for nothing.

And handlers that did not die with it: their files wait for their end. And files that wait for
something beside themselves, which may have come meanwhile.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from daemon.config_names import ON_DONE
from daemon.config_steps import ProgramStep
from daemon.core.model import Event, Row, Trigger
from daemon.engine.clock import now_us
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.standing import Survivor
from daemon.engine.trees import Tree
from daemon.handlers.record import Left, Record, lane_of
from daemon.handlers.survivors import Manner, alive, see_off

# What is done with the survivors of a step that is not configured any more.
_UNKNOWN: tuple[Manner, float] = ("end", 5.0)
_SKIP: tuple[Event, ...] = ("skip",)
_RELEASE: tuple[Event, ...] = ("hold", "release")


class Keeper(Protocol):
    """Knows of files that are not to begin anew before it has found out about them."""

    def take(self, row: Row) -> bool:
        """Whether this is one of them."""
        ...


class Survivors:
    """Handlers that outlived the former run, and the files that must not be started before.

    What is known of them is kept in `told`, by watch and step, for whoever asks.
    """

    def __init__(
        self,
        record: Record,
        trees: Mapping[str, Tree],
        told: dict[tuple[str, str], tuple[Survivor, ...]],
    ) -> None:
        self._record = record
        self._told = told
        self._manners: dict[bytes, tuple[Manner, float]] = {}
        for tree in trees.values():
            for step in tree.watch.all_steps:
                if isinstance(step, ProgramStep):
                    manner = step.on_restart, step.kill_after
                    self._manners[lane_of(tree.name, step.name)] = manner
        self._pids: dict[Left, int] = {}
        # Whose files they may be: a batch, or a worker, may have any of its step.
        self._suspects: dict[int, set[Left]] = {}
        self._files: dict[int, Row] = {}

    async def find(self) -> None:
        """Learn who is still there. Who is not is off the record."""
        living = await asyncio.to_thread(alive, self._record.left)
        for left in self._record.left:
            if left in living:
                self._pids[left] = left.pid or min(process.pid for process in living[left])
            else:
                self._record.forget(left.slot)

    def take(self, row: Row) -> bool:
        """Whether one of them may still have this file, which is then kept for all that may."""
        lane = lane_of(row.key.watch, row.step or "")
        having = {e for e in self._pids if e.lane == lane and e.file_id in {0, row.id}}
        if having:
            self._suspects[row.id], self._files[row.id] = having, row
        return bool(having)

    async def see_off(self, inbox: Inbox, journal: Journal) -> None:
        """End them or wait for them, each as its step wants it; then let their files go on."""
        self._tell()
        async with asyncio.TaskGroup() as tasks:
            for left in self._pids:
                tasks.create_task(self._see_off(left, inbox, journal))

    async def _see_off(self, left: Left, inbox: Inbox, journal: Journal) -> None:
        manner, kill_after = self._manners.get(left.lane, _UNKNOWN)
        watch, _, step = left.lane.decode().partition("/")
        told: dict[str, Any] = {
            "watch": watch,
            "step": step,
            "pid": self._pids[left],
            "files": len(self._files_of(left)),
        }
        journal.daemon("survivor", "warning", **told, action=manner)
        await see_off(left, manner, kill_after)
        self._record.forget(left.slot)
        journal.daemon("survivor_gone", **told)
        for number in self._files_of(left):
            self._suspects[number].discard(left)
            if not self._suspects[number]:
                del self._suspects[number]
                await inbox.offer(Trigger(self._files.pop(number).key, "interrupt", "crash"))
        del self._pids[left]
        self._tell()

    def _files_of(self, left: Left) -> list[int]:
        return [number for number, having in self._suspects.items() if left in having]

    def _tell(self) -> None:
        """What `status` and `explain` say: of each step that files of theirs are in."""
        found: dict[tuple[str, str], list[Survivor]] = {}
        wall = now_us()
        for left, pid in self._pids.items():
            files = self._files_of(left)
            rows = (self._files[number] for number in files)
            manner, _ = self._manners.get(left.lane, _UNKNOWN)
            since = wall - int(left.age * 1_000_000)
            for lane in {(row.key.watch, row.step or "") for row in rows}:
                found.setdefault(lane, []).append(Survivor(pid, since, tuple(files), manner))
        self._told.clear()
        self._told.update({lane: tuple(each) for lane, each in found.items()})


async def recover(
    trees: Iterable[Tree],
    inbox: Inbox,
    ledger: Ledger,
    keepers: Sequence[Keeper] = (),
) -> int:
    """Interrupt what was being handled; send what waits for a removed step back to settling.

    Returns the number of files concerned. Before the dispatcher starts: a file is `processing`
    in the database only while no handler of this run has it. What one of the keepers takes stays
    so, until it reports.
    """
    found = 0
    known = list(trees)
    for tree in known:
        found += await _interrupt(tree, inbox, ledger, keepers)
    # What was interrupted may itself wait for a removed step: it has to be on record first. Where
    # its file is missing it is held back from then on, for the first scan may find it elsewhere.
    await inbox.arrived()
    for tree in known:
        found += await _release_stranded(tree, inbox, ledger)
        if not tree.is_plain:
            await _look_again(tree, inbox, ledger)
    return found


async def _interrupt(tree: Tree, inbox: Inbox, ledger: Ledger, keepers: Sequence[Keeper]) -> int:
    count = 0
    async for rows in ledger.in_state("processing", tree.name):
        for row in rows:
            if not any(keeper.take(row) for keeper in keepers):
                await inbox.offer(Trigger(row.key, "interrupt", "crash"))
                count += 1
    return count


async def _look_again(tree: Tree, inbox: Inbox, ledger: Ledger) -> None:
    """Have a look in place of the timer: it may be a minute off, and a scan sees no difference."""
    async for rows in ledger.in_state("settling", tree.name):
        for row in rows:
            await inbox.offer(Trigger(row.key, "look", "alarm"))


async def _release_stranded(tree: Tree, inbox: Inbox, ledger: Ledger) -> int:
    """Let go of what waits for a step that is gone: it begins anew, or a removal with its first."""
    store, rows = ledger.store, []
    for plan, steps in (("process", tree.steps), ("remove", tree.removal_steps)):
        rows += await ledger.insist("read", partial(store.stranded, tree.name, plan, steps))
    for row in rows:
        # Where only taking it away was left, all that is to be done with it has been.
        is_done = row.step == ON_DONE and row.plan == "process"
        for event in _SKIP if is_done else _RELEASE:
            await inbox.offer(Trigger(row.key, event, "step_removed"))
    return len(rows)
