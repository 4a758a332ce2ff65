"""A durable copy of a file, and folders that outlast a power cut. All of it blocks."""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress

from daemon.core.targets import numbered
from daemon.handlers.parts import NOWHERE, Parts, part_in
from daemon.handlers.renaming import rename_new

# How much is copied before it is asked whether the daemon stops.
CHUNK = 8 << 20
_NO_SENDFILE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class Stopped(Exception):  # noqa: N818 - what happened, and read as that
    """The daemon stops."""


def write_copy(fd: int, part: bytes, is_stopped: Callable[[], bool]) -> None:
    """Copy what is open to a new file: bytes, owner where we may, mode and times, all on the disk.

    Raises:
        Stopped: it was told to, between two chunks.
    """
    copy = _create(part, 0o600)
    try:
        done, st = 0, os.fstat(fd)
        while count := _send(copy, fd, done):
            done += count
            if is_stopped():
                raise Stopped
        with suppress(PermissionError):  # only root gives files away
            os.fchown(copy, st.st_uid, st.st_gid)
        with suppress(PermissionError):
            os.fchmod(copy, stat.S_IMODE(st.st_mode))
        os.utime(copy, ns=(st.st_atime_ns, st.st_mtime_ns))
        os.fsync(copy)
    finally:
        os.close(copy)


def _send(copy: int, fd: int, done: int) -> int:
    """Copy a chunk from there on; how much it was. The kernel does it where it can."""
    try:
        return os.sendfile(copy, fd, done, CHUNK)
    except OSError as error:
        if error.errno not in _NO_SENDFILE:
            raise
    return os.write(copy, os.pread(fd, CHUNK, done))


def _create(part: bytes, mode: int) -> int:
    """Open a new file for writing: never through a link that somebody has put in its place."""
    with suppress(FileNotFoundError):
        os.unlink(part)  # noqa: PTH108 - that of an earlier run; nobody else uses such a name
    return os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def name(part: bytes, candidates: Iterable[bytes]) -> bytes:
    """Give what is complete the first of some names that is free.

    Raises:
        FileExistsError: none is.
    """
    candidate = part
    for candidate in candidates:
        with suppress(FileExistsError):
            rename_new(part, candidate)
            return candidate
    raise FileExistsError(errno.EEXIST, "every numbered name is taken", candidate)


def write_beside(path: bytes, text: bytes, parts: Parts = NOWHERE) -> None:
    """Write a file as a whole and for good, under a numbered name where there is one already."""
    folder = path.rpartition(b"/")[0]
    part = part_in(folder, path)
    with parts.writing(part):
        try:
            with os.fdopen(_create(part, 0o666), "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            name(part, numbered(path))
        except BaseException:
            with suppress(OSError):
                os.unlink(part)  # noqa: PTH108 - a path of bytes
            raise
    sync_folder(folder)


def same_bytes(fd: int, path: bytes) -> bool:
    """Whether the file at a path holds what is open, read to the end."""
    other = os.open(path, READ)
    try:
        at = 0
        while chunk := os.pread(fd, CHUNK, at):
            if os.pread(other, CHUNK, at) != chunk:
                return False
            at += len(chunk)
        return not os.pread(other, 1, at)
    finally:
        os.close(other)


def make_folders(base: bytes, folder: bytes) -> None:
    """Make what is missing below the base, each on record in the one above before it is used.

    Raises:
        NotADirectoryError: something else has the name of one.
    """
    missing = []
    while folder != base and not os.path.isdir(folder):  # noqa: PTH112 - a path of bytes
        missing.append(folder)
        folder = folder.rpartition(b"/")[0] or b"/"
    for each in reversed(missing):
        try:
            os.mkdir(each)  # noqa: PTH102 - the same
        except FileExistsError:
            if not os.path.isdir(each):  # noqa: PTH112 - the same
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), each) from None
        sync_folder(each.rpartition(b"/")[0] or b"/")


def sync_folder(folder: bytes) -> None:
    """Have the names in a folder on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
