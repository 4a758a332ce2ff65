"""Triggers that wait a moment for what could explain them: the other end of a rename, above all."""

import asyncio
from collections import deque

from msgspec.structs import replace

from daemon.core.model import Key, Trigger
from daemon.engine.inbox import Inbox

# The two ends of a rename come with one batch of hints, or with two that follow each other.
GRACE_SECONDS = 0.3
# Under a load that never pauses nothing waits for ever for a calm inbox.
LONGEST_SECONDS = 5.0
# Triggers in memory, about 400 bytes each. Past that a scan of the tree finds what was left out.
LIMIT = 20_000


class Patience:
    """Puts triggers back into the inbox, `waited`, when their time is over and it is calm."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._waiting: dict[Key, None] = {}
        self._queue: deque[tuple[float, Trigger]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def wait(self, trigger: Trigger) -> None:
        """Look at this path again later. One trigger a path: the first stands for all.

        What a scan saw, it saw at its time.
        """
        if trigger.key in self._waiting:
            return
        if len(self._queue) >= LIMIT:
            self._inbox.request_scan(Key(trigger.key.watch, b""), "hint")
            return
        loop = asyncio.get_running_loop()
        self._waiting[trigger.key] = None
        self._inbox.hold()
        self._queue.append((loop.time() + GRACE_SECONDS, replace(trigger, waited=True, found=None)))
        if self._timer is None:
            self._timer = loop.call_later(GRACE_SECONDS, self._release)

    def drop(self) -> None:
        """Forget what waits, for the daemon stops: the next start finds it again."""
        self._inbox.finished(len(self._queue))
        self._queue.clear()
        self._waiting.clear()

    def _release(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        # Asked once: each look that is put in here would keep all the others back once more.
        due = now if self._inbox.calm else now - LONGEST_SECONDS
        while self._queue and self._queue[0][0] <= due:
            trigger = self._queue.popleft()[1]
            del self._waiting[trigger.key]
            self._inbox.put(trigger)
            self._inbox.finished()
        if self._queue:
            wait = max(self._queue[0][0] - now, GRACE_SECONDS / 4)
            self._timer = loop.call_later(wait, self._release)
