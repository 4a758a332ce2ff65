"""The kernel's side of a watcher's process: how full the queue is, what inotify still grants."""

import errno
import fcntl
import posix
import sys
import termios
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LIMIT = "/proc/sys/fs/inotify/max_queued_events"
LIMIT_BY_DEFAULT = 16_384
# A queue that is an eighth full may have been full when nobody looked.
BURST_SHARE, EVENT_BYTES = 8, 32
CLOSE_SECONDS = 5
IN_DELETE_SELF = 0x400


class Queue:
    """The queue of a RustNotify that is still to be made: its length counts from then on."""

    def __init__(self) -> None:
        self._many = max(1, _limit() // BURST_SHARE)
        self._descriptor: int | None = None
        self._bytes = bytearray(4)

    def find(self) -> int | None:
        """RustNotify does not tell its descriptor, but the process has no other inotify."""
        self._descriptor = next(inotify_descriptors(), None)
        return self._descriptor

    def is_burst(self, changes: int) -> bool:
        """Whether so many at once are a sign that there may have been more."""
        return changes >= self._many

    def is_pressed(self) -> bool:
        """Whether so much waits. Readers, too, fill the queue, and no change ever tells of them."""
        if self._descriptor is None:
            return False
        fcntl.ioctl(self._descriptor, termios.FIONREAD, self._bytes)
        return int.from_bytes(self._bytes, sys.byteorder) >= self._many * EVENT_BYTES


def inotify_descriptors() -> "Iterator[int]":
    """Those of this process."""
    for name in posix.listdir("/proc/self/fd"):
        try:
            if posix.readlink(f"/proc/self/fd/{name}") == "anon_inode:inotify":
                yield int(name)
        except FileNotFoundError:
            continue


def await_closed() -> None:
    """A RustNotify that could not be made lets its watches go in a thread; so long they count."""
    end = time.monotonic() + CLOSE_SECONDS
    while any(inotify_descriptors()) and time.monotonic() < end:
        time.sleep(0.002)


def has_room(paths: "Iterable[str]") -> bool:
    """Whether the kernel grants a watch on each of these. What cannot be asked is no shortage."""
    try:
        # 0.6 MB. An old libffi may fail where memory must not be both written to and run.
        import ctypes  # noqa: PLC0415

        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.inotify_init1(posix.O_CLOEXEC)
    except (ImportError, OSError, MemoryError, AttributeError):
        return True
    if descriptor < 0:
        return True
    try:
        for path in paths:
            if libc.inotify_add_watch(descriptor, path.encode(), IN_DELETE_SELF) < 0:
                return ctypes.get_errno() != errno.ENOSPC
        return True
    finally:
        posix.close(descriptor)


def _limit() -> int:
    try:
        with open(LIMIT, encoding="ascii") as limit:  # noqa: PTH123 - pathlib is 2 MB
            return int(limit.read())
    except (OSError, ValueError):
        return LIMIT_BY_DEFAULT
