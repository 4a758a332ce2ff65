"""The loop guard: files that a handler brings back, under the same name or under ever new ones.

Needs no columns: how often a file came back stands in its transitions, and only a row that has
three for each time allowed can have come back too often. Chains of new names are kept in memory.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from daemon.core.model import Key, Row
from daemon.core.targets import split
from daemon.engine.clock import now_us
from daemon.engine.ledger import Ledger
from daemon.engine.trees import Tree
from daemon.engine.turns import SETTLES, Turn

HOUR_US = 3_600_000_000
# `settle`, `start` and an outcome: no file comes back with fewer.
TRANSITIONS = 3
# A file that appears in the folder of one that was handled so long ago has nothing to do with it.
AFTER_SECONDS = 60.0
FOLDERS = 256
NAMES = 1_024
GENERATIONS = 10_000
_AGAIN = frozenset({"settle", "discover"})


class Loops:
    """Tells turns why their file is not to be handed over once more."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._folders: OrderedDict[tuple[str, bytes], _Folder] = OrderedDict()
        self._generations: OrderedDict[Key, int] = OrderedDict()

    async def examine(self, turns: Sequence[Turn]) -> None:
        """Set `loop` of those whose file would be handed over once too often."""
        for turn in turns:
            if turn.look.seen is None or turn.row.state not in SETTLES or not turn.tree.steps:
                continue
            generation = self._generation(turn) if self._folders or self._generations else 0
            if turn.look.settled:
                turn.loop = await self._loop(turn.row, turn.tree, generation)

    def continues(self, key: Key) -> bool:
        """Whether this may be one of a chain of files, each made while the last was handled."""
        folder = self._folders.get((key.watch, key.directory))
        return key in self._generations or (
            folder is not None and folder.generation_of(key.name) > 0
        )

    def started(self, row: Row) -> None:
        """A handler begins with a file: what appears beside it may be its work."""
        where = row.key.watch, row.key.directory
        folder = self._folders.setdefault(where, _Folder())
        folder.running += 1
        folder.add(row.key.name, self._generations.get(row.key, 0))

    def ended(self, row: Row) -> None:
        """It has ended; what it wrote in the end may be found a little later."""
        where = row.key.watch, row.key.directory
        folder = self._folders.get(where)
        if folder is None:
            return
        folder.running -= 1
        folder.until = time.monotonic() + AFTER_SECONDS
        self._folders.move_to_end(where)
        self._forget()

    def _forget(self) -> None:
        """Drop folders that were quiet longest, once they are over or too many.

        Two at a time are enough, for one start brings one folder at most.
        """
        now = time.monotonic()
        for _ in range(2):
            where, folder = next(iter(self._folders.items()))
            if folder.running > 0:
                self._folders.move_to_end(where)
            elif folder.until < now or len(self._folders) > FOLDERS:
                del self._folders[where]

    def _generation(self, turn: Turn) -> int:
        """How many files in a row stand behind this one, each made while the last was handled."""
        key = turn.key
        if turn.row.state == "settling":
            return self._generations.get(key, 0)
        folder = self._folders.get((key.watch, key.directory))
        generation = folder.generation_of(key.name) if folder else 0
        if generation:
            self._generations[key] = generation
            if len(self._generations) > GENERATIONS:
                self._generations.popitem(last=False)
        return generation

    async def _loop(self, row: Row, tree: Tree, generation: int) -> str | None:
        most = tree.watch.max_cycles
        limit = f"max_cycles = {most}"
        if generation > most:
            return (
                f"number {generation} of a chain of files, each of which appeared beside one that"
                f" was being handled and whose name its own begins with ({limit}): does a handler"
                " write into the tree that it serves?"
            )
        if row.version >= TRANSITIONS * most and await self._came_back(row, most):
            return (
                f"it came back more than {most} times within an hour ({limit}):"
                " does a handler write to it? If it is delivered so often, allow more"
            )
        return None

    async def _came_back(self, row: Row, most: int) -> bool:
        """Whether it has become ready so many times within the last hour."""
        store, since = self._ledger.store, now_us() - HOUR_US
        limit = 2 * TRANSITIONS * most
        while True:
            history = await self._ledger.insist("read", partial(store.history, row.id, limit))
            recent = [record for record in history if record.at > since]
            times = sum(r.event in _AGAIN and r.to_state == "ready" for r in recent)
            if times >= most or len(recent) < limit:
                return times >= most
            limit *= 4


class _Folder:
    """Names that were handled in a folder lately, and how long a chain each of them ends."""

    def __init__(self) -> None:
        self.running = 0
        self.until = 0.0
        # By the beginning of a name (itself, and without its suffix): its length, its generation.
        self._names: dict[bytes, tuple[int, int]] = {}
        self._lengths: set[int] = set()

    def add(self, name: bytes, generation: int) -> None:
        for beginning in {name, split(name)[0]}:
            known = self._names.pop(beginning, (0, 0))
            # Of two files with one stem, that which ends the longer chain.
            keeps = beginning != name and known[1] > generation
            self._names[beginning] = known if keeps else (len(name), generation)
            self._lengths.add(len(beginning))
        while len(self._names) > NAMES:
            del self._names[next(iter(self._names))]

    def generation_of(self, name: bytes) -> int:
        """One more than that of a file whose name it continues; 0 where there is none.

        Only longer names count: `scan.002` does not come of `scan.001`.
        """
        found = (self._names.get(name[:n]) for n in self._lengths if n < len(name))
        chains = [generation for length, generation in filter(None, found) if length < len(name)]
        return max(chains) + 1 if chains else 0
