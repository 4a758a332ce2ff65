"""What a file waits for beside its own quiet, in words: its marker, its set, its digest.

For whoever explains a file, from whichever process. Blocks. A name stands in a sentence as
`os.fsdecode` has it: who shows it escapes it.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from daemon.config import Watch
from daemon.core.manifest import Fault
from daemon.core.markers import is_current
from daemon.core.model import Fingerprint
from daemon.core.settle import Condition, Inventory, Lack
from daemon.engine.disk import seen_at
from daemon.engine.inventory import Inspector, Listed, Rows
from daemon.engine.names import Names
from daemon.engine.signs import manifests, upwards

# Manifests that are read for one file, the youngest first; of those that list it, so many are
# compared with what is there.
READ = 1_000
COMPARED = 10
# Names in a sentence.
NAMED = 10
# What members lack, in words for one and for several, the most telling first.
_LACKS: dict[Lack, tuple[str, str]] = {
    "missing": ("is not there", "are not there"),
    "irregular": ("is no regular file", "are no regular files"),
    "unseen": ("cannot be looked at", "cannot be looked at"),
    "held": ("is held back", "are held back"),
    "unsettled": ("has not settled itself", "have not settled themselves"),
    "newer": ("was changed after it was written", "were changed after it was written"),
    "mismatched": ("has another checksum", "have other checksums"),
}


def waits_for(watch: Watch, path: bytes, rows: Rows) -> list[Condition]:
    """What the file at a path below the root needs beside itself; nothing where there is none.

    `rows`: what is on record of a path, for a member counts that has settled before.
    """
    names = Names(watch)
    seen = seen_at(names.absolute(path))
    if seen is None:
        return []
    if names.is_sign(path):
        # Its row is of before its watch knew of signs.
        sentence = "It has the name of a marker or a manifest, which is no file to its watch."
        return [Condition("sign", satisfied=False, sentence=sentence)]
    found = []
    if names.marker is not None:
        found.append(_marker(names, names.marker.marker_of(path), seen))
    if names.manifests is not None:
        found.append(_manifest(names, path, seen, Inspector(names, rows)))
    if watch.identity == "content":
        sentence = "When nothing else is missing it is read, and settles with its digest."
        found.append(Condition("digest", None, sentence))
    return found


def speaks_for(watch: Watch, path: bytes, rows: Rows) -> list[Condition]:
    """Where there is a manifest at this path: what its set waits for."""
    names = Names(watch)
    if not names.is_manifest(path) or seen_at(names.absolute(path)) is None:
        return []
    inspector = Inspector(names, rows)
    listed = inspector.read(path)
    if isinstance(listed, Fault):
        sentence = f"It cannot be used: {listed}."
        return [Condition("manifest", satisfied=False, sentence=sentence)]
    return [_set("It", inspector, listed)]


def _marker(names: Names, path: bytes, seen: Fingerprint) -> Condition:
    marker, name = seen_at(names.absolute(path)), f"Its marker {_name(path)}"
    if marker is None:
        return Condition("marker", satisfied=False, sentence=f"{name} is not there.")
    if not is_current(marker, seen):
        return Condition("marker", satisfied=False, sentence=_too_old(name))
    return Condition("marker", satisfied=True, sentence=f"{name} is there.")


def _manifest(names: Names, path: bytes, seen: Fingerprint, inspector: Inspector) -> Condition:
    """Of the manifests that name it, the one with which it would settle, or the youngest."""
    found = [each for directory in upwards(path) for each in manifests(names, directory).items()]
    found.sort(key=lambda each: each[1].mtime_ns, reverse=True)
    faults: list[str] = []
    listing = _listing([manifest for manifest, _ in found], path, inspector, faults)
    conditions = []
    for listed in islice(listing, COMPARED):
        condition = _member(path, seen, inspector, listed)
        if condition.satisfied is not False:
            return condition
        conditions.append(condition)
    if conditions:
        return conditions[0]
    sentence = _unnamed([manifest for manifest, _ in found]) + (f" {faults[0]}" if faults else "")
    return Condition("manifest", satisfied=False, sentence=sentence)


def _listing(
    found: Sequence[bytes], path: bytes, inspector: Inspector, faults: list[str]
) -> Iterator[Listed]:
    """The manifests that name a file; what is wrong with any on the way."""
    for manifest in found[:READ]:
        listed = inspector.read(manifest)
        if isinstance(listed, Fault):
            faults.append(f"{_name(manifest)} cannot be used: {listed}.")
        elif path in listed.members:
            yield listed


def _unnamed(found: Sequence[bytes]) -> str:
    if not found:
        return "It waits for a manifest that names it: there is none in its directory or above."
    return f"No manifest in its directory or above names it. There are: {named(found)}."


def _member(path: bytes, seen: Fingerprint, inspector: Inspector, listed: Listed) -> Condition:
    name = f"Its manifest {_name(listed.path)}"
    if seen.mtime_ns > listed.seen.mtime_ns:
        return Condition("manifest", satisfied=False, sentence=_too_old(name))
    return _set(name, inspector, listed, path)


def _set(subject: str, inspector: Inspector, listed: Listed, *first: bytes) -> Condition:
    """What keeps a set back: all of it."""
    inventory = inspector.take(listed, first)
    count = len(inventory.members)
    lacking = list(_lacking(inventory))
    members = f"{count} member{'' if count == 1 else 's'}"
    there = f"{subject} and all of its members ({count}) are there"
    satisfied: bool | None = not lacking
    if not count:
        words = f"{subject} lists no members"
    elif lacking:
        words = f"{subject} lists {members}, of which {'; '.join(lacking)}"
    elif inventory.is_over:
        words = f"{subject} lists {members}, and all of them have settled"
    elif not inspector.has_settled(listed.path):
        satisfied, words = False, f"{subject} has not settled itself"
    elif unread := sum(lack == "unread" for lack in inventory.members.values()):
        satisfied = None
        words = f"{there}; whether the checksums of {unread} of them hold is not known"
    elif any(member.checksum for member in listed.members.values()):
        words = f"{there}, and their checksums hold"
    else:
        words = there
    return Condition("manifest", satisfied, f"{words}.", inventory)


def _lacking(inventory: Inventory) -> Iterator[str]:
    for lack, (one, several) in _LACKS.items():
        if paths := [path for path, lacks in inventory.members.items() if lacks == lack]:
            yield f"{len(paths)} {one if len(paths) == 1 else several}: {named(paths)}"


def named(paths: Collection[bytes]) -> str:
    """The first few of these, each in quotes."""
    more = ", ..." if len(paths) > NAMED else ""
    return ", ".join(map(_name, islice(paths, NAMED))) + more


def _name(path: bytes) -> str:
    return f"'{os.fsdecode(path)}'"


def _too_old(name: str) -> str:
    return f"{name} is older than the file, and counts only when it is made anew."
