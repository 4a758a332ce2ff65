"""Timers: settling files to look at again, failed ones to retry.

The times are in the database, so they survive a restart. In memory is only what is due soon.
"""

import asyncio
import heapq
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from daemon.core.model import Fingerprint, Key, Row, Trigger
from daemon.engine.clock import now_us
from daemon.engine.inbox import Inbox
from daemon.engine.ledger import Ledger

# What is due within this time is in memory; the database is asked for the next half as often.
HORIZON_SECONDS = 60.0
# Alarms in memory at most: past that, the database keeps them until there is room.
LIMIT = 50_000
# The heap is rebuilt when it has twice as many entries as there are alarms, and these more.
_STALE = 1_000
# A wall clock that differs from the monotonic one by more than this has been set.
JUMP_US = 1_000_000


class Alarm:
    """One timer, by the loop's clock. `seen` is what stood at the path when it was set."""

    __slots__ = ("due", "key", "seen")

    def __init__(self, due: float, key: Key, seen: Fingerprint | None) -> None:
        self.due, self.key, self.seen = due, key, seen


class Alarms:
    """Puts a look into the inbox when a file's time has come."""

    def __init__(
        self,
        inbox: Inbox,
        ledger: Ledger,
        watches: Sequence[str],
        clock: Callable[[], int] = now_us,
    ) -> None:
        """`watches`: the configured ones, for the rows of others have nobody to look at them."""
        self._inbox = inbox
        self._watches = watches
        self._ledger = ledger
        self._clock = clock
        self._alarms: dict[int, Alarm] = {}
        self._heap: list[tuple[float, int]] = []
        self._wake = asyncio.Event()
        self._truncated = False
        self._offset = clock() - time.monotonic_ns() // 1000

    def set(self, row: Row, due_at: int, seen: Fingerprint | None) -> None:
        """Look at this file again at `due_at`; one timer a file, the latest counts.

        What lies beyond the horizon stays in the database until it comes near.
        """
        seconds = (due_at - self._clock()) / 1_000_000
        if seconds > HORIZON_SECONDS:
            self._alarms.pop(row.id, None)
            return
        if len(self._alarms) >= LIMIT and row.id not in self._alarms:
            self._truncated = True
            return
        self._add(row, max(seconds, 0.0), seen)

    def clear(self, row: Row) -> None:
        """This file waits for no time any more."""
        self._alarms.pop(row.id, None)

    async def run(self) -> None:
        """Ring, and ask the database for what comes next, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ring())
            tasks.create_task(self._refill())

    def _add(self, row: Row, seconds: float, seen: Fingerprint | None) -> None:
        due = asyncio.get_running_loop().time() + seconds
        self._alarms[row.id] = Alarm(due, row.key, seen)
        heapq.heappush(self._heap, (due, row.id))
        if len(self._heap) > 2 * len(self._alarms) + _STALE:
            self._forget_stale()
        if self._heap[0][1] == row.id:
            self._wake.set()

    def _forget_stale(self) -> None:
        """A file that is written to all the time sets its alarm anew with every hint."""
        self._heap = [(alarm.due, file_id) for file_id, alarm in self._alarms.items()]
        heapq.heapify(self._heap)

    async def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._heap and self._heap[0][0] <= loop.time():
                due, file_id = heapq.heappop(self._heap)
                alarm = self._alarms.get(file_id)
                # An alarm that was set anew since has another time, and another entry here.
                if alarm is not None and alarm.due == due:
                    del self._alarms[file_id]
                    await self._inbox.offer(Trigger(alarm.key, "look", "alarm", seen=alarm.seen))
            self._wake.clear()
            wait = self._heap[0][0] - loop.time() if self._heap else None
            # Not wait_for: before Python 3.12 it loses a cancellation that meets the wake-up.
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _refill(self) -> None:
        """Load what is due within the horizon: at the start, and half a horizon later again."""
        everything = True
        while True:
            await self._load(everything=everything)
            await asyncio.sleep(1.0 if self._truncated else HORIZON_SECONDS / 2)
            everything = self._clock_was_put_back()

    async def _load(self, *, everything: bool) -> None:
        """Take rows from the database. `everything`: those, too, that an earlier clock set.

        A timer that was set for ten seconds never takes longer than ten seconds from now, however
        far the wall clock has been put back since.
        """
        now = self._clock()
        room = LIMIT - len(self._alarms)
        if room <= LIMIT // 2:
            return
        horizon = now + int(HORIZON_SECONDS * 1_000_000)
        set_after = now if everything else None
        rows = await self._ledger.insist(
            "read", lambda: self._ledger.store.due(self._watches, horizon, set_after, room)
        )
        self._truncated = len(rows) == room
        for row in rows:
            if row.due_at is not None and row.id not in self._alarms:
                wait = min(row.due_at - now, row.due_at - row.at)
                self._add(row, max(wait, 0) / 1_000_000, row.seen)

    def _clock_was_put_back(self) -> bool:
        before, self._offset = self._offset, self._clock() - time.monotonic_ns() // 1000
        return self._offset < before - JUMP_US
