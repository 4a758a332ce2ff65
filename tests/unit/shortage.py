"""What a machine that is short of something does to a process, without harm to the machine."""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# No process has room for a stack of that size.
_TOO_LARGE = 2**47


@contextmanager
def of_threads() -> Iterator[None]:
    """No thread can be started any more."""
    before = threading.stack_size(_TOO_LARGE)
    try:
        yield
    finally:
        threading.stack_size(before)


@contextmanager
def of_descriptors(limit: int | None = None) -> Iterator[None]:
    """None can be opened whose number is not below the limit; without one, none at all."""
    if limit is None:
        limit = os.dup(0)  # the lowest one that is free
        os.close(limit)
    with _limited(resource.RLIMIT_NOFILE, limit):
        yield


@contextmanager
def of_room(size: int) -> Iterator[None]:
    """No file grows past this: a disk that is full in the middle of a write."""
    with _limited(resource.RLIMIT_FSIZE, size):
        yield


@contextmanager
def _limited(what: int, limit: int) -> Iterator[None]:
    before = resource.getrlimit(what)
    resource.setrlimit(what, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)
