"""Directories against rows: the part of a scan that runs in threads, some directories at a time.

`listing` finds what differs; here it is sifted by what the watch wants.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from daemon.core.hidden import is_hidden
from daemon.core.model import Fingerprint, Key
from daemon.engine.clock import now_us
from daemon.engine.disk import is_missing
from daemon.engine.listing import Listing
from daemon.engine.sight import is_inside
from daemon.engine.trees import Tree
from daemon.store import Known

Rows = dict[bytes, Known]
# For so long a file may have a name of ours while it is taken away or written. One that has it for
# longer was left by a kill, and is a file like others.
PASSING_US = 10_000_000


class Differences(Struct):
    """What a `Listing` has shown, as far as the watch wants it.

    `folders` are those to be entered. `aside` are, besides, markers and manifests, which have no
    rows and speak for others.
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
    unreadable: list[tuple[bytes, int]] = field(default_factory=list)


class Counts(Struct):
    """What a scan saw, and how many of the files differed from their rows.

    `whole`: it was one of a tree, and not of parts of it. `unannounced`: those of which no hint,
    and no scan before, had told yet. `shut`: what could not be read.
    """

    whole: bool = False
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

    def stand_as_found(self, tree: Tree) -> bool:
        """Whether new files need no look before they are on record.

        While a tree is adopted those do that a part of it shows. It is scanned for a folder that is
        new, and that may have been renamed: its files have rows then, and a ctime of before.
        """
        return self.whole or not tree.adopt_before


def compare_directories(
    tree: Tree, directories: Sequence[bytes], known: Sequence[Rows]
) -> Differences:
    """List each directory and compare it with its rows, which are used up. Blocks."""
    found, rows = Listing(), iter(known)
    found.compare_all(tree.root, directories, lambda _: next(rows))
    return sift(tree, vars(found))


def sift(tree: Tree, listing: Mapping[str, Any]) -> Differences:
    """Of the attributes of a `Listing`, what concerns the watch."""
    found = Differences(**listing)
    found.folders = [folder for folder in found.folders if tree.matcher.enters(folder)]
    new, found.new = found.new, []
    for path, shown in new:
        seen = Fingerprint._make(shown)
        if is_hidden(path) and _is_passing(seen):
            continue
        if tree.wants(path):
            found.new.append((path, seen))
        elif tree.is_sign(path):
            found.aside.append(path)
    return found


def _is_passing(seen: Fingerprint) -> bool:
    return abs(now_us() - seen.ctime_ns // 1_000) < PASSING_US


def missing_in(tree: Tree, directories: Sequence[bytes], known: Sequence[Rows]) -> list[bytes]:
    """The rows of these directories whose files are not there; also where no directory is. Blocks.

    What cannot be looked at is not missing.
    """
    missing: list[bytes] = []
    folders: dict[bytes, bool] = {}
    for directory, rows in zip(directories, known, strict=True):
        found = Listing()
        if _is_away(tree, directory, folders):
            found.miss(directory, rows)
        else:
            found.compare_all(tree.root, [directory], {directory: rows}.__getitem__)
        missing += found.missing
    return missing


def vanished(tree: Tree, directories: Iterable[bytes]) -> list[bytes]:
    """Those of the directories that are off the disk, or behind a link, out of the tree. Blocks."""
    folders: dict[bytes, bool] = {}
    return [directory for directory in directories if _is_away(tree, directory, folders)]


def standing(tree: Tree, directories: Iterable[bytes]) -> list[bytes]:
    """The others: to list a link would be to list whatever it leads to. Blocks."""
    folders: dict[bytes, bool] = {}
    return [directory for directory in directories if not _is_away(tree, directory, folders)]


def _is_away(tree: Tree, directory: bytes, folders: dict[bytes, bool]) -> bool:
    path = tree.absolute(directory)
    return is_missing(path) or not is_inside(path, tree.root, folders)
