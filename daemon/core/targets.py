"""Where a file goes that is taken away: from a template and the file to a path. Pure."""

import os
import re
import time
from collections.abc import Iterator

from daemon.core.model import Fingerprint, Key

_TOKEN = re.compile(r"\{\{|\}\}|\{(\w+)\}|%")
_LITERAL = {"{{": "{", "}}": "}", "%": "%%"}
# Numbered names that are tried for one file before somebody has to tidy up.
MOST = 10_000


class Target:
    """The template of a place, `/srv/archive/{date}/{relpath}`; absolute, and already checked."""

    def __init__(self, template: str) -> None:
        def piece(token: re.Match[str]) -> str:
            return f"%({token[1]})b" if token[1] else _LITERAL[token[0]]

        self._format = os.fsencode(_TOKEN.sub(piece, template))

    def of(self, key: Key, seen: Fingerprint) -> bytes:
        """The place of a file that shows this: the same on every attempt, on whichever day.

        `{date}` and `{time}` are those of its last change (ctime, which nobody can set), in UTC:
        when it arrived.

        Raises:
            ValueError: a name that consists of dots would lead elsewhere.
        """
        stem, suffix = split(key.name)
        arrived = time.gmtime(seen.ctime_ns // 1_000_000_000)
        fields = {
            b"relpath": key.path,
            b"directory": key.directory,
            b"name": key.name,
            b"stem": stem,
            b"suffix": suffix,
            b"watch": os.fsencode(key.watch),
            b"date": time.strftime("%Y-%m-%d", arrived).encode(),
            b"time": time.strftime("%H%M%S", arrived).encode(),
        }
        parts = [part for part in (self._format % fields).split(b"/") if part]
        if {b".", b".."} & set(parts):
            raise ValueError("its name would lead out of the folder")
        return b"/" + b"/".join(parts)


def split(name: bytes) -> tuple[bytes, bytes]:
    """A file's name before its last suffix, and the suffix with its dot: both together are it."""
    stem, dot, suffix = name.rpartition(b".")
    return (stem, dot + suffix) if stem.strip(b".") and suffix else (name, b"")


def numbered(path: bytes) -> Iterator[bytes]:
    """The path itself, and then with numbers: `a.csv`, `a.1.csv`, `a.2.csv`, ..."""
    yield path
    folder, slash, name = path.rpartition(b"/")
    stem, suffix = split(name)
    for number in range(1, MOST):
        yield b"%b%b%b.%d%b" % (folder, slash, stem, number, suffix)
