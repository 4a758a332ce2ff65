"""What files hold, for watches that go by content: their digests, known for a while or under way.

A file that needs its digest has no result in its turn. When the digest is there the file is looked
at again, and it counts only if the file is still the one that was read.
"""

import asyncio
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from daemon.core.model import Fingerprint, Key, Row, Trigger
from daemon.engine.digests import LARGE
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.line import NoAnswer
from daemon.engine.trees import Tree
from daemon.engine.turns import Turn
from daemon.errors import SHORTAGE

# Files that are to be read, in memory, about 1 KB each; and of one tree, before its scans wait.
LIMIT = 20_000
ROOM = 2_000
# Digests in memory: all that are on their way to the look that needs them, and some more.
KNOWN = 2 * LIMIT
# What a thread has waiting, so that it need not wait for the loop.
AHEAD = 4
# A shortage of ours passes.
AGAIN_SECONDS = 1.0
# In place of a digest: it cannot be read, or does not keep still.
UNREADABLE = ""


class Reading(NamedTuple):
    """A file that is to be read: what for, where, and as what it was seen.

    `stood`: it had then been so for the quiet time.
    """

    tree: Tree
    trigger: Trigger
    row: Row
    seen: Fingerprint
    stood: bool
    adopted: bool


class Lane:
    """What waits for one of the threads of a tree."""

    def __init__(self) -> None:
        self.waiting: deque[Reading] = deque()
        self.readers = 0


class Contents:
    """Computes digests, one at a time a file, and remembers them."""

    def __init__(
        self,
        trees: Mapping[str, Tree],
        inbox: Inbox,
        journal: Journal,
        attempt_id: Callable[[], str],
    ) -> None:
        self._trees = trees
        self._inbox = inbox
        self._journal = journal
        self._attempt_id = attempt_id
        # By watch, and whether it is for large files.
        self._lanes: defaultdict[tuple[str, bool], Lane] = defaultdict(Lane)
        self._under_way: set[Key] = set()
        self._in_tree: Counter[str] = Counter()
        self._known: OrderedDict[Key, tuple[Fingerprint | None, str]] = OrderedDict()
        self._readers: set[asyncio.Task[None]] = set()
        self._closing = False

    def known(self, key: Key, seen: Fingerprint) -> str | None:
        """The digest of what was seen; `UNREADABLE` once, after it was tried in vain; else None."""
        known, digest = self._known.get(key, (None, None))
        if digest == UNREADABLE:
            del self._known[key]
        return digest if digest == UNREADABLE or known == seen else None

    def want(self, turn: Turn) -> None:
        """Have the file of this turn read, unless that is under way, and looked at again."""
        key, seen = turn.key, turn.look.seen
        if self._closing or seen is None or key in self._under_way:
            return
        if len(self._under_way) >= LIMIT:
            if turn.facts.adopted:
                # Nothing else would bring it back; others have an alarm, or a ctime that differs.
                self._inbox.request_scan(Key(key.watch, b""), "burst")
            return
        self._under_way.add(key)
        self._inbox.hold(key.watch)
        self._count(turn.tree, 1)
        stood, adopted = turn.look.quiet, turn.facts.adopted
        self._read(Reading(turn.tree, turn.trigger, turn.row, seen, stood, adopted))

    async def close(self) -> None:
        """Stop reading, and forget what waits: the next start finds it again."""
        self._closing = True
        await asyncio.gather(*(tree.disk.digests.close() for tree in self._trees.values()))
        for task in self._readers:
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        for key in self._under_way:
            self._inbox.let_go(key.watch)
        self._under_way.clear()

    def _read(self, reading: Reading) -> None:
        lane = self._lanes[reading.tree.name, reading.seen.size > LARGE]
        lane.waiting.append(reading)
        if lane.readers < AHEAD:
            lane.readers += 1
            task = asyncio.create_task(self._work(lane))
            self._readers.add(task)
            task.add_done_callback(self._readers.discard)

    async def _work(self, lane: Lane) -> None:
        while lane.waiting and not self._closing:
            await self._digest(lane.waiting.popleft())
        lane.readers -= 1

    async def _digest(self, reading: Reading) -> None:
        path = reading.tree.absolute(reading.trigger.key.path)
        digest: str | None
        try:
            digest = await reading.tree.disk.digests.of(path, reading.seen)
        except NoAnswer:
            # The look that follows will have none either, and is made again when it may.
            digest = None
        except OSError as error:
            if error.errno in SHORTAGE:
                asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._read_again, reading)
                return
            text = f"{error.strerror} (digest)"
            self._journal.failed(reading.trigger, reading.row, text, self._attempt_id())
            digest = UNREADABLE
        if not self._closing:
            self._finish(reading, digest)

    def _read_again(self, reading: Reading) -> None:
        if not self._closing:
            self._read(reading)

    def _finish(self, reading: Reading, digest: str | None) -> None:
        trigger = reading.trigger
        self._under_way.discard(trigger.key)
        self._count(reading.tree, -1)
        if digest is None and reading.adopted:
            # It is written to all the time: it is adopted as it stands, and its next change found.
            digest = UNREADABLE
        if digest is not None:
            self._remember(trigger.key, reading.seen if digest else None, digest)
        self._inbox.put(_look_again(reading, digest))
        self._inbox.let_go(trigger.key.watch)

    def _remember(self, key: Key, seen: Fingerprint | None, digest: str) -> None:
        self._known[key] = (seen, digest)
        self._known.move_to_end(key)
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)

    def _count(self, tree: Tree, by: int) -> None:
        self._in_tree[tree.name] += by
        if self._in_tree[tree.name] >= ROOM:
            tree.room.clear()
        elif self._in_tree[tree.name] <= ROOM // 2:
            tree.room.set()


def _look_again(reading: Reading, digest: str | None) -> Trigger:
    """A look that knows what stood there; after a change, one that knows nothing."""
    trigger, seen = reading.trigger, reading.seen
    key, cause = trigger.key, trigger.cause
    if digest is None:
        return Trigger(key, "look", cause)
    if digest and trigger.found == seen and reading.adopted:
        # It goes on record as it was found: the digest is of that very file.
        return replace(trigger, seen=seen)
    stood = seen if digest and reading.stood else None
    return Trigger(key, "look", cause, seen=stood, waited=trigger.waited)
