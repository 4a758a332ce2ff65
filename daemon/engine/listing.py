"""A directory as the disk shows it, against its rows: what differs, whatever the watch wants of it.

Imports next to nothing: it runs in the daemon's own thread and in the processes that help with a
large scan (`compare_child`). An unchanged file costs its `lstat` and one comparison.
"""

import errno
import marshal
import os
import stat
from _blake2 import blake2b  # `hashlib` brings OpenSSL with it: 4 MB

from daemon.engine.sight import numbers_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeAlias

    from daemon.engine.sight import Numbers
    from daemon.store import Known

    Rows: TypeAlias = "dict[bytes, Known]"
    # A file's name, inode, size and mtime.
    Content: TypeAlias = "tuple[bytes, int | None, int | None, int | None]"
    # How many files there are in a directory, and a digest of their contents.
    Summary: TypeAlias = "tuple[int, bytes]"

ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
# Differences in memory; more than that only where one directory has more.
ENOUGH = 10_000
# Files that are compared in one go, which takes 0.1 s: two who share a tree end at the same time.
TURN = 20_000
# What these rows show is no concern of a scan: they are there because the file is not.
_ELSEWHERE = frozenset({"processing", "gone", "untracked"})


class Listing:
    """What a listing of some directories has shown. Paths are below the root of the tree.

    `new`: files without any row, as seen; `back`: files whose row says that they are gone;
    `changed`: names whose row shows something else; `missing`: rows without a file; `sparse`: the
    directories that have such rows. `aside`: files of which only the ctime is another, where a
    watch goes by content. `unreadable`: what the kernel would not show, with the number of its
    error. `unread`: directories that were left for another time, for what was found
    already takes enough memory, or time.
    """

    def __init__(self) -> None:
        self.directories = self.files = 0
        self.unread: list[bytes] = []
        self.back: list[bytes] = []
        self.new: list[tuple[bytes, Numbers]] = []
        self.changed: list[bytes] = []
        self.aside: list[bytes] = []
        self.missing: list[bytes] = []
        self.sparse: list[bytes] = []
        self.folders: list[bytes] = []
        self.others: list[bytes] = []
        self.unreadable: list[tuple[bytes, int]] = []

    @property
    def is_full(self) -> bool:
        """Whether the next directory is for another time."""
        differences = len(self.new) + len(self.changed) + len(self.back) + len(self.aside)
        return self.files >= TURN or differences > ENOUGH

    def compare_all(
        self,
        root: bytes,
        directories: "Iterable[bytes]",
        rows_of: "Callable[[bytes], Rows]",
        summary_of: "Callable[[bytes], Summary | None]" = lambda _: None,
    ) -> None:
        """List each directory and compare it with its rows, which are used up. Blocks.

        Where the summary of a directory's rows is known, they are read only if it shows another.
        """
        for directory in directories:
            if self.is_full:
                self.unread.append(directory)
                continue
            summary = summary_of(directory)
            if summary is not None and self._is_as(root, directory, summary):
                continue
            rows = rows_of(directory)
            try:
                self._compare(root, directory, rows)
            except OSError as error:
                if error.errno not in ABSENT:
                    # What cannot be listed keeps its rows as they are.
                    self.unreadable.append((directory, error.errno or 0))

    def miss(self, directory: bytes, rows: "Mapping[bytes, Known]") -> None:
        """Nothing is there that these rows would show."""
        prefix = directory + b"/" if directory else b""
        missing = [
            prefix + name
            for name, row in rows.items()
            if row[3] not in _ELSEWHERE and row[4] == "process"
        ]
        if missing:
            self.missing += missing
            self.sparse.append(directory)

    def _is_as(self, root: bytes, directory: bytes, summary: "Summary") -> bool:
        """Whether a directory has the files that its rows show, and no others."""
        prefix = directory + b"/" if directory else b""
        files: list[os.DirEntry[bytes]] = []
        rest = Listing()
        try:
            with os.scandir(root + b"/" + directory if directory else root) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False):
                        files.append(entry)
                    else:
                        rest._see(entry, prefix + entry.name, {})
            is_same = len(files) == summary[0] and summarize(map(_content, files)) == summary
        except OSError:
            # Whatever that is, the comparison with the rows meets it as well.
            return False
        if not is_same or rest.files or rest.unreadable:
            return False
        self.directories += 1
        self.files += len(files)
        self.folders += rest.folders
        self.others += rest.others
        return True

    def _compare(self, root: bytes, directory: bytes, rows: "Rows") -> None:
        prefix = directory + b"/" if directory else b""
        take, is_file = rows.pop, stat.S_ISREG
        unchanged = 0
        with os.scandir(root + b"/" + directory if directory else root) as entries:
            self.directories += 1
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
                self._see(entry, prefix + name, rows)
        self.files += unchanged
        self.miss(directory, rows)

    def _see(self, entry: os.DirEntry[bytes], path: bytes, rows: "Rows") -> None:
        """A row that is left in `rows` is missing: something else stands there, or nothing."""
        try:
            st = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError as error:
            rows.pop(entry.name, None)
            self.unreadable.append((path, error.errno or 0))
            return
        if stat.S_ISREG(st.st_mode):
            self.files += 1
            self._see_file(path, numbers_of(st), rows.pop(entry.name, None))
        elif stat.S_ISDIR(st.st_mode):
            self.folders.append(path)
        else:
            self.others.append(path)

    def _see_file(self, path: bytes, seen: "Numbers", row: "Known | None") -> None:
        size, mtime_ns, ctime_ns, ino, _ = seen
        if row is None:
            self.new.append((path, seen))
        elif row[:3] != (ino, size, mtime_ns):
            (self.back if row[3] == "gone" else self.changed).append(path)
        elif row[5] is not None and row[5] != ctime_ns:
            self.aside.append(path)


def summarize(contents: "Iterable[Content]") -> "Summary":
    """The same for the same contents, in whatever order, and for no others."""
    listed = sorted(contents)
    # Version 2 knows no references between equal parts: the same values, the same bytes.
    return len(listed), blake2b(marshal.dumps(listed, 2), digest_size=16).digest()


def _content(entry: os.DirEntry[bytes]) -> "Content":
    st = entry.stat(follow_symlinks=False)
    return entry.name, st.st_ino, st.st_size, st.st_mtime_ns


def _stat(entry: os.DirEntry[bytes]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:
        return None
