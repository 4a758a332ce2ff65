"""The wall clock, as the rows and the lines carry it, and who rings when a time has come."""

import time
from typing import Protocol

from daemon.core.model import Fingerprint, Row


def now_us() -> int:
    """Microseconds since the epoch. For timers there is the loop's own, monotonic clock."""
    return time.time_ns() // 1000


class AlarmClock(Protocol):
    """Brings a file back when its time has come."""

    def set(self, row: Row, due_at: int, seen: Fingerprint | None) -> None:
        """Look at this file again at `due_at`; `seen` is what stood there when this was set."""
        ...

    def clear(self, row: Row) -> None:
        """This file waits for no time any more."""
        ...
