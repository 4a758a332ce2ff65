"""A file below a root, as it was handled: reached through no symbolic link, and no other file."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from daemon.core.model import Fingerprint
from daemon.handlers.opened import is_same, open_folder

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})


class Changed(Exception):  # noqa: N818 - what happened to the file, and read as that
    """What stands at the path is not the file that was handled, or is being written to.

    `target`: where a complete copy of what was handled lies all the same.
    """

    def __init__(self, text: str, target: bytes | None = None) -> None:
        super().__init__(text)
        self.target = target


class Absent(Exception):  # noqa: N818 - the same
    """Nothing is at the path."""


class File(NamedTuple):
    """A file below a root, as it was when it was handled."""

    root: bytes
    path: bytes
    seen: Fingerprint


class Opened(NamedTuple):
    """The file, and the folder that holds it: no path is resolved a second time."""

    folder: int
    name: bytes
    fd: int


@contextmanager
def opened(file: File, flags: int) -> Iterator[Opened]:
    """The file as it was handled: regular, and reached through no symbolic link below its root."""
    name, fd = file.path.rpartition(b"/")[2], -1
    with folder_of(file) as folder:
        try:
            with _absence():
                fd = os.open(name, flags, dir_fd=folder)
            expect(os.fstat(fd), file.seen)
            yield Opened(folder, name, fd)
        finally:
            if fd >= 0:
                os.close(fd)


@contextmanager
def folder_of(file: File) -> Iterator[int]:
    """The folder that holds it, reached through no symbolic link below the root."""
    with _absence():
        root = os.open(file.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            folder = open_folder(root, file.path.split(b"/")[:-1])
        finally:
            os.close(root)
    try:
        yield folder
    finally:
        os.close(folder)


@contextmanager
def _absence() -> Iterator[None]:
    """What it means that something cannot be opened."""
    try:
        yield
    except OSError as error:
        if error.errno in _ABSENT:
            raise Absent("nothing is there any more") from error
        if error.errno == errno.ELOOP:
            raise Changed("a symbolic link has taken its place") from error
        raise


def expect(st: os.stat_result, seen: Fingerprint) -> None:
    """Say that it is another file, or holds something else.

    Raises:
        Changed: it is.
    """
    if not is_same(st, seen):
        raise Changed("it has changed since it was handled")
