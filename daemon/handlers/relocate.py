"""Takes a file away: by a rename, or as a durable copy, never onto another file, never another one.

All of it blocks. Whatever is cut off between two steps is finished by the same call once more: a
copy is complete before it has its name, and only then is the file removed.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, NamedTuple

from daemon.core.model import Fingerprint
from daemon.core.targets import numbered
from daemon.handlers.copying import (
    READ,
    make_folders,
    name,
    same_bytes,
    sync_folder,
    write_copy,
)
from daemon.handlers.opened import is_copy, is_same
from daemon.handlers.parts import NOWHERE, Parts, part_in
from daemon.handlers.renaming import rename_new

_KNOWN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})


class Changed(Exception):  # noqa: N818 - what happened to the file, and read as that
    """What stands at the path is not the file that was handled, or is being written to."""


class Absent(Exception):  # noqa: N818 - the same
    """Nothing is at the path."""


class File(NamedTuple):
    """A file below a root, as it was when it was handled."""

    root: bytes
    path: bytes
    seen: Fingerprint


class Place(NamedTuple):
    """Where it goes. `base` must be a folder already; below it folders are made."""

    base: bytes
    path: bytes
    overwrite: bool = False

    @property
    def folder(self) -> bytes:
        """The folder that is to hold it."""
        return self.path.rpartition(b"/")[0] or b"/"

    @property
    def candidates(self) -> Iterable[bytes]:
        """The paths that may be taken, in their order."""
        return (self.path,) if self.overwrite else numbered(self.path)


class _Opened(NamedTuple):
    """The file, and the folder that holds it: no path is resolved a second time."""

    folder: int
    name: bytes
    fd: int


def move(
    file: File,
    place: Place,
    is_stopped: Callable[[], bool] = lambda: False,
    parts: Parts = NOWHERE,
) -> bytes:
    """Take the file to its place, or to the first numbered name that is free; returns where.

    A copy that has to be made is on record in `parts` until it has its name.

    Raises:
        Absent: nothing is there; `find` tells whether it was taken before.
        Changed: it is not the file any more that was handled.
        Stopped: `is_stopped` said so while it was copied.
        OSError: it cannot be done now, or not at all.
    """
    with _opened(file, _KNOWN) as source:
        make_folders(place.base, place.folder)
        try:
            return _rename(source, file, place)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
    with _opened(file, READ) as source:
        return _carry(source, file, place, is_stopped, parts)


def delete(file: File) -> None:
    """Remove the file.

    Raises:
        Absent: nothing is there.
        Changed: it is not the file any more that was handled.
        OSError: it cannot be removed.
    """
    try:
        with _opened(file, READ) as source:
            _remove(source, file.seen)
    except PermissionError:  # to remove a file one need not be allowed to read it
        with _opened(file, _KNOWN) as source:
            _remove(source, file.seen)


def stands(file: File) -> Literal["itself", "another"] | None:
    """What is at the path of a file: None where nothing is."""
    st = _lstat(file.root + b"/" + file.path)
    if st is None:
        return None
    return "itself" if is_same(st, file.seen) else "another"


def find(file: File, place: Place) -> bytes | None:
    """Where a file lies that does not stand any more; None where it was not taken there."""
    for candidate in place.candidates:
        st = _lstat(candidate)
        if st is None:
            return None
        # A rename keeps the inode, and a copy is given the time.
        if is_copy(st, file.seen):
            return candidate
    return None


@contextmanager
def _opened(file: File, flags: int) -> Iterator[_Opened]:
    """The file as it was handled: regular, and reached through no symbolic link below its root."""
    *folders, last = file.path.split(b"/")
    folder = os.open(file.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    fd = -1
    try:
        for part in folders:
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        fd = os.open(last, flags, dir_fd=folder)
        _expect(os.fstat(fd), file.seen)
        yield _Opened(folder, last, fd)
    except OSError as error:
        if fd < 0 and error.errno in _ABSENT:
            raise Absent("nothing is there any more") from error
        if fd < 0 and error.errno == errno.ELOOP:
            raise Changed("a symbolic link has taken its place") from error
        raise
    finally:
        os.close(folder)
        if fd >= 0:
            os.close(fd)


def _rename(source: _Opened, file: File, place: Place) -> bytes:
    st = os.fstat(source.fd)
    for candidate in place.candidates:
        there = _lstat(candidate)
        if there is not None and (there.st_dev, there.st_ino) == (st.st_dev, st.st_ino):
            _remove(source, file.seen)  # the very same file, by another link
            return candidate
        # Once more, for making the folders took time: what is moved in error has to be put back.
        _expect(os.stat(source.name, dir_fd=source.folder, follow_symlinks=False), file.seen)
        try:
            _rename_one(source, candidate, overwrite=place.overwrite)
        except FileExistsError:
            continue
        moved = _lstat(candidate)
        if moved is None or not is_same(moved, file.seen):
            _put_back(source, candidate)
        return candidate
    raise _full(place)


def _rename_one(source: _Opened, target: bytes, *, overwrite: bool) -> None:
    if overwrite:
        os.rename(source.name, target, src_dir_fd=source.folder)
    else:
        rename_new(source.name, target, source.folder)


def _put_back(source: _Opened, target: bytes) -> None:
    """Another file was put there in the very moment, or it was written to: it is to be handled."""
    with suppress(FileNotFoundError, FileExistsError):
        rename_new(target, source.name, target_folder=source.folder)
    lies = f" and lies at {os.fsdecode(target)}" if _lstat(target) else ""
    raise Changed(f"it changed while it was taken away{lies}")


def _carry(
    source: _Opened, file: File, place: Place, is_stopped: Callable[[], bool], parts: Parts
) -> bytes:
    """Across file systems: copy, fsync, rename, fsync of the folder, and only then unlink."""
    placed = _copied(source, file, place)
    if placed is None:
        part = part_in(place.folder, file.root, file.path)
        with parts.writing(part):
            try:
                write_copy(source.fd, part, is_stopped)
                _expect(os.fstat(source.fd), file.seen)
                placed = _publish(part, place)
            except BaseException:
                with suppress(OSError):
                    os.unlink(part)  # noqa: PTH108 - a path of bytes
                raise
            # Before the record is taken back: that takes time, and the file is in both places.
            return _leave(source, file, place, placed)
    return _leave(source, file, place, placed)


def _leave(source: _Opened, file: File, place: Place, placed: bytes) -> bytes:
    sync_folder(place.folder)
    _remove(source, file.seen)
    return placed


def finish(file: File, place: Place) -> bytes | None:
    """Take away what stands yet though its copy is complete; where that is, None without one.

    Raises as `move`.
    """
    with _opened(file, READ) as source:
        placed = _copied(source, file, place)
        # A rename leaves nothing half done: on one file system that is another file.
        if placed is None or os.lstat(placed).st_dev == os.fstat(source.fd).st_dev:
            return None
        return _leave(source, file, place, placed)


def _copied(source: _Opened, file: File, place: Place) -> bytes | None:
    """The complete copy that was made when its maker was cut off before the unlink."""
    for candidate in place.candidates:
        st = _lstat(candidate)
        if st is None:
            return None
        if is_copy(st, file.seen) and same_bytes(source.fd, candidate):
            return candidate
    return None


def _publish(part: bytes, place: Place) -> bytes:
    if place.overwrite:
        os.replace(part, place.path)  # noqa: PTH105 - paths of bytes
        return place.path
    return name(part, place.candidates)


def _remove(source: _Opened, seen: Fingerprint) -> None:
    """Unlink the file, if it is still what it was and nobody writes to it.

    A read lease is granted only where nobody does, and holds up whoever comes, until it is given
    back. Where none is to be had the comparison has to do.
    """
    leased = _lease(source.fd)
    try:
        st = os.stat(source.name, dir_fd=source.folder, follow_symlinks=False)
        _expect(st, seen)
        os.unlink(source.name, dir_fd=source.folder)
    finally:
        if leased:
            fcntl.fcntl(source.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _lease(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise Changed("it is open for writing") from error
        return False
    return True


def _expect(st: os.stat_result, seen: Fingerprint) -> None:
    if not is_same(st, seen):
        raise Changed("it has changed since it was handled")


def _lstat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _full(place: Place) -> OSError:
    return FileExistsError(errno.EEXIST, "every numbered name is taken", place.path)
