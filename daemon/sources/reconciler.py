"""The scan: directories against rows. The watcher's hints may be lost; what stands here counts."""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial

from msgspec import Struct

from daemon.core.model import Key, Row, Trigger
from daemon.core.texts import path_fields
from daemon.engine.disk import Entry, is_missing, list_directory
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.trees import Tree
from daemon.engine.worker import Worker

# Entries compared before the loop is given to others.
SLICE = 1_000
# Sorts after every path: no component of one has more than 255 bytes.
_END = b"\xff" * 256


class Counts(Struct):
    """What a scan saw, and how many of the files differed from their rows."""

    directories: int = 0
    files: int = 0
    new: int = 0
    changed: int = 0
    missing: int = 0
    unreadable: int = 0


class Reconciler:
    """Compares trees with the ledger and puts a look at each difference into the inbox.

    An unchanged file costs one `lstat` and one row read: no trigger, no write, no line.
    """

    def __init__(
        self, trees: Mapping[str, Tree], inbox: Inbox, ledger: Ledger, journal: Journal
    ) -> None:
        self._trees = trees
        self._inbox = inbox
        self._ledger = ledger
        self._journal = journal
        self._disk = Worker("scan")

    async def close(self) -> None:
        """End the thread that reads directories."""
        await self._disk.close()

    async def run_requests(self) -> None:
        """Scan the subtrees that the inbox asks for, until cancelled."""
        while True:
            key, _ = await self._inbox.next_scan()
            await self.scan(self._trees[key.watch], key.path)

    async def run_suspects(self) -> None:
        """Have the subtrees scanned that have rows though nothing is there, until cancelled."""
        while True:
            keys = await self._inbox.suspects()
            store = self._ledger.store
            found = await self._ledger.insist("read", partial(store.any_below, keys))
            for key in (key for key, below in zip(keys, found, strict=True) if below):
                self._inbox.request_scan(key, "hint")

    async def run_periodic(self, tree: Tree, seconds: float) -> None:
        """Scan one tree again and again, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await self.reconcile(tree)

    async def reconcile(self, tree: Tree) -> None:
        """Scan a whole tree and say what came of it, if anything did."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        counts = await self.scan(tree, b"")
        found = counts.new + counts.changed + counts.missing
        self._journal.daemon(
            "reconciled",
            "info" if found else "debug",
            watch=tree.name,
            duration_ms=round((loop.time() - since) * 1000, 3),
            **{name: getattr(counts, name) for name in Counts.__struct_fields__},
        )

    async def scan(self, tree: Tree, top: bytes) -> Counts:
        """Compare the subtree at `top` with its rows, directory by directory."""
        counts = Counts()
        root = await self._disk.run(tree.identify_root)
        if root is None or root != tree.root_id:
            # Whoever watches the root says so; a root that is away removes no file.
            return counts
        waiting = [top]
        while waiting:
            waiting += await self._scan_directory(tree, waiting.pop(), counts)
        await self._scan_vanished(tree, top, counts)
        return counts

    async def _scan_directory(self, tree: Tree, directory: bytes, counts: Counts) -> list[bytes]:
        """Compare one directory; the directories in it that are to be entered."""
        try:
            entries = await self._disk.run(partial(list_directory, tree.absolute(directory)))
        except OSError as error:
            self._cannot_read(tree, directory, error, counts)
            return []
        if entries is None:
            return []
        counts.directories += 1
        rows = {row.key.path: row for row in await self._rows(tree, directory)}
        prefix = directory + b"/" if directory else b""
        for number, entry in enumerate(entries):
            await self._compare(tree, prefix + entry.name, entry, rows, counts)
            if number % SLICE == 0:
                # An unchanged entry waits for nothing: 200,000 of them held the loop for 1.9 s.
                await asyncio.sleep(0)
        await self._look_at_missing(rows.values(), counts)
        folders = (prefix + entry.name for entry in entries if entry.kind == "directory")
        return [folder for folder in folders if tree.matcher.enters(folder)]

    async def _compare(
        self, tree: Tree, path: bytes, entry: Entry, rows: dict[bytes, Row], counts: Counts
    ) -> None:
        key = Key(tree.name, path)
        if entry.kind == "other":
            self._journal.ignored(key, entry.kind)
        elif entry.kind == "unknown":
            # What the kernel would not show is not missing.
            rows.pop(path, None)
            counts.unreadable += 1
        if entry.seen is None:
            return
        row = rows.pop(path, None)
        counts.files += 1
        if row is None:
            if tree.matcher.wants(path):
                counts.new += 1
                await self._inbox.offer(Trigger(key, "look", "scan"))
        elif row.seen is None or row.seen.content != entry.seen.content:
            counts.changed += 1
            await self._inbox.offer(Trigger(key, "look", "scan"))

    async def _look_at_missing(self, rows: Iterable[Row], counts: Counts) -> None:
        for row in rows:
            if row.state != "processing" and row.plan == "process":
                counts.missing += 1
                await self._inbox.offer(Trigger(row.key, "look", "scan"))

    async def _scan_vanished(self, tree: Tree, top: bytes, counts: Counts) -> None:
        """Rows whose directory itself is off the disk: no listing comes past them."""
        if top and await self._is_missing(tree, top):
            await self._look_at_missing(await self._rows(tree, top), counts)
        after, end = (top + b"/", top + b"0") if top else (b"", _END)
        while (found := await self._next_directory(tree, after, end)) is not None:
            if await self._is_missing(tree, found):
                await self._look_at_missing(await self._rows(tree, found), counts)
            after = found

    async def _is_missing(self, tree: Tree, directory: bytes) -> bool:
        return await self._disk.run(partial(is_missing, tree.absolute(directory)))

    async def _rows(self, tree: Tree, directory: bytes) -> list[Row]:
        return await self._ledger.insist(
            "read", lambda: self._ledger.store.directory(tree.name, directory)
        )

    async def _next_directory(self, tree: Tree, after: bytes, end: bytes) -> bytes | None:
        return await self._ledger.insist(
            "read", lambda: self._ledger.store.next_directory(tree.name, after, end)
        )

    def _cannot_read(self, tree: Tree, directory: bytes, error: OSError, counts: Counts) -> None:
        """What cannot be listed keeps its rows as they are, and is said."""
        counts.unreadable += 1
        self._journal.daemon(
            "degraded",
            "warning",
            watch=tree.name,
            **path_fields("path", directory),
            reason="a directory cannot be read",
            error=f"{error.strerror}",
        )
