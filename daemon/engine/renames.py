"""Which row belongs to a file that stands under another path now.

watchfiles does not pair the two ends of a rename, and nobody tells of one that happened while the
daemon was down. So a path whose inode is new there is compared with the rows of that inode. Where
the file system knows no birth times, digests decide, if the watch goes by content.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from daemon.core.model import Fingerprint, Key, Row
from daemon.engine.births import born_ns
from daemon.engine.disk import Question, look_at
from daemon.engine.ledger import Ledger
from daemon.engine.trees import Tree

# `untracked` and `gone` show no inode.
_FOLLOWED = frozenset({"settling", "ready", "processing", "failed", "quarantined", "done", "held"})


class Stranger(NamedTuple):
    """A file whose inode is new at this path, and where it stands for the kernel."""

    key: Key
    absolute: bytes
    seen: Fingerprint


class Origin(NamedTuple):
    """The row of a file that was renamed, and what stands under its former path now.

    `sure`: it is that file; otherwise it is if it has the digest of the row.
    """

    row: Row
    there: Fingerprint | None
    sure: bool = True


class Renames:
    """Finds the rows that renamed files had."""

    def __init__(self, trees: Mapping[str, Tree], ledger: Ledger) -> None:
        self._trees = trees
        self._ledger = ledger

    async def origins(self, strangers: Sequence[Stranger]) -> dict[Key, Origin]:
        """By the path where the file stands now; only those that are, or may be, beyond doubt.

        All are of one tree.

        Raises:
            NoAnswer: its disk hangs.
        """
        if not strangers:
            return {}
        inodes = [each.seen.ino for each in strangers]
        store = self._ledger.store
        rows = await self._ledger.insist("read", lambda: store.by_inode(inodes))
        pairs = list(self._pairs(strangers, rows))
        disk = self._trees[strangers[0].key.watch].disk.looks
        return await disk.run(lambda: _verified(pairs)) if pairs else {}

    async def known(self, inodes: Sequence[int]) -> set[int]:
        """Those among these inode numbers that any row shows, of whatever file."""
        if not inodes:
            return set()
        store = self._ledger.store
        rows = await self._ledger.insist("read", lambda: store.by_inode(inodes))
        return {row.seen.ino for row in rows if row.seen}

    def _pairs(
        self, strangers: Sequence[Stranger], rows: Sequence[Row]
    ) -> "list[tuple[Stranger, Row, bytes]]":
        """Same watch, same inode, same content, another path."""
        by_content = {
            (row.key.watch, row.seen.content): row
            for row in rows
            if row.seen and row.state in _FOLLOWED
        }
        found = []
        for stranger in strangers:
            row = by_content.get((stranger.key.watch, stranger.seen.content))
            if row is not None and row.key != stranger.key:
                path = self._trees[row.key.watch].absolute(row.key.path)
                found.append((stranger, row, path))
        return found


def _verified(pairs: Sequence[tuple[Stranger, Row, bytes]]) -> dict[Key, Origin]:
    found = {}
    for stranger, row, path in pairs:
        there = look_at(Question(path)).seen
        if there is not None and there.ino == stranger.seen.ino:
            continue
        same = _is_same_file(stranger, row)
        if same or (same is None and row.digest is not None):
            found[stranger.key] = Origin(row, there, sure=same is not None)
    return found


def _is_same_file(stranger: Stranger, row: Row) -> bool | None:
    """Not another file that was given the inode of a removed one; None where nobody knows.

    The row's file existed when its ctime was set. Whatever has its inode and was born later is
    another one, whatever mtime a program gave it.
    """
    born = born_ns(stranger.absolute)
    if born is None or row.seen is None:
        return None
    return born <= row.seen.ctime_ns
