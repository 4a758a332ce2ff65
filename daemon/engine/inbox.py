"""The one way in: every reason to touch a file is a trigger that passes through here."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from msgspec.structs import replace

from daemon.core.model import Key, Trigger
from daemon.engine.barriers import Barrier, Traffic
from daemon.engine.suspects import Suspects
from daemon.engine.unseen import Unseen

# What sources may pile up before they have to wait: a burst must not grow the daemon.
LIMIT = 10_000
# How often it is asked whether a scan still lists: that has no event, and ends in milliseconds.
CALM_SECONDS = 0.02
# The lines that triggers stand in.
_FACTS, _LOOKS, _BUNDLES = range(3)


class ScanRequest(NamedTuple):
    """A subtree to compare with its rows, and why: what `missed` is counted under."""

    key: Key
    cause: str


class Bundle(list[Trigger]):
    """New files of one watch that a scan has found, which go through the verbs together."""


class Inbox:
    """Triggers on their way to the pipeline, and subtrees on their way to the reconciler.

    Looks at one path are merged: a hundred hints that wait are one look. Everything else is kept
    as it came, in order, and goes first: it reports what has already happened.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._facts: deque[Trigger] = deque()
        self._looks: OrderedDict[Key, Trigger] = OrderedDict()
        self._bundles: deque[Bundle] = deque()
        self._bundled = 0
        # By watch, those that wait and those that were taken and are not finished.
        self._bundles_left: Counter[str] = Counter()
        self._group_over = asyncio.Event()
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._unfinished = 0
        # Of these, by watch, what somebody keeps back; set when there is nothing else.
        self._held: Counter[str] = Counter()
        self._only_held = asyncio.Event()
        # The paths of what waits in bundles, and of all that was taken and is not finished.
        self._busy: set[Key] = set()
        self.traffic = Traffic(3)
        self._scans: OrderedDict[Key, str] = OrderedDict()
        self._scans_asked = asyncio.Event()
        # By watch, the number of those that wait, and of those that were given out last.
        self._asked: dict[str, int] = {}
        self._given: dict[str, int] = {}
        # By watch, above 0 while scans list, or are about to.
        self.scanning: Counter[str] = Counter()
        self.suspects = Suspects()
        self.unseen = Unseen(self.put, self.request_scan)

    def __len__(self) -> int:
        return len(self._facts) + len(self._looks) + self._bundled

    def put(self, trigger: Trigger) -> None:
        """Put it in at once, whatever is there already. Sources that can wait use `offer`."""
        if trigger.event != "look":
            self._facts.append(trigger)
            self._count(_FACTS)
        elif (waiting := self._looks.get(trigger.key)) is None:
            self._looks[trigger.key] = trigger
            self._count(_LOOKS)
        else:
            self._looks[trigger.key] = _merged(waiting, trigger)
        self._put_in()

    def _count(self, line: int) -> None:
        self._unfinished += 1
        self.traffic.put[line] += 1

    def _put_in(self) -> None:
        self._idle.clear()
        self._filled.set()
        if len(self) >= self._limit:
            self._room.clear()

    async def offer(self, trigger: Trigger) -> None:
        """Put it in when there is room: a source that finds faster than we work has to wait."""
        await self._room.wait()
        self.put(trigger)

    async def offer_all(self, triggers: Iterable[Trigger]) -> None:
        """Put all of them in, each when there is room."""
        for trigger in triggers:
            await self.offer(trigger)

    async def offer_bundle(self, looks: Sequence[Trigger]) -> None:
        """Put in what goes through the verbs together, when there is room; never merged."""
        await self._room.wait()
        self._bundles.append(Bundle(looks))
        self._bundles_left[looks[0].key.watch] += 1
        self._bundled += len(looks)
        self._busy.update([look.key for look in looks])
        self._unfinished += len(looks)
        self.traffic.put[_BUNDLES] += 1
        self._put_in()

    async def take(self, limit: int = 1) -> list[Trigger]:
        """The next triggers, at least one. Whoever takes them says `finished_all` for them.

        What has happened, and what is looked at on a hint, goes before what a scan found.
        """
        while not len(self):
            self._filled.clear()
            await self._filled.wait()
        taken = self._next_triggers(limit)
        self.traffic.start(taken)
        self._busy.update([trigger.key for trigger in taken])
        if len(self) < self._limit:
            self._room.set()
        return taken

    def _next_triggers(self, limit: int) -> list[Trigger]:
        facts, looks, left = self._facts, self._looks, self.traffic.taken
        if not facts and not looks:
            bundle = self._bundles.popleft()
            self._bundled -= len(bundle)
            left[_BUNDLES] += 1
            return bundle
        taken = [facts.popleft() for _ in range(min(limit, len(facts)))]
        wanted = min(limit - len(taken), len(looks))
        left[_FACTS] += len(taken)
        left[_LOOKS] += wanted
        return taken + [looks.popitem(last=False)[1] for _ in range(wanted)]

    def hold(self, watch: str) -> None:
        """Somebody keeps a trigger back: it counts as unfinished until it is let go."""
        self._unfinished += 1
        self._held[watch] += 1
        self._idle.clear()

    def let_go(self, watch: str, count: int = 1) -> None:
        """So many were put in, or dropped."""
        self._held[watch] -= count
        self._finished(count)

    def finished_all(self, triggers: Sequence[Trigger]) -> None:
        """The work of these, which were taken together, is done."""
        self.traffic.finish(triggers)
        self._busy.difference_update([trigger.key for trigger in triggers])
        if isinstance(triggers, Bundle):
            self._bundles_left[triggers[0].key.watch] -= 1
        self._group_over.set()
        self._finished(len(triggers))

    def _finished(self, count: int) -> None:
        self._unfinished -= count
        if self._unfinished == 0:
            self._idle.set()
        if self._unfinished <= self._held.total():
            self._only_held.set()

    def calm(self, watch: str) -> bool:
        """No look waits, and no scan: what could explain something missing has been looked at."""
        return not self._looks and watch not in self._asked and not self.scanning[watch]

    def barrier(self, watch: str | None = None) -> Barrier:
        """What is passed when all has arrived that is on its way now.

        Without a watch: what is in the inbox, but not what scans will still put in.
        """
        return Barrier(self.traffic, watch)

    async def arrived(self) -> None:
        """Wait until all that is in the inbox now is on record, or is held back."""
        barrier = self.barrier()
        while not barrier.is_passed():
            self._group_over.clear()
            await self._group_over.wait()

    async def idle(self, watch: str | None = None) -> None:
        """Wait until all is finished; with a watch, but for what is kept back of others."""
        if watch is None:
            await self._idle.wait()
            return
        while self._unfinished > self._held.total() - self._held[watch]:
            self._only_held.clear()
            await self._only_held.wait()

    async def unbundled_for(self, watch: str, seconds: float) -> None:
        """Wait until what scans of a watch found new is on record, but no longer than this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._bundles_left[watch]:
                    self._group_over.clear()
                    await self._group_over.wait()

    def finds(self, watch: str) -> bool:
        """Whether scans may yet put in files of a watch that they saw a while ago."""
        return self.scanning[watch] > 0 or self._bundles_left[watch] > 0

    async def idle_for(self, watch: str, seconds: float) -> None:
        """Wait until every trigger is finished, but no longer than this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.idle(watch)

    async def quiet_for(self, watch: str, seconds: float) -> bool:
        """Wait until all is finished that could explain something missing; False after so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.idle(watch)
                while not self.calm(watch):
                    await asyncio.sleep(CALM_SECONDS)
                    await self.idle(watch)
                return True
        return False

    def request_scan(self, key: Key, cause: str) -> None:
        """Ask for the subtree at this path to be compared with the rows; merged while it waits.

        The first cause stands for all, but a burst for nothing: it is no more than a suspicion.
        """
        if key.watch not in self._asked:
            self._asked[key.watch] = self.traffic.ask(key.watch)
        if self._scans.get(key, "burst") == "burst":
            self._scans[key] = cause
        self._scans_asked.set()

    def awaits(self, key: Key) -> bool:
        """A look at this path waits already."""
        return key in self._looks

    def knows(self, key: Key) -> bool:
        """Somebody has spoken of this path, and what came of it need not be on record yet."""
        return key in self._looks or key in self._busy

    async def next_scans(self, busy: Collection[str] = ()) -> list[ScanRequest]:
        """All subtrees to compare, when there are any. What is asked for from now on comes next.

        Those of watches that are `busy` stay, and are merged with others, until `scans_end`.
        """
        while not self._asked.keys() - busy:
            self._scans_asked.clear()
            await self._scans_asked.wait()
        self._given = {watch: n for watch, n in self._asked.items() if watch not in busy}
        found = [ScanRequest(*each) for each in self._scans.items() if each[0].watch not in busy]
        for key, _ in found:
            del self._scans[key]
        for watch, asked in self._given.items():
            del self._asked[watch]
            self.traffic.end(watch, asked)
        return found

    def scans_end(self) -> None:
        """A watch is not busy any more."""
        self._scans_asked.set()

    def begin(self, watch: str, *, whole: bool = False) -> Callable[[], None]:
        """Somebody puts in much that belongs together; call what is returned when all of it is in.

        Until then a barrier that is made meanwhile is not passed, however long there is no room.
        `whole`: it is what a scan of the whole tree finds.
        """
        return self.traffic.open(watch, whole=whole)

    def begin_scan(self, watch: str) -> Callable[[], None]:
        """A scan of what `next_scans` has just given; call what is returned when it has listed."""
        listed = self.traffic.begin(watch, self._given[watch])
        # One whose turn is still to come explains as much as one that has begun.
        self.scanning[watch] += 1

        def end() -> None:
            self.scanning[watch] -= 1
            listed()

        return end


def _merged(waiting: Trigger, trigger: Trigger) -> Trigger:
    """The one that knows more: what stood there a while ago, or that nothing explains an absence.

    But what was seen for one of them is no answer to the other, which may be younger.
    """
    merged = trigger if trigger.seen is not None or trigger.waited else waiting
    if merged.found is None and merged.sight is None:
        return merged
    return replace(merged, found=None, sight=None)
