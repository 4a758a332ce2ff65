"""Paths that a look has not seen, for an error: another look soon, and a few more after it.

A shortage passes, and a disk that failed once may answer the next time. What was not seen by then
is left to the periodic scan.
"""

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from daemon.core.model import Key, Trigger

# The first look after so long, each of the others after twice as long: eight and a half minutes.
FIRST_SECONDS, TIMES = 1.0, 9
# A look that was due so long ago has been made. Nobody tells when it has seen something.
MADE_SECONDS = 30.0
# Paths in memory. Where there are more their tree is scanned in their place.
LIMIT = 1_000


class Unseen:
    """Puts looks that were in vain into the inbox again, later each time.

    `look` puts one in, and `scan` asks for a subtree, with the cause.
    """

    def __init__(
        self, look: Callable[[Trigger], object], scan: Callable[[Key, str], object]
    ) -> None:
        self._look, self._scan = look, scan
        # How many looks there were, and when the last one is or was due; in the order of coming.
        self._tries: dict[Key, tuple[int, float]] = {}

    def again(self, trigger: Trigger) -> None:
        """This look, or the scan of what is there, has met an error that may pass."""
        now = asyncio.get_running_loop().time()
        key = self._room_for(trigger.key, now)
        times, due = self._tries.get(key, (0, now))
        if now < due:
            return
        if now > due + MADE_SECONDS:
            times = 0
        self._tries.pop(key, None)
        if times < TIMES:
            due = now + FIRST_SECONDS * 2.0**times
            self._tries[key] = times + 1, due
            put = replace(trigger, key=key, found=None)
            asyncio.get_running_loop().call_at(due, self._put, put)

    async def over(self, watch: str) -> None:
        """Wait until nothing of a watch is to be looked at again."""
        while self._awaits(watch):  # noqa: ASYNC110 - nobody tells what was seen
            await asyncio.sleep(FIRST_SECONDS)

    def _awaits(self, watch: str) -> bool:
        now = asyncio.get_running_loop().time()
        return any(
            key.watch == watch and now <= due + MADE_SECONDS
            for key, (_, due) in self._tries.items()
        )

    def _room_for(self, key: Key, now: float) -> Key:
        """The path itself, or its tree."""
        while self._tries:
            first = next(iter(self._tries))
            if now <= self._tries[first][1] + MADE_SECONDS:
                break
            del self._tries[first]
        return key if key in self._tries or len(self._tries) < LIMIT else Key(key.watch, b"")

    def _put(self, trigger: Trigger) -> None:
        if trigger.key.path:
            self._look(trigger)
        else:
            self._scan(trigger.key, "hint")
