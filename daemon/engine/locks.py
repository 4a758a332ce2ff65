"""The per-path lock map: triggers of one file pass one by one; an idle path costs nothing."""

import asyncio
from collections import deque

from daemon.core.model import Key, Row


class Slot:
    """One path while somebody holds or awaits it. `row` is what its last holder left behind.

    Handing the row on saves its next holder a read; it is right because every write of the row
    happens under this lock, and the ledger's version check stands behind it.
    """

    __slots__ = ("row", "waiting")

    def __init__(self) -> None:
        self.row: Row | None = None
        # Made when somebody has to wait, which is seldom.
        self.waiting: deque[asyncio.Future[None]] | None = None


class LockMap:
    """Locks by path, first come first served."""

    def __init__(self) -> None:
        self._slots: dict[Key, Slot] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def take_if_free(self, key: Key) -> Slot | None:
        """Hold the path at once, or not at all; who got it says `give_back`."""
        if key in self._slots:
            return None
        slot = self._slots[key] = Slot()
        return slot

    def is_held(self, key: Key) -> bool:
        """Whether anybody holds the path."""
        return key in self._slots

    def give_back(self, key: Key) -> None:
        """End a hold: whoever waits is next."""
        _pass_on(self._slots, key)

    def hold(self, key: Key) -> "Hold":
        """Take a place in the line of the path now, and hold it in the `async with` that follows.

        Who is cancelled while waiting leaves the line.
        """
        return Hold(self._slots, key)


class Hold:
    """One turn. A class, for it is entered once a trigger, and contextlib's way costs 2 us more."""

    __slots__ = ("_key", "_slot", "_slots", "_turn")

    def __init__(self, slots: dict[Key, Slot], key: Key) -> None:
        self._slots = slots
        self._key = key
        self._turn: asyncio.Future[None] | None = None
        slot = slots.get(key)
        if slot is None:
            slot = slots[key] = Slot()
        else:
            self._turn = asyncio.get_running_loop().create_future()
            if slot.waiting is None:
                slot.waiting = deque()
            slot.waiting.append(self._turn)
        self._slot = slot

    async def __aenter__(self) -> Slot:
        if self._turn is not None:
            await self._wait(self._turn)
        return self._slot

    async def __aexit__(self, *_: object) -> None:
        _pass_on(self._slots, self._key)

    async def _wait(self, turn: asyncio.Future[None]) -> None:
        try:
            await turn
        except asyncio.CancelledError:
            # Cancelled in the very moment in which it was given the lock: the next one gets it.
            if turn.done() and not turn.cancelled():
                _pass_on(self._slots, self._key)
            raise


def _pass_on(slots: dict[Key, Slot], key: Key) -> None:
    waiting = slots[key].waiting or ()
    while waiting:
        turn = waiting.popleft()
        if not turn.done():
            turn.set_result(None)
            return
    del slots[key]
