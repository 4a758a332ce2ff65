"""What follows from a marker: its files are looked at, and when they have settled it is removed."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from daemon.core.model import Fingerprint, Key, Row, Trigger
from daemon.core.settle import SETTLED
from daemon.core.texts import path_fields
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.line import Line, NoAnswer
from daemon.engine.patience import Patience
from daemon.engine.signs import UsedUp, remove, subjects
from daemon.engine.trees import Tree
from daemon.errors import StoreUnavailable

# Files of one stem that a marker brings back at once.
MOST = 1_000
# Folders whose markers cannot be removed, in memory: past that no more are said.
SAID = 1_000


class Markers:
    """Works off, in a task of its own, what was heard of markers."""

    def __init__(self, inbox: Inbox, ledger: Ledger, journal: Journal, patience: Patience) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._journal = journal
        self._patience = patience
        self._asked: dict[Key, tuple[Tree, str]] = {}
        # By the name of the tree, and then by the marker.
        self._used_up: dict[str, tuple[Tree, dict[Key, UsedUp]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._said: set[Key] = set()

    def heard(self, tree: Tree, trigger: Trigger) -> None:
        """A marker is there: look at the file, or at the files, for which it speaks."""
        found = tree.marker.subjects_of(trigger.key.path) if tree.marker else None
        if found is None:
            return
        if found.exact:
            self._look_at(tree, found.start, trigger.cause)
            return
        if not trigger.waited:
            # What is being discovered just now has no row yet: ask once more when that is over.
            self._patience.wait(trigger)
        if trigger.key not in self._asked:
            self._asked[trigger.key] = (tree, trigger.cause)
            self._begin(tree)

    def use_up(self, tree: Tree, path: bytes, marker: Fingerprint) -> None:
        """A file has settled with its marker, which has done its duty."""
        if tree.marker is None:
            return
        used = UsedUp(tree, tree.marker.marker_of(path), marker)
        _, markers = self._used_up.setdefault(tree.name, (tree, {}))
        if used.key not in markers:
            markers[used.key] = used
            self._begin(tree)

    async def close(self) -> None:
        """End the task. Markers that are left are found again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _begin(self, tree: Tree) -> None:
        self._inbox.hold(tree.name)
        if self._task is None:
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._asked or self._used_up:
                await self._work_off()
        finally:
            self._task = None

    async def _work_off(self) -> None:
        asked, self._asked = self._asked, {}
        used_up, self._used_up = self._used_up, {}
        try:
            # While the daemon stops the database may be away: the next start finds them.
            with suppress(StoreUnavailable):
                await self._ask(asked)
                for tree, markers in used_up.values():
                    # Those of a disk that hangs are found again by the scan after it.
                    with suppress(NoAnswer):
                        await self._remove(tree.disk.looks, list(markers.values()))
        finally:
            for key in asked:
                self._inbox.let_go(key.watch)
            for tree, markers in used_up.values():
                self._inbox.let_go(tree.name, len(markers))

    async def _ask(self, markers: Mapping[Key, tuple[Tree, str]]) -> None:
        for key, (tree, cause) in markers.items():
            marker = tree.marker
            for row in await self._of_stem(tree, key):
                if marker is not None and marker.speaks_for(key.path, row.key.path):
                    self._look_at(tree, row.key.path, cause)

    async def _of_stem(self, tree: Tree, marker: Key) -> list[Row]:
        """Rows, those of the marker's stem among them."""
        found = tree.marker.subjects_of(marker.path) if tree.marker else None
        if found is None:
            return []
        alone = await self._ledger.rows([Key(tree.name, found.start)])
        # A name without its last suffix: '/' follows '.' in the order of bytes.
        stem = found.start.rpartition(b"/")[2]
        bounds = (found.directory, stem + b".", stem + b"/", MOST)
        named = partial(self._ledger.store.named, tree.name, *bounds)
        return [row for row in alone if row] + await self._ledger.insist("read", named)

    def _look_at(self, tree: Tree, path: bytes, cause: str) -> None:
        if not tree.is_sign(path):
            self._inbox.put(Trigger(Key(tree.name, path), "look", cause))

    async def _remove(self, disk: Line, markers: Sequence[UsedUp]) -> None:
        used_up = [marker for marker in markers if not _is_shared(marker)]
        if shared := [marker for marker in markers if _is_shared(marker)]:
            used_up += await self._no_longer_needed(disk, shared)
        refused = await disk.run(partial(remove, used_up)) if used_up else []
        for marker, error in refused:
            self._cannot_remove(marker, error)

    async def _no_longer_needed(self, disk: Line, markers: Sequence[UsedUp]) -> list[UsedUp]:
        """Those of whose stem every file that is there has settled, as what it is now."""
        files = await disk.run(partial(subjects, markers))
        used_up = []
        for marker in markers:
            there = files[marker.key]
            rows = await self._ledger.rows([key for key, _ in there])
            if all(map(_has_settled, rows, (seen for _, seen in there))):
                used_up.append(marker)
        return used_up

    def _cannot_remove(self, marker: UsedUp, error: OSError) -> None:
        """Said once a folder: its files settle, but a crash has them looked at for ever."""
        folder = Key(marker.tree.name, marker.path.rpartition(b"/")[0])
        if folder in self._said or len(self._said) >= SAID:
            return
        self._said.add(folder)
        self._journal.daemon(
            "degraded",
            "warning",
            watch=marker.tree.name,
            **path_fields("path", marker.path),
            reason="a marker cannot be removed from this directory",
            error=error.strerror or str(error),
        )


def _is_shared(marker: UsedUp) -> bool:
    found = marker.tree.marker.subjects_of(marker.path) if marker.tree.marker else None
    return found is not None and not found.exact


def _has_settled(row: Row | None, seen: Fingerprint) -> bool:
    known = row.seen if row is not None and row.state in SETTLED else None
    return known is not None and known.content == seen.content
