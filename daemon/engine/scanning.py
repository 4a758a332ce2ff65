"""Directories against rows: the part of a scan that runs in a thread, some directories at a time.

An unchanged file costs its `lstat` and one comparison here: no object, no trigger, nothing on the
loop.
"""

import os
import stat
from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from daemon.core.model import Fingerprint, Key
from daemon.engine.disk import ABSENT, fingerprint, is_missing
from daemon.engine.trees import Tree
from daemon.store import Known

# Differences in memory; more than that only where one directory has more.
ENOUGH = 20_000
Rows = dict[bytes, Known]
# What these rows show is no concern of a scan: they are there because the file is not.
_ELSEWHERE = frozenset({"processing", "gone", "untracked"})


class Differences(Struct):
    """What a listing of some directories has shown. Paths are below the root of the tree.

    `new`: files without any row, as seen; `back`: files whose row says that they are gone;
    `changed`: names whose row shows something else; `missing`: rows without a file; `sparse`: the
    directories that have such rows. `aside`: what is to be looked at though its row, if it has one,
    shows the same: markers and manifests, which speak for others; and files of which only the ctime
    is another, where a watch goes by content. `unread`: directories that were left for another
    time, for what was found already takes enough memory.
    """

    directories: int = 0
    files: int = 0
    unread: list[bytes] = field(default_factory=list)
    back: list[bytes] = field(default_factory=list)
    new: list[tuple[bytes, Fingerprint]] = field(default_factory=list)
    changed: list[bytes] = field(default_factory=list)
    aside: list[bytes] = field(default_factory=list)
    missing: list[bytes] = field(default_factory=list)
    sparse: list[bytes] = field(default_factory=list)
    folders: list[bytes] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)


class Counts(Struct):
    """What a scan saw, and how many of the files differed from their rows.

    `unannounced`: those that no hint in the inbox speaks of. `shut`: what could not be read.
    """

    directories: int = 0
    files: int = 0
    new: int = 0
    changed: int = 0
    missing: int = 0
    unreadable: int = 0
    unannounced: int = 0
    shut: set[Key] = field(default_factory=set)

    @property
    def found(self) -> int:
        """How many files differed from their rows."""
        return self.new + self.changed + self.missing


def compare_directories(
    tree: Tree, directories: Sequence[bytes], known: Sequence[Rows]
) -> Differences:
    """List each directory and compare it with its rows, which are used up. Blocks."""
    found = Differences()
    for directory, rows in zip(directories, known, strict=True):
        if len(found.new) + len(found.changed) + len(found.aside) > ENOUGH:
            found.unread.append(directory)
            continue
        try:
            _compare(tree, directory, rows, found)
        except OSError as error:
            if error.errno not in ABSENT:
                # What cannot be listed keeps its rows as they are.
                found.unreadable.append((directory, error.strerror or str(error)))
    return found


def missing_in(tree: Tree, directories: Sequence[bytes], known: Sequence[Rows]) -> list[bytes]:
    """The rows of these directories whose files are not there; also where no directory is. Blocks.

    What cannot be looked at is not missing.
    """
    found = Differences()
    for directory, rows in zip(directories, known, strict=True):
        absolute = tree.absolute(directory)
        if is_missing(absolute):
            _miss(directory, rows, found)
        else:
            found.missing += compare_directories(tree, [directory], [rows]).missing
    return found.missing


def vanished(tree: Tree, directories: Iterable[bytes]) -> list[bytes]:
    """Those of the directories that are off the disk. Blocks."""
    return [directory for directory in directories if is_missing(tree.absolute(directory))]


def _compare(tree: Tree, directory: bytes, rows: Rows, found: Differences) -> None:
    prefix = directory + b"/" if directory else b""
    take, is_file = rows.pop, stat.S_ISREG
    unchanged = 0
    with os.scandir(tree.absolute(directory)) as entries:
        found.directories += 1
        for entry in entries:
            # The usual case in line: a million of them are half a second of calls.
            name = entry.name
            row = rows.get(name)
            if row is not None:
                st = _stat(entry)
                if (
                    st is not None
                    and row[2] == st.st_mtime_ns
                    and row[0] == st.st_ino
                    and row[1] == st.st_size
                    and (row[5] is None or row[5] == st.st_ctime_ns)
                    and is_file(st.st_mode)
                ):
                    take(name)
                    unchanged += 1
                    continue
            _see(tree, entry, prefix + name, rows, found)
    found.files += unchanged
    _miss(directory, rows, found)


def _stat(entry: os.DirEntry[bytes]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:
        return None


def _see(
    tree: Tree, entry: os.DirEntry[bytes], path: bytes, rows: Rows, found: Differences
) -> None:
    """A row that is left in `rows` is missing: something else stands there, or nothing any more."""
    try:
        st = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    except OSError as error:
        rows.pop(entry.name, None)
        found.unreadable.append((path, error.strerror or str(error)))
        return
    if not stat.S_ISREG(st.st_mode):
        _see_other(tree, path, st.st_mode, found)
        return
    found.files += 1
    row = rows.pop(entry.name, None)
    if row is None:
        if tree.wants(path):
            found.new.append((path, fingerprint(st)))
        elif tree.is_sign(path):
            found.aside.append(path)
    elif row.mtime_ns != st.st_mtime_ns or row.ino != st.st_ino or row.size != st.st_size:
        _differ(path, row, st, found)
    elif row.ctime_ns is not None and row.ctime_ns != fingerprint(st).ctime_ns:
        found.aside.append(path)


def _see_other(tree: Tree, path: bytes, mode: int, found: Differences) -> None:
    if not stat.S_ISDIR(mode):
        found.others.append(path)
    elif tree.matcher.enters(path):
        found.folders.append(path)


def _differ(path: bytes, row: Known, st: os.stat_result, found: Differences) -> None:
    # Once more as the database has it: 64 bits do not fit there, and such a number is kept wrapped.
    seen = fingerprint(st)
    if (row.ino, row.size, row.mtime_ns) != (seen.ino, seen.size, seen.mtime_ns):
        (found.back if row.state == "gone" else found.changed).append(path)


def _miss(directory: bytes, rows: Rows, found: Differences) -> None:
    prefix = directory + b"/" if directory else b""
    missing = [
        prefix + name
        for name, row in rows.items()
        if row.state not in _ELSEWHERE and row.plan == "process"
    ]
    if missing:
        found.missing += missing
        found.sparse.append(directory)
