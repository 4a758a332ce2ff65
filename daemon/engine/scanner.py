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
from daemon.engine.ahead import Ahead
from daemon.engine.comparer import Crew
from daemon.engine.identity import RootId
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.line import NoAnswer
from daemon.engine.missing import Missing
from daemon.engine.patience import GRACE_SECONDS
from daemon.engine.scanning import Counts, Differences, standing
from daemon.engine.trees import Tree
from daemon.engine.walking import Walk
from daemon.errors import LASTING

# Triggers that are put in before the loop is given to others.
SLICE = 500
# New files that go through the verbs together.
BUNDLE = 256
# What is new has so long to get on record before it is asked what is missing.
SETTLE_SECONDS = 20.0
# Paths that could not be read, in memory: past that no more are said.
SAID = 1_000
# The same, to see whether any of them has rows below: with more of them it is not asked.
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
        self._crew = Crew(ledger.store)
        self._missing = Missing(ledger)
        # What could not be read, so that it is said once and not with every scan.
        self._said: set[Key] = set()
        # Why a scan was not helped, as last said.
        self._failure: str | None = None
        # What was read before the next scan of a whole tree.
        self._ahead: dict[str, Ahead] = {}

    async def close(self) -> None:
        """End the processes that help."""
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
        self._inbox.scanning[tree.name] += 1
        told = self._inbox.begin(tree.name, whole=b"" in tops)
        try:
            if not await self._is_rooted(tree):
                # Whoever watches over the root says so; a root that is away removes no file.
                return counts
            stand = partial(standing, tree, tops)
            there = tops if b"" in tops else await tree.disk.scan.run(stand)
            sparse = await self._compare(tree, there, counts)
        finally:
            self._inbox.scanning[tree.name] -= 1
            told()
            listed()
        if b"" in tops:
            self._said = {key for key in self._said if key.watch != tree.name or key in counts.shut}
        for top in tops:
            sparse += await self._missing.directories(tree, top)
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
        """A root that is lost, as one is that does not answer, is not asked."""
        if tree.root_id is None:
            return False
        try:
            root = await tree.identify_root()
        except NoAnswer:
            return False
        return root is not None and root == tree.root_id

    async def _compare(self, tree: Tree, tops: Sequence[bytes], counts: Counts) -> list[bytes]:
        """First phase: tell of what is new or changed; the directories that miss something."""
        sparse: list[bytes] = []
        ahead = self._ahead.pop(tree.name, None) if b"" in tops else None
        async with Walk(tree, tops, self._ledger, self._crew, ahead) as walk:
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

    async def _await_quiet(
        self, tree: Tree, tops: Sequence[bytes], sight: Sight, counts: Counts
    ) -> bool:
        """Wait until what could explain something missing is on record; whether that can be known.

        Only a watcher that was there all the time tells of a file that was renamed since its new
        folder was listed. Without one all is listed once more, and parts are left to the scan of
        the whole that comes soon.
        """
        clock = asyncio.get_running_loop().time
        until, heard = clock() + SETTLE_SECONDS, tree.detection.mode == "inotify"
        while True:
            if not heard or sight != _sight(tree):
                if b"" not in tops:
                    return False
                heard, sight = True, _sight(tree)
                await self._list_again(tree, counts)
            left = until - clock()
            if await self._inbox.quiet_for(tree.name, min(left, 1.0)) or left <= 0:
                return True

    async def _list_again(self, tree: Tree, counts: Counts) -> None:
        again = Counts()
        # It is what hints wait for that a lost watcher has left unproven.
        told = self._inbox.begin(tree.name, whole=True)
        try:
            await self._compare(tree, [b""], again)
        finally:
            told()
        counts.new += again.new
        counts.unannounced += again.unannounced

    async def _remove(
        self,
        tree: Tree,
        tops: Sequence[bytes],
        directories: Sequence[bytes],
        sight: Sight,
        counts: Counts,
    ) -> None:
        """Second phase: let go what was and is missing, when all that is new is on record."""
        before = await self._missing.all(tree, directories)
        await asyncio.sleep(GRACE_SECONDS)
        if not await self._await_quiet(tree, tops, sight, counts):
            return
        # Under a load that never pauses it is not quiet, but what was told of has arrived.
        await self._inbox.arrived()
        async for missing in self._missing.still(tree, directories, before):
            counts.missing += len(missing)
        if not counts.missing or not await self._is_rooted(tree):
            return
        if await self._removals.may_remove(tree, counts.missing):
            async for missing in self._missing.still(tree, directories, before):
                looks = [Trigger(Key(tree.name, p), "look", "scan", waited=True) for p in missing]
                await self._offer(looks, counts)

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
    return tree.detection.mode, tree.watchers, tree.detection.overflows
