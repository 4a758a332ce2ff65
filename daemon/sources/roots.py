"""The roots: is each still the directory that it was, and may what is missing in it be removed?

A watcher on a root that was replaced or unmounted just falls silent, and the directory under a
mount point looks like a tree without files. So every root is looked at every two seconds, and while
there is doubt the removals of its watch are frozen: nothing is concluded from what is missing.
"""

import asyncio
from collections.abc import Iterable
from functools import partial

import msgspec

from daemon.core.model import Key
from daemon.core.removals import Verdict, read_mark, too_many
from daemon.core.texts import path_fields
from daemon.engine.clock import now_us
from daemon.engine.identity import RootId
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.snapshots import Snapshots
from daemon.engine.trees import Tree
from daemon.engine.turn import turn
from daemon.sources.root import ANSWER_SECONDS, Found, Root

# How often to see whether any look hangs, and while removals are frozen whether a scan is due.
CALM_SECONDS, TURN_SECONDS = 10.0, 5.0
# So long a start waits for one that does not answer.
START_SECONDS = 2.0
# When a scan has missed too much, others see whether it is there again: soon, and then rarely.
RESCAN_SECONDS = 5.0


class Roots:
    """Looks after the roots of all trees, and alone freezes and thaws their removals."""

    def __init__(
        self,
        trees: Iterable[Tree],
        inbox: Inbox,
        ledger: Ledger,
        journal: Journal,
        snapshots: Snapshots,
    ) -> None:
        self._roots = {tree.name: Root(tree) for tree in trees}
        self._inbox = inbox
        self._ledger = ledger
        self._journal = journal
        self._snapshots = snapshots

    async def begin(self) -> None:
        """Compare the roots with those of the last run, before anything is made of them."""
        await asyncio.gather(*(self._begin(root) for root in self._roots.values()))

    async def run(self) -> None:
        """Check every root again and again, each by itself, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for root in self._roots.values():
                tasks.create_task(self._look_after(root))
            tasks.create_task(self._keep_time())

    async def close(self) -> None:
        """End the threads that look at the roots."""
        await asyncio.gather(*(root.worker.close() for root in self._roots.values()))

    async def check(self, tree: Tree) -> None:
        """Look at one root now, and see to what is found there."""
        root = self._roots[tree.name]
        async with root.lock:
            await self._check(root)

    async def may_remove(self, tree: Tree, missing: int) -> bool:
        """Whether a scan may let go what it misses: so many files. Freezes where it is too many."""
        await self.check(tree)
        if tree.detection.frozen is not None:
            return False
        live, share = await self._live(tree), tree.watch.freeze_share
        if not too_many(missing, live, share):
            return True
        root = self._roots[tree.name]
        if root.confirmed:
            root.confirmed = False
            return True
        root.put_off(RESCAN_SECONDS)
        reason = f"{missing} of {live} files are missing at once; freeze_share is {share:g}"
        await self.freeze(tree, reason, missing)
        return False

    async def scanned(self, tree: Tree, missing: int, scanned: RootId | None = None) -> None:
        """A scan of the whole tree is over: what was frozen without need, as it shows, thaws.

        `scanned` is the root that it began with: what it found in another one proves nothing here.
        """
        root = self._roots[tree.name]
        async with root.lock:
            if tree.root_id is None or scanned not in {None, tree.root_id}:
                return
            few = not too_many(missing, await self._live(tree), tree.watch.freeze_share)
            # A confirmation is for one scan, and one that misses few has no need of it.
            root.confirmed = root.confirmed and not few
            if tree.detection.frozen is None:
                return
            tree.detection.frozen_missing = missing
            if missing == 0 or (few and not root.lost):
                await self._accept(root, f"a scan misses {missing} files")
                if missing:
                    self._request_scan(tree, "root")

    async def confirm(self, tree: Tree) -> bool:
        """An operator says that what is missing was removed; False where there is no root at all.

        The present root is taken for good, and the next scan may remove whatever it misses.
        """
        root = self._roots[tree.name]
        async with root.lock:
            await self._check(root)
            if tree.root_id is None:
                return False
            root.confirmed = True
            await self._accept(root, "an operator has confirmed")
        self._request_scan(tree, "request")
        return True

    async def freeze(self, tree: Tree, reason: str, missing: int | None = None) -> None:
        """No file of this watch becomes `gone` until it thaws."""
        if tree.detection.frozen == reason:
            return
        tree.detection.frozen, tree.detection.frozen_missing = reason, missing
        known = {} if missing is None else {"missing": missing}
        self._journal.daemon("removals_frozen", "error", watch=tree.name, reason=reason, **known)
        await self._snapshots.keep(tree)

    async def thaw(self, tree: Tree, reason: str) -> None:
        """Files of this watch may become `gone` again."""
        if tree.detection.frozen is None:
            return
        tree.detection.frozen = tree.detection.frozen_missing = None
        self._journal.daemon("removals_thawed", watch=tree.name, reason=reason)
        await self._snapshots.keep(tree)

    async def _begin(self, root: Root) -> None:
        tree = root.tree
        kept = await self._ledger.insist("read", partial(self._ledger.store.root, tree.name))
        root.known = read_mark(kept)
        # One that hangs is met when it answers: nobody else's start waits for that.
        found = await root.look(START_SECONDS)
        if isinstance(found, str):
            await self._lose(root, found)
        else:
            verdict = root.judge(found)
            if verdict.kind == "same":
                self._place(root, found)
                await self._keep(root)
            else:
                await self._meet(root, found, verdict)
        # Nobody watches yet who would have to begin anew.
        tree.rerooted.clear()
        await self._snapshots.keep(tree)

    async def _keep_time(self) -> None:
        while True:
            calm = all(root.tree.detection.frozen is None for root in self._roots.values())
            await turn(CALM_SECONDS if calm else TURN_SECONDS)
            for root in self._roots.values():
                if root.is_worth_a_scan or root.has_news or root.worker.is_late():
                    root.worker.due.set()

    async def _look_after(self, root: Root) -> None:
        while True:
            await root.worker.due.wait()
            root.worker.due.clear()
            if root.has_news:
                await self._tell(root)
            await self.check(root.tree)
            if root.is_worth_a_scan:
                root.put_off(2 * root.pause)
                self._request_scan(root.tree, "period")

    async def _check(self, root: Root) -> None:
        found = await root.look(ANSWER_SECONDS)
        if isinstance(found, str):
            await self._lose(root, found)
        elif found.root != root.tree.root_id:
            await self._meet(root, found, root.judge(found))

    async def _tell(self, root: Root) -> None:
        """Say when its disk falls silent, and answers again: looks may have been in vain."""
        tree = root.tree
        known = tree.detection.silent_since
        if known is None:
            tree.silent.set()
            tree.detection.silent_since = now_us() - int(root.silent_for * 1_000_000)
            self._journal.daemon("tree_silent", "error", **_about(tree))
        else:
            tree.silent.clear()
            tree.detection.silent_since = None
            silent = round(max(now_us() - known, 0) / 1_000_000, 3)
            self._journal.daemon("tree_answers", **_about(tree), silent_seconds=silent)
            self._request_scan(tree, "root")
        await self._snapshots.keep(tree)

    async def _lose(self, root: Root, reason: str) -> None:
        """Nothing can be watched there."""
        tree = root.tree
        self._say_lost(root, reason)
        if tree.root_id is not None:
            tree.root_id = None
            tree.rooted.clear()
            tree.rerooted.set()
        await self.freeze(tree, f"the root is lost: {reason}")

    async def _meet(self, root: Root, found: Found, verdict: Verdict) -> None:
        """Another directory stands there than the one that was watched so far."""
        tree = root.tree
        trusted = verdict.kind != "foreign" or not await self._live(tree)
        self._say_lost(root, verdict.reason)
        self._place(root, found)
        if trusted:
            await self._accept(root, "the root is back")
        else:
            await self.freeze(tree, f"the root is lost: {verdict.reason}")
        self._request_scan(tree, "root")

    async def _accept(self, root: Root, why: str) -> None:
        """What stands there is the root, from now on and after a restart."""
        if root.lost:
            root.lost = False
            self._journal.daemon("root_back", **_about(root.tree))
            await self._keep(root)
        await self.thaw(root.tree, why)

    async def _keep(self, root: Root) -> None:
        if root.tree.root_id is not None:
            root.mount = root.tree.root_id.mount
        if root.known == root.mark:
            return
        root.known = root.mark
        text = msgspec.json.encode(root.mark).decode()
        store = self._ledger.store
        await self._ledger.insist("write", partial(store.keep_root, root.tree.name, text))

    async def _live(self, tree: Tree) -> int:
        return await self._ledger.insist("read", partial(self._ledger.store.live, tree.name))

    def _place(self, root: Root, found: Found) -> None:
        """Whoever watches begins anew there."""
        root.tree.root_id, root.mark = found
        root.tree.rooted.set()
        root.tree.rerooted.set()

    def _say_lost(self, root: Root, reason: str) -> None:
        if not root.lost:
            root.lost = True
            self._journal.daemon("root_lost", "error", **_about(root.tree), reason=reason)

    def _request_scan(self, tree: Tree, cause: str) -> None:
        self._inbox.request_scan(Key(tree.name, b""), cause)


def _about(tree: Tree) -> dict[str, str]:
    return {"watch": tree.name, **path_fields("path", tree.root)}
