"""When trees are scanned: at the start, on request, and again and again as the backstop."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from daemon.engine.inbox import Inbox, ScanRequest
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.scanner import Scanner
from daemon.engine.scanning import Counts
from daemon.engine.trees import Tree

# A scan that took a second is followed by another after so many seconds at the earliest.
PAUSE = 2.0
# Scans of parts of a tree at once, as long as they list.
PARTS = 16
# And with those that have found something missing, and wait for an explanation before they say so:
# they wait for the others, which must therefore not have to wait for them.
WAITING = 256
# Hints that were read when a burst ended get so long to be looked at: the scan is to find others.
HINTS_SECONDS = 2.0
# And what the scans before it found gets so long: it would be found, and counted, once more.
FOUND_SECONDS = 10.0
_TOLD = ("directories", "files", "new", "changed", "missing", "unreadable")


class Round:
    """The whole scans of one tree: what was asked for, and when the last one ended."""

    def __init__(self) -> None:
        self.cause: str | None = None
        self.asked = asyncio.Event()
        self.not_before = 0.0

    def ask(self, cause: str) -> None:
        """Scan the whole tree; merged with what was asked for and has not begun."""
        if self.cause in {None, "burst"}:
            self.cause = cause
        self.asked.set()


class Reconciler:
    """Has trees, and parts of them, compared with the ledger."""

    def __init__(
        self,
        trees: Mapping[str, Tree],
        inbox: Inbox,
        ledger: Ledger,
        journal: Journal,
        scanner: Scanner,
    ) -> None:
        self._trees = trees
        self._inbox = inbox
        self._ledger = ledger
        self._journal = journal
        self._scanner = scanner
        self._rounds = {name: Round() for name in trees}
        # Scans of parts, by watch: those that list, and all; and the watches that have enough.
        self._listing: Counter[str] = Counter()
        self._parts: Counter[str] = Counter()
        self._busy: set[str] = set()

    async def run_requests(self) -> None:
        """Scan what the inbox asks for, until cancelled. Whole trees are another task's."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                requests = await self._inbox.next_scans(self._busy)
                grouped = _grouped(requests).items()
                # Before anybody else has the loop: what waits for a scan waits for all its parts.
                begun = [(*each, self._inbox.begin_scan(each[0][0])) for each in grouped]
                for (watch, cause), tops, listed in begun:
                    if b"" in tops:
                        self._rounds[watch].ask(cause)
                        listed()
                        continue
                    self._count(watch, listing=1, parts=1)
                    part = self._scan_part(self._trees[watch], cause, _topmost(tops), listed)
                    tasks.create_task(part)

    async def _scan_part(
        self, tree: Tree, cause: str, tops: list[bytes], listed: Callable[[], None]
    ) -> None:
        def has_listed() -> None:
            listed()
            self._count(tree.name, listing=-1)

        try:
            counts = await self._scanner.scan(tree, tops, has_listed)
        finally:
            self._count(tree.name, parts=-1)
        tree.detection.miss(cause, counts.unannounced)

    def _count(self, watch: str, *, listing: int = 0, parts: int = 0) -> None:
        """More or fewer scans of parts: what is asked for beyond the most waits, and is merged."""
        self._listing[watch] += listing
        self._parts[watch] += parts
        if self._listing[watch] >= PARTS or self._parts[watch] >= WAITING:
            self._busy.add(watch)
        elif watch in self._busy:
            self._busy.discard(watch)
            self._inbox.scans_end()

    async def run_suspects(self) -> None:
        """Have the subtrees scanned that have rows though nothing is there, until cancelled."""
        while True:
            keys = await self._inbox.suspects.take()
            store = self._ledger.store
            found = await self._ledger.insist("read", partial(store.any_below, keys))
            for key in (key for key, below in zip(keys, found, strict=True) if below):
                self._inbox.request_scan(key, "hint")

    async def run(self, tree: Tree) -> None:
        """Scan a tree whenever that is asked for, and when its period is over, until cancelled."""
        loop = asyncio.get_running_loop()
        each = self._rounds[tree.name]
        ended = loop.time()
        while True:
            # Polled or not is known anew every time: a watcher may fail, or come back.
            due = ended + _period(tree)
            try:
                async with asyncio.timeout(min(due - loop.time(), tree.watch.poll)):
                    await each.asked.wait()
            except TimeoutError:
                if loop.time() < due:
                    continue
            await asyncio.sleep(each.not_before - loop.time())
            each.asked.clear()
            cause, each.cause = each.cause, None
            await self.reconcile(tree, cause or ("period" if _is_watched(tree) else "poll"))
            ended = loop.time()

    async def reconcile(
        self, tree: Tree, cause: str, listed: Callable[[], None] = lambda: None
    ) -> Counts:
        """Scan a whole tree and say what came of it, if anything did; `listed`: see the scanner."""
        loop = asyncio.get_running_loop()
        if cause == "burst":
            await self._inbox.idle_for(tree.name, HINTS_SECONDS)
        await self._inbox.unbundled_for(tree.name, FOUND_SECONDS)
        since = loop.time()
        counts = await self._scanner.scan(tree, [b""], listed)
        took = loop.time() - since
        self._rounds[tree.name].not_before = loop.time() + PAUSE * took
        tree.detection.directories = counts.directories
        tree.detection.miss(cause, counts.unannounced)
        if cause == "burst" and counts.unannounced:
            self._overflowed(tree, counts.unannounced)
        self._say(tree, cause, counts, took)
        return counts

    def _overflowed(self, tree: Tree, files: int) -> None:
        """The kernel's queue has overflowed, and perhaps new folders are not watched."""
        tree.detection.overflows += 1
        reason = f"{files} files were found after a burst that no hint had told of"
        self._journal.daemon("overflow", "warning", watch=tree.name, reason=reason)
        tree.rerooted.set()

    def _say(self, tree: Tree, cause: str, counts: Counts, took: float) -> None:
        missed = dict(tree.detection.missed)
        tree.detection.missed.clear()
        self._journal.daemon(
            "reconciled",
            # Who asked for it wants to hear of it, also where nothing differs.
            "info" if counts.found or missed or cause == "request" else "debug",
            watch=tree.name,
            cause=cause,
            duration_ms=round(took * 1000, 3),
            **{name: getattr(counts, name) for name in _TOLD},
            missed=missed,
        )


def _is_watched(tree: Tree) -> bool:
    return tree.detection.mode == "inotify"


def _period(tree: Tree) -> float:
    watch = tree.watch
    return watch.reconcile if _is_watched(tree) else min(watch.poll, watch.reconcile)


def _grouped(requests: Iterable[ScanRequest]) -> dict[tuple[str, str], list[bytes]]:
    """Paths by watch and cause; the whole tree stands for all of its parts."""
    grouped: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
    for (watch, path), cause in requests:
        grouped[watch, cause].append(path)
    return grouped


def _topmost(paths: Iterable[bytes]) -> list[bytes]:
    """Without those that lie below another: 300 trees of new folders are 300 scans, not 1,200."""
    found: list[bytes] = []
    for path in sorted(paths, key=lambda path: path + b"/"):
        if not found or not path.startswith(found[-1] + b"/"):
            found.append(path)
    return found
