"""Marker files: the name that says a file is complete, and whom a marker speaks for. Pure.

A marker stands in the directory of what it speaks for. Every name that fits the pattern is a
marker and never a data file, whether or not there is anything that it could speak for.
"""

import re
from typing import NamedTuple

from daemon.core.model import Fingerprint

_PATTERN = re.compile(r"([^{}/\0]*)\{(name|stem)\}([^{}/\0]*)", re.DOTALL)
_NAME_MAX = 255


class Subjects(NamedTuple):
    """Whom a marker speaks for.

    `exact`: the one path `start`. Otherwise those of the `directory` whose paths begin with `start`
    and for which `Marker.speaks_for` holds: the suffix is not known from the marker.
    """

    directory: bytes
    start: bytes
    exact: bool


class Marker:
    """`settle.marker`, such as `{name}.done` or `.{stem}.ok`.

    `{name}` is the file's name; `{stem}` is the name without its last suffix, and dots at the
    beginning start no suffix. Raises `ValueError` for a pattern that cannot be used.
    """

    def __init__(self, pattern: str) -> None:
        found = _PATTERN.fullmatch(pattern)
        if found is None:
            raise ValueError("a marker is a file name with {name} or {stem} in it, once")
        self._prefix, self._suffix = found[1].encode(), found[3].encode()
        if not 0 < len(self._prefix) + len(self._suffix) < _NAME_MAX:
            raise ValueError("a marker needs a few bytes beside {name} or {stem}, less than 255")
        self._by_stem = found[2] == "stem"

    def marker_of(self, path: bytes) -> bytes:
        """The path of the marker for a data file.

        The name may be longer than the kernel's 255 bytes: such a file has no marker, ever.
        """
        directory, slash, name = path.rpartition(b"/")
        inner = _stem(name) if self._by_stem else name
        return directory + slash + self._prefix + inner + self._suffix

    def is_marker(self, path: bytes) -> bool:
        """Whether this path is a marker, and so never a data file."""
        return self._inner(path.rpartition(b"/")[2]) is not None

    def subjects_of(self, path: bytes) -> Subjects | None:
        """Whom this path speaks for; None when it is no marker."""
        directory, slash, name = path.rpartition(b"/")
        inner = self._inner(name)
        if inner is None:
            return None
        return Subjects(directory, directory + slash + inner, exact=not self._by_stem)

    def speaks_for(self, marker: bytes, path: bytes) -> bool:
        """Whether `marker` is the marker of the data file `path`."""
        return self.marker_of(path) == marker and not self.is_marker(path)

    def _inner(self, name: bytes) -> bytes | None:
        """What stands in the pattern's place; None where that could be no file's name."""
        longest = len(name) - len(self._suffix)
        fits = name.startswith(self._prefix) and name.endswith(self._suffix)
        inner = name[len(self._prefix) : longest] if fits else b""
        return None if inner in {b"", b".", b".."} else inner


def is_current(marker: Fingerprint, data: Fingerprint) -> bool:
    """Whether the marker was made for this content.

    One that is older than the data was left over from a former delivery of the same name. Equal
    times count: a file system may keep whole seconds, and the kernel's clock ticks every 4 ms.
    """
    return marker.mtime_ns >= data.mtime_ns


def _stem(name: bytes) -> bytes:
    dots = len(name) - len(name.lstrip(b"."))
    head, dot, _ = name[dots:].rpartition(b".")
    return name[:dots] + head if dot else name
