"""Triggers that wait a moment for what could explain them: the other end of a rename, above all."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import takewhile

from msgspec.structs import replace

from daemon.core.model import Key, Trigger
from daemon.engine.barriers import Barrier
from daemon.engine.inbox import Inbox

# The two ends of a rename come with one batch of hints, or with two that follow each other.
GRACE_SECONDS = 0.3
# Triggers in memory, about 400 bytes each. Past that a scan of the tree finds what was left out.
LIMIT = 20_000


class Patience:
    """Puts triggers back into the inbox, `waited`, when what could explain them has arrived.

    That is all that was on its way when their time was over.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._waiting: dict[Key, None] = {}
        self._queue: deque[tuple[float, Trigger]] = deque()
        # By watch, those whose time was over at one moment, and what was on its way then.
        self._over: defaultdict[str, deque[tuple[Barrier, list[Trigger]]]] = defaultdict(deque)
        self._timer: asyncio.TimerHandle | None = None
        self._dropped = False

    def __len__(self) -> int:
        return len(self._waiting)

    def has(self, key: Key) -> bool:
        """Whether something waits at this path."""
        return key in self._waiting

    def wait(self, trigger: Trigger) -> None:
        """Look at this path again later. One trigger a path: the first stands for all.

        What a scan saw, it saw at its time.
        """
        if trigger.key in self._waiting or self._dropped:
            return
        if len(self._waiting) >= LIMIT:
            self._inbox.request_scan(Key(trigger.key.watch, b""), "hint")
            return
        loop = asyncio.get_running_loop()
        self._waiting[trigger.key] = None
        self._inbox.hold(trigger.key.watch)
        self._queue.append((loop.time() + GRACE_SECONDS, replace(trigger, waited=True, found=None)))
        if self._timer is None:
            self._timer = loop.call_later(GRACE_SECONDS, self._release)

    def drop(self) -> None:
        """Forget what waits, and what would, for the daemon stops: the next start finds it again.

        No scan ends any more that could explain it.
        """
        self._dropped = True
        for key in self._waiting:
            self._inbox.let_go(key.watch)
        self._queue.clear()
        self._over.clear()
        self._waiting.clear()

    def _release(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        due: defaultdict[str, list[Trigger]] = defaultdict(list)
        while self._queue and self._queue[0][0] <= now:
            trigger = self._queue.popleft()[1]
            due[trigger.key.watch].append(trigger)
        for watch, triggers in due.items():
            self._over[watch].append((self._inbox.barrier(watch), triggers))
        for over in self._over.values():
            # All of them are asked, though they pass in order: each notes what it waits for when it
            # is asked first. One after the other, under load, they would come faster than they go.
            passed = [barrier.is_passed() for barrier, _ in over]
            for _ in takewhile(bool, passed):
                self._put_back(over.popleft()[1])
        if self._waiting:
            first = 0.0 if any(self._over.values()) else self._queue[0][0] - now
            self._timer = loop.call_later(max(first, GRACE_SECONDS / 4), self._release)

    def _put_back(self, triggers: Sequence[Trigger]) -> None:
        for trigger in triggers:
            del self._waiting[trigger.key]
            self._inbox.put(trigger)
        self._inbox.let_go(triggers[0].key.watch, len(triggers))
