"""Which manifests there are, and what they say: both remembered for a while, within bounds."""

import asyncio
from bisect import bisect_left, insort
from collections import OrderedDict
from functools import partial

from daemon.core.manifest import MAX_BYTES, Fault
from daemon.core.model import Fingerprint, Key
from daemon.engine.line import NoAnswer
from daemon.engine.signs import Members, manifests, parse, upwards
from daemon.engine.trees import Tree
from daemon.engine.worker import Worker

# A directory is listed again after so long: hints may be lost, but no set waits longer for it.
LISTED_SECONDS = 60.0
LISTINGS = 256
# Members in memory, about 500 bytes each.
MEMBERS = 50_000
# Of a directory's manifests so many are asked about a file: those that were written next after it.
NEXT = 100


class Listing:
    """The manifests of a directory, in the order of their mtimes."""

    def __init__(self, at: float, found: dict[bytes, Fingerprint]) -> None:
        self.at = at
        self._seen = found
        self._in_order = sorted((seen.mtime_ns, path) for path, seen in found.items())

    def put(self, path: bytes, seen: Fingerprint | None) -> None:
        """One is there, or is there no more."""
        known = self._seen.pop(path, None)
        if known is not None:
            del self._in_order[bisect_left(self._in_order, (known.mtime_ns, path))]
        if seen is not None:
            self._seen[path] = seen
            insort(self._in_order, (seen.mtime_ns, path))

    def since(self, mtime_ns: int) -> list[tuple[bytes, Fingerprint]]:
        """The next ones that were written at this time or later."""
        start = bisect_left(self._in_order, (mtime_ns, b""))
        return [(path, self._seen[path]) for _, path in self._in_order[start : start + NEXT]]


class Catalog:
    """Lists and reads manifests, in threads."""

    def __init__(self) -> None:
        self._parser = Worker("manifests")
        self._listings: OrderedDict[Key, Listing] = OrderedDict()
        # What was heard of a directory while it is listed: the listing may have come past it.
        self._meanwhile: dict[Key, dict[bytes, Fingerprint | None]] = {}
        self._read: OrderedDict[Key, tuple[Fingerprint, Members | Fault]] = OrderedDict()
        self._members = 0

    async def close(self) -> None:
        """End the thread."""
        await self._parser.close()

    def note(self, key: Key, seen: Fingerprint | None) -> None:
        """A manifest is there, or is there no more."""
        directory = Key(key.watch, key.directory)
        if directory in self._meanwhile:
            self._meanwhile[directory][key.path] = seen
        listing = self._listings.get(directory)
        if listing is not None:
            listing.put(key.path, seen)

    async def above(self, tree: Tree, path: bytes, since: int) -> list[tuple[bytes, Fingerprint]]:
        """The manifests that may list a file: none of its directory or above that is older."""
        found = []
        for directory in upwards(path):
            found += (await self._listing(tree, directory)).since(since)
        return found

    async def read(self, tree: Tree, path: bytes, seen: Fingerprint) -> Members | Fault | None:
        """What the manifest says that was seen; None where it is another by now.

        Raises:
            OSError: the kernel refuses to open it, or to read on.
        """
        key = Key(tree.name, path)
        known, members = self._read.get(key, (None, None))
        if known == seen:
            self._read.move_to_end(key)
            return members
        content = await tree.disk.digests.content(tree.absolute(path), seen, MAX_BYTES + 1)
        if content is None:
            return None
        parsed = await self._parser.run(partial(parse, tree, path, content))
        self._keep(key, seen, parsed)
        return parsed

    async def _listing(self, tree: Tree, directory: bytes) -> Listing:
        key, now = Key(tree.name, directory), asyncio.get_running_loop().time()
        listing = self._listings.get(key)
        if listing is None or now > listing.at + LISTED_SECONDS:
            try:
                listing = self._listings[key] = await self._list(tree, directory, now)
            except NoAnswer:
                return listing or Listing(now, {})
        self._listings.move_to_end(key)
        if len(self._listings) > LISTINGS:
            self._listings.popitem(last=False)
        return listing

    async def _list(self, tree: Tree, directory: bytes, now: float) -> Listing:
        key = Key(tree.name, directory)
        meanwhile = self._meanwhile.setdefault(key, {})
        list_directory = partial(manifests, tree, directory)
        try:
            listing = Listing(now, await tree.disk.looks.run(list_directory))
        finally:
            self._meanwhile.pop(key, None)
        for path, seen in meanwhile.items():
            listing.put(path, seen)
        return listing

    def _keep(self, key: Key, seen: Fingerprint, members: Members | Fault) -> None:
        _, former = self._read.pop(key, (None, None))
        self._members += _size(members) - _size(former)
        self._read[key] = (seen, members)
        while self._members > MEMBERS and len(self._read) > 1:
            _, (_, oldest) = self._read.popitem(last=False)
            self._members -= _size(oldest)


def _size(members: Members | Fault | None) -> int:
    """What counts in memory; one for a manifest that has no members."""
    if members is None:
        return 0
    return len(members) + 1 if isinstance(members, dict) else 1
