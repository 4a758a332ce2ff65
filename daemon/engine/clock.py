"""The wall clock, as the rows and the lines carry it."""

import time


def now_us() -> int:
    """Microseconds since the epoch. For timers there is the loop's own, monotonic clock."""
    return time.time_ns() // 1000
