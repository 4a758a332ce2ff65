"""One program that runs: its end is awaited, its words are kept, and it can be ended."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

from daemon.handlers.orphaned import pipe

# How long the end of what it says may lag behind the end of the program: a grandchild that
# inherited the pipe may hold it open for ever.
GRACE = 0.1
_CHUNK = 65_536
# What asyncio says as well where somebody else has taken the status: a function in this process
# may wait for whichever child ends.
UNKNOWN = 255


class Pipe:
    """What a program says into a pipe; of it `kept` bytes stay, the last ones or the first ones.

    `outlives`: a program that outlives us is not ended by what it says. Made in any thread; what is
    read is read in the loop.
    """

    def __init__(self, kept: int, *, first: bool = False, outlives: bool = False) -> None:
        self._kept = kept
        self._first = first
        self._fd, self.inlet = pipe(outlives=outlives)
        # The loop that listens, as long as one does.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bytes = bytearray()
        self._closed: asyncio.Event | None = None

    def open(self) -> None:
        """The program has its end of it, and ours of that is closed."""
        self.close_inlet()
        os.set_blocking(self._fd, False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._fd, self._read)
        self._loop = loop

    def forget(self) -> None:
        """What was kept so far is about something else."""
        self._bytes.clear()

    async def end(self) -> bytes:
        """What was kept, once everybody has closed the pipe, or a moment after now."""
        if self._fd >= 0 and self._loop is None:
            self.open()
        self._read()
        if self._fd >= 0:
            self._closed = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await self._closed.wait()
        return bytes(self._bytes)

    def close_inlet(self) -> None:
        """Give our copy of the program's end back."""
        fd, self.inlet = self.inlet, -1
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Give all of it back. May be called twice."""
        self.close_inlet()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            if self._loop is not None:
                self._loop.remove_reader(fd)
            os.close(fd)
        if self._closed is not None:
            self._closed.set()

    def _read(self) -> None:
        if self._fd < 0:
            return
        with suppress(BlockingIOError):
            if chunk := os.read(self._fd, _CHUNK):
                self._keep(chunk)
            else:
                self.close()

    def _keep(self, chunk: bytes) -> None:
        if self._first:
            self._bytes += chunk[: self._kept - len(self._bytes)]
        else:
            self._bytes += chunk[-self._kept :]
            del self._bytes[: -self._kept]


class Running:
    """A process and its group. Every reason to end it is a push: the first TERM, the next KILL.

    `timeout` may be endless. `with_group`: what it has started ends with it, pushed or not.

    Raises:
        OSError, RuntimeError: the machine has nothing left to wait for it with; see `end_at_once`.
    """

    def __init__(
        self,
        pid: int,
        *,
        timeout: float,
        kill_after: float,
        with_group: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.pid = pid
        self._status = 0
        self._kill_after = kill_after
        self._with_group = with_group
        self.pushes = 0
        self._over = asyncio.Event()
        self.timed_out = False
        _on_exit(self._loop, pid, self._exited)
        # After what may fail: it would signal a number that is somebody else's by then.
        self._alarm = self._loop.call_later(timeout, self._expire)

    async def end(self) -> int:
        """The exit status, or minus the signal. Cancelling asks for the end, and then forces it."""
        cancelled: asyncio.CancelledError | None = None
        while not self._over.is_set():
            try:
                await self._over.wait()
            except asyncio.CancelledError as error:
                cancelled = error
                self.push()
        if cancelled is not None:
            raise cancelled
        return self._status

    def push(self) -> None:
        """Ask the group to end, and force it after `kill_after`; called again, force it now."""
        if self._over.is_set():
            return
        self.pushes += 1
        self._alarm.cancel()
        if self.pushes == 1:
            self._signal(signal.SIGTERM)
            self._alarm = self._loop.call_later(self._kill_after, self.push)
        else:
            self._signal(signal.SIGKILL)

    def _expire(self) -> None:
        self.timed_out = True
        self.push()

    def _exited(self) -> None:
        self._alarm.cancel()
        if self.pushes or self._with_group:
            # Whoever of the group is still there outlived its leader, or the TERM. The leader,
            # which nobody has waited for, still keeps the number from being another group's.
            self._signal(signal.SIGKILL)
        self._status = status_of(self.pid)
        self._over.set()

    def _signal(self, number: signal.Signals) -> None:
        # The group may hold only programs that became another user's.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def status_of(pid: int) -> int:
    """Wait for a program: its exit status, or minus the signal. Blocks until it is over."""
    status = status_if_over(pid, 0)
    return UNKNOWN if status is None else status


def status_if_over(pid: int, how: int = os.WNOHANG) -> int | None:
    """The same of one that may still run; None if it does."""
    try:
        waited_for, status = os.waitpid(pid, how)
    except ChildProcessError:
        return UNKNOWN
    return os.waitstatus_to_exitcode(status) if waited_for else None


def end_at_once(pid: int) -> None:
    """Kill a program that nobody watches over, and its group, and wait for it. Blocks."""
    # Where it has become another user's its own end is all that there is to wait for.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    status_of(pid)


def _on_exit(loop: asyncio.AbstractEventLoop, pid: int, call: Callable[[], None]) -> None:
    """Call back in the loop when a child has ended; it is not waited for."""
    try:
        fd = os.pidfd_open(pid)
    except (AttributeError, OSError):
        # An old kernel, a Python built for one, or no descriptor left: a thread can wait as well.
        waiting = threading.Thread(target=_wait, args=(loop, pid, call), daemon=True)
        waiting.start()
        return

    def exited() -> None:
        loop.remove_reader(fd)
        os.close(fd)
        call()

    try:
        loop.add_reader(fd, exited)
    except OSError:
        os.close(fd)
        raise


def _wait(loop: asyncio.AbstractEventLoop, pid: int, call: Callable[[], None]) -> None:
    with suppress(ChildProcessError):  # somebody else has waited for it: it has ended
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with suppress(RuntimeError):  # the loop was closed meanwhile, and nobody waits any more
        loop.call_soon_threadsafe(call)
