"""`on_quarantine`: takes what is quarantined out of the tree, with a word beside it that says why.

The state is the queue: whatever is `quarantined` and there is to be taken, also after a restart.
"""

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from functools import partial

import msgspec

from daemon.config_after import Move
from daemon.config_names import ON_QUARANTINE
from daemon.core.model import Record, Row, Trigger
from daemon.core.texts import path_fields, readable, timestamp
from daemon.engine.archives import Archives
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.line import NoAnswer
from daemon.engine.trees import Tree
from daemon.handlers import Job, Outcome, Undecided, relocate
from daemon.handlers.below import File
from daemon.handlers.copying import write_beside
from daemon.handlers.filing import FilingHandler
from daemon.handlers.parts import Parts
from daemon.handlers.threads import Threads

# Transitions in the word beside a file, the last ones.
HISTORY = 100
# A folder that is full or away is tried again after so long, twice as long each time, at most.
RETRY_SECONDS = 5.0
RETRY_LONGEST = 300.0
# Files that are not tried again before the next start, for they are to blame themselves.
GIVEN_UP = 4_096
# Folders that take nothing, in one sweep: with so many the trouble is the whole place's.
FOLDERS = 16
STAYS = "a quarantined file stays"


class Quarantine:
    """Takes the quarantined files of one tree away, one after the other."""

    def __init__(
        self,
        tree: Tree,
        move: Move,
        inbox: Inbox,
        ledger: Ledger,
        journal: Journal,
        parts: Parts,
        archives: Archives,
    ) -> None:
        self._tree = tree
        self._inbox = inbox
        self._ledger = ledger
        self._journal = journal
        self._threads = Threads(f"aside-{tree.name}", 1)
        guard = archives.guard(move, tree.name, ON_QUARANTINE, self._threads)
        self._handler = FilingHandler(move, tree.name, self._threads, parts, guard)
        self._parts = parts
        self._suspects: list[Row] = []
        self._over: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._retried: set[tuple[int, int]] = set()
        self._said: set[object] = set()

    async def resume(self) -> None:
        """Learn what a daemon that died may have taken: the tree has it no more.

        Before anything looks at the tree, which would only find that. Where it was taken the place
        is asked by `run`, for it may be on a file system that hangs.
        """
        async for rows in self._ledger.in_state("quarantined", self._tree.name):
            seen = [row for row in rows if row.seen is not None]
            # All of them, where the tree itself hangs: `run` waits for it, and nobody else.
            with suppress(NoAnswer):
                seen = await self._tree.disk.looks.run(partial(self._absent, seen))
            for row in seen:
                self._suspects.append(row)
                self._tree.taking.add(row.key.path)

    def _absent(self, rows: Iterable[Row]) -> list[Row]:
        """Those whose file does not stand in the tree. Blocks."""
        return [row for row in rows if not self._stands(row)]

    def _stands(self, row: Row) -> bool:
        self._tree.disk.looks.go_on()
        file = row.seen and File(self._tree.root, row.key.path, row.seen)
        return file is not None and relocate.stands(file) == "itself"

    async def run(self) -> None:
        """Take what there is, and what comes, until cancelled."""
        await self._report_suspects()
        wait = RETRY_SECONDS
        while True:
            self._tree.quarantined.clear()
            is_through = await self.sweep()
            wait = RETRY_SECONDS if is_through else min(2 * wait, RETRY_LONGEST)
            with suppress(TimeoutError):
                async with asyncio.timeout(None if is_through else wait):
                    await self._tree.quarantined.wait()

    async def sweep(self) -> bool:
        """Take all that there is; False where something is left that is to be tried again.

        A folder that takes nothing, below one that does, holds up no file that goes elsewhere.
        """
        closed, retried = set[bytes | None](), set[tuple[int, int]]()
        async for row in self._rows():
            folder = self._handler.folder_of(self._job(row))
            if (row.id, row.version) in self._over or folder in closed:
                continue
            outcome = await self._take(row)
            if outcome.verdict in {"defer", "unavailable"}:
                self._complain(outcome)
                closed.add(folder)
                if outcome.verdict == "defer" or len(closed) == FOLDERS:
                    return False
            elif outcome.verdict == "retry":  # it changed, is being written to, or cannot be named
                retried.add((row.id, row.version))
                self._again(row, outcome)
            else:
                self._settle(row, outcome)
        self._retried = retried
        if is_through := not (closed or retried):
            self._said.clear()
        return is_through

    def _again(self, row: Row, outcome: Outcome) -> None:
        """Said of what is in the way the second time as well: the first may have been a writer."""
        self._inbox.put(Trigger(row.key, "look", ON_QUARANTINE))
        if (row.id, row.version) in self._retried:
            self._complain(outcome, row)

    async def close(self) -> None:
        """End its thread."""
        await self._threads.close()

    async def _report_suspects(self) -> None:
        """Put on record what was taken by a daemon that died before it could."""
        while self._suspects:
            row = self._suspects[-1]
            outcome = await self._handler.taken(self._job(row))
            if outcome is not None and outcome.target is not None:
                there = _reason_path(outcome.target)
                if not await self._threads.run(partial(os.path.lexists, there)):
                    await self._explain(row, outcome.target)
                await self._report(row, outcome.target)
                self._settle(row, outcome)
            self._tree.taking.discard(row.key.path)
            self._suspects.pop()

    def _settle(self, row: Row, outcome: Outcome) -> None:
        if outcome.verdict == "reject":
            self._complain(outcome, row)
        self._over[row.id, row.version] = None
        if len(self._over) > GIVEN_UP:
            self._over.popitem(last=False)

    async def _take(self, row: Row) -> Outcome:
        path = row.key.path
        self._tree.taking.add(path)
        try:
            outcome = await self._handler.run(self._job(row))
            if outcome.verdict == "success" and outcome.target is not None:
                await self._explain(row, outcome.target)
                await self._report(row, outcome.target)
        except Undecided as error:  # to the end of this daemon nobody may find it missing
            raise asyncio.CancelledError from error
        self._tree.taking.discard(path)
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # The handler was through, in spite of the end that it was told of.
            raise asyncio.CancelledError
        return outcome

    async def _report(self, row: Row, target: bytes) -> None:
        found = Trigger(row.key, "vanish", ON_QUARANTINE, version=row.version, target=target)
        await self._inbox.offer(found)

    async def _explain(self, row: Row, target: bytes) -> None:
        """Write the word beside the file. Without it the database still knows."""
        history = await self._ledger.insist(
            "read", partial(self._ledger.store.history, row.id, HISTORY)
        )
        text = _reason(row, target, history)
        try:
            write = partial(write_beside, _reason_path(target), text, self._parts)
            await self._threads.run(write)
        except OSError as error:
            blamed = Outcome("reject", f"no reason beside it: {error.strerror}")
            self._complain(blamed, row, "a quarantined file was taken without a word")

    async def _rows(self) -> AsyncIterator[Row]:
        """What is quarantined and should be there."""
        async for rows in self._ledger.in_state("quarantined", self._tree.name):
            for row in rows:
                if row.seen is not None:
                    yield row

    def _job(self, row: Row) -> Job:
        path = self._tree.absolute(row.key.path)
        key = f"{row.id}-{row.version}"
        return Job(row.id, row.key, path, ON_QUARANTINE, 1, key, row.version, seen=row.seen)

    def _complain(self, outcome: Outcome, row: Row | None = None, reason: str = STAYS) -> None:
        """Once for each reason, or file that is to blame, until all is well again."""
        error = outcome.error or ""
        told = error if row is None else (row.id, row.version, error)
        if told in self._said:
            return
        if len(self._said) >= GIVEN_UP:
            self._said.clear()
        self._said.add(told)
        where = path_fields("path", row.key.path) if row else {}
        reason = reason if row else "quarantined files stay in the tree"
        name = self._tree.name
        self._journal.daemon("degraded", "warning", watch=name, **where, reason=reason, error=error)


def _reason_path(target: bytes) -> bytes:
    return target + b".reason.json"


def _reason(row: Row, target: bytes, history: list[Record]) -> bytes:
    """Everything that whoever finds the file may ask: JSON, indented for a person."""
    last = history[-1] if history else None
    fields = {
        "watch": row.key.watch,
        **path_fields("path", row.key.path),
        **path_fields("target", target),
        "file_id": row.id,
        "at": timestamp(row.at),
        "step": row.step,
        "event": last.event if last else None,
        "error": row.error,
        "attempt": row.attempt,
        "failures": row.failures,
        "interruptions": row.interruptions,
        "size": row.seen.size if row.seen else None,
        "history": [_told(record) for record in history],
    }
    return msgspec.json.format(msgspec.json.encode(fields), indent=2) + b"\n"


def _told(record: Record) -> dict[str, object]:
    fields = {
        "at": timestamp(record.at),
        "event": record.event,
        "from_state": record.from_state,
        "to_state": record.to_state,
        "guard": record.guard,
        "cause": record.cause,
        "step": record.step,
        "attempt": record.attempt,
        "duration_ms": record.duration_ms,
        "old_path": None if record.old_path is None else readable(record.old_path),
        "error": record.error,
    }
    return {name: value for name, value in fields.items() if value is not None}
