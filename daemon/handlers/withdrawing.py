"""Withdraws a file from its name before it is taken away, and gives back what is another after all.

Between a look at a file and its rename or unlink somebody may put another one in its place, and no
call compares. Under a name of ours nobody does: there one more look tells. Whoever is killed
meanwhile leaves the file there, and the next start gives it back.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from daemon.core.hidden import hidden
from daemon.core.model import Fingerprint
from daemon.core.targets import numbered
from daemon.handlers.below import Absent, Changed
from daemon.handlers.opened import is_same
from daemon.handlers.renaming import rename_new


def hidden_of(name: bytes) -> bytes:
    """The other name of a file in its folder: from its own name alone, so that it is found."""
    host = os.fsencode(os.uname().nodename)  # others may take files from the folder as well
    return hidden("withdrawn", host, name)


@contextmanager
def withdrawn(folder: int, name: bytes, seen: Fingerprint) -> Iterator[bytes]:
    """Have a file under another name in its open folder; with an error it has its own again.

    Raises:
        Absent: nothing is there.
        Changed: it was not the file that was seen, and is given back.
        OSError: it cannot be renamed.
    """
    other = hidden_of(name)
    _take(folder, name, other)
    try:
        if not _shows(folder, other, seen):
            raise Changed("it changed while it was taken away")  # noqa: TRY301 - and is given back
        yield other
    except BaseException as error:
        given = None
        with suppress(OSError):  # what stays is found by the next start, or by a scan
            given = give_back(folder, name)
        if given not in {name, None} and isinstance(error, Changed):
            raise Changed(f"{error}, twice: one is {os.fsdecode(given)} now") from error
        raise


def give_back(folder: int, name: bytes, seen: Fingerprint | None = None) -> bytes | None:
    """Give what was withdrawn its name, or the first numbered one that is free; returns which.

    None where nothing was, or it is the very file that was `seen`, and another has its name.

    Raises:
        OSError: it cannot be renamed.
    """
    other = hidden_of(name)
    for candidate in numbered(name):
        try:
            rename_new(other, candidate, folder, folder)
        except FileNotFoundError:
            return None
        except FileExistsError:
            if seen is not None and _shows(folder, other, seen):
                return None
        else:
            return candidate
    return None


def _take(folder: int, name: bytes, other: bytes) -> None:
    try:
        try:
            rename_new(name, other, folder, folder)
        except FileExistsError:  # a kill has left one of which no start knew
            give_back(folder, name)
            rename_new(name, other, folder, folder)
    except FileNotFoundError as error:
        raise Absent("nothing is there any more") from error


def _shows(folder: int, name: bytes, seen: Fingerprint) -> bool:
    try:
        return is_same(os.stat(name, dir_fd=folder, follow_symlinks=False), seen)
    except FileNotFoundError as error:  # somebody has removed it, though the name is ours
        raise Absent("nothing is there any more") from error
