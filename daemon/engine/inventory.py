"""Which members of a set are as its manifest wants them, and which keep it back.

As the daemon judges it, but asked from whichever process, of the disk and of the rows. Blocks.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from daemon.core.manifest import MAX_BYTES, Checksum, Fault
from daemon.core.model import Fingerprint, Row
from daemon.core.settle import SETTLED, Inventory, Lack, Look
from daemon.engine.disk import Question, look_at, seen_at
from daemon.engine.identity import RootId, find_root
from daemon.engine.names import Names
from daemon.engine.reading import feed, new_hash
from daemon.engine.signs import Members, parse

# Bytes that are read for one answer to compare checksums, 10 to 20 ms of work; opening a file
# costs as much as reading so many of them.
READ = 16 * 1024 * 1024
OPENING = 16 * 1024
# What there is at a path that is no member's file. Without a look at the root nothing is absent.
_NO_FILE: dict[str, Lack] = {"absent": "missing", "error": "unseen"}
Rows = Callable[[bytes], Row | None]


class Listed(NamedTuple):
    """A manifest as it was seen, and what it says."""

    path: bytes
    seen: Fingerprint
    members: Members


class Inspector:
    """Looks at sets for one answer. `rows`: what is on record of a path below the root."""

    def __init__(self, names: Names, rows: Rows) -> None:
        self._names = names
        self._rows = rows
        root = find_root(names.root)
        self._root = root if isinstance(root, RootId) else None
        self._folders: dict[bytes, bool] = {}
        self._left = READ

    def read(self, path: bytes) -> Listed | Fault:
        """A manifest and its members; why it cannot be used, if so."""
        chunks: list[bytes] = []
        absolute = self._names.absolute(path)
        seen = seen_at(absolute)
        try:
            if seen is None or not feed(absolute, seen, chunks.append, lambda: True, MAX_BYTES + 1):
                return Fault(None, "it is not there, or is being changed")
        except OSError as error:
            return Fault(None, error.strerror or str(error))
        members = parse(self._names, path, b"".join(chunks))
        return members if isinstance(members, Fault) else Listed(path, seen, members)

    def has_settled(self, path: bytes) -> bool:
        """A manifest is followed once it is quiet, and nobody has it open for writing."""
        return self._look(path, None).settled

    def take(self, listed: Listed, first: Iterable[bytes] = ()) -> Inventory:
        """All of a set; the checksums of the `first` members are compared before the others'."""
        looks = {path: self._look(path, self._names.marker_of(path)) for path in listed.members}
        rows = {path: self._rows(path) for path in listed.members}
        lacks = {path: _lack(look, rows[path], listed.seen) for path, look in looks.items()}
        for path in dict.fromkeys([*first, *listed.members]):
            seen, checksum = looks[path].seen, listed.members[path].checksum
            if seen is not None and checksum is not None and lacks[path] is None:
                lacks[path] = self._compare(path, seen, checksum)
        settled = sum(_has_settled(looks[path], rows[path]) for path in looks)
        return Inventory(listed.path, lacks, settled)

    def _look(self, path: bytes, marker: bytes | None) -> Look:
        names = self._names
        question = Question(names.absolute(path), self._root, names.quiet, names.probe)
        return look_at(question._replace(marker=marker), self._folders)

    def _compare(self, path: bytes, seen: Fingerprint, checksum: Checksum) -> Lack | None:
        self._left -= max(seen.size, OPENING) * len(checksum.algorithms)
        if self._left < 0:
            return "unread"
        try:
            digests = list(self._digests(self._names.absolute(path), seen, checksum))
        except OSError:
            return "unread"
        if checksum.digest in digests:
            return None
        return "unread" if None in digests else "mismatched"

    def _digests(self, path: bytes, seen: Fingerprint, checksum: Checksum) -> Iterator[str | None]:
        """By each of the algorithms that it may be of; None where the file is another by now."""
        for hashed in map(new_hash, checksum.algorithms):
            yield hashed.hexdigest() if feed(path, seen, hashed.update, lambda: True) else None


def _has_settled(look: Look, row: Row | None) -> bool:
    """Before, and it is what it was then."""
    known = row.seen if row is not None and row.state in SETTLED else None
    return known is not None and look.seen is not None and known.content == look.seen.content


def _lack(look: Look, row: Row | None, manifest: Fingerprint) -> Lack | None:
    if look.seen is None:
        return _NO_FILE.get(look.kind, "irregular")
    if row is not None and row.state == "held":
        return "held"
    if not look.settled and not _has_settled(look, row):
        return "unsettled"
    return "newer" if look.seen.mtime_ns > manifest.mtime_ns else None
