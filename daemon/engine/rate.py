"""How many files a minute a step may start: `max_per_minute`."""

from collections import deque
from collections.abc import Iterable

WINDOW_SECONDS = 60.0


class Rate:
    """In no 60 seconds are more than `most` started: the times of the last so many are kept.

    They may all be started at once. Times are the loop's, in seconds.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._times: deque[float] = deque()

    def restore(self, times: Iterable[float]) -> None:
        """What was started before this run, in any order, counts as well."""
        self._times = deque(sorted([*times, *self._times]))

    def started(self, now: float) -> None:
        """One more runs, from now on."""
        self._times.append(now)

    def room(self, now: float) -> int:
        """How many may be started now."""
        times = self._times
        while times and times[0] <= now - WINDOW_SECONDS:
            times.popleft()
        return self.most - len(times)

    @property
    def opens_at(self) -> float:
        """When there is room for one more at the latest, where there is none now."""
        return self._times[0] + WINDOW_SECONDS if self._times else 0.0
