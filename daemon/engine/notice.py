"""A folder of our own in which others put files: inotify wakes the loop for each that comes."""

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_libc = ctypes.CDLL(None)
_IN_MOVED_TO = 0x80
_EVENTS_BYTES = 65_536


def _init(flags: int) -> int:
    return int(_libc.inotify_init1(flags))


@contextmanager
def noticing(folder: Path, notice: Callable[[], None]) -> Iterator[bool]:
    """Call `notice`, on the loop, after something was moved into the folder.

    False: there are no more instances or watches of inotify, or none at all. Events that are lost,
    as the folder is replaced, are nobody's loss who looks now and then as well.
    """
    queue = _init(os.O_NONBLOCK | os.O_CLOEXEC)
    if queue < 0:
        yield False
        return

    def read() -> None:
        os.read(queue, _EVENTS_BYTES)
        notice()

    loop = asyncio.get_running_loop()
    try:
        watched = _libc.inotify_add_watch(queue, os.fsencode(folder), _IN_MOVED_TO) >= 0
        loop.add_reader(queue, read)
        yield watched
    finally:
        loop.remove_reader(queue)
        os.close(queue)
