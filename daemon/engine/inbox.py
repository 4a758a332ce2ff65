"""The one way in: every reason to touch a file is a trigger that passes through here."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import NamedTuple

from daemon.core.model import Key, Trigger

# What sources may pile up before they have to wait: a burst must not grow the daemon.
LIMIT = 10_000


class ScanRequest(NamedTuple):
    """A subtree to compare with its rows, and why: what `missed` is counted under."""

    key: Key
    cause: str


class Inbox:
    """Triggers on their way to the pipeline, and subtrees on their way to the reconciler.

    Looks at one path are merged: a hundred hints that wait are one look. Everything else is kept
    as it came, in order, and goes first: it reports what has already happened.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._facts: deque[Trigger] = deque()
        self._looks: OrderedDict[Key, Trigger] = OrderedDict()
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._unfinished = 0
        self._scans: OrderedDict[Key, str] = OrderedDict()
        self._scans_asked = asyncio.Event()
        self._suspects: OrderedDict[Key, None] = OrderedDict()
        self._suspected = asyncio.Event()

    def __len__(self) -> int:
        return len(self._facts) + len(self._looks)

    def put(self, trigger: Trigger) -> None:
        """Put it in at once, whatever is there already. Sources that can wait use `offer`."""
        if trigger.event != "look":
            self._facts.append(trigger)
            self._unfinished += 1
        elif trigger.key not in self._looks:
            self._looks[trigger.key] = trigger
            self._unfinished += 1
        elif trigger.seen is not None:
            # It knows more than the one that waits: what stood there a quiet time ago.
            self._looks[trigger.key] = trigger
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

    async def get(self) -> Trigger:
        """The next trigger. Whoever takes it says `finished` when its work is done."""
        while not len(self):
            self._filled.clear()
            await self._filled.wait()
        trigger = self._facts.popleft() if self._facts else self._looks.popitem(last=False)[1]
        if len(self) < self._limit:
            self._room.set()
        return trigger

    def finished(self) -> None:
        """One trigger's work is done."""
        self._unfinished -= 1
        if self._unfinished == 0:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until every trigger that was put in is finished."""
        await self._idle.wait()

    def request_scan(self, key: Key, cause: str) -> None:
        """Ask for the subtree at this path to be compared with the rows; merged while it waits."""
        self._scans.setdefault(key, cause)
        self._scans_asked.set()

    async def next_scan(self) -> ScanRequest:
        """The next subtree to compare. Asked for again from now on, it is scanned again."""
        while not self._scans:
            self._scans_asked.clear()
            await self._scans_asked.wait()
        return ScanRequest(*self._scans.popitem(last=False))

    def suspect(self, key: Key) -> None:
        """Nothing is at this path, and it has no row: it may have been a folder with rows below.

        Most are not: whoever writes under another name and renames leaves one of these a file.
        """
        self._suspects[key] = None
        self._suspected.set()

    async def suspects(self) -> list[Key]:
        """All of them, when there are any."""
        while not self._suspects:
            self._suspected.clear()
            await self._suspected.wait()
        found, self._suspects = list(self._suspects), OrderedDict()
        return found
