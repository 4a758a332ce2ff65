"""What a settling file waits for beside its own quiet, in words: its marker, and its manifest.

For whoever explains a file, from whichever process: asks only the disk, and blocks.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from daemon.config import Watch
from daemon.core.manifest import MAX_BYTES, Fault
from daemon.core.markers import is_current
from daemon.core.model import Fingerprint
from daemon.core.texts import shown
from daemon.engine.disk import Question, look_at, seen_at
from daemon.engine.reading import feed
from daemon.engine.signs import Members, manifests, parse, upwards
from daemon.engine.trees import Tree

# Manifests that are read for one file, the youngest first, and members that are named.
MOST = 1_000
NAMED = 3


class Condition(NamedTuple):
    """One thing that has to be so; `satisfied` is None where only the daemon finds out."""

    name: str
    satisfied: bool | None
    sentence: str


class Listed(NamedTuple):
    """A manifest that names the file."""

    path: bytes
    seen: Fingerprint
    members: Members


def waits_for(watch: Watch, path: bytes) -> list[Condition]:
    """The marker and the manifest that the file at a path below the root needs, if it needs any."""
    tree = Tree(watch)
    seen = seen_at(tree.absolute(path))
    found = []
    if seen is not None and tree.marker is not None:
        found.append(_marker(tree, path, seen))
    if seen is not None and tree.manifests is not None:
        found.append(_manifest(tree, path, seen))
    return found


def _marker(tree: Tree, path: bytes, seen: Fingerprint) -> Condition:
    absolute = tree.marker_of(path)
    if absolute is None:
        return Condition("marker", None, "It is a marker itself, and needs none.")
    name = f"Its marker '{shown(absolute.rpartition(b'/')[2])}'"
    marker = seen_at(absolute)
    if marker is None:
        return Condition("marker", satisfied=False, sentence=f"{name} is not there.")
    if not is_current(marker, seen):
        sentence = f"{name} is older than the file, and counts only when it is made anew."
        return Condition("marker", satisfied=False, sentence=sentence)
    return Condition("marker", satisfied=True, sentence=f"{name} is there.")


def _manifest(tree: Tree, path: bytes, seen: Fingerprint) -> Condition:
    """Of the manifests that name it, the one with which it would settle, or the youngest."""
    faults: list[str] = []
    conditions = [_set(tree, seen, listed) for listed in _listing(tree, path, faults)]
    for condition in conditions:
        if condition.satisfied is not False:
            return condition
    if conditions:
        return conditions[0]
    unusable = f" But {faults[0]}." if faults else ""
    sentence = f"No manifest in its directory or above names it.{unusable}"
    return Condition("manifest", satisfied=False, sentence=sentence)


def _listing(tree: Tree, path: bytes, faults: list[str]) -> Iterator[Listed]:
    """The manifests that name a file, the youngest first; what is wrong with any on the way."""
    found = [each for directory in upwards(path) for each in manifests(tree, directory).items()]
    found.sort(key=lambda each: each[1].mtime_ns, reverse=True)
    for manifest, seen in found[:MOST]:
        members = _read(tree, manifest, seen)
        if isinstance(members, Fault):
            faults.append(f"'{shown(manifest)}' cannot be used: {members}")
        elif path in members:
            yield Listed(manifest, seen, members)


def _read(tree: Tree, path: bytes, seen: Fingerprint) -> Members | Fault:
    chunks: list[bytes] = []
    try:
        feed(tree.absolute(path), seen, chunks.append, lambda: True, MAX_BYTES + 1)
    except OSError as error:
        return Fault(None, error.strerror or str(error))
    return parse(tree, path, b"".join(chunks))


def _set(tree: Tree, seen: Fingerprint, listed: Listed) -> Condition:
    """What is wrong with a set, the worst of it."""
    count = len(listed.members)
    name = f"Its manifest '{shown(listed.path)}'"
    if seen.mtime_ns > listed.seen.mtime_ns:
        sentence = f"{name} is older than the file, and counts only when it is made anew."
        return Condition("manifest", satisfied=False, sentence=sentence)
    for one, several, paths in _amiss(tree, listed):
        if paths:
            words = f"{len(paths)} {one if len(paths) == 1 else several}: {_names(paths)}"
            sentence = f"{name} lists {count} members, of which {words}"
            return Condition("manifest", satisfied=False, sentence=sentence)
    sentence = f"{name} and all of its members ({count}) are there"
    if any(member.checksum for member in listed.members.values()):
        return Condition("manifest", None, f"{sentence}; whether its checksums hold is not known.")
    return Condition("manifest", satisfied=True, sentence=f"{sentence}.")


def _amiss(tree: Tree, listed: Listed) -> list[tuple[str, str, list[bytes]]]:
    """Members by what is wrong with them, in words for one and for several."""
    missing: list[bytes] = []
    unsettled: list[bytes] = []
    newer: list[bytes] = []
    for path in listed.members:
        marker = tree.marker_of(path)
        absolute = tree.absolute(path)
        look = look_at(Question(absolute, None, tree.quiet, tree.probe, marker=marker))
        if look.seen is None:
            missing.append(path)
        elif not look.settled:
            unsettled.append(path)
        elif look.seen.mtime_ns > listed.seen.mtime_ns:
            newer.append(path)
    return [
        ("is not there", "are not there", missing),
        ("has not settled itself", "have not settled themselves", unsettled),
        ("was changed after it was written", "were changed after it was written", newer),
    ]


def _names(paths: Sequence[bytes]) -> str:
    more = ", ..." if len(paths) > NAMED else "."
    return ", ".join(f"'{shown(path)}'" for path in paths[:NAMED]) + more
