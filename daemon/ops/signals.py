"""The signals that the daemon gets."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at each signal that asks for the end; SIGIO is a lease's business."""
    loop = asyncio.get_running_loop()
    # A writer that comes while a read lease is held makes the kernel send this; its default is
    # to end the process. A handler, not SIG_IGN: programs that we start must not inherit that.
    before = signal.signal(signal.SIGIO, lambda *_: None)
    stopping = [signal.SIGTERM, signal.SIGINT]
    # A terminal that is closed sends SIGHUP: that must not be a crash, and under nohup(1), which
    # ignores it, no end either.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        stopping.append(signal.SIGHUP)
    for number in stopping:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in stopping:
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGIO, before)
