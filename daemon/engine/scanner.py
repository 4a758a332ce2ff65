"""The scan: directories against rows. The watcher's hints may be lost; what stands here counts.

In two phases. First what is new or other than its row says; and when that is on record, so that
renamed files have taken their rows along, what is missing.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

from daemon.core.model import Fingerprint, Key, Trigger
from daemon.core.texts import path_fields
from daemon.engine.ahead import Ahead, directories_of
from daemon.engine.comparer import Crew
from daemon.engine.identity import RootId
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.patience import GRACE_SECONDS
from daemon.engine.scanning import Counts, Differences, missing_in, vanished
from daemon.engine.trees import Tree
from daemon.engine.walking import Walk, read_rows, taken
from daemon.engine.worker import Worker
from daemon.errors import LASTING

# Triggers that are put in before the loop is given to others.
SLICE = 500
# New files that go through the verbs together.
BUNDLE = 256
# What is new has so long to get on record before it is asked what is missing.
SETTLE_SECONDS = 20.0
# Paths that could not be read, in memory: past that no more are said.
SAID = 1_000
# Paths in memory that are missing; and those that could not be read.
KEPT = 50_000

Sight = tuple[str, int, int]


class Removals(Protocol):
    """Says whether files may be taken for removed."""

    async def may_remove(self, tree: Tree, missing: int) -> bool:
        """Whether a scan that misses so many files may say that they are gone."""
        ...

    async def scanned(self, tree: Tree, missing: int, scanned: RootId | None) -> None:
        """A whole tree was scanned, all of it; `scanned` is the root that was there."""
        ...


class Scanner:
    """Compares trees with the ledger and puts a look at each difference into the inbox."""

    def __init__(self, inbox: Inbox, ledger: Ledger, journal: Journal, removals: Removals) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._journal = journal
        self._removals = removals
        self._disk = Worker("scan")
        self._crew = Crew(ledger.store)
        # What could not be read, so that it is said once and not with every scan.
        self._said: set[Key] = set()
        # Why a scan was not helped, as last said.
        self._failure: str | None = None
        # What was read before the next scan of a whole tree.
        self._ahead: dict[str, Ahead] = {}

    async def close(self) -> None:
        """End the thread that reads directories."""
        await self._disk.close()
        for ahead in self._ahead.values():
            await ahead.close()

    @asynccontextmanager
    async def reading_ahead(self, tree: Tree) -> AsyncIterator[None]:
        """While inside, read rows for the scan that follows, which may not begin yet."""
        ahead = self._ahead[tree.name] = Ahead(tree, self._ledger, self._crew)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(ahead.read())
            yield
            reading.cancel()

    async def scan(
        self, tree: Tree, tops: Sequence[bytes], listed: Callable[[], None] = lambda: None
    ) -> Counts:
        """Compare the subtrees at `tops` with their rows, directory by directory.

        `listed` is called when all that is new has been told of, and only what is missing is left.
        """
        counts, root, sight = Counts(b"" in tops), tree.root_id, _sight(tree)
        self._inbox.scanning += 1
        told = self._inbox.begin(tree.name, whole=b"" in tops)
        try:
            if not await self._is_rooted(tree):
                # Whoever watches over the root says so; a root that is away removes no file.
                return counts
            sparse = await self._compare(tree, tops, counts)
        finally:
            self._inbox.scanning -= 1
            told()
            listed()
        if b"" in tops:
            self._said = {key for key in self._said if key.watch != tree.name or key in counts.shut}
        for top in tops:
            sparse += await self._vanished(tree, top)
        if sparse:
            await self._remove(tree, tops, sparse, sight, counts)
        if b"" in tops and await self._is_proof(tree, root, counts):
            await self._removals.scanned(tree, counts.missing, root)
        return counts

    async def _is_proof(self, tree: Tree, root: RootId | None, counts: Counts) -> bool:
        """Whether what is not missing is there: all of it was read, and in the root it began with.

        Seen: a share that was unmounted just before it was listed showed what lies below it.
        """
        if root != tree.root_id or not await self._is_rooted(tree):
            return False
        return counts.unreadable < KEPT and not await self._hides_any(counts.shut)

    async def _hides_any(self, shut: set[Key]) -> bool:
        """Whether files may be missing in what could not be read."""
        below = partial(self._ledger.store.any_below, list(shut))
        return bool(shut) and any(await self._ledger.insist("read", below))

    async def _is_rooted(self, tree: Tree) -> bool:
        root = await self._disk.run(tree.identify_root)
        return root is not None and root == tree.root_id

    async def _compare(self, tree: Tree, tops: Sequence[bytes], counts: Counts) -> list[bytes]:
        """First phase: tell of what is new or changed; the directories that miss something."""
        sparse: list[bytes] = []
        ahead = self._ahead.pop(tree.name, None) if b"" in tops else None
        async with Walk(tree, tops, self._ledger, self._disk, self._crew, ahead) as walk:
            async for found in walk:
                await self._tell(tree, found, counts)
                sparse += found.sparse
        self._say_failure(tree, walk.failure)
        return sparse

    async def _tell(self, tree: Tree, found: Differences, counts: Counts) -> None:
        """Put what is new or changed into the inbox, and say what could not be read."""
        counts.directories += found.directories
        counts.files += found.files
        counts.new += len(found.new) + len(found.back)
        counts.changed += len(found.changed)
        for path in found.others:
            self._journal.ignored(Key(tree.name, path), "other")
        for path, error in found.unreadable:
            self._cannot_read(tree, path, error, counts)
        looks = [Trigger(Key(tree.name, p), "look", "scan") for p in found.back + found.changed]
        await self._offer(looks, counts)
        for start in range(0, len(found.aside), SLICE):
            await tree.room.wait()
            paths = found.aside[start : start + SLICE]
            await self._inbox.offer_all(Trigger(Key(tree.name, p), "look", "scan") for p in paths)
        for start in range(0, len(found.new), BUNDLE):
            await self._offer_new(tree, found.new[start : start + BUNDLE], counts)

    async def _offer_new(
        self, tree: Tree, new: Sequence[tuple[bytes, Fingerprint]], counts: Counts
    ) -> None:
        """What a scan finds new is by far the most, and nobody else speaks of most of it."""
        await tree.room.wait()
        name, awaited, as_found = tree.name, self._inbox.awaits, counts.stand_as_found(tree)
        looks = [
            Trigger(key, "look", "scan", found=seen if as_found else None)
            for path, seen in new
            if not awaited(key := Key(name, path))
        ]
        # Since it was listed, its hint or a former scan may have brought it on record, or nearly.
        knows, recalls = self._inbox.knows, self._ledger.recalls
        counts.unannounced += sum(not (knows(look.key) or recalls(look.key)) for look in looks)
        if looks:
            await self._inbox.offer_bundle(looks)
            await asyncio.sleep(0)

    async def _offer(self, looks: Sequence[Trigger], counts: Counts) -> None:
        for start in range(0, len(looks), SLICE):
            slice_ = looks[start : start + SLICE]
            counts.unannounced += sum(not self._inbox.knows(look.key) for look in slice_)
            await self._inbox.offer_all(slice_)
            # Unless the inbox is full nothing here waits: 200,000 of them held the loop for 1.9 s.
            await asyncio.sleep(0)

    async def _vanished(self, tree: Tree, top: bytes) -> list[bytes]:
        """Directories at or below `top` with rows that are off the disk: no listing has them."""
        found: list[bytes] = []
        if top:
            found += await self._disk.run(partial(vanished, tree, [top]))
        bounds = (top + b"/", top + b"0") if top else (b"\0",)
        async for page in directories_of(self._ledger, tree, *bounds):
            found += await self._disk.run(partial(vanished, tree, page))
        return found

    async def _may_conclude(
        self, tree: Tree, tops: Sequence[bytes], sight: Sight, counts: Counts
    ) -> bool:
        """Whether a file that was renamed since its new folder was listed has been told of.

        Only a watcher that was there all the time tells. Without one all is listed once more, and
        parts are left to the scan of the whole that comes soon.
        """
        if sight == _sight(tree) and tree.detection.mode == "inotify":
            return True
        if b"" not in tops:
            return False
        again = Counts()
        await self._compare(tree, tops, again)
        counts.new += again.new
        counts.unannounced += again.unannounced
        return True

    async def _remove(
        self,
        tree: Tree,
        tops: Sequence[bytes],
        directories: Sequence[bytes],
        sight: Sight,
        counts: Counts,
    ) -> None:
        """Second phase: let go what was and is missing, when all that is new is on record."""
        before = await self._all_missing(tree, directories)
        if not await self._may_conclude(tree, tops, sight, counts):
            return
        await asyncio.sleep(GRACE_SECONDS)
        await self._inbox.quiet_for(SETTLE_SECONDS)
        # Under a load that never pauses it is not quiet, but what was told of has arrived.
        await self._inbox.arrived()
        async for missing in self._still_missing(tree, directories, before):
            counts.missing += len(missing)
        if not counts.missing or not await self._is_rooted(tree):
            return
        if await self._removals.may_remove(tree, counts.missing):
            async for missing in self._still_missing(tree, directories, before):
                looks = [Trigger(Key(tree.name, p), "look", "scan", waited=True) for p in missing]
                await self._offer(looks, counts)

    async def _all_missing(self, tree: Tree, directories: Sequence[bytes]) -> set[bytes] | None:
        """None: so many that they are not kept; then there is more amiss than a rename."""
        found: set[bytes] = set()
        async for missing in self._missing(tree, directories):
            found.update(missing)
            if len(found) > KEPT:
                return None
        return found

    async def _still_missing(
        self, tree: Tree, directories: Sequence[bytes], before: set[bytes] | None
    ) -> AsyncIterator[list[bytes]]:
        async for missing in self._missing(tree, directories):
            yield missing if before is None else [path for path in missing if path in before]

    async def _missing(
        self, tree: Tree, directories: Sequence[bytes]
    ) -> AsyncIterator[list[bytes]]:
        waiting = list(directories)
        while waiting:
            chunk = taken(waiting)
            rows = await read_rows(self._ledger, tree, chunk)
            waiting += chunk[len(rows) :]
            yield await self._disk.run(partial(missing_in, tree, chunk[: len(rows)], rows))

    def _say_failure(self, tree: Tree, failure: str | None) -> None:
        """A scan that no process helped with is as good as any other, and slower."""
        if failure is None or failure == self._failure:
            return
        self._failure = failure
        reason = "a process that helps with large scans failed"
        self._journal.daemon("degraded", "warning", watch=tree.name, reason=reason, error=failure)

    def _cannot_read(self, tree: Tree, path: bytes, error: int, counts: Counts) -> None:
        """What cannot be listed or looked at keeps its rows as they are, and is said once."""
        counts.unreadable += 1
        key = Key(tree.name, path)
        if len(counts.shut) < KEPT:
            counts.shut.add(key)
        if error not in LASTING:
            self._inbox.unseen.again(Trigger(key, "look", "scan"))
        if key in self._said or len(self._said) >= SAID:
            return
        self._said.add(key)
        self._journal.daemon(
            "degraded",
            "warning",
            watch=tree.name,
            **path_fields("path", path),
            reason="a directory or a name in it cannot be read",
            error=os.strerror(error),
        )


def _sight(tree: Tree) -> Sight:
    """Which watcher sees, and whether it has lost anything: the same means that it saw all."""
    detection = tree.detection
    return detection.mode, detection.restarts, detection.overflows
