"""The per-path lock map: triggers of one file pass one by one; an idle path costs nothing."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from daemon.core.model import Key, Row


class Slot:
    """One path while somebody holds or awaits it. `row` is what its last holder left behind.

    Handing the row on saves its next holder a read; it is right because every write of the row
    happens under this lock, and the ledger's version check stands behind it.
    """

    __slots__ = ("row", "waiting")

    def __init__(self) -> None:
        self.row: Row | None = None
        self.waiting: deque[asyncio.Future[None]] = deque()


class LockMap:
    """Locks by path, first come first served."""

    def __init__(self) -> None:
        self._slots: dict[Key, Slot] = {}

    def __len__(self) -> int:
        return len(self._slots)

    @asynccontextmanager
    async def hold(self, key: Key) -> AsyncIterator[Slot]:
        """Hold the path. A holder that is cancelled while it waits leaves the line."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = Slot()
        else:
            await self._wait(key, slot)
        try:
            yield slot
        finally:
            self._pass_on(key, slot)

    async def _wait(self, key: Key, slot: Slot) -> None:
        turn = asyncio.get_running_loop().create_future()
        slot.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            # Cancelled in the very moment in which it was given the lock: the next one gets it.
            if turn.done() and not turn.cancelled():
                self._pass_on(key, slot)
            raise

    def _pass_on(self, key: Key, slot: Slot) -> None:
        while slot.waiting:
            turn = slot.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._slots[key]
