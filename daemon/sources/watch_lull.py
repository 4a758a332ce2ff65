"""How a watcher's process shares the processor: when it waits, and for whom."""

import _signal  # type: ignore[import-not-found]  # as in `watch_child`
import fcntl
import posix
import time

F_SETOWN = 8
# How often to look while something happens; the second look is for what comes with the first.
STEP_NS = 1_000_000
BUSY_NS = 3 * STEP_NS
RARER = 8
# How often to look where no signal tells.
UNTOLD_NS = 25_000_000


def block() -> None:
    """Keep the signal until it is asked for, in this thread and in all that begin later."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGIO})


def yield_to_writers() -> None:
    """Do not interrupt whoever writes for each event: of a burst of 10,000 files, 30 % of the time.

    Who finds the processor free has it at once all the same.
    """
    try:
        posix.sched_setscheduler(0, posix.SCHED_BATCH, posix.sched_param(0))
    except OSError:
        # A sandbox may forbid it.
        return


class Lull:
    """The time between two events of an inotify queue that another thread reads.

    To poll the descriptor would miss what that thread has read already. But each event raises a
    signal as well (fcntl(2), O_ASYNC), which is kept. It does not say when that thread has passed
    the event on, if it does not get to run: so from the last signal on there are looks, of which
    each comes after a multiple of the time so far. An idle process is not to wake for them.
    """

    def __init__(self) -> None:
        self._is_told = False
        self._heard = 0

    def listen(self, descriptor: int | None) -> None:
        """Have the kernel raise the signal for this queue, if it is known."""
        if descriptor is not None:
            fcntl.fcntl(descriptor, F_SETOWN, posix.getpid())
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | posix.O_ASYNC)
            self._is_told = True

    def wait(self, most: int) -> None:
        """Wait for an event, but not for so many nanoseconds; for a step while they come."""
        since = time.monotonic_ns() - self._heard
        left = min(RARER * since, most if self._is_told else UNTOLD_NS)
        if since < BUSY_NS:
            time.sleep(STEP_NS / 1e9)
            left = 0
        if _signal.sigtimedwait({_signal.SIGIO}, left / 1e9) is not None:
            self._heard = time.monotonic_ns()
