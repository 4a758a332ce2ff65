"""Puts lines on standard output. Nothing else in the command line prints an answer."""

import os
import signal
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from daemon.errors import ServiceError

Item = TypeVar("Item")

_CHUNK = 1_000


def print_lines(lines: Iterable[str | bytes]) -> None:
    """Write lines to standard output; a reader that has gone away ends the command in silence.

    Raises:
        ServiceError: standard output cannot be written.
    """
    if sys.stdout is None:
        raise ServiceError("standard output is closed; leave it open for the answer")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    encoding = sys.stdout.encoding
    encoded = (s if isinstance(s, bytes) else s.encode(encoding, "backslashreplace") for s in lines)
    try:
        for chunk in _chunks(encoded):
            _write_all(memoryview(b"\n".join(chunk) + b"\n"))
    except OSError as error:
        raise ServiceError(f"standard output: {error.strerror}") from error


def _write_all(rest: memoryview) -> None:
    """Past Python's own buffer, which would complain once more at exit."""
    while rest:
        rest = rest[os.write(1, rest) :]


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The first line at once, and the others in bundles: 1,000,000 writes are seconds."""
    waiting = iter(items)
    size = 1
    while chunk := list(islice(waiting, size)):
        yield chunk
        size = _CHUNK
