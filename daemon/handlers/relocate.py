"""Takes a file away: by a rename, or as a durable copy, never onto another file, never another one.

All of it blocks. Whatever is cut off between two steps is finished by the same call once more, if
`restore` was before it: a copy is complete before it has its name, and only then is the file
removed; and whatever is renamed or removed was withdrawn before, and looked at once more.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Literal, NamedTuple

from daemon.core.model import Fingerprint
from daemon.core.targets import numbered
from daemon.handlers.archive import Guard, held
from daemon.handlers.below import Absent, Changed, File, Opened, expect, folder_of, opened
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
from daemon.handlers.withdrawing import give_back, hidden_of, withdrawn

_KNOWN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Place(NamedTuple):
    """Where it goes. `base` must be a folder already; below it folders are made.

    `guard` knows which folder the base must be; without one any will do.
    """

    base: bytes
    path: bytes
    overwrite: bool = False
    guard: Guard | None = None

    @property
    def folder(self) -> bytes:
        """The folder that is to hold it."""
        return self.path.rpartition(b"/")[0] or b"/"

    @property
    def candidates(self) -> Iterable[bytes]:
        """The paths that may be taken, in their order."""
        return (self.path,) if self.overwrite else numbered(self.path)


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
        Elsewhere: the base is not the folder that is known.
        OSError: it cannot be done now, or not at all.
    """
    with opened(file, _KNOWN) as source, held(place.base, place.guard):
        make_folders(place.base, place.folder)
        # Asked first, for a rename that fails shows in the tree: there and back again. Of two
        # folders, for the number of a file is another on an overlay.
        if os.stat(place.folder).st_dev == os.fstat(source.folder).st_dev:  # noqa: PTH116 - bytes
            try:
                return _rename(source, file, place)
            except OSError as error:  # one device, but two mounts of it
                if error.errno != errno.EXDEV:
                    raise
    with opened(file, READ) as source, held(place.base, place.guard):
        return _carry(source, file, place, is_stopped, parts)


def delete(file: File) -> None:
    """Remove the file.

    Raises:
        Absent: nothing is there.
        Changed: it is not the file any more that was handled.
        OSError: it cannot be removed.
    """
    try:
        with opened(file, READ) as source:
            _remove(source, file.seen)
    except PermissionError:  # to remove a file one need not be allowed to read it
        with opened(file, _KNOWN) as source:
            _remove(source, file.seen)


def restore(file: File) -> None:
    """Give what was withdrawn by whoever was killed then its name again.

    The file itself stays withdrawn where a newer one has its name: `left` finds it.

    Raises:
        OSError: it cannot be renamed.
    """
    with suppress(Absent, Changed), folder_of(file) as folder:
        give_back(folder, file.path.rpartition(b"/")[2], file.seen)


def left(file: File) -> File | None:
    """The file under the name to which it was withdrawn, if it has that yet."""
    folder, slash, name = file.path.rpartition(b"/")
    other = file._replace(path=folder + slash + hidden_of(name))
    return other if stands(other) == "itself" else None


def stands(file: File) -> Literal["itself", "another"] | None:
    """What is at the path of a file: None where nothing is."""
    st = _lstat(file.root + b"/" + file.path)
    if st is None:
        return None
    return "itself" if is_same(st, file.seen) else "another"


def find(file: File, place: Place) -> bytes | None:
    """Where a file lies that does not stand any more; None where it was not taken there.

    Raises:
        Elsewhere: the base is not the folder that is known, and nothing is known.
        OSError: it cannot be looked at.
    """
    with held(place.base, place.guard):
        for candidate in place.candidates:
            st = _lstat(candidate)
            if st is None:
                return None
            # A rename keeps the inode, and a copy is given the time.
            if is_copy(st, file.seen):
                return candidate
    return None


def _rename(source: Opened, file: File, place: Place) -> bytes:
    _expect_writable(place.folder)
    st = os.fstat(source.fd)
    with withdrawn(source.folder, source.name, file.seen) as name:
        for candidate in place.candidates:
            there = _lstat(candidate)
            if there is not None and (there.st_dev, there.st_ino) == (st.st_dev, st.st_ino):
                os.unlink(name, dir_fd=source.folder)  # the very same file, by another link
                return candidate
            with suppress(FileExistsError):
                _rename_one(source.folder, name, candidate, overwrite=place.overwrite)
                return candidate
        raise _full(place)


def _expect_writable(folder: bytes) -> None:
    """Asked before the file is withdrawn: that sets its ctime, though it is given back.

    Where files go by content each try would have it read again.
    """
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        code = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(code, os.strerror(code), folder)


def _rename_one(folder: int, name: bytes, target: bytes, *, overwrite: bool) -> None:
    if overwrite:
        os.rename(name, target, src_dir_fd=folder)
    else:
        rename_new(name, target, folder)


def _carry(
    source: Opened, file: File, place: Place, is_stopped: Callable[[], bool], parts: Parts
) -> bytes:
    """Across file systems: copy, fsync, rename, fsync of the folder, and only then unlink."""
    placed = _copied(source, file, place)
    if placed is None:
        part = part_in(place.folder, file.root, file.path)
        with parts.writing(part):
            try:
                write_copy(source.fd, part, is_stopped)
                expect(os.fstat(source.fd), file.seen)
                placed = _publish(part, place)
            except BaseException:
                with suppress(OSError):
                    os.unlink(part)  # noqa: PTH108 - a path of bytes
                raise
            # Before the record is taken back: that takes time, and the file is in both places.
            return _leave(source, file, place, placed)
    return _leave(source, file, place, placed)


def _leave(source: Opened, file: File, place: Place, placed: bytes) -> bytes:
    sync_folder(place.folder)
    try:
        _remove(source, file.seen)
    except Changed as error:
        if stands(file) == "itself":  # the next try finds the copy, unless it is written to by then
            raise Changed(str(error), placed) from error
    except Absent:
        pass
    # What came to its path since is another one: what was handled is where it belongs.
    return placed


def finish(file: File, place: Place) -> bytes | None:
    """Take away what stands yet though its copy is complete; where that is, None without one.

    Raises as `move`.
    """
    with opened(file, READ) as source, held(place.base, place.guard):
        placed = _copied(source, file, place)
        # A rename leaves nothing half done: on one file system that is another file.
        if placed is None or os.lstat(placed).st_dev == os.fstat(source.fd).st_dev:
            return None
        return _leave(source, file, place, placed)


def _copied(source: Opened, file: File, place: Place) -> bytes | None:
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


def _remove(source: Opened, seen: Fingerprint) -> None:
    """Unlink the file, if it is still what it was and nobody writes to it.

    A read lease is granted only where nobody does, and holds up whoever comes, until it is given
    back. Where none is to be had the comparison has to do.
    """
    leased = _lease(source.fd)
    try:
        with withdrawn(source.folder, source.name, seen) as name:
            os.unlink(name, dir_fd=source.folder)
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


def _lstat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _full(place: Place) -> OSError:
    return FileExistsError(errno.EEXIST, "every numbered name is taken", place.path)
