"""Which deliveries are to be examined, and when: manifests that were heard of, files that wait.

What keeps a set back is remembered by the first member that is not as it should be. Until that one
is ready, or the manifest is another, there is nothing to examine.
"""

import asyncio
from collections import OrderedDict, defaultdict
from functools import partial
from typing import NamedTuple

from daemon.core.manifest import Fault
from daemon.core.model import Fingerprint, Key
from daemon.core.texts import path_fields
from daemon.engine.clock import now_us
from daemon.engine.deliveries import Deliveries, Delivery, Verdict
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.trees import Tree
from daemon.engine.turns import Turn
from daemon.errors import StoreUnavailable

# Deliveries that are examined at once.
AT_ONCE = 8
# What is known of deliveries, in memory; files that have said that they are ready, and are to be
# matched with manifests: others say it again within a minute.
KNOWN = 20_000
REPORTS = 10_000
WAITING = 50_000
# An examination that took a second is followed by the next of that set after so many seconds.
PAUSE = 2.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
# A set that was kept back is examined again after so long, whatever it was that kept it.
AGAIN_SECONDS = 60.0


class Known(NamedTuple):
    """What came of a delivery, and when, by the loop's clock."""

    verdict: Verdict
    at: float


class Sets:
    """Has deliveries examined whenever something may have changed for them."""

    def __init__(self, inbox: Inbox, journal: Journal, deliveries: Deliveries) -> None:
        self._inbox = inbox
        self._journal = journal
        self._deliveries = deliveries
        self._catalog = deliveries.catalog
        self._known: OrderedDict[Key, Known] = OrderedDict()
        # Deliveries by the member that keeps them back.
        self._kept_by: defaultdict[Key, dict[Key, Delivery]] = defaultdict(dict)
        # Files that are ready, by watch, as they were seen then: that was so for the quiet time.
        self._waiting: defaultdict[str, dict[bytes, Fingerprint]] = defaultdict(dict)
        self._reports: dict[Key, tuple[Tree, Fingerprint]] = {}
        self._matching: asyncio.Task[None] | None = None
        self._running: dict[Key, asyncio.Task[None]] = {}
        # Files that have changed while a delivery is examined: it may have seen them before.
        self._meanwhile: dict[Key, set[Key]] = {}
        self._again: dict[Key, Delivery] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._closing = False

    def heard(self, turn: Turn) -> None:
        """A manifest is there. Of those that a scan finds most have had their time long ago."""
        key, seen = turn.key, turn.look.seen
        if seen is None:
            return
        self._catalog.note(key, seen)
        is_news = turn.trigger.cause != "scan" or bool(self._waiting[key.watch])
        if is_news and self._is_due(key, seen):
            self._examine(Delivery(turn.tree, key.path, seen))

    def ready(self, turn: Turn) -> None:
        """A file could settle, and waits for the others of its set."""
        key, seen = turn.key, turn.look.seen
        if seen is None:
            return
        waiting = self._waiting[key.watch]
        if key.path in waiting or len(waiting) < WAITING:
            waiting[key.path] = seen
        self._wake(key)
        if self._closing or key in self._reports or len(self._reports) >= REPORTS:
            return
        self._reports[key] = (turn.tree, seen)
        self._inbox.hold(key.watch)
        if self._matching is None:
            self._matching = asyncio.create_task(self._match())

    def over(self, key: Key) -> None:
        """A file is not settling any more: it has settled, or is gone, or has another path."""
        self._waiting[key.watch].pop(key.path, None)
        self._wake(key)

    async def close(self) -> None:
        """Stop examining. What waits is found again by the next start."""
        self._closing = True
        for timer in self._timers.values():
            timer.cancel()
        tasks = [*self._running.values(), *([self._matching] if self._matching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for key in self._reports:
            self._inbox.let_go(key.watch)
        self._reports.clear()
        await self._catalog.close()

    def _wake(self, key: Key) -> None:
        """Whatever this file has kept back may go on; also what is found to be only now."""
        for meanwhile in self._meanwhile.values():
            meanwhile.add(key)
        for delivery in list(self._kept_by.get(key, {}).values()):
            self._examine(delivery)

    def _is_due(self, key: Key, seen: Fingerprint, member: bytes | None = None) -> bool:
        """There is news for a delivery: another manifest, or a member that has changed since."""
        known = self._known.get(key)
        if known is None or known.verdict.seen != seen:
            return True
        if known.verdict.kind == "settled" and member is not None:
            return True
        age = asyncio.get_running_loop().time() - known.at
        return known.verdict.kind == "waits" and age > AGAIN_SECONDS

    async def _match(self) -> None:
        """Find the manifests of files that are ready: their hint may have been lost."""
        try:
            while self._reports:
                key, (tree, seen) = next(iter(self._reports.items()))
                try:
                    await self._match_one(tree, key.path, seen)
                finally:
                    if self._reports.pop(key, None):
                        self._inbox.let_go(key.watch)
        finally:
            self._matching = None

    async def _match_one(self, tree: Tree, member: bytes, seen: Fingerprint) -> None:
        for path, listed in await self._catalog.above(tree, member, seen.mtime_ns):
            delivery = Delivery(tree, path, listed)
            if not self._is_due(delivery.key, listed, member):
                continue
            try:
                members = await self._catalog.read(tree, path, listed)
            except OSError:
                continue
            # One that is faulty is not due again, once it was examined.
            if members is not None and (isinstance(members, Fault) or member in members):
                self._examine(delivery)

    def _examine(self, delivery: Delivery) -> None:
        """Soon; and once more, if that is under way."""
        key = delivery.key
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if self._closing:
            return
        if key in self._running:
            self._again[key] = delivery
            return
        self._inbox.hold(key.watch)
        task = self._running[key] = asyncio.create_task(self._run(delivery))
        task.add_done_callback(partial(self._ended, key))

    def _ended(self, key: Key, _task: asyncio.Task[None]) -> None:
        del self._running[key]
        if again := self._again.pop(key, None):
            self._examine(again)
        self._inbox.let_go(key.watch)

    async def _run(self, delivery: Delivery) -> None:
        try:
            await self._examine_now(delivery)
        except StoreUnavailable:
            # Only while the daemon stops: the next start finds the files as the database has them.
            return
        except Exception as error:  # noqa: BLE001 - one delivery's trouble is not the others'
            self._journal.daemon(
                "degraded",
                "error",
                watch=delivery.tree.name,
                **path_fields("path", delivery.path),
                reason="a manifest could not be examined",
                error=f"{type(error).__name__}: {error}",
            )

    async def _examine_now(self, delivery: Delivery) -> None:
        loop, key = asyncio.get_running_loop(), delivery.key
        async with self._places:
            since = loop.time()
            meanwhile = self._meanwhile[key] = set()
            try:
                verdict = await self._deliveries.examine(delivery, self._waiting[key.watch])
            finally:
                del self._meanwhile[key]
            took = loop.time() - since
        self._note(delivery, verdict)
        if verdict.kind == "busy" or Key(key.watch, verdict.member or b"") in meanwhile:
            self._again[key] = delivery
        if key in self._again:
            await asyncio.sleep(min(max(PAUSE * took, SHORTEST_PAUSE), LONGEST_PAUSE))

    def _note(self, delivery: Delivery, verdict: Verdict) -> None:
        """Remember what came of it, and what could bring it back."""
        key = delivery.key
        self._forget(key)
        if verdict.kind == "gone" or verdict.seen is None:
            self._catalog.note(key, None)
            return
        loop = asyncio.get_running_loop()
        self._known[key] = Known(verdict, loop.time())
        if len(self._known) > KNOWN:
            self._forget(next(iter(self._known)))
        later = delivery._replace(seen=verdict.seen, stood=verdict.seen)
        if verdict.kind == "later":
            wait = max(verdict.at - now_us(), 0) / 1_000_000
            self._timers[key] = loop.call_later(wait, self._examine, later)
        elif verdict.member is not None:
            self._kept_by[Key(key.watch, verdict.member)][key] = later._replace(stood=None)

    def _forget(self, key: Key) -> None:
        known = self._known.pop(key, None)
        if known is not None and known.verdict.member is not None:
            member = Key(key.watch, known.verdict.member)
            self._kept_by[member].pop(key, None)
            if not self._kept_by[member]:
                del self._kept_by[member]
